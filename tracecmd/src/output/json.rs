//! Records as JSON lines: one object for each event. What the members mean is said in docs/JSON.md.

use trace_dat::{
    Decoder, Endian, Lost, Record,
    comm::UNKNOWN,
    format::{Event, Field, FieldFlags},
    pen::{Pen, Sheet},
    plain::{is_plain, is_special},
    plugin::PrintCx,
    short::{ShortText, push_start},
};

use super::{
    lines::Lines,
    memo::{Found, Memo, Of, TEXT},
};
use crate::report::{
    batch::Batch,
    layout::{TimeFormat, push_flags, push_num},
    line::Line,
    pipeline,
    slices::SlicePrinter,
    stream::Stream,
};

/// What a value of a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    U32,
    U64,
    I32,
    I64,
    /// Of any other size.
    Number {
        signed: bool,
    },
    /// Characters up to the first NUL.
    Text,
    /// Numbers of this many bytes each.
    Numbers {
        size: usize,
        signed: bool,
    },
}

/// A field with all that does not depend on the record.
#[derive(Clone, Debug)]
struct Column {
    /// `"name":`, with the comma before it unless it is the first.
    key: ShortText,
    kind: Kind,
    offset: usize,
    size: usize,
    /// `__data_loc`, and whether it counts from the end of the field (`__rel_loc`).
    dynamic: Option<bool>,
}

impl Column {
    fn new(field: &Field, first: bool) -> Column {
        let mut key = Vec::new();
        if !first {
            key.push(b',');
        }
        push_string(&mut key, field.name.as_bytes());
        key.push(b':');
        let has = |f| field.flags.contains(f);
        let array = has(FieldFlags::ARRAY) || has(FieldFlags::DYNAMIC) || has(FieldFlags::RELATIVE);
        let char_type = field.type_text.contains("char") && !field.type_text.contains("unsigned char");
        let kind = match (array, has(FieldFlags::SIGNED)) {
            (true, _) if char_type => Kind::Text,
            (true, signed) => Kind::Numbers { size: element_size(field), signed },
            (false, signed) => match (field.size, signed) {
                (4, false) => Kind::U32,
                (8, false) => Kind::U64,
                (4, true) => Kind::I32,
                (8, true) => Kind::I64,
                (_, signed) => Kind::Number { signed },
            },
        };
        let relative = has(FieldFlags::RELATIVE);
        let dynamic = (has(FieldFlags::DYNAMIC) || relative).then_some(relative);
        Column { key: ShortText::new(&key), kind, offset: field.offset, size: field.size, dynamic }
    }

