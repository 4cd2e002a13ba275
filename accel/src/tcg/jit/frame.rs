//! The state of the lowering inside a block: registers as values, flags not yet stored, memory ranges checked.
//!
//! Guest registers are SSA values. What an instruction that may leave finds changed and not in the env is stored by its way out,
//! as are flags and the address: general registers stay values until a call or the region's end, some of them round loops
//! ([`carried`](super::carried)); where ways meet that all come from before, what none of them has stored need not be. Vector
//! registers are stored before the instruction.

use super::{
    super::{
        env::{Env, HOT, Hot},
        ops::*,
        target::{Decoded, End, Target},
        tlb::{REGIMES, TLB, TlbEntry},
    },
    check::Group,
    form::Plan,
    thunk::Thunks,
    unit::Note,
    xmm::Xv,
};
use cranelift_codegen::ir::{
    self, AbiParam, Block, BlockArg, InstBuilder, MemFlagsData, SigRef, Signature, Type, Value,
    types::{I8, I8X16, I16, I32, I64},
};
use cranelift_codegen::{
    cursor::{Cursor, FuncCursor},
    isa::CallConv,
};
use cranelift_frontend::{FunctionBuilder, Variable};
use std::mem::offset_of;

/// Accesses to the env: aligned, never trap, and dead ones may be dropped.
pub(super) const ENV: MemFlagsData = MemFlagsData::trusted();
/// Accesses to guest memory.
pub(super) const GUEST: MemFlagsData = MemFlagsData::new().with_notrap();

/// The host follows an MXCSR, and the routines that load it for the guest change no register.
pub(super) const MXCSR: bool = cfg!(target_arch = "x86_64");

/// The CLIF type of a width.
pub(super) const fn ty(w: W) -> Type {
    match w {
        W::B1 => I8,
        W::B2 => I16,
        W::B4 => I32,
        W::B8 => I64,
    }
}

/// What instructions work on.
pub(super) type Term = crate::tcg::term::Term<Value>;
/// A side exit has ended the block.
#[derive(Debug)]
pub struct Ended;

/// The flags at a point.
#[derive(Clone, Copy)]
pub(super) enum Flags {
    /// In the env, of a producer that may be known.
    Env(Option<(u8, W)>),
    /// Not stored.
    Pending(Deferred<Term>),
    /// Not stored, and some are what they were before.
    Partly(Partly<Term>, Before),
}
/// Where flags are that some flags complete.
#[derive(Clone, Copy)]
pub(super) enum Before {
    Env(Option<(u8, W)>),
    Pending(Deferred<Term>),
}
/// Which flags a way out stores: producer and width, and, if that does not say all, which flags stay and of what producer they
/// are, in the env or among the arguments.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stored {
    of: (u8, W),
    kept: Option<(u32, Source)>,
}
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Env(Option<(u8, W)>),
    Arguments(u8, W),
}

/// What is known at a point of a block; blocks that only one edge leads to go on with what was known at its start.
#[derive(Clone)]
pub(super) struct State {
    pub cur: [Option<Term>; SLOTS],
    /// Changed and not in the env.
    pub dirty: u32,
    /// Other than their variable.
    pub changed: u32,
    /// In the env only: a call may have changed them.
    pub reload: u32,
    pub x: [Option<Xv>; 32],
    pub xdirty: u32,
    /// Of these only the low lane is not in the env.
    pub xlow: u32,
    pub xchanged: u32,
    pub xreload: u32,
    pub flags: Flags,
    /// What the instruction budget has beyond a round of the region ([`Clif::round`]), and instructions done since it had that value.
    pub budget: Value,
    pub done: u32,
    /// The guest's floating-point control is loaded.
    pub fp: bool,
    /// Its x87 unit is.
    pub unit: bool,
    /// The unit's pointers, not in the env.
    pub note: Option<Note>,
    /// Ranges that have been checked, by their place in [`Clif::groups`].
    pub groups: Vec<usize>,
    /// `root + off` that were computed.
    pub sums: Vec<(Value, u64, Value)>,
    /// Values of 64 bits and what they are the zero extension of.
    pub narrow: Vec<(Value, Value)>,
    /// Low lanes put into vectors: vector, lane, both.
    pub merges: Vec<(Value, Value, Value)>,
    /// Results of vector registers that must not be dropped and are not stored.
    pub pins: Vec<(usize, Value)>,
    /// A scalar comparison of floats that nobody has made so far: its flags have to be raised.
    pub compare: Option<Value>,
}

