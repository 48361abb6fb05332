//! Compression on worker threads, results in the order of the jobs.

use std::{collections::VecDeque, thread::JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::{
    Error, Result,
    compress::{Codec, Compressor, Decompressor},
};

/// What is to become of one chunk.
pub(super) enum Job {
    /// Pack plain bytes.
    Pack(Vec<u8>),
    /// Unpack and pack again.
    Repack { from: Codec, offset: u64, bytes: Vec<u8>, unpacked: u32 },
    /// Nothing: it is already as it shall be.
    Keep { bytes: Vec<u8>, unpacked: u32 },
}

/// A chunk ready to be written.
pub(super) struct Done {
    /// Its bytes in the output's codec.
    pub bytes: Vec<u8>,
    /// Its unpacked length.
    pub unpacked: u32,
    /// A used buffer to fill again.
    pub spare: Vec<u8>,
}

enum Pending {
    Ready(Box<Done>),
    Wait(Receiver<Result<Done>>),
}

type Work = (Job, Sender<Result<Done>>);

/// The worker threads; started with the first chunk, ended on drop.
pub(super) struct Packers {
    codec: Codec,
    threads: usize,
    work: Option<Sender<Work>>,
    workers: Vec<JoinHandle<()>>,
    pending: VecDeque<Pending>,
}

impl Packers {
    /// Packers to `codec` on so many threads; 0 = as many as there are CPUs.
    pub fn new(codec: Codec, threads: usize) -> Self {
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from).min(64),
            n => n,
        };
        Packers { codec, threads, work: None, workers: Vec::new(), pending: VecDeque::new() }
    }

    /// Whether so much is under way that a result should be taken before the next job.
    pub fn is_full(&self) -> bool {
        self.pending.len() >= self.threads * 4
    }

    /// Gives a job to the workers.
    pub fn push(&mut self, job: Job) -> Result<()> {
        if let Job::Keep { bytes, unpacked } = job {
            self.pending.push_back(Pending::Ready(Box::new(Done { bytes, unpacked, spare: Vec::new() })));
            return Ok(());
        }
        let dead = || Error::Compressed { offset: 0, codec: self.codec.name(), why: "a worker thread ended".into() };
        let work = match &self.work {
            Some(w) => w,
            None => {
                let (tx, rx) = bounded::<Work>(self.threads * 4);
                for _ in 0..self.threads {
                    let (rx, codec) = (rx.clone(), self.codec);
                    let run = move || worker(codec, rx);
                    let name = "packer".to_string();
                    match std::thread::Builder::new().name(name).spawn(run) {
                        Ok(handle) => self.workers.push(handle),
                        Err(_) if !self.workers.is_empty() => break,
                        Err(_) => return Err(dead()),
                    }
                }
                self.work.insert(tx)
            }
        };
        let (tx, rx) = bounded(1);
        work.send((job, tx)).map_err(|_| dead())?;
        self.pending.push_back(Pending::Wait(rx));
        Ok(())
    }

    /// The oldest result; waits for it. `None` when nothing is under way.
    pub fn pop(&mut self) -> Option<Result<Done>> {
        Some(match self.pending.pop_front()? {
            Pending::Ready(done) => Ok(*done),
            Pending::Wait(rx) => rx.recv().unwrap_or_else(|_| {
                Err(Error::Compressed { offset: 0, codec: self.codec.name(), why: "a worker thread ended".into() })
            }),
        })
    }
}

impl Drop for Packers {
    fn drop(&mut self) {
        self.work = None;
        self.pending.clear();
        for w in self.workers.drain(..) {
            let _ = w.join();
        }
    }
}

fn worker(codec: Codec, work: Receiver<Work>) {
    let mut packer = Compressor::new(codec);
    let mut unpacker = Decompressor::new();
    let mut plain = Vec::new();
    for (job, answer) in work {
        // Nobody waits any more when the writer failed meanwhile.
        let _ = answer.send(run(job, &mut packer, &mut unpacker, &mut plain));
    }
}

fn run(job: Job, packer: &mut Compressor, unpacker: &mut Decompressor, plain: &mut Vec<u8>) -> Result<Done> {
    match job {
        Job::Pack(data) => {
            let mut bytes = Vec::new();
            packer.pack(&data, &mut bytes)?;
            Ok(Done { bytes, unpacked: data.len() as u32, spare: data })
        }
        Job::Repack { from, offset, bytes, unpacked } => {
            unpacker.unpack_into(from, offset, &bytes, unpacked.into(), plain)?;
            if plain.len() != unpacked as usize {
                let why = format!("gives {} bytes instead of {unpacked}", plain.len());
                return Err(Error::Compressed { offset, codec: from.name(), why });
            }
            let mut packed = Vec::new();
            packer.pack(plain, &mut packed)?;
            Ok(Done { bytes: packed, unpacked, spare: bytes })
        }
        Job::Keep { bytes, unpacked } => Ok(Done { bytes, unpacked, spare: Vec::new() }),
    }
}
