//! `attach`: a host's and a guest's recording, made separately, become a pair; beside what the reference writes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use trace_dat::{
    Endian, LongSize, TraceFile,
    compress::Codec,
    read::option::TypedOption,
    write::{BufferHead, FileHead, FileVersion, Metadata, RawOption, Writer, option::id},
};
use tracecmd_tests::{
    compare,
    damage::{self, damage},
    limited, programs,
    skip::skip,
};

const HEADER_PAGE: &str = "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n\
    \tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n\
    \tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n\
    \tfield: char data;\toffset:16;\tsize:4080;\tsigned:1;\n";

/// An event's format with these fields of four bytes.
fn format(name: &str, number: u16, fields: &[&str], print: &str) -> String {
    let common = "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n\
        \tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n";
    let own: String = fields
        .iter()
        .enumerate()
        .map(|(n, f)| format!("\tfield:unsigned int {f};\toffset:{};\tsize:4;\tsigned:0;\n", 8 + 4 * n))
        .collect();
    format!("name: {name}\nID: {number}\nformat:\n{common}\n{own}\nprint fmt: {print}\n")
}

/// A file of one sub-buffer for each CPU; records are event, pid and a word, 1000 ticks apart.
fn make(path: &Path, cpus: &[&[(u16, u32, u32)]], options: &[RawOption]) {
    make_buffers(path, &[("", cpus)], options, Codec::Zstd, b"");
}

