//! The agent: a machine (mostly a virtual one) that records for another.
//!
//! It takes one session at a time. The peer says what to record in the words of `record`; words that would run a command or
//! write files here are refused.

use std::{
    ffi::OsString,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::Socket;
use trace_dat::write::RawOption;

use super::{
    channel::Channel,
    client::DataSink,
    conn::plain_ip,
    fifo,
    limits::Limits,
    listen::{Peer, accept, data_listener, vsock_listener},
    msg::{FIRST_DATA_PORT, LAST_DATA_PORT, Msg, TraceRequest, TraceResponse},
    record::{Broken, head, prepare},
    tsync::{self, HostSync, Protocol, Sampling},
    vm::Machine,
};
use crate::{
    cli,
    cmd::{extract, record},
    plan::{Plan, Verb},
    session::{Active, Session},
    signal::{Signals, Woken},
    tracefile::{self, BufferFacts, Extras, HOST_ENDIAN},
};

/// What a proxy calls the machine that asked for its recording, as the reference does.
const PROXIED: &str = "::GUEST::";

/// How the agent is to work.
#[derive(Clone, Debug)]
pub struct Config {
    /// The control port.
    pub port: u32,
    /// TCP: only this peer may connect. `None`: vsock.
    pub peer: Option<String>,
    /// Act as the host of this context, the only one that may connect: it records itself and, by us, its host.
    pub proxy: Option<u32>,
    /// Wait for ever for the peer's data connections.
    pub no_timeout: bool,
}

/// Waits for hosts and records for them, until SIGINT or SIGTERM.
///
/// # Errors
/// The port cannot be had; what goes wrong in a session is only logged.
pub fn run(config: &Config, signals: &Signals) -> Result<ExitCode> {
    let listener = match &config.peer {
        None => {
            vsock_listener(config.port, 5).with_context(|| format!("cannot listen on vsock port {}", config.port))?
        }
        Some(_) => {
            let port = u16::try_from(config.port).context("TCP ports end at 65535")?;
            any_tcp(port).with_context(|| format!("cannot listen on TCP port {port}"))?
        }
    };
    match &config.peer {
        None => println!("listening on @{}:{}", vsock::get_local_cid().unwrap_or(u32::MAX), config.port),
        Some(peer) => println!("listening for {peer} on port {}", config.port),
    }
    loop {
        use std::os::fd::AsFd;
        match signals.wait(&[listener.as_fd()], None)? {
            Woken::Signal => return Ok(ExitCode::SUCCESS),
            Woken::Timeout => continue,
            Woken::Ready(_) => {}
        }
        let (socket, peer) = match accept(&listener) {
            Ok(x) => x,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
            Err(e) => {
                log::warn!("a host could not be accepted: {e}");
                continue;
            }
        };
        if let Err(why) = admitted(config, &peer) {
            log::warn!("refused {}: {why}", peer.number());
            continue;
        }
        if let Err(e) = session(config, signals, &listener, socket, &peer) {
            log::warn!("session of {}: {e:#}", peer.number());
        }
    }
}

/// A TCP socket on all addresses, of both IP versions where there is IPv6.
fn any_tcp(port: u16) -> io::Result<Socket> {
    let v6 = std::net::SocketAddr::from(([0u16; 8], port));
    super::listen::tcp_listener(v6, 5).or_else(|_| super::listen::tcp_listener(([0, 0, 0, 0], port).into(), 5))
}

/// Whether this peer is the one of `-N`.
fn admitted(config: &Config, peer: &Peer) -> Result<(), String> {
    if let Some(wanted) = config.proxy {
        let is_it = matches!(peer, Peer::Vsock { cid, .. } if *cid == wanted);
        return if is_it { Ok(()) } else { Err(format!("only the guest with context id {wanted} may connect")) };
    }
    let (Some(wanted), Peer::Ip(addr)) = (&config.peer, peer) else { return Ok(()) };
    let addr = plain_ip(addr.ip());
    let known: Vec<IpAddr> = std::net::ToSocketAddrs::to_socket_addrs(&(wanted.as_str(), 0))
        .map(|all| all.map(|a| plain_ip(a.ip())).collect())
        .unwrap_or_default();
    if known.contains(&addr) { Ok(()) } else { Err(format!("only {wanted} may connect")) }
}

/// What a host may ask for: the options of `record` but for those that run or write something here.
///
/// # Errors
/// A word that is no option of `record`, or one that is refused.
pub fn plan_of(words: &[String]) -> Result<Plan> {
    let entry = cli::find("record".as_ref()).context("no record command")?;
    let words: Vec<OsString> = words.iter().map(OsString::from).collect();
    let matches = cli::parse("agent", entry, &words).map_err(|e| anyhow::anyhow!("{e}"))?;
    let plan = Plan::new(Verb::Record, &cli::ordered(&matches))?;
    ensure!(plan.command.is_empty(), "a host may not run a command here");
    ensure!(plan.output.is_none() && plan.temp.is_none(), "a host may not name files here");
    ensure!(plan.remote().is_none(), "a host may not send the data to somebody else");
    ensure!(plan.guests.is_empty(), "a guest does not record other guests");
    ensure!(!plan.daemonize && plan.user.is_none() && plan.max_kb.is_none(), "an option that a guest does not have");
    ensure!(plan.latency_tracer().is_none(), "latency tracers cannot be recorded for another machine");
    Ok(plan)
}

/// The buffer whose data the host gets.
fn first(session: &Session) -> Result<&Active> {
    session.buffers.first().context("the host asks for no buffer")
}

/// The `-C` of the words, as the reference finds it.
fn clock_of(words: &[String]) -> Option<&str> {
    words.iter().skip_while(|w| *w != "-C").nth(1).map(String::as_str)
}

/// Data and time-sync sockets that wait for the host.
struct Ports {
    data: Vec<Socket>,
    numbers: Vec<u32>,
    tsync: Option<Socket>,
    tsync_port: u32,
}

impl Ports {
    fn open(cpus: u32, local: Option<IpAddr>, with_tsync: bool) -> Result<Ports> {
        let mut next = u32::from(FIRST_DATA_PORT);
        let mut one = || -> Result<(Socket, u32)> {
            let Some(ip) = local else {
                let s = vsock_listener(u32::MAX, 1).context("no free vsock port")?;
                let port = s.local_addr()?.as_vsock_address().context("vsock address")?.1;
                return Ok((s, port));
            };
            let (s, port) = data_listener(ip, next, u32::from(LAST_DATA_PORT))?;
            next = port + 1;
            Ok((s, port))
        };
        let (mut data, mut numbers) = (Vec::new(), Vec::new());
        for _ in 0..cpus {
            let (s, port) = one()?;
            data.push(s);
            numbers.push(port);
        }
        let (tsync, tsync_port) = match with_tsync {
            true => one().map(|(s, p)| (Some(s), p))?,
            false => (None, 0),
        };
        Ok(Ports { data, numbers, tsync, tsync_port })
    }
}

/// Takes the connection of the session's host off a waiting socket.
fn accept_from(listener: &Socket, host: &Peer, wait: Option<Duration>) -> Result<Socket> {
    use std::os::fd::AsFd;
    let end = wait.map(|w| Instant::now() + w);
    loop {
        let left = end.map_or(PollTimeout::NONE, |e| {
            PollTimeout::try_from(e.saturating_duration_since(Instant::now())).unwrap_or(PollTimeout::MAX)
        });
        if poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], left)? == 0 {
            bail!("the host did not connect");
        }
        match accept(listener) {
            Ok((s, from)) if from.same_host(host) => return Ok(s),
            Ok((_, from)) => log::warn!("refused data connection of {}", from.number()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn session(config: &Config, signals: &Signals, listener: &Socket, socket: Socket, host: &Peer) -> Result<()> {
    let local = socket.local_addr()?.as_socket().map(|a| plain_ip(a.ip()));
    let mut control = Channel::new(socket, host.number())?;
    let (request, guest_cpus): (TraceRequest, Option<u32>) = match control.receive(Some(Duration::from_secs(60)))? {
        Msg::TraceReq(r) => (r, None),
        Msg::TraceProxy { request, cpus, .. } if config.proxy.is_some() => (request, Some(cpus)),
        m => {
            control.send(&Msg::NotSupported)?;
            bail!("{m} message instead of a request");
        }
    };
    let mut plan = plan_of(&request.args)?;
    // Nothing is written here; the name only serves messages and a link that breaks.
    plan.output = Some(PathBuf::from("trace-agent.dat"));
    let mut session = Session::open(&plan)?;
    ensure!(session.buffers.len() == 1, "exactly one buffer can be recorded for another machine");
    let top = session.root().top();
    let clock = clock_of(&request.args).map_or_else(|| top.clock(), |c| Ok(c.to_owned()))?;
    let machine = match (guest_cpus, host) {
        (Some(_), Peer::Vsock { cid, .. }) => Machine::find(*cid),
        _ => None,
    };
    let mut offered = request.tsync_protos.clone();
    if guest_cpus.is_some() && !machine.as_ref().is_some_and(Machine::shows_tsc) {
        offered.retain(|p| p != Protocol::Kvm.name());
    }
    let proto = Protocol::choose(&offered, Some(&clock));
    let cpus = top.cpus()?;
    let ports_dir = Path::new(fifo::GUEST_DIR);
    let use_fifos = request.use_fifos && guest_cpus.is_none() && fifo::guest_has(ports_dir, cpus.len() as u32);
    let ports = Ports::open(if use_fifos { 0 } else { cpus.len() as u32 }, local, proto.is_some())?;
    let trace_id = record::trace_id();
    control.send(&Msg::TraceResp(TraceResponse {
        use_fifos,
        cpus: cpus.len() as u32,
        page_size: first(&session)?.instance.subbuf_size()? as u32,
        trace_id,
        tsync_proto: proto.map_or(String::new(), |p| p.name().to_owned()),
        tsync_port: ports.tsync_port,
        ports: if use_fifos { vec![0; cpus.len()] } else { ports.numbers.clone() },
    }))?;
    let wait = (!config.no_timeout).then_some(Duration::from_secs(60));
    let (mut sync, mut answering) = (None, None);
    if let (Some(proto), Some(waiting)) = (proto, &ports.tsync) {
        let connection = accept_from(waiting, host, wait)?;
        let to_end = connection.try_clone()?;
        let ch = Channel::new(connection, host.number())?;
        if let Some(cpus) = guest_cpus {
            Limits::default().check(cpus, 4096).map_err(anyhow::Error::msg)?;
            let how = Sampling { proto, cpus, host_trace_id: trace_id, interval: None, machine: machine.clone() };
            sync = Some(HostSync::start(session.root(), ch, how, &clock)?);
        } else {
            let root = session.root().clone();
            let (id, clock) = (peer_id(host), clock.clone());
            let thread = std::thread::Builder::new().name("time sync".into()).spawn(move || {
                if let Err(e) = tsync::serve_guest(&root, ch, proto, id, &clock) {
                    log::warn!("time synchronisation: {e:#}");
                }
            })?;
            answering = Some(Answering { connection: to_end, thread: Some(thread) });
        }
    }
    session.configure(&plan)?;
    let date_us = if plan.date { extract::measured(&session, &session.clock()) } else { None };
    let a = first(&session)?;
    let mut facts = BufferFacts::read(&a.instance, false)?;
    facts.stats.clear();
    facts.name.clear();
    // A proxy's file names the machine that asked for it, whose guest it is not.
    let guests = guest_cpus.iter().map(|_| {
        let vcpus = machine.as_ref().map(|m| m.threads.clone()).unwrap_or_default();
        RawOption::guest(PROXIED, request.trace_id, &vcpus, HOST_ENDIAN)
    });
    let extras = Extras { date_us, trace_id: Some(trace_id), guests: guests.collect(), ..Extras::default() };
    let meta = tracefile::metadata(session.root(), &plan, &[facts], &extras)?;
    control.send_pieces(&head(&plan, &meta, 3, a.instance.subbuf_size()? as u32)?)?;
    // A host may start at once when it has the metadata and its connections: everything has to be on before it knows that.
    let (senders, give) = prepare(&plan, a, Broken::default(), false)?;
    if !plan.no_filter {
        session.leave_out(&senders.iter().map(|s| s.tid).collect::<Vec<_>>());
    }
    session.limit_to(&plan, None)?;
    if !plan.keep_before {
        session.switch_on()?;
    }
    control.send(&Msg::FinData)?;
    let mut fifos = match use_fifos {
        true => fifo::open_guest(ports_dir, cpus.len() as u32, Duration::from_secs(60))?,
        false => Vec::new(),
    }
    .into_iter();
    let mut waiting = ports.data.iter();
    for give in give {
        let sink = match (fifos.next(), waiting.next()) {
            (Some(fifo), _) => DataSink::Fifo(fifo),
            (None, Some(waiting)) => {
                let s = accept_from(waiting, host, wait)?;
                s.set_nonblocking(false)?;
                DataSink::Stream(s)
            }
            (None, None) => bail!("more recorders than connections"),
        };
        let _ = give.send(sink);
    }
    let ended = until_close(&mut control, signals, listener);
    let stopped = session.switch_off();
    senders.iter().for_each(|s| s.stop.stop());
    let said = match guest_cpus {
        Some(_) if ended.is_ok() => said_by_proxy(&mut control, sync),
        _ => Ok(()),
    };
    for s in senders {
        s.join()?;
    }
    stopped?;
    // A host that takes a last round of samples does so now; the instance for it has to go before all else is undone.
    drop(answering);
    if plan.keep {
        session.keep()
    } else {
        session.end()?
    }
    ended?;
    said?;
    control.send(&Msg::CloseResp)
}

/// What a proxy says after CLOSE: the rest of its own file, of which nothing is left, and the options for the file of the other
/// side. C trace-cmd waits five seconds for each.
fn said_by_proxy(control: &mut Channel, sync: Option<HostSync>) -> Result<()> {
    control.send(&Msg::FinData)?;
    let shift = sync.and_then(HostSync::finish).filter(|s| s.cpus.iter().any(|c| !c.is_empty()));
    control.wait_for(&Msg::Cont, Some(Duration::from_secs(60)))?;
    let options: Vec<_> = shift.iter().map(|s| RawOption::time_shift(s, HOST_ENDIAN)).collect();
    control.send_data(&RawOption::encode_list(&options, HOST_ENDIAN))
}

/// The thread that answers a host's questions for times. Its end is waited for: it removes the instance that it made.
struct Answering {
    connection: Socket,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Answering {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        // A host may take its last samples after it has ended the session; then it says so, or goes away.
        let end = Instant::now() + Duration::from_secs(5);
        while !thread.is_finished() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.connection.shutdown(std::net::Shutdown::Both);
        let _ = thread.join();
    }
}

/// Number of the instance for times, as the reference has it: the host's context id, 2 over TCP.
fn peer_id(host: &Peer) -> i64 {
    match host {
        Peer::Vsock { cid, .. } => i64::from(*cid),
        Peer::Ip(_) => 2,
    }
}

/// Waits until the host closes the session. Who connects meanwhile is sent away.
fn until_close(control: &mut Channel, signals: &Signals, listener: &Socket) -> Result<()> {
    use std::os::fd::AsFd;
    loop {
        if !control.has_more() {
            match signals.wait(&[control.conn().as_fd(), listener.as_fd()], None)? {
                Woken::Signal => bail!("stopped by a signal"),
                Woken::Ready(1) => {
                    let _ = accept(listener);
                    continue;
                }
                Woken::Ready(_) => {}
                Woken::Timeout => continue,
            }
        }
        match control.receive(Some(Duration::from_secs(5)))? {
            Msg::Close => return Ok(()),
            Msg::NotSupported => {}
            m => {
                log::info!("{m} message not expected, ignored");
                control.send(&Msg::NotSupported)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_host_can_only_record() {
        assert!(plan_of(&words("-C local -e sched -e irq -p nop")).is_ok());
        for bad in [
            "-e sched ls",
            "-e sched -o /etc/passwd",
            "-e sched -N box:1",
            "-e sched --temp /tmp",
            "--frob",
            "-e sched --user root",
        ] {
            assert!(plan_of(&words(bad)).is_err(), "{bad}");
        }
        assert_eq!(clock_of(&words("-e x -C mono")), Some("mono"));
        assert_eq!(clock_of(&words("-Cmono -e x")), None);
    }
}
