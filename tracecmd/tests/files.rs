//! Files made from files: converted, split, slimmed, restored; their events compared with those of the original.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use proptest::{prelude::*, test_runner::RngSeed};
use trace_dat::{
    TraceFile,
    compress::Decompressor,
    write::{self, FileHead, Metadata, Payload, RawOption, Section, Writer},
};

fn fixtures() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
    let all = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let mut all: Vec<PathBuf> = all.filter(|p| p.extension().is_some_and(|e| e == "dat")).collect();
    all.sort();
    assert!(!all.is_empty());
    all
}

/// Time, buffer, CPU, and bytes of every event in the order of time.
fn events(path: &Path) -> Vec<(u64, String, u32, Vec<u8>)> {
    let file = TraceFile::open(path).unwrap();
    let mut records = file.records(&file.time_map(true));
    let mut all = Vec::new();
    while let Some(r) = records.next() {
        let record = r.record();
        all.push((r.ts, file.buffers()[r.tag as usize].name.clone(), record.cpu, record.data.to_vec()));
    }
    assert_eq!(file.take_warnings().len(), 0, "{}", path.display());
    all
}

/// Options that mean something outside their file.
fn options(path: &Path) -> Vec<(u16, Vec<u8>)> {
    let file = TraceFile::open(path).unwrap();
    let all = file.raw_options().iter().filter(|o| !matches!(o.id, 0 | 3 | 8 | 15..=23 | 25));
    all.map(|o| (o.id, o.data.clone())).collect()
}

/// Sections by number, name and content, without those that version 6 has no place for.
fn sections(path: &Path) -> Vec<(u16, String, Vec<u8>)> {
    let meta = Metadata::of(&TraceFile::open(path).unwrap()).unwrap();
    let plain = |p: &Payload| match p {
        Payload::Plain(bytes) => bytes.clone(),
        Payload::Packed { codec, bytes, unpacked, .. } => {
            Decompressor::new().unpack_vec(*codec, 0, bytes, (*unpacked).into()).unwrap()
        }
    };
    let kept = meta.sections.iter().filter(|s| !matches!(s.id, 23 | 25));
    let mut all: Vec<_> = kept.map(|s| (s.id, s.name.clone(), plain(&s.payload))).collect();
    all.sort();
    all
}

fn run(words: &[&str]) -> anyhow::Result<std::process::ExitCode> {
    let words: Vec<OsString> = words.iter().map(OsString::from).collect();
    tracecmd::cli::run("tracecmd", &words)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn events_and_options_survive_every_conversion() {
    let dir = tempfile::tempdir().unwrap();
    for fixture in fixtures() {
        let (want, want_options, want_sections) = (events(&fixture), options(&fixture), sections(&fixture));
        let mut from = fixture.clone();
        for (n, how) in [["6", "none"], ["7", "zlib"], ["7", "zstd"], ["7", "none"], ["6", "any"]].iter().enumerate() {
            let to = dir.path().join(format!("{n}.dat"));
            run(&["convert", "-q", "-i", text(&from), "--file-version", how[0], "--compression", how[1], text(&to)])
                .unwrap();
            assert!(events(&to) == want, "{} {how:?}", fixture.display());
            assert_eq!(options(&to), want_options, "{} {how:?}", fixture.display());
            assert!(sections(&to) == want_sections, "{} {how:?}", fixture.display());
            let (a, b) = (TraceFile::open(&fixture).unwrap(), TraceFile::open(&to).unwrap());
            assert_eq!((a.endian(), a.long_size(), a.cpu_count()), (b.endian(), b.long_size(), b.cpu_count()));
            from = to;
        }
        let slim = dir.path().join("slim.dat");
        run(&["convert", "-q", "--slim", "-i", text(&fixture), text(&slim)]).unwrap();
        assert!(events(&slim) == want, "{}", fixture.display());
        // Most fixtures are slim already.
        if fixture.ends_with("i386-6.1-v6fg.dat") {
            assert!(std::fs::metadata(&slim).unwrap().len() < 200_000);
        }
    }
}

#[test]
fn an_output_that_is_the_input_or_no_place_for_a_file_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("a.dat");
    std::fs::copy(&fixtures()[0], &input).unwrap();
    let before = std::fs::read(&input).unwrap();
    let pipe = dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    for (i, o) in
        [(&input, &input), (&input, &pipe), (&pipe, &dir.path().join("out")), (&input, &dir.path().join("no/dir"))]
    {
        assert!(run(&["convert", "-i", text(i), "-o", text(o)]).is_err());
    }
    assert!(run(&["split", "-r", "-e", "10", "-i", text(&input), "-o", "/proc/no"]).is_err());
    assert!(run(&["split", "-e", "1", "-m", "1", "-i", text(&input)]).is_err());
    assert_eq!(std::fs::read(&input).unwrap(), before);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
}