    /// The bytes of the value in a record.
    fn bytes<'d>(&self, endian: Endian, data: &'d [u8]) -> &'d [u8] {
        let (from, len) = match self.dynamic {
            None if self.size == 0 => (self.offset, data.len().saturating_sub(self.offset)),
            None => (self.offset, self.size),
            Some(relative) => {
                let word = endian.uint(data, self.offset, self.size).unwrap_or(0);
                let start = (word & 0xffff) as usize;
                let base = if relative { self.offset + self.size } else { 0 };
                (base + start, (word >> 16 & 0xffff) as usize)
            }
        };
        // What reaches past the record's end is cut there.
        data.get(from..).map(|rest| rest.get(..len).unwrap_or(rest)).unwrap_or_default()
    }

    /// Appends key and value.
    #[inline(always)]
    fn write(&self, endian: Endian, data: &[u8], long: &mut LongNumbers, lines: &mut Lines<'_, '_>) {
        lines.text(&self.key);
        let pen = &mut lines.pen;
        let four = || data.get(self.offset..)?.first_chunk().map(|b| endian.u32(*b));
        let eight = || data.get(self.offset..)?.first_chunk().map(|b| endian.u64(*b));
        match self.kind {
            Kind::U32 => match four() {
                Some(n) => pen.dec(n.into()),
                None => pen.piece(NULL),
            },
            Kind::I32 => match four() {
                Some(n) => pen.signed_dec((n as i32).into()),
                None => pen.piece(NULL),
            },
            Kind::U64 => match eight() {
                Some(n) => long.write(n, pen),
                None => pen.piece(NULL),
            },
            Kind::I64 => match eight() {
                Some(n) => pen.signed_dec(n as i64),
                None => pen.piece(NULL),
            },
            Kind::Number { signed } => match endian.uint(data, self.offset, self.size) {
                Some(n) if signed => pen.signed_dec(sign_extend(n, self.size)),
                Some(n) => pen.dec(n),
                // Not in this record, or of a size that no number has.
                None => pen.piece(NULL),
            },
            // The name of a task.
            Kind::Text if self.dynamic.is_none() && self.size == 16 => {
                let text = data.get(self.offset..).and_then(|d| d.first_chunk::<16>());
                match text.and_then(|t| Some((t, plain_len(t)?))) {
                    Some((text, len)) => {
                        pen.byte(b'"');
                        pen.part(text, len);
                        pen.byte(b'"');
                    }
                    None => self.push(endian, data, lines.flush()),
                }
            }
            Kind::Numbers { size, signed } => {
                pen.byte(b'[');
                for (i, element) in self.bytes(endian, data).chunks_exact(size).enumerate() {
                    if lines.pen.at() > LINE {
                        lines.flush();
                    }
                    let pen = &mut lines.pen;
                    if i > 0 {
                        pen.byte(b',');
                    }
                    match (element.first_chunk().map(|b| endian.u64(*b)), signed) {
                        (Some(n), false) => long.write(n, pen),
                        (Some(n), true) => pen.signed_dec(n as i64),
                        (None, _) => {
                            let n = endian.uint(element, 0, size).unwrap_or(0);
                            if signed { pen.signed_dec(sign_extend(n, size)) } else { pen.dec(n) }
                        }
                    }
                }
                lines.pen.byte(b']');
            }
            Kind::Text => self.push(endian, data, lines.flush()),
        }
    }

    /// Appends a text, which may be of any length.
    #[inline(never)]
    fn push(&self, endian: Endian, data: &[u8], out: &mut Vec<u8>) {
        let bytes = self.bytes(endian, data);
        let end = memchr::memchr(0, bytes).unwrap_or(bytes.len());
        push_string(out, bytes.get(..end).unwrap_or_default());
    }
}

const NULL: &[u8; 4] = b"null";

/// Bytes of an array's element: what the format says, or what the type's name says, or one.
fn element_size(field: &Field) -> usize {
    let fixed = !field.flags.intersects(FieldFlags::DYNAMIC | FieldFlags::RELATIVE);
    if fixed && matches!(field.element_size, 1 | 2 | 4 | 8) {
        return field.element_size;
    }
    let t = field.type_text.as_str();
    let has = |words: &[&str]| words.iter().any(|w| t.contains(w));
    if has(&["64", "long long", "unsigned long", "cpumask", "long"]) {
        8
    } else if has(&["32", "int", "pid_t"]) {
        4
    } else if has(&["16", "short"]) {
        2
    } else {
        1
    }
}

fn sign_extend(n: u64, size: usize) -> i64 {
    match size {
        1 => i64::from(n as i8),
        2 => i64::from(n as i16),
        4 => i64::from(n as i32),
        _ => n as i64,
    }
}

/// The character at the start of a text, and its length, if a terminal would obey it: a control character above ASCII, or a
/// mark of writing direction.
fn hidden(text: &[u8]) -> Option<(char, usize)> {
    match text {
        [0xc2, b @ 0x80..=0x9f, ..] => Some((char::from(*b), 2)),
        [0xe2, 0x80, b @ 0xaa..=0xae, ..] => char::from_u32(0x2000 + u32::from(*b & 0x3f)).map(|c| (c, 3)),
        [0xe2, 0x81, b @ 0xa6..=0xa9, ..] => char::from_u32(0x2040 + u32::from(*b & 0x3f)).map(|c| (c, 3)),
        _ => None,
    }
}

/// The length of a text before its first NUL, if it is [plain](is_plain) up to there.
#[inline(always)]
fn plain_len(text: &[u8; 16]) -> Option<usize> {
    let bits = |is: fn(u8) -> bool| text.iter().rev().fold(0u32, |bits, &b| bits << 1 | u32::from(is(b)));
    let len = bits(|b| b == 0).trailing_zeros().min(16);
    let special = bits(|b| is_special(b) != 0) & ((1 << len) - 1);
    (special == 0).then_some(len as usize)
}

