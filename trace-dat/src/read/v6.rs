//! Version 6: one part behind the other.
//!
//! Source: trace-cmd.dat.v6(5).

use crate::{
    Error, Result,
    compress::METADATA_MAX,
    cursor::FileCursor,
    read::{
        Buffer, CPUS_MAX, CpuData, Metadata, Parsed,
        header::{Header, PageLayout, text},
        option::{RawOption, TypedOption, id},
        section::Part,
    },
    source::Source,
    warning::{Place, Warnings},
};

pub(super) fn read(source: &Source, header: &Header, warnings: &Warnings) -> Result<Parsed> {
    let endian = header.endian;
    let mut c = FileCursor::new(source, header.end, endian);
    let (meta, cpus) = match metadata(&mut c, source, header) {
        Ok(found) => found,
        Err((meta, error, formats)) => {
            // Behind a damaged size the events are found by the word that stands before them.
            let at = c.offset();
            let found = find_data(source, at);
            let Some(tag) = found else { return Err(error) };
            warnings.push(
                Place { offset: Some(at), ..Place::default() },
                error,
                "what stands before the events from here on",
            );
            let mut meta = *meta;
            meta.event_formats.get_or_insert_with(|| {
                Part::plain(source, endian, "event formats", formats, tag.saturating_sub(formats).min(METADATA_MAX))
            });
            c.seek(tag.saturating_sub(4));
            (meta, c.u32("count of CPUs").ok().filter(|n| *n <= CPUS_MAX).unwrap_or(0))
        }
    };
    let layout = PageLayout::parse(&meta.header_page, header.long_size);
    let mut parsed = Parsed { meta, layout, cpu_count: Some(cpus), ..Parsed::default() };
    let at = c.offset();
    data(&mut c, source, header, warnings, &mut parsed, (cpus, at))?;
    Ok(parsed)
}

/// Where `options` or `flyrecord` stands behind `from`.
fn find_data(source: &Source, from: u64) -> Option<u64> {
    let mut window = vec![0; 1 << 20];
    let mut at = from;
    while at < source.len() {
        let n = source.read_at(at, &mut window).ok()?;
        let found = window.get(..n)?;
        let hit = [&b"options  \0"[..], b"flyrecord\0"].iter().filter_map(|t| memchr::memmem::find(found, t)).min();
        if let Some(hit) = hit {
            return Some(at + hit as u64);
        }
        // A word may lie across two windows.
        at += (n as u64).saturating_sub(10).max(1);
    }
    None
}

/// Everything up to the count of CPUs, and that count. An error comes with what was read before, and with the place from
/// which event formats may still be found.
type Found = std::result::Result<(Metadata, u32), (Box<Metadata>, Error, u64)>;

fn metadata(c: &mut FileCursor<'_>, source: &Source, header: &Header) -> Found {
    let mut meta = Metadata::default();
    let mut formats = c.offset();
    match read_metadata(c, source, header, &mut meta, &mut formats) {
        Ok(cpus) => Ok((meta, cpus)),
        Err(error) => Err((Box::new(meta), error, formats)),
    }
}

