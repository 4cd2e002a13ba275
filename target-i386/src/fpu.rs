//! x87 and MMX register state. Source: Intel SDM vol. 1, chapter 8.

use serde::{Deserialize, Serialize};

/// The x87 register file and its environment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fpu {
    /// Physical registers R0–R7 as 80-bit images (MMX registers are the low 64 bits).
    pub regs: [u128; 8],
    /// Control word.
    pub fcw: u16,
    /// Status word with TOP.
    pub fsw: u16,
    /// Abridged tag word: a set bit is a register in use.
    pub ftw: u8,
    /// Opcode of the last instruction.
    pub fop: u16,
    /// Address of the last instruction, and its selector.
    pub fip: u64,
    /// Selector of `fip`.
    pub fcs: u16,
    /// Address of the last operand.
    pub fdp: u64,
    /// Selector of `fdp`.
    pub fds: u16,
}
impl Default for Fpu {
    /// FNINIT's values.
    fn default() -> Fpu {
        Fpu { regs: [0; 8], fcw: 0x37f, fsw: 0, ftw: 0, fop: 0, fip: 0, fcs: 0, fdp: 0, fds: 0 }
    }
}
