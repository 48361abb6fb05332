//! Where the bytes of a file come from: positioned reads of a file, or bytes at hand.
//!
//! Nothing is mapped: a file that another program shortens meanwhile gives an error, not a signal, and the memory in use is what was asked for.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{Error, Result};

/// Inputs that have no size of their own (pipes) are read into memory up to this many bytes.
const PIPE_MAX: u64 = 1 << 30;

/// Fills `buf` as far as there is something to read; what was filled.
///
/// # Errors
/// Reading fails.
pub fn read_full<'b>(from: &mut impl Read, buf: &'b mut [u8]) -> io::Result<&'b mut [u8]> {
    let mut have = 0;
    while let Some(rest) = buf.get_mut(have..).filter(|r| !r.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(buf.get_mut(..have).unwrap_or_default())
}

/// A file, or bytes in memory, that can be read at any offset by many threads. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Source {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    len: u64,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    File(ReadAt),
    Owned(Vec<u8>),
    /// Where each begins, and what it is.
    Joined(Vec<(u64, Source)>),
}

/// Joined sources begin at multiples of this.
const JOIN_ALIGN: u64 = 1 << 16;

impl Source {
    /// Several sources as one, with zeros between them; where each begins.
    pub fn join(name: impl Into<PathBuf>, parts: Vec<Source>) -> (Self, Vec<u64>) {
        let (mut placed, mut starts, mut len) = (Vec::new(), Vec::new(), 0u64);
        for part in parts {
            let start = len.checked_next_multiple_of(JOIN_ALIGN).unwrap_or(u64::MAX);
            len = start.saturating_add(part.len());
            starts.push(start);
            placed.push((start, part));
        }
        (Source { inner: Arc::new(Inner { path: name.into(), len, bytes: Bytes::Joined(placed) }) }, starts)
    }

    /// Opens a file. What is no regular file (a pipe) is read into memory.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let io = |what, source| Error::Io { path: path.clone(), what, source };
        let file = File::open(&path).map_err(|e| io("open", e))?;
        let meta = file.metadata().map_err(|e| io("read", e))?;
        if meta.is_dir() {
            return Err(io("read", io::ErrorKind::IsADirectory.into()));
        }
        let (len, bytes) = if meta.is_file() {
            (meta.len(), Bytes::File(ReadAt::new(file)))
        } else {
            let mut v = Vec::new();
            file.take(PIPE_MAX).read_to_end(&mut v).map_err(|e| io("read", e))?;
            (v.len() as u64, Bytes::Owned(v))
        };
        Ok(Source { inner: Arc::new(Inner { path, len, bytes }) })
    }

    /// A regular file that is open; `name` stands for the path in messages.
    ///
    /// # Errors
    /// [`Error::Io`] when its size cannot be had.
    pub fn from_file(name: impl Into<PathBuf>, file: File) -> Result<Self> {
        let path = name.into();
        match file.metadata() {
            Ok(meta) => {
                let bytes = Bytes::File(ReadAt::new(file));
                Ok(Source { inner: Arc::new(Inner { path, len: meta.len(), bytes }) })
            }
            Err(source) => Err(Error::Io { path, what: "read", source }),
        }
    }

    /// Bytes that are at hand; `name` stands for the path in messages.
    pub fn from_bytes(name: impl Into<PathBuf>, bytes: Vec<u8>) -> Self {
        Source { inner: Arc::new(Inner { path: name.into(), len: bytes.len() as u64, bytes: Bytes::Owned(bytes) }) }
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Size in bytes, as it was when the file was opened.
    pub fn len(&self) -> u64 {
        self.inner.len
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.inner.len == 0
    }

    /// Reads from `offset` until `buf` is full or the file ends; the number of bytes read.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        match &self.inner.bytes {
            Bytes::Owned(v) => {
                let rest = usize::try_from(offset).ok().and_then(|o| v.get(o..)).unwrap_or_default();
                let n = rest.len().min(buf.len());
                if let (Some(to), Some(from)) = (buf.get_mut(..n), rest.get(..n)) {
                    to.copy_from_slice(from);
                }
                Ok(n)
            }
            Bytes::Joined(parts) => {
                let have = usize::try_from(self.inner.len.saturating_sub(offset)).unwrap_or(usize::MAX).min(buf.len());
                let Some(buf) = buf.get_mut(..have) else { return Ok(0) };
                buf.fill(0);
                let end = offset.saturating_add(have as u64);
                for (start, part) in parts.iter().filter(|(start, part)| *start < end && start + part.len() > offset) {
                    // What is read begins in the part, or the part begins in what is read.
                    let (from, to) = (offset.saturating_sub(*start), start.saturating_sub(offset) as usize);
                    let n = usize::try_from(part.len() - from).unwrap_or(usize::MAX).min(have - to);
                    part.read_at(from, buf.get_mut(to..to + n).unwrap_or_default())?;
                }
                Ok(have)
            }
            Bytes::File(file) => {
                let mut done = 0;
                while let Some(rest) = buf.get_mut(done..).filter(|r| !r.is_empty()) {
                    let at = offset.saturating_add(done as u64);
                    match file.read_at(rest, at) {
                        Ok(0) => break,
                        Ok(n) => done += n,
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                        Err(source) => {
                            return Err(Error::Io { path: self.inner.path.clone(), what: "read", source });
                        }
                    }
                }
                Ok(done)
            }
        }
    }

    /// Has the system copy bytes of the file to where `to` stands, without a way through this program; how many it copied.
    /// 0 where it cannot, or at the end of the file.
    ///
    /// # Errors
    /// What the system says when `to` cannot be written.
    pub(crate) fn copy_range(&self, offset: u64, len: u64, to: &File) -> io::Result<u64> {
        match &self.inner.bytes {
            Bytes::File(file) => file.copy_range(offset, len, to),
            _ => Ok(0),
        }
    }

    /// Where the next bytes that are not in a hole of the file lie, from `offset` on; the end of the file when there are none.
    /// `offset` itself where holes cannot be told.
    pub fn next_data(&self, offset: u64) -> u64 {
        match &self.inner.bytes {
            Bytes::File(file) if offset < self.len() => file.next_data(offset, self.len()).max(offset),
            _ => offset,
        }
    }

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// [`Error::Truncated`] when the file ends before, naming `what` was read.
    pub fn read_exact_at(&self, what: &'static str, offset: u64, buf: &mut [u8]) -> Result<()> {
        let have = self.read_at(offset, buf)?;
        if have < buf.len() {
            return Err(Error::Truncated { what, offset, need: buf.len() as u64, have: have as u64 });
        }
        Ok(())
    }

    /// The `len` bytes from `offset`. Memory is only taken for what the file has.
    ///
    /// # Errors
    /// [`Error::Truncated`] when the file ends before.
    pub fn read_vec(&self, what: &'static str, offset: u64, len: u64) -> Result<Vec<u8>> {
        self.check(what, offset, len)?;
        let len = usize::try_from(len).map_err(|_| Error::Truncated { what, offset, need: len, have: 0 })?;
        let mut v = vec![0; len];
        self.read_exact_at(what, offset, &mut v)?;
        Ok(v)
    }

    /// Checks that `len` bytes from `offset` lie in the file.
    ///
    /// # Errors
    /// [`Error::Truncated`] when they do not.
    pub fn check(&self, what: &'static str, offset: u64, len: u64) -> Result<()> {
        let have = self.inner.len.saturating_sub(offset);
        if len > have {
            return Err(Error::Truncated { what, offset, need: len, have });
        }
        Ok(())
    }
}

