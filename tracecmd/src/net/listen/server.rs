//! The poll loop that drives all clients.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs::File,
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    os::fd::BorrowedFd,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
    eventfd::{EfdFlags, EventFd},
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use socket2::Socket;

use super::{
    client::{Client, DataFiles, Stage},
    data::{Counts, CpuData, Got, Layout, Peer, Port},
    finish::{Finished, Job},
    socket,
};
use crate::net::{
    addr::{Network, safe_name},
    conn::{Conn, plain_addr, prepare},
    handshake::{Event, GREETING, Protocol},
    limits::Limits,
};

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// TCP at these addresses; each gets a socket.
    Tcp(Vec<SocketAddr>),
    /// This vsock port.
    Vsock(u32),
}

/// TLS for control and data connections.
#[derive(Clone, Debug)]
pub struct TlsConfig(pub Arc<rustls::ServerConfig>);

/// What the listener is to do.
#[derive(Debug)]
pub struct Config {
    /// Where clients connect.
    pub listen: Listen,
    /// Directory of all files.
    pub dir: PathBuf,
    /// First part of file names.
    pub prefix: String,
    /// Who may connect; empty: everybody.
    pub allow: Vec<Network>,
    /// Bounds.
    pub limits: Limits,
    /// Data ports to try.
    pub data_ports: RangeInclusive<u16>,
    /// TLS, if connections are to be inside it.
    pub tls: Option<TlsConfig>,
    /// Where log lines go instead of stdout.
    pub log: Option<File>,
    /// Show progress on the terminal.
    pub progress: bool,
    /// Answer as a listener that only knows protocol V1, for tests of clients.
    pub only_v1: bool,
}

const KIND_LISTENER: u64 = 0;
const KIND_SIGNAL: u64 = 1;
const KIND_WAKE: u64 = 2;
const KIND_CONTROL: u64 = 3;
const KIND_DATA: u64 = 4;

fn token(kind: u64, client: u32, cpu: u32) -> u64 {
    kind << 60 | u64::from(client) << 28 | u64::from(cpu)
}

/// Most bytes read from one connection before the others get their turn.
const TURN: usize = 4 << 20;
/// Size of the read buffer.
const BUF: usize = 1 << 20;
/// How long a name may take to be found.
const NAME_WAIT: Duration = Duration::from_secs(2);
/// Addresses that wait for their name at once; who comes then is called by number.
const NAME_QUEUE: usize = 256;
/// Connections that have not announced a recording yet; the oldest makes way for a new one.
const MOST_WAITING: usize = 64;
/// Most bytes that a client says at the end: command lines (the kernel keeps up to 32768) and counts.
const MOST_LAST_WORDS: usize = 4 << 20;

/// What a turn of a CPU's connection gave.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    some: bool,
    end: bool,
}

/// Receives what has come of a CPU.
fn turn(d: &mut CpuData, layout: Option<Layout>, buf: &mut [u8]) -> io::Result<Turn> {
    let mut turn = Turn::default();
    let mut left = TURN;
    while left > 0 && !turn.end {
        match d.receive(layout, buf)? {
            Got::Bytes(n) => {
                left = left.saturating_sub(n.max(1));
                turn.some = true;
            }
            Got::Nothing => break,
            Got::End => turn.end = true,
        }
    }
    Ok(turn)
}

/// The listener.
#[derive(Debug)]
pub struct Server {
    config: Config,
    listeners: Vec<Socket>,
    epoll: Epoll,
    wake: Arc<EventFd>,
    clients: HashMap<u32, Client>,
    /// Connections whose name is being looked up.
    nameless: HashMap<u32, (Socket, Peer, Instant)>,
    next_id: u32,
    /// Questions to and answers of the thread that finds names.
    names: (Sender<(u32, IpAddr)>, Receiver<(u32, String)>),
    /// The thread's ends of these; it starts with [`Server::run`], so that the process may fork before.
    resolver: Option<(Receiver<(u32, IpAddr)>, Sender<(u32, String)>)>,
    finished: (Sender<Finished>, Receiver<Finished>),
    finishing: usize,
    /// Bytes of recordings that have ended.
    done_bytes: u64,
    /// Counts of recordings that have ended, and sub-buffers that never arrived.
    done: Counts,
    lost: u64,
    /// Files that are complete.
    files: u64,
    buf: Vec<u8>,
    /// The same for a second thread.
    buf_of_others: Vec<u8>,
    /// There is a CPU for a second thread.
    parallel: bool,
    ending: bool,
    progress: Option<indicatif::ProgressBar>,
}

