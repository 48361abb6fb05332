//! Single events in both looks, print fmt and raw fields: what the reference prints for the same bytes.
//!
//! The expected texts were read from C trace-cmd 3.4, except where a comment says so (lines of fixtures/DIFFERENCES.md).
#![allow(clippy::unwrap_used)]

use trace_dat::{
    Decoder, DecoderParts, Endian, LongSize, Lost, Record, TraceFile,
    format::Event,
    lazy::{FormatText, FormatTexts, LazyFormats},
    pen::{Pen, Sheet},
    plugin::{Note, PrintCx},
};

const COMMON: &str = "\
    \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
    \tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n\
    \tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n\
    \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n";

/// A machine with one event and a few symbols.
struct Machine {
    endian: Endian,
    dec: Decoder,
}

impl Machine {
    /// `fields`: declaration, offset, size, signed.
    fn new(endian: Endian, fields: &[(&str, usize, usize, u8)], fmt: &str, raw: bool) -> Machine {
        Machine::named(endian, ("test", "ev"), fields, fmt, raw)
    }

    /// With this system and name of the event.
    fn named(
        endian: Endian,
        (system, name): (&str, &str),
        fields: &[(&str, usize, usize, u8)],
        fmt: &str,
        raw: bool,
    ) -> Machine {
        let fields: String = fields
            .iter()
            .map(|(decl, at, size, signed)| format!("\tfield:{decl};\toffset:{at};\tsize:{size};\tsigned:{signed};\n"))
            .collect();
        let text = format!("name: {name}\nID: 3000\nformat:\n{COMMON}\n{fields}\nprint fmt: {fmt}\n");
        let mut parts = DecoderParts::new(endian, LongSize::Eight, 4096);
        let range = 0..text.len();
        parts.formats = LazyFormats::Texts(FormatTexts {
            systems: vec![system.into()],
            files: vec![FormatText { system: 0, range }],
            text: text.into_bytes(),
        });
        parts.options.raw = raw;
        Machine { endian, dec: Decoder::new(parts) }
    }

    fn event(&self) -> Option<&Event> {
        self.dec.find_event(Some("test"), "ev")
    }

    /// The text of a record with this payload; `behind` is what follows the record in its block.
    fn print(&self, payload: &[u8], behind: &[u8]) -> String {
        let mut data = self.endian.from_u16(3000).to_vec();
        data.extend_from_slice(&[0, 0]);
        data.extend_from_slice(&self.endian.from_u32(42));
        data.extend_from_slice(payload);
        let len = data.len();
        data.extend_from_slice(behind);
        let rec = Record { ts: 1000, cpu: 0, lost: Lost::None, data: &data[..len], offset: 0 };
        let event = self.dec.event_of(&data).unwrap();
        let cx = PrintCx { dec: &self.dec, event, rec, reach: &data, ts: 1000, note: Note::default(), seq: 0 };
        let mut out = Vec::new();
        self.dec.print_info(&cx, &mut out);
        if let Some(written) = written(&cx) {
            assert_eq!(String::from_utf8_lossy(&written), String::from_utf8_lossy(&out));
        }
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// The text of a record as a pen writes it, unless that is left to `print_info`.
fn written(cx: &PrintCx<'_>) -> Option<Vec<u8>> {
    let mut sheet = Sheet::default();
    let mut pen = Pen::new(&mut sheet, 3);
    let done = cx.dec.write_info(cx, &mut pen);
    assert!(done || pen.at() == 3);
    done.then(|| pen.since(3).to_vec())
}

#[test]
fn a_pen_writes_what_is_printed() {
    let (mut count, mut with_pen) = (0, 0);
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures");
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "dat") {
            continue;
        }
        let file = TraceFile::open(&path).unwrap();
        let dec = Decoder::new(file.decoder_parts());
        let mut records = file.records(&file.time_map(true));
        while let Some(r) = records.next().filter(|_| count < 200_000) {
            let (rec, reach) = (r.record(), r.stream_record.reach());
            let Some(event) = dec.event_of(rec.data) else { continue };
            let cx = PrintCx { dec: &dec, event, rec, reach, ts: r.ts, note: Note::default(), seq: 0 };
            count += 1;
            let Some(written) = written(&cx) else { continue };
            with_pen += 1;
            let mut printed = Vec::new();
            dec.print_info(&cx, &mut printed);
            assert_eq!(String::from_utf8_lossy(&written), String::from_utf8_lossy(&printed), "{path:?} {}", event.name);
        }
        count = 0;
    }
    assert!(with_pen > 10_000, "{with_pen}");
}

