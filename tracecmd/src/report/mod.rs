//! `report`: the records of trace files as lines of text or JSON.
//!
//! One sequential pass ([`engine`]) merges the inputs, decides what is shown and fills batches; these are printed by
//! many threads ([`batch`], [`mod@line`]) and written in order ([`pipeline`]).

pub mod batch;
pub mod debug;
pub mod engine;
pub mod facts;
pub mod filters;
pub mod hooks;
pub mod inputs;
pub mod layout;
pub mod line;
pub mod merge;
pub mod options;
pub mod pipeline;
pub mod profile;
pub mod regex;
pub mod select;
pub mod slice_plan;
pub mod slices;
pub mod stack_tree;
pub mod stream;
pub mod time;
pub mod wakeup;
pub mod window;

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use trace_dat::filter::FilterSet;
use trace_dat::ring::merge::Merge;

use self::{
    batch::{Batch, TextPrinter},
    engine::{Consumer, Pass, Wants},
    facts::Shown,
    hooks::Hook,
    inputs::{Inputs, default_threads},
    line::Columns,
    options::{ColorWhen, ReportOptions},
    pipeline::Output,
    profile::Profile,
    select::Select,
    slices::{Outcome, SlicePrinter},
    wakeup::Wakeups,
};
use crate::output::{
    color::Paint,
    guard::{self, Guard},
    json::JsonPrinter,
    pager::Pager,
};

/// Prints what the options ask for.
///
/// # Errors
/// When a file cannot be read or the output not be written.
pub fn run(program: &str, mut options: ReportOptions) -> Result<ExitCode> {
    if options.profile {
        // Every record counts for itself: no exit is shown together with its entry.
        options.print.no_plugins = true;
    }
    let inputs = Inputs::open(&options)?;
    let terminal = io::stdout().is_terminal();
    let pager = if options.pager && terminal { Pager::start()? } else { None };
    if pager.is_none() {
        end_on_interrupt(program);
    }
    let code = match &pager {
        Some(pager) => show(&options, &inputs, terminal, &mut pager.input()?)?,
        None => show(&options, &inputs, terminal, &mut stdout()?)?,
    };
    if let Some(pager) = pager {
        pager.wait()?;
    }
    let damaged = tell_damage(program, &inputs);
    Ok(if damaged && code == 0 { ExitCode::FAILURE } else { ExitCode::from(code) })
}

/// Has Ctrl-C end the report as the reference ends it: a word on standard error, status 0.
///
/// The signal is blocked in all threads that start from here on and taken by one that does nothing else.
fn end_on_interrupt(program: &str) {
    use nix::sys::signal::{SigSet, Signal};
    let mut set = SigSet::empty();
    set.add(Signal::SIGINT);
    // A program in the background of a script has it ignored, and must go on.
    if interrupt_is_ignored() || set.thread_block().is_err() {
        return;
    }
    let program = program.to_owned();
    let waits = std::thread::Builder::new().name("interrupt".into()).stack_size(64 << 10).spawn(move || {
        if set.wait().is_ok() {
            let _ = writeln!(io::stderr(), "{program}: Received SIGINT");
            std::process::exit(0);
        }
    });
    if waits.is_err() {
        // Without that thread the signal must end the program itself.
        let _ = set.thread_unblock();
    }
}

/// Whether SIGINT was ignored when this program was started.
fn interrupt_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|l| l.strip_prefix("SigIgn:")).map(str::trim);
    mask.and_then(|m| u64::from_str_radix(m, 16).ok()).is_some_and(|m| m & 1 << (nix::libc::SIGINT - 1) != 0)
}

/// Standard output without the standard library's line buffer: batches are large.
fn stdout() -> Result<File> {
    let fd = io::stdout().as_fd().try_clone_to_owned().context("standard output")?;
    Ok(File::from(fd))
}

