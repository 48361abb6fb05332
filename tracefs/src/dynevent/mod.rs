//! Dynamic events: probes and synthetic events that are made at run time.
//!
//! Definitions are data with `Display` (the line that is written) and `FromStr` (also for the lines that the kernel
//! shows). The files are only ever appended to; `-:GROUP/NAME` removes one event.

pub mod eprobe;
pub mod fprobe;
pub mod kprobe;
pub mod synth;
pub mod uprobe;

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::event::EventTarget;
use crate::journal::Undo;
use crate::root::TraceFs;

pub use eprobe::Eprobe;
pub use fprobe::{Fprobe, Tprobe};
pub use kprobe::Kprobe;
pub use synth::{SynthEvent, SynthField};
pub use uprobe::Uprobe;

/// The kinds of dynamic events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DynEventKind {
    /// Event probe: made from another event.
    Eprobe,
    /// Function entry, anywhere in the kernel.
    Kprobe,
    /// Function return in the kernel.
    Kretprobe,
    /// A place in a program or library.
    Uprobe,
    /// Return from a function of a program or library.
    Uretprobe,
    /// Function entry or return by fprobe.
    Fprobe,
    /// Tracepoint without an event of its own.
    Tprobe,
    /// Synthetic event.
    Synth,
}

impl DynEventKind {
    /// All kinds, event probes first: they hang on others and have to go before them.
    pub const ALL: [DynEventKind; 8] = [
        DynEventKind::Eprobe,
        DynEventKind::Synth,
        DynEventKind::Fprobe,
        DynEventKind::Tprobe,
        DynEventKind::Kprobe,
        DynEventKind::Kretprobe,
        DynEventKind::Uprobe,
        DynEventKind::Uretprobe,
    ];

    /// The word for the kind: `kprobe`, `synth` …
    pub fn name(self) -> &'static str {
        match self {
            DynEventKind::Eprobe => "eprobe",
            DynEventKind::Kprobe => "kprobe",
            DynEventKind::Kretprobe => "kretprobe",
            DynEventKind::Uprobe => "uprobe",
            DynEventKind::Uretprobe => "uretprobe",
            DynEventKind::Fprobe => "fprobe",
            DynEventKind::Tprobe => "tprobe",
            DynEventKind::Synth => "synth",
        }
    }

    /// The kind that a word names.
    pub fn from_name(word: &str) -> Option<DynEventKind> {
        DynEventKind::ALL.into_iter().find(|k| k.name() == word)
    }

    /// The file of this kind alone; the others have only `dynamic_events`.
    fn own_file(self) -> Option<&'static str> {
        match self {
            DynEventKind::Kprobe | DynEventKind::Kretprobe => Some("kprobe_events"),
            DynEventKind::Uprobe | DynEventKind::Uretprobe => Some("uprobe_events"),
            DynEventKind::Synth => Some("synthetic_events"),
            _ => None,
        }
    }
}

/// A dynamic event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DynEvent {
    /// kprobe or kretprobe.
    Kprobe(Kprobe),
    /// uprobe or uretprobe.
    Uprobe(Uprobe),
    /// Event probe.
    Eprobe(Eprobe),
    /// fprobe.
    Fprobe(Fprobe),
    /// Tracepoint probe.
    Tprobe(Tprobe),
    /// Synthetic event.
    Synth(SynthEvent),
}

impl DynEvent {
    /// Its kind.
    pub fn kind(&self) -> DynEventKind {
        match self {
            DynEvent::Kprobe(p) if p.is_return => DynEventKind::Kretprobe,
            DynEvent::Kprobe(_) => DynEventKind::Kprobe,
            DynEvent::Uprobe(p) if p.is_return => DynEventKind::Uretprobe,
            DynEvent::Uprobe(_) => DynEventKind::Uprobe,
            DynEvent::Eprobe(_) => DynEventKind::Eprobe,
            DynEvent::Fprobe(_) => DynEventKind::Fprobe,
            DynEvent::Tprobe(_) => DynEventKind::Tprobe,
            DynEvent::Synth(_) => DynEventKind::Synth,
        }
    }

