//! The scenarios that trace-cmd's own unit tests have, with our binary and our crates, on the kernel of the guest it runs in.
//!
//! Runs `tracecmd` from PATH, as root, one check after the other; each leaves the tracer as after a boot. Never run it on a
//! machine that somebody uses: it resets tracing.

use std::path::Path;
use std::process::{Command, Output};

use libtest_mimic::{Arguments, Failed, Trial};
use trace_dat::TraceFile;
use trace_dat::ring::merge::Merge;
use trace_dat::time::TimeMap;
use tracefs::dynevent::{Eprobe, Kprobe, Uprobe};
use tracefs::{DynEvent, DynEventKind, EnableState, EventTarget, TraceFs};

type Outcome = Result<(), Failed>;

fn main() {
    let mut args = Arguments::from_args();
    args.test_threads = Some(1);
    let checks: [(&str, fn() -> Outcome); 7] = [
        ("record and report", record_and_report),
        ("histogram by sqlhist", histogram),
        ("maximum size", maximum_size),
        ("version 7 to 6", convert),
        ("forward, in steps, backward", cursor),
        ("reset of dynamic events", dynamic_events),
        ("reset", reset),
    ];
    let trials = checks.into_iter().map(|(name, check)| Trial::test(name, check)).collect();
    libtest_mimic::run(&args, trials).exit();
}

fn tracecmd(words: &[&str]) -> Output {
    Command::new("tracecmd").args(words).output().expect("tracecmd is in PATH")
}

