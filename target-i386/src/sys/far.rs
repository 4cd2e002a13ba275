//! Far JMP and CALL: direct, through call gates, to tasks. Source: Intel SDM vol. 2, JMP and CALL; vol. 3A §5.8.
use super::desc::{Descriptor, Gate, Selector, canonical, system};
use super::excp::inner_stack;
use super::prelude::*;
use super::seg::{self, null_stack, segment};
use super::stack::Stack;
use super::task::{self, Cause};

/// Far JMP to `sel:ip`.
pub fn jmp(c: &mut X86Cpu<'_>, w: W, value: u16, ip: u64) -> Outcome {
    let ip = ip & w.mask();
    if !c.protected() || c.vm86() {
        if ip > u64::from(c.state.segs[CS].limit) {
            return Err(Exception::gp(0));
        }
        set_real_cs(c, value);
        return Ok(c.jump(ip));
    }
    match find(c, Selector::from_bits(value))? {
        Found::Code(sel, d) => {
            let ip = check_ip(c, &d, ip)?;
            seg::mark_accessed(c, sel, d)?;
            let cpl = c.cpl();
            c.set_segment(CS, segment(value & !3 | u16::from(cpl), d));
            Ok(c.jump(ip))
        }
        Found::Task(tss) => {
            let next = c.next_ip();
            task::go(c, tss, Cause::Jump { ip: next })
        }
        Found::Gate(gate, high) => {
            let (sel, d) = gate_code(c, gate.target())?;
            let a = d.attr();
            let cpl = c.cpl();
            let allowed = if a.conforming() { a.dpl() <= cpl } else { a.dpl() == cpl };
            if !allowed {
                return Err(Exception::gp(sel.error()));
            }
            if !d.p() {
                return Err(Exception::np(sel.error()));
            }
            let ip = check_ip(c, &d, gate_ip(gate, high))?;
            seg::mark_accessed(c, sel, d)?;
            c.set_segment(CS, segment(sel.into_bits() & !3 | u16::from(cpl), d));
            Ok(c.jump(ip))
        }
    }
}

/// Far CALL to `sel:ip`, return addresses `w` wide.
pub fn call(c: &mut X86Cpu<'_>, w: W, value: u16, ip: u64) -> Outcome {
    let ip = ip & w.mask();
    let next = c.next_ip();
    let old_cs = c.state.segs[CS].sel;
    if !c.protected() || c.vm86() {
        let mut stack = Stack::current(c);
        stack.push(c, w, old_cs.into())?;
        stack.push(c, w, next)?;
        if ip > u64::from(c.state.segs[CS].limit) {
            return Err(Exception::gp(0));
        }
        stack.commit(c);
        set_real_cs(c, value);
        return Ok(c.jump(ip));
    }
    match find(c, Selector::from_bits(value))? {
        Found::Code(sel, d) => {
            let mut stack = Stack::current(c);
            stack.push(c, w, old_cs.into())?;
            stack.push(c, w, next)?;
            let ip = check_ip(c, &d, ip)?;
            seg::mark_accessed(c, sel, d)?;
            stack.commit(c);
            let cpl = c.cpl();
            c.set_segment(CS, segment(value & !3 | u16::from(cpl), d));
            Ok(c.jump(ip))
        }
        Found::Task(tss) => task::go(c, tss, Cause::Call { ip: next }),
        Found::Gate(gate, high) => call_gate(c, gate, high, old_cs, next),
    }
}
fn call_gate(c: &mut X86Cpu<'_>, gate: Gate, high: u64, old_cs: u16, next: u64) -> Outcome {
    let long = c.lma();
    let w = if long {
        W::B8
    } else if gate.kind() == system::CALL32 {
        W::B4
    } else {
        W::B2
    };
    let (sel, d) = gate_code(c, gate.target())?;
    let a = d.attr();
    let cpl = c.cpl();
    if a.dpl() > cpl {
        return Err(Exception::gp(sel.error()));
    }
    if !d.p() {
        return Err(Exception::np(sel.error()));
    }
    let entry = gate_ip(gate, high);
    if a.conforming() || a.dpl() == cpl {
        let mut stack = Stack::current(c);
        stack.push(c, w, old_cs.into())?;
        stack.push(c, w, next)?;
        let ip = check_ip(c, &d, entry)?;
        seg::mark_accessed(c, sel, d)?;
        stack.commit(c);
        c.set_segment(CS, segment(sel.into_bits() & !3 | u16::from(cpl), d));
        return Ok(c.jump(ip));
    }
    // To an inner ring: its stack from the TSS, parameters copied from ours.
    let inner = a.dpl();
    let old = Stack::current(c);
    let (old_ss, old_sp) = (c.state.segs[SS], c.gpr(RSP));
    let (mut stack, ss) = if long {
        let rsp = task::long_stack(c, 4 + u64::from(inner) * 8, 0)?;
        let ss = null_stack(inner.into(), inner);
        (Stack::long(ss, rsp, inner, 0), ss)
    } else {
        inner_stack(c, inner, 0)?
    };
    stack.push(c, w, old_ss.sel.into())?;
    stack.push(c, w, old_sp)?;
    if !long {
        for n in (0..u64::from(gate.count() & 31)).rev() {
            let v = old.peek(c, w, n)?;
            stack.push(c, w, v)?;
        }
    }
    stack.push(c, w, old_cs.into())?;
    stack.push(c, w, next)?;
    let ip = check_ip(c, &d, entry)?;
    seg::mark_accessed(c, sel, d)?;
    c.set_segment(SS, ss);
    c.enter_ring(inner, segment(sel.into_bits() & !3 | u16::from(inner), d));
    stack.commit(c);
    Ok(c.jump(ip))
}

