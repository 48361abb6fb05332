//! A file in which blocks of zeros are holes.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

/// The blocks that are left out when there is nothing in them.
const BLOCK: usize = 4096;

/// Writes what is not zero.
#[derive(Debug)]
pub struct SparseFile {
    file: File,
    pos: u64,
    len: u64,
}

impl SparseFile {
    /// A new, empty file.
    pub fn create(path: &Path) -> io::Result<SparseFile> {
        Ok(SparseFile { file: File::create(path)?, pos: 0, len: 0 })
    }

    /// Gives the file its length; the bytes that it takes on the disk.
    pub fn finish(self) -> io::Result<u64> {
        self.file.set_len(self.len)?;
        Ok(self.file.metadata()?.blocks() * 512)
    }
}

impl Write for SparseFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        const ZEROS: [u8; BLOCK] = [0; BLOCK];
        let first = (BLOCK as u64 - self.pos % BLOCK as u64) as usize;
        let (mut start, mut end) = (0, 0);
        while end < buf.len() {
            let next = if end == 0 { first.min(buf.len()) } else { (end + BLOCK).min(buf.len()) };
            // What lies where something was written before is a number filled in later: never a hole.
            let hole = self.pos + end as u64 >= self.len && buf[end..next] == ZEROS[..next - end];
            if hole {
                self.file.write_all_at(&buf[start..end], self.pos + start as u64)?;
                start = next;
            }
            end = next;
        }
        self.file.write_all_at(&buf[start..], self.pos + start as u64)?;
        self.pos += buf.len() as u64;
        self.len = self.len.max(self.pos);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for SparseFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let pos = match to {
            SeekFrom::Start(n) => Some(n),
            SeekFrom::End(n) => self.len.checked_add_signed(n),
            SeekFrom::Current(n) => self.pos.checked_add_signed(n),
        };
        self.pos = pos.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.pos)
    }
}
