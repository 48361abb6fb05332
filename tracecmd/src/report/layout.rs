//! The columns before an event's own text: names, CPU, flags, time, event name.
//!
//! Every function appends bytes to a buffer that is used again for the next line: nothing here allocates, asks the
//! locale or goes through `format!`, because each line of a report passes all of it.

use trace_dat::{Endian, format::Event, short::ShortText};

use crate::output::lines::Lines;

/// Text that takes the place of a column when the record's event is not in the file.
pub const UNKNOWN_EVENT: &[u8] = b"[UNKNOWN EVENT]";

/// Appends `n` blanks.
#[inline]
pub fn push_blanks(out: &mut Vec<u8>, n: usize) {
    out.resize(out.len() + n, b' ');
}

/// Appends a decimal number.
#[inline]
pub fn push_num<N: itoa::Integer>(out: &mut Vec<u8>, n: N) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

/// Appends a decimal number, right-aligned to `width` with blanks.
#[inline]
pub fn push_num_right<N: itoa::Integer>(out: &mut Vec<u8>, n: N, width: usize) {
    let mut buf = itoa::Buffer::new();
    let text = buf.format(n).as_bytes();
    push_blanks(out, width.saturating_sub(text.len()));
    out.extend_from_slice(text);
}

/// The digits of a number below 100; the table is longer so that no index has to be checked.
#[allow(clippy::indexing_slicing, reason = "the compiler runs it")]
const TWO_DIGITS: [[u8; 2]; 128] = {
    let mut all = [[b'0'; 2]; 128];
    let mut n = 0;
    while n < 100 {
        all[n] = [b'0' + (n / 10) as u8, b'0' + (n % 10) as u8];
        n += 1;
    }
    all
};

/// Appends exactly `N` digits of `n`, which must be below 10^N.
#[inline(always)]
#[allow(clippy::indexing_slicing, reason = "the index is cut to the length of the table")]
pub fn push_digits<const N: usize>(out: &mut Vec<u8>, mut n: u32) {
    let mut text = [b'0'; N];
    for two in text.rchunks_mut(2) {
        match two {
            [tens, ones] => {
                [*tens, *ones] = TWO_DIGITS[(n % 100) as usize & 127];
                n /= 100;
            }
            [one] => *one = b'0' + (n % 10) as u8,
            _ => {}
        }
    }
    out.extend_from_slice(&text);
}

/// Appends a number in lower-case hexadecimal without `0x`.
#[inline]
pub fn push_hex(out: &mut Vec<u8>, n: u64) {
    let digits = (64 - n.leading_zeros()).div_ceil(4).max(1);
    for at in (0..digits).rev() {
        out.push(hex_digit((n >> (at * 4)) as u8));
    }
}

#[inline]
fn hex_digit(n: u8) -> u8 {
    match n & 15 {
        n @ 0..=9 => b'0' + n,
        n => b'a' + n - 10,
    }
}

/// Appends `COMM-PID`: the name right-aligned to 16 columns and the pid left-aligned to 5; in the latency layout the
/// name is cut to 8 columns.
pub fn push_comm_pid(out: &mut Vec<u8>, comm: &[u8], pid: i32, latency: bool) {
    if latency {
        let comm = comm.get(..8).unwrap_or(comm);
        push_blanks(out, 8 - comm.len());
        out.extend_from_slice(comm);
    } else {
        push_blanks(out, 16usize.saturating_sub(comm.len()));
        out.extend_from_slice(comm);
    }
    out.push(b'-');
    let mut buf = itoa::Buffer::new();
    let pid = buf.format(pid).as_bytes();
    out.extend_from_slice(pid);
    push_blanks(out, 5usize.saturating_sub(pid.len()));
}

/// Appends the CPU column: ` [003]`, in the latency layout `   3`.
#[inline]
pub fn push_cpu(out: &mut Vec<u8>, cpu: u32, latency: bool) {
    if latency {
        out.push(b' ');
        push_num_right(out, cpu, 3);
    } else if cpu < 1000 {
        out.extend_from_slice(b" [");
        push_digits::<3>(out, cpu);
        out.push(b']');
    } else {
        out.extend_from_slice(b" [");
        push_num(out, cpu);
        out.push(b']');
    }
}

