//! The listener over the network, without a kernel: recorders are doubles that send fixtures; what arrives must report as the fixture
//! does. Hostile peers, limits, TLS, losses, both protocol versions, the reference as the other side.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tracecmd::net::client::LastWords;
use tracecmd::net::msg::{MAX_MESSAGE, Msg};
use tracecmd::net::tls::{self, Identity};
use tracecmd_tests::programs::{self, tracecmd, workspace};
use tracecmd_tests::remote::{How, Listener, Recording, finished, peak_memory, read_out};
use tracecmd_tests::{compare, skip::skip};

/// A recording of two CPUs, and a small one of version 6.
const EVENTS: &str = "i386-6.1-events.dat";
const OLD: &str = "x86_64-6.12-fgraph-v6.dat";
const BIG_ENDIAN: &str = "s390x-6.1-v6.dat";

fn fixture(name: &str) -> PathBuf {
    workspace().join("fixtures").join(name)
}

fn text(file: &Path) -> String {
    let r = compare::report(tracecmd(), "", file);
    assert!(r.success, "{}: {}", file.display(), r.messages);
    String::from_utf8(r.text).expect("UTF-8")
}

/// Fails unless both files have the same events.
fn same(expected: &Path, found: &Path) {
    if let Some(place) = compare::first_difference(text(expected).as_bytes(), text(found).as_bytes()) {
        panic!("{} is not {}: {place}", found.display(), expected.display());
    }
}

fn tcp() -> How {
    How { tcp: true, ..How::default() }
}

/// Datagrams slow enough for a busy machine.
fn udp() -> How {
    How { pace: Duration::from_micros(300), ..How::default() }
}

/// Sends a fixture to a listener with these options; the file that came of it is the same.
fn passes(host: &str, options: &[&str], name: &str, how: &How, version: u8) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let mut l = Listener::ours(dir.path(), host, options).expect("a listener");
    let recording = Recording::of(&fixture(name)).expect("a fixture");
    assert_eq!(recording.send(l.addr, how).expect("sent"), version);
    let files = l.files(1).expect("a file");
    same(&fixture(name), &files[0]);
    let log = l.log();
    for line in [format!("cpus={}", recording.cpus.len()), format!("pagesize={}", recording.subbuf)] {
        assert!(log.contains(&line), "{line} in {log}");
    }
    assert_eq!(how.tcp, log.contains("Using TCP for live connection"), "{log}");
    assert!(log.contains("Connected with "), "{log}");
    assert!(!log.contains("lost"), "{log}");
    let name = files[0].file_name().unwrap().to_string_lossy().into_owned();
    assert_eq!(l.end().expect("an end"), 0);
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "the file, the log, what was said: {left:?}");
    name
}

#[test]
fn v3_over_tcp_and_udp() {
    let name = passes("127.0.0.1", &[], EVENTS, &tcp(), 3);
    assert!(name.starts_with("trace.") && name.ends_with(".dat") && name.contains(':'), "{name}");
    let name = passes("127.0.0.1", &["-o", "box"], EVENTS, &udp(), 3);
    assert!(name.starts_with("box."), "{name}");
    passes("127.0.0.1", &[], BIG_ENDIAN, &tcp(), 3);
}

#[test]
fn v1_over_tcp_and_udp() {
    for name in [EVENTS, OLD, BIG_ENDIAN] {
        passes("127.0.0.1", &["--only-v1"], name, &tcp(), 1);
    }
    passes("127.0.0.1", &["--only-v1"], OLD, &udp(), 1);
}

#[test]
fn ipv6() {
    if TcpListener::bind("[::1]:0").is_err() {
        return skip("ipv6", "this machine has no IPv6");
    }
    passes("::1", &[], EVENTS, &tcp(), 3);
    passes("::1", &[], OLD, &udp(), 3);
    // One socket for both versions.
    passes("::", &[], OLD, &tcp(), 3);
}

#[test]
fn to_the_reference() {
    let program = match programs::reference() {
        Ok(p) => p,
        Err(why) => return skip("to_the_reference", why),
    };
    for (name, how, only_v1) in [
        (EVENTS, tcp(), false),
        (EVENTS, udp(), false),
        (OLD, tcp(), false),
        (OLD, tcp(), true),
        (OLD, udp(), true),
        (EVENTS, tcp(), true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut l = Listener::reference(program, dir.path()).unwrap();
        let how = How { only_v1, ..how };
        let recording = Recording::of(&fixture(name)).unwrap();
        recording.send(l.addr, &how).unwrap_or_else(|e| panic!("{name} {how:?}: {e:#}; its log:\n{}", l.log()));
        let file = l.files(1).unwrap().remove(0);
        // It is made in steps under its own name.
        let want = text(&fixture(name));
        let end = Instant::now() + Duration::from_secs(20);
        while compare::report(tracecmd(), "", &file).text != want.as_bytes() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(200));
        }
        same(&fixture(name), &file);
    }
}

