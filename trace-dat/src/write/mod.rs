//! Writes trace.dat files, versions 6 and 7.
//!
//! A [`Writer`] is given everything in the order of the file: [`Metadata`], then for each buffer the data of its CPUs as whole
//! sub-buffers or as chunks that are compressed already. Compression runs on worker threads while data comes. Where the data of
//! several CPUs come at the same time, each goes into a [`Spool`] first.
//!
//! ```
//! use trace_dat::{Endian, LongSize, compress::Codec, write::{BufferHead, FileHead, FileVersion, Metadata, Writer}};
//!
//! let head = FileHead { version: FileVersion::V7, endian: Endian::Little, long_size: LongSize::Eight, page_size: 4096, codec: Codec::Zstd };
//! let mut meta = Metadata::new(Endian::Little, 2);
//! meta.header_info(b"...", b"...");
//! meta.cmdlines(b"1 init\n");
//! let top = BufferHead::new("", "local", 4096);
//! let mut w = Writer::new(std::io::Cursor::new(Vec::new()), head, &meta, vec![top])?;
//! w.cpu(0, 1)?;
//! w.sub_buffers(&[0; 8192])?;
//! let (file, summary) = w.finish()?;
//! assert_eq!(summary.buffers[0].cpus[1].unpacked, 8192);
//! assert_eq!(&file.get_ref()[..10], b"\x17\x08\x44tracing");
//! # Ok::<(), trace_dat::Error>(())
//! ```

mod copy;
mod cut;
mod file;
mod from;
mod meta;
pub mod option;
mod pack;
mod section;
pub mod slim;
mod spool;
mod v6;
mod v7;

use std::{
    fs::File,
    io::{Read, Seek, Write},
    path::Path,
};

use crate::{Endian, Error, LongSize, Result, compress::Codec, source::Source};

pub use cut::{Cutter, Position, cut_subbuf};
pub use file::{OutputFile, Temporary, remove_unfinished, same_file};
pub use from::{buffer_heads, copy_cpu};
pub use meta::{Metadata, Payload, Section, selected_clock};
pub use option::{RawOption, ShiftSample, TimeShift};
use pack::{Done, Job, Packers};
use section::Out;
pub use spool::{Spool, Spooled};

/// Sub-buffers in one compressed chunk, as the reference has it.
pub const CHUNK_SUB_BUFFERS: usize = 10;
/// Bytes that the system copies at once: so often progress is told.
const COPY_STEP: u64 = 8 << 20;

/// Version of the file format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FileVersion {
    /// Fixed order, no compression; read by every trace-cmd.
    V6,
    /// Sections, since trace-cmd 3.0.
    #[default]
    V7,
}

impl FileVersion {
    /// 6 or 7.
    pub fn number(self) -> u32 {
        match self {
            FileVersion::V6 => 6,
            FileVersion::V7 => 7,
        }
    }
}

/// What a file says of itself at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHead {
    /// Version of the format.
    pub version: FileVersion,
    /// Byte order of the traced machine.
    pub endian: Endian,
    /// Long size of the traced machine.
    pub long_size: LongSize,
    /// Page size of the traced machine; in version 6 also the size of its sub-buffers. Unit: bytes.
    pub page_size: u32,
    /// Compression; must be [`Codec::None`] in version 6.
    pub codec: Codec,
}

/// A buffer: the top one or an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BufferHead {
    /// Name of the instance, empty for the top buffer.
    pub name: Vec<u8>,
    /// Its trace clock, such as `local`.
    pub clock: Vec<u8>,
    /// Size of its sub-buffers in bytes.
    pub page_size: u32,
    /// The text of a latency tracer, in place of trace data.
    pub text: Option<Vec<u8>>,
}

impl BufferHead {
    /// A buffer of trace data.
    pub fn new(name: impl Into<Vec<u8>>, clock: impl Into<Vec<u8>>, page_size: u32) -> Self {
        BufferHead { name: name.into(), clock: clock.into(), page_size, text: None }
    }
}

/// Where the data of a CPU went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuSummary {
    /// Offset in the file; of an empty CPU: where its data would be.
    pub offset: u64,
    /// Bytes in the file.
    pub size: u64,
    /// Bytes of sub-buffers.
    pub unpacked: u64,
}

