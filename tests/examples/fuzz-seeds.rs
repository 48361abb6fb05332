//! `fuzz-seeds DIR`: seeds of the fuzz targets, made from the fixtures, into DIR/TARGET/.

use std::path::PathBuf;

use anyhow::{Context, Result};
use tracecmd_tests::target_seeds;

fn main() -> Result<()> {
    let dir: PathBuf = std::env::args_os().nth(1).context("usage: fuzz-seeds DIR")?.into();
    target_seeds::all(&mut |target, bytes| {
        let dir = dir.join(target);
        std::fs::create_dir_all(&dir)?;
        let name = bytes.iter().fold(bytes.len() as u64, |h, b| h.wrapping_mul(0x100_0000_01b3) ^ u64::from(*b));
        Ok(std::fs::write(dir.join(format!("{name:016x}")), bytes)?)
    })
}
