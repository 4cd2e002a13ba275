//! Operations on 128-bit values, as plain enumerations, and what they compute.
//!
//! Source: Intel SDM vol. 2; the names in the comments are its mnemonics. Every operation has a software meaning
//! (`soft_int`, `soft_fp`, `approx`), safe and the same on every host; x86-64 hosts run the host's own instruction
//! instead (`accel::tcg::host::sse`). The tests compare the two.
//!
//! Floating-point operations follow an MXCSR. On x86-64 the fast path expects the guest's MXCSR in the host's register
//! (`host::fpcr`) with every exception masked; where the guest unmasks one, the software path decides.

pub mod approx;
pub mod native;
pub mod soft_fp;
pub mod soft_int;
#[cfg(all(test, target_arch = "x86_64"))]
mod tests;

use super::ops::{Ops, W};

/// Lanes of a floating-point operation. The scalar forms take the other lanes from the first operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Fp {
    /// Four singles.
    Ps,
    /// Two doubles.
    Pd,
    /// The low single.
    Ss,
    /// The low double.
    Sd,
}
impl Fp {
    /// Width of a lane.
    pub const fn lane(self) -> W {
        match self {
            Fp::Ps | Fp::Ss => W::B4,
            Fp::Pd | Fp::Sd => W::B8,
        }
    }
    /// Only the low lane is operated on.
    pub const fn scalar(self) -> bool {
        matches!(self, Fp::Ss | Fp::Sd)
    }
}

/// Floating-point operation of two operands, on every lane of an [`Fp`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum FpBin {
    /// ADDxx.
    Add,
    /// SUBxx.
    Sub,
    /// MULxx.
    Mul,
    /// DIVxx.
    Div,
    /// MINxx: the second operand unless the first is less.
    Min,
    /// MAXxx: the second operand unless the first is greater.
    Max,
    /// SQRTxx of the second operand.
    Sqrt,
    /// RCPxx of the second operand, approximate, no exceptions.
    Rcp,
    /// RSQRTxx of the second operand, approximate, no exceptions.
    Rsqrt,
    /// CMPxx with predicate 0–7: all ones or all zeros.
    Cmp(u8),
    /// ADDSUBxx: odd lanes added, even lanes subtracted.
    AddSub,
    /// HADDxx: sums of neighbours.
    Hadd,
    /// HSUBxx: differences of neighbours.
    Hsub,
    /// CVTSS2SD (`Sd`), CVTSD2SS (`Ss`): the low lane of the second operand in the other format.
    Resize,
}

/// Integer operation of two 128-bit operands. A width is that of a (source) lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum XBin {
    /// PAND, ANDPS, ANDPD.
    And,
    /// PANDN: `!a & b`.
    Andn,
    /// POR.
    Or,
    /// PXOR.
    Xor,
    /// PADDB/W/D/Q.
    Add(W),
    /// PSUBB/W/D/Q.
    Sub(W),
    /// PADDSB/W.
    AddSatS(W),
    /// PADDUSB/W.
    AddSatU(W),
    /// PSUBSB/W.
    SubSatS(W),
    /// PSUBUSB/W.
    SubSatU(W),
    /// PMULLW.
    MulLo16,
    /// PMULHW.
    MulHi16S,
    /// PMULHUW.
    MulHi16U,
    /// PMULUDQ.
    MulU32,
    /// PMADDWD.
    MulAdd16,
    /// PAVGB/W.
    Avg(W),
    /// PMINUB (bytes), PMINSW (words).
    Min(W),
    /// PMAXUB (bytes), PMAXSW (words).
    Max(W),
    /// PSADBW.
    SumAbsDiff8,
    /// PCMPEQB/W/D.
    CmpEq(W),
    /// PCMPGTB/W/D, signed.
    CmpGt(W),
    /// PUNPCKLxx, UNPCKLPS/PD.
    UnpackLo(W),
    /// PUNPCKHxx, UNPCKHPS/PD.
    UnpackHi(W),
    /// PACKSSWB (words), PACKSSDW (doublewords).
    PackSigned(W),
    /// PACKUSWB.
    PackUnsigned16,
    /// The low half of `b` over the high half of `a`: MOVHPS from memory, MOVLHPS.
    LowToHigh,
    /// The high half of `b` over the low half of `a`: MOVHLPS.
    HighToLow,
}

/// Operation of one 128-bit operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum XUn {
    /// CVTDQ2PS.
    CvtDqPs,
    /// CVTPS2DQ.
    CvtPsDq,
    /// CVTTPS2DQ.
    CvttPsDq,
    /// CVTDQ2PD: the low two doublewords.
    CvtDqPd,
    /// CVTPD2DQ: the result in the low half, the high half zero.
    CvtPdDq,
    /// CVTTPD2DQ, likewise.
    CvttPdDq,
    /// CVTPS2PD: the low two singles.
    CvtPsPd,
    /// CVTPD2PS: the result in the low half, the high half zero.
    CvtPdPs,
    /// MOVDDUP.
    Dup64,
    /// MOVSLDUP.
    DupEven32,
    /// MOVSHDUP.
    DupOdd32,
}

