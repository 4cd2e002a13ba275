//! The meaning of a piece of code as a list of small steps, recorded instruction by instruction.

use super::xasm::{knows, knows_shift};
use crate::tcg::{
    env::Op,
    ops::*,
    plain::Plain,
    target::{AnyFamily, Target},
    term::fold,
    vector::{Fp, FpBin, Vector, XBin, XShift, XShuffle, XUn},
};

/// A value: the number of the step that makes it.
pub(super) type Val = u16;

type Term = crate::tcg::term::Term<Val>;
/// A condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cond {
    /// Known.
    Known(bool),
    /// That of a step, or its opposite.
    Of(Val, bool),
}
/// An operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arg {
    V(Val),
    K(u64),
}
/// A step. Values are zero above their width.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    // Values.
    Const(u64),
    Get(W, u8),
    Bin(Bin, W, Arg, Arg),
    Un(Un, W, Val),
    Sext(W, W, Val),
    Trunc(W, Val),
    /// The low `W` of the first replaced by the second.
    Merge(W, Val, Val),
    Select(W, Cond, Arg, Arg),
    Bit(Cond),
    /// The upper half of the unsigned product of 64 bits.
    MulHigh(Val, Val),
    /// The root of a group as a host address, checked.
    Check(u16),
    Load(W, Val, i32),
    /// A value of the flags in the env.
    GetFlag(u8),
    /// The sign bits of a vector's lanes.
    XMask(W, Val),
    XLow(W, Val),
    XHigh(Val),
    // Vectors.
    XGet(u8),
    XLoad(Val, i32),
    XBin(XBin, Val, Val),
    XShift(XShift, Val, u8),
    XShuffle(XShuffle, Val, Val, u8),
    /// A value of 32 or 64 bits and zeros.
    XZext(W, Val),
    /// The first with its low lane replaced.
    XMerge(W, Val, Val),
    // Conditions.
    Cmp(Cmp, W, Arg, Arg),
    Both(Bin, Cond, Cond),
    Parity(Val),
    // Effects.
    Store(W, Val, i32, Arg),
    Set(u8, Arg),
    XStore(Val, i32, Val),
    XSet(u8, Val),
    Flags(u16),
    FlagsIf(Cond, u16),
    /// To the instruction's own handler.
    LeaveIf(Cond),
    /// Likewise unless the flags in the env have this producer and width.
    Producer(u8, W),
}
/// A range around a root that is checked as one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    pub root: Val,
    pub min: i64,
    pub max: i64,
    pub write: bool,
    check: Val,
}
/// Widest range of a group in bytes.
const GROUP: i64 = 256;

/// How a piece ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ending {
    /// With op `n`, by its own handler.
    Own(usize),
    /// With op `n`, by the handler it has.
    Next(usize),
    /// At the target of op `n`.
    Goto(usize),
    /// There or at the op behind `n`.
    If(Cond, usize),
    /// At an address.
    To(Arg),
}

/// What a step that may leave has to know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exit {
    /// The step.
    pub at: Val,
    /// The op it is of.
    pub op: u8,
    /// Flags that are not stored, in [`Piece::flags`].
    pub flags: Option<u16>,
}

/// A recorded piece.
#[derive(Default)]
pub(super) struct Piece {
    pub steps: Vec<Step>,
    widths: Vec<W>,
    pub groups: Vec<Group>,
    /// As they were before the instruction.
    before: Vec<Group>,
    pub flags: Vec<Deferred<Arg>>,
    pub exits: Vec<Exit>,
}
/// The state of the flags.
#[derive(Clone, Copy)]
enum Flags {
    /// In the env.
    Stored,
    /// Known, and not in the env if they have a number.
    Known(Deferred<Term>, Option<u16>),
}
/// The frame an instruction is recorded in.
pub(super) struct Recorder<'a, T: Target> {
    pub piece: &'a mut Piece,
    op: Op<T>,
    number: u8,
    wanted: bool,
    /// The instruction has something in it that is not for here.
    given_up: bool,
    /// The registers, by width.
    cur: [[Option<Term>; 4]; SLOTS],
    sums: Vec<(Val, u64, Val)>,
    flags: Flags,
    /// Likely producer of the flags in the env.
    guess: Option<(u8, W)>,
}
/// The instruction is not for here: its own handler runs it.
#[derive(Debug)]
pub(super) struct NotHere;

