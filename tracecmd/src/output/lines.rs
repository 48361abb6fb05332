//! Lines on their way to the output.

use trace_dat::{pen::Pen, short::ShortText};

/// Lines of so many bytes are handed on together.
pub const MANY: usize = 2 << 10;

/// What a pen writes goes behind what is in the text already.
#[derive(Debug)]
pub struct Lines<'s, 'o> {
    /// Writes the present line.
    pub pen: Pen<'s>,
    /// The text.
    pub out: &'o mut Vec<u8>,
}

impl Lines<'_, '_> {
    /// Hands out the text, with all that was written before.
    #[inline(always)]
    pub fn flush(&mut self) -> &mut Vec<u8> {
        append(self.pen.since(0), self.out);
        self.pen.go_to(0);
        self.out
    }

    /// Appends a kept text.
    #[inline(always)]
    pub fn text<const N: usize>(&mut self, text: &ShortText<N>) {
        match text.short() {
            Some((chunk, len)) => self.pen.part(chunk, len),
            None => self.flush().extend_from_slice(text.bytes()),
        }
    }

    /// Where the pen stands behind a line.
    #[inline(always)]
    pub fn end(mut self) -> usize {
        if self.pen.at() > MANY {
            self.flush();
        }
        self.pen.at()
    }
}

#[inline(never)]
fn append(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(text);
}
