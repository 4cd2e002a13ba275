//! 128-bit formulas as code. What has no short exact form is called.
//!
//! Exact means: the same bits and the same sticky flags as the guest's instruction, under any rounding, flush and denormal
//! mode. That holds for CLIF operations that become one instruction of the host working under its MXCSR, which is the guest's
//! ([`Clif::need_fp`]); every exception is masked there. Not among them are `fmin`, `fmax`, `nearest` and saturating
//! conversions. Hosts other than x86-64 call everything that depends on MXCSR.

#[cfg(target_arch = "x86_64")]
use super::super::host::routine;
use super::{
    super::{
        ops::*,
        target::Target,
        vector::{Fp, FpBin, Vector, XBin, XShift, XShuffle, XUn},
    },
    frame::*,
    xmm::{Xv, floats},
};
use cranelift_codegen::ir::{
    InstBuilder, Type, Value,
    condcodes::{FloatCC, IntCC},
    types::{F32, F32X4, F64, F64X2, I8, I8X16, I16X8, I32, I32X4, I64, I64X2},
};

/// The lanes of integers of a width.
const fn ints(w: W) -> Type {
    match w {
        W::B1 => I8X16,
        W::B2 => I16X8,
        W::B4 => I32X4,
        W::B8 => I64X2,
    }
}
/// The host shuffles bytes by a vector (SSSE3 on x86).
fn shuffles_bytes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("ssse3");
    #[cfg(not(target_arch = "x86_64"))]
    return true;
}
/// A mask of every second lane, from lane `first` on.
fn every_second(w: W, first: u32) -> u128 {
    let n = w.bits();
    (0..128 / n).filter(|i| i % 2 == first).fold(0, |m, i| m | (w.mask() as u128) << (i * n))
}

impl<T: Target> Clif<'_, '_, T> {
    /// The instruction has to be called; the value stands for its result until then.
    fn called(&mut self, x: Xv) -> Xv {
        self.give_up = true;
        x
    }
    fn called_term(&mut self) -> Term {
        self.give_up = true;
        Term::constant(0)
    }
    /// Bytes of `a`, `b` by number: those of `b` from 16 on.
    fn bytes(&mut self, a: Value, b: Value, from: [u8; 16]) -> Value {
        let (a, b) = (self.cast(a, I8X16), self.cast(b, I8X16));
        let m = self.b.func.dfg.immediates.push(from.to_vec().into());
        self.b.ins().shuffle(a, b, m)
    }
    /// Lanes of `a`, `b` of width `w` by number: those of `b` after those of `a`.
    fn pick(&mut self, w: W, a: Value, b: Value, from: impl Fn(u8) -> u8) -> Value {
        let n = w.bytes() as u8;
        self.bytes(a, b, std::array::from_fn(|i| from(i as u8 / n) * n + i as u8 % n))
    }
    /// A pinned result.
    fn raised(&mut self, v: Value) -> Xv {
        self.fresh = Some(v);
        v.into()
    }
    /// A pinned result in the low lane of `a`.
    fn raised_low(&mut self, a: Xv, v: Value) -> Xv {
        let x = self.with_low(a, v);
        self.fresh = Some(v);
        x
    }
    /// A scalar alone in a vector.
    fn alone(&mut self, w: W, v: Value) -> Value {
        self.b.ins().scalar_to_vector(floats(w), v)
    }
    fn compare_lanes(&mut self, predicate: u8, x: Value, y: Value) -> Value {
        let cc = match predicate & 7 {
            0 => FloatCC::Equal,
            1 => FloatCC::LessThan,
            2 => FloatCC::LessThanOrEqual,
            3 => FloatCC::Unordered,
            4 => FloatCC::NotEqual,
            5 => FloatCC::UnorderedOrGreaterThanOrEqual,
            6 => FloatCC::UnorderedOrGreaterThan,
            _ => FloatCC::Ordered,
        };
        self.b.ins().fcmp(cc, x, y)
    }
    /// Operations of packed or scalar floats that become one instruction.
    fn arithmetic(&mut self, op: FpBin, x: Value, y: Value) -> Value {
        let i = self.b.ins();
        match op {
            FpBin::Add => i.fadd(x, y),
            FpBin::Sub => i.fsub(x, y),
            FpBin::Mul => i.fmul(x, y),
            FpBin::Div => i.fdiv(x, y),
            FpBin::Sqrt => i.sqrt(y),
            _ => {
                let (p, q) = if op == FpBin::Min { (x, y) } else { (y, x) };
                let less = i.fcmp(FloatCC::LessThan, p, q);
                let t = self.b.func.dfg.value_type(x);
                if !t.is_vector() {
                    return self.b.ins().select(less, x, y);
                }
                let less = self.cast(less, t);
                self.b.ins().bitselect(less, x, y)
            }
        }
    }
    /// A wide product's upper halves: by widening, which the compiler knows.
    fn high_words(&mut self, signed: bool, a: Value, b: Value) -> Value {
        let halves = [false, true].map(|high| {
            let [x, y] = [a, b].map(|v| {
                let i = self.b.ins();
                match (signed, high) {
                    (true, false) => i.swiden_low(v),
                    (true, true) => i.swiden_high(v),
                    (false, false) => i.uwiden_low(v),
                    (false, true) => i.uwiden_high(v),
                }
            });
            let p = self.b.ins().imul(x, y);
            let n = self.k(I8, 16);
            self.b.ins().sshr(p, n)
        });
        // (Sixteen bits with their sign: nothing saturates.)
        self.b.ins().snarrow(halves[0], halves[1])
    }
    /// Sums of the products of neighbours.
    fn dot_words(&mut self, a: Value, b: Value) -> Value {
        let (x, y) = (self.b.ins().swiden_low(a), self.b.ins().swiden_low(b));
        let low = self.b.ins().imul(x, y);
        let (x, y) = (self.b.ins().swiden_high(a), self.b.ins().swiden_high(b));
        let high = self.b.ins().imul(x, y);
        self.b.ins().iadd_pairwise(low, high)
    }
}

