//! One `field:` line of a format file.

use crate::{
    LongSize,
    format::{
        Field, FieldFlags,
        lexer::{Lexer, Token},
    },
};

/// Bytes of a C type by its name, 0 when it is not known.
///
/// The names that libtraceevent knows as element types of dynamic arrays.
pub(crate) fn type_size(name: &str, long: LongSize) -> usize {
    match name.trim() {
        "u8" | "s8" | "char" | "unsigned char" | "signed char" | "__u8" | "__s8" | "bool" | "uint8_t" | "int8_t" => 1,
        "u16" | "s16" | "short" | "unsigned short" | "__u16" | "__s16" | "uint16_t" | "int16_t" => 2,
        "u32" | "s32" | "int" | "unsigned int" | "unsigned" | "__u32" | "__s32" | "uint32_t" | "int32_t" => 4,
        "u64" | "s64" | "long long" | "unsigned long long" | "__u64" | "__s64" | "uint64_t" | "int64_t" => 8,
        "long" | "unsigned long" | "size_t" | "ssize_t" => long.bytes(),
        _ => 0,
    }
}

/// Takes `__attribute__((...))` out of a declaration.
fn without_attributes(decl: &str) -> String {
    let mut out = String::with_capacity(decl.len());
    let mut rest = decl;
    while let Some(at) = rest.find("__attribute__") {
        out.push_str(rest.get(..at).unwrap_or(""));
        let tail = rest.get(at..).unwrap_or("");
        let mut depth = 0usize;
        let mut end = tail.len();
        for (i, b) in tail.bytes().enumerate() {
            match b {
                b'(' => depth += 1,
                b')' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        end = i + 1;
                        break;
                    }
                }
                _ => {}
            }
        }
        rest = tail.get(end..).unwrap_or("").trim_start();
    }
    out.push_str(rest);
    out
}

/// A number as C writes it: decimal, `0x` hexadecimal, `0` octal; what follows it is ignored.
pub(crate) fn number(text: &str) -> Option<u64> {
    let t = text.trim();
    let (neg, t) = match t.strip_prefix('-') {
        Some(t) => (true, t),
        None => (false, t.strip_prefix('+').unwrap_or(t)),
    };
    let (radix, digits) = match t.strip_prefix("0x").or_else(|| t.strip_prefix("0X")) {
        Some(d) => (16, d),
        None if t.starts_with('0') => (8, t),
        None => (10, t),
    };
    let mut v: u64 = 0;
    let mut any = false;
    for c in digits.chars() {
        let Some(d) = c.to_digit(radix) else { break };
        v = v.checked_mul(u64::from(radix)).and_then(|v| v.checked_add(u64::from(d))).unwrap_or(u64::MAX);
        any = true;
    }
    any.then(|| if neg { v.wrapping_neg() } else { v })
}

/// Type, name and array bounds of a declaration: `char comm[16]`, `__data_loc char[] name`.
///
/// Words and `*`, of which the last is the name; then brackets, of which the last token counts, 0 when it is no number. What stood
/// before brackets that a name follows belongs to the type. Anything else (two pairs of brackets, bit fields, functions) is
/// refused as the reference does, so that both show records of such an event as unknown.
fn declaration(decl: &str) -> Result<(String, String, Option<u64>), &'static str> {
    const NAME: &str = "a field without type or name";
    let mut lex = Lexer::new(decl);
    let mut words: Vec<&str> = Vec::new();
    let mut t = lex.next()?;
    while let Token::Item(word) | Token::Op(word @ "*") = t {
        words.push(word);
        t = lex.next()?;
    }
    if words.first() == Some(&"*") {
        return Err(NAME);
    }
    let name = words.pop().filter(|_| !words.is_empty()).ok_or(NAME)?;
    if t == Token::End {
        return Ok((type_text(&words), name.to_owned(), None));
    }
    if !t.is_op("[") {
        return Err("a declaration that is not understood");
    }
    let mut bound = 0;
    loop {
        match lex.next()? {
            Token::Op("]") => break,
            Token::End => return Err("a bracket that is not closed"),
            Token::Item(n) => bound = number(n).unwrap_or(0),
            _ => bound = 0,
        }
    }
    match lex.next()? {
        Token::End => Ok((type_text(&words), name.to_owned(), Some(bound))),
        Token::Item(real) if lex.next()? == Token::End => {
            words.push(name);
            let brackets = if bound == 0 { "[]".to_owned() } else { format!("[{bound}]") };
            Ok((type_text(&words) + &brackets, real.to_owned(), Some(bound)))
        }
        _ => Err("an array of arrays"),
    }
}

/// Words of a type as one text: `unsigned long`, `struct file *`.
fn type_text(words: &[&str]) -> String {
    let mut text = String::new();
    for w in words {
        // `**` stays together.
        if !(text.is_empty() || *w == "*" && text.ends_with('*')) {
            text.push(' ');
        }
        text.push_str(w);
    }
    text
}

