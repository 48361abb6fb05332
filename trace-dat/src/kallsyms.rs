//! Kernel symbols: address to name.
//!
//! The text is that of `/proc/kallsyms`: address in hex, a type letter, the name, and for a module's symbol a tab and
//! `[module]`. It has several megabytes on a usual kernel, most of whose lines are sorted by address: of those it is noted where each
//! sixteenth begins, and they are read again when a symbol among them is asked for. The other ones (of modules and BPF programs)
//! have places in a table. An index by name is made when something asks by name more often.

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use crate::{lazy::LazyText, pages::Text, plain::is_special, short::push_start};

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

/// A symbol: where it begins, and where its name lies in the text.
#[derive(Clone, Copy, Debug)]
struct Place {
    addr: u64,
    /// First byte of the name.
    start: u32,
    /// Bytes of the name.
    len: u16,
    /// Bytes from there to the module's name; 0 for none.
    module: u16,
}

/// The symbols by address. Each has a rank: its number in the order of addresses, where at one address the later line comes first.
#[derive(Debug)]
struct Table {
    text: Text,
    /// Lines at the start of the text that are in order.
    run: Run,
    /// Symbols of the other lines, by rank.
    places: Vec<Place>,
    /// So many of them lie before those of the run, all others behind them.
    before: usize,
    found: OnceLock<Found>,
    searches: AtomicU32,
}

/// The kernel's own symbols, whose lines stand in the order of addresses and begin with all digits of an address, a blank, a letter and
/// a blank.
#[derive(Debug, Default)]
struct Run {
    /// Where the line of each [`LINES`]th symbol begins in the text.
    blocks: Vec<u32>,
    /// How many symbols there are.
    len: usize,
    /// Digits of an address.
    digits: usize,
    /// Addresses of the first and the last one.
    first: u64,
    last: u64,
    /// Where its lines end in the text.
    end: usize,
}

/// Symbols of a block: so many lines are read at most to find one.
const LINES: usize = 16;

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
    load: LazyText,
    /// More symbols given by the user, behind those of the file.
    extra: Vec<u8>,
    table: OnceLock<Table>,
    by_name: OnceLock<Vec<(u32, u32)>>,
    asked_by_name: AtomicU32,
    plain: OnceLock<bool>,
}

/// So many names are looked for one after the other; an index pays for more only.
const FEW_NAMES: u32 = 8;

impl std::fmt::Debug for Kallsyms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kallsyms").field("symbols", &self.table.get().map(Table::len)).finish_non_exhaustive()
    }
}

impl Default for Kallsyms {
    fn default() -> Self {
        Kallsyms::new(LazyText::None)
    }
}

impl Kallsyms {
    /// Symbols of a text that is read when the first symbol is asked for. A text that cannot be loaded counts as empty.
    pub fn new(text: LazyText) -> Self {
        Kallsyms {
            load: text,
            extra: Vec::new(),
            table: OnceLock::new(),
            by_name: OnceLock::new(),
            asked_by_name: AtomicU32::new(0),
            plain: OnceLock::new(),
        }
    }

