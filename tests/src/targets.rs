//! What is fuzzed: one function for each reader of bytes that others control, for any bytes.
//!
//! The same functions serve three drivers: the coverage-guided fuzzer in `fuzz/`, the test that runs what it found once
//! (`fixtures/damaged/TARGET/`), and the test that feeds them damaged seeds on the stable toolchain. A function fails by a panic;
//! the driver watches time and memory.

use std::{
    path::PathBuf,
    sync::{Mutex, OnceLock, PoisonError},
};

use trace_dat::{
    Decoder, DecoderParts, Endian, FormatTexts, LazyFormats, LongSize, OpenOptions, Record, TraceFile,
    btf::Types,
    comm::Comms,
    filter::{Filter, FilterSet, FilterState},
    format::Event,
    kallsyms::Kallsyms,
    plugin::{Note, PrintCx},
    printk::PrintkFormats,
    ring::subbuf::SubBufLayout,
};
use tracecmd::net::{client::LastWords, handshake, limits::Limits, msg::Msg};
use tracefs::{EventFormat, Sql, TraceFs};

use crate::programs;

/// A target: its name and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets, by the name of their binary in `fuzz/fuzz_targets`.
pub const TARGETS: [Target; 12] = [
    ("open", open),
    ("tables", tables),
    ("subbuf", subbuf),
    ("event_format", event_format),
    ("print_fmt", print_fmt),
    ("print", print),
    ("filter", filter),
    ("sqlhist", sqlhist),
    ("net_msg", net_msg),
    ("kallsyms", kallsyms),
    ("btf", btf),
    ("cmdlines", cmdlines),
];

/// The fixtures whose events stand for a whole kernel: 64 bits little endian, 64 bits big endian, 32 bits.
const MACHINES: [&str; 4] = ["x86_64-7.2-fgraph-args", "s390x-6.1-v6", "i386-6.1-events", "x86_64-6.12-lost"];
/// One of them with scheduler events.
const SCHED: usize = 0;

/// The path of a fixture.
pub fn fixture(name: &str) -> PathBuf {
    programs::workspace().join(format!("fixtures/{name}.dat"))
}

/// A whole file: opened, and everything in it read and printed.
pub fn open(data: &[u8]) {
    read_file(data.to_vec());
}

/// A file whose header is right, so that the tables behind it are reached at once. The first byte chooses byte order, long size,
/// version and compression.
pub fn tables(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let endian = if kind & 1 == 0 { Endian::Little } else { Endian::Big };
    let mut file = b"\x17\x08\x44tracing".to_vec();
    file.extend(if kind & 2 == 0 { b"7\0" } else { b"6\0" });
    file.push(kind & 1);
    file.push(if kind & 4 == 0 { 8 } else { 4 });
    file.extend(endian.from_u32(4096)); // page size
    if kind & 2 == 0 {
        let codec: &[u8] = match kind >> 3 & 3 {
            0 | 1 => b"none\0\0",
            2 => b"zlib\0\0",
            _ => b"zstd\0\0",
        };
        file.extend(codec);
        let options = file.len() as u64 + 8 + u64::from(rest.len() as u32 / 2);
        file.extend(endian.from_u64(if kind & 32 == 0 { options } else { 0 }));
    }
    file.extend(rest);
    read_file(file);
}

/// Most records that are looked at: a small file can claim many empty ones.
const MOST_RECORDS: usize = 20_000;

fn read_file(bytes: Vec<u8>) {
    let Ok(file) = OpenOptions::new().threads(0).open_bytes("fuzz", bytes) else { return };
    read_tables(&file);
    let decoder = file.decoder();
    let mut records = file.records(&file.time_map(true));
    let mut out = Vec::new();
    let mut seq = 0;
    while let Some(r) = records.next() {
        print_record(&decoder, r.record(), r.ts, seq, &mut out);
        seq += 1;
        if seq as usize > MOST_RECORDS {
            break;
        }
    }
    records.seek(seq);
    records.next();
    records.seek_tail(3);
    let _ = (records.next().is_some(), records.first_ts(), records.last_ts());
    for buffer in file.buffers() {
        for cpu in &buffer.cpus {
            let Ok(mut stream) = file.stream(buffer, cpu, 2) else { continue };
            let mut items = 0;
            while stream.next_subbuf().is_some() && items < MOST_RECORDS {
                items += 1 + stream.current_items().map_or(0, Iterator::count);
            }
        }
    }
    for warning in file.take_warnings() {
        let _ = warning.to_string();
    }
}

