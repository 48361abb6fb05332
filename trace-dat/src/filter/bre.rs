//! POSIX basic regular expressions, as the reference's filters use them, in the words of the regex crate.

/// Translates a basic regular expression; GNU's `\+`, `\?`, `\|`, `\w`, `\<` and their like are known.
///
/// # Errors
/// Byte offset and reason for what has no counterpart (back references, unfinished brackets).
pub fn translate(pattern: &str) -> Result<String, (usize, &'static str)> {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut chars = pattern.char_indices().peekable();
    // True where a `*` stands for itself and a `^` is an anchor: at the start of the expression or of a group or branch.
    let mut start = true;
    while let Some((at, c)) = chars.next() {
        let mut now_start = false;
        match c {
            '\\' => match chars.next().map(|c| c.1) {
                None => return Err((at, "ends with a backslash")),
                Some('(') => {
                    out.push_str("(?:");
                    now_start = true;
                }
                Some(')') => out.push(')'),
                Some('|') => {
                    out.push('|');
                    now_start = true;
                }
                Some('{') => {
                    out.push('{');
                    loop {
                        match chars.next().map(|c| c.1) {
                            Some('\\') if chars.peek().is_some_and(|c| c.1 == '}') => {
                                chars.next();
                                out.push('}');
                                break;
                            }
                            Some(c @ ('0'..='9' | ',')) => out.push(c),
                            _ => return Err((at, "has an unfinished \\{")),
                        }
                    }
                }
                Some(c @ ('+' | '?')) if !start => out.push(c),
                Some(c @ ('w' | 'W' | 's' | 'S' | 'b' | 'B')) => {
                    out.push('\\');
                    out.push(c);
                }
                Some('<') => out.push_str(r"\b{start}"),
                Some('>') => out.push_str(r"\b{end}"),
                Some('`') => out.push_str(r"\A"),
                Some('\'') => out.push_str(r"\z"),
                Some('1'..='9') => return Err((at, "has a back reference, which is not supported")),
                Some(c) => push_literal(&mut out, c),
            },
            '[' => bracket(&mut out, &mut chars).ok_or((at, "has an unfinished ["))?,
            '*' if start => out.push_str(r"\*"),
            '*' | '.' => out.push(c),
            '^' if start => {
                out.push('^');
                now_start = true;
            }
            '$' if ends_here(pattern.get(at + 1..).unwrap_or_default()) => out.push('$'),
            c => push_literal(&mut out, c),
        }
        start = now_start;
    }
    Ok(out)
}

fn ends_here(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with("\\)") || rest.starts_with("\\|")
}

fn push_literal(out: &mut String, c: char) {
    if c.is_ascii_punctuation() {
        out.push('\\');
    }
    out.push(c);
}

/// Copies a bracket expression whose `[` has been read.
fn bracket(out: &mut String, chars: &mut std::iter::Peekable<std::str::CharIndices<'_>>) -> Option<()> {
    out.push('[');
    if chars.next_if(|c| c.1 == '^').is_some() {
        out.push('^');
    }
    let mut first = true;
    loop {
        let (_, c) = chars.next()?;
        match c {
            ']' if !first => break,
            '[' if chars.peek().is_some_and(|c| matches!(c.1, ':' | '.' | '=')) => {
                let (_, kind) = chars.next()?;
                let mut name = String::new();
                loop {
                    let (_, c) = chars.next()?;
                    if c == kind && chars.next_if(|c| c.1 == ']').is_some() {
                        break;
                    }
                    name.push(c);
                }
                if kind == ':' {
                    out.push_str("[:");
                    out.push_str(&name);
                    out.push_str(":]");
                } else {
                    name.chars().for_each(|c| push_literal(out, c));
                }
            }
            '-' => {
                // A range, unless it is the first or the last.
                if first || chars.peek().is_some_and(|c| c.1 == ']') {
                    out.push('\\');
                }
                out.push('-');
            }
            c => push_literal(out, c),
        }
        first = false;
    }
    out.push(']');
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        regex::Regex::new(&translate(pattern).unwrap()).unwrap().is_match(text)
    }

    #[test]
    fn basic_expressions() {
        for (pattern, yes, no) in [
            ("a.*", "abc", "xyz"),
            ("^a", "ab", "ba"),
            (r"h\(e\)l*o", "hello", "hllo"),
            (r"x\+", "xx", "y"),
            ("a|h", "a|h", "a"),
            (r"a\|h", "h", "x"),
            ("*", "*", "a"),
            (r"\(*a\)", "*a", "a"),
            (r"[a-c]\{2\}", "ab", "ad"),
            ("[[:alpha:]]o", "lo", "1o"),
            (r"o\?r$", "or", "oro"),
            ("(x", "(x", "x"),
            ("a+", "a+", "aa"),
            (r"[]a]", "]", "b"),
            (r"[\w]", "\\", "x"),
            ("[a&&b]", "&", "c"),
            ("a$b", "a$b", "ab"),
            ("a^b", "a^b", "ab"),
            (r"\.", ".", "a"),
            ("[a-]", "-", "b"),
        ] {
            assert!(matches(pattern, yes), "{pattern} {yes}");
            assert!(!matches(pattern, no), "{pattern} {no}");
        }
        for bad in ["[", "a[b", "\\", r"\(a\)\1", r"a\{2", "[[:alpha:"] {
            assert!(translate(bad).is_err(), "{bad}");
        }
    }
}
