//! Histograms and synthetic events from SQL, as `sqlhist` has it.
//!
//! ```text
//! SELECT item {, item} FROM event [[AS] alias] [JOIN event [[AS] alias] ON a = b {, a = b}] [WHERE condition]
//! ```
//! Without JOIN the result is a histogram, with JOIN a [`Synth`]etic event. Keywords are known in any case, special fields
//! (`TIMESTAMP`, `TIMESTAMP_USECS`, `TIMESTAMP_DELTA`, `TIMESTAMP_DELTA_USECS`, `STACKTRACE`) in upper case. A backslash makes
//! a name of what would be a keyword. Errors show the place.

use crate::error::{Error, Result};
use crate::format::EventFormat;
use crate::hist::{Hist, HistField, Modifier};
use crate::instance::Instance;
use crate::synth::{Calc, Side, Synth, no_field, quote};

/// What a statement stands for.
#[derive(Clone, Debug)]
pub enum Sql {
    /// A histogram on one event.
    Hist {
        /// The event.
        event: Box<EventFormat>,
        /// The histogram.
        hist: Box<Hist>,
    },
    /// A synthetic event from two events.
    Synth(Box<Synth>),
}

impl Sql {
    /// Reads a statement. Events and fields are looked up in `events` (an instance gives them); `name` is that of the
    /// synthetic event, `id` goes into its variables.
    ///
    /// # Errors
    /// [`Error::Syntax`] with the place in the statement.
    pub fn parse(text: &str, events: &Instance, name: &str, id: u32) -> Result<Sql> {
        let mut p = Parser { text, tokens: tokens(text)?, pos: 0 };
        let query = p.query()?;
        Resolver { text, events, query: &query }.resolve(name, id)
    }

    /// The statement as shell commands for the tracing directory `dir`. `old_file`: the kernel has only
    /// `synthetic_events`.
    pub fn echo(&self, dir: &str, old_file: bool) -> String {
        match self {
            Sql::Hist { event, hist } => {
                format!("echo '{}' > {dir}/events/{}/{}/trigger\n", quote(&hist.to_string()), event.system, event.name)
            }
            Sql::Synth(s) => s.echo(dir, old_file),
        }
    }

