//! A print fmt as a list of steps that run without searching or allocating.

use crate::{
    Decoder, Endian,
    format::{
        Event, Field,
        expr::{Expr, Pair},
        print_fmt::{self, PrintFmt},
    },
    pen::Pen,
    plugin::Behind,
    print::{
        eval::{Builder, Call, Cx, Loc, Node, Place},
        printf::{self, Conv, Piece, Ptr, Spec, Star},
    },
    short::ShortText,
};

/// One step.
#[derive(Debug)]
pub(crate) enum Op {
    Lit(ShortText),
    /// Plain `%d`, `%u`, `%x` of 32 bits and `%lld`, `%llu`, `%llx` of 64 bits.
    I32(Node),
    U32(Node),
    X32(Node),
    I64(Node),
    U64(Node),
    X64(Node),
    /// `%0Nlx`: 64 bits in base 16 with zeros in front, so many digits at least.
    Hex0 {
        width: u8,
        node: Node,
    },
    /// Any other number.
    Num {
        spec: Spec,
        conv: u8,
        star: Option<Node>,
        node: Node,
    },
    Text {
        spec: Spec,
        star: Option<Node>,
        src: TextSrc,
    },
    Pointer(Node),
    Symbol {
        offset: bool,
        node: Node,
    },
    /// Addresses and identifiers of fixed size at this offset.
    Mac {
        at: u32,
        sep: u8,
        reversed: bool,
    },
    V4 {
        at: u32,
        dots3: bool,
        reversed: bool,
    },
    V6 {
        at: u32,
        colons: bool,
        compressed: bool,
    },
    Uuid {
        at: u32,
        upper: bool,
        guid: bool,
    },
    Sock {
        place: Place,
        len: Option<u32>,
        big: bool,
        port: bool,
        compressed: bool,
        reversed: bool,
    },
    Bytes {
        loc: Loc,
        len: Option<Node>,
        sep: u8,
    },
}

/// What `%s` prints.
#[derive(Debug)]
pub(crate) enum TextSrc {
    Nothing,
    Text(Box<[u8]>),
    /// Bytes of the record up to a NUL, `size` at most (0: to the end of the record).
    Bytes {
        offset: u32,
        size: u32,
    },
    /// A pointer: the printk format at that address, else the address.
    Pointer {
        offset: u32,
        size: u32,
    },
    Dynamic(Loc),
    Flags {
        value: Node,
        delim: Box<[u8]>,
        pairs: Box<[(u64, Box<[u8]>)]>,
    },
    Symbolic {
        value: Node,
        pairs: Box<[(u64, Box<[u8]>)]>,
    },
    Hex {
        place: Place,
        len: Node,
        blanks: bool,
    },
    Array {
        place: Place,
        count: Node,
        size: Node,
    },
    DynArray {
        loc: Loc,
        size: Node,
    },
    Bitmask(Loc),
    Cpumask(Loc),
    Stack(Loc),
    Cond(Node, Box<(TextSrc, TextSrc)>),
    Call(Box<Call>),
}

impl Op {
    /// Whether its text is made of the record's bytes, and of tables that stay, and of nothing else.
    pub(crate) fn is_of_record(&self) -> bool {
        match self {
            Op::Lit(_) => true,
            Op::I32(node) | Op::U32(node) | Op::X32(node) | Op::I64(node) | Op::U64(node) | Op::X64(node) => {
                node.is_of_record()
            }
            Op::Hex0 { node, .. } | Op::Pointer(node) | Op::Symbol { node, .. } => node.is_of_record(),
            Op::Num { star, node, .. } => node.is_of_record() && star.as_ref().is_none_or(Node::is_of_record),
            Op::Text { star, src, .. } => src.is_of_record() && star.as_ref().is_none_or(Node::is_of_record),
            _ => false,
        }
    }

    /// Whether its text may have a NUL in it, which ends the whole text.
    fn may_give_nul(&self) -> bool {
        match self {
            Op::Lit(text) => text.bytes().contains(&0),
            Op::Num { conv, .. } => *conv == b'c',
            Op::I32(_) | Op::U32(_) | Op::X32(_) | Op::I64(_) | Op::U64(_) | Op::X64(_) | Op::Hex0 { .. } => false,
            Op::Mac { .. } | Op::V4 { .. } | Op::V6 { .. } | Op::Uuid { .. } => false,
            Op::Pointer(_) | Op::Symbol { .. } => false,
            Op::Text { src, .. } => src.may_give_nul(),
            _ => true,
        }
    }

