//! How times are shown.

use super::layout::TimeFormat;

/// Whether the clock counts nanoseconds.
pub fn is_time_clock(clock: &str) -> bool {
    matches!(clock, "local" | "global" | "uptime" | "perf" | "tai" | "tsc2nsec") || clock.starts_with("mono")
}

/// How the times of an input are shown.
pub fn time_format(clock: Option<&str>, has_scale: bool, raw: bool, nanoseconds: bool) -> TimeFormat {
    let time = match clock {
        // Files without the option keep the seconds whatever is asked for.
        None => true,
        Some(_) if raw => false,
        Some(clock) => has_scale || is_time_clock(clock),
    };
    match (time, nanoseconds) {
        (false, _) => TimeFormat::Count,
        (true, true) => TimeFormat::Nanos,
        (true, false) => TimeFormat::Micros,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks() {
        for (clock, time) in
            [("mono_raw", true), ("tai", true), ("boot", false), ("counter", false), ("x86-tsc", false), ("", false)]
        {
            assert_eq!(is_time_clock(clock), time, "{clock}");
        }
    }

    #[test]
    fn formats() {
        assert_eq!(time_format(None, false, true, false), TimeFormat::Micros);
        assert_eq!(time_format(Some("local"), false, true, true), TimeFormat::Count);
        assert_eq!(time_format(Some("x86-tsc"), true, false, true), TimeFormat::Nanos);
        assert_eq!(time_format(Some("x86-tsc"), false, false, true), TimeFormat::Count);
    }
}
