//! The register stack and what instructions do to it. Source: Intel SDM vol. 1 §8.1–8.5; vol. 2.
//!
//! Methods that need a stack register find out about stack faults themselves. Unmasked exceptions leave operands and TOP
//! alone (overflow and underflow of a register result excepted) and set ES; the instruction that waits next reports them.

use super::soft::{self, INDEFINITE, Out};
use super::{F80, Fpu, arith, convert, prem, sw, transcendental as tr};
use accel::tcg::softfp::{F32, F64, Format, Val, flag::*};

/// The two-operand operations, in the order of the opcodes' reg field without the comparisons.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Arith {
    /// FADD.
    Add,
    /// FMUL.
    Mul,
    /// FSUB: destination minus source.
    Sub,
    /// FSUBR: source minus destination.
    SubR,
    /// FDIV: destination by source.
    Div,
    /// FDIVR: source by destination.
    DivR,
}

/// The operations on the stack's top that have no memory operand.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the manual's mnemonics")]
pub enum Unary {
    Fchs,
    Fabs,
    Ftst,
    Fxam,
    F2xm1,
    Fyl2x,
    Fptan,
    Fpatan,
    Fxtract,
    Fprem1,
    Fprem,
    Fyl2xp1,
    Fsqrt,
    Fsincos,
    Frndint,
    Fscale,
    Fsin,
    Fcos,
}

/// Memory formats of numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MemFormat {
    /// Single.
    F32,
    /// Double.
    F64,
    /// Double extended.
    F80,
    /// 16-bit integer.
    I16,
    /// 32-bit integer.
    I32,
    /// 64-bit integer.
    I64,
    /// Packed BCD.
    Bcd,
}
impl MemFormat {
    /// Size in bytes.
    pub const fn bytes(self) -> u32 {
        match self {
            MemFormat::I16 => 2,
            MemFormat::F32 | MemFormat::I32 => 4,
            MemFormat::F64 | MemFormat::I64 => 8,
            MemFormat::F80 | MemFormat::Bcd => 10,
        }
    }
}

/// The bits of a control word that exist; bit 6 is fixed.
pub(super) fn control(v: u16) -> u16 {
    v & 0x1f3f | 0x40
}

/// What a store wants to write and what it does to the unit when it has been written.
#[derive(Clone, Copy, Debug)]
pub struct Store {
    /// The bits; nothing is written if an unmasked exception forbids it.
    pub bits: Option<u128>,
    flags: u32,
    up: bool,
    stack_fault: bool,
}

impl Fpu {
    /// TOP.
    #[inline]
    pub fn top(&self) -> usize {
        (self.fsw >> sw::TOP) as usize & 7
    }
    #[inline]
    fn set_top(&mut self, top: usize) {
        self.fsw = self.fsw & !(7 << sw::TOP) | (top as u16 & 7) << sw::TOP;
    }
    #[inline]
    fn at(&self, i: u8) -> usize {
        (self.top() + i as usize) & 7
    }
    /// ST(i), if it is not empty.
    #[inline]
    pub fn st(&self, i: u8) -> Option<F80> {
        let n = self.at(i);
        (self.ftw >> n & 1 != 0).then_some(self.regs[n])
    }
    #[inline]
    fn set_st(&mut self, i: u8, v: F80) {
        let n = self.at(i);
        self.regs[n] = v;
        self.ftw |= 1 << n;
    }
    /// Frees ST(0) and moves TOP.
    #[inline]
    pub fn pop(&mut self) {
        self.ftw &= !(1 << self.top());
        self.set_top(self.top() + 1);
    }
    /// FFREE ST(i).
    pub fn free(&mut self, i: u8) {
        self.ftw &= !(1 << self.at(i));
    }
    /// FINCSTP and FDECSTP.
    pub fn rotate(&mut self, up: bool) {
        self.fsw &= !sw::C1;
        self.set_top(self.top() + if up { 1 } else { 7 });
    }
    /// The pop of FFREEP and FSTPNCE.
    pub fn rotate_pop(&mut self) {
        self.fsw &= !sw::C1;
        self.pop();
    }
    #[inline]
    fn push_raw(&mut self, v: F80) {
        self.set_top(self.top() + 7);
        self.set_st(0, v);
    }

