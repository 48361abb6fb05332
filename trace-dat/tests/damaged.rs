//! Damaged copies of files, always the same ones: nothing panics, hangs or takes memory by a count that was not checked.
//!
//! `TRACE_DAT_SEEDS=N` sets the number of copies of each file, `TRACE_DAT_FILES=a:b` adds files.

mod support;

use std::time::{Duration, Instant};

use support::{Form, PLAIN, Rng, records};
use trace_dat::{
    Endian, LongSize, OpenOptions, TraceFile,
    compress::Codec,
    time::TimeMap,
    write::{FileVersion, RawOption},
};

/// Numbers that programs get wrong.
const BOUNDARY: [u64; 21] = [
    0,
    1,
    2,
    3,
    7,
    8,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fffe,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
    0x1000_0000,
    0x4000_0000,
];

/// A place, more often near the start or the end, where the tables are.
fn place(r: &mut Rng, len: usize) -> usize {
    let near = len.min(4096) as u64;
    (match r.below(4) {
        0 => r.below(near),
        1 => len as u64 - 1 - r.below(near),
        _ => r.below(len as u64),
    }) as usize
}

/// One damaged copy, and what was done.
fn mutate(file: &[u8], seed: u64) -> (Vec<u8>, String) {
    let mut r = Rng(seed.wrapping_mul(0x1234_5677).wrapping_add(file.len() as u64));
    let mut b = file.to_vec();
    let at = place(&mut r, b.len());
    let what = match seed % 8 {
        0 => {
            b.truncate(at);
            format!("cut off at {at:#x}")
        }
        1 | 2 => {
            let places: Vec<usize> = (0..=r.below(12)).map(|_| place(&mut r, b.len())).collect();
            places.iter().for_each(|p| b[*p] ^= 1 + r.below(255) as u8);
            format!("flipped at {places:x?}")
        }
        3 => {
            let (fill, len) = ([0, 0xff][r.below(2) as usize], r.below(1 << 14) as usize);
            let end = (at + len).min(b.len());
            b[at..end].fill(fill);
            format!("filled {at:#x}..{end:#x} with {fill:#x}")
        }
        4 | 5 => {
            let width = [2, 4, 8][r.below(3) as usize];
            let value = BOUNDARY[r.below(BOUNDARY.len() as u64) as usize];
            let bytes =
                if r.below(8) > 0 { value.to_le_bytes() } else { value.rotate_left(64 - width * 8).to_be_bytes() };
            let end = (at + width as usize).min(b.len());
            b[at..end].copy_from_slice(&bytes[..end - at]);
            format!("{value:#x} of {width} bytes at {at:#x}")
        }
        6 => {
            let len = (r.below(4096) as usize).min(b.len());
            let (from, to) = (r.below((b.len() - len + 1) as u64) as usize, at.min(b.len() - len));
            b.copy_within(from..from + len, to);
            format!("{len} bytes from {from:#x} to {to:#x}")
        }
        _ => {
            let end = (at + 1 + r.below(64) as usize).min(b.len());
            b.drain(at..end);
            format!("took out {at:#x}..{end:#x}")
        }
    };
    (b, what)
}

/// Reads everything there is; the number of records.
fn read_all(file: &TraceFile) -> u64 {
    let _ = (file.clock(), file.strings().len(), file.cpu_count());
    for s in file.sections() {
        let _ = file.section_name(s);
    }
    let meta = file.metadata();
    let _ = meta.formats();
    for part in [&meta.kallsyms, &meta.printk] {
        let _ = part.as_ref().map(|p| p.read_sized32());
    }
    for part in [&meta.cmdlines, &meta.btf, &meta.modules] {
        let _ = part.as_ref().map(|p| p.read_sized64());
    }
    file.latency_texts().iter().for_each(|(_, p)| drop(p.read()));
    let mut m = file.records(&file.time_map(true));
    let (mut n, mut sum) = (0u64, 0u64);
    while let Some(r) = m.next() {
        n += 1;
        sum = sum.wrapping_add(r.record().data.iter().map(|b| u64::from(*b)).sum());
    }
    m.seek(sum % 1_000_000);
    m.next();
    m.seek_tail(7);
    while m.next().is_some() {}
    let _ = (m.first_ts(), m.last_ts());
    for buffer in file.buffers() {
        for cpu in &buffer.cpus {
            let Ok(mut stream) = file.stream(buffer, cpu, 2) else { continue };
            while stream.next_subbuf().is_some() {
                let items = stream.current_items().map_or(0, |i| i.take(1 << 20).count());
                assert!(items < 1 << 20);
            }
            if let Some(chunks) = stream.chunks() {
                assert!(chunks.take(1 << 20).count() < 1 << 20);
            }
        }
    }
    n
}

