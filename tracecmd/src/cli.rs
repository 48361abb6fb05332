//! The command line: the table of commands, the clap root, and the habits of GNU getopt that scripts rely on.
//!
//! clap holds the definitions (help, completions and man pages come from them) and checks the options; before it sees
//! the words, [`getopt_words`] brings them into one plain form: bundled short options taken apart, values attached,
//! unique prefixes of long options completed, words and options separated.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::cmd;

/// What a command knows about its call besides its options.
#[derive(Debug, Clone)]
pub struct Ctx {
    /// Base name of `argv[0]`: `tracecmd`, or `trace-cmd` when started by that name. Stands in front of messages.
    pub program: String,
    /// The words after the command's name, as they were typed.
    pub words: Vec<OsString>,
}

/// How options and other words may be mixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Words {
    /// The first word that is no option ends the options: what follows is a command line to run.
    Stop,
    /// Options may follow other words.
    Mix,
}

/// One command of the table.
pub struct Entry {
    /// The word that selects it. Exact match only.
    pub name: &'static str,
    /// One line for the overview.
    pub about: &'static str,
    /// Whether options may follow words.
    pub words: Words,
    /// Makes the definition of its options.
    pub build: fn() -> Command,
    /// Does the work.
    pub run: fn(&Ctx, &ArgMatches) -> anyhow::Result<ExitCode>,
}

/// Writes the table: one line per command.
macro_rules! commands {
    ($($name:literal $words:ident $module:ident $about:literal)*) => {
        &[$(Entry {
            name: $name, about: $about, words: Words::$words,
            build: cmd::$module::command, run: cmd::$module::run,
        }),*]
    };
}

/// Every command, in the order of the overview.
pub const COMMANDS: &[Entry] = commands! {
    "record" Stop record "trace a command, or until Ctrl-C, into a file"
    "start" Stop start "start tracing and leave it running"
    "set" Stop set "change single settings of the running kernel"
    "stream" Stop stream "print events as they come"
    "profile" Stop profile "sum up where tasks wait and run, live"
    "extract" Stop extract "put what the kernel's buffers hold into a file"
    "stop" Mix stop "stop tracing; what is set up stays"
    "restart" Mix restart "go on tracing after stop"
    "reset" Mix reset "put the tracer back to what it is after a boot"
    "clear" Mix clear "empty trace buffers"
    "show" Mix show "print what the kernel's trace files hold now"
    "snapshot" Mix snapshot "take, show or free a snapshot of the buffer"
    "stack" Stop stack "the deepest kernel stack: start, stop, show"
    "sqlhist" Stop sqlhist "histograms and synthetic events from SQL"
    "agent" Stop agent "record this machine for another"
    "setup-guest" Mix setup_guest "make the FIFOs through which a guest's data reach this machine"
    "stat" Mix stat "what is set up in the tracer now"
    "list" Mix list "what this kernel offers: events, tracers, options, functions"
    "options" Mix options "options of the event printers"
    "check-events" Stop check_events "test that every event format can be understood"
    "listen" Stop listen "receive recordings of other machines over the network"
    "report" Mix report "show a recording as text, or facts about it"
    "restore" Mix restore "make a file from what an interrupted recording left behind"
    "attach" Mix attach "tie a guest's recording to its host's"
    "split" Mix split "cut a file into pieces by time, events or sub-buffers"
    "convert" Mix convert "write a file again in another version or compression"
    "dump" Mix dump "show what a file holds beside its events"
    "hist" Mix hist "count functions and events with their callers"
    "mem" Mix mem "show which kernel functions hold memory"
    "completions" Mix completions "print a completion script for bash, zsh or fish"
    "complete" Mix complete "words of the running kernel, for completion scripts"
    "man" Mix man "write manual pages into a directory"
    "help" Mix help "explain a command, or list all of them"
};

impl Entry {
    /// The finished definition: options from the module, name and line from the table. Examples show the name that the program has.
    fn command(&self, program: &str) -> Command {
        let command = (self.build)().name(self.name).about(self.about).args_override_self(true);
        match command.get_after_help().map(ToString::to_string) {
            Some(text) => command.after_help(text.replace("tracecmd ", &format!("{program} "))),
            None => command,
        }
    }
}

/// The entry of a command's name.
pub fn find(name: &OsStr) -> Option<&'static Entry> {
    COMMANDS.iter().find(|e| e.name == name)
}

