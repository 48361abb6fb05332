//! Events of the function tracer: `function`, `func_repeats`, `kernel_stack`, `raw_data`.

use super::{
    EventPrinter, PrintCx,
    options::Ftrace,
    text::{Num, blanks, dec, hex, hex0x, hex2, missing, symbol},
};
use crate::{Decoder, Endian, decoder::PrintOptions, format::Event};

/// Bytes of arguments below which a `function` record counts as having none.
const LEAST_ARGS: usize = 24;

/// `function` and `func_repeats`: the function, indented below its caller.
#[derive(Debug)]
pub(super) struct Function {
    ip: Option<Num>,
    parent_ip: Option<Num>,
    /// Where the arguments begin.
    args: Option<usize>,
    repeats: Option<Repeats>,
    options: Ftrace,
}

/// What `func_repeats` has beside the fields of `function`.
#[derive(Debug)]
struct Repeats {
    count: Option<Num>,
    top: Option<Num>,
    bottom: Option<Num>,
}

impl Function {
    pub(super) fn new(event: &Event, options: &PrintOptions) -> Self {
        let num = |name| Num::of(event, name);
        let repeats = Repeats { count: num("count"), top: num("top_delta_ts"), bottom: num("bottom_delta_ts") };
        Function {
            ip: num("ip"),
            parent_ip: num("parent_ip"),
            args: num("args").map(|a| a.offset),
            repeats: (event.name == "func_repeats").then_some(repeats),
            options: Ftrace::new(options),
        }
    }
}

impl EventPrinter for Function {
    fn is_free_of_nul(&self) -> bool {
        self.ip.is_some() && self.repeats.is_none()
    }

    fn print(&self, cx: &PrintCx<'_>, out: &mut Vec<u8>) {
        let (endian, data) = (cx.dec.endian(), cx.rec.data);
        let Some(ip) = self.ip else {
            missing("ip", out);
            out.push(b'!');
            return cx.dec.print_fmt(cx, out);
        };
        let ip = ip.get(endian, data);
        let parent = self.parent_ip.map(|p| p.get(endian, data));
        if parent.is_none() {
            missing("parent_ip", out);
            out.push(b'!');
        }
        if self.options.indent {
            blanks(out, cx.note.indent as usize * 3);
        }
        let args = self.args.and_then(|at| data.get(at..)).filter(|a| a.len() >= LEAST_ARGS);
        if args.is_some() {
            cx.dec.read_functions();
        }
        let func = symbol(cx.dec, ip, self.options.offset, out);
        if let Some(args) = args {
            out.push(b'(');
            if let Some(func) = func {
                print_args(cx.dec, func.bytes(), args, out);
            }
            out.push(b')');
        }
        if let Some(parent) = parent.filter(|_| self.options.parent) {
            out.extend_from_slice(b" <-- ");
            symbol(cx.dec, parent, self.options.offset, out);
        }
        if let Some(repeats) = &self.repeats {
            repeats.print(cx, out);
        }
    }
}

impl Repeats {
    fn print(&self, cx: &PrintCx<'_>, out: &mut Vec<u8>) {
        let (endian, data) = (cx.dec.endian(), cx.rec.data);
        for (field, name) in [(self.count, "count"), (self.top, "top_delta_ts"), (self.bottom, "bottom_delta_ts")] {
            if field.is_none() {
                missing(name, out);
                out.push(b'!');
                return cx.dec.print_fmt(cx, out);
            }
        }
        let get = |n: Option<Num>| n.map_or(0, |n| n.get(endian, data));
        let delta = get(self.top) << 32 | get(self.bottom);
        let last = cx.ts.wrapping_sub(delta);
        out.extend_from_slice(b" (count: ");
        dec(out, get(self.count));
        out.extend_from_slice(b"  last_ts: ");
        let options = cx.dec.options();
        if options.raw_times {
            dec(out, last);
        } else {
            let (value, per_second, digits) = if options.nanoseconds {
                (last, 1_000_000_000, 9)
            } else {
                (last.wrapping_add(500) / 1000, 1_000_000, 6)
            };
            let mut text = itoa::Buffer::new();
            let seconds = text.format(value / per_second);
            blanks(out, 5usize.saturating_sub(seconds.len()));
            out.extend_from_slice(seconds.as_bytes());
            out.push(b'.');
            let mut text = itoa::Buffer::new();
            let rest = text.format(value % per_second);
            out.resize(out.len() + (digits - rest.len().min(digits)), b'0');
            out.extend_from_slice(rest.as_bytes());
        }
        out.push(b')');
    }
}

