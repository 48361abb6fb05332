//! The metadata of a file that was read, ready to be written into another one.

use super::{
    from::cpu_count,
    meta::{Metadata, Payload, Section},
    option::RawOption,
};
use crate::{
    Result,
    read::{
        TraceFile,
        section::{Part, id},
    },
};

impl Metadata {
    /// All of `file` that is not trace data: sections and options, also those that this version of the crate does not know.
    ///
    /// Compressed sections stay as they are and go over unchanged into a file of the same compression.
    ///
    /// # Errors
    /// As [`Part::read`].
    pub fn of(file: &TraceFile) -> Result<Metadata> {
        let from = file.metadata();
        let mut to = Metadata::new(file.endian(), cpu_count(file));
        to.header_info(&from.header_page, &from.header_event);
        for (section, part) in [
            (id::FTRACE_EVENTS, &from.ftrace_events),
            (id::EVENT_FORMATS, &from.event_formats),
            (id::KALLSYMS, &from.kallsyms),
            (id::PRINTK, &from.printk),
            (id::CMDLINES, &from.cmdlines),
            (id::BTF, &file.btf()),
            (id::MODULES, &from.modules),
        ] {
            if let Some(part) = part {
                to.set(section, payload(part)?);
            }
        }
        for s in file.sections() {
            // What the writer makes itself, and what was taken above.
            if matches!(s.id, id::OPTIONS | id::BUFFER | id::STRINGS | id::BUFFER_TEXT | id::HEADER_INFO)
                || to.get(s.id).is_some()
            {
                continue;
            }
            let name = file.section_name(s).map(|n| String::from_utf8_lossy(n).into_owned()).unwrap_or_default();
            to.sections.push(Section { id: s.id, name, payload: payload(&file.section_part(s))? });
        }
        for o in file.raw_options() {
            let option = RawOption::new(o.id, o.data.clone());
            // An option that has a section's number points to it; the writer makes such options.
            if !option.is_structural() && to.get(o.id).is_none() {
                to.option(option);
            }
        }
        Ok(to)
    }
}

fn payload(part: &Part) -> Result<Payload> {
    Ok(match part.read_packed()? {
        Some((codec, bytes, unpacked)) => Payload::Packed { codec, bytes, unpacked },
        None => Payload::Plain(part.read()?),
    })
}
