//! kprobes and kretprobes: `kprobe_events`. `Documentation/trace/kprobetrace.rst`.

use std::fmt;
use std::str::FromStr;

use super::{DynEvent, ProbeArg, cut, default_name, fmt_args, parse_args};
use crate::error::{Error, Result};

/// A probe at a place in the kernel, or at the return of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kprobe {
    /// At the return of the function.
    pub is_return: bool,
    /// How many calls may be under way at a time (kretprobes, since Linux 4.12); the kernel's own choice without.
    pub max_active: Option<u32>,
    /// The event system, `kprobes` by default.
    pub group: String,
    /// The event's name.
    pub name: String,
    /// `[MODULE:]SYMBOL[+OFFSET][%return]` or an address.
    pub place: String,
    /// The event's fields.
    pub args: Vec<ProbeArg>,
}

impl Kprobe {
    /// A kprobe in group `kprobes`, named after its place up to `:`.
    pub fn new(place: impl Into<String>) -> Kprobe {
        let place = place.into();
        Kprobe {
            is_return: false,
            max_active: None,
            group: "kprobes".into(),
            name: default_name(&place),
            place,
            args: Vec::new(),
        }
    }

    /// A kretprobe.
    pub fn ret(place: impl Into<String>, max_active: Option<u32>) -> Kprobe {
        Kprobe { is_return: true, max_active, ..Kprobe::new(place) }
    }

    /// The same in another group and under another name.
    pub fn named(mut self, group: impl Into<String>, name: impl Into<String>) -> Kprobe {
        self.group = group.into();
        self.name = name.into();
        self
    }

    /// The same with one more field, as `name=fetch:type`.
    pub fn arg(mut self, text: &str) -> Result<Kprobe> {
        self.args.push(text.parse()?);
        Ok(self)
    }
}

impl fmt::Display for Kprobe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_return { "r" } else { "p" })?;
        if let Some(n) = self.max_active.filter(|_| self.is_return) {
            write!(f, "{n}")?;
        }
        write!(f, ":{}/{} {}", self.group, self.name, self.place)?;
        fmt_args(f, &self.args)
    }
}

impl FromStr for Kprobe {
    type Err = Error;

    fn from_str(line: &str) -> Result<Kprobe> {
        let l = cut(line, "pr", "kprobes")?;
        Ok(Kprobe {
            is_return: l.letter == b'r',
            max_active: l.max,
            group: l.group,
            name: l.name,
            place: l.place.to_owned(),
            args: parse_args(&l.args)?,
        })
    }
}

impl From<Kprobe> for DynEvent {
    fn from(p: Kprobe) -> DynEvent {
        DynEvent::Kprobe(p)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builder() {
        let p = Kprobe::ret("vfs_read", Some(20)).named("mine", "rd").arg("ret=$retval:s32").unwrap();
        assert_eq!(p.to_string(), "r20:mine/rd vfs_read ret=$retval:s32");
        assert_eq!(Kprobe::new("xfs:xfs_read+0x10").to_string(), "p:kprobes/xfs xfs:xfs_read+0x10");
        assert_eq!("p vfs_read+4".parse::<Kprobe>().unwrap().name, "vfs_read");
    }
}
