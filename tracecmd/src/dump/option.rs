//! One option as text.

use std::io::Write;

use trace_dat::{
    Endian,
    cursor::Cursor,
    read::option::{RawOption, TypedOption, id},
};

use super::{Out, Parts, text};

/// Writes an option that is no buffer and no section; `false` when its number is unknown.
pub(super) fn option(
    o: &RawOption,
    endian: Endian,
    version: u32,
    parts: Parts,
    out: &mut Out<'_>,
) -> anyhow::Result<bool> {
    let size = o.data.len();
    let title = match o.id {
        id::DATE => "DATE",
        id::CPUSTAT => "CPUSTAT",
        id::TRACECLOCK => {
            if parts.options {
                writeln!(out, "\t\t[Option TRACECLOCK, {size} bytes]")?;
            }
            if parts.options || parts.clock {
                content(out, o)?;
            }
            return Ok(true);
        }
        id::UNAME => "UNAME",
        id::HOOK => "HOOK",
        id::OFFSET => "OFFSET",
        id::CPUCOUNT => "CPUCOUNT",
        id::VERSION => "VERSION",
        id::PROCMAPS => "PROCMAPS",
        id::TRACEID => "TRACEID",
        id::TIME_SHIFT => "TimeShift",
        id::GUEST => "GUEST",
        id::TSC2NSEC => "TSC2NSEC",
        id::LAST_BOOT_INFO => "LAST_BOOT_INFO",
        _ => return Ok(false),
    };
    if !parts.options {
        return Ok(true);
    }
    if o.id == id::TSC2NSEC {
        writeln!(out)?;
    }
    writeln!(out, "\t\t[Option {title}, {size} bytes]")?;
    let mut c = Cursor::new(&o.data, o.offset, endian);
    match o.id {
        id::CPUCOUNT => writeln!(out, "{}", c.u32("CPUCOUNT option")?)?,
        id::TRACEID => writeln!(out, "0x{:X}", c.u64("TRACEID option")?)?,
        id::TSC2NSEC | id::GUEST | id::TIME_SHIFT => match o.typed(endian, version)? {
            TypedOption::Tsc2Nsec(t) => {
                writeln!(out, "{} {} {} [multiplier, shift, offset]", t.mult, t.shift, t.offset)?
            }
            TypedOption::Guest(g) => {
                writeln!(out, "{} [Guest name]", g.name)?;
                writeln!(out, "0x{:X} [trace id]", g.trace_id)?;
                writeln!(out, "{} [Guest CPUs]", g.cpus.len())?;
                for (cpu, pid) in g.cpus {
                    writeln!(out, "  {cpu} {pid} [guest cpu, host pid]")?;
                }
            }
            TypedOption::TimeShift(t) => {
                writeln!(out, "0x{:X} [peer's trace id]", t.peer)?;
                writeln!(out, "0x{:X} [peer's protocol flags]", t.flags)?;
                writeln!(out, "0x{:X} [peer's CPU count]", t.cpus.len())?;
                for (n, cpu) in t.cpus.iter().enumerate() {
                    writeln!(out, "{} [samples count for CPU {n}]", cpu.times.len())?;
                }
                for cpu in &t.cpus {
                    let samples = cpu.times.iter().zip(&cpu.offsets).zip(&cpu.scalings).zip(&cpu.fractions);
                    for (((time, offset), scaling), fraction) in samples {
                        writeln!(out, "\t{offset} {scaling} {fraction} {time}[offset * scaling >> fraction @ time]")?;
                    }
                }
            }
            _ => {}
        },
        _ => content(out, o)?,
    }
    Ok(true)
}

/// The text of an option; an empty one has not even a newline.
fn content(out: &mut Out<'_>, o: &RawOption) -> std::io::Result<()> {
    if o.data.is_empty() { Ok(()) } else { text(out, &o.data, "option", o.offset) }
}

/// The line of an option that nobody knows.
pub(super) fn unknown(o: &RawOption, parts: Parts, out: &mut Out<'_>) -> std::io::Result<()> {
    if parts.options {
        writeln!(out, " {} {}\t[Unknown option, size - skipping]", o.id, o.data.len())?;
    }
    Ok(())
}