    /// Does it in the kernel.
    pub fn create(&self, instance: &Instance) -> Result<()> {
        match self {
            Sql::Hist { event, hist } => instance.start_hist(&event.system, &event.name, hist),
            Sql::Synth(s) => s.create(instance),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Tok {
    /// Letters, digits, `_` and `.`; true: a backslash stood before it, so it is no keyword.
    Word(String, bool),
    Number(u64),
    Text(String),
    Sign(&'static str),
    End,
}

const SIGNS: [&str; 20] =
    ["==", "!=", "<=", ">=", "&&", "||", "=", "<", ">", "&", "|", "~", "!", "(", ")", ",", "+", "-", "*", ";"];

fn tokens(text: &str) -> Result<Vec<(Tok, usize)>> {
    let bad = |what: &str, at: usize| Error::Syntax { what: what.to_owned(), text: text.to_owned(), at };
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    let mut found = Vec::new();
    let mut at = 0;
    while let Some((rest, c)) = text.get(at..).and_then(|rest| Some((rest, rest.chars().next()?))) {
        if c.is_whitespace() {
            at += c.len_utf8();
        } else if c == '"' {
            let inner = rest.split('"').nth(1).filter(|inner| rest.len() >= inner.len() + 2);
            let inner = inner.ok_or_else(|| bad("this text has no closing quote", at))?;
            found.push((Tok::Text(inner.to_owned()), at));
            at += inner.len() + 2;
        } else if c == '\\' || is_word(c) {
            let skip = usize::from(c == '\\');
            let word = rest.get(skip..).and_then(|r| r.split(|c| !is_word(c)).next()).unwrap_or_default();
            if word.is_empty() {
                return Err(bad("a name belongs behind the backslash", at));
            }
            if skip == 0 && c.is_ascii_digit() {
                let number = match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
                    Some(hex) => u64::from_str_radix(hex, 16),
                    None => word.parse(),
                };
                found.push((Tok::Number(number.map_err(|_| bad("not a number", at))?), at));
            } else {
                found.push((Tok::Word(word.to_owned(), skip == 1), at));
            }
            at += skip + word.len();
        } else if let Some(sign) = SIGNS.iter().find(|s| rest.starts_with(**s)) {
            found.push((Tok::Sign(sign), at));
            at += sign.len();
        } else {
            return Err(bad("this character has no meaning here", at));
        }
    }
    found.push((Tok::End, text.len()));
    Ok(found)
}

/// A field as written, with its place.
#[derive(Clone, Debug)]
struct Name {
    text: String,
    at: usize,
}

#[derive(Clone, Debug)]
enum Expr {
    Field(Name),
    Calc(Name, bool, Name),
    Cast(Name, String, usize),
}

#[derive(Clone, Debug)]
struct Item {
    expr: Expr,
    label: Option<String>,
    at: usize,
}

#[derive(Clone, Debug)]
enum Cond {
    Compare(Name, &'static str, Value),
    Not(Box<Cond>),
    Group(Box<Cond>),
    Chain(Vec<Cond>, Vec<&'static str>),
}

#[derive(Clone, Debug)]
enum Value {
    Number(u64),
    Text(String),
}

#[derive(Debug)]
struct Query {
    items: Vec<Item>,
    from: (Name, Option<String>),
    join: Option<(Name, Option<String>)>,
    on: Vec<(Name, Name)>,
    blocks: Vec<Cond>,
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(Tok, usize)>,
    pos: usize,
}

/// Conditions in parentheses may be nested so deep.
const MAX_DEPTH: usize = 64;

impl Parser<'_> {
    fn peek(&self) -> &Tok {
        self.tokens.get(self.pos).map_or(&Tok::End, |t| &t.0)
    }

    fn at(&self) -> usize {
        self.tokens.get(self.pos).map_or(self.text.len(), |t| t.1)
    }

    fn next(&mut self) -> Tok {
        let t = self.peek().clone();
        self.pos += 1;
        t
    }

    fn bad<T>(&self, what: &str) -> Result<T> {
        let seen = match self.peek() {
            Tok::End => "the statement ends".to_owned(),
            Tok::Word(w, _) => format!("{w:?}"),
            Tok::Number(n) => format!("{n}"),
            Tok::Text(t) => format!("\"{t}\""),
            Tok::Sign(s) => format!("{s:?}"),
        };
        Err(Error::Syntax { what: format!("expected {what}, found {seen}"), text: self.text.to_owned(), at: self.at() })
    }

    fn is_keyword(&self, word: &str) -> bool {
        matches!(self.peek(), Tok::Word(w, false) if w.eq_ignore_ascii_case(word))
    }

    fn keyword(&mut self, word: &str) -> Result<()> {
        if !self.eat_keyword(word) {
            return self.bad(word);
        }
        Ok(())
    }

    fn eat_keyword(&mut self, word: &str) -> bool {
        let hit = self.is_keyword(word);
        self.pos += usize::from(hit);
        hit
    }

    fn eat(&mut self, sign: &str) -> bool {
        let hit = matches!(self.peek(), Tok::Sign(s) if *s == sign);
        self.pos += usize::from(hit);
        hit
    }

    fn expect(&mut self, sign: &str) -> Result<()> {
        if self.eat(sign) { Ok(()) } else { self.bad(&format!("{sign:?}")) }
    }

    fn name(&mut self, what: &str) -> Result<Name> {
        let at = self.at();
        let reserved = ["select", "from", "join", "on", "where", "as", "cast"];
        match self.peek() {
            Tok::Word(w, raw) if *raw || !reserved.iter().any(|r| w.eq_ignore_ascii_case(r)) => {
                let text = w.clone();
                self.pos += 1;
                Ok(Name { text, at })
            }
            _ => self.bad(what),
        }
    }

    /// `[AS] label`, if there is one.
    fn label(&mut self, stop: &[&str]) -> Result<Option<String>> {
        if self.eat_keyword("as") {
            return Ok(Some(self.name("a name")?.text));
        }
        let stops = stop.iter().any(|s| self.is_keyword(s));
        match self.peek() {
            Tok::Word(..) if !stops => Ok(Some(self.name("a name")?.text)),
            _ => Ok(None),
        }
    }

    fn query(&mut self) -> Result<Query> {
        self.keyword("SELECT")?;
        let mut items = vec![self.item()?];
        while self.eat(",") {
            items.push(self.item()?);
        }
        self.keyword("FROM")?;
        let from = self.event()?;
        let mut on = Vec::new();
        let join = match self.eat_keyword("join") {
            false => None,
            true => {
                let event = self.event()?;
                self.keyword("ON")?;
                loop {
                    let a = self.name("a field")?;
                    if !self.eat("=") {
                        self.expect("==")?;
                    }
                    on.push((a, self.name("a field")?));
                    if !self.eat(",") {
                        break;
                    }
                }
                Some(event)
            }
        };
        let mut blocks = Vec::new();
        if self.eat_keyword("where") {
            loop {
                blocks.push(self.chain(&["||"], 0)?);
                if !self.eat("&&") && !self.eat(",") {
                    break;
                }
            }
        }
        self.eat(";");
        match self.peek() {
            Tok::End => Ok(Query { items, from, join, on, blocks }),
            _ => self.bad("the end of the statement"),
        }
    }

    fn event(&mut self) -> Result<(Name, Option<String>)> {
        let name = self.name("an event")?;
        Ok((name, self.label(&["join", "on", "where"])?))
    }

    fn item(&mut self) -> Result<Item> {
        let at = self.at();
        let expr = if self.is_keyword("cast") && matches!(self.tokens.get(self.pos + 1), Some((Tok::Sign("("), _))) {
            self.pos += 2;
            let field = self.name("a field")?;
            self.keyword("AS")?;
            let at = self.at();
            let kind = self.cast_type()?;
            self.expect(")")?;
            Expr::Cast(field, kind, at)
        } else {
            let open = self.eat("(");
            let first = self.name("a field")?;
            let mut expr = Expr::Field(first.clone());
            if self.eat("-") {
                expr = Expr::Calc(first, false, self.name("a field")?);
            } else if self.eat("+") {
                expr = Expr::Calc(first, true, self.name("a field")?);
            }
            if open {
                self.expect(")")?;
            }
            expr
        };
        Ok(Item { expr, label: self.label(&["from"])?, at })
    }

    /// `SYM`, `SYM-OFFSET`, `BUCKETS=5`.
    fn cast_type(&mut self) -> Result<String> {
        let mut text = match self.next() {
            Tok::Word(w, _) => w,
            _ => {
                self.pos -= 1;
                return self.bad("a type");
            }
        };
        if self.eat("-") {
            match self.next() {
                Tok::Word(w, _) => text = format!("{text}-{w}"),
                _ => {
                    self.pos -= 1;
                    return self.bad("a type");
                }
            }
        } else if self.eat("=") {
            match self.next() {
                Tok::Number(n) => text = format!("{text}={n}"),
                _ => {
                    self.pos -= 1;
                    return self.bad("a number");
                }
            }
        }
        Ok(text)
    }

    /// Terms with these signs between them.
    fn chain(&mut self, signs: &[&'static str], depth: usize) -> Result<Cond> {
        let mut terms = vec![self.term(depth)?];
        let mut between = Vec::new();
        while let Some(sign) = signs.iter().find(|s| self.eat(s)) {
            between.push(*sign);
            terms.push(self.term(depth)?);
        }
        Ok(if between.is_empty() { terms.remove(0) } else { Cond::Chain(terms, between) })
    }

    fn term(&mut self, depth: usize) -> Result<Cond> {
        if depth > MAX_DEPTH {
            return Err(Error::Syntax { what: "nested too deeply".into(), text: self.text.into(), at: self.at() });
        }
        if self.eat("!") {
            let inner = self.term(depth + 1)?;
            return Ok(Cond::Not(Box::new(inner)));
        }
        if self.eat("(") {
            let inner = self.chain(&["||", "&&"], depth + 1)?;
            self.expect(")")?;
            return Ok(Cond::Group(Box::new(inner)));
        }
        let field = self.name("a field")?;
        let op = match self.peek() {
            Tok::Sign(s @ ("==" | "!=" | "<" | "<=" | ">" | ">=" | "&" | "~")) => *s,
            Tok::Sign("=") => "==",
            _ => return self.bad("a comparison"),
        };
        self.pos += 1;
        let value = match self.next() {
            Tok::Number(n) => Value::Number(n),
            Tok::Text(t) => Value::Text(t),
            _ => {
                self.pos -= 1;
                return self.bad("a number or a text in double quotes");
            }
        };
        Ok(Cond::Compare(field, op, value))
    }
}

struct Resolver<'a> {
    text: &'a str,
    events: &'a Instance,
    query: &'a Query,
}

impl Resolver<'_> {
    fn bad<T>(&self, at: usize, what: impl Into<String>) -> Result<T> {
        Err(Error::Syntax { what: what.into(), text: self.text.to_owned(), at })
    }

    /// The same error with the place in the statement.
    fn here<T>(&self, at: usize, done: Result<T>) -> Result<T> {
        done.or_else(|e| match e {
            Error::Invalid(what) => self.bad(at, what),
            Error::NoEvent { .. } => self.bad(at, e.to_string()),
            other => Err(other),
        })
    }

    fn resolve(&self, name: &str, id: u32) -> Result<Sql> {
        let q = self.query;
        let start = self.here(q.from.0.at, self.events.find_event(&q.from.0.text))?;
        match &q.join {
            None => self.histogram(start),
            Some((event, _)) => {
                let end = self.here(event.at, self.events.find_event(&event.text))?;
                self.synthetic(Synth::new(name, start, end, id)?)
            }
        }
    }

    /// Takes the event's name or alias off a field.
    fn strip<'n>(name: &'n str, event: &EventFormat, alias: Option<&str>) -> Option<&'n str> {
        let full = format!("{}.{}", event.system, event.name);
        [alias.unwrap_or(""), &event.name, &full]
            .iter()
            .filter(|p| !p.is_empty())
            .find_map(|p| name.strip_prefix(*p)?.strip_prefix('.'))
    }

    fn histogram(&self, event: EventFormat) -> Result<Sql> {
        let alias = self.query.from.1.as_deref();
        let local = |n: &Name| Self::strip(&n.text, &event, alias).unwrap_or(&n.text).to_owned();
        let mut hist = Hist::default();
        for item in &self.query.items {
            let (field, modifier, counter) = match &item.expr {
                Expr::Field(n) => match self.hist_special(&local(n)) {
                    Some((name, modifier)) => (name, modifier, false),
                    None => (self.real(&event, n, &local(n))?, Modifier::None, false),
                },
                Expr::Calc(n, ..) => {
                    return self.bad(n.at, "without JOIN fields cannot be added or subtracted");
                }
                Expr::Cast(n, kind, at) => {
                    let name = self.real(&event, n, &local(n))?;
                    match self.cast(&event, n, &name, kind, *at)? {
                        Some(m) => (name, m, false),
                        None => (name, Modifier::None, true),
                    }
                }
            };
            let list = if counter { &mut hist.vals } else { &mut hist.keys };
            let field = HistField::new(field, modifier);
            if list.iter().any(|f| f.name == field.name) {
                return self.bad(item.at, format!("{} is there twice", field.name));
            }
            list.push(field);
        }
        if hist.keys.is_empty() {
            let at = self.query.items.first().map_or(0, |item| item.at);
            return self.bad(at, "at least one item must not be a _COUNTER_: it is the histogram's key");
        }
        let mut filter = String::new();
        for block in &self.query.blocks {
            append(&mut filter, &self.condition(block, &|n| self.where_field(&event, n, &local(n)))?);
        }
        hist.filter = (!filter.is_empty()).then_some(filter);
        Ok(Sql::Hist { event: Box::new(event), hist: Box::new(hist) })
    }

    fn hist_special(&self, name: &str) -> Option<(String, Modifier)> {
        Some(match name {
            "TIMESTAMP" => ("common_timestamp".into(), Modifier::None),
            "TIMESTAMP_USECS" => ("common_timestamp".into(), Modifier::Usecs),
            "STACKTRACE" => ("common_stacktrace".into(), Modifier::None),
            "CPU" | "cpu" | "common_cpu" => ("common_cpu".into(), Modifier::None),
            "COMM" => ("common_pid".into(), Modifier::Execname),
            _ => return None,
        })
    }

    fn real(&self, event: &EventFormat, n: &Name, field: &str) -> Result<String> {
        match event.field(field) {
            Some(f) => Ok(f.name.clone()),
            None => self.here(n.at, Err(no_field(event, field))),
        }
    }

    /// `None` stands for the counter.
    fn cast(&self, event: &EventFormat, n: &Name, field: &str, kind: &str, at: usize) -> Result<Option<Modifier>> {
        if kind == "_COUNTER_" || kind == "__COUNTER__" {
            return Ok(None);
        }
        let lower = kind.to_ascii_lowercase();
        let modifier = match lower.as_str() {
            "hex" => Modifier::Hex,
            "sym" => Modifier::Sym,
            "sym-offset" => Modifier::SymOffset,
            "syscall" => Modifier::Syscall,
            "execname" | "comm" => Modifier::Execname,
            "log" | "log2" => Modifier::Log2,
            other => match other.strip_prefix("buckets=").and_then(|v| v.parse().ok()) {
                Some(0) => return self.bad(at, "groups of 0 are none"),
                Some(v) => Modifier::Buckets(v),
                None => {
                    let known = "HEX, SYM, SYM-OFFSET, SYSCALL, EXECNAME or COMM, LOG or LOG2, BUCKETS=N, _COUNTER_";
                    return self.bad(at, format!("{kind:?} is no type; there are {known}"));
                }
            },
        };
        if modifier == Modifier::Execname {
            if field != "common_pid" {
                return self.bad(n.at, format!("{kind} is only for common_pid"));
            }
        } else if event.field(field).is_some_and(|f| f.is_array() || f.is_string()) {
            return self.bad(n.at, format!("{field} is a text or an array and cannot be cast to {kind}"));
        }
        Ok(Some(modifier))
    }

    fn synthetic(&self, mut synth: Synth) -> Result<Sql> {
        let q = self.query;
        for (a, b) in &q.on {
            let (x, y) = (self.side(&synth, a)?, self.side(&synth, b)?);
            let (start, end) = match (x.0, y.0) {
                (Side::Start, Side::End) => (x.1, y.1),
                (Side::End, Side::Start) => (y.1, x.1),
                _ => {
                    let (s, e) = (&synth.event(Side::Start).name, &synth.event(Side::End).name);
                    return self.bad(a.at, format!("one field of {s} and one of {e} must be compared"));
                }
            };
            self.here(a.at, synth.match_fields(&start, &end))?;
        }
        for item in &q.items {
            let label = item.label.as_deref();
            let done = match &item.expr {
                Expr::Field(n) if n.text == "TIMESTAMP_DELTA" || n.text == "TIMESTAMP_DELTA_USECS" => {
                    let field = if n.text.ends_with("USECS") { "TIMESTAMP_USECS" } else { "TIMESTAMP" };
                    let label = self.needs_label(item)?;
                    synth.compare_field(field, field, Calc::EndMinusStart, label)
                }
                Expr::Field(n) | Expr::Cast(n, ..) => match self.side(&synth, n)? {
                    (Side::Start, f) => synth.start_field(&f, label),
                    (Side::End, f) => synth.end_field(&f, label),
                },
                Expr::Calc(a, plus, b) => {
                    let label = self.needs_label(item)?;
                    let (x, y) = (self.side(&synth, a)?, self.side(&synth, b)?);
                    match (x.0, y.0, plus) {
                        (Side::End, Side::Start, false) => synth.compare_field(&y.1, &x.1, Calc::EndMinusStart, label),
                        (Side::Start, Side::End, false) => synth.compare_field(&x.1, &y.1, Calc::StartMinusEnd, label),
                        (Side::End, Side::Start, true) => synth.compare_field(&y.1, &x.1, Calc::Sum, label),
                        (Side::Start, Side::End, true) => synth.compare_field(&x.1, &y.1, Calc::Sum, label),
                        _ => return self.bad(a.at, "the two fields must be of different events"),
                    }
                }
            };
            self.here(item.at, done)?;
        }
        let (mut first, mut second) = (String::new(), String::new());
        for block in &q.blocks {
            let side = std::cell::Cell::new(None);
            let text = self.condition(block, &|n| {
                let (s, f) = self.side(&synth, n)?;
                if side.get().is_some_and(|x| x != s) {
                    return self.bad(n.at, "fields of both events cannot be mixed here; join the two parts with &&");
                }
                side.set(Some(s));
                self.where_field(synth.event(s), n, &f)
            })?;
            match side.get() {
                Some(Side::End) => append(&mut second, &text),
                _ => append(&mut first, &text),
            }
        }
        for (side, text) in [(Side::Start, first), (Side::End, second)] {
            if !text.is_empty() {
                synth.filter(side, text);
            }
        }
        Ok(Sql::Synth(Box::new(synth)))
    }

    fn needs_label<'i>(&self, item: &'i Item) -> Result<&'i str> {
        match &item.label {
            Some(l) => Ok(l),
            None => self.bad(item.at, "a calculation needs a name: AS name"),
        }
    }

    /// Which event a field belongs to, and its name without the event.
    fn side(&self, synth: &Synth, n: &Name) -> Result<(Side, String)> {
        let q = self.query;
        let aliases = [(Side::Start, q.from.1.as_deref()), (Side::End, q.join.as_ref().and_then(|j| j.1.as_deref()))];
        for (side, alias) in aliases {
            if let Some(f) = Self::strip(&n.text, synth.event(side), alias) {
                let event = synth.event(side);
                let special = ["TIMESTAMP", "TIMESTAMP_USECS", "STACKTRACE", "COMM", "CPU", "common_cpu"].contains(&f);
                if event.field(f).is_none() && !special {
                    return self.here(n.at, Err(no_field(event, f)));
                }
                return Ok((side, f.to_owned()));
            }
        }
        let has = |s: Side| synth.event(s).field(&n.text).is_some();
        match (has(Side::Start), has(Side::End)) {
            (true, false) => Ok((Side::Start, n.text.clone())),
            (false, true) => Ok((Side::End, n.text.clone())),
            (true, true) => self.bad(n.at, format!("both events have {}: put the event before it", n.text)),
            (false, false) => {
                let both = (&synth.event(Side::Start).name, &synth.event(Side::End).name);
                self.bad(n.at, format!("{} is no field of {} or {} (EVENT.FIELD names one)", n.text, both.0, both.1))
            }
        }
    }

    fn where_field(&self, event: &EventFormat, n: &Name, field: &str) -> Result<(String, bool)> {
        if field == "COMM" {
            return Ok(("COMM".into(), true));
        }
        if field == "CPU" {
            return Ok(("CPU".into(), false));
        }
        let name = self.real(event, n, field)?;
        Ok((name, event.field(field).is_some_and(|f| f.is_string())))
    }

    /// A condition as kernel filter; `field` gives the name and whether it is a text.
    fn condition(&self, c: &Cond, field: &dyn Fn(&Name) -> Result<(String, bool)>) -> Result<String> {
        Ok(match c {
            Cond::Compare(n, op, value) => {
                let (name, is_text) = field(n)?;
                let fits = match value {
                    Value::Text(_) => !is_text || matches!(*op, "==" | "!=" | "~"),
                    Value::Number(_) => !is_text && *op != "~",
                };
                if !fits {
                    return self.bad(n.at, format!("{name} cannot be compared with this value in this way"));
                }
                match value {
                    Value::Number(v) => format!("{name} {op} {v}"),
                    Value::Text(t) if *op == "~" => format!("{name}~\"{t}\""),
                    Value::Text(t) => format!("{name} {op} \"{t}\""),
                }
            }
            Cond::Not(inner) => match &**inner {
                g @ Cond::Group(_) => format!("!{}", self.condition(g, field)?),
                other => format!("!({})", self.condition(other, field)?),
            },
            Cond::Group(inner) => format!("({})", self.condition(inner, field)?),
            Cond::Chain(terms, signs) => {
                let mut text = String::new();
                for (i, t) in terms.iter().enumerate() {
                    if let Some(s) = i.checked_sub(1).and_then(|i| signs.get(i)) {
                        text.push_str(s);
                    }
                    text += &self.condition(t, field)?;
                }
                text
            }
        })
    }
}

