//! `report`: trace files as text or JSON.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};

use crate::cli::{Ctx, option, optional, ordered, switch};
use crate::report::{self, options::ReportOptions};

/// The options.
pub fn command() -> Command {
    Command::new("report")
        .args([
            option("i", "FILE", "Input file [default: trace.dat]; several are merged by time").long("input"),
            switch("l", "Latency layout: short names, narrow CPU column"),
            switch("R", "Raw: every field by name, no print format"),
            option("r", "RE", "Raw for the events or systems that match"),
            switch("t", "Times with nanoseconds"),
            option("F", "FILTER", "Show only what matches; before the first -i for all inputs, after it for that one"),
            switch("v", "The filters that follow hide what they match"),
            switch("T", "Print the filters as they are understood, and end").long("filter-test"),
            option("pid", "LIST", "Only events of these processes, or about them"),
            option("comm", "LIST", "Only events of processes of these names, or about them"),
            option("cpu", "LIST", "Only these CPUs: 1,3-5"),
            switch("I", "Leave out events in hard interrupts"),
            switch("S", "Leave out events in soft interrupts"),
            option("from", "T", "Begin at this time: seconds, +N after the first event, -N before the last one"),
            option("to", "T", "End at this time, written like --from"),
            option("head", "N", "Only the first N events"),
            option("tail", "N", "Only the last N events"),
            switch("w", "Wakeup latencies behind sched_switch, and a summary"),
            switch("N", "Without plugins"),
            switch("L", "Without the system's plugins"),
            option("n", "RE", "Without plugins for the events or systems that match"),
            option("O", "OPTION", "Plugin option: [plugin:]option[=value]"),
            switch("json", "One JSON object per event and line (docs/JSON.md)"),
            option("color", "WHEN", "Colours: auto (on a terminal), always, never"),
            switch("pager", "On a terminal, show the report through $PAGER"),
            option("threads", "N", "Threads that print [default: one for each CPU of this machine]"),
        ])
        .args([
            option("ts-offset", "N", "Add N to the times of the input before it").help_heading("Times"),
            option("ts2secs", "HZ", "Times are ticks, HZ of them to a second").help_heading("Times"),
            switch("ts-diff", "Show the time since the line before").help_heading("Times"),
            switch("ts-check", "Warn when times run backwards").help_heading("Times"),
            switch("nodate", "Ignore the wall-clock offset of record --date").help_heading("Times"),
            switch("raw-ts", "Times exactly as stored").help_heading("Times"),
            switch("align-ts", "Times count from the first event").help_heading("Times"),
        ])
        .args([
            switch("cpus", "List the CPUs that have events").help_heading("Facts instead of events"),
            switch("first-event", "The time of each CPU's first event").help_heading("Facts instead of events"),
            switch("last-event", "The time of each CPU's last event").help_heading("Facts instead of events"),
            switch("stat", "Buffer statistics saved by record").help_heading("Facts instead of events"),
            switch("uname", "The system that was recorded").help_heading("Facts instead of events"),
            switch("version", "The version of the program that recorded").help_heading("Facts instead of events"),
            switch("e", "Byte order of the file").help_heading("Facts instead of events"),
            switch("p", "Page size of the file").help_heading("Facts instead of events"),
            switch("f", "The kernel's functions").help_heading("Facts instead of events"),
            switch("P", "The texts of trace_printk").help_heading("Facts instead of events"),
            switch("E", "The names of the stored events").help_heading("Facts instead of events"),
            switch("events", "The formats of the stored events").help_heading("Facts instead of events"),
            option("event", "RE", "The formats of the events that match").help_heading("Facts instead of events"),
            switch("check-events", "Whether every stored format can be understood (by the exit status)")
                .help_heading("Facts instead of events"),
        ])
        .args([
            switch("profile", "Where tasks wait and run, instead of events").help_heading("Profile"),
            switch("G", "Interrupts count for the CPU, not for the task").help_heading("Profile"),
            option("H", "HOOK", "A pair of events: [sys:]event,match[,pid]/[sys:]event,match[,flags]")
                .help_heading("Profile"),
            switch("by-comm", "Tasks of one name are one").help_heading("Profile"),
        ])
        .args([
            option("kallsyms", "FILE", "More symbols, in the form of /proc/kallsyms").help_heading("Diagnosis"),
            switch("boundary", "Show where sub-buffers begin").help_heading("Diagnosis"),
            switch("debug", "Sub-buffers, and the place of each record").help_heading("Diagnosis"),
            switch("q", "No warnings").help_heading("Diagnosis"),
            optional("V", "LEVEL", "Log level: none, crit, err, warn, info, debug, all")
                .long("verbose")
                .help_heading("Diagnosis"),
            Arg::new("file")
                .value_name("FILE")
                .num_args(0..)
                .value_parser(clap::value_parser!(OsString))
                .help("Input files, when none is named with -i"),
        ])
}

/// Prints the report.
///
/// # Errors
/// When a file cannot be read or the output not be written.
pub fn run(cx: &Ctx, matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let options = ReportOptions::parse(&ordered(matches))?;
    report::run(&cx.program, options)
}
