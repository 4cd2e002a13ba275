//! Selectors, segment and gate descriptors, TSS layouts. Source: Intel SDM vol. 3A §3.4, §5.8.3, §6.11, §7.2, §7.7.
//! Pure values: nothing here touches the CPU or memory.
use bitfield_struct::bitfield;

/// A segment selector, SDM vol. 3A §3.4.2.
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct Selector {
    /// Requested privilege level.
    #[bits(2)]
    pub rpl: u8,
    /// Table indicator: local descriptor table.
    pub ti: bool,
    /// Index of the descriptor.
    #[bits(13)]
    pub index: u16,
}
impl Selector {
    /// Refers to no segment: index 0 of the GDT, whatever its RPL.
    pub fn is_null(self) -> bool {
        self.into_bits() & 0xfffc == 0
    }
    /// The selector as it stands in an error code: RPL replaced by zeros (SDM vol. 3A §6.13).
    pub fn error(self) -> u32 {
        u32::from(self.into_bits() & 0xfffc)
    }
    /// Byte offset of the descriptor in its table.
    pub fn offset(self) -> u32 {
        u32::from(self.into_bits() & 0xfff8)
    }
}

/// A segment or system descriptor's low eight bytes, SDM vol. 3A §3.4.5.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Descriptor {
    /// Limit, bits 0–15.
    pub limit_low: u16,
    /// Base, bits 0–23.
    #[bits(24)]
    pub base_low: u32,
    /// Type, §3.4.5.1 (S = 1) and §3.5 (S = 0).
    #[bits(4)]
    pub kind: u8,
    /// Code or data segment; clear: a system descriptor.
    pub s: bool,
    /// Descriptor privilege level.
    #[bits(2)]
    pub dpl: u8,
    /// Present.
    pub p: bool,
    /// Limit, bits 16–19.
    #[bits(4)]
    pub limit_high: u8,
    /// Available to software.
    pub avl: bool,
    /// 64-bit code segment.
    pub l: bool,
    /// Default operation size, or size of the stack pointer.
    pub db: bool,
    /// The limit counts 4 KiB units.
    pub g: bool,
    /// Base, bits 24–31.
    pub base_high: u8,
}
impl Descriptor {
    /// Linear base address.
    pub fn base(self) -> u32 {
        self.base_low() | u32::from(self.base_high()) << 24
    }
    /// Limit in bytes, scaled by granularity.
    pub fn limit(self) -> u32 {
        let raw = u32::from(self.limit_low()) | u32::from(self.limit_high()) << 16;
        if self.g() { raw << 12 | 0xfff } else { raw }
    }
    /// Bits 40–55 without the limit: the access rights as segment registers, LAR and SMRAM keep them.
    pub fn attr(self) -> Attr {
        Attr::from_bits((self.into_bits() >> 40) as u16 & 0xf0ff)
    }
}

/// Access rights of a loaded segment: descriptor bits 40–55 with the limit's bits (8–11) zero.
#[bitfield(u16)]
#[derive(PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Attr {
    /// Type.
    #[bits(4)]
    pub kind: u8,
    /// Code or data.
    pub s: bool,
    /// Privilege level.
    #[bits(2)]
    pub dpl: u8,
    /// Present.
    pub p: bool,
    #[bits(4)]
    _limit: u8,
    /// Available to software.
    pub avl: bool,
    /// 64-bit code.
    pub l: bool,
    /// 32-bit code or stack.
    pub db: bool,
    /// The limit counted 4 KiB units.
    pub g: bool,
}
impl Attr {
    /// Code segment.
    pub fn code(self) -> bool {
        self.s() && self.kind() & 8 != 0
    }
    /// Data segment.
    pub fn data(self) -> bool {
        self.s() && self.kind() & 8 == 0
    }
    /// Conforming code segment.
    pub fn conforming(self) -> bool {
        self.s() && self.kind() & 0xc == 0xc
    }
    /// Data may be written.
    pub fn writable(self) -> bool {
        self.s() && self.kind() & 0xa == 2
    }
    /// Data, or code that may be read.
    pub fn readable(self) -> bool {
        self.s() && (self.kind() & 8 == 0 || self.kind() & 2 != 0)
    }
    /// Data segment that grows down: valid offsets are above the limit.
    pub fn expand_down(self) -> bool {
        self.s() && self.kind() & 0xc == 4
    }
    /// Real mode and virtual-8086 data: present, writable, accessed, DPL as given.
    pub fn real(dpl: u8) -> Attr {
        Attr::new().with_kind(3).with_s(true).with_p(true).with_dpl(dpl)
    }
}

