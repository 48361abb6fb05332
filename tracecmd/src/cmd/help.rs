//! `help`: the overview of all commands, or the help of one.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};

use crate::cli::{self, Ctx};

/// The options of `help`.
pub fn command() -> Command {
    Command::new("help").arg(Arg::new("name").value_name("COMMAND").help("Command to explain; none: list all commands"))
}

/// Prints the overview, or what `COMMAND --help` prints.
pub fn run(cx: &Ctx, m: &ArgMatches) -> anyhow::Result<ExitCode> {
    let words: Vec<OsString> = match m.get_one::<String>("name") {
        Some(name) => vec![name.into(), "--help".into()],
        None => vec!["--help".into()],
    };
    cli::run(&cx.program, &words)
}
