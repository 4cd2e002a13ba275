//! FPREM, FPREM1, FXTRACT. Source: Intel SDM vol. 2. All exact.

use super::convert::load_int;
use super::soft::{INTEGER, Out, finish, mode, nan1, nan2};
use super::{convert::value, soft};
use accel::tcg::host::f80::F80;
use accel::tcg::softfp::{Num, Val, X80, flag::*};

/// Remainder of `a` by `b` and the condition codes C3 C2 C1 C0 in bits 3..0. `ieee`: FPREM1 (nearest quotient), else FPREM
/// (truncated). A difference of exponents of 64 or more takes a partial step that removes 32 to 63 quotient bits, C2 set.
pub fn remainder(fcw: u16, ieee: bool, a: &F80, b: &F80) -> (Out, u8) {
    if let Some(o) = nan2(a, b) {
        return (o, 0);
    }
    let pre = [a, b].iter().fold(0, |f, x| if x.se & 0x7fff == 0 && x.sig != 0 { f | DE } else { f });
    let (Some(x), Some(y)) = (value(a), value(b)) else { return (Out::INVALID, 0) };
    let (n, d) = match (x, y) {
        (Val::Inf(_), _) | (_, Val::Zero(_)) => return (Out::INVALID, 0),
        (Val::Zero(_), _) => return (Out::flagged(*a, pre), 0),
        (Val::Num(_), Val::Inf(_)) => return (finish(x, mode(fcw, X80), pre), 0),
        (Val::Num(n), Val::Num(d)) => (n, d),
    };
    let gap = n.exp - d.exp;
    if gap < -1 || (gap < 0 && !ieee) {
        return (finish(x, mode(fcw, X80), pre), 0);
    }
    let (p, m) = (n.sig >> 64, d.sig >> 64);
    if gap >= 64 {
        let k = PARTIAL_BASE + gap % 32;
        // a = p·2^(n.exp−63): take off multiples of b·2^(gap−k).
        let rest = rem_shifted(p, k as u32, m).1;
        return (finish(scaled(n.neg, d.exp + gap - k, rest), mode(fcw, X80), pre), 0b0100);
    }
    // gap −1: the quotient is 0 or, to nearest, 1.
    let (mut q, mut rest) = if gap < 0 { (0, p) } else { rem_shifted(p, gap as u32, m) };
    let (mut neg, exp) = (n.neg, if gap < 0 { d.exp - 1 } else { d.exp });
    if ieee {
        // Both in units of 2^(exp−63).
        let m = if gap < 0 { m << 1 } else { m };
        if 2 * rest > m || (2 * rest == m && q & 1 != 0) {
            rest = m - rest;
            neg = !neg;
            q = q.wrapping_add(1);
        }
    }
    let c = (q as u8 & 1) << 1 | (q as u8 & 2) << 2 | (q as u8 >> 2 & 1);
    let v = if rest == 0 { Val::Zero(n.neg) } else { scaled(neg, exp, rest) };
    (finish(v, mode(fcw, X80), pre), c)
}
/// What real units are free to choose between 32 and 63.
const PARTIAL_BASE: i32 = 32;

fn scaled(neg: bool, exp: i32, sig: u128) -> Val {
    if sig == 0 {
        return Val::Zero(neg);
    }
    let z = sig.leading_zeros();
    Val::Num(Num { neg, exp: exp + 64 - z as i32, sig: sig << z })
}
/// Quotient (low 64 bits) and remainder of `p · 2^k` by `m`; `p`, `m` below 2^64, `k` up to 63.
fn rem_shifted(p: u128, k: u32, m: u128) -> (u64, u128) {
    let v = p << k;
    ((v / m) as u64, v % m)
}

/// FXTRACT: exponent and significand of `a`.
pub fn extract(a: &F80) -> (F80, Out) {
    if let Some(o) = nan1(a) {
        return (o.val, o);
    }
    match value(a) {
        Some(Val::Zero(_)) => (F80 { sig: INTEGER, se: 0xffff }, Out::flagged(*a, ZE)),
        Some(Val::Num(n)) => {
            let pre = if a.se & 0x7fff == 0 { DE } else { 0 };
            let m = F80 { sig: (n.sig >> 64) as u64, se: a.se & 0x8000 | 0x3fff };
            (load_int(n.exp as i64), Out::flagged(m, pre))
        }
        Some(Val::Inf(_)) => (F80 { sig: INTEGER, se: 0x7fff }, Out::exact(*a)),
        None => (soft::INDEFINITE, Out::INVALID),
    }
}