/// Appends a JSON string. Bytes that are no UTF-8 become U+FFFD.
pub fn push_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    if is_plain(text) {
        push_start::<32>(out, text, text.len());
    } else {
        push_escaped(out, text);
    }
    out.push(b'"');
}

/// Appends the inside of a JSON string.
fn push_escaped(out: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        let mut plain = 0;
        let valid = chunk.valid().as_bytes();
        for (at, &b) in valid.iter().enumerate() {
            if matches!(b, 0xc2 | 0xe2)
                && let Some((c, len)) = hidden(valid.get(at..).unwrap_or_default())
            {
                out.extend_from_slice(valid.get(plain..at).unwrap_or_default());
                plain = at + len;
                out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
                continue;
            }
            if b >= b' ' && b != b'"' && b != b'\\' && b != 0x7f {
                continue;
            }
            out.extend_from_slice(valid.get(plain..at).unwrap_or_default());
            plain = at + 1;
            match b {
                b'"' => out.extend_from_slice(b"\\\""),
                b'\\' => out.extend_from_slice(b"\\\\"),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\t' => out.extend_from_slice(b"\\t"),
                _ => out.extend_from_slice(format!("\\u{b:04x}").as_bytes()),
            }
        }
        out.extend_from_slice(valid.get(plain..).unwrap_or_default());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// An event with all of its object that does not depend on the record.
#[derive(Clone, Debug)]
struct Shape<'a> {
    event: &'a Event,
    /// `TYPE,"system":"…","event":"…","fields":{`, behind `"common_type":`
    head: ShortText<128>,
    columns: Vec<Column>,
    /// Texts that a pen writes are JSON strings as they are.
    plain: bool,
    /// They are made of the record and of nothing else.
    own: bool,
}

impl<'a> Shape<'a> {
    fn new(dec: &Decoder, event: &'a Event) -> Self {
        let mut head = Vec::new();
        push_num(&mut head, event.id);
        head.extend_from_slice(b",\"system\":");
        push_string(&mut head, event.system.as_bytes());
        head.extend_from_slice(b",\"event\":");
        push_string(&mut head, event.name.as_bytes());
        head.extend_from_slice(b",\"fields\":{");
        let columns = event.fields.iter().enumerate().map(|(i, f)| Column::new(f, i == 0)).collect();
        let plain = dec.writes_plain_text(event);
        let own = dec.text_is_of_record(event);
        Shape { event, head: ShortText::new(&head), columns, plain, own }
    }
}

/// The events seen so far, by input and id.
#[derive(Debug, Default)]
struct Shapes<'a>(Vec<Vec<Option<Shape<'a>>>>);

impl<'a> Shapes<'a> {
    #[inline(always)]
    fn get(&mut self, stream: &'a Stream, data: &[u8]) -> Option<&Shape<'a>> {
        let at = usize::from(stream.dec.endian().u16(*data.first_chunk()?));
        if self.0.get(stream.input).and_then(|s| s.get(at)).is_none_or(Option::is_none) {
            self.learn(stream, at)?;
        }
        self.0.get(stream.input)?.get(at)?.as_ref()
    }

    #[cold]
    fn learn(&mut self, stream: &'a Stream, at: usize) -> Option<()> {
        let shape = Shape::new(&stream.dec, stream.dec.event(u16::try_from(at).ok()?)?);
        let shapes = self.0.get_mut(stream.input)?;
        if shapes.len() <= at {
            shapes.resize(at + 1, None);
        }
        *shapes.get_mut(at)? = Some(shape);
        Some(())
    }
}

/// The upper digits of times, which are the same for many.
#[derive(Debug, Default)]
struct Time {
    /// The time without its last six digits.
    millis: u64,
    text: ShortText,
}

impl Time {
    #[inline(always)]
    fn write(&mut self, pen: &mut Pen<'_>, ts: u64) {
        let (millis, rest) = (ts / 1_000_000, (ts % 1_000_000) as u32);
        if millis == 0 {
            return pen.dec(rest.into());
        }
        if millis != self.millis {
            self.change(millis);
        }
        pen.text(&self.text);
        pen.digits::<6>(rest);
    }

