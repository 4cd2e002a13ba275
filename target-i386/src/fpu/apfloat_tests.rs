//! The software against an independent implementation: sums, products and quotients at full precision.

use super::{F80, soft};
use rustc_apfloat::{Float, Round, Status, ieee::X87DoubleExtended};

fn to(x: &F80) -> X87DoubleExtended {
    X87DoubleExtended::from_bits((x.se as u128) << 64 | x.sig as u128)
}

#[test]
fn arithmetic_agrees_with_apfloat() {
    // A 64-bit congruential generator, its upper bits.
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        state >> 20
    };
    let mut operand = || {
        let sig = match next() & 3 {
            0 => 1 << 63 | next() << 50,
            1 => u64::MAX << (next() & 63),
            _ => 1 << 63 | next() << 22 ^ next(),
        };
        let e = match next() & 3 {
            0 => next() as u16 % 40 + 1,
            1 => 0x7ffe - next() as u16 % 40,
            _ => 0x3fff - 35 + next() as u16 % 70,
        };
        F80 { sig: sig | 1 << 63, se: e | (next() as u16 & 1) << 15 }
    };
    for (rc, round) in
        [(0, Round::NearestTiesToEven), (1, Round::TowardNegative), (2, Round::TowardPositive), (3, Round::TowardZero)]
    {
        let fcw = 0x37f | rc << 10;
        for _ in 0..20_000 {
            let (a, b) = (operand(), operand());
            let (x, y) = (to(&a), to(&b));
            for (name, theirs, ours) in [
                ("add", x.add_r(y, round), soft::add(fcw, &a, &b)),
                ("mul", x.mul_r(y, round), soft::mul(fcw, &a, &b)),
                ("div", x.div_r(y, round), soft::div(fcw, &a, &b)),
            ] {
                let v = theirs.value.to_bits();
                let inexact = theirs.status.contains(Status::INEXACT);
                assert_eq!(
                    (ours.val, ours.flags & 0x28 != 0),
                    (F80 { sig: v as u64, se: (v >> 64) as u16 }, inexact),
                    "{name} {a:x?} {b:x?} rc {rc}"
                );
            }
        }
    }
}