/// The definition of the whole command line under the given program name, with every command in full. Completions and
/// man pages are made from it.
pub fn root(program: &str) -> Command {
    bare_root(program).subcommands(COMMANDS.iter().map(|e| e.command(program)))
}

/// The root without its commands.
fn bare_root(program: &str) -> Command {
    Command::new(program.to_owned())
        .bin_name(program.to_owned())
        .display_name(program.to_owned())
        .version(env!("CARGO_PKG_VERSION"))
        .max_term_width(80)
        .about("Records and shows what the Linux kernel's tracer (ftrace) sees")
        .after_help(format!(
            "Each command explains itself: {program} COMMAND --help\n\n\
             Examples:\n  \
             {program} record -e sched ls    scheduler events while ls runs, into trace.dat\n  \
             {program} report | less         the recording as text\n"
        ))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
}

/// The name under which the program was started, without its directory.
pub fn program_name(argv0: Option<&OsString>) -> String {
    let name = argv0.map(Path::new).and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned());
    name.filter(|n| !n.is_empty()).unwrap_or_else(|| "tracecmd".to_owned())
}

/// Whether an error says that the reader of our output went away.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|e| e.downcast_ref::<std::io::Error>()).any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Runs the command that `words` (without the program's name) ask for.
///
/// # Errors
/// What the command reports. Wrong options are not an error here: they are explained on stderr, status 2.
pub fn run(program: &str, words: &[OsString]) -> anyhow::Result<ExitCode> {
    let Some((entry, rest)) = words.split_first().and_then(|(name, rest)| Some((find(name)?, rest))) else {
        // Help, version, an unknown command: clap has words for all of them.
        let mut full = vec![OsString::from(program)];
        full.extend_from_slice(words);
        let err = root(program).try_get_matches_from(full).err();
        return Ok(err.map_or(ExitCode::SUCCESS, |e| explain(&e)));
    };
    let cx = Ctx { program: program.to_owned(), words: rest.to_vec() };
    match parse(program, entry, rest) {
        Ok(matches) => (entry.run)(&cx, &matches),
        Err(e) => Ok(explain(&e)),
    }
}

/// Parses the words behind a command's name.
///
/// # Errors
/// clap's error, which may also be the wish for help.
pub fn parse(program: &str, entry: &Entry, words: &[OsString]) -> Result<ArgMatches, clap::Error> {
    let command = entry.command(program);
    let mut full = vec![OsString::from(program), OsString::from(entry.name)];
    full.extend(getopt_words(&command, entry.words, words));
    let matches = bare_root(program).subcommand(command).try_get_matches_from(full)?;
    Ok(matches.subcommand().map(|(_, m)| m.clone()).unwrap_or_default())
}

/// Prints clap's message where it belongs: help on stdout (status 0), a wrong option on stderr (status 2).
fn explain(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// One option as it stood on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opt {
    /// clap's id of the option.
    pub id: String,
    /// Its value. A switch has none, and so has an option whose optional value was left out.
    pub value: Option<OsString>,
}

