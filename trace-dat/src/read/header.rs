//! The initial bytes of a file, and the text of `header_page`.

use crate::{Endian, Error, LongSize, Result, compress::Codec, cursor::FileCursor, source::Source};

/// First bytes of every trace.dat file: three magic bytes and `tracing`.
///
/// Source: trace-cmd.dat.v6(5), trace-cmd.dat.v7(5), "INITIAL FORMAT".
pub const MAGIC: [u8; 10] = *b"\x17\x08\x44tracing";

/// Largest sub-buffer that is believed. The kernel's largest is `PAGE_SIZE << MAX_PAGE_ORDER`.
pub const SUBBUF_MAX: u64 = 64 << 20;

/// What the first bytes of a file say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Version of the file format: 6 or 7.
    pub version: u32,
    /// Byte order of everything that follows.
    pub endian: Endian,
    /// Width of a `long` in the recording machine's user space.
    pub long_size: LongSize,
    /// Page size of the recording machine, in bytes.
    pub page_size: u32,
    /// Version 7: how sections are compressed. [`Codec::None`] in version 6.
    pub codec: Codec,
    /// Version 7: name of the compression algorithm as stored, `none` if nothing is compressed. Empty in version 6.
    pub compression: String,
    /// Version 7: version of the library that compressed. Empty in version 6 and without compression.
    pub compression_version: String,
    /// Version 7: where the first options section lies in the file. 0 in version 6.
    pub options_offset: u64,
    /// Where the header ends: version 6 goes on with `header_page`, version 7 with its first section.
    pub end: u64,
}

/// Text for messages from bytes of a file.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Header {
    /// Reads the header.
    ///
    /// # Errors
    /// [`Error::NotTraceDat`] without the magic, [`Error::BadValue`] for an unknown version, byte order or word size,
    /// [`Error::UnknownCompression`], [`Error::Truncated`].
    pub fn read(source: &Source) -> Result<Header> {
        let mut c = FileCursor::new(source, 0, Endian::Little);
        match c.bytes::<10>("magic") {
            Ok(MAGIC) => {}
            Ok(_) | Err(Error::Truncated { .. }) => {
                return Err(Error::NotTraceDat { path: source.path().to_owned() });
            }
            Err(e) => return Err(e),
        }
        let offset = c.offset();
        let version = text(&c.cstr("file version")?).parse::<u32>().unwrap_or(0);
        if !matches!(version, 6 | 7) {
            let why = "is not a version that can be read (6, 7)";
            return Err(Error::BadValue { what: "file version", offset, value: version.into(), why });
        }
        let offset = c.offset();
        let endian = match c.u8("byte order")? {
            0 => Endian::Little,
            1 => Endian::Big,
            v => {
                let why = "is neither 0 (little endian) nor 1 (big endian)";
                return Err(Error::BadValue { what: "byte order", offset, value: v.into(), why });
            }
        };
        c.set_endian(endian);
        let offset = c.offset();
        let long_size = match c.u8("long size")? {
            4 => LongSize::Four,
            8 => LongSize::Eight,
            v => {
                let why = "is neither 4 nor 8";
                return Err(Error::BadValue { what: "long size", offset, value: v.into(), why });
            }
        };
        let page_size = c.u32("page size")?;
        let (mut codec, mut compression, mut compression_version, mut options_offset) =
            (Codec::None, String::new(), String::new(), 0);
        if version >= 7 {
            compression = text(&c.cstr("compression")?);
            compression_version = text(&c.cstr("compression version")?);
            codec = Codec::from_name(&compression)
                .ok_or_else(|| Error::UnknownCompression { name: compression.clone() })?;
            options_offset = c.u64("offset of the options")?;
        }
        let end = c.offset();
        Ok(Header {
            version,
            endian,
            long_size,
            page_size,
            codec,
            compression,
            compression_version,
            options_offset,
            end,
        })
    }
}

