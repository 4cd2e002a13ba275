//! Values: terms as integers of a width. A value of 32 bits and its extension to 64 share a register where the host extends by itself;
//! else it is extended where somebody wants that, and only the wide one is used from then on.

use super::{
    super::{ops::W, target::Target},
    frame::{Clif, Term, ty},
};
use cranelift_codegen::ir::{
    InstBuilder, Opcode, Type, Value, ValueDef,
    types::{I32, I64},
};

impl<T: Target> Clif<'_, '_, T> {
    /// A constant.
    pub(super) fn k(&mut self, t: Type, v: u64) -> Value {
        let bits = t.bits();
        let v = if bits < 64 { ((v << (64 - bits)) as i64) >> (64 - bits) } else { v as i64 };
        self.b.ins().iconst(t, v)
    }
    /// The value of a term as an integer of width `w`.
    pub(super) fn val(&mut self, w: W, t: Term) -> Value {
        let Some(r) = t.root else { return self.k(ty(w), t.off) };
        if t.off == 0 {
            return self.resize(w, r);
        }
        // (A sum of 32 bits is zero above them by itself, part of one of 64 bits is not. What adds two values adds a constant as well.)
        let part = w == W::B4 && self.opcode(r) != Some(Opcode::Iadd);
        let of = if part { I32 } else { I64 };
        let known = |s: &&(Value, u64, Value)| (s.0, s.1) == (r, t.off) && self.b.func.dfg.value_type(s.2) == of;
        if let Some(s) = self.s.sums.iter().rev().find(known) {
            return self.resize(w, s.2);
        }
        let to = if part { self.resize(w, r) } else { r };
        let k = self.k(of, t.off);
        let v = self.b.ins().iadd(to, k);
        self.s.sums.push((r, t.off, v));
        self.resize(w, v)
    }
    /// `v` as an integer of width `w`, upper bits zero.
    pub(super) fn resize(&mut self, w: W, v: Value) -> Value {
        let (from, to) = (self.b.func.dfg.value_type(v).bits(), w.bits());
        match from.cmp(&to) {
            std::cmp::Ordering::Equal => match self.s.narrow.iter().rev().find(|n| n.1 == v).map(|n| n.0) {
                // (One of them is kept.)
                Some(wide) if w == W::B4 && !self.shares_register(wide, v) => self.resize(w, wide),
                _ => v,
            },
            std::cmp::Ordering::Less => {
                let wide = match self.s.narrow.iter().rev().find(|n| n.1 == v) {
                    Some(n) => n.0,
                    None => {
                        let r = self.b.ins().uextend(I64, v);
                        self.s.narrow.push((r, v));
                        r
                    }
                };
                if w == W::B8 {
                    return wide;
                }
                let r = self.b.ins().ireduce(ty(w), wide);
                self.s.narrow.push((wide, r));
                r
            }
            std::cmp::Ordering::Greater => {
                let bits = |n: &(Value, Value)| self.b.func.dfg.value_type(n.1).bits();
                let known = self.s.narrow.iter().rev().filter(|n| n.0 == v && bits(n) <= to);
                let mut extended = false;
                for n in known {
                    if bits(n) == to && self.shares_register(v, n.1) {
                        return n.1;
                    }
                    extended = true
                }
                let r = self.b.ins().ireduce(ty(w), v);
                if extended {
                    self.s.narrow.push((v, r))
                }
                r
            }
        }
    }

    /// A value that is extended to 64 bits where somebody wants those: that takes an instruction.
    pub(super) fn extends_late(&self, v: Value) -> bool {
        let dfg = &self.b.func.dfg;
        dfg.value_type(v) == I32 && !self.is_extended(v) && !self.s.narrow.iter().any(|n| n.1 == v)
    }
    /// A value is in the register that has `wide`, its zero extension to 64 bits: else both would be kept.
    fn shares_register(&self, wide: Value, v: Value) -> bool {
        let ValueDef::Result(i, _) = self.b.func.dfg.value_def(v) else { return false };
        self.is_extended(v) || self.opcode(v) == Some(Opcode::Ireduce) && self.b.func.dfg.inst_args(i)[0] == wide
    }
    /// A value of 32 bits that x86 hosts extend as they compute it.
    fn is_extended(&self, v: Value) -> bool {
        use Opcode::*;
        let by = self.opcode(v);
        matches!(by, Some(Iadd | Isub | Imul | Band | Bor | Bxor | Ishl | Ushr)) && self.b.func.dfg.value_type(v) == I32
    }
    /// What computes a value.
    fn opcode(&self, v: Value) -> Option<Opcode> {
        let dfg = &self.b.func.dfg;
        dfg.value_def(v).inst().map(|i| dfg.insts[i].opcode())
    }
    /// `v + k`.
    pub(super) fn plus(&mut self, v: Value, k: u64) -> Value {
        if k == 0 {
            return v;
        }
        let k = self.k(I64, k);
        self.b.ins().iadd(v, k)
    }
}
