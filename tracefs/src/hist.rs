//! Histogram triggers as data, and histograms read back. `Documentation/trace/histogram.rst`; since Linux 4.7.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::trigger::strip_state;

/// How a key or value is shown and grouped: the suffix behind its name.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Modifier {
    /// As number.
    #[default]
    None,
    /// `.hex`
    Hex,
    /// `.sym`: address as symbol.
    Sym,
    /// `.sym-offset`: address as symbol and offset.
    SymOffset,
    /// `.syscall`: number as name of a system call.
    Syscall,
    /// `.execname`: `common_pid` as name of the program.
    Execname,
    /// `.log2`: powers of two.
    Log2,
    /// `.usecs`: microseconds, for `common_timestamp`.
    Usecs,
    /// `.buckets=N`: groups of N (since Linux 5.14).
    Buckets(u64),
    /// `.stacktrace`: an array of addresses as stack (since Linux 6.3).
    Stacktrace,
    /// `.percent` of a value (since Linux 6.3).
    Percent,
    /// `.graph`: a bar for a value (since Linux 6.3).
    Graph,
    /// Any other, without the dot.
    Other(String),
}

impl Modifier {
    fn parse(text: &str) -> Modifier {
        match text {
            "hex" => Modifier::Hex,
            "sym" => Modifier::Sym,
            "sym-offset" => Modifier::SymOffset,
            "syscall" => Modifier::Syscall,
            "execname" => Modifier::Execname,
            "log2" => Modifier::Log2,
            "usecs" => Modifier::Usecs,
            "stacktrace" => Modifier::Stacktrace,
            "percent" => Modifier::Percent,
            "graph" => Modifier::Graph,
            other => match other.strip_prefix("buckets=").and_then(|n| n.parse().ok()) {
                Some(n) => Modifier::Buckets(n),
                None => Modifier::Other(other.to_owned()),
            },
        }
    }
}

impl fmt::Display for Modifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Modifier::None => return Ok(()),
            Modifier::Buckets(n) => return write!(f, ".buckets={n}"),
            Modifier::Other(text) => return write!(f, ".{text}"),
            Modifier::Hex => ".hex",
            Modifier::Sym => ".sym",
            Modifier::SymOffset => ".sym-offset",
            Modifier::Syscall => ".syscall",
            Modifier::Execname => ".execname",
            Modifier::Log2 => ".log2",
            Modifier::Usecs => ".usecs",
            Modifier::Stacktrace => ".stacktrace",
            Modifier::Percent => ".percent",
            Modifier::Graph => ".graph",
        })
    }
}

/// A key or a value: a field with a modifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistField {
    /// A field, `common_timestamp`, `common_cpu`, `stacktrace`, `hitcount`, a variable `$name`, or an expression.
    pub name: String,
    /// How it is shown and grouped.
    pub modifier: Modifier,
}

impl HistField {
    /// A field with a modifier.
    pub fn new(name: impl Into<String>, modifier: Modifier) -> HistField {
        HistField { name: name.into(), modifier }
    }

    fn parse(text: &str) -> HistField {
        match text.split_once('.') {
            // `a-$b.c` is an expression, not a field with a modifier.
            Some((name, modifier)) if !name.contains(['-', '+', '*', '/', '$']) => {
                HistField::new(name, Modifier::parse(modifier))
            }
            _ => HistField::new(text, Modifier::None),
        }
    }
}

impl fmt::Display for HistField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name, self.modifier)
    }
}

/// A sort key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortKey {
    /// A key, a value or `hitcount`.
    pub name: String,
    /// Largest first.
    pub descending: bool,
}

/// When an action is done (since Linux 4.18, `onchange` since 5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handler {
    /// `onmatch(SYSTEM.EVENT)`: the entry was made by that event.
    Match {
        /// System of the first event.
        system: String,
        /// The first event.
        event: String,
    },
    /// `onmax($VAR)`: the variable has a new maximum.
    Max(String),
    /// `onchange($VAR)`: the variable changed.
    Change(String),
}

