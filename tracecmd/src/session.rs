//! A session with the kernel: carries out a [`Plan`] step by step, in the order of the reference, and brings everything back.
//!
//! Every write goes through the `tracefs` crate, whose journal notes the old content first. Whatever ends the session — its
//! end, an error, a panic — plays the journal backwards when the [`Session`] is dropped; after SIGKILL the journal's file
//! remains for `reset` and the next session. So a recording leaves every setting as it found it: also tracer, events, filters
//! and process lists that somebody else had set up, which are out of the way while it runs. Only the buffer's data are gone.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use tracefs::{EventTarget, FuncList, FuncPattern, Instance, Journal, PidList, TraceFs};

use crate::plan::{Buffer, EventChoice, FuncChoice, PROFILE_EVENTS, Plan, Verb};

/// One buffer that takes part.
#[derive(Debug)]
pub struct Active {
    /// Which one of [`Plan::buffers`].
    pub index: usize,
    /// Its control files.
    pub instance: Instance,
    /// `tracing_on` before.
    pub was_on: bool,
    /// `tracing_on`, held open for the moment before the command starts.
    pub switch: File,
}

impl Active {
    /// Its name in files and messages; empty for the top buffer.
    pub fn name(&self) -> &str {
        self.instance.name().unwrap_or("")
    }
}

/// A configured kernel, until dropped.
#[derive(Debug)]
pub struct Session {
    root: TraceFs,
    journal: Journal,
    /// What takes part: the top buffer first, if it does.
    pub buffers: Vec<Active>,
    /// What happens to our changes at the end.
    ending: Ending,
}

/// What [`Session::end`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Undo everything, as after a record.
    Undo,
    /// Switch off what runs in the buffers, as after an extract: what was recorded before is taken.
    Clear,
    /// Everything stays; only a failed set-up is undone.
    Keep,
    /// Is done.
    Done,
}

impl Session {
    /// Finds tracefs, checks what can be checked before anything is changed, and makes the instances.
    ///
    /// # Errors
    /// No tracefs, an unknown tracer or clock, an instance that cannot be made.
    pub fn open(plan: &Plan) -> anyhow::Result<Session> {
        let root = TraceFs::find()?;
        if matches!(plan.verb, Verb::Record | Verb::Start) && !plan.keep_before {
            undo_leftovers(&root);
        }
        Session::open_at(root, Journal::for_session(), plan)
    }

    /// [`open`](Session::open) on a given tracing directory, with the journal that its writes are noted in.
    ///
    /// # Errors
    /// As [`open`](Session::open).
    pub fn open_at(root: TraceFs, journal: Journal, plan: &Plan) -> anyhow::Result<Session> {
        let root = root.with_journal(journal.clone());
        let top = root.top();
        for b in plan.selected() {
            if let Some(tracer) = b.tracer.as_deref().filter(|t| *t != "nop" && !t.is_empty()) {
                let known = top.tracers()?;
                ensure!(
                    known.iter().any(|t| t == tracer),
                    "Plugin '{tracer}' does not exist (this kernel has: {})",
                    known.join(" ")
                );
                if !plan.quiet && !b.profile_tracer {
                    let _ = writeln!(std::io::stderr(), "  plugin '{tracer}'");
                }
            }
            if let Some(clock) = &b.clock {
                let known = top.clocks()?;
                ensure!(known.contains(clock), "Clock {clock} is not supported (this kernel has: {})", known.join(" "));
            }
        }
        let ending = match plan.verb {
            _ if plan.keep_before => Ending::Keep,
            // A failed extract must not empty the buffers that it could not store: see `end_extract`.
            Verb::Start | Verb::Set | Verb::Extract => Ending::Keep,
            _ => Ending::Undo,
        };
        let mut session = Session { root, journal, buffers: Vec::new(), ending };
        // As in the reference: the top buffer, then the instances, the last one first.
        let instances = plan.buffers.iter().enumerate().skip(1).rev();
        for (index, b) in plan.buffers.iter().enumerate().take(1).chain(instances) {
            if (b.name.is_some() || plan.top) && !b.delete {
                session.attach(index, b, plan.verb)?;
            }
        }
        Ok(session)
    }

