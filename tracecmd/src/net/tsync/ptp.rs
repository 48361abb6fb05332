//! The PTP-like protocol: the guest starts, sends many probes, and the fastest round trip tells the difference of the clocks.

use anyhow::{Result, bail};
use trace_dat::write::ShiftSample;

use super::{clock::SyncClock, expect, message};
use crate::net::channel::Channel;

const NAME: &str = "ptp";
const START: u32 = 1;
const PROBE: u32 = 2;
const PROBES: u32 = 3;
const OFFSET: u32 = 4;
const END: u32 = 5;

/// Probes of one series.
pub const COUNT: usize = 339;
/// Room for times in a PROBES message: those of probes sent and of probes returned.
const ROOM: usize = 2 * COUNT;
/// Flags of START: the fastest answer counts (1), times are those of markers (2).
const FLAGS: u32 = 3;

const SENT: i32 = b's' as i32;
const RECEIVED: i32 = b'r' as i32;

/// Writes a marker of five words: series (the kernel's raw id), two ids that are 0, number of the probe, letter.
fn mark(times: &mut SyncClock, series: u32, probe: u32, letter: i32) -> Result<()> {
    let mut data = [0; 16];
    data[8..12].copy_from_slice(&probe.to_ne_bytes());
    data[12..16].copy_from_slice(&letter.to_ne_bytes());
    times.mark(series, &data)
}

/// Times of the markers of a series with this letter, by probe (from 1).
fn marks(times: &mut SyncClock, series: u32) -> Result<(Vec<Option<u64>>, Vec<Option<u64>>)> {
    let (mut sent, mut received) = (vec![None; COUNT + 1], vec![None; COUNT + 1]);
    for m in times.read()? {
        let [of, _, _, probe, letter, ..] = m.data.as_chunks::<4>().0 else { continue };
        if u32::from_ne_bytes(*of) != series {
            continue;
        }
        let list = match i32::from_ne_bytes(*letter) {
            SENT => &mut sent,
            RECEIVED => &mut received,
            _ => continue,
        };
        if let Some(slot) = usize::try_from(i32::from_ne_bytes(*probe)).ok().and_then(|n| list.get_mut(n)) {
            *slot = Some(m.ts);
        }
    }
    Ok((sent, received))
}

fn be32(payload: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(payload.get(at..at + 4)?.try_into().ok()?))
}

fn be64(payload: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(payload.get(at..at + 8)?.try_into().ok()?))
}

/// The guest's side of one sample.
///
/// # Errors
/// The host does not follow the protocol, or the kernel refuses markers.
pub fn guest(ch: &mut Channel, times: &mut SyncClock, series: &mut u32) -> Result<()> {
    *series += 1;
    let start = [series.to_be_bytes(), FLAGS.to_be_bytes()].concat();
    ch.send(&message(NAME, START, start))?;
    expect(ch, NAME, &[START])?;
    times.clear()?;
    for n in 1..=COUNT as u32 {
        mark(times, *series, n, SENT)?;
        ch.send(&message(NAME, PROBE, n.to_be_bytes().to_vec()))?;
        let (_, payload) = expect(ch, NAME, &[PROBE])?;
        if be32(&payload, 0) != Some(n) {
            bail!("another probe than {n} came back");
        }
        mark(times, *series, n, RECEIVED)?;
    }
    ch.send(&message(NAME, END, Vec::new()))?;
    let (_, payload) = expect(ch, NAME, &[PROBES])?;
    let (sent, returned) = marks(times, *series)?;
    let (time, offset) = best(&sent, &returned, &decode_probes(&payload)).unwrap_or((0, 0));
    ch.send(&message(NAME, OFFSET, [time.to_be_bytes(), offset.to_be_bytes()].concat()))
}

