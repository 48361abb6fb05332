//! One event of the ring buffer.

/// Events that the kernel dropped before a record because the buffer was full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lost {
    /// Nothing was lost.
    #[default]
    None,
    /// Events were lost; the kernel did not store how many.
    Unknown,
    /// So many events were lost.
    Count(u64),
}

/// One event of the ring buffer: its time and its bytes.
///
/// The bytes begin with the `common_*` fields (`common_type` first) and are in the byte order of the recording machine.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Time as stored, without any correction. Unit: that of the trace clock, nanoseconds for most.
    pub ts: u64,
    /// CPU that wrote the event.
    pub cpu: u32,
    /// What was lost before this record.
    pub lost: Lost,
    /// The event: length a multiple of 4, padding included.
    pub data: &'a [u8],
    /// Where `data` starts in the file; for compressed data in the unpacked data of the CPU.
    pub offset: u64,
}
