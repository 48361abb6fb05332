//! One stream connection: TCP or vsock, plain or inside TLS, read and written without blocking when its socket says so.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    time::Duration,
};

use socket2::{Socket, TcpKeepalive};

/// Lets the kernel find out when a silent peer is gone, and sends small messages at once.
pub fn prepare(socket: &Socket) {
    // Refusals do not matter: a socket that has no such option (vsock) works without.
    let _ = socket.set_tcp_nodelay(true);
    let probe =
        TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10)).with_retries(4);
    let _ = socket.set_tcp_keepalive(&probe);
}

/// A stream connection, possibly inside TLS, with the bytes that wait to be sent.
#[derive(Debug)]
pub struct Conn {
    raw: Socket,
    tls: Option<Box<rustls::Connection>>,
    out: Vec<u8>,
}

impl Conn {
    /// A plain connection.
    pub fn plain(raw: Socket) -> Self {
        Conn { raw, tls: None, out: Vec::new() }
    }

    /// A connection inside TLS; the TLS handshake runs with the first reads and writes.
    pub fn tls(raw: Socket, tls: rustls::Connection) -> Self {
        Conn { raw, tls: Some(Box::new(tls)), out: Vec::new() }
    }

    /// The socket.
    pub fn raw(&self) -> &Socket {
        &self.raw
    }

    /// The socket, to be watched.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.raw.as_fd()
    }

    /// The socket's number.
    pub fn fd(&self) -> i32 {
        self.raw.as_raw_fd()
    }

    /// Whether bytes wait until the socket takes them.
    pub fn wants_write(&self) -> bool {
        !self.out.is_empty() || self.tls.as_ref().is_some_and(|t| t.wants_write())
    }

    /// Bytes that wait to be sent.
    pub fn waiting(&self) -> usize {
        self.out.len()
    }

    /// Completes the TLS handshake on a blocking socket; nothing to do without TLS.
    ///
    /// # Errors
    /// The peer is not who it should be, or the connection is broken.
    pub fn handshake(&mut self) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => {
                while tls.is_handshaking() {
                    tls.complete_io(&mut self.raw)?;
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Queues bytes; [`Conn::flush`] sends them.
    pub fn send(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Sends what the socket takes.
    ///
    /// # Errors
    /// The connection is broken. A socket that takes nothing more now is no error.
    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            None => {
                while !self.out.is_empty() {
                    match self.raw.write(&self.out) {
                        Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                        Ok(n) => drop(self.out.drain(..n)),
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                        Err(e) => return Err(e),
                    }
                }
            }
            Some(tls) => loop {
                if !self.out.is_empty() {
                    let n = tls.writer().write(&self.out)?;
                    self.out.drain(..n);
                }
                if !tls.wants_write() {
                    break;
                }
                match tls.write_tls(&mut self.raw) {
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            },
        }
        Ok(())
    }

    /// Reads what has come: 0 at the end, `WouldBlock` when nothing is there.
    ///
    /// # Errors
    /// The connection is broken, or its TLS is.
    pub fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.raw.read(buf) };
        loop {
            match tls.reader().read(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            let n = tls.read_tls(&mut self.raw)?;
            let state = tls.process_new_packets().map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            if tls.wants_write() {
                // Handshake answers; what does not go now goes with the next flush.
                match tls.write_tls(&mut self.raw) {
                    Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Err(e),
                    _ => {}
                }
            }
            if n == 0 && state.plaintext_bytes_to_read() == 0 {
                return Ok(0);
            }
        }
    }

    /// Says that nothing more will be sent.
    pub fn finish(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        // The peer may be gone already.
        let _ = self.flush();
        let _ = self.raw.shutdown(std::net::Shutdown::Write);
    }
}

/// The socket address without the IPv6 form of an IPv4 address; the scope of a link-local one stays.
pub fn plain_addr(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), addr.port()),
        IpAddr::V6(_) => addr,
    }
}

/// The address without the IPv6 form of an IPv4 address.
pub fn plain_ip(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}
