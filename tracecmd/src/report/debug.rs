//! What `--boundary` and `--debug` show: where sub-buffers begin, and where records lie in them.

use std::fmt::Write;

use rustc_hash::FxHashMap;
use trace_dat::ring::{
    merge::MergeRecord,
    subbuf::{Item, ItemKind, SubBufLayout},
};

/// Remembers in which sub-buffer each CPU is.
#[derive(Debug, Default)]
pub struct Places {
    last: FxHashMap<(u32, u32), u64>,
}

impl Places {
    /// Whether a record is the first of its sub-buffer: CPU number `input` of the stream `tag` was in another one before.
    pub fn is_first(&mut self, tag: u32, input: u32, subbuf_offset: u64) -> bool {
        self.last.insert((tag, input), subbuf_offset) != Some(subbuf_offset)
    }
}

/// What `--debug` shows for a record: behind the boundary mark, and behind the record's text.
///
/// `base`: where the CPU's data begin in the copy that the reference unpacks compressed data to.
pub fn texts(layout: &SubBufLayout, record: &MergeRecord<'_>, base: u64) -> (String, String) {
    let (mut mark, mut suffix) = (String::new(), String::new());
    let place = &record.stream_record;
    let offset = place.subbuf_offset();
    let data = place.block().data().get(place.subbuf_start()..).unwrap_or_default();
    let data = data.get(..layout.size).unwrap_or(data);
    let record = record.record();
    let (Ok(header), Ok(items)) = (layout.header(data, offset), layout.items(data, offset)) else {
        return (mark, suffix);
    };
    // Writing to a string cannot fail.
    let _ = write!(mark, " [{}:{:#x}]", header.ts, base.wrapping_add(offset));
    let mut found = false;
    for item in items.map_while(Result::ok) {
        if found {
            if item.kind == ItemKind::Event {
                break;
            }
            push_skipped(&mut suffix, &item);
        } else if offset.wrapping_add(item.data_at as u64) == record.offset && item.kind == ItemKind::Event {
            found = true;
            let _ = write!(suffix, " [{}:{:#x}:{}]", item.delta, item.at, item.data.len());
        }
    }
    (mark, suffix)
}

/// A line about something between records.
fn push_skipped(out: &mut String, item: &Item<'_>) {
    let (name, what) = match item.kind {
        ItemKind::Padding => ("PADDING", "delta"),
        ItemKind::TimeExtend => ("TIME EXTEND", "delta"),
        ItemKind::TimeStamp => ("TIME STAMP", "timestamp"),
        ItemKind::Event => return,
    };
    let length = if item.kind == ItemKind::Padding && item.delta > 0 { item.size.saturating_sub(4) } else { 0 };
    let _ = write!(out, "\n {name}: {what}:{} length:{length}", item.delta);
}
