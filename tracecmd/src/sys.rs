//! System calls that no safe wrapper covers: process descriptors, priorities, the split into a background process, and the TSC's
//! conversion as perf tells it.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use anyhow::{Context, bail, ensure};
use nix::unistd::ForkResult;

/// A descriptor that becomes readable when the process ends (since Linux 5.3).
///
/// # Errors
/// There is no such process.
pub fn pidfd(pid: i32) -> std::io::Result<OwnedFd> {
    // SAFETY: a plain system call with two numbers; it returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(fd).unwrap_or(-1);
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What the kernel numbers of BPF.
#[derive(Clone, Copy, Debug)]
pub enum BpfKind {
    /// Programs (since Linux 4.13).
    Program,
    /// Links: what programs are attached to (since Linux 5.8).
    Link,
}

/// The ids of all BPF programs or links, ascending; none in a kernel without BPF.
///
/// # Errors
/// The kernel does not say (too old, or not to us).
pub fn bpf_ids(kind: BpfKind) -> std::io::Result<Vec<u32>> {
    /// `union bpf_attr` of linux/bpf.h as the `*_GET_NEXT_ID` commands have it.
    #[repr(C)]
    #[derive(Default)]
    struct NextId {
        start: u32,
        next: u32,
        open_flags: u32,
    }
    let command: libc::c_int = match kind {
        BpfKind::Program => 11,
        BpfKind::Link => 31,
    };
    let mut ids = Vec::new();
    let mut attr = NextId::default();
    loop {
        // SAFETY: the kernel reads and writes the structure, whose size it is told, and keeps nothing of it.
        let done = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attr, size_of::<NextId>()) };
        if done != 0 {
            let error = std::io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOSYS) => Ok(ids),
                _ => Err(error),
            };
        }
        if attr.next <= attr.start {
            return Ok(ids);
        }
        ids.push(attr.next);
        attr.start = attr.next;
    }
}

/// Gives the calling thread a real-time priority (SCHED_FIFO).
///
/// # Errors
/// The priority is out of range or we may not have it.
pub fn set_fifo_priority(priority: i32) -> std::io::Result<()> {
    let param = libc::sched_param { sched_priority: priority };
    // SAFETY: `param` is valid for the call; thread 0 is the caller.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &param) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Makes the calling thread run only when nothing else wants the CPU (SCHED_IDLE). A refusal is no matter.
pub fn set_idle_priority() {
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: `param` is valid for the call; thread 0 is the caller.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &param) };
}

/// Gives a thread an ordinary priority again. A refusal is no matter.
pub fn set_normal_priority(tid: i32) {
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: `param` is valid for the call.
    unsafe { libc::sched_setscheduler(tid, libc::SCHED_OTHER, &param) };
}

/// A statically linked program must not load the system's name service modules: they need the very libc that they were built with.
/// Users and groups are looked up in the files then, hosts in the file and by DNS. Nothing is changed for a program with shared libraries.
pub fn keep_name_services_inside() {
    #[cfg(all(target_os = "linux", target_env = "gnu", target_feature = "crt-static"))]
    {
        use std::ffi::{CStr, c_char, c_int};
        unsafe extern "C" {
            /// glibc: the services of a database, in place of those in /etc/nsswitch.conf.
            fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
        }
        const SERVICES: [(&CStr, &CStr); 4] =
            [(c"passwd", c"files"), (c"group", c"files"), (c"initgroups", c"files"), (c"hosts", c"files dns")];
        for (database, services) in SERVICES {
            // SAFETY: both are texts with a NUL at the end that live as long as the program; no other thread runs yet.
            unsafe { __nss_configure_lookup(database.as_ptr(), services.as_ptr()) };
        }
    }
}

