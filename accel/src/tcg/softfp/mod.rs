//! Software floating point for every binary format the guest knows (single, double, double extended).
//!
//! Source: IEEE 754-2008; Intel SDM vol. 1 §4.8, §4.9, §8.5, §11.5. One core serves SSE and x87: values are unpacked to
//! 128-bit significands, operated on with a sticky low bit and rounded once. Hosts without the guest's instructions use it
//! for everything; x86 hosts use it where the host's unit cannot say enough (unmasked overflow and underflow).
//! NaNs are chosen by the callers, since SSE and x87 choose differently; the core sees numbers only.
//!
//! Why not a general library: the core must report the round-up bit (C1), tell a denormal operand, round to a narrower
//! precision at the wide exponent range, deliver exponent-adjusted results and take square roots.
#![forbid(unsafe_code)]

mod arith;
mod convert;

pub use arith::{add, div, mul, sqrt};
pub use convert::{from_int, from_uint, round_to_integral, to_int};

/// Exception flags, in the bit numbers that MXCSR and the x87 status word share (SDM vol. 1 §8.1.3, §10.2.3).
pub mod flag {
    /// Invalid operation.
    pub const IE: u32 = 1;
    /// Denormal operand.
    pub const DE: u32 = 2;
    /// Division of a finite number by zero.
    pub const ZE: u32 = 4;
    /// Overflow.
    pub const OE: u32 = 8;
    /// Underflow.
    pub const UE: u32 = 16;
    /// Precision: the result is not exact.
    pub const PE: u32 = 32;
}
use flag::*;

/// Rounding control, in the encoding of MXCSR.RC and the control word's RC.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Round {
    /// To nearest, ties to even.
    Near,
    /// Towards minus infinity.
    Down,
    /// Towards plus infinity.
    Up,
    /// Towards zero.
    Zero,
}
impl Round {
    /// From the two RC bits (upper bits ignored).
    pub const fn from_bits(rc: u32) -> Round {
        match rc & 3 {
            0 => Round::Near,
            1 => Round::Down,
            2 => Round::Up,
            _ => Round::Zero,
        }
    }
}

/// A format: significand bits (the integer bit included) and the range of normal exponents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Format {
    /// Significand bits, 24, 53 or 64.
    pub precision: u32,
    /// Smallest exponent of a normal number.
    pub emin: i32,
    /// Largest exponent of a finite number.
    pub emax: i32,
    /// What an unmasked overflow subtracts from, and an unmasked underflow adds to, the exponent (x87, SDM vol. 1 §8.5.4).
    pub adjust: i32,
}
/// Single precision.
pub const F32: Format = Format { precision: 24, emin: -126, emax: 127, adjust: 192 };
/// Double precision.
pub const F64: Format = Format { precision: 53, emin: -1022, emax: 1023, adjust: 1536 };
/// Double extended precision.
pub const X80: Format = Format { precision: 64, emin: -16382, emax: 16383, adjust: 24576 };
impl Format {
    /// The extended format with the significand cut to `precision` bits (the x87's precision control).
    pub const fn extended(precision: u32) -> Format {
        Format { precision, ..X80 }
    }
}

/// A finite number other than zero: `sig · 2^(exp − 127)`, bit 127 of `sig` set. Bit 0 may stand for lost bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Num {
    /// Sign.
    pub neg: bool,
    /// Exponent of the leading bit.
    pub exp: i32,
    /// Significand, leading bit at 127.
    pub sig: u128,
}

/// A value that is no NaN; the `bool` is the sign.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Val {
    /// Signed zero.
    Zero(bool),
    /// Finite and not zero.
    Num(Num),
    /// Signed infinity.
    Inf(bool),
}
impl Val {
    /// The sign.
    pub fn is_negative(self) -> bool {
        match self {
            Val::Zero(s) | Val::Inf(s) => s,
            Val::Num(n) => n.neg,
        }
    }
    /// The value with the sign inverted if `flip`.
    #[must_use]
    pub fn negate(self, flip: bool) -> Val {
        match self {
            Val::Zero(s) => Val::Zero(s ^ flip),
            Val::Inf(s) => Val::Inf(s ^ flip),
            Val::Num(n) => Val::Num(Num { neg: n.neg ^ flip, ..n }),
        }
    }
    /// `sig · 2^(exp − 63)` with any `sig`.
    pub fn from_parts(neg: bool, exp: i32, sig: u64) -> Val {
        if sig == 0 {
            return Val::Zero(neg);
        }
        let z = sig.leading_zeros();
        Val::Num(Num { neg, exp: exp - z as i32, sig: ((sig << z) as u128) << 64 })
    }
}

