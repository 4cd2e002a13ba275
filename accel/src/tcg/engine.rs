//! A vCPU: the dispatcher and the run loop around tier 0.
#![expect(unsafe_code, reason = "owns the env")]

use super::{
    bus::Bus,
    env::*,
    group::Group,
    insight::{traced, wanted},
    jit::{self, Region},
    mem::{Cpu, Fields, Mem, copy_out},
    mode,
    ops::{Deferred, PAGE},
    page::{HotBlock, Pages, Room},
    target::*,
    tier0::{self, reason},
    tlb::{self, Counters, Inner, read_spot, spot},
    torture::Torture,
};
use std::{
    alloc::Layout,
    cell::UnsafeCell,
    marker::PhantomData,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU32, Ordering::*},
    },
};

/// Why [`Vcpu::run`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The instruction budget is used up.
    Budget,
    /// [`Kick::stop`].
    Stopped,
    /// The vCPU halted; run it again when it has been kicked.
    Halted,
    /// The target's own exit ([`Rare::Exit`]).
    Target(u32),
}

/// The env's memory, reached by kickers through an `Arc`.
struct Owner<T: Target>(NonNull<Env<T>>);
// SAFETY: an env is (module text of `env.rs`).
unsafe impl<T: Target> Send for Owner<T> {}
// SAFETY: as above; only `shared` and the TLB's atomics are touched through a shared owner.
unsafe impl<T: Target> Sync for Owner<T> {}
impl<T: Target> Reach for Owner<T> {
    fn shared(&self) -> &Shared {
        // SAFETY: live as long as its owner; atomics and a mutex only.
        unsafe { (&raw const (*self.0.as_ptr()).shared).as_ref().expect("a field of the env") }
    }
    fn protect(&self, host: usize, len: usize) {
        tlb::protect(self.0, host, len)
    }
}
impl<T: Target> Drop for Owner<T> {
    fn drop(&mut self) {
        // SAFETY: made by `Vcpu::new`, and this is the last user.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) })
    }
}

/// Copies bytes of a host page. The page must be mapped: one of RAM or ROM that the vCPU has translated to or decoded, and
/// has not been asked to flush since.
fn fetch(host: usize, at: usize, data: &mut [u8]) {
    debug_assert!(at + data.len() <= 4096);
    let p = std::ptr::with_exposed_provenance_mut::<u8>(host + at);
    // SAFETY: inside the page, which is mapped (above).
    unsafe { copy_out(p, data) }
}

/// Tells of guest code that has been decoded (`-d in_asm`).
fn log_code<T: Target>(group: &Group, pc: u64, mode: u32, code: &[u8]) {
    if group.insight.covers(pc) && !code.is_empty() {
        let text = T::disassemble(code, pc, mode);
        tracing::trace!(target: "in_asm", "----------------\nIN: \n{text}");
    }
}

/// A vCPU. Owned by the thread that runs it.
pub struct Vcpu<T: Target> {
    owner: Arc<Owner<T>>,
    mode_set: bool,
    /// What logs call it.
    number: u32,
    within: traced::Within,
    torture: Option<Torture>,
}

/// Bytes of decoded code that are kept though little of it is used.
const RESTING: usize = 4 << 20;

