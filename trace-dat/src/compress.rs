//! none, zlib and zstd: one chunk in, one chunk out.
//!
//! A [`Compressor`] or [`Decompressor`] keeps its contexts, so that a thread pays for them once.

use std::io::Read;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, ResetDirective, get_error_name};

use crate::{Error, Result, source::Source};

/// How the sections of a version 7 file are compressed.
///
/// Source: trace-cmd.dat.v7(5), "INITIAL FORMAT".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Not at all.
    None,
    /// zlib stream (RFC 1950).
    Zlib,
    /// Zstandard frame (RFC 8878).
    Zstd,
}

impl Codec {
    /// The name in the file header: `none`, `zlib`, `zstd`.
    pub fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Zlib => "zlib",
            Codec::Zstd => "zstd",
        }
    }

    /// Version of the library that packs, written into the file header behind the name; readers do not depend on it.
    pub fn version(self) -> &'static str {
        match self {
            Codec::None => "",
            // The release of zlib whose streams zlib-rs makes.
            Codec::Zlib => "1.3.0",
            Codec::Zstd => zstd::zstd_safe::version_string(),
        }
    }

    /// The codec of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "none" => Codec::None,
            "zlib" => Codec::Zlib,
            "zstd" => Codec::Zstd,
            _ => return None,
        })
    }
}

/// Unpacked metadata is never larger than this, whatever its header claims.
pub const METADATA_MAX: u64 = 512 << 20;

/// Level of zlib: those above take much longer for less than a percent of size.
const ZLIB_LEVEL: u32 = 6;
/// Level of zstd. Chunks of trace data become as small as with 3, the level of the reference, or smaller, with a sixth less time.
const ZSTD_LEVEL: i32 = 2;

/// Unpacks chunks.
#[derive(Default)]
pub struct Decompressor {
    zlib: Option<Decompress>,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    /// For the first bytes of chunks.
    heads: Option<DCtx<'static>>,
}

impl std::fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decompressor")
    }
}

fn damaged(offset: u64, codec: Codec, why: impl std::fmt::Display) -> Error {
    Error::Compressed { offset, codec: codec.name(), why: why.to_string() }
}

/// The unpacked bytes, one after the other.
fn reader(codec: Codec, packed: &[u8]) -> std::io::Result<Box<dyn Read + '_>> {
    Ok(match codec {
        Codec::None => Box::new(packed),
        Codec::Zlib => Box::new(flate2::bufread::ZlibDecoder::new(packed)),
        Codec::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(packed)?),
    })
}

impl Decompressor {
    /// Without contexts; they are made when first needed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Unpacks one chunk into `out`; the number of bytes it gave. `offset` is the chunk's place in the file, for messages.
    ///
    /// # Errors
    /// [`Error::Compressed`] when the chunk is damaged or holds more than `out` has room for.
    pub fn unpack(&mut self, codec: Codec, offset: u64, packed: &[u8], out: &mut [u8]) -> Result<usize> {
        match codec {
            Codec::None => {
                let Some(to) = out.get_mut(..packed.len()) else {
                    return Err(damaged(offset, codec, "larger than it says"));
                };
                to.copy_from_slice(packed);
                Ok(packed.len())
            }
            Codec::Zstd => {
                let zstd = match &mut self.zstd {
                    Some(z) => z,
                    none => none.insert(zstd::bulk::Decompressor::new().map_err(|e| damaged(offset, codec, e))?),
                };
                zstd.decompress_to_buffer(packed, out).map_err(|e| damaged(offset, codec, e))
            }
            Codec::Zlib => {
                let z = self.zlib.get_or_insert_with(|| Decompress::new(true));
                z.reset(true);
                match z.decompress(packed, out, FlushDecompress::Finish) {
                    Ok(Status::StreamEnd) => Ok(usize::try_from(z.total_out()).unwrap_or(out.len()).min(out.len())),
                    Ok(_) => Err(damaged(offset, codec, "cut off, or larger than it says")),
                    Err(e) => Err(damaged(offset, codec, e)),
                }
            }
        }
    }

    /// Unpacks the first bytes of a chunk, until `out` is full or the chunk ends or is damaged; how many there are.
    ///
    /// # Errors
    /// [`Error::Compressed`] when not a single byte can be had.
    pub fn unpack_head(&mut self, codec: Codec, offset: u64, packed: &[u8], out: &mut [u8]) -> Result<usize> {
        if codec == Codec::Zstd {
            return self.unpack_zstd_head(packed, out).map_err(|e| damaged(offset, codec, e));
        }
        fn fill(mut r: impl Read, out: &mut [u8]) -> std::io::Result<usize> {
            let mut done = 0;
            while let Some(rest) = out.get_mut(done..).filter(|r| !r.is_empty()) {
                match r.read(rest) {
                    Ok(0) => break,
                    Ok(n) => done += n,
                    Err(e) if done == 0 => return Err(e),
                    Err(_) => break,
                }
            }
            Ok(done)
        }
        reader(codec, packed).and_then(|r| fill(r, out)).map_err(|e| damaged(offset, codec, e))
    }

