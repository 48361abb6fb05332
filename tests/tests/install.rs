//! `cargo xtask install`: a binary that needs no library, completions that shells understand, manual pages without fault.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use tracecmd_tests::{programs, skip::skip};

/// What `cargo xtask install` puts in place, under both names: the directory that stands for `/usr`. Built once for all tests here,
/// in the profile that compiles fastest. `TRACECMD_INSTALLED` names a directory where that was done before.
fn installed() -> &'static Path {
    static DIR: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = DIR.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        if let Some(path) = std::env::var_os("TRACECMD_INSTALLED") {
            return (dir, path.into());
        }
        let done = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args([
                "run",
                "--quiet",
                "--package",
                "xtask",
                "--",
                "install",
                "--profile",
                "quick",
                "--prefix",
                "/usr",
                "--trace-cmd",
            ])
            .arg("--destdir")
            .arg(dir.path())
            .current_dir(programs::workspace())
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let path = dir.path().join("usr");
        (dir, path)
    });
    path
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn has(tool: &str) -> bool {
    Command::new(tool)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .stdin(Stdio::null())
        .status()
        .is_ok()
}

/// Standard output and error of a command with the installed programs first in its path.
fn run(command: &mut Command) -> (bool, String) {
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", installed().join("bin").display());
    let done = command.env("PATH", path).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    (done.status.success(), text)
}

#[test]
fn everything_is_in_place() {
    let usr = installed();
    for name in ["tracecmd", "trace-cmd"] {
        for file in [
            format!("bin/{name}"),
            format!("share/bash-completion/completions/{name}"),
            format!("share/zsh/site-functions/_{name}"),
            format!("share/fish/vendor_completions.d/{name}.fish"),
            format!("share/man/man1/{name}.1"),
            format!("share/man/man1/{name}-record.1"),
        ] {
            let text = std::fs::read(usr.join(&file)).unwrap_or_else(|e| panic!("{file}: {e}"));
            assert!(!text.is_empty(), "{file}");
        }
        let (good, text) = run(Command::new(name).args(["record", "--help"]));
        assert!(
            good && text.contains(&format!("Usage: {name} record")) && text.contains(&format!("  {name} record -e")),
            "{text}"
        );
    }
    assert_eq!(std::fs::read_link(usr.join("bin/trace-cmd")).unwrap(), Path::new("tracecmd"));
}

