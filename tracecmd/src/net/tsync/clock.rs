//! Times of this machine's trace clock: markers are written into an instance and read back with their times.

use anyhow::{Context, Result};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use trace_dat::{LongSize, ring::subbuf::SubBufLayout};
use tracefs::{CpuReader, Instance, RawMarker, TraceFs};

use crate::tracefile::HOST_ENDIAN;

/// A marker and when it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Time in units of the clock.
    pub ts: u64,
    /// The marker: its first word is the id that the kernel shows.
    pub data: Vec<u8>,
}

/// An instance with the clock of a recording.
#[derive(Debug)]
pub struct SyncClock {
    readers: Vec<CpuReader>,
    marker: Option<RawMarker>,
    instance: Option<Instance>,
    layout: SubBufLayout,
    raw_data: u64,
}

impl SyncClock {
    /// Makes the instance `clock_synch-ID`; it is removed when this is dropped.
    ///
    /// # Errors
    /// The kernel has no raw markers (before Linux 4.10), or refuses the instance.
    pub fn new(root: &TraceFs, id: i64, clock: &str) -> Result<SyncClock> {
        let instance = root.create_instance(&format!("clock_synch-{id}"))?;
        instance.set_clock(clock)?;
        instance.set_on(true)?;
        instance.clear(None)?;
        let format = instance.root().dir().read("events/ftrace/raw_data/format")?;
        let raw_data = format
            .lines()
            .find_map(|l| l.strip_prefix("ID:"))
            .and_then(|id| id.trim().parse().ok())
            .context("the format of raw_data has no ID")?;
        let size = instance.subbuf_size()?;
        let long_size = if size_of::<usize>() == 4 { LongSize::Four } else { LongSize::Eight };
        let layout = SubBufLayout {
            endian: HOST_ENDIAN,
            commit_size: long_size,
            data_offset: 8 + long_size.bytes(),
            size,
            old_format: false,
        };
        let readers = instance.cpus()?.into_iter().map(|c| CpuReader::open(&instance, c)).collect::<Result<_, _>>()?;
        let marker = RawMarker::open(&instance)?;
        Ok(SyncClock { readers, marker: Some(marker), instance: Some(instance), layout, raw_data })
    }

    /// Forgets all markers so far.
    ///
    /// # Errors
    /// As the kernel.
    pub fn clear(&mut self) -> Result<()> {
        if let Some(i) = &self.instance {
            // Whoever starts or stops a recording on this machine may switch every instance off.
            i.set_on(true)?;
            i.clear(None)?;
        }
        // What a reader holds already is not in the buffer any more.
        self.read().map(drop)
    }

    /// Writes a marker. Without it a sample is only less sure: somebody may have switched the instance off a moment ago, which is
    /// undone.
    ///
    /// # Errors
    /// As the kernel.
    pub fn mark(&mut self, id: u32, data: &[u8]) -> Result<()> {
        let Some(m) = &mut self.marker else { return Ok(()) };
        match m.write(id, data) {
            Err(tracefs::Error::Io { source, .. }) if source.raw_os_error() == Some(libc::EBADF) => {
                self.instance.iter().try_for_each(|i| i.set_on(true))?;
                let _ = m.write(id, data);
                Ok(())
            }
            done => Ok(done?),
        }
    }

    /// Takes all markers.
    ///
    /// # Errors
    /// As the kernel.
    pub fn read(&mut self) -> Result<Vec<Mark>> {
        let mut marks = Vec::new();
        for reader in &mut self.readers {
            while let Some(bytes) = reader.read()? {
                for item in self.layout.items(bytes, 0)? {
                    let item = item?;
                    // Behind the common fields (8 bytes) come the id and the bytes of the marker.
                    let kind = HOST_ENDIAN.uint(item.data, 0, 2);
                    if let Some(data) = item.data.get(8..)
                        && kind == Some(self.raw_data)
                    {
                        marks.push(Mark { ts: item.ts, data: data.to_vec() });
                    }
                }
            }
        }
        marks.sort_by_key(|m| m.ts);
        Ok(marks)
    }
}

impl Drop for SyncClock {
    fn drop(&mut self) {
        // An open file would keep the instance.
        self.readers.clear();
        self.marker = None;
        if let Some(i) = self.instance.take()
            && let Err(e) = i.remove()
        {
            log::warn!("{e}");
        }
    }
}

/// Moves this thread to a CPU, if that is possible.
pub fn run_on(cpu: usize) {
    let mut set = CpuSet::new();
    if set.set(cpu).is_ok() {
        let _ = sched_setaffinity(Pid::from_raw(0), &set);
    }
}
