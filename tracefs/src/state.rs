//! Whole-instance state: back to what a fresh boot has, and a dump of all settings to compare two moments.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::event::EventTarget;
use crate::file;
use crate::func_filter::FuncList;
use crate::instance::Instance;
use crate::pid_filter::PidList;

/// The settings that [`Settings::read`] looks at besides options and events.
const FILES: [&str; 27] = [
    "buffer_percent",
    "buffer_size_kb",
    "buffer_subbuf_size_kb",
    "current_tracer",
    "dynamic_events",
    "error_log",
    "kprobe_events",
    "max_graph_depth",
    "saved_cmdlines_size",
    "set_event_notrace_pid",
    "set_event_pid",
    "set_ftrace_filter",
    "set_ftrace_notrace",
    "set_ftrace_notrace_pid",
    "set_ftrace_pid",
    "set_graph_function",
    "set_graph_notrace",
    "stack_trace_filter",
    "synthetic_events",
    "trace_clock",
    "trace_options",
    "tracing_cpumask",
    "tracing_max_latency",
    "tracing_on",
    "tracing_thresh",
    "timestamp_mode",
    "uprobe_events",
];

/// All settings of one instance as text: file name below the instance to content.
///
/// Two of them can be compared: what a session left behind is what differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(pub BTreeMap<String, String>);

impl Settings {
    /// Reads every setting of an instance. Files that are missing or refused are left out.
    pub fn read(instance: &Instance) -> Result<Settings> {
        let mut found = BTreeMap::new();
        let mut add = |name: String| {
            if let Ok(text) = instance.dir().read(&name) {
                found.insert(name, text);
            }
        };
        FILES.iter().for_each(|f| add((*f).to_owned()));
        for option in instance.dir().list("options").unwrap_or_default() {
            add(format!("options/{option}"));
        }
        for system in instance.event_systems()? {
            add(format!("events/{system}/enable"));
            for event in instance.events_of(&system)? {
                for f in ["enable", "filter", "trigger"] {
                    add(format!("events/{system}/{event}/{f}"));
                }
            }
        }
        Ok(Settings(found))
    }

    /// The files whose content differs, with the content here and there (`None`: no such file).
    pub fn diff<'a>(&'a self, other: &'a Settings) -> Vec<(&'a str, Option<&'a str>, Option<&'a str>)> {
        let names: std::collections::BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        names
            .into_iter()
            .map(|n| (n.as_str(), self.0.get(n).map(String::as_str), other.0.get(n).map(String::as_str)))
            .filter(|(_, a, b)| a != b)
            .collect()
    }
}

impl Instance {
    /// Switches tracing off and takes away tracer, events, process filter and data, as a recording does before it begins.
    ///
    /// Files that this kernel does not have, or does not let anybody use, are passed over.
    pub fn disable_all(&self) -> Result<()> {
        tolerant(self.set_on(false))?;
        self.disable_tracer()?;
        tolerant(self.enable(&EventTarget::All, false))?;
        tolerant(self.clear_filters_of(&EventTarget::All))?;
        tolerant(self.dir().write(PidList::Function.file(), " "))?;
        tolerant(self.clear(None))
    }

    /// `nop`, with the stack option of the function tracer off first (else it would be on at its next use).
    pub fn disable_tracer(&self) -> Result<()> {
        if self.tracer().is_ok_and(|t| t == "function") {
            tolerant(self.dir().write("trace_options", "nofunc_stack_trace"))?;
        }
        tolerant(self.set_tracer("nop"))
    }

    /// Puts an instance back to what it is after a boot: tracing off, tracer `nop`, events off, process and function
    /// filters empty, data, event filters and triggers gone, clock `local`, every CPU, latency 0, tracing on.
    ///
    /// Buffer sizes, options and dynamic events stay. This throws away what others set up: it is for people who ask for it.
    /// `between` runs after events and triggers are gone and before the clock is set: the moment to remove dynamic events.
    pub fn reset_with(&self, between: impl FnOnce(&Instance) -> Result<()>) -> Result<()> {
        self.disable_all()?;
        self.clear_all_triggers()?;
        between(self)?;
        tolerant(self.clear_error_log())?;
        tolerant(self.set_clock("local"))?;
        tolerant(self.set_pids(PidList::Event, &[]))?;
        tolerant(self.set_max_latency_us(0))?;
        tolerant(self.set_cpumask(None))?;
        for list in [FuncList::Filter, FuncList::Notrace, FuncList::Graph, FuncList::GraphNotrace] {
            tolerant(self.clear_functions(list))?;
        }
        tolerant(self.set_on(true))
    }

    /// [`reset_with`](Instance::reset_with) nothing between; also the graph depth, and old-style synthetic events.
    pub fn reset(&self) -> Result<()> {
        self.reset_with(|i| tolerant(i.set_max_graph_depth(0)))
    }
}

/// A file that the kernel does not have or does not let anybody use is nothing to reset.
pub(crate) fn tolerant(done: Result<()>) -> Result<()> {
    match done {
        Err(e) if e.is_missing() || e.is_lockdown() => {
            log::info!("{e}");
            Ok(())
        }
        other => other,
    }
}

/// A file outside tracefs that tracing uses (`/proc/sys/kernel/ftrace_enabled`), written through the journal.
pub fn write_sysctl(instance: &Instance, path: &Path, value: &str) -> Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::Invalid(format!("{}: no file", path.display())));
    };
    file::Dir::new(dir).with_journal(instance.root().journal().cloned()).write(name, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TraceFs;

    #[test]
    fn reset_a_plain_tree() {
        let t = tempfile::tempdir().unwrap();
        let put = |f: &str, text: &str| {
            let p = t.path().join(f);
            std::fs::create_dir_all(p.parent().unwrap()).unwrap();
            std::fs::write(p, text).unwrap();
        };
        for (f, v) in [
            ("tracing_on", "1\n"),
            ("current_tracer", "function\n"),
            ("trace_options", ""),
            ("trace", "data\n"),
            ("events/enable", "X\n"),
            ("events/sched/enable", "1\n"),
            ("events/sched/filter", "\n"),
            ("events/sched/sched_switch/filter", "pid == 1\n"),
            ("events/sched/sched_switch/trigger", "# none\n"),
            ("set_ftrace_pid", "12\n"),
            ("trace_clock", "local [mono]\n"),
            ("tracing_cpumask", "1\n"),
            ("set_ftrace_filter", "#### all functions enabled ####\n"),
        ] {
            put(f, v);
        }
        std::fs::create_dir_all(t.path().join("per_cpu/cpu0")).unwrap();
        std::fs::create_dir_all(t.path().join("per_cpu/cpu1")).unwrap();
        let top = TraceFs::at(t.path()).top();
        let before = Settings::read(&top).unwrap();
        top.reset().unwrap();
        for (f, want) in [
            ("tracing_on", "1"),
            ("current_tracer", "nop"),
            ("trace_options", "nofunc_stack_trace"),
            ("events/enable", "0"),
            ("events/sched/sched_switch/filter", "0"),
            ("trace_clock", "local"),
            ("tracing_cpumask", "3"),
            ("set_ftrace_filter", ""),
            ("trace", "0"),
        ] {
            assert_eq!(top.dir().read(f).unwrap(), want, "{f}");
        }
        let after = Settings::read(&top).unwrap();
        assert!(before.diff(&after).iter().any(|d| d.0 == "current_tracer" && d.2 == Some("nop")));
        assert!(after.diff(&after.clone()).is_empty());
    }
}
