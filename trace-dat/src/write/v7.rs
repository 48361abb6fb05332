//! Version 7: sections in any order, found through options.
//!
//! Layout as trace-cmd 3.4 writes it: metadata sections, a section of options that points to them, then for each buffer a section of
//! data and a section of options with its BUFFER option, and the names of all sections last.
//!
//! Source: trace-cmd.dat.v7(5); the sizes of data sections (with the padding, without the header) from files.

use std::io::{Seek, Write};

use super::{
    BufferHead, CpuSummary, FileHead,
    meta::{Metadata, Payload, section_name},
    option::{RawOption, id},
    pack::{Job, Packers},
    section::Out,
};
use crate::{
    Endian, Error, LongSize, Result,
    compress::{Codec, Compressor, Decompressor},
};

/// Flag of a section: its content is compressed.
const COMPRESSED: u16 = 1;

/// Places to be filled in, and the names so far.
pub(super) struct Layout {
    /// Where the offset of the next options section goes.
    next_options: u64,
    strings: Vec<u8>,
    /// Where the header of the current data section is.
    section: u64,
}

/// Byte order, long size and page size: the same in both versions.
pub(super) fn machine<W: Write + Seek>(out: &mut Out<W>, head: &FileHead) -> Result<()> {
    let endian = u8::from(head.endian == Endian::Big);
    let long = if head.long_size == LongSize::Four { 4 } else { 8 };
    out.write(&[endian, long])?;
    out.u32(head.page_size)
}

/// Writes a section header; `size` is that of what follows.
fn header<W: Write + Seek>(
    out: &mut Out<W>,
    layout: &mut Layout,
    (section, name): (u16, &[u8]),
    flags: u16,
    size: u64,
) -> Result<()> {
    let string = layout.strings.len() as u32;
    layout.strings.extend_from_slice(name);
    layout.strings.push(0);
    out.u16(section)?;
    out.u16(flags)?;
    out.u32(string)?;
    out.u64(size)
}

fn packed_section<W: Write + Seek>(
    out: &mut Out<W>,
    layout: &mut Layout,
    name: (u16, &[u8]),
    bytes: &[u8],
    unpacked: u32,
) -> Result<()> {
    header(out, layout, name, COMPRESSED, bytes.len() as u64 + 8)?;
    out.u32(bytes.len() as u32)?;
    out.u32(unpacked)?;
    out.write(bytes)
}

/// Writes a section of options, with a DONE option at its end, and hooks it into the chain.
fn options<W: Write + Seek>(out: &mut Out<W>, layout: &mut Layout, mut list: Vec<u8>) -> Result<()> {
    out.patch_u64(layout.next_options, out.pos());
    RawOption::new(id::DONE, [0; 8]).encode(out.endian(), &mut list);
    header(out, layout, (id::DONE, b"options"), 0, list.len() as u64)?;
    out.write(&list)?;
    layout.next_options = out.pos() - 8;
    Ok(())
}

pub(super) fn begin<W: Write + Seek>(
    out: &mut Out<W>,
    head: &FileHead,
    meta: &Metadata,
    packers: &mut Packers,
) -> Result<Layout> {
    out.write(b"\x17\x08\x44tracing7\0")?;
    machine(out, head)?;
    out.write(head.codec.name().as_bytes())?;
    out.write(&[0])?;
    out.write(head.codec.version().as_bytes())?;
    out.write(&[0])?;
    let mut layout = Layout { next_options: out.pos(), strings: Vec::new(), section: 0 };
    out.u64(0)?;

    let sections: Vec<_> = meta.sections.iter().collect();
    let mut later = Vec::new();
    let mut head_options = Vec::new();
    // All sections at once on the worker threads; their results come in order.
    for s in &sections {
        match &s.payload {
            _ if head.codec == Codec::None => {}
            Payload::Packed { codec, bytes, unpacked, .. } if *codec == head.codec => {
                packers.push(Job::Keep { bytes: bytes.clone(), unpacked: *unpacked })?;
            }
            Payload::Packed { codec, bytes, unpacked, offset } => {
                let (from, bytes, unpacked, offset) = (*codec, bytes.clone(), *unpacked, *offset);
                packers.push(Job::Repack { from, offset, bytes, unpacked })?;
            }
            Payload::Plain(bytes) => packers.push(Job::Pack(bytes.clone()))?,
        }
    }
    for s in &sections {
        let at = out.pos();
        let name = if s.name.is_empty() { section_name(s.id) } else { &s.name };
        let name = (s.id, name.as_bytes());
        if let Some(done) = packers.pop() {
            let done = done?;
            if u32::try_from(done.bytes.len()).is_err() {
                return Err(Error::Unwritable(format!("section {} is larger than 4 GiB", s.id)));
            }
            packed_section(out, &mut layout, name, &done.bytes, done.unpacked)?;
        } else {
            let unpacked;
            let bytes = match &s.payload {
                Payload::Plain(bytes) => bytes,
                Payload::Packed { codec, bytes, unpacked: n, offset } => {
                    unpacked = Decompressor::new().unpack_vec(*codec, *offset, bytes, u64::from(*n))?;
                    &unpacked
                }
            };
            header(out, &mut layout, name, 0, bytes.len() as u64)?;
            out.write(bytes)?;
        }
        // The reference gives up on a file with an option that points to BTF which is not compressed. Without the option it
        // reads all the rest, and our own reader finds the section all the same.
        if s.id == id::BTF_FILE && head.codec == Codec::None {
            continue;
        }
        // The reference names the formats first and what comes after a recording last.
        let list = if matches!(s.id, id::HEADER_INFO..=id::PRINTK) { &mut head_options } else { &mut later };
        RawOption::new(s.id, head.endian.from_u64(at)).encode(head.endian, list);
    }
    let mut list = head_options;
    for o in meta.options.iter().filter(|o| !o.is_structural()) {
        o.encode(head.endian, &mut list);
    }
    list.extend(later);
    RawOption::new(id::CPUCOUNT, head.endian.from_u32(meta.cpus)).encode(head.endian, &mut list);
    options(out, &mut layout, list)?;
    Ok(layout)
}

