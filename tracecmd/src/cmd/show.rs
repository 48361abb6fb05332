//! `show`: what the kernel's trace files hold now.

use std::io::Write;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use tracefs::{Error, Instance, TraceFs, TracePipe, Wait};

use crate::cli::{self, Ctx};
use crate::cmd::buffers;

/// Options that print one control file, with the file.
const INFO: [(&str, &str, &str); 13] = [
    ("tracing_on", "tracing_on", "Print whether the buffer accepts records"),
    ("current_tracer", "current_tracer", "Print the tracer"),
    ("buffer_size", "buffer_size_kb", "Print the size of the buffer per CPU (kB)"),
    ("buffer_total_size", "buffer_total_size_kb", "Print the size of the buffer of all CPUs (kB)"),
    ("buffer_subbuf_size", "buffer_subbuf_size_kb", "Print the size of a sub-buffer (kB)"),
    ("buffer_percent", "buffer_percent", "Print how full a buffer must be to wake its reader (percent)"),
    ("ftrace_filter", "set_ftrace_filter", "Print the functions that are traced"),
    ("ftrace_notrace", "set_ftrace_notrace", "Print the functions that are not traced"),
    ("ftrace_pid", "set_ftrace_pid", "Print the processes whose functions are traced"),
    ("graph_function", "set_graph_function", "Print the functions that function_graph begins at"),
    ("graph_notrace", "set_graph_notrace", "Print the functions that function_graph leaves out"),
    ("cpumask", "tracing_cpumask", "Print the mask of the CPUs that are traced"),
    ("max_latency", "tracing_max_latency", "Print the worst latency of the latency tracers (us)"),
];

/// The options of `show`.
pub fn command() -> Command {
    let mut command = Command::new("show")
        .arg(cli::switch("p", "Read trace_pipe: records as they come, taken out of the buffer"))
        .arg(cli::switch("s", "Show the snapshot"))
        .arg(cli::option("c", "CPU", "Only this CPU"))
        .arg(cli::option("B", "NAME", "This instance, not the top buffer"))
        .arg(cli::switch("f", "Print the path of the file first"))
        .arg(cli::option("hist", "EVENT", "Print the histograms of an event ([SYSTEM:]EVENT)"))
        .arg(cli::option("trigger", "EVENT", "Print the triggers of an event ([SYSTEM:]EVENT)"));
    for (id, _, help) in INFO {
        command = command.arg(cli::switch(id, help));
    }
    command.after_help(
        "Without an option the file `trace` is printed, which leaves the records in the buffer.\n\n\
         Examples:\n  tracecmd show\n  tracecmd show -p -c 1\n  tracecmd show -B mine --current_tracer --buffer_size\n  \
         tracecmd show --hist sched:sched_switch",
    )
}

/// Prints what the options ask for, in their order; without any, the trace.
pub fn run(_cx: &Ctx, m: &ArgMatches) -> anyhow::Result<ExitCode> {
    let fs = buffers::tracing()?;
    let instance = buffers::one(&fs, m)?;
    let options = cli::ordered(m);
    let has = |id: &str| options.iter().any(|o| o.id == id);
    let mut printed = false;
    for option in &options {
        if let Some((_, file, _)) = INFO.iter().find(|(id, ..)| *id == option.id) {
            instance.dir().require(file, "not built into this kernel, or newer than it")?;
            print(&instance.dir().read_bytes(file)?)?;
            printed = true;
        } else if option.id == "hist" || option.id == "trigger" {
            let (system, event) = find_event(&fs, &instance, &option.text())?;
            let file = format!("events/{system}/{event}/{}", option.id);
            instance.dir().require(&file, "triggers since Linux 3.15, histograms since 4.7 (CONFIG_HIST_TRIGGERS)")?;
            let text = instance.dir().read_bytes(&file)?;
            if option.id == "hist" && text.is_empty() {
                anyhow::bail!(
                    "{system}:{event} has no histogram; see the triggers of the event: show --trigger {event}"
                );
            }
            print(&text)?;
            println!();
            printed = true;
        }
    }
    if printed {
        return Ok(ExitCode::SUCCESS);
    }
    if has("p") && has("s") {
        anyhow::bail!("-p (trace_pipe) and -s (snapshot) exclude each other");
    }
    let file = match (has("p"), has("s")) {
        (true, _) => "trace_pipe",
        (_, true) => "snapshot",
        _ => "trace",
    };
    let mut cpus = options.iter().filter(|o| o.id == "c");
    let cpu = cpus.next().map(|o| buffers::cpu(&o.text())).transpose()?;
    if cpus.next().is_some() {
        anyhow::bail!("only one -c can be given");
    }
    let path = match cpu {
        Some(cpu) => instance.cpu_dir(cpu)?.file(file),
        None => instance.file(file),
    };
    if has("f") {
        println!("{}", path.display());
    }
    if has("p") {
        return pipe(&instance, cpu);
    }
    buffers::cat(&path)?;
    Ok(ExitCode::SUCCESS)
}

fn print(text: &[u8]) -> anyhow::Result<()> {
    let mut out = crate::output::guard::stdout();
    out.write_all(text)?;
    out.flush()?;
    Ok(())
}

/// `SYSTEM:EVENT`, or the first system that has the event.
fn find_event(fs: &TraceFs, instance: &Instance, word: &str) -> anyhow::Result<(String, String)> {
    let missing = || Error::NoEvent { name: word.to_owned(), near: fs.top().near_events(word) };
    if let Some((system, event)) = word.split_once(':') {
        if event.is_empty() || !instance.dir().is_dir(format!("events/{system}/{event}")) {
            return Err(missing().into());
        }
        return Ok((system.to_owned(), event.to_owned()));
    }
    let systems = instance.event_systems()?;
    match systems.into_iter().find(|s| !word.is_empty() && instance.dir().is_dir(format!("events/{s}/{word}"))) {
        Some(system) => Ok((system, word.to_owned())),
        None => Err(missing().into()),
    }
}

/// Prints `trace_pipe` until Ctrl-C, or until tracing is off and everything is read.
fn pipe(instance: &Instance, cpu: Option<u32>) -> anyhow::Result<ExitCode> {
    let mut pipe = TracePipe::open(instance, cpu)?;
    let mut buf = vec![0; 1 << 16];
    let mut out = crate::output::guard::stdout();
    loop {
        let wait = pipe.wait(None)?;
        match pipe.read(&mut buf)? {
            0 if wait == Wait::Ready && !instance.is_on()? => return Ok(ExitCode::SUCCESS),
            0 => std::thread::sleep(std::time::Duration::from_millis(10)),
            n => {
                out.write_all(buf.get(..n).unwrap_or_default())?;
                out.flush()?;
            }
        }
    }
}
