//! A synthetic event made from two events: the first leaves values behind under a key, the second picks them up.
//!
//! This is what latency measurements between two events are made of: the synthetic event itself, a histogram on the first
//! event that stores variables, and one on the second that reads them and calls the synthetic event.

use crate::dynevent::{DynEvent, SynthEvent, SynthField};
use crate::error::{Error, Result};
use crate::event::EventTarget;
use crate::format::{EventField, EventFormat};
use crate::hist::{Action, Handler, Hist, HistField, Modifier};
use crate::instance::Instance;

/// How a field of the first and one of the second event become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calc {
    /// Second less first.
    EndMinusStart,
    /// First less second.
    StartMinusEnd,
    /// Sum.
    Sum,
}

/// Which of the two events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The first.
    Start,
    /// The second.
    End,
}

/// A synthetic event over two events, being built.
#[derive(Clone, Debug)]
pub struct Synth {
    name: String,
    start: EventFormat,
    end: EventFormat,
    id: u32,
    count: u32,
    start_keys: Vec<String>,
    end_keys: Vec<String>,
    start_vars: Vec<(String, String)>,
    end_vars: Vec<(String, String)>,
    fields: Vec<SynthField>,
    /// Label or field name, and the variable that holds it in the second histogram.
    args: Vec<(String, String)>,
    actions: Vec<(Handler, Action)>,
    start_filter: Option<String>,
    end_filter: Option<String>,
    trace_keyword: bool,
}

/// Fields that every event has for histograms, by the name that SQL has for them: histogram field and type.
fn special(field: &str) -> Option<(&'static str, &'static str, &'static str)> {
    Some(match field {
        "TIMESTAMP" | "common_timestamp" => ("common_timestamp", "u64", ""),
        "TIMESTAMP_USECS" | "common_timestamp.usecs" => ("common_timestamp.usecs", "u64", ""),
        "STACKTRACE" | "common_stacktrace" => ("common_stacktrace", "unsigned long", "[]"),
        "COMM" => ("COMM", "char", "[]"),
        "CPU" | "common_cpu" => ("common_cpu", "u32", ""),
        _ => return None,
    })
}

