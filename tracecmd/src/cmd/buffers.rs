//! Which buffers a command works on: `-B NAME`, `-a`, `-t`.

use std::path::Path;

use clap::ArgMatches;
use tracefs::{Instance, TraceFs};

use crate::cli::{self, Opt};

/// `-B`, `-a` and `-t` for commands that work on several buffers.
pub fn options(command: clap::Command) -> clap::Command {
    command
        .arg(cli::option("B", "NAME", "This instance (may be repeated); the top buffer is then left out"))
        .arg(cli::switch("a", "Every instance, without the top buffer").visible_alias("all"))
        .arg(cli::switch("t", "The top buffer too").visible_alias("top"))
}

/// The tracing directory with the journal that a session would use; nothing here is undone, so there is none.
pub fn tracing() -> anyhow::Result<TraceFs> {
    Ok(TraceFs::find()?)
}

/// The buffers that the options choose: the top one when none is named.
///
/// # Errors
/// An instance that does not exist.
pub fn chosen(fs: &TraceFs, m: &ArgMatches) -> anyhow::Result<Vec<Instance>> {
    select(fs, &cli::ordered(m))
}

/// [`chosen`] from options in order.
pub fn select(fs: &TraceFs, options: &[Opt]) -> anyhow::Result<Vec<Instance>> {
    let mut found: Vec<Instance> = Vec::new();
    let mut top = false;
    let mut named = false;
    let add = |found: &mut Vec<Instance>, name: &str| -> anyhow::Result<()> {
        if !found.iter().any(|i| i.name() == Some(name)) {
            found.push(fs.instance(name)?);
        }
        Ok(())
    };
    for option in options {
        match option.id.as_str() {
            "B" => {
                named = true;
                add(&mut found, &option.text())?;
            }
            "a" => {
                named = true;
                for name in fs.instances()? {
                    add(&mut found, &name)?;
                }
            }
            "t" => top = true,
            _ => {}
        }
    }
    if top || !named {
        found.insert(0, fs.top());
    }
    Ok(found)
}

/// One instance by `-B`, or the top one.
pub fn one(fs: &TraceFs, m: &ArgMatches) -> anyhow::Result<Instance> {
    let names: Vec<Opt> = cli::ordered(m).into_iter().filter(|o| o.id == "B").collect();
    match names.as_slice() {
        [] => Ok(fs.top()),
        [name] => Ok(fs.instance(&name.text())?),
        _ => anyhow::bail!("only one -B can be given"),
    }
}

/// A CPU number as strtol with base 0 reads it: decimal, 0x hex, 0 octal.
pub fn cpu(text: &str) -> anyhow::Result<u32> {
    let t = text.trim();
    let number = match (t.strip_prefix("0x").or_else(|| t.strip_prefix("0X")), t.strip_prefix('0')) {
        (Some(hex), _) => u32::from_str_radix(hex, 16),
        (None, Some(octal)) if !octal.is_empty() => u32::from_str_radix(octal, 8),
        _ => t.parse(),
    };
    number.map_err(|_| anyhow::anyhow!("{text:?} is no CPU number"))
}

/// Copies a file to stdout as it comes.
pub fn cat(path: &Path) -> anyhow::Result<()> {
    use anyhow::Context;
    use std::io::{Read, Write};
    let mut file = std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut out = crate::output::guard::stdout();
    let mut buf = vec![0; 1 << 16];
    loop {
        match file.read(&mut buf) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                out.write_all(buf.get(..n).unwrap_or_default())?;
                out.flush()?;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opts(list: &[(&str, &str)]) -> Vec<Opt> {
        list.iter().map(|(i, v)| Opt { id: (*i).into(), value: Some((*v).into()) }).collect()
    }

    #[test]
    fn selection() {
        let t = tempfile::tempdir().unwrap();
        for i in ["a", "b"] {
            std::fs::create_dir_all(t.path().join("instances").join(i)).unwrap();
        }
        let fs = TraceFs::at(t.path());
        let names = |l: &[(&str, &str)]| -> Vec<String> {
            let mut n: Vec<String> =
                select(&fs, &opts(l)).unwrap().iter().map(|i| i.name().unwrap_or("TOP").to_owned()).collect();
            n.sort();
            n
        };
        assert_eq!(names(&[]), ["TOP"]);
        assert_eq!(names(&[("B", "a")]), ["a"]);
        assert_eq!(names(&[("B", "a"), ("t", "")]), ["TOP", "a"]);
        assert_eq!(names(&[("a", "")]), ["a", "b"], "-a leaves the top buffer out");
        assert_eq!(names(&[("a", ""), ("t", ""), ("B", "a")]), ["TOP", "a", "b"]);
        let e = select(&fs, &opts(&[("B", "typo")])).unwrap_err();
        assert!(e.to_string().contains("no instance \"typo\""), "{e}");
        assert_eq!((cpu("0x10").unwrap(), cpu("010").unwrap(), cpu("9").unwrap(), cpu("0").unwrap()), (16, 8, 9, 0));
        assert!(cpu("x").is_err());
    }
}
