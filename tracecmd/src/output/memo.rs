//! Texts of records that came before: many records of a trace are the same but for their time.

use trace_dat::pen::Pen;

/// How many texts are kept; a power of two.
const SLOTS: usize = 1024;
/// Words of a record …
const WORDS: usize = 9;
/// … and bytes of its text, at most.
pub const TEXT: usize = 384;

/// Whose text: all that it depends on.
#[derive(Clone, Copy, Debug)]
pub struct Of<'d> {
    /// Number of the stream of records.
    pub stream: u32,
    /// CPU, where it is part of the text.
    pub cpu: u32,
    /// The record.
    pub data: &'d [u8],
}

/// The same as numbers.
#[derive(Clone, Copy, Debug)]
struct Key {
    /// The record's bytes.
    words: [u64; WORDS],
    /// How many bytes there are, CPU and stream. 0 for no record.
    rest: u64,
}

/// A word of a record, which has a multiple of four bytes; 0 behind its end.
#[inline(always)]
fn word(data: &[u8], n: usize) -> u64 {
    let Some(rest) = data.get(8 * n..) else { return 0 };
    match (rest.first_chunk(), rest.first_chunk()) {
        (Some(eight), _) => u64::from_le_bytes(*eight),
        (None, Some(four)) => u32::from_le_bytes(*four).into(),
        (None, None) => 0,
    }
}

impl Key {
    /// `None` for a record that is too long.
    #[inline(always)]
    fn new(of: Of<'_>) -> Option<Key> {
        let Of { stream, cpu, data } = of;
        if data.len() > 8 * WORDS || !data.len().is_multiple_of(4) || stream > 0xffff || cpu > 0xffff {
            return None;
        }
        let rest = u64::from(stream) << 48 | u64::from(cpu) << 32 | (data.len() as u64 + 1);
        Some(Key { words: std::array::from_fn(|n| word(data, n)), rest })
    }

    /// Number of the event.
    #[inline(always)]
    fn id(&self) -> u16 {
        self.words.first().map_or(0, |w| *w as u16)
    }

    #[inline(always)]
    fn slot(&self) -> usize {
        let [a, b, c, d, e, f, g, h, i] = self.words;
        let one = a ^ b.rotate_left(11) ^ c.rotate_left(22) ^ d.rotate_left(33) ^ i.rotate_left(38);
        let two = e.rotate_left(44) ^ f.rotate_left(55) ^ g.rotate_left(5) ^ h.rotate_left(16);
        let mixed = (one ^ two ^ self.rest.rotate_left(27)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32) as usize % SLOTS
    }
}

impl PartialEq for Key {
    /// Without a branch for each word.
    #[inline(always)]
    fn eq(&self, other: &Key) -> bool {
        let differs = self.words.iter().zip(&other.words).fold(self.rest ^ other.rest, |bits, (a, b)| bits | (a ^ b));
        differs == 0
    }
}

#[derive(Clone, Debug)]
struct Slot {
    key: Key,
    len: usize,
    text: [u8; TEXT],
}

/// Texts of records, by all that they depend on. They are kept when there were many records.
#[derive(Debug, Default)]
pub struct Memo {
    /// Records that were asked for before there was memory.
    asked: u32,
    slots: Vec<Slot>,
    /// By the lowest bits of an event's number.
    rates: Vec<Rate>,
}

/// A power of two.
const RATES: usize = 256;

/// So few records are not worth the memory.
const FEW: u32 = 10_000;

/// What [`Memo::write`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The text was written.
    Yes,
    /// It is not kept, and is worth to be.
    No,
    /// It was not looked for.
    Unknown,
}

impl Memo {
    /// Writes the text of this record, if it is kept.
    #[inline(always)]
    pub fn write(&mut self, of: Of<'_>, pen: &mut Pen<'_>) -> Found {
        let Some(key) = Key::new(of) else { return Found::Unknown };
        let rate = self.rates.get_mut(usize::from(key.id()) % RATES);
        let slot = self.slots.get(key.slot());
        let (Some(rate), Some(slot)) = (rate, slot) else {
            self.begin();
            return Found::Unknown;
        };
        if !rate.is_good() {
            return Found::Unknown;
        }
        let hit = slot.key == key;
        rate.note(hit);
        if !hit {
            return Found::No;
        }
        pen.part(&slot.text, slot.len);
        Found::Yes
    }

