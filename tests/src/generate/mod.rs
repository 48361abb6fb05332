//! Trace files of any size: many events, many CPUs, every form of the file, with holes where the file system has them.
//!
//! A CPU's records are a short script (of `events`, or taken from a real file) that is repeated with other distances in time.
//! The same plan gives the same file.
//!
//! ```
//! use tracecmd_tests::generate::{Plan, generate};
//!
//! let dir = tempfile::tempdir()?;
//! let plan = Plan { cpus: 4, amount: tracecmd_tests::generate::Amount::Events(10_000), ..Plan::default() };
//! let made = generate(&plan, &dir.path().join("x.dat"))?;
//! assert_eq!(made.events, 10_000);
//! # anyhow::Ok(())
//! ```

mod events;
mod pages;
mod script;
mod sparse;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use trace_dat::{
    Endian, LongSize,
    compress::Codec,
    write::{BufferHead, FileHead, FileVersion, Metadata, RawOption, Writer, option},
};

pub use events::{MIXES, Mix};
use pages::Pages;
use sparse::SparseFile;

/// How much there is to be in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many events, over all buffers and CPUs.
    Events(u64),
    /// So many bytes of sub-buffers (before compression), over all buffers and CPUs.
    Bytes(u64),
}

/// What the events are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Events of the kernel, made up.
    Mix(Mix),
    /// The events, formats and symbols of a real file; its byte order and long size are kept.
    Like(PathBuf),
}

/// A file to be made.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Version of the file format.
    pub version: FileVersion,
    /// Compression; version 6 has none.
    pub codec: Codec,
    /// Byte order of the machine that recorded it.
    pub endian: Endian,
    /// Long size of that machine.
    pub long_size: LongSize,
    /// Bytes of a sub-buffer.
    pub subbuf_size: u32,
    /// CPUs, each with the same amount.
    pub cpus: u32,
    /// How much.
    pub amount: Amount,
    /// What.
    pub kind: Kind,
    /// Nanoseconds from one event to the next, over all CPUs, on average.
    pub step_ns: u64,
    /// At most so many bytes of records in a sub-buffer: the rest of it is a hole.
    pub fill: Option<u32>,
    /// So many bytes of each CPU, in the middle of it, are sub-buffers without anything: a hole.
    pub hole: u64,
    /// Every so many sub-buffers one says that events were lost before it; 0: none.
    pub lost_every: u64,
    /// Instances beside the top buffer; the amount is shared out.
    pub instances: u32,
    /// Functions in kallsyms, beside those that the events name.
    pub symbols: u32,
    /// Start of the random numbers.
    pub seed: u64,
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            version: FileVersion::V7,
            codec: Codec::None,
            endian: Endian::Little,
            long_size: LongSize::Eight,
            subbuf_size: 4096,
            cpus: 2,
            amount: Amount::Events(100_000),
            kind: Kind::Mix(Mix::Mixed),
            step_ns: 1000,
            fill: None,
            hole: 0,
            lost_every: 0,
            instances: 0,
            symbols: 1000,
            seed: 1,
        }
    }
}

/// What was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Events in the file.
    pub events: u64,
    /// Bytes of sub-buffers before compression.
    pub data: u64,
    /// Length of the file.
    pub size: u64,
    /// Bytes that it takes on the disk.
    pub on_disk: u64,
    /// Time of the first event in nanoseconds.
    pub first_ts: u64,
    /// Time of the last event in nanoseconds.
    pub last_ts: u64,
}

/// Makes the file.
///
/// # Errors
/// When the plan contradicts itself or the file cannot be written.
pub fn generate(plan: &Plan, path: &Path) -> Result<Made> {
    ensure!(plan.cpus > 0, "no CPUs");
    let (meta, script) = match &plan.kind {
        Kind::Mix(mix) => events::script(plan, *mix),
        Kind::Like(file) => script::of_file(plan, file)?,
    };
    ensure!(!script.is_empty(), "no events");
    let head = FileHead {
        version: plan.version,
        endian: meta.endian(),
        long_size: script.long_size,
        page_size: if plan.version == FileVersion::V6 { plan.subbuf_size } else { 4096 },
        codec: plan.codec,
    };
    let names = std::iter::once(String::new()).chain((1..=plan.instances).map(|n| format!("instance{n}")));
    let heads: Vec<_> = names.map(|name| BufferHead::new(name, "local", plan.subbuf_size)).collect();
    let parts = u64::from(plan.cpus) * heads.len() as u64;
    let file = SparseFile::create(path).with_context(|| path.display().to_string())?;
    let mut writer = Writer::new(file, head, &meta, heads.clone())?;
    let mut made = Made { first_ts: u64::MAX, ..Made::default() };
    for part in 0..parts {
        let (buffer, cpu) = ((part / u64::from(plan.cpus)) as usize, (part % u64::from(plan.cpus)) as u32);
        let own = match plan.amount {
            Amount::Events(n) => Amount::Events(n / parts + u64::from(part < n % parts)),
            Amount::Bytes(n) => Amount::Bytes(n / parts),
        };
        if own == Amount::Events(0) {
            continue;
        }
        writer.cpu(buffer, cpu)?;
        let mut pages = Pages::new(plan, &script);
        pages.run(&script, cpu, part, own, parts, |bytes| writer.sub_buffers(bytes))?;
        made.events += pages.events;
        made.data += pages.bytes;
        made.first_ts = made.first_ts.min(pages.first_ts);
        made.last_ts = made.last_ts.max(pages.ts);
    }
    let (file, summary) = writer.finish()?;
    made.size = summary.size;
    made.on_disk = file.finish().with_context(|| path.display().to_string())?;
    Ok(made)
}

