//! Events of the function_graph tracer: `funcgraph_entry`, `fgraph_retaddr_entry`, `funcgraph_exit`.
//!
//! An entry that is directly followed by its exit is a leaf and takes both in one line; the sequential pass finds that out.

use super::{
    EventPrinter, PrintCx,
    function::print_args,
    options::Fgraph,
    text::{Num, blanks, dec, hex, hex0x, missing},
};
use crate::{Decoder, decoder::PrintOptions, format::Event, pen::Pen};

/// Indentation never grows beyond this; the kernel's own limit of nesting is far lower.
const MAX_INDENT: i32 = 4096;

/// Columns of mark, duration and bar of a line without a duration.
const NO_DURATION: &[u8; 16] = b"             |  ";

/// Fields of `funcgraph_exit` that both a leaf and an exit line show.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exit {
    func: Option<Num>,
    depth: Option<Num>,
    calltime: Option<Num>,
    rettime: Option<Num>,
    retval: Option<Num>,
}

impl Exit {
    fn new(event: &Event) -> Self {
        let num = |name| Num::of(event, name);
        Exit {
            func: num("func"),
            depth: num("depth"),
            calltime: num("calltime"),
            rettime: num("rettime"),
            retval: num("retval"),
        }
    }

    /// Appends mark, duration and bar. False when a time is missing.
    fn print_duration(&self, dec: &Decoder, data: &[u8], out: &mut Vec<u8>) -> bool {
        for (field, name) in [(self.rettime, "rettime"), (self.calltime, "calltime")] {
            if field.is_none() {
                missing(name, out);
                return false;
            }
        }
        let get = |n: Option<Num>| n.map_or(0, |n| n.get(dec.endian(), data));
        duration(get(self.rettime).wrapping_sub(get(self.calltime)), out);
        true
    }

    /// The duration, if it has a fixed width; what the record says otherwise is left to [`Exit::print_duration`].
    #[inline(always)]
    fn short_duration(&self, dec: &Decoder, data: &[u8]) -> Option<u32> {
        let (end, start) = (self.rettime?.get(dec.endian(), data), self.calltime?.get(dec.endian(), data));
        u32::try_from(end.wrapping_sub(start)).ok().filter(|ns| *ns < MILLISECOND)
    }

    /// As [`Exit::print_retval`].
    #[inline(always)]
    fn write_retval(&self, options: &Fgraph, dec: &Decoder, data: &[u8], pen: &mut Pen<'_>) {
        let Some(retval) = self.retval.filter(|_| !options.retval_skip) else { return };
        let value = retval.get(dec.endian(), data);
        pen.piece(b" (ret=");
        if is_decimal(options, value) {
            pen.signed_dec(value as i64);
        } else {
            pen.hex0x(value);
        }
        pen.byte(b')');
    }

    fn print_retval(&self, options: &Fgraph, dec: &Decoder, data: &[u8], out: &mut Vec<u8>) {
        let Some(retval) = self.retval.filter(|_| !options.retval_skip) else { return };
        let value = retval.get(dec.endian(), data);
        out.extend_from_slice(b" (ret=");
        if is_decimal(options, value) {
            super::text::dec(out, value as i64);
        } else {
            hex0x(out, value);
        }
        out.push(b')');
    }
}

/// Whether a return value is shown in base 10.
fn is_decimal(options: &Fgraph, value: u64) -> bool {
    let error = value as i64 >= -4095 && (value as i64) < 0;
    options.retval_dec || (error && !options.retval_hex)
}

/// Durations below this have the same width.
const MILLISECOND: u32 = 1_000_000;

/// Appends the mark of a duration in nanoseconds, the duration in microseconds, and the bar.
#[inline]
fn duration(ns: u64, out: &mut Vec<u8>) {
    match u32::try_from(ns) {
        Ok(ns @ ..MILLISECOND) => out.extend_from_slice(&below_a_millisecond(ns)),
        _ => long_duration(ns, out),
    }
}

/// The three digits of the numbers below 1000, the first one lowest.
static DIGITS: [u32; 1000] = digits();

#[allow(clippy::indexing_slicing, reason = "done by the compiler")]
const fn digits() -> [u32; 1000] {
    let mut all = [0; 1000];
    let mut n = 0;
    while n < 1000 {
        all[n as usize] = (n / 100) | (n / 10 % 10) << 8 | (n % 10) << 16 | 0x30_3030;
        n += 1;
    }
    all
}

