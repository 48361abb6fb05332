//! The recording side of a listener connection: `record -N` and `record -V`.

use std::{
    fmt,
    fs::File,
    io::{self, Write},
    net::{SocketAddr, ToSocketAddrs, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{ClientConnection, pki_types::ServerName};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{
    conn::{Conn, prepare},
    handshake::{ASK_V3, Carrier, GREETING, MAGIC_V3, SAY_OK, SAY_V3},
    msg::{EXTENSION_FINAL, HEADER, MAX_DATA, MAX_MESSAGE, Msg, MsgError},
};

/// Sub-buffers from this size on do not fit a datagram: UDP gives way to TCP. Bytes.
const UDP_MOST: u32 = 65536 - 20;

/// How long a listener may take until the data ports that it named take connections.
const PATIENCE: Duration = Duration::from_secs(3);

/// Bytes that may be on the way to the listener for each CPU.
const SEND_BUFFER: usize = 512 << 10;

/// Where a listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Host name or address, and port.
    Ip {
        /// The host.
        host: String,
        /// The TCP port.
        port: u16,
    },
    /// vsock context and port.
    Vsock {
        /// The context id.
        cid: u32,
        /// The port.
        port: u32,
    },
}

impl FromStr for Target {
    type Err = String;

    /// Reads `host:port`, `[v6]:port`, or a bare port, which means this machine.
    fn from_str(s: &str) -> Result<Self, String> {
        let (host, port) = match s.rsplit_once(':') {
            Some((h, p)) => (h.trim_start_matches('[').trim_end_matches(']'), p),
            None => ("localhost", s),
        };
        let port = port.parse().map_err(|_| format!("{s:?}: {port:?} is no port; give HOST:PORT or PORT"))?;
        let host = if host.is_empty() { "localhost" } else { host };
        Ok(Target::Ip { host: host.to_owned(), port })
    }
}

impl Target {
    /// Reads `cid:port` of `-V`.
    ///
    /// # Errors
    /// A sentence that says which part is no number.
    pub fn vsock(s: &str) -> Result<Self, String> {
        let (cid, port) = s.split_once(':').ok_or_else(|| format!("{s:?}: give CID:PORT"))?;
        let number = |t: &str| t.parse::<u32>().map_err(|_| format!("{s:?}: {t:?} is no number; give CID:PORT"));
        Ok(Target::Vsock { cid: number(cid)?, port: number(port)? })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Ip { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Target::Ip { host, port } => write!(f, "{host}:{port}"),
            Target::Vsock { cid, port } => write!(f, "@{cid}:{port}"),
        }
    }
}

/// How to connect.
#[derive(Clone, Debug)]
pub struct Options {
    /// The listener.
    pub target: Target,
    /// Data over TCP instead of UDP.
    pub tcp: bool,
    /// Everything inside TLS; data are then over TCP.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Longest wait for an answer; `None`: for ever.
    pub timeout: Option<Duration>,
    /// A connection that takes no data for so long counts as broken; `None`: never.
    pub stall: Option<Duration>,
    /// Speak protocol V1 without asking for V3.
    pub only_v1: bool,
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// No connection.
    #[error("cannot connect to {target}")]
    Connect {
        /// The listener.
        target: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("connection to {target} broke while {what}")]
    Broken {
        /// The listener.
        target: String,
        /// What was done.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The other side speaks something else.
    #[error("{target} does not speak the listener's protocol: {why}")]
    Protocol {
        /// The listener.
        target: String,
        /// What it said.
        why: String,
    },
    /// TLS cannot be used.
    #[error("TLS with {target}: {why}")]
    Tls {
        /// The listener.
        target: String,
        /// What is wrong.
        why: String,
    },
}

/// A connection to a listener that has agreed to take a recording.
#[derive(Debug)]
pub struct Remote {
    control: Conn,
    options: Options,
    version: u8,
    carrier: Carrier,
    ports: Vec<u32>,
    addr: SockAddr,
    takes_final: bool,
    buf: Vec<u8>,
}

/// What the client knows at the end of a recording and a listener of our kind takes too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastWords {
    /// Sub-buffers sent, for each CPU: what is missing was lost on the way.
    pub sent: Vec<u64>,
    /// The saved command lines at the end.
    pub cmdlines: Vec<u8>,
    /// Options of the file: number and content, in the file's byte order.
    pub options: Vec<(u16, Vec<u8>)>,
}

impl LastWords {
    /// The bytes on the wire: records of a tag byte, a big-endian length and the content.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut put = |tag: u8, head: &[u8], body: &[u8]| {
            out.push(tag);
            out.extend(((head.len() + body.len()) as u32).to_be_bytes());
            out.extend_from_slice(head);
            out.extend_from_slice(body);
        };
        let sent: Vec<u8> = self.sent.iter().flat_map(|n| n.to_be_bytes()).collect();
        put(1, &[], &sent);
        put(2, &[], &self.cmdlines);
        for (id, content) in &self.options {
            put(3, &id.to_be_bytes(), content);
        }
        out
    }

    /// Reads those bytes; what is cut off or unknown is left out.
    pub fn decode(mut bytes: &[u8]) -> Self {
        let mut words = LastWords::default();
        while let Some((head, rest)) = bytes.split_first_chunk::<5>() {
            let [tag, len @ ..] = *head;
            let Some((content, rest)) = rest.split_at_checked(u32::from_be_bytes(len) as usize) else { break };
            bytes = rest;
            match tag {
                1 => words.sent = content.as_chunks::<8>().0.iter().map(|b| u64::from_be_bytes(*b)).collect(),
                2 => words.cmdlines = content.to_vec(),
                3 => {
                    if let Some((id, content)) = content.split_first_chunk::<2>() {
                        words.options.push((u16::from_be_bytes(*id), content.to_vec()));
                    }
                }
                _ => {}
            }
        }
        words
    }
}

