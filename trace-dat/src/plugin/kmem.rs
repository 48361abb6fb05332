//! Allocator events: the calling function in front of the usual text.

use super::{
    EventPrinter, PrintCx,
    text::{Num, hex0x},
};
use crate::format::Event;

/// `kmalloc`, `kfree` and their like.
#[derive(Debug)]
pub(super) struct CallSite {
    call_site: Option<Num>,
}

impl CallSite {
    pub(super) fn new(event: &Event) -> Self {
        CallSite { call_site: Num::of(event, "call_site") }
    }
}

impl EventPrinter for CallSite {
    fn print(&self, cx: &PrintCx<'_>, out: &mut Vec<u8>) {
        if let Some(site) = self.call_site {
            let addr = site.get(cx.dec.endian(), cx.rec.data);
            if let Some(s) = cx.dec.symbols().find(addr) {
                out.push(b'(');
                out.extend_from_slice(s.name);
                out.push(b'+');
                hex0x(out, addr.wrapping_sub(s.addr));
                out.extend_from_slice(b") ");
            }
        }
        cx.dec.print_fmt(cx, out);
    }
}
