//! Everything that is known about the events of one machine: formats, symbols, names.

use regex::Regex;

use crate::{
    Endian, LongSize,
    btf::Btf,
    comm::Comms,
    format::{Event, EventTable},
    kallsyms::Kallsyms,
    lazy::{LazyFormats, LazyText},
    pen::Pen,
    plugin::PrintCx,
    printk::PrintkFormats,
};

/// What a [`Decoder`] is made from: the metadata of a trace file, or a live kernel's files.
#[derive(Debug)]
pub struct DecoderParts {
    /// Byte order of the records.
    pub endian: Endian,
    /// Width of a `long` in them.
    pub long_size: LongSize,
    /// Page size of the machine, in bytes.
    pub page_size: u64,
    /// The `format` files, those of the system `ftrace` too.
    pub formats: LazyFormats,
    /// `/proc/kallsyms`.
    pub kallsyms: LazyText,
    /// `printk_formats`.
    pub printk: LazyText,
    /// `saved_cmdlines`.
    pub cmdlines: LazyText,
    /// `/sys/kernel/btf/vmlinux`.
    pub btf: LazyText,
    /// How events shall be printed.
    pub options: PrintOptions,
}

impl DecoderParts {
    /// Parts without any text; the caller fills in what there is.
    pub fn new(endian: Endian, long_size: LongSize, page_size: u64) -> Self {
        DecoderParts {
            endian,
            long_size,
            page_size,
            formats: LazyFormats::None,
            kallsyms: LazyText::None,
            printk: LazyText::None,
            cmdlines: LazyText::None,
            btf: LazyText::None,
            options: PrintOptions::default(),
        }
    }
}

/// Value of a plugin option, as `report -O` takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginOption {
    /// The part before `:`: the alias that the plugin's options go by (`ftrace`, `fgraph`). `None`: the first that has the name.
    pub plugin: Option<String>,
    /// The option's name.
    pub name: String,
    /// The text behind `=`. `None` toggles the option.
    pub value: Option<String>,
}

/// How events are printed.
#[derive(Clone, Debug, Default)]
pub struct PrintOptions {
    /// All events as raw fields (`report -R`).
    pub raw: bool,
    /// Events whose name or system matches are printed as raw fields (`report -r RE`).
    pub raw_events: Vec<Regex>,
    /// No plugin at all, neither printers nor helper functions (`report -N`, `-L`).
    pub no_plugins: bool,
    /// Events whose name or system matches are printed without their plugin (`report -n RE`).
    pub no_plugin_events: Vec<Regex>,
    /// Plugin options in the order given (`report -O`).
    pub plugin_options: Vec<PluginOption>,
    /// Times inside an event's text with nanoseconds (`report -t`).
    pub nanoseconds: bool,
    /// Times inside an event's text as stored (`report --raw-ts`, or a clock that does not count time).
    pub raw_times: bool,
}

impl PrintOptions {
    /// The regular expression of `report -r` and `-n`: anchored, case does not matter.
    ///
    /// # Errors
    /// When `text` is no regular expression.
    pub fn event_regex(text: &str) -> Result<Regex, regex::Error> {
        regex::RegexBuilder::new(&format!("^(?:{text})$")).case_insensitive(true).build()
    }
}

/// Turns the bytes of records into fields and text.
///
/// One for each machine whose records are shown; it can be used by many threads at once. Texts are read and parsed when first needed.
#[derive(Debug)]
pub struct Decoder {
    endian: Endian,
    long_size: LongSize,
    page_size: u64,
    table: EventTable,
    kallsyms: Kallsyms,
    printk: PrintkFormats,
    comms: Comms,
    btf: Btf,
    options: PrintOptions,
}

impl Decoder {
    /// Puts the parts together; reads nothing yet.
    pub fn new(parts: DecoderParts) -> Self {
        let DecoderParts { endian, long_size, page_size, formats, kallsyms, printk, cmdlines, btf, options } = parts;
        Decoder {
            endian,
            long_size,
            page_size,
            table: EventTable::new(formats),
            kallsyms: Kallsyms::new(kallsyms),
            printk: PrintkFormats::new(printk.into_reader()),
            comms: Comms::new(cmdlines.into_reader()),
            btf: Btf::new(btf),
            options,
        }
    }

    /// Byte order of the records.
    #[inline]
    pub fn endian(&self) -> Endian {
        self.endian
    }

    /// Width of a `long` in the records.
    #[inline]
    pub fn long_size(&self) -> LongSize {
        self.long_size
    }

    /// Page size of the machine, in bytes.
    pub fn page_size(&self) -> u64 {
        self.page_size
    }

    /// How events are printed.
    #[inline]
    pub fn options(&self) -> &PrintOptions {
        &self.options
    }

    /// The event with this id, whose format is parsed now if that was not done before.
    #[inline]
    pub fn event(&self, id: u16) -> Option<&Event> {
        self.table.event(self, id)
    }

    /// The event of a record: by `common_type`, its first two bytes.
    #[inline]
    pub fn event_of(&self, data: &[u8]) -> Option<&Event> {
        let id = self.endian.u16([*data.first()?, *data.get(1)?]);
        self.event(id)
    }

