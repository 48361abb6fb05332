//! The listener's side of a control connection: protocols V1 and V3 as a state machine over bytes, without any socket.
//!
//! Bytes go in by [`Protocol::feed`], what is to be done comes out as [`Event`]s. The machine keeps at most one message or
//! one handshake string, so a peer cannot make it grow.

use super::{
    limits::Limits,
    msg::{EXTENSION_FINAL, MAX_MESSAGE, Msg, MsgError},
};

/// What the listener sends first.
pub const GREETING: &[u8] = b"tracecmd";
/// The client's answer that asks for protocol V3, with its NUL.
pub const ASK_V3: &[u8] = b"-1V3\0";
/// The listener's consent to V3.
pub const SAY_V3: &[u8] = b"V3\0";
/// What the client proves itself with: the text and two NULs.
pub const MAGIC_V3: &[u8; 8] = b"766679\0\0";
/// The listener's answer to the magic, without a NUL.
pub const SAY_OK: &[u8] = b"OK";

/// Longest string of the handshake, in bytes.
const MAX_WORD: usize = 64;
/// Longest option of protocol V1, in bytes.
const MAX_OPTION: usize = 4096;

/// How the per-CPU data travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Carrier {
    /// Datagrams, one a sub-buffer.
    #[default]
    Udp,
    /// A TCP connection for each CPU.
    Tcp,
    /// A vsock connection for each CPU.
    Vsock,
}

