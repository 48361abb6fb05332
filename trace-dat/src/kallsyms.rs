//! Kernel symbols: address to name.
//!
//! The text is that of `/proc/kallsyms`: address in hex, a type letter, the name, and for a module's symbol a tab and
//! `[module]`. It has several megabytes on a usual kernel, so it is read piece by piece, while another thread unpacks the next
//! one, and only the names are kept, with sorted addresses beside them. An index by name is made when something asks by name.

use std::{
    borrow::Cow,
    sync::{
        OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use crate::{Result, lazy::PieceReader, short::push_start};

/// A symbol of the kernel or of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// Where it begins.
    pub addr: u64,
    /// Its name.
    pub name: &'a [u8],
    /// The module it belongs to, without brackets; `None` for the kernel's own.
    pub module: Option<&'a [u8]>,
}

/// Where a symbol begins, and where its name lies among the names.
#[derive(Clone, Copy, Debug)]
struct Place {
    addr: u64,
    /// First byte of the name.
    start: u32,
    /// Bytes of the name.
    len: u16,
    /// Bytes of the module's name, which follows; 0 for none.
    module: u16,
}

/// The symbols by address.
#[derive(Debug, Default)]
struct Table {
    /// Names without anything between them, and some bytes behind the last one.
    names: Vec<u8>,
    places: Vec<Place>,
    found: OnceLock<Found>,
    searches: AtomicU32,
}

/// After so many searches names are kept where they are found fast: a short trace does without that memory.
const FEW_SEARCHES: u32 = 64;

/// The name of a symbol.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a> {
    /// Its name and all that follows it.
    text: &'a [u8],
    len: usize,
}

impl<'a> Name<'a> {
    /// The name.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.text.get(..self.len).unwrap_or_default()
    }

    /// The name and all that follows it, of which the first [`Name::len`] bytes count: for copies of fixed size.
    #[inline(always)]
    pub fn behind(&self) -> &'a [u8] {
        self.text
    }

    /// Bytes of the name.
    #[inline(always)]
    #[expect(clippy::len_without_is_empty, reason = "a symbol has a name")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Appends the name: a short one by a copy of fixed size.
    #[inline(always)]
    pub fn push(&self, out: &mut Vec<u8>) {
        push_start::<32>(out, self.text, self.len);
    }
}

/// Slots of the memory of addresses that were asked for; a power of two.
const FOUND: usize = 1 << 14;

/// Where the name of an address was found: traces ask for the same ones over and over, and a search in a table of a hundred
/// thousand misses the cache at most of its steps.
///
/// A slot has two words, written without a lock: where the name lies in the text, and that mixed with the address. Words of
/// two writers do not fit each other.
#[derive(Default)]
struct Found(Box<[[AtomicU64; 2]]>);

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Found")
    }
}

impl Found {
    fn new() -> Found {
        Found((0..FOUND).map(|_| Default::default()).collect())
    }

    #[inline(always)]
    fn slot(&self, addr: u64) -> Option<&[AtomicU64; 2]> {
        self.0.get((addr.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 50) as usize)
    }

    /// What was put for this address.
    #[inline(always)]
    fn get(&self, addr: u64) -> Option<FoundName> {
        let [word, mixed] = self.slot(addr)?;
        let word = word.load(Ordering::Relaxed);
        // A name has a length: a word of 0 is an empty slot.
        if word == 0 || FoundName::mixed(word, addr) != mixed.load(Ordering::Relaxed) {
            return None;
        }
        let (number, start, len) = (word >> 40, word >> 12 & 0xfff_ffff, word & 0xfff);
        Some(FoundName { number: number as usize, start: start as usize, len: len as usize })
    }

    fn put(&self, addr: u64, found: FoundName) {
        let FoundName { number, start, len } = found;
        if let Some([word, mixed]) = self.slot(addr)
            && number < 1 << 24
            && start < 1 << 28
            && (1..1 << 12).contains(&len)
        {
            let packed = (number as u64) << 40 | (start as u64) << 12 | len as u64;
            word.store(packed, Ordering::Relaxed);
            mixed.store(FoundName::mixed(packed, addr), Ordering::Relaxed);
        }
    }
}

/// Number of a symbol, and where its name lies in the text.
#[derive(Clone, Copy)]
struct FoundName {
    number: usize,
    start: usize,
    len: usize,
}

