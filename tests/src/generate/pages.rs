//! Fills sub-buffers with the records of a script.

use trace_dat::Endian;

use super::{Amount, Plan, script::Script};

/// Time of the first events, in nanoseconds.
const START: u64 = 1_000_000_000_000;
/// Sub-buffers are handed over in batches of about so many bytes.
const BATCH: usize = 512 << 10;
/// Of the commit word: events were lost before this sub-buffer, and how many is said behind the data.
const LOST: u64 = 1 << 31 | 1 << 30;

/// The sub-buffers of one CPU.
pub struct Pages {
    endian: Endian,
    long: usize,
    size: usize,
    /// Bytes for records in each sub-buffer.
    room: usize,
    lost_every: u64,
    hole: u64,
    step_ns: u64,
    seed: u64,
    /// A batch of sub-buffers.
    batch: Vec<u8>,
    /// How much of each sub-buffer of the batch is not zero.
    dirty: Vec<usize>,
    /// The sub-buffer of the batch that is being filled, and where its next record begins.
    at: usize,
    pos: usize,
    page_ts: u64,
    subbufs: u64,
    /// Events so far.
    pub events: u64,
    /// Bytes handed over.
    pub bytes: u64,
    /// Time of the first event.
    pub first_ts: u64,
    /// Time of the last event.
    pub ts: u64,
}

impl Pages {
    pub fn new(plan: &Plan, script: &Script) -> Pages {
        let size = plan.subbuf_size as usize;
        let head = 8 + script.long_size.bytes();
        let count = (BATCH / size).max(1);
        let room = (size - head).min(plan.fill.map_or(usize::MAX, |f| f as usize));
        Pages {
            endian: script.endian,
            long: script.long_size.bytes(),
            size,
            // The number of lost events stands behind the data.
            room: if plan.lost_every > 0 { room - script.long_size.bytes() } else { room },
            lost_every: plan.lost_every,
            hole: plan.hole / size as u64,
            step_ns: plan.step_ns,
            seed: plan.seed,
            batch: vec![0; count * size],
            dirty: vec![0; count],
            at: 0,
            pos: 0,
            page_ts: 0,
            subbufs: 0,
            events: 0,
            bytes: 0,
            first_ts: 0,
            ts: START,
        }
    }

