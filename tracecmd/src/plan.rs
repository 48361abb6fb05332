//! Ordered options → what to do, as a value.
//!
//! The meaning of an option depends on what stands before it: `-f` belongs to the last `-e`, `-e` to the last `-B`, anything
//! behind `-A` to that guest. [`Plan::new`] is a pure function of the options, so that tests need no kernel; what it returns is
//! carried out by `session.rs` and printed by `--dry-run`.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};

use crate::cli::Opt;

pub mod hook;
mod show;
#[cfg(test)]
mod tests;

pub use hook::Hook;

/// The command whose options are planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `record`: configure, record into a file, undo.
    Record,
    /// `start`: configure and leave it running.
    Start,
    /// `set`: change single settings.
    Set,
    /// `extract`: what the kernel's buffers hold now.
    Extract,
    /// `stream`: as record, printed at once.
    Stream,
    /// `profile`: as stream, summed up at the end.
    Profile,
}

impl Verb {
    /// The word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Record => "record",
            Verb::Start => "start",
            Verb::Set => "set",
            Verb::Extract => "extract",
            Verb::Stream => "stream",
            Verb::Profile => "profile",
        }
    }
}

/// One `-e` with the options that belong to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventChoice {
    /// `all`, `system`, `system:`, `system:event` or `event`; each part may be a glob.
    pub pattern: String,
    /// The kernel filter of all its `-f`: `(a)&&(b)`.
    pub filter: Option<String>,
    /// The triggers of all its `-R`.
    pub triggers: Vec<String>,
    /// Given behind `-v`: switched off after everything else.
    pub negative: bool,
}

/// One `-l` or `-n`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FuncChoice {
    /// Name, glob, regex, or (with a colon) a function command.
    pub pattern: String,
    /// Only functions of this module (`--module`).
    pub module: Option<String>,
}

impl FuncChoice {
    /// `func:command`, which is written as it is.
    pub fn is_command(&self) -> bool {
        self.pattern.contains(':')
    }
}

/// What is wanted of one buffer: the top one, or that of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buffer {
    /// The instance; `None`: the top buffer.
    pub name: Option<String>,
    /// `set -v -B NAME`: remove this instance.
    pub delete: bool,
    /// `-e`, in order.
    pub events: Vec<EventChoice>,
    /// `-p`.
    pub tracer: Option<String>,
    /// `-l`.
    pub functions: Vec<FuncChoice>,
    /// `-n`.
    pub not_functions: Vec<FuncChoice>,
    /// `-O` and `-T`, in order.
    pub options: Vec<String>,
    /// `-b`, per CPU.
    pub size_kb: Option<u64>,
    /// `--subbuf-size`.
    pub subbuf_kb: Option<u64>,
    /// `-M`, as typed.
    pub cpumask: Option<String>,
    /// `-C`.
    pub clock: Option<String>,
    /// `-P`.
    pub pids: Vec<i32>,
    /// `-c`: also their children.
    pub follow: bool,
    /// `--max-graph-depth`.
    pub max_graph_depth: Option<u32>,
    /// `--profile`.
    pub profile: bool,
    /// The tracer is that of `--profile`, function_graph with depth 1: left out where no depth can be set.
    pub profile_tracer: bool,
    /// `--proc-map`.
    pub proc_map: bool,
    /// `--tsc2nsec` or `-C tsc2nsec`: store how the TSC becomes nanoseconds.
    pub tsc2nsec: bool,
    /// `-N` or `-V` (the latter: vsock) with the address.
    pub remote: Option<Remote>,
    /// `-t`: TCP for the data.
    pub tcp: bool,
    /// A `--module` for which no function followed (yet).
    pub(crate) module: Option<String>,
    /// Whether a function used that `--module`.
    pub(crate) module_used: bool,
}

impl Buffer {
    /// Whether this buffer has anything to record.
    pub fn traces(&self) -> bool {
        self.tracer.is_some() || !self.events.is_empty() || self.profile
    }

    /// The module that no function used applies to all of its functions.
    fn end_module(&mut self) {
        if let Some(module) = self.module.take()
            && !self.module_used
        {
            self.functions.push(FuncChoice { pattern: "*".into(), module: Some(module) });
        }
        self.module_used = false;
    }
}

