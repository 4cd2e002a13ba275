//! Control registers: MOV CR, LMSW, SMSW, CLTS, INVLPG, INVD, WBINVD. Source: Intel SDM vol. 3A §2.5, §4.4.1, §4.10.4,
//! §9.8.5; vol. 2, MOV—Move to/from Control Registers. Not modelled: PCID, protection keys, 5-level paging, CET.
use super::cpuid::Features;
use super::log;
use super::msr::efer;
use super::prelude::*;

/// CR0 bits.
pub mod cr0 {
    /// Protection enable.
    pub const PE: u64 = 1;
    /// Monitor coprocessor.
    pub const MP: u64 = 1 << 1;
    /// Emulation.
    pub const EM: u64 = 1 << 2;
    /// Task switched.
    pub const TS: u64 = 1 << 3;
    /// Extension type, always one.
    pub const ET: u64 = 1 << 4;
    /// Numeric error.
    pub const NE: u64 = 1 << 5;
    /// Write protect.
    pub const WP: u64 = 1 << 16;
    /// Alignment mask.
    pub const AM: u64 = 1 << 18;
    /// Not write-through.
    pub const NW: u64 = 1 << 29;
    /// Cache disable.
    pub const CD: u64 = 1 << 30;
    /// Paging.
    pub const PG: u64 = 1 << 31;
    /// Bits that can be set; the others are ignored (0–31) or #GP (32–63).
    pub const ALL: u64 = PE | MP | EM | TS | ET | NE | WP | AM | NW | CD | PG;
}
/// CR4 bits.
pub mod cr4 {
    /// Virtual-8086 mode extensions.
    pub const VME: u64 = 1;
    /// Protected-mode virtual interrupts.
    pub const PVI: u64 = 1 << 1;
    /// Time stamp disable.
    pub const TSD: u64 = 1 << 2;
    /// Debugging extensions.
    pub const DE: u64 = 1 << 3;
    /// Page size extensions.
    pub const PSE: u64 = 1 << 4;
    /// Physical address extension.
    pub const PAE: u64 = 1 << 5;
    /// Machine-check enable.
    pub const MCE: u64 = 1 << 6;
    /// Page global enable.
    pub const PGE: u64 = 1 << 7;
    /// Performance counter enable.
    pub const PCE: u64 = 1 << 8;
    /// FXSAVE and SSE are used by the operating system.
    pub const OSFXSR: u64 = 1 << 9;
    /// #XM is handled.
    pub const OSXMMEXCPT: u64 = 1 << 10;
    /// User-mode instruction prevention.
    pub const UMIP: u64 = 1 << 11;
    /// RDFSBASE and friends.
    pub const FSGSBASE: u64 = 1 << 16;
    /// XSAVE is used by the operating system.
    pub const OSXSAVE: u64 = 1 << 18;
    /// Supervisor-mode execution prevention.
    pub const SMEP: u64 = 1 << 20;
    /// Supervisor-mode access prevention.
    pub const SMAP: u64 = 1 << 21;
    /// A change of these flushes everything (§4.10.4.1).
    pub const FLUSH: u64 = PSE | PAE | PGE | SMEP | SMAP;
    /// A change of these, or of CR0.PG, CD, NW, loads the PDPTEs anew (§4.4.1).
    pub const PDPTE: u64 = PSE | PAE | PGE | SMEP;
}