/// A way out before an instruction.
pub(super) struct Stub {
    block: Block,
    off: u16,
    flags: Option<Flags>,
    note: Option<Note>,
    budget: Value,
    done: u32,
    /// Registers that are not in the env.
    regs: Vec<(usize, Term)>,
}

/// How a region is left at an address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// Before an instruction that tier 0 has to run.
    Side,
    /// For a kick or the budget.
    Kick,
    /// For code elsewhere.
    Far,
}
/// Why a region returned.
pub(crate) mod exit {
    /// At an address (`Hot::ip`) no region is known for.
    pub const CHAIN: i64 = 1;
    /// Before an instruction that tier 0 has to run.
    pub const SIDE: i64 = 2;
    /// A kick, or the budget does not cover a round.
    pub const KICK: i64 = 3;
    /// Like a handler: the reason is in the env.
    pub const OUT: i64 = 4;
}

/// The lowering of one region.
pub struct Clif<'a, 'b, T: Target> {
    pub(super) b: &'a mut FunctionBuilder<'b>,
    pub(super) env: Value,
    /// Linear address of the page.
    pub(super) base: Value,
    pub(super) mask: u64,
    /// Offset of the regime's TLB in the env.
    pub(super) tlb: i32,
    vars: [Variable; SLOTS],
    pub(super) xvars: [Variable; 32],
    pub(super) budget: Variable,
    /// What a round may take: the region's instructions.
    pub(super) round: u64,
    /// By block, registers whose variable is read in it: general and vector ones.
    pub(super) read: Vec<[u32; 2]>,
    pub(super) s: State,
    /// Number of the block.
    pub(super) block: usize,
    // The instruction.
    pub(super) d: Decoded<T::Form>,
    pub(super) off: u16,
    /// Flags somebody may read after it, and whether any are of those it makes.
    pub(super) live_out: u32,
    pub(super) wanted: bool,
    /// Its lowering has met something that has to be called.
    pub(super) give_up: bool,
    /// Vector values its result is computed from.
    pub(super) consumed: Vec<Value>,
    /// Its result, if that must not be dropped.
    pub(super) fresh: Option<Value>,
    /// The guest's floating-point control is loaded wherever blocks meet.
    pub(super) fp_held: bool,
    /// Somebody needs it.
    pub(super) fp_used: bool,
    stub: Option<Block>,
    stubs: Vec<Stub>,
    /// Blocks that leave, by [`Exit`]: budget, and offset and instructions done packed.
    pub(super) exits: [Block; 3],
    /// Blocks before those, that store flags of a producer: also its values.
    flag_exits: Vec<((Exit, Stored), Block)>,
    pub(super) thunks: Thunks,
    call_sig: SigRef,
    /// Of routines that change no register: one argument.
    pub(super) quiet_sig: SigRef,
    /// Likewise with three.
    pub(super) fill_sig: SigRef,
    pub(super) groups: Vec<Group>,
    /// Instructions whose checks cover no others, and what those are relative to.
    pub(super) narrow: &'a [u16],
    pub(super) alone: Vec<Value>,
}

/// Offset of a field of [`Hot`] in the env.
pub(super) fn hot_at(field: usize) -> i32 {
    (HOT + field) as i32
}