    /// All events in the order of the file; parses every format. Those that cannot be parsed are left out.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.table.events(self)
    }

    /// The first event of this name, in this system if one is given.
    pub fn find_event(&self, system: Option<&str>, name: &str) -> Option<&Event> {
        self.table.find(self, system, name)
    }

    /// The kernel's symbols.
    #[inline]
    pub fn symbols(&self) -> &Kallsyms {
        &self.kallsyms
    }

    /// Format texts of `trace_printk`, and other strings by address.
    #[inline]
    pub fn printk(&self) -> &PrintkFormats {
        &self.printk
    }

    /// Names of processes.
    #[inline]
    pub fn comms(&self) -> &Comms {
        &self.comms
    }

    /// Types of the kernel, `None` when the trace has none.
    pub fn btf(&self) -> Option<&Btf> {
        self.btf.is_present().then_some(&self.btf)
    }

    /// For printers of function calls with arguments, which need the name of the function first and by that name its types: when neither
    /// symbols nor types were read yet, both are read at the same time.
    #[inline]
    pub(crate) fn read_functions(&self) {
        if !self.kallsyms.is_read() && self.btf.is_present() && self.endian == Endian::Little {
            std::thread::scope(|scope| {
                let thread = std::thread::Builder::new().name("types".into());
                // Without the thread they are read when they are needed.
                let _types = thread.spawn_scoped(scope, || self.btf.function(&[]).is_some());
                self.kallsyms.is_empty()
            });
        }
    }

    /// The last column of a record: by its plugin, its print fmt, or as raw fields.
    pub fn print_info(&self, cx: &PrintCx<'_>, out: &mut Vec<u8>) {
        if std::ptr::eq(cx.dec, self) {
            crate::print::info(cx, out);
        } else {
            crate::print::info(&PrintCx { dec: self, ..*cx }, out);
        }
    }

    /// As [`Decoder::print_info`], for the usual events whose text is short. False, with nothing written, for others.
    #[inline]
    pub fn write_info(&self, cx: &PrintCx<'_>, pen: &mut Pen<'_>) -> bool {
        std::ptr::eq(cx.dec, self) && crate::print::write(cx, pen)
    }

    /// Whether [`Decoder::write_info`] writes nothing but printable ASCII without quotation marks and backslashes for the records of an
    /// event. False when it is not known.
    pub fn writes_plain_text(&self, event: &Event) -> bool {
        crate::print::is_plain(self, event)
    }

    /// Whether the last column of an event's records is made of the record's bytes and of nothing else: the same bytes give the same
    /// text. False when it is not known to be.
    pub fn text_is_of_record(&self, event: &Event) -> bool {
        crate::print::text_is_of_record(self, event)
    }

    /// The last column of a record by its print fmt, without its plugin.
    pub fn print_fmt(&self, cx: &PrintCx<'_>, out: &mut Vec<u8>) {
        crate::print::pretty(&PrintCx { dec: self, ..*cx }, out);
    }

    /// The fields of a record as ` name=value`, as `report -R` shows them.
    pub fn print_raw(&self, cx: &PrintCx<'_>, out: &mut Vec<u8>) {
        crate::print::raw_fields(&PrintCx { dec: self, ..*cx }, out);
    }

    /// Looks at a record before it is printed when its event is shown as raw fields.
    ///
    /// An array of bytes is shown as text until one of its records holds something else; from that record on it is shown as
    /// bytes, as the reference does. The sequential pass calls this for each shown record in output order, so that printing
    /// can go on in parallel. Without it every thread decides by the records that it has seen.
    #[inline]
    pub fn visit(&self, event: &Event, data: &[u8], seq: u64) {
        if crate::print::prints_raw(self, event) {
            crate::print::visit_raw(self, event, data, seq);
        }
    }

    /// When the text of an event that is not printed as raw fields shows bytes behind its records.
    pub fn behind(&self, event: &Event) -> crate::plugin::Behind {
        crate::print::behind(self, event)
    }

    /// Whether records of an event may be printed as raw fields: because it was asked for, or its print fmt cannot be understood.
    ///
    /// These records need [`PrintCx::reach`], and [`Decoder::visit`] where they are printed on many threads.
    pub fn may_print_raw(&self, event: &Event) -> bool {
        crate::print::may_print_raw(self, event)
    }

    /// Why the print fmt of an event cannot be understood, so that its records are printed as raw fields; `None`: it can.
    pub fn print_fmt_error<'a>(&self, event: &'a Event) -> Option<&'a str> {
        crate::print::failure(self, event)
    }

    /// Compiles every format: `system:event` and the reason of each that cannot be read, or is printed as raw fields.
    pub fn check_events(&self) -> Vec<(String, String)> {
        let mut all = self.table.broken(self);
        for e in self.events() {
            if let Some(why) = self.print_fmt_error(e) {
                all.push((format!("{}:{}", e.system, e.name), why.to_owned()));
            }
        }
        all
    }
}
