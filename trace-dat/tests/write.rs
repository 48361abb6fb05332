//! Written files, looked at byte by byte with a reader of a few lines that shares no code with the crate.

use std::io::Cursor;
use trace_dat::{
    Endian, LongSize,
    compress::{Codec, Compressor, Decompressor},
    write::{BufferHead, FileHead, FileVersion, Metadata, OutputFile, RawOption, Summary, Writer, option::id},
};

fn meta(endian: Endian, cpus: u32) -> Metadata {
    let mut m = Metadata::new(endian, cpus);
    m.header_info(b"page", b"event");
    m.ftrace_events(&["name: function\nID: 1\n"]);
    m.event_formats(&[("sched", vec!["name: a\nID: 2\n", "name: b\nID: 3\n"])]);
    m.kallsyms(b"ffff0000 T _text\n".repeat(1000));
    m.printk_formats(b"");
    m.cmdlines(b"1 init\n");
    m.option(RawOption::text(id::TRACECLOCK, "[local] global"));
    m.option(RawOption::new(77, vec![1, 2, 3]));
    m
}

fn page(fill: u8, size: usize) -> Vec<u8> {
    (0..size).map(|i| fill ^ (i % 251) as u8).collect()
}

fn pages(fills: &[u8], size: usize) -> Vec<u8> {
    fills.iter().flat_map(|&f| page(f, size)).collect()
}

/// Top buffer: CPU 1 with 25 sub-buffers; instance: CPUs 0 and 2 with one each.
fn write(head: FileHead) -> (Vec<u8>, Summary) {
    let size = head.page_size as usize;
    let buffers = vec![BufferHead::new("", "local", head.page_size), BufferHead::new("two", "global", head.page_size)];
    let mut w = Writer::new(Cursor::new(Vec::new()), head, &meta(head.endian, 3), buffers).unwrap();
    w.cpu(0, 1).unwrap();
    (0..25).for_each(|n| w.sub_buffers(&page(n, size)).unwrap());
    w.cpu(1, 0).unwrap();
    w.sub_buffers(&page(100, size)).unwrap();
    w.cpu(1, 2).unwrap();
    w.sub_buffers(&page(102, size)).unwrap();
    let (out, summary) = w.finish().unwrap();
    (out.into_inner(), summary)
}

struct Bytes<'a>(&'a [u8], Endian);
impl Bytes<'_> {
    fn n(&self, at: usize, size: usize) -> usize {
        self.1.uint(self.0, at, size).unwrap() as usize
    }
    fn cstr(&self, at: usize) -> &[u8] {
        self.0[at..].split(|&b| b == 0).next().unwrap()
    }
    /// The chunks of a CPU's data, unpacked.
    fn unpack_cpu(&self, codec: Codec, offset: usize, len: usize) -> Vec<u8> {
        if codec == Codec::None {
            return self.0[offset..offset + len].to_vec();
        }
        let (mut q, mut plain) = (offset + 4, Vec::new());
        for _ in 0..self.n(offset, 4) {
            let (size, unpacked) = (self.n(q, 4), self.n(q + 4, 4));
            plain.extend(unpack(codec, &self.0[q + 8..q + 8 + size], unpacked));
            q += 8 + size;
        }
        assert_eq!(q, offset + len);
        plain
    }
}

fn unpack(codec: Codec, bytes: &[u8], unpacked: usize) -> Vec<u8> {
    let mut out = vec![0; unpacked];
    assert_eq!(Decompressor::new().unpack(codec, 0, bytes, &mut out).unwrap(), unpacked);
    out
}

fn head(version: FileVersion, endian: Endian, page_size: u32, codec: Codec) -> FileHead {
    FileHead { version, endian, long_size: LongSize::Eight, page_size, codec }
}

