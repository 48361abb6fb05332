//! Chrome's JSON: what chrome://tracing and many other viewers open.
//!
//! Source: "Trace Event Format" of the Chromium project.

use std::{
    collections::{BTreeMap, HashSet},
    io::{BufWriter, Write},
    path::Path,
};

use serde_json::{Map, Value as Json, json};
use trace_dat::{Decoder, TraceFile, write::OutputFile};

use super::{Call, Calls, Shown, Sink, Value, walk};

struct Chrome<W: Write> {
    out: W,
    first: bool,
    /// Times of the first and the last event.
    span: Option<(u64, u64)>,
    /// What runs on each CPU since when.
    running: BTreeMap<u32, (u64, i64, String)>,
    /// The buffer whose sched events make the tracks of the CPUs: the first one that has any.
    scheduler: Option<u32>,
    calls: Calls,
    /// Threads of instances that have their name.
    named: HashSet<u64>,
}

/// Process of the tracks of the CPUs: above all pids of Linux, whose limit is 2^22. Its threads are those behind it, by CPU.
const CPUS: u64 = 1 << 23;
/// Process of the idle tasks, which all have pid 0. Its threads are those behind it, by CPU.
const IDLE: u64 = 1 << 24;
/// What is added for the calls that an instance saw, times its number: they would not nest with those of another.
const INSTANCE: u64 = 1 << 25;

/// Process and thread of an event.
fn place(e: &Shown<'_>) -> (u64, u64) {
    match e.pid {
        0 => (IDLE, IDLE + 1 + u64::from(e.cpu)),
        pid => (u64::from(pid as u32), u64::from(pid as u32)),
    }
}

