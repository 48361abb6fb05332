//! `record -N` and `record -V`: the data go to a listener instead of files.
//!
//! Each buffer has a connection and, on the listener's side, a file of its own. A recorder sends whole sub-buffers; when
//! the listener goes away, the recorder goes on into a file here, beginning with the sub-buffer that was not sent, and at
//! the end these files become a recording of their own.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{Cursor, Read, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::{EfdFlags, EventFd},
};
use trace_dat::{
    LongSize,
    compress::Codec,
    write::{FileHead, FileVersion, Metadata, Writer},
};
use tracefs::{CpuReader, StopHandle, Wait};

use super::{
    client::{DataSink, LastWords, Options, Remote, Target},
    tls::{self, Identity},
};
use crate::{
    cmd::{extract, record},
    plan::Plan,
    recorder::{self, Raw, Settings},
    session::{Active, Session},
    signal::Signals,
    stats,
    tracefile::{self, BufferFacts, Extras, HOST_ENDIAN},
};

/// Exit status of a recording whose listener went away: the data are complete, but not all there.
pub const LINK_BROKE: u8 = 3;

/// Longest wait for the listener's answers.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A listener that takes no data for so long has gone away.
const STALL: Duration = Duration::from_secs(10);

/// Datagrams have no flow control. After so many bytes at once the receiver, whose socket takes some 200 KiB by default, gets a
/// moment to read them: at most 300 MiB a second for each CPU.
const BURST: usize = 32 << 10;
const BREATH: Duration = Duration::from_micros(200);

/// How to reach the listener of the plan.
///
/// # Errors
/// An address or a certificate that cannot be used.
pub fn options(plan: &Plan) -> Result<Options> {
    let remote = plan.remote().context("no listener was named")?;
    let target = if remote.vsock { Target::vsock(&remote.address) } else { remote.address.parse() };
    let target = target.map_err(|e| anyhow::anyhow!("-{} {e}", if remote.vsock { "V" } else { "N" }))?;
    let tls = match &plan.tls {
        None => None,
        Some(t) => {
            let identity = match (&t.cert, &t.key) {
                (Some(cert), Some(key)) => Some(Identity { cert: cert.clone(), key: key.clone() }),
                (None, None) => None,
                _ => bail!("a certificate of our own needs both --tls-cert and --tls-key"),
            };
            Some(tls::client(t.ca.as_deref(), identity.as_ref())?)
        }
    };
    let limit = |t| (!plan.no_timeout).then_some(t);
    Ok(Options { target, tcp: plan.tcp(), tls, timeout: limit(TIMEOUT), stall: limit(STALL), only_v1: plan.only_v1 })
}

