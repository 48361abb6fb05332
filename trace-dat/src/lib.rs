//! Reads and writes `trace.dat` files of the Linux kernel's ftrace and turns their events into text.
//!
//! The crate knows bytes and never touches a kernel: it opens any machine's file on any machine, so no number
//! (page size, long size, byte order) is ever taken from the host.

pub mod btf;
pub mod comm;
pub mod compress;
pub mod decoder;
pub mod endian;
pub mod error;
pub mod filter;
pub mod format;
pub mod kallsyms;
pub mod lazy;
pub mod plugin;
pub mod print;
pub mod printk;
pub mod ring;
pub mod write;

pub use decoder::{Decoder, DecoderParts, PluginOption, PrintOptions};
pub use endian::{Endian, LongSize};
pub use error::{Error, Result};
pub use lazy::{FormatTexts, LazyFormats, LazyText};
pub use ring::record::{Lost, Record};
