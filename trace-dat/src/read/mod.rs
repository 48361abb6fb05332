//! Opens trace.dat files.

pub mod header;
pub mod option;
mod salvage;
pub mod section;
mod v6;
mod v7;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use crate::{
    Endian, Error, LongSize, Result,
    compress::Codec,
    decoder::{Decoder, DecoderParts},
    lazy::{FormatTexts, LazyFormats, LazyText},
    pages::Text,
    read::{
        header::{Header, PageLayout},
        option::{RawOption, TypedOption},
        section::{Part, Section},
    },
    ring::{
        feed::{ChunkTable, Data, Feed, Shared},
        merge::{Input, Merge},
        stream::CpuStream,
        subbuf::SubBufLayout,
    },
    source::Source,
    time::{Scale, TimeMap},
    warning::{Place, Warning, Warnings},
};

/// What lies in a file beside events and options. Each part is read when asked for.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    /// Text of `events/header_page`.
    pub header_page: Vec<u8>,
    /// Text of `events/header_event`.
    pub header_event: Vec<u8>,
    /// Event formats of the system `ftrace`.
    pub ftrace_events: Option<Part>,
    /// Event formats of all other systems.
    pub event_formats: Option<Part>,
    /// `/proc/kallsyms`, behind a 32-bit size.
    pub kallsyms: Option<Part>,
    /// `printk_formats`, behind a 32-bit size.
    pub printk: Option<Part>,
    /// `saved_cmdlines`, behind a 64-bit size.
    pub cmdlines: Option<Part>,
    /// `/sys/kernel/btf/vmlinux`, as it is. Version 7.
    pub btf: Option<Part>,
    /// `/proc/modules`, as it is. Version 7.
    pub modules: Option<Part>,
}

impl Metadata {
    /// The event formats, those of `ftrace` first.
    ///
    /// # Errors
    /// The first error; [`FormatTexts`] has what came before it.
    pub fn formats(&self) -> (FormatTexts, Result<()>) {
        let mut texts = FormatTexts::default();
        let read = |part: &Option<Part>, ftrace, texts: &mut FormatTexts| match part {
            Some(part) => part.read_formats(ftrace, texts),
            None => Ok(()),
        };
        // The large section is read first, so that its text is not copied; the formats of ftrace are the first ones all the same.
        let others = read(&self.event_formats, false, &mut texts);
        let count = texts.files.len();
        let of_ftrace = read(&self.ftrace_events, true, &mut texts);
        texts.files.rotate_left(count);
        (texts, of_ftrace.and(others))
    }
}

/// Where the data of one CPU lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuData {
    /// Number of the CPU.
    pub cpu: u32,
    /// Where its data begin in the file.
    pub offset: u64,
    /// Their size in the file, 0 when the CPU has none.
    pub size: u64,
    /// Whether they are compressed: a count of chunks, then the chunks.
    pub packed: bool,
}

/// The events of one trace instance.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// Name of the instance, empty for the top one.
    pub name: String,
    /// The trace clock, if the buffer names one.
    pub clock: Option<String>,
    /// Bytes of a sub-buffer.
    pub subbuf_size: u64,
    /// The CPUs. Version 6 names those without data too.
    pub cpus: Vec<CpuData>,
    /// Version 7: where the buffer's section lies. Version 6: where `flyrecord` stands.
    pub offset: u64,
}

impl Buffer {
    fn new(name: String, subbuf_size: u64, offset: u64) -> Buffer {
        Buffer { name, clock: None, subbuf_size, cpus: Vec::new(), offset }
    }

    /// Whether this is the top buffer.
    pub fn is_top(&self) -> bool {
        self.name.is_empty()
    }
}

/// What a version's reader finds.
#[derive(Debug)]
struct Parsed {
    meta: Metadata,
    layout: PageLayout,
    options: Vec<RawOption>,
    cpu_count: Option<u32>,
    buffers: Vec<Buffer>,
    texts: Vec<(String, Part)>,
}

impl Default for Parsed {
    fn default() -> Self {
        Parsed {
            meta: Metadata::default(),
            layout: PageLayout::parse(b"", LongSize::Eight),
            options: Vec::new(),
            cpu_count: None,
            buffers: Vec::new(),
            texts: Vec::new(),
        }
    }
}

