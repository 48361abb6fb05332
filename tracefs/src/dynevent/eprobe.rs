//! Event probes: an event made from the fields of another. `Documentation/trace/eprobetrace.rst`; since Linux 5.15.

use std::fmt;
use std::str::FromStr;

use super::{DynEvent, ProbeArg, cut, fmt_args, parse_args};
use crate::error::{Error, Result};

/// An event probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eprobe {
    /// The event system, `eprobes` by default.
    pub group: String,
    /// The event's name.
    pub name: String,
    /// System of the event it is made from.
    pub system: String,
    /// The event it is made from.
    pub event: String,
    /// The event's fields: `$FIELD` is a field of the other event.
    pub args: Vec<ProbeArg>,
    /// The filter behind ` if ` (since Linux 6.1).
    pub filter: Option<String>,
}

impl Eprobe {
    /// An event probe on an event.
    pub fn new(name: impl Into<String>, system: impl Into<String>, event: impl Into<String>) -> Eprobe {
        Eprobe {
            group: "eprobes".into(),
            name: name.into(),
            system: system.into(),
            event: event.into(),
            args: Vec::new(),
            filter: None,
        }
    }

    /// The same with one more field, as `name=fetch:type`.
    pub fn arg(mut self, text: &str) -> Result<Eprobe> {
        self.args.push(text.parse()?);
        Ok(self)
    }
}

impl fmt::Display for Eprobe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "e:{}/{} {}.{}", self.group, self.name, self.system, self.event)?;
        fmt_args(f, &self.args)?;
        match &self.filter {
            Some(filter) => write!(f, " if {filter}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Eprobe {
    type Err = Error;

    fn from_str(line: &str) -> Result<Eprobe> {
        let (body, filter) = match line.split_once(" if ") {
            Some((b, f)) => (b, Some(f.trim().to_owned())),
            None => (line, None),
        };
        let l = cut(body, "e", "eprobes")?;
        let (system, event) = l.place.split_once(['.', '/']).ok_or_else(|| Error::Syntax {
            what: "an event probe's place is SYSTEM.EVENT".into(),
            text: line.to_owned(),
            at: line.find(l.place).unwrap_or(0),
        })?;
        Ok(Eprobe {
            group: l.group,
            name: l.name,
            system: system.to_owned(),
            event: event.to_owned(),
            args: parse_args(&l.args)?,
            filter,
        })
    }
}

impl From<Eprobe> for DynEvent {
    fn from(p: Eprobe) -> DynEvent {
        DynEvent::Eprobe(p)
    }
}
