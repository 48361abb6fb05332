//! A filter's expression, compiled for one event.

use std::io::Write;

use regex::bytes::{Regex, RegexBuilder};

use super::{
    bre,
    parse::{Arith, Cmp, Expr, Value},
};
use crate::{
    Decoder, Record,
    format::{Event, Field, FieldFlags},
    plugin::text::{Num, Text},
};

/// A record that is to be tested.
#[derive(Clone, Copy, Debug)]
pub struct Accept<'a> {
    /// Its machine.
    pub dec: &'a Decoder,
    /// The record.
    pub rec: &'a Record<'a>,
    /// Its position in the output.
    pub seq: u64,
}

/// A number of a record.
#[derive(Debug)]
pub(super) enum Number {
    Const(u64),
    Cpu,
    /// A field's place, and the bits that a signed one lacks to 64.
    Field(String, Num, u32),
    Arith(Arith, Box<Number>, Box<Number>),
    Not(Box<Number>),
}

/// Where a text comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// Name of the process that wrote the record.
    Comm(Num),
    /// A string field.
    Text(Text),
    /// An address: the name of the symbol it lies in, else in hex.
    Symbol(Num, u32),
    /// A number in hex.
    Hex(Num, u32),
}

/// What a text is compared with.
#[derive(Debug)]
pub(super) enum Pattern {
    Equal(Vec<u8>),
    Regex(Box<Regex>),
}

/// A test of one event's records.
#[derive(Debug)]
pub(super) enum Test {
    True,
    False,
    Not(Box<Test>),
    And(Box<Test>, Box<Test>),
    Or(Box<Test>, Box<Test>),
    Truth(Number),
    Cmp(Cmp, Number, Number),
    Text { field: String, source: Source, op: Cmp, text: String, pattern: Pattern },
}

/// A number of bits that is missing to 64 in a signed field, 0 for an unsigned one.
fn sign_bits(field: &Field) -> u32 {
    let narrow = matches!(field.size, 1 | 2 | 4) && field.flags.contains(FieldFlags::SIGNED);
    if narrow { 64 - 8 * field.size as u32 } else { 0 }
}

#[inline]
fn extend(value: u64, bits: u32) -> u64 {
    ((value << bits) as i64 >> bits) as u64
}

impl Test {
    /// Compiles an expression; what tests a field that the event does not have is false.
    pub(super) fn compile(expr: &Expr, event: &Event) -> Result<Test, String> {
        Ok(match expr {
            Expr::True => Test::True,
            Expr::Not(e) => match Test::compile(e, event)? {
                Test::True => Test::False,
                Test::False => Test::True,
                t => Test::Not(Box::new(t)),
            },
            Expr::And(a, b) => match (Test::compile(a, event)?, Test::compile(b, event)?) {
                (Test::False, _) | (_, Test::False) => Test::False,
                (Test::True, t) | (t, Test::True) => t,
                (a, b) => Test::And(Box::new(a), Box::new(b)),
            },
            Expr::Or(a, b) => match (Test::compile(a, event)?, Test::compile(b, event)?) {
                (Test::True, _) | (_, Test::True) => Test::True,
                (Test::False, t) | (t, Test::False) => t,
                (a, b) => Test::Or(Box::new(a), Box::new(b)),
            },
            Expr::Truth(v) => Number::compile(v, event).map_or(Test::False, Test::Truth),
            Expr::Cmp(op, a, b) => {
                if let (Value::Field(name), Value::Num(n)) = (a, b)
                    && let Some(t) = Test::one_character(name, *op, *n, event)
                {
                    return Ok(t);
                }
                match (Number::compile(a, event), Number::compile(b, event)) {
                    (Some(a), Some(b)) => Test::Cmp(*op, a, b),
                    _ => Test::False,
                }
            }
            Expr::Text(field, op, text) => Test::text(field, *op, text, event)?,
        })
    }

    /// `'x'` beside a string field is a text of one character.
    fn one_character(field: &str, op: Cmp, n: u64, event: &Event) -> Option<Test> {
        let string =
            if field == "COMM" { event.field(field).is_none() } else { event.field(field).is_some_and(is_text) };
        let c = u32::try_from(n).ok().and_then(char::from_u32).filter(|c| *c > ' ')?;
        if !string || !matches!(op, Cmp::Eq | Cmp::Ne) {
            return None;
        }
        Test::text(field, op, &c.to_string(), event).ok()
    }

    fn text(field: &str, op: Cmp, text: &str, event: &Event) -> Result<Test, String> {
        let source = match event.field(field) {
            Some(f) if is_text(f) => Text::of(event, field).map(Source::Text),
            Some(f) => {
                let (num, bits) = (Num { offset: f.offset, size: f.size }, sign_bits(f));
                let address = f.flags.intersects(FieldFlags::POINTER | FieldFlags::LONG);
                Some(if address { Source::Symbol(num, bits) } else { Source::Hex(num, bits) })
            }
            None if field == "COMM" => Num::of(event, "common_pid").map(Source::Comm),
            None => None,
        };
        let pattern = if matches!(op, Cmp::Match | Cmp::NotMatch) {
            let bad = |why: &str| format!("{text:?} {why}");
            let translated = bre::translate(text).map_err(|e| bad(e.1))?;
            let mut builder = RegexBuilder::new(&translated);
            builder.case_insensitive(true).unicode(false).dot_matches_new_line(true);
            Pattern::Regex(Box::new(builder.build().map_err(|_| bad("is no regular expression"))?))
        } else {
            Pattern::Equal(text.replace("\\\"", "\"").into_bytes())
        };
        let (field, text) = (field.to_owned(), text.to_owned());
        Ok(source.map_or(Test::False, |source| Test::Text { field, source, op, text, pattern }))
    }

