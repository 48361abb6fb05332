//! Files of 10 GB (sparse ones, made here): the last lines are shown at once and in little memory. Large reports are the same on any
//! number of threads.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use trace_dat::{compress::Codec, write::FileVersion};
use tracecmd_tests::{
    generate::{Amount, Kind, Mix, Plan, generate},
    programs,
};

/// Longest time for the last ten lines; a build without optimisation gets more.
const LIMIT: Duration = Duration::from_millis(if cfg!(debug_assertions) { 500 } else { 50 });
/// Most memory for its data, in KiB.
const MEMORY_KIB: u32 = 64 << 10;

/// Runs `report` with a limit to its memory; what it prints, and the shortest time of several runs.
fn report(options: &[&str], file: &Path) -> Result<(String, Duration)> {
    let mut best = Duration::MAX;
    let mut text = String::new();
    for _ in 0..10 {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("ulimit -d {MEMORY_KIB} && exec \"$@\"")).arg("sh");
        command.arg(programs::tracecmd()).arg("report").args(options).arg(file);
        let start = Instant::now();
        let done = command.output()?;
        best = best.min(start.elapsed());
        ensure!(done.status.success(), "{options:?}: {}", String::from_utf8_lossy(&done.stderr));
        text = String::from_utf8(done.stdout)?;
        if best < LIMIT {
            break;
        }
    }
    Ok((text, best))
}

/// The time column in nanoseconds.
fn time(line: &str) -> u64 {
    let time = line.split_whitespace().find_map(|w| w.strip_suffix(':').filter(|w| w.contains('.')));
    time.expect("a time").replace('.', "").parse().expect("a number")
}

/// Sub-buffers of 1 MiB with one block each, and sub-buffers of 4 KiB with a hole of 2 GB in each CPU.
fn plans() -> [Plan; 4] {
    let ten_gb = Plan { amount: Amount::Bytes(10 << 30), cpus: 4, symbols: 100_000, ..Plan::default() };
    let wide = Plan { subbuf_size: 1 << 20, fill: Some(4000), ..ten_gb.clone() };
    let hole = Plan { hole: (2 << 30) + (500 << 20), ..ten_gb };
    [Plan { version: FileVersion::V6, ..wide.clone() }, wide, Plan { version: FileVersion::V6, ..hole.clone() }, hole]
}

#[test]
fn ten_gigabytes_show_their_last_lines_at_once() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("large.dat");
    for plan in plans() {
        let made = generate(&plan, &path)?;
        ensure!(made.size >= 10 << 30 && made.on_disk < 1 << 30, "{plan:?}: {made:?}");
        let what = format!("version {}, hole of {} bytes", plan.version.number(), plan.hole);
        let (text, took) = report(&["-t", "--tail", "10"], &path)?;
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines.first()), (11, Some(&"cpus=4")), "{what}");
        assert_eq!(time(lines[10]), made.last_ts, "{what}");
        assert!(took < LIMIT, "{what}: {took:?}");

        // A window in the middle, and one at the end, cost no more; the hole lies before both.
        let middle = made.first_ts + (made.last_ts - made.first_ts) / 4 * 3;
        for from in [middle, made.last_ts - 1000] {
            let from_s = format!("{}.{:09}", from / 1_000_000_000, from % 1_000_000_000);
            let (text, took) = report(&["-t", "--from", &from_s, "--head", "3"], &path)?;
            let first = text.lines().nth(1).map(time);
            assert!(first.is_some_and(|ts| ts >= from && ts < from + 1_000_000), "{what} {from}: {text}");
            assert!(took < LIMIT, "{what} from {from}: {took:?}");
            println!("{what}: from {from_s} {took:?}");
        }
        std::fs::remove_file(&path)?;
    }
    Ok(())
}

/// A report of `path` on so many threads: output, messages, status.
fn on_threads(path: &Path, threads: usize, options: &[&str]) -> Result<std::process::Output> {
    let mut command = Command::new(programs::tracecmd());
    Ok(command.args(["report", "--threads", &threads.to_string()]).args(options).arg(path).output()?)
}

/// Other ways of showing records: as JSON, and only some of them.
const WAYS: [&[&str]; 5] = [
    &["--json"],
    &["-F", ".*: common_pid % 7 != 1"],
    &["--json", "-v", "-F", ".*: CPU == 1"],
    &["-I", "--cpu", "0"],
    &["-F", "sys_enter.*,func.*,raw_syscalls"],
];