impl<T: Target> Vcpu<T> {
    /// A vCPU of a group, at the state given, with all general and vector registers zero.
    pub fn new(group: &Arc<Group>, bus: Arc<dyn Bus>, state: T::State) -> Vcpu<T> {
        let jit = group.jit::<T>();
        let torture = jit.as_ref().filter(|j| j.config.torture != 0).map(|j| Torture::new(j.config.torture, 0));
        const { Env::<T>::HEAD };
        let layout = Layout::new::<Env<T>>();
        // SAFETY: the layout is not empty.
        let p = unsafe { std::alloc::alloc_zeroed(layout) }.cast::<Env<T>>();
        let env = NonNull::new(p).expect("memory for a vCPU");
        // (Memory of this alignment has been written to, to make it zero.)
        // SAFETY: bytes that are live and that nobody uses yet. (Not yet an env: zeros are not one.)
        unsafe { discard(std::ptr::slice_from_raw_parts_mut(p.cast::<u8>(), layout.size())) };
        // SAFETY: every field is written in place before anything reads it; atomics may start as zero.
        unsafe {
            let shared = Shared {
                exit_request: AtomicI64::new(0),
                requests: AtomicU32::new(0),
                dropped: parking_lot::Mutex::default(),
                published: parking_lot::Mutex::default(),
            };
            (&raw mut (*p).shared).write(shared);
            (&raw mut (*p).hot).write(UnsafeCell::new(Hot::new()));
            // (All other entries, and those of the jump cache, are invalid as zeros, and take no memory before they are used.)
            (&raw const (*p).tlb).as_ref().expect("env").iter().for_each(tlb::void);
            (&raw mut (*p).state).write(UnsafeCell::new(state));
            (&raw mut (*p).inner).write(UnsafeCell::new(Inner::new(bus, group.clone())));
            (&raw mut (*p).pages).write(UnsafeCell::new(Pages::new(group.looped(), jit)));
            (&raw mut (*p).fault).write(UnsafeCell::new(None));
            tlb::select(env, 0);
        }
        let owner = Arc::new(Owner(env));
        let reach: Arc<dyn Reach> = owner.clone();
        group.add(&reach);
        Vcpu { owner, mode_set: false, number: 0, within: traced::Within::default(), torture }
    }
    /// What logs call it, and what it is told apart by.
    pub fn set_number(&mut self, number: u32) {
        self.number = number;
        self.torture = self.torture.as_ref().map(|t| t.of(number))
    }
    pub(super) fn within(&mut self) -> &mut traced::Within {
        &mut self.within
    }
    pub(super) fn number(&self) -> u32 {
        self.number
    }
    pub(super) fn env(&self) -> NonNull<Env<T>> {
        self.owner.0
    }
    /// Lets other threads reach it.
    pub fn kick(&self) -> Kick {
        Kick(self.owner.clone())
    }
    /// The registers handlers use.
    pub fn hot(&mut self) -> &mut Hot {
        // SAFETY: `&mut self`: nothing runs.
        unsafe { &mut *hot(self.env()) }
    }
    /// The target's registers. The mode is taken anew at the next run.
    pub fn state(&mut self) -> &mut T::State {
        self.mode_set = false;
        // SAFETY: `&mut self`: nothing runs.
        unsafe { &mut *state(self.env()) }
    }
    /// Both at once.
    pub fn parts(&mut self) -> (&mut Hot, &mut T::State) {
        self.mode_set = false;
        // SAFETY: `&mut self`: nothing runs; distinct cells.
        unsafe { (&mut *hot(self.env()), &mut *state(self.env())) }
    }
    /// Linear address of the next instruction.
    pub fn pc(&self) -> u64 {
        // SAFETY: `&self` of a type that is not shared between threads while it runs.
        unsafe { (*hot(self.env())).ip }
    }
    /// Sets the linear address of the next instruction.
    pub fn set_pc(&mut self, pc: u64) {
        self.hot().ip = pc
    }
    /// What happened so far.
    pub fn counters(&self) -> Counters {
        // SAFETY: as above.
        unsafe {
            let (p, mut c) = (&*pages(self.env()), (*inner(self.env())).counters);
            (c.decoded_pages, c.decoded_bytes) = p.size();
            c
        }
    }
    /// Instructions left of the last budget.
    pub fn budget(&mut self) -> i64 {
        self.hot().budget
    }
    /// Forgets translations and host addresses now: the memory map changed.
    pub fn flush(&mut self) {
        // SAFETY: `&mut self`: nothing runs.
        unsafe { tlb::flush_map(self.env()) }
    }
    /// The whole CPU, between two instructions.
    pub fn with_cpu<R>(&mut self, f: impl FnOnce(&mut Cpu<'_, T>) -> R) -> R {
        self.mode_set = false;
        let pc = self.pc();
        f(&mut self.cpu(Fields::none(pc)))
    }
    fn cpu(&mut self, op: Fields) -> Cpu<'_, T> {
        let env = self.env();
        // SAFETY: `&mut self`: no handler runs while the result lives; distinct cells.
        unsafe { Cpu { hot: &mut *hot(env), state: &mut *state(env), op, mem: Mem(env, PhantomData) } }
    }

