//! BPF type format: argument names and types of kernel functions.
//!
//! Source: Documentation/bpf/btf.rst of the kernel. The data is that of `/sys/kernel/btf/vmlinux`: a header, the types
//! one behind the other, and their names. A type is known by its place in the list, so one walk notes where each type
//! begins; functions are looked up by name in a table made at first use.

use std::{io::Write, sync::OnceLock};

use crate::{Endian, Error, Result, lazy::LazyText, pages::Text};

/// First two bytes of BTF data, in the byte order of its machine.
const BTF_MAGIC: u16 = 0xeb9f;

const BTF_KIND_INT: u32 = 1;
const BTF_KIND_PTR: u32 = 2;
const BTF_KIND_ARRAY: u32 = 3;
const BTF_KIND_STRUCT: u32 = 4;
const BTF_KIND_UNION: u32 = 5;
const BTF_KIND_ENUM: u32 = 6;
const BTF_KIND_FWD: u32 = 7;
const BTF_KIND_TYPEDEF: u32 = 8;
const BTF_KIND_VOLATILE: u32 = 9;
const BTF_KIND_CONST: u32 = 10;
const BTF_KIND_RESTRICT: u32 = 11;
const BTF_KIND_FUNC: u32 = 12;
const BTF_KIND_FUNC_PROTO: u32 = 13;
const BTF_KIND_VAR: u32 = 14;
const BTF_KIND_DATASEC: u32 = 15;
const BTF_KIND_FLOAT: u32 = 16;
const BTF_KIND_DECL_TAG: u32 = 17;
const BTF_KIND_TYPE_TAG: u32 = 18;
const BTF_KIND_ENUM64: u32 = 19;

/// Bit of an integer's encoding: signed.
const BTF_INT_SIGNED: u32 = 1;
/// Typedefs and qualifiers that are followed before giving up: valid data has a handful.
const MAX_CHAIN: usize = 32;

/// Types of a kernel, read and indexed when first asked.
#[derive(Debug)]
pub struct Btf {
    text: LazyText,
    types: OnceLock<Option<Types>>,
}

impl Btf {
    /// The types in this data. Data that cannot be read or understood counts as none.
    pub fn new(text: LazyText) -> Self {
        Btf { text, types: OnceLock::new() }
    }

    /// Whether the trace has such data; it may still turn out to be damaged.
    pub fn is_present(&self) -> bool {
        !matches!(self.text, LazyText::None)
    }

    /// The types.
    pub fn types(&self) -> Option<&Types> {
        let read = || {
            let types = self.text.load().and_then(Types::parse);
            types.map_err(|e| log::warn!("BTF: {e}")).ok()
        };
        self.types.get_or_init(|| if self.is_present() { read() } else { None }).as_ref()
    }

    /// What the function of this name takes.
    pub fn function(&self, name: &[u8]) -> Option<Proto<'_>> {
        self.types()?.function(name)
    }
}

/// The types of one kernel.
#[derive(Debug)]
pub struct Types {
    endian: Endian,
    data: Text,
    /// Start of the type section and of the string section, and the end of the latter, in `data`.
    types_at: usize,
    strings: std::ops::Range<usize>,
    /// Where each type begins in the type section; type 1 is the first.
    places: Vec<u32>,
    /// (hash of name, type number) of each function, sorted.
    functions: OnceLock<Vec<(u32, u32)>>,
}

/// One type record.
#[derive(Clone, Copy, Debug)]
struct Type {
    name: u32,
    kind: u32,
    vlen: usize,
    /// Size in bytes or number of another type, as the kind says.
    size_or_type: u32,
    /// Where the data of the kind begins, in `Types::data`.
    more: usize,
}

/// What a function takes: names and types in order.
#[derive(Clone, Copy, Debug)]
pub struct Proto<'a> {
    btf: &'a Types,
    params: usize,
    at: usize,
    ret: u32,
}

