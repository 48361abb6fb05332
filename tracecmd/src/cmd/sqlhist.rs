//! `sqlhist`: histograms and synthetic events from SQL.

use std::io::{Read, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Arg, ArgMatches, Command};
use tracefs::hist::Handler;
use tracefs::{Sql, TRACING_DIR, TraceFs};

use crate::cli::{self, Ctx};
use crate::cmd::buffers;

/// The options of `sqlhist`.
pub fn command() -> Command {
    Command::new("sqlhist")
        .arg(cli::option("n", "NAME", "Name of the synthetic event [Anonymous]"))
        .arg(cli::switch("e", "Do it, and print nothing"))
        .arg(cli::option("f", "FILE", "Read the statement from a file; - is standard input"))
        .arg(cli::option("m", "FIELD", "Act when this field reaches a new maximum"))
        .arg(cli::option("c", "FIELD", "Act when this field changes"))
        .arg(cli::switch("s", "Then take a snapshot (with -m or -c)"))
        .arg(cli::option("S", "F1,F2", "Then save these fields of the second event (with -m or -c)"))
        .arg(cli::switch("T", "Then make the event and take a snapshot (with -m or -c)"))
        .arg(cli::option("t", "DIR", "Directory with the event formats, in place of the tracing directory"))
        .arg(cli::option("B", "NAME", "Instance for a histogram"))
        .arg(Arg::new("sql").value_name("SQL").num_args(0..).help("The statement"))
        .after_help(
            "SELECT FIELD {, FIELD} FROM EVENT [AS ALIAS]\n       [JOIN EVENT [AS ALIAS] ON A = B] [WHERE CONDITION]\n\
             Without JOIN a histogram is made, with JOIN a synthetic event. Without -e the shell commands are printed.\n\n\
             Examples:\n  tracecmd sqlhist \\\n    'SELECT CAST(common_pid AS COMM), CAST(id AS SYSCALL) FROM sys_enter'\n  \
             tracecmd sqlhist -n lat -e \\\n    'SELECT start.pid, TIMESTAMP_DELTA_USECS AS us FROM sched_waking AS start\n     \
             JOIN sched_switch AS end ON start.pid = end.next_pid'",
        )
}

/// Reads the statement, then prints or does what it stands for.
pub fn run(_cx: &Ctx, m: &ArgMatches) -> anyhow::Result<ExitCode> {
    let options = cli::ordered(m);
    let last = |id: &str| options.iter().rev().find(|o| o.id == id).map(cli::Opt::text);
    let has = |id: &str| options.iter().any(|o| o.id == id);
    if has("m") && has("c") {
        anyhow::bail!("-m and -c exclude each other");
    }
    if !has("m") && !has("c") && (has("s") || has("S") || has("T")) {
        anyhow::bail!("-s, -S and -T need -m or -c");
    }
    let words: Vec<String> = m.get_many::<String>("sql").into_iter().flatten().cloned().collect();
    let text = match last("f").as_deref() {
        Some("-") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("standard input")?;
            text
        }
        Some(path) => std::fs::read_to_string(path).with_context(|| path.to_owned())?,
        None if words.is_empty() => anyhow::bail!("no statement; see sqlhist --help"),
        None => words.join(" "),
    };
    let text = text.trim_end();
    let other = last("t").map(TraceFs::at);
    let fs = match &other {
        Some(fs) => fs.clone(),
        None => buffers::tracing()?,
    };
    let name = last("n").unwrap_or_else(|| "Anonymous".to_owned());
    let mut sql = Sql::parse(text, &fs.top(), &name, random())?;
    if let Sql::Synth(s) = &mut sql {
        if let Some(field) = last("m").or_else(|| last("c")) {
            let make: fn(String) -> Handler = if has("m") { Handler::Max } else { Handler::Change };
            if let Some(fields) = last("S") {
                let fields: Vec<String> = fields.split(',').map(|f| f.trim().to_owned()).collect();
                s.on_save(make, &field, &fields)?;
            }
            if has("T") || !(has("s") || has("S")) {
                s.on_trace(make, &field)?;
            }
            if has("T") || has("s") {
                s.on_snapshot(make, &field)?;
            }
        }
        if !s.is_complete() {
            anyhow::bail!("a synthetic event needs fields and a pair of matching fields");
        }
    }
    let instance = match (last("B"), &sql) {
        (Some(name), Sql::Hist { .. }) => Some(name),
        _ => None,
    };
    if has("e") {
        let target = match &instance {
            Some(name) => fs.create_instance(name)?,
            None => fs.top(),
        };
        sql.create(&target)?;
        return Ok(ExitCode::SUCCESS);
    }
    // Commands are for the kernel's directory, also when the formats come from a copy.
    let top = match (&other, &instance) {
        (Some(fs), Some(_)) => fs.path().to_owned(),
        (None, _) => fs.path().to_owned(),
        (Some(_), None) => match TraceFs::find_mounted() {
            Ok(Some(fs)) => fs.path().to_owned(),
            _ => TRACING_DIR.into(),
        },
    };
    let old_file = other.is_none() && !fs.dir().exists("dynamic_events") && fs.dir().exists("synthetic_events");
    if let Sql::Synth(s) = &mut sql {
        s.set_trace_keyword(TraceFs::at(&top).knows_trace_action());
    }
    let dir = match &instance {
        Some(name) => top.join("instances").join(name),
        None => top,
    };
    let mut out = crate::output::guard::stdout();
    out.write_all(sql.echo(&dir.to_string_lossy(), old_file).as_bytes())?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// A number for the names of variables: below 32768, as others have it.
fn random() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    let n = std::collections::hash_map::RandomState::new().build_hasher().finish();
    (n % 32768) as u32
}
