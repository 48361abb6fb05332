//! `split`: a file in pieces, by time, events or sub-buffers.

mod cuts;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::Ordering,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use trace_dat::{
    TraceFile,
    ring::merge::Input,
    write::{self, BufferHead, Cutter, FileHead, Metadata, Position, Writer},
};

use crate::cli::{self, Ctx};
use crate::files::{self, progress::Progress};
use cuts::{Cuts, Limit, Walked};

/// Defines the options.
pub fn command() -> Command {
    let path = |id: &'static str| Arg::new(id).value_name("FILE").value_parser(value_parser!(PathBuf));
    let number = |id: &'static str, help: &'static str| {
        Arg::new(id)
            .short(id.chars().next().unwrap_or('x'))
            .value_name("N")
            .value_parser(value_parser!(u64).range(1..))
            .help(help)
    };
    let flag = |id: &'static str| Arg::new(id).action(ArgAction::Count);
    Command::new("split")
        .arg(path("input").short('i').help("file to split [default: trace.dat]"))
        .arg(path("output").short('o').help("name of the pieces [default: that of the input]"))
        .arg(number("seconds", "so many seconds in a piece"))
        .arg(number("milliseconds", "so many milliseconds in a piece"))
        .arg(number("useconds", "so many microseconds in a piece"))
        .arg(number("events", "so many events in a piece"))
        .arg(number("pages", "so many sub-buffers of each CPU in a piece (with -c)"))
        .arg(flag("repeat").short('r').help("go on to the end: pieces NAME.0001, NAME.0002, ..."))
        .arg(flag("per-cpu").short('c').help("the size of a piece counts for each CPU by itself"))
        .arg(Arg::new("cpu").short('C').value_name("CPU").value_parser(value_parser!(u32)).help("only this CPU"))
        .arg(cli::option("B", "NAME", "keep this instance; repeatable"))
        .arg(cli::switch("t", "the instance of the -B before it becomes the top buffer"))
        .arg(cli::switch("top", "keep the top buffer"))
        .arg(cli::option("b", "NAME", "the top buffer of the --top before it becomes an instance of this name"))
        .arg(
            Arg::new("time")
                .value_name("START [END]")
                .num_args(0..=2)
                .allow_negative_numbers(true)
                .help("times as report shows them, in seconds; both belong to the part"),
        )
}

/// A buffer that goes into the pieces.
#[derive(Debug, PartialEq, Eq)]
struct Chosen {
    /// Its number in the file.
    buffer: usize,
    /// Its name in the pieces.
    name: String,
}

struct Split<'a> {
    file: &'a TraceFile,
    meta: Metadata,
    heads: Vec<BufferHead>,
    progress: Progress,
    /// Bytes copied, and how far the search for the cuts is where that takes time.
    copied: u64,
    walked: Option<&'a Walked>,
}

/// One CPU of a chosen buffer.
struct Lane<'a> {
    /// Number of the buffer in the pieces, and the CPU.
    place: (usize, u32),
    cpu: trace_dat::read::CpuData,
    cutter: Cutter<'a>,
    /// Where the next piece begins.
    next: Position,
}

