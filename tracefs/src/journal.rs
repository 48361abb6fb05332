//! The undo journal: what a session changed, and what brings each change back.
//!
//! Before a control file is written its old content is noted, in memory and in a small file under a runtime
//! directory. [`Journal::undo`] plays the notes backwards. A process that died by SIGKILL leaves its file;
//! [`leftovers`] finds the files of dead processes and [`Leftover::undo`] plays them. Only what a journal
//! lists is touched.
//!
//! The file has one line per note, fields separated by tabs, `\\`, tab and newline escaped. The first line says
//! who writes it: format version, process id, start time of that process (field 22 of `/proc/PID/stat`) and the
//! kernel's boot id, so that neither a reused process id nor a reboot is mistaken for a living or fresh owner.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::error::{Error, Result};
use crate::file;

/// One step that brings a change back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Undo {
    /// Write this value, with truncation.
    Write {
        /// The control file.
        path: PathBuf,
        /// Its old value.
        value: String,
    },
    /// Write this line without truncation (`!trigger`, `-:group/event`).
    Append {
        /// The control file.
        path: PathBuf,
        /// The line.
        value: String,
    },
    /// Empty the file, then write each line.
    Lines {
        /// The control file.
        path: PathBuf,
        /// Its old lines.
        lines: Vec<String>,
    },
    /// Remove the instance directory that was created.
    RemoveDir {
        /// The directory.
        path: PathBuf,
    },
}

impl Undo {
    /// The file or directory it is about.
    pub fn path(&self) -> &Path {
        match self {
            Undo::Write { path, .. }
            | Undo::Append { path, .. }
            | Undo::Lines { path, .. }
            | Undo::RemoveDir { path } => path,
        }
    }

    /// Does it. What is gone already (a removed instance, event or trigger) counts as done.
    pub fn play(&self) -> Result<()> {
        let done = match self {
            Undo::Write { path, value } => file::write_raw(path, value),
            Undo::Append { path, value } => file::append_raw(path, value),
            Undo::Lines { path, lines } if lines.is_empty() => file::clear_raw(path),
            // One open for all, so that the kernel applies the list as a whole when the file is closed.
            Undo::Lines { path, lines } => file::write_raw(path, &(lines.join("\n") + "\n")),
            Undo::RemoveDir { path } => remove_instance_dir(path),
        };
        match done {
            Err(e) if e.is_missing() => Ok(()),
            Err(e) if matches!(self, Undo::Append { .. }) && e.errno() == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }

    fn to_line(&self) -> String {
        let mut out = String::new();
        let mut field = |text: &str| {
            for c in text.chars() {
                match c {
                    '\\' => out.push_str("\\\\"),
                    '\t' => out.push_str("\\t"),
                    '\n' => out.push_str("\\n"),
                    '\r' => out.push_str("\\r"),
                    c => out.push(c),
                }
            }
            out.push('\t');
        };
        match self {
            Undo::Write { path, value } => {
                field("write");
                field(&path.to_string_lossy());
                field(value);
            }
            Undo::Append { path, value } => {
                field("append");
                field(&path.to_string_lossy());
                field(value);
            }
            Undo::Lines { path, lines } => {
                field("lines");
                field(&path.to_string_lossy());
                lines.iter().for_each(|l| field(l));
            }
            Undo::RemoveDir { path } => {
                field("rmdir");
                field(&path.to_string_lossy());
            }
        }
        out.pop();
        out.push('\n');
        out
    }

    fn from_line(line: &str) -> Option<Undo> {
        let mut fields = line.split('\t').map(unescape);
        let kind = fields.next()?;
        let path = PathBuf::from(fields.next()?);
        Some(match kind.as_str() {
            "write" => Undo::Write { path, value: fields.next()? },
            "append" => Undo::Append { path, value: fields.next()? },
            "lines" => Undo::Lines { path, lines: fields.collect() },
            "rmdir" => Undo::RemoveDir { path },
            _ => return None,
        })
    }
}

fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('t') => out.push('\t'),
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some(c) => out.push(c),
                None => {}
            },
            c => out.push(c),
        }
    }
    out
}

