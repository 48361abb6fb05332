//! `setup-guest`: makes the FIFOs through which a guest's data reach this machine.

use std::{
    fs::{DirBuilder, Permissions},
    io::Write,
    os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command as Process, ExitCode},
};

use anyhow::{Context, Result, bail, ensure};
use clap::{ArgMatches, Command};
use nix::{
    errno::Errno,
    sys::stat::Mode,
    unistd::{Gid, Group, chown, mkfifo},
};

use crate::{
    cli::{Ctx, option, ordered, switch},
    net::fifo,
};

/// Who may use the FIFOs: owner and group.
const MODE: u32 = 0o660;
/// Who may see them.
const DIR_MODE: u32 = 0o750;
/// Most CPUs of a guest.
const MOST_CPUS: u32 = 4096;

/// The options of `setup-guest`.
pub fn command() -> Command {
    Command::new("setup-guest")
        .args([
            option("c", "CPUS", "Number of the guest's CPUs [default: what virsh says]"),
            option("p", "MODE", "Permissions of the FIFOs, octal [default: 0660]"),
            option("g", "GROUP", "Group of the FIFOs"),
            switch("a", "Attach them to the guest's definition (virsh attach-device --config)"),
            crate::cli::optional("verbose", "LEVEL", "Log level"),
            clap::Arg::new("guest").required(true).num_args(1).value_name("GUEST"),
        ])
        .after_help(
            "The FIFOs lie in /var/lib/trace-cmd/virt/GUEST. With -a the guest has them after its next start; `record -A GUEST` \
             uses them in place of network connections when both sides have them.\n\n\
             Example:\n  tracecmd setup-guest -c 4 -g qemu -a Fedora",
        )
}

/// What is to be made.
struct Setup {
    guest: String,
    cpus: u32,
    mode: u32,
    group: Option<Gid>,
}