/// Splits.
///
/// # Errors
/// When options contradict each other, the input is damaged or a piece cannot be written. Finished pieces stay.
pub fn run(cx: &Ctx, m: &ArgMatches) -> anyhow::Result<ExitCode> {
    let input = m.get_one::<PathBuf>("input").cloned().unwrap_or_else(|| "trace.dat".into());
    let (limit, per_cpu) = limit(m)?;
    let mut times = m.get_many::<String>("time").into_iter().flatten().map(|t| nanoseconds(t));
    let (start, end) = (times.next().transpose()?, times.next().transpose()?);
    if let (Some(s), Some(e)) = (start, end)
        && e < s
    {
        bail!("the end time is before the start time");
    }
    files::tidy_on_signal()?;
    let file = files::open(&input)?;
    if !file.latency_texts().is_empty() {
        bail!("{} holds the text of a latency tracer, which has no events to split", input.display());
    }
    let mut damaged = files::warn(&cx.program, &file);
    let chosen = choose(cx, m, &file)?;
    let all_heads = write::buffer_heads(&file)?;
    let mut heads = Vec::new();
    for c in &chosen {
        let mut head = all_heads.get(c.buffer).context("no such buffer")?.clone();
        head.name = c.name.clone().into_bytes();
        heads.push(head);
    }
    let only = m.get_one::<u32>("cpu").copied();
    if let Some(cpu) = only
        && cpu >= file.cpu_count()
    {
        bail!("there is no CPU {cpu}: the file has {}", file.cpu_count());
    }

    // The streams in the order of the pieces, and what copies their data.
    let time = file.time_map(true);
    let mut lanes = Vec::new();
    let mut inputs = Vec::new();
    let streams = chosen.iter().filter_map(|c| file.buffers().get(c.buffer)).map(|b| b.cpus.len()).sum();
    for (n, c) in chosen.iter().enumerate() {
        let Some(buffer) = file.buffers().get(c.buffer) else { continue };
        for cpu in buffer.cpus.iter().filter(|c| c.size > 0 && only.is_none_or(|o| o == c.cpu)) {
            let stream = file.stream(buffer, cpu, streams)?;
            inputs.push(Input { stream, time: time.cpu(cpu.cpu), tag: lanes.len() as u32 });
            let cutter = Cutter::new(&file, buffer, cpu)?;
            lanes.push(Lane { place: (n, cpu.cpu), cpu: *cpu, cutter, next: Position::START });
        }
    }
    let total: u64 = lanes.iter().map(|l| l.cpu.size).sum();
    let cuts = Cuts { limit, per_cpu, start, end, repeat: m.get_count("repeat") > 0 };
    let walked = Walked::default();
    let mut split = Split {
        file: &file,
        meta: Metadata::of(&file)?,
        heads,
        progress: Progress::bytes(total * if cuts.counts() { 2 } else { 1 }),
        copied: 0,
        walked: cuts.counts().then_some(&walked),
    };
    let output = m.get_one::<PathBuf>("output");
    let name = |n: usize| piece_name(&input, output, cuts.repeat.then_some(n));
    let cpus: Vec<_> = lanes.iter().map(|l| l.cpu).collect();
    let pieces = std::thread::scope(|s| {
        // Few are found ahead: who finds no place for a piece shall not wait long.
        let (found, places) = bounded(2);
        s.spawn(|| {
            let found = found;
            cuts.find(inputs, &cpus, &walked, &mut |p| found.send(p).is_ok());
        });
        split.pieces(&mut lanes, &places, &name)
    });
    drop(split);
    damaged |= files::warn(&cx.program, &file);
    pieces?;
    Ok(if damaged { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// How much goes into a piece, and whether it counts for each CPU.
fn limit(m: &ArgMatches) -> anyhow::Result<(Limit, bool)> {
    let get = |id: &str| m.get_one::<u64>(id).copied();
    let mut limits = Vec::new();
    for (id, unit) in [("seconds", 1_000_000_000), ("milliseconds", 1_000_000), ("useconds", 1000)] {
        limits.extend(get(id).map(|n| Limit::Time(n.saturating_mul(unit))));
    }
    limits.extend(get("events").map(Limit::Events));
    limits.extend(get("pages").map(Limit::Pages));
    if limits.len() > 1 {
        bail!("only one of -s, -m, -u, -e and -p can be used");
    }
    let limit = limits.pop().unwrap_or(Limit::None);
    Ok((limit, m.get_count("per-cpu") > 0 || matches!(limit, Limit::Pages(_))))
}

/// Seconds with a fraction, as report shows them, in nanoseconds.
fn nanoseconds(text: &str) -> anyhow::Result<u64> {
    let wrong = || format!("{text:?} is no time in seconds");
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if !digits(seconds) || !digits(fraction) || seconds.len() + fraction.len() == 0 {
        bail!(wrong());
    }
    let seconds: u64 = if seconds.is_empty() { 0 } else { seconds.parse().with_context(wrong)? };
    let nine: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let fraction: u64 = nine.parse().with_context(wrong)?;
    seconds.checked_mul(1_000_000_000).and_then(|s| s.checked_add(fraction)).with_context(wrong)
}

/// Which buffers go into the pieces, the top one first: all without -B and --top.
fn choose(cx: &Ctx, m: &ArgMatches, file: &TraceFile) -> anyhow::Result<Vec<Chosen>> {
    let mut chosen: Vec<Chosen> = Vec::new();
    let mut any = false;
    // What -t and -b belong to: the number of the last chosen buffer, and whether it was the top one.
    let mut last: Option<(Option<usize>, bool)> = None;
    for o in cli::ordered(m) {
        let value = o.value.as_ref().map(|v| v.to_string_lossy().into_owned()).unwrap_or_default();
        match o.id.as_str() {
            "B" | "top" => {
                any = true;
                let name = if o.id == "top" { "" } else { value.as_str() };
                let found = file.buffers().iter().position(|b| b.name == name);
                match found {
                    Some(buffer) => chosen.push(Chosen { buffer, name: name.to_owned() }),
                    None if name.is_empty() => eprintln!("{}: the file has no top buffer", cx.program),
                    None => eprintln!("{}: Requested instance {name} was not found in trace.", cx.program),
                }
                last = Some((found.map(|_| chosen.len() - 1), o.id == "top"));
            }
            "t" | "b" => {
                let top = o.id == "b";
                let Some((at, _)) = last.filter(|l| l.1 == top) else {
                    bail!("{}", if top { "-b must follow --top" } else { "-t must follow -B" });
                };
                if let Some(c) = at.and_then(|at| chosen.get_mut(at)) {
                    c.name = if top { value } else { String::new() };
                }
            }
            _ => {}
        }
    }
    if !any {
        chosen = file.buffers().iter().enumerate().map(|(buffer, b)| Chosen { buffer, name: b.name.clone() }).collect();
    }
    chosen.sort_by_key(|c| !c.name.is_empty());
    if chosen.iter().filter(|c| c.name.is_empty()).count() > 1 {
        bail!("Can only have one top instance.");
    }
    for (n, c) in chosen.iter().enumerate() {
        if chosen.iter().take(n).any(|o| o.name == c.name) {
            bail!("two buffers would have the name {:?}", c.name);
        }
    }
    Ok(chosen)
}

/// Name of a piece; `number` counts from 1 with -r.
fn piece_name(input: &Path, output: Option<&PathBuf>, number: Option<usize>) -> PathBuf {
    let add = |base: &Path, suffix: String| {
        let mut name = OsString::from(base);
        name.push(suffix);
        PathBuf::from(name)
    };
    match (output, number) {
        (o, Some(n)) => add(o.map_or(input, PathBuf::as_path), format!(".{n:04}")),
        (Some(o), None) if !write::same_file(o, input) => o.clone(),
        _ => add(input, ".1".into()),
    }
}

impl Split<'_> {
    /// Writes the pieces up to the places that come.
    fn pieces(
        &mut self,
        lanes: &mut [Lane<'_>],
        places: &Receiver<Vec<Position>>,
        name: &dyn Fn(usize) -> PathBuf,
    ) -> anyhow::Result<()> {
        let begin = self.next(places).context("nothing was found")?;
        for (lane, at) in lanes.iter_mut().zip(begin) {
            lane.next = at;
        }
        for number in 1.. {
            let Some(ends) = self.next(places) else { break };
            self.piece(lanes, &ends, &name(number))?;
        }
        Ok(())
    }

    /// The next places; waits for them.
    fn next(&mut self, places: &Receiver<Vec<Position>>) -> Option<Vec<Position>> {
        loop {
            match places.recv_timeout(Duration::from_millis(100)) {
                Ok(found) => return Some(found),
                Err(RecvTimeoutError::Timeout) => self.show(),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    fn show(&mut self) {
        let mut done = self.copied;
        if let Some(walked) = self.walked {
            done += walked.bytes.load(Ordering::Relaxed);
            self.progress.events(walked.events.load(Ordering::Relaxed));
        }
        self.progress.set(done);
    }

    /// Writes one piece: for each CPU the events from where the last piece ended up to `ends`.
    fn piece(&mut self, lanes: &mut [Lane<'_>], ends: &[Position], name: &Path) -> anyhow::Result<()> {
        files::not_an_input(name, &[self.file.path().to_path_buf()])?;
        let mut writer = Writer::create(name, FileHead::of(self.file), &self.meta, self.heads.clone())?;
        for (lane, &end) in lanes.iter_mut().zip(ends) {
            if lane.next < end {
                writer.cpu(lane.place.0, lane.place.1)?;
                lane.cutter.copy(&mut writer, lane.next, end, &mut |n| {
                    self.copied += n;
                    self.show();
                })?;
                lane.next = end;
            }
        }
        let summary = writer.commit()?;
        files::print_offsets(&summary, &mut crate::output::guard::stderr())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact() {
        assert_eq!(nanoseconds("258.121328").unwrap(), 258_121_328_000);
        assert_eq!(nanoseconds("0.0000000019").unwrap(), 1);
        assert_eq!(nanoseconds("7").unwrap(), 7_000_000_000);
        assert_eq!(nanoseconds(".5").unwrap(), 500_000_000);
        for bad in ["", ".", "x", "1.2.3", "-1", "1e3", "99999999999999999999"] {
            assert!(nanoseconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("a.dat");
        std::fs::write(&input, "x").unwrap();
        let other = dir.path().join("b");
        let name = |o, n| piece_name(&input, o, n).file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(name(None, None), "a.dat.1");
        assert_eq!(name(Some(&input), None), "a.dat.1");
        assert_eq!(name(Some(&other), None), "b");
        assert_eq!(name(None, Some(3)), "a.dat.0003");
        assert_eq!(name(Some(&other), Some(12)), "b.0012");
    }
}
