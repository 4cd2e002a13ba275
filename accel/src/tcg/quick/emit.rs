//! A recorded piece as host code: one pass back for what is used, one pass forth for registers and instructions.
//!
//! What is seldom run goes into code of its own elsewhere, so that what is often run lies close together.
//!
//! Env and op stay in the registers handlers get them in; seven others hold values. A value that finds no room lies below
//! the stack pointer, where the host's calling convention leaves 128 bytes to code that calls nothing.

use super::{
    asm::*,
    record::{Arg, Cond, Ending, Piece, Step, Val},
};
use crate::tcg::ops::*;

/// Offsets from the env and from an op of what code needs, and the handlers it leaves to.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub regs: i32,
    pub x: i32,
    pub cc: i32,
    pub cc_v: i32,
    pub budget: i32,
    pub exit_request: i32,
    pub salt: i32,
    /// Tags and addend of the first entry of the regime's TLB.
    pub tlb_read: i32,
    pub tlb_write: i32,
    pub tlb_addend: i32,
    /// Bits of the offset of a TLB entry, and how far they lie above it in an address.
    pub tlb_mask: i32,
    pub tlb_shift: u8,
    /// The first entry of the jump cache.
    pub jc_key: i32,
    pub jc_op: i32,
    pub jc_mask: i32,
    pub jc_size_log: u8,
    pub op_size: i32,
    pub op_run: i32,
    pub op_imm: i32,
    pub op_n: i32,
    pub op_heat: i32,
    /// Handlers `stopped`, `got_hot`, `lost`.
    pub stopped: usize,
    pub got_hot: usize,
    pub lost: usize,
    /// What looks for a page; see [`Look`].
    pub look: usize,
    /// Which of a producer's flag values mean anything.
    pub flag_values: fn(u8) -> u8,
}

/// Registers for values.
pub(super) const FREE: [Reg; 7] = [RAX, RCX, RDX, R8, R9, R10, R11];
/// Places below the stack pointer: 14, between that of a return address and the last of the red zone, which [`Look`] uses.
const SPILLS: u16 = (1 << 14) - 1;

/// Where a value is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Loc {
    Nowhere,
    Reg(Reg),
    Vector(Reg),
    Spill(u8),
    K(u64),
}
/// Where the code of a piece goes on in another block.
#[derive(Clone, Copy)]
pub(in super::super) enum Way {
    /// The target of op `n`.
    Target(usize),
    /// Op `n`.
    Op(usize),
}
/// The code of a piece.
pub(in super::super) struct Code {
    pub hot: Vec<u8>,
    pub cold: Vec<u8>,
    /// Jumps from the hot part into the cold one: where they end, and where they go.
    pub across: Vec<(usize, usize)>,
    /// And back.
    pub back: Vec<(usize, usize)>,
    /// Jumps that may go to another block's entry instead: where they end, and to which block.
    pub ways: Vec<(usize, Way)>,
    /// Jumps of either into what all pieces share.
    pub stubs_hot: Vec<(usize, Stub)>,
    pub stubs_cold: Vec<(usize, Stub)>,
    /// Where handlers enter it; before that lies what jumps of other blocks enter.
    pub handler: usize,
}
/// Code that all pieces share.
#[derive(Clone, Copy)]
pub(in super::super) enum Stub {
    /// Pays for the op's block and goes to its handler.
    Enter,
    /// Goes to the op's handler.
    Handler,
    /// Goes to `stopped`.
    Stopped,
    /// Goes to `got_hot`.
    GotHot,
    /// Goes to `lost`.
    Lost,
    /// Looks for a page; called.
    Look,
}
impl Stub {
    /// How many there are.
    pub const COUNT: usize = Stub::Look as usize + 1;
}
/// Looks for a page before the piece is left because it is not in the first level: what follows the call in the code says
/// where and how ([`jit::Look`](super::super::jit::Look)); the call comes back behind that if the page is there now, else one
/// jump further.
#[derive(Clone, Copy)]
pub(super) struct Look {
    /// Holds the address that `min` is relative to.
    pub root: Reg,
    pub min: i32,
    pub bytes: u16,
    pub write: bool,
    /// Where the piece goes on.
    pub back: usize,
}
/// A way out.
pub(super) struct Out {
    pub from: Jump,
    pub look: Option<Look>,
    pub op: u8,
    /// Flags to store: their number, and where the values are.
    pub flags: Option<(u16, [Loc; 3])>,
}
/// The piece needs more registers than there are.
#[derive(Debug)]
pub(super) struct Crowded;
pub(super) type Fit<R> = Result<R, Crowded>;

