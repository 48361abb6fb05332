//! The sequential pass: merges the streams, decides what is shown and what lines depend on, and fills batches.

use std::io::Write;

use rustc_hash::FxHashMap;

use trace_dat::{
    Lost, Record,
    plugin::{
        Behind, Note,
        seq::{LeafRule, Looks, Sequencer, Visit},
    },
    ring::merge::Merge as RingMerge,
};

use super::{
    batch::Batch,
    debug,
    line::{Extra, Line},
    merge::Merge,
    pipeline::{self, Printer, Sink},
    select::Select,
    stream::Stream,
};

/// Takes the batches of a pass.
pub trait Batches {
    /// Whether [`Batches::line`] can be used.
    const LINES: bool = false;
    /// Prints a line at once, behind the batch. True when enough was printed for [`Batches::send`].
    #[inline(always)]
    fn line(&mut self, _line: &Line<'_>) -> bool {
        false
    }
    /// As [`Batches::line`], for lines that are few.
    #[inline(never)]
    fn line_apart(&mut self, line: &Line<'_>) -> bool {
        self.line(line)
    }
    /// The batch to fill.
    fn batch(&mut self) -> &mut Batch;
    /// Hands the batch on; [`Batches::batch`] is an empty one then. False to end the pass.
    fn send(&mut self) -> bool;
}

impl<W: Write, P: Printer<Batch>> Batches for Sink<'_, '_, Batch, W, P> {
    #[inline(always)]
    fn batch(&mut self) -> &mut Batch {
        Sink::batch(self)
    }

    fn send(&mut self) -> bool {
        Sink::send(self)
    }
}

/// Has a function look at all batches, on the same thread.
pub struct Consumer<F> {
    batch: Batch,
    consume: F,
}

impl<F: FnMut(&Batch) -> bool> Consumer<F> {
    /// A consumer; the function returns false when it has seen enough.
    pub fn new(consume: F) -> Self {
        Consumer { batch: Batch::default(), consume }
    }
}

impl<F: FnMut(&Batch) -> bool> Batches for Consumer<F> {
    fn batch(&mut self) -> &mut Batch {
        &mut self.batch
    }

    fn send(&mut self) -> bool {
        let more = (self.consume)(&self.batch);
        pipeline::Batch::clear(&mut self.batch);
        more
    }
}

/// What lines depend on beside the record.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wants {
    /// `--ts-diff`
    pub ts_diff: bool,
    /// `--ts-check`
    pub ts_check: bool,
    /// `--boundary`
    pub boundary: bool,
    /// `--debug`
    pub debug: bool,
}

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At the last record.
    Complete,
    /// With the last record that was asked for.
    Limit,
    /// The batches were not wanted any more.
    Closed,
    /// At the time asked for; the next record is not before it.
    Stopped,
    /// Before a record whose line depends on records far before it.
    NeedsOrder,
}

/// Entries of a leaf function of so many bytes at most are printed without a batch.
const COPIED: usize = 64;

/// One pass over the records.
pub struct Pass<'a> {
    streams: &'a [Stream],
    merges: Vec<RingMerge>,
    outer: Merge,
    /// The stream whose record was taken last, whose place in `outer` is out of date.
    taken: Option<u32>,
    /// Decides what is shown.
    pub select: Select,
    /// What lines depend on.
    pub wants: Wants,
    /// Corrected time after which nothing is shown.
    pub until: Option<u64>,
    /// Shown records that are left out at the start.
    pub skip: u64,
    /// Shown records after which the pass ends.
    pub limit: Option<u64>,
    /// A part ends with its first record, shown or not.
    pub one: bool,
    /// `-w`: looks at every shown record; gives the wakeup latency to be shown with it.
    pub wakeup: Option<Box<dyn FnMut(u32, &trace_dat::Record<'_>, u64) -> Option<u64> + 'a>>,
    places: Option<debug::Places>,
    sequencer: Sequencer,
    events: Events,
    /// For `--debug`: by stream and CPU, what is added to places in compressed data.
    pub bases: FxHashMap<(u32, u32), u64>,
}