/// Runs it and gives its output.
fn good(words: &[&str]) -> Result<String, Failed> {
    let done = tracecmd(words);
    if !done.status.success() {
        return Err(format!("{words:?}: {}\n{}", done.status, String::from_utf8_lossy(&done.stderr)).into());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

fn check(right: bool, what: impl FnOnce() -> String) -> Outcome {
    if right { Ok(()) } else { Err(what().into()) }
}

fn path(name: &str) -> String {
    std::env::temp_dir().join(name).to_string_lossy().into_owned()
}

fn open(path: &str) -> Result<TraceFile, Failed> {
    Ok(TraceFile::open(Path::new(path)).map_err(|e| e.to_string())?)
}

/// Time, CPU and bytes of a record.
type Seen = (u64, u32, Vec<u8>);

fn next(m: &mut Merge) -> Option<Seen> {
    m.next().map(|r| (r.ts, r.record().cpu, r.record().data.to_vec()))
}

fn prev(m: &mut Merge) -> Option<Seen> {
    m.prev().map(|r| (r.ts, r.record().cpu, r.record().data.to_vec()))
}

fn all(file: &TraceFile) -> Vec<Seen> {
    let mut m = file.records(&TimeMap::default());
    std::iter::from_fn(|| next(&mut m)).collect()
}

fn record_and_report() -> Outcome {
    let dat = path("unit-a.dat");
    good(&["record", "-q", "-e", "sched", "-e", "raw_syscalls", "-o", &dat, "ls", "-l", "/proc/self/task"])?;
    let file = open(&dat)?;
    let records = all(&file);
    let text = good(&["report", "--cpu", "0-63", &dat])?;
    let lines = text.lines().filter(|l| !l.starts_with("cpus=")).count();
    check(records.len() > 50 && lines == records.len(), || format!("{} records, {lines} lines", records.len()))?;
    let decoder = file.decoder();
    let named = records.iter().filter(|r| decoder.event_of(&r.2).is_some()).count();
    check(named == records.len(), || format!("{named} of {} have a format", records.len()))?;
    check(text.contains("sys_enter") && text.contains("sched_switch"), || text.chars().take(500).collect())
}

fn histogram() -> Outcome {
    good(&["sqlhist", "-e", "SELECT CAST(common_pid AS COMM), CAST(id AS SYSCALL) FROM sys_enter"])?;
    let top = TraceFs::find()?.top();
    good(&["list", "-t"])?;
    let tables = top.histograms("raw_syscalls", "sys_enter")?;
    let hits = tables.first().and_then(|t| t.hits).unwrap_or(0);
    check(hits > 0, || format!("{tables:?}"))?;
    let entry = tables[0].entries.iter().find(|e| e.keys.iter().any(|(n, v)| n == "id" && v.starts_with("sys_")));
    check(entry.is_some(), || format!("no name of a system call: {:?}", tables[0].entries.first()))?;
    good(&[
        "sqlhist",
        "-n",
        "unit_lat",
        "-e",
        "SELECT start.pid, TIMESTAMP_DELTA_USECS AS us FROM sched_waking AS start JOIN sched_switch AS end ON start.pid = end.next_pid",
    ])?;
    let dat = path("unit-b.dat");
    good(&["record", "-q", "-e", "unit_lat", "-o", &dat, "sh", "-c", "for i in 1 2 3; do sleep 0.02; done"])?;
    let text = good(&["report", &dat])?;
    check(text.contains("unit_lat:") && text.contains("us="), || text)?;
    good(&["reset"])?;
    let left = top.root().dynevents(&DynEventKind::ALL, None)?;
    check(left.is_empty() && top.triggers("raw_syscalls", "sys_enter")?.is_empty(), || format!("{left:?}"))
}

fn maximum_size() -> Outcome {
    let dat = path("unit-m.dat");
    let script = "i=0; while [ $i -lt 400 ]; do ls / > /dev/null; i=$((i + 1)); [ $i -lt 60 ] || break; done; echo end > /sys/kernel/tracing/trace_marker";
    good(&[
        "record",
        "-q",
        "-m",
        "200",
        "-e",
        "raw_syscalls",
        "-e",
        "kmem",
        "-e",
        "sched",
        "--compression",
        "none",
        "-o",
        &dat,
        "sh",
        "-c",
        script,
    ])?;
    let file = open(&dat)?;
    for cpu in file.buffers()[0].cpus.iter() {
        check(cpu.size <= 220 << 10, || {
            format!("{} bytes of a CPU, more than 200 kB and the last sub-buffers", cpu.size)
        })?;
    }
    let records = all(&file);
    // What is kept is the end of the recording.
    check(records.len() > 200 && records.iter().any(|r| r.2.windows(3).any(|w| w == b"end")), || {
        format!("{} records, the last one is missing", records.len())
    })
}

fn convert() -> Outcome {
    let (seven, six) = (path("unit-a.dat"), path("unit-6.dat"));
    good(&["convert", "--file-version", "6", "-i", &seven, "-o", &six])?;
    let (a, b) = (open(&seven)?, open(&six)?);
    check(a.version() == 7 && b.version() == 6, || format!("versions {} and {}", a.version(), b.version()))?;
    let (a, b) = (all(&a), all(&b));
    check(a == b, || format!("{} and {} records", a.len(), b.len()))?;
    check(good(&["report", &seven])? == good(&["report", &six])?, || "the reports differ".into())
}

fn cursor() -> Outcome {
    let file = open(&path("unit-a.dat"))?;
    let forward = all(&file);
    let mut m = file.records(&TimeMap::default());
    m.seek_end();
    let mut backward: Vec<Seen> = std::iter::from_fn(|| prev(&mut m)).collect();
    backward.reverse();
    check(forward == backward, || format!("{} there, {} back", forward.len(), backward.len()))?;
    // Three forward, one back.
    m.rewind();
    let mut at = 0;
    while at + 3 <= forward.len() {
        for _ in 0..3 {
            check(next(&mut m).as_ref() == forward.get(at), || format!("record {at}"))?;
            at += 1;
        }
        check(prev(&mut m).as_ref() == forward.get(at - 2), || format!("back at {at}"))?;
        at -= 1;
    }
    let middle = forward[forward.len() / 2].0;
    m.seek(middle);
    let first = forward.iter().position(|r| r.0 >= middle).unwrap_or(0);
    check(prev(&mut m).as_ref() == first.checked_sub(1).and_then(|i| forward.get(i)), || "before a time".into())?;
    check(next(&mut m).as_ref() == forward.get(first), || "at a time".into())?;
    // Each CPU by itself.
    let mut records = file.records(&TimeMap::default());
    for input in records.inputs_mut() {
        let s = &mut input.stream;
        let there: Vec<_> = std::iter::from_fn(|| s.next_record().map(|r| (r.ts, r.data.to_vec()))).collect();
        let mut back: Vec<_> = std::iter::from_fn(|| s.prev_record().map(|r| (r.ts, r.data.to_vec()))).collect();
        back.reverse();
        check(there == back, || format!("CPU {}: {} there, {} back", s.cpu(), there.len(), back.len()))?;
    }
    Ok(())
}

/// Each kind is kept with `-k`, and goes without, also while an instance has it enabled.
fn dynamic_events() -> Outcome {
    let fs = TraceFs::find()?;
    let me = "/bin/busybox";
    let probes: [(&str, DynEvent); 5] = [
        ("kprobe", Kprobe::new("vfs_read").named("unit", "k").into()),
        ("kretprobe", Kprobe::ret("vfs_read", None).named("unit", "kr").into()),
        ("uprobe", Uprobe::new(me, 0x1000).named("unit", "u").into()),
        ("uretprobe", Uprobe::new(me, 0x1000).ret().named("unit", "ur").into()),
        ("eprobe", Eprobe::new("e", "sched", "sched_waking").arg("p=$pid:s32")?.into()),
    ];
    let instance = fs.create_instance("unit")?;
    for (_, p) in &probes {
        fs.create_dynevent(p)?;
        instance.enable(&EventTarget::Event(p.group().into(), p.name().into()), true)?;
    }
    for (word, p) in &probes {
        if fs.find_dynevent(p.group(), p.name())?.is_none() {
            fs.create_dynevent(p)?;
        }
        good(&["reset", "-k", word])?;
        let left = fs.dynevents(&DynEventKind::ALL, None)?;
        check(left.len() == 1 && left[0].kind() == p.kind(), || format!("reset -k {word} left {left:?}"))?;
        good(&["reset"])?;
        let left = fs.dynevents(&DynEventKind::ALL, None)?;
        check(left.is_empty(), || format!("reset left {left:?}"))?;
    }
    instance.remove()?;
    Ok(())
}

fn reset() -> Outcome {
    let top = TraceFs::find()?.top();
    good(&[
        "start",
        "-e",
        "sched",
        "-f",
        "common_pid > 3",
        "-e",
        "sched:sched_waking",
        "-R",
        "stacktrace",
        "-C",
        "mono",
        "-M",
        "1",
        "-l",
        "vfs_read",
    ])?;
    check(top.is_enabled(&EventTarget::System("sched".into()))? == EnableState::On, || "start".into())?;
    good(&["reset", "-b", "1408"])?;
    check(top.is_enabled(&EventTarget::All)? == EnableState::Off, || "events are on".into())?;
    check(top.clock()? == "local" && top.tracer()? == "nop" && top.is_on()?, || "clock, tracer or tracing_on".into())?;
    check(top.cpumask()?.len() == top.cpus()?.len(), || "CPU mask".into())?;
    check(top.triggers("sched", "sched_waking")?.is_empty(), || "triggers".into())?;
    let filter = top.event_filter(&EventTarget::Event("sched".into(), "sched_switch".into()))?;
    check(filter.is_none(), || format!("{filter:?}"))?;
    let functions = top.functions(tracefs::FuncList::Filter)?;
    check(functions.is_empty(), || format!("{functions:?}"))
}
