//! Filters on records of one event: the lines of fixtures/DIFFERENCES.md about `report -F`, where the reference crashes, refuses or
//! misreads an expression.
#![allow(clippy::unwrap_used)]

use trace_dat::{
    Decoder, DecoderParts, Endian, Error, LongSize, Lost, Record,
    filter::{Filter, FilterSet, FilterState},
    lazy::{FormatText, FormatTexts, LazyFormats},
};

const FORMAT: &str = "name: ev\nID: 3000\nformat:\n\
    \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
    \tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n\
    \tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n\
    \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
    \tfield:int num;\toffset:8;\tsize:4;\tsigned:1;\n\
    \tfield:unsigned char b;\toffset:12;\tsize:1;\tsigned:0;\n\
    \tfield:char s[8];\toffset:16;\tsize:8;\tsigned:0;\n\
    \tfield:struct three t;\toffset:24;\tsize:3;\tsigned:0;\n\nprint fmt: \"%d\", REC->num\n";

/// A stack: what follows an event shares its fate.
const STACK: &str = "name: kernel_stack\nID: 4\nformat:\n\
    \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
    \tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n\
    \tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n\
    \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\nprint fmt: \"\"\n";

fn decoder() -> Decoder {
    let mut parts = DecoderParts::new(Endian::Little, LongSize::Eight, 4096);
    parts.formats = LazyFormats::Texts(FormatTexts {
        systems: vec!["test".into(), "ftrace".into()],
        files: vec![
            FormatText { system: 0, range: 0..FORMAT.len() },
            FormatText { system: 1, range: FORMAT.len()..FORMAT.len() + STACK.len() },
        ],
        text: [FORMAT, STACK].concat().into_bytes(),
    });
    Decoder::new(parts)
}

/// Whether the filter lets a record with these values pass.
fn accepts(filter: &str, num: i32, b: u8, s: &str) -> bool {
    let dec = decoder();
    let mut data = vec![0xb8, 0x0b, 0, 0, 42, 0, 0, 0];
    data.extend_from_slice(&num.to_le_bytes());
    data.extend_from_slice(&[b, 0, 0, 0]);
    data.extend_from_slice(s.as_bytes());
    data.resize(24, 0);
    data.extend_from_slice(&[1, 0, 0, 0]);
    let rec = Record { ts: 1, cpu: 0, lost: Lost::None, data: &data, offset: 0 };
    Filter::new(&dec, filter).unwrap_or_else(|e| panic!("{e}")).accepts(&dec, &rec, 0).unwrap()
}

fn refused(filter: &str) -> (usize, String) {
    match Filter::new(&decoder(), filter) {
        Err(Error::Filter { at, why, .. }) => (at, why),
        other => panic!("{filter}: {other:?}"),
    }
}

#[test]
fn numbers_below_zero() {
    assert!(accepts("ev: num == -1", -1, 0, ""));
    assert!(!accepts("ev: num == -1", 1, 0, ""), "as if it were num - 1");
    assert!(accepts("ev: num == +1", 1, 0, "") && !accepts("ev: num == +1", 2, 0, ""));
}

#[test]
fn arithmetic_on_both_sides() {
    assert!(accepts("ev: (num & 1) == 1", 3, 0, "") && !accepts("ev: (num & 1) == 1", 2, 0, ""));
    assert!(accepts("ev: num == 1 + 2", 3, 0, "") && !accepts("ev: num == 1 + 2", 1, 0, ""));
    assert!(accepts("ev: 3 == num", 3, 0, "") && !accepts("ev: 3 == num", 4, 0, ""));
    assert!(accepts("ev: 3 < num", 4, 0, "") && !accepts("ev: 3 < num", 2, 0, ""));
    assert!(
        accepts("ev: num > b", 4, 3, "") && !accepts("ev: num > b", 3, 3, "") && accepts("ev: num + 1 > b", 3, 3, "")
    );
}