impl<'a, T: Target> Recorder<'a, T> {
    /// A recorder of a new piece; `op` is any, `guess` the likely producer of the flags before it.
    pub fn new(piece: &'a mut Piece, op: Op<T>, guess: Option<(u8, W)>) -> Self {
        piece.steps.clear();
        piece.widths.clear();
        piece.groups.clear();
        piece.flags.clear();
        piece.exits.clear();
        Recorder {
            piece,
            op,
            number: 0,
            wanted: false,
            given_up: false,
            cur: [[None; 4]; SLOTS],
            sums: Vec::new(),
            flags: Flags::Stored,
            guess,
        }
    }
    /// Records op `number`. If it is not for here the piece ends before it.
    pub fn record(&mut self, op: Op<T>, form: T::Form, number: usize, live: bool) -> Result<Flow<Term, Cond>, NotHere> {
        if T::is_rare(form) {
            return Err(NotHere);
        }
        let p = &mut *self.piece;
        let (steps, flags, exits, state) = (p.steps.len(), p.flags.len(), p.exits.len(), self.flags);
        p.before.clone_from(&p.groups);
        (self.op, self.number, self.wanted, self.given_up) = (op, number as u8, live, false);
        match T::run::<_, AnyFamily>(self, form) {
            Ok(flow) if !self.given_up && !matches!(flow, Flow::Rare) => Ok(flow),
            _ => {
                let p = &mut *self.piece;
                p.steps.truncate(steps);
                p.widths.truncate(steps);
                p.flags.truncate(flags);
                p.exits.truncate(exits);
                std::mem::swap(&mut p.groups, &mut p.before);
                self.flags = state;
                Err(NotHere)
            }
        }
    }
    /// The flags are in the env.
    pub fn settle(&mut self) {
        if let Flags::Known(d, Some(n)) = self.flags {
            self.effect(Step::Flags(n));
            self.flags = Flags::Known(d, None)
        }
    }
    fn push(&mut self, w: W, s: Step) -> Val {
        let n = self.piece.steps.len() as Val;
        self.piece.steps.push(s);
        self.piece.widths.push(w);
        n
    }
    fn value(&mut self, w: W, s: Step) -> Term {
        Term { root: Some(self.push(w, s)), off: 0 }
    }
    fn effect(&mut self, s: Step) {
        self.push(W::B8, s);
    }
    fn exit(&mut self, s: Step) -> Val {
        let at = self.push(W::B8, s);
        let flags = if let Flags::Known(_, n) = self.flags { n } else { None };
        self.piece.exits.push(Exit { at, op: self.number, flags });
        at
    }
    /// A term as an operand.
    pub fn arg(&mut self, t: Term) -> Arg {
        match t.root {
            None => Arg::K(t.off),
            Some(v) if t.off == 0 => Arg::V(v),
            Some(v) => Arg::V(match self.sums.iter().rev().find(|s| (s.0, s.1) == (v, t.off)) {
                Some(s) => s.2,
                None => {
                    let sum = self.push(W::B8, Step::Bin(Bin::Add, W::B8, Arg::V(v), Arg::K(t.off)));
                    self.sums.push((v, t.off, sum));
                    sum
                }
            }),
        }
    }
    /// A term as a value.
    fn val(&mut self, t: Term) -> Val {
        match self.arg(t) {
            Arg::V(v) => v,
            Arg::K(k) => self.push(W::B8, Step::Const(k)),
        }
    }
    fn width(&self, v: Val) -> W {
        self.piece.widths[v as usize]
    }
    fn deferral(&mut self, d: Deferred<Term>) -> u16 {
        let used = T::flag_values(d.kind);
        let mut v = [Arg::K(0); 3];
        for (i, (a, t)) in v.iter_mut().zip(d.v).enumerate() {
            if used >> i & 1 != 0 {
                *a = self.arg(t)
            }
        }
        self.piece.flags.push(Deferred { kind: d.kind, w: d.w, v });
        self.piece.flags.len() as u16 - 1
    }
}