impl Opt {
    /// The value as text; bytes that are not UTF-8 are replaced. Empty without a value.
    pub fn text(&self) -> String {
        self.value.as_deref().map(|v| v.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

/// The options (and words) in the order in which they were typed, repeated ones as often as they were typed.
pub fn ordered(m: &ArgMatches) -> Vec<Opt> {
    let mut list = Vec::new();
    for id in m.ids() {
        let id = id.as_str();
        if m.value_source(id) != Some(clap::parser::ValueSource::CommandLine) {
            continue;
        }
        let (Ok(Some(values)), Some(indices)) = (m.try_get_raw(id), m.indices_of(id)) else { continue };
        for (value, index) in values.zip(indices) {
            let value = (value != ABSENT).then(|| value.to_os_string());
            list.push((index, Opt { id: id.to_owned(), value }));
        }
    }
    list.sort_by_key(|(index, _)| *index);
    list.into_iter().map(|(_, opt)| opt).collect()
}

/// Stands for "no value" of a switch; no word can be equal to it, because words hold no NUL.
const ABSENT: &str = "\0";

/// A switch that may be repeated and whose position counts (see [`ordered`]).
pub fn switch(id: &'static str, help: &'static str) -> Arg {
    named(id).action(ArgAction::Append).num_args(0).default_missing_value(ABSENT).help(help)
}

/// An option with a value that may be repeated and whose position counts. Any bytes are accepted.
pub fn option(id: &'static str, value: &'static str, help: &'static str) -> Arg {
    named(id)
        .action(ArgAction::Append)
        .num_args(1)
        .value_name(value)
        .allow_hyphen_values(true)
        .value_parser(clap::value_parser!(OsString))
        .help(help)
}

/// An option whose value is optional and then attached: `-V1`, `--verbose=1`.
pub fn optional(id: &'static str, value: &'static str, help: &'static str) -> Arg {
    option(id, value, help).num_args(0..=1).require_equals(true).default_missing_value(ABSENT)
}

/// An argument called by its id: one letter makes a short option, anything longer a long one. More names can be added.
fn named(id: &'static str) -> Arg {
    let mut chars = id.chars();
    match (chars.next(), chars.next()) {
        (Some(c), None) => Arg::new(id).short(c),
        _ => Arg::new(id).long(id),
    }
}

/// The words behind `command`, in plain form for clap, parsed with the habits of `getopt_long`:
/// bundled short options, values attached or in the next word whatever they look like, unique prefixes of long options,
/// `--` ends the options. Unknown options are passed on, for clap to name them.
pub fn getopt_words(command: &Command, mode: Words, words: &[OsString]) -> Vec<OsString> {
    let mut out = Vec::with_capacity(words.len() + 1);
    let mut plain: Vec<OsString> = Vec::new();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let bytes = word.as_bytes();
        if bytes == b"--" {
            plain.extend(rest.by_ref().cloned());
        } else if let Some(long) = bytes.strip_prefix(b"--") {
            long_option(command, long, &mut rest, &mut out);
        } else if let Some(short) = bytes.strip_prefix(b"-").filter(|s| !s.is_empty()) {
            short_options(command, short, &mut rest, &mut out);
        } else {
            plain.push(word.clone());
            if mode == Words::Stop {
                plain.extend(rest.by_ref().cloned());
            }
        }
    }
    if !plain.is_empty() {
        out.push("--".into());
        out.extend(plain);
    }
    out
}

/// How an option takes its value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    Value,
    Attached,
}

fn takes(arg: &Arg) -> Takes {
    match arg.get_num_args() {
        Some(n) if n.max_values() == 0 => Takes::Nothing,
        Some(n) if n.min_values() == 0 => Takes::Attached,
        Some(_) => Takes::Value,
        None if arg.get_action().takes_values() => Takes::Value,
        None => Takes::Nothing,
    }
}

/// One `--name`, `--name=value` or `--na value`.
fn long_option<'a>(
    command: &Command,
    text: &[u8],
    rest: &mut impl Iterator<Item = &'a OsString>,
    out: &mut Vec<OsString>,
) {
    let mut parts = text.splitn(2, |&b| b == b'=');
    let (name, value) = (parts.next().unwrap_or_default(), parts.next());
    let names = |a: &Arg| -> Vec<String> {
        a.get_long_and_visible_aliases()
            .into_iter()
            .flatten()
            .chain(a.get_all_aliases().into_iter().flatten())
            .map(str::to_owned)
            .collect()
    };
    let all: Vec<(&Arg, String)> =
        command.get_arguments().flat_map(|a| names(a).into_iter().map(move |n| (a, n))).collect();
    let exact = all.iter().find(|(_, n)| n.as_bytes() == name);
    let found = exact.or_else(|| {
        let mut hits = all.iter().filter(|(_, n)| n.as_bytes().starts_with(name));
        let first = hits.next()?;
        // Two names of the same option are one hit. `--help` is clap's own and must not be shadowed by a prefix.
        let unique = hits.all(|(a, _)| a.get_id() == first.0.get_id()) && !b"help".starts_with(name);
        unique.then_some(first)
    });
    let Some((arg, full)) = found else {
        let mut word = b"--".to_vec();
        // `--he` asks for help, when nothing else begins like that.
        let help =
            name.len() > 1 && b"help".starts_with(name) && !all.iter().any(|(_, n)| n.as_bytes().starts_with(name));
        word.extend_from_slice(if help { b"help" } else { text });
        out.push(OsString::from_vec(word));
        return;
    };
    let mut word = format!("--{full}").into_bytes();
    match (takes(arg), value) {
        (Takes::Value, None) => {
            if let Some(next) = rest.next() {
                word.push(b'=');
                word.extend_from_slice(next.as_bytes());
            }
        }
        (_, Some(value)) => {
            word.push(b'=');
            word.extend_from_slice(value);
        }
        (_, None) => {}
    }
    out.push(OsString::from_vec(word));
}