/// What is shown as JSON, or of some records only, is the same on any number of threads: also where stacks follow events that a
/// filter hides.
#[test]
fn threads_show_the_same_in_every_way() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("x.dat");
    let fixture = |name: &str| Kind::Like(programs::workspace().join("fixtures").join(name));
    let kinds = [
        (Kind::Mix(Mix::Syscalls), Codec::None),
        (Kind::Mix(Mix::Graph), Codec::Zstd),
        (Kind::Mix(Mix::Mixed), Codec::Zlib),
        (fixture("x86_64-6.1-stack-zlib.dat"), Codec::Zstd),
    ];
    for (kind, codec) in kinds {
        let plan = Plan { kind, codec, amount: Amount::Events(200_000), ..Plan::default() };
        generate(&plan, &path)?;
        for options in WAYS {
            let one = on_threads(&path, 1, options)?;
            if !one.status.success() {
                // No event of this file has the names of the filter.
                assert_eq!(options[1], WAYS[4][1], "{}", String::from_utf8_lossy(&one.stderr));
                continue;
            }
            assert!(one.stdout.len() > 100_000, "{:?} {options:?}: {} bytes", plan.kind, one.stdout.len());
            for threads in [2, 5] {
                let many = on_threads(&path, threads, options)?;
                assert!(many.stdout == one.stdout, "{:?} {options:?}: other lines on {threads} threads", plan.kind);
            }
        }
    }
    Ok(())
}

/// Replaces the sub-buffers of a file without compression: those with this many bytes whose header looks like one.
fn change(bytes: &mut [u8], size: usize, mut change: impl FnMut(usize, &mut [u8])) {
    let mut n = 0;
    for page in bytes.chunks_exact_mut(size) {
        let word =
            |at: usize| page.get(at..at + 8).map_or(0, |b| u64::from_le_bytes(b.try_into().expect("eight bytes")));
        if word(0) > 1_000_000 && (1..size as u64 - 16).contains(&word(8)) {
            change(n, page);
            n += 1;
        }
    }
    assert!(n > 1000, "{n} sub-buffers");
}

/// What many threads print of a file is what one prints of it: also where times run backwards, sub-buffers are damaged, or an
/// event in the middle needs those before it.
#[test]
fn threads_print_the_same() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("x.dat");
    let same = |what: &str, damaged: bool| -> Result<()> {
        let one = on_threads(&path, 1, &[])?;
        assert_eq!(!one.stderr.is_empty(), damaged, "{what}: {}", String::from_utf8_lossy(&one.stderr));
        for threads in [2, 3, 5] {
            let many = on_threads(&path, threads, &[])?;
            assert!(many.stdout == one.stdout, "{what}: other lines on {threads} threads");
            assert_eq!(
                String::from_utf8_lossy(&many.stderr),
                String::from_utf8_lossy(&one.stderr),
                "{what}: {threads} threads"
            );
            assert_eq!(many.status.code(), one.status.code(), "{what}: {threads} threads");
        }
        Ok(())
    };
    let plan = |mix, codec, cpus, events| Plan {
        kind: Kind::Mix(mix),
        codec,
        cpus,
        amount: Amount::Events(events),
        ..Plan::default()
    };
    for (mix, codec, cpus, events) in [
        (Mix::Graph, Codec::Zstd, 2, 500_000),
        (Mix::Mixed, Codec::None, 3, 250_000),
        (Mix::Function, Codec::Zlib, 2, 400_000),
    ] {
        generate(&plan(mix, codec, cpus, events), &path)?;
        same(&format!("{mix:?} {codec:?}"), false)?;
    }
    generate(&plan(Mix::Syscalls, Codec::None, 4, 300_000), &path)?;
    let plain = std::fs::read(&path)?;
    same("plain", false)?;
    type Change = fn(usize, &mut [u8]);
    let changes: [(&str, bool, Change); 3] = [
        ("times that jump", false, |n, page| {
            if n % 3 == 0 {
                let ts = u64::from_le_bytes(page[..8].try_into().expect("eight bytes"));
                page[..8].copy_from_slice(&ts.wrapping_add((n as u64).wrapping_mul(7919) % 2_000_000).to_le_bytes());
            }
        }),
        ("lengths that cannot be", true, |n, page| {
            if n % 401 == 7 {
                page[8..16].copy_from_slice(&5000u64.to_le_bytes());
            }
        }),
        ("sub-buffers without anything", true, |n, page| {
            if n % 301 > 298 {
                page.fill(0);
            }
        }),
    ];
    for (what, damaged, how) in changes {
        let mut bytes = plain.clone();
        change(&mut bytes, 4096, how);
        std::fs::write(&path, bytes)?;
        same(what, damaged)?;
    }
    Ok(())
}
