//! The plan as text, for `--dry-run`: one line per setting, in the order in which it would be carried out.

use std::fmt::{Display, Formatter, Result};

use super::{Buffer, FuncChoice, Plan};

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        writeln!(f, "{}", self.verb.name())?;
        for b in self.selected() {
            writeln!(f, "buffer {}", b.name.as_deref().unwrap_or("(top)"))?;
            buffer(self, b, f)?;
        }
        for g in &self.guests {
            let args: Vec<_> = g.args.iter().map(|a| a.to_string_lossy()).collect();
            let kind = if g.proxy { "proxy" } else { "guest" };
            writeln!(f, "{kind} {} {}", g.name.as_deref().unwrap_or(&g.target), args.join(" "))?;
        }
        if !self.command.is_empty() {
            let words: Vec<_> = self.command.iter().map(|a| a.to_string_lossy()).collect();
            writeln!(f, "run {}", words.join(" "))?;
        }
        if matches!(self.verb, super::Verb::Record | super::Verb::Extract) {
            writeln!(f, "write {}", self.output_path().display())?;
        }
        if !self.keep {
            writeln!(f, "bring everything back")?;
        }
        Ok(())
    }
}

fn buffer(plan: &Plan, b: &Buffer, f: &mut Formatter<'_>) -> Result {
    if b.delete {
        return writeln!(f, "  remove");
    }
    if !plan.keep_before {
        writeln!(f, "  tracing_on = 0, current_tracer = nop, events/enable = 0, trace is emptied")?;
    }
    let mut set = |file: &str, value: &str| writeln!(f, "  {file} = {value}");
    if let Some(clock) = &b.clock {
        set("trace_clock", clock)?;
    }
    let function = |c: &FuncChoice| match &c.module {
        Some(m) => format!("{}:mod:{m}", c.pattern),
        None => c.pattern.clone(),
    };
    for c in &b.functions {
        set("set_ftrace_filter", &function(c))?;
    }
    for c in &b.not_functions {
        set("set_ftrace_notrace", &function(c))?;
    }
    if b.name.is_none() {
        for c in &plan.graph_functions {
            set("set_graph_function", &function(c))?;
        }
    }
    if let Some(mask) = &b.cpumask {
        set("tracing_cpumask", mask)?;
    }
    for e in b.events.iter().filter(|e| !e.negative).chain(b.events.iter().filter(|e| e.negative)) {
        if let Some(filter) = &e.filter {
            set(&format!("{} filter", e.pattern), filter)?;
        }
        for t in &e.triggers {
            set(&format!("{} trigger", e.pattern), t)?;
        }
        set(&format!("{} enable", e.pattern), if e.negative { "0" } else { "1" })?;
    }
    for (file, value) in [
        ("buffer_size_kb", b.size_kb),
        ("buffer_subbuf_size_kb", b.subbuf_kb),
        ("max_graph_depth", b.max_graph_depth.map(u64::from)),
    ] {
        if let Some(value) = value {
            set(file, &value.to_string())?;
        }
    }
    if let Some(tracer) = &b.tracer {
        set("current_tracer", tracer)?;
    }
    for option in b.options.iter().rev() {
        set("trace_options", option)?;
    }
    if !b.pids.is_empty() {
        let pids: Vec<_> = b.pids.iter().map(i32::to_string).collect();
        set("set_event_pid", &pids.join(" "))?;
    }
    if plan.only_command {
        set("set_event_pid", "the command")?;
    }
    if b.follow {
        set("options/event-fork", "1")?;
    }
    Ok(())
}
