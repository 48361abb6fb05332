//! Backwards through the records of a CPU.
//!
//! A stream stands at a record, before the first one or behind the last one. [`CpuStream::retreat`] goes one to the front,
//! [`CpuStream::advance`] one to the end, in any order: each undoes the other.

use crate::ring::{
    record::{Lost, Record},
    stream::{CpuStream, Head},
    subbuf::Walk,
};

/// The records of one sub-buffer, each with where a walk stands behind it.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Where the sub-buffer begins.
    base: u64,
    records: Vec<(Walk, Head)>,
}

impl CpuStream {
    /// Goes to the record before the present one. False at the start: the stream then stands before the first record.
    ///
    /// Only sub-buffers that are passed are read; of compressed data whole chunks.
    pub fn retreat(&mut self) -> bool {
        if let (Some(head), Some(base)) = (self.head, self.subbuf_base()) {
            if self.index.base != base || self.index.records.is_empty() {
                self.index_subbuf(true);
            }
            let at = self.index.records.partition_point(|(_, h)| h.start < head.start);
            if self.stand_at(at.checked_sub(1)) {
                return true;
            }
        }
        while self.previous_subbuf() {
            self.index_subbuf(false);
            if self.stand_at(self.index.records.len().checked_sub(1)) {
                return true;
            }
        }
        self.rewind();
        false
    }

    /// Goes to the record before the present one and gives it; `None` at the start.
    pub fn prev_record(&mut self) -> Option<Record<'_>> {
        if !self.retreat() {
            return None;
        }
        self.current().map(|r| r.record())
    }

    /// Goes behind the last record: [`CpuStream::prev_record`] gives the last one then. No data are read.
    pub fn seek_end(&mut self) {
        self.go_to(self.feed.end());
    }

    /// Where the present sub-buffer begins, in the count of [`crate::ring::stream::SubBuf::offset`].
    fn subbuf_base(&self) -> Option<u64> {
        Some(self.block.as_ref()?.base().wrapping_add(self.subbuf as u64))
    }

    /// Finds all records of the present sub-buffer. `known`: it was walked before, so its damage was told.
    fn index_subbuf(&mut self, known: bool) {
        let mut index = std::mem::take(&mut self.index);
        index.records.clear();
        index.base = self.subbuf_base().unwrap_or(0);
        let lost = std::mem::take(&mut self.lost);
        if self.enter_present(known) {
            while let Some(head) = self.step_within() {
                index.records.push((self.walk, head));
            }
        }
        self.lost = lost;
        self.cut = false;
        self.index = index;
    }

    fn stand_at(&mut self, at: Option<usize>) -> bool {
        let Some((walk, head)) = at.and_then(|i| self.index.records.get(i)) else { return false };
        (self.walk, self.head, self.lost) = (*walk, Some(*head), Lost::None);
        true
    }

    /// Goes to the sub-buffer before the present one, whatever is in it. False at the start.
    fn previous_subbuf(&mut self) -> bool {
        self.head = None;
        self.walk = Walk::default();
        self.lost = Lost::None;
        loop {
            if let Some(block) = &self.block {
                let len = block.data().len();
                if let Some(start) = self.subbuf.checked_sub(self.layout.size) {
                    self.subbuf_end = self.subbuf.min(len);
                    self.subbuf = start;
                    return true;
                }
                // The block's own unit lies before the next one.
                self.block = None;
                self.next = self.feed.before(self.next).unwrap_or_default();
            }
            let Some(unit) = self.feed.before(self.next) else { return false };
            self.feed.reset();
            match self.feed.load_alone(unit) {
                Ok(Some(block)) => {
                    self.subbuf = block.data().len().next_multiple_of(self.layout.size);
                    self.subbuf_end = self.subbuf;
                    self.block = Some(block);
                }
                Ok(None) => self.next = unit,
                Err(error) => {
                    self.next = unit;
                    self.warn(None, None, error, "what lies here");
                }
            }
        }
    }
}
