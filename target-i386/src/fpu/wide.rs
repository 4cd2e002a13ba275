//! Arithmetic on 128-bit significands for the transcendental functions: each operation is off by at most a few units in
//! the last of 128 bits. Fractions ("Q127") are `u128` with 127 bits after the point.

use accel::tcg::softfp::Num;

/// One as a fraction.
pub const ONE: u128 = 1 << 127;

/// Upper half of the 256-bit product.
pub fn mul_high(a: u128, b: u128) -> u128 {
    let m = u64::MAX as u128;
    let (ah, al, bh, bl) = (a >> 64, a & m, b >> 64, b & m);
    let (hl, lh) = (ah * bl, al * bh);
    let mid = ((al * bl) >> 64) + (hl & m) + (lh & m);
    ah * bh + (hl >> 64) + (lh >> 64) + (mid >> 64)
}
/// Product of fractions.
pub fn mul_q(a: u128, b: u128) -> u128 {
    mul_high(a, b) << 1
}
/// A number below 2 as a fraction (its sign is dropped).
pub fn to_q(n: Num) -> u128 {
    let s = -n.exp;
    if s > 127 { 0 } else { n.sig >> s }
}
/// A fraction other than zero as a number.
pub fn from_q(q: u128) -> Num {
    let z = q.leading_zeros();
    Num { neg: false, exp: -(z as i32), sig: q << z }
}
/// `a · b`.
pub fn mul(a: Num, b: Num) -> Num {
    let p = mul_high(a.sig, b.sig);
    let z = p.leading_zeros();
    Num { neg: a.neg ^ b.neg, exp: a.exp + b.exp + 1 - z as i32, sig: p << z }
}
/// `a / b`.
pub fn div(a: Num, b: Num) -> Num {
    let (mut rest, mut q) = (a.sig, 0u128);
    let less = a.sig < b.sig;
    let mut carry = false;
    if less {
        carry = rest >> 127 != 0;
        rest <<= 1;
    }
    for _ in 0..128 {
        q <<= 1;
        if carry || rest >= b.sig {
            rest = rest.wrapping_sub(b.sig);
            q |= 1;
        }
        carry = rest >> 127 != 0;
        rest <<= 1;
    }
    let sticky = (carry || rest != 0) as u128;
    Num { neg: a.neg ^ b.neg, exp: a.exp - b.exp - less as i32, sig: q | sticky }
}
/// `a + b`; `None` if they cancel.
pub fn add(a: Num, b: Num) -> Option<Num> {
    let (x, y) = if (a.exp, a.sig) >= (b.exp, b.sig) { (a, b) } else { (b, a) };
    let d = (x.exp - y.exp) as u32;
    if x.neg == y.neg {
        let s = if d > 127 { 0 } else { y.sig >> d };
        let (sum, carry) = x.sig.overflowing_add(s);
        let (sig, exp) = if carry { (sum >> 1 | ONE | sum & 1, x.exp + 1) } else { (sum, x.exp) };
        // A number too small to count still makes the sum inexact.
        return Some(Num { neg: x.neg, exp, sig: sig | (d > 127) as u128 });
    }
    let s = if d > 127 { 1 } else { y.sig >> d };
    let diff = x.sig - s;
    if diff == 0 {
        return None;
    }
    let z = diff.leading_zeros();
    Some(Num { neg: x.neg, exp: x.exp - z as i32, sig: diff << z })
}
/// `c[0] ∓ x·(c[1] ∓ x·(c[2] …))` on fractions, `minus` choosing the sign; every partial sum must be in [0, 2).
pub fn horner(c: &[u128], x: u128, minus: bool) -> u128 {
    c.iter().rev().fold(0, |acc, &k| {
        let t = mul_q(x, acc);
        if minus { k - t } else { k + t }
    })
}
