//! Where a CPU's sub-buffers come from: pieces of the file, or chunks that are unpacked, ahead of need by other threads.

use std::{
    cell::RefCell,
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use crossbeam_channel::{Sender, unbounded};

use crate::{
    Endian, Error, Result,
    compress::{Codec, Decompressor},
    ring::block::{Block, Pool},
    source::Source,
    warning::Warnings,
};

/// Bytes that all streams of a file may have unpacked ahead of need.
const AHEAD_BYTES: usize = 6 << 20;
/// Bytes that the current blocks of all streams may have together.
const CURRENT_BYTES: usize = 20 << 20;
/// Most bytes of an unpacked piece of the file.
const WINDOW_MAX: usize = 256 << 10;
/// Most bytes of a chunk, unless 16 sub-buffers are more.
const CHUNK_MAX: usize = 16 << 20;
/// Chunks that a stream has unpacked ahead of need.
const AHEAD: usize = 4;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all streams of a file share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub source: Source,
    pub endian: Endian,
    pub codec: Codec,
    pub warnings: Warnings,
    pub pool: Arc<Pool>,
    threads: usize,
    ahead: AtomicUsize,
    jobs: OnceLock<Option<Sender<Arc<Job>>>>,
}

/// Contexts and memory for unpacking.
#[derive(Debug, Default)]
struct Unpacker {
    codec: Decompressor,
    packed: Vec<u8>,
    scratch: Vec<u8>,
}

impl Shared {
    pub fn new(source: Source, endian: Endian, codec: Codec, warnings: Warnings, threads: usize) -> Arc<Shared> {
        Arc::new(Shared {
            source,
            endian,
            codec,
            warnings,
            pool: Arc::default(),
            threads,
            ahead: AtomicUsize::new(0),
            jobs: OnceLock::new(),
        })
    }

    /// The queue of the worker threads, which are started now if they were not yet. They end when the file is dropped.
    fn jobs(&self) -> Option<&Sender<Arc<Job>>> {
        self.jobs
            .get_or_init(|| {
                let (send, receive) = unbounded::<Arc<Job>>();
                let mut started = 0;
                for i in 0..self.threads {
                    let receive = receive.clone();
                    let thread = std::thread::Builder::new().name(format!("unpack{i}")).stack_size(256 << 10);
                    let spawned = thread.spawn(move || {
                        let mut unpacker = Unpacker::default();
                        for job in receive {
                            job.run(&mut unpacker);
                        }
                    });
                    started += usize::from(spawned.is_ok());
                }
                (started > 0).then_some(send)
            })
            .as_ref()
    }
}

thread_local! {
    /// Each thread has its own: the tables of one that another core used last would have to come over from its cache.
    static UNPACKER: RefCell<Unpacker> = RefCell::default();
}

fn with_unpacker<T>(f: impl FnOnce(&mut Unpacker) -> T) -> T {
    UNPACKER.with(|unpacker| match unpacker.try_borrow_mut() {
        Ok(mut unpacker) => f(&mut unpacker),
        Err(_) => f(&mut Unpacker::default()),
    })
}

/// A chunk of compressed data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where its packed bytes lie in the file (behind its two size words).
    pub offset: u64,
    /// Packed bytes.
    pub packed: u32,
    /// Unpacked bytes, a multiple of the sub-buffer size.
    pub unpacked: u32,
    /// Where its unpacked bytes lie in the unpacked data of the CPU.
    pub unpacked_offset: u64,
}

/// The chunks of one CPU, found by hopping from header to header as far as needed.
#[derive(Debug)]
pub(crate) struct ChunkTable {
    offset: u64,
    end: u64,
    subbuf_size: usize,
    state: Mutex<TableState>,
}

#[derive(Debug, Default)]
struct TableState {
    chunks: Vec<Chunk>,
    count: Option<u32>,
    next: u64,
    unpacked: u64,
    done: bool,
}

impl ChunkTable {
    /// The chunks of a CPU whose data, with the count of chunks, are said to have `size` bytes. The count is what decides.
    pub fn new(offset: u64, size: u64, subbuf_size: usize) -> ChunkTable {
        ChunkTable { offset, end: offset.saturating_add(size), subbuf_size, state: Mutex::default() }
    }

