//! The host's MXCSR.
//!
//! While guest code runs in tier 0 the guest's MXCSR (all exceptions masked) may stay in the host's register, from the
//! first floating-point instruction that needs it ([`enter`]) until host code runs that must not see it ([`leave`]).
//! Between the two only integer code and the thunks of `sse` run on this thread.

use crate::tcg::vector::mxcsr;
use core::arch::asm;

/// Reads MXCSR.
#[inline(always)]
pub fn read() -> u32 {
    let mut v = 0u32;
    // SAFETY: writes 4 bytes at `v`.
    unsafe { asm!("stmxcsr dword ptr [{}]", in(reg) &mut v, options(nostack, preserves_flags)) }
    v
}
/// Loads MXCSR with all exceptions masked, so that no operation can trap.
#[inline(always)]
fn write(v: u32) {
    let v = v & mxcsr::VALID | mxcsr::MASKS;
    // SAFETY: reads 4 bytes at `v`; reserved bits are clear, exceptions masked.
    unsafe { asm!("ldmxcsr dword ptr [{}]", in(reg) &v, options(nostack, preserves_flags)) }
}

/// Loads the guest's MXCSR; `host` keeps the host's (it is never zero: the masks are set) and says that it is loaded.
#[cold]
#[inline(never)]
pub fn enter(guest: u64, host: &mut u64) {
    *host = (read() | mxcsr::MASKS) as u64;
    write(guest as u32);
}
/// Puts the host's MXCSR back if the guest's is loaded, and collects the sticky flags into `guest`.
#[inline(always)]
pub fn leave(guest: &mut u64, host: &mut u64) {
    if *host != 0 {
        *guest |= (read() & mxcsr::FLAGS) as u64;
        write(*host as u32);
        *host = 0;
    }
}

/// Runs `f` under `csr` with all exceptions masked; returns its result and the flags it raised.
pub fn under<R>(csr: u32, f: impl FnOnce() -> R) -> (R, u32) {
    let host = read();
    write(csr & !mxcsr::FLAGS);
    let r = f();
    let flags = read() & mxcsr::FLAGS;
    write(host);
    (r, flags)
}