/// Asks the processor to bring memory to this core's cache in a state in which it can be written at once.
///
/// For memory that another core filled and will fill again: after plain reading both cores hold it, and the other's next
/// write has to wait until this one has given it up, some 30 ns for each 64 bytes.
#[inline(always)]
pub fn fetch_for_write<T>(memory: &[T]) {
    let range = memory.as_ptr_range();
    let mut at = range.start.cast::<u8>();
    while at < range.end.cast() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the instruction is a hint: it changes no register and no memory, and no address makes it fault.
        unsafe {
            std::arch::asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags, readonly));
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        unsafe {
            std::arch::asm!("prfm pstl1keep, [{}]", in(reg) at, options(nostack, preserves_flags, readonly));
        }
        at = at.wrapping_add(64);
    }
}

/// Asks the system to use huge pages for the room of a vector, as far as they fit into it: it is filled to the end, and each page costs
/// a fault. A refusal is no matter.
pub fn use_huge_pages(memory: &mut Vec<u8>) {
    const PAGE: usize = 4096;
    let room = memory.spare_capacity_mut();
    let skip = room.as_ptr().align_offset(PAGE).min(room.len());
    let len = (room.len() - skip) / PAGE * PAGE;
    if let Some(pages) = room.get_mut(skip..skip + len).filter(|pages| !pages.is_empty()) {
        // SAFETY: the pages lie in memory that the vector owns; only how the system provides them changes.
        unsafe { libc::madvise(pages.as_mut_ptr().cast(), len, libc::MADV_HUGEPAGE) };
    }
}

/// In the background process: tells the one that waits in the foreground that it may end.
#[derive(Debug)]
pub struct Background {
    tell: File,
}

/// What [`to_background`] gave.
#[derive(Debug)]
pub enum Split {
    /// This is the background process.
    Child(Background),
    /// This is the foreground process, and it is to end with this status: 0 when the background process has reported, otherwise that
    /// of the background process.
    Parent(u8),
}

/// Splits the program in two; the one in the foreground waits until the other reports or ends. To be called before any thread
/// is started.
///
/// # Errors
/// No process can be made.
pub fn to_background() -> anyhow::Result<Split> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    ensure!(threads == 1, "cannot go to the background with {threads} threads");
    let (hear, tell) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).context("cannot make a pipe")?;
    let (mut hear, tell) = (File::from(hear), File::from(tell));
    // SAFETY: there is one thread, as just counted, so the child's copy of the process is whole: no lock is held by a thread that is
    // not there.
    match unsafe { nix::unistd::fork() }.context("cannot make a process")? {
        ForkResult::Child => {
            drop(hear);
            let null = File::open("/dev/null").context("/dev/null")?;
            nix::unistd::dup2_stdin(&null).context("cannot replace stdin")?;
            Ok(Split::Child(Background { tell }))
        }
        ForkResult::Parent { child } => {
            drop(tell);
            let mut byte = [0];
            if matches!(hear.read(&mut byte), Ok(1)) {
                return Ok(Split::Parent(0));
            }
            use nix::sys::wait::{WaitStatus, waitpid};
            Ok(Split::Parent(match waitpid(child, None) {
                Ok(WaitStatus::Exited(_, code)) => u8::try_from(code & 0xff).unwrap_or(255),
                Ok(WaitStatus::Signaled(_, signal, _)) => 128u8.saturating_add(signal as u8),
                _ => 255,
            }))
        }
    }
}

impl Background {
    /// Leaves the terminal and lets the foreground process end.
    pub fn report(mut self) {
        let _ = nix::unistd::setsid();
        let _ = self.tell.write_all(b"r");
    }
}

/// Multiplier and shift that turn ticks of the TSC into nanoseconds: `(ticks * mult) >> shift`. The same on every CPU.
///
/// # Errors
/// Not x86, perf is not permitted, the TSC is not stable, or the CPUs differ.
pub fn tsc_to_ns(cpus: &[u32]) -> anyhow::Result<(u32, u32)> {
    let mut found = None;
    for cpu in cpus {
        let one = tsc_of_cpu(*cpu).with_context(|| format!("TSC to nanosecond is not supported (CPU {cpu})"))?;
        match found {
            None => found = Some(one),
            Some(first) => ensure!(first == one, "TSC to nanosecond is not supported: the CPUs differ"),
        }
    }
    found.context("TSC to nanosecond is not supported: there is no CPU")
}

