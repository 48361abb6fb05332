//! `trace_marker` and `trace_marker_raw`: a program's own records in the ring buffer.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::instance::Instance;

/// Text into the trace (`print` events). The file stays open, a write is one system call.
#[derive(Debug)]
pub struct Marker {
    file: File,
    path: PathBuf,
}

impl Marker {
    /// Opens `trace_marker` of an instance.
    pub fn open(instance: &Instance) -> Result<Marker> {
        Marker::open_file(instance, "trace_marker")
    }

    fn open_file(instance: &Instance, name: &str) -> Result<Marker> {
        let path = instance.file(name);
        let file = OpenOptions::new().append(true).open(&path).map_err(|e| Error::io("open", &path, e))?;
        Ok(Marker { file, path })
    }

    /// One record. The kernel cuts what does not fit a sub-buffer.
    pub fn write(&mut self, text: &str) -> Result<()> {
        self.bytes(text.as_bytes())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write(bytes).map(drop).map_err(|e| Error::io("write", &self.path, e))
    }
}

impl std::fmt::Write for Marker {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        Marker::write(self, s).map_err(|_| std::fmt::Error)
    }
}

/// Bytes into the trace (`raw_data` events), since Linux 4.10.
#[derive(Debug)]
pub struct RawMarker(Marker);

impl RawMarker {
    /// Opens `trace_marker_raw` of an instance.
    pub fn open(instance: &Instance) -> Result<RawMarker> {
        Marker::open_file(instance, "trace_marker_raw").map(RawMarker)
    }

    /// One record: `id` and the bytes that belong to it.
    pub fn write(&mut self, id: u32, data: &[u8]) -> Result<()> {
        let mut bytes = id.to_ne_bytes().to_vec();
        bytes.extend_from_slice(data);
        self.0.bytes(&bytes)
    }
}
