//! Version 7: sections, options, and what the options point to.

use std::{collections::HashSet, io::Write};

use anyhow::bail;
use trace_dat::{
    compress::Decompressor,
    cursor::Cursor,
    read::{
        header::Header,
        option::{RawOption, TypedOption, id as opt},
        section::{HEADER_LEN, Section, id},
    },
    source::Source,
};

use super::{Out, Parts, events, ftrace_events, headers, option, sized};

struct Dump<'a> {
    source: &'a Source,
    header: &'a Header,
    strings: Vec<u8>,
    parts: Parts,
}

pub(super) fn dump(source: &Source, header: &Header, parts: Parts, out: &mut Out<'_>) -> anyhow::Result<()> {
    let mut d = Dump { source, header, strings: Vec::new(), parts };
    let sections = d.sections(out)?;
    if parts.sections {
        for s in &sections {
            d.section_line(s, out)?;
        }
    }
    let found = d.options(out)?;
    for section in found.iter().rev() {
        d.content(section, out)?;
    }
    let shown = |s: &Section| matches!(s.id, id::HEADER_INFO..=id::CMDLINES | id::MODULES);
    for s in sections.iter().filter(|s| shown(s) && !found.iter().any(|f| f.offset == s.offset)) {
        out.cut.push(format!("section {} at {:#x}: no option leads to it; left out: its content", s.id, s.offset));
    }
    if parts.summary || parts.sections {
        writeln!(out, "\t[{} sections]", sections.len())?;
    }
    Ok(())
}