/// Removes an instance. In a plain directory that stands in for tracefs the files in it go too.
pub(crate) fn remove_instance_dir(path: &Path) -> Result<()> {
    match std::fs::remove_dir(path) {
        Err(e) if e.raw_os_error() == Some(libc::ENOTEMPTY) && !on_tracefs(path) => {
            std::fs::remove_dir_all(path).map_err(|e| Error::io("remove", path, e))
        }
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => Err(Error::Busy {
            path: path.to_owned(),
            value: "rmdir".into(),
            hint: "one of its files is open or one of its events is in use".into(),
            source: e,
        }),
        other => other.map_err(|e| Error::io("remove", path, e)),
    }
}

fn on_tracefs(path: &Path) -> bool {
    nix::sys::statfs::statfs(path).is_ok_and(|s| {
        let t = s.filesystem_type();
        t == nix::sys::statfs::TRACEFS_MAGIC || t == nix::sys::statfs::DEBUGFS_MAGIC
    })
}

#[derive(Debug, Default)]
struct Inner {
    notes: Vec<Undo>,
    /// Files whose old value is noted already; the first note is the one that counts.
    noted: HashSet<PathBuf>,
    /// Files that are never noted.
    ignored: HashSet<PathBuf>,
    file: Option<(PathBuf, File)>,
    paused: bool,
}

/// Notes old contents before control files are written. Clones share one journal.
#[derive(Clone, Debug)]
pub struct Journal(Arc<Mutex<Inner>>);

impl Journal {
    /// A journal in memory only.
    pub fn in_memory() -> Journal {
        Journal(Arc::default())
    }

