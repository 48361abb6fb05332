//! Compression of metadata sections and trace data chunks: one block in, one block out.
//!
//! A version 7 file names one algorithm in its header and uses it for everything. Blocks are independent of each other, so
//! they can be packed and unpacked on any thread and in any order.
//!
//! Source: trace-cmd.dat.v7(5); files written by trace-cmd 3.4 (zstd level 3 without content size in the frame header).

use crate::error::{Error, Result};
use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};

/// The algorithm that a file names in its header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Nothing is compressed.
    None,
    /// zlib streams (RFC 1950).
    Zlib,
    /// Zstandard frames: what new files use.
    #[default]
    Zstd,
}

impl Compression {
    /// The algorithm of a name as it stands in a file or on the command line: `none`, `zlib`, `zstd`, or `any` for the default.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"none" => Compression::None,
            b"zlib" => Compression::Zlib,
            b"zstd" | b"any" => Compression::Zstd,
            _ => return None,
        })
    }

    /// The name as it stands in a file.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Zlib => "zlib",
            Compression::Zstd => "zstd",
        }
    }

    /// The version of the library that packs, as it stands in a file behind the name; readers do not depend on it.
    pub fn version(self) -> &'static str {
        match self {
            Compression::None => "",
            // The release of zlib whose streams zlib-rs writes.
            Compression::Zlib => "1.3.0",
            Compression::Zstd => zstd::zstd_safe::version_string(),
        }
    }

    /// The most bytes that `packed` compressed bytes can become; a larger size in a file is damage.
    fn max_unpacked(self, packed: usize) -> u64 {
        let packed = packed as u64;
        match self {
            Compression::None => packed,
            // Deflate: at most 258 bytes for two bits.
            Compression::Zlib => packed.saturating_mul(1032).saturating_add(1032),
            // A repeated-byte block of 128 KiB takes four bytes.
            Compression::Zstd => packed.saturating_mul(32 * 1024).saturating_add(128 * 1024),
        }
    }
}

/// Packs blocks with one algorithm; keeps its working memory between blocks.
pub struct Compressor(Packer);

enum Packer {
    None,
    Zlib(Box<Compress>),
    Zstd(zstd::bulk::Compressor<'static>),
}

/// Level for zlib: above it, packing takes many times longer for less than a percent.
const ZLIB_LEVEL: u32 = 6;
/// Level for zstd, the reference's own.
const ZSTD_LEVEL: i32 = 3;

impl Compressor {
    /// A compressor of `algorithm`.
    ///
    /// # Errors
    /// [`Error::Pack`] if the library cannot be set up.
    pub fn new(algorithm: Compression) -> Result<Self> {
        Ok(Compressor(match algorithm {
            Compression::None => Packer::None,
            Compression::Zlib => Packer::Zlib(Box::new(Compress::new(flate2::Compression::new(ZLIB_LEVEL), true))),
            Compression::Zstd => {
                let why = |e: std::io::Error| Error::Pack { algorithm: "zstd", why: e.to_string() };
                let mut c = zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(why)?;
                c.include_contentsize(false).map_err(why)?;
                Packer::Zstd(c)
            }
        }))
    }

    /// Appends the packed form of `data` to `out`.
    ///
    /// # Errors
    /// [`Error::Pack`] if the library fails.
    pub fn compress(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        match &mut self.0 {
            Packer::None => out.extend_from_slice(data),
            Packer::Zlib(c) => {
                c.reset();
                out.reserve(data.len() + data.len() / 1000 + 64);
                loop {
                    let done = usize::try_from(c.total_in()).unwrap_or(usize::MAX).min(data.len());
                    let status = c
                        .compress_vec(&data[done..], out, FlushCompress::Finish)
                        .map_err(|e| Error::Pack { algorithm: "zlib", why: e.to_string() })?;
                    match status {
                        Status::StreamEnd => break,
                        Status::Ok | Status::BufError => out.reserve(out.len() - start + 64),
                    }
                }
            }
            Packer::Zstd(c) => {
                let room = zstd::zstd_safe::compress_bound(data.len());
                out.resize(start + room, 0);
                let n = c
                    .compress_to_buffer(data, &mut out[start..])
                    .map_err(|e| Error::Pack { algorithm: "zstd", why: e.to_string() })?;
                out.truncate(start + n);
            }
        }
        Ok(())
    }
}

/// Unpacks blocks of one algorithm; keeps its working memory between blocks.
pub struct Decompressor(Unpacker);

enum Unpacker {
    None,
    Zlib(Box<Decompress>),
    Zstd(zstd::bulk::Decompressor<'static>),
}

impl Decompressor {
    /// A decompressor of `algorithm`.
    ///
    /// # Errors
    /// [`Error::Pack`] if the library cannot be set up.
    pub fn new(algorithm: Compression) -> Result<Self> {
        Ok(Decompressor(match algorithm {
            Compression::None => Unpacker::None,
            Compression::Zlib => Unpacker::Zlib(Box::new(Decompress::new(true))),
            Compression::Zstd => Unpacker::Zstd(
                zstd::bulk::Decompressor::new().map_err(|e| Error::Pack { algorithm: "zstd", why: e.to_string() })?,
            ),
        }))
    }

