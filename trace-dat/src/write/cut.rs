//! Parts of a CPU's data: from one event up to another, exactly.
//!
//! Whole chunks and sub-buffers between the two go over as they are; only a sub-buffer that is cut is written anew, with the time of
//! its first event in its header.

use std::io::{Seek, Write};

use super::Writer;
use crate::{
    Endian, Result,
    compress::Decompressor,
    read::{Buffer, CpuData, TraceFile},
    ring::{
        feed::Chunk,
        stream::CpuStream,
        subbuf::{ItemKind, RB_MISSED_EVENTS, RB_MISSED_STORED, SubBufLayout},
    },
};

/// A place between the events of a CPU: before one of them, or at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Where the event's sub-buffer begins, in bytes from the start of the CPU's (unpacked) data; `u64::MAX` at the end.
    pub subbuf: u64,
    /// Where the event's bytes begin in its sub-buffer; 0 for all of the sub-buffer.
    pub at: usize,
}

impl Position {
    /// Before the first event.
    pub const START: Position = Position { subbuf: 0, at: 0 };
    /// Behind the last event.
    pub const END: Position = Position { subbuf: u64::MAX, at: 0 };

    /// The place before the event that `stream` stands at; the end when it stands at none.
    ///
    /// `cpu` is what the stream was made of.
    pub fn of(stream: &CpuStream, cpu: &CpuData) -> Position {
        let Some(r) = stream.current() else { return Position::END };
        let base = if cpu.packed { 0 } else { cpu.offset };
        let mut at = r.start().saturating_sub(r.subbuf_start());
        // Before the first event of a sub-buffer is before the sub-buffer.
        let first = stream.current_items().and_then(|i| i.map_while(Result::ok).find(|i| i.kind == ItemKind::Event));
        if first.is_some_and(|f| f.data_at >= at) {
            at = 0;
        }
        Position { subbuf: r.subbuf_offset().saturating_sub(base), at }
    }
}

/// Copies parts of one CPU's data.
pub struct Cutter<'a> {
    file: &'a TraceFile,
    cpu: CpuData,
    layout: SubBufLayout,
    chunks: Option<Vec<Chunk>>,
    unpacker: Decompressor,
}