fn read_metadata(
    c: &mut FileCursor<'_>,
    source: &Source,
    header: &Header,
    meta: &mut Metadata,
    formats: &mut u64,
) -> Result<u32> {
    let endian = header.endian;
    let part = |what, from: u64, to: u64| Some(Part::plain(source, endian, what, from, to.saturating_sub(from)));

    expect(c, "header_page")?;
    let size = c.u64("size of header_page")?;
    let at = c.skip("header_page", size)?;
    meta.header_page = Part::plain(source, endian, "header_page", at, size).read()?;
    expect(c, "header_event")?;
    let size = c.u64("size of header_event")?;
    let at = c.skip("header_event", size)?;
    meta.header_event = Part::plain(source, endian, "header_event", at, size).read()?;

    let at = c.offset();
    *formats = at;
    skip_formats(c)?;
    meta.ftrace_events = part("ftrace event formats", at, c.offset());
    let at = c.offset();
    *formats = at;
    for _ in 0..c.u32("count of event systems")? {
        c.cstr("name of an event system")?;
        skip_formats(c)?;
    }
    meta.event_formats = part("event formats", at, c.offset());
    let at = c.offset();
    let size = c.u32("size of kallsyms")?;
    c.skip("kallsyms", size.into())?;
    meta.kallsyms = part("kallsyms", at, c.offset());
    let at = c.offset();
    let size = c.u32("size of printk formats")?;
    c.skip("printk formats", size.into())?;
    meta.printk = part("printk formats", at, c.offset());
    let at = c.offset();
    let size = c.u64("size of command lines")?;
    c.skip("command lines", size)?;
    meta.cmdlines = part("command lines", at, c.offset());

    let at = c.offset();
    let cpus = c.u32("count of CPUs")?;
    if cpus > CPUS_MAX {
        let why = "is more than any machine has";
        return Err(Error::BadValue { what: "count of CPUs", offset: at, value: cpus.into(), why });
    }
    Ok(cpus)
}

/// Options and events.
fn data(
    c: &mut FileCursor<'_>,
    source: &Source,
    header: &Header,
    warnings: &Warnings,
    parsed: &mut Parsed,
    (cpus, at): (u32, u64),
) -> Result<()> {
    let (endian, layout) = (header.endian, parsed.layout);
    let mut tag = c.bytes::<10>("kind of trace data")?;
    if &tag == b"options  \0" {
        if let Err(error) = options(c, parsed) {
            let place = Place { offset: Some(c.offset()), ..Place::default() };
            let Some(fly) = find_data(source, c.offset()) else {
                warnings.push(place, error, "the options from here on, and all events");
                return Ok(());
            };
            warnings.push(place, error, "the options from here on");
            c.seek(fly);
        }
        tag = c.bytes::<10>("kind of trace data")?;
    }
    let mut lists = Vec::new();
    let mut flyrecord = |c: &mut FileCursor<'_>, name: String, tag: [u8; 10], at: u64| match &tag {
        b"flyrecord\0" => {
            let (buffer, error) = buffer(c, source, header, layout, cpus, name, at);
            lists.push((at, c.offset()));
            if let Some(error) = error {
                let place = Place { offset: Some(at), buffer: Some(buffer.name.clone()), ..Place::default() };
                warnings.push(place, error, "the CPUs behind it");
            }
            parsed.buffers.push(buffer);
            Ok(())
        }
        b"latency  \0" => {
            let size = source.len().saturating_sub(c.offset());
            parsed.texts.push((name, Part::plain(source, endian, "latency trace", c.offset(), size)));
            Ok(())
        }
        _ => {
            let what = "kind of trace data";
            let value = tag.iter().take(8).fold(0, |v, b| v << 8 | u64::from(*b));
            Err(Error::BadValue { what, offset: at, value, why: "is neither flyrecord nor latency" })
        }
    };
    flyrecord(c, String::new(), tag, at)?;
    let instances: Vec<_> = (parsed.options.iter())
        .filter(|o| o.id == id::BUFFER)
        .map(|o| o.typed(endian, header.version).map_err(|e| (o.offset, e)))
        .collect();
    for instance in instances {
        let result = match instance {
            Ok(TypedOption::Buffer(b)) => {
                c.seek(b.offset);
                let mut read = || {
                    let tag = c.bytes::<10>("kind of trace data")?;
                    flyrecord(c, b.name.clone(), tag, b.offset)
                };
                read().map_err(|e| (b.offset, Some(b.name), e))
            }
            Ok(_) => Ok(()),
            Err((offset, e)) => Err((offset, None, e)),
        };
        if let Err((offset, buffer, error)) = result {
            warnings.push(Place { offset: Some(offset), buffer, ..Place::default() }, error, "this instance");
        }
    }
    if parsed.texts.is_empty() {
        check_places(source, header, parsed, &lists, warnings);
    }
    Ok(())
}

