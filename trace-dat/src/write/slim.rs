//! A small file to send with a bug report: only what its events use, on request without names.

use std::{
    collections::{BTreeSet, HashMap, HashSet, hash_map::RandomState},
    hash::BuildHasher,
    io::{Seek, Write},
};

use super::{Metadata, Payload, Writer, option::id};
use crate::{
    Decoder, Endian, Result,
    compress::Decompressor,
    format::{Event, FieldFlags},
    read::{Buffer, CpuData, TraceFile},
    ring::{
        merge::Merge,
        subbuf::{ItemKind, SubBufLayout},
    },
    warning::Warnings,
};

/// What the events of a file use.
#[derive(Debug, Default)]
pub struct Used {
    events: BTreeSet<u16>,
    pids: BTreeSet<i32>,
    /// Words that may be addresses of symbols.
    addresses: BTreeSet<u64>,
}

impl Used {
    /// Looks at all events of `file`; `progress` is called for each, with the walk that tells how far it is.
    pub fn of(file: &TraceFile, progress: &mut dyn FnMut(&Merge)) -> Used {
        let mut used = Used::default();
        let decoder = file.decoder();
        let text = plain(file, id::KALLSYMS).unwrap_or_default();
        let symbols = symbols(text.get(4..).unwrap_or_default());
        // Words below and above all symbols mean no symbol; those of per-CPU variables are small and mean none either.
        let low = symbols.iter().map(|s| s.0).find(|a| *a >= 0x1_0000).unwrap_or(u64::MAX);
        let high = symbols.last().map_or(0, |s| s.0);
        let (endian, long) = (file.endian(), file.long_size().bytes());
        let mut pid_at: HashMap<u16, Option<(usize, usize)>> = HashMap::new();
        let mut records = file.records(&file.time_map(false));
        let mut last = 0;
        loop {
            progress(&records);
            let Some(r) = records.next() else { break };
            let data = r.record().data;
            let Some(event) = endian.uint(data, 0, 2).map(|v| v as u16) else { continue };
            used.events.insert(event);
            let pid = pid_at.entry(event).or_insert_with(|| {
                let e = decoder.event(event)?;
                e.common.iter().find(|f| f.name == "common_pid").map(|f| (f.offset, f.size))
            });
            if let Some(pid) = pid.and_then(|(at, size)| endian.uint(data, at, size)) {
                used.pids.insert(pid as i32);
            }
            for at in (4..data.len()).step_by(4) {
                if let Some(word) = endian.uint(data, at, long)
                    && (low..=high).contains(&word)
                    && word != last
                {
                    last = word;
                    // One address for each symbol is enough.
                    let n = symbols.partition_point(|s| s.0 <= word);
                    used.addresses.insert(symbols.get(n.wrapping_sub(1)).map_or(word, |s| s.0));
                }
            }
        }
        used
    }
}

/// Addresses and lines of kallsyms, sorted by address; equal ones in the order of the text.
fn symbols(text: &[u8]) -> Vec<(u64, &[u8])> {
    let mut all: Vec<(u64, &[u8])> = text
        .split_inclusive(|b| *b == b'\n')
        .filter_map(|line| {
            let hex = line.split(|b| *b == b' ').next()?;
            Some((u64::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?, line))
        })
        .collect();
    all.sort_by_key(|s| s.0);
    all
}

/// The content of a section of `file`.
fn plain(file: &TraceFile, section: u16) -> Option<Vec<u8>> {
    Metadata::of(file).ok().and_then(|m| unpacked(&m, section))
}

fn unpacked(meta: &Metadata, section: u16) -> Option<Vec<u8>> {
    match &meta.get(section)?.payload {
        Payload::Plain(bytes) => Some(bytes.clone()),
        Payload::Packed { codec, bytes, unpacked, offset } => {
            Decompressor::new().unpack_vec(*codec, *offset, bytes, u64::from(*unpacked)).ok()
        }
    }
}

