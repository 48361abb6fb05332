//! Virtual machines: `kvm` and `kvmmmu` events.

use super::{
    EventPrinter, PrintCx,
    text::{Num, cant_find, dec, hex, hex0x, hex2, missing},
};
use crate::{Endian, format::Event};

/// Basic exit reasons of VMX (Intel), isa 1; the names of the kernel's EXIT_REASON_* (asm/vmx.h) where the reference knows them.
const VMX_EXITS: &[(u32, &str)] = &[
    (0x0, "EXCEPTION_NMI"),
    (0x1, "EXTERNAL_INTERRUPT"),
    (0x2, "TRIPLE_FAULT"),
    (0x7, "PENDING_INTERRUPT"),
    (0x8, "NMI_WINDOW"),
    (0x9, "TASK_SWITCH"),
    (0xa, "CPUID"),
    (0xc, "HLT"),
    (0xd, "INVD"),
    (0xe, "INVLPG"),
    (0xf, "RDPMC"),
    (0x10, "RDTSC"),
    (0x12, "VMCALL"),
    (0x13, "VMCLEAR"),
    (0x14, "VMLAUNCH"),
    (0x15, "VMPTRLD"),
    (0x16, "VMPTRST"),
    (0x17, "VMREAD"),
    (0x18, "VMRESUME"),
    (0x19, "VMWRITE"),
    (0x1a, "VMOFF"),
    (0x1b, "VMON"),
    (0x1c, "CR_ACCESS"),
    (0x1d, "DR_ACCESS"),
    (0x1e, "IO_INSTRUCTION"),
    (0x1f, "MSR_READ"),
    (0x20, "MSR_WRITE"),
    (0x24, "MWAIT_INSTRUCTION"),
    (0x27, "MONITOR_INSTRUCTION"),
    (0x28, "PAUSE_INSTRUCTION"),
    (0x29, "MCE_DURING_VMENTRY"),
    (0x2b, "TPR_BELOW_THRESHOLD"),
    (0x2c, "APIC_ACCESS"),
    (0x2d, "EOI_INDUCED"),
    (0x30, "EPT_VIOLATION"),
    (0x31, "EPT_MISCONFIG"),
    (0x32, "INVEPT"),
    (0x34, "PREEMPTION_TIMER"),
    (0x36, "WBINVD"),
    (0x37, "XSETBV"),
    (0x38, "APIC_WRITE"),
    (0x3a, "INVPCID"),
    (0x3e, "PML_FULL"),
    (0x3f, "XSAVES"),
    (0x40, "XRSTORS"),
];