/// What was written of a buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BufferSummary {
    /// Name of the instance, empty for the top buffer.
    pub name: Vec<u8>,
    /// All CPUs of the machine, by number.
    pub cpus: Vec<CpuSummary>,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Whether trace data is compressed.
    pub compressed: bool,
    /// The buffers in file order.
    pub buffers: Vec<BufferSummary>,
    /// Length of the file.
    pub size: u64,
}

/// CPUs of all buffers that a file is written with: each takes room in memory and in the file, with and without events.
const ENTRIES_MAX: u64 = 1 << 21;

/// Writes one file.
pub struct Writer<W: Write + Seek> {
    out: Out<W>,
    head: FileHead,
    packers: Packers,
    buffers: Vec<BufferHead>,
    done: Vec<BufferSummary>,
    cpus: u32,
    /// Buffer and CPU whose data comes now.
    at: Option<(usize, u32)>,
    current: CpuSummary,
    chunks: u32,
    fill: Vec<u8>,
    /// Used buffers for [`Writer::spare`].
    spares: Vec<Vec<u8>>,
    /// Version 7: place of the offset of the next options section. Version 6: places of the CPU tables.
    layout: Layout,
}

enum Layout {
    V6(v6::Layout),
    V7(v7::Layout),
}

impl Writer<OutputFile> {
    /// Starts a file that gets its name when it is finished.
    ///
    /// # Errors
    /// As [`OutputFile::create`] and [`Writer::new`].
    pub fn create(path: impl AsRef<Path>, head: FileHead, meta: &Metadata, buffers: Vec<BufferHead>) -> Result<Self> {
        let out = OutputFile::create(path)?;
        let path = out.path().to_path_buf();
        let direct = out.handle();
        Self::start(out, direct, path.as_path(), head, meta, buffers)
    }

    /// Finishes the file and gives it its name.
    ///
    /// # Errors
    /// [`Error::Io`] when something cannot be written or renamed; nothing remains then.
    pub fn commit(self) -> Result<Summary> {
        let (file, summary) = self.finish()?;
        file.commit()?;
        Ok(summary)
    }
}

impl Writer<OutputFile> {
    /// As [`Writer::commit`], and the file is on the disk when this returns: it outlives a crash of the machine.
    ///
    /// # Errors
    /// As [`Writer::commit`]; also what the disk refused later than the writing.
    pub fn commit_synced(self) -> Result<Summary> {
        let (file, summary) = self.finish()?;
        file.sync()?;
        file.commit()?;
        Ok(summary)
    }
}

impl<W: Write + Seek> Writer<W> {
    /// Writes the head and the metadata; the top buffer comes first in `buffers`.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be written, [`Error::Unwritable`] when the version has no place for something.
    pub fn new(out: W, head: FileHead, meta: &Metadata, buffers: Vec<BufferHead>) -> Result<Self> {
        Self::start(out, None, Path::new("output"), head, meta, buffers)
    }

    fn start(
        out: W,
        direct: Option<File>,
        path: &Path,
        head: FileHead,
        meta: &Metadata,
        buffers: Vec<BufferHead>,
    ) -> Result<Self> {
        if meta.endian() != head.endian {
            return Err(Error::Unwritable("metadata of another byte order".into()));
        }
        let entries = u64::from(meta.cpus) * buffers.len().max(1) as u64;
        if entries > ENTRIES_MAX {
            let (cpus, buffers) = (meta.cpus, buffers.len());
            return Err(Error::Unwritable(format!("{buffers} buffers of {cpus} CPUs: more than any machine has")));
        }
        let mut out = Out::new(out, direct, path, head.endian);
        let mut packers = Packers::new(head.codec, 0);
        let layout = match head.version {
            FileVersion::V6 => Layout::V6(v6::begin(&mut out, &head, meta, &buffers)?),
            FileVersion::V7 => Layout::V7(v7::begin(&mut out, &head, meta, &mut packers)?),
        };
        Ok(Writer {
            out,
            head,
            packers,
            buffers,
            done: Vec::new(),
            cpus: meta.cpus,
            at: None,
            current: CpuSummary::default(),
            chunks: 0,
            fill: Vec::new(),
            spares: Vec::new(),
            layout,
        })
    }

