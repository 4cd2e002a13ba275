//! What happens between instructions: INIT, start-up IPI, SMI, NMI, maskable interrupts, and (one instruction at a time)
//! single step, breakpoints, interrupt shadows. Source: Intel SDM vol. 3A §6.7–6.9 and table 6-2, §8.4.2, §9.1;
//! vol. 3B §17.3.1.
use super::prelude::*;
use super::{debug, excp, log, smm};
use crate::state::{Regs, signal};

/// Accepts the most urgent pending event at an instruction boundary (`cpu.op.ip`), or halts again.
pub fn service(c: &mut X86Cpu<'_>) -> Rare {
    let signals = c.state.signals.clone();
    let pending = signals.get();
    let a20 = if pending & signal::A20 != 0 { !(1 << 20) } else { u64::MAX };
    if a20 != c.state.a20_mask {
        c.state.a20_mask = a20;
        log::control("A20", a20 >> 20 & 1);
        c.flush_tlb();
    }
    c.state.held = pending & !signal::A20;
    if pending & signal::INIT != 0 && !c.state.smm {
        signals.clear(signal::INIT);
        let go = init(c);
        // A start-up IPI may already be there.
        if !c.state.wait_for_sipi || pending & signal::SIPI == 0 {
            return go;
        }
    }
    if c.state.wait_for_sipi {
        return match signals.take(signal::SIPI).then(|| signals.sipi_vector()).flatten() {
            Some(vector) => start_up(c, vector),
            None => Rare::Halt(c.op.ip),
        };
    }
    // A start-up IPI to a CPU that does not wait for one is lost (§8.4.1), unless the INIT it follows is held by SMM.
    if pending & (signal::SIPI | signal::INIT) == signal::SIPI {
        signals.clear(signal::SIPI);
    }
    if pending & signal::SMI != 0 && !c.state.smm {
        signals.clear(signal::SMI);
        return smm::enter(c);
    }
    if pending & signal::NMI != 0 && !c.state.nmi_masked && c.state.shadow != Shadow::MovSs {
        signals.clear(signal::NMI);
        c.state.halted = false;
        c.state.nmi_masked = true;
        return excp::deliver(c, Exception::nmi());
    }
    if pending & signal::MCE != 0 && c.state.cr4 & cr4::MCE != 0 {
        signals.clear(signal::MCE);
        c.state.halted = false;
        return excp::deliver(c, Exception::mc());
    }
    if pending & signal::HARD != 0 && c.system_flags() & eflags::IF != 0 && c.state.shadow == Shadow::No {
        let vector = match &c.state.interrupts {
            Some(i) => i.acknowledge(),
            None => None,
        };
        if let Some(vector) = vector {
            c.state.halted = false;
            log::accepted(vector);
            return excp::deliver(c, Exception::external(vector));
        }
    }
    if c.state.halted { Rare::Halt(c.op.ip) } else { Rare::Next }
}

/// INIT: the registers of table 9-1, but neither x87, SSE, MSRs nor the time stamp. Application processors then wait for
/// a start-up IPI.
pub fn init(c: &mut X86Cpu<'_>) -> Rare {
    let old = &c.state.r;
    let new = Regs {
        msrs: old.msrs.clone(),
        fpu: old.fpu.clone(),
        smbase: old.smbase,
        a20_mask: old.a20_mask,
        xcr0: old.xcr0,
        cr0: old.cr0 & (cr0::CD | cr0::NW) | cr0::ET,
        ..Regs::default()
    };
    c.state.r = new;
    let bsp = match &c.state.interrupts {
        Some(i) => {
            i.init();
            i.base() & 1 << 8 != 0
        }
        None => true,
    };
    reset_general(c.state, c.hot);
    c.flush_tlb();
    if bsp {
        return c.jump(0xfff0);
    }
    c.state.wait_for_sipi = true;
    c.state.sync(c.hot);
    Rare::Halt(c.state.linear_ip(0xfff0))
}
/// General registers and flags after reset or INIT: zero, with the processor's signature in EDX.
pub fn reset_general(s: &mut State, hot: &mut accel::tcg::Hot) {
    for r in 0..16 {
        hot.regs[r] = 0;
    }
    hot.regs[RDX.index()] = s.cpuid.features.signature.into();
    s.set_flags(hot, 0, eflags::ALL as u32);
    s.sync(hot);
}
/// Power-on and hardware reset: everything but the CPU's connections. The first instruction is at `linear_ip(0xfff0)`.
pub fn power_on(s: &mut State, hot: &mut accel::tcg::Hot, bsp: bool) {
    let mut new = Regs { a20_mask: s.r.a20_mask, wait_for_sipi: !bsp, ..Regs::default() };
    // Belongs to the model, not to the guest.
    new.msrs.ucode_rev = s.r.msrs.ucode_rev;
    s.r = new;
    s.signals.clear(!signal::A20);
    hot.x = [0; 32];
    hot.fpcr = 0x1f80;
    reset_general(s, hot);
}
/// A start-up IPI: real mode at the vector's page.
fn start_up(c: &mut X86Cpu<'_>, vector: u8) -> Rare {
    c.state.wait_for_sipi = false;
    c.state.halted = false;
    let cs = c.state.segs[CS];
    c.set_segment(CS, Segment { sel: u16::from(vector) << 8, base: u64::from(vector) << 12, ..cs });
    c.jump(0)
}

/// Whether instructions must run one by one.
pub fn stepping(s: &State) -> bool {
    // (A CPU that should sleep but was run looks at its events first.)
    s.halted
        || s.wait_for_sipi
        || s.shadow == Shadow::MovSs
        // (What comes while nothing is held finds the shadow when it is looked at.)
        || s.shadow == Shadow::Sti && s.held != 0
        || s.dr[7] & 0xff != 0
        || u64::from(s.eflags) & eflags::TF != 0
}
/// Before an instruction in stepping mode.
pub fn before(c: &mut X86Cpu<'_>) -> Rare {
    if c.state.halted || c.state.wait_for_sipi {
        return service(c);
    }
    if let Some(e) = debug::instruction_breakpoint(c, c.op.ip)
        && c.state.shadow != Shadow::MovSs
    {
        return Rare::Fault(e);
    }
    let flags = c.system_flags();
    c.state.step_armed = flags & eflags::TF != 0;
    c.state.resume_armed = flags & eflags::RF != 0;
    c.state.shadow_fresh = false;
    Rare::Next
}
/// After an instruction in stepping mode.
pub fn after(c: &mut X86Cpu<'_>) -> Rare {
    if c.state.resume_armed {
        c.state.resume_armed = false;
        c.set_eflags(0, eflags::RF);
    }
    // A shadow made by this very instruction covers the next one.
    if c.state.shadow_fresh {
        c.state.shadow_fresh = false;
    } else if c.state.shadow != Shadow::No {
        c.state.shadow = Shadow::No;
        c.ask_service();
    }
    if c.state.shadow == Shadow::MovSs {
        // Traps wait: data breakpoints met are kept, a single step is lost (§6.8.3).
        c.state.step_armed = false;
        return Rare::Next;
    }
    let mut bits = std::mem::take(&mut c.state.debug_hits);
    if std::mem::take(&mut c.state.step_armed) {
        bits |= debug::dr6::BS;
    }
    if bits != 0 { Rare::Fault(Exception::db(bits, true)) } else { Rare::Next }
}
/// An access touched a page with a data breakpoint.
pub fn watched(s: &mut State, la: u64, bytes: u32, write: bool) {
    s.debug_hits |= debug::data_breakpoint(s, la, bytes.into(), write);
}