#[test]
fn version_7_sections_options_and_data() {
    for endian in [Endian::Little, Endian::Big] {
        for codec in [Codec::None, Codec::Zlib, Codec::Zstd] {
            let (file, summary) = write(head(FileVersion::V7, endian, 4096, codec));
            let b = Bytes(&file, endian);
            assert_eq!(&file[..12], b"\x17\x08\x44tracing7\0");
            assert_eq!(file[12..14], [u8::from(endian == Endian::Big), 8]);
            assert_eq!(b.n(14, 4), 4096);
            assert_eq!(b.cstr(18), codec.name().as_bytes());
            let version = 18 + codec.name().len() + 1;
            let start = version + b.cstr(version).len() + 1;

            // The chain of options.
            let (mut at, mut options) = (b.n(start, 8), Vec::new());
            while at != 0 {
                assert_eq!((b.n(at, 2), b.n(at + 2, 2)), (0, 0));
                let end = at + 16 + b.n(at + 8, 8);
                at += 16;
                loop {
                    let (id, size) = (b.n(at, 2), b.n(at + 2, 4));
                    at += 6 + size;
                    if id == 0 {
                        assert_eq!(at, end);
                        at = b.n(at - 8, 8);
                        break;
                    }
                    options.push((id as u16, at - size, size));
                }
            }
            let ids: Vec<u16> = options.iter().map(|o| o.0).collect();
            assert_eq!(ids, [16, 17, 18, 19, 20, 4, 77, 21, 8, 3, 3]);
            for &(id, at, _) in options.iter().filter(|o| (16..=21).contains(&o.0)) {
                assert_eq!(b.n(b.n(at, 8), 2), id as usize);
            }

            // The sections, one after the other, to the last byte.
            let (mut at, mut names, mut strings) = (start + 8, Vec::new(), Vec::new());
            while at < file.len() {
                let (id, flags, name, size) = (b.n(at, 2), b.n(at + 2, 2), b.n(at + 4, 4), b.n(at + 8, 8));
                assert_eq!(flags == 1, codec != Codec::None && id != 0, "{id}");
                names.push(name);
                let content = &file[at + 16..at + 16 + size];
                let plain = match (flags, id) {
                    (1, 3) | (0, _) => content.to_vec(),
                    _ => {
                        assert_eq!(b.n(at + 16, 4), size - 8);
                        unpack(codec, &content[8..], b.n(at + 20, 4))
                    }
                };
                match id as u16 {
                    id::KALLSYMS => assert_eq!(plain.len(), 4 + 17_000),
                    id::CMDLINES => assert!(plain.ends_with(b"1 init\n") && plain.len() == 15),
                    id::STRINGS => strings = plain,
                    _ => {}
                }
                at += 16 + size;
            }
            assert_eq!((at, at as u64), (file.len(), summary.size));
            let name = |n: usize| strings[n..].split(|&b| b == 0).next().unwrap();
            assert_eq!(name(names[0]), b"headers");
            assert_eq!(name(names[7]), b"buffer flyrecord ");
            assert_eq!(name(names[9]), b"buffer flyrecord two");
            assert_eq!(name(*names.last().unwrap()), b"strings");

            // The data.
            let top: Vec<u8> = (0..25).collect();
            let want = [vec![(1, &top[..])], vec![(0, &[100][..]), (2, &[102])]];
            for (n, (cpus, o)) in want.iter().zip(options.iter().filter(|o| o.0 == id::BUFFER)).enumerate() {
                let (name, at) = (b.cstr(o.1 + 8), o.1 + 9);
                let clock = b.cstr(at + name.len());
                assert_eq!((name, clock), [(&b""[..], &b"local"[..]), (b"two", b"global")][n]);
                let mut p = at + name.len() + clock.len() + 1;
                assert_eq!((b.n(p, 4), b.n(p + 4, 4)), (4096, cpus.len()));
                p += 8;
                for &(cpu, fills) in cpus {
                    let (offset, len) = (b.n(p + 4, 8), b.n(p + 12, 8));
                    assert_eq!((b.n(p, 4), offset % 4096), (cpu, 0));
                    let s = summary.buffers[n].cpus[cpu];
                    assert_eq!((s.offset, s.size), (offset as u64, len as u64));
                    assert_eq!(b.unpack_cpu(codec, offset, len), pages(fills, 4096));
                    if codec != Codec::None {
                        assert_eq!(b.n(offset, 4), fills.len().div_ceil(10));
                    }
                    p += 20;
                }
                assert_eq!(p, o.1 + o.2);
            }
        }
    }
}

