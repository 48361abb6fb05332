//! Version 7: sections, found through the options sections that form a chain.
//!
//! Source: trace-cmd.dat.v7(5).

use std::collections::HashSet;

use crate::{
    Error, Result,
    compress::Codec,
    cursor::Cursor,
    read::{
        Buffer, CPUS_MAX, CpuData, Metadata, Parsed,
        header::{Header, PageLayout},
        option::{self, BufferCpu, BufferOption, RawOption, TypedOption},
        section::{HEADER_LEN, Part, Section, id},
    },
    source::Source,
    warning::{Place, Warnings},
};

fn at(offset: u64) -> Place {
    Place { offset: Some(offset), ..Place::default() }
}

pub(super) fn read(source: &Source, header: &Header, warnings: &Warnings) -> Result<Parsed> {
    let mut parsed = Parsed::default();
    let mut visited = HashSet::new();
    let mut next = header.options_offset;
    let mut complete = true;
    while next != 0 {
        if !visited.insert(next) {
            let why = "leads back to options that came before";
            let error = Error::BadValue { what: "place of the next options", offset: next, value: next, why };
            warnings.push(at(next), error, "");
            complete = false;
            break;
        }
        match options(source, header, next, &mut parsed) {
            Ok(then) => next = then,
            Err(error) => {
                warnings.push(at(next), error, "the options from here on");
                complete = false;
                break;
            }
        }
    }
    if header.options_offset == 0 {
        let error = Error::Missing { what: "place of the options", offset: header.end.saturating_sub(8) };
        warnings.push(at(header.end.saturating_sub(8)), error, "");
        complete = false;
    }
    // What is there, whatever the options say: for a recording that was cut off, and where one of them is damaged.
    let found = scan(source, header);
    for s in found.iter().filter(|s| s.id == id::OPTIONS && !visited.contains(&s.offset)) {
        let known = parsed.options.len();
        match options(source, header, s.offset, &mut parsed) {
            Err(_) => parsed.options.truncate(known),
            Ok(_) if complete && parsed.options.len() > known => {
                let error = Error::Missing { what: "place of these options", offset: s.offset };
                warnings.push(at(s.offset), error, "");
            }
            Ok(_) => {}
        }
    }

    let mut buffers: Vec<BufferOption> = Vec::new();
    let mut texts = Vec::new();
    let mut places: Vec<(u16, u64)> = Vec::new();
    for o in &parsed.options {
        match o.typed(header.endian, header.version) {
            Ok(TypedOption::Buffer(b)) => buffers.push(b),
            Ok(TypedOption::BufferText { offset, name, clock }) => texts.push((offset, name, clock)),
            Ok(TypedOption::Section(id, offset)) => places.push((id, offset)),
            Ok(TypedOption::CpuCount(n)) if n > CPUS_MAX => {
                warnings.push(at(o.offset), too_many("count of CPUs", o.offset, n), "this option");
            }
            Ok(TypedOption::CpuCount(n)) => parsed.cpu_count = Some(n),
            Ok(_) => {}
            Err(error) => warnings.push(at(o.offset), error, "this option"),
        }
    }
    for s in found.iter().filter(|s| matches!(s.id, id::HEADER_INFO..=id::CMDLINES | id::BTF | id::MODULES)) {
        if places.contains(&(s.id, s.offset)) {
            continue;
        }
        // Without compression no option may point to it, see `TraceFile::btf`.
        if complete && (s.id != id::BTF || header.codec != Codec::None) {
            warnings.push(at(s.offset), Error::Missing { what: "option of this section", offset: s.offset }, "");
        }
        places.push((s.id, s.offset));
    }
    for (id, offset) in places {
        if let Err(error) = place(source, header, &mut parsed, id, offset) {
            warnings.push(at(offset), error, "this section");
        }
    }
    parsed.layout = PageLayout::parse(&parsed.meta.header_page, header.long_size);

    for b in buffers {
        let section = section_of(source, header, b.offset, id::BUFFER);
        let packed = match &section {
            Ok(s) => s.compressed(),
            Err(_) => header.codec != Codec::None,
        };
        let place = || Place { buffer: Some(b.name.clone()), ..at(b.offset) };
        match section {
            Ok(s) => check_places(header, &b, &s, &place, warnings),
            Err(error) => warnings.push(place(), error, ""),
        }
        let usual = match parsed.layout.subbuf_size {
            0 => header.page_size.into(),
            n => n,
        };
        let subbuf_size = match u64::from(b.page_size) {
            0 => usual,
            n if n.is_power_of_two() => n,
            value => {
                let why = "is no power of two";
                let error = Error::BadValue { what: "sub-buffer size of a buffer", offset: b.offset, value, why };
                warnings.push(Place { buffer: Some(b.name.clone()), ..at(b.offset) }, error, "");
                usual
            }
        };
        let mut buffer = Buffer::new(b.name, subbuf_size, b.offset);
        buffer.clock = Some(b.clock).filter(|c| !c.is_empty());
        let cpus = with_numbers(b.cpus, &buffer.name, warnings);
        buffer.cpus =
            cpus.into_iter().map(|c| CpuData { cpu: c.cpu, offset: c.offset, size: c.size, packed }).collect();
        parsed.buffers.push(buffer);
    }
    // The option of a buffer may have been damaged into another: its section tells.
    for s in found.iter().filter(|s| s.id == id::BUFFER) {
        let inside = |c: &CpuData| c.size > 0 && (s.offset..s.end()).contains(&c.offset);
        if !parsed.buffers.iter().any(|b| b.offset == s.offset || b.cpus.iter().any(inside)) {
            super::salvage::buffer(source, header, &mut parsed, s, warnings);
        }
    }
    for (offset, name, clock) in texts {
        match section_of(source, header, offset, id::BUFFER_TEXT) {
            Ok(s) => {
                let part = Part::section(source, header.endian, header.codec, "latency trace", &s);
                parsed.texts.push((name, part));
                let _ = clock;
            }
            Err(error) => {
                warnings.push(Place { buffer: Some(name), ..at(offset) }, error, "this latency trace");
            }
        }
    }
    // The top buffer first: it is the one without a name.
    parsed.buffers.sort_by_key(|b| !b.name.is_empty());
    if parsed.cpu_count.is_none() {
        parsed.cpu_count = parsed.buffers.iter().flat_map(|b| &b.cpus).map(|c| c.cpu.saturating_add(1)).max();
    }
    Ok(parsed)
}

