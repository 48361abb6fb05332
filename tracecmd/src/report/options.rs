//! What the command line of `report` asks for.
//!
//! Some options belong to the input named before them, and count for all inputs when they stand before the first one.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use trace_dat::decoder::{PluginOption, PrintOptions};

use crate::cli::Opt;

/// One `-F`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterArg {
    /// The filter as typed.
    pub text: String,
    /// Whether a `-v` stood before it: what matches is hidden.
    pub negative: bool,
}

/// One input file with what was said about it alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InputArg {
    /// The file.
    pub path: PathBuf,
    /// Its own filters.
    pub filters: Vec<FilterArg>,
    /// `--ts-offset`: added to its times, in their unit.
    pub ts_offset: i64,
    /// `--ts2secs`: ticks in a second.
    pub ts2secs: Option<u64>,
}

/// Which lists or facts are shown instead of the records, by precedence of the reference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// `-p`
    pub page_size: bool,
    /// `-e`
    pub endian: bool,
    /// `-f`
    pub functions: bool,
    /// `-P`
    pub printk: bool,
    /// `--events`
    pub events: bool,
    /// `--check-events`
    pub check_events: bool,
    /// `-E`
    pub event_names: bool,
    /// `--stat`
    pub stat: bool,
    /// `--uname`
    pub uname: bool,
    /// `--version`
    pub version: bool,
    /// `--cpus`
    pub cpus: bool,
    /// `--first-event`
    pub first_event: bool,
    /// `--last-event`
    pub last_event: bool,
}

/// A bound of `--from` or `--to`, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// A time as the report shows it.
    At(u64),
    /// So long after the first event.
    AfterFirst(u64),
    /// So long before the last event.
    BeforeLast(u64),
}

/// When colours are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ColorWhen {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// All options of one call.
#[derive(Clone, Debug, Default)]
pub struct ReportOptions {
    /// The inputs, at least one.
    pub inputs: Vec<InputArg>,
    /// Filters that stood before the first input: for every input.
    pub filters: Vec<FilterArg>,
    /// The filters that `--pid` and `--comm` stand for are made when the names are known.
    pub pids: Vec<String>,
    /// `--comm`.
    pub comms: Vec<String>,
    /// Lists and facts.
    pub facts: Facts,
    /// `--event RE`.
    pub event_formats: Option<String>,
    /// `--cpu`: only these CPUs; empty: all.
    pub cpu: Vec<(u32, u32)>,
    /// `-I`.
    pub no_hardirq: bool,
    /// `-S`.
    pub no_softirq: bool,
    /// `-T`.
    pub test_filters: bool,
    /// `-l`.
    pub latency: bool,
    /// `-w`.
    pub wakeup: bool,
    /// `-q`.
    pub quiet: bool,
    /// How events are printed: `-R -r -N -L -n -O -t`.
    pub print: PrintOptions,
    /// Log level of `-V`.
    pub verbose: Option<u8>,
    /// `--nodate`.
    pub nodate: bool,
    /// `--raw-ts`.
    pub raw_ts: bool,
    /// `--align-ts`.
    pub align_ts: bool,
    /// `--ts-diff`.
    pub ts_diff: bool,
    /// `--ts-check`.
    pub ts_check: bool,
    /// `--ts2secs` before the second input: for all without one of their own.
    pub ts2secs: Option<u64>,
    /// `--kallsyms`.
    pub kallsyms: Option<PathBuf>,
    /// `--profile`.
    pub profile: bool,
    /// `-G`.
    pub global: bool,
    /// `-H`.
    pub hooks: Vec<String>,
    /// `--by-comm`.
    pub by_comm: bool,
    /// `--boundary`.
    pub boundary: bool,
    /// `--debug`.
    pub debug: bool,
    /// `--from`.
    pub from: Option<Bound>,
    /// `--to`.
    pub to: Option<Bound>,
    /// `--head`.
    pub head: Option<u64>,
    /// `--tail`.
    pub tail: Option<u64>,
    /// `--json`.
    pub json: bool,
    /// `--color`.
    pub color: ColorWhen,
    /// `--pager`.
    pub pager: bool,
    /// `--threads`.
    pub threads: Option<usize>,
}

/// Log level from which facts about the files are shown: info.
const LEVEL_INFO: u8 = 4;

impl ReportOptions {
    /// Whether facts about the files stand before the report: their version, and which CPUs have no data.
    pub fn shows_info(&self) -> bool {
        self.debug || self.verbose.is_some_and(|level| level >= LEVEL_INFO)
    }

