//! What can go wrong, and what a person can do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the kernel interface. Each text is a sentence that names the file and what to try.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No tracefs in `/proc/mounts` and it could not be mounted.
    #[error(
        "tracefs is not mounted and could not be mounted at {path}: {reason}; \
         as root: mount -t tracefs nodev /sys/kernel/tracing"
    )]
    NotMounted {
        /// Where the mount was tried.
        path: PathBuf,
        /// Why it failed.
        reason: String,
    },
    /// The user may not use the file (EACCES).
    #[error(
        "{path}: permission denied; run as root, or give a group access: \
         mount -o remount,mode=750,gid=GROUP /sys/kernel/tracing"
    )]
    Permission {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        errno: io::Error,
    },
    /// The kernel refuses the file to everybody (EPERM): lockdown or a security policy.
    #[error(
        "{path}: this kernel does not permit it (EPERM), although the file exists: lockdown or a security policy \
         forbids it (see /sys/kernel/security/lockdown); leave out what needs this file"
    )]
    Lockdown {
        /// The file.
        path: PathBuf,
        /// The system's error.
        errno: io::Error,
    },
    /// The kernel has no such file, so this feature is not built in or the kernel is too old.
    #[error("{path}: this kernel has no such file ({what})")]
    Unsupported {
        /// The missing file.
        path: PathBuf,
        /// What it would be for, with the first kernel or the configuration option that has it.
        what: String,
    },
    /// A value was written and the kernel refused it.
    #[error("{path}: the kernel refused {value:?}{}", log_text(.log))]
    Refused {
        /// The control file.
        path: PathBuf,
        /// What was written.
        value: String,
        /// The newest entry of `error_log` when it belongs to this value, else empty.
        log: String,
        /// The system's error.
        source: io::Error,
    },
    /// Somebody else uses it (EBUSY).
    #[error("{path}: busy, {value:?} was not set; something else is using it: {hint}")]
    Busy {
        /// The control file.
        path: PathBuf,
        /// What was written.
        value: String,
        /// What may hold it.
        hint: String,
        /// The system's error.
        source: io::Error,
    },
    /// Any other failure of one file.
    #[error("cannot {op} {path}")]
    Io {
        /// `open`, `read`, `write` …
        op: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A control file has a text that cannot be understood.
    #[error("{path}: cannot understand {text:?}: expected {expected}")]
    Text {
        /// The control file.
        path: PathBuf,
        /// What it said.
        text: String,
        /// What was expected.
        expected: &'static str,
    },
    /// No such tracer in `available_tracers`.
    #[error("this kernel has no tracer {name:?}; it has: {}", .available.join(" "))]
    NoTracer {
        /// The tracer asked for.
        name: String,
        /// `available_tracers`.
        available: Vec<String>,
    },
    /// No such clock in `trace_clock`.
    #[error("this kernel has no trace clock {name:?}; it has: {}", .available.join(" "))]
    NoClock {
        /// The clock asked for.
        name: String,
        /// The clocks of `trace_clock`.
        available: Vec<String>,
    },
    /// No such option.
    #[error("this kernel has no trace option {name:?}{}", near_text(.near))]
    NoOption {
        /// The option asked for.
        name: String,
        /// The nearest names.
        near: Vec<String>,
    },
    /// No event or system matches.
    #[error("no event or event system matches {name:?}{}", near_text(.near))]
    NoEvent {
        /// What was asked for.
        name: String,
        /// The nearest names.
        near: Vec<String>,
    },
    /// No such instance.
    #[error("there is no instance {name:?}{}", near_text(.near))]
    NoInstance {
        /// The instance asked for.
        name: String,
        /// The nearest names.
        near: Vec<String>,
    },
    /// No function matches a filter.
    #[error("no function that can be traced matches {pattern:?}{}", .module.as_ref().map(|m| format!(" in module {m}")).unwrap_or_default())]
    NoFunction {
        /// The glob or regex.
        pattern: String,
        /// The module it was limited to.
        module: Option<String>,
    },
    /// No such CPU.
    #[error("there is no CPU {cpu} (no {path})")]
    NoCpu {
        /// The CPU.
        cpu: u32,
        /// Its directory.
        path: PathBuf,
    },
    /// Text given by the user is wrong; with the place.
    #[error("{}", syntax_text(.what, .text, *.at))]
    Syntax {
        /// What is wrong.
        what: String,
        /// The whole text.
        text: String,
        /// Byte offset in the text.
        at: usize,
    },
    /// An argument is not usable.
    #[error("{0}")]
    Invalid(String),
}

fn log_text(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!(":\n{}", log.trim_end()) }
}

fn near_text(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(" or ")) }
}