fn too_many(what: &'static str, offset: u64, value: u32) -> Error {
    Error::BadValue { what, offset, value: value.into(), why: "is more than any machine has" }
}

/// The data of a buffer's CPUs fill its section, one behind the other, each aligned to a page or a sub-buffer. Where they do not,
/// a place or a size is wrong, and what is there may be left out.
fn check_places(header: &Header, b: &BufferOption, s: &Section, place: &dyn Fn() -> Place, warnings: &Warnings) {
    // A section that was not finished has no size yet.
    if s.size == 0 {
        return;
    }
    let unit = u64::from(b.page_size.max(header.page_size)).max(1);
    let mut cpus: Vec<&BufferCpu> = b.cpus.iter().filter(|c| c.size > 0).collect();
    cpus.sort_by_key(|c| c.offset);
    // Some recorders leave the count of chunks out of the size of compressed data.
    const COUNT: u64 = 4;
    let mut pos = s.data();
    for c in cpus {
        let what = "place of a CPU's data";
        let place = || Place { cpu: Some(c.cpu), offset: Some(c.offset), ..place() };
        let end = c.offset.saturating_add(c.size);
        if c.offset < pos || end > s.end().saturating_add(COUNT) {
            let why = "is not inside its buffer's section, behind the data of the CPU before it";
            warnings.push(place(), Error::BadValue { what, offset: b.offset, value: c.offset, why }, "");
        } else if pos.saturating_add(COUNT).checked_next_multiple_of(unit).is_some_and(|next| c.offset > next) {
            let error = Error::BadValue { what, offset: b.offset, value: c.offset, why: "leaves room before it" };
            warnings.push(place(), error, "what lies there");
        }
        pos = pos.max(end);
    }
    if s.end().saturating_sub(pos) > COUNT {
        let why = "is where the data of its CPUs end, and its section goes on";
        let error = Error::BadValue { what: "size of a buffer's data", offset: b.offset, value: pos, why };
        warnings.push(place(), error, "what lies behind them");
    }
}

/// The CPUs of a buffer. One whose number cannot be right gets the first that is free: its data may be good.
fn with_numbers(mut cpus: Vec<BufferCpu>, buffer: &str, warnings: &Warnings) -> Vec<BufferCpu> {
    let mut used: HashSet<u32> = cpus.iter().map(|c| c.cpu).collect();
    let mut free = 0;
    for c in cpus.iter_mut().filter(|c| c.cpu >= CPUS_MAX) {
        while !used.insert(free) {
            free += 1;
        }
        let place = Place { buffer: Some(buffer.to_owned()), cpu: Some(free), ..at(c.offset) };
        warnings.push(place, too_many("number of a CPU", c.offset, c.cpu), "");
        c.cpu = free;
    }
    cpus
}

fn section_of(source: &Source, header: &Header, offset: u64, id: u16) -> Result<Section> {
    let s = Section::read(source, header.endian, offset)?;
    if s.id != id {
        let why = "is not the id of the section that should be here";
        return Err(Error::BadValue { what: "section header", offset, value: s.id.into(), why });
    }
    Ok(s)
}

