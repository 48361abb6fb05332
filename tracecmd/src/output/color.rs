//! Colours for people, and protection of their terminals.

use std::io::IsTerminal;

/// Colour of an event's name.
pub const EVENT: &str = "36";
/// Colour of marks about lost events.
pub const LOST: &str = "1;31";
/// Colour of other marks.
pub const MARK: &str = "2";

/// Whether output gets colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paint(pub bool);

impl Paint {
    /// Decides for standard output: `always` and `never` are obeyed; otherwise a terminal gets colours unless
    /// `NO_COLOR` has a value.
    pub fn auto() -> Paint {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        Paint(!refused && std::io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb"))
    }

    /// Appends the sequence that begins a colour.
    pub fn start(self, out: &mut Vec<u8>, color: &str) {
        if self.0 {
            out.extend_from_slice(b"\x1b[");
            out.extend_from_slice(color.as_bytes());
            out.push(b'm');
        }
    }

    /// Appends the sequence that ends it.
    pub fn end(self, out: &mut Vec<u8>) {
        if self.0 {
            out.extend_from_slice(b"\x1b[0m");
        }
    }
}

/// Makes what was appended from `start` on harmless for a terminal: control bytes other than newline and tab, and the
/// two-byte control characters of UTF-8, appear as `\x1b`.
///
/// A process may choose its own name, so a name may hold sequences that a terminal obeys.
pub fn disarm(out: &mut Vec<u8>, start: usize) {
    let is_control = |b: u8| (b < b' ' && b != b'\n' && b != b'\t') || b == 0x7f;
    let text = out.get(start..).unwrap_or_default();
    let c1 = |text: &[u8], at: usize| matches!(text.get(at..at + 2), Some([0xc2, 0x80..=0x9f]));
    if !text.iter().any(|b| is_control(*b) || *b == 0xc2) {
        return;
    }
    let text = text.to_vec();
    out.truncate(start);
    let mut at = 0;
    while let Some(&b) = text.get(at) {
        if c1(&text, at) {
            out.extend_from_slice(format!("\\x{:02x}", text.get(at + 1).copied().unwrap_or(0)).as_bytes());
            at += 1;
        } else if is_control(b) {
            out.extend_from_slice(format!("\\x{b:02x}").as_bytes());
        } else {
            out.push(b);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_bytes_are_shown_not_sent() {
        let mut out = b"\x1b[0m ".to_vec();
        let start = out.len();
        out.extend_from_slice(b"a\x1b]0;title\x07b\tc\nd\x7f\xc2\x9b31m\xc3\xa4");
        disarm(&mut out, start);
        assert_eq!(out, b"\x1b[0m a\\x1b]0;title\\x07b\tc\nd\\x7f\\x9b31m\xc3\xa4");
    }

    #[test]
    fn plain_text_stays() {
        let mut out = b"sched_switch: a:1 [120] R ==> b\xc3\xa4:2".to_vec();
        let before = out.clone();
        disarm(&mut out, 0);
        assert_eq!(out, before);
    }

    #[test]
    fn no_paint_no_bytes() {
        let mut out = Vec::new();
        Paint(false).start(&mut out, EVENT);
        Paint(false).end(&mut out);
        assert!(out.is_empty());
        Paint(true).start(&mut out, EVENT);
        Paint(true).end(&mut out);
        assert_eq!(out, b"\x1b[36m\x1b[0m");
    }
}