    /// Recomputes ES and B from flags and masks.
    pub fn summarize(&mut self) {
        let pending = self.fsw & !self.fcw & 0x3f != 0;
        self.fsw = self.fsw & !(sw::ES | sw::B) | if pending { sw::ES | sw::B } else { 0 };
    }
    /// An unmasked exception waits to be reported.
    #[inline]
    pub fn pending(&self) -> bool {
        self.fsw & sw::ES != 0
    }
    /// Notes exceptions and C1; true if the result must not be stored. An unmasked exception that is found before the
    /// operation hides those of its result.
    #[inline]
    fn raise(&mut self, flags: u32, up: bool) -> bool {
        let open = flags & !(self.fcw as u32);
        let before = open & (IE | DE | ZE) != 0;
        let (flags, up) = if before { (flags & (IE | DE | ZE), up && flags & PE == 0) } else { (flags, up) };
        self.fsw = self.fsw & !sw::C1 | flags as u16 | if up { sw::C1 } else { 0 };
        if open != 0 {
            self.fsw |= sw::ES | sw::B;
        }
        before
    }
    /// Stack fault; true if the masked response (the default NaN) must not be delivered.
    #[cold]
    fn stack_fault(&mut self, overflow: bool) -> bool {
        self.fsw |= sw::SF;
        self.raise(IE, overflow)
    }

    /// Loads the control word.
    pub fn set_fcw(&mut self, v: u16) {
        self.fcw = control(v);
        self.summarize();
    }
    /// FNCLEX.
    pub fn clear_exceptions(&mut self) {
        self.fsw &= !(0x3f | sw::SF | sw::ES | sw::B);
    }
    /// FNINIT: registers keep their contents.
    pub fn init(&mut self) {
        *self = Fpu { regs: self.regs, ..Fpu::default() };
    }

    /// Pushes a value with the exceptions of its conversion.
    #[inline]
    pub fn push(&mut self, o: Out) {
        if self.st(7).is_some() {
            if !self.stack_fault(true) {
                self.push_raw(INDEFINITE);
            }
        } else {
            // (An unmasked denormal operand is loaded all the same.)
            self.raise(o.flags, false);
            if o.flags & !(self.fcw as u32) & IE == 0 {
                self.push_raw(o.val);
            }
        }
    }
    /// FLD ST(i).
    pub fn push_st(&mut self, i: u8) {
        match self.st(i) {
            Some(v) => self.push(Out::exact(v)),
            None => {
                if !self.stack_fault(false) {
                    self.push_raw(INDEFINITE);
                }
            }
        }
    }
    /// FLD1 … FLDZ.
    pub fn push_constant(&mut self, n: u8) {
        self.push(Out::exact(convert::constant(self.fcw, n)));
    }

    /// Stores a result in ST(i) unless an unmasked exception forbids it; true if it is there.
    #[inline]
    fn result(&mut self, i: u8, o: Out) -> bool {
        if self.raise(o.flags, o.up) {
            return false;
        }
        self.set_st(i, o.val);
        true
    }
    /// The masked response to an empty operand of an operation with its result in ST(i); true if it is there.
    #[cold]
    fn underflow(&mut self, i: u8) -> bool {
        if self.stack_fault(false) {
            return false;
        }
        self.set_st(i, INDEFINITE);
        true
    }

    /// `ST(dst) = ST(dst) op b`. `b` is a converted memory operand or a register, `None` if that is empty; its conversion's
    /// exceptions count. True if a result was stored (then the instruction may pop).
    #[inline]
    pub fn arith(&mut self, op: Arith, dst: u8, b: Option<Out>) -> bool {
        let (Some(a), Some(b)) = (self.st(dst), b) else { return self.underflow(dst) };
        let o = match op {
            Arith::Add => arith::add(self.fcw, self.fsw, &a, &b.val),
            Arith::Mul => arith::mul(self.fcw, self.fsw, &a, &b.val),
            Arith::Sub => arith::sub(self.fcw, self.fsw, &a, &b.val),
            Arith::SubR => arith::sub(self.fcw, self.fsw, &b.val, &a),
            Arith::Div => arith::div(self.fcw, self.fsw, &a, &b.val),
            Arith::DivR => arith::div(self.fcw, self.fsw, &b.val, &a),
        };
        // A NaN, an invalid operation or a zero divisor hides the memory operand's denormal.
        let special = o.flags & ZE != 0 || (o.val.se & 0x7fff == 0x7fff && o.val.sig << 1 != 0);
        let pre = if special { 0 } else { b.flags };
        self.result(dst, Out { flags: o.flags | pre, ..o })
    }

