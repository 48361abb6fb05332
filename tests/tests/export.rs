//! `convert --to`: what other programs read of our exports, against the events of the file.
//!
//! Perfetto's is decoded with the message definitions of its Python package, CTF read by babeltrace 2, Chrome's JSON by a JSON
//! parser. What is expected is put together here from the events' formats, with code of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use trace_dat::{
    Endian, TraceFile,
    format::{Event, Field, FieldFlags},
    read::option::TypedOption,
};
use tracecmd_tests::{programs, skip::skip};

/// Small files of both byte orders and long sizes, with instances, function_graph, dynamic arrays and every version.
const FILES: [&str; 6] = [
    "s390x-6.1-inst",
    "x86_64-6.12-fgraph-v6",
    "x86_64-7.2-dynamic",
    "x86_64-7.2-instances",
    "x86_64-7.2-syscalls",
    "i386-6.1-events",
];

fn fixture(name: &str) -> PathBuf {
    programs::workspace().join("fixtures").join(format!("{name}.dat"))
}

fn convert(file: &Path, format: &str, output: &Path) {
    let done = Command::new(programs::tracecmd())
        .args(["convert", "--to", format, "-i"])
        .arg(file)
        .arg(output)
        .stdin(Stdio::null())
        .output()
        .expect("our binary starts");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(done.stderr.is_empty() && done.stdout.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// An event as it is expected: field values are texts or numbers.
#[derive(Debug)]
struct Seen {
    ts: u64,
    cpu: u32,
    pid: i32,
    comm: String,
    instance: String,
    system: String,
    name: String,
    fields: Vec<(String, Value)>,
}

fn field(endian: Endian, f: &Field, data: &[u8]) -> Value {
    let flags = |wanted| f.flags.intersects(wanted);
    let (mut at, mut len) = (f.offset, if f.size == 0 { data.len() - f.offset } else { f.size });
    if flags(FieldFlags::DYNAMIC) {
        let word = endian.uint(data, f.offset, 4).expect("a location") as usize;
        at = (word & 0xffff) + if flags(FieldFlags::RELATIVE) { f.offset + f.size } else { 0 };
        len = word >> 16;
    }
    let bytes = &data[at..(at + len).min(data.len())];
    if flags(FieldFlags::STRING) {
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        return String::from_utf8_lossy(&bytes[..end]).into_owned().into();
    }
    if flags(FieldFlags::DYNAMIC | FieldFlags::ARRAY) || !matches!(f.size, 1 | 2 | 4 | 8) {
        let size = if [1, 2, 4, 8].contains(&f.element_size) { f.element_size } else { 1 };
        let numbers: Vec<_> =
            bytes.chunks_exact(size).map(|b| format!("{:#x}", endian.uint(b, 0, size).expect("a number"))).collect();
        return numbers.join(",").into();
    }
    let n = endian.uint(bytes, 0, len).expect("a number");
    match (flags(FieldFlags::SIGNED), len) {
        (false, _) => n.into(),
        (true, 1) => (n as i8).into(),
        (true, 2) => (n as i16).into(),
        (true, 4) => (n as i32).into(),
        (true, _) => (n as i64).into(),
    }
}

fn events(path: &Path) -> Vec<Seen> {
    let file = TraceFile::open(path).expect("a readable fixture");
    let decoder = file.decoder();
    let mut records = file.records(&file.time_map(true));
    let mut all = Vec::new();
    while let Some(r) = records.next() {
        let (data, endian) = (r.record().data, file.endian());
        let event: &Event = decoder.event_of(data).expect("a known event");
        let pid = event.common.iter().find(|f| f.name == "common_pid").expect("a pid");
        let pid = endian.uint(data, pid.offset, 4).expect("a pid") as i32;
        let comm = if pid == 0 { b"<idle>" } else { decoder.comms().get(pid, 0) };
        all.push(Seen {
            ts: r.ts,
            cpu: r.record().cpu,
            pid,
            comm: String::from_utf8_lossy(comm).into_owned(),
            instance: file.buffers()[r.tag as usize].name.clone(),
            system: event.system.clone(),
            name: event.name.clone(),
            fields: event.fields.iter().map(|f| (f.name.clone(), field(endian, f, data))).collect(),
        });
    }
    assert!(!all.is_empty(), "{} has events", path.display());
    all
}

fn is_call(e: &Seen) -> bool {
    e.name.starts_with("funcgraph_") || e.name == "fgraph_retaddr_entry"
}

fn number(e: &Seen, name: &str) -> i128 {
    let value = e.fields.iter().find(|(n, _)| n == name).map(|(_, v)| v);
    value.and_then(|v| v.as_i64().map(i128::from).or(v.as_u64().map(i128::from))).unwrap_or(0)
}

/// Begins and ends of calls nest on every track; how many there are.
fn check_nesting(slices: &[(bool, u64, u64, String)]) -> usize {
    let mut open: BTreeMap<u64, Vec<(u64, String)>> = BTreeMap::new();
    let mut begins = 0;
    for (begin, ts, track, name) in slices {
        let stack = open.entry(*track).or_default();
        if *begin {
            begins += 1;
            stack.push((*ts, name.clone()));
        } else {
            let (since, called) = stack.pop().expect("an end has a begin");
            assert!(since <= *ts);
            assert!(name.is_empty() || *name == called, "{name} ends {called}");
        }
    }
    begins
}

#[test]
fn perfetto_is_what_its_definitions_say() {
    let script = programs::workspace().join("tests/tools/decode_perfetto.py");
    let python = std::env::var_os("TRACECMD_PYTHON").unwrap_or_else(|| "python3".into());
    let probe = "from perfetto.protos.perfetto.trace import perfetto_trace_pb2";
    let ready = Command::new(&python).args(["-c", probe]).stderr(Stdio::null()).status().is_ok_and(|s| s.success());
    if !ready {
        return skip("perfetto_is_what_its_definitions_say", "no Python package perfetto");
    }
    let dir = tempfile::tempdir().expect("a directory");
    for name in FILES {
        let output = dir.path().join("trace");
        convert(&fixture(name), "perfetto", &output);
        let done = Command::new(&python).arg(&script).arg(&output).output().expect("python starts");
        assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
        let lines: Vec<Value> = done
            .stdout
            .split(|b| *b == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_slice(l).expect("JSON"))
            .collect();
        let of = |kind: &'static str| lines.iter().filter(move |l| l[0] == kind);

        // Every event with its fields, by CPU in the order of time.
        let want_all = events(&fixture(name));
        let mut want: Vec<&Seen> = want_all.iter().filter(|e| !is_call(e)).collect();
        want.sort_by_key(|e| e.cpu);
        let mut got: Vec<&Value> = of("event").collect();
        got.sort_by_key(|l| l[3].as_u64());
        assert_eq!(got.len(), want.len(), "{name}");
        let scheduler = want_all.iter().find(|e| e.system == "sched").map(|e| e.instance.clone());
        for (g, w) in got.iter().zip(want) {
            let print = w.system == "ftrace" && w.name == "print";
            assert_eq!(g[1].as_str(), Some(w.name.as_str()), "{name}");
            assert_eq!(
                (g[2].as_u64(), g[3].as_u64(), g[4].as_u64()),
                (Some(w.ts), Some(w.cpu.into()), Some(w.pid as u64))
            );
            let fields = g[5].as_object().expect("fields");
            for (field, value) in &w.fields {
                assert_eq!(&fields[field], value, "{name} {} {field}", w.name);
            }
            // The tracks of the CPUs and of waking need Perfetto's own messages: the package names their fields as the kernel does.
            let typed = Some(&w.instance) == scheduler.as_ref()
                && w.system == "sched"
                && matches!(w.name.as_str(), "sched_switch" | "sched_waking" | "sched_wakeup" | "sched_wakeup_new");
            assert!(typed || print || fields.len() == w.fields.len(), "{name} {}", w.name);
        }

        // Calls nest by thread and instance; every entry is a slice.
        let tracks: BTreeMap<u64, &Value> = of("track").map(|l| (l[1].as_u64().expect("a number"), l)).collect();
        let slices: Vec<_> = of("slice")
            .map(|l| {
                let text = |v: &Value| v.as_str().expect("text").to_owned();
                (l[1] == "begin", l[2].as_u64().expect("a time"), l[3].as_u64().expect("a track"), text(&l[4]))
            })
            .collect();
        let entries: Vec<&Seen> = want_all.iter().filter(|e| is_call(e) && e.name != "funcgraph_exit").collect();
        assert_eq!(check_nesting(&slices), entries.len(), "{name}");
        for (l, e) in of("slice").filter(|l| l[1] == "begin").zip(&entries) {
            assert_eq!(l[2].as_u64(), Some(e.ts));
            assert_eq!(l[5]["depth"].as_i64().map(i128::from), Some(number(e, "depth")));
            assert_eq!(l[5]["common_cpu"].as_u64(), Some(e.cpu.into()));
            let mut track = tracks[&l[3].as_u64().expect("a track")];
            if !e.instance.is_empty() {
                assert_eq!(track[4].as_str(), Some(e.instance.as_str()));
                track = tracks[&track[2].as_u64().expect("a parent")];
            }
            match e.pid {
                0 => assert_eq!(track[4], json!(format!("idle, CPU {}", e.cpu))),
                pid => assert_eq!(track[3].as_i64(), Some(pid.into())),
            }
        }
        if name.contains("fgraph") {
            assert!(entries.len() > 20 && slices.len() > 40, "{name} has calls");
        }
    }
}

#[test]
fn chrome_json_has_every_event() {
    let dir = tempfile::tempdir().expect("a directory");
    for name in FILES {
        let output = dir.path().join("trace.json");
        convert(&fixture(name), "chrome", &output);
        let text = std::fs::read_to_string(&output).expect("UTF-8");
        let all: Value = serde_json::from_str(&text).expect("JSON");
        let list = all["traceEvents"].as_array().expect("events");
        let of = |ph: &'static str| list.iter().filter(move |e| e["ph"] == ph);
        let want_all = events(&fixture(name));
        let want: Vec<&Seen> = want_all.iter().filter(|e| !is_call(e)).collect();
        assert_eq!(of("i").count(), want.len(), "{name}");
        for (g, w) in of("i").zip(&want) {
            assert_eq!((&g["name"], &g["cat"]), (&json!(w.name), &json!(w.system)));
            assert_eq!(g["args"]["common_cpu"], json!(w.cpu));
            // The digits in the text: a double has too few of them.
            assert!((g["ts"].as_f64().expect("a time") - w.ts as f64 / 1000.0).abs() < 1.0);
            for (field, value) in &w.fields {
                let big = value.as_u64().filter(|n| *n >> 53 != 0).map(|n| json!(format!("{n:#x}")));
                assert_eq!(&g["args"][field], &big.unwrap_or(value.clone()), "{name} {} {field}", w.name);
            }
        }
        let last = want_all.last().expect("an event").ts;
        assert!(text.contains(&format!("\"ts\":{}.{:03}", last / 1000, last % 1000)), "{name}: exact times");
        let slices: Vec<_> = list
            .iter()
            .filter(|e| e["ph"] == "B" || e["ph"] == "E")
            .map(|e| {
                let name = e["name"].as_str().unwrap_or("").to_owned();
                let us = e["ts"].as_f64().expect("a time");
                (e["ph"] == "B", (us * 1000.0) as u64, e["tid"].as_u64().expect("a thread"), name)
            })
            .collect();
        let entries = want_all.iter().filter(|e| is_call(e) && e.name != "funcgraph_exit").count();
        assert_eq!(check_nesting(&slices), entries, "{name}");
        // What ran on a CPU: from switch to switch without a gap, but for the idle task.
        let mut busy: BTreeMap<u64, f64> = BTreeMap::new();
        for x in of("X") {
            let (ts, dur) = (x["ts"].as_f64().expect("a time"), x["dur"].as_f64().expect("a duration"));
            let end = busy.entry(x["tid"].as_u64().expect("a CPU")).or_default();
            assert!(*end <= ts + 0.0005, "{name}: two tasks on a CPU");
            *end = ts + dur;
        }
        let switches = want.iter().filter(|e| e.name == "sched_switch").count();
        assert_eq!(switches > 0, of("X").count() > 0, "{name}");
    }
}

#[test]
fn babeltrace_reads_ctf() {
    let there = Command::new("babeltrace2").arg("--version").stdout(Stdio::null()).status().is_ok_and(|s| s.success());
    if !there {
        return skip("babeltrace_reads_ctf", "no babeltrace2 (Debian package babeltrace2)");
    }
    let dir = tempfile::tempdir().expect("a directory");
    for name in FILES {
        let output = dir.path().join(name);
        convert(&fixture(name), "ctf", &output);
        let done = Command::new("babeltrace2")
            .args(["--clock-cycles", "--no-delta", "--names=context,payload", "--fields=trace"])
            .arg(&output)
            .output()
            .expect("babeltrace2 starts");
        let messages = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{name}: {messages}");
        let text = String::from_utf8(done.stdout).expect("UTF-8");
        let mut got: Vec<&str> = text.lines().collect();
        got.sort_unstable();
        let want_all = events(&fixture(name));
        assert_eq!(got.len(), want_all.len(), "{name}: {messages}");
        let file = TraceFile::open(fixture(name)).expect("a readable fixture");
        let uname = file.options().iter().find_map(|o| if let TypedOption::Uname(u) = o { Some(u) } else { None });
        let host = uname.and_then(|u| u.split(' ').nth(1)).unwrap_or("");
        let mut want: Vec<String> = want_all.iter().map(|e| ctf_line(host, e)).collect();
        want.sort_unstable();
        for (g, w) in got.iter().zip(&want) {
            assert!(is_line(g, w), "{name}:\n- {w}\n+ {g}");
        }
    }
}

/// Whether babeltrace printed this line. In the place of an empty text it may show the text that this field had before.
fn is_line(got: &str, want: &str) -> bool {
    let mut parts = want.split("\"\"");
    let Some(mut rest) = parts.next().and_then(|first| got.strip_prefix(first)) else { return false };
    for part in parts {
        let Some(at) = rest.strip_prefix('"').and_then(|r| r.find(&format!("\"{part}"))) else { return false };
        rest = &rest[at + 2 + part.len()..];
    }
    rest.is_empty()
}

/// An event as babeltrace prints it.
fn ctf_line(host: &str, e: &Seen) -> String {
    let fields: Vec<String> = e.fields.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    let fields = if fields.is_empty() { String::from(" ") } else { format!(" {} ", fields.join(", ")) };
    format!(
        "[{:020}] {host}{}:{}: {{ cpu_id = {} }}, {{ pid = {}, comm = \"{}\", instance = \"{}\" }}, {{{fields}}}",
        e.ts, e.system, e.name, e.cpu, e.pid, e.comm, e.instance
    )
}