/// Appends the arguments of a function: by name when the kernel's types tell them, else as hex words.
///
/// A part of a function that the compiler made (`dput.part.0`) takes what the function takes. Of a big-endian file the reference
/// understands neither the types nor the words' byte order, and reports are the same to the byte.
pub(super) fn print_args(dec: &Decoder, name: &[u8], args: &[u8], out: &mut Vec<u8>) {
    let size = dec.long_size().bytes();
    let words = args.chunks_exact(size).map(|w| Endian::Little.uint(w, 0, size).unwrap_or(0));
    let name = memchr::memchr(b'.', name).and_then(|dot| name.get(..dot)).unwrap_or(name);
    let btf = dec.btf().filter(|_| dec.endian() == Endian::Little);
    if let Some(proto) = btf.and_then(|b| b.function(name)) {
        proto.print_args(words, size, out);
    } else {
        for (i, word) in words.enumerate() {
            if i > 0 {
                out.extend_from_slice(b", ");
            }
            hex(out, word);
        }
    }
}

/// `kernel_stack`: one line for each return address.
#[derive(Debug)]
pub(super) struct KernelStack {
    caller: Option<usize>,
    offset: bool,
}

impl KernelStack {
    pub(super) fn new(event: &Event, options: &PrintOptions) -> Self {
        KernelStack { caller: Num::of(event, "caller").map(|c| c.offset), offset: Ftrace::new(options).offset }
    }
}

impl EventPrinter for KernelStack {
    fn print(&self, cx: &PrintCx<'_>, out: &mut Vec<u8>) {
        let Some(at) = self.caller else {
            return missing("caller", out);
        };
        out.extend_from_slice(b"<stack trace >\n");
        let size = cx.dec.long_size().bytes();
        let end = if size == 8 { u64::MAX } else { u64::from(u32::MAX) };
        for entry in cx.rec.data.get(at..).unwrap_or_default().chunks_exact(size) {
            let addr = cx.dec.endian().uint(entry, 0, size).unwrap_or(end);
            if addr == end {
                break;
            }
            out.extend_from_slice(b"=> ");
            if let Some(s) = cx.dec.symbols().find(addr) {
                out.extend_from_slice(s.name);
                if self.offset {
                    out.push(b'+');
                    hex0x(out, addr.wrapping_sub(s.addr));
                    out.push(b' ');
                }
                out.extend_from_slice(b" (");
                hex(out, addr);
                out.extend_from_slice(b")\n");
            } else {
                hex(out, addr);
                out.push(b'\n');
            }
        }
    }
}

/// `raw_data`: what was written into `trace_marker_raw`.
#[derive(Debug)]
pub(super) struct RawData {
    id: Option<Num>,
    buf: Option<usize>,
}

impl RawData {
    pub(super) fn new(event: &Event) -> Self {
        RawData { id: Num::of(event, "id"), buf: Num::of(event, "buf").map(|b| b.offset) }
    }
}

impl EventPrinter for RawData {
    fn print(&self, cx: &PrintCx<'_>, out: &mut Vec<u8>) {
        let Some(id) = self.id else {
            return missing("id", out);
        };
        out.extend_from_slice(b"# ");
        hex(out, id.get(cx.dec.endian(), cx.rec.data));
        let Some(at) = self.buf else {
            return missing("buf", out);
        };
        // Eight bytes for each word of the machine, so that a 32-bit file shows most of them twice, as the reference does.
        let bytes = cx.rec.data.get(at..).unwrap_or_default();
        for start in (0..bytes.len()).step_by(cx.dec.long_size().bytes()) {
            for b in bytes.get(start..).unwrap_or_default().iter().take(8) {
                out.push(b' ');
                hex2(out, *b);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DecoderParts, LongSize, btf::tests::Builder, lazy::LazyText};

    fn args(endian: Endian, name: &str) -> String {
        let mut types = Builder::new(endian);
        let int = types.add("int", 1, 0, 4, &[1 << 24 | 32]);
        types.func("dput", &[("dentry", int)]);
        let mut parts = DecoderParts::new(endian, LongSize::Eight, 4096);
        parts.btf = LazyText::Bytes(types.build());
        let mut out = Vec::new();
        print_args(&Decoder::new(parts), name.as_bytes(), &endian.from_u64(0x1234), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn parts_of_a_function_take_its_arguments() {
        assert_eq!(args(Endian::Little, "dput"), "dentry=4660");
        assert_eq!(args(Endian::Little, "dput.part.0"), "dentry=4660");
        assert_eq!(args(Endian::Little, "dput_more"), "1234");
    }

    /// A line of fixtures/DIFFERENCES.md.
    #[test]
    fn words_of_a_32_bit_file_have_four_bytes() {
        let dec = Decoder::new(DecoderParts::new(Endian::Little, LongSize::Four, 4096));
        let mut out = Vec::new();
        print_args(&dec, b"f", &[1, 0, 0, 0, 0xff, 0, 0, 0], &mut out);
        assert_eq!(out, b"1, ff");
    }

    #[test]
    fn arguments_of_a_big_endian_file_are_unswapped_words() {
        assert_eq!(args(Endian::Big, "dput"), "3412000000000000");
    }
}
