//! Short texts that are appended over and over.

/// Appends the first `len` bytes of `chunk`: a copy of fixed size, of which the rest is cut off again.
#[inline(always)]
pub fn push_part<const N: usize>(out: &mut Vec<u8>, chunk: &[u8; N], len: usize) {
    let end = out.len() + len;
    out.extend_from_slice(chunk);
    out.truncate(end);
}

/// Appends the first `len` bytes of `text`; up to `N` of them, where `text` has so many, as [`push_part`] does.
#[inline(always)]
pub fn push_start<const N: usize>(out: &mut Vec<u8>, text: &[u8], len: usize) {
    match text.first_chunk::<N>() {
        Some(chunk) if len <= N => push_part(out, chunk, len),
        _ => out.extend_from_slice(text.get(..len).unwrap_or_default()),
    }
}

/// A text that is kept to be appended many times.
///
/// One of up to `ROOM` bytes (255 at most) is appended by [`push_part`], a load and a store of a vector register or two: much
/// faster than a call that copies as many bytes as there are.
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

    /// The text in its room and its length, unless it is too long for that.
    #[inline(always)]
    pub fn short(&self) -> Option<(&[u8; ROOM], usize)> {
        match &self.0 {
            Kind::Short { len, text } => Some((text, usize::from(*len))),
            Kind::Long(_) => None,
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
            Kind::Short { len, text } => push_part(out, text, usize::from(*len)),
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
