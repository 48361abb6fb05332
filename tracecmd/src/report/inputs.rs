//! The input files: opened, with decoders, corrected times, and the streams of their buffers.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result};
use trace_dat::{
    Decoder, LazyText, OpenOptions, TraceFile,
    ring::merge::Merge,
    time::{Scale, TimeMap},
};

use rustc_hash::FxHashMap;

use crate::cmd::restore;

use super::{
    facts,
    layout::CommonFields,
    options::{InputArg, ReportOptions, base_name},
    stream::{Stream, prefixes},
    time::time_format,
};

/// One open input.
#[derive(Debug)]
pub struct Input {
    /// What the command line said about it.
    pub arg: InputArg,
    /// The file.
    pub file: TraceFile,
    /// Its formats, symbols and names.
    pub dec: Arc<Decoder>,
    /// How its times are corrected.
    pub time: TimeMap,
    /// What `--align-ts` adds to its times.
    pub aligned: u64,
    /// What stands before its line `cpus=N`.
    pub prefix: Vec<u8>,
}

/// Everything that is read for one report.
#[derive(Debug)]
pub struct Inputs {
    /// The files.
    pub inputs: Vec<Input>,
    /// The buffers of all files, in the order that equal times have.
    pub streams: Vec<Stream>,
}

impl Inputs {
    /// Opens the files.
    ///
    /// # Errors
    /// When one cannot be opened or is no trace.dat file.
    pub fn open(options: &ReportOptions) -> Result<Inputs> {
        let mut inputs = Vec::new();
        for arg in &options.inputs {
            inputs.push(open_one(options, arg)?);
        }
        if options.align_ts && !options.raw_ts {
            align(&mut inputs);
        }
        let streams = streams(options, &mut inputs);
        Ok(Inputs { inputs, streams })
    }

    /// The merged records of each stream; `wants_cpu` chooses CPUs.
    pub fn merges(&self, wants_cpu: impl Fn(u32) -> bool) -> Vec<Merge> {
        self.some_merges(1, wants_cpu)
    }

    /// The merged records of each stream, as one of so many threads reads them at the same time.
    pub fn merges_of_many(&self, threads: usize) -> Vec<Merge> {
        self.some_merges(threads, |_| true)
    }

    fn some_merges(&self, threads: usize, wants_cpu: impl Fn(u32) -> bool) -> Vec<Merge> {
        let mut merges = Vec::new();
        for stream in &self.streams {
            let Some(input) = self.inputs.get(stream.input) else { continue };
            let chosen = |b: &trace_dat::read::Buffer, cpu| stream.is(b) && wants_cpu(cpu);
            merges.push(Merge::new(input.file.inputs_of_many(threads, &input.time, chosen)));
        }
        merges
    }

    /// By stream and CPU, where compressed data begin in the copy that the reference makes of them.
    pub fn unpacked_places(&self) -> FxHashMap<(u32, u32), u64> {
        let mut all = FxHashMap::default();
        for (tag, stream) in (0..).zip(&self.streams) {
            let Some(input) = self.inputs.get(stream.input) else { continue };
            for buffer in input.file.buffers().iter().filter(|b| stream.is(b)) {
                let packed = |cpu| buffer.cpus.iter().any(|c| c.cpu == cpu && c.packed);
                for place in facts::places(&input.file, buffer).iter().filter(|p| packed(p.cpu)) {
                    all.insert((tag, place.cpu), place.offset);
                }
            }
        }
        all
    }

    /// Corrected times of the first and the last record of all.
    pub fn time_range(&self) -> Option<(u64, u64)> {
        let mut range = None;
        for mut merge in self.merges(|_| true) {
            if let (Some(first), Some(last)) = (merge.first_ts(), merge.last_ts()) {
                let (f, l) = range.unwrap_or((first, last));
                range = Some((first.min(f), last.max(l)));
            }
        }
        range
    }
}