    /// Runs about `budget` instructions (blocks are not cut).
    pub fn run(&mut self, budget: u64) -> Exit {
        let budget = budget.min(i64::MAX as u64 / 2) as i64;
        self.hot().budget = budget;
        self.expect_count(budget);
        self.requests_changed();
        let exit = self.run_on();
        self.count_now();
        self.count(budget);
        exit
    }
    /// What the count of all vCPUs' instructions will be when the budget is used up.
    fn expect_count(&mut self, budget: i64) {
        // SAFETY: `&mut self`.
        if let Some((count, end)) = unsafe { &mut (*inner(self.env())).counted } {
            *end = count.get().wrapping_add(budget as u64)
        }
    }
    /// Brings that count up to date, between two instructions.
    fn count_now(&mut self) {
        // SAFETY: `&mut self`.
        unsafe { tlb::count(self.env(), 0) }
    }
    /// Counts what a budget was used for.
    fn count(&mut self, budget: i64) {
        let done = budget.saturating_sub(self.hot().budget).max(0) as u64;
        // SAFETY: `&mut self`.
        unsafe { (*inner(self.env())).counters.instructions += done }
    }
    fn run_on(&mut self) -> Exit {
        if traced::is_wanted() {
            return self.run_traced();
        }
        let env = self.env();
        loop {
            if let Some(exit) = self.attend() {
                return exit;
            }
            if self.hot().budget <= 0 {
                return Exit::Budget;
            }
            let kept = self.torture();
            let exit = self.dispatch(env);
            self.hot().budget += kept;
            self.lend(kept);
            if let Some(exit) = exit {
                return exit;
            }
            if self.hot().budget > 0
                && self.hot().reason == reason::BUDGET
                && self.owner.shared().exit_request.load(Relaxed) == 0
            {
                // What is left does not cover a block: one by one, so that budgets are exact.
                if let Some(exit) = self.step_one() {
                    return exit;
                }
            }
        }
    }
    /// Runs one instruction (a repeated one: one page run), or delivers what is pending instead.
    pub fn step(&mut self) -> Exit {
        self.requests_changed();
        self.hot().budget = 1;
        self.expect_count(1);
        if let Some(exit) = self.attend() {
            return exit;
        }
        let exit = self.step_one();
        self.count_now();
        self.count(1);
        // What the instruction asked for is attended to by the next call, but code it overwrote is gone now.
        exit.unwrap_or(Exit::Budget)
    }
    /// The budget is for so many more instructions than it says, which will not be run.
    fn lend(&mut self, n: i64) {
        // SAFETY: `&mut self`.
        if let Some((_, end)) = unsafe { &mut (*inner(self.env())).counted } {
            *end = end.wrapping_add(n as u64)
        }
    }
    /// What comes before a turn of a tortured vCPU; the part of the budget that is kept back meanwhile.
    fn torture(&mut self) -> i64 {
        let Some(turn) = self.torture.as_mut().map(Torture::turn) else { return 0 };
        let env = self.env();
        // SAFETY: `&mut self`.
        let (p, n) = unsafe { (&*pages(env), &*inner(env)) };
        if let (true, Some(jit)) = (turn.full, p.jit()) {
            jit.pretend_full();
            jit.relieve(&n.group);
        }
        if turn.large {
            self.owner.shared().ask(request::SHED)
        }
        tlb::forget(env, turn.from, turn.forget);
        let kept = (self.hot().budget - turn.instructions).max(0);
        self.hot().budget -= kept;
        self.lend(-kept);
        kept
    }
    fn requests_changed(&mut self) {
        if !self.mode_set {
            // SAFETY: `&mut self`.
            unsafe { (*inner(self.env())).mode_changed = true };
            self.mode_set = true;
        }
    }