impl Types {
    /// Reads BTF data; its byte order is told by its magic.
    ///
    /// # Errors
    /// [`Error::BadValue`] for a wrong magic or header, [`Error::Truncated`] when a section or a type reaches past the end.
    pub fn parse(data: impl Into<Text>) -> Result<Types> {
        let data = data.into();
        let magic = data.first_chunk::<2>().copied().unwrap_or_default();
        let endian = match (Endian::Little.u16(magic), Endian::Big.u16(magic)) {
            (BTF_MAGIC, _) => Endian::Little,
            (_, BTF_MAGIC) => Endian::Big,
            (value, _) => {
                return Err(Error::BadValue {
                    what: "BTF magic",
                    offset: 0,
                    value: value.into(),
                    why: "is not 0xeb9f",
                });
            }
        };
        let word = |at: usize| endian.uint(&data, at, 4).map(|v| v as usize);
        let header = (|| Some((word(4)?, word(8)?, word(12)?, word(16)?, word(20)?)))();
        let Some((header, type_off, type_len, str_off, str_len)) = header else {
            return Err(Error::Truncated { what: "BTF header", offset: 0, need: 24, have: data.len() as u64 });
        };
        let section = |off: usize, len: usize, what| {
            let start = header.saturating_add(off);
            let end = start.saturating_add(len);
            if end > data.len() {
                let have = data.len().saturating_sub(start) as u64;
                return Err(Error::Truncated { what, offset: start as u64, need: len as u64, have });
            }
            Ok(start..end)
        };
        let types = section(type_off, type_len, "BTF types")?;
        let strings = section(str_off, str_len, "BTF names")?;
        let mut btf =
            Types { endian, types_at: types.start, strings, places: Vec::new(), functions: OnceLock::new(), data };
        let mut at = types.start;
        while at < types.end {
            let used = btf.read_type(at).and_then(|t| t.more.checked_add(t.extra()?)).filter(|end| *end <= types.end);
            let Some(next) = used else {
                return Err(Error::Truncated {
                    what: "BTF type",
                    offset: at as u64,
                    need: 12,
                    have: types.end.saturating_sub(at) as u64,
                });
            };
            btf.places.push((at - types.start) as u32);
            at = next;
        }
        Ok(btf)
    }

    fn word(&self, at: usize) -> Option<u32> {
        self.endian.uint(&self.data, at, 4).map(|v| v as u32)
    }

    fn read_type(&self, at: usize) -> Option<Type> {
        let info = self.word(at + 4)?;
        Some(Type {
            name: self.word(at)?,
            kind: info >> 24 & 0x1f,
            vlen: (info & 0xffff) as usize,
            size_or_type: self.word(at + 8)?,
            more: at + 12,
        })
    }

    /// The type of this number; `None` for 0 (void) and for numbers that do not exist.
    fn get(&self, id: u32) -> Option<Type> {
        let place = self.places.get((id as usize).checked_sub(1)?)?;
        self.read_type(self.types_at + *place as usize)
    }

    fn string(&self, at: u32) -> &[u8] {
        let names = self.data.get(self.strings.clone()).unwrap_or_default();
        let rest = names.get(at as usize..).unwrap_or_default();
        rest.get(..memchr::memchr(0, rest).unwrap_or(rest.len())).unwrap_or_default()
    }

