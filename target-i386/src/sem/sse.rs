//! SSE, SSE2 and SSE3. Source: Intel SDM vol. 2; vol. 1 §10–§12.
//!
//! Every function resolves its memory operand before it changes anything. 16-byte operands must be aligned (#GP) unless
//! the instruction says otherwise. While MXCSR leaves an exception unmasked the decoder wraps floating-point operations
//! in [`Sse::Checked`], which runs them in software and raises #XM before any change.
//!
//! Left to `sse_rare`: what touches MMX registers or MXCSR, MASKMOVDQU, CLFLUSH.

use super::{
    flags::Kind,
    operands::{at, from_offset, get, offset, put},
};
use crate::{
    forms::{DST, Form, Loc, Op, SRC},
    state::mode,
};
use accel::tcg::{
    Deferred, Emit, Flow, Fp, FpBin, Step,
    W::{self, *},
    XBin, XShift, XShuffle, XUn,
};
use iced_x86::{Instruction, Mnemonic, OpKind};

pub use super::sse_rare::{SseRare, mxcsr, rare, set_mxcsr};

/// The vector instructions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Sse {
    /// `dst = dst op src`.
    Bin(XBin),
    /// `dst = dst op src` on floating-point lanes.
    Fp(FpBin, Fp),
    /// `dst = op src`.
    Un(XUn),
    /// Shift of `dst` by an immediate or the low half of `src`.
    Shift(XShift),
    /// Shuffle by an immediate.
    Shuffle(XShuffle),
    /// MOVAPS, MOVDQA, MOVNTPS … (true: memory must be aligned), MOVUPS, MOVDQU, LDDQU.
    Move(bool),
    /// MOVSS, MOVSD between registers, MOVLPS from memory: the low lane is replaced.
    MoveLow,
    /// MOVSS, MOVSD, MOVQ, MOVD into a vector register: the rest becomes zero.
    MoveZext,
    /// MOVSS, MOVSD, MOVQ, MOVD, MOVLPS out of a vector register.
    StoreLow,
    /// MOVHPS to memory.
    StoreHigh,
    /// MOVMSKPS, MOVMSKPD, PMOVMSKB.
    Mask(W),
    /// PEXTRW.
    ExtractWord,
    /// PINSRW.
    InsertWord,
    /// UCOMISS, UCOMISD (quiet), COMISS, COMISD. The width is the lane's.
    Comis(bool),
    /// CVTxx2SI from a lane of that width; truncates.
    ToInt(W, bool),
    /// CVTSI2xx to a lane of that width.
    FromInt(W),
    /// Runs as a function on the whole CPU.
    Rare(SseRare),
    /// A floating-point operation while an exception is unmasked.
    Checked(Arith),
}

/// The floating-point operations that MXCSR rules, as values of their own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "as in `Sse`")]
pub enum Arith {
    Fp(FpBin, Fp),
    Un(XUn),
    Comis(bool),
    ToInt(W, bool),
    FromInt(W),
}
impl Sse {
    /// The operation in its checked form, if MXCSR rules it.
    pub fn checked(self) -> Option<Arith> {
        Some(match self {
            Sse::Fp(op, t) if op.uses_mxcsr() => Arith::Fp(op, t),
            Sse::Un(u) if u.uses_mxcsr() => Arith::Un(u),
            Sse::Comis(q) => Arith::Comis(q),
            Sse::ToInt(w, t) => Arith::ToInt(w, t),
            Sse::FromInt(w) => Arith::FromInt(w),
            _ => return None,
        })
    }
}