    /// Name of the file, for messages.
    pub fn path(&self) -> &Path {
        self.out.path()
    }

    /// The data that follows is that of this CPU of this buffer; in increasing order.
    ///
    /// # Errors
    /// As [`Writer::sub_buffers`]; [`Error::Unwritable`] for a CPU out of order or, in version 6, one that the machine does not have.
    pub fn cpu(&mut self, buffer: usize, cpu: u32) -> Result<()> {
        self.end_cpu()?;
        let wrong = |why: &str| Error::Unwritable(format!("CPU {cpu} of buffer {buffer}: {why}"));
        if buffer >= self.buffers.len() {
            return Err(wrong("no such buffer"));
        }
        if self.at.is_some_and(|at| at >= (buffer, cpu)) {
            return Err(wrong("is out of order"));
        }
        if cpu >= self.cpus {
            if self.head.version == FileVersion::V6 {
                return Err(wrong("is beyond the CPU count"));
            }
            self.cpus = cpu.saturating_add(1);
        }
        self.enter(buffer)?;
        self.at = Some((buffer, cpu));
        Ok(())
    }

    /// Appends whole sub-buffers of the current CPU.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be written, [`Error::Unwritable`] without a CPU or with a part of a sub-buffer.
    pub fn sub_buffers(&mut self, mut data: &[u8]) -> Result<()> {
        let page = self.page_size()?;
        if !data.len().is_multiple_of(page) {
            return Err(Error::Unwritable(format!("{} bytes are not whole sub-buffers of {page}", data.len())));
        }
        if data.is_empty() {
            return Ok(());
        }
        if self.head.codec == Codec::None {
            self.drain()?;
            self.begin_data(page)?;
            self.out.write(data)?;
            self.current.size += data.len() as u64;
            self.current.unpacked += data.len() as u64;
            return Ok(());
        }
        let chunk = page * CHUNK_SUB_BUFFERS;
        while !data.is_empty() {
            let n = (chunk - self.fill.len()).min(data.len());
            let (now, later) = data.split_at(n);
            self.fill.extend_from_slice(now);
            data = later;
            if self.fill.len() == chunk {
                self.push_fill(chunk)?;
            }
        }
        Ok(())
    }

    /// Appends whole sub-buffers of the current CPU that lie in `source`, uncompressed. A last piece that is no whole sub-buffer is
    /// filled up to one. `progress` gets the numbers of bytes as they are done.
    ///
    /// # Errors
    /// As [`Writer::sub_buffers`]; when they cannot be read.
    pub fn copy(&mut self, source: &Source, offset: u64, len: u64, progress: &mut dyn FnMut(u64)) -> Result<()> {
        let page = self.page_size()?;
        let mut done = 0;
        if self.head.codec == Codec::None && len >= page as u64 {
            self.drain()?;
            self.begin_data(page)?;
            while done < len {
                let n = self.out.copy(source, offset.saturating_add(done), (len - done).min(COPY_STEP))?;
                self.current.size += n;
                self.current.unpacked += n;
                done += n;
                progress(n);
                if n == 0 {
                    break;
                }
            }
        }
        let window = page as u64 * if self.head.codec == Codec::None { 32 } else { CHUNK_SUB_BUFFERS as u64 };
        while done < len {
            // What the system copied may have ended anywhere.
            let n = (len - done).min(window - done % window);
            let mut bytes = self.spare();
            bytes.resize(n as usize, 0);
            source.read_exact_at("event data", offset.saturating_add(done), &mut bytes)?;
            done += n;
            if done == len {
                bytes.resize(bytes.len() + (len.next_multiple_of(page as u64) - len) as usize, 0);
            }
            self.append(bytes)?;
            progress(n);
        }
        Ok(())
    }

