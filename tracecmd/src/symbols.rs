//! Whether the kernel has the same symbols as before, without reading them: `/proc/kallsyms` takes some 50 ms.

use std::io::ErrorKind;

use crate::sys;

/// What the kernel's symbols depend on while it runs: its modules, and the code it has made of BPF programs.
///
/// The ids of programs and links are not used again, so equal lists mean the same programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Name, size, state and address of each module.
    modules: Vec<String>,
    programs: Vec<u32>,
    links: Vec<u32>,
}

impl State {
    /// As it is now, `None` when that cannot be told (before Linux 5.8, or without the right to see BPF programs).
    pub fn now() -> Option<State> {
        let modules = match std::fs::read_to_string("/proc/modules") {
            Ok(text) => text,
            // A kernel without modules.
            Err(e) if e.kind() == ErrorKind::NotFound => String::new(),
            Err(_) => return None,
        };
        Some(State {
            modules: modules.lines().map(module).collect(),
            programs: sys::bpf_ids(sys::BpfKind::Program).ok()?,
            links: sys::bpf_ids(sys::BpfKind::Link).ok()?,
        })
    }
}

/// A line of `/proc/modules` without what changes when a module is used: the count of users, and who they are.
fn module(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    match words.as_slice() {
        [name, size, _count, _users, state, address, ..] => [*name, *size, *state, *address].join(" "),
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_a_module_do_not_matter() {
        let line = |count, users| format!("vsock 61440 {count} {users} Live 0xffffffffc0a1c000 (E)");
        assert_eq!(module(&line("2", "vsock_loopback,vmw,")), module(&line("0", "-")));
        assert_eq!(module(&line("0", "-")), "vsock 61440 Live 0xffffffffc0a1c000");
        assert_eq!(module("odd"), "odd");
    }

    #[test]
    fn nothing_happens_between_two_looks() {
        // Other programs may load some meanwhile.
        let same = (0..20).any(|_| State::now() == State::now());
        assert!(same);
    }
}
