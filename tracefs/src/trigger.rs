//! Event triggers as data, and the `trigger` files, which are only ever appended to.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::event::EventTarget;
use crate::hist::Hist;
use crate::instance::Instance;

/// What a trigger does when its event happens.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TriggerAction {
    /// `traceon`, `traceoff` (since Linux 3.15).
    Trace {
        /// On or off.
        on: bool,
    },
    /// `snapshot` (since Linux 3.15, `CONFIG_TRACER_SNAPSHOT`).
    Snapshot,
    /// `stacktrace` (since Linux 3.15).
    Stacktrace,
    /// `enable_event:SYSTEM:EVENT`, `disable_event:…` (since Linux 3.15).
    Event {
        /// Enable or disable.
        enable: bool,
        /// The system.
        system: String,
        /// The event.
        event: String,
    },
    /// `enable_hist:SYSTEM:EVENT`, `disable_hist:…` (since Linux 4.7).
    EnableHist {
        /// Enable or disable.
        enable: bool,
        /// The system.
        system: String,
        /// The event.
        event: String,
    },
    /// `hist:…` (since Linux 4.7).
    Hist(Box<Hist>),
    /// A command that is newer than this crate, as written.
    Other(String),
}

/// A trigger: action, how often, and on what condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// What it does.
    pub action: TriggerAction,
    /// How often at most; `None`: always.
    pub count: Option<u64>,
    /// The filter behind ` if `. A histogram carries its own.
    pub filter: Option<String>,
}

impl Trigger {
    /// A trigger that fires always.
    pub fn new(action: TriggerAction) -> Trigger {
        Trigger { action, count: None, filter: None }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |on: &bool, a, b| if *on { a } else { b };
        match &self.action {
            TriggerAction::Trace { on } => f.write_str(word(on, "traceon", "traceoff"))?,
            TriggerAction::Snapshot => f.write_str("snapshot")?,
            TriggerAction::Stacktrace => f.write_str("stacktrace")?,
            TriggerAction::Event { enable, system, event } => {
                write!(f, "{}:{system}:{event}", word(enable, "enable_event", "disable_event"))?
            }
            TriggerAction::EnableHist { enable, system, event } => {
                write!(f, "{}:{system}:{event}", word(enable, "enable_hist", "disable_hist"))?
            }
            TriggerAction::Hist(h) => write!(f, "{h}")?,
            TriggerAction::Other(text) => f.write_str(text)?,
        }
        if let Some(n) = self.count {
            write!(f, ":{n}")?;
        }
        if let Some(filter) = &self.filter {
            write!(f, " if {filter}")?;
        }
        Ok(())
    }
}

impl FromStr for Trigger {
    type Err = Error;

    /// Reads what a user writes and what a `trigger` file shows (`traceoff:count=5 if pid == 1`, `…:unlimited`).
    fn from_str(text: &str) -> Result<Trigger> {
        let text = text.trim();
        if text.starts_with("hist:") {
            return Ok(Trigger::new(TriggerAction::Hist(Box::new(text.parse()?))));
        }
        let (command, filter) = match text.split_once(" if ") {
            Some((c, f)) => (c.trim(), Some(f.trim().to_owned())),
            None => (text, None),
        };
        let mut words: Vec<&str> = command.split(':').collect();
        let mut count = None;
        if let Some(last) = words.last().filter(|_| words.len() > 1) {
            let number = last.strip_prefix("count=").unwrap_or(last);
            if *last == "unlimited" {
                words.pop();
            } else if let Ok(n) = number.parse() {
                count = Some(n);
                words.pop();
            }
        }
        let action = match words.as_slice() {
            ["traceon"] => TriggerAction::Trace { on: true },
            ["traceoff"] => TriggerAction::Trace { on: false },
            ["snapshot"] => TriggerAction::Snapshot,
            ["stacktrace"] => TriggerAction::Stacktrace,
            [w @ ("enable_event" | "disable_event"), s, e] => {
                TriggerAction::Event { enable: *w == "enable_event", system: (*s).to_owned(), event: (*e).to_owned() }
            }
            [w @ ("enable_hist" | "disable_hist"), s, e] => TriggerAction::EnableHist {
                enable: *w == "enable_hist",
                system: (*s).to_owned(),
                event: (*e).to_owned(),
            },
            [""] => return Err(Error::Syntax { what: "a trigger needs a command".into(), text: text.into(), at: 0 }),
            _ => TriggerAction::Other(words.join(":")),
        };
        Ok(Trigger { action, count, filter })
    }
}

