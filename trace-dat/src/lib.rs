//! Reads and writes `trace.dat` files of the Linux kernel's ftrace and turns their events into text.
//!
//! The crate knows bytes and never touches a kernel: it opens any machine's file on any machine, so no number
//! (page size, long size, byte order) is ever taken from the host.
//!
//! Records of all CPUs in the order of time:
//!
//! ```
//! use trace_dat::TraceFile;
//!
//! # fn main() -> trace_dat::Result<()> {
//! let path = "trace.dat";
//! # let path = "../fixtures/x86_64-7.2-syscalls.dat";
//! let file = TraceFile::open(path)?;
//! let decoder = file.decoder();
//! let mut records = file.records(&file.time_map(true));
//! while let Some(r) = records.next() {
//!     let record = r.record();
//!     let name = decoder.event_of(record.data).map_or("unknown", |e| e.name.as_str());
//!     println!("[{:03}] {}: {name}", record.cpu, r.ts);
//! }
//! for warning in file.take_warnings() {
//!     eprintln!("{warning}");
//! }
//! # Ok(())
//! # }
//! ```

// Any byte of a file may be wrong: what could panic on one is not allowed. The few indices that cannot be out of bounds say why.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::todo,
        clippy::indexing_slicing,
        clippy::string_slice
    )
)]

pub mod btf;
pub mod comm;
pub mod compress;
pub mod cursor;
pub mod decoder;
pub mod endian;
pub mod error;
pub mod filter;
pub mod format;
pub mod kallsyms;
pub mod lazy;
pub mod pages;
pub mod pen;
pub mod plain;
pub mod plugin;
pub mod print;
pub mod printk;
pub mod read;
pub mod ring;
pub mod short;
pub mod source;
pub mod time;
pub mod warning;
pub mod write;

pub use decoder::{Decoder, DecoderParts, PluginOption, PrintOptions};
pub use endian::{Endian, LongSize};
pub use error::{Error, Result};
pub use lazy::{FormatTexts, LazyFormats, LazyText};
pub use read::{OpenOptions, TraceFile};
pub use ring::record::{Lost, Record};
