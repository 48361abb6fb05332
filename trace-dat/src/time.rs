//! From stored times to shown ones: guest shift, ticks to nanoseconds, date.
//!
//! Order: TIME_SHIFT of a guest's CPU, then ticks to nanoseconds, then the sum of all offsets.

use std::sync::Arc;

use crate::read::option::{ShiftSamples, TimeShift, Tsc2Nsec};

/// Flag of a TIME_SHIFT option: offsets between two measurements are interpolated.
pub const SHIFT_INTERPOLATE: u32 = 1;

/// How ticks become nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    /// They are nanoseconds, or shall stay what they are.
    #[default]
    None,
    /// Ticks of a counter with so many of them in a second (`report --ts2secs`), computed in floating point as the
    /// reference does it.
    TicksPerSecond(u64),
    /// Multiplied and shifted (TSC2NSEC).
    Tsc {
        /// Multiplier.
        mult: u32,
        /// Right shift.
        shift: u32,
    },
}

impl From<Tsc2Nsec> for Scale {
    fn from(t: Tsc2Nsec) -> Self {
        Scale::Tsc { mult: t.mult, shift: t.shift }
    }
}

/// Corrects the times of a file's records.
#[derive(Clone, Debug, Default)]
pub struct TimeMap {
    /// Guest time to host time.
    pub shift: Option<Arc<TimeShift>>,
    /// Ticks to nanoseconds.
    pub scale: Scale,
    /// Added last; wraps around.
    pub offset: u64,
}

/// Corrects the times of one CPU's records.
#[derive(Clone, Debug, Default)]
pub struct CpuTime {
    shift: Option<(Arc<TimeShift>, usize)>,
    scale: Scale,
    offset: u64,
}

impl TimeMap {
    /// The map for one CPU. A CPU that the TIME_SHIFT option does not have is not shifted.
    pub fn cpu(&self, cpu: u32) -> CpuTime {
        let index = usize::try_from(cpu).unwrap_or(usize::MAX);
        let shift = self.shift.as_ref().filter(|s| s.cpus.get(index).is_some_and(|c| !c.times.is_empty()));
        CpuTime { shift: shift.map(|s| (s.clone(), index)), scale: self.scale, offset: self.offset }
    }
}

impl CpuTime {
    /// The corrected time.
    #[inline(always)]
    pub fn correct(&self, ts: u64) -> u64 {
        if self.shift.is_none() && self.scale == Scale::None {
            return ts.wrapping_add(self.offset);
        }
        self.correct_slowly(ts)
    }

    fn correct_slowly(&self, mut ts: u64) -> u64 {
        if let Some((shift, cpu)) = &self.shift
            && let Some(samples) = shift.cpus.get(*cpu)
        {
            ts = shifted(samples, shift.flags & SHIFT_INTERPOLATE != 0, ts);
        }
        ts = match self.scale {
            Scale::None => ts,
            Scale::TicksPerSecond(hz) => (ts as f64 * (1e9 / hz as f64)) as u64,
            Scale::Tsc { mult, shift } => {
                let product = u128::from(ts) * u128::from(mult);
                product.checked_shr(shift).unwrap_or(0) as u64
            }
        };
        ts.wrapping_add(self.offset)
    }

    /// A stored time such that every record from the corrected time `ts` on is not before it; the map is taken as growing.
    pub fn stored_before(&self, ts: u64) -> u64 {
        if self.shift.is_none() && self.scale == Scale::None {
            // A negative offset wraps: times below it are before everything.
            return if (self.offset as i64) < 0 {
                ts.saturating_add(self.offset.wrapping_neg())
            } else {
                ts.saturating_sub(self.offset)
            };
        }
        // Half of the range is enough for any clock; above it the arithmetic overflows.
        let (mut low, mut high) = (0u64, u64::MAX >> 1);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.correct(middle) < ts { low = middle + 1 } else { high = middle }
        }
        // Rounding within one step of a scale.
        low.saturating_sub(1)
    }
}

