//! The few facts of an event's `format` file that filters, histograms and SQL need: names, types and sizes of fields.

use crate::error::{Error, Result, nearest};
use crate::instance::Instance;

/// One field of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventField {
    /// The name.
    pub name: String,
    /// The type without name and array bounds: `char`, `__data_loc char[]`.
    pub type_text: String,
    /// Bounds as written (`16`, `TASK_COMM_LEN`, empty for `[]`); `None` for a field that is no array.
    pub array: Option<String>,
    /// First byte in the record.
    pub offset: usize,
    /// Bytes in the record.
    pub size: usize,
    /// A signed number.
    pub signed: bool,
}

impl EventField {
    /// A field whose bytes lie elsewhere in the record (`__data_loc`, `__rel_loc`).
    pub fn is_dynamic(&self) -> bool {
        self.type_text.starts_with("__data_loc") || self.type_text.starts_with("__rel_loc")
    }

    /// An array of any kind.
    pub fn is_array(&self) -> bool {
        self.array.is_some() || self.is_dynamic()
    }

    /// Text: an array of char, or a pointer to char.
    pub fn is_string(&self) -> bool {
        let has_char = self.type_text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == "char");
        has_char && !self.type_text.contains("unsigned") && (self.is_array() || self.type_text.contains('*'))
    }

    /// Bytes or text, not a number.
    pub fn is_byte_array(&self) -> bool {
        self.is_array()
            && self.type_text.split(|c: char| !c.is_alphanumeric()).any(|w| matches!(w, "char" | "u8" | "s8"))
    }
}

/// The fields of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventFormat {
    /// `sched`.
    pub system: String,
    /// `sched_switch`.
    pub name: String,
    /// `ID:`.
    pub id: u32,
    /// The `common_*` fields, then the event's own.
    pub fields: Vec<EventField>,
}

impl EventFormat {
    /// Reads the text of a `format` file.
    pub fn parse(system: &str, text: &str) -> Option<EventFormat> {
        let line = |key: &str| text.lines().find_map(|l| l.strip_prefix(key)).map(str::trim);
        let name = line("name:")?.to_owned();
        let id = line("ID:")?.parse().ok()?;
        let fields = text.lines().filter_map(field).collect();
        Some(EventFormat { system: system.to_owned(), name, id, fields })
    }

    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<&EventField> {
        self.fields.iter().find(|f| f.name == name)
    }

    /// Names near to one that is missing.
    pub fn near(&self, name: &str) -> Vec<String> {
        nearest(name, self.fields.iter().map(|f| f.name.as_str()), 3)
    }
}

fn field(line: &str) -> Option<EventField> {
    let mut parts = line.trim().split(';').map(str::trim);
    let declaration = parts.next()?;
    let declaration = declaration.strip_prefix("field:").or_else(|| declaration.strip_prefix("field special:"))?;
    let (mut offset, mut size, mut signed) = (0, 0, false);
    for part in parts {
        match part.split_once(':') {
            Some(("offset", v)) => offset = v.parse().ok()?,
            Some(("size", v)) => size = v.parse().ok()?,
            Some(("signed", v)) => signed = v != "0",
            _ => {}
        }
    }
    let declaration = declaration.trim();
    let (declaration, array) = match declaration.strip_suffix(']') {
        Some(d) if !d.contains("[]") || !d.ends_with('[') => {
            let (d, length) = d.rsplit_once('[')?;
            (d.trim_end(), Some(length.to_owned()))
        }
        Some(d) => (d.strip_suffix('[').unwrap_or(d).trim_end(), Some(String::new())),
        None => (declaration, None),
    };
    let name = declaration.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    // A name without a type is no field.
    let type_text = declaration.strip_suffix(name).filter(|t| !t.is_empty())?;
    Some(EventField { name: name.to_owned(), type_text: type_text.trim().to_owned(), array, offset, size, signed })
}

impl Instance {
    /// The fields of an event.
    ///
    /// # Errors
    /// [`Error::NoEvent`] with the nearest names.
    pub fn event_fields(&self, system: &str, event: &str) -> Result<EventFormat> {
        let text = match self.event_format(system, event) {
            Err(e) if e.is_missing() => {
                let name = format!("{system}:{event}");
                return Err(Error::NoEvent { near: self.near_events(&name), name });
            }
            other => other?,
        };
        EventFormat::parse(system, &text).ok_or_else(|| Error::Text {
            path: self.file(format!("events/{system}/{event}/format")),
            text: text.chars().take(80).collect(),
            expected: "name, ID and fields of an event",
        })
    }

    /// Finds an event by `system.event`, `system:event` or the bare name (then the first system, by name, that has it).
    pub fn find_event(&self, name: &str) -> Result<EventFormat> {
        if let Some((system, event)) = name.split_once(['.', ':', '/']) {
            return self.event_fields(system, event);
        }
        let mut systems = self.dir().list_dirs("events")?;
        systems.sort();
        match systems.iter().find(|s| self.dir().exists(format!("events/{s}/{name}/format"))) {
            Some(system) => self.event_fields(system, name),
            None => Err(Error::NoEvent { name: name.to_owned(), near: self.near_events(name) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        let text = "name: sched_switch\nID: 316\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
            \n\tfield:char prev_comm[16];\toffset:8;\tsize:16;\tsigned:0;\n\tfield:pid_t prev_pid;\toffset:24;\tsize:4;\tsigned:1;\n\
            \tfield:__data_loc char[] name;\toffset:40;\tsize:4;\tsigned:0;\n\tfield:const char * s;\toffset:48;\tsize:8;\tsigned:0;\n\
            \tfield:unsigned long args[6];\toffset:56;\tsize:48;\tsigned:0;\n\tfield:char buf[];\toffset:0;\tsize:0;\tsigned:0;\n\
            \nprint fmt: \"x\"\n";
        let f = EventFormat::parse("sched", text).unwrap();
        assert_eq!((f.id, f.fields.len()), (316, 7));
        let comm = f.field("prev_comm").unwrap();
        assert_eq!((comm.type_text.as_str(), comm.array.as_deref(), comm.size), ("char", Some("16"), 16));
        assert!(comm.is_string());
        let name = f.field("name").unwrap();
        assert!(name.is_dynamic() && name.is_string() && name.array.is_none());
        assert_eq!(name.type_text, "__data_loc char[]");
        let s = f.field("s").unwrap();
        assert!(s.is_string() && !s.is_array() && s.type_text == "const char *");
        let args = f.field("args").unwrap();
        assert!(args.is_array() && !args.is_string());
        assert_eq!(f.field("buf").unwrap().array.as_deref(), Some(""));
        assert_eq!(f.near("prev_pdi"), ["prev_pid"]);
        assert!(EventFormat::parse("x", "garbage").is_none());
    }
}