impl<'a> Pass<'a> {
    /// A pass over these merges, one for each stream, from where they stand.
    pub fn new(streams: &'a [Stream], merges: Vec<RingMerge>, select: Select, wants: Wants) -> Self {
        Pass {
            streams,
            merges,
            outer: Merge::default(),
            taken: None,
            select,
            wants,
            until: None,
            skip: 0,
            limit: None,
            one: false,
            wakeup: None,
            sequencer: Sequencer::new(),
            events: Events::default(),
            places: wants.boundary.then(debug::Places::default),
            bases: FxHashMap::default(),
        }
    }

    /// The merges, to move them before the pass.
    pub fn merges_mut(&mut self) -> &mut Vec<RingMerge> {
        &mut self.merges
    }

    fn start(&mut self) {
        self.taken = None;
        if self.merges.len() > 1 {
            let heads: Vec<_> = self.merges.iter_mut().map(|m| m.peek().map(|r| r.ts)).collect();
            self.outer = Merge::new(heads);
        }
    }

    /// The stream that has the next record.
    #[inline(always)]
    fn next_stream(&mut self) -> Option<u32> {
        if self.merges.len() <= 1 {
            return Some(0);
        }
        if let Some(taken) = self.taken.take() {
            let head = self.merges.get_mut(taken as usize).and_then(|m| m.peek()).map(|r| r.ts);
            self.outer.advance(head);
        }
        let (_, stream) = self.outer.current()?;
        self.taken = Some(stream);
        Some(stream)
    }

    /// Whether every line depends on its record and the next one alone, as far as the options tell: then [`Pass::run_part`] may
    /// begin and end anywhere. Where a filter needs the records before, it ends.
    pub fn can_be_cut(&self) -> bool {
        let Wants { ts_diff, ts_check, boundary, debug } = self.wants;
        let whole = self.until.is_none() && self.limit.is_none() && self.skip == 0 && self.wakeup.is_none();
        whole && !(ts_diff || ts_check || boundary || debug)
    }

    /// Runs through all records. False when `to` had enough before the end.
    pub fn run(&mut self, to: &mut impl Batches) -> bool {
        // Nothing is known of what an earlier run has seen.
        self.sequencer = Sequencer::new();
        self.go::<false, _>(to, u64::MAX) != End::Closed
    }

    /// Runs through the records before the corrected time `stop`, of a pass that [can be cut](Pass::can_be_cut).
    pub fn run_part(&mut self, to: &mut impl Batches, stop: u64) -> End {
        self.go::<true, _>(to, stop)
    }

    /// The number of the stream that has all records, when none of them can be hidden.
    fn only_merge(&self) -> Option<u32> {
        let mut all = (0..).zip(&self.merges).filter(|(_, m)| !m.inputs().is_empty());
        let (only, _) = all.next()?;
        (all.next().is_none() && !self.select.is_active() && !self.one).then_some(only)
    }

