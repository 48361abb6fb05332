//! Common Trace Format 1.8: a directory with a description and one stream for each CPU, for babeltrace 2 and Trace Compass.
//!
//! Source: the CTF 1.8.3 specification of the DiaMon workgroup.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write as _,
    fs::{self, File},
    io::{BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use trace_dat::{Decoder, TraceFile, format::Event};

use super::{Shown, Sink, Value, is_signed, is_text, walk};

/// First word of every packet.
const MAGIC: u32 = 0xc1fc_1fc1;
/// Bytes of the packet header and context: magic, stream id; begin, end, content size, packet size, CPU.
const HEAD: u64 = 4 + 4 + 8 + 8 + 8 + 8 + 4;

struct Stream {
    out: BufWriter<File>,
    bytes: u64,
    begin: u64,
    end: u64,
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
env { domain = "kernel"; tracer_name = "ftrace"; };
clock { name = "trace"; freq = 1000000000; offset = 0; };
typealias integer { size = 64; align = 8; signed = false; map = clock.trace.value; } := time_t;
stream {
	id = 0;
	packet.context := struct { time_t timestamp_begin; time_t timestamp_end; uint64_t content_size; uint64_t packet_size; uint32_t cpu_id; };
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
        for (cpu, mut s) in std::mem::take(&mut self.streams) {
            let bits = s.bytes * 8;
            s.out.seek(SeekFrom::Start(0))?;
            s.out.write_all(&MAGIC.to_le_bytes())?;
            s.out.write_all(&0u32.to_le_bytes())?;
            for n in [s.begin, s.end, bits, bits] {
                s.out.write_all(&n.to_le_bytes())?;
            }
            s.out.write_all(&cpu.to_le_bytes())?;
            s.out.flush()?;
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
        let mut b = e.event.id.to_le_bytes().to_vec();
        b.extend(e.ts.to_le_bytes());
        b.extend(e.pid.to_le_bytes());
        text(&mut b, &e.comm());
        text(&mut b, e.buffer);
        for (_, v) in e.fields() {
            match v {
                Value::Int(n) => b.extend(n.to_le_bytes()),
                Value::Uint(n) => b.extend(n.to_le_bytes()),
                Value::Text(t) => text(&mut b, &t),
            }
        }
        let s = match self.streams.entry(e.cpu) {
            std::collections::btree_map::Entry::Occupied(s) => s.into_mut(),
            std::collections::btree_map::Entry::Vacant(v) => {
                let mut out = BufWriter::new(File::create(self.dir.join(format!("cpu{}", e.cpu)))?);
                out.write_all(&[0; HEAD as usize])?;
                v.insert(Stream { out, bytes: HEAD, begin: e.ts, end: e.ts })
            }
        };
        s.out.write_all(&b)?;
        s.bytes += b.len() as u64;
        s.end = e.ts;
        Ok(())
    }
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
    fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let mut ctf =
        Ctf { dir: dir.clone(), streams: BTreeMap::new(), described: HashSet::new(), metadata: PROLOGUE.to_owned() };
    let done = walk(file, decoder, &mut ctf).and_then(|n| ctf.finish().map(|()| n));
    let done = done.and_then(|n| {
        fs::rename(&dir, output).map(|()| n).with_context(|| format!("cannot rename to {}", output.display()))
    });
    if done.is_err() {
        let _ = fs::remove_dir_all(&dir);
    }
    done.with_context(|| format!("{}: cannot write", output.display()))
}
