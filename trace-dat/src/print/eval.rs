//! Numbers and places in a record: the small expression programs.

use crate::{
    Decoder, Endian, LongSize,
    format::{
        Event, Field, FieldFlags,
        expr::{BinOp, Expr, UnOp},
        field::number,
        print_fmt::cast,
    },
    print::{Arg, ArgKind, Helper, HelperCx, program::TextSrc},
};

/// Bytes behind a record that a wrong length can show: a sub-buffer of the usual size.
const MAX_BEHIND: usize = 4096;

/// A record while it is printed.
#[derive(Clone, Copy)]
pub(crate) struct Cx<'a> {
    pub(crate) dec: &'a Decoder,
    pub(crate) endian: Endian,
    /// The record.
    pub(crate) data: &'a [u8],
    /// The record with what lies behind it in its block.
    pub(crate) reach: &'a [u8],
}

impl<'a> Cx<'a> {
    pub(crate) fn new(dec: &'a Decoder, data: &'a [u8], reach: &'a [u8]) -> Self {
        Cx { dec, endian: dec.endian(), data, reach: if reach.len() < data.len() { data } else { reach } }
    }

    /// A number of 1, 2, 4 or 8 bytes; 0 for other sizes and where the record is too short.
    #[inline]
    pub(crate) fn load(&self, offset: u32, size: u32) -> u64 {
        let o = offset as usize;
        match size {
            4 => self.array(o).map_or(0, |b| u64::from(self.endian.u32(b))),
            8 => self.array(o).map_or(0, |b| self.endian.u64(b)),
            2 => self.array(o).map_or(0, |b| u64::from(self.endian.u16(b))),
            1 => self.data.get(o).map_or(0, |b| u64::from(*b)),
            _ => 0,
        }
    }

    #[inline]
    fn array<const N: usize>(&self, o: usize) -> Option<[u8; N]> {
        self.data.get(o..)?.first_chunk::<N>().copied()
    }

    /// The record as the reference takes pointers to strings, masks, arrays and address families: little endian, whatever the
    /// file's byte order. On a big-endian file that finds no string and shows swapped words; reports are the same to the byte.
    #[inline]
    pub(crate) fn unswapped(&self) -> Self {
        Cx { endian: Endian::Little, ..*self }
    }

    /// The bytes from `offset` on with some that lie behind the record: what an array shows that says it is longer than its record.
    #[inline]
    pub(crate) fn behind(&self, offset: usize) -> &'a [u8] {
        let end = self.reach.len().min(self.data.len().saturating_add(MAX_BEHIND));
        self.reach.get(offset..end).unwrap_or(&[])
    }

    /// All bytes from `offset` to the end of the record.
    #[inline]
    pub(crate) fn from(&self, offset: usize) -> &'a [u8] {
        self.data.get(offset..).unwrap_or(&[])
    }
}

/// Where a dynamic array's offset and length are stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loc {
    offset: u32,
    size: u32,
    /// What is added to the stored offset: 0, or the end of a `__rel_loc` field.
    base: u32,
}

impl Loc {
    pub(crate) fn of(f: &Field) -> Loc {
        let base = if f.flags.contains(FieldFlags::RELATIVE) { f.offset.saturating_add(f.size) } else { 0 };
        Loc { offset: f.offset as u32, size: f.size as u32, base: base as u32 }
    }

    /// Offset in the record and length in bytes. What reaches past the record is empty, and at its start when it begins behind it;
    /// of a relative place the stored number is looked at, as in the reference.
    #[inline]
    pub(crate) fn get(&self, cx: &Cx<'_>) -> (usize, usize) {
        let v = cx.load(self.offset, self.size);
        let len = if self.size >= 4 { (v >> 16) as usize & 0xffff } else { 0 };
        let at = v as usize & 0xffff;
        let (at, len) = match cx.data.len().checked_sub(at) {
            None => (0, 0),
            Some(room) if len > room => (at, 0),
            Some(_) => (at, len),
        };
        (self.base as usize + at, len)
    }

    /// The bytes.
    #[inline]
    pub(crate) fn bytes<'a>(&self, cx: &Cx<'a>) -> &'a [u8] {
        let (offset, len) = self.get(cx);
        let rest = cx.behind(offset);
        rest.get(..len).unwrap_or(rest)
    }
}

/// An expression that gives a number.
#[derive(Debug)]
pub(crate) enum Node {
    Const(u64),
    Load {
        offset: u32,
        size: u32,
    },
    Unary(UnOp, Box<Node>),
    Binary(BinOp, Box<Node>, Box<Node>),
    Cond(Box<Node>, Box<Node>, Box<Node>),
    Mask(u64, Box<Node>),
    /// An element of a fixed array.
    Element {
        offset: u32,
        size: u32,
        index: Box<Node>,
    },
    /// `size` bytes at a byte offset in a dynamic array.
    DynElement {
        loc: Loc,
        size: u32,
        index: Box<Node>,
    },
    DynLen(Loc),
    Call(Box<Call>),
}

