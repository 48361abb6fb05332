//! The output file: written under another name, renamed when it is complete.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{Error, Result};

/// `fsync` is not for this kind of file.
const EINVAL: i32 = 22;
const EROFS: i32 = 30;

/// What is being written under other names.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn unfinished() -> MutexGuard<'static, Vec<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes all that this process is writing under other names, for a program that is told to end. Nothing may be written afterwards.
pub fn remove_unfinished() {
    for path in unfinished().drain(..) {
        // Another thread may be putting more into a directory.
        let gone = || fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path)).is_ok() || !path.exists();
        (0..1000).any(|_| gone());
    }
}

/// The name of a file or directory that is not complete: removed on drop, and by [`remove_unfinished`].
#[derive(Debug)]
pub struct Temporary(PathBuf);

impl Temporary {
    /// Has `make` make what shall have this name for now; a signal does not come between.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn create<T>(path: &Path, make: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<(Temporary, T)> {
        let mut unfinished = unfinished();
        let made = make(path)?;
        unfinished.push(path.to_path_buf());
        Ok((Temporary(path.to_path_buf()), made))
    }

    /// Gives it its own name.
    ///
    /// # Errors
    /// What the system says; nothing remains then.
    pub fn rename(self, to: &Path) -> io::Result<()> {
        fs::rename(&self.0, to)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a successful renaming there is nothing of this name.
        let _ = fs::remove_file(&self.0).or_else(|_| fs::remove_dir_all(&self.0));
        unfinished().retain(|p| *p != self.0);
    }
}

/// A file that appears under its name only when all of it is written.
///
/// Dropped before [`OutputFile::commit`] it leaves nothing behind; a file that was there before is untouched until then.
#[derive(Debug)]
pub struct OutputFile {
    file: File,
    target: PathBuf,
    /// The name it is written under; `None` for a device, which is written directly.
    temporary: Option<Temporary>,
}

impl OutputFile {
    /// Creates an output that will be called `path`.
    ///
    /// # Errors
    /// [`Error::Io`] when the directory or an existing file of that name cannot be written, or when `path` is a directory, pipe or socket.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let fail = |what, source| Error::Io { path: path.to_path_buf(), what, source };
        // A link stays a link: what it points to is replaced.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let mut mode = None;
        match fs::metadata(&target) {
            Ok(m) if m.file_type().is_char_device() => {
                let file = OpenOptions::new().write(true).open(&target).map_err(|e| fail("write", e))?;
                return Ok(OutputFile { file, target, temporary: None });
            }
            Ok(m) if m.is_file() => {
                // Renaming over it would succeed even where writing is forbidden.
                OpenOptions::new().write(true).open(&target).map_err(|e| fail("write", e))?;
                mode = Some(m.permissions());
            }
            Ok(m) => {
                let kind = match () {
                    () if m.is_dir() => "is a directory",
                    () if m.file_type().is_fifo() => {
                        "is a pipe; a trace file needs a place where it can be written in any order"
                    }
                    () => "is not a regular file",
                };
                return Err(fail("write", io::Error::new(io::ErrorKind::InvalidInput, kind)));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(fail("write", e)),
        }
        let name = target
            .file_name()
            .ok_or_else(|| fail("create", io::Error::new(io::ErrorKind::InvalidInput, "is not the name of a file")))?;
        let dir = target.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        for n in 0..1000 {
            let mut hidden = std::ffi::OsString::from(".");
            hidden.push(name);
            hidden.push(format!(".{}-{n}.tmp", std::process::id()));
            let temporary = dir.join(hidden);
            let create = |path: &Path| OpenOptions::new().read(true).write(true).create_new(true).open(path);
            match Temporary::create(&temporary, create) {
                Ok((temporary, file)) => {
                    let out = OutputFile { file, target, temporary: Some(temporary) };
                    if let Some(mode) = mode {
                        out.file.set_permissions(mode).map_err(|e| fail("create", e))?;
                    }
                    return Ok(out);
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(fail("create", e)),
            }
        }
        Err(fail("create", io::Error::new(io::ErrorKind::AlreadyExists, "all temporary names are taken")))
    }

    /// The name it will have.
    pub fn path(&self) -> &Path {
        &self.target
    }

    /// Another handle of the file, which shares its position.
    pub(super) fn handle(&self) -> Option<File> {
        self.file.try_clone().ok()
    }

    /// Has the system write everything to the disk.
    ///
    /// # Errors
    /// [`Error::Io`]: what the disk refused.
    pub fn sync(&self) -> Result<()> {
        match self.file.sync_data() {
            // A device, a file system without it.
            Err(e) if matches!(e.raw_os_error(), Some(EINVAL | EROFS)) => Ok(()),
            other => other.map_err(|source| Error::Io { path: self.target.clone(), what: "write all of", source }),
        }
    }

    /// Gives the complete file its name.
    ///
    /// # Errors
    /// [`Error::Io`]; nothing remains then.
    pub fn commit(mut self) -> Result<()> {
        if let Some(temporary) = self.temporary.take() {
            temporary.rename(&self.target).map_err(|source| Error::Io {
                path: self.target.clone(),
                what: "rename the finished file to",
                source,
            })?;
        }
        Ok(())
    }
}

impl Write for OutputFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.write(buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for OutputFile {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        self.file.seek(pos)
    }
}

/// Whether two names mean the same file.
pub fn same_file(a: impl AsRef<Path>, b: impl AsRef<Path>) -> bool {
    match (fs::metadata(a), fs::metadata(b)) {
        (Ok(a), Ok(b)) => a.dev() == b.dev() && a.ino() == b.ino(),
        _ => false,
    }
}
