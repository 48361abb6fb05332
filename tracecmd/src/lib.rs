//! The program's parts, so that tests can reach them. [`cli::run`] is the program: words in, text out, status back.
//!
//! ```
//! # fn main() -> anyhow::Result<()> {
//! let words = ["report", "--head", "3", "-i", "trace.dat"];
//! # let words = words.map(|w| if w == "trace.dat" { "../fixtures/x86_64-7.2-syscalls.dat" } else { w });
//! let status = tracecmd::cli::run("tracecmd", &words.map(Into::into))?;
//! assert_eq!(status, std::process::ExitCode::SUCCESS);
//! # Ok(())
//! # }
//! ```

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::todo,
        clippy::indexing_slicing,
        clippy::string_slice
    )
)]

pub mod child;
pub mod cli;
pub mod cmd;
pub mod date;
pub mod dump;
pub mod export;
pub mod files;
pub mod follower;
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
pub mod symbols;
pub mod sys;
pub mod tracefile;