    /// Comparison of ST(0) with `b`: C3 C2 C0 as bits 2..0, and whether the instruction may pop (no unmasked exception).
    pub fn compare(&mut self, b: Option<Out>, quiet: bool) -> (u8, bool) {
        let (Some(a), Some(b)) = (self.st(0), b) else {
            return (0b111, !self.stack_fault(false));
        };
        let (c, flags) = soft::compare(&a, &b.val, quiet);
        let pre = if c == 0b111 { 0 } else { b.flags };
        (c, !self.raise(flags | pre, false))
    }
    /// The same for FCOMI: C1 stays what it is unless a register is empty.
    pub fn compare_flags(&mut self, b: Option<Out>, quiet: bool) -> (u8, bool) {
        let c1 = if self.st(0).is_some() && b.is_some() { self.fsw & sw::C1 } else { 0 };
        let r = self.compare(b, quiet);
        self.fsw |= c1;
        r
    }
    /// Puts C3 C2 C0 (bits 2..0) in the status word.
    pub fn set_codes(&mut self, c: u8) {
        let c = c as u16;
        self.fsw = self.fsw & !(sw::C0 | sw::C2 | sw::C3) | (c & 1) << 8 | (c >> 1 & 1) << 10 | (c >> 2 & 1) << 14;
    }

    /// FXCH ST(i).
    pub fn exchange(&mut self, i: u8) {
        let (a, b) = (self.st(0), self.st(i));
        if a.is_none() || b.is_none() {
            if self.stack_fault(false) {
                return;
            }
        } else {
            self.fsw &= !sw::C1;
        }
        self.set_st(0, b.unwrap_or(INDEFINITE));
        self.set_st(i, a.unwrap_or(INDEFINITE));
    }
    /// FCMOVcc ST(0), ST(i).
    pub fn cmov(&mut self, i: u8, holds: bool) {
        match (self.st(0), self.st(i)) {
            (Some(_), Some(b)) => {
                if holds {
                    self.set_st(0, b);
                }
            }
            _ => {
                self.underflow(0);
            }
        }
    }
    /// FST ST(i), FSTP ST(i).
    pub fn store_st(&mut self, i: u8, pop: bool) {
        let done = match self.st(0) {
            Some(v) => {
                self.fsw &= !sw::C1;
                self.set_st(i, v);
                true
            }
            None => self.underflow(i),
        };
        if done && pop {
            self.pop();
        }
    }

