//! Golden texts: every file of `fixtures/` against what the reference prints for it.
//!
//! `fixtures/NAME.dat` has its expected reports in `NAME.dat.reports.zst`: for each option set a line `==> OPTIONS | STATUS LENGTH`
//! and LENGTH bytes of standard output, all compressed together. `NAME.dat.looks.zst` has the same for whole commands: `hist`, `mem`,
//! `dump` and rare options of `report`. `BLESS=1` writes these files anew from the reference (fetched if needed), `BLESS=looks` the
//! latter ones only. Differences that are wanted stand in `fixtures/DIFFERENCES.md`, each with a test of its own, and not in here.

use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Failed, Trial};
use tracecmd_tests::{compare, programs};

/// Option sets beyond [`compare::BASIC`] that every fixture is reported with.
const MORE: &[&str] = &[
    "-t -l",
    "-t -R",
    "-q",
    "-I",
    "-S",
    "--ts-diff",
    "--raw-ts",
    "--nodate",
    "--cpu 0",
    "-E",
    "--cpus",
    "--first-event --last-event",
    "-F sched_switch",
    "-F .*:COMM==\"ls\"",
    "-O parent",
    "-O fgraph:tailprint",
    "-n sched:.*",
];

/// Files with records in several buffers. There the reference shows other buffers' CPUs with `--cpu` or crashes with `-F`
/// (`fixtures/DIFFERENCES.md`), so these option sets are left out.
const SEVERAL_BUFFERS: &[&str] = &["s390x-6.1-inst", "x86_64-7.2-instances"];

/// Commands that every fixture is looked at with.
const LOOKS: &[&str] = &[
    "hist",
    "hist -P",
    "mem",
    "dump --all",
    "dump --flyrecord --validate",
    "report --debug",
    "report --debug -R -l --stat",
    "report --boundary --ts-diff",
    "report --first-event --last-event --align-ts",
    "report --first-event --last-event --raw-ts",
    "report --stat",
    "report --check-events",
    "report --verbose=1 -w -t",
    "report -E -N",
    "report -e",
];

/// Looks of these fixtures that are wanted otherwise (`fixtures/DIFFERENCES.md`): totals that are equal stand in the order of a hash.
const OTHER_LOOKS: &[(&str, &str)] =
    &[("x86_64-6.12-lost", "hist"), ("i386-6.1-events", "mem"), ("x86_64-7.2-all", "mem")];

/// A report above this size (bytes) is kept for the basic option sets only.
const LARGE: usize = 4 << 20;
/// A look above this size (bytes) is not kept.
const LARGE_LOOK: usize = 1 << 20;

fn main() {
    let args = Arguments::from_args();
    let dir = programs::workspace().join("fixtures");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .expect("fixtures/")
        .map(|e| e.expect("a directory entry").path())
        .filter(|p| p.extension().is_some_and(|e| e == "dat"))
        .collect();
    files.sort();
    assert!(files.len() >= 8, "fixtures/ has only {} files", files.len());
    match std::env::var_os("BLESS") {
        Some(what) if what == "looks" => bless_looks(&files),
        Some(_) => {
            bless(&files);
            bless_looks(&files);
        }
        None => {}
    }
    let trials = files.into_iter().flat_map(|file| {
        let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        let reports = expected(&file, REPORTS).into_iter().map(|case| (format!("report {}", case.what), case));
        let looks = expected(&file, LOOKS_OF).into_iter().map(|case| (case.what.clone(), case));
        assert!(reports.len() >= compare::BASIC.len() && looks.len() >= 9, "{name}: {} {}", reports.len(), looks.len());
        reports.chain(looks).map(move |(command, case)| {
            let file = file.clone();
            Trial::test(format!("{name} [{command}]"), move || check(&file, &command, &case))
        })
    });
    libtest_mimic::run(&args, trials.collect()).exit();
}

/// Ends of the names of golden files.
const REPORTS: &str = ".reports.zst";
const LOOKS_OF: &str = ".looks.zst";

