//! `hist`: how often functions and events occur, with their callers, as a tree for each task.

use std::{collections::BTreeMap, io::Write, process::ExitCode};

use anyhow::{Context, ensure};
use clap::{Arg, ArgAction, ArgMatches, Command};
use rustc_hash::FxHashMap;
use trace_dat::{Decoder, Lost, Record, format::Event, read::TraceFile};

use super::mem;
use crate::cli::Ctx;
use crate::files;
use crate::output::guard;

/// Most callers of one event that are used.
const MAX_DEPTH: usize = 256;
/// Entry of a stack that stands for a trampoline of the tracer (`FTRACE_TRAMPOLINE_MARKER`).
const TRAMPOLINE: [u64; 2] = [0x7fff_ffff_ffff_ffff, 0x7fff_ffff];

/// Defines the options.
pub fn command() -> Command {
    let all = Arg::new("all-pids").short('P').action(ArgAction::SetTrue).help("all tasks together");
    Command::new("hist").arg(all).args(mem::input_args())
}

/// What is counted: a task, and the name of a function or an event.
type Key = (i32, Vec<u8>);

/// One caller with its own callers.
#[derive(Debug, Default)]
struct Node {
    name: Vec<u8>,
    count: u64,
    children: Vec<Node>,
}

impl Node {
    fn add(&mut self, callers: impl Iterator<Item = Vec<u8>>) {
        self.count += 1;
        let mut node = self;
        for name in callers.take(MAX_DEPTH) {
            let at = match node.children.iter().position(|c| c.name == name) {
                Some(at) => at,
                None => {
                    node.children.insert(0, Node { name, ..Node::default() });
                    0
                }
            };
            let Some(child) = node.children.get_mut(at) else { return };
            child.count += 1;
            node = child;
        }
    }

    /// The callers by number, most first.
    fn sorted(&self) -> Vec<&Node> {
        let mut all: Vec<&Node> = self.children.iter().collect();
        all.sort_by_key(|c| std::cmp::Reverse(c.count));
        all
    }

    fn is_chain(&self) -> bool {
        let mut node = self;
        while let [only] = node.children.as_slice() {
            node = only;
        }
        node.children.is_empty()
    }
}

/// An event, neither of a function nor a stack, whose stack may follow.
#[derive(Debug)]
struct Pending {
    pid: i32,
    name: Vec<u8>,
}

/// A function, or an event, with its callers below it.
#[derive(Clone, Debug)]
enum Frame {
    Function(u64),
    Event(Vec<u8>),
}

impl Frame {
    fn name(&self, dec: &Decoder) -> Vec<u8> {
        match self {
            Frame::Function(addr) => name(dec, *addr),
            Frame::Event(name) => name.clone(),
        }
    }

    fn is_event(&self) -> bool {
        matches!(self, Frame::Event(_))
    }
}

/// What is counted under one name.
#[derive(Debug)]
struct Root {
    key: Key,
    /// It was an event, or had a stack, when it was counted first: it is shown between stars.
    starred: bool,
    node: Node,
}

/// A scheduler event that tells names of tasks: places of pid and name.
#[derive(Debug)]
struct Names {
    id: u16,
    tasks: Vec<(usize, usize, usize)>,
}

/// The events that matter.
#[derive(Debug, Default)]
struct Ids {
    entry: Option<(u16, usize, usize)>,
    /// Place of the nesting level in an entry.
    depth: Option<(usize, usize)>,
    exit: Option<u16>,
    /// Place of the nesting level in an exit.
    exit_depth: Option<(usize, usize)>,
    function: Option<(u16, usize, usize)>,
    /// Place of the caller in a function event.
    parent: Option<(usize, usize)>,
    stack: Option<(u16, usize)>,
    user_stack: Option<u16>,
}

/// The counts.
///
/// What the reference does, as it shows in its output for made files: a chain of active functions is kept for each task. Graph
/// events tell their level; function events tell their caller, which is looked for in the chain; a stack becomes the chain. The
/// chain is counted when an event does not continue it, when events were lost, and at the end.
#[derive(Debug, Default)]
struct Hist {
    ids: Ids,
    all_pids: bool,
    /// Position in `counts`.
    roots: FxHashMap<Key, usize>,
    counts: Vec<Root>,
    pending: Option<Pending>,
    /// Active functions of each task, outermost first.
    chains: BTreeMap<i32, Vec<Frame>>,
    /// The task whose chain was looked at last: events of any task without a stack of their own are counted in it.
    current: Option<i32>,
    /// What is part of the total and stands in no line: chains of nothing that were to be counted.
    nothing: u64,
    names: Vec<Names>,
    seen: u64,
}