impl<'a, 'b, T: Target> Clif<'a, 'b, T> {
    pub fn new(b: &'a mut FunctionBuilder<'b>, env: Value, base: Value, thunks: Thunks, plan: &'a Plan<T>) -> Self {
        let mode = plan.mode;
        let d = plan.insns.first().expect("a region has instructions").d;
        let vars = std::array::from_fn(|_| b.declare_var(I64));
        let xvars = std::array::from_fn(|_| b.declare_var(I8X16));
        let budget = b.declare_var(I64);
        let mut sig = Signature::new(CallConv::SystemV);
        sig.params = vec![AbiParam::new(I64); 2];
        sig.returns.push(AbiParam::new(I64));
        let exits = [(); 3].map(|()| {
            let block = b.create_block();
            b.set_cold_block(block);
            b.append_block_param(block, I64);
            b.append_block_param(block, I64);
            block
        });
        let call_sig = b.import_signature(sig);
        let mut quiet = Signature::new(if MXCSR { CallConv::PreserveAll } else { CallConv::SystemV });
        quiet.params = vec![AbiParam::new(I64)];
        let mut fill = quiet.clone();
        fill.params.extend([AbiParam::new(I64); 2]);
        let (quiet_sig, fill_sig) = (b.import_signature(quiet), b.import_signature(fill));
        let regime = (mode >> 24) as usize % REGIMES;
        let tlb = offset_of!(Env<T>, tlb) + regime * size_of::<TlbEntry>() * TLB;
        Clif {
            b,
            env,
            base,
            mask: T::address_mask(mode),
            tlb: tlb as i32,
            vars,
            xvars,
            budget,
            round: plan.insns.len() as u64,
            read: vec![[0; 2]; plan.blocks.len()],
            s: State::new(base),
            block: 0,
            d,
            off: 0,
            live_out: 0,
            wanted: false,
            give_up: false,
            consumed: Vec::new(),
            fresh: None,
            fp_held: false,
            fp_used: false,
            stub: None,
            stubs: Vec::new(),
            exits,
            flag_exits: Vec::new(),
            thunks,
            call_sig,
            quiet_sig,
            fill_sig,
            groups: Vec::new(),
            narrow: &plan.narrow,
            alone: Vec::new(),
        }
    }

    // ---- registers ----