    /// Opens or makes one buffer and remembers how it was.
    fn attach(&mut self, index: usize, b: &Buffer, verb: Verb) -> anyhow::Result<()> {
        let instance = match &b.name {
            None => self.root.top(),
            // What is not there holds nothing.
            Some(name) if verb == Verb::Extract => self.root.instance(name)?,
            Some(name) => self.root.create_instance(name)?,
        };
        let was_on = instance.is_on().unwrap_or(true);
        let path = instance.file("tracing_on");
        let switch =
            std::fs::OpenOptions::new().write(true).open(&path).map_err(|e| tracefs::Error::io("open", &path, e))?;
        // The first note is the last to be played: tracing goes on when all else is back.
        self.journal.note_value(&path, if was_on { "1" } else { "0" })?;
        self.buffers.push(Active { index, instance, was_on, switch });
        Ok(())
    }

    /// The tracing directory.
    pub fn root(&self) -> &TraceFs {
        &self.root
    }

    /// The clock of the first buffer.
    pub fn clock(&self) -> String {
        let clock = self.buffers.first().and_then(|a| a.instance.clock().ok());
        clock.unwrap_or_else(|| "local".to_owned())
    }

    /// What `extract` sets before it reads: a tracer and trace options, if given.
    ///
    /// # Errors
    /// The kernel refuses one.
    pub fn settings_before_extract(&mut self, plan: &Plan) -> anyhow::Result<()> {
        for a in &self.buffers {
            let b = plan.buffer(a.index);
            self.tracer(a, b, plan.quiet)?;
            for option in b.options.iter().rev() {
                a.instance.write_option(option)?;
            }
        }
        Ok(())
    }

    /// Writes all settings (steps 7 to 18 of the reference).
    ///
    /// # Errors
    /// The first setting that was asked for and is refused. A refused filter or trigger is only reported.
    pub fn configure(&mut self, plan: &Plan) -> anyhow::Result<()> {
        let chosen = self.buffers.iter().map(|a| choose_events(plan, a)).collect::<anyhow::Result<Vec<_>>>()?;
        self.function_switch(plan)?;
        if !plan.keep_before {
            for a in self.buffers.iter().filter(|a| !a.instance.is_new()) {
                self.clean(a)?;
            }
        }
        let pairs = || self.buffers.iter().map(|a| (a, plan.buffer(a.index)));
        let default_clock = plan.buffers.iter().find_map(|b| b.clock.as_deref());
        for (a, b) in pairs() {
            if let Some(clock) = b.clock.as_deref().or(default_clock) {
                a.instance.set_clock(clock)?;
            }
        }
        for (a, b) in pairs() {
            self.functions(plan, a, b)?;
            if let Some(mask) = &b.cpumask {
                set_cpumask(&a.instance, mask)?;
            }
        }
        for (a, choices) in self.buffers.iter().zip(&chosen) {
            self.events(plan, a, choices)?;
        }
        if let Some(size) = plan.cmdlines_size {
            self.root.dir().write("saved_cmdlines_size", &size.to_string())?;
        }
        for (a, b) in pairs() {
            if let Some(kb) = b.size_kb {
                a.instance.set_buffer_size_kb(kb, None)?;
            }
            match b.subbuf_kb.map(|kb| a.instance.set_subbuf_size_kb(kb)) {
                // An older kernel records just as well.
                Some(Err(e)) if e.is_missing() => log::warn!("{e}; recording goes on without --subbuf-size"),
                Some(done) => done?,
                None => {}
            }
        }
        for (a, b) in pairs() {
            self.tracer(a, b, plan.quiet)?;
        }
        for (a, b) in pairs() {
            for option in b.options.iter().rev() {
                a.instance.write_option(option)?;
            }
            if b.follow {
                a.instance.set_follow_fork(true)?;
            }
            if plan.func_stack && a.instance.is_top() {
                a.instance.write_option("func_stack_trace")?;
            }
            if let Some(depth) = b.max_graph_depth.filter(|_| !(b.profile_tracer && without_depth(&a.instance))) {
                a.instance.set_max_graph_depth(depth)?;
            }
        }
        Ok(())
    }

    /// `options/function-trace` and the global switch. Without `-d` or `-D` both are switched on; a kernel that refuses
    /// (lockdown) is then no matter.
    fn function_switch(&self, plan: &Plan) -> anyhow::Result<()> {
        let Some(last) = self.buffers.iter().max_by_key(|a| a.index) else { return Ok(()) };
        let dir = last.instance.dir();
        let on = !plan.no_functions;
        let has_option = dir.exists("options/function-trace");
        if has_option {
            let done = dir.write("options/function-trace", if on { "1" } else { "0" });
            if !on {
                done?;
            }
        }
        if on || plan.no_ftrace || !has_option {
            let global = tracefs::Dir::new("/proc/sys/kernel").with_journal(Some(self.journal.clone()));
            let done = global.write("ftrace_enabled", if on { "1" } else { "0" });
            if let Err(e) = done {
                // Nothing was changed, so there is nothing to bring back.
                let path = global.file("ftrace_enabled");
                self.journal.forget(|u| u.path() == path)?;
                if !on {
                    return Err(e.into());
                }
                log::info!("function tracing was not switched on: {e}");
            }
        }
        Ok(())
    }