    /// Does what other threads asked for.
    pub(super) fn attend(&mut self) -> Option<Exit> {
        let env = self.env();
        if self.owner.shared().exit_request.load(Relaxed) == 0 {
            return None;
        }
        let owner = self.owner.clone();
        let shared = owner.shared();
        // In this order: a request that comes between leaves the vCPU kicked.
        shared.exit_request.store(0, SeqCst);
        let asked = shared.requests.swap(0, SeqCst);
        self.count_now();
        if asked & request::PUBLISH != 0 {
            let list = std::mem::take(&mut *shared.published.lock());
            for r in list {
                self.attach(&r)
            }
        }
        if asked & (request::EVICT | request::AGE | request::SHED | request::REST | request::RETIRE) != 0 {
            self.make_room(asked)
        }
        if asked & request::DROP != 0 {
            let list = std::mem::take(&mut *shared.dropped.lock());
            // SAFETY: `&mut self`: no handler runs.
            unsafe {
                let n = &mut *inner(env);
                n.stale = false;
                let forget = |i| jc_forget(env, i);
                for host in list {
                    if (*pages(env)).drop_page(host, forget) {
                        n.counters.dropped += 1
                    }
                }
            }
        }
        if asked & request::ANEW != 0 {
            // SAFETY: as above.
            unsafe {
                (*pages(env)).clear();
                (*pages(env)).rest();
                tlb::rest(env)
            }
        }
        if asked & request::FLUSH != 0 {
            // SAFETY: as above.
            unsafe {
                (*pages(env)).clear();
                tlb::flush_map(env);
                (*inner(env)).bus.flushed()
            }
        }
        if asked & request::STOP != 0 {
            // The rest is still to be done.
            let rest = asked & request::SERVICE;
            if rest != 0 {
                self.owner.shared().ask(rest)
            }
            return Some(Exit::Stopped);
        }
        if asked & request::SERVICE != 0 {
            let pc = self.pc();
            let r = T::service(&mut self.cpu(Fields::none(pc)));
            return self.settle(r, pc);
        }
        None
    }

    /// Takes up what rare code returned outside of an instruction; `pc` is where [`Rare::Next`] goes on.
    fn settle(&mut self, mut r: Rare<T::Fault>, pc: u64) -> Option<Exit> {
        // SAFETY: `&mut self`.
        unsafe { (*inner(self.env())).mode_changed = true };
        loop {
            match r {
                Rare::Next | Rare::Again => self.set_pc(pc),
                Rare::To(to) => self.set_pc(to),
                Rare::Halt(to) => {
                    self.set_pc(to);
                    return Some(Exit::Halted);
                }
                Rare::Exit(to, code) => {
                    self.set_pc(to);
                    return Some(Exit::Target(code));
                }
                Rare::Fault(f) => {
                    r = T::deliver(&mut self.cpu(Fields::none(pc)), f);
                    continue;
                }
            }
            return None;
        }
    }
    fn fault(&mut self, op: Fields) -> Option<Exit> {
        // SAFETY: `&mut self`.
        let f = unsafe { (*fault(self.env())).take() }.expect("a recorded fault");
        let r = T::deliver(&mut self.cpu(op), f);
        self.settle(r, op.ip)
    }

    /// Takes the mode anew.
    pub(super) fn update_mode(&mut self) {
        // SAFETY: `&mut self`.
        unsafe { mode::update(self.env()) }
    }

