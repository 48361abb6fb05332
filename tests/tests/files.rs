//! Files made from files: the reference reads what we write; nothing is lost, doubled, or left behind when it cannot be written.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use trace_dat::{
    OpenOptions, TraceFile,
    write::{FileHead, FileVersion, Metadata, Writer},
};
use tracecmd_tests::{
    compare,
    damage::{self, damage},
    limited, programs,
    skip::skip,
};

fn ours(words: &[&str], input: &Path, output: &Path) -> Output {
    let done = Command::new(programs::tracecmd()).args(words).arg("-i").arg(input).arg("-o").arg(output).output();
    done.expect("our binary starts")
}

fn good(words: &[&str], input: &Path, output: &Path) {
    let done = ours(words, input, output);
    assert!(done.status.success(), "{words:?} {}: {}", input.display(), String::from_utf8_lossy(&done.stderr));
}

/// The report of a file without its first lines (which name what is different in a piece).
fn body(program: &Path, file: &Path) -> Vec<u8> {
    let r = compare::report(program, "", file);
    assert!(r.success && !r.killed, "{} report {}: {}", program.display(), file.display(), r.messages);
    // An empty piece says that there is nothing.
    let lines = r.text.split_inclusive(|b| *b == b'\n');
    lines.filter(|l| !l.starts_with(b"cpus=") && !l.starts_with(b"version = ")).flatten().copied().collect()
}

fn same(want: &[u8], have: &[u8], what: &str) {
    if let Some(place) = compare::first_difference(want, have) {
        panic!("{what}: {place}");
    }
}

fn names(dir: &Path) -> Vec<String> {
    let all = fs::read_dir(dir).expect("a directory").map(|e| e.expect("an entry").file_name());
    let mut all: Vec<String> = all.map(|n| n.to_string_lossy().into_owned()).collect();
    all.sort();
    all
}

/// Every version and compression in turn, of every fixture: both programs report the new file as they report the old one.
#[test]
fn the_reference_reads_what_convert_writes() {
    let reference = match programs::reference() {
        Ok(path) => path,
        Err(reason) => return skip("the_reference_reads_what_convert_writes", reason),
    };
    let dir = tempfile::tempdir().expect("a directory");
    let forms = [["6", "none"], ["7", "zlib"], ["7", "zstd"], ["7", "none"]];
    for (n, fixture) in programs::fixtures().iter().enumerate() {
        // The reference itself reports nothing of a file with BTF but without compression; ours leave out the option for it.
        let want = body(reference, fixture);
        for form in [forms[n % 4], forms[(n + 1) % 4]] {
            let output = dir.path().join("new.dat");
            let mut words = vec!["convert", "-q", "--file-version", form[0], "--compression", form[1]];
            if n % 3 == 0 {
                words.push("--slim");
            }
            good(&words, fixture, &output);
            let what = format!("{} as {form:?}", fixture.display());
            let have = body(reference, &output);
            let mine = body(programs::tracecmd(), &output);
            // `(...)`: arguments that BTF gives names to.
            let names = want.windows(5).any(|w| w == b"(...)");
            let count = |text: &[u8]| text.split(|b| *b == b'\n').count();
            match (names, form) {
                // Version 6 has no place for BTF, without which arguments have no names.
                (true, ["6", _]) => assert_eq!(count(&want), count(&have), "{what}"),
                // The reference finds no BTF where there is no option for it; ours does.
                (true, [_, "none"]) => {
                    assert_eq!(count(&want), count(&have), "{what}");
                    same(&want, &mine, &what);
                    continue;
                }
                _ => same(&want, &have, &what),
            }
            same(&have, &mine, &what);
        }
    }
}

