//! What depends on earlier or later records, decided in the one pass over the shown records in output order.
//!
//! Function events are indented below their caller as far as the calls of the same CPU tell; a `funcgraph_entry`
//! directly followed by its exit becomes one line; scheduler events tell names of processes.

use super::{
    options::Ftrace,
    plugin_active,
    text::{Num, Text},
};
use crate::{Decoder, Record, format::Event};

/// Deepest indentation that is followed; kernels nest some dozen calls.
const MAX_LEVELS: usize = 4096;
/// CPUs beyond this share the state of one.
const MAX_CPUS: usize = 1 << 16;
/// Slots of the memory of pids whose name is known.
const SEEN: usize = 1024;
/// Slots of the memory of symbols.
const NAMES: usize = 4096;

/// What the sequential pass says about a record; becomes a [`super::Note`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Visit {
    /// Nothing.
    #[default]
    Plain,
    /// Nesting level of a function event.
    Indent(u32),
    /// The record that was peeked at is the exit of this leaf function: it is shown in the same line, and not again.
    Leaf,
}

/// What the sequential pass looks at for a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looks {
    /// Nothing.
    Not,
    /// The next record.
    Next,
    /// Records far before it; or it tells something about later ones.
    All,
}

/// Kinds of records that the pass looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Other,
    Function,
    Entry,
    Switch,
    Wakeup,
}

/// Two number fields of one event: what the names in the variants say.
#[derive(Clone, Copy, Debug)]
struct Pair {
    a: Num,
    b: Num,
}

/// pid and comm fields of one process in a scheduler event.
#[derive(Clone, Copy, Debug)]
struct Task {
    pid: Num,
    comm: Text,
}

/// What one machine's events look like.
#[derive(Debug)]
struct Machine {
    /// Address of the decoder: which machine this is.
    key: usize,
    kinds: Vec<Kind>,
    /// (id, ip and parent_ip) of `function` and `func_repeats`.
    functions: Vec<(u16, Pair)>,
    /// (id, func and common_pid) of `funcgraph_entry` and `fgraph_retaddr_entry`.
    entries: Vec<(u16, Pair)>,
    /// id, func and common_pid of `funcgraph_exit`.
    exit: Option<(u16, Pair)>,
    /// (id, the tasks it names) of the scheduler events.
    tasks: Vec<(u16, Vec<Task>)>,
    /// Direct-mapped: (address, hash of its symbol's name; 0 for none).
    names: Vec<(u64, u64)>,
    /// Direct-mapped: pids that need no learning.
    seen: Vec<i32>,
    /// `common_pid`, until a record of a task beside the idle one was shown: names are told before the first one is asked for.
    early: Option<Num>,
}

/// What makes a `funcgraph_exit` that directly follows an entry of one event the exit of that function, where all sizes are the usual ones.
#[derive(Clone, Copy, Debug)]
pub struct LeafRule {
    exit: [u8; 2],
    /// Offsets of func and common_pid in entry and exit.
    func: (usize, usize),
    pid: (usize, usize),
}

impl LeafRule {
    /// Whether `next`, the record behind the entry `rec`, is its exit.
    #[inline(always)]
    pub fn is_exit(&self, rec: &Record<'_>, next: &Record<'_>) -> bool {
        next.cpu == rec.cpu
            && next.data.first_chunk() == Some(&self.exit)
            && same::<8>(self.func, rec.data, next.data)
            && same::<4>(self.pid, rec.data, next.data)
    }
}

/// Whether both have the same bytes there.
#[inline(always)]
fn same<const N: usize>((a, b): (usize, usize), first: &[u8], second: &[u8]) -> bool {
    let at = |data: &[u8], at: usize| data.get(at..)?.first_chunk::<N>().copied();
    at(first, a).is_some_and(|bytes| at(second, b) == Some(bytes))
}

/// The state of the pass: one for a whole report, all its inputs included.
#[derive(Debug, Default)]
pub struct Sequencer {
    machines: Vec<Machine>,
    last: usize,
    /// How many machines wait for the first record whose process has a name.
    early: usize,
    /// For each CPU the names (as hashes) of the functions that are taken to be active.
    stacks: Vec<Vec<u64>>,
}

impl Sequencer {
    /// A pass that has seen nothing yet.
    pub fn new() -> Self {
        Sequencer::default()
    }