#[test]
fn many_clients_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut l = Listener::ours(dir.path(), "127.0.0.1", &[]).unwrap();
    let names = [EVENTS, OLD, BIG_ENDIAN, "x86_64-7.2-subbuf64.dat"];
    let to = l.addr;
    std::thread::scope(|s| {
        for n in 0..12 {
            s.spawn(move || Recording::of(&fixture(names[n % names.len()])).unwrap().send(to, &tcp()).unwrap());
        }
    });
    let files = l.files(12).unwrap();
    let mut have: Vec<String> = files.iter().map(|f| text(f)).collect();
    let mut want: Vec<String> = (0..12).map(|n| text(&fixture(names[n % names.len()]))).collect();
    have.sort();
    want.sort();
    assert!(have == want, "each file is one of the recordings");
    assert_eq!(l.end().unwrap(), 0);
}

#[test]
fn ctrl_c_completes_open_recordings() {
    let dir = tempfile::tempdir().unwrap();
    let mut l = Listener::ours(dir.path(), "127.0.0.1", &[]).unwrap();
    let recording = Recording::of(&fixture(EVENTS)).unwrap();
    let mut links = Vec::new();
    for _ in 0..3 {
        let mut link = recording.start(l.addr, &tcp()).unwrap();
        for (data, sink) in recording.cpus.iter().zip(&mut link.1) {
            sink.write_all(data).unwrap();
        }
        links.push(link);
    }
    let size: u64 = recording.cpus.iter().map(|c| c.len() as u64).sum();
    let pieces = |dir: &Path| -> u64 {
        let all = std::fs::read_dir(dir).unwrap().flatten();
        all.filter(|e| e.file_name().to_string_lossy().contains(".cpu")).map(|e| e.metadata().unwrap().len()).sum()
    };
    let at = dir.path().to_owned();
    l.wait_for("all data", || (pieces(&at) >= 3 * size).then_some(())).unwrap();
    assert_eq!(l.end().unwrap(), 0);
    let files = finished(dir.path());
    assert_eq!(files.len(), 3);
    for f in &files {
        same(&fixture(EVENTS), f);
    }
    drop(links);
}

#[test]
fn losses_and_order_of_datagrams_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut l = Listener::ours(dir.path(), "127.0.0.1", &[]).unwrap();
    let recording = Recording::of(&fixture(EVENTS)).unwrap();
    let size = recording.subbuf as usize;
    let mut link = recording.start(l.addr, &udp()).unwrap();
    let mut sent = vec![0; recording.cpus.len()];
    let cpu = (0..sent.len()).max_by_key(|c| recording.cpus[*c].len()).unwrap();
    let mut order: Vec<&[u8]> = recording.cpus[cpu].chunks(size).collect();
    assert!(order.len() > 6, "enough to mix");
    sent[cpu] = order.len() as u64;
    // Three are lost, two change places, one is cut in half.
    order.truncate(order.len() - 3);
    order.swap(0, 1);
    for (n, subbuf) in order.iter().enumerate() {
        let end = if n == 3 { size / 2 } else { size };
        link.1[cpu].write_all(&subbuf[..end]).unwrap();
        std::thread::sleep(Duration::from_micros(300));
    }
    link.0.close(&LastWords { sent, ..LastWords::default() }).unwrap();
    let file = l.files(1).unwrap().remove(0);
    assert_eq!(l.end().unwrap(), 0);
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    for line in [
        format!("CPU {cpu}: 3 sub-buffers lost on the way"),
        format!("CPU {cpu}: 1 sub-buffers cut off"),
        format!("CPU {cpu}: 1 sub-buffers came late and were put in order"),
    ] {
        assert!(log.contains(&line), "{line} in {log}");
    }
    let r = compare::report(tracecmd(), "--cpu 0-4095 -t", &file);
    assert!(r.success, "{}", r.messages);
    let lines = |t: &[u8]| t.iter().filter(|c| **c == b'\n').count();
    assert!(lines(&r.text) > lines(text(&fixture(EVENTS)).as_bytes()) / 10);
}