    /// A journal that also writes a file named after this process in `dir` (made with mode 0700 if missing).
    /// The file appears with the first note.
    pub fn in_dir(dir: &Path) -> Result<Journal> {
        private_dir(dir)?;
        let me = std::process::id();
        let start = start_time(me).unwrap_or(0);
        // Several journals of one process (sessions one after the other, tests) do not share a file.
        let (path, mut file) = (0..1000)
            .find_map(|n| {
                let path = dir.join(format!("undo-{me}-{n}"));
                match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => None,
                    other => Some(other.map(|f| (path.clone(), f)).map_err(|e| Error::io("create", &path, e))),
                }
            })
            .unwrap_or_else(|| Err(Error::Invalid(format!("{}: too many journals", dir.display()))))?;
        writeln!(file, "tracecmd-undo\t1\t{me}\t{start}\t{}", boot_id()).map_err(|e| Error::io("write", &path, e))?;
        let inner = Inner { file: Some((path, file)), ..Inner::default() };
        Ok(Journal(Arc::new(Mutex::new(inner))))
    }

    /// A journal in the usual [`runtime_dir`]; in memory only (with a log message) where that cannot be written.
    pub fn for_session() -> Journal {
        match runtime_dir().map(|d| Journal::in_dir(&d)) {
            Some(Ok(j)) => j,
            Some(Err(e)) => {
                log::warn!("no undo journal on disk, a killed session cannot be undone: {e}");
                Journal::in_memory()
            }
            None => Journal::in_memory(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Notes a step. It is in the journal's file when this returns.
    pub fn note(&self, undo: Undo) -> Result<()> {
        self.lock().note(undo)
    }

    /// Notes what `path` is to be set back to, in place of what it holds now. Later writes to it add no note.
    pub fn note_value(&self, path: &Path, value: &str) -> Result<()> {
        let mut inner = self.lock();
        inner.noted.insert(path.to_owned());
        inner.note(Undo::Write { path: path.to_owned(), value: value.to_owned() })
    }

    /// Later writes to this file are not noted: they are meant to stay.
    pub fn ignore(&self, path: &Path) {
        self.lock().ignored.insert(path.to_owned());
    }

    /// While paused nothing is noted.
    pub fn pause(&self, paused: bool) {
        self.lock().paused = paused;
    }

    /// What is noted so far, oldest first.
    pub fn notes(&self) -> Vec<Undo> {
        self.lock().notes.clone()
    }

    /// Takes out the notes that `drop_it` accepts: these changes stay.
    pub fn forget(&self, mut drop_it: impl FnMut(&Undo) -> bool) -> Result<()> {
        let mut inner = self.lock();
        inner.notes.retain(|u| !drop_it(u));
        inner.rewrite()
    }

    /// Brings everything back, newest first, and removes the journal's file. Each step is tried even if others fail.
    pub fn undo(&self) -> Vec<Error> {
        let mut inner = self.lock();
        let mut errors = Vec::new();
        while let Some(step) = inner.notes.pop() {
            if let Err(e) = step.play() {
                errors.push(e);
            }
        }
        inner.finish();
        errors
    }

    /// Everything stays as it is now; the journal's file is removed.
    pub fn keep(&self) {
        let mut inner = self.lock();
        inner.notes.clear();
        inner.finish();
    }

    /// Reads the old content of a control file that is about to be written and notes what brings it back. Gives the notes
    /// that were added.
    pub fn before_write(&self, path: &Path, value: &str) -> Result<Vec<Undo>> {
        let mut inner = self.lock();
        let mut added = Vec::new();
        if inner.paused || inner.ignored.contains(path) {
            return Ok(added);
        }
        for (step, once) in plan(path, value) {
            if once && !inner.noted.insert(step.path().to_owned()) {
                continue;
            }
            added.push(step.clone());
            inner.note(step)?;
        }
        Ok(added)
    }

    /// Takes notes of [`before_write`](Journal::before_write) back where the write that failed changed nothing: a line that was
    /// not added must not be removed later (somebody else may have the same), and a file that nobody may write cannot be put
    /// back. Other notes stay: a write that fails may have done a part.
    pub(crate) fn write_failed(&self, noted: &[Undo], error: &Error) -> Result<()> {
        let nothing_done = error.is_denied() || error.is_missing();
        let mut inner = self.lock();
        let before = inner.notes.len();
        for step in noted.iter().rev().filter(|s| nothing_done || matches!(s, Undo::Append { .. })) {
            if let Some(at) = inner.notes.iter().rposition(|n| n == step) {
                inner.notes.remove(at);
                inner.noted.remove(step.path());
            }
        }
        if inner.notes.len() == before { Ok(()) } else { inner.rewrite() }
    }
}

impl Inner {
    fn note(&mut self, undo: Undo) -> Result<()> {
        if let Some((path, file)) = &mut self.file {
            file.write_all(undo.to_line().as_bytes()).map_err(|e| Error::io("write", path, e))?;
        }
        self.notes.push(undo);
        Ok(())
    }

    fn finish(&mut self) {
        self.noted.clear();
        if let Some((path, _)) = self.file.take() {
            let _ = std::fs::remove_file(path);
        }
    }

    fn rewrite(&mut self) -> Result<()> {
        let Some((path, _)) = &self.file else { return Ok(()) };
        let old = file::read_text(path)?;
        let mut text = old.lines().next().unwrap_or("").to_owned();
        text.push('\n');
        self.notes.iter().for_each(|u| text.push_str(&u.to_line()));
        let new = path.with_extension("new");
        std::fs::write(&new, text).map_err(|e| Error::io("write", &new, e))?;
        std::fs::rename(&new, path).map_err(|e| Error::io("rename", &new, e))?;
        let path = path.clone();
        let file = OpenOptions::new().append(true).open(&path).map_err(|e| Error::io("open", &path, e))?;
        self.file = Some((path, file));
        Ok(())
    }
}

/// What undoes a write of `value` to `path`; true: only the first such write of a session counts.
///
/// Where the old content cannot be read nothing is planned: the write itself will say why.
fn plan(path: &Path, value: &str) -> Vec<(Undo, bool)> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
    let write = |path: &Path, value: String| (Undo::Write { path: path.to_owned(), value }, true);
    let text = || file::read_text(path).ok();
    match name {
        // Data and commands, not settings.
        "trace" | "trace_pipe" | "trace_pipe_raw" | "trace_marker" | "trace_marker_raw" | "free_buffer"
        | "error_log" | "snapshot_raw" | "set_event" => Vec::new(),
        // What undoes a new event is noted by those who know its name.
        "dynamic_events" | "kprobe_events" | "uprobe_events" | "synthetic_events" => Vec::new(),
        "snapshot" => match text() {
            Some(t) if t.contains("Snapshot is freed") => vec![write(path, "0".into())],
            _ => Vec::new(),
        },
        "trace_clock" => text().and_then(|t| bracketed(&t)).map(|c| write(path, c)).into_iter().collect(),
        "trace_options" => value.split_whitespace().flat_map(|word| plan_option(path, word)).collect(),
        "enable" => plan_enable(path),
        "filter" => plan_filter(path),
        "trigger" => value
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty() && !l.starts_with('#'))
            .map(|l| {
                let value = match l.strip_prefix('!') {
                    Some(removed) => removed.to_owned(),
                    None => format!("!{l}"),
                };
                (Undo::Append { path: path.to_owned(), value }, false)
            })
            .collect(),
        // Truncation leaves function commands alone: each is removed by its own line.
        "set_ftrace_filter" if is_function_command(value) => match text() {
            Some(t) if !has_command(&t, value.trim()) => {
                vec![(Undo::Append { path: path.to_owned(), value: format!("!{}", value.trim()) }, false)]
            }
            _ => Vec::new(),
        },
        "set_ftrace_filter"
        | "set_ftrace_notrace"
        | "set_graph_function"
        | "set_graph_notrace"
        | "set_event_pid"
        | "set_event_notrace_pid"
        | "set_ftrace_pid"
        | "set_ftrace_notrace_pid" => match text() {
            Some(t) => {
                let lines = t.lines().filter(|l| is_entry(l)).filter_map(|l| entry_to_write(name, l)).collect();
                vec![(Undo::Lines { path: path.to_owned(), lines }, true)]
            }
            None => Vec::new(),
        },
        "buffer_size_kb" => match text() {
            Some(t) if t.trim() == "X" => plan_cpu_sizes(path),
            Some(t) => vec![write(path, size_to_write(&t))],
            None => Vec::new(),
        },
        _ => text().map(|t| write(path, t.trim_end().to_owned())).into_iter().collect(),
    }
}

