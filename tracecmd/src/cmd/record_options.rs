//! The options that record, start, set, extract, stream and profile share.

use std::ffi::OsString;

use clap::{Arg, Command, value_parser};

use crate::cli::{option, optional, switch};
use crate::plan::Verb;

/// The options of one command of the family. All know all options, so that a wrong one is answered with the words for it; help shows
/// those that have an effect.
pub fn command(verb: Verb) -> Command {
    let mut args = what(verb);
    args.extend(buffers(verb));
    args.extend(processes());
    args.extend(functions());
    args.extend(output());
    if verb != Verb::Extract {
        args.push(switch("t", "With -N: data over TCP in place of UDP").help_heading("Output"));
        args.push(switch("a", "Store the formats of all events, not only of the chosen ones").help_heading("Output"));
    }
    args.extend(manner(verb));
    args.extend(profile());
    args.extend(guests());
    let has_effect = |a: &Arg| !without_effect(verb).contains(&a.get_id().as_str());
    let args = args.into_iter().map(|a| if has_effect(&a) { a } else { a.hide(true) });
    let words = Arg::new("command")
        .value_name("COMMAND")
        .help("Command to run, with its arguments; all options stand before it")
        .num_args(0..)
        .value_hint(clap::ValueHint::CommandName)
        .value_parser(value_parser!(OsString))
        .hide(verb == Verb::Extract);
    Command::new(verb.name()).args(args).arg(words).after_help(examples(verb))
}

/// Options that a command refuses or ignores.
fn without_effect(verb: Verb) -> &'static [&'static str] {
    match verb {
        Verb::Record => &["fork", "G", "by-comm", "only-v1"],
        Verb::Start => &[
            "o",
            "N",
            "V",
            "t",
            "tls",
            "tls-ca",
            "tls-cert",
            "tls-key",
            "m",
            "A",
            "proxy",
            "name",
            "daemonize",
            "file-version",
            "compression",
            "proc-map",
            "s",
            "r",
            "nosplice",
            "poll",
            "temp",
            "date",
            "ts-offset",
            "tsync-interval",
            "exit-status",
            "G",
            "by-comm",
            "notimeout",
            "nofifos",
            "only-v1",
            "H",
            "kptr",
            "a",
        ],
        Verb::Set => &[
            "o",
            "N",
            "V",
            "t",
            "tls",
            "tls-ca",
            "tls-cert",
            "tls-key",
            "m",
            "A",
            "proxy",
            "name",
            "daemonize",
            "file-version",
            "compression",
            "proc-map",
            "s",
            "r",
            "nosplice",
            "poll",
            "temp",
            "date",
            "ts-offset",
            "tsync-interval",
            "exit-status",
            "G",
            "by-comm",
            "notimeout",
            "nofifos",
            "only-v1",
            "H",
            "kptr",
            "a",
            "k",
            "K",
            "S",
            "profile",
            "no-filter",
            "fork",
        ],
        Verb::Extract => &[
            "e",
            "f",
            "R",
            "v",
            "fork",
            "N",
            "V",
            "tls",
            "tls-ca",
            "tls-cert",
            "tls-key",
            "m",
            "A",
            "proxy",
            "name",
            "daemonize",
            "G",
            "by-comm",
            "notimeout",
            "nofifos",
            "only-v1",
            "exit-status",
            "F",
            "c",
            "l",
            "g",
            "n",
            "P",
            "b",
            "r",
            "i",
            "T",
            "S",
            "profile",
            "H",
            "proc-map",
            "poll",
            "nosplice",
            "user",
            "func-stack",
            "max-graph-depth",
            "module",
            "no-filter",
            "M",
            "C",
            "subbuf-size",
            "cmdlines-size",
            "d",
            "D",
            "K",
            "stderr",
            "tsync-interval",
            "tsc2nsec",
        ],
        Verb::Stream => &[
            "file-version",
            "compression",
            "A",
            "proxy",
            "name",
            "N",
            "V",
            "t",
            "tls",
            "tls-ca",
            "tls-cert",
            "tls-key",
            "m",
            "daemonize",
            "temp",
            "o",
            "fork",
            "a",
            "kptr",
            "proc-map",
            "tsync-interval",
            "nofifos",
            "notimeout",
            "poll",
            "nosplice",
            "H",
            "S",
            "G",
            "by-comm",
            "profile",
        ],
        Verb::Profile => &[
            "file-version",
            "compression",
            "A",
            "proxy",
            "name",
            "N",
            "V",
            "t",
            "tls",
            "tls-ca",
            "tls-cert",
            "tls-key",
            "m",
            "daemonize",
            "temp",
            "fork",
            "a",
            "kptr",
            "proc-map",
            "tsync-interval",
            "nofifos",
            "notimeout",
            "poll",
            "nosplice",
            "profile",
        ],
    }
}

