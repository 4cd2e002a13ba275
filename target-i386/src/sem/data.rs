//! Moves, extensions, exchanges, conditional moves. Source: Intel SDM vol. 2.

use super::{flags, flags::Kind, operands::*};
use crate::{forms::*, reg::*};
use accel::tcg::{Bin, Cmp, Emit, Un, W, W::*};

/// MOV (also MOVNTI).
#[inline(always)]
pub fn mov<E: Emit>(e: &mut E, f: Form) -> Result<(), E::Miss> {
    let s = at(e, f.w, f.src, SRC, false)?;
    let d = at(e, f.w, f.dst, DST, true)?;
    let v = get(e, f.w, &s);
    put(e, f.w, &d, v);
    Ok(())
}
/// MOVZX.
#[inline(always)]
pub fn zext<E: Emit>(e: &mut E, f: Form, from: W) -> Result<(), E::Miss> {
    let s = at(e, from, f.src, SRC, false)?;
    let v = get(e, from, &s);
    let v = e.zext(from, f.w, v);
    put_reg(e, f.w, e.slot(DST), v);
    Ok(())
}
/// MOVSX, MOVSXD, CBW, CWDE, CDQE.
#[inline(always)]
pub fn sext<E: Emit>(e: &mut E, f: Form, from: W) -> Result<(), E::Miss> {
    let s = at(e, from, f.src, SRC, false)?;
    let v = get(e, from, &s);
    let v = e.sext(from, f.w, v);
    put_reg(e, f.w, e.slot(DST), v);
    Ok(())
}
/// CWD, CDQ, CQO.
#[inline(always)]
pub fn sign_into<E: Emit>(e: &mut E, f: Form) {
    let v = e.get(f.w, RAX);
    let v = e.shift_imm(Bin::Sar, f.w, v, f.w.bits() - 1);
    put_reg(e, f.w, RDX, v)
}
/// LEA.
#[inline(always)]
pub fn lea<E: Emit>(e: &mut E, f: Form) {
    let a = offset(e, f.src);
    let v = e.trunc(B8, f.w, a);
    put_reg(e, f.w, e.slot(DST), v)
}
/// XCHG; with memory it is locked.
#[inline(always)]
pub fn xchg<E: Emit>(e: &mut E, f: Form) -> Result<(), E::Miss> {
    let d = at(e, f.w, f.dst, DST, true)?;
    let s = at(e, f.w, f.src, SRC, true)?;
    let b = get(e, f.w, &s);
    let a = match d {
        At::Mem(p) => e.rmw(None, f.w, p, b),
        _ => get(e, f.w, &d),
    };
    put(e, f.w, &s, a);
    if !matches!(d, At::Mem(_)) {
        put(e, f.w, &d, b)
    }
    Ok(())
}
/// XADD: flags of the addition.
#[inline(always)]
pub fn xadd<E: Emit>(e: &mut E, f: Form) -> Result<(), E::Miss> {
    let d = at(e, f.w, f.dst, DST, true)?;
    let s = at(e, f.w, f.src, SRC, true)?;
    let (a, b) = (get(e, f.w, &d), get(e, f.w, &s));
    let r = e.add(f.w, a, b);
    defer(e, Kind::Add, f.w, [a, b, r]);
    put(e, f.w, &s, a);
    put(e, f.w, &d, r);
    Ok(())
}
/// LOCK XADD.
#[inline(always)]
pub fn locked_xadd<E: Emit>(e: &mut E, f: Form) -> Result<(), E::Miss> {
    let p = place(e, f.dst, f.w.bytes(), true)?;
    let s = at(e, f.w, f.src, SRC, true)?;
    let b = get(e, f.w, &s);
    let a = e.rmw(Some(Bin::Add), f.w, p, b);
    let r = e.add(f.w, a, b);
    defer(e, Kind::Add, f.w, [a, b, r]);
    put(e, f.w, &s, a);
    Ok(())
}
/// The accumulator takes what was in memory, unless it was equal: then it is not written at all.
#[inline(always)]
fn accumulator<E: Emit>(e: &mut E, w: W, equal: E::C, seen: E::V) {
    let old = e.get(B8, RAX);
    let new = match w {
        B4 | B8 => e.zext(w, B8, seen),
        _ => {
            let keep = e.and_imm(B8, old, !w.mask());
            let v = e.zext(w, B8, seen);
            e.or(B8, keep, v)
        }
    };
    let v = e.select(B8, equal, old, new);
    e.set(RAX, v)
}
/// CMPXCHG: flags of `accumulator - dst`. The destination is written in any case.
#[inline(always)]
pub fn cmpxchg<E: Emit>(e: &mut E, f: Form) -> Result<(), E::Miss> {
    let w = f.w;
    let d = at(e, w, f.dst, DST, true)?;
    let s = at(e, w, f.src, SRC, false)?;
    let (acc, old, new) = (e.get(w, RAX), get(e, w, &d), get(e, w, &s));
    let r = e.sub(w, acc, old);
    let eq = e.cmp(Cmp::Eq, w, acc, old);
    defer(e, Kind::Sub, w, [acc, old, r]);
    let v = e.select(w, eq, new, old);
    // In this order: the destination may be the accumulator.
    accumulator(e, w, eq, old);
    if matches!(d, At::Mem(_)) {
        put(e, w, &d, v)
    } else {
        // A register that keeps its value keeps its upper half as well.
        let reg = match d {
            At::Reg(s) | At::High(s) => s,
            _ => RAX,
        };
        let whole = e.get(B8, reg);
        put(e, w, &d, v);
        let written = e.get(B8, reg);
        let v = e.select(B8, eq, written, whole);
        e.set(reg, v)
    }
    Ok(())
}
/// LOCK CMPXCHG.
#[inline(always)]
pub fn locked_cmpxchg<E: Emit>(e: &mut E, f: Form) -> Result<(), E::Miss> {
    let w = f.w;
    let p = place(e, f.dst, w.bytes(), true)?;
    let s = at(e, w, f.src, SRC, false)?;
    let (acc, new) = (e.get(w, RAX), get(e, w, &s));
    let old = e.cas(w, p, acc, new);
    let r = e.sub(w, acc, old);
    let eq = e.cmp(Cmp::Eq, w, acc, old);
    defer(e, Kind::Sub, w, [acc, old, r]);
    accumulator(e, w, eq, old);
    Ok(())
}
/// CMPXCHG8B, locked or not: ZF only.
#[inline(always)]
pub fn cmpxchg8b<E: Emit>(e: &mut E, f: Form) -> Result<(), E::Miss> {
    let p = place(e, f.dst, 8, true)?;
    let mut pair = |hi, lo| {
        let (h, l) = (e.get(B4, hi), e.get(B4, lo));
        let (h, l) = (e.zext(B4, B8, h), e.zext(B4, B8, l));
        let h = e.shift_imm(Bin::Shl, B8, h, 32);
        e.or(B8, h, l)
    };
    let (acc, new) = (pair(RDX, RAX), pair(RCX, RBX));
    let zero = e.imm(B4, 0);
    let others = merge_flags(e, crate::state::bits::ZF, zero)?;
    let old = e.cas(B8, p, acc, new);
    let eq = e.cmp(Cmp::Eq, B8, acc, old);
    let z = e.bit(B4, eq);
    let z = e.shift_imm(Bin::Shl, B4, z, 6);
    let v = e.or(B4, others, z);
    defer_image(e, v);
    let hi = e.shift_imm(Bin::Shr, B8, old, 32);
    let lo = e.and_imm(B8, old, 0xffff_ffff);
    for (reg, v) in [(RDX, hi), (RAX, lo)] {
        let whole = e.get(B8, reg);
        let v = e.select(B8, eq, whole, v);
        e.set(reg, v)
    }
    Ok(())
}
/// BSWAP; 16-bit operands (undefined) give 0 as processors do.
#[inline(always)]
pub fn bswap<E: Emit>(e: &mut E, f: Form) {
    let s = e.slot(DST);
    let r = if f.w == B2 {
        e.imm(B2, 0)
    } else {
        let v = e.get(f.w, s);
        e.un(Un::Bswap, f.w, v)
    };
    put_reg(e, f.w, s, r)
}
/// SETcc.
#[inline(always)]
pub fn setcc<E: Emit>(e: &mut E, f: Form, cc: u8) -> Result<(), E::Miss> {
    let d = at(e, B1, f.dst, DST, true)?;
    let fl = e.deferred()?;
    let c = flags::condition(e, cc, fl);
    let v = e.bit(B1, c);
    put(e, B1, &d, v);
    Ok(())
}
/// CMOVcc: the source is read in any case, and a 32-bit destination's upper half is cleared in any case.
#[inline(always)]
pub fn cmov<E: Emit>(e: &mut E, f: Form, cc: u8) -> Result<(), E::Miss> {
    let s = at(e, f.w, f.src, SRC, false)?;
    let fl = e.deferred()?;
    let c = flags::condition(e, cc, fl);
    let d = e.slot(DST);
    let (new, old) = (get(e, f.w, &s), e.get(f.w, d));
    let v = e.select(f.w, c, new, old);
    put_reg(e, f.w, d, v);
    Ok(())
}
