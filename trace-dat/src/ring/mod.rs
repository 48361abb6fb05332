//! The ring buffer as the kernel lays it out: sub-buffers, their records, and the CPUs merged by time.

pub mod record;