#[test]
fn long_texts_are_not_for_a_pen() {
    let fields = [("__data_loc char[] f", 8, 4, 1)];
    let m = Machine::new(Endian::Little, &fields, "\"%s|\", __get_str(f)", false);
    for len in [1, 31, 32, 33, 255, 256, 257, 3000] {
        let text = "t".repeat(len);
        let payload = dynamic(Endian::Little, 16, len as u32 + 1, format!("{text}\0").as_bytes());
        assert_eq!(m.print(&payload, b"behind"), format!("{text}|"));
    }
}

/// The text of one record with one field at offset 8, by its print fmt and raw; `None`: the format is refused.
fn show(endian: Endian, decl: &str, size: usize, signed: u8, fmt: &str, payload: &[u8]) -> Option<(String, String)> {
    let [pretty, raw] = [false, true].map(|raw| {
        let m = Machine::new(endian, &[(decl, 8, size, signed)], fmt, raw);
        m.event()?;
        Some(m.print(payload, b"}behind\0"))
    });
    Some((pretty?, raw?))
}

/// `u32` of a dynamic array's place in a record, then the bytes of the record from offset 16 on.
fn dynamic(endian: Endian, at: u32, len: u32, tail: &[u8]) -> Vec<u8> {
    let mut v = endian.from_u32(len << 16 | at).to_vec();
    v.extend_from_slice(&[0; 4]);
    v.extend_from_slice(tail);
    v
}

#[test]
fn declarations_that_the_reference_refuses() {
    for decl in [
        "__data_loc char[][2] f",
        "__data_loc char[] f[2]",
        "__data_loc u8[] *f",
        "__data_loc u8[] f g",
        "__data_loc u8[] [] f",
        "__data_loc [] f",
        "u32 f[2][2]",
        "u32[2] f",
        "char[] f",
        "struct { int a; } f",
        "void (*f)(int)",
        "int (f)",
        "int, f",
        "int f:3",
        "int f.x",
        "f",
        "* f",
        "int 'f'",
    ] {
        assert_eq!(show(Endian::Little, decl, 8, 0, "\"x\"", &[0; 16]), None, "{decl}");
    }
    for decl in [
        "unsigned int[2] f",
        "__data_loc char [] f",
        "__data_loc const char*[] f",
        "const struct foo __attribute__ ((noderef)) * f",
        "char ** f",
        "struct x *f[3]",
        "int f g h",
    ] {
        assert!(show(Endian::Little, decl, 8, 0, "\"x\"", &[0; 16]).is_some(), "{decl}");
    }
}

#[test]
fn elements_of_arrays_whose_length_is_not_told() {
    let words = b"abcdefghABCDEFGH";
    let show = |decl: &str, size, fmt: &str| show(Endian::Little, decl, size, 0, fmt, words).unwrap().0;
    let two = "\"%d %d\", REC->f[0], REC->f[1]";
    assert_eq!(show("u32 f[]", 8, two), "0 0");
    assert_eq!(show("u16 f[N]", 8, two), "0 0");
    assert_eq!(show("u16 f[(4)]", 8, two), "0 0");
    assert_eq!(show("unsigned long f[]", 8, two), "1684234849 1145258561");
    assert_eq!(show("u8 f[]", 8, two), "97 98");
    assert_eq!(show("char f[N]", 8, two), "97 98");
    // The last number in the brackets counts.
    assert_eq!(show("u16 f[4 + 2]", 8, two), "1684234849 1751606885");
    assert_eq!(show("u16 f[4]", 8, two), "25185 25699");
}

#[test]
fn long_anywhere_in_a_type_is_an_address() {
    let raw = |decl: &str, size, signed| show(Endian::Little, decl, size, signed, "\"x\"", b"abcdefgh").unwrap().1;
    assert_eq!(raw("ulong f", 8, 0), " f=0x6867666564636261");
    assert_eq!(raw("struct long_thing f", 8, 0), " f=0x6867666564636261");
    assert_eq!(raw("u_long f", 4, 0), " f=0x64636261");
    assert_eq!(raw("long long f", 4, 1), " f=0x64636261");
    assert_eq!(raw("u64 f", 8, 0), " f=7523094288207667809");
    // Lines of fixtures/DIFFERENCES.md.
    assert_eq!(raw("__attribute__((x)) int f", 4, 0), " f=1684234849");
    assert_eq!(raw("int f __attribute__((x(1)))", 4, 0), " f=1684234849");
}

