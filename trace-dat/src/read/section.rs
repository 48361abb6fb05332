//! Sections of version 7, and the metadata that both versions have, unpacked when asked for.

use crate::{
    Endian, Error, Result,
    compress::{Codec, Decompressor, METADATA_MAX},
    cursor::{Cursor, FileCursor},
    lazy::FormatTexts,
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
    /// As [`Part::read`]. A size that is larger than the content counts as its end.
    pub fn read_sized32(&self) -> Result<Vec<u8>> {
        self.read_sized(4)
    }

    /// The content behind the 64-bit size word that stands before command lines, BTF and modules.
    ///
    /// # Errors
    /// As [`Part::read_sized32`].
    pub fn read_sized64(&self) -> Result<Vec<u8>> {
        self.read_sized(8)
    }

    fn read_sized(&self, width: usize) -> Result<Vec<u8>> {
        let mut data = self.read()?;
        let size = match self.endian.uint(&data, 0, width) {
            Some(size) => size,
            None if data.is_empty() => return Ok(data),
            None => {
                let (need, have) = (width as u64, data.len() as u64);
                return Err(Error::Truncated { what: self.what, offset: self.offset, need, have });
            }
        };
        data.drain(..width.min(data.len()));
        data.truncate(usize::try_from(size).unwrap_or(usize::MAX));
        Ok(data)
    }

    /// The texts of a section of event formats: those of `ftrace` (a count and files) or of all other systems.
    ///
    /// What comes before a damaged place is kept.
    ///
    /// # Errors
    /// As [`Part::read`], [`Error::Truncated`] when not even the first format can be had.
    pub(crate) fn read_formats(&self, ftrace: bool, into: &mut FormatTexts) -> Result<()> {
        let data = self.read()?;
        let base = if self.packed.is_some() { 0 } else { self.offset };
        let mut c = Cursor::new(&data, base, self.endian);
        into.text.reserve(data.len());
        let files = |c: &mut Cursor<'_>, system: &str, into: &mut FormatTexts| -> Result<()> {
            for _ in 0..c.u32("count of event formats")? {
                let size = c.u64("size of an event format")?;
                into.push(system, c.bytes("event format", size)?);
            }
            Ok(())
        };
        if ftrace {
            return files(&mut c, "ftrace", into);
        }
        for _ in 0..c.u32("count of event systems")? {
            let system = super::header::text(c.cstr("name of an event system")?);
            files(&mut c, &system, into)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::Compressor;

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