    /// Appends bytes of the current CPU, where they are compressed whole sub-buffers.
    fn append(&mut self, bytes: Vec<u8>) -> Result<()> {
        let page = self.page_size()?;
        if self.head.codec == Codec::None {
            self.drain()?;
            self.begin_data(page)?;
            self.out.write(&bytes)?;
            self.current.size += bytes.len() as u64;
            self.current.unpacked += bytes.len() as u64;
        } else if self.fill.is_empty() && bytes.len() == page * CHUNK_SUB_BUFFERS {
            return self.push(Job::Pack(bytes));
        } else {
            self.sub_buffers(&bytes)?;
        }
        self.keep_spare(bytes);
        Ok(())
    }

    /// Appends a chunk that is compressed already: kept when the file has the same codec, else packed anew on a worker thread.
    ///
    /// `offset` is its place in its own file, for messages. The unpacked data are whole sub-buffers.
    ///
    /// # Errors
    /// As [`Writer::sub_buffers`].
    pub fn chunk(&mut self, codec: Codec, offset: u64, bytes: Vec<u8>, unpacked: u32) -> Result<()> {
        let page = self.page_size()?;
        if unpacked == 0 || !(unpacked as usize).is_multiple_of(page) {
            let why = "bytes unpacked are not whole sub-buffers";
            return Err(Error::BadValue { what: "compressed chunk", offset, value: unpacked.into(), why });
        }
        if !self.fill.is_empty() {
            self.push_fill(0)?;
        }
        let same = codec == self.head.codec;
        self.push(if same {
            Job::Keep { bytes, unpacked }
        } else {
            Job::Repack { from: codec, offset, bytes, unpacked }
        })
    }

    /// Appends what was packed while it came.
    ///
    /// # Errors
    /// As [`Writer::sub_buffers`]; [`Error::Unwritable`] when it was packed for a file of another kind.
    pub fn spooled<F: Read + Seek>(&mut self, mut spooled: Spooled<F>) -> Result<()> {
        let page = self.page_size()?;
        if (spooled.codec, spooled.endian, spooled.page_size) != (self.head.codec, self.head.endian, page) {
            return Err(Error::Unwritable("data that was packed for a file of another kind".into()));
        }
        if spooled.size == 0 {
            return Ok(());
        }
        if !self.fill.is_empty() {
            self.push_fill(0)?;
        }
        self.drain()?;
        self.begin_data(page)?;
        spooled.for_each(|bytes| self.out.write(bytes))?;
        self.current.size += spooled.size;
        self.current.unpacked += spooled.unpacked;
        self.chunks += spooled.chunks;
        Ok(())
    }

    /// Writes what remains and the tables; gives back the output and what was written.
    ///
    /// # Errors
    /// As [`Writer::sub_buffers`].
    pub fn finish(mut self) -> Result<(W, Summary)> {
        self.end_cpu()?;
        self.enter(self.buffers.len())?;
        if let Layout::V7(layout) = &mut self.layout {
            v7::end(&mut self.out, &self.head, layout)?;
        }
        let compressed = self.head.codec != Codec::None;
        let (out, size) = self.out.finish()?;
        Ok((out, Summary { compressed, buffers: self.done, size }))
    }

    /// A buffer to fill with a chunk, of any length and content: one that was used before if there is one.
    pub fn spare(&mut self) -> Vec<u8> {
        self.spares.pop().unwrap_or_default()
    }

    fn page_size(&self) -> Result<usize> {
        let head = self.at.and_then(|(b, _)| self.buffers.get(b));
        match head.map(|h| h.page_size as usize) {
            Some(n) if n > 0 => Ok(n),
            _ => Err(Error::Unwritable("data without a CPU and a sub-buffer size".into())),
        }
    }

    /// Hands the gathered sub-buffers to a worker; `next` is the room to make for the following ones.
    fn push_fill(&mut self, next: usize) -> Result<()> {
        let full = std::mem::replace(&mut self.fill, Vec::with_capacity(next));
        self.push(Job::Pack(full))
    }

    fn push(&mut self, job: Job) -> Result<()> {
        if self.packers.is_full() {
            self.take_one()?;
        }
        self.packers.push(job)
    }

