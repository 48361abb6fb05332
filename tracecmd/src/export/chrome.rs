//! Chrome's JSON: what chrome://tracing and many other viewers open.
//!
//! Source: "Trace Event Format" of the Chromium project.

use std::{
    collections::HashMap,
    io::{BufWriter, Write},
    path::Path,
};

use serde_json::{Map, Value as Json, json};
use trace_dat::{Decoder, TraceFile, write::OutputFile};

use super::{Shown, Sink, Value, walk};

struct Chrome<W: Write> {
    out: W,
    first: bool,
    /// What runs on each CPU since when.
    running: HashMap<u32, (u64, i64, String)>,
}

/// Process number of the tracks of the CPUs: no process has it.
const CPUS: i64 = -1;

impl<W: Write> Chrome<W> {
    fn put(&mut self, v: &Json) -> anyhow::Result<()> {
        self.out.write_all(if std::mem::take(&mut self.first) { b"\n" } else { b",\n" })?;
        serde_json::to_writer(&mut self.out, v)?;
        Ok(())
    }
}

fn us(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

impl<W: Write> Sink for Chrome<W> {
    fn event(&mut self, e: &Shown<'_>) -> anyhow::Result<()> {
        let tid = if e.pid == 0 { -1000 - i64::from(e.cpu) } else { i64::from(e.pid) };
        match e.event.name.as_str() {
            "sched_switch" => {
                let next = e.number("next_pid").unwrap_or(0);
                let name = if next == 0 { String::new() } else { e.text("next_comm").unwrap_or_default() };
                if let Some((since, pid, comm)) = self.running.insert(e.cpu, (e.ts, next, name))
                    && pid != 0
                {
                    let dur = us(e.ts.saturating_sub(since));
                    let state = e.number("prev_state").unwrap_or(0);
                    self.put(
                        &json!({"ph": "X", "name": format!("{comm}-{pid}"), "cat": "sched", "pid": CPUS, "tid": e.cpu,
                        "ts": us(since), "dur": dur, "args": {"pid": pid, "end_state": state}}),
                    )?;
                }
            }
            "funcgraph_entry" => {
                return self.put(&json!({"ph": "B", "name": e.function(), "cat": "function_graph", "pid": e.pid, "tid": tid, "ts": us(e.ts)}));
            }
            "funcgraph_exit" => {
                return self.put(&json!({"ph": "E", "name": e.function(), "cat": "function_graph", "pid": e.pid, "tid": tid, "ts": us(e.ts)}));
            }
            _ => {}
        }
        let mut args = Map::new();
        args.insert("cpu".into(), e.cpu.into());
        if !e.buffer.is_empty() {
            args.insert("instance".into(), e.buffer.into());
        }
        for (name, v) in e.fields() {
            let v = match v {
                Value::Int(n) => n.into(),
                // Viewers read numbers as doubles, which lose the low bits of addresses.
                Value::Uint(n) if n >> 53 != 0 => format!("{n:#x}").into(),
                Value::Uint(n) => n.into(),
                Value::Text(t) => t.into(),
            };
            args.insert(name.to_owned(), v);
        }
        self.put(&json!({"ph": "i", "s": "t", "name": e.event.name, "cat": e.event.system, "pid": e.pid, "tid": tid, "ts": us(e.ts), "args": args}))
    }
}

/// Writes `file` as Chrome JSON; how many events were left out.
///
/// # Errors
/// When it cannot be written.
pub fn export(file: &TraceFile, decoder: &Decoder, output: &Path) -> anyhow::Result<u64> {
    let out = BufWriter::with_capacity(1 << 18, OutputFile::create(output)?);
    let mut c = Chrome { out, first: true, running: HashMap::new() };
    c.out.write_all(b"{\"displayTimeUnit\":\"ns\",\"traceEvents\":[")?;
    let name = |what: &str, pid: i64, tid: i64, name: &str| json!({"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}});
    c.put(&name("process_name", CPUS, 0, "CPUs"))?;
    for cpu in 0..file.cpu_count() {
        c.put(&name("thread_name", CPUS, cpu.into(), &format!("CPU {cpu}")))?;
    }
    for (pid, comm) in super::perfetto::processes(file)? {
        c.put(&name("process_name", pid.into(), 0, &comm))?;
        c.put(&name("thread_name", pid.into(), pid.into(), &comm))?;
    }
    let unknown = walk(file, decoder, &mut c)?;
    c.out.write_all(b"\n]}\n")?;
    c.out.into_inner().map_err(|e| e.into_error())?.commit()?;
    Ok(unknown)
}
