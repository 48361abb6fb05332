//! Prints time, name and text of every event: `dump_events [-R] [-N] FILE...`. With `-c` it lists the events whose print fmt
//! cannot be understood instead.

use std::io::Write;

use trace_dat::{
    Decoder, TraceFile,
    plugin::{Note, PrintCx},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut raw, mut no_plugins, mut check) = (false, false, false);
    let mut out = std::io::BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    let mut text = Vec::new();
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            "-R" => raw = true,
            "-c" => check = true,
            "-N" => no_plugins = true,
            path => {
                let file = TraceFile::open(path)?;
                let mut parts = file.decoder_parts();
                parts.options.raw = raw;
                parts.options.no_plugins = no_plugins;
                let dec = Decoder::new(parts);
                if check {
                    for (event, why) in dec.check_events() {
                        writeln!(out, "{event}: {why}")?;
                    }
                    continue;
                }
                let mut records = file.records(&file.time_map(true));
                let mut seq = 0;
                while let Some(r) = records.next() {
                    let rec = r.record();
                    let Some(event) = dec.event_of(rec.data) else { continue };
                    text.clear();
                    dec.visit(event, rec.data, seq);
                    let cx = PrintCx {
                        dec: &dec,
                        event,
                        rec,
                        reach: r.stream_record.reach(),
                        ts: r.ts,
                        note: Note::default(),
                        seq,
                    };
                    dec.print_info(&cx, &mut text);
                    write!(out, "{}.{:09}: {}: ", r.ts / 1_000_000_000, r.ts % 1_000_000_000, event.name)?;
                    out.write_all(&text)?;
                    out.write_all(b"\n")?;
                    seq += 1;
                }
            }
        }
    }
    Ok(())
}