/// The word in brackets: `[local] global` gives `local`.
pub(crate) fn bracketed(text: &str) -> Option<String> {
    let (word, _) = text.split_once('[')?.1.split_once(']')?;
    Some(word.to_owned())
}

/// A line that stands for an entry; `no pid` and `#### all functions enabled ####` do not.
fn is_entry(line: &str) -> bool {
    !line.trim().is_empty() && !line.starts_with('#') && line.trim() != "no pid"
}

/// How an entry is written so that it reads again as it did; `None` for a function command, which nobody took away.
fn entry_to_write(file: &str, line: &str) -> Option<String> {
    let line = line.trim();
    if file.ends_with("_pid") {
        return Some(line.to_owned());
    }
    // `name [module]` names the module; the graph lists take names only.
    let (name, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    match rest.trim().strip_prefix('[').and_then(|r| r.split_once(']')) {
        Some((module, _)) if file.starts_with("set_ftrace_") => Some(format!("{name}:mod:{module}")),
        Some(_) => Some(name.to_owned()),
        None if is_function_command(name) => None,
        None => Some(name.to_owned()),
    }
}

/// `FUNCTION:COMMAND[:COUNT]`, and not `FUNCTION:mod:MODULE`, which names functions.
fn is_function_command(text: &str) -> bool {
    let mut words = text.trim().trim_start_matches('!').split(':').skip(1);
    words.next().is_some_and(|w| w != "mod")
}

/// Whether a list shows this command, whatever its count.
fn has_command(list: &str, command: &str) -> bool {
    let head = |t: &str| {
        let mut words = t.split(':');
        (words.next().map(str::to_owned), words.next().map(str::to_owned))
    };
    list.lines().any(|l| head(l.trim()) == head(command))
}

/// `7 (expanded: 1408)` is a buffer that nobody has used yet: it becomes 1408 with its first use and stays so,
/// therefore that is what a used one goes back to.
fn size_to_write(text: &str) -> String {
    let text = text.trim();
    match text.split_once("(expanded:") {
        Some((_, rest)) => rest.trim_end_matches(')').trim().to_owned(),
        None => text.to_owned(),
    }
}

fn plan_cpu_sizes(path: &Path) -> Vec<(Undo, bool)> {
    let Some(dir) = path.parent() else { return Vec::new() };
    let per_cpu = dir.join("per_cpu");
    let mut steps = Vec::new();
    for cpu in file::list_dir(&per_cpu, true).unwrap_or_default() {
        let path = per_cpu.join(cpu).join("buffer_size_kb");
        if let Ok(t) = file::read_text(&path) {
            steps.push((Undo::Write { path, value: size_to_write(&t) }, true));
        }
    }
    steps
}

fn plan_option(path: &Path, word: &str) -> Option<(Undo, bool)> {
    let dir = path.parent()?.join("options");
    let name = if dir.join(word).exists() { word } else { word.strip_prefix("no")? };
    let path = dir.join(name);
    let value = file::read_text(&path).ok()?.trim().to_owned();
    Some((Undo::Write { path, value }, true))
}

/// `enable` of an event, of a system or of all events. Where some are on and some off each that will change is noted.
fn plan_enable(path: &Path) -> Vec<(Undo, bool)> {
    let Ok(text) = file::read_text(path) else { return Vec::new() };
    match text.trim().as_bytes() {
        // Followed by `*` when a trigger has switched the event on in soft mode.
        [b @ (b'0' | b'1'), ..] => {
            vec![(Undo::Write { path: path.to_owned(), value: char::from(*b).to_string() }, true)]
        }
        _ => below(path, "enable").into_iter().flat_map(|p| plan_enable(&p)).collect(),
    }
}

/// `filter` of an event, or of a system: then each event's.
fn plan_filter(path: &Path) -> Vec<(Undo, bool)> {
    let events = below(path, "filter");
    if !events.is_empty() {
        return events.into_iter().flat_map(|p| plan_filter(&p)).collect();
    }
    let Ok(text) = file::read_text(path) else { return Vec::new() };
    let text = text.trim_end();
    // A filter that was refused leaves the kernel's explanation in the file; the filter in force is then none.
    let value = if text == "none" || text.contains('\n') || text.is_empty() { "0" } else { text };
    vec![(Undo::Write { path: path.to_owned(), value: value.to_owned() }, true)]
}

/// The files of this name in the directories beside `path`.
fn below(path: &Path, name: &str) -> Vec<PathBuf> {
    let Some(dir) = path.parent() else { return Vec::new() };
    let mut names = file::list_dir(dir, true).unwrap_or_default();
    names.sort();
    names.into_iter().map(|n| dir.join(n).join(name)).filter(|p| p.exists()).collect()
}

/// Where journals live: `/run/tracecmd` for root, `$XDG_RUNTIME_DIR/tracecmd` for others.
pub fn runtime_dir() -> Option<PathBuf> {
    if nix::unistd::geteuid().is_root() {
        return Some(PathBuf::from("/run/tracecmd"));
    }
    let dir = std::env::var_os("XDG_RUNTIME_DIR").filter(|d| !d.is_empty())?;
    Some(PathBuf::from(dir).join("tracecmd"))
}

fn private_dir(dir: &Path) -> Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).recursive(true).create(dir) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(Error::io("create", dir, e)),
    }
    let meta = std::fs::symlink_metadata(dir).map_err(|e| Error::io("stat", dir, e))?;
    if !meta.is_dir() || meta.uid() != nix::unistd::geteuid().as_raw() || meta.mode() & 0o022 != 0 {
        return Err(Error::Invalid(format!(
            "{}: not a directory of this user alone, so its journals cannot be trusted",
            dir.display()
        )));
    }
    Ok(())
}

