//! POSIX basic regular expressions, which the options of `report` take.

use regex::{Regex, RegexBuilder};

/// Compiles a basic regular expression; case does not matter and it may match anywhere.
///
/// In a basic expression `+ ? | ( ) { }` are plain characters and get their meaning by a backslash.
///
/// # Errors
/// When it is none.
pub fn basic(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&translate(text)).case_insensitive(true).build()
}

fn translate(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('+' | '?' | '|' | '(' | ')' | '{' | '}')) => out.push(c),
                Some(c) => {
                    out.push('\\');
                    out.push(c);
                }
                None => out.push_str("\\\\"),
            },
            '+' | '?' | '|' | '(' | ')' | '{' | '}' => {
                out.push('\\');
                out.push(c);
            }
            // At the start there is nothing to repeat: it stands for itself.
            '*' if out.is_empty() || out == "^" => out.push_str("\\*"),
            '[' => {
                out.push('[');
                if chars.peek() == Some(&'^') {
                    out.extend(chars.next());
                }
                // A bracket that comes first is a member of the set.
                if chars.peek() == Some(&']') {
                    out.push('\\');
                    out.extend(chars.next());
                }
                while let Some(c) = chars.next() {
                    if c == ']' {
                        out.push(c);
                        break;
                    }
                    if c == '[' && chars.peek() == Some(&':') {
                        out.push(c);
                        for c in chars.by_ref() {
                            out.push(c);
                            if c == ']' {
                                break;
                            }
                        }
                    } else if matches!(c, '[' | '\\' | '&' | '~') {
                        out.push('\\');
                        out.push(c);
                    } else {
                        out.push(c);
                    }
                }
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_is_not_extended() {
        for (re, yes, no) in [
            ("sched_\\(switch\\|waking\\)", "sched_waking", "sched_wakeup"),
            ("a+b", "xa+b", "aab"),
            ("^sched_sw", "SCHED_SWitch", "x_sched_sw"),
            ("a[]x]b", "a]b", "ayb"),
            ("a[[:digit:]]b", "a5b", "axb"),
            ("a[^]]b", "axb", "a]b"),
            ("*a", "*a", "a"),
            ("a\\{2\\}$", "xaa", "xa"),
            ("a.c", "abc", "ac"),
        ] {
            let r = basic(re).unwrap();
            assert!(r.is_match(yes) && !r.is_match(no), "{re}");
        }
        assert!(basic("\\(").is_err());
    }
}
