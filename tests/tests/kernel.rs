//! Real kernels: each scenario of `tests/guest/scenarios` runs in a guest on each kernel; two boots per kernel run them all.
//!
//! A scenario is a shell script. It runs in the guest with `$OUT` as its directory, `ours` and `ref` as commands (our binary and
//! the reference), and must end with status zero. What it leaves is then checked here:
//!
//! * every `NAME.dat` is reported by our binary and by the reference: the same text, not empty, for every basic option set;
//! * every pair `NAME.ours` and `NAME.ref` has the same content (state of the kernel, output);
//!
//! `tracefs-live` (the live tests of the crate) and `unit-list` (the scenarios of trace-cmd's own unit tests) are there as commands.
//!
//! Names of scenarios and kernels in the environment variables `TRACECMD_SCENARIOS` and `TRACECMD_KERNELS` (words) restrict
//! the run; `TRACECMD_KILLS=30` kills that many recordings by each signal; `TRACECMD_GUEST_CPUS=4` and `TRACECMD_GUEST_LIMIT=SECONDS`
//! change the guest; what it left can be kept with `TRACECMD_GUEST_OUT=DIR`. `TRACECMD_SCENARIO_DIR=long` runs the scenarios of
//! `tests/guest/long` instead, which take many minutes each: recordings that are killed, all remote pairings, broken links, the agent.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, LazyLock, Mutex, OnceLock};

use libtest_mimic::{Arguments, Failed};
use tracecmd_tests::guest::{self, Kernel, Trials};
use tracecmd_tests::{compare, programs};

/// A guest and what it runs.
struct Guest {
    kernel: Kernel,
    half: usize,
    /// Names and texts.
    scenarios: Vec<(String, String)>,
    /// What it left, or why it did not.
    done: OnceLock<Result<PathBuf, String>>,
}

fn main() {
    let args = Arguments::from_args();
    let mut trials = Trials::new(&args);
    let mut guests: Vec<Arc<Guest>> = Vec::new();
    for kernel in guest::kernels() {
        let all = scenarios().into_iter().filter(|(_, text)| runs_on(text, kernel)).collect();
        for (half, scenarios) in guest::halves(all).into_iter().enumerate() {
            guests.push(Arc::new(Guest { kernel, half, scenarios, done: OnceLock::new() }));
        }
    }
    // The guests in turn: threads that wait for one guest do not keep the others from booting.
    for at in 0..guests.iter().map(|g| g.scenarios.len()).max().unwrap_or(0) {
        for guest in &guests {
            let Some((name, _)) = guest.scenarios.get(at).cloned() else { continue };
            let guest = guest.clone();
            trials.add(format!("{}::{name}", guest.kernel.name), move || check(&guest, &name));
        }
    }
    trials.run(&args)
}

/// Whether a scenario runs on a kernel: those that take long name kernels in their first line (`# kernels: 7.2`); in a full run
/// all run everywhere.
fn runs_on(scenario: &str, kernel: Kernel) -> bool {
    let named = scenario.lines().next().and_then(|l| l.strip_prefix("# kernels: "));
    guest::full() || named.is_none_or(|kernels| kernels.split_whitespace().any(|k| k == kernel.name))
}

/// Names and texts of the scenarios, in order.
fn scenarios() -> Vec<(String, String)> {
    let name = std::env::var("TRACECMD_SCENARIO_DIR").unwrap_or_else(|_| "scenarios".into());
    let dir = programs::workspace().join("tests/guest").join(name);
    let mut list: Vec<(String, String)> = std::fs::read_dir(&dir)
        .expect("tests/guest/scenarios")
        .map(|e| e.expect("a directory entry").path())
        .filter(|p| p.extension().is_some_and(|e| e == "sh"))
        .map(|p| {
            let name = p.file_stem().expect("a name").to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&p).expect("a readable scenario"))
        })
        .filter(|(name, _)| guest::chosen("TRACECMD_SCENARIOS", name))
        .collect();
    list.sort();
    list
}

