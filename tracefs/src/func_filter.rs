//! Function filters: `set_ftrace_filter`, `set_ftrace_notrace`, `set_graph_function`, `set_graph_notrace`.

use regex::Regex;

use crate::error::{Error, Result};
use crate::glob;
use crate::instance::Instance;

/// A list of functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FuncList {
    /// `set_ftrace_filter`: only these are traced.
    Filter,
    /// `set_ftrace_notrace`: these are not traced.
    Notrace,
    /// `set_graph_function`: function_graph begins at these.
    Graph,
    /// `set_graph_notrace`: function_graph leaves these and what they call out (since Linux 3.14).
    GraphNotrace,
}

impl FuncList {
    /// Name of its control file.
    pub fn file(self) -> &'static str {
        match self {
            FuncList::Filter => "set_ftrace_filter",
            FuncList::Notrace => "set_ftrace_notrace",
            FuncList::Graph => "set_graph_function",
            FuncList::GraphNotrace => "set_graph_notrace",
        }
    }
}

/// Which functions are meant: a glob or a regex, possibly within a module.
#[derive(Clone, Debug)]
pub struct FuncPattern {
    text: String,
    module: Option<String>,
    regex: Option<Regex>,
}

impl FuncPattern {
    /// A text of letters, digits and `_ * ? .` only is a glob for the whole name (the dot is itself); any other text
    /// is an extended regex that may match anywhere in the name.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the regex does not compile.
    pub fn new(text: &str, module: Option<&str>) -> Result<FuncPattern> {
        let is_glob = text.chars().all(|c| c.is_ascii_alphanumeric() || "_*?.".contains(c));
        let regex = match is_glob {
            true => None,
            false => Some(
                Regex::new(text)
                    .map_err(|e| Error::Invalid(format!("{text:?} is neither a glob nor a regular expression: {e}")))?,
            ),
        };
        Ok(FuncPattern { text: text.to_owned(), module: module.map(str::to_owned), regex })
    }

    /// All functions of a module.
    pub fn module(name: &str) -> FuncPattern {
        FuncPattern { text: "*".into(), module: Some(name.to_owned()), regex: None }
    }

    /// Whether a line of `available_filter_functions` (`name` or `name [module]`) matches.
    pub fn matches(&self, line: &str) -> bool {
        let (name, module) = split_line(line);
        if let Some(want) = &self.module {
            // The kernel treats `-` and `_` in module names as the same.
            let same = module.is_some_and(|m| m == want || m.replace('-', "_") == want.replace('-', "_"));
            if !same {
                return false;
            }
        }
        match &self.regex {
            Some(re) => re.is_match(name),
            None => glob::matches(&self.text, name),
        }
    }

    /// The text for the kernel itself to match: `name`, `name:mod:module`.
    pub fn text(&self) -> String {
        match &self.module {
            Some(m) => format!("{}:mod:{m}", self.text),
            None => self.text.clone(),
        }
    }

    /// True when the kernel would understand the text the same way.
    fn is_glob(&self) -> bool {
        self.regex.is_none()
    }
}

