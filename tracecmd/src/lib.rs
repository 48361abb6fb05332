//! The program's parts, so that tests can reach them.

pub mod child;
pub mod cli;
pub mod cmd;
pub mod date;
pub mod dump;
pub mod export;
pub mod files;
pub mod live;
pub mod log;
pub mod net;
pub mod output;
pub mod plan;
pub mod procmap;
pub mod recorder;
pub mod report;
pub mod session;
pub mod signal;
pub mod stats;
pub mod sys;
pub mod tracefile;
