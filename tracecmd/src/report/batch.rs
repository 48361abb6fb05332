//! Some thousand records on their way to be printed.

use trace_dat::{
    Lost, Record,
    plugin::Note,
    ring::merge::{Batch as Records, MergeRecord},
};

use super::{
    line::{Columns, Extra, Line, LinePrinter},
    pipeline,
    stream::Stream,
};

/// No entry of another list.
const NONE: u32 = u32::MAX;

/// A batch is full with so many records …
const FULL: usize = 4096;
/// … or when it keeps so many bytes of blocks alive.
const FULL_BYTES: usize = 3 << 20;

/// What the sequential pass found out about a record.
#[derive(Clone, Copy, Debug)]
struct Item {
    /// Number of the record.
    record: u32,
    /// Number of the exit record of a function_graph leaf.
    leaf: u32,
    /// Nesting level of a function event.
    indent: u32,
    /// Number of rare things to show.
    extra: u32,
}

/// Records in the order of the output.
#[derive(Debug, Default)]
pub struct Batch {
    /// Position of the first record in the output.
    pub seq: u64,
    /// Text before the first record.
    pub head: Vec<u8>,
    records: Records,
    items: Vec<Item>,
    diffs: Vec<Option<i64>>,
    extras: Vec<Extra>,
}

impl Batch {
    /// Adds a record.
    #[inline(always)]
    pub fn push(&mut self, record: &MergeRecord<'_>, tag: u32) {
        let index = self.records.len() as u32;
        self.records.push(&MergeRecord { tag, ..*record });
        self.items.push(Item { record: index, leaf: NONE, indent: 0, extra: NONE });
    }

    /// Takes the last record back, with what was said about it.
    pub fn pop(&mut self) {
        self.items.pop();
    }

    /// The last record.
    #[inline(always)]
    pub fn last(&self) -> Option<Record<'_>> {
        let item = self.items.last()?;
        self.records.get(item.record as usize).map(|(_, r)| r)
    }

    /// Nesting level of the last record.
    #[inline]
    pub fn set_indent(&mut self, indent: u32) {
        if let Some(item) = self.items.last_mut() {
            item.indent = indent;
        }
    }

    /// Joins an exit record to the last record.
    #[inline]
    pub fn set_leaf(&mut self, exit: &MergeRecord<'_>, tag: u32) {
        let index = self.records.len() as u32;
        if let Some(item) = self.items.last_mut() {
            item.leaf = index;
            self.records.push(&MergeRecord { tag, ..*exit });
        }
    }

    /// With `--ts-diff`: the difference of the last record to the one before; to be given for every record.
    pub fn set_diff(&mut self, diff: Option<i64>) {
        self.diffs.push(diff);
    }

    /// Rare things to show with the last record.
    pub fn set_extra(&mut self, extra: Extra) {
        if let Some(item) = self.items.last_mut() {
            item.extra = self.extras.len() as u32;
            self.extras.push(extra);
        }
    }

    /// The offset of the last record's sub-buffer, and that sub-buffer with what follows it in memory.
    pub fn last_subbuf(&self, size: usize) -> Option<(u64, &[u8])> {
        let (entry, _) = self.records.get(self.items.last()?.record as usize)?;
        Some((self.records.subbuf_offset(entry), self.records.subbuf(entry, size)))
    }

    /// How many records will be shown.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether no record will be shown.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether it is time to print it. `limit`: a number of records that is enough.
    #[inline(always)]
    pub fn is_full(&self, limit: usize) -> bool {
        self.records.len() >= limit.min(FULL)
            || (self.records.len().is_multiple_of(64) && self.records.block_bytes() > FULL_BYTES)
    }

    /// All records, ready to be printed.
    #[inline(always)]
    pub fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        self.items.iter().enumerate().filter_map(|(i, item)| {
            let (entry, record) = self.records.get(item.record as usize)?;
            let leaf_exit = if item.leaf == NONE { None } else { self.records.get(item.leaf as usize).map(|(_, r)| r) };
            Some(Line {
                stream: entry.tag,
                // Marks of lost events are among the extras, which know what was shown already.
                rec: Record { lost: Lost::None, ..record },
                reach: self.records.reach(entry),
                ts: entry.ts,
                seq: self.seq + i as u64,
                note: Note { indent: item.indent, leaf_exit },
                diff: self.diffs.get(i).copied().flatten(),
                extra: if item.extra == NONE { None } else { self.extras.get(item.extra as usize) },
            })
        })
    }
}

impl pipeline::Batch for Batch {
    fn clear(&mut self) {
        self.records.clear();
        self.items.clear();
        self.diffs.clear();
        self.extras.clear();
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

impl pipeline::Printer<Batch> for TextPrinter<'_> {
    fn print(&mut self, batch: &Batch, out: &mut Vec<u8>) {
        out.extend_from_slice(&batch.head);
        for line in batch.lines() {
            self.0.print(&line, out);
        }
    }
}