    #[cold]
    fn change(&mut self, millis: u64) {
        self.millis = millis;
        self.text = ShortText::new(millis.to_string().as_bytes());
    }
}

/// Numbers from this one on are kept: most are addresses, of which traces have the same ones over and over.
const LONG: u64 = 1_000_000_000_000;
/// How many are kept; a power of two.
const LONG_NUMBERS: usize = 256;

/// Long numbers printed last, and their digits.
struct LongNumbers(Box<[(u64, [u8; 20], u32); LONG_NUMBERS]>);

impl LongNumbers {
    fn new() -> Self {
        LongNumbers(Box::new([(0, [0; 20], 0); LONG_NUMBERS]))
    }

    /// Appends a number.
    #[inline(always)]
    fn write(&mut self, n: u64, pen: &mut Pen<'_>) {
        if n < LONG {
            return pen.dec(n);
        }
        let at = (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize % LONG_NUMBERS;
        match self.0.get_mut(at) {
            Some((number, digits, len)) if *number == n => pen.part(digits, *len as usize),
            slot => {
                let start = pen.at();
                pen.dec(n);
                if let Some(slot) = slot {
                    *slot = (n, [0; 20], (pen.at() - start) as u32);
                    slot.1.iter_mut().zip(pen.since(start)).for_each(|(to, digit)| *to = *digit);
                }
            }
        }
    }
}

/// What a part of a line is of that is the same for many lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HeadOf {
    stream: u32,
    cpu: u32,
    pid: i32,
    flags: u8,
    preempt: u8,
}

impl HeadOf {
    /// All of it as two numbers; the second one is never the largest.
    #[inline(always)]
    fn key(&self) -> (u64, u64) {
        let HeadOf { stream, cpu, pid, flags, preempt } = *self;
        let small = u64::from(flags) << 32 | u64::from(preempt) << 40;
        (u64::from(pid as u32) | u64::from(cpu) << 32, u64::from(stream) | small)
    }
}

/// Number of the heads that are kept; a power of two.
const HEADS: usize = 256;

/// From `,"cpu":` to `"common_type":`, of the lines printed last.
struct Heads(Box<[((u64, u64), ShortText<192>); HEADS]>);

impl Heads {
    fn new() -> Self {
        Heads(Box::new([const { ((u64::MAX, u64::MAX), ShortText::EMPTY) }; HEADS]))
    }

