//! Prints time, CPU, buffer and size of every record of the files given.

use std::io::Write;

use trace_dat::TraceFile;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for path in std::env::args_os().skip(1) {
        let file = TraceFile::open(path)?;
        let mut records = file.records(&file.time_map(true));
        while let Some(r) = records.next() {
            let record = r.record();
            let buffer = file.buffers().get(r.tag as usize).map_or("", |b| b.name.as_str());
            writeln!(out, "{} [{:03}] {buffer:?} {:?} {} bytes", r.ts, record.cpu, record.lost, record.data.len())?;
        }
        for warning in file.take_warnings() {
            eprintln!("{}: {warning}", file.path().display());
        }
    }
    Ok(())
}
