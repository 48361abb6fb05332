//! `attach`: ties a guest's recording to its host's afterwards, as if they had been recorded together.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use clap::{Arg, ArgMatches, Command, value_parser};
use trace_dat::{
    TraceFile,
    read::option::TypedOption,
    write::{self, FileHead, Metadata, RawOption, ShiftSample, TimeShift, Writer, option::id},
};

use crate::cli::{self, Ctx};
use crate::files::{self, progress::Progress};

/// Defines the options.
pub fn command() -> Command {
    let path = |id: &'static str, name: &'static str| {
        Arg::new(id).value_name(name).value_parser(value_parser!(PathBuf)).required(true)
    };
    Command::new("attach")
        .arg(
            Arg::new("cpus")
                .short('c')
                .value_name("N")
                .value_parser(value_parser!(u32).range(1..=65536))
                .help("virtual CPUs of the guest [default: those of its file]"),
        )
        .arg(cli::option(
            "s",
            "OFFSET[,SCALE,FRACTION[,TIME]]",
            "how the guest's clock relates to the host's; once for all CPUs, or once for each",
        ))
        .arg(path("host", "HOST_FILE"))
        .arg(path("guest", "GUEST_FILE"))
        .arg(
            Arg::new("pids")
                .value_name("PID")
                .value_delimiter(',')
                .num_args(1..)
                .required(true)
                .value_parser(value_parser!(u32))
                .help("host threads of the virtual CPUs"),
        )
}

/// Attaches.
///
/// # Errors
/// When one of the files lacks what is needed, or cannot be written; both are untouched then.
pub fn run(cx: &Ctx, m: &ArgMatches) -> anyhow::Result<ExitCode> {
    let get = |id: &str| m.get_one::<PathBuf>(id).cloned().context("a file is missing");
    let (host_path, guest_path) = (get("host")?, get("guest")?);
    files::tidy_on_signal()?;
    let (host, guest) = (files::open(&host_path)?, files::open(&guest_path)?);
    for f in [&host, &guest] {
        if files::warn(&cx.program, f) {
            bail!("{} is damaged; nothing was changed", f.path().display());
        }
    }
    let pids: Vec<u32> = m.get_many::<u32>("pids").into_iter().flatten().copied().collect();
    let guest_id = trace_id(&guest).with_context(|| format!("{} has no trace id", guest_path.display()))?;
    let host_id = trace_id(&host).unwrap_or(0);
    let tsc = host
        .options()
        .iter()
        .find_map(|o| if let TypedOption::Tsc2Nsec(t) = o { Some(*t) } else { None })
        .with_context(|| format!("{} has no TSC2NSEC: record the host with -C tsc2nsec", host_path.display()))?;
    let vcpus = vcpus(&host, &pids)?;

    let mut meta = Metadata::of(&host)?;
    let name = guest_path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    // The same guest once more takes the place of what was said of it before.
    meta.options.retain(|o| o.id != id::GUEST || guest_of(o, &host) != Some(guest_id));
    meta.option(RawOption::guest(&name, guest_id, &vcpus, host.endian()));

    let mut guest_meta = Metadata::of(&guest)?;
    let cpus = m.get_one::<u32>("cpus").copied().unwrap_or_else(|| guest.cpu_count()) as usize;
    let mut samples = Vec::new();
    for o in cli::ordered(m).iter().filter(|o| o.id == "s") {
        samples.push(sample(&o.value.as_ref().map(|v| v.to_string_lossy().into_owned()).unwrap_or_default())?);
    }
    if samples.len() > 1 && samples.len() != cpus {
        bail!(
            "-s stands {} times, but the guest has {cpus} CPUs: once for all of them, or once for each",
            samples.len()
        );
    }
    if let Some(first) = samples.first() {
        let shift = TimeShift {
            peer_trace_id: host_id,
            flags: 0,
            cpus: (0..cpus).map(|n| vec![*samples.get(n).unwrap_or(first)]).collect(),
        };
        guest_meta.options.retain(|o| o.id != id::TIME_SHIFT);
        guest_meta.option(RawOption::time_shift(&shift, guest.endian()));
    }
    guest_meta.options.retain(|o| o.id != id::TSC2NSEC);
    guest_meta.option(RawOption::tsc2nsec(tsc.mult, tsc.shift, tsc.offset, guest.endian()));

    // Both are written before the first one changes.
    let new_host = rewrite(&host, &meta)?;
    let new_guest = rewrite(&guest, &guest_meta)?;
    new_host.commit()?;
    new_guest.commit()?;
    Ok(ExitCode::SUCCESS)
}

