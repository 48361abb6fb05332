//! A sub-buffer: its header, and the walk over its records.
//!
//! Source: `events/header_page` and `events/header_event` of a kernel; Documentation/trace/ring-buffer-design.rst.

use crate::{Endian, Error, LongSize, Result, ring::record::Lost};

/// The largest `type_len` that tells how long the record is, in words.
pub const RINGBUF_TYPE_DATA_LEN_MAX: u32 = 28;
/// `type_len` of padding: with a zero delta the rest of the sub-buffer is empty, otherwise a discarded record.
pub const RINGBUF_TYPE_PADDING: u32 = 29;
/// `type_len` of a time extend: 27 bits of delta, and 32 more above them in the next word.
pub const RINGBUF_TYPE_TIME_EXTEND: u32 = 30;
/// `type_len` of an absolute timestamp of 59 bits.
pub const RINGBUF_TYPE_TIME_STAMP: u32 = 31;
/// Commit bit: events were lost before this sub-buffer.
pub const RB_MISSED_EVENTS: u64 = 1 << 31;
/// Commit bit: how many were lost stands behind the data.
pub const RB_MISSED_STORED: u64 = 1 << 30;
/// Bits of the commit word that count bytes.
const COMMIT_MASK: u64 = (1 << 27) - 1;
/// Bits of the delta in a record header.
const TS_SHIFT: u32 = 27;
/// Bits of an absolute timestamp that are not stored.
const TS_MSB: u64 = 0xf8 << 56;

/// How the sub-buffers of a buffer are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubBufLayout {
    /// Byte order.
    pub endian: Endian,
    /// Width of the commit word.
    pub commit_size: LongSize,
    /// Where the records begin.
    pub data_offset: usize,
    /// Bytes of a sub-buffer.
    pub size: usize,
    /// Record headers of kernels before 2.6.31: 2 bits type, 3 bits length, 27 bits delta.
    pub old_format: bool,
}

/// What the first words of a sub-buffer say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubBufHeader {
    /// Time that the first record's delta counts from.
    pub ts: u64,
    /// Bytes of records.
    pub commit: usize,
    /// What was lost before the first record.
    pub lost: Lost,
}

impl SubBufLayout {
    /// Reads the header of the sub-buffer `data`, which lies at `offset` (for messages). `data` may be shorter than a sub-buffer.
    ///
    /// # Errors
    /// [`Error::Truncated`] without a whole header, [`Error::Commit`] if the records reach past `data`.
    #[inline]
    pub fn header(&self, data: &[u8], offset: u64) -> Result<SubBufHeader> {
        let e = self.endian;
        let (Some(ts), Some(word)) = (e.uint(data, 0, 8), e.uint(data, 8, self.commit_size.bytes())) else {
            let (need, have) = (self.data_offset as u64, data.len() as u64);
            return Err(Error::Truncated { what: "header of a sub-buffer", offset, need, have });
        };
        let room = data.len().saturating_sub(self.data_offset);
        let commit = word & COMMIT_MASK;
        let lost = if word & RB_MISSED_EVENTS == 0 {
            Lost::None
        } else if word & RB_MISSED_STORED == 0 {
            Lost::Unknown
        } else {
            let at = self.data_offset.saturating_add(commit as usize);
            e.uint(data, at, self.commit_size.bytes()).map_or(Lost::Unknown, Lost::Count)
        };
        if commit > room as u64 {
            return Err(Error::Commit { offset, commit, room: room as u64 });
        }
        Ok(SubBufHeader { ts, commit: commit as usize, lost })
    }

    /// A walk over everything in the sub-buffer `data`, also what is no record.
    ///
    /// # Errors
    /// Those of [`SubBufLayout::header`].
    pub fn items<'a>(&self, data: &'a [u8], offset: u64) -> Result<Items<'a>> {
        let header = self.header(data, offset)?;
        Ok(Items { layout: *self, data, walk: Walk::new(self, &header), offset, done: false })
    }
}

/// What lies in a sub-buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemKind {
    /// An event; its bytes are the item's `data`.
    Event,
    /// Padding, or a discarded record.
    Padding,
    /// A time extend.
    TimeExtend,
    /// An absolute timestamp.
    TimeStamp,
}

/// One item of a sub-buffer.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// What it is.
    pub kind: ItemKind,
    /// Where its header lies in the sub-buffer.
    pub at: usize,
    /// Bytes, header included.
    pub size: usize,
    /// Delta as stored; of a time extend with its upper bits, of an absolute timestamp the lower 59 bits of the time.
    pub delta: u64,
    /// Time after the item.
    pub ts: u64,
    /// An event's bytes, otherwise empty.
    pub data: &'a [u8],
    /// Where `data` lies in the sub-buffer.
    pub data_at: usize,
}

