//! A region as one function: prologue, blocks, edges, ways out.

use super::{
    super::{
        env::{Env, Hot, Op},
        ops::*,
        target::{End, Target},
        tier0::exec_dyn,
    },
    carried::carried,
    form::{Edge, Plan, Request},
    frame::*,
    go::{go_on, look_up, region_signature},
    stubs::Stubs,
    thunk::{Item, Thunks},
};
use cranelift_codegen::ir::{
    self, Block, Function, InstBuilder, MemFlagsData, UserFuncName, Value, condcodes::IntCC, types::I64,
};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use std::{
    collections::{HashMap, hash_map::Entry},
    mem::offset_of,
};

/// An edge that needs code of its own.
struct Way {
    block: Block,
    from: State,
    to: Edge,
    /// Control always goes this way at its end of the block.
    always: bool,
    /// It leads into the second page.
    crosses: bool,
}

/// A block where ways meet that all come from blocks lowered before: what is known on all of them, and each of them as its jump and what
/// it has not stored.
struct Join {
    known: State,
    ways: Vec<(ir::Inst, Vec<(usize, Value)>)>,
}

/// The lowering of a region; see [`Clif`] for what happens inside a block.
struct Lower<'a, 'b, T: Target> {
    c: Clif<'a, 'b, T>,
    plan: &'a Plan<T>,
    q: &'a Request,
    items: &'a [Item<T>],
    stubs: &'a Stubs,
    blocks: Vec<Block>,
    /// What blocks with one edge go on with.
    states: HashMap<usize, State>,
    /// Places of blocks in the order they are lowered in.
    place: Vec<usize>,
    /// Which blocks can be joins, and what has come to those so far.
    joins: Vec<bool>,
    joined: HashMap<usize, Join>,
    /// Producers of the flags at the ends of edges seen so far, and how many those are.
    kinds: HashMap<usize, (usize, Option<(u8, W)>)>,
    ways: Vec<Way>,
    /// Ways from block to block, and registers that got new values on them.
    flow: Vec<(usize, usize, [u32; 2])>,
    /// Leaves as a rare instruction said: the parameter.
    rare_out: Option<Block>,
    /// Leaves because the jump cache knows no region: address and budget are the parameters.
    unknown: Option<Block>,
    /// By block, registers that need not be in the env at its start.
    carried: Vec<u32>,
}

/// The instructions of a region as thunks see them.
pub(super) fn items<T: Target>(plan: &Plan<T>, q: &Request) -> Box<[Item<T>]> {
    plan.insns
        .iter()
        .map(|i| {
            // (Thunks know addresses from the page of the instruction, the region knows them from its own.)
            let again =
                (i.off >= 4096).then(|| T::decode(&q.bytes[i.off as usize..], i.off as u32 & 0xfff, q.mode).ok());
            let d = again.flatten().unwrap_or(i.d);
            let op = Op {
                run: exec_dyn::<T>,
                imm: d.imm,
                disp: d.disp,
                r: d.r.map(|s| s.0),
                form: 0,
                off: i.off & 0xfff | (d.seg as u16) << 12,
                heat: 0,
                n: 1,
                len_scale: d.len & 15 | (d.scale & 3) << 4,
            };
            Item { op, form: d.form }
        })
        .collect()
}

