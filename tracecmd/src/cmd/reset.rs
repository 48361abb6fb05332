//! `reset`: puts the kernel's tracer back to what it is after a boot.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::{ArgMatches, Command};
use tracefs::{DynEventKind, Instance, TraceFs, journal};

use crate::cli::{self, Ctx};
use crate::cmd::buffers;

/// The options of `reset`.
pub fn command() -> Command {
    buffers::options(Command::new("reset"))
        .arg(cli::option("b", "KB", "Set the buffer size (kB per CPU) of the buffers chosen so far"))
        .arg(cli::switch("d", "Delete the instances chosen so far"))
        .arg(cli::option(
            "k",
            "TYPE",
            "Keep dynamic events of this type: kprobe, kretprobe, uprobe, uretprobe, eprobe, fprobe, tprobe, synth, all",
        ))
        .after_help(
            "Everything that anybody set up in the chosen buffers goes: tracer, events, filters, triggers, dynamic events, \
             data. What a killed recording left behind is undone first.\n\n\
             Examples:\n  tracecmd reset\n  tracecmd reset -B mine -d\n  tracecmd reset -k kprobe -b 1408",
        )
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    /// Name of the buffer (`None`: top), size, to be deleted.
    buffers: Vec<(Option<String>, Option<u64>, bool)>,
    keep: Vec<DynEventKind>,
}

/// Reads the options in order; `all` are the existing instances.
fn wanted(options: &[cli::Opt], all: &[String]) -> anyhow::Result<Wanted> {
    let mut w = Wanted::default();
    let mut current: Vec<Option<String>> = Vec::new();
    let choose = |w: &mut Wanted, name: Option<String>| {
        if !w.buffers.iter().any(|b| b.0 == name) {
            w.buffers.push((name, None, false));
        }
    };
    for option in options {
        let text = option.text();
        match option.id.as_str() {
            "B" => {
                choose(&mut w, Some(text.clone()));
                current = vec![Some(text)];
            }
            "a" => {
                all.iter().for_each(|n| choose(&mut w, Some(n.clone())));
                current = all.iter().cloned().map(Some).collect();
            }
            "t" => {
                choose(&mut w, None);
                current = vec![None];
            }
            "b" => {
                // The kernel makes the least that it can of 1.
                let kb = text
                    .parse::<u64>()
                    .with_context(|| format!("{text:?} is no buffer size: a number of kB per CPU"))?
                    .max(1);
                if current.is_empty() {
                    choose(&mut w, None);
                    current = vec![None];
                }
                w.buffers.iter_mut().filter(|b| current.contains(&b.0)).for_each(|b| b.1 = Some(kb));
            }
            "d" => {
                if current.is_empty() || current.contains(&None) {
                    anyhow::bail!("the top level buffer cannot be deleted; -d belongs behind -B NAME or -a");
                }
                w.buffers.iter_mut().filter(|b| current.contains(&b.0)).for_each(|b| b.2 = true);
            }
            "k" if text == "all" => w.keep.extend(DynEventKind::ALL),
            "k" => match DynEventKind::from_name(&text) {
                Some(kind) => w.keep.push(kind),
                None => anyhow::bail!(
                    "{text:?} is no type of dynamic events: {}, all",
                    DynEventKind::ALL.map(DynEventKind::name).join(", ")
                ),
            },
            _ => {}
        }
    }
    if w.buffers.is_empty() && !options.iter().any(|o| o.id == "a") {
        w.buffers.push((None, None, false));
    }
    Ok(w)
}

/// Undoes what killed sessions left, then resets the chosen buffers.
pub fn run(cx: &Ctx, m: &ArgMatches) -> anyhow::Result<ExitCode> {
    let fs = buffers::tracing()?;
    let w = wanted(&cli::ordered(m), &fs.instances()?)?;
    undo_leftovers(&cx.program, &fs);
    // Every name is looked up before anything is changed.
    let found = w.buffers.iter().map(|(name, size, delete)| {
        let instance = match name {
            None => fs.top(),
            Some(n) => fs.instance(n)?,
        };
        Ok((instance, *size, *delete))
    });
    let found: Vec<(Instance, Option<u64>, bool)> = found.collect::<Result<_, tracefs::Error>>()?;
    let kinds: Vec<DynEventKind> = DynEventKind::ALL.into_iter().filter(|k| !w.keep.contains(k)).collect();
    let mut failed = false;
    for (instance, size, _) in &found {
        let name = instance.name().map_or_else(|| "the top buffer".to_owned(), |n| format!("instance {n}"));
        if let Some(kb) = size {
            instance.set_buffer_size_kb(*kb, None).with_context(|| format!("buffer size of {name}"))?;
        }
        instance
            .reset_with(|i| {
                // Dynamic events belong to the whole kernel; they go once the triggers that use them are gone.
                for (event, error) in i.root().remove_dynevents(&kinds, true)? {
                    let _ = writeln!(std::io::stderr(), "{}: {event} stays: {error}", cx.program);
                    failed = true;
                }
                Ok(())
            })
            .with_context(|| format!("reset of {name}"))?;
    }
    for (instance, _, delete) in found {
        if delete {
            instance.remove()?;
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Undoes what the journals of dead processes list, and says so.
pub fn undo_leftovers(program: &str, fs: &TraceFs) {
    let Some(dir) = journal::runtime_dir() else { return };
    let say = |text: String| {
        let _ = writeln!(std::io::stderr(), "{program}: {text}");
    };
    match journal::leftovers(&dir, fs.path()) {
        Ok(found) => {
            for left in found {
                let (pid, steps) = (left.pid, left.notes.len());
                let errors = left.undo();
                say(format!("undid {steps} changes that the killed process {pid} left"));
                errors.into_iter().for_each(|e| say(e.to_string()));
            }
        }
        Err(e) => say(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(list: &[(&str, &str)]) -> anyhow::Result<Wanted> {
        let options: Vec<cli::Opt> =
            list.iter().map(|(i, v)| cli::Opt { id: (*i).into(), value: Some((*v).into()) }).collect();
        wanted(&options, &["x".into(), "y".into()])
    }

    #[test]
    fn option_order() {
        let name = |n: &str| Some(n.to_owned());
        assert_eq!(get(&[]).unwrap().buffers, [(None, None, false)]);
        assert_eq!(
            get(&[("B", "x"), ("b", "5"), ("B", "y"), ("d", "")]).unwrap().buffers,
            [(name("x"), Some(5), false), (name("y"), None, true)]
        );
        assert_eq!(get(&[("a", ""), ("d", "")]).unwrap().buffers, [(name("x"), None, true), (name("y"), None, true)]);
        assert_eq!(get(&[("b", "7")]).unwrap().buffers, [(None, Some(7), false)]);
        assert_eq!(get(&[("b", "0")]).unwrap().buffers, [(None, Some(1), false)], "the least that the kernel can make");
        assert_eq!(get(&[("k", "synth"), ("k", "kprobe")]).unwrap().keep, [DynEventKind::Synth, DynEventKind::Kprobe]);
        for bad in [[("d", "")].as_slice(), &[("t", ""), ("d", "")], &[("k", "foo")], &[("b", "-1")], &[("b", "x")]] {
            assert!(get(bad).is_err(), "{bad:?}");
        }
    }
}
