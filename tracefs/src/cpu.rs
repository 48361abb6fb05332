//! Raw data of one CPU: `per_cpu/cpuN/trace_pipe_raw`, read or spliced a sub-buffer at a time.
//!
//! A reader never blocks in the kernel file: it waits in poll(2) on that file and on an event counter which a
//! [`StopHandle`] raises, so another thread or a signal handler's thread can end the wait at any moment.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::error::{Error, Result};
use crate::instance::Instance;

/// Ends the wait of a reader, from any thread, for good.
#[derive(Clone, Debug)]
pub struct StopHandle(Arc<EventFd>);

impl StopHandle {
    /// A handle of its own, to be shared by several readers.
    pub fn new() -> Result<StopHandle> {
        let fd = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|e| Error::io("create", Path::new("eventfd"), e.into()))?;
        Ok(StopHandle(Arc::new(fd)))
    }

    /// Makes every wait that uses this handle return [`Wait::Stopped`], now and later.
    pub fn stop(&self) {
        let _ = self.0.write(1);
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Waits for [`stop`](StopHandle::stop), at most so long; true when it came.
    pub fn wait(&self, timeout: Duration) -> Result<bool> {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX)) {
            Ok(n) => Ok(n > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(e) => Err(Error::io("poll", Path::new("eventfd"), e.into())),
        }
    }

    /// True after [`stop`](StopHandle::stop).
    pub fn is_stopped(&self) -> bool {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut fds, PollTimeout::ZERO), Ok(n) if n > 0)
    }
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// There is something to read (by the instance's `buffer_percent`).
    Ready,
    /// The [`StopHandle`] was raised.
    Stopped,
    /// The time is over.
    Timeout,
}

/// Size of a sub-buffer in bytes from the text of `events/header_page`: end of the field `data`.
pub fn subbuf_size_of(header_page: &str) -> Option<usize> {
    let line = header_page.lines().find(|l| {
        l.trim_start().strip_prefix("field:").and_then(|l| l.split(';').next()).is_some_and(|d| d.ends_with(" data"))
    })?;
    let number = |key: &str| -> Option<usize> {
        let (_, rest) = line.split_once(key)?;
        rest.split(';').next()?.trim().parse().ok()
    };
    number("offset:")?.checked_add(number("size:")?).filter(|n| *n >= 64 && *n <= 1 << 26)
}

impl Instance {
    /// Size of a sub-buffer in bytes: `events/header_page`, the page size where that cannot be read.
    pub fn subbuf_size(&self) -> Result<usize> {
        let text = match self.dir().read("events/header_page") {
            Err(e) if e.is_missing() => self.root().dir().read("events/header_page"),
            other => other,
        };
        match text {
            Ok(t) => Ok(subbuf_size_of(&t).unwrap_or_else(page_size)),
            Err(e) if e.is_missing() => Ok(page_size()),
            Err(e) => Err(e),
        }
    }
}

pub(crate) fn page_size() -> usize {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().map_or(4096, |n| n as usize)
}

/// Reader of one CPU's raw buffer.
#[derive(Debug)]
pub struct CpuReader {
    file: File,
    path: PathBuf,
    subbuf: usize,
    stop: StopHandle,
    pipe: Option<Pipe>,
    buf: Vec<u8>,
    /// The part of `buf` that has not reached the output.
    rest: std::ops::Range<usize>,
    /// Bytes of the batch that is on its way to the output, 0 when all has arrived.
    batch: usize,
    can_splice: bool,
}

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    size: usize,
    /// Bytes in it that have not reached the output.
    holds: usize,
}

impl CpuReader {
    /// Opens `per_cpu/cpuN/trace_pipe_raw`: reading takes the records out of the buffer.
    pub fn open(instance: &Instance, cpu: u32) -> Result<CpuReader> {
        CpuReader::open_file(instance, cpu, "trace_pipe_raw")
    }

    /// Opens `per_cpu/cpuN/snapshot_raw`: the snapshot buffer (since Linux 3.10, `CONFIG_TRACER_SNAPSHOT`).
    pub fn open_snapshot(instance: &Instance, cpu: u32) -> Result<CpuReader> {
        instance.cpu_dir(cpu)?.require("snapshot_raw", "snapshots, CONFIG_TRACER_SNAPSHOT")?;
        CpuReader::open_file(instance, cpu, "snapshot_raw")
    }

    fn open_file(instance: &Instance, cpu: u32, name: &str) -> Result<CpuReader> {
        let path = instance.cpu_dir(cpu)?.file(name);
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
            .map_err(|e| Error::io("open", &path, e))?;
        CpuReader::with_file(file, path, instance.subbuf_size()?)
    }