impl<T: Target> Vector for Clif<'_, '_, T> {
    type X = Xv;
    fn xbin(&mut self, op: XBin, a: Xv, b: Xv) -> Xv {
        use XBin::*;
        let lanes = match op {
            And | Andn | Or | Xor | PackUnsigned16 | UnpackLo(_) | UnpackHi(_) | LowToHigh | HighToLow => I8X16,
            Add(w) | Sub(w) | AddSatS(w) | AddSatU(w) | SubSatS(w) | SubSatU(w) => ints(w),
            Avg(w) | Min(w) | Max(w) | CmpEq(w) | CmpGt(w) | PackSigned(w) => ints(w),
            MulLo16 | MulHi16S | MulHi16U | MulAdd16 => I16X8,
            MulU32 => I32X4,
            SumAbsDiff8 => I8X16,
        };
        if matches!(op, Xor | Sub(_)) && a.all == b.all && a.apart() == b.apart() {
            return self.zeros(I8X16).into();
        }
        let lanes = if matches!(op, PackUnsigned16) { I16X8 } else { lanes };
        let (x, y) = (self.all(a, lanes), self.all(b, lanes));
        let r = match op {
            And => self.b.ins().band(x, y),
            Andn => {
                let n = self.b.ins().bnot(x);
                self.b.ins().band(y, n)
            }
            Or => self.b.ins().bor(x, y),
            Xor => self.b.ins().bxor(x, y),
            Add(_) => self.b.ins().iadd(x, y),
            Sub(_) => self.b.ins().isub(x, y),
            AddSatS(_) => self.b.ins().sadd_sat(x, y),
            AddSatU(_) => self.b.ins().uadd_sat(x, y),
            SubSatS(_) => self.b.ins().ssub_sat(x, y),
            SubSatU(_) => self.b.ins().usub_sat(x, y),
            MulLo16 => self.b.ins().imul(x, y),
            MulHi16S => self.high_words(true, x, y),
            MulHi16U => self.high_words(false, x, y),
            MulU32 => {
                let [x, y] = [x, y].map(|v| {
                    let v = self.pick(W::B4, v, v, |i| [0, 2, 0, 2][i as usize & 3]);
                    let v = self.cast(v, I32X4);
                    self.b.ins().uwiden_low(v)
                });
                self.b.ins().imul(x, y)
            }
            MulAdd16 => self.dot_words(x, y),
            Avg(_) => self.b.ins().avg_round(x, y),
            Min(W::B1) => self.b.ins().umin(x, y),
            Max(W::B1) => self.b.ins().umax(x, y),
            Min(_) => self.b.ins().smin(x, y),
            Max(_) => self.b.ins().smax(x, y),
            SumAbsDiff8 => {
                if !MXCSR || !shuffles_bytes() {
                    return self.called(a);
                }
                let (p, q) = (self.b.ins().usub_sat(x, y), self.b.ins().usub_sat(y, x));
                let d = self.b.ins().bor(p, q);
                // Bytes to words to doublewords to quadwords.
                let ones = self.lanes(I8X16, u128::MAX / 0xff);
                let d = self.b.ins().x86_pmaddubsw(ones, d);
                let ones = self.lanes(I16X8, u128::MAX / 0xffff);
                let d = self.dot_words(d, ones);
                let d = self.cast(d, I64X2);
                let k = self.k(I8, 32);
                let h = self.b.ins().ushr(d, k);
                let m = self.lanes(I64X2, every_second(W::B4, 0));
                let d = self.b.ins().band(d, m);
                self.b.ins().iadd(d, h)
            }
            CmpEq(_) => self.b.ins().icmp(IntCC::Equal, x, y),
            CmpGt(_) => self.b.ins().icmp(IntCC::SignedGreaterThan, x, y),
            UnpackLo(w) | UnpackHi(w) => {
                let n = (16 / w.bytes()) as u8;
                let first = if matches!(op, UnpackLo(_)) { 0 } else { n / 2 };
                self.pick(w, x, y, |i| first + i / 2 + i % 2 * n)
            }
            PackSigned(_) => self.b.ins().snarrow(x, y),
            PackUnsigned16 => self.b.ins().unarrow(x, y),
            LowToHigh => self.pick(W::B8, x, y, |i| i * 2),
            HighToLow => self.pick(W::B8, y, x, |i| 1 + i * 2),
        };
        r.into()
    }
    fn xfp(&mut self, op: FpBin, t: Fp, a: Xv, b: Xv) -> Xv {
        let (w, lanes) = (t.lane(), floats(t.lane()));
        if !MXCSR || matches!(op, FpBin::Rcp | FpBin::Rsqrt) {
            return self.called(a);
        }
        self.need_fp();
        match op {
            FpBin::Cmp(k) if t.scalar() => {
                let (x, y) = (self.low(a, w), self.low(b, w));
                // (The other lanes raise nothing.)
                let (x, y) = (self.alone(w, x), self.alone(w, y));
                let c = self.compare_lanes(k, x, y);
                let c = self.cast(c, lanes);
                let c = self.b.ins().extractlane(c, 0);
                self.raised_low(a, c)
            }
            FpBin::Cmp(k) => {
                let (x, y) = (self.all(a, lanes), self.all(b, lanes));
                let c = self.compare_lanes(k, x, y);
                self.raised(c)
            }
            FpBin::AddSub => {
                // Each lane by the operation of its own; zeros raise nothing.
                let (x, y) = (self.all(a, ints(w)), self.all(b, ints(w)));
                let odd = self.lanes(ints(w), every_second(w, 1));
                let even = self.lanes(ints(w), every_second(w, 0));
                let [sum, difference] = [(FpBin::Add, odd), (FpBin::Sub, even)].map(|(op, m)| {
                    let [x, y] = [x, y].map(|v| {
                        let v = self.b.ins().band(v, m);
                        self.cast(v, lanes)
                    });
                    let r = self.arithmetic(op, x, y);
                    let r = self.cast(r, ints(w));
                    self.b.ins().band(r, m)
                });
                let r = self.b.ins().bor(sum, difference);
                self.raised(r)
            }
            FpBin::Hadd | FpBin::Hsub => {
                let (x, y) = (self.all(a, I8X16), self.all(b, I8X16));
                let [even, odd] = [0, 1].map(|k| {
                    let v = self.pick(w, x, y, |i| 2 * i + k);
                    self.cast(v, lanes)
                });
                let r = self.arithmetic(if op == FpBin::Hadd { FpBin::Add } else { FpBin::Sub }, even, odd);
                self.raised(r)
            }
            FpBin::Resize => {
                let r = if w == W::B8 {
                    let y = self.low(b, W::B4);
                    self.b.ins().fpromote(F64, y)
                } else {
                    let y = self.low(b, W::B8);
                    self.b.ins().fdemote(F32, y)
                };
                self.raised_low(a, r)
            }
            FpBin::Sqrt if t.scalar() => {
                let y = self.low(b, w);
                let r = self.b.ins().sqrt(y);
                self.raised_low(a, r)
            }
            FpBin::Sqrt => {
                let y = self.all(b, lanes);
                let r = self.b.ins().sqrt(y);
                self.raised(r)
            }
            _ if t.scalar() => {
                let (x, y) = (self.low(a, w), self.low(b, w));
                let r = self.arithmetic(op, x, y);
                self.raised_low(a, r)
            }
            _ => {
                let (x, y) = (self.all(a, lanes), self.all(b, lanes));
                let r = self.arithmetic(op, x, y);
                self.raised(r)
            }
        }
    }
    fn xun(&mut self, op: XUn, x: Xv) -> Xv {
        if op.uses_mxcsr() {
            if !MXCSR {
                return self.called(x);
            }
            self.need_fp();
        }
        let r = match op {
            XUn::CvtDqPs => {
                let v = self.all(x, I32X4);
                self.b.ins().fcvt_from_sint(F32X4, v)
            }
            XUn::CvttPsDq => {
                let v = self.all(x, F32X4);
                self.b.ins().x86_cvtt2dq(I32X4, v)
            }
            XUn::CvtDqPd => {
                let v = self.all(x, I32X4);
                let v = self.b.ins().swiden_low(v);
                return self.b.ins().fcvt_from_sint(F64X2, v).into();
            }
            XUn::CvttPdDq => {
                let v = self.all(x, F64X2);
                self.truncated(v)
            }
            XUn::CvtPsPd => {
                let v = self.all(x, F32X4);
                self.b.ins().fvpromote_low(v)
            }
            XUn::CvtPdPs => {
                let v = self.all(x, F64X2);
                self.b.ins().fvdemote(v)
            }
            // (Rounding by MXCSR has no CLIF form.)
            #[cfg(target_arch = "x86_64")]
            XUn::CvtPsDq => {
                let v = self.all(x, F32X4);
                return self.routine(routine::cvtps2dq, v, I32X4).into();
            }
            #[cfg(target_arch = "x86_64")]
            XUn::CvtPdDq => {
                let v = self.all(x, F64X2);
                return self.routine(routine::cvtpd2dq, v, I32X4).into();
            }
            #[cfg(not(target_arch = "x86_64"))]
            XUn::CvtPsDq | XUn::CvtPdDq => return self.called(x),
            XUn::Dup64 | XUn::DupEven32 | XUn::DupOdd32 => {
                let v = self.all(x, I8X16);
                return match op {
                    XUn::Dup64 => self.pick(W::B8, v, v, |_| 0),
                    XUn::DupEven32 => self.pick(W::B4, v, v, |i| i & 2),
                    _ => self.pick(W::B4, v, v, |i| i | 1),
                }
                .into();
            }
        };
        self.raised(r)
    }
    fn xshift(&mut self, op: XShift, x: Xv, count: Term) -> Xv {
        let (w, bytes) = match op {
            XShift::Shl(w) | XShift::Shr(w) | XShift::Sar(w) => (w, false),
            XShift::ShlBytes | XShift::ShrBytes => (W::B1, true),
        };
        let v = self.all(x, ints(w));
        if bytes {
            let Some(n) = count.root.is_none().then_some(count.off.min(16) as u8) else { return self.called(x) };
            if !shuffles_bytes() {
                return self.called(x);
            }
            if n == 16 {
                return self.nothing_of();
            }
            let zero = self.zeros(I8X16);
            return match (n, op) {
                (0, _) => v,
                (_, XShift::ShlBytes) => self.bytes(zero, v, std::array::from_fn(|i| 16 - n + i as u8)),
                _ => self.bytes(v, zero, std::array::from_fn(|i| n + i as u8)),
            }
            .into();
        }
        let most = w.bits() as u64 - 1;
        let arithmetic = matches!(op, XShift::Sar(_));
        if count.root.is_none() {
            if count.off > most && !arithmetic {
                return self.nothing_of();
            }
            let n = self.k(I8, count.off.min(most));
            return self.shifted(op, v, n).into();
        }
        let n = self.val(W::B8, count);
        let small = self.below(n, most + 1);
        if arithmetic {
            let k = self.k(I64, most);
            let n = self.b.ins().select(small, n, k);
            return self.shifted(op, v, n).into();
        }
        let r = self.shifted(op, v, n);
        let zero = self.zeros(ints(w));
        self.b.ins().select(small, r, zero).into()
    }
    fn xshuffle(&mut self, op: XShuffle, a: Xv, b: Xv, imm: Term) -> Xv {
        if imm.root.is_some() || op == XShuffle::Pd && imm.off & 3 == 1 && !shuffles_bytes() {
            return self.called(a);
        }
        let imm = imm.off as u8;
        let sel = |i: u8| imm >> (2 * (i & 3)) & 3;
        let y = self.all(b, I8X16);
        match op {
            XShuffle::D => self.pick(W::B4, y, y, sel),
            XShuffle::Lw => self.pick(W::B2, y, y, |i| if i < 4 { sel(i) } else { i }),
            XShuffle::Hw => self.pick(W::B2, y, y, |i| if i < 4 { i } else { 4 + sel(i) }),
            XShuffle::Ps => {
                let x = self.all(a, I8X16);
                self.pick(W::B4, x, y, |i| if i < 2 { sel(i) } else { 4 + sel(i) })
            }
            XShuffle::Pd => {
                let x = self.all(a, I8X16);
                self.pick(W::B8, x, y, |i| if i == 0 { imm & 1 } else { 2 + (imm >> 1 & 1) })
            }
        }
        .into()
    }
    fn xmask(&mut self, w: W, x: Xv) -> Term {
        let v = self.whole(x);
        let v = self.cast(v, ints(w));
        self.b.ins().vhigh_bits(I32, v).into()
    }
    fn xlow(&mut self, w: W, x: Xv) -> Term {
        match w {
            W::B4 | W::B8 => self.low_int(w, x).into(),
            _ => self.called_term(),
        }
    }
    fn xhigh(&mut self, x: Xv) -> Term {
        let v = self.cast(x.all, I64X2);
        self.b.ins().extractlane(v, 1).into()
    }
    fn xzext(&mut self, w: W, v: Term) -> Xv {
        if let Some(f) = self.float_of(w, v) {
            return self.alone(w, f).into();
        }
        let v = self.val(w, v);
        match w {
            W::B4 => self.b.ins().scalar_to_vector(I32X4, v).into(),
            W::B8 => self.b.ins().scalar_to_vector(I64X2, v).into(),
            _ => {
                let zero = self.zeros(I8X16);
                self.called(zero.into())
            }
        }
    }
    fn xset_low(&mut self, w: W, x: Xv, v: Term) -> Xv {
        if let Some(f) = self.float_of(w, v) {
            return self.with_low(x, f);
        }
        if !matches!(w, W::B4 | W::B8) {
            return self.called(x);
        }
        let a = self.all(x, ints(w));
        let v = self.val(w, v);
        self.b.ins().insertlane(a, v, 0).into()
    }
    fn xword(&mut self, x: Xv, imm: Term) -> Term {
        if imm.root.is_some() {
            return self.called_term();
        }
        let v = self.whole(x);
        let v = self.cast(v, I16X8);
        let v = self.b.ins().extractlane(v, imm.off as u8 & 7);
        self.resize(W::B4, v).into()
    }
    fn xset_word(&mut self, x: Xv, v: Term, imm: Term) -> Xv {
        if imm.root.is_some() {
            return self.called(x);
        }
        let a = self.all(x, I16X8);
        let v = self.val(W::B2, v);
        self.b.ins().insertlane(a, v, imm.off as u8 & 7).into()
    }
    fn xcompare(&mut self, w: W, quiet: bool, a: Xv, b: Xv) -> [Value; 3] {
        if !MXCSR {
            self.give_up = true;
            return [self.k(I8, 0); 3];
        }
        self.need_fp();
        let (x, y) = (self.low(a, w), self.low(b, w));
        let unordered = self.b.ins().fcmp(FloatCC::Unordered, x, y);
        if quiet {
            self.s.compare = Some(unordered);
        } else {
            // Any NaN is invalid here. The lanes' comparison says so, which the scalar one does not.
            let (raise, go_on) = (self.b.create_block(), self.b.create_block());
            self.b.set_cold_block(raise);
            self.b.ins().brif(unordered, raise, &[], go_on, &[]);
            self.b.switch_to_block(raise);
            self.b.seal_block(raise);
            let (p, q) = (self.alone(w, x), self.alone(w, y));
            let c = self.b.ins().fcmp(FloatCC::LessThan, p, q);
            self.keep(c);
            self.b.ins().jump(go_on, &[]);
            self.b.switch_to_block(go_on);
            self.b.seal_block(go_on);
        }
        let less = self.b.ins().fcmp(FloatCC::UnorderedOrLessThan, x, y);
        let equal = self.b.ins().fcmp(FloatCC::UnorderedOrEqual, x, y);
        [less, equal, unordered]
    }
    fn xto_int(&mut self, from: W, to: W, truncate: bool, x: Xv) -> Term {
        if !MXCSR {
            return self.called_term();
        }
        self.need_fp();
        let v = self.low(x, from);
        #[cfg(target_arch = "x86_64")]
        if !truncate {
            let f = match (from, to) {
                (W::B4, W::B8) => routine::cvtss2si64,
                (W::B4, _) => routine::cvtss2si32,
                (_, W::B8) => routine::cvtsd2si64,
                _ => routine::cvtsd2si32,
            };
            return self.routine(f, v, ty(to)).into();
        }
        let r = if to == W::B8 {
            // In range the saturating conversion is the instruction; the rest is tier 0's. (Twice the bits: without sign.)
            let i = self.low_int(from, v_alone(v));
            let one = self.k(I8, 1);
            let i = self.b.ins().ishl(i, one);
            let bound = if from == W::B4 { 0x5f00_0000 << 1 } else { 0x43e0_0000_0000_0000 << 1 };
            let small = self.below(i, bound);
            let large = self.not(small);
            self.leave_if(large);
            self.b.ins().fcvt_to_sint_sat(I64, v)
        } else {
            let v = self.alone(from, v);
            let v = if from == W::B4 { self.b.ins().x86_cvtt2dq(I32X4, v) } else { self.truncated(v) };
            self.b.ins().extractlane(v, 0)
        };
        self.keep(r);
        r.into()
    }
    fn xfrom_int(&mut self, from: W, to: W, a: Xv, v: Term) -> Xv {
        let v = self.val(from, v);
        let t = if to == W::B4 { F32 } else { F64 };
        if (from, to) == (W::B4, W::B8) {
            // Always exact.
            let r = self.b.ins().fcvt_from_sint(t, v);
            return self.with_low(a, r);
        }
        if !MXCSR {
            return self.called(a);
        }
        self.need_fp();
        let r = self.b.ins().fcvt_from_sint(t, v);
        self.raised_low(a, r)
    }
}
/// A low lane without a vector.
fn v_alone(v: Value) -> Xv {
    Xv { all: v, low: Some(v), merged: true }
}
impl<T: Target> Clif<'_, '_, T> {
    /// CVTTPD2DQ: two doubles to doublewords, the upper half zero.
    fn truncated(&mut self, v: Value) -> Value {
        let wide = self.b.ins().x86_cvtt2dq(I64X2, v);
        let zero = self.zeros(I64X2);
        self.b.ins().snarrow(wide, zero)
    }
    /// Zeros: computed from nothing after all.
    fn nothing_of(&mut self) -> Xv {
        self.consumed.clear();
        self.zeros(I8X16).into()
    }
    fn shifted(&mut self, op: XShift, v: Value, n: Value) -> Value {
        let i = self.b.ins();
        match op {
            XShift::Shl(_) => i.ishl(v, n),
            XShift::Shr(_) => i.ushr(v, n),
            _ => i.sshr(v, n),
        }
    }
}