/// How a file is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    threads: usize,
}

impl Default for OpenOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        OpenOptions { threads: cores.saturating_sub(2).min(4) }
    }
}

impl OpenOptions {
    /// The usual: compressed data are unpacked ahead by at most four threads, two fewer than there are cores (which walk and print).
    pub fn new() -> Self {
        Self::default()
    }

    /// So many threads unpack compressed data ahead of need; 0: the thread that needs them does it. They are started when needed.
    pub fn threads(mut self, n: usize) -> Self {
        self.threads = n.min(64);
        self
    }

    /// Opens a file.
    ///
    /// # Errors
    /// See [`TraceFile::open`].
    pub fn open(&self, path: impl AsRef<Path>) -> Result<TraceFile> {
        TraceFile::from_source(Source::open(path)?, self)
    }

    /// Opens a recording that did not come to its end: `description` is a trace file with everything but events, `raw` has
    /// for each buffer (empty name: the top one) and CPU the file with its sub-buffers. `name` stands for the path in messages.
    ///
    /// # Errors
    /// See [`TraceFile::open`].
    pub fn open_raw(
        &self,
        name: impl Into<PathBuf>,
        description: impl AsRef<Path>,
        raw: &[(String, u32, PathBuf)],
    ) -> Result<TraceFile> {
        let mut parts = vec![Source::open(description)?];
        for (_, _, path) in raw {
            parts.push(Source::open(path)?);
        }
        let sizes: Vec<u64> = parts.iter().map(Source::len).collect();
        let (joined, starts) = Source::join(name, parts);
        let mut file = TraceFile::from_source(joined, self)?;
        let parsed = &mut file.parsed;
        parsed.buffers.iter_mut().for_each(|b| b.cpus.clear());
        for (((buffer, cpu, _), offset), size) in raw.iter().zip(starts.iter().skip(1)).zip(sizes.iter().skip(1)) {
            let n = parsed.buffers.iter().position(|b| b.name == *buffer).unwrap_or_else(|| {
                let size = match parsed.layout.subbuf_size {
                    0 => file.header.page_size.into(),
                    n => n,
                };
                parsed.buffers.push(Buffer::new(buffer.clone(), size, 0));
                parsed.buffers.len() - 1
            });
            if let Some(b) = parsed.buffers.get_mut(n) {
                b.cpus.push(CpuData { cpu: *cpu, offset: *offset, size: *size, packed: false });
            }
        }
        parsed.buffers.sort_by_key(|b| !b.is_top());
        let highest = raw.iter().map(|r| r.1.saturating_add(1)).max().unwrap_or(0);
        parsed.cpu_count = Some(parsed.cpu_count.unwrap_or(0).max(highest));
        Ok(file)
    }

    /// Opens bytes in memory; `name` stands for the path in messages.
    ///
    /// # Errors
    /// See [`TraceFile::open`].
    pub fn open_bytes(&self, name: impl Into<PathBuf>, bytes: Vec<u8>) -> Result<TraceFile> {
        TraceFile::from_source(Source::from_bytes(name, bytes), self)
    }
}

/// CPUs that are believed; the kernel's limit is 8192.
pub(crate) const CPUS_MAX: u32 = 65536;

/// An open trace.dat file.
///
/// Opening reads the header and the tables only. Metadata are unpacked when first needed, events as they are walked over.
#[derive(Debug)]
pub struct TraceFile {
    header: Header,
    parsed: Parsed,
    options: Vec<TypedOption>,
    shared: Arc<Shared>,
    sections: OnceLock<Vec<Section>>,
    strings: OnceLock<Vec<u8>>,
}

