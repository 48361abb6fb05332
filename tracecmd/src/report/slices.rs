//! Slices of time printed on many threads, each whole by one.
//!
//! In most reports a line depends on its record and the next one alone. Then the output can be cut anywhere: the threads take
//! slices of time by turns, and each finds, unpacks, merges and prints the records of its slice itself. No record and
//! no text goes from one core's cache to another's, which on many machines costs more than all the printing. The thread
//! whose slice is next in the output writes as it goes; the others keep their text, up to a limit, until their turn comes.
//!
//! Where a slice begins is guessed from the times in the headers of sub-buffers, and checked: every CPU must stand exactly where
//! the slice before ended. Where it does not, as when times run backwards, or when a record needs those before it (names told by
//! scheduler events, nested functions, a stack behind an event that a filter may have hidden), the rest is handed back, to be shown in one sequence.

use std::{
    io::{self, Write},
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use trace_dat::{ring::merge::Merge, warning::Warnings};

use super::{
    batch::Batch,
    engine::{Batches, End, Pass},
    inputs::Inputs,
    line::Line,
    pipeline::{Batch as _, Printer},
    select::Select,
    slice_plan::{Plan, Slice},
};
use crate::sys::use_huge_pages;

/// Text that waits for its turn: so many bytes in all threads.
const WAITING_TEXT: usize = 12 << 20;
/// Where a thread may keep so much of it, huge pages are not much more memory.
const LARGE_TEXT: usize = 4 << 20;
/// Text is written in pieces of about this size …
const WRITE: usize = 256 << 10;
/// … but the first lines of all are wanted early: this many bytes line by line, before one of them needs the symbols, say.
const FIRST_WRITES: usize = 1 << 10;

/// Prints the lines of slices.
pub trait SlicePrinter: Printer<Batch> {
    /// Appends a line behind what was written before `at`; where the pen stands then, 0 when it was added to the text.
    fn line(&mut self, line: &Line<'_>, at: usize, out: &mut Vec<u8>) -> usize;

    /// Appends what was written before `end`, where the pen stands.
    fn finish(&mut self, end: usize, out: &mut Vec<u8>);
}

/// How it ended.
pub enum Outcome {
    /// Everything was written.
    Done,
    /// The reader has gone.
    Closed,
    /// What is left, to be shown by a pass over these merges that chooses so.
    Rest(Vec<Merge>, Select),
}

/// Where the slice before ended.
#[derive(Default)]
struct Joint {
    /// By stream and CPU, the place of the next record.
    places: Vec<Vec<u64>>,
    /// Pieces at or behind whose start they lie.
    pieces: Vec<Vec<u64>>,
    /// What filters remember there.
    select: Select,
}

struct State<'o, W> {
    /// The slice whose turn it is.
    turn: usize,
    joint: Joint,
    out: &'o mut W,
    end: Option<io::Result<Outcome>>,
}

struct Shared<'o, 'i, W> {
    state: Mutex<State<'o, W>>,
    changed: Condvar,
    /// As in the state, to be looked at without a lock.
    turn: AtomicUsize,
    stopped: AtomicBool,
    plan: Mutex<Plan>,
    inputs: &'i Inputs,
    /// Text that a thread may keep.
    keep: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'o, W> Shared<'o, '_, W> {
    fn stop(&self, end: io::Result<Outcome>) {
        lock(&self.state).end.get_or_insert(end);
        self.stopped.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Waits for the turn of a slice; `None` when there will be none.
    fn wait(&self, slice: usize) -> Option<MutexGuard<'_, State<'o, W>>> {
        let mut state = lock(&self.state);
        while state.turn != slice {
            if self.stopped() {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if self.stopped() { None } else { Some(state) }
    }
}

/// Tells the others when a thread panics, which would wait for its slice for ever.
struct Guard<'s, 'o, 'i, W>(&'s Shared<'o, 'i, W>);

impl<W> Drop for Guard<'_, '_, '_, W> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop(Ok(Outcome::Closed));
        }
    }
}

/// How a slice's start compares with the end of the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    /// Not known yet.
    Open,
    Yes,
    No,
}

/// Prints the batches of a slice, and writes them when it is their turn.
struct SliceSink<'s, 'o, 'i, W, P> {
    shared: &'s Shared<'o, 'i, W>,
    printer: P,
    batch: Batch,
    text: Vec<u8>,
    /// Where the pen stands behind a line.
    at: usize,
    /// Text is written when it is this much.
    much: usize,
    /// Each line is given out by itself.
    early: bool,
    slice: usize,
    /// Places before the first record and behind it, and how long its line is.
    start: (Vec<Vec<u64>>, Vec<Vec<u64>>, usize),
    /// Nothing may be written yet.
    hold: bool,
    fit: Fit,
}

