//! Vector registers as values: lane types, a low lane of its own, results that must not be dropped.
//!
//! A scalar operation changes the low lane only. It is kept as a scalar value beside the register's old one, so that a run of
//! scalar operations moves nothing; the two are put together where the whole register is used.
//!
//! The compiler drops what nobody uses, a floating-point operation with its sticky flags too. Therefore the last result of a
//! register is *pinned* until it is stored, or until a value that is pinned in its turn was computed from it.

use super::{super::target::Target, frame::*};
use crate::tcg::env::Hot;
use crate::tcg::ops::{Slot, W};
use cranelift_codegen::ir::{
    AbiParam, Endianness, InstBuilder, InstructionData, MemFlagsData, Opcode, Signature, Type, Value, ValueDef,
    condcodes::IntCC,
    types::{F32, F32X4, F64, F64X2, I8X16, I32, I32X4, I64, I64X2},
};
#[cfg(target_arch = "x86_64")]
use cranelift_codegen::isa::CallConv;
use std::mem::offset_of;

/// A 128-bit value.
#[derive(Clone, Copy, Debug)]
pub struct Xv {
    /// All lanes, of any lane type.
    pub(super) all: Value,
    /// The low lane, a float.
    pub(super) low: Option<Value>,
    /// `all` has `low` in it already.
    pub(super) merged: bool,
}
impl From<Value> for Xv {
    fn from(all: Value) -> Xv {
        Xv { all, low: None, merged: false }
    }
}
impl Xv {
    /// The low lane, where `all` does not have it.
    pub(super) fn apart(self) -> Option<Value> {
        self.low.filter(|_| !self.merged)
    }
}

/// The lanes of floats of a width.
pub(super) const fn floats(w: W) -> Type {
    if matches!(w, W::B4) { F32X4 } else { F64X2 }
}

