//! How fast sub-buffers are walked and CPUs merged. `TRACE_DAT_BENCH=FILE` adds a real file.

#[path = "../tests/support/mod.rs"]
mod support;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use support::{Form, PLAIN, records};
use trace_dat::{Endian, OpenOptions, TraceFile, compress::Codec, time::TimeMap};

fn walk(file: &TraceFile) -> u64 {
    let mut merge = file.records(&TimeMap::default());
    let mut n = 0;
    while let Some(r) = merge.next() {
        n += u64::from(r.record().data.len() >= 2);
    }
    n
}

fn bench(c: &mut Criterion) {
    let mut files = Vec::new();
    let form = |endian, codec| Form { endian, codec, ..PLAIN };
    let one = vec![records(200_000, 1000, 500, 1)];
    files.push(("walk one CPU, little endian", form(Endian::Little, Codec::None).file(&one)));
    files.push(("walk one CPU, big endian", form(Endian::Big, Codec::None).file(&one)));
    files.push(("walk one CPU, zstd", form(Endian::Little, Codec::Zstd).file(&one)));
    for (name, cpus) in [("merge 2 CPUs", 2), ("merge 256 CPUs", 256)] {
        let data: Vec<_> = (0..cpus).map(|c| records(200_000 / cpus, 1000, 500, c as u64)).collect();
        files.push((name, form(Endian::Little, Codec::None).file(&data)));
    }
    // CPUs that are busy one after the other, as they are in most traces.
    let runs: Vec<_> = (0..2u64)
        .map(|cpu| {
            let mut all = records(100_000, 1000, 100, cpu);
            all.iter_mut().enumerate().for_each(|(i, r)| r.0 += (i as u64 / 500 * 2 + cpu) * 200_000);
            all
        })
        .collect();
    files.push(("merge 2 CPUs in runs of 500", form(Endian::Little, Codec::None).file(&runs)));
    let mut group = c.benchmark_group("ring");
    for (name, bytes) in files {
        let file = OpenOptions::new().threads(0).open_bytes(name, bytes).expect("a file that was just made");
        group.throughput(Throughput::Elements(walk(&file)));
        group.bench_function(name, |b| b.iter(|| walk(&file)));
    }
    if let Some(path) = std::env::var_os("TRACE_DAT_BENCH") {
        for threads in [0, 1] {
            let file = OpenOptions::new().threads(threads).open(&path).expect("the file of TRACE_DAT_BENCH");
            group.throughput(Throughput::Elements(walk(&file)));
            group.bench_function(format!("real file, {threads} threads"), |b| b.iter(|| walk(&file)));
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = bench
}
criterion_main!(benches);