/// `struct perf_event_attr` begins with type, size and config; the rest stays zero.
const ATTR_SIZE: usize = 128;
const PERF_TYPE_SOFTWARE: u32 = 1;
const PERF_COUNT_SW_DUMMY: u64 = 9;
/// Bit of `capabilities` in `struct perf_event_mmap_page`: time_shift and time_mult hold.
const CAP_USER_TIME: u64 = 1 << 3;

fn tsc_of_cpu(cpu: u32) -> anyhow::Result<(u32, u32)> {
    if !cfg!(any(target_arch = "x86", target_arch = "x86_64")) {
        bail!("only x86 has a TSC");
    }
    let mut attr = [0u8; ATTR_SIZE];
    attr[0..4].copy_from_slice(&PERF_TYPE_SOFTWARE.to_ne_bytes());
    attr[4..8].copy_from_slice(&(ATTR_SIZE as u32).to_ne_bytes());
    attr[8..16].copy_from_slice(&PERF_COUNT_SW_DUMMY.to_ne_bytes());
    // SAFETY: `attr` is as long as its size field says and lives through the call; the other arguments are numbers.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), -1, cpu as libc::c_int, -1, 0) };
    let fd = RawFd::try_from(fd).unwrap_or(-1);
    if fd < 0 {
        return Err(std::io::Error::last_os_error()).context("perf_event_open");
    }
    // SAFETY: the kernel has just given us this descriptor and nobody else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().map_or(4096, |n| n as usize);
    // SAFETY: a new mapping of a page that the kernel keeps for this descriptor; nothing of ours lies at the address it chooses.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), size, libc::PROT_READ, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
    if page == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error()).context("cannot map the page of a perf event");
    }
    // SAFETY: the mapping is at least 64 bytes long, aligned to a page, and stays until munmap below; the kernel may write to it, hence
    // volatile reads. Offsets: struct perf_event_mmap_page in include/uapi/linux/perf_event.h.
    let (capabilities, shift, mult) = unsafe {
        let at = page.cast::<u8>();
        let read = (
            at.add(40).cast::<u64>().read_volatile(),
            at.add(50).cast::<u16>().read_volatile(),
            at.add(52).cast::<u32>().read_volatile(),
        );
        libc::munmap(page, size);
        read
    };
    ensure!(capabilities & CAP_USER_TIME != 0 && mult != 0, "the kernel does not use the TSC for time");
    Ok((mult, u32::from(shift)))
}

/// Bytes of a stream socket that the other machine has not acknowledged (`SIOCOUTQ`); `None` where the socket does not say.
///
/// Source: tcp(7); vsock since Linux 6.12.
pub fn unsent(socket: std::os::fd::BorrowedFd<'_>) -> Option<usize> {
    use std::os::fd::AsRawFd;
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for the call, and the kernel writes one int to the place given.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, std::ptr::from_mut(&mut bytes)) };
    if done == 0 { usize::try_from(bytes).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tsc_of_this_machine() {
        // Where perf is not there or not permitted the message says so; where it is, a tick is between 0.1 and 10 ns.
        match tsc_to_ns(&[0]) {
            Ok((mult, shift)) => {
                let ns =
                    f64::from(mult) / f64::from(1u32 << shift.min(31)) / f64::from(1u32 << shift.saturating_sub(31));
                assert!((0.1..10.0).contains(&ns), "{mult} >> {shift}");
            }
            Err(e) => assert!(format!("{e:#}").contains("TSC"), "{e:#}"),
        }
        assert!(tsc_to_ns(&[]).is_err());
        assert!(tsc_to_ns(&[1 << 20]).is_err());
    }

    #[test]
    fn processes() {
        assert!(pidfd(std::process::id() as i32).is_ok());
        assert!(pidfd(-5).is_err());
    }
}
