//! Lines written into memory that is there already.
//!
//! A piece that is appended to a vector moves its length in memory, which the next piece has to wait for; the place of a pen stays in a
//! register. What is written is copied to where it is wanted, some lines at a time.

use crate::short::ShortText;

/// Bytes of a sheet that can be used.
const ROOM: usize = 8192;
/// A piece of fixed size may be so long; its rest may lie behind the room.
const PIECE: usize = 512;

/// What a pen writes on.
#[derive(Clone, Debug)]
pub struct Sheet(Box<[u8; ROOM + PIECE]>);

impl Default for Sheet {
    fn default() -> Self {
        Sheet(Box::new([0; ROOM + PIECE]))
    }
}

impl Sheet {
    /// The bytes before `end`.
    #[inline(always)]
    pub fn written(&self, end: usize) -> &[u8] {
        self.0.get(..end).unwrap_or_default()
    }

    /// Appends the bytes before `end` to a text.
    #[inline(never)]
    pub fn flush(&self, end: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(self.written(end));
    }
}

/// Writes bytes one behind the other.
///
/// Who writes takes care that there is room: see [`Pen::has_room`].
#[derive(Debug)]
pub struct Pen<'a> {
    sheet: &'a mut [u8; ROOM + PIECE],
    at: usize,
}

/// The numbers below 100, the first digit lowest, without zeros in front.
static SMALL: [[u8; 2]; 128] = small();

#[allow(clippy::indexing_slicing, reason = "done by the compiler")]
const fn small() -> [[u8; 2]; 128] {
    let mut all = [[0; 2]; 128];
    let mut n = 0;
    while n < 100 {
        let (tens, ones) = (b'0' + (n / 10) as u8, b'0' + (n % 10) as u8);
        all[n] = if n < 10 { [ones, 0] } else { [tens, ones] };
        n += 1;
    }
    all
}

const ZEROS: u64 = 0x3030_3030_3030_3030;

/// The eight digits of a number below 100 million, the first one in the lowest byte: all at once, in one register.
#[inline(always)]
fn eight(n: u32) -> u64 {
    // Four digits in each half, then two in each quarter, then one in each byte; divisions are multiplications that cannot
    // reach the neighbour.
    let n = u64::from(n / 10_000) | u64::from(n % 10_000) << 32;
    let hundreds = ((n * 10_486) >> 20) & 0x7f_0000_007f;
    let n = hundreds | (n - 100 * hundreds) << 16;
    let tens = ((n * 103) >> 10) & 0x000f_000f_000f_000f;
    tens | (n - 10 * tens) << 8
}

impl<'a> Pen<'a> {
    /// A pen that stands at this place.
    #[inline(always)]
    pub fn new(sheet: &'a mut Sheet, at: usize) -> Self {
        Pen { sheet: &mut sheet.0, at }
    }