impl Remote {
    /// Connects and announces a recording of `cpus` CPUs with sub-buffers of `subbuf` bytes.
    ///
    /// Protocol V3 is tried first, then V1, for which the file must be of version 6 and uncompressed:
    /// see [`Remote::version`].
    ///
    /// # Errors
    /// Nobody listens, the other side does not speak the protocol, or refuses TLS.
    pub fn connect(options: Options, cpus: u32, subbuf: u32) -> Result<Self, RemoteError> {
        let mut r = Self::open(&options)?;
        r.hello()?;
        if options.only_v1 {
            r.init_v1(cpus, subbuf)?;
        } else if r.v3()? {
            r.init_v3(cpus, subbuf)?;
        } else if options.tls.is_some() {
            return Err(r.wrong("it ended the connection when asked for protocol V3".into()));
        } else {
            // An old listener took the question for a CPU count and closed.
            r = Self::open(&options)?;
            r.hello()?;
            r.init_v1(cpus, subbuf)?;
        }
        if r.ports.len() != cpus as usize {
            return Err(r.wrong(format!("{} data ports for {cpus} CPUs", r.ports.len())));
        }
        Ok(r)
    }

    fn open(options: &Options) -> Result<Self, RemoteError> {
        let target = options.target.to_string();
        let failed = |source| RemoteError::Connect { target: target.clone(), source };
        let (socket, addr) = connect(&options.target, options.timeout).map_err(failed)?;
        prepare(&socket);
        socket.set_read_timeout(options.timeout).map_err(failed)?;
        socket.set_write_timeout(options.timeout).map_err(failed)?;
        let control = match &options.tls {
            None => Conn::plain(socket),
            Some(config) => {
                let mut conn = Conn::tls(socket, session(&options.target, config)?.into());
                conn.handshake().map_err(|e| RemoteError::Tls { target: target.clone(), why: e.to_string() })?;
                conn
            }
        };
        let carrier = match (&options.target, options.tcp || options.tls.is_some()) {
            (Target::Vsock { .. }, _) => Carrier::Vsock,
            (_, true) => Carrier::Tcp,
            _ => Carrier::Udp,
        };
        Ok(Remote {
            control,
            options: options.clone(),
            version: 1,
            carrier,
            ports: Vec::new(),
            addr,
            takes_final: false,
            buf: Vec::new(),
        })
    }

    /// Protocol version that both agreed on: 1 or 3.
    pub fn version(&self) -> u8 {
        self.version
    }

    /// How the data travel.
    pub fn carrier(&self) -> Carrier {
        self.carrier
    }

