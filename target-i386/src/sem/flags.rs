//! Deferred arithmetic flags. Source: Intel SDM vol. 1 §3.4.3.1.
//!
//! Undefined flags (values chosen here): AF after logic, shifts and multiplication is 0; OF after a shift by more than one
//! is as for a count of one; ZF SF PF after multiplication follow the low half of the result.

use crate::state::bits::*;
use accel::tcg::{Bin, Cmp, Deferred, Ops, Partly, Plain, W, W::*};

/// Producer of the flags, and what its three values are (`r` = result).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The flags themselves in the first value (4 bytes wide).
    Image,
    /// `a, b, r`
    Add,
    /// `a, b, -`
    Sub,
    /// `-, -, r`: CF = OF = AF = 0.
    Logic,
    /// `old CF, -, r`
    Inc,
    /// `old CF, -, r`
    Dec,
    /// `count, a, r`
    Shl,
    /// `count, a, r`
    Shr,
    /// `count, a, r`
    Sar,
    /// `overflow, -, r`
    Mul,
    /// `a, b, r`, CF from the carry chain.
    Adc,
    /// `a, b, r`, CF from the borrow chain.
    Sbb,
    /// `CF, ZF, PF` of a floating comparison, one bit each; OF = SF = AF = 0.
    Fcom,
    /// `last bit out, sign changes, r` of SHLD and SHRD
    Double,
    /// `r, the other flags, -` of 4 bytes or more
    Rol,
    /// `r, the other flags, -` of 4 bytes or more
    Ror,
}
impl Kind {
    /// Which of the three values mean anything: a bit each.
    #[inline(always)]
    pub const fn values(self) -> u8 {
        match self {
            Kind::Image => 0b001,
            Kind::Sub | Kind::Rol | Kind::Ror => 0b011,
            Kind::Logic => 0b100,
            Kind::Inc | Kind::Dec | Kind::Mul => 0b101,
            Kind::Add | Kind::Shl | Kind::Shr | Kind::Sar | Kind::Adc | Kind::Sbb | Kind::Fcom | Kind::Double => 0b111,
        }
    }
    /// The producer of a code; unknown codes are images.
    #[inline(always)]
    pub const fn from_code(c: u8) -> Kind {
        match c {
            1 => Kind::Add,
            2 => Kind::Sub,
            3 => Kind::Logic,
            4 => Kind::Inc,
            5 => Kind::Dec,
            6 => Kind::Shl,
            7 => Kind::Shr,
            8 => Kind::Sar,
            9 => Kind::Mul,
            10 => Kind::Adc,
            11 => Kind::Sbb,
            12 => Kind::Fcom,
            13 => Kind::Double,
            14 => Kind::Rol,
            15 => Kind::Ror,
            _ => Kind::Image,
        }
    }
}