/// The system descriptor types, SDM vol. 3A table 3-2.
pub mod system {
    /// Available 16-bit TSS.
    pub const TSS16: u8 = 1;
    /// Local descriptor table.
    pub const LDT: u8 = 2;
    /// Busy 16-bit TSS.
    pub const TSS16_BUSY: u8 = 3;
    /// 16-bit call gate.
    pub const CALL16: u8 = 4;
    /// Task gate.
    pub const TASK: u8 = 5;
    /// 16-bit interrupt gate.
    pub const INT16: u8 = 6;
    /// 16-bit trap gate.
    pub const TRAP16: u8 = 7;
    /// Available 32- or 64-bit TSS.
    pub const TSS32: u8 = 9;
    /// Busy 32- or 64-bit TSS.
    pub const TSS32_BUSY: u8 = 11;
    /// 32- or 64-bit call gate.
    pub const CALL32: u8 = 12;
    /// 32- or 64-bit interrupt gate.
    pub const INT32: u8 = 14;
    /// 32- or 64-bit trap gate.
    pub const TRAP32: u8 = 15;
}

/// A gate's low eight bytes: call gate (SDM vol. 3A §5.8.3), IDT gate (§6.11, §6.14.1).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Gate {
    /// Entry point, bits 0–15.
    pub offset_low: u16,
    /// Selector of the code segment or TSS.
    pub selector: u16,
    /// Call gate: parameters to copy (five bits). 64-bit IDT gate: IST (three bits).
    pub count: u8,
    /// Type.
    #[bits(4)]
    pub kind: u8,
    /// Clear in every gate.
    pub s: bool,
    /// Privilege that software needs to use it.
    #[bits(2)]
    pub dpl: u8,
    /// Present.
    pub p: bool,
    /// Entry point, bits 16–31.
    pub offset_high: u16,
}
impl Gate {
    /// Entry point as far as the low eight bytes know it.
    pub fn offset(self) -> u32 {
        u32::from(self.offset_low()) | u32::from(self.offset_high()) << 16
    }
    /// Selector of the gate's target.
    pub fn target(self) -> Selector {
        Selector::from_bits(self.selector())
    }
}

/// Offsets in a 32-bit TSS, SDM vol. 3A figure 7-2.
#[expect(missing_docs, reason = "the manual's names")]
pub mod tss32 {
    pub const LINK: u64 = 0x00;
    /// ESP0; SS0 follows at +4, then the pairs of rings 1 and 2.
    pub const ESP0: u64 = 0x04;
    pub const CR3: u64 = 0x1c;
    pub const EIP: u64 = 0x20;
    pub const EFLAGS: u64 = 0x24;
    /// EAX ECX EDX EBX ESP EBP ESI EDI.
    pub const REGS: u64 = 0x28;
    /// ES CS SS DS FS GS, four bytes apart.
    pub const SEGS: u64 = 0x48;
    pub const LDT: u64 = 0x60;
    /// Bit 0: debug trap on a switch to this task.
    pub const TRAP: u64 = 0x64;
    pub const IOMAP: u64 = 0x66;
    /// Smallest limit a 32-bit TSS may have.
    pub const MIN_LIMIT: u32 = 0x67;
}
/// Offsets in a 16-bit TSS, SDM vol. 3A figure 7-10.
#[expect(missing_docs, reason = "the manual's names")]
pub mod tss16 {
    pub const LINK: u64 = 0x00;
    /// SP0; SS0 follows at +2.
    pub const SP0: u64 = 0x02;
    pub const IP: u64 = 0x0e;
    pub const FLAGS: u64 = 0x10;
    /// AX CX DX BX SP BP SI DI.
    pub const REGS: u64 = 0x12;
    /// ES CS SS DS, two bytes apart.
    pub const SEGS: u64 = 0x22;
    pub const LDT: u64 = 0x2a;
    /// Smallest limit a 16-bit TSS may have.
    pub const MIN_LIMIT: u32 = 0x2b;
}

