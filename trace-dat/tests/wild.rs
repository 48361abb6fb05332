//! Files that readers met in the wild, and recordings that did not come to their end.
#![allow(clippy::unwrap_used)]

mod support;

use support::{Form, PLAIN, records};
use trace_dat::{
    OpenOptions, TraceFile,
    compress::Codec,
    time::TimeMap,
    write::{FileVersion, RawOption},
};

fn open(bytes: Vec<u8>) -> TraceFile {
    OpenOptions::new().threads(0).open_bytes("test", bytes).unwrap()
}

fn count(file: &TraceFile) -> usize {
    let mut m = file.records(&TimeMap::default());
    let mut n = 0;
    while m.next().is_some() {
        n += 1;
    }
    n
}

fn warnings(file: &TraceFile) -> Vec<String> {
    file.take_warnings().iter().map(ToString::to_string).collect()
}

/// Kernel bugzilla 217367: the size in the CPU table leaves out the word with the count of chunks. The count decides.
#[test]
fn compressed_sizes_that_are_4_too_small() {
    let cpus = [records(3000, 1000, 500, 1), records(3000, 1000, 500, 2)];
    let form = Form { codec: Codec::Zstd, ..PLAIN };
    let mut bytes = form.file(&cpus);
    let file = open(bytes.clone());
    let sizes: Vec<u64> = file.buffers()[0].cpus.iter().map(|c| c.size).collect();
    assert!(sizes.iter().all(|s| *s > 4));
    for c in &file.buffers()[0].cpus {
        // The table holds offset and size, one behind the other.
        let entry = [c.offset.to_le_bytes(), c.size.to_le_bytes()].concat();
        let at = bytes.windows(16).position(|w| w == entry).unwrap();
        bytes[at + 8..at + 16].copy_from_slice(&(c.size - 4).to_le_bytes());
    }
    let file = open(bytes);
    assert_eq!(file.buffers()[0].cpus.iter().map(|c| c.size + 4).collect::<Vec<_>>(), sizes);
    assert_eq!(count(&file), 6000);
    assert_eq!(warnings(&file), Vec::<String>::new());
}

/// Kernel bugzilla 218430: an empty TRACECLOCK option in a version 6 file; and options that nobody knows.
#[test]
fn an_empty_clock_and_unknown_options() {
    for version in [FileVersion::V6, FileVersion::V7] {
        let form = Form { version, ..PLAIN };
        let data = form.subbufs(&records(100, 1000, 500, 1));
        let options = [RawOption::new(4, Vec::new()), RawOption::new(99, vec![1; 9]), RawOption::new(4711, Vec::new())];
        let file = open(form.file_of(&[data], &options));
        assert_eq!(count(&file), 100, "{version:?}");
        assert_eq!(warnings(&file), Vec::<String>::new(), "{version:?}");
    }
}

/// What fills a sub-buffer up may say that it is longer than that. With the delta of a discarded record it is damage.
/// The next sub-buffer is read in both cases.
#[test]
fn padding_longer_than_the_sub_buffer() {
    let form = PLAIN;
    let second = form.subbufs(&records(10, 100_000, 500, 2));
    for (delta, told) in [(1, None), (5, Some("it is padding that reaches past the end of the data"))] {
        let mut first = form.subbufs(&records(10, 1000, 500, 1));
        let commit = u64::from_le_bytes(first[8..16].try_into().unwrap()) as usize;
        let end = 16 + commit;
        first[end..end + 4].copy_from_slice(&(29u32 | delta << 5).to_le_bytes());
        first[end + 4..end + 8].copy_from_slice(&100_000u32.to_le_bytes()); // its length
        first[8..16].copy_from_slice(&(commit as u64 + 8).to_le_bytes());
        first.extend_from_slice(&second);
        let file = open(form.file_of(&[first], &[]));
        assert_eq!(count(&file), 20);
        let warnings = warnings(&file);
        assert_eq!(warnings.len(), usize::from(told.is_some()), "{warnings:?}");
        assert!(told.is_none_or(|t| warnings[0].contains(t)), "{warnings:?}");
    }
}

