//! How long woken tasks wait for a CPU: `latency FILE...` pairs `sched_waking` with the `sched_switch` that brings the task in.
//!
//! Shows how to look up fields once and to read them from each record: no text is made while going through the file.

use std::collections::HashMap;
use std::io::Write;

use trace_dat::{Decoder, TraceFile, format::Field};

/// An event with one of its number fields.
struct Place {
    id: u16,
    offset: usize,
    size: usize,
}

impl Place {
    fn find(dec: &Decoder, event: &str, field: &str) -> Option<Place> {
        let event = dec.find_event(Some("sched"), event)?;
        let Field { offset, size, .. } = event.field(field)?;
        Some(Place { id: event.id, offset: *offset, size: *size })
    }

    /// The field's value, when the record is of this event.
    fn read(&self, dec: &Decoder, data: &[u8]) -> Option<u64> {
        let id = dec.endian().u16(*data.first_chunk::<2>()?);
        if id == self.id { dec.endian().uint(data, self.offset, self.size) } else { None }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for path in std::env::args_os().skip(1) {
        let file = TraceFile::open(path)?;
        let dec = file.decoder();
        let waking = ["sched_waking", "sched_wakeup"].into_iter().find_map(|e| Place::find(&dec, e, "pid"));
        let (Some(waking), Some(switch)) = (waking, Place::find(&dec, "sched_switch", "next_pid")) else {
            eprintln!("{}: no events of waking and switching", file.path().display());
            continue;
        };
        let mut woken: HashMap<u64, u64> = HashMap::new();
        // Count, sum and maximum of the nanoseconds of each task.
        let mut waits: HashMap<u64, (u64, u64, u64)> = HashMap::new();
        let mut records = file.records(&file.time_map(true));
        while let Some(r) = records.next() {
            let data = r.record().data;
            if let Some(pid) = waking.read(&dec, data) {
                woken.entry(pid).or_insert(r.ts);
            } else if let Some(pid) = switch.read(&dec, data)
                && let Some(since) = woken.remove(&pid)
            {
                let wait = r.ts.saturating_sub(since);
                let (count, sum, max) = waits.entry(pid).or_default();
                (*count, *sum, *max) = (*count + 1, *sum + wait, wait.max(*max));
            }
        }
        let mut rows: Vec<_> = waits.into_iter().collect();
        rows.sort_by_key(|(pid, (_, _, max))| (std::cmp::Reverse(*max), *pid));
        writeln!(out, "{:>16} {:>7} {:>8} {:>12} {:>12}", "task", "pid", "wakeups", "average us", "maximum us")?;
        for (pid, (count, sum, max)) in rows {
            let comm = String::from_utf8_lossy(dec.comms().get(pid as i32, u64::MAX)).into_owned();
            let us = |ns: u64| ns as f64 / 1000.0;
            writeln!(out, "{comm:>16} {pid:>7} {count:>8} {:>12.3} {:>12.3}", us(sum / count.max(1)), us(max))?;
        }
    }
    Ok(())
}
