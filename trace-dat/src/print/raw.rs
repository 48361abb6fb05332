//! Records as raw fields: ` name=value` for each field, as `report -R` shows them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{
    Decoder, LongSize,
    format::{
        Event, Field, FieldFlags,
        expr::{Expr, FieldId},
        print_fmt::{PrintFmt, cast},
    },
    plugin::PrintCx,
    print::{
        eval::{Cx, Loc},
        printf::{self, Conv, Piece, Ptr, Spec, Star},
        program::{parse_fmt, symbol, until_nul},
    },
};

/// How the raw value of a field is written.
#[derive(Clone, Copy, Debug)]
enum Look {
    Text,
    Bytes,
    Pointer,
    /// `%p`, with the `0x` that stands in front of it in the print fmt.
    Plain {
        prefix: bool,
    },
    /// A symbol and its address in parentheses.
    Symbol {
        offset: bool,
    },
    /// A conversion of the print fmt, with the `0x` that stands in front of it there.
    Conv {
        spec: Spec,
        conv: u8,
        mask: u64,
        prefix: bool,
    },
    /// `%s` of a pointer: the text at that address in the printk formats, else hexadecimal.
    TextPointer,
    /// `0x` and hexadecimal.
    Hex,
    I32,
    /// `%2d`.
    I16,
    I8,
    I64,
    U64,
}

#[derive(Debug)]
struct RawField {
    /// ` name=`.
    label: Box<[u8]>,
    offset: u32,
    size: u32,
    loc: Option<Loc>,
    look: Look,
    /// A text field that once held something else counts as bytes from that record on: its position in the output.
    bytes_from: AtomicU64,
}

/// How the fields of an event are written.
#[derive(Debug)]
pub(crate) struct RawPlan {
    fields: Box<[RawField]>,
    texts: bool,
}

/// A conversion of the print fmt and the field it shows.
struct Shown {
    field: Option<FieldId>,
    /// What the casts around the field leave of it.
    mask: u64,
    spec: Spec,
    conv: Conv,
    prefix: bool,
    /// Nothing follows it in the format.
    last: bool,
}

/// The field an argument consists of, through casts, and what they leave of it.
fn only_field(e: &Expr) -> Option<(FieldId, u64)> {
    match e {
        Expr::Field(f) => f.map(|f| (f, u64::MAX)),
        Expr::Cast(ty, e) => only_field(e).map(|(f, mask)| (f, cast(ty, mask))),
        _ => None,
    }
}

fn shown(fmt: &PrintFmt) -> Vec<Shown> {
    let mut all = Vec::new();
    let mut args = fmt.args.iter();
    let mut prefix = false;
    let pieces = printf::pieces(fmt.format.as_bytes()).unwrap_or_default();
    let count = pieces.len();
    for (n, p) in pieces.into_iter().enumerate() {
        match p {
            Piece::Lit(l) => prefix = l.ends_with(b"0x"),
            Piece::Conv(spec, conv) => {
                if spec.star != Star::None {
                    args.next();
                }
                let arg = args.next().and_then(only_field);
                let (field, mask) = (arg.map(|a| a.0), arg.map_or(0, |a| a.1));
                all.push(Shown { field, mask, spec, conv, prefix, last: n + 1 == count });
                prefix = false;
            }
        }
    }
    all
}

impl RawPlan {
    fn new(dec: &Decoder, event: &Event) -> RawPlan {
        // The format of bprint is in its records.
        let known =
            if event.system == "ftrace" && event.name == "bprint" { Err(String::new()) } else { parse_fmt(dec, event) };
        let shown = known.map(|f| shown(&f)).unwrap_or_default();
        let mut at = 0;
        let fields: Box<[RawField]> = event
            .fields
            .iter()
            .enumerate()
            .map(|(n, f)| plan(f, FieldId(n as u16), &shown, &mut at, dec.long_size()))
            .collect();
        let texts = fields.iter().any(|f| matches!(f.look, Look::Text));
        RawPlan { fields, texts }
    }
}

