//! Bounds-checked walks: [`Cursor`] over bytes at hand, [`FileCursor`] over a file.

use crate::{Endian, Error, Result, source::Source};

/// A walk over bytes; every number and slice is checked to lie in them.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    data: &'a [u8],
    pos: usize,
    base: u64,
    endian: Endian,
}

impl<'a> Cursor<'a> {
    /// A walk over `data`, whose first byte lies at `base` in the file (for messages).
    pub fn new(data: &'a [u8], base: u64, endian: Endian) -> Self {
        Cursor { data, pos: 0, base, endian }
    }

    /// Where the next byte lies in the file.
    pub fn offset(&self) -> u64 {
        self.base.wrapping_add(self.pos as u64)
    }

    /// Bytes walked so far.
    pub fn pos(&self) -> usize {
        self.pos
    }

    /// What is left.
    pub fn rest(&self) -> &'a [u8] {
        self.data.get(self.pos..).unwrap_or_default()
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// [`Error::Truncated`], which names `what`, when fewer are left. So for all functions below.
    pub fn bytes(&mut self, what: &'static str, n: u64) -> Result<&'a [u8]> {
        let rest = self.rest();
        match usize::try_from(n).ok().and_then(|n| rest.get(..n)) {
            Some(b) => {
                self.pos += b.len();
                Ok(b)
            }
            None => Err(Error::Truncated { what, offset: self.offset(), need: n, have: rest.len() as u64 }),
        }
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N]> {
        let mut a = [0; N];
        a.copy_from_slice(self.bytes(what, N as u64)?);
        Ok(a)
    }

    /// A byte.
    pub fn u8(&mut self, what: &'static str) -> Result<u8> {
        let [b] = self.array(what)?;
        Ok(b)
    }

    /// A 16-bit number in file byte order.
    pub fn u16(&mut self, what: &'static str) -> Result<u16> {
        Ok(self.endian.u16(self.array(what)?))
    }

    /// A 32-bit number in file byte order.
    pub fn u32(&mut self, what: &'static str) -> Result<u32> {
        Ok(self.endian.u32(self.array(what)?))
    }

    /// A 64-bit number in file byte order.
    pub fn u64(&mut self, what: &'static str) -> Result<u64> {
        Ok(self.endian.u64(self.array(what)?))
    }

    /// The bytes up to the next NUL, which is skipped.
    pub fn cstr(&mut self, what: &'static str) -> Result<&'a [u8]> {
        let rest = self.rest();
        match memchr::memchr(0, rest).and_then(|n| rest.get(..n)) {
            Some(s) => {
                self.pos += s.len() + 1;
                Ok(s)
            }
            None => Err(Error::Truncated {
                what,
                offset: self.offset(),
                need: rest.len() as u64 + 1,
                have: rest.len() as u64,
            }),
        }
    }
}

/// Bytes that a [`FileCursor`] reads at a time.
const WINDOW: usize = 16 << 10;

/// A walk over a file from one place on, for the parts that have no length of their own. Reads a small window at a time.
#[derive(Debug)]
pub struct FileCursor<'a> {
    source: &'a Source,
    pos: u64,
    endian: Endian,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a> FileCursor<'a> {
    /// A walk from `pos` on.
    pub fn new(source: &'a Source, pos: u64, endian: Endian) -> Self {
        FileCursor { source, pos, endian, window: Vec::new(), window_at: 0 }
    }

    /// Sets the byte order of the numbers that follow.
    pub fn set_endian(&mut self, endian: Endian) {
        self.endian = endian;
    }

    /// Where the next byte lies in the file.
    pub fn offset(&self) -> u64 {
        self.pos
    }

    /// The file.
    pub fn source(&self) -> &'a Source {
        self.source
    }

    /// Goes to another place.
    pub fn seek(&mut self, pos: u64) {
        self.pos = pos;
    }

