//! Compression while a recording goes on.
//!
//! One thread for all CPUs reads behind the recorders, packs whole chunks and keeps them in files without a name, which the finished
//! file takes over as they are. It runs when nothing else wants a CPU (SCHED_IDLE), so the traced machine is disturbed least; what it has not
//! come to when the recording ends is packed then, by all CPUs. The raw data stay until the finished file is there: losing
//! what this thread has made loses time only.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use trace_dat::compress::Codec;
use trace_dat::write::{CHUNK_SUB_BUFFERS, Spool, Spooled};
use tracefs::StopHandle;

use crate::recorder;
use crate::sys;
use crate::tracefile::HOST_ENDIAN;

/// How often it looks for new data.
const PERIOD: Duration = Duration::from_millis(250);

/// How many chunks it reads at once.
const CHUNKS: u64 = 8;

/// Data of one CPU that are packed already: the first [`unpacked`](Spooled::unpacked) bytes of its raw data.
pub type Ahead = Spooled<File>;

/// The running thread.
#[derive(Debug)]
pub struct Follower {
    stop: StopHandle,
    thread: JoinHandle<Vec<(PathBuf, Ahead)>>,
    tid: i32,
}

/// One raw file and what was made of it.
struct Followed {
    path: PathBuf,
    raw: File,
    chunk: usize,
    spool: Spool<File>,
}

impl Followed {
    fn new(path: &Path, subbuf: u32, codec: Codec) -> anyhow::Result<Followed> {
        let raw = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut name = path.as_os_str().to_owned();
        name.push(".packed");
        let out = recorder::create_unnamed(Path::new(&name))?;
        let spool = Spool::new(out, codec, HOST_ENDIAN, subbuf);
        Ok(Followed { path: path.to_owned(), raw, chunk: subbuf as usize * CHUNK_SUB_BUFFERS, spool })
    }

    /// Packs the whole chunks that are there; false when it cannot go on.
    fn follow(&mut self, buf: &mut Vec<u8>, stop: &StopHandle) -> bool {
        let Ok(size) = self.raw.metadata().map(|m| m.len()) else { return false };
        while !stop.is_stopped() {
            let chunks = size.saturating_sub(self.spool.taken()) / self.chunk as u64;
            buf.resize(self.chunk * chunks.min(CHUNKS) as usize, 0);
            if buf.is_empty() {
                break;
            }
            let read = self.raw.read_exact_at(buf, self.spool.taken());
            if read.is_err() || self.spool.sub_buffers(buf).is_err() {
                return false;
            }
        }
        true
    }
}

impl Follower {
    /// Follows raw files that exist, each with the size of its sub-buffers.
    ///
    /// # Errors
    /// A file cannot be opened or made, or no thread can be had. A recording does without it then.
    pub fn start(files: &[(PathBuf, u32)], codec: Codec) -> anyhow::Result<Follower> {
        let followed = files.iter().map(|(path, subbuf)| Followed::new(path, *subbuf, codec));
        let followed = followed.collect::<anyhow::Result<Vec<_>>>()?;
        let stop = StopHandle::new()?;
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("follower".into())
            .spawn({
                let stop = stop.clone();
                move || {
                    sys::set_idle_priority();
                    let _ = ready.send(nix::unistd::gettid().as_raw());
                    follow_all(followed, &stop)
                }
            })
            .context("cannot start a thread")?;
        let tid = is_ready.recv().context("a thread ended at once")?;
        Ok(Follower { stop, thread, tid })
    }

    /// Its thread, for whoever wants to leave it out of the trace.
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// Asks it to end. From now on it is waited for, so it gets its share of the CPUs.
    pub fn stop(&self) {
        self.stop.stop();
        sys::set_normal_priority(self.tid);
    }

    /// Waits for its end; gives what it has made by raw file.
    pub fn join(self) -> Vec<(PathBuf, Ahead)> {
        self.stop();
        self.thread.join().unwrap_or_default()
    }
}

fn follow_all(mut files: Vec<Followed>, stop: &StopHandle) -> Vec<(PathBuf, Ahead)> {
    let mut buf = Vec::new();
    while let Ok(false) = stop.wait(PERIOD) {
        // A full disk: the room is better used by the raw data.
        files.retain_mut(|f| f.follow(&mut buf, stop));
    }
    files.into_iter().filter_map(|f| Some((f.path, f.spool.finish().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn whole_chunks_are_packed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.cpu0");
        let mut raw = File::create(&path).unwrap();
        let (mut f, mut buf) = (Followed::new(&path, 4096, Codec::Zstd).unwrap(), Vec::new());
        for (sub_buffers, packed) in [(9, 0), (16, 20), (5, 30)] {
            raw.write_all(&vec![7; sub_buffers * 4096]).unwrap();
            assert!(f.follow(&mut buf, &StopHandle::new().unwrap()));
            assert_eq!(f.spool.taken(), packed * 4096);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "its own file has no name");
    }

    #[test]
    fn the_thread_ends_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.cpu0");
        std::fs::write(&path, vec![7; 25 * 4096]).unwrap();
        let follower = Follower::start(&[(path.clone(), 4096)], Codec::Zstd).unwrap();
        std::thread::sleep(PERIOD * 2);
        let ahead = follower.join();
        let [(of, ahead)] = &ahead[..] else { panic!("one file") };
        assert_eq!(of, &path);
        // On a busy machine it may have come to nothing.
        assert!(ahead.unpacked() <= 20 * 4096 && ahead.unpacked().is_multiple_of(10 * 4096), "{}", ahead.unpacked());
    }

    #[test]
    fn what_cannot_be_followed_is_no_data() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Follower::start(&[(dir.path().join("none"), 4096)], Codec::Zstd).is_err());
    }
}
