//! `--date`: how far the trace clock is from the time of day.
//!
//! A text is written into an instance of our own with the same clock, the time of day read before and after it, and the
//! record's timestamp taken from the raw buffer; of 50 tries the one with the smallest gap counts. The recorded buffers are not touched.

use anyhow::{Context, ensure};
use nix::time::{ClockId, clock_gettime};
use trace_dat::LongSize;
use trace_dat::ring::subbuf::{ItemKind, SubBufLayout};
use tracefs::{CpuReader, Instance, Marker, TraceFs};

use crate::tracefile::HOST_ENDIAN;

/// How often it is tried.
const TRIES: usize = 50;

/// Microseconds from the trace clock's zero to the epoch of the time of day.
///
/// # Errors
/// The kernel has no instances or markers, or no record could be read.
pub fn offset_us(root: &TraceFs, clock: &str) -> anyhow::Result<i64> {
    let name = format!("tracecmd-date-{}", std::process::id());
    let instance = root.create_instance(&name)?;
    let result = measure(&instance, clock);
    instance.remove()?;
    result
}

fn measure(instance: &Instance, clock: &str) -> anyhow::Result<i64> {
    instance.set_clock(clock)?;
    let mut marker = Marker::open(instance)?;
    let mut best: Option<(i128, i128)> = None;
    for _ in 0..TRIES {
        instance.set_on(false)?;
        instance.clear(None)?;
        instance.set_on(true)?;
        let before = now_ns()?;
        marker.write("stamp")?;
        let after = now_ns()?;
        instance.set_on(false)?;
        let Some(ts) = first_timestamp(instance)? else { continue };
        let gap = after - before;
        let offset = after - gap / 2 - i128::from(ts);
        if best.is_none_or(|(least, _)| gap < least) {
            best = Some((gap, offset));
        }
    }
    let (_, offset) = best.context("the kernel did not record our mark")?;
    ensure!(offset.unsigned_abs() < 1 << 63, "the clock {clock} cannot be compared with the time of day");
    Ok(i64::try_from(offset / 1000)?)
}

fn now_ns() -> anyhow::Result<i128> {
    let t = clock_gettime(ClockId::CLOCK_REALTIME).context("clock_gettime")?;
    Ok(i128::from(t.tv_sec()) * 1_000_000_000 + i128::from(t.tv_nsec()))
}

/// Time of the first record in an instance's buffer.
fn first_timestamp(instance: &Instance) -> anyhow::Result<Option<u64>> {
    let long = size_of::<usize>();
    for cpu in instance.cpus()? {
        let mut reader = CpuReader::open(instance, cpu)?;
        let size = reader.subbuf_size();
        let Some(data) = reader.read()? else { continue };
        let layout = SubBufLayout {
            endian: HOST_ENDIAN,
            commit_size: if long == 4 { LongSize::Four } else { LongSize::Eight },
            data_offset: 8 + long,
            size,
            old_format: false,
        };
        for item in layout.items(data, 0)? {
            let item = item?;
            if item.kind == ItemKind::Event {
                return Ok(Some(item.ts));
            }
        }
    }
    Ok(None)
}
