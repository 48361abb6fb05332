//! Options: small tagged values that describe a recording.
//!
//! On disk an option is u16 id, u32 size and its bytes, in file byte order. Version 6 files have one list of them before the
//! data; version 7 files have sections of them, each ended by a DONE option with the offset of the next section.
//!
//! Source: trace-cmd.dat.v6(5), trace-cmd.dat.v7(5).

use crate::endian::Endian;

/// The ids that the format pages name.
pub mod id {
    /// Ends a section of options; version 7: u64 offset of the next one, 0 = none.
    pub const DONE: u16 = 0;
    /// Wall-clock offset as text, `0x…` microseconds.
    pub const DATE: u16 = 1;
    /// Text of `per_cpu/cpuN/stats` behind `CPU: N`, or the title of an instance's.
    pub const CPUSTAT: u16 = 2;
    /// A buffer and its CPUs.
    pub const BUFFER: u16 = 3;
    /// Text of `trace_clock`.
    pub const TRACECLOCK: u16 = 4;
    /// `sysname nodename release machine`.
    pub const UNAME: u16 = 5;
    /// Event pairs of `record -H`.
    pub const HOOK: u16 = 6;
    /// Text of `--ts-offset`.
    pub const OFFSET: u16 = 7;
    /// u32: CPUs of the machine.
    pub const CPUCOUNT: u16 = 8;
    /// Version of the recording program.
    pub const VERSION: u16 = 9;
    /// Memory maps of traced processes.
    pub const PROCMAPS: u16 = 10;
    /// u64: identifies the recording session.
    pub const TRACEID: u16 = 11;
    /// Clock differences between guest and host.
    pub const TIME_SHIFT: u16 = 12;
    /// A guest of this host recording.
    pub const GUEST: u16 = 13;
    /// u32 multiplier, u32 shift, u64 offset: TSC ticks to nanoseconds.
    pub const TSC2NSEC: u16 = 14;
    /// Section of names; found by walking the sections, not by an option.
    pub const STRINGS: u16 = 15;
    /// `header_page` and `header_event`.
    pub const HEADER_INFO: u16 = 16;
    /// Formats of `events/ftrace`.
    pub const FTRACE_EVENTS: u16 = 17;
    /// Formats of the other systems.
    pub const EVENT_FORMATS: u16 = 18;
    /// `/proc/kallsyms`.
    pub const KALLSYMS: u16 = 19;
    /// `printk_formats`.
    pub const PRINTK: u16 = 20;
    /// `saved_cmdlines`.
    pub const CMDLINES: u16 = 21;
    /// Text of a latency tracer.
    pub const BUFFER_TEXT: u16 = 22;
    /// `/sys/kernel/btf/vmlinux`.
    pub const BTF_FILE: u16 = 23;
    /// Instance name, colon, text of `last_boot_info`.
    pub const LAST_BOOT_INFO: u16 = 24;
    /// `/proc/modules`.
    pub const MODULES_FILE: u16 = 25;
}

/// An option: its id and its bytes as they stand in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawOption {
    /// What it is, see [`id`].
    pub id: u16,
    /// Its content, in file byte order.
    pub data: Vec<u8>,
}

impl RawOption {
    /// An option of these bytes.
    pub fn new(id: u16, data: impl Into<Vec<u8>>) -> Self {
        RawOption { id, data: data.into() }
    }

    /// A text option; the NUL that ends it is added.
    pub fn text(id: u16, text: impl AsRef<[u8]>) -> Self {
        let mut data = text.as_ref().to_vec();
        data.push(0);
        RawOption { id, data }
    }

    /// A 64-bit number, such as TRACEID.
    pub fn u64(id: u16, value: u64, endian: Endian) -> Self {
        RawOption { id, data: endian.from_u64(value).to_vec() }
    }

