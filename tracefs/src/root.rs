//! Finds or mounts tracefs and debugfs.

use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use crate::error::{Error, Result};
use crate::file::{self, Dir};
use crate::instance::Instance;
use crate::journal::Journal;

/// Where tracefs belongs since Linux 4.1.
pub const TRACING_DIR: &str = "/sys/kernel/tracing";
/// Where debugfs belongs.
pub const DEBUG_DIR: &str = "/sys/kernel/debug";

/// The kernel's tracing directory.
///
/// ```
/// let dir = std::env::temp_dir().join(format!("tracefs-doc-root-{}", std::process::id()));
/// std::fs::create_dir_all(&dir)?;
/// std::fs::write(dir.join("current_tracer"), "nop\n")?;
/// let tracing = tracefs::TraceFs::at(&dir); // usually TraceFs::find()
/// assert_eq!(tracing.top().tracer()?, "nop");
/// # std::fs::remove_dir_all(&dir)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct TraceFs {
    dir: Dir,
}

impl TraceFs {
    /// The mounted tracefs; where there is none it is mounted (root only): tracefs at [`TRACING_DIR`], on kernels
    /// before 4.1 debugfs at [`DEBUG_DIR`].
    ///
    /// # Errors
    /// [`Error::NotMounted`], and [`Error::Permission`] when the directory may not be entered.
    pub fn find() -> Result<TraceFs> {
        match TraceFs::find_mounted()? {
            Some(t) => Ok(t),
            None => TraceFs::mount(),
        }
    }

    /// The mounted tracefs, or `None`; mounts nothing (the kernel may do so by itself below debugfs).
    pub fn find_mounted() -> Result<Option<TraceFs>> {
        let mounts = file::read_text(Path::new("/proc/mounts"))?;
        if let Some(path) = mounts_of(&mounts, "tracefs").into_iter().next() {
            return TraceFs::checked(path).map(Some);
        }
        // Entering debugfs/tracing makes kernels from 4.1 on mount tracefs there.
        for path in mounts_of(&mounts, "debugfs") {
            let tracing = path.join("tracing");
            if tracing.join("current_tracer").exists() {
                return TraceFs::checked(tracing).map(Some);
            }
        }
        Ok(None)
    }

    fn mount() -> Result<TraceFs> {
        let try_mount = |kind: &str, at: &str| {
            mount(Some("nodev"), Path::new(at), Some(kind), MsFlags::empty(), None::<&str>).map_err(|e| e.to_string())
        };
        match try_mount("tracefs", TRACING_DIR) {
            Ok(()) => TraceFs::checked(PathBuf::from(TRACING_DIR)),
            Err(reason) => {
                let debug = Path::new(DEBUG_DIR).join("tracing");
                if (debug.join("current_tracer").exists() || try_mount("debugfs", DEBUG_DIR).is_ok())
                    && debug.join("current_tracer").exists()
                {
                    return TraceFs::checked(debug);
                }
                Err(Error::NotMounted { path: TRACING_DIR.into(), reason })
            }
        }
    }

    fn checked(path: PathBuf) -> Result<TraceFs> {
        // A directory that cannot be entered would make every file look missing.
        match std::fs::metadata(path.join("current_tracer")) {
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => Err(Error::io("open", &path, e)),
            _ => Ok(TraceFs::at(path)),
        }
    }

    /// The directory `path`, whatever it is; for tests and for `--tracing-dir` options.
    pub fn at(path: impl Into<PathBuf>) -> TraceFs {
        TraceFs { dir: Dir::new(path) }
    }

    /// The same, with every later write of its instances noted in `journal`.
    pub fn with_journal(self, journal: Journal) -> TraceFs {
        TraceFs { dir: self.dir.with_journal(Some(journal)) }
    }

    /// The journal, if any.
    pub fn journal(&self) -> Option<&Journal> {
        self.dir.journal()
    }

    /// The top directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The files of the top directory.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// The top instance.
    pub fn top(&self) -> Instance {
        Instance::top(self.clone())
    }

    /// The existing instance of this name.
    ///
    /// # Errors
    /// [`Error::NoInstance`] with the nearest names.
    pub fn instance(&self, name: &str) -> Result<Instance> {
        Instance::attach(self.clone(), name)
    }

    /// The instance of this name, made if it does not exist ([`Instance::is_new`] tells).
    pub fn create_instance(&self, name: &str) -> Result<Instance> {
        Instance::create(self.clone(), name)
    }

    /// Names of the existing instances, in the directory's order. Empty on a kernel without `instances` (before 3.10).
    pub fn instances(&self) -> Result<Vec<String>> {
        match self.dir.list_dirs("instances") {
            Err(e) if e.is_missing() => Ok(Vec::new()),
            other => other,
        }
    }

    /// Names of the instances that match a regex as a whole.
    pub fn instances_matching(&self, regex: &str) -> Result<Vec<String>> {
        let re = crate::event::anchored(regex)?;
        Ok(self.instances()?.into_iter().filter(|n| re.is_match(n)).collect())
    }

    /// True when the kernel's own `README` has this text. It says what triggers, probes and filters the kernel knows.
    pub fn readme_has(&self, text: &str) -> bool {
        self.dir.read("README").is_ok_and(|t| t.contains(text))
    }

    /// True when actions of histograms may be written `trace(NAME,...)` (kernel 5.1 and later).
    pub fn knows_trace_action(&self) -> bool {
        self.readme_has("trace(<synthetic_event>,param list)")
    }
}

/// The debugfs directory: mounted already, or mounted now at [`DEBUG_DIR`].
pub fn debug_dir() -> Result<PathBuf> {
    let mounts = file::read_text(Path::new("/proc/mounts"))?;
    if let Some(path) = mounts_of(&mounts, "debugfs").into_iter().next() {
        return Ok(path);
    }
    mount(Some("nodev"), Path::new(DEBUG_DIR), Some("debugfs"), MsFlags::empty(), None::<&str>)
        .map_err(|e| Error::NotMounted { path: DEBUG_DIR.into(), reason: e.to_string() })?;
    Ok(DEBUG_DIR.into())
}

/// Mount points of a file system type in the text of `/proc/mounts`; octal escapes (`\040`) are resolved.
fn mounts_of(mounts: &str, kind: &str) -> Vec<PathBuf> {
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let path = words.nth(1)?;
            (words.next()? == kind).then(|| PathBuf::from(unescape(path)))
        })
        .collect()
}

fn unescape(text: &str) -> std::ffi::OsString {
    use std::os::unix::ffi::OsStringExt;
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(&b) = bytes.get(i) {
        let octal = bytes.get(i + 1..i + 4).filter(|d| b == b'\\' && d.iter().all(|c| (b'0'..=b'7').contains(c)));
        match octal {
            Some(d) => {
                out.push(d.iter().fold(0u8, |n, c| n.wrapping_mul(8).wrapping_add(c - b'0')));
                i += 4;
            }
            None => {
                out.push(b);
                i += 1;
            }
        }
    }
    std::ffi::OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_table() {
        let text = "proc /proc proc rw 0 0\nnodev /mnt/a\\040b tracefs rw 0 0\nnone /sys/kernel/debug debugfs rw 0 0\n";
        assert_eq!(mounts_of(text, "tracefs"), [PathBuf::from("/mnt/a b")]);
        assert_eq!(mounts_of(text, "debugfs"), [PathBuf::from("/sys/kernel/debug")]);
        assert!(mounts_of("x", "tracefs").is_empty());
        assert_eq!(unescape("a\\04"), "a\\04");
    }
}
