//! `dump`: what a file holds beside its events, as text.
//!
//! The layout of every line is that of the reference, which scripts read.

use std::{
    io::{BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use trace_dat::source::Source;

use crate::cli::Ctx;
use crate::dump::{self, Parts};

const PARTS: [(&str, &str); 15] = [
    ("summary", "what there is, without content (the default)"),
    ("head-page", "layout of a sub-buffer: header_page"),
    ("head-event", "layout of a record: header_event"),
    ("ftrace-events", "formats of the tracers' own events"),
    ("systems", "event systems and how many events each has"),
    ("events", "formats of the events"),
    ("kallsyms", "kernel symbols"),
    ("printk", "texts of trace_printk()"),
    ("cmd-lines", "names of processes"),
    ("options", "options"),
    ("flyrecord", "buffers and where the data of each CPU lies"),
    ("clock", "trace clock"),
    ("modules", "kernel modules"),
    ("strings", "names of sections (version 7)"),
    ("sections", "sections (version 7)"),
];

/// Defines the options.
pub fn command() -> Command {
    let mut c = Command::new("dump")
        .arg(
            Arg::new("input")
                .short('i')
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("the file [default: trace.dat]"),
        )
        .arg(
            Arg::new("validate")
                .short('v')
                .long("validate")
                .action(ArgAction::SetTrue)
                .help("say whether the file is a valid one; nothing else unless parts are asked for"),
        )
        .arg(Arg::new("all").long("all").action(ArgAction::SetTrue).help("everything, with content"))
        .arg(
            Arg::new("verbose")
                .long("verbose")
                .value_name("LEVEL")
                .num_args(0..=1)
                .require_equals(true)
                .help("level of messages"),
        )
        .arg(Arg::new("file").value_name("FILE").value_parser(value_parser!(PathBuf)).help("the file"));
    for (name, help) in PARTS {
        c = c.arg(Arg::new(name).long(name).action(ArgAction::SetTrue).help(help));
    }
    c
}

/// Prints the parts asked for.
///
/// # Errors
/// When the file cannot be read or is damaged; what precedes the damage is printed.
pub fn run(_cx: &Ctx, m: &ArgMatches) -> anyhow::Result<ExitCode> {
    // A name without an option decides, as in the reference.
    let path =
        m.get_one::<PathBuf>("file").or_else(|| m.get_one("input")).cloned().unwrap_or_else(|| "trace.dat".into());
    let mut parts = Parts::default();
    for (name, _) in PARTS {
        if m.get_flag(name) || m.get_flag("all") {
            parts.add(name);
        }
    }
    let validate = m.get_flag("validate");
    if parts == Parts::default() && !validate {
        parts.add("summary");
    }
    let source = Source::open(&path).with_context(|| format!("cannot open '{}'", path.display()))?;
    let mut out = BufWriter::with_capacity(1 << 16, crate::output::guard::stdout());
    if parts != Parts::default() {
        let result = dump::dump(&source, &path, parts, &mut out);
        out.flush()?;
        result?;
    }
    if validate {
        dump::dump(&source, &path, Parts::all(), &mut std::io::sink())
            .with_context(|| format!("{} is not a valid trace file", path.display()))?;
        writeln!(out, "File {} is a valid trace-cmd file", path.display())?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
