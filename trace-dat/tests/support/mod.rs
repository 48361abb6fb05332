//! Trace files made from lists of records, for tests and benches.
#![allow(dead_code, clippy::unwrap_used)]

use std::io::Cursor;

use trace_dat::{
    Endian, LongSize,
    compress::Codec,
    write::{BufferHead, FileHead, FileVersion, Metadata, RawOption, Writer},
};

/// The recording machine and the form of the file.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    pub version: FileVersion,
    pub codec: Codec,
    pub endian: Endian,
    pub long_size: LongSize,
    pub subbuf_size: usize,
}

pub const PLAIN: Form = Form {
    version: FileVersion::V7,
    codec: Codec::None,
    endian: Endian::Little,
    long_size: LongSize::Eight,
    subbuf_size: 4096,
};

/// Time and bytes of a record.
pub type Rec = (u64, Vec<u8>);

impl Form {
    pub fn data_offset(&self) -> usize {
        8 + self.long_size.bytes()
    }

    fn long(&self, v: u64) -> Vec<u8> {
        match self.long_size {
            LongSize::Four => self.endian.from_u32(v as u32).to_vec(),
            LongSize::Eight => self.endian.from_u64(v).to_vec(),
        }
    }

    fn word(&self, type_len: u32, delta: u64) -> [u8; 4] {
        let delta = (delta & ((1 << 27) - 1)) as u32;
        self.endian.from_u32(match self.endian {
            Endian::Little => type_len | delta << 5,
            Endian::Big => type_len << 27 | delta,
        })
    }

    pub fn header_page(&self) -> String {
        let (long, at) = (self.long_size.bytes(), self.data_offset());
        format!(
            "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n\tfield: local_t commit;\toffset:8;\tsize:{long};\tsigned:1;\n\
             \tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n\tfield: char data;\toffset:{at};\tsize:{};\tsigned:1;\n",
            self.subbuf_size - at
        )
    }

    /// Sub-buffers with these records, whose bytes are a multiple of 4 long. Times must not go back.
    pub fn subbufs(&self, records: &[Rec]) -> Vec<u8> {
        let mut out = Vec::new();
        let (mut page, mut start, mut last) = (Vec::new(), 0u64, 0u64);
        let room = self.subbuf_size - self.data_offset();
        for (ts, data) in records {
            for fresh in [false, true] {
                let delta = ts - if page.is_empty() { *ts } else { last };
                let mut item = Vec::new();
                if delta >= 1 << 27 && delta >> 27 <= u64::from(u32::MAX) {
                    item.extend(self.word(30, delta));
                    item.extend(self.endian.from_u32((delta >> 27) as u32));
                }
                let rest = if delta >= 1 << 27 { 0 } else { delta };
                if (4..=112).contains(&data.len()) {
                    item.extend(self.word(data.len() as u32 / 4, rest));
                } else {
                    item.extend(self.word(0, rest));
                    item.extend(self.endian.from_u32(data.len() as u32 + 4));
                }
                item.extend(data);
                let fits = page.len() + item.len() <= room && delta >> 27 <= u64::from(u32::MAX);
                if !fits && !fresh {
                    self.close(&mut out, &mut page, start);
                    continue;
                }
                assert!(fits, "record larger than a sub-buffer");
                if page.is_empty() {
                    start = *ts;
                }
                page.extend(item);
                last = *ts;
                break;
            }
        }
        self.close(&mut out, &mut page, start);
        out
    }

    fn close(&self, out: &mut Vec<u8>, page: &mut Vec<u8>, start: u64) {
        if page.is_empty() {
            return;
        }
        let end = out.len() + self.subbuf_size;
        out.extend(self.endian.from_u64(start));
        out.extend(self.long(page.len() as u64));
        out.append(page);
        out.resize(end, 0);
    }

    /// A file with one top buffer of these CPUs.
    pub fn file(&self, cpus: &[Vec<Rec>]) -> Vec<u8> {
        let data: Vec<Vec<u8>> = cpus.iter().map(|records| self.subbufs(records)).collect();
        self.file_of(&data, &[])
    }

    /// A file with one top buffer, from sub-buffers as they are.
    pub fn file_of(&self, cpus: &[Vec<u8>], options: &[RawOption]) -> Vec<u8> {
        let mut meta = Metadata::new(self.endian, cpus.len() as u32);
        meta.header_info(self.header_page().as_bytes(), b"");
        meta.ftrace_events::<&[u8]>(&[]);
        meta.event_formats(&[("test", vec!["name: ev\nID: 100\nformat:\n"])]);
        meta.kallsyms(b"ffffffff81000000 T _text\n");
        meta.printk_formats(b"");
        meta.cmdlines(b"1 init\n");
        for o in options {
            meta.option(o.clone());
        }
        let head = FileHead {
            version: self.version,
            endian: self.endian,
            long_size: self.long_size,
            page_size: if self.version == FileVersion::V6 { self.subbuf_size as u32 } else { 4096 },
            codec: self.codec,
        };
        let top = BufferHead::new("", "local", self.subbuf_size as u32);
        let mut w = Writer::new(Cursor::new(Vec::new()), head, &meta, vec![top]).unwrap();
        for (cpu, data) in cpus.iter().enumerate().filter(|(_, data)| !data.is_empty()) {
            w.cpu(0, cpu as u32).unwrap();
            w.sub_buffers(data).unwrap();
        }
        w.finish().unwrap().0.into_inner()
    }
}

/// A small generator of numbers (splitmix64), the same everywhere.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

/// `n` records of 32 bytes, one about every `step` ns from `start` on.
pub fn records(n: usize, start: u64, step: u64, seed: u64) -> Vec<Rec> {
    let mut rng = Rng(seed);
    let mut ts = start;
    (0..n)
        .map(|i| {
            ts += 1 + rng.below(2 * step);
            let mut data = vec![100, 0, 0, 0];
            data.resize(28, i as u8);
            data.extend((i as u32).to_le_bytes());
            (ts, data)
        })
        .collect()
}
