//! Files made from lists of records, read back.

mod support;

use proptest::prelude::*;
use support::{Form, PLAIN, Rec, Rng, records};
use trace_dat::{
    Endian, LongSize, OpenOptions, TraceFile,
    compress::Codec,
    ring::merge::{Batch, Merge},
    time::TimeMap,
    write::{FileVersion, RawOption},
};

fn open(bytes: Vec<u8>) -> TraceFile {
    OpenOptions::new().threads(1).open_bytes("test", bytes).unwrap()
}

fn all(merge: &mut Merge) -> Vec<(u64, u32, Vec<u8>)> {
    let mut out = Vec::new();
    while let Some(r) = merge.next() {
        let record = r.record();
        out.push((record.ts, record.cpu, record.data.to_vec()));
    }
    out
}

/// As [`all`], by runs of at most `most` records before the corrected time `stop`; how many of them came in runs, too.
fn all_by_runs(merge: &mut Merge, stop: u64, most: usize) -> (Vec<(u64, u32, Vec<u8>)>, usize) {
    let (mut out, mut in_runs) = (Vec::new(), 0);
    loop {
        if let Some(run) = merge.run(stop) {
            let mut last = run.first();
            for n in 1.. {
                assert!(last.ts < stop && last.ts == last.record.ts);
                out.push((last.record.ts, last.record.cpu, last.record.data.to_vec()));
                in_runs += 1;
                match run.behind(&last) {
                    Some(next) if n < most => last = next,
                    _ => break,
                }
            }
            run.end(&last);
        }
        // Dropped without an end, a run has no effect.
        let _ = merge.run(stop);
        let Some(r) = merge.next() else { return (out, in_runs) };
        let record = r.record();
        out.push((record.ts, record.cpu, record.data.to_vec()));
    }
}

fn merged(cpus: &[Vec<Rec>]) -> Vec<(u64, u32, Vec<u8>)> {
    let with_cpu = |(cpu, records): (usize, &Vec<Rec>)| {
        records.iter().map(|(ts, d)| (*ts, cpu as u32, d.clone())).collect::<Vec<_>>()
    };
    let mut all: Vec<_> = cpus.iter().enumerate().flat_map(with_cpu).collect();
    all.sort_by_key(|(ts, cpu, _)| (*ts, *cpu));
    all
}

fn forms() -> Vec<Form> {
    let mut forms = Vec::new();
    for endian in [Endian::Little, Endian::Big] {
        for long_size in [LongSize::Four, LongSize::Eight] {
            for subbuf_size in [4096, 65536] {
                let form = Form { endian, long_size, subbuf_size, ..PLAIN };
                forms.push(Form { version: FileVersion::V6, ..form });
                forms.extend([Codec::None, Codec::Zlib, Codec::Zstd].map(|codec| Form { codec, ..form }));
            }
        }
    }
    forms
}

#[test]
fn every_form_of_file() {
    let cpus = vec![records(5000, 1000, 500, 1), Vec::new(), records(3000, 2_000_000, 100, 2), records(1, 7, 1, 3)];
    let expected = merged(&cpus);
    for form in forms() {
        let file = open(form.file(&cpus));
        assert_eq!(file.cpu_count(), 4, "{form:?}");
        let got = all(&mut file.records(&TimeMap::default()));
        assert!(got == expected, "{form:?}: {} of {} records", got.len(), expected.len());
        let stop = expected[expected.len() / 2].0;
        let (got, in_runs) = all_by_runs(&mut file.records(&TimeMap::default()), stop, usize::MAX);
        assert!(got == expected, "{form:?}: {} of {} records in runs", got.len(), expected.len());
        let before = expected.partition_point(|r| r.0 < stop);
        let most = if form.endian == Endian::Little { before / 3..before } else { 0..1 };
        assert!(most.contains(&in_runs), "{form:?}: {in_runs} of {before}");
        assert_eq!(file.take_warnings().iter().map(|w| w.to_string()).collect::<Vec<_>>(), Vec::<String>::new());
        assert_eq!(file.metadata().cmdlines.as_ref().unwrap().read_sized64().unwrap(), b"1 init\n");
        assert_eq!(file.metadata().kallsyms.as_ref().unwrap().read_sized32().unwrap(), b"ffffffff81000000 T _text\n");
        let (formats, result) = file.metadata().formats();
        assert!(result.is_ok() && formats.files.len() == 1 && formats.systems == ["test"]);
    }
}

#[test]
fn seek_and_tail() {
    let cpus: Vec<_> = (0..5).map(|c| records(4000, 1000 + c * 100, 300 + c * 50, c)).collect();
    let expected = merged(&cpus);
    for codec in [Codec::None, Codec::Zstd] {
        let file = open(Form { codec, ..PLAIN }.file(&cpus));
        let mut m = file.records(&TimeMap::default());
        let (first, last) = (expected[0].0, expected[expected.len() - 1].0);
        assert_eq!((m.first_ts(), m.last_ts()), (Some(first), Some(last)));
        let mut rng = Rng(5);
        for i in 0..60 {
            let ts = match i {
                0 => 0,
                1 => u64::MAX,
                2 => last,
                _ => rng.below(last + 10),
            };
            m.seek(ts);
            let from = expected.partition_point(|r| r.0 < ts);
            let got = m.next().map(|r| (r.ts, r.record().cpu));
            assert_eq!(got, expected.get(from).map(|r| (r.0, r.1)), "{codec:?} {ts}");
        }
        for n in [0, 1, 10, 1000, 19_999, 20_000, 30_000] {
            m.seek_tail(n as u64);
            let got = all(&mut m);
            let expected = &expected[expected.len().saturating_sub(if n == 0 { expected.len() } else { n })..];
            assert!(got == expected, "{codec:?} tail {n}: {} records", got.len());
        }
    }
}