/// Makes the FIFOs, and attaches them if asked to.
pub fn run(_cx: &Ctx, m: &ArgMatches) -> Result<ExitCode> {
    let guest = m.get_one::<String>("guest").cloned().unwrap_or_default();
    let (mut cpus, mut mode, mut group, mut attach) = (None, MODE, None, false);
    for o in ordered(m) {
        let text = o.text();
        match o.id.as_str() {
            "c" => {
                let n = text.parse::<u32>().ok().filter(|n| (1..=MOST_CPUS).contains(n));
                cpus = Some(n.with_context(|| format!("-c {text}: no number of CPUs within 1..={MOST_CPUS}"))?);
            }
            "p" => {
                let bits = u32::from_str_radix(&text, 8).ok().filter(|m| *m <= 0o777);
                mode = bits.with_context(|| format!("-p {text}: no permissions; give octal digits, such as 0660"))?;
            }
            "g" => {
                let found = Group::from_name(&text).with_context(|| format!("-g {text}"))?;
                group = Some(found.with_context(|| format!("-g {text}: there is no such group"))?.gid);
            }
            "a" => attach = true,
            "verbose" => crate::log::set_level(Some(text.as_str()).filter(|t| !t.is_empty()))?,
            _ => {}
        }
    }
    ensure!(fifo::is_name(&guest), "{guest:?} is no name of a guest: it becomes the name of a directory");
    let cpus = match cpus {
        Some(n) => n,
        None => virsh_cpus(&guest).with_context(|| format!("give the number of CPUs of {guest} by -c"))?,
    };
    let setup = Setup { guest, cpus, mode, group };
    let dir = setup.make(Path::new(fifo::HOST_DIR))?;
    if attach {
        setup.attach(&dir)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The most CPUs that the guest may get, by libvirt.
fn virsh_cpus(guest: &str) -> Result<u32> {
    let out = virsh(&["vcpucount", "--maximum", guest])?;
    let count = out.split_whitespace().find_map(|w| w.parse::<u32>().ok());
    count.filter(|n| (1..=MOST_CPUS).contains(n)).with_context(|| format!("virsh does not say it: {:?}", out.trim()))
}

fn virsh(words: &[&str]) -> Result<String> {
    let out = Process::new("virsh").args(words).output().context("cannot run virsh")?;
    if !out.status.success() {
        bail!("virsh {}: {}", words.join(" "), String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

impl Setup {
    /// Makes directory and FIFOs below `base`; what is there already gets the permissions asked for.
    fn make(&self, base: &Path) -> Result<PathBuf> {
        // Those above that are missing get the same group and permissions: without them nobody of the group comes to the FIFOs.
        let missing: Vec<&Path> = base.ancestors().take_while(|d| !d.exists()).collect();
        for dir in missing.into_iter().rev() {
            DirBuilder::new().mode(DIR_MODE).create(dir).with_context(|| format!("cannot make {}", dir.display()))?;
            self.own(dir, DIR_MODE)?;
        }
        let dir = base.join(&self.guest);
        match DirBuilder::new().mode(DIR_MODE).create(&dir) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(e).with_context(|| format!("cannot make {}", dir.display()));
            }
            _ => self.own(&dir, DIR_MODE)?,
        }
        for cpu in 0..self.cpus {
            for end in fifo::ENDS {
                let path = fifo::host_path(&dir, cpu, end);
                match mkfifo(&path, Mode::from_bits_truncate(self.mode)) {
                    Ok(()) => {}
                    Err(Errno::EEXIST) => {
                        let kind = path.symlink_metadata().with_context(|| path.display().to_string())?.file_type();
                        ensure!(kind.is_fifo(), "{} is there, and no FIFO", path.display());
                    }
                    Err(e) => return Err(e).with_context(|| format!("cannot make {}", path.display())),
                }
                self.own(&path, self.mode)?;
            }
        }
        Ok(dir)
    }

    /// Permissions and group, whatever the umask is.
    fn own(&self, path: &Path, mode: u32) -> Result<()> {
        if self.group.is_some() {
            chown(path, None, self.group).with_context(|| format!("cannot change the group of {}", path.display()))?;
        }
        std::fs::set_permissions(path, Permissions::from_mode(mode)).with_context(|| path.display().to_string())
    }

    /// Adds a channel for each CPU to the guest's definition.
    fn attach(&self, dir: &Path) -> Result<()> {
        for cpu in 0..self.cpus {
            let mut file = tempfile_in(dir, cpu)?;
            file.0.write_all(channel(dir, cpu).as_bytes()).with_context(|| file.1.display().to_string())?;
            let done = virsh(&["attach-device", "--config", &self.guest, &file.1.to_string_lossy()]);
            let _ = std::fs::remove_file(&file.1);
            done.with_context(|| format!("cannot attach {} to {}", fifo::name(cpu), self.guest))?;
        }
        Ok(())
    }
}

fn tempfile_in(dir: &Path, cpu: u32) -> Result<(std::fs::File, PathBuf)> {
    let path = dir.join(format!(".channel-{cpu}-{}.xml", std::process::id()));
    let file = std::fs::File::options().write(true).create_new(true).open(&path);
    Ok((file.with_context(|| format!("cannot make {}", path.display()))?, path))
}

/// The channel of a CPU as libvirt wants it.
///
/// Source: libvirt's description of domains, "Channel" and "Named pipe".
fn channel(dir: &Path, cpu: u32) -> String {
    let name = fifo::name(cpu);
    let path = dir.join(&name);
    format!(
        "<channel type='pipe'>\n  <source path='{}'/>\n  <target type='virtio' name='{name}'/>\n</channel>\n",
        escape(&path.to_string_lossy())
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifos_with_their_permissions() {
        let t = tempfile::tempdir().unwrap();
        let mut s = Setup { guest: "vm1".into(), cpus: 2, mode: 0o600, group: None };
        let dir = s.make(&t.path().join("virt")).unwrap();
        s.mode = 0o662;
        assert_eq!(s.make(&t.path().join("virt")).unwrap(), dir, "a second time");
        let mode = |p: &Path| p.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(dir.parent().unwrap())), (0o750, 0o750));
        let mut names: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        let all = ["trace-pipe-cpu0.in", "trace-pipe-cpu0.out", "trace-pipe-cpu1.in", "trace-pipe-cpu1.out"];
        assert_eq!(names, all);
        for n in all {
            assert!(dir.join(n).metadata().unwrap().file_type().is_fifo());
            assert_eq!(mode(&dir.join(n)), 0o662);
        }
        std::fs::remove_file(dir.join(all[0])).unwrap();
        std::fs::write(dir.join(all[0]), "").unwrap();
        assert!(s.make(&t.path().join("virt")).is_err(), "a file in the place of a FIFO");
    }

    #[test]
    fn channels() {
        let text = channel(Path::new("/v/a&b"), 3);
        assert!(text.contains("path='/v/a&amp;b/trace-pipe-cpu3'"), "{text}");
        assert!(text.contains("name='trace-pipe-cpu3'"));
    }
}
