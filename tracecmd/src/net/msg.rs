//! Messages of protocol V3, of the agent and of time synchronisation: message ↔ bytes, every length checked.
//!
//! A message is `size`, `cmd`, `cmd_size` (three big-endian 32-bit words), a fixed part of `cmd_size` bytes and variable
//! data up to `size`. A receiver that knows a smaller fixed part skips the surplus; a shorter one counts as zero-filled.
//! All numbers are big endian, but for the few that the sender writes in its own order: they stay bytes here.

use std::fmt;

/// Bytes of the three header words.
pub const HEADER: usize = 12;
/// Largest message: no peer accepts a longer one.
pub const MAX_MESSAGE: usize = 8192;
/// Most data bytes that one [`Msg::SendData`] carries.
pub const MAX_DATA: usize = MAX_MESSAGE - HEADER;

/// Extension: after FIN_DATA and before CLOSE the client sends its final counts, command lines and options as further
/// SEND_DATA messages and a second FIN_DATA. Only used when both sides say so.
pub const EXTENSION_FINAL: u32 = 1;

/// Default port of the agent.
pub const AGENT_PORT: u32 = 823;
/// First port that is tried for data.
pub const FIRST_DATA_PORT: u16 = 1500;
/// Last port that is tried for data.
pub const LAST_DATA_PORT: u16 = 6000;

/// What is wrong with received bytes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MsgError {
    /// The first header word is below the header's own size or above [`MAX_MESSAGE`].
    #[error("message size {0} is not within 12..=8192 bytes")]
    Size(u32),
    /// The fixed part is longer than the message.
    #[error("message of {size} bytes with a fixed part of {cmd_size} bytes")]
    CmdSize {
        /// Whole message, in bytes.
        size: u32,
        /// Its fixed part, in bytes.
        cmd_size: u32,
    },
    /// A command number that no version has.
    #[error("unknown message number {0}")]
    Command(u32),
    /// A text that must end with NUL does not.
    #[error("{0} message: its last word has no end")]
    NoNul(&'static str),
    /// The number of words does not fit what was announced.
    #[error("{what}: {have} where {want} were announced")]
    Count {
        /// What is counted.
        what: &'static str,
        /// How many came.
        have: usize,
        /// How many were announced.
        want: usize,
    },
    /// A word that should be a number is none, or too large.
    #[error("{what}: {text:?} is no valid number")]
    Number {
        /// What it should be.
        what: &'static str,
        /// The text that came.
        text: String,
    },
    /// A message is longer than the protocol allows (when it is built).
    #[error("message would have {0} bytes, more than 8192")]
    TooLong(usize),
}

/// Parameters of a trace request: what the guest is to record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceRequest {
    /// The recorder offers or wants FIFOs instead of sockets.
    pub use_fifos: bool,
    /// Identifies the recorder's session.
    pub trace_id: u64,
    /// Words of the guest's command line, without program and command name.
    pub args: Vec<String>,
    /// Time synchronisation protocols that the host knows.
    pub tsync_protos: Vec<String>,
}

/// Answer to a trace request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceResponse {
    /// Data go through FIFOs.
    pub use_fifos: bool,
    /// Number of CPUs that will send data.
    pub cpus: u32,
    /// Sub-buffer size, in bytes.
    pub page_size: u32,
    /// Identifies the guest's session.
    pub trace_id: u64,
    /// Chosen time synchronisation protocol; empty for none.
    pub tsync_proto: String,
    /// Port of the time synchronisation connection, 0 for none.
    pub tsync_port: u32,
    /// Data port of each CPU.
    pub ports: Vec<u32>,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Msg {
    /// End of the session.
    Close,
    /// Client to listener: what will come. Words: `tcp`, `vsock`, none for UDP.
    TInit {
        /// Number of CPUs that will send data.
        cpus: u32,
        /// Sub-buffer size, in bytes.
        page_size: u32,
        /// The option words.
        options: Vec<String>,
        /// What the client can do beyond the protocol, see [`EXTENSION_FINAL`]; a word behind those that others know.
        extensions: u32,
    },
    /// Listener to client: the data port of each CPU.
    RInit {
        /// Port numbers, one a CPU.
        ports: Vec<u32>,
        /// What the listener can do beyond the protocol and the client asked for; a word behind those that others know.
        extensions: u32,
    },
    /// A piece of the file's metadata, or of options.
    SendData(Vec<u8>),
    /// The metadata is complete.
    FinData,
    /// Answer to an unexpected message.
    NotSupported,
    /// Host to guest: record this.
    TraceReq(TraceRequest),
    /// Guest to host: the answer.
    TraceResp(TraceResponse),
    /// The session was undone.
    CloseResp,
    /// A message of the time synchronisation connection.
    TimeSync {
        /// `none` for the frame, else the negotiated protocol.
        proto: String,
        /// Message number of that protocol.
        id: u32,
        /// Payload, in the byte order that the protocol says.
        payload: Vec<u8>,
    },
    /// As [`Msg::TraceReq`], to a proxy.
    TraceProxy {
        /// The request.
        request: TraceRequest,
        /// Number of CPUs of the recorder.
        cpus: u32,
        /// Number of siblings; always 0 so far.
        siblings: u32,
    },
    /// A proxy may go on.
    Cont,
}