    /// Stops and empties a buffer: no tracer, no events.
    fn clean(&self, a: &Active) -> anyhow::Result<()> {
        let i = &a.instance;
        let dir = i.dir();
        i.set_on(false)?;
        if i.tracer()? == "function" && dir.exists("options/func_stack_trace") {
            dir.write("options/func_stack_trace", "0")?;
        }
        dir.write("current_tracer", "nop")?;
        dir.write("events/enable", "0")?;
        if dir.exists("set_ftrace_pid") && i.pids(PidList::Function).is_ok_and(|p| !p.is_empty()) {
            i.set_pids(PidList::Function, &[])?;
        }
        i.clear(None)?;
        Ok(())
    }

    fn functions(&self, plan: &Plan, a: &Active, b: &Buffer) -> anyhow::Result<()> {
        let i = &a.instance;
        let graph_notrace = plan.top_buffer().tracer.as_deref() == Some("function_graph");
        let (commands, names): (Vec<_>, Vec<_>) = b.functions.iter().rev().partition(|f| f.is_command());
        set_functions(i, FuncList::Filter, &names)?;
        let list = if graph_notrace { FuncList::GraphNotrace } else { FuncList::Notrace };
        set_functions(i, list, &b.not_functions.iter().rev().collect::<Vec<_>>())?;
        if i.is_top() {
            set_functions(i, FuncList::Graph, &plan.graph_functions.iter().rev().collect::<Vec<_>>())?;
        }
        for command in commands {
            i.add_function_command(&command.pattern).map_err(|e| failed_function(command, FuncList::Filter, e))?;
        }
        Ok(())
    }