    /// FLD, FILD, FBLD: what is pushed. A signaling single or double becomes quiet.
    #[inline]
    pub fn loaded(f: MemFormat, bits: u128) -> Out {
        let o = Fpu::operand(f, bits);
        if matches!(f, MemFormat::F32 | MemFormat::F64) && soft::class(&o.val) == soft::Class::Signaling {
            return Out::flagged(F80 { sig: o.val.sig | 1 << 62, ..o.val }, IE);
        }
        o
    }
    /// FSTPNCE ST(i): FSTP without an exception; an empty ST(0) leaves ST(i) alone.
    pub fn move_pop(&mut self, i: u8) {
        if let Some(v) = self.st(0) {
            self.set_st(i, v);
        }
        self.rotate_pop();
    }
    /// A memory operand as a register with the exceptions of its conversion.
    #[inline]
    pub fn operand(f: MemFormat, bits: u128) -> Out {
        match f {
            MemFormat::F32 => convert::load(F32, bits as u32 as u64),
            MemFormat::F64 => convert::load(F64, bits as u64),
            MemFormat::F80 => Out::exact(F80 { sig: bits as u64, se: (bits >> 64) as u16 }),
            MemFormat::I16 => Out::exact(convert::load_int(bits as i16 as i64)),
            MemFormat::I32 => Out::exact(convert::load_int(bits as i32 as i64)),
            MemFormat::I64 => Out::exact(convert::load_int(bits as i64)),
            MemFormat::Bcd => Out::exact(convert::load_bcd(bits)),
        }
    }
    /// What storing ST(0) would write; nothing changes before [`Fpu::stored`].
    #[inline]
    pub fn store(&self, f: MemFormat, truncate: bool) -> Store {
        let v = self.st(0);
        let x = v.unwrap_or(INDEFINITE);
        let float = |fmt: Format| {
            let (b, flags, up) = convert::store(self.fcw, fmt, &x);
            (b as u128, flags, up)
        };
        let int = |bits: u32| {
            let (i, flags, up) = convert::store_int(self.fcw, bits, truncate, &x);
            (i as u128, flags, up)
        };
        let (bits, flags, up) = match f {
            MemFormat::F32 => float(F32),
            MemFormat::F64 => float(F64),
            MemFormat::F80 => ((x.se as u128) << 64 | x.sig as u128, 0, false),
            MemFormat::I16 => int(16),
            MemFormat::I32 => int(32),
            MemFormat::I64 => int(64),
            MemFormat::Bcd => convert::store_bcd(self.fcw, &x),
        };
        let (flags, up) = if v.is_none() { (IE, false) } else { (flags, up) };
        let open = flags & !(self.fcw as u32) & (IE | OE | UE);
        Store { bits: (open == 0).then_some(bits), flags, up, stack_fault: v.is_none() }
    }
    /// The store has been done (or was forbidden).
    #[inline]
    pub fn stored(&mut self, s: Store, pop: bool) {
        if s.stack_fault {
            self.fsw |= sw::SF;
        }
        // Rounding is not reported for what is not stored.
        let flags = if s.bits.is_none() && s.flags & (OE | UE) != 0 { s.flags & !PE } else { s.flags };
        self.raise(flags, s.up && s.bits.is_some());
        if s.bits.is_some() && pop {
            self.pop();
        }
    }

    /// FXAM: class of ST(0) in C3 C2 C0, sign in C1 (SDM vol. 2 table 3-41).
    fn examine(&mut self) {
        let v = self.regs[self.top()];
        let c = match self.st(0) {
            None => 0b101,
            Some(x) => match soft::class(&x) {
                soft::Class::Unsupported => 0b000,
                soft::Class::Quiet | soft::Class::Signaling => 0b001,
                soft::Class::Val(Val::Inf(_), _) => 0b011,
                soft::Class::Val(Val::Zero(_), _) => 0b100,
                soft::Class::Val(Val::Num(_), 0) => 0b010,
                soft::Class::Val(Val::Num(_), _) => 0b110,
            },
        };
        self.set_codes(c);
        self.fsw = self.fsw & !sw::C1 | (v.se >> 15) << 9;
    }

