//! What a new file takes over from one that was read.

use super::{BufferHead, FileHead, FileVersion, Writer};
use crate::{
    Error, Result,
    read::{Buffer, CpuData, TraceFile},
    ring::stream::CpuStream,
};
use std::io::{Seek, Write};

impl FileHead {
    /// That of `file`: version, machine and codec.
    pub fn of(file: &TraceFile) -> FileHead {
        let h = file.header();
        FileHead {
            version: if h.version == 6 { FileVersion::V6 } else { FileVersion::V7 },
            endian: h.endian,
            long_size: h.long_size,
            page_size: h.page_size,
            codec: h.codec,
        }
    }
}

/// CPUs of the machine, and never fewer than have data.
pub(super) fn cpu_count(file: &TraceFile) -> u32 {
    let highest = file.buffers().iter().flat_map(|b| &b.cpus).map(|c| c.cpu.saturating_add(1)).max();
    file.cpu_count().max(highest.unwrap_or(0))
}

/// The buffers of `file`, those with the text of a latency tracer last.
///
/// # Errors
/// When such a text cannot be read.
pub fn buffer_heads(file: &TraceFile) -> Result<Vec<BufferHead>> {
    let clock = |b: Option<&str>| b.or(file.clock()).unwrap_or("local").as_bytes().to_vec();
    let mut heads = Vec::new();
    for b in file.buffers() {
        let page_size = u32::try_from(b.subbuf_size)
            .map_err(|_| Error::Unwritable(format!("sub-buffers of {} bytes", b.subbuf_size)))?;
        heads.push(BufferHead::new(b.name.as_str(), clock(b.clock.as_deref()), page_size));
    }
    for (name, part) in file.latency_texts() {
        let mut head = BufferHead::new(name.as_str(), clock(None), file.page_size());
        head.text = Some(part.read()?);
        heads.push(head);
    }
    Ok(heads)
}

/// Copies all data of a CPU to the current CPU of `writer`; compressed chunks go over as they are when the codecs are the same.
///
/// `progress` is told how many bytes of `file` were read.
///
/// # Errors
/// When the data is damaged or cannot be written.
pub fn copy_cpu<W: Write + Seek>(
    writer: &mut Writer<W>,
    file: &TraceFile,
    buffer: &Buffer,
    cpu: &CpuData,
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    if cpu.size == 0 {
        return Ok(());
    }
    let stream = file.stream(buffer, cpu, 1)?;
    if copy_chunks(writer, file, &stream, progress)? {
        return Ok(());
    }
    writer.copy(file.source(), cpu.offset, cpu.size, progress)
}

/// Copies compressed chunks; `false` when the data is not compressed.
fn copy_chunks<W: Write + Seek>(
    writer: &mut Writer<W>,
    file: &TraceFile,
    stream: &CpuStream,
    progress: &mut dyn FnMut(u64),
) -> Result<bool> {
    let Some(chunks) = stream.chunks() else { return Ok(false) };
    for chunk in chunks {
        let chunk = chunk?;
        let mut bytes = writer.spare();
        bytes.resize(chunk.packed as usize, 0);
        file.source().read_exact_at("compressed chunk", chunk.offset, &mut bytes)?;
        writer.chunk(file.header().codec, chunk.offset, bytes, chunk.unpacked)?;
        progress(chunk.packed.into());
    }
    Ok(true)
}