    /// A register.
    pub(super) fn term(&mut self, s: Slot) -> Term {
        if s == ZERO {
            return Term::constant(0);
        }
        if s == PAGE {
            return self.base.into();
        }
        let i = s.index();
        if let Some(t) = self.s.cur[i] {
            return t;
        }
        let v = if self.s.reload >> i & 1 != 0 {
            self.s.reload &= !(1 << i);
            self.s.changed |= 1 << i;
            self.b.ins().load(I64, ENV, self.env, Self::reg_at(i))
        } else {
            self.read[self.block][0] |= 1 << i;
            self.b.use_var(self.vars[i])
        };
        self.s.cur[i] = Some(v.into());
        v.into()
    }
    pub(super) fn set_term(&mut self, s: Slot, t: Term) {
        let i = s.index();
        self.s.cur[i] = Some(t);
        self.s.dirty |= 1 << i;
        self.s.changed |= 1 << i;
        self.s.reload &= !(1 << i);
    }
    pub(super) fn reg_at(i: usize) -> i32 {
        hot_at(offset_of!(Hot, regs) + 8 * i)
    }
    pub(super) fn x_at(i: usize) -> i32 {
        hot_at(offset_of!(Hot, x) + 16 * i)
    }
    pub(super) fn store_hot(&mut self, v: Value, field: usize) {
        self.b.ins().store(ENV, v, self.env, hot_at(field));
    }
    /// Stores what changed: it is in the env for what follows.
    pub(super) fn flush(&mut self) {
        self.flush_but(0)
    }
    /// The same, but some general registers need not be.
    pub(super) fn flush_but(&mut self, carried: u32) {
        let go = self.s.dirty & !carried;
        self.s.dirty &= carried;
        for i in bits(go) {
            let t = self.s.cur[i].expect("a changed register has a value");
            let v = self.val(W::B8, t);
            self.b.ins().store(ENV, v, self.env, Self::reg_at(i));
        }
        self.flush_vectors()
    }
    /// Hands what changed over to blocks that start anew: general and vector registers.
    pub(super) fn define(&mut self) -> [u32; 2] {
        // (After a call the variables of all registers are stale.)
        for i in bits(self.s.reload & !(1 << ZERO.index() | 1 << PAGE.index())) {
            self.term(Slot(i as u8));
        }
        for i in bits(self.s.xreload) {
            self.xterm(Slot(i as u8));
        }
        let changed = [self.s.changed, self.s.xchanged];
        for i in bits(std::mem::take(&mut self.s.changed)) {
            let t = self.s.cur[i].expect("a changed register has a value");
            let v = self.val(W::B8, t);
            self.b.def_var(self.vars[i], v)
        }
        for i in bits(std::mem::take(&mut self.s.xchanged)) {
            let x = self.s.x[i].expect("a changed register has a value");
            let v = self.whole(x);
            let v = self.cast(v, I8X16);
            self.b.def_var(self.xvars[i], v)
        }
        if self.fp_held && !self.s.fp {
            self.load_fp()
        }
        self.store_note();
        self.s.budget = self.plus(self.s.budget, (self.s.done as u64).wrapping_neg());
        self.s.done = 0;
        self.b.def_var(self.budget, self.s.budget);
        changed
    }
    /// At one of the region's entries: registers that are read from there on, from the env.
    pub(super) fn load(&mut self, [read, xread]: [u32; 2]) {
        for i in bits(read) {
            let v = self.b.ins().load(I64, ENV, self.env, Self::reg_at(i));
            self.b.def_var(self.vars[i], v)
        }
        for i in bits(xread) {
            let v = self.b.ins().load(I8X16, ENV, self.env, Self::x_at(i));
            self.b.def_var(self.xvars[i], v)
        }
    }
    /// Starts a block about which nothing is known but, perhaps, the producer of the flags.
    pub(super) fn start(&mut self, kind: Option<(u8, W)>) {
        let budget = self.b.use_var(self.budget);
        self.s = State::new(budget);
        self.s.flags = Flags::Env(kind);
        self.s.fp = self.fp_held
    }
    /// The same with registers that need not be in the env.
    pub(super) fn start_with(&mut self, kind: Option<(u8, W)>, carried: u32) {
        self.start(kind);
        for i in bits(carried) {
            self.term(Slot(i as u8));
        }
        self.s.dirty = carried
    }
    /// What is known on all ways to a block that was just started; says which registers none of them has stored.
    pub(super) fn join(&mut self, known: State) -> u32 {
        let State { cur, dirty, sums, narrow, groups, .. } = known;
        (self.s.cur, self.s.sums, self.s.narrow, self.s.groups) = (cur, sums, narrow, groups);
        for i in bits(dirty) {
            self.term(Slot(i as u8));
        }
        self.s.dirty = dirty;
        dirty
    }
    /// Registers that are not in the env, and their values.
    pub(super) fn unstored(&mut self) -> Vec<(usize, Value)> {
        let mut regs = Vec::new();
        for i in bits(self.s.dirty) {
            let t = self.s.cur[i].expect("a changed register has a value");
            regs.push((i, self.val(W::B8, t)))
        }
        regs
    }
    /// Stores registers before an instruction.
    pub(super) fn store_before(&mut self, at: ir::Inst, regs: impl Iterator<Item = (usize, Value)>) {
        let mut cursor = FuncCursor::new(self.b.func).at_inst(at);
        for (i, v) in regs {
            cursor.ins().store(ENV, v, self.env, Self::reg_at(i));
        }
    }
    /// The instruction budget when `done` instructions have been run.
    pub(super) fn budget_left(&mut self, done: u32) -> Value {
        self.plus(self.s.budget, self.round.wrapping_sub(done.into()))
    }

