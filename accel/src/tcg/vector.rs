//! 128-bit formulas of instruction meanings.

use super::ops::{Ops, W};

/// Operations of two 128-bit values. `F64`, `F32`: by lanes under the guest's MXCSR; a trailing `S`: low lane only, the
/// rest is taken from the first operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[expect(missing_docs, reason = "named for what they are")]
pub enum XBin {
    And,
    Andn,
    Or,
    Xor,
}

/// 128-bit formulas.
pub trait Vector: Ops {
    /// A 128-bit value.
    type X: Copy;
    /// `a op b`.
    fn xbin(&mut self, op: XBin, a: Self::X, b: Self::X) -> Self::X;
    /// The low `w`.
    fn xlow(&mut self, w: W, x: Self::X) -> Self::V;
    /// Zero extension of a `w`-wide integer.
    fn xzext(&mut self, w: W, v: Self::V) -> Self::X;
    /// `x` with its low `w` replaced.
    fn xset_low(&mut self, w: W, x: Self::X, v: Self::V) -> Self::X;
}
