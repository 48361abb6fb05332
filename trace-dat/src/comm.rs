//! Process names: pid to comm, from saved_cmdlines and learnt from events.
//!
//! `saved_cmdlines` has one process to a line: pid, a blank, the name. While events are printed, `sched_switch` and
//! `sched_wakeup` tell the names of more processes; these count from the next shown record on.
//!
//! Which of several names of one pid is shown follows the reference. Its names are a list until the first one is asked for:
//! what events tell before that (those of the idle task, whose name needs no list) is put in front, even when the pid is saved
//! already. The list is then sorted by pid, and a binary search takes whichever name it meets; later on only names of unknown
//! pids are added, which moves the others, so that the search may meet another one.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Mutex, OnceLock, PoisonError, RwLock,
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
/// Names told before the first one is asked for.
const MAX_EARLY: usize = 1 << 16;
/// In longer lists pids with several names keep the one that was met first.
const MAX_FOLLOWED: usize = 1 << 16;

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
    /// What was told before the first name was asked for: pid, position in the output, name.
    early: Mutex<Vec<Early>>,
    learnt: OnceLock<Box<[OnceLock<Box<Learnt>>]>>,
    count: AtomicUsize,
    /// Makes it impossible to choose pids that all fall into one bucket.
    key: u64,
}

type Early = (i32, u64, Box<[u8]>);

#[derive(Debug, Default)]
struct Saved {
    text: Vec<u8>,
    by_pid: FxHashMap<i32, (u32, u32)>,
    /// All lines in the order of the text.
    lines: Vec<(i32, u32, u32)>,
    /// The pids with several names.
    several: FxHashMap<i32, Several>,
    /// All pids, sorted, one for each name; empty when no pid has several names.
    pids: Mutex<Vec<i32>>,
}