    #[inline(never)]
    fn begin(&mut self) {
        self.asked += 1;
        if self.asked < FEW {
            return;
        }
        let key = Key { words: [0; WORDS], rest: 0 };
        self.slots.resize(SLOTS, Slot { key, len: 0, text: [0; TEXT] });
        self.rates.resize(RATES, Rate::default());
    }

    /// Keeps a text, unless it is too long.
    #[inline(never)]
    pub fn keep(&mut self, of: Of<'_>, text: &[u8]) {
        if let Some(key) = Key::new(of)
            && let Some(slot) = self.slots.get_mut(key.slot())
            && let Some(to) = slot.text.get_mut(..text.len())
        {
            to.copy_from_slice(text);
            (slot.key, slot.len) = (key, text.len());
        }
    }
}

/// Whether it pays to look for a kind of records: it does not for those whose bytes are always others.
#[derive(Clone, Copy, Debug)]
struct Rate {
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
    fn is_good(&mut self) -> bool {
        let good = self.rest == 0;
        if !good {
            self.rest -= 1;
        }
        good
    }

    /// Notes what became of a look.
    #[inline(always)]
    fn note(&mut self, hit: bool) {
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
        let mut text = |memo: &mut Memo, of: Of<'_>| {
            let mut pen = Pen::new(&mut sheet, 0);
            let found = memo.write(of, &mut pen);
            let text = String::from_utf8(pen.since(0).to_vec()).unwrap();
            (found, text)
        };
        let new = (Found::No, String::new());
        let record = |n: u32, len: usize| -> Vec<u8> { (0..len).map(|i| (n >> (8 * (i % 4))) as u8).collect() };
        for _ in 0..FEW {
            assert_eq!(text(&mut memo, Of { stream: 0, cpu: 0, data: &[] }).0, Found::Unknown);
        }
        assert_eq!(text(&mut memo, Of { stream: 0, cpu: 0, data: &[] }), new);
        for len in (4..=72).step_by(4) {
            for n in [1, 77, u32::MAX] {
                for (stream, cpu) in [(0, 0), (0, 1), (1, 0), (500, 600)] {
                    memo.rates.clear(); // each of these is new
                    memo.rates.resize(RATES, Rate::default());
                    let data = record(n, len);
                    let of = Of { stream, cpu, data: &data };
                    let want = format!("{len} {n} {stream} {cpu}");
                    assert_eq!(text(&mut memo, of), new);
                    memo.keep(of, want.as_bytes());
                    assert_eq!(text(&mut memo, of), (Found::Yes, want));
                    assert_eq!(text(&mut memo, Of { cpu: cpu + 7, ..of }), new);
                }
            }
        }
        // Zeros at the end count.
        let (short, long) = (record(0, 8), record(0, 12));
        let [short, long] = [&short, &long].map(|data| Of { stream: 1, cpu: 1, data });
        memo.keep(short, b"short");
        memo.keep(long, b"long");
        assert_eq!(text(&mut memo, long), (Found::Yes, "long".into()));
        assert_ne!(text(&mut memo, short), (Found::Yes, "long".into()));
        for (stream, cpu, len) in [(0, 0, 76), (0, 0, 7), (1 << 16, 0, 8), (0, 1 << 16, 8)] {
            assert_eq!(text(&mut memo, Of { stream, cpu, data: &record(1, len) }).0, Found::Unknown);
        }
        memo.keep(long, &[b'x'; TEXT + 1]);
        assert_eq!(text(&mut memo, long).1, "long");
        memo.keep(long, &[b'x'; TEXT]);
        assert_eq!(text(&mut memo, long).1.len(), TEXT);
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
