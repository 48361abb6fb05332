//! Controls the Linux kernel's tracefs. It knows the kernel interface and never a file format.
//!
//! [`TraceFs`] is where tracefs is mounted; it gives [`Instance`]s, and everything else hangs off an instance:
//! tracers, options, clocks, buffers, events with filters and triggers, function and process filters, raw data per CPU.
//! Feature questions are answered from the kernel's own files, never from its version.
//!
//! With a [`Journal`] each write is noted first and can be undone, also by another process after a crash.
//!
//! ```
//! use tracefs::{EventTarget, TraceFs};
//!
//! /// How often the scheduler switched on CPU 0 in a tenth of a second.
//! fn switches() -> tracefs::Result<u64> {
//!     let fs = TraceFs::find()?; // mounts tracefs where it is not
//!     let buffer = fs.create_instance("switches")?; // a ring buffer of our own
//!     let event = EventTarget::Event("sched".into(), "sched_switch".into());
//!     buffer.enable(&event, true)?;
//!     std::thread::sleep(std::time::Duration::from_millis(100));
//!     buffer.enable(&event, false)?;
//!     let stats = buffer.stats(0)?;
//!     buffer.remove()?;
//!     Ok(stats.entries.unwrap_or(0))
//! }
//!
//! match switches() {
//!     Ok(n) => println!("{n} switches"),
//!     Err(e) => println!("{e}"), // names the file and says what to do: "... run as root, or ..."
//! }
//! ```
//!
//! What is not said to be younger is there since Linux 2.6.31: tracers, options, events with filters, `trace_pipe` and raw data per
//! CPU. Each type says which kernel brought its file; a file that is missing is [`Error::Unsupported`], which says it too.

#![deny(unsafe_code)]
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

mod buffer;
mod clock;
mod cmdlines;
mod cpu;
mod cpumask;
pub mod dynevent;
mod error;
mod event;
pub mod event_filter;
mod file;
mod format;
mod func_filter;
pub mod glob;
pub mod hist;
mod instance;
pub mod journal;
mod marker;
mod mmap;
mod option;
mod pid_filter;
mod root;
mod snapshot;
pub mod sql;
mod stack;
pub mod state;
pub mod synth;
mod trace_pipe;
mod tracer;
mod trigger;

pub use buffer::{BufferSize, Stats};
pub use cpu::{CpuReader, StopHandle, Wait, subbuf_size_of};
pub use cpumask::CpuSet;
pub use dynevent::{DynEvent, DynEventKind};
pub use error::{Error, Result, nearest};
pub use event::{EnableState, EventTarget};
pub use file::{ControlFile, Dir, newest_entry};
pub use format::{EventField, EventFormat};
pub use func_filter::{FuncList, FuncPattern};
pub use hist::Hist;
pub use instance::Instance;
pub use journal::Journal;
pub use marker::{Marker, RawMarker};
pub use mmap::{MapMeta, MappedCpu, MappedSubbuf, TimeConversion, time_conversion, time_conversion_of_all};
pub use pid_filter::PidList;
pub use root::{DEBUG_DIR, TRACING_DIR, TraceFs, debug_dir};
pub use snapshot::SnapshotAction;
pub use sql::Sql;
pub use stack::StackTracer;
pub use state::Settings;
pub use synth::Synth;
pub use trace_pipe::TracePipe;
pub use tracer::is_latency_tracer;
pub use trigger::{Trigger, TriggerAction};