/// A call of a helper.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) helper: &'static Helper,
    pub(crate) args: Vec<CallArg>,
}

/// An argument of a helper.
#[derive(Debug)]
pub(crate) enum CallArg {
    Num(Node),
    Text(TextSrc),
    Place(Place),
}

/// Bytes in the record.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// From this offset on.
    Fixed(u32),
    Dynamic(Loc),
}

impl Place {
    /// The offset of its first byte.
    pub(crate) fn offset(&self, cx: &Cx<'_>) -> usize {
        match self {
            Place::Fixed(o) => *o as usize,
            Place::Dynamic(l) => l.get(cx).0,
        }
    }
}

impl Call {
    /// Runs the helper; its text goes to `out`.
    pub(crate) fn run(&self, cx: &Cx<'_>, out: &mut Vec<u8>) -> u64 {
        let mut texts: Vec<Vec<u8>> = Vec::new();
        for a in &self.args {
            if let CallArg::Text(t) = a {
                let mut v = Vec::new();
                t.print(cx, &Default::default(), &mut v);
                texts.push(v);
            }
        }
        let mut texts = texts.iter();
        let args: Vec<Arg<'_>> = self
            .args
            .iter()
            .map(|a| match a {
                CallArg::Num(n) => Arg::Num(n.eval(cx)),
                CallArg::Text(_) => Arg::Bytes(texts.next().map_or(&[], Vec::as_slice)),
                CallArg::Place(p) => Arg::Bytes(cx.behind(p.offset(cx))),
            })
            .collect();
        (self.helper.run)(&HelperCx { dec: cx.dec, data: cx.data }, &args, out)
    }
}

impl Node {
    /// Whether the number is made of the record's bytes and of nothing else.
    pub(crate) fn is_of_record(&self) -> bool {
        match self {
            Node::Const(_) | Node::Load { .. } | Node::DynLen(_) => true,
            Node::Unary(_, a) | Node::Mask(_, a) => a.is_of_record(),
            Node::Binary(_, a, b) => a.is_of_record() && b.is_of_record(),
            Node::Cond(a, b, c) => [a, b, c].iter().all(|n| n.is_of_record()),
            Node::Element { index, .. } | Node::DynElement { index, .. } => index.is_of_record(),
            Node::Call(_) => false,
        }
    }

    #[inline]
    pub(crate) fn eval(&self, cx: &Cx<'_>) -> u64 {
        match self {
            Node::Load { offset, size } => cx.load(*offset, *size),
            Node::Const(v) => *v,
            _ => self.eval_slow(cx),
        }
    }

    fn eval_slow(&self, cx: &Cx<'_>) -> u64 {
        match self {
            Node::Const(v) => *v,
            Node::Load { offset, size } => cx.load(*offset, *size),
            Node::Unary(op, a) => op.apply(a.eval(cx)),
            Node::Binary(op, a, b) => op.apply(a.eval(cx), b.eval(cx)),
            Node::Cond(c, a, b) => {
                if c.eval(cx) != 0 {
                    a.eval(cx)
                } else {
                    b.eval(cx)
                }
            }
            Node::Mask(m, a) => a.eval(cx) & m,
            Node::Element { offset, size, index } => {
                let at = index.eval(cx).wrapping_mul(u64::from(*size)).wrapping_add(u64::from(*offset));
                u32::try_from(at).map_or(0, |at| cx.load(at, *size))
            }
            Node::DynElement { loc, size, index } => {
                let at = (loc.get(cx).0 as u64).wrapping_add(index.eval(cx));
                u32::try_from(at).map_or(0, |at| cx.load(at, *size))
            }
            Node::DynLen(loc) => loc.get(cx).1 as u64,
            Node::Call(call) => {
                let mut unused = Vec::new();
                call.run(cx, &mut unused)
            }
        }
    }
}

/// Turns expressions into [`Node`]s.
pub(crate) struct Builder<'a> {
    pub(crate) dec: &'a Decoder,
    pub(crate) event: &'a Event,
    pub(crate) long: LongSize,
}

