//! The records of a running kernel as they come, in the order of time: what `stream` prints and `profile` sums up.
//!
//! A round reads what every CPU's buffer holds at that moment, partly filled sub-buffers too. What a round brings is held back until
//! it is certain that nothing older can follow: everything that is not newer than the newest record of the rounds before. So the order
//! is that of a report, one round late.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use trace_dat::plugin::Note;
use trace_dat::plugin::seq::{Sequencer, Visit};
use trace_dat::ring::subbuf::{ItemKind, SubBufLayout};
use trace_dat::time::{CpuTime, Scale, TimeMap};
use trace_dat::{Decoder, DecoderParts, LazyText, LongSize, Lost, Record};
use tracefs::{CpuReader, TraceFs};

use crate::plan::Plan;
use crate::report::layout::CommonFields;
use crate::report::line::{Columns, Extra, Line, LinePrinter};
use crate::report::profile::Profile;
use crate::report::stream::{Stream, prefixes};
use crate::report::time::{is_time_clock, time_format};
use crate::session::Session;
use crate::signal::{Signals, Woken};
use crate::tracefile::{self, HOST_ENDIAN};

/// Sub-buffers that are read of one CPU in one round: bounds the memory of a round.
const ROUND_SUBBUFS: usize = 256;
/// Rounds are at least so far apart, also when the kernel says at once that there is more.
const LEAST_PAUSE: Duration = Duration::from_millis(1);
/// Bytes that a pipe takes without blocking once it is ready for writing (PIPE_BUF).
const PIECE: usize = 4096;

/// A decoder for what this kernel records now: formats of the events that the plan selects, symbols, names.
///
/// # Errors
/// The formats cannot be read.
pub fn decoder(session: &Session, plan: &Plan) -> anyhow::Result<Arc<Decoder>> {
    let root = session.root();
    let top = root.top();
    let on = |i: &tracefs::Instance, option: &str| i.option(option).unwrap_or(false);
    let has_arguments = |i| on(i, "func-args") || on(i, "funcgraph-args");
    let arguments = session.buffers.iter().any(|a| has_arguments(&a.instance));
    // With -K events of others may be on.
    let patterns = if plan.keep_before { None } else { plan.formats.as_deref() };
    let mut texts = trace_dat::FormatTexts::default();
    for text in tracefile::ftrace_formats(&top) {
        texts.push("ftrace", &text);
    }
    for (system, list) in tracefile::formats(&top, patterns)? {
        list.iter().for_each(|text| texts.push(&system, text));
    }
    let long = if size_of::<libc::c_long>() == 4 { LongSize::Four } else { LongSize::Eight };
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
    let mut parts = DecoderParts::new(HOST_ENDIAN, long, u64::try_from(page).unwrap_or(4096));
    parts.formats = trace_dat::LazyFormats::Texts(texts);
    parts.kallsyms = LazyText::read(|| Ok(std::fs::read("/proc/kallsyms").unwrap_or_default()));
    if arguments {
        parts.btf = LazyText::read(|| Ok(std::fs::read("/sys/kernel/btf/vmlinux").unwrap_or_default()));
    }
    let file = |name: &str| {
        let path = root.dir().file(name);
        LazyText::read(move || Ok(std::fs::read(&path).unwrap_or_default()))
    };
    parts.printk = file("printk_formats");
    parts.cmdlines = file("saved_cmdlines");
    Ok(Arc::new(Decoder::new(parts)))
}

/// One CPU of one buffer.
#[derive(Debug)]
struct Source {
    reader: CpuReader,
    cpu: u32,
    stream: u32,
    time: CpuTime,
    layout: SubBufLayout,
}

/// A record that was read and not yet handed on.
#[derive(Clone, Debug)]
pub struct Held {
    /// Corrected time, then the number of the source: the order of the output.
    key: (u64, u32),
    stored: u64,
    cpu: u32,
    stream: u32,
    lost: Lost,
    /// Handed on already, together with the one before it.
    taken: bool,
    subbuf: Rc<[u8]>,
    start: usize,
    len: usize,
}

impl Held {
    /// The record, its time as stored.
    pub fn record(&self) -> Record<'_> {
        Record {
            ts: self.stored,
            cpu: self.cpu,
            lost: self.lost,
            data: self.subbuf.get(self.start..self.start + self.len).unwrap_or_default(),
            offset: self.start as u64,
        }
    }
}