    /// Reads the options in their order.
    ///
    /// # Errors
    /// For values that cannot be understood, `-v` twice, and files given in two ways.
    pub fn parse(options: &[Opt]) -> Result<Self> {
        let mut o = ReportOptions::default();
        let mut words = Vec::new();
        let mut negative = false;
        // What stood before the first input and goes to the first one, whatever its name will be.
        let mut first_offset = 0;
        for opt in options {
            let text = || opt.text();
            match opt.id.as_str() {
                "i" => o.inputs.push(InputArg { path: path(opt), ..InputArg::default() }),
                "file" => words.push(path(opt)),
                "F" => {
                    let filter = FilterArg { text: text(), negative };
                    match o.inputs.last_mut() {
                        Some(input) => input.filters.push(filter),
                        None => o.filters.push(filter),
                    }
                }
                "v" => {
                    ensure!(!negative, "Only 1 -v can be used");
                    negative = true;
                }
                "ts-offset" => {
                    let offset = signed(&text()).context("--ts-offset")?;
                    let place = o.inputs.last_mut().map_or(&mut first_offset, |i| &mut i.ts_offset);
                    *place = place.wrapping_add(offset);
                }
                "ts2secs" => {
                    let hz = number(&text()).context("--ts2secs")?;
                    if o.inputs.len() < 2 {
                        o.ts2secs = Some(hz);
                    } else if let Some(input) = o.inputs.last_mut() {
                        input.ts2secs = Some(hz);
                    }
                }
                "e" => o.facts.endian = true,
                "f" => o.facts.functions = true,
                "P" => o.facts.printk = true,
                "E" => o.facts.event_names = true,
                "p" => o.facts.page_size = true,
                "events" => o.facts.events = true,
                "event" => o.event_formats = Some(text()),
                "check-events" => o.facts.check_events = true,
                "cpus" => o.facts.cpus = true,
                "first-event" => (o.facts.cpus, o.facts.first_event) = (true, true),
                "last-event" => (o.facts.cpus, o.facts.last_event) = (true, true),
                "stat" => o.facts.stat = true,
                "uname" => o.facts.uname = true,
                "version" => o.facts.version = true,
                "cpu" => o.cpu.extend(cpu_list(&text())?),
                "T" => o.test_filters = true,
                "pid" => o.pids.extend(list(&text())),
                "comm" => o.comms.extend(list(&text())),
                "I" => o.no_hardirq = true,
                "S" => o.no_softirq = true,
                "t" => o.print.nanoseconds = true,
                "l" => o.latency = true,
                "R" => o.print.raw = true,
                "r" => o.print.raw_events.push(PrintOptions::event_regex(&text()).context("-r")?),
                "n" => o.print.no_plugin_events.push(PrintOptions::event_regex(&text()).context("-n")?),
                "N" | "L" => o.print.no_plugins = true,
                "O" => o.print.plugin_options.push(plugin_option(&text())),
                "w" => o.wakeup = true,
                "q" => o.quiet = true,
                "V" => o.verbose = Some(log_level(opt.value.as_ref().map(|_| text()).as_deref())?),
                "nodate" => o.nodate = true,
                "raw-ts" => (o.raw_ts, o.print.raw_times) = (true, true),
                "align-ts" => o.align_ts = true,
                "ts-diff" => o.ts_diff = true,
                "ts-check" => o.ts_check = true,
                "kallsyms" => o.kallsyms = Some(path(opt)),
                "profile" => o.profile = true,
                "G" => o.global = true,
                "H" => o.hooks.push(text()),
                "by-comm" => o.by_comm = true,
                "boundary" => o.boundary = true,
                "debug" => (o.boundary, o.debug) = (true, true),
                "from" => o.from = Some(bound(&text()).context("--from")?),
                "to" => o.to = Some(bound(&text()).context("--to")?),
                "head" => o.head = Some(number(&text()).context("--head")?),
                "tail" => o.tail = Some(number(&text()).context("--tail")?),
                "json" => o.json = true,
                "color" => {
                    o.color = match text().as_str() {
                        "auto" => ColorWhen::Auto,
                        "always" => ColorWhen::Always,
                        "never" => ColorWhen::Never,
                        other => bail!("--color: {other:?} is none of auto, always, never"),
                    }
                }
                "pager" => o.pager = true,
                "threads" => {
                    let n = number(&text()).context("--threads")?;
                    ensure!((1..=1024).contains(&n), "--threads: {n} is not between 1 and 1024");
                    o.threads = Some(n as usize);
                }
                _ => {}
            }
        }
        ensure!(o.inputs.is_empty() || words.is_empty(), "files are named with -i or without it, not both ways");
        o.inputs.extend(words.into_iter().map(|path| InputArg { path, ..InputArg::default() }));
        if o.inputs.is_empty() {
            o.inputs.push(InputArg { path: "trace.dat".into(), ..InputArg::default() });
        }
        if let Some(first) = o.inputs.first_mut() {
            first.ts_offset = first.ts_offset.wrapping_add(first_offset);
        }
        ensure!(!o.wakeup || o.inputs.len() == 1, "Wakeup tracing can only be done on a single input file");
        Ok(o)
    }

