//! Makes a trace.dat file of what a client sent.

use std::{
    fs::File,
    io::{BufReader, Read},
    os::unix::fs::FileExt,
    path::PathBuf,
};

use anyhow::{Context, Result, bail};
use trace_dat::{
    compress::Codec,
    read::TraceFile,
    write::{BufferHead, FileHead, FileVersion, Metadata, RawOption, Summary, Writer},
};

use super::client::Client;
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
        if c.announced.is_none() {
            // It never got to a recording.
            return Finished { file: None, log };
        }
        let last = LastWords::decode(&c.last_words);
        self.counts(&last, &mut log);
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
                log.push(format!("{}: no file could be made, its pieces are kept: {e:#}", c.name));
                None
            }
        };
        Finished { file, log }
    }

    /// Losses and damage, CPU by CPU.
    fn counts(&self, last: &LastWords, log: &mut Vec<String>) {
        for (cpu, d) in self.client.cpus.iter().enumerate() {
            let n = d.counts;
            let lost = last.sent.get(cpu).map_or(0, |sent| sent.saturating_sub(n.subbufs + n.damaged));
            for (count, what) in [
                (lost, "sub-buffers lost on the way"),
                (n.damaged, "damaged sub-buffers left out"),
                (n.short, "sub-buffers cut off"),
                (n.reordered, "sub-buffers came late and were put in order"),
                (n.foreign, "pieces of another sender dropped"),
            ] {
                if count > 0 {
                    log.push(format!("{}: CPU {cpu}: {count} {what}", self.client.name));
                }
            }
        }
    }

    fn write(&self, last: &LastWords) -> Result<(PathBuf, Summary)> {
        let c = &self.client;
        let Some(announced) = &c.announced else { bail!("no recording was announced") };
        let meta_file =
            TraceFile::open(c.files.metadata()).context("what it sent before the data is not a trace.dat file")?;
        let mut meta = Metadata::of(&meta_file)?;
        meta.cpus = meta.cpus.max(announced.cpus);
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
            let mut buf = vec![0; size * (1usize << 20).div_ceil(size)];
            loop {
                let n = read_full(&mut from, &mut buf).with_context(|| d.path.display().to_string())?;
                writer.sub_buffers(&buf[..n - n % size])?;
                if n < buf.len() {
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

    fn remove_pieces(&self) {
        let c = &self.client;
        let _ = std::fs::remove_file(c.files.metadata());
        for d in &c.cpus {
            let _ = std::fs::remove_file(&d.path);
        }
    }
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

fn read_full(from: &mut impl Read, buf: &mut [u8]) -> std::io::Result<usize> {
    let mut n = 0;
    while n < buf.len() {
        match from.read(&mut buf[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(n)
}
