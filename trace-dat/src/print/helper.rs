//! Functions that a print fmt may call beside the built-in ones; plugins provide them.

use crate::Decoder;

/// Type of a helper's argument or result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgKind {
    /// A number of any width, passed as 64 bits.
    Num,
    /// Text: the bytes up to the first NUL.
    Str,
    /// A pointer into the record (a dynamic array, an array field), or any other number.
    Ptr,
}

/// An argument of a helper call.
#[derive(Clone, Copy, Debug)]
pub enum Arg<'a> {
    /// A number.
    Num(u64),
    /// Text, or what a pointer into the record points to, up to the end of the dynamic array, field or record.
    Bytes(&'a [u8]),
}

impl<'a> Arg<'a> {
    /// The number; 0 for bytes.
    pub fn num(self) -> u64 {
        match self {
            Arg::Num(n) => n,
            Arg::Bytes(_) => 0,
        }
    }

    /// The bytes; none for a number.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Arg::Num(_) => &[],
            Arg::Bytes(b) => b,
        }
    }
}

/// What a helper may use.
#[derive(Clone, Copy, Debug)]
pub struct HelperCx<'a> {
    /// Formats, symbols, names of the record's machine.
    pub dec: &'a Decoder,
    /// The record's bytes.
    pub data: &'a [u8],
}

/// A function that a print fmt may call.
#[derive(Clone, Copy, Debug)]
pub struct Helper {
    /// Its name in the print fmt.
    pub name: &'static str,
    /// Its result: a number is returned, a text is appended to `out`.
    pub ret: ArgKind,
    /// Its arguments.
    pub args: &'static [ArgKind],
    /// Runs it.
    pub run: fn(cx: &HelperCx<'_>, args: &[Arg<'_>], out: &mut Vec<u8>) -> u64,
}