impl Msg {
    /// The message's number on the wire.
    pub fn number(&self) -> u32 {
        match self {
            Msg::Close => 0,
            Msg::TInit { .. } => 1,
            Msg::RInit { .. } => 2,
            Msg::SendData(_) => 3,
            Msg::FinData => 4,
            Msg::NotSupported => 5,
            Msg::TraceReq(_) => 6,
            Msg::TraceResp(_) => 7,
            Msg::CloseResp => 8,
            Msg::TimeSync { .. } => 9,
            Msg::TraceProxy { .. } => 10,
            Msg::Cont => 11,
        }
    }

    /// The name that the field uses for it.
    pub fn name(&self) -> &'static str {
        name_of(self.number())
    }

    /// What a side does that sends it, for messages of errors.
    pub fn name_for_people(&self) -> &'static str {
        match self {
            Msg::SendData(_) | Msg::FinData => "sending metadata",
            Msg::Close | Msg::CloseResp => "ending the recording",
            Msg::TInit { .. } | Msg::RInit { .. } => "announcing the recording",
            Msg::TimeSync { .. } => "synchronising time",
            _ => "talking to it",
        }
    }

    /// The bytes to send.
    ///
    /// # Errors
    /// [`MsgError::TooLong`] when they would be more than [`MAX_MESSAGE`].
    pub fn encode(&self) -> Result<Vec<u8>, MsgError> {
        let mut fixed = Vec::new();
        let mut data = Vec::new();
        match self {
            Msg::Close | Msg::FinData | Msg::NotSupported | Msg::CloseResp | Msg::Cont => {}
            Msg::TInit { cpus, page_size, options, extensions } => {
                for v in [*cpus, *page_size, options.len() as u32] {
                    fixed.extend(v.to_be_bytes());
                }
                options.iter().for_each(|w| put_word(&mut data, w));
                if *extensions != 0 {
                    fixed.extend(extensions.to_be_bytes());
                }
            }
            Msg::RInit { ports, extensions } => {
                fixed.extend((ports.len() as u32).to_be_bytes());
                if *extensions != 0 {
                    fixed.extend(extensions.to_be_bytes());
                }
                ports.iter().for_each(|p| put_word(&mut data, &p.to_string()));
            }
            Msg::SendData(bytes) => data.extend_from_slice(bytes),
            Msg::TraceReq(request) => {
                put_request(&mut fixed, request);
                put_parameters(&mut data, request);
            }
            Msg::TraceProxy { request, cpus, siblings } => {
                put_request(&mut fixed, request);
                fixed.extend(cpus.to_be_bytes());
                fixed.extend(siblings.to_be_bytes());
                put_parameters(&mut data, request);
            }
            Msg::TraceResp(r) => {
                fixed.extend(u32::from(r.use_fifos).to_be_bytes());
                fixed.extend(r.cpus.to_be_bytes());
                fixed.extend(r.page_size.to_be_bytes());
                fixed.extend(r.trace_id.to_be_bytes());
                fixed.extend(proto_name(&r.tsync_proto));
                fixed.extend(r.tsync_port.to_be_bytes());
                r.ports.iter().for_each(|p| put_word(&mut data, &p.to_string()));
            }
            Msg::TimeSync { proto, id, payload } => {
                fixed.extend(proto_name(proto));
                fixed.extend(id.to_be_bytes());
                data.extend_from_slice(payload);
            }
        }
        let size = HEADER + fixed.len() + data.len();
        if size > MAX_MESSAGE {
            return Err(MsgError::TooLong(size));
        }
        let mut out = Vec::with_capacity(size);
        for v in [size as u32, self.number(), fixed.len() as u32] {
            out.extend(v.to_be_bytes());
        }
        out.extend(fixed);
        out.extend(data);
        Ok(out)
    }

    /// Takes one message off the front of `bytes`.
    ///
    /// Returns the message and its length, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// Any [`MsgError`]: the connection cannot go on, because the place of the next message is not known or what came
    /// is not the protocol.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Msg, usize)>, MsgError> {
        let mut r = Reader(bytes);
        let Some(size) = r.u32() else { return Ok(None) };
        if !(HEADER as u32..=MAX_MESSAGE as u32).contains(&size) {
            return Err(MsgError::Size(size));
        }
        let (Some(cmd), Some(cmd_size)) = (r.u32(), r.u32()) else { return Ok(None) };
        if cmd_size > size - HEADER as u32 {
            return Err(MsgError::CmdSize { size, cmd_size });
        }
        if cmd > 11 {
            return Err(MsgError::Command(cmd));
        }
        let Some(body) = bytes.get(HEADER..size as usize) else { return Ok(None) };
        let (fixed, data) = body.split_at(cmd_size as usize);
        // A shorter fixed part than ours counts as zeros, a longer one is cut.
        let mut known = [0u8; 40];
        known.iter_mut().zip(fixed).for_each(|(to, from)| *to = *from);
        Ok(Some((Self::build(cmd, &known, data)?, size as usize)))
    }

    fn build(cmd: u32, known: &[u8; 40], data: &[u8]) -> Result<Msg, MsgError> {
        let mut f = Reader(known);
        let mut next = || f.u32().unwrap_or(0);
        Ok(match cmd {
            0 => Msg::Close,
            1 => {
                let (cpus, page_size, count) = (next(), next(), next());
                let options = words("TINIT", data)?;
                if options.len() != count as usize {
                    return Err(MsgError::Count { what: "option words", have: options.len(), want: count as usize });
                }
                Msg::TInit { cpus, page_size, options, extensions: next() }
            }
            2 => Msg::RInit { ports: ports("RINIT", next(), data)?, extensions: next() },
            3 => Msg::SendData(data.to_vec()),
            4 => Msg::FinData,
            5 => Msg::NotSupported,
            6 | 10 => {
                let flags = next();
                let _argc = next();
                let trace_id = u64::from(next()) << 32 | u64::from(next());
                let mut request = TraceRequest { use_fifos: flags & 1 != 0, trace_id, ..Default::default() };
                get_parameters(data, &mut request)?;
                if cmd == 6 {
                    Msg::TraceReq(request)
                } else {
                    Msg::TraceProxy { request, cpus: next(), siblings: next() }
                }
            }
            7 => {
                let (flags, cpus, page_size) = (next(), next(), next());
                let trace_id = u64::from(next()) << 32 | u64::from(next());
                Msg::TraceResp(TraceResponse {
                    use_fifos: flags & 1 != 0,
                    cpus,
                    page_size,
                    trace_id,
                    // The last of the 16 bytes is the NUL.
                    tsync_proto: text(&known[20..35]),
                    tsync_port: Reader(&known[36..]).u32().unwrap_or(0),
                    ports: ports("TRACE_RESP", cpus, data)?,
                })
            }
            8 => Msg::CloseResp,
            9 => Msg::TimeSync {
                proto: text(&known[..15]),
                id: Reader(&known[16..]).u32().unwrap_or(0),
                payload: data.to_vec(),
            },
            _ => Msg::Cont,
        })
    }
}

