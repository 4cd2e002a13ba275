//! What tier 0 runs: the host's instructions on x86-64, the software meanings elsewhere.

use super::{Fp, FpBin, XShuffle, XUn, soft_int};
use crate::tcg::ops::W;

/// The guest's MXCSR as tier 0 keeps it.
#[derive(Debug)]
pub struct Fpcr<'a> {
    /// The guest's MXCSR; sticky flags are complete only while `host` is 0.
    pub guest: &'a mut u64,
    /// The host's MXCSR while the guest's is in the host's register, else 0.
    pub host: &'a mut u64,
}

/// The host's instructions.
#[cfg(target_arch = "x86_64")]
mod host {
    use super::*;
    use crate::tcg::host::{fpcr, sse};
    pub use sse::{xbin, xmask, xshift};

    impl Fpcr<'_> {
        /// The guest's MXCSR is in force for what follows.
        #[inline(always)]
        pub fn enter(&mut self) {
            if *self.host == 0 {
                fpcr::enter(*self.guest, self.host);
            }
        }
        /// The host's MXCSR is in force again and `guest` is complete. Call before anything but integer code runs.
        #[inline(always)]
        pub fn leave(&mut self) {
            fpcr::leave(self.guest, self.host);
        }
    }
    /// `a op b` on the lanes of `t`.
    #[inline(always)]
    pub fn xfp(f: &mut Fpcr<'_>, op: FpBin, t: Fp, a: u128, b: u128) -> u128 {
        if op.uses_mxcsr() {
            f.enter();
        }
        sse::fp(op, t, a, b)
    }
    /// `op x`.
    #[inline(always)]
    pub fn xun(f: &mut Fpcr<'_>, op: XUn, x: u128) -> u128 {
        if op.uses_mxcsr() {
            f.enter();
        }
        sse::xun(op, x)
    }
    /// Comparison of the low lanes: CF, ZF, PF.
    #[inline(always)]
    pub fn xcompare(f: &mut Fpcr<'_>, w: W, quiet: bool, a: u128, b: u128) -> [bool; 3] {
        f.enter();
        sse::compare(w, quiet, a, b)
    }
    /// The low lane as an integer.
    #[inline(always)]
    pub fn xto_int(f: &mut Fpcr<'_>, from: W, to: W, truncate: bool, x: u128) -> u64 {
        f.enter();
        sse::to_int(from, to, truncate, x)
    }
    /// An integer in the low lane of `a`.
    #[inline(always)]
    pub fn xfrom_int(f: &mut Fpcr<'_>, from: W, to: W, a: u128, v: u64) -> u128 {
        f.enter();
        sse::from_int(from, to, a, v)
    }
}

/// The software meanings.
#[cfg(any(test, not(target_arch = "x86_64")))]
pub(super) mod soft {
    use super::*;
    use crate::tcg::vector::soft_fp;
    pub use soft_int::{xbin, xmask, xshift};

    impl Fpcr<'_> {
        /// Nothing to do: the software reads `guest`.
        #[cfg(not(target_arch = "x86_64"))]
        #[inline(always)]
        pub fn enter(&mut self) {}
        /// Nothing to do.
        #[cfg(not(target_arch = "x86_64"))]
        #[inline(always)]
        pub fn leave(&mut self) {}
        fn raise<R>(&mut self, (r, flags): (R, u32)) -> R {
            *self.guest |= flags as u64;
            r
        }
    }
    /// `a op b` on the lanes of `t`.
    pub fn xfp(f: &mut Fpcr<'_>, op: FpBin, t: Fp, a: u128, b: u128) -> u128 {
        let r = soft_fp::fp(op, t, a, b, *f.guest as u32);
        f.raise(r)
    }
    /// `op x`.
    pub fn xun(f: &mut Fpcr<'_>, op: XUn, x: u128) -> u128 {
        match soft_int::xun(op, x) {
            Some(r) => r,
            None => {
                let r = soft_fp::xun(op, x, *f.guest as u32).expect("a move or a conversion");
                f.raise(r)
            }
        }
    }
    /// Comparison of the low lanes: CF, ZF, PF.
    pub fn xcompare(f: &mut Fpcr<'_>, w: W, quiet: bool, a: u128, b: u128) -> [bool; 3] {
        let m = w.mask() as u128;
        let r = soft_fp::comis(w, (a & m) as u64, (b & m) as u64, *f.guest as u32, quiet);
        f.raise(r)
    }
    /// The low lane as an integer.
    pub fn xto_int(f: &mut Fpcr<'_>, from: W, to: W, truncate: bool, x: u128) -> u64 {
        let r = soft_fp::to_int(from, to, truncate, (x & from.mask() as u128) as u64, *f.guest as u32);
        f.raise(r)
    }
    /// An integer in the low lane of `a`.
    pub fn xfrom_int(f: &mut Fpcr<'_>, from: W, to: W, a: u128, v: u64) -> u128 {
        let r = soft_fp::from_int(from, to, v, *f.guest as u32);
        a & !(to.mask() as u128) | f.raise(r) as u128
    }
}
#[cfg(target_arch = "x86_64")]
pub use host::*;
#[cfg(not(target_arch = "x86_64"))]
pub use soft::*;

/// A shuffle by `imm`.
#[inline(always)]
pub fn xshuffle(op: XShuffle, a: u128, b: u128, imm: u8) -> u128 {
    soft_int::xshuffle(op, a, b, imm)
}
/// Word `imm mod 8`.
#[inline(always)]
pub fn xword(x: u128, imm: u8) -> u64 {
    (x >> (16 * (imm & 7))) as u64 & 0xffff
}
/// `x` with word `imm mod 8` replaced by the low word of `v`.
#[inline(always)]
pub fn xset_word(x: u128, v: u64, imm: u8) -> u128 {
    let at = 16 * (imm & 7);
    x & !(0xffff << at) | ((v & 0xffff) as u128) << at
}
