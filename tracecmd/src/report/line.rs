//! One record as one line: the columns, then the event's own text.

use trace_dat::{
    Lost, Record,
    comm::UNKNOWN,
    format::Event,
    plugin::{Note, PrintCx},
    short::ShortText,
};

use super::{
    layout::{self, TimeColumn, UNKNOWN_EVENT},
    stream::Stream,
};
use crate::output::color::{self, Paint};

/// Which columns a line has, and for whom.
#[derive(Clone, Copy, Debug, Default)]
pub struct Columns {
    /// `-l`
    pub latency: bool,
    /// `-R`
    pub raw: bool,
    /// `--ts-diff`
    pub ts_diff: bool,
    /// Colours.
    pub paint: Paint,
    /// The output is a terminal: control bytes of the trace must not reach it.
    pub guard: bool,
}

/// What stands before or behind a record's line in rare cases.
#[derive(Clone, Debug, Default)]
pub struct Extra {
    /// Events lost before it.
    pub lost: Lost,
    /// It is the first of its sub-buffer, and that is to be shown; with what `--debug` adds.
    pub boundary: Option<String>,
    /// For `--debug`: what stands behind the record's text, further lines included.
    pub suffix: String,
    /// `-w`: nanoseconds from the wakeup of the task to this switch.
    pub wakeup: Option<u64>,
}

/// A record ready to be printed.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Number of its stream.
    pub stream: u32,
    /// The record.
    pub rec: Record<'a>,
    /// Corrected time.
    pub ts: u64,
    /// Position in the output.
    pub seq: u64,
    /// What other records say about it.
    pub note: Note<'a>,
    /// Difference to the line before, with `--ts-diff`.
    pub diff: Option<i64>,
    /// Rare things.
    pub extra: Option<&'a Extra>,
}

/// Entries of the cache of `COMM-PID` texts; a power of two.
const PIDS: usize = 256;

/// The text of a pid; an empty one for none.
#[derive(Clone, Default)]
struct PidText {
    pid: i32,
    text: ShortText,
}

/// An event with its name column.
#[derive(Clone)]
struct Named<'a> {
    event: &'a Event,
    column: ShortText,
}

/// What a thread remembers about one input.
struct Cache<'a> {
    pids: Pids,
    events: Events<'a>,
}

impl Cache<'_> {
    fn new() -> Self {
        Cache {
            pids: Pids(Box::new([const { PidText { pid: 0, text: ShortText::EMPTY } }; PIDS])),
            events: Events(Vec::new()),
        }
    }
}

/// The events seen so far, by id.
struct Events<'a>(Vec<Option<Named<'a>>>);

impl<'a> Events<'a> {
    /// The event of a record; the search in the file's table is done once for each event.
    #[inline(always)]
    fn get(&mut self, stream: &'a Stream, data: &[u8], paint: Paint) -> Option<&Named<'a>> {
        let id = stream.dec.endian().u16(*data.first_chunk::<2>()?);
        let at = usize::from(id);
        if self.0.get(at).is_none_or(Option::is_none) {
            self.learn(stream, id, paint)?;
        }
        self.0.get(at)?.as_ref()
    }

    #[cold]
    fn learn(&mut self, stream: &'a Stream, id: u16, paint: Paint) -> Option<()> {
        let event = stream.dec.event(id)?;
        let mut column = Vec::new();
        paint.start(&mut column, color::EVENT);
        layout::push_event_name(&mut column, event.name.as_bytes());
        paint.end(&mut column);
        if self.0.len() <= usize::from(id) {
            self.0.resize(usize::from(id) + 1, None);
        }
        *self.0.get_mut(usize::from(id))? = Some(Named { event, column: ShortText::new(&column) });
        Some(())
    }
}

/// `COMM-PID` texts of the pids seen last.
struct Pids(Box<[PidText; PIDS]>);

impl Pids {
    /// Appends `COMM-PID`. Only a known name is kept: an unknown one may be learnt later, a known one never changes.
    #[inline(always)]
    fn push(&mut self, out: &mut Vec<u8>, stream: &Stream, pid: i32, seq: u64, columns: &Columns) {
        let place = &mut self.0[pid as u32 as usize % PIDS];
        if place.pid == pid && !place.text.is_empty() {
            place.text.push(out);
            return;
        }
        Self::make(place, out, stream, pid, seq, columns);
    }

    #[cold]
    fn make(place: &mut PidText, out: &mut Vec<u8>, stream: &Stream, pid: i32, seq: u64, columns: &Columns) {
        let comm = stream.dec.comms().lookup(pid, seq);
        let start = out.len();
        layout::push_comm_pid(out, comm.unwrap_or(UNKNOWN), pid, columns.latency);
        if columns.guard {
            color::disarm(out, start);
        }
        if comm.is_some() {
            *place = PidText { pid, text: ShortText::new(out.get(start..).unwrap_or_default()) };
        }
    }
}

/// Prints lines; one for each thread, because it keeps caches.
pub struct LinePrinter<'a> {
    streams: &'a [Stream],
    columns: Columns,
    caches: Vec<Cache<'a>>,
    time: TimeColumn,
}

