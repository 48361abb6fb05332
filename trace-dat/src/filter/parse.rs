//! The text of a filter: a list of events, then an expression.
//!
//! `&&` and `||` bind equally and from the left, as in the reference; `!` takes the comparison behind it. Arithmetic
//! binds tighter than comparisons.

use crate::{Error, Result};

/// Nesting of brackets and `!` that is followed.
const MAX_DEPTH: usize = 128;
/// Pieces of an expression.
const MAX_NODES: usize = 2048;

/// One item of the event list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// As written.
    pub(super) text: String,
    /// Where it stands in the filter.
    pub(super) at: usize,
    /// The part before a slash, empty for any system; `None` without a slash: the name is that of an event or of a system.
    pub(super) system: Option<String>,
    pub(super) event: String,
}

/// Operators on numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arith {
    Mul,
    Div,
    Rem,
    Add,
    Sub,
    Shl,
    Shr,
    And,
    Xor,
    Or,
}

impl Arith {
    /// A zero divisor gives 0; a shift uses the low six bits of its count.
    #[inline]
    pub(super) fn apply(self, a: u64, b: u64) -> u64 {
        match self {
            Arith::Mul => a.wrapping_mul(b),
            Arith::Div => a.checked_div(b).unwrap_or(0),
            Arith::Rem => a.checked_rem(b).unwrap_or(0),
            Arith::Add => a.wrapping_add(b),
            Arith::Sub => a.wrapping_sub(b),
            Arith::Shl => a.wrapping_shl(b as u32),
            Arith::Shr => a.wrapping_shr(b as u32),
            Arith::And => a & b,
            Arith::Xor => a ^ b,
            Arith::Or => a | b,
        }
    }

    pub(super) fn symbol(self) -> &'static str {
        match self {
            Arith::Mul => "*",
            Arith::Div => "/",
            Arith::Rem => "%",
            Arith::Add => "+",
            Arith::Sub => "-",
            Arith::Shl => "<<",
            Arith::Shr => ">>",
            Arith::And => "&",
            Arith::Xor => "^",
            Arith::Or => "|",
        }
    }
}

/// Comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cmp {
    Eq,
    Ne,
    Lt,
    Gt,
    Le,
    Ge,
    Match,
    NotMatch,
}

impl Cmp {
    #[inline]
    pub(super) fn apply(self, a: u64, b: u64) -> bool {
        match self {
            Cmp::Eq => a == b,
            Cmp::Ne => a != b,
            Cmp::Lt => a < b,
            Cmp::Gt => a > b,
            Cmp::Le => a <= b,
            Cmp::Ge => a >= b,
            Cmp::Match | Cmp::NotMatch => false,
        }
    }

    pub(super) fn symbol(self) -> &'static str {
        match self {
            Cmp::Eq => "==",
            Cmp::Ne => "!=",
            Cmp::Lt => "<",
            Cmp::Gt => ">",
            Cmp::Le => "<=",
            Cmp::Ge => ">=",
            Cmp::Match => "=~",
            Cmp::NotMatch => "!~",
        }
    }

    /// The comparison with its sides exchanged.
    fn turned(self) -> Cmp {
        match self {
            Cmp::Lt => Cmp::Gt,
            Cmp::Gt => Cmp::Lt,
            Cmp::Le => Cmp::Ge,
            Cmp::Ge => Cmp::Le,
            other => other,
        }
    }
}

/// A number or a field.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Num(u64),
    Field(String),
    Arith(Arith, Box<Value>, Box<Value>),
    Not(Box<Value>),
}

/// True or false.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expr {
    True,
    Not(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    /// Not zero.
    Truth(Value),
    Cmp(Cmp, Value, Value),
    /// A field, the operator, the text.
    Text(String, Cmp, String),
}