#[test]
fn characters_and_commas_in_quotes() {
    assert!(accepts("ev: b == 'c'", 0, b'c', "") && !accepts("ev: b == 'c'", 0, b'd', ""));
    assert!(accepts("ev: s == \"a,b\"", 0, 0, "a,b") && !accepts("ev: s == \"a,b\"", 0, 0, "a"));
}

#[test]
fn a_zero_divisor_gives_zero() {
    assert!(!accepts("ev: num / 0", 7, 0, "") && accepts("ev: !(num % 0)", 7, 0, ""));
    assert!(accepts("ev: num / b == 0", 7, 0, "") && accepts("ev: num / b == 7", 7, 1, ""));
}

#[test]
fn what_cannot_be_read_is_told_with_its_place() {
    for (filter, at, word) in [
        ("ev: num == ", 11, "ends"),
        ("ev: s == \"abc", 9, "quote"),
        ("ev: num == 1 rest", 13, "operator"),
        ("ev: num == 1x", 11, "number"),
        ("ev: num <> 1", 9, "expected"),
        ("ev: COMM > 2", 0, "quotes"),
        ("other: num == 1", 0, "other"),
    ] {
        let (found, why) = refused(filter);
        assert!(found == at && why.contains(word), "{filter}: {found} {why}");
    }
}

/// The reference ends by a signal where a field has a size that no number has, as arguments of system calls had.
#[test]
fn a_field_of_a_size_without_a_number() {
    assert!(!accepts("ev: t > 100", 0, 0, ""));
    assert!(accepts("ev: t > 100 || num == 7", 7, 0, ""));
}

/// A record of CPU `cpu`: an event that the filter shows or not, or a stack.
fn decide(set: &FilterSet, dec: &Decoder, state: &mut FilterState, cpu: u32, num: Option<i32>) -> Option<bool> {
    let mut data = if num.is_some() { vec![0xb8, 0x0b] } else { vec![4, 0] };
    data.extend_from_slice(&[0, 0, 42, 0, 0, 0]);
    data.extend_from_slice(&num.unwrap_or(0).to_le_bytes());
    data.resize(28, 0);
    set.decide(state, dec, &Record { ts: 1, cpu, lost: Lost::None, data: &data, offset: 0 }, 0)
}

/// A pass that begins in the middle does not know whether the first stack of a CPU is shown, until it is told.
#[test]
fn stacks_in_the_middle_of_a_file() {
    let dec = decoder();
    let mut set = FilterSet::new(&dec);
    set.add(Filter::new(&dec, "ev: num == 1").unwrap(), false);
    let ask = |state: &mut FilterState, cpu, num| decide(&set, &dec, state, cpu, num);

    let mut start = FilterState::default();
    assert_eq!([ask(&mut start, 0, None), ask(&mut start, 0, Some(2)), ask(&mut start, 0, None)], [Some(false); 3]);
    assert_eq!([ask(&mut start, 0, Some(1)), ask(&mut start, 0, Some(2)), ask(&mut start, 0, None)], {
        [Some(true), Some(false), Some(true)]
    });
    assert_eq!(ask(&mut start, 0, None), Some(false), "one stack for an event");
    assert_eq!(ask(&mut start, 1, Some(1)), Some(true));

    let mut middle = FilterState::middle();
    assert_eq!([ask(&mut middle, 1, Some(2)), ask(&mut middle, 1, None), ask(&mut middle, 0, None)], {
        [Some(false), None, None]
    });
    assert_eq!([ask(&mut middle, 2, Some(1)), ask(&mut middle, 2, None)], [Some(true), Some(true)]);
    let unknown = middle.clone();
    middle.follow(&start);
    assert_eq!(
        [0, 1, 2, 3].map(|cpu| ask(&mut middle, cpu, None)),
        [Some(false), Some(true), Some(false), Some(false)]
    );
    let mut after = FilterState::middle();
    after.follow(&unknown);
    assert_eq!([1, 2, 3].map(|cpu| ask(&mut after, cpu, None)), [None, Some(false), None]);
}
