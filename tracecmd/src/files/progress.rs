//! How far long work is: on a terminal only, and only when it takes more than two seconds.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Work of less than this shows nothing.
const QUIET: Duration = Duration::from_secs(2);

/// Time between two looks at how far the work is.
const STEP: Duration = Duration::from_millis(100);
/// Calls of [`Progress::tick`] between two looks at the clock.
const TICKS: u32 = 4096;

/// Progress of one piece of work: bytes, and events where they are counted.
pub struct Progress {
    bar: Option<ProgressBar>,
    total: u64,
    done: u64,
    events: u64,
    ticks: u32,
    started: Instant,
    terminal: bool,
    /// When the clock was last asked, since the start.
    asked: Duration,
}

impl Progress {
    /// Work of so many bytes.
    pub fn bytes(total: u64) -> Progress {
        Progress::starting(total, Instant::now(), std::io::stderr().is_terminal())
    }

    fn starting(total: u64, started: Instant, terminal: bool) -> Progress {
        Progress { bar: None, total, done: 0, events: 0, ticks: 0, started, terminal, asked: Duration::ZERO }
    }

    /// So many more bytes are done.
    pub fn add(&mut self, bytes: u64) {
        self.done += bytes;
        self.show();
    }

    /// So many bytes are done in all.
    pub fn set(&mut self, bytes: u64) {
        self.done = bytes;
        self.show();
    }

    /// One more event is done; from time to time `bytes` is asked how many bytes are.
    #[inline]
    pub fn tick(&mut self, bytes: impl FnOnce() -> u64) {
        self.ticks += 1;
        if self.ticks == TICKS {
            self.ticks = 0;
            self.events += u64::from(TICKS);
            if self.terminal {
                self.set(bytes());
            }
        }
    }

    /// So many events are done in all.
    pub fn events(&mut self, events: u64) {
        self.events = events;
    }

    fn show(&mut self) {
        if !self.terminal {
            return;
        }
        let elapsed = self.started.elapsed();
        if elapsed < QUIET || elapsed.saturating_sub(self.asked) < STEP {
            return;
        }
        self.asked = elapsed;
        let (done, total) = (self.done, self.total);
        let bar = self.bar.get_or_insert_with(|| {
            let target = ProgressDrawTarget::stderr_with_hz(10);
            let bar = ProgressBar::with_draw_target(Some(total), target);
            if let Ok(style) =
                ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes}, {msg}{bytes_per_sec}, {eta} left")
            {
                bar.set_style(style);
            }
            bar.with_elapsed(elapsed)
        });
        if self.events > 0 {
            bar.set_message(format!("{} events, ", HumanCount(self.events)));
        }
        bar.set_position(done.min(total));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_work_and_no_terminal_show_nothing() {
        let long_ago = Instant::now().checked_sub(Duration::from_secs(5)).unwrap();
        for (started, terminal, shown) in
            [(Instant::now(), true, false), (long_ago, false, false), (long_ago, true, true)]
        {
            let mut p = Progress::starting(100, started, terminal);
            for _ in 0..TICKS {
                p.tick(|| 50);
            }
            assert_eq!(p.bar.is_some(), shown);
            p.add(20);
            if let Some(bar) = &p.bar {
                assert_eq!((bar.length(), bar.position()), (Some(100), 50));
                assert!(bar.message().starts_with("4,096 events"));
            }
            assert_eq!(p.events, u64::from(TICKS));
        }
    }
}