impl Expr {
    /// Looks for words that cannot be meant as fields: on the right of a comparison they are mostly text without quotes.
    pub(super) fn check_names(&self, is_field: &dyn Fn(&str) -> bool) -> Result<(), String> {
        match self {
            Expr::True | Expr::Truth(_) | Expr::Text(..) => Ok(()),
            Expr::Not(e) => e.check_names(is_field),
            Expr::And(a, b) | Expr::Or(a, b) => a.check_names(is_field).and_then(|()| b.check_names(is_field)),
            Expr::Cmp(_, left, right) => match (left, right) {
                (Value::Field(name), _) if name == "COMM" && !is_field(name) => {
                    Err("COMM can only be compared with text in quotes".to_owned())
                }
                (_, Value::Field(name)) if name != "CPU" && !is_field(name) => {
                    Err(format!("{name:?} is no field; text needs quotes"))
                }
                _ => Ok(()),
            },
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Num(u64),
    Name(String),
    Text(String),
    /// One character in single quotes: a number, or a text beside a string field.
    Char(char),
    Op(&'static str),
    End,
}

/// What an operand may be before its operator is known.
#[derive(Clone, Debug)]
enum Node {
    Bool(Expr),
    Value(Value),
    Text(String),
    Char(char),
}

const OPS: [&str; 22] = [
    "&&", "||", "==", "!=", "<=", ">=", "=~", "!~", "<<", ">>", "<", ">", "!", "(", ")", "+", "-", "*", "/", "%", "&",
    "|",
];

struct Parser<'a> {
    text: &'a str,
    pos: usize,
    token: Token,
    /// Where `token` begins.
    at: usize,
    nodes: usize,
}

/// Splits a filter into its event list and its expression.
pub(super) fn parse(text: &str) -> Result<(Vec<Item>, Expr)> {
    let colon = text.find(':');
    let items = parse_items(text, colon.unwrap_or(text.len()))?;
    let Some(colon) = colon else { return Ok((items, Expr::True)) };
    let mut p = Parser { text, pos: colon + 1, token: Token::End, at: colon + 1, nodes: 0 };
    p.advance()?;
    if p.token == Token::End {
        return Err(p.fail("an expression must follow the colon"));
    }
    let node = p.expression(0, 0)?;
    let expr = p.boolean(node)?;
    match &p.token {
        Token::End => Ok((items, expr)),
        Token::Op(")") => Err(p.fail("this bracket was never opened")),
        _ => Err(p.fail("an operator was expected")),
    }
}

fn parse_items(text: &str, end: usize) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    let mut at = 0;
    for part in text.get(..end).unwrap_or_default().split(',') {
        let lead = part.len() - part.trim_start().len();
        let item = part.trim();
        if item.is_empty() {
            let why = "the name of an event was expected".to_owned();
            return Err(Error::Filter { filter: text.to_owned(), at, why });
        }
        let (system, event) = match item.split_once('/') {
            Some((s, e)) => (Some(s.trim().to_owned()), e.trim().to_owned()),
            None => (None, item.to_owned()),
        };
        items.push(Item { text: item.to_owned(), at: at + lead, system, event });
        at += part.len() + 1;
    }
    Ok(items)
}

impl<'a> Parser<'a> {
    fn fail(&self, why: impl Into<String>) -> Error {
        Error::Filter { filter: self.text.to_owned(), at: self.at, why: why.into() }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.pos..).unwrap_or_default()
    }

    fn advance(&mut self) -> Result<()> {
        let rest = self.rest().trim_start();
        self.at = self.text.len() - rest.len();
        let Some(c) = rest.chars().next() else {
            self.pos = self.text.len();
            self.token = Token::End;
            return Ok(());
        };
        let (token, len) = if c.is_ascii_digit() {
            let len = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
            let Some(n) = number(rest.get(..len).unwrap_or_default()) else {
                return Err(self.fail("this is not a number"));
            };
            (Token::Num(n), len)
        } else if c.is_alphabetic() || c == '_' {
            let len =
                rest.char_indices().find(|(_, c)| !(c.is_alphanumeric() || *c == '_')).map_or(rest.len(), |c| c.0);
            (Token::Name(rest.get(..len).unwrap_or_default().to_owned()), len)
        } else if c == '"' || c == '\'' {
            let mut end = None;
            let mut escaped = false;
            for (i, b) in rest.char_indices().skip(1) {
                match b {
                    _ if escaped => escaped = false,
                    '\\' => escaped = true,
                    b if b == c => {
                        end = Some(i);
                        break;
                    }
                    _ => {}
                }
            }
            let Some(end) = end else { return Err(self.fail("the quote is never closed")) };
            let inner = rest.get(1..end).unwrap_or_default();
            let mut chars = inner.chars();
            let token = match (c, chars.next(), chars.next()) {
                ('\'', Some(one), None) => Token::Char(one),
                _ => Token::Text(inner.to_owned()),
            };
            (token, end + 1)
        } else if let Some(op) = OPS.iter().find(|op| rest.starts_with(**op)) {
            (Token::Op(op), op.len())
        } else if c == '^' {
            (Token::Op("^"), 1)
        } else if c == '~' {
            (Token::Op("~"), 1)
        } else {
            return Err(self.fail(format!("{c:?} means nothing here")));
        };
        self.pos = self.at + len;
        self.token = token;
        Ok(())
    }