    /// Whether [`write`] can do it, for most records.
    fn is_for_pen(&self) -> bool {
        match self {
            Op::Lit(text) => text.bytes().len() <= SHORT,
            Op::I32(_) | Op::U32(_) | Op::X32(_) | Op::I64(_) | Op::U64(_) | Op::X64(_) | Op::Hex0 { .. } => true,
            Op::Pointer(_) | Op::Symbol { offset: false, .. } => true,
            Op::Text { spec, star: None, src } => {
                let plain = spec.width == 0 && spec.prec.is_none();
                plain && matches!(src, TextSrc::Bytes { .. } | TextSrc::Dynamic(_) | TextSrc::Symbolic { .. })
            }
            _ => false,
        }
    }
}

/// Texts of more bytes than this are not written with a pen …
const MOST: usize = 1024;
/// … nor such parts of a text.
const SHORT: usize = 256;

/// A number in a text of nothing else.
#[derive(Clone, Copy, Debug)]
enum NumberKind {
    I32,
    U32,
    X32,
    I64,
    U64,
    /// In base 16, with so many digits at least.
    X64(u8),
}

/// A text of numbers with constant texts between them: it is known how long it can get.
#[derive(Debug)]
pub(crate) struct Numbers {
    /// What stands before a number, and the number.
    steps: Box<[(ShortText, NumberKind, Node)]>,
    end: ShortText,
    /// So many bytes at most.
    most: usize,
}

impl Numbers {
    /// The steps as one list of numbers; as they are if there is anything else, or the text may be long.
    fn new(ops: Vec<Op>) -> Result<Numbers, Vec<Op>> {
        let bounded = |op: &Op| match op {
            Op::Lit(text) => Some(text.bytes().len()).filter(|_| !text.bytes().contains(&0)),
            Op::I32(_) | Op::U32(_) | Op::X32(_) | Op::I64(_) | Op::U64(_) | Op::X64(_) | Op::Hex0 { .. } => Some(20),
            _ => None,
        };
        let Some(most) = ops.iter().map(bounded).sum::<Option<usize>>().filter(|most| *most <= MOST) else {
            return Err(ops);
        };
        let (mut steps, mut before) = (Vec::new(), Vec::new());
        for op in ops {
            let (kind, node) = match op {
                Op::I32(node) => (NumberKind::I32, node),
                Op::U32(node) => (NumberKind::U32, node),
                Op::X32(node) => (NumberKind::X32, node),
                Op::I64(node) => (NumberKind::I64, node),
                Op::U64(node) => (NumberKind::U64, node),
                Op::X64(node) => (NumberKind::X64(1), node),
                Op::Hex0 { width, node } => (NumberKind::X64(width), node),
                Op::Lit(text) => {
                    before.extend_from_slice(text.bytes());
                    continue;
                }
                _ => continue,
            };
            steps.push((ShortText::new(&before), kind, node));
            before.clear();
        }
        Ok(Numbers { steps: steps.into(), end: ShortText::new(&before), most })
    }

    /// Whether the numbers are made of the record's bytes and of nothing else.
    pub(crate) fn are_of_record(&self) -> bool {
        self.steps.iter().all(|(_, _, node)| node.is_of_record())
    }

    /// Appends the text.
    pub(crate) fn print(&self, cx: &Cx<'_>, out: &mut Vec<u8>) {
        for (before, kind, node) in &self.steps {
            before.push(out);
            let v = node.eval(cx);
            match *kind {
                NumberKind::I32 => printf::idec(out, i64::from(v as i32)),
                NumberKind::U32 => printf::dec(out, u64::from(v as u32)),
                NumberKind::X32 => printf::hex(out, u64::from(v as u32)),
                NumberKind::I64 => printf::idec(out, v as i64),
                NumberKind::U64 => printf::dec(out, v),
                NumberKind::X64(width) => printf::hex_zeros(out, v, width.into()),
            }
        }
        self.end.push(out);
    }

    /// As [`Numbers::print`]; false, with nothing written, when there is no room.
    pub(crate) fn write(&self, cx: &Cx<'_>, pen: &mut Pen<'_>) -> bool {
        if !pen.has_room(self.most) {
            return false;
        }
        let mut own = pen.own();
        for (before, kind, node) in &self.steps {
            own.text(before);
            let v = node.eval(cx);
            match *kind {
                NumberKind::I32 => own.signed_dec(i64::from(v as i32)),
                NumberKind::U32 => own.dec(u64::from(v as u32)),
                NumberKind::X32 => own.hex(u64::from(v as u32), 1),
                NumberKind::I64 => own.signed_dec(v as i64),
                NumberKind::U64 => own.dec(v),
                NumberKind::X64(width) => own.hex(v, width.into()),
            }
        }
        own.text(&self.end);
        let at = own.at();
        pen.go_to(at);
        true
    }

