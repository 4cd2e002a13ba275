//! The meaning of ordinary instructions, written once over [`accel::tcg::Emit`]. Source: Intel SDM vol. 2.
//!
//! Every function resolves all its operands (`at`, `place`) before it changes anything.

pub mod alu;
pub mod bcd;
pub mod bits;
pub mod control;
pub mod data;
pub mod element;
pub mod flags;
pub mod light;
pub mod mmx;
pub mod muldiv;
pub mod operands;
pub mod rare;
pub mod shift;
pub mod sse;
pub mod sse_rare;
pub mod stack;
pub mod string;
pub mod x87;
pub mod x87_host;

use crate::{
    forms::{Form, Op},
    reg::*,
};
use accel::tcg::{Emit, Family, Flow, Step, W::*};

// Families: the code a handler is compiled from.
const ALU: u8 = 0;
const UNARY: u8 = 1;
const MOVE: u8 = 2;
const EXTEND: u8 = 3;
const EXCHANGE: u8 = 4;
const CONDITION: u8 = 5;
const SHIFT: u8 = 6;
const MULTIPLY: u8 = 7;
const BITS: u8 = 8;
const FLAGS: u8 = 9;
const STACK: u8 = 10;
const CONTROL: u8 = 11;
const SSE: u8 = 12;
const SSE_MOVE: u8 = 13;
const SSE_FLOAT: u8 = 14;
const RARE: u8 = 15;
const X87: u8 = 16;

/// The family of an operation.
pub const fn family(op: Op) -> u8 {
    match op {
        Op::Alu(_) | Op::LockAlu(_) => ALU,
        Op::Not | Op::Neg | Op::Inc | Op::Dec | Op::LockNot | Op::LockInc | Op::LockDec => UNARY,
        Op::Nop | Op::Mov | Op::Movnti | Op::Lea => MOVE,
        Op::Zext(_) | Op::Sext(_) | Op::SignInto | Op::Bswap => EXTEND,
        Op::Xchg | Op::Xadd | Op::LockXadd | Op::Cmpxchg | Op::LockCmpxchg | Op::CmpxchgWide => EXCHANGE,
        Op::Setcc(_) | Op::Cmov(_) => CONDITION,
        Op::Shift(_) | Op::DoubleShift(..) => SHIFT,
        Op::MulWide(_) | Op::Imul | Op::Imul3 | Op::Div(_) => MULTIPLY,
        Op::Bt(_) | Op::LockBt(_) | Op::Bsf | Op::Bsr | Op::Popcnt => BITS,
        Op::Clc | Op::Stc | Op::Cmc | Op::Lahf | Op::Sahf => FLAGS,
        Op::Push | Op::Pop | Op::Leave | Op::Element(_) => STACK,
        Op::Call
        | Op::CallFar
        | Op::CallTo
        | Op::Ret
        | Op::Jmp
        | Op::JmpFar
        | Op::JmpTo
        | Op::Jcc(_)
        | Op::JccFar(_)
        | Op::Loop(_) => CONTROL,
        Op::Sse(op) => match op.part() {
            sse::Part::Move => SSE_MOVE,
            sse::Part::Integer => SSE,
            sse::Part::Float => SSE_FLOAT,
            sse::Part::Rare => RARE,
        },
        Op::X87Host(_) => X87,
        _ => RARE,
    }
}

