//! `extract`: what the kernel's buffers (or its snapshots) hold now, into a file.

use std::process::ExitCode;

use anyhow::Context;
use clap::{ArgMatches, Command};
use tracefs::TraceFs;

use crate::cli::{self, Ctx};
use crate::cmd::record_options;
use crate::plan::{Buffer, Plan, Verb};
use crate::recorder::{self, Raw};
use crate::session::Session;
use crate::signal::Signals;
use crate::tracefile::{self, BufferFacts, Extras};
use crate::{date, stats};

/// The options of `extract`.
pub fn command() -> Command {
    record_options::command(Verb::Extract)
}

/// Runs `extract`.
pub fn run(_cx: &Ctx, m: &ArgMatches) -> anyhow::Result<ExitCode> {
    let mut plan = Plan::new(Verb::Extract, &cli::ordered(m))?;
    if plan.all_instances {
        let named: Vec<_> = plan.buffers.iter().filter_map(|b| b.name.clone()).collect();
        for name in TraceFs::find()?.instances()? {
            if !named.contains(&name) {
                plan.buffers.push(Buffer { name: Some(name), ..Buffer::default() });
            }
        }
    }
    plan.warn();
    if plan.dry_run {
        return plan.print();
    }
    let output = plan.output_path();
    // What is taken out of the kernel's buffers gets into the file, whatever comes.
    let _signals = Signals::block()?;
    let mut session = Session::open(&plan)?;
    session.settings_before_extract(&plan)?;
    let mut data: Vec<Vec<Raw>> = Vec::new();
    let read = read_all(&plan, &session, &mut data);
    let facts = read.and_then(|()| {
        session.buffers.iter().map(|a| BufferFacts::read(&a.instance, false)).collect::<anyhow::Result<Vec<_>>>()
    });
    let facts = match facts {
        Ok(facts) => facts,
        Err(e) => {
            data.iter().flatten().for_each(Raw::remove);
            return Err(e);
        }
    };
    let mut extras = Extras { btf: true, ..Extras::default() };
    if plan.date {
        extras.date_us = date_of(&session, &facts);
    }
    let meta = tracefile::metadata(session.root(), &plan, &facts, &extras)?;
    if plan.keep {
        session.keep();
    } else {
        session.end_extract()?;
    }
    let summary = tracefile::write(&output, &plan, &meta, &facts, &mut data).with_context(|| {
        let names: Vec<_> = data.iter().flatten().map(|r| r.path.display().to_string()).collect();
        format!("the raw data remain in {}; see the command restore", names.join(" "))
    })?;
    data.iter().flatten().for_each(Raw::remove);
    if !plan.quiet {
        let _ = tracefile::print_offsets(&summary, &mut std::io::stderr().lock());
        let _ = stats::print_lost(&facts, &mut std::io::stdout().lock());
    }
    Ok(ExitCode::SUCCESS)
}

fn read_all(plan: &Plan, session: &Session, data: &mut Vec<Vec<Raw>>) -> anyhow::Result<()> {
    let output = plan.output_path();
    for a in &session.buffers {
        data.push(Vec::new());
        for cpu in a.instance.cpus()? {
            let path = recorder::raw_path(&output, plan.temp.as_deref(), a.name(), cpu)?;
            let raw = recorder::extract(&a.instance, cpu, &path, plan.snapshot)?;
            if let Some(last) = data.last_mut() {
                last.push(raw);
            }
        }
    }
    Ok(())
}

/// The wall-clock offset of the first buffer's clock; a failure only leaves it out.
pub fn date_of(session: &Session, facts: &[BufferFacts]) -> Option<i64> {
    let clock = facts.first().map(|f| f.selected_clock().to_owned()).unwrap_or_else(|| "local".to_owned());
    measured(session, &clock)
}

/// As [`date::offset_us`]; a failure is told and leaves the offset out.
pub fn measured(session: &Session, clock: &str) -> Option<i64> {
    match date::offset_us(session.root(), clock) {
        Ok(us) => Some(us),
        Err(e) => {
            log::warn!("--date ignored: {e:#}");
            None
        }
    }
}
