//! How output reaches people and programs: colours, JSON, the pager.

pub mod color;
pub mod guard;
pub mod json;
pub mod lines;
pub mod memo;
pub mod pager;
