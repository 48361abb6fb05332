//! Every command and option that touches the running kernel, beside the reference: the tables of `tests/guest/control` (what a row
//! is, see the README there), in two boots per kernel.
//!
//! `TRACECMD_TABLE=full` runs all rows on all kernels, which takes half an hour a kernel; else those marked `everywhere` run, each on
//! one of the kernels (`TRACECMD_KERNELS=7.2`: all of them on that one).
//! `TRACECMD_ROWS` (words) restricts the rows, `TRACECMD_KERNELS` the kernels; `TRACECMD_GUEST_OUT=DIR` keeps what guests left.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed};
use tracecmd_tests::guest::{self, Kernel, Trials};
use tracecmd_tests::{compare, programs};

/// One row of a table.
#[derive(Clone, Debug, Default)]
struct Row {
    name: String,
    words: Vec<String>,
    setup: String,
    run: String,
    compare: Vec<String>,
    differs: Option<String>,
    expect: String,
}

impl Row {
    fn has(&self, word: &str) -> bool {
        self.words.iter().any(|w| w == word)
    }

    fn compares(&self, word: &str) -> bool {
        self.compare.iter().any(|w| w == word)
    }
}

/// What the guest of a kernel left, or why it did not.
type Boot = Arc<OnceLock<Result<PathBuf, String>>>;

fn main() {
    let args = Arguments::from_args();
    let mut trials = Trials::new(&args);
    let full = guest::full();
    let everywhere: Vec<Row> = rows().into_iter().filter(|r| full || r.has("everywhere")).collect();
    let kernels: Vec<Kernel> = guest::kernels().collect();
    let of_kernel = |n: usize| {
        let here = |(at, _): &(usize, &Row)| full || at % kernels.len() == n;
        guest::halves(everywhere.iter().enumerate().filter(here).map(|(_, row)| row.clone()).collect())
    };
    let mut boots: Vec<(Kernel, usize, Arc<[Row]>, Boot)> = Vec::new();
    for (n, kernel) in kernels.iter().enumerate() {
        for (half, rows) in of_kernel(n).into_iter().enumerate() {
            boots.push((*kernel, half, rows.into(), Boot::default()));
        }
    }
    // The guests in turn: threads that wait for one guest do not keep the others from booting.
    for at in 0..everywhere.len() {
        for (kernel, half, mine, boot) in boots.iter().filter(|(.., mine, _)| at < mine.len()) {
            let (kernel, half, mine, boot) = (*kernel, *half, mine.clone(), boot.clone());
            trials.add(format!("{}::{}", kernel.name, mine[at].name), move || {
                let run = || run_rows(kernel, half, &mine).map_err(|e| format!("{e:#}"));
                check(&boot.get_or_init(run).clone()?, &mine[at])
            });
        }
    }
    trials.run(&args)
}

/// The rows of all tables.
fn rows() -> Vec<Row> {
    let dir = programs::workspace().join("tests/guest/control");
    let mut rows: Vec<Row> = Vec::new();
    for table in ["record", "live", "look", "sql", "scripts"] {
        let text = std::fs::read_to_string(dir.join(format!("{table}.table"))).expect("a table");
        for line in text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()) {
            if let Some((name, words)) = line.strip_prefix('[').and_then(|l| l.split_once(']')) {
                let words = words.split_whitespace().map(str::to_owned).collect();
                rows.push(Row { name: name.to_owned(), words, ..Row::default() });
                continue;
            }
            let (key, value) = line.split_once(": ").unwrap_or_else(|| panic!("{table}.table: {line}"));
            let row = rows.last_mut().unwrap_or_else(|| panic!("{table}.table: {line}"));
            match key {
                "setup" => row.setup = value.to_owned(),
                "run" => row.run = value.to_owned(),
                "compare" => row.compare = value.split_whitespace().map(str::to_owned).collect(),
                "differs" => row.differs = Some(value.to_owned()),
                "expect" => row.expect = value.to_owned(),
                _ => panic!("{table}.table: {line}"),
            }
        }
    }
    let mut names = std::collections::BTreeSet::new();
    for row in &rows {
        assert!(names.insert(row.name.clone()), "two rows {}", row.name);
        assert!(!row.run.is_empty(), "row {} runs nothing", row.name);
        assert_eq!(
            row.differs.is_some(),
            !row.expect.is_empty(),
            "row {}: differs and expect belong together",
            row.name
        );
    }
    rows.retain(|r| guest::chosen("TRACECMD_ROWS", &r.name));
    rows
}

