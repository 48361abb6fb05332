//! `report --profile`: how long tasks were switched out, waited, ran in functions, system calls and interrupts.
//!
//! Pairs of events are timed: function entry and exit, system call entry and exit, interrupt entry and exit, soft interrupt
//! raised, entered and left, a task switched out and in again, woken and running. All other events are counted by their first
//! field. A kernel stack that follows an event goes into a tree below it.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use trace_dat::{Decoder, Record, format::Event};

use super::{hooks::Hook, stack_tree::StackTree};

/// First events that may wait for their second: nested calls, an interrupt raised again.
const MAX_NESTING: usize = 256;
/// Times that a task was switched out and not in again: idle tasks have one for each CPU, others where events were lost.
const MAX_OUT: usize = 4096;
/// Most return addresses of a stack that are used.
const MAX_STACK: usize = 256;

/// A number field's place.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    offset: usize,
    size: usize,
    signed: bool,
}

impl Place {
    /// The event's field of this name.
    pub fn of(event: &Event, name: &str) -> Option<Place> {
        let field = event.field(name)?;
        let signed = field.flags.contains(trace_dat::format::FieldFlags::SIGNED);
        Some(Place { offset: field.offset, size: field.size, signed })
    }

    /// The number, 0 when the record is too short.
    pub fn get(self, dec: &Decoder, data: &[u8]) -> u64 {
        dec.endian().uint(data, self.offset, self.size).unwrap_or(0)
    }

    fn get_signed(self, dec: &Decoder, data: &[u8]) -> i64 {
        let value = self.get(dec, data);
        if self.signed && self.size == 4 { i64::from(value as i32) } else { value as i64 }
    }
}

/// How the values of a kind of event are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Naming {
    /// `func: NAME()`
    Function,
    /// `EVENT:0xVALUE`
    Hex,
    /// `EVENT:VALUE`
    Decimal,
    /// `EVENT:` and the name of a soft interrupt.
    Softirq,
    /// `EVENT:` and the letters of a task's state.
    State,
}

/// Where the time between two events is kept until the second one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Scope {
    Task(i64),
    Cpu(u32),
    /// Anywhere: pairs of hooks.
    Global,
}

/// A group of lines: an event, and for switches the state. In the order of printing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Group {
    /// Switches and wakeups come before all other events.
    rank: Rank,
    id: u16,
    state: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Rank {
    Switch,
    Wakeup,
    Other,
}

impl Group {
    fn of(id: u16) -> Group {
        Group { rank: Rank::Other, id, state: 0 }
    }
}

/// Count and times of one line.
#[derive(Debug, Default)]
struct Entry {
    count: u64,
    timed: bool,
    total: u64,
    max: (u64, u64),
    min: (u64, u64),
    stacks: StackTree,
}

impl Entry {
    fn add(&mut self, time: u64, ts: u64) {
        if !self.timed || time > self.max.0 {
            self.max = (time, ts);
        }
        if !self.timed || time < self.min.0 {
            self.min = (time, ts);
        }
        self.timed = true;
        self.count += 1;
        self.total = self.total.wrapping_add(time);
    }
}

/// The lines of a task or a CPU.
#[derive(Debug, Default)]
struct Lines {
    groups: BTreeMap<Group, FxHashMap<u64, Entry>>,
}

/// A kernel stack: time of its record, and the addresses.
type Stack = (u64, Vec<u64>);

/// A first event that waits for its second.
#[derive(Clone, Debug)]
struct Start {
    ts: u64,
    /// Whose line it will be.
    owner: Scope,
    stack: Stack,
}

/// Which waiting start, or which count, the next stack record of a task belongs to.
#[derive(Clone, Copy, Debug)]
enum Last {
    Start(Key),
    Count(Scope, Group, u64),
}

/// Identity of a waiting start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    scope: Scope,
    pair: u32,
    value: u64,
}

/// A pair of events that are matched by a field.
#[derive(Debug)]
struct Pair {
    start: u16,
    start_match: Place,
    /// Whose value stands for the start's process; `common_pid` without it.
    start_pid: Option<Place>,
    end: u16,
    end_match: Place,
    naming: Naming,
    /// Both are events of one CPU, not of a task.
    per_cpu: bool,
    /// The times count for no task: for the CPU or, of a pair of `-H`, for all.
    global: bool,
    /// Its stacks are shown.
    stacks: bool,
}

