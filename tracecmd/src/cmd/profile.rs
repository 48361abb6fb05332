//! `profile`: as `stream`, but what comes is summed up and printed at the end.

use std::fs::File;
use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::{ArgMatches, Command};

use crate::cli::{self, Ctx};
use crate::cmd::{record, record_options, stream};
use crate::live::{self, Live, Profiled};
use crate::plan::{Plan, Verb};
use crate::report::{hooks::Hook, profile::Profile};
use crate::session::Session;
use crate::signal::Signals;

/// The options of `profile`.
pub fn command() -> Command {
    record_options::command(Verb::Profile)
}

/// Runs `profile`.
pub fn run(_cx: &Ctx, m: &ArgMatches) -> anyhow::Result<ExitCode> {
    let plan = Plan::new(Verb::Profile, &cli::ordered(m))?;
    plan.warn();
    if plan.dry_run {
        return plan.print();
    }
    let signals = Signals::block()?;
    let command_stdout = match (&plan.output, plan.stderr) {
        (Some(path), _) => Some(stdout_to_file(path)?),
        (None, true) => Some(record::stdout_to_stderr()?),
        (None, false) => None,
    };
    let mut session = Session::open(&plan)?;
    let times = stream::configure(&plan, &mut session)?;
    let dec = live::decoder(&session, &plan)?;
    let mut live = Live::open(&plan, &session, &dec, &times)?;
    let hooks: Vec<Hook> = plan.hooks.iter().map(|h| Hook::parse(&h.text)).collect::<anyhow::Result<_>>()?;
    let of = |_| Profile::new(&dec, plan.global_irqs, plan.by_comm, &hooks);
    let mut profiled = Profiled::new(&dec, live.streams.iter().map(of).collect());
    let code = stream::follow(&plan, &mut session, &signals, command_stdout, &mut live, &mut profiled)?;
    let mut text = Vec::new();
    for profile in profiled.into_profiles() {
        profile.print(&dec, &mut text);
    }
    let mut out = std::io::stdout().lock();
    out.write_all(&text)?;
    out.flush()?;
    Ok(code)
}

/// Our own stdout becomes this file; gives the original one, for the command.
fn stdout_to_file(path: &std::path::Path) -> anyhow::Result<File> {
    use std::os::fd::AsFd;
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let original = std::io::stdout().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdout(file).with_context(|| path.display().to_string())?;
    Ok(File::from(original))
}