/// What a client announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Protocol version: 1 or 3.
    pub version: u8,
    /// Number of CPUs.
    pub cpus: u32,
    /// Sub-buffer size, in bytes.
    pub subbuf: u32,
    /// How its data will come.
    pub carrier: Carrier,
    /// It will send its final counts, command lines and options before CLOSE.
    pub sends_final: bool,
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Send these bytes.
    Reply(Vec<u8>),
    /// Open the data ports, then call [`Protocol::ports`].
    Announced(Announced),
    /// Append these bytes to the file's metadata.
    Metadata(Vec<u8>),
    /// The metadata is complete.
    MetadataDone,
    /// Append these bytes to what the client says at the end.
    Final(Vec<u8>),
    /// The client ends the recording.
    Close,
    /// Worth a line in the log.
    Log(String),
}

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A handshake string is too long or not the expected one.
    #[error("handshake: {0}")]
    Handshake(String),
    /// Bytes that are no message.
    #[error(transparent)]
    Message(#[from] MsgError),
    /// A message that does not belong here.
    #[error("{got} message while waiting for {want}")]
    Unexpected {
        /// What came.
        got: &'static str,
        /// What should have come.
        want: &'static str,
    },
    /// What the client claims is out of bounds.
    #[error("refused: {0}")]
    Refused(String),
    /// The connection ended too early.
    #[error("connection ended while waiting for {0}")]
    Ended(&'static str),
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Version { unknown: Option<Vec<u8>> },
    Magic,
    TInit,
    Ports,
    Metadata,
    Recording,
    Closed,
    V1Subbuf { cpus: u32 },
    V1OptionCount { cpus: u32, subbuf: u32 },
    V1OptionSize { left: u32 },
    V1Option { left: u32, size: usize },
    V1Metadata,
}

/// The listener's side of one control connection.
#[derive(Debug)]
pub struct Protocol {
    state: State,
    buf: Vec<u8>,
    limits: Limits,
    announced: Announced,
    over_vsock: bool,
    only_v1: bool,
}

impl Protocol {
    /// A new connection, after [`GREETING`] was sent. `over_vsock`: the control connection is one of vsock.
    pub fn new(limits: Limits, over_vsock: bool) -> Self {
        Protocol {
            state: State::Version { unknown: None },
            buf: Vec::new(),
            limits,
            announced: Announced { version: 1, cpus: 0, subbuf: 0, carrier: Carrier::Udp, sends_final: false },
            over_vsock,
            only_v1: false,
        }
    }

    /// Answers as a listener of before V3: the question for it is taken for an impossible CPU count.
    pub fn only_v1(mut self) -> Self {
        self.only_v1 = true;
        self
    }

    /// Protocol version that the client announced; 1 before that.
    pub fn version(&self) -> u8 {
        self.announced.version
    }

    /// What the machine waits for, in words.
    pub fn waits_for(&self) -> &'static str {
        match self.state {
            State::Version { .. } => "the protocol version",
            State::Magic => "the magic of protocol V3",
            State::TInit => "TINIT",
            State::Ports => "the data ports",
            State::Metadata => "metadata",
            State::V1Metadata => "metadata",
            State::Recording => "CLOSE",
            State::Closed => "nothing",
            State::V1Subbuf { .. } => "the page size",
            State::V1OptionCount { .. } => "the number of options",
            State::V1OptionSize { .. } => "the size of an option",
            State::V1Option { .. } => "an option",
        }
    }

    /// Whether the handshake is still going on.
    pub fn in_handshake(&self) -> bool {
        !matches!(self.state, State::Metadata | State::V1Metadata | State::Recording | State::Closed)
    }

    /// Whether metadata is being received.
    pub fn in_metadata(&self) -> bool {
        matches!(self.state, State::Metadata | State::V1Metadata)
    }

    /// Takes bytes of the peer.
    ///
    /// # Errors
    /// Any [`ProtocolError`] ends this connection.
    pub fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<Event>) -> Result<(), ProtocolError> {
        loop {
            match self.state {
                State::V1Metadata => {
                    let mut all = std::mem::take(&mut self.buf);
                    all.extend_from_slice(bytes);
                    if !all.is_empty() {
                        out.push(Event::Metadata(all));
                    }
                    return Ok(());
                }
                State::Closed => return Ok(()),
                State::Ports => {
                    // The client waits for the ports now; more than a message is not honest.
                    self.buf.extend_from_slice(bytes);
                    if self.buf.len() > MAX_MESSAGE {
                        return Err(ProtocolError::Handshake("data before the ports were told".into()));
                    }
                    return Ok(());
                }
                _ => {}
            }
            // Never more than one message's worth is held.
            let room = MAX_MESSAGE - self.buf.len().min(MAX_MESSAGE);
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.buf.extend_from_slice(now);
            bytes = later;
            if !self.step(out)? && bytes.is_empty() {
                return Ok(());
            }
        }
    }

    /// The data ports are open: returns what is to be sent to the client, and goes on.
    ///
    /// # Errors
    /// [`ProtocolError::Message`] when there are more ports than a message holds.
    pub fn ports(&mut self, ports: &[u32]) -> Result<Vec<u8>, ProtocolError> {
        if self.announced.version == 3 {
            self.state = State::Metadata;
            let extensions = if self.announced.sends_final { EXTENSION_FINAL } else { 0 };
            return Ok(Msg::RInit { ports: ports.to_vec(), extensions }.encode()?);
        }
        self.state = State::V1Metadata;
        let mut text = ports.iter().map(u32::to_string).collect::<Vec<_>>().join(",").into_bytes();
        text.push(0);
        Ok(text)
    }

    /// The peer closed its side.
    ///
    /// # Errors
    /// [`ProtocolError::Ended`] when that was too early; a client of V1 ends its metadata so, which gives
    /// [`Event::MetadataDone`] and [`Event::Close`].
    pub fn end(&mut self, out: &mut Vec<Event>) -> Result<(), ProtocolError> {
        match self.state {
            State::V1Metadata => {
                out.extend([Event::MetadataDone, Event::Close]);
                self.state = State::Closed;
                Ok(())
            }
            State::Closed => Ok(()),
            _ => Err(ProtocolError::Ended(self.waits_for())),
        }
    }

    /// One step on the buffered bytes; `false` when more are needed.
    fn step(&mut self, out: &mut Vec<Event>) -> Result<bool, ProtocolError> {
        match &self.state {
            State::Version { unknown } => {
                let unknown = unknown.clone();
                let Some(word) = self.word()? else { return Ok(false) };
                self.asked_for(word, unknown, out)?;
            }
            State::Magic => {
                if !self.buf.starts_with(MAGIC_V3) && !MAGIC_V3.starts_with(&self.buf) {
                    return Err(ProtocolError::Handshake("wrong magic for protocol V3".into()));
                }
                if self.buf.len() < MAGIC_V3.len() {
                    return Ok(false);
                }
                self.buf.drain(..MAGIC_V3.len());
                out.push(Event::Reply(SAY_OK.to_vec()));
                self.state = State::TInit;
            }
            State::TInit => {
                let Some(m) = self.message()? else { return Ok(false) };
                let Msg::TInit { cpus, page_size, options, extensions } = m else {
                    return Err(ProtocolError::Unexpected { got: m.name(), want: "TINIT" });
                };
                let mut carrier = if self.over_vsock { Carrier::Vsock } else { Carrier::Udp };
                for o in &options {
                    match o.as_str() {
                        "tcp" => carrier = Carrier::Tcp,
                        "vsock" if self.over_vsock => carrier = Carrier::Vsock,
                        "vsock" => {
                            return Err(ProtocolError::Refused("vsock data for a client that is not on vsock".into()));
                        }
                        _ => out.push(Event::Log(format!("unknown option {o:?} ignored"))),
                    }
                }
                let sends_final = extensions & EXTENSION_FINAL != 0;
                self.announce(Announced { version: 3, cpus, subbuf: page_size, carrier, sends_final }, out)?;
            }
            State::Metadata => {
                let Some(m) = self.message()? else { return Ok(false) };
                match m {
                    Msg::SendData(bytes) => out.push(Event::Metadata(bytes)),
                    Msg::FinData => {
                        out.push(Event::MetadataDone);
                        self.state = State::Recording;
                    }
                    Msg::Close => {
                        return Err(ProtocolError::Unexpected { got: "CLOSE", want: "SEND_DATA or FIN_DATA" });
                    }
                    Msg::NotSupported => {}
                    m => self.not_supported(&m, out)?,
                }
            }
            State::Recording => {
                let Some(m) = self.message()? else { return Ok(false) };
                match m {
                    Msg::Close => {
                        out.push(Event::Close);
                        self.state = State::Closed;
                    }
                    Msg::SendData(bytes) if self.announced.sends_final => out.push(Event::Final(bytes)),
                    Msg::FinData if self.announced.sends_final => {}
                    Msg::NotSupported => {}
                    m => self.not_supported(&m, out)?,
                }
            }
            State::V1Subbuf { cpus } => {
                let cpus = *cpus;
                let Some(subbuf) = self.number("page size")? else { return Ok(false) };
                self.state = State::V1OptionCount { cpus, subbuf };
            }
            State::V1OptionCount { cpus, subbuf } => {
                let (cpus, subbuf) = (*cpus, *subbuf);
                let Some(left) = self.number("number of options")? else { return Ok(false) };
                if left > 16 {
                    return Err(ProtocolError::Refused(format!("{left} options")));
                }
                self.announced = Announced { version: 1, cpus, subbuf, carrier: Carrier::Udp, sends_final: false };
                self.options_left(left, out)?;
            }
            State::V1OptionSize { left } => {
                let left = *left;
                let Some(size) = self.number("size of an option")? else { return Ok(false) };
                if size as usize > MAX_OPTION {
                    return Err(ProtocolError::Refused(format!("an option of {size} bytes")));
                }
                self.state = State::V1Option { left, size: size as usize };
            }
            State::V1Option { left, size } => {
                let (left, size) = (*left, *size);
                if self.buf.len() < size {
                    return Ok(false);
                }
                let option: Vec<u8> = self.buf.drain(..size).collect();
                if option.strip_suffix(b"\0").unwrap_or(&option) != b"TCP" {
                    return Err(ProtocolError::Handshake(format!(
                        "unknown option {:?}",
                        String::from_utf8_lossy(&option)
                    )));
                }
                self.announced.carrier = Carrier::Tcp;
                self.options_left(left - 1, out)?;
            }
            State::Ports | State::V1Metadata | State::Closed => return Ok(false),
        }
        Ok(true)
    }

    fn asked_for(
        &mut self,
        word: Vec<u8>,
        unknown: Option<Vec<u8>>,
        out: &mut Vec<Event>,
    ) -> Result<(), ProtocolError> {
        if self.only_v1 && word.starts_with(b"-") {
            return Err(ProtocolError::Handshake("this listener only speaks protocol V1".into()));
        }
        if word == b"-1V3" {
            self.state = State::Magic;
            out.push(Event::Reply(SAY_V3.to_vec()));
        } else if let Some(version) = word.strip_prefix(b"-1").filter(|v| v.starts_with(b"V")) {
            if unknown.as_deref() == Some(&word) {
                return Err(ProtocolError::Handshake(format!(
                    "no common protocol: {}",
                    String::from_utf8_lossy(&word)
                )));
            }
            out.push(Event::Log(format!("protocol {} is not known, V3 offered", String::from_utf8_lossy(version))));
            out.push(Event::Reply(SAY_V3.to_vec()));
            self.state = State::Version { unknown: Some(word) };
        } else {
            let cpus = number("CPU count", &word)?;
            self.state = State::V1Subbuf { cpus };
        }
        Ok(())
    }

    fn options_left(&mut self, left: u32, out: &mut Vec<Event>) -> Result<(), ProtocolError> {
        if left > 0 {
            self.state = State::V1OptionSize { left };
            return Ok(());
        }
        self.announce(self.announced.clone(), out)
    }

    fn announce(&mut self, announced: Announced, out: &mut Vec<Event>) -> Result<(), ProtocolError> {
        self.limits.check(announced.cpus, announced.subbuf).map_err(ProtocolError::Refused)?;
        self.announced = announced.clone();
        self.state = State::Ports;
        out.push(Event::Announced(announced));
        Ok(())
    }

    fn not_supported(&mut self, m: &Msg, out: &mut Vec<Event>) -> Result<(), ProtocolError> {
        out.push(Event::Log(format!("{} message not expected, ignored", m.name())));
        out.push(Event::Reply(Msg::NotSupported.encode()?));
        Ok(())
    }

    fn message(&mut self) -> Result<Option<Msg>, ProtocolError> {
        let Some((m, len)) = Msg::decode(&self.buf)? else { return Ok(None) };
        self.buf.drain(..len);
        Ok(Some(m))
    }

    fn word(&mut self) -> Result<Option<Vec<u8>>, ProtocolError> {
        match self.buf.iter().take(MAX_WORD).position(|&b| b == 0) {
            Some(end) => {
                let mut word: Vec<u8> = self.buf.drain(..=end).collect();
                word.pop();
                Ok(Some(word))
            }
            None if self.buf.len() >= MAX_WORD => {
                Err(ProtocolError::Handshake(format!("no end of {} in {MAX_WORD} bytes", self.waits_for())))
            }
            None => Ok(None),
        }
    }

    fn number(&mut self, what: &'static str) -> Result<Option<u32>, ProtocolError> {
        self.word()?.map(|w| number(what, &w)).transpose()
    }
}