/// Leaves out of `meta` what the events of `file` do not use.
pub fn slim(meta: &mut Metadata, file: &TraceFile, used: &Used) {
    let decoder = file.decoder();
    let endian = file.endian();
    if let Some(bytes) = unpacked(meta, id::EVENT_FORMATS)
        && let Some(slimmed) = slim_formats(&bytes, endian, &used.events)
    {
        meta.set(id::EVENT_FORMATS, Payload::Plain(slimmed));
    }
    if let Some(bytes) = unpacked(meta, id::KALLSYMS) {
        let text = bytes.get(4..).unwrap_or_default();
        let sorted = symbols(text);
        let (first, last) = (sorted.first().map(|s| s.0), sorted.last().map(|s| s.0));
        // A print fmt may name a symbol, as those of kmem name vmemmap_base.
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let formats = used.events.iter().filter_map(|id| decoder.event(*id));
        let named: HashSet<&str> = formats.flat_map(|e| e.print_fmt.split(|c| !word(c))).collect();
        let mut kept = Vec::new();
        for line in text.split_inclusive(|b| *b == b'\n') {
            let hex = line.split(|b| *b == b' ').next().unwrap_or_default();
            let address = std::str::from_utf8(hex).ok().and_then(|h| u64::from_str_radix(h, 16).ok());
            // Of several names for an address only the one that is shown: which one that is would change with the number of symbols.
            let shown = |a| {
                let name = line.split(|b| *b == b' ').nth(2).unwrap_or_default();
                let name = name.split(|b| matches!(b, b'\t' | b'\n')).next().unwrap_or_default();
                decoder.symbols().find(a).is_none_or(|s| s.name == name)
            };
            let called = || {
                let name = line.split(|b| matches!(b, b' ' | b'\t' | b'\n')).nth(2).unwrap_or_default();
                std::str::from_utf8(name).is_ok_and(|n| named.contains(n))
            };
            let wanted = |a| used.addresses.contains(&a) || Some(a) == first || Some(a) == last;
            if address.is_none_or(|a| wanted(a) && shown(a)) || called() {
                kept.extend_from_slice(line);
            }
        }
        meta.kallsyms(kept);
    }
    if let Some(bytes) = unpacked(meta, id::CMDLINES) {
        let mut kept = Vec::new();
        for line in bytes.get(8..).unwrap_or_default().split_inclusive(|b| *b == b'\n') {
            let pid = line.split(|b| *b == b' ').next().and_then(|p| std::str::from_utf8(p).ok()?.parse().ok());
            if pid.is_none_or(|p: i32| used.pids.contains(&p)) {
                kept.extend_from_slice(line);
            }
        }
        meta.cmdlines(&kept);
    }
    // BTF tells the names of function arguments, which only some events have.
    let arguments = |e: &Event| e.fields.iter().any(|f| f.name == "args") && e.system == "ftrace";
    if !used.events.iter().filter_map(|id| decoder.event(*id)).any(arguments) {
        meta.sections.retain(|s| s.id != id::BTF_FILE);
    } else if let Some(bytes) = unpacked(meta, id::BTF_FILE) {
        let symbols = used.addresses.iter().filter_map(|a| decoder.symbols().find(*a));
        let names: HashSet<&[u8]> = symbols.map(|s| s.name).collect();
        if let Some(slimmed) = slim_btf(&bytes, endian, &names) {
            meta.btf(&slimmed);
        }
    }
    meta.sections.retain(|s| s.id != id::MODULES_FILE);
}

/// Formats of these events only.
fn slim_formats(bytes: &[u8], endian: Endian, events: &BTreeSet<u16>) -> Option<Vec<u8>> {
    let mut at = 4;
    let mut systems: Vec<(&[u8], Vec<&[u8]>)> = Vec::new();
    for _ in 0..endian.uint(bytes, 0, 4)? {
        let rest = bytes.get(at..)?;
        let name = rest.split(|b| *b == 0).next()?;
        at += name.len() + 1;
        let count = endian.uint(bytes, at, 4)?;
        at += 4;
        let mut kept = Vec::new();
        for _ in 0..count {
            let size = usize::try_from(endian.uint(bytes, at, 8)?).ok()?;
            let text = bytes.get(at + 8..)?.get(..size)?;
            at += 8 + size;
            let id = text.split(|b| *b == b'\n').find_map(|l| l.strip_prefix(b"ID:"));
            let id = id.and_then(|i| std::str::from_utf8(i).ok()?.trim().parse::<u16>().ok());
            if id.is_none_or(|i| events.contains(&i)) {
                kept.push(text);
            }
        }
        if !kept.is_empty() {
            systems.push((name, kept));
        }
    }
    let mut meta = Metadata::new(endian, 0);
    meta.event_formats(&systems);
    unpacked(&meta, id::EVENT_FORMATS)
}

