//! Multiplication and division. Source: Intel SDM vol. 2.

use super::{flags::Kind, operands::*};
use crate::{forms::*, reg::*};
use accel::tcg::{Bin, Cmp, Emit, W, W::*};

/// The high half says that the product does not fit the low one.
#[inline(always)]
fn overflow<E: Emit>(e: &mut E, w: W, signed: bool, hi: E::V, lo: E::V) -> E::V {
    let fill = if signed { e.shift_imm(Bin::Sar, w, lo, w.bits() - 1) } else { e.imm(w, 0) };
    let c = e.cmp(Cmp::Ne, w, hi, fill);
    e.bit(w, c)
}
/// MUL, IMUL with one operand. CF = OF = overflow.
#[inline(always)]
pub fn wide<E: Emit>(e: &mut E, f: Form, signed: bool) -> Result<(), E::Miss> {
    let w = f.w;
    let s = at(e, w, f.src, SRC, false)?;
    let (a, b) = (e.get(w, RAX), get(e, w, &s));
    let [lo, hi] = e.mul_wide(w, signed, a, b);
    if e.flags_wanted() {
        let o = overflow(e, w, signed, hi, lo);
        defer(e, Kind::Mul, w, [o, o, lo])
    }
    if w == B1 {
        put(e, B1, &At::High(RAX), hi);
        put_reg(e, B1, RAX, lo);
    } else {
        put_reg(e, w, RAX, lo);
        put_reg(e, w, RDX, hi);
    }
    Ok(())
}
/// IMUL with two operands, or three (the third is the immediate).
#[inline(always)]
pub fn imul<E: Emit>(e: &mut E, f: Form, three: bool) -> Result<(), E::Miss> {
    let w = f.w;
    let s = at(e, w, f.src, SRC, false)?;
    let a = get(e, w, &s);
    let d = e.slot(DST);
    let b = if three { e.immediate(w) } else { e.get(w, d) };
    let r = e.bin(Bin::Mul, w, a, b);
    if e.flags_wanted() {
        let hi = e.mul_high(w, true, a, b);
        let o = overflow(e, w, true, hi, r);
        defer(e, Kind::Mul, w, [o, o, r])
    }
    put_reg(e, w, d, r);
    Ok(())
}
/// DIV, IDIV: #DE on zero or overflow. Flags are undefined: unchanged.
#[inline(always)]
pub fn div<E: Emit>(e: &mut E, f: Form, signed: bool) -> Result<(), E::Miss> {
    let w = f.w;
    let s = at(e, w, f.src, SRC, false)?;
    let by = get(e, w, &s);
    let hi = if w == B1 { get(e, B1, &At::High(RAX)) } else { e.get(w, RDX) };
    let lo = e.get(w, RAX);
    let [q, r] = e.divide(w, signed, hi, lo, by)?;
    if w == B1 {
        put_reg(e, B1, RAX, q);
        put(e, B1, &At::High(RAX), r);
    } else {
        put_reg(e, w, RAX, q);
        put_reg(e, w, RDX, r);
    }
    Ok(())
}
