//! The running kernel, in an instance of its own. Says why when it cannot.

use std::time::Duration;

use tracefs::dynevent::{Eprobe, Fprobe, Kprobe, SynthEvent, SynthField, Tprobe, Uprobe};
use tracefs::event_filter::{self, Compare, FilterBuilder};
use tracefs::hist::{Action, Handler, HistCommand, HistField, Modifier, SortKey};
use tracefs::{
    CpuReader, CpuSet, DynEvent, DynEventKind, EnableState, Error, EventTarget, FuncList, FuncPattern, Hist, Instance,
    Journal, MappedCpu, Marker, PidList, RawMarker, Settings, SnapshotAction, Sql, TraceFs, TracePipe, Trigger, Wait,
};

#[path = "../../tests/src/skip.rs"]
mod skip;

/// Notes that the test of this thread, or a part of it, cannot run here.
fn skipped(why: impl std::fmt::Display) {
    let thread = std::thread::current();
    skip::skip(&format!("tracefs live {}", thread.name().unwrap_or("main")), &why.to_string());
}

/// An instance that goes with the test.
struct Own(Option<Instance>);

impl Drop for Own {
    fn drop(&mut self) {
        let Some(i) = self.0.take() else { return };
        // A process that another test starts has our files open for a moment.
        for _ in 0..100 {
            match i.clone().remove() {
                Err(Error::Busy { .. }) => std::thread::sleep(Duration::from_millis(20)),
                other => return assert!(other.is_ok() || std::thread::panicking(), "{other:?}"),
            }
        }
        assert!(std::thread::panicking(), "the instance stays busy");
    }
}

fn own(name: &str) -> Option<(Own, Instance)> {
    let made = TraceFs::find().and_then(|fs| fs.create_instance(&format!("{name}-{}", std::process::id())));
    match made {
        Ok(i) => Some((Own(Some(i.clone())), i)),
        Err(e) => {
            skipped(e);
            None
        }
    }
}

