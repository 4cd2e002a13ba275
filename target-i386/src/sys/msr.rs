//! RDMSR and WRMSR. Source: Intel SDM vol. 4 chapter 2; AMD64 APM vol. 2 appendix A. An MSR that does not exist, or a value
//! with reserved bits, is #GP(0) and a line at debug level (target `guest_errors`).
//!
//! Not modelled: performance counters, last-branch records, speculation controls, IA32_FEATURE_CONTROL (neither VMX, SGX
//! nor local machine checks are reported, so it does not exist), IA32_TSC_ADJUST (not reported).
use super::cpuid::{Features, Vendor};
use super::desc::canonical;
use super::prelude::*;

/// IA32_EFER.
pub mod efer {
    /// SYSCALL enable.
    pub const SCE: u64 = 1;
    /// Long mode enable.
    pub const LME: u64 = 1 << 8;
    /// Long mode active, read-only.
    pub const LMA: u64 = 1 << 10;
    /// Execute-disable enable.
    pub const NXE: u64 = 1 << 11;
    /// Fast FXSAVE (AMD).
    pub const FFXSR: u64 = 1 << 14;
    /// The bits that this CPU's CPUID lets the guest set.
    pub fn allowed(f: &super::Features) -> u64 {
        [(f.syscall, SCE), (f.lm, LME), (f.nx, NXE), (f.ffxsr, FFXSR)]
            .iter()
            .filter(|(has, _)| *has)
            .fold(0, |m, (_, b)| m | b)
    }
}
/// MSR numbers.
#[expect(missing_docs, reason = "the manual's names")]
pub mod index {
    pub const P5_MC_ADDR: u32 = 0x0;
    pub const P5_MC_TYPE: u32 = 0x1;
    pub const TSC: u32 = 0x10;
    pub const PLATFORM_ID: u32 = 0x17;
    pub const APIC_BASE: u32 = 0x1b;
    pub const EBL_CR_POWERON: u32 = 0x2a;
    pub const SMI_COUNT: u32 = 0x34;
    pub const BIOS_UPDT_TRIG: u32 = 0x79;
    pub const BIOS_SIGN_ID: u32 = 0x8b;
    pub const SMBASE: u32 = 0x9e;
    pub const MTRRCAP: u32 = 0xfe;
    pub const SYSENTER_CS: u32 = 0x174;
    pub const SYSENTER_ESP: u32 = 0x175;
    pub const SYSENTER_EIP: u32 = 0x176;
    pub const MCG_CAP: u32 = 0x179;
    pub const MCG_STATUS: u32 = 0x17a;
    pub const MCG_CTL: u32 = 0x17b;
    pub const PERF_STATUS: u32 = 0x198;
    pub const MISC_ENABLE: u32 = 0x1a0;
    pub const DEBUGCTL: u32 = 0x1d9;
    /// Base and mask of variable range 0; 16 registers.
    pub const MTRR_PHYSBASE0: u32 = 0x200;
    pub const MTRR_PHYSMASK7: u32 = 0x20f;
    pub const MTRR_FIX64K: u32 = 0x250;
    pub const MTRR_FIX16K_8: u32 = 0x258;
    pub const MTRR_FIX16K_A: u32 = 0x259;
    pub const MTRR_FIX4K_C0: u32 = 0x268;
    pub const MTRR_FIX4K_F8: u32 = 0x26f;
    pub const PAT: u32 = 0x277;
    pub const MTRR_DEF_TYPE: u32 = 0x2ff;
    /// CTL, STATUS, ADDR, MISC of bank 0, four each.
    pub const MC0_CTL: u32 = 0x400;
    pub const TSC_DEADLINE: u32 = 0x6e0;
    pub const X2APIC_FIRST: u32 = 0x800;
    pub const X2APIC_LAST: u32 = 0x8ff;
    pub const EFER: u32 = 0xc000_0080;
    pub const STAR: u32 = 0xc000_0081;
    pub const LSTAR: u32 = 0xc000_0082;
    pub const CSTAR: u32 = 0xc000_0083;
    pub const FMASK: u32 = 0xc000_0084;
    pub const FS_BASE: u32 = 0xc000_0100;
    pub const GS_BASE: u32 = 0xc000_0101;
    pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
    pub const TSC_AUX: u32 = 0xc000_0103;
    pub const AMD_SYSCFG: u32 = 0xc001_0010;
    pub const AMD_HWCR: u32 = 0xc001_0015;
    pub const AMD_NB_CFG: u32 = 0xc001_001f;
    pub const AMD_INT_PENDING: u32 = 0xc001_0055;
    pub const AMD_TSEG_ADDR: u32 = 0xc001_0112;
    pub const AMD_TSEG_MASK: u32 = 0xc001_0113;
    pub const AMD_DC_CFG: u32 = 0xc001_1022;
    pub const AMD_BU_CFG2: u32 = 0xc001_102a;
}
use index::*;