#[test]
fn version_6_has_tables_and_aligned_data() {
    for (endian, long_size) in [(Endian::Little, LongSize::Four), (Endian::Big, LongSize::Eight)] {
        let (file, summary) = write(FileHead { long_size, ..head(FileVersion::V6, endian, 8192, Codec::None) });
        let b = Bytes(&file, endian);
        assert_eq!(&file[..12], b"\x17\x08\x44tracing6\0");
        assert_eq!(file[12..14], [u8::from(endian == Endian::Big), long_size.bytes() as u8]);
        assert_eq!(&file[18..30], b"header_page\0");
        let mut at = file.windows(10).position(|w| w == b"options  \0").unwrap();
        assert_eq!(b.n(at - 4, 4), 3);
        at += 10;
        let (mut instance, mut ids) = (0, Vec::new());
        while b.n(at, 2) != 0 {
            ids.push(b.n(at, 2));
            if b.n(at, 2) == 3 {
                assert_eq!(b.cstr(at + 14), b"two");
                instance = b.n(at + 6, 8);
            }
            at += 6 + b.n(at + 2, 4);
        }
        assert_eq!(ids, [4, 77, 3]);
        let top: Vec<u8> = (0..25).collect();
        for (table, fills) in [(at + 2, [&[][..], &top, &[]]), (instance, [&[100], &[], &[102]])] {
            assert_eq!(&file[table..table + 10], b"flyrecord\0");
            for (cpu, fills) in fills.iter().enumerate() {
                let (offset, size) = (b.n(table + 10 + 16 * cpu, 8), b.n(table + 18 + 16 * cpu, 8));
                assert_eq!(offset % 8192, 0);
                assert_eq!(file[offset..offset + size], pages(fills, 8192));
            }
        }
        assert_eq!(summary.size, file.len() as u64);
        assert_eq!(summary.buffers[0].cpus[1].unpacked, 25 * 8192);
    }
}

/// Chunks of the same codec go over as they are, others are packed anew; the content stays.
#[test]
fn chunks_pass_through() {
    let new = |to| {
        let head = head(FileVersion::V7, Endian::Little, 4096, to);
        let mut w = Writer::new(
            Cursor::new(Vec::new()),
            head,
            &meta(Endian::Little, 1),
            vec![BufferHead::new("", "local", 4096)],
        )
        .unwrap();
        w.cpu(0, 0).unwrap();
        w
    };
    for (from, to) in [(Codec::Zstd, Codec::Zstd), (Codec::Zstd, Codec::Zlib), (Codec::Zlib, Codec::None)] {
        let plain = pages(&[9; 30], 4096);
        let mut packed = Vec::new();
        Compressor::new(from).pack(&plain, &mut packed).unwrap();
        let mut w = new(to);
        w.chunk(from, 0, packed.clone(), plain.len() as u32).unwrap();
        w.sub_buffers(&page(77, 4096)).unwrap();
        w.chunk(from, 0, packed.clone(), plain.len() as u32).unwrap();
        let (file, summary) = w.finish().unwrap();
        let s = summary.buffers[0].cpus[0];
        let b = Bytes(file.get_ref(), Endian::Little);
        let got = b.unpack_cpu(to, s.offset as usize, s.size as usize);
        assert_eq!(got, [&plain[..], &page(77, 4096), &plain].concat());
        assert_eq!(got.len() as u64, s.unpacked);
        if from == to {
            assert_eq!(b.0[s.offset as usize + 12..][..packed.len()], packed);
        } else {
            // A damaged chunk is an error of the writer when it has to look inside.
            let mut w = new(to);
            packed[20..].fill(0xff);
            w.chunk(from, 0x1234, packed, plain.len() as u32).unwrap();
            assert!(w.finish().unwrap_err().to_string().contains("0x1234"));
        }
    }
}

#[test]
fn what_cannot_be_written_is_an_error() {
    let v6 = head(FileVersion::V6, Endian::Little, 4096, Codec::None);
    let top = |size| vec![BufferHead::new("", "local", size)];
    let new = |head, buffers| Writer::new(Cursor::new(Vec::new()), head, &meta(Endian::Little, 2), buffers);
    assert!(new(FileHead { codec: Codec::Zstd, ..v6 }, top(4096)).is_err(), "compressed version 6");
    assert!(new(v6, top(65536)).is_err(), "another sub-buffer size");
    let mut w = new(v6, top(4096)).unwrap();
    assert!(w.sub_buffers(&[0; 4096]).is_err(), "no CPU yet");
    w.cpu(0, 1).unwrap();
    assert!(w.sub_buffers(&[0; 4095]).is_err(), "part of a sub-buffer");
    assert!(w.cpu(0, 0).is_err(), "out of order");
    assert!(w.cpu(0, 2).is_err(), "more CPUs than said");
    assert!(w.cpu(1, 0).is_err(), "no such buffer");
}