    /// Whether `cpu` is to be shown.
    #[inline]
    pub fn wants_cpu(&self, cpu: u32) -> bool {
        self.cpu.is_empty() || self.cpu.iter().any(|(from, to)| (*from..=*to).contains(&cpu))
    }
}

fn path(opt: &Opt) -> PathBuf {
    PathBuf::from(opt.value.clone().unwrap_or_default())
}

fn list(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned)
}

/// A number as C's `strtoull` with base 0 reads it: decimal, `0x` hexadecimal, `0` octal.
///
/// # Errors
/// When the text is no such number.
pub fn number(text: &str) -> Result<u64> {
    let text = text.trim();
    let digits = text.strip_prefix('+').unwrap_or(text);
    let parsed = if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        u64::from_str_radix(hex, 16)
    } else if digits.len() > 1 && digits.starts_with('0') {
        u64::from_str_radix(digits, 8)
    } else {
        digits.parse()
    };
    parsed.with_context(|| format!("{text:?} is not a number"))
}

/// A number with sign.
///
/// # Errors
/// When the text is no number.
pub fn signed(text: &str) -> Result<i64> {
    let text = text.trim();
    Ok(match text.strip_prefix('-') {
        Some(rest) => 0i64.wrapping_sub(number(rest)? as i64),
        None => number(text)? as i64,
    })
}

/// `1,3-5`; `:` separates too.
fn cpu_list(text: &str) -> Result<Vec<(u32, u32)>> {
    let mut cpus = Vec::new();
    for part in text.split([',', ':']).map(str::trim).filter(|p| !p.is_empty()) {
        let one = |s: &str| -> Result<u32> {
            s.trim().parse().ok().with_context(|| format!("{s:?} in cpu list {text:?} is not a CPU number"))
        };
        let (from, to) = match part.split_once('-') {
            Some((from, to)) => (one(from)?, one(to)?),
            None => (one(part)?, one(part)?),
        };
        ensure!(from <= to, "{part:?} in cpu list {text:?} runs backwards");
        cpus.push((from, to));
    }
    ensure!(!cpus.is_empty(), "cpu list {text:?} is empty");
    Ok(cpus)
}

/// `[plugin:]option[=value]`.
fn plugin_option(text: &str) -> PluginOption {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    match name.split_once(':') {
        Some((plugin, name)) => PluginOption { plugin: Some(plugin.to_owned()), name: name.to_owned(), value },
        None => PluginOption { plugin: None, name: name.to_owned(), value },
    }
}

/// A log level by number or (the beginning of a) name; without value `info`.
fn log_level(text: Option<&str>) -> Result<u8> {
    let Some(text) = text else { return Ok(4) };
    if let Ok(n) = text.parse::<u8>() {
        return Ok(n.min(6));
    }
    let names = [("none", 0), ("crit", 1), ("err", 2), ("warn", 3), ("info", 4), ("debug", 5), ("all", 6)];
    names
        .iter()
        .find(|(name, _)| text.starts_with(name))
        .map(|(_, level)| *level)
        .with_context(|| format!("{text:?} is not a log level"))
}

/// Seconds with up to nine digits behind the point, to nanoseconds.
fn seconds(text: &str) -> Result<u64> {
    let wrong = || format!("{text:?} is not a time in seconds");
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    ensure!(!(whole.is_empty() && part.is_empty()), wrong());
    ensure!(whole.bytes().chain(part.bytes()).all(|b| b.is_ascii_digit()), wrong());
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().with_context(wrong)? };
    let nanos: u64 = format!("{:0<9}", part.get(..9).unwrap_or(part)).parse().with_context(wrong)?;
    whole.checked_mul(1_000_000_000).and_then(|n| n.checked_add(nanos)).with_context(wrong)
}

fn bound(text: &str) -> Result<Bound> {
    if let Some(after) = text.strip_prefix('+') {
        return Ok(Bound::AfterFirst(seconds(after)?));
    }
    if let Some(before) = text.strip_prefix('-') {
        return Ok(Bound::BeforeLast(seconds(before)?));
    }
    Ok(Bound::At(seconds(text)?))
}