fn open_one(options: &ReportOptions, arg: &InputArg) -> Result<Input> {
    let threads = options.threads.unwrap_or_else(default_threads);
    // Printing needs the cores more than unpacking does: one thread keeps ahead of many that print. With two cores the
    // thread that merges unpacks too: what another core has unpacked would have to come over from its cache.
    let open = OpenOptions::new().threads(if threads > 2 { (threads / 4).clamp(1, 4) } else { 0 });
    let file = match restore::interrupted(Path::new(&arg.path), &open) {
        Some(file) => file?,
        None => open.open(&arg.path)?,
    };
    let mut parts = file.decoder_parts();
    parts.options = options.print.clone();
    if let Some(path) = &options.kallsyms {
        let more = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let saved = std::mem::take(&mut parts.kallsyms);
        parts.kallsyms = LazyText::read(move || {
            let mut text = saved.load()?.into_vec();
            if !text.ends_with(b"\n") && !text.is_empty() {
                text.push(b'\n');
            }
            text.extend_from_slice(&more);
            Ok(text)
        });
    }
    let time = time_map(options, arg, &file);
    Ok(Input { arg: arg.clone(), dec: Arc::new(Decoder::new(parts)), file, time, aligned: 0, prefix: Vec::new() })
}

/// How many threads print when nobody says: one for each CPU this process may use.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

fn time_map(options: &ReportOptions, arg: &InputArg, file: &TraceFile) -> TimeMap {
    if options.raw_ts {
        return TimeMap::default();
    }
    let mut time = file.time_map(!options.nodate);
    if let Some(hz) = arg.ts2secs.or(options.ts2secs).filter(|hz| *hz > 0) {
        time.scale = Scale::TicksPerSecond(hz);
    }
    time.offset = time.offset.wrapping_add(arg.ts_offset as u64);
    time
}

/// Has all times count from the first record of all inputs.
fn align(inputs: &mut [Input]) {
    let first = inputs.iter().filter_map(|i| i.file.records(&i.time).first_ts()).min();
    for input in inputs {
        input.aligned = first.unwrap_or(0).wrapping_neg();
        input.time.offset = input.time.offset.wrapping_add(input.aligned);
    }
}

fn streams(options: &ReportOptions, inputs: &mut [Input]) -> Vec<Stream> {
    let several = inputs.len() > 1;
    let mut streams = Vec::new();
    let mut names = Vec::new();
    for (index, input) in inputs.iter().enumerate() {
        let file_name = if several { base_name(&input.arg.path) } else { Vec::new() };
        let clock = input.file.clock();
        let common = CommonFields::new(input.dec.endian(), input.dec.events().next());
        let hz = arg_hz(options, &input.arg);
        // The top buffer is a stream even when the file has none, so that its name counts for the width.
        let top = input.file.buffers().iter().any(|b| b.is_top());
        let mut add = |buffer: String, name: Vec<u8>, clock: Option<&str>| {
            let has_scale = input.time.scale != Scale::None && hz.is_none();
            streams.push(Stream {
                input: index,
                buffer,
                prefix: Vec::new(),
                dec: input.dec.clone(),
                common,
                time: time_format(clock, has_scale, options.raw_ts, options.print.nanoseconds),
                diff_micros: clock.is_some() && hz.is_none() && !options.print.nanoseconds,
            });
            names.push(name);
        };
        if !top {
            add(String::new(), file_name.clone(), clock);
        }
        for buffer in input.file.buffers() {
            let name = if buffer.is_top() { file_name.clone() } else { buffer.name.clone().into_bytes() };
            add(buffer.name.clone(), name, buffer.clock.as_deref().or(clock));
        }
    }
    let all = prefixes(&names);
    for (stream, prefix) in streams.iter_mut().zip(all) {
        stream.prefix = prefix;
    }
    for (index, input) in inputs.iter_mut().enumerate().filter(|_| several) {
        let own = streams.iter().find(|s| s.input == index && s.buffer.is_empty());
        input.prefix = own.map(|s| s.prefix.clone()).unwrap_or_default();
    }
    streams
}

fn arg_hz(options: &ReportOptions, arg: &InputArg) -> Option<u64> {
    arg.ts2secs.or(options.ts2secs).filter(|hz| *hz > 0)
}
