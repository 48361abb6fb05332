//! `trace_pipe`: the records as lines of text, taken out of the buffer as they come.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::cpu::{StopHandle, Wait};
use crate::error::{Error, Result};
use crate::instance::Instance;

/// A longer line is handed out in pieces.
const MAX_LINE: usize = 1 << 20;

/// Reader of `trace_pipe`. It waits in poll(2), so a [`StopHandle`] can end it from another thread at any moment.
#[derive(Debug)]
pub struct TracePipe {
    file: File,
    path: PathBuf,
    stop: StopHandle,
    buf: Vec<u8>,
    start: usize,
}

impl TracePipe {
    /// Opens `trace_pipe` of an instance, or of one of its CPUs.
    pub fn open(instance: &Instance, cpu: Option<u32>) -> Result<TracePipe> {
        let path = match cpu {
            None => instance.file("trace_pipe"),
            Some(cpu) => instance.cpu_dir(cpu)?.file("trace_pipe"),
        };
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
            .map_err(|e| Error::io("open", &path, e))?;
        Ok(TracePipe { file, path, stop: StopHandle::new()?, buf: Vec::new(), start: 0 })
    }

    /// The handle that ends the waits of this reader.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// Waits for something to read.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Wait> {
        let timeout = timeout.map_or(PollTimeout::NONE, |d| PollTimeout::try_from(d).unwrap_or(PollTimeout::MAX));
        loop {
            let mut fds =
                [PollFd::new(self.stop.fd(), PollFlags::POLLIN), PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout) {
                Err(Errno::EINTR) => {}
                Err(e) => return Err(Error::io("poll", &self.path, e.into())),
                Ok(0) => return Ok(Wait::Timeout),
                Ok(_) if fds[0].any() == Some(true) => return Ok(Wait::Stopped),
                Ok(_) => return Ok(Wait::Ready),
            }
        }
    }

    /// Whatever is there now, at most `buf.len()` bytes; 0: nothing.
    pub fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        Ok(self.read_now(buf)?.unwrap_or(0))
    }

    /// As [`read`](TracePipe::read); `None`: nothing now, 0: the end (of a plain file; the kernel's has none).
    fn read_now(&mut self, buf: &mut [u8]) -> Result<Option<usize>> {
        loop {
            match self.file.read(buf) {
                Ok(n) => return Ok(Some(n)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) => return Err(Error::io("read", &self.path, e)),
            }
        }
    }

    /// The next line, without its newline. Waits for one; `None` after a stop, or at the end of a plain file.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>> {
        loop {
            let rest = self.buf.get(self.start..).unwrap_or_default();
            let cut = rest.iter().position(|b| *b == b'\n');
            if let Some(n) = cut.or((rest.len() >= MAX_LINE).then_some(rest.len())) {
                let at = self.start;
                self.start += n + usize::from(cut.is_some());
                return Ok(self.buf.get(at..at + n));
            }
            self.buf.drain(..std::mem::take(&mut self.start).min(self.buf.len()));
            let wait = self.wait(None)?;
            let old = self.buf.len();
            self.buf.resize(old + 65536, 0);
            let mut chunk = std::mem::take(&mut self.buf);
            let read = self.read_now(chunk.get_mut(old..).unwrap_or_default());
            self.buf = chunk;
            let read = read?;
            self.buf.truncate(old + read.unwrap_or(0));
            // After a stop what is still in the buffer is handed out.
            if read == Some(0) || read.is_none() && wait == Wait::Stopped {
                self.start = self.buf.len();
                return Ok(Some(self.buf.as_slice()).filter(|rest| !rest.is_empty()));
            }
            if read.is_none() {
                // Somebody else took what there was: ready for all that, so do not ask in a loop.
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

impl AsFd for TracePipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TraceFs;

    #[test]
    fn lines() {
        let t = tempfile::tempdir().unwrap();
        let long = "x".repeat(100_000);
        std::fs::write(t.path().join("trace_pipe"), format!("a\n\nb{long}\nend")).unwrap();
        let mut p = TracePipe::open(&TraceFs::at(t.path()).top(), None).unwrap();
        let mut lines = Vec::new();
        while let Some(l) = p.next_line().unwrap() {
            lines.push(String::from_utf8(l.to_vec()).unwrap());
        }
        assert_eq!(lines, ["a", "", &format!("b{long}"), "end"]);
    }

    #[test]
    fn nothing_now_is_not_the_end() {
        let t = tempfile::tempdir().unwrap();
        let path = t.path().join("trace_pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut p = TracePipe::open(&TraceFs::at(t.path()).top(), None).unwrap();
        let stop = p.stop_handle();
        let writer = std::thread::spawn(move || {
            use std::io::Write;
            let mut f = OpenOptions::new().write(true).open(path).unwrap();
            for text in ["one\ntw", "o\n", "rest"] {
                f.write_all(text.as_bytes()).unwrap();
                std::thread::sleep(Duration::from_millis(30));
            }
            stop.stop();
            f
        });
        let mut lines = Vec::new();
        while let Some(l) = p.next_line().unwrap() {
            lines.push(String::from_utf8_lossy(l).into_owned());
        }
        assert_eq!(lines, ["one", "two", "rest"]);
        drop(writer.join().unwrap());
    }
}
