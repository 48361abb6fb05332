//! The data of one CPU: received, checked sub-buffer by sub-buffer, and appended to its file.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
};

use socket2::{SockAddr, Socket};
use trace_dat::{
    Endian, LongSize,
    ring::subbuf::{ItemKind, SubBufLayout},
    write::cut_subbuf,
};

use crate::net::conn::{Conn, plain_ip};

/// Bytes of the longest sub-buffer header: time and a commit word of 8 bytes.
const HEAD: usize = 16;
/// Most bytes of a stream that are read at once.
const MOST_AT_ONCE: usize = 256 << 10;
/// Bits of the commit word that count bytes; flags are above.
const COMMIT_MASK: u32 = 0x07ff_ffff;

/// What received sub-buffers look like, known from the first bytes of the metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Big endian.
    pub big: bool,
    /// Bytes of the commit word: 4 or 8.
    pub long: usize,
}

impl Layout {
    /// Bytes of a file's start that [`Layout::of_metadata`] needs at most.
    pub const NEEDS: usize = 32;

    /// Reads the start of a trace.dat file: magic, `tracing`, version text, byte order, long size.
    pub fn of_metadata(start: &[u8]) -> Option<Layout> {
        let rest = start.strip_prefix(b"\x17\x08\x44tracing")?;
        let end = rest.iter().take(16).position(|&b| b == 0)?;
        let (&big, &long) = (rest.get(end + 1)?, rest.get(end + 2)?);
        (big <= 1 && (long == 4 || long == 8)).then_some(Layout { big: big == 1, long: usize::from(long) })
    }

    /// Time of a sub-buffer of `size` bytes that begins with `head`, or `None` when its header cannot be right.
    fn check(self, head: &[u8], size: usize) -> Option<u64> {
        let ts: [u8; 8] = head.get(..8)?.try_into().ok()?;
        let word: [u8; 4] =
            if self.big && self.long == 8 { head.get(12..16) } else { head.get(8..12) }?.try_into().ok()?;
        let (ts, word) = if self.big {
            (u64::from_be_bytes(ts), u32::from_be_bytes(word))
        } else {
            (u64::from_le_bytes(ts), u32::from_le_bytes(word))
        };
        let commit = (word & COMMIT_MASK) as usize;
        (commit <= size.saturating_sub(8 + self.long)).then_some(ts)
    }

    /// The same for whoever walks over the records.
    fn of_records(self, size: usize) -> SubBufLayout {
        let commit_size = if self.long == 4 { LongSize::Four } else { LongSize::Eight };
        let endian = if self.big { Endian::Big } else { Endian::Little };
        SubBufLayout { endian, commit_size, data_offset: 8 + self.long, size, old_format: false }
    }

    /// Events of a sub-buffer.
    fn events(self, subbuf: &[u8]) -> u64 {
        let items = self.of_records(subbuf.len()).items(subbuf, 0);
        items.into_iter().flatten().map_while(Result::ok).filter(|i| i.kind == ItemKind::Event).count() as u64
    }

