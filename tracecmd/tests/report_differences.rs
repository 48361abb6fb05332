//! What `report` does otherwise than the reference, on purpose: lines of fixtures/DIFFERENCES.md.

use std::path::PathBuf;
use std::process::{Command, Output};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(name)
}

fn report(options: &[&str], file: &std::path::Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tracecmd")).arg("report").args(options).arg(file).output().unwrap()
}

fn text(options: &[&str], name: &str) -> String {
    let out = report(options, &fixture(name));
    assert!(out.status.success(), "{options:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// The time column of the first line, in nanoseconds.
fn first_time(options: &[&str]) -> u64 {
    let all = text(&[&["-t"], options].concat(), "s390x-6.1-v6.dat");
    let line = all.lines().nth(1).unwrap();
    let time = line.split_whitespace().find_map(|w| w.strip_suffix(':').filter(|w| w.contains('.'))).unwrap();
    time.replace('.', "").parse().unwrap()
}

#[test]
fn ts_offset_moves_the_only_file() {
    let before = first_time(&[]);
    assert_eq!(first_time(&["--ts-offset", "1000000"]), before + 1_000_000);
    assert_eq!(first_time(&["--ts-offset", "-5"]), before - 5);
}

#[test]
fn uname_is_the_uname_only() {
    let out = text(&["--uname"], "s390x-6.1-v6.dat");
    assert_eq!(out.lines().count(), 2, "{out}");
    assert!(out.starts_with("cpus=2\nLinux ") && out.ends_with(" s390x\n"), "{out}");
}

#[test]
fn formats_of_version_7_are_listed() {
    let out = text(&["--event", "sched_switch"], "s390x-6.1-inst.dat");
    assert!(out.starts_with("\nsystem: sched\nname: sched_switch\nID: "), "{out}");
    assert!(text(&["--events"], "s390x-6.1-inst.dat").matches("\nname: ").count() > 5);
}

#[test]
fn damage_is_told_and_the_rest_is_shown() {
    let whole = std::fs::read(fixture("s390x-6.1-v6.dat")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cut = dir.path().join("cut.dat");
    std::fs::write(&cut, &whole[..whole.len() - 6000]).unwrap();
    let out = report(&[], &cut);
    assert_eq!(out.status.code(), Some(1));
    let message = String::from_utf8(out.stderr).unwrap();
    assert!(message.contains("CPU 1") && message.contains("0x"), "{message}");
    let shown = String::from_utf8(out.stdout).unwrap();
    let all = text(&[], "s390x-6.1-v6.dat");
    assert!(shown.lines().count() > all.lines().count() / 2, "{}", shown.lines().count());
    assert!(shown.lines().take(50).eq(all.lines().take(50)));
}

#[test]
fn wrong_numbers_are_errors() {
    for options in [["--cpu", "x"], ["--ts-offset", "x"], ["--ts2secs", "x"]] {
        let out = report(&options, &fixture("s390x-6.1-v6.dat"));
        assert!(!out.status.success() && out.stdout.is_empty(), "{options:?}");
    }
}

#[test]
fn head_and_tail_are_ends_of_the_report() {
    let all = text(&[], "i386-6.1-events.dat");
    let lines: Vec<_> = all.lines().collect();
    let head = text(&["--head", "7"], "i386-6.1-events.dat");
    assert_eq!(head.lines().collect::<Vec<_>>(), lines[..8]);
    let tail = text(&["--tail", "7"], "i386-6.1-events.dat");
    assert_eq!(tail.lines().skip(1).collect::<Vec<_>>(), lines[lines.len() - 7..]);
}

/// The last lines up to a time, of every buffer and input together.
#[test]
fn tails_end_where_the_window_does() {
    for name in ["i386-6.1-events.dat", "s390x-6.1-inst.dat", "x86_64-6.12-fgraph-v6.dat"] {
        let all = lines(&["-t"], name);
        let time = |line: &String| {
            let word = line.split_whitespace().find_map(|w| w.strip_suffix(':').filter(|w| w.contains('.')));
            word.unwrap().to_owned()
        };
        for at in [0, 5, all.len() / 2, all.len() - 1] {
            let to = time(&all[at]);
            // Records of the same time belong to the window.
            let end = all.iter().rposition(|l| time(l) == to).unwrap() + 1;
            for n in [1, 3, 40, 1_000_000] {
                let want = &all[end.saturating_sub(n)..end];
                assert_eq!(lines(&["-t", "--to", &to, "--tail", &n.to_string()], name), want, "{name} {to} {n}");
            }
            let from = time(&all[at / 2]);
            let begin = all.iter().position(|l| time(l) == from).unwrap();
            let want = &all[begin.max(end.saturating_sub(9))..end];
            assert_eq!(lines(&["-t", "--from", &from, "--to", &to, "--tail", "9"], name), want, "{name} {from} {to}");
        }
    }
}

/// Every line is an object with the members that docs/JSON.md lists, in its order.
#[test]
fn json_lines_of_all_recordings_are_as_documented() {
    let doc = std::fs::read_to_string(fixture("../docs/JSON.md")).unwrap();
    let table = doc.lines().skip_while(|l| !l.starts_with("| member")).take_while(|l| l.starts_with('|')).skip(2);
    let names: Vec<String> = table
        .flat_map(|row| row.split('|').nth(1).unwrap().split(',').map(|n| n.trim().trim_matches('`').to_owned()))
        .collect();
    assert_eq!((names.len(), names[0].as_str(), names[16].as_str()), (17, "ts", "text"), "{names:?}");
    let mut seen = 0;
    for entry in std::fs::read_dir(fixture("")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "dat") {
            continue;
        }
        let done = report(&["--json", "-w"], &path);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        for line in String::from_utf8(done.stdout).unwrap().lines() {
            let object: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            let members = object.as_object().unwrap();
            assert!(members.keys().all(|k| names.contains(k)), "{line}");
            // As written: members of a map have no order.
            let places: Vec<usize> = names.iter().filter_map(|n| line.find(&format!("\"{n}\":"))).collect();
            assert!(members.len() >= 12 && places.len() >= members.len(), "{line}");
            seen += 1;
        }
    }
    assert!(seen > 50_000, "{seen}");
}

#[test]
fn json_has_the_text_of_every_line() {
    let all = text(&["-t"], "s390x-6.1-inst.dat");
    let json = text(&["--json", "-t"], "s390x-6.1-inst.dat");
    assert_eq!(json.lines().count() + 1, all.lines().count());
    for (object, line) in json.lines().zip(all.lines().skip(1)) {
        let object: serde_json::Value = serde_json::from_str(object).unwrap();
        assert!(line.ends_with(object["text"].as_str().unwrap()), "{object}\n{line}");
        assert!(line.starts_with(object["buffer"].as_str().unwrap()), "{object}\n{line}");
        assert!(object["fields"].as_object().is_some_and(|f| !f.is_empty()), "{object}");
    }
}

#[test]
fn threads_change_nothing() {
    let one = text(&["--threads", "1"], "s390x-6.1-fgraph.dat");
    assert!(text(&["--threads", "4"], "s390x-6.1-fgraph.dat") == one);
}

/// The lines of a report without its first.
fn lines(options: &[&str], name: &str) -> Vec<String> {
    text(options, name).lines().skip(1).map(str::to_owned).collect()
}

/// Which buffers the lines come from.
fn buffers(lines: &[String]) -> std::collections::BTreeSet<&str> {
    lines.iter().filter_map(|l| l.trim_start().split_once(':').map(|(b, _)| b)).collect()
}

#[test]
fn filters_and_cpus_are_those_of_every_buffer() {
    let name = "x86_64-7.2-instances.dat";
    let all = lines(&[], name);
    let of_cpu: Vec<_> = all.iter().filter(|l| l.contains(" [001] ")).cloned().collect();
    assert_eq!(buffers(&of_cpu).len(), 2, "{:?}", buffers(&of_cpu));
    assert_eq!(lines(&["--cpu", "1"], name), of_cpu);
    let filtered = lines(&["-F", ".*: CPU == 1"], name);
    assert_eq!(filtered, of_cpu);
    let switches = lines(&["-F", "sched_switch"], "s390x-6.1-inst.dat");
    assert!(!switches.is_empty() && switches.iter().all(|l| l.contains(" sched_switch: ")));
    let tasks = lines(&["--pid", "0,1"], name);
    assert!(!tasks.is_empty() && tasks.len() < all.len() / 2, "{} of {}", tasks.len(), all.len());
}

/// What is shown of two inputs is what is shown of each.
#[test]
fn filters_and_cpus_are_those_of_every_input() {
    let names = ["x86_64-6.1-sched-v6.dat", "i386-6.1-events.dat"];
    for options in [&["--cpu", "1"][..], &["--pid", "0,15"], &["--comm", "w,ls"]] {
        let mut words: Vec<&str> = options.to_vec();
        let paths = names.map(|n| fixture(n).to_str().unwrap().to_owned());
        words.extend(paths.iter().flat_map(|p| ["-i", p.as_str()]));
        let done = Command::new(env!("CARGO_BIN_EXE_tracecmd")).arg("report").args(&words).output().unwrap();
        let out = String::from_utf8(done.stdout).unwrap();
        for name in names {
            let prefix = format!("{name}: ");
            let mine: Vec<_> = out.lines().skip(2).filter_map(|l| l.trim_start().strip_prefix(&prefix)).collect();
            let alone = lines(options, name);
            assert!(mine.len() > 5 && mine.len() < lines(&[], name).len(), "{options:?} {name}: {}", mine.len());
            assert_eq!(mine, alone, "{options:?} {name}");
        }
    }
}

#[test]
fn times_of_instances_are_aligned_too() {
    let first = lines(&["--align-ts"], "s390x-6.1-inst.dat").remove(0);
    assert!(first.contains(" 0.000000: "), "{first}");
}

#[test]
fn test_of_filters_ends_with_them() {
    let out = text(&["-T", "-F", "sched_switch: prev_pid > 1"], "x86_64-6.1-sched-v6.dat");
    assert!(out.contains("prev_pid > 1") && !out.contains("cpus="), "{out}");
}

#[test]
fn a_wrong_filter_is_told_before_anything_is_shown() {
    let first = fixture("x86_64-6.1-sched-v6.dat");
    let second = fixture("i386-6.1-events.dat");
    let words = ["-i", first.to_str().unwrap(), "-F", "sched_switch", "-i", second.to_str().unwrap(), "-F"];
    let done = Command::new(env!("CARGO_BIN_EXE_tracecmd")).arg("report").args(words).arg("nosuch").output().unwrap();
    assert!(!done.status.success() && done.stdout.is_empty());
    assert!(String::from_utf8(done.stderr).unwrap().contains("nosuch"));
}

#[test]
fn verbose_says_the_version_and_no_plugin_files() {
    let out = text(&["-V"], "x86_64-6.1-sched-v6.dat");
    assert!(out.starts_with("version = 6\ncpus=2\n") && !out.contains("plugin"), "{}", &out[..200]);
}

/// Group, event, and total of the lines of a profile.
fn totals(out: &str) -> Vec<(usize, String, u64)> {
    let mut task = 0;
    let mut all = Vec::new();
    for line in out.lines() {
        task += usize::from(!line.starts_with(' '));
        if let Some((event, rest)) = line.strip_prefix("  Event: ").and_then(|l| l.split_once(':')) {
            let total = rest.split_once("Total: ").map_or(0, |(_, t)| t.split(' ').next().unwrap().parse().unwrap());
            all.push((task, event.to_owned(), total));
        }
    }
    all
}

#[test]
fn profiles_are_in_order_and_without_debug_lines() {
    let name = "x86_64-6.1-sched-v6.dat";
    let hook = "sched_wakeup,pid/sched_switch,next_pid";
    let with = text(&["-H", hook, "--profile"], name);
    assert!(with.starts_with("cpus=2\n") && !with.contains("start (null)"), "{with}");
    for out in [text(&["--profile"], name), text(&["--profile", "-G"], name), with] {
        let all = totals(&out);
        assert!(all.len() > 20);
        // Within a task and an event the largest total stands first.
        for pair in all.windows(2).filter(|p| p[0].0 == p[1].0 && p[0].1 == p[1].1 && !p[0].1.contains("switch")) {
            assert!(pair[0].2 >= pair[1].2, "{pair:?}");
        }
    }
    let groups = text(&["--profile", "--by-comm"], name);
    let groups: Vec<_> = groups.lines().filter_map(|l| l.strip_prefix("group: ")).collect();
    assert!(groups.len() > 5 && groups.is_sorted(), "{groups:?}");
    // No scheduler event tells a name here.
    let tasks = text(&["--profile", "--by-comm"], "i386-6.1-v6fg.dat");
    assert!(tasks.contains("\ntask: w-158\n") && tasks.contains("\ntask: w-163\n") && !tasks.contains("group: "));
}

/// Tasks that are switched to themselves, wakeups of running ones, states with bits that have no letter.
#[test]
fn unlikely_switches_are_paired_as_in_the_reference() {
    let expected = std::fs::read_to_string(fixture("made/switches.profile")).unwrap();
    assert_eq!(text(&["--profile"], "made/switches.dat"), expected);
}

#[test]
fn switches_are_timed_without_wakeups() {
    // Only sched_switch and its stacks are in this file.
    let out = text(&["--profile"], "x86_64-6.1-stack-zlib.dat");
    assert!(out.contains("  Event: sched_switch:R ("), "{out}");
    assert!(out.lines().any(|l| l.contains("sched_switch:") && l.contains(" Total: ")), "{out}");
    // Events that are not in the file, as those of a refused format, count nowhere; times that are all 0 are not shown.
    let probes = text(&["--profile"], "x86_64-7.2-probes.dat");
    assert!(probes.contains("Event: lat2:") && !probes.contains("Event: :"), "{probes}");
    assert!(!probes.contains("Total: 0 "), "{probes}");
    let instances = text(&["--profile"], "x86_64-7.2-instances.dat");
    assert!(instances.contains("\ntask: ") && instances.contains("  Event: func: vfs_open() ("), "{instances}");
}

#[test]
fn a_profile_of_several_inputs_has_the_last_one_first() {
    let (first, second) = (fixture("x86_64-6.1-sched-v6.dat"), fixture("i386-6.1-events.dat"));
    let words = ["--profile", "-i", first.to_str().unwrap(), "-i", second.to_str().unwrap()];
    let done = Command::new(env!("CARGO_BIN_EXE_tracecmd")).arg("report").args(words).output().unwrap();
    let out = String::from_utf8(done.stdout).unwrap();
    let body = |name: &str| text(&["--profile"], name).lines().skip(1).collect::<Vec<_>>().join("\n");
    let want = [body("i386-6.1-events.dat"), body("x86_64-6.1-sched-v6.dat")].join("\n");
    assert_eq!(out.lines().skip(2).collect::<Vec<_>>().join("\n"), want);
}

fn run(words: &[&str], name: &str) -> String {
    let out = Command::new(env!("CARGO_BIN_EXE_tracecmd")).args(words).arg("-i").arg(fixture(name)).output().unwrap();
    assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn trees_count_each_buffer_once() {
    let name = "x86_64-7.2-instances.dat";
    let all = text(&["-N"], name);
    let out = run(&["hist"], name);
    for event in ["sys_enter_openat", "vfs_open", "sched_switch"] {
        let entry = format!("funcgraph_entry: --> {event} ");
        let seen = all.lines().filter(|l| {
            let words = l.split_whitespace().collect::<Vec<_>>().join(" ");
            words.contains(&format!(" {event}: ")) || words.contains(&entry)
        });
        let counted = out.lines().filter(|l| l.contains(&format!(" {event} #")));
        let counted: usize = counted.map(|l| l.rsplit_once('#').unwrap().1.parse::<usize>().unwrap()).sum();
        assert_eq!(counted, seen.count(), "{event}");
    }
}

#[test]
fn equal_counts_of_trees_and_allocations_are_in_order() {
    let out = run(&["hist"], "i386-6.1-events.dat");
    let counts =
        out.lines().filter(|l| l.starts_with("  %")).map(|l| l.rsplit_once('#').unwrap().1.parse::<u64>().unwrap());
    assert!(counts.clone().count() > 20 && counts.is_sorted_by(|a, b| a >= b));
    assert_eq!(out, run(&["hist"], "i386-6.1-events.dat"));
    // Of those with the same count the one that was seen last stands first: an event behind the one that caused it.
    let at = |event: &str| out.find(&format!("  (0) <idle> {event:>30} #")).expect(event);
    assert!(at("softirq_exit") < at("softirq_entry"), "{out}");
    let mem = run(&["mem"], "i386-6.1-events.dat");
    let waste = mem.lines().filter_map(|l| l.split('\t').nth(1)?.parse::<u64>().ok());
    assert!(waste.clone().count() > 10 && waste.is_sorted_by(|a, b| a >= b), "{mem}");
    assert_eq!(mem, run(&["mem"], "i386-6.1-events.dat"));
}

#[test]
fn options_of_plugins_are_listed_with_what_they_do() {
    let done = Command::new(env!("CARGO_BIN_EXE_tracecmd")).arg("options").output().unwrap();
    let out = String::from_utf8(done.stdout).unwrap();
    for name in ["parent", "indent", "offset", "tailprint", "depth"] {
        assert!(out.contains(name), "{name}: {out}");
    }
}

#[test]
fn dump_of_a_cut_file_names_the_place() {
    let whole = std::fs::read(fixture("s390x-6.1-inst.dat")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cut = dir.path().join("cut.dat");
    for part in [whole.len() / 2, 1000, 100] {
        std::fs::write(&cut, &whole[..part]).unwrap();
        let done =
            Command::new(env!("CARGO_BIN_EXE_tracecmd")).args(["dump", "--all", "-i"]).arg(&cut).output().unwrap();
        let message = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && message.contains("0x"), "{part}: {message}");
    }
}

#[test]
fn dump_takes_the_name_without_an_option() {
    let name = fixture("x86_64-6.12-net.dat");
    let words = ["dump", name.to_str().unwrap()];
    let both = run_on(&words, &fixture("x86_64-7.2-all.dat"));
    assert_eq!(both, run_on(&["dump"], &name));
}

/// A file made from a fixture by one of our commands.
fn made(dir: &std::path::Path, words: &[&str], name: &str) -> PathBuf {
    let to = dir.join("made.dat");
    let done = Command::new(env!("CARGO_BIN_EXE_tracecmd"))
        .args(words)
        .arg("-i")
        .arg(fixture(name))
        .arg("-o")
        .arg(&to)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    to
}

fn run_on(words: &[&str], file: &std::path::Path) -> String {
    let out = Command::new(env!("CARGO_BIN_EXE_tracecmd")).args(words).arg("-i").arg(file).output().unwrap();
    assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

const UNPACKED: &[&str] = &["convert", "-q", "--file-version", "7", "--compression", "none"];

#[test]
fn btf_of_an_uncompressed_file_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let name = "x86_64-7.2-fgraph-args.dat";
    let file = made(dir.path(), UNPACKED, name);
    let out = report(&[], &file);
    assert!(out.status.success());
    let plain = String::from_utf8(out.stdout).unwrap();
    // Arguments have the names that BTF gives them.
    assert!(plain.contains("file=0xffff8eda83ffba80"), "{plain}");
    assert_eq!(plain, text(&[], name));
}

#[test]
fn memory_of_instances_is_counted() {
    // No record of this file is in the top buffer, and none of the allocator's: the table is empty.
    let out = run(&["mem"], "s390x-6.1-inst.dat");
    assert_eq!(out.lines().count(), 2, "{out}");
    assert!(out.contains("MaxWaste"), "{out}");
}

#[test]
fn functions_without_a_name_are_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.dat");
    let mut bytes = std::fs::read(fixture("x86_64-6.12-fgraph-v6.dat")).unwrap();
    // All symbols are moved away.
    let symbol = b"\nffffffffa";
    let places: Vec<usize> =
        bytes.windows(symbol.len()).enumerate().filter(|(_, w)| w == symbol).map(|(n, _)| n).collect();
    assert!(places.len() > 100);
    for at in places {
        bytes[at + 1..at + symbol.len()].copy_from_slice(b"ffffffffe");
    }
    std::fs::write(&file, bytes).unwrap();
    let out = run_on(&["hist"], &file);
    let roots: Vec<&str> = out.lines().filter_map(|l| l.trim_start().strip_prefix("--- ")).collect();
    assert!(roots.len() > 5 && roots.iter().all(|r| r.starts_with("0xffffffffa")), "{roots:?}");
}

/// A file with the text of a latency tracer, as `extract` of the reference writes it in version 6: no options.
fn latency(dir: &std::path::Path) -> PathBuf {
    let whole = std::fs::read(fixture("x86_64-6.1-sched-v6.dat")).unwrap();
    let options = whole.windows(10).rposition(|w| w == b"options  \0").unwrap();
    let file = dir.join("latency.dat");
    std::fs::write(&file, [&whole[..options], b"latency  \0", LATENCY.as_bytes()].concat()).unwrap();
    file
}

const LATENCY: &str =
    "# tracer: wakeup\n#\n# latency: 44 us\n  <idle>-0   0dNh4.    1us+: 0:120:R   + [000] 14:120:R rcu\n";

/// Also in version 7, and whatever of the records or the file was asked for; beside other inputs it is an error.
#[test]
fn latency_traces_are_shown_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let six = latency(dir.path());
    for packing in [None, Some("none"), Some("zstd")] {
        let file = match packing {
            None => six.clone(),
            Some(packing) => {
                let to = dir.path().join(packing);
                let done = Command::new(env!("CARGO_BIN_EXE_tracecmd"))
                    .args(["convert", "-q", "--file-version", "7", "--compression", packing, "-i"])
                    .args([&six, &to])
                    .output()
                    .unwrap();
                assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
                to
            }
        };
        let want = format!("cpus=2\n{LATENCY}\n");
        for options in [&[][..], &["-t", "-l"], &["-R", "-N", "-w"], &["-F", "sched_switch"], &["--stat"], &["--uname"]]
        {
            let done = report(options, &file);
            assert!(done.status.success(), "{options:?}: {}", String::from_utf8_lossy(&done.stderr));
            assert_eq!(String::from_utf8(done.stdout).unwrap(), want, "{options:?} {packing:?}");
        }
        let two = report(&["-i", file.to_str().unwrap(), "-i"], &file);
        assert!(!two.status.success());
        assert_eq!(String::from_utf8(two.stdout).unwrap().lines().count(), 1);
        for command in ["hist", "mem"] {
            let done = Command::new(env!("CARGO_BIN_EXE_tracecmd")).args([command, "-i"]).arg(&file).output().unwrap();
            assert!(!done.status.success() && done.stdout.is_empty(), "{command}");
        }
        // Lists of CPUs, with which the reference crashes: there are none.
        let none = report(&["--cpus"], &file);
        assert!(none.status.success());
        assert_eq!(String::from_utf8(none.stdout).unwrap().lines().count(), 1);
        assert!(report(&["--align-ts"], &file).stdout == want.as_bytes());
    }
}
