//! IRET in all its modes and far RET. Source: Intel SDM vol. 2, IRET/IRETD/IRETQ and RET; vol. 3A §20.2.4–20.2.6.
use super::desc::{Selector, canonical};
use super::prelude::*;
use super::seg::{self, drop_privileged, null_stack, segment, vm86_segment};
use super::stack::Stack;
use super::task::{self, Cause};

/// IRET of operand size `w`. Ends the masking of NMIs.
pub fn iret(c: &mut X86Cpu<'_>, w: W) -> Outcome {
    let ip = if !c.protected() {
        iret_real(c, w)?
    } else if c.vm86() {
        iret_from_vm86(c, w)?
    } else if c.system_flags() & eflags::NT != 0 {
        if c.lma() {
            return Err(Exception::gp(0));
        }
        let tss = task::outer(c)?;
        let ip = c.next_ip();
        let next = task::go(c, tss, Cause::Iret { ip })?;
        c.state.nmi_masked = false;
        return Ok(next);
    } else {
        return_far(c, w, Some(Iret), 0)?
    };
    c.state.nmi_masked = false;
    // An RF that was just loaded holds for the next instruction.
    c.state.resume_armed = false;
    Ok(c.jump(ip))
}
/// Far RET of operand size `w` that drops `extra` bytes of parameters.
pub fn retf(c: &mut X86Cpu<'_>, w: W, extra: u16) -> Outcome {
    if c.protected() && !c.vm86() {
        let ip = return_far(c, w, None, extra.into())?;
        return Ok(c.jump(ip));
    }
    let mut stack = Stack::current(c);
    let ip = stack.pop(c, w)?;
    let sel = stack.pop(c, w)? as u16;
    if ip > u64::from(c.state.segs[CS].limit) {
        return Err(Exception::gp(0));
    }
    stack.skip(extra.into());
    stack.commit(c);
    set_real_cs(c, sel);
    Ok(c.jump(ip))
}
fn set_real_cs(c: &mut X86Cpu<'_>, sel: u16) {
    let cs = if c.vm86() { vm86_segment(sel) } else { seg::real_segment(c.state.segs[CS], sel) };
    c.set_segment(CS, cs);
}

/// Pops IP, CS, FLAGS in real or virtual-8086 mode; flags in `mask` are replaced.
fn pop_real(c: &mut X86Cpu<'_>, w: W, mask: u64) -> Result<u64, Exception> {
    let mut stack = Stack::current(c);
    let ip = stack.pop(c, w)?;
    let sel = stack.pop(c, w)? as u16;
    let flags = stack.pop(c, w)?;
    if ip > u64::from(c.state.segs[CS].limit) {
        return Err(Exception::gp(0));
    }
    stack.commit(c);
    set_real_cs(c, sel);
    c.set_eflags(flags, mask & w.mask());
    Ok(ip)
}
fn iret_real(c: &mut X86Cpu<'_>, w: W) -> Result<u64, Exception> {
    pop_real(c, w, eflags::ALL & !(eflags::VM | eflags::VIF | eflags::VIP))
}
fn iret_from_vm86(c: &mut X86Cpu<'_>, w: W) -> Result<u64, Exception> {
    let keep = eflags::VM | eflags::IOPL | eflags::VIF | eflags::VIP;
    if c.iopl() == 3 {
        return pop_real(c, w, eflags::ALL & !keep);
    }
    if c.state.cr4 & cr4::VME == 0 || w != W::B2 {
        return Err(Exception::gp(0));
    }
    // VME: IF of the image goes to VIF.
    let mut stack = Stack::current(c);
    let ip = stack.pop(c, w)?;
    let sel = stack.pop(c, w)? as u16;
    let flags = stack.pop(c, w)?;
    if flags & eflags::TF != 0 || flags & eflags::IF != 0 && c.system_flags() & eflags::VIP != 0 {
        return Err(Exception::gp(0));
    }
    stack.commit(c);
    set_real_cs(c, sel);
    let vif = if flags & eflags::IF != 0 { eflags::VIF } else { 0 };
    c.set_eflags(flags & 0xffff, eflags::ALL & 0xffff & !(eflags::IF | eflags::IOPL));
    c.set_eflags(vif, eflags::VIF);
    Ok(ip)
}

/// Marks a far return that also pops flags.
struct Iret;

/// The flags that IRET may change at privilege `cpl`.
fn iret_mask(c: &X86Cpu<'_>, cpl: u8, w: W) -> u64 {
    let mut m = eflags::STATUS | eflags::TF | eflags::DF | eflags::NT | eflags::RF | eflags::AC | eflags::ID;
    if cpl <= c.iopl() {
        m |= eflags::IF
    }
    if cpl == 0 {
        m |= eflags::IOPL | eflags::VIF | eflags::VIP
    }
    m & w.mask()
}

