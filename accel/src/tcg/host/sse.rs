//! The host's SSE–SSE2 instructions on 128-bit values; SSE3's are composed from them, since the build's baseline lacks it.
//!
//! Integer operations are intrinsics. Floating-point ones are inline assembly: they must neither be moved across a load of
//! MXCSR nor be dropped with their sticky flags, which the compiler may do to an intrinsic. They run under whatever
//! MXCSR is loaded (`fpcr`), all exceptions masked.

use crate::tcg::ops::W;
use crate::tcg::vector::{Fp, FpBin, XBin, XShift, XShuffle, XUn, approx, soft_int};
use core::arch::asm;
use core::arch::x86_64::*;

#[inline(always)]
fn v(x: u128) -> __m128i {
    // SAFETY: both are 16 bytes of plain data.
    unsafe { core::mem::transmute::<u128, __m128i>(x) }
}
#[inline(always)]
fn u(x: __m128i) -> u128 {
    // SAFETY: both are 16 bytes of plain data.
    unsafe { core::mem::transmute::<__m128i, u128>(x) }
}

/// `op a, b` on two registers; result in `a`.
macro_rules! two {
    ($a:expr, $b:expr, $($insn:literal)+) => {{
        let mut a = v($a);
        // SAFETY: works on two vector registers only; exceptions are masked.
        unsafe { asm!(concat!($($insn,)+ " {a}, {b}"), a = inout(xmm_reg) a, b = in(xmm_reg) v($b), options(nomem, nostack, preserves_flags)) }
        u(a)
    }};
}
/// `op a, b, imm`.
macro_rules! two_imm {
    ($a:expr, $b:expr, $insn:literal, $imm:literal) => {{
        let mut a = v($a);
        // SAFETY: works on two vector registers only; exceptions are masked.
        unsafe { asm!(concat!($insn, " {a}, {b}, ", $imm), a = inout(xmm_reg) a, b = in(xmm_reg) v($b), options(nomem, nostack, preserves_flags)) }
        u(a)
    }};
}
/// `op r, b` with a fresh result register.
macro_rules! one {
    ($b:expr, $insn:literal) => {{
        let r: __m128i;
        // SAFETY: works on two vector registers only; exceptions are masked.
        unsafe { asm!(concat!($insn, " {r}, {b}"), r = out(xmm_reg) r, b = in(xmm_reg) v($b), options(nomem, nostack, preserves_flags)) }
        u(r)
    }};
}
macro_rules! by_lanes {
    ($t:expr, $a:expr, $b:expr, $op:literal) => {
        match $t {
            Fp::Ps => two!($a, $b, $op "ps"),
            Fp::Pd => two!($a, $b, $op "pd"),
            Fp::Ss => two!($a, $b, $op "ss"),
            Fp::Sd => two!($a, $b, $op "sd"),
        }
    };
}
macro_rules! compare {
    ($t:expr, $a:expr, $b:expr, $imm:literal) => {
        match $t {
            Fp::Ps => two_imm!($a, $b, "cmpps", $imm),
            Fp::Pd => two_imm!($a, $b, "cmppd", $imm),
            Fp::Ss => two_imm!($a, $b, "cmpss", $imm),
            Fp::Sd => two_imm!($a, $b, "cmpsd", $imm),
        }
    };
}

