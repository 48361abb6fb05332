//! The host's side of `record -A`: guests are recorded together with this machine, each into a file of its own.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{Read, Write},
    net::ToSocketAddrs,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, SockAddr, Socket, Type};
use trace_dat::{
    compress::Codec,
    read::TraceFile,
    source::read_full,
    write::{BufferHead, FileHead, FileVersion, Metadata, RawOption, Summary, Writer},
};
use tracefs::TraceFs;

use super::{
    addr::safe_name,
    channel::Channel,
    conn::prepare,
    fifo::{self, HostEnd},
    limits::Limits,
    msg::{AGENT_PORT, Msg, TraceRequest},
    tsync::{HostSync, Protocol, Sampling, serve_guest},
    vm::Machine,
};
use crate::{
    plan::{Guest, Plan},
    tracefile::HOST_ENDIAN,
};

/// Whether host and guests should count the TSC's ticks: no clock is asked for, and KVM shows how far each guest's are from ours.
pub fn should_use_tsc(plan: &Plan, root: &TraceFs) -> bool {
    let on_kvm = |g: &Guest| {
        let Ok(Named { address: Address::Vsock { cid, .. }, .. }) = named(g, 0, libvirt_cid) else { return false };
        !g.proxy && !g.own_clock && Machine::find(cid).is_some_and(|m| m.shows_tsc())
    };
    !plan.guests.is_empty()
        && plan.buffers.iter().all(|b| b.clock.is_none())
        && plan.tsync_interval_ms.is_none_or(|ms| ms >= 0)
        && root.top().clocks().is_ok_and(|c| c.iter().any(|c| c == "x86-tsc"))
        && plan.guests.iter().all(on_kvm)
}

/// Where an agent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// vsock context and port.
    Vsock {
        /// The context id.
        cid: u32,
        /// The port.
        port: u32,
    },
    /// Host name or address, and port.
    Tcp {
        /// The host.
        host: String,
        /// The port.
        port: u16,
    },
}

/// A guest's name and where its agent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The name: part of the file's name.
    pub name: String,
    /// Its agent.
    pub address: Address,
}

/// Finds out what the words of `-A` mean: `NAME`, `CID`, `NAME@CID`, each perhaps with `:PORT`, or `HOST:PORT` for TCP.
///
/// `number` names guests without a name. `find_cid` looks a name up among the virtual machines.
///
/// # Errors
/// No such guest, or a number that is none.
pub fn named(guest: &Guest, number: usize, find_cid: impl Fn(&str) -> Option<u32>) -> Result<Named> {
    let text = guest.target.as_str();
    let (rest, port) = match text.rsplit_once(':') {
        Some((rest, port)) => (
            rest.trim_start_matches('[').trim_end_matches(']'),
            Some(port.parse::<u32>().with_context(|| format!("-A {text}: no port"))?),
        ),
        None => (text, None),
    };
    let vsock_port = port.unwrap_or(AGENT_PORT);
    let unnamed = || format!("unnamed-{number}");
    let (name, address) = if let Some((name, cid)) = rest.split_once('@') {
        let cid = cid.parse().with_context(|| format!("-A {text}: {cid:?} is no context id"))?;
        (name.to_owned(), Address::Vsock { cid, port: vsock_port })
    } else if let Ok(cid) = rest.parse() {
        (rest.to_owned(), Address::Vsock { cid, port: vsock_port })
    } else if let Some(cid) = find_cid(rest) {
        (rest.to_owned(), Address::Vsock { cid, port: vsock_port })
    } else if let Some(port) = port
        && (rest, 0).to_socket_addrs().is_ok()
    {
        let port = u16::try_from(port).with_context(|| format!("-A {text}: TCP ports end at 65535"))?;
        (rest.to_owned(), Address::Tcp { host: rest.to_owned(), port })
    } else {
        bail!("guest {rest} not found");
    };
    let name = guest.name.clone().filter(|n| !n.is_empty()).unwrap_or(name);
    Ok(Named { name: if name.is_empty() { unnamed() } else { name }, address })
}