/// The texts that every file has, and the options that readers look at.
fn metadata(plan: &Plan) -> Metadata {
    let (long, at) = (plan.long_size.bytes(), 8 + plan.long_size.bytes());
    let room = plan.subbuf_size as usize - at;
    let page = format!(
        "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n\
         \tfield: local_t commit;\toffset:8;\tsize:{long};\tsigned:1;\n\
         \tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n\
         \tfield: char data;\toffset:{at};\tsize:{room};\tsigned:1;\n"
    );
    let event = "# compressed entry header\n\ttype_len    :    5 bits\n\ttime_delta  :   27 bits\n\
                 \tarray       :   32 bits\n\n\tpadding     : type == 29\n\ttime_extend : type == 30\n\
                 \ttime_stamp : type == 31\n\tdata max type_len  == 28\n";
    let mut meta = Metadata::new(plan.endian, plan.cpus);
    meta.header_info(page.as_bytes(), event.as_bytes());
    meta.printk_formats(b"");
    options(&mut meta, plan);
    meta
}

fn options(meta: &mut Metadata, plan: &Plan) {
    meta.option(RawOption::text(option::id::TRACECLOCK, "[local] global counter mono\n"));
    meta.option(RawOption::text(option::id::UNAME, "Linux generated 6.12.0 x86_64"));
    meta.option(RawOption::text(option::id::VERSION, "generated"));
    let cpus = plan.endian.from_u32(plan.cpus).to_vec();
    meta.option(RawOption::new(option::id::CPUCOUNT, cpus));
}

#[cfg(test)]
mod tests {
    use trace_dat::TraceFile;

    use super::*;

    /// What was planned is read back, in every form of the file.
    #[test]
    fn files_hold_what_was_planned() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("made.dat");
        let big = Plan { endian: Endian::Big, long_size: LongSize::Four, ..Plan::default() };
        let plans = [
            Plan { kind: Kind::Mix(Mix::Graph), version: FileVersion::V6, ..big.clone() },
            Plan { codec: Codec::Zstd, instances: 2, lost_every: 3, ..big },
            Plan { step_ns: 1_000_000_000, cpus: 5, amount: Amount::Events(999), ..Plan::default() },
            Plan { fill: Some(300), subbuf_size: 65536, version: FileVersion::V6, ..Plan::default() },
            Plan { hole: 32 << 20, amount: Amount::Bytes((64 << 20) + (1 << 20)), ..Plan::default() },
        ];
        for plan in plans {
            let made = generate(&plan, &path)?;
            let file = TraceFile::open(&path)?;
            let decoder = file.decoder();
            let mut records = file.records(&file.time_map(true));
            let (mut n, mut last) = (0, 0);
            let first = records.first_ts();
            while let Some(r) = records.next() {
                let record = r.record();
                assert!(decoder.event_of(record.data).is_some(), "{plan:?}");
                assert!(r.ts >= last, "{plan:?}");
                (n, last) = (n + 1, r.ts);
                if plan.hole > 0 && n > 1000 {
                    // The hole takes long to walk through.
                    last = records.last_ts().context("a last record")?;
                    n = made.events;
                    break;
                }
            }
            assert_eq!((n, first, last), (made.events, Some(made.first_ts), made.last_ts), "{plan:?}");
            assert_eq!(file.take_warnings().len(), 0, "{plan:?}");
            let cpus: usize = file.buffers().iter().map(|b| b.cpus.len()).sum();
            assert_eq!(cpus, (plan.cpus * (plan.instances + 1)) as usize);
            if plan.fill.is_some() || plan.hole > 0 {
                assert!(made.on_disk < made.size / 4, "{made:?}");
            }
        }
        Ok(())
    }
}