/// The region as a function.
pub(super) fn lower<T: Target>(
    plan: &Plan<T>,
    q: &Request,
    items: &[Item<T>],
    stubs: &Stubs,
    ctx: &mut FunctionBuilderContext,
    frontend: cranelift_codegen::isa::TargetFrontendConfig,
) -> Function {
    let mut func = Function::with_name_signature(UserFuncName::default(), region_signature());
    let mut b = FunctionBuilder::new(&mut func, ctx);
    let start = b.create_block();
    b.append_block_params_for_function_params(start);
    b.switch_to_block(start);
    b.seal_block(start);
    let params = b.block_params(start).to_vec();
    let [env, entry, ip, left] = params[..] else { unreachable!("as in the signature") };
    let page = b.ins().iconst(I64, !0xfff);
    let base = b.ins().band(ip, page);
    let prologue = b.create_block();
    b.ins().jump(prologue, &[]);
    let blocks = plan.blocks.iter().map(|_| b.create_block()).collect();
    let mut c = Clif::<T>::new(&mut b, env, base, Thunks::of::<T>(), plan);
    c.fp_held = plan.blocks.iter().all(|s| {
        let inside = [s.taken, s.next].iter().any(|e| matches!(e, Some(Edge::In(_))));
        !inside || !plan.insns[s.insns.clone()].iter().any(|i| T::is_rare(i.d.form))
    });
    let place = plan.places();
    let joins = plan.joins(&place);
    let carried = carried(plan, q, &place);
    let mut l = Lower {
        c,
        plan,
        q,
        items,
        stubs,
        blocks,
        states: HashMap::new(),
        place,
        joins,
        joined: HashMap::new(),
        kinds: HashMap::new(),
        ways: Vec::new(),
        flow: Vec::new(),
        rare_out: None,
        unknown: None,
        carried,
    };
    for n in plan.order() {
        l.block(n)
    }
    l.exits();
    l.prologue(prologue, [entry, ip, left]);
    b.seal_all_blocks();
    b.finalize(frontend);
    func
}

impl<T: Target> Lower<'_, '_, T> {
    fn block(&mut self, n: usize) {
        let shape = &self.plan.blocks[n];
        let c = &mut self.c;
        c.b.switch_to_block(self.blocks[n]);
        c.block = n;
        match self.states.remove(&n) {
            Some(s) => {
                c.b.seal_block(self.blocks[n]);
                c.s = s
            }
            None => {
                let kind = match self.kinds.get(&n) {
                    Some(&(seen, kind)) if seen == shape.edges => kind,
                    _ => None,
                };
                match self.joined.remove(&n) {
                    None => c.start_with(kind, self.carried[n]),
                    Some(j) => {
                        c.b.seal_block(self.blocks[n]);
                        c.start(kind);
                        let stays = c.join(j.known);
                        for (jump, regs) in j.ways {
                            c.store_before(jump, regs.into_iter().filter(|r| stays >> r.0 & 1 == 0))
                        }
                    }
                }
            }
        }
        let mut open = true;
        for k in shape.insns.clone() {
            let last = k + 1 == shape.insns.end;
            if !self.insn(k, last) {
                open = false;
                break;
            }
        }
        if open && let Some(to) = shape.next {
            // (Falls into another block, or leaves.)
            self.c.compare_now(None);
            let t = self.edge(to, true);
            self.c.b.ins().jump(t, &[]);
        }
        self.ways_out();
        self.c.finish_stubs();
    }

    /// One instruction; false if the block has ended.
    fn insn(&mut self, k: usize, last: bool) -> bool {
        let i = &self.plan.insns[k];
        let c = &mut self.c;
        c.begin(i.d, i.off, i.live_out);
        let first = k == self.plan.blocks[c.block].insns.start;
        if let (Some(next), false) = (self.plan.next, first) {
            let before = &self.plan.insns[k - 1];
            if self.plan.crosses(before.off as usize + before.d.len as usize, i) {
                let moved = c.next_page_moved(next);
                c.leave_if(moved)
            }
        }
        if T::is_rare(i.d.form) {
            return self.rare(k);
        }
        let before = c.s.clone();
        let flow = match T::run::<_, super::super::target::AnyFamily>(c, i.d.form) {
            Ok(f) => f,
            Err(Ended) => return false,
        };
        if c.give_up {
            c.s = State { groups: std::mem::take(&mut c.s.groups), ..before };
            return match flow {
                Flow::Next if !last || i.d.end == End::Next => self.one(k),
                _ => {
                    c.leave();
                    false
                }
            };
        }
        if !matches!(flow, Flow::Next) {
            c.compare_now(if let Flow::If(cond) = flow { Some(cond) } else { None })
        }
        let shape = &self.plan.blocks[c.block];
        match flow {
            Flow::Next => {
                c.s.done += 1;
                return true;
            }
            Flow::Goto => {
                c.s.done += 1;
                let t = self.edge(shape.taken.expect("a direct branch has a target"), true);
                self.c.b.ins().jump(t, &[]);
            }
            Flow::If(cond) => {
                c.s.done += 1;
                let t = self.edge(shape.taken.expect("a direct branch has a target"), false);
                let n = self.edge(shape.next.expect("a conditional branch may go on"), false);
                self.c.b.ins().brif(cond, t, &[], n, &[]);
            }
            Flow::To(to) => {
                c.s.done += 1;
                let ip = c.val(W::B8, to);
                self.go(ip)
            }
            Flow::Rare => c.leave(),
        }
        false
    }

