//! Steps on vectors. Their registers are the host's own sixteen, for the length of an instruction.

use super::{
    asm::{RDI, Reg, at},
    emit::{Crowded, Emitter, Fit, Layout, Loc},
    record::{Step, Val},
};
use crate::tcg::ops::W;

impl Emitter {
    /// A vector register for step `i`'s value.
    fn new_vector(&mut self, i: Val) -> Fit<Reg> {
        let x = self.vectors.trailing_ones() as u8;
        if x > 15 {
            return Err(Crowded);
        }
        if self.uses[i as usize] != 0 {
            self.vectors |= 1 << x;
            self.loc[i as usize] = Loc::Vector(x)
        }
        Ok(x)
    }
    /// Likewise for a value that starts as `v`. (Its use must not be done.)
    fn copy_vector(&mut self, i: Val, v: Val) -> Fit<Reg> {
        let from = self.vector_of(v)?;
        let x = self.new_vector(i)?;
        self.asm.xmov(x, from);
        Ok(x)
    }
    fn vector_of(&self, v: Val) -> Fit<Reg> {
        if let Loc::Vector(x) = self.loc[v as usize] { Ok(x) } else { Err(Crowded) }
    }
    pub(super) fn vector(&mut self, l: &Layout, i: Val, s: Step) -> Fit<()> {
        let slot = |n: u8| at(RDI, l.x + 16 * n as i32);
        match s {
            Step::XGet(n) => {
                let x = self.new_vector(i)?;
                self.asm.xload(x, slot(n))
            }
            Step::XSet(n, x) => {
                let from = self.vector_of(x)?;
                self.asm.xstore(slot(n), from);
                self.done(x)
            }
            Step::XLoad(host, off) => {
                let r = self.reg(host)?;
                let x = self.new_vector(i)?;
                self.asm.xload(x, at(r, off));
                self.done(host)
            }
            Step::XStore(host, off, x) => {
                let (r, from) = (self.reg(host)?, self.vector_of(x)?);
                self.asm.xstore(at(r, off), from);
                self.done(host);
                self.done(x)
            }
            Step::XBin(op, a, b) => {
                let from = self.vector_of(b)?;
                let x = self.copy_vector(i, a)?;
                if !self.asm.xbin(op, x, from) {
                    return Err(Crowded);
                }
                self.done(a);
                self.done(b)
            }
            Step::XShuffle(op, a, b, k) => {
                let from = self.vector_of(b)?;
                let x = self.copy_vector(i, a)?;
                self.asm.xshuffle(op, x, from, k);
                self.done(a);
                self.done(b)
            }
            Step::XShift(op, a, n) => {
                let x = self.copy_vector(i, a)?;
                self.asm.xshift(op, x, n);
                self.done(a)
            }
            Step::XZext(w, v) => {
                let r = self.reg(v)?;
                let x = self.new_vector(i)?;
                self.asm.xfrom(w, x, r);
                self.done(v)
            }
            Step::XMerge(w, a, v) => {
                let r = self.reg(v)?;
                let x = self.copy_vector(i, a)?;
                // (The lowest that is free, and not `x`, which may be free as well if nobody needs the value.)
                let low = (self.vectors | 1 << x).trailing_ones() as u8;
                if low > 15 {
                    return Err(Crowded);
                }
                self.asm.xfrom(w, low, r);
                self.asm.xmerge(w, x, low);
                self.done(a);
                self.done(v)
            }
            Step::XMask(w, a) => {
                let from = self.vector_of(a)?;
                let r = self.alloc()?;
                self.asm.xmask(w, r, from);
                self.done(a);
                self.define(i, r)
            }
            Step::XLow(w, a) => {
                let from = self.vector_of(a)?;
                let r = self.alloc()?;
                self.asm.xto(w, r, from);
                self.done(a);
                self.define(i, r)
            }
            Step::XHigh(a) => {
                let low = self.vectors.trailing_ones() as u8;
                if low > 15 {
                    return Err(Crowded);
                }
                let from = self.vector_of(a)?;
                self.asm.xmov(low, from);
                self.asm.xhigh(low);
                let r = self.alloc()?;
                self.asm.xto(W::B8, r, low);
                self.done(a);
                self.define(i, r)
            }
            _ => return Err(Crowded),
        }
        Ok(())
    }
}