    /// Prints records one by one where they lie, as long as they are usual ones. How the pass ended, if it did; `None` before a
    /// record that is not usual.
    #[inline(always)]
    fn print_in_place<T: Batches>(&mut self, to: &mut T, tag: u32, stop: u64, seq: &mut u64) -> Option<End> {
        let (merge, stream) = (self.merges.get_mut(tag as usize)?, self.streams.get(tag as usize)?);
        #[inline(always)]
        fn make<'r>(stream: u32, rec: Record<'r>, ts: u64, seq: u64, leaf_exit: Option<Record<'r>>) -> Line<'r> {
            let note = Note { leaf_exit, ..Note::default() };
            Line { stream, rec, reach: rec.data, ts, seq, note, diff: None, extra: None }
        }
        let mut begun = false;
        while let Some(run) = merge.run(stop) {
            let (mut this, mut last) = (run.first(), None);
            let why = loop {
                let data = this.record.data;
                let kind = self.events.kind(stream, data, &mut self.sequencer);
                let mut rule = None;
                let usual = match kind {
                    EventKind::Plain => true,
                    EventKind::WithoutNul => data.last() == Some(&0),
                    EventKind::Paired => {
                        rule = self.events.leaf_rule(stream.input, data);
                        rule.is_some()
                    }
                    _ => false,
                };
                // The first task with a name is told to the sequencer.
                if !usual || (self.sequencer.is_early() && stream.common.read(data).0 != 0) {
                    break RunEnd::Unusual;
                }
                if !begun {
                    begun = true;
                    // What is in the batch comes first.
                    if !to.send() {
                        return Some(End::Closed);
                    }
                }
                let mut next = run.behind(&this);
                let (rec, ts) = (this.record, this.ts);
                let mut leaf_exit = None;
                match (rule, next) {
                    (Some(rule), None) => break RunEnd::Entry(rule),
                    (Some(rule), Some(behind)) if rule.is_exit(&rec, &behind.record) => {
                        leaf_exit = Some(behind.record);
                        this = behind;
                        next = run.behind(&this);
                    }
                    _ => {}
                }
                let enough = to.line(&make(tag, rec, ts, *seq, leaf_exit));
                *seq += 1;
                last = Some(this);
                if enough && !to.send() {
                    return Some(End::Closed);
                }
                match next {
                    Some(next) => this = next,
                    None => break RunEnd::Complete,
                }
            };
            if let Some(last) = last {
                run.end(&last);
            }
            match why {
                RunEnd::Complete => {}
                RunEnd::Unusual => break,
                RunEnd::Entry(rule) => {
                    // The record behind the entry comes from elsewhere, and the entry's bytes do not stay until it is there.
                    let Some(entry) = merge.next() else { break };
                    let (ts, rec, mut copy) = (entry.ts, entry.record(), [0; COPIED]);
                    let Some(bytes) = copy.get_mut(..rec.data.len()) else {
                        merge.untake();
                        break;
                    };
                    bytes.copy_from_slice(rec.data);
                    let Record { ts: stored, cpu, lost, offset, .. } = rec;
                    let rec = Record { ts: stored, cpu, lost, data: bytes, offset };
                    let is_leaf = merge.peek().is_some_and(|next| rule.is_exit(&rec, &next.record()));
                    let leaf_exit = if is_leaf { merge.next().map(|exit| exit.record()) } else { None };
                    let enough = to.line_apart(&make(tag, rec, ts, *seq, leaf_exit));
                    *seq += 1;
                    if enough && !to.send() {
                        return Some(End::Closed);
                    }
                }
            }
        }
        if begun {
            to.batch().seq = *seq;
        }
        None
    }