impl FoundName {
    fn mixed(word: u64, addr: u64) -> u64 {
        word.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ addr
    }
}

/// The kernel's symbols, read when first asked.
///
/// Symbols of type `a` and `A` (absolute) and names that begin with `$` (mapping symbols of ARM) are left out, as
/// libtraceevent does. Of several symbols at one address the reference's choice is followed: whichever its binary
/// search meets first, in a table where later lines stand before earlier ones.
pub struct Kallsyms {
    load: PieceReader,
    /// More symbols given by the user, behind those of the file.
    extra: Vec<u8>,
    table: OnceLock<Table>,
    by_name: OnceLock<Vec<(u32, u32)>>,
    asked_by_name: AtomicU32,
}

/// So many names are looked for one after the other; an index pays for more only.
const FEW_NAMES: u32 = 8;

impl std::fmt::Debug for Kallsyms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kallsyms").field("symbols", &self.table.get().map(|t| t.places.len())).finish_non_exhaustive()
    }
}

impl Default for Kallsyms {
    fn default() -> Self {
        Kallsyms::from_bytes(Vec::new())
    }
}

impl Kallsyms {
    /// Symbols of a text that `load` hands out in pieces when the first symbol is asked for, as [`PieceReader`] says. A text that
    /// cannot be loaded counts as empty.
    pub fn new(load: impl Fn(&mut dyn FnMut(Cow<'_, [u8]>)) -> Result<bool> + Send + Sync + 'static) -> Self {
        Kallsyms {
            load: Box::new(load),
            extra: Vec::new(),
            table: OnceLock::new(),
            by_name: OnceLock::new(),
            asked_by_name: AtomicU32::new(0),
        }
    }

    /// Symbols of a text at hand.
    pub fn from_bytes(text: Vec<u8>) -> Self {
        Kallsyms::new(move |each| {
            each(Cow::Borrowed(&text));
            Ok(true)
        })
    }

    /// Adds the symbols of another text of the same form (`report --kallsyms`). Has no effect once a symbol was asked for.
    pub fn add_text(&mut self, text: &[u8]) {
        if !self.extra.is_empty() && self.extra.last() != Some(&b'\n') {
            self.extra.push(b'\n');
        }
        self.extra.extend_from_slice(text);
    }

    fn table(&self) -> &Table {
        self.table.get_or_init(|| {
            let mut lines = Lines::default();
            let loaded = (self.load)(&mut |piece| match piece {
                Cow::Owned(text) if lines.is_new() => lines.in_place(text),
                piece => lines.piece(&piece),
            });
            let is_good = loaded.unwrap_or_else(|e| {
                log::warn!("kallsyms: {e}");
                false
            });
            if !is_good {
                lines = Lines::default();
            }
            lines.end();
            lines.piece(&self.extra);
            lines.end();
            lines.table()
        })
    }

    /// How many symbols there are.
    pub fn len(&self) -> usize {
        self.table().places.len()
    }

    /// True when there is no symbol.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All symbols sorted by address.
    pub fn iter(&self) -> impl Iterator<Item = Symbol<'_>> {
        let table = self.table();
        (0..table.places.len()).filter_map(|i| table.symbol(i))
    }

    /// The symbol that `addr` lies in: the last one that begins at or before it. Nothing before the first symbol, and nothing
    /// behind the start of the last one, whose end is not known.
    pub fn find(&self, addr: u64) -> Option<Symbol<'_>> {
        let table = self.table();
        table.name_of(addr).and_then(|f| table.symbol(f.number))
    }

    /// The name of the symbol that `addr` lies in; names that were asked for before are not searched again.
    #[inline]
    pub fn name_at(&self, addr: u64) -> Option<Name<'_>> {
        let table = match self.table.get() {
            Some(table) => table,
            None => self.table(),
        };
        let FoundName { start, len, .. } = table.name_of(addr)?;
        Some(Name { text: table.names.get(start..)?, len })
    }

    /// Where the symbol of this name begins; of several the one with the lowest address.
    pub fn address_of(&self, name: &[u8]) -> Option<u64> {
        let table = self.table();
        if self.by_name.get().is_none() && self.asked_by_name.fetch_add(1, Ordering::Relaxed) < FEW_NAMES {
            let same = |p: &&Place| {
                let start = p.start as usize;
                usize::from(p.len) == name.len() && table.names.get(start..start + name.len()) == Some(name)
            };
            return table.places.iter().find(same).map(|p| p.addr);
        }
        let index = self.by_name.get_or_init(|| {
            let mut v: Vec<(u32, u32)> =
                (0..table.places.len()).map(|i| (hash(table.name(i).unwrap_or_default()), i as u32)).collect();
            v.sort_unstable();
            v
        });
        let h = hash(name);
        let from = index.partition_point(|e| e.0 < h);
        index
            .get(from..)?
            .iter()
            .take_while(|e| e.0 == h)
            .map(|e| e.1 as usize)
            .find(|i| table.name(*i) == Some(name))
            .and_then(|i| Some(table.places.get(i)?.addr))
    }
}

