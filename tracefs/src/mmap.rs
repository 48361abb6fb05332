//! Memory shared with the kernel: the mapped ring buffer and the clock page of perf. All `unsafe` of the crate is here.
//!
//! The kernel maps one CPU's ring buffer as a page of facts (`struct trace_buffer_meta`, `include/uapi/linux/trace_mmap.h`)
//! followed by the sub-buffers. The reader owns one of them, the reader page; an ioctl exchanges it for the next.
//! Since Linux 6.10.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{Ordering, fence};

use memmap2::{MmapOptions, MmapRaw};

use crate::cpu::page_size;
use crate::error::{Error, Result};
use crate::instance::Instance;

/// `TRACE_MMAP_IOCTL_GET_READER`: `_IO('R', 0x20)`.
const TRACE_MMAP_IOCTL_GET_READER: libc::c_ulong = (b'R' as libc::c_ulong) << 8 | 0x20;

/// What the first page says about a mapped buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapMeta {
    /// Bytes of the page of facts itself.
    pub meta_page_size: u32,
    /// Bytes of its structure.
    pub meta_struct_len: u32,
    /// Bytes of a sub-buffer.
    pub subbuf_size: u32,
    /// How many sub-buffers there are, the reader page included.
    pub nr_subbufs: u32,
    /// Records lost before the reader page.
    pub lost_events: u64,
    /// Which sub-buffer is the reader page.
    pub reader_id: u32,
    /// Bytes of the reader page that were read.
    pub reader_read: u32,
    /// Records in the buffer.
    pub entries: u64,
    /// Records lost because they were overwritten.
    pub overrun: u64,
    /// Records read.
    pub read: u64,
}

/// One CPU's ring buffer, mapped.
#[derive(Debug)]
pub struct MappedCpu {
    file: File,
    path: PathBuf,
    map: MmapRaw,
    meta: MapMeta,
    copy: Vec<u8>,
    /// Bytes of the reader page that were handed out.
    given: usize,
    reader_id: Option<u32>,
}

impl MappedCpu {
    /// Maps `per_cpu/cpuN/trace_pipe_raw`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the kernel cannot map its ring buffer: read it with
    /// [`CpuReader`](crate::CpuReader) then.
    pub fn open(instance: &Instance, cpu: u32) -> Result<MappedCpu> {
        let path = instance.cpu_dir(cpu)?.file("trace_pipe_raw");
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
            .map_err(|e| Error::io("open", &path, e))?;
        let map = |len: usize| {
            // A plain file in place of the kernel's could shrink under the map.
            if file.metadata().is_ok_and(|m| m.len() > 0) {
                return Err(std::io::Error::from_raw_os_error(libc::ENODEV));
            }
            MmapOptions::new().len(len).map_raw_read_only(&file)
        };
        let unsupported = |e: std::io::Error| match e.raw_os_error() {
            Some(libc::ENODEV | libc::EINVAL | libc::EOPNOTSUPP) => {
                Error::Unsupported { path: path.clone(), what: "a mapped ring buffer, since Linux 6.10".into() }
            }
            _ => Error::io("map", &path, e),
        };
        let first = map(page_size()).map_err(unsupported)?;
        let meta = read_meta(&first);
        let len = check(&meta).ok_or_else(|| Error::Text {
            path: path.clone(),
            text: format!("{meta:?}"),
            expected: "a page of facts and some sub-buffers",
        })?;
        drop(first);
        let map = map(len).map_err(unsupported)?;
        Ok(MappedCpu { file, path, map, meta, copy: Vec::new(), given: 0, reader_id: None })
    }

    /// What the kernel says of the buffer now.
    pub fn meta(&self) -> MapMeta {
        read_meta(&self.map)
    }

    /// Bytes of a sub-buffer.
    pub fn subbuf_size(&self) -> usize {
        self.meta.subbuf_size as usize
    }

