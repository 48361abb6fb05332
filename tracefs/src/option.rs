//! Trace options: `options/NAME` and `trace_options`.

use crate::error::{Error, Result, nearest};
use crate::instance::Instance;

impl Instance {
    /// The options of this instance and whether each is on, in the order of `trace_options` (tracer options last).
    pub fn options(&self) -> Result<Vec<(String, bool)>> {
        let text = self.dir().read("trace_options")?;
        let mut options = Vec::new();
        for word in text.split_whitespace() {
            // `noirq-info` is `irq-info` off; but an option's own name may begin with "no".
            match word.strip_prefix("no") {
                Some(name) if !self.dir().exists(format!("options/{word}")) => options.push((name.to_owned(), false)),
                _ => options.push((word.to_owned(), true)),
            }
        }
        Ok(options)
    }

    /// True when the kernel has the option, in this instance and with its current tracer.
    pub fn has_option(&self, name: &str) -> bool {
        valid(name) && self.dir().exists(format!("options/{name}"))
    }

    /// Whether an option is on.
    pub fn option(&self, name: &str) -> Result<bool> {
        if !self.has_option(name) {
            return Err(self.no_option(name));
        }
        Ok(self.dir().read_number(format!("options/{name}"))? != 0)
    }

    /// Switches an option.
    ///
    /// # Errors
    /// [`Error::NoOption`] with the nearest names.
    pub fn set_option(&self, name: &str, on: bool) -> Result<()> {
        if !self.has_option(name) {
            return Err(self.no_option(name));
        }
        self.dir().write(format!("options/{name}"), if on { "1" } else { "0" })
    }

    /// Writes a word to `trace_options` as it is: `stacktrace`, `nostacktrace`.
    pub fn write_option(&self, word: &str) -> Result<()> {
        match self.dir().write("trace_options", word) {
            Err(Error::Refused { .. }) if !self.knows_option(word) => Err(self.no_option(word)),
            other => other,
        }
    }

    fn knows_option(&self, word: &str) -> bool {
        self.has_option(word) || word.strip_prefix("no").is_some_and(|w| self.has_option(w))
    }

    fn no_option(&self, name: &str) -> Error {
        let names = self.dir().list("options").unwrap_or_default();
        Error::NoOption { name: name.to_owned(), near: nearest(name, names.iter().map(String::as_str), 3) }
    }
}

fn valid(name: &str) -> bool {
    !name.is_empty() && !name.contains('/') && name != "." && name != ".."
}

#[cfg(test)]
mod tests {
    use crate::{Error, TraceFs};

    #[test]
    fn options() {
        let t = tempfile::tempdir().unwrap();
        std::fs::create_dir(t.path().join("options")).unwrap();
        for (n, v) in [("stacktrace", "0\n"), ("irq-info", "1\n"), ("nonsense", "1\n")] {
            std::fs::write(t.path().join("options").join(n), v).unwrap();
        }
        std::fs::write(t.path().join("trace_options"), "nostacktrace\nirq-info\nnonsense\n").unwrap();
        let top = TraceFs::at(t.path()).top();
        let all = top.options().unwrap();
        assert_eq!(all, [("stacktrace".into(), false), ("irq-info".into(), true), ("nonsense".into(), true)]);
        top.set_option("stacktrace", true).unwrap();
        assert!(top.option("stacktrace").unwrap());
        match top.set_option("stacktrac", true) {
            Err(Error::NoOption { near, .. }) => assert_eq!(near, ["stacktrace"]),
            other => panic!("{other:?}"),
        }
        assert!(!top.has_option("../trace_options"));
    }
}
