//! One `field:` line of a format file.

use crate::{
    LongSize,
    format::{Field, FieldFlags},
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

    let mut flags = FieldFlags::empty();
    if signed.unwrap_or(0) != 0 {
        flags |= FieldFlags::SIGNED;
    }
    if decl.contains('*') {
        flags |= FieldFlags::POINTER;
    }
    // The name is the last word; brackets behind it are its array bounds, brackets before it belong to the type.
    let (head, mut bounds) = match decl.strip_suffix(']') {
        Some(d) => match d.rfind('[') {
            Some(at) => (d.get(..at).unwrap_or(""), Some(d.get(at + 1..).unwrap_or(""))),
            None => (decl, None),
        },
        None => (decl, None),
    };
    let head = head.trim_end();
    let start = head.rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).map_or(0, |at| at + 1);
    let name = head.get(start..).unwrap_or("");
    if name.is_empty() {
        return Err("a field without name");
    }
    let mut type_text = head.get(..start).unwrap_or("").trim_end().to_owned();
    if type_text.starts_with("__data_loc") {
        flags |= FieldFlags::DYNAMIC;
    } else if type_text.starts_with("__rel_loc") {
        flags |= FieldFlags::DYNAMIC | FieldFlags::RELATIVE;
    }
    if type_text.contains('[') {
        flags |= FieldFlags::ARRAY;
    }
    if bounds.is_some() {
        flags |= FieldFlags::ARRAY;
        if flags.contains(FieldFlags::DYNAMIC) {
            type_text.push_str("[]");
            bounds = None;
        }
    }
    let base =
        type_text.strip_prefix("__data_loc").or_else(|| type_text.strip_prefix("__rel_loc")).unwrap_or(&type_text);
    let base = base.split('[').next().unwrap_or("").trim();
    if flags.contains(FieldFlags::ARRAY) && (base.contains("char") || base.contains("u8") || base.contains("s8")) {
        flags |= FieldFlags::STRING;
    }
    if base.split_ascii_whitespace().any(|w| w == "long") {
        flags |= FieldFlags::LONG;
    }
    let mut array_len = 0;
    let element_size = if flags.contains(FieldFlags::DYNAMIC) {
        type_size(base, long)
    } else if flags.contains(FieldFlags::ARRAY) {
        array_len = bounds.and_then(number).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        if let Some(each) = size.checked_div(array_len) { each } else { type_size(base, long) }
    } else {
        size
    };
    Ok(Field { type_text, name: name.to_owned(), offset, size, array_len, element_size, flags })
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
