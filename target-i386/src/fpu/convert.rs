//! Between registers and memory formats. Source: Intel SDM vol. 1 §4.2, §8.1.2; vol. 2, FLD, FST, FILD, FIST, FBLD, FBSTP.

use super::soft::{Class, INTEGER, Out, class, finish, mode, rc};
use accel::tcg::host::f80::F80;
use accel::tcg::softfp::{self, F32, F64, Format, Mode, Round, Val, X80, flag::*};

/// A single or double (by `f`) as a register: exact, NaNs as they are; DE for a denormal.
pub fn load(f: Format, bits: u64) -> Out {
    let frac_bits = f.precision - 1;
    let sign = (bits >> if f.precision == 24 { 31 } else { 63 } & 1) as u16;
    let max = 2 * f.emax + 1;
    let exp = (bits >> frac_bits) as i32 & max;
    let frac = (bits & ((1 << frac_bits) - 1)) << (63 - frac_bits);
    let se = sign << 15;
    if exp == max {
        return Out::exact(F80 { sig: INTEGER | frac, se: se | 0x7fff });
    }
    if exp == 0 {
        if frac == 0 {
            return Out::exact(F80 { sig: 0, se });
        }
        let z = frac.leading_zeros();
        return Out::flagged(F80 { sig: frac << z, se: se | (f.emin - z as i32 + X80.emax) as u16 }, DE);
    }
    Out::exact(F80 { sig: INTEGER | frac, se: se | (exp - f.emax + X80.emax) as u16 })
}
/// A signed integer as a register.
pub fn load_int(i: i64) -> F80 {
    finish(softfp::from_int(i), Mode { format: X80, round: Round::Near, ftz: false, unmasked: 0 }, 0).val
}

/// A register as a single or double under a control word: bits, flags, rounded up.
pub fn store(fcw: u16, f: Format, x: &F80) -> (u64, u32, bool) {
    let single = f.precision == 24;
    let exp_mask = if single { 0x7f80_0000 } else { 0x7ff << 52 };
    let sign = (x.se as u64 >> 15) << if single { 31 } else { 63 };
    let frac = (x.sig << 1) >> (65 - f.precision);
    let quiet = 1u64 << (f.precision - 2);
    match class(x) {
        Class::Val(v, _) => {
            let p = softfp::round(v, mode(fcw, f));
            (p.bits(f), p.flags, p.up)
        }
        Class::Quiet => (sign | exp_mask | frac | quiet, 0, false),
        Class::Signaling => (sign | exp_mask | frac | quiet, IE, false),
        Class::Unsupported => (if single { 0xffc0_0000 } else { 0xfff8 << 48 }, IE, false),
    }
}
/// A register as a signed integer of `bits` bits: value, flags, rounded up. `truncate` as FISTTP.
pub fn store_int(fcw: u16, bits: u32, truncate: bool, x: &F80) -> (i64, u32, bool) {
    match class(x) {
        Class::Val(v, _) => softfp::to_int(v, bits, if truncate { Round::Zero } else { rc(fcw) }),
        _ => (i64::MIN >> (64 - bits), IE, false),
    }
}

/// Packed BCD indefinite (SDM vol. 1 §4.7).
pub const BCD_INDEFINITE: u128 = 0xffff_c000_0000_0000_0000;

/// 18 BCD digits and a sign in 80 bits as a register. Digits above 9 count by their weight.
pub fn load_bcd(bits: u128) -> F80 {
    let m = (0..18).rev().fold(0u64, |m, i| m.wrapping_mul(10).wrapping_add((bits >> (4 * i)) as u64 & 15));
    let v = softfp::from_uint(bits >> 79 & 1 != 0, m);
    finish(v, Mode { format: X80, round: Round::Near, ftz: false, unmasked: 0 }, 0).val
}
/// A register as packed BCD: 80 bits, flags, rounded up.
pub fn store_bcd(fcw: u16, x: &F80) -> (u128, u32, bool) {
    let Class::Val(v, _) = class(x) else { return (BCD_INDEFINITE, IE, false) };
    let (i, flags, up) = softfp::to_int(v, 64, rc(fcw));
    if flags & IE != 0 || i.unsigned_abs() >= 1_000_000_000_000_000_000 {
        return (BCD_INDEFINITE, IE, false);
    }
    let mut m = i.unsigned_abs();
    let mut r = (v.is_negative() as u128) << 79;
    for k in 0..18 {
        r |= ((m % 10) as u128) << (4 * k);
        m /= 10;
    }
    (r, flags, up)
}

/// The constants FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ in opcode order (D9 E8–EE): exponent, significand
/// cut off, and the two bits that follow it, which rounding control rounds away.
const CONSTANTS: [(u16, u64, u8); 7] = [
    (0x3fff, 0x8000_0000_0000_0000, 0),
    (0x4000, 0xd49a_784b_cd1b_8afe, 1),
    (0x3fff, 0xb8aa_3b29_5c17_f0bb, 2),
    (0x4000, 0xc90f_daa2_2168_c234, 3),
    (0x3ffd, 0x9a20_9a84_fbcf_f798, 2),
    (0x3ffe, 0xb172_17f7_d1cf_79ab, 3),
    (0, 0, 0),
];
/// Constant `n` (0–6) under a control word.
pub fn constant(fcw: u16, n: u8) -> F80 {
    let (se, sig, tail) = CONSTANTS[n as usize % 7];
    let up = match rc(fcw) {
        Round::Near => tail >= 2,
        Round::Up => tail != 0,
        _ => false,
    };
    F80 { sig: sig + up as u64, se }
}

/// The value of a register that holds one.
pub fn value(x: &F80) -> Option<Val> {
    match class(x) {
        Class::Val(v, _) => Some(v),
        _ => None,
    }
}
const _: () = assert!(F32.precision == 24 && F64.precision == 53);
