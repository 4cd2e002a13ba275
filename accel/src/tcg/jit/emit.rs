//! The meaning of instructions as code: [`Ops`] and [`Emit`] over CLIF values.

use super::{
    super::{
        env::Hot,
        ops::*,
        target::Target,
        term::{fold, is_shift},
        unit::routines,
    },
    frame::*,
    xmm::Xv,
};
use cranelift_codegen::ir::{
    AtomicRmwOp, InstBuilder, InstructionData, Value, ValueDef,
    condcodes::{CondCode, FloatCC, IntCC},
    types::{I8, I8X16, I64},
};
use std::mem::offset_of;

impl<T: Target> Clif<'_, '_, T> {
    /// Two values of a width.
    fn both_of(&mut self, w: W, a: Term, b: Term) -> (Value, Value) {
        (self.val(w, a), self.val(w, b))
    }
    /// The condition and operands of a comparison of floats.
    fn float_compare(&self, v: Value) -> Option<(FloatCC, [Value; 2])> {
        let ValueDef::Result(i, _) = self.b.func.dfg.value_def(v) else { return None };
        match self.b.func.dfg.insts[i] {
            InstructionData::FloatCompare { args, cond, .. } => Some((cond, args)),
            _ => None,
        }
    }
    /// A term whose root has 64 bits.
    fn wide(&mut self, t: Term) -> Term {
        match t.root {
            Some(r) if t.off == 0 => self.resize(W::B8, r).into(),
            _ => t,
        }
    }
}

/// Which outcomes of a comparison of floats a condition holds for: unordered, equal, less, greater.
fn outcomes(c: FloatCC) -> u8 {
    use FloatCC::*;
    match c {
        Unordered => 1,
        Equal => 2,
        LessThan => 4,
        GreaterThan => 8,
        UnorderedOrEqual => 3,
        UnorderedOrLessThan => 5,
        UnorderedOrGreaterThan => 9,
        LessThanOrEqual => 6,
        GreaterThanOrEqual => 10,
        OrderedNotEqual => 12,
        UnorderedOrLessThanOrEqual => 7,
        UnorderedOrGreaterThanOrEqual => 11,
        NotEqual => 13,
        Ordered => 14,
    }
}

