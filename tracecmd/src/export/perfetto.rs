//! Perfetto's protobuf: what ui.perfetto.dev and trace_processor open.
//!
//! Source: protos/perfetto/trace/perfetto_trace.proto of the Perfetto project; the field numbers stand behind the names.

use std::{
    collections::HashSet,
    io::{BufWriter, Write},
    path::Path,
};

use trace_dat::{Decoder, TraceFile, write::OutputFile};

use trace_dat::{read::option::TypedOption, ring::record::Lost};

use super::{Call, Calls, Shown, Sink, Value, walk};

/// A message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    fn uint(&mut self, field: u32, n: u64) -> &mut Self {
        self.varint(u64::from(field) << 3);
        self.varint(n);
        self
    }

    fn int(&mut self, field: u32, n: i64) -> &mut Self {
        self.uint(field, n as u64)
    }

    fn bytes(&mut self, field: u32, b: &[u8]) -> &mut Self {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(b.len() as u64);
        self.0.extend_from_slice(b);
        self
    }

    fn text(&mut self, field: u32, t: &str) -> &mut Self {
        self.bytes(field, t.as_bytes())
    }

    fn message(&mut self, field: u32, m: &Message) -> &mut Self {
        self.bytes(field, &m.0)
    }
}

/// Sequence of our packets: trusted_packet_sequence_id.
const SEQUENCE: u64 = 1;
/// Events of one CPU that go into one bundle.
const BUNDLE: usize = 512;

struct Perfetto<W: Write> {
    out: W,
    /// Bundles under construction by CPU: number of events, FtraceEventBundle.
    bundles: Vec<(usize, Message)>,
    tracks: HashSet<u64>,
    calls: Calls,
    /// The buffer whose sched events make the tracks of the CPUs: the first one that has any. Twice the same would contradict itself.
    scheduler: Option<u32>,
}

/// Number of a track: of a thread, or of an instance's calls in a thread. Every CPU has an idle task of its own, all with pid 0.
fn track_of(e: &Shown<'_>, instance: u32) -> u64 {
    let thread = if e.pid == 0 { 1 << 40 | u64::from(e.cpu) } else { u64::from(e.pid as u32) };
    u64::from(instance) << 44 | thread
}

impl<W: Write> Perfetto<W> {
    /// Writes a TracePacket.
    fn packet(&mut self, packet: &mut Message) -> anyhow::Result<()> {
        packet.uint(10, SEQUENCE); // trusted_packet_sequence_id
        let mut trace = Message::default();
        trace.message(1, packet); // Trace.packet
        self.out.write_all(&trace.0)?;
        Ok(())
    }

    fn flush(&mut self, cpu: usize) -> anyhow::Result<()> {
        let Some((n, bundle)) = self.bundles.get_mut(cpu) else { return Ok(()) };
        if std::mem::take(n) == 0 {
            return Ok(());
        }
        let bundle = std::mem::take(bundle);
        let mut packet = Message::default();
        packet.message(1, &bundle); // ftrace_events
        self.packet(&mut packet)
    }

    /// The track for function_graph's slices of a thread; described before its first use.
    fn track(&mut self, e: &Shown<'_>) -> anyhow::Result<u64> {
        let thread = track_of(e, 0);
        if self.tracks.insert(thread) {
            let mut descriptor = Message::default();
            descriptor.uint(1, thread); // uuid
            if e.pid == 0 {
                descriptor.text(2, &format!("idle, CPU {}", e.cpu)); // name
            } else {
                let mut thread = Message::default();
                let pid = i64::from(e.pid);
                thread.int(1, pid).int(2, pid).text(5, &e.comm()); // pid, tid, thread_name
                descriptor.message(4, &thread); // thread
            }
            let mut packet = Message::default();
            packet.uint(8, e.ts).message(60, &descriptor); // timestamp, track_descriptor
            self.packet(&mut packet)?;
        }
        if e.buffer.is_empty() {
            return Ok(thread);
        }
        // Calls that two instances saw would not nest in one track.
        let track = track_of(e, e.instance + 1);
        if self.tracks.insert(track) {
            let mut descriptor = Message::default();
            descriptor.uint(1, track).text(2, e.buffer).uint(5, thread); // uuid, name, parent_uuid
            let mut packet = Message::default();
            packet.uint(8, e.ts).message(60, &descriptor); // timestamp, track_descriptor
            self.packet(&mut packet)?;
        }
        Ok(track)
    }