/// The host's times in a PROBES message, by probe.
fn decode_probes(payload: &[u8]) -> Vec<Option<u64>> {
    let mut times = vec![None; COUNT + 1];
    let count = be32(payload, 4).unwrap_or(0) as usize;
    for n in 0..count.min(ROOM) {
        let at = 8 + 12 * n;
        if let (Some(time), Some(probe)) = (be64(payload, at), be32(payload, at + 8))
            && let Some(slot) = times.get_mut(probe as usize)
        {
            *slot = Some(time);
        }
    }
    times
}

/// Middle of the fastest round trip in guest time, and what to add to it for host time.
fn best(sent: &[Option<u64>], returned: &[Option<u64>], host: &[Option<u64>]) -> Option<(u64, i64)> {
    let all = sent.iter().zip(returned).zip(host).filter_map(|((s, r), h)| Some(((*s)?, (*r)?, (*h)?)));
    let (s, r, h) = all.filter(|(s, r, _)| r >= s).min_by_key(|(s, r, _)| r - s)?;
    let middle = s + (r - s) / 2;
    Some((middle, h.wrapping_sub(middle) as i64))
}

/// The host's side of one sample.
///
/// # Errors
/// The guest does not follow the protocol, or the kernel refuses markers.
pub fn host(ch: &mut Channel, times: &mut SyncClock) -> Result<ShiftSample> {
    let (_, start) = expect(ch, NAME, &[START])?;
    let series = be32(&start, 0).unwrap_or(0);
    times.clear()?;
    ch.send(&message(NAME, START, start))?;
    // A guest that sends probes without end is not honest.
    for _ in 0..=COUNT {
        let (id, payload) = expect(ch, NAME, &[PROBE, END])?;
        if id == END {
            break;
        }
        mark(times, series, be32(&payload, 0).unwrap_or(0), RECEIVED)?;
        ch.send(&message(NAME, PROBE, payload))?;
    }
    let (_, received) = marks(times, series)?;
    let mut payload = Vec::with_capacity(8 + 12 * ROOM);
    let found: Vec<(u64, u32)> = received.iter().zip(0..).filter_map(|(t, n)| Some(((*t)?, n))).collect();
    payload.extend(series.to_be_bytes());
    payload.extend((found.len() as u32).to_be_bytes());
    for (time, probe) in found {
        payload.extend(time.to_be_bytes());
        payload.extend(probe.to_be_bytes());
    }
    payload.resize(8 + 12 * ROOM, 0);
    ch.send(&message(NAME, PROBES, payload))?;
    let (_, offset) = expect(ch, NAME, &[OFFSET])?;
    Ok(ShiftSample {
        time: be64(&offset, 0).unwrap_or(0),
        offset: be64(&offset, 8).unwrap_or(0) as i64,
        scaling: 1,
        fraction_bits: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_round_trip_counts() {
        let t = |v: &[u64]| v.iter().map(|t| (*t > 0).then_some(*t)).collect::<Vec<_>>();
        let sent = t(&[0, 100, 200, 300]);
        let back = t(&[0, 150, 210, 305]);
        let host = t(&[0, 1120, 1206, 0]);
        // Probe 3 was not seen by the host; probe 2 took 10, its middle is 205.
        assert_eq!(best(&sent, &back, &host), Some((205, 1001)));
        assert_eq!(best(&sent, &back, &t(&[0, 0, 3, 0])), Some((205, -202)));
        assert_eq!(best(&[], &[], &[]), None);
    }

    #[test]
    fn probes_of_any_bytes() {
        let mut p = Vec::new();
        p.extend(7u32.to_be_bytes());
        p.extend(u32::MAX.to_be_bytes());
        p.extend(55u64.to_be_bytes());
        p.extend(2u32.to_be_bytes());
        p.extend(66u64.to_be_bytes());
        p.extend(99_999u32.to_be_bytes());
        assert_eq!(decode_probes(&p)[2], Some(55));
        assert_eq!(decode_probes(&p).iter().flatten().count(), 1);
        assert!(decode_probes(&[1, 2]).iter().flatten().next().is_none());
    }
}
