//! The program's parts, so that tests can reach them.
pub mod net;
pub mod report;
