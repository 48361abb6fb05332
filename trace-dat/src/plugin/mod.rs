//! Events with a look of their own, one file per event family, and what depends on other records.

mod fgraph;
mod function;
mod futex;
mod helpers;
mod hrtimer;
mod kmem;
mod kvm;
mod mac80211;
pub mod options;
mod sched;
pub mod seq;
pub(crate) mod text;
mod tlb;

use crate::{Decoder, Record, format::Event, pen::Pen};

/// Prints the last column of one event; made once per event, when its first record is printed.
///
/// A printer resolves field positions and tables when it is made, so that printing does not search or allocate.
pub trait EventPrinter: Send + Sync + std::fmt::Debug {
    /// Appends the text of the record to `out`. Never fails: what cannot be printed becomes raw fields or a note.
    fn print(&self, cx: &PrintCx<'_>, out: &mut Vec<u8>);

    /// As [`EventPrinter::print`], where it is known beforehand that the text has room. False, with nothing written, where not.
    fn write(&self, _cx: &PrintCx<'_>, _pen: &mut Pen<'_>) -> bool {
        false
    }

    /// Whether no text of this printer has a NUL in it, which would end it. Asked once for each event.
    fn is_free_of_nul(&self) -> bool {
        false
    }

    /// Whether [`EventPrinter::write`] writes nothing but printable ASCII without quotation marks and backslashes, and names of symbols.
    /// Asked once for each event.
    fn writes_symbols(&self) -> bool {
        false
    }

    /// Whether the text is made of the record's bytes (not of those behind it) and of the trace's tables, and of nothing else, so that the
    /// same bytes give the same text. Asked once for each event.
    fn is_of_record(&self) -> bool {
        false
    }
}

/// A record with all that its text may depend on.
#[derive(Clone, Copy, Debug)]
pub struct PrintCx<'a> {
    /// Formats, symbols, names of the record's machine.
    pub dec: &'a Decoder,
    /// The record's event.
    pub event: &'a Event,
    /// The record.
    pub rec: Record<'a>,
    /// The record's bytes with what lies behind them in its block (the rest of the sub-buffer, then the next ones); only the record's bytes where that is not known.
    ///
    /// A field that is declared longer than what was recorded, as the array of a short `kernel_stack`, shows these bytes.
    pub reach: &'a [u8],
    /// Corrected time of the record, in nanoseconds unless the clock counts something else.
    pub ts: u64,
    /// What other records say about this one.
    pub note: Note<'a>,
    /// Position of the record in the output: names learnt from events count only from later positions on.
    pub seq: u64,
}

/// When the text of an event's records shows bytes that lie behind them, so that it needs [`PrintCx::reach`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Behind {
    /// Never.
    Never,
    /// Where a text has no NUL: only of records whose last byte is not 0.
    WithoutNul,
    /// It depends on lengths in the record.
    Lengths,
}

/// What other records say about a record, decided in the one sequential pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct Note<'a> {
    /// Nesting level of a function event.
    pub indent: u32,
    /// The `funcgraph_exit` record that directly follows a `funcgraph_entry` and is printed with it.
    pub leaf_exit: Option<Record<'a>>,
}

/// Whether an event may be printed by its plugin: not with `-R`, `-N`, `-L`, nor when `-r` or `-n` names the event or its system.
pub fn plugin_active(dec: &Decoder, event: &Event) -> bool {
    let options = dec.options();
    let named = |list: &[regex::Regex]| list.iter().any(|r| r.is_match(&event.name) || r.is_match(&event.system));
    !options.raw && !options.no_plugins && !named(&options.raw_events) && !named(&options.no_plugin_events)
}

/// The printer of an event that has a look of its own; `None`: its print fmt is used.
pub fn printer_for(dec: &Decoder, event: &Event) -> Option<Box<dyn EventPrinter>> {
    if !plugin_active(dec, event) {
        return None;
    }
    let options = dec.options();
    Some(match (event.system.as_str(), event.name.as_str()) {
        ("ftrace", "function" | "func_repeats") => Box::new(function::Function::new(event, options)),
        ("ftrace", "kernel_stack") => Box::new(function::KernelStack::new(event, options)),
        ("ftrace", "raw_data") => Box::new(function::RawData::new(event)),
        ("ftrace", "funcgraph_entry" | "fgraph_retaddr_entry") => Box::new(fgraph::Entry::new(dec, event)),
        ("ftrace", "funcgraph_exit") => Box::new(fgraph::ExitLine::new(event, options)),
        ("sched", "sched_switch") => Box::new(sched::Switch::new(event)),
        ("sched", "sched_wakeup" | "sched_wakeup_new") => Box::new(sched::Wakeup::new(event)),
        (
            "kmem",
            "kfree" | "kmalloc" | "kmalloc_node" | "kmem_cache_alloc" | "kmem_cache_alloc_node" | "kmem_cache_free",
        ) => Box::new(kmem::CallSite::new(event)),
        ("timer", "hrtimer_start" | "hrtimer_expire_entry") => Box::new(hrtimer::Hrtimer::new(event)),
        ("tlb", "tlb_flush") => Box::new(tlb::TlbFlush::new(event)),
        ("syscalls", "sys_enter_futex") => Box::new(futex::Futex::new(event)?),
        ("kvm", "kvm_exit") => Box::new(kvm::Exit::new(event)),
        ("kvm", "kvm_entry") => Box::new(kvm::Entry::new(event)),
        ("kvm", "kvm_emulate_insn") => Box::new(kvm::EmulateInsn::new(event)),
        ("kvm", "kvm_nested_vmexit" | "kvm_nested_vmexit_inject") => Box::new(kvm::NestedExit::new(event)),
        (
            "kvmmmu",
            "kvm_mmu_get_page"
            | "kvm_mmu_sync_page"
            | "kvm_mmu_unsync_page"
            | "kvm_mmu_zap_page"
            | "kvm_mmu_prepare_zap_page",
        ) => Box::new(kvm::MmuPage::new(event)),
        ("mac80211", "drv_bss_info_changed") => Box::new(mac80211::BssInfoChanged::new(event)),
        _ => return None,
    })
}

/// The helper function of this name that print formats may call.
pub fn helper(name: &str) -> Option<&'static crate::print::Helper> {
    helpers::HELPERS.iter().find(|h| h.name == name)
}