    /// The socket to be watched: it becomes readable when the listener goes away.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    fn hello(&mut self) -> Result<(), RemoteError> {
        let mut got = [0; GREETING.len()];
        self.read_exact(&mut got, "waiting for its greeting")?;
        if got != *GREETING {
            return Err(self.wrong(format!("it begins with {:?}", String::from_utf8_lossy(&got))));
        }
        Ok(())
    }

    /// Asks for V3: `false` when the listener only knows V1.
    fn v3(&mut self) -> Result<bool, RemoteError> {
        self.write(ASK_V3, "asking for protocol V3")?;
        let mut got = [0; SAY_V3.len()];
        match self.read_exact(&mut got, "waiting for its protocol version") {
            Ok(()) => {}
            Err(RemoteError::Broken { .. }) => return Ok(false),
            Err(e) => return Err(e),
        }
        if got != *SAY_V3 {
            return Err(self.wrong(format!("it offers protocol {:?}", String::from_utf8_lossy(&got))));
        }
        self.write(MAGIC_V3, "starting protocol V3")?;
        let mut got = [0; SAY_OK.len()];
        self.read_exact(&mut got, "starting protocol V3")?;
        if got != *SAY_OK {
            return Err(self.wrong(format!("it answers {:?} instead of OK", String::from_utf8_lossy(&got))));
        }
        self.version = 3;
        Ok(true)
    }

    fn init_v3(&mut self, cpus: u32, subbuf: u32) -> Result<(), RemoteError> {
        if self.carrier == Carrier::Udp && subbuf >= UDP_MOST {
            self.carrier = Carrier::Tcp;
        }
        let options = match self.carrier {
            Carrier::Udp => vec![],
            Carrier::Tcp => vec!["tcp".to_owned()],
            Carrier::Vsock => vec!["vsock".to_owned()],
        };
        self.send(&Msg::TInit { cpus, page_size: subbuf, options, extensions: EXTENSION_FINAL })?;
        match self.receive("waiting for the data ports")? {
            Msg::RInit { ports, extensions } => {
                self.ports = ports;
                self.takes_final = extensions & EXTENSION_FINAL != 0;
                Ok(())
            }
            m => Err(self.wrong(format!("{m} message instead of RINIT"))),
        }
    }

    fn init_v1(&mut self, cpus: u32, subbuf: u32) -> Result<(), RemoteError> {
        if subbuf >= UDP_MOST {
            self.carrier = Carrier::Tcp;
        }
        let mut text = format!("{cpus}\0{subbuf}\0").into_bytes();
        text.extend_from_slice(if self.carrier == Carrier::Tcp { b"1\x004\0TCP\0" } else { b"0\0" });
        self.write(&text, "announcing the recording")?;
        let mut ports = Vec::new();
        let mut byte = [0];
        loop {
            self.read_exact(&mut byte, "waiting for the data ports")?;
            match byte[0] {
                0 => break,
                _ if ports.len() > 16 * cpus as usize + 16 => return Err(self.wrong("endless list of ports".into())),
                b => ports.push(b),
            }
        }
        let text = String::from_utf8_lossy(&ports).into_owned();
        self.ports = text
            .split(',')
            .map(|p| p.trim().parse().map_err(|_| self.wrong(format!("{text:?} are no ports"))))
            .collect::<Result<_, _>>()?;
        Ok(())
    }

    /// Sends the file's metadata: all that comes before the per-CPU data.
    ///
    /// # Errors
    /// The connection broke.
    pub fn metadata(&mut self, bytes: &[u8]) -> Result<(), RemoteError> {
        if self.version == 1 {
            return self.write(bytes, "sending metadata");
        }
        for piece in bytes.chunks(MAX_DATA) {
            self.send(&Msg::SendData(piece.to_vec()))?;
        }
        self.send(&Msg::FinData)
    }

    /// Connects the data of one CPU.
    ///
    /// # Errors
    /// The port does not answer.
    pub fn data(&self, cpu: u32) -> Result<DataSink, RemoteError> {
        let target = &self.options.target;
        let port = *self.ports.get(cpu as usize).ok_or_else(|| self.wrong(format!("no data port for CPU {cpu}")))?;
        let failed = |source| RemoteError::Connect { target: format!("{target}, data port {port}"), source };
        // The listener answered at this very address; another of the same name may be another machine.
        let addr = match (&self.options.target, self.addr.as_socket()) {
            (Target::Vsock { cid, .. }, _) => SockAddr::vsock(*cid, port),
            (_, Some(mut a)) => {
                a.set_port(u16::try_from(port).map_err(|_| self.wrong(format!("data port {port}")))?);
                a.into()
            }
            _ => return Err(self.wrong("no address".into())),
        };
        if self.carrier == Carrier::Udp {
            let to = addr.as_socket().ok_or_else(|| failed(io::ErrorKind::AddrNotAvailable.into()))?;
            let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
            let s = UdpSocket::bind(any).map_err(failed)?;
            s.connect(to).map_err(failed)?;
            return Ok(DataSink::Udp(s));
        }
        // C trace-cmd tells its ports before the processes behind them wait for connections.
        let patience = Instant::now() + self.options.timeout.unwrap_or(PATIENCE).min(PATIENCE);
        let s = loop {
            let s = Socket::new(addr.domain(), Type::STREAM, None).map_err(failed)?;
            let done = match self.options.timeout {
                Some(t) if addr.is_ipv4() || addr.is_ipv6() => s.connect_timeout(&addr, t),
                _ => s.connect(&addr),
            };
            let not_yet = |e: &io::Error| {
                matches!(e.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset)
                    && Instant::now() < patience
            };
            match done {
                Ok(()) => break s,
                Err(e) if not_yet(&e) => std::thread::sleep(Duration::from_millis(20)),
                Err(e) => return Err(failed(e)),
            }
        };
        prepare(&s);
        // What is on the way when a line breaks must be known, so it is bounded.
        let _ = s.set_send_buffer_size(SEND_BUFFER);
        s.set_write_timeout(self.options.stall).map_err(failed)?;
        match &self.options.tls {
            None => Ok(DataSink::Stream(s)),
            Some(config) => {
                s.set_read_timeout(self.options.timeout).map_err(failed)?;
                let mut conn = Conn::tls(s, session(target, config)?.into());
                conn.handshake().map_err(failed)?;
                Ok(DataSink::Tls(Box::new(conn)))
            }
        }
    }

    /// Ends the recording after all data were sent. A listener of our kind gets `last` too.
    ///
    /// # Errors
    /// The connection broke.
    pub fn close(mut self, last: &LastWords) -> Result<(), RemoteError> {
        if self.version == 3 {
            if self.takes_final {
                for piece in last.encode().chunks(MAX_DATA) {
                    self.send(&Msg::SendData(piece.to_vec()))?;
                }
                self.send(&Msg::FinData)?;
            }
            self.send(&Msg::Close)?;
        }
        self.control.finish();
        Ok(())
    }

    fn send(&mut self, m: &Msg) -> Result<(), RemoteError> {
        let bytes = m.encode().map_err(|e: MsgError| self.wrong(e.to_string()))?;
        self.write(&bytes, m.name_for_people())
    }

    fn receive(&mut self, what: &'static str) -> Result<Msg, RemoteError> {
        loop {
            match Msg::decode(&self.buf).map_err(|e| self.wrong(e.to_string()))? {
                Some((m, len)) => {
                    self.buf.drain(..len);
                    return Ok(m);
                }
                None => {
                    let have = self.buf.len();
                    // First the header, then what it says is missing.
                    let need = match self.buf.first_chunk::<4>() {
                        Some(size) if have >= HEADER => {
                            (u32::from_be_bytes(*size) as usize).clamp(have + 1, MAX_MESSAGE)
                        }
                        _ => HEADER,
                    };
                    let mut more = vec![0; need - have];
                    self.read_exact(&mut more, what)?;
                    self.buf.extend(more);
                }
            }
        }
    }

    fn read_exact(&mut self, mut to: &mut [u8], what: &'static str) -> Result<(), RemoteError> {
        while !to.is_empty() {
            match self.control.read(to) {
                Ok(0) => return Err(self.broken(what, io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => to = to.split_at_mut(n).1,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    return Err(self.wrong(format!("no answer in time while {what}")));
                }
                Err(e) => return Err(self.broken(what, e)),
            }
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], what: &'static str) -> Result<(), RemoteError> {
        self.control.send(bytes);
        self.control.flush().map_err(|e| self.broken(what, e))?;
        if self.control.wants_write() {
            return Err(self.broken(what, io::ErrorKind::TimedOut.into()));
        }
        Ok(())
    }

    fn broken(&self, what: &'static str, source: io::Error) -> RemoteError {
        RemoteError::Broken { target: self.options.target.to_string(), what, source }
    }

    fn wrong(&self, why: String) -> RemoteError {
        RemoteError::Protocol { target: self.options.target.to_string(), why }
    }
}