/// What is done (since Linux 4.18, `snapshot` since 5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// `trace(EVENT,ARGS)`, or the older `EVENT(ARGS)`: make a synthetic event.
    Trace {
        /// The synthetic event.
        event: String,
        /// Its arguments: fields and variables (`$name`).
        args: Vec<String>,
        /// Write `trace(EVENT,…)`, not `EVENT(…)`.
        keyword: bool,
    },
    /// `save(FIELDS)`.
    Save(Vec<String>),
    /// `snapshot()`.
    Snapshot,
}

/// A `hist:` trigger.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Hist {
    /// `keys=`.
    pub keys: Vec<HistField>,
    /// `vals=`.
    pub vals: Vec<HistField>,
    /// `name=expression` variables.
    pub vars: Vec<(String, String)>,
    /// `sort=`.
    pub sort: Vec<SortKey>,
    /// `size=`: entries of the table.
    pub size: Option<u64>,
    /// `clock=`: the clock of `common_timestamp`; the kernel shows it with histograms that use that field (since Linux 5.0).
    pub clock: Option<String>,
    /// `name=`: histograms of the same name share their table.
    pub name: Option<String>,
    /// `nohitcount` or `NOHC` (since Linux 6.3).
    pub no_hitcount: bool,
    /// `pause`, `cont` or `clear`.
    pub command: Option<HistCommand>,
    /// Actions with their handlers.
    pub actions: Vec<(Handler, Action)>,
    /// The filter behind ` if `.
    pub filter: Option<String>,
}

/// A change of an existing histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistCommand {
    /// `pause`
    Pause,
    /// `cont`
    Continue,
    /// `clear`
    Clear,
}

impl Hist {
    /// A histogram over these keys.
    pub fn new(keys: impl IntoIterator<Item = HistField>) -> Hist {
        Hist { keys: keys.into_iter().collect(), ..Hist::default() }
    }
}

fn join<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|i| i.to_string()).collect::<Vec<_>>().join(",")
}

impl fmt::Display for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Handler::Match { system, event } => write!(f, "onmatch({system}.{event})"),
            Handler::Max(v) => write!(f, "onmax(${v})"),
            Handler::Change(v) => write!(f, "onchange(${v})"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Trace { event, args, keyword: true } if args.is_empty() => write!(f, "trace({event})"),
            Action::Trace { event, args, keyword: true } => write!(f, "trace({event},{})", args.join(",")),
            Action::Trace { event, args, keyword: false } => write!(f, "{event}({})", args.join(",")),
            Action::Save(fields) => write!(f, "save({})", fields.join(",")),
            Action::Snapshot => f.write_str("snapshot()"),
        }
    }
}

impl fmt::Display for Hist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hist:keys={}", join(&self.keys))?;
        if !self.vals.is_empty() {
            write!(f, ":vals={}", join(&self.vals))?;
        }
        if !self.vars.is_empty() {
            write!(f, ":{}", join(self.vars.iter().map(|(n, e)| format!("{n}={e}"))))?;
        }
        if !self.sort.is_empty() {
            let key = |s: &SortKey| format!("{}{}", s.name, if s.descending { ".descending" } else { "" });
            write!(f, ":sort={}", join(self.sort.iter().map(key)))?;
        }
        if let Some(n) = self.size {
            write!(f, ":size={n}")?;
        }
        if let Some(clock) = &self.clock {
            write!(f, ":clock={clock}")?;
        }
        match self.command {
            None => {}
            Some(HistCommand::Pause) => f.write_str(":pause")?,
            Some(HistCommand::Continue) => f.write_str(":cont")?,
            Some(HistCommand::Clear) => f.write_str(":clear")?,
        }
        if let Some(name) = &self.name {
            write!(f, ":name={name}")?;
        }
        if self.no_hitcount {
            f.write_str(":nohitcount")?;
        }
        for (handler, action) in &self.actions {
            write!(f, ":{handler}.{action}")?;
        }
        if let Some(filter) = &self.filter {
            write!(f, " if {filter}")?;
        }
        Ok(())
    }
}

impl FromStr for Hist {
    type Err = Error;