impl<'a> LinePrinter<'a> {
    /// A printer for records of these streams.
    pub fn new(streams: &'a [Stream], columns: Columns) -> Self {
        // Streams of one input share their decoder, and so the cache.
        let inputs = streams.iter().map(|s| s.input + 1).max().unwrap_or(0);
        let caches = (0..inputs).map(|_| Cache::new()).collect();
        LinePrinter { streams, columns, caches, time: TimeColumn::default() }
    }

    /// Appends the line of a record, with the lines that stand before it.
    #[inline]
    pub fn print(&mut self, line: &Line<'_>, out: &mut Vec<u8>) {
        let Some(stream) = self.streams.get(line.stream as usize) else { return };
        let Some(cache) = self.caches.get_mut(stream.input) else { return };
        let columns = &self.columns;
        let rec = &line.rec;

        if !stream.prefix.is_empty() {
            out.extend_from_slice(&stream.prefix);
        }
        if let Some(extra) = line.extra {
            push_marks(out, extra, rec.cpu, columns.paint);
        }
        let (pid, flags, preempt) = stream.common.read(rec.data);
        let Cache { pids, events } = cache;
        // Looked up before the columns, because an event that is not in the file changes all of them.
        if let Some(Named { event, column }) = events.get(stream, rec.data, columns.paint) {
            pids.push(out, stream, pid, line.seq, columns);
            layout::push_cpu(out, rec.cpu, columns.latency);
            if columns.raw {
                out.extend_from_slice(b"-0x");
                layout::push_hex(out, u64::from(flags));
            } else {
                if !columns.latency {
                    out.push(b' ');
                }
                layout::push_flags(out, flags, preempt);
                if stream.common.has_rt_columns() {
                    stream.common.push_rt_columns(out, rec.data);
                }
            }
            self.time.push(out, line.ts, stream.time);
            out.push(b':');
            if columns.ts_diff {
                layout::push_ts_diff(out, line.diff);
            }
            column.push(out);
            let info = out.len();
            let cx = PrintCx { dec: &stream.dec, event, rec: *rec, ts: line.ts, note: line.note, seq: line.seq };
            stream.dec.print_info(&cx, out);
            // A text of several lines, as that of a stack, has its own newline at the end.
            if out.len() > info && out.last() == Some(&b'\n') {
                out.pop();
            }
            if columns.guard {
                color::disarm(out, info);
            }
        } else {
            push_unknown(out, columns, flags, line.diff);
        }
        if let Some(extra) = line.extra {
            if let Some(nanos) = extra.wakeup {
                push_wakeup(out, nanos);
            }
            out.extend_from_slice(extra.suffix.as_bytes());
        }
        out.push(b'\n');
    }
}

/// Appends the lines about lost events and sub-buffers.
#[cold]
fn push_marks(out: &mut Vec<u8>, extra: &Extra, cpu: u32, paint: Paint) {
    let mark = |out: &mut Vec<u8>, text: std::fmt::Arguments<'_>, color| {
        paint.start(out, color);
        out.extend_from_slice(format!("CPU:{cpu} {text}").as_bytes());
        paint.end(out);
        out.push(b'\n');
    };
    match extra.lost {
        Lost::None => {}
        Lost::Unknown => mark(out, format_args!("[EVENTS DROPPED]"), color::LOST),
        Lost::Count(n) => mark(out, format_args!("[{n} EVENTS DROPPED]"), color::LOST),
    }
    if let Some(note) = &extra.boundary {
        mark(out, format_args!("[SUBBUFFER START]{note}"), color::MARK);
    }
}

/// Appends what is left of a line whose event is not in the file.
#[cold]
fn push_unknown(out: &mut Vec<u8>, columns: &Columns, flags: u8, diff: Option<i64>) {
    out.extend_from_slice(UNKNOWN_EVENT);
    if columns.raw {
        out.extend_from_slice(b"-0x");
        layout::push_hex(out, u64::from(flags));
    } else {
        out.extend_from_slice(UNKNOWN_EVENT);
    }
    out.extend_from_slice(UNKNOWN_EVENT);
    if columns.ts_diff {
        layout::push_ts_diff(out, diff);
    }
    layout::push_event_name(out, b"(NULL)");
    out.extend_from_slice(UNKNOWN_EVENT);
}

/// Appends the latency of a wakeup.
#[cold]
fn push_wakeup(out: &mut Vec<u8>, nanos: u64) {
    out.extend_from_slice(format!(" Latency: {}.{:03} usecs", nanos / 1000, nanos % 1000).as_bytes());
}