/// The context id of a virtual machine of libvirt, asked from virsh if that is there.
pub fn libvirt_cid(name: &str) -> Option<u32> {
    let ask = |args: &[&str]| {
        let out = Command::new("virsh").args(args).output().ok().filter(|o| o.status.success())?;
        String::from_utf8(out.stdout).ok()
    };
    ask(&["list", "--name"])?.lines().find(|l| l.trim() == name)?;
    let xml = ask(&["dumpxml", name])?;
    let (_, cid) = xml.split_once("<cid")?;
    let value = cid.split("address='").nth(1)?.split('\'').next()?;
    value.parse().ok()
}

/// The file of a guest: its name stands before the last extension, `trace-GUEST.dat`.
pub fn file_name(output: &Path, guest: &str) -> PathBuf {
    let guest = safe_name(guest);
    let mut name = output.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{guest}"));
    if let Some(extension) = output.extension() {
        name.push(".");
        name.push(extension);
    }
    output.with_file_name(name)
}

/// Data of one CPU that arrive.
struct Receiving {
    path: PathBuf,
    thread: JoinHandle<Result<u64>>,
    /// To end it when the guest is gone.
    socket: Option<Socket>,
}

/// Who measures the difference of the clocks.
enum Sync {
    /// We do: the other side is a guest.
    Host(HostSync),
    /// A proxy does: we are its guest.
    Guest(JoinHandle<()>),
}

/// A guest that is being recorded.
pub struct Session {
    name: String,
    trace_id: u64,
    proxy: bool,
    control: Channel,
    sync: Option<Sync>,
    metadata: Vec<u8>,
    data: Vec<Receiving>,
    /// All has been sent: what comes out of FIFOs ends soon.
    ended: Arc<AtomicBool>,
    subbuf: u32,
    over_tcp: bool,
    own_clock: bool,
    machine: Option<Machine>,
    output: PathBuf,
}

/// What a guest's recording left.
pub struct Finished {
    /// Its file.
    pub path: PathBuf,
    /// What is in it.
    pub summary: Summary,
    /// Options for the file of this machine, from a proxy.
    pub options: Vec<RawOption>,
}

/// The session of this machine, as guests need to know it.
pub struct Host<'a> {
    /// The tracing directory.
    pub root: &'a TraceFs,
    /// The clock of the recording.
    pub clock: &'a str,
    /// Identifies the session.
    pub trace_id: u64,
}

fn connect(address: &Address) -> Result<Socket> {
    match address {
        Address::Vsock { cid, port } => {
            let s = Socket::new(Domain::VSOCK, Type::STREAM, None)?;
            s.connect(&SockAddr::vsock(*cid, *port))
                .with_context(|| format!("cannot connect to the agent at @{cid}:{port}"))?;
            Ok(s)
        }
        Address::Tcp { host, port } => {
            let mut last = None;
            for a in (host.as_str(), *port).to_socket_addrs()? {
                let s = Socket::new(Domain::for_address(a), Type::STREAM, None)?;
                match s.connect_timeout(&a.into(), Duration::from_secs(10)) {
                    Ok(()) => {
                        prepare(&s);
                        return Ok(s);
                    }
                    Err(e) => last = Some(e),
                }
            }
            let e = last.context("no address")?;
            Err(e).with_context(|| format!("cannot connect to the agent at {host}:{port}"))
        }
    }
}

impl Address {
    fn with_port(&self, new: u32) -> Result<Address> {
        Ok(match self {
            Address::Vsock { cid, .. } => Address::Vsock { cid: *cid, port: new },
            Address::Tcp { host, .. } => Address::Tcp {
                host: host.clone(),
                port: u16::try_from(new).context("the agent names a port beyond 65535")?,
            },
        })
    }
}

