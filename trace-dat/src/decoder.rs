//! Everything that is known about the events of one machine: formats, symbols, names.

/// Turns the bytes of records into fields and text.
#[derive(Debug)]
pub struct Decoder {}