/// The last part of a path, as the prefix of lines shows it.
pub fn base_name(path: &std::path::Path) -> Vec<u8> {
    path.file_name().unwrap_or(path.as_os_str()).as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn parse(line: &str) -> Result<ReportOptions> {
        let entry = crate::cli::find("report".as_ref()).unwrap();
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let matches = crate::cli::parse("tracecmd", entry, &words)?;
        ReportOptions::parse(&crate::cli::ordered(&matches))
    }

    #[test]
    fn filters_belong_to_the_input_before_them() {
        let o = parse("-F a -i x -F b -v -F c -i y -F d").unwrap();
        let all = |f: &[FilterArg]| f.iter().map(|f| (f.text.clone(), f.negative)).collect::<Vec<_>>();
        assert_eq!(all(&o.filters), [("a".into(), false)]);
        assert_eq!(all(&o.inputs[0].filters), [("b".into(), false), ("c".into(), true)]);
        assert_eq!(all(&o.inputs[1].filters), [("d".into(), true)]);
        assert!(parse("-v -v").is_err());
    }

    #[test]
    fn times_of_inputs() {
        let o = parse("--ts-offset 5 -i x --ts-offset -7 --ts2secs 100 -i y --ts2secs 1000 --ts-offset 0x10").unwrap();
        assert_eq!(o.inputs[0].ts_offset, -2);
        assert_eq!((o.ts2secs, o.inputs[0].ts2secs), (Some(100), None));
        assert_eq!((o.inputs[1].ts2secs, o.inputs[1].ts_offset), (Some(1000), 16));
        assert_eq!(parse("--ts-offset 9 a.dat").unwrap().inputs[0].ts_offset, 9);
    }

    #[test]
    fn inputs() {
        assert_eq!(parse("").unwrap().inputs[0].path, PathBuf::from("trace.dat"));
        assert_eq!(parse("a b").unwrap().inputs.len(), 2);
        assert!(parse("-i a b").is_err());
        assert!(parse("-w a b").is_err());
    }

    #[test]
    fn cpus() {
        assert_eq!(cpu_list("1,3-5:7").unwrap(), [(1, 1), (3, 5), (7, 7)]);
        for wrong in ["", "x", "1-", "5-3", "-1"] {
            assert!(cpu_list(wrong).is_err(), "{wrong:?}");
        }
        let o = parse("--cpu 1,3-5").unwrap();
        assert!(o.wants_cpu(4) && !o.wants_cpu(2));
        assert!(parse("").unwrap().wants_cpu(2));
    }

    #[test]
    fn numbers() {
        assert_eq!(number("010").unwrap(), 8);
        assert_eq!(number("0x1f").unwrap(), 31);
        assert_eq!(number("0").unwrap(), 0);
        assert!(number("1x").is_err() && number("").is_err() && number("-1").is_err());
        assert_eq!(signed("-0x10").unwrap(), -16);
        assert_eq!(signed("18446744073709551615").unwrap(), -1);
    }

    #[test]
    fn bounds() {
        assert_eq!(bound("1.5").unwrap(), Bound::At(1_500_000_000));
        assert_eq!(bound("+0.000000001").unwrap(), Bound::AfterFirst(1));
        assert_eq!(bound("-2").unwrap(), Bound::BeforeLast(2_000_000_000));
        for wrong in ["", ".", "x", "1.x", "--1", "99999999999999999999"] {
            assert!(bound(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn log_levels() {
        for (text, want) in [("1", 1), ("critical", 1), ("warning", 3), ("all", 6), ("info", 4)] {
            assert_eq!(log_level(Some(text)).unwrap(), want);
        }
        assert_eq!(parse("-V").unwrap().verbose, Some(4));
        assert_eq!(parse("-V5").unwrap().verbose, Some(5));
        assert_eq!(log_level(Some("9")).unwrap(), 6);
        assert!(log_level(Some("loud")).is_err());
    }

    #[test]
    fn plugin_options() {
        let o = parse("-O fgraph:tailprint -O parent=1").unwrap().print.plugin_options;
        assert_eq!(
            (o[0].plugin.as_deref(), o[0].name.as_str(), o[0].value.as_deref()),
            (Some("fgraph"), "tailprint", None)
        );
        assert_eq!((o[1].plugin.as_deref(), o[1].name.as_str(), o[1].value.as_deref()), (None, "parent", Some("1")));
    }
}
