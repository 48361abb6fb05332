//! Standard output and error that never pass a trace's control bytes to a terminal.

use std::io::{self, IsTerminal, StderrLock, StdoutLock, Write};

use crate::output::color;

/// A writer that makes control bytes visible when it leads to a terminal; anywhere else bytes pass as they are.
///
/// Names of processes, instances and files, and the strings of events, are chosen by whoever was traced or wrote the file.
#[derive(Debug)]
pub struct Guard<W> {
    inner: W,
    armed: bool,
}

/// Standard output behind a guard.
pub fn stdout() -> Guard<StdoutLock<'static>> {
    Guard::new(io::stdout().lock(), io::stdout().is_terminal())
}

/// Standard error behind a guard: messages quote what a file says.
pub fn stderr() -> Guard<StderrLock<'static>> {
    Guard::new(io::stderr().lock(), io::stderr().is_terminal())
}

impl<W: Write> Guard<W> {
    /// A guard before `inner`, which is a terminal or not.
    pub fn new(inner: W, terminal: bool) -> Self {
        Guard { inner, armed: terminal }
    }
}

impl<W: Write> Write for Guard<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.armed {
            return self.inner.write(bytes);
        }
        let mut text = bytes.to_vec();
        color::disarm(&mut text, 0);
        self.inner.write_all(&text)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_terminal_is_guarded() {
        for (terminal, want) in [(true, &b"a\\x1b[31m\n"[..]), (false, b"a\x1b[31m\n")] {
            let mut g = Guard::new(Vec::new(), terminal);
            g.write_all(b"a\x1b[31m\n").unwrap();
            assert_eq!(g.inner, want);
        }
    }
}