impl<'a> Cutter<'a> {
    /// For this CPU of `buffer`.
    ///
    /// # Errors
    /// When the layout of its sub-buffers or the table of its chunks is damaged.
    pub fn new(file: &'a TraceFile, buffer: &Buffer, cpu: &CpuData) -> Result<Cutter<'a>> {
        let stream = file.stream(buffer, cpu, 1)?;
        let layout = stream.layout();
        // Damage behind a point is told by the streams; what lies before it can be cut.
        let chunks = stream.chunks().map(|c| c.map_while(Result::ok).collect());
        let (cpu, unpacker) = (*cpu, Decompressor::new());
        Ok(Cutter { file, cpu, layout, chunks, unpacker })
    }

    /// Size of a sub-buffer.
    pub fn page_size(&self) -> u64 {
        self.layout.size as u64
    }

    /// Copies the events from `from` up to, but without, `to` to the current CPU of `writer`.
    ///
    /// `progress` is told how many bytes of the file were read.
    ///
    /// # Errors
    /// When data between the two cannot be read or written.
    pub fn copy<W: Write + Seek>(
        &mut self,
        writer: &mut Writer<W>,
        from: Position,
        to: Position,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        if from >= to {
            return Ok(());
        }
        match self.chunks.take() {
            Some(chunks) => {
                let done = self.copy_chunks(&chunks, writer, (from, to), progress);
                self.chunks = Some(chunks);
                done
            }
            None => self.copy_plain(writer, (from, to), progress),
        }
    }

    fn copy_chunks<W: Write + Seek>(
        &mut self,
        chunks: &[Chunk],
        writer: &mut Writer<W>,
        (from, to): (Position, Position),
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let first = chunks.partition_point(|c| c.unpacked_offset.saturating_add(c.unpacked.into()) <= from.subbuf);
        for c in chunks.get(first..).unwrap_or_default() {
            let end = c.unpacked_offset.saturating_add(c.unpacked.into());
            if (c.unpacked_offset, 0) >= (to.subbuf, to.at) {
                break;
            }
            let mut bytes = writer.spare();
            bytes.resize(c.packed as usize, 0);
            progress(c.packed.into());
            self.file.source().read_exact_at("compressed chunk", c.offset, &mut bytes)?;
            let codec = self.file.header().codec;
            if from <= (Position { subbuf: c.unpacked_offset, at: 0 }) && end <= to.subbuf {
                writer.chunk(codec, c.offset, bytes, c.unpacked)?;
                continue;
            }
            let mut plain = vec![0; c.unpacked as usize];
            let n = self.unpacker.unpack(codec, c.offset, &bytes, &mut plain)?;
            plain.truncate(n);
            for (i, data) in plain.chunks(self.layout.size).enumerate() {
                let at = c.unpacked_offset.saturating_add((i * self.layout.size) as u64);
                self.one(writer, at, data, from, to)?;
            }
        }
        Ok(())
    }

    fn copy_plain<W: Write + Seek>(
        &mut self,
        writer: &mut Writer<W>,
        (from, to): (Position, Position),
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let page = self.layout.size as u64;
        let have = self.file.source().len().saturating_sub(self.cpu.offset).min(self.cpu.size);
        let mut at = from.subbuf;
        let mut single = vec![0; self.layout.size];
        while at < have && (at, 0) < (to.subbuf, to.at) {
            // Whole sub-buffers in one go; one that is cut, alone.
            let whole = to.subbuf.min(have).saturating_sub(at) / page * page;
            let cut_first = at == from.subbuf && from.at > 0;
            let place = self.cpu.offset.saturating_add(at);
            if !cut_first && whole > 0 {
                writer.copy(self.file.source(), place, whole, progress)?;
                at += whole;
                continue;
            }
            let n = page.min(have - at);
            let bytes = single.get_mut(..n as usize).unwrap_or_default();
            self.file.source().read_exact_at("event data", place, bytes)?;
            self.one(writer, at, bytes, from, to)?;
            at += n;
            progress(n);
        }
        Ok(())
    }

    /// Copies what lies between the positions of the sub-buffer `data`, which begins at `at`.
    fn one<W: Write + Seek>(
        &self,
        writer: &mut Writer<W>,
        at: u64,
        data: &[u8],
        from: Position,
        to: Position,
    ) -> Result<()> {
        if at < from.subbuf || (at, 0) >= (to.subbuf, to.at) {
            return Ok(());
        }
        let first = if at == from.subbuf { from.at } else { 0 };
        let end = if at == to.subbuf { to.at } else { usize::MAX };
        if first == 0 && end == usize::MAX && data.len() == self.layout.size {
            return writer.sub_buffers(data);
        }
        match cut_subbuf(&self.layout, data, at, first, end)? {
            Some(piece) => writer.sub_buffers(&piece),
            None => Ok(()),
        }
    }
}

/// A sub-buffer with those events of `data` whose bytes begin at or behind `first` and before `end`; `None` without any.
///
/// The header gets the time of the first event. What was lost before the sub-buffer stays with its first event.
///
/// # Errors
/// When the sub-buffer's header is damaged. Damaged records end it.
pub fn cut_subbuf(
    layout: &SubBufLayout,
    data: &[u8],
    offset: u64,
    first: usize,
    end: usize,
) -> Result<Option<Vec<u8>>> {
    let e = layout.endian;
    let header = layout.header(data, offset)?;
    let mut any = false;
    let mut kept: Option<(usize, usize, u64, u64, bool)> = None;
    for item in layout.items(data, offset)?.map_while(Result::ok) {
        if item.kind != ItemKind::Event {
            continue;
        }
        if item.data_at >= end {
            break;
        }
        let is_first = !any;
        any = true;
        if item.data_at < first {
            continue;
        }
        let till = item.at + item.size;
        kept = Some(match kept {
            None => (item.at, till, item.ts, item.delta, is_first),
            Some((at, _, ts, delta, is_first)) => (at, till, ts, delta, is_first),
        });
    }
    let Some((at, till, ts, delta, is_first)) = kept else { return Ok(None) };
    let mut out = vec![0; layout.size];
    let room = layout.size.saturating_sub(layout.data_offset);
    let records = data.get(at..till).unwrap_or_default();
    let records = records.get(..records.len().min(room)).unwrap_or_default();
    // Where the records of old kernels keep their delta is not worth knowing: their header counts from before the event.
    let base = if layout.old_format { ts.wrapping_sub(delta) } else { ts };
    let word = layout.commit_size.bytes();
    let mut commit = records.len() as u64;
    let mut stored = None;
    if is_first {
        let flags = e.uint(data, 8, word).unwrap_or(0) & (RB_MISSED_EVENTS | RB_MISSED_STORED);
        commit |= flags;
        if flags & RB_MISSED_STORED != 0 {
            // How many were lost stands behind the last record.
            stored = data.get(layout.data_offset + header.commit..).and_then(|d| d.get(..word));
        }
    }
    put(&mut out, 0, &e.from_u64(base));
    match word {
        4 => put(&mut out, 8, &e.from_u32(commit as u32)),
        _ => put(&mut out, 8, &e.from_u64(commit)),
    }
    put(&mut out, layout.data_offset, records);
    if !layout.old_format
        && let Some(head) = e.uint(&out, layout.data_offset, 4)
    {
        let type_len = if e == Endian::Big { head & 0xf800_0000 } else { head & 31 };
        put(&mut out, layout.data_offset, &e.from_u32(type_len as u32));
    }
    match stored {
        Some(count) if records.len() + word <= room => put(&mut out, layout.data_offset + records.len(), count),
        Some(_) => {
            // No room for the count: that some were lost can still be said.
            let commit = commit & !RB_MISSED_STORED;
            match word {
                4 => put(&mut out, 8, &e.from_u32(commit as u32)),
                _ => put(&mut out, 8, &e.from_u64(commit)),
            }
        }
        None => {}
    }
    Ok(Some(out))
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(to) = out.get_mut(at..at + bytes.len()) {
        to.copy_from_slice(bytes);
    }
}