/// A network namespace with a line to this one; it goes when this is dropped.
struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes it, with `addr` (of a /24) at its end of the line and `ours` at this one.
    fn new(addr: &str, ours: &str) -> Result<Namespace, String> {
        let name = format!("remote-{}", std::process::id());
        let (here, there) = (format!("rmt{}a", std::process::id()), format!("rmt{}b", std::process::id()));
        let ns = Namespace { name: name.clone() };
        for words in [
            format!("netns add {name}"),
            format!("link add {here} type veth peer name {there} netns {name}"),
            format!("addr add {ours}/24 dev {here}"),
            format!("link set {here} up"),
            format!("-n {name} addr add {addr}/24 dev {there}"),
            format!("-n {name} link set {there} up"),
            format!("-n {name} link set lo up"),
        ] {
            let done =
                std::process::Command::new("ip").args(words.split(' ')).output().map_err(|e| format!("ip: {e}"))?;
            if !done.status.success() {
                return Err(format!("ip {words}: {}", String::from_utf8_lossy(&done.stderr).trim()));
            }
        }
        Ok(ns)
    }

    /// Does something in it.
    fn within<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        let path = format!("/var/run/netns/{}", self.name);
        let inside = || {
            nix::sched::setns(std::fs::File::open(path).unwrap(), nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            what()
        };
        std::thread::scope(|s| s.spawn(inside).join().unwrap())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The line goes with it.
        let _ = std::process::Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

#[test]
fn between_network_namespaces() {
    let ns = match Namespace::new("10.231.77.1", "10.231.77.2") {
        Ok(ns) => ns,
        Err(why) => return skip("between_network_namespaces", &why),
    };
    let dir = tempfile::tempdir().unwrap();
    let options = ["--allow", "10.231.77.2"];
    let mut l = ns.within(|| Listener::ours(dir.path(), "10.231.77.1", &options)).unwrap();
    assert!(TcpStream::connect(("127.0.0.1", l.addr.port())).is_err(), "it is not here");
    let recording = Recording::of(&fixture(EVENTS)).unwrap();
    for (n, (how, only_v1)) in [(tcp(), false), (udp(), false), (tcp(), true), (udp(), true)].into_iter().enumerate() {
        let version = recording.send(l.addr, &How { only_v1, ..how }).unwrap();
        assert_eq!(version, if only_v1 { 1 } else { 3 });
        l.files(n + 1).unwrap();
    }
    assert_eq!(l.end().unwrap(), 0);
    for file in finished(dir.path()) {
        same(&fixture(EVENTS), &file);
    }
}

/// A line between recorder and listener that loses datagrams and lets some overtake others.
struct LossyLine {
    addr: SocketAddr,
    /// Lost and late datagrams, for each CPU.
    done: std::thread::JoinHandle<Vec<(u64, u64)>>,
}

impl LossyLine {
    fn to(listener: SocketAddr) -> LossyLine {
        let here = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = here.local_addr().unwrap();
        let done = std::thread::spawn(move || {
            let (mut client, _) = here.accept().unwrap();
            let mut server = TcpStream::connect(listener).unwrap();
            let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(std::net::Shutdown::Write);
            });
            // Greeting, version and OK; then the message with the ports, which become ours.
            for len in [8, 3, 2] {
                let mut text = vec![0; len];
                server.read_exact(&mut text).unwrap();
                client.write_all(&text).unwrap();
            }
            let (ports, extensions) = answer(&mut server).expect("ports");
            let sockets: Vec<_> = ports.iter().map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
            let ours = sockets.iter().map(|s| u32::from(s.local_addr().unwrap().port())).collect();
            client.write_all(&Msg::RInit { ports: ours, extensions }.encode().unwrap()).unwrap();
            let lines: Vec<_> =
                sockets.into_iter().zip(ports).map(|(s, p)| std::thread::spawn(move || carry(&s, p))).collect();
            let _ = std::io::copy(&mut server, &mut client);
            lines.into_iter().map(|t| t.join().unwrap()).collect()
        });
        LossyLine { addr, done }
    }
}

