//! `-F`, `-v`, `--pid` and `--comm`: the filters of each input; `-T` shows them.

use std::io::Write;

use anyhow::{Context, Result};
use trace_dat::{
    Decoder,
    filter::{Filter, FilterSet, pid_filter},
};

use super::{
    inputs::Inputs,
    options::{FilterArg, ReportOptions},
};

/// The filters of each input: those for all, its own, and that of `--pid` and `--comm`.
///
/// # Errors
/// When a filter cannot be understood for an input.
pub fn of_inputs(options: &ReportOptions, inputs: &Inputs) -> Result<Vec<FilterSet>> {
    let own = inputs.inputs.iter().any(|i| !i.arg.filters.is_empty());
    if !own && options.filters.is_empty() && options.pids.is_empty() && options.comms.is_empty() {
        return Ok(Vec::new());
    }
    inputs
        .inputs
        .iter()
        .map(|input| {
            let mut set = set(&input.dec, options.filters.iter().chain(&input.arg.filters))?;
            if let Some(text) = processes(options, &input.dec)? {
                set.add(compile(&input.dec, &text)?, false);
            }
            Ok(set)
        })
        .collect()
}

fn set<'a>(dec: &Decoder, args: impl Iterator<Item = &'a FilterArg>) -> Result<FilterSet> {
    let mut set = FilterSet::new(dec);
    for arg in args {
        set.add(compile(dec, &arg.text)?, arg.negative);
    }
    Ok(set)
}

fn compile(dec: &Decoder, text: &str) -> Result<Filter> {
    Filter::new(dec, text).with_context(|| format!("Failed to create event filter: {text}"))
}

/// The filter that `--pid` and `--comm` stand for, `None` when no process is named.
///
/// # Errors
/// When a process is not a number.
fn processes(options: &ReportOptions, dec: &Decoder) -> Result<Option<String>> {
    let number = |p: &String| p.parse().with_context(|| format!("--pid {p}: no process number"));
    let mut pids: Vec<i32> = options.pids.iter().map(number).collect::<Result<_>>()?;
    for comm in &options.comms {
        let found = dec.comms().pids_of(comm.as_bytes());
        if found.is_empty() {
            log::warn!("comm: {comm} not in cmdline list");
        }
        pids.extend(found);
    }
    Ok((!pids.is_empty()).then(|| pid_filter(&pids)))
}

/// Writes the compiled filters (`-T`). Those that stand before the first input are shown for themselves too, as the reference does.
///
/// # Errors
/// When the output cannot be written.
pub fn describe(options: &ReportOptions, inputs: &Inputs, sets: &[FilterSet], out: &mut impl Write) -> Result<()> {
    let mut text = Vec::new();
    if let Some(input) = inputs.inputs.first() {
        set(&input.dec, options.filters.iter())?.describe(&mut text);
    }
    sets.iter().for_each(|set| set.describe(&mut text));
    out.write_all(&text).context("cannot write the filters")
}
