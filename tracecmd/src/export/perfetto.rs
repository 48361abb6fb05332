//! Perfetto's protobuf: what ui.perfetto.dev and trace_processor open.
//!
//! Source: protos/perfetto/trace/perfetto_trace.proto of the Perfetto project; the field numbers stand behind the names.

use std::{
    collections::HashSet,
    io::{BufWriter, Write},
    path::Path,
};

use trace_dat::{Decoder, TraceFile, write::OutputFile};

use super::{Shown, Sink, Value, walk};

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

    /// A slice of function_graph on the track of its thread.
    fn slice(&mut self, e: &Shown<'_>, begin: bool) -> anyhow::Result<()> {
        // Every CPU has an idle task of its own, all with pid 0.
        let track = match e.pid {
            0 => 1 << 40 | u64::from(e.cpu),
            pid => pid as u32 as u64,
        };
        if self.tracks.insert(track) {
            let mut descriptor = Message::default();
            descriptor.uint(1, track); // uuid
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
        let mut event = Message::default();
        event.uint(9, if begin { 1 } else { 2 }).uint(11, track); // type: SLICE_BEGIN, SLICE_END; track_uuid
        event.text(22, "function_graph"); // categories
        if begin {
            event.text(23, &e.function()); // name
        }
        let mut packet = Message::default();
        packet.uint(8, e.ts).message(11, &event); // timestamp, track_event
        self.packet(&mut packet)
    }
}

impl<W: Write> Sink for Perfetto<W> {
    fn event(&mut self, e: &Shown<'_>) -> anyhow::Result<()> {
        match e.event.name.as_str() {
            "funcgraph_entry" => return self.slice(e, true),
            "funcgraph_exit" => return self.slice(e, false),
            _ => {}
        }
        let mut event = Message::default();
        event.uint(1, e.ts).uint(2, e.pid as u32 as u64); // timestamp, pid
        let number = |name: &str| e.number(name).unwrap_or(0);
        let text = |name: &str| e.text(name).unwrap_or_default();
        let mut m = Message::default();
        match (e.event.system.as_str(), e.event.name.as_str()) {
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
            (_, name) => {
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
    let mut p = Perfetto { out, bundles: Vec::new(), tracks: HashSet::new() };
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