    fn events(&self, plan: &Plan, a: &Active, choices: &[Chosen<'_>]) -> anyhow::Result<()> {
        let i = &a.instance;
        for c in choices.iter().filter(|c| !c.choice.negative) {
            for target in &c.targets {
                match &c.choice.filter {
                    Some(filter) => {
                        if let Err(e) = i.set_event_filter(target, filter) {
                            rejected("filter", &i.file(format!("{}/filter", target.dir())), &e)?;
                        }
                    }
                    // Somebody else's filter would hold back what was asked for. Those of other events are no matter.
                    None if !plan.keep_before => i.clear_filters_of(target)?,
                    None => {}
                }
                self.triggers(i, target, &c.choice)?;
                self.enable(i, target, true)?;
            }
        }
        for c in choices.iter().filter(|c| c.choice.negative) {
            for target in &c.targets {
                self.triggers(i, target, &c.choice)?;
                self.enable(i, target, false)?;
            }
        }
        Ok(())
    }

    fn enable(&self, i: &Instance, target: &EventTarget, on: bool) -> anyhow::Result<()> {
        i.enable(target, on).with_context(|| format!("cannot enable {target}"))
    }

    fn triggers(&self, i: &Instance, target: &EventTarget, choice: &EventChoice) -> anyhow::Result<()> {
        let file = format!("{}/trigger", target.dir());
        for trigger in &choice.triggers {
            if let Err(e) = i.dir().append(&file, trigger) {
                rejected("trigger", &i.file(&file), &e)?;
            }
        }
        Ok(())
    }

    fn tracer(&self, a: &Active, b: &Buffer, quiet: bool) -> anyhow::Result<()> {
        let i = &a.instance;
        let Some(tracer) = b.tracer.as_deref() else { return Ok(()) };
        if b.profile_tracer && without_depth(i) {
            let file = i.file("max_graph_depth");
            log::warn!("{}: this kernel has no such file: no times of functions in this profile", file.display());
            return Ok(());
        }
        if b.profile_tracer && !quiet {
            let _ = writeln!(std::io::stderr(), "  plugin '{tracer}'");
        }
        if tracer.starts_with("function") && i.dir().exists("options/func_stack_trace") {
            i.dir().write("options/func_stack_trace", "0")?;
        }
        i.set_tracer(if tracer.is_empty() { "nop" } else { tracer })?;
        Ok(())
    }

    /// Limits the buffers to processes: `-P`, and with `-F` the command.
    ///
    /// # Errors
    /// The kernel has no process filters for events (before Linux 4.4), or refuses.
    pub fn limit_to(&self, plan: &Plan, command: Option<i32>) -> anyhow::Result<()> {
        for a in &self.buffers {
            let b = plan.buffer(a.index);
            let mut pids = b.pids.clone();
            pids.extend(command.filter(|_| plan.only_command));
            if pids.is_empty() {
                continue;
            }
            let i = &a.instance;
            ensure!(
                i.has_pid_list(PidList::Event),
                "{}: this kernel cannot limit events to processes (since Linux 4.4)",
                i.file("set_event_pid").display()
            );
            i.set_pids(PidList::Event, &pids)?;
            if i.has_pid_list(PidList::Function)
                && let Err(e) = i.set_pids(PidList::Function, &pids)
            {
                let functions = b.tracer.as_deref().is_some_and(|t| t.starts_with("function"));
                ensure!(!functions, e);
                log::info!("functions are not limited to processes: {e}");
            }
        }
        Ok(())
    }

    /// Leaves our own threads out of what is recorded, where the kernel can (since Linux 5.7).
    pub fn leave_out(&self, threads: &[i32]) {
        for a in &self.buffers {
            for list in [PidList::EventNotrace, PidList::FunctionNotrace] {
                let functions = list == PidList::FunctionNotrace;
                if functions && a.instance.tracer().is_ok_and(|t| !t.starts_with("function")) {
                    continue;
                }
                if a.instance.has_pid_list(list)
                    && let Err(e) = a.instance.add_pids(list, threads)
                {
                    log::info!("our own threads are not left out: {e}");
                }
            }
        }
    }

    /// Switches all buffers on.
    ///
    /// # Errors
    /// As the kernel.
    pub fn switch_on(&self) -> anyhow::Result<()> {
        self.buffers.iter().try_for_each(|a| switch(a, b"1"))
    }

    /// Switches all buffers off.
    ///
    /// # Errors
    /// As the kernel.
    pub fn switch_off(&self) -> anyhow::Result<()> {
        self.buffers.iter().try_for_each(|a| switch(a, b"0"))
    }

    /// Stops tracing, switches off what is traced and empties the buffers, which have been stored: what `extract` does without `-k`.
    ///
    /// # Errors
    /// As [`Session::end`].
    pub fn end_extract(&mut self) -> anyhow::Result<()> {
        self.ending = Ending::Clear;
        self.end()
    }

    /// What was asked for stays, now and later. That our own threads were left out does not: nobody asked for that.
    pub fn keep(&mut self) {
        let of_threads = |path: &Path| path.file_name().is_some_and(|n| n.to_string_lossy().ends_with("_notrace_pid"));
        if let Err(e) = self.journal.forget(|undo| !of_threads(undo.path())) {
            log::warn!("{}", causes(&e));
        }
        self.undo();
        self.ending = Ending::Done;
    }

    /// Brings everything back; what could not be brought back is told.
    ///
    /// # Errors
    /// The first failure; all steps are tried.
    pub fn end(&mut self) -> anyhow::Result<()> {
        if self.ending == Ending::Done {
            return Ok(());
        }
        let ending = std::mem::replace(&mut self.ending, Ending::Done);
        let mut first = Ok(());
        self.journal.pause(true);
        for a in self.buffers.iter().filter(|a| !a.instance.is_new()) {
            let done = match ending {
                // The events of this session do not stay in the buffer.
                Ending::Undo => switch(a, b"0").and_then(|()| Ok(a.instance.clear(None)?)),
                Ending::Clear => self.clean(a).and_then(|()| Ok(a.instance.clear_filters_of(&EventTarget::All)?)),
                Ending::Keep | Ending::Done => Ok(()),
            };
            first = first.and(done);
        }
        // An open control file would keep its instance.
        self.buffers.clear();
        self.undo();
        first
    }

    /// Brings back what the journal has; what could not be brought back is told.
    fn undo(&self) {
        for e in self.journal.undo() {
            log::warn!("not brought back: {}", causes(&e));
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Err(e) = self.end() {
            log::warn!("not brought back: {e:#}");
        }
    }
}

/// An error with all that caused it, in one line.
fn causes(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut next = e.source();
    while let Some(e) = next {
        text += &format!(": {e}");
        next = e.source();
    }
    text
}

fn switch(a: &Active, value: &[u8]) -> anyhow::Result<()> {
    (&a.switch).write_all(value).with_context(|| format!("cannot write {}", a.instance.file("tracing_on").display()))
}

/// An `-e` and the files it stands for.
struct Chosen<'p> {
    choice: std::borrow::Cow<'p, EventChoice>,
    targets: Vec<EventTarget>,
}

/// Finds what each `-e` of a buffer means on this kernel.
fn choose_events<'p>(plan: &'p Plan, a: &Active) -> anyhow::Result<Vec<Chosen<'p>>> {
    use std::borrow::Cow;
    let b = plan.buffer(a.index);
    let mut list = Vec::new();
    for choice in &b.events {
        match a.instance.expand_events(&choice.pattern, !choice.triggers.is_empty()) {
            Ok(targets) => list.push(Chosen { choice: Cow::Borrowed(choice), targets }),
            Err(_) if plan.ignore_missing => {}
            Err(e) => return Err(anyhow::Error::new(e).context(format!("No events enabled with {}", choice.pattern))),
        }
    }
    if b.profile && !plan.strict_profile {
        for (pattern, stack) in PROFILE_EVENTS {
            let triggers = if *stack { vec!["stacktrace".to_owned()] } else { Vec::new() };
            let choice = EventChoice { pattern: (*pattern).to_owned(), triggers, ..EventChoice::default() };
            // A kernel without one of them is profiled without it.
            if let Ok(targets) = a.instance.expand_events(pattern, *stack) {
                list.push(Chosen { choice: Cow::Owned(choice), targets });
            }
        }
    }
    Ok(list)
}

