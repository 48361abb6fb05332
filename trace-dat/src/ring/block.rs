//! Memory that records lie in: one unpacked chunk, or a piece of the file with whole sub-buffers.

use std::sync::{
    Arc, Mutex, PoisonError, Weak,
    atomic::{AtomicU64, Ordering},
};

/// Buffers that are kept for the next block.
const KEEP: usize = 64;
/// Buffers have a multiple of so many bytes.
const STEP: usize = 8 << 10;
/// Buffers larger than this are not kept.
const KEEP_LEN: usize = 1 << 20;

/// Buffers of blocks that nobody holds any more.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    free: Mutex<Vec<Vec<u8>>>,
    /// Bytes of blocks so far, of all pools of the file.
    made: Arc<AtomicU64>,
}

impl Pool {
    /// Another pool of the same file, for blocks that one thread fills and another one must not.
    pub fn another(&self) -> Arc<Pool> {
        Arc::new(Pool { free: Mutex::default(), made: self.made.clone() })
    }

    /// Bytes that blocks were made of so far: read from plain data, or unpacked.
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// A buffer of at least this length; what is in it does not matter.
    pub fn get(&self, len: usize) -> Vec<u8> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buf = free.pop().unwrap_or_default();
        drop(free);
        if buf.len() < len {
            // Chunks have many lengths: one that grows a little each time would be made anew each time.
            let room = len.next_multiple_of(STEP);
            if buf.capacity() < room {
                buf = Vec::with_capacity(room);
            }
            buf.resize(room, 0);
        }
        buf
    }

    fn put(&self, buf: Vec<u8>) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEEP && buf.len() <= KEEP_LEN {
            free.push(buf);
        }
    }
}

/// Sub-buffers of one CPU, one behind the other, in memory that is used again when the last holder lets go.
#[derive(Debug)]
pub struct Block {
    buf: Vec<u8>,
    len: usize,
    base: u64,
    pool: Weak<Pool>,
}

impl Block {
    pub(crate) fn new(pool: &Arc<Pool>, buf: Vec<u8>, len: usize, base: u64) -> Block {
        let len = len.min(buf.len());
        pool.made.fetch_add(len as u64, Ordering::Relaxed);
        Block { buf, len, base, pool: Arc::downgrade(pool) }
    }

    /// The bytes.
    #[inline(always)]
    pub fn data(&self) -> &[u8] {
        self.buf.get(..self.len).unwrap_or_default()
    }

    /// Where the first byte lies: in the file, or for compressed data in the unpacked data of the CPU.
    pub fn base(&self) -> u64 {
        self.base
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.put(std::mem::take(&mut self.buf));
        }
    }
}