/// Carries datagrams until none comes for a second: every seventh is lost, every fifth is overtaken by the next one.
fn carry(from: &UdpSocket, port: u32) -> (u64, u64) {
    let to = ("127.0.0.1", port as u16);
    from.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let (mut lost, mut late, mut held) = (0, 0, None::<Vec<u8>>);
    let mut buf = vec![0; 1 << 16];
    for n in 0.. {
        let Ok(len) = from.recv(&mut buf) else { break };
        if n % 7 == 3 {
            lost += 1;
        } else if n % 5 == 1 && held.is_none() {
            held = Some(buf[..len].to_vec());
        } else {
            from.send_to(&buf[..len], to).unwrap();
            if let Some(held) = held.take() {
                from.send_to(&held, to).unwrap();
                late += 1;
            }
        }
    }
    if let Some(held) = held {
        from.send_to(&held, to).unwrap();
    }
    (lost, late)
}

#[test]
fn a_line_that_loses_and_mixes() {
    let dir = tempfile::tempdir().unwrap();
    let mut l = Listener::ours(dir.path(), "127.0.0.1", &[]).unwrap();
    let recording = Recording::of(&fixture("x86_64-6.12-lost.dat")).unwrap();
    let line = LossyLine::to(l.addr);
    recording.send(line.addr, &How { pace: Duration::from_micros(500), ..udp() }).unwrap();
    let file = l.files(1).unwrap().remove(0);
    let counts = line.done.join().unwrap();
    assert_eq!(l.end().unwrap(), 0);
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert_eq!(counts.len(), 2);
    for (cpu, (lost, late)) in counts.into_iter().enumerate() {
        assert!(lost > 10 && late > 10, "{lost} lost, {late} late");
        for text in [
            format!("CPU {cpu}: {lost} sub-buffers lost on the way"),
            format!("CPU {cpu}: {late} sub-buffers came late and were put in order"),
        ] {
            assert!(log.contains(&text), "{text} in {log}");
        }
    }
    // What came is in order, and all of it.
    let (want, have) = (text(&fixture("x86_64-6.12-lost.dat")).lines().count(), text(&file).lines().count());
    assert!(have > want * 8 / 10 && have < want, "{have} of {want} lines");
}

#[test]
fn a_foreign_sender_is_not_heard() {
    let dir = tempfile::tempdir().unwrap();
    let mut l = Listener::ours(dir.path(), "0.0.0.0", &["--data-ports", "15300-15400"]).unwrap();
    let recording = Recording::of(&fixture(OLD)).unwrap();
    let to = SocketAddr::from(([127, 0, 0, 1], l.addr.port()));
    let link = recording.start(to, &udp()).unwrap();
    // The ports are open on the address that the client reached: 127.0.0.1. Another of this machine is another host.
    let other = UdpSocket::bind("127.0.0.2:0").unwrap();
    for port in 15300..15310 {
        let _ = other.send_to(&recording.cpus[0][..4096], ("127.0.0.1", port));
    }
    link.finish(&recording, &udp()).unwrap();
    same(&fixture(OLD), &l.files(1).unwrap()[0]);
    assert!(l.log().contains("pieces of another sender dropped"), "{}", l.log());
}

/// Connects as a recorder and gives the stream after TINIT was sent.
fn announce(to: SocketAddr, cpus: u32, page_size: u32, tcp: bool) -> std::io::Result<TcpStream> {
    let mut s = TcpStream::connect(to)?;
    s.set_read_timeout(Some(Duration::from_secs(10)))?;
    s.read_exact(&mut [0; 8])?;
    s.write_all(b"-1V3\0")?;
    s.read_exact(&mut [0; 3])?;
    s.write_all(b"766679\0\0")?;
    s.read_exact(&mut [0; 2])?;
    let options = if tcp { vec!["tcp".to_owned()] } else { vec![] };
    s.write_all(&Msg::TInit { cpus, page_size, options, extensions: 0 }.encode().unwrap())?;
    Ok(s)
}

/// The ports of an answer to TINIT; `None` when the connection was ended.
fn ports(s: &mut TcpStream) -> Option<Vec<u32>> {
    answer(s).map(|(ports, _)| ports)
}

/// Ports and extensions of an answer to TINIT; `None` when the connection was ended.
fn answer(s: &mut TcpStream) -> Option<(Vec<u32>, u32)> {
    let mut have = Vec::new();
    loop {
        if let Ok(Some((Msg::RInit { ports, extensions }, _))) = Msg::decode(&have) {
            return Some((ports, extensions));
        }
        let mut more = [0; 512];
        match s.read(&mut more) {
            Ok(n) if n > 0 => have.extend_from_slice(&more[..n]),
            _ => return None,
        }
    }
}

