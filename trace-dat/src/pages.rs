//! Memory of long texts. The `unsafe` of the crate is here.

#![allow(unsafe_code)]

use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

/// From so many bytes on a text lies in pages of its own.
const LONG: usize = 1 << 20;

/// So many bytes of pages are provided before it is known that they are needed.
#[cfg(target_os = "linux")]
const USUAL: usize = 16 << 20;

/// A text that was read, in memory of its own.
#[derive(Debug)]
pub struct Text {
    memory: Memory,
    len: usize,
}

#[derive(Debug)]
enum Memory {
    Heap(Vec<u8>),
    Pages(MmapMut),
}

impl Text {
    /// So many zeros, to be written over. Those of a long text lie in pages of their own, which take no memory before they are written.
    pub fn zeroed(len: usize) -> Text {
        let pages = if len < LONG { None } else { MmapMut::map_anon(len).ok() };
        Text { memory: pages.map_or_else(|| Memory::Heap(vec![0; len]), Memory::Pages), len }
    }

    /// Has `fill` write a text all of which it will write. A thread has the system provide the pages of a long one meanwhile: a fault for
    /// each takes as long as unpacking half of it. (Huge pages would be faster still, but in a virtual machine whose host has to find
    /// them first they take five times as long.)
    pub fn fill<R>(&mut self, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let Memory::Pages(pages) = &mut self.memory else { return fill(self) };
        #[cfg(target_os = "linux")]
        {
            // More than any usual text has may be more than this one turns out to have.
            let (start, len) = (pages.as_mut_ptr().expose_provenance(), pages.len().min(USUAL));
            std::thread::scope(|scope| {
                let thread = std::thread::Builder::new().name("pages".into());
                // SAFETY: the pages stay mapped while `self` is borrowed, which is longer than the scope lasts.
                let _provides = thread.spawn_scoped(scope, move || unsafe { populate(start, len) });
                fill(pages)
            })
        }
        #[cfg(not(target_os = "linux"))]
        fill(pages)
    }

    /// Cuts off what is behind the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The bytes.
    pub fn into_vec(self) -> Vec<u8> {
        match self.memory {
            Memory::Heap(mut bytes) => {
                bytes.truncate(self.len);
                bytes
            }
            Memory::Pages(_) => self.to_vec(),
        }
    }
}

/// Has the system provide the pages of a mapping; some at a time, because other threads cannot map memory meanwhile. A system that does
/// not know this (before Linux 5.14) provides each when it is written.
///
/// # Safety
/// `len` bytes at the address `start` are mapped, privately and without a file, until this returns.
#[cfg(target_os = "linux")]
unsafe fn populate(start: usize, len: usize) {
    use rustix::mm::{Advice, madvise};
    const STEP: usize = 256 << 10;
    for at in (0..len).step_by(STEP) {
        let pages = std::ptr::with_exposed_provenance_mut(start + at);
        // SAFETY: the pages are mapped, says the caller; what they hold does not change.
        if unsafe { madvise(pages, STEP.min(len - at), Advice::LinuxPopulateWrite) }.is_err() {
            return;
        }
    }
}

impl From<Vec<u8>> for Text {
    fn from(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        Text { memory: Memory::Heap(bytes), len }
    }
}

impl Deref for Text {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let bytes: &[u8] = match &self.memory {
            Memory::Heap(bytes) => bytes,
            Memory::Pages(pages) => pages,
        };
        bytes.get(..self.len).unwrap_or(bytes)
    }
}

impl DerefMut for Text {
    fn deref_mut(&mut self) -> &mut [u8] {
        let bytes: &mut [u8] = match &mut self.memory {
            Memory::Heap(bytes) => bytes,
            Memory::Pages(pages) => pages,
        };
        let len = self.len.min(bytes.len());
        bytes.split_at_mut(len).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_texts() {
        for len in [0, 10, LONG - 1, LONG, LONG + 1, 5 * LONG + 4097] {
            let mut text = Text::zeroed(len);
            assert!(text.len() == len && text.iter().all(|b| *b == 0));
            let filled = text.fill(|bytes| {
                bytes.iter_mut().zip(0u32..).for_each(|(b, i)| *b = i as u8);
                bytes.len()
            });
            assert_eq!(filled, len);
            assert!(text.iter().zip(0u32..).all(|(b, i)| *b == i as u8));
            text.truncate(len + 1);
            assert_eq!(text.len(), len);
            text.truncate(len / 2);
            text.iter_mut().take(1).for_each(|b| *b = 7);
            let vec = text.into_vec();
            assert_eq!((vec.len(), vec.first().copied()), (len / 2, (len > 1).then_some(7)));
        }
    }
}
