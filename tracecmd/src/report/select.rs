//! Which records are shown: by CPU, by interrupt context, by filters.

use std::sync::Arc;

use trace_dat::{
    filter::{FilterSet, FilterState},
    ring::merge::MergeRecord,
};

use super::stream::Stream;

/// Bit of `common_flags`: in a hard interrupt.
const FLAG_HARDIRQ: u8 = 0x08;
/// Bit of `common_flags`: in a soft interrupt.
const FLAG_SOFTIRQ: u8 = 0x10;

/// Decides whether a record is shown.
#[derive(Clone, Debug, Default)]
pub struct Select {
    /// Ranges of CPUs; empty: all.
    cpus: Vec<(u32, u32)>,
    /// Records with one of these flags are hidden.
    hidden_flags: u8,
    /// The filters of each input; none at all when no input has any.
    filters: Arc<[FilterSet]>,
    /// What the filters remember of each stream.
    states: Vec<FilterState>,
}

impl Select {
    /// A choice by CPU and interrupt context.
    pub fn new(cpus: &[(u32, u32)], no_hardirq: bool, no_softirq: bool) -> Self {
        let hidden_flags = if no_hardirq { FLAG_HARDIRQ } else { 0 } | if no_softirq { FLAG_SOFTIRQ } else { 0 };
        Select { cpus: cpus.to_vec(), hidden_flags, ..Select::default() }
    }

    /// Adds the filters of each input, over so many streams.
    pub fn set_filters(&mut self, filters: Vec<FilterSet>, streams: usize) {
        if filters.iter().any(|f| !f.is_empty()) {
            self.filters = filters.into();
            self.states = vec![FilterState::default(); streams];
        }
    }

    /// Whether anything is hidden.
    #[inline(always)]
    pub fn is_active(&self) -> bool {
        !self.cpus.is_empty() || self.hidden_flags != 0 || !self.filters.is_empty()
    }

    /// Forgets what filters remember: the next record is one in the middle of the file.
    pub fn forget(&mut self) {
        self.states.fill(FilterState::middle());
    }

    /// Takes what filters do not know from a choice that has seen the records before.
    pub fn follow(&mut self, before: &Select) {
        for (state, before) in self.states.iter_mut().zip(&before.states) {
            state.follow(before);
        }
    }

    /// Whether the record is shown. Must be asked once for each record, in their order. `None`: that depends on records before
    /// those that were seen.
    pub fn shows(&mut self, tag: u32, stream: &Stream, record: &MergeRecord<'_>, seq: u64) -> Option<bool> {
        let record = record.record();
        let cpu = record.cpu;
        if !self.cpus.is_empty() && !self.cpus.iter().any(|(from, to)| (*from..=*to).contains(&cpu)) {
            return Some(false);
        }
        if self.hidden_flags != 0 {
            let (_, flags, _) = stream.common.read(record.data);
            if flags & self.hidden_flags != 0 {
                return Some(false);
            }
        }
        match (self.filters.get(stream.input), self.states.get_mut(tag as usize)) {
            (Some(set), Some(state)) => set.decide(state, &stream.dec, &record, seq),
            _ => Some(true),
        }
    }
}
