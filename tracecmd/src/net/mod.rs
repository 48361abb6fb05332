//! The network: protocol messages, listener, agent, time synchronisation.

pub mod addr;
pub mod agent;
pub mod channel;
pub mod client;
pub mod conn;
pub mod fifo;
pub mod guest;
pub mod handshake;
pub mod limits;
pub mod listen;
pub mod msg;
pub mod record;
pub mod tls;
pub mod tsync;
pub mod vm;
