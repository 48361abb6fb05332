//! The traced command: started, held until everything is ready, then let go with tracing switched on in the last moment.
//!
//! Here and in `sys.rs` are the program's only `unsafe` blocks; here it is what runs between fork and exec.

#![allow(unsafe_code)]

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

use anyhow::{Context, bail};
use nix::fcntl::OFlag;
use nix::unistd::{Gid, User};

/// A command that was forked and waits for [`Held::go`] before it becomes the program.
#[derive(Debug)]
pub struct Held {
    /// Its process.
    pub pid: i32,
    go: File,
    spawn: JoinHandle<std::io::Result<Child>>,
    name: OsString,
}

/// How to start a command.
#[derive(Debug, Default)]
pub struct Start<'a> {
    /// Run as this user.
    pub user: Option<&'a str>,
    /// Files that get `1` right before exec, such as `tracing_on`.
    pub switches: Vec<&'a File>,
    /// What the command gets as stdout; `None`: ours.
    pub stdout: Option<File>,
}

/// Forks the command and holds it.
///
/// # Errors
/// An unknown user, or no process can be made.
pub fn hold(command: &[OsString], how: Start<'_>) -> anyhow::Result<Held> {
    let (program, args) = command.split_first().context("there is no command")?;
    let mut cmd = Command::new(program);
    cmd.args(args);
    if let Some(out) = how.stdout {
        cmd.stdout(Stdio::from(out));
    }
    let identity = how.user.map(|u| identity(u, &mut cmd)).transpose()?;
    // The descriptors live until the process has become the program: the thread below keeps them.
    let switches: Vec<OwnedFd> =
        how.switches.iter().map(|f| f.try_clone().map(OwnedFd::from)).collect::<Result<_, _>>()?;
    let raw: Vec<RawFd> = switches.iter().map(AsRawFd::as_raw_fd).collect();
    let (mut told, tell) = pipe()?;
    let (wait, go) = pipe()?;
    let (tell_fd, wait_fd, go_fd) = (tell.as_raw_fd(), wait.as_raw_fd(), go.as_raw_fd());
    // What we block the command must not: it would not hear Ctrl-C.
    let mask = crate::signal::inherited();
    let before_exec = move || -> std::io::Result<()> {
        // SAFETY: this runs between fork and exec in a copy of a process with threads, where only async-signal-safe calls
        // are allowed: write, read, close, getpid, sigprocmask, setgroups, setgid, setuid are plain system calls on values made before the fork,
        // and nothing allocates. The descriptors stay open: the spawning thread owns them until the child has gone on.
        unsafe {
            // Our copy of the writing end would keep us waiting after the parent's death.
            libc::close(go_fd);
            let pid = libc::getpid().to_ne_bytes();
            if libc::write(tell_fd, pid.as_ptr().cast(), pid.len()) != pid.len() as isize {
                return Err(std::io::Error::last_os_error());
            }
            let mut byte = 0u8;
            if libc::read(wait_fd, std::ptr::from_mut(&mut byte).cast(), 1) != 1 {
                return Err(std::io::Error::from_raw_os_error(libc::ECANCELED));
            }
            if let Some(id) = &identity {
                let failed = libc::setgroups(id.groups.len(), id.groups.as_ptr()) != 0
                    || libc::setgid(id.gid) != 0
                    || libc::setuid(id.uid) != 0;
                if failed {
                    return Err(std::io::Error::last_os_error());
                }
            }
            if libc::sigprocmask(libc::SIG_SETMASK, mask.as_ref(), std::ptr::null_mut()) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            for fd in &raw {
                libc::write(*fd, b"1".as_ptr().cast(), 1);
            }
        }
        Ok(())
    };
    // SAFETY: the closure keeps to what is allowed after fork, see there.
    unsafe { cmd.pre_exec(before_exec) };
    let spawn = std::thread::Builder::new().name("spawn".into()).spawn(move || {
        let child = cmd.spawn();
        drop((tell, wait, switches));
        child
    })?;
    let mut pid = [0; 4];
    if told.read_exact(&mut pid).is_err() {
        return match spawn.join() {
            Ok(Err(e)) => Err(e).context("cannot make a process"),
            _ => bail!("cannot make a process"),
        };
    }
    Ok(Held { pid: i32::from_ne_bytes(pid), go, spawn, name: program.clone() })
}

