//! `fixtures/DIFFERENCES.md`: every line names tests, and they are there.

use std::collections::BTreeSet;
use std::path::Path;

use tracecmd_tests::programs::workspace;

/// The rows of the table; the bars of commands in quotes do not part cells.
fn rows() -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(workspace().join("fixtures/DIFFERENCES.md")).expect("the file");
    let lines = text.lines().filter(|l| l.starts_with("| ")).skip(1);
    lines
        .map(|line| {
            let mut cells = vec![String::new()];
            let mut quoted = false;
            for c in line.trim_matches('|').chars() {
                quoted ^= c == '`';
                match c {
                    '|' if !quoted => cells.push(String::new()),
                    c => cells.last_mut().expect("a cell").push(c),
                }
            }
            cells.iter().map(|c| c.trim().to_owned()).collect()
        })
        .collect()
}

/// What is wrong with one of the tests that a row names.
fn fault(test: &str, table: &BTreeSet<String>) -> Option<String> {
    let guest = workspace().join("tests/guest");
    let quoted =
        |kind: &str| test.strip_prefix(kind).and_then(|t| t.strip_prefix('`')).and_then(|t| t.strip_suffix('`'));
    if let Some(row) = quoted("row ") {
        return (!table.contains(row)).then(|| format!("no row {row} in tests/guest/control"));
    }
    if let Some(name) = quoted("scenario ") {
        let there = |dir: &str| guest.join(dir).join(format!("{name}.sh")).exists();
        let found = ["scenarios", "long"].into_iter().any(there);
        return (!found).then(|| format!("no script {name} in tests/guest"));
    }
    let Some((file, function)) = quoted("").and_then(|t| t.split_once("::")) else {
        return Some(format!("{test:?} is no FILE::FUNCTION, row or scenario"));
    };
    let Ok(text) = std::fs::read_to_string(workspace().join(Path::new(file))) else {
        return Some(format!("no file {file}"));
    };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let defined = |l: &&str| l.starts_with(&format!("fn {function}("));
    let at = lines.iter().position(defined);
    let is_test = |at: usize| lines[..at].iter().rev().take(3).any(|l| *l == "#[test]");
    (!at.is_some_and(is_test)).then(|| format!("no test {function} in {file}"))
}

#[test]
fn every_line_has_its_tests() {
    let mut table = BTreeSet::new();
    for entry in std::fs::read_dir(workspace().join("tests/guest/control")).expect("tables") {
        let path = entry.expect("a directory entry").path();
        if path.extension().is_some_and(|e| e == "table") {
            let text = std::fs::read_to_string(path).expect("a table");
            let names = text.lines().filter_map(|l| l.strip_prefix('[')?.split_once(']'));
            table.extend(names.map(|(name, _)| name.to_owned()));
        }
    }
    let rows = rows();
    assert!(rows.len() > 80 && table.len() > 100, "{} rows, {} rows of tables", rows.len(), table.len());
    let mut faults = Vec::new();
    for row in &rows {
        let [command, reference, ours, tests] = &row[..] else {
            faults.push(format!("{} cells: {row:?}", row.len()));
            continue;
        };
        if command.is_empty() || reference.is_empty() || ours.is_empty() {
            faults.push(format!("{command}: an empty cell"));
        }
        faults.extend(tests.split(", ").filter_map(|t| fault(t, &table)).map(|f| format!("{command}: {f}")));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