/// What this version does not know goes over into every new file.
#[test]
fn unknown_options_and_sections_survive() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base.dat");
    let fixture = fixtures().into_iter().find(|f| f.ends_with("x86_64-7.2-instances.dat")).unwrap();
    let file = TraceFile::open(&fixture).unwrap();
    let mut meta = Metadata::of(&file).unwrap();
    meta.option(RawOption::new(900, vec![1, 2, 3]));
    meta.option(RawOption::new(900, vec![]));
    let content = b"of a later version ".repeat(50);
    let later = [
        (901, "later".to_owned(), b"more".to_vec()),
        (901, "later".to_owned(), content),
        (902, "last".to_owned(), vec![]),
    ];
    for (id, name, content) in later.clone() {
        meta.sections.push(Section { id, name, payload: Payload::Plain(content) });
    }
    let mut writer = Writer::create(&base, FileHead::of(&file), &meta, write::buffer_heads(&file).unwrap()).unwrap();
    for (n, buffer) in file.buffers().iter().enumerate() {
        for cpu in &buffer.cpus {
            writer.cpu(n, cpu.cpu).unwrap();
            write::copy_cpu(&mut writer, &file, buffer, cpu, &mut |_| {}).unwrap();
        }
    }
    writer.commit().unwrap();
    let to = dir.path().join("to.dat");
    for (words, v7) in [
        (&["convert", "-q"] as &[&str], true),
        (&["convert", "-q", "--compression", "zlib"], true),
        (&["convert", "-q", "--compression", "none"], true),
        (&["convert", "-q", "--slim"], true),
        (&["convert", "-q", "--redact"], true),
        (&["convert", "-q", "--file-version", "6"], false),
        (&["split", "-e", "20"], true),
        (&["split", "-B", "two", "-t"], true),
    ] {
        run(&[words, &["-i", text(&base), "-o", text(&to)]].concat()).unwrap();
        let unknown: Vec<_> = options(&to).into_iter().filter(|o| o.0 == 900).collect();
        assert_eq!(unknown, [(900, vec![1, 2, 3]), (900, vec![])], "{words:?}");
        let mut found = sections(&to);
        found.retain(|s| s.0 > 900);
        // Version 6 has no place for more sections.
        assert_eq!(found, if v7 { &later[..] } else { &[] }, "{words:?}");
        let new = TraceFile::open(&to).unwrap();
        assert_eq!(new.header().version == 7, v7);
        let pointers = new.raw_options().iter().filter(|o| o.id > 900).count();
        assert_eq!(pointers, if v7 { 3 } else { 0 }, "{words:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        rng_seed: RngSeed::Fixed(5),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// The pieces hold every event once and in order, wherever the cuts are.
    #[test]
    fn pieces_joined_are_the_whole(which in any::<prop::sample::Index>(), kind in 0..5u8, size in 1u64..1000) {
        let fixture = which.get(&fixtures()).clone();
        let want = events(&fixture);
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("p");
        let span = want.last().unwrap().0 - want[0].0;
        // At most a few dozen pieces.
        let (events_at_least, us_at_least) = (want.len() as u64 / 20 + 1, span / 20_000 + 1);
        let (option, n) = match kind {
            0 => ("-e", events_at_least + size),
            1 => ("-u", us_at_least + size),
            2 => ("-p", 1 + size % 5),
            3 => ("-ce", events_at_least + size),
            _ => ("-cu", us_at_least + size),
        };
        run(&["split", "-r", option, &n.to_string(), "-i", text(&fixture), "-o", text(&base)]).unwrap();
        let mut pieces: Vec<PathBuf> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
        pieces.sort();
        let mut got: Vec<_> = pieces.iter().flat_map(|p| events(p)).collect();
        if kind >= 2 {
            // Pieces overlap in time where each CPU is cut by itself.
            got.sort_by(|a, b| (a.0, &a.1, a.2).cmp(&(b.0, &b.1, b.2)));
            let mut want = want;
            want.sort_by(|a, b| (a.0, &a.1, a.2).cmp(&(b.0, &b.1, b.2)));
            prop_assert!(got == want, "{} {} {}", fixture.display(), option, n);
        } else {
            prop_assert!(got == want, "{} {} {}", fixture.display(), option, n);
        }
        prop_assert_eq!(options(&pieces[0]), options(&fixture));
    }

    /// As above, for pieces from one time to another: both belong to the piece, to the nanosecond.
    #[test]
    fn pieces_between_times_are_the_whole(
        which in any::<prop::sample::Index>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..6),
    ) {
        let fixture = which.get(&fixtures()).clone();
        let want = events(&fixture);
        let dir = tempfile::tempdir().unwrap();
        let piece = dir.path().join("p");
        let mut times: Vec<u64> = cuts.iter().map(|c| c.get(&want).0).collect();
        times.push(want.last().unwrap().0);
        times.sort();
        times.dedup();
        let mut from = 0;
        let mut got = Vec::new();
        let seconds = |ns: u64| format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000);
        for to in times {
            run(&["split", "-i", text(&fixture), "-o", text(&piece), &seconds(from), &seconds(to)]).unwrap();
            got.extend(events(&piece));
            from = to + 1;
        }
        prop_assert!(got == want, "{}", fixture.display());
    }
}
