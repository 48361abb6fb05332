//! Events to text: compiled print formats, printf, helpers.

mod helper;

use std::sync::OnceLock;

pub use helper::{Arg, ArgKind, Helper, HelperCx};

use crate::{
    Decoder,
    format::Event,
    plugin::{EventPrinter, PrintCx},
};

/// How an event is printed: decided once.
#[derive(Debug, Default)]
pub(crate) struct How {
    plugin: OnceLock<Option<Box<dyn EventPrinter>>>,
}

/// Prints the last column of a record.
pub(crate) fn info(dec: &Decoder, cx: &PrintCx<'_>, out: &mut Vec<u8>) {
    match cx.event.how.plugin.get_or_init(|| None) {
        Some(p) => p.print(cx, out),
        None => pretty(dec, cx.event, cx.rec.data, out),
    }
}

/// Prints a record by its print fmt.
pub(crate) fn pretty(_dec: &Decoder, _event: &Event, _data: &[u8], _out: &mut Vec<u8>) {}

/// Prints a record as raw fields.
pub(crate) fn raw_fields(_dec: &Decoder, _event: &Event, _data: &[u8], _out: &mut Vec<u8>) {}
