//! MMX: rare functions on the x87 registers' low halves.

use crate::{
    forms::{Form, Op},
    sys::{Outcome, X86Cpu},
};
use accel::tcg::W;
use iced_x86::Instruction;

/// The MMX instructions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mmx {
    /// EMMS.
    Emms,
}
/// The operation of an MMX instruction and its width; `None`: not one of ours.
pub fn classify(i: &Instruction) -> Option<(Op, W)> {
    let _ = i;
    None
}
/// Runs it.
pub fn run(cpu: &mut X86Cpu<'_>, f: Form, op: Mmx) -> Outcome {
    let _ = f;
    match op {
        Mmx::Emms => cpu.state.fpu.ftw = 0,
    }
    Ok(accel::tcg::Rare::Next)
}