    /// The constant texts.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.steps.iter().map(|s| &s.0).chain([&self.end]).map(ShortText::bytes)
    }
}

/// How an event's records become text.
#[derive(Debug)]
pub(crate) enum Program {
    /// The print fmt cannot be understood, for this reason.
    Failed(String),
    Numbers(Numbers),
    Ops {
        ops: Box<[Op]>,
        /// Whether the text may have a NUL in it.
        nul: bool,
        /// Whether [`write`] can run them, for most records; then no NUL is in the text.
        pen: bool,
    },
    /// `bprint`: the format is in the record.
    Bprint(super::bprint::Bprint),
}

impl TextSrc {
    fn is_of_record(&self) -> bool {
        match self {
            TextSrc::Nothing | TextSrc::Text(_) | TextSrc::Bytes { .. } | TextSrc::Pointer { .. } => true,
            TextSrc::Flags { value, .. } | TextSrc::Symbolic { value, .. } => value.is_of_record(),
            TextSrc::Cond(node, arms) => node.is_of_record() && arms.0.is_of_record() && arms.1.is_of_record(),
            _ => false,
        }
    }

    fn may_give_nul(&self) -> bool {
        let nul = |text: &[u8]| text.contains(&0);
        match self {
            TextSrc::Nothing | TextSrc::Bytes { .. } | TextSrc::Dynamic(_) => false,
            TextSrc::Text(text) => nul(text),
            TextSrc::Flags { delim, pairs, .. } => nul(delim) || pairs.iter().any(|p| nul(&p.1)),
            TextSrc::Symbolic { pairs, .. } => pairs.iter().any(|p| nul(&p.1)),
            TextSrc::Cond(_, arms) => arms.0.may_give_nul() || arms.1.may_give_nul(),
            _ => true,
        }
    }

    fn behind(&self) -> Behind {
        match self {
            TextSrc::Dynamic(_) => Behind::WithoutNul,
            TextSrc::Hex { .. } | TextSrc::Array { .. } | TextSrc::DynArray { .. } | TextSrc::Call(_) => {
                Behind::Lengths
            }
            TextSrc::Cond(_, arms) => arms.0.behind().max(arms.1.behind()),
            TextSrc::Nothing
            | TextSrc::Bitmask(_)
            | TextSrc::Cpumask(_)
            | TextSrc::Stack(_)
            | TextSrc::Text(_)
            | TextSrc::Bytes { .. }
            | TextSrc::Pointer { .. }
            | TextSrc::Flags { .. }
            | TextSrc::Symbolic { .. } => Behind::Never,
        }
    }
}

impl Program {
    /// When it shows bytes behind a record.
    pub(crate) fn behind(&self) -> Behind {
        let Program::Ops { ops, .. } = self else { return Behind::Never };
        let of = |op: &Op| if let Op::Text { src, .. } = op { src.behind() } else { Behind::Never };
        ops.iter().map(of).max().unwrap_or(Behind::Never)
    }
}

/// The helper functions that may be used.
pub(crate) fn parse_fmt(dec: &Decoder, event: &Event) -> Result<PrintFmt, String> {
    let plugins = !dec.options().no_plugins;
    print_fmt::parse(event, dec.long_size(), &|name| if plugins { crate::plugin::helper(name) } else { None })
}

impl Program {
    /// Compiles the print fmt of an event.
    pub(crate) fn compile(dec: &Decoder, event: &Event) -> Program {
        if event.system == "ftrace"
            && event.name == "bprint"
            && let Some(b) = super::bprint::Bprint::new(event)
        {
            return Program::Bprint(b);
        }
        match parse_fmt(dec, event).and_then(|f| compile_ops(dec, event, &f)) {
            Ok(ops) => match Numbers::new(ops) {
                Ok(numbers) => Program::Numbers(numbers),
                Err(ops) => {
                    let nul = ops.iter().any(Op::may_give_nul);
                    Program::Ops { nul, pen: !nul && ops.iter().all(Op::is_for_pen), ops: ops.into() }
                }
            },
            Err(why) => Program::Failed(why),
        }
    }
}

/// Constants that the reference says instead of an address when the argument has the wrong size.
fn lit(text: &str) -> Op {
    Op::Lit(ShortText::new(text.as_bytes()))
}

