//! Basic arithmetic: the host's own x87 where there is one and it can tell all, else `soft`. `known` is the guest's status
//! word: the flags of a result may repeat exceptions that are set in it.

use super::{F80, soft, soft::Out};
#[cfg(target_arch = "x86_64")]
use accel::tcg::host::x87;

macro_rules! two {
    ($($(#[$doc:meta])* $name:ident)*) => { $(
        $(#[$doc])*
        #[inline]
        pub fn $name(fcw: u16, known: u16, a: &F80, b: &F80) -> Out {
            #[cfg(target_arch = "x86_64")]
            if host_can(fcw) {
                return out(x87::$name(fcw, known, a, b));
            }
            let _ = known;
            soft::$name(fcw, a, b)
        }
    )* };
}
two! {
    /// `a + b`.
    add
    /// `a − b`.
    sub
    /// `a · b`.
    mul
    /// `a / b`.
    div
}
/// `√a`.
#[inline]
pub fn sqrt(fcw: u16, known: u16, a: &F80) -> Out {
    #[cfg(target_arch = "x86_64")]
    if host_can(fcw) {
        return out(x87::sqrt(fcw, known, a));
    }
    let _ = known;
    soft::sqrt(fcw, a)
}
/// All exceptions are masked, so the masked responses of the host's unit are the guest's and flags already sticky need no
/// telling apart. Reserved precision control means double extended here and is left to the software.
#[cfg(target_arch = "x86_64")]
#[inline]
fn host_can(fcw: u16) -> bool {
    fcw & 0x3f == 0x3f && fcw & 0x300 != 0x100
}
#[cfg(target_arch = "x86_64")]
#[inline]
fn out((val, sw): (F80, u16)) -> Out {
    Out { val, flags: sw as u32 & 0x3f, up: sw & super::sw::C1 != 0 }
}