/// Bytes that the memory operand of an integer operation has, and whether they must be aligned.
pub fn memory(op: XBin) -> (u32, bool) {
    if op == XBin::LowToHigh { (8, false) } else { (16, true) }
}
/// The same for floating-point operations.
pub fn memory_fp(op: FpBin, t: Fp) -> (u32, bool) {
    match (op, t) {
        (FpBin::Resize, Fp::Sd) => (4, false),
        (FpBin::Resize, _) => (8, false),
        _ if t.scalar() => (t.lane().bytes(), false),
        _ => (16, true),
    }
}
/// The same for one-operand operations.
pub fn memory_un(op: XUn) -> (u32, bool) {
    match op {
        XUn::CvtDqPd | XUn::CvtPsPd | XUn::Dup64 => (8, false),
        _ => (16, true),
    }
}

fn lanes(i: &Instruction) -> Option<Fp> {
    use Mnemonic::*;
    Some(match i.mnemonic() {
        Addps | Subps | Mulps | Divps | Minps | Maxps | Sqrtps | Rcpps | Rsqrtps | Cmpps | Addsubps | Haddps
        | Hsubps => Fp::Ps,
        Addpd | Subpd | Mulpd | Divpd | Minpd | Maxpd | Sqrtpd | Cmppd | Addsubpd | Haddpd | Hsubpd => Fp::Pd,
        Addss | Subss | Mulss | Divss | Minss | Maxss | Sqrtss | Rcpss | Rsqrtss | Cmpss => Fp::Ss,
        Addsd | Subsd | Mulsd | Divsd | Minsd | Maxsd | Sqrtsd | Cmpsd => Fp::Sd,
        _ => return None,
    })
}
fn arithmetic(i: &Instruction) -> Option<(Sse, W)> {
    use Mnemonic::*;
    let t = lanes(i)?;
    let op = match i.mnemonic() {
        Addps | Addpd | Addss | Addsd => FpBin::Add,
        Subps | Subpd | Subss | Subsd => FpBin::Sub,
        Mulps | Mulpd | Mulss | Mulsd => FpBin::Mul,
        Divps | Divpd | Divss | Divsd => FpBin::Div,
        Minps | Minpd | Minss | Minsd => FpBin::Min,
        Maxps | Maxpd | Maxss | Maxsd => FpBin::Max,
        Sqrtps | Sqrtpd | Sqrtss | Sqrtsd => FpBin::Sqrt,
        Rcpps | Rcpss => FpBin::Rcp,
        Rsqrtps | Rsqrtss => FpBin::Rsqrt,
        Addsubps | Addsubpd => FpBin::AddSub,
        Haddps | Haddpd => FpBin::Hadd,
        Hsubps | Hsubpd => FpBin::Hsub,
        _ => FpBin::Cmp(i.immediate8() & 7),
    };
    Some((Sse::Fp(op, t), t.lane()))
}
/// Integer operations that MMX and SSE2 share by name.
pub fn integer(i: &Instruction) -> Option<XBin> {
    use Mnemonic::*;
    use XBin as X;
    Some(match i.mnemonic() {
        Pand => X::And,
        Pandn => X::Andn,
        Por => X::Or,
        Pxor => X::Xor,
        Paddb => X::Add(B1),
        Paddw => X::Add(B2),
        Paddd => X::Add(B4),
        Paddq => X::Add(B8),
        Psubb => X::Sub(B1),
        Psubw => X::Sub(B2),
        Psubd => X::Sub(B4),
        Psubq => X::Sub(B8),
        Paddsb => X::AddSatS(B1),
        Paddsw => X::AddSatS(B2),
        Paddusb => X::AddSatU(B1),
        Paddusw => X::AddSatU(B2),
        Psubsb => X::SubSatS(B1),
        Psubsw => X::SubSatS(B2),
        Psubusb => X::SubSatU(B1),
        Psubusw => X::SubSatU(B2),
        Pmullw => X::MulLo16,
        Pmulhw => X::MulHi16S,
        Pmulhuw => X::MulHi16U,
        Pmuludq => X::MulU32,
        Pmaddwd => X::MulAdd16,
        Pavgb => X::Avg(B1),
        Pavgw => X::Avg(B2),
        Pminub => X::Min(B1),
        Pminsw => X::Min(B2),
        Pmaxub => X::Max(B1),
        Pmaxsw => X::Max(B2),
        Psadbw => X::SumAbsDiff8,
        Pcmpeqb => X::CmpEq(B1),
        Pcmpeqw => X::CmpEq(B2),
        Pcmpeqd => X::CmpEq(B4),
        Pcmpgtb => X::CmpGt(B1),
        Pcmpgtw => X::CmpGt(B2),
        Pcmpgtd => X::CmpGt(B4),
        Punpcklbw => X::UnpackLo(B1),
        Punpcklwd => X::UnpackLo(B2),
        Punpckldq => X::UnpackLo(B4),
        Punpckhbw => X::UnpackHi(B1),
        Punpckhwd => X::UnpackHi(B2),
        Punpckhdq => X::UnpackHi(B4),
        Packsswb => X::PackSigned(B2),
        Packssdw => X::PackSigned(B4),
        Packuswb => X::PackUnsigned16,
        _ => return None,
    })
}
/// Shifts that MMX and SSE2 share by name.
pub fn shift(i: &Instruction) -> Option<XShift> {
    use Mnemonic::*;
    Some(match i.mnemonic() {
        Psllw => XShift::Shl(B2),
        Pslld => XShift::Shl(B4),
        Psllq => XShift::Shl(B8),
        Psrlw => XShift::Shr(B2),
        Psrld => XShift::Shr(B4),
        Psrlq => XShift::Shr(B8),
        Psraw => XShift::Sar(B2),
        Psrad => XShift::Sar(B4),
        _ => return None,
    })
}
fn integer_width(memory: bool, i: &Instruction, n: u32) -> W {
    let bytes = if memory { i.memory_size().size() } else { i.op_register(n).size() };
    if bytes == 8 { B8 } else { B4 }
}