    /// Looks what is used of decoded code, and drops what is not if there is need.
    fn make_room(&mut self, asked: u32) {
        let env = self.env();
        // SAFETY: `&mut self`: no handler runs.
        let (p, n) = unsafe { (&mut *pages(env), &mut *inner(env)) };
        if asked & (request::EVICT | request::AGE | request::SHED | request::REST) != 0 {
            p.look()
        }
        // SAFETY: as above; the jump cache is another cell.
        let forget = |i| jc_forget(env, i);
        if asked & (request::EVICT | request::RETIRE) != 0 {
            let gone = p.detach_evicted(asked & request::EVICT == 0);
            // SAFETY: as above.
            unsafe { jc_without(env, &gone, p.no_region()) }
        }
        if asked & request::EVICT != 0 {
            n.counters.evicted += p.shed(Room::Code, forget)
        }
        if asked & request::SHED != 0 {
            let limit = if self.torture.is_some() { p.size().1 as usize } else { n.group.decoded_limit() };
            n.counters.evicted += p.shed(Room::Decoded(limit), forget)
        }
        if asked & request::REST != 0 {
            let decoded = p.size().1 as usize;
            if decoded > RESTING {
                // (Half of it: a quarter of the limit is left free.)
                n.counters.evicted += p.shed(Room::Decoded(decoded / 3 * 2), forget)
            }
            p.rest();
            // SAFETY: as above.
            unsafe { tlb::rest(env) }
        }
        if asked & (request::EVICT | request::AGE) != 0 {
            // Regions are entered through their ops again, which tells which of them are used.
            n.forget_jumps()
        }
    }
    /// Attaches a region to the decoded page it is for.
    fn attach(&mut self, r: &Arc<Region>) {
        let env = self.env();
        // SAFETY: `&mut self`: no handler runs.
        let (p, n) = unsafe { (&mut *pages(env), &mut *inner(env)) };
        let group = n.group.clone();
        // (A page that is decoded is mapped until this vCPU flushes.)
        p.attach(&group, r, fetch, |i| jc_forget(env, i));
    }
    /// Regions were left before the instruction at the pc so often that they are to be made differently.
    fn narrow_regions(&mut self) {
        self.update_mode();
        let env = self.env();
        let pc = self.pc();
        let Ok(Some(host)) = self.code_host(pc) else { return };
        // SAFETY: `&mut self`.
        let (p, n) = unsafe { (&mut *pages(env), &mut *inner(env)) };
        if let Some(jit) = p.jit() {
            jit.narrow(&n.group, (host, n.mode), (pc & 0xfff) as u16)
        }
    }
    /// The block at the pc is hot: has it compiled.
    fn hot_block(&mut self) {
        self.update_mode();
        let env = self.env();
        let pc = self.pc();
        let Ok(Some(host)) = self.code_host(pc) else { return };
        let next = self.seen_host((pc | 0xfff).wrapping_add(1));
        let Deferred { kind, w, .. } = self.hot().deferred();
        // SAFETY: `&mut self`.
        let (p, n) = unsafe { (&mut *pages(env), &mut *inner(env)) };
        let Some(jit) = p.jit().cloned() else { return };
        let (group, mode) = (n.group.clone(), n.mode);
        let region = match p.hot(host, n.mode, pc, next, (kind, w), fetch) {
            Some(HotBlock::Known(r)) => Some(r),
            Some(HotBlock::New(mut q)) => {
                q.page = pc & !0xfff;
                jit.request(&group, q)
            }
            None => None,
        };
        let made = region.is_some();
        if let Some(r) = region {
            self.attach(&r)
        }
        if jit.relieve(&group) && !made {
            // SAFETY: `&mut self`.
            unsafe { (*pages(env)).again(host, mode, (pc & 0xfff) as u16) }
        }
    }

    fn dispatch(&mut self, env: NonNull<Env<T>>) -> Option<Exit> {
        // SAFETY: `&mut self`.
        let (why, at) = unsafe { ((*hot(env)).reason, (*hot(env)).at) };
        self.update_mode();
        // SAFETY: `&mut self`.
        unsafe { (*inner(env)).counters.dispatches += 1 };
        // SAFETY: `&mut self`.
        if T::stepping(unsafe { &*state(env) }) {
            return self.step_one();
        }
        let pc = self.pc();
        // SAFETY: `&mut self`.
        let h = hot(env);
        // SAFETY: `&mut self`; as handlers do at an indirect jump.
        let op = match jc_known(env, pc).map(|j| unsafe { (*j).op }) {
            Some(op) => op,
            None => {
                let op = match self.lookup(pc) {
                    Ok(Some(op)) => op,
                    Ok(None) => return self.step_one(),
                    Err(f) => {
                        // SAFETY: `&mut self`.
                        unsafe { *fault(env) = Some(f) };
                        return self.fault(Fields::none(pc));
                    }
                };
                // SAFETY: `&mut self`.
                unsafe {
                    let code = (*pages(env)).no_region();
                    jc_put(env, pc, JcEntry { key: pc ^ (*h).salt, op, code, entry: 0 });
                    let regime = T::regime(&*state(env), Who::Current) % tlb::REGIMES;
                    (*inner(env)).note_jump(pc, regime, jc_index(pc));
                }
                op
            }
        };
        // SAFETY: `&mut self`; the op was just found, or the entry is of this mode and epoch.
        unsafe {
            (*h).regs[PAGE.index()] = pc & !0xfff;
            if why == reason::SIDE && at == pc {
                tier0::run_on(env, jit::enter::run_original(env, op))
            } else {
                tier0::run(env, op)
            }
        }
        self.stopped()
    }
    /// Acts on the reason handlers left.
    fn stopped(&mut self) -> Option<Exit> {
        let env = self.env();
        let (why, at) = (self.hot().reason, self.hot().at);
        // SAFETY: `&mut self`.
        let counters = unsafe { &mut (*inner(env)).counters };
        if let Some(n) = counters.stops.get_mut(why as usize) {
            *n += 1
        }
        match why {
            reason::FAULT => {
                // SAFETY: `at` is the op that faulted; its page is only dropped by `attend`.
                let op = unsafe { tier0::fields(env, at as *const Op<T>) };
                self.fault(op)
            }
            reason::HOT => {
                self.hot_block();
                None
            }
            reason::SIDE => {
                // SAFETY: `&mut self`.
                if std::mem::take(unsafe { &mut (*inner(env)).sides.often }) {
                    self.narrow_regions()
                }
                None
            }
            reason::STRADDLE => {
                self.update_mode();
                // (Nobody has paid for it yet.)
                if self.cross(at as *const Op<T>) || self.hot().budget <= 0 { None } else { self.step_one() }
            }
            reason::MODE => {
                // SAFETY: `&mut self`.
                unsafe { (*inner(env)).mode_changed = true };
                None
            }
            reason::HALT => {
                // SAFETY: `&mut self`.
                unsafe { (*inner(env)).mode_changed = true };
                Some(Exit::Halted)
            }
            reason::EXIT => {
                // SAFETY: `&mut self`.
                unsafe { (*inner(env)).mode_changed = true };
                Some(Exit::Target(at as u32))
            }
            _ => None,
        }
    }

