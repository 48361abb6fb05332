//! Version 6: everything in a fixed order, the tables of the CPUs before their data.
//!
//! Source: trace-cmd.dat.v6(5); where it is silent (BUFFER option, clock behind the CPU table) files of trace-cmd 3.4.

use std::io::{Seek, Write};

use super::{
    BufferHead, CpuSummary, FileHead,
    meta::{Metadata, Payload},
    option::{RawOption, id},
    section::Out,
};
use crate::{
    Error, Result,
    compress::{Codec, Decompressor},
};

/// Places to be filled in.
pub(super) struct Layout {
    cpus: u32,
    /// Where the BUFFER option of each instance has its offset; 0 for the top buffer.
    option_offsets: Vec<u64>,
    /// Where the CPU table of the current buffer is.
    table: u64,
}

/// Sections of the file in their order, with what an absent one looks like.
const ORDER: [(u16, usize); 6] = [
    (id::HEADER_INFO, 0),
    (id::FTRACE_EVENTS, 4),
    (id::EVENT_FORMATS, 4),
    (id::KALLSYMS, 4),
    (id::PRINTK, 4),
    (id::CMDLINES, 8),
];

/// A header section without texts.
const NO_HEADERS: &[u8] = b"header_page\0\0\0\0\0\0\0\0\0header_event\0\0\0\0\0\0\0\0\0";

#[allow(clippy::indexing_slicing, reason = "the sizes are 4 and 8")]
pub(super) fn begin<W: Write + Seek>(
    out: &mut Out<W>,
    head: &FileHead,
    meta: &Metadata,
    buffers: &[BufferHead],
) -> Result<Layout> {
    if head.codec != Codec::None {
        return Err(Error::Unwritable("version 6 has no compression".into()));
    }
    if let Some(b) = buffers.iter().find(|b| b.page_size != head.page_size && b.text.is_none()) {
        let name = String::from_utf8_lossy(&b.name);
        return Err(Error::Unwritable(format!(
            "version 6 has one sub-buffer size: {} in the file, {} in buffer {name:?}",
            head.page_size, b.page_size
        )));
    }
    let text = buffers.iter().find_map(|b| b.text.as_deref());
    if text.is_some() && buffers.len() > 1 {
        return Err(Error::Unwritable("version 6 has no instances beside the text of a latency tracer".into()));
    }
    out.write(b"\x17\x08\x44tracing6\0")?;
    super::v7::machine(out, head)?;
    for (section, size) in ORDER {
        match meta.get(section).map(|s| &s.payload) {
            Some(Payload::Plain(bytes)) => out.write(bytes)?,
            Some(Payload::Packed { codec, bytes, unpacked, offset }) => {
                out.write(&Decompressor::new().unpack_vec(*codec, *offset, bytes, u64::from(*unpacked))?)?;
            }
            None if section == id::HEADER_INFO => out.write(NO_HEADERS)?,
            None => out.write(&[0; 8][..size])?,
        }
    }
    out.u32(meta.cpus)?;
    let mut layout = Layout { cpus: meta.cpus, option_offsets: Vec::new(), table: 0 };
    let mut options = b"options  \0".to_vec();
    for o in meta.options.iter().filter(|o| !o.is_structural()) {
        o.encode(head.endian, &mut options);
    }
    let start = out.pos();
    for b in buffers {
        if b.name.is_empty() {
            layout.option_offsets.push(0);
            continue;
        }
        let mut data = vec![0; 8];
        data.extend_from_slice(&b.name);
        data.push(0);
        layout.option_offsets.push(start + options.len() as u64 + 6);
        RawOption { id: id::BUFFER, data }.encode(head.endian, &mut options);
    }
    options.extend([0; 2]);
    out.write(&options)?;
    if let Some(text) = text {
        out.write(b"latency  \0")?;
        out.write(text)?;
    } else if buffers.first().is_some_and(|b| !b.name.is_empty()) {
        // The part of the top buffer must be there.
        begin_table(out, &mut layout, b"local")?;
    }
    Ok(layout)
}

/// The tag, an empty CPU table and the clock.
fn begin_table<W: Write + Seek>(out: &mut Out<W>, layout: &mut Layout, clock: &[u8]) -> Result<()> {
    out.write(b"flyrecord\0")?;
    layout.table = out.pos();
    for _ in 0..layout.cpus {
        out.write(&[0; 16])?;
    }
    out.u64(clock.len() as u64 + 2)?;
    out.write(b"[")?;
    out.write(clock)?;
    out.write(b"]")
}

pub(super) fn begin_buffer<W: Write + Seek>(
    out: &mut Out<W>,
    layout: &mut Layout,
    n: usize,
    head: &BufferHead,
) -> Result<()> {
    if head.text.is_some() {
        return Ok(());
    }
    if let Some(&at) = layout.option_offsets.get(n).filter(|&&at| at > 0) {
        out.patch_u64(at, out.pos());
    }
    begin_table(out, layout, &head.clock)
}

pub(super) fn end_buffer<W: Write + Seek>(out: &mut Out<W>, layout: &mut Layout, _n: usize, cpus: &[CpuSummary]) {
    if layout.table == 0 {
        return;
    }
    for (i, cpu) in cpus.iter().enumerate().take(layout.cpus as usize) {
        let at = layout.table + 16 * i as u64;
        out.patch_u64(at, cpu.offset);
        out.patch_u64(at + 8, cpu.size);
    }
}