    /// An instruction on the whole CPU.
    fn rare(&mut self, k: usize) -> bool {
        let c = &mut self.c;
        c.flush();
        c.settle_flags();
        c.store_note();
        self.set_page();
        let c = &mut self.c;
        let left = c.budget_left(c.s.done + 1);
        c.store_hot(left, offset_of!(Hot, budget));
        let item = c.k(I64, &raw const self.items[k] as u64);
        let out = c.call(c.thunks.rare, item);
        c.s.unit = false;
        let leave = *self.rare_out.get_or_insert_with(|| {
            let block = c.b.create_block();
            c.b.append_block_param(block, I64);
            c.b.set_cold_block(block);
            block
        });
        let stay = c.b.create_block();
        c.b.ins().brif(out, leave, &[out.into()], stay, &[]);
        c.b.switch_to_block(stay);
        c.b.seal_block(stay);
        let (slots, x) = T::changes(self.plan.insns[k].d.form);
        c.forget(slots & !(1 << ZERO.index() | 1 << PAGE.index()), x);
        let left = c.b.ins().load(I64, ENV, c.env, hot_at(offset_of!(Hot, budget)));
        c.s.budget = c.plus(left, c.round.wrapping_neg());
        c.s.done = 0;
        true
    }
    /// An instruction by tier 0's frame.
    fn one(&mut self, k: usize) -> bool {
        let c = &mut self.c;
        c.flush();
        c.settle_flags();
        self.set_page();
        let c = &mut self.c;
        let item = c.k(I64, &raw const self.items[k] as u64);
        let fp = c.s.fp;
        let out = c.call(c.thunks.one, item);
        c.s.fp = fp;
        c.leave_if(out);
        // (What is called this way has one destination, in the first field.)
        let dst = 1 << c.d.r[0].index();
        c.forget(dst & !(1 << ZERO.index() | 1 << PAGE.index()), dst);
        c.s.done += 1;
        true
    }

    /// Thunks find the page of the instruction in its register.
    fn set_page(&mut self) {
        let c = &mut self.c;
        let page = c.val(W::B8, Term { root: Some(c.base), off: c.off as u64 & 0x1000 });
        c.store_hot(page, offset_of!(Hot, regs) + 8 * PAGE.index())
    }

