//! Signals as events of a descriptor: blocked in every thread, read where the program waits anyway.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The wish to end: SIGINT, SIGTERM, SIGHUP.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
}

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// A signal asks to end.
    Signal,
    /// One of the descriptors (index) is ready.
    Ready(usize),
    /// The time is over.
    Timeout,
}

fn wish_to_end() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect()
}

/// The signals that were blocked when the program started.
static BEFORE: OnceLock<SigSet> = OnceLock::new();

/// The mask of signals for a program that is started: what this one was started with, whatever it blocks itself.
pub fn inherited() -> SigSet {
    BEFORE.get().copied().or_else(|| SigSet::thread_get_mask().ok()).unwrap_or_else(SigSet::empty)
}

impl Signals {
    /// Blocks the signals for this thread and all that it starts from now on.
    ///
    /// # Errors
    /// The system refuses.
    pub fn block() -> anyhow::Result<Signals> {
        let set = wish_to_end();
        let before = set.thread_swap_mask(SigmaskHow::SIG_BLOCK).context("cannot block signals")?;
        BEFORE.get_or_init(|| before);
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .context("cannot make a signal descriptor")?;
        Ok(Signals { fd })
    }

    /// Waits for a signal or for one of `others` to be readable.
    ///
    /// # Errors
    /// poll(2) fails.
    pub fn wait(&self, others: &[BorrowedFd<'_>], timeout: Option<Duration>) -> anyhow::Result<Woken> {
        let end = timeout.map(|t| Instant::now() + t);
        loop {
            let mut fds = vec![PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
            fds.extend(others.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)));
            let left = match end {
                Some(end) => {
                    PollTimeout::try_from(end.saturating_duration_since(Instant::now())).unwrap_or(PollTimeout::MAX)
                }
                None => PollTimeout::NONE,
            };
            match poll(&mut fds, left) {
                Err(nix::errno::Errno::EINTR) => continue,
                Err(e) => return Err(e).context("cannot wait"),
                Ok(0) => return Ok(Woken::Timeout),
                Ok(_) => {}
            }
            let mut ready = fds.iter().map(|f| f.any() == Some(true));
            if ready.next() == Some(true) && matches!(self.fd.read_signal(), Ok(Some(_))) {
                return Ok(Woken::Signal);
            }
            if let Some(at) = ready.position(|r| r) {
                return Ok(Woken::Ready(at));
            }
        }
    }

    /// Waits until `out` takes more, or for a signal. What cannot be waited for (a file) takes more at once.
    ///
    /// # Errors
    /// poll(2) fails.
    pub fn wait_writable(&self, out: BorrowedFd<'_>) -> anyhow::Result<Woken> {
        loop {
            let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN), PollFd::new(out, PollFlags::POLLOUT)];
            match poll(&mut fds, PollTimeout::NONE) {
                Err(nix::errno::Errno::EINTR) => continue,
                Err(e) => return Err(e).context("cannot wait"),
                Ok(_) => {}
            }
            // A reader that has gone is told by the next write.
            if fds[1].any() != Some(false) {
                return Ok(Woken::Ready(0));
            }
            if fds[0].any() == Some(true) && matches!(self.fd.read_signal(), Ok(Some(_))) {
                return Ok(Woken::Signal);
            }
        }
    }

    /// Lets the signals do again what they do by default.
    ///
    /// # Errors
    /// The system refuses.
    pub fn release(self) -> anyhow::Result<()> {
        wish_to_end().thread_unblock().context("cannot unblock signals")
    }

    /// Whether a signal came already.
    pub fn pending(&self) -> bool {
        matches!(self.wait(&[], Some(Duration::ZERO)), Ok(Woken::Signal))
    }
}