    /// Begin or end of a slice of function_graph.
    fn slice(&mut self, e: &Shown<'_>, call: Call) -> anyhow::Result<()> {
        let track = self.track(e)?;
        let ends = match call {
            Call::Entry => self.calls.enter(e),
            Call::Exit => self.calls.leave(e),
        };
        for n in 0..ends {
            let mut event = Message::default();
            event.uint(9, 2).uint(11, track); // type: SLICE_END; track_uuid
            if n + 1 == ends && call == Call::Exit {
                annotations(&mut event, e);
            }
            let mut packet = Message::default();
            packet.uint(8, e.ts).message(11, &event); // timestamp, track_event
            self.packet(&mut packet)?;
        }
        if call == Call::Exit {
            return Ok(());
        }
        let mut event = Message::default();
        event.uint(9, 1).uint(11, track); // type: SLICE_BEGIN; track_uuid
        event.text(22, "function_graph").text(23, &e.function()); // categories, name
        annotations(&mut event, e);
        let mut packet = Message::default();
        packet.uint(8, e.ts).message(11, &event); // timestamp, track_event
        self.packet(&mut packet)
    }
}

/// The fields of a call beside its function.
fn annotations(event: &mut Message, e: &Shown<'_>) {
    for (name, value) in e.fields().filter(|(name, _)| *name != "func") {
        let mut m = Message::default();
        m.text(10, name); // name
        match value {
            Value::Uint(n) => m.uint(3, n),  // uint_value
            Value::Int(n) => m.int(4, n),    // int_value
            Value::Text(t) => m.text(6, &t), // string_value
        };
        event.message(4, &m); // debug_annotations
    }
    let mut m = Message::default();
    m.text(10, "common_cpu").uint(3, e.cpu.into());
    event.message(4, &m);
}

/// An event that Perfetto needs no message of its own for.
fn generic(event: &mut Message, name: &str, e: &Shown<'_>) {
    let mut m = Message::default();
    m.text(1, name); // event_name
    for (name, v) in e.fields() {
        let mut field = Message::default();
        field.text(1, name);
        match v {
            Value::Text(t) => field.text(3, &t),
            Value::Int(n) => field.int(4, n),
            Value::Uint(n) => field.uint(5, n),
        };
        m.message(2, &field);
    }
    event.message(327, &m); // generic
}

