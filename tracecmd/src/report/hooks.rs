//! `-H`: pairs of events that the user wants timed.

use anyhow::{Result, bail};
use trace_dat::{Decoder, format::Event};

/// `[sys:]event,match[,pid]/[sys:]event,match[,flags]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hook {
    start: (Option<String>, String),
    /// The field of the first event that both must have in common.
    pub start_match: String,
    /// The field of the first event that names the process it counts for.
    pub start_pid: Option<String>,
    end: (Option<String>, String),
    /// The field of the second event.
    pub end_match: String,
    /// Flag g: the two may be events of different tasks, and count for none.
    pub global: bool,
    /// Flag p: both are events of one CPU; with g they count for the CPU.
    pub per_cpu: bool,
}

impl Hook {
    /// Reads a hook.
    ///
    /// # Errors
    /// When the text has another form.
    pub fn parse(text: &str) -> Result<Hook> {
        let Some((start, end)) = text.split_once('/') else {
            bail!("hook {text:?}: a slash must stand between the two events");
        };
        let event = |text: &str| match text.split_once(':') {
            Some((system, event)) => (Some(system.to_owned()), event.to_owned()),
            None => (None, text.to_owned()),
        };
        let mut first = start.split(',').map(str::trim);
        let mut second = end.split(',').map(str::trim);
        let (Some(start), Some(start_match), Some(end), Some(end_match)) =
            (first.next(), first.next(), second.next(), second.next())
        else {
            bail!("hook {text:?}: each event needs a field behind a comma");
        };
        let flags = second.next().unwrap_or("").to_lowercase();
        if let Some(flag) = flags.chars().find(|c| !"pgs".contains(*c)) {
            bail!("hook {text:?}: {flag:?} is none of the flags p, g and s");
        }
        Ok(Hook {
            start: event(start),
            start_match: start_match.to_owned(),
            start_pid: first.next().map(str::to_owned),
            end: event(end),
            end_match: end_match.to_owned(),
            global: flags.contains('g'),
            per_cpu: flags.contains('p'),
        })
    }

    /// The two events, when the trace has both.
    pub fn find<'d>(&self, dec: &'d Decoder) -> Option<(&'d Event, &'d Event)> {
        let find = |(system, name): &(Option<String>, String)| dec.find_event(system.as_deref(), name);
        Some((find(&self.start)?, find(&self.end)?))
    }

    /// The ids of both events.
    pub fn events(&self, dec: &Decoder) -> Vec<u16> {
        self.find(dec).map_or(Vec::new(), |(s, e)| vec![s.id, e.id])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let h = Hook::parse("sched:sched_wakeup,pid/sched_switch,next_pid,GS").unwrap();
        assert_eq!((h.start_match.as_str(), h.end_match.as_str(), h.global), ("pid", "next_pid", true));
        assert_eq!(h.start, (Some("sched".into()), "sched_wakeup".into()));
        assert_eq!(Hook::parse("a,b,c/d,e").unwrap().start_pid.as_deref(), Some("c"));
        for bad in ["", "a", "a,b", "a/b", "a,b/c", "a,b/c,d,x"] {
            assert!(Hook::parse(bad).is_err(), "{bad}");
        }
    }
}