    /// The chunk with this number, `None` behind the last. An error is given once; the chunks behind it are lost.
    pub fn get(&self, shared: &Shared, index: u64) -> Result<Option<Chunk>> {
        let mut state = lock(&self.state);
        while (state.chunks.len() as u64) <= index {
            if state.done {
                return Ok(None);
            }
            if let Err(e) = self.hop(shared, &mut state) {
                state.done = true;
                return Err(e);
            }
        }
        Ok(usize::try_from(index).ok().and_then(|i| state.chunks.get(i).copied()))
    }

    /// Bytes in the file before this chunk, as far as chunks are known.
    pub fn consumed(&self, index: u64) -> u64 {
        let state = lock(&self.state);
        let known = usize::try_from(index).ok().and_then(|i| state.chunks.get(i));
        known.map_or(state.next, |c| c.offset).saturating_sub(self.offset)
    }

    /// Number of the chunk with this byte of the unpacked data.
    pub fn find(&self, shared: &Shared, unpacked_offset: u64) -> Result<Option<u64>> {
        let mut index = lock(&self.state).chunks.len() as u64;
        loop {
            {
                let state = lock(&self.state);
                if state.unpacked > unpacked_offset {
                    let n = state.chunks.partition_point(|c| c.unpacked_offset <= unpacked_offset);
                    return Ok(Some((n as u64).saturating_sub(1)));
                }
            }
            if self.get(shared, index)?.is_none() {
                return Ok(None);
            }
            index += 1;
        }
    }

    fn hop(&self, shared: &Shared, state: &mut TableState) -> Result<()> {
        let source = &shared.source;
        let count = match state.count {
            Some(n) => n,
            None => {
                let mut b = [0; 4];
                source.read_exact_at("count of chunks", self.offset, &mut b)?;
                state.next = self.offset.saturating_add(4);
                *state.count.insert(shared.endian.u32(b))
            }
        };
        let at = state.next;
        // The count is written last: 0 before data is that of a recording that was cut off.
        let more =
            if count == 0 { at.saturating_add(8) < self.end } else { (state.chunks.len() as u64) < u64::from(count) };
        if !more {
            // Sizes that are 4 too small were written once; none was ever too large.
            if count != 0 && at < self.end {
                let why = "chunks end before the data do";
                return Err(Error::BadValue { what: "count of chunks", offset: self.offset, value: count.into(), why });
            }
            state.done = true;
            return Ok(());
        }
        let mut b = [0; 8];
        source.read_exact_at("header of a chunk", at, &mut b)?;
        let [p0, p1, p2, p3, u0, u1, u2, u3] = b;
        let (packed, unpacked) = (shared.endian.u32([p0, p1, p2, p3]), shared.endian.u32([u0, u1, u2, u3]));
        let offset = at.saturating_add(8);
        source.check("chunk", offset, packed.into())?;
        if unpacked == 0 {
            return Err(Error::BadValue {
                what: "header of a chunk",
                offset: at,
                value: 0,
                why: "is no count of unpacked bytes",
            });
        }
        let max = self.subbuf_size.saturating_mul(16).max(CHUNK_MAX);
        if unpacked as usize > max {
            let why = "unpacked bytes are more than a chunk has";
            return Err(Error::BadValue { what: "header of a chunk", offset: at, value: unpacked.into(), why });
        }
        state.chunks.push(Chunk { offset, packed, unpacked, unpacked_offset: state.unpacked });
        state.next = offset.saturating_add(packed.into());
        state.unpacked = state.unpacked.saturating_add(unpacked.into());
        Ok(())
    }
}

/// Where the sub-buffers of a CPU come from.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    /// They lie in the file as they are.
    Plain { offset: u64, size: u64 },
    /// They are in compressed chunks.
    Packed(Arc<ChunkTable>),
}

/// A piece that is loaded at a time: a window of plain data, or a chunk or part of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unit {
    pub index: u64,
    pub part: u32,
}

/// Loads blocks of one CPU.
#[derive(Debug)]
pub(crate) struct Feed {
    pub shared: Arc<Shared>,
    pub data: Data,
    pub subbuf_size: usize,
    /// Bytes of a block.
    pub window: usize,
    /// Memory of its blocks.
    pub pool: Arc<Pool>,
    ahead: VecDeque<(Unit, usize, Arc<Job>)>,
}

