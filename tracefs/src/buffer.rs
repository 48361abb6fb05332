//! Sizes of the ring buffer, its wake-up mark and statistics.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::instance::Instance;

/// Content of `buffer_size_kb`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferSize {
    /// Every CPU has this size in kilobytes.
    Kb(u64),
    /// Not used yet: this size now, `expanded_kb` from the first use on (`7 (expanded: 1408)`).
    Unexpanded {
        /// The size now.
        kb: u64,
        /// The size from the first use on.
        expanded_kb: u64,
    },
    /// The CPUs differ (`X`).
    Differ,
}

/// `per_cpu/cpuN/stats`. Numbers that a kernel does not give are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records in the buffer.
    pub entries: Option<u64>,
    /// Records lost because they were overwritten.
    pub overrun: Option<u64>,
    /// Records lost because an interrupt came while the buffer was full.
    pub commit_overrun: Option<u64>,
    /// Bytes not read yet.
    pub bytes: Option<u64>,
    /// Time of the oldest record, as written: seconds with fraction, or a raw number (by the clock).
    pub oldest: Option<String>,
    /// Time now, as written.
    pub now: Option<String>,
    /// Records dropped because the buffer does not overwrite.
    pub dropped: Option<u64>,
    /// Records read.
    pub read: Option<u64>,
}

impl Stats {
    /// Reads the text of a `stats` file.
    pub fn parse(text: &str) -> Stats {
        let mut s = Stats::default();
        for line in text.lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            let number = || value.parse().ok();
            match name.trim() {
                "entries" => s.entries = number(),
                "overrun" => s.overrun = number(),
                "commit overrun" => s.commit_overrun = number(),
                "bytes" => s.bytes = number(),
                "oldest event ts" => s.oldest = Some(value.to_owned()),
                "now ts" => s.now = Some(value.to_owned()),
                "dropped events" => s.dropped = number(),
                "read events" => s.read = number(),
                _ => {}
            }
        }
        s
    }

    /// Time of the oldest record in nanoseconds, or in ticks of the clock.
    pub fn oldest_ns(&self) -> Option<u64> {
        time(self.oldest.as_deref()?)
    }

    /// Time now in nanoseconds, or in ticks of the clock.
    pub fn now_ns(&self) -> Option<u64> {
        time(self.now.as_deref()?)
    }
}

fn time(text: &str) -> Option<u64> {
    match text.split_once('.') {
        // Seconds with microseconds.
        Some((s, f)) => {
            let digits = f.len().min(9);
            let fraction: u64 = f.get(..digits)?.parse().ok()?;
            let scale = 10u64.pow(9 - digits as u32);
            s.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(fraction * scale)
        }
        None => text.parse().ok(),
    }
}

impl Instance {
    fn size_file(&self, cpu: Option<u32>) -> Result<PathBuf> {
        Ok(match cpu {
            None => PathBuf::from("buffer_size_kb"),
            Some(cpu) => {
                self.cpu_dir(cpu)?;
                PathBuf::from(format!("per_cpu/cpu{cpu}/buffer_size_kb"))
            }
        })
    }

    /// `buffer_size_kb` of one CPU or of all.
    pub fn buffer_size(&self, cpu: Option<u32>) -> Result<BufferSize> {
        let file = self.size_file(cpu)?;
        let text = self.dir().read_trimmed(&file)?;
        parse_size(&text).ok_or_else(|| Error::Text { path: self.file(file), text, expected: "a size in kilobytes" })
    }

    /// Sets the size in kilobytes per CPU, for one CPU or all.
    pub fn set_buffer_size_kb(&self, kb: u64, cpu: Option<u32>) -> Result<()> {
        self.dir().write(self.size_file(cpu)?, &kb.to_string())
    }

    /// `buffer_total_size_kb`: all CPUs together.
    pub fn buffer_total_size_kb(&self) -> Result<u64> {
        let text = self.dir().read_trimmed("buffer_total_size_kb")?;
        match parse_size(&text) {
            Some(BufferSize::Kb(kb) | BufferSize::Unexpanded { kb, .. }) => Ok(kb),
            _ => Err(Error::Text { path: self.file("buffer_total_size_kb"), text, expected: "a size in kilobytes" }),
        }
    }

    /// `buffer_subbuf_size_kb`, since Linux 6.8; `None` before.
    pub fn subbuf_size_kb(&self) -> Result<Option<u64>> {
        match self.dir().read_number("buffer_subbuf_size_kb") {
            Err(e) if e.is_missing() => Ok(None),
            other => Ok(Some(other?.max(0) as u64)),
        }
    }

    /// Sets `buffer_subbuf_size_kb` (the kernel rounds up to a power of two pages). Empties the buffer.
    pub fn set_subbuf_size_kb(&self, kb: u64) -> Result<()> {
        self.dir().require("buffer_subbuf_size_kb", "sub-buffers of other sizes, since Linux 6.8")?;
        self.dir().write("buffer_subbuf_size_kb", &kb.to_string())
    }

    /// `buffer_percent`: how full a CPU's buffer must be to wake a waiting reader (since Linux 5.0); `None` before.
    pub fn buffer_percent(&self) -> Result<Option<u8>> {
        match self.dir().read_number("buffer_percent") {
            Err(e) if e.is_missing() => Ok(None),
            other => Ok(Some(other?.clamp(0, 100) as u8)),
        }
    }

    /// Sets `buffer_percent` (0 wakes with the first record, 100 when full).
    pub fn set_buffer_percent(&self, percent: u8) -> Result<()> {
        self.dir().require("buffer_percent", "since Linux 5.0")?;
        self.dir().write("buffer_percent", &percent.to_string())
    }

    /// `per_cpu/cpuN/stats` as written.
    pub fn stats_text(&self, cpu: u32) -> Result<String> {
        self.cpu_dir(cpu)?.read("stats")
    }

    /// `per_cpu/cpuN/stats`.
    pub fn stats(&self, cpu: u32) -> Result<Stats> {
        Ok(Stats::parse(&self.stats_text(cpu)?))
    }
}

fn parse_size(text: &str) -> Option<BufferSize> {
    if text == "X" {
        return Some(BufferSize::Differ);
    }
    match text.split_once('(') {
        None => Some(BufferSize::Kb(text.trim().parse().ok()?)),
        Some((kb, rest)) => {
            let expanded = rest.trim_end_matches(')').split_once(':')?.1;
            Some(BufferSize::Unexpanded { kb: kb.trim().parse().ok()?, expanded_kb: expanded.trim().parse().ok()? })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("1408"), Some(BufferSize::Kb(1408)));
        assert_eq!(parse_size("7 (expanded: 1408)"), Some(BufferSize::Unexpanded { kb: 7, expanded_kb: 1408 }));
        assert_eq!(parse_size("X"), Some(BufferSize::Differ));
        assert_eq!(parse_size("abc"), None);
    }

    #[test]
    fn statistics() {
        let s = Stats::parse(
            "entries: 5\noverrun: 2\ncommit overrun: 0\nbytes: 260\noldest event ts:  1234.567890\nnow ts:  1235.000001\n\
             dropped events: 0\nread events: 7\nnew thing: 4\n",
        );
        assert_eq!((s.entries, s.overrun, s.commit_overrun, s.read), (Some(5), Some(2), Some(0), Some(7)));
        assert_eq!(s.oldest_ns(), Some(1_234_567_890_000));
        assert_eq!(s.now_ns(), Some(1_235_000_001_000));
        assert_eq!(Stats::parse("oldest event ts: 77\n").oldest_ns(), Some(77));
        assert_eq!(Stats::parse("nothing").overrun, None);
    }
}
