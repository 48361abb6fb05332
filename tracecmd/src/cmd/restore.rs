//! `restore`: a trace file from the raw data of the CPUs that an interrupted recording left behind.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use trace_dat::{
    LongSize, OpenOptions, TraceFile,
    compress::Codec,
    read::header::PageLayout,
    source::read_full,
    write::{BufferHead, FileHead, FileVersion, Metadata, Writer},
};
use tracefs::TraceFs;

use crate::cli::Ctx;
use crate::files::{self, progress::Progress};
use crate::plan::{Plan, Verb};
use crate::tracefile::{self, BufferFacts, Extras};

/// Defines the options.
pub fn command() -> Command {
    let path =
        |id: &'static str, name: &'static str| Arg::new(id).value_name(name).value_parser(value_parser!(PathBuf));
    Command::new("restore")
        .arg(
            Arg::new("create")
                .short('c')
                .action(ArgAction::SetTrue)
                .conflicts_with("input")
                .help("only write what this machine says of its events, into trace-partial.dat"),
        )
        .arg(path("output", "FILE").short('o').help("file to write [default: trace.dat]"))
        .arg(path("input", "FILE").short('i').help("file that -c wrote on the traced machine"))
        .arg(path("tracing", "DIR").short('t').help("another tracing directory"))
        .arg(path("kallsyms", "FILE").short('k').help("another kallsyms"))
        .arg(
            path("files", "FILE")
                .num_args(0..)
                .help("raw data of CPU 0, CPU 1, ...; or the name of the interrupted recording [default: trace.dat]"),
        )
}