/// Debian's trace-cmd of 2023 opens them too, with the report that it gives of the original: what it does not know of new events it
/// knows in neither. It has no zlib, so that it opens no such file at all, not even the reference's.
#[test]
fn an_older_reference_reads_what_we_write() {
    let old = match programs::old_reference() {
        Ok(path) => path,
        Err(reason) => return skip("an_older_reference_reads_what_we_write", reason),
    };
    let dir = tempfile::tempdir().expect("a directory");
    for (n, fixture) in programs::fixtures().iter().enumerate() {
        let plain = dir.path().join("plain.dat");
        good(&["convert", "-q", "--compression", "none"], fixture, &plain);
        let zlib = TraceFile::open(fixture).expect("a fixture").header().codec == trace_dat::compress::Codec::Zlib;
        let want = body(old, if zlib { &plain } else { fixture });
        for form in [["6", "none"], ["7", "zstd"], ["7", "none"]] {
            let output = dir.path().join("new.dat");
            let mut words = vec!["convert", "-q", "--file-version", form[0], "--compression", form[1]];
            if n % 2 == 0 {
                words.push("--slim");
            }
            good(&words, fixture, &output);
            same(&want, &body(old, &output), &format!("{} as {form:?}", fixture.display()));
        }
        let pieces = tempfile::tempdir().expect("a directory");
        let lines = want.split(|b| *b == b'\n').count();
        good(&["split", "-r", "-e", &(lines / 3).max(1).to_string()], &plain, &pieces.path().join("p"));
        let names = names(pieces.path());
        let joined: Vec<u8> = names.iter().flat_map(|p| body(old, &pieces.path().join(p))).collect();
        joined_is_whole(&want, &joined, 4 * names.len(), &format!("{} in pieces", fixture.display()));
    }
}

/// The top buffer as an instance: the file still has the CPUs of the machine, and the reference reads it.
#[test]
fn a_renamed_top_buffer() {
    let reference = match programs::reference() {
        Ok(path) => path,
        Err(reason) => return skip("a_renamed_top_buffer", reason),
    };
    let fixture = programs::workspace().join("fixtures/x86_64-7.2-instances.dat");
    let dir = tempfile::tempdir().expect("a directory");
    let output = dir.path().join("o.dat");
    for (words, buffers) in [
        (&["split", "--top", "-b", "old"] as &[&str], &["", "old"] as &[&str]),
        (&["split", "--top", "-b", "old", "-B", "two"], &["", "old", "two"]),
        (&["split", "-B", "two", "-t", "-B", "one"], &["", "one"]),
    ] {
        good(words, &fixture, &output);
        let file = TraceFile::open(&output).expect("a file");
        let names: Vec<&str> = file.buffers().iter().map(|b| b.name.as_str()).collect();
        assert!(names == buffers || names == buffers[1..], "{words:?}: {names:?}");
        for program in [programs::tracecmd(), reference] {
            let text = compare::report(program, "", &output).text;
            assert!(text.starts_with(b"cpus=2\n"), "{words:?}: {}", String::from_utf8_lossy(&text));
            for name in buffers.iter().filter(|n| !n.is_empty()) {
                let lines = |t: &[u8]| {
                    t.split(|b| *b == b'\n').filter(|l| l.starts_with(format!("{name}: ").as_bytes())).count()
                };
                assert!(lines(&text) > 0, "{words:?}: nothing of {name}");
            }
        }
    }
}

/// After a start time every event is there once, the first one of each CPU too.
#[test]
fn a_start_time_doubles_nothing() {
    let fixture = programs::workspace().join("fixtures/x86_64-6.1-stack-zlib.dat");
    let dir = tempfile::tempdir().expect("a directory");
    let output = dir.path().join("o.dat");
    good(&["split", "17.218222755"], &fixture, &output);
    let stamped = |file: &Path| compare::report(programs::tracecmd(), "-t", file).text;
    let (whole, part) = (stamped(&fixture), stamped(&output));
    let body = part.splitn(2, |b| *b == b'\n').nth(1).expect("lines");
    let first = body.split(|b| *b == b'\n').next().expect("a line");
    assert!(String::from_utf8_lossy(first).contains(" 17.218222755: "));
    assert!(whole.ends_with(body) && body.len() > 1000);
}

/// The pieces' reports, joined, are the report of the whole, for both programs.
#[test]
fn the_reference_reads_pieces() {
    let reference = match programs::reference() {
        Ok(path) => path,
        Err(reason) => return skip("the_reference_reads_pieces", reason),
    };
    for fixture in programs::fixtures() {
        let whole = body(programs::tracecmd(), &fixture);
        let lines = whole.split(|b| *b == b'\n').count() as u64;
        let dir = tempfile::tempdir().expect("a directory");
        let size = (lines / 6).max(1).to_string();
        good(&["split", "-r", "-e", &size], &fixture, &dir.path().join("p"));
        let pieces = names(dir.path());
        let what = fixture.display();
        assert!(pieces.len() >= 2 && pieces[0] == "p.0001" && pieces[1] == "p.0002", "{what}: {pieces:?}");
        for program in [programs::tracecmd(), reference] {
            let want = if program == reference { body(reference, &fixture) } else { whole.clone() };
            let joined: Vec<u8> = pieces.iter().flat_map(|p| body(program, &dir.path().join(p))).collect();
            joined_is_whole(
                &want,
                &joined,
                4 * (pieces.len() - 1),
                &format!("{} by {}", fixture.display(), program.display()),
            );
        }
    }
}

