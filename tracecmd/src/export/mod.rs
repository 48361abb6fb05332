//! Recordings for other programs: Perfetto, Chrome's trace viewer, CTF.

pub mod chrome;
pub mod ctf;
pub mod perfetto;

use std::{borrow::Cow, collections::HashMap, path::Path};

use anyhow::{Context, bail};
use trace_dat::{
    Decoder, Endian, TraceFile,
    format::{Event, Field, FieldFlags},
    plugin::{Note, PrintCx},
    ring::record::{Lost, Record},
};

use crate::files::{data_size, progress::Progress};

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A signed number.
    Int(i64),
    /// An unsigned number or a pointer.
    Uint(u64),
    /// A text; also a longer array, as numbers with commas between.
    Text(String),
}

/// Whether a field is written as text.
pub fn is_text(f: &Field) -> bool {
    f.flags.intersects(FieldFlags::STRING | FieldFlags::ARRAY | FieldFlags::DYNAMIC) || !matches!(f.size, 1 | 2 | 4 | 8)
}

/// Whether a field is written as a signed number.
pub fn is_signed(f: &Field) -> bool {
    f.flags.contains(FieldFlags::SIGNED)
}

/// The bytes of a field, its dynamic part if it has one.
fn bytes<'a>(endian: Endian, f: &Field, data: &'a [u8]) -> &'a [u8] {
    let (at, len) = if f.flags.contains(FieldFlags::DYNAMIC) {
        let word = endian.uint(data, f.offset, 4).unwrap_or(0);
        let base = if f.flags.contains(FieldFlags::RELATIVE) { f.offset.saturating_add(f.size) } else { 0 };
        (base.saturating_add((word & 0xffff) as usize), (word >> 16) as usize)
    } else if f.size == 0 {
        (f.offset, data.len().saturating_sub(f.offset))
    } else {
        (f.offset, f.size)
    };
    let rest = data.get(at..).unwrap_or_default();
    rest.get(..len).unwrap_or(rest)
}

/// The value of a field of a record.
pub fn value(endian: Endian, f: &Field, data: &[u8]) -> Value {
    let b = bytes(endian, f, data);
    if is_text(f) {
        if f.flags.contains(FieldFlags::STRING) {
            let text = b.split(|c| *c == 0).next().unwrap_or_default();
            return Value::Text(String::from_utf8_lossy(text).into_owned());
        }
        let size = if matches!(f.element_size, 1 | 2 | 4 | 8) { f.element_size } else { 1 };
        let numbers: Vec<String> =
            b.chunks_exact(size).take(4096).map(|n| format!("{:#x}", endian.uint(n, 0, size).unwrap_or(0))).collect();
        return Value::Text(numbers.join(","));
    }
    let n = endian.uint(b, 0, b.len()).unwrap_or(0);
    if is_signed(f) {
        let unused = 64 - 8 * b.len().clamp(1, 8) as u32;
        Value::Int((n << unused) as i64 >> unused)
    } else {
        Value::Uint(n)
    }
}

/// One event as the writers get it.
pub struct Shown<'a> {
    /// Corrected time in nanoseconds (or ticks of a clock that counts otherwise).
    pub ts: u64,
    /// CPU.
    pub cpu: u32,
    /// `common_pid`.
    pub pid: i32,
    /// What it is.
    pub event: &'a Event,
    /// Its bytes.
    pub data: &'a [u8],
    /// What was lost before it.
    pub lost: Lost,
    /// Number of its buffer in the file.
    pub instance: u32,
    /// Name of its instance, empty for the top buffer.
    pub buffer: &'a str,
    /// Its file's byte order.
    pub endian: Endian,
    /// Tables of names.
    pub decoder: &'a Decoder,
}

