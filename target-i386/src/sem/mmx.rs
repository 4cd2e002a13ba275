//! MMX, and the SSE and SSE2 additions to it: rare functions on the significands of the x87 registers. Source: Intel SDM
//! vol. 1 chapter 9; vol. 2.
//!
//! Operations are those of the 128-bit file on the low half; where an operation mixes both halves (packing, unpacking the
//! upper half) the operands are laid out so that the low half of the result is the one wanted.

use super::{
    sse,
    sse_rare::{masked_store, mmx_ready},
};
use crate::{
    exception::Exception,
    forms::{DST, Form, Loc, Op, SRC},
    operand,
    sys::{Outcome, X86Cpu},
};
use accel::tcg::{
    Rare,
    W::{self, *},
    XBin, XShift, XShuffle,
    vector::soft_int,
};
use iced_x86::{Instruction, Mnemonic, OpKind};

/// The MMX instructions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the manual's mnemonics")]
pub enum Mmx {
    Emms,
    /// `dst = dst op src`.
    Bin(XBin),
    Shift(XShift),
    /// MOVD, MOVQ into an MMX register.
    Load,
    /// MOVD, MOVQ, MOVNTQ out of an MMX register.
    Store,
    Pshufw,
    Pmovmskb,
    Pextrw,
    Pinsrw,
    Maskmovq,
}
/// The operation of an MMX instruction and its width; `None`: not one of ours.
pub fn classify(i: &Instruction) -> Option<(Op, W)> {
    use Mnemonic::*;
    let mmx = |n: u32| i.op_count() > n && i.op_kind(n) == OpKind::Register && i.op_register(n).is_mm();
    if i.mnemonic() == Emms {
        return Some((Op::Mmx(Mmx::Emms), B8));
    }
    if !mmx(0) && !mmx(1) || sse_rare_takes(i) {
        return None;
    }
    let (op, w) = match i.mnemonic() {
        Movd | Movq | Movntq if mmx(0) => (Mmx::Load, width(i, 1)),
        Movd | Movq | Movntq => (Mmx::Store, width(i, 0)),
        Pshufw => (Mmx::Pshufw, B8),
        Pmovmskb => (Mmx::Pmovmskb, B4),
        Pextrw => (Mmx::Pextrw, B4),
        Pinsrw => (Mmx::Pinsrw, B2),
        Maskmovq => (Mmx::Maskmovq, B8),
        _ => match (sse::integer(i), sse::shift(i)) {
            (Some(x), _) => (Mmx::Bin(x), B8),
            (_, Some(s)) => (Mmx::Shift(s), B8),
            _ => return None,
        },
    };
    Some((Op::Mmx(op), w))
}
fn sse_rare_takes(i: &Instruction) -> bool {
    super::sse_rare::classify(i).is_some()
}
fn width(i: &Instruction, n: u32) -> W {
    let bytes = if i.op_kind(n) == OpKind::Memory { i.memory_size().size() } else { i.op_register(n).size() };
    if bytes == 4 { B4 } else { B8 }
}

/// The source: an MMX or general register, or memory of the form's width.
fn source(cpu: &mut X86Cpu<'_>, f: Form, w: W) -> Result<u64, Exception> {
    match f.src {
        Loc::Mm => Ok(cpu.state.fpu.mmx(cpu.op.r[SRC].index())),
        l => operand::read(cpu, w, f, l, SRC),
    }
}
/// Bytes that the memory operand of `op` has: PUNPCKLxx reads only the half it uses.
fn memory(op: XBin) -> W {
    if matches!(op, XBin::UnpackLo(_)) { B4 } else { B8 }
}
fn bin(op: XBin, a: u64, b: u64) -> u64 {
    let (x, y) = (a as u128, b as u128);
    let r = match op {
        // Words of both operands side by side; the packed result of the pair is the low half.
        XBin::PackSigned(_) | XBin::PackUnsigned16 => soft_int::xbin(op, y << 64 | x, 0),
        XBin::UnpackHi(w) => soft_int::xbin(XBin::UnpackLo(w), x, y) >> 64,
        _ => soft_int::xbin(op, x, y),
    };
    r as u64
}

/// Runs it.
pub fn run(cpu: &mut X86Cpu<'_>, f: Form, op: Mmx) -> Outcome {
    mmx_ready(cpu)?;
    let d = cpu.op.r[DST].index();
    let value = match op {
        Mmx::Emms => {
            cpu.state.fpu.enter_mmx();
            cpu.state.fpu.ftw = 0;
            return Ok(Rare::Next);
        }
        Mmx::Bin(op) => {
            let b = source(cpu, f, memory(op))?;
            bin(op, cpu.state.fpu.mmx(d), b)
        }
        Mmx::Shift(op) => {
            let n = if f.src == Loc::I { cpu.op.imm & 0xff } else { source(cpu, f, B8)? };
            soft_int::xshift(op, cpu.state.fpu.mmx(d) as u128, n) as u64
        }
        Mmx::Load => source(cpu, f, f.w)?,
        Mmx::Pshufw => {
            let b = source(cpu, f, B8)?;
            soft_int::xshuffle(XShuffle::Lw, 0, b as u128, cpu.op.imm as u8) as u64
        }
        Mmx::Pinsrw => {
            let v = source(cpu, f, B2)?;
            let at = 16 * (cpu.op.imm & 3);
            cpu.state.fpu.mmx(d) & !(0xffff << at) | (v & 0xffff) << at
        }
        Mmx::Store => {
            let v = cpu.state.fpu.mmx(cpu.op.r[SRC].index()) & f.w.mask();
            match f.dst {
                Loc::Mm => v,
                l => {
                    operand::write(cpu, f.w, f, l, DST, v)?;
                    cpu.state.fpu.enter_mmx();
                    return Ok(Rare::Next);
                }
            }
        }
        Mmx::Pmovmskb | Mmx::Pextrw => {
            let v = cpu.state.fpu.mmx(cpu.op.r[SRC].index());
            cpu.hot.regs[d] = match op {
                Mmx::Pmovmskb => soft_int::xmask(B1, v as u128),
                _ => v >> (16 * (cpu.op.imm & 3)) & 0xffff,
            };
            cpu.state.fpu.enter_mmx();
            return Ok(Rare::Next);
        }
        Mmx::Maskmovq => {
            let (data, mask) = (cpu.state.fpu.mmx(d) as u128, cpu.state.fpu.mmx(cpu.op.r[SRC].index()) as u128);
            cpu.state.fpu.enter_mmx();
            masked_store(cpu, f, data, mask, 8)?;
            return Ok(Rare::Next);
        }
    };
    cpu.state.fpu.enter_mmx();
    cpu.state.fpu.set_mmx(d, value);
    Ok(Rare::Next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_and_unpacking_stay_in_the_half() {
        let (a, b) = (0x8000_7fff_0001_ffff, 0x0100_00ff_ff00_0002);
        assert_eq!(bin(XBin::PackSigned(B2), a, b), 0x7f7f_8002_807f_01ff);
        assert_eq!(bin(XBin::PackUnsigned16, a, b), 0xffff_0002_00ff_0100);
        assert_eq!(bin(XBin::UnpackLo(B2), a, b), 0xff00_0001_0002_ffff);
        assert_eq!(bin(XBin::UnpackHi(B2), a, b), 0x0100_8000_00ff_7fff);
        assert_eq!(bin(XBin::SumAbsDiff8, 0xff, 1), 254);
    }
}
