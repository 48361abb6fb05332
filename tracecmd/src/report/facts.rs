//! Lists and facts that `report` shows instead of records.

use std::io::Write;

use anyhow::{Context, Result};
use trace_dat::{
    Endian, FormatTexts, TraceFile,
    read::{Buffer, option::TypedOption},
};

use super::{
    inputs::{Input, Inputs},
    layout::{TimeColumn, TimeFormat, UNKNOWN_EVENT, push_num},
    options::ReportOptions,
};

/// How the facts went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// None was asked for: the records come next.
    Nothing,
    /// All that was asked for was shown.
    Done,
    /// A stored event format cannot be understood.
    BadFormat,
}

/// Status of `--check-events` when a format cannot be understood: `EINVAL`.
pub const BAD_FORMAT_STATUS: u8 = 22;

/// Shows the first of the facts that stand before everything else, in the reference's order of precedence.
///
/// # Errors
/// When the output cannot be written, or a list not be read.
pub fn first(options: &ReportOptions, inputs: &Inputs, out: &mut impl Write) -> Result<Shown> {
    let facts = options.facts;
    let Some(input) = inputs.inputs.first() else { return Ok(Shown::Nothing) };
    if facts.page_size {
        let (file, host) = (page_size(&input.file), nix::unistd::SysconfVar::PAGE_SIZE);
        let host = nix::unistd::sysconf(host).ok().flatten().unwrap_or(4096);
        writeln!(out, "file page size is {file}, and host page size is {host}")?;
    } else if facts.endian {
        let name = |little| if little { "little" } else { "big" };
        let (file, host) = (name(input.file.endian() == Endian::Little), name(cfg!(target_endian = "little")));
        writeln!(out, "file is {file} endian and host is {host} endian")?;
    } else if facts.events {
        formats(input, |_| true, out)?;
    } else if let Some(text) = &options.event_formats {
        let regex = crate::report::regex::basic(text).with_context(|| format!("--event {text:?}"))?;
        formats(input, |name| regex.is_match(name), out)?;
    } else if facts.check_events {
        return check(inputs);
    } else if facts.functions {
        for symbol in input.dec.symbols().iter() {
            write!(out, "{:016x} ", symbol.addr)?;
            out.write_all(symbol.name)?;
            if let Some(module) = symbol.module {
                out.write_all(b" [")?;
                out.write_all(module)?;
                out.write_all(b"]")?;
            }
            out.write_all(b"\n")?;
        }
    } else if facts.printk {
        for (addr, text) in input.dec.printk().iter() {
            write!(out, "{addr:016x} ")?;
            out.write_all(text)?;
            out.write_all(b"\n")?;
        }
    } else if facts.event_names {
        let mut names: Vec<_> = input.dec.events().map(|e| (&e.system, &e.name, e.id)).collect();
        names.sort();
        for (system, name, _) in names {
            writeln!(out, "{system}:{name}")?;
        }
    } else if facts.cpus {
        for input in &inputs.inputs {
            if options.shows_info() {
                empty_cpus(&input.file, true, out)?;
            }
            cpus(options, inputs, input, out)?;
        }
    } else {
        return Ok(Shown::Nothing);
    }
    Ok(Shown::Done)
}

/// Shows the facts that stand behind the line `cpus=N` of an input.
///
/// # Errors
/// When the output cannot be written.
pub fn second(options: &ReportOptions, input: &Input, out: &mut impl Write) -> Result<Shown> {
    let facts = options.facts;
    if facts.uname || facts.version {
        for option in input.file.options() {
            match option {
                TypedOption::Version(text) if facts.version => writeln!(out, "{text}")?,
                TypedOption::Uname(text) if !facts.version => writeln!(out, "{text}")?,
                _ => {}
            }
        }
    } else if facts.stat {
        stat(&input.file, out)?;
    } else {
        return Ok(Shown::Nothing);
    }
    Ok(Shown::Done)
}

/// Bytes of a sub-buffer of the top buffer, or else of a page.
fn page_size(file: &TraceFile) -> u64 {
    let top = file.buffers().iter().find(|b| b.is_top()).map(|b| b.subbuf_size);
    top.filter(|n| *n > 0).unwrap_or_else(|| file.page_size().into())
}

/// The stored event formats whose name matches, each system's first one behind its name.
fn formats(input: &Input, wanted: impl Fn(&str) -> bool, out: &mut impl Write) -> Result<()> {
    let (texts, result) = input.file.metadata().formats();
    let FormatTexts { text, systems, files } = &texts;
    let mut shown = None;
    for file in files {
        let system = systems.get(file.system as usize).map_or("", String::as_str);
        let text = text.get(file.range.clone()).unwrap_or_default();
        let name = text.strip_prefix(b"name: ").and_then(|t| t.split(|b| *b == b'\n').next()).unwrap_or_default();
        // Those of the system `ftrace` are part of the file's format and not listed.
        if system == "ftrace" || !wanted(&String::from_utf8_lossy(name)) {
            continue;
        }
        if shown != Some(file.system) {
            writeln!(out, "\nsystem: {system}")?;
            shown = Some(file.system);
        }
        out.write_all(text)?;
        out.write_all(b"\n")?;
    }
    Ok(result?)
}

