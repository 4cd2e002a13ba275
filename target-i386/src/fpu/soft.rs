//! x87 arithmetic in software, over `accel::tcg::softfp`. Source: Intel SDM vol. 1 §4.8.3.5, §8.5; vol. 2.
//!
//! Every host uses it while overflow or underflow is unmasked (the results are then exponent-adjusted); other hosts than
//! x86-64 use it always. The control word is the guest's.

use accel::tcg::host::f80::F80;
use accel::tcg::softfp::{self, Format, Mode, Raw, Round, Val, X80, flag::*};

/// Sign, exponent all ones, two leading significand bits: the default NaN.
pub const INDEFINITE: F80 = F80 { sig: 0xc000_0000_0000_0000, se: 0xffff };
/// The integer bit.
pub const INTEGER: u64 = 1 << 63;
const QUIET: u64 = 1 << 62;
const EXP: u16 = 0x7fff;

/// What an operand is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Class {
    /// No NaN; DE if it is a denormal.
    Val(Val, u32),
    /// A NaN that raises nothing.
    Quiet,
    /// A NaN that is an invalid operation.
    Signaling,
    /// An encoding the unit rejects (pseudo-NaN, pseudo-infinity, unnormal).
    Unsupported,
}
/// Classifies a register.
pub fn class(x: &F80) -> Class {
    let (neg, e) = (x.se >> 15 != 0, x.se & EXP);
    match (e, x.sig) {
        (0, 0) => Class::Val(Val::Zero(neg), 0),
        (0, s) => Class::Val(Val::from_parts(neg, X80.emin, s), DE),
        (_, s) if s & INTEGER == 0 => Class::Unsupported,
        (EXP, INTEGER) => Class::Val(Val::Inf(neg), 0),
        (EXP, s) if s & QUIET != 0 => Class::Quiet,
        (EXP, _) => Class::Signaling,
        (e, s) => Class::Val(Val::from_parts(neg, e as i32 - X80.emax, s), 0),
    }
}

/// Result, flags, rounded up (C1).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Out {
    /// The value, if it is to be stored.
    pub val: F80,
    /// Exceptions.
    pub flags: u32,
    /// C1.
    pub up: bool,
}
impl Out {
    /// Exact.
    pub const fn exact(val: F80) -> Out {
        Out { val, flags: 0, up: false }
    }
    /// Exact with these flags.
    pub const fn flagged(val: F80, flags: u32) -> Out {
        Out { val, flags, up: false }
    }
    /// Invalid operation.
    pub const INVALID: Out = Out { val: INDEFINITE, flags: IE, up: false };
}

/// Rounding control of a control word.
pub fn rc(fcw: u16) -> Round {
    Round::from_bits((fcw >> 10) as u32)
}
/// The format that precision control selects.
fn pc(fcw: u16) -> Format {
    Format::extended(match fcw >> 8 & 3 {
        0 => 24,
        2 => 53,
        _ => 64,
    })
}
fn unmasked(fcw: u16) -> u32 {
    !(fcw as u32) & 0x3f
}
/// Rounding to the format under a control word.
pub fn mode(fcw: u16, format: Format) -> Mode {
    Mode { format, round: rc(fcw), ftz: false, unmasked: unmasked(fcw) & (OE | UE) }
}
/// Rounds to a register.
pub fn finish(v: Val, m: Mode, pre: u32) -> Out {
    let p = softfp::round(v, m);
    Out { val: F80 { sig: p.sig, se: (p.neg as u16) << 15 | p.exp as u16 & EXP }, flags: p.flags | pre, up: p.up }
}
fn finish_raw(r: Raw, m: Mode, pre: u32) -> Out {
    match r {
        Raw::Val(v) => finish(v, m, pre),
        Raw::Invalid => Out::INVALID,
        // (A denormal dividend is not reported.)
        Raw::DivByZero(neg) => Out::flagged(F80 { sig: INTEGER, se: (neg as u16) << 15 | EXP }, ZE),
    }
}

/// The result of NaN or unsupported operands, if there are any: a quiet NaN wins over a signaling one, then the larger
/// significand, then the positive one (SDM vol. 1 table 4-7).
pub fn nan2(a: &F80, b: &F80) -> Option<Out> {
    let (x, y) = (class(a), class(b));
    if matches!((x, y), (Class::Val(..), Class::Val(..))) {
        return None;
    }
    if x == Class::Unsupported || y == Class::Unsupported {
        return Some(Out::INVALID);
    }
    let flags = if x == Class::Signaling || y == Class::Signaling { IE } else { 0 };
    let r = match (x, y) {
        (Class::Val(..), _) => b,
        (_, Class::Val(..)) => a,
        (Class::Signaling, Class::Quiet) => b,
        (Class::Quiet, Class::Signaling) => a,
        _ if a.sig != b.sig => {
            if a.sig > b.sig {
                a
            } else {
                b
            }
        }
        _ => {
            if a.se < b.se {
                a
            } else {
                b
            }
        }
    };
    Some(Out::flagged(F80 { sig: r.sig | QUIET, ..*r }, flags))
}
/// The same for one operand.
pub fn nan1(a: &F80) -> Option<Out> {
    nan2(a, a)
}