/// The joined reports are the whole one, but for what depends on the neighbour beyond a cut: a call and its return that were one line
/// are two then, and the indentation of functions by their callers begins anew.
fn joined_is_whole(want: &[u8], joined: &[u8], cuts: usize, what: &str) {
    let lines = |text: &[u8]| -> Vec<String> {
        let text = String::from_utf8_lossy(text).into_owned();
        // The event's text without its indentation.
        text.lines()
            .map(|l| l.split_once(": function:").map_or(l.to_owned(), |(a, b)| format!("{a}: {}", b.trim())))
            .collect()
    };
    let (want, joined) = (lines(want), lines(joined));
    let (mut at, mut split, mut open) = (0, 0, 0);
    for line in &want {
        loop {
            let have = joined.get(at).map_or("", String::as_str);
            at += 1;
            if line == have {
                break;
            }
            // `f();` became `f() {` and `}`, the latter wherever the next event of its CPU is.
            if open > 0 && have.contains("funcgraph_exit:") {
                open -= 1;
                continue;
            }
            let call = line.trim_end().strip_suffix(';').and_then(|l| l.rsplit_once('|'));
            let call = call.map(|(_, call)| format!("{} {{", call.trim()));
            assert!(call.is_some_and(|call| have.trim_end().ends_with(&call)), "{what}:\n- {line}\n+ {have}");
            split += 1;
            open += 1;
            break;
        }
    }
    at += joined[at..].iter().take(open).filter(|l| l.contains("funcgraph_exit:")).count();
    assert_eq!(at, joined.len(), "{what}");
    assert!(split <= cuts, "{what}: {split} calls in two lines after {cuts} cuts");
}

/// No output appears, the input stays, and the message says why.
#[test]
fn what_cannot_be_written_leaves_nothing_behind() {
    let fixture = programs::workspace().join("fixtures/x86_64-7.2-fgraph-args.dat");
    let input_bytes = fs::read(&fixture).expect("a fixture");
    let dir = tempfile::tempdir().expect("a directory");
    let input = dir.path().join("in.dat");
    fs::copy(&fixture, &input).expect("a copy");
    let commands: [&[&str]; 6] = [
        &["convert", "--file-version", "6"],
        &["convert", "--compression", "zlib"],
        &["convert", "--slim"],
        &["convert", "--to", "perfetto"],
        &["convert", "--to", "chrome"],
        &["split", "-e", "1000000"],
    ];
    // A file size limit of 2 KiB: writing fails in the middle, as on a full disk.
    for words in commands.iter().chain([&["convert", "--to", "ctf"] as &[&str]].iter()) {
        let output = dir.path().join("out");
        let line = format!("trap '' XFSZ; ulimit -f 2; exec \"$0\" {} -i \"$1\" -o \"$2\"", words.join(" "));
        let done = Command::new("bash")
            .args(["-c", &line])
            .arg(programs::tracecmd())
            .args([&input, &output])
            .stdin(Stdio::null())
            .output()
            .expect("bash starts");
        let text = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(1), "{words:?}: {text}");
        assert!(text.contains("out") && text.contains("File too large"), "{words:?}: {text}");
        assert_eq!(names(dir.path()), ["in.dat"], "{words:?}");
    }
    // A device that is full, a directory that cannot be written, the input itself, a pipe.
    let pipe = dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("a pipe");
    for words in commands {
        for (output, why) in [
            (Path::new("/dev/full"), "No space left"),
            (Path::new("/proc/out.dat"), "/proc/out.dat"),
            (Path::new("/no/such/dir/out.dat"), "/no/such/dir/out.dat"),
            (&pipe, "pipe"),
            (&input, "input"),
        ] {
            if words[0] == "split" && output == input {
                continue; // its piece is called in.dat.1 then
            }
            let done = ours(words, &input, output);
            let text = String::from_utf8_lossy(&done.stderr).into_owned();
            assert_eq!(done.status.code(), Some(1), "{words:?} {}: {text}", output.display());
            assert!(text.contains(why), "{words:?} {}: {text}", output.display());
        }
        let done = ours(words, &pipe, &dir.path().join("out"));
        assert!(!done.status.success() && String::from_utf8_lossy(&done.stderr).contains("pipe"));
    }
    assert_eq!(names(dir.path()), ["in.dat", "pipe"]);
    assert!(fs::read(&input).expect("the input") == input_bytes, "the input is untouched");
}