/// What [`duration`] appends for less than a million nanoseconds: always 16 bytes, made in one register.
#[inline(always)]
fn below_a_millisecond(ns: u32) -> [u8; 16] {
    /// What stands behind one, two and three digits in front of the point.
    const REST: [u128; 3] = [rest(1), rest(2), rest(3)];
    #[allow(clippy::indexing_slicing, reason = "done by the compiler")]
    const fn rest(digits: usize) -> u128 {
        let mut text = *b"\0\0\0\0\0\0\0\0\0\0   |  ";
        text[2 + digits + 4] = b' ';
        text[2 + digits + 5] = b'u';
        text[2 + digits + 6] = b's';
        u128::from_le_bytes(text)
    }
    let (whole, part) = (ns / 1000, ns % 1000);
    let digits = |n: u32| DIGITS.get(n as usize).map_or(0, |d| u64::from(*d));
    let unused = if whole >= 100 { 0 } else { 1 + u32::from(whole < 10) };
    let number = (digits(whole) | (b'.' as u64) << 24 | digits(part) << 32) >> (8 * unused);
    let mark = match ns {
        100_001.. => b'!',
        10_001.. => b'+',
        _ => b' ',
    };
    let rest = REST.get(2 - unused as usize).copied().unwrap_or(0);
    (rest | u128::from(number) << 16 | u128::from(mark) | u128::from(b' ') << 8).to_le_bytes()
}

#[cold]
fn long_duration(ns: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(match ns {
        u64::MAX => b"  ",
        1_000_000_001.. => b"$ ",
        1_000_001.. => b"# ",
        100_001.. => b"! ",
        10_001.. => b"+ ",
        _ => b"  ",
    });
    let start = out.len();
    dec(out, ns / 1000);
    if out.len() - start < 7 {
        let rest = (ns % 1000) as u16;
        let digit = |n: u16| b'0' + (n % 10) as u8;
        out.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
    }
    let used = out.len() - start;
    out.extend_from_slice(b" us ");
    blanks(out, 7usize.saturating_sub(used));
    out.extend_from_slice(b"|  ");
}

fn indent(depth: u64, out: &mut Vec<u8>) {
    let columns = (depth.wrapping_mul(2) as i32).clamp(0, MAX_INDENT);
    blanks(out, columns as usize);
}

/// Texts with a longer name or deeper than this are not written with a pen.
const MOST: usize = 512;

/// The columns of an indentation, if they are few.
#[inline(always)]
fn short_indent(depth: u64) -> Option<usize> {
    let columns = depth.wrapping_mul(2) as i32;
    usize::try_from(columns.max(0)).ok().filter(|n| *n <= MOST)
}

fn print_depth(options: &Fgraph, depth: u64, out: &mut Vec<u8>) {
    if options.depth {
        out.extend_from_slice(b" (");
        dec(out, depth as i64);
        out.push(b')');
    }
}

/// `funcgraph_entry` and `fgraph_retaddr_entry`.
#[derive(Debug)]
pub(super) struct Entry {
    func: Option<Num>,
    depth: Option<Num>,
    retaddr: Option<Num>,
    /// Where the arguments begin.
    args: Option<usize>,
    exit: Option<Exit>,
    options: Fgraph,
}

impl Entry {
    pub(super) fn new(dec: &Decoder, event: &Event) -> Self {
        let num = |name| Num::of(event, name);
        Entry {
            func: num("func"),
            depth: num("depth"),
            retaddr: num("retaddr"),
            args: num("args").map(|a| a.offset),
            exit: dec.find_event(Some("ftrace"), "funcgraph_exit").map(Exit::new),
            options: Fgraph::new(dec.options()),
        }
    }

    /// Appends `func(args)`; of a function without a name the address and `()`.
    #[inline]
    fn print_call(&self, cx: &PrintCx<'_>, func: u64, out: &mut Vec<u8>) {
        match cx.dec.symbols().name_at(func) {
            Some(name) => {
                name.push(out);
                out.push(b'(');
                if let Some(args) = self.args.and_then(|at| cx.rec.data.get(at..)) {
                    print_args(cx.dec, name.bytes(), args, out);
                }
                out.push(b')');
            }
            None => {
                hex(out, func);
                out.extend_from_slice(b"()");
            }
        }
    }

    /// Appends ` /* <-caller */` when the entry has a return address that lies in a known function.
    fn print_caller(&self, cx: &PrintCx<'_>, out: &mut Vec<u8>) {
        let addr = self.retaddr.map(|r| r.get(cx.dec.endian(), cx.rec.data));
        if let Some(name) = addr.and_then(|a| cx.dec.symbols().name_at(a)) {
            out.extend_from_slice(b" /* <-");
            name.push(out);
            out.extend_from_slice(b" */");
        }
    }
}

impl EventPrinter for Entry {
    fn write(&self, cx: &PrintCx<'_>, pen: &mut Pen<'_>) -> bool {
        let (endian, data) = (cx.dec.endian(), cx.rec.data);
        let (Some(func), Some(depth)) = (self.func, self.depth) else { return false };
        let Some(columns) = short_indent(depth.get(endian, data)) else { return false };
        if self.args.is_some() {
            cx.dec.read_functions();
        }
        let Some(name) = cx.dec.symbols().name_at(func.get(endian, data)).filter(|n| n.len() <= MOST) else {
            return false;
        };
        // Arguments may be of any length, and the types may have some where the record has none.
        let args = self.args.and_then(|at| data.get(at..)).is_some_and(|a| !a.is_empty() || cx.dec.btf().is_some());
        if args || self.retaddr.is_some() || self.options.depth || !pen.has_room(4 * MOST) {
            return false;
        }
        let mut own = pen.own();
        match cx.note.leaf_exit.as_ref().zip(self.exit.as_ref()) {
            Some((rec, exit)) => {
                let Some(ns) = exit.short_duration(cx.dec, rec.data) else { return false };
                own.piece(&below_a_millisecond(ns));
                own.blanks(columns);
                own.start::<32>(name.behind(), name.len());
                own.piece(b"();");
                exit.write_retval(&self.options, cx.dec, rec.data, &mut own);
            }
            None => {
                own.piece(NO_DURATION);
                own.blanks(columns);
                own.start::<32>(name.behind(), name.len());
                own.piece(b"() {");
            }
        }
        let at = own.at();
        pen.go_to(at);
        true
    }

