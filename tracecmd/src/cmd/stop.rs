//! `stop`: writes `tracing_on`.

use std::process::ExitCode;

use clap::{ArgMatches, Command};

use crate::cli::Ctx;
use crate::cmd::buffers;

/// The options of `stop`.
pub fn command() -> Command {
    buffers::options(Command::new("stop")).after_help(
        "Without an option: the top buffer.\n\nExamples:\n  tracecmd stop\n  tracecmd stop -B mine\n  tracecmd stop -a -t",
    )
}

/// Stops recording into the chosen buffers; what is configured stays.
pub fn run(_cx: &Ctx, m: &ArgMatches) -> anyhow::Result<ExitCode> {
    let fs = buffers::tracing()?;
    for instance in buffers::chosen(&fs, m)? {
        instance.set_on(false)?;
    }
    Ok(ExitCode::SUCCESS)
}
