//! Prints the times of the last ten records of a file, and how many there are from a time on: `window FILE [TIME]`.

use trace_dat::TraceFile;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let file = TraceFile::open(args.next().ok_or("usage: window FILE [TIME]")?)?;
    let mut records = file.records(&file.time_map(true));
    if let Some(ts) = args.next() {
        records.seek(ts.parse()?);
        let mut n = 0u64;
        while records.next().is_some() {
            n += 1;
        }
        println!("{n} records from {ts} on");
    } else {
        records.seek_tail(10);
        while let Some(r) = records.next() {
            println!("{} [{:03}]", r.ts, r.record().cpu);
        }
    }
    for warning in file.take_warnings() {
        eprintln!("{}: {warning}", file.path().display());
    }
    Ok(())
}
