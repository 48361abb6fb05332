//! The text of `dump`.

mod option;
mod v6;
mod v7;

use std::{
    io::{self, Write},
    path::Path,
};

use trace_dat::{Endian, cursor::Cursor, read::header::Header, source::Source};

/// What is to be shown; each field stands for the option of its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Parts {
    pub summary: bool,
    pub head_page: bool,
    pub head_event: bool,
    pub ftrace_events: bool,
    pub systems: bool,
    pub events: bool,
    pub kallsyms: bool,
    pub printk: bool,
    pub cmd_lines: bool,
    pub options: bool,
    pub flyrecord: bool,
    pub clock: bool,
    pub modules: bool,
    pub strings: bool,
    pub sections: bool,
}

impl Parts {
    /// Adds the part of this option; an unknown name changes nothing.
    pub fn add(&mut self, option: &str) {
        let field = match option {
            "summary" => &mut self.summary,
            "head-page" => &mut self.head_page,
            "head-event" => &mut self.head_event,
            "ftrace-events" => &mut self.ftrace_events,
            "systems" => &mut self.systems,
            "events" => &mut self.events,
            "kallsyms" => &mut self.kallsyms,
            "printk" => &mut self.printk,
            "cmd-lines" => &mut self.cmd_lines,
            "options" => &mut self.options,
            "flyrecord" => &mut self.flyrecord,
            "clock" => &mut self.clock,
            "modules" => &mut self.modules,
            "strings" => &mut self.strings,
            "sections" => &mut self.sections,
            _ => return,
        };
        *field = true;
    }

    /// Everything.
    pub fn all() -> Parts {
        Parts {
            summary: true,
            head_page: true,
            head_event: true,
            ftrace_events: true,
            systems: true,
            events: true,
            kallsyms: true,
            printk: true,
            cmd_lines: true,
            options: true,
            flyrecord: true,
            clock: true,
            modules: true,
            strings: true,
            sections: true,
        }
    }
}

/// So many shortened texts are named; further ones are only counted.
const CUT_TOLD: usize = 20;

/// Where the text goes, and what was left out of it.
struct Out<'a> {
    to: &'a mut dyn Write,
    /// The section whose unpacked bytes are shown now.
    unpacked: Option<u64>,
    /// Texts of which only a part was shown.
    cut: Vec<String>,
}

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Writes the chosen parts of a file.
///
/// # Errors
/// At the first damage, when what precedes it has been written; at the end when a text was cut short by a NUL in it.
pub fn dump(source: &Source, path: &Path, parts: Parts, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut out = Out { to: out, unpacked: None, cut: Vec::new() };
    let result = everything(source, path, parts, &mut out);
    if out.cut.is_empty() {
        return result;
    }
    if let Err(e) = result {
        out.cut.push(format!("{e:#}"));
    }
    let more = out.cut.len().saturating_sub(CUT_TOLD);
    out.cut.truncate(CUT_TOLD);
    if more > 0 {
        out.cut.push(format!("and {more} more"));
    }
    anyhow::bail!("{}", out.cut.join("\n"))
}

fn everything(source: &Source, path: &Path, parts: Parts, out: &mut Out<'_>) -> anyhow::Result<()> {
    if parts.summary {
        write!(out, "\n Tracing meta data in file {}:\n\t[Initial format]\n", path.display())?;
    }
    let header = Header::read(source)?;
    if parts.summary {
        let (digit, word) = match header.endian {
            Endian::Little => (0, "Little"),
            Endian::Big => (1, "Big"),
        };
        writeln!(out, "\t\t{}\t[Version]", header.version)?;
        writeln!(out, "\t\t{digit}\t[{word} endian]")?;
        writeln!(out, "\t\t{}\t[Bytes in a long]", header.long_size.bytes())?;
        writeln!(out, "\t\t{}\t[Page size, bytes]", header.page_size)?;
        if header.version >= 7 {
            writeln!(out, "\t\t{}\t[Compression algorithm]", header.compression)?;
            writeln!(out, "\t\t{}\t[Compression version]", header.compression_version)?;
        }
    }
    match header.version {
        6 => v6::dump(source, &header, parts, out),
        _ => v7::dump(source, &header, parts, out),
    }
}