    /// Its event system.
    pub fn group(&self) -> &str {
        match self {
            DynEvent::Kprobe(p) => &p.group,
            DynEvent::Uprobe(p) => &p.group,
            DynEvent::Eprobe(p) => &p.group,
            DynEvent::Fprobe(p) => &p.group,
            DynEvent::Tprobe(p) => &p.group,
            DynEvent::Synth(_) => "synthetic",
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            DynEvent::Kprobe(p) => &p.name,
            DynEvent::Uprobe(p) => &p.name,
            DynEvent::Eprobe(p) => &p.name,
            DynEvent::Fprobe(p) => &p.name,
            DynEvent::Tprobe(p) => &p.name,
            DynEvent::Synth(p) => &p.name,
        }
    }
}

impl fmt::Display for DynEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DynEvent::Kprobe(p) => p.fmt(f),
            DynEvent::Uprobe(p) => p.fmt(f),
            DynEvent::Eprobe(p) => p.fmt(f),
            DynEvent::Fprobe(p) => p.fmt(f),
            DynEvent::Tprobe(p) => p.fmt(f),
            DynEvent::Synth(p) => p.fmt(f),
        }
    }
}

impl FromStr for DynEvent {
    type Err = Error;

    /// Reads a line of `dynamic_events`, `kprobe_events` or `uprobe_events`.
    fn from_str(line: &str) -> Result<DynEvent> {
        let line = line.trim();
        Ok(match line.as_bytes().first() {
            Some(b'e') => DynEvent::Eprobe(line.parse()?),
            Some(b'f') => DynEvent::Fprobe(line.parse()?),
            Some(b't') => DynEvent::Tprobe(line.parse()?),
            Some(b's') => DynEvent::Synth(line.parse()?),
            // A place in a file is an absolute path; a place in the kernel is a symbol or a number.
            Some(b'p' | b'r') if line.split_whitespace().nth(1).is_some_and(|w| w.starts_with('/')) => {
                DynEvent::Uprobe(line.parse()?)
            }
            Some(b'p' | b'r') => DynEvent::Kprobe(line.parse()?),
            _ => {
                let what = "a dynamic event begins with p, r, e, f, t or s".to_owned();
                return Err(Error::Syntax { what, text: line.to_owned(), at: 0 });
            }
        })
    }
}

/// An argument of a probe: `[NAME=]FETCH[:TYPE]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeArg {
    /// The field's name; the kernel makes one up (`arg1`) when there is none.
    pub name: Option<String>,
    /// Where the value comes from: `%di`, `$arg1`, `$retval`, `@SYM+8`, `+0($stack)`, a BTF name …
    pub fetch: String,
    /// The field's type: `u32`, `x64`, `string`, `symbol`, `b4@2/8` …
    pub kind: Option<String>,
}

impl fmt::Display for ProbeArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(n) = &self.name {
            write!(f, "{n}=")?;
        }
        f.write_str(&self.fetch)?;
        if let Some(t) = &self.kind {
            write!(f, ":{t}")?;
        }
        Ok(())
    }
}

impl FromStr for ProbeArg {
    type Err = Error;

    fn from_str(text: &str) -> Result<ProbeArg> {
        let (name, rest) = match text.split_once('=') {
            Some((n, r)) => (Some(n.to_owned()), r),
            None => (None, text),
        };
        if rest.is_empty() || name.as_deref() == Some("") {
            return Err(Error::Syntax { what: "an argument is NAME=FETCH:TYPE".into(), text: text.into(), at: 0 });
        }
        // `@FILE:…` and quoted immediate text hold colons of their own; the type follows the last one outside quotes.
        let (fetch, kind) = match rest.rsplit_once(':') {
            Some((f, t)) if !t.contains(['"', ')']) && !f.is_empty() => (f, Some(t.to_owned())),
            _ => (rest, None),
        };
        Ok(ProbeArg { name, fetch: fetch.to_owned(), kind })
    }
}

/// Head and rest of a probe's line: letter, number behind it, group, name, place, arguments.
pub(crate) struct Line<'a> {
    pub letter: u8,
    pub max: Option<u32>,
    pub group: String,
    pub name: String,
    pub place: &'a str,
    pub args: Vec<&'a str>,
}

