//! `stack`: the kernel's stack tracer.

use std::io::Write;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use tracefs::StackTracer;

use crate::cli::{self, Ctx};
use crate::cmd::buffers;

/// The options of `stack`.
pub fn command() -> Command {
    Command::new("stack")
        .arg(cli::switch("start", "Start the stack tracer"))
        .arg(cli::switch("stop", "Stop the stack tracer"))
        .arg(cli::switch("reset", "Forget the deepest stack seen so far"))
        .arg(cli::option("verbose", "LEVEL", "Level of messages").num_args(0..=1).require_equals(true).hide(true))
        .after_help(
            "Without an option the deepest stack is printed.\n\nExamples:\n  tracecmd stack --start\n  tracecmd stack",
        )
}

/// Starts, stops, resets or shows it.
pub fn run(_cx: &Ctx, m: &ArgMatches) -> anyhow::Result<ExitCode> {
    let fs = buffers::tracing()?;
    let stack = StackTracer::new(&fs);
    // The last of several options counts.
    match cli::ordered(m).iter().rev().map(|o| o.id.as_str()).find(|id| *id != "verbose") {
        Some("start") => stack.enable(true)?,
        Some("stop") => stack.enable(false)?,
        Some("reset") => stack.reset()?,
        _ => {
            let state = if stack.is_enabled()? { "running" } else { "not running" };
            let mut out = crate::output::guard::stdout();
            writeln!(out, "(stack tracer {state})")?;
            for line in stack.text()?.lines().filter(|l| !l.starts_with('#')) {
                writeln!(out, "{line}")?;
            }
            out.flush()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