/// The collected records of all buffers of a session.
#[derive(Debug)]
pub struct Live {
    sources: Vec<Source>,
    /// The buffers, as `report` would have them of a file.
    pub streams: Vec<Stream>,
    held: Vec<Held>,
    newest: u64,
    /// Time between two rounds when no buffer fills up.
    period: Duration,
    last_round: Instant,
}

impl Live {
    /// Opens the raw buffers of every CPU.
    ///
    /// # Errors
    /// A buffer cannot be opened or its layout is not known.
    pub fn open(plan: &Plan, session: &Session, dec: &Arc<Decoder>, times: &TimeMap) -> anyhow::Result<Live> {
        let root = session.root();
        let data_offset = data_offset(&root.dir().read("events/header_page")?)
            .context("this kernel does not say how its ring buffer looks")?;
        let mut sources = Vec::new();
        let mut streams = Vec::new();
        let mut names = Vec::new();
        let common = CommonFields::new(HOST_ENDIAN, dec.events().next());
        for a in &session.buffers {
            let subbuf = a.instance.subbuf_size()?;
            let clock = a.instance.clock().unwrap_or_else(|_| "local".to_owned());
            let mut times = times.clone();
            if !is_time_clock(&clock) && clock != "x86-tsc" {
                times.scale = Scale::None;
            }
            for cpu in a.instance.cpus()? {
                sources.push(Source {
                    reader: CpuReader::open(&a.instance, cpu)?,
                    cpu,
                    stream: streams.len() as u32,
                    time: times.cpu(cpu),
                    layout: SubBufLayout {
                        endian: HOST_ENDIAN,
                        commit_size: dec.long_size(),
                        data_offset,
                        size: subbuf,
                        old_format: false,
                    },
                });
            }
            names.push(a.name().as_bytes().to_vec());
            streams.push(Stream {
                input: 0,
                buffer: a.name().to_owned(),
                prefix: Vec::new(),
                dec: dec.clone(),
                common,
                time: time_format(Some(&clock), times.scale != Scale::None, false, false),
                diff_micros: true,
            });
        }
        for (stream, prefix) in streams.iter_mut().zip(prefixes(&names)) {
            stream.prefix = prefix;
        }
        let period = Duration::from_micros(plan.sleep_us.unwrap_or(100_000)).max(LEAST_PAUSE);
        let last_round = Instant::now();
        Ok(Live { sources, streams, held: Vec::new(), newest: 0, period, last_round })
    }

