//! HLT, RDTSC, RDTSCP, RDPMC, RDPID, MONITOR, MWAIT, SWAPGS, RDFSBASE and friends, XGETBV, XSETBV.
//! Source: Intel SDM vol. 2, the instructions; vol. 3B §18.17 (time stamp counter). MONITOR arms nothing: MWAIT returns at
//! once, which the manual allows (§9.10.4), so that no write is missed.
use super::desc::canonical;
use super::prelude::*;

/// HLT.
pub fn hlt(c: &mut X86Cpu<'_>) -> Outcome {
    c.require_cpl0()?;
    c.state.halted = true;
    // The instruction after STI: an interrupt that waited for it ends the halt at once.
    c.state.shadow = Shadow::No;
    c.poll();
    Ok(Rare::Halt(c.op.next_ip))
}
/// The time stamp counter as the guest sees it.
pub fn tsc(s: &mut State) -> u64 {
    s.ticks().wrapping_add(s.msrs.tsc_offset)
}
/// RDTSC; RDTSCP (`aux`) also gives IA32_TSC_AUX in ECX.
pub fn rdtsc(c: &mut X86Cpu<'_>, aux: bool) -> Outcome {
    let f = &c.state.cpuid.features;
    if !f.tsc || aux && !f.rdtscp {
        return Err(Exception::ud());
    }
    if c.state.cr4 & cr4::TSD != 0 && c.cpl() != 0 {
        return Err(Exception::gp(0));
    }
    let t = tsc(c.state);
    c.set_gpr(RAX, t & 0xffff_ffff);
    c.set_gpr(RDX, t >> 32);
    if aux {
        c.set_gpr(RCX, c.state.msrs.tsc_aux & 0xffff_ffff);
    }
    Ok(Rare::Next)
}
/// RDPMC: there are no counters, so every index is #GP.
pub fn rdpmc() -> Exception {
    Exception::gp(0)
}
/// RDPID.
pub fn rdpid(c: &mut X86Cpu<'_>) -> Result<u64, Exception> {
    if !c.state.cpuid.features.rdpid {
        return Err(Exception::ud());
    }
    Ok(c.state.msrs.tsc_aux & 0xffff_ffff)
}
/// #UD where MONITOR and MWAIT do not exist: without the feature, in user code.
pub fn may_monitor(c: &X86Cpu<'_>) -> Result<(), Exception> {
    if c.state.cpuid.features.monitor && c.cpl() == 0 { Ok(()) } else { Err(Exception::ud()) }
}
/// MONITOR at a linear address.
pub fn monitor(c: &mut X86Cpu<'_>, la: u64) -> Outcome {
    if c.gpr(RCX) & 0xffff_ffff != 0 {
        return Err(Exception::gp(0));
    }
    c.load(W::B1, la, Who::Current)?;
    Ok(Rare::Next)
}
/// MWAIT.
pub fn mwait(c: &mut X86Cpu<'_>) -> Outcome {
    may_monitor(c)?;
    if c.gpr(RCX) & 0xffff_ffff > 1 {
        return Err(Exception::gp(0));
    }
    Ok(Rare::To(c.op.next_ip))
}
/// SWAPGS.
pub fn swapgs(c: &mut X86Cpu<'_>) -> Outcome {
    if !c.code64() {
        return Err(Exception::ud());
    }
    c.require_cpl0()?;
    let old = c.state.segs[GS].base;
    let new = std::mem::replace(&mut c.state.msrs.kernel_gs_base, old);
    set_base(c, GS, new);
    Ok(Rare::Next)
}
/// Changes a segment base and its mirror: FS or GS in 64-bit mode.
pub(super) fn set_base(c: &mut X86Cpu<'_>, reg: usize, base: u64) {
    c.state.segs[reg].base = base;
    c.hot.regs[usize::from(SEG_BASE) + reg] = base;
}
fn require_fsgsbase(c: &X86Cpu<'_>) -> Result<(), Exception> {
    if c.code64() && c.state.cr4 & cr4::FSGSBASE != 0 { Ok(()) } else { Err(Exception::ud()) }
}
/// RDFSBASE and RDGSBASE.
pub fn read_base(c: &X86Cpu<'_>, reg: usize) -> Result<u64, Exception> {
    require_fsgsbase(c)?;
    Ok(c.state.segs[reg].base)
}
/// WRFSBASE and WRGSBASE of the low `w` of `v`.
pub fn write_base(c: &mut X86Cpu<'_>, reg: usize, w: W, v: u64) -> Outcome {
    require_fsgsbase(c)?;
    let v = v & w.mask();
    if !canonical(v) {
        return Err(Exception::gp(0));
    }
    set_base(c, reg, v);
    Ok(Rare::Next)
}
/// XGETBV.
pub fn xgetbv(c: &mut X86Cpu<'_>) -> Outcome {
    if c.state.cr4 & cr4::OSXSAVE == 0 {
        return Err(Exception::ud());
    }
    let v = match c.gpr(RCX) as u32 {
        0 => c.state.xcr0,
        // XINUSE: everything enabled may be in use.
        1 if c.state.cpuid.features.xgetbv1 => c.state.xcr0,
        _ => return Err(Exception::gp(0)),
    };
    c.set_gpr(RAX, v & 0xffff_ffff);
    c.set_gpr(RDX, v >> 32);
    Ok(Rare::Next)
}
/// XSETBV.
pub fn xsetbv(c: &mut X86Cpu<'_>) -> Outcome {
    if c.state.cr4 & cr4::OSXSAVE == 0 {
        return Err(Exception::ud());
    }
    c.require_cpl0()?;
    let v = c.gpr(RDX) << 32 | c.gpr(RAX) & 0xffff_ffff;
    let avx_without_sse = v & 6 == 4;
    if c.gpr(RCX) as u32 != 0 || v & 1 == 0 || avx_without_sse || v & !c.state.cpuid.features.xcr0_allowed != 0 {
        return Err(Exception::gp(0));
    }
    c.state.xcr0 = v;
    Ok(c.resume())
}