    /// The op at `pc`, decoded if need be, for its jump cache entry; nothing if its page is no host memory.
    fn lookup(&mut self, pc: u64) -> Result<Option<*const Op<T>>, T::Fault> {
        let env = self.env();
        let Some(host) = self.code_host(pc)? else { return Ok(None) };
        // SAFETY: `&mut self`.
        let (p, n) = unsafe { (&mut *pages(env), &mut *inner(env)) };
        let (off, entry) = ((pc & 0xfff) as u16, jc_index(pc) as u16);
        if let Some(op) = p.jump(host, n.mode, off, entry) {
            return Ok(Some(op));
        }
        n.counters.decoded += 1;
        let group = n.group.clone();
        let len = p.decode(&group, host, n.mode, off, fetch, |i| jc_forget(env, i));
        if p.is_large(&group) {
            self.owner.shared().ask(request::SHED)
        }
        if wanted!("in_asm") {
            let mut code = vec![0; len];
            fetch(host, off.into(), &mut code);
            log_code::<T>(&group, pc, n.mode, &code);
        }
        Ok(p.jump(host, n.mode, off, entry))
    }

    /// The instruction at the pc crosses its page: decodes it if need be and makes `at`, the op that stands for it, find the
    /// next page in the first-level TLB. False if it must be run by itself.
    fn cross(&mut self, at: *const Op<T>) -> bool {
        let env = self.env();
        let pc = self.pc();
        let next = (pc | 0xfff).wrapping_add(1);
        // SAFETY: `&mut self`.
        let (n, p, st) = unsafe { (&mut *inner(env), &mut *pages(env), &mut *state(env)) };
        let (mode, group) = (n.mode, n.group.clone());
        if T::stepping(st) || next & T::address_mask(mode) != next {
            return false;
        }
        let access = Access { kind: Kind::Exec, who: Who::Current, stack: false };
        // SAFETY: `&mut self`; `n` is not used across the call.
        if unsafe { tlb::find(env, st, next, access) }.is_err() {
            // (It comes again when the instruction is run by itself.)
            return false;
        }
        let [Some(host), Some(after)] = [pc, next].map(|la| self.exec_host(la)) else { return false };
        p.cross(&group, [host, after], mode, (pc & 0xfff) as u16, at, fetch)
    }
    /// The host address of the page of `la`, if the first level has it for fetches.
    fn exec_host(&self, la: u64) -> Option<usize> {
        let page = la & !0xfff;
        // SAFETY: `hot` belongs to this vCPU; the TLB is made of atomics.
        let e = unsafe { &*(*hot(self.env())).tlb.add(tlb::index(la)) };
        (e.exec.load(Relaxed) == page).then(|| e.addend.load(Relaxed).wrapping_add(page) as usize)
    }

