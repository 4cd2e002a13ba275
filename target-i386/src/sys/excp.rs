//! Delivery of exceptions and interrupts in every mode, double and triple faults, INT n, INT3, INTO, INT1.
//! Source: Intel SDM vol. 3A chapter 6 (§6.12 protected mode, §6.14 IA-32e mode, table 6-5 double faults), §20.1.4 real
//! mode, §20.3 virtual-8086 mode; vol. 2, INT n.
//!
//! A delivery that fails changes no register: everything that can fault happens on copies first.
use super::desc::{Gate, Selector, canonical, system};
use super::log;
use super::prelude::*;
use super::seg::{self, null_segment, null_stack, segment};
use super::stack::Stack;
use super::task::{self, Cause};

/// What is delivered: the part of an exception that a handler sees.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Vector.
    pub vector: u8,
    /// Pushed after the frame, where the mode has error codes.
    pub error: Option<u32>,
    /// INT n, INT3, INTO: the gate's DPL counts and error codes have EXT clear.
    pub software: bool,
    /// RF in the pushed flags (SDM vol. 3B §17.3.1.1): the instruction must not meet the same breakpoint again.
    pub resume: bool,
    /// Instruction pointer to push.
    pub ip: u64,
}
impl Event {
    /// EXT: error codes of faults met on the way say whether the program asked for the event.
    fn ext(&self) -> u32 {
        u32::from(!self.software)
    }
    /// Error code that points into the IDT (SDM vol. 3A §6.13).
    fn idt_error(&self) -> u32 {
        u32::from(self.vector) << 3 | 2 | self.ext()
    }
}

/// #DF.
const DOUBLE_FAULT: Exception = Exception::new(8, Some(0), Source::Fault);

/// How an exception combines with one that is met while it is delivered, SDM vol. 3A table 6-5.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    Benign,
    Contributory,
    PageFault,
    DoubleFault,
}
fn class(e: &Exception) -> Class {
    if e.source != Source::Fault {
        return Class::Benign;
    }
    match e.vector {
        0 | 10..=13 | 21 => Class::Contributory,
        14 | 20 => Class::PageFault,
        8 => Class::DoubleFault,
        _ => Class::Benign,
    }
}
/// What is delivered next when `second` occurs while `first` is being delivered. `None`: shutdown.
fn combine(first: Class, second: Exception) -> Option<Exception> {
    match (first, class(&second)) {
        (Class::DoubleFault, Class::Contributory | Class::PageFault | Class::DoubleFault) => None,
        (Class::Contributory, Class::Contributory) | (Class::PageFault, Class::Contributory | Class::PageFault) => {
            Some(DOUBLE_FAULT)
        }
        _ => Some(second),
    }
}

/// Enters the handler of `e`, raised by the instruction at `cpu.op.ip`, or the one of what its delivery raises in turn.
/// Data breakpoints that still wait, met by MOV SS before an INT n or by the delivery itself, are reported between the entry and the
/// handler's first instruction (SDM vol. 3B §17.3.1.2, §6.8.3).
pub fn deliver(c: &mut X86Cpu<'_>, mut e: Exception) -> Rare {
    let next_ip = c.next_ip();
    if e.source == Source::Fault {
        // The instruction will run again and meet its data breakpoints again.
        c.state.debug_hits = 0;
    }
    c.state.step_armed = false;
    c.state.resume_armed = false;
    log::raised(&e, log::NO_OLD);
    // Where the handler of the first event begins, once a waiting #DB interrupts it.
    let mut entered = None;
    loop {
        // A task switch that fails late has moved it.
        let fault_ip = c.ip();
        if let Some(la) = e.cr2 {
            c.state.cr2 = la;
        }
        if e.vector == 1 && e.source != Source::Software {
            super::debug::record(c, e.dr6);
        }
        let after = matches!(e.source, Source::Software | Source::Int1);
        let resume = match e.source {
            // (General detect is a fault like others; for an instruction breakpoint the handler decides.)
            Source::Fault => e.vector != 1 || e.dr6 & super::debug::dr6::BD != 0,
            Source::Software | Source::Int1 => false,
            // As it is: set by an IRET just before, or between two iterations of a repeated instruction. Without
            // breakpoints nobody keeps the flag exact.
            _ => c.state.dr[7] & 0xff != 0 && c.system_flags() & eflags::RF != 0,
        };
        let event = Event {
            vector: e.vector,
            error: e.error,
            software: e.source == Source::Software,
            resume,
            ip: entered.unwrap_or(if after { next_ip } else { fault_ip }),
        };
        match enter(c, &event) {
            Ok(ip) => {
                c.state.shadow = Shadow::No;
                // Those that the #DB's own delivery meets wait for the next instruction: a watched stack must not lead to a loop here.
                if entered.is_some() || c.state.debug_hits == 0 {
                    return c.jump(ip);
                }
                c.settle();
                entered = Some(ip);
                e = Exception::db(std::mem::take(&mut c.state.debug_hits), true);
            }
            Err(second) => {
                // CR2 is the last page fault's, even if it turns into a double fault.
                if let Some(la) = second.cr2 {
                    c.state.cr2 = la;
                }
                log::raised(&second, e.vector.into());
                match combine(class(&e), second) {
                    Some(next) => e = next,
                    None => {
                        tracing::debug!(ip = fault_ip, vector = second.vector, "triple fault");
                        tracing::trace!(target: "cpu_reset", "Triple fault");
                        c.state.sync(c.hot);
                        return Rare::Exit(c.op.ip, EXIT_SHUTDOWN);
                    }
                }
            }
        }
    }
}

