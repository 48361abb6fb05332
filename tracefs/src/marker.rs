//! `trace_marker` and `trace_marker_raw`: a program's own records in the ring buffer.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::instance::Instance;

/// Text into the trace (`print` events; `trace_marker` since Linux 2.6.31, in instances since 3.10). The file stays open, a
/// write is one system call.
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
    ///
    /// # Errors
    /// [`Error::Io`], `EBADF` while the buffer is switched off (`tracing_on` is 0).
    pub fn write(&mut self, text: &str) -> Result<()> {
        self.bytes(text.as_bytes())
    }

    /// One record from `write!(marker, "{x} {y}")`, whatever it has of arguments.
    ///
    /// # Errors
    /// As [`write`](Marker::write).
    pub fn write_fmt(&mut self, args: std::fmt::Arguments<'_>) -> Result<()> {
        match args.as_str() {
            Some(text) => self.write(text),
            None => self.write(&args.to_string()),
        }
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        loop {
            match self.file.write(bytes) {
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("write", &self.path, e)),
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TraceFs;

    #[test]
    fn one_write_for_each_record() {
        let t = tempfile::tempdir().unwrap();
        let top = TraceFs::at(t.path()).top();
        assert!(Marker::open(&top).is_err(), "a control file is never created");
        std::fs::write(t.path().join("trace_marker"), "").unwrap();
        std::fs::write(t.path().join("trace_marker_raw"), "").unwrap();
        let mut m = Marker::open(&top).unwrap();
        m.write("a\n").unwrap();
        let n = 5;
        write!(m, "n={n} of {}", 7).unwrap();
        assert_eq!(top.dir().read("trace_marker").unwrap(), "a\nn=5 of 7");
        RawMarker::open(&top).unwrap().write(0x1234, b"xy").unwrap();
        let mut want = 0x1234u32.to_ne_bytes().to_vec();
        want.extend_from_slice(b"xy");
        assert_eq!(top.dir().read_bytes("trace_marker_raw").unwrap(), want);
    }
}
