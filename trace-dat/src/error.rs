//! What can go wrong, with the place in the file.

use std::{io, path::PathBuf};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can be wrong with a trace file or a piece of it.
///
/// A message does not repeat its source; a program prints the chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("{path}: cannot {what}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried, a verb: `open`, `read`.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The file does not begin with the magic of a trace.dat file.
    #[error("{path}: not a trace.dat file (no magic at its start)")]
    NotTraceDat {
        /// The file.
        path: PathBuf,
    },
    /// The file ends, or a length points past the end of what holds it.
    #[error("{what} at {offset:#x}: needs {need} bytes, {have} are there")]
    Truncated {
        /// The thing that was read.
        what: &'static str,
        /// Where it begins, in bytes from the start of the file.
        offset: u64,
        /// Bytes it should have.
        need: u64,
        /// Bytes that are there.
        have: u64,
    },
    /// A number that no valid file has.
    #[error("{what} at {offset:#x}: {value} {why}")]
    BadValue {
        /// The thing that was read.
        what: &'static str,
        /// Where it stands, in bytes from the start of the file.
        offset: u64,
        /// The number.
        value: u64,
        /// What is wrong with it, to be read after the number: `is not a power of two`.
        why: &'static str,
    },
    /// A sub-buffer's commit word points past its data.
    #[error("sub-buffer at {offset:#x}: commit {commit} is larger than its {room} data bytes")]
    Commit {
        /// Offset of the sub-buffer in the file.
        offset: u64,
        /// The commit count, in bytes.
        commit: u64,
        /// Bytes after the header.
        room: u64,
    },
    /// Something that a file must have is not where it should be.
    #[error("{what} is missing at {offset:#x}")]
    Missing {
        /// What should be there.
        what: &'static str,
        /// Where, in bytes from the start of the file.
        offset: u64,
    },
    /// The file is compressed in a way that is not known here.
    #[error("unknown compression {name:?}")]
    UnknownCompression {
        /// The algorithm's name in the file header.
        name: String,
    },
    /// A record in a sub-buffer that cannot be.
    #[error("record at {at:#x} of the sub-buffer at {offset:#x}: {why}")]
    Record {
        /// Offset of the sub-buffer: in the file, or for compressed data in the unpacked data of the CPU.
        offset: u64,
        /// Offset of the record in the sub-buffer.
        at: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// An event's `format` text cannot be understood.
    #[error("format of {system}:{event}: {why} at byte {at}")]
    Format {
        /// The event system.
        system: String,
        /// The event, empty when its name could not be read.
        event: String,
        /// Byte offset in the format text.
        at: usize,
        /// What was expected.
        why: String,
    },
    /// A filter of `report -F` cannot be understood.
    #[error("filter {filter:?}: {why} at byte {at}")]
    Filter {
        /// The whole filter text.
        filter: String,
        /// Byte offset in it.
        at: usize,
        /// What was expected.
        why: String,
    },
    /// Compressed data is damaged, or the compression library fails.
    #[error("{codec} data at {offset:#x}: {why}")]
    Compressed {
        /// Where the compressed bytes begin in the file.
        offset: u64,
        /// Name of the codec.
        codec: &'static str,
        /// What the library found.
        why: String,
    },
    /// Something cannot be stored in a file of the chosen version.
    #[error("cannot be written: {0}")]
    Unwritable(String),
}