impl Builder<'_> {
    /// A word that is no field and no number is a variable of the kernel (`vmemmap_base`): its address, 0 when unknown.
    fn address(&self, word: &str) -> u64 {
        let word = word.trim();
        let is_name = word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if word.is_empty() || !is_name { 0 } else { self.dec.symbols().address_of(word.as_bytes()).unwrap_or(0) }
    }

    /// The number that an expression stands for; what has no number is 0.
    pub(crate) fn node(&self, e: &Expr) -> Node {
        match e {
            Expr::Atom(a) => Node::Const(number(a).unwrap_or_else(|| self.address(a))),
            Expr::Field(Some(id)) => match self.event.field_by_id(*id) {
                Some(f) if matches!(f.size, 1 | 2 | 4 | 8) => {
                    Node::Load { offset: f.offset as u32, size: f.size as u32 }
                }
                _ => Node::Const(0),
            },
            Expr::Index(array, index) => self.index(array, index),
            Expr::Unary(op, a) => match self.node(a) {
                Node::Const(v) => Node::Const(op.apply(v)),
                n => Node::Unary(*op, Box::new(n)),
            },
            Expr::Binary(op, a, b) => match (self.node(a), self.node(b)) {
                (Node::Const(a), Node::Const(b)) => Node::Const(op.apply(a, b)),
                (a, b) => Node::Binary(*op, Box::new(a), Box::new(b)),
            },
            Expr::Cond(c, a, b) => match self.node(c) {
                Node::Const(0) => self.node(b),
                Node::Const(_) => self.node(a),
                c => Node::Cond(Box::new(c), Box::new(self.node(a)), Box::new(self.node(b))),
            },
            Expr::Cast(ty, a) => {
                let mask = cast(ty, u64::MAX);
                match self.node(a) {
                    Node::Const(v) => Node::Const(v & mask),
                    // Nothing to cut off.
                    Node::Load { offset, size } if size >= 8 || mask >> (8 * size.min(7)) == 0 || mask == u64::MAX => {
                        let n = Node::Load { offset, size };
                        if mask == u64::MAX || (size < 8 && mask >= (1u64 << (8 * size)) - 1) {
                            n
                        } else {
                            Node::Mask(mask, Box::new(n))
                        }
                    }
                    n => Node::Mask(mask, Box::new(n)),
                }
            }
            Expr::DynLen(id) => self.event.field_by_id(*id).map_or(Node::Const(0), |f| Node::DynLen(Loc::of(f))),
            Expr::DynArray(id) => {
                // The reference shows an address of its own memory here; the place in the record says as much.
                self.event.field_by_id(*id).map_or(Node::Const(0), |f| {
                    let load = Node::Load { offset: f.offset as u32, size: f.size as u32 };
                    Node::Mask(0xffff, Box::new(load))
                })
            }
            Expr::Call { helper, args } => Node::Call(Box::new(self.call(helper, args))),
            Expr::Null
            | Expr::Text(_)
            | Expr::Field(None)
            | Expr::Flags { .. }
            | Expr::Symbolic { .. }
            | Expr::Hex { .. }
            | Expr::Array { .. }
            | Expr::DynPrint { .. }
            | Expr::Str(_)
            | Expr::Bitmask(_)
            | Expr::Cpumask(_)
            | Expr::Stack(_) => Node::Const(0),
        }
    }

    fn index(&self, array: &Expr, index: &Expr) -> Node {
        let mut array = array;
        while let Expr::Cast(_, a) = array {
            array = a;
        }
        match array {
            Expr::Field(Some(id)) => match self.event.field_by_id(*id) {
                Some(f) => {
                    let size = f.element_size as u32;
                    match self.node(index) {
                        Node::Const(n) => {
                            let at = n.wrapping_mul(u64::from(size)).wrapping_add(f.offset as u64);
                            u32::try_from(at).map_or(Node::Const(0), |offset| Node::Load { offset, size })
                        }
                        n => Node::Element { offset: f.offset as u32, size, index: Box::new(n) },
                    }
                }
                None => Node::Const(0),
            },
            Expr::DynArray(id) => match self.event.field_by_id(*id) {
                Some(f) => {
                    let size = if f.element_size == 0 { self.long.bytes() } else { f.element_size };
                    Node::DynElement { loc: Loc::of(f), size: size as u32, index: Box::new(self.node(index)) }
                }
                None => Node::Const(0),
            },
            _ => Node::Const(0),
        }
    }

    /// The bytes that a pointer argument stands for.
    pub(crate) fn place(&self, e: &Expr) -> Option<Place> {
        match e {
            Expr::Field(Some(id)) => self.event.field_by_id(*id).map(|f| Place::Fixed(f.offset as u32)),
            Expr::DynArray(id) => self.event.field_by_id(*id).map(|f| Place::Dynamic(Loc::of(f))),
            Expr::Cast(_, e) => self.place(e),
            _ => None,
        }
    }

    pub(crate) fn call(&self, helper: &'static Helper, args: &[Expr]) -> Call {
        let args = args
            .iter()
            .zip(helper.args)
            .map(|(e, kind)| match kind {
                ArgKind::Num => CallArg::Num(self.node(e)),
                ArgKind::Str => CallArg::Text(TextSrc::build(self, e)),
                ArgKind::Ptr => match (e, self.place(e)) {
                    (Expr::Field(Some(id)), Some(p))
                        if self.event.field_by_id(*id).is_some_and(|f| f.flags.contains(FieldFlags::ARRAY)) =>
                    {
                        CallArg::Place(p)
                    }
                    (Expr::DynArray(_) | Expr::Cast(..), Some(p)) => CallArg::Place(p),
                    _ => CallArg::Num(self.node(e)),
                },
            })
            .collect();
        Call { helper, args }
    }
}
