//! The state of the machine before and after a case, and who can run one.

use crate::layout::{DATA_LEN, Layout};
use std::fmt;

/// The 512-byte image of FXSAVE64 (SDM vol. 1 §10.5.1): x87, MMX, SSE and MXCSR.
#[repr(C, align(64))]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fx(pub [u8; 512]);

impl Default for Fx {
    /// After FNINIT, MXCSR 1F80h.
    fn default() -> Fx {
        let mut fx = Fx([0; 512]);
        fx.set16(0, 0x37f);
        fx.set_mxcsr(0x1f80);
        fx
    }
}

impl Fx {
    fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0[at..at + N].try_into().expect("a slice of N bytes")
    }
    fn set16(&mut self, at: usize, v: u16) {
        self.0[at..at + 2].copy_from_slice(&v.to_le_bytes());
    }
    /// x87 control word.
    pub fn fcw(&self) -> u16 {
        u16::from_le_bytes(self.get(0))
    }
    /// Sets the x87 control word.
    pub fn set_fcw(&mut self, v: u16) {
        self.set16(0, v);
    }
    /// x87 status word.
    pub fn fsw(&self) -> u16 {
        u16::from_le_bytes(self.get(2))
    }
    /// Sets the x87 status word.
    pub fn set_fsw(&mut self, v: u16) {
        self.set16(2, v);
    }
    /// Abridged tag word: bit `n` set when physical register `n` is in use.
    pub fn ftw(&self) -> u8 {
        self.0[4]
    }
    /// Sets the abridged tag word.
    pub fn set_ftw(&mut self, v: u8) {
        self.0[4] = v;
    }
    /// MXCSR.
    pub fn mxcsr(&self) -> u32 {
        u32::from_le_bytes(self.get(24))
    }
    /// Sets MXCSR.
    pub fn set_mxcsr(&mut self, v: u32) {
        self.0[24..28].copy_from_slice(&v.to_le_bytes());
    }
    /// ST(i), 80 bits in the low end.
    pub fn st(&self, i: usize) -> u128 {
        u128::from_le_bytes(self.get(32 + 16 * i)) & ((1 << 80) - 1)
    }
    /// Sets ST(i).
    pub fn set_st(&mut self, i: usize, v: u128) {
        self.0[32 + 16 * i..42 + 16 * i].copy_from_slice(&v.to_le_bytes()[..10]);
    }
    /// XMM register `i`.
    pub fn xmm(&self, i: usize) -> u128 {
        u128::from_le_bytes(self.get(160 + 16 * i))
    }
    /// Sets XMM register `i`.
    pub fn set_xmm(&mut self, i: usize, v: u128) {
        self.0[160 + 16 * i..176 + 16 * i].copy_from_slice(&v.to_le_bytes());
    }
}

impl fmt::Debug for Fx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fcw={:x} fsw={:x} ftw={:x} mxcsr={:x}", self.fcw(), self.fsw(), self.ftw(), self.mxcsr())
    }
}

/// Registers. General registers in encoding order: rax rcx rdx rbx rsp rbp rsi rdi r8 … r15.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// General registers.
    pub gpr: [u64; 16],
    /// Offset of the next instruction in CS.
    pub rip: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// Everything FXSAVE64 saves.
    pub fx: Fx,
}

/// Code size; all of it user mode, with flat segments but for 16-bit code ([`Layout::view`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// 64-bit mode.
    Bits64,
    /// Compatibility mode, 32-bit code segment.
    Bits32,
    /// Compatibility mode, 16-bit code, data and stack segments.
    Bits16,
}

impl Mode {
    /// 16, 32 or 64.
    pub const fn bits(self) -> u32 {
        match self {
            Mode::Bits64 => 64,
            Mode::Bits32 => 32,
            Mode::Bits16 => 16,
        }
    }
    /// All bits of a general register in this mode.
    pub const fn mask(self) -> u64 {
        match self {
            Mode::Bits64 => u64::MAX,
            _ => u32::MAX as u64,
        }
    }
    /// General (and XMM) registers there are.
    pub const fn registers(self) -> usize {
        match self {
            Mode::Bits64 => 16,
            _ => 8,
        }
    }
}

/// What to run, on what.
#[derive(Clone, Debug)]
pub struct Case {
    /// Code size.
    pub mode: Mode,
    /// One instruction, or several that follow each other.
    pub code: Vec<u8>,
    /// How many instructions `code` holds.
    pub count: u32,
    /// Registers before; `rip` is where `code` lies.
    pub state: State,
    /// Changes to the data pages before: offset from their start, bytes.
    pub memory: Vec<(usize, Vec<u8>)>,
}

/// An exception, as the CPU reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Vector, 0-31.
    pub vector: u8,
    /// Error code; 0 where the vector has none.
    pub error: u32,
    /// CR2 of a page fault, else 0.
    pub address: u64,
}

/// After a case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Registers. After a fault: as its handler finds them, `rip` being the saved one.
    pub state: State,
    /// The exception raised, if any. A branch to a place without code is no exception of the branch.
    pub fault: Option<Fault>,
}

impl Outcome {
    /// Tells faults of `case` from those of the place it branched to: INT3 fills the code pages, and what lies outside of them cannot be
    /// fetched.
    pub fn settle(&mut self, case: &Case) {
        let (at, end) = (case.state.rip, case.state.rip + case.code.len() as u64);
        let rip = self.state.rip;
        match self.fault {
            Some(Fault { vector: 3, .. }) if !(rip > at && rip <= end) => {
                self.state.rip -= 1;
                self.fault = None;
            }
            Some(Fault { vector: 14 | 13, .. }) if !(rip >= at && rip < end) => self.fault = None,
            _ => {}
        }
    }
}

/// Somebody who can run a case.
pub trait Executor {
    /// For messages.
    fn name(&self) -> &str;
    /// The addresses in use.
    fn layout(&self) -> Layout;
    /// Runs `case`: data pages get the pattern and the case's changes, then its code runs until it is left or faults.
    fn run(&mut self, case: &Case) -> Outcome;
    /// The data pages after the last run.
    fn memory(&self) -> &[u8; DATA_LEN];
}