/// Exit codes of SVM (AMD), isa 2; the names of the kernel's SVM_EXIT_* (asm/svm.h).
const SVM_EXITS: &[(u32, &str)] = &[
    (0x0, "EXIT_READ_CR0"),
    (0x3, "EXIT_READ_CR3"),
    (0x4, "EXIT_READ_CR4"),
    (0x8, "EXIT_READ_CR8"),
    (0x10, "EXIT_WRITE_CR0"),
    (0x13, "EXIT_WRITE_CR3"),
    (0x14, "EXIT_WRITE_CR4"),
    (0x18, "EXIT_WRITE_CR8"),
    (0x20, "EXIT_READ_DR0"),
    (0x21, "EXIT_READ_DR1"),
    (0x22, "EXIT_READ_DR2"),
    (0x23, "EXIT_READ_DR3"),
    (0x24, "EXIT_READ_DR4"),
    (0x25, "EXIT_READ_DR5"),
    (0x26, "EXIT_READ_DR6"),
    (0x27, "EXIT_READ_DR7"),
    (0x30, "EXIT_WRITE_DR0"),
    (0x31, "EXIT_WRITE_DR1"),
    (0x32, "EXIT_WRITE_DR2"),
    (0x33, "EXIT_WRITE_DR3"),
    (0x34, "EXIT_WRITE_DR4"),
    (0x35, "EXIT_WRITE_DR5"),
    (0x36, "EXIT_WRITE_DR6"),
    (0x37, "EXIT_WRITE_DR7"),
    (0x40, "EXIT_EXCP_DE"),
    (0x41, "EXIT_EXCP_DB"),
    (0x43, "EXIT_EXCP_BP"),
    (0x44, "EXIT_EXCP_OF"),
    (0x45, "EXIT_EXCP_BR"),
    (0x46, "EXIT_EXCP_UD"),
    (0x47, "EXIT_EXCP_NM"),
    (0x48, "EXIT_EXCP_DF"),
    (0x4a, "EXIT_EXCP_TS"),
    (0x4b, "EXIT_EXCP_NP"),
    (0x4c, "EXIT_EXCP_SS"),
    (0x4d, "EXIT_EXCP_GP"),
    (0x4e, "EXIT_EXCP_PF"),
    (0x50, "EXIT_EXCP_MF"),
    (0x51, "EXIT_EXCP_AC"),
    (0x52, "EXIT_EXCP_MC"),
    (0x53, "EXIT_EXCP_XF"),
    (0x60, "EXIT_INTR"),
    (0x61, "EXIT_NMI"),
    (0x62, "EXIT_SMI"),
    (0x63, "EXIT_INIT"),
    (0x64, "EXIT_VINTR"),
    (0x65, "EXIT_CR0_SEL_WRITE"),
    (0x66, "EXIT_IDTR_READ"),
    (0x67, "EXIT_GDTR_READ"),
    (0x68, "EXIT_LDTR_READ"),
    (0x69, "EXIT_TR_READ"),
    (0x6a, "EXIT_IDTR_WRITE"),
    (0x6b, "EXIT_GDTR_WRITE"),
    (0x6c, "EXIT_LDTR_WRITE"),
    (0x6d, "EXIT_TR_WRITE"),
    (0x6e, "EXIT_RDTSC"),
    (0x6f, "EXIT_RDPMC"),
    (0x70, "EXIT_PUSHF"),
    (0x71, "EXIT_POPF"),
    (0x72, "EXIT_CPUID"),
    (0x73, "EXIT_RSM"),
    (0x74, "EXIT_IRET"),
    (0x75, "EXIT_SWINT"),
    (0x76, "EXIT_INVD"),
    (0x77, "EXIT_PAUSE"),
    (0x78, "EXIT_HLT"),
    (0x79, "EXIT_INVLPG"),
    (0x7a, "EXIT_INVLPGA"),
    (0x7b, "EXIT_IOIO"),
    (0x7c, "EXIT_MSR"),
    (0x7d, "EXIT_TASK_SWITCH"),
    (0x7e, "EXIT_FERR_FREEZE"),
    (0x7f, "EXIT_SHUTDOWN"),
    (0x80, "EXIT_VMRUN"),
    (0x81, "EXIT_VMMCALL"),
    (0x82, "EXIT_VMLOAD"),
    (0x83, "EXIT_VMSAVE"),
    (0x84, "EXIT_STGI"),
    (0x85, "EXIT_CLGI"),
    (0x86, "EXIT_SKINIT"),
    (0x87, "EXIT_RDTSCP"),
    (0x88, "EXIT_ICEBP"),
    (0x89, "EXIT_WBINVD"),
    (0x8a, "EXIT_MONITOR"),
    (0x8b, "EXIT_MWAIT"),
    (0x8c, "EXIT_MWAIT_COND"),
    (0x8d, "EXIT_XSETBV"),
    (0x400, "EXIT_NPF"),
    (0x401, "EXIT_AVIC_INCOMPLETE_IPI"),
    (0x402, "EXIT_AVIC_UNACCELERATED_ACCESS"),
    (0xffffffff, "EXIT_ERR"),
];

/// Appends the name of an exit reason. Without an isa field it is VMX.
fn exit_reason(isa: Option<u32>, reason: u32, out: &mut Vec<u8>) {
    let table = match isa {
        None | Some(1) => VMX_EXITS,
        Some(2) => SVM_EXITS,
        Some(_) => return out.extend_from_slice(b"UNKNOWN-ISA"),
    };
    match table.binary_search_by_key(&reason, |e| e.0).ok().and_then(|i| table.get(i)) {
        Some((_, name)) => out.extend_from_slice(name.as_bytes()),
        None => {
            out.extend_from_slice(b"UNKNOWN (");
            dec(out, reason);
            out.push(b')');
        }
    }
}

/// Ends a line whose event lacks a needed field: a note, then the print fmt.
fn give_up(name: &str, cx: &PrintCx<'_>, out: &mut Vec<u8>) {
    missing(name, out);
    cx.dec.print_fmt(cx, out);
}

/// `kvm_exit`.
#[derive(Debug)]
pub(super) struct Exit {
    reason: Option<Num>,
    isa: Option<Num>,
    rip: Option<Num>,
    info: Option<(Num, Num)>,
}

impl Exit {
    pub(super) fn new(event: &Event) -> Self {
        let num = |name| Num::of(event, name);
        Exit {
            reason: num("exit_reason"),
            isa: num("isa"),
            rip: num("guest_rip"),
            info: num("info1").zip(num("info2")),
        }
    }
}

