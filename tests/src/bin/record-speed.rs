//! Our and the reference's `record`, alternately, of the same load: CPU time of the recorder, the time from the end of the command to
//! the finished file, and lost events. `tests/guest/long/86-record-speed.sh` runs it in guests; it works on a machine, too, whose kernel
//! lets the reference record in an instance.
//!
//! `record-speed OURS REFERENCE [CALLS [ROUNDS]]`: the load is CALLS system calls (500,000) on each CPU, by processes pinned to it; they
//! are recorded in an instance of their own, with a filter that passes only them. Needs root. Status 1 when a number is worse than the
//! reference's: with one CPU the CPU time for each MB, with several half of the time to the finished file where it is packed, the lost events.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use tracecmd_tests::compare;

const INSTANCE: &str = "record-speed";

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["load", cpu, calls] => load(cpu.parse()?, calls.parse()?),
        ["hold", dir] => hold(Path::new(dir)),
        [ours, reference, rest @ ..] => {
            let number = |n: usize, or: u64| rest.get(n).map_or(Ok(or), |w| w.parse::<u64>());
            all(Path::new(ours), Path::new(reference), number(0, 500_000)?, number(1, 5)? as usize)
        }
        _ => bail!("usage: record-speed OURS REFERENCE [CALLS [ROUNDS]]"),
    }
}

/// The load of one CPU: waits for a line, makes the calls.
fn load(cpu: usize, calls: u64) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    for _ in 0..calls {
        std::hint::black_box(nix::unistd::getppid());
    }
    Ok(())
}

/// The command that is recorded: says that the recording has begun, waits until the load is done, writes down when it ended.
fn hold(dir: &Path) -> Result<()> {
    std::fs::write(dir.join("begun"), "")?;
    while !dir.join("done").exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::fs::write(dir.join("end"), format!("{}", now()?.as_nanos()))?;
    Ok(())
}

fn now() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.into())
}

/// What is recorded how.
struct Case {
    name: &'static str,
    options: &'static [&'static str],
    /// KiB of the kernel's buffer of each CPU.
    buffer: u64,
}

const CASES: [Case; 3] = [
    Case { name: "not packed", options: &["--compression", "none"], buffer: 8192 },
    Case { name: "zstd", options: &["--compression", "zstd"], buffer: 8192 },
    Case { name: "small buffer", options: &["--compression", "zstd"], buffer: 64 },
];

/// What one recording gave.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// CPU seconds of the recorder and its children.
    cpu: f64,
    /// Seconds from the end of the command to the end of the recorder.
    finish: f64,
    /// Events that were read from the kernel's buffer.
    read: u64,
    /// Events that the kernel wrote over before they were read.
    lost: u64,
    /// MB of the file.
    size: f64,
}

/// Bytes of a record of a system call's beginning and end, both in the kernel's buffer: what a MB of data is here.
const RECORD: f64 = (64.0 + 28.0) / 2.0;

fn all(ours: &Path, reference: &Path, calls: u64, rounds: usize) -> Result<()> {
    let cpus = std::thread::available_parallelism()?.get();
    println!("{cpus} CPUs, {calls} system calls on each, {rounds} rounds; minimum/median/maximum");
    println!("| what | recorder | CPU ms for each MB | ms from command to file | events lost | file MB |");
    println!("|---|---|---|---|---|---|");
    let mut worse = String::new();
    for case in CASES {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            a.push(record(reference, ours, &case, cpus, calls)?);
            b.push(record(ours, ours, &case, cpus, calls)?);
        }
        let of = |runs: &[Run], f: &dyn Fn(&Run) -> f64| {
            let mut v: Vec<f64> = runs.iter().map(f).collect();
            v.sort_by(f64::total_cmp);
            [v[0], v[v.len() / 2], v[v.len() - 1]]
        };
        let cost = |r: &Run| r.cpu * 1e3 / (r.read.max(1) as f64 * RECORD / 1e6);
        let mut rows = Vec::new();
        for (who, runs) in [("reference", &a), ("ours", &b)] {
            let row =
                [of(runs, &cost), of(runs, &|r| r.finish * 1e3), of(runs, &|r| r.lost as f64), of(runs, &|r| r.size)];
            let show = |v: &[f64; 3], digits: usize| v.map(|x| format!("{x:.digits$}")).join("/");
            let [c, f, l, s] = &row;
            println!("| {} | {who} | {} | {} | {} | {} |", case.name, show(c, 2), show(f, 0), show(l, 0), show(s, 1));
            rows.push(row);
        }
        let [theirs, mine] = [&rows[0], &rows[1]];
        // Virtual CPUs that share a thread: what goes on beside other work counts twice there.
        if cpus == 1 && case.buffer >= 1024 && mine[0][1] > theirs[0][1] {
            writeln!(worse, "{}: more CPU time for each MB", case.name)?;
        }
        if case.name == "zstd" && cpus > 1 && mine[1][1] > theirs[1][1] / 2.0 {
            writeln!(worse, "{}: more than half of the time to the file", case.name)?;
        }
        if mine[2][1] > theirs[2][1] {
            writeln!(worse, "{}: more events lost", case.name)?;
        }
    }
    print!("{worse}");
    ensure!(worse.is_empty(), "worse than the reference");
    Ok(())
}

