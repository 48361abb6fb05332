//! Functions that print formats of some subsystems call.

use std::io::Write;

use super::text::dec;
use crate::print::{Arg, ArgKind, Helper, HelperCx};

const NUM: ArgKind = ArgKind::Num;

/// All helpers that the plugins provide.
pub(super) const HELPERS: &[Helper] = &[
    Helper { name: "jbd2_dev_to_name", ret: ArgKind::Str, args: &[NUM], run: jbd2_dev_to_name },
    Helper { name: "jiffies_to_msecs", ret: NUM, args: &[NUM], run: |_, a, _| num(a, 0) },
    Helper { name: "is_writable_pte", ret: NUM, args: &[NUM], run: |_, a, _| num(a, 0) & 2 },
    Helper { name: "xen_hypercall_name", ret: ArgKind::Str, args: &[NUM], run: xen_hypercall_name },
    Helper {
        name: "scsi_trace_parse_cdb",
        ret: ArgKind::Str,
        args: &[ArgKind::Ptr, ArgKind::Ptr, NUM],
        run: scsi_trace_parse_cdb,
    },
    Helper { name: "__le16_to_cpup", ret: NUM, args: &[ArgKind::Ptr], run: le16_to_cpup },
    Helper { name: "__builtin_constant_p", ret: NUM, args: &[NUM], run: |_, _, _| 0 },
    Helper { name: "__builtin_bswap16", ret: NUM, args: &[NUM], run: swap16 },
    Helper { name: "__builtin_bswap32", ret: NUM, args: &[NUM], run: swap32 },
    Helper { name: "__builtin_bswap64", ret: NUM, args: &[NUM], run: swap64 },
    Helper { name: "__fswab16", ret: NUM, args: &[NUM], run: swap16 },
    Helper { name: "__fswab32", ret: NUM, args: &[NUM], run: swap32 },
    Helper { name: "__fswab64", ret: NUM, args: &[NUM], run: swap64 },
];

fn num(args: &[Arg<'_>], i: usize) -> u64 {
    args.get(i).map_or(0, |a| a.num())
}

fn swap16(_: &HelperCx<'_>, args: &[Arg<'_>], _: &mut Vec<u8>) -> u64 {
    u64::from((num(args, 0) as u16).swap_bytes())
}

fn swap32(_: &HelperCx<'_>, args: &[Arg<'_>], _: &mut Vec<u8>) -> u64 {
    u64::from((num(args, 0) as u32).swap_bytes())
}

fn swap64(_: &HelperCx<'_>, args: &[Arg<'_>], _: &mut Vec<u8>) -> u64 {
    num(args, 0).swap_bytes()
}

/// `major:minor` of a block device.
fn jbd2_dev_to_name(_: &HelperCx<'_>, args: &[Arg<'_>], out: &mut Vec<u8>) -> u64 {
    let dev = num(args, 0) as u32;
    dec(out, dev >> 20);
    out.push(b':');
    dec(out, dev & 0xf_ffff);
    0
}

/// The 16-bit number that a pointer into the record points to.
fn le16_to_cpup(_: &HelperCx<'_>, args: &[Arg<'_>], _: &mut Vec<u8>) -> u64 {
    let bytes = args.first().map_or(&[][..], |a| a.bytes());
    bytes.first_chunk().map_or(0, |b| u64::from(u16::from_le_bytes(*b)))
}

/// Xen's hypercalls by number. Source: include/xen/interface/xen.h of the kernel (`__HYPERVISOR_*`).
const HYPERCALLS: [&str; 35] = [
    "set_trap_table",
    "mmu_update",
    "set_gdt",
    "stack_switch",
    "set_callbacks",
    "fpu_taskswitch",
    "sched_op_compat",
    "dom0_op",
    "set_debugreg",
    "get_debugreg",
    "update_descriptor",
    "",
    "memory_op",
    "multicall",
    "update_va_mapping",
    "set_timer_op",
    "event_channel_op_compat",
    "xen_version",
    "console_io",
    "physdev_op_compat",
    "grant_table_op",
    "vm_assist",
    "update_va_mapping_otherdomain",
    "iret",
    "vcpu_op",
    "set_segment_base",
    "mmuext_op",
    "acm_op",
    "nmi_op",
    "sched_op",
    "callback_op",
    "xenoprof_op",
    "event_channel_op",
    "physdev_op",
    "hvm_op",
];

