//! Time synchronisation between host and guest: how far apart their trace clocks are.
//!
//! On a connection of its own the host asks for a sample of one virtual CPU after the other (frame `none`: PROBE, STOP); each
//! sample is an exchange of the negotiated protocol. Both sides take times from an instance of their own, which has the
//! clock of the recording.

pub mod clock;
pub mod kvm;
pub mod ptp;

use std::{
    sync::mpsc::{Receiver, Sender, channel},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use trace_dat::write::{ShiftSample, TimeShift};
use tracefs::TraceFs;

use self::clock::SyncClock;
use super::{channel::Channel, msg::Msg, vm::Machine};

/// Longest wait for an answer within an exchange: a slow guest makes its instance before the first one.
const WAIT: Option<Duration> = Some(Duration::from_secs(60));

const FRAME: &str = "none";
const FRAME_PROBE: u32 = 1;
const FRAME_STOP: u32 = 2;

/// A protocol that takes samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Many round trips with markers on both sides, the fastest counts.
    Ptp,
    /// The host reads the guest's TSC offset from KVM.
    Kvm,
}

impl Protocol {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Ptp => "ptp",
            Protocol::Kvm => "kvm",
        }
    }

    /// The best of those that a host offers, for a guest whose trace clock is `clock`. The one of KVM counts TSC ticks.
    pub fn choose(offered: &[String], clock: Option<&str>) -> Option<Protocol> {
        let has = |p: Protocol| offered.iter().any(|o| o == p.name());
        if has(Protocol::Kvm) && clock == Some("x86-tsc") {
            Some(Protocol::Kvm)
        } else if has(Protocol::Ptp) {
            Some(Protocol::Ptp)
        } else {
            None
        }
    }

    /// The protocol of this name.
    pub fn of_name(name: &str) -> Option<Protocol> {
        [Protocol::Ptp, Protocol::Kvm].into_iter().find(|p| p.name() == name)
    }

    fn flags(self) -> u32 {
        // Bit 0: between two samples the offset is interpolated.
        u32::from(self == Protocol::Ptp)
    }
}

/// A TIME_SYNC message.
fn message(proto: &str, id: u32, payload: Vec<u8>) -> Msg {
    Msg::TimeSync { proto: proto.to_owned(), id, payload }
}

/// Receives a TIME_SYNC message of `proto` and checks its number.
fn expect(ch: &mut Channel, proto: &str, want: &[u32]) -> Result<(u32, Vec<u8>)> {
    match ch.receive(WAIT)? {
        Msg::TimeSync { proto: p, id, payload } if p == proto && want.contains(&id) => Ok((id, payload)),
        Msg::TimeSync { proto: p, id, .. } => {
            bail!("message {id} of time protocol {p:?} instead of {want:?} of {proto:?}")
        }
        m => bail!("{m} message during time synchronisation"),
    }
}

/// The guest's side: answers the host until it stops or goes away.
///
/// # Errors
/// The instance for the times cannot be made.
pub fn serve_guest(root: &TraceFs, mut ch: Channel, proto: Protocol, peer_id: i64, clock: &str) -> Result<()> {
    let mut times = SyncClock::new(root, peer_id, clock)?;
    let mut series = 0;
    loop {
        // Rounds may be far apart.
        let (id, payload) = match ch.receive(None) {
            Ok(Msg::TimeSync { proto, id, payload }) if proto == FRAME => (id, payload),
            Ok(m) => {
                log::info!("{m} message during time synchronisation, ignored");
                continue;
            }
            Err(_) => return Ok(()),
        };
        if id != FRAME_PROBE {
            return Ok(());
        }
        let cpu = payload.first_chunk::<2>().map_or(0, |b| u16::from_ne_bytes(*b));
        clock::run_on(usize::from(cpu));
        let done = match proto {
            Protocol::Ptp => ptp::guest(&mut ch, &mut times, &mut series),
            Protocol::Kvm => kvm::guest(&mut ch, &mut times),
        };
        if let Err(e) = done {
            log::warn!("time synchronisation failed: {e:#}");
            return Ok(());
        }
    }
}

/// How a host takes samples.
#[derive(Clone, Debug)]
pub struct Sampling {
    /// The negotiated protocol.
    pub proto: Protocol,
    /// Number of the guest's CPUs.
    pub cpus: u32,
    /// The host's session.
    pub host_trace_id: u64,
    /// Time between rounds; `None`: only the first and one at the end.
    pub interval: Option<Duration>,
    /// The guest's machine, for the KVM protocol.
    pub machine: Option<Machine>,
}

/// The host's side: takes samples on a thread of its own.
#[derive(Debug)]
pub struct HostSync {
    ask: Sender<()>,
    thread: JoinHandle<TimeShift>,
}

impl HostSync {
    /// Takes the first round of samples, then one every `interval` (`None`: only one more at the end).
    ///
    /// # Errors
    /// The instance for the times cannot be made, or the first round fails.
    pub fn start(root: &TraceFs, ch: Channel, how: Sampling, clock: &str) -> Result<HostSync> {
        let shift = TimeShift {
            peer_trace_id: how.host_trace_id,
            flags: how.proto.flags(),
            cpus: vec![Vec::new(); how.cpus as usize],
        };
        let mut host = Host { ch, times: SyncClock::new(root, 0, clock)?, how, shift };
        host.round().context("Failed to synchronize timestamps with guest")?;
        let (ask, asked) = channel();
        let thread = std::thread::Builder::new().name("time sync".into()).spawn(move || host.run(&asked))?;
        Ok(HostSync { ask, thread })
    }

    /// Takes the last round and gives all samples.
    pub fn finish(self) -> Option<TimeShift> {
        drop(self.ask);
        self.thread.join().ok()
    }
}

struct Host {
    ch: Channel,
    times: SyncClock,
    how: Sampling,
    shift: TimeShift,
}

impl Host {
    fn run(mut self, asked: &Receiver<()>) -> TimeShift {
        use std::sync::mpsc::RecvTimeoutError::Timeout;
        loop {
            let ended = match self.how.interval {
                Some(t) => !matches!(asked.recv_timeout(t), Err(Timeout)),
                None => {
                    let _ = asked.recv();
                    true
                }
            };
            if let Err(e) = self.round() {
                log::warn!("Failed to synchronize timestamps with guest: {e:#}");
                break;
            }
            if ended {
                let _ = self.ch.send(&message(FRAME, FRAME_STOP, Vec::new()));
                break;
            }
        }
        self.shift
    }

    /// One sample of each virtual CPU.
    fn round(&mut self) -> Result<()> {
        for cpu in 0..self.shift.cpus.len() {
            let number = u16::try_from(cpu).context("more CPUs than the protocol can name")?;
            self.ch.send(&message(FRAME, FRAME_PROBE, number.to_ne_bytes().to_vec()))?;
            let sample: ShiftSample = match (self.how.proto, &self.how.machine) {
                (Protocol::Ptp, _) => ptp::host(&mut self.ch, &mut self.times)?,
                (Protocol::Kvm, Some(machine)) => kvm::host(&mut self.ch, machine, cpu)?,
                (Protocol::Kvm, None) => bail!("the guest chose the protocol of KVM, which was not offered"),
            };
            // The reader of such a sample would take it for missing.
            if sample.time != 0
                && sample.offset != 0
                && sample.scaling != 0
                && let Some(samples) = self.shift.cpus.get_mut(cpu)
            {
                samples.push(sample);
            }
        }
        Ok(())
    }
}