impl Feed {
    /// A feed that is one of `streams`, which share the memory there is.
    pub fn new(shared: Arc<Shared>, data: Data, subbuf_size: usize, streams: usize) -> Feed {
        let max = match data {
            Data::Plain { .. } => WINDOW_MAX,
            Data::Packed(_) => usize::MAX,
        };
        let window = (CURRENT_BYTES / streams.max(1)).min(max) / subbuf_size.max(1) * subbuf_size;
        let pool = shared.pool.clone();
        Feed { shared, data, subbuf_size, window: window.max(subbuf_size), pool, ahead: VecDeque::new() }
    }

    /// The unit behind this one.
    pub fn after(&self, unit: Unit) -> Unit {
        if let Data::Packed(table) = &self.data
            && let Ok(Some(chunk)) = table.get(&self.shared, unit.index)
            && (u64::from(unit.part) + 1) * (self.window as u64) < u64::from(chunk.unpacked)
        {
            return Unit { index: unit.index, part: unit.part + 1 };
        }
        Unit { index: unit.index.saturating_add(1), part: 0 }
    }

    /// The unit before this one, `None` before the first.
    pub fn before(&self, unit: Unit) -> Option<Unit> {
        if unit.part > 0 {
            return Some(Unit { index: unit.index, part: unit.part - 1 });
        }
        let index = unit.index.checked_sub(1)?;
        let mut part = 0;
        if let Data::Packed(table) = &self.data
            && let Ok(Some(chunk)) = table.get(&self.shared, index)
        {
            part = chunk.unpacked.saturating_sub(1) / u32::try_from(self.window).unwrap_or(u32::MAX);
        }
        Some(Unit { index, part })
    }

    /// The unit behind the last one.
    pub fn end(&self) -> Unit {
        let index = match &self.data {
            Data::Plain { size, .. } => size.div_ceil(self.window as u64),
            Data::Packed(table) => table.known_len(&self.shared),
        };
        Unit { index, part: 0 }
    }

    /// As [`Feed::load`], without unpacking what comes after it.
    pub fn load_alone(&mut self, unit: Unit) -> Result<Option<Arc<Block>>> {
        let table = match &self.data {
            Data::Plain { offset, size } => return self.load_plain(*offset, *size, unit.index),
            Data::Packed(table) => table.clone(),
        };
        let Some(chunk) = table.get(&self.shared, unit.index)? else { return Ok(None) };
        self.unpack(&chunk, unit).map(Some)
    }

    /// The block of a unit, `None` behind the last one.
    pub fn load(&mut self, unit: Unit) -> Result<Option<Arc<Block>>> {
        let table = match &self.data {
            Data::Plain { offset, size } => return self.load_plain(*offset, *size, unit.index),
            Data::Packed(table) => table.clone(),
        };
        while let Some((ahead, bytes, job)) = self.ahead.pop_front() {
            self.shared.ahead.fetch_sub(bytes, Ordering::Relaxed);
            if ahead == unit {
                self.look_ahead(unit, &table);
                return job.take().map(Some);
            }
        }
        let Some(chunk) = table.get(&self.shared, unit.index)? else { return Ok(None) };
        self.look_ahead(unit, &table);
        self.unpack(&chunk, unit).map(Some)
    }

    /// The block of a unit, unpacked here and now.
    fn unpack(&self, chunk: &Chunk, unit: Unit) -> Result<Arc<Block>> {
        let (shared, part) = (&self.shared, self.part(chunk, unit));
        with_unpacker(|u| u.chunk(&shared.source, &self.pool, shared.codec, chunk, part))
    }

    /// The part of a chunk that a unit stands for.
    fn part(&self, chunk: &Chunk, unit: Unit) -> (usize, usize) {
        let start = (unit.part as usize).saturating_mul(self.window);
        (start, self.window.min((chunk.unpacked as usize).saturating_sub(start)))
    }