/// Writes the text at `offset` of a file, up to its first NUL, and a newline. What comes after the NUL is left out, which is noted.
fn text(out: &mut Out<'_>, bytes: &[u8], what: &str, offset: u64) -> io::Result<()> {
    let shown = bytes.split(|b| *b == 0).next().unwrap_or_default();
    let rest = bytes.get(shown.len()..).unwrap_or_default();
    if rest.iter().any(|b| *b != 0) {
        let place = match out.unpacked {
            Some(section) => format!("byte {} of what is packed at {section:#x}", offset.saturating_sub(section)),
            None => format!("{offset:#x}"),
        };
        let (at, left) = (shown.len(), rest.len() - 1);
        out.cut.push(format!("{what} at {place}: its byte {at} is NUL; left out: {left} bytes behind it"));
    }
    out.write_all(shown)?;
    out.write_all(b"\n")
}

/// `header_page` and `header_event`.
fn headers(c: &mut Cursor<'_>, parts: Parts, out: &mut Out<'_>) -> anyhow::Result<()> {
    for (title, shown) in [("page", parts.head_page), ("event", parts.head_event)] {
        c.cstr("name of a header text")?;
        let size = c.u64("size of a header text")?;
        let at = c.offset();
        let content = c.bytes("header text", size)?;
        if shown || parts.summary {
            writeln!(out, "\t[Header {title}, {size} bytes]")?;
        }
        if shown {
            text(out, content, "header text", at)?;
        }
    }
    Ok(())
}

/// Formats of the system `ftrace`.
fn ftrace_events(c: &mut Cursor<'_>, parts: Parts, out: &mut Out<'_>) -> anyhow::Result<()> {
    let count = c.u32("count of event formats")?;
    if parts.ftrace_events || parts.summary {
        writeln!(out, "\t[Ftrace format, {count} events]")?;
    }
    formats(c, count, parts.ftrace_events, out)
}

/// Formats of the other systems.
fn events(c: &mut Cursor<'_>, parts: Parts, out: &mut Out<'_>) -> anyhow::Result<()> {
    let systems = c.u32("count of event systems")?;
    if parts.events || parts.systems || parts.summary {
        writeln!(out, "\t[Events format, {systems} systems]")?;
    }
    for _ in 0..systems {
        let name = c.cstr("name of an event system")?;
        let count = c.u32("count of event formats")?;
        if parts.systems {
            out.write_all(b"\t\t")?;
            out.write_all(name)?;
            writeln!(out, " {count} [system, events]")?;
        }
        formats(c, count, parts.events, out)?;
    }
    Ok(())
}

fn formats(c: &mut Cursor<'_>, count: u32, shown: bool, out: &mut Out<'_>) -> anyhow::Result<()> {
    for _ in 0..count {
        let size = c.u64("size of an event format")?;
        let at = c.offset();
        let content = c.bytes("event format", size)?;
        if shown {
            text(out, content, "event format", at)?;
        }
    }
    Ok(())
}

/// A text behind its size, a word of `width` bytes: kallsyms, printk formats, command lines.
fn sized(
    c: &mut Cursor<'_>,
    (title, width): (&'static str, usize),
    shown: bool,
    summary: bool,
    out: &mut Out<'_>,
) -> anyhow::Result<()> {
    let size = if width == 4 { c.u32(title)?.into() } else { c.u64(title)? };
    if shown || summary {
        writeln!(out, "\t[{title}, {size} bytes]")?;
    }
    let at = c.offset();
    let content = c.bytes(title, size)?;
    if shown {
        text(out, content, title, at)?;
    }
    Ok(())
}