/// The whole of a recording for a listener.
///
/// # Errors
/// The listener cannot be reached at the start, or the kernel refuses what was asked for. A listener that goes away later
/// is no error: see [`LINK_BROKE`].
pub fn record(plan: &Plan, background: Option<crate::sys::Background>) -> Result<ExitCode> {
    let signals = Signals::block()?;
    let command_stdout = if plan.stderr { Some(record::stdout_to_stderr()?) } else { None };
    let mut session = Session::open(plan)?;
    let options = options(plan)?;
    session.configure(plan)?;
    let date_us = if plan.date { extract::measured(&session, &session.clock()) } else { None };
    let trace_id = plan.top.then(record::trace_id);
    // All that takes time comes before the first word: a listener waits five seconds for the next one.
    let mut metas = Vec::new();
    for a in &session.buffers {
        // As a local file would have it at this moment; the counts come later.
        let mut facts = BufferFacts::read(&a.instance, false)?;
        facts.stats.clear();
        facts.name.clear();
        let extras = Extras { date_us, trace_id, ..Extras::default() };
        metas.push(tracefile::metadata(session.root(), plan, &[facts], &extras)?);
    }
    let mut links = Vec::new();
    for (a, meta) in session.buffers.iter().zip(&metas) {
        let cpus = a.instance.cpus()?.last().map_or(1, |c| c + 1);
        let subbuf = u32::try_from(a.instance.subbuf_size()?)?;
        let mut link = Remote::connect(options.clone(), cpus, subbuf)?;
        let bytes = head(plan, meta, link.version(), subbuf)?;
        link.metadata(&bytes)?;
        links.push(link);
    }
    drop(metas);
    let mut senders = Vec::new();
    let mut watches = Vec::new();
    for (a, link) in session.buffers.iter().zip(&links) {
        let sinks = a.instance.cpus()?.into_iter().map(|cpu| link.data(cpu)).collect::<Result<_, _>>()?;
        let broken = Broken::default();
        watches.push(Watch::start(link, broken.clone())?);
        senders.push(start(plan, a, sinks, broken, true)?);
    }
    if !plan.no_filter {
        session.leave_out(&senders.iter().flatten().map(|s| s.tid).collect::<Vec<_>>());
    }
    let pid_file = background.is_some().then(record::PidFile::create).transpose()?;
    let outcome = record::trace(plan, &session, &signals, command_stdout, background)?;
    let status = outcome.status;
    let stopped = session.switch_off();
    senders.iter().flatten().for_each(|s| s.stop.stop());
    let facts = session.buffers.iter().map(|a| BufferFacts::read(&a.instance, false)).collect::<Result<Vec<_>>>()?;
    let mut ends = Vec::new();
    for of_buffer in senders {
        ends.push(of_buffer.into_iter().map(Sender::join).collect::<Result<Vec<_>>>()?);
    }
    stopped?;
    let broke = watches.into_iter().map(Watch::end).fold(false, |all, broke| all | broke);
    let extras = Extras { date_us, trace_id, ..Extras::default() };
    let meta = tracefile::metadata(session.root(), plan, &facts, &extras)?;
    let sizes: Vec<_> = session.buffers.iter().map(|a| stats::size_kb(&a.instance)).collect();
    if plan.keep {
        session.keep();
    } else {
        session.end()?;
    }
    drop(pid_file);
    let mut unsaid = None;
    for ((link, ends), facts) in links.into_iter().zip(&ends).zip(&facts) {
        if let Err(e) = link.close(&last_words(ends, facts, &meta)) {
            unsaid = Some(e).filter(|_| !broke);
        }
    }
    if !plan.quiet {
        let _ = stats::print_lost(&facts, &mut std::io::stdout().lock());
        let _ = stats::print_advice(&facts, &sizes, &mut std::io::stderr().lock());
    }
    if broke {
        kept_here(plan, &meta, &facts, ends)?;
        return Ok(ExitCode::from(LINK_BROKE));
    }
    if let Some(e) = unsaid {
        return Err(anyhow::Error::new(e).context("the listener may lack the end of the recording"));
    }
    Ok(status.filter(|_| plan.exit_status).map_or(ExitCode::SUCCESS, ExitCode::from))
}

/// What a file has before its data.
pub(super) fn head(plan: &Plan, meta: &Metadata, protocol: u8, subbuf: u32) -> Result<Vec<u8>> {
    let old = protocol == 1 || plan.file_version == Some(6);
    let head = FileHead {
        version: if old { FileVersion::V6 } else { FileVersion::V7 },
        endian: HOST_ENDIAN,
        long_size: if size_of::<usize>() == 4 { LongSize::Four } else { LongSize::Eight },
        page_size: subbuf,
        codec: if old { Codec::None } else { tracefile::codec(plan) },
    };
    if protocol != 1 {
        let (out, _) = Writer::new(Cursor::new(Vec::new()), head, meta, Vec::new())?.finish()?;
        return Ok(out.into_inner());
    }
    head_v1(head, meta)
}

/// What a recorder of protocol V1 sends: a file of version 6 up to its command lines.
///
/// # Errors
/// The metadata cannot be written.
pub fn head_v1(head: FileHead, meta: &Metadata) -> Result<Vec<u8>> {
    // The listener writes CPU count and options itself.
    let mut meta = meta.clone();
    meta.options.clear();
    let (out, _) = Writer::new(Cursor::new(Vec::new()), head, &meta, Vec::new())?.finish()?;
    let mut bytes = out.into_inner();
    // CPU count, title of the options, end of the options.
    bytes.truncate(bytes.len().saturating_sub(4 + 10 + 2));
    Ok(bytes)
}

