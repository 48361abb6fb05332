//! What the libraries have to say, on stderr, as far as the chosen level lets it through.

use std::io::Write;

use log::{Level, LevelFilter, Log, Metadata, Record};

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let mark = match record.level() {
                Level::Error => "error: ",
                Level::Warn => "warning: ",
                _ => "",
            };
            let _ = writeln!(crate::output::guard::stderr(), "{}: {mark}{}", program(), record.args());
        }
    }

    fn flush(&self) {}
}

static PROGRAM: std::sync::OnceLock<String> = std::sync::OnceLock::new();

fn program() -> &'static str {
    PROGRAM.get().map_or("tracecmd", String::as_str)
}

/// Begins with warnings and errors.
pub fn init(name: &str) {
    let _ = PROGRAM.set(name.to_owned());
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}

/// Sets the level by name (a longer word that begins with it counts too) or digit 0–6; `None`: `info`.
///
/// # Errors
/// A word that is no level.
pub fn set_level(level: Option<&str>) -> anyhow::Result<()> {
    let names = [
        ("none", LevelFilter::Off),
        ("crit", LevelFilter::Error),
        ("err", LevelFilter::Error),
        ("warn", LevelFilter::Warn),
        ("info", LevelFilter::Info),
        ("debug", LevelFilter::Debug),
        ("all", LevelFilter::Trace),
    ];
    let wanted = level.unwrap_or("info");
    let found = match wanted.parse::<usize>() {
        Ok(n) => names.get(n),
        Err(_) => names.iter().find(|(name, _)| wanted.starts_with(name)),
    };
    let Some((_, filter)) = found else { anyhow::bail!("invalid verbose level {wanted}") };
    log::set_max_level(*filter);
    Ok(())
}