/// Whether every stored format can be understood.
fn check(inputs: &Inputs) -> Result<Shown> {
    let mut bad = false;
    for input in &inputs.inputs {
        let (texts, result) = input.file.metadata().formats();
        bad |= result.is_err();
        bad |= input.dec.events().count() < texts.files.len();
    }
    Ok(if bad { Shown::BadFormat } else { Shown::Done })
}

/// `--cpus`, `--first-event`, `--last-event`.
fn cpus(options: &ReportOptions, inputs: &Inputs, input: &Input, out: &mut impl Write) -> Result<()> {
    writeln!(out, "List of CPUs in {} with data:", input.arg.path.display())?;
    let Some(top) = input.file.buffers().iter().find(|b| b.is_top()) else { return Ok(()) };
    let stream = inputs.streams.iter().find(|s| std::sync::Arc::ptr_eq(&s.dec, &input.dec) && s.is(top));
    let format = stream.map_or(TimeFormat::Micros, |s| s.time);
    for mut one in input.file.inputs(&input.time, |b, _| b.is_top()) {
        one.stream.rewind();
        // The time, and whether the record's event is in the file: if not, that takes the place of the time.
        let known = |r: trace_dat::Record<'_>| (r.ts, input.dec.event_of(r.data).is_some());
        let Some(first) = one.stream.next_record().map(known) else { continue };
        let mut line = b"  ".to_vec();
        push_num(&mut line, one.stream.cpu());
        let last = options.facts.last_event.then(|| {
            one.stream.seek_end();
            one.stream.prev_record().map(known)
        });
        let time = |line: &mut Vec<u8>, what: &str, (ts, known): (u64, bool)| {
            line.extend_from_slice(what.as_bytes());
            if !known {
                return line.extend_from_slice(UNKNOWN_EVENT);
            }
            let start = line.len();
            // As the reference shows it, not counted from the first record of all.
            let ts = one.time.correct(ts).wrapping_sub(input.aligned);
            TimeColumn::default().push(line, ts, format);
            // The column begins with a blank that is not wanted here.
            if format != TimeFormat::Count {
                line.remove(start);
            }
        };
        if options.facts.first_event {
            time(&mut line, "\tFirst event:", first);
        }
        if let Some(last) = last {
            time(&mut line, "\tLast event:", last.unwrap_or(first));
        }
        line.push(b'\n');
        out.write_all(&line)?;
    }
    Ok(())
}

/// Where the data of a CPU lie: of compressed data in the copy that the reference unpacks them to.
pub struct DataPlace {
    /// The CPU.
    pub cpu: u32,
    /// First byte.
    pub offset: u64,
    /// Unpacked bytes.
    pub size: u64,
}

/// Where the data of a buffer lie. The reference unpacks each buffer to a file of its own that begins with an empty
/// sub-buffer, and speaks of places in it; an instance begins there behind what the top buffer has.
pub fn places(file: &TraceFile, buffer: &Buffer) -> Vec<DataPlace> {
    let top = file.buffers().iter().find(|b| b.is_top()).filter(|_| !buffer.is_top());
    let next = top.map_or(buffer.subbuf_size, |top| places_from(file, top, top.subbuf_size).1);
    places_from(file, buffer, next).0
}

/// The places, and where the next one would be.
fn places_from(file: &TraceFile, buffer: &Buffer, mut next: u64) -> (Vec<DataPlace>, u64) {
    let mut places: Vec<DataPlace> = Vec::new();
    for cpu in &buffer.cpus {
        // CPUs without data may be left out before others.
        let missing = places.len() as u32..cpu.cpu.min(file.cpu_count());
        places.extend(missing.map(|cpu| DataPlace { cpu, offset: 0, size: 0 }));
        let (mut offset, mut size) = (cpu.offset, cpu.size);
        if cpu.packed
            && let Ok(stream) = file.stream(buffer, cpu, 1)
        {
            size = stream.chunks().into_iter().flatten().map_while(Result::ok).map(|c| u64::from(c.unpacked)).sum();
            offset = next;
            next = next.saturating_add(size);
        }
        places.push(DataPlace { cpu: cpu.cpu, offset, size });
    }
    (places, next)
}

/// Names the CPUs without data of the top buffer, or of the instances.
///
/// # Errors
/// When the output cannot be written.
pub fn empty_cpus(file: &TraceFile, top: bool, out: &mut impl Write) -> Result<()> {
    for buffer in file.buffers().iter().filter(|b| b.is_top() == top) {
        for place in places(file, buffer).iter().filter(|p| p.size == 0) {
            writeln!(out, "CPU {} is empty", place.cpu)?;
        }
    }
    Ok(())
}

/// `--stat`.
fn stat(file: &TraceFile, out: &mut impl Write) -> Result<()> {
    let texts = file.options().iter().filter_map(|o| match o {
        TypedOption::CpuStat(text) => Some(text),
        _ => None,
    });
    writeln!(out, "\nKernel buffer statistics:")?;
    writeln!(out, "  Note: \"entries\" are the entries left in the kernel ring buffer and are not")?;
    writeln!(out, "        recorded in the trace data. They should all be zero.\n")?;
    for text in texts {
        writeln!(out, "{text}")?;
    }
    writeln!(out)?;
    if let Some(top) = file.buffers().iter().find(|b| b.is_top()) {
        for place in places(file, top) {
            writeln!(out, "CPU{} data recorded at offset={:#x}", place.cpu, place.offset)?;
            writeln!(out, "    {} bytes in size", place.size)?;
        }
    }
    Ok(())
}
