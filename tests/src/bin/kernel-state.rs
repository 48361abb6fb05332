//! For guests: the state of the kernel's tracer as text, and the state after a boot made again. A shell needs seconds for that where
//! every process costs milliseconds.
//!
//! `kernel-state dump`: one `PATH:LINE` for each line of each control file that a program may change, of the top buffer and of every
//! instance. Left out is what changes by itself (trace, per-CPU statistics, counters, formats), and what is enabled is what `set_event`
//! lists. Process numbers are shown as `PID`.
//!
//! `kernel-state fresh`: no instance, no event, no filter, no trigger, no dynamic event, sizes and options as after a boot.
//!
//! `kernel-state immutable FILE...`: nobody can write to the files any more.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

const TOP: &str = "/sys/kernel/tracing";

/// Control files of a buffer; those that this kernel does not have are left out.
const FILES: &[&str] = &[
    "buffer_percent",
    "buffer_size_kb",
    "buffer_subbuf_size_kb",
    "buffer_total_size_kb",
    "current_tracer",
    "dynamic_events",
    "error_log",
    "kprobe_events",
    "max_graph_depth",
    "saved_cmdlines_size",
    "set_event",
    "set_event_notrace_pid",
    "set_event_pid",
    "set_ftrace_filter",
    "set_ftrace_notrace",
    "set_ftrace_notrace_pid",
    "set_ftrace_pid",
    "set_graph_function",
    "set_graph_notrace",
    "synthetic_events",
    "trace_clock",
    "trace_options",
    "tracing_cpumask",
    "tracing_max_latency",
    "tracing_on",
    "tracing_thresh",
    "uprobe_events",
];

/// Control files outside tracefs.
const OTHERS: &[&str] =
    &["/proc/sys/kernel/ftrace_enabled", "/proc/sys/kernel/stack_tracer_enabled", "/proc/sys/kernel/kptr_restrict"];

fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read(path).ok().map(|b| String::from_utf8_lossy(&b).into_owned())
}

fn names(dir: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let mut list: Vec<_> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    list.sort();
    list
}

fn instances() -> Vec<PathBuf> {
    let dir = Path::new(TOP).join("instances");
    names(&dir).into_iter().map(|n| dir.join(n)).collect()
}

/// Event systems whose filters and triggers are looked at: all that the tables use, and all that are made by users. The 1,700 events of
/// a whole kernel would take seconds.
const SYSTEMS: &[&str] = &[
    "sched",
    "irq",
    "timer",
    "kmem",
    "raw_syscalls",
    "exceptions",
    "synthetic",
    "kprobes",
    "uprobes",
    "eprobes",
    "fprobes",
];

/// Directories of the events of a buffer.
fn events(top: &Path) -> Vec<PathBuf> {
    let events = top.join("events");
    let systems = SYSTEMS.iter().map(|s| events.join(s)).filter(|p| p.is_dir());
    systems
        .flat_map(|s| names(&s).into_iter().map(move |e| s.join(e)))
        .filter(|p| p.join("trigger").exists() || p.join("filter").exists() && p.is_dir())
        .collect()
}

fn dump() -> String {
    let mut out = String::new();
    let mut put = |path: &Path, text: &str| {
        let shown = path.strip_prefix(TOP).unwrap_or(path).display().to_string();
        let pids = shown.ends_with("_pid");
        for line in text.lines() {
            let line = if pids && line.parse::<u32>().is_ok() { "PID" } else { line };
            let _ = writeln!(out, "{shown}:{line}");
        }
    };
    for top in [PathBuf::from(TOP)].into_iter().chain(instances()) {
        for file in FILES {
            let path = top.join(file);
            if let Some(mut text) = read(&path) {
                if *file == "error_log" {
                    // Times differ; what matters is what was refused.
                    text = text.lines().filter(|l| !l.trim_start().starts_with('^')).map(without_time).collect();
                }
                put(&path, &text);
            }
        }
        for name in names(top.join("options")) {
            let path = top.join("options").join(name);
            if let Some(text) = read(&path) {
                put(&path, &text);
            }
        }
        for event in events(&top) {
            for file in ["filter", "trigger"] {
                let path = event.join(file);
                let Some(text) = read(&path) else { continue };
                let text: String =
                    text.lines().filter(|l| !l.starts_with('#') && *l != "none").map(|l| l.to_owned() + "\n").collect();
                put(&path, &text);
            }
        }
    }
    for path in OTHERS {
        if let Some(text) = read(path) {
            put(Path::new(path), &text);
        }
    }
    out
}

