//! `available_tracers`, `current_tracer` and the function graph's depth.

use crate::error::{Error, Result};
use crate::instance::Instance;

/// True for the tracers whose result is one text in `trace`, not a stream of records.
pub fn is_latency_tracer(name: &str) -> bool {
    matches!(name, "irqsoff" | "preemptoff" | "preemptirqsoff" | "wakeup" | "wakeup_rt" | "wakeup_dl")
}

impl Instance {
    /// The words of `available_tracers`, in the kernel's order.
    pub fn tracers(&self) -> Result<Vec<String>> {
        let text = match self.dir().read("available_tracers") {
            Err(e) if e.is_missing() => self.root().dir().read("available_tracers")?,
            other => other?,
        };
        Ok(text.split_whitespace().map(str::to_owned).collect())
    }

    /// `current_tracer`; `nop` when none runs.
    pub fn tracer(&self) -> Result<String> {
        self.dir().read_trimmed("current_tracer")
    }

    /// Sets `current_tracer`.
    ///
    /// # Errors
    /// [`Error::NoTracer`] when the kernel does not have it, [`Error::Busy`] when another user of it is in the way.
    pub fn set_tracer(&self, name: &str) -> Result<()> {
        let done = self.dir().write("current_tracer", name);
        match done {
            Err(Error::Refused { .. }) if name != "nop" => {
                let available = self.tracers()?;
                if available.iter().any(|t| t == name) {
                    done
                } else {
                    Err(Error::NoTracer { name: name.to_owned(), available })
                }
            }
            other => other,
        }
    }

    /// [`Error::NoTracer`] unless the kernel has this tracer.
    pub fn require_tracer(&self, name: &str) -> Result<()> {
        let available = self.tracers()?;
        if available.iter().any(|t| t == name) {
            return Ok(());
        }
        Err(Error::NoTracer { name: name.to_owned(), available })
    }

    /// `max_graph_depth`: how deep function_graph follows calls; 0 is without limit.
    pub fn max_graph_depth(&self) -> Result<i64> {
        self.dir().read_number("max_graph_depth")
    }

    /// Writes `max_graph_depth`.
    pub fn set_max_graph_depth(&self, depth: u32) -> Result<()> {
        self.dir().write_number("max_graph_depth", depth.into())
    }
}