fn plan(f: &Field, id: FieldId, shown: &[Shown], at: &mut usize, long: LongSize) -> RawField {
    let flags = f.flags;
    let mut look = if flags.contains(FieldFlags::ARRAY) {
        if flags.contains(FieldFlags::STRING) { Look::Text } else { Look::Bytes }
    } else if flags.contains(FieldFlags::POINTER) {
        Look::Pointer
    } else if flags.contains(FieldFlags::SIGNED) {
        match f.size {
            4 if flags.contains(FieldFlags::LONG) => Look::Hex,
            4 => Look::I32,
            2 => Look::I16,
            1 => Look::I8,
            _ => Look::I64,
        }
    } else if flags.contains(FieldFlags::LONG) {
        Look::Hex
    } else {
        Look::U64
    };
    if !flags.contains(FieldFlags::ARRAY) && *at != usize::MAX {
        // The search goes on behind the conversion that was used last and wraps round.
        let n = shown.len();
        if let Some(k) =
            (0..n).map(|k| (*at + k) % n.max(1)).find(|k| shown.get(*k).is_some_and(|s| s.field == Some(id)))
            && let Some(s) = shown.get(k)
        {
            // A search that ended at the very end of the format is not taken up again.
            *at = if s.last { usize::MAX } else { k + 1 };
            match s.conv {
                Conv::Num(conv) => look = Look::Conv { spec: s.spec, conv, mask: s.mask, prefix: s.prefix },
                Conv::Str if f.size == long.bytes() => look = Look::TextPointer,
                Conv::Ptr(Ptr::Plain) => look = Look::Plain { prefix: s.prefix },
                Conv::Ptr(Ptr::Symbol { offset }) => look = Look::Symbol { offset },
                _ => {}
            }
        }
    }
    let mut label = Vec::with_capacity(f.name.len() + 2);
    label.push(b' ');
    label.extend_from_slice(f.name.as_bytes());
    label.push(b'=');
    RawField {
        label: label.into(),
        offset: f.offset as u32,
        size: f.size as u32,
        loc: flags.contains(FieldFlags::DYNAMIC).then(|| Loc::of(f)),
        look,
        bytes_from: AtomicU64::new(u64::MAX),
    }
}

impl RawField {
    /// The bytes from the start of an array on, and those of the array. One of a fixed size may be declared longer than its record,
    /// and goes on behind it, as a text without NUL does.
    fn bytes<'a>(&self, cx: &Cx<'a>) -> (&'a [u8], &'a [u8]) {
        let (at, len) = match &self.loc {
            Some(loc) => loc.get(cx),
            None => (self.offset as usize, self.size as usize),
        };
        let rest = cx.reach.get(at..).unwrap_or_default();
        (rest, rest.get(..len).unwrap_or(rest))
    }
}

/// Letters, marks, blanks and the like up to the first NUL.
fn printable(b: &[u8]) -> bool {
    until_nul(b).iter().all(|c| matches!(c, 0x20..=0x7e | 9..=13))
}

fn plan_of<'a>(dec: &Decoder, event: &'a Event) -> &'a RawPlan {
    event.how.raw.get_or_init(|| RawPlan::new(dec, event))
}

/// Notes which text fields do not hold text in the record at this position.
pub(crate) fn visit(dec: &Decoder, event: &Event, data: &[u8], seq: u64) {
    let plan = plan_of(dec, event);
    if !plan.texts {
        return;
    }
    let cx = Cx::new(dec, data, data);
    for f in plan.fields.iter().filter(|f| matches!(f.look, Look::Text)) {
        if f.bytes_from.load(Relaxed) > seq && !printable(f.bytes(&cx).1) {
            f.bytes_from.fetch_min(seq, Relaxed);
        }
    }
}

/// Appends all fields of a record.
pub(crate) fn print(cx: &PrintCx<'_>, out: &mut Vec<u8>) {
    let (dec, event, seq) = (cx.dec, cx.event, cx.seq);
    let cx = Cx::new(dec, cx.rec.data, cx.reach);
    for f in &plan_of(dec, event).fields {
        out.extend_from_slice(&f.label);
        let v = || cx.load(f.offset, f.size);
        match f.look {
            Look::Text | Look::Bytes => {
                let (rest, b) = f.bytes(&cx);
                if matches!(f.look, Look::Text) && f.bytes_from.load(Relaxed) > seq {
                    if printable(b) {
                        // An array without a NUL runs on, as it does in C.
                        out.extend_from_slice(until_nul(rest));
                        continue;
                    }
                    f.bytes_from.fetch_min(seq, Relaxed);
                }
                out.extend_from_slice(b"ARRAY[");
                for (i, b) in b.iter().enumerate() {
                    if i > 0 {
                        out.extend_from_slice(b", ");
                    }
                    printf::hex2(out, *b);
                }
                out.push(b']');
            }
            Look::Pointer | Look::Hex => printf::hex0x(out, v()),
            Look::TextPointer => {
                let addr = cx.unswapped().load(f.offset, f.size);
                match dec.printk().get(addr) {
                    Some(t) => out.extend_from_slice(t),
                    None => printf::hex(out, addr),
                }
            }
            Look::Plain { prefix } => {
                if prefix {
                    out.extend_from_slice(b"0x");
                }
                printf::plain_pointer(out, v());
            }
            Look::Symbol { offset } => {
                let addr = v();
                if dec.symbols().find(addr).is_some() {
                    symbol(&cx, addr, offset, out);
                }
                out.extend_from_slice(b" (");
                printf::hex0x(out, addr);
                out.push(b')');
            }
            Look::Conv { spec, conv, mask, prefix } => {
                if prefix {
                    out.extend_from_slice(b"0x");
                }
                printf::number(out, v() & mask, conv, &spec);
            }
            Look::I32 => printf::idec(out, i64::from(v() as i32)),
            Look::I16 => {
                let two = Spec { width: 2, long: -1, ..Spec::default() };
                printf::number(out, v(), b'd', &two);
            }
            Look::I8 => printf::idec(out, i64::from(v() as i8)),
            Look::I64 => printf::idec(out, v() as i64),
            Look::U64 => printf::dec(out, v()),
        }
    }
}