/// Appends the five flag characters of `common_flags` and `common_preempt_count`.
///
/// Bits of `common_flags`: 0x01 interrupts off, 0x02 lazy reschedule, 0x04 reschedule needed, 0x08 in a hard interrupt,
/// 0x10 in a soft interrupt. The count's low half is the preemption depth, its high half the migrate-disable depth.
///
/// Source: `TRACE_FLAG_*` in include/linux/trace_events.h; Documentation/trace/ftrace.rst.
#[inline]
pub fn push_flags(out: &mut Vec<u8>, flags: u8, preempt: u8) {
    let depth = |n: u8| if n & 15 == 0 { b'.' } else { hex_digit(n) };
    out.extend_from_slice(&[
        if flags & 1 != 0 { b'd' } else { b'.' },
        match flags & 6 {
            0 => b'.',
            2 => b'L',
            _ => b'N',
        },
        match flags & 0x18 {
            0 => b'.',
            8 => b'h',
            0x10 => b's',
            _ => b'H',
        },
        depth(preempt),
        depth(preempt >> 4),
    ]);
}

/// How the time of a line is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeFormat {
    /// Seconds with six digits, rounded from nanoseconds.
    Micros,
    /// Seconds with nine digits.
    Nanos,
    /// The number as it is, for clocks that count something else.
    Count,
}

/// Appends times; the whole seconds of the last one are kept as text.
#[derive(Debug)]
pub struct TimeColumn {
    format: TimeFormat,
    /// The first time that is shown in the kept second.
    start: u64,
    text: ShortText,
}

impl Default for TimeColumn {
    fn default() -> Self {
        // Of no format that keeps seconds: the first time is a change.
        TimeColumn { format: TimeFormat::Count, start: 0, text: ShortText::default() }
    }
}

const SECOND: u64 = 1_000_000_000;

impl TimeColumn {
    /// Appends the time column without the colon: ` %5u.%06u`, ` %5u.%09u`, or 12 columns without leading blank.
    #[inline(always)]
    pub fn push(&mut self, out: &mut Vec<u8>, ts: u64, format: TimeFormat) {
        if format == TimeFormat::Count {
            return push_num_right(out, ts, 12);
        }
        let mut within = ts.wrapping_sub(self.start);
        if within >= SECOND || format != self.format {
            within = self.change(ts, format);
        }
        self.text.push(out);
        if format == TimeFormat::Micros {
            push_digits::<6>(out, within as u32 / 1000);
        } else {
            push_digits::<9>(out, within as u32);
        }
    }

    /// As [`TimeColumn::push`], with a pen.
    #[inline(always)]
    pub fn write(&mut self, lines: &mut Lines<'_, '_>, ts: u64, format: TimeFormat) {
        if format == TimeFormat::Count {
            return push_num_right(lines.flush(), ts, 12);
        }
        let mut within = ts.wrapping_sub(self.start);
        if within >= SECOND || format != self.format {
            within = self.change(ts, format);
        }
        lines.text(&self.text);
        let (within, pen) = (within as u32, &mut lines.pen);
        if format == TimeFormat::Micros {
            pen.digits::<6>(within / 1000);
        } else {
            pen.digits::<1>(within / 100_000_000);
            pen.digits::<8>(within % 100_000_000);
        }
    }

    /// Goes to another second; gives the nanoseconds within it.
    #[cold]
    fn change(&mut self, ts: u64, format: TimeFormat) -> u64 {
        // Microseconds are rounded: the second begins half of one earlier.
        let round = if format == TimeFormat::Micros { 500 } else { 0 };
        let second = ts.wrapping_add(round) / SECOND;
        let mut text = vec![b' '];
        push_num_right(&mut text, second, 5);
        text.push(b'.');
        self.format = format;
        self.start = (second * SECOND).wrapping_sub(round);
        self.text = ShortText::new(&text);
        ts.wrapping_sub(self.start)
    }
}

