//! Integers and integral values.

use super::flag::{IE, PE};
use super::{Num, Round, Val, goes_up};

/// The value of a signed integer.
pub fn from_int(i: i64) -> Val {
    Val::from_parts(i < 0, 63, i.unsigned_abs())
}
/// The value of an unsigned integer with a sign.
pub fn from_uint(neg: bool, i: u64) -> Val {
    Val::from_parts(neg, 63, i)
}

/// Magnitude of `n` rounded to an integer of at most 64 bits: value, inexact, rounded up. `None` if it does not fit.
fn integer(n: Num, r: Round) -> Option<(u64, bool, bool)> {
    if n.exp > 63 {
        return None;
    }
    if n.exp < -1 {
        let up = match r {
            Round::Down => n.neg,
            Round::Up => !n.neg,
            _ => false,
        };
        return Some((up as u64, true, up));
    }
    if n.exp == -1 {
        // One half or more, below one.
        let up = match r {
            Round::Near => n.sig > 1 << 127,
            Round::Down => n.neg,
            Round::Up => !n.neg,
            Round::Zero => false,
        };
        return Some((up as u64, true, up));
    }
    let p = n.exp as u32 + 1;
    let up = goes_up(n.neg, n.sig, p, r);
    let i = (n.sig >> (128 - p)) as u64;
    Some((i.checked_add(up as u64)?, n.sig << p != 0, up))
}

/// `v` as a signed integer of `bits` bits: value, flags, rounded up. Out of range is IE and the integer indefinite
/// (only the sign bit set), SDM vol. 1 §4.8.3.
pub fn to_int(v: Val, bits: u32, r: Round) -> (i64, u32, bool) {
    let indefinite = (i64::MIN >> (64 - bits), IE, false);
    let n = match v {
        Val::Zero(_) => return (0, 0, false),
        Val::Inf(_) => return indefinite,
        Val::Num(n) => n,
    };
    match integer(n, r) {
        Some((m, inexact, up)) if m <= (1u64 << (bits - 1)) - !n.neg as u64 => {
            (if n.neg { (m as i64).wrapping_neg() } else { m as i64 }, inexact as u32 * PE, up)
        }
        _ => indefinite,
    }
}

/// `v` rounded to an integral value, the sign kept: value, flags, rounded up.
pub fn round_to_integral(v: Val, r: Round) -> (Val, u32, bool) {
    match v {
        Val::Num(n) if n.exp < 63 => match integer(n, r) {
            Some((m, inexact, up)) => (from_uint(n.neg, m), inexact as u32 * PE, up),
            None => (v, 0, false),
        },
        _ => (v, 0, false),
    }
}
