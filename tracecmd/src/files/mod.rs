//! What the commands that make files from files share.

pub mod progress;

use std::{
    io::Write,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, bail};
use trace_dat::{
    OpenOptions, TraceFile,
    write::{Summary, remove_unfinished, same_file},
};

use crate::{
    output::guard,
    signal::{Signals, Woken},
};

/// Opens the input of a command; what cannot be read in any order is refused.
///
/// # Errors
/// When it is no regular file, or no trace file.
pub fn open(path: &Path) -> anyhow::Result<TraceFile> {
    if let Some(file) = crate::cmd::restore::interrupted(path, &OpenOptions::new()) {
        return file.with_context(|| format!("cannot read '{}'", path.display()));
    }
    let kind = std::fs::metadata(path).with_context(|| format!("cannot open '{}'", path.display()))?.file_type();
    if kind.is_fifo() || kind.is_char_device() || kind.is_socket() {
        bail!("{} is a pipe or device; a trace file is read in any order, so save it in a file first", path.display());
    }
    TraceFile::open(path).with_context(|| format!("cannot read '{}'", path.display()))
}

/// From now on a signal that ends the program leaves no unfinished file. Before other threads are started.
///
/// # Errors
/// When signals cannot be blocked or a thread cannot be started.
pub fn tidy_on_signal() -> anyhow::Result<()> {
    static BEGUN: AtomicBool = AtomicBool::new(false);
    if BEGUN.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let signals = Signals::block()?;
    let wait = move || {
        if matches!(signals.wait(&[], None), Ok(Woken::Signal)) {
            remove_unfinished();
            // As a shell says of a command that SIGINT ended.
            std::process::exit(130);
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).context("cannot start a thread")?;
    Ok(())
}

/// Bytes of trace data in a file, to show progress.
pub fn data_size(file: &TraceFile) -> u64 {
    file.buffers().iter().flat_map(|b| &b.cpus).map(|c| c.size).sum()
}

/// Refuses an output that is one of the inputs.
///
/// # Errors
/// When it is.
pub fn not_an_input(output: &Path, inputs: &[PathBuf]) -> anyhow::Result<()> {
    match inputs.iter().find(|i| same_file(i, output)) {
        Some(_) => bail!("{} is the input; name another output", output.display()),
        None => Ok(()),
    }
}

/// Tells what is damaged in a file; whether anything was.
pub fn warn(program: &str, file: &TraceFile) -> bool {
    let warnings = file.take_warnings();
    let mut text = String::new();
    for w in &warnings {
        text.push_str(&format!("{program}: {}: {w}\n", file.path().display()));
    }
    match file.warnings().suppressed() {
        0 => {}
        n => text.push_str(&format!("{program}: {}: {n} more of these\n", file.path().display())),
    }
    // Nothing can be said about a standard error that cannot be written.
    let _ = guard::stderr().write_all(text.as_bytes());
    !warnings.is_empty()
}

/// Prints where the data of each CPU went, as test suites read it. An empty top buffer beside instances is passed over.
///
/// # Errors
/// When it cannot be written.
pub fn print_offsets(summary: &Summary, out: &mut dyn Write) -> std::io::Result<()> {
    for b in &summary.buffers {
        let empty = b.cpus.iter().all(|c| c.size == 0);
        if b.name.is_empty() && empty && summary.buffers.len() > 1 {
            continue;
        }
        if !b.name.is_empty() {
            out.write_all(b"\nBuffer: ")?;
            out.write_all(&b.name)?;
            out.write_all(b"\n\n")?;
        }
        for (cpu, c) in b.cpus.iter().enumerate() {
            write!(out, "CPU{cpu} data recorded at offset={:#x}\n    {} bytes in size", c.offset, c.size)?;
            if summary.compressed {
                write!(out, " ({} uncompressed)", c.unpacked)?;
            }
            out.write_all(b"\n")?;
        }
    }
    out.flush()
}
