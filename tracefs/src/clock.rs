//! `trace_clock`.

use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::journal::bracketed;

impl Instance {
    /// The clock in use: the word in brackets of `trace_clock`. `local` on kernels without the file.
    pub fn clock(&self) -> Result<String> {
        let text = self.dir().read("trace_clock")?;
        bracketed(&text).ok_or_else(|| Error::Text {
            path: self.file("trace_clock"),
            text: text.trim_end().to_owned(),
            expected: "one clock in brackets",
        })
    }

    /// The clocks that the kernel has.
    pub fn clocks(&self) -> Result<Vec<String>> {
        let text = self.dir().read("trace_clock")?;
        Ok(text.split_whitespace().map(|w| w.trim_matches(['[', ']']).to_owned()).collect())
    }

    /// Sets the clock. This empties the buffer.
    ///
    /// # Errors
    /// [`Error::NoClock`] when the kernel does not have it.
    pub fn set_clock(&self, name: &str) -> Result<()> {
        let done = self.dir().write("trace_clock", name);
        match done {
            Err(Error::Refused { .. }) => {
                let available = self.clocks()?;
                if available.iter().any(|c| c == name) {
                    done
                } else {
                    Err(Error::NoClock { name: name.to_owned(), available })
                }
            }
            other => other,
        }
    }

    /// `timestamp_mode`: `delta` or `absolute` (since Linux 4.17); `None` before.
    pub fn timestamp_mode(&self) -> Result<Option<String>> {
        match self.dir().read("timestamp_mode") {
            Err(e) if e.is_missing() => Ok(None),
            other => Ok(bracketed(&other?)),
        }
    }
}