    /// Tests a record.
    pub(super) fn run(&self, cx: &Accept<'_>) -> bool {
        match self {
            Test::True => true,
            Test::False => false,
            Test::Not(t) => !t.run(cx),
            Test::And(a, b) => a.run(cx) && b.run(cx),
            Test::Or(a, b) => a.run(cx) || b.run(cx),
            Test::Truth(n) => n.get(cx) != 0,
            Test::Cmp(op, a, b) => op.apply(a.get(cx), b.get(cx)),
            Test::Text { source, op, pattern, .. } => {
                let same = source.with(cx, |text| match pattern {
                    Pattern::Equal(t) => t == text,
                    Pattern::Regex(r) => r.is_match(text),
                });
                same == matches!(op, Cmp::Eq | Cmp::Match)
            }
        }
    }

    /// Appends the test as text, in the reference's layout.
    pub(super) fn describe(&self, out: &mut Vec<u8>) {
        let pair = |a: &Test, op: &[u8], b: &Test, out: &mut Vec<u8>| {
            out.push(b'(');
            a.describe(out);
            out.extend_from_slice(op);
            b.describe(out);
            out.push(b')');
            Ok(())
        };
        let _ = match self {
            Test::True => out.write_all(b"TRUE"),
            Test::False => out.write_all(b"FALSE"),
            Test::Not(t) => {
                out.extend_from_slice(b"!(");
                t.describe(out);
                out.write_all(b")")
            }
            Test::And(a, b) => pair(a, b") && (", b, out),
            Test::Or(a, b) => pair(a, b") || (", b, out),
            Test::Truth(n) => {
                n.describe(out, false);
                Ok(())
            }
            Test::Cmp(op, a, b) => {
                a.describe(out, true);
                let _ = write!(out, " {} ", op.symbol());
                b.describe(out, true);
                Ok(())
            }
            Test::Text { field, op, text, .. } => write!(out, "{field} {} \"{text}\"", op.symbol()),
        };
    }
}

fn is_text(field: &Field) -> bool {
    field.flags.contains(FieldFlags::STRING)
}

impl Number {
    /// `None` when the event lacks a field.
    fn compile(value: &Value, event: &Event) -> Option<Number> {
        let two =
            |a: &Value, b: &Value| Some((Box::new(Number::compile(a, event)?), Box::new(Number::compile(b, event)?)));
        Some(match value {
            Value::Num(n) => Number::Const(*n),
            Value::Field(name) => match event.field(name) {
                Some(f) => Number::Field(name.clone(), Num { offset: f.offset, size: f.size }, sign_bits(f)),
                None if name == "CPU" => Number::Cpu,
                None => return None,
            },
            Value::Arith(op, a, b) => {
                let (a, b) = two(a, b)?;
                Number::Arith(*op, a, b)
            }
            Value::Not(v) => Number::Not(Box::new(Number::compile(v, event)?)),
        })
    }

    #[inline]
    fn get(&self, cx: &Accept<'_>) -> u64 {
        match self {
            Number::Const(n) => *n,
            Number::Cpu => u64::from(cx.rec.cpu),
            Number::Field(_, num, bits) => extend(num.get(cx.dec.endian(), cx.rec.data), *bits),
            Number::Arith(op, a, b) => op.apply(a.get(cx), b.get(cx)),
            Number::Not(n) => !n.get(cx),
        }
    }

    fn describe(&self, out: &mut Vec<u8>, inner: bool) {
        let _ = match self {
            Number::Const(n) => write!(out, "{}", *n as i64),
            Number::Cpu => out.write_all(b"CPU"),
            Number::Field(name, ..) => out.write_all(name.as_bytes()),
            Number::Arith(op, a, b) => {
                if inner {
                    out.push(b'(');
                }
                a.describe(out, true);
                let _ = write!(out, " {} ", op.symbol());
                b.describe(out, true);
                if inner {
                    out.push(b')');
                }
                Ok(())
            }
            Number::Not(n) => {
                out.push(b'~');
                n.describe(out, true);
                Ok(())
            }
        };
    }
}

impl Source {
    #[allow(clippy::indexing_slicing, reason = "a table of 16 digits, and four bits")]
    fn with(&self, cx: &Accept<'_>, test: impl FnOnce(&[u8]) -> bool) -> bool {
        let (endian, data) = (cx.dec.endian(), cx.rec.data);
        let number = |num: &Num, bits: u32| extend(num.get(endian, data), bits);
        let hex = |value: u64, test: &mut dyn FnMut(&[u8]) -> bool| {
            let mut text = [0u8; 18];
            let mut rest = value;
            let digits = (64 - value.leading_zeros()).div_ceil(4).max(1) as usize;
            for b in text.iter_mut().take(2 + digits).skip(2).rev() {
                *b = b"0123456789abcdef"[(rest & 15) as usize];
                rest >>= 4;
            }
            text[..2].copy_from_slice(b"0x");
            test(text.get(..2 + digits).unwrap_or_default())
        };
        let mut test = Some(test);
        let mut once = |text: &[u8]| test.take().is_some_and(|t| t(text));
        match self {
            Source::Comm(pid) => once(cx.dec.comms().get(pid.get(endian, data) as i32, cx.seq)),
            Source::Text(text) => once(text.text(endian, data)),
            Source::Hex(num, bits) => hex(number(num, *bits), &mut once),
            Source::Symbol(num, bits) => {
                let addr = number(num, *bits);
                match cx.dec.symbols().find(addr) {
                    Some(s) => once(s.name),
                    None => hex(addr, &mut once),
                }
            }
        }
    }
}