    /// The operations on ST(0) (and ST(1)).
    pub fn unary(&mut self, op: Unary) {
        use Unary::*;
        if op == Fxam {
            return self.examine();
        }
        if matches!(op, Fsin | Fcos | Fsincos | Fptan | Fprem | Fprem1) {
            self.fsw &= !sw::C2;
        }
        let Some(a) = self.st(0) else { return self.empty_operand(op) };
        let fcw = self.fcw;
        match op {
            Fchs => {
                self.fsw &= !sw::C1;
                self.set_st(0, F80 { se: a.se ^ 0x8000, ..a });
            }
            Fabs => {
                self.fsw &= !sw::C1;
                self.set_st(0, F80 { se: a.se & 0x7fff, ..a });
            }
            Ftst => {
                let (c, _) = self.compare(Some(Out::exact(F80::default())), false);
                self.set_codes(c);
            }
            Fsqrt => {
                self.result(0, arith::sqrt(fcw, self.fsw, &a));
            }
            Frndint => {
                self.result(0, soft::rndint(fcw, &a));
            }
            F2xm1 => {
                self.result(0, tr::exp2m1(fcw, &a));
            }
            Fsin => self.trig(tr::sin(fcw, &a)),
            Fcos => self.trig(tr::cos(fcw, &a)),
            Fptan => self.trig_push(tr::tan(fcw, &a), |o| (o, if o.val.se & 0x7fff == 0x7fff { o } else { ONE })),
            Fsincos => self.trig_push(tr::sincos(fcw, &a), |o| o),
            Fxtract => {
                let (exp, sig) = prem::extract(&a);
                self.replace_push(Out { val: exp, ..sig }, sig);
            }
            Fprem | Fprem1 | Fscale | Fyl2x | Fyl2xp1 | Fpatan => {
                let Some(b) = self.st(1) else { return self.empty_operand(op) };
                match op {
                    Fprem | Fprem1 => {
                        let (o, c) = prem::remainder(fcw, op == Fprem1, &a, &b);
                        let special = o.val.se & 0x7fff == 0x7fff;
                        if self.result(0, o) {
                            // NaNs and invalid operations leave C0 and C3 alone.
                            let old = (self.fsw >> 8 & 1) as u8 | (self.fsw >> 11 & 8) as u8;
                            let c = if special { old } else { c };
                            self.set_codes(c & 1 | c >> 1 & 0b110);
                            self.fsw = self.fsw & !sw::C1 | (c as u16 >> 1 & 1) << 9;
                        }
                    }
                    Fscale => {
                        self.result(0, soft::scale(fcw, &a, &b));
                    }
                    _ => {
                        let o = match op {
                            Fyl2x => tr::yl2x(fcw, &b, &a),
                            Fyl2xp1 => tr::yl2xp1(fcw, &b, &a),
                            _ => tr::patan(fcw, &b, &a),
                        };
                        if self.result(1, o) {
                            self.pop();
                        }
                    }
                }
            }
            Fxam => {}
        }
    }
    /// Stack underflow of [`Fpu::unary`].
    #[cold]
    fn empty_operand(&mut self, op: Unary) {
        use Unary::*;
        match op {
            Ftst => {
                let (c, _) = self.compare(None, false);
                self.set_codes(c);
            }
            Fyl2x | Fyl2xp1 | Fpatan => {
                if self.underflow(1) {
                    self.pop();
                }
            }
            Fptan | Fsincos | Fxtract => {
                if self.underflow(0) {
                    self.push_raw(INDEFINITE);
                }
            }
            _ => {
                self.underflow(0);
            }
        }
    }
    fn trig(&mut self, t: tr::Trig<Out>) {
        match t {
            tr::Trig::OutOfRange => self.fsw = self.fsw & !sw::C1 | sw::C2,
            tr::Trig::Done(o) => {
                self.result(0, o);
            }
        }
    }
    fn trig_push<T>(&mut self, t: tr::Trig<T>, split: impl FnOnce(T) -> (Out, Out)) {
        match t {
            // A full stack comes before the range.
            _ if self.st(7).is_some() => self.replace_push(Out::INVALID, Out::INVALID),
            tr::Trig::OutOfRange => self.fsw = self.fsw & !sw::C1 | sw::C2,
            tr::Trig::Done(t) => {
                let (a, b) = split(t);
                self.replace_push(a, b);
            }
        }
    }
    /// ST(0) becomes `a`, then `b` is pushed; both or neither.
    fn replace_push(&mut self, a: Out, b: Out) {
        if self.st(7).is_some() {
            if !self.stack_fault(true) {
                self.set_st(0, INDEFINITE);
                self.push_raw(INDEFINITE);
            }
            return;
        }
        if !self.raise(a.flags | b.flags, a.up) {
            self.set_st(0, a.val);
            self.push_raw(b.val);
        }
    }

    /// MMX register `n` (an x87 register by number, not by stack position).
    #[inline]
    pub fn mmx(&self, n: usize) -> u64 {
        self.regs[n & 7].sig
    }
    /// Replaces an MMX register: its exponent becomes all ones.
    #[inline]
    pub fn set_mmx(&mut self, n: usize, v: u64) {
        self.regs[n & 7] = F80 { sig: v, se: 0xffff };
    }
    /// What every MMX instruction but EMMS does first: TOP 0, all registers in use.
    #[inline]
    pub fn enter_mmx(&mut self) {
        self.fsw &= !(7 << sw::TOP);
        self.ftw = 0xff;
    }
}
/// FLD1's value.
const ONE: Out = Out::exact(F80 { sig: soft::INTEGER, se: 0x3fff });
