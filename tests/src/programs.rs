//! The two programs that the tests run: ours, as built now, and the reference, C trace-cmd of Debian.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The top directory of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_path_buf()
}

/// The recordings in `fixtures/`, by name.
///
/// # Panics
/// When the directory cannot be read.
pub fn fixtures() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(workspace().join("fixtures"))
        .expect("fixtures/")
        .map(|e| e.expect("a directory entry").path())
        .filter(|p| p.extension().is_some_and(|e| e == "dat"))
        .collect();
    files.sort();
    files
}

/// Our binary: `TRACECMD_BIN`, else built now in the profile of this test (so that it is never an old one).
///
/// # Panics
/// When it cannot be built.
pub fn tracecmd() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        if let Some(path) = std::env::var_os("TRACECMD_BIN") {
            return PathBuf::from(path);
        }
        let mut cargo = cargo();
        cargo.args(["build", "--quiet", "--workspace", "--bin", "tracecmd"]).current_dir(workspace());
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        let done = cargo.status().expect("cargo starts");
        assert!(done.success(), "our binary does not build");
        // The test itself is TARGET/PROFILE/deps/NAME.
        let test = std::env::current_exe().expect("the path of this test");
        let profile = test.ancestors().nth(2).expect("a test lies two levels below its profile");
        let path = profile.join("tracecmd");
        assert!(path.exists(), "no binary at {}", path.display());
        path
    })
}

/// Cargo without the variables that it set for this test: some build scripts (ring's) run again when those change.
fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let of_this_test = |name: &str| {
        ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_", "CARGO_TARGET_TMPDIR"]
            .iter()
            .any(|start| name.starts_with(start))
    };
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_this_test)) {
        cargo.env_remove(name);
    }
    cargo
}

/// The program of an integration test of another crate, built now in the profile of this test.
///
/// # Errors
/// When it does not build, or cargo names no program.
pub fn test_program(package: &str, test: &str) -> anyhow::Result<PathBuf> {
    let mut cargo = cargo();
    cargo.args(["test", "--quiet", "--workspace", "--test", test, "--no-run", "--message-format", "json"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let done = cargo.current_dir(workspace()).stderr(Stdio::inherit()).output()?;
    anyhow::ensure!(done.status.success(), "test {test} of {package} does not build");
    let text = String::from_utf8(done.stdout)?;
    let messages = text.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
    let mut of_test = messages.filter(|m| m["target"]["name"] == test && m["executable"].is_string());
    let path = of_test.next_back().and_then(|m| m["executable"].as_str().map(PathBuf::from));
    path.ok_or_else(|| anyhow::anyhow!("cargo names no program of test {test} of {package}"))
}

/// The directory of the reference (`trace-cmd` in it runs it), or why it cannot be had.
///
/// `TRACECMD_REFERENCE` names a program to use; else Debian's package is fetched once. Another release than 3.4 is no
/// reference: its output differs.
pub fn reference() -> Result<&'static Path, &'static str> {
    static PATH: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = PATH.get_or_init(|| {
        if let Some(path) = std::env::var_os("TRACECMD_REFERENCE") {
            return Ok(PathBuf::from(path));
        }
        let dir = fetch(&["reference"])?;
        let version = std::fs::read_to_string(dir.join("version")).map_err(|e| e.to_string())?;
        match version.trim() {
            v if v.starts_with("3.4") => Ok(dir.join("trace-cmd")),
            v => Err(format!("the reference is trace-cmd 3.4, Debian has {v} now")),
        }
    });
    match found {
        Ok(path) => Ok(path),
        Err(reason) => Err(reason),
    }
}

/// C trace-cmd 3.1.6, Debian's of 2023, which knows neither zlib nor BTF; or why it cannot be had.
pub fn old_reference() -> Result<&'static Path, &'static str> {
    static PATH: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = PATH.get_or_init(|| Ok(fetch(&["reference", "bookworm"])?.join("trace-cmd")));
    match found {
        Ok(path) => Ok(path),
        Err(reason) => Err(reason),
    }
}

/// Runs `tests/guest/fetch` and gives the directory it prints, or why there is none.
pub fn fetch(words: &[&str]) -> Result<PathBuf, String> {
    let script = workspace().join("tests/guest/fetch");
    let done = Command::new(&script)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{}: {e}", script.display()))?;
    if !done.status.success() {
        let text = String::from_utf8_lossy(&done.stderr);
        return Err(text.trim().lines().last().unwrap_or("tests/guest/fetch failed").to_owned());
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&done.stdout).trim()))
}
