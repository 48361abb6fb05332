//! Golden reports: every file of `fixtures/` against the text that the reference prints for it.
//!
//! `fixtures/NAME.dat` has its expected reports in `NAME.dat.reports.zst`: for each option set a line `==> OPTIONS | STATUS LENGTH`
//! and LENGTH bytes of standard output, all compressed together. `BLESS=1` writes these files anew from the reference (fetched if
//! needed). Differences that are wanted stand in `fixtures/DIFFERENCES.md`, each with a test of its own, and not in here.

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

/// A report above this size (bytes) is kept for the basic option sets only.
const LARGE: usize = 4 << 20;

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
    if std::env::var_os("BLESS").is_some() {
        bless(&files);
    }
    let trials = files.into_iter().flat_map(|file| {
        let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        expected(&file).into_iter().map(move |case| {
            let file = file.clone();
            let title = format!("{name} [{}]", case.options);
            Trial::test(title, move || check(&file, &case))
        })
    });
    libtest_mimic::run(&args, trials.collect()).exit();
}

/// What one option set must print.
#[derive(Debug)]
struct Case {
    options: String,
    success: bool,
    text: Vec<u8>,
}

fn expected_path(file: &Path) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(".reports.zst");
    path.into()
}

fn expected(file: &Path) -> Vec<Case> {
    let path = expected_path(file);
    let packed = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}; BLESS=1 makes it", path.display()));
    let all = zstd::decode_all(packed.as_slice()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut cases = Vec::new();
    let mut rest = all.as_slice();
    while !rest.is_empty() {
        let end = rest.iter().position(|c| *c == b'\n').expect("a head line");
        let head = std::str::from_utf8(&rest[..end]).expect("a head line of text");
        let (options, numbers) = head.strip_prefix("==> ").and_then(|h| h.rsplit_once(" | ")).expect("a head line");
        let (success, len) = numbers.split_once(' ').expect("status and length");
        let len: usize = len.parse().expect("a length");
        cases.push(Case {
            options: options.to_owned(),
            success: success == "0",
            text: rest[end + 1..][..len].to_vec(),
        });
        rest = &rest[end + 1 + len..];
    }
    assert!(cases.len() >= compare::BASIC.len(), "{}: only {} reports", path.display(), cases.len());
    cases
}

fn check(file: &Path, case: &Case) -> Result<(), Failed> {
    let have = compare::report(programs::tracecmd(), &case.options, file);
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
            all.extend_from_slice(format!("==> {options} | {} {}\n", i32::from(!r.success), r.text.len()).as_bytes());
            all.extend_from_slice(&r.text);
        }
        // A window over everything: the reports of one file are nearly the same text.
        let mut encoder = zstd::Encoder::new(Vec::new(), 9).expect("an encoder");
        encoder.long_distance_matching(true).expect("a setting");
        encoder.window_log(26).expect("a window size");
        std::io::Write::write_all(&mut encoder, &all).expect("writing to memory");
        std::fs::write(expected_path(file), encoder.finish().expect("an end of the stream"))
            .expect("fixtures/ can be written");
    }
}
