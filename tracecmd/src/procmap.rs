//! `--proc-map`: where traced processes have their programs and libraries, so that addresses in the trace can be resolved later.
//!
//! The maps of a command are read at the moment of its exit, when it has loaded all it ever will: a thread of ours watches it with
//! ptrace (PTRACE_SEIZE, exit events only). Those of processes that run already are read as long as they live.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::Context;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// The text of option PROCMAPS for a process: `pid count program`, then a line `start end file` for each file it has mapped; numbers
/// hexadecimal. `None` when it is gone or has nothing mapped.
pub fn of_process(pid: i32) -> Option<String> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let exe = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    text(pid, &exe.to_string_lossy(), &maps)
}

/// Neighbouring pieces of one file are one line.
fn text(pid: i32, exe: &str, maps: &str) -> Option<String> {
    let mut files: Vec<(u64, u64, &str)> = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(range), Some(path)) = (words.next(), words.nth(4)) else { continue };
        // Names may hold blanks: all of the rest of the line.
        let path = line.find(path).and_then(|at| line.get(at..)).unwrap_or(path);
        let Some((start, end)) = range.split_once('-') else { continue };
        let (Ok(start), Ok(end)) = (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16)) else { continue };
        if !path.starts_with('/') {
            continue;
        }
        match files.last_mut() {
            Some((_, last, same)) if *same == path => *last = end,
            _ => files.push((start, end, path)),
        }
    }
    if files.is_empty() {
        return None;
    }
    let mut out = String::new();
    let _ = writeln!(out, "{pid:x} {:x} {exe}", files.len());
    for (start, end, path) in files {
        let _ = writeln!(out, "{start:x} {end:x} {path}");
    }
    Some(out)
}

/// Watches a held command and reads its maps when it exits.
#[derive(Debug)]
pub struct Watcher {
    thread: JoinHandle<Watched>,
}

/// What a [`Watcher`] saw.
#[derive(Debug, Default)]
pub struct Watched {
    /// The command's status: its own, or 128 and the signal.
    pub status: u8,
    /// A text per process.
    pub maps: Vec<String>,
}

impl Watcher {
    /// Begins to watch `pid`, with `follow` also what it starts.
    ///
    /// # Errors
    /// ptrace is not permitted, or another debugger has the process.
    pub fn start(pid: i32, follow: bool) -> anyhow::Result<Watcher> {
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::Builder::new().name("proc-map".into()).spawn(move || {
            let mut options = Options::PTRACE_O_TRACEEXIT;
            if follow {
                options |= Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACEVFORK | Options::PTRACE_O_TRACECLONE;
            }
            let seized = ptrace::seize(Pid::from_raw(pid), options);
            let failed = seized.is_err();
            let _ = ready.send(seized);
            if failed { Watched::default() } else { watch(pid) }
        })?;
        is_ready.recv()?.context("--proc-map: cannot watch the command")?;
        Ok(Watcher { thread })
    }

    /// Waits for the command's end.
    pub fn join(self) -> Watched {
        self.thread.join().unwrap_or_default()
    }

    /// Whether the command has ended.
    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Ends with the command itself; processes that it leaves behind go on without us.
fn watch(command: i32) -> Watched {
    let mut seen = Watched::default();
    let mut maps: HashMap<i32, String> = HashMap::new();
    loop {
        let status = match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Ok(status) => status,
            Err(nix::errno::Errno::EINTR) => continue,
            Err(_) => break,
        };
        match status {
            WaitStatus::Exited(pid, code) if pid.as_raw() == command => {
                seen.status = u8::try_from(code & 0xff).unwrap_or(255);
                break;
            }
            WaitStatus::Signaled(pid, signal, _) if pid.as_raw() == command => {
                seen.status = 128u8.saturating_add(signal as u8);
                break;
            }
            WaitStatus::PtraceEvent(pid, _, event) => {
                if event == libc::PTRACE_EVENT_EXIT
                    && let Some(text) = of_process(pid.as_raw())
                {
                    maps.insert(pid.as_raw(), text);
                }
                let _ = ptrace::cont(pid, None);
            }
            WaitStatus::Stopped(pid, signal) => {
                // A signal on its way to the process; the stop of a new child is ours.
                let ours = matches!(signal, Signal::SIGSTOP | Signal::SIGTRAP);
                let _ = ptrace::cont(pid, (!ours).then_some(signal));
            }
            _ => {}
        }
    }
    // Threads of one program have one map: the process' own stands for them.
    let mut list: Vec<_> = maps.into_iter().collect();
    list.sort_unstable();
    seen.maps = list.into_iter().map(|(_, text)| text).collect();
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_become_lines() {
        let maps = "\
            1000-2000 r--p 00000000 08:01 5 /bin/a program\n\
            2000-3000 r-xp 00001000 08:01 5 /bin/a program\n\
            5000-6000 rw-p 00000000 00:00 0 \n\
            6000-7000 rw-p 00000000 00:00 0 [heap]\n\
            7000-8000 r-xp 00000000 08:01 6 /lib/c.so\n";
        assert_eq!(
            text(26, "/bin/a program", maps).unwrap(),
            "1a 2 /bin/a program\n1000 3000 /bin/a program\n7000 8000 /lib/c.so\n"
        );
        assert_eq!(text(26, "x", "garbage\n"), None);
        assert!(of_process(std::process::id() as i32).unwrap().contains("libc"));
        assert_eq!(of_process(0), None);
    }

    #[test]
    fn a_command_is_watched() {
        let words: Vec<_> = ["sh", "-c", "exit 7"].iter().map(std::ffi::OsString::from).collect();
        let held = crate::child::hold(&words, crate::child::Start::default()).unwrap();
        let pid = held.pid;
        // Where ptrace is forbidden (a sandbox) there is nothing to test.
        let Ok(watcher) = Watcher::start(pid, false) else { return };
        #[allow(clippy::zombie_processes)] // the watcher waits for it
        let _child = held.go().unwrap();
        let seen = watcher.join();
        assert_eq!(seen.status, 7);
        assert!(seen.maps[0].starts_with(&format!("{pid:x} ")), "{:?}", seen.maps);
    }
}