/// Enters a handler: pushes the frame, loads CS and the stack, clears flags. The new instruction pointer.
pub fn enter(c: &mut X86Cpu<'_>, e: &Event) -> Result<u64, Exception> {
    log::entering(c, e);
    if c.lma() {
        enter_long(c, e)
    } else if c.protected() {
        enter_protected(c, e)
    } else {
        enter_real(c, e)
    }
}

/// Real mode: the vector table holds far pointers, frames are three words, there are no error codes.
fn enter_real(c: &mut X86Cpu<'_>, e: &Event) -> Result<u64, Exception> {
    let at = u32::from(e.vector) * 4;
    if at + 3 > c.state.idtr.limit.into() {
        return Err(Exception::gp(e.idt_error()));
    }
    let la = c.linear(c.state.idtr.base.wrapping_add(at.into()));
    let entry = c.load(W::B4, la, Who::Implicit)?;
    real_frame(c, e.ip, c.eflags(), Stack::current(c), entry, eflags::IF | eflags::TF | eflags::AC | eflags::RF)
}
/// Pushes FLAGS, CS, IP and goes to the far pointer `entry`, clearing flags.
fn real_frame(
    c: &mut X86Cpu<'_>,
    ip: u64,
    image: u64,
    mut stack: Stack,
    entry: u64,
    clear: u64,
) -> Result<u64, Exception> {
    stack.push(c, W::B2, image)?;
    stack.push(c, W::B2, c.state.segs[CS].sel.into())?;
    stack.push(c, W::B2, ip)?;
    stack.commit(c);
    let sel = (entry >> 16) as u16;
    let cs = if c.vm86() { seg::vm86_segment(sel) } else { seg::real_segment(c.state.segs[CS], sel) };
    c.set_segment(CS, cs);
    c.set_eflags(0, clear);
    Ok(entry & 0xffff)
}

/// The handler's code segment as found by a gate.
struct Handler {
    sel: Selector,
    cs: Segment,
    /// Privilege the handler runs at.
    cpl: u8,
}
/// Checks the code segment that an interrupt or trap gate names (SDM vol. 2, INT n, "INTRA/INTER-PRIVILEGE").
fn target(c: &mut X86Cpu<'_>, e: &Event, sel: Selector) -> Result<Handler, Exception> {
    let ext = e.ext();
    if sel.is_null() {
        return Err(Exception::gp(ext));
    }
    let error = sel.error() | ext;
    let d = seg::descriptor(c, sel)?.ok_or(Exception::gp(error))?;
    let a = d.attr();
    let cpl = c.cpl();
    if !a.code() || a.dpl() > cpl {
        return Err(Exception::gp(error));
    }
    if !d.p() {
        return Err(Exception::np(error));
    }
    if c.lma() && (!a.l() || a.db()) {
        return Err(Exception::gp(error));
    }
    seg::mark_accessed(c, sel, d)?;
    let cpl = if a.conforming() { cpl } else { a.dpl() };
    Ok(Handler { sel, cs: segment(sel.into_bits() & !3 | u16::from(cpl), d), cpl })
}
/// Flags that every protected-mode entry clears; interrupt gates clear IF as well.
fn cleared(gate_kind: u8) -> u64 {
    let trap = gate_kind & 1 != 0;
    eflags::TF | eflags::VM | eflags::RF | eflags::NT | if trap { 0 } else { eflags::IF }
}