    fn writes_symbols(&self) -> bool {
        true
    }

    fn is_free_of_nul(&self) -> bool {
        self.func.is_some()
    }

    fn print(&self, cx: &PrintCx<'_>, out: &mut Vec<u8>) {
        let (endian, data) = (cx.dec.endian(), cx.rec.data);
        let Some(func) = self.func else {
            missing("func", out);
            out.push(b'!');
            return cx.dec.print_fmt(cx, out);
        };
        let func = func.get(endian, data);
        let leaf = cx.note.leaf_exit.as_ref().zip(self.exit.as_ref());
        match leaf {
            Some((rec, exit)) => {
                if !exit.print_duration(cx.dec, rec.data, out) {
                    return out.push(b'!');
                }
            }
            None => out.extend_from_slice(NO_DURATION),
        }
        let Some(depth) = self.depth else {
            missing("depth", out);
            return out.push(b'!');
        };
        let depth = depth.get(endian, data);
        indent(depth, out);
        self.print_call(cx, func, out);
        if let Some((rec, exit)) = leaf {
            out.push(b';');
            print_depth(&self.options, depth, out);
            self.print_caller(cx, out);
            exit.print_retval(&self.options, cx.dec, rec.data, out);
        } else {
            self.print_caller(cx, out);
            out.extend_from_slice(b" {");
            print_depth(&self.options, depth, out);
        }
    }
}

/// `funcgraph_exit` of a function that had other records inside.
#[derive(Debug)]
pub(super) struct ExitLine {
    fields: Exit,
    options: Fgraph,
}

impl ExitLine {
    pub(super) fn new(event: &Event, options: &PrintOptions) -> Self {
        ExitLine { fields: Exit::new(event), options: Fgraph::new(options) }
    }
}

impl EventPrinter for ExitLine {
    fn write(&self, cx: &PrintCx<'_>, pen: &mut Pen<'_>) -> bool {
        let (endian, data) = (cx.dec.endian(), cx.rec.data);
        let (Some(ns), Some(depth)) = (self.fields.short_duration(cx.dec, data), self.fields.depth) else {
            return false;
        };
        let Some(columns) = short_indent(depth.get(endian, data)) else { return false };
        if self.options.tailprint || self.options.depth || !pen.has_room(2 * MOST) {
            return false;
        }
        let mut own = pen.own();
        own.piece(&below_a_millisecond(ns));
        own.blanks(columns);
        own.byte(b'}');
        self.fields.write_retval(&self.options, cx.dec, data, &mut own);
        let at = own.at();
        pen.go_to(at);
        true
    }

    fn writes_symbols(&self) -> bool {
        true
    }

    fn is_free_of_nul(&self) -> bool {
        !self.options.tailprint
    }

    fn print(&self, cx: &PrintCx<'_>, out: &mut Vec<u8>) {
        let (endian, data) = (cx.dec.endian(), cx.rec.data);
        if !self.fields.print_duration(cx.dec, data, out) {
            return out.push(b'!');
        }
        let Some(depth) = self.fields.depth else {
            missing("depth", out);
            return out.push(b'!');
        };
        let depth = depth.get(endian, data);
        indent(depth, out);
        out.push(b'}');
        if self.options.tailprint {
            let Some(func) = self.fields.func else {
                return missing("func", out);
            };
            let Some(name) = cx.dec.symbols().name_at(func.get(endian, data)) else { return };
            out.extend_from_slice(b" /* ");
            name.push(out);
            out.extend_from_slice(b" */");
        }
        print_depth(&self.options, depth, out);
        self.fields.print_retval(&self.options, cx.dec, data, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (ns, want) in [
            (0, "  0.000 us   |  "),
            (9_999, "  9.999 us   |  "),
            (10_000, "  10.000 us  |  "),
            (10_001, "+ 10.001 us  |  "),
            (100_000, "+ 100.000 us |  "),
            (100_001, "! 100.001 us |  "),
            (1_000_001, "# 1000.001 us |  "),
            (999_999, "! 999.999 us |  "),
            (1_000_000, "! 1000.000 us |  "),
            (99_999, "+ 99.999 us  |  "),
            (123, "  0.123 us   |  "),
            (999_999_999, "# 999999.999 us |  "),
            (1_000_000_000, "# 1000000 us |  "),
            (1_234_567_891_234, "$ 1234567891 us |  "),
            (u64::MAX, "  18446744073709551 us |  "),
        ] {
            let mut out = Vec::new();
            duration(ns, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
    }
}
