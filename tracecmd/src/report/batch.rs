//! Some thousand records on their way to be printed.

use trace_dat::{
    Lost, Record,
    plugin::Note,
    ring::merge::{Batch as Records, MergeRecord},
    short::push_start,
};

use super::{
    line::{Columns, Extra, Line, LinePrinter},
    pipeline,
    slices::SlicePrinter,
    stream::Stream,
};
use crate::sys::fetch_for_write;

/// A batch is full with so many records …
const FULL: usize = 2048;
/// … or so many bytes of records …
const FULL_BYTES: usize = 1 << 20;
/// … or when it keeps so many bytes of blocks alive.
const FULL_BLOCKS: usize = 3 << 20;
/// Records that are fetched from another core's cache at a time.
const AHEAD: usize = 32;

/// What a record is in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A line of its own.
    Line,
    /// The entry of a leaf function; the next record is its exit.
    Leaf,
    /// The exit of a leaf function, shown with the record before.
    LeafExit,
}

/// A record, and what the sequential pass found out about it.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Corrected time.
    ts: u64,
    /// Time as stored.
    stored_ts: u64,
    /// Where it lies in the file, or in the unpacked data of its CPU.
    offset: u64,
    /// Where its bytes begin in the batch.
    start: u32,
    len: u32,
    cpu: u32,
    /// Number of its stream.
    tag: u32,
    /// Nesting level of a function event.
    indent: u32,
    kind: Kind,
    /// Whether there are rare things to show.
    extra: bool,
    /// Whether what lies behind it may be shown.
    raw: bool,
}

/// Records in the order of the output.
///
/// Their bytes are copied: a few nanoseconds for each, but the memory that one thread fills over and over, the blocks of
/// its streams, is then read by no other. A core that writes to what another core has read has to wait for that core.
#[derive(Debug, Default)]
pub struct Batch {
    /// Position of the first record in the output.
    pub seq: u64,
    /// Text before the first record.
    pub head: Vec<u8>,
    entries: Vec<Entry>,
    data: Vec<u8>,
    lines: usize,
    diffs: Vec<Option<i64>>,
    /// Rare things, in the order of their records.
    extras: Vec<Extra>,
    /// Those that are shown as raw fields, with all that lies behind them: an array may be declared longer than its record.
    raw: Records,
}

impl Batch {
    /// Adds a record. `raw`: it may be shown as raw fields.
    #[inline(always)]
    pub fn push(&mut self, record: &MergeRecord<'_>, tag: u32, raw: bool) {
        self.add(record, tag, Kind::Line);
        self.lines += 1;
        if raw {
            self.add_raw(record);
        }
    }

    #[inline(never)]
    fn add_raw(&mut self, record: &MergeRecord<'_>) {
        self.raw.push(record);
        if let Some(entry) = self.entries.last_mut() {
            entry.raw = true;
        }
    }

    #[inline(always)]
    fn add(&mut self, record: &MergeRecord<'_>, tag: u32, kind: Kind) {
        let rec = record.record();
        let start = self.data.len();
        // Its bytes are the first ones of its reach.
        push_start::<64>(&mut self.data, record.stream_record.reach(), rec.data.len());
        self.entries.push(Entry {
            ts: record.ts,
            stored_ts: rec.ts,
            offset: rec.offset,
            start: start as u32,
            len: rec.data.len() as u32,
            cpu: rec.cpu,
            tag,
            indent: 0,
            kind,
            extra: false,
            raw: false,
        });
    }

    /// Takes the last line back, with what was said about it.
    pub fn pop(&mut self) {
        while let Some(entry) = self.entries.pop() {
            self.data.truncate(entry.start as usize);
            if entry.raw {
                self.raw.pop();
            }
            if self.entries.is_empty() {
                // This lets go of the blocks.
                self.raw.clear();
            }
            if entry.kind != Kind::LeafExit {
                self.lines -= 1;
                break;
            }
        }
    }