/// A guest's time on its host: scaled and shifted by the measurements around it.
fn shifted(s: &ShiftSamples, interpolate: bool, ts: u64) -> u64 {
    let offset = |i: usize| s.offsets.get(i).copied().unwrap_or(0);
    let time = |i: usize| s.times.get(i).copied().unwrap_or(0);
    let n = s.times.len();
    if n <= 1 {
        return ts.wrapping_add(offset(0) as u64);
    }
    // The pair of measurements around ts; outside of all, the first or the last pair.
    let low = s.times.partition_point(|t| *t <= ts).saturating_sub(1).min(n - 2);
    let high = low + 1;
    let scaling = s.scalings.get(low).copied().unwrap_or(1);
    let fraction = s.fractions.get(low).copied().unwrap_or(0);
    let scaled = ts.wrapping_mul(scaling).checked_shr(u32::try_from(fraction).unwrap_or(u32::MAX)).unwrap_or(0);
    let (t0, t1, o0, o1) = (time(low), time(high), offset(low), offset(high));
    let add = if interpolate && t0 != t1 {
        let (t0, t1, ts) = (i128::from(t0), i128::from(t1), i128::from(ts));
        let (rise, run) = ((i128::from(o1) - i128::from(o0)) * (ts - t0), t1 - t0);
        // Half is added whatever the sign, and the quotient cut off towards zero, as the reference does.
        i128::from(o0) + (rise + run / 2) / run
    } else {
        i128::from(o0)
    };
    scaled.wrapping_add(add as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tsc_to_nanoseconds() {
        let map = TimeMap { scale: Scale::Tsc { mult: 1 << 31, shift: 32 }, offset: 5, ..TimeMap::default() };
        assert_eq!(map.cpu(0).correct(u64::MAX), (u64::MAX >> 1) + 5);
        assert_eq!(map.cpu(0).correct(10), 10);
        let map = TimeMap { scale: Scale::Tsc { mult: 3, shift: 200 }, ..TimeMap::default() };
        assert_eq!(map.cpu(0).correct(10), 0);
    }

    #[test]
    fn guest_times() {
        let samples = |times: &[u64], offsets: &[i64]| ShiftSamples {
            times: times.to_vec(),
            offsets: offsets.to_vec(),
            scalings: vec![1; times.len()],
            fractions: vec![0; times.len()],
        };
        let shift = |flags, s| TimeMap {
            shift: Some(Arc::new(TimeShift { peer: 1, flags, cpus: vec![s] })),
            ..TimeMap::default()
        };
        assert_eq!(shift(0, samples(&[50], &[-7])).cpu(0).correct(100), 93);
        assert_eq!(shift(0, samples(&[50], &[-7])).cpu(1).correct(100), 100);
        let steps = shift(0, samples(&[100, 200, 300], &[10, 20, 40]));
        let line = shift(1, samples(&[100, 200, 300], &[10, 20, 40]));
        let at = |m: &TimeMap, ts| m.cpu(0).correct(ts) - ts;
        assert_eq!([at(&steps, 50), at(&steps, 150), at(&steps, 250), at(&steps, 900)], [10, 10, 20, 20]);
        // Before the first sample the line is extrapolated; the reference rounds the half up there (watched).
        assert_eq!([at(&line, 50), at(&line, 150), at(&line, 250), at(&line, 400)], [6, 15, 30, 60]);
    }

    #[test]
    fn ticks_are_scaled_as_the_reference_does_it() {
        // Seen with `report --ts2secs HZ -t`.
        for (hz, ns) in [
            (7, 4_705_796_654_285_714_432),
            (1_000_001, 32_940_543_639_456),
            (333_333_333, 98_821_729_838),
            (3_000_000_000, 10_980_192_193),
            (5_000_000_000_000, 6_588_115),
        ] {
            let map = TimeMap { scale: Scale::TicksPerSecond(hz), ..TimeMap::default() };
            assert_eq!(map.cpu(0).correct(32_940_576_580), ns, "{hz}");
        }
    }

    #[test]
    fn stored_times_of_corrected_ones() {
        let maps = [
            TimeMap { offset: 1000, ..TimeMap::default() },
            TimeMap { offset: 1000u64.wrapping_neg(), ..TimeMap::default() },
            TimeMap { scale: Scale::Tsc { mult: 1234567, shift: 21 }, offset: 77, ..TimeMap::default() },
            TimeMap { scale: Scale::TicksPerSecond(333_333_333), ..TimeMap::default() },
        ];
        for map in maps {
            let cpu = map.cpu(0);
            for stored in [2000u64, 5_000_000, 1 << 40] {
                let low = cpu.stored_before(cpu.correct(stored));
                assert!(low <= stored && stored - low < 10, "{map:?} {stored} {low}");
            }
        }
    }
}
