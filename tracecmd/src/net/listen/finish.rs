//! Makes a trace.dat file of what a client sent.

use std::{
    fs::File,
    io::{BufReader, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use trace_dat::{
    compress::Codec,
    read::TraceFile,
    source::read_full,
    write::{BufferHead, FileHead, FileVersion, Metadata, RawOption, Summary, Writer},
};

use super::{client::Client, data::Layout};
use crate::net::{client::LastWords, handshake::Carrier};

/// What is to be put together.
#[derive(Debug)]
pub struct Job {
    client: Client,
}

/// What came of it.
#[derive(Debug)]
pub struct Finished {
    /// The file, if one was made.
    pub file: Option<PathBuf>,
    /// Bytes that the client had put on disk.
    pub bytes: u64,
    /// No file could be made, but what came is still there.
    pub pieces_kept: bool,
    /// Sub-buffers that were sent and did not arrive, where the client says how many it sent.
    pub lost: u64,
    /// Lines for the log.
    pub log: Vec<String>,
}

impl Job {
    /// The job for a client whose data have ended.
    pub fn of(client: Client) -> Job {
        Job { client }
    }

    /// Writes the file and removes the pieces. What cannot become a file is kept in pieces, and the log says so.
    pub fn run(self) -> Finished {
        let c = &self.client;
        let mut log = Vec::new();
        let mut pieces_kept = false;
        if c.announced.is_none() {
            // It never got to a recording: at most its files were made.
            self.remove_pieces();
            return Finished { file: None, bytes: c.bytes(), pieces_kept, lost: 0, log };
        }
        let last = LastWords::decode(&c.last_words);
        let lost = self.counts(&last, &mut log);
        let file = match self.write(&last) {
            Ok((path, summary)) => {
                for (cpu, s) in summary.buffers.iter().flat_map(|b| b.cpus.iter().enumerate()) {
                    log.push(format!("CPU{cpu} data recorded at offset={:#x}", s.offset));
                    log.push(match summary.compressed {
                        true => format!("    {} bytes in size ({} uncompressed)", s.size, s.unpacked),
                        false => format!("    {} bytes in size", s.size),
                    });
                }
                if let Some(why) = &c.trouble {
                    log.push(format!("{}: {} has what came until: {why}", c.name, path.display()));
                }
                self.remove_pieces();
                Some(path)
            }
            Err(e) if c.bytes() == c.metadata_bytes => {
                log.push(format!("{}: nothing was recorded: {e:#}", c.name));
                self.remove_pieces();
                None
            }
            Err(e) => {
                pieces_kept = true;
                let names = self.keep_pieces().join(" ");
                log.push(format!("{}: no file could be made: {e:#}; what came is kept in {names}", c.name));
                None
            }
        };
        Finished { file, bytes: c.bytes(), pieces_kept, lost, log }
    }

    /// Tells losses and damage, CPU by CPU; gives the sub-buffers lost on the way.
    fn counts(&self, last: &LastWords, log: &mut Vec<String>) -> u64 {
        let mut all_lost = 0;
        for (cpu, d) in self.client.cpus.iter().enumerate() {
            let n = d.counts;
            let lost = last.sent.get(cpu).map_or(0, |sent| sent.saturating_sub(n.subbufs + n.damaged));
            all_lost += lost;
            for (count, what) in [
                (lost, "sub-buffers lost on the way"),
                (n.damaged, "damaged sub-buffers left out"),
                (n.short, "sub-buffers cut off"),
                (n.overrun, "datagrams dropped here: they came faster than they could be read"),
                (n.reordered, "sub-buffers came late and were put in order"),
                (n.foreign, "pieces of another sender dropped"),
            ] {
                if count > 0 {
                    log.push(format!("{}: CPU {cpu}: {count} {what}", self.client.name));
                }
            }
        }
        all_lost
    }

    fn write(&self, last: &LastWords) -> Result<(PathBuf, Summary)> {
        let c = &self.client;
        let Some(announced) = &c.announced else { bail!("no recording was announced") };
        let meta_file = open_metadata(&c.files.metadata(), announced.cpus)
            .context("what it sent before the data is not a trace.dat file")?;
        let mut meta = Metadata::of(&meta_file)?;
        // In V1 the listener is to say how many there are; what a client has there means nothing.
        meta.cpus = if announced.version == 1 { announced.cpus } else { meta.cpus.max(announced.cpus) };
        if !last.cmdlines.is_empty() {
            meta.cmdlines(&last.cmdlines);
        }
        for (id, data) in &last.options {
            let option = RawOption::new(*id, data.as_slice());
            if !option.is_structural() {
                meta.option(option);
            }
        }
        let version = if meta_file.version() == 6 { FileVersion::V6 } else { FileVersion::V7 };
        let head = FileHead {
            version,
            endian: meta_file.endian(),
            long_size: meta_file.long_size(),
            page_size: meta_file.page_size(),
            codec: if version == FileVersion::V6 { Codec::None } else { meta_file.header().codec },
        };
        let clock = meta.clock();
        let buffers = vec![BufferHead::new("", clock, announced.subbuf)];
        let path = self.free_name()?;
        let mut writer = Writer::create(&path, head, &meta, buffers)?;
        for (cpu, d) in c.cpus.iter().enumerate() {
            if d.counts.subbufs == 0 {
                continue;
            }
            writer.cpu(0, cpu as u32)?;
            let size = announced.subbuf as usize;
            let file = File::open(&d.path).with_context(|| d.path.display().to_string())?;
            if announced.carrier == Carrier::Udp && d.counts.reordered > 0 {
                for at in in_time_order(&file, size, d.counts.subbufs, &meta_file)? {
                    let mut buf = vec![0; size];
                    file.read_exact_at(&mut buf, at).with_context(|| d.path.display().to_string())?;
                    writer.sub_buffers(&buf)?;
                }
                continue;
            }
            let mut from = BufReader::with_capacity(0, file);
            let all = size * (1usize << 20).div_ceil(size);
            let mut buf = vec![0; all];
            loop {
                let piece = read_full(&mut from, &mut buf).with_context(|| d.path.display().to_string())?;
                let (whole, _) = piece.split_at(piece.len() - piece.len() % size);
                writer.sub_buffers(whole)?;
                if piece.len() < all {
                    break;
                }
            }
        }
        Ok((path, writer.commit()?))
    }

    /// The name as the reference has it, or with a number when there is such a file already.
    fn free_name(&self) -> Result<PathBuf> {
        let files = &self.client.files;
        std::iter::once(files.result())
            .chain((1..1000).map(|n| files.other_result(n)))
            .find(|p| p.symlink_metadata().is_err())
            .context("no free name for the file")
    }

    /// Marks the pieces as what they are; gives their names.
    fn keep_pieces(&self) -> Vec<String> {
        let c = &self.client;
        let with_data = c.cpus.iter().filter(|d| d.counts.bytes > 0).map(|d| d.path.clone());
        let mut names = Vec::new();
        for path in std::iter::once(c.files.metadata()).chain(with_data) {
            let mut marked = path.clone().into_os_string();
            marked.push(".partial");
            let to = PathBuf::from(marked);
            let kept = if to.symlink_metadata().is_err() && std::fs::rename(&path, &to).is_ok() { to } else { path };
            names.push(kept.display().to_string());
        }
        for d in c.cpus.iter().filter(|d| d.counts.bytes == 0) {
            let _ = std::fs::remove_file(&d.path);
        }
        names
    }

    fn remove_pieces(&self) {
        let c = &self.client;
        let _ = std::fs::remove_file(c.files.metadata());
        for d in &c.cpus {
            let _ = std::fs::remove_file(&d.path);
        }
    }
}

/// Opens what a client sent before its data. The listener is to complete a file of version 6: how much of its end is missing
/// depends on the protocol and on the recorder.
fn open_metadata(path: &Path, cpus: u32) -> Result<TraceFile> {
    let first = match TraceFile::open(path) {
        Ok(file) => return Ok(file),
        Err(e) => e,
    };
    let mut file = File::options().read(true).append(true).open(path).with_context(|| path.display().to_string())?;
    let mut start = [0; Layout::NEEDS];
    let start = &*read_full(&mut file, &mut start)?;
    let version_6 = start.get(10) == Some(&b'6');
    let Some(layout) = Layout::of_metadata(start).filter(|_| version_6) else { return Err(first.into()) };
    let size = file.metadata()?.len();
    let number = |n: u32| if layout.big { n.to_be_bytes() } else { n.to_le_bytes() };
    // The table of the CPUs, empty, without a clock; before it CPU count and options; before these the command lines.
    let table = [&b"flyrecord\0"[..], &vec![0; 16 * cpus as usize], &[0; 8]].concat();
    let options = [&number(cpus)[..], b"options  \0", &[0; 2], &table].concat();
    let cmdlines = [&[0; 8][..], &options].concat();
    for rest in [table, options, cmdlines] {
        file.set_len(size)?;
        file.write_all(&rest)?;
        if let Ok(file) = TraceFile::open(path) {
            return Ok(file);
        }
    }
    file.set_len(size)?;
    Err(first.into())
}

/// Offsets of a file's sub-buffers by the time in their headers.
fn in_time_order(file: &File, size: usize, count: u64, like: &TraceFile) -> Result<Vec<u64>> {
    let mut order = Vec::new();
    for n in 0..count {
        let at = n * size as u64;
        let mut ts = [0; 8];
        file.read_exact_at(&mut ts, at)?;
        order.push((like.endian().u64(ts), at));
    }
    order.sort();
    Ok(order.into_iter().map(|(_, at)| at).collect())
}
