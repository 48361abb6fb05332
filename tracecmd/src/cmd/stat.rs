//! `stat`: what is set up in the kernel's tracer, as far as it is not the default.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use tracefs::{EnableState, EventTarget, Instance};

use crate::cli::{self, Ctx};
use crate::cmd::buffers;

/// The options of `stat`.
pub fn command() -> Command {
    Command::new("stat")
        .arg(cli::option("B", "NAME", "This instance (may be repeated); the top buffer is then left out"))
        .arg(cli::switch("t", "The top buffer too"))
        .arg(cli::switch("o", "All trace options too"))
        .after_help("Without -B: the top buffer.\n\nExamples:\n  tracecmd stat\n  tracecmd stat -B mine -o")
}

/// Prints each chosen buffer, a line between two.
pub fn run(_cx: &Ctx, m: &ArgMatches) -> anyhow::Result<ExitCode> {
    let fs = buffers::tracing()?;
    let options = cli::ordered(m).iter().any(|o| o.id == "o");
    let mut text = Vec::new();
    // The last named instance comes first, behind the top buffer.
    let mut chosen = buffers::chosen(&fs, m)?;
    let named = chosen.iter().position(|i| !i.is_top()).unwrap_or(0);
    if let Some(named) = chosen.get_mut(named..) {
        named.reverse();
    }
    for (i, instance) in chosen.iter().enumerate() {
        if i > 0 {
            writeln!(text, "---------------")?;
        }
        status(instance, options, &mut text)?;
    }
    let mut out = crate::output::guard::stdout();
    out.write_all(&text)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// One buffer. Files that this kernel does not have, or does not let us read, are left out.
fn status(i: &Instance, all_options: bool, out: &mut Vec<u8>) -> anyhow::Result<()> {
    if let Some(name) = i.name() {
        writeln!(out, "Instance: {name}")?;
    }
    let tracer = i.tracer()?;
    if tracer != "nop" {
        writeln!(out, "\nTracer: {tracer}")?;
    }
    events(i, out)?;
    event_files(i, out)?;
    for (title, file) in [
        ("Function Filter", "set_ftrace_filter"),
        ("Function No Trace", "set_ftrace_notrace"),
        ("Function Graph Filter", "set_graph_function"),
        ("Function Graph No Trace", "set_graph_notrace"),
    ] {
        block(out, title, "   ", &lines(i, file))?;
    }
    sizes(i, out)?;
    if let Some(clock) = i.clock().ok().filter(|c| c != "local") {
        writeln!(out, "\nClock: {clock}")?;
    }
    if let (Ok(mask), Ok(cpus)) = (i.cpumask(), i.cpus())
        && cpus.iter().any(|c| !mask.contains(*c))
        && is_partial(&mask)
    {
        writeln!(out, "\nCPU mask: {}", i.dir().read_trimmed("tracing_cpumask")?)?;
    }
    if let Some(us) = i.max_latency_us().ok().filter(|n| *n != 0) {
        writeln!(out, "\nMax Latency: {us}")?;
    }
    for (title, file) in [
        ("Kprobe events", "kprobe_events"),
        ("Uprobe events", "uprobe_events"),
        ("Synthetic events", "synthetic_events"),
    ] {
        block(out, title, "   ", &lines(i, file))?;
    }
    for (title, file) in [
        ("Filtered event PIDs", "set_event_pid"),
        ("Filtered notrace event PIDs", "set_event_notrace_pid"),
        ("Filtered function tracer PIDs", "set_ftrace_pid"),
        ("Filtered function tracer notrace PIDs", "set_ftrace_notrace_pid"),
    ] {
        let found: Vec<String> = lines(i, file).into_iter().filter(|l| l != "no pid").collect();
        block(out, title, "", &found)?;
    }
    if all_options {
        let shown =
            super::list::options_of(i)?.into_iter().map(|(name, on)| if on { name } else { format!("no{name}") });
        block(out, "Options", "   ", &shown.collect::<Vec<_>>())?;
    }
    let state = if i.is_on()? { "enabled" } else { "disabled" };
    writeln!(out, "\nTracing is {state}\n")?;
    let log = i.error_log()?;
    if !log.trim().is_empty() && !log.starts_with('#') {
        write!(out, "\nError log:\n{}\n", log.trim_end())?;
    }
    if i.is_top() {
        block(out, "Instances", " ", &i.root().instances()?)?;
        let stack = std::fs::read_to_string(Path::new("/proc/sys/kernel/stack_tracer_enabled")).unwrap_or_default();
        if !matches!(stack.trim(), "" | "0") {
            writeln!(out, "Stack tracing is enabled\n")?;
        }
    }
    Ok(())
}

/// Whether not every CPU that can exist is in the mask: the kernel also knows CPUs without a buffer.
fn is_partial(mask: &tracefs::CpuSet) -> bool {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    match tracefs::CpuSet::from_list(text.trim()) {
        Ok(online) => online.iter().any(|c| !mask.contains(c)),
        Err(_) => true,
    }
}

fn lines(i: &Instance, file: &str) -> Vec<String> {
    i.dir().read_lines(file).unwrap_or_default()
}

fn block(out: &mut Vec<u8>, title: &str, indent: &str, lines: &[String]) -> anyhow::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{title}:")?;
    for l in lines {
        writeln!(out, "{indent}{l}")?;
    }
    Ok(())
}

