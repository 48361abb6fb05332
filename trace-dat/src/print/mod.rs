//! Events to text: compiled print formats, printf, helpers.
