//! `record`: configure the kernel, run a command (or wait for Ctrl-C), and put what was traced into a file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{ArgMatches, Command};
use trace_dat::compress::Codec;
use trace_dat::write::{Payload, option::id};

use crate::child::{self, Held};
use crate::cli::{self, Ctx};
use crate::cmd::{extract, record_options};
use crate::follower::Follower;
use crate::net::guest;
use crate::plan::{Plan, Verb};
use crate::procmap::Watcher;
use crate::recorder::{self, Raw, Recorder, Settings};
use crate::session::{Active, Session};
use crate::signal::{Signals, Woken};
use crate::sys::{self, Background, Split};
use crate::tracefile::{self, BufferFacts, Extras, PackedSections};
use crate::{procmap, stats, symbols};

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
    let mut background = None;
    if plan.daemonize {
        match sys::to_background()? {
            Split::Parent(code) => return Ok(ExitCode::from(code)),
            Split::Child(b) => background = Some(b),
        }
    }
    match plan.remote() {
        Some(_) => crate::net::record::record(&plan, background),
        None => record(&plan, background),
    }
}

/// The file that says which process records in the background.
const PID_FILE: &str = "/var/run/trace-cmd-record.pid";

/// The pid file, until dropped.
pub(crate) struct PidFile;

impl PidFile {
    pub(crate) fn create() -> anyhow::Result<PidFile> {
        std::fs::write(PID_FILE, format!("{}\n", std::process::id()))
            .with_context(|| format!("cannot write {PID_FILE}"))?;
        Ok(PidFile)
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(PID_FILE);
    }
}

/// What the traced time left behind.
#[derive(Default)]
pub(crate) struct Outcome {
    /// The command's status.
    pub status: Option<u8>,
    /// Maps of the traced processes.
    pub maps: Vec<String>,
}

/// The whole of a recording on this machine.
fn record(plan: &Plan, background: Option<Background>) -> anyhow::Result<ExitCode> {
    let output = plan.output_path();
    let signals = Signals::block()?;
    let command_stdout = if plan.stderr { Some(stdout_to_stderr()?) } else { None };
    let mut plan = plan;
    let with_tsc;
    if !plan.guests.is_empty() && guest::should_use_tsc(plan, &tracefs::TraceFs::find()?) {
        with_tsc = plan.clone().with_tsc();
        plan = &with_tsc;
    }
    let mut session = Session::open(plan)?;
    let tsc2nsec = match plan.buffers.iter().any(|b| b.tsc2nsec) {
        true => Some(sys::tsc_to_ns(&session.root().top().cpus()?)?),
        false => None,
    };
    session.configure(plan)?;
    let date_us = if plan.date { extract::measured(&session, &session.clock()) } else { None };
    let latency = plan.latency_tracer().is_some();
    let own_id = (plan.top || !plan.guests.is_empty()).then(trace_id);
    let guests = start_guests(plan, &session, own_id.unwrap_or_default())?;
    let mut recorders = Recorders::new();
    if !latency {
        recorders.describe(plan, &session, &output)?;
        recorders.start(plan, &session, &output)?;
        if !plan.no_filter {
            session.leave_out(&recorders.tids());
        }
    }
    let pid_file = background.is_some().then(PidFile::create).transpose()?;
    let outcome = trace(plan, &session, &signals, command_stdout, background)?;
    // Whatever fails from here on, the raw data stay.
    let raw = recorders.keep();
    finish(plan, session, recorders, outcome, (date_us, own_id, tsc2nsec), guests, pid_file).with_context(
        || match raw {
            Some(raw) => format!("the raw data remain in {raw}; see the command restore"),
            None => "the recording could not be finished".into(),
        },
    )
}