impl Instance {
    /// The triggers of an event as its file shows them, without the comments.
    pub fn trigger_lines(&self, system: &str, event: &str) -> Result<Vec<String>> {
        self.dir().read_lines(trigger_file(system, event))
    }

    /// The triggers of an event.
    pub fn triggers(&self, system: &str, event: &str) -> Result<Vec<Trigger>> {
        self.trigger_lines(system, event)?.iter().map(|l| l.parse()).collect()
    }

    /// Adds a trigger.
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's entry of `error_log`.
    pub fn add_trigger(&self, system: &str, event: &str, trigger: &str) -> Result<()> {
        self.dir().append(trigger_file(system, event), &format!("{}\n", trigger.trim_end()))
    }

    /// Removes a trigger, given as it was added or as the file shows it.
    pub fn remove_trigger(&self, system: &str, event: &str, trigger: &str) -> Result<()> {
        let trigger = strip_state(trigger.trim());
        self.dir().append(trigger_file(system, event), &format!("!{trigger}\n"))
    }

    /// Removes every trigger of an event, somebody else's too. `false`: some refused to go (another trigger uses them).
    pub fn clear_triggers(&self, system: &str, event: &str) -> Result<bool> {
        let lines = match self.trigger_lines(system, event) {
            Err(e) if e.is_missing() => return Ok(true),
            other => other?,
        };
        let mut all = true;
        for line in lines {
            all &= self.remove_trigger(system, event, &line).is_ok();
        }
        Ok(all)
    }

    /// Removes every trigger of all events. One that others depend on goes after them, so this is repeated while the
    /// number of stubborn ones shrinks. Gives the events whose triggers remained.
    pub fn clear_all_triggers(&self) -> Result<Vec<EventTarget>> {
        let mut targets = Vec::new();
        for s in self.event_systems()? {
            for e in self.events_of(&s)? {
                targets.push((s.clone(), e));
            }
        }
        loop {
            let before = targets.len();
            let mut stubborn = Vec::new();
            for (s, e) in targets {
                if !self.clear_triggers(&s, &e)? {
                    stubborn.push((s, e));
                }
            }
            if stubborn.is_empty() || stubborn.len() == before {
                return Ok(stubborn.into_iter().map(|(s, e)| EventTarget::Event(s, e)).collect());
            }
            targets = stubborn;
        }
    }
}

fn trigger_file(system: &str, event: &str) -> String {
    format!("events/{system}/{event}/trigger")
}

/// Without the ` [active]` or ` [paused]` that the file shows behind a histogram.
pub(crate) fn strip_state(line: &str) -> &str {
    line.strip_suffix(" [active]").or_else(|| line.strip_suffix(" [paused]")).unwrap_or(line).trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for (text, want) in [
            ("traceon", "traceon"),
            ("traceoff:unlimited", "traceoff"),
            ("traceoff:count=5 if pid == 1", "traceoff:5 if pid == 1"),
            ("stacktrace:3", "stacktrace:3"),
            ("enable_event:sched:sched_switch:1", "enable_event:sched:sched_switch:1"),
            ("disable_hist:a:b", "disable_hist:a:b"),
            ("snapshot if x", "snapshot if x"),
            ("new:thing", "new:thing"),
            ("hist:keys=pid:vals=hitcount if pid > 1", "hist:keys=pid:vals=hitcount if pid > 1"),
        ] {
            let t: Trigger = text.parse().unwrap();
            assert_eq!(t.to_string(), want);
            assert_eq!(want.parse::<Trigger>().unwrap(), t);
        }
        assert!("".parse::<Trigger>().is_err());
    }
}
