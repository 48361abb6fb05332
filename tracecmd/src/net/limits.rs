//! What a peer may cost: counts, sizes and times.

use std::time::Duration;

/// Bounds of a listener. What a peer claims is checked against them before anything is allocated or opened.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Recordings at once.
    pub max_clients: usize,
    /// CPUs of one recording.
    pub max_cpus: u32,
    /// Largest sub-buffer, in bytes; smaller ones must be powers of two from 4096 up.
    pub max_subbuf: u32,
    /// Bytes that one recording may put on disk.
    pub max_size: u64,
    /// Bytes that all recordings of this listener together may put on disk.
    pub max_total: u64,
    /// Bytes of metadata (formats, symbols, options) of one recording.
    pub max_metadata: u64,
    /// Time for each step of the handshake.
    pub handshake: Duration,
    /// Time without any byte until and while metadata is sent: the client sets up its tracers meanwhile.
    pub metadata: Duration,
    /// Time without any byte, after the end of a recording, until what is missing counts as lost.
    pub drain: Duration,
    /// The same while data connections are open, which end by themselves.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_clients: 64,
            max_cpus: 1024,
            max_subbuf: 1 << 22,
            max_size: 1 << 40,
            max_total: 1 << 42,
            max_metadata: 1 << 30,
            handshake: Duration::from_secs(5),
            metadata: Duration::from_secs(120),
            drain: Duration::from_secs(2),
            stall: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// Checks the CPU count and sub-buffer size that a peer claims.
    ///
    /// # Errors
    /// What is out of bounds, as a sentence.
    pub fn check(&self, cpus: u32, subbuf: u32) -> Result<(), String> {
        if cpus == 0 || cpus > self.max_cpus {
            return Err(format!("{cpus} CPUs are not within 1..={}", self.max_cpus));
        }
        if subbuf < 4096 || subbuf > self.max_subbuf || !subbuf.is_power_of_two() {
            return Err(format!("a sub-buffer of {subbuf} bytes is no power of two within 4096..={}", self.max_subbuf));
        }
        Ok(())
    }
}