/// Iterator over the items of a sub-buffer. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    layout: SubBufLayout,
    data: &'a [u8],
    walk: Walk,
    offset: u64,
    done: bool,
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let at = self.walk.pos;
        let step = match (self.layout.old_format, self.layout.endian) {
            (true, e) => self.walk.old_step(self.data, e),
            (false, Endian::Little) => self.walk.step::<false>(self.data),
            (false, Endian::Big) => self.walk.step::<true>(self.data),
        };
        let (kind, delta, (start, len)) = match step {
            Step::Event { start, len, delta } => (ItemKind::Event, delta, (start, len)),
            Step::Padding { delta } => (ItemKind::Padding, delta, (at, 0)),
            Step::TimeExtend { delta } => (ItemKind::TimeExtend, delta, (at, 0)),
            Step::TimeStamp { delta } => (ItemKind::TimeStamp, delta, (at, 0)),
            Step::End => {
                self.done = true;
                return None;
            }
            Step::Bad(why) => {
                self.done = true;
                return Some(Err(Error::Record { offset: self.offset, at: at as u64, why }));
            }
        };
        let data = self.data.get(start..start + len).unwrap_or_default();
        Some(Ok(Item { kind, at, size: self.walk.pos - at, delta, ts: self.walk.ts, data, data_at: start }))
    }
}

/// One step of a walk.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Event { start: usize, len: usize, delta: u64 },
    Padding { delta: u64 },
    TimeExtend { delta: u64 },
    TimeStamp { delta: u64 },
    End,
    Bad(&'static str),
}

/// Where a walk over a sub-buffer is. All positions count from the start of the bytes given to the step functions.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Walk {
    pub pos: usize,
    pub end: usize,
    pub ts: u64,
}

#[inline(always)]
fn word<const BE: bool>(data: &[u8], at: usize) -> u32 {
    match data.get(at..).and_then(|d| d.first_chunk::<4>()) {
        Some(b) if BE => u32::from_be_bytes(*b),
        Some(b) => u32::from_le_bytes(*b),
        None => 0,
    }
}

impl Walk {
    pub fn new(layout: &SubBufLayout, header: &SubBufHeader) -> Walk {
        Walk { pos: layout.data_offset, end: layout.data_offset + header.commit, ts: header.ts }
    }

    /// The next event, whatever lies before it.
    #[inline(always)]
    pub fn event<const BE: bool>(&mut self, data: &[u8]) -> Step {
        loop {
            match self.step::<BE>(data) {
                Step::Padding { .. } | Step::TimeExtend { .. } | Step::TimeStamp { .. } => {}
                step => return step,
            }
        }
    }

    /// One item. `pos` and `end` lie within `data`; each step moves `pos` by at least 4, never beyond `end`.
    #[inline(always)]
    pub fn step<const BE: bool>(&mut self, data: &[u8]) -> Step {
        let room = self.end.saturating_sub(self.pos);
        if room < 4 {
            return Step::End;
        }
        let head = word::<BE>(data, self.pos);
        let (type_len, delta) =
            if BE { (head >> TS_SHIFT, head & ((1 << TS_SHIFT) - 1)) } else { (head & 31, head >> 5) };
        let delta = u64::from(delta);
        if let 1..=RINGBUF_TYPE_DATA_LEN_MAX = type_len {
            let len = type_len as usize * 4;
            if len + 4 > room {
                return Step::Bad("it reaches past the end of the data");
            }
            let start = self.pos + 4;
            self.pos = start + len;
            self.ts = self.ts.wrapping_add(delta);
            return Step::Event { start, len, delta };
        }
        if room < 8 {
            return if type_len == RINGBUF_TYPE_PADDING {
                self.rest_is_empty()
            } else {
                Step::Bad("it has no second word")
            };
        }
        let second = word::<BE>(data, self.pos + 4);
        match type_len {
            0 => {
                let len = (second as usize).saturating_add(3) & !3;
                if len < 4 || len > room - 4 {
                    return Step::Bad("its length is not possible");
                }
                let start = self.pos + 8;
                self.pos += 4 + len;
                self.ts = self.ts.wrapping_add(delta);
                Step::Event { start, len: len - 4, delta }
            }
            RINGBUF_TYPE_TIME_EXTEND | RINGBUF_TYPE_TIME_STAMP if self.time_follows::<BE>(data) => {
                // The kernel writes a time for the record behind it only, and one is enough.
                Step::Bad("it is a time before another time")
            }
            RINGBUF_TYPE_TIME_EXTEND => {
                let delta = delta.wrapping_add(u64::from(second) << TS_SHIFT);
                self.pos += 8;
                self.ts = self.ts.wrapping_add(delta);
                Step::TimeExtend { delta }
            }
            RINGBUF_TYPE_TIME_STAMP => {
                let delta = delta | u64::from(second) << TS_SHIFT;
                self.pos += 8;
                self.ts = self.ts & TS_MSB | delta;
                Step::TimeStamp { delta }
            }
            _ => {
                // The kernel leaves the rest empty only where no record fits; what it discards, and fills up with, says how long it is.
                if delta == 0 {
                    return Step::Bad("it is empty, but more is there");
                }
                let len = (second as usize).saturating_add(3) & !3;
                if len > room - 4 {
                    // What fills a sub-buffer up has a delta of 1 and was seen with a length beyond the end: nothing is behind it.
                    // What was discarded was a record, which fits.
                    if delta > 1 {
                        return Step::Bad("it is padding that reaches past the end of the data");
                    }
                    self.ts = self.ts.wrapping_add(delta);
                    self.pos = self.end;
                    return Step::Padding { delta };
                }
                self.pos += 4 + len;
                self.ts = self.ts.wrapping_add(delta);
                Step::Padding { delta }
            }
        }
    }