    /// As [`Decompressor::unpack_head`], with a context that is kept: one made for each chunk takes longer than the chunk.
    fn unpack_zstd_head(&mut self, packed: &[u8], out: &mut [u8]) -> std::result::Result<usize, &'static str> {
        let zstd = match &mut self.heads {
            Some(z) => z,
            none => none.insert(DCtx::try_create().ok_or("no memory")?),
        };
        zstd.reset(ResetDirective::SessionOnly).map_err(get_error_name)?;
        let (mut to, mut from) = (OutBuffer::around(out), InBuffer::around(packed));
        while to.pos() < to.capacity() {
            let before = (to.pos(), from.pos());
            match zstd.decompress_stream(&mut to, &mut from) {
                Err(error) if to.pos() == 0 => return Err(get_error_name(error)),
                Err(_) => break,
                Ok(_) if before == (to.pos(), from.pos()) => break,
                Ok(_) => {}
            }
        }
        Ok(to.pos())
    }

    /// Unpacks metadata that says it has `claimed` bytes. Memory grows with what really comes out.
    ///
    /// # Errors
    /// [`Error::Compressed`] when it is damaged, or is larger than it says.
    pub fn unpack_vec(&mut self, codec: Codec, offset: u64, packed: &[u8], claimed: u64) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.unpack_into(codec, offset, packed, claimed, &mut out)?;
        Ok(out)
    }

    /// As [`Decompressor::unpack_vec`], into a vector that is used again.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn unpack_into(
        &mut self,
        codec: Codec,
        offset: u64,
        packed: &[u8],
        claimed: u64,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let claimed = metadata_len(offset, claimed)?;
        out.clear();
        if claimed <= packed.len().saturating_mul(100).max(1 << 20) {
            if out.capacity() < claimed {
                // Zeros of the system need not be written.
                *out = vec![0; claimed];
            } else {
                out.resize(claimed, 0);
            }
            let n = self.unpack(codec, offset, packed, out)?;
            out.truncate(n);
            return Ok(());
        }
        let limit = claimed as u64 + 1;
        let done = reader(codec, packed).and_then(|r| r.take(limit).read_to_end(out));
        done.map_err(|e| damaged(offset, codec, e))?;
        if out.len() > claimed {
            return Err(damaged(offset, codec, "larger than it says"));
        }
        Ok(())
    }
}

/// The unpacked length that metadata claims to have, unless it is too large to be true.
pub(crate) fn metadata_len(offset: u64, claimed: u64) -> Result<usize> {
    match usize::try_from(claimed) {
        Ok(len) if claimed <= METADATA_MAX => Ok(len),
        _ => {
            let why = "bytes unpacked are more than any metadata has";
            Err(Error::BadValue { what: "compressed section", offset, value: claimed, why })
        }
    }
}

/// Bytes of packed metadata that are read at once.
const PIECE: usize = 64 << 10;

/// Unpacks metadata of `size` bytes at `offset` of a file while it is read, to the start of `out`, whose length is what it says to have;
/// how many bytes it gave.
///
/// # Errors
/// As [`Decompressor::unpack_vec`], [`Error::Truncated`], [`Error::Io`].
pub(crate) fn unpack_from(
    codec: Codec,
    source: &Source,
    (what, offset, size): (&'static str, u64, u64),
    out: &mut [u8],
) -> Result<usize> {
    if codec != Codec::Zstd {
        return Decompressor::new().unpack(codec, offset, &source.read_vec(what, offset, size)?, out);
    }
    source.check(what, offset, size)?;
    let fail = |code| damaged(offset, codec, get_error_name(code));
    let mut zstd = DCtx::try_create().ok_or_else(|| damaged(offset, codec, "no memory"))?;
    // What was unpacked is looked up where it lies: no window beside it.
    zstd.set_parameter(DParameter::StableOutBuffer(true)).map_err(fail)?;
    let (mut to, mut done, mut left) = (OutBuffer::around(out), 0, 0);
    let mut piece = vec![0; PIECE.min(usize::try_from(size).unwrap_or(PIECE))];
    while done < size {
        let len = usize::try_from(size - done).unwrap_or(PIECE).min(piece.len());
        let part = piece.get_mut(..len).unwrap_or_default();
        source.read_exact_at(what, offset.saturating_add(done), part)?;
        let mut from = InBuffer::around(part);
        while from.pos() < len {
            let before = (to.pos(), from.pos());
            left = zstd.decompress_stream(&mut to, &mut from).map_err(fail)?;
            if before == (to.pos(), from.pos()) {
                return Err(damaged(offset, codec, "larger than it says"));
            }
        }
        done += len as u64;
    }
    if left != 0 {
        return Err(damaged(offset, codec, "cut off, or larger than it says"));
    }
    Ok(to.pos())
}

/// Packs chunks.
pub struct Compressor {
    codec: Codec,
    zlib: Option<Compress>,
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Compressor({})", self.codec.name())
    }
}

