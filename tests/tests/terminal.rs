//! What a trace holds must not command the terminal of whoever looks at it.

use std::{
    fs::File,
    io::Read,
    process::{Command, Stdio},
};

use tracecmd_tests::{programs, targets::fixture};

/// Name of a task that a program chose: sets the title, clears the screen, turns the writing direction, and an 8-bit sequence.
const EVIL: [&[u8]; 4] = [b"\x1b]0;x\x07", b"\x1b[2J\x1b[31m", "\u{202e}gpj".as_bytes(), b"\x9b31m\x05"];

/// A recording whose task names are replaced by others of the same length.
fn evil_file() -> (tempfile::TempDir, std::path::PathBuf, usize) {
    let mut bytes = std::fs::read(fixture("x86_64-6.1-sched-v6")).expect("a fixture");
    let mut count = 0;
    // In version 6 records and names lie in the file as they are.
    for name in [&b"rcu_preempt"[..], b"kworker", b"trace-cmd", b"swapper", b"ksoftirqd", b"busybox", b"sleep", b"init"]
    {
        let mut at = 0;
        while let Some(n) = bytes[at..].windows(name.len()).position(|w| w == name) {
            at += n;
            // Not in the texts of formats: behind a NUL, a blank, or at a start of a line.
            let evil = EVIL[count % EVIL.len()];
            let len = evil.len().min(name.len());
            bytes[at..at + len].copy_from_slice(&evil[..len]);
            count += 1;
            at += name.len();
        }
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("evil.dat");
    std::fs::write(&path, bytes).expect("a file");
    (dir, path, count)
}

/// What a command writes to a pseudo-terminal that is both its standard output and error.
fn on_terminal(command: &[&str], file: &std::path::Path) -> Vec<u8> {
    let pty = nix::pty::openpty(None, None).expect("a pseudo-terminal");
    let slave = File::from(pty.slave);
    let mut child = Command::new(programs::tracecmd())
        .args(command)
        .arg(file)
        .env("NO_COLOR", "1")
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .stdout(slave.try_clone().expect("a copy"))
        .stderr(slave)
        .spawn()
        .expect("our program");
    let mut master = File::from(pty.master);
    let mut out = Vec::new();
    let mut buf = [0; 65536];
    // The last writer's end is an error of the read (EIO).
    while let Ok(n @ 1..) = master.read(&mut buf) {
        out.extend_from_slice(&buf[..n]);
    }
    let _ = child.wait();
    out
}

#[test]
fn no_control_character_of_a_trace_reaches_a_terminal() {
    let (_dir, path, count) = evil_file();
    assert!(count > 20, "only {count} names were replaced");
    let mut shown = 0;
    for command in [
        &["report", "-i"][..],
        &["report", "-R", "-i"],
        &["report", "-l", "-i"],
        &["report", "-w", "-i"],
        &["report", "--profile", "-i"],
        &["report", "--json", "-i"],
        &["report", "--events", "-i"],
        &["dump", "--all", "-i"],
        &["hist", "-i"],
        &["mem", "-i"],
    ] {
        let out = on_terminal(command, &path);
        assert!(!out.is_empty() || command[0] == "mem" || command[0] == "hist", "{command:?} wrote nothing");
        let text = String::from_utf8_lossy(&out);
        let bad = text.chars().find(|c| {
            (c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        });
        assert_eq!(bad, None, "{command:?}: {:?}", text.lines().find(|l| l.contains(bad.unwrap_or('\n'))));
        shown += usize::from(text.contains("\\x1b") || text.contains("\\u001b"));
    }
    assert!(shown >= 4, "the names were shown by {shown} commands only");
    // A pipe gets the bytes as they are.
    let piped = Command::new(programs::tracecmd()).args(["report", "-i"]).arg(&path).output().expect("our program");
    assert!(piped.stdout.windows(4).any(|w| w == b"\x1b]0;"));
}