impl Hist {
    fn new(dec: &Decoder, all_pids: bool) -> Hist {
        let find = |name: &str| dec.find_event(Some("ftrace"), name);
        let with = |e: Option<&Event>, field: &str| e.and_then(|e| e.field(field).map(|f| (e.id, f.offset, f.size)));
        let entry = find("funcgraph_entry").or_else(|| find("fgraph_retaddr_entry"));
        let number = |e: Option<&Event>, field: &str| with(e, field).map(|(_, at, size)| (at, size));
        let exit = find("funcgraph_exit");
        let ids = Ids {
            entry: with(entry, "func"),
            depth: number(entry, "depth"),
            exit: exit.map(|e| e.id),
            exit_depth: number(exit, "depth"),
            function: with(find("function"), "ip"),
            parent: number(find("function"), "parent_ip"),
            stack: with(find("kernel_stack"), "caller").map(|(id, at, _)| (id, at)),
            user_stack: find("user_stack").map(|e| e.id),
        };
        let tells = |event: &str, tasks: &[(&str, &str)]| {
            let event = dec.find_event(Some("sched"), event)?;
            let place = |(pid, comm): &(&str, &str)| {
                let (pid, comm) = (event.field(pid)?, event.field(comm)?);
                Some((pid.offset, comm.offset, comm.size))
            };
            Some(Names { id: event.id, tasks: tasks.iter().filter_map(place).collect() })
        };
        let names = [
            tells("sched_switch", &[("prev_pid", "prev_comm"), ("next_pid", "next_comm")]),
            tells("sched_wakeup", &[("pid", "comm")]),
            tells("sched_wakeup_new", &[("pid", "comm")]),
        ];
        Hist { ids, all_pids, names: names.into_iter().flatten().collect(), ..Hist::default() }
    }

    /// Counts an innermost function or event with its callers, innermost first.
    fn count(&mut self, key: Key, starred: bool, callers: impl Iterator<Item = Vec<u8>>) {
        let key = (if self.all_pids { 0 } else { key.0 }, key.1);
        let at = match self.roots.get(&key) {
            Some(at) => *at,
            None => {
                self.roots.insert(key.clone(), self.counts.len());
                self.counts.push(Root { key, starred, node: Node::default() });
                self.counts.len() - 1
            }
        };
        if let Some(root) = self.counts.get_mut(at) {
            root.node.add(callers);
        }
    }

    /// Counts a chain, outermost first.
    fn count_chain(&mut self, dec: &Decoder, pid: i32, chain: &[Frame], starred: bool) {
        match chain.split_last() {
            Some((top, callers)) => {
                let key = (pid, top.name(dec));
                self.count(key, starred || top.is_event(), callers.iter().rev().map(|f| f.name(dec)));
            }
            None => self.nothing += 1,
        }
    }

    /// Counts an event that no stack followed.
    fn flush_pending(&mut self, dec: &Decoder) {
        if let Some(p) = self.pending.take() {
            let chain = self.current.and_then(|pid| self.chains.get(&pid)).map_or(&[][..], Vec::as_slice);
            let callers: Vec<Vec<u8>> = chain.iter().rev().map(|f| f.name(dec)).collect();
            self.count((p.pid, p.name), true, callers.into_iter());
        }
    }

    /// Counts and forgets the chains of all tasks.
    fn flush(&mut self, dec: &Decoder) {
        for (pid, chain) in std::mem::take(&mut self.chains).into_iter().rev() {
            self.count_chain(dec, pid, &chain, false);
        }
        self.current = None;
    }

    /// Brings a task's chain to this many functions; what was in it is counted unless it has as many.
    fn set_depth(&mut self, dec: &Decoder, pid: i32, depth: usize) {
        self.current = Some(pid);
        let chain = self.chains.entry(pid).or_default();
        if chain.len() != depth {
            let old = chain.clone();
            chain.truncate(depth);
            self.count_chain(dec, pid, &old, false);
        }
    }

    fn push(&mut self, pid: i32, frame: Frame) {
        let chain = self.chains.entry(pid).or_default();
        if chain.len() < MAX_DEPTH {
            chain.push(frame);
        }
    }

