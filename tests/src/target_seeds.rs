//! Seeds of the fuzz targets: real inputs of each, made from the fixtures.

use anyhow::Result;
use trace_dat::TraceFile;
use tracecmd::net::{
    handshake::{ASK_V3, MAGIC_V3},
    msg::{Msg, TraceRequest, TraceResponse},
};

use crate::{programs, seeds};

const FILTERS: &[&str] = &[
    "sched_switch",
    "sched/.*: next_pid > 0 && prev_comm != \"ls\"",
    "sched_switch,sched_wakeup: COMM ~ \"^k.*\" || !(CPU == 1)",
    "sys_enter_.*: ((__syscall_nr & 0xf) << 2) % 3 == 1",
    ".*: common_pid != 0x10 && TIMESTAMP > 5 ^ common_flags",
    "irq: name =~ \"a\\\\(b\\\\)*\" || vec * -3 + 2 >= 8 - ~1",
];

const SQL: &[&str] = &[
    "SELECT pid, prio FROM sched_waking",
    "SELECT next_comm AS c, CAST(next_pid AS HEX), CAST(prev_prio AS _COUNTER_) FROM sched_switch WHERE next_pid > 3",
    "SELECT end.next_comm AS comm, (end.TIMESTAMP_USECS - start.TIMESTAMP_USECS) AS lat FROM sched_waking AS start \
     JOIN sched_switch AS end ON start.pid = end.next_pid WHERE start.prio < 100 && !(end.prev_prio < 50 || COMM ~ \"x*\")",
    "select start.pid, (end.next_prio + start.prio) as d, start.STACKTRACE as st from sched.sched_waking start join \
     sched_switch end on start.pid = end.next_pid, start.prio = end.next_prio;",
];

/// What takes the seeds: called with a target's name and an input.
pub type Put<'a> = dyn FnMut(&'static str, &[u8]) -> Result<()> + 'a;

/// Makes the seeds of all targets.
///
/// # Errors
/// When a fixture cannot be read, and those of `put`.
pub fn all(put: &mut Put<'_>) -> Result<()> {
    for (_, bytes) in seeds::all(true)? {
        if bytes.len() <= 64 << 10 {
            put("open", &bytes)?;
        }
        tables(put, &bytes)?;
    }
    for path in programs::fixtures() {
        let file = TraceFile::open(&path)?;
        let big = u8::from(file.endian() == trace_dat::Endian::Big);
        let short = u8::from(file.long_size() == trace_dat::LongSize::Four);
        events(put, &file, short, big)?;
        let meta = file.metadata();
        if let Some(part) = &meta.kallsyms {
            let text = part.read_sized32()?;
            let mut seed = 0xffff_ffff_8100_0000u64.to_be_bytes().to_vec();
            seed.extend(&text[..text.len().min(2000)]);
            put("kallsyms", &seed)?;
        }
        if let Some(part) = &meta.cmdlines {
            let text = part.read_sized64()?;
            put("cmdlines", &text[..text.len().min(2000)])?;
        }
        for buffer in file.buffers() {
            for cpu in buffer.cpus.iter().filter(|c| c.size > 0) {
                let mut stream = file.stream(buffer, cpu, 1)?;
                if let Some(s) = stream.next_subbuf() {
                    let mut seed = vec![big | short << 1];
                    seed.extend(&s.data[..s.data.len().min(4000)]);
                    put("subbuf", &seed)?;
                }
            }
        }
    }
    for machine in 0..4u8 {
        for filter in FILTERS {
            put("filter", &[&[machine], filter.as_bytes()].concat())?;
        }
    }
    for sql in SQL {
        put("sqlhist", sql.as_bytes())?;
    }
    let printk = "0xffffffff82000000 : \"hello %d\\n\"\n0xffffffff82000010 : \"%s\"\n";
    put("kallsyms", &[&[0; 8], printk.as_bytes()].concat())?;
    messages(put)?;
    put("btf", &small_btf(true))?;
    put("btf", &small_btf(false))
}

/// Seeds of `tables`: what lies behind the header, once found by going from section to section, once through the options.
fn tables(put: &mut Put<'_>, file: &[u8]) -> Result<()> {
    let big = file[12];
    let kind = big | if file[13] == 4 { 4 } else { 0 };
    if file[10] == b'6' {
        // Magic, version, byte order, long size, page size.
        return put("tables", &[&[kind | 2], &file[18..file.len().min(64 << 10)]].concat());
    }
    let Some(rest) = file.get(32..).filter(|_| file[18..].starts_with(b"none\0\0")) else { return Ok(()) };
    put("tables", &[&[kind | 32], &rest[..rest.len().min(60 << 10)]].concat())?;
    let at: [u8; 8] = file[24..32].try_into()?;
    let options = if big == 1 { u64::from_be_bytes(at) } else { u64::from_le_bytes(at) };
    let mut seed = vec![kind];
    seed.extend(rest);
    // The options lie in the middle of what is given.
    seed.resize(1 + 2 * (options as usize - 32), 0);
    if seed.len() <= 64 << 10 { put("tables", &seed) } else { Ok(()) }
}

