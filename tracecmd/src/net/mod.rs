//! The network: protocol messages, listener, agent, time synchronisation.

pub mod handshake;
pub mod limits;
pub mod msg;
