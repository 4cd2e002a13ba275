//! F2XM1, FYL2X, FYL2XP1, FSIN, FCOS, FSINCOS, FPTAN, FPATAN. Source: Intel SDM vol. 1 §8.3.7–8.3.10; vol. 2 for the
//! special operands.
//!
//! In our own integers on every host, so that results do not depend on it. Internals have 128 bits; results are within
//! 0.51 ulp of the true function under rounding to nearest and honour rounding control. Arguments of the trigonometric
//! functions are reduced by the true π (320 bits of 2/π, enough for every |x| < 2^63), where real units use a 66-bit one.
//! Precision control has no effect. Arguments outside F2XM1's and FYL2XP1's range are undefined on real units: F2XM1
//! leaves its operand alone, FYL2XP1 computes what it can and treats the rest as invalid.

use super::consts::*;
use super::convert::value;
use super::soft::{INDEFINITE, INTEGER, Out, finish, mode, nan1, nan2};
use super::wide::{ONE, add, div, from_q, horner, mul, mul_q, to_q};
use accel::tcg::host::f80::F80;
use accel::tcg::softfp::{Num, Val, X80, flag::*};

const ONE_80: F80 = F80 { sig: INTEGER, se: 0x3fff };

fn denormal(x: &F80) -> u32 {
    if x.se & 0x7fff == 0 && x.sig != 0 { DE } else { 0 }
}
fn num(fcw: u16, n: Num, pre: u32) -> Out {
    finish(Val::Num(n), mode(fcw, X80), pre)
}
fn infinity(neg: bool, flags: u32) -> Out {
    Out::flagged(F80 { sig: INTEGER, se: (neg as u16) << 15 | 0x7fff }, flags)
}
fn zero(neg: bool, flags: u32) -> Out {
    Out::flagged(F80 { sig: 0, se: (neg as u16) << 15 }, flags)
}
/// Marks as inexact a value whose missing part is below the last bit: rounding away from it needs a set low bit.
fn inexact(n: Num) -> Num {
    Num { sig: n.sig | 1, ..n }
}
/// A fraction that is known to be below one.
fn below_one(q: u128) -> Num {
    from_q(q.min(ONE - 1))
}

/// Quadrant (mod 4) and remainder in [−π/4, π/4] of `|x|`, `x.exp` below 63. The remainder is never zero.
fn reduce(x: Num) -> (u32, Num) {
    let x = Num { neg: false, ..x };
    if x.exp < -1 {
        return (0, x);
    }
    let m = (x.sig >> 64) as u64;
    // m · 2/π as six limbs, then shifted so that the point is below limb 6.
    let mut p = [0u64; 7];
    let mut carry = 0u64;
    for (limb, t) in p.iter_mut().zip(TWO_OVER_PI) {
        let v = m as u128 * t as u128 + carry as u128;
        (*limb, carry) = (v as u64, (v >> 64) as u64);
    }
    p[5] = carry;
    let left = (x.exp + 1) as u32;
    if left != 0 {
        for i in (0..7).rev() {
            p[i] = p[i] << left | if i > 0 { p[i - 1] >> (64 - left) } else { 0 };
        }
    }
    let mut n = p[6] as u32;
    let neg = p[5] >> 63 != 0;
    if neg {
        n = n.wrapping_add(1);
        let mut carry = true;
        for limb in &mut p[..6] {
            (*limb, carry) = (!*limb).overflowing_add(carry as u64);
        }
    }
    let top = p[..6].iter().rposition(|&l| l != 0).unwrap_or(0);
    let at = |i: usize, back: usize| if i >= back { p[i - back] } else { 0 };
    let z = p[top].leading_zeros();
    let hi = (at(top, 0) as u128) << 64 | at(top, 1) as u128;
    let lo = (at(top, 2) as u128) << 64;
    let sig = if z == 0 { hi } else { hi << z | lo >> (128 - z) };
    let f = Num { neg, exp: -1 - z as i32 - 64 * (5 - top) as i32, sig };
    (n & 3, mul(f, HALF_PI))
}
/// Sine and cosine of a reduced argument.
fn kernel(r: Num) -> (Num, Num) {
    let q = to_q(r);
    let r2 = mul_q(q, q);
    let sin = mul(r, below_one(horner(&SIN, r2, true)));
    (inexact(sin), inexact(below_one(horner(&COS, r2, true))))
}
fn sin_cos(x: Num) -> (Num, Num) {
    let (n, r) = reduce(x);
    let (s, c) = kernel(r);
    let (sin, cos) = if n & 1 == 0 { (s, c) } else { (c, s) };
    let flip = |v: Num, f: bool| Num { neg: v.neg ^ f, ..v };
    (flip(sin, (n & 2 != 0) ^ x.neg), flip(cos, n == 1 || n == 2))
}