fn hash(name: &[u8]) -> u32 {
    name.iter().fold(0x811c_9dc5, |h: u32, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193))
}

/// The text of a usual kernel comes in pieces of at least so many bytes …
const LONG: usize = 32 << 10;
/// … and has not more than so many bytes of names, and so many symbols.
const USUAL_NAMES: usize = 12 << 20;
const USUAL_SYMBOLS: usize = 400_000;

/// Bytes behind the last name: names are copied with what is behind them.
const BEHIND: usize = 32;

/// The symbols while their lines are read.
#[derive(Default)]
struct Lines {
    names: Vec<u8>,
    places: Vec<Place>,
    /// The start of a line whose end is in the next piece.
    begun: Vec<u8>,
}

impl Lines {
    /// Whether there was no piece yet.
    fn is_new(&self) -> bool {
        self.names.is_empty() && self.places.is_empty() && self.begun.is_empty()
    }

    /// Takes the first piece, in whose memory the names stay: they move to its front.
    fn in_place(&mut self, mut text: Vec<u8>) {
        let end = memchr::memrchr(b'\n', &text).map_or(0, |n| n + 1);
        self.begun.extend_from_slice(text.get(end..).unwrap_or_default());
        text.truncate(end);
        // A line is longer than its names: what is written never reaches what is read next.
        let (mut read, mut write) = (0, 0);
        while let Some(lines) = text.get(read..).filter(|l| !l.is_empty()) {
            let (addr, found, used) = parse_line(lines);
            if let (Some(addr), Some(Words { start, len, module })) = (addr, found)
                && let Ok(place) = u32::try_from(write)
            {
                self.places.push(Place { addr, start: place, len, module: module.len() as u16 });
                for word in [start..start + usize::from(len), module] {
                    let (from, to) = (read + word.start, write);
                    write += word.len();
                    text.copy_within(from..from + word.len(), to);
                }
            }
            read += used;
        }
        text.truncate(write);
        text.shrink_to(write + BEHIND);
        self.names = text;
    }

    /// Takes the next piece of the text.
    fn piece(&mut self, mut piece: &[u8]) {
        if self.places.capacity() == 0 && piece.len() >= LONG {
            // Untouched memory costs nothing, but vectors that grow are copied.
            self.names.reserve(USUAL_NAMES);
            self.places.reserve(USUAL_SYMBOLS);
        }
        if !self.begun.is_empty() {
            let (first, rest) = piece.split_at(line_len(piece));
            self.begun.extend_from_slice(first);
            if first.last() != Some(&b'\n') {
                return;
            }
            self.end();
            piece = rest;
        }
        let (lines, begun) = piece.split_at(memchr::memrchr(b'\n', piece).map_or(0, |n| n + 1));
        self.whole(lines);
        self.begun.extend_from_slice(begun);
    }

    /// The text ends here; so does its last line.
    fn end(&mut self) {
        let mut line = std::mem::take(&mut self.begun);
        self.whole(&line);
        line.clear();
        self.begun = line;
    }

    fn whole(&mut self, mut lines: &[u8]) {
        while !lines.is_empty() {
            let (addr, found, used) = parse_line(lines);
            // Places are kept in 32 bits: no kernel has 4 GiB of names.
            if let (Some(addr), Some(Words { start, len, module })) = (addr, found)
                && let Ok(place) = u32::try_from(self.names.len())
            {
                push_start::<32>(&mut self.names, lines.get(start..).unwrap_or_default(), len.into());
                let module = lines.get(module).unwrap_or_default();
                self.names.extend_from_slice(module);
                self.places.push(Place { addr, start: place, len, module: module.len() as u16 });
            }
            lines = lines.get(used..).unwrap_or_default();
        }
    }