#[cfg(unix)]
#[derive(Debug)]
struct ReadAt(File);

#[cfg(unix)]
impl ReadAt {
    fn new(file: File) -> Self {
        ReadAt(file)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(&self.0, buf, offset)
    }

    /// The file's own position, which this moves, is used by nobody.
    #[cfg(target_os = "linux")]
    fn next_data(&self, offset: u64, end: u64) -> u64 {
        match rustix::fs::seek(&self.0, rustix::fs::SeekFrom::Data(offset)) {
            Ok(at) => at,
            Err(rustix::io::Errno::NXIO) => end,
            Err(_) => offset,
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn next_data(&self, offset: u64, _end: u64) -> u64 {
        offset
    }

    #[cfg(target_os = "linux")]
    fn copy_range(&self, offset: u64, len: u64, to: &File) -> io::Result<u64> {
        use rustix::io::Errno;
        let mut at = offset;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(&self.0, Some(&mut at), to, None, len) {
            Ok(n) => Ok(n as u64),
            // Another file system, one that cannot do it, an old kernel, a filter of system calls, no regular file.
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM | Errno::INVAL | Errno::BADF) => Ok(0),
            Err(Errno::INTR) => self.copy_range(offset, len as u64, to),
            Err(e) => Err(e.into()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn copy_range(&self, _offset: u64, _len: u64, _to: &File) -> io::Result<u64> {
        Ok(0)
    }
}

#[cfg(not(unix))]
#[derive(Debug)]
struct ReadAt(std::sync::Mutex<File>);

#[cfg(not(unix))]
impl ReadAt {
    fn new(file: File) -> Self {
        ReadAt(std::sync::Mutex::new(file))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        use std::io::{Seek, SeekFrom};
        let mut file = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset))?;
        file.read(buf)
    }

    fn next_data(&self, offset: u64, _end: u64) -> u64 {
        offset
    }

    fn copy_range(&self, _offset: u64, _len: u64, _to: &File) -> io::Result<u64> {
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_sources() {
        let part = |b: u8, n: usize| Source::from_bytes("p", vec![b; n]);
        let (all, starts) = Source::join("all", vec![part(1, 10), part(2, 70_000), part(3, 0), part(4, 5)]);
        assert_eq!((starts.as_slice(), all.len()), (&[0, 65536, 196_608, 196_608][..], 196_613));
        let mut b = [9; 20];
        assert_eq!(all.read_at(5, &mut b).unwrap(), 20);
        assert_eq!((b[4], b[5], b[19]), (1, 0, 0));
        assert_eq!(all.read_at(65530, &mut b).unwrap(), 20);
        assert_eq!((b[5], b[6], b[19]), (0, 2, 2));
        assert_eq!(all.read_at(196_600, &mut b).unwrap(), 13);
        assert_eq!((b[7], b[8], b[12]), (0, 4, 4));
        let mut large = vec![0; 300_000];
        assert_eq!(all.read_at(0, &mut large).unwrap(), 196_613);
        assert_eq!(large.iter().filter(|b| **b == 2).count(), 70_000);
        assert_eq!(all.read_at(1 << 40, &mut b).unwrap(), 0);
    }
}