/// Outcome of an operation before rounding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Raw {
    /// A number to be rounded.
    Val(Val),
    /// Invalid operation: the default NaN.
    Invalid,
    /// A finite number divided by zero: infinity of this sign.
    DivByZero(bool),
}

/// How to round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mode {
    /// Destination.
    pub format: Format,
    /// Direction.
    pub round: Round,
    /// Tiny results become zero (MXCSR.FTZ; only while underflow is masked).
    pub ftz: bool,
    /// Unmasked exceptions. OE and UE among them select the exponent-adjusted result.
    pub unmasked: u32,
}

/// A rounded value: fields ready for packing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packed {
    /// Sign.
    pub neg: bool,
    /// Biased exponent, all ones for infinity. 0 for zero and denormals.
    pub exp: u32,
    /// Significand, the integer bit at 63.
    pub sig: u64,
    /// Exceptions.
    pub flags: u32,
    /// The magnitude was rounded up (C1).
    pub up: bool,
}
impl Packed {
    const fn exact(neg: bool, exp: u32, sig: u64) -> Packed {
        Packed { neg, exp, sig, flags: 0, up: false }
    }
    /// The bits of a single (`F32`) or double (`F64`).
    pub fn bits(&self, f: Format) -> u64 {
        let frac = f.precision - 1;
        let sign_at = if f.precision == 24 { 31 } else { 63 };
        (self.neg as u64) << sign_at | (self.exp as u64) << frac | (self.sig << 1) >> (64 - frac)
    }
}

/// `v >> n` with every bit shifted out kept as bit 0.
pub(crate) fn shr_sticky(v: u128, n: u32) -> u128 {
    match n {
        0 => v,
        1..=127 => v >> n | (v << (128 - n) != 0) as u128,
        _ => (v != 0) as u128,
    }
}

/// Does rounding the tail of `sig` below its upper `p` bits go up? `p < 128`.
fn goes_up(neg: bool, sig: u128, p: u32, r: Round) -> bool {
    let tail = sig << p;
    match r {
        Round::Near => tail > 1 << 127 || (tail == 1 << 127 && sig >> (128 - p) & 1 != 0),
        Round::Down => neg && tail != 0,
        Round::Up => !neg && tail != 0,
        Round::Zero => false,
    }
}