    /// Expressions whose operators bind at least as tightly as `min`.
    fn expression(&mut self, min: u8, depth: usize) -> Result<Node> {
        if depth > MAX_DEPTH {
            return Err(self.fail("nested too deeply"));
        }
        let mut left = self.operand(depth)?;
        loop {
            let Token::Op(op) = self.token else { return Ok(left) };
            let Some(binds) = binding(op).filter(|b| *b >= min) else { return Ok(left) };
            self.nodes += 1;
            if self.nodes > MAX_NODES {
                return Err(self.fail("the expression is too long"));
            }
            let at = self.at;
            self.advance()?;
            let right = self.expression(binds + 1, depth + 1)?;
            left = self.join(op, at, left, right)?;
        }
    }

    fn operand(&mut self, depth: usize) -> Result<Node> {
        let token = self.token.clone();
        let node = match token {
            Token::Num(n) => Node::Value(Value::Num(n)),
            Token::Name(name) => Node::Value(Value::Field(name)),
            Token::Text(text) => Node::Text(text),
            Token::Char(c) => Node::Char(c),
            Token::End => return Err(self.fail("the filter ends where a field or a number was expected")),
            Token::Op("(") => {
                let open = self.at;
                self.advance()?;
                let node = self.expression(0, depth + 1)?;
                if self.token != Token::Op(")") {
                    self.at = open;
                    return Err(self.fail("this bracket is never closed"));
                }
                node
            }
            Token::Op("!") => {
                self.advance()?;
                let node = self.expression(COMPARISON, depth + 1)?;
                return Ok(Node::Bool(Expr::Not(Box::new(self.boolean(node)?))));
            }
            Token::Op(op @ ("-" | "~" | "+")) => {
                self.advance()?;
                let operand = self.expression(u8::MAX, depth + 1)?;
                let value = Box::new(self.value(operand)?);
                return Ok(Node::Value(match (op, &*value) {
                    ("+", _) => *value,
                    ("-", Value::Num(n)) => Value::Num(n.wrapping_neg()),
                    ("-", _) => Value::Arith(Arith::Sub, Box::new(Value::Num(0)), value),
                    _ => Value::Not(value),
                }));
            }
            Token::Op(op) => return Err(self.fail(format!("a field or a number was expected, not {op:?}"))),
        };
        self.advance()?;
        Ok(node)
    }

    fn boolean(&self, node: Node) -> Result<Expr> {
        match node {
            Node::Bool(e) => Ok(e),
            Node::Value(v @ (Value::Arith(..) | Value::Not(_))) => Ok(Expr::Truth(v)),
            Node::Value(Value::Field(name)) => Err(self.fail(format!("{name} must be compared with something"))),
            Node::Value(Value::Num(_)) | Node::Text(_) | Node::Char(_) => {
                Err(self.fail("a number or text must be compared with something"))
            }
        }
    }

    fn value(&self, node: Node) -> Result<Value> {
        match node {
            Node::Value(v) => Ok(v),
            Node::Char(c) => Ok(Value::Num(u64::from(c))),
            Node::Text(_) => Err(self.fail("text can only be compared with a field")),
            Node::Bool(_) => Err(self.fail("a comparison cannot be used as a number")),
        }
    }