/// Floating-point arithmetic under the loaded MXCSR.
#[inline(always)]
pub fn fp(op: FpBin, t: Fp, a: u128, b: u128) -> u128 {
    match op {
        FpBin::Add => by_lanes!(t, a, b, "add"),
        FpBin::Sub => by_lanes!(t, a, b, "sub"),
        FpBin::Mul => by_lanes!(t, a, b, "mul"),
        FpBin::Div => by_lanes!(t, a, b, "div"),
        FpBin::Min => by_lanes!(t, a, b, "min"),
        FpBin::Max => by_lanes!(t, a, b, "max"),
        FpBin::Sqrt => by_lanes!(t, a, b, "sqrt"),
        FpBin::Resize if t.lane() == W::B8 => two!(a, b, "cvtss2sd"),
        FpBin::Resize => two!(a, b, "cvtsd2ss"),
        _ => fp_more(op, t, a, b),
    }
}
#[inline(never)]
fn fp_more(op: FpBin, t: Fp, a: u128, b: u128) -> u128 {
    match op {
        FpBin::Cmp(k) => match k & 7 {
            0 => compare!(t, a, b, "0"),
            1 => compare!(t, a, b, "1"),
            2 => compare!(t, a, b, "2"),
            3 => compare!(t, a, b, "3"),
            4 => compare!(t, a, b, "4"),
            5 => compare!(t, a, b, "5"),
            6 => compare!(t, a, b, "6"),
            _ => compare!(t, a, b, "7"),
        },
        FpBin::AddSub => {
            // Each lane by the instruction of its own: the flags of the other lanes must not be raised.
            let w = t.lane();
            let (n, bits) = (128 / w.bits(), w.bits());
            (0..n).fold(0, |r, i| {
                let (x, y) = (soft_int::lane(w, a, i) as u128, soft_int::lane(w, b, i) as u128);
                let t = if w == W::B4 { Fp::Ss } else { Fp::Sd };
                let s = fp(if i % 2 == 0 { FpBin::Sub } else { FpBin::Add }, t, x, y);
                r | s << (i * bits)
            })
        }
        FpBin::Hadd | FpBin::Hsub => {
            let (even, odd) = if t.lane() == W::B4 {
                let pick = |imm| soft_int::xshuffle(XShuffle::Ps, a, b, imm);
                (pick(0b10_00_10_00), pick(0b11_01_11_01))
            } else {
                (soft_int::xshuffle(XShuffle::Pd, a, b, 0), soft_int::xshuffle(XShuffle::Pd, a, b, 3))
            };
            fp(if op == FpBin::Hadd { FpBin::Add } else { FpBin::Sub }, t, even, odd)
        }
        FpBin::Rcp | FpBin::Rsqrt => {
            let f = if op == FpBin::Rcp { approx::rcp } else { approx::rsqrt };
            let n = if t.scalar() { 1 } else { 4 };
            (0..n).fold(a, |r, i| {
                let at = 32 * i;
                r & !(0xffff_ffff << at) | (f((b >> at) as u32) as u128) << at
            })
        }
        _ => fp(op, t, a, b),
    }
}

/// Every integer operation of two operands.
#[inline(always)]
pub fn xbin(op: XBin, a: u128, b: u128) -> u128 {
    use W::*;
    let (x, y) = (v(a), v(b));
    // SAFETY: SSE2 is in the baseline of every x86-64 target; the intrinsics touch no memory.
    #[allow(unused_unsafe, reason = "the intrinsics became safe in recent toolchains")]
    let r = unsafe {
        match op {
            XBin::And => return a & b,
            XBin::Andn => return !a & b,
            XBin::Or => return a | b,
            XBin::Xor => return a ^ b,
            XBin::Add(B1) => _mm_add_epi8(x, y),
            XBin::Add(B2) => _mm_add_epi16(x, y),
            XBin::Add(B4) => _mm_add_epi32(x, y),
            XBin::Add(B8) => _mm_add_epi64(x, y),
            XBin::Sub(B1) => _mm_sub_epi8(x, y),
            XBin::Sub(B2) => _mm_sub_epi16(x, y),
            XBin::Sub(B4) => _mm_sub_epi32(x, y),
            XBin::Sub(B8) => _mm_sub_epi64(x, y),
            XBin::AddSatS(B1) => _mm_adds_epi8(x, y),
            XBin::AddSatS(_) => _mm_adds_epi16(x, y),
            XBin::AddSatU(B1) => _mm_adds_epu8(x, y),
            XBin::AddSatU(_) => _mm_adds_epu16(x, y),
            XBin::SubSatS(B1) => _mm_subs_epi8(x, y),
            XBin::SubSatS(_) => _mm_subs_epi16(x, y),
            XBin::SubSatU(B1) => _mm_subs_epu8(x, y),
            XBin::SubSatU(_) => _mm_subs_epu16(x, y),
            XBin::MulLo16 => _mm_mullo_epi16(x, y),
            XBin::MulHi16S => _mm_mulhi_epi16(x, y),
            XBin::MulHi16U => _mm_mulhi_epu16(x, y),
            XBin::MulU32 => _mm_mul_epu32(x, y),
            XBin::MulAdd16 => _mm_madd_epi16(x, y),
            XBin::Avg(B1) => _mm_avg_epu8(x, y),
            XBin::Avg(_) => _mm_avg_epu16(x, y),
            XBin::Min(B1) => _mm_min_epu8(x, y),
            XBin::Min(_) => _mm_min_epi16(x, y),
            XBin::Max(B1) => _mm_max_epu8(x, y),
            XBin::Max(_) => _mm_max_epi16(x, y),
            XBin::SumAbsDiff8 => _mm_sad_epu8(x, y),
            XBin::CmpEq(B1) => _mm_cmpeq_epi8(x, y),
            XBin::CmpEq(B2) => _mm_cmpeq_epi16(x, y),
            XBin::CmpEq(_) => _mm_cmpeq_epi32(x, y),
            XBin::CmpGt(B1) => _mm_cmpgt_epi8(x, y),
            XBin::CmpGt(B2) => _mm_cmpgt_epi16(x, y),
            XBin::CmpGt(_) => _mm_cmpgt_epi32(x, y),
            XBin::UnpackLo(B1) => _mm_unpacklo_epi8(x, y),
            XBin::UnpackLo(B2) => _mm_unpacklo_epi16(x, y),
            XBin::UnpackLo(B4) => _mm_unpacklo_epi32(x, y),
            XBin::UnpackLo(B8) => _mm_unpacklo_epi64(x, y),
            XBin::UnpackHi(B1) => _mm_unpackhi_epi8(x, y),
            XBin::UnpackHi(B2) => _mm_unpackhi_epi16(x, y),
            XBin::UnpackHi(B4) => _mm_unpackhi_epi32(x, y),
            XBin::UnpackHi(B8) => _mm_unpackhi_epi64(x, y),
            XBin::PackSigned(B2) => _mm_packs_epi16(x, y),
            XBin::PackSigned(_) => _mm_packs_epi32(x, y),
            XBin::PackUnsigned16 => _mm_packus_epi16(x, y),
            XBin::LowToHigh => _mm_unpacklo_epi64(x, y),
            XBin::HighToLow => return a >> 64 << 64 | b >> 64,
        }
    };
    u(r)
}