impl<W: Write> Sink for Perfetto<W> {
    fn event(&mut self, e: &Shown<'_>) -> anyhow::Result<()> {
        if let Some(call) = e.call() {
            return self.slice(e, call);
        }
        let mut event = Message::default();
        event.uint(1, e.ts).uint(2, e.pid as u32 as u64); // timestamp, pid
        let flags = e.event.common.iter().find(|f| f.name == "common_flags");
        if let Some(Value::Uint(flags)) = flags.map(|f| super::value(e.endian, f, e.data)) {
            event.uint(5, flags); // common_flags
        }
        let number = |name: &str| e.number(name).unwrap_or(0);
        let text = |name: &str| e.text(name).unwrap_or_default();
        let mut m = Message::default();
        let typed = e.event.system != "sched" || *self.scheduler.get_or_insert(e.instance) == e.instance;
        match (e.event.system.as_str(), e.event.name.as_str()) {
            (_, name) if !typed => generic(&mut event, name, e),
            ("sched", "sched_switch") => {
                m.text(1, &text("prev_comm")).int(2, number("prev_pid")).int(3, number("prev_prio"));
                m.int(4, number("prev_state")).text(5, &text("next_comm")).int(6, number("next_pid"));
                m.int(7, number("next_prio"));
                event.message(4, &m); // sched_switch
            }
            ("sched", name @ ("sched_wakeup" | "sched_wakeup_new" | "sched_waking")) => {
                m.text(1, &text("comm")).int(2, number("pid")).int(3, number("prio"));
                m.int(4, e.number("success").unwrap_or(1)).int(5, number("target_cpu"));
                let field = match name {
                    "sched_wakeup" => 17,
                    "sched_waking" => 20,
                    _ => 114,
                };
                event.message(field, &m);
            }
            ("ftrace", "print" | "bprint") => {
                m.uint(1, number("ip") as u64); // ip
                let text = e.fields().find(|(name, _)| *name == "buf").map(|(_, v)| v);
                if let Some(Value::Text(text)) = text {
                    m.text(2, &text); // buf
                }
                event.message(3, &m); // print
            }
            (_, name) => generic(&mut event, name, e),
        }
        let cpu = e.cpu as usize;
        if cpu >= 65536 {
            return Ok(());
        }
        if self.bundles.len() <= cpu {
            self.bundles.resize_with(cpu + 1, Default::default);
        }
        let mut full = false;
        if let Some((n, bundle)) = self.bundles.get_mut(cpu) {
            if *n == 0 {
                bundle.uint(1, cpu as u64); // cpu
            }
            if e.lost != Lost::None {
                bundle.uint(3, 1); // lost_events
            }
            bundle.message(2, &event);
            *n += 1;
            full = *n >= BUNDLE;
        }
        if full { self.flush(cpu) } else { Ok(()) }
    }
}

/// Pids and names that the file has.
///
/// # Errors
/// When they cannot be read.
pub fn processes(file: &TraceFile) -> anyhow::Result<Vec<(i32, String)>> {
    let Some(part) = &file.metadata().cmdlines else { return Ok(Vec::new()) };
    let text = part.read_sized64()?;
    let lines = text.split(|b| *b == b'\n').filter_map(|l| {
        let l = String::from_utf8_lossy(l);
        let (pid, comm) = l.split_once(' ')?;
        Some((pid.parse().ok()?, comm.to_owned()))
    });
    Ok(lines.collect())
}

/// Writes `file` for Perfetto; how many events were left out.
///
/// # Errors
/// When it cannot be written.
pub fn export(file: &TraceFile, decoder: &Decoder, output: &Path) -> anyhow::Result<u64> {
    let out = BufWriter::with_capacity(1 << 18, OutputFile::create(output)?);
    let mut p = Perfetto { out, bundles: Vec::new(), tracks: HashSet::new(), calls: Calls::default(), scheduler: None };
    // The kernel's release decides what the letters of a task's state mean.
    let uname = file.options().iter().find_map(|o| if let TypedOption::Uname(u) = o { Some(u) } else { None });
    let mut info = Message::default();
    if let Some(words) = uname.map(|u| u.split(' ').collect::<Vec<_>>())
        && let [system, _, release, machine, ..] = words.as_slice()
    {
        let mut name = Message::default();
        name.text(1, system).text(3, release).text(4, machine); // sysname, release, machine
        info.message(1, &name); // utsname
    }
    info.uint(6, file.page_size().into()).uint(8, file.cpu_count().into()); // page_size, num_cpus
    let mut packet = Message::default();
    packet.message(45, &info); // system_info
    p.packet(&mut packet)?;
    let mut tree = Message::default();
    for (pid, comm) in processes(file)? {
        let mut thread = Message::default();
        thread.int(1, pid.into()).text(2, &comm).int(3, pid.into()); // tid, name, tgid
        tree.message(2, &thread); // threads
    }
    let mut packet = Message::default();
    packet.message(2, &tree); // process_tree
    p.packet(&mut packet)?;
    let unknown = walk(file, decoder, &mut p)?;
    for cpu in 0..p.bundles.len() {
        p.flush(cpu)?;
    }
    p.out.into_inner().map_err(|e| e.into_error())?.commit()?;
    Ok(unknown)
}
