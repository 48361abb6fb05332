//! The ring buffer as the kernel lays it out: sub-buffers, their records, and the CPUs merged by time.

pub mod block;
pub(crate) mod feed;
pub mod merge;
pub mod record;
pub mod stream;
pub mod subbuf;

pub use feed::Chunk;
