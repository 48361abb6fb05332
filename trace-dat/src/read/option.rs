//! Options: raw as stored, and typed.
//!
//! Source: trace-cmd.dat.v7(5), "OPTIONS SECTION". Version 6 uses the same numbers up to 14.

use crate::{Endian, Error, Result, cursor::Cursor, read::header::text};

pub use crate::write::option::id;

/// An option as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawOption {
    /// Its number, see [`id`].
    pub id: u16,
    /// Its content.
    pub data: Vec<u8>,
    /// Where the content lies: in the file, or in the unpacked options section when that is compressed.
    pub offset: u64,
}

/// Where the data of one CPU lie, as the BUFFER option says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferCpu {
    /// Number of the CPU.
    pub cpu: u32,
    /// Where its data begin in the file.
    pub offset: u64,
    /// Their size in the file.
    pub size: u64,
}

/// Content of a BUFFER option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BufferOption {
    /// Version 7: the buffer's section. Version 6: where `flyrecord` and the list of CPUs stand.
    pub offset: u64,
    /// Name of the instance, empty for the top one.
    pub name: String,
    /// Version 7: the instance's trace clock.
    pub clock: String,
    /// Version 7: bytes of a sub-buffer.
    pub page_size: u32,
    /// Version 7: the CPUs that have data.
    pub cpus: Vec<BufferCpu>,
}

/// One guest CPU's measurements of a TIME_SHIFT option; all four have the same length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShiftSamples {
    /// When measured, guest time.
    pub times: Vec<u64>,
    /// Added to guest times.
    pub offsets: Vec<i64>,
    /// Multiplies guest times.
    pub scalings: Vec<u64>,
    /// Shifts the product right. 0 in files of older recorders.
    pub fractions: Vec<u64>,
}

/// Content of a TIME_SHIFT option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeShift {
    /// TRACEID of the peer's (the host's) file.
    pub peer: u64,
    /// Flags of the protocol; bit 0: offsets are interpolated.
    pub flags: u32,
    /// Measurements of each guest CPU.
    pub cpus: Vec<ShiftSamples>,
}

/// Content of a GUEST option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Name of the guest.
    pub name: String,
    /// TRACEID of the guest's file.
    pub trace_id: u64,
    /// Guest CPU and the pid of the host task that runs it.
    pub cpus: Vec<(u32, i32)>,
}

/// Content of a TSC2NSEC option: ns = (ticks * mult) >> shift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tsc2Nsec {
    /// Multiplier.
    pub mult: u32,
    /// Right shift.
    pub shift: u32,
    /// Stored, but the reference does not apply it.
    pub offset: u64,
}

/// An option's content, typed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TypedOption {
    /// Microseconds to add to trace time for time of day, a C number as text.
    Date(String),
    /// Statistics of a CPU, or a title line before those of an instance.
    CpuStat(String),
    /// A buffer of events.
    Buffer(BufferOption),
    /// Content of `trace_clock`: all clocks, the chosen one in brackets.
    TraceClock(String),
    /// System, host, release and machine.
    Uname(String),
    /// An event hook.
    Hook(String),
    /// Number added to every time, a C number as text.
    Offset(String),
    /// CPUs of the machine.
    CpuCount(u32),
    /// Version of the recorder.
    Version(String),
    /// Memory maps.
    ProcMaps(String),
    /// Number of the session.
    TraceId(u64),
    /// Guest time against host time.
    TimeShift(TimeShift),
    /// A traced guest.
    Guest(Guest),
    /// TSC ticks to nanoseconds.
    Tsc2Nsec(Tsc2Nsec),
    /// Version 7: where a section lies; its id is the option's.
    Section(u16, u64),
    /// A latency tracer's text: its section, instance and clock.
    BufferText {
        /// Where the section lies.
        offset: u64,
        /// Name of the instance, empty for the top one.
        name: String,
        /// The trace clock.
        clock: String,
    },
    /// Instance name, colon, content of `last_boot_info`.
    LastBootInfo(String),
    /// Not known here.
    Unknown(u16),
}

fn string(data: &[u8]) -> String {
    text(data.split(|b| *b == 0).next().unwrap_or_default())
}

impl RawOption {
    /// The content, typed.
    ///
    /// # Errors
    /// [`Error::Truncated`] when it is shorter than its own counts say, [`Error::BadValue`] when it is longer.
    pub fn typed(&self, endian: Endian, version: u32) -> Result<TypedOption> {
        let mut c = Cursor::new(&self.data, self.offset, endian);
        let s = || string(&self.data);
        Ok(match self.id {
            id::DATE => TypedOption::Date(s()),
            id::CPUSTAT => TypedOption::CpuStat(s()),
            id::BUFFER => TypedOption::Buffer(buffer(&mut c, version)?),
            id::TRACECLOCK => TypedOption::TraceClock(s()),
            id::UNAME => TypedOption::Uname(s()),
            id::HOOK => TypedOption::Hook(s()),
            id::OFFSET => TypedOption::Offset(s()),
            id::CPUCOUNT => TypedOption::CpuCount(c.u32("CPUCOUNT option")?),
            id::VERSION => TypedOption::Version(s()),
            id::PROCMAPS => TypedOption::ProcMaps(s()),
            id::TRACEID => TypedOption::TraceId(c.u64("TRACEID option")?),
            id::TIME_SHIFT => TypedOption::TimeShift(time_shift(&mut c)?),
            id::GUEST => TypedOption::Guest(guest(&mut c)?),
            id::TSC2NSEC => TypedOption::Tsc2Nsec(Tsc2Nsec {
                mult: c.u32("TSC2NSEC option")?,
                shift: c.u32("TSC2NSEC option")?,
                offset: c.u64("TSC2NSEC option")?,
            }),
            15..=21 | 23 | 25 if version >= 7 => TypedOption::Section(self.id, c.u64("place of a section")?),
            id::BUFFER_TEXT if version >= 7 => TypedOption::BufferText {
                offset: c.u64("BUFFER_TEXT option")?,
                name: text(c.cstr("BUFFER_TEXT option")?),
                clock: text(c.cstr("BUFFER_TEXT option").unwrap_or_default()),
            },
            id::LAST_BOOT_INFO => TypedOption::LastBootInfo(s()),
            other => TypedOption::Unknown(other),
        })
    }
}