/// Compiles a parsed print fmt.
pub(crate) fn compile_ops(dec: &Decoder, event: &Event, fmt: &PrintFmt) -> Result<Vec<Op>, String> {
    let b = Builder { dec, event, long: dec.long_size() };
    let mut args = fmt.args.iter();
    let mut ops = Vec::new();
    for piece in printf::pieces(fmt.format.as_bytes())? {
        let (spec, conv) = match piece {
            Piece::Lit(l) => {
                ops.push(Op::Lit(ShortText::new(&l)));
                continue;
            }
            Piece::Conv(spec, conv) => (spec, conv),
        };
        let star = match spec.star {
            Star::None => None,
            _ => Some(b.node(args.next().ok_or("too few arguments")?)),
        };
        let arg = args.next().ok_or("too few arguments")?;
        let op = match conv {
            Conv::Num(c) => number_op(spec, c, star, b.node(arg)),
            Conv::Str => Op::Text { spec: Spec { zero: false, ..spec }, star, src: TextSrc::build(&b, arg) },
            Conv::WideStr => continue,
            Conv::Ptr(p) => pointer_op(&b, p, star, arg),
            Conv::Unknown(_) => continue,
        };
        ops.push(op);
    }
    Ok(ops)
}

fn number_op(spec: Spec, conv: u8, star: Option<Node>, node: Node) -> Op {
    if spec == (Spec { long: spec.long, ..Spec::default() }) {
        match (spec.long, conv) {
            (0, b'd' | b'i') => return Op::I32(node),
            (0, b'u') => return Op::U32(node),
            (0, b'x') => return Op::X32(node),
            (1 | 2, b'd' | b'i') => return Op::I64(node),
            (1 | 2, b'u') => return Op::U64(node),
            (1 | 2, b'x') => return Op::X64(node),
            _ => {}
        }
    }
    // `%08lx`: what system call events have for every argument.
    let zeros = Spec { long: spec.long, zero: true, width: spec.width, ..Spec::default() };
    if spec == zeros && star.is_none() && conv == b'x' && spec.long >= 1 && (1..=16).contains(&spec.width) {
        return Op::Hex0 { width: spec.width as u8, node };
    }
    Op::Num { spec, conv, star, node }
}

/// The field that an address conversion needs, or what is printed instead.
fn address_field<'e>(b: &'e Builder<'_>, arg: &Expr, size: usize, bad: &str) -> Result<&'e Field, Op> {
    match arg {
        Expr::Field(Some(id)) => match b.event.field_by_id(*id) {
            Some(f) if f.size == size => Ok(f),
            _ => Err(lit(bad)),
        },
        Expr::Field(None) => Err(lit(bad)),
        e => Err(lit(&format!("ARG TYPE NOT FIELD BUT {}", e.kind_number()))),
    }
}

fn pointer_op(b: &Builder<'_>, ptr: Ptr, star: Option<Node>, arg: &Expr) -> Op {
    match ptr {
        Ptr::Plain => Op::Pointer(b.node(arg)),
        Ptr::Symbol { offset } => Op::Symbol { offset, node: b.node(arg) },
        Ptr::Mac { sep, reversed } => match address_field(b, arg, 6, "INVALIDMAC") {
            Ok(f) => Op::Mac { at: f.offset as u32, sep, reversed },
            Err(op) => op,
        },
        Ptr::V4 { dots3, reversed } => match address_field(b, arg, 4, "INVALIDIPv4") {
            Ok(f) => Op::V4 { at: f.offset as u32, dots3, reversed },
            Err(op) => op,
        },
        Ptr::V6 { colons, compressed } => match address_field(b, arg, 16, "INVALIDIPv6") {
            Ok(f) => Op::V6 { at: f.offset as u32, colons, compressed },
            Err(op) => op,
        },
        Ptr::Uuid { upper, guid } => match address_field(b, arg, 16, "INVALIDUUID") {
            Ok(f) => Op::Uuid { at: f.offset as u32, upper, guid },
            Err(op) => op,
        },
        Ptr::Sock { big, port, compressed, reversed } => match arg {
            Expr::Field(Some(_)) | Expr::DynArray(_) => match b.place(arg) {
                Some(place) => {
                    let len = match arg {
                        Expr::Field(Some(id)) => b.event.field_by_id(*id).map(|f| f.size as u32),
                        _ => None,
                    };
                    Op::Sock { place, len, big, port, compressed, reversed }
                }
                None => Op::Lit(ShortText::default()),
            },
            _ => Op::Lit(ShortText::default()),
        },
        Ptr::Bytes { sep } => match arg {
            Expr::DynArray(id) => match b.event.field_by_id(*id) {
                Some(f) => Op::Bytes { loc: Loc::of(f), len: star, sep },
                None => Op::Lit(ShortText::default()),
            },
            e => lit(&format!("ARG TYPE NOT FIELD BUT {}", e.kind_number())),
        },
    }
}

fn bytes(s: &str) -> Box<[u8]> {
    s.as_bytes().into()
}