/// The meaning of `f`.
#[inline(always)]
pub fn run<E: Emit, K: Family>(e: &mut E, f: Form) -> Step<E> {
    match const { K::FAMILY } {
        ALU => alu_family(e, f),
        UNARY => unary(e, f),
        MOVE => moves(e, f),
        EXTEND => extend(e, f),
        EXCHANGE => exchange(e, f),
        CONDITION => conditional(e, f),
        SHIFT => shifts(e, f),
        MULTIPLY => multiply(e, f),
        BITS => bit_family(e, f),
        FLAGS => flag_family(e, f),
        STACK => stack_family(e, f),
        CONTROL => control::run(e, f),
        SSE => vector(e, f),
        SSE_MOVE => vector_move(e, f),
        SSE_FLOAT => vector_float(e, f),
        X87 => x87_family(e, f),
        RARE => Ok(Flow::Rare),
        _ => any(e, f),
    }
}
/// The meaning of a form that is only known now.
#[inline(always)]
fn any<E: Emit>(e: &mut E, f: Form) -> Step<E> {
    match family(f.op) {
        ALU => alu_family(e, f),
        UNARY => unary(e, f),
        MOVE => moves(e, f),
        EXTEND => extend(e, f),
        EXCHANGE => exchange(e, f),
        CONDITION => conditional(e, f),
        SHIFT => shifts(e, f),
        MULTIPLY => multiply(e, f),
        BITS => bit_family(e, f),
        FLAGS => flag_family(e, f),
        STACK => stack_family(e, f),
        CONTROL => control::run(e, f),
        SSE => vector(e, f),
        SSE_MOVE => vector_move(e, f),
        SSE_FLOAT => vector_float(e, f),
        X87 => x87_family(e, f),
        _ => Ok(Flow::Rare),
    }
}
macro_rules! families {
    ($($name:ident($e:ident, $f:ident) { $($p:pat $(if $g:expr)? => $x:expr,)* })*) => { $(
        #[inline(always)]
        #[allow(unreachable_code, reason = "arms may all return")]
        fn $name<E: Emit>($e: &mut E, $f: Form) -> Step<E> {
            match $f.op { $($p $(if $g)? => $x,)* _ => return Ok(Flow::Rare) }
            Ok(Flow::Next)
        }
    )* };
}
families! {
    alu_family(e, f) {
        Op::Alu(op) => alu::alu(e, f, op)?,
        Op::LockAlu(op) => alu::locked(e, f, op)?,
    }
    unary(e, f) {
        Op::Not => alu::not(e, f)?,
        Op::Neg => alu::neg(e, f)?,
        Op::Inc => alu::step(e, f, true)?,
        Op::Dec => alu::step(e, f, false)?,
        Op::LockNot => alu::locked_not(e, f)?,
        Op::LockInc => alu::locked_step(e, f, true)?,
        Op::LockDec => alu::locked_step(e, f, false)?,
    }
    moves(e, f) {
        Op::Nop => {},
        Op::Mov | Op::Movnti => data::mov(e, f)?,
        Op::Lea => data::lea(e, f),
    }
    extend(e, f) {
        Op::Zext(from) => data::zext(e, f, from)?,
        Op::Sext(from) => data::sext(e, f, from)?,
        Op::SignInto => data::sign_into(e, f),
        Op::Bswap => data::bswap(e, f),
    }
    exchange(e, f) {
        Op::Xchg => data::xchg(e, f)?,
        Op::Xadd => data::xadd(e, f)?,
        Op::LockXadd => data::locked_xadd(e, f)?,
        Op::Cmpxchg => data::cmpxchg(e, f)?,
        Op::LockCmpxchg => data::locked_cmpxchg(e, f)?,
        Op::CmpxchgWide if f.w == B4 => data::cmpxchg8b(e, f)?,
    }
    conditional(e, f) {
        Op::Setcc(cc) => data::setcc(e, f, cc)?,
        Op::Cmov(cc) => data::cmov(e, f, cc)?,
    }
    shifts(e, f) {
        Op::Shift(op) => return shift::shift(e, f, op),
        Op::DoubleShift(left, count) => shift::double(e, f, left, count)?,
    }
    multiply(e, f) {
        Op::MulWide(signed) => muldiv::wide(e, f, signed)?,
        Op::Imul => muldiv::imul(e, f, false)?,
        Op::Imul3 => muldiv::imul(e, f, true)?,
        Op::Div(signed) => muldiv::div(e, f, signed)?,
    }
    bit_family(e, f) {
        Op::Bt(op) => bits::bt(e, f, op, false)?,
        Op::LockBt(op) => bits::bt(e, f, op, true)?,
        Op::Bsf => bits::scan(e, f, true)?,
        Op::Bsr => bits::scan(e, f, false)?,
        Op::Popcnt => bits::popcnt(e, f)?,
    }
    flag_family(e, _f) {
        Op::Clc => alu::carry(e, Some(false))?,
        Op::Stc => alu::carry(e, Some(true))?,
        Op::Cmc => alu::carry(e, None)?,
        Op::Lahf => alu::lahf(e)?,
        Op::Sahf => alu::sahf(e)?,
    }
    stack_family(e, f) {
        Op::Push => stack::push(e, f)?,
        Op::Pop => stack::pop(e, f)?,
        Op::Leave => stack::leave(e, f)?,
        Op::Element(op) => element::run(e, f, op)?,
    }
    vector(e, f) {
        Op::Sse(op) => return sse::integers(e, f, op),
    }
    vector_move(e, f) {
        Op::Sse(op) => return sse::moves(e, f, op),
    }
    vector_float(e, f) {
        Op::Sse(op) => return sse::floats(e, f, op),
    }
    x87_family(e, f) {
        Op::X87Host(op) => return x87_host::run(e, f, op),
    }
}

