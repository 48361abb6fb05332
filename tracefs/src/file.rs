//! One control file: read, write, append, clear. Every write of the crate passes here, so that the
//! [`Journal`] sees the old content first and a refusal names the path, the value and the kernel's reason.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::journal::{Journal, Undo};

/// A directory of control files: the top tracing directory or that of an instance.
#[derive(Clone, Debug)]
pub struct Dir {
    path: PathBuf,
    journal: Option<Journal>,
}

impl Dir {
    /// The directory at `path`; nothing is checked.
    pub fn new(path: impl Into<PathBuf>) -> Dir {
        Dir { path: path.into(), journal: None }
    }

    /// The same directory with every later write noted in `journal`.
    pub fn with_journal(mut self, journal: Option<Journal>) -> Dir {
        self.journal = journal;
        self
    }

    /// The journal that notes writes, if any.
    pub fn journal(&self) -> Option<&Journal> {
        self.journal.as_ref()
    }

    /// A directory below this one, with the same journal.
    pub fn sub(&self, name: impl AsRef<Path>) -> Dir {
        Dir { path: self.path.join(name), journal: self.journal.clone() }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it.
    pub fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// True when the file exists.
    pub fn exists(&self, name: impl AsRef<Path>) -> bool {
        self.path.join(name).exists()
    }

    /// True when it exists and is a directory.
    pub fn is_dir(&self, name: impl AsRef<Path>) -> bool {
        self.path.join(name).is_dir()
    }

    /// The whole file as text; bytes that are no UTF-8 are replaced.
    pub fn read(&self, name: impl AsRef<Path>) -> Result<String> {
        read_text(&self.path.join(name))
    }

    /// The whole file, without white space at both ends.
    pub fn read_trimmed(&self, name: impl AsRef<Path>) -> Result<String> {
        Ok(self.read(name)?.trim().to_owned())
    }

    /// The whole file as bytes.
    pub fn read_bytes(&self, name: impl AsRef<Path>) -> Result<Vec<u8>> {
        read_bytes(&self.path.join(name))
    }

    /// What one read of at most `max` bytes gives: the whole of a short file, or the first part of a long one.
    pub fn read_head(&self, name: impl AsRef<Path>, max: usize) -> Result<Vec<u8>> {
        let path = self.path.join(name);
        let mut file = File::open(&path).map_err(|e| Error::io("open", &path, e))?;
        let mut buf = vec![0; max];
        loop {
            match file.read(&mut buf) {
                Ok(n) => {
                    buf.truncate(n);
                    return Ok(buf);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("read", &path, e)),
            }
        }
    }

    /// The first number of the file.
    pub fn read_number(&self, name: impl AsRef<Path>) -> Result<i64> {
        let path = self.path.join(name);
        let text = read_text(&path)?;
        let word = text.split_whitespace().next().unwrap_or("");
        word.parse().map_err(|_| Error::Text { path, text: text.trim_end().to_owned(), expected: "a number" })
    }

    /// The lines of the file that hold something; comment lines (`#`) are left out.
    pub fn read_lines(&self, name: impl AsRef<Path>) -> Result<Vec<String>> {
        let text = self.read(name)?;
        Ok(text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#')).map(str::to_owned).collect())
    }

    /// Replaces the content: open with truncation, one write of the whole value.
    pub fn write(&self, name: impl AsRef<Path>, value: &str) -> Result<()> {
        let path = self.path.join(name);
        let noted = self.note(&path, value)?;
        self.checked(write_raw(&path, value), &noted)
    }

    /// Writes a number and a newline.
    pub fn write_number(&self, name: impl AsRef<Path>, value: i64) -> Result<()> {
        self.write(name, &format!("{value}\n"))
    }

    /// Adds to the content: opened without truncation. For files whose lines are commands
    /// (`trigger`, `dynamic_events`) this is the only way of writing that leaves other people's lines alone.
    pub fn append(&self, name: impl AsRef<Path>, value: &str) -> Result<()> {
        let path = self.path.join(name);
        let noted = self.note(&path, value)?;
        self.checked(append_raw(&path, value), &noted)
    }

    /// As [`append`](Dir::append), without a note in the journal: the caller has noted what undoes it.
    pub(crate) fn append_noted(&self, name: impl AsRef<Path>, value: &str) -> Result<()> {
        append_raw(&self.path.join(name), value)
    }

    /// Empties the file: opened with truncation, nothing written.
    pub fn clear(&self, name: impl AsRef<Path>) -> Result<()> {
        let path = self.path.join(name);
        let noted = self.note(&path, "")?;
        self.checked(clear_raw(&path), &noted)
    }

    /// Opens a control file for several writes by the caller (`truncate` empties it first).
    pub fn open_write(&self, name: impl AsRef<Path>, truncate: bool) -> Result<ControlFile> {
        let path = self.path.join(name);
        let noted = self.note(&path, "")?;
        let file = self.checked(open_for_write(&path, truncate), &noted)?;
        Ok(ControlFile { file, path })
    }

    /// Opens a file for reading.
    pub fn open_read(&self, name: impl AsRef<Path>) -> Result<File> {
        let path = self.path.join(name);
        File::open(&path).map_err(|e| Error::io("open", &path, e))
    }

    /// Names of the entries, in the directory's own order.
    pub fn list(&self, name: impl AsRef<Path>) -> Result<Vec<String>> {
        list_dir(&self.path.join(name), false)
    }

    /// Names of the sub-directories, in the directory's own order.
    pub fn list_dirs(&self, name: impl AsRef<Path>) -> Result<Vec<String>> {
        list_dir(&self.path.join(name), true)
    }

    /// [`Error::Unsupported`] when the file is missing.
    pub fn require(&self, name: impl AsRef<Path>, what: &str) -> Result<()> {
        let path = self.path.join(name);
        match std::fs::metadata(&path) {
            Ok(_) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::Unsupported { path, what: what.to_owned() }),
            Err(e) => Err(Error::io("stat", &path, e)),
        }
    }

    fn note(&self, path: &Path, value: &str) -> Result<Vec<Undo>> {
        match &self.journal {
            Some(j) => j.before_write(path, value),
            None => Ok(Vec::new()),
        }
    }

    /// Takes notes back whose write changed nothing.
    fn checked<T>(&self, done: Result<T>, noted: &[Undo]) -> Result<T> {
        if let (Err(e), Some(j)) = (&done, &self.journal) {
            j.write_failed(noted, e)?;
        }
        done
    }
}

/// A control file held open for writing; each [`write`](ControlFile::write) is one system call.
#[derive(Debug)]
pub struct ControlFile {
    file: File,
    path: PathBuf,
}

impl ControlFile {
    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One write of the whole value.
    pub fn write(&mut self, value: &str) -> Result<()> {
        write_once(&mut self.file, &self.path, value)
    }

