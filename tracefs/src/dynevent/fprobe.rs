//! fprobes and tracepoint probes: `dynamic_events`. `Documentation/trace/fprobetrace.rst`; since Linux 6.5.

use std::fmt;
use std::str::FromStr;

use super::{DynEvent, ProbeArg, cut, fmt_args, parse_args};
use crate::error::{Error, Result};

/// A probe at the entry of a function, or at its exit (`%return`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fprobe {
    /// At the exit of the function.
    pub is_return: bool,
    /// How many calls may be under way at a time; only for the exit.
    pub max_active: Option<u32>,
    /// The event system, `fprobes` by default.
    pub group: String,
    /// The event's name.
    pub name: String,
    /// The function.
    pub symbol: String,
    /// The event's fields: `$arg1`, a BTF name, `$retval`, `$args`.
    pub args: Vec<ProbeArg>,
}

impl Fprobe {
    /// A probe at the entry of a function.
    pub fn new(name: impl Into<String>, symbol: impl Into<String>) -> Fprobe {
        Fprobe {
            is_return: false,
            max_active: None,
            group: "fprobes".into(),
            name: name.into(),
            symbol: symbol.into(),
            args: Vec::new(),
        }
    }

    /// The same at the exit.
    pub fn ret(mut self) -> Fprobe {
        self.is_return = true;
        self
    }

    /// The same with one more field, as `name=fetch:type`.
    pub fn arg(mut self, text: &str) -> Result<Fprobe> {
        self.args.push(text.parse()?);
        Ok(self)
    }
}

impl fmt::Display for Fprobe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("f")?;
        if let Some(n) = self.max_active.filter(|_| self.is_return) {
            write!(f, "{n}")?;
        }
        let ret = if self.is_return { "%return" } else { "" };
        write!(f, ":{}/{} {}{ret}", self.group, self.name, self.symbol)?;
        fmt_args(f, &self.args)
    }
}

impl FromStr for Fprobe {
    type Err = Error;

    fn from_str(line: &str) -> Result<Fprobe> {
        let l = cut(line, "f", "fprobes")?;
        let (symbol, is_return) = match l.place.strip_suffix("%return") {
            Some(s) => (s, true),
            None => (l.place, false),
        };
        Ok(Fprobe {
            is_return,
            max_active: l.max,
            group: l.group,
            name: l.name,
            symbol: symbol.to_owned(),
            args: parse_args(&l.args)?,
        })
    }
}

impl From<Fprobe> for DynEvent {
    fn from(p: Fprobe) -> DynEvent {
        DynEvent::Fprobe(p)
    }
}

/// A probe at a tracepoint, with or without an event of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tprobe {
    /// The event system, `tracepoints` by default.
    pub group: String,
    /// The event's name.
    pub name: String,
    /// The tracepoint.
    pub tracepoint: String,
    /// The event's fields: BTF names of the tracepoint's arguments, `$args`.
    pub args: Vec<ProbeArg>,
}

impl Tprobe {
    /// A probe at a tracepoint.
    pub fn new(name: impl Into<String>, tracepoint: impl Into<String>) -> Tprobe {
        Tprobe { group: "tracepoints".into(), name: name.into(), tracepoint: tracepoint.into(), args: Vec::new() }
    }

    /// The same with one more field, as `name=fetch:type`.
    pub fn arg(mut self, text: &str) -> Result<Tprobe> {
        self.args.push(text.parse()?);
        Ok(self)
    }
}

impl fmt::Display for Tprobe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t:{}/{} {}", self.group, self.name, self.tracepoint)?;
        fmt_args(f, &self.args)
    }
}

impl FromStr for Tprobe {
    type Err = Error;

    fn from_str(line: &str) -> Result<Tprobe> {
        let l = cut(line, "t", "tracepoints")?;
        Ok(Tprobe { group: l.group, name: l.name, tracepoint: l.place.to_owned(), args: parse_args(&l.args)? })
    }
}

impl From<Tprobe> for DynEvent {
    fn from(p: Tprobe) -> DynEvent {
        DynEvent::Tprobe(p)
    }
}
