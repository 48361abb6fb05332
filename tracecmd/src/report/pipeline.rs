//! Batches printed on many threads and written in order.
//!
//! One thread (the caller's) fills batches; every thread prints them, the caller's too while it would only wait;
//! whoever finishes the batch that is next in the output writes it, with all finished ones behind it. The number of
//! batches is fixed, so memory does not depend on the length of the input, and their memory is used again.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crossbeam_channel::{Receiver, Sender, bounded};

/// What is printed at a time.
pub trait Batch: Default + Send {
    /// Lets go of everything but memory that can be used again.
    fn clear(&mut self);
}

/// Turns batches into text; each thread has one of its own, which can keep caches.
pub trait Printer<B> {
    /// About so many bytes of text are made of each byte of records.
    const GROWTH: u64 = 3;

    /// Appends the text of the batch.
    fn print(&mut self, batch: &B, out: &mut Vec<u8>);
}

/// How the output ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Everything was written.
    Complete,
    /// The reader has gone: the rest was dropped.
    Closed,
}

struct Job<B> {
    index: u64,
    batch: B,
    text: Vec<u8>,
}

struct Order<B> {
    next: u64,
    waiting: BTreeMap<u64, Job<B>>,
    writing: bool,
    error: Option<io::Error>,
}

struct Shared<'a, B, W> {
    out: Mutex<&'a mut W>,
    order: Mutex<Order<B>>,
    free: Sender<Job<B>>,
    stopped: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<B: Batch, W: Write> Shared<'_, B, W> {
    fn stop(&self, error: Option<io::Error>) {
        self.stopped.store(true, Ordering::Release);
        if let Some(error) = error {
            lock(&self.order).error.get_or_insert(error);
        }
    }

    fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Writes the job if it is its turn, and those that waited for it; otherwise puts it by.
    fn finish(&self, mut job: Job<B>) {
        job.batch.clear();
        {
            let mut order = lock(&self.order);
            if order.writing || order.next != job.index {
                order.waiting.insert(job.index, job);
                return;
            }
            order.writing = true;
        }
        loop {
            if !self.stopped()
                && let Err(error) = lock(&self.out).write_all(&job.text)
            {
                self.stop(Some(error));
            }
            job.text.clear();
            // The channel has room for every job there is; without a receiver nobody needs them any more.
            let _ = self.free.send(job);
            let mut order = lock(&self.order);
            order.next += 1;
            let next = order.next;
            match order.waiting.remove(&next) {
                Some(next) => job = next,
                None => {
                    order.writing = false;
                    return;
                }
            }
        }
    }

    fn print(&self, printer: &mut impl Printer<B>, mut job: Job<B>) {
        if !self.stopped() {
            let done = catch_unwind(AssertUnwindSafe(|| printer.print(&job.batch, &mut job.text)));
            if let Err(panic) = done {
                // Let the other threads end before the panic goes on.
                self.stop(None);
                self.finish(job);
                resume_unwind(panic);
            }
        }
        self.finish(job);
    }
}

/// Takes batches from the thread that makes them.
pub struct Sink<'s, 'a, B, W, P> {
    shared: &'s Shared<'a, B, W>,
    free: Receiver<Job<B>>,
    queue: Option<Sender<Job<B>>>,
    steal: Receiver<Job<B>>,
    printer: P,
    current: Job<B>,
    next: u64,
}

impl<B: Batch, W: Write, P: Printer<B>> Sink<'_, '_, B, W, P> {
    /// The batch to fill.
    #[inline(always)]
    pub fn batch(&mut self) -> &mut B {
        &mut self.current.batch
    }

    /// Hands the batch on; [`Sink::batch`] is an empty one then. False when nobody reads the output any more.
    pub fn send(&mut self) -> bool {
        let Some(queue) = &self.queue else {
            self.current.index = self.next;
            self.next += 1;
            let job = self.take_current();
            self.shared.print(&mut self.printer, job);
            return self.next_free();
        };
        self.current.index = self.next;
        self.next += 1;
        let empty = Job { index: 0, batch: B::default(), text: Vec::new() };
        let job = std::mem::replace(&mut self.current, empty);
        // There is a place for every job.
        if let Err(back) = queue.send(job) {
            self.shared.print(&mut self.printer, back.into_inner());
        }
        self.next_free()
    }

    fn take_current(&mut self) -> Job<B> {
        std::mem::replace(&mut self.current, Job { index: 0, batch: B::default(), text: Vec::new() })
    }

    /// Gets an empty batch; prints one of the queue when there is none.
    fn next_free(&mut self) -> bool {
        loop {
            if self.shared.stopped() {
                return false;
            }
            if let Ok(job) = self.free.try_recv() {
                self.current = job;
                return true;
            }
            if let Ok(job) = self.steal.try_recv() {
                self.shared.print(&mut self.printer, job);
                continue;
            }
            // All are being printed or written; one of them comes back.
            match self.free.recv() {
                Ok(job) => {
                    self.current = job;
                    return true;
                }
                Err(_) => return false,
            }
        }
    }

    /// Whether nobody reads the output any more.
    pub fn stopped(&self) -> bool {
        self.shared.stopped()
    }
}