fn table(pairs: &[Pair]) -> Vec<(u64, Box<[u8]>)> {
    pairs.iter().map(|p| (p.value, bytes(&p.name))).collect()
}

impl TextSrc {
    /// What `%s` of an argument prints.
    pub(crate) fn build(b: &Builder<'_>, e: &Expr) -> TextSrc {
        let field = |id: &Option<crate::format::expr::FieldId>| id.and_then(|id| b.event.field_by_id(id));
        let loc = |id: &Option<crate::format::expr::FieldId>| field(id).map(Loc::of);
        match e {
            Expr::Atom(a) | Expr::Text(a) => TextSrc::Text(bytes(a)),
            Expr::Field(id) => match field(id) {
                Some(f) if !f.flags.contains(crate::format::FieldFlags::ARRAY) && f.size == b.long.bytes() => {
                    TextSrc::Pointer { offset: f.offset as u32, size: f.size as u32 }
                }
                Some(f) => TextSrc::Bytes { offset: f.offset as u32, size: f.size as u32 },
                None => TextSrc::Nothing,
            },
            Expr::Str(id) => loc(id).map_or(TextSrc::Nothing, TextSrc::Dynamic),
            Expr::Flags { value, delim, pairs } => {
                TextSrc::Flags { value: b.node(value), delim: bytes(delim), pairs: table(pairs).into() }
            }
            Expr::Symbolic { value, pairs } => {
                let mut pairs = table(pairs);
                // The first of equal values counts: a stable sort keeps it first.
                pairs.sort_by_key(|p| p.0);
                pairs.dedup_by_key(|p| p.0);
                TextSrc::Symbolic { value: b.node(value), pairs: pairs.into() }
            }
            Expr::Hex { buf, len, blanks } => match b.place(buf) {
                Some(place) => TextSrc::Hex { place, len: b.node(len), blanks: *blanks },
                None => TextSrc::Nothing,
            },
            Expr::Array { buf, count, size } => match b.place(buf) {
                Some(place) => TextSrc::Array { place, count: b.node(count), size: b.node(size) },
                None => TextSrc::Nothing,
            },
            Expr::DynPrint { field: id, size } => {
                loc(&Some(*id)).map_or(TextSrc::Nothing, |loc| TextSrc::DynArray { loc, size: b.node(size) })
            }
            Expr::Bitmask(id) => loc(id).map_or(TextSrc::Nothing, TextSrc::Bitmask),
            Expr::Cpumask(id) => loc(id).map_or(TextSrc::Nothing, TextSrc::Cpumask),
            Expr::Stack(id) => loc(id).map_or(TextSrc::Nothing, TextSrc::Stack),
            Expr::Cond(c, yes, no) => match b.node(c) {
                Node::Const(0) => TextSrc::build(b, no),
                Node::Const(_) => TextSrc::build(b, yes),
                c => TextSrc::Cond(c, Box::new((TextSrc::build(b, yes), TextSrc::build(b, no)))),
            },
            Expr::Call { helper, args } => TextSrc::Call(Box::new(b.call(helper, args))),
            _ => TextSrc::Nothing,
        }
    }

    /// Appends the text.
    pub(crate) fn print(&self, cx: &Cx<'_>, spec: &Spec, out: &mut Vec<u8>) {
        match self {
            TextSrc::Nothing => {}
            TextSrc::Text(t) => printf::text(out, t, spec),
            TextSrc::Bytes { offset, size } => {
                printf::text(out, until_nul(bytes_of(cx, *offset, *size)), spec);
            }
            TextSrc::Pointer { offset, size } => {
                let addr = cx.unswapped().load(*offset, *size);
                match cx.dec.printk().get(addr) {
                    Some(t) => out.extend_from_slice(t),
                    None => printf::hex(out, addr),
                }
            }
            TextSrc::Dynamic(loc) => {
                let (offset, len) = loc.get(cx);
                if len > 0 {
                    // A text without a NUL runs on, as it does in C; an empty one is not padded.
                    printf::text(out, until_nul(cx.reach.get(offset..).unwrap_or_default()), spec);
                }
            }
            TextSrc::Flags { value, delim, pairs } => flags(value.eval(cx), delim, pairs, spec, out),
            TextSrc::Symbolic { value, pairs } => {
                let v = value.eval(cx);
                match name_of(v, pairs) {
                    Some(name) => printf::text(out, name, spec),
                    None => printf::hex0x(out, v),
                }
            }
            TextSrc::Hex { place, len, blanks } => {
                let at = place.offset(cx);
                let len = usize::try_from(len.eval(cx) as i32).unwrap_or(0);
                let rest = cx.behind(at);
                for (i, b) in rest.get(..len).unwrap_or(rest).iter().enumerate() {
                    if i > 0 && *blanks {
                        out.push(b' ');
                    }
                    printf::hex2(out, *b);
                }
            }
            TextSrc::Array { place, count, size } => {
                let at = place.offset(cx);
                array(cx, at, count.eval(cx), size.eval(cx), out);
            }
            TextSrc::DynArray { loc, size } => {
                let (at, len) = loc.get(cx);
                let size = size.eval(cx);
                array(cx, at, (len as u64).checked_div(size).unwrap_or(0), size, out);
            }
            TextSrc::Bitmask(loc) => {
                let start = out.len();
                bitmask(cx, loc, out);
                printf::adjust(out, start, spec);
            }
            TextSrc::Cpumask(loc) => {
                let start = out.len();
                cpumask(cx, loc, out);
                printf::adjust(out, start, spec);
            }
            TextSrc::Stack(loc) => stack(cx, loc, out),
            TextSrc::Cond(c, arms) => {
                let arm = if c.eval(cx) != 0 { &arms.0 } else { &arms.1 };
                arm.print(cx, spec, out);
            }
            TextSrc::Call(call) => {
                call.run(cx, out);
            }
        }
    }
}