    /// Writes the oldest chunk under way; `false` when there is none.
    fn take_one(&mut self) -> Result<bool> {
        let Some(done) = self.packers.pop() else { return Ok(false) };
        let Done { bytes, unpacked, mut spare } = done?;
        self.begin_data(self.page_size()?)?;
        if self.head.codec == Codec::None {
            self.out.write(&bytes)?;
            self.current.size += bytes.len() as u64;
        } else {
            let size = u32::try_from(bytes.len())
                .map_err(|_| Error::Unwritable("a compressed chunk of more than 4 GiB".into()))?;
            self.out.u32(size)?;
            self.out.u32(unpacked)?;
            self.out.write(&bytes)?;
            self.current.size += 8 + u64::from(size);
            self.chunks += 1;
        }
        self.current.unpacked += u64::from(unpacked);
        if spare.capacity() == 0 {
            spare = bytes;
        }
        if self.fill.capacity() == 0 {
            spare.clear();
            self.fill = spare;
        } else {
            self.keep_spare(spare);
        }
        Ok(true)
    }

    fn keep_spare(&mut self, spare: Vec<u8>) {
        if self.spares.len() < 8 {
            self.spares.push(spare);
        }
    }

    fn drain(&mut self) -> Result<()> {
        while self.take_one()? {}
        Ok(())
    }

    /// Aligns and, for chunks, leaves room for their number, before the first byte of a CPU.
    fn begin_data(&mut self, page: usize) -> Result<()> {
        if self.current.size == 0 {
            self.out.align(page as u64)?;
            self.current.offset = self.out.pos();
            if self.head.codec != Codec::None {
                self.out.u32(0)?;
                self.current.size = 4;
            }
        }
        Ok(())
    }

    fn end_cpu(&mut self) -> Result<()> {
        let Some((_, cpu)) = self.at else { return Ok(()) };
        if !self.fill.is_empty() {
            self.push_fill(0)?;
        }
        self.drain()?;
        let summary = std::mem::take(&mut self.current);
        let chunks = std::mem::take(&mut self.chunks);
        if summary.size > 0 {
            if self.head.codec != Codec::None {
                self.out.patch_u32(summary.offset, chunks);
            }
            if let Some(slot) = self.done.last_mut().and_then(|b| b.cpus.get_mut(cpu as usize)) {
                *slot = summary;
            }
        }
        Ok(())
    }

    /// Ends and begins buffers until `buffer` is the current one.
    fn enter(&mut self, buffer: usize) -> Result<()> {
        loop {
            // `done` has one entry for each buffer that was begun; the last one is open.
            let open = self.done.len();
            if open > 0 && open - 1 < buffer {
                self.end_buffer(open - 1)?;
            }
            if open > buffer || open == self.buffers.len() {
                break;
            }
            self.begin_buffer(open)?;
            if open == buffer {
                break;
            }
        }
        let cpus = self.cpus as usize;
        if let Some(b) = self.done.last_mut()
            && b.cpus.len() < cpus
        {
            b.cpus.resize(cpus, CpuSummary::default());
        }
        Ok(())
    }

    fn begin_buffer(&mut self, n: usize) -> Result<()> {
        let Some(head) = self.buffers.get(n) else { return Ok(()) };
        match &mut self.layout {
            Layout::V6(l) => v6::begin_buffer(&mut self.out, l, n, head)?,
            Layout::V7(l) => v7::begin_buffer(&mut self.out, &self.head, l, head)?,
        }
        let cpus = vec![CpuSummary::default(); self.cpus as usize];
        self.done.push(BufferSummary { name: head.name.clone(), cpus });
        Ok(())
    }

    fn end_buffer(&mut self, n: usize) -> Result<()> {
        let (Some(head), Some(done)) = (self.buffers.get(n), self.done.get_mut(n)) else { return Ok(()) };
        // An empty CPU is said to be where the next data is.
        let mut next = self.out.pos().next_multiple_of(u64::from(head.page_size.max(1)));
        for cpu in done.cpus.iter_mut().rev() {
            match cpu.size {
                0 => cpu.offset = next,
                _ => next = cpu.offset,
            }
        }
        match &mut self.layout {
            Layout::V6(l) => v6::end_buffer(&mut self.out, l, n, &done.cpus),
            Layout::V7(l) => v7::end_buffer(&mut self.out, &self.head, l, head, &done.cpus)?,
        }
        Ok(())
    }
}