fn buffer(c: &mut Cursor<'_>, version: u32) -> Result<BufferOption> {
    const WHAT: &str = "BUFFER option";
    let mut b = BufferOption {
        offset: c.u64(WHAT)?,
        name: String::new(),
        clock: String::new(),
        page_size: 0,
        cpus: Vec::new(),
    };
    if version < 7 {
        b.name = string(c.rest());
        return Ok(b);
    }
    b.name = text(c.cstr(WHAT)?);
    b.clock = text(c.cstr(WHAT)?);
    b.page_size = c.u32(WHAT)?;
    let (offset, count) = (c.offset(), c.u32("count of the CPUs of a buffer")?);
    for _ in 0..count {
        b.cpus.push(BufferCpu { cpu: c.u32(WHAT)?, offset: c.u64(WHAT)?, size: c.u64(WHAT)? });
    }
    // A name that lost its end takes the count for a part of the clock: the CPUs are what is left then.
    if !c.rest().is_empty() {
        let why = "does not fit the size of the option";
        return Err(Error::BadValue { what: "count of the CPUs of a buffer", offset, value: count.into(), why });
    }
    Ok(b)
}

fn time_shift(c: &mut Cursor<'_>) -> Result<TimeShift> {
    const WHAT: &str = "TIME_SHIFT option";
    let mut t = TimeShift { peer: c.u64(WHAT)?, flags: c.u32(WHAT)?, cpus: Vec::new() };
    let numbers = |c: &mut Cursor<'_>, n: u32| -> Result<Vec<u64>> { (0..n).map(|_| c.u64(WHAT)).collect() };
    for _ in 0..c.u32(WHAT)? {
        let n = c.u32(WHAT)?;
        t.cpus.push(ShiftSamples {
            times: numbers(c, n)?,
            offsets: numbers(c, n)?.into_iter().map(|v| v as i64).collect(),
            scalings: numbers(c, n)?,
            fractions: Vec::new(),
        });
    }
    // Recorders since 3.1 append the fraction bits; older ones stop here.
    for cpu in &mut t.cpus {
        cpu.fractions = (0..cpu.times.len()).map(|_| c.u64(WHAT).unwrap_or(0)).collect();
    }
    Ok(t)
}

fn guest(c: &mut Cursor<'_>) -> Result<Guest> {
    const WHAT: &str = "GUEST option";
    let mut g = Guest { name: text(c.cstr(WHAT)?), trace_id: c.u64(WHAT)?, cpus: Vec::new() };
    for _ in 0..c.u32(WHAT)? {
        g.cpus.push((c.u32(WHAT)?, c.u32(WHAT)? as i32));
    }
    Ok(g)
}

/// The clock of a `trace_clock` text: the word in brackets, or the only word.
pub fn chosen_clock(text: &str) -> Option<&str> {
    match text.split_once('[') {
        Some((_, rest)) => rest.split_once(']').map(|(clock, _)| clock),
        None => Some(text.trim()).filter(|t| !t.is_empty() && !t.contains(char::is_whitespace)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer_option_of_version_7() {
        let mut data = 0x1000u64.to_le_bytes().to_vec(); // section
        data.extend(b"one\0mono\0"); // name, clock
        data.extend(65536u32.to_le_bytes()); // sub-buffer size
        data.extend(1u32.to_le_bytes()); // CPUs
        data.extend(3u32.to_le_bytes()); // CPU
        data.extend(0x2000u64.to_le_bytes()); // offset
        data.extend(0x300u64.to_le_bytes()); // size
        let raw = RawOption { id: id::BUFFER, data, offset: 0 };
        let TypedOption::Buffer(b) = raw.typed(Endian::Little, 7).unwrap() else { panic!() };
        assert_eq!((b.name.as_str(), b.clock.as_str(), b.page_size), ("one", "mono", 65536));
        assert_eq!(b.cpus, [BufferCpu { cpu: 3, offset: 0x2000, size: 0x300 }]);
        for n in 0..raw.data.len() {
            let cut = RawOption { data: raw.data[..n].to_vec(), ..raw };
            assert!(cut.typed(Endian::Little, 7).is_err());
        }
    }

    #[test]
    fn huge_counts_take_no_memory() {
        let mut data = 1u64.to_le_bytes().to_vec(); // peer
        data.extend(1u32.to_le_bytes()); // flags
        data.extend(u32::MAX.to_le_bytes()); // CPUs
        data.extend(u32::MAX.to_le_bytes()); // samples
        assert!(RawOption { id: id::TIME_SHIFT, data, offset: 0 }.typed(Endian::Little, 7).is_err());
    }

    #[test]
    fn clocks() {
        assert_eq!(chosen_clock("local [global] counter"), Some("global"));
        assert_eq!(chosen_clock("mono\n"), Some("mono"));
        assert_eq!(chosen_clock(""), None);
    }
}
