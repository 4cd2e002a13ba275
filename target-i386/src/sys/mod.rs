//! Rare system instructions and everything the processor does by itself: page walks, segmentation, exceptions.
//! Tier 0 only; plain functions on [`Cpu`].

pub mod cpuid;

use crate::{X86, exception::Exception, forms::Form, state::State};
use accel::tcg::{Access, Cpu, Hot, Leaf, Phys, Rare, W};
use iced_x86::Instruction;

/// A CPU of this architecture, for the length of one rare instruction or event.
pub type X86Cpu<'a> = Cpu<'a, X86>;
/// What rare code returns.
pub type Outcome = Result<Rare<Exception>, Exception>;

/// The system instructions, by what runs them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Sys {
    /// An opcode that does not exist here.
    Ud,
}

/// The system instruction that `i` is, with the width of its operation; `None`: not one of ours.
pub fn classify(i: &Instruction, mode: u32) -> Option<(Sys, W)> {
    let _ = (i, mode);
    None
}
/// Runs a system instruction.
pub fn run(cpu: &mut X86Cpu<'_>, f: Form, op: Sys) -> Outcome {
    let _ = (cpu, f);
    match op {
        Sys::Ud => Err(Exception::ud()),
    }
}
/// Walks the page tables.
pub fn walk(state: &mut State, phys: &mut Phys<'_>, la: u64, access: Access) -> Result<Leaf, Exception> {
    let _ = (phys, access);
    let pa = la & !0xfff & state.a20_mask;
    Ok(Leaf { pa, read: true, write: true, exec: true, global: false, size: 4096, watch: false })
}
/// Full check of an access to segment `seg` outside of 64-bit mode.
pub fn segment(hot: &Hot, state: &State, seg: u8, offset: u64, bytes: u32, write: bool) -> Result<u64, Exception> {
    let _ = (hot, bytes, write);
    Ok(state.segs.get(seg as usize).map_or(0, |s| s.base).wrapping_add(offset) & 0xffff_ffff)
}
/// Enters the handler of an exception raised at `cpu.op.ip`; double and triple faults included.
pub fn deliver(cpu: &mut X86Cpu<'_>, e: Exception) -> Rare<Exception> {
    let _ = e;
    Rare::Exit(cpu.op.ip, crate::EXIT_SHUTDOWN)
}
/// Accepts a pending event at an instruction boundary.
pub fn service(cpu: &mut X86Cpu<'_>) -> Rare<Exception> {
    let _ = cpu;
    Rare::Next
}
/// Instructions must run one by one.
pub fn stepping(state: &State) -> bool {
    let _ = state;
    false
}
/// Before an instruction in stepping mode.
pub fn before(cpu: &mut X86Cpu<'_>) -> Rare<Exception> {
    let _ = cpu;
    Rare::Next
}
/// After an instruction in stepping mode.
pub fn after(cpu: &mut X86Cpu<'_>) -> Rare<Exception> {
    let _ = cpu;
    Rare::Next
}
/// A data breakpoint's page was touched.
pub fn watched(state: &mut State, la: u64, bytes: u32, write: bool) {
    let _ = (state, la, bytes, write);
}
