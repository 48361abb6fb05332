//! `drv_bss_info_changed` of mac80211, on four lines.

use super::{
    EventPrinter, PrintCx,
    text::{Num, Text, blanks, cant_find, dec, hex0x},
};
use crate::format::Event;

/// Column at which the lines behind the first begin.
const COLUMN: usize = 65;

/// Fields of the second to fourth line; the last two of a line differ in hex and in what follows them.
const LINES: [&[(&str, bool)]; 3] = [
    &[("assoc", false), ("aid", false), ("cts", false), ("shortpre", false), ("shortslot", false), ("dtimper", false)],
    &[("bcnint", false), ("assoc_cap", true), ("basic_rates", true), ("enable_beacon", false)],
    &[("ht_operation_mode", false)],
];

/// A field with its name and whether it is shown in hex.
type Item = (&'static str, bool, Option<Num>);

/// `drv_bss_info_changed`.
#[derive(Debug)]
pub(super) struct BssInfoChanged {
    wiphy: Option<Text>,
    vif: Option<Text>,
    vif_type: Option<Num>,
    lines: Vec<Vec<Item>>,
}

impl BssInfoChanged {
    pub(super) fn new(event: &Event) -> Self {
        let line = |fields: &&[(&'static str, bool)]| {
            fields.iter().map(|(name, hex)| (*name, *hex, Num::of(event, name))).collect()
        };
        BssInfoChanged {
            wiphy: Text::of(event, "wiphy_name"),
            vif: Text::of(event, "vif_name"),
            vif_type: Num::of(event, "vif_type"),
            lines: LINES.iter().map(line).collect(),
        }
    }
}

impl EventPrinter for BssInfoChanged {
    fn print(&self, cx: &PrintCx<'_>, out: &mut Vec<u8>) {
        let (endian, data) = (cx.dec.endian(), cx.rec.data);
        let text = |field: &Option<Text>, name: &str, out: &mut Vec<u8>| match field {
            Some(t) => out.extend_from_slice(t.text(endian, data)),
            None => {
                out.extend_from_slice(b"NOTFOUND:");
                out.extend_from_slice(name.as_bytes());
            }
        };
        text(&self.wiphy, "wiphy_name", out);
        out.extend_from_slice(b" vif:");
        text(&self.vif, "vif_name", out);
        match self.vif_type {
            Some(n) => {
                out.push(b'(');
                dec(out, n.get(endian, data) as i32);
                out.push(b')');
            }
            None => cant_find("vif_type", out),
        }
        for (i, line) in self.lines.iter().enumerate() {
            out.push(b'\n');
            blanks(out, COLUMN);
            for (k, (name, hex, field)) in line.iter().enumerate() {
                if k > 0 {
                    out.push(b' ');
                }
                let Some(field) = field else { continue };
                let value = field.get(endian, data);
                out.extend_from_slice(name.as_bytes());
                out.push(b':');
                if *hex && value != 0 { hex0x(out, value) } else { dec(out, value as i32) }
            }
            if i == 0 {
                out.push(b' ');
            }
        }
    }
}
