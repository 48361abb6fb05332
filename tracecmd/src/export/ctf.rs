//! Common Trace Format 1.8: a directory with a description and one stream for each CPU, for babeltrace 2 and Trace Compass.
//!
//! Source: the CTF 1.8.3 specification of the DiaMon workgroup.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write as _,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use trace_dat::{Decoder, TraceFile, format::Event, read::option::TypedOption, ring::record::Lost, write::Temporary};

use super::{Shown, Sink, Value, is_signed, is_text, walk};

/// First word of every packet.
const MAGIC: u32 = 0xc1fc_1fc1;
/// Bytes of the packet header and context: magic, stream id; begin, end, content size, packet size, discarded events, CPU.
const HEAD: usize = 4 + 4 + 8 + 8 + 8 + 8 + 8 + 4;
/// A packet with this many bytes is full. Readers find a time by packets.
const PACKET: usize = 1 << 18;

struct Stream {
    out: File,
    cpu: u32,
    /// The packet under construction, room for its head included.
    packet: Vec<u8>,
    begin: u64,
    end: u64,
    /// Events lost so far.
    lost: u64,
}

impl Stream {
    fn flush(&mut self) -> std::io::Result<()> {
        if self.packet.len() <= HEAD {
            return Ok(());
        }
        let bits = self.packet.len() as u64 * 8;
        let mut head = MAGIC.to_le_bytes().to_vec();
        head.extend(0u32.to_le_bytes());
        for n in [self.begin, self.end, bits, bits, self.lost] {
            head.extend(n.to_le_bytes());
        }
        head.extend(self.cpu.to_le_bytes());
        self.packet.splice(..HEAD, head);
        self.out.write_all(&self.packet)?;
        self.packet.truncate(HEAD);
        Ok(())
    }
}

struct Ctf {
    dir: PathBuf,
    streams: BTreeMap<u32, Stream>,
    described: HashSet<u16>,
    metadata: String,
}

const PROLOGUE: &str = r#"/* CTF 1.8 */
typealias integer { size = 8; align = 8; signed = false; } := uint8_t;
typealias integer { size = 16; align = 8; signed = false; } := uint16_t;
typealias integer { size = 32; align = 8; signed = false; } := uint32_t;
typealias integer { size = 32; align = 8; signed = true; } := int32_t;
typealias integer { size = 64; align = 8; signed = false; } := uint64_t;
typealias integer { size = 64; align = 8; signed = true; } := int64_t;
trace {
	major = 1; minor = 8; byte_order = le;
	packet.header := struct { uint32_t magic; uint32_t stream_id; };
};
clock { name = "trace"; freq = 1000000000; offset = 0; };
typealias integer { size = 64; align = 8; signed = false; map = clock.trace.value; } := time_t;
stream {
	id = 0;
	packet.context := struct { time_t timestamp_begin; time_t timestamp_end; uint64_t content_size; uint64_t packet_size; uint64_t events_discarded; uint32_t cpu_id; };
	event.header := struct { uint16_t id; time_t timestamp; };
	event.context := struct { int32_t pid; string comm; string instance; };
};
"#;

/// A name that the description language takes; the underscore in front keeps its keywords away and is not shown.
fn field_name(name: &str) -> String {
    let clean: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    format!("_{clean}")
}

impl Ctf {
    fn describe(&mut self, e: &Event) {
        let name: String =
            format!("{}:{}", e.system, e.name).chars().filter(|c| !matches!(c, '"' | '\\' | '\n')).collect();
        let _ = write!(
            self.metadata,
            "event {{\n\tname = \"{name}\"; id = {}; stream_id = 0;\n\tfields := struct {{",
            e.id
        );
        let mut seen = HashSet::new();
        for f in &e.fields {
            let kind = match () {
                () if is_text(f) => "string",
                () if is_signed(f) => "int64_t",
                () => "uint64_t",
            };
            let mut name = field_name(&f.name);
            while !seen.insert(name.clone()) {
                name.push('_');
            }
            let _ = write!(self.metadata, " {kind} {name};");
        }
        self.metadata.push_str(" };\n};\n");
    }