/// Runs `produce` on this thread and prints the batches it sends on `threads` threads, this one among them.
///
/// # Errors
/// When the output cannot be written, except for a reader that has gone, which is [`Output::Closed`].
pub fn run<B, P, W, T>(
    out: &mut W,
    threads: usize,
    printer: impl Fn() -> P + Sync,
    produce: impl FnOnce(&mut Sink<'_, '_, B, W, P>) -> T,
) -> (io::Result<Output>, T)
where
    B: Batch,
    P: Printer<B>,
    W: Write + Send,
{
    let threads = threads.max(1);
    let jobs = if threads == 1 { 1 } else { threads * 2 + 2 };
    let (free_tx, free) = bounded(jobs + 1);
    let shared = Shared {
        out: Mutex::new(out),
        order: Mutex::new(Order { next: 0, waiting: BTreeMap::new(), writing: false, error: None }),
        free: free_tx,
        stopped: AtomicBool::new(false),
    };
    for _ in 1..jobs {
        let _ = shared.free.send(Job { index: 0, batch: B::default(), text: Vec::new() });
    }
    let current = Job { index: 0, batch: B::default(), text: Vec::new() };
    let (queue, steal) = bounded::<Job<B>>(jobs + 1);
    let made = std::thread::scope(|scope| {
        for _ in 1..threads {
            let (queue, shared, printer) = (steal.clone(), &shared, &printer);
            scope.spawn(move || {
                let mut printer = printer();
                for job in queue {
                    shared.print(&mut printer, job);
                }
            });
        }
        let mut sink = Sink {
            shared: &shared,
            free,
            queue: (threads > 1).then_some(queue),
            steal,
            printer: printer(),
            current,
            next: 0,
        };
        let made = produce(&mut sink);
        sink.send();
        // No more jobs: help with those that are left, then the threads end.
        sink.queue = None;
        while let Ok(job) = sink.steal.try_recv() {
            shared.print(&mut sink.printer, job);
        }
        made
    });
    let error = lock(&shared.order).error.take();
    let result = match error {
        None => Ok(Output::Complete),
        Some(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(Output::Closed),
        Some(e) => Err(e),
    };
    (result, made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Numbers(Vec<u32>);

    impl Batch for Numbers {
        fn clear(&mut self) {
            self.0.clear();
        }
    }

    struct Lines;

    impl Printer<Numbers> for Lines {
        fn print(&mut self, batch: &Numbers, out: &mut Vec<u8>) {
            for n in &batch.0 {
                // Uneven work, so that batches finish out of order.
                if n % 97 == 0 {
                    std::thread::yield_now();
                }
                out.extend_from_slice(format!("{n}\n").as_bytes());
            }
        }
    }

    fn numbers(threads: usize, n: u32, per_batch: usize) -> String {
        let mut out = Vec::new();
        let (result, sent) = run(
            &mut out,
            threads,
            || Lines,
            |sink| {
                for i in 0..n {
                    sink.batch().0.push(i);
                    if sink.batch().0.len() == per_batch && !sink.send() {
                        return i;
                    }
                }
                n
            },
        );
        assert_eq!(result.unwrap(), Output::Complete);
        assert_eq!(sent, n);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn order_is_kept_whatever_the_threads() {
        let want: String = (0..5000).map(|i| format!("{i}\n")).collect();
        for threads in [1, 2, 3, 8] {
            for per_batch in [1, 7, 4096, 5000] {
                assert!(numbers(threads, 5000, per_batch) == want, "{threads} threads, {per_batch} per batch");
            }
        }
        assert_eq!(numbers(2, 0, 10), "");
    }

    struct Fails(usize, io::ErrorKind);

    impl Write for Fails {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(self.1.into());
            }
            self.0 -= 1;
            Ok(buf.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn until_closed(threads: usize, kind: io::ErrorKind) -> io::Result<Output> {
        let mut out = Fails(3, kind);
        let (result, sent) = run(
            &mut out,
            threads,
            || Lines,
            |sink| {
                let mut sent = 0u64;
                loop {
                    sink.batch().0.push(1);
                    if !sink.send() {
                        return sent;
                    }
                    sent += 1;
                    assert!(sent < 1_000_000, "goes on although the output is closed");
                }
            },
        );
        assert!(sent >= 3);
        result
    }

    #[test]
    fn a_closed_pipe_ends_quietly() {
        for threads in [1, 2, 4] {
            assert_eq!(until_closed(threads, io::ErrorKind::BrokenPipe).unwrap(), Output::Closed);
        }
    }

    #[test]
    fn a_full_disk_is_an_error() {
        for threads in [1, 4] {
            assert_eq!(
                until_closed(threads, io::ErrorKind::StorageFull).unwrap_err().kind(),
                io::ErrorKind::StorageFull
            );
        }
    }

    struct Panics;

    impl Printer<Numbers> for Panics {
        fn print(&mut self, batch: &Numbers, _: &mut Vec<u8>) {
            assert!(batch.0.first() != Some(&50), "on purpose");
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_instead_of_a_hang() {
        for threads in [1, 2, 4] {
            let ended = catch_unwind(|| {
                run(
                    &mut Vec::new(),
                    threads,
                    || Panics,
                    |sink| {
                        for i in 0..100_000 {
                            sink.batch().0.push(i);
                            if !sink.send() {
                                break;
                            }
                        }
                    },
                )
                .1
            });
            assert!(ended.is_err());
        }
    }
}
