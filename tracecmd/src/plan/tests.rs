use std::ffi::OsString;

use super::*;
use crate::cli;

fn plan(verb: Verb, line: &[&str]) -> anyhow::Result<Plan> {
    let words: Vec<OsString> = line.iter().map(OsString::from).collect();
    let entry = cli::Entry {
        name: verb.name(),
        about: "",
        words: cli::Words::Stop,
        build: match verb {
            Verb::Record => || crate::cmd::record_options::command(Verb::Record),
            Verb::Start => || crate::cmd::record_options::command(Verb::Start),
            Verb::Set => || crate::cmd::record_options::command(Verb::Set),
            Verb::Extract => || crate::cmd::record_options::command(Verb::Extract),
            Verb::Stream => || crate::cmd::record_options::command(Verb::Stream),
            Verb::Profile => || crate::cmd::record_options::command(Verb::Profile),
        },
        run: |_, _| Ok(std::process::ExitCode::SUCCESS),
    };
    Plan::new(verb, &cli::ordered(&cli::parse("tracecmd", &entry, &words)?))
}

fn record(line: &str) -> Plan {
    plan(Verb::Record, &line.split(' ').collect::<Vec<_>>()).unwrap()
}

fn refused(verb: Verb, line: &str) -> String {
    plan(verb, &line.split(' ').filter(|w| !w.is_empty()).collect::<Vec<_>>()).unwrap_err().to_string()
}

#[test]
fn filters_belong_to_the_event_before() {
    let p = record("-e sched -f a==1 -f b==2 -R stacktrace -e irq -v -e sched:*stat* ls -e x");
    let e = &p.top_buffer().events;
    assert_eq!(e[0].filter.as_deref(), Some("(a==1)&&(b==2)"));
    assert_eq!(e[0].triggers, ["stacktrace"]);
    assert_eq!((e[1].pattern.as_str(), &e[1].filter, e[1].negative), ("irq", &None, false));
    assert!(e[2].negative);
    assert_eq!(p.command, ["ls", "-e", "x"]);
    assert_eq!(p.formats.as_deref(), Some(&["sched".to_owned(), "irq".into(), "sched:*stat*".into()][..]));
}

#[test]
fn options_belong_to_the_instance_before() {
    let p = record("-v -e a -B one -e b -b 100 -p function -l x -B two -C mono -e c -b 200 -B one -O foo -q -F ls");
    assert_eq!(p.buffers.len(), 3);
    assert!(p.top_buffer().events[0].negative);
    let one = &p.buffers[1];
    assert_eq!((one.name.as_deref(), one.size_kb, one.tracer.as_deref()), (Some("one"), Some(100), Some("function")));
    assert!(!one.events[0].negative, "-B ends -v");
    assert_eq!(one.options, ["foo"]);
    assert_eq!((p.buffers[2].clock.as_deref(), p.buffers[2].size_kb), (Some("mono"), Some(200)));
    assert!(p.quiet && p.only_command && p.top);
}

#[test]
fn the_top_buffer_takes_part_only_when_asked() {
    assert!(!record("-B one -e b ls").top);
    assert!(record("-F -B one -e b ls").top);
    assert!(record("-p function -B one -e b ls").top);
}

#[test]
fn modules_and_functions() {
    let p = record("-p function --module a --module b -l x -n y -B i --module c");
    let f = |p: &str, m: &str| FuncChoice { pattern: p.into(), module: Some(m.into()) };
    assert_eq!(p.top_buffer().functions, [f("*", "a"), f("x", "b")]);
    assert_eq!(p.top_buffer().not_functions, [f("y", "b")]);
    assert_eq!(p.buffers[1].functions, [f("*", "c")]);
}

#[test]
fn guests_get_their_options_as_typed() {
    let p =
        record("-e sched -A one:823 -e irq -f x==1 -C mono --max-graph-depth 3 -q --name two -p nop -B i -e timer ls");
    assert_eq!(p.guests.len(), 1);
    let g = &p.guests[0];
    assert_eq!((g.target.as_str(), g.name.as_deref(), g.own_clock), ("one:823", Some("two"), true));
    assert_eq!(g.args, ["-e", "irq", "-f", "x==1", "-C", "mono", "--max-graph-depth", "3", "-q", "-p", "nop"]);
    assert_eq!(p.buffers[1].events[0].pattern, "timer");
    assert!(!p.quiet);
    let p = record("--proxy 3 -e irq -A x -e sched");
    assert_eq!(p.guests[0].args, ["-e", "irq", "-A", "x", "-e", "sched"]);
}