/// The operation of an SSE instruction with the width of its integer or memory operand; `None`: not one of ours.
/// `code_mode` tells whether floating-point exceptions must be looked for.
pub fn classify(i: &Instruction, code_mode: u32) -> Option<(Op, W)> {
    let (op, w) = plain(i)?;
    if code_mode & mode::SIMD_UNMASKED != 0
        && let Some(a) = op.checked()
    {
        return Some((Op::Sse(Sse::Checked(a)), w));
    }
    Some((Op::Sse(op), w))
}
fn plain(i: &Instruction) -> Option<(Sse, W)> {
    use Mnemonic::*;
    // MMX instructions of the same name, and those that mix both files.
    let mmx = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Register && i.op_register(n).is_mm());
    if let Some(r) = super::sse_rare::classify(i) {
        return Some((Sse::Rare(r), integer_width(true, i, 0)));
    }
    if mmx {
        return None;
    }
    if i.mnemonic() == Movsd
        && i.op_count() == 2
        && i.op_kind(0) != OpKind::Register
        && i.op_kind(1) != OpKind::Register
    {
        return None;
    }
    // The string instructions MOVSD and CMPSD carry the same mnemonics.
    if matches!(i.mnemonic(), Movsd | Cmpsd) && i.is_string_instruction() {
        return None;
    }
    if let Some(a) = arithmetic(i) {
        return Some(a);
    }
    if let Some(x) = integer(i) {
        return Some((Sse::Bin(x), B8));
    }
    if let Some(s) = shift(i) {
        return Some((Sse::Shift(s), B8));
    }
    let stores = i.op_count() > 0 && i.op_kind(0) == OpKind::Memory;
    let loads = i.op_count() > 1 && i.op_kind(1) == OpKind::Memory;
    let low = |w| {
        let op = if stores {
            Sse::StoreLow
        } else if loads {
            Sse::MoveZext
        } else {
            Sse::MoveLow
        };
        (op, w)
    };
    Some(match i.mnemonic() {
        Andps | Andpd => (Sse::Bin(XBin::And), B8),
        Andnps | Andnpd => (Sse::Bin(XBin::Andn), B8),
        Orps | Orpd => (Sse::Bin(XBin::Or), B8),
        Xorps | Xorpd => (Sse::Bin(XBin::Xor), B8),
        Punpcklqdq | Unpcklpd => (Sse::Bin(XBin::UnpackLo(B8)), B8),
        Punpckhqdq | Unpckhpd => (Sse::Bin(XBin::UnpackHi(B8)), B8),
        Unpcklps => (Sse::Bin(XBin::UnpackLo(B4)), B8),
        Unpckhps => (Sse::Bin(XBin::UnpackHi(B4)), B8),
        Movlhps => (Sse::Bin(XBin::LowToHigh), B8),
        Movhlps => (Sse::Bin(XBin::HighToLow), B8),
        Movhps | Movhpd if stores => (Sse::StoreHigh, B8),
        Movhps | Movhpd => (Sse::Bin(XBin::LowToHigh), B8),
        Movlps | Movlpd if stores => (Sse::StoreLow, B8),
        Movlps | Movlpd => (Sse::MoveLow, B8),
        Cvtss2sd => (Sse::Fp(FpBin::Resize, Fp::Sd), B4),
        Cvtsd2ss => (Sse::Fp(FpBin::Resize, Fp::Ss), B8),
        Cvtdq2ps => (Sse::Un(XUn::CvtDqPs), B8),
        Cvtps2dq => (Sse::Un(XUn::CvtPsDq), B8),
        Cvttps2dq => (Sse::Un(XUn::CvttPsDq), B8),
        Cvtdq2pd => (Sse::Un(XUn::CvtDqPd), B8),
        Cvtpd2dq => (Sse::Un(XUn::CvtPdDq), B8),
        Cvttpd2dq => (Sse::Un(XUn::CvttPdDq), B8),
        Cvtps2pd => (Sse::Un(XUn::CvtPsPd), B8),
        Cvtpd2ps => (Sse::Un(XUn::CvtPdPs), B8),
        Movddup => (Sse::Un(XUn::Dup64), B8),
        Movsldup => (Sse::Un(XUn::DupEven32), B8),
        Movshdup => (Sse::Un(XUn::DupOdd32), B8),
        Pslldq => (Sse::Shift(XShift::ShlBytes), B8),
        Psrldq => (Sse::Shift(XShift::ShrBytes), B8),
        Pshufd => (Sse::Shuffle(XShuffle::D), B8),
        Pshuflw => (Sse::Shuffle(XShuffle::Lw), B8),
        Pshufhw => (Sse::Shuffle(XShuffle::Hw), B8),
        Shufps => (Sse::Shuffle(XShuffle::Ps), B8),
        Shufpd => (Sse::Shuffle(XShuffle::Pd), B8),
        Movaps | Movapd | Movdqa | Movntps | Movntpd | Movntdq => (Sse::Move(true), B8),
        Movups | Movupd | Movdqu | Lddqu => (Sse::Move(false), B8),
        Movss => low(B4),
        Movsd => low(B8),
        // MOVD and MOVQ: to a vector register, or from it to a general register or memory.
        Movd | Movq if i.op_kind(0) == OpKind::Register && i.op_register(0).is_xmm() => {
            let x = i.op_kind(1) == OpKind::Register && i.op_register(1).is_xmm();
            (Sse::MoveZext, if x { B8 } else { integer_width(loads, i, 1) })
        }
        Movd | Movq => (Sse::StoreLow, integer_width(stores, i, 0)),
        Movmskps => (Sse::Mask(B4), B4),
        Movmskpd => (Sse::Mask(B8), B4),
        Pmovmskb => (Sse::Mask(B1), B4),
        Pextrw => (Sse::ExtractWord, B4),
        Pinsrw => (Sse::InsertWord, B2),
        Ucomiss => (Sse::Comis(true), B4),
        Ucomisd => (Sse::Comis(true), B8),
        Comiss => (Sse::Comis(false), B4),
        Comisd => (Sse::Comis(false), B8),
        Cvtss2si => (Sse::ToInt(B4, false), integer_width(false, i, 0)),
        Cvttss2si => (Sse::ToInt(B4, true), integer_width(false, i, 0)),
        Cvtsd2si => (Sse::ToInt(B8, false), integer_width(false, i, 0)),
        Cvttsd2si => (Sse::ToInt(B8, true), integer_width(false, i, 0)),
        Cvtsi2ss => (Sse::FromInt(B4), integer_width(loads, i, 1)),
        Cvtsi2sd => (Sse::FromInt(B8), integer_width(loads, i, 1)),
        _ => return None,
    })
}

