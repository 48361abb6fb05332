//! The records of many CPUs in the order of time.

mod back;

use std::{collections::BinaryHeap, sync::Arc};

use crate::{
    ring::{
        block::Block,
        record::Record,
        stream::{CpuStream, Head, StreamRecord, StreamRun},
    },
    time::CpuTime,
    warning::Warnings,
};

/// One CPU that takes part in a [`Merge`].
#[derive(Debug)]
pub struct Input {
    /// Its records.
    pub stream: CpuStream,
    /// Corrects their times.
    pub time: CpuTime,
    /// Any number that tells the caller where the records belong (a file, a buffer).
    pub tag: u32,
}

/// Records that are passed at once, at most.
const MANY: u64 = 1 << 14;
/// Records that are passed one by one rather than trying more.
const FEW: u64 = 1 << 10;

/// A record of a [`Merge`].
#[derive(Clone, Copy, Debug)]
pub struct MergeRecord<'a> {
    /// The record with its block.
    pub stream_record: StreamRecord<'a>,
    /// Corrected time.
    pub ts: u64,
    /// Number of the input it comes from.
    pub input: u32,
    /// The input's tag.
    pub tag: u32,
}

impl<'a> MergeRecord<'a> {
    /// The record, its time as stored.
    #[inline(always)]
    pub fn record(&self) -> Record<'a> {
        self.stream_record.record()
    }
}

/// Records of one input (see [`Merge::run`]). Ends with [`Run::end`]; dropped without, none of them was taken.
#[derive(Debug)]
pub struct Run<'a> {
    stream: StreamRun<'a>,
    time: &'a CpuTime,
    limit: u64,
    key: &'a mut u64,
    handed_out: &'a mut bool,
}

/// A record of a [`Run`].
#[derive(Clone, Copy, Debug)]
pub struct RunRecord<'a> {
    /// The record.
    pub record: Record<'a>,
    /// Corrected time.
    pub ts: u64,
    head: Head,
}

impl<'a> Run<'a> {
    /// The first record.
    #[inline(always)]
    pub fn first(&self) -> RunRecord<'a> {
        let head = *self.stream.head;
        RunRecord { record: self.stream.record(&head), ts: *self.key, head }
    }

    /// The record behind this one; `None` at the end of the run.
    #[inline(always)]
    pub fn behind(&self, record: &RunRecord<'a>) -> Option<RunRecord<'a>> {
        let head = self.stream.behind(&record.head)?;
        let ts = self.time.correct(head.ts);
        (ts < self.limit).then(|| RunRecord { record: self.stream.record(&head), ts, head })
    }

    /// Ends the run behind this record: what follows is the next one of the merge.
    #[inline(always)]
    pub fn end(self, last: &RunRecord<'a>) {
        self.stream.stand_at(&last.head);
        *self.key = last.ts;
        *self.handed_out = true;
    }
}

/// Records of many CPUs by corrected time; equal times in the order of the inputs.
///
/// Costs a comparison or two for a record as long as one CPU is ahead, otherwise the logarithm of the number of CPUs.
#[derive(Debug)]
pub struct Merge {
    inputs: Vec<Input>,
    /// Binary heap, smallest first: corrected time of an input's present record, number of the input.
    heap: Vec<(u64, u32)>,
    /// Whether the first of the heap was handed out, so that its input has to go on first.
    handed_out: bool,
    started: bool,
    /// So many nanoseconds [`Merge::skip`] tries to pass at once.
    stride: u64,
    /// On the way back: corrected time and number of each input's present record.
    back: Option<BinaryHeap<(u64, u32)>>,
}

impl Merge {
    /// A merge of these inputs, in this order for equal times.
    pub fn new(inputs: Vec<Input>) -> Merge {
        Merge {
            heap: Vec::with_capacity(inputs.len()),
            inputs,
            handed_out: false,
            started: false,
            stride: 1 << 16,
            back: None,
        }
    }

    /// The inputs.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// Bytes of all inputs in their files that were loaded so far, to show progress.
    pub fn consumed(&self) -> u64 {
        self.inputs.iter().map(|i| i.stream.consumed()).sum()
    }

