//! The KVM protocol: the host knows how far a guest's TSC is from its own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use trace_dat::write::ShiftSample;

use super::{clock::SyncClock, expect, message};
use crate::net::channel::Channel;

const NAME: &str = "kvm";
const REQUEST: u32 = 1;
const RESPONSE: u32 = 2;

/// Where KVM shows its machines (debugfs).
const KVM_DIR: &str = "/sys/kernel/debug/kvm";

/// Four words in the sender's own byte order.
fn words(w: [i64; 4]) -> Vec<u8> {
    w.iter().flat_map(|w| w.to_ne_bytes()).collect()
}

fn word(payload: &[u8], n: usize) -> i64 {
    payload.get(8 * n..).and_then(|b| b.first_chunk::<8>()).map_or(0, |b| i64::from_ne_bytes(*b))
}

/// The guest's side of one sample: the time of a marker.
///
/// # Errors
/// The host does not follow the protocol, or the kernel refuses markers.
pub fn guest(ch: &mut Channel, times: &mut SyncClock) -> Result<()> {
    times.clear()?;
    let text = b"kvm sync event\0";
    let (id, rest) = text.split_at(4);
    times.mark(u32::from_ne_bytes([id[0], id[1], id[2], id[3]]), rest)?;
    let time = times.read()?.last().map_or(0, |m| m.ts);
    ch.send(&message(NAME, REQUEST, words([time as i64, 0, 0, 0])))?;
    expect(ch, NAME, &[RESPONSE]).map(drop)
}

/// The host's side of one sample.
///
/// # Errors
/// The guest does not follow the protocol, or KVM does not show this virtual CPU.
pub fn host(ch: &mut Channel, cpu: usize) -> Result<ShiftSample> {
    let (_, request) = expect(ch, NAME, &[REQUEST])?;
    let time = word(&request, 0);
    let vcpus = vcpu_dirs(Path::new(KVM_DIR));
    let dir = vcpus.get(cpu).with_context(|| format!("{KVM_DIR} shows no virtual CPU {cpu}"))?;
    let offset = -read_number(&dir.join("tsc-offset"))?;
    let scaling = read_number(&dir.join("tsc-scaling-ratio")).unwrap_or(0);
    let bits = read_number(&dir.join("tsc-scaling-ratio-frac-bits")).unwrap_or(0);
    // The ratio 1 of both vendors.
    let (scaling, bits) = match scaling {
        0 => (1, 0),
        s if s == 1 << 32 && bits == 32 || s == 1 << 48 && bits == 48 => (1, 0),
        s => (s, bits),
    };
    ch.send(&message(NAME, RESPONSE, words([time, offset, scaling, bits])))?;
    Ok(ShiftSample { time: time as u64, offset, scaling: scaling as u64, fraction_bits: bits as u64 })
}

/// Whether this host's KVM shows what the protocol needs.
pub fn usable() -> bool {
    let vcpus = vcpu_dirs(Path::new(KVM_DIR));
    let has = |d: &PathBuf, f: &str| d.join(f).exists();
    !vcpus.is_empty()
        && vcpus
            .iter()
            .all(|d| has(d, "tsc-offset") && has(d, "tsc-scaling-ratio") == has(d, "tsc-scaling-ratio-frac-bits"))
}

/// Directories of the virtual CPUs, by number. With one machine there is no doubt whose they are.
fn vcpu_dirs(kvm: &Path) -> Vec<PathBuf> {
    let machines: Vec<PathBuf> =
        fs::read_dir(kvm).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
    let [machine] = machines.as_slice() else { return Vec::new() };
    let mut vcpus: Vec<(u32, PathBuf)> = fs::read_dir(machine)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| Some((e.file_name().to_str()?.strip_prefix("vcpu")?.parse().ok()?, e.path())))
        .collect();
    vcpus.sort();
    vcpus.into_iter().map(|v| v.1).collect()
}

fn read_number(path: &Path) -> Result<i64> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    text.trim().parse().with_context(|| format!("{}: {text:?} is no number", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_cpus_by_number() {
        let t = tempfile::tempdir().unwrap();
        for n in [10, 2, 0] {
            fs::create_dir_all(t.path().join(format!("77-5/vcpu{n}"))).unwrap();
        }
        let names: Vec<_> = vcpu_dirs(t.path()).iter().map(|p| p.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["vcpu0", "vcpu2", "vcpu10"]);
        fs::create_dir(t.path().join("78-5")).unwrap();
        assert!(vcpu_dirs(t.path()).is_empty(), "two machines: whose are they?");
    }
}