    /// Reads what a user writes and what a `trigger` file shows (with `[active]` behind it).
    fn from_str(text: &str) -> Result<Hist> {
        let error = |what: String, at: usize| Error::Syntax { what, text: text.to_owned(), at };
        let line = strip_state(text.trim_end());
        let (body, filter) = match line.split_once(" if ") {
            Some((b, f)) => (b.trim_end(), Some(f.trim().to_owned())),
            None => (line.trim_end(), None),
        };
        let rest = body
            .trim_start()
            .strip_prefix("hist:")
            .ok_or_else(|| error("a histogram begins with \"hist:\"".into(), 0))?;
        let mut hist = Hist { filter, ..Hist::default() };
        let mut at = body.len() - rest.len();
        for part in rest.split(':') {
            hist.part(part.trim()).map_err(|what| error(what, at))?;
            at += part.len() + 1;
        }
        if hist.keys.is_empty() {
            return Err(error("a histogram needs keys=".into(), 0));
        }
        Ok(hist)
    }
}

impl Hist {
    fn part(&mut self, part: &str) -> Result<(), String> {
        if part.starts_with("onmatch(") || part.starts_with("onmax(") || part.starts_with("onchange(") {
            self.actions.push(parse_action(part)?);
            return Ok(());
        }
        match part.split_once('=') {
            Some(("key" | "keys", v)) => self.keys.extend(v.split(',').map(HistField::parse)),
            Some(("val" | "vals" | "value" | "values", v)) => self.vals.extend(v.split(',').map(HistField::parse)),
            Some(("sort", v)) => self.sort.extend(v.split(',').map(|k| {
                let (name, descending) = match k.strip_suffix(".descending") {
                    Some(n) => (n, true),
                    None => (k.strip_suffix(".ascending").unwrap_or(k), false),
                };
                SortKey { name: name.to_owned(), descending }
            })),
            Some(("size", v)) => self.size = Some(v.parse().map_err(|_| "size= needs a number".to_owned())?),
            Some(("clock", v)) => self.clock = Some(v.to_owned()),
            Some(("name", v)) => self.name = Some(v.to_owned()),
            Some(_) => {
                for var in part.split(',') {
                    let (n, e) = var.split_once('=').ok_or_else(|| format!("{var:?} is no variable"))?;
                    self.vars.push((n.to_owned(), e.to_owned()));
                }
            }
            None => match part {
                "pause" => self.command = Some(HistCommand::Pause),
                "cont" | "continue" => self.command = Some(HistCommand::Continue),
                "clear" => self.command = Some(HistCommand::Clear),
                "nohitcount" | "NOHC" => self.no_hitcount = true,
                _ => return Err(format!("{part:?} is no part of a histogram")),
            },
        }
        Ok(())
    }
}

fn parse_action(part: &str) -> Result<(Handler, Action), String> {
    let bad = || format!("{part:?} is no action");
    let (handler, action) = part.split_once(").").ok_or_else(bad)?;
    let (kind, subject) = handler.split_once('(').ok_or_else(bad)?;
    let variable = || subject.strip_prefix('$').unwrap_or(subject).to_owned();
    let handler = match kind {
        "onmatch" => {
            let (system, event) = subject.split_once('.').ok_or_else(bad)?;
            Handler::Match { system: system.to_owned(), event: event.to_owned() }
        }
        "onmax" => Handler::Max(variable()),
        "onchange" => Handler::Change(variable()),
        _ => return Err(bad()),
    };
    let (name, args) = action.split_once('(').ok_or_else(bad)?;
    let args = args.strip_suffix(')').ok_or_else(bad)?;
    let mut args: Vec<String> = args.split(',').map(|a| a.trim().to_owned()).filter(|a| !a.is_empty()).collect();
    let action = match name {
        "snapshot" => Action::Snapshot,
        "save" => Action::Save(args),
        "trace" if !args.is_empty() => Action::Trace { event: args.remove(0), args, keyword: true },
        "trace" => return Err(bad()),
        event => Action::Trace { event: event.to_owned(), args, keyword: false },
    };
    Ok((handler, action))
}