impl<T: Target> Ops for Recorder<'_, T> {
    type V = Term;
    type C = Cond;
    fn imm(&mut self, w: W, k: u64) -> Term {
        Term::constant(k & w.mask())
    }
    fn bin(&mut self, op: Bin, w: W, a: Term, b: Term) -> Term {
        if let Some(t) = fold(op, w, a, b) {
            return t;
        }
        if matches!(op, Bin::Rol | Bin::Ror) && b.root.is_some() {
            self.given_up = true
        }
        let (x, y) = (self.arg(a), self.arg(b));
        self.value(w, Step::Bin(op, w, x, y))
    }
    fn un(&mut self, op: Un, w: W, a: Term) -> Term {
        if op != Un::Popcnt && matches!(w, W::B1 | W::B2) {
            self.given_up = true
        }
        let a = self.val(a);
        self.value(w, Step::Un(op, w, a))
    }
    fn cmp(&mut self, c: Cmp, w: W, a: Term, b: Term) -> Cond {
        if let (None, None) = (a.root, b.root) {
            return Cond::Known(Plain.cmp(c, w, a.off, b.off));
        }
        let (x, y) = (self.arg(a), self.arg(b));
        Cond::Of(self.push(w, Step::Cmp(c, w, x, y)), false)
    }
    fn zext(&mut self, _from: W, _to: W, v: Term) -> Term {
        v
    }
    fn sext(&mut self, from: W, to: W, v: Term) -> Term {
        if v.root.is_none() {
            return Term::constant(from.signed(v.off) as u64 & to.mask());
        }
        if from == to {
            return v;
        }
        let x = self.val(v);
        let long = if to == W::B8 { W::B8 } else { W::B4 };
        let r = self.value(long, Step::Sext(from, long, x));
        self.trunc(long, to, r)
    }
    fn trunc(&mut self, _from: W, to: W, v: Term) -> Term {
        if v.root.is_none() {
            return Term::constant(v.off & to.mask());
        }
        if to == W::B8 {
            return v;
        }
        let x = self.val(v);
        if self.width(x) <= to {
            return Term { root: Some(x), off: 0 };
        }
        self.value(to, Step::Trunc(to, x))
    }
    fn select(&mut self, w: W, c: Cond, t: Term, f: Term) -> Term {
        match c {
            Cond::Known(c) => return if c { t } else { f },
            _ if t == f => return t,
            _ => {}
        }
        let (x, y) = (self.arg(t), self.arg(f));
        self.value(w, Step::Select(w, c, x, y))
    }
    fn mul_high(&mut self, w: W, signed: bool, a: Term, b: Term) -> Term {
        if w == W::B8 {
            if signed {
                self.given_up = true
            }
            let (x, y) = (self.val(a), self.val(b));
            return self.value(w, Step::MulHigh(x, y));
        }
        let [x, y] = [a, b].map(|t| if signed { self.sext(w, W::B8, t) } else { t });
        let p = self.bin(Bin::Mul, W::B8, x, y);
        let h = self.shift_imm(Bin::Shr, W::B8, p, w.bits());
        self.trunc(W::B8, w, h)
    }
    fn even_parity(&mut self, b1: Term) -> Cond {
        if b1.root.is_none() {
            return Cond::Known(Plain.even_parity(b1.off));
        }
        let x = self.val(b1);
        Cond::Of(self.push(W::B1, Step::Parity(x)), false)
    }
    fn bit(&mut self, _w: W, c: Cond) -> Term {
        match c {
            Cond::Known(c) => Term::constant(c as u64),
            _ => self.value(W::B1, Step::Bit(c)),
        }
    }
    fn both(&mut self, op: Bin, a: Cond, b: Cond) -> Cond {
        match (op, a, b) {
            (Bin::And, Cond::Known(false), _) | (Bin::And, _, Cond::Known(false)) => Cond::Known(false),
            (Bin::Or, Cond::Known(true), _) | (Bin::Or, _, Cond::Known(true)) => Cond::Known(true),
            (Bin::Xor, Cond::Known(true), c) | (Bin::Xor, c, Cond::Known(true)) => self.not(c),
            (_, Cond::Known(_), c) | (_, c, Cond::Known(_)) => c,
            _ => Cond::Of(self.push(W::B1, Step::Both(op, a, b)), false),
        }
    }
    fn not(&mut self, c: Cond) -> Cond {
        match c {
            Cond::Known(c) => Cond::Known(!c),
            Cond::Of(v, not) => Cond::Of(v, !not),
        }
    }
    fn never(&mut self) -> Cond {
        Cond::Known(false)
    }
}