    /// The same pen, to be used in one function: its place is in a register there. [`Pen::go_to`] takes it back.
    #[inline(always)]
    pub fn own(&mut self) -> Pen<'_> {
        Pen { sheet: self.sheet, at: self.at }
    }

    /// Where it stands.
    #[inline(always)]
    pub fn at(&self) -> usize {
        self.at
    }

    /// Goes to another place.
    #[inline(always)]
    pub fn go_to(&mut self, at: usize) {
        self.at = at;
    }

    /// What was written from `start` on.
    #[inline(always)]
    pub fn since(&self, start: usize) -> &[u8] {
        self.sheet.get(start..self.at).unwrap_or_default()
    }

    /// Whether so many bytes can be written.
    #[inline(always)]
    pub fn has_room(&self, len: usize) -> bool {
        len <= ROOM && self.at <= ROOM - len
    }

    /// Appends the first `len` bytes of `chunk`; the others are written too, and then written over.
    #[inline(always)]
    #[allow(clippy::indexing_slicing, reason = "the place is cut so that a whole piece has room behind it")]
    pub fn part<const N: usize>(&mut self, chunk: &[u8; N], len: usize) {
        // Long ones are copied by steps, as far as they are wanted: a copy of so many bytes would be a call.
        const STEP: usize = 64;
        const { assert!(N <= STEP || (N <= PIECE && N.is_multiple_of(STEP))) };
        let at = self.at % ROOM;
        if N <= STEP {
            if let Some(to) = self.sheet[at..].first_chunk_mut::<N>() {
                *to = *chunk;
            }
        } else {
            let mut from = 0;
            while from < N {
                if let (Some(to), Some(step)) =
                    (self.sheet[at + from..].first_chunk_mut::<STEP>(), chunk[from..].first_chunk::<STEP>())
                {
                    *to = *step;
                }
                from += STEP;
                if from >= len {
                    break;
                }
            }
        }
        self.at += len;
    }

    /// Appends these bytes.
    #[inline(always)]
    pub fn piece<const N: usize>(&mut self, chunk: &[u8; N]) {
        self.part(chunk, N);
    }

    /// Appends a byte.
    #[inline(always)]
    pub fn byte(&mut self, byte: u8) {
        self.part(&[byte], 1);
    }

    /// Appends a kept text.
    #[inline(always)]
    pub fn text<const N: usize>(&mut self, text: &ShortText<N>) {
        match text.short() {
            Some((chunk, len)) => self.part(chunk, len),
            None => self.bytes(text.bytes()),
        }
    }

    /// Appends the first `len` bytes of `text`, fast where there are `N` of them and not more are wanted.
    #[inline(always)]
    pub fn start<const N: usize>(&mut self, text: &[u8], len: usize) {
        match text.first_chunk::<N>() {
            Some(chunk) if len <= N => self.part(chunk, len),
            _ => self.bytes(text.get(..len).unwrap_or_default()),
        }
    }

    /// Appends bytes.
    #[inline(never)]
    pub fn bytes(&mut self, text: &[u8]) {
        if let Some(to) = self.sheet.get_mut(self.at..).and_then(|s| s.get_mut(..text.len())) {
            to.copy_from_slice(text);
            self.at += text.len();
        }
    }

    /// Appends blanks.
    #[inline(always)]
    pub fn blanks(&mut self, n: usize) {
        self.part(&[b' '; 32], n.min(32));
        let mut rest = n.saturating_sub(32);
        while rest > 0 {
            self.part(&[b' '; 32], rest.min(32));
            rest = rest.saturating_sub(32);
        }
    }

    /// Appends the last `N` digits of `n`, at most eight, which must be below 100 million.
    #[inline(always)]
    pub fn digits<const N: usize>(&mut self, n: u32) {
        let digits = (eight(n) | ZEROS) >> (8 * (8 - N));
        self.part(&digits.to_le_bytes(), N);
    }

    /// Appends a number in base 10.
    #[inline(always)]
    #[allow(clippy::indexing_slicing, reason = "the index is below 100")]
    pub fn dec(&mut self, n: u64) {
        if n < 100 {
            self.part(&SMALL[n as usize], 1 + usize::from(n >= 10));
        } else if n < 100_000_000 {
            self.below_100_million(n as u32);
        } else {
            self.large(n);
        }
    }

    #[inline(always)]
    fn below_100_million(&mut self, n: u32) {
        let digits = eight(n);
        // The lowest byte that is not 0 is the first digit.
        let zeros = digits.trailing_zeros() / 8 % 8;
        let text = (digits | ZEROS) >> (8 * zeros);
        self.part(&text.to_le_bytes(), 8 - zeros as usize);
    }

    #[inline(always)]
    fn large(&mut self, n: u64) {
        const MANY: u64 = 100_000_000;
        let (high, low) = (n / MANY, (n % MANY) as u32);
        if high < MANY {
            self.below_100_million(high as u32);
        } else {
            self.below_100_million((high / MANY) as u32);
            self.digits::<8>((high % MANY) as u32);
        }
        self.digits::<8>(low);
    }

    /// Appends a signed number in base 10.
    #[inline(always)]
    pub fn signed_dec(&mut self, n: i64) {
        if n < 0 {
            self.byte(b'-');
        }
        self.dec(n.unsigned_abs());
    }

    /// Appends `0x` and a number in base 16.
    #[inline(always)]
    pub fn hex0x(&mut self, n: u64) {
        self.piece(b"0x");
        self.hex(n, 1);
    }

    /// Appends a number in base 16 with zeros in front, `width` digits at least (16 at most).
    #[inline(always)]
    pub fn hex(&mut self, n: u64, width: usize) {
        let (digits, len) = crate::print::printf::hex_digits(n, width);
        self.part(&digits, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Pen<'_>)) -> String {
        let mut sheet = Sheet::default();
        let mut pen = Pen::new(&mut sheet, 0);
        write(&mut pen);
        let end = pen.at();
        String::from_utf8(sheet.written(end).to_vec()).unwrap()
    }

    #[test]
    fn numbers() {
        let powers = (0..20).map(|e| 10u64.pow(e));
        let near = powers.flat_map(|p| [p - 1, p, p + 1, p.saturating_mul(9), p / 3, p.saturating_mul(18)]);
        let mut x = 1u64;
        let random = (0..100_000).map(|i| {
            x = x.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            x >> (i % 64)
        });
        for n in near.chain(random).chain([0, u64::MAX, i64::MAX as u64, i64::MIN as u64]) {
            assert_eq!(text(|p| p.dec(n)), n.to_string());
            assert_eq!(text(|p| p.signed_dec(n as i64)), (n as i64).to_string());
            assert_eq!(text(|p| p.hex(n, 1)), format!("{n:x}"));
            assert_eq!(text(|p| p.hex(n, 8)), format!("{n:08x}"));
            let six = (n % 1_000_000) as u32;
            assert_eq!(text(|p| p.digits::<6>(six)), format!("{six:06}"));
        }
        for n in 0..100_000_000 / 997 {
            assert_eq!(text(|p| p.dec(n * 997)), (n * 997).to_string());
        }
    }

    #[test]
    fn pieces_follow_each_other() {
        let long = "x".repeat(100);
        let all = text(|p| {
            p.byte(b'a');
            p.part(b"bcdef", 2);
            p.text(&<ShortText>::new(b"short"));
            p.text(&<ShortText>::new(long.as_bytes()));
            p.blanks(3);
            p.blanks(70);
            p.start::<8>(b"12345678", 4);
            p.start::<8>(b"1234", 4);
        });
        assert_eq!(all, format!("abcshort{long}{}12341234", " ".repeat(73)));
    }

    #[test]
    fn room_is_told() {
        let mut sheet = Sheet::default();
        let pen = Pen::new(&mut sheet, ROOM - 10);
        assert!(pen.has_room(10) && !pen.has_room(11) && !pen.has_room(usize::MAX));
    }
}