    #[inline(always)]
    fn place((a, b): (u64, u64)) -> usize {
        ((a ^ b.rotate_left(24)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize % HEADS
    }

    /// What is kept of this.
    #[inline(always)]
    #[allow(clippy::indexing_slicing, reason = "the index is cut to the length of the table")]
    fn get(&self, of: &HeadOf) -> Option<&ShortText<192>> {
        let slot = &self.0[Self::place(of.key())];
        if slot.0 == of.key() { Some(&slot.1) } else { None }
    }

    /// Appends it, and keeps it when it will be the same again. `origin`: what all lines of the stream have.
    #[cold]
    fn push(&mut self, stream: &Stream, origin: &[u8], of: HeadOf, line: &Line<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(b",\"cpu\":");
        push_num(out, of.cpu);
        out.extend_from_slice(origin);
        if let Some(extra) = line.extra {
            match extra.lost {
                Lost::None => {}
                Lost::Unknown => out.extend_from_slice(b",\"lost\":true"),
                Lost::Count(n) => {
                    out.extend_from_slice(b",\"lost\":");
                    push_num(out, n);
                }
            }
            if let Some(nanos) = extra.wakeup {
                out.extend_from_slice(b",\"wakeup_ns\":");
                push_num(out, nanos);
            }
        }
        let comm = stream.dec.comms().lookup(of.pid, line.seq);
        out.extend_from_slice(b",\"comm\":");
        push_string(out, comm.unwrap_or(UNKNOWN));
        out.extend_from_slice(b",\"pid\":");
        push_num(out, of.pid);
        out.extend_from_slice(b",\"flags\":\"");
        push_flags(out, of.flags, of.preempt);
        out.extend_from_slice(b"\",\"common_flags\":");
        push_num(out, of.flags);
        out.extend_from_slice(b",\"common_preempt_count\":");
        push_num(out, of.preempt);
        out.extend_from_slice(b",\"common_type\":");
        // Only a name that stays is kept: another one may be learnt later.
        let stays = comm.is_some() && !stream.dec.comms().may_change(of.pid) && line.extra.is_none();
        if let (true, Some(kept)) = (stays, self.0.get_mut(Self::place(of.key()))) {
            *kept = (of.key(), ShortText::new(out.get(start..).unwrap_or_default()));
        }
    }
}

/// Prints batches as JSON lines; one for each thread.
pub struct JsonPrinter<'a> {
    streams: &'a [Stream],
    shapes: Shapes<'a>,
    /// By stream: `,"buffer":"…"` and what else is the same for all its lines.
    origins: Vec<Vec<u8>>,
    heads: Heads,
    time: Time,
    long: LongNumbers,
    memo: Memo,
    sheet: Sheet,
    text: Vec<u8>,
}

/// So many bytes may wait in the middle of a line.
const LINE: usize = 4 << 10;

impl<'a> JsonPrinter<'a> {
    /// A printer for records of these streams; `files` are the names of the inputs, shown when there are several.
    pub fn new(streams: &'a [Stream], files: &[String]) -> Self {
        let origin = |s: &Stream| {
            let mut text = b",\"buffer\":".to_vec();
            push_string(&mut text, s.buffer.as_bytes());
            if let (true, Some(file)) = (files.len() > 1, files.get(s.input)) {
                text.extend_from_slice(b",\"file\":");
                push_string(&mut text, file.as_bytes());
            }
            text
        };
        JsonPrinter {
            streams,
            shapes: Shapes(vec![Vec::new(); files.len()]),
            origins: streams.iter().map(origin).collect(),
            heads: Heads::new(),
            time: Time::default(),
            long: LongNumbers::new(),
            memo: Memo::default(),
            sheet: Sheet::default(),
            text: Vec::new(),
        }
    }

