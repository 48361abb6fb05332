//! `listen`: receives recordings of other machines over the network.

use std::{
    fs::File,
    io::{IsTerminal, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use clap::{ArgMatches, Command};
use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::{SigSet, Signal},
    stat::{Mode, umask},
};

use crate::{
    cli::{Ctx, option, optional, ordered, switch},
    net::{
        addr::Network,
        limits::Limits,
        listen::{Config, Listen, Server, TlsConfig},
        msg::{FIRST_DATA_PORT, LAST_DATA_PORT},
        tls::{self, Identity},
    },
};

/// Where the daemon writes its process id.
const PID_FILE: &str = "/var/run/trace-cmd-net.pid";

/// The options of `listen`.
pub fn command() -> Command {
    Command::new("listen")
        .args([
            option("p", "PORT", "Port that recorders connect to").long("port"),
            switch("D", "Go to the background; the process id is in /var/run/trace-cmd-net.pid"),
            switch("V", "Listen on vsock instead of TCP"),
            option("o", "NAME", "First part of the files' names [default: trace]"),
            option("d", "DIR", "Directory of the files [default: the current one]"),
            option("l", "FILE", "Write the log to FILE instead of stdout"),
            option("bind", "ADDR", "Listen on this address only; may be repeated [default: all]"),
            option("allow", "ADDR[/BITS]", "Accept recorders of this network only; may be repeated"),
            option("data-ports", "A-B", "Ports for the data of the recorders' CPUs [default: 1500-6000]"),
            option("max-clients", "N", "Recorders at once [default: 64]"),
            option("max-cpus", "N", "CPUs of one recorder [default: 1024]"),
            option("max-size", "SIZE", "Bytes that one recording may take (suffix K, M, G, T) [default: 1T]"),
            option("max-total", "SIZE", "Bytes that all recordings may take together [default: 4T]"),
            option("tls-cert", "FILE", "Talk TLS with this certificate (PEM); plain recorders are refused then"),
            option("tls-key", "FILE", "Private key of that certificate (PEM)"),
            option("tls-client-ca", "FILE", "Accept only recorders whose certificate is signed by this one (PEM)"),
            option("new-certificate", "DIR", "Make certificates and keys for a lab in DIR, then exit"),
            option("name", "HOST", "With --new-certificate: one more name of this machine; may be repeated"),
            switch("only-v1", "Answer as a listener that only knows protocol V1").hide(true),
            switch("debug", "Show more of what happens"),
            optional("verbose", "LEVEL", "Log level"),
        ])
        .after_help(
            "A recording of HOST ends as NAME.HOST:PORT.dat. Ctrl-C completes all files.\n\n\
             Examples:\n  \
             tracecmd listen -p 5000 -d /var/traces        on the big machine\n  \
             tracecmd record -N big:5000 -e sched sleep 5  on the small one\n\n  \
             tracecmd listen --new-certificate tls         certificates for a lab, then:\n  \
             tracecmd listen -p 5000 --tls-cert tls/server.pem --tls-key tls/server-key.pem --tls-client-ca tls/ca.pem",
        )
}

/// Listens until SIGINT or SIGTERM.
pub fn run(_cx: &Ctx, m: &ArgMatches) -> Result<ExitCode> {
    let mut port = None;
    let (mut vsock, mut daemon) = (false, false);
    let (mut bind, mut names) = (Vec::new(), Vec::new());
    let mut log = None;
    let (mut cert, mut key, mut client_ca, mut new_certificate) = (None, None, None, None);
    let mut c = Config {
        listen: Listen::Vsock(0),
        dir: PathBuf::from("."),
        prefix: "trace".into(),
        allow: Vec::new(),
        limits: Limits::default(),
        data_ports: FIRST_DATA_PORT..=LAST_DATA_PORT,
        tls: None,
        log: None,
        progress: false,
        only_v1: false,
    };
    for o in ordered(m) {
        let text = o.text();
        let path = || o.value.clone().map(PathBuf::from);
        match o.id.as_str() {
            "p" => port = Some(text.parse::<u32>().with_context(|| format!("-p {text}: no port"))?),
            "D" => daemon = true,
            "V" => vsock = true,
            "o" => c.prefix = prefix(&text)?,
            "d" => c.dir = path().unwrap_or_default(),
            "l" => log = path(),
            "bind" => bind.push(text.parse::<IpAddr>().with_context(|| format!("--bind {text}: no IP address"))?),
            "allow" => c.allow.push(text.parse::<Network>().map_err(|e| anyhow::anyhow!("--allow {text}: {e}"))?),
            "data-ports" => c.data_ports = port_range(&text)?,
            "max-clients" => c.limits.max_clients = number(&text, "--max-clients")?,
            "max-cpus" => c.limits.max_cpus = number(&text, "--max-cpus")?,
            "max-size" => c.limits.max_size = size(&text).with_context(|| format!("--max-size {text}"))?,
            "max-total" => c.limits.max_total = size(&text).with_context(|| format!("--max-total {text}"))?,
            "tls-cert" => cert = path(),
            "tls-key" => key = path(),
            "tls-client-ca" => client_ca = path(),
            "debug" => crate::log::set_level(Some("debug"))?,
            "verbose" => crate::log::set_level(Some(text.as_str()).filter(|t| !t.is_empty()))?,
            "only-v1" => c.only_v1 = true,
            "new-certificate" => new_certificate = path(),
            "name" => names.push(text),
            _ => {}
        }
    }
    if let Some(dir) = new_certificate {
        for file in tls::new_certificates(&dir, &names)? {
            println!("{}", file.display());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let port = port.context("no port to listen on: give -p PORT")?;
    c.listen = if vsock {
        Listen::Vsock(port)
    } else {
        let port = u16::try_from(port).ok().with_context(|| format!("-p {port}: TCP ports end at 65535"))?;
        Listen::Tcp(addresses(&bind, port))
    };
    c.tls = match (cert, key) {
        (Some(cert), Some(key)) => Some(TlsConfig(tls::server(&Identity { cert, key }, client_ca.as_deref())?)),
        (None, None) if client_ca.is_none() => None,
        _ => bail!("TLS needs both --tls-cert and --tls-key"),
    };
    let dir = c.dir.canonicalize().with_context(|| format!("{}: no such directory", c.dir.display()))?;
    c.dir = dir;
    if let Some(path) = &log {
        c.log = Some(File::create(path).with_context(|| format!("{}: cannot be made", path.display()))?);
    }
    // Signals are read from a descriptor; every thread must have them blocked from its start.
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGINT);
    mask.add(Signal::SIGTERM);
    mask.thread_block()?;
    c.progress = !daemon && std::io::stderr().is_terminal();
    // Every CPU of every recorder needs a connection and a file.
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
    let mut server = Server::new(c)?;
    announce(&server);
    // The daemon's directory stays: names on the command line are relative to it.
    let pid_file = if daemon { Some(go_to_background(log.is_some())?) } else { None };
    // What machines send is for their owner's eyes.
    umask(Mode::from_bits_truncate(0o077));
    let result = server.run();
    if let Some(path) = pid_file {
        let _ = std::fs::remove_file(path);
    }
    result?;
    Ok(ExitCode::SUCCESS)
}

/// All addresses, one socket for both IP versions where the machine has IPv6.
fn addresses(bind: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    if !bind.is_empty() {
        return bind.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
    }
    let v6 = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).is_ok();
    let any: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    vec![SocketAddr::new(any, port)]
}

fn announce(server: &Server) {
    for a in server.addresses() {
        match (a.as_socket(), a.as_vsock_address()) {
            (Some(ip), _) => {
                let _ = writeln!(std::io::stderr(), "listening on {ip}");
            }
            (_, Some((_, port))) => {
                // The wildcard says nothing: the machine's own number is what a peer needs.
                let cid = vsock::get_local_cid().unwrap_or(libc::VMADDR_CID_ANY);
                println!("listening on @{cid}:{port}");
            }
            _ => {}
        }
    }
}

fn go_to_background(logs_to_file: bool) -> Result<PathBuf> {
    // Without a log file the terminal's stdout goes on to be used, as scripts expect that redirect it.
    nix::unistd::daemon(true, !logs_to_file).context("cannot go to the background")?;
    let path = PathBuf::from(PID_FILE);
    let text = format!("{}\n", std::process::id());
    std::fs::write(&path, text).with_context(|| format!("{}: cannot be written", path.display()))?;
    Ok(path)
}

fn prefix(text: &str) -> Result<String> {
    // A prefix with a directory would leave -d; say so instead of cutting it.
    if Path::new(text).file_name().is_none_or(|n| n != text) {
        bail!("-o {text}: a first part of file names has no directory; give that by -d");
    }
    Ok(text.to_owned())
}

fn port_range(text: &str) -> Result<RangeInclusive<u16>> {
    let parse = || -> Option<RangeInclusive<u16>> {
        let (a, b) = text.split_once('-').unwrap_or((text, text));
        let (a, b) = (a.trim().parse().ok()?, b.trim().parse().ok()?);
        (a > 0 && a <= b).then_some(a..=b)
    };
    parse().with_context(|| format!("--data-ports {text}: give A-B, two ports in order"))
}

fn number<T: std::str::FromStr>(text: &str, option: &str) -> Result<T> {
    text.parse().ok().with_context(|| format!("{option} {text}: no number"))
}

/// Reads a size: a number and perhaps K, M, G or T (powers of 1024).
fn size(text: &str) -> Result<u64> {
    let shift = match text.chars().last().map(|c| c.to_ascii_uppercase()) {
        Some('K') => 10,
        Some('M') => 20,
        Some('G') => 30,
        Some('T') => 40,
        _ => 0,
    };
    let digits = if shift > 0 { text.get(..text.len() - 1).unwrap_or_default() } else { text };
    let n: u64 = digits.trim().parse().context("no size; a number and perhaps K, M, G or T")?;
    n.checked_shl(shift).filter(|v| v >> shift == n).context("too large")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        assert_eq!(size("10").unwrap(), 10);
        assert_eq!(size("4k").unwrap(), 4096);
        assert_eq!(size("2T").unwrap(), 2 << 40);
        assert!(size("").is_err() && size("K").is_err() && size("99999999999T").is_err());
        assert_eq!(port_range("1500-1510").unwrap(), 1500..=1510);
        assert!(port_range("9-8").is_err() && port_range("0").is_err());
        assert!(prefix("a/b").is_err() && prefix("..").is_err() && prefix("").is_err());
        assert_eq!(prefix("box").unwrap(), "box");
    }
}