impl fmt::Display for Msg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The field's name of a message number.
pub fn name_of(number: u32) -> &'static str {
    const NAMES: [&str; 12] = [
        "CLOSE",
        "TINIT",
        "RINIT",
        "SEND_DATA",
        "FIN_DATA",
        "NOT_SUPP",
        "TRACE_REQ",
        "TRACE_RESP",
        "CLOSE_RESP",
        "TIME_SYNC",
        "TRACE_PROXY",
        "CONT",
    ];
    NAMES.get(number as usize).copied().unwrap_or("unknown")
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn u32(&mut self) -> Option<u32> {
        let (head, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*head))
    }

    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }
}

fn put_word(out: &mut Vec<u8>, word: &str) {
    out.extend_from_slice(word.as_bytes());
    out.push(0);
}

fn proto_name(name: &str) -> [u8; 16] {
    let mut b = [0; 16];
    // The last byte stays 0.
    b.iter_mut().take(15).zip(name.as_bytes()).for_each(|(to, from)| *to = *from);
    b
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|&b| b == 0).next().unwrap_or_default()).into_owned()
}

fn words(what: &'static str, data: &[u8]) -> Result<Vec<String>, MsgError> {
    let Some((last, head)) = data.split_last() else { return Ok(Vec::new()) };
    if *last != 0 {
        return Err(MsgError::NoNul(what));
    }
    Ok(head.split(|&b| b == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect())
}

fn ports(what: &'static str, cpus: u32, data: &[u8]) -> Result<Vec<u32>, MsgError> {
    let words = words(what, data)?;
    if words.len() != cpus as usize {
        return Err(MsgError::Count { what: "ports", have: words.len(), want: cpus as usize });
    }
    words
        .into_iter()
        .map(|w| w.parse::<u32>().map_err(|_| MsgError::Number { what: "port", text: w.clone() }))
        .collect()
}

const PARAM_ARGS: u32 = 0;
const PARAM_TSYNC_PROTOS: u32 = 1;

fn put_request(fixed: &mut Vec<u8>, r: &TraceRequest) {
    fixed.extend(u32::from(r.use_fifos).to_be_bytes());
    // The word count of the fixed part is unused: it is 0, the words are a parameter.
    fixed.extend(0u32.to_be_bytes());
    fixed.extend(r.trace_id.to_be_bytes());
}

fn put_parameters(data: &mut Vec<u8>, r: &TraceRequest) {
    // Always sent: an agent of 3.4 looks at its first word without asking whether there is one.
    let mut args = Vec::new();
    args.extend((r.args.len() as u32).to_be_bytes());
    r.args.iter().for_each(|a| put_word(&mut args, a));
    if r.args.is_empty() {
        args.push(0);
    }
    put_parameter(data, PARAM_ARGS, &args);
    if !r.tsync_protos.is_empty() {
        let mut protos = Vec::new();
        r.tsync_protos.iter().for_each(|p| put_word(&mut protos, p));
        // One NUL more: a receiver of 3.4 drops the last entry.
        protos.push(0);
        put_parameter(data, PARAM_TSYNC_PROTOS, &protos);
    }
}

fn put_parameter(data: &mut Vec<u8>, id: u32, value: &[u8]) {
    data.extend(id.to_be_bytes());
    data.extend((value.len() as u32).to_be_bytes());
    data.extend_from_slice(value);
}

fn get_parameters(data: &[u8], request: &mut TraceRequest) -> Result<(), MsgError> {
    let mut r = Reader(data);
    while r.0.len() > 8 {
        let (Some(id), Some(len)) = (r.u32(), r.u32()) else { break };
        let have = r.0.len();
        let Some(value) = r.take(len as usize) else {
            return Err(MsgError::Count { what: "parameter bytes", have, want: len as usize });
        };
        match id {
            PARAM_ARGS => {
                let mut v = Reader(value);
                let count = v.u32().unwrap_or(0) as usize;
                if count > 0 {
                    request.args = words("TRACE_REQ", v.0)?;
                    if request.args.len() != count {
                        return Err(MsgError::Count { what: "words", have: request.args.len(), want: count });
                    }
                }
            }
            PARAM_TSYNC_PROTOS => {
                request.tsync_protos = words("TRACE_REQ", value)?.into_iter().filter(|w| !w.is_empty()).collect();
            }
            // Later versions may say more: what is not known is skipped.
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(m: Msg) {
        let b = m.encode().unwrap();
        assert_eq!(Msg::decode(&b).unwrap(), Some((m.clone(), b.len())));
        for n in 0..b.len() {
            assert_eq!(Msg::decode(&b[..n]).unwrap(), None, "{m} cut at {n}");
        }
    }

    #[test]
    fn every_message_comes_back() {
        let request = TraceRequest {
            use_fifos: true,
            trace_id: 0x0102_0304_0506_0708,
            args: vec!["-e".into(), "sched".into()],
            tsync_protos: vec!["kvm".into(), "ptp".into()],
        };
        for m in [
            Msg::Close,
            Msg::TInit { cpus: 4, page_size: 4096, options: vec!["tcp".into()], extensions: 0 },
            Msg::TInit { cpus: 1, page_size: 4096, options: vec![], extensions: 0 },
            Msg::RInit { ports: vec![1500, 1501], extensions: EXTENSION_FINAL },
            Msg::SendData(b"x".repeat(MAX_DATA)),
            Msg::FinData,
            Msg::NotSupported,
            Msg::TraceReq(request.clone()),
            Msg::TraceReq(TraceRequest::default()),
            Msg::TraceResp(TraceResponse {
                use_fifos: false,
                cpus: 2,
                page_size: 4096,
                trace_id: 7,
                tsync_proto: "ptp".into(),
                tsync_port: 1502,
                ports: vec![1500, 1501],
            }),
            Msg::CloseResp,
            Msg::TimeSync { proto: "none".into(), id: 1, payload: vec![0, 0] },
            Msg::TraceProxy { request, cpus: 2, siblings: 0 },
            Msg::Cont,
        ] {
            round(m);
        }
    }

    #[test]
    fn bytes_of_tinit() {
        let b = Msg::TInit { cpus: 2, page_size: 4096, options: vec!["tcp".into()], extensions: 0 }.encode().unwrap();
        assert_eq!(
            b,
            [
                0, 0, 0, 28, // size
                0, 0, 0, 1, // cmd TINIT
                0, 0, 0, 12, // fixed part
                0, 0, 0, 2, // cpus
                0, 0, 16, 0, // page size
                0, 0, 0, 1, // option words
                b't', b'c', b'p', 0,
            ]
        );
    }

    #[test]
    fn wrong_sizes_are_refused() {
        let head =
            |size: u32, cmd: u32, fixed: u32| [size.to_be_bytes(), cmd.to_be_bytes(), fixed.to_be_bytes()].concat();
        assert_eq!(Msg::decode(&head(11, 0, 0)), Err(MsgError::Size(11)));
        assert_eq!(Msg::decode(&head(8193, 3, 0)), Err(MsgError::Size(8193)));
        assert_eq!(Msg::decode(&head(12, 1, 1)), Err(MsgError::CmdSize { size: 12, cmd_size: 1 }));
        assert_eq!(Msg::decode(&head(12, 12, 0)), Err(MsgError::Command(12)));
        assert_eq!(
            Msg::decode(&[head(14, 2, 0), vec![b'1', b'2']].concat()),
            Err(MsgError::NoNul("RINIT")),
            "a port without an end"
        );
    }

    #[test]
    fn surplus_and_missing_fixed_parts() {
        // A TINIT with one word more than is known, and one that stops after the CPU count.
        let mut b = vec![0, 0, 0, 28, 0, 0, 0, 1, 0, 0, 0, 16];
        b.extend([0, 0, 0, 2, 0, 0, 16, 0, 0, 0, 0, 0, 9, 9, 9, 9]);
        assert_eq!(
            Msg::decode(&b).unwrap().unwrap().0,
            Msg::TInit { cpus: 2, page_size: 4096, options: vec![], extensions: 0x0909_0909 }
        );
        let b = [0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 2];
        assert_eq!(
            Msg::decode(&b).unwrap().unwrap().0,
            Msg::TInit { cpus: 2, page_size: 0, options: vec![], extensions: 0 }
        );
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_an_answer(b in proptest::collection::vec(proptest::num::u8::ANY, 0..9000), cmd in 0u32..13, fixed in 0u32..64) {
            let _ = Msg::decode(&b);
            let mut m = Vec::new();
            for v in [(b.len() + HEADER) as u32, cmd, fixed] { m.extend(v.to_be_bytes()); }
            m.extend(&b);
            let _ = Msg::decode(&m);
        }
    }
}