/// Where a remote listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// `host:port`, `port`, or `cid:port`.
    pub address: String,
    /// Over vsock (`-V`) in place of TCP and UDP (`-N`).
    pub vsock: bool,
}

/// `--tls` and what belongs to it: the connection to the listener is encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// `--tls-ca`: who signs listeners' certificates; `None`: the system's authorities.
    pub ca: Option<PathBuf>,
    /// `--tls-cert`: our own certificate.
    pub cert: Option<PathBuf>,
    /// `--tls-key`: the key to it.
    pub key: Option<PathBuf>,
}

/// A guest that is recorded too (`-A`, `--proxy`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// `name`, `cid`, `name@cid`, `host:port` …
    pub target: String,
    /// `--name`.
    pub name: Option<String>,
    /// `--proxy` in place of `-A`.
    pub proxy: bool,
    /// The options that the guest's agent gets, in the order typed.
    pub args: Vec<OsString>,
    /// A `-C` is among them.
    pub own_clock: bool,
}

/// `-m`, `-s` … : everything that counts wherever it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The command.
    pub verb: Verb,
    /// The top buffer first, then the instances in the order typed.
    pub buffers: Vec<Buffer>,
    /// Guests, in the order typed.
    pub guests: Vec<Guest>,
    /// The command to run and its arguments.
    pub command: Vec<OsString>,
    /// Event patterns whose formats go into the file; `None`: all (`-a`, extract).
    pub formats: Option<Vec<String>>,
    /// `-F`: only the command.
    pub only_command: bool,
    /// `-g`.
    pub graph_functions: Vec<FuncChoice>,
    /// `-d`: no function tracing.
    pub no_functions: bool,
    /// `-D`: and the global switch off.
    pub no_ftrace: bool,
    /// `-o`.
    pub output: Option<PathBuf>,
    /// `-s`: pause of a recorder after an empty read, microseconds.
    pub sleep_us: Option<u64>,
    /// `-r`: SCHED_FIFO priority of the recorders.
    pub priority: Option<i32>,
    /// `-m`: limit of each per-CPU file, kilobytes.
    pub max_kb: Option<u64>,
    /// `-k`: leave everything as it is at the end.
    pub keep: bool,
    /// `-K`: and change nothing that was not asked for at the start.
    pub keep_before: bool,
    /// `-i`: an event that matches nothing is no error.
    pub ignore_missing: bool,
    /// `-q`.
    pub quiet: bool,
    /// `-G`: interrupts are global in a profile.
    pub global_irqs: bool,
    /// `-S`: a profile of only what was named.
    pub strict_profile: bool,
    /// `-H`.
    pub hooks: Vec<Hook>,
    /// `--date`.
    pub date: bool,
    /// `--ts-offset`, as typed.
    pub ts_offset: Option<String>,
    /// `--func-stack`.
    pub func_stack: bool,
    /// `--nosplice`.
    pub no_splice: bool,
    /// `--poll`.
    pub poll: bool,
    /// `--temp`.
    pub temp: Option<PathBuf>,
    /// `--user`.
    pub user: Option<String>,
    /// `--cmdlines-size`.
    pub cmdlines_size: Option<u64>,
    /// `--no-filter`: our own threads may be traced.
    pub no_filter: bool,
    /// `--file-version`.
    pub file_version: Option<u32>,
    /// `--compression`.
    pub compression: Option<String>,
    /// `--daemonize`.
    pub daemonize: bool,
    /// `--fork`: do not wait for the command.
    pub fork: bool,
    /// `--stderr`: our stdout goes to stderr.
    pub stderr: bool,
    /// `--by-comm`.
    pub by_comm: bool,
    /// `--tsync-interval`, milliseconds.
    pub tsync_interval_ms: Option<i64>,
    /// `--only-v1`: protocol V1 with a listener that would know V3.
    pub only_v1: bool,
    /// `--nofifos`.
    pub no_fifos: bool,
    /// `--tls`.
    pub tls: Option<Tls>,
    /// `--notimeout`.
    pub no_timeout: bool,
    /// `--debug`.
    pub debug: bool,
    /// `--exit-status`: end with the command's status.
    pub exit_status: bool,
    /// `--kptr`: make kernel addresses readable while they are copied.
    pub kptr: bool,
    /// `--dry-run`: print the plan.
    pub dry_run: bool,
    /// `extract`: `-s`, the snapshot in place of the buffer.
    pub snapshot: bool,
    /// `extract`: `-a`, every instance.
    pub all_instances: bool,
    /// Whether the top buffer takes part.
    pub top: bool,
    /// Remarks for the user that stop nothing.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Whether a buffer takes part: every instance, and the top one if it was chosen.
    pub fn selected(&self) -> impl Iterator<Item = &Buffer> {
        self.buffers.iter().filter(|b| b.name.is_some() || self.top)
    }

    /// The top buffer's wishes.
    pub fn top_buffer(&self) -> &Buffer {
        self.buffer(0)
    }

    /// The wishes for the buffer with this index.
    #[allow(
        clippy::indexing_slicing,
        reason = "indexes come from this list, which begins with the top buffer and only grows"
    )]
    pub fn buffer(&self, index: usize) -> &Buffer {
        &self.buffers[index]
    }

    /// The same with the TSC as clock of every buffer, and how it becomes nanoseconds.
    pub fn with_tsc(mut self) -> Plan {
        for b in &mut self.buffers {
            b.clock = Some("x86-tsc".into());
        }
        if let Some(top) = self.buffers.first_mut() {
            top.tsc2nsec = true;
        }
        self
    }

    /// The listener that gets the data, if there is one. One for all buffers.
    pub fn remote(&self) -> Option<&Remote> {
        self.buffers.iter().find_map(|b| b.remote.as_ref())
    }

    /// Whether data for a listener go over TCP.
    pub fn tcp(&self) -> bool {
        self.buffers.iter().any(|b| b.tcp)
    }

    /// Tells the user what has no effect.
    pub fn warn(&self) {
        for text in &self.warnings {
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("  {text}\n"));
        }
    }

    /// Prints the plan (`--dry-run`).
    ///
    /// # Errors
    /// stdout cannot be written.
    pub fn print(&self) -> anyhow::Result<std::process::ExitCode> {
        std::io::Write::write_fmt(&mut std::io::stdout().lock(), format_args!("{self}"))?;
        Ok(std::process::ExitCode::SUCCESS)
    }

    /// The name of the file to write.
    pub fn output_path(&self) -> PathBuf {
        self.output.clone().unwrap_or_else(|| "trace.dat".into())
    }

    /// Puts the options of `verb` (as they were typed) together.
    ///
    /// # Errors
    /// What cannot be done, in the words that scripts know.
    pub fn new(verb: Verb, options: &[Opt]) -> anyhow::Result<Plan> {
        let mut p = Parser::new(verb);
        for opt in options {
            p.take(opt)?;
        }
        p.finish()
    }

    fn empty(verb: Verb) -> Plan {
        Plan {
            verb,
            buffers: vec![Buffer::default()],
            guests: Vec::new(),
            command: Vec::new(),
            formats: Some(Vec::new()),
            only_command: false,
            graph_functions: Vec::new(),
            no_functions: false,
            no_ftrace: false,
            output: None,
            sleep_us: None,
            priority: None,
            max_kb: None,
            keep: verb == Verb::Set,
            keep_before: verb == Verb::Set,
            ignore_missing: false,
            quiet: false,
            global_irqs: false,
            strict_profile: false,
            hooks: Vec::new(),
            date: false,
            ts_offset: None,
            func_stack: false,
            no_splice: false,
            poll: false,
            temp: None,
            user: None,
            cmdlines_size: None,
            no_filter: false,
            file_version: None,
            compression: None,
            daemonize: false,
            fork: false,
            stderr: false,
            by_comm: false,
            tsync_interval_ms: None,
            no_fifos: false,
            only_v1: false,
            tls: None,
            no_timeout: false,
            debug: false,
            exit_status: false,
            kptr: false,
            dry_run: false,
            snapshot: false,
            all_instances: false,
            top: false,
            warnings: Vec::new(),
        }
    }
}

