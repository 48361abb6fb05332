//! The records of one CPU, one after the other.

mod back;

use std::sync::Arc;

use crate::{
    Endian, Error,
    ring::{
        block::{Block, Pool},
        feed::{Chunk, Data, Feed, Unit},
        record::{Lost, Record},
        subbuf::{Items, RINGBUF_TYPE_DATA_LEN_MAX, Step, SubBufHeader, SubBufLayout, Walk},
    },
    warning::{Place, Warnings},
};

/// The record a stream stands at, without its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Head {
    pub ts: u64,
    pub start: u32,
    pub len: u32,
    pub lost: Lost,
}

/// What was lost, which is told once; nearly always nothing.
#[inline(always)]
fn take_lost(lost: &mut Lost) -> Lost {
    if *lost == Lost::None { Lost::None } else { std::mem::take(lost) }
}

/// A record and the block its bytes lie in.
#[derive(Clone, Copy, Debug)]
pub struct StreamRecord<'a> {
    // Not a copy: what was just written field by field cannot be read as a whole before it is in the cache.
    pub(crate) head: &'a Head,
    pub(crate) block: &'a Arc<Block>,
    pub(crate) cpu: u32,
    pub(crate) subbuf: u32,
}

impl<'a> StreamRecord<'a> {
    /// The record.
    #[inline(always)]
    pub fn record(&self) -> Record<'a> {
        let (start, len) = (self.head.start as usize, self.head.len as usize);
        Record {
            ts: self.head.ts,
            cpu: self.cpu,
            lost: self.head.lost,
            data: self.block.data().get(start..start + len).unwrap_or_default(),
            offset: self.block.base().wrapping_add(start as u64),
        }
    }

    /// The record's bytes with what lies behind them in its block: the rest of the sub-buffer, then the next ones.
    #[inline]
    pub fn reach(&self) -> &'a [u8] {
        self.block.data().get(self.head.start as usize..).unwrap_or_default()
    }

    /// The block; a clone of it keeps the record's bytes alive.
    #[inline(always)]
    pub fn block(&self) -> &'a Arc<Block> {
        self.block
    }

    /// Where the record's bytes begin in the block.
    #[inline(always)]
    pub fn start(&self) -> usize {
        self.head.start as usize
    }

    /// Where the record's sub-buffer begins in the block.
    #[inline(always)]
    pub fn subbuf_start(&self) -> usize {
        self.subbuf as usize
    }

    /// Where the record's sub-buffer begins: in the file, or for compressed data in the unpacked data of the CPU.
    pub fn subbuf_offset(&self) -> u64 {
        self.block.base().wrapping_add(self.subbuf.into())
    }
}

/// A whole sub-buffer, as it is stored.
#[derive(Clone, Copy, Debug)]
pub struct SubBuf<'a> {
    /// Its bytes, header included; fewer than a sub-buffer has where the data end.
    pub data: &'a [u8],
    /// Where it lies: in the file, or for compressed data in the unpacked data of the CPU.
    pub offset: u64,
}

/// Records of one sub-buffer, one behind the other (see [`CpuStream::run`]).
#[derive(Debug)]
pub(crate) struct StreamRun<'a> {
    data: &'a [u8],
    end: usize,
    base: u64,
    pub cpu: u32,
    walk: &'a mut Walk,
    pub head: &'a mut Head,
}

impl<'a> StreamRun<'a> {
    /// The record with this head.
    #[inline(always)]
    pub fn record(&self, head: &Head) -> Record<'a> {
        let start = head.start as usize;
        let data = self.data.get(start..start + head.len as usize).unwrap_or_default();
        Record { ts: head.ts, cpu: self.cpu, lost: Lost::None, data, offset: self.base.wrapping_add(start as u64) }
    }

    /// The head of the record behind this one, if nothing else stands between them.
    #[inline(always)]
    pub fn behind(&self, head: &Head) -> Option<Head> {
        let pos = (head.start + head.len) as usize;
        let word = u32::from_le_bytes(*self.data.get(pos..)?.first_chunk()?);
        let words = word & 31;
        let len = words * 4;
        let fits = pos + 4 + len as usize <= self.end;
        if !fits || words.wrapping_sub(1) >= RINGBUF_TYPE_DATA_LEN_MAX {
            return None;
        }
        Some(Head { ts: head.ts.wrapping_add(u64::from(word >> 5)), start: pos as u32 + 4, len, lost: Lost::None })
    }

    /// Has the stream stand at this record.
    #[inline(always)]
    pub fn stand_at(self, head: &Head) {
        *self.head = *head;
        self.walk.pos = (head.start + head.len) as usize;
        self.walk.ts = head.ts;
    }
}

