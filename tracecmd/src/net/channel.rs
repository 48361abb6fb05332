//! A control connection that speaks messages, one at a time: agent, host and time synchronisation.

use std::{io, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use socket2::Socket;

use super::{
    conn::{Conn, prepare},
    msg::Msg,
};

/// What goes over a connection, for who asks for everything (`--verbose=all`): the fixed part, then the data, in hexadecimal digits.
fn note(way: &str, peer: &str, m: &Msg, bytes: &[u8]) {
    if log::log_enabled!(log::Level::Trace) {
        let (head, rest) = bytes.split_at(bytes.len().min(super::msg::HEADER));
        let hex = rest.iter().fold(String::with_capacity(2 * rest.len()), |mut hex, b| {
            use std::fmt::Write;
            let _ = write!(hex, "{b:02x}");
            hex
        });
        log::trace!("{m} {way} {peer}, {} bytes: {hex}", head.len() + rest.len());
    }
}

/// A blocking connection for messages.
#[derive(Debug)]
pub struct Channel {
    conn: Conn,
    buf: Vec<u8>,
    /// Who is at the other end, for messages.
    pub peer: String,
}

impl Channel {
    /// Messages over a connected socket.
    ///
    /// # Errors
    /// The socket cannot be made blocking.
    pub fn new(socket: Socket, peer: String) -> Result<Channel> {
        socket.set_nonblocking(false)?;
        prepare(&socket);
        Ok(Channel { conn: Conn::plain(socket), buf: Vec::new(), peer })
    }

    /// The connection, to be watched.
    pub fn conn(&self) -> &Conn {
        &self.conn
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The connection broke.
    pub fn send(&mut self, m: &Msg) -> Result<()> {
        let bytes = m.encode()?;
        note("to", &self.peer, m, &bytes);
        self.conn.send(&bytes);
        self.conn.flush().with_context(|| format!("sending {m} to {}", self.peer))
    }

    /// Sends metadata as SEND_DATA messages with a FIN_DATA at their end.
    ///
    /// # Errors
    /// The connection broke.
    pub fn send_data(&mut self, bytes: &[u8]) -> Result<()> {
        self.send_pieces(bytes)?;
        self.send(&Msg::FinData)
    }

    /// Sends metadata as SEND_DATA messages; FIN_DATA is still to be sent.
    ///
    /// # Errors
    /// The connection broke.
    pub fn send_pieces(&mut self, bytes: &[u8]) -> Result<()> {
        bytes.chunks(super::msg::MAX_DATA).try_for_each(|piece| self.send(&Msg::SendData(piece.to_vec())))
    }

    /// Receives SEND_DATA messages until FIN_DATA, at most `limit` bytes.
    ///
    /// # Errors
    /// Anything else came, the connection broke, or nothing came in time.
    pub fn receive_data(&mut self, limit: u64, wait: Option<Duration>) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            match self.receive(wait)? {
                Msg::SendData(bytes) => {
                    all.extend(bytes);
                    ensure!(all.len() as u64 <= limit, "{} sends more than {limit} bytes of metadata", self.peer);
                }
                Msg::FinData => return Ok(all),
                m => bail!("{} sent {m} instead of data", self.peer),
            }
        }
    }

    /// Receives a message; `None`: wait for ever.
    ///
    /// # Errors
    /// The connection broke or ended, nothing came in time, or what came is no message.
    pub fn receive(&mut self, wait: Option<Duration>) -> Result<Msg> {
        self.conn.raw().set_read_timeout(wait)?;
        loop {
            if let Some((m, len)) = Msg::decode(&self.buf).with_context(|| self.peer.clone())? {
                note("from", &self.peer, &m, self.buf.get(..len).unwrap_or_default());
                self.buf.drain(..len);
                return Ok(m);
            }
            let mut more = [0; 8192];
            match self.conn.read(&mut more) {
                Ok(0) => bail!("{} closed the connection", self.peer),
                Ok(n) => self.buf.extend(more.iter().take(n)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => bail!("{} does not answer", self.peer),
                Err(e) => return Err(e).with_context(|| format!("connection to {}", self.peer)),
            }
        }
    }

    /// Waits for `want`; anything else is answered by NOT_SUPP and ignored.
    ///
    /// # Errors
    /// As [`Channel::receive`].
    pub fn wait_for(&mut self, want: &Msg, wait: Option<Duration>) -> Result<()> {
        loop {
            match self.receive(wait)? {
                m if m == *want => return Ok(()),
                Msg::NotSupported => {}
                m => {
                    log::info!("{}: {m} message not expected, ignored", self.peer);
                    self.send(&Msg::NotSupported)?;
                }
            }
        }
    }

    /// Whether bytes have come that were not looked at yet.
    pub fn has_more(&self) -> bool {
        !self.buf.is_empty()
    }
}