#[test]
fn messages() {
    for (line, text) in [
        ("", "no event or plugin was specified... aborting"),
        ("-F", "no event or plugin was specified... aborting"),
        ("-f x", "filter must come after event"),
        ("-e a -B b -f x", "filter must come after event"),
        ("-R x -e sched", "trigger must come after event"),
        ("-p function -p nop", "only one plugin allowed"),
        ("-o a -o b -e sched", "only one output file allowed"),
        ("-c -e sched ls", "-c can only be used with -F (or -P with event-fork support)"),
        ("-N 1 -o x -e sched", "-o incompatible with -N"),
        ("-m 1 -m 2 -e sched", "-m can only be specified once"),
        ("--date --ts-offset 5 -e sched", "Can not use both --date and --ts-offset"),
        ("--file-version 5 -e sched", "Unsupported file version 5, supported versions are from 6 to 7"),
        ("--compression foo -e sched", "Compression algorithm  foo is not supported"),
        ("--func-stack -p function", "Must supply function filtering with --func-stack\n"),
        ("--temp a --temp b -e sched", "Only one temp directory can be listed"),
        ("--name x -e sched", "--name is only used for -A options"),
        ("--fork -e sched", "--fork option used for 'start' command only"),
        ("-b x -e sched", "-b needs a number, not \"x\""),
        ("-B a/b -e sched", "\"a/b\" cannot be the name of an instance"),
    ] {
        assert_eq!(refused(Verb::Record, line), text, "{line}");
    }
    assert_eq!(refused(Verb::Set, "-K"), "-k has no effect with the command set\nDid you mean 'record'?");
    assert_eq!(refused(Verb::Set, "--date"), "--date has no effect with the command set\nDid you mean 'record'?");
    assert_eq!(refused(Verb::Start, "-o x"), "start does not take output\nDid you mean 'record'?");
    assert_eq!(refused(Verb::Stream, "-m 5"), "only record take 'm' option");
    assert_eq!(refused(Verb::Profile, "-A x"), "-A is only allowed for record operations");
    assert_eq!(refused(Verb::Profile, "--file-version 7"), "--file_version has no effect with the command profile");
    assert!(refused(Verb::Extract, "ls").contains("extract runs no command"));
}

#[test]
fn hooks() {
    let p = record("-H sched:sched_switch,prev_pid,x/irq_handler_exit,irq,PsG");
    let h = &p.hooks[0];
    assert_eq!(
        (h.start.system.as_deref(), h.start.field.as_str(), h.pid.as_deref()),
        (Some("sched"), "prev_pid", Some("x"))
    );
    assert!(h.per_cpu && h.stack && h.global);
    assert_eq!(p.top_buffer().events[1].pattern, "*:irq_handler_exit");
    assert!(refused(Verb::Record, "-H foo").starts_with("Invalid hook format 'foo'"));
    assert!(refused(Verb::Record, "-H a,b/c,d,z").starts_with("Invalid hook"));
}

#[test]
fn set_and_extract() {
    let p = plan(Verb::Set, &["-v", "-B", "foo", "-e", "sched"]).unwrap();
    assert!(p.buffers[1].delete && p.keep && p.keep_before);
    assert!(!p.buffers[1].events[0].negative);
    let p = plan(Verb::Extract, &["-B", "foo"]).unwrap();
    assert!(!p.top && p.formats.is_none());
    assert!(plan(Verb::Extract, &["-B", "foo", "-t"]).unwrap().top);
    let p = plan(Verb::Extract, &["-a", "-s"]).unwrap();
    assert!(!p.top && p.all_instances && p.snapshot);
    assert!(plan(Verb::Extract, &["-k"]).unwrap().top);
}

#[test]
fn profiles() {
    let p = plan(Verb::Profile, &["-F", "ls"]).unwrap();
    assert_eq!(p.top_buffer().tracer.as_deref(), Some("function_graph"));
    assert_eq!(p.top_buffer().max_graph_depth, Some(1));
    let p = record("--profile -S -e sched ls");
    assert_eq!(p.top_buffer().tracer, None);
}

#[test]
fn shown() {
    let p = record("-e sched -f x>1 -b 100 -B i -p function -l vfs_* ls -l");
    assert_eq!(
        p.to_string(),
        "record\n\
         buffer (top)\n  tracing_on = 0, current_tracer = nop, events/enable = 0, trace is emptied\n  sched filter = (x>1)\n  sched enable = 1\n  buffer_size_kb = 100\n\
         buffer i\n  tracing_on = 0, current_tracer = nop, events/enable = 0, trace is emptied\n  set_ftrace_filter = vfs_*\n  current_tracer = function\n\
         run ls -l\nwrite trace.dat\nbring everything back\n"
    );
}