/// BTF of these functions only, with the types of their arguments. Types keep their numbers: in the place of one that is left out
/// stands a declaration without a name. Structures keep their names only.
///
/// Source: Documentation/bpf/btf.rst.
fn slim_btf(bytes: &[u8], endian: Endian, functions: &HashSet<&[u8]>) -> Option<Vec<u8>> {
    const ARRAY: u64 = 3;
    const FORWARD: u64 = 7;
    const FUNC: u64 = 12;
    const FUNC_PROTO: u64 = 13;
    let number = |at: usize| endian.uint(bytes, at, 4);
    let place = |at: usize| number(at).and_then(|n| usize::try_from(n).ok());
    let head = place(4)?;
    let (types, types_len, strings) = (head + place(8)?, place(12)?, head + place(16)?);
    let name = |offset: u64| bytes.get(strings + offset as usize..)?.split(|b| *b == 0).next();
    // Where each type begins, its kind, and the size of what follows its three words; number 0 is void.
    let mut all = vec![(0, FORWARD, 0)];
    let mut at = types;
    while at < types + types_len {
        let info = number(at + 4)?;
        let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
        let more = match kind {
            1 | 14 | 17 => 4,
            ARRAY => 12,
            4 | 5 | 15 | 19 => 12 * count,
            6 | FUNC_PROTO => 8 * count,
            2 | 7..=12 | 16 | 18 => 0,
            _ => return None,
        };
        all.push((at, kind, more));
        at += 12 + more;
    }
    let mut wanted: Vec<u64> = Vec::new();
    for (n, (at, kind, _)) in (0..).zip(&all) {
        if *kind == FUNC && functions.contains(name(number(*at)?)?) {
            wanted.push(n);
        }
    }
    let mut kept = BTreeSet::new();
    while let Some(n) = wanted.pop() {
        if n == 0 || !kept.insert(n) {
            continue;
        }
        let &(at, kind, more) = all.get(usize::try_from(n).ok()?)?;
        match kind {
            2 | 8..=12 | 18 => wanted.push(number(at + 8)?),
            ARRAY => wanted.extend([number(at + 12)?, number(at + 16)?]),
            FUNC_PROTO => {
                wanted.push(number(at + 8)?);
                for p in (0..more).step_by(8) {
                    wanted.push(number(at + 12 + p + 4)?);
                }
            }
            _ => {}
        }
    }
    // Without any of them it stays as it is.
    let last = *kept.last()?;
    let (mut new, mut names) = (Vec::new(), vec![0]);
    let mut string = |offset: u64| -> Option<[u8; 4]> {
        if offset == 0 {
            return Some(endian.from_u32(0));
        }
        let start = names.len() as u32;
        names.extend_from_slice(name(offset)?);
        names.push(0);
        Some(endian.from_u32(start))
    };
    for (n, (at, kind, more)) in (0..).zip(&all).skip(1).take(last as usize) {
        if !kept.contains(&n) {
            new.extend([endian.from_u32(0), endian.from_u32((FORWARD as u32) << 24), endian.from_u32(0)].concat());
            continue;
        }
        new.extend(string(number(*at)?)?);
        if matches!(kind, 4 | 5) {
            new.extend(endian.from_u32(number(at + 4)? as u32 & !0xffff));
            new.extend(bytes.get(at + 8..at + 12)?);
            continue;
        }
        new.extend(bytes.get(at + 4..at + 12)?);
        let more = bytes.get(at + 12..at + 12 + more)?;
        match *kind {
            // Names of values and of parameters.
            6 | 19 | FUNC_PROTO => {
                for item in more.chunks_exact(if *kind == 19 { 12 } else { 8 }) {
                    new.extend(string(endian.uint(item, 0, 4)?)?);
                    new.extend(item.get(4..)?);
                }
            }
            _ => new.extend(more),
        }
    }
    let mut out = bytes.get(..4)?.to_vec();
    for n in [24, 0, new.len(), new.len(), names.len()] {
        out.extend(endian.from_u32(u32::try_from(n).ok()?));
    }
    out.extend(new);
    out.extend(names);
    Some(out)
}

/// Replaces names by others of the same length: equal ones by equal ones, for the time of one file.
#[derive(Debug, Default)]
pub struct Redactor {
    seed: RandomState,
}

impl Redactor {
    /// Another name in the place of `name`, up to its first NUL.
    pub fn name(&self, name: &mut [u8]) {
        let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
        let name = name.get_mut(..end).unwrap_or_default();
        let mut hash = self.seed.hash_one(&*name);
        for (n, b) in name.iter_mut().enumerate() {
            if n % 12 == 11 {
                hash = self.seed.hash_one(hash);
            }
            *b = b'a' + (hash % 26) as u8;
            hash /= 26;
        }
    }

