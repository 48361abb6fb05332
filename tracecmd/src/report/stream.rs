//! One buffer of one input: what its lines share.

use std::sync::Arc;

use trace_dat::{Decoder, read::Buffer};

use super::layout::{CommonFields, TimeFormat};

/// One buffer of one input.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Number of the input: streams of one input share their decoder.
    pub input: usize,
    /// Name of the instance, empty for the top buffer.
    pub buffer: String,
    /// What stands before each line.
    pub prefix: Vec<u8>,
    /// Formats, symbols and names.
    pub dec: Arc<Decoder>,
    /// Where the common fields lie.
    pub common: CommonFields,
    /// How times are shown.
    pub time: TimeFormat,
    /// Whether `--ts-diff` shows microseconds.
    pub diff_micros: bool,
}

impl Stream {
    /// Whether this is the stream of that buffer of its input.
    pub fn is(&self, buffer: &Buffer) -> bool {
        self.buffer == buffer.name
    }
}

/// The prefixes of streams with these names: right-aligned to the longest, none when no line needs one.
///
/// The nameless top buffer of a single file gets blanks of the same width.
pub fn prefixes(names: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let width = names.iter().map(Vec::len).max().unwrap_or(0);
    let pad = |name: &Vec<u8>| {
        if width == 0 {
            return Vec::new();
        }
        let mut prefix = vec![b' '; width - name.len()];
        prefix.extend_from_slice(name);
        prefix.extend_from_slice(if name.is_empty() { b"  " } else { b": " });
        prefix
    };
    names.iter().map(pad).collect()
}

#[cfg(test)]
mod tests {
    use super::prefixes;

    #[test]
    fn prefix_columns() {
        let of = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|n| n.as_bytes().to_vec()).collect();
            prefixes(&names).into_iter().map(|p| String::from_utf8(p).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(of(&[""]), [""]);
        assert_eq!(of(&["", "three", "one"]), ["       ", "three: ", "  one: "]);
        assert_eq!(of(&["a.dat", "host.dat"]), ["   a.dat: ", "host.dat: "]);
    }
}
