//! Event formats: the text of `events/SYSTEM/EVENT/format` and what is compiled from it.

pub(crate) mod expr;
pub(crate) mod field;
pub(crate) mod lexer;
pub(crate) mod print_fmt;
mod table;

use bitflags::bitflags;

use self::expr::FieldId;
use crate::{Error, LongSize, Result};

pub use table::EventTable;

bitflags! {
    /// Properties of a field, as libtraceevent names them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct FieldFlags: u16 {
        /// An array of any kind.
        const ARRAY = 1;
        /// A pointer type.
        const POINTER = 2;
        /// A signed number.
        const SIGNED = 4;
        /// An array whose type text has `char`, `u8` or `s8`.
        const STRING = 8;
        /// `__data_loc`: a word with offset (low 16 bits) and length (high 16 bits).
        const DYNAMIC = 16;
        /// The type has the word `long`.
        const LONG = 32;
        /// `__print_flags` shows it.
        const FLAG = 64;
        /// `__print_symbolic` shows it.
        const SYMBOLIC = 128;
        /// `__rel_loc`: as `DYNAMIC`, the offset counts from the end of the field.
        const RELATIVE = 256;
    }
}

/// One field of an event: where it lies in a record and how it reads.
#[derive(Clone, Debug)]
pub struct Field {
    /// The type as written, without name and array bounds: `unsigned long`, `__data_loc char[]`.
    pub type_text: String,
    /// The name.
    pub name: String,
    /// First byte in the record.
    pub offset: usize,
    /// Bytes. 0 for an array that reaches to the end of the record.
    pub size: usize,
    /// Number of elements of an array, 0 when unknown or no array.
    pub array_len: usize,
    /// Bytes of an element; the field's size when it is no array.
    pub element_size: usize,
    /// Its properties.
    pub flags: FieldFlags,
}

/// One event: its fields and what prints it.
#[derive(Debug)]
pub struct Event {
    /// `ID:` of the format; `common_type` of its records.
    pub id: u16,
    /// The event's name: `sched_switch`.
    pub name: String,
    /// The event's system: `sched`.
    pub system: String,
    /// The `common_*` fields.
    pub common: Vec<Field>,
    /// The event's own fields, in the order of the format.
    pub fields: Vec<Field>,
    /// The text behind `print fmt:`, empty when there is none.
    pub print_fmt: String,
    /// How it is printed; decided when its first record is.
    pub(crate) how: crate::print::How,
}

impl Event {
    /// Parses the text of a `format` file.
    ///
    /// Source: Documentation/trace/events.rst, section "Event formats".
    ///
    /// # Errors
    /// [`Error::Format`] when the name, the id or a field cannot be read. A print fmt that cannot be understood is no
    /// error here: such an event is printed as raw fields.
    pub fn parse(system: &str, text: &[u8], long: LongSize) -> Result<Event> {
        let text = String::from_utf8_lossy(text);
        let error = |event: &str, at: usize, why: &str| Error::Format {
            system: system.to_owned(),
            event: event.to_owned(),
            at,
            why: why.to_owned(),
        };
        let (mut name, mut id) = (None, None);
        let (mut common, mut fields, mut own) = (Vec::new(), Vec::new(), false);
        let mut print_fmt = String::new();
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            let start = at;
            at += line.len();
            let l = line.trim();
            if let Some(n) = l.strip_prefix("name:") {
                name.get_or_insert_with(|| n.trim().to_owned());
            } else if let Some(n) = l.strip_prefix("ID:") {
                let n = n
                    .trim()
                    .parse::<u16>()
                    .map_err(|_| error(name.as_deref().unwrap_or(""), start, "the ID is no 16-bit number"))?;
                id.get_or_insert(n);
            } else if l.is_empty() {
                own |= !common.is_empty();
            } else if l.starts_with("field") {
                let Some((_, rest)) = l.split_once(':') else { continue };
                let f = field::parse(rest, long).map_err(|e| error(name.as_deref().unwrap_or(""), start, e))?;
                if own || !f.name.starts_with("common_") {
                    own = true;
                    fields.push(f);
                } else {
                    common.push(f);
                }
            } else if l.starts_with("print fmt:") {
                // A string in it may hold line ends, so all that follows belongs to it.
                let rest = text.get(start..).unwrap_or("");
                let (_, fmt) = rest.split_once("print fmt:").unwrap_or_default();
                print_fmt = fmt.trim().to_owned();
                break;
            }
        }
        let name = name.ok_or_else(|| error("", 0, "no name"))?;
        let id = id.ok_or_else(|| error(&name, 0, "no ID"))?;
        if common.len() + fields.len() > usize::from(u16::MAX) {
            return Err(error(&name, 0, "too many fields"));
        }
        for f in &mut fields {
            // How the print fmt shows a field is one of its properties.
            if print_fmt.contains(&format!("__print_flags(REC->{},", f.name)) {
                f.flags |= FieldFlags::FLAG;
            }
            if print_fmt.contains(&format!("__print_symbolic(REC->{},", f.name)) {
                f.flags |= FieldFlags::SYMBOLIC;
            }
        }
        Ok(Event { id, name, system: system.to_owned(), common, fields, print_fmt, how: Default::default() })
    }

    /// The field of this name: the event's own first, then the common ones.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().chain(&self.common).find(|f| f.name == name)
    }

    pub(crate) fn field_id(&self, name: &str) -> Option<FieldId> {
        self.fields.iter().chain(&self.common).position(|f| f.name == name).map(|n| FieldId(n as u16))
    }

    pub(crate) fn field_by_id(&self, id: FieldId) -> Option<&Field> {
        let n = usize::from(id.0);
        self.fields.get(n).or_else(|| self.common.get(n.checked_sub(self.fields.len())?))
    }
}
