//! C's printf: conversions taken apart, numbers and texts written.

use crate::short::push_part;

/// Flags, width and precision of a conversion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) minus: bool,
    pub(crate) zero: bool,
    pub(crate) plus: bool,
    pub(crate) alt: bool,
    pub(crate) width: u16,
    pub(crate) prec: Option<u16>,
    /// The width (`Width`) or the precision (`Prec`) is an argument.
    pub(crate) star: Star,
    /// -2 `hh`, -1 `h`, 0 none, 1 `l` and `z`, 2 `ll` and `L`.
    pub(crate) long: i8,
}

/// What a `*` stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Star {
    #[default]
    None,
    Width,
    Prec,
}

/// What a conversion prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conv {
    /// One of `d i u x X o c`.
    Num(u8),
    /// `%s`.
    Str,
    /// `%ls`: takes an argument, prints nothing.
    WideStr,
    /// `%p` and what follows it.
    Ptr(Ptr),
    /// A letter that is no conversion; it is shown and takes no argument.
    Unknown(u8),
}

/// The kernel's pointer formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ptr {
    Plain,
    /// `%pS %ps %pF %pf`.
    Symbol {
        offset: bool,
    },
    /// `%pM`: the byte between two numbers (0: none), and whether the order is reversed.
    Mac {
        sep: u8,
        reversed: bool,
    },
    /// `%pI4`, `%pi4`.
    V4 {
        dots3: bool,
        reversed: bool,
    },
    /// `%pI6`, `%pI6c`, `%pi6`.
    V6 {
        colons: bool,
        compressed: bool,
    },
    /// `%pIS...`.
    Sock {
        big: bool,
        port: bool,
        compressed: bool,
        reversed: bool,
    },
    /// `%pU`.
    Uuid {
        upper: bool,
        guid: bool,
    },
    /// `%*ph`: the byte between two numbers, 0 for none.
    Bytes {
        sep: u8,
    },
}

/// A part of a format string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Lit(Vec<u8>),
    Conv(Spec, Conv),
}

/// Takes a format string apart; escapes are resolved.
pub(crate) fn pieces(format: &[u8]) -> Result<Vec<Piece>, &'static str> {
    let mut all = Vec::new();
    let mut lit = Vec::new();
    let mut it = Walk { b: format, at: 0 };
    while let Some(c) = it.next() {
        match c {
            b'\\' => match it.next() {
                Some(b'n') => lit.push(b'\n'),
                Some(b't') => lit.push(b'\t'),
                Some(b'r') => lit.push(b'\r'),
                Some(c) => lit.push(c),
                None => {}
            },
            b'%' => {
                if it.peek() == Some(b'%') {
                    it.at += 1;
                    lit.push(b'%');
                    continue;
                }
                let Some((spec, conv)) = conversion(&mut it)? else { break };
                if let Conv::Unknown(c) = conv {
                    lit.extend_from_slice(&[b'>', c, b'<']);
                    continue;
                }
                if !lit.is_empty() {
                    all.push(Piece::Lit(std::mem::take(&mut lit)));
                }
                all.push(Piece::Conv(spec, conv));
            }
            c => lit.push(c),
        }
    }
    if !lit.is_empty() {
        all.push(Piece::Lit(lit));
    }
    Ok(all)
}

struct Walk<'a> {
    b: &'a [u8],
    at: usize,
}

impl Walk<'_> {
    fn next(&mut self) -> Option<u8> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }
    fn peek(&self) -> Option<u8> {
        self.b.get(self.at).copied()
    }
    fn take(&mut self, set: &[u8]) -> Option<u8> {
        let c = self.peek().filter(|c| set.contains(c))?;
        self.at += 1;
        Some(c)
    }
}

