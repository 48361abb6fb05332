//! `mutate [--seed N] [--count N] [FILE...]`: runs the reading commands on damaged copies of files and counts what must not be.
//!
//! The table of docs/RELIABILITY.md comes from it:
//!
//! ```sh
//! cargo build --release --workspace --bin tracecmd --bin mutate
//! target/release/mutate --seed 7000 --count 10000 --keep /tmp/found fixtures/*.dat
//! target/release/mutate --seed 7000 --count 2000 --reference fixtures/*.dat
//! ```
//!
//! Damage is done to each FILE (else to the fixtures), to what `convert` makes of it (versions 6 and 7; none, zlib, zstd), and to
//! files that are made for this. The same files, seed and count give the same damage, which [`tracecmd_tests::damage`] describes.
//! Every copy goes through report, dump, split, convert and `convert --salvage`, each run limited to 10 s of CPU and 512 MiB.
//!
//! A finding is a panic, a signal, a run beyond the limits, a failure without a message, and data that is gone without a word: a
//! report or dump that ends well with fewer lines than that of the undamaged file, or a copy whose report has fewer lines than
//! that of the damaged file. Each is a line on standard output, then comes the table; `--keep DIR` keeps the files. Those with fewer
//! lines are to be looked at: no reader sees a record that was turned into another one. Status 1 if there were others.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::{Arg, ArgAction, ArgMatches, value_parser};
use serde_json::{Value, json};
use trace_dat::{Endian, LongSize, compress::Codec, write::FileVersion};
use tracecmd_tests::{
    damage::damage,
    generate::{Amount, Plan, generate},
    limited, programs,
};

/// What is run on a file, in this order; `{}` is the file. The output of a command is reported when it has no message of its own.
const OURS: [&str; 8] = [
    REPORT,
    "dump --all -i {}",
    "split -i {} -o split.dat",
    "report -i split.dat",
    "convert -i {} -o convert.dat",
    "report -i convert.dat",
    "convert --salvage -q -i {} -o salvage.dat",
    "report -i salvage.dat",
];
const REFERENCE: [&str; 4] = [REPORT, "dump --all -i {}", "split -o split.dat -i {}", "convert -i {} -o convert.dat"];
const REPORT: &str = "report -i {}";

/// Most time by the clock: a busy machine gives a run less than a whole CPU.
const CLOCK: Duration = Duration::from_secs(60);

/// Bytes of a file that has its turn every second time.
const LARGE: u64 = 300_000;

/// How a run ended.
#[derive(Clone, Debug)]
struct Outcome {
    /// What must never be, see [`limited::Run`].
    fault: Option<String>,
    /// Ended with status 0.
    good: bool,
    lines: u64,
    /// Lines of events: none that says that some were lost, which a clean copy knows better than a damaged file.
    events: u64,
    /// Lines of standard error without their numbers.
    told: BTreeSet<String>,
    err: String,
    cpu_ms: u64,
    peak_kb: u64,
}

/// What is counted of a command.
#[derive(Default)]
struct Row {
    runs: usize,
    crashes: usize,
    late: usize,
    large: usize,
    mute: usize,
    empty: usize,
    fewer: usize,
}

fn main() -> Result<ExitCode> {
    let number = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("N").default_value(default).value_parser(value_parser!(u64)).help(help)
    };
    let path = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).value_parser(value_parser!(PathBuf)).help(help)
    };
    let matches = clap::Command::new("mutate")
        .about("Runs the reading commands on damaged copies of files and counts what must not be")
        .arg(number("seed", "1", "first seed"))
        .arg(number("count", "1000", "damaged files"))
        .arg(number("jobs", "1", "files at a time"))
        .arg(path("program", "PATH", "tracecmd to run, else the one beside this program"))
        .arg(Arg::new("reference").long("reference").action(ArgAction::SetTrue).help("run C trace-cmd 3.4 instead"))
        .arg(
            Arg::new("as-is")
                .long("as-is")
                .action(ArgAction::SetTrue)
                .help("only the FILEs: nothing converted or made"),
        )
        .arg(path("keep", "DIR", "keep the files that something was found with"))
        .arg(Arg::new("worker").long("worker").num_args(2..).hide(true))
        .arg(
            Arg::new("file")
                .num_args(0..)
                .value_parser(value_parser!(PathBuf))
                .help("undamaged files, else the fixtures"),
        )
        .get_matches();
    if let Some(mut words) = matches.get_many::<String>("worker") {
        let program = words.next().context("no program")?;
        return work(Path::new(program), &words.map(String::as_str).collect::<Vec<_>>());
    }
    sweep(&matches)
}