impl<W: Write, P> SliceSink<'_, '_, '_, W, P> {
    /// Writes the text. False when there is no more turn, or the start does not fit.
    fn flush(&mut self) -> bool {
        let Some(mut state) = self.shared.wait(self.slice) else { return false };
        if self.fit == Fit::Open {
            let (before, behind, first) = &self.start;
            if state.joint.places == *before {
                self.fit = Fit::Yes;
            } else if state.joint.places == *behind {
                // The first record is the exit that was shown with the last entry of the slice before.
                self.text.drain(..*first);
                self.fit = Fit::Yes;
            } else {
                self.fit = Fit::No;
            }
        }
        if self.fit == Fit::No {
            return false;
        }
        let written = state.out.write_all(&self.text);
        drop(state);
        self.text.clear();
        match written {
            Ok(()) => return true,
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => self.shared.stop(Ok(Outcome::Closed)),
            Err(e) => self.shared.stop(Err(e)),
        }
        false
    }
}

impl<W: Write, P: SlicePrinter> Batches for SliceSink<'_, '_, '_, W, P> {
    #[inline(always)]
    fn batch(&mut self) -> &mut Batch {
        &mut self.batch
    }

    const LINES: bool = true;

    #[inline(always)]
    fn line(&mut self, line: &Line<'_>) -> bool {
        self.at = self.printer.line(line, self.at, &mut self.text);
        self.at == 0 || self.early
    }

    fn send(&mut self) -> bool {
        self.printer.finish(self.at, &mut self.text);
        self.at = 0;
        if !self.batch.is_empty() {
            self.printer.print(&self.batch, &mut self.text);
            self.batch.clear();
        }
        if self.hold {
            return true;
        }
        let turn = self.shared.turn.load(Ordering::Acquire) == self.slice;
        let much = if self.slice == 0 { self.much } else { WRITE };
        if (turn && self.text.len() >= much) || self.text.len() >= self.shared.keep {
            self.much = (self.much * 4).min(WRITE);
            self.early &= self.much <= FIRST_WRITES;
            return self.flush();
        }
        !self.shared.stopped()
    }
}

/// A thread's own pass.
struct Worker<'s, 'o, 'i, W, P> {
    pass: Pass<'i>,
    sink: SliceSink<'s, 'o, 'i, W, P>,
    /// What is wrong in the slice, by input.
    warnings: Vec<Warnings>,
}

impl<'s, 'o, 'i, W: Write, P: SlicePrinter> Worker<'s, 'o, 'i, W, P> {
    fn new(shared: &'s Shared<'o, 'i, W>, printer: P, merges: Vec<Merge>, pass: Pass<'i>) -> Self {
        let inputs = shared.inputs;
        let warnings: Vec<Warnings> = inputs.inputs.iter().map(|_| Warnings::default()).collect();
        let sink = SliceSink {
            shared,
            printer,
            batch: Batch::default(),
            text: Vec::new(),
            at: 0,
            much: 1,
            early: true,
            slice: 0,
            start: Default::default(),
            hold: false,
            fit: Fit::Yes,
        };
        let mut worker = Worker { pass, sink, warnings };
        if shared.keep >= LARGE_TEXT {
            let text = &mut worker.sink.text;
            text.reserve_exact(shared.keep + 2 * WRITE);
            use_huge_pages(text);
        }
        *worker.pass.merges_mut() = merges;
        worker.pass.merges_mut().iter_mut().for_each(Merge::use_own_memory);
        worker.tell(true);
        worker
    }

    /// Has damage told to lists of this thread, or to those of the files.
    fn tell(&mut self, own: bool) {
        let inputs = self.sink.shared.inputs;
        for (merge, stream) in self.pass.merges_mut().iter_mut().zip(&inputs.streams) {
            let list = if own {
                self.warnings.get(stream.input)
            } else {
                inputs.inputs.get(stream.input).map(|i| i.file.warnings())
            };
            if let Some(list) = list {
                merge.set_warnings(list);
            }
        }
    }

    fn places(&mut self) -> Vec<Vec<u64>> {
        self.pass.merges_mut().iter_mut().map(Merge::places).collect()
    }

    fn run(&mut self) {
        let shared = self.sink.shared;
        let _guard = Guard(shared);
        while !shared.stopped() {
            let Some(slice) = lock(&shared.plan).next_slice() else { return };
            if !self.slice(&slice) {
                return;
            }
        }
    }

