//! PUSH, POP, LEAVE, and the stack as calls use it. Source: Intel SDM vol. 1 §6.2.
//! The kind of stack is the form's `dst` (PUSH, calls) or `src` (POP, LEAVE).

use super::operands::*;
use crate::{forms::*, reg::*};
use accel::tcg::{Emit, W, W::*};

const SS: u8 = 2;

/// Width of the stack pointer.
#[inline(always)]
fn width(stack: Loc) -> W {
    match stack {
        Loc::M => B8,
        Loc::G16 => B2,
        _ => B4,
    }
}
/// The stack pointer plus `by`.
#[inline(always)]
fn moved<E: Emit>(e: &mut E, stack: Loc, by: i64) -> E::V {
    let w = width(stack);
    let sp = e.get(w, RSP);
    e.add_imm(w, sp, by as u64)
}
#[inline(always)]
fn set<E: Emit>(e: &mut E, stack: Loc, sp: E::V) {
    put_reg(e, width(stack), RSP, sp)
}
#[inline(always)]
fn at_sp<E: Emit>(e: &mut E, stack: Loc, sp: E::V, bytes: u32, write: bool) -> Result<E::P, E::Miss> {
    let o = e.zext(width(stack), B8, sp);
    let la = if matches!(stack, Loc::G16 | Loc::G32) { e.linear_in(SS, o, bytes, write)? } else { o };
    e.place(bytes, la, write)
}
/// Pushes a value.
#[inline(always)]
pub fn push_value<E: Emit>(e: &mut E, stack: Loc, w: W, v: E::V) -> Result<(), E::Miss> {
    let sp = moved(e, stack, -(w.bytes() as i64));
    let p = at_sp(e, stack, sp, w.bytes(), true)?;
    e.write(w, p, v);
    set(e, stack, sp);
    Ok(())
}
/// The value on top, not yet popped.
#[inline(always)]
pub fn top<E: Emit>(e: &mut E, stack: Loc, w: W) -> Result<E::V, E::Miss> {
    let sp = moved(e, stack, 0);
    let p = at_sp(e, stack, sp, w.bytes(), false)?;
    Ok(e.read(w, p))
}
/// Drops bytes.
#[inline(always)]
pub fn release<E: Emit>(e: &mut E, stack: Loc, bytes: u32) {
    let sp = moved(e, stack, bytes as i64);
    set(e, stack, sp)
}
/// PUSH.
#[inline(always)]
pub fn push<E: Emit>(e: &mut E, f: Form) -> Result<(), E::Miss> {
    let s = at(e, f.w, f.src, SRC, false)?;
    let v = get(e, f.w, &s);
    push_value(e, f.dst, f.w, v)
}
/// POP; a memory operand is addressed with the stack pointer after the pop.
#[inline(always)]
pub fn pop<E: Emit>(e: &mut E, f: Form) -> Result<(), E::Miss> {
    if !f.dst.is_memory() {
        let v = top(e, f.src, f.w)?;
        release(e, f.src, f.w.bytes());
        put_reg(e, f.w, e.slot(DST), v);
        return Ok(());
    }
    let sp = moved(e, f.src, 0);
    let from = at_sp(e, f.src, sp, f.w.bytes(), false)?;
    let after = moved(e, f.src, f.w.bytes() as i64);
    // (Changed for the address alone.)
    let whole = e.get(B8, RSP);
    set(e, f.src, after);
    let o = offset(e, f.dst);
    e.set(RSP, whole);
    let a = from_offset(e, f.dst, o, f.w.bytes(), true)?;
    let to = e.place(f.w.bytes(), a, true)?;
    let v = e.read(f.w, from);
    set(e, f.src, after);
    e.write(f.w, to, v);
    Ok(())
}
/// LEAVE: the frame pointer becomes the stack pointer, then POP of the frame pointer.
#[inline(always)]
pub fn leave<E: Emit>(e: &mut E, f: Form) -> Result<(), E::Miss> {
    let w = width(f.src);
    let bp = e.get(w, RBP);
    let p = at_sp(e, f.src, bp, f.w.bytes(), false)?;
    let v = e.read(f.w, p);
    let sp = e.add_imm(w, bp, f.w.bytes() as u64);
    set(e, f.src, sp);
    put_reg(e, f.w, RBP, v);
    Ok(())
}
