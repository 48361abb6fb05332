//! Files of 10 GB (sparse ones, made here): the last lines are shown at once and in little memory.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use trace_dat::write::FileVersion;
use tracecmd_tests::{
    generate::{Amount, Plan, generate},
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
