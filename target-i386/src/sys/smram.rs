//! The two layouts of the SMM state save area, as offsets from SMBASE + 0x8000 and pure copies in and out of a page.
//! Sources: Intel SDM vol. 3C table 31-1 (32-bit map); AMD64 APM vol. 2 table 10-1 (64-bit map; the one used by CPUs
//! with long mode). Registers that neither table has (x87, SSE, DR0–3, CR2) are not saved by hardware.

/// Bytes of the save area: SMBASE + 0xfe00 … 0xffff.
pub const SIZE: usize = 0x200;
/// Offset of the save area from SMBASE.
pub const OFFSET: u64 = 0xfe00;
/// Revision identifier of the 32-bit map: SMBASE relocation.
pub const REVISION32: u32 = 0x0002_0000;
/// Revision identifier of the 64-bit map: SMBASE relocation.
pub const REVISION64: u32 = 0x0002_0064;

/// A segment or system-segment register in the save area.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the manual's names")]
pub struct SavedSegment {
    pub selector: u16,
    /// Descriptor bits 40–55, limit bits zero.
    pub attr: u16,
    pub limit: u32,
    pub base: u64,
}
/// Everything the save area holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the manual's names")]
pub struct Saved {
    /// RAX RCX RDX RBX RSP RBP RSI RDI R8–R15.
    pub regs: [u64; 16],
    pub rip: u64,
    pub rflags: u64,
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
    pub dr6: u64,
    pub dr7: u64,
    /// ES CS SS DS FS GS.
    pub segs: [SavedSegment; 6],
    pub ldtr: SavedSegment,
    pub tr: SavedSegment,
    pub gdt_base: u64,
    pub gdt_limit: u32,
    pub idt_base: u64,
    pub idt_limit: u32,
    pub smbase: u32,
    /// The CPU was halted; RSM halts it again if the handler leaves this set.
    pub auto_halt: bool,
}

/// The save area's bytes.
pub type Area = [u8; SIZE];

/// Little-endian access to the area at offsets written as in the tables (from SMBASE + 0x8000).
struct Map<'a>(&'a mut Area);
impl Map<'_> {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        let at = at - 0x7e00;
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
    fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        let at = at - 0x7e00;
        std::array::from_fn(|i| self.0[at + i])
    }
    fn put16(&mut self, at: usize, v: u16) {
        self.put(at, &v.to_le_bytes())
    }
    fn put32(&mut self, at: usize, v: u32) {
        self.put(at, &v.to_le_bytes())
    }
    fn put64(&mut self, at: usize, v: u64) {
        self.put(at, &v.to_le_bytes())
    }
    fn get16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.get(at))
    }
    fn get32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.get(at))
    }
    fn get64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.get(at))
    }
}

/// Offsets of the 64-bit map, AMD64 APM vol. 2 table 10-1.
mod at64 {
    /// ES CS SS DS FS GS, 16 bytes each.
    pub const SEGS: usize = 0x7e00;
    pub const GDTR: usize = 0x7e60;
    pub const LDTR: usize = 0x7e70;
    pub const IDTR: usize = 0x7e80;
    pub const TR: usize = 0x7e90;
    pub const IO_RESTART: usize = 0x7ec8;
    pub const AUTO_HALT: usize = 0x7ec9;
    pub const EFER: usize = 0x7ed0;
    pub const REVISION: usize = 0x7efc;
    pub const SMBASE: usize = 0x7f00;
    pub const CR4: usize = 0x7f48;
    pub const CR3: usize = 0x7f50;
    pub const CR0: usize = 0x7f58;
    pub const DR7: usize = 0x7f60;
    pub const DR6: usize = 0x7f68;
    pub const RFLAGS: usize = 0x7f70;
    pub const RIP: usize = 0x7f78;
    /// RAX; the others follow downwards, in encoding order.
    pub const RAX: usize = 0x7ff8;
}
/// Offsets of the 32-bit map, SDM vol. 3C table 31-1, with the descriptor caches where QEMU and KVM put them.
mod at32 {
    pub const SMBASE: usize = 0x7ef8;
    pub const REVISION: usize = 0x7efc;
    pub const IO_RESTART: usize = 0x7f00;
    pub const AUTO_HALT: usize = 0x7f02;
    pub const CR4: usize = 0x7f14;
    /// FS, GS and ... 12 bytes each: attributes, limit, base; then DS from here on.
    pub const SEGS_HIGH: usize = 0x7f2c;
    pub const IDT_LIMIT: usize = 0x7f54;
    pub const IDT_BASE: usize = 0x7f58;
    pub const TR_CACHE: usize = 0x7f5c;
    pub const GDT_LIMIT: usize = 0x7f70;
    pub const GDT_BASE: usize = 0x7f74;
    pub const LDT_CACHE: usize = 0x7f78;
    pub const SEGS_LOW: usize = 0x7f84;
    /// ES CS SS DS FS GS selectors, four bytes apart.
    pub const SELECTORS: usize = 0x7fa8;
    pub const LDTR: usize = 0x7fc0;
    pub const TR: usize = 0x7fc4;
    pub const DR7: usize = 0x7fc8;
    pub const DR6: usize = 0x7fcc;
    /// EAX; ECX EDX EBX ESP EBP ESI EDI follow upwards.
    pub const EAX: usize = 0x7fd0;
    pub const EIP: usize = 0x7ff0;
    pub const EFLAGS: usize = 0x7ff4;
    pub const CR3: usize = 0x7ff8;
    pub const CR0: usize = 0x7ffc;
}