    /// The names in cmdlines, uname and maps of processes.
    pub fn metadata(&self, meta: &mut Metadata) {
        if let Some(bytes) = unpacked(meta, id::CMDLINES) {
            let mut text = bytes.get(8..).unwrap_or_default().to_vec();
            for line in text.split_mut(|b| *b == b'\n') {
                if let Some(at) = line.iter().position(|b| *b == b' ') {
                    self.name(line.get_mut(at + 1..).unwrap_or_default());
                }
            }
            meta.cmdlines(&text);
        }
        meta.options.retain(|o| o.id != id::PROCMAPS);
        for o in meta.options.iter_mut().filter(|o| o.id == id::UNAME) {
            // Kernel name, host, release, machine: only the host is anybody's.
            if let Some(host) = o.data.split_mut(|b| *b == b' ').nth(1) {
                self.name(host);
            }
        }
    }

    /// The strings in a sub-buffer's events.
    pub fn subbuf(&self, decoder: &Decoder, layout: &SubBufLayout, data: &mut [u8]) {
        let mut places = Vec::new();
        if let Ok(items) = layout.items(data, 0) {
            for item in items.map_while(Result::ok).filter(|i| i.kind == ItemKind::Event) {
                let Some(event) = decoder.event_of(item.data) else { continue };
                for f in event.fields.iter().filter(|f| f.flags.contains(FieldFlags::STRING)) {
                    let (at, len) = if f.flags.contains(FieldFlags::DYNAMIC) {
                        let Some(word) = layout.endian.uint(item.data, f.offset, 4) else { continue };
                        let base = if f.flags.contains(FieldFlags::RELATIVE) { f.offset + f.size } else { 0 };
                        (base + (word & 0xffff) as usize, (word >> 16) as usize)
                    } else if f.size == 0 {
                        (f.offset, item.data.len().saturating_sub(f.offset))
                    } else {
                        (f.offset, f.size)
                    };
                    if at < item.data.len() {
                        places.push((item.data_at + at, len.min(item.data.len() - at)));
                    }
                }
            }
        }
        for (at, len) in places {
            self.name(data.get_mut(at..at + len).unwrap_or_default());
        }
    }
}

/// Copies a CPU's sub-buffers, each changed by `change`. What cannot be read is told to `warnings`.
///
/// # Errors
/// When they cannot be written.
pub fn copy_changed<W: Write + Seek>(
    writer: &mut Writer<W>,
    file: &TraceFile,
    (buffer, cpu): (&Buffer, &CpuData),
    warnings: &Warnings,
    change: &mut dyn FnMut(&SubBufLayout, &mut Vec<u8>),
) -> Result<()> {
    let mut stream = file.stream(buffer, cpu, 1)?;
    stream.set_warnings(warnings);
    let layout = stream.layout();
    let mut page = Vec::new();
    while let Some(s) = stream.next_subbuf() {
        page.clear();
        page.extend_from_slice(s.data);
        page.resize(layout.size, 0);
        change(&layout, &mut page);
        if !page.is_empty() {
            writer.sub_buffers(&page)?;
        }
    }
    Ok(())
}

/// Makes what is left of a damaged sub-buffer readable: it ends before the first damaged record, and is emptied when nothing
/// of it is left.
///
/// Gives whether anything was lost; the next sub-buffer should say so (see [`mark_lost`]).
pub fn mend(layout: &SubBufLayout, data: &mut Vec<u8>) -> bool {
    let mut end = layout.data_offset;
    let mut damaged = false;
    match layout.items(data, 0) {
        Err(_) => {
            data.clear();
            return true;
        }
        Ok(items) => {
            for item in items {
                match item {
                    Ok(i) => end = i.at + i.size,
                    Err(_) => damaged = true,
                }
            }
        }
    }
    if end == layout.data_offset {
        // Nothing of it is left, or nothing ever was in it.
        data.clear();
        return true;
    }
    if damaged {
        set_commit(layout, data, |_| (end - layout.data_offset) as u64);
        data.get_mut(end..).unwrap_or_default().fill(0);
    }
    damaged
}

/// Says in a sub-buffer's header that events before it were lost, nobody knows how many.
pub fn mark_lost(layout: &SubBufLayout, data: &mut [u8]) {
    use crate::ring::subbuf::{RB_MISSED_EVENTS, RB_MISSED_STORED};
    set_commit(
        layout,
        data,
        |c| if c & RB_MISSED_EVENTS == 0 { (c | RB_MISSED_EVENTS) & !RB_MISSED_STORED } else { c },
    );
}

fn set_commit(layout: &SubBufLayout, data: &mut [u8], change: impl FnOnce(u64) -> u64) {
    let word = layout.commit_size.bytes();
    let Some(old) = layout.endian.uint(data, 8, word) else { return };
    let new = change(old);
    let (short, long) = (layout.endian.from_u32(new as u32), layout.endian.from_u64(new));
    let bytes: &[u8] = if word == 4 { &short } else { &long };
    if let Some(to) = data.get_mut(8..8 + word) {
        to.copy_from_slice(bytes);
    }
}
