//! What `report` does otherwise than the reference, on purpose: lines of fixtures/DIFFERENCES.md.

use std::path::PathBuf;
use std::process::{Command, Output};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(name)
}

fn report(options: &[&str], file: &std::path::Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tracecmd")).arg("report").args(options).arg(file).output().unwrap()
}

fn text(options: &[&str], name: &str) -> String {
    let out = report(options, &fixture(name));
    assert!(out.status.success(), "{options:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// The time column of the first line, in nanoseconds.
fn first_time(options: &[&str]) -> u64 {
    let all = text(&[&["-t"], options].concat(), "s390x-6.1-v6.dat");
    let line = all.lines().nth(1).unwrap();
    let time = line.split_whitespace().find_map(|w| w.strip_suffix(':').filter(|w| w.contains('.'))).unwrap();
    time.replace('.', "").parse().unwrap()
}

#[test]
fn ts_offset_moves_the_only_file() {
    let before = first_time(&[]);
    assert_eq!(first_time(&["--ts-offset", "1000000"]), before + 1_000_000);
    assert_eq!(first_time(&["--ts-offset", "-5"]), before - 5);
}

#[test]
fn uname_is_the_uname_only() {
    let out = text(&["--uname"], "s390x-6.1-v6.dat");
    assert_eq!(out.lines().count(), 2, "{out}");
    assert!(out.starts_with("cpus=2\nLinux ") && out.ends_with(" s390x\n"), "{out}");
}

#[test]
fn formats_of_version_7_are_listed() {
    let out = text(&["--event", "sched_switch"], "s390x-6.1-inst.dat");
    assert!(out.starts_with("\nsystem: sched\nname: sched_switch\nID: "), "{out}");
    assert!(text(&["--events"], "s390x-6.1-inst.dat").matches("\nname: ").count() > 5);
}

#[test]
fn damage_is_told_and_the_rest_is_shown() {
    let whole = std::fs::read(fixture("s390x-6.1-v6.dat")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cut = dir.path().join("cut.dat");
    std::fs::write(&cut, &whole[..whole.len() - 6000]).unwrap();
    let out = report(&[], &cut);
    assert_eq!(out.status.code(), Some(1));
    let message = String::from_utf8(out.stderr).unwrap();
    assert!(message.contains("CPU 1") && message.contains("0x"), "{message}");
    let shown = String::from_utf8(out.stdout).unwrap();
    let all = text(&[], "s390x-6.1-v6.dat");
    assert!(shown.lines().count() > all.lines().count() / 2, "{}", shown.lines().count());
    assert!(shown.lines().take(50).eq(all.lines().take(50)));
}

#[test]
fn wrong_numbers_are_errors() {
    for options in [["--cpu", "x"], ["--ts-offset", "x"], ["--ts2secs", "x"]] {
        let out = report(&options, &fixture("s390x-6.1-v6.dat"));
        assert!(!out.status.success() && out.stdout.is_empty(), "{options:?}");
    }
}

#[test]
fn head_and_tail_are_ends_of_the_report() {
    let all = text(&[], "i386-6.1-events.dat");
    let lines: Vec<_> = all.lines().collect();
    let head = text(&["--head", "7"], "i386-6.1-events.dat");
    assert_eq!(head.lines().collect::<Vec<_>>(), lines[..8]);
    let tail = text(&["--tail", "7"], "i386-6.1-events.dat");
    assert_eq!(tail.lines().skip(1).collect::<Vec<_>>(), lines[lines.len() - 7..]);
}

#[test]
fn json_has_the_text_of_every_line() {
    let all = text(&["-t"], "s390x-6.1-inst.dat");
    let json = text(&["--json", "-t"], "s390x-6.1-inst.dat");
    assert_eq!(json.lines().count() + 1, all.lines().count());
    for (object, line) in json.lines().zip(all.lines().skip(1)) {
        let object: serde_json::Value = serde_json::from_str(object).unwrap();
        assert!(line.ends_with(object["text"].as_str().unwrap()), "{object}\n{line}");
        assert!(line.starts_with(object["buffer"].as_str().unwrap()), "{object}\n{line}");
        assert!(object["fields"].as_object().is_some_and(|f| !f.is_empty()), "{object}");
    }
}

#[test]
fn threads_change_nothing() {
    let one = text(&["--threads", "1"], "s390x-6.1-fgraph.dat");
    assert!(text(&["--threads", "4"], "s390x-6.1-fgraph.dat") == one);
}