/// Machine-check banks, as many as MCG_CAP says.
pub const MC_BANKS: usize = 10;
/// MCG_CAP: ten banks, MCG_CTL present, software error recovery.
pub const MCG_CAP_VALUE: u64 = MC_BANKS as u64 | 1 << 8 | 1 << 24;
/// MTRRCAP: eight variable ranges, fixed ranges, write combining.
pub const MTRRCAP_VALUE: u64 = 8 | 1 << 8 | 1 << 10;

/// Index of a fixed-range MTRR.
fn fixed(msr: u32) -> Option<usize> {
    match msr {
        MTRR_FIX64K => Some(0),
        MTRR_FIX16K_8..=MTRR_FIX16K_A => Some((msr - MTRR_FIX16K_8) as usize + 1),
        MTRR_FIX4K_C0..=MTRR_FIX4K_F8 => Some((msr - MTRR_FIX4K_C0) as usize + 3),
        _ => None,
    }
}
/// Range and register (base, mask) of a variable-range MTRR.
fn variable(msr: u32) -> Option<(usize, usize)> {
    let n = msr.checked_sub(MTRR_PHYSBASE0)? as usize;
    Some((n / 2, n % 2))
}
/// Bank and register of a machine-check MSR.
fn bank(msr: u32) -> Option<(usize, usize)> {
    let n = msr.checked_sub(MC0_CTL)? as usize;
    (n / 4 < MC_BANKS).then_some((n / 4, n % 4))
}
/// AMD configuration registers that guests look at: nothing in them applies here, so they read as zeros.
fn amd_config(msr: u32) -> bool {
    matches!(
        msr,
        AMD_SYSCFG | AMD_HWCR | AMD_NB_CFG | AMD_INT_PENDING | AMD_TSEG_ADDR | AMD_TSEG_MASK | AMD_DC_CFG | AMD_BU_CFG2
    )
}
/// Memory types of the MTRRs: UC WC WT WP WB; the PAT also has UC-.
fn memory_types(v: u64, pat: bool) -> bool {
    v.to_le_bytes().iter().all(|t| matches!(t, 0 | 1 | 4..=6) || pat && *t == 7)
}

fn require_msr(c: &X86Cpu<'_>) -> Result<(), Exception> {
    if c.state.cpuid.features.msr { Ok(()) } else { Err(Exception::ud()) }
}
/// RDMSR.
pub fn rdmsr(c: &mut X86Cpu<'_>) -> Outcome {
    require_msr(c)?;
    c.require_cpl0()?;
    let msr = c.gpr(RCX) as u32;
    match read(c, msr) {
        Some(v) => {
            c.set_gpr(RAX, v & 0xffff_ffff);
            c.set_gpr(RDX, v >> 32);
            Ok(Rare::Next)
        }
        None => {
            tracing::debug!(target: "guest_errors", msr = format_args!("{msr:#x}"), "RDMSR of a register that does not exist");
            Err(Exception::gp(0))
        }
    }
}
/// WRMSR.
pub fn wrmsr(c: &mut X86Cpu<'_>) -> Outcome {
    require_msr(c)?;
    c.require_cpl0()?;
    let msr = c.gpr(RCX) as u32;
    let v = c.gpr(RDX) << 32 | c.gpr(RAX) & 0xffff_ffff;
    match write(c, msr, v) {
        Some(()) => Ok(c.resume()),
        None => {
            tracing::debug!(target: "guest_errors", msr = format_args!("{msr:#x}"), value = format_args!("{v:#x}"), "WRMSR refused");
            Err(Exception::gp(0))
        }
    }
}