impl<T: Target> Clif<'_, '_, T> {
    /// A vector with other lanes.
    pub(super) fn cast(&mut self, v: Value, to: Type) -> Value {
        let dfg = &self.b.func.dfg;
        if dfg.value_type(v) == to {
            return v;
        }
        if let Some((Opcode::Bitcast, from)) = self.unary(v) {
            if self.b.func.dfg.value_type(from) == to {
                return from;
            }
            if self.b.func.dfg.value_type(from).bits() == 128 {
                return self.b.ins().bitcast(to, MemFlagsData::new().with_endianness(Endianness::Little), from);
            }
        }
        self.b.ins().bitcast(to, MemFlagsData::new().with_endianness(Endianness::Little), v)
    }
    /// The operation and operand a value was made by.
    fn unary(&self, v: Value) -> Option<(Opcode, Value)> {
        let ValueDef::Result(i, _) = self.b.func.dfg.value_def(v) else { return None };
        match self.b.func.dfg.insts[i] {
            InstructionData::Unary { opcode, arg } => Some((opcode, arg)),
            InstructionData::LoadNoOffset { opcode, arg, .. } => Some((opcode, arg)),
            _ => None,
        }
    }
    /// The whole value.
    pub(super) fn all(&mut self, x: Xv, t: Type) -> Value {
        self.consumed.push(x.all);
        let v = self.whole(x);
        self.cast(v, t)
    }
    /// The same of any lane type, without being a use of it.
    pub(super) fn whole(&mut self, x: Xv) -> Value {
        let Some(low) = x.apart() else { return x.all };
        self.consumed.push(low);
        if let Some(m) = self.s.merges.iter().rev().find(|m| (m.0, m.1) == (x.all, low)) {
            return m.2;
        }
        let t = if self.b.func.dfg.value_type(low) == F32 { F32X4 } else { F64X2 };
        let base = self.cast(x.all, t);
        let v = self.b.ins().insertlane(base, low, 0);
        self.s.merges.push((x.all, low, v));
        v
    }
    /// The low lane as a float.
    pub(super) fn low(&mut self, x: Xv, w: W) -> Value {
        let scalar = if w == W::B4 { F32 } else { F64 };
        if let Some(l) = x.low
            && self.b.func.dfg.value_type(l) == scalar
        {
            self.consumed.push(l);
            return l;
        }
        let v = self.all(x, floats(w));
        self.b.ins().extractlane(v, 0)
    }
    /// `x` with another low lane.
    pub(super) fn with_low(&mut self, x: Xv, low: Value) -> Xv {
        let types = |l| self.b.func.dfg.value_type(l);
        let all = match x.apart() {
            // (The rest of a wider low lane stays.)
            Some(l) if types(l) != types(low) => self.whole(x),
            _ => x.all,
        };
        Xv { all, low: Some(low), merged: false }
    }
    /// The low lane as an integer.
    pub(super) fn low_int(&mut self, w: W, x: Xv) -> Value {
        let (t, lanes, scalar) = if w == W::B4 { (I32, I32X4, F32) } else { (I64, I64X2, F64) };
        if let Some(l) = x.low
            && self.b.func.dfg.value_type(l) == scalar
        {
            return self.b.ins().bitcast(t, MemFlagsData::new(), l);
        }
        let v = self.whole(x);
        let v = self.cast(v, lanes);
        self.b.ins().extractlane(v, 0)
    }
    /// The float an integer of `w` was made of, if it is a low lane: it need not go through a general register.
    pub(super) fn float_of(&mut self, w: W, t: Term) -> Option<Value> {
        let (int, scalar) = match w {
            W::B4 => (I32, F32),
            W::B8 => (I64, F64),
            _ => return None,
        };
        let v = t.root.filter(|_| t.off == 0)?;
        let dfg = &self.b.func.dfg;
        if dfg.value_type(v) != int {
            return None;
        }
        if let Some((Opcode::Bitcast, from)) = self.unary(v)
            && dfg.value_type(from) == scalar
        {
            return Some(from);
        }
        let ValueDef::Result(i, _) = dfg.value_def(v) else { return None };
        if let InstructionData::BinaryImm8 { opcode: Opcode::Extractlane, arg, imm: 0 } = dfg.insts[i] {
            let v = self.cast(arg, floats(w));
            return Some(self.b.ins().extractlane(v, 0));
        }
        None
    }
    /// All bits zero.
    pub(super) fn zeros(&mut self, t: Type) -> Value {
        self.lanes(t, 0)
    }
    /// A constant.
    pub(super) fn lanes(&mut self, t: Type, bits: u128) -> Value {
        let c = self.b.func.dfg.constants.insert(bits.to_le_bytes().to_vec().into());
        self.b.ins().vconst(t, c)
    }

