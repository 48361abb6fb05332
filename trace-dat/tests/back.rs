//! Forward, backward and anywhere: the cursor over one CPU and over all of them.

mod support;

use support::{Form, PLAIN, Rec, Rng, records};
use trace_dat::{
    Endian, LongSize, OpenOptions, TraceFile,
    compress::Codec,
    ring::{merge::Merge, stream::CpuStream},
    time::TimeMap,
    write::FileVersion,
};

type Seen = (u64, u32, Vec<u8>);

fn open(bytes: Vec<u8>, threads: usize) -> TraceFile {
    OpenOptions::new().threads(threads).open_bytes("test", bytes).unwrap()
}

fn expected(cpus: &[Vec<Rec>]) -> Vec<Seen> {
    let mut all: Vec<Seen> = Vec::new();
    for (cpu, records) in (0..).zip(cpus) {
        all.extend(records.iter().map(|(ts, d)| (*ts, cpu, d.clone())));
    }
    all.sort_by_key(|(ts, cpu, _)| (*ts, *cpu));
    all
}

fn next(m: &mut Merge) -> Option<Seen> {
    m.next().map(|r| (r.ts, r.record().cpu, r.record().data.to_vec()))
}

fn prev(m: &mut Merge) -> Option<Seen> {
    m.prev().map(|r| (r.ts, r.record().cpu, r.record().data.to_vec()))
}

fn cpus() -> Vec<Vec<Rec>> {
    vec![records(3000, 1000, 500, 1), Vec::new(), records(2000, 200_000, 700, 2), records(1, 7, 1, 3)]
}

fn forms() -> Vec<Form> {
    let mut forms = vec![PLAIN, Form { version: FileVersion::V6, endian: Endian::Big, ..PLAIN }];
    for codec in [Codec::Zlib, Codec::Zstd] {
        forms.push(Form { codec, ..PLAIN });
        forms.push(Form { codec, subbuf_size: 65536, endian: Endian::Big, long_size: LongSize::Four, ..PLAIN });
    }
    forms
}

#[test]
fn to_the_end_and_back() {
    let want = expected(&cpus());
    for form in forms() {
        for threads in [0, 2] {
            let file = open(form.file(&cpus()), threads);
            let mut m = file.records(&TimeMap::default());
            assert_eq!(prev(&mut m), None, "nothing lies before the start");
            let forward: Vec<Seen> = std::iter::from_fn(|| next(&mut m)).collect();
            assert!(forward == want, "{form:?}");
            let mut backward: Vec<Seen> = std::iter::from_fn(|| prev(&mut m)).collect();
            backward.reverse();
            assert!(backward == want, "{form:?}: {} of {}", backward.len(), want.len());
            assert_eq!(next(&mut m), Some(want[0].clone()));
            m.seek_end();
            assert_eq!(prev(&mut m).as_ref(), want.last());
            assert_eq!(next(&mut m), None);
            assert!(file.take_warnings().is_empty());
        }
    }
}

#[test]
fn random_steps() {
    let want = expected(&cpus());
    let end = want.len() as i64;
    for form in forms() {
        let file = open(form.file(&cpus()), 1);
        let mut m = file.records(&TimeMap::default());
        let mut rng = Rng(7);
        // 2k: record k was handed out last; odd numbers: between two records, before the first, behind the last.
        let mut at = -1i64;
        let record = |at: i64| usize::try_from(at / 2).ok().filter(|_| at % 2 == 0).and_then(|i| want.get(i));
        for _ in 0..300 {
            match rng.below(8) {
                0 => {
                    let ts = want[rng.below(end as u64) as usize].0 + rng.below(2);
                    m.seek(ts);
                    at = 2 * want.partition_point(|(t, ..)| *t < ts) as i64 - 1;
                    if rng.below(2) == 0 {
                        assert_eq!(m.peek().map(|r| r.ts), record(at + 1).map(|r| r.0));
                    }
                }
                1 => {
                    m.seek_end();
                    at = 2 * end - 1;
                }
                steps => {
                    for _ in 0..rng.below(40) * steps {
                        let step = if at % 2 == 0 { 2 } else { 1 };
                        if steps < 5 {
                            at = (at - step).max(-1);
                            assert_eq!(prev(&mut m).as_ref(), record(at));
                        } else {
                            at = (at + step).min(2 * end - 1);
                            assert_eq!(next(&mut m).as_ref(), record(at));
                        }
                    }
                }
            }
        }
    }
}