fn events(i: &Instance, out: &mut Vec<u8>) -> anyhow::Result<()> {
    writeln!(out, "\nEvents:")?;
    let state = match i.is_enabled(&EventTarget::All) {
        Ok(s) => s,
        Err(_) => EnableState::Some,
    };
    match state {
        EnableState::On => writeln!(out, " All enabled")?,
        EnableState::Off => writeln!(out, " All disabled")?,
        EnableState::Some => {
            let (mut whole, mut parts) = (Vec::new(), Vec::new());
            for s in i.event_systems()? {
                match i.is_enabled(&EventTarget::System(s.clone())) {
                    Ok(EnableState::On) => whole.push(s),
                    Ok(EnableState::Some) => parts.push(s),
                    _ => {}
                }
            }
            if !whole.is_empty() {
                writeln!(out, " Individual systems:")?;
                whole.iter().try_for_each(|s| writeln!(out, "   {s}"))?;
            }
            let mut single = Vec::new();
            for s in parts {
                let mut on = i.events_of(&s)?;
                on.retain(|e| matches!(i.is_enabled(&EventTarget::Event(s.clone(), e.clone())), Ok(EnableState::On)));
                if !on.is_empty() {
                    single.push((s, on));
                }
            }
            if !single.is_empty() {
                writeln!(out, " Individual events:")?;
            }
            for (s, on) in &single {
                writeln!(out, "    {s}")?;
                on.iter().try_for_each(|e| writeln!(out, "        {e}"))?;
            }
            if whole.is_empty() && single.is_empty() {
                writeln!(out, "  (none enabled)")?;
            }
        }
    }
    Ok(())
}

/// Filters and triggers of all events.
fn event_files(i: &Instance, out: &mut Vec<u8>) -> anyhow::Result<()> {
    let (mut filters, mut triggers) = (Vec::new(), Vec::new());
    for s in i.event_systems()? {
        for e in i.events_of(&s)? {
            if let Ok(Some(filter)) = i.event_filter(&EventTarget::Event(s.clone(), e.clone())) {
                filters.push(format!("{s}:{e} \"{filter}\""));
            }
            if let Ok(lines) = i.trigger_lines(&s, &e)
                && !lines.is_empty()
            {
                triggers.push(format!("{s}:{e} \"{}\"", lines.join("\n")));
            }
        }
    }
    block(out, "Filters", "  ", &filters)?;
    block(out, "Triggers", "  ", &triggers)
}

fn sizes(i: &Instance, out: &mut Vec<u8>) -> anyhow::Result<()> {
    let size = i.dir().read_trimmed("buffer_size_kb")?;
    // A buffer that nobody has used yet has no size that was set.
    if !size.contains("expanded") {
        if size == "X" {
            writeln!(out)?;
            for cpu in i.cpus()? {
                let kb = i.cpu_dir(cpu)?.read_trimmed("buffer_size_kb")?;
                writeln!(out, "CPU {cpu} buffer size (kb): {kb}")?;
            }
        } else {
            writeln!(out, "\nBuffer size in kilobytes (per cpu):\n   {size}")?;
        }
        let total = i.dir().read_trimmed("buffer_total_size_kb")?;
        writeln!(out, "\nBuffer total size in kilobytes:\n   {total}")?;
    }
    let page_kb = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096) / 1024;
    if let Some(kb) = i.subbuf_size_kb()?.filter(|kb| i64::try_from(*kb) != Ok(page_kb)) {
        writeln!(out, "\nSub-buffer size in kilobytes:\n   {kb}")?;
    }
    Ok(())
}