/// CR4 bits that this CPU's CPUID lets the guest set.
pub fn cr4_allowed(cpuid: &Features) -> u64 {
    let table = [
        (cpuid.vme, cr4::VME | cr4::PVI),
        (cpuid.tsc, cr4::TSD),
        (cpuid.de, cr4::DE),
        (cpuid.pse, cr4::PSE),
        (cpuid.pae, cr4::PAE),
        (cpuid.mce, cr4::MCE),
        (cpuid.pge, cr4::PGE),
        // RDPMC exists from the Pentium with MMX on; the bit is always accepted.
        (true, cr4::PCE),
        (cpuid.fxsr, cr4::OSFXSR),
        (cpuid.sse, cr4::OSXMMEXCPT),
        (cpuid.umip, cr4::UMIP),
        (cpuid.fsgsbase, cr4::FSGSBASE),
        (cpuid.xsave, cr4::OSXSAVE),
        (cpuid.smep, cr4::SMEP),
        (cpuid.smap, cr4::SMAP),
    ];
    table.iter().filter(|(has, _)| *has).fold(0, |m, (_, bits)| m | bits)
}

/// MOV r, CRn.
pub fn read(c: &mut X86Cpu<'_>, n: u8) -> Result<u64, Exception> {
    c.require_cpl0()?;
    match n {
        0 => Ok(c.state.cr0),
        2 => Ok(c.state.cr2),
        3 => Ok(c.state.cr3),
        4 => Ok(c.state.cr4),
        8 => Ok(c.state.interrupts.as_ref().map_or(0, |i| i.tpr()).into()),
        _ => Err(Exception::ud()),
    }
}
/// MOV CRn, r.
pub fn write(c: &mut X86Cpu<'_>, n: u8, v: u64) -> Outcome {
    c.require_cpl0()?;
    match n {
        0 => write_cr0(c, v)?,
        2 => c.state.cr2 = v,
        3 => {
            // Bits above MAXPHYADDR are reserved in long mode; outside CR3 has 32 bits.
            if c.lma() && v & !c.state.cpuid.features.phys_mask != 0 {
                return Err(Exception::gp(0));
            }
            load_cr3(c, if c.code64() { v } else { v & 0xffff_ffff })?;
            return Ok(Rare::To(c.op.next_ip));
        }
        4 => write_cr4(c, v)?,
        8 => {
            if v > 15 {
                return Err(Exception::gp(0));
            }
            if let Some(i) = &c.state.interrupts {
                i.set_tpr(v as u8)
            }
            // A lower priority may let an interrupt through.
            c.ask_service();
        }
        _ => return Err(Exception::ud()),
    }
    Ok(c.resume())
}

/// The PDPTEs that PAE paging would use with this CR3. Reserved bits in a present one are #GP (§4.4.1).
fn pdptes(c: &mut X86Cpu<'_>, cr3: u64) -> Result<[u64; 4], Exception> {
    let table = cr3 & 0xffff_ffe0 & c.state.a20_mask;
    let mut p = [0; 4];
    for (i, e) in p.iter_mut().enumerate() {
        *e = c.phys_load(W::B8, table + i as u64 * 8);
        // P, PWT, PCD, AVL and the address; bits 1, 2, 5–8 and those above MAXPHYADDR are reserved.
        if *e & 1 != 0 && *e & (0x1e6 | !c.state.cpuid.features.phys_mask) != 0 {
            return Err(Exception::gp(0));
        }
    }
    Ok(p)
}
/// Whether these registers mean PAE paging outside IA-32e mode.
fn pae_paging(cr0: u64, cr4: u64, lma: bool) -> bool {
    cr0 & cr0::PG != 0 && cr4 & cr4::PAE != 0 && !lma
}

/// Takes the PDPTEs from memory as RSM does: bad ones are not looked at.
pub fn reload_pdptes(c: &mut X86Cpu<'_>) {
    if pae_paging(c.state.cr0, c.state.cr4, c.lma())
        && let Ok(p) = pdptes(c, c.state.cr3)
    {
        c.state.pdpte = p;
    }
}

/// Loads CR3, PDPTEs with it, and flushes what is not global.
pub fn load_cr3(c: &mut X86Cpu<'_>, v: u64) -> Result<(), Exception> {
    if pae_paging(c.state.cr0, c.state.cr4, c.lma()) {
        c.state.pdpte = pdptes(c, v)?;
    }
    c.state.cr3 = v;
    log::control("CR3", v);
    if c.state.cr0 & cr0::PG != 0 {
        c.flush_nonglobal();
    }
    Ok(())
}