/// In a process of its own for each damaged file, so that the memory of its children is that of few runs: runs the commands in the
/// current directory on `file.dat` there, and prints how they ended.
fn work(program: &Path, commands: &[&str]) -> Result<ExitCode> {
    let dir = std::env::current_dir()?;
    let usage = || nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN);
    let cpu_ms = |u: &nix::sys::resource::Usage| {
        (u.user_time().tv_sec() + u.system_time().tv_sec()) * 1000
            + (u.user_time().tv_usec() + u.system_time().tv_usec()) / 1000
    };
    let mut ends = Vec::new();
    for command in commands {
        let words: Vec<String> = command.split(' ').map(|w| w.replace("{}", "file.dat")).collect();
        let before = usage()?;
        let run = limited::run_for(program, &words, &dir, CLOCK);
        let after = usage()?;
        let grew = after.max_rss() > before.max_rss();
        ends.push(json!({
            "fault": run.fault, "good": run.status == Some(0), "lines": run.lines(), "events": events(&run.out), "err": run.err,
            "cpu": cpu_ms(&after) - cpu_ms(&before), "peak": if grew { after.max_rss() } else { 0 },
        }));
    }
    println!("{}", Value::Array(ends));
    Ok(ExitCode::SUCCESS)
}

/// Runs the commands on `bytes` in an empty directory.
fn run_all(program: &Path, commands: &[&str], bytes: &[u8]) -> Result<Vec<Outcome>> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("file.dat"), bytes)?;
    let mut worker = Command::new(std::env::current_exe()?);
    worker.arg("--worker").arg(program).args(commands).current_dir(dir.path());
    let done = worker.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    let ends: Vec<Value> = serde_json::from_slice(&done.stdout).context("the worker failed")?;
    let outcomes = ends.iter().map(|v| {
        let err = v["err"].as_str().unwrap_or_default();
        let number = |name: &str| v[name].as_u64().unwrap_or_default();
        Outcome {
            fault: v["fault"].as_str().map(str::to_owned),
            good: v["good"] == true,
            lines: number("lines"),
            events: number("events"),
            told: err.lines().filter(|l| !l.trim().is_empty()).map(without_numbers).collect(),
            err: err.to_owned(),
            cpu_ms: number("cpu"),
            peak_kb: number("peak"),
        }
    });
    Ok(outcomes.collect())
}

fn events(out: &[u8]) -> usize {
    out.split(|b| *b == b'\n').filter(|l| !l.ends_with(b"EVENTS DROPPED]") && !l.starts_with(b"cpus=")).count()
}

/// A message in which every number is the same.
fn without_numbers(line: &str) -> String {
    let mut text = String::new();
    for word in line.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        match word.starts_with(|c: char| c.is_ascii_digit()) {
            true => text.push('#'),
            false => text.push_str(word),
        }
    }
    text
}

