//! Where the host is not the measure: functions the architecture only bounds the error of.
//!
//! - x87 transcendentals: within 1 ulp of the true value ([`crate::big`]).
//! - RCPPS, RCPSS, RSQRTPS, RSQRTSS: relative error at most 1.5 · 2⁻¹² (SDM vol. 2).
//!
//! Special operands (NaN, infinity, zero, unsupported, empty) are left to the comparison with the host.

use crate::{
    big::{self, Big},
    cases,
    layout::{DATA_LEN, Layout},
    state::{Case, Outcome},
};
use iced_x86::{Instruction, Mnemonic as M, OpKind};

/// Takes over from `other` what is as right as the host's answer, so that the comparison only sees what is wrong. False: any outcome will do.
pub fn accept(
    i: &Instruction,
    layout: &Layout,
    case: &Case,
    judge: &mut Outcome,
    memory: &[u8; DATA_LEN],
    other: &Outcome,
) -> bool {
    if judge.fault.is_some() || other.fault.is_some() {
        return true;
    }
    match i.mnemonic() {
        M::Fsin | M::Fcos | M::Fsincos | M::Fptan | M::Fpatan | M::F2xm1 | M::Fyl2x | M::Fyl2xp1 => {
            return transcendental(i, case, judge, other);
        }
        M::Rcpps | M::Rcpss | M::Rsqrtps | M::Rsqrtss => estimate(i, layout, case, judge, memory, other),
        _ => {}
    }
    true
}

/// What the true results are: for each result register its exact value.
enum Truth {
    /// ST(n) is this, for each pair.
    Values(Vec<(usize, Big)>),
    /// The operand is outside the function's domain: any result will do (SDM, F2XM1 and FYL2XP1).
    Undefined,
}

fn truth(m: M, x: u128, y: u128) -> Option<Truth> {
    let ordinary = |v: u128| {
        let (e, f) = ((v >> 64) as u16 & 0x7fff, v as u64);
        e != 0x7fff && f != 0 && (e == 0 || f >> 63 != 0)
    };
    let two = matches!(m, M::Fpatan | M::Fyl2x | M::Fyl2xp1);
    if !ordinary(x) || two && !ordinary(y) {
        return None;
    }
    let (bx, by) = (Big::f80(x), Big::f80(y));
    let one = |v| Some(Truth::Values(vec![(0, v)]));
    match m {
        M::Fsin | M::Fcos | M::Fsincos | M::Fptan => {
            if bx.exponent() > 63 {
                return None;
            }
            let (s, c) = big::sin_cos(bx);
            match m {
                M::Fsin => one(s),
                M::Fcos => one(c),
                M::Fsincos => Some(Truth::Values(vec![(1, s), (0, c)])),
                _ => Some(Truth::Values(vec![(1, s.over(c))])),
            }
        }
        M::Fpatan => one(big::atan2(by, bx)),
        M::F2xm1 => {
            if bx.abs().minus(Big::int(1)).is_negative() {
                one(big::exp2_m1(bx))
            } else if bx.abs() == Big::int(1) {
                None
            } else {
                Some(Truth::Undefined)
            }
        }
        M::Fyl2x => {
            if bx.is_negative() || bx == Big::int(1) {
                return None;
            }
            one(by.times(big::log2(bx)))
        }
        M::Fyl2xp1 => {
            // |x| < 1 - √½, rounded down a little
            if bx.cmp_abs(&Big::scaled(false, 0x4afb_0ccc, -32)).is_ge() {
                return Some(Truth::Undefined);
            }
            one(by.times(big::log2_p1(bx)))
        }
        _ => None,
    }
}

fn transcendental(i: &Instruction, case: &Case, judge: &mut Outcome, other: &Outcome) -> bool {
    const C1: u16 = 0x200;
    const C2: u16 = 0x400;
    let before = &case.state.fx;
    let top = usize::from(before.fsw() >> 11 & 7);
    let in_use = |n: usize| before.ftw() >> ((top + n) & 7) & 1 != 0;
    let m = i.mnemonic();
    let pushes = matches!(m, M::Fsincos | M::Fptan);
    let pops = matches!(m, M::Fpatan | M::Fyl2x | M::Fyl2xp1);
    if !in_use(0) || pops && !in_use(1) || pushes && in_use(7) {
        return true;
    }
    let (a, b) = (judge.state.fx, &other.state.fx);
    // Whether C1 says "rounded up" depends on the last bit.
    let sync = |judge: &mut Outcome, bits: u16| {
        let fsw = judge.state.fx.fsw();
        judge.state.fx.set_fsw(fsw & !bits | b.fsw() & bits);
    };
    match truth(m, before.st(0), before.st(1)) {
        Some(Truth::Undefined) => return false,
        Some(Truth::Values(values)) => {
            let unmasked = !before.fcw() & 0x3f;
            let range = matches!(m, M::Fsin | M::Fcos | M::Fsincos | M::Fptan) && a.fsw() & C2 != 0;
            if range || unmasked & a.fsw() & 7 != 0 || unmasked & b.fsw() & 7 != 0 {
                return true;
            }
            for (n, value) in values {
                if within_ulp(b.st(n), delivered(value, unmasked & a.fsw() & b.fsw())) {
                    judge.state.fx.set_st(n, b.st(n));
                }
            }
            sync(judge, C1);
        }
        // Exact, yet some units say that they rounded up.
        None if m == M::F2xm1 && before.st(0) & !(1 << 79) == 0x3fff << 64 | 1 << 63 => sync(judge, C1),
        None => {}
    }
    true
}