    /// The host address of the page of `la` for fetches; nothing if it is no host memory. (Code may run by the jump cache long after data
    /// have taken its place in the first level.)
    fn code_host(&mut self, la: u64) -> Result<Option<usize>, T::Fault> {
        if let Some(host) = self.exec_host(la) {
            return Ok(Some(host));
        }
        let env = self.env();
        let access = Access { kind: Kind::Exec, who: Who::Current, stack: false };
        // SAFETY: `&mut self`.
        let s = unsafe { tlb::find(env, &mut *state(env), la, access)? };
        Ok((!s.host.is_null()).then_some(s.host as usize))
    }
    /// The same, without a walk, if either level knows it.
    fn seen_host(&mut self, la: u64) -> Option<usize> {
        let env = self.env();
        // SAFETY: `&mut self`; distinct cells.
        self.exec_host(la).or_else(|| unsafe { tlb::seen::<T>(&mut *inner(env), &*state(env), la) })
    }

    /// Runs the instruction at the pc by itself: one that crosses its page, lies outside of host memory, or is stepped.
    pub(super) fn step_one(&mut self) -> Option<Exit> {
        self.count_now();
        self.update_mode();
        let env = self.env();
        let pc = self.pc();
        // SAFETY: `&mut self`.
        let stepping = T::stepping(unsafe { &*state(env) });
        if stepping {
            let r = T::before(&mut self.cpu(Fields::none(pc)));
            if !matches!(r, Rare::Next) {
                return self.settle(r, pc);
            }
        }
        let op = match self.fetch_one(pc) {
            Ok(op) => op,
            Err(f) => {
                // SAFETY: `&mut self`.
                unsafe { *fault(env) = Some(f) };
                return self.fault(Fields::none(pc));
            }
        };
        // SAFETY: `&mut self`; the ops live until `single` replaces them.
        let ran = unsafe {
            let h = hot(env);
            (*h).regs[PAGE.index()] = pc & !0xfff;
            // No jump cache entry matches: the run ends after the instruction.
            let salt = std::mem::replace(&mut (*h).salt, salt::NONE);
            let budget = (*h).budget;
            let lent = budget.max(8) - budget;
            (*h).budget += lent;
            (*h).lent = lent;
            self.lend(lent);
            tier0::run(env, op);
            (*h).budget -= lent;
            (*h).lent = 0;
            self.lend(-lent);
            (*h).salt = salt;
            (*h).budget != budget || (*h).reason != reason::BUDGET
        };
        let exit = self.stopped();
        // (A kick may come before the instruction is run.)
        if exit.is_some() || !ran {
            return exit;
        }
        // SAFETY: `&mut self`.
        if stepping && unsafe { (*hot(env)).reason } != reason::FAULT {
            let next = self.pc();
            let r = T::after(&mut self.cpu(Fields::none(next)));
            return self.settle(r, next);
        }
        None
    }
    pub(super) fn fetch_one(&mut self, pc: u64) -> Result<*const Op<T>, T::Fault> {
        let env = self.env();
        let access = Access { kind: Kind::Exec, who: Who::Current, stack: false };
        let off = (pc & 0xfff) as usize;
        let first = (4096 - off).min(15);
        let mut bytes = [0; 15];
        // SAFETY: `&mut self`.
        let (n, p, st) = unsafe { (&mut *inner(env), &mut *pages(env), &mut *state(env)) };
        let mode = n.mode;
        // SAFETY: `&mut self`; `n` is not used across the call.
        let s = unsafe { tlb::find(env, st, pc, access)? };
        debug_assert!(s.flags & spot::EXEC != 0);
        read_spot(n, &s, off, &mut bytes[..first]);
        let group = n.group.clone();
        let made = |code: &[u8]| log_code::<T>(&group, pc, mode, code);
        if let Some(op) = p.single(pc, mode, &bytes[..first], made) {
            return Ok(op);
        }
        let next = (pc | 0xfff).wrapping_add(1) & T::address_mask(mode);
        // SAFETY: as above.
        let s = unsafe { tlb::find(env, st, next, access)? };
        read_spot(n, &s, 0, &mut bytes[first..]);
        Ok(p.single(pc, mode, &bytes, made).expect("no instruction is longer than 15 bytes"))
    }
}