#[test]
fn a_file_appears_only_when_complete() {
    use std::io::Write;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.dat");
    std::fs::write(&path, "old").unwrap();
    let names = || std::fs::read_dir(dir.path()).unwrap().count();
    let mut f = OutputFile::create(&path).unwrap();
    f.write_all(b"new").unwrap();
    assert_eq!(names(), 2);
    drop(f);
    assert_eq!((std::fs::read(&path).unwrap(), names()), (b"old".to_vec(), 1));
    let mut f = OutputFile::create(&path).unwrap();
    f.write_all(b"new").unwrap();
    f.commit().unwrap();
    assert_eq!((std::fs::read(&path).unwrap(), names()), (b"new".to_vec(), 1));
    assert!(OutputFile::create(dir.path()).is_err());
    assert!(OutputFile::create(dir.path().join("no/such/dir")).is_err());
    OutputFile::create("/dev/null").unwrap().commit().unwrap();
}

/// Data of two CPUs that came in turn, each through a spool, make the same file as data that came CPU by CPU.
#[test]
fn spools_make_the_same_file() {
    use trace_dat::write::Spool;
    for codec in [Codec::None, Codec::Zlib, Codec::Zstd] {
        let head = head(FileVersion::V7, Endian::Big, 4096, codec);
        let new = || {
            let buffers = vec![BufferHead::new("", "local", 4096)];
            Writer::new(Cursor::new(Vec::new()), head, &meta(Endian::Big, 2), buffers).unwrap()
        };
        let data = |cpu: u8| (0..25 + cpu).map(|n| page(n ^ cpu, 4096)).collect::<Vec<_>>();
        let mut direct = new();
        let mut spools = [0, 1].map(|_| Spool::new(Cursor::new(Vec::new()), codec, Endian::Big, 4096));
        for cpu in 0..2u8 {
            direct.cpu(0, cpu.into()).unwrap();
            direct.sub_buffers(&data(cpu).concat()).unwrap();
        }
        let (a, b) = (data(0).concat(), data(1).concat());
        for (n, at) in [(3, 0), (14, 3), (8, 17)] {
            spools[0].sub_buffers(&a[at * 4096..(at + n) * 4096]).unwrap();
            spools[1].sub_buffers(&b[at * 4096..(at + n) * 4096]).unwrap();
        }
        spools[1].sub_buffers(&b[25 * 4096..]).unwrap();
        assert_eq!(spools[1].taken(), 26 * 4096);
        assert!(spools[0].sub_buffers(&[0; 100]).is_err());
        let mut spooled = new();
        for (cpu, s) in spools.into_iter().enumerate() {
            spooled.cpu(0, cpu as u32).unwrap();
            spooled.spooled(s.finish().unwrap()).unwrap();
        }
        // What the spool did not come to follows it.
        let mut partly = new();
        for (cpu, data) in [(0, &a), (1, &b)] {
            let mut spool = Spool::new(Cursor::new(Vec::new()), codec, Endian::Big, 4096);
            spool.sub_buffers(&data[..20 * 4096]).unwrap();
            partly.cpu(0, cpu).unwrap();
            partly.spooled(spool.finish().unwrap()).unwrap();
            partly.sub_buffers(&data[20 * 4096..]).unwrap();
        }
        let partly = partly.finish().unwrap();
        let (want, have) = (direct.finish().unwrap(), spooled.finish().unwrap());
        for have in [have, partly] {
            assert_eq!(want.1, have.1);
            assert!(want.0.get_ref() == have.0.get_ref());
        }
        let mut other = new();
        other.cpu(0, 0).unwrap();
        let spool = Spool::new(Cursor::new(Vec::new()), codec, Endian::Little, 4096);
        assert!(other.spooled(spool.finish().unwrap()).is_err());
    }
}