    fn table(self) -> Table {
        let Lines { mut names, mut places, .. } = self;
        names.extend([0; BEHIND]);
        sort_by_address(&mut places);
        Table { names, places, ..Table::default() }
    }
}

impl Table {
    #[inline(always)]
    fn name_of(&self, addr: u64) -> Option<FoundName> {
        self.found.get().and_then(|found| found.get(addr)).or_else(|| self.search_name(addr))
    }

    #[inline(never)]
    fn search_name(&self, addr: u64) -> Option<FoundName> {
        let number = self.index(addr)?;
        let place = self.places.get(number)?;
        let found = FoundName { number, start: place.start as usize, len: usize::from(place.len) };
        let keep = match self.found.get() {
            None if self.searches.fetch_add(1, Ordering::Relaxed) < FEW_SEARCHES => return Some(found),
            None => self.found.get_or_init(Found::new),
            Some(keep) => keep,
        };
        keep.put(addr, found);
        Some(found)
    }

    fn name(&self, i: usize) -> Option<&[u8]> {
        let p = self.places.get(i)?;
        let start = p.start as usize;
        self.names.get(start..start + usize::from(p.len))
    }

    fn symbol(&self, i: usize) -> Option<Symbol<'_>> {
        let p = self.places.get(i)?;
        let end = p.start as usize + usize::from(p.len);
        let module = match p.module {
            0 => None,
            n => self.names.get(end..end + usize::from(n)),
        };
        Some(Symbol { addr: p.addr, name: self.name(i)?, module })
    }

    /// A plain binary search; its path decides between symbols at one address.
    #[inline]
    fn index(&self, addr: u64) -> Option<usize> {
        let (mut low, mut high) = (0, self.places.len());
        while low < high {
            let mid = (low + high) / 2;
            let begin = self.places.get(mid)?.addr;
            if addr < begin {
                high = mid;
            } else if addr == begin || self.places.get(mid + 1).is_some_and(|next| addr < next.addr) {
                return Some(mid);
            } else {
                low = mid + 1;
            }
        }
        None
    }
}

/// Where the words of a line lie in it.
struct Words {
    /// First byte of the name.
    start: usize,
    /// Bytes of the name.
    len: u16,
    /// The module's name, at most 65535 bytes; empty for none.
    module: std::ops::Range<usize>,
}

/// Bytes before the first blank or control byte, eight at a time.
#[inline(always)]
fn word_len(text: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut len = 0;
    while let Some(eight) = text.get(len..).and_then(|t| t.first_chunk::<8>()) {
        let v = u64::from_le_bytes(*eight);
        // The highest bit of each byte below 0x21; above the lowest such byte there may be wrong ones.
        let found = v.wrapping_sub(0x21 * ONES) & !v & (0x80 * ONES);
        if found != 0 {
            return len + found.trailing_zeros() as usize / 8;
        }
        len += 8;
    }
    let rest = text.get(len..).unwrap_or_default();
    len + rest.iter().position(|b| *b <= b' ').unwrap_or(rest.len())
}

/// One line at the start of `rest`: address, places of the words, bytes of the whole line.
#[inline(always)]
fn parse_line(rest: &[u8]) -> (Option<u64>, Option<Words>, usize) {
    let Some((addr, kind, start)) = usual_head(rest).or_else(|| slow_head(rest)) else {
        return (None, None, line_len(rest));
    };
    let name = rest.get(start..).unwrap_or_default();
    let len = word_len(name);
    let tail = name.get(len..).unwrap_or_default();
    let mut module = 0..0;
    let used = match tail {
        [b'\n', ..] => start + len + 1,
        _ => {
            if let [b'\t', more @ ..] = tail {
                let skip = more.iter().position(|b| !matches!(b, b' ' | b'\t')).unwrap_or(more.len());
                if let Some((b'[', word)) = more.get(skip..).and_then(<[u8]>::split_first) {
                    let end = word.iter().position(|b| *b <= b' ' || *b == b']').unwrap_or(word.len());
                    let at = start + len + skip + 2;
                    module = at..at + end.min(u16::MAX.into());
                }
            }
            start + len + line_len(tail)
        }
    };
    let keep = !matches!(kind, b'a' | b'A') && len > 0 && name.first() != Some(&b'$');
    let words = u16::try_from(len).ok().filter(|_| keep).map(|len| Words { start, len, module });
    (Some(addr), words, used)
}