/// Event, pid and a word of the records of each CPU.
type Cpus<'a> = &'a [&'a [(u16, u32, u32)]];

/// As [`make`], with buffers of these names and a list of modules.
fn make_buffers(path: &Path, buffers: &[(&str, Cpus<'_>)], options: &[RawOption], codec: Codec, modules: &[u8]) {
    let cpus = buffers.iter().map(|(_, cpus)| cpus.len()).max().unwrap_or(0);
    let e = Endian::Little;
    let mut meta = Metadata::new(e, cpus as u32);
    meta.header_info(HEADER_PAGE.as_bytes(), b"");
    meta.ftrace_events::<&[u8]>(&[]);
    let entry = format("kvm_entry", 301, &["vcpu_id"], "\"vcpu %u\", REC->vcpu_id");
    let exit = format("kvm_exit", 302, &["vcpu_id"], "\"vcpu %u\", REC->vcpu_id");
    let other = format("tick", 303, &["n"], "\"n=%u\", REC->n");
    meta.event_formats(&[("kvm", vec![entry, exit]), ("test", vec![other])]);
    meta.kallsyms(b"ffffffff81000000 T _text\n");
    meta.printk_formats(b"");
    meta.cmdlines(b"70 CPU0\n71 CPU1\n");
    if !modules.is_empty() {
        meta.modules(modules);
    }
    options.iter().for_each(|o| meta.option(o.clone()));
    let (version, long_size) = (FileVersion::V7, LongSize::Eight);
    let head = FileHead { version, endian: e, long_size, page_size: 4096, codec };
    let heads = buffers.iter().map(|(name, _)| BufferHead::new(*name, "x86-tsc", 4096)).collect();
    let mut w = Writer::create(path, head, &meta, heads).expect("a writer");
    let all =
        buffers.iter().enumerate().flat_map(|(n, (_, cpus))| cpus.iter().enumerate().map(move |(c, r)| (n, c, r)));
    for (buffer, cpu, records) in all {
        let mut data = Vec::new();
        for (event, pid, word) in *records {
            data.extend(e.from_u32(3 | 1000 << 5));
            data.extend(e.from_u32(u32::from(*event)));
            data.extend(e.from_u32(*pid));
            data.extend(e.from_u32(*word));
        }
        let mut page = e.from_u64(5_000_000).to_vec();
        page.extend(e.from_u64(data.len() as u64));
        page.extend(data);
        page.resize(4096, 0);
        w.cpu(buffer, cpu as u32).expect("a CPU");
        w.sub_buffers(&page).expect("a sub-buffer");
    }
    w.commit().expect("a file");
}

/// A host and a guest that it runs: threads 70 and 71 are its virtual CPUs 0 and 1.
fn pair(dir: &Path) -> (PathBuf, PathBuf) {
    let e = Endian::Little;
    let (host, guest) = (dir.join("trace.dat"), dir.join("trace-guest.dat"));
    make(
        &host,
        &[
            &[(301, 71, 1), (302, 71, 1), (303, 5, 9), (301, 71, 1)],
            &[(301, 70, 0), (302, 70, 0), (301, 99, 0), (302, 99, 0)],
        ],
        &[
            RawOption::text(id::TRACECLOCK, "local [x86-tsc]"),
            RawOption::u64(id::TRACEID, 0x1111, e),
            RawOption::tsc2nsec(0x80000, 20, 0, e),
        ],
    );
    make(
        &guest,
        &[&[(303, 1, 1), (303, 1, 2)], &[(303, 2, 3)]],
        &[RawOption::text(id::TRACECLOCK, "local [x86-tsc]"), RawOption::u64(id::TRACEID, 0x2222, e)],
    );
    (host, guest)
}

fn attach(program: &Path, words: &[&str], host: &Path, guest: &Path, pids: &[&str]) -> Output {
    let mut c = Command::new(program);
    c.arg("attach").args(words).arg(host).arg(guest).args(pids);
    c.output().expect("the program starts")
}

/// GUEST, TIME_SHIFT and TSC2NSEC.
fn ties(path: &Path) -> Vec<TypedOption> {
    let file = TraceFile::open(path).expect("a readable file");
    assert!(file.take_warnings().is_empty(), "{}", path.display());
    let tie =
        |o: &&TypedOption| matches!(o, TypedOption::Guest(_) | TypedOption::TimeShift(_) | TypedOption::Tsc2Nsec(_));
    file.options().iter().filter(tie).cloned().collect()
}

#[test]
fn a_host_and_a_guest_become_a_pair() {
    let dir = tempfile::tempdir().expect("a directory");
    let (host, guest) = pair(dir.path());
    let done = attach(programs::tracecmd(), &["-c", "2", "-s", "-4000,1,0"], &host, &guest, &["70", "71"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let [TypedOption::Tsc2Nsec(_), TypedOption::Guest(g)] = &ties(&host)[..] else { panic!("{:?}", ties(&host)) };
    assert_eq!((g.trace_id, &g.cpus[..]), (0x2222, &[(0, 70), (1, 71)][..]));
    let guest_ties = ties(&guest);
    let shift = guest_ties.iter().find_map(|o| if let TypedOption::TimeShift(s) = o { Some(s) } else { None });
    let shift = shift.expect("a shift");
    assert_eq!((shift.peer, shift.cpus.len()), (0x1111, 2));
    for cpu in &shift.cpus {
        assert_eq!(
            (&cpu.times[..], &cpu.offsets[..], &cpu.scalings[..], &cpu.fractions[..]),
            (&[0][..], &[-4000][..], &[1][..], &[0][..])
        );
    }
    assert!(guest_ties.iter().any(|o| matches!(o, TypedOption::Tsc2Nsec(t) if (t.mult, t.shift) == (0x80000, 20))));
    // Both reports, and the one of the two together, are the reference's.
    match programs::reference() {
        Ok(reference) => {
            for f in [&host, &guest] {
                compare::same_reports(reference, programs::tracecmd(), f, &["", "-R", "-t"])
                    .unwrap_or_else(|e| panic!("{e}"));
            }
            let both = format!("-i {}", host.display());
            compare::same_reports(reference, programs::tracecmd(), &guest, &[&both]).unwrap_or_else(|e| panic!("{e}"));
        }
        Err(reason) => skip("a_host_and_a_guest_become_a_pair (reports)", reason),
    }
    // A second time replaces the guest's options and adds no second guest.
    let done = attach(programs::tracecmd(), &["-s", "8", "-s", "9"], &host, &guest, &["70,71"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(ties(&host).len(), 2);
    let offsets = ties(&guest).into_iter().find_map(|o| {
        if let TypedOption::TimeShift(s) = o {
            Some(s.cpus.iter().map(|c| c.offsets[0]).collect::<Vec<_>>())
        } else {
            None
        }
    });
    assert_eq!(offsets, Some(vec![8, 9]), "each -s is for one CPU");
}

/// The options that the reference writes for the same command line.
#[test]
fn the_reference_writes_the_same_options() {
    let reference = match programs::reference() {
        Ok(path) => path,
        Err(reason) => return skip("the_reference_writes_the_same_options", reason),
    };
    let (a, b) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let (ours, theirs) = (pair(a.path()), pair(b.path()));
    let words = ["-c", "2", "-s", "-4000,1,0"];
    for (program, (host, guest)) in [(programs::tracecmd(), &ours), (reference, &theirs)] {
        let done = attach(program, &words, host, guest, &["70", "71"]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    // The reference leaves the guest without a name.
    let unnamed = |path: &Path| {
        let mut all = ties(path);
        all.iter_mut().for_each(|o| {
            if let TypedOption::Guest(g) = o {
                g.name.clear()
            }
        });
        all
    };
    assert_eq!(unnamed(&ours.0), unnamed(&theirs.0));
    assert_eq!(ties(&ours.1), ties(&theirs.1));
    for (mine, other) in [(&ours.0, &theirs.0), (&ours.1, &theirs.1)] {
        let text = |f: &Path| compare::report(programs::tracecmd(), "", f).text;
        assert_eq!(compare::first_difference(&text(other), &text(mine)), None);
    }
}

#[test]
fn what_lacks_something_stays_as_it_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let (host, guest) = pair(dir.path());
    let before = [&host, &guest].map(|f| fs::read(f).expect("a file"));
    for (words, files, pids, why) in [
        (&["-s", "1"][..], [&guest, &guest], &["70"][..], "TSC2NSEC"),
        (&["-s", "1"], [&host, &guest], &["4242"], "kvm_entry"),
        (&["-s", "x"], [&host, &guest], &["70"], "number"),
        (&["-c", "3", "-s", "1", "-s", "2"], [&host, &guest], &["70"], "3 CPUs"),
    ] {
        let done = attach(programs::tracecmd(), words, files[0], files[1], pids);
        let text = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && text.contains(why), "{words:?}: {text}");
    }
    assert!([&host, &guest].map(|f| fs::read(f).expect("a file")) == before);
}

/// Lines of a report, each with its time.
fn times(words: &[&str], file: &Path) -> Vec<(String, u64)> {
    let done = Command::new(programs::tracecmd()).arg("report").args(words).arg(file).output().expect("a report");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let text = String::from_utf8(done.stdout).expect("text");
    let line = |l: &str| {
        let word = l.split_whitespace().find_map(|w| w.strip_suffix(':').filter(|w| w.contains('.')))?;
        let (buffer, _) = l.split_once(": ")?;
        Some((buffer.trim().to_owned(), word.replace('.', "").parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// A line of fixtures/DIFFERENCES.md: the reference shifts the times of the top buffer only.
#[test]
fn times_of_named_buffers_are_shifted_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let (host, guest) = pair(dir.path());
    let ticks: Cpus<'_> = &[&[(303, 1, 1), (303, 1, 2)], &[(303, 2, 3)]];
    let options =
        [RawOption::text(id::TRACECLOCK, "local [x86-tsc]"), RawOption::u64(id::TRACEID, 0x2222, Endian::Little)];
    make_buffers(&guest, &[("one", ticks), ("two", ticks)], &options, Codec::Zstd, b"");
    let done = attach(programs::tracecmd(), &["-c", "2", "-s", "-4000,1,0"], &host, &guest, &["70", "71"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let shown = times(&["-t"], &guest);
    assert_eq!(shown.len(), 6, "{shown:?}");
    for name in ["one", "two"] {
        let mine: Vec<u64> = shown.iter().filter(|(b, _)| b == name).map(|(_, ts)| *ts).collect();
        // Half a nanosecond for a tick, as the host's TSC2NSEC says.
        assert_eq!(mine, [(5_001_000 - 4000) / 2, (5_001_000 - 4000) / 2, (5_002_000 - 4000) / 2], "{name}");
    }
}

/// A line of fixtures/DIFFERENCES.md: of an uncompressed file the reference prints no module.
#[test]
fn modules_of_an_uncompressed_file_are_dumped() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("modules.dat");
    let modules = "loop 45056 0 - Live 0xffffffffc0400000\next4 1024000 1 - Live 0xffffffffc0300000\n";
    for codec in [Codec::Zstd, Codec::None] {
        make_buffers(&path, &[("", &[&[(303, 1, 1)]])], &[], codec, modules.as_bytes());
        let done =
            Command::new(programs::tracecmd()).args(["dump", "--modules", "-i"]).arg(&path).output().expect("it");
        let text = String::from_utf8(done.stdout).expect("text");
        assert!(done.status.success() && text.contains(modules), "{codec:?}: {text}");
    }
}

/// Whichever of the two is damaged: `attach` ends in time and says why, and a file that it could not change is as it was.
#[test]
fn damaged_pairs_end_with_a_message() {
    let whole = tempfile::tempdir().expect("a directory");
    let (host, guest) = pair(whole.path());
    let (host, guest) = (fs::read(host).expect("a host"), fs::read(guest).expect("a guest"));
    let words: Vec<String> = ["attach", "host.dat", "guest.dat", "70", "71"].map(str::to_owned).into();
    let (mut tied, mut refused) = (0, 0);
    for seed in 0..10 * damage::KINDS {
        for broken in ["host.dat", "guest.dat"] {
            let dir = tempfile::tempdir().expect("a directory");
            let mut what = String::new();
            let mut files = Vec::new();
            for (name, bytes) in [("host.dat", &host), ("guest.dat", &guest)] {
                let bytes = if name == broken {
                    let (bytes, told) = damage(bytes, seed);
                    what = format!("{name}, seed {seed}, {told}");
                    bytes
                } else {
                    bytes.clone()
                };
                fs::write(dir.path().join(name), &bytes).expect("a file");
                files.push((name, bytes));
            }
            let run = limited::run(programs::tracecmd(), &words, dir.path());
            assert!(run.fault.is_none(), "{what}: {:?}\n{}", run.fault, run.err);
            if run.status == Some(0) {
                tied += 1;
                continue;
            }
            refused += 1;
            for (name, bytes) in files {
                let now = fs::read(dir.path().join(name)).expect("the file");
                assert!(now == bytes, "{what}: {name} was changed\n{}", run.err);
            }
        }
    }
    assert!(tied > 20 && refused > 20, "{tied} tied, {refused} refused");
}