/// A place for a vector operand. Alignment is judged before the segment's limit.
#[inline(always)]
fn vector_place<E: Emit>(e: &mut E, l: Loc, bytes: u32, aligned: bool, write: bool) -> Result<E::P, E::Miss> {
    let o = offset(e, l);
    if aligned && matches!(l, Loc::G16 | Loc::G32) {
        let base = e.get(B8, e.segment());
        let la = e.add(B8, base, o);
        e.aligned(16, la)?;
    }
    let la = from_offset(e, l, o, bytes, write)?;
    if aligned {
        e.aligned(16, la)?;
    }
    e.place(bytes, la, write)
}
/// The source as a vector: a register, or `bytes` bytes of memory.
#[inline(always)]
fn source<E: Emit>(e: &mut E, f: Form, (bytes, aligned): (u32, bool)) -> Result<E::X, E::Miss> {
    if !f.src.is_memory() {
        let s = e.slot(SRC);
        return Ok(e.getx(s));
    }
    let p = vector_place(e, f.src, bytes, aligned, false)?;
    Ok(match bytes {
        4 => {
            let v = e.read(B4, p);
            e.xzext(B4, v)
        }
        8 => {
            let v = e.read(B8, p);
            e.xzext(B8, v)
        }
        _ => e.readx(p),
    })
}

