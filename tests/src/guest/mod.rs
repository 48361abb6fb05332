//! Guests: real Debian kernels booted in QEMU by software emulation (no KVM needed), with our binary and the reference.
//!
//! A guest boots, runs one shell script as root and hands back what the script left in `/out`; that takes 15 to 60 seconds.
//! What makes it dependable: one emulation thread (with several, the kernel's live code patching crashes the guest), and a
//! fixed processor model (6.12 hangs at boot with the fullest one).

mod image;

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use libtest_mimic::{Arguments, Failed, Trial};

use crate::{programs, skip::skip};
pub use image::Image;

/// A kernel to test with: a Debian suite and the release that it had when the tests were written.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    /// Name in test names: the release, or the least release for a suite that moves on.
    pub name: &'static str,
    /// Debian suite that has it.
    pub suite: &'static str,
}

/// The kernels: the oldest that is supported, a current stable one, and the newest.
pub const KERNELS: [Kernel; 3] = [
    Kernel { name: "6.1", suite: "bookworm" },
    Kernel { name: "6.12", suite: "trixie" },
    Kernel { name: "7.2", suite: "sid" },
];

/// How to boot.
#[derive(Debug, Clone)]
pub struct Options {
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mb: u32,
    /// The guest is ended after this time.
    pub limit: Duration,
    /// A network card: the guest (10.0.2.15) reaches this machine's loopback as 10.0.2.2.
    pub network: bool,
}

impl Default for Options {
    fn default() -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|s| s.parse().ok());
        let seconds = number("TRACECMD_GUEST_LIMIT").unwrap_or(900);
        let cpus = number("TRACECMD_GUEST_CPUS").unwrap_or(2) as u32;
        Self { cpus, memory_mb: 1536, limit: Duration::from_secs(seconds), network: false }
    }
}

/// Files to take along: a path of this machine and the path in the guest. Libraries of programs come along by themselves.
pub type Files<'a> = &'a [(&'a Path, &'a str)];

/// Why guests cannot run on this machine; `None` when they can.
pub fn missing() -> Option<String> {
    if cfg!(not(target_arch = "x86_64")) {
        return Some("guests are x86-64 and take this machine's programs along".into());
    }
    for (tool, package) in
        [("qemu-system-x86_64", "qemu-system-x86"), ("busybox", "busybox-static"), ("tar", "tar"), ("ldd", "libc-bin")]
    {
        if which(tool).is_none() {
            return Some(format!("no {tool} (package {package})"));
        }
    }
    None
}

