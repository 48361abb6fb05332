//! The hooks of a profile: `-H [sys:]event,match[,pid]/[sys:]event,match[,flags]`.

use anyhow::{Context, ensure};

/// One side of a pair of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookEvent {
    /// Event system; `None`: whichever has the event.
    pub system: Option<String>,
    /// Event.
    pub event: String,
    /// Field whose value both sides share.
    pub field: String,
}

/// A pair of events whose distance a profile measures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// What was typed; this is stored in the file (option HOOK).
    pub text: String,
    /// Where the time begins.
    pub start: HookEvent,
    /// Field of the start event that names the task; `None`: `common_pid`.
    pub pid: Option<String>,
    /// Where it ends.
    pub end: HookEvent,
    /// Flag `p`: both are on the same CPU.
    pub per_cpu: bool,
    /// Flag `g`: of no task.
    pub global: bool,
    /// Flag `s`: with a stack trace.
    pub stack: bool,
}

impl Hook {
    /// Reads a hook.
    ///
    /// # Errors
    /// When a part is missing or a flag is unknown.
    pub fn parse(text: &str) -> anyhow::Result<Hook> {
        Hook::read(text).with_context(|| {
            format!("Invalid hook format '{text}' (expected [SYSTEM:]EVENT,FIELD[,PID]/[SYSTEM:]EVENT,FIELD[,FLAGS])")
        })
    }

    fn read(text: &str) -> anyhow::Result<Hook> {
        let (start, end) = text.split_once('/').context("there is no /")?;
        let (start, pid) = side(start)?;
        let (end, flags) = side(end)?;
        let mut hook = Hook {
            text: text.to_owned(),
            start,
            pid: pid.map(str::to_owned),
            end,
            per_cpu: false,
            global: false,
            stack: false,
        };
        for flag in flags.unwrap_or("").chars() {
            match flag.to_ascii_lowercase() {
                'p' => hook.per_cpu = true,
                'g' => hook.global = true,
                's' => hook.stack = true,
                other => anyhow::bail!("unknown flag {other}"),
            }
        }
        Ok(hook)
    }

    /// The two events as `-e` patterns.
    pub fn patterns(&self) -> [String; 2] {
        let pattern = |e: &HookEvent| format!("{}:{}", e.system.as_deref().unwrap_or("*"), e.event);
        [pattern(&self.start), pattern(&self.end)]
    }
}

/// `[sys:]event,field[,rest]`.
fn side(text: &str) -> anyhow::Result<(HookEvent, Option<&str>)> {
    let mut parts = text.split(',');
    let name = parts.next().unwrap_or("");
    let field = parts.next().context("a field to match is missing")?;
    let rest = parts.next();
    ensure!(parts.next().is_none(), "too many commas");
    let (system, event) = match name.split_once(':') {
        Some((system, event)) => (Some(system.to_owned()), event),
        None => (None, name),
    };
    ensure!(!event.is_empty() && !field.is_empty(), "an event and a field are needed on both sides");
    Ok((HookEvent { system, event: event.to_owned(), field: field.to_owned() }, rest))
}
