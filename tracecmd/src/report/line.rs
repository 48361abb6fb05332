//! One record as one line: the columns, then the event's own text.

use trace_dat::{
    Lost, Record,
    comm::UNKNOWN,
    format::Event,
    pen::{Pen, Sheet},
    plugin::{Note, PrintCx},
    short::ShortText,
};

use super::{
    layout::{self, TimeColumn, UNKNOWN_EVENT},
    stream::Stream,
};
use crate::output::{
    color::{self, Paint},
    lines::Lines,
    memo::{Found, Memo, Of, TEXT},
};

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
    /// The record's bytes with what lies behind them in its block.
    pub reach: &'a [u8],
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

/// Entries of the cache of line heads; a power of two.
const HEADS: usize = 128;

/// What a line begins with: the prefix of the stream, `COMM-PID`, the CPU and the flags. No text: no entry.
#[derive(Clone)]
struct Head {
    key: u64,
    text: ShortText<64>,
}

/// An event with its name column.
#[derive(Clone)]
struct Named<'a> {
    event: &'a Event,
    column: ShortText,
    /// What stands behind the time is made of the record and of nothing else.
    own: bool,
}

/// What a thread remembers about one stream.
struct Cache<'a> {
    heads: Heads,
    events: Events<'a>,
}

impl Cache<'_> {
    fn new() -> Self {
        Cache {
            heads: Heads(Box::new([const { Head { key: 0, text: ShortText::EMPTY } }; HEADS])),
            events: Events(Vec::new()),
        }
    }
}

/// The events seen so far, by id.
struct Events<'a>(Vec<Option<Named<'a>>>);

impl<'a> Events<'a> {
    /// The event of a record; the search in the file's table is done once for each event.
    #[inline(always)]
    fn get(&mut self, stream: &'a Stream, data: &[u8], columns: &Columns) -> Option<&Named<'a>> {
        let id = stream.dec.endian().u16(*data.first_chunk::<2>()?);
        let at = usize::from(id);
        if self.0.get(at).is_none_or(Option::is_none) {
            self.learn(stream, id, columns)?;
        }
        self.0.get(at)?.as_ref()
    }

    #[cold]
    fn learn(&mut self, stream: &'a Stream, id: u16, columns: &Columns) -> Option<()> {
        let event = stream.dec.event(id)?;
        let paint = columns.paint;
        let mut column = Vec::new();
        paint.start(&mut column, color::EVENT);
        layout::push_event_name(&mut column, event.name.as_bytes());
        paint.end(&mut column);
        if self.0.len() <= usize::from(id) {
            self.0.resize(usize::from(id) + 1, None);
        }
        let own = stream.dec.text_is_of_record(event) && !columns.ts_diff && !columns.guard;
        *self.0.get_mut(usize::from(id))? = Some(Named { event, column: ShortText::new(&column), own });
        Some(())
    }
}

/// What the head of a line is made of.
#[derive(Clone, Copy)]
struct HeadOf {
    pid: i32,
    cpu: u32,
    flags: u8,
    preempt: u8,
}

/// The line heads used last.
struct Heads(Box<[Head; HEADS]>);

impl Heads {
    /// Appends the head of a line.
    #[inline(always)]
    #[allow(clippy::indexing_slicing, reason = "the index is cut to the length of the table")]
    fn write(&mut self, lines: &mut Lines<'_, '_>, stream: &Stream, columns: &Columns, line: &Line<'_>, of: HeadOf) {
        let HeadOf { pid, cpu, flags, preempt } = of;
        let key =
            u64::from(pid as u32) | u64::from(cpu & 0xffff) << 32 | u64::from(flags) << 48 | u64::from(preempt) << 56;
        let slot = &mut self.0[(key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 57) as usize % HEADS];
        if slot.key == key && cpu < 1 << 16 && line.extra.is_none() && !slot.text.is_empty() {
            lines.text(&slot.text);
        } else {
            slot.make(lines.flush(), stream, columns, line, of, key);
        }
    }
}

/// Appends what stands before all columns: the prefix of the stream, and the lines of rare things.
fn push_before(out: &mut Vec<u8>, stream: &Stream, columns: &Columns, line: &Line<'_>) {
    out.extend_from_slice(&stream.prefix);
    if let Some(extra) = line.extra {
        push_marks(out, extra, line.rec.cpu, columns.paint);
    }
}

impl Head {
    /// Appends the head, and keeps it. Only a name that stays is kept: an unknown one may be learnt later.
    #[cold]
    fn make(&mut self, out: &mut Vec<u8>, stream: &Stream, columns: &Columns, line: &Line<'_>, of: HeadOf, key: u64) {
        let start = out.len();
        push_before(out, stream, columns, line);
        let comm = stream.dec.comms().lookup(of.pid, line.seq);
        let name = out.len();
        layout::push_comm_pid(out, comm.unwrap_or(UNKNOWN), of.pid, columns.latency);
        if columns.guard {
            color::disarm(out, name);
        }
        layout::push_cpu(out, of.cpu, columns.latency);
        if columns.raw {
            out.extend_from_slice(b"-0x");
            layout::push_hex(out, u64::from(of.flags));
        } else {
            if !columns.latency {
                out.push(b' ');
            }
            layout::push_flags(out, of.flags, of.preempt);
            if stream.common.has_rt_columns() {
                stream.common.push_rt_columns(out, line.rec.data);
            }
        }
        let stays = comm.is_some() && !stream.dec.comms().may_change(of.pid);
        if stays && line.extra.is_none() && of.cpu < 1 << 16 && !stream.common.has_rt_columns() {
            *self = Head { key, text: ShortText::new(out.get(start..).unwrap_or_default()) };
        }
    }
}

/// Prints lines; one for each thread, because it keeps caches.
pub struct LinePrinter<'a> {
    streams: &'a [Stream],
    columns: Columns,
    caches: Vec<Cache<'a>>,
    time: TimeColumn,
    memo: Memo,
    sheet: Sheet,
    text: Vec<u8>,
}