    /// The function tracer tells a function and its caller.
    fn see_function(&mut self, dec: &Decoder, pid: i32, func: u64, parent: u64) {
        self.current = Some(pid);
        let chain = self.chains.entry(pid).or_default();
        let is_parent = |f: &Frame| matches!(f, Frame::Function(addr) if *addr == parent);
        match chain.iter().rposition(is_parent) {
            Some(at) if at + 1 == chain.len() => {}
            found => {
                let old = chain.clone();
                chain.truncate(found.map_or(0, |at| at + 1));
                if !old.is_empty() {
                    self.count_chain(dec, pid, &old, false);
                }
                if found.is_none() {
                    self.push(pid, Frame::Function(parent));
                }
            }
        }
        self.push(pid, Frame::Function(func));
    }

    /// A stack, innermost function first: of the event before it, or of the function that was seen last.
    fn see_stack(&mut self, dec: &Decoder, pid: i32, stack: Vec<u64>) {
        let mut chain: Vec<Frame> = stack.into_iter().rev().map(Frame::Function).collect();
        if let Some(p) = self.pending.take() {
            if p.pid != pid {
                return;
            }
            self.current = Some(pid);
            chain.push(Frame::Event(p.name));
            self.count_chain(dec, pid, &chain, true);
            let own = self.chains.entry(pid).or_default();
            if own.is_empty() {
                *own = chain;
            }
            return;
        }
        // It takes the function from the chain it was in.
        let top = self.current.replace(pid).and_then(|of| self.chains.remove(&of)).and_then(|mut chain| chain.pop());
        chain.extend(top);
        let own = self.chains.insert(pid, chain.clone()).unwrap_or_default();
        if !own.is_empty() {
            self.count_chain(dec, pid, &own, false);
        }
        if !chain.is_empty() {
            self.count_chain(dec, pid, &chain, true);
        }
    }

    /// Remembers what the scheduler's events say about names.
    fn learn_names(&mut self, dec: &Decoder, id: u16, data: &[u8]) {
        self.seen += 1;
        let Some(names) = self.names.iter().find(|n| n.id == id) else { return };
        for (pid, comm, size) in &names.tasks {
            let pid = dec.endian().uint(data, *pid, 4).unwrap_or(0) as i32;
            let comm = data.get(*comm..).and_then(|rest| rest.get(..*size)).unwrap_or_default();
            let end = comm.iter().position(|b| *b == 0).unwrap_or(comm.len());
            dec.comms().learn(pid, self.seen, comm.get(..end).unwrap_or_default());
        }
    }

    fn see(&mut self, dec: &Decoder, rec: &Record<'_>) {
        let (data, endian) = (rec.data, dec.endian());
        let Some(id) = data.first_chunk::<2>().map(|b| endian.u16(*b)) else { return };
        let pid = endian.uint(data, 4, 4).unwrap_or(0) as i32;
        let number = |(at, size): (usize, usize)| endian.uint(data, at, size).unwrap_or(0);
        let depth = |place: Option<(usize, usize)>| place.map(|p| usize::try_from(number(p)).unwrap_or(0));
        if rec.lost != Lost::None {
            self.flush(dec);
        }
        self.learn_names(dec, id, data);
        if let Some((stack, at)) = self.ids.stack
            && stack == id
        {
            let size = dec.long_size().bytes();
            let end = if size == 8 { u64::MAX } else { u64::from(u32::MAX) };
            let addresses = data.get(at..).unwrap_or_default().chunks_exact(size);
            // Addresses without a name are left out.
            let stack = addresses
                .map(|w| endian.uint(w, 0, size).unwrap_or(end))
                .take_while(|a| *a != end)
                .filter(|a| !TRAMPOLINE.contains(a))
                .filter_map(|a| dec.symbols().find(a).map(|s| s.addr));
            self.see_stack(dec, pid, stack.take(MAX_DEPTH).collect());
            return;
        }
        if self.ids.user_stack == Some(id) {
            return;
        }
        self.flush_pending(dec);
        if let Some((entry, at, size)) = self.ids.entry
            && entry == id
        {
            if let Some(depth) = depth(self.ids.depth) {
                self.set_depth(dec, pid, depth);
            }
            self.push(pid, Frame::Function(start(dec, number((at, size)))));
        } else if self.ids.exit == Some(id) {
            let active = self.chains.get(&pid).map_or(0, Vec::len);
            self.set_depth(dec, pid, depth(self.ids.exit_depth).unwrap_or(active.saturating_sub(1)));
        } else if let Some((function, at, size)) = self.ids.function
            && function == id
        {
            let parent = self.ids.parent.map_or(0, number);
            self.see_function(dec, pid, start(dec, number((at, size))), start(dec, parent));
        } else {
            let name = dec.event(id).map_or_else(|| b"(unknown)".to_vec(), |e| e.name.clone().into_bytes());
            self.pending = Some(Pending { pid, name });
        }
    }

