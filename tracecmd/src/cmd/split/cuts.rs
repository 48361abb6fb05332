//! Where the pieces of a file begin and end: found on a thread of its own while the pieces before are written.

use std::sync::atomic::{AtomicU64, Ordering};

use trace_dat::{
    read::CpuData,
    ring::merge::{Input, Merge},
    write::Position,
};

/// Where a piece ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Not before the end.
    None,
    /// Nanoseconds after its first event.
    Time(u64),
    /// Number of events.
    Events(u64),
    /// Number of sub-buffers.
    Pages(u64),
}

/// What pieces are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Cuts {
    /// How much goes into a piece.
    pub limit: Limit,
    /// Whether that counts for each CPU by itself.
    pub per_cpu: bool,
    /// Time of the first event of all.
    pub start: Option<u64>,
    /// Time of the last one.
    pub end: Option<u64>,
    /// All pieces, not only the first.
    pub repeat: bool,
}

/// How far the search is.
#[derive(Debug, Default)]
pub struct Walked {
    /// Bytes of the file.
    pub bytes: AtomicU64,
    /// Events.
    pub events: AtomicU64,
}

/// Events between two notes of how far the search is.
const STEP: u64 = 1 << 16;

/// Takes the place in each CPU's data; whether it wants the next ones.
pub type Give<'a> = &'a mut dyn FnMut(Vec<Position>) -> bool;

impl Cuts {
    /// Whether the events have to be walked over.
    pub fn counts(&self) -> bool {
        self.per_cpu || matches!(self.limit, Limit::Events(_))
    }

    /// Gives the places where the first piece begins, then those where each piece ends. `cpus` are what the inputs read.
    pub fn find(&self, inputs: Vec<Input>, cpus: &[CpuData], walked: &Walked, give: Give<'_>) {
        if self.per_cpu {
            self.by_cpu(inputs, cpus, walked, give);
        } else {
            self.merged(inputs, cpus, walked, give);
        }
    }

    /// Pieces of all CPUs together, in the order of time.
    fn merged(&self, inputs: Vec<Input>, cpus: &[CpuData], walked: &Walked, give: Give<'_>) {
        let mut merge = Merge::new(inputs);
        if let Some(start) = self.start {
            merge.seek(start);
        }
        let mut first = merge.peek().map(|r| r.ts);
        let mut go_on = give(places(merge.inputs(), cpus));
        let end = self.end.unwrap_or(u64::MAX);
        while go_on {
            let last = match (self.limit, first) {
                (Limit::Time(n), Some(ts)) => ts.saturating_add(n).min(end),
                _ => end,
            };
            let ends = match self.limit {
                Limit::Events(mut left) => {
                    loop {
                        let n = merge.skip(left.min(STEP), last);
                        left -= n;
                        walked.bytes.store(merge.consumed(), Ordering::Relaxed);
                        walked.events.fetch_add(n, Ordering::Relaxed);
                        if n < STEP {
                            break;
                        }
                    }
                    first = merge.peek().map(|r| r.ts);
                    places(merge.inputs(), cpus)
                }
                // Without a limit of time the piece goes to the end, and nothing needs to be looked at.
                _ if last == u64::MAX => {
                    first = None;
                    vec![Position::END; cpus.len()]
                }
                // A time is found by the headers of sub-buffers.
                _ => {
                    merge.seek(last.saturating_add(1));
                    first = merge.peek().map(|r| r.ts);
                    places(merge.inputs(), cpus)
                }
            };
            go_on = give(ends) && self.repeat && first.is_some_and(|ts| ts <= end);
        }
    }

    /// Pieces whose size counts for each CPU by itself.
    fn by_cpu(&self, mut inputs: Vec<Input>, cpus: &[CpuData], walked: &Walked, give: Give<'_>) {
        let end = self.end.unwrap_or(u64::MAX);
        for input in &mut inputs {
            let start = self.start.unwrap_or(0);
            let mut there = match start {
                0 => input.stream.advance(),
                _ => input.stream.seek(input.time.stored_before(start)),
            };
            while there && ts(input).is_some_and(|ts| ts < start) {
                there = input.stream.advance();
            }
        }
        let mut go_on = give(places(&inputs, cpus));
        while go_on {
            let mut more = false;
            for n in 0..inputs.len() {
                let Some(input) = inputs.get_mut(n) else { break };
                let last = match (self.limit, ts(input)) {
                    (Limit::Time(n), Some(ts)) => ts.saturating_add(n).min(end),
                    _ => end,
                };
                let (mut events, mut pages, mut page) = (0, 0, None);
                while let Some(now) = ts(input) {
                    let here = input.stream.current().map(|r| r.subbuf_offset());
                    if here != page {
                        page = here;
                        pages += 1;
                    }
                    let full = match self.limit {
                        Limit::Events(n) => events >= n,
                        Limit::Pages(n) => pages > n,
                        _ => false,
                    };
                    if full || now > last {
                        break;
                    }
                    events += 1;
                    if !input.stream.advance() {
                        break;
                    }
                }
                more |= ts(input).is_some_and(|ts| ts <= end);
                walked.events.fetch_add(events, Ordering::Relaxed);
                walked.bytes.store(inputs.iter().map(|i| i.stream.consumed()).sum(), Ordering::Relaxed);
            }
            go_on = give(places(&inputs, cpus)) && self.repeat && more;
        }
    }
}

/// Where the inputs stand.
fn places(inputs: &[Input], cpus: &[CpuData]) -> Vec<Position> {
    inputs.iter().zip(cpus).map(|(i, cpu)| Position::of(&i.stream, cpu)).collect()
}

/// Corrected time of the event that an input stands at.
fn ts(input: &Input) -> Option<u64> {
    input.stream.current().map(|r| input.time.correct(r.record().ts))
}
