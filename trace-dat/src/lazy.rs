//! Texts of a trace that are read when first asked for.

use crate::{Result, pages::Text};

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
        let system = system_number(&mut self.systems, system);
        let start = self.text.len();
        self.text.extend_from_slice(text);
        self.files.push(FormatText { system, range: start..self.text.len() });
    }

    /// Takes a text in which files lie; where it begins. The first one is not copied.
    pub(crate) fn take_text(&mut self, text: Vec<u8>) -> usize {
        let start = self.text.len();
        if start == 0 {
            self.text = text;
        } else {
            self.text.extend_from_slice(&text);
        }
        start
    }
}

/// Index of the system of this name, which is added when it is new.
pub(crate) fn system_number(systems: &mut Vec<String>, name: &str) -> u32 {
    let known = systems.iter().rposition(|s| s == name);
    known.unwrap_or_else(|| {
        systems.push(name.to_owned());
        systems.len() - 1
    }) as u32
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