    /// How many types there are, void not counted.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// True when there is no type.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// What the function of this name takes.
    pub fn function(&self, name: &[u8]) -> Option<Proto<'_>> {
        let table = self.functions.get_or_init(|| {
            let mut v: Vec<(u32, u32)> = (1..=self.places.len() as u32)
                .filter_map(|id| {
                    self.get(id).filter(|t| t.kind == BTF_KIND_FUNC).map(|t| (hash(self.string(t.name)), id))
                })
                .collect();
            v.sort_unstable();
            v
        });
        let h = hash(name);
        let from = table.partition_point(|e| e.0 < h);
        let func = table
            .get(from..)?
            .iter()
            .take_while(|e| e.0 == h)
            .filter_map(|e| self.get(e.1))
            .find(|t| self.string(t.name) == name)?;
        let proto = self.get(func.size_or_type)?;
        let params = if proto.kind == BTF_KIND_FUNC_PROTO { proto.vlen } else { 0 };
        Some(Proto { btf: self, params, at: proto.more, ret: proto.size_or_type })
    }

    /// Follows typedefs and qualifiers. `Ok(None)` is void.
    fn resolve(&self, mut id: u32) -> std::result::Result<Option<Type>, ()> {
        for _ in 0..MAX_CHAIN {
            if id == 0 {
                return Ok(None);
            }
            let t = self.get(id).ok_or(())?;
            match t.kind {
                BTF_KIND_TYPEDEF | BTF_KIND_VOLATILE | BTF_KIND_CONST | BTF_KIND_RESTRICT | BTF_KIND_TYPE_TAG => {
                    id = t.size_or_type;
                }
                _ => return Ok(Some(t)),
            }
        }
        Err(())
    }

    /// Appends the C name of a type: `const char *`, `struct file *`, `unsigned int`.
    pub fn type_name(&self, id: u32, out: &mut Vec<u8>) {
        self.type_name_bounded(id, out, MAX_CHAIN);
    }

    fn type_name_bounded(&self, id: u32, out: &mut Vec<u8>, depth: usize) {
        let Some(t) = self.get(id).filter(|_| depth > 0) else {
            out.extend_from_slice(if id == 0 { b"void" } else { b"INVALID" });
            return;
        };
        let word = match t.kind {
            BTF_KIND_STRUCT => &b"struct "[..],
            BTF_KIND_UNION => b"union ",
            BTF_KIND_ENUM | BTF_KIND_ENUM64 => b"enum ",
            BTF_KIND_FWD => b"struct ",
            BTF_KIND_VOLATILE => b"volatile ",
            BTF_KIND_CONST => b"const ",
            _ => b"",
        };
        match t.kind {
            BTF_KIND_PTR => {
                self.type_name_bounded(t.size_or_type, out, depth - 1);
                out.extend_from_slice(if out.last() == Some(&b'*') { b"*" } else { b" *" });
            }
            BTF_KIND_CONST | BTF_KIND_VOLATILE => {
                out.extend_from_slice(word);
                self.type_name_bounded(t.size_or_type, out, depth - 1);
            }
            BTF_KIND_RESTRICT | BTF_KIND_TYPE_TAG => self.type_name_bounded(t.size_or_type, out, depth - 1),
            BTF_KIND_ARRAY => {
                let element = self.word(t.more).unwrap_or(0);
                self.type_name_bounded(element, out, depth - 1);
                out.extend_from_slice(b"[]");
            }
            BTF_KIND_FUNC_PROTO => out.extend_from_slice(b"func"),
            _ => {
                out.extend_from_slice(word);
                out.extend_from_slice(self.string(t.name));
            }
        }
    }
}

fn hash(name: &[u8]) -> u32 {
    name.iter().fold(0x811c_9dc5, |h: u32, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193))
}

impl Type {
    /// Bytes of data behind the three words that each type has; `None` for a kind that is not known.
    fn extra(&self) -> Option<usize> {
        Some(match self.kind {
            BTF_KIND_INT | BTF_KIND_VAR | BTF_KIND_DECL_TAG => 4,
            BTF_KIND_ARRAY => 12,
            BTF_KIND_STRUCT | BTF_KIND_UNION | BTF_KIND_DATASEC | BTF_KIND_ENUM64 => self.vlen * 12,
            BTF_KIND_ENUM | BTF_KIND_FUNC_PROTO => self.vlen * 8,
            BTF_KIND_PTR | BTF_KIND_FWD | BTF_KIND_TYPEDEF | BTF_KIND_VOLATILE | BTF_KIND_CONST | BTF_KIND_RESTRICT
            | BTF_KIND_FUNC | BTF_KIND_FLOAT | BTF_KIND_TYPE_TAG => 0,
            _ => return None,
        })
    }

    fn kind_name(&self) -> &'static str {
        match self.kind {
            BTF_KIND_ARRAY => "ARRAY",
            BTF_KIND_STRUCT => "STRUCT",
            BTF_KIND_UNION => "UNION",
            BTF_KIND_FWD => "FWD",
            BTF_KIND_FUNC => "FUNC",
            BTF_KIND_FUNC_PROTO => "FUNC_PROTO",
            BTF_KIND_VAR => "VAR",
            BTF_KIND_DATASEC => "DATASEC",
            BTF_KIND_FLOAT => "FLOAT",
            BTF_KIND_DECL_TAG => "DECL_TAG",
            BTF_KIND_ENUM64 => "ENUM64",
            _ => "UNKNOWN",
        }
    }
}

impl<'a> Proto<'a> {
    /// Number of parameters; a last one without name and type stands for `...`.
    pub fn len(&self) -> usize {
        self.params
    }