impl Session {
    /// Asks a guest's agent to record, synchronises time, and starts to take its data.
    ///
    /// # Errors
    /// The agent cannot be reached, refuses, or does not follow the protocol.
    pub fn start(plan: &Plan, guest: &Guest, number: usize, host: &Host<'_>) -> Result<Session> {
        let Named { name, address } = named(guest, number, libvirt_cid)?;
        let mut control = Channel::new(connect(&address)?, name.clone())?;
        let (over_vsock, machine) = match &address {
            Address::Vsock { cid, .. } => (true, Machine::find(*cid).filter(|_| !guest.proxy)),
            Address::Tcp { .. } => (false, None),
        };
        let mut tsync_protos = Vec::new();
        if plan.tsync_interval_ms.is_none_or(|ms| ms >= 0) {
            // The one of KVM needs the guest's process, and ticks on both sides. Behind a proxy it is the proxy that looks.
            let kvm = guest.proxy || machine.as_ref().is_some_and(Machine::shows_tsc);
            if over_vsock && host.clock == "x86-tsc" && kvm {
                tsync_protos.push("kvm".to_owned());
            }
            tsync_protos.push("ptp".to_owned());
        }
        let mut fifos = if plan.no_fifos { Vec::new() } else { fifo::open_host(Path::new(fifo::HOST_DIR), &name) };
        let request = TraceRequest {
            use_fifos: !fifos.is_empty(),
            trace_id: host.trace_id,
            args: words(plan, guest, host.clock),
            tsync_protos,
        };
        control.send(&match guest.proxy {
            false => Msg::TraceReq(request),
            true => Msg::TraceProxy { request, cpus: host.root.top().cpus()?.len() as u32, siblings: 0 },
        })?;
        // The guest sets up its tracers before or after it answers: there is no limit for that.
        let response = match control.receive(None)? {
            Msg::TraceResp(r) => r,
            Msg::NotSupported => bail!("{name} refuses the request"),
            m => bail!("guest {name} answered {m}"),
        };
        let limits = Limits::default();
        limits.check(response.cpus, response.page_size).map_err(|e| anyhow::anyhow!("guest {name}: {e}"))?;
        if response.use_fifos {
            let (have, need) = (fifos.len(), response.cpus as usize);
            ensure!(have >= need, "guest {name} uses FIFOs for {need} CPUs, there are {have}");
        } else {
            fifos.clear();
        }
        let mut sync = None;
        if let Some(proto) = Protocol::of_name(&response.tsync_proto) {
            println!("Negotiated {} time sync protocol with guest {name}", proto.name());
            let ch = Channel::new(connect(&address.with_port(response.tsync_port)?)?, name.clone())?;
            sync = Some(if guest.proxy {
                Sync::Guest(answer_proxy(host, ch, proto, &address)?)
            } else {
                let interval = plan.tsync_interval_ms.filter(|ms| *ms > 0).map(|ms| Duration::from_millis(ms as u64));
                let (cpus, host_trace_id) = (response.cpus, host.trace_id);
                let how = Sampling { proto, cpus, host_trace_id, interval, machine: machine.clone() };
                Sync::Host(HostSync::start(host.root, ch, how, host.clock)?)
            });
        }
        let metadata = control.receive_data(limits.max_metadata, None)?;
        let output = file_name(&plan.output_path(), &name);
        let mut data = Vec::new();
        let ended = Arc::new(AtomicBool::new(false));
        let mut fifos = fifos.into_iter();
        for (cpu, port) in response.ports.iter().enumerate() {
            let path = crate::recorder::raw_path(&output, plan.temp.as_deref(), "", cpu as u32)?;
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o644)
                .open(&path)
                .with_context(|| format!("cannot create {}", path.display()))?;
            let subbuf = response.page_size as usize;
            let mut socket = None;
            let from: Box<dyn Read + Send> = match fifos.next() {
                Some(fifo) => Box::new(HostEnd::new(fifo, Arc::clone(&ended))),
                None => {
                    let s = connect(&address.with_port(*port)?)?;
                    socket = Some(s.try_clone()?);
                    Box::new(s)
                }
            };
            let thread = std::thread::Builder::new()
                .name(format!("guest cpu {cpu}"))
                .spawn(move || receive(from, file, subbuf))?;
            data.push(Receiving { path, thread, socket });
        }
        Ok(Session {
            name,
            trace_id: response.trace_id,
            proxy: guest.proxy,
            control,
            sync,
            metadata,
            data,
            ended,
            subbuf: response.page_size,
            over_tcp: !over_vsock,
            own_clock: guest.own_clock || guest.proxy,
            machine,
            output,
        })
    }

    /// What this machine's own file says of this guest, or of a proxy.
    pub fn option(&self) -> RawOption {
        // Whose threads run a machine behind TCP is not known.
        let vcpus: Vec<(u32, u32)> = match (&self.machine, self.over_tcp) {
            (Some(m), _) => m.threads.clone(),
            (None, true) => (0..self.data.len() as u32).map(|cpu| (cpu, u32::MAX)).collect(),
            (None, false) => Vec::new(),
        };
        RawOption::guest(&self.name, self.trace_id, &vcpus, HOST_ENDIAN)
    }

    /// Ends the guest's recording and writes its file.
    ///
    /// # Errors
    /// The file cannot be written. A guest that has gone is only told; what it sent is in the file.
    pub fn finish(mut self, tsc2nsec: Option<(u32, u32)>) -> Result<Finished> {
        let (shift, answering) = match self.sync.take() {
            Some(Sync::Host(s)) => (s.finish(), None),
            Some(Sync::Guest(t)) => (None, Some(t)),
            None => (None, None),
        };
        let mut options = Vec::new();
        match self.end() {
            Ok(from_proxy) => options = from_proxy,
            Err(e) => {
                log::warn!("guest {}: {e:#}", self.name);
                // A guest that is gone does not close its connections.
                for socket in self.data.iter().filter_map(|r| r.socket.as_ref()) {
                    let _ = socket.shutdown(std::net::Shutdown::Both);
                }
            }
        }
        self.ended.store(true, Ordering::Release);
        drop(self.control);
        if let Some(thread) = answering {
            let _ = thread.join();
        }
        let mut pieces = Vec::new();
        for r in self.data {
            match r.thread.join() {
                Ok(Ok(bytes)) => pieces.push((r.path, bytes)),
                Ok(Err(e)) => {
                    log::warn!("guest {}: {}: {e:#}", self.name, r.path.display());
                    let bytes = r.path.metadata().map_or(0, |m| m.len());
                    pieces.push((r.path, bytes - bytes % u64::from(self.subbuf)));
                }
                Err(_) => bail!("a receiver of guest {} failed", self.name),
            }
        }
        let metadata = std::mem::take(&mut self.metadata);
        let file = trace_dat::read::OpenOptions::new()
            .open_bytes(&self.output, metadata)
            .with_context(|| format!("guest {}: its metadata cannot be read", self.name))?;
        // What makes nanoseconds of our ticks holds for a guest that counts them too.
        let tsc2nsec = tsc2nsec.filter(|_| !self.own_clock);
        let summary = write(&self.output, &file, &pieces, self.subbuf, shift.as_ref(), tsc2nsec)?;
        for (path, _) in &pieces {
            let _ = std::fs::remove_file(path);
        }
        Ok(Finished { path: self.output, summary, options })
    }

    /// Says that this is the end, and waits until the other side has sent everything. A proxy has more to say.
    fn end(&mut self) -> Result<Vec<RawOption>> {
        let wait = Some(Duration::from_secs(60));
        self.control.send(&Msg::Close)?;
        let mut options = Vec::new();
        if self.proxy {
            let most = Limits::default().max_metadata;
            // The rest of its own file, then options for ours.
            let rest = self.control.receive_data(most, wait)?;
            self.metadata.extend(rest);
            self.control.send(&Msg::Cont)?;
            options = RawOption::list(&self.control.receive_data(most, wait)?, HOST_ENDIAN);
        }
        self.control.wait_for(&Msg::CloseResp, wait)?;
        Ok(options)
    }
}