    /// TSC2NSEC: nanoseconds = (ticks * `mult`) >> `shift`.
    pub fn tsc2nsec(mult: u32, shift: u32, offset: u64, endian: Endian) -> Self {
        let mut data = endian.from_u32(mult).to_vec();
        data.extend(endian.from_u32(shift));
        data.extend(endian.from_u64(offset));
        RawOption { id: id::TSC2NSEC, data }
    }

    /// GUEST: a guest's name and trace id, and the host thread of each virtual CPU.
    pub fn guest(name: &str, trace_id: u64, vcpus: &[(u32, u32)], endian: Endian) -> Self {
        let mut data = name.as_bytes().to_vec();
        data.push(0);
        data.extend(endian.from_u64(trace_id));
        data.extend(endian.from_u32(vcpus.len() as u32));
        for &(vcpu, pid) in vcpus {
            data.extend(endian.from_u32(vcpu));
            data.extend(endian.from_u32(pid));
        }
        RawOption { id: id::GUEST, data }
    }

    /// TIME_SHIFT of a guest file.
    pub fn time_shift(shift: &TimeShift, endian: Endian) -> Self {
        let mut data = endian.from_u64(shift.peer_trace_id).to_vec();
        data.extend(endian.from_u32(shift.flags));
        data.extend(endian.from_u32(shift.cpus.len() as u32));
        for samples in &shift.cpus {
            data.extend(endian.from_u32(samples.len() as u32));
            samples.iter().for_each(|s| data.extend(endian.from_u64(s.time)));
            samples.iter().for_each(|s| data.extend(endian.from_u64(s.offset as u64)));
            samples.iter().for_each(|s| data.extend(endian.from_u64(s.scaling)));
        }
        for s in shift.cpus.iter().flatten() {
            data.extend(endian.from_u64(s.fraction_bits));
        }
        RawOption { id: id::TIME_SHIFT, data }
    }

    /// Whether it points into its file, so that it means nothing in another one; a writer makes these itself.
    pub fn is_structural(&self) -> bool {
        matches!(self.id, id::DONE | id::BUFFER | id::CPUCOUNT | id::BUFFER_TEXT | id::BTF_FILE | id::MODULES_FILE)
            || (id::STRINGS..=id::CMDLINES).contains(&self.id)
    }

    /// The options of a list as it stands in a file, up to its end or the first that is cut off.
    pub fn list(mut bytes: &[u8], endian: Endian) -> Vec<RawOption> {
        let mut all = Vec::new();
        while let Some((head, rest)) = bytes.split_first_chunk::<6>() {
            let id = endian.u16([head[0], head[1]]);
            let size = endian.u32([head[2], head[3], head[4], head[5]]);
            let Some((data, rest)) = rest.split_at_checked(size as usize).filter(|_| id != id::DONE) else { break };
            all.push(RawOption::new(id, data));
            bytes = rest;
        }
        all
    }

    /// The list of these options as it stands in a file, without an end.
    pub fn encode_list(options: &[RawOption], endian: Endian) -> Vec<u8> {
        let mut out = Vec::new();
        options.iter().for_each(|o| o.encode(endian, &mut out));
        out
    }

    /// Appends the option to a list.
    pub(super) fn encode(&self, endian: Endian, out: &mut Vec<u8>) {
        out.extend(endian.from_u16(self.id));
        out.extend(endian.from_u32(u32::try_from(self.data.len()).unwrap_or(u32::MAX)));
        out.extend_from_slice(&self.data);
    }
}

/// How a guest's clock relates to its host's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeShift {
    /// TRACEID of the host's file.
    pub peer_trace_id: u64,
    /// Bit 0: interpolate between samples.
    pub flags: u32,
    /// Samples of each guest CPU, oldest first.
    pub cpus: Vec<Vec<ShiftSample>>,
}

/// One measurement of a guest's clock: host time = ((time * scaling) >> fraction_bits) + offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShiftSample {
    /// Guest time of the measurement.
    pub time: u64,
    /// What to add, in units of the host's clock.
    pub offset: i64,
    /// Multiplier, 1 for none.
    pub scaling: u64,
    /// Right shift after the multiplication.
    pub fraction_bits: u64,
}