/// Restores.
///
/// # Errors
/// Without raw data, or when it cannot be read or written. The raw data stays.
pub fn run(cx: &Ctx, m: &ArgMatches) -> anyhow::Result<ExitCode> {
    let input = m.get_one::<PathBuf>("input");
    let mut output = m.get_one::<PathBuf>("output").cloned();
    let words: Vec<PathBuf> = m.get_many::<PathBuf>("files").into_iter().flatten().cloned().collect();
    if m.get_flag("create") {
        let (head, meta) = local(m, None)?;
        let output = output.unwrap_or_else(|| "trace-partial.dat".into());
        Writer::create(&output, head, &meta, Vec::new())?.commit()?;
        return Ok(ExitCode::SUCCESS);
    }
    files::tidy_on_signal()?;
    // The buffers' raw files: given one by one for the top buffer, or found by the recording's name.
    let name = match words.as_slice() {
        [] => Some(PathBuf::from("trace.dat")),
        [one] => (!is_raw(one) || !leftovers(one)?.is_empty()).then(|| one.clone()),
        _ => None,
    };
    let buffers = match &name {
        Some(name) => {
            let found = leftovers(name)?;
            if found.is_empty() {
                bail!("No data files found: there is no {}.cpu0 or the like", name.display());
            }
            // The recording's own name is free as long as it is not finished.
            if output.is_none() && name.exists() {
                bail!("{} exists already; name another output with -o", name.display());
            }
            output.get_or_insert_with(|| name.clone());
            found
        }
        None => BTreeMap::from([(String::new(), (0..).zip(words.iter().cloned()).collect())]),
    };
    let output = output.unwrap_or_else(|| "trace.dat".into());
    let mut inputs: Vec<PathBuf> =
        buffers.values().flat_map(|b: &BTreeMap<u32, PathBuf>| b.values().cloned()).collect();
    inputs.extend(input.cloned());
    files::not_an_input(&output, &inputs)?;

    // What the recording said of its kernel before the first event: better than what this boot says.
    let described = name.as_ref().map(|n| with_suffix(n, ".meta")).filter(|p| input.is_none() && p.exists());
    let input = input.or(described.as_ref());
    let highest = buffers.values().flat_map(|b| b.keys()).max().map_or(0, |c| c + 1);
    let (head, mut meta, page) = match input {
        Some(path) => {
            let file = files::open(path)?;
            files::warn(&cx.program, &file);
            let page = file.page_layout().subbuf_size;
            (FileHead::of(&file), Metadata::of(&file)?, page)
        }
        None => {
            let (head, meta) = local(m, Some(&buffers))?;
            let page = std::fs::read(tracing_dir(m)?.join("events/header_page")).unwrap_or_default();
            (head, meta, PageLayout::parse(&page, LongSize::Eight).subbuf_size)
        }
    };
    meta.cpus = meta.cpus.max(highest);
    let page = u32::try_from(page).ok().filter(|p| *p > 0).unwrap_or(head.page_size);
    let clock = meta.clock();
    // An instance of this machine that is still there knows its own clock and size.
    let root = if input.is_none() { Some(TraceFs::at(tracing_dir(m)?)) } else { None };
    let head_of = |name: &str| {
        let live = root.as_ref().and_then(|r| r.instance(name).ok()).and_then(|i| BufferFacts::read(&i, false).ok());
        match live {
            Some(f) => BufferHead::new(name, f.selected_clock(), u32::try_from(f.subbuf).unwrap_or(page)),
            None => BufferHead::new(name, clock.clone(), page),
        }
    };
    let mut heads = vec![BufferHead::new("", clock.clone(), page)];
    heads.extend(buffers.keys().filter(|n| !n.is_empty()).map(|n| head_of(n)));
    let codec = if head.version == FileVersion::V6 { Codec::None } else { head.codec };
    let head = FileHead { codec, ..head };
    let mut writer = Writer::create(&output, head, &meta, heads.clone())?;
    let total = inputs.iter().filter_map(|p| std::fs::metadata(p).ok()).map(|m| m.len()).sum();
    let mut progress = Progress::bytes(total);
    for (n, h) in heads.iter().enumerate() {
        let cpus = buffers.get(std::str::from_utf8(&h.name).unwrap_or_default());
        for (cpu, path) in cpus.into_iter().flatten() {
            copy_raw(&mut writer, (n, *cpu), path, h.page_size as usize, &mut progress)?;
        }
    }
    let summary = writer.commit()?;
    drop(progress);
    files::print_offsets(&summary, &mut crate::output::guard::stderr())?;
    if name.is_some() {
        eprintln!("{}: {} is restored; the raw files can be removed", cx.program, output.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether a name ends as the raw data of a CPU does.
fn is_raw(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.rsplit_once(".cpu").is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A recording that did not come to its end, as far as it went: its raw data with the description that lies beside them.
/// `None` when there is a file of that name, or nothing of such a recording.
pub fn interrupted(path: &Path, how: &OpenOptions) -> Option<trace_dat::Result<TraceFile>> {
    let description = with_suffix(path, ".meta");
    if path.exists() || !description.exists() {
        return None;
    }
    let found = leftovers(path).ok().filter(|f| !f.is_empty())?;
    let raw: Vec<(String, u32, PathBuf)> = (found.into_iter())
        .flat_map(|(name, cpus)| cpus.into_iter().map(move |(cpu, path)| (name.clone(), cpu, path)))
        .collect();
    log::warn!(
        "{} is not finished: this is what its raw files ({}) have; the command restore makes a file of them",
        path.display(),
        raw.len()
    );
    Some(how.open_raw(path, description, &raw))
}

/// The raw files of a recording: by instance (empty for the top buffer) and CPU.
fn leftovers(output: &Path) -> anyhow::Result<BTreeMap<String, BTreeMap<u32, PathBuf>>> {
    let mut found: BTreeMap<String, BTreeMap<u32, PathBuf>> = BTreeMap::new();
    let base = output.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let dir = output.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(&base).and_then(|r| r.strip_prefix('.')) else { continue };
        let (instance, cpu) = match rest.rsplit_once('.') {
            Some((instance, cpu)) => (instance, cpu),
            None => ("", rest),
        };
        if let Some(cpu) = cpu.strip_prefix("cpu").and_then(|n| n.parse().ok()) {
            found.entry(instance.to_owned()).or_default().insert(cpu, dir.join(&name));
        }
    }
    Ok(found)
}

fn tracing_dir(m: &ArgMatches) -> anyhow::Result<PathBuf> {
    match m.get_one::<PathBuf>("tracing") {
        Some(dir) => Ok(dir.clone()),
        None => Ok(TraceFs::find()?.dir().path().to_path_buf()),
    }
}

/// What this machine says of its events, for a file of its own kind.
fn local(
    m: &ArgMatches,
    buffers: Option<&BTreeMap<String, BTreeMap<u32, PathBuf>>>,
) -> anyhow::Result<(FileHead, Metadata)> {
    let root = TraceFs::at(tracing_dir(m)?);
    let plan = Plan::new(Verb::Extract, &[])?;
    let mut meta = tracefile::metadata(&root, &plan, &[], &Extras::default())?;
    if let Some(path) = m.get_one::<PathBuf>("kallsyms") {
        meta.kallsyms(std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    let long_size = if size_of::<usize>() == 4 { LongSize::Four } else { LongSize::Eight };
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.unwrap_or(4096) as u32;
    // What -c writes is not compressed, so that it is small to read anywhere; a restored file is.
    let codec = if buffers.is_some() { Codec::Zstd } else { Codec::None };
    Ok((FileHead { version: FileVersion::V7, endian: tracefile::HOST_ENDIAN, long_size, page_size: page, codec }, meta))
}

/// Copies a raw file; a last piece that is no whole sub-buffer is filled with zeros.
fn copy_raw<W: std::io::Write + std::io::Seek>(
    writer: &mut Writer<W>,
    (buffer, cpu): (usize, u32),
    path: &Path,
    page: usize,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    let at = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(at)?;
    let mut window = vec![0; (1usize << 20).next_multiple_of(page)];
    let mut begun = false;
    loop {
        let n = read_full(&mut file, &mut window).with_context(at)?.len();
        if n == 0 {
            return Ok(());
        }
        if !begun {
            writer.cpu(buffer, cpu)?;
            begun = true;
        }
        let whole = window.get_mut(..n.next_multiple_of(page)).unwrap_or_default();
        whole.iter_mut().skip(n).for_each(|b| *b = 0);
        writer.sub_buffers(whole)?;
        progress.add(n as u64);
    }
}