/// `size` bytes from `offset` on, or as many as there are; all of them for a size of 0.
#[inline]
fn bytes_of<'a>(cx: &Cx<'a>, offset: u32, size: u32) -> &'a [u8] {
    let all = cx.from(offset as usize);
    if size == 0 { all } else { all.get(..size as usize).unwrap_or(all) }
}

/// The name of a value in a sorted list.
#[inline]
fn name_of(v: u64, pairs: &[(u64, Box<[u8]>)]) -> Option<&[u8]> {
    let found = if pairs.len() <= 8 {
        pairs.iter().find(|p| p.0 == v)
    } else {
        pairs.binary_search_by_key(&v, |p| p.0).ok().and_then(|i| pairs.get(i))
    };
    found.map(|p| &*p.1)
}

/// The bytes in front of the first NUL.
#[inline]
pub(crate) fn until_nul(b: &[u8]) -> &[u8] {
    match memchr::memchr(0, b) {
        Some(n) => b.get(..n).unwrap_or(b),
        None => b,
    }
}

fn flags(mut v: u64, delim: &[u8], pairs: &[(u64, Box<[u8]>)], spec: &Spec, out: &mut Vec<u8>) {
    let mut any = false;
    for (mask, name) in pairs {
        let m = *mask;
        if v == 0 && (m as i64) < 0 {
            printf::text(out, name, spec);
            break;
        }
        if (m as i64) > 0 && v & m == m {
            if any {
                out.extend_from_slice(delim);
            }
            printf::text(out, name, spec);
            any = true;
            v &= !m;
        }
    }
    if v != 0 {
        if any {
            out.extend_from_slice(delim);
        }
        printf::hex0x(out, v);
    }
}

fn array(cx: &Cx<'_>, at: usize, count: u64, size: u64, out: &mut Vec<u8>) {
    let rest = cx.behind(at);
    out.push(b'{');
    let count = (count as u32 as usize).min(rest.len().max(1));
    for i in 0..count {
        if i > 0 {
            out.push(b',');
        }
        match size {
            1 | 2 | 4 | 8 => {
                let Some(n) = Endian::Little.uint(rest, i * size as usize, size as usize) else {
                    // The array says it is longer than what there is.
                    if i > 0 {
                        out.pop();
                    }
                    break;
                };
                printf::hex0x(out, n);
            }
            _ if i == 0 => {
                out.extend_from_slice(b"BAD SIZE:");
                printf::idec(out, i64::from(size as i32));
                out.push(b' ');
                printf::hex0x(out, rest.first().copied().unwrap_or(0).into());
            }
            _ => out.extend_from_slice(b"0x0"),
        }
    }
    out.push(b'}');
}

/// One number of all bytes in hexadecimal, with a comma between groups of 32 bits.
fn bitmask(cx: &Cx<'_>, loc: &Loc, out: &mut Vec<u8>) {
    let b = loc.bytes(cx);
    let mut put = |left: usize, byte: u8| {
        printf::hex2(out, byte);
        if left > 0 && left.is_multiple_of(4) {
            out.push(b',');
        }
    };
    match cx.endian {
        Endian::Little => b.iter().enumerate().rev().for_each(|(left, byte)| put(left, *byte)),
        Endian::Big => b.iter().enumerate().for_each(|(n, byte)| put(b.len() - 1 - n, *byte)),
    }
}