/// Says what is wrong with the files and what was left out. True if anything is.
fn tell_damage(program: &str, inputs: &Inputs) -> bool {
    let mut any = false;
    let mut text = String::new();
    for input in &inputs.inputs {
        let path = input.file.path().display().to_string();
        for warning in input.file.take_warnings() {
            any = true;
            text.push_str(&format!("{program}: {path}: {warning}\n"));
        }
        match input.file.warnings().suppressed() {
            0 => {}
            n => text.push_str(&format!("{program}: {path}: {n} more of these\n")),
        }
    }
    // Nothing can be said about a standard error that cannot be written.
    let _ = guard::stderr().write_all(text.as_bytes());
    any
}

/// Shows facts or records; the exit status.
fn show(options: &ReportOptions, inputs: &Inputs, terminal: bool, out: &mut File) -> Result<u8> {
    // A wrong filter is told before anything is shown.
    let filters = filters::of_inputs(options, inputs)?;
    if options.test_filters {
        filters::describe(options, inputs, &filters, out)?;
        return Ok(0);
    }
    match quietly(show_facts(options, inputs, &mut Guard::new(&mut *out, terminal)))? {
        None | Some(Shown::Done) => return Ok(0),
        Some(Shown::BadFormat) => return Ok(facts::BAD_FORMAT_STATUS),
        Some(Shown::Nothing) => {}
    }
    if inputs.inputs.iter().any(|input| is_latency(&input.file)) {
        ensure!(inputs.inputs.len() < 2, LATENCY_ALONE);
        quietly(show_latency(inputs, &mut Guard::new(out, terminal)))?;
        return Ok(0);
    }
    show_records(options, inputs, filters, terminal, out)?;
    Ok(0)
}

const LATENCY_ALONE: &str = "a latency trace can only be shown alone";

/// Whether the file has the text of a latency tracer in place of records.
fn is_latency(file: &trace_dat::TraceFile) -> bool {
    !file.latency_texts().is_empty()
}

