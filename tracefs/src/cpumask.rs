//! `tracing_cpumask`: which CPUs are traced; and CPU lists (`0-3,5`) and masks (`2f`) as text.

use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::instance::Instance;

/// Highest CPU number that a list or mask may name.
const MAX_CPU: u32 = 0xffff;

/// A set of CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuSet(BTreeSet<u32>);

impl CpuSet {
    /// Reads a list: numbers and ranges, separated by commas: `0-3,5`.
    pub fn from_list(text: &str) -> Result<CpuSet> {
        let bad = |what: &str, at: usize| Error::Syntax { what: what.into(), text: text.into(), at };
        let mut set = BTreeSet::new();
        let mut at = 0;
        for part in text.split(',') {
            let number = |t: &str| t.trim().parse::<u32>().ok().filter(|n| *n <= MAX_CPU);
            let (low, high) = match part.split_once('-') {
                Some((a, b)) => (number(a), number(b)),
                None => (number(part), number(part)),
            };
            match (low, high) {
                (Some(a), Some(b)) if a <= b => set.extend(a..=b),
                (Some(_), Some(_)) => return Err(bad("a range of CPUs goes upwards", at)),
                _ => return Err(bad("not a CPU number", at)),
            }
            at += part.len() + 1;
        }
        Ok(CpuSet(set))
    }

    /// Reads a mask: hex digits, optionally in groups separated by commas: `f`, `1,ffffffff`.
    pub fn from_mask(text: &str) -> Result<CpuSet> {
        let bad = |at: usize| Error::Syntax { what: "not a hexadecimal CPU mask".into(), text: text.into(), at };
        let text = text.trim();
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let mut set = BTreeSet::new();
        let mut bit = 0u32;
        for (i, c) in digits.char_indices().rev() {
            if c == ',' {
                // Every group has 32 bits.
                bit = bit.div_ceil(32) * 32;
                continue;
            }
            let value = c.to_digit(16).ok_or_else(|| bad(text.len() - digits.len() + i))?;
            set.extend((0..4).filter(|b| value >> b & 1 == 1).map(|b| bit + b));
            bit += 4;
            if bit > MAX_CPU {
                return Err(bad(0));
            }
        }
        if digits.is_empty() {
            return Err(bad(0));
        }
        Ok(CpuSet(set))
    }

    /// The CPUs, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied()
    }

    /// True when the CPU is in it.
    pub fn contains(&self, cpu: u32) -> bool {
        self.0.contains(&cpu)
    }

    /// True without any CPU.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many CPUs.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// As list: `0-3,5`.
    pub fn to_list(&self) -> String {
        let mut parts: Vec<(u32, u32)> = Vec::new();
        for cpu in self.iter() {
            match parts.last_mut() {
                Some((_, high)) if *high + 1 == cpu => *high = cpu,
                _ => parts.push((cpu, cpu)),
            }
        }
        let text = |(a, b): &(u32, u32)| if a == b { a.to_string() } else { format!("{a}-{b}") };
        parts.iter().map(text).collect::<Vec<_>>().join(",")
    }

    /// As mask in groups of 32 bits: `1,0000000f`.
    pub fn to_mask(&self) -> String {
        let groups = self.0.last().map_or(0, |m| m / 32) + 1;
        let mut out = String::new();
        for g in (0..groups).rev() {
            let bits = (0..32).filter(|b| self.contains(g * 32 + b)).fold(0u32, |n, b| n | 1 << b);
            match out.is_empty() {
                true => out = format!("{bits:x}"),
                false => out += &format!(",{bits:08x}"),
            }
        }
        out
    }
}

impl FromIterator<u32> for CpuSet {
    fn from_iter<T: IntoIterator<Item = u32>>(cpus: T) -> CpuSet {
        CpuSet(cpus.into_iter().filter(|c| *c <= MAX_CPU).collect())
    }
}

impl Instance {
    /// `tracing_cpumask`.
    pub fn cpumask(&self) -> Result<CpuSet> {
        CpuSet::from_mask(&self.dir().read_trimmed("tracing_cpumask")?)
    }

    /// Writes `tracing_cpumask`; `None`: every CPU.
    pub fn set_cpumask(&self, cpus: Option<&CpuSet>) -> Result<()> {
        match cpus {
            Some(set) => self.set_cpumask_text(&set.to_mask()),
            None => {
                let all: CpuSet = self.cpus()?.into_iter().collect();
                self.set_cpumask_text(&all.to_mask())
            }
        }
    }

    /// Writes a mask in the kernel's own spelling.
    pub fn set_cpumask_text(&self, mask: &str) -> Result<()> {
        self.dir().write("tracing_cpumask", mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text() {
        let set = CpuSet::from_list("0-3,5,40").unwrap();
        assert_eq!(set.to_list(), "0-3,5,40");
        assert_eq!(set.to_mask(), "100,0000002f");
        assert_eq!(CpuSet::from_mask("100,0000002f\n").unwrap(), set);
        assert_eq!(CpuSet::from_mask("f").unwrap().to_list(), "0-3");
        assert_eq!(CpuSet::from_mask("1,0").unwrap().to_list(), "32");
        assert_eq!(CpuSet::default().to_mask(), "0");
        for bad in ["", "a", "3-1", "1,,2", "99999999999"] {
            assert!(CpuSet::from_list(bad).is_err(), "{bad}");
        }
        assert!(CpuSet::from_mask("xyz").is_err());
        assert!(CpuSet::from_mask(&"f".repeat(100_000)).is_err());
    }
}
