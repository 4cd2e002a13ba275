//! The commonest rare instructions, where they touch nothing but registers and do not fault: they need no whole CPU.
//! Source: Intel SDM vol. 2.

use crate::{forms::*, reg::*, state::State, state::bits::*, sys::Sys};
use accel::tcg::{Hot, SEG_BASE};

/// Runs a form if it is one of them: false if it is to be run as any other.
#[inline]
pub fn run(hot: &mut Hot, s: &mut State, f: Form) -> bool {
    match f.op {
        Op::Cld | Op::Std => {
            s.eflags = if f.op == Op::Std { s.eflags | DF } else { s.eflags & !DF };
            s.follow(hot)
        }
        Op::Fence => std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst),
        Op::Sys(Sys::Cli) if s.owns_if() => s.eflags &= !IF,
        // (With something held it is looked at whether it comes now.)
        Op::Sys(Sys::Sti) if s.owns_if() && s.held == 0 => s.set_if(),
        Op::Sys(Sys::Swapgs) if s.code64() && s.cpl == 0 => {
            let old = s.segs[GS].base;
            let new = std::mem::replace(&mut s.msrs.kernel_gs_base, old);
            s.segs[GS].base = new;
            hot.regs[usize::from(SEG_BASE) + GS] = new;
        }
        _ => return false,
    }
    true
}
