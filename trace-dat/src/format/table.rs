//! All events of a machine, each parsed when it is first needed.

use crate::{Decoder, format::Event, lazy::LazyFormats};

/// The events by id and name.
#[derive(Debug)]
pub struct EventTable {
    formats: LazyFormats,
}

impl EventTable {
    /// The events in these texts.
    pub fn new(formats: LazyFormats) -> Self {
        EventTable { formats }
    }

    pub(crate) fn event(&self, _dec: &Decoder, _id: u16) -> Option<&Event> {
        None
    }

    pub(crate) fn events(&self, _dec: &Decoder) -> impl Iterator<Item = &Event> {
        std::iter::empty()
    }

    pub(crate) fn find(&self, _dec: &Decoder, _system: Option<&str>, _name: &str) -> Option<&Event> {
        None
    }
}
