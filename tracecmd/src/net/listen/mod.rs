//! The listener: receives recordings of any number of machines at once, driven by one poll loop.
//!
//! Each client is a state machine with a deadline for each state and a budget of CPUs, files and bytes. Whatever a client
//! does costs its own recording only; what came until then becomes a file.

mod client;
mod data;
mod finish;
mod server;
mod socket;

use std::{fs::File, io, os::unix::fs::OpenOptionsExt, path::Path};

pub use client::Stage;
pub use data::{Counts, Layout, Peer};
pub use finish::{Finished, Job};
pub use server::{Config, Listen, Server, TlsConfig};
pub use socket::{accept, data_listener, tcp_listener, vsock_listener};

/// Makes a new file that only its owner reads; a link or an existing file of the name is an error.
pub(crate) fn new_file(path: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)
}
