//! The language of `report -F`.
