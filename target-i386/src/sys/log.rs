//! `-d int,mmu`: exceptions, interrupts and control registers, in QEMU's layout.
use super::excp::Event;
use super::prelude::*;
use crate::cpu::dump;
use std::fmt::Write;

/// Somebody wants the log item.
macro_rules! wanted {
    ($item:literal) => {
        tracing::enabled!(target: $item, tracing::Level::TRACE)
    };
}

/// No exception was being delivered when another one came.
pub const NO_OLD: u32 = u32::MAX;

/// The state between two instructions as a log shows it.
fn state(c: &X86Cpu<'_>) -> String {
    dump::text(c.hot, c.state, c.op.ip, dump::Shown::Log { fpu: false })
}

/// An exception was raised, while `old` ([`NO_OLD`]: none) was being delivered.
pub fn raised(e: &Exception, old: u32) {
    if wanted!("int") && matches!(e.source, Source::Fault | Source::Trap | Source::Int1) {
        tracing::trace!(target: "int", "check_exception old: {old:#x} new {:#x}", e.vector);
    }
}

/// A maskable interrupt was accepted.
pub fn accepted(vector: u8) {
    tracing::trace!(target: "int", "Servicing hardware INT={vector:#04x}");
}

/// The handler of an event is about to be entered. Real mode has nothing to tell.
pub fn entering(c: &mut X86Cpu<'_>, e: &Event) {
    if wanted!("int") && c.state.cr0 & cr0::PE != 0 {
        interrupt(c, e)
    }
}
#[cold]
fn interrupt(c: &mut X86Cpu<'_>, e: &Event) {
    let count = c.state.logged;
    c.state.logged += 1;
    let (cs, ss, ip) = (c.state.segs[CS], c.state.segs[SS], c.ip());
    let pc = ip.wrapping_add(cs.base as i32 as u64);
    let mut text = format!(
        "{count:6}: v={:02x} e={:04x} i={} cpl={} IP={:04x}:{ip:016x} pc={pc:016x} SP={:04x}:{:016x}",
        e.vector,
        e.error.unwrap_or(0),
        u8::from(e.software),
        c.cpl(),
        cs.sel,
        ss.sel,
        c.gpr(RSP.index()),
    );
    _ = match e.vector {
        14 => writeln!(text, " CR2={:016x}", c.state.cr2),
        _ => writeln!(text, " env->regs[R_EAX]={:016x}", c.gpr(RAX.index())),
    };
    tracing::trace!(target: "int", "{text}{}", state(c));
}

/// Entry to SMM, or (after it) return from it.
pub fn smm(c: &X86Cpu<'_>, what: &str) {
    if wanted!("int") {
        tracing::trace!(target: "int", "SMM: {what}\n{}", state(c));
    }
}

/// A control register, or the A20 gate, has a new value.
pub fn control(register: &str, value: u64) {
    tracing::trace!(target: "mmu", "{register} update: {register}={value:#010x}");
}
