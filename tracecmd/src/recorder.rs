//! Recorders: one thread per CPU and buffer moves sub-buffers from the kernel into a file, and nothing else.
//!
//! A recorder waits in poll(2), so the kernel's `buffer_percent` decides when it is worth waking; then it splices whole
//! sub-buffers through a pipe into its file. Compression never runs here: the traced machine is disturbed least.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, ensure};
use trace_dat::source::Source;
use tracefs::{BufferSize, CpuReader, Instance, StopHandle, Wait};

use crate::follower::Ahead;
use crate::sys;

/// How recorders work.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Pause after a pass that moved nothing.
    pub pause: Duration,
    /// SCHED_FIFO priority.
    pub priority: Option<i32>,
    /// Never wait: read in a loop.
    pub poll: bool,
    /// read(2) and write(2) in place of splice(2).
    pub no_splice: bool,
    /// Limit of each CPU's data in bytes (`-m`).
    pub max_bytes: Option<u64>,
    /// After a transfer of less than so many bytes it waits for the kernel's wake-up again; see [`lull`].
    pub lull: usize,
}

/// Buffers from this size on, in KiB, are left to fill up again after they were emptied.
const LARGE_BUFFER: u64 = 1 << 10;

/// How little there must be in a CPU's buffer for a recorder to wait until the kernel wakes it, in bytes.
///
/// A recorder that takes each sub-buffer as it becomes full costs the traced machine two calls for each. It does so only where
/// the kernel wakes it before a good part is full, or so late that a wait could cost records: with a small buffer.
pub fn lull(instance: &Instance) -> usize {
    let wakes = instance.buffer_percent().ok().flatten();
    match instance.buffer_size(None) {
        Ok(BufferSize::Kb(kb)) if kb >= LARGE_BUFFER && wakes.is_some_and(|p| (10..=50).contains(&p)) => {
            (kb / 4).min(256) as usize * 1024
        }
        _ => 0,
    }
}

/// The file of one CPU's raw data.
#[derive(Debug)]
pub struct Raw {
    /// Where it lies.
    pub path: PathBuf,
    /// The CPU.
    pub cpu: u32,
    /// Bytes in it: whole sub-buffers.
    pub bytes: u64,
    /// Why the recorder could not bring all of the kernel's data into the file.
    pub failure: Option<anyhow::Error>,
    /// The start of the data, packed while the recording went on.
    pub ahead: Option<Ahead>,
    file: File,
    /// With `-m`: the older half, whose data comes first; it has no name any more.
    older: Option<File>,
}

impl Raw {
    /// A file that holds `bytes` bytes of whole sub-buffers.
    pub fn of(path: PathBuf, cpu: u32, bytes: u64, file: File) -> Raw {
        Raw { path, cpu, bytes, failure: None, ahead: None, file, older: None }
    }

