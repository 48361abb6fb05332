//! Damaged input: whatever the bytes are, every reading command ends in time, within its memory, and by itself.
//!
//! `TRACECMD_DAMAGE_ROUNDS=N` repeats the runs with other damage; `TRACECMD_DAMAGE_FILES=A:B` takes these files in place of
//! the fixtures; `TRACECMD_DAMAGE_KEEP=DIR` keeps every file that a fault was found with.

use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tracecmd_tests::{
    damage::{self, damage},
    limited::{self, Run, run},
    programs, seeds, target_seeds,
    targets::TARGETS,
};

/// Every command that reads a trace file. `{}` is the file; outputs have names of their own in the run's directory.
const READERS: &[&str] = &[
    "report -i {}",
    "report -R -i {}",
    "report -t -l --ts-diff -N -i {}",
    "report -w --ts-check --align-ts -i {}",
    "report -F .*:common_pid>0&&COMM!=\"x\" -i {}",
    "report --json -i {}",
    "report --debug --boundary -i {}",
    "report --profile -i {}",
    "report --from +0.001 --to -0.001 -i {}",
    "report --tail 5 -I -S -i {}",
    "report --cpus --first-event --last-event -i {}",
    "report --stat -i {}",
    "report --uname --version -e -p -f -P -E -i {}",
    "report --events -i {}",
    "report --check-events -i {}",
    "report --raw-ts --nodate -O parent -O fgraph:tailprint -i {}",
    "dump --all -i {}",
    "dump --summary --options --events -i {}",
    "split -i {} -o split.dat",
    "split -e 50 -i {} -o parts.dat",
    "convert -i {} -o v6.dat --file-version 6",
    "convert -i {} -o zlib.dat --compression zlib",
    "convert --slim --redact -i {} -o slim.dat",
    "convert --salvage -i {} -o salvaged.dat",
    "convert --salvage -i {} -o json.dat --to chrome",
    "convert --salvage -i {} -o perfetto.dat --to perfetto",
    "convert --salvage -i {} -o ctf --to ctf",
    "hist -i {}",
    "mem -i {}",
];

fn words(command: &str, file: &Path) -> Vec<String> {
    command.split_whitespace().map(|w| w.replace("{}", &file.to_string_lossy())).collect()
}

/// Runs all commands, or only the report and one other, on a file; the faults found.
fn check_file(file: &Path, dir: &Path, commands: &[&str], whole: Option<&Whole>, told: &str) -> Vec<String> {
    let bin = programs::tracecmd();
    let mut faults = Vec::new();
    for command in commands {
        let before = limited::largest_child_kb();
        let r = run(bin, &words(command, file), dir);
        let mut fault = r.fault.clone();
        let now = limited::largest_child_kb();
        if now > before && now > limited::RESIDENT_KB {
            fault = Some(format!("took {} MiB", now >> 10));
        }
        // What is missing must have been told, and where.
        if let (Some(whole), &"report -i {}") = (whole, command) {
            fault = fault.or_else(|| whole.compare(&r, told.contains("cut off")));
            fault = fault.or_else(|| salvage(file, dir, &r));
        }
        if let Some(fault) = fault {
            faults
                .push(format!("{told}: {command}: {fault}\n{}", r.err.lines().take(8).collect::<Vec<_>>().join("\n")));
        }
        for entry in std::fs::read_dir(dir).expect("its directory").flatten() {
            let path = entry.path();
            if path != file {
                let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
            }
        }
    }
    faults
}

/// What a salvaged copy shows is what the report of the damaged file shows, without a complaint.
fn salvage(file: &Path, dir: &Path, damaged: &Run) -> Option<String> {
    let bin = programs::tracecmd();
    let r = run(bin, &words("convert --salvage -q -i {} -o salvaged.dat", file), dir);
    if r.fault.is_some() {
        return r.fault;
    }
    let clean = dir.join("salvaged.dat");
    if r.status != Some(0) {
        // Not even a report was possible, or there is nothing to show.
        let shown = damaged.lines() > 1 && damaged.out.windows(2).any(|w| w == b": ");
        return shown.then(|| format!("cannot be salvaged: {}", r.err));
    }
    let again = run(bin, &words("report -i {}", &clean), dir);
    if again.status != Some(0) {
        return Some(format!("the salvaged file is not clean: {:?} {}", again.status, again.err));
    }
    // The salvaged file knows where events are missing; the damaged one may only know that it is damaged.
    let lines = |r: &Run| -> Vec<Vec<u8>> {
        r.out
            .split(|b| *b == b'\n')
            .filter(|l| !l.ends_with(b"EVENTS DROPPED]") && !l.starts_with(b"cpus="))
            .map(<[u8]>::to_vec)
            .collect()
    };
    let (want, have) = (lines(damaged), lines(&again));
    if want.len() > have.len() {
        return Some(format!("{} lines of the report are {} in the salvaged file", want.len(), have.len()));
    }
    None
}