impl<T: Target> Emit for Recorder<'_, T> {
    type Miss = NotHere;
    type P = (Val, i32);
    fn slot(&self, field: usize) -> Slot {
        Slot(self.op.r[field & 3])
    }
    fn segment(&self) -> Slot {
        Slot(SEG_BASE + (self.op.off >> 12) as u8)
    }
    fn immediate(&mut self, w: W) -> Term {
        Term::constant(self.op.imm & w.mask())
    }
    fn disp(&mut self) -> Term {
        Term::constant(self.op.disp as i64 as u64)
    }
    fn scale(&mut self) -> Term {
        Term::constant(self.op.len_scale as u64 >> 4)
    }
    fn next_ip(&mut self) -> Term {
        let page = self.get(W::B8, PAGE);
        let to = (self.op.off & 0xfff) as u64 + (self.op.len_scale & 15) as u64;
        self.bin(Bin::Add, W::B8, page, Term::constant(to))
    }
    fn get(&mut self, w: W, s: Slot) -> Term {
        if s == ZERO {
            return Term::constant(0);
        }
        let i = s.index();
        if let Some(t) = self.cur[i][w as usize] {
            return t;
        }
        let t = match self.cur[i][W::B8 as usize] {
            Some(t) => self.trunc(W::B8, w, t),
            None => self.value(w, Step::Get(w, s.0)),
        };
        self.cur[i][w as usize] = Some(t);
        t
    }
    fn set(&mut self, s: Slot, v: Term) {
        let a = self.arg(v);
        self.effect(Step::Set(s.0, a));
        // (As one value: the root may not live on.)
        let t = match a {
            Arg::V(v) => Term { root: Some(v), off: 0 },
            Arg::K(k) => Term::constant(k),
        };
        self.cur[s.index()] = [None, None, None, Some(t)];
    }
    fn set_part(&mut self, w: W, s: Slot, v: Term) {
        match w {
            W::B8 => self.set(s, v),
            W::B4 => {
                let old = self.get(W::B8, s);
                let old = self.and_imm(W::B8, old, !w.mask());
                let v = self.bin(Bin::Or, W::B8, old, v);
                self.set(s, v)
            }
            _ => {
                let old = self.get(W::B8, s);
                let (old, new) = (self.val(old), self.val(v));
                let both = self.value(W::B8, Step::Merge(w, old, new));
                self.set(s, both);
                self.cur[s.index()][w as usize] = Some(Term { root: Some(new), off: 0 })
            }
        }
    }
    fn getx(&mut self, s: Slot) -> Val {
        self.push(W::B8, Step::XGet(s.0))
    }
    fn setx(&mut self, s: Slot, x: Val) {
        self.effect(Step::XSet(s.0, x))
    }
    fn linear(&mut self, offset: Term, bytes: u32, write: bool) -> Result<Term, NotHere> {
        self.linear_in((self.op.off >> 12) as u8, offset, bytes, write)
    }
    fn linear_in(&mut self, seg: u8, offset: Term, bytes: u32, _write: bool) -> Result<Term, NotHere> {
        let base = self.get(W::B8, Slot((SEG_BASE + seg) & 31));
        let limit = self.get(W::B8, Slot((SEG_LIMIT + seg) & 31));
        let end = self.add_imm(W::B8, offset, bytes.into());
        let c = self.cmp(Cmp::Ult, W::B8, limit, end);
        self.rare_if(c)?;
        let la = self.add(W::B8, base, offset);
        Ok(self.and_imm(W::B8, la, 0xffff_ffff))
    }
    fn aligned(&mut self, bytes: u64, la: Term) -> Result<(), NotHere> {
        let low = self.and_imm(W::B8, la, bytes - 1);
        let zero = self.is_zero(W::B8, low);
        let c = self.not(zero);
        self.rare_if(c)
    }
    fn place(&mut self, bytes: u32, la: Term, write: bool) -> Result<(Val, i32), NotHere> {
        let (root, off) = match la.root {
            Some(v) if i32::try_from(la.off as i64).is_ok() => (v, la.off as i64),
            _ => (self.val(la), 0),
        };
        for g in self.piece.groups.iter_mut().rev() {
            let (min, max) = (g.min.min(off), g.max.max(off + bytes as i64));
            if g.root == root && max - min <= GROUP {
                (g.min, g.max) = (min, max);
                g.write |= write;
                return Ok((g.check, off as i32));
            }
        }
        let n = self.piece.groups.len() as u16;
        let check = self.exit(Step::Check(n));
        self.piece.groups.push(Group { root, min: off, max: off + bytes as i64, write, check });
        Ok((check, off as i32))
    }
    fn read(&mut self, w: W, p: (Val, i32)) -> Term {
        self.value(w, Step::Load(w, p.0, p.1))
    }
    fn write(&mut self, w: W, p: (Val, i32), v: Term) {
        let v = self.arg(v);
        self.effect(Step::Store(w, p.0, p.1, v))
    }
    fn readx(&mut self, p: (Val, i32)) -> Val {
        self.push(W::B8, Step::XLoad(p.0, p.1))
    }
    fn writex(&mut self, p: (Val, i32), x: Val) {
        self.effect(Step::XStore(p.0, p.1, x))
    }
    fn rmw(&mut self, _: Option<Bin>, _: W, _: (Val, i32), v: Term) -> Term {
        self.given_up = true;
        v
    }
    fn cas(&mut self, _: W, _: (Val, i32), expected: Term, _: Term) -> Term {
        self.given_up = true;
        expected
    }
    fn divide(&mut self, _: W, _: bool, _: Term, _: Term, _: Term) -> Result<[Term; 2], NotHere> {
        Err(NotHere)
    }
    fn flags_wanted(&self) -> bool {
        self.wanted
    }
    fn defer(&mut self, d: Deferred<Term>) {
        let n = self.wanted.then(|| self.deferral(d));
        self.flags = Flags::Known(d, n)
    }
    fn defer_if(&mut self, c: Cond, d: Deferred<Term>) {
        self.settle();
        if self.wanted {
            let n = self.deferral(d);
            match c {
                Cond::Known(true) => self.effect(Step::Flags(n)),
                Cond::Known(false) => {}
                c => self.effect(Step::FlagsIf(c, n)),
            }
        }
        (self.flags, self.guess) = (Flags::Stored, None)
    }
    fn deferred(&mut self) -> Result<Deferred<Term>, NotHere> {
        match self.flags {
            Flags::Known(d, _) => Ok(d),
            Flags::Stored => {
                let (kind, w) = self.guess.ok_or(NotHere)?;
                self.exit(Step::Producer(kind, w));
                let used = T::flag_values(kind);
                let v = std::array::from_fn(|i| match used >> i & 1 {
                    0 => Term::constant(0),
                    _ => self.value(w, Step::GetFlag(i as u8)),
                });
                let d = Deferred { kind, w, v };
                self.flags = Flags::Known(d, None);
                Ok(d)
            }
        }
    }
    fn rare_if(&mut self, c: Cond) -> Result<(), NotHere> {
        match c {
            Cond::Known(true) => Err(NotHere),
            Cond::Known(false) => Ok(()),
            c => {
                self.exit(Step::LeaveIf(c));
                Ok(())
            }
        }
    }
    fn unit(&mut self, _: [u8; 2]) {
        self.given_up = true
    }
    fn unit_at(&mut self, _: [u8; 2], _: u32, _: (Val, i32), _: bool) {
        self.given_up = true
    }
    fn unit_control(&mut self, _: Term) {
        self.given_up = true
    }
    fn unit_status(&mut self) -> Term {
        self.given_up = true;
        Term::constant(0)
    }
    fn unit_compare(&mut self, _: [u8; 2]) -> [Cond; 3] {
        self.given_up = true;
        [Cond::Known(false); 3]
    }
    fn unit_move(&mut self, _: Cond, _: u8) {
        self.given_up = true
    }
    fn unit_note(&mut self, _: Option<Term>) {}
}

