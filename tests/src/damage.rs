//! Damaged copies of files: the same bytes and seed always give the same copy.

/// A small generator of random numbers (splitmix64) whose stream never changes.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator.
    pub fn new(seed: u64) -> Self {
        Rng(seed)
    }

    /// The next number.
    #[allow(clippy::should_implement_trait)] // endless: no iterator
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `n`; 0 for 0.
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.next() % n as u64) as usize }
    }
}

/// Numbers that programs get wrong: around the borders of types, and huge counts.
const BOUNDARY: [u64; 22] = [
    0,
    1,
    2,
    3,
    7,
    8,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x0100_0000,
    0x1000_0000,
    0x4000_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fffe,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];

/// Kinds of damage; a block of so many seeds has each.
pub const KINDS: u64 = 12;

/// A place; every second one is near the start or the end, where the tables are.
fn place(r: &mut Rng, len: usize) -> usize {
    let near = len.min(8192);
    match r.below(4) {
        0 => r.below(near),
        1 => len - 1 - r.below(near),
        _ => r.below(len),
    }
}

/// A damaged copy of `file`, and what was done. `seed % KINDS` chooses the kind.
pub fn damage(file: &[u8], seed: u64) -> (Vec<u8>, String) {
    let salt = file.iter().fold(file.len() as u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(*b)));
    let mut r = Rng::new(seed.wrapping_mul(0x1234_5677) ^ salt);
    let mut b = file.to_vec();
    if b.is_empty() {
        return (b, "nothing".into());
    }
    let at = place(&mut r, b.len());
    let flip = |b: &mut Vec<u8>, r: &mut Rng, from: usize, len: usize| {
        let places: Vec<usize> = (0..=r.below(12)).map(|_| from + r.below(len)).collect();
        places.iter().for_each(|p| b[*p] ^= 1 + r.below(255) as u8);
        format!("flipped {places:x?}")
    };
    let what = match seed % KINDS {
        0 => {
            b.truncate(at);
            format!("cut off at {at:#x}")
        }
        1 => {
            let at = r.below(b.len());
            b.truncate(at);
            format!("cut off at {at:#x}")
        }
        2 => {
            let len = b.len();
            flip(&mut b, &mut r, 0, len)
        }
        3 => {
            let len = b.len().min(4096);
            flip(&mut b, &mut r, 0, len)
        }
        4 => {
            let len = b.len().min(8192);
            let from = b.len() - len;
            flip(&mut b, &mut r, from, len)
        }
        kind @ (5 | 6) => {
            let len = 8 << r.below(12);
            let end = (at + len).min(b.len());
            b[at..end].fill(if kind == 5 { 0 } else { 0xff });
            format!("filled {at:#x}..{end:#x} with {:#x}", b[at])
        }
        7 | 8 => {
            let width = [2, 4, 8][r.below(3)];
            let value = BOUNDARY[r.below(BOUNDARY.len())];
            let bytes =
                if r.below(4) > 0 { value.to_le_bytes() } else { value.rotate_left(64 - width * 8).to_be_bytes() };
            let end = (at + width as usize).min(b.len());
            b[at..end].copy_from_slice(&bytes[..end - at]);
            format!("{value:#x} of {width} bytes at {at:#x}")
        }
        9 => {
            let len = r.below(16384).min(b.len());
            let (from, to) = (r.below(b.len() - len + 1), at.min(b.len() - len));
            b.copy_within(from..from + len, to);
            format!("{len} bytes from {from:#x} to {to:#x}")
        }
        10 => {
            let end = (at + 1 + r.below(64)).min(b.len());
            b.drain(at..end);
            format!("took out {at:#x}..{end:#x}")
        }
        _ => {
            let new: Vec<u8> = (0..=r.below(64)).map(|_| r.next() as u8).collect();
            let n = new.len();
            b.splice(at..at, new);
            format!("put {n} bytes in at {at:#x}")
        }
    };
    (b, what)
}