/// A reader of the output that has gone is no error: nothing is left to be done then.
fn quietly<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(error) if crate::cli::is_closed_pipe(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn show_facts(options: &ReportOptions, inputs: &Inputs, out: &mut impl Write) -> Result<Shown> {
    let mut out = io::BufWriter::with_capacity(1 << 16, out);
    if options.shows_info() {
        for input in &inputs.inputs {
            writeln!(out, "version = {}", input.file.version())?;
        }
    }
    let mut shown = facts::first(options, inputs, &mut out)?;
    if shown == Shown::Nothing && !options.json {
        for input in &inputs.inputs {
            if options.shows_info() {
                facts::empty_cpus(&input.file, true, &mut out)?;
            }
            out.write_all(&input.prefix)?;
            writeln!(out, "cpus={}", input.file.cpu_count())?;
            // Its text stands here, whatever else was asked for.
            if is_latency(&input.file) {
                out.flush()?;
                ensure!(inputs.inputs.len() < 2, LATENCY_ALONE);
                continue;
            }
            if facts::second(options, input, &mut out)? == Shown::Done {
                shown = Shown::Done;
            } else if options.shows_info() {
                facts::empty_cpus(&input.file, false, &mut out)?;
            }
        }
    }
    out.flush()?;
    Ok(shown)
}

/// Copies the text of latency tracers.
fn show_latency(inputs: &Inputs, out: &mut impl Write) -> Result<()> {
    for (_, part) in inputs.inputs.iter().flat_map(|i| i.file.latency_texts()) {
        out.write_all(&part.read()?)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// Shows the records.
fn show_records(
    options: &ReportOptions,
    inputs: &Inputs,
    filters: Vec<FilterSet>,
    terminal: bool,
    out: &mut File,
) -> Result<()> {
    let mut select = Select::new(&options.cpu, options.no_hardirq, options.no_softirq);
    select.set_filters(filters, inputs.streams.len());
    let wants = Wants {
        ts_diff: options.ts_diff,
        ts_check: options.ts_check,
        boundary: options.boundary,
        debug: options.debug,
    };
    let wakeups = inputs.streams.first().filter(|_| options.wakeup).map(|s| RefCell::new(Wakeups::new(&s.dec)));
    let mut pass = Pass::new(&inputs.streams, inputs.merges(|_| true), select, wants);
    if options.debug {
        pass.bases = inputs.unpacked_places();
    }
    window::apply(options, inputs, &mut pass)?;
    if let Some(wakeups) = &wakeups {
        ensure!(inputs.inputs.len() == 1, "wakeup latencies (-w) can only be shown of one input");
        pass.wakeup = Some(Box::new(|tag, rec, ts| {
            let stream = inputs.streams.get(tag as usize)?;
            wakeups.borrow_mut().see(&stream.dec, rec, ts)
        }));
    }

    if options.profile {
        return show_profile(options, inputs, pass, &mut Guard::new(out, terminal));
    }
    let threads = options.threads.unwrap_or_else(default_threads);
    let whole = options.from.or(options.to).is_none() && options.head.or(options.tail).is_none();
    if options.json {
        let files: Vec<String> = inputs
            .inputs
            .iter()
            .map(|i| String::from_utf8_lossy(&options::base_name(&i.arg.path)).into_owned())
            .collect();
        return print(out, threads, inputs, whole, &|| JsonPrinter::new(&inputs.streams, &files), &mut pass);
    }
    let paint = match options.color {
        ColorWhen::Auto if terminal => Paint::auto(),
        ColorWhen::Always => Paint(true),
        _ => Paint(false),
    };
    let columns =
        Columns { latency: options.latency, raw: options.print.raw, ts_diff: options.ts_diff, paint, guard: terminal };
    print(out, threads, inputs, whole, &|| TextPrinter::new(&inputs.streams, columns), &mut pass)?;
    if let Some(wakeups) = &wakeups {
        let mut text = Vec::new();
        wakeups.borrow().summary(&mut text);
        quietly(Guard::new(out, terminal).write_all(&text).map_err(Into::into))?;
    }
    Ok(())
}

/// Shows what `--profile` finds in the records, one input after the other, the last one first as the reference does.
fn show_profile(options: &ReportOptions, inputs: &Inputs, mut pass: Pass<'_>, out: &mut impl Write) -> Result<()> {
    let hooks: Vec<Hook> = options.hooks.iter().map(|h| Hook::parse(h)).collect::<Result<_>>()?;
    let mut profiles: Vec<_> =
        inputs.inputs.iter().map(|i| Profile::new(&i.dec, options.global, options.by_comm, &hooks)).collect();
    pass.run(&mut Consumer::new(|batch: &Batch| {
        for line in batch.lines() {
            if let Some(stream) = inputs.streams.get(line.stream as usize)
                && let Some(profile) = profiles.get_mut(stream.input)
            {
                profile.see(&stream.dec, &line.rec, line.ts);
            }
        }
        true
    }));
    let mut text = Vec::new();
    for (profile, input) in profiles.iter().zip(&inputs.inputs).rev() {
        profile.print(&input.dec, &mut text);
    }
    quietly(out.write_all(&text).map_err(Into::into))?;
    Ok(())
}

/// So few bytes of records are printed on one thread: others cost more memory, and begin later, than they help.
const FEW_BYTES: u64 = 512 << 10;

/// Prints the records of a pass; one over whole inputs in slices, as far as its lines do not depend on others.
fn print<'i, P: SlicePrinter>(
    out: &mut File,
    threads: usize,
    inputs: &'i Inputs,
    whole: bool,
    printer: &(impl Fn() -> P + Sync),
    pass: &mut Pass<'i>,
) -> Result<()> {
    if whole {
        match slices::run(out, threads, inputs, printer, pass).context("cannot write the report")? {
            Some(Outcome::Done | Outcome::Closed) => return Ok(()),
            Some(Outcome::Rest(merges, select)) => {
                *pass.merges_mut() = merges;
                pass.select = select;
            }
            None => {}
        }
    }
    let inputs = pass.merges_mut().iter().flat_map(Merge::inputs);
    let bytes = inputs.map(|i| i.stream.unpacked_len()).fold(0, u64::saturating_add);
    let threads = if bytes < FEW_BYTES { 1 } else { threads };
    let (output, _) = pipeline::run(out, threads, printer, |sink| pass.run(sink));
    match output.context("cannot write the report")? {
        Output::Complete | Output::Closed => Ok(()),
    }
}
