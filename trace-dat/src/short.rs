//! Short texts that are appended over and over.

/// A text that is kept to be appended many times.
///
/// One of up to `ROOM` bytes (255 at most) is appended as a copy of fixed size, a load and a store of a vector register or two,
/// of which the rest is cut off again: much faster than a call that copies as many bytes as there are.
#[derive(Clone, Debug)]
pub struct ShortText<const ROOM: usize = 32>(Kind<ROOM>);

#[derive(Clone, Debug)]
enum Kind<const ROOM: usize> {
    Short { len: u8, text: [u8; ROOM] },
    Long(Box<[u8]>),
}

impl<const ROOM: usize> Default for ShortText<ROOM> {
    fn default() -> Self {
        ShortText::EMPTY
    }
}

impl<const ROOM: usize> ShortText<ROOM> {
    /// No text.
    pub const EMPTY: ShortText<ROOM> = ShortText(Kind::Short { len: 0, text: [0; ROOM] });

    /// Keeps the text.
    pub fn new(from: &[u8]) -> ShortText<ROOM> {
        let mut text = [0; ROOM];
        match text.get_mut(..from.len()) {
            Some(to) => {
                to.copy_from_slice(from);
                ShortText(Kind::Short { len: from.len() as u8, text })
            }
            None => ShortText(Kind::Long(from.into())),
        }
    }

    /// The text.
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Kind::Short { len, text } => text.get(..usize::from(*len)).unwrap_or_default(),
            Kind::Long(text) => text,
        }
    }

    /// Whether there is no text.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        matches!(&self.0, Kind::Short { len: 0, .. })
    }

    /// Appends the text.
    #[inline(always)]
    pub fn push(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Kind::Short { len, text } => {
                let end = out.len() + usize::from(*len);
                out.extend_from_slice(text);
                out.truncate(end);
            }
            Kind::Long(text) => out.extend_from_slice(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ShortText;

    #[test]
    fn any_length() {
        let text: Vec<u8> = (0..100).collect();
        let (mut all, mut want) = (Vec::new(), Vec::new());
        for n in 0..100 {
            let short = <ShortText>::new(&text[..n]);
            assert_eq!(short.bytes(), &text[..n]);
            short.push(&mut all);
            want.extend_from_slice(&text[..n]);
        }
        assert_eq!(all, want);
    }
}
