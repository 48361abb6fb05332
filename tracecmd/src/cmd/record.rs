//! `record`: configure the kernel, run a command (or wait for Ctrl-C), and put what was traced into a file.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{ArgMatches, Command};

use crate::child::{self, Held};
use crate::cli::{self, Ctx};
use crate::cmd::{extract, record_options};
use crate::net::guest;
use crate::plan::{Plan, Verb};
use crate::recorder::{self, Raw, Recorder, Settings};
use crate::session::{Active, Session};
use crate::signal::{Signals, Woken};
use crate::stats;
use crate::tracefile::{self, BufferFacts, Extras};

/// The options of `record`.
pub fn command() -> Command {
    record_options::command(Verb::Record)
}

/// Runs `record`.
pub fn run(_cx: &Ctx, m: &ArgMatches) -> anyhow::Result<ExitCode> {
    let plan = Plan::new(Verb::Record, &cli::ordered(m))?;
    plan.warn();
    if plan.dry_run {
        return plan.print();
    }
    if plan.remote().is_some() {
        return crate::net::record::record(&plan);
    }
    record(&plan)
}

/// The whole of a recording on this machine.
fn record(plan: &Plan) -> anyhow::Result<ExitCode> {
    let output = plan.output_path();
    let signals = Signals::block()?;
    let mut session = Session::open(plan)?;
    session.configure(plan)?;
    let date_us = if plan.date { extract::measured(&session, &session.clock()) } else { None };
    let latency = plan.latency_tracer().is_some();
    let own_id = (plan.top || !plan.guests.is_empty()).then(trace_id);
    let guests = start_guests(plan, &session, own_id.unwrap_or_default())?;
    let mut recorders = Recorders::new();
    if !latency {
        recorders.start(plan, &session, &output)?;
        if !plan.no_filter {
            session.leave_out(&recorders.tids());
        }
    }
    let status = trace(plan, &session, &signals)?;
    let stopped = session.switch_off();
    recorders.stop();
    let facts =
        session.buffers.iter().map(|a| BufferFacts::read(&a.instance, latency)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut data = recorders.join(&session)?;
    stopped?;
    let options = guests.iter().map(guest::Session::option).collect();
    let extras = Extras { date_us, trace_id: own_id, guests: options, ..Extras::default() };
    let mut guest_files = Vec::new();
    for g in guests {
        guest_files.push(g.finish(plan, None)?);
    }
    let meta = tracefile::metadata(session.root(), plan, &facts, &extras)?;
    let sizes: Vec<_> = session.buffers.iter().map(|a| stats::size_kb(&a.instance)).collect();
    // The kernel is free again before the long work begins.
    if plan.keep {
        session.keep();
    } else {
        session.end()?;
    }
    let summary = tracefile::write(&output, plan, &meta, &facts, &mut data).with_context(|| {
        let names: Vec<_> = data.iter().flatten().map(|r| r.path.display().to_string()).collect();
        format!("the raw data remain in {}; see the command restore", names.join(" "))
    })?;
    data.iter().flatten().for_each(Raw::remove);
    if !plan.quiet {
        let mut err = std::io::stderr().lock();
        let _ = tracefile::print_offsets(&summary, &mut err);
        for (_, summary) in &guest_files {
            let _ = tracefile::print_offsets(summary, &mut err);
        }
        let _ = stats::print_lost(&facts, &mut std::io::stdout().lock());
        let _ = stats::print_advice(&facts, &sizes, &mut err);
    }
    Ok(status.filter(|_| plan.exit_status).map_or(ExitCode::SUCCESS, ExitCode::from))
}

/// Asks the agents of all guests to record.
fn start_guests(plan: &Plan, session: &Session, own_id: u64) -> anyhow::Result<Vec<guest::Session>> {
    let start = |(n, g)| guest::Session::start(plan, g, n, session.root(), &session.clock(), own_id);
    plan.guests.iter().enumerate().map(start).collect()
}

/// From switching on to the moment when tracing is to stop. Gives the command's status, if there was one.
pub(crate) fn trace(plan: &Plan, session: &Session, signals: &Signals) -> anyhow::Result<Option<u8>> {
    if plan.command.is_empty() {
        session.limit_to(plan, None)?;
        if !plan.keep_before {
            session.switch_on()?;
        }
        wait_without_command(plan, session, signals)?;
        return Ok(None);
    }
    let switches: Vec<&File> = session.buffers.iter().map(|a| &a.switch).collect();
    let how = child::Start { user: plan.user.as_deref(), switches, stdout: None };
    let held = child::hold(&plan.command, how)?;
    session.limit_to(plan, Some(held.pid))?;
    run_command(held, signals)
}

/// Lets the command run and waits for its end, or for a signal.
fn run_command(held: Held, signals: &Signals) -> anyhow::Result<Option<u8>> {
    let pidfd = child::pidfd(held.pid).context("cannot watch the command")?;
    let mut running = held.go()?;
    match signals.wait(&[pidfd.as_fd()], None)? {
        Woken::Signal => Ok(None),
        _ => Ok(Some(child::exit_code(running.wait()?))),
    }
}

/// Waits for Ctrl-C, or for the end of all processes of `-P` when every buffer is limited to some.
fn wait_without_command(plan: &Plan, session: &Session, signals: &Signals) -> anyhow::Result<()> {
    let limited = |a: &Active| !plan.buffers[a.index].pids.is_empty();
    let mut watched = Vec::new();
    if session.buffers.iter().all(limited) {
        let pids = session.buffers.iter().flat_map(|a| &plan.buffers[a.index].pids);
        // A process that is gone already is one less to wait for.
        watched.extend(pids.filter_map(|p| child::pidfd(*p).ok()));
        if watched.is_empty() {
            return Ok(());
        }
    } else {
        // Where scripts look for it: not even -q holds it back.
        let _ = writeln!(std::io::stdout(), "Hit Ctrl^C to stop recording");
    }
    loop {
        let fds: Vec<_> = watched.iter().map(AsFd::as_fd).collect();
        match signals.wait(&fds, None)? {
            Woken::Ready(at) => {
                watched.swap_remove(at);
                if watched.is_empty() {
                    return Ok(());
                }
            }
            Woken::Signal => return Ok(()),
            Woken::Timeout => {}
        }
    }
}

/// The recorders of all buffers.
#[derive(Debug, Default)]
pub struct Recorders {
    /// By buffer, then by CPU.
    list: Vec<Vec<Recorder>>,
    paths: Vec<PathBuf>,
}

impl Recorders {
    /// None yet.
    pub fn new() -> Recorders {
        Recorders::default()
    }

    /// Starts one for each CPU of each buffer.
    ///
    /// # Errors
    /// As [`Recorder::start`]; those that run are stopped and their files removed when this is dropped.
    pub fn start(&mut self, plan: &Plan, session: &Session, output: &std::path::Path) -> anyhow::Result<()> {
        let how = Settings {
            pause: Duration::from_micros(plan.sleep_us.unwrap_or(1000)),
            priority: plan.priority,
            poll: plan.poll,
            no_splice: plan.no_splice,
            max_bytes: plan.max_kb.map(|kb| kb.saturating_mul(1024)),
        };
        for a in &session.buffers {
            let mut of_buffer = Vec::new();
            for cpu in a.instance.cpus()? {
                let path = recorder::raw_path(output, plan.temp.as_deref(), a.name(), cpu)?;
                self.paths.push(path.clone());
                of_buffer.push(Recorder::start(&a.instance, cpu, &path, &how)?);
            }
            self.list.push(of_buffer);
        }
        Ok(())
    }

    /// Their threads.
    pub fn tids(&self) -> Vec<i32> {
        self.list.iter().flatten().map(Recorder::tid).collect()
    }

    /// Asks all to end.
    pub fn stop(&self) {
        self.list.iter().flatten().for_each(Recorder::stop);
    }

    /// Waits for all; the raw data by buffer.
    ///
    /// # Errors
    /// The first recorder that failed. The others' files stay.
    pub fn join(&mut self, session: &Session) -> anyhow::Result<Vec<Vec<Raw>>> {
        let list = std::mem::take(&mut self.list);
        let mut data = Vec::new();
        let mut failed = None;
        for of_buffer in list {
            let mut raws = Vec::new();
            for r in of_buffer {
                match r.join() {
                    Ok(raw) => raws.push(raw),
                    Err(e) => failed = failed.or(Some(e)),
                }
            }
            data.push(raws);
        }
        self.paths.clear();
        data.resize_with(session.buffers.len(), Vec::new);
        match failed {
            Some(e) => Err(e),
            None => Ok(data),
        }
    }
}

impl Drop for Recorders {
    fn drop(&mut self) {
        self.stop();
        for r in self.list.drain(..).flatten() {
            let _ = r.join();
        }
        for path in &self.paths {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A number that other machines' recordings can refer to.
pub(crate) fn trace_id() -> u64 {
    let mut bytes = [0; 8];
    let random = File::open("/dev/urandom").and_then(|mut f| std::io::Read::read_exact(&mut f, &mut bytes));
    match random {
        Ok(()) => u64::from_ne_bytes(bytes),
        Err(_) => u64::from(std::process::id()) << 32 | 1,
    }
}