    /// The files with the data, in order: one, or with `-m` up to two.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn sources(&self) -> anyhow::Result<Vec<Source>> {
        let open = |file: &File| {
            let file = file.try_clone().with_context(|| format!("cannot read {}", self.path.display()))?;
            Ok(Source::from_file(&self.path, file)?)
        };
        self.older.iter().chain([&self.file]).map(open).collect()
    }

    /// Removes the file.
    pub fn remove(&self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A running recorder.
#[derive(Debug)]
pub struct Recorder {
    stop: StopHandle,
    thread: JoinHandle<Raw>,
    tid: i32,
    path: PathBuf,
}

/// The files a recorder fills: one, or with `-m` two halves in turn.
struct Sink {
    path: PathBuf,
    file: File,
    other: Option<File>,
    half: u64,
    in_file: u64,
    in_other: u64,
}

fn create(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(path)
        .with_context(|| format!("cannot create {}", path.display()))
}

/// A file that nobody else sees, gone with its last descriptor; `path` is its name for a moment.
pub(crate) fn create_unnamed(path: &Path) -> anyhow::Result<File> {
    let file = create(path)?;
    std::fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
    Ok(file)
}

impl Sink {
    fn new(path: &Path, max: Option<u64>, subbuf: u64) -> anyhow::Result<Sink> {
        let file = create(path)?;
        let mut sink = Sink { path: path.to_owned(), file, other: None, half: 0, in_file: 0, in_other: 0 };
        if let Some(max) = max {
            let mut second = path.as_os_str().to_owned();
            second.push(".1");
            sink.other = Some(create_unnamed(Path::new(&second))?);
            sink.half = (max / 2 / subbuf).max(1) * subbuf;
        }
        Ok(sink)
    }

    /// Counts what was written; a full half makes way for the other one.
    fn wrote(&mut self, bytes: u64) -> anyhow::Result<()> {
        self.in_file += bytes;
        if let Some(other) = &mut self.other
            && self.in_file >= self.half
        {
            other.set_len(0)?;
            other.seek(SeekFrom::Start(0))?;
            std::mem::swap(&mut self.file, other);
            (self.in_other, self.in_file) = (self.in_file, 0);
        }
        Ok(())
    }

    /// Ends the file with its last whole sub-buffer; an output that failed may have got a part of one.
    fn finish(self, cpu: u32, failure: Option<anyhow::Error>) -> Raw {
        if failure.is_some() {
            let _ = self.file.set_len(self.in_file);
        }
        let bytes = self.in_file + self.in_other;
        Raw { path: self.path, cpu, bytes, failure, ahead: None, file: self.file, older: self.other }
    }
}

impl Recorder {
    /// Starts the recorder of one CPU.
    ///
    /// # Errors
    /// The kernel's file or the output cannot be opened, or the priority is refused.
    pub fn start(instance: &Instance, cpu: u32, path: &Path, how: &Settings) -> anyhow::Result<Recorder> {
        let stop = StopHandle::new()?;
        let mut reader = CpuReader::open(instance, cpu)?.with_stop(stop.clone());
        let subbuf = reader.subbuf_size() as u64;
        let mut sink = Sink::new(path, how.max_bytes, subbuf)?;
        // Splicing moves up to a pipe's worth at a time, which may be more than a half of the limit.
        if how.no_splice || sink.other.is_some() && sink.half < 8 << 20 {
            reader = reader.without_splice();
        }
        let (ready, is_ready) = mpsc::channel();
        let how = how.clone();
        let thread = std::thread::Builder::new()
            .name(format!("recorder {cpu}"))
            .spawn(move || {
                let begun = match how.priority {
                    Some(p) => sys::set_fifo_priority(p).with_context(|| format!("cannot set priority {p}")),
                    None => Ok(()),
                };
                let failed = begun.is_err();
                let _ = ready.send(begun.map(|()| nix::unistd::gettid().as_raw()));
                if failed {
                    return sink.finish(cpu, None);
                }
                let mut failure = None;
                if let Err(e) = record(&mut reader, &mut sink, &how, &mut failure) {
                    failure = Some(e);
                }
                sink.finish(cpu, failure)
            })
            .context("cannot start a recorder")?;
        let tid = is_ready.recv().context("a recorder ended at once")??;
        Ok(Recorder { stop, thread, tid, path: path.to_owned() })
    }

    /// Its thread, for whoever wants to leave it out of the trace.
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// Asks it to take what is left and end.
    pub fn stop(&self) {
        self.stop.stop();
    }

    /// Waits for its end. What it could not save is told by [`Raw::failure`]; what it did save is there all the same.
    ///
    /// # Errors
    /// Nothing of it can be had.
    pub fn join(self) -> anyhow::Result<Raw> {
        let Recorder { stop, thread, path, .. } = self;
        stop.stop();
        thread.join().map_err(|_| anyhow::anyhow!("the recorder of {} failed", path.display()))
    }
}

/// Pause before another attempt to write to an output that failed.
const RETRY: Duration = Duration::from_millis(500);

/// The life of a recorder.
///
/// When the output fails (a full disk) this is told once, and tried again until the end: somebody may make room. Nothing
/// that was taken from the kernel is dropped meanwhile; what the kernel cannot keep in its buffer it counts as lost.
fn record(
    reader: &mut CpuReader,
    sink: &mut Sink,
    how: &Settings,
    failure: &mut Option<anyhow::Error>,
) -> anyhow::Result<()> {
    let mut stopped = false;
    while !stopped {
        stopped = match how.poll {
            true => reader.wait(Some(Duration::ZERO))? == Wait::Stopped,
            false => reader.wait(None)? == Wait::Stopped,
        };
        if stopped {
            break;
        }
        let mut moved = false;
        loop {
            match reader.transfer(sink.file.as_fd()) {
                Ok(0) => break,
                Ok(n) => {
                    moved = true;
                    sink.wrote(n as u64)?;
                    if failure.take().is_some() {
                        log::warn!("{}: can be written again", sink.path.display());
                    }
                    if n < how.lull {
                        break;
                    }
                }
                Err(e) if e.is_output() => {
                    if failure.is_none() {
                        let e = anyhow::Error::from(e).context(format!("cannot write {}", sink.path.display()));
                        log::warn!("{e:#}; trying again until the recording ends");
                        *failure = Some(e);
                    }
                    // Not a wait for the kernel's buffer, which stays full.
                    if reader.wait_stopped(RETRY)? {
                        stopped = true;
                        break;
                    }
                }
                Err(e) => return Err(e.into()),
            }
        }
        if !moved && !how.poll && !how.pause.is_zero() {
            std::thread::sleep(how.pause);
        }
    }
    drain(reader, sink)?;
    *failure = None;
    Ok(())
}

/// Takes what is in the buffer now, the last, partly filled sub-buffer included.
fn drain(reader: &mut CpuReader, sink: &mut Sink) -> anyhow::Result<()> {
    // Tracing is off: what is there is bounded by the buffer. Should somebody have switched it on again, this ends all the same.
    let mut whole = true;
    for _ in 0..1 << 22 {
        let out = sink.file.as_fd();
        let n = match if whole { reader.transfer(out) } else { reader.flush(out, 1) } {
            Ok(n) => n,
            Err(e) if e.is_output() => {
                return Err(anyhow::Error::from(e).context(format!("cannot write {}", sink.path.display())));
            }
            Err(e) => return Err(e.into()),
        };
        match n {
            0 if whole => whole = false,
            0 => break,
            n => sink.wrote(n as u64)?,
        }
    }
    Ok(())
}

/// Takes what a CPU's buffer (or its snapshot) holds now, without a thread.
///
/// # Errors
/// As [`Recorder::start`].
pub fn extract(instance: &Instance, cpu: u32, path: &Path, snapshot: bool) -> anyhow::Result<Raw> {
    let mut reader = if snapshot { CpuReader::open_snapshot(instance, cpu)? } else { CpuReader::open(instance, cpu)? };
    let mut sink = Sink::new(path, None, reader.subbuf_size() as u64)?;
    drain(&mut reader, &mut sink)?;
    Ok(sink.finish(cpu, None))
}

/// The per-CPU file of a buffer: `OUTPUT.cpuN`, `OUTPUT.INSTANCE.cpuN`; with `--temp` in that directory.
pub fn raw_path(output: &Path, temp: Option<&Path>, instance: &str, cpu: u32) -> anyhow::Result<PathBuf> {
    let name = output.file_name().with_context(|| format!("{} is no file name", output.display()))?;
    let mut name = name.to_owned();
    if !instance.is_empty() {
        name.push(".");
        name.push(instance);
    }
    name.push(format!(".cpu{cpu}"));
    let dir = match temp {
        Some(dir) => {
            ensure!(dir.is_dir(), "{} is no directory", dir.display());
            dir
        }
        None => output.parent().unwrap_or(Path::new("")),
    };
    Ok(dir.join(name))
}

/// The file that describes the kernel of a recording that did not end: `OUTPUT.meta`, where the raw data lie.
pub fn description_path(output: &Path, temp: Option<&Path>) -> anyhow::Result<PathBuf> {
    let mut path = raw_path(output, temp, "", 0)?;
    path.set_extension("meta");
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn names_of_raw_files() {
        let path = |t: Option<&str>, i| raw_path(Path::new("/a/b.dat"), t.map(Path::new), i, 3).unwrap();
        assert_eq!(path(None, ""), Path::new("/a/b.dat.cpu3"));
        assert_eq!(path(None, "foo"), Path::new("/a/b.dat.foo.cpu3"));
        assert_eq!(path(Some("/tmp"), "foo"), Path::new("/tmp/b.dat.foo.cpu3"));
        assert_eq!(raw_path(Path::new("x.dat"), None, "", 0).unwrap(), Path::new("x.dat.cpu0"));
        assert!(raw_path(Path::new("/"), None, "", 0).is_err());
        assert_eq!(description_path(Path::new("/a/b.dat"), None).unwrap(), Path::new("/a/b.dat.meta"));
    }

    #[test]
    fn two_halves_in_turn() {
        let t = tempfile::tempdir().unwrap();
        let path = t.path().join("x.cpu0");
        let mut sink = Sink::new(&path, Some(20_000), 4096).unwrap();
        assert_eq!(sink.half, 8192);
        assert_eq!(std::fs::read_dir(t.path()).unwrap().count(), 1);
        for n in 1..=7u8 {
            sink.file.write_all(&[n; 4096]).unwrap();
            sink.wrote(4096).unwrap();
        }
        let raw = sink.finish(0, None);
        assert_eq!(raw.bytes, 3 * 4096);
        let mut seen = Vec::new();
        for source in raw.sources().unwrap() {
            for at in (0..source.len()).step_by(4096) {
                seen.push(source.read_vec("data", at, 4096).unwrap()[0]);
            }
        }
        assert_eq!(seen, [5, 6, 7]);
    }

    /// The terminal whose other side is gone gives EIO, as a disk that breaks does.
    #[test]
    fn an_output_that_breaks_is_told_and_nothing_is_dropped() {
        let t = tempfile::tempdir().unwrap();
        let path = t.path().join("x.cpu0");
        let (r, w) = nix::unistd::pipe().unwrap();
        let stop = StopHandle::new().unwrap();
        let mut reader = CpuReader::from_fd(r, 4096).unwrap().with_stop(stop.clone());
        let bytes: Vec<u8> = (0..5 * 4096u32).map(|n| (n / 7) as u8).collect();
        File::from(w).write_all(&bytes).unwrap();
        let mut sink = Sink::new(&path, None, 4096).unwrap();
        let terminal = nix::pty::openpty(None, None).unwrap();
        drop(terminal.master);
        let good = std::mem::replace(&mut sink.file, File::from(terminal.slave));
        let how =
            Settings { pause: Duration::ZERO, priority: None, poll: false, no_splice: false, max_bytes: None, lull: 0 };
        let mut failure = None;
        let stopped = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            stop.stop();
        });
        let e = record(&mut reader, &mut sink, &how, &mut failure).unwrap_err();
        stopped.join().unwrap();
        for e in [e, failure.unwrap()] {
            let told = format!("{e:#}");
            assert!(told.contains("x.cpu0") && told.contains("os error 5"), "{told}");
        }
        assert_eq!(sink.in_file, 0);
        // What was taken from the kernel is still there for an output that works.
        sink.file = good;
        drain(&mut reader, &mut sink).unwrap();
        assert_eq!(sink.in_file, bytes.len() as u64);
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
}
