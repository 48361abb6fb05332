//! Synthetic events: `dynamic_events` (since Linux 5.0) or `synthetic_events` (since 4.18).
//! `Documentation/trace/histogram.rst`.

use std::fmt;
use std::str::FromStr;

use super::DynEvent;
use crate::error::{Error, Result};
use crate::format::EventField;

/// A field of a synthetic event: `TYPE NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SynthField {
    /// `u64`, `pid_t`, `char`, `unsigned long` …
    pub kind: String,
    /// The name with its bounds, if it is an array: `comm[16]`, `stack[]`.
    pub name: String,
}

impl SynthField {
    /// A field.
    pub fn new(kind: impl Into<String>, name: impl Into<String>) -> SynthField {
        SynthField { kind: kind.into(), name: name.into() }
    }

    /// A field that holds what a field of an event holds. Types that the kernel's synthetic events do not know become
    /// the plain type of the same size and sign.
    pub fn like(field: &EventField, name: &str) -> SynthField {
        let spaced = |t: &str| t.replace('*', " *").split_whitespace().collect::<Vec<_>>().join(" ");
        if field.is_dynamic() {
            let t = field.type_text.trim_start_matches("__data_loc").trim_start_matches("__rel_loc");
            return SynthField::new(spaced(t.trim().trim_end_matches("[]")), format!("{name}[]"));
        }
        if field.array.is_some() {
            return SynthField::new(spaced(&field.type_text), format!("{name}[{}]", field.size));
        }
        let kind = match (field.type_text.as_str(), field.size, field.signed) {
            (t @ ("pid_t" | "gfp_t" | "bool"), ..) => t,
            (_, 8, true) => "s64",
            (_, 8, false) => "u64",
            (_, 4, true) => "s32",
            (_, 4, false) => "u32",
            (_, 2, true) => "s16",
            (_, 2, false) => "u16",
            (_, 1, true) => "char",
            (_, 1, false) => "unsigned char",
            (t, ..) => t,
        };
        SynthField::new(kind, name)
    }
}

/// A synthetic event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SynthEvent {
    /// The event's name, in system `synthetic`.
    pub name: String,
    /// Its fields.
    pub fields: Vec<SynthField>,
}

impl SynthEvent {
    /// An event with these fields.
    pub fn new(name: impl Into<String>, fields: impl IntoIterator<Item = SynthField>) -> SynthEvent {
        SynthEvent { name: name.into(), fields: fields.into_iter().collect() }
    }

    /// The line for the older `synthetic_events`, which knows no `s:`.
    pub fn without_prefix(&self) -> String {
        let line = self.to_string();
        line.strip_prefix("s:").unwrap_or(&line).to_owned()
    }
}

impl fmt::Display for SynthEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s:{}", self.name)?;
        self.fields.iter().try_for_each(|x| write!(f, " {} {};", x.kind, x.name))
    }
}

impl FromStr for SynthEvent {
    type Err = Error;

    /// Reads `s:NAME …`, `s:synthetic/NAME …` and the lines of `synthetic_events` (`NAME` tab fields).
    fn from_str(line: &str) -> Result<SynthEvent> {
        let bad = |what: &str| Error::Syntax { what: what.to_owned(), text: line.to_owned(), at: 0 };
        let text = line.trim();
        let text = text.strip_prefix("s:").unwrap_or(text);
        let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let name = name.strip_prefix("synthetic/").unwrap_or(name);
        if name.is_empty() {
            return Err(bad("a synthetic event needs a name"));
        }
        let mut fields = Vec::new();
        for part in rest.split(';').map(str::trim).filter(|p| !p.is_empty()) {
            let (kind, name) = part.rsplit_once(char::is_whitespace).ok_or_else(|| bad("a field is TYPE NAME"))?;
            fields.push(SynthField::new(kind.trim(), name));
        }
        Ok(SynthEvent::new(name, fields))
    }
}

impl From<SynthEvent> for DynEvent {
    fn from(e: SynthEvent) -> DynEvent {
        DynEvent::Synth(e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for text in
            ["s:synthetic/lat u64 lat; char comm[16]", "lat\tu64 lat; char comm[16]", "s:lat u64 lat; char comm[16];"]
        {
            let e: SynthEvent = text.parse().unwrap();
            assert_eq!(e.to_string(), "s:lat u64 lat; char comm[16];");
            assert_eq!(e.without_prefix(), "lat u64 lat; char comm[16];");
        }
        let e: SynthEvent = "s:x unsigned long st[]; int y".parse().unwrap();
        assert_eq!(e.fields[0], SynthField::new("unsigned long", "st[]"));
    }
}