    #[inline(always)]
    fn go<const PART: bool, T: Batches>(&mut self, to: &mut T, stop: u64) -> End {
        self.start();
        let streams = self.streams;
        let mut seq = 0u64;
        let mut skip = self.skip;
        let mut shown_ts = None;
        // The first batches are small, so that the first line is out before the second one needs the symbols, say.
        let mut enough = 1;
        let mut odd = 0u64;
        let mut in_place = if PART && T::LINES { self.only_merge() } else { None };
        let plain = !(self.wants.ts_diff || self.wants.ts_check || self.wants.boundary) && self.wakeup.is_none();

        loop {
            if let Some(tag) = in_place
                && let Some(end) = self.print_in_place(to, tag, stop, &mut seq)
            {
                return end;
            }
            if in_place.is_some() {
                // Where most are not usual, to try costs more than it gives.
                odd += 1;
                in_place = in_place.filter(|_| odd < 64 || odd * 8 < seq);
            }
            let Some(tag) = self.next_stream() else { break };
            let (Some(merge), Some(stream)) = (self.merges.get_mut(tag as usize), streams.get(tag as usize)) else {
                break;
            };
            let layout = if self.wants.debug { merge.inputs().first().map(|i| i.stream.layout()) } else { None };
            let Some(record) = merge.next() else { break };
            if self.until.is_some_and(|until| record.ts > until) {
                break;
            }
            if PART && record.ts >= stop {
                merge.untake();
                return if to.send() { End::Stopped } else { End::Closed };
            }
            let (ts, input) = (record.ts, record.input);
            let trace_dat::Record { cpu, lost, .. } = record.record();
            let first = match &mut self.places {
                Some(places) => places.is_first(tag, input, record.stream_record.subbuf_offset()),
                None => false,
            };
            if self.select.is_active() {
                match self.select.shows(tag, stream, &record, seq) {
                    Some(true) => {}
                    None if PART => {
                        merge.untake();
                        return if to.send() { End::NeedsOrder } else { End::Closed };
                    }
                    _ if PART && self.one => return if to.send() { End::Limit } else { End::Closed },
                    _ => continue,
                }
            }
            let texts = match layout {
                Some(layout) if self.wants.boundary => {
                    let base = self.bases.get(&(tag, cpu)).copied().unwrap_or(0);
                    Some(debug::texts(&layout, &record, base))
                }
                _ => None,
            };
            let batch = to.batch();
            let data = record.record().data;
            let kind = self.events.kind(stream, data, &mut self.sequencer);
            if kind == EventKind::Plain {
                batch.push(&record, tag, false);
            } else if kind.is_plain() {
                // A text without NUL that ends with its record runs on behind it.
                batch.push(&record, tag, kind == EventKind::Lengths || data.last() != Some(&0));
            } else {
                if PART && kind != EventKind::Paired {
                    merge.untake();
                    return if to.send() { End::NeedsOrder } else { End::Closed };
                }
                if kind == EventKind::Raw {
                    visit_raw(stream, data, seq);
                }
                batch.push(&record, tag, kind == EventKind::Raw);
            }

            // From here on the record is the batch's: the merge may be asked for the next one.
            let visit = match batch.last() {
                Some(last) if !kind.is_plain() || self.sequencer.is_early() => {
                    self.sequencer.visit(&stream.dec, &last, seq, || merge.peek().map(|r| r.record()))
                }
                _ => Visit::Plain,
            };
            match visit {
                Visit::Plain => {}
                Visit::Indent(n) => batch.set_indent(n),
                Visit::Leaf => {
                    if let Some(exit) = merge.next() {
                        if let Some(places) = &mut self.places {
                            // An exit that begins a sub-buffer takes the mark with it.
                            places.is_first(tag, exit.input, exit.stream_record.subbuf_offset());
                        }
                        batch.set_leaf(&exit, tag);
                    }
                }
            }
            let wakeup = match (&mut self.wakeup, batch.last()) {
                (Some(look), Some(last)) => look(tag, &last, ts),
                _ => None,
            };
            if skip > 0 {
                skip -= 1;
                batch.pop();
                shown_ts = Some(ts);
                seq += 1;
                batch.seq = seq;
                continue;
            }
            if !plain || lost != Lost::None {
                self.rare(batch, stream, Shown { cpu, ts, lost, first, texts, wakeup, before: shown_ts });
            }
            seq += 1;
            shown_ts = Some(ts);
            let full = batch.is_full(enough);
            let end = self.limit.is_some_and(|limit| seq - self.skip.min(seq) >= limit) || (PART && self.one);
            if full || end {
                enough = (enough * 4).min(4096);
                if !to.send() {
                    return End::Closed;
                }
                to.batch().seq = seq;
            }
            if end {
                return End::Limit;
            }
        }
        if to.send() { End::Complete } else { End::Closed }
    }

    /// What most lines do not have.
    #[cold]
    fn rare(&mut self, batch: &mut Batch, stream: &Stream, shown: Shown) {
        if self.wants.ts_diff {
            // A record at time 0 (the first one with --align-ts) counts as none, as in the reference.
            let before = shown.before.filter(|ts| *ts != 0);
            batch.set_diff(before.map(|before| difference(before, shown.ts, stream.diff_micros)));
        }
        if let Some(before) = shown.before.filter(|before| self.wants.ts_check && shown.ts < *before) {
            let (cpu, ts) = (shown.cpu, shown.ts);
            let delta = ts.wrapping_sub(before) as i64;
            let text = format!("  WARNING: Record on cpu {cpu} went backwards: {before} to {ts} delta: {delta}\n");
            let _ = std::io::stderr().write_all(text.as_bytes());
        }
        let mut extra = Extra { lost: shown.lost, wakeup: shown.wakeup, ..Extra::default() };
        if self.wants.boundary {
            let (mark, suffix) = shown.texts.unwrap_or_default();
            extra.boundary = shown.first.then_some(mark);
            extra.suffix = suffix;
        }
        if extra.lost != Lost::None || extra.boundary.is_some() || extra.wakeup.is_some() || !extra.suffix.is_empty() {
            batch.set_extra(extra);
        }
    }
}

/// Why a run of records did not go on.
enum RunEnd {
    /// There are no more.
    Complete,
    /// The next record is not a usual one.
    Unusual,
    /// It is an entry that may have its exit behind it in another run.
    Entry(LeafRule),
}