fn number(what: &'static str, word: &[u8]) -> Result<u32, ProtocolError> {
    std::str::from_utf8(word).ok().and_then(|w| w.trim().parse().ok()).ok_or_else(|| {
        let start = word.get(..40).unwrap_or(word);
        MsgError::Number { what, text: String::from_utf8_lossy(start).into_owned() }.into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk(pieces: &[&[u8]]) -> (Protocol, Vec<Event>) {
        let mut p = Protocol::new(Limits::default(), false);
        let mut out = Vec::new();
        for piece in pieces {
            p.feed(piece, &mut out).unwrap();
        }
        (p, out)
    }

    #[test]
    fn v3_from_hello_to_close() {
        let tinit =
            Msg::TInit { cpus: 2, page_size: 4096, options: vec!["tcp".into()], extensions: 0 }.encode().unwrap();
        let (mut p, out) = talk(&[b"-1", b"V3\0", b"7666", b"79\0\0", &tinit]);
        assert_eq!(
            out,
            [
                Event::Reply(b"V3\0".to_vec()),
                Event::Reply(b"OK".to_vec()),
                Event::Announced(Announced {
                    version: 3,
                    cpus: 2,
                    subbuf: 4096,
                    carrier: Carrier::Tcp,
                    sends_final: false
                }),
            ]
        );
        assert_eq!(
            Msg::decode(&p.ports(&[1500, 1501]).unwrap()).unwrap().unwrap().0,
            Msg::RInit { ports: vec![1500, 1501], extensions: 0 }
        );
        let mut out = Vec::new();
        // A big metadata stream in one piece: the machine never holds more than one message of it.
        let mut all = Vec::new();
        for _ in 0..20 {
            all.extend(Msg::SendData(vec![7; 8000]).encode().unwrap());
        }
        all.extend(Msg::FinData.encode().unwrap());
        all.extend(Msg::Cont.encode().unwrap());
        all.extend(Msg::Close.encode().unwrap());
        p.feed(&all, &mut out).unwrap();
        assert_eq!(out.iter().filter(|e| matches!(e, Event::Metadata(b) if b.len() == 8000)).count(), 20);
        assert!(out.ends_with(&[
            Event::MetadataDone,
            Event::Log("CONT message not expected, ignored".into()),
            Event::Reply(Msg::NotSupported.encode().unwrap()),
            Event::Close
        ]));
        assert!(p.buf.capacity() < 4 * MAX_MESSAGE);
    }

    #[test]
    fn v1_with_tcp() {
        let (mut p, out) = talk(&[b"4\0", b"4096\0\x30\x30\x31\0", b"4\0TCP\0"]);
        assert_eq!(
            out,
            [Event::Announced(Announced {
                version: 1,
                cpus: 4,
                subbuf: 4096,
                carrier: Carrier::Tcp,
                sends_final: false
            })]
        );
        assert_eq!(p.ports(&[1500, 1501, 1502, 1503]).unwrap(), b"1500,1501,1502,1503\0");
        let mut out = Vec::new();
        p.feed(b"\x17\x08\x44tracing", &mut out).unwrap();
        p.end(&mut out).unwrap();
        assert_eq!(out, [Event::Metadata(b"\x17\x08\x44tracing".to_vec()), Event::MetadataDone, Event::Close]);
    }

    #[test]
    fn other_versions_are_offered_v3() {
        let (mut p, out) = talk(&[b"-1V9\0"]);
        assert_eq!(out.last(), Some(&Event::Reply(b"V3\0".to_vec())));
        assert!(p.feed(b"-1V9\0", &mut Vec::new()).is_err(), "the same again ends it");
        let mut p = Protocol::new(Limits::default(), false);
        assert!(p.feed(b"-1\0", &mut Vec::new()).is_err());
    }

    #[test]
    fn claims_are_bounded() {
        for (cpus, page) in [(0, 4096), (1 << 30, 4096), (2, 0), (2, 5000), (2, 1 << 31)] {
            let tinit = Msg::TInit { cpus, page_size: page, options: vec![], extensions: 0 }.encode().unwrap();
            let (mut p, _) = talk(&[b"-1V3\0\x37\x36\x36\x36\x37\x39\0\0"]);
            assert!(matches!(p.feed(&tinit, &mut Vec::new()), Err(ProtocolError::Refused(_))), "{cpus} {page}");
        }
        let mut p = Protocol::new(Limits::default(), false);
        assert!(p.feed(&[b'1'; 100], &mut Vec::new()).is_err(), "a string without end");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_end_or_wait(pieces in proptest::collection::vec(proptest::collection::vec(proptest::num::u8::ANY, 0..300), 0..8), v3 in proptest::bool::ANY) {
            let mut p = Protocol::new(Limits::default(), false);
            let mut out = Vec::new();
            if v3 { p.feed(b"-1V3\0\x37\x36\x36\x36\x37\x39\0\0", &mut out).unwrap(); }
            for piece in pieces {
                if p.feed(&piece, &mut out).is_err() { break }
            }
        }
    }
}
