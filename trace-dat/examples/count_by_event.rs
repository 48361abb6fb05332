//! Counts the records of each event: `count_by_event FILE...`, the most frequent first.
//!
//! Only the id of each record is looked at while counting; a format is read for each event that occurs, once.

use std::collections::HashMap;
use std::io::Write;

use trace_dat::TraceFile;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for path in std::env::args_os().skip(1) {
        let file = TraceFile::open(path)?;
        let dec = file.decoder();
        let mut counts: HashMap<[u8; 2], u64> = HashMap::new();
        let mut records = file.records(&file.time_map(true));
        while let Some(r) = records.next() {
            // `common_type`, in the byte order of the file.
            if let Some(id) = r.record().data.first_chunk::<2>() {
                *counts.entry(*id).or_default() += 1;
            }
        }
        let mut rows: Vec<(u64, String)> = counts
            .into_iter()
            .map(|(id, count)| match dec.event_of(&id) {
                Some(event) => (count, format!("{}:{}", event.system, event.name)),
                None => (count, format!("unknown event {}", dec.endian().u16(id))),
            })
            .collect();
        rows.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        for (count, name) in rows {
            writeln!(out, "{count:>12} {name}")?;
        }
        for warning in file.take_warnings() {
            eprintln!("{}: {warning}", file.path().display());
        }
    }
    Ok(())
}
