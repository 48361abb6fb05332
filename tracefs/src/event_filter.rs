//! Event filters: a builder, and a checker that knows the event's fields. `Documentation/trace/events.rst`.

use crate::error::{Error, Result};
use crate::format::{EventField, EventFormat};

/// A comparison of the kernel's filter language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// `==`
    Eq,
    /// `!=`
    Ne,
    /// `>`
    Gt,
    /// `>=`
    Ge,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `~`: glob, for texts.
    Glob,
    /// `&`: any of the bits.
    And,
}

impl Compare {
    fn text(self) -> &'static str {
        match self {
            Compare::Eq => "==",
            Compare::Ne => "!=",
            Compare::Gt => ">",
            Compare::Ge => ">=",
            Compare::Lt => "<",
            Compare::Le => "<=",
            Compare::Glob => "~",
            Compare::And => "&",
        }
    }
}

/// Builds the text of a filter, piece by piece, for one event.
///
/// ```
/// # use tracefs::{EventFormat, event_filter::{Compare, FilterBuilder}};
/// # let text = "name: e\nID: 1\nformat:\n\tfield:char comm[16];\toffset:8;\tsize:16;\tsigned:0;\n\tfield:int pid;\toffset:24;\tsize:4;\tsigned:1;\n";
/// let event = EventFormat::parse("sched", text).unwrap();
/// let mut f = FilterBuilder::new(&event);
/// f.compare("pid", Compare::Gt, "10")?.and()?.compare("comm", Compare::Glob, "kworker*")?;
/// assert_eq!(f.finish()?, "pid > 10 && comm ~ \"kworker*\"");
/// # Ok::<(), tracefs::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct FilterBuilder<'a> {
    event: &'a EventFormat,
    text: String,
    open: usize,
    /// True where a comparison, `!` or `(` has to follow.
    wants_term: bool,
}

