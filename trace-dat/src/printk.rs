//! printk formats: address to format text.
//!
//! `trace_printk` stores the address of its format instead of the text. The kernel lists them in `printk_formats`,
//! one to a line: `0xADDRESS : "text"`.

use std::sync::OnceLock;

use crate::Result;

/// The format texts of `trace_printk` and of `%ps`-like string pointers, read when first asked.
pub struct PrintkFormats {
    load: Box<dyn Fn() -> Result<Vec<u8>> + Send + Sync>,
    table: OnceLock<Vec<(u64, Box<[u8]>)>>,
}

impl std::fmt::Debug for PrintkFormats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrintkFormats").field("formats", &self.table.get().map(Vec::len)).finish_non_exhaustive()
    }
}

impl Default for PrintkFormats {
    fn default() -> Self {
        PrintkFormats::new(|| Ok(Vec::new()))
    }
}

impl PrintkFormats {
    /// Formats of a text that is loaded when the first one is asked for. A text that cannot be loaded counts as empty.
    pub fn new(load: impl Fn() -> Result<Vec<u8>> + Send + Sync + 'static) -> Self {
        PrintkFormats { load: Box::new(load), table: OnceLock::new() }
    }

    fn table(&self) -> &[(u64, Box<[u8]>)] {
        self.table.get_or_init(|| {
            let text = (self.load)().unwrap_or_else(|e| {
                log::warn!("printk formats: {e}");
                Vec::new()
            });
            // Later lines first, then sorted by address: the order in which the reference searches.
            let mut all: Vec<_> = text.split(|b| *b == b'\n').filter_map(parse_line).collect();
            all.reverse();
            all.sort_by_key(|e| e.0);
            all
        })
    }

    /// The format text at `addr`, as written between the quotes (escapes as they stand), without a last `\n`.
    pub fn get(&self, addr: u64) -> Option<&[u8]> {
        let table = self.table();
        let (mut low, mut high) = (0, table.len());
        while low < high {
            let mid = (low + high) / 2;
            let (at, text) = table.get(mid)?;
            match addr.cmp(at) {
                std::cmp::Ordering::Less => high = mid,
                std::cmp::Ordering::Greater => low = mid + 1,
                std::cmp::Ordering::Equal => return Some(text),
            }
        }
        None
    }

    /// All formats sorted by address.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.table().iter().map(|(a, t)| (*a, &**t))
    }
}

/// `0xADDRESS : "text\n"`: blanks, colon and quotes may be missing.
fn parse_line(line: &[u8]) -> Option<(u64, Box<[u8]>)> {
    let line = line.trim_ascii_start();
    let line = line.strip_prefix(b"0x").unwrap_or(line);
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let addr = u64::from_str_radix(std::str::from_utf8(line.get(..digits)?).ok()?, 16).ok()?;
    let rest = line.get(digits..)?;
    let rest = rest.get(memchr::memchr(b':', rest).map_or(0, |n| n + 1)..)?;
    let text = rest.trim_ascii_start();
    let text = text.strip_prefix(b"\"").unwrap_or(text);
    let text = text.strip_suffix(b"\"").unwrap_or(text);
    let text = text.strip_suffix(b"\\n").unwrap_or(text);
    Some((addr, text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let p = PrintkFormats::new(|| {
            Ok(b"0x10 : \"hello %d\\n\"\n0x20 : \"q\\\"uote\\\\\"\n50 : \"z\"\nbad line\n\n0x30: noquote\n0x20 : \"dup\"\n0x70 : \"x\\n\\n\"\n".into())
        });
        let all: Vec<_> = p.iter().map(|(a, t)| (a, String::from_utf8_lossy(t).into_owned())).collect();
        let want = [
            (0x10, "hello %d"),
            (0x20, "dup"),
            (0x20, "q\\\"uote\\\\"),
            (0x30, "noquote"),
            (0x50, "z"),
            (0x70, "x\\n"),
        ];
        assert_eq!(all.iter().filter(|a| a.0 != 0xbad).map(|(a, t)| (*a, t.as_str())).collect::<Vec<_>>(), want);
        assert_eq!(p.get(0x30), Some(&b"noquote"[..]));
        assert_eq!(p.get(0x31), None);
    }
}
