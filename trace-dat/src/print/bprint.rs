//! `bprint`, the event of `trace_printk`: the format is an address, its arguments are packed words.

use crate::{
    format::Event,
    print::{
        eval::Cx,
        printf::{self, Conv, Piece, Ptr, Spec, Star},
        program::{symbol, until_nul},
    },
};

/// Where the fields of a `bprint` event lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bprint {
    ip: (u32, u32),
    fmt: (u32, u32),
    buf: u32,
}

/// Walks over the packed arguments; a word begins at a multiple of 4 bytes.
struct Args<'a, 'c> {
    cx: &'c Cx<'a>,
    at: usize,
    long: usize,
}

impl<'a> Args<'a, '_> {
    fn word(&mut self, size: usize) -> u64 {
        self.at = self.at.saturating_add(3) & !3;
        let v = self.cx.endian.uint(self.cx.data, self.at, size).unwrap_or(0);
        self.at = self.at.saturating_add(size);
        v
    }

    fn text(&mut self) -> &'a [u8] {
        let s = until_nul(self.cx.from(self.at));
        self.at = self.at.saturating_add(s.len() + 1);
        s
    }
}

impl Bprint {
    pub(crate) fn new(event: &Event) -> Option<Bprint> {
        let field = |name: &str| event.field(name).map(|f| (f.offset as u32, f.size as u32));
        Some(Bprint { ip: field("ip")?, fmt: field("fmt")?, buf: field("buf")?.0 })
    }

    pub(crate) fn print(&self, cx: &Cx<'_>, out: &mut Vec<u8>) {
        symbol(cx, cx.load(self.ip.0, self.ip.1), false, out);
        out.extend_from_slice(b": ");
        let addr = cx.load(self.fmt.0, self.fmt.1);
        let Some(format) = cx.dec.printk().get(addr) else {
            out.extend_from_slice(b"(NO FORMAT FOUND at ");
            printf::hex(out, addr);
            out.extend_from_slice(b")\n");
            return;
        };
        let Ok(pieces) = printf::pieces(format) else {
            out.extend_from_slice(until_nul(format));
            return;
        };
        let mut args = Args { cx, at: self.buf as usize, long: cx.dec.long_size().bytes() };
        for p in pieces {
            match p {
                Piece::Lit(l) => out.extend_from_slice(&l),
                Piece::Conv(spec, conv) => conversion(&mut args, spec, conv, out),
            }
        }
    }
}

fn conversion(args: &mut Args<'_, '_>, mut spec: Spec, conv: Conv, out: &mut Vec<u8>) {
    let star = (spec.star != Star::None).then(|| args.word(4) as i32);
    match (spec.star, star) {
        (Star::Width, Some(v)) => {
            spec.minus |= v < 0;
            spec.width = v.unsigned_abs().min(4096) as u16;
        }
        (Star::Prec, Some(v)) => spec.prec = u16::try_from(v.min(i32::from(u16::MAX))).ok(),
        _ => {}
    }
    match conv {
        Conv::Num(c) => {
            let size = match spec.long {
                1 => args.long,
                2 => 8,
                _ => 4,
            };
            let v = args.word(size);
            printf::number(out, v, c, &spec);
        }
        Conv::Str => printf::text(out, args.text(), &spec),
        Conv::WideStr | Conv::Unknown(_) => {}
        Conv::Ptr(Ptr::Plain) => {
            let v = args.word(args.long);
            printf::plain_pointer(out, v);
        }
        Conv::Ptr(Ptr::Symbol { offset }) => {
            let v = args.word(args.long);
            symbol(args.cx, v, offset, out);
        }
        // Since Linux 5.0 the kernel stores the text of other pointer formats.
        Conv::Ptr(_) => printf::text(out, args.text(), &spec),
    }
}