    /// Waits for a signal or one of `fds`, handing on records meanwhile. `to` says whether it wants more.
    ///
    /// # Errors
    /// A buffer cannot be read, or what `to` reports.
    pub fn wait(&mut self, signals: &Signals, fds: &[BorrowedFd<'_>], to: &mut dyn Take) -> anyhow::Result<Woken> {
        loop {
            let woken = {
                let mut all = fds.to_vec();
                // A kernel that wakes us for every record must not have us do nothing else.
                if self.last_round.elapsed() >= LEAST_PAUSE {
                    all.extend(self.sources.iter().map(|s| s.reader.as_fd()));
                }
                let left = self.period.saturating_sub(self.last_round.elapsed());
                signals.wait(&all, Some(if all.len() > fds.len() { left } else { LEAST_PAUSE }))?
            };
            match woken {
                Woken::Ready(at) if at < fds.len() => return Ok(woken),
                Woken::Signal => return Ok(woken),
                Woken::Timeout if self.last_round.elapsed() < self.period => continue,
                _ => {}
            }
            self.round(to)?;
            if !to.flush(Some(signals))? {
                return Ok(Woken::Signal);
            }
        }
    }

    /// Reads once what is there, and hands on what is due.
    fn round(&mut self, to: &mut dyn Take) -> anyhow::Result<bool> {
        let (read, due) = self.read()?;
        self.last_round = Instant::now();
        self.hand_on(due, !read, to)?;
        Ok(read)
    }

    /// Hands on everything that is left. Tracing must be off.
    ///
    /// # Errors
    /// As [`Live::wait`].
    pub fn finish(&mut self, to: &mut dyn Take) -> anyhow::Result<()> {
        // Bounded by the buffer; should somebody have switched tracing on again, this ends all the same.
        for _ in 0..1 << 16 {
            if !self.round(to)? || !to.flush(None)? {
                break;
            }
        }
        self.hand_on(u64::MAX, true, to)?;
        to.flush(None)?;
        Ok(())
    }

    /// Closes the kernel's files: a tracer or an instance whose raw buffer is open cannot go.
    pub fn close(&mut self) {
        self.sources.clear();
    }

    /// Whether anything was read, and up to which time the order is certain.
    fn read(&mut self) -> anyhow::Result<(bool, u64)> {
        let mut due = self.newest;
        let mut any = false;
        for (number, s) in self.sources.iter_mut().enumerate() {
            let mut last = 0;
            let mut count = 0;
            while count < ROUND_SUBBUFS {
                let Some(bytes) = s.reader.read()? else { break };
                let bytes = Rc::from(bytes);
                count += 1;
                last = take_subbuf(s, number as u32, bytes, &mut self.held).max(last);
            }
            any |= count > 0;
            if count == ROUND_SUBBUFS {
                // There is more of this CPU, and it may be older than what others have.
                due = due.min(last);
            }
            self.newest = self.newest.max(last);
        }
        Ok((any, due))
    }

    /// Hands on what is not newer than `due`. `quiet`: nothing more comes at the moment, so nothing is waited for.
    fn hand_on(&mut self, due: u64, quiet: bool, to: &mut dyn Take) -> anyhow::Result<()> {
        self.held.sort_by_key(|h| h.key);
        let end = self.held.partition_point(|h| h.key.0 <= due);
        let done = to.take(&mut self.held, end, quiet)?;
        self.held.drain(..done);
        Ok(())
    }
}

/// Takes the records of a sub-buffer apart; the time of the last one.
fn take_subbuf(s: &Source, source: u32, subbuf: Rc<[u8]>, held: &mut Vec<Held>) -> u64 {
    let mut last = 0;
    let (header, items) = match (s.layout.header(&subbuf, 0), s.layout.items(&subbuf, 0)) {
        (Ok(h), Ok(i)) => (h, i),
        (Err(e), _) | (_, Err(e)) => {
            log::warn!("{}: {e}", s.reader.path().display());
            return last;
        }
    };
    let mut lost = header.lost;
    for item in items {
        match item {
            Ok(item) if item.kind == ItemKind::Event => {
                let ts = s.time.correct(item.ts);
                last = last.max(ts);
                held.push(Held {
                    key: (ts, source),
                    stored: item.ts,
                    cpu: s.cpu,
                    stream: s.stream,
                    lost: std::mem::replace(&mut lost, Lost::None),
                    taken: false,
                    subbuf: subbuf.clone(),
                    start: item.data_at,
                    len: item.data.len(),
                });
            }
            Ok(_) => {}
            Err(e) => log::warn!("{}: {e}", s.reader.path().display()),
        }
    }
    last
}

/// Where the data of a sub-buffer begin, by `events/header_page`.
fn data_offset(text: &str) -> Option<usize> {
    let line = text.lines().find(|l| l.contains(" data;"))?;
    line.split("offset:").nth(1)?.split(';').next()?.trim().parse().ok()
}

/// Takes records in the order of time.
pub trait Take {
    /// Takes the first `end` records; those behind may be looked at. Gives how many are done with: fewer when one cannot be decided
    /// before the next one has come, unless it is `quiet`.
    fn take(&mut self, held: &mut [Held], end: usize, quiet: bool) -> anyhow::Result<usize>;

    /// Writes out what was made of them. False when nobody reads it any more.
    ///
    /// # Errors
    /// It cannot be written.
    fn flush(&mut self, signals: Option<&Signals>) -> anyhow::Result<bool>;
}

/// Prints records as `report` does.
pub struct Printed<'a> {
    root: &'a TraceFs,
    streams: &'a [Stream],
    printer: LinePrinter<'a>,
    sequencer: Sequencer,
    seq: u64,
    text: Vec<u8>,
    out: std::fs::File,
    closed: bool,
    names_read: Option<Instant>,
}

impl<'a> Printed<'a> {
    /// A printer of records of these streams to stdout.
    ///
    /// # Errors
    /// There is no stdout.
    pub fn new(root: &'a TraceFs, streams: &'a [Stream], columns: Columns) -> anyhow::Result<Printed<'a>> {
        let out = std::fs::File::from(std::io::stdout().as_fd().try_clone_to_owned().context("standard output")?);
        Ok(Printed {
            root,
            streams,
            printer: LinePrinter::new(streams, columns),
            sequencer: Sequencer::new(),
            seq: 1,
            text: Vec::new(),
            out,
            closed: false,
            names_read: None,
        })
    }

    /// A task that started after the first look at `saved_cmdlines` has its name there now.
    fn learn_name(&mut self, stream: &Stream, data: &[u8]) {
        let (pid, ..) = stream.common.read(data);
        let comms = stream.dec.comms();
        if comms.lookup(pid, self.seq).is_some() || self.names_read.is_some_and(|t| t.elapsed() < LEAST_PAUSE * 50) {
            return;
        }
        for (pid, name) in self.root.saved_cmdlines().unwrap_or_default() {
            if name != b"<...>" {
                comms.learn(pid, self.seq - 1, &name);
            }
        }
        self.names_read = Some(Instant::now());
    }
}