    /// A sub-buffer with those records of a cut off one that are whole; `None` without any.
    fn whole_records(self, piece: &[u8], size: usize) -> Option<Vec<u8>> {
        let layout = self.of_records(size);
        let mut padded = piece.to_vec();
        padded.resize(size, 0);
        let items = layout.items(&padded, 0).ok()?.map_while(Result::ok);
        let end = items.map(|i| i.at + i.size).take_while(|end| *end <= piece.len()).last()?;
        cut_subbuf(&layout, &padded, 0, 0, end).ok()?
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
    /// Sub-buffers in the file.
    pub subbufs: u64,
    /// Events in them; only counted for who watches.
    pub events: u64,
    /// Sub-buffers, or datagrams, whose content cannot be right. They are left out.
    pub damaged: u64,
    /// Sub-buffers that were cut off: what is whole of them is in the file.
    pub short: u64,
    /// Sub-buffers that came after a later one.
    pub reordered: u64,
    /// Datagrams that this machine had no room for.
    pub overrun: u64,
    /// Datagrams of other senders, dropped.
    pub foreign: u64,
}

impl Counts {
    /// Adds those of another CPU.
    pub fn add(&mut self, other: &Counts) {
        self.bytes += other.bytes;
        self.subbufs += other.subbufs;
        self.events += other.events;
        self.damaged += other.damaged;
        self.short += other.short;
        self.reordered += other.reordered;
        self.overrun += other.overrun;
        self.foreign += other.foreign;
    }
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
    /// Whether events are counted.
    pub count_events: bool,
    file: File,
    subbuf: usize,
    /// Start of the sub-buffer that has come in part.
    head: [u8; HEAD],
    /// Bytes of it so far.
    have: usize,
    /// It cannot be right: the rest of it is not kept.
    skip: bool,
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
            count_events: false,
            file: super::new_file(path)?,
            subbuf: subbuf as usize,
            head: [0; HEAD],
            have: 0,
            skip: false,
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

    /// Reads once and appends what came. `buf` is scratch space of at least 64 KiB and one sub-buffer.
    ///
    /// # Errors
    /// The connection or the file is broken; the file keeps what it has.
    pub fn receive(&mut self, layout: Option<Layout>, buf: &mut [u8]) -> io::Result<Got> {
        match &mut self.port {
            Port::Stream(conn) => {
                // Not more than stays in a core's cache until it is written.
                let part = buf.len().min(MOST_AT_ONCE);
                let buf = buf.get_mut(..part).unwrap_or_default();
                let got = match conn.read(buf) {
                    Ok(0) => return Ok(Got::End),
                    Ok(n) => n,
                    Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                        return Ok(Got::Nothing);
                    }
                    // A TLS peer that goes away without a farewell: the end of what came.
                    Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(Got::End),
                    Err(e) => return Err(e),
                };
                self.stream(buf.get(..got).unwrap_or_default(), layout)?;
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
                self.datagram(buf.get(..got).unwrap_or_default(), layout)?;
                Ok(Got::Bytes(got))
            }
            _ => Ok(Got::Nothing),
        }
    }

