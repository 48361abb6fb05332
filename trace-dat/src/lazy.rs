//! Texts of a trace that are read when first asked for.

use std::borrow::Cow;

use crate::Result;

/// Reads a text when it is first needed: unpacks a section of a file, or reads a file of the kernel.
pub type TextReader = Box<dyn Fn() -> Result<Vec<u8>> + Send + Sync>;

/// Reads a text when it is first needed and hands it out in pieces of any size; a piece that nobody else needs is given away.
/// False: the text is damaged, which was told; the pieces are not to be used.
pub type PieceReader = Box<dyn Fn(&mut dyn FnMut(Cow<'_, [u8]>)) -> Result<bool> + Send + Sync>;

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
    /// As `Read`, for a large text of which not all has to be in memory at a time.
    Pieces(PieceReader),
}

impl LazyText {
    /// A text that `read` gets when it is first needed.
    pub fn read(read: impl Fn() -> Result<Vec<u8>> + Send + Sync + 'static) -> Self {
        LazyText::Read(Box::new(read))
    }

    /// The text, empty when there is none.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn load(&self) -> Result<Cow<'_, [u8]>> {
        match self {
            LazyText::None => Ok(Cow::Borrowed(&[])),
            LazyText::Bytes(b) => Ok(Cow::Borrowed(b)),
            LazyText::Read(read) => read().map(Cow::Owned),
            LazyText::Pieces(read) => {
                let mut text = Vec::new();
                let is_good = read(&mut |piece| match piece {
                    Cow::Owned(whole) if text.is_empty() => text = whole,
                    piece => text.extend_from_slice(&piece),
                })?;
                Ok(Cow::Owned(if is_good { text } else { Vec::new() }))
            }
        }
    }

    /// Hands out the text piece by piece, as a [`PieceReader`] does.
    ///
    /// # Errors
    /// Those of the reader; some pieces may have been handed out then.
    pub fn for_each(&self, each: &mut dyn FnMut(Cow<'_, [u8]>)) -> Result<bool> {
        match self {
            LazyText::Pieces(read) => read(each),
            _ => {
                each(self.load()?);
                Ok(true)
            }
        }
    }

    /// A reader of this text.
    pub fn into_reader(self) -> impl Fn() -> Result<Vec<u8>> + Send + Sync + 'static {
        move || self.load().map(Cow::into_owned)
    }

    /// The text; when it cannot be read the log says so and it counts as empty.
    pub fn load_or_empty(&self, what: &str) -> Cow<'_, [u8]> {
        self.load().unwrap_or_else(|e| {
            log::warn!("{what}: {e}");
            Cow::Borrowed(&[])
        })
    }
}

impl std::fmt::Debug for LazyText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LazyText::None => f.write_str("None"),
            LazyText::Bytes(b) => write!(f, "Bytes({})", b.len()),
            LazyText::Read(_) | LazyText::Pieces(_) => f.write_str("Read"),
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
