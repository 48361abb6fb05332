//! `stream`: as `record`, but the events are printed as they come.

use std::fs::File;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use trace_dat::time::{Scale, TimeMap};

use crate::cli::{self, Ctx};
use crate::cmd::{extract, record, record_options};
use crate::live::{self, Live, Printed, Take};
use crate::plan::{Plan, Verb};
use crate::report::line::Columns;
use crate::session::Session;
use crate::signal::Signals;
use crate::tracefile::BufferFacts;
use crate::{stats, sys};

/// The options of `stream`.
pub fn command() -> Command {
    record_options::command(Verb::Stream)
}

/// Runs `stream`.
pub fn run(_cx: &Ctx, m: &ArgMatches) -> anyhow::Result<ExitCode> {
    let plan = Plan::new(Verb::Stream, &cli::ordered(m))?;
    plan.warn();
    if plan.dry_run {
        return plan.print();
    }
    let signals = Signals::block()?;
    let command_stdout = if plan.stderr { Some(record::stdout_to_stderr()?) } else { None };
    let mut session = Session::open(&plan)?;
    let times = configure(&plan, &mut session)?;
    let root = session.root().clone();
    let dec = live::decoder(&session, &plan)?;
    let mut live = Live::open(&plan, &session, &dec, &times)?;
    let streams = live.streams.clone();
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
    let mut printed = Printed::new(&root, &streams, Columns { guard: terminal, ..Columns::default() })?;
    follow(&plan, &mut session, &signals, command_stdout, &mut live, &mut printed)
}

/// Configures the kernel; gives how the times of the records are to be corrected.
pub(crate) fn configure(plan: &Plan, session: &mut Session) -> anyhow::Result<TimeMap> {
    let mut times = TimeMap::default();
    if plan.buffers.iter().any(|b| b.tsc2nsec) {
        let (mult, shift) = sys::tsc_to_ns(&session.root().top().cpus()?)?;
        times.scale = Scale::Tsc { mult, shift };
    }
    session.configure(plan)?;
    if plan.date {
        // The shown times have microseconds; those of the kernel nanoseconds.
        times.offset = extract::measured(session, &session.clock()).unwrap_or(0).wrapping_mul(1000) as u64;
    } else if let Some(text) = &plan.ts_offset {
        times.offset = trace_dat::read::c_number(text);
    }
    Ok(times)
}

/// Traces, handing on what comes, and puts everything back.
pub(crate) fn follow(
    plan: &Plan,
    session: &mut Session,
    signals: &Signals,
    command_stdout: Option<File>,
    live: &mut Live,
    to: &mut dyn Take,
) -> anyhow::Result<ExitCode> {
    if let Some(priority) = plan.priority {
        sys::set_fifo_priority(priority).map_err(|e| anyhow::anyhow!("cannot set priority {priority}: {e}"))?;
    }
    if !plan.no_filter {
        session.leave_out(&[nix::unistd::gettid().as_raw()]);
    }
    let mut wait = |fds: &[std::os::fd::BorrowedFd<'_>]| live.wait(signals, fds, to);
    let outcome = record::trace_with(plan, session, &mut wait, command_stdout, None)?;
    session.switch_off()?;
    live.finish(to)?;
    live.close();
    let facts =
        session.buffers.iter().map(|a| BufferFacts::read(&a.instance, false)).collect::<anyhow::Result<Vec<_>>>()?;
    if plan.keep {
        session.keep();
    } else {
        session.end()?;
    }
    if !plan.quiet {
        let _ = stats::print_lost(&facts, &mut std::io::stdout().lock());
    }
    Ok(outcome.status.filter(|_| plan.exit_status).map_or(ExitCode::SUCCESS, ExitCode::from))
}