/// In a root directory with nothing but the program, a recording and a list of users.
#[test]
fn runs_without_libraries() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    std::fs::copy(installed().join("bin/tracecmd"), root.join("tracecmd")).unwrap();
    let file = programs::workspace().join("fixtures/x86_64-6.1-sched-v6.dat");
    std::fs::copy(&file, root.join("x.dat")).unwrap();
    if !is_root() && !Command::new("unshare").args(["-r", "true"]).status().is_ok_and(|s| s.success()) {
        return skip("install::runs_without_libraries", "neither root nor user namespaces: no other root directory");
    }
    let inside = |args: &[&str]| {
        let mut command = Command::new(if is_root() { "chroot" } else { "unshare" });
        if !is_root() {
            command.args(["-r", "chroot"]);
        }
        let done = command.arg(root).arg("/tracecmd").args(args).stdin(Stdio::null()).output().unwrap();
        (done.status.code(), done.stdout, String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let (code, text, messages) = inside(&["report", "-i", "/x.dat"]);
    assert_eq!(code, Some(0), "{messages}");
    let outside = Command::new(programs::tracecmd()).args(["report", "-i"]).arg(&file).output().unwrap();
    assert!(text == outside.stdout, "the report is another one");
    // A name service that the system asks for and that a static program cannot load; the listener looks up who connects.
    std::fs::create_dir_all(root.join("etc")).unwrap();
    std::fs::write(root.join("etc/nsswitch.conf"), "hosts: mymachines resolve files\npasswd: systemd sss files\n")
        .unwrap();
    std::fs::write(root.join("etc/hosts"), "127.0.0.1 its-own-name\n").unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new(if is_root() { "chroot" } else { "unshare" });
    if !is_root() {
        command.args(["-r", "chroot"]);
    }
    let log = root.join("log");
    command.arg(root).args(["/tracecmd", "listen", "-l", "/log", "-p", &port.to_string()]);
    let mut listener = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let mut seen = String::new();
    while std::time::Instant::now() < end && !seen.contains("its-own-name") {
        drop(std::net::TcpStream::connect(("127.0.0.1", port)));
        std::thread::sleep(std::time::Duration::from_millis(200));
        seen = std::fs::read_to_string(&log).unwrap_or_default();
        assert!(listener.try_wait().unwrap().is_none(), "the listener ended: {seen}");
    }
    listener.kill().unwrap();
    listener.wait().unwrap();
    assert!(seen.contains("its-own-name"), "{seen}");
}

#[test]
fn bash_completes() {
    let script = installed().join("share/bash-completion/completions/tracecmd");
    let ask = |words: &str| {
        let text = format!(
            "set -e; . {}; f=$(complete -p tracecmd | sed 's/.*-F \\([^ ]*\\).*/\\1/'); COMP_WORDS=({words}); \
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=(); \
             $f tracecmd \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\" || true; echo \" ${{COMPREPLY[*]}} \"",
            script.display()
        );
        run(Command::new("bash").args(["-c", &text])).1
    };
    for (words, hit) in [
        ("tracecmd rec", " record "),
        ("tracecmd record --file", " --file-version "),
        ("tracecmd record --compression z", " zlib zstd "),
        ("tracecmd reset -k eprob", " eprobe "),
        ("tracecmd stream --no-f", " --no-filter "),
    ] {
        let text = ask(words);
        assert!(text.contains(hit), "{words}: {text}");
    }
    check_live("install::bash_completes", ask);
}

/// What only the running kernel knows.
fn check_live(test: &str, ask: impl Fn(&str) -> String) {
    if !is_root() || !Path::new("/sys/kernel/tracing/events").exists() {
        return skip(test, "events of the running kernel are not completed: no root or no tracefs");
    }
    for (words, hit) in [
        ("tracecmd record -e sched:sched_swi", "sched_switch"),
        ("tracecmd start -p no", "nop"),
        ("tracecmd record -C glo", "global"),
    ] {
        let text = ask(words);
        assert!(text.contains(hit), "{words}: {text}");
    }
}

#[test]
fn fish_completes() {
    if !has("fish") {
        return skip("install::fish_completes", "no fish");
    }
    let script = installed().join("share/fish/vendor_completions.d/tracecmd.fish");
    let ask = |words: &str| {
        run(Command::new("fish").arg("-c").arg(format!("source {}; complete -C '{words}'", script.display()))).1
    };
    for (words, hit) in [
        ("tracecmd rec", "record\t"),
        ("tracecmd record --file", "--file-version"),
        ("tracecmd record --compression z", "zstd"),
        ("tracecmd reset -k eprob", "eprobe"),
    ] {
        let text = ask(words);
        assert!(text.contains(hit), "{words}: {text}");
    }
    check_live("install::fish_completes", ask);
}

#[test]
fn zsh_completes() {
    if !has("zsh") {
        return skip("install::zsh_completes", "no zsh");
    }
    let dir = installed().join("share/zsh/site-functions");
    // A shell in a pseudo-terminal, as a person would use it: the line, then the list of choices.
    let ask = |words: &str| {
        let text = format!(
            "zmodload zsh/zpty; zpty z zsh -f -i; \
             zpty -w z \"PS1=; fpath=({} \\$fpath); autoload -U compinit; compinit -u -D; LISTMAX=9999; print READY\"; \
             while zpty -r z l && [[ $l != READY* ]]; do :; done; \
             zpty -n -w z '{words}'$'\\t\\t'; sleep 3; while zpty -r -t z l; do print -rn -- $l; done; zpty -d z",
            dir.display()
        );
        let screen = run(Command::new("zsh").args(["-f", "-c", &text])).1;
        // What is left when the terminal's control sequences are taken away.
        let mut parts = screen.split('\u{1b}');
        let mut shown = parts.next().unwrap_or("").to_owned();
        for part in parts {
            shown += part
                .strip_prefix('[')
                .map_or(part, |p| p.trim_start_matches(|c: char| !c.is_ascii_alphabetic()).get(1..).unwrap_or(""));
        }
        shown.replace(['\r', '\u{7}', '\u{8}'], "")
    };
    for (words, hit) in [
        ("tracecmd rec", "record"),
        ("tracecmd record --file-v", "--file-version"),
        ("tracecmd record --compression zs", "zstd"),
        ("tracecmd reset -k epr", "eprobe"),
    ] {
        let text = ask(words);
        assert!(text.contains(hit), "{words}: {text}");
    }
    check_live("install::zsh_completes", ask);
}

#[test]
fn manual_pages_have_no_fault() {
    if !has("mandoc") && !Path::new("/usr/bin/mandoc").exists() {
        return skip("install::manual_pages_have_no_fault", "no mandoc");
    }
    let mut pages = 0;
    for page in std::fs::read_dir(installed().join("share/man/man1")).unwrap().flatten() {
        let (good, text) = run(Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).arg(page.path()));
        assert!(good && text.trim().is_empty(), "{text}");
        pages += 1;
    }
    assert!(pages > 50, "{pages} pages");
}

/// Every line of every help fits a terminal of 80 columns; asked for, it is no error.
#[test]
fn help_fits_a_terminal() {
    let (_, list) = run(Command::new("tracecmd").arg("help"));
    let mut seen = 0;
    for name in list.lines().skip_while(|l| !l.starts_with("Commands:")).skip(1).take_while(|l| l.starts_with("  ")) {
        let Some(name) = name.strip_prefix("  ").and_then(|n| n.split(' ').next()).filter(|n| !n.is_empty()) else {
            continue;
        };
        let done = Command::new(installed().join("bin/tracecmd")).args([name, "--help"]).output().unwrap();
        assert!(done.status.success() && done.stderr.is_empty(), "{name}");
        for line in String::from_utf8_lossy(&done.stdout).lines() {
            assert!(line.chars().count() <= 80, "{name}: {line}");
        }
        let wrong = Command::new(installed().join("bin/tracecmd")).args([name, "--no-such-option"]).output().unwrap();
        assert_eq!(wrong.status.code(), Some(2), "{name}");
        assert!(wrong.stdout.is_empty() && !wrong.stderr.is_empty(), "{name}");
        seen += 1;
    }
    assert!(seen > 25, "{seen} commands");
}