/// What the trigonometric instructions find: their result, or the argument is out of range (C2).
pub enum Trig<T> {
    /// The result.
    Done(T),
    /// `|x|` is 2^63 or more: nothing changes but C2.
    OutOfRange,
}
fn trig<T>(x: &F80, nan: impl Fn(Out) -> T, of_zero: impl Fn(bool) -> T, f: impl Fn(Num, u32) -> T) -> Trig<T> {
    if let Some(o) = nan1(x) {
        return Trig::Done(nan(o));
    }
    match value(x) {
        Some(Val::Zero(neg)) => Trig::Done(of_zero(neg)),
        Some(Val::Num(n)) if n.exp >= 63 => Trig::OutOfRange,
        Some(Val::Num(n)) => Trig::Done(f(n, denormal(x))),
        _ => Trig::Done(nan(Out::INVALID)),
    }
}
/// FSIN.
pub fn sin(fcw: u16, x: &F80) -> Trig<Out> {
    trig(x, |o| o, |neg| zero(neg, 0), |n, pre| num(fcw, sin_cos(n).0, pre))
}
/// FCOS.
pub fn cos(fcw: u16, x: &F80) -> Trig<Out> {
    trig(x, |o| o, |_| Out::exact(ONE_80), |n, pre| num(fcw, sin_cos(n).1, pre))
}
/// FSINCOS: sine and cosine.
pub fn sincos(fcw: u16, x: &F80) -> Trig<(Out, Out)> {
    trig(
        x,
        |o| (o, o),
        |neg| (zero(neg, 0), Out::exact(ONE_80)),
        |n, pre| {
            let (s, c) = sin_cos(n);
            (num(fcw, s, pre), num(fcw, c, pre))
        },
    )
}
/// FPTAN without the one that it pushes.
pub fn tan(fcw: u16, x: &F80) -> Trig<Out> {
    trig(
        x,
        |o| o,
        |neg| zero(neg, 0),
        |n, pre| {
            // x + x³/3 …: below 2^-34 the second term only says that the result is inexact.
            if n.exp < -34 {
                return num(fcw, inexact(n), pre);
            }
            let (s, c) = sin_cos(n);
            num(fcw, inexact(div(s, c)), pre)
        },
    )
}

/// Arc tangent of `q` in (0, 1].
fn atan(q: Num) -> Num {
    let k = ((to_q(q) >> 122) + 1) >> 1;
    let series = |t: Num| {
        let x = to_q(t);
        mul(t, below_one(horner(&ODD[..14], mul_q(x, x), true)))
    };
    if k == 0 {
        return inexact(series(q));
    }
    // atan(q) = atan(c) + atan((q − c)/(1 + q·c)), c = k/16.
    let c = from_q(k << 123);
    let one = from_q(ONE);
    let base = from_q(ATAN[(k as usize).min(16)]);
    let Some(up) = add(q, Num { neg: true, ..c }) else { return inexact(base) };
    let down = add(one, mul(q, c)).unwrap_or(one);
    inexact(add(base, series(div(up, down))).unwrap_or(base))
}
/// FPATAN: the angle of the point (`x`, `y`).
pub fn patan(fcw: u16, y: &F80, x: &F80) -> Out {
    if let Some(o) = nan2(x, y) {
        return o;
    }
    let pre = denormal(x) | denormal(y);
    let (Some(v), Some(w)) = (value(y), value(x)) else { return Out::INVALID };
    let s = |n: Num| Num { neg: v.is_negative(), ..n };
    let minus = |n: Num| Num { neg: true, ..n };
    let left = w.is_negative();
    let angle = match (v, w) {
        (Val::Zero(neg), _) if !left => return zero(neg, pre),
        (Val::Zero(_), _) => PI,
        (Val::Inf(_), Val::Inf(_)) if left => add(PI, minus(QUARTER_PI)).unwrap_or(PI),
        (Val::Inf(_), Val::Inf(_)) => QUARTER_PI,
        (Val::Inf(_), _) | (_, Val::Zero(_)) => HALF_PI,
        (Val::Num(_), Val::Inf(_)) if left => PI,
        (Val::Num(n), Val::Inf(_)) => return zero(n.neg, pre),
        (Val::Num(a), Val::Num(b)) => {
            let (a, b) = (Num { neg: false, ..a }, Num { neg: false, ..b });
            if (a.exp, a.sig) <= (b.exp, b.sig) {
                let t = atan(div(a, b));
                if left { add(PI, minus(t)).unwrap_or(PI) } else { t }
            } else {
                let t = atan(div(b, a));
                add(HALF_PI, if left { t } else { minus(t) }).unwrap_or(HALF_PI)
            }
        }
    };
    num(fcw, s(inexact(angle)), pre)
}

/// F2XM1: `2^x − 1` for `|x| ≤ 1`.
pub fn exp2m1(fcw: u16, x: &F80) -> Out {
    if let Some(o) = nan1(x) {
        return o;
    }
    match value(x) {
        Some(Val::Zero(neg)) => zero(neg, 0),
        Some(Val::Inf(false)) => infinity(false, 0),
        Some(Val::Inf(true)) => Out::exact(F80 { sig: INTEGER, se: 0xbfff }),
        // (Both are exact. Real units take the first for an inexact result and the second for one just below one.)
        Some(Val::Num(n)) if n.exp >= 0 => match (n.neg, n.exp == 0 && n.sig == ONE) {
            (true, true) => Out::flagged(F80 { sig: INTEGER, se: 0xbffe }, PE),
            (false, true) => num(fcw, Num { neg: false, exp: -1, sig: u128::MAX }, 0),
            _ => Out::exact(*x),
        },
        Some(Val::Num(n)) => {
            let y = mul(n, LN2);
            let p = from_q(horner(&EXPM1, to_q(y), n.neg));
            num(fcw, inexact(mul(y, p)), denormal(x))
        }
        None => Out::INVALID,
    }
}