impl Compressor {
    /// A compressor; its context is made when first needed.
    pub fn new(codec: Codec) -> Self {
        Compressor { codec, zlib: None, zstd: None }
    }

    /// What it makes.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Appends the packed form of `data` to `out`; the number of bytes appended.
    ///
    /// # Errors
    /// [`Error::Compressed`] when the library gives up (out of memory).
    pub fn pack(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<usize> {
        let start = out.len();
        let codec = self.codec;
        let fail = |e: std::io::Error| damaged(0, codec, e);
        match codec {
            Codec::None => out.extend_from_slice(data),
            Codec::Zstd => {
                let zstd = match &mut self.zstd {
                    Some(z) => z,
                    none => {
                        let z = none.insert(zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(fail)?);
                        // Frames without content size, as the reference writes them.
                        z.include_contentsize(false).map_err(fail)?;
                        z
                    }
                };
                out.reserve(zstd::zstd_safe::compress_bound(data.len()));
                let mut end = std::io::Cursor::new(&mut *out);
                end.set_position(start as u64);
                zstd.compress_to_buffer(data, &mut end).map_err(fail)?;
            }
            Codec::Zlib => {
                let z = self.zlib.get_or_insert_with(|| Compress::new(Compression::new(ZLIB_LEVEL), true));
                z.reset();
                loop {
                    out.reserve(data.len() / 2 + 1024);
                    let done = usize::try_from(z.total_in()).unwrap_or(data.len());
                    let rest = data.get(done..).unwrap_or_default();
                    match z.compress_vec(rest, out, FlushCompress::Finish) {
                        Ok(Status::StreamEnd) => break,
                        Ok(_) => {}
                        Err(e) => return Err(damaged(0, codec, e)),
                    }
                }
            }
        }
        Ok(out.len() - start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let data: Vec<u8> = (0..100_000u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
        for codec in [Codec::None, Codec::Zlib, Codec::Zstd] {
            assert_eq!(Codec::from_name(codec.name()), Some(codec));
            let mut c = Compressor::new(codec);
            let mut d = Decompressor::new();
            for part in [&data[..], &data[..40960], &[]] {
                let mut packed = b"before".to_vec();
                let n = c.pack(part, &mut packed).unwrap();
                let packed = &packed[6..];
                assert_eq!(packed.len(), n);
                let mut out = vec![0; part.len()];
                assert_eq!(d.unpack(codec, 0, packed, &mut out).unwrap(), part.len());
                assert_eq!(out, part);
                assert_eq!(d.unpack_vec(codec, 0, packed, part.len() as u64).unwrap(), part);
                if part.len() > 100 {
                    let mut head = [0; 100];
                    assert_eq!(d.unpack_head(codec, 0, packed, &mut head).unwrap(), 100);
                    assert_eq!(head, part[..100]);
                    // Too little room, cut off, and damaged.
                    assert!(d.unpack(codec, 0, packed, &mut vec![0; part.len() - 1]).is_err());
                    if codec != Codec::None {
                        let mut out = vec![0; part.len()];
                        assert!(d.unpack(codec, 0, &packed[..n / 2], &mut out).is_err());
                        assert!(d.unpack(codec, 0, &[0xff; 64], &mut out).is_err());
                    }
                }
            }
        }
    }

    #[test]
    fn a_bomb_is_stopped() {
        let zeros = vec![0; 64 << 20];
        for codec in [Codec::Zlib, Codec::Zstd] {
            let mut packed = Vec::new();
            Compressor::new(codec).pack(&zeros, &mut packed).unwrap();
            let mut d = Decompressor::new();
            assert!(d.unpack_vec(codec, 0, &packed, 4096).is_err());
            assert!(d.unpack_vec(codec, 0, &packed, 8 << 20).is_err());
            assert!(d.unpack_vec(codec, 0, &packed, u64::MAX).is_err());
            assert!(d.unpack(codec, 0, &packed, &mut [0; 4096]).is_err());
        }
    }
}
