//! `convert`: the same recording in another version or compression.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use trace_dat::{
    TraceFile,
    compress::Codec,
    ring::subbuf::SubBufLayout,
    warning::Warnings,
    write::{self, FileHead, FileVersion, Metadata, Summary, Writer, slim},
};

use crate::cli::Ctx;
use crate::export;
use crate::files::{self, progress::Progress};

/// Defines the options.
pub fn command() -> Command {
    let path =
        |id: &'static str, name: &'static str| Arg::new(id).value_name(name).value_parser(value_parser!(PathBuf));
    Command::new("convert")
        .arg(path("input", "FILE").short('i').help("file to read [default: trace.dat]"))
        .arg(path("output", "FILE").short('o').help("file to write; or the last word"))
        .arg(
            Arg::new("file-version")
                .long("file-version")
                .value_name("N")
                .value_parser(["6", "7"])
                .help("version of the file to write [default: 7]"),
        )
        .arg(
            Arg::new("compression")
                .long("compression")
                .value_name("NAME")
                .value_parser(["any", "none", "zlib", "zstd"])
                .help("compression of the file to write; any is the best there is [default: any]"),
        )
        .arg(
            Arg::new("quiet")
                .short('q')
                .long("quiet")
                .action(ArgAction::SetTrue)
                .help("do not say where the data of each CPU is"),
        )
        .arg(
            Arg::new("slim")
                .long("slim")
                .action(ArgAction::SetTrue)
                .help("only the formats, symbols and names that the events use: small enough for a bug report"),
        )
        .arg(
            Arg::new("redact")
                .long("redact")
                .action(ArgAction::SetTrue)
                .help("replace names of processes and files by others"),
        )
        .arg(
            Arg::new("salvage")
                .long("salvage")
                .action(ArgAction::SetTrue)
                .help("keep what can be read of a damaged file"),
        )
        .arg(
            Arg::new("to")
                .long("to")
                .value_name("FORMAT")
                .value_parser(["perfetto", "chrome", "ctf"])
                .help("write for another program"),
        )
        .arg(path("word", "OUTPUT").help("file to write"))
}

/// Converts.
///
/// # Errors
/// When the input is damaged or the output cannot be written; no output remains then.
pub fn run(cx: &Ctx, m: &ArgMatches) -> anyhow::Result<ExitCode> {
    let input = m.get_one::<PathBuf>("input").cloned().unwrap_or_else(|| "trace.dat".into());
    let Some(output) = m.get_one::<PathBuf>("output").or_else(|| m.get_one("word")) else {
        bail!("no output file is named");
    };
    let version = match m.get_one::<String>("file-version").map(String::as_str) {
        Some("6") => FileVersion::V6,
        _ => FileVersion::V7,
    };
    let codec = match (m.get_one::<String>("compression").map_or("any", String::as_str), version) {
        ("any", FileVersion::V6) => Codec::None,
        ("any", FileVersion::V7) => Codec::Zstd,
        (name, _) => Codec::from_name(name).context("no such compression")?,
    };
    files::tidy_on_signal()?;
    let file = files::open(&input)?;
    files::not_an_input(output, std::slice::from_ref(&input))?;
    let how = How { slim: m.get_flag("slim"), redact: m.get_flag("redact"), salvage: m.get_flag("salvage") };
    let damaged = files::warn(&cx.program, &file);
    if damaged && !how.salvage {
        bail!("{} is damaged; nothing was written (--salvage keeps what can be read)", input.display());
    }
    if let Some(format) = m.get_one::<String>("to") {
        let unknown = export::export(&file, format, output)?;
        if unknown > 0 {
            eprintln!("{}: {unknown} events have no format and were left out", cx.program);
        }
        let damaged = files::warn(&cx.program, &file);
        return Ok(if damaged { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    }
    let result = convert(&file, FileHead { version, codec, ..FileHead::of(&file) }, how, output);
    files::warn(&cx.program, &file);
    let summary = result?;
    if !m.get_flag("quiet") {
        files::print_offsets(&summary, &mut crate::output::guard::stderr())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is done to the content on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct How {
    /// Leave out what no event uses.
    pub slim: bool,
    /// Replace names.
    pub redact: bool,
    /// Keep what can be read of a damaged file.
    pub salvage: bool,
}

/// Writes `file` again, with another head.
///
/// # Errors
/// When the input is damaged (unless it is to be salvaged) or the output cannot be written; no output remains then.
pub fn convert(file: &TraceFile, head: FileHead, how: How, output: &Path) -> anyhow::Result<Summary> {
    let mut meta = if how.salvage { Metadata::salvage(file) } else { Metadata::of(file)? };
    if how.slim {
        let mut progress = Progress::bytes(files::data_size(file));
        let used = slim::Used::of(file, &mut |walk| progress.tick(|| walk.consumed()));
        slim::slim(&mut meta, file, &used);
    }
    let redactor = how.redact.then(slim::Redactor::default);
    if let Some(r) = &redactor {
        r.metadata(&mut meta);
    }
    let decoder = file.decoder();
    let mut writer = Writer::create(output, head, &meta, write::buffer_heads(file)?)?;
    let mut progress = Progress::bytes(files::data_size(file));
    for (n, buffer) in file.buffers().iter().enumerate() {
        for cpu in buffer.cpus.iter().filter(|c| c.size > 0) {
            writer.cpu(n, cpu.cpu)?;
            if !how.salvage && redactor.is_none() {
                write::copy_cpu(&mut writer, file, buffer, cpu, &mut |n| progress.add(n))?;
                continue;
            }
            let mut lost = false;
            let mut change = |layout: &SubBufLayout, page: &mut Vec<u8>| {
                if how.salvage {
                    let before = lost;
                    lost = slim::mend(layout, page);
                    if before && !page.is_empty() {
                        slim::mark_lost(layout, page);
                    }
                }
                if let Some(r) = &redactor {
                    r.subbuf(&decoder, layout, page);
                }
            };
            // What is left out is told as by a report: that knows more than one sub-buffer at a time.
            let told = Warnings::default();
            let warnings = if how.salvage { &told } else { file.warnings() };
            slim::copy_changed(&mut writer, file, (buffer, cpu), warnings, &mut change)?;
            if how.salvage {
                let mut stream = file.stream(buffer, cpu, 1)?;
                while stream.advance() {}
            }
            progress.add(cpu.size);
        }
    }
    if !how.salvage && file.warnings().total() > 0 {
        bail!("{} is damaged; nothing was written (--salvage keeps what can be read)", file.path().display());
    }
    Ok(writer.commit()?)
}