fn enter_protected(c: &mut X86Cpu<'_>, e: &Event) -> Result<u64, Exception> {
    let at = u32::from(e.vector) * 8;
    if at + 7 > c.state.idtr.limit.into() {
        return Err(Exception::gp(e.idt_error()));
    }
    let la = c.linear(c.state.idtr.base.wrapping_add(at.into()));
    let gate = Gate::from_bits(c.load(W::B8, la, Who::Implicit)?);
    let known = matches!(gate.kind(), system::TASK | system::INT16 | system::TRAP16 | system::INT32 | system::TRAP32);
    if gate.s() || !known || e.software && gate.dpl() < c.cpl() {
        return Err(Exception::gp(e.idt_error()));
    }
    if !gate.p() {
        return Err(Exception::np(e.idt_error()));
    }
    if gate.kind() == system::TASK {
        return enter_task(c, e, gate);
    }
    let w = if gate.kind() & 8 != 0 { W::B4 } else { W::B2 };
    let t = target(c, e, gate.target())?;
    let cpl = c.cpl();
    let vm86 = c.vm86();
    if vm86 && t.cpl != 0 {
        return Err(Exception::gp(t.sel.error() | e.ext()));
    }
    let image = c.eflags() & !eflags::RF | if e.resume { eflags::RF } else { 0 };
    let old_ss = c.state.segs[SS];
    let old_sp = c.gpr(RSP);
    let mut stack;
    let mut new_ss = None;
    if t.cpl < cpl {
        let ss;
        (stack, ss) = inner_stack(c, t.cpl, e.ext())?;
        new_ss = Some(ss);
        if vm86 {
            for reg in [GS, FS, DS, ES] {
                stack.push(c, w, c.state.segs[reg].sel.into())?;
            }
        }
        stack.push(c, w, old_ss.sel.into())?;
        stack.push(c, w, old_sp)?;
    } else {
        stack = Stack::current(c).with_error(e.ext());
    }
    stack.push(c, w, image)?;
    stack.push(c, w, c.state.segs[CS].sel.into())?;
    stack.push(c, w, e.ip)?;
    if let Some(error) = e.error {
        stack.push(c, w, error.into())?;
    }
    let ip = u64::from(gate.offset()) & w.mask();
    if ip > t.cs.limit.into() {
        return Err(Exception::gp(e.ext()));
    }
    c.set_eflags(0, cleared(gate.kind()));
    if vm86 {
        for reg in [GS, FS, DS, ES] {
            c.set_segment(reg, null_segment(0));
        }
    }
    if let Some(ss) = new_ss {
        c.set_segment(SS, ss);
    }
    c.enter_ring(t.cpl, t.cs);
    stack.commit(c);
    Ok(ip)
}
/// The stack of an inner ring from the TSS, checked (SDM vol. 3A §5.8.5).
pub fn inner_stack(c: &mut X86Cpu<'_>, cpl: u8, ext: u32) -> Result<(Stack, Segment), Exception> {
    let (sel, sp) = task::ring_stack(c, cpl, ext)?;
    let sel = Selector::from_bits(sel);
    let fail = if ext == 0 { Exception::ts } else { |e| Exception::ts(e | 1) };
    let d = seg::check_stack(c, sel, cpl, fail).map_err(|mut x| {
        // A missing stack segment is #SS, with EXT as well.
        if x.vector == 12 {
            x.error = x.error.map(|v| v | ext)
        }
        x
    })?;
    seg::mark_accessed(c, sel, d)?;
    let ss = segment(sel.into_bits(), d);
    Ok((Stack::new(ss, sp, cpl, sel.error() | ext), ss))
}
/// Through a task gate: a task switch with a back link, then the error code on the new task's stack.
fn enter_task(c: &mut X86Cpu<'_>, e: &Event, gate: Gate) -> Result<u64, Exception> {
    let ext = e.ext();
    let tss = task::gate_target(c, gate.target(), ext)?;
    if e.resume {
        // The old task's saved image, like a pushed one, keeps the breakpoint from firing again.
        c.set_eflags(eflags::RF, eflags::RF);
    }
    let ip = task::switch(c, tss, Cause::Gate { ip: e.ip, ext }, &mut false)?;
    if let Some(error) = e.error {
        let w = if c.state.tr.a().kind() & 8 != 0 { W::B4 } else { W::B2 };
        let mut stack = Stack::current(c).with_error(ext);
        stack.push(c, w, error.into())?;
        stack.commit(c);
    }
    Ok(ip)
}

