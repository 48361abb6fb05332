//! Small pieces that the printers share: reading a field, appending numbers and symbols.

use crate::{
    Decoder, Endian,
    format::{Event, FieldFlags},
    kallsyms::Name,
    print::printf::hex_zeros,
    short::push_part,
};

pub(crate) use crate::print::printf::{hex, hex0x, hex2};

/// A number field of an event, found once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Num {
    pub(crate) offset: usize,
    pub(crate) size: usize,
}

impl Num {
    /// The event's field of this name, if it has one.
    pub(crate) fn of(event: &Event, name: &str) -> Option<Num> {
        event.field(name).map(|f| Num { offset: f.offset, size: f.size })
    }

    /// The value without a sign, 0 when the record is too short.
    #[inline(always)]
    pub(crate) fn get(self, endian: Endian, data: &[u8]) -> u64 {
        endian.uint(data, self.offset, self.size).unwrap_or(0)
    }
}

/// A text field: a fixed array or a dynamic one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text {
    offset: usize,
    size: usize,
    dynamic: bool,
    relative: bool,
}

impl Text {
    pub(crate) fn of(event: &Event, name: &str) -> Option<Text> {
        event.field(name).map(|f| Text {
            offset: f.offset,
            size: f.size,
            dynamic: f.flags.contains(FieldFlags::DYNAMIC),
            relative: f.flags.contains(FieldFlags::RELATIVE),
        })
    }

    /// All bytes of the field.
    pub(crate) fn bytes<'a>(&self, endian: Endian, data: &'a [u8]) -> &'a [u8] {
        if self.dynamic || self.relative {
            let word = endian.uint(data, self.offset, self.size).unwrap_or(0) as usize;
            let (mut at, len) = (word & 0xffff, word >> 16 & 0xffff);
            if self.relative {
                at += self.offset + self.size;
            }
            let end = if self.size == 2 { data.len() } else { data.len().min(at.saturating_add(len)) };
            data.get(at..end).unwrap_or_default()
        } else {
            let rest = data.get(self.offset..).unwrap_or_default();
            rest.get(..self.size).unwrap_or(rest)
        }
    }

    /// The bytes up to the first NUL.
    #[inline]
    pub(crate) fn text<'a>(&self, endian: Endian, data: &'a [u8]) -> &'a [u8] {
        until_nul(self.bytes(endian, data))
    }
}

/// The bytes up to the first NUL.
#[inline]
pub(crate) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.get(..memchr::memchr(0, bytes).unwrap_or(bytes.len())).unwrap_or_default()
}

/// Appends a decimal number.
#[inline]
pub(crate) fn dec<N: itoa::Integer>(out: &mut Vec<u8>, n: N) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

/// Appends a number in hex behind `0x`, with at least eight digits.
#[inline]
pub(crate) fn hex_padded(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(b"0x");
    hex_zeros(out, n, 8);
}

/// Appends blanks.
#[inline]
pub(crate) fn blanks(out: &mut Vec<u8>, n: usize) {
    const MOST: usize = 32;
    if n <= MOST {
        push_part(out, &[b' '; MOST], n);
    } else {
        out.resize(out.len() + n, b' ');
    }
}

/// Appends the name of the symbol at `addr` and, when `offset` is set, `+0xOFF `; the address when there is none.
#[inline]
pub(crate) fn symbol<'d>(dec: &'d Decoder, addr: u64, offset: bool, out: &mut Vec<u8>) -> Option<Name<'d>> {
    let found = dec.symbols().name_at(addr);
    match &found {
        Some(name) => {
            name.push(out);
            if let Some(s) = if offset { dec.symbols().find(addr) } else { None } {
                out.extend_from_slice(b"+0x");
                hex(out, addr.wrapping_sub(s.addr));
                out.push(b' ');
            }
        }
        None => hex0x(out, addr),
    }
    found
}

/// Appends what the reference prints when an event lacks a field that its plugin needs.
#[cold]
pub(crate) fn missing(name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<CANT FIND FIELD ");
    out.extend_from_slice(name.as_bytes());
    out.push(b'>');
}

/// Appends what the reference prints in the place of a number whose field the event lacks.
#[cold]
pub(crate) fn cant_find(name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"CAN'T FIND FIELD \"");
    out.extend_from_slice(name.as_bytes());
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (n, want) in [
            (0, "0"),
            (0xf, "f"),
            (0x10, "10"),
            (u64::MAX, "ffffffffffffffff"),
            (0x0123_4567_89ab_cdef, "123456789abcdef"),
        ] {
            let mut out = Vec::new();
            hex(&mut out, n);
            assert_eq!(out, want.as_bytes());
        }
    }
}
