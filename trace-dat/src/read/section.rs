//! Sections of version 7, and the metadata that both versions have, unpacked when asked for.

use crate::{
    Endian, Error, Result,
    compress::{Codec, Decompressor, METADATA_MAX, metadata_len, unpack_from},
    cursor::{Cursor, FileCursor},
    lazy::{FormatText, FormatTexts, system_number},
    pages::Text,
    source::Source,
};

/// Section and option numbers of version 7.
///
/// Source: trace-cmd.dat.v7(5).
pub mod id {
    /// Options section; as an option: the end of one, with the place of the next.
    pub const OPTIONS: u16 = 0;
    /// Event data of one buffer.
    pub const BUFFER: u16 = 3;
    /// Names of sections.
    pub const STRINGS: u16 = 15;
    /// `header_page` and `header_event`.
    pub const HEADER_INFO: u16 = 16;
    /// Formats of the system `ftrace`.
    pub const FTRACE_EVENTS: u16 = 17;
    /// Formats of all other systems.
    pub const EVENT_FORMATS: u16 = 18;
    /// `/proc/kallsyms`.
    pub const KALLSYMS: u16 = 19;
    /// `printk_formats`.
    pub const PRINTK: u16 = 20;
    /// `saved_cmdlines`.
    pub const CMDLINES: u16 = 21;
    /// Text of a latency tracer.
    pub const BUFFER_TEXT: u16 = 22;
    /// `/sys/kernel/btf/vmlinux`.
    pub const BTF: u16 = 23;
    /// `/proc/modules`.
    pub const MODULES: u16 = 25;
}

/// Size of a section header.
pub const HEADER_LEN: u64 = 16;

/// Flag of a section header: the section is compressed.
pub const COMPRESSED: u16 = 1;

/// A section of a version 7 file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// What it is, see [`id`].
    pub id: u16,
    /// Flags; bit 0: compressed.
    pub flags: u16,
    /// Offset of its description in the strings sections.
    pub desc: u32,
    /// Where its header lies in the file.
    pub offset: u64,
    /// Bytes in the file after the header, as stored.
    pub size: u64,
}

impl Section {
    /// Reads the header of the section at `offset`.
    ///
    /// # Errors
    /// [`Error::Truncated`] when the file ends within the header.
    pub fn read(source: &Source, endian: Endian, offset: u64) -> Result<Section> {
        let mut b = [0; HEADER_LEN as usize];
        source.read_exact_at("section header", offset, &mut b)?;
        let mut c = Cursor::new(&b, offset, endian);
        Ok(Section {
            id: c.u16("section")?,
            flags: c.u16("section")?,
            desc: c.u32("section")?,
            offset,
            size: c.u64("section")?,
        })
    }

    /// Whether the section is compressed.
    pub fn compressed(&self) -> bool {
        self.flags & COMPRESSED != 0
    }

    /// Where the content begins in the file.
    pub fn data(&self) -> u64 {
        self.offset.saturating_add(HEADER_LEN)
    }

    /// Where the next section begins.
    pub fn end(&self) -> u64 {
        self.data().saturating_add(self.size)
    }
}

/// A piece of metadata in the file, unpacked when asked for. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Part {
    source: Source,
    endian: Endian,
    what: &'static str,
    offset: u64,
    size: u64,
    packed: Option<Codec>,
    /// A count of chunks stands before the packed data, as in buffers.
    chunks: bool,
}

impl Part {
    /// A piece that lies unpacked in the file.
    pub(crate) fn plain(source: &Source, endian: Endian, what: &'static str, offset: u64, size: u64) -> Part {
        Part { source: source.clone(), endian, what, offset, size, packed: None, chunks: false }
    }

    /// The content of a section.
    pub(crate) fn section(source: &Source, endian: Endian, codec: Codec, what: &'static str, s: &Section) -> Part {
        let packed = s.compressed().then_some(codec);
        Part {
            source: source.clone(),
            endian,
            what,
            offset: s.data(),
            size: s.size,
            packed,
            chunks: s.id == id::BUFFER_TEXT,
        }
    }

    /// Where the content lies in the file.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes in the file, packed or not.
    pub fn stored_size(&self) -> u64 {
        self.size
    }