fn files() -> Vec<(String, Vec<u8>)> {
    let cpus = [records(1500, 1000, 500, 1), records(700, 1000, 2000, 2)];
    let mut files = Vec::new();
    for (endian, long_size, version, codec) in [
        (Endian::Little, LongSize::Eight, FileVersion::V6, Codec::None),
        (Endian::Big, LongSize::Four, FileVersion::V6, Codec::None),
        (Endian::Little, LongSize::Eight, FileVersion::V7, Codec::None),
        (Endian::Little, LongSize::Eight, FileVersion::V7, Codec::Zstd),
        (Endian::Big, LongSize::Eight, FileVersion::V7, Codec::Zlib),
    ] {
        let form = Form { endian, long_size, version, codec, ..PLAIN };
        let data: Vec<_> = cpus.iter().map(|c| form.subbufs(c)).collect();
        let options =
            [RawOption::text(1, "0x1234"), RawOption::text(4, "[local] global"), RawOption::new(99, vec![1; 9])];
        files.push((format!("{form:?}"), form.file_of(&data, &options)));
    }
    for path in std::env::var("TRACE_DAT_FILES").iter().flat_map(|l| l.split(':')) {
        files.push((path.to_owned(), std::fs::read(path).expect("a file of TRACE_DAT_FILES")));
    }
    files
}

#[test]
fn damaged_files_neither_panic_nor_hang() {
    let seeds = std::env::var("TRACE_DAT_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(240);
    let (mut opened, mut silent) = (0, Vec::new());
    for (name, bytes) in files() {
        let whole = read_all(&OpenOptions::new().threads(0).open_bytes(&name, bytes.clone()).unwrap());
        assert!(whole > 0, "{name}");
        for seed in 0..seeds {
            let (damaged, what) = mutate(&bytes, seed);
            let start = Instant::now();
            let threads = usize::from(seed % 16 == 0);
            let n = OpenOptions::new().threads(threads).open_bytes(&name, damaged).map(|f| {
                opened += 1;
                let n = read_all(&f);
                (n, f.warnings().total())
            });
            assert!(start.elapsed() < Duration::from_secs(5), "{name} {seed}: {what}: {:?}", start.elapsed());
            if let Ok((n, 0)) = n
                && n < whole
                && seed % 8 == 0
            {
                silent.push(format!("{name} {seed}: {what}: {n} of {whole} records"));
            }
        }
    }
    assert!(opened > 0);
    assert!(silent.is_empty(), "records lost without a word: {silent:#?}");
}

#[test]
fn any_start_of_a_file_is_an_error_or_a_warning() {
    for (name, bytes) in files() {
        let whole = read_all(&OpenOptions::new().threads(0).open_bytes(&name, bytes.clone()).unwrap());
        for len in (0..bytes.len().min(6000)).step_by(7) {
            let Ok(file) = OpenOptions::new().threads(0).open_bytes(&name, bytes[..len].to_vec()) else { continue };
            let mut m = file.records(&TimeMap::default());
            let mut n = 0;
            while m.next().is_some() {
                n += 1;
            }
            assert!(n == whole || file.warnings().total() > 0, "{name} {len}: {n} of {whole}");
        }
    }
}

/// One byte of the tables is another: whatever is missing then was told.
#[test]
fn any_byte_of_the_tables() {
    let mut silent = Vec::new();
    for (name, bytes) in files() {
        let open = |bytes: Vec<u8>| OpenOptions::new().threads(0).open_bytes(&name, bytes);
        // Records and event formats.
        let count = |file: &TraceFile| {
            let mut m = file.records(&TimeMap::default());
            let mut n = 0;
            while m.next().is_some() {
                n += 1;
            }
            let (formats, result) = file.metadata().formats();
            (n, formats.files.len(), file.warnings().total() > 0 || result.is_err())
        };
        let file = open(bytes.clone()).unwrap();
        let whole = count(&file);
        let data: Vec<_> = file.buffers().iter().flat_map(|b| &b.cpus).map(|c| c.offset..c.offset + c.size).collect();
        // What fills up to the next page is nothing.
        let filling = |at: usize| bytes[at.saturating_sub(16)..(at + 16).min(bytes.len())].iter().all(|b| *b == 0);
        let of_data = |at: usize| data.iter().any(|d| d.contains(&(at as u64)));
        for at in (0..bytes.len()).filter(|at| !of_data(*at) && !filling(*at)) {
            let old = bytes[at];
            for new in [old ^ 1, old ^ 0x80, 0, 0xff].into_iter().filter(|new| *new != old) {
                let mut damaged = bytes.clone();
                damaged[at] = new;
                let Ok(file) = open(damaged) else { continue };
                let have = count(&file);
                if (have.0 < whole.0 || have.1 < whole.1) && !have.2 {
                    silent.push(format!("{name}: {at:#x}: {old:#x} became {new:#x}: {have:?} of {whole:?}"));
                }
            }
        }
    }
    assert!(silent.is_empty(), "{} without a word: {:#?}", silent.len(), &silent[..silent.len().min(60)]);
}
