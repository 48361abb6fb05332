//! What commands other than `report` do otherwise than the reference, on purpose: lines of fixtures/DIFFERENCES.md.

use std::process::Command;

/// Status and messages of a run that must fail.
fn fails(words: &[&str]) -> (i32, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_tracecmd")).args(words).output().unwrap();
    let message = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(!done.status.success() && done.stdout.is_empty(), "{words:?}: {message}");
    (done.status.code().unwrap(), message)
}

#[test]
fn a_name_of_a_guest_is_needed_and_is_no_path() {
    for name in ["a/b", "..", ""] {
        let (_, message) = fails(&["setup-guest", "-c", "1", name]);
        assert!(message.contains("no name of a guest"), "{name}: {message}");
    }
    let (status, message) = fails(&["setup-guest"]);
    assert!(status == 2 && message.contains("GUEST"), "{status} {message}");
}

#[test]
fn a_proxy_has_a_port_and_no_peer() {
    let (_, message) = fails(&["agent", "-N", "localhost", "-P", "3"]);
    assert!(message.contains("-N cannot be used with -P"), "{message}");
    // A port beside it is no fault; this one is none.
    let (_, message) = fails(&["agent", "-P", "3", "-p", "x"]);
    assert!(message.contains("-p x") && !message.contains("-P"), "{message}");
}
