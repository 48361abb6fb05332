//! The language of `report -F`.
//!
//! A filter is a list of events, and behind a colon an expression over their fields:
//! `sched_switch,sched_wakeup: next_pid > 0 && prev_comm != "ls"`. It is compiled once for each event it names; matching a record
//! reads its bytes and allocates nothing.

pub mod bre;
mod parse;
mod test;

use rustc_hash::FxHashMap;

pub use test::Accept;
use test::Test;

use crate::{Decoder, Error, Record, Result, format::Event};

/// One filter, compiled for the events of one machine.
#[derive(Debug)]
pub struct Filter {
    /// (id, name, test) of each event of the list, in the order in which the reference shows them.
    events: Vec<(u16, String, Test)>,
    by_id: FxHashMap<u16, usize>,
}

impl Filter {
    /// Reads a filter and compiles it for the events that `dec` knows.
    ///
    /// A field that an event does not have makes the comparison false for that event.
    ///
    /// # Errors
    /// [`Error::Filter`] with the place and the reason: no event of that name, or an expression that cannot be understood.
    pub fn new(dec: &Decoder, text: &str) -> Result<Filter> {
        let fail = |at: usize, why: String| Error::Filter { filter: text.to_owned(), at, why };
        let (items, expr) = parse::parse(text)?;
        // The list is built from its front, as the reference does: later items and larger ids come first.
        let mut all: Vec<&Event> = dec.events().collect();
        all.sort_by_key(|e| std::cmp::Reverse(e.id));
        let mut lists: Vec<Vec<&Event>> = Vec::new();
        for item in &items {
            let regex = |part: &str| -> Result<regex::Regex> {
                let bad = |why: &str| fail(item.at, format!("event {:?} {why}", item.text));
                let part = bre::translate(part).map_err(|e| bad(e.1))?;
                let mut builder = regex::RegexBuilder::new(&format!("^(?:{part})$"));
                builder.case_insensitive(true).build().map_err(|_| bad("is no regular expression"))
            };
            let event = regex(&item.event)?;
            let system = item.system.as_ref().filter(|s| !s.is_empty()).map(|s| regex(s)).transpose()?;
            let named = |e: &&Event| match &item.system {
                None => event.is_match(&e.name) || event.is_match(&e.system),
                Some(_) => {
                    (item.event.is_empty() || event.is_match(&e.name))
                        && system.as_ref().is_none_or(|s| s.is_match(&e.system))
                }
            };
            let list: Vec<&Event> = all.iter().copied().filter(named).collect();
            if list.is_empty() {
                return Err(fail(item.at, format!("no event matches {:?}", item.text)));
            }
            lists.push(list);
        }
        let chosen: Vec<&Event> = lists.into_iter().rev().flatten().collect();
        expr.check_names(&|name| chosen.iter().any(|e| e.field(name).is_some())).map_err(|why| fail(0, why))?;
        let mut filter = Filter { events: Vec::with_capacity(chosen.len()), by_id: FxHashMap::default() };
        for event in chosen {
            if !filter.by_id.contains_key(&event.id) {
                filter.by_id.insert(event.id, filter.events.len());
                let test = Test::compile(&expr, event).map_err(|why| fail(0, why))?;
                filter.events.push((event.id, event.name.clone(), test));
            }
        }
        Ok(filter)
    }

    /// Whether the filter lets a record pass; `None` when its event is not in the filter's list.
    ///
    /// `seq` is the record's position in the output, for names learnt from events.
    #[inline]
    pub fn accepts(&self, dec: &Decoder, rec: &Record<'_>, seq: u64) -> Option<bool> {
        let [a, b, ..] = *rec.data else { return None };
        let at = self.by_id.get(&dec.endian().u16([a, b]))?;
        let (_, _, test) = self.events.get(*at)?;
        Some(test.run(&Accept { dec, rec, seq }))
    }

    /// Appends a line ` 'event: compiled filter'` for each event, as `report -T` shows them.
    pub fn describe(&self, out: &mut Vec<u8>) {
        for (_, name, test) in &self.events {
            out.extend_from_slice(b" '");
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            test.describe(out);
            out.extend_from_slice(b"'\n");
        }
    }
}

/// All filters of one input: those that show and, behind `-v`, those that hide.
#[derive(Debug, Default)]
pub struct FilterSet {
    show: Vec<Filter>,
    hide: Vec<Filter>,
    /// ids of `kernel_stack` and `user_stack`.
    stacks: [Option<u16>; 2],
}

/// What must be remembered between the records of one buffer (top or instance): one for each.
#[derive(Clone, Debug, Default)]
pub struct FilterState {
    /// For each CPU whether a record was shown that no stack record has followed yet; `None`: not known.
    last: Vec<Option<bool>>,
    /// The records before are not known.
    middle: bool,
}

impl FilterState {
    /// What is remembered in the middle of a file, when the records before were not looked at.
    pub fn middle() -> FilterState {
        FilterState { last: Vec::new(), middle: true }
    }

    /// Takes what is not known from what was remembered at the place where this one began.
    pub fn follow(&mut self, before: &FilterState) {
        if !self.middle {
            return;
        }
        self.middle = before.middle;
        for (cpu, last) in before.last.iter().enumerate() {
            match self.last.get_mut(cpu) {
                Some(own) => *own = own.or(*last),
                None => self.last.push(*last),
            }
        }
        if !self.middle {
            self.last.iter_mut().for_each(|last| *last = last.or(Some(false)));
        }
    }
}

/// CPUs beyond this share the state of one.
const MAX_CPUS: usize = 1 << 16;