    /// Looks at the next shown record. `dec` must be the same object for all records of one machine and live as long as the pass.
    ///
    /// `seq` is the record's position in the output. `peek` returns the record that follows in the same file or
    /// instance, over all its CPUs, whether it will be shown or not; it is called for `funcgraph_entry` only.
    #[inline]
    pub fn visit<'p>(
        &mut self,
        dec: &Decoder,
        rec: &Record<'_>,
        seq: u64,
        peek: impl FnOnce() -> Option<Record<'p>>,
    ) -> Visit {
        self.choose_machine(dec);
        let Some(machine) = self.machines.get_mut(self.last) else { return Visit::Plain };
        let [a, b, ..] = *rec.data else { return Visit::Plain };
        let id = dec.endian().u16([a, b]);
        if machine.early.is_some() {
            machine.first_name(dec, id, rec.data, seq);
            self.early -= usize::from(machine.early.is_none());
        }
        match machine.kinds.get(usize::from(id)) {
            None | Some(Kind::Other) => Visit::Plain,
            Some(Kind::Function) => {
                let Some((child, parent)) = machine.call(dec, id, rec.data) else { return Visit::Plain };
                self.indent(rec.cpu, child, parent)
            }
            Some(Kind::Entry) => {
                if machine.is_leaf(dec, id, rec, peek) {
                    Visit::Leaf
                } else {
                    Visit::Plain
                }
            }
            Some(Kind::Switch | Kind::Wakeup) => {
                machine.learn(dec, id, rec.data, seq);
                Visit::Plain
            }
        }
    }

    /// Whether [`Sequencer::visit`] has to be called for every record, whatever its event: until the first one whose process has a name.
    #[inline(always)]
    pub fn is_early(&self) -> bool {
        self.early > 0
    }

    /// What [`Sequencer::visit`] looks at for records of this one's event. Where it is nothing, it need not be called, unless it
    /// [is early](Sequencer::is_early).
    pub fn looks_at(&mut self, dec: &Decoder, data: &[u8]) -> Looks {
        self.choose_machine(dec);
        let Some(machine) = self.machines.get(self.last) else { return Looks::All };
        let [a, b, ..] = *data else { return Looks::Not };
        match machine.kinds.get(usize::from(dec.endian().u16([a, b]))) {
            None | Some(Kind::Other) => Looks::Not,
            Some(Kind::Entry) => Looks::Next,
            Some(Kind::Function | Kind::Switch | Kind::Wakeup) => Looks::All,
        }
    }

    /// All that [`Sequencer::visit`] would do for an entry of this one's event, unless it [is early](Sequencer::is_early).
    pub fn leaf_rule(&mut self, dec: &Decoder, data: &[u8]) -> Option<LeafRule> {
        self.choose_machine(dec);
        let machine = self.machines.get(self.last)?;
        let endian = dec.endian();
        let id = endian.u16(*data.first_chunk()?);
        let (exit, theirs) = machine.exit?;
        let (_, ours) = machine.entries.iter().find(|e| e.0 == id)?;
        let sizes = (ours.a.size, theirs.a.size, ours.b.size, theirs.b.size);
        (sizes == (8, 8, 4, 4)).then(|| LeafRule {
            exit: endian.from_u16(exit),
            func: (ours.a.offset, theirs.a.offset),
            pid: (ours.b.offset, theirs.b.offset),
        })
    }

    /// Makes the machine of this decoder the last one used.
    #[inline(always)]
    fn choose_machine(&mut self, dec: &Decoder) {
        let key = std::ptr::from_ref(dec) as usize;
        if self.machines.get(self.last).is_none_or(|m| m.key != key) {
            self.find_machine(dec, key);
        }
    }

    #[cold]
    fn find_machine(&mut self, dec: &Decoder, key: usize) {
        self.last = match self.machines.iter().position(|m| m.key == key) {
            Some(at) => at,
            None => {
                let machine = Machine::new(dec, key);
                self.early += usize::from(machine.early.is_some());
                self.machines.push(machine);
                self.machines.len() - 1
            }
        };
    }

    /// The level of `child` called by `parent`: one below the place where the parent's name is found among the active
    /// functions of the CPU. When it is not there the list starts again. Entries behind the child stay, as in the reference.
    fn indent(&mut self, cpu: u32, child: u64, parent: u64) -> Visit {
        if parent == 0 {
            return Visit::Plain;
        }
        let cpu = (cpu as usize).min(MAX_CPUS);
        if self.stacks.len() <= cpu {
            self.stacks.resize_with(cpu + 1, Vec::new);
        }
        let Some(stack) = self.stacks.get_mut(cpu) else { return Visit::Plain };
        let found = stack.iter().position(|n| *n == parent);
        let mut put = |at: usize, name: u64| match stack.get_mut(at) {
            Some(slot) if name != 0 => *slot = name,
            None if name != 0 && at < MAX_LEVELS => stack.push(name),
            _ => {}
        };
        if found.is_none() {
            put(0, parent);
        }
        put(found.unwrap_or(0) + 1, child);
        Visit::Indent(found.unwrap_or(0) as u32)
    }
}