/// The words of `record` for a guest's agent.
fn words(plan: &Plan, guest: &Guest, clock: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    if plan.date {
        words.push("--date".into());
    }
    // A proxy records the host, whose clock is its own matter.
    if !guest.own_clock && !guest.proxy {
        words.extend(["-C".into(), clock.to_owned()]);
    }
    words.extend(guest.args.iter().map(|a: &OsString| a.to_string_lossy().into_owned()));
    words
}

/// Answers a proxy that measures our clock.
fn answer_proxy(host: &Host<'_>, ch: Channel, proto: Protocol, at: &Address) -> Result<JoinHandle<()>> {
    let id = match at {
        Address::Vsock { cid, .. } => i64::from(*cid),
        Address::Tcp { .. } => -1,
    };
    let (root, clock) = (host.root.clone(), host.clock.to_owned());
    let thread = std::thread::Builder::new().name("time sync".into()).spawn(move || {
        if let Err(e) = serve_guest(&root, ch, proto, id, &clock) {
            log::warn!("time synchronisation: {e:#}");
        }
    })?;
    Ok(thread)
}

fn write(
    output: &Path,
    file: &TraceFile,
    pieces: &[(PathBuf, u64)],
    subbuf: u32,
    shift: Option<&trace_dat::write::TimeShift>,
    tsc2nsec: Option<(u32, u32)>,
) -> Result<Summary> {
    let mut meta = Metadata::of(file)?;
    meta.cpus = meta.cpus.max(pieces.len() as u32);
    if let Some((mult, shift)) = tsc2nsec {
        meta.option(RawOption::tsc2nsec(mult, shift, 0, file.endian()));
    }
    if let Some(shift) = shift.filter(|s| s.cpus.iter().any(|c| !c.is_empty())) {
        meta.option(RawOption::time_shift(shift, file.endian()));
    }
    let version = if file.version() == 6 { FileVersion::V6 } else { FileVersion::V7 };
    let head = FileHead {
        version,
        endian: file.endian(),
        long_size: file.long_size(),
        page_size: file.page_size(),
        codec: if version == FileVersion::V6 { Codec::None } else { file.header().codec },
    };
    let buffers = vec![BufferHead::new("", meta.clock(), subbuf)];
    let mut writer = Writer::create(output, head, &meta, buffers)?;
    for (cpu, (path, bytes)) in pieces.iter().enumerate() {
        if *bytes == 0 {
            continue;
        }
        writer.cpu(0, cpu as u32)?;
        let size = subbuf as usize;
        let all = size * (1usize << 20).div_ceil(size);
        let mut buf = vec![0; all];
        let mut from = File::open(path).with_context(|| path.display().to_string())?.take(*bytes);
        loop {
            let piece = read_full(&mut from, &mut buf).with_context(|| path.display().to_string())?;
            let (whole, _) = piece.split_at(piece.len() - piece.len() % size);
            writer.sub_buffers(whole)?;
            if piece.len() < all {
                break;
            }
        }
    }
    Ok(writer.commit()?)
}