    /// For a compressed piece: bytes packed and unpacked as its header says.
    ///
    /// # Errors
    /// [`Error::Truncated`].
    pub fn packed_sizes(&self) -> Result<Option<(u32, u32)>> {
        if self.packed.is_none() {
            return Ok(None);
        }
        let mut c = FileCursor::new(&self.source, self.offset, self.endian);
        if !self.chunks {
            return Ok(Some((c.u32(self.what)?, c.u32(self.what)?)));
        }
        let (mut all_packed, mut all_unpacked) = (0u32, 0u32);
        for _ in 0..c.u32(self.what)? {
            let (packed, unpacked) = (c.u32(self.what)?, c.u32(self.what)?);
            c.skip(self.what, packed.into())?;
            all_packed = all_packed.saturating_add(packed);
            all_unpacked = all_unpacked.saturating_add(unpacked);
        }
        Ok(Some((all_packed, all_unpacked)))
    }

    /// The content as it is stored when that is compressed: the codec, the packed bytes and their unpacked length.
    ///
    /// # Errors
    /// [`Error::Truncated`].
    pub fn read_packed(&self) -> Result<Option<(Codec, Vec<u8>, u32)>> {
        let (Some(codec), Some((packed, unpacked))) = (self.packed, self.packed_sizes()?) else { return Ok(None) };
        let bytes = self.source.read_vec(self.what, self.offset.saturating_add(8), packed.into())?;
        Ok(Some((codec, bytes, unpacked)))
    }

    /// The content, unpacked.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::Compressed`], [`Error::BadValue`].
    pub fn read(&self) -> Result<Vec<u8>> {
        let Some(codec) = self.packed else {
            if self.size > METADATA_MAX {
                let why = "bytes are more than any metadata has";
                return Err(Error::BadValue { what: self.what, offset: self.offset, value: self.size, why });
            }
            return self.source.read_vec(self.what, self.offset, self.size);
        };
        if self.chunks {
            return self.read_chunks(codec);
        }
        let (packed, unpacked) = self.packed_sizes()?.unwrap_or_default();
        let data = self.source.read_vec(self.what, self.offset.saturating_add(8), packed.into())?;
        Decompressor::new().unpack_vec(codec, self.offset, &data, unpacked.into())
    }

    /// A latency trace: a count, then chunks, as the data of a CPU.
    fn read_chunks(&self, codec: Codec) -> Result<Vec<u8>> {
        let mut c = FileCursor::new(&self.source, self.offset, self.endian);
        let (mut all, mut unpacker) = (Vec::new(), Decompressor::new());
        for _ in 0..c.u32(self.what)? {
            let (packed, unpacked) = (c.u32(self.what)?, c.u32(self.what)?);
            let at = c.skip(self.what, packed.into())?;
            let data = self.source.read_vec(self.what, at, packed.into())?;
            let room = METADATA_MAX.saturating_sub(all.len() as u64);
            if u64::from(unpacked) > room {
                let why = "bytes unpacked are more than any latency trace has";
                return Err(Error::BadValue { what: self.what, offset: at, value: unpacked.into(), why });
            }
            all.extend(unpacker.unpack_vec(codec, at, &data, unpacked.into())?);
        }
        Ok(all)
    }

    /// The content behind the 32-bit size word that stands before kallsyms and printk formats.
    ///
    /// # Errors
    /// As [`Part::read`]. A size that is not that of the content counts for as much as there is.
    pub fn read_sized32(&self) -> Result<Vec<u8>> {
        self.read_sized(4, &mut |_| {})
    }

    /// The content behind the 64-bit size word that stands before command lines, BTF and modules.
    ///
    /// # Errors
    /// As [`Part::read_sized32`].
    pub fn read_sized64(&self) -> Result<Vec<u8>> {
        self.read_sized(8, &mut |_| {})
    }

    /// What is wrong with a size word that is not the size of the content behind it.
    fn wrong_size(&self, size: u64, have: u64) -> Option<Error> {
        let why = "bytes are not those that are there";
        let offset = self.offset;
        (size != have).then_some(Error::BadValue { what: self.what, offset, value: size, why })
    }