    fn print(&self, dec: &Decoder, out: &mut Vec<u8>) {
        let total = self.counts.iter().map(|r| r.node.count).sum::<u64>() + self.nothing;
        // Of those with the same count the one that was seen last comes first.
        let mut all: Vec<_> = self.counts.iter().rev().collect();
        all.sort_by_key(|root| std::cmp::Reverse(root.node.count));
        for (i, Root { key: (pid, name), starred, node: root }) in all.into_iter().enumerate() {
            if i > 0 {
                out.push(b'\n');
            }
            let star = if *starred { "*" } else { "" };
            let name = String::from_utf8_lossy(name);
            let percent = percent(root.count, total);
            let task = if self.all_pids {
                format!("  %{percent} <all pids>")
            } else {
                let comm = dec.comms().get(*pid, u64::MAX);
                let comm = String::from_utf8_lossy(comm);
                format!("  %{percent}  ({pid}) {comm}")
            };
            let text = format!("{task} {name:>30} #{}\n         |\n         --- {star}{name}{star}\n", root.count);
            out.extend_from_slice(text.as_bytes());
            if root.is_chain() {
                print_chain(root, "          ", out);
            } else {
                print_children(root, "            ", out);
            }
        }
    }
}

fn percent(part: u64, all: u64) -> String {
    format!("{:.2}", part as f64 * 100.0 / all.max(1) as f64)
}

/// Where the function begins that an address lies in.
fn start(dec: &Decoder, addr: u64) -> u64 {
    dec.symbols().find(addr).map_or(addr, |s| s.addr)
}

fn name(dec: &Decoder, addr: u64) -> Vec<u8> {
    dec.symbols().find(addr).map_or_else(|| format!("{addr:#x}").into_bytes(), |s| s.name.to_vec())
}

/// Appends the callers as long as there is only one, unless it is that of some only and has several itself further on; the node at
/// which that ends.
fn print_chain<'n>(node: &'n Node, prefix: &str, out: &mut Vec<u8>) -> &'n Node {
    let whole = node.is_chain();
    let mut node = node;
    while let [only] = node.children.as_slice()
        && (whole || only.count == node.count)
    {
        out.extend_from_slice(prefix.as_bytes());
        out.extend_from_slice(&only.name);
        out.push(b'\n');
        node = only;
    }
    node
}

fn print_children(node: &Node, indent: &str, out: &mut Vec<u8>) {
    let children = node.sorted();
    for (i, child) in children.iter().enumerate() {
        let name = String::from_utf8_lossy(&child.name);
        let share = percent(child.count, node.count);
        let text = format!("{indent}|\n{indent}|--%{share}-- {name}  # {}\n", child.count);
        out.extend_from_slice(text.as_bytes());
        let bar = if i + 1 == children.len() { ' ' } else { '|' };
        let end = print_chain(child, &format!("{indent}{bar}          "), out);
        if !end.children.is_empty() {
            print_children(end, &format!("{indent}{bar}            "), out);
        }
    }
}

/// Reads the file, one CPU after the other, and prints the trees.
///
/// # Errors
/// When the file cannot be read or is a latency trace.
pub fn run(cx: &Ctx, m: &ArgMatches) -> anyhow::Result<ExitCode> {
    let file = TraceFile::open(mem::input(m))?;
    ensure!(file.latency_texts().is_empty(), "a latency trace has no records to count");
    let dec = file.decoder();
    let mut hist = Hist::new(&dec, m.get_flag("all-pids"));
    let instances = file.buffers().iter().any(|b| !b.name.is_empty());
    let time = file.time_map(true);
    for buffer in file.buffers().iter().filter(|b| !instances || !b.name.is_empty()) {
        for cpu in buffer.cpus.iter().map(|c| c.cpu) {
            let chosen = |b: &trace_dat::read::Buffer, c| b.name == buffer.name && c == cpu;
            let mut records = trace_dat::ring::merge::Merge::new(file.inputs(&time, chosen));
            while let Some(record) = records.next() {
                hist.see(&dec, &record.record());
            }
        }
    }
    hist.flush_pending(&dec);
    hist.flush(&dec);
    let mut out = Vec::new();
    hist.print(&dec, &mut out);
    guard::stdout().write_all(&out).context("cannot write the trees")?;
    Ok(if files::warn(&cx.program, &file) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
