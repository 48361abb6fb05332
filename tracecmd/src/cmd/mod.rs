//! One file per command. Each has `command()`, its options for clap, and `run()`.

pub mod convert;
pub mod dump;
pub mod extract;
pub mod help;
pub mod listen;
pub mod record;
pub mod record_options;
pub mod report;
pub mod set;
pub mod split;
pub mod start;
