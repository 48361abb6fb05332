//! `report`: the records of trace files as lines of text.

pub mod layout;
pub mod pipeline;