/// From the moment when tracing is to stop to the finished file.
fn finish(
    plan: &Plan,
    mut session: Session,
    mut recorders: Recorders,
    outcome: Outcome,
    (date_us, own_id, tsc2nsec): (Option<i64>, Option<u64>, Option<(u32, u32)>),
    guests: Vec<guest::Session>,
    pid_file: Option<PidFile>,
) -> anyhow::Result<ExitCode> {
    let output = plan.output_path();
    let latency = plan.latency_tracer().is_some();
    let stopped = session.switch_off();
    recorders.stop();
    let facts =
        session.buffers.iter().map(|a| BufferFacts::read(&a.instance, latency)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut data = recorders.join(&session);
    stopped?;
    let mut options: Vec<_> = guests.iter().map(guest::Session::option).collect();
    let mut guest_files = Vec::new();
    for g in guests {
        let mut done = g.finish(tsc2nsec)?;
        options.append(&mut done.options);
        guest_files.push(done);
    }
    let symbols =
        recorders.symbols.take().and_then(|(state, packed)| (symbols::State::now()? == state).then_some(packed));
    let maps = outcome.maps;
    let extras = Extras { date_us, trace_id: own_id, guests: options, tsc2nsec, maps, symbols, ..Extras::default() };
    let mut meta = tracefile::metadata(session.root(), plan, &facts, &extras)?;
    std::mem::take(&mut recorders.packed).put_into(&mut meta);
    let sizes: Vec<_> = session.buffers.iter().map(|a| stats::size_kb(&a.instance)).collect();
    // The kernel is free again at once; where it waits for its readers (RCU) the file is written meanwhile.
    let (restored, summary) = std::thread::scope(|scope| {
        let restorer = std::thread::Builder::new().name("restorer".into());
        let restorer = restorer.spawn_scoped(scope, || restore(&mut session, plan.keep));
        let summary = tracefile::write(&output, plan, &meta, &facts, &mut data);
        (restorer.map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))), summary)
    });
    let restored = restored.unwrap_or_else(|_no_thread| restore(&mut session, plan.keep));
    let summary = summary?;
    data.iter().flatten().for_each(Raw::remove);
    recorders.forget_description();
    drop(pid_file);
    if !plan.quiet {
        let mut err = std::io::stderr().lock();
        let _ = tracefile::print_offsets(&summary, &mut err);
        for done in &guest_files {
            let _ = tracefile::print_offsets(&done.summary, &mut err);
        }
        let _ = stats::print_lost(&facts, &mut std::io::stdout().lock());
        let _ = stats::print_advice(&facts, &sizes, &mut err);
    }
    // The file is complete all the same.
    let restored = restored.map_err(|e| log::warn!("not brought back: {e:#}")).is_ok();
    let failed: Vec<String> =
        data.iter().flatten().filter_map(|r| Some(format!("{:#}", r.failure.as_ref()?))).collect();
    if !failed.is_empty() {
        let _ = writeln!(
            std::io::stderr(),
            "{} is complete up to what could not be saved:\n  {}",
            output.display(),
            failed.join("\n  ")
        );
        return Ok(ExitCode::FAILURE);
    }
    if !restored {
        return Ok(ExitCode::FAILURE);
    }
    Ok(outcome.status.filter(|_| plan.exit_status).map_or(ExitCode::SUCCESS, ExitCode::from))
}

/// Brings the kernel back, or leaves what was asked for.
fn restore(session: &mut Session, keep: bool) -> anyhow::Result<()> {
    if keep {
        session.keep();
        return Ok(());
    }
    session.end()
}

/// Asks the agents of all guests to record.
fn start_guests(plan: &Plan, session: &Session, own_id: u64) -> anyhow::Result<Vec<guest::Session>> {
    let clock = session.clock();
    let host = guest::Host { root: session.root(), clock: &clock, trace_id: own_id };
    let start = |(n, g)| guest::Session::start(plan, g, n, &host);
    plan.guests.iter().enumerate().map(start).collect()
}

/// Our own stdout becomes stderr; gives the original one, for the command.
pub(crate) fn stdout_to_stderr() -> anyhow::Result<File> {
    let original = std::io::stdout().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdout(std::io::stderr()).context("--stderr")?;
    Ok(File::from(original))
}

/// From switching on to the moment when tracing is to stop.
pub(crate) fn trace(
    plan: &Plan,
    session: &Session,
    signals: &Signals,
    stdout: Option<File>,
    background: Option<Background>,
) -> anyhow::Result<Outcome> {
    trace_with(plan, session, &mut |fds| signals.wait(fds, None), stdout, background)
}

/// Waits for a signal or one of these descriptors, and does meanwhile what is to be done.
pub(crate) type Waiter<'a> = dyn FnMut(&[BorrowedFd<'_>]) -> anyhow::Result<Woken> + 'a;