fn read_tables(file: &TraceFile) {
    let _ = (file.clock(), file.strings().len(), file.cpu_count(), file.options().len());
    for section in file.sections() {
        let _ = file.section_name(section);
    }
    let meta = file.metadata();
    let _ = meta.formats();
    for part in [&meta.kallsyms, &meta.printk].into_iter().flatten() {
        let _ = part.read_sized32();
    }
    for part in [&meta.cmdlines, &meta.btf, &meta.modules].into_iter().flatten() {
        let _ = part.read_sized64();
    }
    for (_, part) in file.latency_texts() {
        let _ = part.read();
    }
}

fn print_record(decoder: &Decoder, rec: Record<'_>, ts: u64, seq: u64, out: &mut Vec<u8>) {
    out.clear();
    let Some(event) = decoder.event_of(rec.data) else { return };
    let cx = PrintCx { dec: decoder, event, rec, reach: rec.data, ts, note: Note::default(), seq };
    decoder.print_info(&cx, out);
    decoder.print_fmt(&cx, out);
    decoder.print_raw(&cx, out);
    decoder.visit(event, rec.data, seq);
    // A text is never out of proportion to what it shows: fields, and names of functions, have an end.
    assert!(out.len() <= 1 << 20, "{}:{}: {} bytes of text", event.system, event.name, out.len());
}

/// The sub-buffer walk. The first byte chooses byte order, width of the commit word and the record format.
pub fn subbuf(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let long = if kind & 2 == 0 { LongSize::Eight } else { LongSize::Four };
    let layout = SubBufLayout {
        endian: if kind & 1 == 0 { Endian::Little } else { Endian::Big },
        commit_size: long,
        data_offset: 8 + long.bytes(),
        size: rest.len().max(64),
        old_format: kind & 4 != 0,
    };
    let Ok(items) = layout.items(rest, 0) else { return };
    let mut end = layout.data_offset;
    for item in items {
        let Ok(item) = item else { break };
        assert!(item.at >= end && item.size >= 4, "an item that overlaps the one before it");
        end = item.at + item.size;
        assert!(
            end <= rest.len() && item.data_at + item.data.len() <= end.max(item.data_at),
            "an item beyond the data"
        );
    }
}

/// An event's `format` text, and a record of that event.
pub fn event_format(data: &[u8]) {
    let Some((kind, text)) = data.split_first() else { return };
    let long = if kind & 1 == 0 { LongSize::Eight } else { LongSize::Four };
    let Ok(event) = Event::parse("sys", text, long) else { return };
    let mut formats = FormatTexts::default();
    formats.push("sys", text);
    print_some(formats, event.id, *kind);
}

/// The text behind `print fmt:` of an event with fields of every kind.
pub fn print_fmt(data: &[u8]) {
    let Some((kind, text)) = data.split_first() else { return };
    let mut format = b"name: e\nID: 7\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n\
        \tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
        \tfield:int i;\toffset:8;\tsize:4;\tsigned:1;\n\
        \tfield:unsigned long long q;\toffset:16;\tsize:8;\tsigned:0;\n\
        \tfield:char s[16];\toffset:24;\tsize:16;\tsigned:0;\n\
        \tfield:__data_loc char[] d;\toffset:40;\tsize:4;\tsigned:0;\n\
        \tfield:__rel_loc u8[] r;\toffset:44;\tsize:4;\tsigned:0;\n\
        \tfield:u32 a[4];\toffset:48;\tsize:16;\tsigned:0;\n\
        \tfield:void * p;\toffset:64;\tsize:8;\tsigned:0;\n\
        \tfield:u8 z[];\toffset:72;\tsize:0;\tsigned:0;\n\n\
        print fmt: "
        .to_vec();
    format.extend(text);
    let mut formats = FormatTexts::default();
    formats.push("sys", &format);
    print_some(formats, 7, *kind);
}

