//! ADD OR ADC SBB AND SUB XOR CMP TEST, INC DEC NEG NOT, flag instructions. Source: Intel SDM vol. 2.

use super::{flags, flags::Kind, operands::*};
use crate::{forms::*, reg::RAX, state::bits::*};
use accel::tcg::{Bin, Deferred, Emit, Partly, W::*};

fn kind(op: Alu) -> (Bin, Kind) {
    match op {
        Alu::Add => (Bin::Add, Kind::Add),
        Alu::Adc => (Bin::Add, Kind::Adc),
        Alu::Sbb => (Bin::Sub, Kind::Sbb),
        Alu::Sub | Alu::Cmp => (Bin::Sub, Kind::Sub),
        Alu::Or => (Bin::Or, Kind::Logic),
        Alu::And | Alu::Test => (Bin::And, Kind::Logic),
        Alu::Xor => (Bin::Xor, Kind::Logic),
    }
}
/// CF.
#[inline(always)]
fn carry_in<E: Emit>(e: &mut E) -> Result<E::C, E::Miss> {
    let d = e.deferred()?;
    Ok(flags::cf(e, d))
}
/// The eight binary operations of opcodes 00–3F, and TEST. Define all flags (logic: AF undefined).
#[inline(always)]
pub fn alu<E: Emit>(e: &mut E, f: Form, op: Alu) -> Result<(), E::Miss> {
    let w = f.w;
    let keep = !matches!(op, Alu::Cmp | Alu::Test);
    let s = at(e, w, f.src, SRC, false)?;
    let d = at(e, w, f.dst, DST, keep)?;
    let carry = if matches!(op, Alu::Adc | Alu::Sbb) { Some(carry_in(e)?) } else { None };
    let (a, b) = (get(e, w, &d), get(e, w, &s));
    let (bin, kind) = kind(op);
    let r = match carry {
        Some(c) => e.carry(bin, w, [a, b], c),
        None => e.bin(bin, w, a, b),
    };
    if e.flags_wanted() {
        let v = if kind == Kind::Logic { [r; 3] } else { [a, b, r] };
        defer(e, kind, w, v)
    }
    if keep {
        put(e, w, &d, r)
    }
    Ok(())
}
/// The same under LOCK.
#[inline(always)]
pub fn locked<E: Emit>(e: &mut E, f: Form, op: Alu) -> Result<(), E::Miss> {
    let w = f.w;
    let s = at(e, w, f.src, SRC, false)?;
    let p = place(e, f.dst, w.bytes(), true)?;
    let b = get(e, w, &s);
    let (bin, kind) = kind(op);
    let by = if matches!(op, Alu::Adc | Alu::Sbb) {
        let c = carry_in(e)?;
        let c = e.bit(w, c);
        e.add(w, b, c)
    } else {
        b
    };
    let a = e.rmw(Some(bin), w, p, by);
    let r = e.bin(bin, w, a, by);
    let v = if kind == Kind::Logic { [r; 3] } else { [a, b, r] };
    defer(e, kind, w, v);
    Ok(())
}
/// NOT: no flags.
#[inline(always)]
pub fn not<E: Emit>(e: &mut E, f: Form) -> Result<(), E::Miss> {
    let d = at(e, f.w, f.dst, DST, true)?;
    let a = get(e, f.w, &d);
    let m = e.imm(f.w, f.w.mask());
    let r = e.xor(f.w, a, m);
    put(e, f.w, &d, r);
    Ok(())
}
/// LOCK NOT.
#[inline(always)]
pub fn locked_not<E: Emit>(e: &mut E, f: Form) -> Result<(), E::Miss> {
    let p = place(e, f.dst, f.w.bytes(), true)?;
    let m = e.imm(f.w, f.w.mask());
    e.rmw(Some(Bin::Xor), f.w, p, m);
    Ok(())
}
/// NEG: flags of `0 - dst`.
#[inline(always)]
pub fn neg<E: Emit>(e: &mut E, f: Form) -> Result<(), E::Miss> {
    let d = at(e, f.w, f.dst, DST, true)?;
    let b = get(e, f.w, &d);
    let z = e.imm(f.w, 0);
    let r = e.sub(f.w, z, b);
    if e.flags_wanted() {
        defer(e, Kind::Sub, f.w, [z, b, r])
    }
    put(e, f.w, &d, r);
    Ok(())
}
/// INC, DEC: all flags but CF.
#[inline(always)]
pub fn step<E: Emit>(e: &mut E, f: Form, up: bool) -> Result<(), E::Miss> {
    let d = at(e, f.w, f.dst, DST, true)?;
    let a = get(e, f.w, &d);
    let one = e.imm(f.w, 1);
    let r = e.bin(if up { Bin::Add } else { Bin::Sub }, f.w, a, one);
    if e.flags_wanted() {
        step_flags(e, f, up, r)?
    }
    put(e, f.w, &d, r);
    Ok(())
}
#[inline(always)]
fn step_flags<E: Emit>(e: &mut E, f: Form, up: bool, r: E::V) -> Result<(), E::Miss> {
    let z = e.imm(f.w, 0);
    let kind = if up { Kind::Inc } else { Kind::Dec } as u8;
    defer_partly(e, Partly { new: Deferred { kind, w: f.w, v: [z, z, r] }, kept: CF })
}
/// LOCK INC, LOCK DEC.
#[inline(always)]
pub fn locked_step<E: Emit>(e: &mut E, f: Form, up: bool) -> Result<(), E::Miss> {
    let p = place(e, f.dst, f.w.bytes(), true)?;
    let c = carry_in(e)?;
    let c = e.bit(f.w, c);
    let bin = if up { Bin::Add } else { Bin::Sub };
    let one = e.imm(f.w, 1);
    let a = e.rmw(Some(bin), f.w, p, one);
    let r = e.bin(bin, f.w, a, one);
    defer(e, if up { Kind::Inc } else { Kind::Dec }, f.w, [c, c, r]);
    Ok(())
}
/// CLC, STC, CMC (`None`).
#[inline(always)]
pub fn carry<E: Emit>(e: &mut E, v: Option<bool>) -> Result<(), E::Miss> {
    let c = match v {
        Some(v) => e.imm(B4, if v { CF.into() } else { 0 }),
        None => {
            let d = e.deferred()?;
            let c = flags::cf(e, d);
            let (c, one) = (e.bit(B4, c), e.imm(B4, CF.into()));
            e.xor(B4, c, one)
        }
    };
    let p = image(e, CF, c);
    defer_partly(e, p)
}
/// LAHF: AH = SF ZF 0 AF 0 PF 1 CF.
#[inline(always)]
pub fn lahf<E: Emit>(e: &mut E) -> Result<(), E::Miss> {
    let d = e.deferred()?;
    let v = flags::all(e, d);
    let v = e.and_imm(B4, v, 0xd5);
    let two = e.imm(B4, 2);
    let v = e.or(B4, v, two);
    let v = e.trunc(B4, B1, v);
    put(e, B1, &At::High(RAX), v);
    Ok(())
}
/// SAHF: SF ZF AF PF CF from AH.
#[inline(always)]
pub fn sahf<E: Emit>(e: &mut E) -> Result<(), E::Miss> {
    let v = get(e, B1, &At::High(RAX));
    let v = e.zext(B1, B4, v);
    let v = e.and_imm(B4, v, 0xd5);
    let r = merge_flags(e, 0xd5, v)?;
    defer_image(e, r);
    Ok(())
}