/// A list of bits and ranges: `0-3,5`.
fn cpumask(cx: &Cx<'_>, loc: &Loc, out: &mut Vec<u8>) {
    let b = loc.bytes(cx);
    // One number of all bytes.
    let byte = |n: usize| match cx.endian {
        Endian::Little => b.get(n),
        Endian::Big => b.get(b.len().wrapping_sub(n + 1)),
    };
    let bit = |n: usize| byte(n / 8).is_some_and(|v| v >> (n % 8) & 1 != 0);
    let bits = b.len() * 8;
    let (mut n, mut first) = (0, true);
    while n < bits {
        if !bit(n) {
            n += 1;
            continue;
        }
        let start = n;
        while n + 1 < bits && bit(n + 1) {
            n += 1;
        }
        if !first {
            out.push(b',');
        }
        first = false;
        printf::dec(out, start as u64);
        if n > start {
            out.push(b'-');
            printf::dec(out, n as u64);
        }
        n += 1;
    }
}

/// `=> function+0xOFFSET` lines; the first word of the array is its count.
fn stack(cx: &Cx<'_>, loc: &Loc, out: &mut Vec<u8>) {
    let long = cx.dec.long_size().bytes();
    out.push(b'\n');
    for entry in loc.bytes(cx).chunks_exact(long).skip(1) {
        let Some(addr) = cx.endian.uint(entry, 0, long) else { break };
        out.extend_from_slice(b"=> ");
        match cx.dec.symbols().find(addr) {
            Some(s) => {
                out.extend_from_slice(s.name);
                out.extend_from_slice(b"+0x");
                printf::hex(out, addr.wrapping_sub(s.addr));
            }
            None => printf::hex(out, addr),
        }
        out.push(b'\n');
    }
}

/// `name+0xOFFSET` or `name` of an address, else the address.
#[inline]
pub(crate) fn symbol(cx: &Cx<'_>, addr: u64, offset: bool, out: &mut Vec<u8>) {
    match cx.dec.symbols().name_at(addr) {
        Some(name) => name.push(out),
        None => return printf::hex0x(out, addr),
    }
    if let Some(s) = if offset { cx.dec.symbols().find(addr) } else { None } {
        out.extend_from_slice(b"+0x");
        printf::hex(out, addr.wrapping_sub(s.addr));
    }
}

fn with_star(spec: &Spec, star: &Option<Node>, cx: &Cx<'_>) -> Spec {
    let mut s = *spec;
    if let Some(n) = star {
        let v = n.eval(cx) as i32;
        match s.star {
            Star::Width => {
                s.minus |= v < 0;
                s.width = v.unsigned_abs().min(4096) as u16;
            }
            _ => s.prec = u16::try_from(v.min(i32::from(u16::MAX))).ok(),
        }
    }
    s
}

fn fixed<const N: usize>(cx: &Cx<'_>, at: u32) -> [u8; N] {
    cx.behind(at as usize).first_chunk::<N>().copied().unwrap_or([0; N])
}

/// Runs a program over a record.
pub(crate) fn run(ops: &[Op], cx: &Cx<'_>, out: &mut Vec<u8>) {
    for op in ops {
        match op {
            Op::Lit(l) => l.push(out),
            Op::I32(n) => printf::idec(out, i64::from(n.eval(cx) as i32)),
            Op::U32(n) => printf::dec(out, u64::from(n.eval(cx) as u32)),
            Op::X32(n) => printf::hex(out, u64::from(n.eval(cx) as u32)),
            Op::I64(n) => printf::idec(out, n.eval(cx) as i64),
            Op::U64(n) => printf::dec(out, n.eval(cx)),
            Op::X64(n) => printf::hex(out, n.eval(cx)),
            Op::Hex0 { width, node } => printf::hex_zeros(out, node.eval(cx), usize::from(*width)),
            Op::Num { spec, conv, star, node } => {
                printf::number(out, node.eval(cx), *conv, &with_star(spec, star, cx));
            }
            Op::Text { spec, star: None, src } => src.print(cx, spec, out),
            Op::Text { spec, star, src } => src.print(cx, &with_star(spec, star, cx), out),
            Op::Pointer(n) => printf::plain_pointer(out, n.eval(cx)),
            Op::Symbol { offset, node } => symbol(cx, node.eval(cx), *offset, out),
            Op::Mac { at, sep, reversed } => printf::mac(out, fixed(cx, *at), *sep, *reversed),
            Op::V4 { at, dots3, reversed } => printf::v4(out, fixed(cx, *at), *dots3, *reversed),
            Op::V6 { at, colons, compressed } => printf::v6(out, fixed(cx, *at), *colons, *compressed),
            Op::Uuid { at, upper, guid } => printf::uuid(out, fixed(cx, *at), *upper, *guid),
            Op::Sock { place, len, big, port, compressed, reversed } => {
                let b = match (place, len) {
                    (Place::Fixed(o), Some(len)) => {
                        let b = cx.from(*o as usize);
                        b.get(..*len as usize).unwrap_or(b)
                    }
                    (Place::Dynamic(l), _) => l.bytes(cx),
                    (p, _) => cx.from(p.offset(cx)),
                };
                let family = cx.unswapped().load(place.offset(cx) as u32, 2);
                sockaddr(b, family, *big, *port, *compressed, *reversed, out);
            }
            Op::Bytes { loc, len, sep } => {
                let b = loc.bytes(cx);
                let n = len.as_ref().map_or(1, |n| usize::try_from(n.eval(cx)).unwrap_or(usize::MAX));
                for (i, v) in b.iter().take(n).enumerate() {
                    if i > 0 && *sep != 0 {
                        out.push(*sep);
                    }
                    printf::hex2(out, *v);
                }
            }
        }
    }
}

