//! Records as JSON lines: one object for each event. What the members mean is said in docs/JSON.md.

use trace_dat::{
    Endian, Lost, Record,
    comm::UNKNOWN,
    format::{Event, Field, FieldFlags},
    plugin::PrintCx,
    short::{ShortText, push_start},
};

use crate::report::{
    batch::Batch,
    layout::{TimeFormat, push_digits, push_flags, push_num},
    line::Line,
    pipeline,
    stream::Stream,
};

/// What a value of a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unsigned,
    Signed,
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
            (false, true) => Kind::Signed,
            (false, false) => Kind::Unsigned,
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

    fn push(&self, endian: Endian, data: &[u8], out: &mut Vec<u8>) {
        self.key.push(out);
        match self.kind {
            Kind::Unsigned | Kind::Signed => {
                match endian.uint(data, self.offset, self.size) {
                    // Most numbers are small.
                    Some(n) if n < 10 => out.push(b'0' + n as u8),
                    Some(n) if n < 100 => push_digits::<2>(out, n as u32),
                    Some(n) if self.kind == Kind::Signed => push_num(out, sign_extend(n, self.size)),
                    Some(n) => push_num(out, n),
                    // Not in this record, or of a size that no number has.
                    None => out.extend_from_slice(b"null"),
                }
            }
            Kind::Text => {
                let bytes = self.bytes(endian, data);
                let end = memchr::memchr(0, bytes).unwrap_or(bytes.len());
                push_string(out, bytes.get(..end).unwrap_or_default());
            }
            Kind::Numbers { size, signed } => {
                out.push(b'[');
                let mut first = true;
                for element in self.bytes(endian, data).chunks_exact(size) {
                    if !first {
                        out.push(b',');
                    }
                    first = false;
                    let n = endian.uint(element, 0, size).unwrap_or(0);
                    if signed { push_num(out, sign_extend(n, size)) } else { push_num(out, n) }
                }
                out.push(b']');
            }
        }
    }
}

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

/// Whether the text is a JSON string as it is.
///
/// Nearly all texts are plain ASCII; the whole text is looked at without a branch, which compilers turn into vector code.
fn is_plain(text: &[u8]) -> bool {
    let special = |b: u8| (b < b' ') | (b == b'"') | (b == b'\\') | (b >= 0x7f);
    !text.iter().fold(false, |any, b| any | special(*b))
}

/// Appends a JSON string. Bytes that are no UTF-8 become U+FFFD.
pub fn push_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    if is_plain(text) {
        push_start::<32>(out, text, text.len());
        out.push(b'"');
        return;
    }
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
    out.push(b'"');
}

/// An event with all of its object that does not depend on the record.
#[derive(Clone, Debug)]
struct Shape<'a> {
    event: &'a Event,
    /// `TYPE,"system":"…","event":"…","fields":{`, behind `"common_type":`
    head: ShortText<96>,
    columns: Vec<Column>,
}

impl<'a> Shape<'a> {
    fn new(event: &'a Event) -> Self {
        let mut head = Vec::new();
        push_num(&mut head, event.id);
        head.extend_from_slice(b",\"system\":");
        push_string(&mut head, event.system.as_bytes());
        head.extend_from_slice(b",\"event\":");
        push_string(&mut head, event.name.as_bytes());
        head.extend_from_slice(b",\"fields\":{");
        let columns = event.fields.iter().enumerate().map(|(i, f)| Column::new(f, i == 0)).collect();
        Shape { event, head: ShortText::new(&head), columns }
    }
}

/// Prints batches as JSON lines; one for each thread.
pub struct JsonPrinter<'a> {
    streams: &'a [Stream],
    /// By input, then by event id.
    shapes: Vec<Vec<Option<Shape<'a>>>>,
    /// By stream: `,"buffer":"…"` and what else is the same for all its lines.
    origins: Vec<Vec<u8>>,
    /// By stream and CPU: `,"cpu":…` and what follows.
    places: Vec<Vec<ShortText<64>>>,
    time: Time,
    text: Vec<u8>,
    /// Texts of common fields, by input and their values.
    commons: Vec<Common>,
}

/// CPUs whose text is kept.
const PLACES: usize = 256;

/// The upper digits of times, which are the same for many.
#[derive(Debug, Default)]
struct Time {
    /// The time without its last six digits.
    millis: u64,
    text: ShortText,
}

impl Time {
    #[inline(always)]
    fn push(&mut self, out: &mut Vec<u8>, ts: u64) {
        let (millis, rest) = (ts / 1_000_000, (ts % 1_000_000) as u32);
        if millis == 0 {
            return push_num(out, rest);
        }
        if millis != self.millis {
            self.millis = millis;
            self.text = ShortText::new(millis.to_string().as_bytes());
        }
        self.text.push(out);
        push_digits::<6>(out, rest);
    }
}

/// Number of the texts that are kept; a power of two.
const COMMONS: usize = 256;