fn line_len(rest: &[u8]) -> usize {
    memchr::memchr(b'\n', rest).map_or(rest.len(), |n| n + 1)
}

/// The usual shape: 16 digits, or 8 on a 32-bit machine, blank, letter, blank. Address, letter, where the name begins.
#[inline(always)]
fn usual_head(rest: &[u8]) -> Option<(u64, u8, usize)> {
    let head: &[u8; 19] = rest.first_chunk()?;
    let high = u64::from(hex8(*head.first_chunk()?)?);
    let (addr, len) = match head[8] {
        b' ' => (high, 8),
        _ => (high << 32 | u64::from(hex8(*head.get(8..)?.first_chunk()?)?), 16),
    };
    match rest.get(len..)? {
        [b' ', kind, b' ', first, ..] if *kind > b' ' && *first > b' ' => Some((addr, *kind, len + 3)),
        _ => None,
    }
}

/// Any other shape that `sscanf("%llx %c %s")` takes.
#[cold]
fn slow_head(rest: &[u8]) -> Option<(u64, u8, usize)> {
    let line = rest.get(..line_len(rest))?;
    let blanks =
        |from: usize| line.get(from..).unwrap_or_default().iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    let mut at = blanks(0);
    if line.get(at..at + 2).is_some_and(|x| x.eq_ignore_ascii_case(b"0x")) {
        at += 2;
    }
    let digits = line.get(at..)?.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let text = std::str::from_utf8(line.get(at..at + digits)?).ok()?;
    let addr = u64::from_str_radix(text, 16).ok()?;
    at += digits;
    at += blanks(at);
    let kind = *line.get(at).filter(|b| **b > b' ')?;
    at += 1;
    at += blanks(at);
    Some((addr, kind, at))
}

/// Eight hex digits at once, in one register.
#[inline(always)]
fn hex8(b: [u8; 8]) -> Option<u32> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let v = u64::from_be_bytes(b);
    let lower = v | (0x20 * ONES); // digits keep their value, letters become small
    let letter = (v >> 6) & ONES; // 1 for bytes from 0x40 on
    // A byte is a digit when it is '0'..='9' or 'a'..='f'.
    let ok = b.iter().all(u8::is_ascii_hexdigit);
    if !ok {
        return None;
    }
    let nibbles = (lower & (0x0f * ONES)).wrapping_add(letter * 9);
    let pairs = (nibbles | nibbles >> 4) & 0x00ff_00ff_00ff_00ff;
    let quads = (pairs | pairs >> 8) & 0x0000_ffff_0000_ffff;
    Some((quads | quads >> 16) as u32)
}

