//! Trace data of one CPU, compressed while it comes.
//!
//! In a file the data of each CPU lie in one piece, so those of several CPUs cannot be written to it at the same time. A
//! [`Spool`] takes the sub-buffers of one CPU as they come and packs them on the thread that gives them; a
//! [`Writer`](super::Writer) takes all spools over at the end, byte by byte, without packing anything again.

use std::io::{Read, Seek, SeekFrom, Write};

use super::CHUNK_SUB_BUFFERS;
use crate::{
    Endian, Error, Result,
    compress::{Codec, Compressor},
};

/// Packed chunks of so many bytes are written at once.
const AT_ONCE: usize = 64 << 10;

/// Packed data of one CPU under construction.
///
/// The output holds what stands in a version 7 file behind the count of chunks: for each chunk its sizes and its bytes. Without
/// compression it holds the sub-buffers.
#[derive(Debug)]
pub struct Spool<F> {
    out: F,
    endian: Endian,
    page_size: usize,
    packer: Compressor,
    fill: Vec<u8>,
    packed: Vec<u8>,
    chunks: u32,
    size: u64,
    unpacked: u64,
}

/// A finished [`Spool`].
#[derive(Debug)]
pub struct Spooled<F> {
    pub(super) out: F,
    pub(super) codec: Codec,
    pub(super) endian: Endian,
    pub(super) page_size: usize,
    pub(super) chunks: u32,
    pub(super) size: u64,
    pub(super) unpacked: u64,
}

impl<F: Write> Spool<F> {
    /// Packs sub-buffers of `page_size` bytes into `out`, from its present place on.
    pub fn new(out: F, codec: Codec, endian: Endian, page_size: u32) -> Spool<F> {
        let page_size = (page_size as usize).max(1);
        let packer = Compressor::new(codec);
        Spool { out, endian, page_size, packer, fill: Vec::new(), packed: Vec::new(), chunks: 0, size: 0, unpacked: 0 }
    }

    /// Appends whole sub-buffers.
    ///
    /// # Errors
    /// [`Error::Io`] when they cannot be written, [`Error::Unwritable`] with a part of a sub-buffer.
    pub fn sub_buffers(&mut self, mut data: &[u8]) -> Result<()> {
        if !data.len().is_multiple_of(self.page_size) {
            let why = format!("{} bytes are not whole sub-buffers of {}", data.len(), self.page_size);
            return Err(Error::Unwritable(why));
        }
        let chunk = self.page_size.saturating_mul(CHUNK_SUB_BUFFERS);
        // Whole chunks are packed where they lie.
        while !data.is_empty() {
            if self.fill.is_empty() && data.len() >= chunk {
                let (now, later) = data.split_at(chunk);
                self.pack(now)?;
                data = later;
                continue;
            }
            let (now, later) = data.split_at((chunk - self.fill.len()).min(data.len()));
            self.fill.extend_from_slice(now);
            data = later;
            if self.fill.len() == chunk {
                let full = std::mem::take(&mut self.fill);
                self.pack(&full)?;
                self.fill = full;
                self.fill.clear();
            }
        }
        Ok(())
    }

    /// Bytes of sub-buffers taken so far.
    pub fn taken(&self) -> u64 {
        self.unpacked + self.fill.len() as u64
    }

    fn pack(&mut self, data: &[u8]) -> Result<()> {
        let fail = |source| Error::Io { path: "spool".into(), what: "write", source };
        self.unpacked += data.len() as u64;
        if self.packer.codec() == Codec::None {
            self.size += data.len() as u64;
            return self.out.write_all(data).map_err(fail);
        }
        let start = self.packed.len();
        self.packed.extend([0; 8]);
        let n = self.packer.pack(data, &mut self.packed)?;
        let size = u32::try_from(n).map_err(|_| Error::Unwritable("a compressed chunk of more than 4 GiB".into()))?;
        let sizes = [self.endian.from_u32(size), self.endian.from_u32(data.len() as u32)];
        if let Some(to) = self.packed.get_mut(start..start + 8) {
            to.copy_from_slice(sizes.as_flattened());
        }
        self.size += (self.packed.len() - start) as u64;
        self.chunks += 1;
        if self.packed.len() < AT_ONCE {
            return Ok(());
        }
        self.hand_on()
    }

    /// Brings packed chunks into the output.
    fn hand_on(&mut self) -> Result<()> {
        let fail = |source| Error::Io { path: "spool".into(), what: "write", source };
        self.out.write_all(&self.packed).map_err(fail)?;
        self.packed.clear();
        Ok(())
    }

    /// Packs what remains.
    ///
    /// # Errors
    /// As [`Spool::sub_buffers`].
    pub fn finish(mut self) -> Result<Spooled<F>> {
        if !self.fill.is_empty() {
            let rest = std::mem::take(&mut self.fill);
            self.pack(&rest)?;
        }
        self.hand_on()?;
        self.out.flush().map_err(|source| Error::Io { path: "spool".into(), what: "write", source })?;
        let Spool { out, endian, page_size, packer, chunks, size, unpacked, .. } = self;
        Ok(Spooled { out, codec: packer.codec(), endian, page_size, chunks, size, unpacked })
    }
}

impl<F> Spooled<F> {
    /// Bytes of sub-buffers in it.
    pub fn unpacked(&self) -> u64 {
        self.unpacked
    }

    /// Bytes that it takes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl<F: Read + Seek> Spooled<F> {
    /// Hands out the bytes from the start, piece by piece.
    pub(super) fn for_each(&mut self, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let fail = |source| Error::Io { path: "spool".into(), what: "read", source };
        let end = self.out.stream_position().map_err(fail)?;
        self.out.seek(SeekFrom::Start(end.saturating_sub(self.size))).map_err(fail)?;
        let mut window = vec![0; self.size.min(1 << 20) as usize];
        let mut rest = self.size;
        while rest > 0 {
            let n = rest.min(window.len() as u64) as usize;
            let now = window.get_mut(..n).unwrap_or_default();
            self.out.read_exact(now).map_err(fail)?;
            each(now)?;
            rest -= n as u64;
        }
        Ok(())
    }
}