/// The conversion behind a `%`; `None` when the text ends in it.
fn conversion(it: &mut Walk<'_>) -> Result<Option<(Spec, Conv)>, &'static str> {
    let mut s = Spec::default();
    let (mut in_prec, mut digits) = (false, false);
    loop {
        let Some(c) = it.next() else { return Ok(None) };
        match c {
            b'-' => s.minus = true,
            b'+' => s.plus = true,
            b'#' => s.alt = true,
            b'0' if !digits && !in_prec => s.zero = true,
            b'0'..=b'9' => {
                let d = u16::from(c - b'0');
                if in_prec {
                    s.prec = Some(s.prec.unwrap_or(0).saturating_mul(10).saturating_add(d).min(4096));
                } else {
                    digits = true;
                    s.width = s.width.saturating_mul(10).saturating_add(d).min(4096);
                }
            }
            b'.' => {
                in_prec = true;
                s.prec = Some(0);
            }
            b'*' if s.star != Star::None => return Err("two `*` in one conversion"),
            b'*' => s.star = if in_prec { Star::Prec } else { Star::Width },
            b'h' => s.long -= 1,
            b'l' => s.long += 1,
            b'L' => s.long = 2,
            b'z' | b'Z' => s.long = 1,
            b'd' | b'i' | b'u' | b'x' | b'X' | b'o' | b'c' => {
                if !(-2..=2).contains(&s.long) {
                    return Err("a length that no conversion has");
                }
                return Ok(Some((s, Conv::Num(c))));
            }
            b's' => return Ok(Some((s, if s.long > 0 { Conv::WideStr } else { Conv::Str }))),
            b'p' => return Ok(Some((s, Conv::Ptr(pointer(it))))),
            c => return Ok(Some((s, Conv::Unknown(c)))),
        }
        if s.long < -2 || s.long > 2 {
            return Err("a length that no conversion has");
        }
    }
}

fn pointer(it: &mut Walk<'_>) -> Ptr {
    let start = it.at;
    match it.next() {
        Some(b'S' | b'F') => Ptr::Symbol { offset: true },
        Some(b's' | b'f') => Ptr::Symbol { offset: false },
        Some(c @ (b'M' | b'm')) => {
            let (sep, reversed) = match it.take(b"FR") {
                Some(b'F') => (b'-', false),
                Some(_) => (b':', true),
                None => (b':', false),
            };
            Ptr::Mac { sep: if c == b'm' { 0 } else { sep }, reversed }
        }
        Some(c @ (b'I' | b'i')) => {
            let big = c == b'I';
            match it.take(b"46S") {
                Some(b'4') => {
                    let reversed = matches!(it.take(b"hnbl"), Some(b'h' | b'l'));
                    Ptr::V4 { dots3: !big, reversed }
                }
                Some(b'6') => {
                    let compressed = it.peek() == Some(b'c') && big;
                    if it.peek() == Some(b'c') {
                        it.at += 1;
                    }
                    Ptr::V6 { colons: big, compressed }
                }
                Some(_) => {
                    let (mut port, mut compressed, mut reversed, mut known) = (false, false, false, true);
                    while let Some(c) = it.take(b"pfschnbl") {
                        match c {
                            b'p' if known => port = true,
                            b'c' if known => compressed = true,
                            b'h' | b'l' if known => reversed = true,
                            b'n' | b'b' => {}
                            _ => known = false,
                        }
                    }
                    Ptr::Sock { big, port, compressed, reversed }
                }
                None => {
                    it.at = start;
                    Ptr::Plain
                }
            }
        }
        Some(b'U') => match it.take(b"bBlL") {
            Some(b'B') => Ptr::Uuid { upper: true, guid: false },
            Some(b'l') => Ptr::Uuid { upper: false, guid: true },
            Some(b'L') => Ptr::Uuid { upper: true, guid: true },
            _ => Ptr::Uuid { upper: false, guid: false },
        },
        Some(b'h') => match it.take(b"CDN") {
            Some(b'C') => Ptr::Bytes { sep: b':' },
            Some(b'D') => Ptr::Bytes { sep: b'-' },
            Some(_) => Ptr::Bytes { sep: 0 },
            None => Ptr::Bytes { sep: b' ' },
        },
        _ => {
            it.at = start;
            Ptr::Plain
        }
    }
}

/// A number in base 10.
#[inline]
pub(crate) fn dec(out: &mut Vec<u8>, v: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(v).as_bytes());
}