fn values(a: &F80, b: &F80) -> Result<(Val, Val, u32), Out> {
    if let Some(o) = nan2(a, b) {
        return Err(o);
    }
    match (class(a), class(b)) {
        (Class::Val(x, d), Class::Val(y, e)) => Ok((x, y, d | e)),
        _ => Err(Out::INVALID),
    }
}
fn value(a: &F80) -> Result<(Val, u32), Out> {
    values(a, a).map(|(v, _, d)| (v, d))
}
fn both(a: &F80, b: &F80, fcw: u16, f: impl FnOnce(Val, Val) -> Raw) -> Out {
    match values(a, b) {
        Ok((x, y, pre)) => finish_raw(f(x, y), mode(fcw, pc(fcw)), pre),
        Err(o) => o,
    }
}

/// `a + b`.
pub fn add(fcw: u16, a: &F80, b: &F80) -> Out {
    both(a, b, fcw, |x, y| softfp::add(x, y, rc(fcw)))
}
/// `a − b`.
pub fn sub(fcw: u16, a: &F80, b: &F80) -> Out {
    both(a, b, fcw, |x, y| softfp::add(x, y.negate(true), rc(fcw)))
}
/// `a · b`.
pub fn mul(fcw: u16, a: &F80, b: &F80) -> Out {
    both(a, b, fcw, softfp::mul)
}
/// `a / b`.
pub fn div(fcw: u16, a: &F80, b: &F80) -> Out {
    both(a, b, fcw, softfp::div)
}
/// `√a`.
pub fn sqrt(fcw: u16, a: &F80) -> Out {
    match value(a) {
        Ok((v, pre)) => finish_raw(softfp::sqrt(v), mode(fcw, pc(fcw)), pre),
        Err(o) => o,
    }
}
/// FRNDINT.
pub fn rndint(fcw: u16, a: &F80) -> Out {
    match value(a) {
        Ok((Val::Zero(_) | Val::Inf(_), pre)) => Out::flagged(*a, pre),
        Ok((v, pre)) => {
            let (v, flags, up) = softfp::round_to_integral(v, rc(fcw));
            Out { flags: flags | pre, up, ..finish(v, mode(fcw, X80), 0) }
        }
        Err(o) => o,
    }
}
/// FSCALE: `a · 2^trunc(b)`, to the full precision whatever the control word says.
pub fn scale(fcw: u16, a: &F80, b: &F80) -> Out {
    let (x, y, pre) = match values(a, b) {
        Ok(v) => v,
        Err(o) => return o,
    };
    match (x, y) {
        (Val::Zero(_), Val::Inf(false)) | (Val::Inf(_), Val::Inf(true)) => Out::INVALID,
        (Val::Num(n), Val::Inf(up)) => {
            let v = if up { Val::Zero(n.neg) } else { Val::Inf(n.neg) };
            finish(v, mode(fcw, X80), pre)
        }
        (Val::Num(n), Val::Num(k)) => {
            // Beyond ±2^17 every result over- or underflows.
            let by = softfp::to_int(Val::Num(k), 32, Round::Zero);
            let by = if by.1 & IE != 0 || k.exp > 17 { if k.neg { -(1 << 17) } else { 1 << 17 } } else { by.0 as i32 };
            finish(Val::Num(softfp::Num { exp: n.exp + by, ..n }), mode(fcw, X80), pre)
        }
        // A pseudo-denormal is normalised.
        (Val::Num(_), Val::Zero(_)) => finish(x, mode(fcw, X80), pre),
        _ => Out::flagged(*a, pre),
    }
}

/// Greater (0), less (1, C0), equal (4, C3), unordered (5 with C2) as C3 C2 C0 in bits 2..0, and flags. `quiet` as FUCOM.
pub fn compare(a: &F80, b: &F80, quiet: bool) -> (u8, u32) {
    let (x, y) = (class(a), class(b));
    let (Class::Val(v, d), Class::Val(w, e)) = (x, y) else {
        let bad = |c| matches!(c, Class::Signaling | Class::Unsupported) || (!quiet && c == Class::Quiet);
        return (0b111, if bad(x) || bad(y) { IE } else { 0 });
    };
    use std::cmp::Ordering::*;
    let key = |v: Val| match v {
        Val::Zero(_) => (0i64, 0u128),
        Val::Inf(_) => (1 << 20, 0),
        Val::Num(n) => (n.exp as i64 + (1 << 18), n.sig),
    };
    let magnitude = key(v).cmp(&key(w));
    let order = match (v, w) {
        (Val::Zero(_), Val::Zero(_)) => Equal,
        _ => match (v.is_negative(), w.is_negative()) {
            (false, true) => Greater,
            (true, false) => Less,
            (false, false) => magnitude,
            (true, true) => magnitude.reverse(),
        },
    };
    let c = match order {
        Greater => 0b000,
        Less => 0b001,
        Equal => 0b100,
    };
    (c, d | e)
}