/// `(name)` of a hypercall, nothing for an unknown one.
fn xen_hypercall_name(_: &HelperCx<'_>, args: &[Arg<'_>], out: &mut Vec<u8>) -> u64 {
    let op = num(args, 0);
    match HYPERCALLS.get(op as usize) {
        Some(name) if !name.is_empty() => {
            let _ = write!(out, "({name})");
        }
        _ if (48..56).contains(&op) => {
            let _ = write!(out, "(arch_{})", op - 48);
        }
        _ => {}
    }
    0
}

/// A SCSI command block with the fields of its operation. Bytes that are missing count as 0.
///
/// As in the reference a 32-bit number whose top bit is set fills the upper half with ones.
fn scsi_trace_parse_cdb(_: &HelperCx<'_>, args: &[Arg<'_>], out: &mut Vec<u8>) -> u64 {
    let cdb = args.get(1).map_or(&[][..], |a| a.bytes());
    let byte = |i: usize| u64::from(cdb.get(i).copied().unwrap_or(0));
    let be16 = |i: usize| byte(i) << 8 | byte(i + 1);
    let be32 = |i: usize| be16(i) << 16 | be16(i + 2);
    let signed = |i: usize| be32(i) as u32 as i32 as u64;
    let long = |i: usize| be32(i) << 32 | signed(i + 4);
    let protect = byte(1) >> 5;
    let unmap = byte(1) >> 3 & 1;
    let _ = match byte(0) {
        0x08 | 0x0a => {
            let lba = (byte(1) & 0x1f) << 16 | be16(2);
            write!(out, "lba={lba} txlen={}", byte(4))
        }
        0x28 | 0x2a | 0x2f => write!(out, "lba={} txlen={} protect={protect}", signed(2), be16(7)),
        0x41 => write!(out, "lba={} txlen={} protect={protect} unmap={unmap}", signed(2), be16(7)),
        0x42 => write!(out, "regions={}", (be16(7) as u32).wrapping_sub(8) / 16),
        0xa8 | 0xaa | 0xaf => write!(out, "lba={} txlen={} protect={protect}", signed(2), signed(6)),
        0x88 | 0x8a | 0x8f => write!(out, "lba={} txlen={} protect={protect}", long(2), signed(10)),
        0x93 => write!(out, "lba={} txlen={} protect={protect} unmap={unmap}", long(2), signed(10)),
        0x9e => match byte(1) & 0x1f {
            0x10 => write!(out, "READ_CAPACITY_16 lba={} alloc_len={}", long(2), be32(10)),
            0x12 => write!(out, "GET_LBA_STATUS lba={} alloc_len={}", long(2), be32(10)),
            _ => write!(out, "UNKNOWN"),
        },
        0x7f => {
            let name = match be16(8) {
                9 => "READ",
                0xa => "VERIFY",
                0xb => "WRITE",
                0xd => "WRITE_SAME",
                _ => "",
            };
            if name.is_empty() {
                write!(out, "-")
            } else {
                let (lba, txlen, lbrt) = (long(12), signed(28), be32(20));
                let _ = write!(out, "{name}_32 lba={lba} txlen={txlen} protect={} ei_lbrt={lbrt}", byte(10) >> 5);
                if name == "WRITE_SAME" { write!(out, " unmap={}", byte(10) >> 3 & 1) } else { Ok(()) }
            }
        }
        _ => write!(out, "-"),
    };
    0
}