    /// The open file.
    pub fn into_file(self) -> File {
        self.file
    }
}

pub(crate) fn list_dir(path: &Path, dirs: bool) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|e| Error::io("list", path, e))? {
        let entry = entry.map_err(|e| Error::io("list", path, e))?;
        if dirs && !entry.file_type().is_ok_and(|t| t.is_dir()) {
            continue;
        }
        if let Ok(name) = entry.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let mut file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    // Some control files (events/header_page) give all they have in one read and then nothing: the first read must be large.
    // Files from a list (kallsyms, saved_cmdlines) give about a page at a time.
    let mut out = Vec::new();
    let mut buf = vec![0; 1 << 16];
    loop {
        match file.read(&mut buf) {
            Ok(0) => return Ok(out),
            Ok(n) => out.extend_from_slice(buf.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io("read", path, e)),
        }
    }
}

pub(crate) fn read_text(path: &Path) -> Result<String> {
    let bytes = read_bytes(path)?;
    Ok(match String::from_utf8(bytes) {
        Ok(s) => s,
        Err(e) => String::from_utf8_lossy(e.as_bytes()).into_owned(),
    })
}

fn open_for_write(path: &Path, truncate: bool) -> Result<File> {
    let mut options = OpenOptions::new();
    if truncate {
        options.write(true).truncate(true);
    } else {
        // The kernel ignores O_APPEND here; a plain file standing in for tracefs needs it.
        options.append(true);
    }
    options.open(path).map_err(|e| refused("open", path, "", e))
}

/// Truncating write without a note in the journal.
pub(crate) fn write_raw(path: &Path, value: &str) -> Result<()> {
    let mut file = open_for_write(path, true).map_err(|e| with_value(e, value))?;
    write_once(&mut file, path, value)
}

/// Write without truncation and without a note in the journal.
pub(crate) fn append_raw(path: &Path, value: &str) -> Result<()> {
    let mut file = open_for_write(path, false).map_err(|e| with_value(e, value))?;
    write_once(&mut file, path, value)
}

/// Truncation only, without a note in the journal.
pub(crate) fn clear_raw(path: &Path) -> Result<()> {
    open_for_write(path, true).map(drop)
}

fn with_value(e: Error, new: &str) -> Error {
    match e {
        Error::Busy { path, hint, source, .. } => Error::Busy { path, value: new.trim_end().to_owned(), hint, source },
        other => other,
    }
}