/// An MSR's value; `None` if there is none of this number.
pub fn read(c: &mut X86Cpu<'_>, msr: u32) -> Option<u64> {
    let tsc = if msr == TSC { super::misc::tsc(c.state) } else { 0 };
    let s = &*c.state;
    let f = &s.cpuid.features;
    let m = &s.msrs;
    let apic = s.interrupts.as_ref();
    Some(match msr {
        P5_MC_ADDR | P5_MC_TYPE => 0,
        TSC => tsc,
        PLATFORM_ID | EBL_CR_POWERON if f.vendor != Vendor::Amd => 0,
        APIC_BASE if f.apic => apic?.base(),
        SMI_COUNT => m.smi_count,
        BIOS_SIGN_ID => m.ucode_rev,
        SMBASE if s.smm => s.smbase,
        MTRRCAP if f.mtrr => MTRRCAP_VALUE,
        SYSENTER_CS if f.sep => m.sysenter_cs,
        SYSENTER_ESP if f.sep => m.sysenter_esp,
        SYSENTER_EIP if f.sep => m.sysenter_eip,
        MCG_CAP if f.mca => MCG_CAP_VALUE,
        MCG_STATUS if f.mca => m.mcg_status,
        MCG_CTL if f.mca => m.mcg_ctl,
        // Base ratio 4 at a thousand ticks: the constant that QEMU's TCG reports.
        PERF_STATUS => 1000 | 4 << 40,
        MISC_ENABLE => m.misc_enable,
        DEBUGCTL => 0,
        MTRR_PHYSBASE0..=MTRR_PHYSMASK7 if f.mtrr => {
            variable(msr).and_then(|(n, r)| m.mtrr_var.get(n)?.get(r)).copied()?
        }
        PAT if f.pat => m.pat,
        MTRR_DEF_TYPE if f.mtrr => m.mtrr_def_type,
        TSC_DEADLINE if f.tsc_deadline => apic?.read_msr(msr)?,
        X2APIC_FIRST..=X2APIC_LAST if f.x2apic => apic?.read_msr(msr)?,
        EFER if f.efer_allowed != 0 => s.efer,
        STAR if f.syscall => m.star,
        LSTAR if f.lm => m.lstar,
        CSTAR if f.lm => m.cstar,
        FMASK if f.lm => m.fmask,
        FS_BASE if f.lm => s.segs[FS].base,
        GS_BASE if f.lm => s.segs[GS].base,
        KERNEL_GS_BASE if f.lm => m.kernel_gs_base,
        TSC_AUX if f.rdtscp => m.tsc_aux,
        _ if f.vendor == Vendor::Amd && amd_config(msr) => 0,
        _ => {
            if let Some(i) = fixed(msr)
                && f.mtrr
            {
                *m.mtrr_fixed.get(i)?
            } else if let Some((b, r)) = bank(msr)
                && f.mca
            {
                *m.mc_banks.get(b)?.get(r)?
            } else {
                return None;
            }
        }
    })
}