impl Server {
    /// Opens the waiting sockets.
    ///
    /// # Errors
    /// An address or port cannot be had.
    pub fn new(config: Config) -> io::Result<Self> {
        let listeners = match &config.listen {
            Listen::Tcp(addrs) => addrs
                .iter()
                .map(|a| {
                    socket::tcp_listener(*a, 64)
                        .map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {a}: {e}")))
                })
                .collect::<Result<Vec<_>, _>>()?,
            Listen::Vsock(port) => vec![
                socket::vsock_listener(*port, 64)
                    .map_err(|e| io::Error::new(e.kind(), format!("cannot listen on vsock port {port}: {e}")))?,
            ],
        };
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for (n, l) in listeners.iter().enumerate() {
            epoll.add(l, EpollEvent::new(EpollFlags::EPOLLIN, token(KIND_LISTENER, n as u32, 0)))?;
        }
        epoll.add(&*wake, EpollEvent::new(EpollFlags::EPOLLIN, token(KIND_WAKE, 0, 0)))?;
        let (ask, asked) = bounded(NAME_QUEUE);
        let (answer, answers) = unbounded();
        let progress = config.progress.then(|| {
            let bar = indicatif::ProgressBar::new_spinner();
            bar.set_style(
                indicatif::ProgressStyle::with_template("{msg}")
                    .unwrap_or_else(|_| indicatif::ProgressStyle::default_spinner()),
            );
            bar
        });
        Ok(Server {
            config,
            listeners,
            epoll,
            wake,
            clients: HashMap::new(),
            nameless: HashMap::new(),
            next_id: 0,
            names: (ask, answers),
            resolver: Some((asked, answer)),
            finished: unbounded(),
            finishing: 0,
            done_bytes: 0,
            done: Counts::default(),
            lost: 0,
            files: 0,
            buf: vec![0; BUF],
            buf_of_others: vec![0; BUF],
            parallel: std::thread::available_parallelism().is_ok_and(|n| n.get() > 1),
            ending: false,
            progress,
        })
    }

    /// Addresses that wait for clients.
    pub fn addresses(&self) -> Vec<socket2::SockAddr> {
        self.listeners.iter().filter_map(|l| l.local_addr().ok()).collect()
    }