fn events(put: &mut Put<'_>, file: &TraceFile, short: u8, big: u8) -> Result<()> {
    let kind = short | big << 1;
    let (texts, result) = file.metadata().formats();
    result?;
    for f in &texts.files {
        let text = &texts.text[f.range.clone()];
        if text.len() < 4000 {
            put("event_format", &[&[kind], text].concat())?;
        }
        let key = b"print fmt: ";
        if let Some(at) = text.windows(key.len()).position(|w| w == key) {
            let fmt = &text[at + key.len()..];
            if fmt.len() < 4000 {
                put("print_fmt", &[&[kind], fmt].concat())?;
            }
        }
    }
    let decoder = file.decoder();
    let ids: Vec<u16> = decoder.events().map(|e| e.id).collect();
    let mut seen = std::collections::BTreeMap::new();
    let mut records = file.records(&file.time_map(false));
    while let Some(r) = records.next() {
        let data = r.record().data;
        let id = file.endian().uint(data, 0, 2).unwrap_or(0) as u16;
        let count = seen.entry(id).or_insert(0);
        *count += 1;
        if *count > 3 || data.len() > 4000 {
            continue;
        }
        if let Some(n) = ids.iter().position(|i| *i == id) {
            for machine in 0..4u8 {
                put("print", &[&[machine, n as u8, (n >> 8) as u8], data].concat())?;
            }
        }
    }
    Ok(())
}

fn messages(put: &mut Put<'_>) -> Result<()> {
    let request = TraceRequest {
        use_fifos: false,
        trace_id: 7,
        args: vec!["-e".into(), "sched".into()],
        tsync_protos: vec!["kvm".into(), "ptp".into()],
    };
    let response = TraceResponse { cpus: 2, page_size: 4096, ports: vec![1, 2], ..Default::default() };
    let all = [
        Msg::TInit { cpus: 2, page_size: 4096, options: vec!["tcp".into()], extensions: 1 },
        Msg::RInit { ports: vec![1500, 1501], extensions: 1 },
        Msg::SendData(b"\x17\x08\x44tracing6\0\0\x08\0\x10\0\0header_page\0".to_vec()),
        Msg::FinData,
        Msg::NotSupported,
        Msg::TraceReq(request.clone()),
        Msg::TraceResp(response),
        Msg::CloseResp,
        Msg::TimeSync { proto: "ptp".into(), id: 3, payload: vec![1; 24] },
        Msg::TraceProxy { request, cpus: 2, siblings: 0 },
        Msg::Cont,
        Msg::Close,
    ];
    for m in &all {
        put("net_msg", &m.encode()?)?;
    }
    let mut v3 = vec![3];
    v3.extend(ASK_V3);
    v3.extend(MAGIC_V3);
    for n in [0, 2, 3, 2, 3, 11] {
        v3.extend(all[n].encode()?);
    }
    put("net_msg", &v3)?;
    put("net_msg", b"\x092\x00004096\x00001\x000010\0use_tcp=10\x17\x08\x44tracing6\0\0\x08")
}

/// Two functions with parameters, an integer, a pointer, a typedef and a structure.
fn small_btf(little: bool) -> Vec<u8> {
    let word = |v: u32| if little { v.to_le_bytes() } else { v.to_be_bytes() };
    let strings = b"\0int\0size_t\0f\0vfs_read\0a\0b\0s\0";
    let types: &[&[u32]] = &[
        &[1, 1 << 24, 4, 0x0100_0020],       // int
        &[0, 2 << 24, 1],                    // int *
        &[5, 8 << 24, 1],                    // typedef size_t
        &[28, 4 << 24 | 1, 4, 24, 1, 0],     // struct s { int a; }
        &[0, 13 << 24 | 2, 3, 24, 2, 26, 4], // size_t (int *a, struct s b)
        &[12, 12 << 24, 5],                  // f
        &[14, 12 << 24, 5],                  // vfs_read
    ];
    let types: Vec<u8> = types.iter().flat_map(|t| t.iter().flat_map(|v| word(*v))).collect();
    let mut all = if little { vec![0x9f, 0xeb] } else { vec![0xeb, 0x9f] };
    all.extend([1, 0]); // version, flags
    for v in [24, 0, types.len() as u32, types.len() as u32, strings.len() as u32] {
        all.extend(word(v));
    }
    all.extend(types);
    all.extend(strings);
    all
}