fn what(verb: Verb) -> Vec<Arg> {
    let h = "What to trace";
    [
        option("e", "EVENT", "Trace this event: NAME, SYSTEM, SYSTEM:NAME or all; each part may be a glob"),
        option("f", "FILTER", "Only when this holds, for the -e before it: 'prev_pid > 1'; several are joined with &&"),
        option("R", "TRIGGER", "Trigger for the -e before it: stacktrace, snapshot, hist:keys=..."),
        switch(
            "v",
            if verb == Verb::Set {
                "The -e that follow are switched off in place of on, the -B removed"
            } else {
                "The -e that follow are switched off in place of on"
            },
        ),
        option("p", "TRACER", "Tracer, such as function or function_graph; `list -t` shows what there is"),
        option("O", "OPTION", "Set a trace option, or with `no` in front clear it; `list -o` shows them"),
        switch("T", "A kernel stack with every event (-O stacktrace)"),
        switch("i", "An event that this kernel does not have is no error"),
    ]
    .map(|a| a.help_heading(h))
    .into()
}

fn buffers(verb: Verb) -> Vec<Arg> {
    let h = "Buffers";
    let extract = verb == Verb::Extract;
    let mut args = vec![
        option(
            "B",
            "INSTANCE",
            if extract {
                "Take this instance"
            } else {
                "What follows is for this instance, which is made if it does not exist"
            },
        ),
        option("b", "KB", "Size of the buffer per CPU, kilobytes"),
        option("subbuf-size", "KB", "Size of a sub-buffer, kilobytes (since Linux 6.8)"),
        option("M", "MASK", "CPUs to trace, as hexadecimal mask; -1: all"),
        option("C", "CLOCK", "Trace clock; `list -C` shows them; tsc2nsec: x86-tsc, printed as nanoseconds"),
        switch("tsc2nsec", "Store how ticks of the TSC become nanoseconds"),
        option("cmdlines-size", "N", "How many process names the kernel keeps"),
        switch("k", "Leave everything as it is at the end; tracing stops"),
        switch("K", "And reset nothing at the start"),
    ];
    if extract {
        args.push(switch("a", "Take all instances"));
        args.push(switch("t", "Take the top buffer too, beside -B or -a"));
        args.push(switch("s", "Take the snapshot in place of the buffer"));
    }
    args.into_iter().map(|a| a.help_heading(h)).collect()
}

fn processes() -> Vec<Arg> {
    let h = "Processes";
    [
        switch("F", "Trace only the command"),
        option("P", "PID[,PID...]", "Trace only these processes; without a command the recording ends with them"),
        switch("c", "With -F or -P: their children too"),
        option("user", "NAME", "Run the command as this user"),
        switch("proc-map", "Store where the traced processes have their programs and libraries"),
        switch("no-filter", "Do not leave our own recorder threads out of the trace"),
        switch("exit-status", "End with the status of the command"),
        switch("fork", "Do not wait for the command"),
    ]
    .map(|a| a.help_heading(h))
    .into()
}

fn functions() -> Vec<Arg> {
    let h = "Functions";
    [
        option("l", "FUNCTION", "Trace only these: name, glob or regex; or FUNCTION:COMMAND"),
        option("n", "FUNCTION", "Do not trace these"),
        option("g", "FUNCTION", "Start function_graph at these"),
        option("module", "MODULE", "The -l, -n, -g that follow are within this module"),
        option("max-graph-depth", "N", "How deep function_graph follows calls"),
        switch("func-stack", "A kernel stack with every function; only with -p function and -l"),
        switch("d", "Switch function tracing off meanwhile"),
        switch("D", "And for all users of the function hooks"),
    ]
    .map(|a| a.help_heading(h))
    .into()
}

fn output() -> Vec<Arg> {
    let h = "Output";
    [
        option("o", "FILE", "Where to write; default: trace.dat"),
        option("m", "KB", "Keep at most this much per CPU: the newest"),
        option("file-version", "6|7", "Version of the file format"),
        option("compression", "NAME", "zstd (default), zlib, none, any"),
        option("temp", "DIR", "Directory for the raw data during the recording"),
        switch("date", "Store the time of day, so that report can show it"),
        option("ts-offset", "N", "Add this to all times"),
        switch("kptr", "Let the kernel show its addresses while its symbols are copied"),
        option("N", "HOST:PORT", "Send the data to `listen` on another machine"),
        option("V", "CID:PORT", "The same over vsock"),
        switch("tls", "With -N: encrypted, over TCP; the listener must show a certificate"),
        option("tls-ca", "FILE", "Trust listeners with a certificate signed by this one (PEM) [default: the system's]"),
        option("tls-cert", "FILE", "Show this certificate to the listener (PEM)"),
        option("tls-key", "FILE", "Private key of that certificate (PEM)"),
        switch("q", "Only errors").long("quiet"),
        switch("stderr", "Our own messages of stdout go to stderr"),
    ]
    .map(|a| a.help_heading(h))
    .into()
}