impl Shown<'_> {
    /// The number in a field.
    pub fn number(&self, name: &str) -> Option<i64> {
        match value(self.endian, self.event.field(name)?, self.data) {
            Value::Int(n) => Some(n),
            Value::Uint(n) => Some(n as i64),
            Value::Text(_) => None,
        }
    }

    /// The text in a field.
    pub fn text(&self, name: &str) -> Option<String> {
        match value(self.endian, self.event.field(name)?, self.data) {
            Value::Text(t) => Some(t),
            _ => None,
        }
    }

    /// Its own fields. The text of a `trace_printk` is put together.
    pub fn fields(&self) -> impl Iterator<Item = (&str, Value)> {
        let bprint = self.event.name == "bprint" && self.event.system == "ftrace";
        self.event.fields.iter().map(move |f| {
            let value = if bprint && f.name == "buf" {
                Value::Text(self.info().trim_end().to_owned())
            } else {
                value(self.endian, f, self.data)
            };
            (f.name.as_str(), value)
        })
    }

    /// What a report shows behind the event's name.
    pub fn info(&self) -> String {
        let rec = Record { ts: self.ts, cpu: self.cpu, lost: self.lost, data: self.data, offset: 0 };
        let cx = PrintCx {
            dec: self.decoder,
            event: self.event,
            rec,
            reach: self.data,
            ts: self.ts,
            note: Note::default(),
            seq: 0,
        };
        let mut out = Vec::new();
        self.decoder.print_info(&cx, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// The thread whose calls nest: its pid; of an idle task, which all have pid 0, below -1000 by CPU.
    pub fn thread(&self) -> i64 {
        if self.pid == 0 { -1000 - i64::from(self.cpu) } else { self.pid.into() }
    }

    /// What it says of the calls of its thread.
    pub fn call(&self) -> Option<Call> {
        if self.event.system != "ftrace" {
            return None;
        }
        match self.event.name.as_str() {
            "funcgraph_entry" | "fgraph_retaddr_entry" => Some(Call::Entry),
            "funcgraph_exit" => Some(Call::Exit),
            _ => None,
        }
    }

    /// Name of the function in field `func`.
    pub fn function(&self) -> String {
        let address = self.number("func").unwrap_or(0) as u64;
        match self.decoder.symbols().find(address) {
            Some(s) => String::from_utf8_lossy(s.name).into_owned(),
            None => format!("{address:#x}"),
        }
    }

    /// Name of the process.
    pub fn comm(&self) -> Cow<'static, str> {
        if self.pid == 0 {
            return "<idle>".into();
        }
        String::from_utf8_lossy(self.decoder.comms().get(self.pid, 0)).into_owned().into()
    }
}

/// Begin or end of a function call, as function_graph tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A function is entered.
    Entry,
    /// It returns.
    Exit,
}

/// The open calls of function_graph, by instance and thread: begins and ends that events were lost between still nest.
#[derive(Debug, Default)]
pub struct Calls {
    open: HashMap<(u32, i64), Vec<(i64, i64)>>,
}

impl Calls {
    fn stack(&mut self, e: &Shown<'_>) -> (&mut Vec<(i64, i64)>, i64, i64) {
        let (depth, func) = (e.number("depth").unwrap_or(0), e.number("func").unwrap_or(0));
        (self.open.entry((e.instance, e.thread())).or_default(), depth, func)
    }

    /// Takes an entry; how many open calls must have ended before it, their exits lost.
    pub fn enter(&mut self, e: &Shown<'_>) -> usize {
        let (open, depth, func) = self.stack(e);
        let before = open.len();
        while open.last().is_some_and(|c| c.0 >= depth) {
            open.pop();
        }
        let ended = before - open.len();
        open.push((depth, func));
        ended
    }

    /// Takes an exit; how many open calls end with it: none when the call began before the trace.
    pub fn leave(&mut self, e: &Shown<'_>) -> usize {
        let (open, depth, func) = self.stack(e);
        let Some(at) = open.iter().rposition(|c| *c == (depth, func)) else { return 0 };
        let ended = open.len() - at;
        open.truncate(at);
        ended
    }
}

/// Writes one format.
pub trait Sink {
    /// Takes the next event in the order of time.
    ///
    /// # Errors
    /// When it cannot be written.
    fn event(&mut self, e: &Shown<'_>) -> anyhow::Result<()>;
}

/// Gives all events of `file` to `sink`; how many had no format and were left out.
///
/// # Errors
/// What `sink` reports.
pub fn walk(file: &TraceFile, decoder: &Decoder, sink: &mut dyn Sink) -> anyhow::Result<u64> {
    let mut progress = Progress::bytes(data_size(file));
    let mut records = file.records(&file.time_map(true));
    let mut unknown = 0;
    loop {
        progress.tick(|| records.consumed());
        let Some(r) = records.next() else { break };
        let record = r.record();
        let Some(event) = decoder.event_of(record.data) else {
            unknown += 1;
            continue;
        };
        let pid = event.common.iter().find(|f| f.name == "common_pid");
        let pid = pid.and_then(|f| file.endian().uint(record.data, f.offset, f.size)).unwrap_or(0) as i32;
        let buffer = file.buffers().get(r.tag as usize).map_or("", |b| b.name.as_str());
        let (ts, cpu, data, lost, endian) = (r.ts, record.cpu, record.data, record.lost, file.endian());
        sink.event(&Shown { ts, cpu, pid, event, data, lost, instance: r.tag, buffer, endian, decoder })?;
    }
    Ok(unknown)
}

/// Writes `file` in another program's format; how many events had no format and were left out.
///
/// # Errors
/// When something cannot be read or written; nothing remains then.
pub fn export(file: &TraceFile, format: &str, output: &Path) -> anyhow::Result<u64> {
    let decoder = file.decoder();
    let place = || format!("cannot write {}", output.display());
    match format {
        "perfetto" => perfetto::export(file, &decoder, output).with_context(place),
        "chrome" => chrome::export(file, &decoder, output).with_context(place),
        "ctf" => ctf::export(file, &decoder, output),
        _ => bail!("{format} is no format"),
    }
}