fn enter_long(c: &mut X86Cpu<'_>, e: &Event) -> Result<u64, Exception> {
    let at = u32::from(e.vector) * 16;
    if at + 15 > c.state.idtr.limit.into() {
        return Err(Exception::gp(e.idt_error()));
    }
    let la = c.state.idtr.base.wrapping_add(at.into());
    let gate = Gate::from_bits(c.load(W::B8, la, Who::Implicit)?);
    let high = c.load(W::B8, la.wrapping_add(8), Who::Implicit)?;
    let known = matches!(gate.kind(), system::INT32 | system::TRAP32);
    // The type field of the second half must be zero (SDM vol. 3A figure 6-8).
    if gate.s() || !known || high >> 40 & 0x1f != 0 || e.software && gate.dpl() < c.cpl() {
        return Err(Exception::gp(e.idt_error()));
    }
    if !gate.p() {
        return Err(Exception::np(e.idt_error()));
    }
    let t = target(c, e, gate.target())?;
    let ip = u64::from(gate.offset()) | high << 32;
    if !canonical(ip) {
        return Err(Exception::gp(e.ext()));
    }
    let cpl = c.cpl();
    let ist = gate.count() & 7;
    let old_ss = c.state.segs[SS];
    let old_sp = c.gpr(RSP);
    let rsp = if ist != 0 {
        task::long_stack(c, 0x24 + u64::from(ist - 1) * 8, e.ext())?
    } else if t.cpl < cpl {
        task::long_stack(c, 4 + u64::from(t.cpl) * 8, e.ext())?
    } else {
        old_sp & c.stack_mask()
    };
    let inner = t.cpl < cpl;
    let ss = if inner { null_stack(t.cpl.into(), t.cpl) } else { old_ss };
    let mut stack = Stack::long(ss, rsp & !0xf, t.cpl, e.ext());
    let image = c.eflags() & !eflags::RF | if e.resume { eflags::RF } else { 0 };
    stack.push(c, W::B8, old_ss.sel.into())?;
    stack.push(c, W::B8, old_sp)?;
    stack.push(c, W::B8, image)?;
    stack.push(c, W::B8, c.state.segs[CS].sel.into())?;
    stack.push(c, W::B8, e.ip)?;
    if let Some(error) = e.error {
        stack.push(c, W::B8, error.into())?;
    }
    c.set_eflags(0, cleared(gate.kind()));
    if inner {
        c.set_segment(SS, ss);
    }
    c.enter_ring(t.cpl, t.cs);
    stack.commit(c);
    Ok(ip)
}

/// INT n.
pub fn int_n(c: &mut X86Cpu<'_>, vector: u8) -> Outcome {
    if c.vm86() {
        let iopl = c.iopl();
        if c.state.cr4 & cr4::VME != 0 && !redirected(c, vector)? {
            return int_vm86(c, vector, iopl);
        }
        if iopl < 3 {
            return Err(Exception::gp(0));
        }
    }
    Err(Exception::software(vector))
}
/// Whether the TSS's interrupt redirection bitmap sends INT n to the protected-mode handler (SDM vol. 3A §20.3.3).
fn redirected(c: &mut X86Cpu<'_>, vector: u8) -> Result<bool, Exception> {
    let base = task::iomap_base(c)?;
    // The 32 bytes just below the I/O map.
    let at = u64::from(base) + u64::from(vector >> 3);
    let Some(at) = at.checked_sub(32) else { return Ok(true) };
    if at > c.state.tr.limit.into() {
        return Ok(true);
    }
    let la = c.linear(c.state.tr.base.wrapping_add(at));
    Ok(c.load(W::B1, la, Who::Implicit)? >> (vector & 7) & 1 != 0)
}
/// INT n straight to the virtual-8086 program's own vector table at linear address 0.
fn int_vm86(c: &mut X86Cpu<'_>, vector: u8, iopl: u8) -> Outcome {
    let entry = c.load(W::B4, u64::from(vector) * 4, Who::Current)?;
    let flags = c.eflags();
    // Without IOPL 3 the program sees VIF in IF's place, and an IOPL of 3.
    let (image, clear) = if iopl == 3 {
        (flags, eflags::IF)
    } else {
        let vif = if flags & eflags::VIF != 0 { eflags::IF } else { 0 };
        (flags & !eflags::IF | vif | eflags::IOPL, eflags::VIF)
    };
    let ip = c.next_ip();
    let stack = Stack::current(c);
    let ip = real_frame(c, ip, image, stack, entry, clear | eflags::TF | eflags::NT | eflags::RF)?;
    Ok(c.jump(ip))
}
/// INT1: like a fault to the gate (no DPL check, EXT set), like a trap to the return address.
pub fn int1() -> Exception {
    Exception::new(1, None, Source::Int1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SDM vol. 3A table 6-5.
    #[test]
    fn double_fault_table() {
        let (de, gp, pf, ud, df) =
            (Exception::de(), Exception::gp(0), Exception::pf(0, 0), Exception::ud(), DOUBLE_FAULT);
        let second = |first: Exception, second: Exception| combine(class(&first), second).map(|e| e.vector);
        assert_eq!(second(ud, gp), Some(13));
        assert_eq!(second(ud, pf), Some(14));
        assert_eq!(second(de, gp), Some(8));
        assert_eq!(second(gp, pf), Some(14));
        assert_eq!(second(gp, ud), Some(6));
        assert_eq!(second(pf, gp), Some(8));
        assert_eq!(second(pf, pf), Some(8));
        assert_eq!(second(df, gp), None);
        assert_eq!(second(df, pf), None);
        assert_eq!(second(df, ud), Some(6));
        // A software interrupt is benign whatever its vector.
        assert_eq!(second(Exception::software(13), gp), Some(13));
    }
}