/// Cuts `p[MAX]:[GROUP/]NAME PLACE ARGS…`.
pub(crate) fn cut<'a>(line: &'a str, letters: &str, default_group: &str) -> Result<Line<'a>> {
    let bad = |what: &str, at: usize| Error::Syntax { what: what.to_owned(), text: line.to_owned(), at };
    let mut words = words(line).into_iter();
    let head = words.next().ok_or_else(|| bad("an empty definition", 0))?;
    let letter = *head.as_bytes().first().ok_or_else(|| bad("an empty definition", 0))?;
    if !letters.as_bytes().contains(&letter) {
        return Err(bad(&format!("this kind of event begins with {letters}"), 0));
    }
    let rest = head.get(1..).unwrap_or("");
    let (number, path) = rest.split_once(':').unwrap_or((rest, ""));
    let max = match number {
        "" => None,
        n => Some(n.parse().map_err(|_| bad("a number or a colon belongs behind the letter", 1))?),
    };
    let (group, name) = path.split_once(['/', '.']).unwrap_or((default_group, path));
    let place = words.next().ok_or_else(|| bad("the place is missing", line.len()))?;
    let name = match name {
        "" => default_name(place),
        n => n.to_owned(),
    };
    Ok(Line { letter, max, group: group.to_owned(), name, place, args: words.collect() })
}

/// Words at blanks outside double quotes.
fn words(line: &str) -> Vec<&str> {
    let mut quoted = false;
    line.split(|c: char| {
        quoted ^= c == '"';
        c.is_whitespace() && !quoted
    })
    .filter(|w| !w.is_empty())
    .collect()
}

/// A name made from a place: its first part, with what cannot be in a name replaced.
pub(crate) fn default_name(place: &str) -> String {
    let base = place.rsplit('/').next().unwrap_or(place);
    let first = base.split([':', '+', '%']).find(|p| !p.is_empty()).unwrap_or("probe");
    let mut name: String = first.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert(0, '_');
    }
    name
}

pub(crate) fn parse_args(args: &[&str]) -> Result<Vec<ProbeArg>> {
    args.iter().map(|a| a.parse()).collect()
}

pub(crate) fn fmt_args(f: &mut fmt::Formatter<'_>, args: &[ProbeArg]) -> fmt::Result {
    args.iter().try_for_each(|a| write!(f, " {a}"))
}

impl TraceFs {
    /// Makes a dynamic event: appends its line to the file of its kind, or to `dynamic_events` (since Linux 5.0).
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's entry of `error_log`; [`Error::Unsupported`] when the kernel has no file
    /// for this kind.
    pub fn create_dynevent(&self, event: &DynEvent) -> Result<()> {
        let kind = event.kind();
        let file = match (kind, kind.own_file()) {
            (DynEventKind::Synth, _) if self.dir().exists("dynamic_events") => "dynamic_events",
            // `dynamic_events` exists without kprobes too, and then only says that a line is wrong.
            (_, Some(own)) => own,
            _ => "dynamic_events",
        };
        let what = match kind {
            DynEventKind::Kprobe | DynEventKind::Kretprobe => "kprobes, CONFIG_KPROBE_EVENTS",
            DynEventKind::Uprobe | DynEventKind::Uretprobe => "uprobes, CONFIG_UPROBE_EVENTS",
            DynEventKind::Eprobe => "event probes, since Linux 5.15",
            DynEventKind::Fprobe | DynEventKind::Tprobe => "fprobes, since Linux 6.5",
            DynEventKind::Synth => "synthetic events, since Linux 4.18, CONFIG_SYNTH_EVENTS",
        };
        // `dynamic_events` may be there for other kinds only.
        self.dir().require(kind.own_file().unwrap_or(file), what)?;
        self.knows_kind(kind, what)?;
        let line = match (event, file) {
            // The old file knows no prefix.
            (DynEvent::Synth(s), "synthetic_events") => format!("{}\n", s.without_prefix()),
            _ => format!("{event}\n"),
        };
        let undo = delete_line(file, event.group(), event.name());
        if let Some(j) = self.journal() {
            j.note(Undo::Append { path: self.dir().file(file), value: undo.clone() })?;
        }
        let done = self.dir().append_noted(file, &line);
        if let (Err(_), Some(j)) = (&done, self.journal()) {
            // An event of this name that somebody else made must not go when we undo.
            let path = self.dir().file(file);
            let mut last = j.notes().len();
            let total = last;
            for (i, n) in j.notes().iter().enumerate() {
                if matches!(n, Undo::Append { path: p, value } if *p == path && *value == undo) {
                    last = i;
                }
            }
            if last < total {
                let mut i = 0;
                j.forget(|_| {
                    i += 1;
                    i - 1 == last
                })?;
            }
        }
        done
    }

