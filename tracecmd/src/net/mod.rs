//! The network: protocol messages, listener, agent, time synchronisation.

pub mod msg;