    /// Reads sub-buffers from any descriptor (socket, FIFO). It is made non-blocking.
    pub fn from_fd(fd: OwnedFd, subbuf: usize) -> Result<CpuReader> {
        let path = PathBuf::from("descriptor");
        set_nonblock(fd.as_fd()).map_err(|e| Error::io("fcntl", &path, e.into()))?;
        CpuReader::with_file(File::from(fd), path, subbuf)
    }

    fn with_file(file: File, path: PathBuf, subbuf: usize) -> Result<CpuReader> {
        if subbuf == 0 {
            return Err(Error::Invalid("a sub-buffer has at least one byte".into()));
        }
        let stop = StopHandle::new()?;
        Ok(CpuReader { file, path, subbuf, stop, pipe: None, buf: Vec::new(), rest: 0..0, batch: 0, can_splice: true })
    }

    /// The same reader with a stop handle that others share.
    pub fn with_stop(mut self, stop: StopHandle) -> CpuReader {
        self.stop = stop;
        self
    }

    /// Never splices: read(2) and write(2) only.
    pub fn without_splice(mut self) -> CpuReader {
        self.can_splice = false;
        self
    }

    /// The handle that ends this reader's waits.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// Bytes of a sub-buffer.
    pub fn subbuf_size(&self) -> usize {
        self.subbuf
    }

    /// True while splice is used; it is given up for good when the target cannot do it.
    pub fn splices(&self) -> bool {
        self.can_splice
    }

    /// The file that is read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until there is something to read, by the instance's `buffer_percent`.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Wait> {
        let timeout = match timeout {
            None => PollTimeout::NONE,
            Some(d) => PollTimeout::try_from(d).unwrap_or(PollTimeout::MAX),
        };
        loop {
            let mut fds = [
                PollFd::new(self.stop.0.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.file.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, timeout) {
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(Error::io("poll", &self.path, e.into())),
                Ok(0) => return Ok(Wait::Timeout),
                Ok(_) if fds[0].any() == Some(true) => return Ok(Wait::Stopped),
                Ok(_) => return Ok(Wait::Ready),
            }
        }
    }

    /// Waits for the stop handle only; true when it was raised.
    pub fn wait_stopped(&self, timeout: Duration) -> Result<bool> {
        self.stop.wait(timeout)
    }

    /// One sub-buffer as it is now, also a partly filled one, without waiting. `None`: nothing there.
    ///
    /// What follows the data in the sub-buffer is zero.
    pub fn read(&mut self) -> Result<Option<&[u8]>> {
        let n = self.read_subbuf()?;
        Ok(if n == 0 { None } else { self.buf.get(..self.subbuf) })
    }

    fn read_subbuf(&mut self) -> Result<usize> {
        self.buf.resize(self.subbuf, 0);
        let n = loop {
            match self.file.read(&mut self.buf) {
                Ok(n) => break n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break 0,
                Err(e) => return Err(Error::io("read", &self.path, e)),
            }
        };
        // A short read leaves old bytes behind it: they do not belong to this sub-buffer.
        self.buf.get_mut(n..).unwrap_or_default().fill(0);
        Ok(n)
    }

    /// Moves whole sub-buffers to `out` without waiting, as many as there are (up to the size of the internal pipe).
    /// Gives the bytes moved; 0 means that no sub-buffer is full.
    ///
    /// What was taken from the kernel is never dropped: when `out` fails (a full disk), the next call goes on with the byte
    /// at which it failed, and counts the whole.
    ///
    /// # Errors
    /// Failures of the kernel file, and of `out` ([`Error::is_output`]).
    pub fn transfer(&mut self, out: BorrowedFd<'_>) -> Result<usize> {
        if let Some(done) = self.resume(out)? {
            return Ok(done);
        }
        if !self.can_splice {
            return self.copy(out);
        }
        if self.pipe.is_none() {
            self.pipe = Some(Pipe::new()?);
        }
        let pipe = self.pipe.as_mut().ok_or_else(|| Error::Invalid("no pipe".into()))?;
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
        let got = loop {
            match splice(&self.file, None, &pipe.write, None, pipe.size, flags) {
                Ok(n) => break n,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(0),
                Err(Errno::EINVAL) => {
                    self.can_splice = false;
                    return self.copy(out);
                }
                Err(e) => return Err(Error::io("splice", &self.path, e.into())),
            }
        };
        pipe.holds = got;
        self.batch = got;
        Ok(self.resume(out)?.unwrap_or(0))
    }

    /// Bytes that were taken from the kernel and have not reached the output, because it failed.
    pub fn pending(&self) -> usize {
        self.pipe.as_ref().map_or(0, |p| p.holds) + self.rest.len()
    }

