//! `mem`: memory that kernel functions allocate, from the events of the slab allocator.

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::{Context, ensure};
use clap::{Arg, ArgMatches, Command, value_parser};
use rustc_hash::FxHashMap;
use trace_dat::{Decoder, Record, format::Event, read::TraceFile};

use crate::cli::Ctx;
use crate::files;
use crate::output::guard;

/// Defines the options.
pub fn command() -> Command {
    Command::new("mem").args(input_args()).after_help(
        "Columns: bytes that are allocated now without having been asked for (Waste), allocated and asked for now, in all, \
         and at most at one time. Record with: -e kmalloc -e kmalloc_node -e kfree -e 'kmem_cache_*'",
    )
}

/// `-i FILE` or FILE.
pub(crate) fn input_args() -> [Arg; 2] {
    let file = |name: &'static str| Arg::new(name).value_name("FILE").value_parser(value_parser!(PathBuf));
    [file("input").short('i').help("the file [default: trace.dat]"), file("file").help("the file, as with -i")]
}

/// The file that the options name.
pub(crate) fn input(m: &ArgMatches) -> PathBuf {
    let path = m.get_one::<PathBuf>("input").or_else(|| m.get_one("file"));
    path.cloned().unwrap_or_else(|| PathBuf::from("trace.dat"))
}

/// A number field's place.
#[derive(Clone, Copy, Debug)]
struct Place {
    offset: usize,
    size: usize,
}

impl Place {
    fn of(event: &Event, name: &str) -> Option<Place> {
        event.field(name).map(|f| Place { offset: f.offset, size: f.size })
    }

    fn get(self, dec: &Decoder, data: &[u8]) -> u64 {
        dec.endian().uint(data, self.offset, self.size).unwrap_or(0)
    }
}

/// What an event does.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Alloc { site: Place, ptr: Place, req: Place, alloc: Place },
    Free { ptr: Place },
}

/// Bytes of one function.
#[derive(Debug, Default)]
struct Usage {
    alloc: i64,
    req: i64,
    total_alloc: i64,
    total_req: i64,
    max_alloc: i64,
    max_req: i64,
}

/// The books.
#[derive(Debug, Default)]
struct Books {
    kinds: FxHashMap<u16, Kind>,
    by_function: FxHashMap<Vec<u8>, usize>,
    functions: Vec<(Vec<u8>, Usage)>,
    /// Live memory: whose, allocated, asked for. Memory whose freeing is not in the file is there more than once.
    live: FxHashMap<u64, Vec<(usize, i64, i64)>>,
}

impl Books {
    fn new(dec: &Decoder) -> Books {
        let mut books = Books::default();
        for name in ["kmalloc", "kmalloc_node", "kmem_cache_alloc", "kmem_cache_alloc_node"] {
            let kind = dec.find_event(Some("kmem"), name).and_then(|e| {
                let place = |field| Place::of(e, field);
                let (site, ptr) = (place("call_site")?, place("ptr")?);
                Some((e.id, Kind::Alloc { site, ptr, req: place("bytes_req")?, alloc: place("bytes_alloc")? }))
            });
            books.kinds.extend(kind);
        }
        for name in ["kfree", "kmem_cache_free"] {
            let kind =
                dec.find_event(Some("kmem"), name).and_then(|e| Some((e.id, Kind::Free { ptr: Place::of(e, "ptr")? })));
            books.kinds.extend(kind);
        }
        books
    }

    fn see(&mut self, dec: &Decoder, rec: &Record<'_>) {
        let data = rec.data;
        let Some(id) = data.first_chunk::<2>().map(|b| dec.endian().u16(*b)) else { return };
        match self.kinds.get(&id).copied() {
            None => {}
            Some(Kind::Free { ptr }) => self.free(ptr.get(dec, data)),
            Some(Kind::Alloc { site, ptr, req, alloc }) => {
                let site = site.get(dec, data);
                let name = match dec.symbols().find(site) {
                    Some(s) => s.name.to_vec(),
                    None => format!("{site:#x}").into_bytes(),
                };
                let functions = &mut self.functions;
                let at = *self.by_function.entry(name.clone()).or_insert_with(|| {
                    functions.push((name, Usage::default()));
                    functions.len() - 1
                });
                let (ptr, req, alloc) = (ptr.get(dec, data), req.get(dec, data) as i64, alloc.get(dec, data) as i64);
                self.live.entry(ptr).or_default().push((at, alloc, req));
                let Some((_, u)) = self.functions.get_mut(at) else { return };
                u.alloc = u.alloc.wrapping_add(alloc);
                u.req = u.req.wrapping_add(req);
                u.total_alloc = u.total_alloc.wrapping_add(alloc);
                u.total_req = u.total_req.wrapping_add(req);
                u.max_alloc = u.max_alloc.max(u.alloc);
                u.max_req = u.max_req.max(u.req);
            }
        }
    }

    fn free(&mut self, ptr: u64) {
        let Some((at, alloc, req)) = self.live.get_mut(&ptr).and_then(Vec::pop) else { return };
        if let Some((_, u)) = self.functions.get_mut(at) {
            u.alloc = u.alloc.wrapping_sub(alloc);
            u.req = u.req.wrapping_sub(req);
        }
    }

    fn print(mut self) -> Vec<u8> {
        self.functions.sort_by_key(|(_, u)| std::cmp::Reverse(u.alloc.wrapping_sub(u.req)));
        let mut out = Vec::new();
        for (name, dashes) in
            [(["Function", "Waste", "Alloc", "req"], false), (["--------", "-----", "-----", "---"], true)]
        {
            let rest = if dashes {
                "--------     ------\t\t--------     ------\t--------"
            } else {
                "TotAlloc     TotReq\t\tMaxAlloc     MaxReq\tMaxWaste"
            };
            let [function, waste, alloc, req] = name;
            out.extend_from_slice(
                format!("{function:>24}            \t{waste}\t{alloc}\t{req}\t\t{rest}\n").as_bytes(),
            );
        }
        for (name, u) in &self.functions {
            out.resize(out.len() + 32usize.saturating_sub(name.len()), b' ');
            out.extend_from_slice(name);
            let text = format!(
                "\t{}\t{}\t{}\t\t{:>8}   {:>8}\t\t{:>8}   {:>8}\t{}\n",
                u.alloc.wrapping_sub(u.req),
                u.alloc,
                u.req,
                u.total_alloc,
                u.total_req,
                u.max_alloc,
                u.max_req,
                // As the reference has it: not the most at one time, but the difference of the two.
                u.max_alloc.wrapping_sub(u.max_req)
            );
            out.extend_from_slice(text.as_bytes());
        }
        out
    }
}

/// Reads the file and prints the table.
///
/// # Errors
/// When the file cannot be read or is a latency trace.
pub fn run(cx: &Ctx, m: &ArgMatches) -> anyhow::Result<ExitCode> {
    let path = input(m);
    let file = TraceFile::open(&path)?;
    ensure!(file.latency_texts().is_empty(), "a latency trace has no records to count");
    let dec = file.decoder();
    let mut books = Books::new(&dec);
    let time = file.time_map(true);
    let mut merge = trace_dat::ring::merge::Merge::new(file.inputs(&time, |_, _| true));
    while let Some(record) = merge.next() {
        books.see(&dec, &record.record());
    }
    guard::stdout().write_all(&books.print()).context("cannot write the table")?;
    Ok(if files::warn(&cx.program, &file) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
