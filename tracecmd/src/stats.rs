//! What the kernel counted: events that were lost, and what would have held them.

use std::io::Write;

use tracefs::{BufferSize, Instance, Stats};

use crate::tracefile::BufferFacts;

/// Size of a buffer per CPU at the end of a recording, kilobytes.
pub fn size_kb(instance: &Instance) -> Option<u64> {
    match instance.buffer_size(None) {
        Ok(BufferSize::Kb(kb)) => Some(kb),
        _ => None,
    }
}

/// Lost events by CPU, in the words that scripts read.
///
/// # Errors
/// The output cannot be written.
pub fn print_lost(facts: &[BufferFacts], out: &mut dyn Write) -> std::io::Result<()> {
    for f in facts {
        if !f.name.is_empty() {
            writeln!(out, "\nBuffer: {}\n", f.name)?;
        }
        for (cpu, text) in &f.stats {
            if !text.contains("overrun: ") {
                writeln!(out, "CPU {cpu}: no overrun found?")?;
                continue;
            }
            let s = Stats::parse(text);
            // A missing commit line counts as -1, as in the reference.
            let (overrun, commit) = (s.overrun.unwrap_or(0), s.commit_overrun.map_or(-1, |n| n as i64));
            if overrun == 0 && commit == 0 {
                continue;
            }
            write!(out, "CPU {cpu}:")?;
            if overrun != 0 {
                write!(out, " {overrun} events lost")?;
            }
            if commit != 0 {
                write!(out, " {commit} events lost due to commit overrun")?;
            }
            writeln!(out)?;
        }
    }
    Ok(())
}

/// For each buffer that lost events: how many, and the size per CPU that would have held them.
///
/// # Errors
/// The output cannot be written.
pub fn print_advice(facts: &[BufferFacts], sizes_kb: &[Option<u64>], out: &mut dyn Write) -> std::io::Result<()> {
    for (f, size) in facts.iter().zip(sizes_kb) {
        let all: Vec<Stats> = f.stats.iter().map(|(_, t)| Stats::parse(t)).collect();
        let lost: u64 = all.iter().map(lost_events).sum();
        if lost == 0 {
            continue;
        }
        let name = if f.name.is_empty() { "the buffer".to_owned() } else { format!("buffer {}", f.name) };
        write!(out, "{name} lost {lost} events")?;
        if let Some(kb) = size.and_then(|kb| all.iter().filter_map(|s| enough_kb(s, kb)).max()) {
            let option = if f.name.is_empty() { format!("-b {kb}") } else { format!("-B {} -b {kb}", f.name) };
            write!(out, "; {option} would have held them")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn lost_events(s: &Stats) -> u64 {
    s.overrun.unwrap_or(0).saturating_add(s.dropped.unwrap_or(0))
}

/// The size that would have held what this CPU lost: as many events more, each as large as those that are left on average.
fn enough_kb(s: &Stats, size_kb: u64) -> Option<u64> {
    let lost = lost_events(s);
    if lost == 0 {
        return None;
    }
    let per_event = match (s.entries, s.bytes) {
        (Some(entries), Some(bytes)) if entries > 0 && bytes > 0 => bytes.div_ceil(entries),
        _ => 64,
    };
    let more = lost.saturating_mul(per_event.clamp(8, 4096)).div_ceil(1024);
    // The end of a sub-buffer stays unused, and nobody reads while the burst lasts: a quarter on top.
    let kb = size_kb.saturating_add(more.saturating_add(more / 4)).max(size_kb.saturating_add(4));
    Some(kb.next_multiple_of(if kb > 4096 { 1024 } else { 64 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(name: &str, stats: &[&str]) -> BufferFacts {
        BufferFacts {
            name: name.into(),
            clock: String::new(),
            subbuf: 4096,
            stats: stats.iter().enumerate().map(|(n, t)| (n as u32, (*t).to_owned())).collect(),
            text: None,
            last_boot: None,
            arguments: false,
        }
    }

    #[test]
    fn lost_events_are_told() {
        let a = "entries: 10\noverrun: 5\ncommit overrun: 0\nbytes: 1000\ndropped events: 0\nread events: 7\n";
        let b = "entries: 10\noverrun: 0\ncommit overrun: 2\nbytes: 1000\ndropped events: 0\n";
        let c = "entries: 0\noverrun: 0\ncommit overrun: 0\n";
        let list = [facts("", &[a, b, c]), facts("foo", &[c, "nothing"])];
        let mut out = Vec::new();
        print_lost(&list, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "CPU 0: 5 events lost\nCPU 1: 2 events lost due to commit overrun\n\nBuffer: foo\n\nCPU 1: no overrun found?\n"
        );
        let mut out = Vec::new();
        print_advice(&list, &[Some(4), Some(4)], &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "the buffer lost 5 events; -b 64 would have held them\n");
    }
}
