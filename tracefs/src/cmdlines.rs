//! `saved_cmdlines`: names of tasks that were traced; `saved_tgids`: their processes.

use crate::error::Result;
use crate::root::TraceFs;

impl TraceFs {
    /// `saved_cmdlines` as `(pid, comm)`, in the kernel's order. A comm may hold any byte but a newline.
    pub fn saved_cmdlines(&self) -> Result<Vec<(i32, Vec<u8>)>> {
        Ok(parse(&self.dir().read_bytes("saved_cmdlines")?))
    }

    /// `saved_cmdlines_size`: how many names are kept (since Linux 3.16).
    pub fn saved_cmdlines_size(&self) -> Result<i64> {
        self.dir().read_number("saved_cmdlines_size")
    }

    /// Writes `saved_cmdlines_size`.
    pub fn set_saved_cmdlines_size(&self, entries: u32) -> Result<()> {
        self.dir().write_number("saved_cmdlines_size", entries.into())
    }

    /// `saved_tgids` as `(pid, tgid)`; filled while option `record-tgid` is on (since Linux 4.14).
    pub fn saved_tgids(&self) -> Result<Vec<(i32, i32)>> {
        let text = self.dir().read("saved_tgids")?;
        Ok(text
            .lines()
            .filter_map(|l| {
                let mut words = l.split_whitespace().map(|w| w.parse().ok());
                Some((words.next()??, words.next()??))
            })
            .collect())
    }
}

fn parse(text: &[u8]) -> Vec<(i32, Vec<u8>)> {
    text.split(|b| *b == b'\n')
        .filter_map(|line| {
            let mut parts = line.splitn(2, |b| *b == b' ');
            let pid = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
            Some((pid, parts.next()?.to_vec()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_with_blanks() {
        let got = super::parse(b"1 systemd\n99 a b\xff\nx\n 5 y\n");
        assert_eq!(got, [(1, b"systemd".to_vec()), (99, b"a b\xff".to_vec())]);
    }
}