/// What a time window costs does not grow with the file; of compressed data only the chunks in it are unpacked.
#[test]
fn windows_load_only_what_is_in_them() {
    for (codec, endian) in [(Codec::None, Endian::Little), (Codec::Zstd, Endian::Little), (Codec::Zlib, Endian::Big)] {
        let mut costs = Vec::new();
        for n in [20_000, 160_000] {
            let cpus: Vec<_> = (0..3).map(|c| records(n, 1000, 300, c)).collect();
            let bytes = Form { codec, endian, ..PLAIN }.file(&cpus);
            let file = trace_dat::OpenOptions::new().threads(0).open_bytes("made", bytes).unwrap();
            let all: u64 = cpus.iter().map(|c| PLAIN.subbufs(c).len() as u64).sum();
            let mut m = file.records(&TimeMap::default());
            let (from, to) = (cpus[0][n / 2].0, cpus[0][n / 2 + 300].0);
            m.seek(from);
            let shown = std::iter::from_fn(|| m.next().map(|r| r.ts)).take_while(|ts| *ts <= to).count();
            let inside = |c: &Vec<Rec>| c.iter().filter(|r| (from..=to).contains(&r.0)).count();
            assert_eq!(shown, cpus.iter().map(inside).sum::<usize>());
            let window = file.data_loaded();
            m.seek_tail(10);
            while m.next().is_some() {}
            let tail = file.data_loaded() - window;
            // Of plain data pieces of 256 KiB are read at a time, of compressed data chunks of 10 sub-buffers unpacked.
            let piece = if codec == Codec::None { 256 << 10 } else { 10 * 4096 };
            assert!(window <= 3 * 3 * piece && tail <= 3 * 3 * piece, "{codec:?}: {window} and {tail} of {all}");
            costs.push((window, tail, all));
        }
        let [(.., small), (window, tail, all)] = costs[..] else { unreachable!() };
        assert!(all > 7 * small && window < all / 2 && tail < all / 2, "{codec:?} {costs:?}");
    }
}

#[test]
fn corrected_times_decide_the_order() {
    let cpus = vec![records(300, 1 << 40, 1000, 1), records(300, 1 << 40, 1000, 2)];
    let date = RawOption::text(1, "0x10");
    let data: Vec<_> = cpus.iter().map(|c| PLAIN.subbufs(c)).collect();
    let file = open(PLAIN.file_of(&data, &[date]));
    let mut m = file.records(&file.time_map(true));
    let first = m.next().map(|r| r.ts);
    assert_eq!(first, Some(merged(&cpus)[0].0 + 16_000));
    assert_eq!(file.time_map(false).offset, 0);
}

#[test]
fn batches_keep_their_records() {
    let cpus: Vec<_> = (0..3).map(|c| records(3000, 1000, 300, c)).collect();
    let expected = merged(&cpus);
    let file = open(Form { codec: Codec::Zstd, ..PLAIN }.file(&cpus));
    let mut m = file.records(&TimeMap::default());
    let mut batches = vec![Batch::new()];
    while let Some(r) = m.next() {
        if batches.last().unwrap().len() == 100 {
            batches.push(Batch::new());
        }
        batches.last_mut().unwrap().push(&r);
    }
    drop((m, file));
    let got: Vec<_> = batches.iter().flat_map(|b| b.iter()).map(|(b, r)| (b.ts, r.cpu, r.data.to_vec())).collect();
    assert!(got == expected);
}

#[test]
fn peek_shows_what_comes_next() {
    let cpus: Vec<_> = (0..3).map(|c| records(1000, 1000, 300, c)).collect();
    let file = open(PLAIN.file(&cpus));
    let mut m = file.records(&TimeMap::default());
    for expected in merged(&cpus) {
        assert_eq!(m.peek().map(|r| (r.ts, r.record().cpu)), Some((expected.0, expected.1)));
        let r = m.next().unwrap();
        assert_eq!((r.ts, r.record().cpu, r.record().data), (expected.0, expected.1, &expected.2[..]));
    }
    assert!(m.peek().is_none() && m.next().is_none() && m.next().is_none());
}