/// Boots KERNEL, runs SCRIPT in it with busybox's shell, and gives what it left in `/out` in the directory OUT.
///
/// In the guest: `/sys/kernel/tracing` and `/sys/kernel/debug` are mounted; `brd` and `vsock_loopback` are loaded; `tracecmd` is
/// ours, `trace-cmd` the reference where it could be had. `OUT/log` is what the script printed; its exit status is returned.
///
/// # Errors
/// When the kernel cannot be had, or the guest did not come to the script's end (`OUT/console` is the boot log).
pub fn run(kernel: Kernel, options: &Options, files: Files<'_>, script: &str, out: &Path) -> anyhow::Result<i32> {
    let dir = programs::fetch(&["kernel", kernel.suite]).map_err(anyhow::Error::msg)?;
    std::fs::create_dir_all(out)?;
    let work = tempfile::tempdir()?;
    let (initrd, disk, console) = (work.path().join("initrd"), work.path().join("disk"), out.join("console"));
    std::fs::write(&initrd, build_image(&dir, files, script)?)?;
    std::fs::File::create(&disk)?.set_len(2 << 30)?;
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-accel", "tcg,thread=single", "-cpu", "Haswell", "-display", "none", "-no-reboot"])
        .args(["-m", &format!("{}M", options.memory_mb), "-smp", &options.cpus.to_string()])
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .arg("-drive")
        .arg(format!("file={},if=virtio,format=raw", disk.display()))
        .arg("-kernel")
        .arg(dir.join("vmlinuz"))
        .arg("-initrd")
        .arg(&initrd)
        .args(["-append", "console=ttyS0 panic=-1 quiet no_timer_check"]);
    if options.network {
        qemu.args(["-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0"]);
    } else {
        qemu.args(["-net", "none"]);
    }
    let mut child =
        qemu.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("qemu-system-x86_64")?;
    let end = std::time::Instant::now() + options.limit;
    while child.try_wait()?.is_none() {
        if std::time::Instant::now() > end {
            child.kill()?;
            child.wait()?;
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let boot = std::fs::read(&console).unwrap_or_default();
    if !boot.windows(10).any(|w| w == b"GUEST-DONE") {
        let text = String::from_utf8_lossy(&boot);
        let tail: Vec<&str> = text.lines().rev().take(12).collect();
        bail!(
            "{}: the guest did not finish; last lines of {}:\n{}",
            kernel.name,
            console.display(),
            tail.into_iter().rev().collect::<Vec<_>>().join("\n")
        );
    }
    unpack(&disk, out)?;
    let status = std::fs::read_to_string(out.join("status")).context("the guest left no status")?;
    status.trim().parse().context("the guest's status")
}

/// Cuts the tar archive that the guest wrote out of the (sparse) disk and unpacks it.
fn unpack(disk: &Path, out: &Path) -> anyhow::Result<()> {
    let mut file = std::fs::File::open(disk)?;
    let mut magic = [0; 5];
    file.seek(SeekFrom::Start(257))?;
    file.read_exact(&mut magic)?;
    ensure!(&magic == b"ustar", "the guest wrote no archive");
    let done = Command::new("tar").arg("xf").arg(disk).arg("-C").arg(out).status()?;
    ensure!(done.success(), "the guest's archive is damaged");
    Ok(())
}

/// The first file system: busybox, modules, the files with the libraries they need, and the script.
fn build_image(kernel: &Path, files: Files<'_>, script: &str) -> anyhow::Result<Vec<u8>> {
    let mut image = Image::new();
    for dir in ["bin", "proc", "sys", "dev", "tmp", "root", "out", "mod", "var/run", "usr/bin"] {
        image.dir(dir);
    }
    image.file("etc/hosts", 0o644, b"127.0.0.1 localhost guest\n");
    image.file("etc/nsswitch.conf", 0o644, b"hosts: files\n");
    image.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/tmp:/bin/sh\n");
    image.file("etc/group", 0o644, b"root:x:0:\nuser:x:1000:\n");
    let busybox = which("busybox").context("busybox")?;
    image.copy(&busybox, "bin/busybox")?;
    let list = Command::new(&busybox).arg("--list").output()?;
    for applet in String::from_utf8_lossy(&list.stdout).lines().filter(|a| *a != "busybox") {
        image.link(&format!("bin/{applet}"), "busybox");
    }
    let names = std::fs::read_to_string(programs::workspace().join("tests/guest/modules"))?;
    for (number, name) in names.lines().enumerate() {
        let path = kernel.join("mod").join(format!("{name}.ko"));
        if path.exists() {
            image.copy(&path, &format!("mod/{number:02}-{name}.ko"))?;
        }
    }
    for (from, to) in files.iter().copied().chain([(programs::tracecmd(), "bin/tracecmd")]) {
        if std::fs::metadata(from).with_context(|| from.display().to_string())?.is_dir() {
            image.copy_tree(from, to)?;
        } else {
            image.copy(from, to)?;
            for library in libraries(from)? {
                let to = library.to_string_lossy().into_owned();
                image.copy(&library, &to)?;
            }
        }
    }
    if let Ok(reference) = programs::reference() {
        image.copy_tree(reference.parent().context("the reference lies in a directory")?, "ref")?;
        image.link("bin/trace-cmd", "/ref/trace-cmd");
    }
    image.file("init", 0o755, include_bytes!("../../guest/init"));
    image.file("lib.sh", 0o644, include_bytes!("../../guest/lib.sh"));
    image.file("script", 0o755, script.as_bytes());
    Ok(image.finish())
}

/// The shared libraries a program needs, by `ldd`; none for a static one.
fn libraries(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let done = Command::new("ldd").arg(program).output().context("ldd")?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let paths = text.lines().filter_map(|l| l.split_whitespace().find(|w| w.starts_with('/')));
    Ok(paths.map(PathBuf::from).filter(|p| p != program).collect())
}

fn which(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|d| d.join(tool)).find(|p| p.is_file())
}

/// The list of guest tests of a test program. What cannot run is skipped, with the reason.
#[derive(Debug)]
pub struct Trials {
    list_only: bool,
    /// Why no guest test can run.
    reason: Option<String>,
    trials: Vec<Trial>,
}

impl Trials {
    /// An empty list.
    pub fn new(args: &Arguments) -> Trials {
        let no_reference = || if args.list { None } else { programs::reference().err().map(str::to_owned) };
        Trials { list_only: args.list, reason: missing().or_else(no_reference), trials: Vec::new() }
    }

    /// Adds a test; `title` is `KERNEL::NAME`.
    pub fn add(&mut self, title: String, test: impl FnOnce() -> Result<(), Failed> + Send + 'static) {
        let reason = self.reason.clone().or_else(|| open(&title));
        if let (Some(reason), false) = (&reason, self.list_only) {
            skip(&title, reason);
        }
        self.trials.push(Trial::test(title, test).with_ignored_flag(reason.is_some()));
    }

    /// Runs all and ends the program.
    pub fn run(self, args: &Arguments) -> ! {
        libtest_mimic::run(args, self.trials).exit()
    }
}

/// Whether one of the words of an environment variable is in NAME; yes without the variable.
pub fn chosen(variable: &str, name: &str) -> bool {
    std::env::var(variable).map_or(true, |words| words.split_whitespace().any(|w| name.contains(w)))
}

/// Whether everything is to run on every kernel (`TRACECMD_TABLE=full`), not the choice that each check has time for.
pub fn full() -> bool {
    std::env::var("TRACECMD_TABLE").is_ok_and(|v| v == "full")
}

/// The kernels that `TRACECMD_KERNELS` (words) leaves.
pub fn kernels() -> impl Iterator<Item = Kernel> {
    let words = std::env::var("TRACECMD_KERNELS").ok();
    KERNELS.into_iter().filter(move |k| words.as_ref().is_none_or(|w| w.split_whitespace().any(|w| w == k.name)))
}

/// What one kernel has to do, dealt out to two guests: a guest keeps one CPU busy.
pub fn halves<T>(all: Vec<T>) -> Vec<Vec<T>> {
    if all.len() < 4 {
        return vec![all];
    }
    let mut halves = vec![Vec::new(), Vec::new()];
    for (n, one) in all.into_iter().enumerate() {
        halves[n % 2].push(one);
    }
    halves
}

/// Where a guest of a kernel leaves its files: below `TRACECMD_GUEST_OUT`, else a temporary directory of this process, named
/// after `what` runs there.
pub fn out_dir(what: &str, kernel: Kernel, half: usize) -> PathBuf {
    let own = || std::env::temp_dir().join(format!("tracecmd-{what}-{}", std::process::id()));
    std::env::var_os("TRACECMD_GUEST_OUT").map_or_else(own, PathBuf::from).join(format!("{}.{half}", kernel.name))
}

/// Why the guest test TITLE (`KERNEL::NAME`) is known to be open, if it is: `tests/guest/OPEN`, a title and a reason on a line,
/// where `*` at the end of a title stands for all that begin so. With `TRACECMD_OPEN` set everything runs.
fn open(title: &str) -> Option<String> {
    if std::env::var_os("TRACECMD_OPEN").is_some() {
        return None;
    }
    let text = std::fs::read_to_string(crate::programs::workspace().join("tests/guest/OPEN")).ok()?;
    text.lines().filter(|l| !l.starts_with('#')).find_map(|l| {
        let (name, reason) = l.split_once('\t')?;
        let hit = name.strip_suffix('*').map_or(name == title, |start| title.starts_with(start));
        hit.then(|| reason.to_owned())
    })
}