/// Writes an MSR; `None`: it does not exist, is read-only, or refuses the value.
pub fn write(c: &mut X86Cpu<'_>, msr: u32, v: u64) -> Option<()> {
    let table = c.state.cpuid.clone();
    let f = &table.features;
    let phys = f.phys_mask;
    // Addresses must be canonical where there is long mode; without it the registers have 32 bits.
    let address = |v: u64| if f.lm { canonical(v).then_some(v) } else { Some(v & 0xffff_ffff) };
    let when = |ok: bool| ok.then_some(());
    match msr {
        P5_MC_ADDR | P5_MC_TYPE => {}
        TSC => {
            let now = c.state.ticks();
            c.state.msrs.tsc_offset = v.wrapping_sub(now);
        }
        EBL_CR_POWERON if f.vendor != Vendor::Amd => {}
        APIC_BASE if f.apic => {
            // Bits 0–7 and 9 and those above MAXPHYADDR are reserved; x2APIC mode needs the feature and bit 11 (§10.12.5).
            when(v & (0x2ff | !(phys | 0xfff)) == 0)?;
            when(v & 1 << 10 == 0 || f.x2apic && v & 1 << 11 != 0)?;
            when(c.state.interrupts.as_ref()?.set_base(v))?;
            c.flush_tlb();
        }
        // Microcode updates are accepted and change nothing; the revision is refreshed by CPUID.
        BIOS_UPDT_TRIG | BIOS_SIGN_ID => {}
        SYSENTER_CS if f.sep => c.state.msrs.sysenter_cs = v & 0xffff_ffff,
        SYSENTER_ESP if f.sep => c.state.msrs.sysenter_esp = address(v)?,
        SYSENTER_EIP if f.sep => c.state.msrs.sysenter_eip = address(v)?,
        MCG_STATUS if f.mca => c.state.msrs.mcg_status = v,
        MCG_CTL if f.mca => {
            when(v == 0 || v == u64::MAX)?;
            c.state.msrs.mcg_ctl = v;
        }
        MISC_ENABLE => c.state.msrs.misc_enable = v,
        // No branch records, no single step on branches.
        DEBUGCTL => when(v == 0)?,
        MTRR_PHYSBASE0..=MTRR_PHYSMASK7 if f.mtrr => {
            let mask = msr & 1 != 0;
            when(if mask {
                v & !(phys & !0xfff | 1 << 11) == 0
            } else {
                v & !(phys & !0xfff | 0xff) == 0 && memory_types(v & 0xff, false)
            })?;
            let (n, r) = variable(msr)?;
            *c.state.msrs.mtrr_var.get_mut(n)?.get_mut(r)? = v;
        }
        MTRR_DEF_TYPE if f.mtrr => {
            when(v & !0xcff == 0 && memory_types(v & 0xff, false))?;
            c.state.msrs.mtrr_def_type = v;
        }
        PAT if f.pat => {
            when(memory_types(v, true))?;
            c.state.msrs.pat = v;
        }
        TSC_DEADLINE if f.tsc_deadline => {
            let ticks = v.wrapping_sub(c.state.msrs.tsc_offset);
            c.state.interrupts.as_ref()?.set_deadline(v, ticks);
        }
        X2APIC_FIRST..=X2APIC_LAST if f.x2apic => {
            when(c.state.interrupts.as_ref()?.write_msr(msr, v))?;
            // A self-IPI or a lower task priority may have let an interrupt through.
            c.ask_service();
        }
        EFER if f.efer_allowed != 0 => return write_efer(c, v),
        STAR if f.syscall => c.state.msrs.star = v,
        LSTAR if f.lm => c.state.msrs.lstar = address(v)?,
        CSTAR if f.lm => c.state.msrs.cstar = address(v)?,
        FMASK if f.lm => {
            when(v >> 32 == 0)?;
            c.state.msrs.fmask = v;
        }
        FS_BASE | GS_BASE if f.lm => {
            let base = address(v)?;
            super::misc::set_base(c, if msr == FS_BASE { FS } else { GS }, base);
        }
        KERNEL_GS_BASE if f.lm => c.state.msrs.kernel_gs_base = address(v)?,
        TSC_AUX if f.rdtscp => {
            when(v >> 32 == 0)?;
            c.state.msrs.tsc_aux = v;
        }
        _ if f.vendor == Vendor::Amd && amd_config(msr) => {}
        _ => {
            if let Some(i) = fixed(msr)
                && f.mtrr
            {
                when(memory_types(v, false))?;
                *c.state.msrs.mtrr_fixed.get_mut(i)? = v;
            } else if let Some((b, r)) = bank(msr)
                && f.mca
            {
                // Software may only clear STATUS, ADDR and MISC.
                when(r == 0 || v == 0)?;
                *c.state.msrs.mc_banks.get_mut(b)?.get_mut(r)? = v;
            } else {
                return None;
            }
        }
    }
    Some(())
}
fn write_efer(c: &mut X86Cpu<'_>, v: u64) -> Option<()> {
    let old = c.state.efer;
    let allowed = c.state.cpuid.features.efer_allowed;
    // LMA is the processor's own: what is written to it is ignored.
    let new = v & !efer::LMA | old & efer::LMA;
    if new & !(allowed | efer::LMA) != 0 {
        return None;
    }
    if (old ^ new) & efer::LME != 0 && c.state.cr0 & cr0::PG != 0 {
        return None;
    }
    c.state.efer = new;
    if (old ^ new) & efer::NXE != 0 {
        c.flush_tlb();
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn register_numbers() {
        assert_eq!(
            (fixed(0x250), fixed(0x258), fixed(0x259), fixed(0x268), fixed(0x26f)),
            (Some(0), Some(1), Some(2), Some(3), Some(10))
        );
        assert_eq!((fixed(0x251), fixed(0x267)), (None, None));
        assert_eq!((bank(0x400), bank(0x427), bank(0x428), bank(0x3ff)), (Some((0, 0)), Some((9, 3)), None, None));
    }
    #[test]
    fn types() {
        assert!(memory_types(0x0605_0401_0006_0504, false));
        assert!(!memory_types(7, false) && memory_types(0x0007_0406_0007_0406, true) && !memory_types(2, true));
    }
}
