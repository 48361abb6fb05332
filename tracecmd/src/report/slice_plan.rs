//! Where slices of time begin and end.

use trace_dat::ring::merge::{Input, Merge};

/// Unpacked bytes of a slice at most, of all CPUs together …
const SLICE: u64 = 3 << 20;
/// … and of the slices of all threads but one …
const SLICES: u64 = 8 << 20;
/// … and bytes of the text made of a slice, of which about half waits for its turn: better in the cache than behind it.
const TEXT: u64 = 9 << 20;
/// Fewer slices than this are not worth it.
const LEAST: u64 = 3;
/// Pieces (see [`trace_dat::ring::stream::CpuStream::pieces`]) of a CPU that a slice must have at least: one at its edge is
/// unpacked twice.
const LEAST_PIECES: u64 = 6;
/// Pieces without records that are passed over.
const EMPTY: u64 = 16;

/// A slice of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its number.
    pub index: usize,
    /// The first corrected time.
    pub start: u64,
    /// The first corrected time behind it.
    pub stop: u64,
    /// By stream and CPU, a piece at or behind whose start its records begin.
    pub pieces: Vec<Vec<u64>>,
}

/// What is known about a CPU.
struct Line {
    /// Number of its merge, and of the input there.
    at: (usize, usize),
    pieces: u64,
    /// Pieces of a slice.
    step: u64,
    /// The piece at or behind whose start the next slice begins, and its time.
    low: (u64, Option<u64>),
}

/// Cuts the time into slices of about equal size, one after the other.
pub struct Plan {
    merges: Vec<Merge>,
    lines: Vec<Line>,
    threads: u64,
    index: usize,
    /// Where the next slice begins; `None` behind the last one.
    start: Option<u64>,
}

impl Plan {
    /// A plan for these merges and so many threads; `None` when slices would be too few or too short. `growth`: bytes of text for
    /// each byte of records.
    pub fn new(merges: Vec<Merge>, threads: usize, growth: u64) -> Option<Plan> {
        let slice = SLICE.min(SLICES / (threads as u64).saturating_sub(1).max(1));
        let mut lines = Vec::new();
        let mut total = 0u64;
        for (m, merge) in merges.iter().enumerate() {
            for (i, input) in merge.inputs().iter().enumerate() {
                let pieces = input.stream.pieces();
                total = total.saturating_add(input.stream.unpacked_len());
                lines.push(Line { at: (m, i), pieces, step: 0, low: (0, None) });
            }
        }
        lines.retain(|l| l.pieces > 0);
        if total < slice * LEAST {
            return None;
        }
        // CPUs with few data in all do not shorten the slices.
        let busy = |l: &Line, len: u64| l.pieces.saturating_mul(len) * 64 >= total;
        let lens: Vec<u64> =
            lines.iter().map(|l| input(&merges, l.at).map_or(1, |i| i.stream.piece_len().max(1))).collect();
        let count = lines.iter().zip(&lens).filter(|(l, len)| busy(l, **len)).count().max(1) as u64;
        for (line, len) in lines.iter_mut().zip(&lens) {
            let most = (slice / count / len).max(1);
            line.step = (TEXT / growth.max(1) / count / len).max(LEAST_PIECES).min(most);
            if line.step < LEAST_PIECES && busy(line, *len) {
                return None;
            }
        }
        Some(Plan { merges, lines, threads: threads as u64, index: 0, start: Some(0) })
    }

    /// Spares merges of the same inputs what the plan has found already.
    pub fn share_with(&self, merges: &mut [Merge]) {
        for (merge, known) in merges.iter_mut().zip(&self.merges) {
            merge.share_chunks(known);
        }
    }

    /// The next slice.
    pub fn next_slice(&mut self) -> Option<Slice> {
        let start = self.start?;
        let mut pieces: Vec<Vec<u64>> = self.merges.iter().map(|m| vec![0; m.inputs().len()]).collect();
        for line in &self.lines {
            if let Some(piece) = pieces.get_mut(line.at.0).and_then(|p| p.get_mut(line.at.1)) {
                *piece = line.low.0;
            }
        }
        let stop = self.stop_behind(start);
        self.start = stop;
        let slice = Slice { index: self.index, start, stop: stop.unwrap_or(u64::MAX), pieces };
        self.index += 1;
        Some(slice)
    }

    /// Where the slice from `start` on ends; moves the lines there. `None`: not before the end.
    fn stop_behind(&mut self, start: u64) -> Option<u64> {
        let Plan { merges, lines, threads, .. } = self;
        // Towards the end slices are shorter, so that no thread is left with a long one while the others have none.
        let left = lines.iter().map(|l| (l.pieces - l.low.0.min(l.pieces)) / l.step.max(1)).max().unwrap_or(0);
        let part = (2 * *threads).saturating_sub(left).clamp(1, 4);
        let step = |l: &Line| (l.step / part).max(LEAST_PIECES.min(l.step)).max(1);
        // Coarse clocks: more until time goes on.
        for factor in [1, 4, 16, 256] {
            let highs: Vec<Option<(u64, u64)>> =
                lines.iter().map(|l| filled(merges, l, l.low.0 + step(l) * factor)).collect();
            // The slice ends behind the first record of a piece, so that the next one begins in that piece.
            let stop = highs.iter().flatten().map(|(_, ts)| ts.saturating_add(1)).min()?;
            if stop <= start {
                continue;
            }
            for (line, high) in lines.iter_mut().zip(&highs) {
                line.low = low(merges, line, *high, stop);
            }
            return Some(stop);
        }
        None
    }
}

fn input(merges: &[Merge], (m, i): (usize, usize)) -> Option<&Input> {
    merges.get(m)?.inputs().get(i)
}

/// Corrected time of a piece.
fn time(merges: &[Merge], line: &Line, piece: u64) -> Option<u64> {
    let input = input(merges, line.at).filter(|_| piece < line.pieces)?;
    input.stream.piece_ts(piece).map(|ts| input.time.correct(ts))
}

/// The first piece from `piece` on that has records, and its time.
fn filled(merges: &[Merge], line: &Line, piece: u64) -> Option<(u64, u64)> {
    (piece..line.pieces.min(piece + EMPTY)).find_map(|p| Some((p, time(merges, line, p)?)))
}

/// A late piece of a line that begins before `stop`; the one it stands at when none is found.
fn low(merges: &[Merge], line: &Line, high: Option<(u64, u64)>, stop: u64) -> (u64, Option<u64>) {
    let (from, from_ts) = line.low;
    let (mut low, mut end) = ((from, from_ts), high.map_or(line.pieces, |h| h.0));
    if let Some((piece, ts)) = high {
        if ts < stop {
            return (piece, Some(ts));
        }
        if let Some(begin) = from_ts.filter(|b| *b < stop) {
            // Where it would be if records came evenly; a little before.
            let part = u128::from(stop - begin) * u128::from(piece - from) / u128::from((ts - begin).max(1));
            let guess = from + u64::try_from(part).unwrap_or(0);
            for at in [guess, guess.saturating_sub(1)] {
                if at > from
                    && at < piece
                    && let Some(ts) = time(merges, line, at).filter(|ts| *ts < stop)
                {
                    return (at, Some(ts));
                }
            }
            end = end.min(guess.saturating_sub(1).max(from + 1));
        }
    }
    while end - low.0 > 1 {
        let middle = low.0 + (end - low.0) / 2;
        match time(merges, line, middle) {
            Some(ts) if ts < stop => low = (middle, Some(ts)),
            _ => end = middle,
        }
    }
    low
}