    /// Brings what is pending to `out`; the bytes of its whole batch, `None` when nothing was pending.
    fn resume(&mut self, out: BorrowedFd<'_>) -> Result<Option<usize>> {
        if self.batch == 0 {
            return Ok(None);
        }
        while let Some(pipe) = self.pipe.as_mut().filter(|p| p.holds > 0) {
            if !self.rest.is_empty() {
                // Bytes that came out of the pipe by hand go first.
                write_all(out, &self.buf, &mut self.rest)?;
            }
            if self.can_splice {
                match splice(&pipe.read, None, out, None, pipe.holds, SpliceFFlags::SPLICE_F_MOVE) {
                    Ok(0) => return Err(out_error(Errno::EPIPE)),
                    Ok(n) => pipe.holds -= n,
                    Err(Errno::EINTR) => {}
                    Err(Errno::EAGAIN) => wait_writable(out)?,
                    // This target cannot be spliced into: what is in the pipe goes by hand, and from now on all does.
                    Err(Errno::EINVAL) => self.can_splice = false,
                    Err(e) => return Err(out_error(e)),
                }
                continue;
            }
            self.buf.resize(self.subbuf.max(1 << 16), 0);
            let into = match self.buf.get_mut(..pipe.holds) {
                Some(part) => part,
                None => &mut self.buf[..],
            };
            match nix::unistd::read(&pipe.read, into) {
                Ok(0) => return Err(out_error(Errno::EPIPE)),
                Ok(n) => {
                    pipe.holds -= n;
                    self.rest = 0..n;
                }
                Err(Errno::EINTR) => {}
                Err(e) => return Err(out_error(e)),
            }
        }
        write_all(out, &self.buf, &mut self.rest)?;
        Ok(Some(std::mem::take(&mut self.batch)))
    }

    /// Splices straight into a pipe, without the one between; for targets that are pipes themselves.
    pub fn transfer_to_pipe(&mut self, out: BorrowedFd<'_>) -> Result<usize> {
        loop {
            let len = self.subbuf.saturating_mul(16);
            match splice(&self.file, None, out, None, len, SpliceFFlags::SPLICE_F_NONBLOCK) {
                Ok(n) => return Ok(n),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(0),
                Err(e) => return Err(Error::io("splice", &self.path, e.into())),
            }
        }
    }

    /// One sub-buffer by read and write.
    fn copy(&mut self, out: BorrowedFd<'_>) -> Result<usize> {
        if let Some(done) = self.resume(out)? {
            return Ok(done);
        }
        if self.read_subbuf()? == 0 {
            return Ok(0);
        }
        self.rest = 0..self.subbuf;
        self.batch = self.subbuf;
        Ok(self.resume(out)?.unwrap_or(0))
    }

    /// Moves everything that is left, the partly filled sub-buffer included, without waiting. Gives the bytes moved.
    ///
    /// Call it after `tracing_on` was set to 0 (else it runs after the writer). `limit` bounds it: at most so many
    /// sub-buffers.
    pub fn flush(&mut self, out: BorrowedFd<'_>, limit: usize) -> Result<usize> {
        let mut total = 0;
        for _ in 0..limit {
            match self.copy(out)? {
                0 => break,
                n => total += n,
            }
        }
        Ok(total)
    }
}

impl AsFd for CpuReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Pipe {
    fn new() -> Result<Pipe> {
        let path = Path::new("pipe");
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| Error::io("create", path, e.into()))?;
        // A larger pipe moves more sub-buffers with one call. A user's own limit may be lower than the system's.
        let max = std::fs::read_to_string("/proc/sys/fs/pipe-max-size").ok().and_then(|t| t.trim().parse::<i32>().ok());
        let mut want = max.unwrap_or(1 << 20).clamp(1 << 16, 1 << 22);
        let size = loop {
            match fcntl(&write, FcntlArg::F_SETPIPE_SZ(want)) {
                Ok(n) => break n as usize,
                Err(_) if want > 1 << 16 => want /= 2,
                Err(_) => break 1 << 16,
            }
        };
        Ok(Pipe { read, write, size, holds: 0 })
    }
}

fn set_nonblock(fd: BorrowedFd<'_>) -> nix::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop)
}

fn out_error(e: Errno) -> Error {
    Error::Io { op: Error::OUTPUT, path: PathBuf::from("the output"), source: e.into() }
}

fn wait_writable(out: BorrowedFd<'_>) -> Result<()> {
    let mut fds = [PollFd::new(out, PollFlags::POLLOUT)];
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(e) => Err(out_error(e)),
    }
}