    /// Bytes of a stream: sub-buffers follow each other without a gap. No more of one is held than its header.
    fn stream(&mut self, mut bytes: &[u8], layout: Option<Layout>) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.have == 0 {
                let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % self.subbuf);
                self.append(whole, layout)?;
                bytes = rest;
                if bytes.is_empty() {
                    return Ok(());
                }
            }
            let until = if self.have < HEAD { HEAD } else { self.subbuf };
            let (now, later) = bytes.split_at(bytes.len().min(until - self.have));
            bytes = later;
            if self.have < HEAD {
                self.head.iter_mut().skip(self.have).zip(now).for_each(|(to, from)| *to = *from);
            } else if !self.skip {
                self.file.write_all(now)?;
            }
            self.have += now.len();
            if self.have == HEAD {
                self.skip = layout.is_some_and(|l| l.check(&self.head, self.subbuf).is_none());
                self.counts.damaged += u64::from(self.skip);
                if !self.skip {
                    let head = self.head;
                    self.file.write_all(&head)?;
                }
            }
            if self.have == self.subbuf {
                self.complete(layout)?;
            }
        }
        Ok(())
    }

    /// Notes the time of a sub-buffer that is kept.
    fn at(&mut self, ts: u64) {
        self.counts.reordered += u64::from(ts < self.last_ts);
        self.last_ts = self.last_ts.max(ts);
    }

    /// All of a sub-buffer that came in pieces is there.
    fn complete(&mut self, layout: Option<Layout>) -> io::Result<()> {
        self.have = 0;
        if std::mem::take(&mut self.skip) {
            return Ok(());
        }
        if let Some(ts) = layout.and_then(|l| l.check(&self.head, self.subbuf)) {
            self.at(ts);
        }
        if let (true, Some(layout)) = (self.count_events, layout) {
            let mut all = vec![0; self.subbuf];
            self.file.read_exact_at(&mut all, self.counts.bytes)?;
            self.counts.events += layout.events(&all);
        }
        self.counts.bytes += self.subbuf as u64;
        self.counts.subbufs += 1;
        Ok(())
    }

    /// A datagram: one sub-buffer. Of one that is cut off the whole records are kept.
    fn datagram(&mut self, bytes: &[u8], layout: Option<Layout>) -> io::Result<()> {
        let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % self.subbuf);
        self.append(whole, layout)?;
        self.cut_off(rest, layout)
    }

    /// Appends what is whole of a sub-buffer of which no more will come.
    fn cut_off(&mut self, piece: &[u8], layout: Option<Layout>) -> io::Result<()> {
        if piece.is_empty() {
            return Ok(());
        }
        self.counts.short += 1;
        let kept = match layout {
            Some(layout) if layout.check(piece, self.subbuf).is_some() => layout.whole_records(piece, self.subbuf),
            _ => None,
        };
        match kept {
            Some(subbuf) => self.append(&subbuf, layout),
            None => Ok(()),
        }
    }

    /// Appends whole sub-buffers, leaving out those that cannot be right.
    fn append(&mut self, whole: &[u8], layout: Option<Layout>) -> io::Result<()> {
        let Some(layout) = layout else { return self.write(whole) };
        let mut good = 0..0;
        for (n, subbuf) in whole.chunks_exact(self.subbuf).enumerate() {
            match layout.check(subbuf, self.subbuf) {
                Some(ts) => {
                    self.at(ts);
                    if self.count_events {
                        self.counts.events += layout.events(subbuf);
                    }
                    good.end = (n + 1) * self.subbuf;
                }
                None => {
                    self.counts.damaged += 1;
                    self.write(whole.get(good).unwrap_or_default())?;
                    good = (n + 1) * self.subbuf..(n + 1) * self.subbuf;
                }
            }
        }
        self.write(whole.get(good).unwrap_or_default())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.file.write_all(bytes)?;
        self.counts.bytes += bytes.len() as u64;
        self.counts.subbufs += (bytes.len() / self.subbuf) as u64;
        Ok(())
    }

    /// Nothing more will come: closes the source and keeps what is whole of a last sub-buffer.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(&mut self, layout: Option<Layout>) -> io::Result<()> {
        if let Port::Udp(socket, _) = &self.port {
            self.counts.overrun = overruns(socket);
        }
        self.port = Port::Closed;
        let have = std::mem::take(&mut self.have);
        if have == 0 || std::mem::take(&mut self.skip) {
            return Ok(());
        }
        let mut piece = self.head.get(..have).unwrap_or(&self.head).to_vec();
        if have > HEAD {
            piece.resize(have, 0);
            self.file.read_exact_at(&mut piece, self.counts.bytes)?;
        }
        self.file.set_len(self.counts.bytes)?;
        self.file.seek(SeekFrom::Start(self.counts.bytes))?;
        self.cut_off(&piece, layout)
    }
}

