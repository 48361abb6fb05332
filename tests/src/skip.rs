//! Skipped tests: said aloud and counted, never silent. (The live tests of the `tracefs` crate take this file as it is.)

use std::io::Write;

/// Prints why a test cannot run here and notes it for the sum at the end.
///
/// The line goes to standard error as `SKIP test: reason` and, when `TRACECMD_SKIPS` names a file, is appended to it: the
/// script that runs all tests prints their number. With `TRACECMD_NO_SKIP` set the process ends with an error instead,
/// for machines that are meant to have everything.
pub fn skip(test: &str, reason: &str) {
    let line = format!("SKIP {test}: {reason}\n");
    // One write: lines of parallel tests do not mix.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("TRACECMD_SKIPS") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut f| f.write_all(line.as_bytes())).expect("the list of skipped tests can be written");
    }
    assert!(std::env::var_os("TRACECMD_NO_SKIP").is_none(), "skipped although TRACECMD_NO_SKIP is set: {line}");
}