/// Slots and vector registers that a rare form may change: a bit each.
pub fn changes(f: Form) -> (u32, u32) {
    use crate::sys::Sys;
    const GENERAL: u32 = 0xffff;
    const ALL: u32 = u32::MAX;
    let slots = |list: &[accel::tcg::Slot]| list.iter().fold(0, |m, s| m | 1 << s.index());
    match f.op {
        Op::Cld | Op::Std => (slots(&[STEP]), 0),
        Op::Fence => (0, 0),
        Op::X87(x87::X87::Fxrstor(_)) => (0, GENERAL),
        // FNSTSW AX.
        Op::X87(_) => (slots(&[RAX]), 0),
        Op::Mmx(_) => (GENERAL, 0),
        Op::Str(..) => (slots(&[RAX, RCX, RSI, RDI]), 0),
        Op::Sys(Sys::Cli | Sys::Sti | Sys::Clac | Sys::Stac) => (0, 0),
        Op::Sys(Sys::Swapgs) => (1 << (usize::from(accel::tcg::SEG_BASE) + GS), 0),
        Op::Sys(Sys::Pushf | Sys::Popf) => (slots(&[RSP, STEP]), 0),
        Op::Sys(Sys::Rdtsc | Sys::Rdtscp | Sys::Rdmsr | Sys::Rdpmc) => (slots(&[RAX, RCX, RDX]), 0),
        Op::Sys(Sys::Cpuid) => (slots(&[RAX, RBX, RCX, RDX]), 0),
        // (Segments and their limits too.)
        Op::Sys(_) => (ALL, 0),
        _ => (ALL, ALL),
    }
}

/// The form is a function on the whole CPU ([`rare::run`]).
pub fn is_rare(f: Form) -> bool {
    match f.op {
        Op::LockNeg
        | Op::PushAll(_)
        | Op::Enter
        | Op::Branch(_)
        | Op::Str(..)
        | Op::Bcd(_)
        | Op::Xlat
        | Op::Cld
        | Op::Std
        | Op::Salc
        | Op::Bound
        | Op::Fence
        | Op::Mmx(_)
        | Op::X87(_)
        | Op::Sys(_)
        | Op::NoFpu(_)
        | Op::Ud => true,
        Op::CmpxchgWide => f.w == B8,
        Op::Sse(op) => op.part() == sse::Part::Rare,
        Op::Shift(crate::forms::Shift::Rcl | crate::forms::Shift::Rcr) => true,
        _ => false,
    }
}