fn last_words(ends: &[End], facts: &BufferFacts, meta: &Metadata) -> LastWords {
    let cpus = ends.iter().map(|e| e.cpu + 1).max().unwrap_or(0) as usize;
    let mut sent = vec![0; cpus];
    for e in ends {
        if let Some(slot) = sent.get_mut(e.cpu as usize) {
            *slot = e.sent;
        }
    }
    let stats = facts.stats.iter().map(|(cpu, text)| {
        let mut data = format!("CPU: {cpu}\n{text}").into_bytes();
        data.push(0);
        (trace_dat::write::option::id::CPUSTAT, data)
    });
    LastWords { sent, cmdlines: meta.cmdlines_text().unwrap_or_default(), options: stats.collect() }
}

/// The link broke: what was kept here becomes a file.
fn kept_here(plan: &Plan, meta: &Metadata, facts: &[BufferFacts], ends: Vec<Vec<End>>) -> Result<()> {
    let mut data: Vec<Vec<Raw>> = ends.into_iter().map(|b| b.into_iter().filter_map(|e| e.kept).collect()).collect();
    let mut err = std::io::stderr().lock();
    if data.iter().all(Vec::is_empty) {
        let _ = writeln!(err, "The listener went away; nothing was recorded after that");
        return Ok(());
    }
    let output = plan.output_path();
    let summary = tracefile::write(&output, plan, meta, facts, &mut data).with_context(|| {
        let names: Vec<_> = data.iter().flatten().map(|r| r.path.display().to_string()).collect();
        format!("the raw data remain in {}; see the command restore", names.join(" "))
    })?;
    data.iter().flatten().for_each(Raw::remove);
    let _ = writeln!(
        err,
        "The listener went away during the recording: what came after that is in {}; what was sent before is there",
        output.display()
    );
    if !plan.quiet {
        let _ = tracefile::print_offsets(&summary, &mut err);
    }
    Ok(())
}

/// Whether the connection of a buffer is broken: all its senders go on together.
#[derive(Clone, Debug, Default)]
pub(super) struct Broken(Arc<AtomicBool>);

impl Broken {
    fn is(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Notes it; whoever finds out first says so.
    fn set(&self, why: &str, goes_on: Option<&std::path::Path>) {
        if !self.0.swap(true, Ordering::Relaxed)
            && let Some(path) = goes_on
        {
            let path = path.display();
            let _ = writeln!(std::io::stderr(), "The listener is gone ({why}); recording goes on into {path}");
        }
    }
}

/// Watches a listener's control connection: it is silent during a recording, so whatever happens there is its end.
struct Watch {
    broken: Broken,
    end: Arc<EventFd>,
    thread: JoinHandle<()>,
}

impl Watch {
    fn start(link: &Remote, broken: Broken) -> Result<Watch> {
        let control = link.as_fd().try_clone_to_owned()?;
        let end = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?);
        let (told, found) = (Arc::clone(&end), broken.clone());
        let thread = std::thread::Builder::new().name("listener".into()).spawn(move || {
            // Bytes that come are no end; only that nothing can come any more.
            let hangup = PollFlags::from_bits_retain(libc::POLLRDHUP);
            let mut fds = [PollFd::new(control.as_fd(), hangup), PollFd::new(told.as_fd(), PollFlags::POLLIN)];
            loop {
                match poll(&mut fds, PollTimeout::NONE) {
                    Err(Errno::EINTR) => continue,
                    Err(_) => return,
                    Ok(_) => {}
                }
                if fds[1].any() == Some(true) {
                    return;
                }
                if fds[0].revents().is_none_or(|r| !r.is_empty()) {
                    return found.set("it closed the connection", Some("files here".as_ref()));
                }
            }
        })?;
        Ok(Watch { broken, end, thread })
    }

    /// Ends the watch; whether the connection broke.
    fn end(self) -> bool {
        let _ = self.end.write(1);
        let _ = self.thread.join();
        self.broken.is()
    }
}

/// A running sender of one CPU.
pub(super) struct Sender {
    pub(super) stop: StopHandle,
    thread: JoinHandle<Result<End>>,
    pub(super) tid: i32,
}

/// What a sender did.
pub(super) struct End {
    cpu: u32,
    /// Sub-buffers sent.
    sent: u64,
    /// What was kept here since the link broke.
    kept: Option<Raw>,
}

impl Sender {
    pub(super) fn join(self) -> Result<End> {
        self.stop.stop();
        self.thread.join().map_err(|_| anyhow::anyhow!("a recorder failed"))?
    }
}

