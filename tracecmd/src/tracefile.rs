//! From a finished recording to a trace.dat file: what describes the kernel, then the data of each CPU.

use std::hash::Hasher;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use trace_dat::compress::Codec;
use trace_dat::write::{
    BufferHead, FileHead, FileVersion, Metadata, Payload, RawOption, Section, Summary, Writer, option::id,
};
use trace_dat::{Endian, LongSize};
use tracefs::{EventTarget, Instance, TraceFs};

use crate::files::progress::Progress;
use crate::plan::Plan;
use crate::recorder::Raw;

/// Byte order of this machine.
pub const HOST_ENDIAN: Endian = if cfg!(target_endian = "big") { Endian::Big } else { Endian::Little };

/// What a kernel says of one buffer after a recording.
#[derive(Debug)]
pub struct BufferFacts {
    /// Instance, empty for the top buffer.
    pub name: String,
    /// Text of `trace_clock`.
    pub clock: String,
    /// Bytes of a sub-buffer.
    pub subbuf: usize,
    /// `per_cpu/cpuN/stats` by CPU.
    pub stats: Vec<(u32, String)>,
    /// The text of a latency tracer.
    pub text: Option<Vec<u8>>,
    /// `last_boot_info` of a persistent buffer that holds an earlier boot's trace.
    pub last_boot: Option<String>,
    /// Function arguments were recorded: BTF is needed to print them.
    pub arguments: bool,
}

impl BufferFacts {
    /// Reads them; done as long as the buffer still exists.
    ///
    /// # Errors
    /// A control file cannot be read.
    pub fn read(instance: &Instance, latency: bool) -> anyhow::Result<BufferFacts> {
        let dir = instance.dir();
        let mut stats = Vec::new();
        for cpu in instance.cpus()? {
            // A CPU may just have gone.
            if let Ok(text) = instance.stats_text(cpu) {
                stats.push((cpu, text));
            }
        }
        let on = |option: &str| instance.option(option).unwrap_or(false);
        let last_boot = instance.last_boot_info()?.filter(|t| !t.starts_with("# Current"));
        Ok(BufferFacts {
            name: instance.name().unwrap_or("").to_owned(),
            clock: dir.read("trace_clock").unwrap_or_default(),
            subbuf: instance.subbuf_size()?,
            stats,
            text: if latency { Some(dir.read_bytes("trace")?) } else { None },
            last_boot,
            arguments: on("func-args") || on("funcgraph-args"),
        })
    }

    /// The clock in brackets.
    pub fn selected_clock(&self) -> &str {
        let word = trace_dat::write::selected_clock(self.clock.as_bytes());
        word.and_then(|w| std::str::from_utf8(w).ok()).unwrap_or("local")
    }
}

/// What else goes into the file.
#[derive(Debug, Default)]
pub struct Extras {
    /// Wall-clock offset in microseconds (`--date`).
    pub date_us: Option<i64>,
    /// Process maps, one text per process.
    pub maps: Vec<String>,
    /// Multiplier and shift from TSC ticks to nanoseconds.
    pub tsc2nsec: Option<(u32, u32)>,
    /// BTF in any case (extract).
    pub btf: bool,
    /// Guests that belong to this recording.
    pub guests: Vec<RawOption>,
    /// Number that guests know this recording by.
    pub trace_id: Option<u64>,
    /// Comes behind the other options.
    pub more: Vec<RawOption>,
    /// The kernel's symbols, when they are known already.
    pub symbols: Option<Payload>,
}