    /// Whether behind the time at `pos` stands another.
    fn time_follows<const BE: bool>(&self, data: &[u8]) -> bool {
        let at = self.pos + 8;
        let head = word::<BE>(data, at);
        let type_len = if BE { head >> TS_SHIFT } else { head & 31 };
        at + 8 <= self.end && type_len >= RINGBUF_TYPE_TIME_EXTEND
    }

    fn rest_is_empty(&mut self) -> Step {
        self.pos = self.end;
        Step::Padding { delta: 0 }
    }

    /// One item in the format of kernels before 2.6.31.
    pub fn old_step(&mut self, data: &[u8], endian: Endian) -> Step {
        let room = self.end.saturating_sub(self.pos);
        if room < 4 {
            return Step::End;
        }
        let words = |at| match endian {
            Endian::Little => word::<false>(data, at),
            Endian::Big => word::<true>(data, at),
        };
        let head = words(self.pos);
        let (kind, len, delta) = match endian {
            Endian::Little => (head & 3, head >> 2 & 7, head >> 5),
            Endian::Big => (head >> 30, head >> 27 & 7, head & ((1 << TS_SHIFT) - 1)),
        };
        let delta = u64::from(delta);
        match kind {
            0 => self.rest_is_empty(),
            1 if room >= 8 => {
                let delta = delta.wrapping_add(u64::from(words(self.pos + 4)) << TS_SHIFT);
                self.pos += 8;
                self.ts = self.ts.wrapping_add(delta);
                Step::TimeExtend { delta }
            }
            2 if room >= 16 => {
                self.pos += 16;
                Step::TimeStamp { delta: 0 }
            }
            3 => {
                let (start, len) = match len {
                    0 if room >= 8 => (self.pos + 8, (words(self.pos + 4) as usize).saturating_add(3) & !3),
                    n => (self.pos + 4, n as usize * 4),
                };
                if len == 0 || len > self.end.saturating_sub(start) {
                    return Step::Bad("its length is not possible");
                }
                self.pos = start + len;
                self.ts = self.ts.wrapping_add(delta);
                Step::Event { start, len, delta }
            }
            _ => Step::Bad("it has no second word"),
        }
    }

