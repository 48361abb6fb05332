//! The program's parts, so that tests can reach them.

pub mod cli;
pub mod cmd;
pub mod net;
pub mod report;