/// Writes the part `rest` of `buf`, which shrinks as it is written.
fn write_all(out: BorrowedFd<'_>, buf: &[u8], rest: &mut std::ops::Range<usize>) -> Result<()> {
    while let Some(part) = buf.get(rest.clone()).filter(|p| !p.is_empty()) {
        match nix::unistd::write(out, part) {
            Ok(0) => return Err(out_error(Errno::ENOSPC)),
            Ok(n) => rest.start += n,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => wait_writable(out)?,
            Err(e) => return Err(out_error(e)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};

    #[test]
    fn header_page() {
        let text = "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n\
                    \tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n\tfield: char data;\toffset:16;\tsize:65520;\tsigned:1;\n";
        assert_eq!(subbuf_size_of(text), Some(65536));
        assert_eq!(subbuf_size_of("field: char data;\toffset:1;\tsize:99999999999;"), None);
        assert_eq!(subbuf_size_of(""), None);
    }

    #[test]
    fn moves_bytes_from_a_fifo() {
        for splice in [true, false] {
            let (r, w) = nix::unistd::pipe().unwrap();
            let mut reader = CpuReader::from_fd(r, 4096).unwrap();
            if !splice {
                reader = reader.without_splice();
            }
            let mut out = tempfile::tempfile().unwrap();
            assert_eq!(reader.transfer(out.as_fd()).unwrap(), 0);
            assert_eq!(reader.wait(Some(Duration::from_millis(1))).unwrap(), Wait::Timeout);
            File::from(w.try_clone().unwrap()).write_all(&[7; 8192]).unwrap();
            assert_eq!(reader.wait(None).unwrap(), Wait::Ready);
            let mut moved = 0;
            loop {
                match reader.transfer(out.as_fd()).unwrap() {
                    0 => break,
                    n => moved += n,
                }
            }
            assert_eq!(moved, 8192);
            File::from(w.try_clone().unwrap()).write_all(&[9; 100]).unwrap();
            assert_eq!(reader.flush(out.as_fd(), 10).unwrap(), 4096, "a partial piece is padded");
            out.rewind().unwrap();
            let mut all = Vec::new();
            out.read_to_end(&mut all).unwrap();
            assert_eq!(all.len(), 8192 + 4096);
            assert!(all[8192..8292].iter().all(|b| *b == 9) && all[8292..].iter().all(|b| *b == 0));
        }
    }

    #[test]
    fn a_target_without_splice() {
        // A file opened for appending cannot be spliced into.
        let t = tempfile::tempdir().unwrap();
        let path = t.path().join("out");
        let out = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        let (r, w) = nix::unistd::pipe().unwrap();
        let mut reader = CpuReader::from_fd(r, 4096).unwrap();
        File::from(w.try_clone().unwrap()).write_all(&[1; 4096]).unwrap();
        assert_eq!(reader.transfer(out.as_fd()).unwrap(), 4096);
        assert!(!reader.splices());
        File::from(w).write_all(&[2; 4096]).unwrap();
        assert_eq!(reader.transfer(out.as_fd()).unwrap(), 4096);
        let all = std::fs::read(path).unwrap();
        assert_eq!((all.len(), all[0], all[8191]), (8192, 1, 2));
    }

    /// A pipe that takes little stands for a disk that is full and then is not.
    #[test]
    fn nothing_is_dropped_when_the_output_fails() {
        for splice in [true, false] {
            let (r, w) = nix::unistd::pipe().unwrap();
            let mut reader = CpuReader::from_fd(r, 4096).unwrap();
            if !splice {
                reader = reader.without_splice();
            }
            let bytes: Vec<u8> = (0..5 * 4096u32).map(|n| (n / 7) as u8).collect();
            File::from(w).write_all(&bytes).unwrap();
            let t = tempfile::tempdir().unwrap();
            let path = t.path().join("out");
            let out = File::create(&path).unwrap();
            // A full device refuses every byte; the limit of a file's size stops in the middle of a sub-buffer.
            let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
            let e = reader.transfer(full.as_fd()).unwrap_err();
            assert!(e.is_output(), "{e}");
            assert!(reader.pending() >= 4096);
            let mut moved = 0;
            loop {
                let e = reader.transfer(full.as_fd());
                assert!(e.is_err() || reader.pending() == 0);
                match reader.transfer(out.as_fd()).unwrap() {
                    0 => break,
                    n => moved += n,
                }
            }
            assert_eq!((moved, reader.pending()), (bytes.len(), 0));
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "splice: {splice}");
        }
    }

    #[test]
    fn stop_from_another_thread() {
        let (r, _w) = nix::unistd::pipe().unwrap();
        let reader = CpuReader::from_fd(r, 4096).unwrap();
        let stop = reader.stop_handle();
        assert!(!stop.is_stopped());
        let t = std::thread::spawn(move || reader.wait(None).unwrap());
        std::thread::sleep(Duration::from_millis(10));
        stop.stop();
        assert_eq!(t.join().unwrap(), Wait::Stopped);
        assert!(stop.is_stopped());
    }
}