    /// The CLIF block an edge leads to.
    fn edge(&mut self, to: Edge, always: bool) -> Block {
        let mut crosses = false;
        if let Edge::In(n) = to {
            let shape = &self.plan.blocks[n];
            let kind = self.c.flags_kind();
            let k = self.kinds.entry(n).or_insert((0, kind));
            k.0 += 1;
            if k.1 != kind {
                k.1 = None
            }
            let head = &self.plan.insns[shape.insns.start];
            crosses = self.plan.crosses(self.c.off as usize + self.c.d.len as usize, head);
            // (Both ways of a branch may lead to one block.)
            if shape.edges == 1 && !crosses {
                self.flow.push((self.c.block, n, [0; 2]));
                self.states.insert(n, self.c.s.clone());
                return self.blocks[n];
            }
        }
        let block = self.c.b.create_block();
        if matches!(to, Edge::Out(_)) && !always {
            self.c.b.set_cold_block(block)
        }
        self.ways.push(Way { block, from: self.c.s.clone(), to, always, crosses });
        block
    }
    /// Code of the edges of a block.
    fn ways_out(&mut self) {
        for w in std::mem::take(&mut self.ways) {
            let c = &mut self.c;
            c.b.switch_to_block(w.block);
            c.b.seal_block(w.block);
            c.s = w.from;
            match w.to {
                // (A jump that all share is foretold badly; one for each way out is too much code for what was never run.)
                Edge::Out(off) if w.always || self.q.was_run(off) => {
                    let ip = c.val(W::B8, Term { root: Some(c.base), off: off as u64 });
                    let ip = c.masked(ip);
                    self.go(ip)
                }
                Edge::Out(off) => {
                    c.flush();
                    c.store_note();
                    let flags = c.pending();
                    c.leave_at(off, Exit::Far, flags)
                }
                Edge::In(n) => {
                    let shape = &self.plan.blocks[n];
                    let head = self.plan.insns[shape.insns.start].off;
                    if let (Some(next), true) = (self.plan.next, w.crosses) {
                        let moved = c.next_page_moved(next);
                        let (out, go_on) = (c.b.create_block(), c.b.create_block());
                        c.b.set_cold_block(out);
                        c.flush();
                        c.b.ins().brif(moved, out, &[], go_on, &[]);
                        c.b.switch_to_block(out);
                        c.b.seal_block(out);
                        let inside = c.s.clone();
                        c.store_note();
                        let flags = c.pending();
                        c.leave_at(head.into(), Exit::Far, flags);
                        c.s = inside;
                        c.b.switch_to_block(go_on);
                        c.b.seal_block(go_on);
                        if shape.edges == 1 {
                            self.flow.push((c.block, n, [0; 2]));
                            self.states.insert(n, c.s.clone());
                            c.b.ins().jump(self.blocks[n], &[]);
                            continue;
                        }
                    }
                    let joins = self.joins[n];
                    if joins {
                        c.flush_vectors()
                    } else {
                        c.flush_but(self.carried[n])
                    }
                    if shape.live_in != 0 {
                        c.settle_flags()
                    }
                    let pending = c.pending();
                    self.flow.push((c.block, n, c.define()));
                    if joins {
                        let regs = c.unstored();
                        let way = (c.b.ins().jump(self.blocks[n], &[]), regs);
                        match self.joined.entry(n) {
                            Entry::Occupied(mut e) => {
                                let j = e.get_mut();
                                j.known.meet(&c.s);
                                j.ways.push(way)
                            }
                            Entry::Vacant(e) => _ = e.insert(Join { known: c.s.clone(), ways: vec![way] }),
                        }
                    } else if self.place[n] <= self.place[c.block] {
                        self.back_edge(n, head, pending)
                    } else {
                        c.b.ins().jump(self.blocks[n], &[]);
                    }
                }
            }
        }
    }
    /// Goes round only if nobody waits and the budget covers it.
    fn back_edge(&mut self, n: usize, head: u16, flags: Option<Flags>) {
        let c = &mut self.c;
        let kick = c.b.create_block();
        c.b.set_cold_block(kick);
        let stop = Self::kicked(c);
        c.b.ins().brif(stop, kick, &[], self.blocks[n], &[]);
        c.b.switch_to_block(kick);
        c.b.seal_block(kick);
        c.flush();
        c.leave_at(head.into(), Exit::Kick, flags);
    }
    /// Whether the vCPU is kicked or the budget does not cover another round.
    fn kicked(c: &mut Clif<'_, '_, T>) -> Value {
        // (Atomic: the load may not be moved out of a loop.)
        let at = c.k(I64, offset_of!(Env<T>, shared.exit_request) as u64);
        let p = c.b.ins().iadd(c.env, at);
        let limit = c.b.ins().atomic_load(I64, MemFlagsData::trusted(), p);
        c.b.ins().icmp(IntCC::SignedLessThan, c.s.budget, limit)
    }
    /// Leaves for a linear address.
    fn go(&mut self, ip: Value) {
        let c = &mut self.c;
        c.flush();
        c.settle_flags();
        c.store_note();
        let left = c.budget_left(c.s.done);
        // (Each with a jump of its own, whose target the host learns to foretell.)
        let unknown = *self.unknown.get_or_insert_with(|| {
            let block = c.b.create_block();
            c.b.set_cold_block(block);
            c.b.append_block_param(block, I64);
            c.b.append_block_param(block, I64);
            block
        });
        look_up::<T>(c.b, c.env, (ip, left), false, (unknown, &[ip.into(), left.into()]))
    }
    /// What all ways out share: most of it is outside.
    fn exits(&mut self) {
        self.c.finish_flag_exits();
        let wide = usize::from(self.c.mask == u64::MAX);
        for (block, stub) in self.c.exits.into_iter().zip(self.stubs.exits) {
            let c = &mut self.c;
            c.b.switch_to_block(block);
            let [budget, k] = [0, 1].map(|i| c.b.block_params(block)[i]);
            let code = c.k(I64, stub[wide] as u64);
            let left = c.plus(budget, c.round);
            go_on(c.b, code, [c.env, k, c.base, left])
        }
        if let Some(block) = self.rare_out {
            let c = &mut self.c;
            c.b.switch_to_block(block);
            let why = c.b.block_params(block)[0];
            let chain = c.k(I64, exit::CHAIN as u64);
            let on = c.b.ins().icmp(IntCC::Equal, why, chain);
            let (known, out) = (c.b.create_block(), c.b.create_block());
            c.b.set_cold_block(known);
            c.b.set_cold_block(out);
            c.b.ins().brif(on, known, &[], out, &[]);
            c.b.switch_to_block(out);
            c.b.ins().return_(&[why]);
            c.b.switch_to_block(known);
            let [ip, left] =
                [offset_of!(Hot, ip), offset_of!(Hot, budget)].map(|f| c.b.ins().load(I64, ENV, c.env, hot_at(f)));
            // (Nothing has been done since.)
            let [code, none] = [self.stubs.exits[Exit::Far as usize][1] as u64, 0].map(|v| c.k(I64, v));
            go_on(c.b, code, [c.env, none, ip, left])
        }
        if let Some(block) = self.unknown {
            let c = &mut self.c;
            c.b.switch_to_block(block);
            let [ip, left] = [0, 1].map(|i| c.b.block_params(block)[i]);
            let code = c.k(I64, self.stubs.unknown as u64);
            go_on(c.b, code, [c.env, ip, ip, left])
        }
    }
    /// Checks that a round may begin, goes to the block of the entry with the registers loaded that are read from there on.
    fn prologue(&mut self, prologue: Block, [entry, ip, left]: [Value; 3]) {
        let live = self.live();
        let c = &mut self.c;
        c.b.switch_to_block(prologue);
        c.s.budget = c.plus(left, c.round.wrapping_neg());
        c.b.def_var(c.budget, c.s.budget);
        let stop = Self::kicked(c);
        let (kick, go) = (c.b.create_block(), c.b.create_block());
        c.b.set_cold_block(kick);
        c.b.ins().brif(stop, kick, &[], go, &[]);
        c.b.switch_to_block(kick);
        c.store_hot(ip, offset_of!(Hot, ip));
        c.store_hot(left, offset_of!(Hot, budget));
        let why = c.k(I64, exit::KICK as u64);
        c.b.ins().return_(&[why]);
        c.b.switch_to_block(go);
        if c.fp_held && c.fp_used {
            c.load_fp()
        }
        self.enter(entry, 0..self.plan.entries.len(), &live)
    }
    /// Goes to the block of one of the entries. (By branches, which the host foretells better than jumps through a table that lies in
    /// cold memory.)
    fn enter(&mut self, entry: Value, among: std::ops::Range<usize>, live: &[[u32; 2]]) {
        let c = &mut self.c;
        if among.len() == 1 {
            let to = self.plan.entries[among.start];
            c.load(live[to]);
            c.b.ins().jump(self.blocks[to], &[]);
            return;
        }
        let middle = among.start + among.len() / 2;
        let k = c.k(I64, middle as u64);
        let below = c.b.ins().icmp(IntCC::UnsignedLessThan, entry, k);
        let halves = [(); 2].map(|()| c.b.create_block());
        c.b.ins().brif(below, halves[0], &[], halves[1], &[]);
        for (half, among) in halves.into_iter().zip([among.start..middle, middle..among.end]) {
            self.c.b.switch_to_block(half);
            self.c.b.seal_block(half);
            self.enter(entry, among, live)
        }
    }
    /// By block, registers that may be read, from there on, before they get new values.
    fn live(&self) -> Vec<[u32; 2]> {
        let mut live = self.c.read.clone();
        loop {
            let before = live.clone();
            for &(from, to, changed) in self.flow.iter().rev() {
                for k in 0..2 {
                    live[from][k] |= live[to][k] & !changed[k]
                }
            }
            if live == before {
                return live;
            }
        }
    }
}
