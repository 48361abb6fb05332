//! `generate OUT`: makes a trace.dat file of any size, see [`tracecmd_tests::generate`].

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Arg, Command, value_parser};
use trace_dat::{Endian, LongSize, compress::Codec, write::FileVersion};
use tracecmd_tests::generate::{Amount, Kind, MIXES, Plan, generate};

fn main() -> Result<()> {
    let text = |name: &'static str, value: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).default_value(default).help(help)
    };
    let matches = Command::new("generate")
        .about("Makes a trace.dat file of any size; sizes may end with K, M or G (of 1024), counts with k, m or g (of 1000)")
        .arg(Arg::new("out").required(true).value_parser(value_parser!(PathBuf)).help("the file"))
        .arg(text("file-version", "6|7", "7", "version of the file format"))
        .arg(text("compression", "none|zlib|zstd", "none", "compression of version 7"))
        .arg(text("cpus", "N", "2", "CPUs that have events"))
        .arg(text("events", "N", "100k", "events over all CPUs and buffers"))
        .arg(Arg::new("size").long("size").value_name("BYTES").help("instead of --events: bytes of sub-buffers"))
        .arg(text("mix", "NAME", "mixed", "made-up events: sched, syscalls, function, graph, mixed"))
        .arg(
            Arg::new("like")
                .long("like")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("instead of --mix: the events of a real file, again and again"),
        )
        .arg(text("step", "NS", "1000", "nanoseconds from event to event over all CPUs, on average"))
        .arg(text("subbuf", "BYTES", "4K", "size of a sub-buffer"))
        .arg(Arg::new("fill").long("fill").value_name("BYTES").help("records in each sub-buffer; the rest is a hole"))
        .arg(text("hole", "BYTES", "0", "a hole in the middle of each CPU's data"))
        .arg(text("lost", "N", "0", "every so many sub-buffers events were lost"))
        .arg(text("instances", "N", "0", "instances beside the top buffer"))
        .arg(text("symbols", "N", "1k", "functions beside those of the events"))
        .arg(text("endian", "little|big", "little", "byte order of the machine"))
        .arg(text("long", "4|8", "8", "long size of the machine"))
        .arg(text("seed", "N", "1", "start of the random numbers"))
        .get_matches();
    let get = |name: &str| matches.get_one::<String>(name).map_or("", String::as_str);
    let count = |name: &str| number(get(name)).with_context(|| format!("--{name} {}", get(name)));
    let small = |name: &str| anyhow::Ok(u32::try_from(count(name)?)?);
    let plan = Plan {
        version: match get("file-version") {
            "6" => FileVersion::V6,
            "7" => FileVersion::V7,
            other => bail!("no file version {other}"),
        },
        codec: match get("compression") {
            "none" => Codec::None,
            "zlib" => Codec::Zlib,
            "zstd" => Codec::Zstd,
            other => bail!("no compression {other}"),
        },
        endian: match get("endian") {
            "little" => Endian::Little,
            "big" => Endian::Big,
            other => bail!("no byte order {other}"),
        },
        long_size: match get("long") {
            "4" => LongSize::Four,
            "8" => LongSize::Eight,
            other => bail!("no long size {other}"),
        },
        subbuf_size: small("subbuf")?,
        cpus: small("cpus")?,
        amount: match matches.get_one::<String>("size") {
            Some(size) => Amount::Bytes(number(size)?),
            None => Amount::Events(count("events")?),
        },
        kind: match matches.get_one::<PathBuf>("like") {
            Some(file) => Kind::Like(file.clone()),
            None => {
                let found = MIXES.iter().find(|(name, _)| *name == get("mix"));
                Kind::Mix(found.with_context(|| format!("no mix {}", get("mix")))?.1)
            }
        },
        step_ns: count("step")?,
        fill: matches.get_one::<String>("fill").map(|f| number(f)).transpose()?.map(u32::try_from).transpose()?,
        hole: count("hole")?,
        lost_every: count("lost")?,
        instances: small("instances")?,
        symbols: small("symbols")?,
        seed: count("seed")?,
    };
    let out = matches.get_one::<PathBuf>("out").context("no file")?;
    let made = generate(&plan, out)?;
    println!(
        "{}: {} events from {} to {} ns, {} bytes of sub-buffers, {} bytes long, {} on the disk",
        out.display(),
        made.events,
        made.first_ts,
        made.last_ts,
        made.data,
        made.size,
        made.on_disk
    );
    Ok(())
}

/// A whole number with a unit.
fn number(text: &str) -> Result<u64> {
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let factor: u64 = match unit {
        "" => 1,
        "k" => 1000,
        "m" => 1_000_000,
        "g" => 1_000_000_000,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        other => bail!("no unit {other:?}"),
    };
    let n: u64 = digits.parse().with_context(|| format!("no number: {text:?}"))?;
    n.checked_mul(factor).with_context(|| format!("too large: {text}"))
}