fn session(target: &Target, config: &Arc<rustls::ClientConfig>) -> Result<ClientConnection, RemoteError> {
    let name = match target {
        Target::Ip { host, .. } => host.clone(),
        Target::Vsock { cid, .. } => format!("vsock-{cid}"),
    };
    let tls = |why: String| RemoteError::Tls { target: target.to_string(), why };
    let name = ServerName::try_from(name).map_err(|e| tls(e.to_string()))?;
    ClientConnection::new(Arc::clone(config), name).map_err(|e| tls(e.to_string()))
}

fn connect(target: &Target, timeout: Option<Duration>) -> io::Result<(Socket, SockAddr)> {
    match target {
        Target::Vsock { cid, port } => {
            let addr = SockAddr::vsock(*cid, *port);
            let s = Socket::new(Domain::VSOCK, Type::STREAM, None)?;
            s.connect(&addr)?;
            Ok((s, addr))
        }
        Target::Ip { host, port } => {
            let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
            for a in (host.as_str(), *port).to_socket_addrs()? {
                let addr = SockAddr::from(a);
                let s = Socket::new(Domain::for_address(a), Type::STREAM, None)?;
                let done = match timeout {
                    Some(t) => s.connect_timeout(&addr, t),
                    None => s.connect(&addr),
                };
                match done {
                    Ok(()) => return Ok((s, addr)),
                    Err(e) => last = e,
                }
            }
            Err(last)
        }
    }
}