/// Makes code of pieces.
#[derive(Default)]
pub(super) struct Emitter {
    pub(super) asm: Asm,
    pub(super) cold: Asm,
    pub(super) across: Vec<(usize, usize)>,
    pub(super) back: Vec<(usize, usize)>,
    pub(super) ways: Vec<(usize, Way)>,
    pub(super) stubs_hot: Vec<(usize, Stub)>,
    pub(super) stubs_cold: Vec<(usize, Stub)>,
    pub(super) uses: Vec<u16>,
    pub(super) last: Vec<u16>,
    pub(super) live: Vec<bool>,
    pub(super) loc: Vec<Loc>,
    owner: [Option<Val>; 16],
    /// Vector registers in use.
    pub(super) vectors: u16,
    locked: u16,
    spills: u16,
    outs: Vec<Out>,
    next_exit: usize,
}

pub(super) fn spill_at(n: u8) -> At {
    at(RSP, -8 * (n as i32 + 2))
}
pub(super) fn simm(k: u64) -> Option<i32> {
    i32::try_from(k as i64).ok()
}
/// The constant as an immediate of an instruction of width `w`.
fn imm(w: W, k: u64) -> Option<i32> {
    if w == W::B8 { simm(k) } else { Some(k as u32 as i32) }
}
fn long(w: W) -> W {
    if w == W::B8 { W::B8 } else { W::B4 }
}

impl Emitter {
    /// The code of a piece; `own` gives the address of an op's own handler, `head` is the op at which a block begins here, and
    /// its number of instructions.
    pub fn emit(
        &mut self,
        p: &Piece,
        end: Ending,
        l: &Layout,
        own: impl Fn(usize) -> usize,
        head: Option<(usize, u8)>,
    ) -> Fit<Code> {
        self.count(p, end);
        self.asm.code.clear();
        self.cold.code.clear();
        self.across.clear();
        self.back.clear();
        self.ways.clear();
        self.stubs_hot.clear();
        self.stubs_cold.clear();
        self.owner = [None; 16];
        self.vectors = 0;
        self.spills = SPILLS;
        self.outs.clear();
        self.next_exit = 0;
        self.loc.clear();
        self.loc.resize(p.steps.len(), Loc::Nowhere);
        if let Some((op, n)) = head {
            self.asm.mov_imm(RSI, op as u64);
            self.pay(l, Some(n))
        }
        let handler = self.asm.here();
        for i in 0..p.steps.len() {
            self.locked = 0;
            if self.live[i] {
                self.step(p, l, i as Val)?
            }
        }
        self.locked = 0;
        self.ending(p, l, end, &own)?;
        for out in std::mem::take(&mut self.outs) {
            self.out(p, l, out, &own)
        }
        let [hot, cold] = [&self.asm, &self.cold].map(|a| a.code.clone());
        Ok(Code {
            hot,
            cold,
            across: self.across.clone(),
            back: self.back.clone(),
            ways: self.ways.clone(),
            stubs_hot: self.stubs_hot.clone(),
            stubs_cold: self.stubs_cold.clone(),
            handler,
        })
    }

    // ---- registers ----

