//! Events with a look of their own, one file per event family, and what depends on other records.

mod fgraph;
mod function;
pub mod options;
pub mod seq;
mod text;

use crate::{Decoder, Record, format::Event};

/// Prints the last column of one event; made once per event, when its first record is printed.
///
/// A printer resolves field positions and tables when it is made, so that printing does not search or allocate.
pub trait EventPrinter: Send + Sync + std::fmt::Debug {
    /// Appends the text of the record to `out`. Never fails: what cannot be printed becomes raw fields or a note.
    fn print(&self, cx: &PrintCx<'_>, out: &mut Vec<u8>);
}

/// A record with all that its text may depend on.
#[derive(Clone, Copy, Debug)]
pub struct PrintCx<'a> {
    /// Formats, symbols, names of the record's machine.
    pub dec: &'a Decoder,
    /// The record's event.
    pub event: &'a Event,
    /// The record.
    pub rec: Record<'a>,
    /// Corrected time of the record, in nanoseconds unless the clock counts something else.
    pub ts: u64,
    /// What other records say about this one.
    pub note: Note<'a>,
    /// Position of the record in the output: names learnt from events count only from later positions on.
    pub seq: u64,
}

/// What other records say about a record, decided in the one sequential pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct Note<'a> {
    /// Nesting level of a function event.
    pub indent: u32,
    /// The `funcgraph_exit` record that directly follows a `funcgraph_entry` and is printed with it.
    pub leaf_exit: Option<Record<'a>>,
}

/// Whether an event may be printed by its plugin: not with `-R`, `-N`, `-L`, nor when `-r` or `-n` names the event or its system.
pub fn plugin_active(dec: &Decoder, event: &Event) -> bool {
    let options = dec.options();
    let named = |list: &[regex::Regex]| list.iter().any(|r| r.is_match(&event.name) || r.is_match(&event.system));
    !options.raw && !options.no_plugins && !named(&options.raw_events) && !named(&options.no_plugin_events)
}

/// The printer of an event that has a look of its own; `None`: its print fmt is used.
pub fn printer_for(dec: &Decoder, event: &Event) -> Option<Box<dyn EventPrinter>> {
    if !plugin_active(dec, event) {
        return None;
    }
    let options = dec.options();
    Some(match (event.system.as_str(), event.name.as_str()) {
        ("ftrace", "function" | "func_repeats") => Box::new(function::Function::new(event, options)),
        ("ftrace", "kernel_stack") => Box::new(function::KernelStack::new(event, options)),
        ("ftrace", "raw_data") => Box::new(function::RawData::new(event)),
        ("ftrace", "funcgraph_entry" | "fgraph_retaddr_entry") => Box::new(fgraph::Entry::new(dec, event)),
        ("ftrace", "funcgraph_exit") => Box::new(fgraph::ExitLine::new(event, options)),
        _ => return None,
    })
}

/// The helper function of this name that print formats may call.
pub fn helper(_name: &str) -> Option<&'static crate::print::Helper> {
    None
}