/// The processes of the load, each waiting for its line.
fn loads(cpus: usize, calls: u64) -> Result<Vec<(Child, ChildStdin)>> {
    let this = std::env::current_exe()?;
    let one = |cpu: usize| {
        let mut child =
            Command::new(&this).args(["load", &cpu.to_string(), &calls.to_string()]).stdin(Stdio::piped()).spawn()?;
        let start = child.stdin.take().context("a pipe")?;
        anyhow::Ok((child, start))
    };
    (0..cpus).map(one).collect()
}

fn record(program: &Path, ours: &Path, case: &Case, cpus: usize, calls: u64) -> Result<Run> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("trace.dat");
    let loads = loads(cpus, calls)?;
    let filter: Vec<String> = loads.iter().map(|(c, _)| format!("common_pid == {}", c.id())).collect();
    let mut command = Command::new(program);
    command.args(["record", "-q", "-k", "-o"]).arg(&file).args(["-B", INSTANCE, "-b", &case.buffer.to_string()]);
    command.args(["-e", "raw_syscalls", "-f", &filter.join(" || ")]).args(case.options);
    command.arg(std::env::current_exe()?).arg("hold").arg(dir.path());
    let said = dir.path().join("said");
    let out = std::fs::File::create(&said)?;
    let mut child =
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).current_dir(dir.path()).spawn()?;
    let text = || std::fs::read_to_string(&said).unwrap_or_default();
    let end = Instant::now() + Duration::from_secs(120);
    while !dir.path().join("begun").exists() {
        if child.try_wait()?.is_some() || Instant::now() > end {
            bail!("{command:?} does not begin: {}", text());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let loads: Vec<Child> = loads
        .into_iter()
        .map(|(child, mut start)| start.write_all(b"\n").map(|()| child))
        .collect::<std::io::Result<_>>()?;
    for mut load in loads {
        ensure!(load.wait()?.success(), "the load failed");
    }
    let before = usage()?;
    std::fs::write(dir.path().join("done"), "")?;
    let status = child.wait()?;
    let (ended, cpu) = (now()?, usage()? - before);
    ensure!(status.success(), "{command:?}: {status}: {}", text());
    let stopped: u64 = std::fs::read_to_string(dir.path().join("end"))?.parse()?;
    let instance = PathBuf::from("/sys/kernel/tracing/instances").join(INSTANCE);
    let (mut read, mut lost) = (0, 0);
    for cpu in 0..cpus {
        let stats = BufReader::new(std::fs::File::open(instance.join(format!("per_cpu/cpu{cpu}/stats")))?);
        for line in stats.lines() {
            let line = line?;
            let number = |name: &str| line.strip_prefix(name).and_then(|n| n.trim().parse::<u64>().ok());
            read += number("read events:").unwrap_or(0);
            lost += number("overrun:").unwrap_or(0) + number("dropped events:").unwrap_or(0);
        }
    }
    std::fs::remove_dir(&instance)?;
    let shown = compare::report(ours, "", &file);
    let lines = shown.text.iter().filter(|c| **c == b'\n').count() as u64;
    ensure!(lines >= read, "{command:?}: {read} events were read, {lines} lines are in the file");
    let size = std::fs::metadata(&file)?.len() as f64 / 1e6;
    Ok(Run { cpu, finish: ended.as_secs_f64() - stopped as f64 / 1e9, read, lost, size })
}

/// CPU seconds of all children that were waited for, and of theirs.
fn usage() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}
