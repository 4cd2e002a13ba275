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
    match op {
        Shift::Shl => {
            let a = e.zext(w, B8, a);
            let r = e.bin(Bin::Shl, B8, a, n);
            e.trunc(B8, w, r)
        }
        Shift::Shr => {
            let a = e.zext(w, B8, a);
            let r = e.bin(Bin::Shr, B8, a, n);
            e.trunc(B8, w, r)
        }
        Shift::Sar => {
            let a = e.sext(w, B8, a);
            let r = e.bin(Bin::Sar, B8, a, n);
            e.trunc(B8, w, r)
        }
        _ => {
            let n = e.and_imm(B1, n, w.bits() as u64 - 1);
            e.bin(if op == Shift::Rol { Bin::Rol } else { Bin::Ror }, w, a, n)
        }
    }
}
/// Result and flags for a count that is not zero.
#[inline(always)]
fn formula<E: Emit>(e: &mut E, w: W, op: Shift, a: E::V, n: E::V) -> (E::V, Partly<E::V>) {
    let top = w.bits() - 1;
    let m = e.add_imm(B1, n, u64::MAX);
    let m = e.and_imm(B1, m, 63);
    let (kind, c, r) = match op {
        Shift::Shl => {
            let x = e.zext(w, B8, a);
            let t = e.bin(Bin::Shl, B8, x, m);
            let c = e.shift_imm(Bin::Shr, B8, t, top);
            let r = e.shift_imm(Bin::Shl, B8, t, 1);
            (Kind::Shl, c, r)
        }
        Shift::Shr | Shift::Sar => {
            let (x, bin, kind) = if op == Shift::Shr {
                (e.zext(w, B8, a), Bin::Shr, Kind::Shr)
            } else {
                (e.sext(w, B8, a), Bin::Sar, Kind::Sar)
            };
            let t = e.bin(bin, B8, x, m);
            (kind, t, e.shift_imm(bin, B8, t, 1))
        }
        _ => {
            let r = plain(e, w, op, a, n);
            let bit = |e: &mut E, k: u32| {
                let v = e.shift_imm(Bin::Shr, w, r, k);
                let v = e.and_imm(w, v, 1);
                if w == B8 { e.trunc(B8, B4, v) } else { e.zext(w, B4, v) }
            };
            let high = bit(e, top);
            let (c, o) = if op == Shift::Rol {
                let c = bit(e, 0);
                (c, e.xor(B4, high, c))
            } else {
                let next = bit(e, top - 1);
                (high, e.xor(B4, high, next))
            };
            let o = e.shift_imm(Bin::Shl, B4, o, 11);
            let v = e.or(B4, c, o);
            return (r, image(e, CF | OF, v));
        }
    };
    let c = e.and_imm(B8, c, 1);
    let (c, r) = (e.trunc(B8, w, c), e.trunc(B8, w, r));
    (r, Partly { new: Deferred { kind: kind as u8, w, v: [c, a, r] }, kept: 0 })
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
        let fl = if left { (Kind::Shl, [c, a, r]) } else { (Kind::Shr, [c, o, r]) };
        e.defer_if(some, Deferred { kind: fl.0 as u8, w, v: fl.1 });
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
    let fl = if left { (Kind::Shl, [c, a, r]) } else { (Kind::Shr, [c, o, r]) };
    e.defer_if(some, Deferred { kind: fl.0 as u8, w, v: fl.1 });
    let r = e.select(w, some, r, a);
    put(e, w, &d, r);
    Ok(())
}
