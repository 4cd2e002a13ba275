//! 128-bit formulas as code. What has no short form in CLIF is called.

use super::{
    super::{
        ops::*,
        target::Target,
        vector::{Fp, FpBin, Vector, XBin, XShift, XShuffle, XUn},
    },
    frame::*,
};
use cranelift_codegen::ir::{
    InstBuilder, Value,
    types::{I8, I8X16, I64},
};

impl<T: Target> Clif<'_, '_, T> {
    /// The instruction has to be called; the value stands for its result until then.
    fn called(&mut self, x: Value) -> Value {
        self.give_up = true;
        x
    }
    fn called_term(&mut self) -> Term {
        self.give_up = true;
        Term::constant(0)
    }
}

impl<T: Target> Vector for Clif<'_, '_, T> {
    type X = Value;
    fn xbin(&mut self, _op: XBin, a: Value, _b: Value) -> Value {
        self.called(a)
    }
    fn xfp(&mut self, _op: FpBin, _t: Fp, a: Value, _b: Value) -> Value {
        self.called(a)
    }
    fn xun(&mut self, _op: XUn, x: Value) -> Value {
        self.called(x)
    }
    fn xshift(&mut self, _op: XShift, x: Value, _count: Term) -> Value {
        self.called(x)
    }
    fn xshuffle(&mut self, _op: XShuffle, a: Value, _b: Value, _imm: Term) -> Value {
        self.called(a)
    }
    fn xmask(&mut self, _w: W, _x: Value) -> Term {
        self.called_term()
    }
    fn xlow(&mut self, _w: W, _x: Value) -> Term {
        self.called_term()
    }
    fn xhigh(&mut self, _x: Value) -> Term {
        self.called_term()
    }
    fn xzext(&mut self, _w: W, _v: Term) -> Value {
        self.give_up = true;
        let zero = self.k(I8, 0);
        self.b.ins().splat(I8X16, zero)
    }
    fn xset_low(&mut self, _w: W, x: Value, _v: Term) -> Value {
        self.called(x)
    }
    fn xword(&mut self, _x: Value, _imm: Term) -> Term {
        self.called_term()
    }
    fn xset_word(&mut self, x: Value, _v: Term, _imm: Term) -> Value {
        self.called(x)
    }
    fn xcompare(&mut self, _w: W, _quiet: bool, _a: Value, _b: Value) -> [Value; 3] {
        self.give_up = true;
        [self.k(I8, 0); 3]
    }
    fn xto_int(&mut self, _from: W, _to: W, _truncate: bool, _x: Value) -> Term {
        self.called_term()
    }
    fn xfrom_int(&mut self, _from: W, _to: W, a: Value, _v: Term) -> Value {
        let _ = I64;
        self.called(a)
    }
}
