//! The host's side of `record -A`: guests are recorded together with this machine, each into a file of its own.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{Read, Write},
    net::ToSocketAddrs,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, SockAddr, Socket, Type};
use trace_dat::{
    compress::Codec,
    read::TraceFile,
    write::{BufferHead, FileHead, FileVersion, Metadata, RawOption, Summary, Writer},
};
use tracefs::TraceFs;

use super::{
    addr::safe_name,
    channel::Channel,
    limits::Limits,
    msg::{AGENT_PORT, Msg, TraceRequest},
    tsync::{HostSync, Protocol, kvm},
};
use crate::{
    plan::{Guest, Plan},
    tracefile::HOST_ENDIAN,
};

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
    let at = xml.find("<cid")?;
    let value = xml[at..].split("address='").nth(1)?.split('\'').next()?;
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
}

/// A guest that is being recorded.
pub struct Session {
    name: String,
    trace_id: u64,
    control: Channel,
    sync: Option<HostSync>,
    metadata: Vec<u8>,
    data: Vec<Receiving>,
    subbuf: u32,
    over_tcp: bool,
    output: PathBuf,
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
                    Ok(()) => return Ok(s),
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
    pub fn start(
        plan: &Plan,
        guest: &Guest,
        number: usize,
        root: &TraceFs,
        clock: &str,
        host_trace_id: u64,
    ) -> Result<Session> {
        let Named { name, address } = named(guest, number, libvirt_cid)?;
        ensure!(!guest.proxy, "--proxy is not supported: run the agent in the guest and name it by -A");
        let mut control = Channel::new(connect(&address)?, name.clone())?;
        let mut args: Vec<String> = Vec::new();
        if plan.date {
            args.push("--date".into());
        }
        if !guest.own_clock {
            args.extend(["-C".into(), clock.to_owned()]);
        }
        args.extend(guest.args.iter().map(|a: &OsString| a.to_string_lossy().into_owned()));
        let over_vsock = matches!(address, Address::Vsock { .. });
        let mut tsync_protos = Vec::new();
        if plan.tsync_interval_ms.is_none_or(|ms| ms >= 0) {
            // The KVM one needs the guest's process, and ticks on both sides.
            if over_vsock && clock == "x86-tsc" && kvm::usable() {
                tsync_protos.push("kvm".to_owned());
            }
            tsync_protos.push("ptp".to_owned());
        }
        control.send(&Msg::TraceReq(TraceRequest { use_fifos: false, trace_id: host_trace_id, args, tsync_protos }))?;
        // The guest sets up its tracers before or after it answers: there is no limit for that.
        let response = match control.receive(None)? {
            Msg::TraceResp(r) => r,
            m => bail!("guest {name} answered {m}"),
        };
        let limits = Limits::default();
        limits.check(response.cpus, response.page_size).map_err(|e| anyhow::anyhow!("guest {name}: {e}"))?;
        ensure!(!response.use_fifos, "guest {name} wants to use FIFOs that were not offered");
        let mut sync = None;
        if let Some(proto) = Protocol::of_name(&response.tsync_proto) {
            println!("Negotiated {} time sync protocol with guest {name}", proto.name());
            let ch = Channel::new(connect(&address.with_port(response.tsync_port)?)?, name.clone())?;
            let every = plan.tsync_interval_ms.filter(|ms| *ms > 0).map(|ms| Duration::from_millis(ms as u64));
            sync = Some(HostSync::start(root, ch, proto, response.cpus, host_trace_id, clock, every)?);
        }
        let metadata = control.receive_data(limits.max_metadata, None)?;
        let output = file_name(&plan.output_path(), &name);
        let mut data = Vec::new();
        for (cpu, port) in response.ports.iter().enumerate() {
            let socket = connect(&address.with_port(*port)?)?;
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
            let thread = std::thread::Builder::new()
                .name(format!("guest cpu {cpu}"))
                .spawn(move || receive(socket, file, subbuf))?;
            data.push(Receiving { path, thread });
        }
        Ok(Session {
            name,
            trace_id: response.trace_id,
            control,
            sync,
            metadata,
            data,
            subbuf: response.page_size,
            over_tcp: !over_vsock,
            output,
        })
    }

    /// What the host's own file says of this guest.
    pub fn option(&self) -> RawOption {
        // Whose threads run a machine behind TCP is not known; of one on vsock nothing is said.
        let vcpus: Vec<(u32, u32)> = match self.over_tcp {
            true => (0..self.data.len() as u32).map(|cpu| (cpu, u32::MAX)).collect(),
            false => Vec::new(),
        };
        RawOption::guest(&self.name, self.trace_id, &vcpus, HOST_ENDIAN)
    }

    /// Ends the guest's recording and writes its file.
    ///
    /// # Errors
    /// The file cannot be written. A guest that has gone is only told; what it sent is in the file.
    pub fn finish(mut self, plan: &Plan, tsc2nsec: Option<(u32, u32)>) -> Result<(PathBuf, Summary)> {
        let shift = self.sync.take().and_then(HostSync::finish);
        let ended = self
            .control
            .send(&Msg::Close)
            .and_then(|()| self.control.wait_for(&Msg::CloseResp, Some(Duration::from_secs(60))));
        if let Err(e) = ended {
            log::warn!("guest {}: {e:#}", self.name);
        }
        // A guest that is gone does not close its connections.
        drop(self.control);
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
        let summary = write(&self.output, &file, &pieces, self.subbuf, shift.as_ref(), tsc2nsec, plan)?;
        for (path, _) in &pieces {
            let _ = std::fs::remove_file(path);
        }
        Ok((self.output, summary))
    }
}

fn write(
    output: &Path,
    file: &TraceFile,
    pieces: &[(PathBuf, u64)],
    subbuf: u32,
    shift: Option<&trace_dat::write::TimeShift>,
    tsc2nsec: Option<(u32, u32)>,
    _plan: &Plan,
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
        let mut buf = vec![0; size * (1usize << 20).div_ceil(size)];
        let mut from = File::open(path).with_context(|| path.display().to_string())?.take(*bytes);
        loop {
            let mut have = 0;
            while have < buf.len() {
                match from.read(&mut buf[have..]).with_context(|| path.display().to_string())? {
                    0 => break,
                    n => have += n,
                }
            }
            writer.sub_buffers(&buf[..have - have % size])?;
            if have < buf.len() {
                break;
            }
        }
    }
    Ok(writer.commit()?)
}

/// Takes a CPU's data until the guest has sent all; a last piece is filled up to a whole sub-buffer.
fn receive(mut socket: Socket, mut file: File, subbuf: usize) -> Result<u64> {
    let mut buf = vec![0; 1 << 18];
    let mut bytes = 0u64;
    loop {
        match socket.read(&mut buf) {
            Ok(0) => break,
            Ok(n) => {
                file.write_all(&buf[..n])?;
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