    /// The next sub-buffer that has records not handed out yet, and the number of records lost before it. `None`: nothing
    /// new. A sub-buffer that is still being filled comes again when it has more; `from` says where the new data begins.
    ///
    /// The bytes are a copy: the kernel may go on writing behind them.
    #[allow(clippy::should_implement_trait)] // what it gives borrows from the reader
    pub fn next(&mut self) -> Result<Option<MappedSubbuf<'_>>> {
        // The exchange is asked for only when all of the present page was handed out: it is what may throw it away.
        // The first exchange may only mark the page as read, the second then brings the next one.
        for _ in 0..4 {
            let meta = self.meta();
            if self.reader_id != Some(meta.reader_id) {
                // Of the first page others may have read a part.
                self.given = if self.reader_id.is_none() { meta.reader_read as usize } else { 0 };
                self.reader_id = Some(meta.reader_id);
            }
            let size = self.subbuf_size();
            let Some(at) = (meta.reader_id < self.meta.nr_subbufs)
                .then(|| self.meta.meta_page_size as usize + meta.reader_id as usize * size)
            else {
                return Err(Error::Text {
                    path: self.path.clone(),
                    text: format!("reader page {}", meta.reader_id),
                    expected: "the number of a sub-buffer",
                });
            };
            self.copy_out(at, size);
            let header = 8 + size_of::<libc::c_long>();
            let commit = commit_of(&self.copy, size_of::<libc::c_long>()).min(size - header);
            let from = self.given;
            if commit > from {
                self.given = commit;
                let lost = if from == 0 { meta.lost_events } else { 0 };
                return Ok(Some(MappedSubbuf { data: &self.copy, from: header + from, end: header + commit, lost }));
            }
            // SAFETY: the ioctl takes no argument and works on a descriptor that we own.
            let done = unsafe { libc::ioctl(self.file.as_raw_fd(), TRACE_MMAP_IOCTL_GET_READER as _) };
            if done < 0 {
                let e = std::io::Error::last_os_error();
                return match e.raw_os_error() {
                    Some(libc::EAGAIN | libc::EINTR) => Ok(None),
                    _ => Err(Error::io("exchange the reader page of", &self.path, e)),
                };
            }
            // A page that was partly read before counts from there, and the same page may come again.
            let now = self.meta();
            if now.reader_id != meta.reader_id {
                self.reader_id = Some(now.reader_id);
                self.given = 0;
            }
        }
        Ok(None)
    }

    fn copy_out(&mut self, at: usize, size: usize) {
        self.copy.clear();
        self.copy.reserve(size);
        let map = self.map.as_ptr();
        // SAFETY: `check` made sure that `meta_page_size + nr_subbufs * subbuf_size` is the length of the map, the caller that
        // the sub-buffer's number is below `nr_subbufs`; `reserve` made room for `size` bytes. The kernel may change
        // the page meanwhile: raw bytes are copied and no reference to the shared memory is made. Bytes below the
        // commit count read afterwards from the copy are complete, as the kernel raises it after the data.
        unsafe {
            fence(Ordering::Acquire);
            std::ptr::copy_nonoverlapping(map.add(at), self.copy.as_mut_ptr(), size);
            self.copy.set_len(size);
        }
    }
}

/// A copy of a sub-buffer of a mapped ring buffer.
#[derive(Clone, Copy, Debug)]
pub struct MappedSubbuf<'a> {
    /// The whole sub-buffer with its header.
    pub data: &'a [u8],
    /// Where the data not handed out before begins.
    pub from: usize,
    /// Where it ends.
    pub end: usize,
    /// Records lost before this sub-buffer.
    pub lost: u64,
}

/// Number of data bytes by the header: time (8 bytes), then a long whose low 27 bits count.
fn commit_of(subbuf: &[u8], long: usize) -> usize {
    let rest = subbuf.get(8..).unwrap_or_default();
    let word = if long == 4 {
        rest.first_chunk().map(|b| u64::from(u32::from_ne_bytes(*b)))
    } else {
        rest.first_chunk().map(|b| u64::from_ne_bytes(*b))
    };
    (word.unwrap_or(0) & ((1 << 27) - 1)) as usize
}

fn read_meta(map: &MmapRaw) -> MapMeta {
    let base = map.as_ptr();
    let get = |at: usize| {
        // SAFETY: the map has at least a page, every offset below is smaller than 128, and a page's start is aligned for
        // u64. The kernel writes these words; volatile reads take one value of each.
        unsafe { base.add(at).cast::<u64>().read_volatile() }
    };
    let pair = |at: usize| {
        let b = get(at).to_ne_bytes();
        (u32::from_ne_bytes([b[0], b[1], b[2], b[3]]), u32::from_ne_bytes([b[4], b[5], b[6], b[7]]))
    };
    let (meta_page_size, meta_struct_len) = pair(0);
    let (subbuf_size, nr_subbufs) = pair(8);
    let (reader_id, reader_read) = pair(24);
    MapMeta {
        meta_page_size,
        meta_struct_len,
        subbuf_size,
        nr_subbufs,
        lost_events: get(16),
        reader_id,
        reader_read,
        entries: get(40),
        overrun: get(48),
        read: get(56),
    }
}

/// Length of the whole map, when the facts make sense.
fn check(meta: &MapMeta) -> Option<usize> {
    let page = page_size();
    let (head, size, count) = (meta.meta_page_size as usize, meta.subbuf_size as usize, meta.nr_subbufs as usize);
    let sane = head >= page && head % page == 0 && size >= page && size % page == 0 && count >= 1 && size <= 1 << 26;
    let len = size.checked_mul(count)?.checked_add(head)?;
    (sane && len <= 1 << 40).then_some(len)
}

/// How ticks of the x86 TSC become nanoseconds: `offset + (ticks * mult >> shift)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeConversion {
    /// Multiplier.
    pub mult: u32,
    /// Shift to the right.
    pub shift: u16,
    /// Nanoseconds to add, modulo 2^64.
    pub offset: u64,
}

