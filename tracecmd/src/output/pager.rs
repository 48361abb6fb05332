//! Long output through the user's pager.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// A running pager.
#[derive(Debug)]
pub struct Pager {
    child: Child,
}

impl Pager {
    /// Starts `$PAGER`, without it `less`. `None` when it is empty or `cat`: output goes its usual way.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start() -> Result<Option<Pager>> {
        let pager = std::env::var_os("PAGER").unwrap_or_else(|| "less".into());
        if pager.is_empty() || pager == "cat" {
            return Ok(None);
        }
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(&pager).stdin(Stdio::piped());
        // Colours pass, lines are not wrapped, a short report does not stay on the screen's own page.
        if std::env::var_os("LESS").is_none() {
            command.env("LESS", "FRSX");
        }
        let child = command.spawn().with_context(|| format!("cannot start {}", pager.to_string_lossy()))?;
        Ok(Some(Pager { child }))
    }

    /// What it reads.
    ///
    /// # Errors
    /// When no file descriptor is left.
    pub fn input(&self) -> Result<File> {
        let stdin = self.child.stdin.as_ref().context("the pager has no input")?;
        Ok(File::from(stdin.as_fd().try_clone_to_owned().context("the pager's input")?))
    }

    /// Ends its input and waits until the user leaves it.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn wait(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        self.child.wait().context("pager")?;
        Ok(())
    }
}