    /// Symbols of a text at hand.
    pub fn from_bytes(text: Vec<u8>) -> Self {
        Kallsyms::new(LazyText::Bytes(text))
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
            let mut text = self.load.load().unwrap_or_else(|e| {
                log::warn!("kallsyms: {e}");
                Vec::new().into()
            });
            if !self.extra.is_empty() {
                let mut all = text.into_vec();
                if !all.ends_with(b"\n") && !all.is_empty() {
                    all.push(b'\n');
                }
                all.extend_from_slice(&self.extra);
                text = all.into();
            }
            Table::new(text)
        })
    }

    /// Whether a symbol was asked for.
    #[inline]
    pub(crate) fn is_read(&self) -> bool {
        self.table.get().is_some()
    }

    /// How many symbols there are.
    pub fn len(&self) -> usize {
        self.table().len()
    }

    /// True when there is no symbol.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All symbols sorted by address.
    pub fn iter(&self) -> impl Iterator<Item = Symbol<'_>> {
        self.table().iter()
    }

    /// Whether all names are printable ASCII without quotation marks and backslashes.
    pub fn are_plain(&self) -> bool {
        *self.plain.get_or_init(|| {
            // What stands between the lines and before the names of modules is no part of a name. Pieces are looked at without a branch
            // for each byte.
            let odd = |b: u8| is_special(b) & u8::from(b != b'\n') & u8::from(b != b'\t');
            self.table().text.chunks(256).all(|piece| piece.iter().fold(0, |any, b| any | odd(*b)) == 0)
        })
    }

    /// The symbol that `addr` lies in: the last one that begins at or before it. Nothing before the first symbol, and nothing
    /// behind the start of the last one, whose end is not known.
    pub fn find(&self, addr: u64) -> Option<Symbol<'_>> {
        let table = self.table();
        table.name_of(addr).and_then(|f| table.symbol(f))
    }

    /// The name of the symbol that `addr` lies in; names that were asked for before are not searched again.
    #[inline]
    pub fn name_at(&self, addr: u64) -> Option<Name<'_>> {
        let table = match self.table.get() {
            Some(table) => table,
            None => self.table(),
        };
        let FoundName { start, len, .. } = table.name_of(addr)?;
        Some(Name { text: table.text.get(start..)?, len })
    }

    /// Where the symbol of this name begins; of several the one with the lowest address.
    pub fn address_of(&self, name: &[u8]) -> Option<u64> {
        let table = self.table();
        if self.by_name.get().is_none() && self.asked_by_name.fetch_add(1, Ordering::Relaxed) < FEW_NAMES {
            return table.address_of(name);
        }
        let index = self.by_name.get_or_init(|| {
            let mut v: Vec<(u32, u32)> = table.iter().enumerate().map(|(i, s)| (hash(s.name), i as u32)).collect();
            v.sort_unstable();
            v
        });
        let h = hash(name);
        let from = index.partition_point(|e| e.0 < h);
        index
            .get(from..)?
            .iter()
            .take_while(|e| e.0 == h)
            .filter_map(|e| table.nth(e.1 as usize))
            .find(|p| table.name(p) == name)
            .map(|p| p.addr)
    }
}

fn hash(name: &[u8]) -> u32 {
    name.iter().fold(0x811c_9dc5, |h: u32, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193))
}

/// More bytes of text than any kernel has are not read: places are kept in 32 bits.
const MOST_TEXT: usize = u32::MAX as usize;

impl Run {
    /// The lines at the start of `text` that are in order, up to those of modules.
    fn new(text: &[u8]) -> Run {
        let end = text.iter().position(|b| *b != b'\n').unwrap_or(text.len());
        let digits = if text.get(end + 8) == Some(&b' ') { 8 } else { 16 };
        let mut run = Run { digits, end, ..Run::default() };
        // The first digits of most addresses are those of the line before.
        let mut high = ([0; 8], None);
        while let Some(rest) = text.get(run.end..)
            && let Some((addr, kept)) = run.head_with(rest, |digits| {
                if high.0 != *digits {
                    high = (*digits, hex8(digits));
                }
                high.1
            })
            && let len @ ..=MOST_LINE = usual_line_len(rest, digits + 3)
            && rest.get(len - 2) != Some(&b']')
        {
            if kept {
                if run.len == 0 {
                    run.first = addr;
                } else if addr < run.last {
                    break;
                }
                if run.len.is_multiple_of(LINES) {
                    run.blocks.push(run.end as u32);
                }
                run.len += 1;
                run.last = addr;
            }
            run.end += len;
        }
        run
    }

    /// Address of the line that `rest` begins with, and whether it is a symbol that is kept; `None` for a line of another shape.
    #[inline(always)]
    fn head(&self, rest: &[u8]) -> Option<(u64, bool)> {
        self.head_with(rest, hex8)
    }