impl EventPrinter for Exit {
    fn print(&self, cx: &PrintCx<'_>, out: &mut Vec<u8>) {
        let get = |n: Num| n.get(cx.dec.endian(), cx.rec.data);
        let Some(reason) = self.reason else { return give_up("exit_reason", cx, out) };
        out.extend_from_slice(b"reason ");
        exit_reason(self.isa.map(|i| get(i) as u32), get(reason) as u32, out);
        let Some(rip) = self.rip else { return give_up("guest_rip", cx, out) };
        out.extend_from_slice(b" rip ");
        hex0x(out, get(rip));
        if let Some((a, b)) = self.info {
            out.extend_from_slice(b" info ");
            hex(out, get(a));
            out.push(b' ');
            hex(out, get(b));
        }
    }
}

/// `kvm_entry`.
#[derive(Debug)]
pub(super) struct Entry {
    vcpu: Option<Num>,
    rip: Option<Num>,
}

impl Entry {
    pub(super) fn new(event: &Event) -> Self {
        Entry { vcpu: Num::of(event, "vcpu_id"), rip: Num::of(event, "rip") }
    }
}

impl EventPrinter for Entry {
    fn print(&self, cx: &PrintCx<'_>, out: &mut Vec<u8>) {
        let get = |n: Num| n.get(cx.dec.endian(), cx.rec.data);
        match self.vcpu {
            Some(vcpu) => {
                out.extend_from_slice(b" vcpu ");
                dec(out, get(vcpu));
            }
            None => cant_find("vcpu_id", out),
        }
        let Some(rip) = self.rip else { return give_up("rip", cx, out) };
        out.extend_from_slice(b" rip ");
        hex0x(out, get(rip));
    }
}

