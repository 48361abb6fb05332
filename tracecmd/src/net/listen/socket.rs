//! Sockets that wait for clients and for their data.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    ops::RangeInclusive,
};

use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::{
    client::DataFiles,
    data::{CpuData, Peer, Port},
};
use crate::net::{
    conn::plain_ip,
    handshake::{Announced, Carrier},
};

/// A TCP socket that waits at `addr`, without blocking.
///
/// # Errors
/// The address is taken or not this machine's.
pub fn tcp_listener(addr: SocketAddr, backlog: i32) -> io::Result<Socket> {
    let s = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    s.set_reuse_address(true)?;
    if addr.is_ipv6() {
        // One socket for both IP versions where the address is the wildcard.
        s.set_only_v6(!addr.ip().is_unspecified())?;
    }
    s.bind(&addr.into())?;
    s.listen(backlog)?;
    s.set_nonblocking(true)?;
    Ok(s)
}

/// A vsock socket that waits on `port` (`VMADDR_PORT_ANY`: any free one), without blocking. Since Linux 3.9.
///
/// # Errors
/// This machine has no vsock, or the port is taken.
pub fn vsock_listener(port: u32, backlog: i32) -> io::Result<Socket> {
    let s = Socket::new(Domain::VSOCK, Type::STREAM, None)?;
    s.bind(&SockAddr::vsock(libc::VMADDR_CID_ANY, port))?;
    s.listen(backlog)?;
    s.set_nonblocking(true)?;
    Ok(s)
}

/// Takes a connection off a waiting socket; it does not block either.
///
/// # Errors
/// `WouldBlock` when nobody waits.
pub fn accept(listener: &Socket) -> io::Result<(Socket, Peer)> {
    let (s, addr) = listener.accept()?;
    s.set_nonblocking(true)?;
    let peer = Peer::of(&addr).ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok((s, peer))
}

/// Opens the data ports that an announced recording needs, on the address that the client already reached.
///
/// Ports are searched upwards in `range`, each CPU from the last one's on.
///
/// # Errors
/// No port of the range is free, or a file cannot be made.
pub fn open_data_ports(
    announced: &Announced,
    local: Option<SocketAddr>,
    peer: &Peer,
    range: &RangeInclusive<u16>,
    files: &DataFiles,
) -> io::Result<(Vec<CpuData>, Vec<u32>)> {
    let mut next = u32::from(*range.start());
    let (mut all, mut ports) = (Vec::new(), Vec::new());
    for cpu in 0..announced.cpus {
        let (port, number) = match announced.carrier {
            Carrier::Vsock => {
                // What a vsock listener has to offer: exactly the first port and those after it.
                let number = u32::from(*range.start()) + cpu;
                let s = vsock_listener(number, 1).map_err(|e| note(e, format!("vsock port {number} for CPU {cpu}")))?;
                (Port::Waiting(s), number)
            }
            carrier => {
                let mut at = local.ok_or(io::ErrorKind::AddrNotAvailable)?;
                loop {
                    if next > u32::from(*range.end()) {
                        let all = format!("no free data port within {}-{}", range.start(), range.end());
                        return Err(io::Error::new(io::ErrorKind::AddrInUse, all));
                    }
                    at.set_port(next as u16);
                    next += 1;
                    let opened =
                        if carrier == Carrier::Tcp { tcp_listener(at, 1).map(Port::Waiting) } else { udp(at, peer) };
                    match opened {
                        Ok(port) => break (port, next - 1),
                        Err(e) if matches!(e.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) => {}
                        Err(e) => return Err(e),
                    }
                }
            }
        };
        let path = files.cpu(cpu);
        all.push(CpuData::create(&path, port, announced.subbuf).map_err(|e| note(e, path.display().to_string()))?);
        ports.push(number);
    }
    Ok((all, ports))
}

/// A TCP socket that waits at the first free port from `first` to `last`.
///
/// # Errors
/// None is free.
pub fn data_listener(ip: IpAddr, first: u32, last: u32) -> io::Result<(Socket, u32)> {
    for port in first..=last.min(65535) {
        match tcp_listener(SocketAddr::new(ip, port as u16), 1) {
            Ok(s) => return Ok((s, port)),
            Err(e) if matches!(e.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, format!("no free data port within {first}-{last}")))
}

/// Bytes of datagrams that may wait for each CPU.
const UDP_BUFFER: usize = 8 << 20;

fn udp(at: SocketAddr, peer: &Peer) -> io::Result<Port> {
    let Peer::Ip(peer) = peer else { return Err(io::ErrorKind::AddrNotAvailable.into()) };
    let s = UdpSocket::bind(at)?;
    s.set_nonblocking(true)?;
    // Bursts come faster than a poll loop turns. Only root gets more than the system's limit (`net.core.rmem_max`).
    if setsockopt(&s, RcvBufForce, &UDP_BUFFER).is_err() {
        let _ = SockRef::from(&s).set_recv_buffer_size(UDP_BUFFER);
    }
    Ok(Port::Udp(s, plain_ip(peer.ip())))
}

fn note(e: io::Error, what: String) -> io::Error {
    io::Error::new(e.kind(), format!("{what}: {e}"))
}
