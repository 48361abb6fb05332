//! Tokens of a print fmt: the C that the kernel's `TP_printk` leaves in a format file.

/// A token with the bytes it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// Letters, digits and underscores: a name or a number.
    Item(&'a str),
    /// An operator, `->`, brackets, or any other character.
    Op(&'a str),
    /// One of `( ) { } , ;`.
    Delim(u8),
    /// Text between double quotes, escapes as written.
    Text(&'a str),
    /// Text between single quotes, escapes as written.
    Char(&'a str),
    /// Nothing more.
    End,
}

impl Token<'_> {
    pub(crate) fn is_op(self, op: &str) -> bool {
        matches!(self, Token::Op(o) if o == op)
    }
}

/// Walks over a print fmt.
#[derive(Clone, Debug)]
pub(crate) struct Lexer<'a> {
    text: &'a str,
    pos: usize,
}

const OPS: [&str; 11] = ["->", "<<", ">>", "<=", ">=", "==", "!=", "&&", "||", "++", "--"];

impl<'a> Lexer<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Lexer { text, pos: 0 }
    }

    /// Byte offset of the next token's first possible byte.
    pub(crate) fn pos(&self) -> usize {
        self.pos
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.text.as_bytes().get(at).copied()
    }

    fn slice(&self, from: usize, to: usize) -> &'a str {
        self.text.get(from..to).unwrap_or("")
    }

    /// The next token; `Err` at a quote that is not closed.
    pub(crate) fn next(&mut self) -> Result<Token<'a>, &'static str> {
        while self.byte(self.pos).is_some_and(|b| b.is_ascii_whitespace()) {
            self.pos += 1;
        }
        let start = self.pos;
        let Some(b) = self.byte(start) else { return Ok(Token::End) };
        match b {
            b'(' | b')' | b'{' | b'}' | b',' | b';' => {
                self.pos += 1;
                Ok(Token::Delim(b))
            }
            b'"' | b'\'' => {
                let mut at = start + 1;
                loop {
                    match self.byte(at) {
                        None => return Err("a quote is not closed"),
                        Some(b'\\') => at += 2,
                        Some(c) if c == b => break,
                        Some(_) => at += 1,
                    }
                }
                self.pos = at + 1;
                let text = self.slice(start + 1, at);
                Ok(if b == b'"' { Token::Text(text) } else { Token::Char(text) })
            }
            _ if b.is_ascii_alphanumeric() || b == b'_' => {
                let mut at = start + 1;
                while self.byte(at).is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_') {
                    at += 1;
                }
                self.pos = at;
                Ok(Token::Item(self.slice(start, at)))
            }
            _ => {
                let rest = self.slice(start, self.text.len());
                let len = match OPS.iter().find(|op| rest.starts_with(**op)) {
                    Some(_) => 2,
                    None => rest.chars().next().map_or(1, char::len_utf8),
                };
                self.pos += len;
                Ok(Token::Op(self.slice(start, start + len)))
            }
        }
    }

    /// The next token without taking it.
    pub(crate) fn peek(&self) -> Result<Token<'a>, &'static str> {
        self.clone().next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_every_kind() {
        let mut l = Lexer::new(r#""a\"b" , REC->x<<2 'c' {"#);
        let mut all = Vec::new();
        loop {
            let t = l.next().unwrap();
            all.push(t);
            if t == Token::End {
                break;
            }
        }
        use Token::*;
        assert_eq!(
            all,
            [
                Text(r#"a\"b"#),
                Delim(b','),
                Item("REC"),
                Op("->"),
                Item("x"),
                Op("<<"),
                Item("2"),
                Char("c"),
                Delim(b'{'),
                End
            ]
        );
        assert!(Lexer::new("\"open").next().is_err());
        assert!(Lexer::new("\"open\\").next().is_err());
    }
}