fn manner(verb: Verb) -> Vec<Arg> {
    let h = "Manner";
    let mut args = vec![
        option("r", "PRIORITY", "Real-time priority of the recorders"),
        switch("poll", "Recorders never wait"),
        switch("nosplice", "Read and write in place of splice"),
        switch("daemonize", "Go to the background when recording runs"),
        switch("dry-run", "Print what would be set, and change nothing"),
        switch("debug", "More messages (--verbose=debug)"),
        optional("verbose", "LEVEL", "Messages of libraries: none, crit, err, warn, info, debug, all"),
    ];
    if verb != Verb::Extract {
        args.push(option("s", "USEC", "Pause of a recorder when there is nothing to read"));
    }
    args.into_iter().map(|a| a.help_heading(h)).collect()
}

fn profile() -> Vec<Arg> {
    let h = "Profile";
    [
        switch("profile", "Trace what `report --profile` needs"),
        option("H", "HOOK", "Measure a pair of events: [SYS:]EVENT,FIELD[,PID]/[SYS:]EVENT,FIELD[,FLAGS]"),
        switch("S", "Only the events that were named"),
        switch("G", "Interrupts are of no task"),
        switch("by-comm", "Tasks of one name are one"),
    ]
    .map(|a| a.help_heading(h))
    .into()
}

fn guests() -> Vec<Arg> {
    let h = "Guests";
    [
        option("A", "GUEST", "Record this guest too: NAME, CID or HOST, with :PORT; options behind it are the guest's"),
        option("proxy", "PEER", "As -A; the peer records the other side"),
        option("name", "NAME", "Name of the last -A"),
        option("tsync-interval", "MS", "Time between clock measurements; negative: none, 0: first and last"),
        switch("nofifos", "Do not use FIFOs of guests"),
        switch("only-v1", "With -N: protocol V1, as a recorder of before V3"),
        switch("notimeout", "Wait for messages without limit"),
    ]
    .map(|a| a.help_heading(h))
    .into()
}

fn examples(verb: Verb) -> &'static str {
    match verb {
        Verb::Record => {
            "The order of options counts: -f and -R belong to the -e before them, and everything under What to trace, Buffers and \
             Functions to the -B before it (to the top buffer without one). Without a command tracing ends with Ctrl-C. Afterwards the \
             kernel's settings are what they were before.\n\n\
             Examples:\n  \
             tracecmd record -e sched ls\n      \
             events of the scheduler while ls runs, into trace.dat\n  \
             tracecmd record -p function_graph -g vfs_read -F cat /etc/passwd\n      \
             what vfs_read calls, and how long it takes\n  \
             tracecmd record -e sched:sched_switch -f 'prev_prio < 100'\n      \
             real-time tasks only, until Ctrl-C\n  \
             tracecmd record -e sched -B disk -e block -b 8192 sleep 1\n      \
             two buffers, the second one larger"
        }
        Verb::Start => {
            "As record, but nothing is read and nothing is brought back: look at the buffer with show, store it with extract, end with \
             stop and reset.\n\n\
             Examples:\n  \
             tracecmd start -e sched -e irq\n  \
             tracecmd start -p function_graph -F ./program"
        }
        Verb::Set => {
            "Only what is named is changed; it stays so.\n\n\
             Examples:\n  \
             tracecmd set -e sched           switch events on\n  \
             tracecmd set -v -e 'sched_st*'  ... and some of them off\n  \
             tracecmd set -p function        change the tracer\n  \
             tracecmd set -v -B foo          remove an instance"
        }
        Verb::Extract => {
            "Tracing is stopped and what was set up is cleared afterwards, unless -k is given.\n\n\
             Examples:\n  \
             tracecmd extract -o now.dat     what the top buffer holds now\n  \
             tracecmd extract -s             the snapshot\n  \
             tracecmd extract -B foo -k      an instance, left as it is"
        }
        Verb::Stream => {
            "As record, but the events are printed as report prints them, a moment after they happened. The kernel's settings are \
             brought back at the end.\n\n\
             Examples:\n  \
             tracecmd stream -e sched:sched_process_exec\n  \
             tracecmd stream -e syscalls -F ls"
        }
        Verb::Profile => {
            "As record --profile with report --profile, without a file: for each task how long it ran, waited and for what, with the \
             kernel stacks that led there.\n\n\
             Examples:\n  \
             tracecmd profile -F sleep 1     where a command spends its time\n  \
             tracecmd profile -p nop -S -e sched:sched_switch sleep 5"
        }
    }
}