impl<'a> LinePrinter<'a> {
    /// A printer for records of these streams.
    pub fn new(streams: &'a [Stream], columns: Columns) -> Self {
        let caches = streams.iter().map(|_| Cache::new()).collect();
        let (time, memo, sheet) = (TimeColumn::default(), Memo::default(), Sheet::default());
        LinePrinter { streams, columns, caches, time, memo, sheet, text: Vec::new() }
    }

    /// Appends the line of a record, with the lines that stand before it.
    pub fn print(&mut self, line: &Line<'_>, out: &mut Vec<u8>) {
        let end = self.write(line, 0, out);
        self.finish(end, out);
    }

    /// Appends what was written before `end`, where the pen stands.
    pub fn finish(&self, end: usize, out: &mut Vec<u8>) {
        self.sheet.flush(end, out);
    }

    /// As [`LinePrinter::print`], behind what was written before `at`; where the pen stands then.
    #[inline(always)]
    pub fn write(&mut self, line: &Line<'_>, at: usize, out: &mut Vec<u8>) -> usize {
        let number = line.stream as usize;
        let (Some(stream), Some(cache)) = (self.streams.get(number), self.caches.get_mut(number)) else { return at };
        let columns = &self.columns;
        let rec = &line.rec;
        let mut lines = Lines { pen: Pen::new(&mut self.sheet, at), out };

        let (pid, flags, preempt) = stream.common.read(rec.data);
        let Cache { heads, events } = cache;
        // Looked up before the columns, because an event that is not in the file changes all of them.
        if let Some(Named { event, column, own }) = events.get(stream, rec.data, columns) {
            heads.write(&mut lines, stream, columns, line, HeadOf { pid, cpu: rec.cpu, flags, preempt });
            self.time.write(&mut lines, line.ts, stream.time);
            let same = Of { stream: line.stream, cpu: 0, data: rec.data };
            let found = if *own { self.memo.write(same, &mut lines.pen) } else { Found::Unknown };
            let (note, seq) = (line.note, line.seq);
            let cx = PrintCx { dec: &stream.dec, event, rec: *rec, reach: line.reach, ts: line.ts, note, seq };
            match found {
                Found::Yes => {}
                Found::No => write_and_keep(&cx, column, &mut lines, &mut self.memo, same, &mut self.text),
                Found::Unknown => {
                    lines.pen.byte(b':');
                    if columns.ts_diff {
                        layout::push_ts_diff(lines.flush(), line.diff);
                    }
                    lines.text(column);
                    let mut pen = lines.pen.own();
                    let start = pen.at();
                    if !columns.guard && stream.dec.write_info(&cx, &mut pen) {
                        // A text of several lines, as that of a stack, has its own newline at the end.
                        let newline = pen.since(start).last() == Some(&b'\n');
                        let end = pen.at() - usize::from(newline);
                        lines.pen.go_to(end);
                    } else {
                        push_info(&cx, columns.guard, lines.flush());
                    }
                }
            }
        } else {
            let out = lines.flush();
            push_before(out, stream, columns, line);
            push_unknown(out, columns, flags, line.diff);
        }
        if let Some(extra) = line.extra {
            let out = lines.flush();
            if let Some(nanos) = extra.wakeup {
                push_wakeup(out, nanos);
            }
            out.extend_from_slice(extra.suffix.as_bytes());
        }
        lines.pen.byte(b'\n');
        lines.end()
    }
}

/// Writes an event's name and text, on the sheet if they are short, and keeps them.
#[inline(never)]
fn write_and_keep(
    cx: &PrintCx<'_>,
    column: &ShortText,
    lines: &mut Lines<'_, '_>,
    memo: &mut Memo,
    same: Of<'_>,
    text: &mut Vec<u8>,
) {
    text.clear();
    text.push(b':');
    column.push(text);
    push_info(cx, false, text);
    if text.len() <= TEXT {
        lines.pen.bytes(text);
        memo.keep(same, text);
    } else {
        lines.flush().extend_from_slice(text);
    }
}

/// Appends an event's text, which may be of any length.
#[inline(never)]
fn push_info(cx: &PrintCx<'_>, guard: bool, out: &mut Vec<u8>) {
    let info = out.len();
    cx.dec.print_info(cx, out);
    if out.len() > info && out.last() == Some(&b'\n') {
        out.pop();
    }
    if guard {
        color::disarm(out, info);
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
