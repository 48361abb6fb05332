//! The metadata of a file that was read, ready to be written into another one.

use super::{
    from::cpu_count,
    meta::{Metadata, Payload, Section},
    option::RawOption,
};
use crate::{
    Error, Result,
    read::{
        TraceFile,
        section::{Part, id},
    },
    warning::Place,
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
                || (s.id <= id::MODULES && to.get(s.id).is_some())
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

impl Metadata {
    /// What can be read of a damaged file's metadata. Unlike [`Metadata::of`] it takes nothing over as it is stored: each
    /// section is read and made anew, and one that cannot be read is left out, which the warnings of `file` tell.
    pub fn salvage(file: &TraceFile) -> Metadata {
        let from = file.metadata();
        let mut to = Metadata::new(file.endian(), cpu_count(file));
        to.header_info(&from.header_page, &from.header_event);
        // What is wrong with a part is told, and the rest of the file goes on.
        let told = |part: Option<&Part>, error: Error, lost: &str| {
            let place = Place { offset: part.map(Part::offset), ..Place::default() };
            file.warnings().push(place, error, lost);
        };
        let (texts, result) = from.formats();
        if let Err(error) = result {
            told(from.event_formats.as_ref().or(from.ftrace_events.as_ref()), error, "some event formats");
        }
        let mut systems: Vec<(&str, Vec<&[u8]>)> = texts.systems.iter().map(|s| (s.as_str(), Vec::new())).collect();
        for f in &texts.files {
            if let (Some(s), Some(text)) = (systems.get_mut(f.system as usize), texts.text.get(f.range.clone())) {
                s.1.push(text);
            }
        }
        let ftrace = systems.iter().position(|s| s.0 == "ftrace").map(|n| systems.remove(n).1).unwrap_or_default();
        to.ftrace_events(&ftrace);
        to.event_formats(&systems);
        let sized = |part: &Option<Part>, width: usize, lost: &str| {
            let part = part.as_ref()?;
            part.read_sized(width, &mut |error| told(Some(part), error, ""))
                .map_err(|error| told(Some(part), error, lost))
                .ok()
        };
        to.kallsyms(sized(&from.kallsyms, 4, "the kernel's symbols").unwrap_or_default());
        to.printk_formats(&sized(&from.printk, 4, "printk formats").unwrap_or_default());
        to.cmdlines(&sized(&from.cmdlines, 8, "names of processes").unwrap_or_default());
        let read = |part: &Option<Part>, lost: &str| {
            let part = part.as_ref()?;
            part.read().map_err(|error| told(Some(part), error, lost)).ok()
        };
        if let Some(btf) = read(&file.btf(), "BTF") {
            to.btf(&btf);
        }
        if let Some(text) = read(&from.modules, "the list of modules") {
            to.modules(&text);
        }
        for o in file.raw_options() {
            let option = RawOption::new(o.id, o.data.clone());
            if !option.is_structural() && to.get(o.id).is_none() {
                to.option(option);
            }
        }
        to
    }
}

fn payload(part: &Part) -> Result<Payload> {
    Ok(match part.read_packed()? {
        Some((codec, bytes, unpacked)) => Payload::Packed { codec, bytes, unpacked, offset: part.offset() },
        None => Payload::Plain(part.read()?),
    })
}
