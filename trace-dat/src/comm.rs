//! Process names: pid to comm, from saved_cmdlines and learnt from events.
//!
//! `saved_cmdlines` has one process to a line: pid, a blank, the name. While events are printed, `sched_switch` and
//! `sched_wakeup` tell the names of more processes; these count from the next shown record on.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustc_hash::FxHashMap;

use crate::Result;

/// Name of a pid that nothing is known about.
pub const UNKNOWN: &[u8] = b"<...>";
/// Name of pid 0.
pub const IDLE: &[u8] = b"<idle>";

/// Learnt names are bounded by Linux' own limit of pids (`PID_MAX_LIMIT`).
const MAX_LEARNT: usize = 1 << 22;
const BUCKETS: usize = 1 << 12;

/// A name that an event told.
#[derive(Debug)]
struct Learnt {
    pid: i32,
    /// Position in the output of the event that told it.
    seq: u64,
    name: Box<[u8]>,
    next: OnceLock<Box<Learnt>>,
}

impl Drop for Learnt {
    fn drop(&mut self) {
        // Take long chains apart one by one instead of by recursion.
        let mut next = self.next.take();
        while let Some(mut node) = next {
            next = node.next.take();
        }
    }
}

/// Names by pid. Reading and learning may go on at the same time in different threads.
pub struct Comms {
    load: Box<dyn Fn() -> Result<Vec<u8>> + Send + Sync>,
    saved: OnceLock<Saved>,
    learnt: OnceLock<Box<[OnceLock<Box<Learnt>>]>>,
    count: AtomicUsize,
    /// Makes it impossible to choose pids that all fall into one bucket.
    key: u64,
}

#[derive(Debug, Default)]
struct Saved {
    text: Vec<u8>,
    by_pid: FxHashMap<i32, (u32, u32)>,
    /// All lines in the order of the text.
    lines: Vec<(i32, u32, u32)>,
}

impl std::fmt::Debug for Comms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Comms")
            .field("saved", &self.saved.get().map(|s| s.by_pid.len()))
            .field("learnt", &self.count)
            .finish_non_exhaustive()
    }
}

impl Default for Comms {
    fn default() -> Self {
        Comms::new(|| Ok(Vec::new()))
    }
}

impl Comms {
    /// Names of a saved_cmdlines text that is loaded when the first name is asked for. A text that cannot be loaded counts as empty.
    pub fn new(load: impl Fn() -> Result<Vec<u8>> + Send + Sync + 'static) -> Self {
        Comms {
            load: Box::new(load),
            saved: OnceLock::new(),
            learnt: OnceLock::new(),
            count: AtomicUsize::new(0),
            key: RandomState::new().hash_one(0),
        }
    }

    fn saved(&self) -> &Saved {
        self.saved.get_or_init(|| {
            let text = (self.load)().unwrap_or_else(|e| {
                log::warn!("command lines: {e}");
                Vec::new()
            });
            Saved::parse(text)
        })
    }

    /// The name of `pid` for the record at position `seq` of the output: what was saved, or what an event before `seq` told.
    /// `<idle>` for 0, `<...>` when nothing is known.
    #[inline]
    pub fn get(&self, pid: i32, seq: u64) -> &[u8] {
        self.lookup(pid, seq).unwrap_or(UNKNOWN)
    }

    /// As [`Comms::get`], `None` for a pid that nothing is known about.
    pub fn lookup(&self, pid: i32, seq: u64) -> Option<&[u8]> {
        if pid == 0 {
            return Some(IDLE);
        }
        let saved = self.saved();
        if let Some((start, end)) = saved.by_pid.get(&pid) {
            return saved.text.get(*start as usize..*end as usize);
        }
        self.find_learnt(pid).filter(|l| l.seq < seq).map(|l| &*l.name)
    }

    fn bucket(&self, pid: i32) -> Option<&OnceLock<Box<Learnt>>> {
        // Multiply and shift: the upper bits choose.
        let hash = (u64::from(pid as u32)).wrapping_mul(self.key | 1).wrapping_add(self.key.rotate_left(32));
        self.learnt.get()?.get((hash >> 52) as usize % BUCKETS)
    }

    fn find_learnt(&self, pid: i32) -> Option<&Learnt> {
        let mut node = self.bucket(pid)?.get()?;
        while node.pid != pid {
            node = node.next.get()?;
        }
        Some(node)
    }

    /// Remembers a name told by the event at position `seq` of the output. The first name of a pid stays; pid 0 is always `<idle>`.
    ///
    /// To be called in order of `seq` by one thread.
    pub fn learn(&self, pid: i32, seq: u64, name: &[u8]) {
        if pid == 0 || self.saved().by_pid.contains_key(&pid) {
            return;
        }
        self.learnt.get_or_init(|| (0..BUCKETS).map(|_| OnceLock::new()).collect());
        let Some(mut slot) = self.bucket(pid) else { return };
        while let Some(node) = slot.get() {
            if node.pid == pid {
                return;
            }
            slot = &node.next;
        }
        if self.count.fetch_add(1, Ordering::Relaxed) < MAX_LEARNT {
            let _ = slot.set(Box::new(Learnt { pid, seq, name: name.into(), next: OnceLock::new() }));
        }
    }

