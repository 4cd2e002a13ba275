//! The x87 unit: numbers, register stack, what its instructions do to it. Source: Intel SDM vol. 1, chapter 8.
//!
//! | module | what |
//! |---|---|
//! | `arith` | add, subtract, multiply, divide, square root: the host's x87 on x86-64, `soft` elsewhere |
//! | `soft` | the same in software, and comparison, rounding, scaling |
//! | `convert` | memory formats, constants, BCD |
//! | `prem` | FPREM, FPREM1, FXTRACT |
//! | `transcendental` | F2XM1 … FPATAN, over `wide` and `consts` |
//! | `stack` | the register stack and exceptions of [`Fpu`] |
//! | `image` | FSTENV, FSAVE, FXSAVE images |
//! | `held` | to and from the host's unit |

#[cfg(test)]
mod apfloat_tests;
pub mod arith;
pub mod consts;
pub mod convert;
mod held;
pub mod image;
pub mod prem;
pub mod soft;
pub mod stack;
#[cfg(test)]
mod stack_tests;
#[cfg(all(test, target_arch = "x86_64"))]
mod tests;
pub mod transcendental;
pub mod wide;

pub use accel::tcg::host::f80::F80;
use serde::{Deserialize, Serialize};

/// The x87 register file and its environment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fpu {
    /// Physical registers R0–R7 (MMX registers are the significands).
    pub regs: [F80; 8],
    /// Control word.
    pub fcw: u16,
    /// Status word with TOP.
    pub fsw: u16,
    /// Abridged tag word: a set bit is a register in use.
    pub ftw: u8,
    /// Opcode of the last instruction that raised an unmasked exception.
    pub fop: u16,
    /// Offset of the last instruction.
    pub fip: u64,
    /// Selector of `fip`.
    pub fcs: u16,
    /// Offset of the last memory operand.
    pub fdp: u64,
    /// Selector of `fdp`.
    pub fds: u16,
}
impl Default for Fpu {
    /// FNINIT's values.
    fn default() -> Fpu {
        Fpu { regs: [F80::default(); 8], fcw: 0x37f, fsw: 0, ftw: 0, fop: 0, fip: 0, fcs: 0, fdp: 0, fds: 0 }
    }
}

/// Bits of the status word (SDM vol. 1 §8.1.3). The exception flags are those of `softfp::flag`.
pub mod sw {
    /// Stack fault.
    pub const SF: u16 = 1 << 6;
    /// Exception summary: an unmasked exception is pending.
    pub const ES: u16 = 1 << 7;
    /// Condition code 0.
    pub const C0: u16 = 1 << 8;
    /// Condition code 1: rounded up, or stack overflow rather than underflow.
    pub const C1: u16 = 1 << 9;
    /// Condition code 2.
    pub const C2: u16 = 1 << 10;
    /// Condition code 3.
    pub const C3: u16 = 1 << 14;
    /// Busy: equal to ES.
    pub const B: u16 = 1 << 15;
    /// Position of TOP.
    pub const TOP: u32 = 11;
}