    /// As [`Run::head`]; `high` tells what the first digits of a long address are. As [`usual_head`] for addresses whose length is known,
    /// which takes fewer instructions for each line.
    #[inline(always)]
    fn head_with(&self, rest: &[u8], high: impl FnOnce(&[u8; 8]) -> Option<u32>) -> Option<(u64, bool)> {
        let (addr, kind, first) = match self.digits {
            16 => {
                let head = rest.first_chunk::<20>()?;
                let high = high(head.first_chunk()?)?;
                let low = hex8(head.get(8..)?.first_chunk()?)?;
                (u64::from(high) << 32 | u64::from(low), head.get(16..19)?.first_chunk()?, head.get(19)?)
            }
            _ => {
                let head = rest.first_chunk::<12>()?;
                (hex8(head.first_chunk()?)?.into(), head.get(8..11)?.first_chunk()?, head.get(11)?)
            }
        };
        let [b' ', kind, b' '] = *kind else { return None };
        (kind > b' ' && *first > b' ').then_some((addr, is_kept(kind, Some(first))))
    }

    /// The symbols from that of a block on: rank within the run, address, and where the line begins.
    #[inline]
    fn symbols_from<'a>(&'a self, text: &'a [u8], block: usize) -> impl Iterator<Item = (usize, u64, usize)> + 'a {
        let mut at = self.blocks.get(block).map_or(self.end, |at| *at as usize);
        let mut rank = block * LINES;
        std::iter::from_fn(move || {
            while at < self.end {
                let rest = text.get(at..)?;
                let (addr, kept) = self.head(rest)?;
                let start = at;
                at += line_len(rest);
                if kept {
                    rank += 1;
                    return Some((rank - 1, addr, start));
                }
            }
            None
        })
    }

    /// Address of the first symbol of a block.
    #[inline]
    fn block_addr(&self, text: &[u8], at: u32) -> u64 {
        text.get(at as usize..).and_then(|rest| self.head(rest)).map_or(0, |h| h.0)
    }

    /// The last symbols that begin at or before `addr`: numbers are those in the run.
    fn last_before(&self, text: &[u8], addr: u64) -> Option<Before> {
        let block = self.blocks.partition_point(|at| self.block_addr(text, *at) <= addr).checked_sub(1)?;
        let (mut first, mut begin, mut last) = (block * LINES, 0, (0, 0));
        for (rank, a, line) in self.symbols_from(text, block).take(LINES).take_while(|(_, a, _)| *a <= addr) {
            if a != begin {
                (first, begin) = (rank, a);
            }
            last = (rank, line);
        }
        if first == block * LINES && block > 0 {
            // Symbols at the same address may stand at the end of the block before, or fill blocks.
            let same = self.blocks.partition_point(|at| self.block_addr(text, *at) < begin);
            first = same * LINES;
            if let Some(before) = same.checked_sub(1) {
                let mut of_block = self.symbols_from(text, before).take(LINES);
                first = of_block.find(|(_, a, _)| *a == begin).map_or(first, |(rank, ..)| rank);
            }
        }
        Some(Before { addr: begin, ranks: first..last.0 + 1, line: Some(last.1) })
    }
}

/// Symbols at one address.
struct Before {
    addr: u64,
    /// Their ranks.
    ranks: std::ops::Range<usize>,
    /// Where the line of the last one of the text begins; that is the symbol of the lowest rank. `None`: they have places.
    line: Option<usize>,
}

/// A line of the run is not longer than this.
const MOST_LINE: usize = u16::MAX as usize;

impl Table {
    fn new(text: Text) -> Table {
        let mut table = Table {
            run: Run::default(),
            places: Vec::new(),
            before: 0,
            found: OnceLock::new(),
            searches: AtomicU32::new(0),
            text,
        };
        table.text.truncate(MOST_TEXT);
        table.run = Run::new(&table.text);
        table.places = places(&table.text, table.run.end);
        let (first, last) = (table.run.first, table.run.last);
        table.before = table.places.partition_point(|p| p.addr < first);
        let is_apart = table.places.get(table.before).is_none_or(|p| p.addr > last);
        if !is_apart {
            // The run has other symbols in it: all get places.
            table.run = Run::default();
            table.places = places(&table.text, 0);
            table.before = table.places.len();
        }
        table
    }

    fn len(&self) -> usize {
        self.places.len() + self.run.len
    }

    #[inline(always)]
    fn name_of(&self, addr: u64) -> Option<FoundName> {
        self.found.get().and_then(|found| found.get(addr)).or_else(|| self.search_name(addr))
    }