/// The formats of the events that `patterns` select (`None`: of all), by system.
pub(crate) fn formats(top: &Instance, patterns: Option<&[String]>) -> anyhow::Result<Vec<(String, Vec<Vec<u8>>)>> {
    let mut wanted: std::collections::BTreeMap<String, std::collections::BTreeSet<String>> = Default::default();
    match patterns {
        None => {
            for system in top.event_systems()? {
                let events = top.events_of(&system)?;
                wanted.entry(system).or_default().extend(events);
            }
        }
        Some(patterns) => {
            for pattern in patterns {
                // What matches nothing was reported (or accepted by -i) when events were switched on.
                for target in top.expand_events(pattern, true).unwrap_or_default() {
                    if let EventTarget::Event(system, event) = target {
                        wanted.entry(system).or_default().insert(event);
                    }
                }
            }
        }
    }
    let mut out = Vec::new();
    for (system, events) in wanted {
        let texts =
            events.iter().filter_map(|e| top.dir().read_bytes(format!("events/{system}/{e}/format")).ok()).collect();
        out.push((system, texts));
    }
    Ok(out)
}

/// Formats of the `ftrace` system, which every file has.
pub(crate) fn ftrace_formats(top: &Instance) -> Vec<Vec<u8>> {
    let mut names = top.dir().list_dirs("events/ftrace").unwrap_or_default();
    names.sort();
    names.iter().filter_map(|e| top.dir().read_bytes(format!("events/ftrace/{e}/format")).ok()).collect()
}

/// `uname` as the file has it.
fn uname() -> anyhow::Result<String> {
    let u = nix::sys::utsname::uname().context("uname")?;
    let [sys, node, release, machine] =
        [u.sysname(), u.nodename(), u.release(), u.machine()].map(|t| t.to_string_lossy().into_owned());
    Ok(format!("{sys} {node} {release} {machine}"))
}

/// Everything but the trace data.
///
/// # Errors
/// A file of the kernel cannot be read.
pub fn metadata(root: &TraceFs, plan: &Plan, facts: &[BufferFacts], extras: &Extras) -> anyhow::Result<Metadata> {
    let top = root.top();
    let dir = root.dir();
    let cpus = top.cpus()?.last().map_or(1, |c| c + 1);
    let mut meta = Metadata::new(HOST_ENDIAN, cpus);
    let page = dir.read_bytes("events/header_page").context("this kernel does not say how its ring buffer looks")?;
    meta.header_info(&page, &dir.read_bytes("events/header_event").unwrap_or_default());
    meta.ftrace_events(&ftrace_formats(&top));
    meta.event_formats(&formats(&top, plan.formats.as_deref())?);
    match &extras.symbols {
        Some(known) => meta.set(id::KALLSYMS, known.clone()),
        None => meta.kallsyms(kallsyms(plan)?),
    }
    meta.printk_formats(&dir.read_bytes("printk_formats").unwrap_or_default());
    meta.cmdlines(&dir.read_bytes("saved_cmdlines").unwrap_or_default());

    if let Some(us) = extras.date_us {
        meta.option(RawOption::text(id::DATE, format!("{us:#x}")));
    } else if let Some(offset) = &plan.ts_offset {
        meta.option(RawOption::text(id::OFFSET, offset));
    }
    let clock = facts
        .iter()
        .find(|f| f.name.is_empty())
        .map_or_else(|| dir.read("trace_clock").unwrap_or_default(), |f| f.clock.clone());
    meta.option(RawOption::text(id::TRACECLOCK, clock));
    for hook in &plan.hooks {
        meta.option(RawOption::text(id::HOOK, &hook.text));
    }
    meta.option(RawOption::text(id::UNAME, uname()?));
    meta.option(RawOption::text(id::VERSION, concat!("tracecmd ", env!("CARGO_PKG_VERSION"))));
    if let Some(trace_id) = extras.trace_id {
        meta.option(RawOption::u64(id::TRACEID, trace_id, HOST_ENDIAN));
    }
    for f in facts {
        if !f.name.is_empty() && !f.stats.is_empty() {
            meta.option(RawOption::text(id::CPUSTAT, format!("\nBuffer: {}\n\n", f.name)));
        }
        for (cpu, text) in &f.stats {
            meta.option(RawOption::text(id::CPUSTAT, format!("CPU: {cpu}\n{text}")));
        }
        if let Some(info) = &f.last_boot {
            meta.option(RawOption::text(id::LAST_BOOT_INFO, format!("{}:{info}", f.name)));
        }
    }
    if (extras.btf || facts.iter().any(|f| f.arguments))
        && let Ok(btf) = std::fs::read("/sys/kernel/btf/vmlinux")
    {
        meta.btf(&btf);
    }
    if facts.iter().any(|f| f.last_boot.is_some()) {
        meta.modules(&std::fs::read("/proc/modules").unwrap_or_default());
    }
    for text in &extras.maps {
        meta.option(RawOption::text(id::PROCMAPS, text));
    }
    for guest in extras.guests.iter().chain(&extras.more) {
        meta.option(guest.clone());
    }
    if let Some((mult, shift)) = extras.tsc2nsec {
        meta.option(RawOption::tsc2nsec(mult, shift, 0, HOST_ENDIAN));
    }
    Ok(meta)
}