fn write_once(file: &mut File, path: &Path, value: &str) -> Result<()> {
    let mut rest = value.as_bytes();
    while !rest.is_empty() {
        match file.write(rest) {
            Ok(0) => {
                return Err(refused("write", path, value, io::Error::from(io::ErrorKind::WriteZero)));
            }
            // Some files take a part of a long list at a time (set_ftrace_filter); one call is the usual case.
            Ok(n) => rest = rest.get(n..).unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(refused("write", path, value, e)),
        }
    }
    Ok(())
}

/// The fitting error for a failed open or write of a control file.
fn refused(op: &'static str, path: &Path, value: &str, source: io::Error) -> Error {
    let shown = value.trim_end().to_owned();
    match source.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => Error::io(op, path, source),
        Some(libc::ENOENT) if op == "open" => {
            Error::Unsupported { path: path.to_owned(), what: "not built into this kernel, or removed".into() }
        }
        Some(libc::EBUSY) => {
            let hint = busy_hint(path);
            Error::Busy { path: path.to_owned(), value: shown, hint, source }
        }
        _ if op == "write" => {
            let log = log_for(path, &shown);
            Error::Refused { path: path.to_owned(), value: shown, log, source }
        }
        _ => Error::Io { op, path: path.to_owned(), source },
    }
}

/// Says what may hold a busy file.
fn busy_hint(path: &Path) -> String {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
    match name {
        "current_tracer" => "another instance uses this tracer, or a reader has trace_pipe open \
             (look at current_tracer of each instance, and at fuser -v trace_pipe)"
            .into(),
        "buffer_size_kb" | "buffer_subbuf_size_kb" | "snapshot" => {
            "the buffer is being read or is memory mapped; stop its readers and try again".into()
        }
        "kprobe_events" | "uprobe_events" | "dynamic_events" | "synthetic_events" => {
            "the event is enabled, or a trigger or filter of some instance uses it; disable it first".into()
        }
        _ => "try again when the other user has stopped".into(),
    }
}

/// The newest `error_log` entry of the instance the file belongs to, if it is about `value`.
fn log_for(path: &Path, value: &str) -> String {
    let mut dir = path.parent();
    // error_log lies in the directory of the instance (or in the top one): the nearest that has it.
    for _ in 0..6 {
        let Some(d) = dir else { break };
        let log = d.join("error_log");
        if let Ok(text) = read_text(&log) {
            let entry = newest_entry(&text);
            let command =
                entry.lines().find_map(|l| l.trim_start().strip_prefix("Command: ")).map(squeeze).unwrap_or_default();
            let value = squeeze(value);
            let about = !command.is_empty() && (value.contains(&command) || command.contains(&value));
            return if about { entry.to_owned() } else { String::new() };
        }
        dir = d.parent();
    }
    String::new()
}

fn squeeze(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

/// The last block of an `error_log`: it begins at the last line that starts with `[`. Since Linux 5.2.
pub fn newest_entry(log: &str) -> &str {
    let mut start = 0;
    let mut at = 0;
    for line in log.split_inclusive('\n') {
        if line.starts_with('[') {
            start = at;
        }
        at += line.len();
    }
    log.get(start..).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_append_clear() {
        let dir = tempfile::tempdir().unwrap();
        let d = Dir::new(dir.path());
        std::fs::write(d.file("f"), "old old\n").unwrap();
        d.write("f", "1\n").unwrap();
        assert_eq!(d.read("f").unwrap(), "1\n");
        d.append("f", "2").unwrap();
        assert_eq!(d.read_trimmed("f").unwrap(), "1\n2");
        assert_eq!(d.read_number("f").unwrap(), 1);
        d.clear("f").unwrap();
        assert_eq!(d.read("f").unwrap(), "");
        assert!(matches!(d.read_number("f"), Err(Error::Text { .. })));
        let missing = d.write("g", "1").unwrap_err();
        assert!(missing.is_missing());
        assert!(!d.exists("g"), "a control file is never created");
    }

    #[test]
    fn newest_log_entry() {
        let log = "[ 1.0] a: error: X\n  Command: foo\n       ^\n[ 2.0] b: error: Y\n  Command: p:bar\n     ^\n";
        assert!(newest_entry(log).starts_with("[ 2.0]"));
        assert_eq!(newest_entry(""), "");
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("error_log"), log).unwrap();
        std::fs::create_dir_all(dir.path().join("events/sched")).unwrap();
        let file = dir.path().join("events/sched/filter");
        assert!(log_for(&file, "p:bar").contains("error: Y"));
        assert_eq!(log_for(&file, "other"), "");
    }
}