    #[inline(never)]
    fn search_name(&self, addr: u64) -> Option<FoundName> {
        let (number, place) = self.search(addr)?;
        let found = FoundName { number, start: place.start as usize, len: usize::from(place.len) };
        let keep = match self.found.get() {
            None if self.searches.fetch_add(1, Ordering::Relaxed) < FEW_SEARCHES => return Some(found),
            None => self.found.get_or_init(Found::new),
            Some(keep) => keep,
        };
        keep.put(addr, found);
        Some(found)
    }

    /// The symbols of the run lie there in the order of the text; at one address that is not the order of ranks.
    fn run_iter(&self) -> impl Iterator<Item = Place> + '_ {
        let mut lines = self.run.symbols_from(&self.text, 0).peekable();
        let mut same = Vec::new();
        std::iter::from_fn(move || {
            if same.is_empty() {
                let (_, addr, start) = lines.next()?;
                same.push(start);
                while let Some((_, _, start)) = lines.next_if(|(_, a, _)| *a == addr) {
                    same.push(start);
                }
            }
            self.place_at(same.pop()?)
        })
    }

    fn iter(&self) -> impl Iterator<Item = Symbol<'_>> {
        let (before, behind) = self.places.split_at_checked(self.before).unwrap_or_default();
        before.iter().copied().chain(self.run_iter()).chain(behind.iter().copied()).map(|p| self.symbol_of(&p))
    }

    /// The symbol whose line begins here.
    fn place_at(&self, line: usize) -> Option<Place> {
        let (addr, words, _) = parse_line(self.text.get(line..)?);
        words.map(|w| w.place(addr, line))
    }

    /// The symbol of this rank.
    fn nth(&self, rank: usize) -> Option<Place> {
        let Some(in_run) = rank.checked_sub(self.before) else { return self.places.get(rank).copied() };
        if in_run >= self.run.len {
            return self.places.get(rank - self.run.len).copied();
        }
        let line = |n: usize| self.run.symbols_from(&self.text, n / LINES).nth(n % LINES);
        let (_, addr, mut at) = line(in_run)?;
        let same = self.run.last_before(&self.text, addr)?.ranks;
        if same.len() > 1 {
            at = line(same.start + same.end.checked_sub(in_run + 1)?)?.2;
        }
        self.place_at(at)
    }

    fn name(&self, p: &Place) -> &[u8] {
        let start = p.start as usize;
        self.text.get(start..start + usize::from(p.len)).unwrap_or_default()
    }

    fn symbol_of(&self, p: &Place) -> Symbol<'_> {
        let module = match usize::from(p.module) {
            0 => None,
            n => self.text.get(p.start as usize + n..).map(|text| text.get(..module_len(text)).unwrap_or_default()),
        };
        Symbol { addr: p.addr, name: self.name(p), module }
    }

    fn symbol(&self, found: FoundName) -> Option<Symbol<'_>> {
        let in_run = found.number.checked_sub(self.before).is_some_and(|n| n < self.run.len);
        let place = match found.start.checked_sub(self.run.digits + 3) {
            Some(line) if in_run => self.place_at(line)?,
            _ => self.nth(found.number)?,
        };
        Some(self.symbol_of(&place))
    }

    /// Where the symbol of this name begins; of several the lowest address.
    fn address_of(&self, name: &[u8]) -> Option<u64> {
        let (before, behind) = self.places.split_at_checked(self.before).unwrap_or_default();
        let among = |places: &[Place]| places.iter().find(|p| self.name(p) == name).map(|p| p.addr);
        let in_run = || {
            let lines = self.text.get(..self.run.end)?;
            let mut starts = memchr::memmem::find_iter(lines, name);
            starts.find_map(|start| {
                let line = start.checked_sub(self.run.digits + 3)?;
                let is_line = line == 0 || lines.get(line - 1) == Some(&b'\n');
                let place = if is_line { self.place_at(line)? } else { return None };
                (usize::from(place.len) == name.len()).then_some(place.addr)
            })
        };
        among(before).or_else(in_run).or_else(|| among(behind))
    }

    /// Rank and place of the symbol that `addr` lies in. What a plain binary search over all symbols finds; its path decides between
    /// those at one address.
    fn search(&self, addr: u64) -> Option<(usize, Place)> {
        let Before { addr: begin, ranks: same, line } = self.last_before(addr)?;
        let len = self.len();
        // The end of the last one is not known.
        if begin != addr && same.end == len {
            return None;
        }
        let (mut low, mut high, mut rank) = (0, len, same.start);
        while same.len() > 1 && low < high {
            let mid = (low + high) / 2;
            if mid >= same.end {
                high = mid;
            } else if mid < same.start || (begin != addr && mid + 1 != same.end) {
                low = mid + 1;
            } else {
                rank = mid;
                break;
            }
        }
        let place = match line {
            Some(line) if rank == same.start => self.place_at(line),
            _ => self.nth(rank),
        };
        Some((rank, place?))
    }

    /// The last symbols that begin at or before `addr`.
    fn last_before(&self, addr: u64) -> Option<Before> {
        let number = self.places.partition_point(|p| p.addr <= addr);
        if number <= self.before && self.run.len > 0 && addr >= self.run.first {
            let mut found = self.run.last_before(&self.text, addr)?;
            found.ranks = found.ranks.start + self.before..found.ranks.end + self.before;
            return Some(found);
        }
        let begin = self.places.get(number.checked_sub(1)?)?.addr;
        let first = self.places.partition_point(|p| p.addr < begin);
        let add = if number > self.before { self.run.len } else { 0 };
        Some(Before { addr: begin, ranks: first + add..number + add, line: None })
    }
}

