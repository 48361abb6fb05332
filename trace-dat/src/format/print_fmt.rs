//! The text behind `print fmt:`: a format string and its arguments.
//!
//! The grammar is C's, with the properties that libtraceevent gives it, because they decide what is printed: operators
//! of one priority group from the right; a sum in parentheses on the right side of a tighter operator is regrouped as if the
//! parentheses were not there; an index is only understood on an operand that no operator precedes. All of them were
//! found by running the reference.

use crate::{
    LongSize,
    format::{
        Event, FieldFlags,
        expr::{BinOp, COND_PRIORITY, Expr, FieldId, Pair, UnOp},
        field::number,
        lexer::{Lexer, Token},
    },
};

/// Nested deeper than this, an argument is refused; the deepest of real kernels need about 30.
const MAX_DEPTH: u32 = 120;

/// A parsed print fmt.
#[derive(Clone, Debug)]
pub(crate) struct PrintFmt {
    /// The format string, escapes as written.
    pub(crate) format: String,
    /// The arguments.
    pub(crate) args: Vec<Expr>,
}

type Res<T> = Result<T, String>;

/// Parses the print fmt of an event.
///
/// `helpers` finds functions beyond the built-in ones.
pub(crate) fn parse(
    event: &Event,
    long: LongSize,
    helpers: &dyn Fn(&str) -> Option<&'static crate::print::Helper>,
) -> Res<PrintFmt> {
    let mut p = Parser { lex: Lexer::new(&event.print_fmt), event, long, helpers, depth: 0 };
    p.print_fmt().map_err(|e| format!("{e} (at byte {} of the print fmt)", p.lex.pos()))
}

struct Parser<'a> {
    lex: Lexer<'a>,
    event: &'a Event,
    long: LongSize,
    helpers: &'a dyn Fn(&str) -> Option<&'static crate::print::Helper>,
    depth: u32,
}

fn expected(what: &str, got: Token<'_>) -> String {
    match got {
        Token::End => format!("expected {what}, the text ends"),
        Token::Item(s) | Token::Op(s) | Token::Text(s) | Token::Char(s) => format!("expected {what}, got `{s}`"),
        Token::Delim(c) => format!("expected {what}, got `{}`", char::from(c)),
    }
}

/// Format pieces that mac80211 and its drivers leave as macro names.
fn macro_text(name: &str) -> Option<&'static str> {
    match name {
        "LOCAL_PR_FMT" => Some("%s"),
        "VIF_PR_FMT" => Some(" vif:%p(%d)"),
        "STA_PR_FMT" => Some(" sta:%pM"),
        _ => None,
    }
}

/// Words that have a value in flag and symbol tables although the format file does not say so.
fn known_word(name: &str) -> Option<u64> {
    const WORDS: [&str; 10] = [
        "HI_SOFTIRQ",
        "TIMER_SOFTIRQ",
        "NET_TX_SOFTIRQ",
        "NET_RX_SOFTIRQ",
        "BLOCK_SOFTIRQ",
        "IRQ_POLL_SOFTIRQ",
        "TASKLET_SOFTIRQ",
        "SCHED_SOFTIRQ",
        "HRTIMER_SOFTIRQ",
        "RCU_SOFTIRQ",
    ];
    match name {
        "HRTIMER_NORESTART" => Some(0),
        "HRTIMER_RESTART" => Some(1),
        "BLOCK_IOPOLL_SOFTIRQ" => Some(5),
        _ => WORDS.iter().position(|w| *w == name).map(|n| n as u64),
    }
}

/// Value of a table entry's first item.
fn word_value(word: &str) -> u64 {
    if word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        return known_word(word).unwrap_or(u64::MAX);
    }
    number(word).unwrap_or(0)
}

/// A cast to a type of fixed width cuts a number; the sign is not extended. `long` cuts nothing, also in a 32-bit file.
pub(crate) fn cast(ty: &str, v: u64) -> u64 {
    match ty {
        "u8" | "s8" | "char" | "unsigned char" => v & 0xff,
        "u16" | "s16" | "short" | "unsigned short" => v & 0xffff,
        "u32" | "s32" | "int" | "unsigned int" => v & 0xffff_ffff,
        _ => v,
    }
}