    /// Fills the sub-buffers of `cpu`, the `part`th of `parts` that share the time.
    pub fn run(
        &mut self,
        script: &Script,
        cpu: u32,
        part: u64,
        amount: Amount,
        parts: u64,
        mut give: impl FnMut(&[u8]) -> trace_dat::Result<()>,
    ) -> trace_dat::Result<()> {
        let mut rng = fastrand::Rng::with_seed(self.seed ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let steps = script.steps(cpu);
        // Distances of the script times this, over 2^16, are on average what the plan wants.
        let scale = ((self.step_ns * parts) << 16) / script.mean(cpu);
        let subbufs = match amount {
            Amount::Bytes(n) => Some((n / self.size as u64).saturating_sub(self.hole).max(1)),
            Amount::Events(_) => None,
        };
        let events = match amount {
            Amount::Events(n) => n,
            Amount::Bytes(_) => u64::MAX,
        };
        let mut hole_at = subbufs.map_or(u64::MAX, |n| n / 2);
        self.ts += rng.u64(..self.step_ns * parts + 1);
        let mut i = rng.usize(..steps.len());
        loop {
            let step = &steps[i];
            i = if i + 1 == steps.len() { 0 } else { i + 1 };
            // From half to one and a half times the distance of the script.
            let mean = step.delta.saturating_mul(scale) >> 16;
            let delta = ((mean * (512 + rng.u64(..1024))) >> 10).max(1);
            let ts = self.ts + delta;
            let data = script.bytes(step);
            if !self.push(ts, data) {
                self.close();
                if subbufs.is_some_and(|n| self.subbufs >= n) {
                    break;
                }
                if self.subbufs >= hole_at || subbufs.is_none() && self.hole > 0 && self.events >= events / 2 {
                    (hole_at, self.hole) = (u64::MAX, self.give_hole(&mut give)?);
                }
                if self.at == self.dirty.len() {
                    self.give(&mut give)?;
                }
                assert!(self.push(ts, data), "a record of {} bytes has no place in a sub-buffer", data.len());
            }
            if self.events == events {
                self.close();
                break;
            }
        }
        self.give(&mut give)
    }

    /// Hands over what there is and sub-buffers of zeros; how many are still to be made: none.
    fn give_hole(&mut self, give: &mut impl FnMut(&[u8]) -> trace_dat::Result<()>) -> trace_dat::Result<u64> {
        self.give(give)?;
        let zeros = vec![0; self.batch.len()];
        let mut rest = self.hole * self.size as u64;
        self.bytes += rest;
        while rest > 0 {
            let n = rest.min(zeros.len() as u64);
            give(&zeros[..n as usize])?;
            rest -= n;
        }
        Ok(0)
    }

    fn give(&mut self, give: &mut impl FnMut(&[u8]) -> trace_dat::Result<()>) -> trace_dat::Result<()> {
        let n = self.at * self.size;
        self.bytes += n as u64;
        self.at = 0;
        give(&self.batch[..n])
    }

    #[inline]
    fn word(&self, type_len: u32, delta: u32) -> [u8; 4] {
        match self.endian {
            Endian::Little => (type_len | delta << 5).to_le_bytes(),
            Endian::Big => (type_len << 27 | delta).to_be_bytes(),
        }
    }

    /// Appends a record; false when the sub-buffer is full.
    #[inline]
    fn push(&mut self, ts: u64, data: &[u8]) -> bool {
        let base = self.at * self.size + 8 + self.long;
        let delta = if self.pos == 0 { 0 } else { ts - self.ts };
        let extend = delta >= 1 << 27;
        let short = data.len() <= 112;
        let need = data.len() + 4 + if extend { 8 } else { 0 } + if short { 0 } else { 4 };
        if self.pos + need > self.room {
            return false;
        }
        if self.pos == 0 {
            self.page_ts = ts;
        }
        let mut at = base + self.pos;
        let mut put = |page: &mut [u8], bytes: &[u8]| {
            page[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        if extend {
            let (low, high) = ((delta & ((1 << 27) - 1)) as u32, (delta >> 27) as u32);
            let head = self.word(30, low);
            put(&mut self.batch, &head);
            put(&mut self.batch, &self.endian.from_u32(high));
        }
        let delta = if extend { 0 } else { delta as u32 };
        let head = self.word(if short { data.len() as u32 / 4 } else { 0 }, delta);
        put(&mut self.batch, &head);
        if !short {
            put(&mut self.batch, &self.endian.from_u32(data.len() as u32 + 4));
        }
        put(&mut self.batch, data);
        self.pos += need;
        if self.events == 0 {
            self.first_ts = ts;
        }
        self.ts = ts;
        self.events += 1;
        true
    }

    /// Ends the sub-buffer: its header, and zeros where an earlier one had more.
    fn close(&mut self) {
        if self.pos == 0 {
            return;
        }
        let base = self.at * self.size;
        let (head, page) = (8 + self.long, &mut self.batch[base..base + self.size]);
        let mut end = head + self.pos;
        let mut commit = self.pos as u64;
        let long = |v: u64| match self.long {
            4 => self.endian.from_u32(v as u32).to_vec(),
            _ => self.endian.from_u64(v).to_vec(),
        };
        self.subbufs += 1;
        if self.lost_every > 0 && self.subbufs.is_multiple_of(self.lost_every) {
            commit |= LOST;
            page[end..end + self.long].copy_from_slice(&long(1 + self.subbufs % 1000));
            end += self.long;
        }
        page[..8].copy_from_slice(&self.endian.from_u64(self.page_ts));
        page[8..head].copy_from_slice(&long(commit));
        let before = std::mem::replace(&mut self.dirty[self.at], end);
        if before > end {
            page[end..before].fill(0);
        }
        self.at += 1;
        self.pos = 0;
    }
}