/// Datagrams that the kernel dropped because the socket's buffer was full; 0 where it does not say.
///
/// Source: proc_pid_net(5): the last column of `/proc/net/udp`, the tenth is the inode.
fn overruns(socket: &UdpSocket) -> u64 {
    let Ok(inode) = nix::sys::stat::fstat(socket.as_fd()).map(|s| s.st_ino) else { return 0 };
    let inode = inode.to_string();
    ["/proc/self/net/udp", "/proc/self/net/udp6"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .find_map(|text| {
            let line = text.lines().find(|l| l.split_whitespace().nth(9) == Some(&inode))?;
            line.split_whitespace().last()?.parse().ok()
        })
        .unwrap_or(0)
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

    /// A sub-buffer with a commit word and events of 8 bytes, each with its number.
    fn subbuf(ts: u64, commit: u64) -> Vec<u8> {
        let mut b = Vec::new();
        b.extend(ts.to_le_bytes());
        b.extend(commit.to_le_bytes());
        for n in 0..(4096 - 16) / 8u32 {
            // type_len 1 (4 bytes of data), delta 1
            b.extend((1u32 | 1 << 5).to_le_bytes());
            b.extend(n.to_le_bytes());
        }
        b
    }

    fn layout() -> Option<Layout> {
        Layout::of_metadata(b"\x17\x08\x44tracing7\0\0\x08rest")
    }

    #[test]
    fn pieces_become_sub_buffers_and_damage_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(layout(), Some(Layout { big: false, long: 8 }));
        let all = [subbuf(5, 104), subbuf(6, 4081), subbuf(4, 4080), subbuf(9, 1 << 31 | 16)].concat();
        // Wherever a stream is cut, the file is the same.
        for size in [1, 7, 16, 1000, 4095, 4096, 4097, 10_000, 20_000] {
            let path = dir.path().join(format!("c{size}"));
            let mut d = CpuData::create(&path, Port::Closed, 4096).unwrap();
            d.count_events = true;
            for piece in all.chunks(size) {
                d.stream(piece, layout()).unwrap();
            }
            // A last piece with 35 whole events and a half one.
            d.stream(&all[2 * 4096..2 * 4096 + 300], layout()).unwrap();
            d.finish(layout()).unwrap();
            let want = Counts {
                bytes: 4 * 4096,
                subbufs: 4,
                events: 13 + 510 + 2 + 35,
                damaged: 1,
                short: 1,
                reordered: 2,
                ..Counts::default()
            };
            assert_eq!(d.counts, want, "pieces of {size}");
            let got = std::fs::read(&path).unwrap();
            assert_eq!(got[..4096], all[..4096]);
            assert_eq!(got[4096..3 * 4096], all[2 * 4096..]);
            assert_eq!(got[3 * 4096 + 8..3 * 4096 + 16], 280u64.to_le_bytes());
            // The first event's delta goes into the header.
            assert_eq!(got[3 * 4096..3 * 4096 + 8], 5u64.to_le_bytes());
            assert_eq!(got[3 * 4096 + 20..3 * 4096 + 296], all[2 * 4096 + 20..2 * 4096 + 296]);
        }
    }

    #[test]
    fn a_piece_without_a_whole_event_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for cut in [1, 15, 16, 17, 23] {
            let path = dir.path().join(format!("c{cut}"));
            let mut d = CpuData::create(&path, Port::Closed, 4096).unwrap();
            d.stream(&subbuf(5, 4080)[..cut], layout()).unwrap();
            d.finish(layout()).unwrap();
            assert_eq!(d.counts, Counts { short: 1, ..Counts::default() }, "{cut}");
            assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        }
    }

    #[test]
    fn datagrams() {
        let dir = tempfile::tempdir().unwrap();
        let mut d = CpuData::create(&dir.path().join("c"), Port::Closed, 4096).unwrap();
        d.datagram(&subbuf(5, 16), layout()).unwrap();
        d.datagram(&[], layout()).unwrap();
        d.datagram(&subbuf(3, 16)[..100], layout()).unwrap();
        d.datagram(&[0xff; 4096], layout()).unwrap();
        d.finish(layout()).unwrap();
        let want = Counts { bytes: 8192, subbufs: 2, damaged: 1, short: 1, reordered: 1, ..Counts::default() };
        assert_eq!(d.counts, want);
    }

    #[test]
    fn big_endian_commit_is_in_the_second_word() {
        let mut b = vec![0; 4096];
        b[7] = 9;
        b[15] = 200;
        let be = Layout::of_metadata(b"\x17\x08\x44tracing6\0\x01\x08").unwrap();
        assert_eq!(be.check(&b, 4096), Some(9));
        b[12..16].copy_from_slice(&4081u32.to_be_bytes());
        assert_eq!(be.check(&b, 4096), None);
        assert_eq!(Layout::of_metadata(b"\x17\x08\x44tracing6\0\x02\x08"), None);
    }
}
