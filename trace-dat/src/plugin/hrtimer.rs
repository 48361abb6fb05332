//! High-resolution timers: `hrtimer_start`, `hrtimer_expire_entry`.

use super::{
    EventPrinter, PrintCx,
    text::{Num, cant_find, dec, hex_padded, hex0x},
};
use crate::format::Event;

/// `hrtimer_start` and `hrtimer_expire_entry`.
#[derive(Debug)]
pub(super) struct Hrtimer {
    timer: Option<Num>,
    function: Option<Num>,
    /// `hrtimer_expire_entry` only.
    now: Option<Num>,
    expires: Option<Num>,
    softexpires: Option<Num>,
    start: bool,
}

impl Hrtimer {
    pub(super) fn new(event: &Event) -> Self {
        let num = |name| Num::of(event, name);
        Hrtimer {
            timer: num("timer").or(num("hrtimer")),
            function: num("function"),
            now: num("now"),
            expires: num("expires"),
            softexpires: num("softexpires"),
            start: event.name == "hrtimer_start",
        }
    }

    /// ` function=NAME/0xOFFSET`. The offset counts from the address to the function's start, as the reference has it.
    fn print_function(&self, cx: &PrintCx<'_>, out: &mut Vec<u8>) {
        let Some(function) = self.function else { return };
        let addr = function.get(cx.dec.endian(), cx.rec.data);
        out.extend_from_slice(b" function=");
        match cx.dec.symbols().find(addr) {
            Some(s) => {
                out.extend_from_slice(s.name);
                out.push(b'/');
                hex0x(out, s.addr.wrapping_sub(addr));
            }
            None => hex_padded(out, addr),
        }
    }
}

impl EventPrinter for Hrtimer {
    fn print(&self, cx: &PrintCx<'_>, out: &mut Vec<u8>) {
        let number = |label: &str, name: &str, field: Option<Num>, out: &mut Vec<u8>| {
            out.extend_from_slice(label.as_bytes());
            match field {
                Some(n) => dec(out, n.get(cx.dec.endian(), cx.rec.data)),
                None => cant_find(name, out),
            }
        };
        out.extend_from_slice(b"hrtimer=");
        match self.timer {
            Some(n) => hex0x(out, n.get(cx.dec.endian(), cx.rec.data)),
            None => cant_find("hrtimer", out),
        }
        if self.start {
            self.print_function(cx, out);
            number(" expires=", "expires", self.expires, out);
            number(" softexpires=", "softexpires", self.softexpires, out);
        } else {
            number(" now=", "now", self.now, out);
            self.print_function(cx, out);
        }
    }
}