/// Writes CR0 with every check of MOV CR0.
pub fn write_cr0(c: &mut X86Cpu<'_>, v: u64) -> Result<(), Exception> {
    let gp = Err(Exception::gp(0));
    let old = c.state.cr0;
    if v >> 32 != 0 || v & (cr0::PG | cr0::PE) == cr0::PG || v & (cr0::NW | cr0::CD) == cr0::NW {
        return gp;
    }
    let new = v & cr0::ALL | cr0::ET;
    let on = new & !old & cr0::PG != 0;
    let off = old & !new & cr0::PG != 0;
    let mut lma = c.lma();
    if on && c.state.efer & efer::LME != 0 {
        let cs = c.state.segs[CS].a();
        let tr16 = c.state.tr.a().p() && c.state.tr.a().kind() & 8 == 0;
        if c.state.cr4 & cr4::PAE == 0 || cs.l() || tr16 {
            return gp;
        }
        lma = true;
    }
    if off && lma {
        if c.code64() {
            return gp;
        }
        lma = false;
    }
    let cache = cr0::PG | cr0::CD | cr0::NW;
    if pae_paging(new, c.state.cr4, lma) && (old ^ new) & cache != 0 {
        c.state.pdpte = pdptes(c, c.state.cr3)?;
    }
    c.state.cr0 = new;
    log::control("CR0", new);
    let e = c.state.efer;
    c.state.efer = if lma { e | efer::LMA } else { e & !efer::LMA };
    if (old ^ new) & cr0::PE != 0 {
        // The level is 0 on both sides: real mode is ring 0, and the switch needs ring 0.
        c.set_cpl(0);
    }
    if (old ^ new) & (cr0::PG | cr0::WP | cr0::PE) != 0 {
        c.flush_tlb();
    }
    Ok(())
}
fn write_cr4(c: &mut X86Cpu<'_>, v: u64) -> Result<(), Exception> {
    let old = c.state.cr4;
    if v & !c.state.cpuid.features.cr4_allowed != 0 || c.lma() && v & cr4::PAE == 0 {
        return Err(Exception::gp(0));
    }
    if pae_paging(c.state.cr0, v, c.lma()) && (old ^ v) & cr4::PDPTE != 0 {
        c.state.pdpte = pdptes(c, c.state.cr3)?;
    }
    c.state.cr4 = v;
    log::control("CR4", v);
    if (old ^ v) & cr4::FLUSH != 0 {
        c.flush_tlb();
    }
    Ok(())
}

/// LMSW: PE can be set but not cleared.
pub fn lmsw(c: &mut X86Cpu<'_>, v: u16) -> Outcome {
    c.require_cpl0()?;
    let low = u64::from(v) & 0xf | c.state.cr0 & cr0::PE;
    write_cr0(c, c.state.cr0 & !0xf | low)?;
    Ok(c.resume())
}
/// SMSW.
pub fn smsw(c: &mut X86Cpu<'_>) -> Result<u64, Exception> {
    c.require_no_umip()?;
    Ok(c.state.cr0)
}
/// CLTS.
pub fn clts(c: &mut X86Cpu<'_>) -> Outcome {
    c.require_cpl0()?;
    c.state.cr0 &= !cr0::TS;
    Ok(c.resume())
}
/// INVLPG of a linear address. A non-canonical one is a no-op.
pub fn invlpg(c: &mut X86Cpu<'_>, la: u64) -> Outcome {
    c.require_cpl0()?;
    c.flush_page(c.linear(la));
    Ok(Rare::To(c.op.next_ip))
}
/// INVD and WBINVD: there are no caches to invalidate.
pub fn wbinvd(c: &mut X86Cpu<'_>) -> Outcome {
    c.require_cpl0()?;
    Ok(Rare::Next)
}
