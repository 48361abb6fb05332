//! The stack tracer: the deepest kernel stack seen (`CONFIG_STACK_TRACER`, since Linux 2.6.29).

use std::path::Path;

use crate::error::Result;
use crate::file::Dir;
use crate::root::TraceFs;

/// `/proc/sys/kernel/stack_tracer_enabled` and the files `stack_trace` and `stack_max_size`.
#[derive(Clone, Debug)]
pub struct StackTracer {
    tracing: Dir,
    sysctl: Dir,
}

impl StackTracer {
    /// The kernel's stack tracer.
    pub fn new(tracing: &TraceFs) -> StackTracer {
        StackTracer::at(tracing, Path::new("/proc/sys/kernel"))
    }

    /// The same with another directory for `stack_tracer_enabled`, for tests.
    pub fn at(tracing: &TraceFs, sysctl: &Path) -> StackTracer {
        let sysctl = Dir::new(sysctl).with_journal(tracing.journal().cloned());
        StackTracer { tracing: tracing.dir().clone(), sysctl }
    }

    fn require(&self) -> Result<()> {
        self.sysctl.require("stack_tracer_enabled", "the stack tracer, CONFIG_STACK_TRACER")
    }

    /// Whether it runs.
    pub fn is_enabled(&self) -> Result<bool> {
        self.require()?;
        Ok(self.sysctl.read_number("stack_tracer_enabled")? != 0)
    }

    /// Starts or stops it.
    pub fn enable(&self, on: bool) -> Result<()> {
        self.require()?;
        self.sysctl.write("stack_tracer_enabled", if on { "1" } else { "0" })
    }

    /// Forgets the deepest stack.
    pub fn reset(&self) -> Result<()> {
        self.tracing.require("stack_max_size", "the stack tracer, CONFIG_STACK_TRACER")?;
        self.tracing.write("stack_max_size", "0")
    }

    /// Bytes of the deepest stack.
    pub fn max_size(&self) -> Result<i64> {
        self.tracing.read_number("stack_max_size")
    }

    /// The deepest stack as text.
    pub fn text(&self) -> Result<String> {
        self.tracing.require("stack_trace", "the stack tracer, CONFIG_STACK_TRACER")?;
        self.tracing.read("stack_trace")
    }
}
