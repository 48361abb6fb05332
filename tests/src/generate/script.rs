//! What is repeated on a CPU: records with the time from one to the next.

use std::path::Path;

use anyhow::{Context, Result};
use trace_dat::{Endian, LongSize, TraceFile, write::Metadata};

use super::Plan;

/// Records of real files that are kept at most, in bytes.
const KEPT: usize = 256 << 20;

/// One record.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Nanoseconds from the record before, relative to the mean of the script.
    pub delta: u64,
    /// Where its bytes lie in the script.
    start: u32,
    len: u32,
}

/// The records of each CPU; CPUs of the file beyond them begin again at the first.
#[derive(Clone, Debug)]
pub struct Script {
    /// Byte order of the records.
    pub endian: Endian,
    /// Long size of the machine.
    pub long_size: LongSize,
    bytes: Vec<u8>,
    cpus: Vec<Vec<Step>>,
}

impl Script {
    /// Without records.
    pub fn new(endian: Endian, long_size: LongSize) -> Self {
        Script { endian, long_size, bytes: Vec::new(), cpus: Vec::new() }
    }

    /// Begins the next CPU.
    pub fn next_cpu(&mut self) {
        self.cpus.push(Vec::new());
    }

    /// Appends a record to the CPU begun last; its length becomes a multiple of 4.
    pub fn push(&mut self, delta: u64, record: &[u8]) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(record);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let len = self.bytes.len() as u32 - start;
        self.cpus.last_mut().expect("a CPU").push(Step { delta, start, len });
    }

    /// Whether there is nothing to repeat.
    pub fn is_empty(&self) -> bool {
        self.cpus.is_empty()
    }

    /// The records of a CPU.
    pub fn steps(&self, cpu: u32) -> &[Step] {
        &self.cpus[cpu as usize % self.cpus.len()]
    }

    /// The bytes of a record.
    #[inline]
    pub fn bytes(&self, step: &Step) -> &[u8] {
        &self.bytes[step.start as usize..][..step.len as usize]
    }

    /// The mean distance in time of a CPU's records, at least 1.
    pub fn mean(&self, cpu: u32) -> u64 {
        let steps = self.steps(cpu);
        (steps.iter().map(|s| s.delta).sum::<u64>() / steps.len().max(1) as u64).max(1)
    }
}

/// Formats, symbols and events of a real file.
pub fn of_file(plan: &Plan, path: &Path) -> Result<(Metadata, Script)> {
    let file = TraceFile::open(path).with_context(|| path.display().to_string())?;
    let mut meta = Metadata::of(&file)?;
    meta.cpus = plan.cpus;
    let plan = Plan { endian: file.endian(), long_size: file.long_size(), ..plan.clone() };
    // The sub-buffers are those of the plan, and the statistics those of the file are not.
    let own = super::metadata(&plan);
    meta.sections.retain(|s| s.id != own.sections[0].id);
    meta.sections.insert(0, own.sections[0].clone());
    meta.options.clear();
    super::options(&mut meta, &plan);
    let mut script = Script::new(file.endian(), file.long_size());
    for buffer in file.buffers() {
        for cpu in buffer.cpus.iter().filter(|c| c.size > 0) {
            let mut stream = file.stream(buffer, cpu, 1)?;
            let mut before = None;
            while let Some(record) = stream.next_record() {
                if before.is_none() {
                    script.next_cpu();
                }
                script.push(before.map_or(1000, |b| record.ts.saturating_sub(b)), record.data);
                before = Some(record.ts);
                if script.bytes.len() > KEPT {
                    return Ok((meta, script));
                }
            }
        }
    }
    Ok((meta, script))
}