/// Start time of a process in clock ticks since boot (field 22 of `/proc/PID/stat`).
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&stat);
    // The name may hold blanks and parentheses: fields count from the last `)`.
    text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The journal of a process that died without undoing what it did.
#[derive(Debug)]
pub struct Leftover {
    /// The journal's file.
    pub path: PathBuf,
    /// The process that wrote it.
    pub pid: u32,
    /// Its notes, oldest first.
    pub notes: Vec<Undo>,
}

impl Leftover {
    /// Brings everything back, newest first, and removes the file. Each step is tried even if others fail.
    pub fn undo(self) -> Vec<Error> {
        let errors = self.notes.iter().rev().filter_map(|u| u.play().err()).collect();
        let _ = std::fs::remove_file(&self.path);
        errors
    }

    /// True when some note is about this directory or what lies below it.
    pub fn touches(&self, dir: &Path) -> bool {
        self.notes.iter().any(|u| u.path().starts_with(dir))
    }
}

/// The journals in `dir` whose processes are gone, newest first. Journals from before a reboot are removed: the
/// kernel they describe is gone too.
///
/// Steps that lie neither below `root` (the tracing directory) nor in the few files of `/proc/sys/kernel` that
/// tracing uses are not taken from a file.
pub fn leftovers(dir: &Path, root: &Path) -> Result<Vec<Leftover>> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    private_dir(dir)?;
    let mut found = Vec::new();
    for name in file::list_dir(dir, false)? {
        if !name.starts_with("undo-") || name.ends_with(".new") {
            continue;
        }
        let path = dir.join(&name);
        let Ok(text) = file::read_text(&path) else { continue };
        let mut lines = text.lines();
        let head: Vec<&str> = lines.next().unwrap_or("").split('\t').collect();
        let ["tracecmd-undo", "1", pid, start, boot] = head.as_slice() else { continue };
        let (Ok(pid), Ok(start)) = (pid.parse::<u32>(), start.parse::<u64>()) else { continue };
        if *boot != boot_id() {
            let _ = std::fs::remove_file(&path);
            continue;
        }
        if start_time(pid) == Some(start) {
            continue;
        }
        let notes = lines.filter_map(Undo::from_line).filter(|u| may_touch(u.path(), root)).collect();
        let time = std::fs::metadata(&path).and_then(|m| m.modified()).ok();
        found.push((time, Leftover { path, pid, notes }));
    }
    found.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
    Ok(found.into_iter().map(|(_, l)| l).collect())
}

