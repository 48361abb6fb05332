//! Texts of records that came before: many records of a trace have the same bytes but for their time and task.

use trace_dat::pen::Pen;

/// How many texts are kept; a power of two.
const SLOTS: usize = 1024;
/// Bytes of a record behind its common fields …
const BYTES: usize = 64;
/// … and of its text, at most.
const TEXT: usize = 256;

/// Where the fields that all events have end.
pub const COMMON: usize = 8;

/// What the text of a record depends on.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    bytes: [u64; BYTES / 8],
    /// Number of the kind of record, and how many bytes there are. 0 for no record.
    kind: u64,
}

impl Key {
    /// The key of a record, unless it is too long. `kind`: a number that tells which of its bytes mean what.
    #[inline(always)]
    pub fn new(kind: u32, data: &[u8]) -> Option<Key> {
        let data = data.get(COMMON..).filter(|d| d.len() <= BYTES)?;
        let mut bytes = [0; BYTES / 8];
        let (words, rest) = data.as_chunks::<8>();
        bytes.iter_mut().zip(words).for_each(|(to, word)| *to = u64::from_le_bytes(*word));
        // Records have a multiple of four bytes.
        if let Some(to) = bytes.get_mut(words.len()) {
            match rest {
                [] => {}
                [a, b, c, d] => *to = u32::from_le_bytes([*a, *b, *c, *d]).into(),
                _ => return None,
            }
        }
        Some(Key { bytes, kind: u64::from(kind) << 32 | (data.len() as u64 + 1) })
    }

    #[inline(always)]
    fn slot(&self) -> usize {
        let [a, b, c, d, e, f, g, h] = self.bytes;
        let one = a ^ b.rotate_left(11) ^ c.rotate_left(22) ^ d.rotate_left(33);
        let two = e.rotate_left(44) ^ f.rotate_left(55) ^ g.rotate_left(5) ^ h.rotate_left(16);
        let mixed = (one ^ two ^ self.kind.rotate_left(27)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 54) as usize % SLOTS
    }
}

impl PartialEq for Key {
    /// Without a branch for each word.
    #[inline(always)]
    fn eq(&self, other: &Key) -> bool {
        let differs = self.bytes.iter().zip(&other.bytes).fold(self.kind ^ other.kind, |bits, (a, b)| bits | (a ^ b));
        differs == 0
    }
}

#[derive(Clone, Debug)]
struct Slot {
    key: Key,
    len: usize,
    text: [u8; TEXT],
}

/// Texts by the bytes of their records.
#[derive(Debug, Default)]
pub struct Memo(Vec<Slot>);

impl Memo {
    /// Writes the text of this record, if it is kept.
    #[inline(always)]
    pub fn write(&self, key: &Key, pen: &mut Pen<'_>) -> bool {
        match self.0.get(key.slot()) {
            Some(slot) if slot.key == *key => {
                pen.part(&slot.text, slot.len);
                true
            }
            _ => false,
        }
    }

    /// Keeps a text, unless it is too long.
    pub fn keep(&mut self, key: &Key, text: &[u8]) {
        if self.0.is_empty() {
            let key = Key { bytes: [0; BYTES / 8], kind: 0 };
            self.0.resize(SLOTS, Slot { key, len: 0, text: [0; TEXT] });
        }
        if let Some(slot) = self.0.get_mut(key.slot())
            && let Some(to) = slot.text.get_mut(..text.len())
        {
            to.copy_from_slice(text);
            (slot.key, slot.len) = (*key, text.len());
        }
    }
}

/// Whether it pays to look for a kind of records: it does not for those whose bytes are always others.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Falls with records that are not found.
    credit: u32,
    /// So many records are not looked for.
    rest: u32,
}

impl Default for Rate {
    fn default() -> Self {
        Rate { credit: Self::START, rest: 0 }
    }
}

impl Rate {
    const MOST: u32 = 256;
    const START: u32 = 64;
    const REST: u32 = 1 << 14;

    /// Whether to look for the next record.
    #[inline(always)]
    pub fn is_good(&mut self) -> bool {
        let good = self.rest == 0;
        if !good {
            self.rest -= 1;
        }
        good
    }

    /// Notes what became of a look.
    #[inline(always)]
    pub fn note(&mut self, hit: bool) {
        if hit {
            if self.credit < Self::MOST {
                self.credit += 1;
            }
        } else {
            self.credit -= 1;
            if self.credit == 0 {
                *self = Rate { rest: Self::REST, ..Rate::default() };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use trace_dat::pen::Sheet;

    use super::*;

    #[test]
    fn what_was_kept_is_found() {
        let mut memo = Memo::default();
        let mut sheet = Sheet::default();
        let mut text = |memo: &Memo, key: &Key| {
            let mut pen = Pen::new(&mut sheet, 0);
            let found = memo.write(key, &mut pen);
            let text = pen.since(0).to_vec();
            found.then_some(text)
        };
        let record = |n: u32, len: usize| -> Vec<u8> {
            [7; 8].into_iter().chain((0..len).map(|i| (n >> (8 * (i % 4))) as u8)).collect()
        };
        for len in (0..=64).step_by(4) {
            for n in [0, 1, 77, u32::MAX] {
                for kind in [0, 1, 500] {
                    let key = Key::new(kind, &record(n, len)).unwrap();
                    let want = format!("{len} {n} {kind}").into_bytes();
                    memo.keep(&key, &want);
                    assert_eq!(text(&memo, &key), Some(want));
                    assert_eq!(text(&memo, &Key::new(kind + 1000, &record(n, len)).unwrap()), None);
                }
            }
        }
        // Zeros at the end count, and what a task's fields are does not.
        let (short, long) = (Key::new(1, &record(0, 8)).unwrap(), Key::new(1, &record(0, 12)).unwrap());
        assert_ne!(short, long);
        let mut other = record(0, 8);
        other[4] = 9;
        assert_eq!(Key::new(1, &other), Some(short));
        assert!(
            Key::new(1, &record(0, 68)).is_none()
                && Key::new(1, &record(0, 7)).is_none()
                && Key::new(1, &[0; 7]).is_none()
        );
        memo.keep(&long, &[b'x'; TEXT + 1]);
        assert_ne!(text(&memo, &long).map(|t| t.len()), Some(TEXT + 1));
        memo.keep(&long, &[b'x'; TEXT]);
        assert_eq!(text(&memo, &long).map(|t| t.len()), Some(TEXT));
    }

    #[test]
    fn what_does_not_pay_rests() {
        let mut rate = Rate::default();
        let looks = |rate: &mut Rate, hit: bool, n: u32| -> u32 {
            (0..n)
                .map(|_| {
                    u32::from(
                        rate.is_good() && {
                            rate.note(hit);
                            true
                        },
                    )
                })
                .sum()
        };
        assert_eq!(looks(&mut rate, true, 10_000), 10_000);
        let misses = looks(&mut rate, false, 100_000);
        assert!((64..2000).contains(&misses), "{misses}");
        assert!(looks(&mut rate, true, 100_000) > 80_000);
    }
}