/// Far return in protected or IA-32e mode: to the same ring, to an outer ring, or (IRET from ring 0) to virtual-8086 mode.
fn return_far(c: &mut X86Cpu<'_>, w: W, iret: Option<Iret>, extra: u64) -> Result<u64, Exception> {
    let long = c.lma();
    let cpl = c.cpl();
    let mut stack = Stack::current(c);
    let ip = stack.pop(c, w)?;
    let sel = Selector::from_bits(stack.pop(c, w)? as u16);
    let flags = if iret.is_some() { stack.pop(c, w)? } else { 0 };
    if iret.is_some() && !long && w == W::B4 && flags & eflags::VM != 0 && cpl == 0 {
        return to_vm86(c, stack, ip, sel, flags);
    }
    if sel.is_null() {
        return Err(Exception::gp(0));
    }
    let error = sel.error();
    let d = seg::descriptor(c, sel)?.ok_or(Exception::gp(error))?;
    let a = d.attr();
    let rpl = sel.rpl();
    let privilege = if a.conforming() { a.dpl() <= rpl } else { a.dpl() == rpl };
    if !a.code() || rpl < cpl || !privilege || long && a.l() && a.db() {
        return Err(Exception::gp(error));
    }
    if !d.p() {
        return Err(Exception::np(error));
    }
    let to64 = long && a.l();
    let check_ip = || {
        let bad = if to64 { !canonical(ip) } else { ip > d.limit().into() };
        if bad { Err(Exception::gp(0)) } else { Ok(()) }
    };
    // IRET in 64-bit mode pops SS:RSP whatever the ring.
    let whole = rpl != cpl || iret.is_some() && c.code64();
    if !whole {
        check_ip()?;
        seg::mark_accessed(c, sel, d)?;
        stack.skip(extra);
        if iret.is_some() {
            let m = iret_mask(c, cpl, w);
            c.set_eflags(flags, m);
        }
        stack.commit(c);
        c.set_segment(CS, segment(sel.into_bits(), d));
        return Ok(ip);
    }
    stack.skip(extra);
    let new_sp = stack.pop(c, w)?;
    let ss_sel = Selector::from_bits(stack.pop(c, w)? as u16);
    let ss = if ss_sel.is_null() {
        if !to64 || rpl == 3 || ss_sel.rpl() != rpl {
            return Err(Exception::gp(0));
        }
        null_stack(ss_sel.into_bits(), rpl)
    } else {
        let d = seg::check_stack(c, ss_sel, rpl, Exception::gp)?;
        seg::mark_accessed(c, ss_sel, d)?;
        segment(ss_sel.into_bits(), d)
    };
    check_ip()?;
    seg::mark_accessed(c, sel, d)?;
    if iret.is_some() {
        let m = iret_mask(c, cpl, w);
        c.set_eflags(flags, m);
    }
    c.set_segment(SS, ss);
    c.enter_ring(rpl, segment(sel.into_bits(), d));
    if to64 {
        c.set_gpr(RSP, new_sp.wrapping_add(extra));
    } else {
        let mask = if ss.a().db() { 0xffff_ffff } else { 0xffff };
        let old = c.gpr(RSP);
        let sp = new_sp.wrapping_add(extra) & mask;
        c.set_gpr(RSP, if mask == 0xffff { old & 0xffff_0000 | sp } else { sp });
    }
    if rpl != cpl {
        drop_privileged(c, rpl);
    }
    Ok(ip)
}
/// From ring 0 to virtual-8086 mode: SS:ESP and the four data segments follow the frame.
fn to_vm86(c: &mut X86Cpu<'_>, mut stack: Stack, ip: u64, cs: Selector, flags: u64) -> Result<u64, Exception> {
    let sp = stack.pop(c, W::B4)?;
    let mut sels = [0u16; 5];
    for s in &mut sels {
        *s = stack.pop(c, W::B4)? as u16;
    }
    if ip > 0xffff {
        return Err(Exception::gp(0));
    }
    c.set_eflags(flags, eflags::ALL);
    for (reg, sel) in [SS, ES, DS, FS, GS].into_iter().zip(sels) {
        c.set_segment(reg, vm86_segment(sel));
    }
    c.enter_ring(3, vm86_segment(cs.into_bits()));
    c.set_gpr(RSP, sp);
    Ok(ip & 0xffff)
}