/// Whether the depth of function_graph cannot be limited: kernels have that for the top buffer alone.
fn without_depth(i: &Instance) -> bool {
    !i.dir().exists("max_graph_depth")
}

/// A refused filter or trigger does not stop a recording: what the kernel says about it goes to stdout.
fn rejected(what: &str, path: &std::path::Path, error: &tracefs::Error) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match error {
        tracefs::Error::Refused { log, .. } if !log.is_empty() => writeln!(out, "{}", log.trim_end())?,
        other => writeln!(out, "{other}")?,
    }
    writeln!(out, "Failed {what} of {}", path.display())?;
    Ok(())
}

fn failed_function(f: &FuncChoice, list: FuncList, e: tracefs::Error) -> anyhow::Error {
    let failed = format!("Failed to write {} to {}", f.pattern, list.file());
    let text = match e {
        tracefs::Error::Permission { .. } | tracefs::Error::Lockdown { .. } => failed,
        _ => format!("{failed}. Perhaps this function is not available for tracing; run: list -f {}", f.pattern),
    };
    anyhow::Error::new(e).context(text)
}

fn set_functions(i: &Instance, list: FuncList, choices: &[&FuncChoice]) -> anyhow::Result<()> {
    let Some(first) = choices.first() else { return Ok(()) };
    let patterns =
        choices.iter().map(|c| FuncPattern::new(&c.pattern, c.module.as_deref())).collect::<Result<Vec<_>, _>>()?;
    i.set_functions(list, &patterns, false).map_err(|e| failed_function(first, list, e))
}

/// `-M`: `-1` is all CPUs; anything else goes to the kernel as typed.
fn set_cpumask(i: &Instance, mask: &str) -> anyhow::Result<()> {
    if mask.trim() == "-1" {
        i.set_cpumask(None)?;
    } else {
        i.set_cpumask_text(mask)?;
    }
    Ok(())
}

/// Brings back what sessions left behind that were killed. A failure is told and stops nothing.
fn undo_leftovers(root: &TraceFs) {
    let found = match tracefs::journal::runtime_dir().map(|dir| tracefs::journal::leftovers(&dir, root.path())) {
        Some(Ok(found)) => found,
        Some(Err(e)) => return log::info!("no look for killed sessions: {e}"),
        None => return,
    };
    for leftover in found {
        log::warn!("a killed session left settings behind: bringing them back");
        for e in leftover.undo() {
            log::warn!("not brought back: {}", causes(&e));
        }
    }
}

/// Removes or makes the instances that `set` names, and nothing else.
///
/// # Errors
/// An instance to be removed that does not exist or is in use.
pub fn remove_instances(plan: &Plan) -> anyhow::Result<()> {
    if plan.verb != Verb::Set {
        bail!("only set removes instances");
    }
    let root = TraceFs::find()?;
    for b in plan.buffers.iter().filter(|b| b.delete) {
        if let Some(name) = &b.name {
            root.instance(name)?.remove()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