impl Machine {
    fn new(dec: &Decoder, key: usize) -> Machine {
        let mut m = Machine {
            key,
            kinds: Vec::new(),
            functions: Vec::new(),
            entries: Vec::new(),
            exit: None,
            tasks: Vec::new(),
            names: Vec::new(),
            seen: Vec::new(),
            early: None,
        };
        let find = |system: &str, name: &str| dec.find_event(Some(system), name).filter(|e| plugin_active(dec, e));
        let pair = |e: &Event, a: &str, b: &str| Some(Pair { a: Num::of(e, a)?, b: Num::of(e, b)? });
        if Ftrace::new(dec.options()).indent {
            for e in ["function", "func_repeats"].into_iter().filter_map(|n| find("ftrace", n)) {
                if let Some(p) = pair(e, "ip", "parent_ip") {
                    m.set(e.id, Kind::Function);
                    m.functions.push((e.id, p));
                }
            }
        }
        m.exit =
            dec.find_event(Some("ftrace"), "funcgraph_exit").and_then(|e| Some((e.id, pair(e, "func", "common_pid")?)));
        if m.exit.is_some() {
            for e in ["funcgraph_entry", "fgraph_retaddr_entry"].into_iter().filter_map(|n| find("ftrace", n)) {
                if let Some(p) = pair(e, "func", "common_pid") {
                    m.set(e.id, Kind::Entry);
                    m.entries.push((e.id, p));
                }
            }
        }
        let task = |e: &Event, pid: &str, comm: &str| Some(Task { pid: Num::of(e, pid)?, comm: Text::of(e, comm)? });
        for (name, kind) in
            [("sched_switch", Kind::Switch), ("sched_wakeup", Kind::Wakeup), ("sched_wakeup_new", Kind::Wakeup)]
        {
            let Some(e) = find("sched", name) else { continue };
            let tasks: Vec<Task> = if kind == Kind::Switch {
                [task(e, "prev_pid", "prev_comm"), task(e, "next_pid", "next_comm")].into_iter().flatten().collect()
            } else {
                task(e, "pid", "comm").into_iter().collect()
            };
            m.set(e.id, kind);
            m.tasks.push((e.id, tasks));
        }
        if !m.functions.is_empty() {
            m.names = vec![(u64::MAX, 0); NAMES];
        }
        if !m.tasks.is_empty() {
            m.seen = vec![0; SEEN]; // pid 0 needs no learning
            m.early = dec.events().find_map(|e| Num::of(e, "common_pid"));
        }
        m
    }

    fn set(&mut self, id: u16, kind: Kind) {
        let id = usize::from(id);
        if self.kinds.len() <= id {
            self.kinds.resize(id + 1, Kind::Other);
        }
        if let Some(k) = self.kinds.get_mut(id) {
            *k = kind;
        }
    }

    /// Hashes of the names of the function and its caller in a record.
    fn call(&mut self, dec: &Decoder, id: u16, data: &[u8]) -> Option<(u64, u64)> {
        let pair = self.functions.iter().find(|f| f.0 == id)?.1;
        let parent = self.name(dec, pair.b.get(dec.endian(), data));
        let child = self.name(dec, pair.a.get(dec.endian(), data));
        Some((child, parent))
    }

