//! Small recordings, made from the fixtures: few formats, few symbols, few sub-buffers, in every form of the file.
//!
//! They are what damage is done to where many thousand runs must be short, and the seeds of the fuzz targets.

use std::{collections::BTreeMap, io::Cursor};

use anyhow::{Context, Result};
use trace_dat::{
    TraceFile,
    compress::Codec,
    write::{self, BufferHead, FileHead, FileVersion, Metadata, Writer},
};

/// How small, and in which form.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// Version of the file.
    pub version: FileVersion,
    /// Compression of a version 7 file.
    pub codec: Codec,
    /// Sub-buffers of each CPU.
    pub subbufs: usize,
    /// Event formats beside those that the records use.
    pub more_formats: usize,
}

/// Most bytes of kallsyms and of other texts.
const TEXT_MAX: usize = 2048;

/// The first lines of a text.
fn head(text: &[u8], max: usize) -> &[u8] {
    let text = &text[..text.len().min(max)];
    let end = text.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
    &text[..end]
}

/// A small copy of `file`.
///
/// # Errors
/// When it cannot be read or written.
pub fn small(file: &TraceFile, form: Form) -> Result<Vec<u8>> {
    let old = file.metadata();
    let heads: Vec<BufferHead> = write::buffer_heads(file)?.into_iter().filter(|b| b.text.is_none()).collect();
    // The data first: they say which formats are needed.
    let mut data: Vec<(usize, u32, Vec<u8>)> = Vec::new();
    let mut used = std::collections::BTreeSet::new();
    for (n, buffer) in file.buffers().iter().enumerate() {
        for cpu in buffer.cpus.iter().filter(|c| c.size > 0).take(2) {
            let mut stream = file.stream(buffer, cpu, 1)?;
            let mut bytes = Vec::new();
            for _ in 0..form.subbufs {
                let Some(subbuf) = stream.next_subbuf() else { break };
                bytes.extend_from_slice(subbuf.data);
                bytes.resize(bytes.len().next_multiple_of(buffer.subbuf_size as usize), 0);
                for item in stream.current_items().into_iter().flatten() {
                    used.insert(file.endian().uint(item?.data, 0, 2));
                }
            }
            data.push((n, cpu.cpu, bytes));
        }
    }
    let (texts, result) = old.formats();
    result?;
    let mut systems: BTreeMap<&str, Vec<&[u8]>> = BTreeMap::new();
    let mut more = 0;
    for f in &texts.files {
        let text = &texts.text[f.range.clone()];
        let id = text.split(|b| *b == b'\n').find_map(|l| l.strip_prefix(b"ID: "));
        let id = id.and_then(|id| std::str::from_utf8(id).ok()?.trim().parse::<u64>().ok());
        if !used.contains(&id) {
            more += 1;
            if more > form.more_formats {
                continue;
            }
        }
        systems.entry(&texts.systems[f.system as usize]).or_default().push(text);
    }
    let mut meta = Metadata::new(file.endian(), file.cpu_count().clamp(1, 4));
    meta.header_info(&old.header_page, &old.header_event);
    meta.ftrace_events(&systems.remove("ftrace").unwrap_or_default());
    meta.event_formats(&systems.into_iter().collect::<Vec<_>>());
    let text32 = |p: &Option<trace_dat::read::section::Part>| p.as_ref().map(|p| p.read_sized32()).transpose();
    meta.kallsyms(head(&text32(&old.kallsyms)?.unwrap_or_default(), TEXT_MAX));
    meta.printk_formats(head(&text32(&old.printk)?.unwrap_or_default(), TEXT_MAX));
    let cmdlines = old.cmdlines.as_ref().map(|p| p.read_sized64()).transpose()?.unwrap_or_default();
    meta.cmdlines(head(&cmdlines, TEXT_MAX));
    meta.options = Metadata::of(file)?.options;
    let codec = if form.version == FileVersion::V6 { Codec::None } else { form.codec };
    let head = FileHead { version: form.version, codec, ..FileHead::of(file) };
    let mut writer = Writer::new(Cursor::new(Vec::new()), head, &meta, heads)?;
    for (n, cpu, bytes) in data.iter().filter(|d| d.1 < meta.cpus) {
        writer.cpu(*n, *cpu)?;
        writer.sub_buffers(bytes)?;
    }
    Ok(writer.finish()?.0.into_inner())
}

/// The forms that every small file is made in.
pub const FORMS: [Form; 4] = [
    Form { version: FileVersion::V7, codec: Codec::None, subbufs: 2, more_formats: 2 },
    Form { version: FileVersion::V6, codec: Codec::None, subbufs: 2, more_formats: 2 },
    Form { version: FileVersion::V7, codec: Codec::Zstd, subbufs: 12, more_formats: 30 },
    Form { version: FileVersion::V7, codec: Codec::Zlib, subbufs: 3, more_formats: 2 },
];

/// Every fixture in the next of [`FORMS`] in turn, or in all of them: name and bytes.
///
/// # Errors
/// When a fixture cannot be read.
pub fn all(every_form: bool) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for (n, path) in crate::programs::fixtures().into_iter().enumerate() {
        let file = TraceFile::open(&path)?;
        for (i, form) in FORMS.into_iter().enumerate() {
            if every_form || i == n % FORMS.len() {
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let bytes = small(&file, form).with_context(|| format!("{name} as {form:?}"))?;
                files.push((format!("{name}-{i}"), bytes));
            }
        }
    }
    Ok(files)
}
