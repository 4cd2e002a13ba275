//! Near calls, returns, jumps and loops. Source: Intel SDM vol. 1 §6.4, vol. 2.
//! Outside of 64-bit mode addresses are kept linear: the code segment's base is added and taken off here.

use super::{flags, operands::*, stack};
use crate::{forms::*, reg::*};
use accel::tcg::{Bin, Emit, Flow, Step, W, W::*};

/// The linear address of an instruction pointer of width `w`.
#[inline(always)]
fn linear<E: Emit>(e: &mut E, w: W, ip: E::V) -> E::V {
    if w == B8 {
        return ip;
    }
    let ip = e.zext(w, B8, ip);
    let base = e.get(B8, CS_BASE);
    let la = e.add(B8, base, ip);
    e.and_imm(B8, la, 0xffff_ffff)
}
/// The instruction pointer of width `w` for a linear address.
#[inline(always)]
fn pointer<E: Emit>(e: &mut E, w: W, la: E::V) -> E::V {
    if w == B8 {
        return la;
    }
    let base = e.get(B8, CS_BASE);
    let ip = e.sub(B8, la, base);
    e.trunc(B8, w, ip)
}
/// Return address.
#[inline(always)]
fn return_ip<E: Emit>(e: &mut E, w: W) -> E::V {
    let la = e.next_ip();
    pointer(e, w, la)
}
/// The linear address of a direct target in another page.
#[inline(always)]
fn direct<E: Emit>(e: &mut E, w: W) -> E::V {
    let la = page_plus_disp(e);
    if w == B8 {
        return la;
    }
    let ip = pointer(e, w, la);
    linear(e, w, ip)
}

/// #GP for a computed target that is not canonical, before anything changes.
#[inline(always)]
fn canonical<E: Emit>(e: &mut E, w: W, to: E::V) -> Result<(), E::Miss> {
    if w == B8 {
        // 0 or 1 if bits 47 to 63 are equal.
        let t = e.shift_imm(Bin::Sar, B8, to, 47);
        let t = e.add_imm(B8, t, 1);
        let t = e.shift_imm(Bin::Shr, B8, t, 1);
        e.aligned(1 << 16, t)?;
    }
    Ok(())
}

/// CALL RET JMP Jcc LOOP JCXZ, without checks of the code segment's limit.
#[inline(always)]
pub fn run<E: Emit>(e: &mut E, f: Form) -> Step<E> {
    let w = f.w;
    Ok(match f.op {
        Op::Call => {
            let v = return_ip(e, w);
            stack::push_value(e, f.dst, w, v)?;
            Flow::Goto
        }
        Op::CallFar => {
            let v = return_ip(e, w);
            let to = direct(e, w);
            stack::push_value(e, f.dst, w, v)?;
            Flow::To(to)
        }
        Op::CallTo => {
            let s = at(e, w, f.src, SRC, false)?;
            let to = get(e, w, &s);
            canonical(e, w, to)?;
            let v = return_ip(e, w);
            stack::push_value(e, f.dst, w, v)?;
            Flow::To(linear(e, w, to))
        }
        Op::Ret => {
            let to = stack::top(e, f.dst, w)?;
            canonical(e, w, to)?;
            stack::release(e, f.dst, w.bytes());
            if f.src == Loc::I {
                let n = e.immediate(B2);
                let (wide, sp) = match f.dst {
                    Loc::M => (B8, e.get(B8, RSP)),
                    Loc::G16 => (B2, e.get(B2, RSP)),
                    _ => (B4, e.get(B4, RSP)),
                };
                let n = if wide == B2 { n } else { e.zext(B2, wide, n) };
                let sp = e.add(wide, sp, n);
                put_reg(e, wide, RSP, sp);
            }
            Flow::To(linear(e, w, to))
        }
        Op::Jmp => Flow::Goto,
        Op::JmpFar => Flow::To(direct(e, w)),
        Op::JmpTo => {
            let s = at(e, w, f.src, SRC, false)?;
            let to = get(e, w, &s);
            canonical(e, w, to)?;
            Flow::To(linear(e, w, to))
        }
        Op::Jcc(cc) => {
            let d = e.deferred()?;
            Flow::If(flags::condition(e, cc, d))
        }
        Op::JccFar(cc) => {
            let d = e.deferred()?;
            let c = flags::condition(e, cc, d);
            let (to, next) = (direct(e, w), e.next_ip());
            Flow::To(e.select(B8, c, to, next))
        }
        Op::Loop(k) => {
            let n = e.get(w, RCX);
            if k == 3 {
                return Ok(Flow::If(e.is_zero(w, n)));
            }
            let zf = if k == 0 {
                None
            } else {
                let d = e.deferred()?;
                Some(flags::zf(e, d))
            };
            let n = e.add_imm(w, n, u64::MAX);
            put_reg(e, w, RCX, n);
            let z = e.is_zero(w, n);
            let go = e.not(z);
            Flow::If(match (k, zf) {
                (1, Some(z)) => e.both(Bin::And, go, z),
                (_, Some(z)) => {
                    let z = e.not(z);
                    e.both(Bin::And, go, z)
                }
                _ => go,
            })
        }
        _ => Flow::Rare,
    })
}