    /// Hash of the name of the function at `addr`, 0 when there is none.
    fn name(&mut self, dec: &Decoder, addr: u64) -> u64 {
        let slot = (addr ^ addr >> 12) as usize % NAMES;
        match self.names.get(slot) {
            Some((a, name)) if *a == addr => *name,
            _ => {
                let name = dec.symbols().name_at(addr).map_or(0, |n| hash(n.bytes()));
                if let Some(s) = self.names.get_mut(slot) {
                    *s = (addr, name);
                }
                name
            }
        }
    }

    fn is_leaf<'p>(&self, dec: &Decoder, id: u16, rec: &Record<'_>, peek: impl FnOnce() -> Option<Record<'p>>) -> bool {
        let (Some((exit, theirs)), Some((_, ours))) = (self.exit, self.entries.iter().find(|e| e.0 == id)) else {
            return false;
        };
        let Some(next) = peek() else { return false };
        let [a, b, ..] = *next.data else { return false };
        let endian = dec.endian();
        if endian.u16([a, b]) != exit || next.cpu != rec.cpu {
            return false;
        }
        if let (8, 8, 4, 4) = (ours.a.size, theirs.a.size, ours.b.size, theirs.b.size)
            && let (Some(func), Some(pid)) = (bytes::<8>(ours.a, rec.data), bytes::<4>(ours.b, rec.data))
        {
            // Of equal sizes and one byte order: the bytes tell.
            return bytes(theirs.a, next.data) == Some(func) && bytes(theirs.b, next.data) == Some(pid);
        }
        theirs.a.get(endian, next.data) == ours.a.get(endian, rec.data)
            && theirs.b.get(endian, next.data) == ours.b.get(endian, rec.data)
    }

    /// The name of the record's own task is shown: asks for it, so that names told from here on are late ones.
    #[cold]
    fn first_name(&mut self, dec: &Decoder, id: u16, data: &[u8], seq: u64) {
        let pid = self.early.map_or(0, |pid| pid.get(dec.endian(), data) as i32);
        if pid != 0 && dec.event(id).is_some() {
            dec.comms().lookup(pid, seq);
            self.early = None;
        }
    }

    fn learn(&mut self, dec: &Decoder, id: u16, data: &[u8], seq: u64) {
        let Some((_, tasks)) = self.tasks.iter().find(|t| t.0 == id) else { return };
        for task in tasks {
            let pid = task.pid.get(dec.endian(), data) as i32;
            if self.early.is_some() {
                dec.comms().learn(pid, seq, task.comm.text(dec.endian(), data));
                continue;
            }
            let Some(seen) = self.seen.get_mut(pid as u32 as usize % SEEN) else { continue };
            if *seen != pid {
                *seen = pid;
                dec.comms().learn(pid, seq, task.comm.text(dec.endian(), data));
            }
        }
    }
}

/// The bytes of a number.
#[inline(always)]
fn bytes<const N: usize>(of: Num, data: &[u8]) -> Option<[u8; N]> {
    data.get(of.offset..)?.first_chunk().copied()
}

/// FNV-1a over a name, never 0.
fn hash(name: &[u8]) -> u64 {
    name.iter().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)) | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indentation_follows_the_reference() {
        // caller, function, level; x and y have no name. Seen with the reference.
        let calls = [
            ("ab", 0),
            ("bc", 1),
            ("cd", 2),
            ("de", 3),
            ("bf", 1),
            ("cg", 0),
            ("dh", 3),
            ("fa", 2),
            ("aa", 3),
            ("ab", 3),
            ("xb", 0),
            ("bc", 4),
            ("bx", 4),
            ("xy", 0),
            ("cd", 0),
            ("ef", 0),
            ("ed", 0),
            ("ab", 3),
            ("ag", 3),
            ("gf", 4),
        ];
        let name = |c: char| if c == 'x' || c == 'y' { 0 } else { hash(&[c as u8]) };
        let mut s = Sequencer::new();
        for (call, level) in calls {
            let mut c = call.chars();
            let (parent, child) = (name(c.next().unwrap()), name(c.next().unwrap()));
            let got = match s.indent(0, child, parent) {
                Visit::Indent(n) => n,
                _ => 0,
            };
            assert_eq!(got, level, "{call}");
        }
        assert_eq!(s.indent(1, name('c'), name('b')), Visit::Indent(0));
        assert_eq!(s.indent(1, name('d'), name('c')), Visit::Indent(1));
    }
}