/// A histogram that was read back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistTable {
    /// The trigger as the kernel shows it.
    pub trigger: String,
    /// The entries in the kernel's order.
    pub entries: Vec<HistEntry>,
    /// `Hits:`: how often the event came.
    pub hits: Option<u64>,
    /// `Entries:`: how many entries the table has.
    pub entry_count: Option<u64>,
    /// `Dropped:`: events that found the table full.
    pub dropped: Option<u64>,
}

/// One line of a histogram.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistEntry {
    /// Names and texts of the keys. The lines of a stack are separated by newlines.
    pub keys: Vec<(String, String)>,
    /// Names and texts of the values.
    pub vals: Vec<(String, String)>,
}

impl HistEntry {
    /// A value as number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.vals.iter().find(|(n, _)| n == name)?.1.parse().ok()
    }
}

impl HistTable {
    /// Reads the text of a `hist` file, which holds one table for each histogram of the event.
    pub fn parse(text: &str) -> Vec<HistTable> {
        let mut tables: Vec<HistTable> = Vec::new();
        let mut names: Vec<String> = Vec::new();
        let mut open = String::new();
        for line in text.lines() {
            if let Some(info) = line.strip_prefix("# trigger info: ") {
                names = info.parse::<Hist>().map(|h| h.keys.into_iter().map(|k| k.name).collect()).unwrap_or_default();
                tables.push(HistTable { trigger: info.to_owned(), ..HistTable::default() });
                open.clear();
                continue;
            }
            let Some(table) = tables.last_mut() else { continue };
            if open.is_empty() && !line.starts_with('{') {
                if let Some((name, value)) = line.trim().split_once(':') {
                    match name {
                        "Hits" => table.hits = value.trim().parse().ok(),
                        "Entries" => table.entry_count = value.trim().parse().ok(),
                        "Dropped" => table.dropped = value.trim().parse().ok(),
                        _ => {}
                    }
                }
                continue;
            }
            // A stack as key goes over several lines.
            if !open.is_empty() {
                open.push('\n');
            }
            open.push_str(line);
            if let Some((keys, vals)) = open.strip_prefix('{').and_then(|l| l.rsplit_once("} ")) {
                let entry = HistEntry { keys: split_keys(keys, &names), vals: split_vals(vals) };
                table.entries.push(entry);
                open.clear();
            }
        }
        tables
    }
}

