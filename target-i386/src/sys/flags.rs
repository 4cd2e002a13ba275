//! EFLAGS as system code sees it: PUSHF, POPF, CLI, STI with IOPL, VME and PVI; LAHF is elsewhere, CLAC and STAC are here.
//! Source: Intel SDM vol. 1 §3.4.3; vol. 2, the instructions; vol. 3A §20.3.2 and table 20-3 (VME), §20.4 (PVI).
use super::prelude::*;
use super::stack::Stack;

/// PUSHF of operand size `w`.
pub fn pushf(c: &mut X86Cpu<'_>, w: W) -> Outcome {
    let mut v = c.eflags() & !(eflags::VM | eflags::RF);
    if c.vm86() && c.iopl() < 3 {
        if c.state.cr4 & cr4::VME == 0 || w != W::B2 {
            return Err(Exception::gp(0));
        }
        let vif = if v & eflags::VIF != 0 { eflags::IF } else { 0 };
        v = v & !eflags::IF | vif | eflags::IOPL;
    }
    let mut stack = Stack::current(c);
    stack.push(c, w, v)?;
    stack.commit(c);
    Ok(Rare::Next)
}
/// POPF of operand size `w`.
pub fn popf(c: &mut X86Cpu<'_>, w: W) -> Outcome {
    let common = eflags::STATUS | eflags::TF | eflags::DF | eflags::NT | eflags::AC | eflags::ID;
    let vm86 = c.vm86();
    let (cpl, iopl) = (c.cpl(), c.iopl());
    let vme = vm86 && iopl < 3;
    if vme && (c.state.cr4 & cr4::VME == 0 || w != W::B2) {
        return Err(Exception::gp(0));
    }
    let mut stack = Stack::current(c);
    let v = stack.pop(c, w)?;
    let old = c.system_flags();
    if vme {
        if v & eflags::TF != 0 || v & eflags::IF != 0 && c.system_flags() & eflags::VIP != 0 {
            return Err(Exception::gp(0));
        }
        c.set_eflags(v, common & 0xffff);
        c.set_eflags(if v & eflags::IF != 0 { eflags::VIF } else { 0 }, eflags::VIF);
    } else {
        let mut mask = common;
        if cpl == 0 && !vm86 {
            mask |= eflags::IOPL;
        }
        if vm86 || cpl <= iopl {
            mask |= eflags::IF;
        }
        c.set_eflags(v, mask & w.mask());
        if w != W::B2 {
            c.set_eflags(0, eflags::RF);
        }
    }
    stack.commit(c);
    Ok(loaded(c, old))
}
/// After flags were loaded: TF, AC and RF take part in the mode, IF may let an interrupt in.
fn loaded(c: &mut X86Cpu<'_>, old: u64) -> Rare {
    let changed = old ^ c.system_flags();
    c.poll();
    if changed & (eflags::TF | eflags::AC | eflags::RF) != 0 || c.kicked() {
        return Rare::To(c.op.next_ip);
    }
    Rare::Next
}

/// What CLI and STI act on.
enum Which {
    If,
    Vif,
}
fn which(c: &X86Cpu<'_>) -> Result<Which, Exception> {
    let virt = if c.vm86() { cr4::VME } else { cr4::PVI };
    if c.state.owns_if() {
        Ok(Which::If)
    } else if c.cpl() == 3 && c.state.cr4 & virt != 0 {
        Ok(Which::Vif)
    } else {
        Err(Exception::gp(0))
    }
}
/// CLI.
pub fn cli(c: &mut X86Cpu<'_>) -> Outcome {
    match which(c)? {
        Which::If => c.set_eflags(0, eflags::IF),
        Which::Vif => c.set_eflags(0, eflags::VIF),
    }
    Ok(Rare::Next)
}
/// STI: interrupts stay off for one more instruction if they were off.
pub fn sti(c: &mut X86Cpu<'_>) -> Outcome {
    match which(c)? {
        Which::If => c.state.set_if(),
        Which::Vif => {
            if c.system_flags() & eflags::VIP != 0 {
                return Err(Exception::gp(0));
            }
            c.set_eflags(eflags::VIF, eflags::VIF);
        }
    }
    // With nothing pending the shadow may stay behind: it only makes the next event wait for one instruction.
    Ok(if c.state.held != 0 || c.kicked() { Rare::To(c.op.next_ip) } else { Rare::Next })
}
/// CLAC and STAC.
pub fn set_ac(c: &mut X86Cpu<'_>, on: bool) -> Outcome {
    if !c.state.cpuid.features.smap || c.cpl() != 0 {
        return Err(Exception::ud());
    }
    c.set_eflags(if on { eflags::AC } else { 0 }, eflags::AC);
    // AC selects the translation regime.
    Ok(Rare::To(c.op.next_ip))
}