/// A name of a process or thread.
fn name(what: &str, (pid, tid): (u64, u64), name: &str) -> Json {
    json!({"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}})
}

/// Microseconds, with all digits: a double has too few of them for the time of day.
struct Us(u64);

impl std::fmt::Display for Us {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

impl<W: Write> Chrome<W> {
    fn put(&mut self, v: &Json) -> anyhow::Result<()> {
        self.out.write_all(if std::mem::take(&mut self.first) { b"\n" } else { b",\n" })?;
        serde_json::to_writer(&mut self.out, v)?;
        Ok(())
    }

    /// Writes an event at a time, with a duration or without.
    fn put_at(&mut self, ts: u64, dur: Option<u64>, v: &Json) -> anyhow::Result<()> {
        self.out.write_all(if std::mem::take(&mut self.first) { b"\n" } else { b",\n" })?;
        write!(self.out, "{{\"ts\":{}", Us(ts))?;
        if let Some(dur) = dur {
            write!(self.out, ",\"dur\":{}", Us(dur))?;
        }
        let rest = serde_json::to_string(v)?;
        write!(self.out, ",{}", rest.get(1..).unwrap_or("}"))?;
        Ok(())
    }

    /// The time that a task ran on a CPU, up to `end`.
    fn ran(
        &mut self,
        cpu: u32,
        (since, pid, comm): (u64, i64, String),
        end: u64,
        state: Option<i64>,
    ) -> anyhow::Result<()> {
        if pid == 0 {
            return Ok(());
        }
        let v = json!({"ph": "X", "name": format!("{comm}-{pid}"), "cat": "sched", "pid": CPUS, "tid": CPUS + 1 + u64::from(cpu),
            "args": {"pid": pid, "end_state": state}});
        self.put_at(since, Some(end.saturating_sub(since)), &v)
    }

    /// Ends what still runs at the end of the trace.
    fn finish(&mut self) -> anyhow::Result<()> {
        let end = self.span.map_or(0, |s| s.1);
        for (cpu, task) in std::mem::take(&mut self.running) {
            self.ran(cpu, task, end, None)?;
        }
        Ok(())
    }

    fn call(&mut self, e: &Shown<'_>, call: Call) -> anyhow::Result<()> {
        let ends = match call {
            Call::Entry => self.calls.enter(e),
            Call::Exit => self.calls.leave(e),
        };
        // Calls that two instances saw would not nest in one track.
        let (pid, mut tid) = place(e);
        if !e.buffer.is_empty() {
            tid += INSTANCE * (1 + u64::from(e.instance));
            if self.named.insert(tid) {
                self.put(&name("thread_name", (pid, tid), &format!("{} in {}", e.comm(), e.buffer)))?;
            }
        }
        for n in 0..ends {
            let mut v = json!({"ph": "E", "cat": "function_graph", "pid": pid, "tid": tid});
            if n + 1 == ends
                && call == Call::Exit
                && let Some(v) = v.as_object_mut()
            {
                v.insert("name".into(), e.function().into());
                v.insert("args".into(), args(e));
            }
            self.put_at(e.ts, None, &v)?;
        }
        if call == Call::Entry {
            let v = json!({"ph": "B", "name": e.function(), "cat": "function_graph", "pid": pid, "tid": tid, "args": args(e)});
            self.put_at(e.ts, None, &v)?;
        }
        Ok(())
    }
}

/// Fields of an event; of a call those beside its function.
fn args(e: &Shown<'_>) -> Json {
    let mut args = Map::new();
    args.insert("common_cpu".into(), e.cpu.into());
    if !e.buffer.is_empty() {
        args.insert("instance".into(), e.buffer.into());
    }
    let call = e.call().is_some();
    for (name, v) in e.fields().filter(|(name, _)| !call || *name != "func") {
        let v = match v {
            Value::Int(n) => n.into(),
            // Viewers read numbers as doubles, which lose the low bits of addresses.
            Value::Uint(n) if n >> 53 != 0 => format!("{n:#x}").into(),
            Value::Uint(n) => n.into(),
            Value::Text(t) => t.into(),
        };
        args.insert(name.to_owned(), v);
    }
    args.into()
}

impl<W: Write> Sink for Chrome<W> {
    fn event(&mut self, e: &Shown<'_>) -> anyhow::Result<()> {
        let first = self.span.get_or_insert((e.ts, e.ts)).0;
        self.span = Some((first, e.ts));
        if let Some(call) = e.call() {
            return self.call(e, call);
        }
        if e.event.name == "sched_switch"
            && e.event.system == "sched"
            && *self.scheduler.get_or_insert(e.instance) == e.instance
        {
            let task = |pid: &str, comm: &str| (e.number(pid).unwrap_or(0), e.text(comm).unwrap_or_default());
            let (next, name) = task("next_pid", "next_comm");
            // What a CPU's first switch ends has run since the start.
            let before = self.running.insert(e.cpu, (e.ts, next, name)).unwrap_or_else(|| {
                let (pid, comm) = task("prev_pid", "prev_comm");
                (first, pid, comm)
            });
            self.ran(e.cpu, before, e.ts, e.number("prev_state"))?;
        }
        let (pid, tid) = place(e);
        let v = json!({"ph": "i", "s": "t", "name": e.event.name, "cat": e.event.system, "pid": pid, "tid": tid,
            "args": args(e)});
        self.put_at(e.ts, None, &v)
    }
}

/// Writes `file` as Chrome JSON; how many events were left out.
///
/// # Errors
/// When it cannot be written.
pub fn export(file: &TraceFile, decoder: &Decoder, output: &Path) -> anyhow::Result<u64> {
    let out = BufWriter::with_capacity(1 << 18, OutputFile::create(output)?);
    let mut c = Chrome {
        out,
        first: true,
        span: None,
        running: BTreeMap::new(),
        scheduler: None,
        calls: Calls::default(),
        named: HashSet::new(),
    };
    c.out.write_all(b"{\"displayTimeUnit\":\"ns\",\"traceEvents\":[")?;
    c.put(&name("process_name", (CPUS, 0), "CPUs"))?;
    c.put(&name("process_name", (IDLE, 0), "idle"))?;
    for cpu in 0..u64::from(file.cpu_count()) {
        c.put(&name("thread_name", (CPUS, CPUS + 1 + cpu), &format!("CPU {cpu}")))?;
        c.put(&name("thread_name", (IDLE, IDLE + 1 + cpu), &format!("idle, CPU {cpu}")))?;
    }
    for (pid, comm) in super::perfetto::processes(file)? {
        let pid = u64::from(pid as u32);
        c.put(&name("process_name", (pid, 0), &comm))?;
        c.put(&name("thread_name", (pid, pid), &comm))?;
    }
    let unknown = walk(file, decoder, &mut c)?;
    c.finish()?;
    c.out.write_all(b"\n]}\n")?;
    c.out.into_inner().map_err(|e| e.into_error())?.commit()?;
    Ok(unknown)
}
