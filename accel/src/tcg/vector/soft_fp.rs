//! SSE floating point in software: lanes over `softfp`. Source: Intel SDM vol. 1 §4.8.3.5, §11.5; vol. 2.
//!
//! Every function takes the MXCSR and returns the flags raised. With an exception unmasked the flags are those that the
//! unmasked response raises (underflow on tiny results, exact or not); the caller must drop the result if
//! [`unmasked`] says so.
#![forbid(unsafe_code)]

use super::{Fp, FpBin, XUn, approx, mxcsr, soft_int::lane};
use crate::tcg::ops::W;
use crate::tcg::softfp::{self, F32, F64, Format, Mode, Raw, Round, Val, flag::*};

/// The exceptions of `flags` that `csr` does not mask, as flags. Exceptions found before the operation hide those after it
/// (SDM vol. 1 §11.5.4): then `raised` has none of OE, UE, PE.
pub fn unmasked(csr: u32, flags: u32) -> Option<u32> {
    let open = flags & !(csr >> mxcsr::MASK_SHIFT);
    if open & (IE | DE | ZE) != 0 {
        return Some(flags & (IE | DE | ZE));
    }
    (open != 0).then_some(flags)
}

fn format(w: W) -> Format {
    if w == W::B4 { F32 } else { F64 }
}
/// The format's exponent and fraction masks and its quiet bit.
fn masks(w: W) -> (u64, u64, u64) {
    if w == W::B4 { (0x7f80_0000, 0x7f_ffff, 1 << 22) } else { (0x7ff << 52, (1 << 52) - 1, 1 << 51) }
}
fn sign(w: W) -> u64 {
    1 << (w.bits() - 1)
}
/// The default NaN (real indefinite).
pub fn indefinite(w: W) -> u64 {
    let (exp, _, quiet) = masks(w);
    sign(w) | exp | quiet
}
fn is_nan(w: W, x: u64) -> bool {
    let (exp, frac, _) = masks(w);
    x & exp == exp && x & frac != 0
}
fn is_snan(w: W, x: u64) -> bool {
    is_nan(w, x) && x & masks(w).2 == 0
}
fn is_denormal(w: W, x: u64) -> bool {
    let (exp, frac, _) = masks(w);
    x & exp == 0 && x & frac != 0
}

/// An operand that is no NaN: its value and DE if it is a denormal that counts.
pub fn unpack(w: W, x: u64, csr: u32) -> (Val, u32) {
    let (exp_mask, frac_mask, _) = masks(w);
    let f = format(w);
    let neg = x & sign(w) != 0;
    let frac = x & frac_mask;
    let e = (x & exp_mask) >> (f.precision - 1);
    let top = 64 - f.precision;
    match e as i32 {
        0 if frac == 0 => (Val::Zero(neg), 0),
        0 if csr & mxcsr::DAZ != 0 => (Val::Zero(neg), 0),
        0 => (Val::from_parts(neg, f.emin, frac << top), DE),
        e if e == 2 * f.emax + 1 => (Val::Inf(neg), 0),
        e => (Val::from_parts(neg, e - f.emax, (frac | 1 << (f.precision - 1)) << top), 0),
    }
}

fn mode(w: W, csr: u32) -> Mode {
    let unmasked = !(csr >> mxcsr::MASK_SHIFT) & mxcsr::FLAGS;
    Mode {
        format: format(w),
        round: Round::from_bits(csr >> mxcsr::RC_SHIFT),
        ftz: csr & mxcsr::FTZ != 0 && unmasked & UE == 0,
        unmasked: unmasked & (OE | UE),
    }
}
fn finish(w: W, csr: u32, r: Raw, pre: u32) -> (u64, u32) {
    match r {
        Raw::Invalid => (indefinite(w), IE),
        Raw::DivByZero(neg) => (masks(w).0 | if neg { sign(w) } else { 0 }, ZE),
        Raw::Val(v) => {
            let p = softfp::round(v, mode(w, csr));
            (p.bits(format(w)), p.flags | pre)
        }
    }
}
/// The NaN that results from NaN operands: the first operand if it is one, else the second; made quiet.
fn nan2(w: W, a: u64, b: u64) -> Option<(u64, u32)> {
    if !is_nan(w, a) && !is_nan(w, b) {
        return None;
    }
    let ie = if is_snan(w, a) || is_snan(w, b) { IE } else { 0 };
    Some((if is_nan(w, a) { a } else { b } | masks(w).2, ie))
}