/// `[  12.345678] what` without the time.
fn without_time(line: &str) -> String {
    let rest = if line.starts_with('[') { line.split_once("] ").map_or(line, |(_, r)| r) } else { line };
    rest.to_owned() + "\n"
}

/// Writes, whatever comes of it: not every kernel has every file.
fn write(path: impl AsRef<Path>, text: &str) {
    if let Ok(mut file) = fs::OpenOptions::new().write(true).open(path) {
        let _ = file.write_all(text.as_bytes());
    }
}

fn truncate(path: &Path) {
    let _ = fs::OpenOptions::new().write(true).truncate(true).open(path);
}

/// Takes away what the triggers of a buffer's events are, the last one first: one may need what another defines.
fn remove_triggers(top: &Path) {
    for _ in 0..3 {
        for event in events(top) {
            let path = event.join("trigger");
            let text = read(&path).unwrap_or_default();
            for line in text.lines().rev().filter(|l| !l.starts_with('#')) {
                let line = line.split(" [").next().unwrap_or(line).replace(":unlimited", "");
                if let Ok(mut file) = fs::OpenOptions::new().append(true).open(&path) {
                    let _ = file.write_all(format!("!{line}\n").as_bytes());
                }
            }
        }
    }
}

/// Functions with commands (`name:traceoff`) stay when the filter is truncated.
fn remove_function_commands(top: &Path) {
    let path = top.join("set_ftrace_filter");
    for line in read(&path).unwrap_or_default().lines().filter(|l| l.contains(':') && !l.starts_with('#')) {
        write(&path, &format!("!{}\n", line.replace(":unlimited", "")));
    }
}

fn clean(top: &Path) {
    write(top.join("tracing_on"), "0");
    remove_function_commands(top);
    write(top.join("current_tracer"), "nop");
    write(top.join("events/enable"), "0");
    for system in SYSTEMS {
        write(top.join("events").join(system).join("filter"), "0");
    }
    remove_triggers(top);
    for file in [
        "set_event",
        "set_event_pid",
        "set_event_notrace_pid",
        "set_ftrace_pid",
        "set_ftrace_notrace_pid",
        "set_ftrace_filter",
        "set_ftrace_notrace",
        "set_graph_function",
        "set_graph_notrace",
    ] {
        truncate(&top.join(file));
    }
}

fn fresh() {
    let top = Path::new(TOP);
    for instance in instances() {
        clean(&instance);
        let _ = fs::remove_dir(&instance);
    }
    clean(top);
    truncate(&top.join("dynamic_events"));
    for (file, value) in [
        ("snapshot", "0"),
        ("trace_clock", "local"),
        ("max_graph_depth", "0"),
        ("buffer_percent", "50"),
        ("buffer_subbuf_size_kb", "4"),
        ("buffer_size_kb", "1408"),
        ("saved_cmdlines_size", "128"),
        ("tracing_max_latency", "0"),
    ] {
        write(top.join(file), value);
    }
    // A mask with CPUs that there are not is refused.
    let cpus = names(top.join("per_cpu")).len().min(63);
    write(top.join("tracing_cpumask"), &format!("{:x}", (1u64 << cpus) - 1));
    // Options as they were at the first call.
    let kept = Path::new("/tmp/options-after-boot");
    let now = read(top.join("trace_options")).unwrap_or_default();
    match read(kept) {
        None => drop(fs::write(kept, now)),
        Some(before) => {
            for option in before.lines().filter(|o| !now.lines().any(|n| n == *o)) {
                write(top.join("trace_options"), option);
            }
        }
    }
    truncate(&top.join("error_log"));
    truncate(&top.join("trace"));
    write("/proc/sys/kernel/ftrace_enabled", "1");
    write("/proc/sys/kernel/stack_tracer_enabled", "0");
    write(top.join("tracing_on"), "1");
}

/// Sets a file's immutable flag: whoever opens it to write is answered EPERM, root too. tmpfs has it since Linux 6.6.
fn immutable(path: &Path) {
    let file = fs::File::open(path).expect("a file that can be read");
    rustix::fs::ioctl_setflags(&file, rustix::fs::IFlags::IMMUTABLE).expect("a filesystem with inode flags");
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("dump") => print!("{}", dump()),
        Some("fresh") => fresh(),
        Some("immutable") => std::env::args().skip(2).for_each(|path| immutable(Path::new(&path))),
        _ => {
            eprintln!("kernel-state dump | fresh | immutable FILE...");
            std::process::exit(2);
        }
    }
}
