//! Events to text: compiled print formats, printf, helpers.

mod bprint;
mod eval;
mod helper;
pub(crate) mod printf;
mod program;
mod raw;

use std::sync::OnceLock;

pub use helper::{Arg, ArgKind, Helper, HelperCx};

use crate::{
    Decoder,
    format::Event,
    pen::Pen,
    plugin::{EventPrinter, PrintCx},
};

use self::{eval::Cx, program::Program, raw::RawPlan};

/// What prints the last column of an event.
#[derive(Debug)]
enum Mode {
    Raw,
    Plugin {
        printer: Box<dyn EventPrinter>,
        /// Whether its texts may have a NUL in them.
        nul: bool,
    },
    Fmt,
}

/// How an event is printed: decided once, when its first record is.
#[derive(Debug, Default)]
pub(crate) struct How {
    mode: OnceLock<Mode>,
    program: OnceLock<Program>,
    raw: OnceLock<RawPlan>,
}

/// The event belongs to one of these, by its name or its system.
fn chosen(list: &[regex::Regex], event: &Event) -> bool {
    list.iter().any(|r| r.is_match(&event.name) || r.is_match(&event.system))
}

fn mode<'a>(dec: &Decoder, event: &'a Event) -> &'a Mode {
    event.how.mode.get_or_init(|| {
        let o = dec.options();
        if o.raw || chosen(&o.raw_events, event) {
            return Mode::Raw;
        }
        if !o.no_plugins
            && !chosen(&o.no_plugin_events, event)
            && let Some(p) = crate::plugin::printer_for(dec, event)
        {
            return Mode::Plugin { nul: !p.is_free_of_nul(), printer: p };
        }
        Mode::Fmt
    })
}

fn program<'a>(dec: &Decoder, event: &'a Event) -> &'a Program {
    event.how.program.get_or_init(|| Program::compile(dec, event))
}

/// Prints the last column of a record.
pub(crate) fn info(cx: &PrintCx<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    match mode(cx.dec, cx.event) {
        Mode::Fmt => match program(cx.dec, cx.event) {
            Program::Numbers(numbers) => return numbers.print(&Cx::new(cx.dec, cx.rec.data, cx.reach), out),
            Program::Ops { ops, nul: false, .. } => {
                return program::run(ops, &Cx::new(cx.dec, cx.rec.data, cx.reach), out);
            }
            _ => pretty(cx, out),
        },
        Mode::Plugin { printer, nul: false } => return printer.print(cx, out),
        Mode::Plugin { printer, .. } => printer.print(cx, out),
        Mode::Raw => raw::print(cx, out),
    }
    // A NUL ends the text, as it does in C.
    if let Some(n) = out.get(start..).and_then(|s| memchr::memchr(0, s)) {
        out.truncate(start + n);
    }
}

/// As [`info`] where it is known that the text is short and has no NUL in it. False, with nothing written, where not.
#[inline]
pub(crate) fn write(cx: &PrintCx<'_>, pen: &mut Pen<'_>) -> bool {
    match mode(cx.dec, cx.event) {
        Mode::Fmt => match program(cx.dec, cx.event) {
            Program::Numbers(numbers) => numbers.write(&Cx::new(cx.dec, cx.rec.data, cx.reach), pen),
            Program::Ops { ops, pen: true, .. } => program::write(ops, &Cx::new(cx.dec, cx.rec.data, cx.reach), pen),
            _ => false,
        },
        Mode::Plugin { printer, nul: false } => printer.write(cx, pen),
        _ => false,
    }
}

/// Whether [`write`] writes nothing but printable ASCII without quotation marks and backslashes for an event.
pub(crate) fn is_plain(dec: &Decoder, event: &Event) -> bool {
    match mode(dec, event) {
        Mode::Raw => false,
        Mode::Plugin { printer, .. } => printer.writes_symbols() && dec.symbols().are_plain(),
        Mode::Fmt => match program(dec, event) {
            Program::Numbers(numbers) => numbers.texts().all(crate::plain::is_plain),
            _ => false,
        },
    }
}

/// Whether an event's text is made of the record's bytes and of nothing else.
pub(crate) fn text_is_of_record(dec: &Decoder, event: &Event) -> bool {
    match mode(dec, event) {
        Mode::Plugin { printer, .. } => printer.is_of_record(),
        Mode::Raw => false,
        Mode::Fmt => match program(dec, event) {
            Program::Numbers(numbers) => numbers.are_of_record(),
            Program::Ops { ops, .. } => ops.iter().all(program::Op::is_of_record),
            Program::Bprint(_) | Program::Failed(_) => false,
        },
    }
}

/// Prints a record by its print fmt.
pub(crate) fn pretty(cx: &PrintCx<'_>, out: &mut Vec<u8>) {
    match program(cx.dec, cx.event) {
        Program::Numbers(numbers) => numbers.print(&Cx::new(cx.dec, cx.rec.data, cx.reach), out),
        Program::Ops { ops, .. } => program::run(ops, &Cx::new(cx.dec, cx.rec.data, cx.reach), out),
        Program::Bprint(b) => b.print(&Cx::new(cx.dec, cx.rec.data, cx.reach), out),
        Program::Failed(_) => {
            out.extend_from_slice(b"[FAILED TO PARSE]");
            raw::print(cx, out);
        }
    }
}

/// Prints a record as raw fields.
pub(crate) fn raw_fields(cx: &PrintCx<'_>, out: &mut Vec<u8>) {
    raw::print(cx, out);
}

/// True when the records of an event are printed as raw fields.
pub(crate) fn prints_raw(dec: &Decoder, event: &Event) -> bool {
    match mode(dec, event) {
        Mode::Raw => true,
        Mode::Plugin { .. } => false,
        Mode::Fmt => matches!(program(dec, event), Program::Failed(_)),
    }
}

/// When the text of an event shows bytes behind its records.
pub(crate) fn behind(dec: &Decoder, event: &Event) -> crate::plugin::Behind {
    program(dec, event).behind()
}

/// True when records of an event may be printed as raw fields: also by a plugin that leaves some to a print fmt that cannot be understood.
pub(crate) fn may_print_raw(dec: &Decoder, event: &Event) -> bool {
    matches!(mode(dec, event), Mode::Raw) || matches!(program(dec, event), Program::Failed(_))
}

/// Notes which text fields of a record do not hold text.
pub(crate) fn visit_raw(dec: &Decoder, event: &Event, data: &[u8], seq: u64) {
    raw::visit(dec, event, data, seq);
}

/// Why the print fmt of an event cannot be understood; `None`: it can.
pub(crate) fn failure<'a>(dec: &Decoder, event: &'a Event) -> Option<&'a str> {
    match program(dec, event) {
        Program::Failed(why) => Some(why),
        _ => None,
    }
}
