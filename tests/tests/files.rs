//! Files made from files: the reference reads what we write; nothing is lost, doubled, or left behind when it cannot be written.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tracecmd_tests::{compare, programs, skip::skip};

fn fixtures() -> Vec<PathBuf> {
    let dir = programs::workspace().join("fixtures");
    let mut all: Vec<PathBuf> = fs::read_dir(dir)
        .expect("fixtures/")
        .map(|e| e.expect("a directory entry").path())
        .filter(|p| p.extension().is_some_and(|e| e == "dat"))
        .collect();
    all.sort();
    assert!(all.len() >= 8);
    all
}

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
    for (n, fixture) in fixtures().iter().enumerate() {
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

/// The pieces' reports, joined, are the report of the whole, for both programs.
#[test]
fn the_reference_reads_pieces() {
    let reference = match programs::reference() {
        Ok(path) => path,
        Err(reason) => return skip("the_reference_reads_pieces", reason),
    };
    for fixture in fixtures() {
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
