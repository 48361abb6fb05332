//! Snapshots: a second buffer that is swapped with the live one (since Linux 3.9, `CONFIG_TRACER_SNAPSHOT`).

use crate::error::Result;
use crate::instance::Instance;

/// What is written to `snapshot`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotAction {
    /// 0: give the memory back.
    Free,
    /// 1: swap the buffers; allocates the second one if needed.
    Take,
    /// 2: empty the snapshot.
    Clear,
}

impl Instance {
    /// The name of the snapshot file, of one CPU or of all.
    fn snapshot_file(&self, cpu: Option<u32>) -> Result<String> {
        let file = match cpu {
            None => "snapshot".to_owned(),
            Some(cpu) => {
                self.cpu_dir(cpu)?;
                format!("per_cpu/cpu{cpu}/snapshot")
            }
        };
        self.dir().require(&file, "snapshots, CONFIG_TRACER_SNAPSHOT, since Linux 3.9")?;
        Ok(file)
    }

    /// Takes, clears or frees the snapshot of one CPU or of all.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) without snapshots in this kernel;
    /// [`Error::Busy`](crate::Error::Busy) while a latency tracer uses it.
    pub fn snapshot(&self, action: SnapshotAction, cpu: Option<u32>) -> Result<()> {
        let value = match action {
            SnapshotAction::Free => "0",
            SnapshotAction::Take => "1",
            SnapshotAction::Clear => "2",
        };
        self.dir().write(self.snapshot_file(cpu)?, value)
    }

    /// The snapshot as text.
    pub fn snapshot_text(&self, cpu: Option<u32>) -> Result<Vec<u8>> {
        self.dir().read_bytes(self.snapshot_file(cpu)?)
    }

    /// True when a snapshot buffer is allocated.
    pub fn has_snapshot(&self) -> Result<bool> {
        // The whole text of a large snapshot takes long.
        let bytes = self.dir().read_head(self.snapshot_file(None)?, 4096)?;
        Ok(!String::from_utf8_lossy(&bytes).contains("Snapshot is freed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, TraceFs};

    #[test]
    fn files() {
        let t = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(t.path().join("per_cpu/cpu1")).unwrap();
        let top = TraceFs::at(t.path()).top();
        assert!(matches!(top.snapshot(SnapshotAction::Take, None), Err(Error::Unsupported { .. })));
        std::fs::write(t.path().join("snapshot"), "# * Snapshot is freed *\n").unwrap();
        std::fs::write(t.path().join("per_cpu/cpu1/snapshot"), "").unwrap();
        assert!(!top.has_snapshot().unwrap());
        top.snapshot(SnapshotAction::Clear, Some(1)).unwrap();
        assert_eq!(top.dir().read("per_cpu/cpu1/snapshot").unwrap(), "2");
        assert!(matches!(top.snapshot(SnapshotAction::Free, Some(7)), Err(Error::NoCpu { .. })));
    }
}
