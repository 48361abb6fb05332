//! The sections that describe events, symbols and processes: everything but options and trace data.

use super::{
    option::{RawOption, id},
    pack::{Job, Packers},
};
use crate::{Result, compress::Codec, endian::Endian, error::Error};

/// Content of a section, plain or already compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// As it is.
    Plain(Vec<u8>),
    /// Packed by `codec`; goes over unchanged into a file of the same codec.
    Packed {
        /// What packed it.
        codec: Codec,
        /// The packed bytes.
        bytes: Vec<u8>,
        /// Their unpacked length.
        unpacked: u32,
        /// Where they lie in the file that they come from, for messages.
        offset: u64,
    },
}

/// A metadata section: its id (also of the option that points to it), its descriptive name and its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// See [`id`].
    pub id: u16,
    /// Name in the strings section; the usual one of the id when empty.
    pub name: String,
    /// The content; for the ids 16 to 21 the same bytes as in a version 6 file.
    pub payload: Payload,
}

/// The usual name of a section.
pub(super) fn section_name(section: u16) -> &'static str {
    match section {
        id::DONE => "options",
        id::STRINGS => "strings",
        id::HEADER_INFO => "headers",
        id::FTRACE_EVENTS => "ftrace events",
        id::EVENT_FORMATS => "events format",
        id::KALLSYMS => "kallsyms",
        id::PRINTK => "printk",
        id::CMDLINES => "command lines",
        id::BTF_FILE => "BTF",
        id::MODULES_FILE => "modules",
        _ => "unknown",
    }
}

/// All of a file that is not trace data: sections and options.
///
/// Texts come from the traced machine's tracefs; a writer adds what points into the file (offsets, CPU count, buffers).
#[derive(Clone, Debug)]
pub struct Metadata {
    endian: Endian,
    /// CPUs of the traced machine: the size of the CPU table of a version 6 file.
    pub cpus: u32,
    /// Sections, at most one of each id that this version knows.
    pub sections: Vec<Section>,
    /// Options in their order; those that point into a file are left out by the writer.
    pub options: Vec<RawOption>,
}

impl Metadata {
    /// Without sections and options.
    pub fn new(endian: Endian, cpus: u32) -> Self {
        Metadata { endian, cpus, sections: Vec::new(), options: Vec::new() }
    }

    /// Byte order in which numbers are stored.
    pub fn endian(&self) -> Endian {
        self.endian
    }

    /// Puts a section, in the place of an earlier one of the same id.
    pub fn set(&mut self, section: u16, payload: Payload) {
        match self.sections.iter_mut().find(|s| s.id == section) {
            Some(s) => s.payload = payload,
            None => self.sections.push(Section { id: section, name: String::new(), payload }),
        }
    }

    /// The section of this id.
    pub fn get(&self, section: u16) -> Option<&Section> {
        self.sections.iter().find(|s| s.id == section)
    }

    /// Texts of `events/header_page` and `events/header_event`.
    pub fn header_info(&mut self, page: &[u8], event: &[u8]) {
        let mut out = b"header_page\0".to_vec();
        out.extend(self.endian.from_u64(page.len() as u64));
        out.extend_from_slice(page);
        out.extend_from_slice(b"header_event\0");
        out.extend(self.endian.from_u64(event.len() as u64));
        out.extend_from_slice(event);
        self.set(id::HEADER_INFO, Payload::Plain(out));
    }

    /// Texts of `events/ftrace/*/format`.
    pub fn ftrace_events<T: AsRef<[u8]>>(&mut self, formats: &[T]) {
        let mut out = Vec::new();
        self.formats(formats, &mut out);
        self.set(id::FTRACE_EVENTS, Payload::Plain(out));
    }

    /// Texts of `events/SYSTEM/*/format`, by system.
    pub fn event_formats<S: AsRef<[u8]>, T: AsRef<[u8]>>(&mut self, systems: &[(S, Vec<T>)]) {
        let mut out = self.endian.from_u32(systems.len() as u32).to_vec();
        for (name, formats) in systems {
            out.extend_from_slice(name.as_ref());
            out.push(0);
            self.formats(formats, &mut out);
        }
        self.set(id::EVENT_FORMATS, Payload::Plain(out));
    }

