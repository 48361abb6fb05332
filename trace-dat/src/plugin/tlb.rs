//! `tlb_flush`.

use super::{
    EventPrinter, PrintCx,
    text::{Num, cant_find, dec, missing},
};
use crate::format::Event;

/// Names of `enum tlb_flush_reason` that the reference knows.
const REASONS: [&str; 4] = ["flush on task switch", "remote shootdown", "local shootdown", "local mm shootdown"];

/// `tlb_flush`.
#[derive(Debug)]
pub(super) struct TlbFlush {
    pages: Option<Num>,
    reason: Option<Num>,
}

impl TlbFlush {
    pub(super) fn new(event: &Event) -> Self {
        TlbFlush { pages: Num::of(event, "pages"), reason: Num::of(event, "reason") }
    }
}

impl EventPrinter for TlbFlush {
    fn print(&self, cx: &PrintCx<'_>, out: &mut Vec<u8>) {
        let get = |n: Num| n.get(cx.dec.endian(), cx.rec.data);
        out.extend_from_slice(b"pages=");
        match self.pages {
            Some(pages) => dec(out, get(pages) as i64),
            None => cant_find("pages", out),
        }
        let Some(reason) = self.reason else {
            missing("reason", out);
            return cx.dec.print_fmt(cx, out);
        };
        let reason = get(reason);
        out.extend_from_slice(b" reason=");
        out.extend_from_slice(REASONS.get(reason as usize).copied().unwrap_or_default().as_bytes());
        out.extend_from_slice(b" (");
        dec(out, reason);
        out.push(b')');
    }
}
