//! `list`: what the running kernel and this program offer.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Arg, ArgMatches, Command};
use regex::{Regex, RegexBuilder};
use trace_dat::compress::Codec;
use tracefs::{FuncPattern, TraceFs};

use crate::cli::{self, Ctx};
use crate::cmd::{buffers, options};

/// The options of `list`. A word behind `-e`, `-f` or `-o` chooses among what they list.
pub fn command() -> Command {
    Command::new("list")
        .arg(cli::switch("e", "Events; with a word: those whose system or name matches (SYSTEM:EVENT, basic regex)"))
        .arg(cli::switch("F", "Formats of the events chosen by -e"))
        .arg(cli::switch("full", "With -F: the print format too"))
        .arg(cli::switch("R", "Triggers of the events chosen by -e"))
        .arg(cli::switch("l", "Filters of the events chosen by -e"))
        .arg(cli::switch("t", "Tracers").visible_short_alias('p'))
        .arg(cli::switch("o", "Trace options; with a word: those that match"))
        .arg(cli::switch("f", "Functions that can be traced; with a word: those that match (glob or regex)"))
        .arg(cli::switch("proto", "With -f: the parameters of each function, from BTF"))
        .arg(cli::switch("s", "Event systems"))
        .arg(cli::switch("B", "Instances"))
        .arg(cli::switch("C", "Clocks"))
        .arg(cli::switch("P", "Plugin files (none: the printers are built in)"))
        .arg(cli::switch("O", "Options of the event printers"))
        .arg(cli::switch("c", "Compression algorithms"))
        .arg(cli::switch("debug", "More messages").hide(true))
        .arg(cli::optional("verbose", "LEVEL", "Level of messages").hide(true))
        .arg(Arg::new("word").num_args(0..).hide(true))
        .after_help(
            "Without an option: systems, events, tracers, options and compression.\n\n\
             Examples:\n  tracecmd list -e sched:\n  tracecmd list -e sched_switch -F --full\n  tracecmd list -f 'vfs_*' --proto",
        )
}

/// What is to be listed: letter and the word behind it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    shows: Vec<(char, Option<String>)>,
    format: bool,
    full: bool,
    triggers: bool,
    filters: bool,
    proto: bool,
}

fn wanted(words: &[String]) -> Wanted {
    let mut w = Wanted::default();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        if let Some(long) = word.strip_prefix("--") {
            w.full |= !long.is_empty() && "full".starts_with(long);
            w.proto |= !long.is_empty() && "proto".starts_with(long);
            continue;
        }
        for c in word.strip_prefix('-').unwrap_or("").chars() {
            match c {
                'F' => w.format = true,
                'R' => w.triggers = true,
                'l' => w.filters = true,
                'e' | 'f' | 'o' => {
                    let word = words.next_if(|n| !n.starts_with('-')).cloned();
                    w.shows.push((c, word));
                }
                c => w.shows.push((if c == 'p' { 't' } else { c }, None)),
            }
        }
    }
    w
}