/// What the report of the undamaged file gave.
struct Whole {
    lines: usize,
    err: String,
}

impl Whole {
    fn of(file: &Path, dir: &Path) -> Whole {
        let r = run(programs::tracecmd(), &words("report -i {}", file), dir);
        assert!(r.fault.is_none() && r.status == Some(0), "{}: {:?} {}", file.display(), r.fault, r.err);
        Whole { lines: r.lines(), err: r.err }
    }

    fn compare(&self, r: &Run, cut: bool) -> Option<String> {
        let new: Vec<&str> = r.err.lines().filter(|l| !self.err.contains(l) && !l.trim().is_empty()).collect();
        // Bytes of a record that turn it into padding, or into a time, are seen by no reader; whatever is cut off is.
        if r.lines() < self.lines && new.is_empty() && (cut || r.lines() < self.lines / 2) {
            return Some(format!("{} of {} lines, and nothing said", r.lines(), self.lines));
        }
        if r.status != Some(0) && new.is_empty() {
            return Some("failed, and nothing said".into());
        }
        None
    }
}

/// Does the jobs on all CPUs; the faults that they found.
fn in_parallel<T: Sync>(jobs: &[T], job: impl Fn(&T, &Path) -> Vec<String> + Sync) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let faults = Mutex::new(Vec::new());
    std::thread::scope(|s| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            s.spawn(|| {
                let dir = tempfile::tempdir().expect("a directory");
                while let Some(j) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = job(j, dir.path());
                    faults.lock().expect("no panic while it is held").extend(found);
                }
            });
        }
    });
    faults.into_inner().expect("no panic while it was held")
}

/// Names and bytes of the files that damage is done to.
fn files() -> Vec<(String, Vec<u8>)> {
    match std::env::var("TRACECMD_DAMAGE_FILES") {
        Ok(list) => list.split(':').map(|p| (p.to_owned(), std::fs::read(p).expect("a file"))).collect(),
        Err(_) => seeds::all(false).expect("the fixtures"),
    }
}