#[test]
fn settings_come_back() {
    let Some((_own, i)) = own("tracefs-undo") else { return };
    let journal = Journal::in_memory();
    let fs = TraceFs::at(i.root().path()).with_journal(journal.clone());
    let before = Settings::read(&i).unwrap();
    let j = fs.instance(i.name().unwrap()).unwrap();
    j.set_on(false).unwrap();
    j.set_clock("mono").unwrap();
    j.set_option("overwrite", false).unwrap();
    j.set_buffer_size_kb(500, None).unwrap();
    j.enable(&EventTarget::System("sched".into()), true).unwrap();
    j.enable(&EventTarget::Event("sched".into(), "sched_switch".into()), false).unwrap();
    j.set_event_filter(&EventTarget::Event("sched".into(), "sched_wakeup".into()), "pid == 1").unwrap();
    j.add_trigger("sched", "sched_waking", "traceoff if pid == 999999").unwrap();
    let changed = Settings::read(&i).unwrap();
    assert!(before.diff(&changed).len() >= 8, "{:?}", before.diff(&changed));
    let errors = journal.undo();
    assert!(errors.is_empty(), "{errors:?}");
    let after = Settings::read(&i).unwrap();
    let left: Vec<_> = before.diff(&after).into_iter().filter(|d| d.0 != "buffer_size_kb").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn refusals_say_why() {
    let Some((_own, i)) = own("tracefs-refuse") else { return };
    let target = EventTarget::Event("sched".into(), "sched_switch".into());
    match i.set_event_filter(&target, "no_such_field == 1") {
        Err(Error::Refused { log, .. }) => assert!(log.contains("Field not found"), "{log}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(i.set_tracer("nonsense"), Err(Error::NoTracer { .. })));
    assert!(matches!(i.set_clock("nonsense"), Err(Error::NoClock { .. })));
    match i.expand_events("sched_swich", false) {
        Err(Error::NoEvent { near, .. }) => assert_eq!(near, ["sched:sched_switch"]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn raw_data_three_ways() {
    let Some((_own, i)) = own("tracefs-raw") else { return };
    i.set_buffer_percent(0).unwrap();
    let cpus = i.cpus().unwrap();
    let mut marker = Marker::open(&i).unwrap();
    for n in 0..3000 {
        marker.write(&format!("hello {n}")).unwrap();
    }
    let (mut spliced, mut flushed) = (0, 0);
    for cpu in &cpus {
        let mut r = CpuReader::open(&i, *cpu).unwrap();
        let mut out = tempfile::tempfile().unwrap();
        if i.stats(*cpu).unwrap().entries == Some(0) {
            assert_eq!(r.wait(Some(Duration::from_millis(1))).unwrap(), Wait::Timeout);
            continue;
        }
        assert_eq!(r.wait(Some(Duration::from_secs(5))).unwrap(), Wait::Ready);
        loop {
            match r.transfer(std::os::fd::AsFd::as_fd(&out)).unwrap() {
                0 => break,
                n => spliced += n,
            }
        }
        flushed += r.flush(std::os::fd::AsFd::as_fd(&out), 1000).unwrap();
        assert_eq!(i.stats(*cpu).unwrap().entries, Some(0));
        let mut text = Vec::new();
        std::io::Seek::rewind(&mut out).unwrap();
        std::io::Read::read_to_end(&mut out, &mut text).unwrap();
        assert_eq!(text.len() % r.subbuf_size(), 0);
        assert!(text.windows(10).any(|w| w == b"hello 2999") || cpus.len() > 1);
    }
    assert!(spliced > 0 && flushed > 0, "{spliced} {flushed}");
    for n in 0..3000 {
        marker.write(&format!("again {n:05}")).unwrap();
    }
    let mut found = 0;
    for cpu in cpus {
        let mut m = match MappedCpu::open(&i, cpu) {
            Ok(m) => m,
            Err(e @ Error::Unsupported { .. }) => {
                skipped(e);
                return;
            }
            Err(e) => panic!("{e}"),
        };
        let mut pages = 0;
        while let Some(s) = m.next().unwrap() {
            found += s.data[s.from..s.end].windows(6).filter(|w| w == b"again ").count();
            pages += 1;
            assert!(pages < 10_000);
        }
    }
    assert_eq!(found, 3000);
}

#[test]
fn probes() {
    let Some((_own, i)) = own("tracefs-probe") else { return };
    let fs = i.root();
    let group = format!("g{}", std::process::id());
    let events: [DynEvent; 3] = [
        Kprobe::new("vfs_read").named(&group, "rd").into(),
        Kprobe::ret("vfs_read", None).named(&group, "rdret").arg("ret=$retval").unwrap().into(),
        Uprobe::at_symbol(std::env::current_exe().unwrap(), "main").unwrap().named(&group, "up").into(),
    ];
    let mut made = Vec::new();
    for e in events {
        match fs.create_dynevent(&e) {
            Ok(()) => made.push(e),
            Err(x @ (Error::Unsupported { .. } | Error::Lockdown { .. })) => skipped(format!("{e}: {x}")),
            Err(x) => panic!("{e}: {x}"),
        }
    }
    let listed = fs.dynevents(&DynEventKind::ALL, Some(&group)).unwrap();
    assert_eq!(listed.len(), made.len());
    for e in &made {
        assert_eq!(fs.find_dynevent(&group, e.name()).unwrap().map(|f| f.kind()), Some(e.kind()));
        i.enable(&EventTarget::Event(group.clone(), e.name().into()), true).unwrap();
        assert!(matches!(fs.remove_dynevent(e, false), Err(Error::Busy { .. })));
        fs.remove_dynevent(e, true).unwrap();
    }
    assert!(fs.dynevents(&DynEventKind::ALL, Some(&group)).unwrap().is_empty());
}

fn event(system: &str, name: &str) -> EventTarget {
    EventTarget::Event(system.into(), name.into())
}

/// Something that wakes tasks and makes system calls.
fn work() {
    for _ in 0..20 {
        std::fs::read("/proc/self/stat").unwrap();
        std::thread::spawn(|| std::thread::sleep(Duration::from_micros(200))).join().unwrap();
    }
}

#[test]
fn histogram_built_and_read_back() {
    let Some((_own, i)) = own("tracefs-hist") else { return };
    let (s, e) = ("sched", "sched_waking");
    let mut hist = Hist::new([HistField::new("prio", Modifier::Buckets(10)), HistField::new("comm", Modifier::None)]);
    hist.vals.push(HistField::new("pid", Modifier::None));
    hist.sort.push(SortKey { name: "hitcount".into(), descending: true });
    hist.size = Some(1024);
    hist.filter = Some("pid > 0".into());
    if let Err(e) = i.start_hist(s, e, &hist) {
        return skipped(e);
    }
    work();
    let shown = i.triggers(s, e).unwrap();
    assert_eq!(shown.len(), 1);
    let tracefs::TriggerAction::Hist(back) = &shown[0].action else { panic!("{shown:?}") };
    assert_eq!((&back.keys, &back.sort, back.size, &back.filter), (&hist.keys, &hist.sort, hist.size, &hist.filter));
    // Counted meanwhile, a table is neither in order nor as long as it says.
    i.command_hist(s, e, &hist, HistCommand::Pause).unwrap();
    assert!(i.trigger_lines(s, e).unwrap()[0].ends_with("[paused]"));
    let tables = i.histograms(s, e).unwrap();
    let table = &tables[0];
    assert!(table.hits.unwrap() >= 20 && !table.entries.is_empty(), "{table:?}");
    assert_eq!(table.entry_count, Some(table.entries.len() as u64));
    let sum: u64 = table.entries.iter().map(|x| x.number("hitcount").unwrap()).sum();
    assert!(sum <= table.hits.unwrap() && sum > 0);
    assert!(table.entries[0].keys.iter().any(|(n, _)| n == "comm"), "{:?}", table.entries[0]);
    assert!(table.entries.windows(2).all(|w| w[0].number("hitcount") >= w[1].number("hitcount")), "sorted");
    i.command_hist(s, e, &hist, HistCommand::Clear).unwrap();
    assert_eq!(i.histograms(s, e).unwrap()[0].hits, Some(0));
    i.command_hist(s, e, &hist, HistCommand::Continue).unwrap();
    work();
    assert!(i.histograms(s, e).unwrap()[0].hits.unwrap() > 0);
    i.remove_hist(s, e, &hist).unwrap();
    assert!(i.triggers(s, e).unwrap().is_empty());
}

#[test]
fn synthetic_event_from_sql() {
    let Some((_own, i)) = own("tracefs-synth") else { return };
    let name = format!("lat{}", std::process::id());
    let text = "SELECT start.pid, TIMESTAMP_DELTA_USECS AS us FROM sched_waking AS start JOIN sched_switch AS end \
                ON start.pid = end.next_pid WHERE start.pid > 0";
    let Sql::Synth(synth) = Sql::parse(text, &i.root().top(), &name, 77).unwrap() else { panic!("not synthetic") };
    let top = i.root().top();
    let before = Settings::read(&top).unwrap();
    if let Err(e) = synth.create(&i) {
        return skipped(e);
    }
    assert!(synth.create(&i).is_err(), "it is there already");
    let found = i.root().find_dynevent("synthetic", &name).unwrap().unwrap();
    assert_eq!(found, DynEvent::Synth(synth.synth_event()));
    for (side, hist) in
        [(tracefs::synth::Side::Start, synth.start_hist()), (tracefs::synth::Side::End, synth.end_hist())]
    {
        let event = synth.event(side);
        let shown = i.triggers(&event.system, &event.name).unwrap();
        let tracefs::TriggerAction::Hist(back) = &shown[0].action else { panic!("{shown:?}") };
        assert_eq!((&back.keys, &back.filter), (&hist.keys, &hist.filter));
        assert_eq!(back.vars.len() + back.actions.len(), hist.vars.len() + hist.actions.len(), "{back}");
    }
    i.enable(&event("synthetic", &name), true).unwrap();
    work();
    let text = i.dir().read("trace").unwrap();
    let hits = text.lines().filter(|l| l.contains(&format!("{name}: pid="))).count();
    assert!(hits > 5, "{hits} of\n{text}");
    synth.destroy(&i).unwrap();
    let after = Settings::read(&top).unwrap();
    let left: Vec<_> = before.diff(&after).into_iter().filter(|d| d.0 != "error_log").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn actions_of_histograms() {
    let Some((_own, i)) = own("tracefs-action") else { return };
    let first = Hist {
        keys: vec![HistField::new("pid", Modifier::None)],
        vars: vec![("ts0".into(), "common_timestamp.usecs".into())],
        ..Hist::default()
    };
    let second = |handler: fn(String) -> Handler| Hist {
        keys: vec![HistField::new("next_pid", Modifier::None)],
        vars: vec![("lat".into(), "common_timestamp.usecs-$ts0".into())],
        actions: vec![(handler("lat".into()), Action::Save(vec!["next_comm".into(), "prev_pid".into()]))],
        ..Hist::default()
    };
    if let Err(e) = i.start_hist("sched", "sched_waking", &first) {
        return skipped(e);
    }
    for handler in [Handler::Max as fn(String) -> Handler, Handler::Change] {
        let hist = second(handler);
        i.start_hist("sched", "sched_switch", &hist).unwrap();
        work();
        let shown = i.triggers("sched", "sched_switch").unwrap();
        let tracefs::TriggerAction::Hist(back) = &shown[0].action else { panic!("{shown:?}") };
        assert_eq!(back.actions, hist.actions, "{back}");
        i.remove_hist("sched", "sched_switch", &hist).unwrap();
    }
    i.remove_hist("sched", "sched_waking", &first).unwrap();
    assert!(i.clear_all_triggers().unwrap().is_empty());
}

#[test]
fn triggers() {
    let Some((_own, i)) = own("tracefs-trigger") else { return };
    let (s, e) = ("sched", "sched_waking");
    // With a filter that nothing passes: counts go down with each hit, and tasks wake at any time.
    let stack = "stacktrace:3 if pid == 999999";
    for text in ["traceoff:5 if pid == 999999", stack, "enable_event:sched:sched_switch:1 if pid == 999999"] {
        i.add_trigger(s, e, text).unwrap();
        let shown = i.triggers(s, e).unwrap();
        assert!(shown.contains(&text.parse::<Trigger>().unwrap()), "{shown:?}");
    }
    i.remove_trigger(s, e, stack).unwrap();
    assert_eq!(i.triggers(s, e).unwrap().len(), 2);
    match i.add_trigger(s, e, "traceoff if nofield == 1") {
        // Linux 6.1 keeps no log of filters of triggers.
        Err(Error::Refused { log, .. }) => assert!(log.is_empty() || log.contains("Field not found"), "{log}"),
        other => panic!("{other:?}"),
    }
    assert!(i.clear_triggers(s, e).unwrap());
    assert!(i.trigger_lines(s, e).unwrap().is_empty());
}

#[test]
fn filters_that_the_checker_accepts() {
    let Some((_own, i)) = own("tracefs-filter") else { return };
    let target = event("sched", "sched_switch");
    let format = i.event_fields("sched", "sched_switch").unwrap();
    let mut f = FilterBuilder::new(&format);
    f.compare("prev_pid", Compare::Gt, "3").unwrap().and().unwrap();
    f.not().unwrap().open().unwrap().compare("next_comm", Compare::Glob, "k*").unwrap().or().unwrap();
    f.compare("prev_prio", Compare::And, "7").unwrap().close().unwrap();
    for text in [f.finish().unwrap().as_str(), "prev_pid == 0x10 || CPU & 1", "COMM ~ \"ba*\"", "prev_comm != 'x'"] {
        event_filter::verify(&format, text).unwrap();
        i.set_event_filter(&target, text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(i.event_filter(&target).unwrap().as_deref(), Some(text));
    }
    for bad in ["prev_pid == x", "nofield == 1", "(prev_pid == 1", "prev_comm > 1", "prev_pid ~ \"x\""] {
        assert!(event_filter::verify(&format, bad).is_err(), "{bad}");
        assert!(i.set_event_filter(&target, bad).is_err(), "{bad}");
    }
    i.clear_filters_of(&EventTarget::System("sched".into())).unwrap();
    assert_eq!(i.event_filter(&target).unwrap(), None);
    assert_eq!(i.enable_events(Some("sched"), Some("sched_wak(ing|eup)"), true).unwrap(), 2);
    assert_eq!(i.is_enabled(&EventTarget::System("sched".into())).unwrap(), EnableState::Some);
}

#[test]
fn every_kind_of_dynamic_event() {
    let Some((_own, i)) = own("tracefs-dyn") else { return };
    let fs = i.root();
    let g = format!("dyn{}", std::process::id());
    let in_group = |mut e: DynEvent| {
        match &mut e {
            DynEvent::Eprobe(p) => p.group.clone_from(&g),
            DynEvent::Fprobe(p) => p.group.clone_from(&g),
            DynEvent::Tprobe(p) => p.group.clone_from(&g),
            _ => {}
        }
        e
    };
    let me = std::env::current_exe().unwrap();
    let list: Vec<DynEvent> = vec![
        Kprobe::new("do_sys_openat2")
            .named(&g, "kp")
            .arg("dfd=%di:s32")
            .unwrap()
            .arg("file=+0(%si):ustring")
            .unwrap()
            .into(),
        Kprobe::ret("do_sys_openat2", Some(20)).named(&g, "kr").arg("fd=$retval:s32").unwrap().into(),
        Uprobe::at_symbol(&me, "main").unwrap().named(&g, "up").arg("argc=%di:s32").unwrap().into(),
        Uprobe::at_symbol(&me, "main").unwrap().ret().named(&g, "ur").arg("$retval").unwrap().into(),
        in_group(Eprobe::new("ep", "sched", "sched_waking").arg("p=$pid:s32").unwrap().into()),
        in_group(Fprobe::new("fp", "vfs_read").into()),
        in_group(Fprobe::new("fr", "vfs_read").ret().arg("ret=$retval").unwrap().into()),
        in_group(Tprobe::new("tp", "sched_switch").into()),
        SynthEvent::new(
            format!("sy{}", std::process::id()),
            [SynthField::new("u64", "lat"), SynthField::new("char", "comm[16]")],
        )
        .into(),
    ];
    let mut made = 0;
    for e in &list {
        // The last line before a kernel that hangs says which.
        eprintln!("{e}");
        match fs.create_dynevent(e) {
            Ok(()) => {}
            Err(x @ (Error::Unsupported { .. } | Error::Lockdown { .. } | Error::Refused { .. }))
                if !matches!(x, Error::Refused { .. })
                    || matches!(e.kind(), DynEventKind::Fprobe | DynEventKind::Tprobe | DynEventKind::Eprobe) =>
            {
                skipped(format!("{e}: {x}"));
                continue;
            }
            Err(x) => panic!("{e}: {x}"),
        }
        made += 1;
        let found = fs.find_dynevent(e.group(), e.name()).unwrap().unwrap_or_else(|| panic!("{e} is not listed"));
        assert_eq!(found.kind(), e.kind(), "{found}");
        let again: DynEvent = found.to_string().parse().unwrap();
        assert_eq!(again, found);
        assert!(fs.create_dynevent(&found).is_err() || !matches!(e, DynEvent::Synth(_)));
        let target = event(e.group(), e.name());
        i.enable(&target, true).unwrap_or_else(|x| panic!("{e}: {x}"));
        assert_eq!(i.is_enabled(&target).unwrap(), EnableState::On);
    }
    work();
    // Reading makes events of its own, on a slow machine more than are read.
    i.set_on(false).unwrap();
    if made > 0 {
        let text = i.dir().read("trace").unwrap();
        if fs.find_dynevent(&g, "kp").unwrap().is_some() {
            assert!(text.contains(" kp: (do_sys_openat2") && text.contains("file=\"/proc/self/stat\""), "{text}");
        }
        if fs.find_dynevent(&g, "ep").unwrap().is_some() {
            assert!(text.contains(" ep: ("), "no event probe");
        }
    }
    for e in fs.dynevents(&DynEventKind::ALL, Some(&g)).unwrap() {
        fs.remove_dynevent(&e, true).unwrap_or_else(|x| panic!("{e}: {x}"));
    }
    let _ = fs.remove_dynevent(list.last().unwrap(), true);
    assert!(fs.dynevents(&DynEventKind::ALL, Some(&g)).unwrap().is_empty());
    match fs.create_dynevent(&Kprobe::new("no_such_function_here").named(&g, "x").into()) {
        Err(Error::Refused { log, .. }) => assert!(log.contains("no_such_function_here"), "{log}"),
        Err(x @ (Error::Unsupported { .. } | Error::Lockdown { .. })) => skipped(format!("{x}")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn function_lists() {
    let Some((_own, i)) = own("tracefs-func") else { return };
    let list = |texts: &[&str]| texts.iter().map(|t| FuncPattern::new(t, None).unwrap()).collect::<Vec<_>>();
    if let Err(e) = i.set_functions(FuncList::Filter, &list(&["vfs_re*", "^vfs_(write|open)$"]), false) {
        return skipped(e);
    }
    let mut want = i.matching_functions(&FuncPattern::new("^vfs_(re.*|write|open)$", None).unwrap()).unwrap();
    want.sort();
    let sorted = |list| {
        let mut l: Vec<String> = i.functions(list).unwrap();
        l.sort();
        l
    };
    assert_eq!(sorted(FuncList::Filter), want);
    i.set_functions(FuncList::Filter, &list(&["do_exit"]), true).unwrap();
    assert_eq!(i.functions(FuncList::Filter).unwrap().len(), want.len() + 1);
    i.set_functions(FuncList::Notrace, &list(&["vfs_read"]), false).unwrap();
    assert_eq!(sorted(FuncList::Notrace), ["vfs_read"]);
    assert!(matches!(
        i.set_functions(FuncList::Filter, &list(&["no_such_function_*"]), false),
        Err(Error::NoFunction { .. })
    ));
    i.add_function_command("vfs_read:traceoff:3").unwrap();
    // Whoever reads counts it down.
    let shown = i.functions(FuncList::Filter).unwrap();
    let counted = |n| shown.iter().any(|l| *l == format!("vfs_read:traceoff:count={n}"));
    assert!((0..=3).any(counted), "{shown:?}");
    i.add_future_functions(FuncList::Filter, &FuncPattern::module("no_such_module")).unwrap();
    i.clear_functions(FuncList::Filter).unwrap();
    let left = i.functions(FuncList::Filter).unwrap();
    assert!(left.is_empty(), "{left:?}");
    i.clear_functions(FuncList::Notrace).unwrap();
}

#[test]
fn process_lists_follow_children() {
    let Some((_own, i)) = own("tracefs-pid") else { return };
    // The lists are of threads.
    let me = nix::unistd::gettid().as_raw();
    i.set_pids(PidList::Event, &[me]).unwrap();
    i.set_follow_fork(true).unwrap();
    i.enable(&EventTarget::System("sched".into()), true).unwrap();
    let mut child = std::process::Command::new("sleep").arg("0.2").spawn().unwrap();
    let pids = i.pids(PidList::Event).unwrap();
    assert!(pids.contains(&me) && pids.contains(&(child.id() as i32)), "{pids:?}");
    child.wait().unwrap();
    let gone = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        !i.pids(PidList::Event).unwrap().contains(&(child.id() as i32))
    });
    assert!(gone, "it is still listed");
    i.add_pids(PidList::EventNotrace, &[1]).unwrap();
    assert_eq!(i.pids(PidList::EventNotrace).unwrap(), [1]);
    i.set_pids(PidList::EventNotrace, &[]).unwrap();
    i.set_pids(PidList::Event, &[]).unwrap();
    assert!(i.pids(PidList::Event).unwrap().is_empty());
}

#[test]
fn snapshot_markers_and_lines() {
    let Some((_own, i)) = own("tracefs-mark") else { return };
    i.set_cpumask(None).unwrap();
    let mut marker = Marker::open(&i).unwrap();
    write!(marker, "number {} of {}", 1, 2).unwrap();
    RawMarker::open(&i).unwrap().write(0x77, b"raw").unwrap();
    match i.snapshot(SnapshotAction::Take, None) {
        Ok(()) => {
            assert!(i.has_snapshot().unwrap());
            let text = String::from_utf8_lossy(&i.snapshot_text(None).unwrap()).into_owned();
            assert!(text.contains("number 1 of 2"), "{text}");
            i.snapshot(SnapshotAction::Clear, None).unwrap();
            assert!(!String::from_utf8_lossy(&i.snapshot_text(None).unwrap()).contains("number 1 of 2"));
            i.snapshot(SnapshotAction::Free, None).unwrap();
            assert!(!i.has_snapshot().unwrap());
        }
        Err(e) => skipped(e),
    }
    let mut pipe = TracePipe::open(&i, None).unwrap();
    let stop = pipe.stop_handle();
    let writer = std::thread::spawn(move || {
        for n in 0..50 {
            write!(marker, "line {n}").unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_millis(300));
        stop.stop();
    });
    let mut seen = 0;
    while let Some(line) = pipe.next_line().unwrap() {
        let line = String::from_utf8_lossy(line).into_owned();
        seen += usize::from(line.contains(&format!("line {seen}")));
    }
    writer.join().unwrap();
    assert_eq!(seen, 50, "lines come while nothing ends the wait");
}

#[test]
fn sizes_clocks_masks_names() {
    let Some((_own, i)) = own("tracefs-set") else { return };
    for clock in i.clocks().unwrap() {
        match i.set_clock(&clock) {
            Ok(()) => assert_eq!(i.clock().unwrap(), clock),
            Err(e) => skipped(format!("clock {clock}: {e}")),
        }
    }
    i.set_buffer_size_kb(64, None).unwrap();
    let total = i.buffer_total_size_kb().unwrap();
    assert!(total >= 64 * i.cpus().unwrap().len() as u64, "{total}");
    i.set_buffer_size_kb(128, Some(0)).unwrap();
    match i.subbuf_size_kb().unwrap() {
        Some(4) => {
            i.set_subbuf_size_kb(8).unwrap();
            assert_eq!((i.subbuf_size_kb().unwrap(), i.subbuf_size().unwrap()), (Some(8), 8192));
        }
        other => skipped(format!("sub-buffers of {other:?} kB")),
    }
    let first = CpuSet::from_list("0").unwrap();
    i.set_cpumask(Some(&first)).unwrap();
    assert_eq!(i.cpumask().unwrap(), first);
    i.set_option("stacktrace", true).unwrap();
    assert!(i.option("stacktrace").unwrap() && i.options().unwrap().contains(&("stacktrace".into(), true)));
    i.enable(&event("sched", "sched_switch"), true).unwrap();
    // Where it is traced: nothing else may happen on that CPU.
    let mut here = nix::sched::CpuSet::new();
    here.set(0).unwrap();
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &here).unwrap();
    work();
    let names = i.root().saved_cmdlines().unwrap();
    assert!(!names.is_empty() && i.root().saved_cmdlines_size().unwrap() >= names.len() as i64);
    let all: u64 = i.cpus().unwrap().iter().map(|c| i.stats(*c).unwrap().entries.unwrap()).sum();
    assert!(all > 0);
    i.clear(None).unwrap();
}