    /// Appends a line behind what was written on the sheet before `at`; where the pen stands then.
    #[inline(always)]
    fn print_line(&mut self, line: &Line<'_>, at: usize, out: &mut Vec<u8>) -> usize {
        let streams = self.streams;
        let Some(stream) = streams.get(line.stream as usize) else { return at };
        let Record { cpu, data, .. } = line.rec;
        let mut pen = Pen::new(&mut self.sheet, at);
        if stream.time == TimeFormat::Count {
            pen.piece(b"{\"clock\":")
        } else {
            pen.piece(b"{\"ts\":")
        }
        self.time.write(&mut pen, line.ts);
        let shape = self.shapes.get(stream, data);
        let same = Of { stream: line.stream, cpu, data };
        let found = match shape {
            Some(shape) if shape.own && line.extra.is_none() => self.memo.write(same, &mut pen),
            _ => Found::Unknown,
        };
        let mut lines = Lines { pen, out };
        if found == Found::Yes {
            return lines.end();
        }
        let (pid, flags, preempt) = stream.common.read(data);
        let of = HeadOf { stream: line.stream, cpu, pid, flags, preempt };
        // What is kept begins behind the time, and all of it lies on the sheet.
        let (first, before) = (lines.pen.at(), lines.out.len());
        let stays = match self.heads.get(&of) {
            Some(head) if line.extra.is_none() => {
                lines.text(head);
                true
            }
            _ => {
                let origin = self.origins.get(line.stream as usize).map(Vec::as_slice);
                self.heads.push(stream, origin.unwrap_or_default(), of, line, lines.flush());
                false
            }
        };

        match shape {
            Some(shape) => {
                lines.text(&shape.head);
                for column in &shape.columns {
                    if lines.pen.at() > LINE {
                        lines.flush();
                    }
                    column.write(stream.dec.endian(), data, &mut self.long, &mut lines);
                }
                lines.pen.piece(b"},\"text\":\"");
                let (dec, event) = (&*stream.dec, shape.event);
                let (note, seq) = (line.note, line.seq);
                let cx = PrintCx { dec, event, rec: line.rec, reach: line.reach, ts: line.ts, note, seq };
                let mut pen = lines.pen.own();
                let start = pen.at();
                if dec.write_info(&cx, &mut pen) {
                    let newline = pen.since(start).last() == Some(&b'\n');
                    let end = pen.at() - usize::from(newline);
                    lines.pen.go_to(end);
                    if !shape.plain && !is_plain(lines.pen.since(start)) {
                        self.text.clear();
                        self.text.extend_from_slice(lines.pen.since(start));
                        lines.pen.go_to(start);
                        push_escaped(lines.flush(), &self.text);
                    }
                } else {
                    push_info(&cx, &mut lines, &mut self.text);
                }
                lines.pen.piece(b"\"}\n");
                if found == Found::No && stays && lines.out.len() == before {
                    self.memo.keep(same, lines.pen.since(first));
                }
            }
            None => {
                let out = lines.flush();
                push_num(out, data.first_chunk::<2>().map_or(0, |b| stream.dec.endian().u16(*b)));
                out.extend_from_slice(b",\"system\":null,\"event\":null,\"fields\":{},\"text\":null}\n");
            }
        }
        lines.end()
    }
}

/// Appends an event's text, which may be of any length, as the inside of a JSON string: a short one on the sheet, so that it can be kept.
#[inline(never)]
fn push_info(cx: &PrintCx<'_>, lines: &mut Lines<'_, '_>, text: &mut Vec<u8>) {
    text.clear();
    cx.dec.print_info(cx, text);
    if text.last() == Some(&b'\n') {
        text.pop();
    }
    match is_plain(text) {
        true if text.len() <= TEXT => lines.pen.bytes(text),
        true => lines.flush().extend_from_slice(text),
        false => push_escaped(lines.flush(), text),
    }
}

impl pipeline::Printer<Batch> for JsonPrinter<'_> {
    const GROWTH: u64 = 6;

    fn print(&mut self, batch: &Batch, out: &mut Vec<u8>) {
        let mut at = 0;
        for line in batch.lines() {
            at = self.print_line(&line, at, out);
        }
        self.finish(at, out);
    }
}

impl SlicePrinter for JsonPrinter<'_> {
    #[inline(always)]
    fn line(&mut self, line: &Line<'_>, at: usize, out: &mut Vec<u8>) -> usize {
        self.print_line(line, at, out)
    }

