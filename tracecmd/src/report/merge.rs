//! Which of many sorted streams comes next.
//!
//! Records come in runs: the stream that won stays, at the cost of one comparison, as long as its next time is not
//! behind that of the runner-up. Only a change of stream costs the logarithm of their number.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The order of streams by the time of their next record; of equal times the stream with the lower number comes first.
#[derive(Debug, Default)]
pub struct Merge {
    current: Option<(u64, u32)>,
    others: BinaryHeap<Reverse<(u64, u32)>>,
}

impl Merge {
    /// Takes the times of the streams' first records; `None` for a stream without any.
    pub fn new(heads: impl IntoIterator<Item = Option<u64>>) -> Self {
        let mut others: BinaryHeap<_> =
            heads.into_iter().zip(0..).filter_map(|(ts, i)| Some(Reverse((ts?, i)))).collect();
        let current = others.pop().map(|Reverse(key)| key);
        Merge { current, others }
    }

    /// The time of the next record and the number of the stream that has it.
    #[inline(always)]
    pub fn current(&self) -> Option<(u64, u32)> {
        self.current
    }

    /// Says what the current stream has after its record was taken: the time of its next one.
    #[inline(always)]
    pub fn advance(&mut self, next: Option<u64>) {
        let Some((_, stream)) = self.current else { return };
        match (next, self.others.peek()) {
            (Some(ts), None) => self.current = Some((ts, stream)),
            (Some(ts), Some(Reverse(other))) if (ts, stream) < *other => self.current = Some((ts, stream)),
            _ => self.change(next, stream),
        }
    }

    fn change(&mut self, next: Option<u64>, stream: u32) {
        match next {
            Some(ts) => {
                // Replaces the top in place: one sift instead of a push and a pop.
                if let Some(mut top) = self.others.peek_mut() {
                    let Reverse(key) = std::mem::replace(&mut *top, Reverse((ts, stream)));
                    self.current = Some(key);
                }
            }
            None => self.current = self.others.pop().map(|Reverse(key)| key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn merged(streams: &[Vec<u64>]) -> Vec<(u64, u32)> {
        let mut at = vec![0; streams.len()];
        let mut merge = Merge::new(streams.iter().map(|s| s.first().copied()));
        let mut out = Vec::new();
        while let Some((ts, stream)) = merge.current() {
            out.push((ts, stream));
            let s = stream as usize;
            at[s] += 1;
            merge.advance(streams[s].get(at[s]).copied());
        }
        out
    }

    #[test]
    fn equal_times_by_number() {
        assert_eq!(merged(&[vec![5, 7], vec![], vec![5, 5, 6]]), [(5, 0), (5, 2), (5, 2), (6, 2), (7, 0)]);
        assert_eq!(merged(&[]), []);
    }

    /// What the merge stands for: always the smallest head, the first of equal ones.
    fn by_search(streams: &[Vec<u64>]) -> Vec<(u64, u32)> {
        let mut at = vec![0; streams.len()];
        let mut out = Vec::new();
        loop {
            let heads = streams.iter().zip(&at).enumerate().filter_map(|(i, (s, a))| Some((*s.get(*a)?, i as u32)));
            let Some(next) = heads.min() else { return out };
            at[next.1 as usize] += 1;
            out.push(next);
        }
    }

    proptest! {
        #[test]
        fn same_as_a_search_even_when_times_run_backwards(
            streams in prop::collection::vec(prop::collection::vec(0u64..20, 0..12), 0..9)
        ) {
            prop_assert_eq!(merged(&streams), by_search(&streams));
        }
    }
}
