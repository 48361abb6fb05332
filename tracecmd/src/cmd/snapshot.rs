//! `snapshot`: take, reset, free or show the snapshot buffer.

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use tracefs::SnapshotAction;

use crate::cli::{self, Ctx};
use crate::cmd::buffers;

/// The options of `snapshot`.
pub fn command() -> Command {
    Command::new("snapshot")
        .arg(cli::switch("s", "Take a snapshot: the live buffer and the snapshot buffer change places"))
        .arg(cli::switch("r", "Reset (empty) the snapshot"))
        .arg(cli::switch("f", "Free the memory of the snapshot"))
        .arg(cli::option("c", "CPU", "Only this CPU"))
        .arg(cli::option("B", "NAME", "The snapshot of this instance"))
        .after_help("Without -s, -r, -f the snapshot is printed.\n\nExamples:\n  tracecmd snapshot -s\n  tracecmd snapshot -c 1")
}

/// Works on the snapshot; the order is reset, free, take.
pub fn run(_cx: &Ctx, m: &ArgMatches) -> anyhow::Result<ExitCode> {
    let fs = buffers::tracing()?;
    let options = cli::ordered(m);
    let has = |id: &str| options.iter().any(|o| o.id == id);
    if has("s") && has("f") {
        anyhow::bail!("-s (take a snapshot) and -f (free it) exclude each other");
    }
    let instance = buffers::one(&fs, m)?;
    let cpu = options.iter().rev().find(|o| o.id == "c").map(|o| buffers::cpu(&o.text())).transpose()?;
    let mut done = false;
    for (id, action) in [("r", SnapshotAction::Clear), ("f", SnapshotAction::Free), ("s", SnapshotAction::Take)] {
        if has(id) {
            instance.snapshot(action, cpu)?;
            done = true;
        }
    }
    if !done {
        let file = match cpu {
            Some(cpu) => format!("per_cpu/cpu{cpu}/snapshot"),
            None => "snapshot".to_owned(),
        };
        instance.dir().require(&file, "snapshots, CONFIG_TRACER_SNAPSHOT, since Linux 3.9")?;
        buffers::cat(&instance.file(file))?;
    }
    Ok(ExitCode::SUCCESS)
}