/// The symbols of the lines of `text` from `at` on, by rank.
fn places(text: &[u8], mut at: usize) -> Vec<Place> {
    let mut places = Vec::new();
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let (addr, words, used) = parse_line(rest);
        places.extend(words.map(|w| w.place(addr, at)));
        at += used;
    }
    sort_by_address(&mut places);
    places
}

/// Bytes of a module's name at the start of `text`, 65535 at most.
fn module_len(text: &[u8]) -> usize {
    text.iter().position(|b| *b <= b' ' || *b == b']').unwrap_or(text.len()).min(u16::MAX.into())
}

/// Where the words of a line lie in it.
struct Words {
    /// First byte of the name.
    start: usize,
    /// Bytes of the name.
    len: u16,
    /// Bytes from the start of the name to that of the module's; 0 for none.
    module: u16,
}

impl Words {
    fn place(self, addr: u64, line: usize) -> Place {
        Place { addr, start: (line + self.start) as u32, len: self.len, module: self.module }
    }
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

/// One line at the start of `rest`: address, places of the words of a symbol that is kept, bytes of the whole line.
#[inline(always)]
fn parse_line(rest: &[u8]) -> (u64, Option<Words>, usize) {
    let Some((addr, kind, start)) = usual_head(rest).or_else(|| slow_head(rest)) else {
        return (0, None, line_len(rest));
    };
    let name = rest.get(start..).unwrap_or_default();
    let len = word_len(name);
    let tail = name.get(len..).unwrap_or_default();
    let mut module = 0;
    let used = match tail {
        [b'\n', ..] => start + len + 1,
        _ => {
            if let [b'\t', more @ ..] = tail {
                let skip = more.iter().position(|b| !matches!(b, b' ' | b'\t')).unwrap_or(more.len());
                if let Some((b'[', word)) = more.get(skip..).and_then(<[u8]>::split_first)
                    && module_len(word) > 0
                {
                    module = len + skip + 2;
                }
            }
            start + len + line_len(tail)
        }
    };
    let keep = len > 0 && is_kept(kind, name.first());
    let words = match (u16::try_from(len), u16::try_from(module)) {
        (Ok(len), module) if keep => Some(Words { start, len, module: module.unwrap_or(0) }),
        _ => None,
    };
    (addr, words, used)
}

fn line_len(rest: &[u8]) -> usize {
    memchr::memchr(b'\n', rest).map_or(rest.len(), |n| n + 1)
}

/// As [`line_len`] of a line that does not end before `from`; a usual one is measured without a call, and without a branch for each
/// piece of it.
#[inline(always)]
fn usual_line_len(rest: &[u8], from: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let found = rest.get(from..).and_then(<[u8]>::first_chunk::<40>).map(|line| {
        let newline = |part: &[u8; 8]| {
            let v = u64::from_le_bytes(*part) ^ (u64::from(b'\n') * ONES);
            // The highest bit of each byte that is 0; above the lowest such byte there may be wrong ones.
            v.wrapping_sub(ONES) & !v & (0x80 * ONES)
        };
        let [a, b, c, d, e] = line.as_chunks::<8>().0 else { return (0, 0) };
        let mut found = (newline(e), 32);
        for (part, at) in [(d, 24), (c, 16), (b, 8), (a, 0)] {
            let bits = newline(part);
            if bits != 0 {
                found = (bits, at);
            }
        }
        found
    });
    match found {
        Some((bits @ 1.., at)) => from + at + bits.trailing_zeros() as usize / 8 + 1,
        _ => line_len(rest),
    }
}

/// Whether a symbol of this letter is kept, whose name begins with this byte.
#[inline(always)]
fn is_kept(kind: u8, first: Option<&u8>) -> bool {
    !matches!(kind, b'a' | b'A') && first != Some(&b'$')
}

/// The usual shape: 16 digits, or 8 on a 32-bit machine, blank, letter, blank. Address, letter, where the name begins.
#[inline(always)]
fn usual_head(rest: &[u8]) -> Option<(u64, u8, usize)> {
    let head: &[u8; 19] = rest.first_chunk()?;
    let high = u64::from(hex8(head.first_chunk()?)?);
    let (addr, len) = match head[8] {
        b' ' => (high, 8),
        _ => (high << 32 | u64::from(hex8(head.get(8..)?.first_chunk()?)?), 16),
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
fn hex8(b: &[u8; 8]) -> Option<u32> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let v = u64::from_be_bytes(*b);
    let lower = v | (0x20 * ONES); // digits keep their value, letters become small
    let letter = (v >> 6) & ONES; // 1 for bytes from 0x40 on
    // The highest bit of each byte that is not below `from`; no byte has its own.
    let not_below = |v: u64, from: u8| v.wrapping_add(u64::from(0x80 - from) * ONES);
    let digit = not_below(v, b'0') & !not_below(v, b'9' + 1);
    let alphabetic = not_below(lower, b'a') & !not_below(lower, b'f' + 1);
    if v & (0x80 * ONES) != 0 || (digit | alphabetic) & (0x80 * ONES) != 0x80 * ONES {
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
    fn plain_names() {
        for (text, plain) in [
            ("1000 T alpha\n2000 t be_ta.1\t[m]\n", true),
            ("", true),
            ("1000 T al\"pha\n", false),
            ("1000 T al\\pha\n", false),
            ("1000 T alph\u{e4}\n", false),
            ("1000 T al\u{1}pha\n", false),
            ("1000 T al\u{7f}pha\n", false),
        ] {
            assert_eq!(Kallsyms::from_bytes(text.into()).are_plain(), plain, "{text}");
        }
    }

    #[test]
    fn two_texts() {
        let text = b"1000 T alpha\n0000000000002000 t beta\t[some_module]\n\nbad\n3000 T gamma\t[m]";
        let all = |k: &Kallsyms| -> Vec<_> {
            k.iter().map(|s| (s.addr, s.name.to_vec(), s.module.map(<[u8]>::to_vec))).collect()
        };
        let want = all(&Kallsyms::from_bytes(text.to_vec()));
        assert_eq!(want.len(), 3);
        assert_eq!(want[1], (0x2000, b"beta".to_vec(), Some(b"some_module".to_vec())));
        for size in 1..text.len() {
            let mut k = Kallsyms::from_bytes(text[..size].to_vec());
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

    /// What is said in words above, as simply as it can be: all lines in a table, sorted, searched.
    fn simple(text: &[u8]) -> Vec<(u64, Vec<u8>, Option<Vec<u8>>)> {
        let mut all = Vec::new();
        for line in text.split(|b| *b == b'\n') {
            let line = std::str::from_utf8(line).unwrap();
            let mut words = line.split_ascii_whitespace();
            let (Some(addr), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else { continue };
            let (Ok(addr), false, false) =
                (u64::from_str_radix(addr, 16), kind.eq_ignore_ascii_case("a"), name.starts_with('$'))
            else {
                continue;
            };
            let module = words.next().map(|m| m.trim_matches(['[', ']']).as_bytes().to_vec()).filter(|m| !m.is_empty());
            all.push((addr, name.as_bytes().to_vec(), module));
        }
        all.reverse();
        all.sort_by_key(|s| s.0);
        all
    }

    fn search(all: &[(u64, Vec<u8>, Option<Vec<u8>>)], addr: u64) -> Option<usize> {
        let (mut low, mut high) = (0, all.len());
        while low < high {
            let mid = (low + high) / 2;
            if addr < all[mid].0 {
                high = mid;
            } else if addr == all[mid].0 || all.get(mid + 1).is_some_and(|next| addr < next.0) {
                return Some(mid);
            } else {
                low = mid + 1;
            }
        }
        None
    }

    proptest::proptest! {
        #[test]
        fn as_a_sorted_table(
            steps in proptest::collection::vec((0u64..4, 0u8..40, 0usize..70), 0..300),
            modules in proptest::collection::vec((0u64..4000, 0u8..8), 0..40),
            base in proptest::sample::select(vec![0u64, 0x1000, 0xffff_ffff_8100_0000]),
            far in proptest::sample::select(vec![0u64, 0x4000_0000]),
            below: bool, short: bool, cut in 0usize..12,
        ) {
            use std::fmt::Write as _;
            let (mut text, mut addr) = (String::new(), base.wrapping_add(0x10_0000));
            let width = if short { 8 } else { 16 };
            let show = |addr: u64| if short { addr & 0xffff_ffff } else { addr };
            for (i, (step, kind, len)) in steps.iter().enumerate() {
                // Many at one address, and some other lines between them.
                addr = addr.wrapping_add(if *kind < 30 { step & 1 } else { *step * 16 });
                let name = "n".repeat(*len);
                let _ = match kind {
                    0 => writeln!(text, "{:0width$x} A fixed{i}", show(addr ^ 0xff)),
                    1 => writeln!(text, "{:0width$x} t $x{i}", show(addr)),
                    _ => writeln!(text, "{:0width$x} t s{name}{i}", show(addr)),
                };
            }
            for (i, (at, kind)) in modules.iter().enumerate() {
                let at = show(if below { base.wrapping_add(*at) } else { addr.wrapping_add(far + at) });
                let _ = match kind {
                    0 => writeln!(text, "{at:x} t odd{i}\t[m]"),
                    1 => writeln!(text, "no symbol"),
                    _ => writeln!(text, "{at:0width$x} t m{i}\t[mod{kind}]"),
                };
            }
            text.truncate(text.len().saturating_sub(cut));
            let (want, k) = (simple(text.as_bytes()), Kallsyms::from_bytes(text.clone().into_bytes()));
            let got: Vec<_> = k.iter().map(|s| (s.addr, s.name.to_vec(), s.module.map(<[u8]>::to_vec))).collect();
            proptest::prop_assert_eq!(&got, &want);
            proptest::prop_assert_eq!(k.len(), want.len());
            for at in want.iter().flat_map(|s| [s.0.wrapping_sub(1), s.0, s.0.wrapping_add(1)]).chain([0, u64::MAX]) {
                let found = search(&want, at).map(|i| want[i].clone());
                let got = k.find(at).map(|s| (s.addr, s.name.to_vec(), s.module.map(<[u8]>::to_vec)));
                proptest::prop_assert_eq!(got, found.clone(), "{:#x} of {}", at, text);
                proptest::prop_assert_eq!(k.name_at(at).map(|n| n.bytes().to_vec()), found.map(|f| f.1));
            }
            for s in want.iter().step_by(1 + want.len() / 20) {
                let least = want.iter().find(|o| o.1 == s.1).map(|o| o.0);
                proptest::prop_assert_eq!(k.address_of(&s.1), least);
            }
            proptest::prop_assert_eq!(k.address_of(b"absent"), None);
        }
    }
}