impl<T: Target> Ops for Clif<'_, '_, T> {
    type V = Term;
    type C = Value;
    fn imm(&mut self, w: W, k: u64) -> Term {
        Term::constant(k & w.mask())
    }
    fn bin(&mut self, op: Bin, w: W, a: Term, b: Term) -> Term {
        let [a, b] = if w == W::B8 { [a, b].map(|t| self.wide(t)) } else { [a, b] };
        if let Some(t) = fold(op, w, a, b) {
            return t;
        }
        if let (Bin::And, Some(x), None) = (op, a.root, b.root)
            && a.off == 0
            && b.off & 1 != 0
            && self.is_bit(x)
        {
            return a;
        }
        if is_shift(op) {
            let x = self.val(w, a);
            let n = match b.root {
                None => self.k(I8, b.off),
                Some(n) if b.off == 0 => n,
                Some(_) => self.val(W::B8, b),
            };
            let i = self.b.ins();
            return match op {
                Bin::Shl => i.ishl(x, n),
                Bin::Shr => i.ushr(x, n),
                Bin::Sar => i.sshr(x, n),
                Bin::Rol => i.rotl(x, n),
                _ => i.rotr(x, n),
            }
            .into();
        }
        let (x, y) = self.both_of(w, a, b);
        let i = self.b.ins();
        match op {
            Bin::Add => i.iadd(x, y),
            Bin::Sub => i.isub(x, y),
            Bin::And => i.band(x, y),
            Bin::Or => i.bor(x, y),
            Bin::Xor => i.bxor(x, y),
            _ => i.imul(x, y),
        }
        .into()
    }
    fn un(&mut self, op: Un, w: W, a: Term) -> Term {
        let x = self.val(w, a);
        let i = self.b.ins();
        match op {
            Un::Clz => i.clz(x),
            Un::Ctz => i.ctz(x),
            Un::Popcnt => i.popcnt(x),
            Un::Bswap if w == W::B1 => x,
            Un::Bswap => i.bswap(x),
        }
        .into()
    }
    fn cmp(&mut self, c: Cmp, w: W, a: Term, b: Term) -> Value {
        let cc = match c {
            Cmp::Eq => IntCC::Equal,
            Cmp::Ne => IntCC::NotEqual,
            Cmp::Ult => IntCC::UnsignedLessThan,
            Cmp::Ule => IntCC::UnsignedLessThanOrEqual,
            Cmp::Slt => IntCC::SignedLessThan,
            Cmp::Sle => IntCC::SignedLessThanOrEqual,
        };
        if let (Cmp::Eq | Cmp::Ne, Some(x), None) = (c, a.root, b.root)
            && a.off == 0
            && b.off & w.mask() == 0
            && self.is_bit(x)
        {
            return if c == Cmp::Ne { x } else { self.not(x) };
        }
        let (x, y) = self.both_of(w, a, b);
        self.b.ins().icmp(cc, x, y)
    }
    fn zext(&mut self, from: W, to: W, v: Term) -> Term {
        if v.root.is_none() {
            return Term::constant(v.off & from.mask());
        }
        // (What it is relative to stays known.)
        if (from, to) == (W::B8, W::B8) {
            return v;
        }
        let x = self.val(from, v);
        if to == W::B8 && self.extends_late(x) {
            return x.into();
        }
        self.resize(to, x).into()
    }
    fn sext(&mut self, from: W, to: W, v: Term) -> Term {
        if v.root.is_none() {
            return Term::constant(from.signed(v.off) as u64 & to.mask());
        }
        let x = self.val(from, v);
        if from == to {
            return x.into();
        }
        self.b.ins().sextend(ty(to), x).into()
    }
    fn trunc(&mut self, _from: W, to: W, v: Term) -> Term {
        if v.root.is_none() {
            return Term::constant(v.off & to.mask());
        }
        if to == W::B8 {
            return self.wide(v);
        }
        self.val(to, v).into()
    }
    fn select(&mut self, w: W, c: Value, t: Term, f: Term) -> Term {
        if t == f {
            return t;
        }
        let (x, y) = self.both_of(w, t, f);
        self.b.ins().select(c, x, y).into()
    }
    fn mul_high(&mut self, w: W, signed: bool, a: Term, b: Term) -> Term {
        if w == W::B8 {
            let (x, y) = self.both_of(w, a, b);
            let i = self.b.ins();
            return if signed { i.smulhi(x, y) } else { i.umulhi(x, y) }.into();
        }
        self.product(w, signed, a, b)[1]
    }
    fn mul_wide(&mut self, w: W, signed: bool, a: Term, b: Term) -> [Term; 2] {
        self.product(w, signed, a, b)
    }
    fn carry(&mut self, op: Bin, w: W, of: [Term; 2], c: Value) -> Term {
        self.with_carry(op, w, of, c)
    }
    fn even_parity(&mut self, b1: Term) -> Value {
        let x = self.val(W::B1, b1);
        let n = self.b.ins().popcnt(x);
        let one = self.k(I8, 1);
        let odd = self.b.ins().band(n, one);
        let zero = self.k(I8, 0);
        self.b.ins().icmp(IntCC::Equal, odd, zero)
    }
    fn bit(&mut self, w: W, c: Value) -> Term {
        self.resize(w, c).into()
    }
    fn both(&mut self, op: Bin, a: Value, b: Value) -> Value {
        // Two questions about one comparison of floats are one.
        if let (Some((p, of)), Some((q, and))) = (self.float_compare(a), self.float_compare(b))
            && of == and
        {
            let (p, q) = (outcomes(p), outcomes(q));
            let c = match op {
                Bin::And => p & q,
                Bin::Or => p | q,
                _ => p ^ q,
            };
            if let Some(cc) = FloatCC::all().iter().find(|&&cc| outcomes(cc) == c) {
                return self.b.ins().fcmp(*cc, of[0], of[1]);
            }
        }
        match op {
            Bin::And => self.b.ins().band(a, b),
            Bin::Or => self.b.ins().bor(a, b),
            _ => self.b.ins().bxor(a, b),
        }
    }
    fn not(&mut self, c: Value) -> Value {
        // The opposite comparison folds into a branch or a select, the opposite of a value does not.
        if let ValueDef::Result(i, _) = self.b.func.dfg.value_def(c)
            && let InstructionData::IntCompare { args, cond, .. } = self.b.func.dfg.insts[i]
        {
            return self.b.ins().icmp(cond.complement(), args[0], args[1]);
        }
        if let Some((cc, args)) = self.float_compare(c) {
            return self.b.ins().fcmp(cc.complement(), args[0], args[1]);
        }
        let one = self.k(I8, 1);
        self.b.ins().bxor(c, one)
    }
    fn never(&mut self) -> Value {
        self.k(I8, 0)
    }
}

