//! A plain directory stands in for tracefs: whatever ends a session, every file holds again what it held.

use std::collections::BTreeMap;
use std::path::Path;

use tracefs::{Journal, TraceFs, journal};

use super::Session;
use crate::cli::Opt;
use crate::plan::{Plan, Verb};

const FILES: [(&str, &str); 22] = [
    ("tracing_on", "1"),
    ("trace", "old data"),
    ("current_tracer", "function"),
    ("available_tracers", "function_graph function nop"),
    ("trace_clock", "local [global] mono"),
    ("trace_options", ""),
    ("options/function-trace", "1"),
    ("options/func_stack_trace", "1"),
    ("options/stacktrace", "0"),
    ("set_event_pid", "7\n8"),
    ("set_ftrace_pid", "9"),
    ("set_ftrace_filter", "vfs_read\nvfs_write"),
    ("buffer_size_kb", "1408"),
    ("max_graph_depth", "3"),
    ("events/enable", "X"),
    ("events/sched/enable", "X"),
    ("events/sched/filter", "### global filter ###"),
    ("events/sched/sched_switch/enable", "0"),
    ("events/sched/sched_switch/filter", "prev_pid > 1"),
    ("events/sched/sched_switch/trigger", "# Available triggers:"),
    ("events/sched/sched_wakeup/enable", "1"),
    ("events/sched/sched_wakeup/filter", "none"),
];

fn tree() -> tempfile::TempDir {
    let t = tempfile::tempdir().unwrap();
    for (name, text) in FILES {
        let path = t.path().join("t").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("{text}\n")).unwrap();
    }
    std::fs::create_dir_all(t.path().join("t/per_cpu/cpu0")).unwrap();
    std::fs::create_dir_all(t.path().join("t/instances")).unwrap();
    t
}

/// What the settings are now, in the form in which they are written.
fn state(dir: &Path) -> BTreeMap<String, String> {
    let value = |name: &str| {
        let text = std::fs::read_to_string(dir.join("t").join(name)).unwrap();
        match (name, text.trim_end()) {
            ("trace_clock", t) => t.split(['[', ']']).nth(1).unwrap_or(t).to_owned(),
            (n, "none") if n.ends_with("filter") => "0".to_owned(),
            (_, t) => t.to_owned(),
        }
    };
    // Files of commands and data, and those that stand for others.
    let apart = ["trace", "trace_options", "events/enable", "events/sched/enable", "events/sched/filter"];
    let names = FILES.iter().map(|(n, _)| *n).filter(|n| !apart.contains(n) && !n.ends_with("trigger"));
    names.map(|n| (n.to_owned(), value(n))).collect()
}

fn plan(verb: Verb, more: &[(&str, &str)]) -> Plan {
    let mut list = vec![
        ("e", "sched"),
        ("R", "stacktrace"),
        ("p", "function_graph"),
        ("C", "mono"),
        ("b", "500"),
        ("O", "stacktrace"),
        ("max-graph-depth", "1"),
        ("P", "1"),
        // Without -d the machine's own ftrace_enabled would be written.
        ("d", ""),
        ("B", "mine"),
        ("e", "sched:sched_switch"),
    ];
    list.extend(more);
    let list: Vec<Opt> = list.into_iter().map(|(i, v)| Opt { id: i.into(), value: Some(v.into()) }).collect();
    Plan::new(verb, &list).unwrap()
}

/// The instance as the kernel would make it, at the moment when it is made.
fn open(dir: &Path, plan: &Plan) -> Session {
    let fs = TraceFs::at(dir.join("t"));
    let mine = dir.join("t/instances/mine");
    let journal = Journal::in_dir(&dir.join("run")).unwrap();
    for (name, text) in FILES {
        let path = mine.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("{text}\n")).unwrap();
    }
    Session::open_at(fs, journal, plan).unwrap()
}

fn has_journal(dir: &Path) -> bool {
    std::fs::read_dir(dir.join("run")).unwrap().next().is_some()
}

