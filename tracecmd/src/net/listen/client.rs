//! One client of the listener.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use super::{
    data::{Counts, CpuData, Layout, Peer, Port},
    new_file,
};
use crate::net::{
    conn::Conn,
    handshake::{Announced, Protocol},
};

/// How far a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Version, counts and sizes are exchanged.
    Handshake,
    /// The file's metadata comes.
    Metadata,
    /// Data come.
    Recording,
    /// The client ended the recording; the rest of the data is read.
    Draining,
}

/// Names of a recording's files: all lie in one directory, none can leave it.
#[derive(Clone, Debug)]
pub struct DataFiles {
    dir: PathBuf,
    base: String,
}

impl DataFiles {
    /// Names that begin with `base` (checked by [`safe_name`](crate::net::addr::safe_name)) in `dir`.
    pub fn new(dir: &Path, base: String) -> Self {
        DataFiles { dir: dir.to_owned(), base }
    }

    /// The finished file.
    pub fn result(&self) -> PathBuf {
        self.dir.join(format!("{}.dat", self.base))
    }

    /// The finished file's name when the plain one is taken.
    pub fn other_result(&self, n: u32) -> PathBuf {
        self.dir.join(format!("{}.{n}.dat", self.base))
    }

    /// The metadata as they come.
    pub fn metadata(&self) -> PathBuf {
        self.dir.join(format!("{}.meta", self.base))
    }

    /// The data of a CPU as they come.
    pub fn cpu(&self, cpu: u32) -> PathBuf {
        self.dir.join(format!("{}.cpu{cpu}", self.base))
    }
}

/// One client of the listener.
#[derive(Debug)]
pub struct Client {
    /// Control connection; gone when the client is.
    pub control: Option<Conn>,
    /// What is said on it.
    pub protocol: Protocol,
    /// Who it is.
    pub peer: Peer,
    /// Its name for logs and files: host and port.
    pub name: String,
    /// Whether its data come inside TLS.
    pub tls: bool,
    /// How far it is.
    pub stage: Stage,
    /// When the present stage must have moved on.
    pub deadline: Option<Instant>,
    /// Last time that data came.
    pub last_data: Instant,
    /// What it announced.
    pub announced: Option<Announced>,
    /// Names of its files.
    pub files: DataFiles,
    /// Data of its CPUs.
    pub cpus: Vec<CpuData>,
    /// Layout of its sub-buffers.
    pub layout: Option<Layout>,
    /// First bytes of the metadata.
    start: Vec<u8>,
    /// Bytes of metadata so far.
    pub metadata_bytes: u64,
    /// What it said at the end: counts, command lines, options.
    pub last_words: Vec<u8>,
    /// Why its recording ended early, if it did.
    pub trouble: Option<String>,
    metadata: Option<File>,
}

impl Client {
    /// A client that has just connected.
    pub fn new(control: Conn, protocol: Protocol, peer: Peer, name: String, files: DataFiles, tls: bool) -> Self {
        Client {
            control: Some(control),
            protocol,
            peer,
            name,
            tls,
            stage: Stage::Handshake,
            deadline: None,
            last_data: Instant::now(),
            announced: None,
            files,
            cpus: Vec::new(),
            layout: None,
            start: Vec::new(),
            metadata_bytes: 0,
            last_words: Vec::new(),
            trouble: None,
            metadata: None,
        }
    }

    /// Makes the metadata file.
    ///
    /// # Errors
    /// The file exists or cannot be made.
    pub fn open_metadata(&mut self) -> io::Result<()> {
        self.metadata = Some(new_file(&self.files.metadata())?);
        Ok(())
    }

    /// Appends metadata.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn metadata(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.start.len() < Layout::NEEDS {
            self.start.extend(bytes.iter().take(Layout::NEEDS - self.start.len()));
            self.layout = self.layout.or_else(|| Layout::of_metadata(&self.start));
        }
        self.metadata_bytes += bytes.len() as u64;
        match &mut self.metadata {
            Some(f) => f.write_all(bytes),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Bytes that this client has put on disk.
    pub fn bytes(&self) -> u64 {
        self.metadata_bytes + self.cpus.iter().map(|c| c.counts.bytes).sum::<u64>()
    }

    /// Sums over its CPUs.
    pub fn counts(&self) -> Counts {
        self.cpus.iter().fold(Counts::default(), |mut sum, c| {
            sum.add(&c.counts);
            sum
        })
    }

    /// Whether data come over connections that will end by themselves.
    pub fn streams(&self) -> bool {
        self.cpus.iter().any(|c| matches!(c.port, Port::Stream(_)))
    }

    /// Whether all data sources have ended.
    pub fn drained(&self) -> bool {
        self.cpus.iter().all(|c| c.fd().is_none())
    }
}