/// Prints a few records of one event.
fn print_some(formats: FormatTexts, id: u16, kind: u8) {
    let endian = if kind & 2 == 0 { Endian::Little } else { Endian::Big };
    let long = if kind & 1 == 0 { LongSize::Eight } else { LongSize::Four };
    let mut parts = DecoderParts::new(endian, long, 4096);
    parts.formats = LazyFormats::Texts(formats);
    let decoder = Decoder::new(parts);
    let _ = decoder.check_events();
    let mut out = Vec::new();
    for (fill, len) in [(0u8, 96usize), (0xff, 96), (b'%', 96), (0x11, 40), (0, 9)] {
        let mut data = vec![fill; len];
        for (to, from) in data.iter_mut().zip(endian.from_u16(id)) {
            *to = from;
        }
        let rec = Record { ts: 0, cpu: 0, lost: Default::default(), data: &data, offset: 0 };
        print_record(&decoder, rec, 0, 1, &mut out);
    }
}

/// Decoders of the machines, each used for a while and then made anew: what they learn must not grow for ever.
fn with_machine<T>(n: usize, f: impl FnOnce(&Decoder, &[u16]) -> T) -> T {
    type Machine = (usize, Decoder, Vec<u16>);
    static MACHINE: [Mutex<Option<Machine>>; MACHINES.len()] = [const { Mutex::new(None) }; MACHINES.len()];
    let n = n % MACHINES.len();
    let mut slot = MACHINE[n].lock().unwrap_or_else(PoisonError::into_inner);
    let machine = match slot.take().filter(|m| m.0 < 100_000) {
        Some(m) => slot.insert((m.0 + 1, m.1, m.2)),
        None => {
            let file = TraceFile::open(fixture(MACHINES[n])).expect("a fixture");
            let decoder = file.decoder();
            let ids = decoder.events().map(|e| e.id).collect();
            slot.insert((0, decoder, ids))
        }
    };
    f(&machine.1, &machine.2)
}

/// Any bytes as a record of any event of a real kernel. Three bytes choose machine and event.
pub fn print(data: &[u8]) {
    let Some(([machine, a, b], rest)) = data.split_first_chunk::<3>() else { return };
    with_machine(usize::from(*machine), |decoder, ids| {
        let Some(id) = ids.get(usize::from(u16::from_le_bytes([*a, *b])) % ids.len().max(1)) else { return };
        let mut bytes = rest.to_vec();
        for (to, from) in bytes.iter_mut().zip(decoder.endian().from_u16(*id)) {
            *to = from;
        }
        let rec = Record { ts: 5, cpu: 1, lost: Default::default(), data: &bytes, offset: 0 };
        print_record(decoder, rec, u64::MAX, 1, &mut Vec::new());
    });
}

