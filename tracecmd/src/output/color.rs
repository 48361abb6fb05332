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
/// control characters from 0x80 to 0x9f, alone or as UTF-8, appear as `\x1b`.
///
/// A process may choose its own name, so a name may hold sequences that a terminal obeys.
pub fn disarm(out: &mut Vec<u8>, start: usize) {
    let is_control = |b: u8| (b < b' ' && b != b'\n' && b != b'\t') || b == 0x7f;
    let text = out.get(start..).unwrap_or_default();
    if !text.iter().any(|b| is_control(*b) || *b >= 0x80) {
        return;
    }
    let text = text.to_vec();
    out.truncate(start);
    let show = |out: &mut Vec<u8>, b: u8| out.extend_from_slice(format!("\\x{b:02x}").as_bytes());
    for part in text.utf8_chunks() {
        for c in part.valid().chars() {
            match c {
                '\u{80}'..='\u{9f}' => show(out, c as u8),
                _ if c.is_ascii() && is_control(c as u8) => show(out, c as u8),
                // Marks that change the direction of what follows on the line.
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                    out.extend_from_slice(format!("\\u{{{:x}}}", u32::from(c)).as_bytes());
                }
                _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for &b in part.invalid() {
            match b {
                0x80..=0x9f => show(out, b),
                _ => out.push(b),
            }
        }
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
        let mut out = b"a\x9b31m \xe4 \xe2\x80\xaeb \xe2\x82\xac".to_vec();
        disarm(&mut out, 0);
        assert_eq!(out, b"a\\x9b31m \xe4 \\u{202e}b \xe2\x82\xac");
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