/// Appends the difference to the line before: a blank and `(+N)`, padded to 8 columns; blanks for the first line.
pub fn push_ts_diff(out: &mut Vec<u8>, diff: Option<i64>) {
    out.push(b' ');
    let start = out.len();
    if let Some(diff) = diff {
        out.extend_from_slice(b"(+");
        push_num(out, diff);
        out.push(b')');
    }
    push_blanks(out, (start + 8).saturating_sub(out.len()));
}

/// Appends ` NAME: ` and pads so that the name has 20 columns.
pub fn push_event_name(out: &mut Vec<u8>, name: &[u8]) {
    out.push(b' ');
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    push_blanks(out, 20usize.saturating_sub(name.len()));
}

/// Where a number that all events have lies in a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    offset: usize,
    size: usize,
}

impl Place {
    fn of(event: &Event, name: &str) -> Option<Place> {
        event.common.iter().find(|f| f.name == name).map(|f| Place { offset: f.offset, size: f.size })
    }

    #[inline(always)]
    fn read(self, endian: Endian, data: &[u8]) -> u64 {
        endian.uint(data, self.offset, self.size).unwrap_or(0)
    }
}

/// Positions of the `common_*` fields, the same in every event of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct CommonFields {
    endian: Endian,
    pid: Place,
    flags: Place,
    preempt: Place,
    migrate: Option<Place>,
    lock: Option<Place>,
    usual: bool,
}

impl CommonFields {
    /// Takes the positions from any event of the file; without one, those of all kernels since 2.6.31.
    pub fn new(endian: Endian, event: Option<&Event>) -> Self {
        let find = |name| event.and_then(|e| Place::of(e, name));
        let pid = find("common_pid").unwrap_or(Place { offset: 4, size: 4 });
        let flags = find("common_flags").unwrap_or(Place { offset: 2, size: 1 });
        let preempt = find("common_preempt_count").unwrap_or(Place { offset: 3, size: 1 });
        let usual = (pid.offset, pid.size, flags.offset, flags.size) == (4, 4, 2, 1)
            && (preempt.offset, preempt.size) == (3, 1);
        let (migrate, lock) = (find("common_migrate_disable"), find("common_lock_depth"));
        CommonFields { endian, pid, flags, preempt, migrate, lock, usual }
    }

    /// `common_pid`, `common_flags` and `common_preempt_count` of a record; 0 where the record is too short.
    #[inline(always)]
    pub fn read(&self, data: &[u8]) -> (i32, u8, u8) {
        if let (true, Some(&[_, _, flags, preempt, a, b, c, d])) = (self.usual, data.first_chunk::<8>()) {
            (self.endian.u32([a, b, c, d]) as i32, flags, preempt)
        } else {
            let read = |p: Place| p.read(self.endian, data);
            (read(self.pid) as i32, read(self.flags) as u8, read(self.preempt) as u8)
        }
    }

    /// Whether lines have columns that only kernels with the old PREEMPT_RT patch fill.
    #[inline(always)]
    pub fn has_rt_columns(&self) -> bool {
        self.migrate.is_some()
    }