    /// The inputs, to move them. The merge begins anew from where they then stand (before their next record).
    pub fn inputs_mut(&mut self) -> &mut [Input] {
        self.started = false;
        self.handed_out = false;
        self.back = None;
        self.heap.clear();
        &mut self.inputs
    }

    /// Also turns round after [`Merge::prev`]: one input stands at the record handed out last, the others before it.
    fn start(&mut self) {
        for input in &mut self.inputs {
            input.stream.advance();
        }
        self.stand();
    }

    /// Begins at the records that the inputs stand at.
    fn stand(&mut self) {
        self.started = true;
        self.back = None;
        self.handed_out = false;
        self.heap.clear();
        for (i, input) in self.inputs.iter().enumerate() {
            if let Some(ts) = input.stream.head_ts() {
                self.heap.push((input.time.correct(ts), i as u32));
            }
        }
        self.heapify();
    }

    fn heapify(&mut self) {
        for i in (0..self.heap.len() / 2).rev() {
            self.sift_down(i);
        }
    }

    fn sift_down(&mut self, mut i: usize) {
        let heap = self.heap.as_mut_slice();
        loop {
            let (left, right) = (2 * i + 1, 2 * i + 2);
            let mut least = i;
            for child in [left, right] {
                if let (Some(c), Some(l)) = (heap.get(child), heap.get(least))
                    && c < l
                {
                    least = child;
                }
            }
            if least == i {
                return;
            }
            heap.swap(i, least);
            i = least;
        }
    }

    /// Moves the input that was handed out last to its next record.
    #[inline]
    fn settle(&mut self) {
        if !self.started {
            self.start();
            return;
        }
        if !self.handed_out {
            return;
        }
        self.handed_out = false;
        let Some(&(_, i)) = self.heap.first() else { return };
        let Some(input) = self.inputs.get_mut(i as usize) else { return };
        let next = if input.stream.advance() { input.stream.head_ts() } else { None };
        match next {
            Some(ts) => {
                let key = (input.time.correct(ts), i);
                if let Some(first) = self.heap.first_mut() {
                    *first = key;
                }
                // The run trick: the same input as long as it is not later than the runner-up.
                let behind = |n: usize| self.heap.get(n).is_some_and(|c| *c < key);
                if behind(1) || behind(2) {
                    self.sift_down(0);
                }
            }
            None => {
                self.heap.swap_remove(0);
                self.sift_down(0);
            }
        }
    }

