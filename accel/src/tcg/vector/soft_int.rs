//! Integer lanes in plain Rust. Source: Intel SDM vol. 2.
#![forbid(unsafe_code)]

use super::{XBin, XShift, XShuffle, XUn};
use crate::tcg::ops::W;

fn sx(w: W, v: u64) -> i64 {
    let s = 64 - w.bits();
    ((v << s) as i64) >> s
}
/// Lane `i` of width `w`.
pub fn lane(w: W, x: u128, i: u32) -> u64 {
    (x >> (i * w.bits())) as u64 & w.mask()
}
fn lanes(w: W, a: u128, b: u128, f: impl Fn(u64, u64) -> u64) -> u128 {
    (0..128 / w.bits()).fold(0, |r, i| r | ((f(lane(w, a, i), lane(w, b, i)) & w.mask()) as u128) << (i * w.bits()))
}
fn saturate_signed(w: W, v: i64) -> u64 {
    let max = (w.mask() >> 1) as i64;
    v.clamp(-max - 1, max) as u64
}
fn interleave(w: W, a: u64, b: u64) -> u128 {
    let n = w.bits();
    (0..64 / n).fold(0, |r, i| {
        let at = |v: u64| ((v >> (i * n)) & w.mask()) as u128;
        r | (at(a) | at(b) << n) << (2 * i * n)
    })
}
fn narrow(w: W, a: u128, b: u128, f: impl Fn(i64) -> u64) -> u128 {
    let half = w.bits() / 2;
    let mask = w.mask() >> half;
    let n = 128 / w.bits();
    (0..n).fold(0, |r, i| {
        let at = |x, k: u32| ((f(sx(w, lane(w, x, i))) & mask) as u128) << ((i + k) * half);
        r | at(a, 0) | at(b, n)
    })
}

/// The operations of [`XBin`].
pub fn xbin(op: XBin, a: u128, b: u128) -> u128 {
    use XBin::*;
    match op {
        And => a & b,
        Andn => !a & b,
        Or => a | b,
        Xor => a ^ b,
        Add(w) => lanes(w, a, b, u64::wrapping_add),
        Sub(w) => lanes(w, a, b, u64::wrapping_sub),
        AddSatS(w) => lanes(w, a, b, |x, y| saturate_signed(w, sx(w, x) + sx(w, y))),
        SubSatS(w) => lanes(w, a, b, |x, y| saturate_signed(w, sx(w, x) - sx(w, y))),
        AddSatU(w) => lanes(w, a, b, |x, y| (x + y).min(w.mask())),
        SubSatU(w) => lanes(w, a, b, u64::saturating_sub),
        MulLo16 => lanes(W::B2, a, b, |x, y| x * y),
        MulHi16S => lanes(W::B2, a, b, |x, y| ((sx(W::B2, x) * sx(W::B2, y)) >> 16) as u64),
        MulHi16U => lanes(W::B2, a, b, |x, y| (x * y) >> 16),
        MulU32 => lanes(W::B8, a, b, |x, y| (x & 0xffff_ffff) * (y & 0xffff_ffff)),
        MulAdd16 => lanes(W::B4, a, b, |x, y| {
            let at = |v, s| sx(W::B2, v >> s);
            (at(x, 0) * at(y, 0) + at(x, 16) * at(y, 16)) as u64
        }),
        Avg(w) => lanes(w, a, b, |x, y| (x + y + 1) >> 1),
        Min(W::B1) => lanes(W::B1, a, b, u64::min),
        Max(W::B1) => lanes(W::B1, a, b, u64::max),
        Min(w) => lanes(w, a, b, |x, y| sx(w, x).min(sx(w, y)) as u64),
        Max(w) => lanes(w, a, b, |x, y| sx(w, x).max(sx(w, y)) as u64),
        SumAbsDiff8 => lanes(W::B8, a, b, |x, y| {
            x.to_le_bytes().iter().zip(y.to_le_bytes()).map(|(p, q)| p.abs_diff(q) as u64).sum()
        }),
        CmpEq(w) => lanes(w, a, b, |x, y| if x == y { u64::MAX } else { 0 }),
        CmpGt(w) => lanes(w, a, b, |x, y| if sx(w, x) > sx(w, y) { u64::MAX } else { 0 }),
        UnpackLo(w) => interleave(w, a as u64, b as u64),
        UnpackHi(w) => interleave(w, (a >> 64) as u64, (b >> 64) as u64),
        PackSigned(W::B2) => narrow(W::B2, a, b, |v| saturate_signed(W::B1, v)),
        PackSigned(_) => narrow(W::B4, a, b, |v| saturate_signed(W::B2, v)),
        PackUnsigned16 => narrow(W::B2, a, b, |v| v.clamp(0, 0xff) as u64),
        LowToHigh => a as u64 as u128 | b << 64,
        HighToLow => a >> 64 << 64 | b >> 64,
    }
}

/// The operations of [`XUn`] that only move lanes; the others give `None`.
pub fn xun(op: XUn, x: u128) -> Option<u128> {
    let low32 = 0xffff_ffff_0000_0000_ffff_ffffu128;
    Some(match op {
        XUn::Dup64 => x as u64 as u128 | x << 64,
        XUn::DupEven32 => x & low32 | (x & low32) << 32,
        XUn::DupOdd32 => x >> 32 & low32 | x & low32 << 32,
        _ => return None,
    })
}

/// Shifts. `count` is the whole 64-bit count.
pub fn xshift(op: XShift, x: u128, count: u64) -> u128 {
    match op {
        XShift::Shl(w) if count < w.bits() as u64 => lanes(w, x, 0, |v, _| v << count),
        XShift::Shr(w) if count < w.bits() as u64 => lanes(w, x, 0, |v, _| v >> count),
        XShift::Sar(w) => lanes(w, x, 0, |v, _| (sx(w, v) >> count.min(w.bits() as u64 - 1)) as u64),
        XShift::ShlBytes if count < 16 => x << (8 * count),
        XShift::ShrBytes if count < 16 => x >> (8 * count),
        _ => 0,
    }
}

/// Shuffles by `imm`.
pub fn xshuffle(op: XShuffle, a: u128, b: u128, imm: u8) -> u128 {
    let sel = |i: u32| (imm >> (2 * i)) as u32 & 3;
    let words = |x: u128| (0..4).fold(0u128, |r, i| r | (lane(W::B2, x, sel(i)) as u128) << (16 * i));
    match op {
        XShuffle::D => (0..4).fold(0, |r, i| r | (lane(W::B4, b, sel(i)) as u128) << (32 * i)),
        XShuffle::Lw => b >> 64 << 64 | words(b),
        XShuffle::Hw => b as u64 as u128 | words(b >> 64) << 64,
        XShuffle::Ps => (0..4).fold(0, |r, i| r | (lane(W::B4, if i < 2 { a } else { b }, sel(i)) as u128) << (32 * i)),
        XShuffle::Pd => {
            let at = |x, bit: u8| lane(W::B8, x, (imm >> bit & 1) as u32) as u128;
            at(a, 0) | at(b, 1) << 64
        }
    }
}

/// The sign bits of all lanes: PMOVMSKB, MOVMSKPS, MOVMSKPD.
pub fn xmask(w: W, x: u128) -> u64 {
    (0..128 / w.bits()).fold(0, |r, i| r | (lane(w, x, i) >> (w.bits() - 1)) << i)
}
