//! `remote-throughput [MIB]`: how fast our and the reference's listener take data over TCP on loopback, and what that costs.
//!
//! Both get the same recording of four CPUs from the same sender, in turn, five times. Printed are the lowest, the middle and the
//! highest MiB/s while the data are sent, and the CPU time of the listener, with all its processes, for each GiB, until its file is
//! complete. `TRACECMD_BIN` names our program; files lie in /dev/shm where that is.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use trace_dat::compress::Codec;
use tracecmd::net::client::LastWords;
use tracecmd_tests::programs;
use tracecmd_tests::remote::{How, Link, Listener, Recording};

const CPUS: usize = 4;
const ROUNDS: usize = 5;

fn main() -> Result<()> {
    let mib = std::env::args().nth(1).map_or(Ok(512), |n| n.parse::<usize>()).context("MIB is a number")?;
    let reference = programs::reference().map_err(anyhow::Error::msg)?;
    let mut recording = Recording::of(&programs::workspace().join("fixtures/x86_64-6.12-lost.dat"))?;
    recording.head.codec = Codec::None;
    let data = recording.cpus.iter().max_by_key(|c| c.len()).context("a recording with data")?.clone();
    recording.cpus = vec![data; CPUS];
    recording.meta.cpus = CPUS as u32;
    println!("{mib} MiB of {CPUS} CPUs over TCP, uncompressed, {ROUNDS} rounds in turn");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(round(None, &recording, mib << 20)?);
        theirs.push(round(Some(reference), &recording, mib << 20)?);
    }
    show("ours", &mut ours);
    show("reference", &mut theirs);
    Ok(())
}

/// MiB/s while sending, seconds of CPU for each GiB.
type Cost = (f64, f64);

fn show(name: &str, rounds: &mut [Cost]) {
    let mut of = |key: fn(&Cost) -> f64| {
        rounds.sort_by(|a, b| key(a).total_cmp(&key(b)));
        let at = |n: usize| key(&rounds[n]);
        format!("{:8.2} {:8.2} {:8.2}", at(0), at(rounds.len() / 2), at(rounds.len() - 1))
    };
    println!("{name:10} MiB/s {}   CPU s/GiB {}", of(|c| c.0), of(|c| c.1));
}

fn round(reference: Option<&Path>, what: &Recording, bytes: usize) -> Result<Cost> {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? };
    let before = cpu_time()?;
    let mut listener = match reference {
        Some(program) => Listener::reference(program, dir.path())?,
        None => Listener::ours(dir.path(), "127.0.0.1", &[])?,
    };
    let Link(remote, mut sinks) = what.start(listener.addr, &How { tcp: true, ..How::default() })?;
    let start = Instant::now();
    let sent = std::thread::scope(|s| {
        let senders: Vec<_> = sinks
            .iter_mut()
            .zip(&what.cpus)
            .map(|(sink, data)| {
                s.spawn(move || -> std::io::Result<u64> {
                    let mut left = bytes / CPUS / what.subbuf as usize * what.subbuf as usize;
                    let mut sent = 0;
                    while left > 0 {
                        let piece = &data[..left.min(data.len())];
                        sink.write_all(piece)?;
                        left -= piece.len();
                        sent += piece.len() as u64;
                    }
                    sink.finish();
                    Ok(sent)
                })
            })
            .collect();
        senders.into_iter().map(|t| t.join().expect("a sender")).collect::<std::io::Result<Vec<_>>>()
    })?;
    let took = start.elapsed();
    let subbufs = sent.iter().map(|n| n / u64::from(what.subbuf)).collect();
    remote.close(&LastWords { sent: subbufs, ..LastWords::default() })?;
    let total: u64 = sent.iter().sum();
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        let size: u64 = listener.files(1)?.iter().filter_map(|f| f.metadata().ok()).map(|m| m.len()).sum();
        let pieces = std::fs::read_dir(dir.path())?.flatten().any(|e| e.file_name().to_string_lossy().contains(".cpu"));
        if size >= total && !pieces {
            break;
        }
        anyhow::ensure!(Instant::now() < end, "the file does not become complete: {size} of {total} bytes");
        std::thread::sleep(Duration::from_millis(50));
    }
    listener.end()?;
    let cpu = (cpu_time()? - before).as_secs_f64();
    let mib = total as f64 / f64::from(1 << 20);
    Ok((mib / took.as_secs_f64(), cpu / (mib / 1024.0)))
}

/// CPU time of all processes that have ended and were waited for.
fn cpu_time() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(us as u64))
}