/// Whether the `len` bytes at `offset` lie inside a segment of this limit and kind (SDM vol. 3A §5.3).
#[inline]
pub fn in_limit(attr: Attr, limit: u32, offset: u32, len: u32) -> bool {
    let Some(last) = offset.checked_add(len.wrapping_sub(1)) else { return false };
    if attr.expand_down() {
        let top = if attr.db() { u32::MAX } else { 0xffff };
        offset > limit && last <= top
    } else {
        last <= limit
    }
}

/// Bits 47–63 are all equal (4-level paging, SDM vol. 1 §3.3.7.1).
#[inline]
pub fn canonical(la: u64) -> bool {
    ((la as i64) << 16 >> 16) as u64 == la
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_code_descriptor() {
        let d = Descriptor::from_bits(0x00cf_9a00_0000_ffff);
        assert_eq!((d.base(), d.limit(), d.dpl(), d.p(), d.db(), d.l()), (0, 0xffff_ffff, 0, true, true, false));
        let a = d.attr();
        assert!(a.code() && a.readable() && !a.writable() && !a.conforming() && !a.expand_down());
        assert_eq!(a.into_bits(), 0xc09a);
    }
    #[test]
    fn scattered_base_and_byte_limit() {
        let d = Descriptor::from_bits(0xab41_f2cd_ef12_3456 & !(0xf << 48) | 1 << 48);
        assert_eq!(d.base(), 0xabcd_ef12);
        assert_eq!(d.limit(), 0x1_3456);
        assert_eq!(d.attr().dpl(), 3);
        assert!(d.attr().writable());
    }
    #[test]
    fn gate_fields() {
        let g = Gate::from_bits(0x1234_ee05_0008_5678);
        assert_eq!((g.offset(), g.selector(), g.count(), g.kind(), g.dpl(), g.p()), (0x1234_5678, 8, 5, 14, 3, true));
    }
    #[test]
    fn selector_fields() {
        let s = Selector::from_bits(0x2f);
        assert_eq!((s.rpl(), s.ti(), s.index(), s.offset(), s.error()), (3, true, 5, 0x28, 0x2c));
        assert!(Selector::from_bits(3).is_null());
        assert!(!Selector::from_bits(4).is_null());
    }
    #[test]
    fn limits_up_and_down() {
        let up = Attr::real(0);
        assert!(in_limit(up, 0xffff, 0xffff, 1));
        assert!(!in_limit(up, 0xffff, 0xffff, 2));
        assert!(!in_limit(up, u32::MAX, u32::MAX, 2));
        let down = Attr::real(0).with_kind(7);
        assert!(!in_limit(down, 0xfff, 0xfff, 1));
        assert!(in_limit(down, 0xfff, 0x1000, 4));
        assert!(!in_limit(down, 0xfff, 0xfffe, 4));
        assert!(in_limit(down.with_db(true), 0xfff, 0xfffe, 4));
        assert!(!in_limit(down.with_db(true), 0xfff, 0xffff_fffe, 4));
    }
    #[test]
    fn canonical_addresses() {
        assert!(canonical(0) && canonical(0x7fff_ffff_ffff) && canonical(0xffff_8000_0000_0000));
        assert!(!canonical(0x8000_0000_0000) && !canonical(0xffff_7fff_ffff_ffff));
    }
}