/// The trace id that a GUEST option names.
fn guest_of(option: &RawOption, host: &TraceFile) -> Option<u64> {
    let end = option.data.iter().position(|b| *b == 0)?;
    host.endian().uint(&option.data, end + 1, 8)
}

fn trace_id(file: &TraceFile) -> Option<u64> {
    file.options().iter().find_map(|o| if let TypedOption::TraceId(id) = o { Some(*id) } else { None })
}

/// `OFFSET[,SCALE,FRACTION[,TIME]]`.
fn sample(text: &str) -> anyhow::Result<ShiftSample> {
    let words: Vec<&str> = text.split(',').map(str::trim).collect();
    let number = |n: usize, none: u64| -> anyhow::Result<u64> {
        let Some(word) = words.get(n) else { return Ok(none) };
        let (digits, radix) = word.strip_prefix("0x").map_or((*word, 10), |d| (d, 16));
        u64::from_str_radix(digits, radix).with_context(|| format!("{word:?} of {text:?} is no number"))
    };
    if !matches!(words.len(), 1 | 3 | 4) {
        bail!("{text:?} is not OFFSET[,SCALE,FRACTION[,TIME]]");
    }
    let offset = match words.first().copied().unwrap_or_default().strip_prefix('-') {
        Some(digits) => {
            digits.parse::<u64>().ok().and_then(|n| 0i64.checked_sub_unsigned(n)).context("the offset is no number")?
        }
        None => number(0, 0)? as i64,
    };
    Ok(ShiftSample { offset, scaling: number(1, 1)?, fraction_bits: number(2, 0)?, time: number(3, 0)? })
}

/// Virtual CPU and host thread, as the host's kvm_entry events of these threads tell.
fn vcpus(host: &TraceFile, pids: &[u32]) -> anyhow::Result<Vec<(u32, u32)>> {
    let decoder = host.decoder();
    let need = |name: &str| {
        let e = decoder.find_event(Some("kvm"), name);
        e.with_context(|| format!("{} has no event kvm:{name}", host.path().display()))
    };
    let entry = need("kvm_entry")?;
    need("kvm_exit")?;
    let place = |name: &str| {
        let f = entry.field(name).with_context(|| format!("kvm_entry has no field {name}"))?;
        Ok::<_, anyhow::Error>((f.offset, f.size))
    };
    let (vcpu, pid) = (place("vcpu_id")?, place("common_pid")?);
    let mut found: BTreeMap<u32, u32> = BTreeMap::new();
    let mut records = host.records(&host.time_map(false));
    let mut progress = Progress::bytes(files::data_size(host));
    loop {
        progress.tick(|| records.consumed());
        let Some(r) = records.next() else { break };
        let data = r.record().data;
        let read = |(at, size): (usize, usize)| host.endian().uint(data, at, size).map(|v| v as u32);
        if read((0, 2)) == Some(entry.id.into())
            && let (Some(pid), Some(vcpu)) = (read(pid), read(vcpu))
            && pids.contains(&pid)
        {
            found.entry(vcpu).or_insert(pid);
            if found.len() == pids.len() {
                break;
            }
        }
    }
    if found.is_empty() {
        bail!("{} has no kvm_entry event of these threads", host.path().display());
    }
    Ok(found.into_iter().collect())
}

/// A file written under a temporary name, to replace the one it was made from.
struct Rewritten(write::OutputFile);

impl Rewritten {
    fn commit(self) -> anyhow::Result<()> {
        Ok(self.0.commit()?)
    }
}

fn rewrite(file: &TraceFile, meta: &Metadata) -> anyhow::Result<Rewritten> {
    let mut writer = Writer::create(file.path(), FileHead::of(file), meta, write::buffer_heads(file)?)?;
    let mut progress = Progress::bytes(files::data_size(file));
    for (n, buffer) in file.buffers().iter().enumerate() {
        for cpu in buffer.cpus.iter().filter(|c| c.size > 0) {
            writer.cpu(n, cpu.cpu)?;
            write::copy_cpu(&mut writer, file, buffer, cpu, &mut |n| progress.add(n))?;
        }
    }
    Ok(Rewritten(writer.finish()?.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_samples() {
        let s = sample("-1000,3,2,99").unwrap();
        assert_eq!((s.offset, s.scaling, s.fraction_bits, s.time), (-1000, 3, 2, 99));
        let s = sample("0x10").unwrap();
        assert_eq!((s.offset, s.scaling, s.fraction_bits, s.time), (16, 1, 0, 0));
        for bad in ["", "1,2", "x", "1,2,3,4,5"] {
            assert!(sample(bad).is_err(), "{bad}");
        }
    }
}