/// Where the next option belongs.
enum Target {
    /// A buffer of this machine: index into `Plan::buffers`.
    Local(usize),
    /// A guest: index into `Plan::guests`.
    Guest(usize),
}

struct Parser {
    plan: Plan,
    target: Target,
    /// `-v` is in force.
    negative: bool,
    /// `-a` came: no further patterns are collected.
    all_formats: bool,
    /// `-t` of extract.
    extract_top: bool,
}

/// Options that `set` has no use for; it says so in these words.
const NOT_FOR_SET: &[&str] = &[
    "a",
    "G",
    "o",
    "H",
    "s",
    "S",
    "r",
    "N",
    "V",
    "t",
    "k",
    "date",
    "nosplice",
    "nofifos",
    "only-v1",
    "profile",
    "by-comm",
    "ts-offset",
    "no-filter",
    "tsync-interval",
    "poll",
    "proc-map",
    "compression",
];

impl Parser {
    fn new(verb: Verb) -> Parser {
        Parser {
            plan: Plan::empty(verb),
            target: Target::Local(0),
            negative: false,
            all_formats: false,
            extract_top: false,
        }
    }

    fn take(&mut self, opt: &Opt) -> anyhow::Result<()> {
        if !matches!(opt.id.as_str(), "B" | "A" | "name" | "proxy" | "command")
            && let Some(guest) = self.guest()
        {
            guest.own_clock |= opt.id == "C";
            push_words(&mut guest.args, opt);
            return Ok(());
        }
        self.refuse(&opt.id)?;
        match opt.id.as_str() {
            "B" => self.switch_buffer(&opt.text()),
            "A" | "proxy" => self.add_guest(opt),
            "name" => self.name_guest(opt),
            _ if self.global(opt)? => Ok(()),
            _ => self.local(opt),
        }
    }

