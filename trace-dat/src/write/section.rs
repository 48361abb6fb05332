//! The output with its position, and what is filled in at the end.

use std::{
    fs::File,
    io::{self, BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use crate::{Endian, Error, Result, source::Source};

/// An output that knows its position and remembers the numbers that become known later.
pub(super) struct Out<W: Write + Seek> {
    inner: BufWriter<W>,
    /// The file behind `inner`, which shares its position, for copies within the system.
    direct: Option<File>,
    path: PathBuf,
    endian: Endian,
    pos: u64,
    patches: Vec<(u64, u64, usize)>,
}

impl<W: Write + Seek> Out<W> {
    pub fn new(inner: W, direct: Option<File>, path: &Path, endian: Endian) -> Self {
        let inner = BufWriter::with_capacity(64 * 1024, inner);
        Out { inner, direct, path: path.to_path_buf(), endian, pos: 0, patches: Vec::new() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn endian(&self) -> Endian {
        self.endian
    }

    pub fn pos(&self) -> u64 {
        self.pos
    }

    fn fail(&self, source: io::Error) -> Error {
        Error::Io { path: self.path.clone(), what: "write", source }
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.inner.write_all(bytes).map_err(|e| self.fail(e))?;
        self.pos += bytes.len() as u64;
        Ok(())
    }

    /// Copies bytes of `source` as they are; how many, which may be fewer or none: then they have to be read and written.
    pub fn copy(&mut self, source: &Source, offset: u64, len: u64) -> Result<u64> {
        let Some(file) = &self.direct else { return Ok(0) };
        self.inner.flush().map_err(|e| self.fail(e))?;
        let done = source.copy_range(offset, len, file).map_err(|e| self.fail(e))?;
        self.pos += done;
        if done == 0 {
            self.direct = None;
        }
        Ok(done)
    }

    pub fn u16(&mut self, v: u16) -> Result<()> {
        self.write(&self.endian.from_u16(v))
    }

    pub fn u32(&mut self, v: u32) -> Result<()> {
        self.write(&self.endian.from_u32(v))
    }

    pub fn u64(&mut self, v: u64) -> Result<()> {
        self.write(&self.endian.from_u64(v))
    }

    /// Fills with zeros up to a multiple of `to`.
    #[allow(clippy::indexing_slicing, reason = "never more than there are zeros")]
    pub fn align(&mut self, to: u64) -> Result<()> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let mut rest = self.pos.next_multiple_of(to.max(1)) - self.pos;
        while rest > 0 {
            let n = rest.min(ZEROS.len() as u64);
            self.write(&ZEROS[..n as usize])?;
            rest -= n;
        }
        Ok(())
    }

    /// Puts a 32-bit number at `at` when the file is finished.
    pub fn patch_u32(&mut self, at: u64, v: u32) {
        self.patches.push((at, v.into(), 4));
    }

    /// Puts a 64-bit number at `at` when the file is finished.
    pub fn patch_u64(&mut self, at: u64, v: u64) {
        self.patches.push((at, v, 8));
    }

    /// Fills in the numbers and writes everything out; the output and its length.
    pub fn finish(mut self) -> Result<(W, u64)> {
        for (at, v, size) in std::mem::take(&mut self.patches) {
            let long = self.endian.from_u64(v);
            let short = self.endian.from_u32(v as u32);
            let bytes: &[u8] = if size == 4 { &short } else { &long };
            self.inner.seek(SeekFrom::Start(at)).and_then(|_| self.inner.write_all(bytes)).map_err(|e| self.fail(e))?;
        }
        self.inner.flush().map_err(|e| self.fail(e))?;
        let (inner, _) = self.inner.into_parts();
        Ok((inner, self.pos))
    }
}