/// Shift of every lane by one count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum XShift {
    /// PSLLW/D/Q; a count of the lane's width or more gives zero.
    Shl(W),
    /// PSRLW/D/Q, likewise.
    Shr(W),
    /// PSRAW/D; larger counts act as the largest.
    Sar(W),
    /// PSLLDQ: by bytes; 16 or more gives zero.
    ShlBytes,
    /// PSRLDQ, likewise.
    ShrBytes,
}

/// Shuffle by an immediate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum XShuffle {
    /// PSHUFD of `b`.
    D,
    /// PSHUFLW of `b`.
    Lw,
    /// PSHUFHW of `b`.
    Hw,
    /// SHUFPS.
    Ps,
    /// SHUFPD.
    Pd,
}

impl FpBin {
    /// The operation reads MXCSR and may set its flags.
    pub const fn uses_mxcsr(self) -> bool {
        !matches!(self, FpBin::Rcp | FpBin::Rsqrt)
    }
}
impl XUn {
    /// The operation reads MXCSR and may set its flags.
    pub const fn uses_mxcsr(self) -> bool {
        !matches!(self, XUn::Dup64 | XUn::DupEven32 | XUn::DupOdd32 | XUn::CvtDqPd)
    }
}

/// MXCSR fields (SDM vol. 1 §10.2.3).
pub mod mxcsr {
    /// The six sticky flags.
    pub const FLAGS: u32 = 0x3f;
    /// Denormals are zeros.
    pub const DAZ: u32 = 1 << 6;
    /// The six masks; a mask is its flag shifted left by 7.
    pub const MASKS: u32 = 0x3f << 7;
    /// Distance between a flag and its mask.
    pub const MASK_SHIFT: u32 = 7;
    /// Position of the two rounding control bits.
    pub const RC_SHIFT: u32 = 13;
    /// Flush to zero.
    pub const FTZ: u32 = 1 << 15;
    /// Value after power-up and reset.
    pub const RESET: u32 = 0x1f80;
    /// The bits that exist (MXCSR_MASK).
    pub const VALID: u32 = 0xffff;
}

/// 128-bit formulas.
pub trait Vector: Ops {
    /// A 128-bit value.
    type X: Copy;
    /// `a op b`.
    fn xbin(&mut self, op: XBin, a: Self::X, b: Self::X) -> Self::X;
    /// `a op b` on the lanes of `t`.
    fn xfp(&mut self, op: FpBin, t: Fp, a: Self::X, b: Self::X) -> Self::X;
    /// `op x`.
    fn xun(&mut self, op: XUn, x: Self::X) -> Self::X;
    /// A shift by the 64-bit `count`.
    fn xshift(&mut self, op: XShift, x: Self::X, count: Self::V) -> Self::X;
    /// A shuffle by the byte `imm`.
    fn xshuffle(&mut self, op: XShuffle, a: Self::X, b: Self::X, imm: Self::V) -> Self::X;
    /// The sign bits of all lanes of width `w`, as a 32-bit integer.
    fn xmask(&mut self, w: W, x: Self::X) -> Self::V;
    /// The low `w`.
    fn xlow(&mut self, w: W, x: Self::X) -> Self::V;
    /// The upper 64 bits.
    fn xhigh(&mut self, x: Self::X) -> Self::V;
    /// Zero extension of a `w`-wide integer.
    fn xzext(&mut self, w: W, v: Self::V) -> Self::X;
    /// `x` with its low `w` replaced.
    fn xset_low(&mut self, w: W, x: Self::X, v: Self::V) -> Self::X;
    /// Word `imm mod 8`, zero-extended to 32 bits (PEXTRW).
    fn xword(&mut self, x: Self::X, imm: Self::V) -> Self::V;
    /// `x` with word `imm mod 8` replaced by the low word of `v` (PINSRW).
    fn xset_word(&mut self, x: Self::X, v: Self::V, imm: Self::V) -> Self::X;
    /// Comparison of the low lanes of width `w`: less, equal (each also true if unordered), unordered; the CF, ZF and PF of
    /// UCOMISx (`quiet`) and COMISx.
    fn xcompare(&mut self, w: W, quiet: bool, a: Self::X, b: Self::X) -> [Self::C; 3];
    /// The low lane, of width `from`, as a signed integer of width `to`; 1 and zeros if it does not fit.
    fn xto_int(&mut self, from: W, to: W, truncate: bool, x: Self::X) -> Self::V;
    /// `a` with the low lane, of width `to`, replaced by the signed integer `v` of width `from`.
    fn xfrom_int(&mut self, from: W, to: W, a: Self::X, v: Self::V) -> Self::X;
}