impl TraceFile {
    /// Opens a file of version 6 or 7. A file that is damaged or cut off is opened as far as it goes; what is missing is
    /// told by [`TraceFile::take_warnings`].
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::NotTraceDat`], and what makes the header unreadable.
    pub fn open(path: impl AsRef<Path>) -> Result<TraceFile> {
        OpenOptions::new().open(path)
    }

    fn from_source(source: Source, how: &OpenOptions) -> Result<TraceFile> {
        let header = Header::read(&source)?;
        let warnings = Warnings::default();
        let parsed = match header.version {
            6 => v6::read(&source, &header, &warnings)?,
            _ => v7::read(&source, &header, &warnings)?,
        };
        let mut options = Vec::with_capacity(parsed.options.len());
        for o in &parsed.options {
            options.push(o.typed(header.endian, header.version).unwrap_or(TypedOption::Unknown(o.id)));
        }
        let shared = Shared::new(source, header.endian, header.codec, warnings, how.threads);
        Ok(TraceFile { header, parsed, options, shared, sections: OnceLock::new(), strings: OnceLock::new() })
    }

    /// The file's bytes.
    pub fn source(&self) -> &Source {
        &self.shared.source
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        self.shared.source.path()
    }

    /// The initial bytes.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Version of the file format: 6 or 7.
    pub fn version(&self) -> u32 {
        self.header.version
    }

    /// Byte order of the recording machine.
    pub fn endian(&self) -> Endian {
        self.header.endian
    }

    /// Width of a `long` in the recording machine's user space.
    pub fn long_size(&self) -> LongSize {
        self.header.long_size
    }

    /// Page size of the recording machine, in bytes.
    pub fn page_size(&self) -> u32 {
        self.header.page_size
    }

    /// How sub-buffers begin.
    pub fn page_layout(&self) -> PageLayout {
        self.parsed.layout
    }

    /// What lies in the file beside events and options.
    pub fn metadata(&self) -> &Metadata {
        &self.parsed.meta
    }

    /// All options as stored, unknown ones too, in the order of the file.
    pub fn raw_options(&self) -> &[RawOption] {
        &self.parsed.options
    }

    /// All options typed, one for each of [`TraceFile::raw_options`]. One that is damaged counts as unknown.
    pub fn options(&self) -> &[TypedOption] {
        &self.options
    }

    /// CPUs of the machine: the count in version 6, CPUCOUNT in version 7; without that, one more than the highest CPU with data.
    pub fn cpu_count(&self) -> u32 {
        self.parsed.cpu_count.unwrap_or(0)
    }

    /// The buffers with events, the top one first.
    pub fn buffers(&self) -> &[Buffer] {
        &self.parsed.buffers
    }

    /// Texts of latency tracers: name of the instance (empty for the top one) and text.
    pub fn latency_texts(&self) -> &[(String, Part)] {
        &self.parsed.texts
    }

    /// How much event data was read or unpacked so far, in bytes of sub-buffers: what a walk, a search by time or a look at the
    /// end cost. The headers of sub-buffers that a search looks at do not count.
    pub fn data_loaded(&self) -> u64 {
        self.shared.pool.made()
    }

    /// Warnings that came since the last call: at opening, and from streams.
    pub fn take_warnings(&self) -> Vec<Warning> {
        self.shared.warnings.take()
    }

    /// All warnings of this file.
    pub fn warnings(&self) -> &Warnings {
        &self.shared.warnings
    }

    /// Version 7: all sections, found by going from one to the next. Empty in version 6.
    pub fn sections(&self) -> &[Section] {
        self.sections.get_or_init(|| match self.header.version {
            6 => Vec::new(),
            _ => v7::scan(self.source(), &self.header),
        })
    }

    /// Version 7: the content of all strings sections, one behind the other.
    pub fn strings(&self) -> &[u8] {
        self.strings.get_or_init(|| {
            let mut all = Vec::new();
            for s in self.sections().iter().filter(|s| s.id == section::id::STRINGS) {
                match self.section_part(s).read() {
                    Ok(strings) => all.extend(strings),
                    Err(error) => {
                        let place = Place { offset: Some(s.offset), ..Place::default() };
                        self.shared.warnings.push(place, error, "names of sections");
                    }
                }
            }
            all
        })
    }

    /// Version 7: the description of a section.
    pub fn section_name(&self, s: &Section) -> Option<&[u8]> {
        let rest = self.strings().get(usize::try_from(s.desc).ok()?..)?;
        rest.split(|b| *b == 0).next()
    }

    /// The content of a section; for a buffer's section use its streams.
    pub fn section_part(&self, s: &Section) -> Part {
        Part::section(self.source(), self.header.endian, self.header.codec, "section", s)
    }

    /// The trace clock of the top buffer: of its BUFFER option, or of the TRACECLOCK option.
    pub fn clock(&self) -> Option<&str> {
        let buffer = self.buffers().iter().find(|b| b.is_top()).and_then(|b| b.clock.as_deref());
        buffer.or_else(|| {
            self.options.iter().find_map(|o| match o {
                TypedOption::TraceClock(text) => option::chosen_clock(text),
                _ => None,
            })
        })
    }

    /// The correction of times that the file itself asks for: TIME_SHIFT and TSC2NSEC, then DATE and OFFSET.
    ///
    /// `date`: whether DATE is applied (`report --nodate` does not).
    pub fn time_map(&self, date: bool) -> TimeMap {
        let mut map = TimeMap::default();
        for o in &self.options {
            match o {
                TypedOption::TimeShift(s) => map.shift = Some(Arc::new(s.clone())),
                TypedOption::Tsc2Nsec(t) => map.scale = Scale::from(*t),
                TypedOption::Date(text) if date => {
                    map.offset = map.offset.wrapping_add(c_number(text).wrapping_mul(1000));
                }
                TypedOption::Offset(text) => map.offset = map.offset.wrapping_add(c_number(text)),
                _ => {}
            }
        }
        map
    }

    /// A decoder of the file's events. Formats and tables are read when first needed.
    pub fn decoder(&self) -> Decoder {
        Decoder::new(self.decoder_parts())
    }

    /// What a decoder is made from, for those who want to change some of it.
    pub fn decoder_parts(&self) -> DecoderParts {
        let mut parts = DecoderParts::new(self.endian(), self.long_size(), self.page_size().into());
        let meta = &self.parsed.meta;
        let warnings = &self.shared.warnings;
        parts.kallsyms = lazy(&meta.kallsyms, warnings, "the kernel's symbols", Part::read_sized_lines);
        parts.printk = lazy(&meta.printk, warnings, "printk formats", |part, told| part.read_sized(4, told));
        parts.cmdlines = lazy(&meta.cmdlines, warnings, "names of processes", |part, told| part.read_sized(8, told));
        parts.btf = lazy(&self.btf(), warnings, "BTF", |part, _| part.read_text());
        let (meta, warnings) = (meta.clone(), warnings.clone());
        parts.formats = LazyFormats::Read(Box::new(move || {
            let (texts, result) = meta.formats();
            if let Err(error) = result {
                let part = meta.event_formats.as_ref().or(meta.ftrace_events.as_ref());
                let place = Place { offset: part.map(Part::offset), ..Place::default() };
                warnings.push(place, error, "event formats at this place");
            }
            Ok(texts)
        }));
        parts
    }

    /// The BTF section. In a file without compression no option points to it (the reference could not open such a file), so
    /// it is looked for among the sections.
    pub fn btf(&self) -> Option<Part> {
        self.parsed.meta.btf.clone().or_else(|| {
            let uncompressed = self.header.version >= 7 && self.header.codec == Codec::None;
            let mut sections = if uncompressed { self.sections().iter() } else { [].iter() };
            sections.find(|s| s.id == section::id::BTF).map(|s| self.section_part(s))
        })
    }

    /// How the sub-buffers of a buffer are laid out.
    ///
    /// # Errors
    /// [`Error::BadValue`] for a size that no sub-buffer has.
    pub fn layout(&self, buffer: &Buffer) -> Result<SubBufLayout> {
        let page = &self.parsed.layout;
        if !page.fits(buffer.subbuf_size) {
            let why = "is no size of a sub-buffer";
            return Err(Error::BadValue {
                what: "sub-buffer size of a buffer",
                offset: buffer.offset,
                value: buffer.subbuf_size,
                why,
            });
        }
        Ok(SubBufLayout {
            endian: self.header.endian,
            commit_size: page.commit_size,
            data_offset: page.data_offset as usize,
            size: buffer.subbuf_size as usize,
            old_format: page.old_format,
        })
    }

    /// The records of one CPU. `streams`: how many are read at the same time; they share the memory there is.
    ///
    /// # Errors
    /// See [`TraceFile::layout`].
    pub fn stream(&self, buffer: &Buffer, cpu: &CpuData, streams: usize) -> Result<CpuStream> {
        let layout = self.layout(buffer)?;
        let have = self.source().len().saturating_sub(cpu.offset);
        if cpu.size > have {
            let place =
                Place { offset: Some(cpu.offset), buffer: Some(buffer.name.clone()), cpu: Some(cpu.cpu), subbuf: None };
            let error = Error::Truncated { what: "event data", offset: cpu.offset, need: cpu.size, have };
            self.shared.warnings.push(place, error, "what lies beyond the end of the file");
        }
        let data = if cpu.size == 0 {
            Data::Plain { offset: cpu.offset, size: 0 }
        } else if cpu.packed {
            Data::Packed(Arc::new(ChunkTable::new(cpu.offset, cpu.size, layout.size)))
        } else {
            Data::Plain { offset: cpu.offset, size: cpu.size.min(have) }
        };
        let feed = Feed::new(self.shared.clone(), data, layout.size, streams);
        Ok(CpuStream::new(feed, layout, Arc::from(buffer.name.as_str()), cpu.cpu))
    }

    /// The records of all buffers and CPUs by time, corrected by `time`. An input's tag is the number of its buffer.
    pub fn records(&self, time: &TimeMap) -> Merge {
        Merge::new(self.inputs(time, |_, _| true))
    }

    /// The streams of the chosen buffers and CPUs, in the order of the file, to be merged. A stream's tag is the number of its buffer.
    ///
    /// A buffer that cannot be read is told to the warnings and left out.
    pub fn inputs(&self, time: &TimeMap, choose: impl Fn(&Buffer, u32) -> bool) -> Vec<Input> {
        self.inputs_of_many(1, time, choose)
    }

    /// As [`TraceFile::inputs`], for one of `merges` merges that are read at the same time; they share the memory there is.
    pub fn inputs_of_many(&self, merges: usize, time: &TimeMap, choose: impl Fn(&Buffer, u32) -> bool) -> Vec<Input> {
        let chosen = |b: &Buffer, c: &CpuData| c.size > 0 && choose(b, c.cpu);
        let streams = self.buffers().iter().map(|b| b.cpus.iter().filter(|c| chosen(b, c)).count()).sum::<usize>();
        let streams = streams * merges.max(1);
        let mut inputs = Vec::new();
        for (tag, buffer) in self.buffers().iter().enumerate() {
            for cpu in buffer.cpus.iter().filter(|c| chosen(buffer, c)) {
                match self.stream(buffer, cpu, streams) {
                    Ok(stream) => inputs.push(Input { stream, time: time.cpu(cpu.cpu), tag: tag as u32 }),
                    Err(error) => {
                        let place = Place { buffer: Some(buffer.name.clone()), ..Place::default() };
                        self.shared.warnings.push(place, error, "this buffer");
                        break;
                    }
                }
            }
        }
        inputs
    }
}

/// A text of the metadata, read when first needed; what is wrong with it, or that it is `lost`, is told to the warnings then.
fn lazy<T: Into<Text> + From<Vec<u8>>>(
    part: &Option<Part>,
    warnings: &Warnings,
    lost: &'static str,
    read: impl Fn(&Part, &mut dyn FnMut(Error)) -> Result<T> + Send + Sync + 'static,
) -> LazyText {
    let Some(part) = part.clone() else { return LazyText::None };
    let warnings = warnings.clone();
    let place = Place { offset: Some(part.offset()), ..Place::default() };
    LazyText::read(move || {
        let text = read(&part, &mut |error| warnings.push(place.clone(), error, ""));
        Ok(text.unwrap_or_else(|error| {
            warnings.push(place.clone(), error, lost);
            Vec::new().into()
        }))
    })
}

/// A number as C's `strtoull` with base 0 reads it: decimal, `0x` hexadecimal, `0` octal, with a sign. 0 when there is none.
pub fn c_number(text: &str) -> u64 {
    let text = text.trim_start();
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None if text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    let mut n = 0u64;
    for d in digits.chars().map_while(|c| c.to_digit(radix)) {
        n = n.saturating_mul(radix.into()).saturating_add(d.into());
    }
    if negative { n.wrapping_neg() } else { n }
}
