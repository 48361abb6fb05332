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
             tracecmd agent -N big.lab                            over TCP, for one host",
        )
}

/// Serves hosts until SIGINT or SIGTERM.
pub fn run(_cx: &Ctx, m: &ArgMatches) -> Result<ExitCode> {
    let mut config = agent::Config { port: AGENT_PORT, peer: None, no_timeout: false };
    let mut daemon = false;
    for o in ordered(m) {
        let text = o.text();
        match o.id.as_str() {
            "p" => config.port = text.parse().with_context(|| format!("-p {text}: no port"))?,
            "N" if text.is_empty() => bail!("-N needs the name or address of the host"),
            "N" => config.peer = Some(text),
            "D" => daemon = true,
            "notimeout" => config.no_timeout = true,
            _ => {}
        }
    }
    if daemon {
        nix::unistd::daemon(true, true).context("cannot go to the background")?;
    }
    let signals = Signals::block()?;
    agent::run(&config, &signals)
}
