//! The top buffer or a named instance: everything below hangs off it.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, nearest};
use crate::file::Dir;
use crate::journal::{self, Undo};
use crate::root::TraceFs;

/// A ring buffer with its settings: the top one, or `instances/NAME` (since Linux 3.10).
#[derive(Clone, Debug)]
pub struct Instance {
    root: TraceFs,
    dir: Dir,
    name: Option<String>,
    is_new: bool,
}

impl Instance {
    pub(crate) fn top(root: TraceFs) -> Instance {
        Instance { dir: root.dir().clone(), root, name: None, is_new: false }
    }

    pub(crate) fn attach(root: TraceFs, name: &str) -> Result<Instance> {
        check_name(name)?;
        let dir = root.dir().sub("instances").sub(name);
        if !dir.path().is_dir() {
            let names = root.instances()?;
            let near = nearest(name, names.iter().map(String::as_str), 3);
            return Err(Error::NoInstance { name: name.to_owned(), near });
        }
        Ok(Instance { root, dir, name: Some(name.to_owned()), is_new: false })
    }

    pub(crate) fn create(root: TraceFs, name: &str) -> Result<Instance> {
        check_name(name)?;
        let parent = root.dir().sub("instances");
        root.dir().require("instances", "instances, since Linux 3.10")?;
        let dir = parent.sub(name);
        // The instance gets the permissions of `instances`, so that a group with access keeps it.
        let mode = std::fs::metadata(parent.path()).map_or(0o700, |m| m.permissions().mode() & 0o777);
        let is_new = match std::fs::DirBuilder::new().mode(mode).create(dir.path()) {
            Ok(()) => true,
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => false,
            Err(e) => return Err(Error::io("create", dir.path(), e)),
        };
        if is_new && let Some(j) = root.journal() {
            j.note(Undo::RemoveDir { path: dir.path().to_owned() })?;
        }
        Ok(Instance { root, dir, name: Some(name.to_owned()), is_new })
    }

    /// Its name; `None` for the top one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// True for the top instance.
    pub fn is_top(&self) -> bool {
        self.name.is_none()
    }

    /// True when this handle made the directory.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// The tracing directory it belongs to.
    pub fn root(&self) -> &TraceFs {
        &self.root
    }

    /// Its control files.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The path of one of its files.
    pub fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.file(name)
    }

    /// Removes the instance with its buffer.
    ///
    /// # Errors
    /// [`Error::Busy`] while one of its files is open; [`Error::Invalid`] for the top instance.
    pub fn remove(self) -> Result<()> {
        if self.is_top() {
            return Err(Error::Invalid("the top instance cannot be removed".into()));
        }
        journal::remove_instance_dir(self.path())?;
        if let Some(j) = self.root.journal() {
            // What was to be put back in it is gone with it.
            let path = self.path().to_owned();
            j.forget(|u| u.path().starts_with(&path))?;
        }
        Ok(())
    }

    /// `tracing_on`: whether the ring buffer accepts records.
    pub fn is_on(&self) -> Result<bool> {
        Ok(self.dir.read_number("tracing_on")? != 0)
    }

    /// Writes `tracing_on`.
    pub fn set_on(&self, on: bool) -> Result<()> {
        self.dir.write("tracing_on", if on { "1" } else { "0" })
    }

    /// Empties the ring buffer (`trace`), for one CPU or all.
    pub fn clear(&self, cpu: Option<u32>) -> Result<()> {
        match cpu {
            None => self.dir.write("trace", "0"),
            Some(cpu) => self.dir.write(format!("per_cpu/cpu{cpu}/trace"), "0"),
        }
    }

    /// The CPUs that have a buffer (`per_cpu/cpuN`), ascending.
    pub fn cpus(&self) -> Result<Vec<u32>> {
        let mut cpus: Vec<u32> = self
            .dir
            .list_dirs("per_cpu")?
            .iter()
            .filter_map(|n| n.strip_prefix("cpu").and_then(|n| n.parse().ok()))
            .collect();
        cpus.sort_unstable();
        Ok(cpus)
    }

    /// The directory of one CPU.
    ///
    /// # Errors
    /// [`Error::NoCpu`].
    pub fn cpu_dir(&self, cpu: u32) -> Result<Dir> {
        let dir = self.dir.sub(format!("per_cpu/cpu{cpu}"));
        if !dir.path().is_dir() {
            return Err(Error::NoCpu { cpu, path: dir.path().to_owned() });
        }
        Ok(dir)
    }

    /// All of `error_log` (since Linux 5.2); empty where there is none.
    pub fn error_log(&self) -> Result<String> {
        match self.dir.read("error_log") {
            Err(e) if e.is_missing() => Ok(String::new()),
            other => other,
        }
    }

    /// The newest entry of [`error_log`](Instance::error_log).
    pub fn newest_error(&self) -> Result<String> {
        Ok(crate::file::newest_entry(&self.error_log()?).to_owned())
    }

    /// Empties `error_log`.
    pub fn clear_error_log(&self) -> Result<()> {
        self.dir.write("error_log", " ")
    }

    /// `tracing_max_latency` in microseconds: the worst case of the latency tracers.
    pub fn max_latency_us(&self) -> Result<i64> {
        self.dir.read_number("tracing_max_latency")
    }

    /// Resets `tracing_max_latency`.
    pub fn set_max_latency_us(&self, us: i64) -> Result<()> {
        self.dir.write_number("tracing_max_latency", us)
    }

    /// `tracing_thresh` in microseconds; 0 is none.
    pub fn thresh_us(&self) -> Result<i64> {
        self.dir.read_number("tracing_thresh")
    }

    /// Writes `tracing_thresh`.
    pub fn set_thresh_us(&self, us: i64) -> Result<()> {
        self.dir.write_number("tracing_thresh", us)
    }

    /// `last_boot_info`: whose boot the data of a persistent buffer are (since Linux 6.12); `None` elsewhere.
    pub fn last_boot_info(&self) -> Result<Option<String>> {
        match self.dir.read("last_boot_info") {
            Err(e) if e.is_missing() => Ok(None),
            other => other.map(Some),
        }
    }
}

/// A name that can be a directory below `instances`.
fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name == "." || name == ".." || name.contains('/') || name.contains('\0') || name.len() > 255 {
        return Err(Error::Invalid(format!("{name:?} cannot be the name of an instance")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Journal;

    #[test]
    fn create_attach_remove() {
        let t = tempfile::tempdir().unwrap();
        std::fs::create_dir(t.path().join("instances")).unwrap();
        let j = Journal::in_memory();
        let root = TraceFs::at(t.path()).with_journal(j.clone());
        assert!(matches!(root.instance("foo"), Err(Error::NoInstance { .. })));
        let a = root.create_instance("foo").unwrap();
        assert!(a.is_new());
        assert!(!root.create_instance("foo").unwrap().is_new());
        assert_eq!(root.instances().unwrap(), ["foo"]);
        match root.instance("fo") {
            Err(Error::NoInstance { near, .. }) => assert_eq!(near, ["foo"]),
            other => panic!("{other:?}"),
        }
        for bad in ["", ".", "..", "a/b"] {
            assert!(matches!(root.create_instance(bad), Err(Error::Invalid(_))));
        }
        a.remove().unwrap();
        assert!(j.notes().is_empty());
        root.create_instance("bar").unwrap();
        j.undo();
        assert!(root.instances().unwrap().is_empty());
        assert!(root.top().remove().is_err());
    }
}