impl Take for Printed<'_> {
    fn take(&mut self, held: &mut [Held], end: usize, quiet: bool) -> anyhow::Result<usize> {
        let streams = self.streams;
        for at in 0..end {
            let Some((now, behind)) = held.get_mut(at..).and_then(<[Held]>::split_first_mut) else { break };
            let Some(stream) = streams.get(now.stream as usize).filter(|_| !now.taken && !self.closed) else {
                continue;
            };
            let record = now.record();
            let next = behind.iter_mut().find(|h| h.stream == now.stream && !h.taken);
            let mut asked = false;
            let visit = {
                let peek = next.as_deref().map(Held::record);
                let asked = &mut asked;
                self.sequencer.visit(&stream.dec, &record, self.seq, || {
                    *asked = true;
                    peek
                })
            };
            if asked && next.is_none() && !quiet {
                return Ok(at);
            }
            if let Some(event) = stream.dec.event_of(record.data) {
                stream.dec.visit(event, record.data, self.seq);
            }
            self.learn_name(stream, record.data);
            let extra = (record.lost != Lost::None).then(|| Extra { lost: record.lost, ..Extra::default() });
            let mut note = Note { indent: 0, leaf_exit: None };
            match (visit, next) {
                (Visit::Indent(n), _) => note.indent = n,
                (Visit::Leaf, Some(exit)) => {
                    exit.taken = true;
                    note.leaf_exit = Some(exit.record());
                }
                _ => {}
            }
            let line = Line {
                stream: now.stream,
                rec: Record { lost: Lost::None, ..record },
                reach: record.data,
                ts: now.key.0,
                seq: self.seq,
                note,
                diff: None,
                extra: extra.as_ref(),
            };
            self.printer.print(&line, &mut self.text);
            self.seq += 1;
        }
        Ok(end)
    }

    fn flush(&mut self, signals: Option<&Signals>) -> anyhow::Result<bool> {
        let mut rest = self.text.as_slice();
        while !rest.is_empty() && !self.closed {
            // A reader that does not read must not keep a signal from ending us.
            if let Some(signals) = signals
                && signals.wait_writable(self.out.as_fd())? == Woken::Signal
            {
                self.text.drain(..self.text.len() - rest.len());
                return Ok(false);
            }
            let piece = rest.get(..PIECE).unwrap_or(rest);
            match self.out.write(piece) {
                Ok(n) => rest = rest.get(n..).unwrap_or_default(),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => self.closed = true,
                Err(e) => return Err(e).context("standard output"),
            }
        }
        self.text.clear();
        Ok(!self.closed)
    }
}

/// Has a profile see the records.
pub struct Profiled<'a> {
    dec: &'a Decoder,
    /// By stream.
    profiles: Vec<Profile>,
}

impl<'a> Profiled<'a> {
    /// One profile for each buffer.
    pub fn new(dec: &'a Decoder, profiles: Vec<Profile>) -> Profiled<'a> {
        Profiled { dec, profiles }
    }

    /// The finished profiles.
    pub fn into_profiles(self) -> Vec<Profile> {
        self.profiles
    }
}

impl Take for Profiled<'_> {
    fn take(&mut self, held: &mut [Held], end: usize, _quiet: bool) -> anyhow::Result<usize> {
        for h in held.iter().take(end) {
            if let Some(profile) = self.profiles.get_mut(h.stream as usize) {
                profile.see(self.dec, &h.record(), h.key.0);
            }
        }
        Ok(end)
    }

    fn flush(&mut self, _signals: Option<&Signals>) -> anyhow::Result<bool> {
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_data_begin() {
        let text = "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n\
                    \tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n\
                    \tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n\
                    \tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;\n";
        assert_eq!(data_offset(text), Some(16));
        assert_eq!(data_offset("nothing"), None);
    }
}
