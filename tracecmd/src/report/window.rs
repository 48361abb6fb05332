//! `--from`, `--to`, `--head`, `--tail`: the place is found by the times of sub-buffers, not by reading everything.

use anyhow::{Result, ensure};
use trace_dat::ring::merge::Merge;

use super::{
    engine::{Consumer, Pass},
    inputs::Inputs,
    options::{Bound, ReportOptions},
};

/// Moves the pass to the first record to be shown and sets its end.
///
/// # Errors
/// For combinations that contradict each other.
pub fn apply(options: &ReportOptions, inputs: &Inputs, pass: &mut Pass<'_>) -> Result<()> {
    ensure!(options.head.is_none() || options.tail.is_none(), "--head and --tail exclude each other");
    pass.limit = options.head;
    if options.head == Some(0) {
        pass.until = Some(0);
        pass.limit = None;
        for merge in pass.merges_mut() {
            merge.seek(u64::MAX);
        }
        return Ok(());
    }
    let relative = |b: Option<Bound>| matches!(b, Some(Bound::AfterFirst(_) | Bound::BeforeLast(_)));
    let range = if relative(options.from) || relative(options.to) { inputs.time_range() } else { None };
    let (first, last) = range.unwrap_or((0, 0));
    let at = |bound| match bound {
        Bound::At(ts) => ts,
        Bound::AfterFirst(n) => first.saturating_add(n),
        Bound::BeforeLast(n) => last.saturating_sub(n),
    };
    let from = options.from.map(at);
    pass.until = options.to.map(at);
    if let Some(n) = options.tail {
        tail(pass, n, from);
    } else if let Some(from) = from {
        seek(pass, from);
    }
    Ok(())
}

fn seek(pass: &mut Pass<'_>, from: u64) {
    for merge in pass.merges_mut() {
        merge.seek(from);
    }
}

/// Moves the pass so that it shows its last `n` records.
///
/// How far back they begin is not known when some records are hidden: ever larger ends of the file are tried.
fn tail(pass: &mut Pass<'_>, n: u64, from: Option<u64>) {
    let end = pass.until;
    // One more line than is shown: the first record may be an exit that is part of the line before it.
    let mut reach = n.saturating_add(1);
    loop {
        let all = !go_back(pass, reach, from, end);
        let select = pass.select.clone();
        let mut shown = 0u64;
        pass.run(&mut Consumer::new(|batch| {
            shown += batch.len() as u64;
            true
        }));
        pass.select = select;
        if shown > n || all {
            go_back(pass, reach, from, end);
            pass.skip = shown.saturating_sub(n);
            if n == 0 {
                pass.until = Some(0);
            }
            return;
        }
        reach = reach.saturating_mul(8).max(4096);
    }
}

/// Moves every stream to its last `n` records up to `end`, but not before `from`. False when nothing lies before.
fn go_back(pass: &mut Pass<'_>, n: u64, from: Option<u64>, end: Option<u64>) -> bool {
    let mut more = false;
    for merge in pass.merges_mut() {
        if let Some(end) = end {
            more |= go_back_from(merge, end, n, from);
            continue;
        }
        let found = merge.seek_tail(n);
        let before = from.is_some_and(|from| merge.peek().is_none_or(|r| r.ts < from));
        if let (true, Some(from)) = (before || !found, from) {
            merge.seek(from);
        } else {
            more |= found;
        }
    }
    more
}

/// Moves a stream to the last `n` records up to the time `end`, but not before `from`. False when nothing lies before.
fn go_back_from(merge: &mut Merge, end: u64, n: u64, from: Option<u64>) -> bool {
    merge.seek(end.saturating_add(1));
    // One more: the next record is the one behind.
    for _ in 0..=n {
        let ts = merge.prev().map(|r| r.ts);
        match (ts, from) {
            (None, _) => {
                merge.rewind();
                return false;
            }
            (Some(ts), Some(from)) if ts < from => {
                merge.seek(from);
                return false;
            }
            _ => {}
        }
    }
    true
}