    /// How many names were learnt from events; a cache of unknown names is valid as long as this does not change.
    #[inline]
    pub fn learnt_count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The saved names in the order of the text.
    pub fn saved_names(&self) -> impl Iterator<Item = (i32, &[u8])> {
        let saved = self.saved();
        saved.lines.iter().filter_map(|(pid, start, end)| Some((*pid, saved.text.get(*start as usize..*end as usize)?)))
    }

    /// The pids whose saved name is `name`.
    pub fn pids_of(&self, name: &[u8]) -> Vec<i32> {
        self.saved_names().filter(|(_, n)| *n == name).map(|(pid, _)| pid).collect()
    }
}

impl Saved {
    fn parse(text: Vec<u8>) -> Saved {
        let mut lines = Vec::new();
        let mut start = 0;
        while let Some(rest) = text.get(start..).filter(|r| !r.is_empty()) {
            let len = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            if let Some((pid, at)) = rest.get(..len).and_then(parse_pid)
                && let (Ok(from), Ok(to)) = (u32::try_from(start + at), u32::try_from(start + len))
            {
                lines.push((pid, from, to));
            }
            start += len + 1;
        }
        // Of several names of one pid the reference shows the one its binary search meets in the list sorted by
        // pid, later lines first.
        let mut sorted = lines.clone();
        sorted.reverse();
        sorted.sort_by_key(|l| l.0);
        let mut by_pid: FxHashMap<i32, (u32, u32)> = sorted.iter().map(|l| (l.0, (l.1, l.2))).collect();
        if by_pid.len() < sorted.len() {
            for group in sorted.chunk_by(|a, b| a.0 == b.0).filter(|g| g.len() > 1) {
                if let Some(pid) = group.first().map(|l| l.0)
                    && let Some(place) = search(&sorted, pid)
                {
                    by_pid.insert(pid, place);
                }
            }
        }
        Saved { text, by_pid, lines }
    }
}

fn search(sorted: &[(i32, u32, u32)], pid: i32) -> Option<(u32, u32)> {
    let (mut low, mut high) = (0, sorted.len());
    while low < high {
        let mid = (low + high) / 2;
        let line = sorted.get(mid)?;
        match pid.cmp(&line.0) {
            std::cmp::Ordering::Less => high = mid,
            std::cmp::Ordering::Greater => low = mid + 1,
            std::cmp::Ordering::Equal => return Some((line.1, line.2)),
        }
    }
    None
}

/// The pid at the start of a line and where the name begins.
fn parse_pid(line: &[u8]) -> Option<(i32, usize)> {
    let blanks =
        |from: usize| line.get(from..).unwrap_or_default().iter().take_while(|b| b.is_ascii_whitespace()).count();
    let mut at = blanks(0);
    let negative = line.get(at) == Some(&b'-');
    at += usize::from(negative);
    let digits = line.get(at..)?.iter().take_while(|b| b.is_ascii_digit()).count();
    let pid =
        line.get(at..at + digits)?.iter().fold(0i64, |v, d| v.wrapping_mul(10).wrapping_add(i64::from(*d - b'0')));
    at += digits;
    at += blanks(at);
    if digits == 0 || at >= line.len() {
        return None;
    }
    Some(((if negative { pid.wrapping_neg() } else { pid }) as i32, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saved_names_are_found() {
        let c = Comms::new(|| {
            Ok(b"1 one\n2 two words here\n3\n 4  four\n5 a\n5 b\n-7 neg\nx bad\n6\tsix \n0 zero\n".into())
        });
        for (pid, name) in
            [(0, "<idle>"), (1, "one"), (2, "two words here"), (3, "<...>"), (4, "four"), (6, "six "), (-7, "neg")]
        {
            assert_eq!(c.get(pid, 0), name.as_bytes(), "{pid}");
        }
        assert_eq!(c.pids_of(b"one"), [1]);
    }

    #[test]
    fn of_several_names_the_binary_search_decides() {
        let c = Comms::new(|| Ok(b"5 a\n5 b\n5 c\n5 d\n6 e".into()));
        assert_eq!(c.get(5, 0), b"b");
        let c = Comms::new(|| Ok(b"1 one\n1 oneb\n2 two\n".into()));
        assert_eq!(c.get(1, 0), b"one");
    }

    #[test]
    fn learnt_names_count_from_the_next_record_on() {
        let c = Comms::new(|| Ok(b"1 one\n".into()));
        c.learn(1, 5, b"other");
        c.learn(9, 5, b"nine");
        c.learn(9, 6, b"late");
        c.learn(9 + BUCKETS as i32, 7, b"same bucket");
        assert_eq!(c.get(1, 10), b"one");
        assert_eq!(c.get(9, 5), UNKNOWN);
        assert_eq!(c.get(9, 6), b"nine");
        assert_eq!(c.get(9 + BUCKETS as i32, 8), b"same bucket");
        assert_eq!(c.learnt_count(), 2);
    }
}
