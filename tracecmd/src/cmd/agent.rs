//! `agent`: records this machine for another, mostly a guest for its host.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{ArgMatches, Command};

use crate::{
    cli::{Ctx, option, optional, ordered, switch},
    net::{agent, msg::AGENT_PORT},
    signal::Signals,
};

/// The options of `agent`.
pub fn command() -> Command {
    Command::new("agent")
        .args([
            option("p", "PORT", "Port that the host connects to [default: 823]").long("port"),
            option("N", "HOST", "TCP instead of vsock; only HOST may connect"),
            option("P", "CID", "Record this host for the guest with this context id, the only one that may connect"),
            switch("D", "Go to the background"),
            switch("notimeout", "Wait without limit for the host's connections"),
            switch("debug", "Show more of what happens"),
            optional("verbose", "LEVEL", "Log level"),
        ])
        .after_help(
            "The host says what to record; commands and file names from it are refused.\n\n\
             Examples:\n  \
             tracecmd agent -D                                    in the guest\n  \
             tracecmd record -e kvm -A GUEST -e sched sleep 5     on the host\n\n  \
             tracecmd agent -N big.lab                            over TCP, for one host\n\n  \
             tracecmd agent -P 3                                  on the host, for its guest 3, which then runs:\n  \
             tracecmd record -e sched --proxy 2 -e kvm sleep 5",
        )
}

/// Serves hosts until SIGINT or SIGTERM.
pub fn run(_cx: &Ctx, m: &ArgMatches) -> Result<ExitCode> {
    let mut config = agent::Config { port: AGENT_PORT, peer: None, proxy: None, no_timeout: false };
    let mut daemon = false;
    for o in ordered(m) {
        let text = o.text();
        match o.id.as_str() {
            "p" => config.port = text.parse().with_context(|| format!("-p {text}: no port"))?,
            "N" if text.is_empty() => bail!("-N needs the name or address of the host"),
            "N" => config.peer = Some(text),
            "P" => {
                let cid = text.parse().with_context(|| format!("-P {text}: no context id of a guest"))?;
                config.proxy = Some(cid);
            }
            "D" => daemon = true,
            "debug" => crate::log::set_level(Some("debug"))?,
            "verbose" => crate::log::set_level(Some(text.as_str()).filter(|t| !t.is_empty()))?,
            "notimeout" => config.no_timeout = true,
            _ => {}
        }
    }
    if config.peer.is_some() && config.proxy.is_some() {
        bail!("-N cannot be used with -P");
    }
    if daemon {
        nix::unistd::daemon(true, true).context("cannot go to the background")?;
    }
    let signals = Signals::block()?;
    agent::run(&config, &signals)
}