fn one(s: &mut CpuStream, back: bool) -> Option<(u64, Vec<u8>)> {
    let r = if back { s.prev_record() } else { s.next_record() };
    r.map(|r| (r.ts, r.data.to_vec()))
}

#[test]
fn one_cpu() {
    let list = records(2500, 10, 90, 4);
    for form in forms() {
        let file = open(form.file(std::slice::from_ref(&list)), 1);
        let mut m = file.records(&TimeMap::default());
        let stream = &mut m.inputs_mut()[0].stream;
        assert_eq!(one(stream, true), None);
        for r in &list[..700] {
            assert_eq!(one(stream, false).as_ref(), Some(r));
        }
        for r in list[..699].iter().rev() {
            assert_eq!(one(stream, true).as_ref(), Some(r));
        }
        assert!(stream.seek(list[2000].0));
        let first = list.partition_point(|r| r.0 < list[2000].0);
        assert_eq!(one(stream, true).as_ref(), Some(&list[first - 1]));
        for r in &list[first..] {
            assert_eq!(one(stream, false).as_ref(), Some(r));
        }
        assert_eq!(one(stream, false), None);
        let back: Vec<_> = std::iter::from_fn(|| one(stream, true)).collect();
        assert!(back.iter().eq(list.iter().rev()), "{form:?}");
        let pieces = stream.pieces();
        stream.go_to_piece(pieces - 1);
        match one(stream, true) {
            Some(last) => assert!(pieces > 1 && last.0 < list[list.len() - 1].0 && list.contains(&last)),
            None => assert_eq!(pieces, 1, "nothing lies before the first piece"),
        }
    }
}

/// Whatever is in the file: the way back ends, and gives what the way forward gave.
#[test]
fn damaged_data() {
    let cpus = cpus();
    for form in forms() {
        let whole = form.file(&cpus);
        let mut rng = Rng(11);
        for _ in 0..60 {
            let mut bytes = whole.clone();
            // Metadata stay whole; what lies behind is data.
            for _ in 0..1 + rng.below(4) {
                let at = bytes.len() / 4 + rng.below(bytes.len() as u64 * 3 / 4) as usize;
                bytes[at] ^= 1 << rng.below(8);
            }
            bytes.truncate(bytes.len() - rng.below(3000) as usize);
            let Ok(file) = OpenOptions::new().threads(1).open_bytes("damaged", bytes) else { continue };
            for input in file.records(&TimeMap::default()).inputs_mut() {
                let stream = &mut input.stream;
                let forward: Vec<_> = std::iter::from_fn(|| one(stream, false)).collect();
                let mut backward: Vec<_> = std::iter::from_fn(|| one(stream, true)).collect();
                backward.reverse();
                assert!(forward == backward, "{form:?}: {} there, {} back", forward.len(), backward.len());
            }
        }
    }
}

/// Passing over many records gives the place that as many steps give.
#[test]
fn skipping_is_as_stepping() {
    let mut cpus = cpus();
    // The same times on two CPUs.
    cpus.push(cpus[0].clone());
    let want = expected(&cpus);
    for form in forms() {
        let file = open(form.file(&cpus), 1);
        let mut rng = Rng(11);
        for _ in 0..8 {
            let mut m = file.records(&TimeMap::default());
            let mut at = 0;
            while at < want.len() {
                let n = [1, 70, 1100, 2500, 9000][rng.below(5) as usize];
                let last = match rng.below(3) {
                    0 => want[at + rng.below((want.len() - at) as u64) as usize].0,
                    _ => u64::MAX,
                };
                let k = want[at..].iter().take(n as usize).take_while(|r| r.0 <= last).count();
                assert_eq!(m.skip(n, last), k as u64, "{form:?} at {at}: {n} up to {last}");
                at += k;
                assert_eq!(m.peek().map(|r| r.ts), want.get(at).map(|r| r.0));
                assert_eq!(next(&mut m), want.get(at).cloned());
                at += 1;
            }
            assert_eq!(m.skip(5000, u64::MAX), 0);
        }
        assert!(file.take_warnings().is_empty());
    }
}