/// Every operation of one operand.
#[inline(always)]
pub fn xun(op: XUn, x: u128) -> u128 {
    match op {
        XUn::CvtDqPs => one!(x, "cvtdq2ps"),
        XUn::CvtPsDq => one!(x, "cvtps2dq"),
        XUn::CvttPsDq => one!(x, "cvttps2dq"),
        XUn::CvtDqPd => one!(x, "cvtdq2pd"),
        XUn::CvtPdDq => one!(x, "cvtpd2dq"),
        XUn::CvttPdDq => one!(x, "cvttpd2dq"),
        XUn::CvtPsPd => one!(x, "cvtps2pd"),
        XUn::CvtPdPs => one!(x, "cvtpd2ps"),
        XUn::Dup64 => x as u64 as u128 | x << 64,
        XUn::DupEven32 | XUn::DupOdd32 => {
            // SAFETY: as in `xbin`.
            #[allow(unused_unsafe, reason = "the intrinsics became safe in recent toolchains")]
            let r = unsafe {
                if op == XUn::DupEven32 {
                    _mm_shuffle_epi32::<0b10_10_00_00>(v(x))
                } else {
                    _mm_shuffle_epi32::<0b11_11_01_01>(v(x))
                }
            };
            u(r)
        }
    }
}

/// Shifts. `count` is the whole 64-bit count.
#[inline(always)]
pub fn xshift(op: XShift, x: u128, count: u64) -> u128 {
    use W::*;
    let (a, n) = (v(x), v(count as u128));
    // SAFETY: as in `xbin`.
    #[allow(unused_unsafe, reason = "the intrinsics became safe in recent toolchains")]
    let r = unsafe {
        match op {
            XShift::Shl(B2) => _mm_sll_epi16(a, n),
            XShift::Shl(B4) => _mm_sll_epi32(a, n),
            XShift::Shl(_) => _mm_sll_epi64(a, n),
            XShift::Shr(B2) => _mm_srl_epi16(a, n),
            XShift::Shr(B4) => _mm_srl_epi32(a, n),
            XShift::Shr(_) => _mm_srl_epi64(a, n),
            XShift::Sar(B2) => _mm_sra_epi16(a, n),
            XShift::Sar(_) => _mm_sra_epi32(a, n),
            XShift::ShlBytes => return if count < 16 { x << (8 * count) } else { 0 },
            XShift::ShrBytes => return if count < 16 { x >> (8 * count) } else { 0 },
        }
    };
    u(r)
}

