//! Arithmetic of two words: a carry that somebody takes in stays one in the host's flags.
//!
//! What the guest computes word by word is said over again as one operation of 128 bits, whose low half makes the carry:
//! Cranelift has an addition with carry for that only.

use super::{
    super::{
        ops::{Bin, Ops, W},
        target::Target,
    },
    frame::{Clif, Term},
};
use cranelift_codegen::ir::{
    InstBuilder, InstructionData, Opcode, Value, ValueDef,
    condcodes::IntCC,
    types::{I64, I128},
};

impl<T: Target> Clif<'_, '_, T> {
    /// The operands of the comparison `v` of 64 bits if that is whether `a < b`, unsigned.
    fn is_below(&self, v: Value) -> Option<[Value; 2]> {
        let dfg = &self.b.func.dfg;
        let ValueDef::Result(i, _) = dfg.value_def(v) else { return None };
        match dfg.insts[i] {
            InstructionData::IntCompare { args, cond: IntCC::UnsignedLessThan, .. }
                if dfg.value_type(args[0]) == I64 =>
            {
                Some(args)
            }
            _ => None,
        }
    }
    /// An addition whose carry the condition `c` is.
    fn sum_of(&self, c: Value) -> Option<[Value; 2]> {
        let [sum, one] = self.is_below(c)?;
        let dfg = &self.b.func.dfg;
        let ValueDef::Result(i, _) = dfg.value_def(sum) else { return None };
        match dfg.insts[i] {
            InstructionData::Binary { opcode: Opcode::Iadd, args } if args.contains(&one) => Some(args),
            _ => None,
        }
    }
    /// `a + b + c` or `a - b - c`; of 64 bits without a carry that is a value.
    pub(super) fn with_carry(&mut self, op: Bin, w: W, [a, b]: [Term; 2], c: Value) -> Term {
        if w != W::B8 || a == b {
            let r = self.bin(op, w, a, b);
            let c = self.bit(w, c);
            return self.bin(op, w, r, c);
        }
        let low = if op == Bin::Add { self.sum_of(c) } else { self.is_below(c) };
        let [p, q] = low.unwrap_or_else(|| {
            // (What carries if `c` is 1.)
            let (c, k) = (self.resize(W::B8, c), self.k(I64, if op == Bin::Add { u64::MAX } else { 0 }));
            if op == Bin::Add { [c, k] } else { [k, c] }
        });
        let (x, y) = (self.val(w, a), self.val(w, b));
        let (x, y) = (self.b.ins().iconcat(p, x), self.b.ins().iconcat(q, y));
        let r = if op == Bin::Add { self.b.ins().iadd(x, y) } else { self.b.ins().isub(x, y) };
        self.b.ins().isplit(r).1.into()
    }
    /// The halves of a product, the low one first.
    pub(super) fn product(&mut self, w: W, signed: bool, a: Term, b: Term) -> [Term; 2] {
        if w != W::B8 {
            let [x, y] = [a, b].map(|t| if signed { self.sext(w, W::B8, t) } else { self.zext(w, W::B8, t) });
            let p = self.bin(Bin::Mul, W::B8, x, y);
            let h = self.shift_imm(Bin::Shr, W::B8, p, w.bits());
            return [p, h].map(|t| self.trunc(W::B8, w, t));
        }
        let [x, y] = [a, b].map(|t| self.val(w, t));
        let [x, y] = [x, y].map(|v| if signed { self.b.ins().sextend(I128, v) } else { self.b.ins().uextend(I128, v) });
        let p = self.b.ins().imul(x, y);
        let (low, high) = self.b.ins().isplit(p);
        [low.into(), high.into()]
    }
}
