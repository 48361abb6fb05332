//! `man`: manual pages, made from the same definitions as the help.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Arg, ArgMatches, Command, value_parser};

use crate::cli::{self, Ctx};

/// The options of `man`.
pub fn command() -> Command {
    Command::new("man")
        .hide(true)
        .arg(
            Arg::new("dir")
                .value_name("DIR")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("Where the pages go; usually .../share/man/man1"),
        )
        .after_help("Examples:\n  tracecmd man /usr/local/share/man/man1")
}

/// Writes a page for the program and one for each command.
pub fn run(cx: &Ctx, m: &ArgMatches) -> anyhow::Result<ExitCode> {
    let dir = m.get_one::<PathBuf>("dir").context("no directory")?;
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let program = cx.program.as_str();
    let mut root = cli::root(program);
    root.build();
    let put = |name: &str, text: Vec<u8>| {
        let path = dir.join(format!("{name}.1"));
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    for command in root.get_subcommands().filter(|c| !c.is_hide_set()) {
        let name = format!("{program}-{}", command.get_name());
        put(&name, page(program, &name, command)?)?;
    }
    let text = page(program, program, &root)?;
    put(program, text)?;
    Ok(ExitCode::SUCCESS)
}

/// One page. Options come from clap_mangen; the text behind the options of the help is description and examples here.
fn page(program: &str, name: &str, command: &Command) -> anyhow::Result<Vec<u8>> {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (notes, examples) = after.split_once("Examples:\n").unwrap_or((&after, ""));
    let version = env!("CARGO_PKG_VERSION");
    let man = clap_mangen::Man::new(command.clone().disable_help_subcommand(true))
        .title(name.to_uppercase())
        .date(date())
        .source(format!("tracecmd {version}"))
        .manual("tracecmd Manual");
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    let usage = command.clone().render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage);
    writeln!(out, ".SH NAME\n{} \\- {}", escape(name), escape(&about))?;
    writeln!(out, ".SH SYNOPSIS\n.nf\n{}\n.fi", escape(usage.trim()))?;
    writeln!(out, ".SH DESCRIPTION\n{}.", escape(&capital(&about)))?;
    for paragraph in notes.split("\n\n").map(str::trim).filter(|p| !p.is_empty()) {
        let lines: Vec<_> = paragraph.lines().map(escape).collect();
        if paragraph.lines().any(|l| l.starts_with(' ')) {
            writeln!(out, ".PP\n.nf\n{}\n.fi", lines.join("\n"))?;
        } else {
            writeln!(out, ".PP\n{}", lines.join("\n.br\n"))?;
        }
    }
    let mut options = Vec::new();
    man.render_options_section(&mut options)?;
    // A line break beside an empty line is one too many for mandoc.
    let text = String::from_utf8_lossy(&options).replace(".br\n\n.br\n", ".sp\n");
    out.extend_from_slice(text.as_bytes());
    if command.get_subcommands().any(|c| !c.is_hide_set()) {
        writeln!(out, ".SH COMMANDS")?;
        for c in command.get_subcommands().filter(|c| !c.is_hide_set()) {
            let about = c.get_about().map(ToString::to_string).unwrap_or_default();
            writeln!(
                out,
                ".TP\n.BR {}\\-{} (1)\n{}.",
                escape(program),
                escape(c.get_name()),
                escape(&capital(&about))
            )?;
        }
    }
    if !examples.is_empty() {
        let lines: Vec<_> = examples.trim_end().lines().map(escape).collect();
        writeln!(out, ".SH EXAMPLES\n.nf\n{}\n.fi", lines.join("\n"))?;
    }
    if name != program {
        writeln!(out, ".SH SEE ALSO\n.BR {} (1)", escape(program))?;
    }
    Ok(out)
}

/// Text for roff: no request at the start of a line, hyphens that can be copied, backslashes as they are.
fn escape(line: &str) -> String {
    let text = line.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |c| c.to_uppercase().collect::<String>() + chars.as_str())
}

/// The day of the page: SOURCE_DATE_EPOCH for builds that can be repeated, else today.
fn date() -> String {
    let epoch = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|t| t.parse::<i64>().ok());
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    let (year, month, day) = civil(epoch.unwrap_or_else(now).div_euclid(86_400));
    format!("{year:04}-{month:02}-{day:02}")
}

/// Year, month and day of a day counted from 1970-01-01.
fn civil(days: i64) -> (i64, i64, i64) {
    // Days from 0000-03-01, in eras of 400 years: the leap day is the last of its year.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (year, month, day) = (year + era * 400, month, day - (153 * month + 2) / 5 + 1);
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_819), (2027, 1, 1));
        assert_eq!(civil(-1), (1969, 12, 31));
    }

    #[test]
    fn roff_sees_text_only() {
        assert_eq!(escape(".x \\ a-b"), "\\&.x \\e a\\-b");
        assert_eq!(escape("'x"), "\\&'x");
    }

    #[test]
    fn a_page_has_what_the_help_has() {
        let mut root = cli::root("trace-cmd");
        root.build();
        let stop = root.find_subcommand("record").unwrap();
        let text = String::from_utf8(page("trace-cmd", "trace-cmd-record", stop).unwrap()).unwrap();
        for part in [
            ".TH TRACE",
            ".SH EXAMPLES",
            "trace\\-cmd record \\-e sched ls",
            ".SH BUFFERS",
            "Description".to_uppercase().as_str(),
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!text.contains("tracecmd record"), "{text}");
    }
}
