//! SSE–SSE3.

use crate::forms::{Form, Op};
use accel::tcg::{Emit, Step, W};
use iced_x86::Instruction;

/// The vector instructions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Sse {
    /// MOVAPS, MOVUPS, MOVDQA …: 128-bit moves.
    Move,
}
/// The operation of an SSE instruction with the width of its integer or memory operand; `None`: not one of ours.
pub fn classify(i: &Instruction) -> Option<(Op, W)> {
    let _ = i;
    None
}
/// Runs it.
#[inline(always)]
pub fn run<E: Emit>(e: &mut E, f: Form, op: Sse) -> Step<E> {
    let _ = (e, f, op);
    Ok(accel::tcg::Flow::Rare)
}
