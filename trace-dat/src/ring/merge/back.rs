//! Backwards through the records of many CPUs.

use std::collections::BinaryHeap;

use crate::ring::merge::{Input, Merge, MergeRecord};

impl Merge {
    /// The record before the one that was handed out last; `None` at the start. [`Merge::next`] and `prev` may be called in any
    /// order: each goes one record on from the other's.
    ///
    /// Behind a [`Merge::seek`] it is the last record before the time that was looked for, behind the end the last record.
    pub fn prev(&mut self) -> Option<MergeRecord<'_>> {
        if self.back.is_none() {
            // Each input goes from its next record, or the one that was handed out, to the one before.
            let mut heap = BinaryHeap::with_capacity(self.inputs.len());
            for (i, input) in self.inputs.iter_mut().enumerate() {
                push_before(&mut heap, input, i as u32);
            }
            self.back = Some(heap);
            // The way forward begins anew from where the inputs then stand.
            self.started = false;
        } else if self.handed_out
            && let Some((_, i)) = self.back.as_mut().and_then(BinaryHeap::pop)
            && let (Some(input), Some(heap)) = (self.inputs.get_mut(i as usize), &mut self.back)
        {
            push_before(heap, input, i);
        }
        self.handed_out = true;
        let &(ts, i) = self.back.as_ref()?.peek()?;
        let input = self.inputs.get(i as usize)?;
        Some(MergeRecord { stream_record: input.stream.current()?, ts, input: i, tag: input.tag })
    }

    /// Goes behind the last record: [`Merge::prev`] gives the last one then.
    pub fn seek_end(&mut self) {
        for input in self.inputs_mut() {
            input.stream.seek_end();
        }
    }
}

fn push_before(heap: &mut BinaryHeap<(u64, u32)>, input: &mut Input, i: u32) {
    if input.stream.retreat()
        && let Some(ts) = input.stream.head_ts()
    {
        heap.push((input.time.correct(ts), i));
    }
}