/// Prints the lists.
pub fn run(cx: &Ctx, _m: &ArgMatches) -> anyhow::Result<ExitCode> {
    let words: Vec<String> = cx.words.iter().map(|w| w.to_string_lossy().into_owned()).collect();
    let w = wanted(&words);
    let all_events = w.shows.iter().any(|(c, word)| *c == 'e' && word.is_none());
    if (w.format || w.triggers || w.filters) && all_events {
        anyhow::bail!("-F, -R and -l show something of chosen events: list -e EVENT");
    }
    let mut text = Vec::new();
    let out = &mut text;
    if w.shows.is_empty() {
        let fs = buffers::tracing()?;
        writeln!(out, "event systems:")?;
        systems(&fs, out)?;
        writeln!(out, "events:")?;
        out.extend(fs.dir().read_bytes("available_events")?);
        writeln!(out, "\ntracers:")?;
        out.extend(fs.dir().read_bytes("available_tracers")?);
        writeln!(out, "\noptions:")?;
        trace_options(&fs, None, out)?;
        compression(out)?;
    }
    // Whatever order they were asked for in.
    for letter in ['e', 't', 'o', 'f', 's', 'B', 'C', 'P', 'O', 'c'] {
        let Some((_, word)) = w.shows.iter().find(|(c, _)| *c == letter) else { continue };
        let fs = if matches!(letter, 'P' | 'O' | 'c') { None } else { Some(buffers::tracing()?) };
        match (letter, &fs) {
            ('e', Some(fs)) => events(fs, word.as_deref(), &w, out)?,
            ('t', Some(fs)) => out.extend(fs.dir().read_bytes("available_tracers")?),
            ('o', Some(fs)) => trace_options(fs, word.as_deref(), out)?,
            ('f', Some(fs)) => functions(fs, word.as_deref(), w.proto, out)?,
            ('s', Some(fs)) => systems(fs, out)?,
            ('B', Some(fs)) => {
                let names = fs.instances()?;
                names.iter().try_for_each(|n| writeln!(out, "{n}"))?;
                if names.is_empty() {
                    writeln!(out, "No buffer instances defined")?;
                }
            }
            ('C', Some(fs)) => clocks(fs, out)?,
            ('O', _) => options::print(out)?,
            ('c', _) => compression(out)?,
            _ => {}
        }
    }
    let mut stdout = crate::output::guard::stdout();
    stdout.write_all(&text)?;
    stdout.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn systems(fs: &TraceFs, out: &mut Vec<u8>) -> anyhow::Result<()> {
    // `ftrace`, whose events cannot be switched, is listed too.
    for s in fs.dir().list_dirs("events")? {
        writeln!(out, "{s}")?;
    }
    writeln!(out)?;
    Ok(())
}

/// A POSIX basic regex, in any case, that may match anywhere.
fn regex(text: &str) -> anyhow::Result<Regex> {
    let pattern = trace_dat::filter::bre::translate(text)
        .map_err(|(at, why)| anyhow::anyhow!("{text:?} is not a regular expression: {why} (byte {at})"))?;
    RegexBuilder::new(&pattern)
        .case_insensitive(true)
        .build()
        .with_context(|| format!("{text:?} is not a regular expression"))
}

fn events(fs: &TraceFs, word: Option<&str>, w: &Wanted, out: &mut Vec<u8>) -> anyhow::Result<()> {
    let Some(word) = word else {
        out.extend(fs.dir().read_bytes("available_events")?);
        return Ok(());
    };
    let (system, event) = match word.split_once(':') {
        Some((s, e)) => (Some(regex(s)?), (!e.is_empty()).then(|| regex(e)).transpose()?),
        None => (None, Some(regex(word)?)),
    };
    let top = fs.top();
    for s in top.dir().list_dirs("events")? {
        let hit = match (&system, &event) {
            (Some(re), _) if !re.is_match(&s) => continue,
            (Some(_), None) => true,
            (None, Some(re)) => re.is_match(&s),
            _ => false,
        };
        for e in top.events_of(&s)? {
            if !hit && !event.as_ref().is_some_and(|re| re.is_match(&e)) {
                continue;
            }
            if w.format {
                writeln!(out, "system: {s}")?;
                let text = top.event_format(&s, &e)?;
                let fields = text.split("print fmt:").next().unwrap_or_default();
                out.extend(if w.full { text.as_bytes() } else { fields.as_bytes() });
            }
            if !w.format || w.triggers || w.filters {
                writeln!(out, "{s}:{e}")?;
            }
            for (show, file) in [(w.triggers, "trigger"), (w.filters, "filter")] {
                let file = format!("events/{s}/{e}/{file}");
                if show && top.dir().exists(&file) {
                    out.extend(top.dir().read_bytes(&file)?);
                    writeln!(out)?;
                }
            }
        }
    }
    Ok(())
}

/// The options of a buffer as the directory `options` has them, in its order and with those of tracers: name and whether it is on.
pub(crate) fn options_of(i: &tracefs::Instance) -> anyhow::Result<Vec<(String, bool)>> {
    let dir = i.dir().file("options");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let on = i.dir().read_trimmed(format!("options/{name}"))? != "0";
        found.push((name, on));
    }
    Ok(found)
}

