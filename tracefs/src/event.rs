//! Event systems and events: listing, choosing by name, enabling.

use regex::Regex;

use crate::error::{Error, Result, nearest};
use crate::glob;
use crate::instance::Instance;

/// Compiles a regex that must match the whole text.
pub(crate) fn anchored(text: &str) -> Result<Regex> {
    Regex::new(&format!("^(?:{text})$"))
        .map_err(|e| Error::Invalid(format!("{text:?} is not a regular expression: {e}")))
}

/// What is switched or filtered: everything, a system, or one event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventTarget {
    /// All events (`events/enable`).
    All,
    /// A system (`events/sched`).
    System(String),
    /// One event (`events/sched/sched_switch`).
    Event(String, String),
}

impl EventTarget {
    /// Its directory below the instance.
    pub fn dir(&self) -> String {
        match self {
            EventTarget::All => "events".into(),
            EventTarget::System(s) => format!("events/{s}"),
            EventTarget::Event(s, e) => format!("events/{s}/{e}"),
        }
    }

    /// The system, if it is about one.
    pub fn system(&self) -> Option<&str> {
        match self {
            EventTarget::All => None,
            EventTarget::System(s) | EventTarget::Event(s, _) => Some(s),
        }
    }

    /// The event, if it is about one.
    pub fn event(&self) -> Option<&str> {
        match self {
            EventTarget::Event(_, e) => Some(e),
            _ => None,
        }
    }
}

impl std::fmt::Display for EventTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            EventTarget::All => f.write_str("all"),
            EventTarget::System(s) => f.write_str(s),
            EventTarget::Event(s, e) => write!(f, "{s}:{e}"),
        }
    }
}

/// Content of an `enable` file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnableState {
    /// All off.
    Off,
    /// All on.
    On,
    /// Some on, some off (`X`).
    Some,
}

impl Instance {
    /// The event systems that can be switched (have an `enable` file), in the directory's order. `ftrace` is not one.
    pub fn event_systems(&self) -> Result<Vec<String>> {
        let mut systems = self.dir().list_dirs("events")?;
        systems.retain(|s| self.dir().exists(format!("events/{s}/enable")));
        Ok(systems)
    }

    /// The events of a system, in the directory's order. Works for `ftrace` too.
    pub fn events_of(&self, system: &str) -> Result<Vec<String>> {
        match self.dir().list_dirs(format!("events/{system}")) {
            Err(e) if e.is_missing() => {
                let systems = self.event_systems()?;
                let near = nearest(system, systems.iter().map(String::as_str), 3);
                Err(Error::NoEvent { name: system.to_owned(), near })
            }
            other => other,
        }
    }

    /// All events as `(system, event)`: the words of `available_events`, in its order.
    pub fn available_events(&self) -> Result<Vec<(String, String)>> {
        let text = self.root().dir().read("available_events")?;
        Ok(text.lines().filter_map(|l| l.split_once(':')).map(|(s, e)| (s.to_owned(), e.to_owned())).collect())
    }

    /// What an `-e` word means here.
    ///
    /// `all`: every system. `SYSTEM`, `SYSTEM:`, `SYSTEM:EVENT`, `EVENT`: each part is a shell glob over the `events`
    /// directory. A bare word stands for the systems **and** the events that match it; `SYSTEM:` for the events of
    /// the system. With `single`, a system is given as its events (a trigger can only be set on an event).
    /// The order is that of the names.
    ///
    /// # Errors
    /// [`Error::NoEvent`] with the nearest names when nothing matches.
    pub fn expand_events(&self, word: &str, single: bool) -> Result<Vec<EventTarget>> {
        let mut found = Vec::new();
        let (system, event) = match word.split_once(':') {
            Some((s, e)) => (Some(if s.is_empty() { "*" } else { s }), Some(if e.is_empty() { "*" } else { e })),
            None if word == "all" => (Some("*"), None),
            None => (Some(word), None),
        };
        if let Some(system) = system {
            for s in self.match_dirs("events", system)? {
                if !self.dir().exists(format!("events/{s}/enable")) {
                    continue;
                }
                match event {
                    Some(event) => self.push_events(&s, event, &mut found)?,
                    None if single => self.push_events(&s, "*", &mut found)?,
                    None => found.push(EventTarget::System(s)),
                }
            }
        }
        if event.is_none() && word != "all" {
            for s in self.match_dirs("events", "*")? {
                self.push_events(&s, word, &mut found)?;
            }
        }
        if single {
            let mut seen = std::collections::HashSet::new();
            found.retain(|t| seen.insert(t.clone()));
        }
        if found.is_empty() {
            return Err(Error::NoEvent { name: word.to_owned(), near: self.near_events(word) });
        }
        Ok(found)
    }

