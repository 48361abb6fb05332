//! Texts of a trace that are read when first asked for.

use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

use crate::Result;

/// From so many bytes on a text lies in pages of its own.
const LONG: usize = 1 << 20;

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
    ///
    /// `sure`: all of it will be written, so that its pages may be had at once instead of by a fault for each. (Huge pages would be
    /// faster most of the time, but in a virtual machine whose host has to find them first they take five times as long.)
    pub fn zeroed(len: usize, sure: bool) -> Text {
        let pages = if len < LONG { None } else { MmapMut::map_anon(len).ok() };
        pages.iter().filter(|_| sure).for_each(populate);
        Text { memory: pages.map_or_else(|| Memory::Heap(vec![0; len]), Memory::Pages), len }
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

/// Has the system provide the pages; some at a time, because other threads cannot map memory meanwhile. A system that does not know this
/// provides them later.
#[cfg(target_os = "linux")]
fn populate(pages: &MmapMut) {
    let step = 256 << 10;
    for at in (0..pages.len()).step_by(step) {
        if pages.advise_range(memmap2::Advice::PopulateWrite, at, step.min(pages.len() - at)).is_err() {
            return;
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn populate(_pages: &MmapMut) {}

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

/// Reads a text when it is first needed: unpacks a section of a file, or reads a file of the kernel.
pub type TextReader = Box<dyn Fn() -> Result<Text> + Send + Sync>;

/// A text that may not have been read yet.
#[derive(Default)]
pub enum LazyText {
    /// There is none.
    #[default]
    None,
    /// It is at hand.
    Bytes(Vec<u8>),
    /// It can be read; reading it twice gives the same bytes.
    Read(TextReader),
}

impl LazyText {
    /// A text that `read` gets when it is first needed.
    pub fn read<T: Into<Text>>(read: impl Fn() -> Result<T> + Send + Sync + 'static) -> Self {
        LazyText::Read(Box::new(move || read().map(Into::into)))
    }

    /// The text, empty when there is none.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn load(&self) -> Result<Text> {
        match self {
            LazyText::None => Ok(Vec::new().into()),
            LazyText::Bytes(b) => Ok(b.clone().into()),
            LazyText::Read(read) => read(),
        }
    }

    /// A reader of this text.
    pub fn into_reader(self) -> impl Fn() -> Result<Vec<u8>> + Send + Sync + 'static {
        move || self.load().map(Text::into_vec)
    }
}

impl std::fmt::Debug for LazyText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LazyText::None => f.write_str("None"),
            LazyText::Bytes(b) => write!(f, "Bytes({})", b.len()),
            LazyText::Read(_) => f.write_str("Read"),
        }
    }
}

impl From<Vec<u8>> for LazyText {
    fn from(bytes: Vec<u8>) -> Self {
        LazyText::Bytes(bytes)
    }
}

/// The `format` files of a machine in one text.
#[derive(Clone, Debug, Default)]
pub struct FormatTexts {
    /// All texts one behind the other; what lies between the files does not matter.
    pub text: Vec<u8>,
    /// The event systems.
    pub systems: Vec<String>,
    /// The files, in the order of the trace file.
    pub files: Vec<FormatText>,
}

/// Where one `format` file lies in [`FormatTexts::text`].
#[derive(Clone, Debug)]
pub struct FormatText {
    /// Index of its system in [`FormatTexts::systems`].
    pub system: u32,
    /// Its bytes.
    pub range: std::ops::Range<usize>,
}

impl FormatTexts {
    /// Appends one file.
    pub fn push(&mut self, system: &str, text: &[u8]) {
        let index = self.systems.iter().rposition(|s| s == system).unwrap_or_else(|| {
            self.systems.push(system.to_owned());
            self.systems.len() - 1
        });
        let start = self.text.len();
        self.text.extend_from_slice(text);
        self.files.push(FormatText { system: index as u32, range: start..self.text.len() });
    }
}

/// The `format` files of a machine, read when the first event is asked for.
#[derive(Default)]
pub enum LazyFormats {
    /// There are none.
    #[default]
    None,
    /// They are at hand.
    Texts(FormatTexts),
    /// They can be read.
    Read(Box<dyn Fn() -> Result<FormatTexts> + Send + Sync>),
}

impl std::fmt::Debug for LazyFormats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LazyFormats::None => f.write_str("None"),
            LazyFormats::Texts(t) => write!(f, "Texts({})", t.files.len()),
            LazyFormats::Read(_) => f.write_str("Read"),
        }
    }
}