/// The sign bits of all lanes.
#[inline(always)]
pub fn xmask(w: W, x: u128) -> u64 {
    // SAFETY: as in `xbin`.
    #[allow(unused_unsafe, reason = "the intrinsics became safe in recent toolchains")]
    let r = unsafe {
        match w {
            W::B1 => _mm_movemask_epi8(v(x)),
            W::B4 => _mm_movemask_ps(_mm_castsi128_ps(v(x))),
            W::B8 => _mm_movemask_pd(_mm_castsi128_pd(v(x))),
            W::B2 => return soft_int::xmask(w, x),
        }
    };
    r as u32 as u64
}

/// UCOMISx (`quiet`) and COMISx: CF, ZF, PF (less, equal, both also if unordered; unordered).
#[inline(always)]
pub fn compare(w: W, quiet: bool, a: u128, b: u128) -> [bool; 3] {
    let (c, z, p): (u8, u8, u8);
    macro_rules! comis {
        ($insn:literal) => {
            // SAFETY: works on registers only; exceptions are masked.
            unsafe {
                asm!(concat!($insn, " {a}, {b}"), "setb {c}", "sete {z}", "setp {p}", a = in(xmm_reg) v(a), b = in(xmm_reg) v(b),
                    c = out(reg_byte) c, z = out(reg_byte) z, p = out(reg_byte) p, options(nomem, nostack))
            }
        };
    }
    match (w, quiet) {
        (W::B4, true) => comis!("ucomiss"),
        (W::B4, false) => comis!("comiss"),
        (_, true) => comis!("ucomisd"),
        (_, false) => comis!("comisd"),
    }
    [c != 0, z != 0, p != 0]
}

/// CVTxx2SI, CVTTxx2SI: the low lane of `x` (of width `from`) as an integer of width `to`.
#[inline(always)]
pub fn to_int(from: W, to: W, truncate: bool, x: u128) -> u64 {
    let r: u64;
    macro_rules! cvt {
        ($insn:literal) => {
            // SAFETY: works on registers only; exceptions are masked.
            unsafe { asm!(concat!($insn, " {r}, {x}"), r = out(reg) r, x = in(xmm_reg) v(x), options(nomem, nostack, preserves_flags)) }
        };
        ($insn:literal, 32) => {
            // SAFETY: works on registers only; exceptions are masked.
            unsafe { asm!(concat!($insn, " {r:e}, {x}"), r = out(reg) r, x = in(xmm_reg) v(x), options(nomem, nostack, preserves_flags)) }
        };
    }
    match (from, to, truncate) {
        (W::B4, W::B8, false) => cvt!("cvtss2si"),
        (W::B4, W::B8, true) => cvt!("cvttss2si"),
        (W::B4, _, false) => cvt!("cvtss2si", 32),
        (W::B4, _, true) => cvt!("cvttss2si", 32),
        (_, W::B8, false) => cvt!("cvtsd2si"),
        (_, W::B8, true) => cvt!("cvttsd2si"),
        (_, _, false) => cvt!("cvtsd2si", 32),
        (_, _, true) => cvt!("cvttsd2si", 32),
    }
    r
}

/// CVTSI2xx: the signed integer `i` of width `from` in the low lane, of width `to`, of `a`.
#[inline(always)]
pub fn from_int(from: W, to: W, a: u128, i: u64) -> u128 {
    let mut x = v(a);
    macro_rules! cvt {
        ($insn:literal, $reg:literal) => {
            // SAFETY: works on registers only; exceptions are masked.
            unsafe { asm!(concat!($insn, " {x}, {i", $reg, "}"), x = inout(xmm_reg) x, i = in(reg) i, options(nomem, nostack, preserves_flags)) }
        };
    }
    match (from, to) {
        (W::B8, W::B4) => cvt!("cvtsi2ss", ""),
        (W::B8, _) => cvt!("cvtsi2sd", ""),
        (_, W::B4) => cvt!("cvtsi2ss", ":e"),
        (_, _) => cvt!("cvtsi2sd", ":e"),
    }
    u(x)
}
