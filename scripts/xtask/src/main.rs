//! `cargo xtask install`: builds the static release binary and puts it in place with what belongs to it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail, ensure};
use clap::{Arg, ArgAction, ArgMatches, value_parser};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xtask: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn cli() -> clap::Command {
    let path = |name: &'static str| Arg::new(name).long(name).value_name("DIR").value_parser(value_parser!(PathBuf));
    let profile = || {
        Arg::new("profile")
            .long("profile")
            .value_name("NAME")
            .default_value("release")
            .help("Cargo profile to build in")
    };
    let dynamic = || {
        let help =
            "Link with this machine's shared libraries; without it the binary runs on any Linux of its architecture";
        Arg::new("dynamic").long("dynamic").action(ArgAction::SetTrue).help(help)
    };
    clap::Command::new("cargo xtask")
        .about("Builds and installs tracecmd")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            clap::Command::new("install")
                .about("Build the release and install it: program, shell completions, manual pages")
                .arg(path("prefix").default_value("/usr/local").help("Where it belongs"))
                .arg(path("destdir").help("Put in front of every path, to make a package [default: $DESTDIR]"))
                .arg(
                    Arg::new("trace-cmd")
                        .long("trace-cmd")
                        .action(ArgAction::SetTrue)
                        .help("Also under the name trace-cmd: link, completions, manual pages"),
                )
                .args([profile(), dynamic()]),
        )
        .subcommand(
            clap::Command::new("build").about("Build the release and print its path").args([profile(), dynamic()]),
        )
}

fn run() -> anyhow::Result<()> {
    match cli().get_matches().subcommand() {
        Some(("install", m)) => install(m),
        Some(("build", m)) => {
            println!("{}", build(m)?.display());
            Ok(())
        }
        _ => bail!("nothing to do"),
    }
}

/// The triple of this machine's compiler.
fn host() -> anyhow::Result<String> {
    let out = Command::new("rustc").arg("-vV").output().context("rustc")?;
    let text = String::from_utf8_lossy(&out.stdout);
    let host = text.lines().find_map(|l| l.strip_prefix("host: ")).context("rustc names no host")?;
    Ok(host.to_owned())
}

/// The top directory of the workspace.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new(".")).to_path_buf()
}

/// Builds the program; gives where it lies.
fn build(m: &ArgMatches) -> anyhow::Result<PathBuf> {
    let profile = m.get_one::<String>("profile").map_or("release", String::as_str);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--package", "tracecmd", "--bin", "tracecmd", "--profile", profile]);
    let target_dir = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    let mut dir = target_dir.clone();
    if !m.get_flag("dynamic") {
        // With a target named, the flags hold for the program and not for what runs while it is built.
        let host = host()?;
        let mut flags = std::env::var_os("RUSTFLAGS").unwrap_or_default();
        flags.push(" -C target-feature=+crt-static");
        command.env("RUSTFLAGS", flags).args(["--target", &host]);
        dir.push(host);
    }
    let done = command.current_dir(workspace()).status().context("cargo")?;
    ensure!(done.success(), "the build failed");
    dir.push(if profile == "dev" { "debug" } else { profile });
    Ok(dir.join("tracecmd"))
}

fn install(m: &ArgMatches) -> anyhow::Result<()> {
    let program = build(m)?;
    let prefix = m.get_one::<PathBuf>("prefix").context("no prefix")?;
    ensure!(prefix.is_absolute(), "{}: the prefix must be an absolute path", prefix.display());
    let destdir = m.get_one::<PathBuf>("destdir").cloned().or_else(|| std::env::var_os("DESTDIR").map(PathBuf::from));
    let root = match destdir {
        Some(dest) => dest.join(prefix.strip_prefix("/").unwrap_or(prefix)),
        None => prefix.clone(),
    };
    let bin = root.join("bin");
    let installed = bin.join("tracecmd");
    put(&installed, &std::fs::read(&program).with_context(|| program.display().to_string())?, 0o755)?;
    extras(&root, &installed)?;
    if m.get_flag("trace-cmd") {
        let link = bin.join("trace-cmd");
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink("tracecmd", &link).with_context(|| link.display().to_string())?;
        println!("{} -> tracecmd", link.display());
        extras(&root, &link)?;
    }
    Ok(())
}

/// What the program makes of its own definitions, under the name it is called by: completions and manual pages.
fn extras(root: &Path, program: &Path) -> anyhow::Result<()> {
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let share = root.join("share");
    for (shell, file) in [
        ("bash", format!("bash-completion/completions/{name}")),
        ("zsh", format!("zsh/site-functions/_{name}")),
        ("fish", format!("fish/vendor_completions.d/{name}.fish")),
    ] {
        put(&share.join(file), &output(program, &["completions".into(), shell.into()])?, 0o644)?;
    }
    let man = share.join("man/man1");
    output(program, &["man".into(), man.clone().into()])?;
    println!("{}/{name}*.1", man.display());
    Ok(())
}

/// What the program prints.
fn output(program: &Path, args: &[OsString]) -> anyhow::Result<Vec<u8>> {
    let done = Command::new(program).args(args).output().with_context(|| program.display().to_string())?;
    ensure!(done.status.success(), "{} failed: {}", program.display(), String::from_utf8_lossy(&done.stderr).trim());
    Ok(done.stdout)
}

/// Writes a file with its directories, by rename: a running program can be replaced.
fn put(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let dir = path.parent().context("a path without a directory")?;
    std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let write = || {
        std::fs::write(&new, bytes)?;
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(mode))?;
        std::fs::rename(&new, path)
    };
    write().with_context(|| path.display().to_string())?;
    println!("{}", path.display());
    Ok(())
}
