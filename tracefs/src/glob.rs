//! Shell globs, as glob(3) and the kernel's own filters read them: `*`, `?`, `[a-z]`, `[!a-z]`, `\`.

/// True when `text` as a whole matches `pattern`.
///
/// Takes time proportional to `pattern × text` at most, whatever the pattern.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (p, t) = (pattern.as_bytes(), text.as_bytes());
    let (mut i, mut j) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        if p.get(i) == Some(&b'*') {
            star = Some((i + 1, j));
            i += 1;
            continue;
        }
        let next = match (p.get(i), t.get(j)) {
            (None, None) => return true,
            (Some(_), Some(&c)) => one(p, i, c),
            _ => None,
        };
        match (next, star) {
            (Some(n), _) => {
                i = n;
                j += 1;
            }
            (None, Some((si, sj))) if sj < t.len() => {
                i = si;
                j = sj + 1;
                star = Some((si, j));
            }
            _ => return false,
        }
    }
}

/// Matches one pattern element at `i` with a byte; gives where the next element begins.
fn one(p: &[u8], i: usize, c: u8) -> Option<usize> {
    match (*p.get(i)?, p.get(i + 1)) {
        (b'?', _) => Some(i + 1),
        (b'\\', Some(next)) => (*next == c).then_some(i + 2),
        (b'[', _) => match class(p, i, c) {
            Some((end, hit)) => hit.then_some(end),
            None => (c == b'[').then_some(i + 1),
        },
        (x, _) => (x == c).then_some(i + 1),
    }
}

/// A bracket expression: where it ends and whether the byte is in it; `None` when it has no end.
fn class(p: &[u8], start: usize, c: u8) -> Option<(usize, bool)> {
    let mut i = start + 1;
    let negate = matches!(p.get(i), Some(b'!' | b'^'));
    if negate {
        i += 1;
    }
    let (mut hit, mut first) = (false, true);
    loop {
        let mut low = *p.get(i)?;
        if low == b']' && !first {
            return Some((i + 1, hit != negate));
        }
        first = false;
        if low == b'\\' {
            i += 1;
            low = *p.get(i)?;
        }
        let mut high = low;
        if p.get(i + 1) == Some(&b'-') && p.get(i + 2).is_some_and(|&h| h != b']') {
            i += 2;
            high = *p.get(i)?;
            if high == b'\\' {
                i += 1;
                high = *p.get(i)?;
            }
        }
        hit |= (low..=high).contains(&c);
        i += 1;
    }
}

/// True when the text has a character that means something in a glob.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '\\'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (p, t, want) in [
            ("*", "", true),
            ("sched*", "sched_switch", true),
            ("*switch", "sched_switch", true),
            ("s*_s*h", "sched_switch", true),
            ("sched", "sched_switch", false),
            ("sys_?????_read", "sys_enter_read", true),
            ("[st]cp", "tcp", true),
            ("[!s]cp", "tcp", true),
            ("[!t]cp", "tcp", false),
            ("[a-c]x", "bx", true),
            ("[]]x", "]x", true),
            ("[x", "[x", true),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("", "", true),
            ("", "a", false),
            ("a*b*c", "aXbXXcX", false),
        ] {
            assert_eq!(matches(p, t), want, "{p} {t}");
        }
        assert!(!matches("*a*a*a*a*a*a*a*a*a*b", &"a".repeat(20000)));
    }
}