/// Kernel symbols. With `--kptr` the kernel shows their addresses for the moment of the copy.
fn kallsyms(plan: &Plan) -> anyhow::Result<Vec<u8>> {
    const RESTRICT: &str = "/proc/sys/kernel/kptr_restrict";
    let old = if plan.kptr { Some(std::fs::read_to_string(RESTRICT).context("--kptr")?) } else { None };
    if old.is_some() {
        std::fs::write(RESTRICT, "0").context("--kptr: cannot write kptr_restrict")?;
    }
    let text = std::fs::read("/proc/kallsyms").unwrap_or_default();
    if let Some(old) = old {
        std::fs::write(RESTRICT, old.trim()).context("--kptr: cannot put kptr_restrict back")?;
    }
    // The first symbols of some machines are per-CPU offsets from 0; the last one never is.
    let last = text.trim_ascii_end().rsplit(|b| *b == b'\n').next().unwrap_or_default();
    let hidden = !last.is_empty() && last.iter().take_while(|b| **b != b' ').all(|b| *b == b'0');
    if hidden && !plan.quiet {
        log::warn!(
            "/proc/kallsyms shows no addresses, so functions will be numbers; --kptr lifts kernel.kptr_restrict while it is copied"
        );
    }
    Ok(text)
}

/// The compression that is wanted.
pub fn codec(plan: &Plan) -> Codec {
    match (plan.file_version, plan.compression.as_deref()) {
        (Some(6), _) | (_, Some("none")) => Codec::None,
        (_, Some("zlib")) => Codec::Zlib,
        _ => Codec::Zstd,
    }
}

/// Large sections that were packed when the recording began. Most are the same at its end; of the kernel's symbols
/// [`State`](crate::symbols::State) tells that.
#[derive(Debug, Default)]
pub struct PackedSections(Vec<PackedSection>);

#[derive(Debug)]
struct PackedSection {
    id: u16,
    /// Of the plain bytes.
    hash: u64,
    payload: Payload,
}

/// It is worth while from so many bytes on.
const LARGE_SECTION: usize = 64 << 10;

impl PackedSections {
    /// Packs all sections and remembers the large ones, when the finished file has this codec.
    ///
    /// # Errors
    /// As [`Metadata::pack`].
    pub fn pack(meta: &mut Metadata, codec: Codec, finished: Codec) -> anyhow::Result<PackedSections> {
        let hashes: Vec<_> = meta
            .sections
            .iter()
            .map(|s| match &s.payload {
                Payload::Plain(bytes) if codec == finished && bytes.len() >= LARGE_SECTION && s.id != id::KALLSYMS => {
                    Some(hash(bytes))
                }
                _ => None,
            })
            .collect();
        meta.pack(codec)?;
        let packed = meta
            .sections
            .iter()
            .zip(hashes)
            .filter_map(|(s, hash)| Some(PackedSection { id: s.id, hash: hash?, payload: s.payload.clone() }));
        Ok(PackedSections(packed.collect()))
    }