    fn push_events(&self, system: &str, glob: &str, found: &mut Vec<EventTarget>) -> Result<()> {
        for e in self.match_dirs(&format!("events/{system}"), glob)? {
            if self.dir().exists(format!("events/{system}/{e}/enable")) {
                found.push(EventTarget::Event(system.to_owned(), e));
            }
        }
        Ok(())
    }

    /// The sub-directories that a glob matches, sorted. A plain name costs no listing.
    fn match_dirs(&self, dir: &str, pattern: &str) -> Result<Vec<String>> {
        if !glob::is_pattern(pattern) {
            let plain = !pattern.is_empty() && !pattern.contains('/') && pattern != "." && pattern != "..";
            let hit = plain && self.dir().is_dir(format!("{dir}/{pattern}"));
            return Ok(if hit { vec![pattern.to_owned()] } else { Vec::new() });
        }
        let mut names = match self.dir().list_dirs(dir) {
            Err(e) if e.is_missing() => Vec::new(),
            other => other?,
        };
        names.retain(|n| glob::matches(pattern, n));
        names.sort();
        Ok(names)
    }

    /// Names near to a word that matched nothing.
    pub fn near_events(&self, word: &str) -> Vec<String> {
        let wanted = word.rsplit(':').next().filter(|w| !w.is_empty()).unwrap_or(word).replace(['*', '?'], "");
        let all = self.available_events().unwrap_or_default();
        let systems = self.event_systems().unwrap_or_default();
        let names = systems.iter().map(String::as_str).chain(all.iter().map(|(_, e)| e.as_str()));
        let near = nearest(&wanted, names, 3);
        near.into_iter()
            .map(|n| match all.iter().find(|(_, e)| *e == n) {
                Some((s, e)) if !systems.contains(&n) => format!("{s}:{e}"),
                _ => n,
            })
            .collect()
    }

    /// The events whose system and name match regexes as a whole; `None` stands for all. A whole system is given as one
    /// target when no event is named.
    pub fn find_events(&self, system: Option<&str>, event: Option<&str>) -> Result<Vec<EventTarget>> {
        let (system, event) = match (system, event) {
            (None, None) => return Ok(vec![EventTarget::All]),
            (s, e) => (s.map(anchored).transpose()?, e.map(anchored).transpose()?),
        };
        let mut found = Vec::new();
        for s in self.event_systems()? {
            if system.as_ref().is_some_and(|re| !re.is_match(&s)) {
                continue;
            }
            match &event {
                None => found.push(EventTarget::System(s)),
                Some(re) => {
                    for e in self.events_of(&s)? {
                        if re.is_match(&e) {
                            found.push(EventTarget::Event(s.clone(), e));
                        }
                    }
                }
            }
        }
        Ok(found)
    }

    /// Switches events chosen by regexes, as [`find_events`](Instance::find_events) finds them; gives how many targets.
    pub fn enable_events(&self, system: Option<&str>, event: Option<&str>, on: bool) -> Result<usize> {
        let found = self.find_events(system, event)?;
        if found.is_empty() {
            let name = format!("{}:{}", system.unwrap_or("*"), event.unwrap_or("*"));
            return Err(Error::NoEvent { near: self.near_events(&name), name });
        }
        found.iter().try_for_each(|t| self.enable(t, on))?;
        Ok(found.len())
    }

    /// Writes the `enable` file of a target.
    pub fn enable(&self, target: &EventTarget, on: bool) -> Result<()> {
        self.dir().write(format!("{}/enable", target.dir()), if on { "1" } else { "0" })
    }

    /// Reads the `enable` file of a target. An event that a trigger switches softly counts by its digit.
    pub fn is_enabled(&self, target: &EventTarget) -> Result<EnableState> {
        let file = format!("{}/enable", target.dir());
        let text = self.dir().read(&file)?;
        match text.trim_start().as_bytes().first() {
            Some(b'0') => Ok(EnableState::Off),
            Some(b'1') => Ok(EnableState::On),
            Some(b'X') => Ok(EnableState::Some),
            _ => Err(Error::Text { path: self.file(file), text, expected: "0, 1 or X" }),
        }
    }

    /// The `format` file of an event.
    pub fn event_format(&self, system: &str, event: &str) -> Result<String> {
        self.dir().read(format!("events/{system}/{event}/format"))
    }

    /// The filter of an event; `None` when there is none. A system has no filter of its own to read.
    pub fn event_filter(&self, target: &EventTarget) -> Result<Option<String>> {
        // A filter is at most a page long, and the file gives it with one read.
        let text = self.dir().read_head(format!("{}/filter", target.dir()), 1 << 13)?;
        let text = String::from_utf8_lossy(&text);
        let text = text.trim_end();
        Ok((text != "none" && !text.is_empty() && !text.starts_with("###")).then(|| text.to_owned()))
    }