    /// The guest that options are for now, if they are for one.
    fn guest(&mut self) -> Option<&mut Guest> {
        match self.target {
            Target::Guest(at) => self.plan.guests.get_mut(at),
            Target::Local(_) => None,
        }
    }

    /// Options that a command does not have.
    fn refuse(&self, id: &str) -> anyhow::Result<()> {
        let verb = self.plan.verb;
        let name = verb.name();
        let no_effect = |id: &str| {
            let option = if id.len() == 1 { format!("-{id}") } else { format!("--{id}") };
            anyhow::anyhow!("{option} has no effect with the command {name}\nDid you mean 'record'?")
        };
        match verb {
            Verb::Set if id == "K" => return Err(no_effect("k")),
            Verb::Set if NOT_FOR_SET.contains(&id) => return Err(no_effect(id)),
            Verb::Start if matches!(id, "proc-map" | "compression") => return Err(no_effect(id)),
            Verb::Stream | Verb::Profile if id == "compression" => return Err(no_effect(id)),
            _ => {}
        }
        if matches!(verb, Verb::Record) {
            ensure!(id != "fork", "--fork option used for 'start' command only");
            return Ok(());
        }
        match id {
            "o" if matches!(verb, Verb::Start | Verb::Stream) => {
                bail!("{name} does not take output\nDid you mean 'record'?")
            }
            "N" | "V" if verb != Verb::Extract => bail!("-{id} only available with record"),
            "m" => bail!("only record take 'm' option"),
            "A" => bail!("-A is only allowed for record operations"),
            "proxy" => bail!("--proxy is only allowed for record operations"),
            "daemonize" => bail!("--daemonize option used for 'record' command only"),
            "fork" if verb != Verb::Start => bail!("--fork option used for 'start' command only"),
            "file-version" => bail!("--file_version has no effect with the command {name}"),
            _ => Ok(()),
        }
    }

    fn switch_buffer(&mut self, name: &str) -> anyhow::Result<()> {
        ensure!(
            !name.is_empty() && name != "." && name != ".." && !name.contains('/'),
            "{name:?} cannot be the name of an instance"
        );
        self.end_local();
        let known = self.plan.buffers.iter().position(|b| b.name.as_deref() == Some(name));
        let at = known.unwrap_or_else(|| {
            self.plan.buffers.push(Buffer { name: Some(name.to_owned()), ..Buffer::default() });
            self.plan.buffers.len() - 1
        });
        let negative = std::mem::take(&mut self.negative);
        if let Some(b) = self.plan.buffers.get_mut(at) {
            b.delete |= negative && self.plan.verb == Verb::Set;
        }
        self.target = Target::Local(at);
        Ok(())
    }

    fn add_guest(&mut self, opt: &Opt) -> anyhow::Result<()> {
        let target = opt.text();
        if opt.id == "A"
            && let Some(guest) = self.guest().filter(|g| g.proxy)
        {
            push_words(&mut guest.args, opt);
            return Ok(());
        }
        self.end_local();
        self.plan.guests.push(Guest {
            target,
            name: None,
            proxy: opt.id == "proxy",
            args: Vec::new(),
            own_clock: false,
        });
        self.target = Target::Guest(self.plan.guests.len() - 1);
        Ok(())
    }

