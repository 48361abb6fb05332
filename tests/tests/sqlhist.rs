//! `sqlhist` beside the reference: each statement of `fixtures/sqlhist/statements`, with the formats of a real kernel laid out
//! as a tracing directory (`-t`). The reference draws a random number for the names of variables: it counts as equal.

use std::path::Path;
use std::process::{Command, Output};

use regex::Regex;
use tracecmd_tests::{programs, skip::skip};

fn fixture(name: &str) -> String {
    let path = programs::workspace().join("fixtures/sqlhist").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What the reference needs of a tracing directory: formats, an `enable` file for each system, and the CPUs.
fn lay_out(dir: &Path) {
    let events = dir.join("events");
    let formats = fixture("formats");
    for text in formats.split("system: ").filter(|t| !t.is_empty()) {
        let (system, format) = text.split_once('\n').expect("a format behind its system");
        let name = format.lines().find_map(|l| l.strip_prefix("name: ")).expect("a name");
        std::fs::create_dir_all(events.join(system).join(name)).unwrap();
        std::fs::write(events.join(system).join(name).join("format"), format).unwrap();
        std::fs::write(events.join(system).join("enable"), "0\n").unwrap();
    }
    std::fs::write(events.join("header_page"), fixture("header_page")).unwrap();
    for cpu in 0..512 {
        std::fs::create_dir_all(dir.join(format!("per_cpu/cpu{cpu}"))).unwrap();
    }
}

/// Runs the words of a line as a shell would.
fn run(program: &Path, dir: &Path, words: &str) -> Output {
    Command::new("sh")
        .args(["-c", &format!("exec \"$0\" sqlhist -t \"$1\" {words}")])
        .arg(program)
        .arg(dir)
        .output()
        .expect("sh runs")
}

/// What was printed, without the random number and the tracing directory's place.
fn text(done: &Output) -> String {
    let number = Regex::new(r"__([A-Za-z_0-9]*?)_\d+_(\d+)\b").unwrap();
    let place = Regex::new(r"/[^ ]*/(dynamic_events|events/)").unwrap();
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    place.replace_all(&number.replace_all(&text, "__${1}_N_$2"), "/T/$1").into_owned()
}

#[test]
fn statements() {
    let reference = match programs::reference() {
        Ok(r) => Some(r),
        Err(e) => {
            skip("sqlhist statements, what the reference prints", e);
            None
        }
    };
    let dir = tempfile::tempdir().unwrap();
    lay_out(dir.path());
    let list = fixture("statements");
    let mut faults = String::new();
    let mut count = 0;
    for line in list.lines().filter(|l| !l.starts_with('#')) {
        let (kind, words) = match line.split_once(' ') {
            Some((k @ ("!" | "+"), rest)) => (k, rest),
            _ => ("", line),
        };
        count += 1;
        let ours = run(programs::tracecmd(), dir.path(), words);
        let works = matches!(kind, "" | "+");
        if ours.status.success() != works || works == ours.stdout.is_empty() {
            faults += &format!("{line}\n  ours: {} {}\n", ours.status, String::from_utf8_lossy(&ours.stderr));
        }
        let Some(reference) = reference else { continue };
        let theirs = run(reference, dir.path(), words);
        let same = text(&theirs) == text(&ours);
        let right = match kind {
            "" => theirs.status.success() && same,
            "!" => !theirs.status.success(),
            _ => !theirs.status.success() || !same,
        };
        if !right {
            faults += &format!("{line}\n- {}+ {}", text(&theirs), text(&ours));
        }
    }
    assert!(count > 80, "{count} statements");
    assert!(faults.is_empty(), "{faults}");
}
