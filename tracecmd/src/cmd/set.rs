//! `set`: change single settings of the running kernel and nothing else.

use std::process::ExitCode;

use clap::{ArgMatches, Command};

use crate::cli::{self, Ctx};
use crate::cmd::{record_options, start};
use crate::plan::{Plan, Verb};
use crate::session;

/// The options of `set`.
pub fn command() -> Command {
    record_options::command(Verb::Set)
}

/// Runs `set`.
pub fn run(_cx: &Ctx, m: &ArgMatches) -> anyhow::Result<ExitCode> {
    let plan = Plan::new(Verb::Set, &cli::ordered(m))?;
    let code = start::configure(&plan)?;
    if !plan.dry_run {
        session::remove_instances(&plan)?;
    }
    Ok(code)
}