    /// The result of a routine that changes no register.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn routine(&mut self, f: crate::tcg::host::routine::Routine, x: Value, to: Type) -> Value {
        let mut s = Signature::new(CallConv::PreserveAll);
        s.params = [I64, self.b.func.dfg.value_type(x)].map(AbiParam::new).into();
        let s = self.b.import_signature(s);
        let (f, at) = (self.k(I64, f as usize as u64), self.scratch());
        self.b.ins().call_indirect(s, f, &[at, x]);
        self.b.ins().load(to, GUEST, at, 0)
    }

    // ---- registers ----

    /// A vector register.
    pub(super) fn xterm(&mut self, s: Slot) -> Xv {
        let i = s.index();
        if let Some(x) = self.s.x[i] {
            return x;
        }
        let v = if self.s.xreload >> i & 1 != 0 {
            self.s.xreload &= !(1 << i);
            self.s.xchanged |= 1 << i;
            self.b.ins().load(I8X16, ENV, self.env, Self::x_at(i))
        } else {
            self.read[self.block][1] |= 1 << i;
            self.b.use_var(self.xvars[i])
        };
        self.s.x[i] = Some(v.into());
        v.into()
    }
    pub(super) fn set_xterm(&mut self, s: Slot, x: Xv) {
        let i = s.index();
        let bit = 1 << i;
        let mut fresh = self.fresh.take();
        if let Some(at) = self.s.pins.iter().position(|p| p.0 == i) {
            let old = self.s.pins.swap_remove(at).1;
            if self.consumed.contains(&old) {
                fresh = fresh.or(x.low).or(Some(x.all))
            } else if fresh.is_none() && x.all == old {
                fresh = Some(old)
            } else {
                self.keep(old)
            }
        }
        if let Some(v) = fresh {
            self.s.pins.push((i, v))
        }
        // (The upper lanes in the env are right already.)
        let upper = self.s.xdirty & bit == 0
            && self.s.x[i].is_some_and(|old| {
                let types = |l: Option<Value>| l.map(|l| self.b.func.dfg.value_type(l));
                old.all == x.all && (types(old.apart()), types(x.low)) != (Some(F64), Some(F32))
            });
        if upper && x.apart().is_some() {
            self.s.xlow |= bit
        } else {
            self.s.xdirty |= bit;
            self.s.xlow &= !bit
        }
        self.s.x[i] = Some(x);
        self.s.xchanged |= bit;
        self.s.xreload &= !bit;
    }
    /// Stores what changed.
    pub(super) fn flush_vectors(&mut self) {
        let (dirty, low) = (std::mem::take(&mut self.s.xdirty), std::mem::take(&mut self.s.xlow));
        self.s.pins.clear();
        for i in bits(dirty | low) {
            let x = self.s.x[i].expect("a changed register has a value");
            let v = match x.low {
                Some(l) if low >> i & 1 != 0 => l,
                _ => {
                    let all = self.whole(x);
                    self.s.x[i] = Some(Xv { all, low: x.low, merged: true });
                    all
                }
            };
            self.b.ins().store(ENV, v, self.env, Self::x_at(i));
        }
    }
    /// The value is computed here, whatever becomes of it.
    pub(super) fn keep(&mut self, v: Value) {
        self.b.ins().store(ENV, v, self.env, hot_at(offset_of!(Hot, scratch)));
    }

    // ---- control ----

    /// The guest's floating-point control is in force for what follows.
    pub(super) fn need_fp(&mut self) {
        self.fp_used = true;
        if !self.s.fp {
            self.load_fp()
        }
    }
    pub(super) fn load_fp(&mut self) {
        let host = self.b.ins().load(I64, ENV, self.env, hot_at(offset_of!(Hot, fpcr_host)));
        let (load, go_on) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(load);
        self.b.ins().brif(host, go_on, &[], load, &[]);
        self.b.switch_to_block(load);
        self.b.seal_block(load);
        let thunk = self.k(I64, self.thunks.fp as u64);
        self.call_quietly(thunk, self.env);
        self.b.ins().jump(go_on, &[]);
        self.b.switch_to_block(go_on);
        self.b.seal_block(go_on);
        self.s.fp = true
    }
    /// A comparison whose flags are not yet raised is made now, unless a branch on `by` makes it.
    pub(super) fn compare_now(&mut self, by: Option<Value>) {
        let Some(c) = self.s.compare.take() else { return };
        let args = |v| match self.b.func.dfg.value_def(v) {
            ValueDef::Result(i, _) => match self.b.func.dfg.insts[i] {
                InstructionData::FloatCompare { args, .. } => Some(args),
                _ => None,
            },
            _ => None,
        };
        if by.is_some_and(|by| args(by) == args(c)) {
            return;
        }
        self.keep(c)
    }
    /// Whether a value is 0 or 1, being the result of a comparison.
    pub(super) fn is_bit(&self, v: Value) -> bool {
        let ValueDef::Result(i, _) = self.b.func.dfg.value_def(v) else { return false };
        matches!(self.b.func.dfg.insts[i], InstructionData::IntCompare { .. } | InstructionData::FloatCompare { .. })
    }
    /// Whether an unsigned value is below a constant.
    pub(super) fn below(&mut self, v: Value, k: u64) -> Value {
        let t = self.b.func.dfg.value_type(v);
        let k = self.k(t, k);
        self.b.ins().icmp(IntCC::UnsignedLessThan, v, k)
    }
}