    /// Appends those columns: the migrate-disable depth, or twice the lock depth where the kernel stores both, as the
    /// reference does. A negative depth is a dot.
    pub fn push_rt_columns(&self, out: &mut Vec<u8>, data: &[u8]) {
        let mut push = |place: Place| {
            let raw = place.read(self.endian, data);
            let depth = if place.size == 4 { i64::from(raw as i32) } else { raw as i64 };
            if depth < 0 { out.push(b'.') } else { push_num(out, depth) }
        };
        match (self.migrate, self.lock) {
            (Some(_), Some(lock)) => {
                push(lock);
                push(lock);
            }
            (Some(migrate), None) => push(migrate),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(f: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        f(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn names_are_padded_not_cut() {
        assert_eq!(text(|o| push_comm_pid(o, b"w", 186, false)), "               w-186  ");
        assert_eq!(text(|o| push_comm_pid(o, b"<...>", -1, false)), "           <...>--1   ");
        assert_eq!(text(|o| push_comm_pid(o, b"averyveryverylong", 4194304, false)), "averyveryverylong-4194304");
    }

    #[test]
    fn latency_layout_cuts_names() {
        assert_eq!(text(|o| push_comm_pid(o, b"trace-cmd", 185, true)), "trace-cm-185  ");
        assert_eq!(text(|o| push_comm_pid(o, b"w", 100000, true)), "       w-100000");
        assert_eq!(text(|o| push_cpu(o, 1, true)), "   1");
    }

    #[test]
    fn cpu_has_three_digits() {
        assert_eq!(text(|o| push_cpu(o, 0, false)), " [000]");
        assert_eq!(text(|o| push_cpu(o, 255, false)), " [255]");
        assert_eq!(text(|o| push_cpu(o, 1024, false)), " [1024]");
    }

    #[test]
    fn every_flag() {
        for (flags, preempt, want) in [
            (0, 0, "....."),
            (1, 7, "d..7."),
            (2, 0x0e, ".L.e."),
            (3, 0x15, "dL.51"),
            (4, 0x1c, ".N.c1"),
            (6, 0x2a, ".N.a2"),
            (8, 0x38, "..h83"),
            (0xf5, 0xb3, "dNs3b"),
            (0xf8, 0xc8, "..H8c"),
            (0xff, 0xf9, "dNH9f"),
        ] {
            assert_eq!(text(|o| push_flags(o, flags, preempt)), want, "{flags:#x} {preempt:#x}");
        }
    }

    #[test]
    fn times() {
        let mut col = TimeColumn::default();
        let mut written = TimeColumn::default();
        let mut sheet = trace_dat::pen::Sheet::default();
        let mut t = |ts, f| {
            let with_pen = text(|out| {
                let mut lines = Lines { pen: trace_dat::pen::Pen::new(&mut sheet, 0), out };
                written.write(&mut lines, ts, f);
                lines.flush();
            });
            let pushed = text(|o| col.push(o, ts, f));
            assert_eq!(with_pen, pushed);
            pushed
        };
        assert_eq!(t(121_844_139_434, TimeFormat::Micros), "   121.844139");
        assert_eq!(t(121_844_139_500, TimeFormat::Micros), "   121.844140");
        assert_eq!(t(121_999_999_500, TimeFormat::Micros), "   122.000000");
        assert_eq!(t(121_844_139_434, TimeFormat::Nanos), "   121.844139434");
        assert_eq!(t(1_234_567_000_000_001, TimeFormat::Nanos), " 1234567.000000001");
        assert_eq!(t(1_000_384_499, TimeFormat::Count), "  1000384499");
        assert_eq!(t(1_001_000_384_498, TimeFormat::Count), "1001000384498");
        assert_eq!(t(u64::MAX, TimeFormat::Micros), "     0.000000");
    }

    #[test]
    fn differences() {
        assert_eq!(text(|o| push_ts_diff(o, None)), "         ");
        assert_eq!(text(|o| push_ts_diff(o, Some(87))), " (+87)   ");
        assert_eq!(text(|o| push_ts_diff(o, Some(-2))), " (+-2)   ");
        assert_eq!(text(|o| push_ts_diff(o, Some(999_999_999_999))), " (+999999999999)");
    }

    #[test]
    fn event_names() {
        assert_eq!(text(|o| push_event_name(o, b"foo")), " foo:                  ");
        assert_eq!(text(|o| push_event_name(o, b"a_very_long_event_name")), " a_very_long_event_name: ");
        assert_eq!(text(|o| push_event_name(o, b"(NULL)")), " (NULL):               ");
    }

    #[test]
    fn hex() {
        assert_eq!(text(|o| push_hex(o, 0)), "0");
        assert_eq!(text(|o| push_hex(o, 0x19)), "19");
        assert_eq!(text(|o| push_hex(o, u64::MAX)), "ffffffffffffffff");
    }

    #[test]
    fn common_fields_of_a_short_record_read_as_zero() {
        let c = CommonFields::new(Endian::Little, None);
        assert_eq!(c.read(&[1, 0, 9]), (0, 9, 0));
        assert_eq!(c.read(&[1, 0, 9, 0x21, 7, 0, 0, 0]), (7, 9, 0x21));
        assert_eq!(CommonFields::new(Endian::Big, None).read(&[1, 0, 9, 0x21, 0, 0, 0, 7]), (7, 9, 0x21));
    }
}