impl<T: Target> Emit for Clif<'_, '_, T> {
    type Miss = Ended;
    type P = (Value, i32);
    fn slot(&self, field: usize) -> Slot {
        self.d.r[field & 3]
    }
    fn segment(&self) -> Slot {
        Slot(SEG_BASE + self.d.seg)
    }
    fn immediate(&mut self, w: W) -> Term {
        Term::constant(self.d.imm & w.mask())
    }
    fn disp(&mut self) -> Term {
        Term::constant(self.d.disp as i64 as u64)
    }
    fn scale(&mut self) -> Term {
        Term::constant(self.d.scale.into())
    }
    fn next_ip(&mut self) -> Term {
        Term { root: Some(self.base), off: self.off as u64 + self.d.len as u64 }
    }
    fn get(&mut self, w: W, s: Slot) -> Term {
        let t = self.term(s);
        self.trunc(W::B8, w, t)
    }
    fn set(&mut self, s: Slot, v: Term) {
        let v = match v.root {
            Some(r) if v.off == 0 && !self.extends_late(r) => self.val(W::B8, v).into(),
            _ => v,
        };
        self.set_term(s, v)
    }
    fn set_part(&mut self, w: W, s: Slot, v: Term) {
        match w {
            W::B8 => self.set(s, v),
            _ => {
                let old = self.term(s);
                let old = self.and_imm(W::B8, old, !w.mask());
                let v = self.zext(w, W::B8, v);
                let v = self.bin(Bin::Or, W::B8, old, v);
                self.set_term(s, v)
            }
        }
    }
    fn getx(&mut self, s: Slot) -> Xv {
        self.xterm(s)
    }
    fn setx(&mut self, s: Slot, x: Xv) {
        self.set_xterm(s, x)
    }
    fn linear(&mut self, offset: Term, bytes: u32, write: bool) -> Result<Term, Ended> {
        self.linear_in(self.d.seg, offset, bytes, write)
    }
    fn linear_in(&mut self, seg: u8, offset: Term, bytes: u32, _write: bool) -> Result<Term, Ended> {
        let base = self.term(Slot((SEG_BASE + seg) & 31));
        let limit = self.term(Slot((SEG_LIMIT + seg) & 31));
        let end = self.add_imm(W::B8, offset, bytes.into());
        let (end, limit) = self.both_of(W::B8, end, limit);
        let c = self.b.ins().icmp(IntCC::UnsignedGreaterThan, end, limit);
        self.leave_if(c);
        let la = self.add(W::B8, base, offset);
        Ok(self.and_imm(W::B8, la, 0xffff_ffff))
    }
    fn aligned(&mut self, bytes: u64, la: Term) -> Result<(), Ended> {
        let low = self.and_imm(W::B8, la, bytes - 1);
        match low.root {
            None if low.off == 0 => Ok(()),
            None => {
                self.leave();
                Err(Ended)
            }
            Some(_) => {
                let c = self.val(W::B8, low);
                self.leave_if(c);
                Ok(())
            }
        }
    }
    fn place(&mut self, bytes: u32, la: Term, write: bool) -> Result<(Value, i32), Ended> {
        Ok(self.check(bytes, la, write))
    }
    fn read(&mut self, w: W, p: (Value, i32)) -> Term {
        let i = self.b.ins();
        let wide = match w {
            W::B1 => i.uload8(I64, GUEST, p.0, p.1),
            W::B2 => i.uload16(I64, GUEST, p.0, p.1),
            W::B4 => i.uload32(GUEST, p.0, p.1),
            W::B8 => return i.load(I64, GUEST, p.0, p.1).into(),
        };
        let v = self.b.ins().ireduce(ty(w), wide);
        self.s.narrow.push((wide, v));
        v.into()
    }
    fn write(&mut self, w: W, p: (Value, i32), v: Term) {
        let v = match self.float_of(w, v) {
            Some(f) => f,
            None => self.val(w, v),
        };
        self.b.ins().store(GUEST, v, p.0, p.1);
    }
    fn readx(&mut self, p: (Value, i32)) -> Xv {
        self.b.ins().load(I8X16, GUEST, p.0, p.1).into()
    }
    fn writex(&mut self, p: (Value, i32), x: Xv) {
        let x = self.whole(x);
        self.b.ins().store(GUEST, x, p.0, p.1);
    }
    fn rmw(&mut self, op: Option<Bin>, w: W, p: (Value, i32), v: Term) -> Term {
        let op = match op {
            None => AtomicRmwOp::Xchg,
            Some(Bin::Add) => AtomicRmwOp::Add,
            Some(Bin::Sub) => AtomicRmwOp::Sub,
            Some(Bin::And) => AtomicRmwOp::And,
            Some(Bin::Or) => AtomicRmwOp::Or,
            Some(_) => AtomicRmwOp::Xor,
        };
        let v = self.val(w, v);
        let p = self.val(W::B8, Term { root: Some(p.0), off: p.1 as i64 as u64 });
        self.b.ins().atomic_rmw(ty(w), GUEST, op, p, v).into()
    }
    fn cas(&mut self, w: W, p: (Value, i32), expected: Term, new: Term) -> Term {
        let (e, n) = self.both_of(w, expected, new);
        let p = self.val(W::B8, Term { root: Some(p.0), off: p.1 as i64 as u64 });
        self.b.ins().atomic_cas(GUEST, p, e, n).into()
    }
    fn divide(&mut self, w: W, signed: bool, hi: Term, lo: Term, by: Term) -> Result<[Term; 2], Ended> {
        // In 64 bits; the rest (a 128-bit dividend, overflow, zero) is tier 0's.
        let (n, d) = if w == W::B8 {
            let (hi, lo) = self.both_of(W::B8, hi, lo);
            let d = self.val(W::B8, by);
            let fill = if signed {
                let k = self.k(I8, 63);
                self.b.ins().sshr(lo, k)
            } else {
                self.k(I64, 0)
            };
            let c = self.b.ins().icmp(IntCC::NotEqual, hi, fill);
            self.leave_if(c);
            (lo, d)
        } else {
            let (hi, lo) = (self.zext(w, W::B8, hi), self.zext(w, W::B8, lo));
            let hi = self.shift_imm(Bin::Shl, W::B8, hi, w.bits());
            let n = self.bin(Bin::Or, W::B8, hi, lo);
            let twice = W::from_code(w as u8 + 1);
            let (n, d) = if signed {
                let n = self.trunc(W::B8, twice, n);
                (self.sext(twice, W::B8, n), self.sext(w, W::B8, by))
            } else {
                (n, self.zext(w, W::B8, by))
            };
            self.both_of(W::B8, n, d)
        };
        let c = if signed {
            // 0 and -1.
            let one = self.k(I64, 1);
            let d = self.b.ins().iadd(d, one);
            self.b.ins().icmp(IntCC::UnsignedLessThanOrEqual, d, one)
        } else {
            let zero = self.k(I64, 0);
            self.b.ins().icmp(IntCC::Equal, d, zero)
        };
        self.leave_if(c);
        let (q, r) = if signed {
            (self.b.ins().sdiv(n, d), self.b.ins().srem(n, d))
        } else {
            (self.b.ins().udiv(n, d), self.b.ins().urem(n, d))
        };
        if w != W::B8 {
            let low = self.resize(w, q);
            let back = if signed { self.b.ins().sextend(I64, low) } else { self.b.ins().uextend(I64, low) };
            let c = self.b.ins().icmp(IntCC::NotEqual, back, q);
            self.leave_if(c);
        }
        Ok([self.resize(w, q).into(), self.resize(w, r).into()])
    }
    fn flags_wanted(&self) -> bool {
        self.wanted
    }
    fn defer(&mut self, d: Deferred<Term>) {
        self.s.flags = Flags::Pending(d)
    }
    fn defer_if(&mut self, c: Value, d: Deferred<Term>) {
        self.settle_flags();
        let cc = self.k(I64, (d.w as u64) << 8 | d.kind as u64);
        let mut fields = vec![(cc, offset_of!(Hot, cc))];
        let used = T::flag_values(d.kind);
        for (i, t) in d.v.into_iter().enumerate() {
            if used >> i & 1 != 0 {
                let v = self.val(d.w, t);
                fields.push((self.resize(W::B8, v), offset_of!(Hot, cc_v) + 8 * i));
            }
        }
        for (new, field) in fields {
            let old = self.b.ins().load(I64, ENV, self.env, hot_at(field));
            let v = self.b.ins().select(c, new, old);
            self.store_hot(v, field);
        }
        self.s.flags = Flags::Env(None)
    }
    fn defer_partly(&mut self, p: Partly<Term>) -> bool {
        if p.kept & self.live_out == 0 {
            // What stays is not read.
            self.s.flags = Flags::Pending(p.new);
            return true;
        }
        // (Of two on end, the first is completed unless nothing of it stays.)
        if let Flags::Partly(first, _) = self.s.flags
            && p.kept & !first.kept != 0
        {
            self.flags();
        }
        self.s.flags = match self.s.flags {
            Flags::Partly(_, before) => Flags::Partly(p, before),
            Flags::Pending(d) => Flags::Partly(p, Before::Pending(d)),
            Flags::Env(k) => Flags::Partly(p, Before::Env(k)),
        };
        true
    }
    fn deferred(&mut self) -> Result<Deferred<Term>, Ended> {
        if let Flags::Partly(p, _) = self.s.flags
            && self.d.reads != 0
            && self.d.reads & p.kept == 0
        {
            return Ok(p.new);
        }
        Ok(self.flags())
    }
    fn rare_if(&mut self, c: Value) -> Result<(), Ended> {
        self.leave_if(c);
        Ok(())
    }
    fn unit(&mut self, code: [u8; 2]) {
        self.on_unit(routines::routine(code), None);
    }
    fn unit_at(&mut self, code: [u8; 2], _bytes: u32, p: (Value, i32), _write: bool) {
        let at = self.val(W::B8, Term { root: Some(p.0), off: p.1 as i64 as u64 });
        self.on_unit(routines::routine(code), Some(at));
    }
    fn unit_control(&mut self, v: Term) {
        let v = self.val(W::B2, v);
        let at = self.scratch();
        self.b.ins().store(ENV, v, at, 0);
        self.on_unit(routines::routine([0xd9, 5 << 3]), Some(at));
    }
    fn unit_status(&mut self) -> Term {
        let at = self.scratch();
        self.on_unit(routines::routine([0xdd, 7 << 3]), Some(at));
        self.b.ins().load(ty(W::B2), ENV, at, 0).into()
    }
    fn unit_compare(&mut self, code: [u8; 2]) -> [Value; 3] {
        let at = self.scratch();
        self.on_unit(routines::comparison(code), Some(at));
        [0, 1, 2].map(|i| self.b.ins().load(I8, ENV, at, i))
    }
    fn unit_move(&mut self, c: Value, i: u8) {
        self.hold_unit();
        let [no, yes] = [false, true].map(|c| self.k(I64, routines::conditional_move(c, i) as u64));
        let routine = self.b.ins().select(c, yes, no);
        self.call_quietly(routine, self.env);
    }
    fn unit_note(&mut self, data: Option<Term>) {
        self.note(data)
    }
}