/// As [`trace`], waiting in a way of the caller's.
pub(crate) fn trace_with(
    plan: &Plan,
    session: &Session,
    wait: &mut Waiter<'_>,
    stdout: Option<File>,
    background: Option<Background>,
) -> anyhow::Result<Outcome> {
    if plan.command.is_empty() {
        session.limit_to(plan, None)?;
        if !plan.keep_before {
            session.switch_on()?;
        }
        return wait_without_command(plan, session, wait, background);
    }
    let switches: Vec<&File> = session.buffers.iter().map(|a| &a.switch).collect();
    let how = child::Start { user: plan.user.as_deref(), switches, stdout };
    let held = child::hold(&plan.command, how)?;
    session.limit_to(plan, Some(held.pid))?;
    let follow = plan.buffers.iter().any(|b| b.follow);
    let watcher = match plan.buffers.iter().any(|b| b.proc_map) {
        true => Some(Watcher::start(held.pid, follow)?),
        false => None,
    };
    run_command(held, wait, watcher, background)
}

/// Lets the command run and waits for its end, or for a signal.
fn run_command(
    held: Held,
    wait: &mut Waiter<'_>,
    watcher: Option<Watcher>,
    background: Option<Background>,
) -> anyhow::Result<Outcome> {
    let pidfd = sys::pidfd(held.pid).context("cannot watch the command")?;
    let mut running = held.go()?;
    if let Some(background) = background {
        let _ = writeln!(std::io::stdout(), "Send SIGINT/SIGTERM to pid {} to stop recording", std::process::id());
        background.report();
    }
    if wait(&[pidfd.as_fd()])? == Woken::Signal {
        return Ok(Outcome::default());
    }
    Ok(match watcher {
        Some(watcher) => {
            let seen = watcher.join();
            Outcome { status: Some(seen.status), maps: seen.maps }
        }
        None => Outcome { status: Some(child::exit_code(running.wait()?)), maps: Vec::new() },
    })
}

/// Waits for Ctrl-C, or for the end of all processes of `-P` when every buffer is limited to some.
fn wait_without_command(
    plan: &Plan,
    session: &Session,
    wait: &mut Waiter<'_>,
    background: Option<Background>,
) -> anyhow::Result<Outcome> {
    let of = |a: &Active| plan.buffer(a.index);
    let mut mapped: Vec<i32> =
        session.buffers.iter().filter(|a| of(a).proc_map).flat_map(|a| of(a).pids.clone()).collect();
    mapped.sort_unstable();
    mapped.dedup();
    let mut maps: Vec<_> = mapped.iter().map(|p| procmap::of_process(*p)).collect();
    let mut watched = Vec::new();
    let all_limited = session.buffers.iter().all(|a| !of(a).pids.is_empty());
    if all_limited {
        let pids = session.buffers.iter().flat_map(|a| &of(a).pids);
        // A process that is gone already is one less to wait for.
        watched.extend(pids.filter_map(|p| sys::pidfd(*p).ok()));
    }
    if let Some(background) = background {
        let _ = writeln!(std::io::stdout(), "Send SIGINT/SIGTERM to pid {} to stop recording", std::process::id());
        background.report();
    } else if !all_limited {
        // Where scripts look for it: not even -q holds it back.
        let _ = writeln!(std::io::stdout(), "Hit Ctrl^C to stop recording");
    }
    while !(all_limited && watched.is_empty()) {
        let fds: Vec<_> = watched.iter().map(AsFd::as_fd).collect();
        match wait(&fds)? {
            Woken::Ready(at) => drop(watched.swap_remove(at)),
            Woken::Signal => break,
            Woken::Timeout => {}
        }
    }
    // Who still lives has the fuller map now.
    for (pid, text) in mapped.iter().zip(&mut maps) {
        if let Some(now) = procmap::of_process(*pid) {
            *text = Some(now);
        }
    }
    Ok(Outcome { status: None, maps: maps.into_iter().flatten().collect() })
}

/// The recorders of all buffers.
#[derive(Debug, Default)]
pub struct Recorders {
    /// By buffer, then by CPU.
    list: Vec<Vec<Recorder>>,
    /// Packs what they have written.
    follower: Option<Follower>,
    /// Files that are removed when this is dropped: nothing was recorded yet.
    paths: Vec<PathBuf>,
    /// What the kernel says of its events, for whoever finds the raw data of a recording that did not end.
    description: Option<PathBuf>,
    /// The large parts of it: most recordings end with the same.
    packed: PackedSections,
    /// The kernel's symbols when recording began, packed, and what they depend on.
    symbols: Option<(symbols::State, Payload)>,
}

