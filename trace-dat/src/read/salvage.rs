//! Buffers of a version 7 file whose options were never written.

use crate::{
    Error,
    read::{Parsed, header::Header, section::Section},
    source::Source,
    warning::{Place, Warnings},
};

/// Adds what can be found of the buffer in this section.
pub(super) fn buffer(_source: &Source, _header: &Header, _parsed: &mut Parsed, s: &Section, warnings: &Warnings) {
    let place = Place { offset: Some(s.offset), ..Place::default() };
    warnings.push(place, Error::Missing { what: "BUFFER option", offset: s.offset }, "this buffer");
}
