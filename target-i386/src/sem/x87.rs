//! x87: rare functions.

use crate::{
    forms::{Form, Op},
    sys::{Outcome, X86Cpu},
};
use accel::tcg::W;
use iced_x86::Instruction;

/// The x87 instructions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum X87 {
    /// FNINIT.
    Fninit,
}
/// The operation of an x87 instruction and its width; `None`: not one of ours.
pub fn classify(i: &Instruction) -> Option<(Op, W)> {
    let _ = i;
    None
}
/// Runs it.
pub fn run(cpu: &mut X86Cpu<'_>, f: Form, op: X87) -> Outcome {
    let _ = f;
    match op {
        X87::Fninit => cpu.state.fpu = crate::fpu::Fpu::default(),
    }
    Ok(accel::tcg::Rare::Next)
}