    /// As [`Part::read`], of what may be long.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn read_text(&self) -> Result<Text> {
        let sizes = if self.chunks { None } else { self.packed_sizes()? };
        let (Some(codec), Some((packed, unpacked))) = (self.packed, sizes) else { return self.read().map(Text::from) };
        let mut text = Text::zeroed(metadata_len(self.offset, unpacked.into())?);
        let unpack = |text: &mut [u8]| {
            unpack_from(codec, &self.source, (self.what, self.offset.saturating_add(8), packed.into()), text)
        };
        // A size that is not likely takes no memory before it turns out to be true.
        let len = if unpacked / USUAL_RATIO <= packed { text.fill(unpack) } else { unpack(&mut text) }?;
        text.truncate(len);
        Ok(text)
    }

    /// Lines behind a 32-bit size word, in whose place empty lines stand; `told` gets to know of a wrong size.
    ///
    /// # Errors
    /// As [`Part::read_sized32`].
    pub(crate) fn read_sized_lines(&self, told: &mut dyn FnMut(Error)) -> Result<Text> {
        let mut text = self.read_text()?;
        let end = self.sized_end(&text, 4, told)?;
        text.truncate(end);
        text.iter_mut().take(4).for_each(|byte| *byte = b'\n');
        Ok(text)
    }

    /// The content behind a size word of 4 or 8 bytes; `told` gets to know of a wrong size.
    ///
    /// # Errors
    /// As [`Part::read_sized32`].
    pub(crate) fn read_sized(&self, width: usize, told: &mut dyn FnMut(Error)) -> Result<Vec<u8>> {
        let mut data = self.read()?;
        let end = self.sized_end(&data, width, told)?;
        data.truncate(end);
        data.drain(..width.min(end));
        Ok(data)
    }

    /// Where the content ends that begins with its size in a word of so many bytes; `told` gets to know of a wrong size. 0 for no content.
    fn sized_end(&self, data: &[u8], width: usize, told: &mut dyn FnMut(Error)) -> Result<usize> {
        let Some(size) = self.endian.uint(data, 0, width) else {
            let (need, have) = (width as u64, data.len() as u64);
            let truncated = Error::Truncated { what: self.what, offset: self.offset, need, have };
            return if have == 0 { Ok(0) } else { Err(truncated) };
        };
        self.wrong_size(size, (data.len() - width) as u64).into_iter().for_each(told);
        Ok(usize::try_from(size).unwrap_or(usize::MAX).saturating_add(width))
    }

    /// The texts of a section of event formats: those of `ftrace` (a count and files) or of all other systems. The section's content
    /// becomes part of the text.
    ///
    /// What comes before a damaged place is kept.
    ///
    /// # Errors
    /// As [`Part::read`], [`Error::Truncated`] when not even the first format can be had.
    pub(crate) fn read_formats(&self, ftrace: bool, into: &mut FormatTexts) -> Result<()> {
        let start = into.take_text(self.read()?);
        let FormatTexts { text, systems, files } = into;
        let data = text.get(start..).unwrap_or_default();
        let mut into = Formats { start, systems, files };
        let base = if self.packed.is_some() { 0 } else { self.offset };
        let mut c = Cursor::new(data, base, self.endian);
        let of_system = |c: &mut Cursor<'_>, system: &str, into: &mut Formats<'_>| -> Result<()> {
            for _ in 0..c.u32("count of event formats")? {
                let size = c.u64("size of an event format")?;
                let at = c.pos();
                into.push(system, at..at + c.bytes("event format", size)?.len());
            }
            Ok(())
        };
        let mut walk = |c: &mut Cursor<'_>| {
            if ftrace {
                return of_system(c, "ftrace", &mut into);
            }
            for _ in 0..c.u32("count of event systems")? {
                let system = super::header::text(c.cstr("name of an event system")?);
                of_system(c, &system, &mut into)?;
            }
            Ok(())
        };
        let mut result = walk(&mut c);
        let at = c.pos();
        if !c.rest().is_empty() {
            result = result.and_then(|()| {
                let (offset, value) = (c.offset(), c.rest().len() as u64);
                let why = "bytes follow the last event format that is counted";
                Err(Error::BadValue { what: self.what, offset, value, why })
            });
            // Behind a damaged size or count the next formats are found by their first words.
            resume_formats(data, at, self.endian, ftrace, &mut into);
        }
        result
    }
}

/// The formats of a text whose place is known.
struct Formats<'a> {
    /// Where the section begins in the text.
    start: usize,
    systems: &'a mut Vec<String>,
    files: &'a mut Vec<FormatText>,
}

impl Formats<'_> {
    fn push(&mut self, system: &str, range: std::ops::Range<usize>) {
        let system = system_number(self.systems, system);
        self.files.push(FormatText { system, range: self.start + range.start..self.start + range.end });
    }
}

/// Text is not packed to less than this part of its size, other than to deceive.
const USUAL_RATIO: u32 = 16;

/// What the text of an event format begins with.
const NAME: &[u8] = b"name: ";