impl Dump<'_> {
    /// Walks the sections one behind the other and gathers their names.
    fn sections(&mut self, out: &mut Out<'_>) -> anyhow::Result<Vec<Section>> {
        let (mut at, mut sections) = (self.header.end, Vec::new());
        while at < self.source.len() {
            let s = Section::read(self.source, self.header.endian, at)?;
            if s.id == id::STRINGS {
                let strings = self.read(&s)?;
                if self.parts.strings {
                    writeln!(out, "\t[String @ offset]")?;
                    let mut start = 0;
                    for name in strings.split_inclusive(|b| *b == 0) {
                        out.write_all(b"\t\t\"")?;
                        out.write_all(name.strip_suffix(b"\0").unwrap_or(name))?;
                        writeln!(out, "\" @ {}", self.strings.len() + start)?;
                        start += name.len();
                    }
                }
                self.strings.extend(strings);
            }
            at = s.end();
            sections.push(s);
        }
        if at > self.source.len() {
            bail!("the last section reaches to {at:#x}, the file ends at {:#x}", self.source.len());
        }
        Ok(sections)
    }

    /// Name of a section.
    fn name(&self, s: &Section) -> String {
        let rest = self.strings.get(s.desc as usize..).unwrap_or_default();
        String::from_utf8_lossy(rest.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
    }

    fn section_line(&self, s: &Section, out: &mut Out<'_>) -> anyhow::Result<()> {
        let name = self.name(s);
        if !(matches!(s.id, id::OPTIONS | id::BUFFER | 15..=23 | 25)) {
            write!(out, "Unknown section id {}: {name}", s.id)?;
        }
        write!(out, "\t[Section {:2} @ {:<16}\t\"{name}\", flags 0x{:x}, ", s.id, s.offset, s.flags)?;
        if !s.compressed() {
            writeln!(out, "{} bytes]", s.size)?;
        } else if matches!(s.id, id::BUFFER | id::BUFFER_TEXT) {
            writeln!(out, "{} compressed bytes]", s.size)?;
        } else {
            let mut b = [0; 8];
            self.source.read_exact_at("section", s.data(), &mut b)?;
            let mut c = Cursor::new(&b, s.data(), self.header.endian);
            writeln!(out, "{} compressed, {} uncompressed]", c.u32("section")?, c.u32("section")?)?;
        }
        Ok(())
    }

    /// The line over the content of a section.
    fn title(&self, s: &Section, out: &mut Out<'_>) -> anyhow::Result<()> {
        writeln!(
            out,
            "\t[Section {} @ {}: \"{}\", flags 0x{:x}, {} bytes]",
            s.id,
            s.offset,
            self.name(s),
            s.flags,
            s.size
        )?;
        Ok(())
    }

    /// The content of a section, unpacked.
    fn read(&self, s: &Section) -> anyhow::Result<Vec<u8>> {
        if !s.compressed() {
            return Ok(self.source.read_vec("section", s.data(), s.size)?);
        }
        let mut b = [0; 8];
        self.source.read_exact_at("section", s.data(), &mut b)?;
        let mut c = Cursor::new(&b, s.data(), self.header.endian);
        let (packed, unpacked) = (c.u32("section")?, c.u32("section")?);
        let bytes = self.source.read_vec("section", s.data() + 8, packed.into())?;
        Ok(Decompressor::new().unpack_vec(self.header.codec, s.data() + 8, &bytes, unpacked.into())?)
    }

    /// Follows the chain of options; the sections they point to, in their order.
    fn options(&self, out: &mut Out<'_>) -> anyhow::Result<Vec<Section>> {
        let (mut next, mut seen, mut count, mut found) = (self.header.options_offset, HashSet::new(), 0, Vec::new());
        while next != 0 {
            if !seen.insert(next) {
                bail!("the options at {next:#x} come twice: their chain is a circle");
            }
            let s = Section::read(self.source, self.header.endian, next)?;
            if s.id != id::OPTIONS {
                bail!("the section at {next:#x} has id {} instead of options", s.id);
            }
            if self.parts.options {
                self.title(&s, out)?;
            }
            let data = self.read(&s)?;
            let mut c = Cursor::new(&data, s.offset + HEADER_LEN, self.header.endian);
            loop {
                let id = c.u16("option")?;
                let size = c.u32("size of an option")?;
                let offset = c.offset();
                let o = RawOption { id, data: c.bytes("option", size.into())?.to_vec(), offset };
                count += 1;
                if id == opt::DONE {
                    next = Cursor::new(&o.data, offset, self.header.endian).u64("DONE option")?;
                    if self.parts.options {
                        writeln!(out, "\t\t[Option DONE, {size} bytes]\n{next}")?;
                        if next != 0 {
                            out.write_all(b"\n\n")?;
                        }
                    }
                    break;
                }
                self.option(&o, &mut found, out)?;
            }
        }
        if self.parts.options || self.parts.summary {
            writeln!(out, "\t[{count} options]")?;
        }
        Ok(found)
    }

    fn option(&self, o: &RawOption, found: &mut Vec<Section>, out: &mut Out<'_>) -> anyhow::Result<()> {
        let title = match o.id {
            id::HEADER_INFO => "HEADERS",
            id::FTRACE_EVENTS => "FTRACE EVENTS",
            id::EVENT_FORMATS => "EVENT FORMATS",
            id::KALLSYMS => "KALLSYMS",
            id::PRINTK => "PRINTK",
            id::CMDLINES => "CMDLINES",
            id::MODULES => "MODULES_FILE",
            opt::BUFFER | opt::BUFFER_TEXT => return self.buffer(o, out),
            _ => {
                if !option::option(o, self.header.endian, self.header.version, self.parts, out)? {
                    option::unknown(o, self.parts, out)?;
                }
                return Ok(());
            }
        };
        let at = Cursor::new(&o.data, o.offset, self.header.endian).u64("place of a section")?;
        if self.parts.options {
            writeln!(out, "\t\t[Option {title}, {} bytes] @ {at}", o.data.len())?;
        }
        let s = Section::read(self.source, self.header.endian, at)?;
        if s.id != o.id {
            bail!("the section at {at:#x} has id {} instead of {}", s.id, o.id);
        }
        found.push(s);
        Ok(())
    }

    fn buffer(&self, o: &RawOption, out: &mut Out<'_>) -> anyhow::Result<()> {
        let (offset, name, clock, data) = match o.typed(self.header.endian, self.header.version)? {
            TypedOption::Buffer(b) => (b.offset, b.name, b.clock, Some((b.page_size, b.cpus))),
            TypedOption::BufferText { offset, name, clock } => (offset, name, clock, None),
            _ => return Ok(()),
        };
        if self.parts.flyrecord {
            self.title(&Section::read(self.source, self.header.endian, offset)?, out)?;
        }
        if self.parts.options || self.parts.flyrecord {
            writeln!(out, "\t\t[Option BUFFER, {} bytes]", o.data.len())?;
            writeln!(out, "{offset} [offset]\n\"{name}\" [name]\n\"{clock}\" [clock]")?;
            if let Some((page_size, cpus)) = &data {
                writeln!(out, "{page_size} [Page size, bytes]\n{} [CPUs]:", cpus.len())?;
                for c in cpus {
                    writeln!(out, "   {} {}\t{}\t[id, data offset and size]", c.cpu, c.offset, c.size)?;
                }
            }
        }
        if self.parts.summary {
            write!(out, "\t[buffer \"{name}\", \"{clock}\" clock, ")?;
            match &data {
                Some((page_size, cpus)) => {
                    let bytes = cpus.iter().fold(0u64, |n, c| n.wrapping_add(c.size));
                    let n = cpus.len();
                    writeln!(out, "{page_size} page size, {n} cpus, {bytes} bytes flyrecord data]")?;
                }
                None => writeln!(out, "latency data]")?,
            }
        }
        Ok(())
    }

    fn content(&self, s: &Section, out: &mut Out<'_>) -> anyhow::Result<()> {
        let p = self.parts;
        let shown = match s.id {
            id::HEADER_INFO => p.head_page || p.head_event,
            id::FTRACE_EVENTS => p.ftrace_events,
            id::EVENT_FORMATS => p.events || p.systems,
            id::KALLSYMS => p.kallsyms,
            id::PRINTK => p.printk,
            id::CMDLINES => p.cmd_lines,
            id::MODULES => p.modules,
            _ => return Ok(()),
        };
        if !shown && !p.summary {
            return Ok(());
        }
        if shown {
            self.title(s, out)?;
        }
        let data = self.read(s)?;
        let base = if s.compressed() { s.offset } else { s.data() };
        out.unpacked = s.compressed().then_some(base);
        let mut c = Cursor::new(&data, base, self.header.endian);
        match s.id {
            id::HEADER_INFO => headers(&mut c, p, out)?,
            id::FTRACE_EVENTS => ftrace_events(&mut c, p, out)?,
            id::EVENT_FORMATS => events(&mut c, p, out)?,
            id::KALLSYMS => sized(&mut c, ("Kallsyms", 4), shown, p.summary, out)?,
            id::PRINTK => sized(&mut c, ("Trace printk", 4), shown, p.summary, out)?,
            id::CMDLINES => sized(&mut c, ("Saved command lines", 8), shown, p.summary, out)?,
            _ => {
                writeln!(out, "\t[Saved modules]")?;
                let text = data.split(|b| *b == 0).next().unwrap_or_default();
                let rest = data.get(text.len()..).unwrap_or_default();
                if rest.iter().any(|b| *b != 0) {
                    out.cut.push(format!(
                        "modules at {:#x}: a NUL in them; left out: {} bytes behind it",
                        s.offset,
                        rest.len() - 1
                    ));
                }
                for _ in text.len()..data.len() {
                    out.write_all(b" ")?;
                }
                out.write_all(text)?;
                writeln!(out, "\n[{} bytes]", data.len())?;
                return Ok(());
            }
        }
        if !c.rest().is_empty() {
            let (at, left) = (c.offset(), c.rest().len());
            out.cut
                .push(format!("section {} at {:#x}: its sizes end at {at:#x}; left out: {left} bytes", s.id, s.offset));
        }
        Ok(())
    }
}
