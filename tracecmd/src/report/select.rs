//! Which records are shown: by CPU, by interrupt context, by filters.

use trace_dat::ring::merge::MergeRecord;

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
}

impl Select {
    /// A choice by CPU and interrupt context.
    pub fn new(cpus: &[(u32, u32)], no_hardirq: bool, no_softirq: bool) -> Self {
        let hidden_flags = if no_hardirq { FLAG_HARDIRQ } else { 0 } | if no_softirq { FLAG_SOFTIRQ } else { 0 };
        Select { cpus: cpus.to_vec(), hidden_flags }
    }

    /// Whether anything is hidden.
    #[inline(always)]
    pub fn is_active(&self) -> bool {
        !self.cpus.is_empty() || self.hidden_flags != 0
    }

    /// Whether the record is shown. Must be asked once for each record, in their order.
    pub fn shows(&mut self, _tag: u32, stream: &Stream, record: &MergeRecord<'_>, _seq: u64) -> bool {
        let record = record.record();
        let cpu = record.cpu;
        if !self.cpus.is_empty() && !self.cpus.iter().any(|(from, to)| (*from..=*to).contains(&cpu)) {
            return false;
        }
        if self.hidden_flags != 0 {
            let (_, flags, _) = stream.common.read(record.data);
            if flags & self.hidden_flags != 0 {
                return false;
            }
        }
        true
    }
}
