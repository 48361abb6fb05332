//! `clear`: empties trace buffers.

use std::process::ExitCode;

use clap::{ArgMatches, Command};

use crate::cli::{self, Ctx};
use crate::cmd::buffers;

/// The options of `clear`.
pub fn command() -> Command {
    Command::new("clear")
        .arg(cli::option("B", "NAME", "This instance (may be repeated); the top buffer is then left out"))
        .arg(cli::switch("a", "Every instance and the top buffer").long("all"))
        .after_help("Without an option: the top buffer.\n\nExamples:\n  tracecmd clear\n  tracecmd clear -B mine")
}

/// Empties the chosen buffers. Here `-a` stands for the top buffer too, as documented.
pub fn run(_cx: &Ctx, m: &ArgMatches) -> anyhow::Result<ExitCode> {
    let fs = buffers::tracing()?;
    let mut options = cli::ordered(m);
    if let Some(all) = options.iter().find(|o| o.id == "a").cloned() {
        options.push(cli::Opt { id: "t".into(), ..all });
    }
    for instance in buffers::select(&fs, &options)? {
        instance.clear(None)?;
    }
    Ok(ExitCode::SUCCESS)
}
