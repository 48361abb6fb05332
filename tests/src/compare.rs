//! The same file reported by two programs: byte for byte the same text.

use std::path::Path;
use std::process::{Command, Stdio};

/// The option sets every comparison runs with.
pub const BASIC: [&str; 5] = ["", "-l", "-R", "-t", "-N"];

/// What a run of `report` gave.
#[derive(Debug)]
pub struct Report {
    /// Whether it ended with status zero.
    pub success: bool,
    /// Whether a signal ended it.
    pub killed: bool,
    /// Standard output.
    pub text: Vec<u8>,
    /// Standard error.
    pub messages: String,
}

/// Runs `PROGRAM report OPTIONS -i NAME`, as [`run`] does.
///
/// # Panics
/// When the program cannot be started, or the path has no file name.
pub fn report(program: &Path, options: &str, file: &Path) -> Report {
    run(program, &format!("report {options}"), file)
}

/// Runs `PROGRAM COMMAND -i NAME` in the directory of the file, because some commands name it. The command is split at blanks.
///
/// # Panics
/// When the program cannot be started, or the path has no file name.
pub fn run(program: &Path, command: &str, file: &Path) -> Report {
    let done = Command::new(program)
        .args(command.split_whitespace())
        .arg("-i")
        .arg(file.file_name().expect("a file has a name"))
        .current_dir(file.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new(".")))
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{}: {e}", program.display()));
    Report {
        success: done.status.success(),
        killed: done.status.code().is_none(),
        text: done.stdout,
        messages: String::from_utf8_lossy(&done.stderr).into_owned(),
    }
}

/// The first line in which two texts differ, for a message: number and both lines. `None` when they are the same.
pub fn first_difference(expected: &[u8], found: &[u8]) -> Option<String> {
    if expected == found {
        return None;
    }
    let (mut a, mut b) = (expected.split(|c| *c == b'\n'), found.split(|c| *c == b'\n'));
    for number in 1.. {
        match (a.next(), b.next()) {
            (None, None) => break,
            (x, y) if x == y => {}
            (x, y) => {
                let show = |l: Option<&[u8]>| {
                    l.map_or("<end of text>".into(), |l| String::from_utf8_lossy(&l[..l.len().min(300)]).into_owned())
                };
                return Some(format!("line {number}\n  - {}\n  + {}", show(x), show(y)));
            }
        }
    }
    Some("texts differ".into())
}

/// Compares the reports of a file by the reference and by us with each option set.
///
/// # Errors
/// A text that names file, options and the first line that differs, for each set that differs.
pub fn same_reports(reference: &Path, ours: &Path, file: &Path, option_sets: &[&str]) -> Result<(), String> {
    let mut faults = String::new();
    for options in option_sets {
        let (want, have) = (report(reference, options, file), report(ours, options, file));
        if let Some(place) = first_difference(&want.text, &have.text) {
            faults += &format!("{} report {options}: {place}\n{}", file.display(), have.messages);
        } else if want.success != have.success {
            faults += &format!(
                "{} report {options}: success {}, reference {}\n{}",
                file.display(),
                have.success,
                want.success,
                have.messages
            );
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}
