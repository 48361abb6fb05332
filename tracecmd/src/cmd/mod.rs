//! One file per command. Each has `command()`, its options for clap, and `run()`.

pub mod agent;
pub mod attach;
pub mod buffers;
pub mod check_events;
pub mod clear;
pub mod convert;
pub mod dump;
pub mod extract;
pub mod help;
pub mod hist;
pub mod list;
pub mod listen;
pub mod mem;
pub mod options;
pub mod profile;
pub mod record;
pub mod record_options;
pub mod report;
pub mod reset;
pub mod restart;
pub mod restore;
pub mod set;
pub mod setup_guest;
pub mod show;
pub mod snapshot;
pub mod split;
pub mod sqlhist;
pub mod stack;
pub mod start;
pub mod stat;
pub mod stop;
pub mod stream;

pub mod completions;
pub mod man;
pub use completions::complete;
