//! One element of MOVS, STOS, LODS, SCAS, CMPS: a string instruction without a repeat prefix. Source: Intel SDM vol. 1 §7.3.9, vol. 2.
//!
//! The form's `dst` says how ES:rDI is reached, `src` how seg:rSI is; the one that an instruction has not is of the same address size.

use super::{flags::Kind, operands::*, string::Str};
use crate::{forms::*, reg::*};
use accel::tcg::{Bin, Emit, Slot, W, W::*};

/// Width of addresses.
fn width(l: Loc) -> W {
    match l {
        Loc::G16 => B2,
        Loc::M32 | Loc::G32 | Loc::S32 => B4,
        _ => B8,
    }
}
/// A place that an index register leads to.
#[inline(always)]
fn indexed<E: Emit>(e: &mut E, w: W, l: Loc, r: Slot, write: bool) -> Result<E::P, E::Miss> {
    let a = width(l);
    let o = e.get(a, r);
    let o = e.zext(a, B8, o);
    let la = match l {
        Loc::G16 | Loc::G32 if r == RDI => e.linear_in(ES as u8, o, w.bytes(), write)?,
        _ => from_offset(e, l, o, w.bytes(), write)?,
    };
    e.place(w.bytes(), la, write)
}
/// Moves an index register on.
#[inline(always)]
fn advance<E: Emit>(e: &mut E, f: Form, r: Slot) {
    let a = width(f.dst);
    let (old, step) = (e.get(a, r), e.get(a, STEP));
    let by = e.shift_imm(Bin::Shl, a, step, f.w.bytes().trailing_zeros());
    let new = e.add(a, old, by);
    put_reg(e, a, r, new)
}
#[inline(always)]
fn compare<E: Emit>(e: &mut E, w: W, a: E::V, b: E::V) {
    if e.flags_wanted() {
        let r = e.sub(w, a, b);
        defer(e, Kind::Sub, w, [a, b, r])
    }
}
/// Runs one.
#[inline(always)]
pub fn run<E: Emit>(e: &mut E, f: Form, op: Str) -> Result<(), E::Miss> {
    match op {
        Str::Movs => {
            let from = indexed(e, f.w, f.src, RSI, false)?;
            let to = indexed(e, f.w, f.dst, RDI, true)?;
            let v = e.read(f.w, from);
            e.write(f.w, to, v);
        }
        Str::Stos => {
            let to = indexed(e, f.w, f.dst, RDI, true)?;
            let v = e.get(f.w, RAX);
            e.write(f.w, to, v);
        }
        Str::Lods => {
            let from = indexed(e, f.w, f.src, RSI, false)?;
            let v = e.read(f.w, from);
            put_reg(e, f.w, RAX, v);
        }
        Str::Scas => {
            let to = indexed(e, f.w, f.dst, RDI, false)?;
            let (a, b) = (e.get(f.w, RAX), e.read(f.w, to));
            compare(e, f.w, a, b)
        }
        Str::Cmps => {
            let from = indexed(e, f.w, f.src, RSI, false)?;
            let to = indexed(e, f.w, f.dst, RDI, false)?;
            let (a, b) = (e.read(f.w, from), e.read(f.w, to));
            compare(e, f.w, a, b)
        }
    }
    if matches!(op, Str::Movs | Str::Lods | Str::Cmps) {
        advance(e, f, RSI)
    }
    if op != Str::Lods {
        advance(e, f, RDI)
    }
    Ok(())
}