/// ` common_pid: bash [ 12], id: 3`: cut at `, NAME:` of the next key, as a name may itself hold commas.
fn split_keys(text: &str, names: &[String]) -> Vec<(String, String)> {
    let mut keys = Vec::new();
    let mut rest = text.trim();
    for next in names.iter().skip(1).map(Some).chain([None]) {
        let cut = next.and_then(|n| rest.find(&format!(", {n}:")));
        let (part, after) = cut.and_then(|i| rest.split_at_checked(i)).unwrap_or((rest, ""));
        let after = after.trim_start_matches(", ").trim_start();
        if let Some((name, value)) = part.split_once(':') {
            let value = value.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("\n");
            keys.push((name.trim().to_owned(), value));
        }
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    keys
}

/// ` hitcount:    3  bytes_req:   4`.
fn split_vals(text: &str) -> Vec<(String, String)> {
    let mut vals: Vec<(String, String)> = Vec::new();
    for word in text.split_whitespace() {
        match (word.strip_suffix(':'), vals.last_mut()) {
            (Some(name), Some((last, value))) if value.is_empty() && name == "(%)" => last.push_str(" (%)"),
            (Some(name), _) => vals.push((name.to_owned(), String::new())),
            (None, Some((_, value))) => {
                if !value.is_empty() {
                    value.push(' ');
                }
                value.push_str(word);
            }
            (None, None) => vals.push((word.to_owned(), String::new())),
        }
    }
    vals
}

impl Instance {
    /// The histograms of an event.
    pub fn histograms(&self, system: &str, event: &str) -> Result<Vec<HistTable>> {
        Ok(HistTable::parse(&self.dir().read(format!("events/{system}/{event}/hist"))?))
    }

    /// Starts a histogram (appends its trigger).
    pub fn start_hist(&self, system: &str, event: &str, hist: &Hist) -> Result<()> {
        self.add_trigger(system, event, &hist.to_string())
    }

    /// Pauses, continues or empties a histogram that was started.
    pub fn command_hist(&self, system: &str, event: &str, hist: &Hist, command: HistCommand) -> Result<()> {
        let line = Hist { command: Some(command), ..hist.clone() }.to_string();
        // Not a new trigger: nothing to undo.
        self.dir().append_noted(format!("events/{system}/{event}/trigger"), &format!("{line}\n"))
    }

    /// Removes a histogram.
    pub fn remove_hist(&self, system: &str, event: &str, hist: &Hist) -> Result<()> {
        self.remove_trigger(system, event, &hist.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for text in [
            "hist:keys=pid",
            "hist:keys=common_pid.execname,id.syscall:vals=hitcount,bytes.hex:sort=hitcount.descending,id:size=4096",
            "hist:keys=len.buckets=10:pause:name=foo",
            "hist:keys=pid:__arg_1_2=common_timestamp.usecs,__x=prio if prio < 100",
            "hist:keys=next_pid:__lat=common_timestamp.usecs-$__arg_1_2:onmatch(sched.sched_waking).lat($__a,$__lat)",
            "hist:keys=a:x=b:onmax($x).save(c,d):onchange($x).snapshot():onmatch(s.e).trace(n,$x) if x == \"a:b\"",
            "hist:keys=common_stacktrace:nohitcount",
        ] {
            let h: Hist = text.parse().unwrap();
            assert_eq!(h.to_string(), text);
            assert_eq!(h.to_string().parse::<Hist>().unwrap(), h);
        }
        let shown: Hist = "hist:keys=pid:vals=hitcount:sort=hitcount:size=2048:clock=global [active]".parse().unwrap();
        assert_eq!((shown.size, shown.clock.as_deref(), shown.vars.len()), (Some(2048), Some("global"), 0));
        for bad in
            ["hist:", "keys=a", "hist:vals=x", "hist:keys=a:size=x", "hist:keys=a:onmatch(x).y(z)", "hist:keys=a:foo"]
        {
            assert!(bad.parse::<Hist>().is_err(), "{bad}");
        }
    }

    #[test]
    fn read_back() {
        let text = "# event histogram\n#\n# trigger info: hist:keys=common_pid.execname,id.syscall:vals=hitcount:sort=hitcount:size=2048 [active]\n#\n\n\
            { common_pid: a, b            [       812], id: sys_read                      [  0] } hitcount:          1\n\
            { common_pid: bash            [       813], id: sys_write                     [  1] } hitcount:         12  bytes:  7\n\n\
            Totals:\n    Hits: 13\n    Entries: 2\n    Dropped: 0\n\n\
            # event histogram\n#\n# trigger info: hist:keys=stacktrace:vals=hitcount:sort=hitcount:size=2048 [paused]\n#\n\n\
            { stacktrace:\n         schedule+0x1/0x2\n         foo+0x3/0x4\n} hitcount:  5\n\nTotals:\n    Hits: 5\n";
        let t = HistTable::parse(text);
        assert_eq!(t.len(), 2);
        assert_eq!((t[0].hits, t[0].entry_count, t[0].dropped), (Some(13), Some(2), Some(0)));
        assert_eq!(t[0].entries[0].keys[0], ("common_pid".into(), "a, b            [       812]".into()));
        assert_eq!(t[0].entries[0].keys[1].0, "id");
        assert_eq!(t[0].entries[1].number("hitcount"), Some(12));
        assert_eq!(t[0].entries[1].number("bytes"), Some(7));
        assert_eq!(t[1].entries[0].keys[0].1, "schedule+0x1/0x2\nfoo+0x3/0x4");
        assert_eq!(t[1].entries[0].number("hitcount"), Some(5));
        assert!(HistTable::parse("nonsense\n{ x").is_empty());
    }
}
