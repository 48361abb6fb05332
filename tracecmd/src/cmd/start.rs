//! `start`: configure the kernel as record does, and leave it tracing.

use std::process::ExitCode;

use anyhow::Context;
use clap::{ArgMatches, Command};

use crate::child;
use crate::cli::{self, Ctx};
use crate::cmd::record_options;
use crate::plan::{Plan, Verb};
use crate::session::Session;
use crate::signal::Signals;

/// The options of `start`.
pub fn command() -> Command {
    record_options::command(Verb::Start)
}

/// Runs `start`.
pub fn run(_cx: &Ctx, m: &ArgMatches) -> anyhow::Result<ExitCode> {
    configure(&Plan::new(Verb::Start, &cli::ordered(m))?)
}

/// Carries out a plan of `start` or `set` and keeps what was set.
///
/// # Errors
/// A setting is refused; what was changed before it is brought back.
pub fn configure(plan: &Plan) -> anyhow::Result<ExitCode> {
    plan.warn();
    if plan.dry_run {
        return plan.print();
    }
    // A signal in the midst of it leaves nothing half done.
    let signals = Signals::block()?;
    let mut session = Session::open(plan)?;
    session.configure(plan)?;
    anyhow::ensure!(!signals.pending(), "ended by a signal; what was set is brought back");
    if plan.command.is_empty() {
        session.limit_to(plan, None)?;
        if !plan.keep_before {
            session.switch_on()?;
        }
        session.keep();
        return Ok(ExitCode::SUCCESS);
    }
    let switches = session.buffers.iter().map(|a| &a.switch).collect();
    let held = child::hold(&plan.command, child::Start { user: plan.user.as_deref(), switches, stdout: None })?;
    session.limit_to(plan, Some(held.pid))?;
    let mut child = held.go()?;
    session.keep();
    signals.release()?;
    if plan.fork {
        return Ok(ExitCode::SUCCESS);
    }
    let status = child.wait().context("cannot wait for the command")?;
    Ok(if plan.exit_status { ExitCode::from(child::exit_code(status)) } else { ExitCode::SUCCESS })
}