    fn finish(&mut self, end: usize, out: &mut Vec<u8>) {
        self.sheet.flush(end, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(type_text: &str, offset: usize, size: usize, element_size: usize, flags: FieldFlags) -> Field {
        Field { type_text: type_text.into(), name: "f".into(), offset, size, array_len: 0, element_size, flags }
    }

    fn value(field: Field, data: &[u8]) -> serde_json::Value {
        let (mut out, mut sheet) = (b"{".to_vec(), Sheet::default());
        let mut lines = Lines { pen: Pen::new(&mut sheet, 0), out: &mut out };
        Column::new(&field, true).write(Endian::Little, data, &mut LongNumbers::new(), &mut lines);
        lines.flush().push(b'}');
        serde_json::from_slice::<serde_json::Value>(&out).unwrap()["f"].take()
    }

    #[test]
    fn long_numbers_are_kept() {
        let (mut sheet, mut long) = (Sheet::default(), LongNumbers::new());
        for n in [0, LONG - 1, LONG, u64::MAX, 0xffff_ffff_81a0_0000].into_iter().chain((0..2000).map(|n| LONG * 3 + n))
        {
            for _ in 0..2 {
                let mut pen = Pen::new(&mut sheet, 0);
                long.write(n, &mut pen);
                assert_eq!(pen.since(0), n.to_string().as_bytes());
            }
        }
    }

    #[test]
    fn numbers() {
        let data = [0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4];
        assert_eq!(value(field("int", 0, 4, 4, FieldFlags::SIGNED), &data), -1);
        assert_eq!(value(field("u32", 0, 4, 4, FieldFlags::empty()), &data), u32::MAX);
        assert_eq!(value(field("u8", 4, 1, 1, FieldFlags::empty()), &data), 1);
        assert!(value(field("u64", 4, 8, 8, FieldFlags::empty()), &data).is_null());
    }

    #[test]
    fn arrays() {
        let data = [1, 0, 0xff, 0xff, b'h', b'i', 0, b'x'];
        let array = FieldFlags::ARRAY | FieldFlags::SIGNED;
        assert_eq!(value(field("short", 0, 4, 2, array), &data), serde_json::json!([1, -1]));
        let text = FieldFlags::ARRAY | FieldFlags::STRING;
        assert_eq!(value(field("char", 4, 4, 1, text), &data), "hi");
        assert_eq!(value(field("u8", 4, 4, 1, text), &data), serde_json::json!([104, 105, 0, 120]));
        // To the end of the record.
        assert_eq!(value(field("u8", 6, 0, 1, FieldFlags::ARRAY), &data), serde_json::json!([0, 120]));
    }

    #[test]
    fn dynamic_arrays_are_cut_at_the_end_of_the_record() {
        let loc = FieldFlags::ARRAY | FieldFlags::DYNAMIC | FieldFlags::STRING;
        let data = [4, 0, 3, 0, b'a', b'b', 0, 0];
        assert_eq!(value(field("__data_loc char[]", 0, 4, 1, loc), &data), "ab");
        let rel = FieldFlags::ARRAY | FieldFlags::RELATIVE | FieldFlags::STRING;
        let data = [1, 0, 0xff, 0xff, b'a', b'b', b'c', b'd'];
        assert_eq!(value(field("__rel_loc char[]", 0, 4, 1, rel), &data), "bcd");
        let data = [0xff, 0xff, 1, 0];
        assert_eq!(value(field("__data_loc u32[]", 0, 4, 4, loc), &data), serde_json::json!([]));
    }

    #[test]
    fn strings_are_valid_json_whatever_the_bytes() {
        let text = b"a\"b\\c\n\t\x1b\x7f\xff\xc3\xa4\xe2\x82";
        let mut out = Vec::new();
        push_string(&mut out, text);
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), "a\"b\\c\n\t\u{1b}\u{7f}\u{fffd}\u{e4}\u{fffd}");
        assert!(out.iter().all(|b| *b >= b' ' && *b != 0x7f));
        out.clear();
        push_string(&mut out, "a\u{9b}b\u{202e}c\u{2066}\u{20ac}\u{e9}\u{2028}".as_bytes());
        assert_eq!(String::from_utf8_lossy(&out), "\"a\\u009bb\\u202ec\\u2066\u{20ac}\u{e9}\u{2028}\"");
    }

    #[test]
    fn names_of_tasks() {
        let of = |text: &[u8; 16]| value(field("char", 0, 16, 1, FieldFlags::ARRAY | FieldFlags::STRING), text);
        assert_eq!(of(b"kworker/0:1\0\xff\"\\\0"), "kworker/0:1");
        assert_eq!(of(&[0; 16]), "");
        assert_eq!(of(b"sixteen letters!"), "sixteen letters!");
        assert_eq!(of(b"a\"b\0\0\0\0\0\0\0\0\0\0\0\0\0"), "a\"b");
        assert_eq!(of(b"\x01\xff23456789abcdef"), "\u{1}\u{fffd}23456789abcdef");
    }

    #[test]
    fn keys_of_any_length() {
        for len in [1, 27, 28, 29, 200] {
            let name = "n".repeat(len);
            let mut field = field("u32", 0, 4, 4, FieldFlags::empty());
            field.name.clone_from(&name);
            let (mut out, mut sheet) = (b"{\"a\":0".to_vec(), Sheet::default());
            let mut lines = Lines { pen: Pen::new(&mut sheet, 0), out: &mut out };
            Column::new(&field, false).write(Endian::Little, &[7, 0, 0, 0], &mut LongNumbers::new(), &mut lines);
            lines.flush().push(b'}');
            assert_eq!(serde_json::from_slice::<serde_json::Value>(&out).unwrap()[&name], 7);
        }
    }
}