#[test]
fn limits() {
    let dir = tempfile::tempdir().unwrap();
    let options = ["--max-clients", "2", "--max-cpus", "8", "--max-size", "4M"];
    let mut l = Listener::ours(dir.path(), "127.0.0.1", &options).unwrap();
    for (cpus, page) in [(9, 4096), (0, 4096), (u32::MAX, 4096), (1, 0), (1, 4095), (1, 1 << 30), (1, u32::MAX)] {
        // A busy machine may take its time to notice that the one before has gone.
        let to = l.addr;
        let mut s = l.wait_for("room", || announce(to, cpus, page, true).ok()).unwrap();
        assert_eq!(ports(&mut s), None, "{cpus} CPUs, pages of {page}");
    }
    let log = l.log();
    assert!(log.contains("9 CPUs are not within 1..=8") && log.contains("4095 bytes"), "{log}");
    let (mut a, mut b) = (announce(l.addr, 1, 4096, true).unwrap(), announce(l.addr, 8, 4096, false).unwrap());
    assert_eq!((ports(&mut a).unwrap().len(), ports(&mut b).unwrap().len()), (1, 8));
    let third = announce(l.addr, 1, 4096, true).and_then(|mut s| ports(&mut s).ok_or(std::io::ErrorKind::Other.into()));
    assert!(third.is_err());
    assert!(l.log().contains("2 clients are connected already"), "{}", l.log());
    drop((a, b));
    let to = l.addr;
    l.wait_for("room", || {
        let mut s = announce(to, 1, 4096, true).ok()?;
        ports(&mut s).map(drop)
    })
    .unwrap();
    // What is over the size ends the recording, what came before is a file.
    let recording = Recording::of(&fixture(EVENTS)).unwrap();
    let mut link = recording.start(l.addr, &tcp()).unwrap();
    let mut left = 64 << 20;
    let cpu = recording.cpus.iter().position(|c| !c.is_empty()).unwrap();
    while left > 0 && link.1[cpu].write_all(&recording.cpus[cpu]).is_ok() {
        left -= recording.cpus[cpu].len().min(left);
    }
    assert!(left > 0, "a connection without end");
    let file = l.files(1).unwrap().remove(0);
    assert!(text(&file).lines().count() > 100);
    assert!(l.log().contains("its 4194304 bytes are reached"), "{}", l.log());
    assert!(l.is_up());
}

/// The limit of all recordings counts those that are complete, too.
#[test]
fn limit_of_all_recordings() {
    let dir = tempfile::tempdir().unwrap();
    let mut l = Listener::ours(dir.path(), "127.0.0.1", &["--max-total", "4M"]).unwrap();
    let recording = Recording::of(&fixture(EVENTS)).unwrap();
    recording.send(l.addr, &tcp()).unwrap();
    same(&fixture(EVENTS), &l.files(1).unwrap()[0]);
    let first = recording.cpus.iter().map(Vec::len).sum::<usize>();
    assert!(first < 4 << 20, "{first}");
    let mut link = recording.start(l.addr, &tcp()).unwrap();
    let cpu = recording.cpus.iter().position(|c| !c.is_empty()).unwrap();
    let mut left = 64 << 20;
    while left > 0 && link.1[cpu].write_all(&recording.cpus[cpu]).is_ok() {
        left -= recording.cpus[cpu].len().min(left);
    }
    assert!(left > 0, "a connection without end");
    for file in l.files(2).unwrap() {
        assert!(text(&file).lines().count() > 100);
    }
    assert!(l.log().contains("the 4194304 bytes of all recordings are reached"), "{}", l.log());
    // Nothing is left for others.
    let _ = recording.send(l.addr, &tcp());
    let log = dir.path().join("log");
    let told = || std::fs::read_to_string(&log).unwrap().matches("of all recordings are reached").count();
    l.wait_for("the refusal of the third", || (told() > 1).then_some(())).unwrap();
    assert!(l.is_up());
}

#[test]
fn only_who_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let l = Listener::ours(dir.path(), "127.0.0.1", &["--allow", "10.0.0.0/8", "--allow", "::1"]).unwrap();
    let mut s = TcpStream::connect(l.addr).unwrap();
    let mut got = Vec::new();
    let _ = s.read_to_end(&mut got);
    assert!(got.is_empty(), "not even a greeting");
    assert!(l.log().contains("refused 127.0.0.1: its address is not allowed"), "{}", l.log());
    passes("127.0.0.1", &["--allow", "127.0.0.0/8"], OLD, &tcp(), 3);
    // Bound to one address, it is not at the others.
    assert!(TcpStream::connect(SocketAddr::from(([127, 0, 0, 2], l.addr.port()))).is_err());
}

