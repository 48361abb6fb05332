//! `check-events`: can every event of the running kernel be understood?

use std::io::Write;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use tracefs::Instance;

use crate::cli::{self, Ctx};
use crate::cmd::buffers;

/// The options of `check-events`.
pub fn command() -> Command {
    Command::new("check-events")
        .arg(cli::switch("N", "Without the printers of single events (they are not needed for the check)"))
        .arg(cli::optional("verbose", "LEVEL", "Level of messages").hide(true))
        .after_help("The status is 1 when a format cannot be understood.\n\nExample:\n  tracecmd check-events")
}

/// Parses the format of every event; each that fails is a line on stderr.
pub fn run(cx: &Ctx, _m: &ArgMatches) -> anyhow::Result<ExitCode> {
    let fs = buffers::tracing()?;
    let decoder = trace_dat::Decoder::new(parts(&fs.top())?);
    let broken = decoder.check_events();
    let mut err = crate::output::guard::stderr();
    for (event, why) in &broken {
        writeln!(err, "{}: {event}: {why}", cx.program)?;
    }
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Parts of a decoder with the formats of all events of the running kernel.
fn parts(top: &Instance) -> anyhow::Result<trace_dat::decoder::DecoderParts> {
    use trace_dat::lazy::{FormatText, FormatTexts, LazyFormats};
    let mut texts = FormatTexts::default();
    let mut systems = top.dir().list_dirs("events")?;
    systems.sort();
    for system in systems {
        let mut events = top.events_of(&system)?;
        events.sort();
        let index = texts.systems.len();
        for event in events {
            let Ok(text) = top.event_format(&system, &event) else { continue };
            let start = texts.text.len();
            texts.text.extend_from_slice(text.as_bytes());
            texts.files.push(FormatText { system: index as _, range: start..texts.text.len() });
        }
        texts.systems.push(system);
    }
    let endian = if cfg!(target_endian = "big") { trace_dat::Endian::Big } else { trace_dat::Endian::Little };
    let long = if size_of::<libc::c_long>() == 8 { trace_dat::LongSize::Eight } else { trace_dat::LongSize::Four };
    let mut parts = trace_dat::decoder::DecoderParts::new(endian, long, 4096);
    parts.formats = LazyFormats::Texts(texts);
    Ok(parts)
}