/// Less, equal, unordered of one lane, and flags. `quiet`: a quiet NaN is no invalid operation.
pub fn compare(w: W, a: u64, b: u64, csr: u32, quiet: bool) -> ([bool; 3], u32) {
    if is_nan(w, a) || is_nan(w, b) {
        let ie = !quiet || is_snan(w, a) || is_snan(w, b);
        return ([false, false, true], ie as u32 * IE);
    }
    let daz = |x| if csr & mxcsr::DAZ != 0 && is_denormal(w, x) { x & sign(w) } else { x };
    let (a, b) = (daz(a), daz(b));
    let de = if is_denormal(w, a) || is_denormal(w, b) { DE } else { 0 };
    let key = |x: u64| if x & sign(w) != 0 { -((x & !sign(w)) as i64) } else { x as i64 };
    ([key(a) < key(b), key(a) == key(b), false], de)
}

/// UCOMISx (`quiet`) and COMISx: CF, ZF, PF, and flags.
pub fn comis(w: W, a: u64, b: u64, csr: u32, quiet: bool) -> ([bool; 3], u32) {
    let ([lt, eq, un], flags) = compare(w, a, b, csr, quiet);
    ([lt || un, eq || un, un], flags)
}

/// The eight predicates of CMPxx: EQ LT LE UNORD NEQ NLT NLE ORD. LT, LE and their negations signal on quiet NaNs.
fn predicate(w: W, k: u8, a: u64, b: u64, csr: u32) -> (u64, u32) {
    let ([lt, eq, un], flags) = compare(w, a, b, csr, !matches!(k & 3, 1 | 2));
    let r = match k & 3 {
        0 => eq,
        1 => lt,
        2 => lt || eq,
        _ => un,
    };
    (if r ^ (k & 4 != 0) { w.mask() } else { 0 }, flags)
}

fn lane_op(op: FpBin, w: W, a: u64, b: u64, csr: u32) -> (u64, u32) {
    match op {
        FpBin::Cmp(k) => return predicate(w, k, a, b, csr),
        FpBin::Min | FpBin::Max => {
            // The second operand if either is a NaN or both are zeros.
            let ([lt, eq, un], flags) = compare(w, a, b, csr, false);
            let first = !un && !eq && (lt == (op == FpBin::Min));
            let r = if first { a } else { b };
            let r = if csr & mxcsr::DAZ != 0 && is_denormal(w, r) { r & sign(w) } else { r };
            return (r, flags);
        }
        FpBin::Sqrt => {
            if let Some(r) = nan2(w, b, b) {
                return r;
            }
            let (v, de) = unpack(w, b, csr);
            return finish(w, csr, softfp::sqrt(v), de);
        }
        FpBin::Rcp => return (approx::rcp(b as u32) as u64, 0),
        FpBin::Rsqrt => return (approx::rsqrt(b as u32) as u64, 0),
        _ => {}
    }
    if let Some(r) = nan2(w, a, b) {
        return r;
    }
    let ((x, d), (y, e)) = (unpack(w, a, csr), unpack(w, b, csr));
    let r = match op {
        FpBin::Mul => softfp::mul(x, y),
        FpBin::Div => softfp::div(x, y),
        FpBin::Sub => softfp::add(x, y.negate(true), mode(w, csr).round),
        _ => softfp::add(x, y, mode(w, csr).round),
    };
    finish(w, csr, r, d | e)
}