    /// Replaces the content of `out` by the unpacked form of `data`, which must have exactly `unpacked` bytes.
    ///
    /// `offset` is where `data` stands in its file, for messages. No more than what `data` can possibly hold is allocated.
    ///
    /// # Errors
    /// [`Error::Unpack`] if the data is damaged or has another size.
    pub fn decompress(&mut self, data: &[u8], unpacked: usize, offset: u64, out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        let algorithm = self.algorithm();
        let bad = |why: String| Error::Unpack { algorithm: algorithm.name(), offset, why };
        if unpacked as u64 > algorithm.max_unpacked(data.len()) {
            return Err(bad(format!("{} bytes cannot become {unpacked}", data.len())));
        }
        match &mut self.0 {
            Unpacker::None => out.extend_from_slice(data),
            Unpacker::Zlib(d) => {
                d.reset(true);
                out.reserve_exact(unpacked);
                out.resize(unpacked, 0);
                let status =
                    d.decompress(data, &mut out[..], FlushDecompress::Finish).map_err(|e| bad(e.to_string()))?;
                out.truncate(usize::try_from(d.total_out()).unwrap_or(0));
                if status != Status::StreamEnd {
                    return Err(bad(format!("does not end with {unpacked} bytes")));
                }
            }
            Unpacker::Zstd(d) => {
                out.reserve_exact(unpacked);
                out.resize(unpacked, 0);
                let n = d.decompress_to_buffer(data, &mut out[..]).map_err(|e| bad(e.to_string()))?;
                out.truncate(n);
            }
        }
        if out.len() != unpacked {
            return Err(bad(format!("gives {} bytes instead of {unpacked}", out.len())));
        }
        Ok(())
    }

    /// The algorithm it unpacks.
    pub fn algorithm(&self) -> Compression {
        match self.0 {
            Unpacker::None => Compression::None,
            Unpacker::Zlib(_) => Compression::Zlib,
            Unpacker::Zstd(_) => Compression::Zstd,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(n: usize) -> Vec<u8> {
        (0..n).map(|i| if i % 7 == 0 { (i / 11) as u8 } else { (i * i >> 5) as u8 }).collect()
    }

    #[test]
    fn what_is_packed_comes_back() {
        for algorithm in [Compression::None, Compression::Zlib, Compression::Zstd] {
            let (mut c, mut d) = (Compressor::new(algorithm).unwrap(), Decompressor::new(algorithm).unwrap());
            for n in [0, 1, 100, 4096, 40960, 300_000] {
                let data = sample(n);
                let mut packed = b"before".to_vec();
                c.compress(&data, &mut packed).unwrap();
                assert_eq!(&packed[..6], b"before");
                let mut back = vec![1, 2, 3];
                d.decompress(&packed[6..], n, 0, &mut back).unwrap();
                assert_eq!(back, data, "{algorithm:?} {n}");
            }
        }
    }

    #[test]
    fn wrong_sizes_and_bytes_are_errors() {
        for algorithm in [Compression::None, Compression::Zlib, Compression::Zstd] {
            let (mut c, mut d) = (Compressor::new(algorithm).unwrap(), Decompressor::new(algorithm).unwrap());
            let data = sample(5000);
            let mut packed = Vec::new();
            c.compress(&data, &mut packed).unwrap();
            let mut out = Vec::new();
            for wrong in [0, 4999, 5001, usize::MAX] {
                assert!(d.decompress(&packed, wrong, 0, &mut out).is_err(), "{algorithm:?} {wrong}");
            }
            assert!(d.decompress(&packed[..packed.len() / 2], 5000, 0, &mut out).is_err());
            assert!(out.capacity() < 1 << 20);
            d.decompress(&packed, 5000, 0, &mut out).unwrap();
        }
    }

    /// Frames have neither content size nor checksum, as the reference writes them.
    #[test]
    fn zstd_frame_header_is_the_references() {
        let mut out = Vec::new();
        Compressor::new(Compression::Zstd).unwrap().compress(&sample(452), &mut out).unwrap();
        assert_eq!(&out[..5], &[0x28, 0xb5, 0x2f, 0xfd, 0x00]);
    }
}
