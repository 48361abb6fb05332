//! Scheduler events: `sched_switch`, `sched_wakeup`, `sched_wakeup_new`.

use super::{
    EventPrinter, PrintCx,
    text::{Num, Text, dec, missing},
};
use crate::format::Event;

/// `sched_switch`.
#[derive(Debug)]
pub(super) struct Switch {
    prev_comm: Option<Text>,
    prev_pid: Option<Num>,
    prev_prio: Option<Num>,
    prev_state: Option<Num>,
    next_comm: Option<Text>,
    next_pid: Option<Num>,
    next_prio: Option<Num>,
    letters: [u8; 8],
}

/// Letters of the low bits of a task's state, of kernels since 4.14.
const STATES: [u8; 8] = *b"SDTtXZPI";

/// The letters in the first `__print_flags` of a print fmt: for each pair the lowest bit of its number and the first letter of its name.
///
/// Bits that the table does not have get no letter (0).
fn letters(print_fmt: &str) -> [u8; 8] {
    let Some((_, table)) = print_fmt.split_once("__print_flags(") else { return STATES };
    let mut found = [0; 8];
    let mut rest = table;
    // The pairs end with the call; strings before them hold no brace.
    while let Some(open) = rest.find(['{', ')', '"']) {
        let (kind, after) = (rest.as_bytes().get(open), rest.get(open + 1..).unwrap_or_default());
        match kind {
            Some(b'"') => rest = after.split_once('"').map_or("", |s| s.1),
            Some(b')') if !before_pairs(rest, open) => break,
            Some(b'{') => {
                let Some((pair, next)) = after.split_once('}') else { break };
                rest = next;
                let Some((number, name)) = pair.split_once(',') else { continue };
                let letter = name.split_once('"').and_then(|n| n.1.bytes().next());
                if let (Some(value), Some(letter)) = (number_of(number.trim()), letter)
                    && let Some(slot) = found.get_mut(value.trailing_zeros() as usize)
                {
                    *slot = letter;
                }
            }
            _ => rest = after,
        }
    }
    found
}

/// Whether a `{` still follows the bracket at `at` before the call can have ended: brackets in the first argument.
fn before_pairs(text: &str, at: usize) -> bool {
    let tail = text.get(at + 1..).unwrap_or_default();
    let next = tail.find('{').unwrap_or(usize::MAX);
    tail.find("\"|\"").is_some_and(|bar| bar < next)
}