/// Where a stream stands, to go back to.
#[derive(Clone, Debug)]
pub(crate) struct Position {
    next: Unit,
    block: Option<Arc<Block>>,
    subbuf: usize,
    subbuf_end: usize,
    walk: Walk,
    lost: Lost,
    cut: bool,
    head: Option<Head>,
}

/// The records of one CPU of one buffer.
///
/// Damage is told to the file's warnings and costs only the sub-buffer or chunk that has it.
#[derive(Debug)]
pub struct CpuStream {
    feed: Feed,
    layout: SubBufLayout,
    buffer: Arc<str>,
    cpu: u32,
    warnings: Warnings,
    /// The unit that is loaded next.
    next: Unit,
    block: Option<Arc<Block>>,
    /// Where the present sub-buffer begins and ends in the block.
    subbuf: usize,
    subbuf_end: usize,
    walk: Walk,
    lost: Lost,
    /// The present sub-buffer was cut off, which was told already.
    cut: bool,
    /// Empty sub-buffers that were passed: the place of the first, and how many.
    empty: Option<(u64, u64)>,
    /// Some sub-buffer had a record.
    any_filled: bool,
    head: Option<Head>,
    subbufs_done: u64,
    /// Whether the present block had no records so far.
    blank: bool,
    /// The records of a sub-buffer, for the way back.
    index: back::Index,
}

impl CpuStream {
    pub(crate) fn new(feed: Feed, layout: SubBufLayout, buffer: Arc<str>, cpu: u32) -> CpuStream {
        CpuStream {
            warnings: feed.shared.warnings.clone(),
            feed,
            layout,
            buffer,
            cpu,
            next: Unit::default(),
            block: None,
            subbuf: 0,
            subbuf_end: 0,
            walk: Walk::default(),
            lost: Lost::None,
            cut: false,
            empty: None,
            any_filled: false,
            head: None,
            subbufs_done: 0,
            blank: false,
            index: back::Index::default(),
        }
    }

    /// The CPU.
    pub fn cpu(&self) -> u32 {
        self.cpu
    }

    /// Name of the buffer, empty for the top one.
    pub fn buffer(&self) -> &str {
        &self.buffer
    }

    /// Has blocks take their memory from this pool.
    pub(crate) fn set_pool(&mut self, pool: &Arc<Pool>) {
        self.feed.pool = pool.clone();
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.feed.pool
    }

    /// Spares the search for chunks of compressed data that a stream of the same data has found already.
    pub(crate) fn share_chunks(&mut self, other: &CpuStream) {
        self.feed.share_chunks(&other.feed);
    }

    /// Has damage told to another list than the file's; the list before.
    pub fn set_warnings(&mut self, warnings: &Warnings) -> Warnings {
        std::mem::replace(&mut self.warnings, warnings.clone())
    }

    /// How the sub-buffers are laid out.
    pub fn layout(&self) -> SubBufLayout {
        self.layout
    }

    fn warn(&self, offset: Option<u64>, subbuf: Option<u64>, error: Error, lost: &str) {
        let place = Place { offset, buffer: Some(self.buffer.to_string()), cpu: Some(self.cpu), subbuf };
        self.warnings.push(place, error, lost);
    }

    /// Goes to the next record. False at the end.
    #[inline]
    pub fn advance(&mut self) -> bool {
        loop {
            if let Some(block) = &self.block {
                let data = block.data();
                let step = if self.layout.old_format {
                    self.walk.old_event(data, self.layout.endian)
                } else {
                    match self.layout.endian {
                        Endian::Little => self.walk.event::<false>(data),
                        Endian::Big => self.walk.event::<true>(data),
                    }
                };
                match step {
                    Step::Event { start, len, .. } => {
                        let lost = take_lost(&mut self.lost);
                        self.head = Some(Head { ts: self.walk.ts, start: start as u32, len: len as u32, lost });
                        return true;
                    }
                    Step::Bad(why) => self.bad_record(why),
                    _ => {}
                }
            }
            if !self.next_filled() {
                self.head = None;
                return false;
            }
        }
    }

    #[cold]
    fn warn_empty(&mut self, offset: u64, value: u64) {
        let why = "without a record between others that have some";
        let error = Error::BadValue { what: "empty sub-buffers", offset, value, why };
        let index = self.subbuf_index(offset);
        self.warn(self.file_offset(offset), index, error, "what was in them");
        if self.lost == Lost::None {
            self.lost = Lost::Unknown;
        }
    }