/// Starts the senders of a buffer, one for each CPU; `sinks` by CPU. With `keep` they go on into files here when the
/// connection breaks; else what they read then is dropped.
fn start(plan: &Plan, a: &Active, sinks: Vec<DataSink>, broken: Broken, keep: bool) -> Result<Vec<Sender>> {
    let (senders, give) = prepare(plan, a, broken, keep)?;
    give.into_iter().zip(sinks).for_each(|(give, sink)| drop(give.send(sink)));
    Ok(senders)
}

/// Makes the senders of a buffer, one for each CPU, which wait for what they are to write to.
pub(super) fn prepare(
    plan: &Plan,
    a: &Active,
    broken: Broken,
    keep: bool,
) -> Result<(Vec<Sender>, Vec<mpsc::Sender<DataSink>>)> {
    let how = Settings {
        pause: Duration::from_micros(plan.sleep_us.unwrap_or(1000)),
        priority: plan.priority,
        poll: plan.poll,
        no_splice: plan.no_splice,
        lull: 0,
        max_bytes: None,
    };
    let output = plan.output_path();
    let (mut list, mut give) = (Vec::new(), Vec::new());
    for cpu in a.instance.cpus()? {
        let stop = StopHandle::new()?;
        let reader = CpuReader::open(&a.instance, cpu)?.with_stop(stop.clone());
        let mut sink = NetSink {
            data: None,
            subbuf: reader.subbuf_size(),
            sent: 0,
            path: recorder::raw_path(&output, plan.temp.as_deref(), a.name(), cpu)?,
            on_the_way: VecDeque::new(),
            keep,
            kept: None,
            kept_bytes: 0,
            broken: broken.clone(),
        };
        ensure!(sink.subbuf > 0, "a sub-buffer without bytes");
        let how = how.clone();
        let (ready, is_ready) = mpsc::channel();
        let (given, get) = mpsc::channel();
        let thread = std::thread::Builder::new().name(format!("recorder {cpu}")).spawn(move || {
            let priority = how.priority.map_or(Ok(()), crate::sys::set_fifo_priority);
            let _ = ready.send(nix::unistd::gettid().as_raw());
            priority.context("cannot set the priority")?;
            // Whoever started it may give up before there is a connection.
            let Ok(data) = get.recv() else { return Ok(End { cpu, sent: 0, kept: None }) };
            sink.data = Some(data);
            send(reader, sink, cpu, &how)
        })?;
        let tid = is_ready.recv().context("a recorder ended at once")?;
        list.push(Sender { stop, thread, tid });
        give.push(given);
    }
    Ok((list, give))
}

/// Where a sender's sub-buffers go: the listener, or a file here once that is gone.
struct NetSink {
    data: Option<DataSink>,
    subbuf: usize,
    /// Sub-buffers written to the listener.
    sent: u64,
    /// The last bytes written, as far as the listener's machine may not have them, from the start of a sub-buffer on.
    on_the_way: VecDeque<u8>,
    path: PathBuf,
    keep: bool,
    kept: Option<File>,
    kept_bytes: u64,
    broken: Broken,
}