/// The names of soft interrupts by number.
const SOFTIRQS: [&str; 10] =
    ["HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "BLOCK_IOPOLL", "TASKLET", "SCHED", "HRTIMER", "RCU"];
/// Letters of the bits of a task's state.
const STATES: &[u8; 10] = b"SDTtXZxKWP";
/// The bits that have letters.
const STATE_BITS: u64 = (1 << STATES.len()) - 1;

#[derive(Debug)]
struct Switch {
    id: u16,
    prev_pid: Place,
    prev_state: Option<Place>,
    next_pid: Place,
    prev_comm: Option<(usize, usize)>,
    next_comm: Option<(usize, usize)>,
}

#[derive(Debug)]
struct Wakeup {
    id: u16,
    pid: Place,
    success: Option<Place>,
    comm: Option<(usize, usize)>,
}

/// What is known of a task.
#[derive(Debug, Default)]
struct Task {
    comm: Option<Vec<u8>>,
    /// It was switched out to wait for something: only then it can be woken.
    sleeps: bool,
    /// Times of its wakeups since it ran last, with the waker's stack; the last one is taken first.
    woken: Vec<(u64, Stack)>,
}

/// What the next stack record of a task belongs to.
#[derive(Clone, Copy, Debug)]
enum StackOf {
    Pair(Last),
    Out(i64),
    Woken(i64),
}

/// The engine: sees all records, then prints.
#[derive(Debug)]
pub struct Profile {
    pairs: Vec<Pair>,
    /// Events of usual pairs whose other one is in a pair of `-H`: neither timed nor counted.
    ignored: Vec<u16>,
    switch: Option<Switch>,
    wakeup: Option<Wakeup>,
    exec: Option<(u16, Vec<Place>)>,
    function: Option<(u16, Place)>,
    stack: Option<(u16, usize)>,
    common_pid: Place,
    /// First own field of every event that was seen; `None`: the event is not in the file.
    first_fields: FxHashMap<u16, Option<Option<Place>>>,
    tasks: BTreeMap<i64, Task>,
    /// Time and state of tasks when they were switched out, with the stack. The idle tasks of all CPUs have one list. The
    /// last one that was switched out is taken to be the first that runs again, as in the reference.
    out: FxHashMap<i64, Vec<(u64, u64, Stack)>>,
    lines: FxHashMap<Scope, Lines>,
    cpus: BTreeMap<u32, ()>,
    starts: FxHashMap<Key, Vec<Start>>,
    last: FxHashMap<i64, StackOf>,
    by_comm: bool,
}

impl Profile {
    /// An engine for the events of `dec`. `global`: interrupts count for the CPU.
    pub fn new(dec: &Decoder, global: bool, by_comm: bool, hooks: &[Hook]) -> Profile {
        let find = |system: &str, name: &str| dec.find_event(Some(system), name);
        let mut pairs = Vec::new();
        let hooked: Vec<u16> = hooks.iter().flat_map(|h| h.events(dec)).collect();
        let mut ignored = Vec::new();
        let mut pair = |start: (&str, &str), end: (&str, &str), field: &str, naming, per_cpu: bool| {
            let (Some(s), Some(e)) = (find(start.0, start.1), find(end.0, end.1)) else { return };
            let (Some(start_match), Some(end_match)) = (Place::of(s, field), Place::of(e, field)) else { return };
            if hooked.contains(&s.id) || hooked.contains(&e.id) {
                ignored.extend([s.id, e.id]);
                return;
            }
            pairs.push(Pair {
                start: s.id,
                start_match,
                start_pid: None,
                end: e.id,
                end_match,
                naming,
                per_cpu,
                global: per_cpu,
                stacks: naming != Naming::Function,
            });
        };
        pair(("ftrace", "funcgraph_entry"), ("ftrace", "funcgraph_exit"), "func", Naming::Function, false);
        pair(("raw_syscalls", "sys_enter"), ("raw_syscalls", "sys_exit"), "id", Naming::Decimal, false);
        pair(("irq", "irq_handler_entry"), ("irq", "irq_handler_exit"), "irq", Naming::Hex, global);
        pair(("irq", "softirq_raise"), ("irq", "softirq_entry"), "vec", Naming::Softirq, global);
        pair(("irq", "softirq_entry"), ("irq", "softirq_exit"), "vec", Naming::Softirq, global);
        for hook in hooks {
            let Some((s, e)) = hook.find(dec) else { continue };
            let (Some(start_match), Some(end_match)) = (Place::of(s, &hook.start_match), Place::of(e, &hook.end_match))
            else {
                continue;
            };
            pairs.push(Pair {
                start: s.id,
                start_match,
                start_pid: hook.start_pid.as_deref().and_then(|f| Place::of(s, f)),
                end: e.id,
                end_match,
                naming: Naming::Hex,
                per_cpu: hook.per_cpu,
                global: hook.global,
                stacks: true,
            });
        }
        let text = |e: &Event, name: &str| e.field(name).map(|f| (f.offset, f.size));
        let switch = find("sched", "sched_switch").filter(|e| !hooked.contains(&e.id)).and_then(|e| {
            Some(Switch {
                id: e.id,
                prev_pid: Place::of(e, "prev_pid")?,
                prev_state: Place::of(e, "prev_state"),
                next_pid: Place::of(e, "next_pid")?,
                prev_comm: text(e, "prev_comm"),
                next_comm: text(e, "next_comm"),
            })
        });
        let wakeup = find("sched", "sched_wakeup").filter(|e| !hooked.contains(&e.id)).and_then(|e| {
            Some(Wakeup {
                id: e.id,
                pid: Place::of(e, "pid")?,
                success: Place::of(e, "success"),
                comm: text(e, "comm"),
            })
        });
        let exec = find("sched", "sched_process_exec")
            .map(|e| (e.id, ["pid", "old_pid"].into_iter().filter_map(|n| Place::of(e, n)).collect()));
        let function = find("ftrace", "function").and_then(|e| Some((e.id, Place::of(e, "ip")?)));
        let stack = find("ftrace", "kernel_stack").and_then(|e| Some((e.id, e.field("caller").map(|f| f.offset)?)));
        let common_pid =
            dec.events().find_map(|e| Place::of(e, "common_pid")).unwrap_or(Place { offset: 4, size: 4, signed: true });
        Profile {
            pairs,
            ignored,
            switch,
            wakeup,
            exec,
            function,
            stack,
            common_pid,
            first_fields: FxHashMap::default(),
            tasks: BTreeMap::new(),
            out: FxHashMap::default(),
            lines: FxHashMap::default(),
            cpus: BTreeMap::new(),
            starts: FxHashMap::default(),
            last: FxHashMap::default(),
            by_comm,
        }
    }

    /// Takes the next record; `ts` is its corrected time.
    pub fn see(&mut self, dec: &Decoder, rec: &Record<'_>, ts: u64) {
        let data = rec.data;
        let Some(id) = data.first_chunk::<2>().map(|b| dec.endian().u16(*b)) else { return };
        let pid = self.common_pid.get_signed(dec, data);
        // Of an event that is not in the file nothing is known.
        if !self.known(dec, id) {
            return;
        }
        if let Some((stack, at)) = self.stack
            && stack == id
        {
            self.add_stack(dec, pid, ts, data.get(at..).unwrap_or_default());
            return;
        }
        self.tasks.entry(pid).or_default();
        self.last.remove(&pid);
        if self.see_switch(dec, rec, id, ts, pid) || self.see_wakeup(dec, rec, id, ts, pid) {
            return;
        }
        if let Some((exec, fields)) = &self.exec
            && *exec == id
        {
            // The name changes; the next event that has it tells the new one.
            for p in fields.iter().map(|f| f.get_signed(dec, data)).collect::<Vec<_>>() {
                self.tasks.entry(p).or_default().comm = None;
            }
            return;
        }
        if let Some((function, ip)) = self.function
            && function == id
        {
            return self.count(pid, Group::of(id), ip.get(dec, data));
        }
        if !self.see_pairs(dec, rec, id, ts, pid) {
            let place = self.first_fields.get(&id).copied().flatten().flatten();
            self.count(pid, Group::of(id), place.map_or(0, |p| p.get(dec, data)));
        }
    }

    /// Whether the event is in the file; its first field is looked up with that, once.
    fn known(&mut self, dec: &Decoder, id: u16) -> bool {
        let first = |e: &Event| e.fields.first().map(|f| Place { offset: f.offset, size: f.size, signed: false });
        self.first_fields.entry(id).or_insert_with(|| dec.event(id).map(first)).is_some()
    }

    fn count(&mut self, pid: i64, group: Group, value: u64) {
        let scope = Scope::Task(pid);
        self.entry(scope, group, value).count += 1;
        self.last.insert(pid, StackOf::Pair(Last::Count(scope, group, value)));
    }

    fn entry(&mut self, scope: Scope, group: Group, value: u64) -> &mut Entry {
        if let Scope::Cpu(cpu) = scope {
            self.cpus.insert(cpu, ());
        }
        self.lines.entry(scope).or_default().groups.entry(group).or_default().entry(value).or_default()
    }

    /// True if the event is part of a pair.
    fn see_pairs(&mut self, dec: &Decoder, rec: &Record<'_>, id: u16, ts: u64, pid: i64) -> bool {
        let mut known = self.ignored.contains(&id);
        let mut done = Vec::new();
        for (n, pair) in self.pairs.iter().enumerate().filter(|(_, p)| p.end == id) {
            known = true;
            let value = pair.end_match.get(dec, rec.data);
            let scope = pair.scope(pid, rec.cpu);
            let key = Key { scope, pair: n as u32, value };
            if let Some(start) = self.starts.get_mut(&key).and_then(Vec::pop) {
                done.push((start, Group::of(pair.start), value, pair.stacks));
            }
        }
        for (start, group, value, stacks) in done {
            let time = ts.wrapping_sub(start.ts);
            let entry = self.entry(start.owner, group, value);
            entry.add(time, ts);
            if stacks && !start.stack.1.is_empty() {
                entry.stacks.add(&start.stack.1, Some((time, start.stack.0)));
            }
        }
        for (n, pair) in self.pairs.iter().enumerate().filter(|(_, p)| p.start == id) {
            known = true;
            let value = pair.start_match.get(dec, rec.data);
            let task = pair.start_pid.map_or(pid, |p| p.get_signed(dec, rec.data));
            self.tasks.entry(task).or_default();
            let scope = pair.scope(task, rec.cpu);
            let owner = match (pair.global, pair.per_cpu) {
                (true, true) => Scope::Cpu(rec.cpu),
                (true, false) => Scope::Global,
                _ => Scope::Task(task),
            };
            let key = Key { scope, pair: n as u32, value };
            let waiting = self.starts.entry(key).or_default();
            if waiting.len() >= MAX_NESTING {
                waiting.remove(0);
            }
            waiting.push(Start { ts, owner, stack: Stack::default() });
            self.last.insert(pid, StackOf::Pair(Last::Start(key)));
        }
        known
    }

    fn see_switch(&mut self, dec: &Decoder, rec: &Record<'_>, id: u16, ts: u64, pid: i64) -> bool {
        let data = rec.data;
        let Some(s) = self.switch.as_ref().filter(|s| s.id == id) else { return false };
        let (prev, next) = (s.prev_pid.get_signed(dec, data), s.next_pid.get_signed(dec, data));
        // Bits without a letter (`TASK_REPORT_MAX`: preempted) make no group of their own, as in the reference.
        let state = s.prev_state.map_or(0, |p| p.get(dec, data)) & STATE_BITS;
        let (prev_comm, next_comm) = (text(data, s.prev_comm), text(data, s.next_comm));
        let task = self.tasks.entry(prev).or_default();
        task.comm.get_or_insert(prev_comm);
        let out = self.out.entry(prev).or_default();
        if out.len() >= MAX_OUT {
            out.remove(0);
        }
        out.push((ts, state, Stack::default()));
        self.last.insert(pid, StackOf::Out(prev));
        let task = self.tasks.entry(next).or_default();
        task.comm.get_or_insert(next_comm);
        let woken = task.woken.pop();
        self.tasks.entry(prev).or_default().sleeps = state != 0;
        self.switched_in(id, next, ts);
        if let (Some((start, stack)), Some(wakeup)) = (woken, self.wakeup.as_ref().map(|w| w.id)) {
            let time = ts.wrapping_sub(start);
            let value = if self.by_comm { 0 } else { next as u64 };
            let entry = self.entry(Scope::Task(next), Group { rank: Rank::Wakeup, ..Group::of(wakeup) }, value);
            entry.add(time, ts);
            if !stack.1.is_empty() {
                entry.stacks.add(&stack.1, Some((time, stack.0)));
            }
        }
        true
    }

    /// Ends the time that a task was switched out: it runs again, or it was woken.
    fn switched_in(&mut self, id: u16, pid: i64, ts: u64) {
        let Some((start, state, stack)) = self.out.get_mut(&pid).and_then(Vec::pop) else { return };
        let time = ts.wrapping_sub(start);
        let entry = self.entry(Scope::Task(pid), Group { rank: Rank::Switch, id, state }, state);
        entry.add(time, ts);
        if !stack.1.is_empty() {
            entry.stacks.add(&stack.1, Some((time, stack.0)));
        }
    }

    /// A wakeup of a task that was not seen to go to sleep only makes it known, as in the reference.
    fn see_wakeup(&mut self, dec: &Decoder, rec: &Record<'_>, id: u16, ts: u64, pid: i64) -> bool {
        let data = rec.data;
        let Some(w) = self.wakeup.as_ref().filter(|w| w.id == id) else { return false };
        if w.success.is_some_and(|s| s.get(dec, data) == 0) {
            return true;
        }
        let woken = w.pid.get_signed(dec, data);
        let comm = text(data, w.comm);
        match self.tasks.get_mut(&woken) {
            Some(task) => {
                task.comm.get_or_insert(comm);
                if std::mem::take(&mut task.sleeps) {
                    if task.woken.len() >= MAX_NESTING {
                        task.woken.remove(0);
                    }
                    task.woken.push((ts, Stack::default()));
                    self.last.insert(pid, StackOf::Woken(woken));
                    if let Some(switch) = self.switch.as_ref().map(|s| s.id) {
                        self.switched_in(switch, woken, ts);
                    }
                }
            }
            None => {
                self.tasks.insert(woken, Task { comm: Some(comm), ..Task::default() });
            }
        }
        true
    }

    fn add_stack(&mut self, dec: &Decoder, pid: i64, ts: u64, bytes: &[u8]) {
        let Some(of) = self.last.remove(&pid) else { return };
        let size = dec.long_size().bytes();
        let end = if size == 8 { u64::MAX } else { u64::from(u32::MAX) };
        let stack: Vec<u64> = bytes
            .chunks_exact(size)
            .map(|w| dec.endian().uint(w, 0, size).unwrap_or(end))
            .take_while(|a| *a != end)
            .take(MAX_STACK)
            .collect();
        match of {
            StackOf::Out(task) => {
                if let Some(out) = self.out.get_mut(&task).and_then(|out| out.last_mut()) {
                    out.2 = (ts, stack);
                }
            }
            StackOf::Woken(task) => {
                if let Some(woken) = self.tasks.get_mut(&task).and_then(|t| t.woken.last_mut()) {
                    woken.1 = (ts, stack);
                }
            }
            StackOf::Pair(Last::Start(key)) => {
                if let Some(start) = self.starts.get_mut(&key).and_then(|s| s.last_mut()) {
                    start.stack = (ts, stack);
                }
            }
            StackOf::Pair(Last::Count(scope, group, value)) => {
                if !stack.is_empty() {
                    self.entry(scope, group, value).stacks.add(&stack, None);
                }
            }
        }
    }

    /// Appends the result.
    pub fn print(&self, dec: &Decoder, out: &mut Vec<u8>) {
        if self.lines.contains_key(&Scope::Global) {
            out.extend_from_slice(b"Global Events\n");
            self.print_lines(dec, &[Scope::Global], out);
        }
        for cpu in self.cpus.keys() {
            out.extend_from_slice(format!("Global CPU[{cpu}] Events\n").as_bytes());
            self.print_lines(dec, &[Scope::Cpu(*cpu)], out);
        }
        let comm = |pid: i64, task: &Task| -> Vec<u8> {
            task.comm.clone().unwrap_or_else(|| dec.comms().get(pid as i32, 0).to_vec())
        };
        // Only names that scheduler events told make groups, as in the reference.
        let grouped = |task: &Task| self.by_comm && task.comm.is_some();
        let mut groups: BTreeMap<Vec<u8>, Vec<Scope>> = BTreeMap::new();
        for (pid, task) in self.tasks.iter().filter(|(_, t)| grouped(t)) {
            groups.entry(comm(*pid, task)).or_default().push(Scope::Task(*pid));
        }
        for (name, scopes) in groups {
            out.extend_from_slice(b"\ngroup: ");
            out.extend_from_slice(&name);
            out.push(b'\n');
            self.print_lines(dec, &scopes, out);
        }
        for (pid, task) in self.tasks.iter().filter(|(_, t)| !grouped(t)) {
            out.extend_from_slice(b"\ntask: ");
            out.extend_from_slice(&comm(*pid, task));
            out.extend_from_slice(format!("-{pid}\n").as_bytes());
            self.print_lines(dec, &[Scope::Task(*pid)], out);
        }
    }

    fn print_lines(&self, dec: &Decoder, scopes: &[Scope], out: &mut Vec<u8>) {
        // Lines of several tasks with one name are added up.
        let mut groups: BTreeMap<Group, BTreeMap<u64, Vec<&Entry>>> = BTreeMap::new();
        for lines in scopes.iter().filter_map(|s| self.lines.get(s)) {
            for (group, values) in &lines.groups {
                let all = groups.entry(*group).or_default();
                values.iter().for_each(|(value, entry)| all.entry(*value).or_default().push(entry));
            }
        }
        // Switches and wakeups stand first, the others by number.
        let rank = |id: u16| match id {
            id if self.switch.as_ref().is_some_and(|s| s.id == id) => 0,
            id if self.wakeup.as_ref().is_some_and(|w| w.id == id) => 1,
            _ => 2,
        };
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort_by_key(|(group, _)| (rank(group.id), *group));
        for (group, values) in groups {
            let mut sorted: Vec<(u64, Entry)> = values.into_iter().map(|(v, e)| (v, merged(&e))).collect();
            sorted.sort_by_key(|(_, e)| std::cmp::Reverse(e.total));
            for (value, entry) in sorted {
                out.extend_from_slice(b"  Event: ");
                self.print_name(dec, group, value, out);
                out.extend_from_slice(format!(" ({})", entry.count).as_bytes());
                // Times that are all 0 are no times to the reference.
                if entry.timed && entry.total != 0 {
                    let text = format!(
                        " Total: {} Avg: {} Max: {}(ts:{}) Min:{}(ts:{})",
                        entry.total,
                        entry.total / entry.count.max(1),
                        entry.max.0,
                        time(entry.max.1),
                        entry.min.0,
                        time(entry.min.1)
                    );
                    out.extend_from_slice(text.as_bytes());
                }
                out.push(b'\n');
                entry.stacks.print(dec, out);
            }
        }
    }

    fn print_name(&self, dec: &Decoder, group: Group, value: u64, out: &mut Vec<u8>) {
        let pair = self.pairs.iter().find(|p| p.start == group.id);
        let naming = match pair {
            Some(p) => p.naming,
            None if self.function.is_some_and(|f| f.0 == group.id) => Naming::Function,
            None if self.switch.as_ref().is_some_and(|s| s.id == group.id) => Naming::State,
            None => Naming::Hex,
        };
        if naming == Naming::Function {
            out.extend_from_slice(b"func: ");
            match dec.symbols().find(value) {
                Some(s) => {
                    out.extend_from_slice(s.name);
                    out.extend_from_slice(b"()");
                }
                None => out.extend_from_slice(format!("{value:#x}").as_bytes()),
            }
            return;
        }
        let name = dec.event(group.id).map_or("", |e| e.name.as_str());
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        match naming {
            Naming::Decimal => out.extend_from_slice((value as i64).to_string().as_bytes()),
            Naming::Softirq => match SOFTIRQS.get(value as usize) {
                Some(name) => out.extend_from_slice(name.as_bytes()),
                None => out.extend_from_slice(value.to_string().as_bytes()),
            },
            Naming::State if value == 0 => out.push(b'R'),
            Naming::State => {
                out.extend(STATES.iter().enumerate().filter(|(bit, _)| value >> bit & 1 != 0).map(|(_, c)| *c));
            }
            _ => out.extend_from_slice(format!("{value:#x}").as_bytes()),
        }
    }
}

impl Pair {
    fn scope(&self, pid: i64, cpu: u32) -> Scope {
        match (self.per_cpu, self.global) {
            (true, _) => Scope::Cpu(cpu),
            (_, true) => Scope::Global,
            _ => Scope::Task(pid),
        }
    }
}

fn merged(entries: &[&Entry]) -> Entry {
    let mut all = Entry::default();
    for e in entries {
        if e.timed && (!all.timed || e.max.0 > all.max.0) {
            all.max = e.max;
        }
        if e.timed && (!all.timed || e.min.0 < all.min.0) {
            all.min = e.min;
        }
        all.timed |= e.timed;
        all.count += e.count;
        all.total = all.total.wrapping_add(e.total);
        all.stacks.merge(&e.stacks);
    }
    all
}

/// Text of a fixed array up to the first NUL.
fn text(data: &[u8], place: Option<(usize, usize)>) -> Vec<u8> {
    let Some((offset, size)) = place else { return Vec::new() };
    let rest = data.get(offset..).unwrap_or_default();
    let bytes = rest.get(..size).unwrap_or(rest);
    bytes.iter().copied().take_while(|b| *b != 0).collect()
}

/// Seconds and microseconds.
pub fn time(ts: u64) -> String {
    let us = ts.wrapping_add(500) / 1000;
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}