fn may_touch(path: &Path, root: &Path) -> bool {
    if path.components().any(|c| matches!(c, std::path::Component::ParentDir)) {
        return false;
    }
    path.starts_with(root)
        || path.strip_prefix("/proc/sys/kernel").is_ok_and(|p| {
            ["ftrace_enabled", "stack_tracer_enabled", "kptr_restrict"].iter().any(|n| p == Path::new(n))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::Dir;

    fn tree() -> (tempfile::TempDir, Dir, Journal) {
        let t = tempfile::tempdir().unwrap();
        let root = t.path().join("tracing");
        for e in ["sched/sched_switch", "sched/sched_wakeup"] {
            std::fs::create_dir_all(root.join("events").join(e)).unwrap();
            std::fs::write(root.join("events").join(e).join("enable"), "0\n").unwrap();
            std::fs::write(root.join("events").join(e).join("filter"), "none\n").unwrap();
            std::fs::write(root.join("events").join(e).join("trigger"), "# Available triggers:\n# x\n").unwrap();
        }
        std::fs::write(root.join("events/sched/enable"), "X\n").unwrap();
        std::fs::write(root.join("events/sched/filter"), "### global filter ###\n").unwrap();
        std::fs::write(root.join("events/sched/sched_wakeup/enable"), "1\n").unwrap();
        std::fs::write(root.join("events/sched/sched_wakeup/filter"), "pid == 1\n").unwrap();
        std::fs::write(root.join("trace_clock"), "local [mono] boot\n").unwrap();
        std::fs::write(root.join("tracing_on"), "1\n").unwrap();
        std::fs::write(
            root.join("set_ftrace_filter"),
            "vfs_read\nfoo [bar]\nx:traceon:unlimited\ny:traceoff:count=3\n",
        )
        .unwrap();
        std::fs::write(root.join("set_event_pid"), "1\n12\n").unwrap();
        std::fs::write(root.join("buffer_size_kb"), "7 (expanded: 1408)\n").unwrap();
        std::fs::create_dir_all(root.join("options")).unwrap();
        std::fs::write(root.join("options/stacktrace"), "0\n").unwrap();
        std::fs::write(root.join("options/nonsense"), "1\n").unwrap();
        std::fs::write(root.join("trace_options"), "").unwrap();
        let j = Journal::in_dir(&t.path().join("run")).unwrap();
        let d = Dir::new(&root).with_journal(Some(j.clone()));
        (t, d, j)
    }

    fn change(d: &Dir) {
        d.write("tracing_on", "0").unwrap();
        d.write("trace_clock", "global").unwrap();
        d.write("events/sched/enable", "1").unwrap();
        d.write("events/sched/filter", "pid == 2").unwrap();
        d.append("events/sched/sched_switch/trigger", "stacktrace\n").unwrap();
        d.clear("set_ftrace_filter").unwrap();
        d.write("set_event_pid", "99").unwrap();
        d.write("buffer_size_kb", "100").unwrap();
        d.write("trace_options", "stacktrace").unwrap();
        d.write("trace_options", "nononsense").unwrap();
        d.write("tracing_on", "1").unwrap();
    }

    fn check(d: &Dir) {
        let d = Dir::new(d.path());
        for (f, want) in [
            ("tracing_on", "1"),
            ("trace_clock", "mono"),
            ("events/sched/sched_switch/enable", "0"),
            ("events/sched/sched_wakeup/enable", "1"),
            ("events/sched/sched_switch/filter", "0"),
            ("events/sched/sched_wakeup/filter", "pid == 1"),
            ("set_ftrace_filter", "vfs_read\nfoo:mod:bar"),
            ("set_event_pid", "1\n12"),
            ("buffer_size_kb", "1408"),
            ("options/stacktrace", "0"),
            ("options/nonsense", "1"),
        ] {
            assert_eq!(d.read(f).unwrap().trim_end(), want, "{f}");
        }
        assert!(d.read("events/sched/sched_switch/trigger").unwrap().ends_with("stacktrace\n!stacktrace"));
    }

    #[test]
    fn undo_in_process() {
        let (t, d, j) = tree();
        change(&d);
        assert_eq!(std::fs::read_dir(t.path().join("run")).unwrap().count(), 1);
        assert!(j.undo().is_empty());
        check(&d);
        assert_eq!(std::fs::read_dir(t.path().join("run")).unwrap().count(), 0);
    }

    #[test]
    fn undo_what_a_dead_process_left() {
        let (t, d, _j) = tree();
        change(&d);
        let run = t.path().join("run");
        assert!(leftovers(&run, d.path()).unwrap().is_empty(), "its process lives");
        // The same file, of a process that cannot exist.
        let file = std::fs::read_dir(&run).unwrap().next().unwrap().unwrap().path();
        let text = std::fs::read_to_string(&file).unwrap();
        let (head, body) = text.split_once('\n').unwrap();
        let head: Vec<&str> = head.split('\t').collect();
        std::fs::write(
            &file,
            format!(
                "{}\t1\t4194305\t1\t{}\n{body}write\t/etc/passwd\tx\nwrite\t{}/../x\ty\n",
                head[0],
                head[4],
                d.path().display()
            ),
        )
        .unwrap();
        let mut found = leftovers(&run, d.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert!(found[0].notes.iter().all(|u| u.path().starts_with(d.path()) && !u.path().ends_with("x")));
        assert!(found.pop().unwrap().undo().is_empty());
        check(&d);
        assert!(!file.exists());
    }

    #[test]
    fn a_journal_of_an_earlier_boot_goes() {
        let (t, d, _j) = tree();
        let run = t.path().join("run");
        std::fs::write(run.join("undo-1-0"), "tracecmd-undo\t1\t4194305\t1\tother-boot\n").unwrap();
        assert!(leftovers(&run, d.path()).unwrap().is_empty());
        assert!(!run.join("undo-1-0").exists());
    }

    #[test]
    fn forget_and_keep() {
        let (_t, d, j) = tree();
        d.write("tracing_on", "0").unwrap();
        d.write("trace_clock", "global").unwrap();
        j.forget(|u| u.path().ends_with("trace_clock")).unwrap();
        j.undo();
        assert_eq!(d.read("trace_clock").unwrap(), "global");
        assert_eq!(d.read("tracing_on").unwrap(), "1");
        d.write("tracing_on", "0").unwrap();
        j.keep();
        assert!(j.notes().is_empty());
    }

    #[test]
    fn lines_that_were_not_added_are_not_removed() {
        let (_t, d, j) = tree();
        let file = "events/sched/sched_switch/trigger";
        d.append(file, "stacktrace\n").unwrap();
        // The kernel refuses a second one of a kind.
        let error = Error::Refused {
            path: d.file(file),
            value: "stacktrace".into(),
            log: String::new(),
            source: io::Error::from_raw_os_error(libc::EEXIST),
        };
        let noted = j.before_write(&d.file(file), "stacktrace").unwrap();
        assert_eq!((noted.len(), j.notes().len()), (1, 2));
        j.write_failed(&noted, &error).unwrap();
        assert_eq!(j.notes().len(), 1);
        // A setting that was refused may have been done in part; one that nobody may write was not.
        let noted = j.before_write(&d.file("tracing_on"), "0").unwrap();
        j.write_failed(&noted, &error).unwrap();
        assert_eq!(j.notes().len(), 2);
        assert!(d.write("no_such_file", "1").is_err());
        assert!(d.write("options/none", "1").is_err());
        assert_eq!(j.notes().len(), 2);
    }

    #[test]
    fn function_commands() {
        let (_t, d, j) = tree();
        d.append("set_ftrace_filter", "vfs_write:traceoff:3\n").unwrap();
        d.append("set_ftrace_filter", "x:traceon\n").unwrap();
        let path = d.file("set_ftrace_filter");
        assert_eq!(j.notes(), [Undo::Append { path, value: "!vfs_write:traceoff:3".into() }], "the other was there");
        assert_eq!(entry_to_write("set_graph_function", "foo [bar]").as_deref(), Some("foo"));
        assert_eq!(entry_to_write("set_ftrace_pid", "12").as_deref(), Some("12"));
        assert!(is_function_command("a:traceoff") && !is_function_command("a:mod:b") && !is_function_command("a"));
    }

    #[test]
    fn lines_round_trip() {
        for u in [
            Undo::Write { path: "/a b".into(), value: "x\ty\\\nz".into() },
            Undo::Lines { path: "/l".into(), lines: vec!["a".into(), "b\tc".into()] },
            Undo::Lines { path: "/l".into(), lines: vec![] },
            Undo::Append { path: "/t".into(), value: "!hist:keys=a".into() },
            Undo::RemoveDir { path: "/i".into() },
        ] {
            assert_eq!(Undo::from_line(u.to_line().trim_end_matches('\n')), Some(u));
        }
    }
}
