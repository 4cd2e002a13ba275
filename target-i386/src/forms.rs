//! Forms: all that is known of an instruction before its operands.

use crate::{
    sem::{mmx::Mmx, sse::Sse, string::Str, x87::X87, x87_host::X87Host},
    sys::Sys,
};
use accel::tcg::W;

/// Operation, width of the operation, where the operands are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Form {
    /// What is done.
    pub op: Op,
    /// Width of the operation.
    pub w: W,
    /// First operand.
    pub dst: Loc,
    /// Second operand.
    pub src: Loc,
}
impl Form {
    /// A form.
    pub const fn new(op: Op, w: W, dst: Loc, src: Loc) -> Form {
        Form { op, w, dst, src }
    }
    /// The memory operand's location, if there is one.
    pub fn memory(&self) -> Option<Loc> {
        [self.dst, self.src].into_iter().find(|l| l.is_memory())
    }
}

/// Operand fields of an op: the register of the first operand.
pub const DST: usize = 0;
/// The register of the second operand.
pub const SRC: usize = 1;
/// Base register of the memory operand.
pub const BASE: usize = 2;
/// Index register of the memory operand.
pub const INDEX: usize = 3;

/// Where an operand lives.
///
/// Memory operands are told apart by address arithmetic. Stack operations name the kind of stack by the same values:
/// `M` (RSP), `M32` (ESP, flat), `G32`, `G16` (ESP or SP in a segment that must be checked).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Loc {
    /// Nowhere.
    No,
    /// General register.
    R,
    /// AH, CH, DH, BH.
    Rh,
    /// Immediate.
    I,
    /// `[base+disp]`, 64-bit address, no segment base.
    M,
    /// `[base+index*scale+disp]`, 64-bit address, no segment base.
    Mx,
    /// `[base+disp]`, 32-bit address in a flat segment.
    M32,
    /// `[base+index*scale+disp]`, 32-bit address in a flat segment.
    Mx32,
    /// `seg:[base+index*scale+disp]`, 64-bit address (FS, GS).
    S,
    /// Likewise with a 32-bit offset, in 64-bit mode only.
    S32,
    /// `seg:[imm]`, 64-bit absolute address.
    Abs,
    /// 16-bit address in a segment that must be checked.
    G16,
    /// 32-bit address in a segment that must be checked.
    G32,
    /// XMM register.
    X,
    /// MMX register.
    Mm,
    /// x87 register.
    St,
    /// Segment register.
    Sr,
    /// Control register.
    Cr,
    /// Debug register.
    Dr,
}
impl Loc {
    /// In memory.
    pub const fn is_memory(self) -> bool {
        matches!(self, Loc::M | Loc::Mx | Loc::M32 | Loc::Mx32 | Loc::S | Loc::S32 | Loc::Abs | Loc::G16 | Loc::G32)
    }
}

/// The operations of opcodes 00–3F, and TEST.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the manual's mnemonics")]
pub enum Alu {
    Add,
    Or,
    Adc,
    Sbb,
    And,
    Sub,
    Xor,
    Cmp,
    Test,
}
/// Shifts and rotates.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the manual's mnemonics")]
pub enum Shift {
    Shl,
    Shr,
    Sar,
    Rol,
    Ror,
    Rcl,
    Rcr,
}
/// Bit tests.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the manual's mnemonics")]
pub enum Bt {
    Bt,
    Bts,
    Btr,
    Btc,
}
/// Decimal adjustments.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the manual's mnemonics")]
pub enum Bcd {
    Daa,
    Das,
    Aaa,
    Aas,
    Aam,
    Aad,
}

/// Operations.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the manual's mnemonics")]
pub enum Op {
    Nop,
    Alu(Alu),
    /// ADD OR ADC SBB AND SUB XOR under LOCK.
    LockAlu(Alu),
    Mov,
    /// MOVZX from the width given.
    Zext(W),
    /// MOVSX, MOVSXD, CBW … from the width given.
    Sext(W),
    /// CWD, CDQ, CQO.
    SignInto,
    Lea,
    /// Count in the source: `I` an immediate that is not 0 after masking, `R` CL, `No` zero.
    Shift(Shift),
    /// SHLD (true) or SHRD, count in the immediate or CL.
    DoubleShift(bool, Count),
    /// MFENCE, LFENCE, SFENCE.
    Fence,
    /// One-operand MUL, IMUL (true).
    MulWide(bool),
    /// IMUL r, r/m.
    Imul,
    /// IMUL r, r/m, imm.
    Imul3,
    /// DIV, IDIV (true).
    Div(bool),
    Not,
    Neg,
    Inc,
    Dec,
    LockNot,
    LockNeg,
    LockInc,
    LockDec,
    Xchg,
    Xadd,
    LockXadd,
    Cmpxchg,
    LockCmpxchg,
    /// CMPXCHG8B (B4), CMPXCHG16B (B8).
    CmpxchgWide,
    Bt(Bt),
    LockBt(Bt),
    Bsf,
    Bsr,
    Popcnt,
    Bswap,
    Setcc(u8),
    Cmov(u8),
    Push,
    Pop,
    /// PUSHA, POPA (true).
    PushAll(bool),
    Enter,
    Leave,
    /// Near call of a direct target in the page.
    Call,
    /// Near call of a direct target elsewhere: displacement from the page.
    CallFar,
    /// Near call, indirect.
    CallTo,
    Ret,
    Jmp,
    /// Near jump to a direct target elsewhere.
    JmpFar,
    JmpTo,
    Jcc(u8),
    /// 16-bit conditional jump to another page, where IP may wrap.
    JccFar(u8),
    /// LOOP, LOOPE, LOOPNE, JCXZ in this order; the width is that of the counter.
    Loop(u8),
    /// A near branch whose target must be checked against the code segment's limit.
    Branch(Branch),
    /// One element of a string.
    Element(Str),
    /// A repeated string instruction.
    Str(Str, Rep),
    Bcd(Bcd),
    Lahf,
    Sahf,
    Xlat,
    Clc,
    Stc,
    Cmc,
    Cld,
    Std,
    Salc,
    Bound,
    Movnti,
    Sse(Sse),
    Mmx(Mmx),
    X87(X87),
    /// The same on the host's unit.
    X87Host(X87Host),
    /// Runs as a function on the whole CPU.
    Sys(Sys),
    /// An x87, MMX or SSE instruction that may not run now: #NM or #UD.
    NoFpu(Unit),
    /// No such instruction.
    Ud,
}
/// Where a double shift's count is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "named for what they are")]
pub enum Count {
    Imm,
    Cl,
}
/// Near branches in their checked form.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the manual's mnemonics")]
pub enum Branch {
    Call,
    CallTo,
    Ret,
    Jmp,
    JmpTo,
    Jcc(u8),
    Loop(u8),
}
/// Repeat prefix that applies.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Rep {
    /// REP, REPE.
    E,
    /// REPNE.
    Ne,
}
/// Floating-point units.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "named for what they are")]
pub enum Unit {
    X87,
    Mmx,
    Sse,
}
