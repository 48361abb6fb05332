//! Byte order and word size of the machine that made a trace.

/// Byte order of the recording machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endian {
    /// Least significant byte first (x86, arm64, riscv).
    Little,
    /// Most significant byte first (s390x, powerpc).
    Big,
}

impl Endian {
    /// Reads a 16-bit number.
    #[inline(always)]
    pub fn u16(self, b: [u8; 2]) -> u16 {
        match self {
            Endian::Little => u16::from_le_bytes(b),
            Endian::Big => u16::from_be_bytes(b),
        }
    }

    /// Reads a 32-bit number.
    #[inline(always)]
    pub fn u32(self, b: [u8; 4]) -> u32 {
        match self {
            Endian::Little => u32::from_le_bytes(b),
            Endian::Big => u32::from_be_bytes(b),
        }
    }

    /// Reads a 64-bit number.
    #[inline(always)]
    pub fn u64(self, b: [u8; 8]) -> u64 {
        match self {
            Endian::Little => u64::from_le_bytes(b),
            Endian::Big => u64::from_be_bytes(b),
        }
    }

    /// Reads an unsigned number of 1, 2, 4 or 8 bytes at `offset`; `None` when it does not lie in `data` or has another size.
    #[inline]
    pub fn uint(self, data: &[u8], offset: usize, size: usize) -> Option<u64> {
        let b = data.get(offset..offset.checked_add(size)?)?;
        Some(match *b {
            [a] => u64::from(a),
            [a, b] => u64::from(self.u16([a, b])),
            [a, b, c, d] => u64::from(self.u32([a, b, c, d])),
            [a, b, c, d, e, f, g, h] => self.u64([a, b, c, d, e, f, g, h]),
            _ => return None,
        })
    }

    /// The bytes of a 16-bit number in this order.
    pub fn from_u16(self, v: u16) -> [u8; 2] {
        match self {
            Endian::Little => v.to_le_bytes(),
            Endian::Big => v.to_be_bytes(),
        }
    }

    /// The bytes of a 32-bit number in this order.
    pub fn from_u32(self, v: u32) -> [u8; 4] {
        match self {
            Endian::Little => v.to_le_bytes(),
            Endian::Big => v.to_be_bytes(),
        }
    }

    /// The bytes of a 64-bit number in this order.
    pub fn from_u64(self, v: u64) -> [u8; 8] {
        match self {
            Endian::Little => v.to_le_bytes(),
            Endian::Big => v.to_be_bytes(),
        }
    }
}

/// Width of a C `long` on the recording machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LongSize {
    /// 4 bytes (i386, arm).
    Four,
    /// 8 bytes (x86_64, arm64, s390x).
    Eight,
}

impl LongSize {
    /// The width in bytes: 4 or 8.
    pub fn bytes(self) -> usize {
        match self {
            LongSize::Four => 4,
            LongSize::Eight => 8,
        }
    }
}
