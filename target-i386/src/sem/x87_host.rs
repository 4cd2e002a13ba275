//! x87 instructions that run as themselves on a host that has the unit ([`accel::tcg::unit`]), while all exceptions are
//! masked ([`mode::X87_MASKED`](crate::state::mode::X87_MASKED)). Source: Intel SDM vol. 2 appendix A.5 (the escape opcodes).
//!
//! Not among them: transcendental functions (ours on every host), BCD, environments and whole states, aliases.

use super::{flags, flags::Kind, operands::*, x87::X87};
use crate::{forms::*, reg::RAX};
use accel::tcg::{Bin, Deferred, Emit, Flow, Ops, Step, W::*};

/// What an escape opcode does besides working on the unit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Use {
    /// Nothing.
    Registers,
    /// Reads that many bytes of memory.
    Read(u8),
    /// Writes that many.
    Write(u8),
    /// FNSTCW, FNSTSW: likewise, without a trace in the unit's pointers.
    WriteControl,
    /// FLDCW.
    LoadControl,
    /// FNSTSW AX.
    StatusToAx,
    /// FCOMI and its like: writes EFLAGS.
    Compare,
    /// FCMOVcc: the condition in the encoding of Jcc.
    Move(u8),
    /// WAIT: nothing waits.
    Wait,
}

/// An instruction on the host's unit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct X87Host {
    /// The two bytes of its opcode, without the addressing of a memory operand.
    code: [u8; 2],
    how: Use,
}

/// How an escape opcode can run on the host.
fn how([esc, modrm]: [u8; 2]) -> Option<Use> {
    use Use::*;
    let (esc, reg) = (esc & 7, modrm >> 3 & 7);
    if modrm < 0xc0 {
        return Some(match (esc, reg) {
            (0 | 2, _) => Read(4),
            (4, _) => Read(8),
            (6, _) => Read(2),
            (1 | 3, 0) => Read(4),
            (5, 0) | (7, 5) => Read(8),
            (7, 0) => Read(2),
            (3, 5) => Read(10),
            (3, 7) => Write(10),
            (1, 2 | 3) | (3, 1..=3) => Write(4),
            (5, 1..=3) | (7, 7) => Write(8),
            (7, 1..=3) => Write(2),
            (1, 7) | (5, 7) => WriteControl,
            (1, 5) => LoadControl,
            _ => return None,
        });
    }
    Some(match (esc, reg) {
        (0, _) | (4 | 6, 0 | 1 | 4..=7) | (1, 0 | 1) | (5, 0 | 2..=5) => Registers,
        (2, 0) => Move(2),
        (2, 1) => Move(4),
        (2, 2) => Move(6),
        (2, 3) => Move(10),
        (3, 0) => Move(3),
        (3, 1) => Move(5),
        (3, 2) => Move(7),
        (3, 3) => Move(11),
        (3 | 7, 5 | 6) => Compare,
        _ => match (esc, modrm) {
            // FNOP, FCHS, FABS, FTST, FXAM, constants.
            (1, 0xd0 | 0xe0 | 0xe1 | 0xe4 | 0xe5 | 0xe8..=0xee) => Registers,
            // FXTRACT, FPREM1, FDECSTP, FINCSTP, FPREM, FSQRT, FRNDINT, FSCALE.
            (1, 0xf4..=0xf8 | 0xfa | 0xfc | 0xfd) => Registers,
            // FUCOMPP, FCOMPP.
            (2, 0xe9) | (6, 0xd9) => Registers,
            (7, 0xe0) => StatusToAx,
            _ => return None,
        },
    })
}

/// The instruction at the start of `bytes`, if it can run on the host.
pub fn classify(op: X87, bytes: &[u8]) -> Option<Op> {
    match op {
        X87::Fwait => return Some(Op::X87Host(X87Host { code: [0; 2], how: Use::Wait })),
        X87::Fxsave(_) | X87::Fxrstor(_) => return None,
        _ => {}
    }
    // (No prefix looks like an escape opcode.)
    let w = bytes.windows(2).find(|w| w[0] & 0xf8 == 0xd8)?;
    let mut code = [w[0], w[1]];
    if code[1] < 0xc0 {
        code[1] &= 7 << 3
    }
    Some(Op::X87Host(X87Host { code, how: how(code)? }))
}

/// A control word that the host's unit may hold: all exceptions masked, and a precision that exists.
pub const fn may_hold(fcw: u16) -> bool {
    accel::tcg::unit::AVAILABLE && fcw & 0x3f == 0x3f && fcw & 0x300 != 0x100
}
/// The same for a control word to be loaded: true if it is not.
fn refused<E: Ops>(e: &mut E, v: E::V) -> E::C {
    let masks = e.and_imm(B2, v, 0x3f);
    let all = e.imm(B2, 0x3f);
    let open = e.cmp(accel::tcg::Cmp::Ne, B2, masks, all);
    let precision = e.and_imm(B2, v, 0x300);
    let reserved = e.imm(B2, 0x100);
    let reserved = e.cmp(accel::tcg::Cmp::Eq, B2, precision, reserved);
    e.both(Bin::Or, open, reserved)
}

/// Its meaning.
#[inline(always)]
pub fn run<E: Emit>(e: &mut E, f: Form, X87Host { code, how }: X87Host) -> Step<E> {
    let l = if f.dst.is_memory() { f.dst } else { f.src };
    match how {
        Use::Wait => {}
        Use::Registers => {
            e.unit(code);
            e.unit_note(None)
        }
        Use::Read(n) | Use::Write(n) => {
            let write = matches!(how, Use::Write(_));
            let o = offset(e, l);
            let la = from_offset(e, l, o, n.into(), write)?;
            let p = e.place(n.into(), la, write)?;
            e.unit_at(code, n.into(), p, write);
            e.unit_note(Some(o))
        }
        Use::WriteControl => {
            let p = place(e, l, 2, true)?;
            e.unit_at(code, 2, p, true)
        }
        Use::LoadControl => {
            let p = place(e, l, 2, false)?;
            let v = e.read(B2, p);
            let c = refused(e, v);
            e.rare_if(c)?;
            e.unit_control(v)
        }
        Use::StatusToAx => {
            let v = e.unit_status();
            e.set_part(B2, RAX, v)
        }
        Use::Compare => {
            let c = e.unit_compare(code);
            e.unit_note(None);
            let v = c.map(|c| e.bit(B1, c));
            e.defer(Deferred { kind: Kind::Fcom as u8, w: B1, v })
        }
        Use::Move(cc) => {
            let d = e.deferred()?;
            let c = flags::condition(e, cc, d);
            e.unit_move(c, code[1] & 7);
            e.unit_note(None)
        }
    }
    Ok(Flow::Next)
}