/// The parts that handlers are compiled from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Moves.
    Move,
    /// Integer lanes.
    Integer,
    /// Floating-point lanes.
    Float,
    /// [`rare`].
    Rare,
}
impl Sse {
    /// The part that runs the operation.
    pub const fn part(self) -> Part {
        match self {
            Sse::Move(_) | Sse::MoveLow | Sse::MoveZext | Sse::StoreLow | Sse::StoreHigh => Part::Move,
            Sse::Fp(..) | Sse::Un(_) | Sse::Comis(_) | Sse::ToInt(..) | Sse::FromInt(_) => Part::Float,
            Sse::Rare(_) | Sse::Checked(_) => Part::Rare,
            _ => Part::Integer,
        }
    }
}

/// Runs moves.
#[inline(always)]
pub fn moves<E: Emit>(e: &mut E, f: Form, op: Sse) -> Step<E> {
    let d = e.slot(DST);
    match op {
        Sse::Move(aligned) => {
            if f.dst.is_memory() {
                let p = vector_place(e, f.dst, 16, aligned, true)?;
                let s = e.slot(SRC);
                let x = e.getx(s);
                e.writex(p, x);
            } else {
                let x = source(e, f, (16, aligned))?;
                e.setx(d, x);
            }
        }
        Sse::MoveLow => {
            let x = source(e, f, (f.w.bytes(), false))?;
            let v = e.xlow(f.w, x);
            let a = e.getx(d);
            let r = e.xset_low(f.w, a, v);
            e.setx(d, r);
        }
        Sse::MoveZext => {
            let v = if f.src == Loc::X {
                let s = e.slot(SRC);
                let x = e.getx(s);
                e.xlow(f.w, x)
            } else {
                let s = at(e, f.w, f.src, SRC, false)?;
                get(e, f.w, &s)
            };
            let r = e.xzext(f.w, v);
            e.setx(d, r);
        }
        Sse::StoreLow => {
            let p = at(e, f.w, f.dst, DST, true)?;
            let s = e.slot(SRC);
            let x = e.getx(s);
            let v = e.xlow(f.w, x);
            put(e, f.w, &p, v);
        }
        Sse::StoreHigh => {
            let p = at(e, B8, f.dst, DST, true)?;
            let s = e.slot(SRC);
            let x = e.getx(s);
            let v = e.xhigh(x);
            put(e, B8, &p, v);
        }
        _ => return Ok(Flow::Rare),
    }
    Ok(Flow::Next)
}