    pub(super) fn alloc(&mut self) -> Fit<Reg> {
        let open = FREE.into_iter().filter(|r| self.locked >> r & 1 == 0);
        let r = match open.clone().find(|&r| self.owner[r as usize].is_none()) {
            Some(r) => r,
            None => {
                // The one that is needed last.
                let last = |r: &Reg| self.owner[*r as usize].map(|v| self.last[v as usize]);
                let r = open.max_by_key(last).ok_or(Crowded)?;
                self.spill(r)?;
                r
            }
        };
        self.locked |= 1 << r;
        Ok(r)
    }
    fn spill(&mut self, r: Reg) -> Fit<()> {
        let Some(v) = self.owner[r as usize].take() else { return Ok(()) };
        if self.spills == 0 {
            return Err(Crowded);
        }
        let n = self.spills.trailing_zeros() as u8;
        self.spills &= self.spills - 1;
        self.asm.store(W::B8, spill_at(n), r);
        self.loc[v as usize] = Loc::Spill(n);
        Ok(())
    }
    /// The register of a value, locked for this step.
    pub(super) fn reg(&mut self, v: Val) -> Fit<Reg> {
        match self.loc[v as usize] {
            Loc::Reg(r) => {
                self.locked |= 1 << r;
                Ok(r)
            }
            Loc::Spill(n) => {
                let r = self.alloc()?;
                self.asm.load(W::B8, r, Rm::Mem(spill_at(n)));
                self.spills |= 1 << n;
                self.loc[v as usize] = Loc::Reg(r);
                self.owner[r as usize] = Some(v);
                Ok(r)
            }
            Loc::Nowhere | Loc::K(_) | Loc::Vector(_) => Err(Crowded),
        }
    }
    /// An operand in a register, locked for this step.
    pub(super) fn arg_reg(&mut self, a: Arg) -> Fit<Reg> {
        match a {
            Arg::V(v) => self.reg(v),
            Arg::K(k) => {
                let r = self.alloc()?;
                self.asm.mov_imm(r, k);
                Ok(r)
            }
        }
    }
    /// One use of a value is done.
    pub(super) fn done(&mut self, v: Val) {
        let n = &mut self.uses[v as usize];
        *n -= 1;
        if *n == 0 {
            match std::mem::replace(&mut self.loc[v as usize], Loc::Nowhere) {
                Loc::Reg(r) => self.owner[r as usize] = None,
                Loc::Spill(n) => self.spills |= 1 << n,
                Loc::Vector(x) => self.vectors &= !(1 << x),
                Loc::Nowhere | Loc::K(_) => {}
            }
        }
    }
    pub(super) fn done_arg(&mut self, a: Arg) {
        if let Arg::V(v) = a {
            self.done(v)
        }
    }
    pub(super) fn define(&mut self, v: Val, r: Reg) {
        if self.uses[v as usize] != 0 {
            self.loc[v as usize] = Loc::Reg(r);
            self.owner[r as usize] = Some(v)
        }
    }
    /// A register for a result that starts as `v`, in `r`: its own if nobody needs it any more. (Its use must be done.)
    fn take_over(&mut self, w: W, v: Val, r: Reg) -> Fit<Reg> {
        if self.uses[v as usize] == 0 {
            return Ok(r);
        }
        let dst = self.alloc()?;
        self.asm.mov(w, dst, r);
        Ok(dst)
    }
    /// A register for a result that is made of `v`, in `r`, by one instruction.
    fn replace(&mut self, v: Val, r: Reg) -> Fit<Reg> {
        if self.uses[v as usize] == 0 { Ok(r) } else { self.alloc() }
    }

    // ---- steps ----

