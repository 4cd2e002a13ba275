//! Operands: addresses, places, registers and their halves. Source: Intel SDM vol. 1 §3.7.

use super::flags::Kind;
use crate::{forms::*, state::bits::ARITH};
use accel::tcg::{Bin, Deferred, Emit, PAGE, Partly, Slot, W, W::*};

/// A resolved operand: reading and writing it cannot fail any more.
pub enum At<E: Emit> {
    /// A general register.
    Reg(Slot),
    /// AH, CH, DH, BH.
    High(Slot),
    /// In memory.
    Mem(E::P),
    /// A value: an immediate.
    Val(E::V),
}

/// Offset of a memory operand in its segment.
#[inline(always)]
pub fn offset<E: Emit>(e: &mut E, l: Loc) -> E::V {
    let indexed = matches!(l, Loc::Mx | Loc::Mx32 | Loc::S | Loc::S32 | Loc::G16 | Loc::G32);
    let w = match l {
        Loc::G16 => B2,
        Loc::M32 | Loc::Mx32 | Loc::S32 | Loc::G32 => B4,
        _ => B8,
    };
    if l == Loc::Abs {
        return e.immediate(B8);
    }
    let mut a = e.get(w, e.slot(BASE));
    if indexed {
        let mut i = e.get(w, e.slot(INDEX));
        if l != Loc::G16 {
            let s = e.scale();
            i = e.bin(Bin::Shl, w, i, s);
        }
        a = e.add(w, a, i);
    }
    let d = e.disp();
    let d = e.trunc(B8, w, d);
    let a = e.add(w, a, d);
    e.zext(w, B8, a)
}
/// Linear address of a memory operand of `bytes` bytes, segment checks done.
#[inline(always)]
pub fn address<E: Emit>(e: &mut E, l: Loc, bytes: u32, write: bool) -> Result<E::V, E::Miss> {
    let o = offset(e, l);
    from_offset(e, l, o, bytes, write)
}
/// Likewise for an offset that was computed already.
#[inline(always)]
pub fn from_offset<E: Emit>(e: &mut E, l: Loc, o: E::V, bytes: u32, write: bool) -> Result<E::V, E::Miss> {
    match l {
        Loc::S | Loc::S32 | Loc::Abs => {
            let b = e.get(B8, e.segment());
            Ok(e.add(B8, b, o))
        }
        Loc::G16 | Loc::G32 => e.linear(o, bytes, write),
        _ => Ok(o),
    }
}
/// A place for a memory operand of `bytes` bytes.
#[inline(always)]
pub fn place<E: Emit>(e: &mut E, l: Loc, bytes: u32, write: bool) -> Result<E::P, E::Miss> {
    let a = address(e, l, bytes, write)?;
    e.place(bytes, a, write)
}
/// Resolves an operand of width `w`.
#[inline(always)]
pub fn at<E: Emit>(e: &mut E, w: W, l: Loc, field: usize, write: bool) -> Result<At<E>, E::Miss> {
    Ok(match l {
        Loc::Rh => At::High(e.slot(field)),
        Loc::I => At::Val(e.immediate(w)),
        l if l.is_memory() => At::Mem(place(e, l, w.bytes(), write)?),
        _ => At::Reg(e.slot(field)),
    })
}
/// Reads it.
#[inline(always)]
pub fn get<E: Emit>(e: &mut E, w: W, a: &At<E>) -> E::V {
    match *a {
        At::Reg(s) => e.get(w, s),
        At::Mem(p) => e.read(w, p),
        At::Val(v) => v,
        At::High(s) => {
            let v = e.get(B8, s);
            let v = e.shift_imm(Bin::Shr, B8, v, 8);
            e.trunc(B8, B1, v)
        }
    }
}
/// Writes it. A 32-bit result clears the upper half of its register (SDM vol. 1 §3.4.1.1), a narrower one keeps the rest.
#[inline(always)]
pub fn put<E: Emit>(e: &mut E, w: W, a: &At<E>, v: E::V) {
    match *a {
        At::Reg(s) => put_reg(e, w, s, v),
        At::Mem(p) => e.write(w, p, v),
        At::High(s) => {
            let old = e.get(B8, s);
            let old = e.and_imm(B8, old, !0xff00);
            let v = e.zext(B1, B8, v);
            let v = e.shift_imm(Bin::Shl, B8, v, 8);
            let v = e.or(B8, old, v);
            e.set(s, v)
        }
        At::Val(_) => {}
    }
}
/// Writes a register.
#[inline(always)]
pub fn put_reg<E: Emit>(e: &mut E, w: W, s: Slot, v: E::V) {
    match w {
        B8 => e.set(s, v),
        B4 => {
            let v = e.zext(B4, B8, v);
            e.set(s, v)
        }
        _ => e.set_part(w, s, v),
    }
}
/// Leaves flags of a producer.
#[inline(always)]
pub fn defer<E: Emit>(e: &mut E, kind: Kind, w: W, v: [E::V; 3]) {
    e.defer(Deferred { kind: kind as u8, w, v })
}
/// Leaves flags of a producer that says nothing of those that stay as they were.
#[inline(always)]
pub fn defer_partly<E: Emit>(e: &mut E, p: Partly<E::V>) -> Result<(), E::Miss> {
    if !e.defer_partly(p) {
        let old = e.deferred()?;
        let d = super::flags::complete(e, old, p);
        e.defer(d)
    }
    Ok(())
}
/// The flags of `mask` as bits of `v` (4 bytes wide), the others as they were.
#[inline(always)]
pub fn image<E: Emit>(e: &mut E, mask: u32, v: E::V) -> Partly<E::V> {
    let z = e.imm(B4, 0);
    Partly { new: Deferred { kind: Kind::Image as u8, w: B4, v: [v, z, z] }, kept: ARITH & !mask }
}
/// Replaces the flags of `mask` by the bits of `v` (4 bytes wide) and keeps the rest.
#[inline(always)]
pub fn merge_flags<E: Emit>(e: &mut E, mask: u32, v: E::V) -> Result<E::V, E::Miss> {
    let d = e.deferred()?;
    let old = super::flags::all(e, d);
    let old = e.and_imm(B4, old, !mask as u64);
    Ok(e.or(B4, old, v))
}
/// Leaves flags given as EFLAGS bits.
#[inline(always)]
pub fn defer_image<E: Emit>(e: &mut E, v: E::V) {
    let z = e.imm(B4, 0);
    defer(e, Kind::Image, B4, [v, z, z])
}
/// Linear address of the page that holds the code, plus the displacement.
#[inline(always)]
pub fn page_plus_disp<E: Emit>(e: &mut E) -> E::V {
    let p = e.get(B8, PAGE);
    let d = e.disp();
    e.add(B8, p, d)
}
