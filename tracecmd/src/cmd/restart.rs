//! `restart`: writes `tracing_on`.

use std::process::ExitCode;

use clap::{ArgMatches, Command};

use crate::cli::Ctx;
use crate::cmd::buffers;

/// The options of `restart`.
pub fn command() -> Command {
    buffers::options(Command::new("restart")).after_help(
        "Without an option: the top buffer.\n\nExamples:\n  tracecmd restart\n  tracecmd restart -B mine\n  tracecmd restart -a -t",
    )
}

/// Starts again recording into the chosen buffers; what is configured stays.
pub fn run(_cx: &Ctx, m: &ArgMatches) -> anyhow::Result<ExitCode> {
    let fs = buffers::tracing()?;
    for instance in buffers::chosen(&fs, m)? {
        instance.set_on(true)?;
    }
    Ok(ExitCode::SUCCESS)
}
