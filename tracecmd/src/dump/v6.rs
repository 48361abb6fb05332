//! Version 6: parts in file order.

use std::io::Write;

use anyhow::bail;
use trace_dat::{
    cursor::{Cursor, FileCursor},
    read::{
        header::Header,
        option::{RawOption, id},
    },
    source::Source,
};

use super::{Out, Parts, events, ftrace_events, headers, option, sized};

pub(super) fn dump(source: &Source, header: &Header, parts: Parts, out: &mut Out<'_>) -> anyhow::Result<()> {
    let mut f = FileCursor::new(source, header.end, header.endian);
    let endian = header.endian;

    // How far each part reaches, then its text from memory.
    let part = |f: &mut FileCursor<'_>,
                skip: &dyn Fn(&mut FileCursor<'_>) -> trace_dat::Result<()>|
     -> trace_dat::Result<(Vec<u8>, u64)> {
        let start = f.offset();
        skip(f)?;
        Ok((source.read_vec("metadata", start, f.offset() - start)?, start))
    };
    let (b, at) = part(&mut f, &|f| {
        for _ in 0..2 {
            f.cstr("name of a header text")?;
            let n = f.u64("size of a header text")?;
            f.skip("header text", n)?;
        }
        Ok(())
    })?;
    headers(&mut Cursor::new(&b, at, endian), parts, out)?;
    let (b, at) = part(&mut f, &skip_formats)?;
    ftrace_events(&mut Cursor::new(&b, at, endian), parts, out)?;
    let (b, at) = part(&mut f, &|f| {
        for _ in 0..f.u32("count of event systems")? {
            f.cstr("name of an event system")?;
            skip_formats(f)?;
        }
        Ok(())
    })?;
    events(&mut Cursor::new(&b, at, endian), parts, out)?;
    for (title, width, shown) in [
        ("Kallsyms", 4, parts.kallsyms),
        ("Trace printk", 4, parts.printk),
        ("Saved command lines", 8, parts.cmd_lines),
    ] {
        let (b, at) = part(&mut f, &|f| {
            let n = if width == 4 { f.u32(title)?.into() } else { f.u64(title)? };
            f.skip(title, n).map(drop)
        })?;
        sized(&mut Cursor::new(&b, at, endian), (title, width), shown, parts.summary, out)?;
    }
    let cpus = f.u32("count of CPUs")?;
    if parts.summary {
        writeln!(out, "\t{cpus} [CPUs with tracing data]")?;
    }
    let mut first = true;
    loop {
        let at = f.offset();
        let tag = match f.bytes::<10>("kind of trace data") {
            Ok(tag) => tag,
            Err(e) if first => return Err(e.into()),
            Err(_) => return Ok(()),
        };
        match &tag {
            b"options  \0" => options(&mut f, header, parts, out)?,
            b"flyrecord\0" => flyrecord(&mut f, cpus, parts, out)?,
            b"latency  \0" => {
                if parts.summary {
                    writeln!(out, "\t[Latency tracing data]")?;
                }
                return Ok(());
            }
            // Behind the top buffer's table, padding comes or the table of an instance.
            _ if !first => return Ok(()),
            _ => bail!("what follows the CPU count at {at:#x} is neither options nor trace data"),
        }
        first = false;
    }
}

fn skip_formats(f: &mut FileCursor<'_>) -> trace_dat::Result<()> {
    for _ in 0..f.u32("count of event formats")? {
        let n = f.u64("size of an event format")?;
        f.skip("event format", n)?;
    }
    Ok(())
}

fn options(f: &mut FileCursor<'_>, header: &Header, parts: Parts, out: &mut Out<'_>) -> anyhow::Result<()> {
    let mut count = 0;
    loop {
        let id = f.u16("option")?;
        if id == id::DONE {
            break;
        }
        count += 1;
        let size = f.u32("size of an option")?;
        let offset = f.skip("option", size.into())?;
        let data = f.source().read_vec("option", offset, size.into())?;
        let o = RawOption { id, data, offset };
        if id == id::BUFFER {
            buffer(&o, header, parts, out)?;
        } else if !option::option(&o, header.endian, 6, parts, out)? {
            option::unknown(&o, parts, out)?;
        }
    }
    if parts.options || parts.summary {
        writeln!(out, "\t[{count} options]")?;
    }
    Ok(())
}

fn buffer(o: &RawOption, header: &Header, parts: Parts, out: &mut Out<'_>) -> anyhow::Result<()> {
    if !parts.options && !parts.flyrecord {
        return Ok(());
    }
    let mut c = Cursor::new(&o.data, o.offset, header.endian);
    writeln!(out, "\t\t[Option BUFFER, {} bytes]", o.data.len())?;
    writeln!(out, "{} [offset]", c.u64("BUFFER option")?)?;
    out.write_all(b"\"")?;
    out.write_all(c.rest().split(|b| *b == 0).next().unwrap_or_default())?;
    out.write_all(b"\" [name]\n")?;
    Ok(())
}

fn flyrecord(f: &mut FileCursor<'_>, cpus: u32, parts: Parts, out: &mut Out<'_>) -> anyhow::Result<()> {
    if parts.flyrecord || parts.summary {
        writeln!(out, "\t[Flyrecord tracing data]")?;
    }
    let number = |n: u64| if n == 0 { String::new() } else { n.to_string() };
    for cpu in 0..cpus {
        let offset = f.u64("offset of a CPU's data")?;
        let size = f.u64("size of a CPU's data")?;
        if parts.flyrecord {
            writeln!(out, "\t {:>10} {:>10}\t[offset, size of cpu {cpu}]", number(offset), number(size))?;
        }
    }
    let shown = parts.clock || parts.summary;
    if shown {
        writeln!(out, "\t[Tracing clock]")?;
    }
    // Files from before 2.0 have no clock here: what follows is padding.
    let size = f.u64("size of the clock").unwrap_or(0);
    let rest = f.source().len().saturating_sub(f.offset());
    let (mut clock, at) = (Vec::new(), f.offset());
    if size > 0 && size <= rest.min(1 << 20) {
        f.skip("clock", size)?;
        clock = f.source().read_vec("clock", at, size)?;
    }
    if clock.first() != Some(&b'[') {
        clock = b" No tracing clock saved in the file".to_vec();
    }
    if shown {
        out.write_all(b"\t\t")?;
        super::text(out, &clock, "clock", at)?;
    }
    Ok(())
}