/// Takes the formats that can be found in `data` from `at` on: a size, and as many bytes that begin as a format does.
fn resume_formats(data: &[u8], mut at: usize, endian: Endian, ftrace: bool, into: &mut Formats<'_>) {
    let mut system = match into.systems.last() {
        Some(last) if !ftrace => last.clone(),
        _ => String::from(if ftrace { "ftrace" } else { "unknown" }),
    };
    let find = |from: usize| {
        let rest = data.get(from..)?;
        memchr::memmem::find(rest, NAME).map(|n| from + n)
    };
    while let Some(start) = find(at) {
        at = start + NAME.len();
        let Some(size_at) = start.checked_sub(8) else { continue };
        let size = endian.uint(data, size_at, 8).and_then(|n| usize::try_from(n).ok());
        let Some(text) = size.and_then(|n| data.get(start..start.checked_add(n)?)) else { continue };
        if text.last() != Some(&b'\n') || !text.windows(4).any(|w| w == b"\nID:") {
            continue;
        }
        // A new system: its name, a NUL, and a count of formats stand before the first size.
        let name = size_at.checked_sub(5).and_then(|nul| data.get(..=nul)).and_then(|d| d.split_last());
        if let Some((0, before)) = name.filter(|_| !ftrace) {
            let is_name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
            let from = before.iter().rposition(|b| !is_name(b)).map_or(0, |n| n + 1);
            if let Some(name) = before.get(from..).filter(|n| !n.is_empty()) {
                system = String::from_utf8_lossy(name).into_owned();
            }
        }
        into.push(&system, start..start + text.len());
        at = start + text.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::Compressor;

    #[test]
    fn formats_behind_a_damaged_size_are_found() {
        let text = |n: u32| format!("name: e{n}\nID: {n}\nformat:\n\nprint fmt: \"\"\n");
        let mut f = 2u32.to_le_bytes().to_vec(); // systems
        let mut sizes = Vec::new();
        for (system, events) in [("one", 1..4), ("two", 4..6)] {
            f.extend(system.as_bytes());
            f.push(0);
            f.extend((events.len() as u32).to_le_bytes());
            for n in events {
                sizes.push(f.len());
                f.extend((text(n).len() as u64).to_le_bytes());
                f.extend(text(n).as_bytes());
            }
        }
        let read = |f: &[u8]| {
            let source = Source::from_bytes("t", f.to_vec());
            let part = Part::plain(&source, Endian::Little, "event formats", 0, f.len() as u64);
            let mut into = FormatTexts::default();
            let result = part.read_formats(false, &mut into);
            let name = |f: &crate::lazy::FormatText| {
                let text = String::from_utf8_lossy(&into.text[f.range.clone()]).into_owned();
                format!(
                    "{}:{}",
                    into.systems[f.system as usize],
                    text.lines().next().unwrap_or("").replace("name: ", "")
                )
            };
            (into.files.iter().map(name).collect::<Vec<_>>().join(" "), result.is_ok())
        };
        assert_eq!(read(&f), ("one:e1 one:e2 one:e3 two:e4 two:e5".into(), true));
        let mut damaged = f.clone();
        damaged[sizes[1] + 3] = 0xff;
        assert_eq!(read(&damaged), ("one:e1 one:e3 two:e4 two:e5".into(), false));
        let mut damaged = f.clone();
        damaged[0] = 1; // a system too few
        assert_eq!(read(&damaged), ("one:e1 one:e2 one:e3 two:e4 two:e5".into(), false));
    }

    #[test]
    fn latency_text_is_in_chunks() {
        let mut f = vec![22, 0, 1, 0]; // BUFFER_TEXT, compressed
        f.extend([0; 4]); // description
        f.extend([0; 8]); // size, not used
        f.extend(2u32.to_le_bytes()); // chunks
        for text in [b"# tracer: wakeup\n", b"#   second chunk\n"] {
            let mut packed = Vec::new();
            Compressor::new(Codec::Zstd).pack(text, &mut packed).expect("packed");
            f.extend((packed.len() as u32).to_le_bytes());
            f.extend((text.len() as u32).to_le_bytes());
            f.extend(packed);
        }
        let source = Source::from_bytes("t", f);
        let s = Section::read(&source, Endian::Little, 0).expect("a section");
        let part = Part::section(&source, Endian::Little, Codec::Zstd, "latency trace", &s);
        assert_eq!(part.read().expect("a text"), b"# tracer: wakeup\n#   second chunk\n");
        assert_eq!(part.packed_sizes().expect("sizes").map(|s| s.1), Some(34));
    }
}
