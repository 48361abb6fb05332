//! uprobes and uretprobes: `uprobe_events`. `Documentation/trace/uprobetracer.rst`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use object::{Object, ObjectSegment, ObjectSymbol};

use super::{DynEvent, ProbeArg, cut, fmt_args, parse_args};
use crate::error::{Error, Result};

/// A probe at a place in a program or library, or at the return of a function there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uprobe {
    /// At the return of the function.
    pub is_return: bool,
    /// The event system, `uprobes` by default.
    pub group: String,
    /// The event's name.
    pub name: String,
    /// The file, as absolute path.
    pub path: PathBuf,
    /// Place in the file, as written behind the colon: `0x1234`, with `(0x5678)` the reference counter of a semaphore
    /// (since Linux 4.20).
    pub offset: String,
    /// The event's fields.
    pub args: Vec<ProbeArg>,
}

impl Uprobe {
    /// A uprobe at an offset of a file.
    pub fn new(path: impl Into<PathBuf>, offset: u64) -> Uprobe {
        let path = path.into();
        let base = path.file_name().and_then(|n| n.to_str()).unwrap_or("probe").to_owned();
        let clean: String = base.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        Uprobe {
            is_return: false,
            group: "uprobes".into(),
            name: format!("p_{clean}_{offset:#x}"),
            path,
            // Padded to the width of a pointer, as the kernel shows it.
            offset: format!("{:#0width$x}", offset, width = 2 + 2 * size_of::<usize>()),
            args: Vec::new(),
        }
    }

    /// A uprobe at a function, found in the file's symbol tables (also those of a stripped program: `.dynsym`).
    ///
    /// # Errors
    /// [`Error::Invalid`] when the file is no ELF file or has no such function.
    pub fn at_symbol(path: impl Into<PathBuf>, symbol: &str) -> Result<Uprobe> {
        let path = path.into();
        let offset = symbol_offset(&path, symbol)?;
        let mut probe = Uprobe::new(path, offset);
        probe.name = super::default_name(symbol);
        Ok(probe)
    }

    /// The same at the return of the function.
    pub fn ret(mut self) -> Uprobe {
        self.is_return = true;
        self
    }

    /// The same in another group and under another name.
    pub fn named(mut self, group: impl Into<String>, name: impl Into<String>) -> Uprobe {
        self.group = group.into();
        self.name = name.into();
        self
    }

    /// The same with one more field, as `name=fetch:type`.
    pub fn arg(mut self, text: &str) -> Result<Uprobe> {
        self.args.push(text.parse()?);
        Ok(self)
    }
}

impl fmt::Display for Uprobe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = if self.is_return { 'r' } else { 'p' };
        write!(f, "{letter}:{}/{} {}:{}", self.group, self.name, self.path.display(), self.offset)?;
        fmt_args(f, &self.args)
    }
}

impl FromStr for Uprobe {
    type Err = Error;

    fn from_str(line: &str) -> Result<Uprobe> {
        let l = cut(line, "pr", "uprobes")?;
        let (path, offset) = l.place.rsplit_once(':').ok_or_else(|| Error::Syntax {
            what: "a uprobe's place is FILE:OFFSET".into(),
            text: line.to_owned(),
            at: line.find(l.place).unwrap_or(0),
        })?;
        Ok(Uprobe {
            is_return: l.letter == b'r',
            group: l.group,
            name: l.name,
            path: PathBuf::from(path),
            offset: offset.to_owned(),
            args: parse_args(&l.args)?,
        })
    }
}

impl From<Uprobe> for DynEvent {
    fn from(p: Uprobe) -> DynEvent {
        DynEvent::Uprobe(p)
    }
}

/// Offset of a function in its file: its address less that of the segment it lies in, plus where that begins.
fn symbol_offset(path: &Path, symbol: &str) -> Result<u64> {
    let bad = |e: &dyn fmt::Display| Error::Invalid(format!("{}: {e}", path.display()));
    let file = std::fs::File::open(path).map_err(|e| Error::io("open", path, e))?;
    let data = object::ReadCache::new(file);
    let elf = object::File::parse(&data).map_err(|e| bad(&e))?;
    let address = elf
        .symbols()
        .chain(elf.dynamic_symbols())
        .find(|s| s.is_definition() && s.name() == Ok(symbol))
        .map(|s| s.address())
        .ok_or_else(|| bad(&format!("has no function {symbol:?} in its symbol tables")))?;
    elf.segments()
        .find_map(|s| {
            let into = address.checked_sub(s.address())?;
            let (start, len) = s.file_range();
            (into < len).then(|| start.checked_add(into)).flatten()
        })
        .ok_or_else(|| bad(&format!("{symbol:?} lies outside the file")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_symbol() {
        // This very test program.
        let me = std::env::current_exe().unwrap();
        let p = Uprobe::at_symbol(&me, "main").unwrap().arg("a=%di").unwrap();
        assert!(p.to_string().starts_with(&format!("p:uprobes/main {}:0x", me.display())), "{p}");
        assert!(u64::from_str_radix(&p.offset[2..], 16).unwrap() < std::fs::metadata(&me).unwrap().len());
        let e = Uprobe::at_symbol(&me, "no_such_function_here").unwrap_err().to_string();
        assert!(e.contains("no_such_function_here"), "{e}");
        assert!(Uprobe::at_symbol("/proc/version", "x").is_err());
        assert_eq!(p.clone().ret().to_string().as_bytes()[0], b'r');
    }
}
