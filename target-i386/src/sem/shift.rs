//! Shifts and rotates, double shifts. Source: Intel SDM vol. 2.
//! RCL and RCR are functions on the whole CPU (`rare.rs`).

use super::{flags, flags::Kind, operands::*};
use crate::{forms::*, reg::RCX, state::bits::*};
use accel::tcg::{Bin, Cmp, Deferred, Emit, Flow, Partly, Step, W, W::*};

/// SHL SHR SAR ROL ROR. A count of zero changes nothing but clears the upper half of a 32-bit register.
#[inline(always)]
pub fn shift<E: Emit>(e: &mut E, f: Form, op: Shift) -> Step<E> {
    let w = f.w;
    if matches!(op, Shift::Rcl | Shift::Rcr) {
        return Ok(Flow::Rare);
    }
    let d = at(e, w, f.dst, DST, true)?;
    let a = get(e, w, &d);
    match f.src {
        Loc::No => put(e, w, &d, a),
        Loc::I => {
            let n = e.immediate(B1);
            let r = if e.flags_wanted() {
                let (r, p) = formula(e, w, op, a, n);
                if p.kept == 0 {
                    e.defer(p.new)
                } else {
                    defer_partly(e, p)?
                }
                r
            } else {
                plain(e, w, op, a, n)
            };
            put(e, w, &d, r)
        }
        _ => {
            let n = e.get(B1, RCX);
            let n = e.and_imm(B1, n, if w == B8 { 63 } else { 31 });
            let z = e.imm(B1, 0);
            let some = e.cmp(Cmp::Ne, B1, n, z);
            let r = if e.flags_wanted() {
                let (r, p) = formula(e, w, op, a, n);
                let d = if p.kept == 0 {
                    p.new
                } else {
                    let old = e.deferred()?;
                    flags::complete(e, old, p)
                };
                e.defer_if(some, d);
                e.select(w, some, r, a)
            } else {
                plain(e, w, op, a, n)
            };
            put(e, w, &d, r)
        }
    }
    Ok(Flow::Next)
}
/// The result alone; also right for a count of zero.
#[inline(always)]
fn plain<E: Emit>(e: &mut E, w: W, op: Shift, a: E::V, n: E::V) -> E::V {
    // (Counts are not cut to the width of narrower values.)
    let wide = if w < B4 { B8 } else { w };
    let (bin, a) = match op {
        Shift::Shl => (Bin::Shl, e.zext(w, wide, a)),
        Shift::Shr => (Bin::Shr, e.zext(w, wide, a)),
        Shift::Sar => (Bin::Sar, e.sext(w, wide, a)),
        _ => {
            let n = e.and_imm(B1, n, w.bits() as u64 - 1);
            return e.bin(if op == Shift::Rol { Bin::Rol } else { Bin::Ror }, w, a, n);
        }
    };
    let r = e.bin(bin, wide, a, n);
    e.trunc(wide, w, r)
}
/// Result and flags for a count that is not zero.
#[inline(always)]
fn formula<E: Emit>(e: &mut E, w: W, op: Shift, a: E::V, n: E::V) -> (E::V, Partly<E::V>) {
    let r = plain(e, w, op, a, n);
    let kind = match op {
        Shift::Shl => Kind::Shl,
        Shift::Shr => Kind::Shr,
        Shift::Sar => Kind::Sar,
        Shift::Rol => Kind::Rol,
        _ => Kind::Ror,
    };
    let new = |kind, v| Deferred { kind: kind as u8, w, v };
    if !matches!(kind, Kind::Rol | Kind::Ror) {
        let n = e.zext(B1, w, n);
        return (r, Partly { new: new(kind, [n, a, r]), kept: 0 });
    }
    let z = e.imm(w, 0);
    let d = new(kind, [r, z, z]);
    if w < B4 {
        // (The other flags would not fit beside it.)
        let (c, o) = (flags::cf(e, d), flags::of(e, d));
        let (c, o) = (e.bit(B4, c), e.bit(B4, o));
        let o = e.shift_imm(Bin::Shl, B4, o, OF.trailing_zeros());
        let v = e.or(B4, c, o);
        return (r, image(e, CF | OF, v));
    }
    (r, Partly { new: d, kept: ARITH & !(CF | OF) })
}
/// SHLD, SHRD of 16 bits. Counts above 16 are undefined; here the operands repeat.
#[inline(always)]
fn double16<E: Emit>(e: &mut E, left: bool, a: E::V, b: E::V, n: E::V) -> [E::V; 2] {
    let (x, y) = (e.zext(B2, B8, a), e.zext(B2, B8, b));
    let high = e.shift_imm(Bin::Shl, B8, x, 32);
    let middle = e.shift_imm(Bin::Shl, B8, y, 16);
    let t = e.or(B8, high, middle);
    let t = e.or(B8, t, x);
    let m = e.add_imm(B1, n, u64::MAX);
    let m = e.and_imm(B1, m, 31);
    let (r, c) = if left {
        let s = e.bin(Bin::Shl, B8, t, m);
        let c = e.shift_imm(Bin::Shr, B8, s, 47);
        (e.shift_imm(Bin::Shr, B8, s, 31), c)
    } else {
        let s = e.bin(Bin::Shr, B8, t, m);
        (e.shift_imm(Bin::Shr, B8, s, 1), s)
    };
    let c = e.and_imm(B8, c, 1);
    [e.trunc(B8, B2, r), e.trunc(B8, B2, c)]
}
/// SHLD (`left`), SHRD.
#[inline(always)]
pub fn double<E: Emit>(e: &mut E, f: Form, left: bool, count: Count) -> Result<(), E::Miss> {
    let w = f.w;
    let bits = w.bits() as u64;
    let d = at(e, w, f.dst, DST, true)?;
    let (a, b) = (get(e, w, &d), e.get(w, e.slot(SRC)));
    let n = match count {
        Count::Imm => e.immediate(B1),
        Count::Cl => e.get(B1, RCX),
    };
    let n = e.and_imm(B1, n, if w == B8 { 63 } else { 31 });
    let z = e.imm(B1, 0);
    let some = e.cmp(Cmp::Ne, B1, n, z);
    if w == B2 {
        let [r, c] = double16(e, left, a, b, n);
        let o = e.xor(w, a, r);
        e.defer_if(some, Deferred { kind: Kind::Double as u8, w, v: [c, o, r] });
        let r = e.select(w, some, r, a);
        put(e, w, &d, r);
        return Ok(());
    }
    let n = e.and_imm(B1, n, bits - 1);
    let m = e.add_imm(B1, n, u64::MAX);
    let m = e.and_imm(B1, m, bits - 1);
    let k = e.imm(B1, bits - 1);
    let rest = e.sub(B1, k, n);
    let (out, mix) = (if left { Bin::Shl } else { Bin::Shr }, if left { Bin::Shr } else { Bin::Shl });
    let t = e.bin(out, w, a, m);
    let c = e.shift_imm(Bin::Shr, w, t, if left { w.bits() - 1 } else { 0 });
    let c = e.and_imm(w, c, 1);
    let x = e.bin(out, w, a, n);
    let y = e.shift_imm(mix, w, b, 1);
    let y = e.bin(mix, w, y, rest);
    let r = e.or(w, x, y);
    let o = e.xor(w, a, r);
    e.defer_if(some, Deferred { kind: Kind::Double as u8, w, v: [c, o, r] });
    let r = e.select(w, some, r, a);
    put(e, w, &d, r);
    Ok(())
}
