//! Buffers of a version 7 file whose options were never written, or are lost.
//!
//! The data of the CPUs lie one behind the other, each aligned to the size of a sub-buffer. Compressed data say themselves where
//! they end; otherwise a time that goes back shows where the next CPU begins.

use crate::{
    Error,
    cursor::FileCursor,
    read::{Buffer, CpuData, Parsed, header::Header, section::Section},
    source::Source,
    warning::{Place, Warnings},
};

/// More CPUs than this are not looked for.
const CPUS_MAX: usize = 8192;

/// Adds what can be found of the buffer in this section.
pub(super) fn buffer(source: &Source, header: &Header, parsed: &mut Parsed, s: &Section, warnings: &Warnings) {
    let name = match parsed.buffers.len() {
        0 => String::new(),
        n => format!("unknown-{n}"),
    };
    let size = match parsed.layout.subbuf_size {
        0 => header.page_size.into(),
        n => n,
    };
    let place = Place { offset: Some(s.offset), buffer: Some(name.clone()), ..Place::default() };
    let missing = Error::Missing { what: "BUFFER option", offset: s.offset };
    if !parsed.layout.fits(size) {
        warnings.push(place, missing, "this buffer");
        return;
    }
    let mut buffer = Buffer::new(name, size, s.offset);
    // The size is written last: 0 in a section that was not finished.
    let end = if s.size == 0 { source.len() } else { s.end().min(source.len()) };
    let start = s.data().checked_next_multiple_of(size).unwrap_or(u64::MAX);
    buffer.cpus = match s.compressed() {
        true => packed(source, header, size, start, end),
        false => plain(source, header, parsed, size, start, end),
    };
    let lost = match buffer.cpus.len() {
        0 => "this buffer",
        _ => "its name, clock and the numbers of its CPUs, which are counted from 0",
    };
    warnings.push(place, missing, lost);
    if !buffer.cpus.is_empty() {
        parsed.buffers.push(buffer);
    }
}

fn packed(source: &Source, header: &Header, size: u64, mut pos: u64, end: u64) -> Vec<CpuData> {
    let mut cpus = Vec::new();
    while pos < end && cpus.len() < CPUS_MAX {
        let Some(after) = chunks(source, header, size, pos, end) else { break };
        cpus.push(CpuData { cpu: cpus.len() as u32, offset: pos, size: after - pos, packed: true });
        pos = after.checked_next_multiple_of(size).unwrap_or(u64::MAX);
    }
    cpus
}

/// Where the chunks that begin at `pos` end; `None` when there are none.
fn chunks(source: &Source, header: &Header, size: u64, pos: u64, end: u64) -> Option<u64> {
    let mut c = FileCursor::new(source, pos, header.endian);
    // 0: the count was not written yet, the chunks go on as long as they look like some.
    let count = c.u32("count of chunks").ok()?;
    let mut found = 0u32;
    while count == 0 || found < count {
        let at = c.offset();
        let (Ok(packed), Ok(unpacked)) = (c.u32("chunk"), c.u32("chunk")) else {
            return Some(end).filter(|_| found > 0);
        };
        if unpacked == 0
            || u64::from(unpacked) % size != 0
            || packed == 0
            || u64::from(packed) > 2 * u64::from(unpacked)
        {
            return Some(at).filter(|_| found > 0);
        }
        found += 1;
        if c.offset().saturating_add(packed.into()) > end {
            return Some(end);
        }
        c.seek(c.offset() + u64::from(packed));
    }
    Some(c.offset())
}

fn plain(source: &Source, header: &Header, parsed: &Parsed, size: u64, start: u64, end: u64) -> Vec<CpuData> {
    let mut cpus: Vec<CpuData> = Vec::new();
    let mut c = FileCursor::new(source, start, header.endian);
    let mut last = 0;
    let mut pos = start;
    while pos < end {
        c.seek(pos);
        let Ok(ts) = c.u64("sub-buffer") else { break };
        let commit = match parsed.layout.commit_size {
            crate::LongSize::Four => c.u32("sub-buffer").map(u64::from),
            crate::LongSize::Eight => c.u64("sub-buffer"),
        };
        let room = size.saturating_sub(parsed.layout.data_offset.into());
        let filled = commit.is_ok_and(|n| n & ((1 << 27) - 1) > 0 && n & ((1 << 27) - 1) <= room);
        if filled && (cpus.is_empty() || ts < last) {
            if cpus.len() >= CPUS_MAX {
                break;
            }
            cpus.push(CpuData { cpu: cpus.len() as u32, offset: pos, size: 0, packed: false });
        }
        if filled {
            last = ts;
        }
        let next = pos.saturating_add(size);
        if let Some(cpu) = cpus.last_mut() {
            cpu.size = next.min(end) - cpu.offset;
        }
        pos = next;
    }
    cpus
}
