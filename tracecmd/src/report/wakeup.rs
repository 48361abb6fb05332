//! `report -w`: how long tasks wait from their wakeup until they run.

use rustc_hash::FxHashMap;
use trace_dat::{
    Decoder, Record,
    format::{Event, Field},
};

/// Priorities below this are those of real-time tasks (`MAX_RT_PRIO`).
const MAX_RT_PRIO: i64 = 100;

/// A number field's place.
#[derive(Clone, Copy, Debug)]
struct Place {
    offset: usize,
    size: usize,
}

impl Place {
    fn of(event: &Event, name: &str) -> Option<Place> {
        event.field(name).map(|f: &Field| Place { offset: f.offset, size: f.size })
    }

    fn get(self, dec: &Decoder, data: &[u8]) -> i64 {
        let value = dec.endian().uint(data, self.offset, self.size).unwrap_or(0);
        if self.size == 4 { i64::from(value as i32) } else { value as i64 }
    }
}

/// Sum, largest and smallest of the waits so far.
#[derive(Debug, Default)]
struct Totals {
    count: u64,
    sum: u64,
    /// (wait, time of the switch)
    max: (u64, u64),
    min: (u64, u64),
}

impl Totals {
    fn add(&mut self, wait: u64, ts: u64) {
        if self.count == 0 || wait > self.max.0 {
            self.max = (wait, ts);
        }
        if self.count == 0 || wait < self.min.0 {
            self.min = (wait, ts);
        }
        self.count += 1;
        self.sum = self.sum.wrapping_add(wait);
    }

    fn print(&self, out: &mut Vec<u8>) {
        let micros = |n: u64| format!("{}.{:03} usecs", n / 1000, n % 1000);
        let time = |ts: u64| {
            let us = ts.wrapping_add(500) / 1000;
            format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
        };
        let text = format!(
            "\nAverage wakeup latency: {}\nMaximum Latency: {} at timestamp: {}\nMinimum Latency: {} at timestamp: {}\n",
            micros(self.sum / self.count.max(1)),
            micros(self.max.0),
            time(self.max.1),
            micros(self.min.0),
            time(self.min.1)
        );
        out.extend_from_slice(text.as_bytes());
    }
}

/// Where the events of one machine keep what is needed.
#[derive(Debug)]
struct Fields {
    /// `sched_wakeup` and `sched_wakeup_new`: id, pid, success.
    wakeups: Vec<(u16, Place, Option<Place>)>,
    /// `sched_switch`: id, next_pid, next_prio.
    switch: Option<(u16, Place, Option<Place>)>,
}

/// Waits of the tasks of one trace.
#[derive(Debug)]
pub struct Wakeups {
    fields: Fields,
    /// Time of the last wakeup of each task that has not run since.
    waiting: FxHashMap<i64, u64>,
    all: Totals,
    real_time: Totals,
}

impl Wakeups {
    /// An engine for the events that `dec` knows.
    pub fn new(dec: &Decoder) -> Self {
        let wakeups = ["sched_wakeup", "sched_wakeup_new"].into_iter().filter_map(|name| {
            let e = dec.find_event(Some("sched"), name)?;
            Some((e.id, Place::of(e, "pid")?, Place::of(e, "success")))
        });
        let switch = dec
            .find_event(Some("sched"), "sched_switch")
            .and_then(|e| Some((e.id, Place::of(e, "next_pid")?, Place::of(e, "next_prio"))));
        Wakeups {
            fields: Fields { wakeups: wakeups.collect(), switch },
            waiting: FxHashMap::default(),
            all: Totals::default(),
            real_time: Totals::default(),
        }
    }

    /// Looks at the next shown record, whose corrected time is `ts`. For a switch to a task whose wakeup was seen: how long
    /// the task had to wait, in the unit of the clock.
    pub fn see(&mut self, dec: &Decoder, rec: &Record<'_>, ts: u64) -> Option<u64> {
        let id = dec.endian().u16(*rec.data.first_chunk()?);
        if let Some((switch, next_pid, next_prio)) = self.fields.switch
            && switch == id
        {
            let wait = ts.wrapping_sub(self.waiting.remove(&next_pid.get(dec, rec.data))?);
            self.all.add(wait, ts);
            if next_prio.is_some_and(|p| p.get(dec, rec.data) < MAX_RT_PRIO) {
                self.real_time.add(wait, ts);
            }
            return Some(wait);
        }
        let (_, pid, success) = self.fields.wakeups.iter().find(|w| w.0 == id)?;
        if success.is_none_or(|s| s.get(dec, rec.data) != 0) {
            self.waiting.insert(pid.get(dec, rec.data), ts);
        }
        None
    }

    /// Appends the summary behind the last line; nothing when no wait was seen.
    pub fn summary(&self, out: &mut Vec<u8>) {
        if self.all.count == 0 {
            return;
        }
        self.all.print(out);
        if self.real_time.count > 0 {
            out.extend_from_slice(b"\nRT task timings:\n");
            self.real_time.print(out);
        }
        out.push(b'\n');
    }
}