/// How sub-buffers begin: what the kernel's `events/header_page` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLayout {
    /// Bytes of the commit word, which follows the 8-byte time: 4 or 8, a `long` of the kernel.
    pub commit_size: LongSize,
    /// Where the data begin, in bytes from the start of the sub-buffer.
    pub data_offset: u32,
    /// Bytes of a sub-buffer, 0 when the text does not say.
    pub subbuf_size: u64,
    /// No text at all: a kernel before 2.6.31, whose records have other headers.
    pub old_format: bool,
}

impl PageLayout {
    /// Reads the text of `header_page`: lines `field: TYPE NAME; offset:N; size:N;` for timestamp, commit and data.
    ///
    /// An empty text means the format of kernels before 2.6.31. What a text does not say follows from `long_size`.
    pub fn parse(text: &[u8], long_size: LongSize) -> PageLayout {
        let mut layout = PageLayout {
            commit_size: long_size,
            data_offset: 8 + long_size.bytes() as u32,
            subbuf_size: 0,
            old_format: text.iter().all(|b| b.is_ascii_whitespace() || *b == 0),
        };
        let mut data = None;
        for line in text.split(|b| *b == b'\n') {
            let line = String::from_utf8_lossy(line);
            let (mut name, mut offset, mut size) = ("", None, None);
            for part in line.split(';') {
                let Some((key, value)) = part.trim().split_once(':') else { continue };
                let value = value.trim();
                match key.trim() {
                    "field" => name = value.rsplit([' ', '\t']).next().unwrap_or(""),
                    "offset" => offset = value.parse::<u32>().ok(),
                    "size" => size = value.parse::<u64>().ok(),
                    _ => {}
                }
            }
            match (name, offset, size) {
                ("commit", Some(8), Some(4)) => {
                    layout.commit_size = LongSize::Four;
                    layout.data_offset = 12;
                }
                ("commit", Some(8), Some(8)) => {
                    layout.commit_size = LongSize::Eight;
                    layout.data_offset = 16;
                }
                ("data", Some(offset), Some(size)) => data = Some((offset, size)),
                _ => {}
            }
        }
        if let Some((offset, size)) = data
            && u64::from(offset) >= 8 + layout.commit_size.bytes() as u64
            && offset <= 4096
            && size <= SUBBUF_MAX
        {
            layout.data_offset = offset;
            layout.subbuf_size = u64::from(offset) + size;
        }
        layout
    }

    /// Whether sub-buffers of this size can be walked.
    pub fn fits(&self, subbuf_size: u64) -> bool {
        subbuf_size > u64::from(self.data_offset) && subbuf_size <= SUBBUF_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_of_version_7() {
        let mut f = MAGIC.to_vec();
        f.extend(b"7\0"); // version
        f.push(1); // big endian
        f.push(8); // long size
        f.extend(4096u32.to_be_bytes()); // page size
        f.extend(b"zstd\x001.5.7\0"); // compression
        f.extend(0x1234u64.to_be_bytes()); // offset of the options
        let h = Header::read(&Source::from_bytes("t", f.clone())).unwrap();
        assert_eq!((h.version, h.endian, h.long_size, h.page_size), (7, Endian::Big, LongSize::Eight, 4096));
        assert_eq!((h.codec, h.options_offset, h.end), (Codec::Zstd, 0x1234, f.len() as u64));
        for n in 0..f.len() {
            assert!(Header::read(&Source::from_bytes("t", f[..n].to_vec())).is_err());
        }
        f[10] = b'5';
        let e = Header::read(&Source::from_bytes("t", f)).unwrap_err();
        assert_eq!(e.to_string(), "file version at 0xa: 5 is not a version that can be read (6, 7)");
    }

    #[test]
    fn header_page_of_a_32_bit_kernel() {
        let text = b"\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n\
            \tfield: local_t commit;\toffset:8;\tsize:4;\tsigned:1;\n\
            \tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n\
            \tfield: char data;\toffset:12;\tsize:4084;\tsigned:1;\n";
        let p = PageLayout::parse(text, LongSize::Eight);
        assert_eq!((p.commit_size, p.data_offset, p.subbuf_size), (LongSize::Four, 12, 4096));
        assert!(!p.old_format);
        let p = PageLayout::parse(b"", LongSize::Four);
        assert_eq!((p.data_offset, p.subbuf_size, p.old_format), (12, 0, true));
    }
}
