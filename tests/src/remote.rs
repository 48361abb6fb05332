//! Doubles for the network tests: a listener (ours or the reference's) as a process, and a client that sends a fixture as a recorder
//! would, so that no kernel is needed.

use std::fs::File;
use std::io::{Cursor, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use trace_dat::compress::Codec;
use trace_dat::read::TraceFile;
use trace_dat::write::{FileHead, FileVersion, Metadata, Writer, buffer_heads, copy_cpu};
use tracecmd::net::client::{DataSink, LastWords, Options, Remote, Target};

/// A running listener.
#[derive(Debug)]
pub struct Listener {
    child: Child,
    /// Where clients connect.
    pub addr: SocketAddr,
    /// Directory of its files.
    pub dir: PathBuf,
    log: PathBuf,
}

impl Listener {
    /// Starts ours on a free port of 127.0.0.1 (or of `host`), with these options more.
    ///
    /// # Errors
    /// It does not start.
    pub fn ours(dir: &Path, host: &str, options: &[&str]) -> Result<Listener> {
        let log = dir.join("log");
        let said = dir.join("said");
        let mut command = Command::new(crate::programs::tracecmd());
        command.args(["listen", "-p", "0", "--bind", host, "-d"]).arg(dir).args(options);
        let child = command.stdin(Stdio::null()).stdout(File::create(&log)?).stderr(File::create(&said)?).spawn()?;
        let mut l = Listener { child, addr: ([127, 0, 0, 1], 0).into(), dir: dir.to_owned(), log };
        l.wait_for("the listener's address", || {
            let text = std::fs::read_to_string(&said).ok()?;
            text.lines().find_map(|l| l.strip_prefix("listening on ")?.parse().ok())
        })
        .map(|addr| l.addr = addr)
        .with_context(|| std::fs::read_to_string(&said).unwrap_or_default())?;
        Ok(l)
    }

    /// Starts the reference's.
    ///
    /// # Errors
    /// It does not start.
    pub fn reference(program: &Path, dir: &Path) -> Result<Listener> {
        let log = dir.join("log");
        // It has no way to take any free port: one that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new(program);
        command.args(["listen", "-p", &port.to_string(), "-d"]).arg(dir);
        let child = command.stdin(Stdio::null()).stdout(File::create(&log)?).stderr(Stdio::null()).spawn()?;
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let mut l = Listener { child, addr, dir: dir.to_owned(), log };
        // Looked up and not tried: it forks for each connection.
        let hex = format!(":{port:04X}");
        l.wait_for("the reference to listen", || {
            let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|f| std::fs::read_to_string(f).unwrap_or_default());
            let waits = |l: &str| {
                let mut words = l.split_whitespace().skip(1);
                words.next().is_some_and(|a| a.ends_with(&hex)) && words.nth(1) == Some("0A")
            };
            tables.iter().flat_map(|t| t.lines()).any(waits).then_some(())
        })?;
        Ok(l)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_up(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until `found` gives something.
    ///
    /// # Errors
    /// It does not within 30 seconds.
    pub fn wait_for<T>(&mut self, what: &str, mut found: impl FnMut() -> Option<T>) -> Result<T> {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(t) = found() {
                return Ok(t);
            }
            ensure!(self.is_up(), "the listener ended while waiting for {what}");
            if Instant::now() > end {
                bail!("waited too long for {what}; log:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for `count` finished files.
    ///
    /// # Errors
    /// They do not come.
    pub fn files(&mut self, count: usize) -> Result<Vec<PathBuf>> {
        let dir = self.dir.clone();
        self.wait_for("finished files", || Some(finished(&dir)).filter(|f| f.len() >= count))
    }

    /// Asks it to end, as Ctrl-C does, and gives its exit status.
    ///
    /// # Errors
    /// It does not end.
    pub fn end(mut self) -> Result<i32> {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT)?;
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait()? {
                return status.code().with_context(|| format!("{status}"));
            }
            ensure!(Instant::now() < end, "the listener does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Finished recordings in a directory.
pub fn finished(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
    let mut all: Vec<PathBuf> = entries
        .filter(|p| {
            let name = p.file_name().unwrap_or_default().to_string_lossy();
            name.ends_with(".dat") && !name.starts_with('.')
        })
        .collect();
    all.sort();
    all
}

/// A recording to be sent: metadata and whole sub-buffers of each CPU.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The file's metadata and its machine.
    pub meta: Metadata,
    /// Its start.
    pub head: FileHead,
    /// Sub-buffer size, in bytes.
    pub subbuf: u32,
    /// The data of each CPU.
    pub cpus: Vec<Vec<u8>>,
}

impl Recording {
    /// The top buffer of a file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of(path: &Path) -> Result<Recording> {
        let packed = TraceFile::open(path)?;
        let meta = Metadata::of(&packed)?;
        let mut head = FileHead::of(&packed);
        // Unpacked, so that sub-buffers lie in the file as they are.
        let plain = FileHead { codec: Codec::None, ..head };
        let mut writer = Writer::new(Cursor::new(Vec::new()), plain, &meta, buffer_heads(&packed)?)?;
        for (n, b) in packed.buffers().iter().enumerate() {
            for c in &b.cpus {
                writer.cpu(n, c.cpu)?;
                copy_cpu(&mut writer, &packed, b, c, &mut |_| {})?;
            }
        }
        let file = trace_dat::read::OpenOptions::new().open_bytes(path, writer.finish()?.0.into_inner())?;
        let top = file.buffers().first().context("no buffer")?;
        let mut cpus = vec![Vec::new(); meta.cpus as usize];
        for c in &top.cpus {
            cpus[c.cpu as usize] = file.source().read_vec("data", c.offset, c.size)?;
        }
        if head.version == FileVersion::V6 {
            head.codec = Codec::None;
        }
        Ok(Recording { meta, head, subbuf: u32::try_from(top.subbuf_size)?, cpus })
    }

    /// What a recorder sends before its data.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn metadata(&self, protocol: u8) -> Result<Vec<u8>> {
        let mut head = self.head;
        if protocol != 1 {
            return Ok(Writer::new(Cursor::new(Vec::new()), head, &self.meta, Vec::new())?.finish()?.0.into_inner());
        }
        (head.version, head.codec) = (FileVersion::V6, Codec::None);
        tracecmd::net::record::head_v1(head, &self.meta)
    }

    /// Sends everything to `to` and ends. `pace`: pause after each sub-buffer.
    ///
    /// # Errors
    /// The listener does not take it.
    pub fn send(&self, to: SocketAddr, how: &How) -> Result<u8> {
        let link = self.start(to, how)?;
        let version = link.0.version();
        link.finish(self, how)?;
        Ok(version)
    }

    /// Connects and sends the metadata.
    ///
    /// # Errors
    /// The listener does not take it.
    pub fn start(&self, to: SocketAddr, how: &How) -> Result<Link> {
        let options = Options {
            target: Target::Ip { host: how.name.clone().unwrap_or_else(|| to.ip().to_string()), port: to.port() },
            tcp: how.tcp,
            tls: how.tls.clone(),
            timeout: Some(Duration::from_secs(10)),
            stall: Some(Duration::from_secs(10)),
            only_v1: how.only_v1,
        };
        let mut link = Remote::connect(options, self.cpus.len() as u32, self.subbuf)?;
        link.metadata(&self.metadata(link.version())?)?;
        let sinks = (0..self.cpus.len() as u32).map(|c| Ok(link.data(c)?)).collect::<Result<_>>()?;
        Ok(Link(link, sinks))
    }
}

/// How to send.
#[derive(Clone, Debug, Default)]
pub struct How {
    /// Data over TCP.
    pub tcp: bool,
    /// Inside TLS.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Name of the listener instead of its address.
    pub name: Option<String>,
    /// Pause after each sub-buffer.
    pub pace: Duration,
    /// By protocol V1, whatever the listener knows.
    pub only_v1: bool,
}

/// A connection that has sent its metadata.
#[derive(Debug)]
pub struct Link(pub Remote, pub Vec<DataSink>);

impl Link {
    /// Sends all data, says the last words and ends.
    ///
    /// # Errors
    /// The listener does not take it.
    pub fn finish(mut self, what: &Recording, how: &How) -> Result<()> {
        let mut sent = vec![0; what.cpus.len()];
        // In turn, as CPUs are at work at the same time.
        let size = what.subbuf as usize;
        for n in 0..what.cpus.iter().map(|c| c.len() / size).max().unwrap_or(0) {
            for ((data, sink), sent) in what.cpus.iter().zip(&mut self.1).zip(&mut sent) {
                let Some(subbuf) = data.get(n * size..(n + 1) * size) else { continue };
                sink.write_all(subbuf)?;
                *sent += 1;
                if !how.pace.is_zero() {
                    std::thread::sleep(how.pace);
                }
            }
        }
        self.1.iter_mut().for_each(DataSink::finish);
        self.0.close(&LastWords { sent, ..LastWords::default() })?;
        Ok(())
    }
}

/// Largest memory of a process so far, in bytes (`VmHWM`).
pub fn peak_memory(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Reads until the other side ends; nothing of it is kept.
pub fn read_out(from: &mut impl Read) {
    let mut buf = [0; 4096];
    while matches!(from.read(&mut buf), Ok(n) if n > 0) {}
}