/// Value of a constant inside an expression of a table.
fn const_num(e: &Expr) -> Option<u64> {
    Some(match e {
        Expr::Null => 0,
        Expr::Atom(a) => number(a).unwrap_or(0),
        Expr::Cast(ty, e) => cast(ty, const_num(e)?),
        Expr::Unary(UnOp::Not, _) => return None,
        Expr::Unary(op, e) => op.apply(const_num(e)?),
        Expr::Binary(BinOp::Mul | BinOp::Div | BinOp::Mod, ..) => return None,
        Expr::Binary(op, a, b) => op.apply_signed(const_num(a)?, const_num(b)?),
        _ => return None,
    })
}

/// Value of the first item of a table entry.
fn table_value(e: &Expr) -> Option<u64> {
    match e {
        Expr::Atom(a) | Expr::Text(a) => Some(word_value(a)),
        Expr::Cast(_, e) => table_value(e),
        // A result below zero counts as -1, whatever it is.
        Expr::Unary(..) | Expr::Binary(..) => const_num(e).map(|v| if (v as i64) < 0 { u64::MAX } else { v }),
        _ => None,
    }
}

impl<'a> Parser<'a> {
    fn next(&mut self) -> Res<Token<'a>> {
        Ok(match self.lex.next()? {
            Token::Item(name) => macro_text(name).map_or(Token::Item(name), Token::Text),
            t => t,
        })
    }

    fn peek(&self) -> Res<Token<'a>> {
        Ok(self.lex.peek()?)
    }

    fn delim(&mut self, c: u8) -> Res<()> {
        match self.next()? {
            Token::Delim(d) if d == c => Ok(()),
            t => Err(expected(&format!("`{}`", char::from(c)), t)),
        }
    }

    fn enter(&mut self) -> Res<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err("nested too deeply".into()) } else { Ok(()) }
    }

    fn print_fmt(&mut self) -> Res<PrintFmt> {
        let mut format = match self.next()? {
            Token::Text(t) => t.to_owned(),
            t => return Err(expected("a format string", t)),
        };
        let mut t = self.next()?;
        while let Token::Text(more) = t {
            format.push_str(more);
            t = self.next()?;
        }
        let mut args = Vec::new();
        match t {
            Token::End => {}
            Token::Delim(b',') => loop {
                let (mut e, mut t) = self.arg()?;
                while let Token::Op(op) = t {
                    (e, t) = self.op(e, op)?;
                }
                args.push(e);
                if t != Token::Delim(b',') {
                    break;
                }
            },
            t => return Err(expected("`,`", t)),
        }
        Ok(PrintFmt { format, args })
    }

    /// One operand and the token behind it.
    fn arg(&mut self) -> Res<(Expr, Token<'a>)> {
        let t = self.next()?;
        self.operand(t)
    }

    /// An argument of a helper: an operand with all operators that follow.
    fn full_arg(&mut self) -> Res<(Expr, Token<'a>)> {
        let (mut e, mut t) = self.arg()?;
        while let Token::Op(op) = t {
            (e, t) = self.op(e, op)?;
        }
        Ok((e, t))
    }

    /// The operand that begins with `t`, and the token behind it.
    fn operand(&mut self, t: Token<'a>) -> Res<(Expr, Token<'a>)> {
        self.enter()?;
        let r = self.operand_inner(t);
        self.depth -= 1;
        r
    }

    fn operand_inner(&mut self, t: Token<'a>) -> Res<(Expr, Token<'a>)> {
        match t {
            Token::Item("REC") if self.peek()?.is_op("->") => {
                self.next()?;
                let field = self.field_name()?;
                Ok((Expr::Field(field), self.next()?))
            }
            Token::Item(name) => {
                if self.peek()? == Token::Delim(b'(') {
                    self.next()?;
                    return self.function(name);
                }
                let mut atom = name.to_owned();
                let mut t = self.next()?;
                while let Token::Item(more) = t {
                    atom.push(' ');
                    atom.push_str(more);
                    t = self.next()?;
                }
                Ok((Expr::Atom(atom), t))
            }
            Token::Text(text) => {
                let mut text = text.to_owned();
                let mut t = self.next()?;
                while let Token::Text(more) = t {
                    text.push_str(more);
                    t = self.next()?;
                }
                Ok((Expr::Text(text), t))
            }
            Token::Char(text) => {
                let v = text.bytes().next().unwrap_or(0);
                Ok((Expr::Atom(v.to_string()), self.next()?))
            }
            Token::Delim(b'(') => self.paren(),
            Token::Op(op) => match UnOp::of(op) {
                Some(unary) => {
                    let (right, t) = self.arg()?;
                    // A unary operator binds tighter than any operator that follows.
                    self.more(Expr::Unary(unary, Box::new(right)), 0, t)
                }
                None => Err(expected("an operand", t)),
            },
            t => Err(expected("an operand", t)),
        }
    }

    /// What follows `(`: a type in parentheses makes a cast.
    fn paren(&mut self) -> Res<(Expr, Token<'a>)> {
        let (mut inner, mut t) = self.arg()?;
        while let Token::Op(op) = t {
            // `(struct x *)`: a pointer type.
            if op == "*"
                && matches!(inner, Expr::Atom(_))
                && matches!(self.peek()?, Token::Delim(b')') | Token::Op("*"))
            {
                if let Expr::Atom(a) = &mut inner {
                    a.push_str(" *");
                }
                t = self.next()?;
                continue;
            }
            (inner, t) = self.op(inner, op)?;
        }
        if t != Token::Delim(b')') {
            return Err(expected("`)`", t));
        }
        let t = self.next()?;
        match t {
            Token::Item(_) | Token::Text(_) | Token::Delim(b'(') => match inner {
                Expr::Atom(ty) => {
                    let (item, t) = self.operand(t)?;
                    Ok((Expr::Cast(ty, Box::new(item)), t))
                }
                _ => Err(expected("an operator", t)),
            },
            Token::Op("->") if is_rec(&inner) => {
                let field = self.field_name()?;
                Ok((Expr::Field(field), self.next()?))
            }
            t => Ok((inner, t)),
        }
    }

    /// `left op ...`: the operator has been read.
    fn op(&mut self, left: Expr, op: &str) -> Res<(Expr, Token<'a>)> {
        self.enter()?;
        let r = self.op_inner(left, op);
        self.depth -= 1;
        r
    }

    fn op_inner(&mut self, left: Expr, op: &str) -> Res<(Expr, Token<'a>)> {
        if op == "[" {
            let (index, t) = self.arg()?;
            if !t.is_op("]") {
                return Err(expected("`]`", t));
            }
            return Ok((Expr::Index(Box::new(left), Box::new(index)), self.next()?));
        }
        if op == "?" {
            return self.cond(left);
        }
        let Some(binary) = BinOp::of(op) else { return Err(format!("unknown operator `{op}`")) };
        let (right, t) = self.arg()?;
        let (top, priority) = match right {
            // What is looser than this operator takes it as its left side, parentheses or not.
            Expr::Binary(r_op, r_left, r_right) if binary.priority() < r_op.priority() => {
                let left = Expr::Binary(binary, Box::new(left), r_left);
                (Expr::Binary(r_op, Box::new(left), r_right), r_op.priority())
            }
            Expr::Cond(r_left, yes, no) if binary.priority() < COND_PRIORITY => {
                let left = Expr::Binary(binary, Box::new(left), r_left);
                (Expr::Cond(Box::new(left), yes, no), COND_PRIORITY)
            }
            Expr::Unary(UnOp::Neg, operand) if binary.priority() < UnOp::Neg.priority() => {
                let left = Expr::Binary(binary, Box::new(left), Box::new(Expr::Null));
                (Expr::Binary(BinOp::Sub, Box::new(left), operand), BinOp::Sub.priority())
            }
            right => (Expr::Binary(binary, Box::new(left), Box::new(right)), binary.priority()),
        };
        if t.is_op("[") {
            return Err("an index behind an operator".into());
        }
        self.more(top, priority, t)
    }

    /// Goes on with the operator `t` behind `e`, whose own operator has this priority.
    fn more(&mut self, e: Expr, priority: u8, t: Token<'a>) -> Res<(Expr, Token<'a>)> {
        let Token::Op(op) = t else { return Ok((e, t)) };
        if op == ":" || op == "]" {
            return Ok((e, t));
        }
        let next = match op {
            "?" => COND_PRIORITY,
            "[" => 0,
            _ => BinOp::of(op).ok_or_else(|| format!("unknown operator `{op}`"))?.priority(),
        };
        if next > priority {
            return self.op(e, op);
        }
        match e {
            Expr::Binary(o, left, right) => {
                let (right, t) = self.op(*right, op)?;
                Ok((Expr::Binary(o, left, Box::new(right)), t))
            }
            Expr::Cond(c, yes, no) => {
                let (no, t) = self.op(*no, op)?;
                Ok((Expr::Cond(c, yes, Box::new(no)), t))
            }
            Expr::Unary(o, right) => {
                let (right, t) = self.op(*right, op)?;
                Ok((Expr::Unary(o, Box::new(right)), t))
            }
            e => self.op(e, op),
        }
    }

    /// `cond ? yes : no`, behind the `?`.
    fn cond(&mut self, cond: Expr) -> Res<(Expr, Token<'a>)> {
        let (mut yes, mut t) = self.arg()?;
        while let Token::Op(op) = t {
            if op == ":" {
                break;
            }
            (yes, t) = self.op(yes, op)?;
        }
        if !t.is_op(":") {
            return Err(expected("`:`", t));
        }
        let (no, t) = self.arg()?;
        self.more(Expr::Cond(Box::new(cond), Box::new(yes), Box::new(no)), COND_PRIORITY, t)
    }

    fn field_name(&mut self) -> Res<Option<FieldId>> {
        match self.next()? {
            Token::Item(name) => Ok(self.event.field_id(name)),
            t => Err(expected("a field's name", t)),
        }
    }

    /// `name)` behind `function(`.
    fn field_arg(&mut self) -> Res<Option<FieldId>> {
        let f = self.field_name()?;
        self.delim(b')')?;
        Ok(f)
    }

    fn known(field: Option<FieldId>) -> Res<FieldId> {
        field.ok_or_else(|| "no such field".to_owned())
    }

    /// A call: the `(` has been read.
    fn function(&mut self, name: &str) -> Res<(Expr, Token<'a>)> {
        let e = match name {
            "__print_flags" => {
                let (value, t) = self.full_arg()?;
                comma(t)?;
                let delim = match self.full_arg()? {
                    (Expr::Atom(a) | Expr::Text(a), t) => {
                        comma(t)?;
                        a
                    }
                    _ => return Err("the delimiter of __print_flags is no text".into()),
                };
                let pairs = self.pairs()?;
                Expr::Flags { value: Box::new(value), delim, pairs }
            }
            "__print_symbolic" => {
                let (value, t) = self.full_arg()?;
                comma(t)?;
                let pairs = self.pairs()?;
                Expr::Symbolic { value: Box::new(value), pairs }
            }
            "__print_hex" | "__print_hex_str" => {
                let (buf, t) = self.full_arg()?;
                comma(t)?;
                let (len, t) = self.full_arg()?;
                close(t)?;
                Expr::Hex { buf: Box::new(buf), len: Box::new(len), blanks: name == "__print_hex" }
            }
            "__print_array" => {
                let (buf, t) = self.full_arg()?;
                comma(t)?;
                let (count, t) = self.full_arg()?;
                comma(t)?;
                let (size, t) = self.full_arg()?;
                close(t)?;
                Expr::Array { buf: Box::new(buf), count: Box::new(count), size: Box::new(size) }
            }
            "__print_dynamic_array" => {
                let field = Self::known(self.field_name()?)?;
                self.delim(b',')?;
                let (size, t) = self.full_arg()?;
                close(t)?;
                Expr::DynPrint { field, size: Box::new(size) }
            }
            "__get_str" | "__get_rel_str" => Expr::Str(self.field_arg()?),
            "__get_bitmask" | "__get_rel_bitmask" => Expr::Bitmask(self.field_arg()?),
            "__get_cpumask" | "__get_rel_cpumask" => Expr::Cpumask(self.field_arg()?),
            "__get_stacktrace" | "__get_rel_stacktrace" => Expr::Stack(self.field_arg()?),
            "__get_dynamic_array"
            | "__get_rel_dynamic_array"
            | "__get_sockaddr"
            | "__get_rel_sockaddr"
            | "__get_sockaddr_rel" => Expr::DynArray(Self::known(self.field_arg()?)?),
            "__get_dynamic_array_len" | "__get_rel_dynamic_array_len" => Expr::DynLen(Self::known(self.field_arg()?)?),
            "__builtin_expect" => {
                let (value, t) = self.full_arg()?;
                comma(t)?;
                let (_, t) = self.full_arg()?;
                close(t)?;
                value
            }
            "sizeof" => self.size_of()?,
            _ => {
                let Some(helper) = (self.helpers)(name) else { return Err(format!("function {name} is not defined")) };
                let mut args = Vec::new();
                for i in 0..helper.args.len() {
                    let (e, t) = self.full_arg()?;
                    args.push(e);
                    if i + 1 < helper.args.len() { comma(t)? } else { close(t)? }
                }
                if helper.args.is_empty() {
                    self.delim(b')')?;
                }
                Expr::Call { helper, args }
            }
        };
        Ok((e, self.next()?))
    }

    /// `sizeof(`: the number, known types and plain fields only.
    fn size_of(&mut self) -> Res<Expr> {
        let mut words = String::new();
        let size = loop {
            match self.next()? {
                Token::Item("REC") if words.is_empty() => {
                    let t = self.next()?;
                    if !t.is_op("->") {
                        return Err(expected("`->`", t));
                    }
                    let id = Self::known(self.field_name()?)?;
                    self.delim(b')')?;
                    break match self.event.field_by_id(id) {
                        Some(f) if !f.flags.contains(FieldFlags::ARRAY) => f.size,
                        _ => return Err("sizeof of an array".into()),
                    };
                }
                Token::Item(w) => {
                    if !words.is_empty() {
                        words.push(' ');
                    }
                    words.push_str(w);
                }
                Token::Delim(b')') => {
                    break match words.as_str() {
                        "char" | "unsigned char" | "signed char" | "u8" | "s8" | "__u8" | "__s8" => 1,
                        "short" | "unsigned short" | "u16" | "s16" | "__u16" | "__s16" => 2,
                        "int" | "unsigned" | "unsigned int" | "u32" | "s32" | "__u32" | "__s32" => 4,
                        "long" | "unsigned long" => self.long.bytes(),
                        "long long" | "unsigned long long" | "u64" | "s64" | "__u64" | "__s64" => 8,
                        _ => return Err(format!("sizeof({words}) is not known")),
                    };
                }
                t => return Err(expected("a type", t)),
            }
        };
        Ok(Expr::Atom(size.to_string()))
    }

    /// `{ value, "name" }, ... )` up to the closing parenthesis.
    fn pairs(&mut self) -> Res<Vec<Pair>> {
        let mut pairs = Vec::new();
        loop {
            match self.next()? {
                Token::Delim(b'{') => {}
                Token::Delim(b')') => break,
                t => return Err(expected("`{`", t)),
            }
            let (value, t) = self.full_arg()?;
            comma(t)?;
            let value = table_value(&value).ok_or("a value of a table is no constant")?;
            let (name, t) = self.full_arg()?;
            let mut name = name;
            // `((void *)0)` ends the tables of some events.
            while let Expr::Cast(_, inner) = name {
                name = *inner;
            }
            let name = match name {
                Expr::Atom(n) | Expr::Text(n) => n,
                e @ (Expr::Unary(..) | Expr::Binary(..)) => match const_num(&e) {
                    Some(v) => (v as i64).to_string(),
                    None => return Err("a name of a table is no text".into()),
                },
                _ => return Err("a name of a table is no text".into()),
            };
            if t != Token::Delim(b'}') {
                return Err(expected("`}`", t));
            }
            pairs.push(Pair { value, name });
            match self.next()? {
                Token::Delim(b',') => {}
                Token::Delim(b')') => break,
                t => return Err(expected("`,` or `)`", t)),
            }
        }
        Ok(pairs)
    }
}

fn comma(t: Token<'_>) -> Res<()> {
    if t == Token::Delim(b',') { Ok(()) } else { Err(expected("`,`", t)) }
}

fn close(t: Token<'_>) -> Res<()> {
    if t == Token::Delim(b')') { Ok(()) } else { Err(expected("`)`", t)) }
}

fn is_rec(e: &Expr) -> bool {
    match e {
        Expr::Atom(a) => a == "REC",
        Expr::Cast(_, e) => is_rec(e),
        _ => false,
    }
}
