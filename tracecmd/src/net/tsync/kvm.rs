//! The KVM protocol: the host knows how far a guest's TSC is from its own.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use trace_dat::write::ShiftSample;

use super::{clock::SyncClock, expect, message};
use crate::net::{channel::Channel, vm::Machine};

const NAME: &str = "kvm";
const REQUEST: u32 = 1;
const RESPONSE: u32 = 2;

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
    times.mark(u32::from_ne_bytes(*b"kvm "), b"sync event\0")?;
    let time = times.read()?.last().map_or(0, |m| m.ts);
    ch.send(&message(NAME, REQUEST, words([time as i64, 0, 0, 0])))?;
    expect(ch, NAME, &[RESPONSE]).map(drop)
}

/// The host's side of one sample.
///
/// # Errors
/// The guest does not follow the protocol, or KVM does not show this virtual CPU.
pub fn host(ch: &mut Channel, machine: &Machine, cpu: usize) -> Result<ShiftSample> {
    let (_, request) = expect(ch, NAME, &[REQUEST])?;
    let time = word(&request, 0);
    let dir = machine.vcpus.get(cpu).with_context(|| format!("KVM shows no virtual CPU {cpu}"))?;
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

fn read_number(path: &Path) -> Result<i64> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    text.trim().parse().with_context(|| format!("{}: {text:?} is no number", path.display()))
}