fn set_real_cs(c: &mut X86Cpu<'_>, sel: u16) {
    let cs = if c.vm86() { seg::vm86_segment(sel) } else { seg::real_segment(c.state.segs[CS], sel) };
    c.set_segment(CS, cs);
}
/// The entry point against the new code segment.
fn check_ip(c: &X86Cpu<'_>, d: &Descriptor, ip: u64) -> Result<u64, Exception> {
    let bad = if c.lma() && d.l() { !canonical(ip) } else { ip > d.limit().into() };
    if bad { Err(Exception::gp(0)) } else { Ok(ip) }
}
fn gate_ip(gate: Gate, high: u64) -> u64 {
    let ip = u64::from(gate.offset()) | high << 32;
    if gate.kind() == system::CALL16 { ip & 0xffff } else { ip }
}

/// What a far pointer's selector leads to.
enum Found {
    Code(Selector, Descriptor),
    /// Its upper half is zero outside IA-32e mode.
    Gate(Gate, u64),
    Task(task::Tss),
}
/// Looks the selector of a far JMP or CALL up, with the checks that need only that descriptor.
fn find(c: &mut X86Cpu<'_>, sel: Selector) -> Result<Found, Exception> {
    if sel.is_null() {
        return Err(Exception::gp(0));
    }
    let error = sel.error();
    let d = seg::descriptor(c, sel)?.ok_or(Exception::gp(error))?;
    let a = d.attr();
    let (cpl, long) = (c.cpl(), c.lma());
    if a.s() {
        let allowed = if a.conforming() { a.dpl() <= cpl } else { sel.rpl() <= cpl && a.dpl() == cpl };
        if !a.code() || !allowed || long && a.l() && a.db() {
            return Err(Exception::gp(error));
        }
        if !d.p() {
            return Err(Exception::np(error));
        }
        return Ok(Found::Code(sel, d));
    }
    if a.dpl() < cpl || a.dpl() < sel.rpl() {
        return Err(Exception::gp(error));
    }
    match a.kind() {
        system::TSS16 | system::TSS32 if !long => {
            if sel.ti() {
                return Err(Exception::gp(error));
            }
            task::available(sel, d, 0).map(Found::Task)
        }
        system::TASK if !long => {
            if !d.p() {
                return Err(Exception::np(error));
            }
            let target = Gate::from_bits(d.into_bits()).target();
            task::gate_target(c, target, 0).map(Found::Task)
        }
        system::CALL16 | system::CALL32 if !long => gate(d, 0, error),
        system::CALL32 => {
            let high = seg::descriptor_high(c, sel)?.ok_or(Exception::gp(error))?;
            if high >> 40 & 0x1f != 0 {
                return Err(Exception::gp(error));
            }
            gate(d, high & 0xffff_ffff, error)
        }
        _ => Err(Exception::gp(error)),
    }
}
fn gate(d: Descriptor, high: u64, error: u32) -> Result<Found, Exception> {
    if d.p() { Ok(Found::Gate(Gate::from_bits(d.into_bits()), high)) } else { Err(Exception::np(error)) }
}
/// The code segment a call gate names; in IA-32e mode it must be 64-bit code.
fn gate_code(c: &mut X86Cpu<'_>, sel: Selector) -> Result<(Selector, Descriptor), Exception> {
    if sel.is_null() {
        return Err(Exception::gp(0));
    }
    let d = seg::descriptor(c, sel)?.ok_or(Exception::gp(sel.error()))?;
    let a = d.attr();
    if !a.code() || c.lma() && (!a.l() || a.db()) {
        return Err(Exception::gp(sel.error()));
    }
    Ok((sel, d))
}