    fn step(&mut self, p: &Piece, l: &Layout, i: Val) -> Fit<()> {
        match p.steps[i as usize] {
            Step::Const(k) => {
                let r = self.alloc()?;
                self.asm.mov_imm(r, k);
                self.define(i, r)
            }
            Step::Get(w, slot) => {
                let r = self.alloc()?;
                self.asm.load(w, r, Rm::Mem(at(RDI, l.regs + 8 * slot as i32)));
                self.define(i, r)
            }
            s @ (Step::XMask(..)
            | Step::XLow(..)
            | Step::XHigh(_)
            | Step::XGet(_)
            | Step::XLoad(..)
            | Step::XBin(..)
            | Step::XShift(..)
            | Step::XShuffle(..)
            | Step::XZext(..)
            | Step::XMerge(..)
            | Step::XStore(..)
            | Step::XSet(..)) => self.vector(l, i, s)?,
            Step::GetFlag(k) => {
                let r = self.alloc()?;
                self.asm.load(W::B8, r, Rm::Mem(at(RDI, l.cc_v + 8 * k as i32)));
                self.define(i, r)
            }
            Step::Producer(kind, w) => {
                let cc = (w as i32) << 8 | kind as i32;
                self.asm.cmp_imm(W::B8, Rm::Mem(at(RDI, l.cc)), cc);
                let from = self.asm.jump_if(Cc::NE);
                self.leave(p, i, from, None)
            }
            Step::Bin(op, w, a, b) => self.bin(i, op, w, a, b)?,
            Step::Un(op, w, a) => {
                let r = self.reg(a)?;
                self.done(a);
                let dst = if op == Un::Bswap { self.take_over(long(w), a, r)? } else { self.replace(a, r)? };
                match op {
                    Un::Bswap => self.asm.bswap(w, dst),
                    Un::Clz => self.asm.lzcnt(w, dst, Rm::Reg(r)),
                    Un::Ctz => self.asm.tzcnt(w, dst, Rm::Reg(r)),
                    Un::Popcnt => self.asm.popcnt(w, dst, Rm::Reg(r)),
                }
                self.define(i, dst)
            }
            Step::Sext(from, to, a) => {
                let r = self.reg(a)?;
                self.done(a);
                let dst = self.replace(a, r)?;
                self.asm.sext(from, to, dst, r);
                self.define(i, dst)
            }
            Step::Trunc(to, a) => {
                let r = self.reg(a)?;
                self.done(a);
                let dst = self.replace(a, r)?;
                self.asm.load(to, dst, Rm::Reg(r));
                self.define(i, dst)
            }
            Step::Merge(w, old, new) => {
                let (ro, rn) = (self.reg(old)?, self.reg(new)?);
                self.done(new);
                self.done(old);
                let dst = self.take_over(W::B8, old, ro)?;
                self.asm.merge(w, dst, rn);
                self.define(i, dst)
            }
            Step::Select(w, c, t, f) => {
                let rt = self.arg_reg(t)?;
                let rf = self.arg_reg(f)?;
                self.done_arg(t);
                self.done_arg(f);
                let dst = match f {
                    Arg::V(v) => self.take_over(long(w), v, rf)?,
                    Arg::K(_) => rf,
                };
                let cc = self.cond(p, c)?;
                self.asm.cmov(cc, long(w), dst, rt);
                self.define(i, dst)
            }
            Step::Bit(c) => {
                let cc = self.cond(p, c)?;
                let r = self.alloc()?;
                self.asm.set(cc, r);
                self.asm.load(W::B1, r, Rm::Reg(r));
                self.define(i, r)
            }
            Step::MulHigh(a, b) => self.mul_high(i, a, b)?,
            Step::Check(g) => self.check(p, l, i, g)?,
            Step::Load(w, host, off) => {
                let r = self.reg(host)?;
                self.done(host);
                let dst = self.replace(host, r)?;
                self.asm.load(w, dst, Rm::Mem(at(r, off)));
                self.define(i, dst)
            }
            Step::Store(w, host, off, v) => {
                let r = self.reg(host)?;
                self.put(w, at(r, off), v)?;
                self.done(host);
                self.done_arg(v)
            }
            Step::Set(slot, v) => {
                self.put(W::B8, at(RDI, l.regs + 8 * slot as i32), v)?;
                self.done_arg(v)
            }
            Step::Flags(n) => {
                let d = p.flags[n as usize];
                self.asm.store_imm(W::B8, at(RDI, l.cc), (d.w as u64) << 8 | d.kind as u64);
                for (k, a) in d.v.into_iter().enumerate() {
                    if (l.flag_values)(d.kind) >> k & 1 != 0 {
                        let locked = self.locked;
                        self.put(W::B8, at(RDI, l.cc_v + 8 * k as i32), a)?;
                        self.locked = locked
                    }
                    self.done_arg(a)
                }
            }
            Step::FlagsIf(c, n) => {
                let d = p.flags[n as usize];
                let mut from = [None; 3];
                for (k, a) in d.v.into_iter().enumerate() {
                    if (l.flag_values)(d.kind) >> k & 1 != 0 {
                        from[k] = Some(self.arg_reg(a)?)
                    }
                }
                let cc = self.cond(p, c)?;
                let over = self.asm.jump_if(cc.not());
                self.asm.store_imm(W::B8, at(RDI, l.cc), (d.w as u64) << 8 | d.kind as u64);
                for (k, r) in from.into_iter().enumerate() {
                    if let Some(r) = r {
                        self.asm.store(W::B8, at(RDI, l.cc_v + 8 * k as i32), r)
                    }
                }
                self.asm.land(over);
                d.v.into_iter().for_each(|a| self.done_arg(a))
            }
            Step::LeaveIf(c) => {
                let cc = self.cond(p, c)?;
                let from = self.asm.jump_if(cc);
                self.leave(p, i, from, None)
            }
            // (Made where it is used.)
            Step::Cmp(..) | Step::Both(..) | Step::Parity(_) => {}
        }
        Ok(())
    }
    fn put(&mut self, w: W, to: At, v: Arg) -> Fit<()> {
        match v {
            Arg::K(k) if w != W::B8 || simm(k).is_some() => self.asm.store_imm(w, to, k),
            v => {
                let r = self.arg_reg(v)?;
                self.asm.store(w, to, r)
            }
        }
        Ok(())
    }
    fn bin(&mut self, i: Val, op: Bin, w: W, a: Arg, b: Arg) -> Fit<()> {
        use Bin::*;
        if matches!(op, Shl | Shr | Sar | Rol | Ror) {
            return self.shift(i, op, w, a, b);
        }
        let dies = |s: &Self, x: Arg| matches!(x, Arg::V(v) if s.uses[v as usize] == 1);
        let swap = op != Sub && (matches!(a, Arg::K(_)) || !dies(self, a) && dies(self, b));
        let (a, b) = if swap { (b, a) } else { (a, b) };
        let k = if let Arg::K(k) = b { imm(w, k) } else { None };
        let rb = match k {
            Some(_) => None,
            None => Some(self.arg_reg(b)?),
        };
        let dst = match a {
            Arg::K(_) => self.arg_reg(a)?,
            Arg::V(v) => {
                let ra = self.reg(v)?;
                self.done_arg(b);
                self.done(v);
                if op == Add && w == W::B8 && self.uses[v as usize] != 0 {
                    let dst = self.alloc()?;
                    self.asm.lea(
                        dst,
                        match (rb, k) {
                            (Some(rb), _) => indexed(ra, rb, 0),
                            (None, k) => at(ra, k.unwrap_or(0)),
                        },
                    );
                    self.define(i, dst);
                    return Ok(());
                }
                self.take_over(long(w), v, ra)?
            }
        };
        if matches!(a, Arg::K(_)) {
            self.done_arg(b)
        }
        match (rb, k) {
            (Some(rb), _) => self.asm.bin(op, w, dst, Rm::Reg(rb)),
            (None, k) => self.asm.bin_imm(op, w, dst, k.unwrap_or(0)),
        }
        if matches!(w, W::B1 | W::B2) && matches!(op, Add | Sub | Mul) {
            self.asm.load(w, dst, Rm::Reg(dst))
        }
        self.define(i, dst);
        Ok(())
    }
    fn shift(&mut self, i: Val, op: Bin, w: W, a: Arg, b: Arg) -> Fit<()> {
        let narrow = matches!(w, W::B1 | W::B2);
        let ra = self.arg_reg(a)?;
        let rb = if let Arg::V(v) = b { Some(self.reg(v)?) } else { None };
        self.done_arg(b);
        self.done_arg(a);
        let sign = op == Bin::Sar && narrow;
        let dst = match (a, rb, sign) {
            (Arg::K(_), ..) => ra,
            (Arg::V(v), None, false) => self.take_over(long(w), v, ra)?,
            // (One instruction makes it, and the count must stay.)
            (Arg::V(v), ..) if Some(ra) != rb => self.replace(v, ra)?,
            _ => self.alloc()?,
        };
        let mut from = ra;
        if sign {
            self.asm.sext(w, W::B4, dst, ra);
            from = dst
        }
        match (rb, b) {
            (Some(rb), _) => self.asm.shift(op, w, dst, Rm::Reg(from), rb),
            (None, Arg::K(k)) => self.asm.shift_imm(op, w, dst, k as u8),
            _ => {}
        }
        if narrow && matches!(op, Bin::Shl | Bin::Sar) {
            self.asm.load(w, dst, Rm::Reg(dst))
        }
        self.define(i, dst);
        Ok(())
    }
    fn mul_high(&mut self, i: Val, a: Val, b: Val) -> Fit<()> {
        let (ra, rb) = (self.reg(a)?, self.reg(b)?);
        let by = if rb == RDX {
            ra
        } else {
            if ra != RDX {
                self.spill(RDX)?;
                self.locked |= 1 << RDX;
                self.asm.mov(W::B8, RDX, ra)
            }
            rb
        };
        let (hi, lo) = (self.alloc()?, self.alloc()?);
        self.asm.mulx(hi, lo, by);
        self.done(a);
        self.done(b);
        self.define(i, hi);
        Ok(())
    }
    /// Checks a group's range in the TLB; the value is the root's host address.
    fn check(&mut self, p: &Piece, l: &Layout, i: Val, g: u16) -> Fit<()> {
        let g = p.groups[g as usize];
        let la = self.reg(g.root)?;
        let (t, u) = (self.alloc()?, self.alloc()?);
        match i32::try_from(g.min) {
            Ok(0) => self.asm.mov(W::B8, t, la),
            Ok(min) => self.asm.lea(t, at(la, min)),
            Err(_) => return Err(Crowded),
        }
        self.asm.mov(W::B4, u, t);
        self.asm.shift_imm(Bin::Shr, W::B4, u, l.tlb_shift);
        self.asm.bin_imm(Bin::And, W::B4, u, l.tlb_mask);
        let tag = if g.write { l.tlb_write } else { l.tlb_read };
        self.asm.bin(Bin::Xor, W::B8, t, Rm::Mem(indexed(RDI, u, tag)));
        self.asm.cmp_imm(W::B8, Rm::Reg(t), 0x1000 - (g.max - g.min) as i32);
        let from = self.asm.jump_if(Cc::A);
        let (min, bytes, back) = (g.min as i32, (g.max - g.min) as u16, self.asm.here());
        self.leave(p, i, from, Some(Look { root: la, min, bytes, write: g.write, back }));
        self.asm.load(W::B8, u, Rm::Mem(indexed(RDI, u, l.tlb_addend)));
        self.asm.bin(Bin::Add, W::B8, u, Rm::Reg(la));
        self.done(g.root);
        self.define(i, u);
        Ok(())
    }
    /// Notes a way out of step `i`.
    fn leave(&mut self, p: &Piece, i: Val, from: Jump, look: Option<Look>) {
        while p.exits.get(self.next_exit).is_some_and(|e| e.at < i) {
            self.next_exit += 1
        }
        let Some(e) = p.exits.get(self.next_exit) else { return };
        let flags = e.flags.map(|n| {
            let v = p.flags[n as usize].v;
            let from = v.map(|a| match a {
                Arg::K(k) => Loc::K(k),
                Arg::V(v) => self.loc[v as usize],
            });
            v.into_iter().for_each(|a| self.done_arg(a));
            (n, from)
        });
        self.outs.push(Out { from, look, op: e.op, flags })
    }
    /// Makes a condition, as flags of the host.
    pub(super) fn cond(&mut self, p: &Piece, c: Cond) -> Fit<Cc> {
        let Cond::Of(v, not) = c else { return Err(Crowded) };
        let locked = self.locked;
        let cc = match p.steps[v as usize] {
            Step::Cmp(c, w, a, b) => {
                let ra = self.arg_reg(a)?;
                match b {
                    Arg::K(0) if c != Cmp::Ule => self.asm.test(w, ra, ra),
                    Arg::K(k) if imm(w, k).is_some() => self.asm.cmp_imm(w, Rm::Reg(ra), k as i32),
                    b => {
                        let rb = self.arg_reg(b)?;
                        self.asm.cmp(w, ra, Rm::Reg(rb))
                    }
                }
                self.done_arg(a);
                self.done_arg(b);
                Cc::of(c)
            }
            Step::Both(op, a, b) => {
                let ca = self.cond(p, a)?;
                let x = self.alloc()?;
                self.asm.set(ca, x);
                let cb = self.cond(p, b)?;
                let y = self.alloc()?;
                self.asm.set(cb, y);
                self.asm.load(W::B1, x, Rm::Reg(x));
                self.asm.load(W::B1, y, Rm::Reg(y));
                self.asm.bin(op, W::B4, x, Rm::Reg(y));
                Cc::NE
            }
            Step::Parity(a) => {
                let r = self.reg(a)?;
                self.asm.test(W::B1, r, r);
                self.done(a);
                Cc::P
            }
            _ => return Err(Crowded),
        };
        self.locked = locked;
        // (A condition is one use of its step.)
        self.uses[v as usize] -= 1;
        Ok(if not { cc.not() } else { cc })
    }
}