    /// [`Error::Unsupported`] when the kernel's `README` describes dynamic events, but not of this kind.
    fn knows_kind(&self, kind: DynEventKind, what: &str) -> Result<()> {
        let letter = match kind {
            DynEventKind::Eprobe => 'e',
            DynEventKind::Fprobe => 'f',
            DynEventKind::Tprobe => 't',
            _ => return Ok(()),
        };
        let Ok(text) = self.dir().read("README") else { return Ok(()) };
        let line =
            |start: String| text.lines().any(|l| l.trim_start().trim_start_matches("Format: ").starts_with(&start));
        if text.contains("dynamic_events") && !line(format!("{letter}[")) {
            return Err(Error::Unsupported { path: self.dir().file("README"), what: format!("no word of {what}") });
        }
        Ok(())
    }

    /// The dynamic events of these kinds, in the order of the files. With `group`: only those of this event system.
    /// Lines of a form that this crate does not know are left out.
    pub fn dynevents(&self, kinds: &[DynEventKind], group: Option<&str>) -> Result<Vec<DynEvent>> {
        let mut events: Vec<DynEvent> = Vec::new();
        let mut from = |file: &str| -> Result<bool> {
            let text = match self.dir().read(file) {
                Err(e) if e.is_missing() => return Ok(false),
                other => other?,
            };
            for line in text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#')) {
                let parsed = match file {
                    "synthetic_events" => line.parse().map(DynEvent::Synth),
                    _ => line.parse::<DynEvent>(),
                };
                match parsed {
                    Ok(e) if kinds.contains(&e.kind()) && group.is_none_or(|g| g == e.group()) => events.push(e),
                    Ok(_) => {}
                    Err(e) => log::info!("{file}: {e}"),
                }
            }
            Ok(true)
        };
        if !from("dynamic_events")? {
            for file in ["kprobe_events", "uprobe_events", "synthetic_events"] {
                from(file)?;
            }
        }
        Ok(events)
    }

    /// One dynamic event by its names.
    pub fn find_dynevent(&self, group: &str, name: &str) -> Result<Option<DynEvent>> {
        Ok(self.dynevents(&DynEventKind::ALL, Some(group))?.into_iter().find(|e| e.name() == name))
    }

    /// Removes a dynamic event. With `force` it is first disabled in the top and in all other instances.
    ///
    /// # Errors
    /// [`Error::Busy`] while it is enabled or a trigger uses it.
    pub fn remove_dynevent(&self, event: &DynEvent, force: bool) -> Result<()> {
        let target = EventTarget::Event(event.group().to_owned(), event.name().to_owned());
        if force {
            let mut instances = vec![self.top()];
            for name in self.instances()? {
                instances.push(self.instance(&name)?);
            }
            for i in instances {
                match i.enable(&target, false) {
                    Err(e) if e.is_missing() => {}
                    other => other?,
                }
            }
        }
        let file = match event.kind().own_file() {
            _ if self.dir().exists("dynamic_events") => "dynamic_events",
            Some(own) => own,
            None => "dynamic_events",
        };
        self.dir().append_noted(file, &format!("{}\n", delete_line(file, event.group(), event.name())))
    }

    /// Removes all dynamic events of these kinds, event probes first; gives those that refused to go.
    pub fn remove_dynevents(&self, kinds: &[DynEventKind], force: bool) -> Result<Vec<(DynEvent, Error)>> {
        let mut failed = Vec::new();
        for kind in DynEventKind::ALL {
            if kinds.contains(&kind) {
                for event in self.dynevents(&[kind], None)? {
                    if let Err(e) = self.remove_dynevent(&event, force) {
                        failed.push((event, e));
                    }
                }
            }
        }
        Ok(failed)
    }
}