impl FilterSet {
    /// A set without filters, which shows everything.
    pub fn new(dec: &Decoder) -> FilterSet {
        let id = |name| dec.find_event(Some("ftrace"), name).map(|e| e.id);
        FilterSet { show: Vec::new(), hide: Vec::new(), stacks: [id("kernel_stack"), id("user_stack")] }
    }

    /// Adds a filter; with `hide` what it accepts is not shown.
    pub fn add(&mut self, filter: Filter, hide: bool) {
        if hide { self.hide.push(filter) } else { self.show.push(filter) }
    }

    /// True when there is no filter.
    pub fn is_empty(&self) -> bool {
        self.show.is_empty() && self.hide.is_empty()
    }

    /// Whether a record is shown: some filter accepts it, or there are none but hiding ones, and no hiding one accepts it. A
    /// stack record that no filter accepts is shown once behind each shown record of its CPU.
    pub fn shows(&self, state: &mut FilterState, dec: &Decoder, rec: &Record<'_>, seq: u64) -> bool {
        self.decide(state, dec, rec, seq).unwrap_or(false)
    }

    /// As [`FilterSet::shows`]; `None` for a stack record whose event was not seen by a state that began [in the
    /// middle](FilterState::middle).
    pub fn decide(&self, state: &mut FilterState, dec: &Decoder, rec: &Record<'_>, seq: u64) -> Option<bool> {
        if self.is_empty() {
            return Some(true);
        }
        let any = |list: &[Filter]| list.iter().any(|f| f.accepts(dec, rec, seq) == Some(true));
        let hidden = any(&self.hide);
        let shown = !hidden && (self.show.is_empty() || any(&self.show));
        let cpu = (rec.cpu as usize).min(MAX_CPUS);
        if state.last.len() <= cpu {
            state.last.resize(cpu + 1, (!state.middle).then_some(false));
        }
        let Some(last) = state.last.get_mut(cpu) else { return Some(shown) };
        if shown {
            *last = Some(true);
            return Some(true);
        }
        let id = rec.data.first_chunk::<2>().map(|b| dec.endian().u16(*b));
        if id.is_some() && self.stacks.contains(&id) {
            let before = (*last)?;
            *last = Some(false);
            return Some(before && !hidden);
        }
        Some(false)
    }

    /// Appends the compiled filters in the order given, those that show first (`report -T`).
    pub fn describe(&self, out: &mut Vec<u8>) {
        self.show.iter().chain(&self.hide).for_each(|f| f.describe(out));
    }
}

/// The filter that `report --pid` stands for: records of these processes, or that wake them or switch to them.
///
/// The last one comes first, as in the reference.
pub fn pid_filter(pids: &[i32]) -> String {
    let one = |p: &i32| format!("(common_pid=={p})||(pid=={p})||(next_pid=={p})");
    format!(".*:{}", pids.iter().rev().map(one).collect::<Vec<_>>().join("||"))
}

#[cfg(test)]
mod tests {
    use super::parse::{Cmp, Expr, Value, parse};

    fn text(filter: &str) -> String {
        match parse(filter) {
            Ok((_, expr)) => format!("{expr:?}"),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn syntax() {
        let (items, expr) = parse(" sched/sched_switch , sub: num == 1").unwrap();
        assert_eq!(items.len(), 2);
        assert_eq!((items[0].system.as_deref(), items[0].event.as_str()), (Some("sched"), "sched_switch"));
        assert_eq!(items[1].event, "sub");
        assert_eq!(expr, Expr::Cmp(Cmp::Eq, Value::Field("num".into()), Value::Num(1)));
        assert_eq!(parse("ev").unwrap().1, Expr::True);
        assert_eq!(text("e: 5 < a"), text("e: a > 5"));
        assert_eq!(text("e: !a == 1"), text("e: !(a == 1)"));
        assert_eq!(text("e: a == 1 || b == 2 && c == 3"), text("e: (a == 1 || b == 2) && c == 3"));
        assert_eq!(text("e: a == -1"), text("e: a == 0xffffffffffffffff"));
        assert_eq!(text("e: a & 1 == 1"), text("e: (a & 1) == 1"));
        assert_eq!(text("e: a == 2 + 3 * 2"), text("e: a == 010"));
        assert_eq!(text("e: s == \"a,b:c\""), text("e: s == 'a,b:c'"));
        assert_eq!(text("e: c == 'x'"), text("e: c == 120"));
    }

    #[test]
    fn errors_name_the_place() {
        for (filter, at) in [
            ("", 0),
            ("ev,", 3),
            ("ev:", 3),
            ("ev: num ==", 10),
            ("ev: num == 1 &&", 15),
            ("ev: num = 1", 8),
            ("ev: (num == 1", 4),
            ("ev: num == 1)", 12),
            ("ev: ()", 5),
            ("ev: num == 1 bogus", 13),
            ("ev: num == 1x", 11),
            ("ev: num @ 1", 8),
            ("ev: str == \"abc", 11),
            ("ev: num", 7),
            ("ev: num <> 1", 9),
            ("ev: str > \"abc\"", 8),
            ("ev: 1 == 2", 6),
            ("ev: num =~ 5", 8),
        ] {
            match parse(filter) {
                Err(crate::Error::Filter { at: got, why, .. }) => assert_eq!(got, at, "{filter}: {why}"),
                other => panic!("{filter}: {other:?}"),
            }
        }
        let deep = format!("ev: {}", "(".repeat(100_000));
        assert!(parse(&deep).is_err());
        let long = format!("ev: a == 1{}", " && a == 1".repeat(100_000));
        assert!(parse(&long).is_err());
        assert!(parse(&format!("ev: {}a == 1", "!".repeat(100_000))).is_err());
        assert!(parse(&format!("ev: {}1 == a", "-".repeat(100_000))).is_err());
    }
}