/// Adds the options of the section at `offset`; where the next one lies, 0 if there is none.
fn options(source: &Source, header: &Header, offset: u64, parsed: &mut Parsed) -> Result<u64> {
    let s = section_of(source, header, offset, id::OPTIONS)?;
    let part = Part::section(source, header.endian, header.codec, "options section", &s);
    let data = part.read()?;
    let base = if s.compressed() { 0 } else { s.data() };
    let mut c = Cursor::new(&data, base, header.endian);
    loop {
        let id = c.u16("option")?;
        let size = c.u32("size of an option")?;
        let at = c.offset();
        let data = c.bytes("option", size.into())?;
        if id == option::id::DONE {
            let (need, have) = (8, data.len() as u64);
            let missing = Error::Truncated { what: "end of the options", offset: at, need, have };
            return header.endian.uint(data, 0, 8).ok_or(missing);
        }
        parsed.options.push(RawOption { id, data: data.to_vec(), offset: at });
    }
}

/// Takes note of a metadata section.
fn place(source: &Source, header: &Header, parsed: &mut Parsed, id: u16, offset: u64) -> Result<()> {
    let meta: &mut Metadata = &mut parsed.meta;
    let (slot, what) = match id {
        id::HEADER_INFO => {
            if !meta.header_page.is_empty() || !meta.header_event.is_empty() {
                return Ok(());
            }
            let s = section_of(source, header, offset, id)?;
            let part = Part::section(source, header.endian, header.codec, "header info", &s);
            return header_info(&part.read()?, header, meta);
        }
        id::FTRACE_EVENTS => (&mut meta.ftrace_events, "ftrace event formats"),
        id::EVENT_FORMATS => (&mut meta.event_formats, "event formats"),
        id::KALLSYMS => (&mut meta.kallsyms, "kallsyms"),
        id::PRINTK => (&mut meta.printk, "printk formats"),
        id::CMDLINES => (&mut meta.cmdlines, "command lines"),
        id::BTF => (&mut meta.btf, "BTF"),
        id::MODULES => (&mut meta.modules, "modules"),
        _ => return Ok(()),
    };
    if slot.is_none() {
        let s = section_of(source, header, offset, id)?;
        *slot = Some(Part::section(source, header.endian, header.codec, what, &s));
    }
    Ok(())
}

fn header_info(data: &[u8], header: &Header, meta: &mut Metadata) -> Result<()> {
    let mut c = Cursor::new(data, 0, header.endian);
    for (what, to) in [("header_page", &mut meta.header_page), ("header_event", &mut meta.header_event)] {
        let offset = c.offset();
        if c.cstr(what)? != what.as_bytes() {
            return Err(Error::Missing { what, offset });
        }
        let size = c.u64(what)?;
        *to = c.bytes(what, size)?.to_vec();
    }
    Ok(())
}

/// All sections, found by going from one to the next. The last may reach beyond the end of the file.
pub(super) fn scan(source: &Source, header: &Header) -> Vec<Section> {
    let mut found: Vec<Section> = Vec::new();
    let mut offset = header.end;
    while let Some(s) = probe(source, header, offset).or_else(|| unknown(source, header, offset)) {
        let end = s.end();
        found.push(s);
        if end > source.len() {
            break;
        }
        // Some recorders leave the count of chunks out of the size of a buffer's section.
        offset = match s.id {
            id::BUFFER if probe(source, header, end).or_else(|| unknown(source, header, end)).is_none() => {
                end.saturating_add(4)
            }
            _ => end,
        };
    }
    found
}

/// The section at `offset` if there can be one of those that are known.
fn probe(source: &Source, header: &Header, offset: u64) -> Option<Section> {
    any(source, header, offset).filter(|s| matches!(s.id, 0 | 3 | 15..=25))
}

fn any(source: &Source, header: &Header, offset: u64) -> Option<Section> {
    if offset.checked_add(HEADER_LEN)? > source.len() {
        return None;
    }
    let s = Section::read(source, header.endian, offset).ok()?;
    (s.flags <= 1 && s.size <= u64::MAX / 4).then_some(s)
}

/// The section at `offset` if it is one of a later version: what follows it, and others like it, is known or the end of the file.
fn unknown(source: &Source, header: &Header, offset: u64) -> Option<Section> {
    const IN_A_ROW: usize = 64;
    let later = |offset| any(source, header, offset).filter(|s| s.id > id::MODULES && s.end() <= source.len());
    let first = later(offset)?;
    let mut end = first.end();
    for _ in 0..IN_A_ROW {
        if end == source.len() || probe(source, header, end).is_some() {
            return Some(first);
        }
        end = later(end)?.end();
    }
    None
}
