//! `options`: the options of the event printers, as `report -O` takes them.

use std::io::Write;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use trace_dat::plugin::options::OPTIONS;

use crate::cli::Ctx;

/// `options` has no options.
pub fn command() -> Command {
    Command::new("options").after_help("Set one with: tracecmd report -O fgraph:tailprint=1")
}

/// Prints the list.
pub fn run(_cx: &Ctx, _m: &ArgMatches) -> anyhow::Result<ExitCode> {
    print(&mut std::io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

/// Four lines for each; a line of dashes between those of a plugin, of equal signs between plugins.
pub fn print(out: &mut dyn Write) -> anyhow::Result<()> {
    let mut last = None;
    for o in OPTIONS {
        match last {
            None => {}
            Some(plugin) if plugin == o.plugin => writeln!(out, "------------")?,
            Some(_) => writeln!(out, "============")?,
        }
        last = Some(o.plugin);
        writeln!(out, "  plugin:\t{}\n  option:\t{}", o.plugin, o.name)?;
        writeln!(out, "    desc:\t{}\n     set:\t{}", o.description, u8::from(o.default))?;
    }
    out.flush()?;
    Ok(())
}
