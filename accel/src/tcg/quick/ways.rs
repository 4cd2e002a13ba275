//! How a piece ends: other blocks, other handlers, ways out; and the code for that which all pieces share.

use super::{
    asm::*,
    emit::{Emitter, FREE, Fit, Layout, Loc, Out, Stub, Way, simm, spill_at},
    record::{Cond, Ending, Piece},
};
use crate::tcg::ops::*;

impl Emitter {
    /// A jump goes on in cold code, from here.
    fn cross(&mut self, j: Jump) {
        self.across.push((j.0, self.cold.here()))
    }
    pub(super) fn ending(&mut self, p: &Piece, l: &Layout, end: Ending, own: &impl Fn(usize) -> usize) -> Fit<()> {
        match end {
            Ending::Own(n) => {
                advance(&mut self.asm, l, n);
                handler(&mut self.asm, own(n))
            }
            Ending::Next(n) => {
                advance(&mut self.asm, l, n);
                self.asm.jump_to(Rm::Mem(at(RSI, l.op_run)))
            }
            Ending::Goto(n) | Ending::If(Cond::Known(true), n) => {
                let j = self.asm.jump();
                self.way(l, j, Way::Target(n))
            }
            Ending::If(Cond::Known(false), n) => {
                let j = self.asm.jump();
                self.way(l, j, Way::Op(n + 1))
            }
            Ending::If(c, n) => {
                let cc = self.cond(p, c)?;
                let taken = self.asm.jump_if(cc);
                let next = self.asm.jump();
                self.way(l, taken, Way::Target(n));
                self.way(l, next, Way::Op(n + 1))
            }
            Ending::To(to) => {
                let v = self.arg_reg(to)?;
                let (t, u) = (self.alloc()?, self.alloc()?);
                self.asm.mov(W::B8, t, v);
                self.asm.shift_imm(Bin::Shr, W::B8, t, 12);
                self.asm.bin(Bin::Xor, W::B4, t, Rm::Reg(v));
                self.asm.bin_imm(Bin::And, W::B4, t, l.jc_mask);
                self.asm.shift_imm(Bin::Shl, W::B4, t, l.jc_size_log);
                self.asm.load(W::B8, u, Rm::Mem(at(RDI, l.salt)));
                self.asm.bin(Bin::Xor, W::B8, u, Rm::Reg(v));
                self.asm.cmp(W::B8, u, Rm::Mem(indexed(RDI, t, l.jc_key)));
                // (Where `lost` expects it.)
                let lost = self.asm.jump_if(Cc::NE);
                self.cross(lost);
                if v != RDX {
                    self.cold.mov(W::B8, RDX, v)
                }
                let j = self.cold.jump();
                self.stubs_cold.push((j.0, Stub::Lost));
                self.asm.load(W::B8, RSI, Rm::Mem(indexed(RDI, t, l.jc_op)));
                self.asm.bin_imm(Bin::And, W::B8, v, !0xfff);
                self.asm.store(W::B8, at(RDI, l.regs + 8 * PAGE.index() as i32), v);
                self.pay(l, None);
                self.asm.jump_to(Rm::Mem(at(RSI, l.op_run)))
            }
        }
        Ok(())
    }
    /// A jump to another block of the page: through its op, until the block has code.
    fn way(&mut self, l: &Layout, j: Jump, to: Way) {
        self.cross(j);
        self.ways.push((j.0, to));
        match to {
            Way::Target(n) => self.cold.load(W::B8, RSI, Rm::Mem(at(RSI, n as i32 * l.op_size + l.op_imm))),
            Way::Op(n) => advance(&mut self.cold, l, n),
        }
        let j = self.cold.jump();
        self.stubs_cold.push((j.0, Stub::Enter))
    }
    /// Pays for the op's block, of `n` instructions if that is known.
    pub(super) fn pay(&mut self, l: &Layout, n: Option<u8>) {
        let [stopped, hot] = pay(&mut self.asm, l, n);
        self.stubs_hot.push((stopped.0, Stub::Stopped));
        self.stubs_hot.push((hot.0, Stub::GotHot))
    }
    /// The code of a way out.
    pub(super) fn out(&mut self, p: &Piece, l: &Layout, out: Out, own: &impl Fn(usize) -> usize) {
        self.cross(out.from);
        let a = &mut self.cold;
        if let Some(look) = out.look {
            let call = a.call();
            self.stubs_cold.push((call.0, Stub::Look));
            a.code.extend(crate::tcg::jit::Look::code(look.root, look.min, look.bytes, look.write));
            let back = a.jump();
            self.back.push((back.0, look.back))
        }
        if let Some((n, from)) = out.flags {
            let d = p.flags[n as usize];
            let free = FREE.into_iter().find(|&r| !from.contains(&Loc::Reg(r))).unwrap_or(RAX);
            a.store_imm(W::B8, at(RDI, l.cc), (d.w as u64) << 8 | d.kind as u64);
            for (k, loc) in from.into_iter().enumerate() {
                if (l.flag_values)(d.kind) >> k & 1 == 0 {
                    continue;
                }
                let to = at(RDI, l.cc_v + 8 * k as i32);
                let r = match loc {
                    Loc::Reg(r) => r,
                    Loc::K(k) if simm(k).is_some() => {
                        a.store_imm(W::B8, to, k);
                        continue;
                    }
                    Loc::K(k) => {
                        a.mov_imm(free, k);
                        free
                    }
                    Loc::Spill(n) => {
                        a.load(W::B8, free, Rm::Mem(spill_at(n)));
                        free
                    }
                    Loc::Nowhere | Loc::Vector(_) => continue,
                };
                a.store(W::B8, to, r)
            }
        }
        advance(a, l, out.op as usize);
        handler(a, own(out.op as usize))
    }
}
/// What all pieces share, and where in it each of [`Stub`] is.
pub(super) fn stubs(l: &Layout) -> (Vec<u8>, [usize; Stub::COUNT]) {
    let mut a = Asm::default();
    let [stopped, hot] = pay(&mut a, l, None);
    let own = a.here();
    a.jump_to(Rm::Mem(at(RSI, l.op_run)));
    let at_stopped = a.here();
    a.land(stopped);
    handler(&mut a, l.stopped);
    let at_hot = a.here();
    a.land(hot);
    handler(&mut a, l.got_hot);
    let at_lost = a.here();
    handler(&mut a, l.lost);
    let at_look = a.here();
    // (The last word of the red zone, which is 8 bytes nearer since the call.)
    a.store(W::B8, at(RSP, 8 - 128), RAX);
    handler(&mut a, l.look);
    (a.code, [0, own, at_stopped, at_hot, at_lost, at_look])
}
fn handler(a: &mut Asm, address: usize) {
    a.mov_imm(RAX, address as u64);
    a.jump_to(Rm::Reg(RAX))
}
/// From an op to the `n`th behind it.
fn advance(a: &mut Asm, l: &Layout, n: usize) {
    if n != 0 {
        a.lea(RSI, at(RSI, n as i32 * l.op_size))
    }
}
/// As handlers enter a block: instruction budget, kick, hotness. The jumps are taken when the vCPU has to stop, and when the
/// block is hot.
fn pay(a: &mut Asm, l: &Layout, n: Option<u8>) -> [Jump; 2] {
    a.load(W::B8, RCX, Rm::Mem(at(RDI, l.budget)));
    match n {
        Some(n) => a.bin_imm(Bin::Sub, W::B8, RCX, n.into()),
        None => {
            a.load(W::B1, RAX, Rm::Mem(at(RSI, l.op_n)));
            a.bin(Bin::Sub, W::B8, RCX, Rm::Reg(RAX))
        }
    }
    a.store(W::B8, at(RDI, l.budget), RCX);
    a.cmp(W::B8, RCX, Rm::Mem(at(RDI, l.exit_request)));
    let stopped = a.jump_if(Cc::L);
    a.load(W::B2, RAX, Rm::Mem(at(RSI, l.op_heat)));
    a.bin_imm(Bin::Sub, W::B4, RAX, 1);
    a.store(W::B2, at(RSI, l.op_heat), RAX);
    [stopped, a.jump_if(Cc::E)]
}