/// What a register gets of `value` while the exceptions `raised` are unmasked: after an overflow or underflow its exponent is moved into the
/// range (SDM vol. 1 §8.5.4, §8.5.5).
fn delivered(value: Big, raised: u16) -> Big {
    const OE: u16 = 8;
    const UE: u16 = 0x10;
    match value.exponent() {
        16385.. if raised & OE != 0 => value.shift(-24576),
        ..=-16382 if raised & UE != 0 => value.shift(24576),
        _ => value,
    }
}

/// Is `got` within one unit in the last place of `value`?
pub fn within_ulp(got: u128, value: Big) -> bool {
    let e = (got >> 64) as u16 & 0x7fff;
    if e == 0x7fff {
        return got as u64 == 1 << 63 && value.exponent() > 16384 - 1 && (got >> 79 != 0) == value.is_negative();
    }
    let difference = Big::f80(got).minus(value).abs();
    let ulp = Big::scaled(false, 1, value.exponent().max(-16381) - 64);
    difference.cmp_abs(&ulp).is_le()
}

/// The estimates, lane by lane.
fn estimate(
    i: &Instruction,
    layout: &Layout,
    case: &Case,
    judge: &mut Outcome,
    memory: &[u8; DATA_LEN],
    other: &Outcome,
) {
    let n = i.op0_register().number();
    let lanes = if matches!(i.mnemonic(), M::Rcpps | M::Rsqrtps) { 4 } else { 1 };
    let source = match i.op1_kind() {
        OpKind::Register => case.state.fx.xmm(i.op1_register().number()).to_le_bytes(),
        _ => {
            let Some(at) = cases::effective_address(i, 1, layout, case).and_then(|ea| cases::data_offset(ea, layout))
            else {
                return;
            };
            let mut bytes = [0; 16];
            let len = (4 * lanes).min(DATA_LEN - at);
            bytes[..len].copy_from_slice(&memory[at..at + len]);
            bytes
        }
    };
    let (mut a, b) = (judge.state.fx.xmm(n).to_le_bytes(), other.state.fx.xmm(n).to_le_bytes());
    for lane in 0..lanes {
        let at = 4 * lane..4 * lane + 4;
        let float = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("four bytes"));
        let (x, host, got) = (float(&source[at.clone()]), float(&a[at.clone()]), float(&b[at.clone()]));
        // (Where the host flushes a result at the edge of the range another CPU need not.)
        if x.is_normal() && got.is_normal() && (host.is_normal() || host == 0.0) {
            let (x, got) = (f64::from(x), f64::from(got));
            let exact = if matches!(i.mnemonic(), M::Rcpps | M::Rcpss) { 1.0 / x } else { 1.0 / x.sqrt() };
            if ((got - exact) / exact).abs() <= 1.5 / 4096.0 {
                a[at.clone()].copy_from_slice(&b[at]);
            }
        }
    }
    judge.state.fx.set_xmm(n, u128::from_le_bytes(a));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FYL2XP1 of −1.5 · 2⁻¹⁶³⁸² and 1.68 · 2⁻¹⁶³⁸² with underflow unmasked: ends in a.49 and is delivered with an exponent 24576 higher.
    #[test]
    fn one_ulp_where_the_exponent_is_adjusted() {
        let code = vec![0xd9, 0xf9];
        let i = iced_x86::Decoder::new(64, &code, 0).decode();
        let mut state = crate::state::State::default();
        state.fx.set_fcw(0x36f);
        state.fx.set_ftw(0xff);
        state.fx.set_st(0, 0x8001_c000_0000_0000_0000);
        state.fx.set_st(1, 0x0001_d770_0000_0000_0000);
        let case = Case { mode: crate::state::Mode::Bits64, code, count: 1, state, memory: vec![] };
        let outcome = |st0: u128, fsw: u16| {
            let mut o = Outcome { state: case.state, fault: None };
            o.state.fx.set_fsw(fsw);
            o.state.fx.set_st(0, st0);
            o
        };
        let judged = |judge: u128, other: u128| {
            let mut judge = outcome(judge, 0x8ab0);
            let layout = Layout::new(0);
            assert!(accept(&i, &layout, &case, &mut judge, &[0; DATA_LEN], &outcome(other, 0x88b0)));
            judge.state.fx.st(0)
        };
        let right = 0xa004_e91b_a33e_6da8_987a;
        assert_eq!(judged(right + 1, right), right);
        assert_eq!(judged(right, right + 1), right + 1);
        assert_eq!(judged(right, right + 2), right);
        assert_eq!(judged(right, right - 1), right);
        assert_eq!(judged(right, 0x8000 << 64), right);
    }

    #[test]
    fn one_ulp_and_no_more() {
        // sin 1 = 0.8414…, correctly rounded, and its neighbours
        let x = Big::int(1);
        let (s, _) = big::sin_cos(x);
        let right = 0x3ffe_d76a_a478_4867_7020_u128;
        assert!(within_ulp(right, s));
        assert!(within_ulp(right + 1, s) != within_ulp(right - 1, s), "the true value lies between two neighbours");
        assert!(!within_ulp(right + 2, s) && !within_ulp(right - 2, s));
        assert!(!within_ulp(0x7fff_8000_0000_0000_0000, s));
    }
}
