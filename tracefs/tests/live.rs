//! The running kernel, in an instance of its own. Says why when it cannot.

use std::time::Duration;

use tracefs::dynevent::{Kprobe, Uprobe};
use tracefs::{
    CpuReader, DynEvent, DynEventKind, Error, EventTarget, Instance, Journal, MappedCpu, Marker, Settings, TraceFs,
    Wait,
};

/// An instance that goes with the test.
struct Own(Option<Instance>);

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(i) = self.0.take() {
            i.remove().unwrap();
        }
    }
}

fn own(name: &str) -> Option<(Own, Instance)> {
    let made = TraceFs::find().and_then(|fs| fs.create_instance(&format!("{name}-{}", std::process::id())));
    match made {
        Ok(i) => Some((Own(Some(i.clone())), i)),
        Err(e) => {
            eprintln!("skipped: {e}");
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
                eprintln!("skipped: {e}");
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
            Err(x @ (Error::Unsupported { .. } | Error::Lockdown { .. })) => eprintln!("skipped {e}: {x}"),
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