    // ---- flags ----

    /// Stores pending flags.
    pub(super) fn store_flags(&mut self, d: Deferred<Term>) {
        let cc = self.k(I64, (d.w as u64) << 8 | d.kind as u64);
        self.store_hot(cc, offset_of!(Hot, cc));
        let used = T::flag_values(d.kind);
        for (i, t) in d.v.into_iter().enumerate() {
            if used >> i & 1 != 0 {
                let v = self.val(d.w, t);
                let v = self.resize(W::B8, v);
                self.store_hot(v, offset_of!(Hot, cc_v) + 8 * i)
            }
        }
    }
    /// The flags are in the env.
    pub(super) fn settle_flags(&mut self) {
        if let Flags::Env(_) = self.s.flags {
            return;
        }
        let d = self.flags();
        self.store_flags(d);
        self.s.flags = Flags::Env(Some((d.kind, d.w)))
    }
    /// The producer of the flags, if it is known.
    pub(super) fn flags_kind(&self) -> Option<(u8, W)> {
        match self.s.flags {
            Flags::Env(k) => k,
            Flags::Pending(d) | Flags::Partly(Partly { new: d, .. }, _) => Some((d.kind, d.w)),
        }
    }
    /// The flags as values, computed by a call if their producer is not known.
    pub(super) fn flags(&mut self) -> Deferred<Term> {
        match self.s.flags {
            Flags::Pending(d) => d,
            Flags::Env(k) => {
                let d = self.stored_flags(k);
                self.s.flags = Flags::Env(Some((d.kind, d.w)));
                d
            }
            Flags::Partly(p, before) => {
                let old = match before {
                    Before::Pending(d) => d,
                    Before::Env(k) => self.stored_flags(k),
                };
                let d = T::complete(self, old, p);
                self.s.flags = Flags::Pending(d);
                d
            }
        }
    }
    /// The flags in the env, of a producer that may be known.
    fn stored_flags(&mut self, producer: Option<(u8, W)>) -> Deferred<Term> {
        let (kind, w) = match producer {
            Some(k) => k,
            None => {
                // (It changes nothing else.)
                let (none, fp) = (self.k(I64, 0), self.s.fp);
                self.call(self.thunks.settle, none);
                self.s.fp = fp;
                T::SETTLED
            }
        };
        let used = T::flag_values(kind);
        let v = std::array::from_fn(|i| {
            if used >> i & 1 == 0 {
                return Term::constant(0);
            }
            self.b.ins().load(ty(w), ENV, self.env, hot_at(offset_of!(Hot, cc_v) + 8 * i)).into()
        });
        Deferred { kind, w, v }
    }

    // ---- ways out ----