/// Joins a further block to a filter.
fn append(filter: &mut String, block: &str) {
    if filter.is_empty() {
        filter.push_str(block);
    } else {
        *filter += &format!("&&({block})");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TraceFs;

    const COMMON: &str = "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n";

    fn tree() -> (tempfile::TempDir, Instance) {
        let t = tempfile::tempdir().unwrap();
        let comm = |n: &str| format!("\tfield:char {n}[16];\toffset:8;\tsize:16;\tsigned:0;\n");
        let num = |k: &str, n: &str| format!("\tfield:{k} {n};\toffset:24;\tsize:4;\tsigned:1;\n");
        for (name, fields) in [
            ("sched_waking", comm("comm") + &num("pid_t", "pid") + &num("int", "prio")),
            (
                "sched_switch",
                comm("prev_comm")
                    + &num("pid_t", "prev_pid")
                    + &num("int", "prev_prio")
                    + &comm("next_comm")
                    + &num("pid_t", "next_pid")
                    + &num("int", "next_prio"),
            ),
        ] {
            let d = t.path().join("events/sched").join(name);
            std::fs::create_dir_all(&d).unwrap();
            std::fs::write(
                d.join("format"),
                format!("name: {name}\nID: 1\nformat:\n{COMMON}{fields}\nprint fmt: \"\"\n"),
            )
            .unwrap();
        }
        let top = TraceFs::at(t.path()).top();
        (t, top)
    }

    fn echo(text: &str) -> String {
        let (_t, top) = tree();
        match Sql::parse(text, &top, "Anonymous", 7) {
            Ok(s) => s.echo("/T", false),
            Err(e) => e.to_string(),
        }
    }

    const JOIN: &str = "FROM sched_waking AS start JOIN sched_switch AS end ON start.pid = end.next_pid";

    /// What the reference prints for the same statements.
    #[test]
    fn histograms() {
        for (sql, want) in [
            ("SELECT pid FROM sched_waking", "hist:keys=pid"),
            ("select sched.sched_waking.pid from sched.sched_waking", "hist:keys=pid"),
            (
                "SELECT pid, CAST(prio AS HEX), CAST(common_pid AS _COUNTER_) FROM sched_waking WHERE prio < 100",
                "hist:keys=pid,prio.hex:vals=common_pid if prio < 100",
            ),
            (
                "SELECT CAST(common_pid as comm), CAST(pid AS sym-offset) x, CAST(prio as buckets=3) FROM sched_waking",
                "hist:keys=common_pid.execname,pid.sym-offset,prio.buckets=3",
            ),
            (
                "SELECT w.pid as x, w.prio y FROM sched_waking as w where (w.pid > 0x10 || pid < 5) && comm == \"foo\"",
                "hist:keys=pid,prio if (pid > 16||pid < 5)&&(comm == \"foo\")",
            ),
            (
                "SELECT pid FROM sched_waking where ! (pid > 0x10 || pid < 5) && comm ~ \"foo*\"",
                "hist:keys=pid if !(pid > 16||pid < 5)&&(comm~\"foo*\")",
            ),
            ("SELECT pid FROM sched_waking where !pid > 0x10", "hist:keys=pid if !(pid > 16)"),
            ("SELECT pid FROM sched_waking where pid = 16, prio & 3", "hist:keys=pid if pid == 16&&(prio & 3)"),
            (
                "SELECT pid FROM sched_waking WHERE (pid == 1 && prio == 2) && prio == 3 && pid <= 3",
                "hist:keys=pid if (pid == 1&&prio == 2)&&(prio == 3)&&(pid <= 3)",
            ),
            (
                "SELECT pid FROM sched_waking WHERE (pid == 1 || prio == 2) || prio == 3",
                "hist:keys=pid if (pid == 1||prio == 2)||prio == 3",
            ),
        ] {
            assert_eq!(echo(sql), format!("echo '{want}' > /T/events/sched/sched_waking/trigger\n"), "{sql}");
        }
    }

    /// What the reference prints for the same statements, but for its random number (7 here).
    #[test]
    fn synthetic_events() {
        let all = |fields: &str, start: &str, end: &str| {
            format!(
                "echo 's:Anonymous {fields}' >> /T/dynamic_events\n\
                 echo 'hist:keys=pid{start}' >> /T/events/sched/sched_waking/trigger\n\
                 echo 'hist:keys=next_pid{end}' >> /T/events/sched/sched_switch/trigger\n"
            )
        };
        assert_eq!(
            echo(&format!(
                "SELECT end.next_comm AS comm, (end.TIMESTAMP_USECS - start.TIMESTAMP_USECS) AS lat {JOIN} \
                 WHERE start.prio < 100 && end.prev_prio < 50"
            )),
            all(
                "char comm[16]; u64 lat;",
                ":__arg_7_2=common_timestamp.usecs if prio < 100",
                ":__comm_7_1=next_comm,__lat_7_3=common_timestamp.usecs-$__arg_7_2:onmatch(sched.sched_waking)\
                 .Anonymous($__comm_7_1,$__lat_7_3) if prev_prio < 50"
            )
        );
        assert_eq!(
            echo(&format!("SELECT start.pid, end.prev_pid, end.next_comm AS c {JOIN}")),
            all(
                "pid_t pid; pid_t prev_pid; char c[16];",
                ":__arg_7_2=pid",
                ":__pid_7_1=$__arg_7_2,__arg_7_3=prev_pid,__c_7_4=next_comm:onmatch(sched.sched_waking)\
                 .Anonymous($__pid_7_1,$__arg_7_3,$__c_7_4)"
            )
        );
        assert_eq!(
            echo(&format!("SELECT start.pid, (end.next_prio + start.prio) AS d, start.STACKTRACE AS st {JOIN}")),
            all(
                "pid_t pid; s32 d; unsigned long st[];",
                ":__arg_7_2=pid,__arg_7_3=prio,__arg_7_6=common_stacktrace",
                ":__pid_7_1=$__arg_7_2,__d_7_4=next_prio+$__arg_7_3,__st_7_5=$__arg_7_6:onmatch(sched.sched_waking)\
                 .Anonymous($__pid_7_1,$__d_7_4,$__st_7_5)"
            )
        );
        // The reference computes the second less the first here.
        assert!(echo(&format!("SELECT start.prio - end.next_prio AS d {JOIN}")).contains("=$__arg_7_1-next_prio:"));
        assert!(echo(&format!("SELECT start.pid as \\from {JOIN}")).contains("pid_t from;"));
    }

    #[test]
    fn errors_show_the_place() {
        for (sql, at) in [
            ("SELECT pid, foo FROM sched_waking", 12),
            ("SELECT * FROM sched_waking", 7),
            ("SELECT pid FROM", 15),
            ("SELECT pid FROM sched_wakeing", 16),
            ("SELECT pid FROM sched_waking WHERE pid > 1 and prio < 5", 43),
            ("SELECT pid FROM sched_waking WHERE comm > \"x\"", 35),
            ("SELECT pid FROM sched_waking WHERE pid == -1", 42),
            ("SELECT CAST(pid AS COMM) FROM sched_waking", 12),
            ("SELECT pid, CAST(prio AS FOO) FROM sched_waking", 25),
            ("SELECT CAST(comm AS HEX) FROM sched_waking", 12),
            ("SELECT CAST(pid AS _COUNTER_) FROM sched_waking", 7),
            ("SELECT pid FROM sched_waking WHERE comm == \"x", 43),
            ("SELECT start.pid FROM sched_waking AS start JOIN sched_switch AS end ON start.pid = end.nextpid", 84),
            ("SELECT a.prio FROM sched_waking a JOIN sched_switch b ON a.comm = b.next_pid", 57),
            (
                "SELECT a.prio FROM sched_waking a JOIN sched_switch b ON a.pid = b.next_pid WHERE a.pid == 1 || b.next_pid == 2",
                96,
            ),
            ("SELECT TIMESTAMP_DELTA FROM sched_waking a JOIN sched_switch b ON a.pid = b.next_pid", 7),
            ("", 0),
        ] {
            let (_t, top) = tree();
            match Sql::parse(sql, &top, "Anonymous", 7) {
                Err(Error::Syntax { at: got, .. }) => assert_eq!(got, at, "{sql}"),
                other => panic!("{sql}: {other:?}"),
            }
        }
        let deep = format!("SELECT pid FROM sched_waking WHERE {}", "(".repeat(100_000));
        assert!(echo(&deep).contains("nested too deeply"));
        let deep = format!("SELECT pid FROM sched_waking WHERE {}", "!".repeat(100_000));
        assert!(echo(&deep).contains("nested too deeply"));
    }
}