/// Bit vector of carries out of each position of `a + b (+ c) = r`.
#[inline(always)]
fn carries<O: Ops>(o: &mut O, d: Deferred<O::V>) -> O::V {
    let [a, b, r] = d.v;
    let ab = o.and(d.w, a, b);
    let x = o.or(d.w, a, b);
    let nr = not(o, d.w, r);
    let x = o.and(d.w, x, nr);
    o.or(d.w, ab, x)
}
/// Bit vector of borrows out of each position of `a - b (- c) = r`.
#[inline(always)]
fn borrows<O: Ops>(o: &mut O, d: Deferred<O::V>) -> O::V {
    let [a, b, r] = d.v;
    let na = not(o, d.w, a);
    let x = o.and(d.w, na, b);
    let y = o.or(d.w, na, b);
    let y = o.and(d.w, y, r);
    o.or(d.w, x, y)
}
/// The last bit that a shift by a count that is not zero moved out.
#[inline(always)]
fn last_out<O: Ops>(o: &mut O, kind: Kind, d: Deferred<O::V>) -> O::C {
    let [n, a, _] = d.v;
    let m = o.trunc(d.w, B1, n);
    let m = o.add_imm(B1, m, u64::MAX);
    let m = o.and_imm(B1, m, 63);
    let a = if kind == Kind::Sar { o.sext(d.w, B8, a) } else { o.zext(d.w, B8, a) };
    let (op, at) = match kind {
        Kind::Shl => (Bin::Shl, d.w.sign()),
        Kind::Shr => (Bin::Shr, 1),
        _ => (Bin::Sar, 1),
    };
    let t = o.bin(op, B8, a, m);
    o.has_bit(B8, t, at)
}
/// The result.
#[inline(always)]
fn result<O: Ops>(o: &mut O, d: Deferred<O::V>) -> O::V {
    if d.kind == Kind::Sub as u8 { o.sub(d.w, d.v[0], d.v[1]) } else { d.v[2] }
}
#[inline(always)]
fn not<O: Ops>(o: &mut O, w: W, v: O::V) -> O::V {
    let m = o.imm(w, w.mask());
    o.xor(w, v, m)
}
/// CF.
#[inline(always)]
pub fn cf<O: Ops>(o: &mut O, d: Deferred<O::V>) -> O::C {
    let [a, b, r] = d.v;
    match Kind::from_code(d.kind) {
        Kind::Image => o.has_bit(d.w, a, CF as u64),
        Kind::Add => o.cmp(Cmp::Ult, d.w, r, a),
        Kind::Sub => o.cmp(Cmp::Ult, d.w, a, b),
        Kind::Logic => o.never(),
        Kind::Inc | Kind::Dec | Kind::Mul | Kind::Fcom | Kind::Double | Kind::Rol => o.has_bit(d.w, a, 1),
        Kind::Ror => o.negative(d.w, a),
        k @ (Kind::Shl | Kind::Shr | Kind::Sar) => last_out(o, k, d),
        Kind::Adc => {
            let c = carries(o, d);
            o.negative(d.w, c)
        }
        Kind::Sbb => {
            let c = borrows(o, d);
            o.negative(d.w, c)
        }
    }
}
/// ZF.
#[inline(always)]
pub fn zf<O: Ops>(o: &mut O, d: Deferred<O::V>) -> O::C {
    match Kind::from_code(d.kind) {
        Kind::Image => o.has_bit(d.w, d.v[0], ZF as u64),
        Kind::Sub => o.cmp(Cmp::Eq, d.w, d.v[0], d.v[1]),
        Kind::Fcom => o.has_bit(d.w, d.v[1], 1),
        Kind::Rol | Kind::Ror => o.has_bit(d.w, d.v[1], ZF as u64),
        _ => o.is_zero(d.w, d.v[2]),
    }
}
/// SF.
#[inline(always)]
pub fn sf<O: Ops>(o: &mut O, d: Deferred<O::V>) -> O::C {
    match Kind::from_code(d.kind) {
        Kind::Image => o.has_bit(d.w, d.v[0], SF as u64),
        Kind::Fcom => o.never(),
        Kind::Rol | Kind::Ror => o.has_bit(d.w, d.v[1], SF as u64),
        _ => {
            let r = result(o, d);
            o.negative(d.w, r)
        }
    }
}
/// PF.
#[inline(always)]
pub fn pf<O: Ops>(o: &mut O, d: Deferred<O::V>) -> O::C {
    match Kind::from_code(d.kind) {
        Kind::Image => o.has_bit(d.w, d.v[0], PF as u64),
        Kind::Fcom => o.has_bit(d.w, d.v[2], 1),
        Kind::Rol | Kind::Ror => o.has_bit(d.w, d.v[1], PF as u64),
        _ => {
            let r = result(o, d);
            let b = o.trunc(d.w, B1, r);
            o.even_parity(b)
        }
    }
}
/// AF.
#[inline(always)]
pub fn af<O: Ops>(o: &mut O, d: Deferred<O::V>) -> O::C {
    let [a, b, _] = d.v;
    let r = result(o, d);
    match Kind::from_code(d.kind) {
        Kind::Image => o.has_bit(d.w, a, AF as u64),
        Kind::Rol | Kind::Ror => o.has_bit(d.w, b, AF as u64),
        Kind::Add | Kind::Sub | Kind::Adc | Kind::Sbb => {
            let x = o.xor(d.w, a, b);
            let x = o.xor(d.w, x, r);
            o.has_bit(d.w, x, 16)
        }
        // The low nibble wrapped around.
        Kind::Inc => {
            let n = o.and_imm(d.w, r, 15);
            o.is_zero(d.w, n)
        }
        Kind::Dec => {
            let n = o.and_imm(d.w, r, 15);
            let k = o.imm(d.w, 15);
            o.cmp(Cmp::Eq, d.w, n, k)
        }
        _ => o.never(),
    }
}
/// OF.
#[inline(always)]
pub fn of<O: Ops>(o: &mut O, d: Deferred<O::V>) -> O::C {
    let [a, b, _] = d.v;
    let r = result(o, d);
    match Kind::from_code(d.kind) {
        Kind::Image => o.has_bit(d.w, a, OF as u64),
        Kind::Add | Kind::Adc => {
            let x = o.xor(d.w, a, r);
            let y = o.xor(d.w, b, r);
            let z = o.and(d.w, x, y);
            o.negative(d.w, z)
        }
        Kind::Sub | Kind::Sbb => {
            let x = o.xor(d.w, a, b);
            let y = o.xor(d.w, a, r);
            let z = o.and(d.w, x, y);
            o.negative(d.w, z)
        }
        Kind::Logic | Kind::Sar | Kind::Fcom => o.never(),
        Kind::Inc => {
            let k = o.imm(d.w, d.w.sign());
            o.cmp(Cmp::Eq, d.w, r, k)
        }
        Kind::Dec => {
            let k = o.imm(d.w, d.w.sign() - 1);
            o.cmp(Cmp::Eq, d.w, r, k)
        }
        Kind::Shl => {
            let s = o.negative(d.w, r);
            let c = last_out(o, Kind::Shl, d);
            o.both(Bin::Xor, s, c)
        }
        Kind::Shr | Kind::Double => o.negative(d.w, b),
        Kind::Rol => {
            let s = o.negative(d.w, a);
            let c = o.has_bit(d.w, a, 1);
            o.both(Bin::Xor, s, c)
        }
        Kind::Ror => {
            let s = o.negative(d.w, a);
            let next = o.has_bit(d.w, a, d.w.sign() >> 1);
            o.both(Bin::Xor, s, next)
        }
        Kind::Mul => o.has_bit(d.w, a, 1),
    }
}
/// The sixteen conditions in encoding order. Comparisons are decided on the operands where the producer allows it.
#[inline(always)]
pub fn condition<O: Ops>(o: &mut O, cc: u8, d: Deferred<O::V>) -> O::C {
    let [a, b, r] = d.v;
    let c = match (cc >> 1, Kind::from_code(d.kind)) {
        (3, Kind::Sub) => o.cmp(Cmp::Ule, d.w, a, b),
        (6, Kind::Sub) => o.cmp(Cmp::Slt, d.w, a, b),
        (7, Kind::Sub) => o.cmp(Cmp::Sle, d.w, a, b),
        (7, Kind::Logic) => {
            let z = o.imm(d.w, 0);
            o.cmp(Cmp::Sle, d.w, r, z)
        }
        (0, _) => of(o, d),
        (1, _) => cf(o, d),
        (2, _) => zf(o, d),
        (3, _) => {
            let (x, y) = (cf(o, d), zf(o, d));
            o.both(Bin::Or, x, y)
        }
        (4, _) => sf(o, d),
        (5, _) => pf(o, d),
        (6, _) => {
            let (x, y) = (sf(o, d), of(o, d));
            o.both(Bin::Xor, x, y)
        }
        _ => {
            let (x, y) = (sf(o, d), of(o, d));
            let l = o.both(Bin::Xor, x, y);
            let z = zf(o, d);
            o.both(Bin::Or, l, z)
        }
    };
    if cc & 1 != 0 { o.not(c) } else { c }
}
/// All six flags as an integer of 4 bytes.
#[inline(always)]
pub fn all<O: Ops>(o: &mut O, d: Deferred<O::V>) -> O::V {
    if Kind::from_code(d.kind) == Kind::Image {
        return d.v[0];
    }
    let list = [(cf(o, d), 0), (pf(o, d), 2), (af(o, d), 4), (zf(o, d), 6), (sf(o, d), 7), (of(o, d), 11)];
    let mut v = o.imm(B4, 0);
    for (c, n) in list {
        let b = o.bit(B4, c);
        let b = o.shift_imm(Bin::Shl, B4, b, n);
        v = o.or(B4, v, b)
    }
    v
}
/// The arithmetic flags as EFLAGS bits.
pub fn image(d: Deferred<u64>) -> u32 {
    all(&mut Plain, d) as u32
}
/// All flags after an instruction that replaced some: INC and DEC, which keep CF, rotates, or an image of the others.
#[inline(always)]
pub fn complete<O: Ops>(o: &mut O, old: Deferred<O::V>, p: Partly<O::V>) -> Deferred<O::V> {
    let (d, [first, second, r]) = (p.new, p.new.v);
    match Kind::from_code(d.kind) {
        Kind::Inc | Kind::Dec => {
            let c = cf(o, old);
            let c = o.bit(d.w, c);
            Deferred { v: [c, c, r], ..d }
        }
        kind => {
            let old = all(o, old);
            let old = o.and_imm(B4, old, p.kept.into());
            if matches!(kind, Kind::Rol | Kind::Ror) {
                return Deferred { v: [first, o.zext(B4, d.w, old), r], ..d };
            }
            Deferred { v: [o.or(B4, old, first), second, r], ..d }
        }
    }
}
/// Deferred flags that are the given EFLAGS bits.
pub fn from_image(v: u32) -> Deferred<u64> {
    Deferred { kind: Kind::Image as u8, w: B4, v: [(v & ARITH) as u64, 0, 0] }
}