/// What a text is of, and the text.
type Common = (Option<(usize, (i32, u8, u8))>, ShortText<128>);

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
            shapes: vec![Vec::new(); files.len()],
            origins: streams.iter().map(origin).collect(),
            places: vec![Vec::new(); streams.len()],
            time: Time::default(),
            text: Vec::new(),
            commons: vec![(None, ShortText::EMPTY); COMMONS],
        }
    }

    fn shape(&mut self, stream: &'a Stream, data: &[u8]) -> Option<&Shape<'a>> {
        let id = stream.dec.endian().u16(*data.first_chunk::<2>()?);
        let shapes = self.shapes.get_mut(stream.input)?;
        let at = usize::from(id);
        if shapes.get(at).is_none_or(Option::is_none) {
            let shape = Shape::new(stream.dec.event(id)?);
            if shapes.len() <= at {
                shapes.resize(at + 1, None);
            }
            *shapes.get_mut(at)? = Some(shape);
        }
        shapes.get(at)?.as_ref()
    }

    /// Appends what the `common_*` fields say up to the number of `common_type`: the same text for many records of a task.
    fn push_common(&mut self, out: &mut Vec<u8>, stream: &Stream, common: (i32, u8, u8), seq: u64) {
        let (pid, flags, preempt) = common;
        let place = (pid as usize ^ usize::from(flags) << 3 ^ usize::from(preempt) << 4) % COMMONS;
        let key = (stream.input, common);
        if let Some(kept) = self.commons.get(place).filter(|c| c.0 == Some(key)) {
            kept.1.push(out);
            return;
        }
        let start = out.len();
        let comm = stream.dec.comms().lookup(pid, seq);
        out.extend_from_slice(b",\"comm\":");
        push_string(out, comm.unwrap_or(UNKNOWN));
        out.extend_from_slice(b",\"pid\":");
        push_num(out, pid);
        out.extend_from_slice(b",\"flags\":\"");
        push_flags(out, flags, preempt);
        out.extend_from_slice(b"\",\"common_flags\":");
        push_num(out, flags);
        out.extend_from_slice(b",\"common_preempt_count\":");
        push_num(out, preempt);
        out.extend_from_slice(b",\"common_type\":");
        // Only a name that stays is kept: another one may be learnt later.
        if let (Some(_), false, Some(kept)) = (comm, stream.dec.comms().may_change(pid), self.commons.get_mut(place)) {
            *kept = (Some(key), ShortText::new(out.get(start..).unwrap_or_default()));
        }
    }

    /// Appends CPU, buffer and file.
    #[inline(always)]
    fn push_place(&mut self, out: &mut Vec<u8>, stream: usize, cpu: u32) {
        let kept = self.places.get(stream).and_then(|p| p.get(cpu as usize)).filter(|text| !text.is_empty());
        match kept {
            Some(text) => text.push(out),
            None => self.push_new_place(out, stream, cpu),
        }
    }

    #[cold]
    fn push_new_place(&mut self, out: &mut Vec<u8>, stream: usize, cpu: u32) {
        let start = out.len();
        out.extend_from_slice(b",\"cpu\":");
        push_num(out, cpu);
        out.extend_from_slice(self.origins.get(stream).map(Vec::as_slice).unwrap_or_default());
        let at = cpu as usize;
        if let Some(places) = self.places.get_mut(stream).filter(|_| at < PLACES) {
            if places.len() <= at {
                places.resize(at + 1, ShortText::EMPTY);
            }
            if let Some(place) = places.get_mut(at) {
                *place = ShortText::new(out.get(start..).unwrap_or_default());
            }
        }
    }

    fn print_line(&mut self, line: &Line<'_>, out: &mut Vec<u8>) {
        let streams = self.streams;
        let Some(stream) = streams.get(line.stream as usize) else { return };
        let Record { cpu, data, .. } = line.rec;
        let (pid, flags, preempt) = stream.common.read(data);

        out.extend_from_slice(if stream.time == TimeFormat::Count { b"{\"clock\":" } else { b"{\"ts\":" });
        self.time.push(out, line.ts);
        self.push_place(out, line.stream as usize, cpu);
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
        self.push_common(out, stream, (pid, flags, preempt), line.seq);

        match self.shape(stream, data) {
            Some(shape) => {
                shape.head.push(out);
                for column in &shape.columns {
                    column.push(stream.dec.endian(), data, out);
                }
                let (dec, event) = (&*stream.dec, shape.event);
                let (note, seq) = (line.note, line.seq);
                let cx = PrintCx { dec, event, rec: line.rec, reach: line.reach, ts: line.ts, note, seq };
                out.extend_from_slice(b"},\"text\":\"");
                let start = out.len();
                dec.print_info(&cx, out);
                if out.len() > start && out.last() == Some(&b'\n') {
                    out.pop();
                }
                if is_plain(out.get(start..).unwrap_or_default()) {
                    out.push(b'"');
                } else {
                    self.text.clear();
                    self.text.extend_from_slice(out.get(start..).unwrap_or_default());
                    out.truncate(start - 1);
                    push_string(out, &self.text);
                }
            }
            None => {
                push_num(out, data.first_chunk::<2>().map_or(0, |b| stream.dec.endian().u16(*b)));
                out.extend_from_slice(b",\"system\":null,\"event\":null,\"fields\":{},\"text\":null");
            }
        }
        out.extend_from_slice(b"}\n");
    }
}

impl pipeline::Printer<Batch> for JsonPrinter<'_> {
    fn print(&mut self, batch: &Batch, out: &mut Vec<u8>) {
        for line in batch.lines() {
            self.print_line(&line, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(type_text: &str, offset: usize, size: usize, element_size: usize, flags: FieldFlags) -> Field {
        Field { type_text: type_text.into(), name: "f".into(), offset, size, array_len: 0, element_size, flags }
    }

    fn value(field: Field, data: &[u8]) -> serde_json::Value {
        let mut out = b"{".to_vec();
        Column::new(&field, true).push(Endian::Little, data, &mut out);
        out.push(b'}');
        serde_json::from_slice::<serde_json::Value>(&out).unwrap()["f"].take()
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
}
