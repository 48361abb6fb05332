//! From a guest to a listener outside: recordings over QEMU's user-mode network, our and the reference's programs at both ends.
//!
//! Every check makes a short choice on one kernel; `TRACECMD_TABLE=full` makes all pairs with both protocols, over TCP and UDP, of
//! events and the function graph, on all kernels. `TRACECMD_KERNELS` and `TRACECMD_GUEST_CPUS` change the guests.
//! The pairs inside a guest are in `tests/guest/long/92-all-pairs.sh`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use libtest_mimic::{Arguments, Failed};
use tracecmd_tests::guest::{self, Kernel, Trials};
use tracecmd_tests::remote::{Listener, finished};
use tracecmd_tests::{compare, programs};

/// Whose program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Ours,
    Reference,
}

impl Side {
    fn name(self) -> &'static str {
        if self == Side::Ours { "ours" } else { "ref" }
    }
}

/// One recording.
#[derive(Debug, Clone, Copy)]
struct Pair {
    client: Side,
    listener: Side,
    v1: bool,
    tcp: bool,
    graph: bool,
}

impl Pair {
    fn name(self) -> String {
        let version = if self.v1 { "V1" } else { "V3" };
        let carrier = if self.tcp { "tcp" } else { "udp" };
        let what = if self.graph { "graph" } else { "events" };
        format!("{}-{}-{version}-{carrier}-{what}", self.client.name(), self.listener.name())
    }

    /// The choice of every check: each program at each end, both protocols, both carriers, both kinds.
    fn chosen(self) -> bool {
        let (ours, theirs) = (self.client == Side::Ours, self.listener == Side::Ours);
        match (ours, theirs) {
            (true, false) => self.tcp != self.v1 && !self.graph,
            (false, true) => self.tcp == self.v1 && self.graph,
            _ => ours && !self.tcp && !self.v1 && !self.graph,
        }
    }
}

/// All that can be told apart: the reference has no way to ask for V1 where V3 is spoken.
fn pairs() -> Vec<Pair> {
    let mut all = Vec::new();
    for client in [Side::Ours, Side::Reference] {
        for listener in [Side::Ours, Side::Reference] {
            for bits in 0..8 {
                let pair = Pair { client, listener, v1: bits & 1 != 0, tcp: bits & 2 != 0, graph: bits & 4 != 0 };
                let asks = client == Side::Ours || listener == Side::Ours || !pair.v1;
                if asks && (guest::full() || pair.chosen()) {
                    all.push(pair);
                }
            }
        }
    }
    all
}

/// What a recording left: the listener's file, and what the guest said.
#[derive(Debug, Clone)]
struct Left {
    file: Option<PathBuf>,
    log: String,
    /// Records that the recorders read from the kernel.
    read: u64,
}

type Boot = Arc<OnceLock<Result<Vec<Left>, String>>>;

fn main() {
    let args = Arguments::from_args();
    let mut trials = Trials::new(&args);
    for kernel in guest::kernels().filter(|k| guest::full() || k.name == "6.12") {
        let (boot, all): (Boot, Arc<[Pair]>) = (Boot::default(), pairs().into());
        for at in 0..all.len() {
            let (boot, all) = (boot.clone(), all.clone());
            trials.add(format!("{}::{}", kernel.name, all[at].name()), move || {
                let left = boot.get_or_init(|| record(kernel, &all).map_err(|e| format!("{e:#}"))).clone()?;
                check(all[at], &left[at])
            });
        }
    }
    trials.run(&args)
}

/// Boots the guest, which records to a listener of its own for each pair.
fn record(kernel: Kernel, pairs: &[Pair]) -> anyhow::Result<Vec<Left>> {
    let out = guest::out_dir("network", kernel, 0);
    let reference = programs::reference().map_err(anyhow::Error::msg)?;
    let mut listeners = Vec::new();
    let mut script = String::from(
        "ours() { tracecmd \"$@\"; }\nref() { trace-cmd \"$@\"; }\nOUT=/out\n. /lib.sh\nmarks\n\
         ping -c 1 10.0.2.2 > /dev/null || echo no network\n",
    );
    for pair in pairs {
        let dir = out.join(pair.name());
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir)?;
        // Ours does as a peer that knows no other protocol; where it is at both ends the client does.
        let (here, there) = match (pair.v1, pair.client) {
            (true, Side::Ours) => ("--only-v1 ", None),
            (true, Side::Reference) => ("", Some("--only-v1")),
            _ => ("", None),
        };
        let listener = match pair.listener {
            Side::Ours => Listener::ours(&dir, "127.0.0.1", there.as_slice()),
            Side::Reference => Listener::reference(reference, &dir),
        }?;
        let what = if pair.graph { "-p function_graph --max-graph-depth 2" } else { "-e sched -e raw_syscalls" };
        let carrier = if pair.tcp { "-t " } else { "" };
        let (client, port, name) = (pair.client.name(), listener.addr.port(), pair.name());
        writeln!(script, "send {client} 10.0.2.2:{port} {name} {here}{carrier}{what}; echo $read > /out/{name}.read")?;
        listeners.push(listener);
    }
    let options = guest::Options { network: true, ..guest::Options::default() };
    let state = Path::new(env!("CARGO_BIN_EXE_kernel-state"));
    guest::run(kernel, &options, &[(state, "bin/kernel-state")], &script, &out)?;
    let said = std::fs::read_to_string(out.join("log")).unwrap_or_default();
    let mut all = Vec::new();
    for (pair, mut listener) in pairs.iter().zip(listeners) {
        let name = pair.name();
        let log = std::fs::read_to_string(out.join(format!("{name}.log"))).unwrap_or_default();
        let read = std::fs::read_to_string(out.join(format!("{name}.read"))).with_context(|| said.clone())?;
        let read = read.trim().parse().with_context(|| format!("{name}: {read}"))?;
        let waited = listener.files(1).map_err(|e| format!("{e:#}\n")).err().unwrap_or_default();
        let log = format!("{log}{waited}listener:\n{}", listener.log());
        let dir = listener.dir.clone();
        listener.end().with_context(|| name)?;
        all.push(Left { file: finished(&dir).pop(), log, read });
    }
    Ok(all)
}

/// The file has every record that was read and all marks, and both programs show the same of it.
///
/// The reference's listener does not count datagrams that it was too slow for, and gives a client up after five seconds: over UDP it
/// may have less, and what it makes of the reference's own client is only shown.
fn check(pair: Pair, left: &Left) -> Result<(), Failed> {
    let theirs = pair.listener == Side::Reference;
    let Some(file) = &left.file else {
        if theirs && pair.client == Side::Reference {
            println!("{}: no file", pair.name());
            return Ok(());
        }
        return Err(format!("no file\n{}", left.log).into());
    };
    let lines = |options: &str, word: &str| {
        let text = compare::report(programs::tracecmd(), options, file).text;
        String::from_utf8_lossy(&text).lines().filter(|l| l.contains(word)).count() as u64
    };
    let (have, marks) = (lines("-R", " ["), lines("", ": mark "));
    let complete = have == left.read && marks == 10;
    let may_lack = theirs && (pair.client == Side::Reference || (!pair.tcp && have > 0 && have < left.read));
    if !complete && !may_lack {
        return Err(format!("{} read, {have} in the file, {marks} of 10 marks\n{}", left.read, left.log).into());
    }
    compare::same_reports(programs::reference()?, programs::tracecmd(), file, &compare::BASIC)?;
    println!("{}: {have} of {} records", pair.name(), left.read);
    Ok(())
}