/// Where the data of one CPU go.
#[derive(Debug)]
pub enum DataSink {
    /// A TCP or vsock connection; pages can be spliced into it.
    Stream(Socket),
    /// Datagrams: each write must be one sub-buffer.
    Udp(UdpSocket),
    /// A TCP connection inside TLS.
    Tls(Box<Conn>),
    /// A port to the host.
    Fifo(File),
}

impl DataSink {
    /// Whether each write must be exactly one sub-buffer.
    pub fn is_datagram(&self) -> bool {
        matches!(self, DataSink::Udp(_))
    }

    /// Bytes that were written but have not reached the listener's machine; `None` where that is not known.
    pub fn on_the_way(&self) -> Option<usize> {
        match self {
            DataSink::Stream(s) => crate::sys::unsent(s.as_fd()),
            DataSink::Udp(_) | DataSink::Fifo(_) => None,
            // The encrypted bytes are a few more than the plain ones.
            DataSink::Tls(c) => Some(crate::sys::unsent(c.as_fd())? + c.waiting()),
        }
    }

    /// Says that nothing more will come.
    pub fn finish(&mut self) {
        match self {
            DataSink::Stream(s) => drop(s.shutdown(std::net::Shutdown::Write)),
            DataSink::Udp(_) | DataSink::Fifo(_) => {}
            DataSink::Tls(c) => {
                c.finish();
                // The farewell of the other side: without reading it the kernel would reset the connection.
                let _ = c.raw().set_read_timeout(Some(Duration::from_secs(2)));
                let mut sink = [0; 1024];
                while matches!(c.read(&mut sink), Ok(n) if n > 0) {}
            }
        }
    }
}

impl Write for DataSink {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            DataSink::Stream(s) => s.write(buf),
            DataSink::Fifo(f) => f.write(buf),
            DataSink::Udp(s) => match s.send(buf) {
                // Nobody listens any more: the kernel was told by an earlier datagram.
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Err(io::ErrorKind::BrokenPipe.into()),
                other => other,
            },
            DataSink::Tls(c) => {
                c.send(buf);
                c.flush()?;
                // The socket blocks: it has waited as long as it may.
                if c.wants_write() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(buf.len()) }
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            DataSink::Tls(c) => c.flush(),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let ip = |h: &str, p| Ok(Target::Ip { host: h.into(), port: p });
        assert_eq!("box:5000".parse(), ip("box", 5000));
        assert_eq!("5000".parse(), ip("localhost", 5000));
        assert_eq!("[::1]:5000".parse(), ip("::1", 5000));
        assert_eq!(Target::Ip { host: "::1".into(), port: 5000 }.to_string(), "[::1]:5000");
        assert!("box:".parse::<Target>().is_err());
        assert!("box:70000".parse::<Target>().is_err());
        assert_eq!(Target::vsock("3:823"), Ok(Target::Vsock { cid: 3, port: 823 }));
        assert!(Target::vsock("823").is_err());
    }

    #[test]
    fn last_words_come_back_and_survive_cuts() {
        let w = LastWords {
            sent: vec![5, 1 << 40],
            cmdlines: b"1 init\n".to_vec(),
            options: vec![(3, vec![1, 2]), (9, vec![])],
        };
        let b = w.encode();
        assert_eq!(LastWords::decode(&b), w);
        for n in 0..b.len() {
            LastWords::decode(&b[..n]);
        }
    }
}
