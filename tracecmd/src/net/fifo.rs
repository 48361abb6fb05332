//! FIFOs between a guest and its host, one for each CPU: virtio ports in the guest, named pipes of `setup-guest` here.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

/// Where the host has the FIFOs of its guests.
pub const HOST_DIR: &str = "/var/lib/trace-cmd/virt";
/// Where a guest has its ends.
pub const GUEST_DIR: &str = "/dev/virtio-ports";
/// A pair for each CPU, seen from the host: into the guest, out of the guest.
pub const ENDS: [&str; 2] = ["in", "out"];

/// How long after the guest's end data may still come out of a FIFO, which has no end of its own.
const SILENCE: Duration = Duration::from_millis(300);

/// Name of a CPU's port.
pub fn name(cpu: u32) -> String {
    format!("trace-pipe-cpu{cpu}")
}

/// One end of a CPU's FIFO in the directory of a guest.
pub fn host_path(dir: &Path, cpu: u32, end: &str) -> PathBuf {
    dir.join(format!("{}.{end}", name(cpu)))
}

/// Whether the name of a guest can be one of a directory.
pub fn is_name(guest: &str) -> bool {
    !guest.is_empty() && !guest.starts_with('.') && !guest.contains(['/', '\0'])
}

/// The host's ends of a guest's FIFOs, emptied: as many as there are, from CPU 0 on.
pub fn open_host(base: &Path, guest: &str) -> Vec<File> {
    if !is_name(guest) {
        return Vec::new();
    }
    let dir = base.join(guest);
    let open = |cpu| {
        let path = host_path(&dir, cpu, "out");
        path.metadata().ok().filter(|m| m.file_type().is_fifo())?;
        let mut file =
            OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path).ok()?;
        // What an earlier recording left in it.
        let mut buf = [0; 1 << 16];
        while matches!(file.read(&mut buf), Ok(n) if n > 0) {}
        Some(file)
    };
    (0..).map_while(open).collect()
}

/// Whether this guest has ports for so many CPUs.
pub fn guest_has(dir: &Path, cpus: u32) -> bool {
    (0..cpus).all(|cpu| dir.join(name(cpu)).exists())
}

/// Opens this guest's ports once the host has opened its ends.
///
/// # Errors
/// The host does not within `wait`, or a port cannot be opened.
pub fn open_guest(dir: &Path, cpus: u32, wait: Duration) -> Result<Vec<File>> {
    let end = Instant::now() + wait;
    (0..cpus).map(|cpu| open_port(&dir.join(name(cpu)), end)).collect()
}

fn open_port(path: &Path, end: Instant) -> Result<File> {
    loop {
        let opened = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path);
        match opened {
            Ok(file) => {
                fcntl(&file, FcntlArg::F_SETFL(OFlag::O_WRONLY))?;
                return Ok(file);
            }
            // Nobody reads the other end yet.
            Err(e) if e.raw_os_error() == Some(libc::ENXIO) && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(e) => return Err(e).with_context(|| format!("cannot open {}", path.display())),
        }
    }
}

/// The host's end of a FIFO as a stream that ends some time after `ended` is set: the writer may never close it.
pub struct HostEnd {
    file: File,
    ended: Arc<AtomicBool>,
}

impl HostEnd {
    /// Reads `file`, which does not block.
    pub fn new(file: File, ended: Arc<AtomicBool>) -> HostEnd {
        HostEnd { file, ended }
    }
}

impl Read for HostEnd {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut silent = None;
        loop {
            match self.file.read(buf) {
                // No writer now; one may come.
                Ok(0) => std::thread::sleep(Duration::from_millis(20)),
                Ok(n) => return Ok(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    let _ = poll(&mut [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)], PollTimeout::from(50u8));
                }
                Err(e) => return Err(e),
            }
            if self.ended.load(Ordering::Acquire) {
                let since = *silent.get_or_insert_with(Instant::now);
                if since.elapsed() >= SILENCE {
                    return Ok(0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::{sys::stat::Mode, unistd::mkfifo};
    use std::io::Write;

    #[test]
    fn from_the_guest_to_the_host() {
        let t = tempfile::tempdir().unwrap();
        let (host, guest) = (t.path().join("vm"), t.path().join("ports"));
        std::fs::create_dir(&host).unwrap();
        std::fs::create_dir(&guest).unwrap();
        for cpu in 0..2 {
            let path = host_path(&host, cpu, "out");
            mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
            std::os::unix::fs::symlink(&path, guest.join(name(cpu))).unwrap();
        }
        assert!(guest_has(&guest, 2) && !guest_has(&guest, 3));
        assert!(open_guest(&guest, 2, Duration::ZERO).is_err(), "nobody reads");
        let ends = open_host(t.path(), "vm");
        assert_eq!(ends.len(), 2);
        assert!(open_host(t.path(), "../vm").is_empty() && open_host(t.path(), "other").is_empty());
        let ended = Arc::new(AtomicBool::new(false));
        let mut ends: Vec<_> = ends.into_iter().map(|f| HostEnd::new(f, Arc::clone(&ended))).collect();
        let writer = std::thread::spawn(move || {
            for (n, f) in open_guest(&guest, 2, Duration::from_secs(5)).unwrap().iter_mut().enumerate() {
                f.write_all(&vec![n as u8; 100_000]).unwrap();
            }
        });
        let mut first = vec![1; 100_000];
        ends[0].read_exact(&mut first).unwrap();
        assert!(first.iter().all(|b| *b == 0));
        ended.store(true, Ordering::Release);
        let mut rest = Vec::new();
        ends[1].read_to_end(&mut rest).unwrap();
        assert_eq!(rest, vec![1; 100_000]);
        writer.join().unwrap();
    }
}
