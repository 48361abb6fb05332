//! `hist`: how often functions and events occur, with their callers, as a tree for each task.

use std::{io::Write, process::ExitCode};

use anyhow::{Context, ensure};
use clap::{Arg, ArgAction, ArgMatches, Command};
use rustc_hash::FxHashMap;
use trace_dat::{Decoder, Record, format::Event, read::TraceFile};

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

/// What is counted: a function by name, or an event by id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum What {
    Function(Vec<u8>),
    /// Shown between stars.
    Event(Vec<u8>),
}

/// One caller with its own callers.
#[derive(Debug, Default)]
struct Node {
    name: Vec<u8>,
    count: u64,
    children: Vec<Node>,
}

impl Node {
    fn add<'a>(&mut self, callers: impl Iterator<Item = &'a [u8]>) {
        self.count += 1;
        let mut node = self;
        for name in callers.take(MAX_DEPTH) {
            let at = match node.children.iter().position(|c| c.name == name) {
                Some(at) => at,
                None => {
                    node.children.insert(0, Node { name: name.to_vec(), ..Node::default() });
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

/// An event whose stack may follow.
#[derive(Debug)]
struct Pending {
    pid: i32,
    what: What,
    /// It is of the function tracer.
    is_function: bool,
}

/// The events that matter.
#[derive(Debug, Default)]
struct Ids {
    entry: Option<(u16, usize, usize)>,
    /// Place of the nesting level in an entry.
    depth: Option<(usize, usize)>,
    exit: Option<u16>,
    function: Option<(u16, usize, usize)>,
    stack: Option<(u16, usize)>,
    user_stack: Option<u16>,
}

/// The counts.
#[derive(Debug, Default)]
struct Hist {
    ids: Ids,
    all_pids: bool,
    roots: FxHashMap<(i32, What), Node>,
    pending: Option<Pending>,
    /// Active functions of each task, outermost first. A function counts when it returns, or when it is found not to.
    active: FxHashMap<i32, Vec<u64>>,
    /// The first stack of each task.
    first: FxHashMap<i32, (What, Vec<Vec<u8>>)>,
    /// What is part of the total and stands in no line: the reference counts each task once more that is in no function at the end.
    idle: u64,
}

impl Hist {
    fn new(dec: &Decoder, all_pids: bool) -> Hist {
        let find = |name: &str| dec.find_event(Some("ftrace"), name);
        let with = |e: Option<&Event>, field: &str| e.and_then(|e| e.field(field).map(|f| (e.id, f.offset, f.size)));
        let entry = find("funcgraph_entry").or_else(|| find("fgraph_retaddr_entry"));
        let ids = Ids {
            entry: with(entry, "func"),
            depth: with(entry, "depth").map(|(_, at, size)| (at, size)),
            exit: find("funcgraph_exit").map(|e| e.id),
            function: with(find("function"), "ip"),
            stack: with(find("kernel_stack"), "caller").map(|(id, at, _)| (id, at)),
            user_stack: find("user_stack").map(|e| e.id),
        };
        Hist { ids, all_pids, ..Hist::default() }
    }

    fn count<'a>(&mut self, pid: i32, what: What, callers: impl Iterator<Item = &'a [u8]>) {
        let pid = if self.all_pids { 0 } else { pid };
        self.roots.entry((pid, what)).or_default().add(callers);
    }

    /// Counts an event that no stack followed.
    fn flush(&mut self) {
        if let Some(p) = self.pending.take() {
            self.count(p.pid, p.what, std::iter::empty());
        }
    }

    /// Takes the innermost active function of a task away and counts it. False: there is none.
    fn leave(&mut self, dec: &Decoder, pid: i32) -> bool {
        let stack = self.active.entry(pid).or_default();
        let Some(func) = stack.pop() else { return false };
        let callers: Vec<Vec<u8>> = stack.iter().rev().map(|a| name(dec, *a)).collect();
        self.count(pid, What::Function(name(dec, func)), callers.iter().map(Vec::as_slice));
        true
    }

    /// At the end of all: counts the first stack of each task once more, as the reference does.
    fn end(&mut self) {
        for (pid, (what, names)) in std::mem::take(&mut self.first) {
            self.count(pid, what, names.iter().map(Vec::as_slice));
        }
    }

    /// At the end of a CPU: counts the innermost function of each task.
    fn end_cpu(&mut self, dec: &Decoder) {
        self.flush();
        for pid in self.active.keys().copied().collect::<Vec<_>>() {
            if !self.leave(dec, pid) {
                self.idle += 1;
            }
        }
        self.active.clear();
    }

    fn see(&mut self, dec: &Decoder, rec: &Record<'_>) {
        let (data, endian) = (rec.data, dec.endian());
        let Some(id) = data.first_chunk::<2>().map(|b| endian.u16(*b)) else { return };
        let pid = endian.uint(data, 4, 4).unwrap_or(0) as i32;
        if let Some((stack, at)) = self.ids.stack
            && stack == id
        {
            let Some(p) = self.pending.take().filter(|p| p.pid == pid) else { return };
            let size = dec.long_size().bytes();
            let end = if size == 8 { u64::MAX } else { u64::from(u32::MAX) };
            let names: Vec<Vec<u8>> = data
                .get(at..)
                .unwrap_or_default()
                .chunks_exact(size)
                .map(|w| endian.uint(w, 0, size).unwrap_or(end))
                .take_while(|a| *a != end)
                .filter(|a| !TRAMPOLINE.contains(a))
                .map(|a| name(dec, a))
                .collect();
            self.count(pid, p.what.clone(), names.iter().map(Vec::as_slice));
            if p.is_function {
                // The reference counts these twice.
                self.count(pid, p.what, names.iter().map(Vec::as_slice));
            } else {
                self.first.entry(pid).or_insert((p.what, names));
            }
            return;
        }
        if self.ids.user_stack == Some(id) {
            return;
        }
        self.flush();
        if let Some((entry, at, size)) = self.ids.entry
            && entry == id
        {
            let func = endian.uint(data, at, size).unwrap_or(0);
            let depth = self.ids.depth.and_then(|(at, size)| endian.uint(data, at, size));
            let stack = self.active.entry(pid).or_default();
            let depth = depth.and_then(|d| usize::try_from(d).ok()).unwrap_or(stack.len());
            if depth < stack.len() {
                // What was above did not return.
                self.leave(dec, pid);
                if let Some(stack) = self.active.get_mut(&pid) {
                    stack.truncate(depth);
                }
            }
            let stack = self.active.entry(pid).or_default();
            if stack.len() < MAX_DEPTH {
                stack.push(func);
            }
            return;
        }
        if self.ids.exit == Some(id) {
            self.leave(dec, pid);
            return;
        }
        let is_function = self.ids.function.is_some_and(|f| f.0 == id);
        let what = match self.ids.function {
            Some((_, at, size)) if is_function => What::Event(name(dec, endian.uint(data, at, size).unwrap_or(0))),
            _ => What::Event(dec.event(id).map_or_else(|| b"(unknown)".to_vec(), |e| e.name.clone().into_bytes())),
        };
        self.pending = Some(Pending { pid, what, is_function });
    }

    fn print(&self, dec: &Decoder, out: &mut Vec<u8>) {
        let total = self.roots.values().map(|n| n.count).sum::<u64>() + self.idle;
        let mut all: Vec<_> = self.roots.iter().collect();
        all.sort_by(|((ap, aw), a), ((bp, bw), b)| {
            b.count.cmp(&a.count).then(ap.cmp(bp)).then_with(|| format!("{aw:?}").cmp(&format!("{bw:?}")))
        });
        for (i, ((pid, what), root)) in all.into_iter().enumerate() {
            if i > 0 {
                out.push(b'\n');
            }
            let (name, star) = match what {
                What::Function(n) => (n, ""),
                What::Event(n) => (n, "*"),
            };
            let name = String::from_utf8_lossy(name);
            let percent = percent(root.count, total);
            let task = if self.all_pids {
                format!("  %{percent} <all pids>")
            } else {
                let comm = dec.comms().get(*pid, 0);
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

fn name(dec: &Decoder, addr: u64) -> Vec<u8> {
    dec.symbols().find(addr).map_or_else(|| format!("{addr:#x}").into_bytes(), |s| s.name.to_vec())
}

/// Appends the callers as long as there is only one; the node at which that ends.
fn print_chain<'n>(node: &'n Node, prefix: &str, out: &mut Vec<u8>) -> &'n Node {
    let mut node = node;
    while let [only] = node.children.as_slice() {
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
            hist.end_cpu(&dec);
        }
    }
    hist.end();
    let mut out = Vec::new();
    hist.print(&dec, &mut out);
    guard::stdout().write_all(&out).context("cannot write the trees")?;
    Ok(if files::warn(&cx.program, &file) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