/// Empty sub-buffers between filled ones are holes, at the end they only fill up.
#[test]
fn holes_are_told() {
    let form = PLAIN;
    let (a, b) = (form.subbufs(&records(10, 1000, 500, 1)), form.subbufs(&records(10, 100_000, 500, 2)));
    let hole = vec![0; 8192];
    let file = open(form.file_of(&[[a.clone(), b.clone(), hole.clone()].concat()], &[]));
    assert_eq!((count(&file), warnings(&file).len()), (20, 0));
    let file = open(form.file_of(&[[a, hole, b].concat()], &[]));
    assert_eq!(count(&file), 20);
    let told = warnings(&file);
    assert!(told.len() == 1 && told[0].contains("CPU 0, sub-buffer 1, file offset 0x"), "{told:?}");
}

/// Version 6 has no table of its parts: behind a damaged size the events are found all the same.
#[test]
fn version_6_with_a_damaged_size() {
    let form = Form { version: FileVersion::V6, ..PLAIN };
    let mut bytes = form.file(&[records(100, 1000, 500, 1)]);
    let size = b"name: ev\n".as_slice();
    let at = bytes.windows(size.len()).position(|w| w == size).unwrap() - 8;
    bytes[at + 5] = 0x7f;
    let file = open(bytes);
    assert_eq!(count(&file), 100);
    let told = warnings(&file);
    assert!(told.iter().any(|w| w.contains("what stands before the events")), "{told:?}");
    let (texts, _) = file.metadata().formats();
    assert_eq!(texts.files.len(), 0, "its only format is the damaged one");
}

/// Raw data of an interrupted recording, with the description that was written before the first event.
#[test]
fn raw_data_of_a_recording_that_did_not_end() {
    let dir = tempfile::tempdir().unwrap();
    let description = dir.path().join("t.dat.meta");
    std::fs::write(&description, PLAIN.file_of(&[], &[])).unwrap();
    let cpus = [records(3000, 1000, 500, 1), records(2000, 1000, 500, 2)];
    let mut raw = Vec::new();
    for (cpu, records) in cpus.iter().enumerate() {
        let path = dir.path().join(format!("t.dat.cpu{cpu}"));
        let mut bytes = PLAIN.subbufs(records);
        if cpu == 1 {
            // The machine went down in the middle of a sub-buffer.
            bytes.truncate(bytes.len() - 4096 + 600);
        }
        std::fs::write(&path, bytes).unwrap();
        raw.push((if cpu == 1 { "inst".to_owned() } else { String::new() }, cpu as u32, path));
    }
    let file = OpenOptions::new().open_raw("t.dat", &description, &raw).unwrap();
    assert_eq!(file.buffers().iter().map(|b| b.name.as_str()).collect::<Vec<_>>(), ["", "inst"]);
    assert_eq!(file.cpu_count(), 2);
    let n = count(&file);
    let told = warnings(&file);
    // All of the first CPU; of the second all but what was in the rest of its last sub-buffer.
    assert!((4880..5000).contains(&n), "{n} {told:?}");
    assert!(told.len() == 1 && told[0].contains("buffer \"inst\", CPU 1, sub-buffer"), "{told:?}");
}

/// Kernel bugzilla 210173: an array of length 0 goes to the end of the record.
#[test]
fn arrays_whose_size_only_the_record_tells() {
    use trace_dat::{Decoder, DecoderParts, Endian, FormatTexts, LazyFormats, LongSize, Record};
    let mut texts = FormatTexts::default();
    texts.push(
        "test",
        b"name: ev\nID: 100\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
          \tfield:unsigned char buf[];\toffset:4;\tsize:0;\tsigned:0;\n\nprint fmt: \"%s\", __print_hex(REC->buf, 4)\n",
    );
    let mut parts = DecoderParts::new(Endian::Little, LongSize::Eight, 4096);
    parts.formats = LazyFormats::Texts(texts);
    let decoder = Decoder::new(parts);
    let data = [100, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let event = decoder.event_of(&data).unwrap();
    let rec = Record { ts: 0, cpu: 0, lost: Default::default(), data: &data, offset: 0 };
    let cx =
        trace_dat::plugin::PrintCx { dec: &decoder, event, rec, reach: &data, ts: 0, note: Default::default(), seq: 0 };
    let mut out = Vec::new();
    decoder.print_raw(&cx, &mut out);
    let raw = String::from_utf8_lossy(&out).into_owned();
    out.clear();
    decoder.print_fmt(&cx, &mut out);
    assert_eq!(String::from_utf8_lossy(&out).trim(), "01 02 03 04");
    assert!(raw.contains("buf="), "{raw}");
}
