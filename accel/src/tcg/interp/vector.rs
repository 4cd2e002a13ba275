//! 128-bit formulas in tier 0.
#![expect(unsafe_code, reason = "the guest's MXCSR lives in the env")]

use super::super::{
    env::hot,
    interp::Interp,
    ops::W,
    target::Target,
    vector::{
        Fp, FpBin, Vector, XBin, XShift, XShuffle, XUn,
        native::{self, Fpcr},
    },
};

impl<T: Target, const WALK: bool> Interp<T, WALK> {
    #[inline(always)]
    fn fpcr(&mut self) -> Fpcr<'_> {
        let h = hot(self.env);
        // SAFETY: the calling thread owns the env and no other reference to these two fields exists while a handler runs.
        unsafe { Fpcr { guest: &mut (*h).fpcr, host: &mut (*h).fpcr_host } }
    }
}
impl<T: Target, const WALK: bool> Vector for Interp<T, WALK> {
    type X = u128;
    #[inline(always)]
    fn xbin(&mut self, op: XBin, a: u128, b: u128) -> u128 {
        native::xbin(op, a, b)
    }
    #[inline(always)]
    fn xfp(&mut self, op: FpBin, t: Fp, a: u128, b: u128) -> u128 {
        native::xfp(&mut self.fpcr(), op, t, a, b)
    }
    #[inline(always)]
    fn xun(&mut self, op: XUn, x: u128) -> u128 {
        native::xun(&mut self.fpcr(), op, x)
    }
    #[inline(always)]
    fn xshift(&mut self, op: XShift, x: u128, count: u64) -> u128 {
        native::xshift(op, x, count)
    }
    #[inline(always)]
    fn xshuffle(&mut self, op: XShuffle, a: u128, b: u128, imm: u64) -> u128 {
        native::xshuffle(op, a, b, imm as u8)
    }
    #[inline(always)]
    fn xmask(&mut self, w: W, x: u128) -> u64 {
        native::xmask(w, x)
    }
    #[inline(always)]
    fn xlow(&mut self, w: W, x: u128) -> u64 {
        x as u64 & w.mask()
    }
    #[inline(always)]
    fn xhigh(&mut self, x: u128) -> u64 {
        (x >> 64) as u64
    }
    #[inline(always)]
    fn xzext(&mut self, _w: W, v: u64) -> u128 {
        v as u128
    }
    #[inline(always)]
    fn xset_low(&mut self, w: W, x: u128, v: u64) -> u128 {
        x & !(w.mask() as u128) | v as u128
    }
    #[inline(always)]
    fn xword(&mut self, x: u128, imm: u64) -> u64 {
        native::xword(x, imm as u8)
    }
    #[inline(always)]
    fn xset_word(&mut self, x: u128, v: u64, imm: u64) -> u128 {
        native::xset_word(x, v, imm as u8)
    }
    #[inline(always)]
    fn xcompare(&mut self, w: W, quiet: bool, a: u128, b: u128) -> [bool; 3] {
        native::xcompare(&mut self.fpcr(), w, quiet, a, b)
    }
    #[inline(always)]
    fn xto_int(&mut self, from: W, to: W, truncate: bool, x: u128) -> u64 {
        native::xto_int(&mut self.fpcr(), from, to, truncate, x)
    }
    #[inline(always)]
    fn xfrom_int(&mut self, from: W, to: W, a: u128, v: u64) -> u128 {
        native::xfrom_int(&mut self.fpcr(), from, to, a, v)
    }
}