/// Where segment register `n`'s descriptor cache is in the 32-bit map.
fn cache32(n: usize) -> usize {
    if n < 3 { at32::SEGS_LOW + n * 12 } else { at32::SEGS_HIGH + (n - 3) * 12 }
}

impl Saved {
    /// Writes the 64-bit map over `area`; bytes of no field stay.
    pub fn write64(&self, area: &mut Area) {
        let mut m = Map(area);
        let seg = |m: &mut Map, at, s: &SavedSegment| {
            m.put16(at, s.selector);
            m.put16(at + 2, s.attr);
            m.put32(at + 4, s.limit);
            m.put64(at + 8, s.base);
        };
        for (i, s) in self.segs.iter().enumerate() {
            seg(&mut m, at64::SEGS + i * 16, s);
        }
        seg(&mut m, at64::LDTR, &self.ldtr);
        seg(&mut m, at64::TR, &self.tr);
        m.put32(at64::GDTR + 4, self.gdt_limit);
        m.put64(at64::GDTR + 8, self.gdt_base);
        m.put32(at64::IDTR + 4, self.idt_limit);
        m.put64(at64::IDTR + 8, self.idt_base);
        m.put(at64::IO_RESTART, &[0]);
        m.put(at64::AUTO_HALT, &[u8::from(self.auto_halt)]);
        m.put64(at64::EFER, self.efer);
        m.put32(at64::REVISION, REVISION64);
        m.put32(at64::SMBASE, self.smbase);
        m.put64(at64::CR4, self.cr4);
        m.put64(at64::CR3, self.cr3);
        m.put64(at64::CR0, self.cr0);
        m.put64(at64::DR7, self.dr7);
        m.put64(at64::DR6, self.dr6);
        m.put64(at64::RFLAGS, self.rflags);
        m.put64(at64::RIP, self.rip);
        for (i, &r) in self.regs.iter().enumerate() {
            m.put64(at64::RAX - i * 8, r);
        }
    }
    /// Reads the 64-bit map.
    pub fn read64(area: &mut Area) -> Saved {
        let m = Map(area);
        let seg = |at| SavedSegment {
            selector: m.get16(at),
            attr: m.get16(at + 2),
            limit: m.get32(at + 4),
            base: m.get64(at + 8),
        };
        Saved {
            regs: std::array::from_fn(|i| m.get64(at64::RAX - i * 8)),
            rip: m.get64(at64::RIP),
            rflags: m.get64(at64::RFLAGS),
            cr0: m.get64(at64::CR0),
            cr3: m.get64(at64::CR3),
            cr4: m.get64(at64::CR4),
            efer: m.get64(at64::EFER),
            dr6: m.get64(at64::DR6),
            dr7: m.get64(at64::DR7),
            segs: std::array::from_fn(|i| seg(at64::SEGS + i * 16)),
            ldtr: seg(at64::LDTR),
            tr: seg(at64::TR),
            gdt_base: m.get64(at64::GDTR + 8),
            gdt_limit: m.get32(at64::GDTR + 4),
            idt_base: m.get64(at64::IDTR + 8),
            idt_limit: m.get32(at64::IDTR + 4),
            smbase: m.get32(at64::SMBASE),
            auto_halt: m.get::<1>(at64::AUTO_HALT)[0] & 1 != 0,
        }
    }
    /// Writes the 32-bit map over `area`; bytes of no field stay.
    pub fn write32(&self, area: &mut Area) {
        let mut m = Map(area);
        let cache = |m: &mut Map, at, s: &SavedSegment| {
            m.put32(at, s.attr.into());
            m.put32(at + 4, s.limit);
            m.put32(at + 8, s.base as u32);
        };
        for (i, s) in self.segs.iter().enumerate() {
            m.put32(at32::SELECTORS + i * 4, s.selector.into());
            cache(&mut m, cache32(i), s);
        }
        m.put32(at32::LDTR, self.ldtr.selector.into());
        m.put32(at32::TR, self.tr.selector.into());
        cache(&mut m, at32::LDT_CACHE, &self.ldtr);
        cache(&mut m, at32::TR_CACHE, &self.tr);
        m.put32(at32::GDT_LIMIT, self.gdt_limit);
        m.put32(at32::GDT_BASE, self.gdt_base as u32);
        m.put32(at32::IDT_LIMIT, self.idt_limit);
        m.put32(at32::IDT_BASE, self.idt_base as u32);
        m.put16(at32::IO_RESTART, 0);
        m.put16(at32::AUTO_HALT, self.auto_halt.into());
        m.put32(at32::REVISION, REVISION32);
        m.put32(at32::SMBASE, self.smbase);
        m.put32(at32::CR4, self.cr4 as u32);
        m.put32(at32::CR3, self.cr3 as u32);
        m.put32(at32::CR0, self.cr0 as u32);
        m.put32(at32::DR7, self.dr7 as u32);
        m.put32(at32::DR6, self.dr6 as u32);
        m.put32(at32::EFLAGS, self.rflags as u32);
        m.put32(at32::EIP, self.rip as u32);
        // EAX at 7fd0 up to EDI at 7fec.
        for (i, &r) in self.regs.iter().take(8).enumerate() {
            m.put32(at32::EAX + i * 4, r as u32);
        }
    }
    /// Reads the 32-bit map. EFER and R8–R15 are not in it: zero.
    pub fn read32(area: &mut Area) -> Saved {
        let m = Map(area);
        let seg = |sel, at| SavedSegment {
            selector: m.get32(sel) as u16,
            attr: m.get32(at) as u16,
            limit: m.get32(at + 4),
            base: m.get32(at + 8).into(),
        };
        Saved {
            regs: std::array::from_fn(|i| if i < 8 { m.get32(at32::EAX + i * 4).into() } else { 0 }),
            rip: m.get32(at32::EIP).into(),
            rflags: m.get32(at32::EFLAGS).into(),
            cr0: m.get32(at32::CR0).into(),
            cr3: m.get32(at32::CR3).into(),
            cr4: m.get32(at32::CR4).into(),
            efer: 0,
            dr6: m.get32(at32::DR6).into(),
            dr7: m.get32(at32::DR7).into(),
            segs: std::array::from_fn(|i| seg(at32::SELECTORS + i * 4, cache32(i))),
            ldtr: seg(at32::LDTR, at32::LDT_CACHE),
            tr: seg(at32::TR, at32::TR_CACHE),
            gdt_base: m.get32(at32::GDT_BASE).into(),
            gdt_limit: m.get32(at32::GDT_LIMIT),
            idt_base: m.get32(at32::IDT_BASE).into(),
            idt_limit: m.get32(at32::IDT_LIMIT),
            smbase: m.get32(at32::SMBASE),
            auto_halt: m.get16(at32::AUTO_HALT) & 1 != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A state in which every field is different.
    fn sample(wide: bool) -> Saved {
        let mut n = 0x0102_0304u64;
        let mut next = || {
            n = n.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            if wide { n } else { n >> 32 }
        };
        let mut seg =
            || SavedSegment { selector: next() as u16, attr: next() as u16, limit: next() as u32, base: next() };
        let segs = std::array::from_fn(|_| seg());
        let (ldtr, tr) = (seg(), seg());
        Saved {
            segs,
            ldtr,
            tr,
            regs: std::array::from_fn(|i| if wide || i < 8 { next() } else { 0 }),
            rip: next(),
            rflags: next(),
            cr0: next(),
            cr3: next(),
            cr4: next(),
            efer: if wide { next() } else { 0 },
            dr6: next(),
            dr7: next(),
            gdt_base: next(),
            gdt_limit: next() as u32,
            idt_base: next(),
            idt_limit: next() as u32,
            smbase: next() as u32,
            auto_halt: true,
        }
    }
    #[test]
    fn both_maps_round_trip() {
        let (s, mut a) = (sample(true), [0; SIZE]);
        s.write64(&mut a);
        assert_eq!(Saved::read64(&mut a), s);
        let (s, mut a) = (sample(false), [0; SIZE]);
        s.write32(&mut a);
        assert_eq!(Saved::read32(&mut a), s);
    }
    #[test]
    fn fields_are_where_firmware_looks() {
        let s = sample(true);
        let mut a = [0; SIZE];
        s.write64(&mut a);
        let at = |a: &Area, o: usize| u32::from_le_bytes(a[o - 0x7e00..][..4].try_into().unwrap());
        assert_eq!(at(&a, 0x7efc), 0x20064);
        assert_eq!(at(&a, 0x7f00), s.smbase);
        assert_eq!(at(&a, 0x7ff8), s.regs[0] as u32);
        assert_eq!(at(&a, 0x7fc0), s.regs[7] as u32);
        assert_eq!(at(&a, 0x7f80), s.regs[15] as u32);
        assert_eq!(at(&a, 0x7f78), s.rip as u32);
        let s = sample(false);
        let mut a = [0; SIZE];
        s.write32(&mut a);
        assert_eq!(at(&a, 0x7efc), 0x20000);
        assert_eq!(at(&a, 0x7ef8), s.smbase);
        assert_eq!(at(&a, 0x7fd0), s.regs[0] as u32);
        assert_eq!(at(&a, 0x7fec), s.regs[7] as u32);
        assert_eq!(at(&a, 0x7ff0), s.rip as u32);
        assert_eq!(at(&a, 0x7f98), s.segs[1].base as u32);
    }
}