/// The filter language, on events of a real kernel, and a record for the filter.
pub fn filter(data: &[u8]) {
    let Some((machine, text)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(text);
    with_machine(usize::from(*machine), |decoder, ids| {
        let Ok(filter) = Filter::new(decoder, &text) else { return };
        let mut shown = Vec::new();
        filter.describe(&mut shown);
        let mut set = FilterSet::new(decoder);
        set.add(filter, machine & 4 != 0);
        let mut state = FilterState::default();
        for id in ids.iter().take(50) {
            let mut bytes = [0x31u8; 64];
            for (to, from) in bytes.iter_mut().zip(decoder.endian().from_u16(*id)) {
                *to = from;
            }
            for data in [&bytes[..], &bytes[..10]] {
                let rec = Record { ts: 5, cpu: 1, lost: Default::default(), data, offset: 0 };
                set.shows(&mut state, decoder, &rec, 1);
            }
        }
    });
}

/// Statements of `sqlhist`, on a tree of two events.
pub fn sqlhist(data: &[u8]) {
    static TREE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let tree = TREE.get_or_init(|| {
        let tree = tempfile::tempdir().expect("a directory");
        with_machine(SCHED, |decoder, _| {
            for name in ["sched_switch", "sched_waking"] {
                let event = decoder.find_event(Some("sched"), name).expect("an event of every kernel");
                let mut text = format!("name: {name}\nID: {}\nformat:\n", event.id);
                for (at, f) in event.common.iter().chain(&event.fields).enumerate() {
                    let array = if f.size > 8 { format!("[{}]", f.size) } else { String::new() };
                    let kind = if f.size > 8 { "char" } else { "int" };
                    text += &format!(
                        "\tfield:{kind} {}{array};\toffset:{};\tsize:{};\tsigned:1;\n",
                        f.name, f.offset, f.size
                    );
                    if at + 1 == event.common.len() {
                        text.push('\n');
                    }
                }
                let dir = tree.path().join("events/sched").join(name);
                std::fs::create_dir_all(&dir).expect("a directory");
                std::fs::write(dir.join("format"), text + "\nprint fmt: \"\"\n").expect("a file");
            }
        });
        tree
    });
    let text = String::from_utf8_lossy(data);
    let top = TraceFs::at(tree.path()).top();
    match Sql::parse(&text, &top, "name", 7) {
        Ok(sql) => drop(sql.echo("/T", false)),
        Err(e) => drop(e.to_string()),
    }
    let _ = EventFormat::parse("sys", &text);
}

/// What a peer sends: messages, the handshake, the client's last words.
pub fn net_msg(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some((message, used))) = Msg::decode(rest) {
        assert!((12..=rest.len()).contains(&used), "a message of {used} bytes");
        if let Ok(bytes) = message.encode() {
            let again = Msg::decode(&bytes).expect("what we wrote").expect("a whole message");
            // Bytes that are no UTF-8 were replaced by longer ones, which a name may have no room for.
            let replaced = |m: &Msg| format!("{m:?}").contains('\u{fffd}');
            assert!(again == (message.clone(), bytes.len()) || replaced(&message), "{message:?} became {again:?}");
        }
        rest = rest.get(used..).unwrap_or_default();
    }
    let _ = LastWords::decode(data);
    // The same bytes in pieces of different sizes must mean the same.
    let Some((kind, bytes)) = data.split_first() else { return };
    let run = |piece: usize| {
        let mut protocol = handshake::Protocol::new(Limits::default(), kind & 1 != 0);
        let (mut events, mut metadata) = (Vec::new(), Vec::new());
        for part in bytes.chunks(piece.max(1)) {
            let mut new = Vec::new();
            let result = protocol.feed(part, &mut new);
            for event in new {
                match event {
                    handshake::Event::Announced(a) => {
                        let ports = vec![1500; a.cpus as usize];
                        let reply = protocol.ports(&ports);
                        events.push(format!("{a:?} {:?}", reply.is_ok()));
                    }
                    handshake::Event::Metadata(m) => metadata.extend(m),
                    other => events.push(format!("{other:?}")),
                }
            }
            if result.is_err() {
                break;
            }
        }
        let mut end = Vec::new();
        let _ = protocol.end(&mut end);
        (events, metadata)
    };
    run(bytes.len());
    run(1 + usize::from(*kind >> 1));
}

/// The kernel's symbols.
pub fn kallsyms(data: &[u8]) {
    let (ask, text) = data.split_at(data.len().min(8));
    let symbols = Kallsyms::from_bytes(text.to_vec());
    let addr = ask.iter().fold(0, |v, b| v << 8 | u64::from(*b));
    for a in [addr, 0, u64::MAX] {
        symbols.find(a);
    }
    for s in symbols.iter() {
        assert!(symbols.find(s.addr).is_none_or(|f| f.addr == s.addr));
        symbols.address_of(s.name);
    }
    let printk = PrintkFormats::new({
        let text = text.to_vec();
        move || Ok(text.clone())
    });
    for (addr, _) in printk.iter() {
        assert!(printk.get(addr).is_some());
    }
}

/// The kernel's types.
pub fn btf(data: &[u8]) {
    let Ok(types) = Types::parse(data.to_vec()) else { return };
    let mut out = Vec::new();
    for id in 0..types.len().min(2000) as u32 + 2 {
        out.clear();
        types.type_name(id, &mut out);
        assert!(out.len() <= 1 << 16, "{} bytes for the name of type {id}", out.len());
    }
    for name in [&b"f"[..], b"vfs_read", b"do_sys_open", b""] {
        if let Some(proto) = types.function(name) {
            out.clear();
            proto.print_args([1u64, 2, u64::MAX].into_iter(), 8, &mut out);
            let _ = (proto.return_type(), proto.params().count());
        }
    }
}

/// Names of processes: the saved ones, and those that events tell.
pub fn cmdlines(data: &[u8]) {
    let text = data.to_vec();
    let comms = Comms::new(move || Ok(text.clone()));
    for (pid, name) in comms.saved_names().map(|(p, n)| (p, n.to_vec())).take(2000).collect::<Vec<_>>() {
        assert!(pid == 0 || comms.lookup(pid, 0).is_some());
        assert!(comms.pids_of(&name).contains(&pid));
    }
    for (seq, word) in data.chunks_exact(4).enumerate() {
        let pid = i32::from_le_bytes(word.try_into().expect("four bytes"));
        comms.learn(pid, seq as u64, word);
        assert!(comms.lookup(pid, u64::MAX).is_some());
    }
}