/// As [`run`], with a pen. False, with nothing written, when a part of the text is long, or the steps are not [for it](Op::is_for_pen).
pub(crate) fn write(ops: &[Op], cx: &Cx<'_>, pen: &mut Pen<'_>) -> bool {
    let mut own = pen.own();
    for op in ops {
        if !own.has_room(2 * SHORT) {
            return false;
        }
        let text = match op {
            Op::Lit(l) => {
                own.text(l);
                continue;
            }
            Op::I32(n) => {
                own.signed_dec(i64::from(n.eval(cx) as i32));
                continue;
            }
            Op::U32(n) => {
                own.dec(u64::from(n.eval(cx) as u32));
                continue;
            }
            Op::I64(n) => {
                own.signed_dec(n.eval(cx) as i64);
                continue;
            }
            Op::U64(n) => {
                own.dec(n.eval(cx));
                continue;
            }
            Op::X32(n) => {
                own.hex(u64::from(n.eval(cx) as u32), 1);
                continue;
            }
            Op::X64(n) => {
                own.hex(n.eval(cx), 1);
                continue;
            }
            Op::Hex0 { width, node } => {
                own.hex(node.eval(cx), usize::from(*width));
                continue;
            }
            Op::Pointer(n) => {
                let v = n.eval(cx);
                if v == 0 {
                    own.piece(b"(nil)");
                } else {
                    own.hex0x(v);
                }
                continue;
            }
            Op::Symbol { node, .. } => {
                let v = node.eval(cx);
                match cx.dec.symbols().name_at(v) {
                    Some(name) => name.bytes(),
                    None => {
                        own.hex0x(v);
                        continue;
                    }
                }
            }
            Op::Text { src: TextSrc::Symbolic { value, pairs }, .. } => {
                let v = value.eval(cx);
                match name_of(v, pairs) {
                    Some(name) => name,
                    None => {
                        own.hex0x(v);
                        continue;
                    }
                }
            }
            Op::Text { src: TextSrc::Bytes { offset, size }, .. } => until_nul(bytes_of(cx, *offset, *size)),
            Op::Text { src: TextSrc::Dynamic(loc), .. } => match loc.get(cx) {
                (_, 0) => &[],
                (offset, _) => until_nul(cx.reach.get(offset..).unwrap_or_default()),
            },
            _ => return false,
        };
        if text.len() > SHORT {
            return false;
        }
        own.bytes(text);
    }
    let at = own.at();
    pen.go_to(at);
    true
}

fn sockaddr(b: &[u8], family: u64, big: bool, port: bool, compressed: bool, reversed: bool, out: &mut Vec<u8>) {
    let put_port = |out: &mut Vec<u8>| {
        out.push(b':');
        let p = b.get(2..).and_then(|b| b.first_chunk::<2>()).map_or(0, |p| u16::from_be_bytes(*p));
        printf::dec(out, u64::from(p));
    };
    match family {
        2 => match b.get(4..).and_then(|b| b.first_chunk::<4>()) {
            Some(a) => {
                printf::v4(out, *a, !big, reversed);
                if port && big {
                    put_port(out);
                }
            }
            None => out.extend_from_slice(b"INVALIDIPv4"),
        },
        10 => match b.get(8..).and_then(|b| b.first_chunk::<16>()) {
            Some(a) => {
                let port = port && big;
                if port {
                    out.push(b'[');
                }
                printf::v6(out, *a, big, compressed && big);
                if port {
                    out.push(b']');
                    put_port(out);
                }
            }
            None => out.extend_from_slice(b"INVALIDIPv6"),
        },
        _ => {}
    }
}
