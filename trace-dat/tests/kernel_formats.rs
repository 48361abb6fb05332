//! Every event format of whole kernels, with all modules that have events: parsed, and the print fmt compiled.
//!
//! `fixtures/formats/NAME.zst` has the texts of `events/*/*/format`, each behind a line `==> SYSTEM/EVENT/format`. `NAME.raw`
//! beside it names the events whose print fmt cannot be read (calls of functions inside the kernel, addresses of local
//! structures, C that is no expression), with the reason: the reference prints `[FAILED TO PARSE]` for each of them too, and for no
//! other one (seen with a record of every event). `BLESS=1` writes it anew.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;

use trace_dat::{
    Decoder, DecoderParts, Endian, LongSize,
    lazy::{FormatText, FormatTexts, LazyFormats},
};

fn texts(all: &[u8]) -> FormatTexts {
    let mut texts = FormatTexts::default();
    let all = format!("\n{}", String::from_utf8(all.to_vec()).unwrap());
    for one in all.split("\n==> ").skip(1) {
        let (path, text) = one.split_once('\n').unwrap();
        let system = path.split('/').next().unwrap();
        if texts.systems.last().is_none_or(|s| s != system) {
            texts.systems.push(system.to_owned());
        }
        let start = texts.text.len();
        texts.text.extend_from_slice(text.as_bytes());
        texts.files.push(FormatText { system: (texts.systems.len() - 1) as _, range: start..texts.text.len() });
    }
    texts
}

#[test]
fn all_formats_of_whole_kernels_can_be_read() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/formats");
    let mut kernels: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).collect();
    kernels.retain(|p| p.extension().is_some_and(|e| e == "zst"));
    kernels.sort();
    assert!(kernels.len() >= 3, "{kernels:?}");
    for path in kernels {
        let texts = texts(&zstd::decode_all(std::fs::File::open(&path).unwrap()).unwrap());
        let (systems, events) = (texts.systems.len(), texts.files.len());
        let mut parts = DecoderParts::new(Endian::Little, LongSize::Eight, 4096);
        parts.formats = LazyFormats::Texts(texts);
        let decoder = Decoder::new(parts);
        let raw = decoder.check_events();
        let name = path.file_stem().unwrap().to_string_lossy();
        println!("{name}: {events} events of {systems} systems, {} printed as raw fields", raw.len());
        assert!(events > 2000, "{name}: {events}");
        assert_eq!(decoder.events().count(), events, "{name}");
        let found: String = raw.iter().map(|(event, why)| format!("{event}\t{why}\n")).collect();
        let list = path.with_extension("raw");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&list, &found).unwrap();
        }
        let expected = std::fs::read_to_string(&list).unwrap();
        let names =
            |text: &str| text.lines().map(|l| l.split('\t').next().unwrap().to_owned()).collect::<BTreeSet<_>>();
        let (found, expected) = (names(&found), names(&expected));
        assert_eq!(found.difference(&expected).collect::<Vec<_>>(), Vec::<&String>::new(), "{name}: cannot be read");
        assert_eq!(expected.difference(&found).collect::<Vec<_>>(), Vec::<&String>::new(), "{name}: can be read now");
    }
}

/// The formats in the recordings of this project, foreign machines' among them: what is printed as raw fields there is so on a kernel
/// whose list is in `fixtures/formats` too, or stands here.
#[test]
fn all_formats_of_recordings_can_be_read() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
    let mut known: BTreeSet<String> = FOREIGN.iter().map(|name| (*name).to_owned()).collect();
    for kernel in ["6.1", "6.12", "7.2"] {
        let list = std::fs::read_to_string(dir.join(format!("formats/x86_64-{kernel}.raw"))).unwrap();
        known.extend(list.lines().map(|l| l.split('\t').next().unwrap().to_owned()));
    }
    let mut files: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "dat"));
    files.sort();
    assert!(files.len() > 15, "{files:?}");
    for path in files {
        let file = trace_dat::TraceFile::open(&path).unwrap();
        let decoder = file.decoder();
        let raw = decoder.check_events();
        let name = path.file_stem().unwrap().to_string_lossy();
        println!("{name}: {} events, {} printed as raw fields", decoder.events().count(), raw.len());
        let unknown: Vec<_> = raw.iter().filter(|(event, _)| !known.contains(event)).collect();
        assert!(unknown.is_empty(), "{name}: {unknown:#?}");
    }
}

/// Events of other kernels that the reference prints as raw fields too.
const FOREIGN: &[&str] = &["xen:xen_mmu_set_pte_atomic", "kprobes:k3"];