#[test]
fn raw_pointers_keep_the_prefix_of_the_print_fmt() {
    let raw = |fmt: &str, v: u64| show(Endian::Little, "void * f", 8, 0, fmt, &v.to_le_bytes()).unwrap().1;
    assert_eq!(raw("\"0x%p\", REC->f", 0xabc), " f=0x0xabc");
    assert_eq!(raw("\"%p\", REC->f", 0xabc), " f=0xabc");
    assert_eq!(raw("\"0x%p\", REC->f", 0), " f=0x(nil)");
    assert_eq!(raw("\"0x%llx\", REC->f", 0xabc), " f=0xabc");
}

#[test]
fn empty_dynamic_text_is_not_padded() {
    let fmt = "\"%-6s|%6s|\", __get_str(f), __get_str(f)";
    let text = |len, tail: &[u8]| {
        show(Endian::Little, "__data_loc char[] f", 4, 1, fmt, &dynamic(Endian::Little, 16, len, tail)).unwrap().0
    };
    assert_eq!(text(0, b"abc\0"), "||");
    assert_eq!(text(1, b"\0\0\0\0"), "      |      |");
    assert_eq!(text(4, b"abc\0"), "abc   |   abc|");
}

#[test]
fn dynamic_text_without_nul_runs_on() {
    let fmt = "\"%s|\", __get_str(f)";
    for endian in [Endian::Little, Endian::Big] {
        let text = |at, len| {
            let payload = dynamic(endian, at, len, b"wxyzABCD");
            show(endian, "__data_loc char[] f", 4, 1, fmt, &payload).unwrap()
        };
        assert_eq!(text(16, 8), ("wxyzABCD}behind|".into(), " f=wxyzABCD}behind".into()));
        // Past the record: nothing by the print fmt; the raw field has no length and begins all the same.
        assert_eq!(text(16, 9), ("|".into(), " f=wxyzABCD}behind".into()));
        assert_eq!(text(20, 5), ("|".into(), " f=ABCD}behind".into()));
        assert_eq!(text(24, 0), ("|".into(), " f=}behind".into()));
        // From behind the record on: as if it were at its start.
        let id = String::from_utf8_lossy(&endian.from_u16(3000)).into_owned();
        assert_eq!(text(25, 1), ("|".into(), format!(" f={id}")));
        assert_eq!(text(4000, 4), ("|".into(), format!(" f={id}")));
    }
}

#[test]
fn dynamic_arrays_that_reach_past_the_record() {
    let pretty = |fmt: &str, at, len| {
        let payload = dynamic(Endian::Little, at, len, b"wxyzABCD");
        show(Endian::Little, "__data_loc u8[] f", 4, 0, fmt, &payload).unwrap().0
    };
    let hex = "\"%s|\", __print_hex(__get_dynamic_array(f), __get_dynamic_array_len(f))";
    assert_eq!(pretty(hex, 16, 8), "77 78 79 7a 41 42 43 44|");
    assert_eq!(pretty(hex, 16, 9), "|");
    assert_eq!(pretty("\"%d\", __get_dynamic_array_len(f)", 16, 9), "0");
    // A length of the print fmt's own goes on behind the record.
    assert_eq!(pretty("\"%s|\", __print_hex_str(__get_dynamic_array(f), 10)", 16, 8), "7778797a414243447d62|");
    let array = "\"%s|\", __print_array(__get_dynamic_array(f), 3, 2)";
    assert_eq!(pretty(array, 20, 4), "{0x4241,0x4443,0x627d}|");
}

#[test]
fn masks_are_one_number_of_all_bytes() {
    let masks = |endian, bytes: &[u8]| {
        let payload = dynamic(endian, 16, bytes.len() as u32, bytes);
        let fmt = "\"%s %s\", __get_bitmask(f), __get_cpumask(f)";
        show(endian, "__data_loc unsigned long[] f", 4, 0, fmt, &payload).unwrap().0
    };
    assert_eq!(masks(Endian::Little, b"wxyzABCD"), {
        "44434241,7a797877 0-2,4-6,11-14,16,19-22,25,27-30,32,38,41,46,48-49,54,58,62"
    });
    assert_eq!(masks(Endian::Big, b"wxyzABCD"), {
        "7778797a,41424344 2,6,8-9,14,17,22,24,30,33,35-38,40,43-46,51-54,56-58,60-62"
    });
    assert_eq!(masks(Endian::Little, b"a\0b\0c"), "63,00620061 0,5-6,17,21-22,32-33,37-38");
    assert_eq!(masks(Endian::Big, b"a\0b\0c"), "61,00620063 0-1,5-6,17,21-22,32,37-38");
    assert_eq!(masks(Endian::Little, b"w"), "77 0-2,4-6");
}