/// Runs operations on integer lanes.
#[inline(always)]
pub fn integers<E: Emit>(e: &mut E, f: Form, op: Sse) -> Step<E> {
    let d = e.slot(DST);
    match op {
        Sse::Bin(op) => {
            let b = source(e, f, memory(op))?;
            let a = e.getx(d);
            let r = e.xbin(op, a, b);
            e.setx(d, r);
        }
        Sse::Shift(op) => {
            let n = if f.src == Loc::I {
                let n = e.immediate(B1);
                e.zext(B1, B8, n)
            } else {
                let x = source(e, f, (16, true))?;
                e.xlow(B8, x)
            };
            let a = e.getx(d);
            let r = e.xshift(op, a, n);
            e.setx(d, r);
        }
        Sse::Shuffle(op) => {
            let b = source(e, f, (16, true))?;
            let n = e.immediate(B1);
            let a = e.getx(d);
            let r = e.xshuffle(op, a, b, n);
            e.setx(d, r);
        }
        Sse::Mask(lane) => {
            let s = e.slot(SRC);
            let x = e.getx(s);
            let v = e.xmask(lane, x);
            let v = e.zext(B4, B8, v);
            e.set(d, v);
        }
        Sse::ExtractWord => {
            let s = e.slot(SRC);
            let x = e.getx(s);
            let n = e.immediate(B1);
            let v = e.xword(x, n);
            let v = e.zext(B4, B8, v);
            e.set(d, v);
        }
        Sse::InsertWord => {
            let s = at(e, B2, f.src, SRC, false)?;
            let v = get(e, B2, &s);
            let n = e.immediate(B1);
            let a = e.getx(d);
            let r = e.xset_word(a, v, n);
            e.setx(d, r);
        }
        _ => return Ok(Flow::Rare),
    }
    Ok(Flow::Next)
}

/// Runs operations on floating-point lanes.
#[inline(always)]
pub fn floats<E: Emit>(e: &mut E, f: Form, op: Sse) -> Step<E> {
    let d = e.slot(DST);
    match op {
        Sse::Fp(op, t) => {
            let b = source(e, f, memory_fp(op, t))?;
            let a = e.getx(d);
            let r = e.xfp(op, t, a, b);
            e.setx(d, r);
        }
        Sse::Un(op) => {
            let x = source(e, f, memory_un(op))?;
            let r = e.xun(op, x);
            e.setx(d, r);
        }
        Sse::Comis(quiet) => {
            let b = source(e, f, (f.w.bytes(), false))?;
            let a = e.getx(d);
            let c = e.xcompare(f.w, quiet, a, b);
            let v = c.map(|c| e.bit(B1, c));
            e.defer(Deferred { kind: Kind::Fcom as u8, w: B1, v });
        }
        Sse::ToInt(lane, truncate) => {
            let x = source(e, f, (lane.bytes(), false))?;
            let v = e.xto_int(lane, f.w, truncate, x);
            let v = e.zext(f.w, B8, v);
            e.set(d, v);
        }
        Sse::FromInt(lane) => {
            let s = at(e, f.w, f.src, SRC, false)?;
            let v = get(e, f.w, &s);
            let a = e.getx(d);
            let r = e.xfrom_int(f.w, lane, a, v);
            e.setx(d, r);
        }
        _ => return Ok(Flow::Rare),
    }
    Ok(Flow::Next)
}