/// What one option set or command must print.
#[derive(Debug)]
struct Case {
    what: String,
    success: bool,
    text: Vec<u8>,
}

fn expected_path(file: &Path, end: &str) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(end);
    path.into()
}

fn expected(file: &Path, end: &str) -> Vec<Case> {
    let path = expected_path(file, end);
    let packed = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}; BLESS=1 makes it", path.display()));
    let all = zstd::decode_all(packed.as_slice()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut cases = Vec::new();
    let mut rest = all.as_slice();
    while !rest.is_empty() {
        let end = rest.iter().position(|c| *c == b'\n').expect("a head line");
        let head = std::str::from_utf8(&rest[..end]).expect("a head line of text");
        let (what, numbers) = head.strip_prefix("==> ").and_then(|h| h.rsplit_once(" | ")).expect("a head line");
        let (success, len) = numbers.split_once(' ').expect("status and length");
        let len: usize = len.parse().expect("a length");
        cases.push(Case { what: what.to_owned(), success: success == "0", text: rest[end + 1..][..len].to_vec() });
        rest = &rest[end + 1 + len..];
    }
    cases
}

fn check(file: &Path, command: &str, case: &Case) -> Result<(), Failed> {
    let have = compare::run(programs::tracecmd(), command, file);
    if let Some(place) = compare::first_difference(&case.text, &have.text) {
        return Err(format!("(- reference, + ours) {place}\n{}", have.messages).into());
    }
    if have.success != case.success {
        return Err(format!("success {}, reference {}\n{}", have.success, case.success, have.messages).into());
    }
    Ok(())
}

fn bless(files: &[PathBuf]) {
    let reference = programs::reference().unwrap_or_else(|reason| panic!("BLESS needs the reference: {reason}"));
    for file in files {
        let mut all = Vec::new();
        let mut large = false;
        let several = file.file_stem().and_then(|n| n.to_str()).is_some_and(|n| SEVERAL_BUFFERS.contains(&n));
        for (number, options) in compare::BASIC.iter().chain(MORE).enumerate() {
            if large && number >= compare::BASIC.len() {
                break;
            }
            if several && (options.starts_with("-F") || *options == "--cpu 0") {
                continue;
            }
            let r = compare::report(reference, options, file);
            if r.killed {
                continue; // it crashes with this option set: nothing to be like
            }
            large |= r.text.len() > LARGE;
            add(&mut all, options, &r);
        }
        write(file, REPORTS, &all);
    }
}

fn bless_looks(files: &[PathBuf]) {
    let reference = programs::reference().unwrap_or_else(|reason| panic!("BLESS needs the reference: {reason}"));
    for file in files {
        let mut all = Vec::new();
        let name = file.file_stem().and_then(|n| n.to_str()).unwrap_or_default();
        let several = SEVERAL_BUFFERS.contains(&name);
        for command in LOOKS {
            if several && (command.starts_with("hist") || *command == "mem") || OTHER_LOOKS.contains(&(name, command)) {
                continue;
            }
            let r = compare::run(reference, command, file);
            // Where it crashes there is nothing to be like.
            if !r.killed && r.text.len() <= LARGE_LOOK {
                add(&mut all, command, &r);
            }
        }
        write(file, LOOKS_OF, &all);
    }
}

fn add(all: &mut Vec<u8>, what: &str, r: &compare::Report) {
    all.extend_from_slice(format!("==> {what} | {} {}\n", i32::from(!r.success), r.text.len()).as_bytes());
    all.extend_from_slice(&r.text);
}

fn write(file: &Path, end: &str, all: &[u8]) {
    // A window over everything: the texts of one file are nearly the same.
    let mut encoder = zstd::Encoder::new(Vec::new(), 9).expect("an encoder");
    encoder.long_distance_matching(true).expect("a setting");
    encoder.window_log(26).expect("a window size");
    std::io::Write::write_all(&mut encoder, all).expect("writing to memory");
    std::fs::write(expected_path(file, end), encoder.finish().expect("an end of the stream"))
        .expect("fixtures/ can be written");
}