/// A word for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Boots the kernel and runs these rows in it.
fn run_rows(kernel: Kernel, half: usize, rows: &[Row]) -> anyhow::Result<PathBuf> {
    let out = guest::out_dir("control", kernel, half);
    let _ = std::fs::remove_dir_all(&out);
    let mut script = include_str!("../guest/control/run.sh").to_owned();
    for r in rows {
        let parts = [&r.name, &r.words.join(" "), &r.setup, &r.run, &r.expect].map(|t| quoted(t));
        script += &format!("row {}\n", parts.join(" "));
    }
    let standard = guest::Options::default();
    let options = guest::Options { limit: standard.limit.max(Duration::from_secs(2400)), ..standard };
    let state = Path::new(env!("CARGO_BIN_EXE_kernel-state"));
    guest::run(kernel, &options, &[(state, "bin/kernel-state")], &script, &out)?;
    Ok(out.join("rows"))
}

fn check(out: &Path, row: &Row) -> Result<(), Failed> {
    let dir = |who: &str| out.join(format!("{}.{who}", row.name));
    let read = |who: &str, file: &str| std::fs::read_to_string(dir(who).join(file)).unwrap_or_default();
    let mut faults = String::new();
    let messages =
        || format!("reference says: {}\nours says: {}\n", read("ref", "stderr").trim(), read("ours", "stderr").trim());
    if read("ours", "status").trim() == "137" {
        faults += "our program hung\n";
    }
    if row.differs.is_some() {
        let status = read("ours", "expect");
        if status.trim() != "0" {
            faults += &format!("does not hold: {}\n{}", row.expect, read("ours", "expect.out"));
        }
    } else {
        let zero = |who: &str| read(who, "status").trim() == "0";
        if zero("ref") != zero("ours") {
            let (r, o) = (read("ref", "status"), read("ours", "status"));
            faults += &format!("status: reference {}, ours {}\n", r.trim(), o.trim());
        }
        let mut files = vec!["after"];
        if dir("ref").join("during").exists() || dir("ours").join("during").exists() {
            files.push("during");
        }
        if (row.has("same") || row.compares("stdout")) && !row.compares("none") {
            files.push("stdout");
        }
        for file in files {
            let (want, have) = (shown(row, file, &read("ref", file)), shown(row, file, &read("ours", file)));
            faults += &difference(file, &want, &have);
        }
    }
    if row.has("dat") {
        faults += &recordings(&dir("ours"));
    }
    if faults.is_empty() { Ok(()) } else { Err(format!("{}\n{faults}{}", row.run, messages()).into()) }
}

/// The lines of a result that are compared.
fn shown(row: &Row, file: &str, text: &str) -> Vec<String> {
    let own = |l: &&str| !(file == "during" && l.contains("_notrace_pid:"));
    let random = |l: &str| if row.has("variables") { without_numbers(l) } else { l.to_owned() };
    text.lines().filter(own).map(random).collect()
}

/// The text with `_N` for an underscore and a number behind it.
fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('_') {
        out += &rest[..=at];
        rest = &rest[at + 1..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 && !rest[digits..].starts_with(|c: char| c.is_ascii_alphanumeric()) {
            out.push('N');
            rest = &rest[digits..];
        }
    }
    out + rest
}

/// The lines that only one of two texts has, at most some; empty for the same text.
fn difference(what: &str, want: &[String], have: &[String]) -> String {
    if want == have {
        return String::new();
    }
    let mut count: BTreeMap<&str, i32> = BTreeMap::new();
    want.iter().for_each(|l| *count.entry(l).or_default() -= 1);
    have.iter().for_each(|l| *count.entry(l).or_default() += 1);
    let mut lines: Vec<String> = Vec::new();
    let only = |n: i32| count.iter().filter(move |(_, c)| c.signum() == n).map(|(l, _)| *l);
    lines.extend(only(-1).take(12).map(|l| format!("  - {l}")));
    lines.extend(only(1).take(12).map(|l| format!("  + {l}")));
    if lines.is_empty() {
        lines.push("  the same lines in another order".into());
    }
    format!("{what} (- reference, + ours):\n{}\n", lines.join("\n"))
}

/// Reports what a row recorded, by both programs.
fn recordings(dir: &Path) -> String {
    let mut faults = String::new();
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "dat"));
    if files.is_empty() {
        return "there is no recording\n".into();
    }
    for file in files {
        let text = compare::report(programs::tracecmd(), "", &file).text;
        if text.iter().filter(|c| **c == b'\n').count() < 2 {
            faults += &format!("{} has no event\n", file.display());
        }
        if let Ok(reference) = programs::reference() {
            let done = Command::new(reference)
                .args(["report", "-i"])
                .arg(&file)
                .stdin(Stdio::null())
                .output()
                .expect("the reference runs");
            if let Some(place) = compare::first_difference(&done.stdout, &text) {
                faults += &format!("{}: reports differ: {place}\n", file.display());
            }
        }
    }
    faults
}
