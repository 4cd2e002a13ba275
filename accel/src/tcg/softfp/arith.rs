//! Sum, product, quotient and square root, exact up to a sticky bit.

use super::{Num, Raw, Round, Val, shr_sticky};

/// `a + b`. An exact zero sum of opposite signs is +0, or −0 when rounding down (IEEE 754 §6.3).
pub fn add(a: Val, b: Val, round: Round) -> Raw {
    let zero = Raw::Val(Val::Zero(round == Round::Down));
    let v = match (a, b) {
        (Val::Inf(s), Val::Inf(t)) if s != t => return Raw::Invalid,
        (Val::Inf(_), _) => a,
        (_, Val::Inf(_)) => b,
        (Val::Zero(s), Val::Zero(t)) => return if s == t { Raw::Val(a) } else { zero },
        (Val::Zero(_), _) => b,
        (_, Val::Zero(_)) => a,
        (Val::Num(x), Val::Num(y)) => {
            let (x, y) = if (x.exp, x.sig) >= (y.exp, y.sig) { (x, y) } else { (y, x) };
            // Operands have zeros far below their precision: one bit of room loses nothing.
            let (big, small) = (x.sig >> 1, shr_sticky(y.sig >> 1, (x.exp - y.exp) as u32));
            let sum = if x.neg == y.neg { big + small } else { big - small };
            if sum == 0 {
                return zero;
            }
            let z = sum.leading_zeros();
            Val::Num(Num { neg: x.neg, exp: x.exp + 1 - z as i32, sig: sum << z })
        }
    };
    Raw::Val(v)
}

/// `a · b`.
pub fn mul(a: Val, b: Val) -> Raw {
    let s = a.is_negative() ^ b.is_negative();
    Raw::Val(match (a, b) {
        (Val::Inf(_), Val::Zero(_)) | (Val::Zero(_), Val::Inf(_)) => return Raw::Invalid,
        (Val::Inf(_), _) | (_, Val::Inf(_)) => Val::Inf(s),
        (Val::Zero(_), _) | (_, Val::Zero(_)) => Val::Zero(s),
        (Val::Num(x), Val::Num(y)) => {
            let p = (x.sig >> 64) * (y.sig >> 64);
            let z = p.leading_zeros();
            Val::Num(Num { neg: s, exp: x.exp + y.exp + 1 - z as i32, sig: p << z })
        }
    })
}

/// `a / b`.
pub fn div(a: Val, b: Val) -> Raw {
    let s = a.is_negative() ^ b.is_negative();
    Raw::Val(match (a, b) {
        (Val::Inf(_), Val::Inf(_)) | (Val::Zero(_), Val::Zero(_)) => return Raw::Invalid,
        (Val::Num(_), Val::Zero(_)) => return Raw::DivByZero(s),
        (Val::Inf(_), _) => Val::Inf(s),
        (Val::Zero(_), _) | (_, Val::Inf(_)) => Val::Zero(s),
        (Val::Num(x), Val::Num(y)) => {
            let d = y.sig >> 64;
            let (q, r) = (x.sig / d, x.sig % d);
            // 63 to 65 bits so far; 32 more and what is left as sticky bit.
            let r = r << 32;
            let q = (q << 32) | (r / d);
            let z = q.leading_zeros();
            Val::Num(Num { neg: s, exp: x.exp - y.exp + 31 - z as i32, sig: q << z | (!r.is_multiple_of(d)) as u128 })
        }
    })
}

/// `√a`; the root of −0 is −0.
pub fn sqrt(a: Val) -> Raw {
    Raw::Val(match a {
        Val::Zero(_) | Val::Inf(false) => a,
        Val::Inf(true) => return Raw::Invalid,
        Val::Num(n) if n.neg => return Raw::Invalid,
        Val::Num(n) => {
            let odd = n.exp & 1;
            // The radicand is in [1, 4) with two integer bits; 66 digits of root, one at a time.
            let (mut rest, mut root, mut bits) = (0u128, 0u128, if odd != 0 { n.sig } else { n.sig >> 1 });
            for _ in 0..66 {
                rest = rest << 2 | bits >> 126;
                bits <<= 2;
                let trial = root << 2 | 1;
                root <<= 1;
                if rest >= trial {
                    rest -= trial;
                    root |= 1;
                }
            }
            let z = root.leading_zeros();
            Val::Num(Num { neg: false, exp: (n.exp - odd) / 2, sig: root << z | (rest != 0) as u128 })
        }
    })
}