#[test]
fn whole_subbufs_can_be_copied() {
    let data = PLAIN.subbufs(&records(5000, 1000, 500, 1));
    for codec in [Codec::None, Codec::Zlib] {
        let file = open(Form { codec, ..PLAIN }.file_of(std::slice::from_ref(&data), &[]));
        let buffer = &file.buffers()[0];
        let mut stream = file.stream(buffer, &buffer.cpus[0], 1).unwrap();
        let mut copy: Vec<u8> = Vec::new();
        while let Some(s) = stream.next_subbuf() {
            copy.extend(s.data);
        }
        assert!(copy == data);
        let chunks = stream.chunks().map(|c| c.map(|c| c.unwrap().unpacked as usize).sum::<usize>());
        assert_eq!(chunks, (codec != Codec::None).then_some(data.len()));
    }
}

#[test]
fn a_damaged_subbuf_costs_only_itself() {
    let cpu = records(2000, 1000, 500, 1);
    let mut data = PLAIN.subbufs(&cpu);
    data[4096 * 3 + 8..4096 * 3 + 16].fill(0x55); // commit of the fourth sub-buffer
    data[4096 * 5 + 16..4096 * 5 + 20].fill(0xff); // first record of the sixth: an absolute time
    data[4096 * 7 + 16..4096 * 7 + 20].copy_from_slice(&28u32.to_le_bytes()); // of the eighth: 112 bytes instead of 32
    let file = open(PLAIN.file_of(&[data], &[]));
    let got = all(&mut file.records(&TimeMap::default()));
    assert!(got.len() > 1600 && got.len() < 2000, "{}", got.len());
    let warnings: Vec<_> = file.take_warnings().iter().map(|w| w.to_string()).collect();
    assert!(warnings[0].starts_with("CPU 0, sub-buffer 3, file offset 0x"), "{warnings:?}");
    assert!(warnings[0].ends_with("left out: this sub-buffer"), "{warnings:?}");
}

#[test]
fn a_damaged_chunk_costs_only_itself() {
    for codec in [Codec::Zlib, Codec::Zstd] {
        let form = Form { codec, ..PLAIN };
        let cpu = records(5000, 1000, 500, 1);
        let bytes = form.file(&[cpu]);
        let file = open(bytes.clone());
        let buffer = &file.buffers()[0];
        let stream = file.stream(buffer, &buffer.cpus[0], 1).unwrap();
        let chunk = stream.chunks().unwrap().nth(1).unwrap().unwrap();
        let mut damaged = bytes;
        damaged[chunk.offset as usize..][..chunk.packed as usize].fill(0xff);
        let file = open(damaged);
        let got = all(&mut file.records(&TimeMap::default()));
        let lost = 5000 - got.len();
        assert!((900..1200).contains(&lost), "{lost}");
        let warnings: Vec<_> = file.take_warnings().iter().map(|w| w.to_string()).collect();
        assert!(warnings.len() == 1 && warnings[0].ends_with("left out: this chunk"), "{warnings:?}");
    }
}

#[test]
fn a_cut_off_file_is_read_as_far_as_it_goes() {
    let cpus = vec![records(2000, 1000, 500, 1), records(2000, 1000, 500, 2)];
    for form in forms().into_iter().filter(|f| f.subbuf_size == 4096 && f.long_size == LongSize::Eight) {
        let bytes = form.file(&cpus);
        let mut before = 0;
        for percent in [30, 60, 90, 99] {
            let cut = bytes[..bytes.len() * percent / 100].to_vec();
            let Ok(file) = OpenOptions::new().threads(0).open_bytes("cut", cut) else { continue };
            let got = all(&mut file.records(&TimeMap::default()));
            assert!(!file.take_warnings().is_empty(), "{form:?} {percent}");
            assert!(got.len() >= before, "{form:?} {percent}");
            before = got.len();
        }
        assert!(before > 3000, "{form:?}: {before}");
    }
}

fn record_list() -> impl Strategy<Value = Vec<Rec>> {
    let record = (
        prop_oneof![4 => 0u64..2000, 1 => 0u64..1 << 28, 1 => 0u64..1 << 40],
        prop_oneof![4 => 1usize..28, 1 => 28usize..200, 1 => 0usize..1],
        any::<u8>(),
    );
    prop::collection::vec(record, 0..400).prop_map(|list| {
        let mut ts = 1u64;
        let next = |(delta, words, fill): (u64, usize, u8)| {
            ts += delta;
            (ts, vec![fill; words * 4])
        };
        list.into_iter().map(next).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn records_come_back(cpus in prop::collection::vec(record_list(), 1..5), form in prop::sample::select(forms()), at in any::<prop::sample::Index>()) {
        let file = open(form.file(&cpus));
        let expected = merged(&cpus);
        let mut m = file.records(&TimeMap::default());
        prop_assert_eq!(&all(&mut m), &expected);
        let most = at.index(9) + 1;
        prop_assert_eq!(&all_by_runs(&mut file.records(&TimeMap::default()), u64::MAX, most).0, &expected);
        if !expected.is_empty() {
            let ts = expected[at.index(expected.len())].0;
            m.seek(ts);
            prop_assert_eq!(&all(&mut m)[..], &expected[expected.partition_point(|r| r.0 < ts)..]);
            let n = at.index(expected.len()) + 1;
            m.seek_tail(n as u64);
            prop_assert_eq!(&all(&mut m)[..], &expected[expected.len() - n..]);
        }
    }
}
