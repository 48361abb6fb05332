//! Texts that are JSON strings as they are: printable ASCII without quotation marks and backslashes.

/// Whether the text is a JSON string as it is.
///
/// Nearly all texts are plain ASCII; pieces of fixed size are looked at without a branch, which compilers turn into vector code.
#[inline]
pub fn is_plain(text: &[u8]) -> bool {
    fn all<const N: usize>(text: &[u8; N]) -> bool {
        text.iter().fold(0, |any, &b| any | is_special(b)) == 0
    }
    let (pieces, rest) = text.as_chunks::<16>();
    // The last piece may overlap the one before.
    let end = match (text.last_chunk::<16>(), text.first_chunk::<8>(), text.last_chunk::<8>()) {
        _ if rest.is_empty() => true,
        (Some(last), ..) => all(last),
        (None, Some(first), Some(last)) => all(first) && all(last),
        _ => rest.iter().all(|b| is_special(*b) == 0),
    };
    end && pieces.iter().all(all)
}

/// Not 0 for a byte that stands for something else in a JSON string, or is no printable ASCII.
#[inline(always)]
pub fn is_special(b: u8) -> u8 {
    u8::from(b < b' ') | u8::from(b == b'"') | u8::from(b == b'\\') | u8::from(b >= 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_bytes_are_found_wherever_they_stand() {
        for len in 0..60 {
            let mut text = vec![b'x'; len];
            assert!(is_plain(&text));
            for at in 0..len {
                for b in [0, b'\n', 0x1f, b'"', b'\\', 0x7f, 0x80, 0xff] {
                    text[at] = b;
                    assert!(!is_plain(&text), "{b} at {at} of {len}");
                }
                text[at] = if at % 2 == 0 { b' ' } else { b'~' };
                assert!(is_plain(&text));
            }
        }
    }
}
