//! `sys_enter_futex`: the operation by name and the arguments it uses.

use super::{
    EventPrinter, PrintCx,
    text::{Num, dec, hex_padded},
};
use crate::format::Event;

/// How an argument is shown.
#[derive(Clone, Copy, Debug)]
enum Arg {
    /// `val` as a word that is compared.
    Val,
    /// `val` as a number of waiters.
    Count,
    Utime,
    /// `utime` as a second number.
    Val2,
    Uaddr2,
    Val3,
}

use Arg::{Count, Uaddr2, Utime, Val, Val2, Val3};

/// Operations in the order of their numbers, with the arguments that make sense for each. Source: futex(2).
const OPS: [(&str, &[Arg]); 13] = [
    ("FUTEX_WAIT", &[Val, Utime]),
    ("FUTEX_WAKE", &[Count]),
    ("FUTEX_FD", &[Count]),
    ("FUTEX_REQUEUE", &[Count, Val2, Uaddr2]),
    ("FUTEX_CMP_REQUEUE", &[Count, Val2, Uaddr2, Val3]),
    ("FUTEX_WAKE_OP", &[Count, Val2, Uaddr2, Val3]),
    ("FUTEX_LOCK_PI", &[Utime]),
    ("FUTEX_UNLOCK_PI", &[]),
    ("FUTEX_TRYLOCK_PI", &[]),
    ("FUTEX_WAIT_BITSET", &[Val, Utime, Val3]),
    ("FUTEX_WAKE_BITSET", &[Count, Val3]),
    ("FUTEX_WAIT_REQUEUE_PI", &[Val, Utime, Uaddr2, Val3]),
    ("FUTEX_CMP_REQUEUE_PI", &[Count, Val2, Uaddr2, Val3]),
];

const FUTEX_PRIVATE_FLAG: u64 = 0x80;
const FUTEX_CLOCK_REALTIME: u64 = 0x100;

/// `sys_enter_futex`.
#[derive(Debug)]
pub(super) struct Futex {
    uaddr: Num,
    op: Num,
    val: Num,
    utime: Num,
    uaddr2: Num,
    val3: Num,
}

impl Futex {
    /// `None` when the event lacks one of the arguments.
    pub(super) fn new(event: &Event) -> Option<Self> {
        let num = |name| Num::of(event, name);
        Some(Futex {
            uaddr: num("uaddr")?,
            op: num("op")?,
            val: num("val")?,
            utime: num("utime")?,
            uaddr2: num("uaddr2")?,
            val3: num("val3")?,
        })
    }
}

impl EventPrinter for Futex {
    fn print(&self, cx: &PrintCx<'_>, out: &mut Vec<u8>) {
        let get = |n: Num| n.get(cx.dec.endian(), cx.rec.data);
        let op = get(self.op);
        let plain = op & !(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME);
        let Some((name, args)) = usize::try_from(plain).ok().and_then(|n| OPS.get(n)) else {
            return cx.dec.print_fmt(cx, out);
        };
        out.extend_from_slice(b"op=");
        out.extend_from_slice(name.as_bytes());
        if op & FUTEX_PRIVATE_FLAG != 0 {
            out.extend_from_slice(b"|FUTEX_PRIVATE_FLAG");
        }
        if op & FUTEX_CLOCK_REALTIME != 0 {
            out.extend_from_slice(b"|FUTEX_CLOCK_REALTIME");
        }
        out.extend_from_slice(b" uaddr=");
        hex_padded(out, get(self.uaddr));
        for arg in *args {
            let (label, field, hex) = match arg {
                Val => (" val=", self.val, true),
                Count => (" val=", self.val, false),
                Utime => (" utime=", self.utime, true),
                Val2 => (" val2=", self.utime, false),
                Uaddr2 => (" uaddr2=", self.uaddr2, true),
                Val3 => (" val3=", self.val3, true),
            };
            out.extend_from_slice(label.as_bytes());
            if hex { hex_padded(out, get(field)) } else { dec(out, get(field)) }
        }
    }
}