/// Work of more than two seconds says on a terminal how far it is; in a pipe it says nothing of that.
#[test]
fn long_work_shows_progress_on_a_terminal_only() {
    use nix::sys::signal::{Signal, kill};
    use tracecmd_tests::generate::{Amount, Plan, generate};
    let dir = tempfile::tempdir().expect("a directory");
    let (input, output) = (dir.path().join("in.dat"), dir.path().join("out.dat"));
    generate(&Plan { amount: Amount::Bytes(48 << 20), ..Plan::default() }, &input).expect("a file");
    for terminal in [true, false] {
        let pty = nix::pty::openpty(None, None).expect("a terminal");
        let mut command = Command::new(programs::tracecmd());
        command.args(["convert", "--compression", "zlib", "-i"]).arg(&input).arg("-o").arg(&output);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        if terminal {
            command.stderr(Stdio::from(pty.slave));
        } else {
            drop(pty.slave);
            command.stderr(Stdio::piped());
        }
        let mut child = command.spawn().expect("our binary starts");
        drop(command);
        // Held for two seconds in the middle of its work.
        let begun = || {
            let mut all = fs::read_dir(dir.path())
                .expect("a directory")
                .filter_map(|e| e.ok()?.path().file_name().map(|n| n.to_owned()));
            let hidden = all.find(|n| n.to_string_lossy().starts_with('.'));
            hidden.is_some_and(|n| fs::metadata(dir.path().join(n)).is_ok_and(|m| m.len() > 1 << 18))
        };
        while !begun() {
            assert!(child.try_wait().expect("a child").is_none(), "it ended too early to be held");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        kill(pid, Signal::SIGSTOP).expect("it runs");
        std::thread::sleep(std::time::Duration::from_millis(2100));
        kill(pid, Signal::SIGCONT).expect("it is there");
        let mut text = Vec::new();
        let mut read = |from: &mut dyn std::io::Read| {
            let mut piece = [0; 4096];
            // A terminal whose other side is closed gives an error in place of an end.
            while let Ok(n @ 1..) = from.read(&mut piece) {
                text.extend_from_slice(&piece[..n]);
            }
        };
        match child.stderr.take() {
            Some(mut pipe) => read(&mut pipe),
            None => read(&mut fs::File::from(pty.master)),
        }
        assert!(child.wait().expect("a child").success());
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(text.contains("CPU0 data recorded at offset="), "{text}");
        assert_eq!(text.contains("left") && text.contains("MiB"), terminal, "{text}");
        assert_eq!(text.contains('\u{1b}'), terminal, "{text}");
    }
}

/// Names are replaced by others, the same by the same; nothing else changes.
#[test]
fn redacted_names_are_stable() {
    use std::collections::HashMap;
    let fixture = programs::workspace().join("fixtures/x86_64-6.1-sched-v6.dat");
    let dir = tempfile::tempdir().expect("a directory");
    let output = dir.path().join("o.dat");
    good(&["convert", "-q", "--slim", "--redact"], &fixture, &output);
    let text = |file: &Path| String::from_utf8_lossy(&body(programs::tracecmd(), file)).into_owned();
    let (plain, redacted) = (text(&fixture), text(&output));
    assert_eq!(plain.lines().count(), redacted.lines().count());
    // `name-pid [cpu] time: event: text`
    let parts = |line: &str| -> Option<(String, String, String)> {
        let (task, rest) = line.split_once(" [")?;
        let (name, pid) = task.trim().rsplit_once('-')?;
        let mut words = rest.split_whitespace();
        let start: Vec<&str> = words.by_ref().take(4).collect();
        Some((name.to_owned(), format!("{pid} {start:?}"), words.collect::<Vec<_>>().join(" ")))
    };
    let (mut by_name, mut switches) = (HashMap::new(), 0);
    let mut pair = |old: &str, new: &str| {
        assert_eq!(by_name.entry(old.to_owned()).or_insert(new.to_owned()), new, "{old}");
        assert!(old.len() < 4 || old == "<idle>" || old != new, "{old} is still there");
        assert_eq!(old.len(), new.len());
    };
    for (a, b) in plain.lines().zip(redacted.lines()) {
        let ((old, same, a), (new, other, b)) = (parts(a).expect("an event"), parts(b).expect("an event"));
        assert_eq!(same, other);
        pair(&old, &new);
        if same.contains("sched_switch:") {
            // `prev:pid [prio] S ==> next:pid [prio]`
            for (a, b) in a.split(" ==> ").zip(b.split(" ==> ")) {
                let ((old, same), (new, other)) =
                    (a.rsplit_once(':').expect("a task"), b.rsplit_once(':').expect("a task"));
                assert_eq!(same, other);
                pair(old, new);
                switches += 1;
            }
        }
    }
    assert!(by_name.len() > 5 && switches > 20, "{} names, {switches} tasks", by_name.len());
    let bytes = fs::read(&output).expect("the output");
    let unpacked = dir.path().join("plain.dat");
    good(&["convert", "-q", "--compression", "none"], &output, &unpacked);
    // Functions have names like that of the RCU thread.
    for name in by_name.keys().filter(|n| n.len() > 5 && *n != "<idle>" && !n.starts_with("rcu_")) {
        let name = name.as_bytes();
        let has = |bytes: &[u8]| bytes.windows(name.len()).any(|w| w == name);
        assert!(!has(&bytes) && !has(&fs::read(&unpacked).expect("a file")), "{}", String::from_utf8_lossy(name));
    }
}

/// Of a kernel's BTF a slim file has the functions that were called and their arguments.
#[test]
fn slim_btf_is_small() {
    let fixture = programs::workspace().join("fixtures/x86_64-7.2-fgraph-args.dat");
    let dir = tempfile::tempdir().expect("a directory");
    let output = dir.path().join("o.dat");
    good(&["convert", "-q", "--slim"], &fixture, &output);
    let (before, after) =
        (fs::metadata(&fixture).expect("a fixture").len(), fs::metadata(&output).expect("a file").len());
    assert!(after * 10 < before, "{after} of {before} bytes");
    let want = body(programs::tracecmd(), &fixture);
    assert!(want.windows(4).any(|w| w == b"dfd="), "arguments have names");
    same(&want, &body(programs::tracecmd(), &output), "slim");
    if let Ok(reference) = programs::reference() {
        same(&body(reference, &fixture), &body(reference, &output), "slim by the reference");
    }
}

/// A disk that is full in the middle, and one that takes nothing: no file is left there, and the message names the reason.
#[test]
fn full_and_read_only_disks() {
    let fixture = programs::workspace().join("fixtures/i386-6.1-v6fg.dat");
    let Ok(true) = Command::new("unshare").args(["--mount", "true"]).status().map(|s| s.success()) else {
        return skip("full_and_read_only_disks", "no mount namespace can be made");
    };
    let dir = tempfile::tempdir().expect("a directory");
    for words in [
        "convert --file-version 6",
        "convert --compression none",
        "split -r -e 1000",
        "convert --to chrome",
        "convert --to ctf",
    ] {
        for (mount, why) in [("size=64k", "No space left on device"), ("ro", "Read-only file system")] {
            let line = format!(
                "mount -t tmpfs -o {mount} tmpfs \"$2\" || exit 99; \"$0\" {words} -i \"$1\" -o \"$2/out\"; status=$?; ls -A \"$2\"; exit $status"
            );
            let done = Command::new("unshare")
                .args(["--mount", "sh", "-c", &line])
                .arg(programs::tracecmd())
                .args([&fixture, dir.path()])
                .output()
                .expect("unshare starts");
            let text = String::from_utf8_lossy(&done.stderr).into_owned();
            assert_eq!(done.status.code(), Some(1), "{words} {mount}: {text}");
            assert!(text.contains(why) && text.contains("out"), "{words} {mount}: {text}");
            let left = String::from_utf8_lossy(&done.stdout).into_owned();
            // Finished pieces stay.
            let finished = |n: &str| words.starts_with("split") && n.starts_with("out.00");
            assert!(left.lines().all(finished), "{words} {mount}: {left}");
        }
    }
}

/// Told to end, a command removes what it has not finished.
#[test]
fn a_signal_leaves_nothing_unfinished() {
    use nix::sys::signal::{Signal, kill};
    use tracecmd_tests::generate::{Amount, Plan, generate};
    let dir = tempfile::tempdir().expect("a directory");
    let input = dir.path().join("in.dat");
    generate(&Plan { amount: Amount::Bytes(48 << 20), ..Plan::default() }, &input).expect("a file");
    for (words, signal) in [
        (&["convert", "--compression", "zlib"] as &[&str], Signal::SIGINT),
        (&["convert", "--to", "ctf"], Signal::SIGTERM),
        (&["convert", "--to", "chrome"], Signal::SIGHUP),
    ] {
        let mut command = Command::new(programs::tracecmd());
        command.args(words).arg("-i").arg(&input).arg("-o").arg(dir.path().join("out"));
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("our binary starts");
        while names(dir.path()).iter().all(|n| !n.starts_with('.')) {
            assert!(child.try_wait().expect("a child").is_none(), "{words:?} ended too early");
        }
        kill(nix::unistd::Pid::from_raw(child.id() as i32), signal).expect("it runs");
        assert_eq!(child.wait().expect("a child").code(), Some(130), "{words:?}");
        assert_eq!(names(dir.path()), ["in.dat"], "{words:?}");
    }
}

/// The input by another name is the input.
#[test]
fn an_output_that_is_the_input_by_a_link() {
    let fixture = programs::workspace().join("fixtures/x86_64-6.12-net.dat");
    let dir = tempfile::tempdir().expect("a directory");
    let input = dir.path().join("in.dat");
    fs::copy(&fixture, &input).expect("a copy");
    let (soft, hard) = (dir.path().join("soft"), dir.path().join("hard"));
    std::os::unix::fs::symlink("in.dat", &soft).expect("a link");
    fs::hard_link(&input, &hard).expect("a link");
    for output in [&soft, &hard] {
        for words in [&["convert"] as &[&str], &["convert", "--slim"], &["convert", "--to", "chrome"]] {
            let done = ours(words, &input, output);
            let text = String::from_utf8_lossy(&done.stderr).into_owned();
            assert!(done.status.code() == Some(1) && text.contains("is the input"), "{words:?}: {text}");
        }
        // Without -r, the name of the input means INPUT.1.
        good(&["split", "-e", "5"], &input, output);
        fs::remove_file(dir.path().join("in.dat.1")).expect("the piece");
    }
    // A piece whose name leads to the input.
    std::os::unix::fs::symlink("in.dat", dir.path().join("p.0002")).expect("a link");
    let done = ours(&["split", "-r", "-e", "5"], &input, &dir.path().join("p"));
    assert!(done.status.code() == Some(1) && String::from_utf8_lossy(&done.stderr).contains("is the input"));
    assert_eq!(names(dir.path()), ["hard", "in.dat", "p.0001", "p.0002", "soft"]);
    assert!(fs::read(&input).expect("the input") == fs::read(&fixture).expect("a fixture"));
}

/// What a recording of this name leaves when it is killed: raw data of each CPU and, unless `described` is none, a description.
fn leave(fixture: &Path, dir: &Path, described: Option<&str>) -> Vec<PathBuf> {
    let file = OpenOptions::new().open(fixture).expect("a fixture");
    let mut raw = Vec::new();
    for buffer in file.buffers() {
        for cpu in &buffer.cpus {
            let instance = if buffer.name.is_empty() { String::new() } else { format!(".{}", buffer.name) };
            let path = dir.join(format!("rec.dat{instance}.cpu{}", cpu.cpu));
            let mut stream = file.stream(buffer, cpu, 1).expect("a CPU");
            let mut bytes = Vec::new();
            while let Some(s) = stream.next_subbuf() {
                bytes.extend_from_slice(s.data);
            }
            fs::write(&path, bytes).expect("raw data");
            raw.push(path);
        }
    }
    if let Some(name) = described {
        let meta = Metadata::of(&file).expect("metadata");
        // Recorders and `restore -c` write version 7.
        let head = FileHead { version: FileVersion::V7, ..FileHead::of(&file) };
        Writer::create(dir.join(name), head, &meta, Vec::new()).and_then(|w| w.commit()).expect("a description");
    }
    raw
}

/// Recordings that were killed, or whose machine went down: their events are there by name alone, and from the raw files one by one.
#[test]
fn interrupted_recordings_are_restored() {
    let run = |dir: &Path, words: &[&str]| {
        let mut command = Command::new(programs::tracecmd());
        command.current_dir(dir).args(words).stdin(Stdio::null()).output().expect("our binary starts")
    };
    for name in ["x86_64-7.2-instances", "x86_64-6.1-sched-v6", "s390x-6.1-inst", "i386-6.1-events"] {
        let fixture = programs::workspace().join(format!("fixtures/{name}.dat"));
        let want = body(programs::tracecmd(), &fixture);
        // Its name alone: for report as it is, and made a file.
        let dir = tempfile::tempdir().expect("a directory");
        let raw = leave(&fixture, dir.path(), Some("rec.dat.meta"));
        same(&want, &body(programs::tracecmd(), &dir.path().join("rec.dat")), name);
        let done = run(dir.path(), &["restore", "rec.dat"]);
        assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
        same(&want, &body(programs::tracecmd(), &dir.path().join("rec.dat")), name);
        assert!(raw.iter().all(|p| p.exists()), "raw data stays");
        // Once more would write over it.
        assert!(!run(dir.path(), &["restore", "rec.dat"]).status.success());
        if name.contains("inst") {
            continue;
        }
        // One by one, with a description of another name, as `restore -c` writes it.
        let dir = tempfile::tempdir().expect("a directory");
        let raw = leave(&fixture, dir.path(), Some("part.dat"));
        let mut words = vec!["restore", "-i", "part.dat", "-o", "new.dat"];
        words.extend(raw.iter().map(|p| p.to_str().expect("a name")));
        let done = run(dir.path(), &words);
        assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
        same(&want, &body(programs::tracecmd(), &dir.path().join("new.dat")), name);
    }
    // Ended in the middle of a sub-buffer, and with a hole where a machine that went down had not yet written.
    let fixture = programs::workspace().join("fixtures/i386-6.1-v6fg.dat");
    let want = body(programs::tracecmd(), &fixture);
    for zeros in [false, true] {
        let dir = tempfile::tempdir().expect("a directory");
        for path in leave(&fixture, dir.path(), Some("rec.dat.meta")) {
            let len = fs::metadata(&path).expect("raw data").len();
            let file = fs::OpenOptions::new().write(true).open(&path).expect("raw data");
            let cut = (len / 4096 / 2 * 4096).saturating_sub(1000);
            file.set_len(cut).expect("shorter");
            if zeros {
                file.set_len(len).expect("zeros at the end");
            }
        }
        let done = run(dir.path(), &["restore", "rec.dat"]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let report = compare::report(programs::tracecmd(), "", &dir.path().join("rec.dat"));
        let have: Vec<&[u8]> =
            report.text.split(|b| *b == b'\n').filter(|l| l.windows(2).any(|w| w == b": ")).collect();
        let all: std::collections::HashSet<&[u8]> = want.split(|b| *b == b'\n').collect();
        assert!(have.len() * 3 > all.len() && have.len() < all.len(), "{} of {} lines", have.len(), all.len());
        // Calls whose return is gone look different.
        let strange = have.iter().filter(|l| !all.contains(**l)).count();
        assert!(strange < 20, "{strange} lines that were not there before");
    }
}

/// What a machine that went down left is damaged as well: its description, or raw data.
#[test]
fn damaged_remains_of_a_recording() {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let (mut shown, mut restored) = (0, 0);
    for name in ["x86_64-7.2-instances", "s390x-7.2-dynamic", "x86_64-6.1-sched-v6"] {
        let fixture = programs::workspace().join(format!("fixtures/{name}.dat"));
        for seed in 0..6 * damage::KINDS {
            let dir = tempfile::tempdir().expect("a directory");
            let mut parts = leave(&fixture, dir.path(), Some("rec.dat.meta"));
            parts.push(dir.path().join("rec.dat.meta"));
            let part = &parts[seed as usize / damage::KINDS as usize % parts.len()];
            let (bytes, what) = damage(&fs::read(part).expect("a part"), seed);
            fs::write(part, bytes).expect("a damaged part");
            for (command, done) in [("report -i rec.dat", &mut shown), ("restore rec.dat", &mut restored)] {
                let run = limited::run(programs::tracecmd(), &words(command), dir.path());
                let told = format!("{name}: {} {what}: {command}", part.display());
                assert!(run.fault.is_none(), "{told}: {:?}\n{}", run.fault, run.err);
                *done += usize::from(run.lines() > 1 || dir.path().join("rec.dat").exists());
            }
            // A restored file tells of the same damage, and shows all that the remains did.
            if dir.path().join("rec.dat").exists() {
                let run = limited::run(programs::tracecmd(), &words("report -i rec.dat"), dir.path());
                assert!(
                    run.fault.is_none(),
                    "{name}: {what}: report of what was restored: {:?}\n{}",
                    run.fault,
                    run.err
                );
            }
        }
    }
    assert!(shown > 100 && restored > 100, "{shown} shown, {restored} restored");
}

/// The tracing directory of the machine that a (little-endian, version 6) recording comes from, and its kallsyms.
fn machine_of(fixture: &Path, dir: &Path) {
    use trace_dat::write::{Payload, option::id};
    let file = TraceFile::open(fixture).expect("a fixture");
    let meta = Metadata::of(&file).expect("metadata");
    let plain = |section| match meta.get(section).map(|s| &s.payload) {
        Some(Payload::Plain(bytes)) => bytes.clone(),
        other => panic!("section {section}: {other:?}"),
    };
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, bytes).expect("a file");
    };
    write("events/header_page", &file.metadata().header_page);
    write("events/header_event", &file.metadata().header_event);
    write("trace_clock", b"[local] global\n");
    write("saved_cmdlines", &plain(id::CMDLINES)[8..]);
    write("../kallsyms", &plain(id::KALLSYMS)[4..]);
    for cpu in 0..file.cpu_count() {
        write(&format!("per_cpu/cpu{cpu}/stats"), b"entries: 0\n");
    }
    // Number of formats, each with its length before it.
    let formats = |system: &str, bytes: &[u8]| {
        let number = |at: usize, n: usize| bytes[at..at + n].iter().rev().fold(0, |all, b| all << 8 | usize::from(*b));
        let mut at = 4;
        for _ in 0..number(0, 4) {
            let text = &bytes[at + 8..at + 8 + number(at, 8)];
            at += 8 + text.len();
            let name = text.split(|b| *b == b'\n').next().and_then(|l| l.strip_prefix(b"name: ")).expect("a name");
            write(&format!("events/{system}/{}/format", String::from_utf8_lossy(name)), text);
        }
        at
    };
    formats("ftrace", &plain(id::FTRACE_EVENTS));
    let bytes = plain(id::EVENT_FORMATS);
    let mut at = 4;
    while at < bytes.len() {
        let name = bytes[at..].split(|b| *b == 0).next().expect("a system");
        at += name.len() + 1;
        write(&format!("events/{}/enable", String::from_utf8_lossy(name)), b"0\n");
        at += formats(&String::from_utf8_lossy(name), &bytes[at..]);
    }
}