    fn formats<T: AsRef<[u8]>>(&self, formats: &[T], out: &mut Vec<u8>) {
        out.extend(self.endian.from_u32(formats.len() as u32));
        for f in formats {
            out.extend(self.endian.from_u64(f.as_ref().len() as u64));
            out.extend_from_slice(f.as_ref());
        }
    }

    /// Text of `/proc/kallsyms`.
    pub fn kallsyms(&mut self, text: impl Into<Vec<u8>>) {
        self.sized_u32(id::KALLSYMS, text.into());
    }

    /// Text of `printk_formats`.
    pub fn printk_formats(&mut self, text: &[u8]) {
        self.sized_u32(id::PRINTK, text.to_vec());
    }

    /// Text of `saved_cmdlines`, as it was after the recording.
    pub fn cmdlines(&mut self, text: &[u8]) {
        self.sized_u64(id::CMDLINES, text);
    }

    /// The text that [`Metadata::cmdlines`] set, if it is there and not compressed.
    pub fn cmdlines_text(&self) -> Option<Vec<u8>> {
        match &self.get(id::CMDLINES)?.payload {
            Payload::Plain(bytes) => bytes.get(8..).map(<[u8]>::to_vec),
            Payload::Packed { .. } => None,
        }
    }

    /// Bytes of `/sys/kernel/btf/vmlinux`; left out of version 6 files, which have no place for it.
    ///
    /// The section holds nothing else: the size word that trace-cmd.dat.v7(5) names is in no file.
    pub fn btf(&mut self, bytes: &[u8]) {
        self.set(id::BTF_FILE, Payload::Plain(bytes.to_vec()));
    }

    /// Text of `/proc/modules`; left out of version 6 files.
    pub fn modules(&mut self, text: &[u8]) {
        self.set(id::MODULES_FILE, Payload::Plain(text.to_vec()));
    }

    fn sized_u32(&mut self, section: u16, mut text: Vec<u8>) {
        // More than 4 GiB of text cannot be said; what fits is kept.
        text.truncate(u32::MAX as usize);
        let size = self.endian.from_u32(text.len() as u32);
        text.splice(0..0, size);
        self.set(section, Payload::Plain(text));
    }

    fn sized_u64(&mut self, section: u16, text: &[u8]) {
        let mut out = Vec::with_capacity(text.len() + 8);
        out.extend(self.endian.from_u64(text.len() as u64));
        out.extend_from_slice(text);
        self.set(section, Payload::Plain(out));
    }

    /// Packs all sections that are plain, on as many threads as there are CPUs: a file of this codec takes them as they are then.
    ///
    /// # Errors
    /// [`Error::Compressed`] when the library gives up (out of memory); sections are lost then.
    pub fn pack(&mut self, codec: Codec) -> Result<()> {
        if codec == Codec::None {
            return Ok(());
        }
        let mut packers = Packers::new(codec, 0);
        let mut packed = Vec::new();
        for section in &mut self.sections {
            if let Payload::Plain(bytes) = &mut section.payload {
                packers.push(Job::Pack(std::mem::take(bytes)))?;
                packed.push(&mut section.payload);
            }
        }
        for payload in packed {
            let ended = || Error::Compressed { offset: 0, codec: codec.name(), why: "a worker thread ended".into() };
            let done = packers.pop().unwrap_or_else(|| Err(ended()))?;
            *payload = Payload::Packed { codec, bytes: done.bytes, unpacked: done.unpacked, offset: 0 };
        }
        Ok(())
    }

    /// Adds an option.
    pub fn option(&mut self, option: RawOption) {
        self.options.push(option);
    }

    /// The clock in brackets of the TRACECLOCK option; `local` without one.
    pub fn clock(&self) -> Vec<u8> {
        let text = self.options.iter().find(|o| o.id == id::TRACECLOCK).map(|o| o.data.as_slice());
        text.and_then(selected_clock).unwrap_or(b"local").to_vec()
    }
}

/// The word in brackets of a `trace_clock` text.
pub fn selected_clock(text: &[u8]) -> Option<&[u8]> {
    let start = text.iter().position(|&b| b == b'[')? + 1;
    let len = text.get(start..)?.iter().position(|&b| b == b']')?;
    text.get(start..start + len)
}