    #[inline]
    fn first(&self) -> Option<MergeRecord<'_>> {
        let &(ts, i) = self.heap.first()?;
        let input = self.inputs.get(i as usize)?;
        Some(MergeRecord { stream_record: input.stream.current()?, ts, input: i, tag: input.tag })
    }

    /// The next record; `None` at the end.
    #[inline]
    #[expect(clippy::should_implement_trait, reason = "records are lent")]
    pub fn next(&mut self) -> Option<MergeRecord<'_>> {
        self.settle();
        self.handed_out = true;
        self.first()
    }

    /// The record that the next call of [`Merge::next`] gives. What was handed out before is no longer the present record.
    #[inline]
    pub fn peek(&mut self) -> Option<MergeRecord<'_>> {
        self.settle();
        self.first()
    }

    /// The next record and those that follow it in its sub-buffer, as long as they are before the records of all other inputs and before
    /// the corrected time `stop`. `None` where there are none, and where [`Merge::next`] has to be used: at the end, when something was
    /// lost, for sub-buffers that are not in the usual byte order.
    #[inline(always)]
    pub fn run(&mut self, stop: u64) -> Option<Run<'_>> {
        self.settle();
        let (first, others) = self.heap.split_first_mut()?;
        let (ts, i) = *first;
        let mut limit = stop;
        for (other, j) in others.iter().take(2) {
            limit = limit.min(other.saturating_add(u64::from(i < *j)));
        }
        if ts >= limit {
            return None;
        }
        let Input { stream, time, .. } = self.inputs.get_mut(i as usize)?;
        Some(Run { stream: stream.run()?, time, limit, key: &mut first.0, handed_out: &mut self.handed_out })
    }

    /// Passes over at most `n` records, none of them later than `last`; how many. The one behind them is the present record then.
    pub fn skip(&mut self, n: u64, last: u64) -> u64 {
        let mut done = 0;
        let mut stride = self.stride;
        loop {
            self.settle();
            while n - done >= FEW && stride > 0 {
                match self.skip_before(stride, n - done, last) {
                    Some(0) => break,
                    Some(k) => {
                        done += k;
                        stride = if k < MANY / 2 { stride.saturating_mul(2) } else { stride };
                    }
                    None => stride /= 4,
                }
                self.stride = stride.max(FEW);
            }
            // One by one: those before the last.
            for _ in 0..FEW {
                match self.heap.first() {
                    Some(&(ts, _)) if done < n && ts <= last => self.handed_out = true,
                    _ => return done,
                }
                done += 1;
                self.settle();
            }
        }
    }

    /// Passes over the records of the next `stride` nanoseconds, each input by itself, which needs no order between them.
    ///
    /// That gives the same place as one by one would: an input that stands at a record before that time goes first, always.
    /// `None`, and nothing changes, when there are more than `n`.
    fn skip_before(&mut self, stride: u64, n: u64, last: u64) -> Option<u64> {
        let Some(&(first, _)) = self.heap.first() else { return Some(0) };
        let until = first.saturating_add(stride).min(last.saturating_add(1));
        let n = n.min(MANY);
        let mut done = 0;
        let mut from = Vec::with_capacity(self.inputs.len());
        let told = Warnings::default();
        for input in &mut self.inputs {
            from.push((input.stream.save(), input.stream.set_warnings(&told)));
            while done <= n && input.stream.head_ts().is_some_and(|ts| input.time.correct(ts) < until) {
                input.stream.advance();
                done += 1;
            }
        }
        for (input, (place, warnings)) in self.inputs.iter_mut().zip(from) {
            input.stream.set_warnings(&warnings);
            if done > n {
                // What was told of their damage is told again when it is passed.
                input.stream.restore(place);
            } else {
                warnings.append(&told);
            }
        }
        if done > n {
            return None;
        }
        self.stand();
        Some(done)
    }

    /// Has [`Merge::next`] give the record again that it gave last. Only until [`Merge::peek`] is called.
    pub fn untake(&mut self) {
        self.handed_out = false;
    }

    /// Where the next record of each input lies: an offset as that of [`Record::offset`], the largest number at its end.
    ///
    /// Two merges of the same inputs with the same places give the same records from there on.
    pub fn places(&mut self) -> Vec<u64> {
        self.settle();
        let place = |i: &Input| i.stream.current().map_or(u64::MAX, |r| r.record().offset);
        self.inputs.iter().map(place).collect()
    }

    /// As [`Merge::seek`], for a merge of which another one has seen what lies before, with a piece of each input (see [`CpuStream::pieces`]) at or behind whose start the place is to be sought.
    pub fn seek_behind(&mut self, ts: u64, pieces: &[u64]) {
        self.seek_by(ts, |i, stream, stored| stream.seek_between(pieces.get(i).copied().unwrap_or(0), stored));
    }

    /// Goes to before the records at these places (see [`Merge::places`]), which lie at or behind the start of these pieces.
    pub fn go_to_places(&mut self, pieces: &[u64], places: &[u64]) {
        for (i, input) in self.inputs.iter_mut().enumerate() {
            let place = places.get(i).copied().unwrap_or(u64::MAX);
            input.stream.go_to_place(pieces.get(i).copied().unwrap_or(0), place);
        }
        self.stand();
    }

    /// Has the blocks of these inputs use no memory of others', which another thread may fill.
    pub fn use_own_memory(&mut self) {
        let Some(pool) = self.inputs.first().map(|i| i.stream.pool().another()) else { return };
        for input in &mut self.inputs {
            input.stream.set_pool(&pool);
        }
    }

    /// Spares the search for chunks of compressed data that a merge of the same inputs has found already.
    pub fn share_chunks(&mut self, other: &Merge) {
        for (input, other) in self.inputs.iter_mut().zip(&other.inputs) {
            input.stream.share_chunks(&other.stream);
        }
    }

    /// Has damage told to another list than the file's.
    pub fn set_warnings(&mut self, warnings: &Warnings) {
        for input in &mut self.inputs {
            input.stream.set_warnings(warnings);
        }
    }

    /// Goes to the first records whose corrected time is not before `ts`.
    pub fn seek(&mut self, ts: u64) {
        self.seek_by(ts, |_, stream, stored| stream.seek(stored));
    }

    fn seek_by(&mut self, ts: u64, seek: impl Fn(usize, &mut CpuStream, u64) -> bool) {
        for (i, input) in self.inputs.iter_mut().enumerate() {
            let time = &input.time;
            let mut found = seek(i, &mut input.stream, time.stored_before(ts));
            while found && input.stream.head_ts().is_some_and(|t| time.correct(t) < ts) {
                found = input.stream.advance();
            }
        }
        self.stand();
    }

    /// Goes back to the start.
    pub fn rewind(&mut self) {
        for input in self.inputs_mut() {
            input.stream.rewind();
        }
    }

    /// Corrected time of the first record of all.
    pub fn first_ts(&mut self) -> Option<u64> {
        self.rewind();
        let ts = self.peek().map(|r| r.ts);
        self.rewind();
        ts
    }

    /// Corrected time of the last record of all, found from the ends of the CPUs' data.
    pub fn last_ts(&mut self) -> Option<u64> {
        self.inputs_mut().iter_mut().filter_map(|i| i.stream.last_ts().map(|t| i.time.correct(t))).max()
    }

    /// Goes to the last `n` records of all. False when there are not more than `n`: then all of them follow.
    ///
    /// Only sub-buffers (of compressed data: chunks) near the end are read.
    pub fn seek_tail(&mut self, n: u64) -> bool {
        self.rewind();
        // The pieces of all inputs from the latest to the earliest, until those taken have n records.
        let mut heap = BinaryHeap::new();
        for (i, input) in self.inputs.iter().enumerate() {
            push_piece(&mut heap, input, i, input.stream.pieces());
        }
        let (mut have, mut from) = (0u64, None);
        while have < n {
            let Some((ts, i, piece)) = heap.pop() else { break };
            from = Some(ts);
            if let Some(input) = self.inputs.get_mut(i) {
                have = have.saturating_add(input.stream.piece_records(piece));
                push_piece(&mut heap, input, i, piece);
            }
        }
        let more = !heap.is_empty();
        let Some(from) = from.filter(|_| n > 0 && (more || have > n)) else {
            self.rewind();
            return false;
        };
        // What is left in the heap is each input's last piece that begins before; where none is left, all pieces were taken.
        let mut pieces = vec![0; self.inputs.len()];
        for (_, i, piece) in heap {
            if let Some(p) = pieces.get_mut(i) {
                *p = piece;
            }
        }
        let from = if more { from } else { 0 };
        self.seek_by(from, |i, stream, stored| stream.seek_from(pieces.get(i).copied().unwrap_or(0), stored));
        let positions: Vec<_> = self.inputs.iter().map(|i| i.stream.save()).collect();
        let order = self.heap.clone();
        let mut total = 0u64;
        while self.next().is_some() {
            total += 1;
        }
        for (input, position) in self.inputs.iter_mut().zip(positions) {
            input.stream.restore(position);
        }
        (self.heap, self.handed_out) = (order, false);
        for _ in 0..total.saturating_sub(n) {
            self.next();
        }
        true
    }
}