/// Message, the line of the text that has the place, and a caret below it.
pub(crate) fn syntax_text(what: &str, text: &str, at: usize) -> String {
    // A place inside a character is that character's.
    let (before, after) = (0..=at.min(text.len())).rev().find_map(|i| text.split_at_checked(i)).unwrap_or(("", text));
    let head = before.rsplit('\n').next().unwrap_or_default();
    let tail = after.split('\n').next().unwrap_or_default();
    let column = head.chars().count();
    let line = before.matches('\n').count() + 1;
    let place = if text.contains('\n') { format!("line {line} column {column}: ") } else { String::new() };
    let pad: String = head.chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    format!("{place}{what}\n  {head}{tail}\n  {pad}^")
}

impl Error {
    /// The fitting variant for a system error of `op` (a verb: `open`, `read`) on `path`.
    pub fn io(op: &'static str, path: &Path, source: io::Error) -> Error {
        let path = path.to_path_buf();
        match source.raw_os_error() {
            Some(libc::EACCES) => Error::Permission { path, errno: source },
            Some(libc::EPERM) if nix::unistd::geteuid().is_root() => Error::Lockdown { path, errno: source },
            Some(libc::EPERM) => Error::Permission { path, errno: source },
            _ => Error::Io { op, path, source },
        }
    }

    /// The system's error number, when there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Permission { errno: source, .. }
            | Error::Lockdown { errno: source, .. }
            | Error::Refused { source, .. }
            | Error::Busy { source, .. }
            | Error::Io { source, .. } => source.raw_os_error(),
            Error::Unsupported { .. } => Some(libc::ENOENT),
            _ => None,
        }
    }

    /// What was done to an output that failed.
    pub(crate) const OUTPUT: &str = "write to";

    /// True when not the kernel's file failed but what its data was to be written to: a full disk, a closed connection.
    pub fn is_output(&self) -> bool {
        matches!(self, Error::Io { op: Error::OUTPUT, .. })
    }

    /// True when the file does not exist.
    pub fn is_missing(&self) -> bool {
        self.errno() == Some(libc::ENOENT)
    }

    /// True when the kernel forbids the file to everybody (EPERM as root): lockdown or a security policy.
    pub fn is_lockdown(&self) -> bool {
        matches!(self, Error::Lockdown { .. })
    }

    /// True when somebody may not use the file, by permission or by lockdown.
    pub fn is_denied(&self) -> bool {
        matches!(self, Error::Lockdown { .. } | Error::Permission { .. })
    }
}

/// The names nearest to `wanted`, best first, at most `max`; for "did you mean".
///
/// A name counts when at most a third of its letters differ, or when it contains the wanted text.
pub fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>, max: usize) -> Vec<String> {
    let limit = (wanted.len() / 3).max(1);
    let mut found: Vec<(usize, &str)> = Vec::new();
    for name in names {
        if name.len().abs_diff(wanted.len()) <= limit {
            let d = distance(wanted, name, limit);
            if d <= limit {
                found.push((d, name));
                continue;
            }
        }
        if wanted.len() >= 3 && name.contains(wanted) {
            found.push((limit + name.len() - wanted.len(), name));
        }
    }
    found.sort();
    found.dedup_by(|a, b| a.1 == b.1);
    found.into_iter().take(max).map(|(_, n)| n.to_owned()).collect()
}

/// Edits (insert, delete, replace, swap of neighbours) between two words; above `limit` the number is only "more".
#[allow(clippy::indexing_slicing, reason = "every row has a number for each byte of b and one more")]
fn distance(a: &str, b: &str, limit: usize) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() > 128 || b.len() > 128 {
        return limit + 1;
    }
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1; b.len() + 1];
        for (j, y) in b.iter().enumerate() {
            let mut d = (last[j] + usize::from(x != y)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                d = d.min(before[j - 1] + 1);
            }
            row[j + 1] = d;
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_names() {
        let names = ["sched_switch", "sched_wakeup", "sched_stat_wait", "irq_handler_entry"];
        assert_eq!(nearest("sched_swich", names, 3), ["sched_switch"]);
        assert_eq!(nearest("sched_swithc", names, 3), ["sched_switch"]);
        assert_eq!(nearest("irq_handler", names, 3), ["irq_handler_entry"]);
        assert!(nearest("xyz", names, 3).is_empty());
    }

    #[test]
    fn caret() {
        assert_eq!(syntax_text("no such field", "pid == x", 7), "no such field\n  pid == x\n         ^");
        assert_eq!(syntax_text("bad", "a\nbc d", 5), "line 2 column 3: bad\n  bc d\n     ^");
        assert_eq!(syntax_text("bad", "é", 1), "bad\n  é\n  ^");
    }
}