impl<T: Target> Recorder<'_, T> {
    /// What handlers have to do; any vector.
    fn not_here(&mut self) -> Val {
        self.given_up = true;
        0
    }
    fn number(&mut self) -> Term {
        self.given_up = true;
        Term::constant(0)
    }
}
impl<T: Target> Vector for Recorder<'_, T> {
    type X = Val;
    fn xbin(&mut self, op: XBin, a: Val, b: Val) -> Val {
        if !knows(op) {
            return self.not_here();
        }
        self.push(W::B8, Step::XBin(op, a, b))
    }
    fn xfp(&mut self, _: FpBin, _: Fp, _: Val, _: Val) -> Val {
        self.not_here()
    }
    fn xun(&mut self, op: XUn, x: Val) -> Val {
        match op {
            XUn::Dup64 => self.push(W::B8, Step::XBin(XBin::UnpackLo(W::B8), x, x)),
            _ => self.not_here(),
        }
    }
    fn xshift(&mut self, op: XShift, x: Val, count: Term) -> Val {
        match count.root {
            None if knows_shift(op) => self.push(W::B8, Step::XShift(op, x, count.off.min(255) as u8)),
            _ => self.not_here(),
        }
    }
    fn xshuffle(&mut self, op: XShuffle, a: Val, b: Val, imm: Term) -> Val {
        match imm.root {
            None => self.push(W::B8, Step::XShuffle(op, a, b, imm.off as u8)),
            Some(_) => self.not_here(),
        }
    }
    fn xmask(&mut self, w: W, x: Val) -> Term {
        if w == W::B2 {
            return self.number();
        }
        self.value(W::B4, Step::XMask(w, x))
    }
    fn xlow(&mut self, w: W, x: Val) -> Term {
        match w {
            W::B4 | W::B8 => self.value(w, Step::XLow(w, x)),
            _ => self.number(),
        }
    }
    fn xhigh(&mut self, x: Val) -> Term {
        self.value(W::B8, Step::XHigh(x))
    }
    fn xzext(&mut self, w: W, v: Term) -> Val {
        let v = self.val(v);
        self.push(W::B8, Step::XZext(if w == W::B8 { w } else { W::B4 }, v))
    }
    fn xset_low(&mut self, w: W, x: Val, v: Term) -> Val {
        match w {
            W::B4 | W::B8 => {
                let v = self.val(v);
                self.push(W::B8, Step::XMerge(w, x, v))
            }
            _ => self.not_here(),
        }
    }
    fn xword(&mut self, _: Val, _: Term) -> Term {
        self.number()
    }
    fn xset_word(&mut self, _: Val, _: Term, _: Term) -> Val {
        self.not_here()
    }
    fn xcompare(&mut self, _: W, _: bool, _: Val, _: Val) -> [Cond; 3] {
        self.given_up = true;
        [Cond::Known(false); 3]
    }
    fn xto_int(&mut self, _: W, _: W, _: bool, _: Val) -> Term {
        self.number()
    }
    fn xfrom_int(&mut self, _: W, _: W, _: Val, _: Term) -> Val {
        self.not_here()
    }
}