    /// True for a function without parameters.
    pub fn is_empty(&self) -> bool {
        self.params == 0
    }

    /// Number of the type of the result, 0 for none.
    pub fn return_type(&self) -> u32 {
        self.ret
    }

    /// Name and type number of each parameter.
    pub fn params(&self) -> impl Iterator<Item = (&'a [u8], u32)> {
        let (btf, at) = (self.btf, self.at);
        (0..self.params).map_while(move |i| Some((btf.string(btf.word(at + i * 8)?), btf.word(at + i * 8 + 4)?)))
    }

    /// Appends `name=value` for each parameter, as many as there are words in `args`, with `...` for the rest.
    ///
    /// Numbers of a signed type are shown in decimal, without carrying the sign of a type narrower than a word; all others in
    /// hex. A structure or union passed by value takes as many words as its size needs.
    pub fn print_args(&self, args: impl ExactSizeIterator<Item = u64>, word_size: usize, out: &mut Vec<u8>) {
        let mut args = args;
        for (i, (name, id)) in self.params().enumerate() {
            if i > 0 {
                out.extend_from_slice(b", ");
            }
            let Some(value) = args.next() else {
                out.extend_from_slice(b"...");
                return;
            };
            out.extend_from_slice(name);
            out.push(b'=');
            let t = match self.btf.resolve(id) {
                Ok(Some(t)) => t,
                Ok(None) => continue,
                Err(()) => {
                    out.extend_from_slice(b"INVALID");
                    continue;
                }
            };
            let _ = match t.kind {
                BTF_KIND_PTR => write!(out, "{value:#x}"),
                BTF_KIND_INT => {
                    let encoding = self.btf.word(t.more).unwrap_or(0);
                    let v = if encoding & 0xff < 64 { value & !(u64::MAX << (encoding & 0xff)) } else { value };
                    if encoding >> 24 & BTF_INT_SIGNED != 0 {
                        write!(out, "{}", v as i64)
                    } else if v == 0 {
                        write!(out, "0x0")
                    } else {
                        write!(out, "{v:#x}")
                    }
                }
                BTF_KIND_ENUM => write!(out, "{}", value as i32),
                BTF_KIND_STRUCT | BTF_KIND_UNION => {
                    let _ = write!(out, "({})[{value:#x}", t.kind_name());
                    let words = (t.size_or_type as usize).div_ceil(word_size.max(1));
                    for _ in 1..words {
                        let Some(value) = args.next() else {
                            out.extend_from_slice(b":...]");
                            return;
                        };
                        let _ = write!(out, ":{value:#x}");
                    }
                    write!(out, "]")
                }
                _ => write!(out, "({})[{value:#x}]", t.kind_name()),
            };
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Builds small BTF data.
    pub(crate) struct Builder {
        endian: Endian,
        types: Vec<u8>,
        strings: Vec<u8>,
        count: u32,
    }

    impl Builder {
        pub(crate) fn new(endian: Endian) -> Self {
            Builder { endian, types: Vec::new(), strings: vec![0], count: 0 }
        }

        fn string(&mut self, s: &str) -> u32 {
            if s.is_empty() {
                return 0;
            }
            let at = self.strings.len() as u32;
            self.strings.extend_from_slice(s.as_bytes());
            self.strings.push(0);
            at
        }

        pub(crate) fn add(&mut self, name: &str, kind: u32, vlen: u32, size: u32, more: &[u32]) -> u32 {
            let name = self.string(name);
            for w in [name, kind << 24 | vlen, size].iter().chain(more) {
                self.types.extend_from_slice(&self.endian.from_u32(*w));
            }
            self.count += 1;
            self.count
        }

        pub(crate) fn func(&mut self, name: &str, params: &[(&str, u32)]) {
            let more: Vec<u32> = params.iter().flat_map(|(n, t)| [self.string(n), *t]).collect();
            let proto = self.add("", BTF_KIND_FUNC_PROTO, params.len() as u32, 0, &more);
            self.add(name, BTF_KIND_FUNC, 1, proto, &[]);
        }

        pub(crate) fn build(&self) -> Vec<u8> {
            let e = self.endian;
            let mut out = e.from_u16(BTF_MAGIC).to_vec();
            out.extend_from_slice(&[1, 0]); // version, flags
            let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
            for w in [24, 0, types, types, strings] {
                out.extend_from_slice(&e.from_u32(w));
            }
            out.extend_from_slice(&self.types);
            out.extend_from_slice(&self.strings);
            out
        }
    }

    fn sample(endian: Endian) -> Vec<u8> {
        let mut b = Builder::new(endian);
        let int = b.add("int", BTF_KIND_INT, 0, 4, &[BTF_INT_SIGNED << 24 | 32]);
        let uint = b.add("unsigned int", BTF_KIND_INT, 0, 4, &[32]);
        let long = b.add("long int", BTF_KIND_INT, 0, 8, &[BTF_INT_SIGNED << 24 | 64]);
        let st = b.add("st", BTF_KIND_STRUCT, 0, 16, &[]);
        let ptr = b.add("", BTF_KIND_PTR, 0, st, &[]);
        let td = b.add("td_t", BTF_KIND_TYPEDEF, 0, uint, &[]);
        let en = b.add("en", BTF_KIND_ENUM, 1, 4, &[0, 1]);
        let fl = b.add("double", BTF_KIND_FLOAT, 0, 8, &[]);
        b.func("f", &[("i", int), ("u", td), ("l", long), ("p", ptr), ("e", en), ("d", fl)]);
        b.func("s", &[("a", st), ("z", int)]);
        b.func("none", &[]);
        b.func("odd", &[("v", 0), ("bad", 9999)]);
        let chain = b.count + 1;
        b.add("loop", BTF_KIND_TYPEDEF, 0, chain, &[]);
        b.func("looped", &[("x", chain)]);
        b.build()
    }

    fn args(btf: &Types, name: &str, values: &[u64]) -> String {
        let mut out = Vec::new();
        btf.function(name.as_bytes()).unwrap().print_args(values.iter().copied(), 8, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn arguments_print_like_the_reference() {
        for endian in [Endian::Little, Endian::Big] {
            let btf = Types::parse(sample(endian)).unwrap();
            let v = [-5i64 as u64, 0x1_ffff_ffff, -5i64 as u64, 0x1000, 0xffff_fffe, 1];
            assert_eq!(args(&btf, "f", &v), "i=4294967291, u=0xffffffff, l=-5, p=0x1000, e=-2, d=(FLOAT)[0x1]");
            assert_eq!(args(&btf, "f", &v[..1]), "i=4294967291, ...");
            assert_eq!(args(&btf, "f", &[]), "...");
            assert_eq!(args(&btf, "s", &v[..1]), "a=(STRUCT)[0xfffffffffffffffb:...]");
            assert_eq!(args(&btf, "s", &[1, 2]), "a=(STRUCT)[0x1:0x2], ...");
            assert_eq!(args(&btf, "s", &[1, 2, 3]), "a=(STRUCT)[0x1:0x2], z=3");
            assert_eq!(args(&btf, "none", &v), "");
            assert_eq!(args(&btf, "odd", &v), "v=, bad=INVALID");
            assert_eq!(args(&btf, "looped", &v), "x=INVALID");
            assert!(btf.function(b"st").is_none());
        }
    }

    /// A line of fixtures/DIFFERENCES.md.
    #[test]
    fn types_that_are_declared_only_or_do_not_exist() {
        for endian in [Endian::Little, Endian::Big] {
            let mut b = Builder::new(endian);
            let fwd = b.add("later", BTF_KIND_FWD, 0, 0, &[]);
            b.func("f", &[("x", fwd), ("y", 9999)]);
            let btf = Types::parse(b.build()).unwrap();
            assert_eq!(args(&btf, "f", &[0x12, 5]), "x=(FWD)[0x12], y=INVALID");
        }
    }

    #[test]
    fn damaged_data_is_refused_or_harmless() {
        let good = sample(Endian::Little);
        for n in 0..good.len() {
            let _ = Types::parse(good[..n].to_vec());
            for bit in [0x01, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[n] ^= bit;
                if let Ok(btf) = Types::parse(bad) {
                    for f in ["f", "s", "odd", "looped"] {
                        if let Some(p) = btf.function(f.as_bytes()) {
                            let mut out = Vec::new();
                            p.print_args([1u64, 2, 3].into_iter(), 8, &mut out);
                            for (_, id) in p.params() {
                                btf.type_name(id, &mut out);
                            }
                        }
                    }
                }
            }
        }
    }
}