#[test]
fn names_stay_in_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    std::fs::write(&outside, "mine").unwrap();
    let at = dir.path().join("traces");
    std::fs::create_dir(&at).unwrap();
    for bad in ["../x", "a/b", "..", ""] {
        let done = std::process::Command::new(tracecmd()).args(["listen", "-p", "0", "-o", bad]).output().unwrap();
        assert!(!done.status.success(), "-o {bad}");
    }
    let mut l = Listener::ours(&at, "127.0.0.1", &[]).unwrap();
    // Whatever port it will be: links and files of these names are there already.
    let recording = Recording::of(&fixture(OLD)).unwrap();
    let link = recording.start(l.addr, &tcp()).unwrap();
    let meta = std::fs::read_dir(&at)
        .unwrap()
        .flatten()
        .map(|e| e.path())
        .find(|p| p.extension().is_some_and(|e| e == "meta"));
    let taken = meta.unwrap().with_extension("dat");
    std::os::unix::fs::symlink(&outside, &taken).unwrap();
    link.finish(&recording, &tcp()).unwrap();
    let files = l.files(2).unwrap();
    let file = files.iter().find(|f| **f != taken).unwrap();
    same(&fixture(OLD), file);
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), "mine");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "for the owner only");
}

#[test]
fn a_peer_that_dies_anywhere_costs_its_own_recording() {
    let dir = tempfile::tempdir().unwrap();
    let mut l = Listener::ours(dir.path(), "127.0.0.1", &[]).unwrap();
    let recording = Recording::of(&fixture(EVENTS)).unwrap();
    let mut control = Vec::new();
    for piece in recording.metadata(3).unwrap().chunks(8000) {
        control.extend(Msg::SendData(piece.to_vec()).encode().unwrap());
    }
    let whole = control.len();
    control.extend(Msg::FinData.encode().unwrap());
    // In the handshake, byte by byte.
    let mut hello = [&b"-1V3\0"[..], b"766679\0\0"].concat();
    hello.extend(Msg::TInit { cpus: 2, page_size: 4096, options: vec!["tcp".into()], extensions: 0 }.encode().unwrap());
    for cut in 0..hello.len() {
        let mut s = TcpStream::connect(l.addr).unwrap();
        s.write_all(&hello[..cut]).unwrap();
    }
    // In the metadata.
    for n in 0..20 {
        let mut s = announce(l.addr, 1, recording.subbuf, true).unwrap();
        ports(&mut s).expect("ports");
        s.write_all(&control[..whole * n / 20 + n]).unwrap();
    }
    assert!(finished(dir.path()).is_empty(), "without data there is nothing to keep");
    // In the data: what was whole is a readable file.
    let data: &Vec<u8> = recording.cpus.iter().max_by_key(|c| c.len()).unwrap();
    let want = text(&fixture(EVENTS)).lines().count();
    for (n, cut) in [4096, 4096 + 2000, 3 * 4096 + 17, data.len() - 1].into_iter().enumerate() {
        let mut s = announce(l.addr, 1, recording.subbuf, true).unwrap();
        let port = ports(&mut s).expect("ports")[0];
        let mut d = TcpStream::connect(("127.0.0.1", port as u16)).unwrap();
        s.write_all(&control).unwrap();
        // The listener has to know the layout before the data come.
        std::thread::sleep(Duration::from_millis(100));
        d.write_all(&data[..cut]).unwrap();
        drop((s, d));
        let files = l.files(n + 1).unwrap();
        for f in files {
            let lines = text(&f).lines().count();
            assert!(lines > 2 && lines <= want, "{lines} lines");
        }
    }
    recording.send(l.addr, &tcp()).unwrap();
    l.files(5).unwrap();
    assert_eq!(l.end().unwrap(), 0);
}

#[test]
fn silent_peers_are_sent_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut l = Listener::ours(dir.path(), "127.0.0.1", &[]).unwrap();
    let start = Instant::now();
    let mut s = TcpStream::connect(l.addr).unwrap();
    s.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    read_out(&mut s);
    assert!(start.elapsed() > Duration::from_secs(2) && start.elapsed() < Duration::from_secs(15));
    assert!(l.log().contains("nothing came in time"), "{}", l.log());
    assert!(l.is_up());
}