    /// At least `n` bytes (at most [`WINDOW`]) from the present place on, fewer only at the end of the file.
    fn window(&mut self, n: usize) -> Result<&[u8]> {
        let inside = self.pos.checked_sub(self.window_at).and_then(|o| usize::try_from(o).ok());
        let inside = inside.filter(|o| self.window.len().saturating_sub(*o) >= n);
        let start = match inside {
            Some(o) => o,
            None => {
                let have = self.source.len().saturating_sub(self.pos);
                let len = usize::try_from(have).unwrap_or(WINDOW).min(WINDOW);
                self.window.resize(len, 0);
                let got = self.source.read_at(self.pos, &mut self.window)?;
                self.window.truncate(got);
                self.window_at = self.pos;
                0
            }
        };
        Ok(self.window.get(start..).unwrap_or_default())
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N]> {
        let offset = self.pos;
        let w = self.window(N)?;
        let Some(b) = w.first_chunk::<N>().copied() else {
            return Err(Error::Truncated { what, offset, need: N as u64, have: w.len() as u64 });
        };
        self.pos += N as u64;
        Ok(b)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// [`Error::Truncated`], which names `what`, when the file ends before; [`Error::Io`]. So for all functions below.
    pub fn bytes<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N]> {
        self.array(what)
    }

    /// A byte.
    pub fn u8(&mut self, what: &'static str) -> Result<u8> {
        let [b] = self.array(what)?;
        Ok(b)
    }

    /// A 16-bit number in file byte order.
    pub fn u16(&mut self, what: &'static str) -> Result<u16> {
        let b = self.array(what)?;
        Ok(self.endian.u16(b))
    }

    /// A 32-bit number in file byte order.
    pub fn u32(&mut self, what: &'static str) -> Result<u32> {
        let b = self.array(what)?;
        Ok(self.endian.u32(b))
    }

    /// A 64-bit number in file byte order.
    pub fn u64(&mut self, what: &'static str) -> Result<u64> {
        let b = self.array(what)?;
        Ok(self.endian.u64(b))
    }

    /// The bytes up to the next NUL, which is skipped; at most 4096 of them.
    pub fn cstr(&mut self, what: &'static str) -> Result<Vec<u8>> {
        const MAX: usize = 4096;
        let offset = self.pos;
        let w = self.window(MAX + 1)?;
        let w = w.get(..MAX + 1).unwrap_or(w);
        let Some(s) = memchr::memchr(0, w).and_then(|n| w.get(..n)) else {
            return Err(if w.len() > MAX {
                Error::BadValue { what, offset, value: MAX as u64, why: "bytes without an end" }
            } else {
                Error::Truncated { what, offset, need: w.len() as u64 + 1, have: w.len() as u64 }
            });
        };
        let s = s.to_vec();
        self.pos += s.len() as u64 + 1;
        Ok(s)
    }

    /// Passes over `n` bytes that must lie in the file; where they begin.
    pub fn skip(&mut self, what: &'static str, n: u64) -> Result<u64> {
        let at = self.pos;
        self.source.check(what, at, n)?;
        self.pos += n;
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_both_orders() {
        let data = [
            0x12, 0x34, // u16
            0x01, 0x02, 0x03, 0x04, // u32
            b'a', b'b', 0,    // string
            0xff, // rest
        ];
        let mut c = Cursor::new(&data, 0x100, Endian::Big);
        assert_eq!(c.u16("a").unwrap(), 0x1234);
        assert_eq!(c.u32("b").unwrap(), 0x0102_0304);
        assert_eq!(c.cstr("c").unwrap(), b"ab");
        assert_eq!(c.offset(), 0x109);
        assert!(matches!(c.u16("d"), Err(Error::Truncated { what: "d", offset: 0x109, need: 2, have: 1 })));
        let mut c = Cursor::new(&data, 0, Endian::Little);
        assert_eq!(c.u16("a").unwrap(), 0x3412);
        assert!(c.bytes("all", u64::MAX).is_err());
    }

    #[test]
    fn file_cursor_crosses_windows() {
        let mut data = vec![7u8; WINDOW - 2];
        data.extend([1, 0, 0, 0, b'x', 0]);
        let source = Source::from_bytes("test", data);
        let mut c = FileCursor::new(&source, 0, Endian::Little);
        assert_eq!(c.u8("first").unwrap(), 7);
        c.skip("filler", WINDOW as u64 - 3).unwrap();
        assert_eq!(c.u32("number").unwrap(), 1);
        assert_eq!(c.cstr("string").unwrap(), b"x");
        assert!(matches!(c.u8("end"), Err(Error::Truncated { need: 1, have: 0, .. })));
        assert!(c.skip("far", u64::MAX).is_err());
    }
}