    /// Shows a slice. False when the thread has to end.
    fn slice(&mut self, slice: &Slice) -> bool {
        self.sink.slice = slice.index;
        self.sink.early &= slice.index == 0;
        self.sink.text.clear();
        let mut end = None;
        if slice.index > 0 {
            for (merge, pieces) in self.pass.merges_mut().iter_mut().zip(&slice.pieces) {
                merge.seek_behind(slice.start, pieces);
            }
            // What lies before is told by the thread that reads it.
            self.warnings.iter().for_each(Warnings::clear);
            (self.sink.fit, self.sink.hold) = (Fit::Open, true);
            let before = self.places();
            self.pass.select.forget();
            self.pass.one = true;
            end = Some(self.pass.run_part(&mut self.sink, slice.stop)).filter(|end| *end != End::Limit);
            self.pass.one = false;
            self.sink.start = (before, self.places(), self.sink.text.len());
            self.sink.hold = false;
        }
        let end = end.unwrap_or_else(|| self.pass.run_part(&mut self.sink, slice.stop));
        if (end == End::Closed && self.sink.fit != Fit::No) || !self.sink.flush() {
            if self.sink.fit == Fit::No {
                self.hand_back_from_joint();
            }
            return false;
        }
        for (own, input) in self.warnings.iter().zip(&self.sink.shared.inputs.inputs) {
            input.file.warnings().append(own);
        }
        let shared = self.sink.shared;
        // Nobody but the one whose turn it is changes the joint.
        self.pass.select.follow(&lock(&shared.state).joint.select);
        if end == End::NeedsOrder {
            self.hand_back();
            return false;
        }
        let joint = Joint { places: self.places(), pieces: slice.pieces.clone(), select: self.pass.select.clone() };
        let mut state = lock(&shared.state);
        (state.turn, state.joint) = (slice.index + 1, joint);
        shared.turn.store(slice.index + 1, Ordering::Release);
        drop(state);
        shared.changed.notify_all();
        true
    }

    /// Has what is left shown in sequence.
    fn hand_back(&mut self) {
        self.tell(false);
        let merges = std::mem::take(self.pass.merges_mut());
        let select = std::mem::take(&mut self.pass.select);
        self.sink.shared.stop(Ok(Outcome::Rest(merges, select)));
    }

    /// As [`Worker::hand_back`], from the end of the slice before.
    #[cold]
    fn hand_back_from_joint(&mut self) {
        let joint = std::mem::take(&mut lock(&self.sink.shared.state).joint);
        for ((merge, places), pieces) in self.pass.merges_mut().iter_mut().zip(&joint.places).zip(&joint.pieces) {
            merge.go_to_places(pieces, places);
        }
        self.pass.select = joint.select;
        self.hand_back();
    }
}

/// Shows the records of all inputs on so many threads. `None`, with nothing done, when they are too few, or so many CPUs
/// that slices would be too short.
///
/// # Errors
/// When the output cannot be written.
pub fn run<'i, W: Write + Send, P: SlicePrinter>(
    out: &mut W,
    threads: usize,
    inputs: &'i Inputs,
    printer: &(impl Fn() -> P + Sync),
    pass: &Pass<'i>,
) -> io::Result<Option<Outcome>> {
    let damaged = |inputs: &Inputs| inputs.inputs.iter().any(|i| i.file.warnings().total() > 0);
    if threads < 2 || !pass.can_be_cut() || damaged(inputs) {
        return Ok(None);
    }
    let merges = || inputs.merges_of_many(threads);
    let Some(plan) = Plan::new(merges(), threads, P::GROWTH) else { return Ok(None) };
    let mut own: Vec<_> = (0..threads).map(|_| merges()).collect();
    own.iter_mut().for_each(|merges| plan.share_with(merges));
    if damaged(inputs) {
        // What is told while the data are looked at would be told again by each thread.
        return Ok(None);
    }
    let joint = Joint { select: pass.select.clone(), ..Joint::default() };
    let state = State { turn: 0, joint, out, end: None };
    let shared = Shared {
        state: Mutex::new(state),
        changed: Condvar::new(),
        turn: AtomicUsize::new(0),
        stopped: AtomicBool::new(false),
        plan: Mutex::new(plan),
        inputs,
        keep: WAITING_TEXT / (threads - 1),
    };
    let (select, wants) = (&pass.select, pass.wants);
    let work = |merges| {
        let pass = Pass::new(&inputs.streams, Vec::new(), select.clone(), wants);
        Worker::new(&shared, printer(), merges, pass).run();
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            let own = own.pop().unwrap_or_default();
            let work = &work;
            scope.spawn(move || work(own));
        }
        work(own.pop().unwrap_or_default());
    });
    let end = shared.state.into_inner().unwrap_or_else(PoisonError::into_inner).end;
    end.unwrap_or(Ok(Outcome::Done)).map(Some)
}