/// Name and bytes of the files that damage is done to.
fn sources(matches: &ArgMatches, dir: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let given: Vec<PathBuf> = matches.get_many("file").map_or_else(programs::fixtures, |f| f.cloned().collect());
    let mut files = Vec::new();
    // Files of different directories may have the same name.
    let mut add = |name: &str, form: &str, path: &Path| -> Result<()> {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        files.push((format!("{}-{name}{form}", files.len()), bytes));
        Ok(())
    };
    let name = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    if matches.get_flag("as-is") {
        given.iter().try_for_each(|p| add(&name(p), "", p))?;
        return Ok(files);
    }
    let made = [
        Plan { lost_every: 3, instances: 2, ..Plan::default() },
        Plan { endian: Endian::Big, subbuf_size: 65536, ..Plan::default() },
        Plan { long_size: LongSize::Four, fill: Some(600), cpus: 7, ..Plan::default() },
        Plan { endian: Endian::Big, long_size: LongSize::Four, version: FileVersion::V6, ..Plan::default() },
        Plan { codec: Codec::Zstd, step_ns: 200_000_000, subbuf_size: 8192, ..Plan::default() },
    ];
    let mut originals: Vec<(String, PathBuf)> = given.into_iter().map(|p| (name(&p), p)).collect();
    for (n, plan) in made.into_iter().enumerate() {
        let path = dir.join(format!("made{n}.dat"));
        generate(&Plan { amount: Amount::Events(4000), symbols: 100, ..plan }, &path)?;
        originals.push((name(&path), path));
    }
    let ours = program(matches)?;
    for (name, path) in originals {
        add(&name, "", &path)?;
        for (form, words) in [
            ("-v6", ["--file-version", "6"]),
            ("-none", ["--compression", "none"]),
            ("-zlib", ["--compression", "zlib"]),
            ("-zstd", ["--compression", "zstd"]),
        ] {
            let out = dir.join("converted.dat");
            let done =
                Command::new(&ours).arg("convert").args(words).arg("-i").arg(&path).arg("-o").arg(&out).output()?;
            if !done.status.success() {
                // Version 6 has no place for some files: they stay as they are.
                let why = String::from_utf8_lossy(&done.stderr);
                ensure!(why.contains("version 6"), "{name}{form}: {why}");
                continue;
            }
            add(&name, form, &out)?;
            std::fs::remove_file(&out)?;
        }
    }
    Ok(files)
}

/// Our program.
fn program(matches: &ArgMatches) -> Result<PathBuf> {
    match matches.get_one::<PathBuf>("program") {
        Some(path) => std::fs::canonicalize(path).with_context(|| path.display().to_string()),
        None => Ok(std::env::current_exe()?.with_file_name("tracecmd")),
    }
}

fn sweep(matches: &ArgMatches) -> Result<ExitCode> {
    let number = |name: &str| matches.get_one::<u64>(name).copied().unwrap_or_default();
    let (first, count, jobs) = (number("seed"), number("count") as usize, number("jobs"));
    let reference = matches.get_flag("reference");
    let (program, commands) = if reference {
        (programs::reference().map_err(anyhow::Error::msg)?.to_path_buf(), &REFERENCE[..])
    } else {
        (program(matches)?, &OURS[..])
    };
    let keep = matches.get_one::<PathBuf>("keep");
    keep.map_or(Ok(()), std::fs::create_dir_all)?;
    let dir = tempfile::tempdir()?;
    let files = sources(matches, dir.path())?;
    ensure!(!files.is_empty(), "no files");
    eprintln!("{} undamaged files", files.len());
    let rows: Mutex<BTreeMap<usize, Row>> = Mutex::default();
    let placeless: Mutex<BTreeMap<String, usize>> = Mutex::default();
    let whole: Mutex<BTreeMap<usize, Vec<Outcome>>> = Mutex::default();
    in_parallel(jobs, files.len(), |n| {
        let (name, bytes) = &files[n];
        let outcomes = run_all(&program, commands, bytes)?;
        if let Some(n) = outcomes.iter().position(|o| o.fault.is_some() || (!o.good && !reference)) {
            eprintln!("{name}, undamaged: {}: {:?} {}", commands[n], outcomes[n].fault, outcomes[n].err);
        }
        lock(&whole).insert(n, outcomes);
        Ok(())
    })?;
    let whole = whole.into_inner().unwrap_or_else(PoisonError::into_inner);
    // Kinds of damage go by the seed: every file meets each of them in turn. A large file takes long, and its turn comes less often.
    let turns = (0u64..).flat_map(|round| (0..files.len()).map(move |n| (round, n)));
    let in_turn = turns.filter(|(round, n)| round % (1 + files[*n].1.len() as u64 / LARGE) == 0);
    let damaged_files: Vec<(usize, u64)> =
        in_turn.take(count).map(|(round, n)| (n, first + round * 13 + n as u64)).collect();
    in_parallel(jobs, damaged_files.len(), |job| {
        let (n, seed) = damaged_files[job];
        if job.is_multiple_of(500) {
            eprintln!("{job} of {count}");
        }
        let (name, bytes) = &files[n];
        let (damaged, what) = damage(bytes, seed);
        let outcomes = run_all(&program, commands, &damaged)?;
        let found = judge(commands, &whole[&n], &outcomes, &mut lock(&rows));
        for (_, o) in commands.iter().zip(&outcomes).filter(|(_, o)| !o.good) {
            let place = |t: &String| t.contains('#') || t.contains("CPU");
            if !o.told.is_empty() && !o.told.iter().any(place) {
                let text = o.told.iter().next().cloned().unwrap_or_default();
                *lock(&placeless).entry(text).or_default() += 1;
            }
        }
        for finding in &found {
            println!("{name} seed {seed}: {what}: {finding}");
        }
        if let (Some(keep), false) = (keep, found.is_empty()) {
            std::fs::write(keep.join(format!("{name}-{seed}.dat")), damaged)?;
        }
        Ok(())
    })?;
    println!(
        "| command | runs | panics, signals | over 10 s | over 512 MiB | failed, no message | silent, no output | silent, fewer lines |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let mut faults = 0;
    for (n, r) in lock(&rows).iter() {
        let (command, rest) = (commands[*n], [r.crashes, r.late, r.large, r.mute, r.empty, r.fewer]);
        println!("| {command} | {} | {} |", r.runs, rest.map(|n| n.to_string()).join(" | "));
        faults += r.crashes + r.late + r.large + r.mute + r.empty;
    }
    for (text, n) in lock(&placeless).iter() {
        println!("{n} failures name no place: {text}");
    }
    Ok(ExitCode::from(u8::from(faults > 0)))
}

/// Does the jobs 0 to `count` on so many threads; the first error ends it.
fn in_parallel(threads: u64, count: usize, job: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            match next.fetch_add(1, Ordering::Relaxed) {
                n if n < count => job(n).inspect_err(|_| next.store(count, Ordering::Relaxed))?,
                _ => return Ok(()),
            }
        }
    };
    std::thread::scope(|s| {
        let threads: Vec<_> = (0..threads.max(1)).map(|_| s.spawn(work)).collect();
        let dead = |_| Err(anyhow::anyhow!("a thread panicked"));
        threads.into_iter().try_for_each(|t| t.join().unwrap_or_else(dead))
    })
}

fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts how the runs on a damaged file ended; what is to be looked at.
fn judge(commands: &[&str], whole: &[Outcome], ends: &[Outcome], rows: &mut BTreeMap<usize, Row>) -> Vec<String> {
    let mut found = Vec::new();
    let shown = ends[0].events;
    for (n, command) in commands.iter().enumerate() {
        let (before, o) = (&whole[n], &ends[n]);
        let copy = command.split(' ').next_back().is_some_and(|f| f.ends_with(".dat")) && command.starts_with("report");
        // What a command did is only seen in the report of its output.
        let (row, made) = if copy { (n - 1, &ends[n - 1]) } else { (n, o) };
        let row = rows.entry(row).or_default();
        row.runs += usize::from(!copy);
        if copy && !made.good {
            continue;
        }
        let salvaged = copy && command.contains("salvage");
        let silent = |o: &Outcome, before: &Outcome| o.good && o.told.is_subset(&before.told);
        let (counter, what) =
            if o.cpu_ms >= limited::SECONDS * 1000 || o.fault.as_ref().is_some_and(|f| f.contains("did not end")) {
                (&mut row.late, format!("{} ms of CPU, {:?}", o.cpu_ms, o.fault))
            } else if o.peak_kb > limited::RESIDENT_KB as u64 {
                (&mut row.large, format!("{} MiB", o.peak_kb >> 10))
            } else if let Some(fault) = &o.fault {
                let counter = if fault.contains("without") { &mut row.mute } else { &mut row.crashes };
                (counter, format!("{fault}: {}", o.err.lines().next().unwrap_or_default()))
            } else if copy && o.events < shown && (salvaged || silent(made, &whole[n - 1]) && silent(o, before)) {
                (&mut row.fewer, format!("{} events, the report of the damaged file has {shown}", o.events))
            } else if salvaged && !o.good {
                (&mut row.fewer, format!("is not clean: {}", o.err.lines().next().unwrap_or_default()))
            } else if !copy && o.lines < before.lines && silent(o, before) {
                let counter = if o.lines == 0 { &mut row.empty } else { &mut row.fewer };
                (counter, format!("{} of {} lines, and nothing said", o.lines, before.lines))
            } else {
                continue;
            };
        *counter += 1;
        found.push(format!("{command}: {what}"));
    }
    found
}