    #[cold]
    fn bad_record(&mut self, why: &'static str) {
        if std::mem::take(&mut self.cut) {
            return;
        }
        let offset = self.block.as_ref().map_or(0, |b| b.base()).wrapping_add(self.subbuf as u64);
        let at = self.walk.pos.saturating_sub(self.subbuf) as u64;
        let error = Error::Record { offset, at, why };
        let index = self.subbuf_index(offset);
        self.warn(self.file_offset(offset), index, error, "the rest of this sub-buffer");
    }

    /// Number of the sub-buffer at this place.
    fn subbuf_index(&self, offset: u64) -> Option<u64> {
        let start = match &self.feed.data {
            Data::Plain { offset, .. } => *offset,
            Data::Packed(_) => 0,
        };
        offset.checked_sub(start)?.checked_div(self.layout.size as u64)
    }

    /// The place in the file, where it can be told without unpacking.
    fn file_offset(&self, offset: u64) -> Option<u64> {
        match &self.feed.data {
            Data::Plain { .. } => Some(offset),
            Data::Packed(table) => {
                let i = table.find(&self.feed.shared, offset).ok().flatten()?;
                Some(table.get(&self.feed.shared, i).ok().flatten()?.offset)
            }
        }
    }

    /// Goes to the next sub-buffer that can be walked. False at the end.
    fn next_filled(&mut self) -> bool {
        while self.next_raw() {
            if self.enter_present(false) {
                self.note_empty();
                return true;
            }
        }
        if !self.any_filled
            && let Some((offset, value)) = self.empty.take()
        {
            let why = "without a record, and nothing else of this CPU";
            let error = Error::BadValue { what: "empty sub-buffers", offset, value, why };
            self.warn(self.file_offset(offset), self.subbuf_index(offset), error, "all events of this CPU");
        }
        false
    }

    /// Tells when empty sub-buffers stood before the present one.
    #[inline]
    fn note_empty(&mut self) {
        let is_empty = self.walk.pos >= self.walk.end;
        if is_empty {
            // The kernel gives no empty sub-buffers; those at the end only fill up.
            let here = self.block.as_ref().map_or(0, |b| b.base()).wrapping_add(self.subbuf as u64);
            self.empty.get_or_insert((here, 0)).1 += 1;
            return;
        }
        self.any_filled = true;
        if let Some((offset, count)) = self.empty.take() {
            self.warn_empty(offset, count);
        }
    }

    /// Begins to walk the present sub-buffer. False when it is damaged, which is told unless it is `known`.
    fn enter_present(&mut self, known: bool) -> bool {
        let Some(block) = &self.block else { return false };
        let data = block.data().get(self.subbuf..self.subbuf_end).unwrap_or_default();
        let offset = block.base().wrapping_add(self.subbuf as u64);
        let error = match self.layout.header(data, offset) {
            Ok(header) => {
                self.enter(&header);
                self.cut = known;
                return true;
            }
            Err(error) => error,
        };
        // Where the data were cut off, the records that are whole count.
        let room = data.len().saturating_sub(self.layout.data_offset);
        let cut = match &error {
            // A commit that no sub-buffer has says nothing about what is there.
            Error::Commit { commit, .. }
                if data.len() < self.layout.size
                    && room > 0
                    && *commit <= (self.layout.size - self.layout.data_offset) as u64 =>
            {
                self.layout.endian.uint(data, 0, 8)
            }
            _ => None,
        };
        if !known {
            let index = self.subbuf_index(offset);
            let lost = if cut.is_some() { "the end of this sub-buffer" } else { "this sub-buffer" };
            self.warn(self.file_offset(offset), index, error, lost);
        }
        let Some(ts) = cut else { return false };
        self.enter(&SubBufHeader { ts, commit: room, lost: Lost::None });
        self.cut = true;
        true
    }

    /// The next record of the present sub-buffer; `None` at its end, and at damage, which is told.
    fn step_within(&mut self) -> Option<Head> {
        let data = self.block.as_ref()?.data();
        let step = match (self.layout.old_format, self.layout.endian) {
            (true, endian) => self.walk.old_event(data, endian),
            (false, Endian::Little) => self.walk.event::<false>(data),
            (false, Endian::Big) => self.walk.event::<true>(data),
        };
        match step {
            Step::Event { start, len, .. } => {
                let lost = take_lost(&mut self.lost);
                Some(Head { ts: self.walk.ts, start: start as u32, len: len as u32, lost })
            }
            Step::Bad(why) => {
                self.bad_record(why);
                None
            }
            _ => None,
        }
    }

