//! The parts of a report, each alone, over real files: print programs by kind of event, symbols, unpacking, filters.

use std::{collections::BTreeMap, path::Path};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use trace_dat::{
    Decoder, OpenOptions, TraceFile,
    compress::{Codec, Compressor, Decompressor},
    filter::{Filter, FilterSet, FilterState},
    plugin::{Note, PrintCx},
    ring::record::Record,
    time::TimeMap,
};

/// Files, and how many of their most frequent kinds of events are measured.
const FILES: [(&str, usize); 4] =
    [("x86_64-7.2-instances", 3), ("x86_64-7.2-fgraph-args", 2), ("x86_64-6.12-net", 4), ("s390x-6.1-fgraph", 2)];
/// Records of each kind.
const RECORDS: usize = 1000;

fn open(name: &str) -> TraceFile {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../fixtures/{name}.dat"));
    OpenOptions::new().threads(0).open(path).expect("a file of fixtures/")
}

/// A record that owns its bytes.
struct Kept {
    ts: u64,
    cpu: u32,
    data: Vec<u8>,
}

impl Kept {
    fn record(&self) -> Record<'_> {
        Record { ts: self.ts, cpu: self.cpu, lost: Default::default(), data: &self.data, offset: 0 }
    }
}

/// Records by kind of event, the most frequent kinds first.
fn by_event(file: &TraceFile, dec: &Decoder) -> Vec<(String, Vec<Kept>)> {
    let mut kinds = BTreeMap::<String, Vec<Kept>>::new();
    let mut merge = file.records(&TimeMap::default());
    while let Some(r) = merge.next() {
        let r = r.record();
        let Some(event) = dec.event_of(r.data) else { continue };
        kinds.entry(event.name.clone()).or_default().push(Kept { ts: r.ts, cpu: r.cpu, data: r.data.to_vec() });
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, records)| std::cmp::Reverse(records.len()));
    kinds
}

fn print(c: &mut Criterion) {
    let mut group = c.benchmark_group("print");
    for (name, kinds) in FILES {
        let file = open(name);
        let dec = Decoder::new(file.decoder_parts());
        for (event_name, mut records) in by_event(&file, &dec).into_iter().take(kinds) {
            records.truncate(RECORDS);
            group.throughput(Throughput::Elements(records.len() as u64));
            let mut out = Vec::new();
            group.bench_function(BenchmarkId::new(event_name, name), |b| {
                b.iter(|| {
                    out.clear();
                    for (seq, r) in (0..).zip(&records) {
                        let rec = r.record();
                        let Some(event) = dec.event_of(rec.data) else { continue };
                        let note = Note::default();
                        let cx = PrintCx { dec: &dec, event, rec, reach: rec.data, ts: rec.ts, note, seq };
                        dec.print_info(&cx, &mut out);
                    }
                    out.len()
                })
            });
        }
    }
    group.finish();
}

fn symbols(c: &mut Criterion) {
    let file = open("x86_64-7.2-fgraph-args");
    let dec = Decoder::new(file.decoder_parts());
    let symbols = dec.symbols();
    let all: Vec<u64> = symbols.iter().map(|s| s.addr + 1).collect();
    // Far apart, and more than are remembered; or the same few hundred over and over, as in a trace.
    let far: Vec<u64> = all.iter().step_by((all.len() / 20_000).max(1)).copied().collect();
    let few: Vec<u64> = all.iter().step_by((all.len() / 300).max(1)).copied().collect();
    let mut group = c.benchmark_group("symbols");
    for (name, addrs) in [("far apart", &far), ("a few hundred", &few)] {
        group.throughput(Throughput::Elements(addrs.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| addrs.iter().filter_map(|a| symbols.name_at(*a)).map(|n| n.bytes().len()).sum::<usize>())
        });
    }
    group.finish();
}

fn unpack(c: &mut Criterion) {
    let file = open("x86_64-7.2-fgraph-args");
    let mut data = Vec::new();
    for input in &mut file.inputs(&TimeMap::default(), |_, _| true) {
        while let Some(subbuf) = input.stream.next_subbuf() {
            data.extend_from_slice(subbuf.data);
        }
    }
    data.truncate(256 << 10);
    let mut group = c.benchmark_group("unpack");
    group.throughput(Throughput::Bytes(data.len() as u64));
    for codec in [Codec::Zlib, Codec::Zstd] {
        let mut packed = Vec::new();
        let packed_len = Compressor::new(codec).pack(&data, &mut packed).expect("data that can be packed");
        let (mut unpacker, mut out) = (Decompressor::new(), vec![0; data.len()]);
        group.bench_function(codec.name(), |b| {
            b.iter(|| unpacker.unpack(codec, 0, packed.get(..packed_len).unwrap_or_default(), &mut out))
        });
    }
    group.finish();
}

fn filter(c: &mut Criterion) {
    let file = open("x86_64-7.2-instances");
    let dec = Decoder::new(file.decoder_parts());
    let records: Vec<Kept> =
        by_event(&file, &dec).into_iter().find(|(name, _)| name == "sched_switch").map(|k| k.1).unwrap_or_default();
    let mut group = c.benchmark_group("filter");
    group.throughput(Throughput::Elements(records.len() as u64));
    for text in [
        "sched_switch: prev_pid > 100 && next_prio < 120",
        "sched_switch: next_comm =~ \"kworker.*\"",
        ".*: COMM == \"ls\"",
    ] {
        let mut set = FilterSet::new(&dec);
        set.add(Filter::new(&dec, text).expect("a filter"), false);
        group.bench_function(text, |b| {
            let mut state = FilterState::default();
            b.iter(|| records.iter().filter(|r| set.shows(&mut state, &dec, &r.record(), 0)).count())
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = print, symbols, unpack, filter
}
criterion_main!(benches);