type Piece = (u64, usize, u64);

/// Adds the last piece before `end` that has records.
fn push_piece(heap: &mut BinaryHeap<Piece>, input: &Input, i: usize, end: u64) {
    let found = (0..end).rev().take(4096).find_map(|p| input.stream.piece_ts(p).map(|ts| (ts, p)));
    if let Some((ts, piece)) = found {
        heap.push((input.time.correct(ts), i, piece));
    }
}

/// Records that are handed to another thread together, with the blocks they lie in.
///
/// Holds each block once; nothing of the records is copied.
#[derive(Debug, Default)]
pub struct Batch {
    blocks: Vec<Arc<Block>>,
    /// For each input the number of its last block in `blocks` + 1.
    last: Vec<u32>,
    records: Vec<BatchRecord>,
}

/// A record of a [`Batch`].
#[derive(Clone, Copy, Debug)]
pub struct BatchRecord {
    /// Corrected time.
    pub ts: u64,
    /// Time as stored.
    pub stored_ts: u64,
    /// What was lost before it.
    pub lost: crate::Lost,
    /// Number of its input.
    pub input: u32,
    /// Its input's tag.
    pub tag: u32,
    /// The CPU.
    pub cpu: u32,
    block: u32,
    start: u32,
    len: u32,
    subbuf: u32,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Appends a record.
    #[inline]
    pub fn push(&mut self, r: &MergeRecord<'_>) {
        let s = &r.stream_record;
        let input = r.input as usize;
        if self.last.len() <= input {
            self.last.resize(input + 1, 0);
        }
        let known = self.last.get(input).copied().unwrap_or(0);
        let same = (known as usize).checked_sub(1).and_then(|i| self.blocks.get(i));
        let block = match same {
            Some(b) if Arc::ptr_eq(b, s.block) => known - 1,
            _ => {
                self.blocks.push(s.block.clone());
                let n = self.blocks.len() as u32;
                if let Some(last) = self.last.get_mut(input) {
                    *last = n;
                }
                n - 1
            }
        };
        self.records.push(BatchRecord {
            ts: r.ts,
            stored_ts: s.head.ts,
            lost: s.head.lost,
            input: r.input,
            tag: r.tag,
            cpu: s.cpu,
            block,
            start: s.head.start,
            len: s.head.len,
            subbuf: s.subbuf,
        });
    }

