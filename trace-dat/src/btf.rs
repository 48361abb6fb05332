//! BPF type format: argument names and types of kernel functions.

use crate::lazy::LazyText;

/// Types of a kernel, indexed when first asked.
#[derive(Debug)]
pub struct Btf {
    text: LazyText,
}

impl Btf {
    /// The table in this text.
    pub fn new(text: LazyText) -> Self {
        Btf { text }
    }

    /// Whether there are any types.
    pub fn is_present(&self) -> bool {
        !matches!(self.text, LazyText::None)
    }
}