/// Boots the guest once for all its scenarios; as many guests at a time as there are CPUs.
fn boot(guest: &Guest) -> Result<PathBuf, String> {
    static FREE: LazyLock<(Mutex<usize>, Condvar)> =
        LazyLock::new(|| (Mutex::new(std::thread::available_parallelism().map_or(1, usize::from)), Condvar::new()));
    let run = || {
        let mut free = FREE.0.lock().expect("no panic while it is held");
        while *free == 0 {
            free = FREE.1.wait(free).expect("no panic while it is held");
        }
        *free -= 1;
        drop(free);
        let done = run_all(guest);
        *FREE.0.lock().expect("no panic while it is held") += 1;
        FREE.1.notify_one();
        done.map_err(|e| format!("{e:#}"))
    };
    guest.done.get_or_init(run).clone()
}

/// The live tests of the `tracefs` crate, built once.
fn live_tests() -> anyhow::Result<PathBuf> {
    static PATH: LazyLock<Result<PathBuf, String>> =
        LazyLock::new(|| programs::test_program("tracefs", "live").map_err(|e| format!("{e:#}")));
    PATH.clone().map_err(anyhow::Error::msg)
}

fn run_all(guest: &Guest) -> anyhow::Result<PathBuf> {
    let kernel = guest.kernel;
    let out = guest::out_dir("guest", kernel, guest.half);
    let mut script = String::from("ours() { tracecmd \"$@\"; }\nref() { trace-cmd \"$@\"; }\n");
    if let Ok(kills) = std::env::var("TRACECMD_KILLS") {
        script += &format!("export KILLS={kills}\n");
    }
    for (name, text) in &guest.scenarios {
        // A subshell each: a scenario that fails does not end the others, and the time it took is known.
        script += &format!(
            "mkdir -p /out/{name}; export OUT=/out/{name}; s=$(date +%s); echo {name} > /dev/console\n\
             ( set -e\n{text}\n) > $OUT/log 2>&1; echo $? > $OUT/status; echo {name} $(($(date +%s) - s)) s\n"
        );
    }
    let live = live_tests()?;
    let unit_list = Path::new(env!("CARGO_BIN_EXE_unit-list"));
    let state = Path::new(env!("CARGO_BIN_EXE_kernel-state"));
    let speed = Path::new(env!("CARGO_BIN_EXE_record-speed"));
    let files = [
        (live.as_path(), "bin/tracefs-live"),
        (unit_list, "bin/unit-list"),
        (state, "bin/kernel-state"),
        (speed, "bin/record-speed"),
    ];
    guest::run(kernel, &guest::Options::default(), &files, &script, &out)?;
    Ok(out)
}

/// The checks of one scenario on one kernel.
fn check(guest: &Guest, name: &str) -> Result<(), Failed> {
    let out = boot(guest)?.join(name);
    let reference = programs::reference()?;
    let log = std::fs::read_to_string(out.join("log")).unwrap_or_default();
    let status = std::fs::read_to_string(out.join("status")).map_err(|e| format!("the scenario did not run: {e}"))?;
    let mut faults = String::new();
    if status.trim() != "0" {
        faults += &format!("status {}:\n{log}\n{}", status.trim(), tail(&out.join("ours.log")));
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(&out)?.filter_map(Result::ok).map(|e| e.path()).collect();
    files.sort();
    let mut checked = 0;
    for file in &files {
        match file.extension().and_then(|e| e.to_str()) {
            Some("dat") => {
                checked += 1;
                let text = compare::report(programs::tracecmd(), "", file).text;
                if text.iter().filter(|c| **c == b'\n').count() < 2 {
                    faults += &format!("{} has no event\n{}", file.display(), tail(&file.with_extension("log")));
                }
                if let Err(fault) = compare::same_reports(reference, programs::tracecmd(), file, &compare::BASIC) {
                    faults += &fault;
                }
            }
            Some("ref") => {
                checked += 1;
                let have = std::fs::read(file.with_extension("ours")).unwrap_or_default();
                if let Some(place) = compare::first_difference(&std::fs::read(file)?, &have) {
                    faults +=
                        &format!("{} differs (- reference, + ours): {place}\n", file.with_extension("").display());
                }
            }
            _ => {}
        }
    }
    if checked == 0 && status.trim() == "0" {
        faults += "the scenario left nothing to check\n";
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.into()) }
}

/// The end of a log, for a message.
fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(6)..].join("\n") + "\n"
}