#[test]
fn the_end_of_a_recording() {
    let t = tree();
    let before = state(t.path());
    let plan = plan(Verb::Record, &[]);
    let mut s = open(t.path(), &plan);
    s.configure(&plan).unwrap();
    s.limit_to(&plan, None).unwrap();
    s.switch_on().unwrap();
    let during = state(t.path());
    for (name, want) in [
        ("current_tracer", "function_graph"),
        ("trace_clock", "mono"),
        ("buffer_size_kb", "500"),
        ("options/stacktrace", "1"),
        ("events/sched/sched_switch/filter", "0"),
        ("set_event_pid", "1"),
        ("max_graph_depth", "1"),
    ] {
        let got = during.get(name).map(String::as_str);
        // What is written to `trace_options` reaches `options` only in the kernel.
        assert!(got == Some(want) || name == "options/stacktrace", "{name}: {got:?}");
    }
    assert!(has_journal(t.path()));
    s.end().unwrap();
    assert_eq!(state(t.path()), before);
    assert!(!has_journal(t.path()));
    let trigger = std::fs::read_to_string(t.path().join("t/events/sched/sched_switch/trigger")).unwrap();
    assert!(trigger.starts_with("# Available triggers:\n"), "only appended to: {trigger}");
    assert!(trigger.trim_end().ends_with("!stacktrace"), "and taken back: {trigger}");
}

#[test]
fn a_panic() {
    let t = tree();
    let before = state(t.path());
    let plan = plan(Verb::Record, &[]);
    let dir = t.path().to_owned();
    let done = std::panic::catch_unwind(move || {
        let mut s = open(&dir, &plan);
        s.configure(&plan).unwrap();
        s.switch_on().unwrap();
        assert_ne!(state(&dir), before, "something was changed");
        panic!("in the midst of a recording");
    });
    assert!(done.is_err());
    assert_eq!(state(t.path()), state(tree().path()));
    assert!(!has_journal(t.path()));
}

#[test]
fn an_error_half_way() {
    for verb in [Verb::Record, Verb::Start, Verb::Set] {
        let t = tree();
        let before = state(t.path());
        let plan = plan(verb, &[]);
        {
            let mut s = open(t.path(), &plan);
            // The last of the settings cannot be made.
            std::fs::remove_file(t.path().join("t/max_graph_depth")).unwrap();
            let e = s.configure(&plan).unwrap_err();
            assert!(format!("{e:#}").contains("max_graph_depth"), "{e:#}");
        }
        std::fs::write(t.path().join("t/max_graph_depth"), "3\n").unwrap();
        assert_eq!(state(t.path()), before, "{verb:?}");
    }
}

#[test]
fn start_keeps() {
    let t = tree();
    let plan = plan(Verb::Start, &[]);
    let mut s = open(t.path(), &plan);
    s.configure(&plan).unwrap();
    s.switch_on().unwrap();
    let during = state(t.path());
    s.keep();
    drop(s);
    assert_eq!(state(t.path()), during);
    assert!(!has_journal(t.path()));
}

/// After SIGKILL nothing runs: the journal's file is all there is.
#[test]
fn killed() {
    let t = tree();
    let before = state(t.path());
    let plan = plan(Verb::Record, &[]);
    let mut s = open(t.path(), &plan);
    s.configure(&plan).unwrap();
    s.switch_on().unwrap();
    let run = t.path().join("run");
    let root = t.path().join("t");
    assert!(journal::leftovers(&run, &root).unwrap().is_empty(), "this process lives");
    // The same file, of a process that is gone.
    let file = std::fs::read_dir(&run).unwrap().next().unwrap().unwrap().path();
    let text = std::fs::read_to_string(&file).unwrap();
    let me = std::process::id().to_string();
    let dead = text.replacen(&format!("\t{me}\t"), "\t4194305\t", 1);
    assert_ne!(text, dead);
    std::mem::forget(s);
    std::fs::write(&file, dead).unwrap();
    let left = journal::leftovers(&run, &root).unwrap();
    assert_eq!(left.len(), 1);
    for l in left {
        let errors = l.undo();
        assert!(errors.is_empty(), "{errors:?}");
    }
    assert_eq!(state(t.path()), before);
    assert!(!has_journal(t.path()));
}