/// Floating-point arithmetic on the lanes of `t`.
pub fn fp(op: FpBin, t: Fp, a: u128, b: u128, csr: u32) -> (u128, u32) {
    let w = t.lane();
    if op == FpBin::Resize {
        let from = if w == W::B4 { W::B8 } else { W::B4 };
        let (v, flags) = resize(from, w, lane(from, b, 0), csr);
        return (a & !(w.mask() as u128) | v as u128, flags);
    }
    let n = if t.scalar() { 1 } else { 128 / w.bits() };
    let keep = if t.scalar() { a & !(w.mask() as u128) } else { 0 };
    (0..n).fold((keep, 0), |(r, flags), i| {
        let (v, f) = match op {
            FpBin::AddSub => {
                lane_op(if i % 2 == 0 { FpBin::Sub } else { FpBin::Add }, w, lane(w, a, i), lane(w, b, i), csr)
            }
            FpBin::Hadd | FpBin::Hsub => {
                let (x, k) = if i < n / 2 { (a, 2 * i) } else { (b, 2 * i - n) };
                let op = if op == FpBin::Hadd { FpBin::Add } else { FpBin::Sub };
                lane_op(op, w, lane(w, x, k), lane(w, x, k + 1), csr)
            }
            _ => lane_op(op, w, lane(w, a, i), lane(w, b, i), csr),
        };
        (r | (v as u128) << (i * w.bits()), flags | f)
    })
}

/// Between the two formats.
fn resize(from: W, to: W, x: u64, csr: u32) -> (u64, u32) {
    if is_nan(from, x) {
        let (_, frac, _) = masks(from);
        let (exp, _, quiet) = masks(to);
        let (p, q) = (format(from).precision, format(to).precision);
        let f = if q > p { (x & frac) << (q - p) } else { (x & frac) >> (p - q) };
        let s = if x & sign(from) != 0 { sign(to) } else { 0 };
        return (s | exp | f | quiet, if is_snan(from, x) { IE } else { 0 });
    }
    let (v, de) = unpack(from, x, csr);
    finish(to, csr, Raw::Val(v), de)
}

/// CVTxx2SI, CVTTxx2SI and the packed conversions to doublewords: the integer in the low `to` bits, and flags.
pub fn to_int(from: W, to: W, truncate: bool, x: u64, csr: u32) -> (u64, u32) {
    let bits = to.bits();
    if is_nan(from, x) {
        return (1 << (bits - 1), IE);
    }
    // A denormal operand raises no DE here (SDM vol. 2: exceptions Invalid, Precision).
    let (v, _) = unpack(from, x, csr);
    let round = if truncate { Round::Zero } else { Round::from_bits(csr >> mxcsr::RC_SHIFT) };
    let (i, flags, _) = softfp::to_int(v, bits, round);
    (i as u64 & to.mask(), flags)
}

/// CVTSI2xx and the packed conversions from doublewords. `v` is a signed integer of width `from`.
pub fn from_int(from: W, to: W, v: u64, csr: u32) -> (u64, u32) {
    let s = 64 - from.bits();
    finish(to, csr, Raw::Val(softfp::from_int(((v << s) as i64) >> s)), 0)
}

/// The conversions of [`XUn`]; the others give `None`.
pub fn xun(op: XUn, x: u128, csr: u32) -> Option<(u128, u32)> {
    type Lane<'a> = &'a dyn Fn(u64) -> (u64, u32);
    let each = |from: W, to: W, f: Lane| {
        (0..128 / from.bits().max(to.bits())).fold((0, 0), |(r, flags), i| {
            let (v, e) = f(lane(from, x, i));
            (r | (v as u128) << (i * to.bits()), flags | e)
        })
    };
    use W::{B4, B8};
    Some(match op {
        XUn::CvtDqPs => each(B4, B4, &|v| from_int(B4, B4, v, csr)),
        XUn::CvtDqPd => each(B4, B8, &|v| from_int(B4, B8, v, csr)),
        XUn::CvtPsDq => each(B4, B4, &|v| to_int(B4, B4, false, v, csr)),
        XUn::CvttPsDq => each(B4, B4, &|v| to_int(B4, B4, true, v, csr)),
        XUn::CvtPdDq => each(B8, B4, &|v| to_int(B8, B4, false, v, csr)),
        XUn::CvttPdDq => each(B8, B4, &|v| to_int(B8, B4, true, v, csr)),
        XUn::CvtPsPd => each(B4, B8, &|v| resize(B4, B8, v, csr)),
        XUn::CvtPdPs => each(B8, B4, &|v| resize(B8, B4, v, csr)),
        XUn::Dup64 | XUn::DupEven32 | XUn::DupOdd32 => return None,
    })
}