#[test]
fn tables_of_flags_and_symbols() {
    let text = |fmt: &str, v: u64| show(Endian::Little, "u64 f", 8, 0, fmt, &v.to_le_bytes()).unwrap().0;
    // A word without value, and what is below zero, stands for "nothing else": without a delimiter.
    for last in ["XX", "-1", "(int)(~0U >> 1)", "(1UL << 63)"] {
        let flags = format!("\"%s\", __print_flags(REC->f, \"|\", {{1,\"a\"}},{{2,\"b\"}},{{{last},\"none\"}})");
        assert_eq!(text(&flags, 0), "none", "{last}");
        assert_eq!(text(&flags, 1), "anone", "{last}");
        assert_eq!(text(&flags, 3), "a|bnone", "{last}");
        assert_eq!(text(&flags, 5), "a|0x4", "{last}");
    }
    let first = "\"%s\", __print_flags(REC->f, \"|\", {XX,\"none\"},{1,\"a\"},{0,\"zero\"})";
    assert_eq!([text(first, 0), text(first, 1)], ["none", "a"]);
    // Constants of tables have a sign.
    let symbols = "\"%s\", __print_symbolic(REC->f, {-4 >> 1,\"m\"},{-1 < 1,\"lt\"},{(u8)(~5),\"inv\"})";
    assert_eq!(text(symbols, u64::MAX), "m");
    assert_eq!(text(symbols, 1), "lt");
}

#[test]
fn an_instruction_of_a_guest() {
    let fields = [
        ("__u64 rip", 8, 8, 0),
        ("__u32 csbase", 16, 4, 0),
        ("__u8 len", 20, 1, 0),
        ("__u8 insn[15]", 21, 15, 0),
        ("__u8 flags", 36, 1, 0),
        ("__u8 failed", 37, 1, 0),
    ];
    let m = Machine::named(Endian::Little, ("kvm", "kvm_emulate_insn"), &fields, "\"x\"", false);
    let text = |len: u8, failed: u8| {
        let mut p = 0x1000u64.to_le_bytes().to_vec();
        p.extend_from_slice(&[0, 0, 0, 0, len]);
        p.extend(0x61..0x70);
        p.extend_from_slice(&[3, failed]);
        m.print(&p, b"\0\x0a")
    };
    assert_eq!(text(2, 0), "0:1000: 61 62");
    assert_eq!(text(1, 1), "0:1000: 61 FAIL");
    assert_eq!(text(18, 0), "0:1000: 61 62 63 64 65 66 67 68 69 6a 6b 6c 6d 6e 6f 03 00 00");
    // Of no bytes the reference shows those of the event before.
    assert_eq!(text(0, 1), "0:1000:  FAIL");
}

/// Lines of fixtures/DIFFERENCES.md: expressions that the reference refuses, miscounts or does not survive.
#[test]
fn expressions_that_the_reference_does_not_know() {
    let text = |fmt: &str| show(Endian::Little, "u32 f", 4, 0, fmt, &6u32.to_le_bytes()).unwrap().0;
    assert_eq!(text("\"%d\", REC->f ^ 3"), "5");
    assert_eq!(text("\"%d %d\", sizeof(char), sizeof(short)"), "1 2");
    assert_eq!(text("\"%d %d\", REC->f / 0, REC->f % 0"), "0 0");
    let mut payload = (2u32 << 16).to_le_bytes().to_vec();
    payload.extend_from_slice(b"\xab\xcd\0\0");
    let hex = "\"%s\", __print_hex(__get_rel_dynamic_array(f), 2)";
    assert_eq!(show(Endian::Little, "__rel_loc u8[] f", 4, 0, hex, &payload).unwrap().0, "ab cd");
}

/// A line of fixtures/DIFFERENCES.md: a nested function without a name is shown by its address.
#[test]
fn a_function_without_a_name() {
    let fields = [("unsigned long func", 8, 8, 0), ("int depth", 16, 4, 1)];
    let m = Machine::named(Endian::Little, ("ftrace", "funcgraph_entry"), &fields, "\"x\"", false);
    let mut payload = 0xabcu64.to_le_bytes().to_vec();
    payload.extend_from_slice(&1u32.to_le_bytes());
    assert_eq!(m.print(&payload, b""), "             |    abc() {");
}

/// A line of fixtures/DIFFERENCES.md: an array that is longer than all that is left of its block ends there.
#[test]
fn an_array_at_the_end_of_its_block() {
    let m = Machine::new(Endian::Little, &[("u16 f[32]", 8, 64, 0)], "\"x\"", true);
    assert_eq!(m.print(&[1, 2, 3, 4], b""), " f=ARRAY[01, 02, 03, 04]");
    assert_eq!(m.print(&[1, 2, 3, 4], &[5, 6]), " f=ARRAY[01, 02, 03, 04, 05, 06]");
}