fn split_line(line: &str) -> (&str, Option<&str>) {
    let (name, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    (name, rest.trim().strip_prefix('[').and_then(|r| r.split(']').next()))
}

impl Instance {
    /// The lines of `available_filter_functions`, `name` or `name [module]`.
    pub fn available_functions(&self) -> Result<Vec<String>> {
        Ok(self.root().dir().read("available_filter_functions")?.lines().map(str::to_owned).collect())
    }

    /// The names in `available_filter_functions` that match.
    pub fn matching_functions(&self, pattern: &FuncPattern) -> Result<Vec<String>> {
        let text = self.root().dir().read("available_filter_functions")?;
        Ok(text.lines().filter(|l| pattern.matches(l)).map(str::to_owned).collect())
    }

    /// Puts functions on `set_ftrace_filter` or `set_ftrace_notrace`, or adds them (`append`).
    ///
    /// The names are matched here and **line numbers** of `available_filter_functions` are written, which is much
    /// faster in the kernel than names (since Linux 5.1). Where the kernel refuses numbers, or does not let us read its
    /// list, the text itself is written, with `:mod:MODULE`. The graph lists know neither numbers nor modules nor regexes:
    /// they get the text of a glob, else each name.
    ///
    /// # Errors
    /// [`Error::NoFunction`] for a pattern that matches nothing. The list is not touched then.
    pub fn set_functions(&self, list: FuncList, patterns: &[FuncPattern], append: bool) -> Result<()> {
        if patterns.is_empty() {
            return if append { Ok(()) } else { self.dir().clear(list.file()) };
        }
        let mut indexes = Vec::new();
        if matches!(list, FuncList::Filter | FuncList::Notrace) {
            indexes = self.indexes(patterns)?;
        }
        let names = match list {
            FuncList::Graph | FuncList::GraphNotrace => self.graph_names(patterns)?,
            FuncList::Filter | FuncList::Notrace => Vec::new(),
        };
        let mut file = self.dir().open_write(list.file(), !append)?;
        for (i, pattern) in patterns.iter().enumerate() {
            if let Some(names) = names.get(i).filter(|n| !n.is_empty()) {
                for name in names {
                    file.write(&format!("{name} "))?;
                }
                continue;
            }
            if let Some((first, others)) = indexes.get(i).and_then(|n| n.split_first()) {
                match file.write(&format!("{first} ")) {
                    Ok(()) => {
                        for chunk in others.chunks(500) {
                            let text: String = chunk.iter().map(|n| format!("{n} ")).collect();
                            file.write(&text)?;
                        }
                        continue;
                    }
                    Err(Error::Refused { .. }) => {}
                    Err(e) => return Err(e),
                }
            }
            file.write(&format!("{} ", pattern.text())).map_err(|e| match e {
                Error::Refused { .. } => no_function(pattern),
                other => other,
            })?;
        }
        Ok(())
    }

    /// For each pattern the names that a graph list needs; empty where the pattern's text does.
    fn graph_names(&self, patterns: &[FuncPattern]) -> Result<Vec<Vec<String>>> {
        let plain = |p: &FuncPattern| p.is_glob() && p.module.is_none();
        if patterns.iter().all(plain) {
            return Ok(Vec::new());
        }
        let text = self.root().dir().read("available_filter_functions")?;
        let mut found = Vec::new();
        for p in patterns {
            let mut names: Vec<String> = Vec::new();
            if !plain(p) {
                names.extend(text.lines().filter(|l| p.matches(l)).map(|l| split_line(l).0.to_owned()));
                names.dedup();
                if names.is_empty() {
                    return Err(no_function(p));
                }
            }
            found.push(names);
        }
        Ok(found)
    }

    /// For each pattern the line numbers (from 1); empty where the text is to be written instead.
    fn indexes(&self, patterns: &[FuncPattern]) -> Result<Vec<Vec<u32>>> {
        let text = match self.root().dir().read("available_filter_functions") {
            Ok(t) => t,
            Err(e) if patterns.iter().all(FuncPattern::is_glob) && (e.is_missing() || e.is_denied()) => {
                return Ok(Vec::new());
            }
            Err(e) => return Err(e),
        };
        let mut found: Vec<Vec<u32>> = vec![Vec::new(); patterns.len()];
        for (n, line) in (1u32..).zip(text.lines()) {
            for (p, hits) in patterns.iter().zip(&mut found) {
                if p.matches(line) {
                    hits.push(n);
                }
            }
        }
        for (p, hits) in patterns.iter().zip(&mut found) {
            if hits.is_empty() {
                return Err(no_function(p));
            }
            // `*` alone: one word says it.
            if p.is_glob() && p.text == "*" && p.module.is_none() {
                hits.clear();
            }
        }
        Ok(found)
    }

    /// Adds the pattern to a list even if nothing matches now: functions of a module that is loaded later
    /// (`name:mod:module`, since Linux 4.13).
    pub fn add_future_functions(&self, list: FuncList, pattern: &FuncPattern) -> Result<()> {
        if pattern.module.is_none() {
            return Err(Error::Invalid(format!(
                "{:?}: only functions of a module can be named before they exist",
                pattern.text
            )));
        }
        self.dir().append(list.file(), &format!("{} ", pattern.text()))
    }

    /// Appends a function command to `set_ftrace_filter`: `FUNCTION:COMMAND[:PARAMETER]` as `vfs_read:traceoff:5`.
    pub fn add_function_command(&self, command: &str) -> Result<()> {
        self.dir().append(FuncList::Filter.file(), &format!("{command}\n"))
    }

    /// The lines of a list; the comment that says that it is empty is left out.
    pub fn functions(&self, list: FuncList) -> Result<Vec<String>> {
        self.dir().read_lines(list.file())
    }

    /// Empties a list. Function commands, which survive truncation, are removed one by one (`!COMMAND`).
    pub fn clear_functions(&self, list: FuncList) -> Result<()> {
        self.dir().clear(list.file())?;
        for line in self.functions(list)? {
            let line = line.trim_end();
            self.dir().append(list.file(), &format!("!{}\n", removable(line)))?;
        }
        Ok(())
    }
}

/// A function command as the kernel wants it for removal: `:unlimited` is not said, and for a command with a count
/// (`:count=3`) any number stands in its place (Documentation/trace/ftrace.rst, "Filter commands").
fn removable(line: &str) -> String {
    if let Some(command) = line.strip_suffix(":unlimited") {
        return command.to_owned();
    }
    match line.rsplit_once(":count=") {
        Some((command, count)) if count.bytes().all(|c| c.is_ascii_digit()) => format!("{command}:0"),
        _ => line.to_owned(),
    }
}

fn no_function(p: &FuncPattern) -> Error {
    Error::NoFunction { pattern: p.text.clone(), module: p.module.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TraceFs;

    fn top(functions: &str) -> (tempfile::TempDir, Instance) {
        let t = tempfile::tempdir().unwrap();
        std::fs::write(t.path().join("available_filter_functions"), functions).unwrap();
        for f in ["set_ftrace_filter", "set_ftrace_notrace", "set_graph_function"] {
            std::fs::write(t.path().join(f), "").unwrap();
        }
        let top = TraceFs::at(t.path()).top();
        (t, top)
    }

    fn p(text: &str, module: Option<&str>) -> FuncPattern {
        FuncPattern::new(text, module).unwrap()
    }

    #[test]
    fn globs_and_regexes() {
        assert!(p("vfs_*", None).matches("vfs_read"));
        assert!(!p("vfs", None).matches("vfs_read"));
        assert!(!p("a.c", None).matches("abc"));
        assert!(p("^vfs_(read|write)$", None).matches("vfs_write"));
        assert!(p("read|write", None).matches("vfs_write"));
        assert!(p("x*", Some("snd-pcm")).matches("xfer [snd_pcm]"));
        assert!(!p("x*", Some("ext4")).matches("xfer [xfs]"));
        assert!(!p("x*", Some("ext4")).matches("xfer"));
        assert!(FuncPattern::new("(", None).is_err());
    }

    #[test]
    fn writes_indexes() {
        let (_t, top) = top("vfs_read\nvfs_write\nksys_read\nxfs_a [xfs]\n");
        top.set_functions(FuncList::Filter, &[p("vfs_*", None), p("xfs", Some("xfs"))], false).unwrap_err();
        top.set_functions(FuncList::Filter, &[p("vfs_*", None), p("(xfs)", Some("xfs"))], false).unwrap();
        assert_eq!(top.dir().read("set_ftrace_filter").unwrap(), "1 2 4 ");
        top.set_functions(FuncList::Notrace, &[p("*", None)], false).unwrap();
        assert_eq!(top.dir().read("set_ftrace_notrace").unwrap(), "* ");
        let lists = [p("do_*", None), p("xfs*", Some("xfs")), p("^vfs_(read|write)$", None)];
        top.set_functions(FuncList::Graph, &lists, false).unwrap();
        assert_eq!(top.dir().read("set_graph_function").unwrap(), "do_* xfs_a vfs_read vfs_write ");
        assert!(top.set_functions(FuncList::Graph, &[p("x", Some("m"))], false).is_err());
        match top.set_functions(FuncList::Filter, &[p("nothing", None)], false) {
            Err(Error::NoFunction { pattern, .. }) => assert_eq!(pattern, "nothing"),
            other => panic!("{other:?}"),
        }
        assert_eq!(top.dir().read("set_ftrace_filter").unwrap(), "1 2 4 ");
        std::fs::remove_file(top.file("available_filter_functions")).unwrap();
        top.set_functions(FuncList::Filter, &[p("vfs_*", Some("m"))], false).unwrap();
        assert_eq!(top.dir().read("set_ftrace_filter").unwrap(), "vfs_*:mod:m ");
    }
}