/// The names of one pid, as they stand in the sorted list.
#[derive(Debug)]
struct Several {
    names: Vec<Box<[u8]>>,
    /// Which one is met: number of the name, and the position in the output from which on it is.
    met: RwLock<Vec<(u64, usize)>>,
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
            early: Mutex::default(),
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
            let early = std::mem::take(&mut *self.early.lock().unwrap_or_else(PoisonError::into_inner));
            let saved = Saved::parse(text, &early);
            for (pid, seq, name) in early {
                if pid != 0 && !saved.by_pid.contains_key(&pid) {
                    self.remember(pid, seq, &name);
                }
            }
            saved
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
        if let Some(several) = saved.several.get(&pid) {
            return several.name(seq);
        }
        if let Some((start, end)) = saved.by_pid.get(&pid) {
            return saved.text.get(*start as usize..*end as usize);
        }
        self.find_learnt(pid).filter(|l| l.seq < seq).map(|l| &*l.name)
    }

    /// Whether the name of `pid` may be another one for a later record, although it is known.
    pub fn may_change(&self, pid: i32) -> bool {
        self.saved.get().is_some_and(|s| s.several.contains_key(&pid))
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

    /// Remembers a name told by the event at position `seq` of the output. When names were asked for already, the first name
    /// of a pid stays; pid 0 is always `<idle>`.
    ///
    /// To be called in order of `seq` by one thread.
    pub fn learn(&self, pid: i32, seq: u64, name: &[u8]) {
        let Some(saved) = self.saved.get() else {
            let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
            if early.len() < MAX_EARLY {
                early.push((pid, seq, name.into()));
            }
            return;
        };
        if pid != 0 && !saved.by_pid.contains_key(&pid) && self.remember(pid, seq, name) && !saved.several.is_empty() {
            saved.insert(pid, seq);
        }
    }

    /// False when the pid has a name.
    fn remember(&self, pid: i32, seq: u64, name: &[u8]) -> bool {
        self.learnt.get_or_init(|| (0..BUCKETS).map(|_| OnceLock::new()).collect());
        let Some(mut slot) = self.bucket(pid) else { return false };
        while let Some(node) = slot.get() {
            if node.pid == pid {
                return false;
            }
            slot = &node.next;
        }
        self.count.fetch_add(1, Ordering::Relaxed) < MAX_LEARNT
            && slot.set(Box::new(Learnt { pid, seq, name: name.into(), next: OnceLock::new() })).is_ok()
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

    /// The pids whose saved name is `name`. Does not count as asking for a name.
    pub fn pids_of(&self, name: &[u8]) -> Vec<i32> {
        let parsed;
        let saved = match self.saved.get() {
            Some(saved) => saved,
            None => {
                parsed = Saved::parse((self.load)().unwrap_or_default(), &[]);
                &parsed
            }
        };
        let text = |(from, to): (u32, u32)| saved.text.get(from as usize..to as usize);
        saved.lines.iter().filter(|(_, from, to)| text((*from, *to)) == Some(name)).map(|(pid, ..)| *pid).collect()
    }
}

impl Saved {
    fn parse(text: Vec<u8>, early: &[Early]) -> Saved {
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
        let by_pid: FxHashMap<i32, (u32, u32)> = lines.iter().map(|l| (l.0, (l.1, l.2))).collect();
        let mut saved = Saved { text, by_pid, lines, several: FxHashMap::default(), pids: Mutex::default() };
        saved.find_several(early);
        saved
    }

    /// Sorts all names by pid, those told last first, and notes the pids that have several.
    fn find_several(&mut self, early: &[Early]) {
        let told = early.iter().map(|(pid, _, name)| (*pid, &**name));
        let line = |l: &(i32, u32, u32)| (l.0, self.text.get(l.1 as usize..l.2 as usize).unwrap_or_default());
        let mut all: Vec<(i32, &[u8])> = self.lines.iter().map(line).chain(told).rev().collect();
        if early.is_empty() && self.by_pid.len() == all.len() {
            return;
        }
        all.sort_by_key(|(pid, _)| *pid);
        let pids: Vec<i32> = all.iter().map(|(pid, _)| *pid).collect();
        let mut several = FxHashMap::default();
        let mut first = 0;
        for group in all.chunk_by(|a, b| a.0 == b.0) {
            if let [(pid, _), _, ..] = group {
                let met = search(&pids, *pid).saturating_sub(first);
                let names = group.iter().map(|(_, name)| Box::from(*name)).collect();
                several.insert(*pid, Several { names, met: RwLock::new(vec![(0, met)]) });
            }
            first += group.len();
        }
        // The idle task has its own name.
        several.remove(&0);
        if !several.is_empty() {
            self.pids = Mutex::new(pids);
        }
        self.several = several;
    }

    /// A name was added that an event at `seq` told: looks again which names are met.
    fn insert(&self, pid: i32, seq: u64) {
        let mut pids = self.pids.lock().unwrap_or_else(PoisonError::into_inner);
        if pids.len() >= MAX_FOLLOWED {
            return;
        }
        let at = pids.partition_point(|p| *p < pid);
        pids.insert(at, pid);
        for (pid, several) in &self.several {
            let first = pids.partition_point(|p| p < pid);
            several.meet(seq, search(&pids, *pid).saturating_sub(first));
        }
    }
}

impl Several {
    fn name(&self, seq: u64) -> Option<&[u8]> {
        let met = self.met.read().unwrap_or_else(PoisonError::into_inner);
        let (_, name) = met.iter().rev().find(|(from, _)| *from <= seq)?;
        self.names.get(*name).map(|n| &**n)
    }

    /// Says which name is met behind position `seq`.
    fn meet(&self, seq: u64, name: usize) {
        let mut met = self.met.write().unwrap_or_else(PoisonError::into_inner);
        if met.last().is_none_or(|(_, last)| *last != name) {
            met.push((seq + 1, name));
        }
    }
}

/// Where C's `bsearch` finds `pid`, which is there.
fn search(sorted: &[i32], pid: i32) -> usize {
    let (mut low, mut high) = (0, sorted.len());
    while low < high {
        let mid = (low + high) / 2;
        match sorted.get(mid).map(|p| pid.cmp(p)) {
            Some(std::cmp::Ordering::Less) => high = mid,
            Some(std::cmp::Ordering::Greater) => low = mid + 1,
            _ => return mid,
        }
    }
    low
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
        assert_eq!(c.get(1, 0), b"one");
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

    /// Saved pids, pids that events of the idle task told (previous and next), and what is then shown of a pid; seen with the
    /// reference.
    #[test]
    fn names_told_before_the_first_is_asked_for_rival_the_saved_ones() {
        for (saved, told, pid, name) in [
            (&[5][..], &[(0, 5)][..], 5, "l1"),
            (&[5], &[(9, 5)], 5, "s5"),
            (&[5], &[(3, 5)], 5, "l1"),
            (&[1], &[(0, 5), (0, 5)], 5, "l1"),
            (&[1], &[(0, 5), (0, 5), (0, 5)], 5, "l3"),
            (&[3, 9], &[(10, 9), (7, 8)], 9, "l1"),
            (&[3, 9], &[(0, 9), (7, 8)], 9, "s9"),
            (&[3, 9], &[(0, 9), (0, 8), (0, 7)], 9, "l1"),
            (&[3, 9], &[(0, 10), (0, 9), (0, 7), (0, 8)], 9, "s9"),
        ] {
            let text: String = saved.iter().map(|p| format!("{p} s{p}\n")).collect();
            let c = Comms::new(move || Ok(text.clone().into()));
            for (seq, (prev, next)) in told.iter().enumerate() {
                c.learn(*prev, seq as u64, format!("l{}", 2 * seq).as_bytes());
                c.learn(*next, seq as u64, format!("l{}", 2 * seq + 1).as_bytes());
            }
            assert_eq!(c.get(pid, 9), name.as_bytes(), "{saved:?} {told:?}");
            assert_eq!(c.get(3, 9), if saved.contains(&3) { b"s3" } else { c.get(3, 9) });
        }
    }

    #[test]
    fn names_that_are_added_later_move_the_others() {
        let c = Comms::new(|| Ok(b"2 s2\n3 s3\n14 s14\n".into()));
        c.learn(0, 0, b"idle");
        c.learn(14, 0, b"l14");
        // 0 2 3 14 14: the search meets the second name of 14; with one more pid behind it the first one.
        assert_eq!(c.get(14, 1), b"s14");
        c.learn(20, 5, b"l20");
        assert_eq!(c.get(14, 5), b"s14");
        assert_eq!(c.get(14, 6), b"l14");
        assert!(c.may_change(14) && !c.may_change(2));
    }
}