fn delete_line(file: &str, group: &str, name: &str) -> String {
    match file {
        "synthetic_events" => format!("!{name}"),
        _ => format!("-:{group}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Journal;

    #[test]
    fn every_kind_round_trips() {
        for (line, kind) in [
            ("p:kprobes/open do_sys_openat2 file=+0($arg2):string flags=%dx:x32", DynEventKind::Kprobe),
            ("p:kprobes/x xfs:xfs_read+0x10", DynEventKind::Kprobe),
            ("r16:mine/ret vfs_read ret=$retval", DynEventKind::Kretprobe),
            ("r:mine/ret vfs_read $retval:s64", DynEventKind::Kretprobe),
            ("p:uprobes/malloc /lib/libc.so.6:0x0000000000012340 n=%di", DynEventKind::Uprobe),
            ("p:uprobes/sem /bin/x:0x10(0x20)", DynEventKind::Uprobe),
            ("r:uprobes/ret /lib/libc.so.6:0x12340 $retval", DynEventKind::Uretprobe),
            ("e:eprobes/open syscalls.sys_enter_openat file=+0($filename):ustring", DynEventKind::Eprobe),
            ("e:eprobes/f sched.sched_switch p=$prev_pid if prev_pid > 1", DynEventKind::Eprobe),
            ("f:fprobes/entry vfs_read fd=$arg1", DynEventKind::Fprobe),
            ("f10:fprobes/exit vfs_read%return ret=$retval", DynEventKind::Fprobe),
            ("t:tracepoints/sw sched_switch preempt prev->pid", DynEventKind::Tprobe),
            ("s:lat pid_t pid; u64 lat; char comm[16];", DynEventKind::Synth),
        ] {
            let e: DynEvent = line.parse().unwrap();
            assert_eq!(e.kind(), kind, "{line}");
            assert_eq!(e.to_string(), line);
            assert_eq!(e.to_string().parse::<DynEvent>().unwrap(), e);
        }
        for bad in ["", "x:a/b c", "p:a/b", "px:a/b c", "p:a/b c =x", "s:"] {
            assert!(bad.parse::<DynEvent>().is_err(), "{bad}");
        }
    }

    #[test]
    fn create_list_remove() {
        let t = tempfile::tempdir().unwrap();
        let j = Journal::in_memory();
        let fs = TraceFs::at(t.path()).with_journal(j.clone());
        let probe: DynEvent = "p:k/a vfs_read".parse().unwrap();
        assert!(matches!(fs.create_dynevent(&probe), Err(Error::Unsupported { .. })));
        assert!(j.notes().is_empty(), "nothing was made, nothing is undone");
        std::fs::write(t.path().join("dynamic_events"), "p:others/x vfs_write\n").unwrap();
        std::fs::write(t.path().join("kprobe_events"), "p:others/x vfs_write\n").unwrap();
        fs.create_dynevent(&probe).unwrap();
        assert_eq!(fs.dir().read("kprobe_events").unwrap(), "p:others/x vfs_write\np:k/a vfs_read\n");
        assert_eq!(j.notes(), [Undo::Append { path: t.path().join("kprobe_events"), value: "-:k/a".into() }]);
        std::fs::write(t.path().join("README"), "dynamic_events\n  Format: p[:[<group>/]..\n  f[:[<group>/]..\n")
            .unwrap();
        let no = |line: &str| fs.create_dynevent(&line.parse().unwrap()).unwrap_err().is_missing();
        assert!(no("e:k/e sched.sched_switch") && no("t:k/t sched_switch") && no("s:x u64 y"));
        fs.create_dynevent(&"f:k/f vfs_read".parse().unwrap()).unwrap();
        std::fs::write(t.path().join("dynamic_events"), "p:others/x vfs_write\n").unwrap();
        let all = fs.dynevents(&DynEventKind::ALL, None).unwrap();
        assert_eq!(all.len(), 1);
        assert!(fs.dynevents(&[DynEventKind::Synth], None).unwrap().is_empty());
        fs.remove_dynevent(&all[0], true).unwrap();
        assert!(fs.dir().read("dynamic_events").unwrap().ends_with("\n-:others/x\n"));
    }
}