    fn enter(&mut self, header: &SubBufHeader) {
        self.blank &= header.commit == 0;
        self.cut = false;
        self.walk = Walk::new(&self.layout, header);
        self.walk.pos += self.subbuf;
        self.walk.end += self.subbuf;
        if header.lost != Lost::None {
            self.lost = header.lost;
        }
    }

    /// Passes over a hole of the file; its sub-buffers count as empty ones.
    #[cold]
    fn pass_hole(&mut self) {
        let (next, place) = self.feed.behind_hole(self.next);
        let passed = next.index.saturating_sub(self.next.index);
        if let (1.., Some(place)) = (passed, place) {
            self.empty.get_or_insert((place, 0)).1 += passed * (self.feed.window / self.feed.subbuf_size.max(1)) as u64;
            self.next = next;
        }
    }

    /// Goes to the next sub-buffer, whatever is in it. False at the end.
    fn next_raw(&mut self) -> bool {
        self.walk = Walk::default();
        loop {
            if let Some(block) = &self.block {
                let len = block.data().len();
                if self.subbuf_end < len {
                    self.subbuf = self.subbuf_end;
                    self.subbuf_end = self.subbuf.saturating_add(self.layout.size).min(len);
                    self.subbufs_done += 1;
                    return true;
                }
                self.block = None;
            }
            if std::mem::replace(&mut self.blank, true) {
                // Nothing in the last block: it may have been the start of a hole.
                self.pass_hole();
            }
            let unit = self.next;
            match self.feed.load(unit) {
                Ok(None) => return false,
                Ok(Some(block)) => {
                    self.next = self.feed.after(unit);
                    self.block = Some(block);
                }
                Err(error) => {
                    self.next = self.feed.after(unit);
                    let lost = match self.feed.data {
                        Data::Plain { .. } => "these sub-buffers",
                        Data::Packed(_) if self.feed.is_known_end(self.next) => "the rest of this CPU",
                        Data::Packed(_) => "this chunk",
                    };
                    self.warn(None, None, error, lost);
                }
            }
            self.subbuf = 0;
            self.subbuf_end = 0;
        }
    }

