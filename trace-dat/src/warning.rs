//! What was left out of a damaged file, and where.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::Error;

/// So many warnings are kept; further ones are only counted.
const KEEP: usize = 200;

/// Where in a file something is wrong; as much as is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Byte offset in the file.
    pub offset: Option<u64>,
    /// Name of the buffer, empty for the top one.
    pub buffer: Option<String>,
    /// CPU.
    pub cpu: Option<u32>,
    /// Number of the sub-buffer within the CPU's data, from 0.
    pub subbuf: Option<u64>,
}

/// Something that was left out, and why.
#[derive(Debug)]
pub struct Warning {
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub error: Error,
    /// What that costs, to be read after `left out: `; empty when nothing is lost.
    pub lost: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p = &self.place;
        let mut sep = "";
        if let Some(name) = p.buffer.as_deref().filter(|n| !n.is_empty()) {
            write!(f, "buffer {name:?}")?;
            sep = ", ";
        }
        if let Some(cpu) = p.cpu {
            write!(f, "{sep}CPU {cpu}")?;
            sep = ", ";
        }
        if let Some(n) = p.subbuf {
            write!(f, "{sep}sub-buffer {n}")?;
            sep = ", ";
        }
        if let Some(offset) = p.offset {
            write!(f, "{sep}file offset {offset:#x}")?;
            sep = ", ";
        }
        if !sep.is_empty() {
            f.write_str(": ")?;
        }
        write!(f, "{}", self.error)?;
        let mut source = std::error::Error::source(&self.error);
        while let Some(e) = source {
            write!(f, ": {e}")?;
            source = e.source();
        }
        if !self.lost.is_empty() {
            write!(f, "; left out: {}", self.lost)?;
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct State {
    kept: Vec<Warning>,
    total: u64,
}

/// The warnings about one file; its streams add to them while they are read. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Warnings {
    state: Arc<Mutex<State>>,
}

impl Warnings {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one.
    pub fn push(&self, place: Place, error: Error, lost: impl Into<String>) {
        let mut state = self.state();
        state.total += 1;
        if state.total <= KEEP as u64 {
            state.kept.push(Warning { place, error, lost: lost.into() });
        }
    }

    /// Adds all that another list has, and empties that one.
    pub fn append(&self, other: &Warnings) {
        let theirs = std::mem::take(&mut *other.state());
        let mut state = self.state();
        state.total += theirs.total;
        let room = KEEP.saturating_sub(state.kept.len());
        state.kept.extend(theirs.kept.into_iter().take(room));
    }

    /// Forgets all.
    pub fn clear(&self) {
        *self.state() = State::default();
    }

    /// The warnings that came since the last call.
    pub fn take(&self) -> Vec<Warning> {
        std::mem::take(&mut self.state().kept)
    }

    /// How many there were in all, those that were not kept too.
    pub fn total(&self) -> u64 {
        self.state().total
    }

    /// How many there were beyond those that were kept.
    pub fn suppressed(&self) -> u64 {
        self.total().saturating_sub(KEEP as u64)
    }
}