/// Rounds to the destination (SDM vol. 1 §4.8.4, §4.9.1.4–6). Tininess is detected after rounding.
pub fn round(v: Val, m: Mode) -> Packed {
    let f = m.format;
    let all_ones = (f.emax * 2 + 1) as u32;
    let n = match v {
        Val::Zero(s) => return Packed::exact(s, 0, 0),
        Val::Inf(s) => return Packed::exact(s, all_ones, 1 << 63),
        Val::Num(n) => n,
    };
    let p = f.precision;
    let keep = |sig: u128| (sig >> (128 - p) << (128 - p) >> 64) as u64;
    let ulp = 1u64 << (64 - p);
    let inexact = |sig: u128| (sig << p != 0) as u32 * PE;
    // With an unbounded exponent.
    let up = goes_up(n.neg, n.sig, p, m.round);
    let (mut sig, carry) = if up { keep(n.sig).overflowing_add(ulp) } else { (keep(n.sig), false) };
    let mut exp = n.exp;
    if carry {
        sig = 1 << 63;
        exp += 1;
    }
    let pe = inexact(n.sig);
    if exp > f.emax {
        // (Singles and doubles are not delivered then; a massive overflow of FSCALE gives infinity.)
        if m.unmasked & OE != 0 && (exp - f.adjust <= f.emax || f.adjust != X80.adjust) {
            return Packed { neg: n.neg, exp: (exp - f.adjust + f.emax) as u32, sig, flags: OE | pe, up };
        }
        let to_inf = match m.round {
            _ if m.unmasked & OE != 0 => true,
            Round::Near => true,
            Round::Down => n.neg,
            Round::Up => !n.neg,
            Round::Zero => false,
        };
        let (exp, sig) = if to_inf { (all_ones, 1 << 63) } else { (all_ones - 1, keep(u128::MAX)) };
        return Packed { neg: n.neg, exp, sig, flags: OE | PE, up: to_inf };
    }
    if exp < f.emin {
        if m.unmasked & UE != 0 {
            if exp + f.adjust < f.emin && f.adjust == X80.adjust {
                // Not even the adjusted exponent fits (FSCALE).
                return Packed { neg: n.neg, exp: 0, sig: 0, flags: UE | PE, up: false };
            }
            return Packed { neg: n.neg, exp: (exp + f.adjust + f.emax).max(0) as u32, sig, flags: UE | pe, up };
        }
        if m.ftz {
            return Packed { neg: n.neg, exp: 0, sig: 0, flags: UE | PE, up: false };
        }
    }
    if n.exp < f.emin {
        // Denormal, or rounded up to the smallest normal number.
        let s = shr_sticky(n.sig, (f.emin - n.exp) as u32);
        let up = goes_up(n.neg, s, p, m.round);
        let sig = if up { keep(s) + ulp } else { keep(s) };
        let pe = inexact(s);
        let ue = if pe != 0 && exp < f.emin { UE } else { 0 };
        return Packed { neg: n.neg, exp: (sig >> 63) as u32, sig, flags: pe | ue, up };
    }
    Packed { neg: n.neg, exp: (exp + f.emax) as u32, sig, flags: pe, up }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEAR: Mode = Mode { format: F64, round: Round::Near, ftz: false, unmasked: 0 };

    #[test]
    fn rounds_to_even_and_reports_the_direction() {
        let v = Val::Num(Num { neg: false, exp: 0, sig: 1 << 127 | 1 << 74 });
        let r = round(v, NEAR);
        assert_eq!((r.bits(F64), r.flags, r.up), (1f64.to_bits(), PE, false));
        let v = Val::Num(Num { neg: false, exp: 0, sig: 1 << 127 | 1 << 75 | 1 << 74 });
        let r = round(v, NEAR);
        assert_eq!((r.bits(F64), r.flags, r.up), (1f64.to_bits() + 2, PE, true));
    }

    #[test]
    fn tiny_is_decided_after_rounding() {
        // Just below the smallest normal number: rounds up to it with an unbounded exponent, so it is not tiny.
        let v = Val::Num(Num { neg: false, exp: -1023, sig: u128::MAX });
        let r = round(v, NEAR);
        assert_eq!((r.bits(F64), r.flags), (f64::MIN_POSITIVE.to_bits(), PE));
        // The same with 53 significant bits is tiny, though the denormal result rounds up to a normal one.
        let v = Val::Num(Num { neg: false, exp: -1023, sig: u128::MAX << 75 });
        let r = round(v, NEAR);
        assert_eq!((r.bits(F64), r.flags), (f64::MIN_POSITIVE.to_bits(), PE | UE));
        let r = round(v, Mode { round: Round::Zero, ..NEAR });
        assert_eq!((r.bits(F64), r.flags), (f64::MIN_POSITIVE.to_bits() - 1, PE | UE));
    }

    #[test]
    fn overflow_follows_the_direction() {
        let v = Val::Num(Num { neg: true, exp: 1024, sig: 1 << 127 });
        let at = |round_| round(v, Mode { round: round_, ..NEAR });
        assert_eq!(at(Round::Near).bits(F64), f64::NEG_INFINITY.to_bits());
        assert_eq!(at(Round::Up).bits(F64), f64::MIN.to_bits());
        assert_eq!(at(Round::Down).flags, OE | PE);
    }
}