/// Parses what stands behind `field:` in a line: `char comm[16];\toffset:8;\tsize:16;\tsigned:0;`.
pub(crate) fn parse(line: &str, long: LongSize) -> Result<Field, &'static str> {
    let mut parts = line.split(';');
    let decl = without_attributes(parts.next().unwrap_or(""));
    let decl = decl.trim();
    let (mut offset, mut size, mut signed) = (None, None, None);
    for part in parts {
        match part.trim().split_once(':') {
            Some(("offset", v)) => offset = number(v),
            Some(("size", v)) => size = number(v),
            Some(("signed", v)) => signed = number(v),
            _ => {}
        }
    }
    let offset = offset.ok_or("a field without offset")?;
    let size = size.ok_or("a field without size")?;
    let offset = usize::try_from(offset).ok().filter(|v| *v <= 1 << 20).ok_or("a field's offset is too large")?;
    let size = usize::try_from(size).ok().filter(|v| *v <= 1 << 20).ok_or("a field's size is too large")?;

    let (mut type_text, name, bounds) = declaration(decl)?;
    let mut flags = FieldFlags::empty();
    if signed.unwrap_or(0) != 0 {
        flags |= FieldFlags::SIGNED;
    }
    if decl.contains('*') {
        flags |= FieldFlags::POINTER;
    }
    if type_text.starts_with("__data_loc") {
        flags |= FieldFlags::DYNAMIC;
    } else if type_text.starts_with("__rel_loc") {
        flags |= FieldFlags::DYNAMIC | FieldFlags::RELATIVE;
    }
    if bounds.is_some() {
        flags |= FieldFlags::ARRAY;
    }
    let base =
        type_text.strip_prefix("__data_loc").or_else(|| type_text.strip_prefix("__rel_loc")).unwrap_or(&type_text);
    let base = base.split('[').next().unwrap_or("").trim();
    if flags.contains(FieldFlags::ARRAY) && (base.contains("char") || base.contains("u8") || base.contains("s8")) {
        flags |= FieldFlags::STRING;
    }
    // Also inside a word: `ulong`.
    if base.contains("long") {
        flags |= FieldFlags::LONG;
    }
    let array_len = usize::try_from(bounds.unwrap_or(0)).unwrap_or(0);
    let element_size = if !flags.contains(FieldFlags::ARRAY) {
        size
    } else if let Some(each) = size.checked_div(array_len) {
        each
    } else if flags.contains(FieldFlags::DYNAMIC) {
        type_size(base, long)
    } else if flags.contains(FieldFlags::STRING) {
        1
    } else if flags.contains(FieldFlags::LONG) {
        long.bytes()
    } else {
        0
    };
    if flags.contains(FieldFlags::DYNAMIC | FieldFlags::ARRAY) && !type_text.ends_with(']') {
        type_text.push_str("[]");
    }
    Ok(Field { type_text, name, offset, size, array_len, element_size, flags })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(line: &str) -> Field {
        parse(line, LongSize::Eight).unwrap()
    }

    #[test]
    fn kinds_of_fields() {
        let f = field("unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;");
        assert_eq!((f.type_text.as_str(), f.name.as_str(), f.offset, f.size), ("unsigned short", "common_type", 0, 2));
        assert_eq!(f.flags, FieldFlags::empty());
        let f = field("char comm[16];\toffset:8;\tsize:16;\tsigned:1;");
        assert_eq!((f.array_len, f.element_size), (16, 1));
        assert_eq!(f.flags, FieldFlags::ARRAY | FieldFlags::STRING | FieldFlags::SIGNED);
        let f = field("__data_loc char[] filename;\toffset:8;\tsize:4;\tsigned:0;");
        assert_eq!((f.name.as_str(), f.type_text.as_str()), ("filename", "__data_loc char[]"));
        assert_eq!(f.flags, FieldFlags::ARRAY | FieldFlags::STRING | FieldFlags::DYNAMIC);
        let f = field("__rel_loc unsigned long[] m;\toffset:8;\tsize:4;\tsigned:0;");
        assert_eq!(f.flags, FieldFlags::ARRAY | FieldFlags::DYNAMIC | FieldFlags::RELATIVE | FieldFlags::LONG);
        assert_eq!(f.element_size, 8);
        let f = field("const char __attribute__((user)) * buf;\toffset:24;\tsize:8;\tsigned:0;");
        assert_eq!((f.name.as_str(), f.type_text.as_str()), ("buf", "const char *"));
        assert_eq!(f.flags, FieldFlags::POINTER);
        let f = field("char buf[];\toffset:16;\tsize:0;\tsigned:1;");
        assert_eq!((f.size, f.array_len, f.element_size), (0, 0, 1));
        assert!(parse("int x;\tsize:4;", LongSize::Eight).is_err());
        assert!(parse(";", LongSize::Eight).is_err());
    }

    #[test]
    fn numbers_as_c_writes_them() {
        assert_eq!(number("0x1fUL"), Some(31));
        assert_eq!(number("010"), Some(8));
        assert_eq!(number("08"), Some(0));
        assert_eq!(number("-5"), Some(5u64.wrapping_neg()));
        assert_eq!(number("99999999999999999999999"), Some(u64::MAX));
        assert_eq!(number("x"), None);
    }
}