/// As `trace_options` has them: `no` before an option that is off.
fn trace_options(fs: &TraceFs, word: Option<&str>, out: &mut Vec<u8>) -> anyhow::Result<()> {
    let re = word.map(regex).transpose()?;
    for (name, on) in options_of(&fs.top())? {
        if re.as_ref().is_none_or(|re| re.is_match(&name)) {
            writeln!(out, "{}{name}", if on { "" } else { "no" })?;
        }
    }
    Ok(())
}

fn functions(fs: &TraceFs, word: Option<&str>, proto: bool, out: &mut Vec<u8>) -> anyhow::Result<()> {
    let pattern = match word {
        None => None,
        // A plain word may stand anywhere in the name.
        Some(w) if w.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.') => {
            Some(FuncPattern::new(&format!("*{w}*"), None)?)
        }
        Some(w) => Some(FuncPattern::new(w, None)?),
    };
    let btf = proto.then(kernel_btf);
    let text = fs.dir().read("available_filter_functions")?;
    for line in text.lines().filter(|l| pattern.as_ref().is_none_or(|p| p.matches(l))) {
        let name = line.split([' ', '\t']).next().unwrap_or(line);
        // Chosen functions are given by name, the whole list as the kernel has it.
        let shown = if pattern.is_some() { name } else { line };
        out.extend(shown.as_bytes());
        if let Some(btf) = &btf {
            parameters(btf, name, out);
        }
        writeln!(out)?;
    }
    Ok(())
}

fn kernel_btf() -> trace_dat::btf::Btf {
    let text = match std::fs::read("/sys/kernel/btf/vmlinux") {
        Ok(bytes) => trace_dat::lazy::LazyText::Bytes(bytes),
        Err(_) => trace_dat::lazy::LazyText::None,
    };
    trace_dat::btf::Btf::new(text)
}

/// `(TYPE NAME, …)`, nothing for a function that BTF does not know.
fn parameters(btf: &trace_dat::btf::Btf, name: &str, out: &mut Vec<u8>) {
    let (Some(function), Some(types)) = (btf.function(name.as_bytes()), btf.types()) else { return };
    out.push(b'(');
    for (i, (name, kind)) in function.params().enumerate() {
        if i > 0 {
            out.extend(b", ");
        }
        types.type_name(kind, out);
        if !out.ends_with(b"*") {
            out.push(b' ');
        }
        out.extend(name);
    }
    out.push(b')');
}

fn clocks(fs: &TraceFs, out: &mut Vec<u8>) -> anyhow::Result<()> {
    let text = fs.dir().read("trace_clock")?;
    write!(out, "{}", text.trim_end())?;
    if text.contains("x86-tsc") && tracefs::time_conversion_of_all().is_ok() {
        write!(out, " tsc2nsec")?;
    }
    writeln!(out)?;
    Ok(())
}

fn compression(out: &mut Vec<u8>) -> anyhow::Result<()> {
    writeln!(out, "Supported compression algorithms:")?;
    for codec in [Codec::Zstd, Codec::Zlib] {
        writeln!(out, "\t{}, {}", codec.name(), codec.version())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let get = |t: &str| wanted(&t.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let w = get("-e sched: -F --full -t");
        assert_eq!(w.shows, [('e', Some("sched:".into())), ('t', None)]);
        assert!(w.format && w.full && !w.proto);
        assert_eq!(get("-f --proto").shows, [('f', None)]);
        assert_eq!(get("foo").shows, []);
        assert_eq!(get("-p").shows, [('t', None)]);
    }
}