/// Lists of CPUs and their data fill the rest of the file, one behind the other, each aligned to a page. Where they do not, a count,
/// a place or a size is wrong, and what is there may be left out.
fn check_places(source: &Source, header: &Header, parsed: &Parsed, lists: &[(u64, u64)], warnings: &Warnings) {
    let unit = parsed.layout.subbuf_size.max(header.page_size.into()).max(1);
    let mut parts: Vec<(u64, u64, Option<(&Buffer, u32)>)> = lists.iter().map(|l| (l.0, l.1, None)).collect();
    for b in &parsed.buffers {
        let cpus = b.cpus.iter().filter(|c| c.size > 0);
        parts.extend(cpus.map(|c| (c.offset, c.offset.saturating_add(c.size), Some((b, c.cpu)))));
    }
    parts.sort_by_key(|p| p.0);
    let Some(&(mut pos, ..)) = parts.first() else { return };
    for (start, end, whose) in parts {
        let (buffer, cpu) = (whose.map(|(b, _)| b.name.clone()), whose.map(|(_, cpu)| cpu));
        let place = Place { offset: Some(start), buffer, cpu, subbuf: None };
        if start < pos {
            let what = "place of a CPU's data";
            let why = "is inside what comes before it";
            warnings.push(place, Error::BadValue { what, offset: start, value: start, why }, "");
        } else if pos.checked_next_multiple_of(unit).is_some_and(|next| start > next) {
            warnings.push(place, Error::Missing { what: "data of a CPU", offset: pos }, "what lies there");
        }
        pos = pos.max(end);
    }
    if source.len() > pos {
        let place = Place { offset: Some(pos), ..Place::default() };
        warnings.push(place, Error::Missing { what: "CPU of the data", offset: pos }, "what lies there");
    }
}

fn expect(c: &mut FileCursor<'_>, what: &'static str) -> Result<()> {
    let offset = c.offset();
    if c.cstr(what)? != what.as_bytes() {
        return Err(Error::Missing { what, offset });
    }
    Ok(())
}

fn skip_formats(c: &mut FileCursor<'_>) -> Result<()> {
    for _ in 0..c.u32("count of event formats")? {
        let size = c.u64("size of an event format")?;
        c.skip("event format", size)?;
    }
    Ok(())
}

fn options(c: &mut FileCursor<'_>, parsed: &mut Parsed) -> Result<()> {
    loop {
        let id = c.u16("option")?;
        if id == id::DONE {
            return Ok(());
        }
        let size = c.u32("size of an option")?;
        let offset = c.skip("option", size.into())?;
        let data = c.source().read_vec("option", offset, size.into())?;
        parsed.options.push(RawOption { id, data, offset });
    }
}

/// The list of CPUs and the clock behind `flyrecord`; with what ended it early.
fn buffer(
    c: &mut FileCursor<'_>,
    source: &Source,
    header: &Header,
    layout: PageLayout,
    cpus: u32,
    name: String,
    at: u64,
) -> (Buffer, Option<Error>) {
    let subbuf_size = match layout.subbuf_size {
        0 => header.page_size.into(),
        n => n,
    };
    let mut buffer = Buffer::new(name, subbuf_size, at);
    let mut read = || -> Result<()> {
        for cpu in 0..cpus {
            let offset = c.u64("offset of a CPU's data")?;
            let size = c.u64("size of a CPU's data")?;
            buffer.cpus.push(CpuData { cpu, offset, size, packed: false });
        }
        Ok(())
    };
    let error = read().err();
    // Recorders before 2.8 have no clock here; the CPUs' data, or their alignment, follow.
    let end = buffer.cpus.iter().filter(|c| c.size > 0).map(|c| c.offset).min().unwrap_or(source.len());
    if error.is_none()
        && let Ok(size @ 1..=256) = c.u64("clock")
        && c.offset().saturating_add(size) <= end
        && let Ok(data) = source.read_vec("clock", c.offset(), size)
    {
        let clock = text(data.split(|b| *b == 0).next().unwrap_or_default());
        buffer.clock = super::option::chosen_clock(&clock).map(str::to_owned);
    }
    (buffer, error)
}
