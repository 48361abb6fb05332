//! The initial file system of a guest: a `newc` cpio archive, written here so that no tool is needed.
//!
//! Source of the format: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.

use std::collections::BTreeSet;
use std::path::Path;

/// An archive in the making.
#[derive(Debug, Default)]
pub struct Image {
    bytes: Vec<u8>,
    names: BTreeSet<String>,
}

impl Image {
    /// An empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory with all directories above it.
    pub fn dir(&mut self, path: &str) {
        let path = path.trim_start_matches('/');
        if path.is_empty() || self.names.contains(path) {
            return;
        }
        if let Some((above, _)) = path.rsplit_once('/') {
            self.dir(above);
        }
        self.entry(path, 0o40755, &[]);
    }

    /// Adds a file with its directories; a second file of the same name is left out.
    pub fn file(&mut self, path: &str, mode: u32, data: &[u8]) {
        self.add(path, 0o100_000 | mode, data);
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.add(path, 0o120_777, target.as_bytes());
    }

    /// Adds a file of this machine under a path of the guest.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn copy(&mut self, from: &Path, to: &str) -> std::io::Result<()> {
        let data = std::fs::read(from)?;
        self.file(to, 0o755, &data);
        Ok(())
    }

    /// Adds a directory of this machine with all that is in it.
    ///
    /// # Errors
    /// When something of it cannot be read.
    pub fn copy_tree(&mut self, from: &Path, to: &str) -> std::io::Result<()> {
        self.dir(to);
        for entry in std::fs::read_dir(from)? {
            let entry = entry?;
            let to = format!("{to}/{}", entry.file_name().to_string_lossy());
            if std::fs::metadata(entry.path())?.is_dir() {
                self.copy_tree(&entry.path(), &to)?;
            } else {
                self.copy(&entry.path(), &to)?;
            }
        }
        Ok(())
    }

    /// The archive with its end mark.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn add(&mut self, path: &str, mode: u32, data: &[u8]) {
        let path = path.trim_start_matches('/');
        if self.names.contains(path) {
            return;
        }
        if let Some((above, _)) = path.rsplit_once('/') {
            self.dir(above);
        }
        self.entry(path, mode, data);
    }

    fn entry(&mut self, name: &str, mode: u32, data: &[u8]) {
        let inode = self.names.len() + 1;
        self.names.insert(name.to_owned());
        // magic, ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
        let fields = [inode, mode as usize, 0, 0, 1, 0, data.len(), 0, 0, 0, 0, name.len() + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for f in fields {
            self.bytes.extend_from_slice(format!("{f:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(data);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