    /// The record the stream stands at: the one that the last [`CpuStream::advance`] went to.
    #[inline(always)]
    pub fn current(&self) -> Option<StreamRecord<'_>> {
        let (Some(head), Some(block)) = (&self.head, &self.block) else { return None };
        Some(StreamRecord { head, block, cpu: self.cpu, subbuf: self.subbuf as u32 })
    }

    #[inline(always)]
    pub(crate) fn head_ts(&self) -> Option<u64> {
        self.head.as_ref().map(|h| h.ts)
    }

    /// The present record and those behind it in its sub-buffer, without a look at other streams. `None` where records are not of the
    /// usual kind, or something was lost before this one.
    #[inline(always)]
    pub(crate) fn run(&mut self) -> Option<StreamRun<'_>> {
        let (Some(head), Some(block)) = (&mut self.head, &self.block) else { return None };
        let usual = self.layout.endian == Endian::Little && !self.layout.old_format;
        if !usual || head.lost != Lost::None || self.lost != Lost::None {
            return None;
        }
        let end = self.walk.end;
        Some(StreamRun { data: block.data(), end, base: block.base(), cpu: self.cpu, walk: &mut self.walk, head })
    }

    /// Goes to the next record and gives it; `None` at the end.
    #[inline]
    pub fn next_record(&mut self) -> Option<Record<'_>> {
        if !self.advance() {
            return None;
        }
        self.current().map(|r| r.record())
    }

    /// Goes to the next sub-buffer and gives it whole, damaged or not; `None` at the end.
    ///
    /// The next call of [`CpuStream::advance`] goes to the first record of this sub-buffer.
    pub fn next_subbuf(&mut self) -> Option<SubBuf<'_>> {
        self.head = None;
        if !self.next_raw() {
            return None;
        }
        let block = self.block.as_ref()?;
        let data = block.data().get(self.subbuf..self.subbuf_end).unwrap_or_default();
        let offset = block.base().wrapping_add(self.subbuf as u64);
        if let Ok(header) = self.layout.header(data, offset) {
            self.walk = Walk::new(&self.layout, &header);
            self.walk.pos += self.subbuf;
            self.walk.end += self.subbuf;
            self.lost = header.lost;
        }
        Some(SubBuf { data, offset })
    }

    /// The sub-buffer of the present record.
    pub fn current_subbuf(&self) -> Option<SubBuf<'_>> {
        let block = self.block.as_ref()?;
        let data = block.data().get(self.subbuf..self.subbuf_end)?;
        Some(SubBuf { data, offset: block.base().wrapping_add(self.subbuf as u64) })
    }

    /// A walk over everything in the sub-buffer of the present record, also padding and time extends.
    pub fn current_items(&self) -> Option<Items<'_>> {
        let s = self.current_subbuf()?;
        self.layout.items(s.data, s.offset).ok()
    }

    /// The chunks of compressed data, to be copied without unpacking; `None` for data that are not compressed.
    pub fn chunks(&self) -> Option<impl Iterator<Item = crate::Result<Chunk>> + '_> {
        let Data::Packed(table) = &self.feed.data else { return None };
        let table = table.clone();
        let mut index = 0;
        Some(std::iter::from_fn(move || {
            let chunk = table.get(&self.feed.shared, index).transpose();
            index += 1;
            chunk
        }))
    }

    pub(crate) fn save(&self) -> Position {
        Position {
            next: self.next,
            block: self.block.clone(),
            subbuf: self.subbuf,
            subbuf_end: self.subbuf_end,
            walk: self.walk,
            lost: self.lost,
            cut: self.cut,
            head: self.head,
        }
    }

    pub(crate) fn restore(&mut self, p: Position) {
        self.go_to(p.next);
        self.block = p.block;
        self.subbuf = p.subbuf;
        self.subbuf_end = p.subbuf_end;
        self.walk = p.walk;
        self.lost = p.lost;
        self.cut = p.cut;
        self.head = p.head;
    }

    /// Goes back to the start, before the first record.
    pub fn rewind(&mut self) {
        self.go_to(Unit::default());
    }

    fn go_to(&mut self, unit: Unit) {
        self.feed.reset();
        self.next = unit;
        self.block = None;
        self.subbuf = 0;
        self.subbuf_end = 0;
        self.walk = Walk::default();
        self.lost = Lost::None;
        self.empty = None;
        self.head = None;
        self.blank = false;
    }

    /// Goes to the first record that is not before `ts` (time as stored). False when there is none.
    ///
    /// The sub-buffer is found by the times in sub-buffer headers: of uncompressed data some headers are read, of compressed
    /// data the first bytes of some chunks are unpacked.
    pub fn seek(&mut self, ts: u64) -> bool {
        // The last probe that begins before ts (others may begin at ts too: coarse clocks); those with nothing in them are passed over.
        let (mut low, mut high) = (0, self.feed.probes());
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            let mut found = None;
            let mut at = middle;
            let mut left = 64;
            while at < high && left > 0 {
                found = self.probe(at);
                if found.is_some() {
                    break;
                }
                left -= 1;
                at = self.feed.probe_behind_hole(at + 1);
            }
            match found {
                Some(t) if t < ts => low = at.min(high - 1),
                _ => high = middle,
            }
        }
        self.seek_from(low, ts)
    }

    /// Goes to the first record from the piece `index` on that is not before `ts`. False when there is none.
    pub(crate) fn seek_from(&mut self, index: u64, ts: u64) -> bool {
        self.go_to_probe(index);
        // Within a block whole sub-buffers are passed over by their headers.
        self.skip_subbufs(ts);
        while self.advance() {
            if self.head.is_some_and(|h| h.ts >= ts) {
                return true;
            }
        }
        false
    }

    /// As [`CpuStream::seek_from`] for a stream of which another one has seen, and told, what lies before.
    pub(crate) fn seek_between(&mut self, index: u64, ts: u64) -> bool {
        let found = self.seek_from(index, ts);
        self.any_filled = true;
        found
    }

    /// Goes to the record at `offset`, which lies behind the start of the piece `index`; behind the last record when there is none.
    pub(crate) fn go_to_place(&mut self, index: u64, offset: u64) {
        self.go_to_probe(index);
        self.any_filled = true;
        while self.advance() && self.current().is_some_and(|r| r.record().offset != offset) {}
    }

    /// Goes to before the sub-buffer (plain data) or chunk (compressed) of this number.
    fn go_to_probe(&mut self, index: u64) {
        match &self.feed.data {
            Data::Packed(_) => self.go_to(Unit { index, part: 0 }),
            Data::Plain { .. } => {
                let per_window = (self.feed.window / self.layout.size.max(1)).max(1) as u64;
                let skip = (index % per_window) as usize * self.layout.size;
                self.go_to(Unit { index: index / per_window, part: 0 });
                if skip > 0
                    && let Ok(Some(block)) = self.feed.load(self.next)
                {
                    self.next = self.feed.after(self.next);
                    self.subbuf = skip.min(block.data().len());
                    self.subbuf_end = self.subbuf;
                    self.block = Some(block);
                }
            }
        }
    }

    /// Time of the header of a probe if there are records behind it.
    fn probe(&self, index: u64) -> Option<u64> {
        let mut b = [0; 16];
        let n = self.feed.probe(index, &mut b).ok()?;
        let b = b.get(..n)?;
        let endian = self.layout.endian;
        let ts = endian.uint(b, 0, 8)?;
        let commit = endian.uint(b, 8, self.layout.commit_size.bytes())? & ((1 << 27) - 1);
        let room = self.layout.size.saturating_sub(self.layout.data_offset) as u64;
        (commit > 0 && commit <= room).then_some(ts)
    }

    /// Passes over sub-buffers as long as the next one begins before `ts`.
    fn skip_subbufs(&mut self, ts: u64) {
        loop {
            let Some(block) = &self.block else {
                if !self.next_filled() {
                    return;
                }
                continue;
            };
            let next = block.data().get(self.subbuf_end..).unwrap_or_default();
            let whole = next.get(..self.layout.size).unwrap_or(next);
            match self.layout.header(whole, 0) {
                Ok(h) if h.commit > 0 && h.ts < ts => {
                    self.subbuf = self.subbuf_end;
                    self.subbuf_end = (self.subbuf + self.layout.size).min(block.data().len());
                    self.enter(&h);
                }
                _ => return,
            }
        }
    }

    /// Time of the first record, as stored. The stream is at its start afterwards.
    pub fn first_ts(&mut self) -> Option<u64> {
        self.rewind();
        let ts = if self.advance() { self.head_ts() } else { None };
        self.rewind();
        ts
    }

    /// Time of the last record, as stored, found from the end of the data. The stream is at its start afterwards.
    pub fn last_ts(&mut self) -> Option<u64> {
        let mut index = self.feed.probes();
        let mut last = None;
        while index > 0 && last.is_none() {
            index -= 1;
            self.go_to_probe(index);
            while self.advance() {
                last = self.head_ts();
            }
        }
        self.rewind();
        last
    }

    /// Bytes of the CPU's data in the file that were loaded so far, to show progress.
    pub fn consumed(&self) -> u64 {
        match &self.feed.data {
            Data::Plain { size, .. } => self.next.index.saturating_mul(self.feed.window as u64).min(*size),
            Data::Packed(table) => table.consumed(self.next.index),
        }
    }

    /// How many pieces can be told apart by time without reading all data: sub-buffers, or chunks of compressed data.
    pub fn pieces(&self) -> u64 {
        self.feed.probes()
    }

    /// About how many bytes a piece has (see [`CpuStream::pieces`]), unpacked.
    pub fn piece_len(&self) -> u64 {
        match &self.feed.data {
            Data::Plain { .. } => self.layout.size as u64,
            Data::Packed(table) => table.mean_len(),
        }
    }

    /// About how many bytes there are in all, unpacked.
    pub fn unpacked_len(&self) -> u64 {
        self.pieces().saturating_mul(self.piece_len())
    }

    /// Time of the header of a piece (see [`CpuStream::pieces`]), `None` when it has no records or is damaged.
    pub fn piece_ts(&self, index: u64) -> Option<u64> {
        self.probe(index)
    }

    /// Goes to before the first record of a piece (see [`CpuStream::pieces`]).
    pub fn go_to_piece(&mut self, index: u64) {
        self.go_to_probe(index);
    }

    /// Number of the records of a piece.
    pub fn piece_records(&mut self, index: u64) -> u64 {
        self.go_to_probe(index);
        let mut n = 0;
        let end = match self.feed.data {
            Data::Plain { .. } => 1,
            Data::Packed(_) => u64::MAX,
        };
        let start = self.subbufs_done;
        let unit = self.next.index;
        while self.advance() {
            let outside = match self.feed.data {
                Data::Plain { .. } => self.subbufs_done - start > end,
                Data::Packed(_) => self.next.index > unit + 1 || self.next.index == unit + 1 && self.next.part > 0,
            };
            if outside {
                break;
            }
            n += 1;
        }
        n
    }
}