    /// Takes the last record back. Its block stays.
    pub fn pop(&mut self) {
        self.records.pop();
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of the blocks that the batch keeps alive.
    pub fn block_bytes(&self) -> usize {
        self.blocks.iter().map(|b| b.data().len()).sum()
    }

    /// Number of blocks that the batch keeps alive.
    pub fn block_count(&self) -> usize {
        self.blocks.len()
    }

    /// The record with this number and its place.
    #[inline]
    pub fn get(&self, index: usize) -> Option<(&BatchRecord, Record<'_>)> {
        let b = self.records.get(index)?;
        Some((b, self.record(b)))
    }

    /// All records.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&BatchRecord, Record<'_>)> {
        self.records.iter().map(|b| (b, self.record(b)))
    }

    /// The bytes of a record of this batch.
    #[inline(always)]
    pub fn record(&self, b: &BatchRecord) -> Record<'_> {
        let (data, base) = match self.blocks.get(b.block as usize) {
            Some(block) => (block.data(), block.base()),
            None => (&[][..], 0),
        };
        let (start, len) = (b.start as usize, b.len as usize);
        Record {
            ts: b.stored_ts,
            cpu: b.cpu,
            lost: b.lost,
            data: data.get(start..start + len).unwrap_or_default(),
            offset: base.wrapping_add(b.start.into()),
        }
    }

    /// A record's bytes with what lies behind them in its block: the rest of the sub-buffer, then the next ones.
    #[inline(always)]
    pub fn reach(&self, b: &BatchRecord) -> &[u8] {
        let block = self.blocks.get(b.block as usize);
        block.and_then(|block| block.data().get(b.start as usize..)).unwrap_or_default()
    }

    /// Where a record's sub-buffer begins: in the file, or for compressed data in the unpacked data of the CPU.
    pub fn subbuf_offset(&self, b: &BatchRecord) -> u64 {
        self.blocks.get(b.block as usize).map_or(0, |block| block.base().wrapping_add(b.subbuf.into()))
    }

    /// A record's sub-buffer and what follows it in its block; to be walked by [`crate::ring::subbuf::SubBufLayout::items`].
    pub fn subbuf(&self, b: &BatchRecord, size: usize) -> &[u8] {
        let data = self.blocks.get(b.block as usize).and_then(|block| block.data().get(b.subbuf as usize..));
        data.map(|d| d.get(..size).unwrap_or(d)).unwrap_or_default()
    }

    /// Lets go of all records and blocks; keeps memory for the next ones.
    pub fn clear(&mut self) {
        self.blocks.clear();
        self.last.clear();
        self.records.clear();
    }
}