    fn name_guest(&mut self, opt: &Opt) -> anyhow::Result<()> {
        let guest = self.guest().context("--name is only used for -A options")?;
        guest.name = Some(opt.text());
        Ok(())
    }

    fn end_local(&mut self) {
        if let Target::Local(at) = self.target
            && let Some(b) = self.plan.buffers.get_mut(at)
        {
            b.end_module();
        }
    }

    /// Options that count wherever they stand; false: not one of them.
    fn global(&mut self, opt: &Opt) -> anyhow::Result<bool> {
        let p = &mut self.plan;
        let text = opt.text();
        match opt.id.as_str() {
            "command" => p.command.extend(opt.value.clone()),
            "a" if p.verb == Verb::Extract => p.all_instances = true,
            "a" => self.all_formats = true,
            "o" => {
                ensure!(p.output.is_none(), "only one output file allowed");
                ensure!(p.buffers.iter().all(|b| b.remote.is_none()), "-o incompatible with -N");
                p.output = opt.value.clone().map(PathBuf::from);
            }
            "s" if p.verb == Verb::Extract => p.snapshot = true,
            "s" => p.sleep_us = Some(number(&text, "-s")?),
            "r" => p.priority = Some(number(&text, "-r")?),
            "m" => {
                ensure!(p.max_kb.is_none(), "-m can only be specified once");
                p.max_kb = Some(number(&text, "-m")?);
            }
            "k" => p.keep = true,
            "K" => (p.keep, p.keep_before) = (true, true),
            "i" => p.ignore_missing = true,
            "q" => p.quiet = true,
            "d" => p.no_functions = true,
            "D" => (p.no_functions, p.no_ftrace) = (true, true),
            "G" => p.global_irqs = true,
            "S" => p.strict_profile = true,
            "F" => p.only_command = true,
            "H" => p.hooks.push(Hook::parse(&text)?),
            "date" => p.date = true,
            "ts-offset" => p.ts_offset = Some(text),
            "func-stack" => p.func_stack = true,
            "nosplice" => p.no_splice = true,
            "poll" => p.poll = true,
            "temp" => {
                ensure!(p.temp.is_none(), "Only one temp directory can be listed");
                p.temp = opt.value.clone().map(PathBuf::from);
            }
            "user" => p.user = Some(text),
            "cmdlines-size" => p.cmdlines_size = Some(number(&text, "--cmdlines-size")?),
            "no-filter" => p.no_filter = true,
            "file-version" => {
                let version: u32 = number(&text, "--file-version")?;
                ensure!(
                    (6..=7).contains(&version),
                    "Unsupported file version {version}, supported versions are from 6 to 7"
                );
                p.file_version = Some(version);
            }
            "compression" => {
                ensure!(
                    matches!(text.as_str(), "any" | "none" | "zstd" | "zlib"),
                    "Compression algorithm  {text} is not supported"
                );
                p.compression = Some(text);
            }
            "daemonize" => p.daemonize = true,
            "fork" => p.fork = true,
            "stderr" => p.stderr = true,
            "by-comm" => p.by_comm = true,
            "tsync-interval" => p.tsync_interval_ms = Some(number(&text, "--tsync-interval")?),
            "only-v1" => p.only_v1 = true,
            "nofifos" => p.no_fifos = true,
            "notimeout" => p.no_timeout = true,
            "tls" => drop(p.tls.get_or_insert_default()),
            "tls-ca" => p.tls.get_or_insert_default().ca = opt.value.clone().map(PathBuf::from),
            "tls-cert" => p.tls.get_or_insert_default().cert = opt.value.clone().map(PathBuf::from),
            "tls-key" => p.tls.get_or_insert_default().key = opt.value.clone().map(PathBuf::from),
            "debug" => {
                p.debug = true;
                crate::log::set_level(Some("debug"))?;
            }
            "verbose" => crate::log::set_level(opt.value.is_some().then_some(text.as_str()))?,
            "exit-status" => p.exit_status = true,
            "kptr" => p.kptr = true,
            "dry-run" => p.dry_run = true,
            // Graph functions only ever reach the top buffer, but take the module of where they stand.
            "g" => {
                let Target::Local(at) = self.target else { return Ok(false) };
                let Some(b) = p.buffers.get_mut(at) else { return Ok(false) };
                b.module_used = true;
                let module = b.module.clone();
                p.graph_functions.push(FuncChoice { pattern: text, module });
            }
            "t" if p.verb == Verb::Extract => self.extract_top = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Options of the current buffer.
    fn local(&mut self, opt: &Opt) -> anyhow::Result<()> {
        let Target::Local(at) = self.target else { return Ok(()) };
        let negative = self.negative;
        let text = opt.text();
        let Some(b) = self.plan.buffers.get_mut(at) else { return Ok(()) };
        match opt.id.as_str() {
            "e" => {
                if let Some(formats) = &mut self.plan.formats
                    && !self.all_formats
                {
                    formats.push(text.clone());
                }
                b.events.push(EventChoice { pattern: text, negative, ..EventChoice::default() });
            }
            "f" => {
                let event = b.events.last_mut().context("filter must come after event")?;
                event.filter = Some(match event.filter.take() {
                    Some(old) => format!("{old}&&({text})"),
                    None => format!("({text})"),
                });
            }
            "R" => b.events.last_mut().context("trigger must come after event")?.triggers.push(text),
            "v" => self.negative = true,
            "p" => {
                ensure!(b.tracer.is_none(), "only one plugin allowed");
                b.tracer = Some(text.trim().to_owned());
            }
            "P" => {
                for word in text.split([',', ' ']).filter(|w| !w.is_empty()) {
                    b.pids.push(number(word, "-P")?);
                }
            }
            "c" => b.follow = true,
            "C" if text == "tsc2nsec" => (b.clock, b.tsc2nsec) = (Some("x86-tsc".to_owned()), true),
            "C" => b.clock = Some(text),
            "T" => b.options.push("stacktrace".to_owned()),
            "O" => b.options.push(text),
            "l" | "n" => {
                b.module_used = true;
                let choice = FuncChoice { pattern: text, module: b.module.clone() };
                if opt.id == "l" { b.functions.push(choice) } else { b.not_functions.push(choice) }
            }
            "module" => {
                b.end_module();
                b.module = Some(text);
            }
            "b" => b.size_kb = Some(number(&text, "-b")?),
            "subbuf-size" => b.subbuf_kb = Some(number(&text, "--subbuf-size")?),
            "M" => b.cpumask = Some(text),
            "max-graph-depth" => b.max_graph_depth = Some(number(&text, "--max-graph-depth")?),
            "profile" => b.profile = true,
            "proc-map" => b.proc_map = true,
            "tsc2nsec" => b.tsc2nsec = true,
            "N" | "V" => {
                ensure!(self.plan.output.is_none(), "-o incompatible with -{}", opt.id);
                b.remote = Some(Remote { address: text, vsock: opt.id == "V" });
            }
            "t" => b.tcp = true,
            other => bail!("option {other} is not known here"),
        }
        Ok(())
    }

    /// The checks that need all options, and what follows from them.
    fn finish(mut self) -> anyhow::Result<Plan> {
        self.end_local();
        let mut p = self.plan;
        let has_command = !p.command.is_empty();
        if self.all_formats || p.verb == Verb::Extract {
            p.formats = None;
        }
        for pattern in p.hooks.iter().flat_map(Hook::patterns) {
            if let Some(formats) = &mut p.formats {
                formats.push(pattern.clone());
            }
            if let Some(top) = p.buffers.first_mut() {
                top.events.push(EventChoice { pattern, ..EventChoice::default() });
            }
        }
        ensure!(!(p.date && p.ts_offset.is_some()), "Can not use both --date and --ts-offset");
        if p.verb == Verb::Extract {
            if let Some(word) = p.command.first() {
                bail!("extract runs no command: what to do with {word:?}?");
            }
            p.top = self.extract_top || p.buffers.len() == 1 && !p.all_instances;
            return Ok(p);
        }
        for b in &p.buffers {
            ensure!(
                !b.follow || p.only_command || !b.pids.is_empty(),
                "-c can only be used with -F (or -P with event-fork support)"
            );
            if b.proc_map && !has_command && b.pids.is_empty() {
                let what = b.name.as_deref().unwrap_or("top");
                p.warnings.push(format!(
                    "--proc-map is ignored for {what} instance, no command or filtered PIDs are specified."
                ));
            }
        }
        if p.only_command && !has_command {
            p.warnings.push("-F names no process: there is no command to run".to_owned());
        }
        if let (Some(user), false) = (&p.user, has_command) {
            p.warnings.push(format!("--user {user} is ignored, no command is specified"));
        }
        if p.verb == Verb::Profile {
            // Each named buffer is profiled; without any, the top one.
            let named = p.buffers.len() > 1;
            p.buffers.iter_mut().filter(|b| b.name.is_some() || !named).for_each(|b| b.profile = true);
        }
        p.buffers.iter_mut().filter(|b| b.profile && !p.strict_profile).for_each(profile_defaults);
        if let Some(formats) = &mut p.formats
            && p.buffers.iter().any(|b| b.profile)
            && !p.strict_profile
        {
            formats.extend(PROFILE_EVENTS.iter().map(|(e, _)| (*e).to_owned()));
        }
        let top = p.top_buffer();
        if p.func_stack {
            ensure!(
                !top.functions.is_empty() && top.tracer.as_deref() == Some("function"),
                "Must supply function filtering with --func-stack\n"
            );
        }
        p.top = match p.verb {
            Verb::Set => true,
            _ => top.traces() || top.proc_map || p.only_command || p.keep_before && p.buffers.len() == 1,
        };
        let something = p.buffers.iter().any(Buffer::traces) || !p.guests.is_empty();
        ensure!(something || p.keep_before, "no event or plugin was specified... aborting");
        let remote = p.buffers.iter().any(|b| b.remote.is_some());
        ensure!(!remote || p.latency_tracer().is_none(), "Network tracing not available with latency tracer plugins");
        ensure!(
            p.verb != Verb::Stream || p.latency_tracer().is_none(),
            "Streaming is not available with latency tracer plugins"
        );
        let traced = || p.buffers.iter().filter(|b| b.traces());
        let latency = |b: &&Buffer| b.tracer.as_deref().is_some_and(tracefs::is_latency_tracer);
        ensure!(
            p.latency_tracer().is_none() || traced().filter(|b| b.tracer.is_some()).all(|b| latency(&b)),
            "a latency tracer cannot be mixed with another tracer"
        );
        Ok(p)
    }
}

impl Plan {
    /// The first latency tracer that is asked for: its result is a text, not a stream of records.
    pub fn latency_tracer(&self) -> Option<&str> {
        let mut tracers = self.buffers.iter().filter_map(|b| b.tracer.as_deref());
        tracers.find(|t| tracefs::is_latency_tracer(t))
    }
}

/// What `--profile` switches on, and whether with a stack trace.
pub const PROFILE_EVENTS: &[(&str, bool)] = &[
    ("sched:sched_switch", true),
    ("sched:sched_wakeup", true),
    ("exceptions:page_fault_user", false),
    ("irq:irq_handler_entry", false),
    ("irq:irq_handler_exit", false),
    ("irq:softirq_entry", false),
    ("irq:softirq_exit", false),
    ("irq:softirq_raise", false),
    ("sched:sched_process_exec", false),
    ("raw_syscalls", false),
];

/// The tracer of a profiled buffer. Its events are added where the kernel is known: missing ones are left out.
fn profile_defaults(b: &mut Buffer) {
    if b.tracer.is_none() && b.max_graph_depth.is_none() {
        b.tracer = Some("function_graph".to_owned());
        b.max_graph_depth = Some(1);
        b.profile_tracer = true;
    }
}

/// An option as the words that stand for it.
fn push_words(words: &mut Vec<OsString>, opt: &Opt) {
    let name = if opt.id.chars().count() == 1 { format!("-{}", opt.id) } else { format!("--{}", opt.id) };
    match (&opt.value, opt.id.as_str()) {
        (Some(value), "verbose") => {
            let mut word = OsString::from(name + "=");
            word.push(value);
            words.push(word);
        }
        (Some(value), _) => words.extend([name.into(), value.clone()]),
        (None, _) => words.push(name.into()),
    }
}

/// A number of an option.
fn number<T: std::str::FromStr>(text: &str, option: &str) -> anyhow::Result<T> {
    text.trim().parse().ok().with_context(|| format!("{option} needs a number, not {text:?}"))
}