    fn finish(mut self) -> anyhow::Result<()> {
        for s in self.streams.values_mut() {
            s.flush()?;
        }
        fs::write(self.dir.join("metadata"), &self.metadata)?;
        Ok(())
    }
}

fn text(out: &mut Vec<u8>, t: &str) {
    out.extend(t.bytes().filter(|b| *b != 0));
    out.push(0);
}

impl Sink for Ctf {
    fn event(&mut self, e: &Shown<'_>) -> anyhow::Result<()> {
        if self.described.insert(e.event.id) {
            self.describe(e.event);
        }
        let s = match self.streams.entry(e.cpu) {
            std::collections::btree_map::Entry::Occupied(s) => s.into_mut(),
            std::collections::btree_map::Entry::Vacant(v) => {
                let out = File::create(self.dir.join(format!("cpu{}", e.cpu)))?;
                let packet = vec![0; HEAD];
                v.insert(Stream { out, cpu: e.cpu, packet, begin: e.ts, end: e.ts, lost: 0 })
            }
        };
        // A reader counts what was lost between two packets, so that a new one begins here.
        if s.packet.len() >= PACKET || e.lost != Lost::None {
            s.flush()?;
        }
        s.lost += match e.lost {
            Lost::None => 0,
            Lost::Count(n) => n,
            // At least one.
            Lost::Unknown => 1,
        };
        if s.packet.len() <= HEAD {
            s.begin = e.ts;
        }
        s.end = e.ts;
        let b = &mut s.packet;
        b.extend(e.event.id.to_le_bytes());
        b.extend(e.ts.to_le_bytes());
        b.extend(e.pid.to_le_bytes());
        text(b, &e.comm());
        text(b, e.buffer);
        for (_, v) in e.fields() {
            match v {
                Value::Int(n) => b.extend(n.to_le_bytes()),
                Value::Uint(n) => b.extend(n.to_le_bytes()),
                Value::Text(t) => text(b, &t),
            }
        }
        Ok(())
    }
}

/// What describes the traced machine.
fn environment(file: &TraceFile) -> String {
    let uname = file.options().iter().find_map(|o| if let TypedOption::Uname(u) = o { Some(u.as_str()) } else { None });
    let mut env = String::from("env { domain = \"kernel\"; tracer_name = \"ftrace\";");
    let words: Vec<&str> = uname.unwrap_or_default().split(' ').collect();
    for (name, word) in ["sysname", "hostname", "kernel_release", "architecture"].into_iter().zip(words) {
        let word: String = word.chars().filter(|c| !matches!(c, '"' | '\\') && !c.is_control()).collect();
        let _ = write!(env, " {name} = \"{word}\";");
    }
    env.push_str(" };\n");
    env
}

/// Writes `file` as the CTF directory `output`, which must not exist; how many events were left out.
///
/// # Errors
/// When it cannot be written; nothing remains then.
pub fn export(file: &TraceFile, decoder: &Decoder, output: &Path) -> anyhow::Result<u64> {
    if output.exists() {
        bail!("{} exists already; a CTF trace is a new directory", output.display());
    }
    let name = output.file_name().context("the output has no name")?.to_string_lossy().into_owned();
    let dir = output.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let (unfinished, ()) = Temporary::create(&dir, |dir| fs::create_dir(dir))
        .with_context(|| format!("cannot create {}", dir.display()))?;
    let mut ctf = Ctf {
        dir: dir.clone(),
        streams: BTreeMap::new(),
        described: HashSet::new(),
        metadata: PROLOGUE.to_owned() + &environment(file),
    };
    let done = walk(file, decoder, &mut ctf).and_then(|n| ctf.finish().map(|()| n));
    let done = done.and_then(|n| {
        unfinished.rename(output).map(|()| n).with_context(|| format!("cannot rename to {}", output.display()))
    });
    done.with_context(|| format!("{}: cannot write", output.display()))
}