/// A word of short options, `-xyz` or `-xVALUE`.
fn short_options<'a>(
    command: &Command,
    text: &[u8],
    rest: &mut impl Iterator<Item = &'a OsString>,
    out: &mut Vec<OsString>,
) {
    let mut left = text;
    while let Some((&letter, after)) = left.split_first() {
        let c = char::from(letter);
        let known = command
            .get_arguments()
            .find(|a| a.get_short_and_visible_aliases().is_some_and(|shorts| shorts.contains(&c)));
        let Some(arg) = known else {
            // Not ours: as typed, for clap's message (or its help).
            let mut word = vec![b'-'];
            word.extend_from_slice(if c == 'h' { b"h" } else { left });
            out.push(OsString::from_vec(word));
            if c == 'h' {
                left = after;
                continue;
            }
            return;
        };
        let mut word = vec![b'-', letter];
        left = after;
        let how = takes(arg);
        if how != Takes::Nothing {
            let attached = std::mem::take(&mut left);
            if !attached.is_empty() {
                word.push(b'=');
                word.extend_from_slice(attached);
            } else if how == Takes::Value
                && let Some(next) = rest.next()
            {
                word.push(b'=');
                word.extend_from_slice(next.as_bytes());
            }
        }
        out.push(OsString::from_vec(word));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Command {
        Command::new("sample").args_override_self(true).args([
            option("e", "EVENT", "event"),
            option("f", "FILTER", "filter"),
            switch("v", "negate"),
            switch("T", "stacks").long("stacktrace"),
            optional("V", "LEVEL", "level").long("verbose"),
            option("ts-offset", "N", "offset"),
            switch("nodate", "no date"),
            switch("nofifos", "no fifos"),
            Arg::new("command").num_args(0..).value_parser(clap::value_parser!(OsString)),
        ])
    }

    fn parsed(mode: Words, line: &str) -> Result<Vec<String>, clap::Error> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let mut full = vec![OsString::from("sample")];
        full.extend(getopt_words(&sample(), mode, &words));
        let m = sample().try_get_matches_from(full)?;
        Ok(ordered(&m)
            .iter()
            .map(|o| match &o.value {
                Some(v) => format!("{}={}", o.id, v.to_string_lossy()),
                None => o.id.clone(),
            })
            .collect())
    }

    #[test]
    fn order_of_options_is_kept() {
        let got = parsed(Words::Stop, "-e sched -f pid==1 -v -e irq -T -f x -v ls -la -e nope").unwrap();
        assert_eq!(
            got,
            [
                "e=sched",
                "f=pid==1",
                "v",
                "e=irq",
                "T",
                "f=x",
                "v",
                "command=ls",
                "command=-la",
                "command=-e",
                "command=nope"
            ]
        );
    }

    #[test]
    fn bundled_attached_and_prefixed() {
        let got = parsed(Words::Stop, "-vTesched -V1 -V --verb=3 --ts-o -5 --stack --nod -e -f -e=x").unwrap();
        assert_eq!(got, ["v", "T", "e=sched", "V=1", "V", "V=3", "ts-offset=-5", "T", "nodate", "e=-f", "e==x"]);
    }

    #[test]
    fn words_between_options() {
        assert_eq!(parsed(Words::Mix, "a -v b -e x").unwrap(), ["v", "e=x", "command=a", "command=b"]);
        assert_eq!(parsed(Words::Mix, "a -v -- -e x").unwrap(), ["v", "command=a", "command=-e", "command=x"]);
        assert_eq!(parsed(Words::Stop, "-v -- -e x").unwrap(), ["v", "command=-e", "command=x"]);
        assert_eq!(parsed(Words::Mix, "-e= - -").unwrap(), ["e==", "command=-", "command=-"]);
    }

    #[test]
    fn wrong_options_are_named() {
        for (line, what) in [("-Z", "-Z"), ("--nope", "--nope"), ("--no", "--no"), ("-vZ", "-Z"), ("-e", "-e")] {
            let error = parsed(Words::Stop, line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(what), "{line}: {error}");
        }
    }

    #[test]
    fn help_is_no_error() {
        for line in ["-h", "-vh", "--help", "--hel", "-e x -h"] {
            assert_eq!(parsed(Words::Stop, line).unwrap_err().exit_code(), 0, "{line}");
        }
    }

    #[test]
    fn every_definition_is_sound() {
        root("tracecmd").debug_assert();
        for entry in COMMANDS {
            assert!(parse("x", entry, &["--help".into()]).is_err_and(|e| e.exit_code() == 0), "{}", entry.name);
        }
    }
}
