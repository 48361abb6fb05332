//! How far long work is: on a terminal only, and only when it takes more than two seconds.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Work of less than this shows nothing.
const QUIET: Duration = Duration::from_secs(2);

/// Progress of one piece of work, in bytes or events.
pub struct Progress {
    bar: Option<ProgressBar>,
    total: u64,
    done: u64,
    bytes: bool,
    started: Instant,
    terminal: bool,
    /// What was done when the clock was last asked.
    asked: u64,
}

impl Progress {
    /// Work of so many bytes.
    pub fn bytes(total: u64) -> Progress {
        Progress::new(total, true)
    }

    /// Work of so many events; 0 when nobody knows.
    pub fn events(total: u64) -> Progress {
        Progress::new(total, false)
    }

    fn new(total: u64, bytes: bool) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        Progress { bar: None, total, done: 0, bytes, started: Instant::now(), terminal, asked: 0 }
    }

    /// So much more is done.
    pub fn add(&mut self, n: u64) {
        self.done += n;
        let step = if self.bytes { 1 << 18 } else { 1 << 14 };
        if !self.terminal || self.done - self.asked < step {
            return;
        }
        self.asked = self.done;
        let elapsed = self.started.elapsed();
        if self.bar.is_none() && elapsed >= QUIET {
            let shape = match (self.bytes, self.total) {
                (true, _) => "{wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left",
                (false, 0) => "{spinner} {human_pos} events, {per_sec}",
                (false, _) => "{wide_bar} {human_pos}/{human_len} events, {per_sec}, {eta} left",
            };
            let target = ProgressDrawTarget::stderr_with_hz(10);
            let bar = ProgressBar::with_draw_target((self.total > 0).then_some(self.total), target);
            if let Ok(style) = ProgressStyle::with_template(shape) {
                bar.set_style(style);
            }
            self.bar = Some(bar.with_elapsed(elapsed));
        }
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