    /// The record of the last line.
    #[inline(always)]
    pub fn last(&self) -> Option<Record<'_>> {
        self.entries.get(self.last_line_at()).map(|entry| self.record(entry))
    }

    /// Where the entry of the last line is: the exit of a leaf function lies behind it.
    #[inline(always)]
    fn last_line_at(&self) -> usize {
        let exit = self.entries.last().is_some_and(|e| e.kind == Kind::LeafExit);
        self.entries.len().wrapping_sub(1 + usize::from(exit))
    }

    #[inline(always)]
    fn last_line(&mut self) -> Option<&mut Entry> {
        let at = self.last_line_at();
        self.entries.get_mut(at)
    }

    #[inline(always)]
    fn record(&self, entry: &Entry) -> Record<'_> {
        let start = entry.start as usize;
        Record {
            ts: entry.stored_ts,
            cpu: entry.cpu,
            // Marks of lost events are among the extras, which know what was shown already.
            lost: Lost::None,
            data: self.data.get(start..start + entry.len as usize).unwrap_or_default(),
            offset: entry.offset,
        }
    }

    /// Nesting level of the last record.
    #[inline]
    pub fn set_indent(&mut self, indent: u32) {
        if let Some(entry) = self.last_line() {
            entry.indent = indent;
        }
    }

    /// Joins an exit record to the last record.
    #[inline]
    pub fn set_leaf(&mut self, exit: &MergeRecord<'_>, tag: u32) {
        if let Some(entry) = self.last_line() {
            entry.kind = Kind::Leaf;
            self.add(exit, tag, Kind::LeafExit);
        }
    }

    /// With `--ts-diff`: the difference of the last record to the one before; to be given for every record.
    pub fn set_diff(&mut self, diff: Option<i64>) {
        self.diffs.push(diff);
    }

    /// Rare things to show with the last record.
    pub fn set_extra(&mut self, extra: Extra) {
        if let Some(entry) = self.last_line() {
            entry.extra = true;
            self.extras.push(extra);
        }
    }

    /// How many records will be shown.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.lines
    }

    /// Whether no record will be shown.
    pub fn is_empty(&self) -> bool {
        self.lines == 0
    }

    /// Whether it is time to print it. `limit`: a number of records that is enough.
    #[inline(always)]
    pub fn is_full(&self, limit: usize) -> bool {
        self.entries.len() >= limit.min(FULL)
            || self.data.len() >= FULL_BYTES
            || (!self.raw.is_empty() && self.raw.len().is_multiple_of(64) && self.raw.block_bytes() > FULL_BLOCKS)
    }

    /// All records, ready to be printed.
    #[inline(always)]
    pub fn lines(&self) -> Lines<'_> {
        Lines { batch: self, at: 0, number: 0, fetched: 0, extras: self.extras.iter(), raw: 0 }
    }

    /// Has the entries from `i` on come to this core's cache, and the bytes of those that were fetched before.
    #[inline]
    fn fetch_ahead(&self, i: usize) {
        let from = if i == 0 { 0 } else { i + 2 * AHEAD };
        fetch_for_write(
            self.entries.get(from..).map(|e| e.get(..i + 3 * AHEAD - from).unwrap_or(e)).unwrap_or_default(),
        );
        let place = |n: usize| self.entries.get(n).map_or(self.data.len(), |e| e.start as usize);
        let from = if i == 0 { 0 } else { place(i + AHEAD) };
        fetch_for_write(self.data.get(from..place(i + 2 * AHEAD)).unwrap_or_default());
    }
}

/// The records of a [`Batch`].
pub struct Lines<'a> {
    batch: &'a Batch,
    at: usize,
    number: usize,
    /// When this one's turn comes, further ones are fetched.
    fetched: usize,
    extras: std::slice::Iter<'a, Extra>,
    raw: usize,
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    #[inline(always)]
    fn next(&mut self) -> Option<Line<'a>> {
        let batch = self.batch;
        let entry = batch.entries.get(self.at)?;
        if self.at >= self.fetched {
            batch.fetch_ahead(self.fetched);
            self.fetched += AHEAD;
        }
        self.at += 1;
        let rec = batch.record(entry);
        let mut leaf_exit = None;
        if entry.kind == Kind::Leaf {
            leaf_exit = batch.entries.get(self.at).map(|e| batch.record(e));
            self.at += 1;
        }
        let line = self.number;
        self.number += 1;
        let mut reach = rec.data;
        if entry.raw {
            reach = batch.raw.get(self.raw).map_or(reach, |(r, _)| batch.raw.reach(r));
            self.raw += 1;
        }
        Some(Line {
            stream: entry.tag,
            rec,
            reach,
            ts: entry.ts,
            seq: batch.seq + line as u64,
            note: Note { indent: entry.indent, leaf_exit },
            diff: batch.diffs.get(line).copied().flatten(),
            extra: if entry.extra { self.extras.next() } else { None },
        })
    }
}

impl pipeline::Batch for Batch {
    fn clear(&mut self) {
        self.entries.clear();
        self.data.clear();
        self.lines = 0;
        self.diffs.clear();
        self.extras.clear();
        self.raw.clear();
        self.head.clear();
    }
}

/// Prints batches as text.
pub struct TextPrinter<'a>(LinePrinter<'a>);

impl<'a> TextPrinter<'a> {
    /// A printer for records of these streams.
    pub fn new(streams: &'a [Stream], columns: Columns) -> Self {
        TextPrinter(LinePrinter::new(streams, columns))
    }
}

impl SlicePrinter for TextPrinter<'_> {
    #[inline(always)]
    fn line(&mut self, line: &Line<'_>, at: usize, out: &mut Vec<u8>) -> usize {
        self.0.write(line, at, out)
    }

    fn finish(&mut self, end: usize, out: &mut Vec<u8>) {
        self.0.finish(end, out);
    }
}

impl pipeline::Printer<Batch> for TextPrinter<'_> {
    fn print(&mut self, batch: &Batch, out: &mut Vec<u8>) {
        out.extend_from_slice(&batch.head);
        let mut at = 0;
        for line in batch.lines() {
            at = self.0.write(&line, at, out);
        }
        self.0.finish(at, out);
    }
}