/// A signed number in base 10.
#[inline]
pub(crate) fn idec(out: &mut Vec<u8>, v: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(v).as_bytes());
}

const HEX: [u8; 16] = *b"0123456789abcdef";

/// A number in base 16, lower case, without prefix.
#[inline]
pub(crate) fn hex(out: &mut Vec<u8>, v: u64) {
    hex_zeros(out, v, 1);
}

/// A number in base 16 with zeros in front, `width` digits at least (16 at most).
#[inline]
pub(crate) fn hex_zeros(out: &mut Vec<u8>, v: u64, width: usize) {
    let (digits, n) = hex_digits(v, width);
    push_part(out, &digits, n);
}

/// The digits of [`hex_zeros`], and how many they are: made in one register, because what was written in two parts cannot be read
/// as one before it is in the cache.
#[inline(always)]
pub(crate) fn hex_digits(v: u64, width: usize) -> ([u8; 16], usize) {
    let n = (64 - (v | 1).leading_zeros() as usize).div_ceil(4).clamp(width.min(16), 16);
    // The highest digit that is shown goes to the top: what is cut off stands at the end.
    let v = v.rotate_right(4 * n as u32);
    let digits = u128::from(hex8((v >> 32) as u32)) << 64 | u128::from(hex8(v as u32));
    (digits.to_be_bytes(), n)
}

/// Eight hexadecimal digits at once, the first one in the highest byte.
#[inline(always)]
fn hex8(v: u32) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // Each half of a byte to a byte of its own.
    let mut x = u64::from(v);
    x = (x | x << 16) & 0x0000_ffff_0000_ffff;
    x = (x | x << 8) & 0x00ff_00ff_00ff_00ff;
    x = (x | x << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // From 10 on a letter: '0' + n and 39 more.
    let letters = (x + 6 * ONES) >> 4 & ONES;
    x + 0x30 * ONES + letters * 39
}

