//! All events of a machine, each parsed when it is first needed.

use std::sync::OnceLock;

use rustc_hash::FxHashMap;

use crate::{
    Decoder,
    format::Event,
    lazy::{FormatTexts, LazyFormats},
};

/// One format file: where it lies and, once it was needed, what it says.
#[derive(Debug)]
struct Slot {
    /// Index in [`FormatTexts::files`].
    file: u32,
    /// `name:` as a byte range of the text.
    name: (u32, u32),
    event: OnceLock<Option<Box<Event>>>,
}

#[derive(Debug)]
struct Index {
    slots: Vec<Slot>,
    /// Slot + 1 by id; 0: there is no such event.
    by_id: Vec<u32>,
    texts: FormatTexts,
}

/// The events by id and name.
///
/// The texts are read when the first event is asked for and scanned for `name:` and `ID:` only; a format is parsed when its
/// event is asked for.
#[derive(Debug)]
pub struct EventTable {
    formats: LazyFormats,
    index: OnceLock<Index>,
    by_name: OnceLock<FxHashMap<String, Vec<u32>>>,
}

fn line_value<'a>(text: &'a [u8], key: &[u8]) -> Option<(usize, &'a [u8])> {
    let mut at = 0;
    for line in text.split_inclusive(|b| *b == b'\n').take(8) {
        if let Some(rest) = line.strip_prefix(key) {
            let value = rest.trim_ascii();
            let lead = rest.len() - rest.trim_ascii_start().len();
            return Some((at + key.len() + lead, value));
        }
        at += line.len();
    }
    None
}

impl EventTable {
    /// The events in these texts.
    pub fn new(formats: LazyFormats) -> Self {
        EventTable { formats, index: OnceLock::new(), by_name: OnceLock::new() }
    }

    fn index(&self) -> &Index {
        self.index.get_or_init(|| {
            let texts = match &self.formats {
                LazyFormats::None => FormatTexts::default(),
                LazyFormats::Texts(t) => t.clone(),
                LazyFormats::Read(read) => read().unwrap_or_else(|e| {
                    log::warn!("event formats: {e}");
                    FormatTexts::default()
                }),
            };
            let mut slots = Vec::with_capacity(texts.files.len());
            let mut by_id: Vec<u32> = Vec::new();
            for (file, f) in texts.files.iter().enumerate() {
                let Some(text) = texts.text.get(f.range.clone()) else { continue };
                let Some((at, name)) = line_value(text, b"name:") else { continue };
                let id = line_value(text, b"ID:").and_then(|(_, v)| std::str::from_utf8(v).ok()?.parse::<u16>().ok());
                let Some(id) = id else { continue };
                let start = f.range.start + at;
                slots.push(Slot {
                    file: file as u32,
                    name: (start as u32, (start + name.len()) as u32),
                    event: OnceLock::new(),
                });
                let id = usize::from(id);
                if by_id.len() <= id {
                    by_id.resize(id + 1, 0);
                }
                if let Some(slot @ 0) = by_id.get_mut(id) {
                    *slot = slots.len() as u32;
                }
            }
            Index { slots, by_id, texts }
        })
    }

    fn slot<'a>(&self, dec: &Decoder, index: &'a Index, slot: &'a Slot) -> Option<&'a Event> {
        slot.event
            .get_or_init(|| {
                let file = index.texts.files.get(slot.file as usize)?;
                let text = index.texts.text.get(file.range.clone())?;
                let system = index.texts.systems.get(file.system as usize).map_or("", String::as_str);
                match Event::parse(system, text, dec.long_size()) {
                    Ok(e) => Some(Box::new(e)),
                    Err(e) => {
                        log::warn!("{e}");
                        None
                    }
                }
            })
            .as_deref()
    }

    #[inline]
    pub(crate) fn event(&self, dec: &Decoder, id: u16) -> Option<&Event> {
        let index = self.index();
        let n = index.by_id.get(usize::from(id))?.checked_sub(1)?;
        let slot = index.slots.get(n as usize)?;
        match slot.event.get() {
            Some(e) => e.as_deref(),
            None => self.slot(dec, index, slot),
        }
    }

    pub(crate) fn events(&self, dec: &Decoder) -> impl Iterator<Item = &Event> {
        let index = self.index();
        index.slots.iter().filter_map(|s| self.slot(dec, index, s))
    }

    /// `system:event` and the error of each format that cannot be parsed at all.
    pub(crate) fn broken(&self, dec: &Decoder) -> Vec<(String, String)> {
        let index = self.index();
        let mut all = Vec::new();
        for f in &index.texts.files {
            let system = index.texts.systems.get(f.system as usize).map_or("", String::as_str);
            let text = index.texts.text.get(f.range.clone()).unwrap_or(&[]);
            if let Err(e) = Event::parse(system, text, dec.long_size()) {
                let name = line_value(text, b"name:").map_or(&b""[..], |(_, n)| n);
                all.push((format!("{system}:{}", String::from_utf8_lossy(name)), e.to_string()));
            }
        }
        all
    }

    pub(crate) fn find(&self, dec: &Decoder, system: Option<&str>, name: &str) -> Option<&Event> {
        let index = self.index();
        let by_name = self.by_name.get_or_init(|| {
            let mut map: FxHashMap<String, Vec<u32>> = FxHashMap::default();
            for (n, s) in index.slots.iter().enumerate() {
                let name = index.texts.text.get(s.name.0 as usize..s.name.1 as usize).unwrap_or(&[]);
                map.entry(String::from_utf8_lossy(name).into_owned()).or_default().push(n as u32);
            }
            map
        });
        by_name.get(name)?.iter().find_map(|n| {
            let slot = index.slots.get(*n as usize)?;
            if let Some(system) = system {
                let file = index.texts.files.get(slot.file as usize)?;
                if index.texts.systems.get(file.system as usize)? != system {
                    return None;
                }
            }
            self.slot(dec, index, slot)
        })
    }
}