/// `log2((1 + t)/(1 − t))`.
fn log2_ratio(t: Num) -> Num {
    let q = to_q(t);
    mul(mul(t, TWO_OVER_LN2), from_q(horner(&ODD, mul_q(q, q), false)))
}
/// `log2(n)` of a positive number; `None` for zero.
fn log2(n: Num) -> Option<Num> {
    const SQRT2: u128 = 0xb504_f333_f9de_6484_597d_89b3_754a_be9f;
    let (e, m) = if n.sig >= SQRT2 { (n.exp + 1, Num { exp: -1, ..n }) } else { (n.exp, Num { exp: 0, ..n }) };
    let one = from_q(ONE);
    let whole = (e != 0).then(|| {
        let z = e.unsigned_abs().leading_zeros();
        Num { neg: e < 0, exp: 31 - z as i32, sig: (e.unsigned_abs() as u128) << (96 + z) }
    });
    let part = add(m, Num { neg: true, ..one }).map(|d| inexact(log2_ratio(div(d, add(m, one).unwrap_or(one)))));
    match (whole, part) {
        (Some(a), Some(b)) => add(a, b).map(inexact),
        (a, b) => a.or(b),
    }
}
/// `y` times a logarithm other than those of special operands.
fn times(fcw: u16, y: Val, log: Option<Num>, pre: u32) -> Out {
    match (y, log) {
        (Val::Inf(_), None) => Out::INVALID,
        (y, None) => zero(y.is_negative(), pre),
        (Val::Zero(s), Some(l)) => zero(s ^ l.neg, pre),
        (Val::Inf(s), Some(l)) => infinity(s ^ l.neg, pre),
        (Val::Num(y), Some(l)) => {
            let p = mul(l, y);
            // The integer of a power of two times y may be exact (real units report it as rounded, so that a denormal one has
            // underflowed); all else has lost bits.
            let mut out = num(fcw, if l.sig & 1 != 0 { inexact(p) } else { p }, pre | PE);
            if denormal(&out.val) != 0 {
                out.flags |= UE;
            }
            out
        }
    }
}
/// FYL2X: `y · log2(x)`.
pub fn yl2x(fcw: u16, y: &F80, x: &F80) -> Out {
    if let Some(o) = nan2(x, y) {
        return o;
    }
    let pre = denormal(x) | denormal(y);
    let (Some(v), Some(w)) = (value(y), value(x)) else { return Out::INVALID };
    match (v, w) {
        (Val::Zero(_), Val::Zero(_)) => Out::INVALID,
        (Val::Inf(s), Val::Zero(_)) => infinity(!s, pre),
        // (A denormal factor is not reported, as in a division by zero.)
        (Val::Num(n), Val::Zero(_)) => infinity(!n.neg, ZE),
        (_, Val::Inf(true)) => Out::INVALID,
        (_, Val::Num(n)) if n.neg => Out::INVALID,
        (Val::Zero(_), Val::Inf(_)) => Out::INVALID,
        (v, Val::Inf(_)) => infinity(v.is_negative(), pre),
        (v, Val::Num(n)) => times(fcw, v, log2(n), pre),
    }
}
/// FYL2XP1: `y · log2(x + 1)`.
pub fn yl2xp1(fcw: u16, y: &F80, x: &F80) -> Out {
    if let Some(o) = nan2(x, y) {
        return o;
    }
    let pre = denormal(x) | denormal(y);
    let (Some(v), Some(w)) = (value(y), value(x)) else { return Out::INVALID };
    let one = from_q(ONE);
    match (v, w) {
        (Val::Inf(_), Val::Zero(_)) => Out::INVALID,
        (v, Val::Zero(s)) => zero(v.is_negative() ^ s, pre),
        (Val::Zero(_), Val::Inf(_)) | (_, Val::Inf(true)) => Out::INVALID,
        (v, Val::Inf(_)) => infinity(v.is_negative(), pre),
        (Val::Zero(s), Val::Num(n)) => zero(s ^ n.neg, pre),
        (Val::Inf(s), Val::Num(n)) => infinity(s ^ n.neg, pre),
        (v, Val::Num(n)) => {
            // Within the range of the series of (1 + t)/(1 − t), t = x/(2 + x).
            if n.exp < -2 {
                let two = Num { exp: 1, ..one };
                let log = log2_ratio(div(n, add(two, n).unwrap_or(two)));
                return times(fcw, v, Some(inexact(log)), pre);
            }
            match add(one, n) {
                Some(m) if !m.neg => times(fcw, v, log2(m), pre),
                _ => Out { val: INDEFINITE, flags: IE, up: false },
            }
        }
    }
}
