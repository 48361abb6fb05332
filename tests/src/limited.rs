//! Runs of a program in a child process with limits, so that a hang or a flood of memory is seen and ended.

use std::{
    fs::File,
    io::{Read, Seek},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Longest run, in seconds of CPU time and of the clock.
pub const SECONDS: u64 = 10;
/// Most memory of a run, in KiB: resident, and (with room for stacks and arenas) address space.
pub const RESIDENT_KB: i64 = 512 << 10;
const ADDRESS_KB: u64 = 3 << 20;
/// Most bytes of output that are kept.
const OUTPUT_MAX: u64 = 256 << 20;

/// What a run gave.
#[derive(Debug)]
pub struct Run {
    /// Exit status; `None`: ended by a signal, or by us.
    pub status: Option<i32>,
    /// What must never be: a signal, a panic, too long, too much. `None` when it ended as a program should.
    pub fault: Option<String>,
    /// Standard output.
    pub out: Vec<u8>,
    /// Standard error.
    pub err: String,
    /// How long it took.
    pub took: Duration,
}

impl Run {
    /// Lines of standard output.
    pub fn lines(&self) -> usize {
        self.out.iter().filter(|b| **b == b'\n').count()
    }
}

/// Runs `program` with `words`; temporary files go to `dir`.
///
/// # Panics
/// When the program cannot be started, or a temporary file not be made.
pub fn run(program: &Path, words: &[String], dir: &Path) -> Run {
    run_for(program, words, dir, Duration::from_secs(SECONDS))
}

/// The same, with another limit of the time by the clock.
///
/// # Panics
/// When the program cannot be started, or a temporary file not be made.
pub fn run_for(program: &Path, words: &[String], dir: &Path, clock: Duration) -> Run {
    let (out, err) = (dir.join("stdout"), dir.join("stderr"));
    let open = |p: &Path| File::options().read(true).write(true).create(true).truncate(true).open(p).expect("a file");
    let (mut out_file, mut err_file) = (open(&out), open(&err));
    let start = Instant::now();
    let script = format!(
        "ulimit -c 0; ulimit -v {ADDRESS_KB}; ulimit -t {SECONDS}; ulimit -f {}; exec \"$@\"",
        OUTPUT_MAX / 512
    );
    let mut child = Command::new("sh")
        .args(["-c", &script, "sh"])
        .arg(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(out_file.try_clone().expect("a copy"))
        .stderr(err_file.try_clone().expect("a copy"))
        .current_dir(dir)
        .env_remove("RUST_BACKTRACE")
        .spawn()
        .expect("the program starts");
    let mut hung = false;
    // Short waits first: most runs take a few milliseconds.
    let mut pause = Duration::from_micros(500);
    let status = loop {
        if let Some(status) = child.try_wait().expect("waiting") {
            break status;
        }
        if start.elapsed() > clock {
            hung = true;
            let _ = child.kill();
            break child.wait().expect("waiting");
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    };
    let took = start.elapsed();
    let mut run = Run { status: status.code(), fault: None, out: Vec::new(), err: String::new(), took };
    out_file.rewind().and_then(|()| out_file.read_to_end(&mut run.out)).expect("its output");
    let mut bytes = Vec::new();
    err_file.rewind().and_then(|()| err_file.read_to_end(&mut bytes)).expect("its messages");
    run.err = String::from_utf8_lossy(&bytes).into_owned();
    run.fault = match (hung, status.signal(), status.code()) {
        (true, _, _) => Some(format!("did not end within {} s", clock.as_secs())),
        (_, Some(signal), _) => Some(format!("ended by signal {signal}")),
        (_, _, Some(101)) => Some("panicked".into()),
        _ if run.err.contains("panicked at") => Some("panicked".into()),
        (_, _, Some(0)) | (_, _, None) => None,
        // A run that fails says why.
        _ if run.err.trim().is_empty() => Some("failed without a message".into()),
        _ => None,
    };
    run
}

/// Most memory that any child of this process had so far, in KiB.
///
/// # Panics
/// When the system does not say.
pub fn largest_child_kb() -> i64 {
    nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).expect("getrusage").max_rss()
}