/// `kvm_emulate_insn`: the bytes of the instruction.
#[derive(Debug)]
pub(super) struct EmulateInsn {
    fields: [(&'static str, Option<Num>); 6],
}

impl EmulateInsn {
    pub(super) fn new(event: &Event) -> Self {
        let fields = ["rip", "csbase", "len", "flags", "failed", "insn"].map(|name| (name, Num::of(event, name)));
        EmulateInsn { fields }
    }
}

impl EventPrinter for EmulateInsn {
    fn print(&self, cx: &PrintCx<'_>, out: &mut Vec<u8>) {
        let [Some(rip), Some(csbase), Some(len), Some(_), Some(failed), Some(insn)] = self.fields.map(|f| f.1) else {
            let name = self.fields.iter().find(|f| f.1.is_none()).map_or("", |f| f.0);
            return give_up(name, cx, out);
        };
        let get = |n: Num| n.get(cx.dec.endian(), cx.rec.data);
        hex(out, get(csbase));
        out.push(b':');
        hex(out, get(rip));
        out.extend_from_slice(b": ");
        let bytes = cx.reach.get(insn.offset..).unwrap_or_default();
        for (i, b) in bytes.iter().take(get(len) as u8 as usize).enumerate() {
            if i > 0 {
                out.push(b' ');
            }
            hex2(out, *b);
        }
        if get(failed) != 0 {
            out.extend_from_slice(b" FAIL");
        }
    }
}

/// `kvm_nested_vmexit` and `kvm_nested_vmexit_inject`.
#[derive(Debug)]
pub(super) struct NestedExit {
    /// `Some` for the event that shows the instruction pointer.
    rip: Option<Option<Num>>,
    code: Option<Num>,
    isa: Option<Num>,
    infos: [(&'static str, &'static str, Option<Num>); 4],
}

impl NestedExit {
    pub(super) fn new(event: &Event) -> Self {
        let num = |name| Num::of(event, name);
        let infos = [
            ("exit_info1", " info1 "),
            ("exit_info2", " info2 "),
            ("exit_int_info", " int_info "),
            ("exit_int_info_err", " int_info_err "),
        ];
        NestedExit {
            rip: (event.name == "kvm_nested_vmexit").then(|| num("rip")),
            code: num("exit_code"),
            isa: num("isa"),
            infos: infos.map(|(field, label)| (field, label, num(field))),
        }
    }
}

impl EventPrinter for NestedExit {
    fn print(&self, cx: &PrintCx<'_>, out: &mut Vec<u8>) {
        let get = |n: Num| n.get(cx.dec.endian(), cx.rec.data);
        if let Some(rip) = self.rip {
            let Some(rip) = rip else { return give_up("rip", cx, out) };
            out.extend_from_slice(b" rip ");
            hex(out, get(rip));
        }
        let Some(code) = self.code else { return give_up("exit_code", cx, out) };
        out.extend_from_slice(b"reason ");
        exit_reason(self.isa.map(|i| get(i) as u32), get(code) as u32, out);
        for (field, label, num) in self.infos {
            match num {
                Some(n) => {
                    out.extend_from_slice(label.as_bytes());
                    hex(out, get(n));
                }
                None => cant_find(field, out),
            }
        }
    }
}

/// Events about a page of the shadow page table.
#[derive(Debug)]
pub(super) struct MmuPage {
    /// `Some` for `kvm_mmu_get_page`: whether the page is new, and its frame number.
    created: Option<(Option<Num>, Option<Num>)>,
    role: Option<Num>,
    root_count: Option<Num>,
    unsync: Option<Num>,
}

impl MmuPage {
    pub(super) fn new(event: &Event) -> Self {
        let num = |name| Num::of(event, name);
        MmuPage {
            created: (event.name == "kvm_mmu_get_page").then(|| (num("created"), num("gfn"))),
            role: num("role"),
            root_count: num("root_count"),
            unsync: num("unsync"),
        }
    }
}

/// Appends the bits of `union kvm_mmu_page_role` as x86 lays them out; a word of another byte order as it is.
fn print_role(endian: Endian, role: u32, out: &mut Vec<u8>) {
    if endian == Endian::Big {
        out.extend_from_slice(format!("WORD: {role:08x}").as_bytes());
        return;
    }
    let bit = |n: u32| role >> n & 1 != 0;
    dec(out, role & 15);
    out.extend_from_slice(b" q");
    dec(out, role >> 5 & 3);
    if bit(7) {
        out.extend_from_slice(b" direct");
    }
    let access = [(9, b'w'), (10, b'u'), (8, b'x')].map(|(n, c)| if bit(n) { c } else { b'-' });
    out.push(b' ');
    out.extend_from_slice(&access);
    let mut word = |on: bool, text: &str| {
        if on {
            out.push(b' ');
            out.extend_from_slice(text.as_bytes());
        }
    };
    word(bit(11), "invalid");
    for (n, name) in [(4, "pae"), (12, "nxe"), (13, "wp")] {
        word(bit(n), name);
        if !bit(n) {
            word(true, ["!pae", "!nxe", "!wp"].into_iter().find(|w| w.ends_with(name)).unwrap_or_default());
        }
    }
    word(bit(14), "smep");
    word(bit(15), "smap");
    word(role >> 24 != 0, "smm");
}

impl EventPrinter for MmuPage {
    fn print(&self, cx: &PrintCx<'_>, out: &mut Vec<u8>) {
        let get = |n: Num| n.get(cx.dec.endian(), cx.rec.data);
        if let Some((created, gfn)) = self.created {
            let Some(created) = created else { return give_up("created", cx, out) };
            out.extend_from_slice(if get(created) != 0 { b"new " } else { b"existing " });
            let Some(gfn) = gfn else { return give_up("gfn", cx, out) };
            out.extend_from_slice(b"sp gfn ");
            hex(out, get(gfn));
            out.push(b' ');
        }
        let Some(role) = self.role else { return give_up("role", cx, out) };
        print_role(cx.dec.endian(), get(role) as u32, out);
        match self.root_count {
            Some(n) => {
                out.extend_from_slice(b" root ");
                dec(out, get(n));
                out.push(b' ');
            }
            None => cant_find("root_count", out),
        }
        let Some(unsync) = self.unsync else { return give_up("unsync", cx, out) };
        out.extend_from_slice(if get(unsync) != 0 { b"unsync" } else { b"sync" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons() {
        for (isa, reason, want) in [
            (None, 1, "EXTERNAL_INTERRUPT"),
            (Some(1), 0x40, "XRSTORS"),
            (Some(1), 77, "UNKNOWN (77)"),
            (Some(2), 0x400, "EXIT_NPF"),
            (Some(2), u32::MAX, "EXIT_ERR"),
            (Some(3), 1, "UNKNOWN-ISA"),
        ] {
            let mut out = Vec::new();
            exit_reason(isa, reason, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
        assert!(VMX_EXITS.is_sorted_by_key(|e| e.0) && SVM_EXITS.is_sorted_by_key(|e| e.0));
    }

    #[test]
    fn roles() {
        let text = |role| {
            let mut out = Vec::new();
            print_role(Endian::Little, role, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(0), "0 q0 --- !pae !nxe !wp");
        assert_eq!(text(u32::MAX), "15 q3 direct wux invalid pae nxe wp smep smap smm");
        assert_eq!(text(1 << 8), "0 q0 --x !pae !nxe !wp");
    }
}