impl NetSink {
    /// Takes whole sub-buffers.
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        if self.broken.is() && self.data.is_some() {
            self.give_up()?;
        }
        let Some(data) = &mut self.data else { return self.keep(bytes) };
        let piece = if data.is_datagram() { self.subbuf } else { bytes.len() };
        let (mut done, mut result) = (0, Ok(()));
        while let Some(rest) = bytes.get(done..).filter(|r| !r.is_empty() && result.is_ok()) {
            match data.write(rest.get(..piece).unwrap_or(rest)) {
                Ok(0) => result = Err(std::io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                    result = Err(std::io::ErrorKind::TimedOut.into())
                }
                Err(e) => result = Err(e),
            }
        }
        if data.is_datagram() && bytes.len() >= BURST && result.is_ok() {
            std::thread::sleep(BREATH);
        }
        // A sub-buffer of which a part went is not there.
        let (whole, left) = bytes.split_at(done - done % self.subbuf);
        self.sent += (whole.len() / self.subbuf) as u64;
        if let Some(n) = data.on_the_way() {
            self.on_the_way.extend(whole);
            let arrived = self.on_the_way.len().saturating_sub(n);
            self.on_the_way.drain(..arrived - arrived % self.subbuf);
        }
        let Err(e) = result else { return Ok(()) };
        self.broken.set(&e.to_string(), self.keep.then_some(&self.path));
        self.give_up()?;
        self.keep(left)
    }

    /// The listener is gone: what was on the way to it is kept.
    fn give_up(&mut self) -> Result<()> {
        if let Some(n) = self.data.take().and_then(|d| d.on_the_way()) {
            let arrived = self.on_the_way.len().saturating_sub(n);
            self.on_the_way.drain(..arrived - arrived % self.subbuf);
        }
        let last = std::mem::take(&mut self.on_the_way);
        self.sent -= (last.len() / self.subbuf) as u64;
        self.keep(last.as_slices().0)?;
        self.keep(last.as_slices().1)
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() || !self.keep {
            return Ok(());
        }
        if self.kept.is_none() {
            let new =
                OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o644).open(&self.path);
            self.kept = Some(new.with_context(|| format!("cannot create {}", self.path.display()))?);
        }
        if let Some(file) = &mut self.kept {
            file.write_all(bytes).with_context(|| format!("cannot write {}", self.path.display()))?;
            self.kept_bytes += bytes.len() as u64;
        }
        Ok(())
    }

    fn end(mut self, cpu: u32) -> Result<End> {
        if self.broken.is() && self.data.is_some() {
            self.give_up()?;
        }
        if let Some(data) = &mut self.data {
            data.finish();
        }
        let kept = self.kept.map(|file| Raw::of(self.path, cpu, self.kept_bytes, file));
        Ok(End { cpu, sent: self.sent, kept })
    }
}

/// The life of a sender.
fn send(mut reader: CpuReader, mut sink: NetSink, cpu: u32, how: &Settings) -> Result<End> {
    let (from, to) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    let mut from = File::from(from);
    let mut buf = vec![0; sink.subbuf * (1usize << 16).div_ceil(sink.subbuf)];
    let mut splice = !how.no_splice;
    loop {
        let limit = how.poll.then_some(Duration::ZERO);
        if reader.wait(limit)? == Wait::Stopped {
            break;
        }
        let mut moved = false;
        while splice {
            match reader.transfer_to_pipe(to.as_fd()) {
                Ok(0) => break,
                Ok(mut n) => {
                    moved = true;
                    while n > 0 {
                        let most = n.min(buf.len());
                        let (now, _) = buf.split_at_mut(most);
                        from.read_exact(now)?;
                        sink.put(now)?;
                        n -= now.len();
                    }
                }
                Err(tracefs::Error::Io { source, .. }) if source.raw_os_error() == Some(Errno::EINVAL as i32) => {
                    splice = false;
                }
                Err(e) => return Err(e.into()),
            }
        }
        // Without splice one sub-buffer at a time.
        while let Some(bytes) = if splice { None } else { reader.read()? } {
            moved = true;
            // A partly filled sub-buffer means that the reader has caught up with the writer.
            let full = is_nearly_full(bytes);
            sink.put(bytes)?;
            if !full {
                break;
            }
        }
        if !moved && !how.poll && !how.pause.is_zero() {
            std::thread::sleep(how.pause);
        }
    }
    // Tracing is off: what is left is bounded by the buffer.
    for _ in 0..1 << 22 {
        match reader.read()? {
            Some(bytes) => sink.put(bytes)?,
            None => break,
        }
    }
    sink.end(cpu)
}