/// Thousands of damaged files. Each is read by `report` and by two other commands in turn, so that every command meets every
/// kind of damage.
#[test]
fn every_command_on_damaged_files() {
    let rounds: u64 = std::env::var("TRACECMD_DAMAGE_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let keep = std::env::var_os("TRACECMD_DAMAGE_KEEP").map(PathBuf::from);
    let files = files();
    let dir = tempfile::tempdir().expect("a directory");
    let mut jobs = Vec::new();
    let mut wholes = Vec::new();
    for (n, (_, bytes)) in files.iter().enumerate() {
        let path = dir.path().join("whole.dat");
        std::fs::write(&path, bytes).expect("a file");
        wholes.push(Whole::of(&path, dir.path()));
        jobs.extend((0..rounds * damage::KINDS).map(|seed| (n, seed)));
    }
    let faults = in_parallel(&jobs, |(n, seed), dir| {
        let (name, bytes) = &files[*n];
        let (damaged, what) = damage(bytes, *seed);
        let path = dir.join("damaged.dat");
        std::fs::write(&path, damaged).expect("a file");
        let turn = (*seed as usize + n) * 2;
        let others = [READERS[1 + turn % (READERS.len() - 1)], READERS[1 + (turn + 1) % (READERS.len() - 1)]];
        let told = format!("{name} seed {seed}: {what}");
        let faults = check_file(&path, dir, &["report -i {}", others[0], others[1]], Some(&wholes[*n]), &told);
        if let (Some(keep), false) = (&keep, faults.is_empty()) {
            std::fs::create_dir_all(keep).expect("a directory");
            let name = Path::new(name).file_name().unwrap_or_default().to_string_lossy();
            std::fs::copy(&path, keep.join(format!("{name}-{seed}.dat"))).expect("a copy");
        }
        faults
    });
    eprintln!("{} damaged files, largest run {} MiB", jobs.len(), limited::largest_child_kb() >> 10);
    assert!(faults.is_empty(), "{} faults of {} files:\n{}", faults.len(), jobs.len(), faults.join("\n"));
}

/// The small files that earlier faults were found with, each through every command.
#[test]
fn every_command_on_files_that_once_did_harm() {
    let dir = programs::workspace().join("fixtures/damaged");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .expect("fixtures/damaged")
        .map(|e| e.expect("a directory entry").path())
        .filter(|p| p.extension().is_some_and(|e| e == "dat"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    let faults = in_parallel(&files, |file, dir| check_file(file, dir, READERS, None, &file.to_string_lossy()));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Files of which something was once left out without a word.
#[test]
fn what_is_left_out_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, command, told) in [
        ("nul-in-kallsyms", "dump --all -i {}", "Kallsyms at byte 4 of what is packed at 0xaa7: its byte 18138 is NUL"),
        ("chunks-of-nothing", "report -i {}", "buffer \"one\", CPU 0: header of a chunk at 0x8004"),
        (
            "cpu-count-flipped",
            "split -i {} -o split.dat",
            "number of a CPU at 0x4000: 301989889 is more than any machine has",
        ),
        (
            "times-without-records",
            "report -i {}",
            "CPU 1, sub-buffer 0, file offset 0x400c: record at 0x500 of the sub-buffer at 0x0: it is a time before another time",
        ),
        ("times-without-records", "convert --salvage -i {} -o salvaged.dat", "it is a time before another time"),
        ("no-buffer-option", "report -i {}", "BUFFER option is missing at 0x3c32"),
        ("headers-option-flipped", "report -i {}", "file offset 0x25: option of this section is missing at 0x25"),
        ("headers-option-flipped", "dump --all -i {}", "section 16 at 0x25: no option leads to it"),
        ("cpu-size-zero", "report -i {}", "size of a buffer's data at 0x2837: 10311 is where the data of its CPUs end"),
        ("formats-of-zeros", "dump --all -i {}", "its sizes end at"),
        (
            "symbols-claim-3-gib",
            "convert -i {} -o zstd.dat --compression zstd",
            "3288334336 bytes unpacked are more than any",
        ),
        ("too-few-chunks", "report -i {}", "CPU 1: count of chunks at 0x5000: 1 chunks end before the data do"),
    ] {
        let file = programs::workspace().join(format!("fixtures/damaged/{name}.dat"));
        let r = run(programs::tracecmd(), &words(command, &file), dir.path());
        // What was to be salvaged is, and what is missing is told all the same.
        let status = i32::from(!command.contains("--salvage"));
        assert!(
            r.fault.is_none() && r.status == Some(status) && r.err.contains(told),
            "{name}: {:?} {}",
            r.status,
            r.err
        );
    }
}

/// Longest run of a target on one input. The fuzzer's own limit is 10 s for a build with sanitizers.
const TARGET_SECONDS: u64 = 5;

/// What the fuzz targets found once, run once more.
#[test]
fn fuzz_findings() {
    let mut count = 0;
    for (name, target) in TARGETS {
        let dir = programs::workspace().join("fixtures/damaged").join(name);
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for entry in entries {
            let path = entry.expect("a directory entry").path();
            let start = Instant::now();
            target(&std::fs::read(&path).expect("a finding"));
            assert!(start.elapsed() < Duration::from_secs(TARGET_SECONDS), "{}: {:?}", path.display(), start.elapsed());
            count += 1;
        }
    }
    eprintln!("{count} findings");
}

/// The fuzz targets without the fuzzer: their seeds, and damaged copies of them.
#[test]
fn fuzz_targets_on_damaged_seeds() {
    let mut number = std::collections::BTreeMap::<&str, u64>::new();
    target_seeds::all(&mut |name, seed| {
        let n = number.entry(name).or_default();
        *n += 1;
        // Many seeds of a kind differ little: each gets some of the damage.
        let copies = if *n % 16 == 1 { 48 } else { 2 };
        let (_, target) = TARGETS.iter().find(|t| t.0 == name).expect("a target");
        target(seed);
        for i in 0..copies {
            let (bytes, what) = damage(seed, *n * 48 + i);
            let start = Instant::now();
            target(&bytes);
            let took = start.elapsed();
            assert!(took < Duration::from_secs(TARGET_SECONDS), "{name}: seed {n}, {what}: {took:?}");
        }
        Ok(())
    })
    .expect("the fixtures");
    let names: Vec<_> = TARGETS.iter().map(|t| t.0).filter(|t| !number.contains_key(t)).collect();
    assert!(names.is_empty(), "targets without a seed: {names:?}");
}