fn number_of(text: &str) -> Option<u64> {
    let text = text.trim_matches(['(', ')', ' ']).trim_end_matches(['u', 'U', 'l', 'L']);
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

impl Switch {
    pub(super) fn new(event: &Event) -> Self {
        let num = |name| Num::of(event, name);
        Switch {
            prev_comm: Text::of(event, "prev_comm"),
            prev_pid: num("prev_pid"),
            prev_prio: num("prev_prio"),
            prev_state: num("prev_state"),
            next_comm: Text::of(event, "next_comm"),
            next_pid: num("next_pid"),
            next_prio: num("next_prio"),
            letters: letters(&event.print_fmt),
        }
    }
}

/// Appends `comm:pid`, with a missing name left out. False when the pid is missing.
fn print_task(cx: &PrintCx<'_>, comm: Option<&Text>, pid: Option<Num>, out: &mut Vec<u8>) -> bool {
    let Some(pid) = pid else { return false };
    if let Some(comm) = comm {
        out.extend_from_slice(comm.text(cx.dec.endian(), cx.rec.data));
        out.push(b':');
    }
    dec(out, pid.get(cx.dec.endian(), cx.rec.data));
    true
}

impl EventPrinter for Switch {
    fn is_of_record(&self) -> bool {
        self.prev_pid.is_some() && self.next_pid.is_some()
    }

    fn print(&self, cx: &PrintCx<'_>, out: &mut Vec<u8>) {
        let get = |n: Num| n.get(cx.dec.endian(), cx.rec.data);
        if !print_task(cx, self.prev_comm.as_ref(), self.prev_pid, out) {
            missing("prev_pid", out);
            out.push(b'!');
            return cx.dec.print_fmt(cx, out);
        }
        out.push(b' ');
        match self.prev_prio {
            Some(prio) => {
                out.push(b'[');
                dec(out, get(prio) as i32);
                out.extend_from_slice(b"] ");
            }
            None => missing("prev_prio", out),
        }
        if let Some(state) = self.prev_state {
            let state = get(state);
            let start = out.len();
            let set = |(bit, letter): &(usize, &u8)| state >> bit & 1 != 0 && **letter != 0;
            for (_, letter) in self.letters.iter().enumerate().filter(set) {
                if out.len() > start {
                    out.push(b'|');
                }
                out.push(*letter);
            }
            if out.len() == start {
                out.push(b'R');
            }
        }
        out.extend_from_slice(b" ==> ");
        if !print_task(cx, self.next_comm.as_ref(), self.next_pid, out) {
            missing("next_pid", out);
            out.push(b'!');
            return cx.dec.print_fmt(cx, out);
        }
        match self.next_prio {
            Some(prio) => {
                out.extend_from_slice(b" [");
                dec(out, get(prio) as i32);
                out.push(b']');
            }
            None => missing("next_prio", out),
        }
    }
}

/// `sched_wakeup` and `sched_wakeup_new`.
#[derive(Debug)]
pub(super) struct Wakeup {
    comm: Option<Text>,
    pid: Option<Num>,
    prio: Option<Num>,
    success: Option<Num>,
    target_cpu: Option<Num>,
}

impl Wakeup {
    pub(super) fn new(event: &Event) -> Self {
        let num = |name| Num::of(event, name);
        Wakeup {
            comm: Text::of(event, "comm"),
            pid: num("pid"),
            prio: num("prio"),
            success: num("success"),
            target_cpu: num("target_cpu"),
        }
    }
}

impl EventPrinter for Wakeup {
    fn is_of_record(&self) -> bool {
        self.pid.is_some()
    }

    fn print(&self, cx: &PrintCx<'_>, out: &mut Vec<u8>) {
        let get = |n: Num| n.get(cx.dec.endian(), cx.rec.data);
        if !print_task(cx, self.comm.as_ref(), self.pid, out) {
            missing("pid", out);
            out.push(b'!');
            return cx.dec.print_fmt(cx, out);
        }
        match self.prio {
            Some(prio) => {
                out.extend_from_slice(b" [");
                dec(out, get(prio));
                out.push(b']');
            }
            None => missing("prio", out),
        }
        if let Some(success) = self.success {
            out.extend_from_slice(b" success=");
            dec(out, get(success));
        }
        if let Some(cpu) = self.target_cpu {
            out.extend_from_slice(b" CPU:");
            let mut text = itoa::Buffer::new();
            let cpu = text.format(get(cpu));
            out.resize(out.len() + 3usize.saturating_sub(cpu.len()), b'0');
            out.extend_from_slice(cpu.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_come_from_the_print_fmt() {
        let new = r#""prev_state=%s%s", (REC->prev_state & ((((0x0 | 0x1) + 1) << 1) - 1)) ? __print_flags(REC->prev_state & ((((0x0 | 0x1) + 1) << 1) - 1), "|", { 0x00000001, "S" }, { 0x00000002, "D" }, { 0x00000080, "I" }) : "R", REC->prev_state & ((0x0 | 0x1) << 1) ? "+" : """#;
        assert_eq!(&letters(new), b"SD\0\0\0\0\0I");
        let old = r#""(%s)", REC->prev_state ? __print_flags(REC->prev_state, "|", { 1, "S"} , { 2, "D" }, { 4, "T" }, { 8, "t" }, { 16, "Z" }, { 32, "X" }, { 64, "x" }, { 128, "W" }) : "R", {1, "q"}"#;
        assert_eq!(&letters(old), b"SDTtZXxW");
        let odd = r#""%s", __print_flags(REC->prev_state, "|", { 0x1, "So" }, { 0x400, "Q" }, { 0x3, "both" }, { 0, "zero" })"#;
        assert_eq!(&letters(odd), b"b\0\0\0\0\0\0\0");
        assert_eq!(&letters("\"%d\", REC->prev_state"), b"SDTtXZPI");
        for n in 0..new.len() {
            letters(&new[..n]);
        }
    }
}