/// Whether so much of a sub-buffer is used that the kernel has gone on to the next one.
fn is_nearly_full(subbuf: &[u8]) -> bool {
    let word = subbuf.get(8..12).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes);
    (word & 0x07ff_ffff) as usize > subbuf.len() / 2
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    const SUBBUF: usize = 4096;

    /// Sub-buffers that differ: each is filled with its number.
    fn subbufs(numbers: std::ops::Range<u32>) -> Vec<u8> {
        numbers.flat_map(|n| n.to_le_bytes().repeat(SUBBUF / 4)).collect()
    }

    fn sink(data: DataSink, path: PathBuf, keep: bool) -> NetSink {
        NetSink {
            data: Some(data),
            subbuf: SUBBUF,
            sent: 0,
            path,
            on_the_way: VecDeque::new(),
            keep,
            kept: None,
            kept_bytes: 0,
            broken: Broken::default(),
        }
    }

    fn connected() -> (DataSink, TcpStream) {
        let l = TcpListener::bind("127.0.0.1:0").unwrap();
        let s = TcpStream::connect(l.local_addr().unwrap()).unwrap();
        s.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        (DataSink::Stream(s.into()), l.accept().unwrap().0)
    }

    /// Numbers of the whole sub-buffers of a stream; each must be filled with its own.
    fn numbers(bytes: &[u8]) -> Vec<u32> {
        let number = |b: &[u8]| u32::from_le_bytes(b[..4].try_into().unwrap());
        let whole = bytes.chunks_exact(SUBBUF);
        whole.inspect(|b| assert_eq!(*b, subbufs(number(b)..number(b) + 1))).map(number).collect()
    }

    #[test]
    fn what_a_closed_connection_did_not_take_is_kept_from_the_start_of_a_sub_buffer() {
        let dir = tempfile::tempdir().unwrap();
        let (data, mut peer) = connected();
        let path = dir.path().join("cpu0");
        let mut s = sink(data, path.clone(), true);
        s.put(&subbufs(0..5)).unwrap();
        let mut got = vec![0; 5 * SUBBUF];
        peer.read_exact(&mut got).unwrap();
        drop(peer);
        // The first one after the end may still be taken by the kernel.
        for n in 5..40 {
            s.put(&subbufs(n..n + 1)).unwrap();
        }
        assert!(s.broken.is());
        let end = s.end(0).unwrap();
        let kept = std::fs::read(&path).unwrap();
        assert_eq!(kept.len() as u64, end.kept.unwrap().bytes);
        let all: Vec<u32> = numbers(&got).into_iter().chain(numbers(&kept)).collect();
        assert!(all.is_sorted() && all.last() == Some(&39), "{all:?}");
        // What is missing is what the kernel had taken for a connection that it found closed a moment later.
        assert!(all.len() >= 39 && end.sent as usize + numbers(&kept).len() == 40, "{all:?}, {} sent", end.sent);
    }

    #[test]
    fn what_a_stuck_connection_did_not_take_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (data, mut peer) = connected();
        let path = dir.path().join("cpu0");
        let mut s = sink(data, path.clone(), true);
        // Nobody reads: the buffers of both ends fill up, then the time is over.
        for n in 0..2500 {
            s.put(&subbufs(n * 4..n * 4 + 4)).unwrap();
        }
        assert!(s.broken.is() && s.data.is_none());
        let end = s.end(0).unwrap();
        let mut got = Vec::new();
        peer.read_to_end(&mut got).unwrap();
        let (there, here) = (numbers(&got), numbers(&std::fs::read(&path).unwrap()));
        let mut all = there.clone();
        all.extend(&here);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all, (0..10_000).collect::<Vec<_>>(), "no sub-buffer is in neither");
        assert!(there.len() as u64 >= end.sent, "{} there, {} counted", there.len(), end.sent);
    }

    #[test]
    fn datagrams_nobody_takes_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(peer.local_addr().unwrap()).unwrap();
        let path = dir.path().join("cpu0");
        let mut s = sink(DataSink::Udp(socket), path.clone(), true);
        s.put(&subbufs(0..3)).unwrap();
        let mut buf = vec![0; 1 << 16];
        for n in 0..3 {
            let len = peer.recv(&mut buf).unwrap();
            assert_eq!(buf[..len], subbufs(n..n + 1), "one datagram each");
        }
        drop(peer);
        // The answer to the first one tells the second that nobody is there.
        s.put(&subbufs(3..10)).unwrap();
        assert_eq!(s.end(0).unwrap().sent, 4);
        assert_eq!(numbers(&std::fs::read(&path).unwrap()), (4..10).collect::<Vec<_>>());
    }

    #[test]
    fn an_agent_keeps_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (data, peer) = connected();
        let path = dir.path().join("cpu0");
        let mut s = sink(data, path.clone(), false);
        drop(peer);
        for n in 0..20 {
            s.put(&subbufs(n..n + 1)).unwrap();
        }
        assert!(s.end(0).unwrap().kept.is_none() && !path.exists());
    }
}