/// The conversion that perf offers for a CPU (`time_mult`, `time_shift`, `time_zero` of `struct perf_event_mmap_page`).
///
/// # Errors
/// [`Error::Unsupported`] when the kernel does not offer it (no constant TSC), [`Error::Permission`] without the right to
/// open a perf event.
pub fn time_conversion(cpu: u32) -> Result<TimeConversion> {
    let path = PathBuf::from(format!("perf event of CPU {cpu}"));
    // struct perf_event_attr of PERF_ATTR_SIZE_VER0: type PERF_TYPE_SOFTWARE (1), size 64, config PERF_COUNT_SW_DUMMY (9),
    // flags disabled (bit 0) and exclude_kernel (bit 5).
    let mut attr = [0u64; 8];
    let (low, high) = (1u32.to_ne_bytes(), 64u32.to_ne_bytes());
    attr[0] = u64::from_ne_bytes([low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3]]);
    attr[1] = 9;
    attr[5] = if cfg!(target_endian = "big") { 1 << 63 | 1 << 58 } else { 1 | 1 << 5 };
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
    // SAFETY: `attr` has the 64 bytes that its size field promises and outlives the call; the other arguments are numbers.
    let fd = unsafe {
        libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), -1i32, cpu as i32, -1i32, PERF_FLAG_FD_CLOEXEC)
    };
    if fd < 0 {
        return Err(Error::io("open", &path, std::io::Error::last_os_error()));
    }
    // SAFETY: the call returned a new descriptor that nobody else has.
    let file = unsafe { File::from_raw_fd(fd as i32) };
    let map = MmapOptions::new().len(page_size()).map_raw_read_only(&file).map_err(|e| Error::io("map", &path, e))?;
    let base = map.as_ptr();
    let get = |at: usize| {
        // SAFETY: the map is one page, the offsets below are smaller than 128 and multiples of 8.
        unsafe { base.add(at).cast::<u64>().read_volatile() }
    };
    // The page is consistent when its sequence number (offset 8) is even and the same before and after.
    for _ in 0..1000 {
        let lock = get(8) & 0xffff_ffff;
        fence(Ordering::Acquire);
        let (capabilities, word, zero) = (get(40), get(48).to_ne_bytes(), get(64));
        fence(Ordering::Acquire);
        if lock & 1 != 0 || lock != get(8) & 0xffff_ffff {
            continue;
        }
        // Offsets: capabilities 40 (bit 3 cap_user_time, bit 4 cap_user_time_zero), pmc_width u16 48, time_shift u16 50,
        // time_mult u32 52, time_offset 56, time_zero 64.
        if capabilities >> 3 & 3 != 3 {
            break;
        }
        let shift = u16::from_ne_bytes([word[2], word[3]]);
        let mult = u32::from_ne_bytes([word[4], word[5], word[6], word[7]]);
        return Ok(TimeConversion { mult, shift, offset: zero });
    }
    Err(Error::Unsupported { path, what: "conversion of the CPU's clock to nanoseconds".into() })
}

/// The conversion, when it is the same on every CPU that is online.
///
/// # Errors
/// Those of [`time_conversion`], and [`Error::Invalid`] when the CPUs differ.
pub fn time_conversion_of_all() -> Result<TimeConversion> {
    let online = crate::file::read_text(std::path::Path::new("/sys/devices/system/cpu/online"))?;
    let mut found: Option<TimeConversion> = None;
    for cpu in crate::cpumask::CpuSet::from_list(online.trim())?.iter() {
        let c = time_conversion(cpu)?;
        match found {
            Some(f) if (f.mult, f.shift) != (c.mult, c.shift) => {
                return Err(Error::Invalid(
                    "the clocks of the CPUs run at different rates: tsc2nsec cannot be used".into(),
                ));
            }
            _ => found = found.or(Some(c)),
        }
    }
    found.ok_or_else(|| Error::Invalid("no CPU is online".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_checked() {
        let page = page_size() as u32;
        let good = MapMeta {
            meta_page_size: page,
            meta_struct_len: 64,
            subbuf_size: page,
            nr_subbufs: 3,
            lost_events: 0,
            reader_id: 0,
            reader_read: 0,
            entries: 0,
            overrun: 0,
            read: 0,
        };
        assert_eq!(check(&good), Some(4 * page as usize));
        for bad in [
            MapMeta { meta_page_size: 0, ..good },
            MapMeta { subbuf_size: 1, ..good },
            MapMeta { nr_subbufs: 0, ..good },
            MapMeta { subbuf_size: 1 << 31, nr_subbufs: u32::MAX, ..good },
        ] {
            assert_eq!(check(&bad), None);
        }
    }

    #[test]
    fn commit_word() {
        let mut b = vec![0; 16];
        b[8..12].copy_from_slice(&(0x8000_0000u32 | 77).to_ne_bytes());
        assert_eq!(commit_of(&b, 4), 77);
        assert_eq!(commit_of(&b[..10], 8), 0);
    }

    #[test]
    fn a_plain_file_is_not_mapped() {
        let t = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(t.path().join("per_cpu/cpu0")).unwrap();
        std::fs::write(t.path().join("per_cpu/cpu0/trace_pipe_raw"), "x").unwrap();
        assert!(matches!(MappedCpu::open(&crate::TraceFs::at(t.path()).top(), 0), Err(Error::Unsupported { .. })));
    }
}