/// Raw files without a description: the machine is asked, at once or before by `restore -c`.
#[test]
fn raw_files_are_restored_on_their_machine() {
    let fixture = programs::workspace().join("fixtures/x86_64-6.1-sched-v6.dat");
    let want = body(programs::tracecmd(), &fixture);
    let dir = tempfile::tempdir().expect("a directory");
    machine_of(&fixture, &dir.path().join("tracing"));
    let raw = leave(&fixture, dir.path(), None);
    let raw: Vec<&str> = raw.iter().map(|p| p.to_str().expect("a name")).collect();
    let run = |words: &[&str]| {
        let done = Command::new(programs::tracecmd()).current_dir(dir.path()).args(words).output().expect("it starts");
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
    };
    let machine: &[&str] = &["restore", "-t", "tracing", "-k", "kallsyms"];
    run(&[machine, &["-c"]].concat());
    run(&[&["restore", "-i", "trace-partial.dat", "-o", "one.dat"], &raw[..]].concat());
    run(&[machine, &["-o", "two.dat"], &raw[..]].concat());
    for name in ["one.dat", "two.dat"] {
        same(&want, &body(programs::tracecmd(), &dir.path().join(name)), name);
        if let Ok(reference) = programs::reference() {
            same(&want, &body(reference, &dir.path().join(name)), &format!("{name} by the reference"));
        }
    }
}