impl<'a> FilterBuilder<'a> {
    /// An empty filter for an event.
    pub fn new(event: &'a EventFormat) -> FilterBuilder<'a> {
        FilterBuilder { event, text: String::new(), open: 0, wants_term: true }
    }

    fn place(&self, term: bool, what: &str) -> Result<()> {
        if self.wants_term == term {
            return Ok(());
        }
        Err(Error::Syntax { what: format!("{what} cannot stand here"), text: self.text.clone(), at: self.text.len() })
    }

    /// A comparison. Texts are put in quotes.
    ///
    /// # Errors
    /// For a field that the event does not have and a comparison that does not fit its type.
    pub fn compare(&mut self, field: &str, op: Compare, value: &str) -> Result<&mut Self> {
        self.place(true, "a comparison")?;
        let kind = kind_of(self.event, field).ok_or_else(|| crate::synth::no_field(self.event, field))?;
        check_compare(field, kind, op.text(), &Value::of(value, kind)).map_err(Error::Invalid)?;
        let value = match kind {
            Kind::Text if !value.starts_with(['"', '\'']) => format!("\"{value}\""),
            _ => value.to_owned(),
        };
        self.text += &format!("{field} {} {value}", op.text());
        self.wants_term = false;
        Ok(self)
    }

    /// `&&`
    pub fn and(&mut self) -> Result<&mut Self> {
        self.join(" && ")
    }

    /// `||`
    pub fn or(&mut self) -> Result<&mut Self> {
        self.join(" || ")
    }

    fn join(&mut self, sign: &str) -> Result<&mut Self> {
        self.place(false, sign.trim())?;
        self.text += sign;
        self.wants_term = true;
        Ok(self)
    }

    /// `!`, before a parenthesis.
    #[allow(clippy::should_implement_trait)]
    pub fn not(&mut self) -> Result<&mut Self> {
        self.place(true, "!")?;
        self.text.push('!');
        Ok(self)
    }

    /// `(`
    pub fn open(&mut self) -> Result<&mut Self> {
        self.place(true, "(")?;
        self.text.push('(');
        self.open += 1;
        Ok(self)
    }

    /// `)`
    pub fn close(&mut self) -> Result<&mut Self> {
        self.place(false, ")")?;
        self.open = self.open.checked_sub(1).ok_or_else(|| Error::Syntax {
            what: "no parenthesis is open".into(),
            text: self.text.clone(),
            at: self.text.len(),
        })?;
        self.text.push(')');
        Ok(self)
    }

    /// The text.
    ///
    /// # Errors
    /// When a parenthesis is open or a comparison is missing at the end.
    pub fn finish(&self) -> Result<String> {
        self.place(false, "the end of the filter")?;
        if self.open > 0 {
            return Err(Error::Syntax {
                what: "a parenthesis is open".into(),
                text: self.text.clone(),
                at: self.text.len(),
            });
        }
        Ok(self.text.clone())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Number,
    Text,
    /// An array of numbers, a cpumask: the kernel has comparisons of its own for some.
    Other,
}

enum Value {
    Number,
    Quoted,
    Word,
    Cpus,
}

impl Value {
    fn of(text: &str, kind: Kind) -> Value {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        match () {
            () if text.starts_with(['"', '\'']) => Value::Quoted,
            () if kind == Kind::Text => Value::Quoted,
            () if text.starts_with("CPUS{") => Value::Cpus,
            () if digits.starts_with(|c: char| c.is_ascii_digit()) => Value::Number,
            () => Value::Word,
        }
    }
}

fn kind_of(event: &EventFormat, field: &str) -> Option<Kind> {
    let of = |f: &EventField| match () {
        () if f.is_string() => Kind::Text,
        () if f.is_array() => Kind::Other,
        () => Kind::Number,
    };
    // `.ustring` says that a number is the address of a text (since Linux 5.16), `.function` that a text is a function
    // (since 6.3).
    let (name, suffix) = field.split_once('.').unwrap_or((field, ""));
    if let Some(f) = event.field(name) {
        return Some(match suffix {
            "ustring" => Kind::Text,
            "function" => Kind::Number,
            _ => of(f),
        });
    }
    match name {
        "COMM" | "comm" | "common_comm" => Some(Kind::Text),
        "CPU" | "cpu" | "common_cpu" => Some(Kind::Number),
        _ => None,
    }
}

fn check_compare(field: &str, kind: Kind, op: &str, value: &Value) -> Result<(), String> {
    match (kind, value) {
        (Kind::Text, _) if !matches!(op, "==" | "!=" | "~") => {
            Err(format!("{field} is a text: it can be compared with ==, != and ~ only"))
        }
        (Kind::Text, Value::Number) => Err(format!("{field} is a text: put the value in quotes")),
        (Kind::Number, _) if op == "~" => Err(format!("{field} is a number: ~ is for texts")),
        (Kind::Number, Value::Word) => Err(format!("{field} is a number: the value is none")),
        _ => Ok(()),
    }
}

const MAX_DEPTH: usize = 64;

/// Checks a complete filter against the fields of an event.
///
/// # Errors
/// [`Error::Syntax`] with the place.
pub fn verify(event: &EventFormat, filter: &str) -> Result<()> {
    let mut c = Checker { event, text: filter, at: 0 };
    c.blanks();
    if c.rest().is_empty() {
        return c.bad("an empty filter (write 0 to remove one)", 0);
    }
    c.expression(0)?;
    c.blanks();
    match c.rest() {
        "" => Ok(()),
        r if r.starts_with(')') => c.bad("no parenthesis is open", c.at),
        _ => c.bad("expected && or ||", c.at),
    }
}

struct Checker<'a> {
    event: &'a EventFormat,
    text: &'a str,
    at: usize,
}

impl<'a> Checker<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn blanks(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn bad<T>(&self, what: impl Into<String>, at: usize) -> Result<T> {
        Err(Error::Syntax { what: what.into(), text: self.text.to_owned(), at })
    }

    fn eat(&mut self, sign: &str) -> bool {
        self.blanks();
        let hit = self.rest().starts_with(sign);
        self.at += if hit { sign.len() } else { 0 };
        hit
    }

    fn expression(&mut self, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return self.bad("nested too deeply", self.at);
        }
        loop {
            self.term(depth)?;
            if !self.eat("&&") && !self.eat("||") {
                return Ok(());
            }
        }
    }

    fn term(&mut self, depth: usize) -> Result<()> {
        while self.eat("!") {}
        let open = self.at;
        if self.eat("(") {
            self.expression(depth + 1)?;
            if !self.eat(")") {
                return self.bad("this parenthesis is not closed", open);
            }
            return Ok(());
        }
        self.blanks();
        let field_at = self.at;
        let field = self.word();
        if field.is_empty() {
            return self.bad("a field belongs here", field_at);
        }
        let Some(kind) = kind_of(self.event, field) else {
            return match crate::synth::no_field(self.event, field) {
                Error::Invalid(what) => self.bad(what, field_at),
                other => Err(other),
            };
        };
        self.blanks();
        let op_at = self.at;
        let Some(op) = ["==", "!=", "<=", ">=", "<", ">", "~", "&"].iter().find(|o| self.eat(o)) else {
            return self.bad("expected ==, !=, <, <=, >, >=, & or ~", op_at);
        };
        self.blanks();
        let value_at = self.at;
        let value = self.value()?;
        check_compare(field, kind, op, &value).or_else(|what| self.bad(what, value_at))
    }

    fn word(&mut self) -> &'a str {
        let ends = |c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.';
        let word = self.rest().split(ends).next().unwrap_or_default();
        self.at += word.len();
        word
    }

    fn value(&mut self) -> Result<Value> {
        let start = self.at;
        let rest = self.rest();
        if let Some(q) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) {
            return match rest.match_indices(q).nth(1) {
                Some((end, _)) => {
                    self.at += end + 1;
                    Ok(Value::Quoted)
                }
                None => self.bad("this text has no closing quote", start),
            };
        }
        if rest.starts_with("CPUS{") {
            return match rest.find('}') {
                Some(end) => {
                    self.at += end + 1;
                    Ok(Value::Cpus)
                }
                None => self.bad("this list of CPUs has no closing brace", start),
            };
        }
        if rest.starts_with(['-', '+']) {
            self.at += 1;
        }
        let word = self.word();
        if word.is_empty() {
            return self.bad("a value belongs here", start);
        }
        let number = match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
            Some(hex) => u64::from_str_radix(hex, 16).is_ok(),
            None => word.parse::<u64>().is_ok(),
        };
        if number {
            return Ok(Value::Number);
        }
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            return self.bad("not a number", start);
        }
        Ok(Value::Word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> EventFormat {
        let text = "name: sched_switch\nID: 1\nformat:\n\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
            \tfield:char prev_comm[16];\toffset:8;\tsize:16;\tsigned:0;\n\tfield:pid_t prev_pid;\toffset:24;\tsize:4;\tsigned:1;\n\
            \tfield:__data_loc char[] name;\toffset:28;\tsize:4;\tsigned:0;\n";
        EventFormat::parse("sched", text).unwrap()
    }

    #[test]
    fn good_filters() {
        for f in [
            "prev_pid == 1",
            "prev_pid==1&&prev_comm~\"a*\"",
            "!(prev_pid > 0x10 || common_pid != -1) && name == 'x'",
            "prev_comm == bash",
            "COMM ~ \"k*\" && CPU & 3",
            "CPU & CPUS{0-3}",
            "((((prev_pid >= 3))))",
        ] {
            verify(&event(), f).unwrap_or_else(|e| panic!("{f}: {e}"));
        }
    }

    #[test]
    fn bad_filters() {
        for (f, at) in [
            ("", 0),
            ("prev_pdi == 1", 0),
            ("prev_pid = 1", 9),
            ("prev_pid == ", 12),
            ("prev_pid == x", 12),
            ("prev_pid ~ \"x\"", 11),
            ("prev_comm > \"x\"", 12),
            ("prev_comm == 5", 13),
            ("(prev_pid == 1", 0),
            ("prev_pid == 1)", 13),
            ("prev_pid == 1 prev_pid == 2", 14),
            ("prev_comm == \"x", 13),
            ("prev_pid == 12ab", 12),
        ] {
            match verify(&event(), f) {
                Err(Error::Syntax { at: got, .. }) => assert_eq!(got, at, "{f}"),
                other => panic!("{f}: {other:?}"),
            }
        }
        let e = verify(&event(), "prev_pdi == 1").unwrap_err().to_string();
        assert!(e.contains("did you mean prev_pid?") && e.ends_with("prev_pdi == 1\n  ^"), "{e}");
        assert!(verify(&event(), &"(".repeat(100_000)).is_err());
    }

    #[test]
    fn builder() {
        let e = event();
        let mut f = FilterBuilder::new(&e);
        f.not().unwrap().open().unwrap().compare("prev_pid", Compare::Ge, "3").unwrap().or().unwrap();
        f.compare("prev_comm", Compare::Ne, "bash").unwrap().close().unwrap();
        let text = f.finish().unwrap();
        assert_eq!(text, "!(prev_pid >= 3 || prev_comm != \"bash\")");
        verify(&e, &text).unwrap();
        assert!(f.compare("prev_pid", Compare::Eq, "1").is_err());
        assert!(f.close().is_err());
        let mut f = FilterBuilder::new(&e);
        assert!(f.compare("nope", Compare::Eq, "1").is_err());
        assert!(f.compare("prev_pid", Compare::Glob, "1").is_err());
        assert!(f.and().is_err());
        assert!(f.open().unwrap().finish().is_err());
    }
}