impl Synth {
    /// An event `name` from `start` to `end`. `id` goes into the names of its variables, which must not meet those of
    /// other histograms; the caller picks it at random.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that cannot be one.
    pub fn new(name: &str, start: EventFormat, end: EventFormat, id: u32) -> Result<Synth> {
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(Error::Invalid(format!("{name:?} cannot be the name of an event: letters, digits and _ only")));
        }
        Ok(Synth {
            name: name.to_owned(),
            start,
            end,
            id,
            count: 0,
            start_keys: Vec::new(),
            end_keys: Vec::new(),
            start_vars: Vec::new(),
            end_vars: Vec::new(),
            fields: Vec::new(),
            args: Vec::new(),
            actions: Vec::new(),
            start_filter: None,
            end_filter: None,
            trace_keyword: false,
        })
    }

    /// Whether the action is written `trace(NAME,...)` (kernel 5.1 and later, see [`crate::TraceFs::knows_trace_action`]), else
    /// `NAME(...)`, which all kernels take.
    pub fn set_trace_keyword(&mut self, on: bool) {
        self.trace_keyword = on;
    }

    /// The event of one side.
    pub fn event(&self, side: Side) -> &EventFormat {
        match side {
            Side::Start => &self.start,
            Side::End => &self.end,
        }
    }

    fn variable(&mut self, name: &str) -> String {
        self.count += 1;
        // Variable names are letters, digits and `_`.
        let clean: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        format!("__{clean}_{}_{}", self.id, self.count)
    }

    fn real(&self, side: Side, field: &str) -> Result<&EventField> {
        let event = self.event(side);
        event.field(field).ok_or_else(|| no_field(event, field))
    }

    /// Histogram field and synthetic field of a field of one side.
    fn resolve(&self, side: Side, field: &str, label: &str) -> Result<(String, SynthField)> {
        let event = self.event(side);
        if let Some(f) = event.field(field) {
            return Ok((f.name.clone(), SynthField::like(f, label)));
        }
        match special(field) {
            Some((hist, kind, bounds)) => Ok((hist.to_owned(), SynthField::new(kind, format!("{label}{bounds}")))),
            None => Err(no_field(event, field)),
        }
    }

    /// The two events belong together when these fields are equal. At least one pair is needed.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a field is missing or the kernel could not compare them: size, sign and kind must be alike.
    pub fn match_fields(&mut self, start: &str, end: &str) -> Result<()> {
        let (a, b) = (self.real(Side::Start, start)?, self.real(Side::End, end)?);
        let kind = |f: &EventField| {
            let word = |w: &str| f.type_text.split(|c: char| !c.is_alphanumeric()).any(|x| x == w);
            (f.size, f.signed, f.is_array(), f.is_dynamic(), f.is_byte_array(), word("long"), f.type_text.contains('*'))
        };
        if kind(a) != kind(b) {
            return Err(Error::Invalid(format!(
                "field {start} ({}) cannot be matched with field {end} ({}): size, sign or kind differ",
                a.type_text, b.type_text
            )));
        }
        self.start_keys.push(start.to_owned());
        self.end_keys.push(end.to_owned());
        Ok(())
    }

    fn add(&mut self, label: &str, field: SynthField, variable: String) -> Result<()> {
        if self.args.iter().any(|(l, _)| l == label) {
            return Err(Error::Invalid(format!("two fields are called {label:?}; name one of them with AS")));
        }
        self.args.push((label.to_owned(), variable));
        self.fields.push(field);
        Ok(())
    }

    /// A field of the first event becomes a field of the synthetic one.
    pub fn start_field(&mut self, field: &str, label: Option<&str>) -> Result<()> {
        let label = label.unwrap_or(field);
        let (hist, kind) = self.resolve(Side::Start, field, label)?;
        let variable = self.variable(label);
        let stored = self.stored(&hist);
        self.end_vars.push((variable.clone(), format!("${stored}")));
        self.add(label, kind, variable)
    }

    /// A field of the second event becomes a field of the synthetic one.
    pub fn end_field(&mut self, field: &str, label: Option<&str>) -> Result<()> {
        let name = label.unwrap_or(field);
        let (hist, kind) = self.resolve(Side::End, field, name)?;
        let variable = self.variable(label.unwrap_or("arg"));
        self.end_vars.push((variable.clone(), hist));
        self.add(name, kind, variable)
    }

    /// Two fields become one number.
    pub fn compare_field(&mut self, start: &str, end: &str, calc: Calc, label: &str) -> Result<()> {
        let (first, kind) = self.resolve(Side::Start, start, label)?;
        let (second, other) = self.resolve(Side::End, end, label)?;
        if kind.name != label || other.name != label {
            return Err(Error::Invalid(format!("{start} and {end}: only numbers can be added or subtracted")));
        }
        let stored = self.stored(&first);
        let variable = self.variable(label);
        let expression = match calc {
            Calc::EndMinusStart => format!("{second}-${stored}"),
            Calc::StartMinusEnd => format!("${stored}-{second}"),
            Calc::Sum => format!("{second}+${stored}"),
        };
        self.end_vars.push((variable.clone(), expression));
        self.add(label, kind, variable)
    }

    /// Makes the first histogram keep a field.
    fn stored(&mut self, field: &str) -> String {
        let variable = self.variable("arg");
        self.start_vars.push((variable.clone(), field.to_owned()));
        variable
    }

    /// Sets the filter of one side.
    pub fn filter(&mut self, side: Side, text: impl Into<String>) {
        match side {
            Side::Start => self.start_filter = Some(text.into()),
            Side::End => self.end_filter = Some(text.into()),
        }
    }

    fn handler(&self, make: fn(String) -> Handler, label: &str) -> Result<Handler> {
        match self.args.iter().find(|(l, _)| l == label) {
            Some((_, v)) => Ok(make(v.clone())),
            None => {
                let near = crate::error::nearest(label, self.args.iter().map(|(l, _)| l.as_str()), 3);
                let hint =
                    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(" or ")) };
                Err(Error::Invalid(format!("{label:?} is no field of the synthetic event {}{hint}", self.name)))
            }
        }
    }

    fn call(&self) -> Action {
        let args = self.args.iter().map(|(_, v)| format!("${v}")).collect();
        Action::Trace { event: self.name.clone(), args, keyword: false }
    }

    /// Makes the synthetic event when the field called `label` reaches a new maximum (`Handler::Max`) or changes
    /// (`Handler::Change`).
    pub fn on_trace(&mut self, make: fn(String) -> Handler, label: &str) -> Result<()> {
        let handler = self.handler(make, label)?;
        self.actions.push((handler, self.call()));
        Ok(())
    }

    /// Takes a snapshot then.
    pub fn on_snapshot(&mut self, make: fn(String) -> Handler, label: &str) -> Result<()> {
        let handler = self.handler(make, label)?;
        self.actions.push((handler, Action::Snapshot));
        Ok(())
    }

    /// Saves fields of the second event then.
    pub fn on_save(&mut self, make: fn(String) -> Handler, label: &str, fields: &[String]) -> Result<()> {
        let handler = self.handler(make, label)?;
        for f in fields {
            self.real(Side::End, f)?;
        }
        self.actions.push((handler, Action::Save(fields.to_vec())));
        Ok(())
    }

    /// True when it has what it needs: a pair of fields that match, and a field.
    pub fn is_complete(&self) -> bool {
        !self.start_keys.is_empty() && !self.fields.is_empty()
    }

    /// The synthetic event.
    pub fn synth_event(&self) -> SynthEvent {
        SynthEvent::new(&self.name, self.fields.iter().cloned())
    }

    /// The histogram on the first event.
    pub fn start_hist(&self) -> Hist {
        Hist {
            keys: self.start_keys.iter().map(|k| HistField::new(k, Modifier::None)).collect(),
            vars: self.start_vars.clone(),
            filter: self.start_filter.clone(),
            ..Hist::default()
        }
    }

    /// The histogram on the second event.
    pub fn end_hist(&self) -> Hist {
        let mut actions = self.actions.clone();
        if actions.is_empty() {
            let on = Handler::Match { system: self.start.system.clone(), event: self.start.name.clone() };
            actions.push((on, self.call()));
        }
        for (_, action) in &mut actions {
            if let Action::Trace { keyword, .. } = action {
                *keyword = self.trace_keyword;
            }
        }
        Hist {
            keys: self.end_keys.iter().map(|k| HistField::new(k, Modifier::None)).collect(),
            vars: self.end_vars.clone(),
            actions,
            filter: self.end_filter.clone(),
            ..Hist::default()
        }
    }

    fn check(&self) -> Result<()> {
        if self.is_complete() {
            return Ok(());
        }
        Err(Error::Invalid("a synthetic event needs a pair of matching fields and at least one field".into()))
    }

    /// The histogram on the second event in the words that this kernel takes.
    fn end_hist_for(&self, instance: &Instance) -> String {
        let mut here = self.clone();
        here.trace_keyword |= instance.root().knows_trace_action();
        here.end_hist().to_string()
    }

    /// Makes all of it in the kernel: the event, then the trigger of the first event, then that of the second. When one
    /// step fails the former ones are taken back.
    pub fn create(&self, instance: &Instance) -> Result<()> {
        self.check()?;
        let event = DynEvent::Synth(self.synth_event());
        let root = instance.root();
        root.create_dynevent(&event)?;
        let start = self.start_hist().to_string();
        if let Err(e) = instance.add_trigger(&self.start.system, &self.start.name, &start) {
            let _ = root.remove_dynevent(&event, false);
            return Err(e);
        }
        if let Err(e) = instance.add_trigger(&self.end.system, &self.end.name, &self.end_hist_for(instance)) {
            let _ = instance.remove_trigger(&self.start.system, &self.start.name, &start);
            let _ = root.remove_dynevent(&event, false);
            return Err(e);
        }
        Ok(())
    }

    /// Removes all of it, in reverse, after disabling the synthetic event.
    pub fn destroy(&self, instance: &Instance) -> Result<()> {
        let target = EventTarget::Event("synthetic".into(), self.name.clone());
        match instance.enable(&target, false) {
            Err(e) if e.is_missing() => {}
            other => other?,
        }
        instance.remove_trigger(&self.end.system, &self.end.name, &self.end_hist_for(instance))?;
        instance.remove_trigger(&self.start.system, &self.start.name, &self.start_hist().to_string())?;
        instance.root().remove_dynevent(&DynEvent::Synth(self.synth_event()), true)
    }

    /// The same as shell commands, one per line, for a tracing directory `dir`.
    pub fn echo(&self, dir: &str, old_file: bool) -> String {
        let event = self.synth_event();
        let (line, file) = match old_file {
            true => (event.without_prefix(), "synthetic_events"),
            false => (event.to_string(), "dynamic_events"),
        };
        let trigger = |e: &EventFormat, h: Hist| {
            format!("echo '{}' >> {dir}/events/{}/{}/trigger\n", quote(&h.to_string()), e.system, e.name)
        };
        format!("echo '{}' >> {dir}/{file}\n", quote(&line))
            + &trigger(&self.start, self.start_hist())
            + &trigger(&self.end, self.end_hist())
    }
}

/// Text between single quotes of a shell.
pub(crate) fn quote(text: &str) -> String {
    text.replace('\'', "'\\''")
}

pub(crate) fn no_field(event: &EventFormat, field: &str) -> Error {
    let near = event.near(field);
    let hint = if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(" or ")) };
    Error::Invalid(format!("event {}:{} has no field {field:?}{hint}", event.system, event.name))
}