    /// Serves until SIGINT or SIGTERM (which must be blocked in all threads), then completes all recordings.
    ///
    /// # Errors
    /// The loop itself cannot go on; trouble with a client is only logged.
    pub fn run(&mut self) -> io::Result<()> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGINT);
        mask.add(Signal::SIGTERM);
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        self.epoll.add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, token(KIND_SIGNAL, 0, 0)))?;
        if let Some((asked, answer)) = self.resolver.take() {
            resolver(asked, answer, Arc::clone(&self.wake))?;
        }
        let mut events = [EpollEvent::empty(); 256];
        loop {
            let wait = self.until_next_deadline();
            let n = match self.epoll.wait(&mut events, wait) {
                Ok(n) => n,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(e) => return Err(e.into()),
            };
            let mut data = Vec::new();
            for e in events.iter().take(n) {
                let t = e.data();
                let (id, cpu) = ((t >> 28) as u32, (t & 0xfff_ffff) as u32);
                match t >> 60 {
                    KIND_LISTENER => self.accept(id as usize),
                    KIND_SIGNAL => {
                        if matches!(signals.read_signal(), Ok(Some(_))) {
                            if self.ending {
                                return Err(io::Error::new(
                                    io::ErrorKind::Interrupted,
                                    "stopped before all files were complete",
                                ));
                            }
                            self.end_all();
                        }
                    }
                    KIND_WAKE => {
                        let _ = self.wake.read();
                        self.news();
                    }
                    KIND_CONTROL => self.control(id, e.events()),
                    _ => data.push((id, cpu)),
                }
            }
            self.data(data);
            self.tick();
            self.show();
            if self.ending && self.clients.is_empty() && self.finishing == 0 {
                return Ok(());
            }
        }
    }

    fn until_next_deadline(&self) -> EpollTimeout {
        let now = Instant::now();
        let mut next = if self.progress.is_some() && !self.clients.is_empty() {
            Some(now + Duration::from_millis(250))
        } else {
            None
        };
        let times = self.clients.values().flat_map(|c| [c.deadline, self.drained_at(c)]);
        for t in times.flatten().chain(self.nameless.values().map(|n| n.2)) {
            next = Some(next.map_or(t, |n: Instant| n.min(t)));
        }
        match next {
            None => EpollTimeout::NONE,
            // One millisecond more, so that the time has really come when the wait is over.
            Some(t) => EpollTimeout::try_from(t.saturating_duration_since(now) + Duration::from_millis(1))
                .unwrap_or(EpollTimeout::MAX),
        }
    }

    /// When a client that has ended its recording is not waited for any longer.
    fn drained_at(&self, c: &Client) -> Option<Instant> {
        let limits = &self.config.limits;
        // A connection ends by itself, even on a bad line; datagrams just stop.
        let wait = if !self.ending && c.trouble.is_none() && c.streams() { limits.stall } else { limits.drain };
        (c.stage == Stage::Draining).then_some(c.last_data + wait)
    }

    fn accept(&mut self, listener: usize) {
        // A few at a time: the others get their turn too.
        for _ in 0..32 {
            let Some(l) = self.listeners.get(listener) else { return };
            let (socket, peer) = match socket::accept(l) {
                Ok(x) => x,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) => {
                    self.log(format!("a client could not be accepted: {e}"));
                    if matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)) {
                        // Nothing can be done now; do not spin on the waiting connection.
                        std::thread::sleep(Duration::from_millis(50));
                        return;
                    }
                    continue;
                }
            };
            if let Peer::Ip(a) = peer
                && !self.config.allow.is_empty()
                && !self.config.allow.iter().any(|n| n.contains(a.ip()))
            {
                self.log(format!("refused {}: its address is not allowed", peer.number()));
                continue;
            }
            if let Some(why) = self.no_room() {
                self.log(format!("refused {}: {why}", peer.number()));
                continue;
            }
            self.make_room();
            prepare(&socket);
            let id = self.next_id;
            self.next_id = self.next_id.wrapping_add(1);
            match peer {
                Peer::Ip(a) if self.names.0.try_send((id, a.ip())).is_ok() => {
                    self.nameless.insert(id, (socket, peer, Instant::now() + NAME_WAIT));
                }
                _ => self.welcome(id, socket, peer, peer.number()),
            }
        }
    }

    /// Why no further recording can begin now, if so.
    fn no_room(&self) -> Option<String> {
        let most = self.config.limits.max_clients;
        let recording = self.clients.values().filter(|c| c.announced.is_some()).count() + self.finishing;
        (recording >= most).then(|| format!("{most} clients are connected already"))
    }

    /// Connections that only wait must not keep others out: the oldest of too many goes.
    fn make_room(&mut self) {
        let waiting = self.clients.iter().filter(|(_, c)| c.stage == Stage::Handshake);
        if waiting.clone().count() + self.nameless.len() < MOST_WAITING {
            return;
        }
        let oldest = waiting.filter_map(|(id, c)| Some((c.deadline?, *id))).min();
        if let Some(mut c) = oldest.and_then(|(_, id)| self.clients.remove(&id)) {
            self.log(format!("{}: too many connections wait, the oldest makes way", c.name));
            self.forget_control(&mut c);
        } else if let Some(id) = self.nameless.iter().min_by_key(|(_, n)| n.2).map(|(id, _)| *id) {
            self.nameless.remove(&id);
        }
    }

    /// Things that other threads have found out.
    fn news(&mut self) {
        while let Ok((id, name)) = self.names.1.try_recv() {
            if let Some((socket, peer, _)) = self.nameless.remove(&id) {
                self.welcome(id, socket, peer, name);
            }
        }
        while let Ok(f) = self.finished.1.try_recv() {
            self.finishing -= 1;
            self.files += u64::from(f.file.is_some());
            self.lost += f.lost;
            if f.file.is_none() && !f.pieces_kept {
                self.done_bytes = self.done_bytes.saturating_sub(f.bytes);
            }
            for line in &f.log {
                self.log(line.clone());
            }
        }
    }

    fn welcome(&mut self, id: u32, socket: Socket, peer: Peer, host: String) {
        let name = format!("{}:{}", safe_name(&host), peer.port());
        self.log(format!("Connected with {name}"));
        let conn = match &self.config.tls {
            None => Conn::plain(socket),
            Some(tls) => match rustls::ServerConnection::new(Arc::clone(&tls.0)) {
                Ok(t) => Conn::tls(socket, t.into()),
                Err(e) => return self.log(format!("{name}: {e}")),
            },
        };
        let files = DataFiles::new(&self.config.dir, format!("{}.{name}", self.config.prefix));
        let mut protocol = Protocol::new(self.config.limits.clone(), matches!(peer, Peer::Vsock { .. }));
        if self.config.only_v1 {
            protocol = protocol.only_v1();
        }
        let mut client = Client::new(conn, protocol, peer, name, files, self.config.tls.is_some());
        client.deadline = Some(Instant::now() + self.config.limits.handshake);
        let Some(control) = &mut client.control else { return };
        control.send(GREETING);
        let watch = EpollEvent::new(EpollFlags::EPOLLIN, token(KIND_CONTROL, id, 0));
        if let Err(e) = control.flush().and_then(|()| Ok(self.epoll.add(control.as_fd(), watch)?)) {
            return self.log(format!("{}: {e}", client.name));
        }
        self.clients.insert(id, client);
    }

    /// The control connection of a client has something to read or takes something.
    fn control(&mut self, id: u32, flags: EpollFlags) {
        let Some(mut c) = self.clients.remove(&id) else { return };
        match self.control_of(id, &mut c, flags) {
            Ok(()) => {}
            Err(e) => {
                // Without its metadata no file can be made of anything that may still come.
                let hopeless = c.stage != Stage::Recording;
                self.in_trouble(&mut c, e);
                self.last_chance(id, &mut c, hopeless);
            }
        }
        self.keep(id, c);
    }

    /// The peer is gone: connections for data that it made before are taken, others are not waited for; nor are datagrams if
    /// that is `hopeless`.
    fn last_chance(&mut self, id: u32, c: &mut Client, hopeless: bool) {
        let waits = |c: &Client, cpu: usize| {
            c.cpus.get(cpu).is_some_and(|d| match d.port {
                Port::Waiting(_) => true,
                Port::Udp(..) => hopeless,
                _ => false,
            })
        };
        for cpu in 0..c.cpus.len() {
            if !waits(c, cpu) {
                continue;
            }
            // What is wrong with such a connection costs that connection only.
            let _ = self.connect(id, c, cpu as u32);
            let layout = c.layout;
            let received = c.cpus.get_mut(cpu).map(|d| turn(d, layout, &mut self.buf));
            if let Some(Ok(Turn { end: true, .. })) = received {
                let _ = self.end_of_data(c, cpu as u32);
            }
            if waits(c, cpu)
                && let Some(d) = c.cpus.get_mut(cpu)
            {
                if let Some(fd) = d.fd() {
                    let _ = self.epoll.delete(fd);
                }
                d.port = Port::Closed;
            }
        }
    }

    fn control_of(&mut self, id: u32, c: &mut Client, flags: EpollFlags) -> Result<(), String> {
        let mut out = Vec::new();
        let Some(control) = &mut c.control else { return Ok(()) };
        if flags.contains(EpollFlags::EPOLLOUT) {
            control.flush().map_err(|e| format!("connection broke: {e}"))?;
        }
        let mut left = TURN;
        let mut buf = std::mem::take(&mut self.buf);
        let mut result = Ok(());
        while left > 0 {
            let Some(control) = &mut c.control else { break };
            match control.read(&mut buf) {
                Ok(0) => {
                    self.forget_control(c);
                    result = c.protocol.end(&mut out).map_err(|e| e.to_string());
                    break;
                }
                Ok(n) => {
                    left = left.saturating_sub(n);
                    result = c.protocol.feed(buf.get(..n).unwrap_or_default(), &mut out).map_err(|e| e.to_string());
                    // What was good before the fault counts.
                    let handled = self.handle(id, c, &mut out);
                    result = result.and(handled);
                    if c.stage == Stage::Metadata {
                        c.deadline = Some(Instant::now() + self.config.limits.metadata);
                    }
                    if result.is_err() {
                        break;
                    }
                }
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => break,
                Err(e) => {
                    result = Err(format!("connection broke: {e}"));
                    break;
                }
            }
        }
        self.buf = buf;
        let handled = self.handle(id, c, &mut out);
        result.and(handled)?;
        if let Some(control) = &mut c.control {
            if control.waiting() > 1 << 16 {
                return Err("it does not read what it is answered".into());
            }
            let mut want = EpollFlags::EPOLLIN;
            want.set(EpollFlags::EPOLLOUT, control.wants_write());
            let mut event = EpollEvent::new(want, token(KIND_CONTROL, id, 0));
            self.epoll.modify(control.as_fd(), &mut event).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    fn handle(&mut self, id: u32, c: &mut Client, out: &mut Vec<Event>) -> Result<(), String> {
        for e in out.drain(..) {
            match e {
                Event::Reply(bytes) => self.reply(c, &bytes)?,
                Event::Log(line) => self.log(format!("{}: {line}", c.name)),
                Event::Announced(a) => {
                    if let Some(why) = self.no_room() {
                        return Err(format!("refused: {why}"));
                    }
                    self.log(format!("cpus={}", a.cpus));
                    self.log(format!("pagesize={}", a.subbuf));
                    if a.carrier == crate::net::handshake::Carrier::Tcp {
                        self.log("Using TCP for live connection".into());
                    }
                    c.open_metadata().map_err(|e| format!("{}: {e}", c.files.metadata().display()))?;
                    let local = match &c.control {
                        Some(control) => control.raw().local_addr().ok().and_then(|a| a.as_socket()).map(plain_addr),
                        None => None,
                    };
                    let (cpus, ports) = socket::open_data_ports(&a, local, &c.peer, &self.config.data_ports, &c.files)
                        .map_err(|e| e.to_string())?;
                    c.cpus = cpus;
                    for (cpu, d) in c.cpus.iter_mut().enumerate() {
                        d.count_events = self.progress.is_some();
                        if let Some(fd) = d.fd() {
                            self.watch_data(fd, id, cpu as u32).map_err(|e| e.to_string())?;
                        }
                    }
                    c.announced = Some(a);
                    let answer = c.protocol.ports(&ports).map_err(|e| e.to_string())?;
                    self.reply(c, &answer)?;
                    c.stage = Stage::Metadata;
                    c.deadline = Some(Instant::now() + self.config.limits.metadata);
                }
                Event::Metadata(bytes) => {
                    c.metadata(&bytes).map_err(|e| format!("{}: {e}", c.files.metadata().display()))?;
                    if c.metadata_bytes > self.config.limits.max_metadata {
                        return Err(format!("more than {} bytes of metadata", self.config.limits.max_metadata));
                    }
                    self.check_size(c, 0)?;
                    if c.protocol.version() == 1 && c.layout.is_some() {
                        // The end of V1's metadata is the end of the recording, which may be long and silent.
                        c.stage = Stage::Recording;
                        c.deadline = None;
                    }
                }
                Event::MetadataDone => {
                    c.stage = Stage::Recording;
                    c.deadline = None;
                }
                Event::Final(bytes) => {
                    c.last_words.extend(bytes);
                    if c.last_words.len() > MOST_LAST_WORDS {
                        return Err("too much at the end of the recording".into());
                    }
                }
                Event::Close => self.drain(c),
            }
        }
        Ok(())
    }

    fn reply(&mut self, c: &mut Client, bytes: &[u8]) -> Result<(), String> {
        let Some(control) = &mut c.control else { return Ok(()) };
        control.send(bytes);
        control.flush().map_err(|e| format!("connection broke: {e}"))
    }

    fn watch_data(&self, fd: BorrowedFd<'_>, id: u32, cpu: u32) -> nix::Result<()> {
        self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token(KIND_DATA, id, cpu)))
    }

    fn forget_control(&self, c: &mut Client) {
        if let Some(mut control) = c.control.take() {
            let _ = self.epoll.delete(control.as_fd());
            control.finish();
        }
    }

    /// No more is expected but what is on the way.
    fn drain(&mut self, c: &mut Client) {
        c.stage = Stage::Draining;
        c.deadline = None;
        c.last_data = Instant::now();
    }

    fn in_trouble(&mut self, c: &mut Client, why: String) {
        self.log(format!("{}: {why}", c.name));
        c.trouble.get_or_insert(why);
        self.forget_control(c);
        self.drain(c);
    }

    /// Data of these CPUs of clients, or their connections, have come. Two threads receive when there is work for both.
    fn data(&mut self, mut ready: Vec<(u32, u32)>) {
        ready.sort_unstable();
        let mut clients: Vec<(u32, Client)> = Vec::new();
        for (id, cpu) in &ready {
            if clients.last().is_none_or(|(last, _)| last != id) {
                let Some(c) = self.clients.remove(id) else { continue };
                clients.push((*id, c));
            }
            if let Some((_, c)) = clients.last_mut()
                && let Err(e) = self.connect(*id, c, *cpu)
            {
                self.broken(c, *cpu, &e);
            }
        }
        let mut work = Vec::new();
        for (id, c) in &mut clients {
            let layout = c.layout;
            for (cpu, d) in (0..).zip(&mut c.cpus).filter(|(cpu, _)| ready.binary_search(&(*id, *cpu)).is_ok()) {
                work.push((*id, cpu, layout, d));
            }
        }
        let half = work.len() / 2;
        let others = if half > 0 && self.parallel { work.split_off(half) } else { Vec::new() };
        let (buf, buf_of_others) = (&mut self.buf, &mut self.buf_of_others);
        let received = |work: Vec<(u32, u32, Option<Layout>, &mut CpuData)>, buf: &mut [u8]| -> Vec<_> {
            work.into_iter().map(|(id, cpu, layout, d)| (id, cpu, turn(d, layout, buf))).collect()
        };
        let done: Vec<(u32, u32, io::Result<Turn>)> = if others.is_empty() {
            received(work, buf)
        } else {
            std::thread::scope(|s| {
                let second = s.spawn(|| received(others, buf_of_others));
                let mut done = received(work, buf);
                done.extend(second.join().unwrap_or_default());
                done
            })
        };
        let mut outside: u64 = clients.iter().map(|(_, c)| c.bytes()).sum();
        for (id, mut c) in clients {
            outside -= c.bytes();
            for (_, cpu, turn) in done.iter().filter(|(of, ..)| *of == id) {
                match turn {
                    Ok(turn) => {
                        if turn.some {
                            c.last_data = Instant::now();
                        }
                        if turn.end
                            && let Err(e) = self.end_of_data(&mut c, *cpu)
                        {
                            self.broken(&mut c, *cpu, &e);
                        }
                    }
                    Err(e) => self.broken(&mut c, *cpu, e),
                }
            }
            if let Err(e) = self.check_size(&c, outside) {
                self.in_trouble(&mut c, e);
                self.stop_data(&mut c);
            }
            self.keep(id, c);
        }
    }

    /// The data of a CPU cannot be received, or not be kept.
    fn broken(&mut self, c: &mut Client, cpu: u32, e: &io::Error) {
        let why = format!("CPU {cpu}: {e}");
        let _ = self.end_of_data(c, cpu);
        // The other CPUs go on, unless it was the disk.
        if e.kind() == io::ErrorKind::ConnectionReset || e.kind() == io::ErrorKind::InvalidData {
            self.log(format!("{}: {why}", c.name));
            c.trouble.get_or_insert(why);
        } else {
            self.in_trouble(c, why);
        }
    }

    fn end_of_data(&mut self, c: &mut Client, cpu: u32) -> io::Result<()> {
        let Some(d) = c.cpus.get_mut(cpu as usize) else { return Ok(()) };
        if let Some(fd) = d.fd() {
            let _ = self.epoll.delete(fd);
        }
        d.finish(c.layout)
    }

    /// Takes the connection for the data of a CPU, if it is the one that is waited for.
    fn connect(&mut self, id: u32, c: &mut Client, cpu: u32) -> io::Result<()> {
        let Some(d) = c.cpus.get_mut(cpu as usize) else { return Ok(()) };
        let Port::Waiting(l) = &d.port else { return Ok(()) };
        let (socket, from) = match socket::accept(l) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            other => other?,
        };
        if !from.same_host(&c.peer) {
            d.counts.foreign += 1;
            self.log(format!("{}: refused data of {} for CPU {cpu}", c.name, from.number()));
            return Ok(());
        }
        prepare(&socket);
        let conn = match &self.config.tls {
            None => Conn::plain(socket),
            Some(tls) => {
                Conn::tls(socket, rustls::ServerConnection::new(Arc::clone(&tls.0)).map_err(io::Error::other)?.into())
            }
        };
        let _ = self.epoll.delete(l);
        d.port = Port::Stream(Box::new(conn));
        match d.fd() {
            Some(fd) => Ok(self.watch_data(fd, id, cpu)?),
            None => Ok(()),
        }
    }

    fn stop_data(&mut self, c: &mut Client) {
        for d in &mut c.cpus {
            if let Some(fd) = d.fd() {
                let _ = self.epoll.delete(fd);
            }
            if let Err(e) = d.finish(c.layout) {
                c.trouble.get_or_insert(format!("{}: {e}", d.path.display()));
            }
        }
    }

    /// Whether a client is within the limits; `outside` are bytes of clients that have been taken out too.
    fn check_size(&self, c: &Client, outside: u64) -> Result<(), String> {
        let limits = &self.config.limits;
        let mine = c.bytes();
        if mine > limits.max_size {
            return Err(format!("its {} bytes are reached", limits.max_size));
        }
        if mine + outside + self.done_bytes + self.clients.values().map(Client::bytes).sum::<u64>() > limits.max_total {
            return Err(format!("the {} bytes of all recordings are reached", limits.max_total));
        }
        Ok(())
    }

    /// Puts a client back, or completes its file when nothing more will come.
    fn keep(&mut self, id: u32, c: Client) {
        if c.stage == Stage::Draining && c.drained() {
            self.finish(c);
        } else {
            self.clients.insert(id, c);
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        let late: Vec<u32> = self.nameless.iter().filter(|(_, n)| n.2 <= now).map(|(id, _)| *id).collect();
        for id in late {
            if let Some((socket, peer, _)) = self.nameless.remove(&id) {
                let name = peer.number();
                self.welcome(id, socket, peer, name);
            }
        }
        let due: Vec<u32> = self
            .clients
            .iter()
            .filter(|(_, c)| c.deadline.is_some_and(|d| d <= now) || self.drained_at(c).is_some_and(|d| d <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let Some(mut c) = self.clients.remove(&id) else { continue };
            if c.stage != Stage::Draining {
                let why = format!("nothing came in time while waiting for {}", c.protocol.waits_for());
                self.in_trouble(&mut c, why);
                self.keep(id, c);
                continue;
            }
            if c.streams() && !self.ending && c.trouble.is_none() {
                c.trouble = Some("its data stopped coming".into());
            }
            self.finish(c);
        }
    }

    /// A signal asks for the end: all recordings are completed with what they have.
    fn end_all(&mut self) {
        self.ending = true;
        for l in std::mem::take(&mut self.listeners) {
            let _ = self.epoll.delete(&l);
        }
        self.nameless.clear();
        for c in self.clients.values_mut() {
            if c.stage != Stage::Draining {
                c.stage = Stage::Draining;
                c.deadline = None;
                c.last_data = Instant::now();
            }
        }
        let ids: Vec<u32> = self.clients.keys().copied().collect();
        for id in ids {
            if let Some(mut c) = self.clients.remove(&id) {
                self.forget_control(&mut c);
                self.keep(id, c);
            }
        }
    }

    fn finish(&mut self, mut c: Client) {
        self.forget_control(&mut c);
        self.stop_data(&mut c);
        self.done_bytes += c.bytes();
        self.done.add(&c.counts());
        let job = Job::of(c);
        let (done, wake) = (self.finished.0.clone(), Arc::clone(&self.wake));
        self.finishing += 1;
        let spawned = std::thread::Builder::new().name("complete".into()).spawn(move || {
            let f = job.run();
            let _ = done.send(f);
            let _ = wake.write(1);
        });
        if let Err(e) = spawned {
            self.finishing -= 1;
            self.log(format!("a file could not be completed, its pieces are kept: {e}"));
        }
    }

    fn log(&self, line: String) {
        let print = || {
            // A log that cannot be written is no reason to lose recordings.
            let _ = match &self.config.log {
                Some(file) => {
                    let mut file: &File = file;
                    writeln!(file, "{line}")
                }
                None => {
                    let mut out = io::stdout().lock();
                    writeln!(out, "{line}").and_then(|()| out.flush())
                }
            };
        };
        match &self.progress {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// One line of progress: who records now, and what came since the start.
    fn show(&self) {
        let Some(bar) = &self.progress else { return };
        let mut sum = self.done;
        for c in self.clients.values() {
            sum.add(&c.counts());
        }
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        let n = self.clients.len();
        let mut text = format!(
            "{n} client{}, {} events, {} received",
            plural(n),
            indicatif::HumanCount(sum.events),
            indicatif::HumanBytes(sum.bytes)
        );
        for (count, what) in
            [(self.lost, "lost"), (sum.damaged, "damaged"), (sum.short, "cut off"), (sum.reordered, "late")]
        {
            if count > 0 {
                let _ = write!(text, ", {count} sub-buffer{} {what}", plural(count as usize));
            }
        }
        if sum.overrun > 0 {
            let _ = write!(text, ", {} datagram{} dropped", sum.overrun, plural(sum.overrun as usize));
        }
        for (count, what) in [(self.files, "complete"), (self.finishing as u64, "being completed")] {
            if count > 0 {
                let _ = write!(text, ", {count} file{} {what}", plural(count as usize));
            }
        }
        bar.set_message(text);
        bar.tick();
    }
}

/// Starts the thread that finds the names of addresses, one after the other.
fn resolver(asked: Receiver<(u32, IpAddr)>, answer: Sender<(u32, String)>, wake: Arc<EventFd>) -> io::Result<()> {
    std::thread::Builder::new().name("names".into()).spawn(move || {
        for (id, ip) in asked {
            let ip = ip.to_canonical();
            // An address without a name is called by its number.
            let name = dns_lookup::lookup_addr(&ip).unwrap_or_else(|_| ip.to_string());
            if answer.send((id, name)).is_err() {
                return;
            }
            let _ = wake.write(1);
        }
    })?;
    Ok(())
}