/// What the sequential pass has to do for the records of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum EventKind {
    /// Not known yet, or not in the file.
    #[default]
    Unknown,
    /// Nothing.
    Plain,
    /// Nothing; its text may show what lies behind a record whose last byte is not 0.
    WithoutNul,
    /// Nothing; its text may show what lies behind it.
    Lengths,
    /// The next record may be shown with it.
    Paired,
    /// It depends on records before it, or tells something about later ones.
    Ordered,
    /// It may be shown as raw fields, which depend on those before.
    Raw,
}

impl EventKind {
    /// No other record matters for its records, nor they for others.
    #[inline(always)]
    fn is_plain(self) -> bool {
        matches!(self, EventKind::Plain | EventKind::WithoutNul | EventKind::Lengths)
    }
}

/// The kinds of the events seen so far.
#[derive(Debug, Default)]
struct Events {
    /// By stream's input and id.
    known: Vec<Vec<EventKind>>,
    /// Of paired ones: input, id as stored, and what their exits are.
    rules: Vec<(usize, [u8; 2], LeafRule)>,
}

impl Events {
    #[inline(always)]
    fn kind(&mut self, stream: &Stream, data: &[u8], sequencer: &mut Sequencer) -> EventKind {
        let Some(id) = data.first_chunk::<2>() else { return EventKind::Plain };
        let id = usize::from(stream.dec.endian().u16(*id));
        match self.known.get(stream.input).and_then(|k| k.get(id)) {
            Some(kind) if *kind != EventKind::Unknown => *kind,
            _ => self.learn(stream, data, id, sequencer),
        }
    }

    /// What the exits of this one's event are.
    #[inline(always)]
    fn leaf_rule(&self, input: usize, data: &[u8]) -> Option<LeafRule> {
        let rule = self.rules.iter().find(|r| r.0 == input && data.first_chunk() == Some(&r.1));
        rule.map(|r| r.2)
    }

    #[cold]
    fn learn(&mut self, stream: &Stream, data: &[u8], id: usize, sequencer: &mut Sequencer) -> EventKind {
        let event = stream.dec.event_of(data);
        let kind = match (sequencer.looks_at(&stream.dec, data), event) {
            (_, Some(event)) if stream.dec.may_print_raw(event) => EventKind::Raw,
            (Looks::Next, _) => EventKind::Paired,
            (Looks::All, _) => EventKind::Ordered,
            (Looks::Not, None) => EventKind::Plain,
            (Looks::Not, Some(event)) => match stream.dec.behind(event) {
                Behind::Never => EventKind::Plain,
                Behind::WithoutNul => EventKind::WithoutNul,
                Behind::Lengths => EventKind::Lengths,
            },
        };
        if let (EventKind::Paired, Some(rule), Some(id)) =
            (kind, sequencer.leaf_rule(&stream.dec, data), data.first_chunk())
        {
            self.rules.push((stream.input, *id, rule));
        }
        if self.known.len() <= stream.input {
            self.known.resize(stream.input + 1, Vec::new());
        }
        if let Some(known) = self.known.get_mut(stream.input) {
            if known.len() <= id {
                known.resize(id + 1, EventKind::Unknown);
            }
            if let Some(known) = known.get_mut(id) {
                *known = kind;
            }
        }
        kind
    }
}

/// Has the decoder look at a record that may be shown as raw fields.
#[cold]
fn visit_raw(stream: &Stream, data: &[u8], seq: u64) {
    if let Some(event) = stream.dec.event_of(data) {
        stream.dec.visit(event, data, seq);
    }
}

/// A record that is going to be shown.
struct Shown {
    cpu: u32,
    ts: u64,
    lost: Lost,
    first: bool,
    /// What `--debug` adds.
    texts: Option<(String, String)>,
    wakeup: Option<u64>,
    before: Option<u64>,
}

/// The difference that `--ts-diff` shows: in microseconds it is that of the rounded times.
fn difference(before: u64, ts: u64, micros: bool) -> i64 {
    if micros {
        let round = |t: u64| t.wrapping_add(500) / 1000;
        round(ts).wrapping_sub(round(before)) as i64
    } else {
        ts.wrapping_sub(before) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn differences_are_of_rounded_times() {
        assert_eq!(difference(121_844_139_434, 121_845_989_861, true), 1851);
        assert_eq!(difference(121_844_139_434, 121_845_989_861, false), 1_850_427);
        assert_eq!(difference(1_005_000, 1_003_000, true), -2);
    }
}