/// A byte as two hexadecimal digits.
#[allow(clippy::indexing_slicing, reason = "a table of 16 digits, and four bits")]
#[inline]
pub(crate) fn hex2(out: &mut Vec<u8>, b: u8) {
    out.extend_from_slice(&[HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
}

/// `0x` and the number.
#[inline]
pub(crate) fn hex0x(out: &mut Vec<u8>, v: u64) {
    out.extend_from_slice(b"0x");
    hex(out, v);
}

fn fill(out: &mut Vec<u8>, c: u8, n: usize) {
    out.resize(out.len() + n, c);
}

/// A text with width and precision.
#[inline]
pub(crate) fn text(out: &mut Vec<u8>, s: &[u8], spec: &Spec) {
    let s = match spec.prec {
        Some(p) => s.get(..usize::from(p)).unwrap_or(s),
        None => s,
    };
    let pad = usize::from(spec.width).saturating_sub(s.len());
    if pad > 0 && !spec.minus {
        fill(out, b' ', pad);
    }
    out.extend_from_slice(s);
    if pad > 0 && spec.minus {
        fill(out, b' ', pad);
    }
}

/// What was written from `start` on becomes a text with width and precision.
pub(crate) fn adjust(out: &mut Vec<u8>, start: usize, spec: &Spec) {
    if let Some(p) = spec.prec {
        out.truncate(start.saturating_add(usize::from(p)).min(out.len()));
    }
    let pad = usize::from(spec.width).saturating_sub(out.len().saturating_sub(start));
    if pad > 0 {
        fill(out, b' ', pad);
        if !spec.minus
            && let Some(s) = out.get_mut(start..)
        {
            s.rotate_right(pad);
        }
    }
}

/// A number as C's printf writes it; `v` has been read without sign extension.
#[allow(clippy::indexing_slicing, reason = "a table of 16 digits, and four bits")]
pub(crate) fn number(out: &mut Vec<u8>, v: u64, conv: u8, spec: &Spec) {
    let signed = match spec.long {
        -2 => i64::from(v as i8),
        -1 => i64::from(v as i16),
        0 => i64::from(v as i32),
        _ => v as i64,
    };
    let unsigned = match spec.long {
        -2 => u64::from(v as u8),
        -1 => u64::from(v as u16),
        0 => u64::from(v as u32),
        _ => v,
    };
    if conv == b'c' {
        return text(out, &[v as u8], &Spec { prec: None, ..*spec });
    }
    let mut sign: &[u8] = b"";
    let mut digits = [0u8; 24];
    let mut n = digits.len();
    let mut push = |d: u8| {
        n -= 1;
        if let Some(p) = digits.get_mut(n) {
            *p = d;
        }
    };
    let value = match conv {
        b'd' | b'i' => {
            if signed < 0 {
                sign = b"-";
            } else if spec.plus {
                sign = b"+";
            }
            signed.unsigned_abs()
        }
        _ => unsigned,
    };
    let mut rest = value;
    match conv {
        b'x' | b'X' => {
            while rest != 0 {
                let d = HEX[(rest & 15) as usize];
                push(if conv == b'X' { d.to_ascii_uppercase() } else { d });
                rest >>= 4;
            }
            if spec.alt && value != 0 {
                sign = if conv == b'X' { b"0X" } else { b"0x" };
            }
        }
        b'o' => {
            while rest != 0 {
                push(b'0' + (rest & 7) as u8);
                rest >>= 3;
            }
            if spec.alt && value != 0 {
                push(b'0');
            }
        }
        _ => {
            while rest != 0 {
                push(b'0' + (rest % 10) as u8);
                rest /= 10;
            }
        }
    }
    if value == 0 && (spec.prec != Some(0) || (conv == b'o' && spec.alt)) {
        push(b'0');
    }
    let digits = digits.get(n..).unwrap_or(&[]);
    let zeros = usize::from(spec.prec.unwrap_or(0)).saturating_sub(digits.len());
    let pad = usize::from(spec.width).saturating_sub(sign.len() + zeros + digits.len());
    let zero_pad = spec.zero && !spec.minus && spec.prec.is_none();
    if pad > 0 && !spec.minus && !zero_pad {
        fill(out, b' ', pad);
    }
    out.extend_from_slice(sign);
    if zero_pad {
        fill(out, b'0', pad);
    }
    fill(out, b'0', zeros);
    out.extend_from_slice(digits);
    if spec.minus {
        fill(out, b' ', pad);
    }
}

/// A pointer as the C library writes it.
pub(crate) fn plain_pointer(out: &mut Vec<u8>, v: u64) {
    if v == 0 { out.extend_from_slice(b"(nil)") } else { hex0x(out, v) }
}

/// Six bytes of a MAC address.
#[allow(clippy::indexing_slicing, reason = "an array of fixed length, and indices below it")]
pub(crate) fn mac(out: &mut Vec<u8>, b: [u8; 6], sep: u8, reversed: bool) {
    for i in 0..6 {
        if i > 0 && sep != 0 {
            out.push(sep);
        }
        hex2(out, if reversed { b[5 - i] } else { b[i] });
    }
}

/// An IPv4 address.
#[allow(clippy::indexing_slicing, reason = "an array of fixed length, and indices below it")]
pub(crate) fn v4(out: &mut Vec<u8>, b: [u8; 4], dots3: bool, reversed: bool) {
    for i in 0..4 {
        if i > 0 {
            out.push(b'.');
        }
        let v = if reversed { b[3 - i] } else { b[i] };
        if dots3 {
            out.extend_from_slice(&[b'0' + v / 100, b'0' + v / 10 % 10, b'0' + v % 10]);
        } else {
            dec(out, u64::from(v));
        }
    }
}

/// An IPv6 address in the kernel's forms.
#[allow(clippy::indexing_slicing, reason = "an array of fixed length, and indices below it")]
pub(crate) fn v6(out: &mut Vec<u8>, b: [u8; 16], colons: bool, compressed: bool) {
    let word = |i: usize| u16::from_be_bytes([b[2 * i], b[2 * i + 1]]);
    if !compressed {
        for i in 0..8 {
            if i > 0 && colons {
                out.push(b':');
            }
            hex2(out, b[2 * i]);
            hex2(out, b[2 * i + 1]);
        }
        return;
    }
    let mapped = (0..5).all(|i| word(i) == 0) && word(5) == 0xffff;
    let isatap = (word(4) | 0x0200) == 0x0200 && word(5) == 0x5efe;
    let embedded = mapped || isatap;
    let range = if embedded { 6 } else { 8 };
    // The longest run of zero words becomes `::`; a single word does not.
    let (mut best, mut best_len) = (usize::MAX, 1);
    let mut i = 0;
    while i < range {
        let mut j = i;
        while j < range && word(j) == 0 {
            j += 1;
        }
        if j - i > best_len {
            (best, best_len) = (i, j - i);
        }
        i = j + 1;
    }
    let mut colon = false;
    let mut i = 0;
    while i < range {
        if i == best {
            if colon || i == 0 {
                out.push(b':');
            }
            out.push(b':');
            colon = false;
            i += best_len;
            continue;
        }
        if colon {
            out.push(b':');
        }
        hex(out, u64::from(word(i)));
        colon = true;
        i += 1;
    }
    if embedded {
        if colon {
            out.push(b':');
        }
        v4(out, [b[12], b[13], b[14], b[15]], false, false);
    }
}

/// A UUID or GUID.
#[allow(clippy::indexing_slicing, reason = "an array of fixed length, and indices below it")]
pub(crate) fn uuid(out: &mut Vec<u8>, b: [u8; 16], upper: bool, guid: bool) {
    const PLAIN: [usize; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    const GUID: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let start = out.len();
    for (n, i) in if guid { GUID } else { PLAIN }.into_iter().enumerate() {
        if matches!(n, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        hex2(out, b[i]);
    }
    if upper && let Some(s) = out.get_mut(start..) {
        s.make_ascii_uppercase();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_in_front_as_the_general_way_prints_them() {
        for width in 1..=16 {
            for v in [0, 1, 0xf, 0x10, 0xffff_ffff, 1 << 32, u64::MAX, 0x123_4567_89ab_cdef] {
                let (mut fast, mut general) = (Vec::new(), Vec::new());
                hex_zeros(&mut fast, v, width);
                let spec = Spec { zero: true, width: width as u16, long: 1, ..Spec::default() };
                number(&mut general, v, b'x', &spec);
                assert_eq!(fast, general, "{width} {v:#x}");
            }
        }
    }

    fn num(format: &str, v: i64) -> String {
        let p = pieces(format.as_bytes()).unwrap();
        let mut out = Vec::new();
        for p in p {
            match p {
                Piece::Lit(l) => out.extend(l),
                Piece::Conv(s, Conv::Num(c)) => number(&mut out, v as u64, c, &s),
                p => panic!("{p:?}"),
            }
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers() {
        assert_eq!(num("%d|%5d|%-5d|%05d|%+d|%.3d", -5), "-5|   -5|-5   |-0005|-5|-005");
        assert_eq!(num("%x %#x %#o %X %08x", 255), "ff 0xff 0377 FF 000000ff");
        assert_eq!(num("%hhd %hu %u %lu", -1), "-1 65535 4294967295 18446744073709551615");
        assert_eq!(num("%.0d|%5.0d|%#x", 0), "|     |0");
        assert_eq!(num("%c%%%q%-3c|", 65), "A%>q<A  |");
        assert_eq!(num("a\\n\\t\\q%", 1), "a\n\tq");
        assert!(pieces(b"%lllx").is_err());
        assert!(pieces(b"%*.*d").is_err());
    }

    #[test]
    fn addresses() {
        let mut o = Vec::new();
        v6(&mut o, [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], true, true);
        assert_eq!(o, b"2001:db8::1");
        o.clear();
        v6(&mut o, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1], true, true);
        assert_eq!(o, b"::ffff:10.0.0.1");
        o.clear();
        v6(&mut o, [0; 16], true, true);
        assert_eq!(o, b"::");
        o.clear();
        v4(&mut o, [192, 168, 1, 10], true, true);
        assert_eq!(o, b"010.001.168.192");
    }
}
