//! The data of one CPU: received, checked sub-buffer by sub-buffer, and appended to its file.

use std::{
    fs::File,
    io::{self, Write},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
};

use socket2::{SockAddr, Socket};

use crate::net::conn::{Conn, plain_ip};

/// What received sub-buffers look like, known from the first bytes of the metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Big endian.
    pub big: bool,
    /// Bytes of the commit word: 4 or 8.
    pub long: usize,
}

impl Layout {
    /// Reads the start of a trace.dat file: magic, `tracing`, version text, byte order, long size.
    pub fn of_metadata(start: &[u8]) -> Option<Layout> {
        let rest = start.strip_prefix(b"\x17\x08\x44tracing")?;
        let end = rest.iter().take(16).position(|&b| b == 0)?;
        let (&big, &long) = (rest.get(end + 1)?, rest.get(end + 2)?);
        (big <= 1 && (long == 4 || long == 8)).then_some(Layout { big: big == 1, long: usize::from(long) })
    }

    /// Time of a sub-buffer, or `None` when its header cannot be right.
    fn check(self, subbuf: &[u8]) -> Option<u64> {
        let ts: [u8; 8] = subbuf.get(..8)?.try_into().ok()?;
        let word: [u8; 4] =
            if self.big && self.long == 8 { subbuf.get(12..16) } else { subbuf.get(8..12) }?.try_into().ok()?;
        let (ts, word) = if self.big {
            (u64::from_be_bytes(ts), u32::from_be_bytes(word))
        } else {
            (u64::from_le_bytes(ts), u32::from_le_bytes(word))
        };
        // The low 27 bits are the number of data bytes; flags are above.
        let commit = (word & 0x07ff_ffff) as usize;
        (commit <= subbuf.len() - 8 - self.long).then_some(ts)
    }
}

/// Where the data of a CPU come from.
#[derive(Debug)]
pub enum Port {
    /// Waits for the client to connect.
    Waiting(Socket),
    /// Takes datagrams of this address only.
    Udp(UdpSocket, IpAddr),
    /// Connected.
    Stream(Box<Conn>),
    /// Ended.
    Closed,
}

/// Counts of one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes in the file.
    pub bytes: u64,
    /// Whole sub-buffers in the file.
    pub subbufs: u64,
    /// Sub-buffers, or datagrams, whose content cannot be right. They are left out.
    pub damaged: u64,
    /// Datagrams that are shorter than a sub-buffer.
    pub short: u64,
    /// Sub-buffers that came after a later one.
    pub reordered: u64,
    /// Datagrams of other senders, dropped.
    pub foreign: u64,
}

/// The data of one CPU.
#[derive(Debug)]
pub struct CpuData {
    /// Source.
    pub port: Port,
    /// The file they go to.
    pub path: PathBuf,
    /// The counts so far.
    pub counts: Counts,
    file: File,
    subbuf: usize,
    part: Vec<u8>,
    last_ts: u64,
}

/// What a read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    /// So many bytes.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// The client will send nothing more.
    End,
}

impl CpuData {
    /// Data that go to a new file at `path`, which must not exist.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: &Path, port: Port, subbuf: u32) -> io::Result<Self> {
        Ok(CpuData {
            port,
            path: path.to_owned(),
            counts: Counts::default(),
            file: super::new_file(path)?,
            subbuf: subbuf as usize,
            part: Vec::new(),
            last_ts: 0,
        })
    }

    /// The socket to watch, if one is open.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.port {
            Port::Waiting(l) => Some(l.as_fd()),
            Port::Udp(s, _) => Some(s.as_fd()),
            Port::Stream(c) => Some(c.as_fd()),
            Port::Closed => None,
        }
    }

    /// Number of that socket, -1 for none.
    pub fn raw_fd(&self) -> i32 {
        self.fd().map_or(-1, |f| f.as_raw_fd())
    }

    /// Reads once and appends what came. `buf` is scratch space of at least 64 KiB and one sub-buffer.
    ///
    /// # Errors
    /// The connection or the file is broken; the file keeps what it has.
    pub fn receive(&mut self, layout: Option<Layout>, buf: &mut [u8]) -> io::Result<Got> {
        match &mut self.port {
            Port::Stream(conn) => {
                let got = match conn.read(buf) {
                    Ok(0) => return Ok(Got::End),
                    Ok(n) => n,
                    Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                        return Ok(Got::Nothing);
                    }
                    // A TLS peer that goes away without a farewell, or a reset: the end of what came.
                    Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(Got::End),
                    Err(e) => return Err(e),
                };
                self.stream(&buf[..got], layout)?;
                Ok(Got::Bytes(got))
            }
            Port::Udp(socket, peer) => {
                let (got, from) = match socket.recv_from(buf) {
                    Ok(x) => x,
                    Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                        return Ok(Got::Nothing);
                    }
                    // An ICMP answer to something else; the socket goes on.
                    Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => return Ok(Got::Nothing),
                    Err(e) => return Err(e),
                };
                if plain_ip(from.ip()) != *peer {
                    self.counts.foreign += 1;
                    return Ok(Got::Bytes(0));
                }
                if got < self.subbuf {
                    self.counts.short += 1;
                }
                self.datagram(&mut buf[..got], layout)?;
                Ok(Got::Bytes(got))
            }
            _ => Ok(Got::Nothing),
        }
    }

    /// Bytes of a stream: sub-buffers follow each other without a gap.
    fn stream(&mut self, mut bytes: &[u8], layout: Option<Layout>) -> io::Result<()> {
        if !self.part.is_empty() {
            let need = self.subbuf - self.part.len();
            let (now, later) = bytes.split_at(need.min(bytes.len()));
            self.part.extend_from_slice(now);
            bytes = later;
            if self.part.len() < self.subbuf {
                return Ok(());
            }
            let part = std::mem::take(&mut self.part);
            self.append(&part, layout)?;
            self.part = part;
            self.part.clear();
        }
        let whole = bytes.len() - bytes.len() % self.subbuf;
        let (whole, rest) = bytes.split_at(whole);
        self.append(whole, layout)?;
        self.part.extend_from_slice(rest);
        Ok(())
    }

    /// A datagram: one sub-buffer. What is missing of it was never sent or is cut off: zeros take its place.
    fn datagram(&mut self, bytes: &mut [u8], layout: Option<Layout>) -> io::Result<()> {
        if bytes.len().is_multiple_of(self.subbuf) {
            return self.append(bytes, layout);
        }
        let mut whole = bytes.to_vec();
        whole.resize(bytes.len().next_multiple_of(self.subbuf), 0);
        self.append(&whole, layout)
    }

    /// Appends whole sub-buffers, leaving out those that cannot be right.
    fn append(&mut self, whole: &[u8], layout: Option<Layout>) -> io::Result<()> {
        let Some(layout) = layout else { return self.write(whole) };
        let mut good = 0..0;
        for (n, subbuf) in whole.chunks_exact(self.subbuf).enumerate() {
            match layout.check(subbuf) {
                Some(ts) => {
                    if ts < self.last_ts {
                        self.counts.reordered += 1;
                    }
                    self.last_ts = self.last_ts.max(ts);
                    good.end = (n + 1) * self.subbuf;
                }
                None => {
                    self.counts.damaged += 1;
                    self.write(&whole[good.clone()])?;
                    good = (n + 1) * self.subbuf..(n + 1) * self.subbuf;
                }
            }
        }
        self.write(&whole[good])
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.counts.bytes += bytes.len() as u64;
        self.counts.subbufs += (bytes.len() / self.subbuf) as u64;
        Ok(())
    }

    /// Nothing more will come: closes the source and keeps a last piece, filled up with zeros, if it has a whole header.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(&mut self, layout: Option<Layout>) -> io::Result<()> {
        self.port = Port::Closed;
        let mut part = std::mem::take(&mut self.part);
        if part.len() > 16 {
            self.counts.short += 1;
            part.resize(self.subbuf, 0);
            self.append(&part, layout)?;
        }
        self.file.flush()
    }
}