    /// Begins an instruction.
    pub(super) fn begin(&mut self, d: Decoded<T::Form>, off: u16, live_out: u32) {
        // What always writes nothing may still write now and then: a shift by CL.
        let wanted = if d.writes == 0 { live_out != 0 } else { live_out & d.writes != 0 };
        (self.d, self.off, self.wanted, self.stub, self.give_up) = (d, off, wanted, None, false);
        self.live_out = live_out;
        self.consumed.clear();
        self.fresh = None;
        // (A branch may make it.)
        if !matches!(d.end, End::If(_)) {
            self.compare_now(None)
        }
    }
    /// The block that leaves before this instruction, which stores general registers and flags; vector registers must be in the env.
    pub(super) fn leave_here(&mut self) -> Block {
        if let Some(s) = self.stub {
            return s;
        }
        let block = self.b.create_block();
        self.b.set_cold_block(block);
        let flags = self.pending();
        let note = self.s.note;
        let regs = bits(self.s.dirty).map(|i| (i, self.s.cur[i].expect("a changed register has a value"))).collect();
        self.stubs.push(Stub { block, off: self.off, flags, note, budget: self.s.budget, done: self.s.done, regs });
        self.stub = Some(block);
        block
    }
    /// Leaves before this instruction if `c` holds.
    pub(super) fn leave_if(&mut self, c: Value) {
        self.flush_vectors();
        let stub = self.leave_here();
        let go_on = self.b.create_block();
        self.b.ins().brif(c, stub, &[], go_on, &[]);
        self.b.switch_to_block(go_on);
        self.b.seal_block(go_on);
    }
    /// Ends the block by leaving before this instruction.
    pub(super) fn leave(&mut self) {
        self.flush_vectors();
        let s = self.leave_here();
        self.b.ins().jump(s, &[]);
    }
    /// Emits the ways out; nothing else may follow in the block.
    pub(super) fn finish_stubs(&mut self) {
        for s in std::mem::take(&mut self.stubs) {
            self.b.switch_to_block(s.block);
            self.b.seal_block(s.block);
            let known = (self.s.sums.len(), self.s.narrow.len());
            // (What this block computed may not be known in the next.)
            let (sums, narrow) = (std::mem::take(&mut self.s.sums), std::mem::take(&mut self.s.narrow));
            self.s.note = s.note;
            self.store_note();
            for (i, t) in s.regs {
                let v = self.val(W::B8, t);
                self.b.ins().store(ENV, v, self.env, Self::reg_at(i));
            }
            (self.s.budget, self.s.done) = (s.budget, s.done);
            self.leave_at(s.off.into(), Exit::Side, s.flags);
            (self.s.sums, self.s.narrow) = (sums, narrow);
            debug_assert_eq!(known, (self.s.sums.len(), self.s.narrow.len()));
        }
    }
    /// Leaves at an offset of the page by one of the blocks that all ways of a kind share, which also store pending flags.
    /// (Most of a region's ways out are never taken: what they all do is compiled once.)
    pub(super) fn leave_at(&mut self, off: i64, by: Exit, flags: Option<Flags>) {
        let k = self.k(I64, (off as u64) << 16 | self.s.done as u64 & 0xffff);
        let (d, kept) = match flags {
            None | Some(Flags::Env(_)) => {
                self.b.ins().jump(self.exits[by as usize], &[self.s.budget.into(), k.into()]);
                return;
            }
            Some(Flags::Pending(d)) => (d, None),
            Some(Flags::Partly(p, before)) => (p.new, Some((p.kept, before))),
        };
        let mut args = vec![self.s.budget, k];
        for t in self.flag_terms(&d) {
            args.push(self.val(d.w, t))
        }
        let kept = kept.map(|(kept, before)| match before {
            Before::Env(k) => (kept, Source::Env(k)),
            Before::Pending(old) => {
                for t in self.flag_terms(&old) {
                    args.push(self.val(old.w, t))
                }
                (kept, Source::Arguments(old.kind, old.w))
            }
        });
        let key = (by, Stored { of: (d.kind, d.w), kept });
        let to = match self.flag_exits.iter().find(|e| e.0 == key) {
            Some(e) => e.1,
            None => {
                let block = self.b.create_block();
                self.b.set_cold_block(block);
                for a in &args {
                    let t = self.b.func.dfg.value_type(*a);
                    self.b.append_block_param(block, t);
                }
                self.flag_exits.push((key, block));
                block
            }
        };
        let args: Vec<BlockArg> = args.into_iter().map(BlockArg::from).collect();
        self.b.ins().jump(to, &args);
    }
    /// Emits the blocks that store flags.
    pub(super) fn finish_flag_exits(&mut self) {
        for ((by, stored), block) in std::mem::take(&mut self.flag_exits) {
            self.b.switch_to_block(block);
            let p = self.b.block_params(block).to_vec();
            let mut values = p.iter().skip(2);
            let mut next = |(kind, w)| {
                let used = T::flag_values(kind);
                let v = std::array::from_fn(|i| match used >> i & 1 {
                    0 => Term::constant(0),
                    _ => (*values.next().expect("a parameter for each value")).into(),
                });
                Deferred { kind, w, v }
            };
            let new = next(stored.of);
            let old = match stored.kept {
                Some((kept, Source::Arguments(kind, w))) => Some((kept, Ok(next((kind, w))))),
                Some((kept, Source::Env(k))) => Some((kept, Err(k))),
                None => None,
            };
            (self.s.sums, self.s.narrow) = (Vec::new(), Vec::new());
            let d = match old {
                None => new,
                Some((kept, old)) => {
                    let old = old.unwrap_or_else(|k| self.stored_flags(k));
                    T::complete(self, old, Partly { new, kept })
                }
            };
            self.store_flags(d);
            self.b.ins().jump(self.exits[by as usize], &[p[0].into(), p[1].into()]);
        }
    }
    /// The values of flags that mean something.
    fn flag_terms(&self, d: &Deferred<Term>) -> impl Iterator<Item = Term> + use<T> {
        let used = T::flag_values(d.kind);
        d.v.into_iter().enumerate().filter(move |(i, _)| used >> i & 1 != 0).map(|(_, t)| t)
    }
    /// The flags, if they are not in the env.
    pub(super) fn pending(&self) -> Option<Flags> {
        (!matches!(self.s.flags, Flags::Env(_))).then_some(self.s.flags)
    }
    /// An address cut to the mode's width.
    pub(super) fn masked(&mut self, ip: Value) -> Value {
        if self.mask == u64::MAX {
            return ip;
        }
        let m = self.k(I64, self.mask);
        self.b.ins().band(ip, m)
    }