    /// Has the workers unpack what comes after `unit`.
    fn look_ahead(&mut self, unit: Unit, table: &ChunkTable) {
        if self.shared.threads == 0 {
            return;
        }
        let mut last = self.ahead.back().map_or(unit, |(u, _, _)| *u);
        while self.ahead.len() < AHEAD {
            last = self.after(last);
            // Damage is found, and told, when its turn comes.
            if table.is_known_end(last.index) {
                return;
            }
            let Ok(Some(chunk)) = table.peek(&self.shared, last.index) else { return };
            let part = self.part(&chunk, last);
            let bytes = part.1;
            if self.shared.ahead.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > AHEAD_BYTES {
                self.shared.ahead.fetch_sub(bytes, Ordering::Relaxed);
                return;
            }
            let job = Arc::new(Job {
                source: self.shared.source.clone(),
                pool: self.pool.clone(),
                codec: self.shared.codec,
                chunk,
                part,
                state: Mutex::new(State::Waiting),
                done: Condvar::new(),
            });
            let sent = self.shared.jobs().is_some_and(|q| q.send(job.clone()).is_ok());
            if !sent {
                self.shared.ahead.fetch_sub(bytes, Ordering::Relaxed);
                return;
            }
            self.ahead.push_back((last, bytes, job));
        }
    }

    fn load_plain(&self, offset: u64, size: u64, index: u64) -> Result<Option<Arc<Block>>> {
        let Some(at) = index.checked_mul(self.window as u64).filter(|at| *at < size) else { return Ok(None) };
        let len = (size - at).min(self.window as u64) as usize;
        let base = offset.saturating_add(at);
        let have = self.shared.source.len().saturating_sub(base);
        if have == 0 {
            return Ok(None);
        }
        let len = len.min(usize::try_from(have).unwrap_or(len));
        let mut buf = self.pool.get(len);
        let got = self.shared.source.read_at(base, buf.get_mut(..len).unwrap_or_default())?;
        if got == 0 {
            return Err(Error::Truncated { what: "event data", offset: base, need: len as u64, have: 0 });
        }
        Ok(Some(Arc::new(Block::new(&self.pool, buf, got, base))))
    }

    /// The first bytes of a sub-buffer (its header), without loading a whole block of plain data.
    ///
    /// `index` counts sub-buffers in plain data, chunks in compressed data.
    pub fn probe(&self, index: u64, buf: &mut [u8]) -> Result<usize> {
        match &self.data {
            Data::Plain { offset, size } => {
                let at = index.saturating_mul(self.subbuf_size as u64);
                let len = usize::try_from(size.saturating_sub(at)).unwrap_or(buf.len()).min(buf.len());
                self.shared.source.read_at(offset.saturating_add(at), buf.get_mut(..len).unwrap_or_default())
            }
            Data::Packed(table) => {
                let Some(chunk) = table.get(&self.shared, index)? else { return Ok(0) };
                let shared = &self.shared;
                with_unpacker(|u| {
                    u.fetch(&shared.source, &chunk)?;
                    u.codec.unpack_head(shared.codec, chunk.offset, &u.packed, buf)
                })
            }
        }
    }

    /// The first probe from `index` on that is not all in a hole of the file; `index` itself for compressed data.
    pub fn probe_behind_hole(&self, index: u64) -> u64 {
        self.skip_hole(index, self.subbuf_size as u64).0
    }

    /// The first unit from `unit` on that is not all in a hole of the file, and where `unit` itself lies.
    pub fn behind_hole(&self, unit: Unit) -> (Unit, Option<u64>) {
        let (index, place) = self.skip_hole(unit.index, self.window as u64);
        (Unit { index, ..unit }, place)
    }

    fn skip_hole(&self, index: u64, size: u64) -> (u64, Option<u64>) {
        let Data::Plain { offset, .. } = &self.data else { return (index, None) };
        let place = index.checked_mul(size).and_then(|at| at.checked_add(*offset));
        let Some(at) = place else { return (index, None) };
        let data = self.shared.source.next_data(at);
        (index.saturating_add(data.saturating_sub(at) / size.max(1)), place)
    }

    /// How many indices [`Feed::probe`] has.
    pub fn probes(&self) -> u64 {
        match &self.data {
            Data::Plain { size, .. } => size.div_ceil(self.subbuf_size.max(1) as u64),
            Data::Packed(table) => table.known_len(&self.shared),
        }
    }

    /// Uses the list of chunks that another feed of the same data has found, if it found all of them.
    pub fn share_chunks(&mut self, other: &Feed) {
        if let (Data::Packed(own), Data::Packed(table)) = (&mut self.data, &other.data)
            && table.is_known_end(u64::MAX)
            && (own.offset, own.end) == (table.offset, table.end)
        {
            *own = table.clone();
        }
    }

    /// Whether it is known that there is nothing at a unit.
    pub fn is_known_end(&self, unit: Unit) -> bool {
        match &self.data {
            Data::Plain { .. } => false,
            Data::Packed(table) => table.is_known_end(unit.index),
        }
    }