/// Where a connection to a waiting port came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// An IP address.
    Ip(SocketAddr),
    /// A vsock context and its port.
    Vsock {
        /// The context id.
        cid: u32,
        /// The port.
        port: u32,
    },
}

impl Peer {
    /// The peer that a socket address names; `None` for a local socket or the like.
    pub fn of(addr: &SockAddr) -> Option<Peer> {
        match (addr.as_socket(), addr.as_vsock_address()) {
            (Some(ip), _) => Some(Peer::Ip(ip)),
            (_, Some((cid, port))) => Some(Peer::Vsock { cid, port }),
            _ => None,
        }
    }

    /// Whether both are the same machine.
    pub fn same_host(&self, other: &Peer) -> bool {
        match (self, other) {
            (Peer::Ip(a), Peer::Ip(b)) => plain_ip(a.ip()) == plain_ip(b.ip()),
            (Peer::Vsock { cid: a, .. }, Peer::Vsock { cid: b, .. }) => a == b,
            _ => false,
        }
    }

    /// The name without asking anybody: a number, `V` and the context id for vsock.
    pub fn number(&self) -> String {
        match self {
            Peer::Ip(a) => plain_ip(a.ip()).to_string(),
            Peer::Vsock { cid, .. } => format!("V{cid}"),
        }
    }

    /// The peer's port.
    pub fn port(&self) -> u32 {
        match self {
            Peer::Ip(a) => u32::from(a.port()),
            Peer::Vsock { port, .. } => *port,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subbuf(ts: u64, commit: u64) -> Vec<u8> {
        let mut b = Vec::new();
        b.extend(ts.to_le_bytes());
        b.extend(commit.to_le_bytes());
        b.resize(4096, 0);
        b
    }

    #[test]
    fn pieces_become_sub_buffers_and_damage_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::of_metadata(b"\x17\x08\x44tracing7\0\0\x08rest");
        assert_eq!(layout, Some(Layout { big: false, long: 8 }));
        let mut d = CpuData::create(&dir.path().join("c"), Port::Closed, 4096).unwrap();
        let all = [subbuf(5, 100), subbuf(6, 4081), subbuf(4, 4080), subbuf(9, 1 << 31 | 16)].concat();
        for piece in all.chunks(1000) {
            d.stream(piece, layout).unwrap();
        }
        d.stream(&all[..300], layout).unwrap();
        d.finish(layout).unwrap();
        assert_eq!(d.counts, Counts { bytes: 4 * 4096, subbufs: 4, damaged: 1, short: 1, reordered: 2, foreign: 0 });
        let got = std::fs::read(dir.path().join("c")).unwrap();
        assert_eq!(got[..4096], all[..4096]);
        assert_eq!(got[4096..3 * 4096], all[2 * 4096..]);
        assert_eq!(got[3 * 4096..3 * 4096 + 300], all[..300]);
    }

    #[test]
    fn big_endian_commit_is_in_the_second_word() {
        let mut b = vec![0; 4096];
        b[7] = 9;
        b[15] = 200;
        let be = Layout::of_metadata(b"\x17\x08\x44tracing6\0\x01\x08").unwrap();
        assert_eq!(be.check(&b), Some(9));
        b[12..16].copy_from_slice(&4081u32.to_be_bytes());
        assert_eq!(be.check(&b), None);
        assert_eq!(Layout::of_metadata(b"\x17\x08\x44tracing6\0\x02\x08"), None);
    }
}