    /// Puts them in the place of sections with the same content.
    pub fn put_into(self, meta: &mut Metadata) {
        for packed in self.0 {
            let Payload::Packed { unpacked, .. } = packed.payload else { continue };
            let same = |s: &&mut Section| match &s.payload {
                Payload::Plain(bytes) => {
                    s.id == packed.id && bytes.len() as u64 == u64::from(unpacked) && hash(bytes) == packed.hash
                }
                Payload::Packed { .. } => false,
            };
            if let Some(section) = meta.sections.iter_mut().find(same) {
                section.payload = packed.payload;
            }
        }
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = rustc_hash::FxHasher::default();
    hasher.write(bytes);
    hasher.finish()
}

/// Writes a file that has everything but data, for a recording that may not end; it is on disk when this returns.
///
/// # Errors
/// It cannot be written.
pub fn write_description(path: &Path, meta: &Metadata, facts: &[BufferFacts]) -> anyhow::Result<()> {
    let long_size = if size_of::<usize>() == 4 { LongSize::Four } else { LongSize::Eight };
    let page_size = facts.first().map_or(4096, |f| f.subbuf as u32);
    let head = FileHead { version: FileVersion::V7, endian: HOST_ENDIAN, long_size, page_size, codec: Codec::Zstd };
    let heads = facts.iter().map(|f| BufferHead::new(f.name.as_str(), f.selected_clock(), f.subbuf as u32));
    let writer = Writer::create(path, head, meta, heads.collect())?;
    writer.commit_synced()?;
    Ok(())
}

/// Writes the file. `data` holds for each of `facts` the raw data of its CPUs, ascending.
///
/// # Errors
/// Something cannot be read or written; no file appears then and the raw data stay where they are.
pub fn write(
    path: &Path,
    plan: &Plan,
    meta: &Metadata,
    facts: &[BufferFacts],
    data: &mut [Vec<Raw>],
) -> anyhow::Result<Summary> {
    let version = if plan.file_version == Some(6) { FileVersion::V6 } else { FileVersion::V7 };
    let long_size = if size_of::<usize>() == 4 { LongSize::Four } else { LongSize::Eight };
    let host_page = facts.first().map_or(4096, |f| f.subbuf as u32);
    let head = FileHead { version, endian: HOST_ENDIAN, long_size, page_size: host_page, codec: codec(plan) };
    let mut heads = Vec::new();
    if facts.first().is_none_or(|f| !f.name.is_empty()) {
        // The top buffer stands in every file, here an empty one.
        heads.push(BufferHead::new("", meta.clock(), host_page));
    }
    let shift = heads.len();
    for f in facts {
        let mut head = BufferHead::new(f.name.as_str(), f.selected_clock(), f.subbuf as u32);
        head.text.clone_from(&f.text);
        heads.push(head);
    }
    let mut writer = Writer::create(path, head, meta, heads)?;
    let mut progress = Progress::bytes(data.iter().flatten().map(|r| r.bytes).sum());
    for (at, cpus) in data.iter_mut().enumerate() {
        for raw in cpus {
            if raw.bytes == 0 {
                continue;
            }
            writer.cpu(at + shift, raw.cpu)?;
            let mut done = 0;
            if let Some(ahead) = raw.ahead.take() {
                done = ahead.unpacked();
                writer.spooled(ahead)?;
                progress.add(done);
            }
            for source in raw.sources()? {
                let skip = std::mem::take(&mut done);
                writer.copy(&source, skip, source.len().saturating_sub(skip), &mut |n| progress.add(n))?;
            }
        }
    }
    // The raw data go next.
    Ok(writer.commit_synced()?)
}

/// Says where the data of each CPU went, in the words that scripts read.
pub fn print_offsets(summary: &Summary, out: &mut dyn Write) -> std::io::Result<()> {
    for buffer in &summary.buffers {
        for (cpu, s) in buffer.cpus.iter().enumerate() {
            writeln!(out, "CPU{cpu} data recorded at offset={:#x}", s.offset)?;
            if summary.compressed {
                writeln!(out, "    {} bytes in size ({} uncompressed)", s.size, s.unpacked)?;
            } else {
                writeln!(out, "    {} bytes in size", s.size)?;
            }
        }
    }
    Ok(())
}