/// Takes a CPU's data until the guest has sent all; a last piece is filled up to a whole sub-buffer.
fn receive(mut from: impl Read, mut file: File, subbuf: usize) -> Result<u64> {
    let mut buf = vec![0; 1 << 18];
    let mut bytes = 0u64;
    loop {
        match from.read(&mut buf) {
            Ok(0) => break,
            Ok(n) => {
                file.write_all(buf.get(..n).unwrap_or_default())?;
                bytes += n as u64;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => {
                log::warn!("{e}");
                break;
            }
        }
    }
    let whole = bytes.next_multiple_of(subbuf as u64);
    file.set_len(whole)?;
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(target: &str, name: Option<&str>) -> Guest {
        Guest { target: target.into(), name: name.map(str::to_owned), proxy: false, args: vec![], own_clock: false }
    }

    #[test]
    fn names_and_addresses() {
        let find = |n: &str| (n == "Fedora").then_some(7);
        let get = |t: &str| named(&guest(t, None), 3, find).map(|n| (n.name, n.address)).map_err(|e| e.to_string());
        let vsock = |cid, port| Address::Vsock { cid, port };
        assert_eq!(get("Fedora"), Ok(("Fedora".into(), vsock(7, 823))));
        assert_eq!(get("Fedora:900"), Ok(("Fedora".into(), vsock(7, 900))));
        assert_eq!(get("5"), Ok(("5".into(), vsock(5, 823))));
        assert_eq!(get("@5"), Ok(("unnamed-3".into(), vsock(5, 823))));
        assert_eq!(get("box@5:6"), Ok(("box".into(), vsock(5, 6))));
        assert_eq!(get("127.0.0.1:6"), Ok(("127.0.0.1".into(), Address::Tcp { host: "127.0.0.1".into(), port: 6 })));
        assert!(get("nobody").unwrap_err().contains("guest nobody not found"));
        assert_eq!(named(&guest("5", Some("x")), 0, find).unwrap().name, "x");
    }

    #[test]
    fn files_of_guests() {
        assert_eq!(file_name(Path::new("/a/trace.dat"), "vm"), Path::new("/a/trace-vm.dat"));
        assert_eq!(file_name(Path::new("x"), "../vm"), Path::new("x-_.._vm"));
    }
}