impl Recorders {
    /// None yet.
    pub fn new() -> Recorders {
        Recorders::default()
    }

    /// Writes down what is needed to read the raw data, on disk before the first event: after a crash of the machine the
    /// next boot has other addresses of functions and maybe another kernel.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn describe(&mut self, plan: &Plan, session: &Session, output: &std::path::Path) -> anyhow::Result<()> {
        let path = recorder::description_path(output, plan.temp.as_deref())?;
        self.paths.push(path.clone());
        self.description = Some(path.clone());
        let facts = session.buffers.iter().map(|a| BufferFacts::read(&a.instance, false));
        let mut facts = facts.collect::<anyhow::Result<Vec<_>>>()?;
        facts.iter_mut().for_each(|f| f.stats.clear());
        let state = symbols::State::now();
        let mut meta = tracefile::metadata(session.root(), plan, &facts, &Extras::default())?;
        self.packed = PackedSections::pack(&mut meta, Codec::Zstd, tracefile::codec(plan))?;
        self.symbols = state.zip(meta.get(id::KALLSYMS).map(|s| s.payload.clone()));
        tracefile::write_description(&path, &meta, &facts)
    }

    /// From now on the raw data stay whatever happens; their names.
    pub fn keep(&mut self) -> Option<String> {
        let names: Vec<_> = self.paths.drain(..).map(|p| p.display().to_string()).collect();
        (!names.is_empty()).then(|| names.join(" "))
    }

    /// The file is finished: the description is not needed any more.
    pub fn forget_description(&mut self) {
        if let Some(path) = self.description.take() {
            let _ = std::fs::remove_file(path);
        }
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
            lull: 0,
            max_bytes: plan.max_kb.map(|kb| kb.saturating_mul(1024)),
        };
        let codec = tracefile::codec(plan);
        let mut followed = Vec::new();
        for a in &session.buffers {
            let mut of_buffer = Vec::new();
            let subbuf = a.instance.subbuf_size()? as u32;
            let how = Settings { lull: recorder::lull(&a.instance), ..how.clone() };
            for cpu in a.instance.cpus()? {
                let path = recorder::raw_path(output, plan.temp.as_deref(), a.name(), cpu)?;
                self.paths.push(path.clone());
                followed.push((path.clone(), subbuf));
                of_buffer.push(Recorder::start(&a.instance, cpu, &path, &how)?);
            }
            self.list.push(of_buffer);
        }
        // With -m the files are written over again and again.
        if codec != Codec::None && plan.max_kb.is_none() {
            self.follower = Follower::start(&followed, codec)
                .map_err(|e| log::info!("compression waits for the end of the recording: {e:#}"))
                .ok();
        }
        Ok(())
    }

    /// Their threads, and the one that packs.
    pub fn tids(&self) -> Vec<i32> {
        self.list.iter().flatten().map(Recorder::tid).chain(self.follower.as_ref().map(Follower::tid)).collect()
    }

    /// Asks all to end.
    pub fn stop(&self) {
        self.list.iter().flatten().for_each(Recorder::stop);
        self.follower.iter().for_each(Follower::stop);
    }

    /// Waits for all; the raw data by buffer. What a recorder could not save is told by its [`Raw::failure`].
    pub fn join(&mut self, session: &Session) -> Vec<Vec<Raw>> {
        let mut data = Vec::new();
        for of_buffer in std::mem::take(&mut self.list) {
            let joined = of_buffer.into_iter().map(Recorder::join);
            data.push(joined.filter_map(|raw| raw.map_err(|e| log::error!("{e:#}")).ok()).collect());
        }
        data.resize_with(session.buffers.len(), Vec::new);
        let mut ahead: BTreeMap<_, _> =
            self.follower.take().map(Follower::join).unwrap_or_default().into_iter().collect();
        for raw in data.iter_mut().flatten() {
            // An output that failed may have been shortened since.
            raw.ahead = ahead.remove(&raw.path).filter(|a| a.unpacked() <= raw.bytes);
        }
        data
    }
}

impl Drop for Recorders {
    fn drop(&mut self) {
        self.stop();
        for r in self.list.drain(..).flatten() {
            let _ = r.join();
        }
        self.follower.take().map(Follower::join);
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