    // ---- calls ----

    /// Calls a thunk with the env and a second word; the result.
    pub(super) fn call(&mut self, thunk: usize, with: Value) -> Value {
        let f = self.k(I64, thunk as u64);
        let call = self.b.ins().call_indirect(self.call_sig, f, &[self.env, with]);
        self.s.fp = false;
        self.b.inst_results(call)[0]
    }
    /// Calls a routine that changes no register.
    pub(super) fn call_quietly(&mut self, routine: Value, with: Value) {
        self.b.ins().call_indirect(self.quiet_sig, routine, &[with]);
    }
    /// What a call may have changed is not known any more.
    pub(super) fn forget(&mut self, gpr: u32, x: u32) {
        for i in bits(gpr) {
            self.s.cur[i] = None
        }
        for i in bits(x) {
            self.s.x[i] = None
        }
        self.s.changed &= !gpr;
        self.s.xchanged &= !x;
        self.s.reload |= gpr;
        self.s.xreload |= x;
        self.s.groups.clear();
        // (Whether an instruction that may leave them alone did is not known.)
        self.s.flags = Flags::Env(None)
    }
}

impl State {
    /// Forgets what is not known at another point as well; both have handed registers over ([`Clif::define`]).
    pub(super) fn meet(&mut self, o: &State) {
        for (t, other) in self.cur.iter_mut().zip(o.cur) {
            *t = t.filter(|t| other == Some(*t))
        }
        self.dirty &= o.dirty;
        self.groups.retain(|g| o.groups.contains(g));
        self.sums.retain(|s| o.sums.contains(s));
        self.narrow.retain(|n| o.narrow.contains(n))
    }
    fn new(budget: Value) -> State {
        State {
            cur: [None; SLOTS],
            dirty: 0,
            changed: 0,
            reload: 0,
            x: [None; 32],
            xdirty: 0,
            xlow: 0,
            xchanged: 0,
            xreload: 0,
            flags: Flags::Env(None),
            budget,
            done: 0,
            fp: false,
            unit: false,
            note: None,
            groups: Vec::new(),
            sums: Vec::new(),
            narrow: Vec::new(),
            merges: Vec::new(),
            pins: Vec::new(),
            compare: None,
        }
    }
}
/// The numbers of the bits that are set.
pub(super) fn bits(mut m: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let i = m.trailing_zeros() as usize;
        (m != 0).then(|| {
            m &= m - 1;
            i
        })
    })
}