/// Sorts by address; at one address the later line comes first.
fn sort_by_address(places: &mut [Place]) {
    // The kernel's own are sorted and lie before those of modules: what is in its place already needs no memory to be sorted in.
    let run = places.chunk_by(|a, b| a.addr <= b.addr).next().map_or(0, <[Place]>::len);
    let (sorted, rest) = places.split_at(run);
    if let Some(least) = rest.iter().map(|p| p.addr).min() {
        let stays = sorted.partition_point(|p| p.addr <= least);
        // kallsyms consists of sorted runs, which the stable sort finds
        places.get_mut(stays..).unwrap_or_default().sort_by_key(|p| p.addr);
    }
    places.chunk_by_mut(|a, b| a.addr == b.addr).filter(|same| same.len() > 1).for_each(<[Place]>::reverse);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(k: &Kallsyms, addr: u64) -> &str {
        k.find(addr).map_or("", |s| std::str::from_utf8(s.name).unwrap())
    }

    #[test]
    fn words_end_at_blanks_and_control_bytes() {
        for end in [b' ', b'\t', b'\n', 0, 0x1f] {
            for len in 0..40 {
                let mut text = vec![b'x'; len];
                text.iter_mut().step_by(3).for_each(|b| *b = 0xe9);
                assert_eq!(word_len(&text), len);
                text.push(end);
                text.extend_from_slice(b"! ~\x80");
                assert_eq!(word_len(&text), len, "{end}");
            }
        }
    }

    #[test]
    fn lookup_follows_the_reference() {
        let text = "0000000000000000 A fixed\n0000000000001000 T alpha\n0000000000001000 T alpha2\n\
            0000000000001000 t alpha3\n0000000000002000 a absym\n0000000000003000 T $dollar\n\
            0000000000004000 T beta\t[mod]\n0000000000005000 T gamma [mod2]\n0000000000005000 T gamma2\n\
            0000000000004800 T early\n0000000000006000 D last\n";
        let k = Kallsyms::from_bytes(text.into());
        let wanted = [
            (0, ""),
            (0xfff, ""),
            (0x1000, "alpha"),
            (0x1001, "alpha"),
            (0x3000, "alpha"),
            (0x4000, "beta"),
            (0x4001, "beta"),
            (0x4800, "early"),
            (0x4fff, "early"),
            (0x5000, "gamma"),
            (0x5001, "gamma"),
            (0x6000, "last"),
            (0x6001, ""),
            (u64::MAX, ""),
        ];
        for (addr, want) in wanted {
            assert_eq!(name(&k, addr), want, "{addr:#x}");
        }
        let order: Vec<_> = k.iter().map(|s| String::from_utf8_lossy(s.name).into_owned()).collect();
        assert_eq!(order, ["alpha3", "alpha2", "alpha", "beta", "early", "gamma2", "gamma", "last"]);
        assert_eq!(k.find(0x4000).unwrap().module, Some(&b"mod"[..]));
        assert_eq!(k.find(0x5000).unwrap().module, None);
        for _ in 0..FEW_NAMES {
            assert_eq!(k.address_of(b"early"), Some(0x4800));
            assert_eq!(k.address_of(b"absym"), None);
        }
        assert!(k.by_name.get().is_some());
        assert!(k.table().found.get().is_none());
        for _ in 0..FEW_SEARCHES {
            wanted.iter().for_each(|(addr, want)| assert_eq!(name(&k, *addr), *want, "{addr:#x}"));
        }
        assert!(k.table().found.get().is_some());
    }

    #[test]
    fn pieces_of_any_size() {
        let text = b"1000 T alpha\n0000000000002000 t beta\t[some_module]\n\nbad\n3000 T gamma\t[m]";
        let all = |k: &Kallsyms| -> Vec<_> {
            k.iter().map(|s| (s.addr, s.name.to_vec(), s.module.map(<[u8]>::to_vec))).collect()
        };
        let want = all(&Kallsyms::from_bytes(text.to_vec()));
        assert_eq!(want.len(), 3);
        assert_eq!(want[1], (0x2000, b"beta".to_vec(), Some(b"some_module".to_vec())));
        for size in 1..text.len() {
            let mut k = Kallsyms::new(move |each| {
                text.chunks(size).for_each(|piece| each(Cow::Borrowed(piece)));
                Ok(true)
            });
            assert_eq!(all(&k), want, "{size}");
            // The first piece is given away.
            k = Kallsyms::new(move |each| {
                each(Cow::Owned(text[..size].to_vec()));
                each(Cow::Owned(text[size..].to_vec()));
                Ok(true)
            });
            assert_eq!(all(&k), want, "{size}");
            k = Kallsyms::from_bytes(text[..size].to_vec());
            k.add_text(&text[size..]);
            assert!(all(&k).len() >= 2, "{size}");
        }
    }

    #[test]
    fn odd_lines() {
        let k = Kallsyms::from_bytes(
            b"1000 T a\nbad\n\n 2000  t   b x\nc0FFee01 T c\r\n9000 T \nfffffffffffffffffff T big\n".into(),
        );
        let all: Vec<_> = k.iter().map(|s| (s.addr, s.name)).collect();
        assert_eq!(all, [(0x1000, &b"a"[..]), (0x2000, b"b"), (0xc0ff_ee01, b"c")]);
        assert!(Kallsyms::default().is_empty());
        assert_eq!(usual_head(b"ffffffff81a0bCdE t x"), Some((0xffff_ffff_81a0_bcde, b't', 19)));
        assert_eq!(usual_head(b"c1a0bCdE T _stext\nc1a0"), Some((0xc1a0_bcde, b'T', 11)));
        for other in [
            "ffffffff81a0bCdG t x",
            "c1a0bCdE  T _stext_and_more",
            "c1a0bCdET _stext_and_more",
            "c1a0b T _stext_and_more",
            "c1a0bCdE T  _stext_and",
        ] {
            assert_eq!(usual_head(other.as_bytes()), None, "{other}");
        }
    }
}