    /// Forgets what was unpacked ahead.
    pub fn reset(&mut self) {
        for (_, bytes, job) in self.ahead.drain(..) {
            self.shared.ahead.fetch_sub(bytes, Ordering::Relaxed);
            job.cancel();
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.reset();
    }
}

impl ChunkTable {
    /// As [`ChunkTable::get`], but leaves an error to be found later.
    fn peek(&self, shared: &Shared, index: u64) -> Result<Option<Chunk>> {
        let mut state = lock(&self.state);
        while (state.chunks.len() as u64) <= index && !state.done {
            self.hop(shared, &mut state)?;
        }
        Ok(usize::try_from(index).ok().and_then(|i| state.chunks.get(i).copied()))
    }

    /// Mean of the unpacked bytes of the chunks that are known.
    pub fn mean_len(&self) -> u64 {
        let state = lock(&self.state);
        state.unpacked / (state.chunks.len() as u64).max(1)
    }

    fn is_known_end(&self, index: u64) -> bool {
        let state = lock(&self.state);
        state.done && index >= state.chunks.len() as u64
    }

    /// How many chunks can be had; what ends the list early is left to be found later.
    fn known_len(&self, shared: &Shared) -> u64 {
        let _ = self.peek(shared, u64::MAX - 1);
        lock(&self.state).chunks.len() as u64
    }
}

impl Unpacker {
    fn fetch(&mut self, source: &Source, chunk: &Chunk) -> Result<()> {
        self.packed.resize(chunk.packed as usize, 0);
        source.read_exact_at("chunk", chunk.offset, &mut self.packed)
    }

    /// Unpacks a part (start, length) of a chunk.
    fn chunk(
        &mut self,
        source: &Source,
        pool: &Arc<Pool>,
        codec: Codec,
        chunk: &Chunk,
        (start, len): (usize, usize),
    ) -> Result<Arc<Block>> {
        self.fetch(source, chunk)?;
        let whole = chunk.unpacked as usize;
        let base = chunk.unpacked_offset.saturating_add(start as u64);
        let mut buf = pool.get(len);
        if len >= whole {
            let got = self.codec.unpack(codec, chunk.offset, &self.packed, buf.get_mut(..whole).unwrap_or_default())?;
            return Ok(Arc::new(Block::new(pool, buf, got, base)));
        }
        self.scratch.resize(whole.max(self.scratch.len()), 0);
        let got =
            self.codec.unpack(codec, chunk.offset, &self.packed, self.scratch.get_mut(..whole).unwrap_or_default())?;
        let from = self.scratch.get(start..got.min(start.saturating_add(len))).unwrap_or_default();
        if let Some(to) = buf.get_mut(..from.len()) {
            to.copy_from_slice(from);
        }
        Ok(Arc::new(Block::new(pool, buf, from.len(), base)))
    }
}

#[derive(Debug)]
enum State {
    Waiting,
    Running,
    Done(Result<Arc<Block>>),
    Taken,
}

/// A chunk to unpack: by a worker, or by the one who needs it when no worker has begun.
#[derive(Debug)]
struct Job {
    source: Source,
    pool: Arc<Pool>,
    codec: Codec,
    chunk: Chunk,
    part: (usize, usize),
    state: Mutex<State>,
    done: Condvar,
}

impl Job {
    fn run(&self, unpacker: &mut Unpacker) {
        {
            let mut state = lock(&self.state);
            if !matches!(*state, State::Waiting) {
                return;
            }
            *state = State::Running;
        }
        let result = unpacker.chunk(&self.source, &self.pool, self.codec, &self.chunk, self.part);
        let mut state = lock(&self.state);
        if !matches!(*state, State::Taken) {
            *state = State::Done(result);
        }
        self.done.notify_all();
    }

    fn cancel(&self) {
        *lock(&self.state) = State::Taken;
    }

    fn take(&self) -> Result<Arc<Block>> {
        let mut state = lock(&self.state);
        loop {
            match std::mem::replace(&mut *state, State::Taken) {
                State::Done(result) => return result,
                State::Running => {
                    *state = State::Running;
                    state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                State::Waiting | State::Taken => {
                    drop(state);
                    return with_unpacker(|u| u.chunk(&self.source, &self.pool, self.codec, &self.chunk, self.part));
                }
            }
        }
    }
}