impl Held {
    /// Lets it become the program.
    ///
    /// # Errors
    /// The program cannot be executed; the message has the shape scripts know.
    pub fn go(self) -> anyhow::Result<Child> {
        let Held { mut go, spawn, name, .. } = self;
        go.write_all(b"g").context("the process that was to run the command has died")?;
        drop(go);
        match spawn.join() {
            Ok(Ok(child)) => Ok(child),
            Ok(Err(e)) => {
                let line = "*".repeat(60);
                let text = format!("\n{line}\n   Unable to exec {}\n{line}\n", name.to_string_lossy());
                let _ = std::io::stderr().write_all(text.as_bytes());
                Err(e).with_context(|| format!("cannot execute {}", name.to_string_lossy()))
            }
            Err(_) => bail!("cannot execute {}", name.to_string_lossy()),
        }
    }
}

struct Identity {
    uid: libc::uid_t,
    gid: libc::gid_t,
    groups: Vec<libc::gid_t>,
}

/// Looks the user up and sets the environment a login would set.
fn identity(name: &str, cmd: &mut Command) -> anyhow::Result<Identity> {
    let user = User::from_name(name)
        .with_context(|| format!("cannot look up user {name}"))?
        .with_context(|| format!("there is no user {name}"))?;
    let c_name = CString::new(name)?;
    let groups =
        nix::unistd::getgrouplist(&c_name, user.gid).with_context(|| format!("cannot find groups of {name}"))?;
    cmd.env("HOME", &user.dir).env("USER", name).env("LOGNAME", name);
    Ok(Identity {
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        groups: groups.into_iter().map(Gid::as_raw).collect(),
    })
}

fn pipe() -> anyhow::Result<(File, File)> {
    let (r, w) = nix::unistd::pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
    Ok((File::from(r), File::from(w)))
}

/// The status to end with for a command that ended with `status`: its own, or 128 and the signal as in a shell.
pub fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(255);
    u8::try_from(code & 0xff).unwrap_or(255)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn held_until_let_go() {
        let t = tempfile::tempdir().unwrap();
        let on = t.path().join("on");
        std::fs::write(&on, "0").unwrap();
        let switch = std::fs::OpenOptions::new().write(true).open(&on).unwrap();
        let held = hold(&words("true"), Start { switches: vec![&switch], ..Start::default() }).unwrap();
        assert_eq!(std::fs::read_to_string(&on).unwrap(), "0");
        let fd = crate::sys::pidfd(held.pid).unwrap();
        assert_eq!(
            std::fs::read_to_string(format!("/proc/{}/stat", held.pid)).unwrap().split(' ').next(),
            Some(&*held.pid.to_string())
        );
        let mut child = held.go().unwrap();
        assert_eq!(exit_code(child.wait().unwrap()), 0);
        assert_eq!(std::fs::read_to_string(&on).unwrap(), "1");
        let mut fds = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&fd), nix::poll::PollFlags::POLLIN)];
        assert_eq!(nix::poll::poll(&mut fds, 0u8).unwrap(), 1);
    }

    #[test]
    fn signals_reach_the_command() {
        let of_self = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let _signals = crate::signal::Signals::block().unwrap();
        let out = tempfile::tempfile().unwrap();
        let start = Start { stdout: Some(out.try_clone().unwrap()), ..Start::default() };
        let mut child = hold(&words("cat /proc/self/status"), start).unwrap().go().unwrap();
        assert!(child.wait().unwrap().success());
        let mut told = String::new();
        std::io::Seek::rewind(&mut &out).unwrap();
        (&out).read_to_string(&mut told).unwrap();
        let blocked = |text: &str| text.lines().find(|l| l.starts_with("SigBlk:")).unwrap().to_owned();
        assert_eq!(blocked(&told), blocked(&of_self));
    }

    #[test]
    fn what_cannot_be_executed() {
        let held = hold(&words("/no/such/program"), Start::default()).unwrap();
        assert!(held.go().unwrap_err().to_string().contains("/no/such/program"));
        assert!(hold(&words("true"), Start { user: Some("no such user"), ..Start::default() }).is_err());
    }

    #[test]
    fn dropped_without_go() {
        let held = hold(&words("true"), Start::default()).unwrap();
        let pid = held.pid;
        let Held { go, spawn, .. } = held;
        drop(go);
        assert!(spawn.join().unwrap().is_err(), "it must not run");
        assert!(!std::path::Path::new(&format!("/proc/{pid}/exe")).exists());
    }
}