/// One hostile connection of a kind; what it gets does not matter.
fn attack(to: SocketAddr, kind: usize, n: usize) -> std::io::Result<()> {
    let connect = || -> std::io::Result<TcpStream> {
        let s = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
        s.set_read_timeout(Some(Duration::from_secs(2)))?;
        s.set_write_timeout(Some(Duration::from_secs(2)))?;
        Ok(s)
    };
    let noise: Vec<u8> = (0..5000usize).map(|i| ((i * 2_654_435_761 + n * 40_503) >> 7) as u8).collect();
    match kind {
        // Comes and goes.
        0 => drop(connect()?),
        // Says nothing for a while.
        1 => {
            let s = connect()?;
            std::thread::sleep(Duration::from_millis(50));
            drop(s);
        }
        // Noise in the place of a version.
        2 => connect()?.write_all(&noise)?,
        // Half a message.
        3 => {
            let mut s = announce(to, 1, 4096, true)?;
            ports(&mut s);
            s.write_all(&Msg::SendData(vec![1; 4000]).encode().unwrap()[..2000])?;
        }
        // Huge counts.
        4 => {
            let mut s = announce(to, u32::MAX - n as u32, 1 << (n % 32), n.is_multiple_of(2))?;
            ports(&mut s);
        }
        // A size that no message has.
        5 => {
            let mut s = announce(to, 1, 4096, false)?;
            ports(&mut s);
            s.write_all(&[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 3, 0, 0, 0, 0])?;
            s.write_all(&noise)?;
        }
        // Metadata that is none, then data that is none.
        6 => {
            let mut s = announce(to, 2, 4096, true)?;
            for p in ports(&mut s).unwrap_or_default() {
                let mut d = TcpStream::connect(("127.0.0.1", p as u16))?;
                let _ = d.write_all(&noise);
            }
            s.write_all(&Msg::SendData(noise[..4000].to_vec()).encode().unwrap())?;
            s.write_all(&Msg::FinData.encode().unwrap())?;
        }
        // V1 with strings without an end.
        7 => {
            let mut s = connect()?;
            s.write_all(&["4", "4096", "1", "9999999999", &"x".repeat(10_000)].join("\0").into_bytes())?;
        }
        // Many CPUs that never connect.
        8 => {
            let mut s = announce(to, 64, 1 << 16, n.is_multiple_of(2))?;
            ports(&mut s);
            s.write_all(&Msg::Close.encode().unwrap())?;
        }
        // Messages that do not belong here, as many as fit.
        _ => {
            let mut s = announce(to, 1, 4096, false)?;
            ports(&mut s);
            s.set_read_timeout(Some(Duration::from_millis(200)))?;
            let cont = Msg::Cont.encode().unwrap();
            s.write_all(&cont.repeat(MAX_MESSAGE / cont.len()))?;
            read_out(&mut s);
        }
    }
    Ok(())
}

/// A thousand hostile connections while somebody records.
#[test]
fn soak() {
    const KINDS: usize = 10;
    let dir = tempfile::tempdir().unwrap();
    let mut l = Listener::ours(dir.path(), "127.0.0.1", &[]).unwrap();
    let to = l.addr;
    let recording = Recording::of(&fixture(EVENTS)).unwrap();
    let good = How { pace: Duration::from_millis(5), ..tcp() };
    // It is there before them; its data come while they are at work.
    let link = recording.start(to, &good).unwrap();
    let before = peak_memory(l.pid());
    std::thread::scope(|s| {
        s.spawn(|| link.finish(&recording, &good).unwrap());
        for t in 0..8 {
            s.spawn(move || {
                for n in 0..125 {
                    let n = t * 125 + n;
                    // Being sent away is what it deserves.
                    let _ = attack(to, n % KINDS, n);
                }
            });
        }
    });
    assert!(l.is_up(), "{}", l.log());
    let peak = peak_memory(l.pid());
    assert!(peak < before + (128 << 20), "memory went from {before} to {peak}");
    // One that comes after them is served too, at once or when the last of them has been given up.
    l.wait_for("a place", || recording.send(to, &tcp()).ok()).unwrap();
    let dir = dir.path().to_owned();
    let want = text(&fixture(EVENTS));
    let good = |dir: &Path| {
        let same = |f: &PathBuf| compare::report(tracecmd(), "", f).text == want.as_bytes();
        finished(dir).into_iter().filter(same).count()
    };
    l.wait_for("both good files", || (good(&dir) >= 2).then_some(())).unwrap();
    assert_eq!(l.end().unwrap(), 0);
}

struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    /// What `listen --new-certificate` makes.
    fn new() -> Lab {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("tls");
        let done =
            std::process::Command::new(tracecmd()).args(["listen", "--new-certificate"]).arg(&at).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        assert_eq!(String::from_utf8_lossy(&done.stdout).lines().count(), 5);
        Lab { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("tls").join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    fn client(&self, known: bool) -> How {
        let id = Identity { cert: self.path("client.pem"), key: self.path("client-key.pem") };
        let config = tls::client(Some(&self.path("ca.pem")), known.then_some(&id)).unwrap();
        How { tls: Some(config), tcp: true, name: Some("localhost".into()), ..How::default() }
    }
}

#[test]
fn tls_both_ways() {
    let (lab, stranger) = (Lab::new(), Lab::new());
    let (cert, key, ca) = (lab.text("server.pem"), lab.text("server-key.pem"), lab.text("ca.pem"));
    let open = ["--tls-cert", &cert, "--tls-key", &key];
    let closed = [&open[..], &["--tls-client-ca", &ca]].concat();
    passes("127.0.0.1", &open, EVENTS, &lab.client(false), 3);
    passes("127.0.0.1", &closed, EVENTS, &lab.client(true), 3);
    let dir = tempfile::tempdir().unwrap();
    let mut l = Listener::ours(dir.path(), "127.0.0.1", &closed).unwrap();
    let recording = Recording::of(&fixture(OLD)).unwrap();
    for (who, how) in [
        ("without a certificate", lab.client(false)),
        ("with one of another authority", How { tls: stranger.client(true).tls, ..lab.client(true) }),
        ("without TLS", tcp()),
    ] {
        assert!(recording.send(l.addr, &how).is_err(), "a client {who}");
    }
    // One that asks for an older version gets an alert and no more.
    let mut s = TcpStream::connect(l.addr).unwrap();
    s.write_all(b"\x16\x03\x01\x00\x2d\x01\x00\x00\x29\x03\x03").unwrap();
    s.write_all(&[7; 32]).unwrap();
    s.write_all(b"\x00\x00\x02\xc0\x2f\x01\x00").unwrap();
    let mut got = Vec::new();
    s.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let _ = s.read_to_end(&mut got);
    assert_eq!(got.first(), Some(&0x15), "an alert: {got:?}");
    assert!(finished(dir.path()).is_empty() && l.is_up());
    recording.send(l.addr, &lab.client(true)).unwrap();
    same(&fixture(OLD), &l.files(1).unwrap()[0]);
    // A client asks who it talks to.
    let other = [stranger.text("server.pem"), stranger.text("server-key.pem")];
    let l = Listener::ours(dir.path(), "127.0.0.1", &["--tls-cert", &other[0], "--tls-key", &other[1]]).unwrap();
    assert!(recording.send(l.addr, &lab.client(true)).is_err());
}

#[test]
fn progress_on_a_terminal() {
    let pty = nix::pty::openpty(None, None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut child = std::process::Command::new(tracecmd())
        .args(["listen", "--bind", "127.0.0.1", "-p", &port.to_string(), "-d"])
        .arg(dir.path())
        .stdout(std::process::Stdio::null())
        .stderr(pty.slave)
        .spawn()
        .unwrap();
    let mut shown = std::fs::File::from(pty.master);
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        let _ = shown.read_to_end(&mut all);
        String::from_utf8_lossy(&all).into_owned()
    });
    let recording = Recording::of(&fixture(EVENTS)).unwrap();
    let slow = How { pace: Duration::from_millis(20), ..tcp() };
    let end = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    recording.send(([127, 0, 0, 1], port).into(), &slow).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
    let shown = reader.join().unwrap();
    // While it records, and what there was at the end.
    let lines: Vec<&str> = shown.split('\r').map(|l| l.trim_start_matches("\u{1b}[2K").trim_end()).collect();
    let at_work = |l: &&str| {
        let events = l.strip_prefix("1 client, ").and_then(|l| l.split(' ').next()).unwrap_or("0");
        events != "0" && l.contains(" received")
    };
    assert!(lines.iter().any(at_work), "{lines:?}");
    assert!(lines.iter().any(|l| l.starts_with("0 clients, ") && l.ends_with(", 1 file complete")), "{lines:?}");
    same(&fixture(EVENTS), &finished(dir.path())[0]);
}
