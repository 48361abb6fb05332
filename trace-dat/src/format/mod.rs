//! Event formats: the text of `events/SYSTEM/EVENT/format` and what is compiled from it.

mod table;

use bitflags::bitflags;

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
    /// The field of this name: the event's own first, then the common ones.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().chain(&self.common).find(|f| f.name == name)
    }
}
