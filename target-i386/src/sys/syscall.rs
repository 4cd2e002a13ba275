//! SYSCALL, SYSRET, SYSENTER, SYSEXIT. Source: Intel SDM vol. 2 and vol. 3A §5.8.7–5.8.8; AMD64 APM vol. 3 for the
//! legacy-mode forms and for SYSENTER in long mode, which depend on the reported vendor.
use super::cpuid::Vendor;
use super::desc::canonical;
use super::msr::efer;
use super::prelude::*;

/// A flat code segment as these instructions make it.
fn flat_code(sel: u16, dpl: u8, long: bool) -> Segment {
    let attr =
        Attr::new().with_kind(11).with_s(true).with_p(true).with_dpl(dpl).with_g(true).with_l(long).with_db(!long);
    Segment { sel, base: 0, limit: 0xffff_ffff, attr: attr.into_bits() }
}
fn flat_stack(sel: u16, dpl: u8) -> Segment {
    Segment { sel, base: 0, limit: 0xffff_ffff, attr: Attr::real(dpl).with_db(true).with_g(true).into_bits() }
}

/// SYSCALL.
pub fn syscall(c: &mut X86Cpu<'_>) -> Outcome {
    let (intel, long) = (c.state.cpuid.features.vendor == Vendor::Intel, c.lma());
    if c.state.efer & efer::SCE == 0 || !c.protected() || c.vm86() || intel && !c.code64() {
        return Err(Exception::ud());
    }
    let sel = (c.state.msrs.star >> 32) as u16 & 0xfffc;
    let next = c.next_ip();
    let target = if long {
        let flags = c.eflags() & !eflags::RF;
        let target = if c.code64() { c.state.msrs.lstar } else { c.state.msrs.cstar };
        c.set_gpr(RCX, next);
        c.set_gpr(R11, flags);
        let mask = c.state.msrs.fmask | eflags::RF;
        c.set_eflags(0, mask & eflags::ALL);
        target
    } else {
        c.set_gpr(RCX, next & 0xffff_ffff);
        c.set_eflags(0, eflags::IF | eflags::RF | eflags::VM);
        c.state.msrs.star & 0xffff_ffff
    };
    c.set_segment(SS, flat_stack(sel.wrapping_add(8), 0));
    c.enter_ring(0, flat_code(sel, 0, long));
    // A trap flag that FMASK clears does not trap after this instruction either.
    c.state.step_armed &= c.system_flags() & eflags::TF != 0;
    Ok(c.jump(target))
}
/// SYSRET; `w` is B8 with REX.W.
pub fn sysret(c: &mut X86Cpu<'_>, w: W) -> Outcome {
    let (intel, long) = (c.state.cpuid.features.vendor == Vendor::Intel, c.lma());
    if c.state.efer & efer::SCE == 0 || !c.protected() || c.vm86() || intel && !c.code64() {
        return Err(Exception::ud());
    }
    if c.cpl() != 0 {
        return Err(Exception::gp(0));
    }
    let sel = (c.state.msrs.star >> 48) as u16;
    let rcx = c.gpr(RCX);
    let to64 = long && w == W::B8;
    // Intel checks here, in ring 0; AMD lets the fetch fault in ring 3.
    if to64 && intel && !canonical(rcx) {
        return Err(Exception::gp(0));
    }
    if long {
        // RF and VM are cleared whatever R11 says.
        c.set_eflags(c.gpr(R11), eflags::ALL & !(eflags::VM | eflags::RF));
        c.set_eflags(0, eflags::RF | eflags::VM);
    } else {
        c.set_eflags(eflags::IF, eflags::IF);
    }
    let cs = if to64 { sel.wrapping_add(16) } else { sel };
    c.set_segment(SS, flat_stack(sel.wrapping_add(8) | 3, 3));
    c.enter_ring(3, flat_code(cs | 3, 3, to64));
    Ok(c.jump(if to64 { rcx } else { rcx & 0xffff_ffff }))
}
/// SYSENTER.
pub fn sysenter(c: &mut X86Cpu<'_>) -> Outcome {
    let long = c.lma();
    if !c.state.cpuid.features.sep || long && c.state.cpuid.features.vendor != Vendor::Intel {
        return Err(Exception::ud());
    }
    let sel = c.state.msrs.sysenter_cs as u16 & 0xfffc;
    if !c.protected() || sel == 0 {
        return Err(Exception::gp(0));
    }
    c.set_eflags(0, eflags::VM | eflags::IF | eflags::RF);
    c.set_segment(SS, flat_stack(sel.wrapping_add(8), 0));
    c.enter_ring(0, flat_code(sel, 0, long));
    let mask = if long { u64::MAX } else { 0xffff_ffff };
    c.set_gpr(RSP, c.state.msrs.sysenter_esp & mask);
    Ok(c.jump(c.state.msrs.sysenter_eip & mask))
}
/// SYSEXIT; `w` is B8 with REX.W.
pub fn sysexit(c: &mut X86Cpu<'_>, w: W) -> Outcome {
    if !c.state.cpuid.features.sep || c.lma() && c.state.cpuid.features.vendor != Vendor::Intel {
        return Err(Exception::ud());
    }
    let sel = c.state.msrs.sysenter_cs as u16 & 0xfffc;
    if !c.protected() || sel == 0 || c.cpl() != 0 || c.vm86() {
        return Err(Exception::gp(0));
    }
    let to64 = w == W::B8;
    let (rsp, rip) = (c.gpr(RCX), c.gpr(RDX));
    if to64 && !(canonical(rsp) && canonical(rip)) {
        return Err(Exception::gp(0));
    }
    let (cs, ss) = if to64 { (32, 40) } else { (16, 24) };
    let mask = if to64 { u64::MAX } else { 0xffff_ffff };
    c.set_segment(SS, flat_stack(sel.wrapping_add(ss) | 3, 3));
    c.enter_ring(3, flat_code(sel.wrapping_add(cs) | 3, 3, to64));
    c.set_gpr(RSP, rsp & mask);
    Ok(c.jump(rip & mask))
}