    /// The next event, in the format of kernels before 2.6.31.
    pub fn old_event(&mut self, data: &[u8], endian: Endian) -> Step {
        loop {
            match self.old_step(data, endian) {
                Step::Padding { .. } | Step::TimeExtend { .. } | Step::TimeStamp { .. } => {}
                step => return step,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LE64: SubBufLayout = SubBufLayout {
        endian: Endian::Little,
        commit_size: LongSize::Eight,
        data_offset: 16,
        size: 4096,
        old_format: false,
    };

    /// A sub-buffer with this time, commit flags and record words.
    fn subbuf(endian: Endian, ts: u64, flags: u64, words: &[u32]) -> Vec<u8> {
        let mut d = endian.from_u64(ts).to_vec();
        d.extend(endian.from_u64(flags | (words.len() as u64 * 4)));
        for w in words {
            d.extend(endian.from_u32(*w));
        }
        d
    }

    /// A record header word.
    fn head(endian: Endian, type_len: u32, delta: u32) -> u32 {
        match endian {
            Endian::Little => type_len | delta << 5,
            Endian::Big => type_len << 27 | delta,
        }
    }

    #[test]
    fn every_kind_of_item_in_both_orders() {
        for endian in [Endian::Little, Endian::Big] {
            let layout = SubBufLayout { endian, ..LE64 };
            let h = |t, d| head(endian, t, d);
            let d = subbuf(
                endian,
                1000,
                0,
                &[
                    h(1, 5),
                    0xaaaa, // event of 4 bytes, 5 ns later
                    h(30, 3),
                    2, // time extend: 3 + (2 << 27)
                    h(0, 1),
                    8,
                    0xbbbb, // event with its length in the next word: 4 bytes
                    h(29, 7),
                    8,
                    0, // discarded record of 8 bytes
                    h(31, 11),
                    4, // absolute time: 11 + (4 << 27)
                    h(2, 0),
                    1,
                    2,        // event of 8 bytes
                    h(29, 0), // rest is empty
                ],
            );
            let items: Vec<_> = layout.items(&d, 0).unwrap().map(|i| i.unwrap()).collect();
            let kinds: Vec<_> = items.iter().map(|i| (i.kind, i.ts, i.data.len())).collect();
            let extended = 1005 + 3 + (2 << 27);
            let absolute = 11 + (4 << 27);
            assert_eq!(
                kinds,
                [
                    (ItemKind::Event, 1005, 4),
                    (ItemKind::TimeExtend, extended, 0),
                    (ItemKind::Event, extended + 1, 4),
                    (ItemKind::Padding, extended + 8, 0),
                    (ItemKind::TimeStamp, absolute, 0),
                    (ItemKind::Event, absolute, 8),
                    (ItemKind::Padding, absolute, 0),
                ]
            );
        }
    }

    #[test]
    fn upper_bits_of_absolute_times_come_from_the_time_before() {
        let d = subbuf(Endian::Little, 0xf800_0000_0000_0001, 0, &[31 | 1 << 5, 1, 1, 0]);
        let items: Vec<_> = LE64.items(&d, 0).unwrap().map(|i| i.unwrap().ts).collect();
        assert_eq!(items, [0xf800_0000_0800_0001; 2]);
    }

    #[test]
    fn lost_events() {
        let mut d = subbuf(Endian::Little, 0, RB_MISSED_EVENTS, &[1, 0]);
        assert_eq!(LE64.header(&d, 0).unwrap().lost, Lost::Unknown);
        d = subbuf(Endian::Little, 0, RB_MISSED_EVENTS | RB_MISSED_STORED, &[1, 0]);
        d.extend(77u64.to_le_bytes());
        assert_eq!(LE64.header(&d, 0).unwrap(), SubBufHeader { ts: 0, commit: 8, lost: Lost::Count(77) });
    }

    #[test]
    fn damage_is_named() {
        let mut d = subbuf(Endian::Little, 0, 0, &[1, 0, 28, 0]);
        let last = LE64.items(&d, 0x1000).unwrap().last().unwrap().unwrap_err();
        assert_eq!(last.to_string(), "record at 0x18 of the sub-buffer at 0x1000: it reaches past the end of the data");
        // Padding, where records may follow: without a length, and with one that reaches too far.
        for (words, why) in [
            (&[1, 0, 29, 8, 0, 1, 0][..], "it is empty, but more is there"),
            (&[1, 0, 29 | 2 << 5, 17, 0, 0, 0], "it is padding that reaches past the end of the data"),
            (&[1, 0, 30 | 2 << 5, 0, 31, 0], "it is a time before another time"),
            (&[1, 0, u32::MAX, u32::MAX, u32::MAX, u32::MAX], "it is a time before another time"),
        ] {
            let d = subbuf(Endian::Little, 0, 0, words);
            let last = LE64.items(&d, 0x1000).unwrap().last().unwrap().unwrap_err();
            assert_eq!(last.to_string(), format!("record at 0x18 of the sub-buffer at 0x1000: {why}"));
        }
        d[8..16].copy_from_slice(&17u64.to_le_bytes());
        assert!(matches!(LE64.header(&d, 0), Err(Error::Commit { commit: 17, room: 16, .. })));
        assert!(matches!(LE64.header(&d[..15], 0), Err(Error::Truncated { .. })));
        for n in 0..64u32 {
            let d = subbuf(Endian::Little, 0, 0, &[n, n << 3]);
            assert!(LE64.items(&d, 0).unwrap().count() <= 2);
        }
    }

    #[test]
    fn old_records() {
        let layout = SubBufLayout { old_format: true, ..LE64 };
        let d = subbuf(
            Endian::Little,
            100,
            0,
            &[
                3 | 1 << 2 | 5 << 5,
                0xaa, // data of 4 bytes, 5 ns later
                1 | 6 << 5,
                1, // time extend: 6 + (1 << 27)
                3 | 1 << 5,
                8,
                1,
                2, // data with its length in the next word
                0, // padding to the end
            ],
        );
        let items: Vec<_> = layout.items(&d, 0).unwrap().map(|i| i.unwrap()).map(|i| (i.ts, i.data.len())).collect();
        let t = 111 + (1 << 27);
        assert_eq!(items, [(105, 4), (t, 0), (t + 1, 8), (t + 1, 0)]);
    }
}
