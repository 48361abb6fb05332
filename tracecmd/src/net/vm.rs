//! The process of a virtual machine on this host: found by its vsock context id, with the threads of its virtual CPUs.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where KVM shows its machines (debugfs).
pub const KVM_DIR: &str = "/sys/kernel/debug/kvm";

/// A virtual machine on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Its process.
    pub pid: i32,
    /// The host thread of each virtual CPU, by number.
    pub threads: Vec<(u32, u32)>,
    /// KVM's directory of each virtual CPU, by number.
    pub vcpus: Vec<PathBuf>,
}

impl Machine {
    /// The machine with this context id, if its process says so on its command line.
    pub fn find(cid: u32) -> Option<Machine> {
        Machine::find_in(Path::new("/proc"), Path::new(KVM_DIR), cid)
    }

    fn find_in(proc: &Path, kvm: &Path, cid: u32) -> Option<Machine> {
        // The numbers below belong to the hypervisor, the loopback and the host.
        if cid <= 2 {
            return None;
        }
        let pid = numbered(proc, |n| n.parse().ok())
            .into_iter()
            .find(|(_, dir)| fs::read(dir.join("cmdline")).is_ok_and(|line| names_cid(&line, cid)))?
            .0;
        let vcpus = vcpus(kvm, pid);
        let mut threads = threads(&proc.join(pid.to_string()));
        if threads.is_empty() {
            threads = vcpus.iter().filter_map(|(n, dir)| Some((*n, read_number(&dir.join("pid"))?))).collect();
        }
        let vcpus = vcpus.into_iter().map(|v| v.1).collect();
        Some(Machine { pid: i32::try_from(pid).ok()?, threads, vcpus })
    }

    /// Whether KVM shows what its time protocol needs.
    pub fn shows_tsc(&self) -> bool {
        let has = |dir: &PathBuf, file: &str| dir.join(file).exists();
        let complete =
            |d: &PathBuf| has(d, "tsc-offset") && has(d, "tsc-scaling-ratio") == has(d, "tsc-scaling-ratio-frac-bits");
        !self.vcpus.is_empty() && self.vcpus.iter().all(complete)
    }
}

/// Directories with a number in their names, in order.
fn numbered(dir: &Path, number: impl Fn(&str) -> Option<u32>) -> Vec<(u32, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut all: Vec<_> = entries.filter_map(|e| Some((number(e.file_name().to_str()?)?, e.path()))).collect();
    all.sort();
    all
}

/// Whether a command line gives a machine this context id: `guest-cid=3`, `"guest-cid":3`, `cid=3`.
fn names_cid(line: &[u8], cid: u32) -> bool {
    let line = String::from_utf8_lossy(line);
    line.split("cid").skip(1).any(|after| {
        let rest = after.trim_start_matches(['"', '=', ':', ' ']);
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        rest.len() < after.len() && digits.parse() == Ok(cid)
    })
}

/// QEMU calls the threads `CPU n/KVM`.
fn threads(process: &Path) -> Vec<(u32, u32)> {
    let tasks = numbered(&process.join("task"), |n| n.parse().ok());
    let mut all: Vec<(u32, u32)> = tasks
        .into_iter()
        .filter_map(|(tid, dir)| {
            let comm = fs::read_to_string(dir.join("comm")).ok()?;
            let vcpu = comm.trim().strip_prefix("CPU ")?.strip_suffix("/KVM")?.parse().ok()?;
            Some((vcpu, tid))
        })
        .collect();
    all.sort_unstable();
    all
}

/// KVM's directories of the virtual CPUs of a process: `PID-FD/vcpuN`.
fn vcpus(kvm: &Path, pid: u32) -> Vec<(u32, PathBuf)> {
    let machine = numbered(kvm, |n| n.split_once('-')?.0.parse().ok()).into_iter().find(|m| m.0 == pid);
    machine.map(|m| numbered(&m.1, |n| n.strip_prefix("vcpu")?.parse().ok())).unwrap_or_default()
}

fn read_number(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_ids_of_command_lines() {
        let has = |line: &str, cid| names_cid(line.as_bytes(), cid);
        assert!(has("qemu\0-device\0vhost-vsock-pci,id=v,guest-cid=12,x=1\0", 12));
        assert!(!has("qemu\0-device\0vhost-vsock-pci,guest-cid=123\0", 12));
        assert!(has("qemu\0-device\0{\"driver\":\"vhost-vsock-pci\",\"guest-cid\":12,\"id\":\"v\"}\0", 12));
        assert!(has("crosvm\0--cid=12\0", 12) && !has("crosvm\0--cid\0=12", 1));
        assert!(!has("some cid12 text", 12) && !has("", 12));
    }

    #[test]
    fn process_threads_and_directories() {
        let t = tempfile::tempdir().unwrap();
        let (proc, kvm) = (t.path().join("proc"), t.path().join("kvm"));
        let put = |path: PathBuf, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put(proc.join("70/cmdline"), "qemu\0guest-cid=4\0");
        put(proc.join("77/cmdline"), "qemu\0guest-cid=3\0");
        for (tid, comm) in [(77, "qemu"), (80, "CPU 1/KVM"), (81, "CPU 10/KVM"), (79, "CPU 0/KVM")] {
            put(proc.join(format!("77/task/{tid}/comm")), &format!("{comm}\n"));
        }
        for n in [10, 1, 0] {
            put(kvm.join(format!("77-5/vcpu{n}/tsc-offset")), "-100");
        }
        put(kvm.join("70-5/vcpu0/pid"), "90\n");
        let m = Machine::find_in(&proc, &kvm, 3).unwrap();
        assert_eq!((m.pid, &m.threads[..]), (77, &[(0, 79), (1, 80), (10, 81)][..]));
        let names: Vec<_> = m.vcpus.iter().map(|p| p.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["vcpu0", "vcpu1", "vcpu10"]);
        assert!(m.shows_tsc());
        put(kvm.join("77-5/vcpu1/tsc-scaling-ratio"), "1");
        assert!(!m.shows_tsc(), "a ratio without its fraction");
        let m = Machine::find_in(&proc, &kvm, 4).unwrap();
        assert_eq!(m.threads, [(0, 90)], "threads as KVM names them");
        assert!(!m.shows_tsc() && Machine::find_in(&proc, &kvm, 5).is_none());
    }
}