    fn join(&mut self, op: &str, at: usize, left: Node, right: Node) -> Result<Node> {
        let found = std::mem::replace(&mut self.at, at);
        let joined = self.joined(op, left, right)?;
        self.at = found;
        Ok(joined)
    }

    fn joined(&self, op: &str, left: Node, right: Node) -> Result<Node> {
        let two = |f: fn(Box<Expr>, Box<Expr>) -> Expr, l, r| Ok(Node::Bool(f(Box::new(l), Box::new(r))));
        match op {
            "&&" => return two(Expr::And, self.boolean(left)?, self.boolean(right)?),
            "||" => return two(Expr::Or, self.boolean(left)?, self.boolean(right)?),
            _ => {}
        }
        if let Some(op) = arith(op) {
            let (l, r) = (self.value(left)?, self.value(right)?);
            return Ok(Node::Value(match (&l, &r) {
                (Value::Num(a), Value::Num(b)) => Value::Num(op.apply(*a, *b)),
                _ => Value::Arith(op, Box::new(l), Box::new(r)),
            }));
        }
        let Some(op) = comparison(op) else { return Err(self.fail("an operator was expected")) };
        let expr = match (left, right) {
            (Node::Value(Value::Field(f)), Node::Text(t)) => Expr::Text(f, op, t),
            (Node::Text(t), Node::Value(Value::Field(f))) => Expr::Text(f, op, t),
            (Node::Value(Value::Field(f)), Node::Char(c)) if matches!(op, Cmp::Match | Cmp::NotMatch) => {
                Expr::Text(f, op, c.to_string())
            }
            (l, r) => {
                let (l, r) = (self.value(l)?, self.value(r)?);
                match (&l, &r) {
                    (Value::Num(_), Value::Num(_)) => return Err(self.fail("a field is needed on one side")),
                    (Value::Num(_), _) => Expr::Cmp(op.turned(), r, l),
                    _ => Expr::Cmp(op, l, r),
                }
            }
        };
        match &expr {
            Expr::Text(_, op, _) if !matches!(op, Cmp::Eq | Cmp::Ne | Cmp::Match | Cmp::NotMatch) => {
                Err(self.fail("text can be compared by ==, !=, =~ and !~ only"))
            }
            Expr::Cmp(Cmp::Match | Cmp::NotMatch, ..) => {
                Err(self.fail("a regular expression in quotes must stand behind this"))
            }
            _ => Ok(Node::Bool(expr)),
        }
    }
}

/// Level of the comparisons.
const COMPARISON: u8 = 1;

/// How tightly a binary operator binds.
fn binding(op: &str) -> Option<u8> {
    Some(match op {
        "&&" | "||" => 0,
        "==" | "!=" | "<" | ">" | "<=" | ">=" | "=~" | "!~" => COMPARISON,
        "|" => 2,
        "^" => 3,
        "&" => 4,
        "<<" | ">>" => 5,
        "+" | "-" => 6,
        "*" | "/" | "%" => 7,
        _ => return None,
    })
}

fn arith(op: &str) -> Option<Arith> {
    Some(match op {
        "*" => Arith::Mul,
        "/" => Arith::Div,
        "%" => Arith::Rem,
        "+" => Arith::Add,
        "-" => Arith::Sub,
        "<<" => Arith::Shl,
        ">>" => Arith::Shr,
        "&" => Arith::And,
        "^" => Arith::Xor,
        "|" => Arith::Or,
        _ => return None,
    })
}

fn comparison(op: &str) -> Option<Cmp> {
    Some(match op {
        "==" => Cmp::Eq,
        "!=" => Cmp::Ne,
        "<" => Cmp::Lt,
        ">" => Cmp::Gt,
        "<=" => Cmp::Le,
        ">=" => Cmp::Ge,
        "=~" => Cmp::Match,
        "!~" => Cmp::NotMatch,
        _ => return None,
    })
}

/// Decimal, hex behind `0x`, octal behind `0`. Too large numbers become the largest.
fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None if text.len() > 1 && text.starts_with('0') => (text.get(1..)?, 8),
        None => (text, 10),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    Some(u64::from_str_radix(digits, radix).unwrap_or(u64::MAX))
}
