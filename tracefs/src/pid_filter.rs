//! Which tasks are traced: `set_event_pid`, `set_ftrace_pid` and their opposites.

use crate::error::{Error, Result};
use crate::instance::Instance;

/// A list of process (thread) ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PidList {
    /// `set_event_pid`: events of these only (since Linux 4.4).
    Event,
    /// `set_event_notrace_pid`: no events of these (since Linux 5.7).
    EventNotrace,
    /// `set_ftrace_pid`: functions of these only.
    Function,
    /// `set_ftrace_notrace_pid`: no functions of these (since Linux 5.7).
    FunctionNotrace,
}

impl PidList {
    /// Name of its control file.
    pub fn file(self) -> &'static str {
        match self {
            PidList::Event => "set_event_pid",
            PidList::EventNotrace => "set_event_notrace_pid",
            PidList::Function => "set_ftrace_pid",
            PidList::FunctionNotrace => "set_ftrace_notrace_pid",
        }
    }
}

impl Instance {
    /// True when the kernel has this list in this instance.
    pub fn has_pid_list(&self, list: PidList) -> bool {
        self.dir().exists(list.file())
    }

    /// The ids on a list.
    pub fn pids(&self, list: PidList) -> Result<Vec<i32>> {
        // `set_ftrace_pid` reads "no pid" when empty and "swapper tasks" for 0 on old kernels.
        Ok(self
            .dir()
            .read(list.file())?
            .lines()
            .filter_map(|l| if l.starts_with("swapper") { Some(0) } else { l.trim().parse().ok() })
            .collect())
    }

    /// Replaces a list.
    pub fn set_pids(&self, list: PidList, pids: &[i32]) -> Result<()> {
        if pids.is_empty() {
            return self.dir().clear(list.file());
        }
        self.require_list(list)?;
        self.dir().write(list.file(), &words(pids))
    }

    /// Adds to a list.
    pub fn add_pids(&self, list: PidList, pids: &[i32]) -> Result<()> {
        if pids.is_empty() {
            return Ok(());
        }
        self.require_list(list)?;
        self.dir().append(list.file(), &words(pids))
    }

    fn require_list(&self, list: PidList) -> Result<()> {
        let what = match list {
            PidList::Event => "since Linux 4.4",
            PidList::Function => "the function tracer",
            PidList::EventNotrace | PidList::FunctionNotrace => "since Linux 5.7",
        };
        self.dir().require(list.file(), what)
    }

    /// Makes children of listed tasks follow them: options `event-fork` (since Linux 4.7) and, where it exists,
    /// `function-fork` (since Linux 4.12).
    ///
    /// # Errors
    /// [`Error::NoOption`] when the kernel has no `event-fork`.
    pub fn set_follow_fork(&self, on: bool) -> Result<()> {
        self.set_option("event-fork", on)?;
        match self.set_option("function-fork", on) {
            Err(Error::NoOption { .. }) => Ok(()),
            other => other,
        }
    }
}

fn words(pids: &[i32]) -> String {
    pids.iter().map(|p| format!("{p} ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TraceFs;

    #[test]
    fn lists() {
        let t = tempfile::tempdir().unwrap();
        std::fs::write(t.path().join("set_event_pid"), "").unwrap();
        std::fs::write(t.path().join("set_ftrace_pid"), "no pid\n").unwrap();
        let top = TraceFs::at(t.path()).top();
        assert!(top.pids(PidList::Function).unwrap().is_empty());
        top.set_pids(PidList::Event, &[1, 2]).unwrap();
        assert_eq!(top.dir().read("set_event_pid").unwrap(), "1 2 ");
        std::fs::write(t.path().join("set_event_pid"), "1\n2\n").unwrap();
        assert_eq!(top.pids(PidList::Event).unwrap(), [1, 2]);
        top.set_pids(PidList::Event, &[]).unwrap();
        assert!(top.pids(PidList::Event).unwrap().is_empty());
        assert!(matches!(top.set_pids(PidList::EventNotrace, &[3]), Err(Error::Unsupported { .. })));
    }
}
