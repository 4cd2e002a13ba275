//! Bit tests, scans and counts. Source: Intel SDM vol. 2.

use super::{flags::Kind, operands::*};
use crate::{forms::*, state::bits::*};
use accel::tcg::{Bin, Emit, Un, W::*};

/// BT BTS BTR BTC: CF is the bit, the other flags (undefined, but ZF) stay. With a register as bit number a memory operand
/// is a bit string: the number, signed, moves the address.
#[inline(always)]
pub fn bt<E: Emit>(e: &mut E, f: Form, op: Bt, lock: bool) -> Result<(), E::Miss> {
    let w = f.w;
    let write = op != Bt::Bt;
    let n = if f.src == Loc::I { e.immediate(w) } else { e.get(w, e.slot(SRC)) };
    let d = if f.dst.is_memory() {
        let mut o = offset(e, f.dst);
        if f.src != Loc::I {
            let by = e.sext(w, B8, n);
            let by = e.shift_imm(Bin::Sar, B8, by, w.bits().trailing_zeros());
            let by = e.shift_imm(Bin::Shl, B8, by, w.bytes().trailing_zeros());
            o = e.add(B8, o, by);
            o = match f.dst {
                Loc::G16 => e.and_imm(B8, o, 0xffff),
                Loc::G32 | Loc::M32 | Loc::Mx32 | Loc::S32 => e.and_imm(B8, o, 0xffff_ffff),
                _ => o,
            };
        }
        let la = from_offset(e, f.dst, o, w.bytes(), write)?;
        At::Mem(e.place(w.bytes(), la, write)?)
    } else {
        At::Reg(e.slot(DST))
    };
    let n = e.and_imm(w, n, w.bits() as u64 - 1);
    let one = e.imm(w, 1);
    let mask = e.bin(Bin::Shl, w, one, n);
    let inverse = {
        let all = e.imm(w, w.mask());
        e.xor(w, mask, all)
    };
    let (bin, by) = match op {
        Bt::Btr => (Bin::And, inverse),
        Bt::Btc => (Bin::Xor, mask),
        _ => (Bin::Or, mask),
    };
    let zero = e.imm(B4, 0);
    // (A store comes after all that can miss.)
    let atomic = lock && matches!(d, At::Mem(_));
    let others = if e.flags_wanted() && atomic { Some(merge_flags(e, CF, zero)?) } else { None };
    let old = match d {
        At::Mem(p) if lock => e.rmw(Some(bin), w, p, by),
        _ => get(e, w, &d),
    };
    if e.flags_wanted() {
        let c = e.bin(Bin::Shr, w, old, n);
        let c = e.and_imm(w, c, 1);
        let c = if w == B8 { e.trunc(B8, B4, c) } else { e.zext(w, B4, c) };
        match others {
            Some(others) => {
                let v = e.or(B4, others, c);
                defer_image(e, v)
            }
            None => {
                let p = image(e, CF, c);
                defer_partly(e, p)?
            }
        }
    }
    if write && !(lock && matches!(d, At::Mem(_))) {
        let r = e.bin(bin, w, old, by);
        put(e, w, &d, r)
    }
    Ok(())
}
/// BSF (`up`), BSR: ZF for a zero source, which leaves the destination alone.
#[inline(always)]
pub fn scan<E: Emit>(e: &mut E, f: Form, up: bool) -> Result<(), E::Miss> {
    let w = f.w;
    let s = at(e, w, f.src, SRC, false)?;
    let v = get(e, w, &s);
    let d = e.slot(DST);
    let n = if up {
        e.un(Un::Ctz, w, v)
    } else {
        let n = e.un(Un::Clz, w, v);
        let k = e.imm(w, w.bits() as u64 - 1);
        e.sub(w, k, n)
    };
    if e.flags_wanted() {
        defer(e, Kind::Logic, w, [v; 3])
    }
    let zero = e.is_zero(w, v);
    if w == B2 {
        let old = e.get(w, d);
        let r = e.select(w, zero, old, n);
        put_reg(e, w, d, r)
    } else {
        let old = e.get(B8, d);
        let n = e.zext(w, B8, n);
        let r = e.select(B8, zero, old, n);
        e.set(d, r)
    }
    Ok(())
}
/// POPCNT: ZF for a zero source, all other flags 0.
#[inline(always)]
pub fn popcnt<E: Emit>(e: &mut E, f: Form) -> Result<(), E::Miss> {
    let s = at(e, f.w, f.src, SRC, false)?;
    let v = get(e, f.w, &s);
    let n = e.un(Un::Popcnt, f.w, v);
    if e.flags_wanted() {
        let c = e.is_zero(f.w, v);
        let z = e.bit(B4, c);
        let z = e.shift_imm(Bin::Shl, B4, z, 6);
        defer_image(e, z);
    }
    put_reg(e, f.w, e.slot(DST), n);
    Ok(())
}