    /// Removes the filters of an event, of all events of a system, or of all events. Events without one are not written to.
    pub fn clear_filters_of(&self, target: &EventTarget) -> Result<()> {
        let events = |s: &str| -> Result<Vec<EventTarget>> {
            Ok(self.events_of(s)?.into_iter().map(|e| EventTarget::Event(s.to_owned(), e)).collect())
        };
        let targets = match target {
            EventTarget::All => {
                let of_each = self.event_systems()?.iter().map(|s| events(s)).collect::<Result<Vec<_>>>()?;
                of_each.into_iter().flatten().collect()
            }
            EventTarget::System(s) => events(s)?,
            event => vec![event.clone()],
        };
        for t in targets {
            match self.event_filter(&t) {
                Ok(None) => {}
                Ok(Some(_)) => self.clear_event_filter(&t)?,
                // Some events have none (ftrace), or have just gone.
                Err(e) if e.is_missing() || e.is_denied() => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Writes the filter of an event, or of every event of a system.
    ///
    /// # Errors
    /// [`Error::Refused`] with the kernel's entry of `error_log`.
    pub fn set_event_filter(&self, target: &EventTarget, filter: &str) -> Result<()> {
        self.dir().write(format!("{}/filter", target.dir()), filter)
    }

    /// Removes the filter (writes `0`).
    pub fn clear_event_filter(&self, target: &EventTarget) -> Result<()> {
        self.dir().write(format!("{}/filter", target.dir()), "0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TraceFs;

    pub(crate) fn tree() -> (tempfile::TempDir, Instance) {
        let t = tempfile::tempdir().unwrap();
        let mut available = String::new();
        for (s, e) in [
            ("sched", "sched_switch"),
            ("sched", "sched_wakeup"),
            ("irq", "irq_handler_entry"),
            ("irq", "softirq_entry"),
            ("timer", "sched"),
        ] {
            let d = t.path().join("events").join(s).join(e);
            std::fs::create_dir_all(&d).unwrap();
            std::fs::write(d.join("enable"), "0\n").unwrap();
            std::fs::write(d.join("filter"), "none\n").unwrap();
            std::fs::write(d.join("../enable"), "0\n").unwrap();
            available += &format!("{s}:{e}\n");
        }
        std::fs::create_dir_all(t.path().join("events/ftrace/function")).unwrap();
        std::fs::write(t.path().join("events/enable"), "0\n").unwrap();
        std::fs::write(t.path().join("available_events"), available).unwrap();
        let top = TraceFs::at(t.path()).top();
        (t, top)
    }

    fn words(top: &Instance, word: &str, single: bool) -> Vec<String> {
        top.expand_events(word, single).unwrap().iter().map(|t| t.to_string()).collect()
    }

    #[test]
    fn expand() {
        let (_t, top) = tree();
        assert_eq!(words(&top, "all", false), ["irq", "sched", "timer"]);
        assert_eq!(words(&top, "irq", false), ["irq"]);
        assert_eq!(words(&top, "irq:", false), ["irq:irq_handler_entry", "irq:softirq_entry"]);
        assert_eq!(words(&top, "irq", true), ["irq:irq_handler_entry", "irq:softirq_entry"]);
        assert_eq!(words(&top, "sched", false), ["sched", "timer:sched"]);
        assert_eq!(words(&top, "sched_*", false), ["sched:sched_switch", "sched:sched_wakeup"]);
        assert_eq!(words(&top, "s*:*sw*", false), ["sched:sched_switch"]);
        assert_eq!(words(&top, "*entry", false), ["irq:irq_handler_entry", "irq:softirq_entry"]);
        match top.expand_events("sched_swich", false) {
            Err(Error::NoEvent { near, .. }) => assert_eq!(near, ["sched:sched_switch"]),
            other => panic!("{other:?}"),
        }
        assert!(top.expand_events("../sched", false).is_err());
        assert!(top.expand_events("ftrace", false).is_err());
    }

    #[test]
    fn enable() {
        let (_t, top) = tree();
        assert_eq!(top.enable_events(Some("s.*"), Some(".*switch"), true).unwrap(), 1);
        let target = EventTarget::Event("sched".into(), "sched_switch".into());
        assert_eq!(top.is_enabled(&target).unwrap(), EnableState::On);
        assert_eq!(top.is_enabled(&EventTarget::All).unwrap(), EnableState::Off);
        assert!(top.enable_events(Some("nothing"), None, true).is_err());
        assert_eq!(top.event_filter(&target).unwrap(), None);
        top.set_event_filter(&target, "pid == 1").unwrap();
        assert_eq!(top.event_filter(&target).unwrap().as_deref(), Some("pid == 1"));
    }
}