pub(super) fn begin_buffer<W: Write + Seek>(
    out: &mut Out<W>,
    head: &FileHead,
    layout: &mut Layout,
    buffer: &BufferHead,
) -> Result<()> {
    layout.section = out.pos();
    let mut name = match buffer.text {
        Some(_) if buffer.name.is_empty() => b"buffer latency".to_vec(),
        Some(_) => b"buffer latency ".to_vec(),
        None => b"buffer flyrecord ".to_vec(),
    };
    name.extend_from_slice(&buffer.name);
    let Some(text) = &buffer.text else {
        let flags = if head.codec == Codec::None { 0 } else { COMPRESSED };
        return header(out, layout, (id::BUFFER, &name), flags, 0);
    };
    if head.codec == Codec::None {
        header(out, layout, (id::BUFFER_TEXT, &name), 0, text.len() as u64)?;
        return out.write(text);
    }
    // A text section is packed as trace data is: a count of chunks, here one.
    let mut packed = Vec::new();
    Compressor::new(head.codec).pack(text, &mut packed)?;
    header(out, layout, (id::BUFFER_TEXT, &name), COMPRESSED, packed.len() as u64 + 12)?;
    out.u32(1)?;
    out.u32(packed.len() as u32)?;
    out.u32(text.len() as u32)?;
    out.write(&packed)
}

pub(super) fn end_buffer<W: Write + Seek>(
    out: &mut Out<W>,
    head: &FileHead,
    layout: &mut Layout,
    buffer: &BufferHead,
    cpus: &[CpuSummary],
) -> Result<()> {
    let e = head.endian;
    let mut data = e.from_u64(layout.section).to_vec();
    data.extend_from_slice(&buffer.name);
    data.push(0);
    data.extend_from_slice(&buffer.clock);
    data.push(0);
    let mut list = Vec::new();
    if buffer.text.is_some() {
        RawOption { id: id::BUFFER_TEXT, data }.encode(e, &mut list);
        return options(out, layout, list);
    }
    out.patch_u64(layout.section + 8, out.pos() - layout.section - 16);
    data.extend(e.from_u32(buffer.page_size));
    data.extend(e.from_u32(cpus.iter().filter(|c| c.size > 0).count() as u32));
    for (cpu, c) in cpus.iter().enumerate().filter(|(_, c)| c.size > 0) {
        data.extend(e.from_u32(cpu as u32));
        data.extend(e.from_u64(c.offset));
        data.extend(e.from_u64(c.size));
    }
    RawOption { id: id::BUFFER, data }.encode(e, &mut list);
    options(out, layout, list)
}

/// Writes the names of the sections.
pub(super) fn end<W: Write + Seek>(out: &mut Out<W>, head: &FileHead, layout: &mut Layout) -> Result<()> {
    let mut strings = layout.strings.clone();
    strings.extend_from_slice(b"strings\0");
    if head.codec == Codec::None {
        header(out, layout, (id::STRINGS, b"strings"), 0, strings.len() as u64)?;
        return out.write(&strings);
    }
    let mut packed = Vec::new();
    Compressor::new(head.codec).pack(&strings, &mut packed)?;
    packed_section(out, layout, (id::STRINGS, b"strings"), &packed, strings.len() as u32)
}
