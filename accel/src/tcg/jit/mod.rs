//! Tier 1: hot regions compiled by Cranelift.
//!
//! | module | what |
//! |---|---|
//! | `form` | which instructions make up a region |
//! | `lower` | a region as one function: blocks, edges, ways out |
//! | `frame` | the state inside a block: registers, flags |
//! | `value` | values by width |
//! | `check` | checks of memory accesses |
//! | `carried` | registers that go round a loop without being stored |
//! | `emit`, `vector` | the meaning of instructions as code |
//! | `xmm` | vector registers: lanes, results that must not be dropped |
//! | `go` | from one region to the next |
//! | `thunk` | what regions call |
//! | `stubs` | code that is made once; settings of the compiler |
//! | `code` | memory for generated code |
//! | `enter` | from tier 0 into a region and back |
//! | this | the compiler's queue and thread; which regions there are |
//!
//! A region is known by what it was made from: host page, mode and bytes. A vCPU attaches one to its decoded page after it
//! has protected those bytes and found them unchanged, so it does not matter what was stored while the region was compiled,
//! and a region whose page was overwritten elsewhere serves again.

mod carried;
mod check;
pub(crate) mod code;
mod double;
mod emit;
pub(crate) mod enter;
pub(crate) mod form;
mod frame;
mod go;
mod lower;
mod stubs;
mod thunk;
mod unit;
mod value;
mod vector;
mod xmm;

pub(crate) use frame::exit;
#[cfg(target_arch = "x86_64")]
pub(super) use thunk::{Look, look};

use super::{
    env::request,
    group::Group,
    insight::{self, Insight, wanted},
    target::Target,
};
use code::{Code, CodeCache, LARGEST};
use cranelift_codegen::{Context, isa::OwnedTargetIsa};
use cranelift_control::ControlPlane;
use cranelift_frontend::FunctionBuilderContext;
use form::{Offsets, Plan, Request};
use parking_lot::{Condvar, Mutex, MutexGuard};
use rustc_hash::FxHashMap;
use std::{
    any::Any,
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::*},
    },
    time::{Duration, Instant},
};

/// How tier 1 is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JitConfig {
    /// Executions after which a block is warm and gets quick code, up to 65535; 0 for never.
    pub quick: u16,
    /// Executions from then on after which a block is hot, 1 to 65535.
    pub threshold: u16,
    /// Bytes of the code cache.
    pub cache: usize,
    /// Compile at once, on the vCPU's thread: what runs where does not depend on time.
    pub synchronous: bool,
    /// Seed of what vCPUs are tortured with: short turns, forgotten translations, evictions. 0 for no torture.
    pub torture: u64,
}
impl Default for JitConfig {
    fn default() -> Self {
        JitConfig { quick: 128, threshold: 8192, cache: 128 << 20, synchronous: false, torture: 0 }
    }
}

impl JitConfig {
    /// Whether this host can do it. (Without being asked, a machine falls back to the interpreter if not.)
    ///
    /// # Errors
    /// No compiler, no executable memory, or not so much of it.
    pub fn check(&self) -> Result<(), String> {
        stubs::isa()?;
        code_cache(self).map(drop)
    }
}
fn code_cache(config: &JitConfig) -> Result<Arc<CodeCache>, String> {
    if config.cache > LARGEST {
        return Err(format!("compiled code can take {} MiB at most", LARGEST >> 20));
    }
    CodeCache::new(config.cache)
        .map_err(|e| format!("the host has no {} MiB of memory for compiled code: {e}", config.cache >> 20))
}

/// What tier 1 did, for reports.
#[derive(Clone, Copy, Debug, Default)]
pub struct JitCounters {
    /// Regions compiled.
    pub regions: u64,
    /// Guest instructions in them.
    pub instructions: u64,
    /// CLIF instructions they became.
    pub clif: u64,
    /// Bytes of code they became.
    pub bytes: u64,
    /// Nanoseconds spent.
    pub nanoseconds: u64,
    /// Requests that could not be served: no region to be made, or not by the compiler.
    pub refused: u64,
    /// Those of them that the compiler failed at, which is a bug.
    pub failed: u64,
    /// Times the cache was full and what had not been used for longest went.
    pub evictions: u64,
    /// Regions that went.
    pub evicted: u64,
    /// Bytes of the cache in use, and its size.
    pub used: u64,
    /// Size of the cache in bytes.
    pub size: u64,
    /// Requests that wait.
    pub waiting: u64,
    /// Requests that a region served which was there already.
    pub reused: u64,
    /// Regions that there are now.
    pub live: u64,
    /// Bytes of guest code they were made from.
    pub live_guest: u64,
    /// Bytes of code they are.
    pub live_host: u64,
    /// Bytes of what else is kept of them.
    pub live_kept: u64,
    /// Pieces of code the quick compiler made.
    pub pieces: u64,
    /// Guest instructions in them.
    pub quick_instructions: u64,
    /// Bytes of it.
    pub quick_bytes: u64,
    /// Time it took.
    pub quick_nanoseconds: u64,
}

/// A compiled region.
pub(crate) struct Region {
    pub host: usize,
    /// Where the page lies that follows its own, if bytes of that one are part of it.
    pub next: Option<usize>,
    pub mode: u32,
    /// How many were made up to this one.
    number: u64,
    instructions: usize,
    /// Offsets of its entries, by number.
    pub entries: Vec<u16>,
    /// What it was made from, by offset from its page.
    bytes: Vec<(usize, Box<[u8]>)>,
    /// Its accesses whose checks cover no others.
    narrow: Vec<u16>,
    code: Code,
    /// It was entered since the last look, and looks since it was.
    used: AtomicBool,
    age: AtomicU32,
    /// vCPUs must detach it.
    evicted: AtomicBool,
    /// The items its code refers to.
    _items: Box<dyn Any + Send + Sync>,
}
impl Region {
    pub fn code(&self) -> *const u8 {
        self.code.start()
    }
    /// It is being entered.
    pub fn mark_used(&self) {
        if !self.used.load(Relaxed) {
            self.used.store(true, Relaxed)
        }
    }
    /// It was entered lately.
    pub fn is_young(&self) -> bool {
        self.used.load(Relaxed) || self.age.load(Relaxed) == 0
    }
    /// Looks since it was entered, this one included.
    fn grow_old(&self) -> u32 {
        let age = if self.used.swap(false, Relaxed) { 0 } else { self.age.load(Relaxed).saturating_add(1) };
        self.age.store(age, Relaxed);
        age
    }
    /// It makes room for others.
    pub fn is_evicted(&self) -> bool {
        self.evicted.load(Acquire)
    }
    /// Bytes kept of it beside its code.
    fn kept(&self) -> usize {
        let bytes: usize = self.bytes.iter().map(|(_, b)| b.len() + size_of_val(b)).sum();
        size_of::<Region>()
            + bytes
            + size_of_val(&*self.narrow)
            + size_of_val(&*self.entries)
            + size_of_val(&*self._items)
    }
    /// The bytes it was made from: host address of their page, their place in it.
    pub fn bytes(&self) -> impl Iterator<Item = (usize, usize, &[u8])> {
        self.bytes.iter().map(|(at, b)| match self.next {
            Some(next) if *at >= 4096 => (next, at - 4096, &**b),
            _ => (self.host, *at, &**b),
        })
    }
    /// The pages of a request are those it was made from, and say the same.
    fn serves(&self, q: &Request) -> bool {
        let of = |at: usize, n: usize| q.bytes.get(at..at + n);
        (self.host, self.mode) == (q.host, q.mode)
            && (self.next.is_none() || self.next == q.next)
            && self.bytes.iter().all(|(at, b)| of(*at, b.len()) == Some(&**b))
            && q.narrow.iter().all(|&o| self.is_narrow(o))
    }
    /// Nothing else of it depends on the check of the access at an offset.
    fn is_narrow(&self, off: u16) -> bool {
        self.narrow.contains(&off) || !self.covers(off)
    }
    /// It was made from the byte at an offset of its pages, among others.
    fn covers(&self, off: u16) -> bool {
        self.bytes.iter().any(|(at, b)| (*at..at + b.len()).contains(&off.into()))
    }
    /// Whether it serves what another one serves.
    fn replaces(&self, o: &Region) -> bool {
        o.entries[0] == self.entries[0]
            && (o.host, o.next, o.mode) == (self.host, self.next, self.mode)
            && o.bytes == self.bytes
    }
}

/// Host address of a page, and the mode of the code in it.
type PageKey = (usize, u32);

/// Regions of one page and mode that are kept although the bytes differ.
const VARIANTS: usize = 32;
/// Longest region, in instructions, that is compiled once more as part of another one.
const INLINED: usize = 32;
/// Times it is looked what is used while as much code is made as the cache holds.
const LOOKS: usize = 8;
/// One in so many bytes of code goes when the cache is full.
pub(crate) const EVICTED: usize = 4;
/// Pages with accesses whose checks cover no others, at most.
const NARROW: usize = 4096;
/// Requests that wait, at most about; blocks that get hot meanwhile ask again.
const WAITING: usize = 96;

/// Compiles a region, given those that exist.
type Compile = fn(&Jit, &Request, &[Arc<Region>]) -> Option<Arc<Region>>;

/// Tier 1 of a machine.
pub(crate) struct Jit {
    pub config: JitConfig,
    pub no_region: *const u8,
    stubs: stubs::Stubs,
    compile: Compile,
    cache: Arc<CodeCache>,
    compiler: Mutex<Compiler>,
    regions: Mutex<FxHashMap<PageKey, Vec<Arc<Region>>>>,
    /// Accesses of pages at whose checks regions were left often.
    narrow: Mutex<FxHashMap<PageKey, BTreeSet<u16>>>,
    queue: Mutex<Queue>,
    wake: Condvar,
    stop: AtomicBool,
    full: AtomicBool,
    /// Bytes placed since it was looked what is used.
    placed: AtomicUsize,
    stats: Stats,
    insight: Arc<Insight>,
}
#[expect(unsafe_code, reason = "a pointer to code that is never freed")]
// SAFETY: only read, and what it points at never changes.
unsafe impl Send for Jit {}
#[expect(unsafe_code, reason = "a pointer to code that is never freed")]
// SAFETY: as above.
unsafe impl Sync for Jit {}

#[derive(Default)]
struct Stats {
    regions: AtomicU64,
    instructions: AtomicU64,
    clif: AtomicU64,
    bytes: AtomicU64,
    nanoseconds: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    reused: AtomicU64,
    evictions: AtomicU64,
    evicted: AtomicU64,
    /// Of the quick compiler: pieces, instructions, bytes, nanoseconds.
    quick: [AtomicU64; 4],
}
struct Compiler {
    isa: OwnedTargetIsa,
    builder: FunctionBuilderContext,
    context: Context,
}
impl Compiler {
    /// Drops what is kept from one region to the next one.
    fn rest(&mut self) {
        (self.builder, self.context) = (FunctionBuilderContext::new(), Context::new())
    }
}
#[derive(Default)]
struct Queue {
    /// Requests by what they are for, with the number of times they were asked for.
    waiting: FxHashMap<(usize, u32, u16), (u32, Box<Request>)>,
    started: bool,
}

impl Jit {
    /// Tier 1 for the vCPUs of a group.
    ///
    /// # Errors
    /// The host has no compiler or no executable memory.
    pub fn new<T: Target>(config: JitConfig, insight: &Arc<Insight>) -> Result<Arc<Jit>, String> {
        let stubs = stubs::stubs::<T>()?;
        let compiler = Compiler { isa: stubs::isa()?, builder: FunctionBuilderContext::new(), context: Context::new() };
        Ok(Arc::new(Jit {
            config,
            no_region: stubs.no_region as *const u8,
            stubs,
            compile: compile::<T>,
            cache: code_cache(&config)?,
            compiler: Mutex::new(compiler),
            regions: Mutex::default(),
            narrow: Mutex::default(),
            queue: Mutex::default(),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
            full: AtomicBool::new(false),
            placed: AtomicUsize::new(0),
            stats: Stats::default(),
            insight: insight.clone(),
        }))
    }
    /// A region there is that is entered at `off` of a page, if its bytes are in its pages now; `fetch` copies bytes of a page.
    pub fn answer(
        &self,
        (host, mode, off): (usize, u32, u16),
        next: Option<usize>,
        fetch: impl Fn(usize, usize, &mut [u8]),
    ) -> Option<Arc<Region>> {
        let regions = self.regions.lock();
        let mut now = Vec::new();
        let found = regions.get(&(host, mode))?.iter().find(|r| {
            r.host == host
                && r.entries.contains(&off)
                && (r.next.is_none() || r.next == next)
                && r.bytes().all(|(host, at, bytes)| {
                    now.resize(bytes.len(), 0);
                    fetch(host, at, &mut now);
                    now == bytes
                })
        });
        found.cloned()
    }
    /// Whether another request would be kept.
    pub fn takes(&self, host: usize, mode: u32, off: u16) -> bool {
        let queue = self.queue.lock();
        queue.waiting.len() < WAITING || queue.waiting.contains_key(&(host, mode, off))
    }
    /// A block got hot. With a synchronous compiler the region, if there is one.
    pub fn request(self: &Arc<Self>, group: &Arc<Group>, mut q: Box<Request>) -> Option<Arc<Region>> {
        q.after = self.stats.regions.load(Relaxed);
        if self.config.synchronous {
            return self.make(&q);
        }
        let mut queue = self.queue.lock();
        if !std::mem::replace(&mut queue.started, true) {
            let (jit, group) = (Arc::downgrade(self), Arc::downgrade(group));
            let thread = std::thread::Builder::new().name("TCG compiler".to_owned());
            if thread.spawn(move || work(&jit, &group)).is_err() {
                // (Without a thread the next request tries again.)
                queue.started = false;
                return None;
            }
        }
        let key = (q.host, q.mode, q.off);
        match queue.waiting.get_mut(&key) {
            Some((n, old)) => (*n, *old) = (*n + 1, q),
            None => _ = queue.waiting.insert(key, (1, q)),
        }
        drop(queue);
        self.wake.notify_one();
        None
    }
    /// The regions made from bytes of a page.
    pub fn regions(&self, host: usize, mode: u32) -> Vec<Arc<Region>> {
        self.regions.lock().get(&(host, mode)).cloned().unwrap_or_default()
    }
    /// Compiles and keeps a region.
    fn make(&self, q: &Request) -> Option<Arc<Region>> {
        let known: Vec<_> = self.regions(q.host, q.mode).into_iter().filter(|r| r.serves(q)).collect();
        // (A bug in the compiler costs a region, not the machine: nothing of it is kept.)
        let r = catch_unwind(AssertUnwindSafe(|| (self.compile)(self, q, &known)));
        if r.is_err() {
            self.stats.failed.fetch_add(1, Relaxed);
        }
        let Ok(Some(r)) = r else {
            self.stats.refused.fetch_add(1, Relaxed);
            return None;
        };
        if known.iter().any(|k| Arc::ptr_eq(k, &r)) {
            self.stats.reused.fetch_add(1, Relaxed);
            return Some(r);
        }
        let mut regions = self.regions.lock();
        for host in std::iter::once(r.host).chain(r.next) {
            let list = regions.entry((host, r.mode)).or_default();
            list.retain(|o| !r.replaces(o));
            let stale = |o: &Arc<Region>| o.host == r.host && !known.iter().any(|k| Arc::ptr_eq(k, o));
            if list.iter().filter(|o| stale(o)).count() >= VARIANTS
                && let Some(oldest) = list.iter().position(stale)
            {
                list.remove(oldest);
            }
            list.push(r.clone());
        }
        Some(r)
    }
    /// Steps that the quick compiler recorded are shown (`-d op`).
    pub fn shows_steps(&self, pc: u64) -> bool {
        wanted!("op") && self.insight.covers(pc)
    }
    /// Room for code of the quick compiler: what is often run, or what is not.
    pub fn reserve(&self, len: usize, cold: bool) -> Option<Code> {
        self.noted(self.cache.reserve(len, cold))
    }
    /// Takes notice of a placement, or of there being no room.
    fn noted(&self, place: Option<Code>) -> Option<Code> {
        match &place {
            Some(p) => _ = self.placed.fetch_add(p.len(), Relaxed),
            None => self.full.store(true, Release),
        }
        place
    }
    /// Code of the quick compiler is in its place.
    pub fn name_quick(&self, place: &Code, code: &[u8], pc: u64) {
        self.insight.placed(place.start() as u64, code, || format!("guest-{pc:#x}-quick"))
    }
    /// Shows it (`-d out_asm`), complete with its jumps: what is often run, then the rest.
    pub fn show_quick(&self, [hot, cold]: [&Code; 2], [n, m]: [usize; 2], pc: u64) {
        if wanted!("out_asm") && self.insight.covers(pc) {
            let text = |c: &Code, n| insight::host::disassemble(&c.read(n), c.start() as u64);
            let (hot, cold) = (text(hot, n), text(cold, m));
            let size = n + m;
            tracing::trace!(target: "out_asm", "OUT: [size={size}]\n  -- guest addr {pc:#018x} quick\n{hot}  -- seldom run\n{cold}");
        }
    }
    /// The quick compiler has made code since `started`.
    pub fn made_quick(&self, instructions: usize, bytes: usize, started: Instant) {
        let by = [1, instructions as u64, bytes as u64, started.elapsed().as_nanos() as u64];
        for (n, by) in self.stats.quick.iter().zip(by) {
            n.fetch_add(by, Relaxed);
        }
    }
    /// From now on the cache is full, until [`relieve`](Self::relieve).
    pub fn pretend_full(&self) {
        self.full.store(true, Release)
    }
    /// If the cache is full, drops what has not been used for longest, a quarter of the regions and of each vCPU's quick
    /// code; now and then before, looks what is used. Must be asked after whatever may have placed code. Says whether it was
    /// full.
    pub fn relieve(&self, group: &Group) -> bool {
        if self.full.swap(false, AcqRel) {
            self.stats.evictions.fetch_add(1, Relaxed);
            self.evict_regions();
            group.ask_all(request::EVICT);
            return true;
        }
        if self.placed.load(Relaxed) >= self.cache.size() / LOOKS && self.placed.swap(0, Relaxed) != 0 {
            self.regions.lock().values().flatten().for_each(|r| _ = r.grow_old());
            group.ask_all(request::AGE)
        }
        false
    }
    /// Takes a quarter of the code of regions from where new vCPUs and decoded pages find it. The code is free when no vCPU
    /// has it attached.
    fn evict_regions(&self) {
        let mut regions = self.regions.lock();
        // (A region of two pages is in both lists.)
        let own = regions.iter().flat_map(|((host, _), l)| l.iter().filter(move |r| r.host == *host));
        let mut all: Vec<_> = own.map(|r| (std::cmp::Reverse(r.grow_old()), r.number, r.clone())).collect();
        all.sort_unstable_by_key(|(age, number, _)| (*age, *number));
        let mut goal = all.iter().map(|(_, _, r)| r.code.len()).sum::<usize>().div_ceil(EVICTED);
        for (_, _, r) in all {
            if goal == 0 {
                break;
            }
            goal = goal.saturating_sub(r.code.len());
            r.evicted.store(true, Release);
            self.stats.evicted.fetch_add(1, Relaxed);
        }
        regions.retain(|_, list| {
            list.retain(|r| !r.is_evicted());
            !list.is_empty()
        })
    }
    /// Regions are left often before the instruction at `off` of a page. Most likely its check covers accesses on both sides of
    /// a page's end: those regions go, and checks of what it accesses will cover no others in regions that are made from now on.
    pub fn narrow(&self, group: &Group, (host, mode): PageKey, off: u16) {
        let mut sites = self.narrow.lock();
        if sites.len() >= NARROW {
            sites.clear()
        }
        sites.entry((host, mode)).or_default().insert(off);
        drop(sites);
        let mut gone = false;
        let mut regions = self.regions.lock();
        let Some(list) = regions.get_mut(&(host, mode)) else { return };
        list.retain(|r| {
            let at = if r.host == host { off } else { off + 4096 };
            let stays = r.is_narrow(at);
            r.evicted.fetch_or(!stays, Release);
            gone |= !stays;
            stays
        });
        if gone {
            // (A region of two pages is in both lists.)
            regions.values_mut().for_each(|l| l.retain(|r| !r.is_evicted()));
            drop(regions);
            group.ask_all(request::RETIRE)
        }
    }
    /// The sites there are in the two pages of a request.
    pub fn narrow_sites(&self, host: usize, next: Option<usize>, mode: u32) -> Vec<u16> {
        let sites = self.narrow.lock();
        let of = |host, base| sites.get(&(host, mode)).into_iter().flatten().map(move |o| base + o);
        of(host, 0).chain(next.into_iter().flat_map(|n| of(n, 4096))).collect()
    }
    /// Forgets all regions, requests and narrow sites. Code is free when no vCPU has it attached.
    pub fn forget(&self) {
        self.narrow.lock().clear();
        let all = std::mem::take(&mut *self.regions.lock());
        all.values().flatten().for_each(|r| r.evicted.store(true, Release));
        self.queue.lock().waiting.clear()
    }
    /// What happened so far.
    pub fn counters(&self) -> JitCounters {
        let s = &self.stats;
        let [regions, instructions, clif, bytes, nanoseconds, refused, failed, evictions] =
            [&s.regions, &s.instructions, &s.clif, &s.bytes, &s.nanoseconds, &s.refused, &s.failed, &s.evictions]
                .map(|c| c.load(Relaxed));
        let (used, size) = (self.cache.used() as u64, self.cache.size() as u64);
        let waiting = self.queue.lock().waiting.len() as u64;
        let (mut live, mut live_guest, mut live_host, mut live_kept) = (0, 0, 0, 0);
        for ((host, _), list) in &*self.regions.lock() {
            // (A region of two pages is in both lists.)
            for r in list.iter().filter(|r| r.host == *host) {
                live += 1;
                live_guest += r.bytes.iter().map(|(_, b)| b.len() as u64).sum::<u64>();
                live_host += r.code.len() as u64;
                live_kept += r.kept() as u64;
            }
        }
        let [pieces, quick_instructions, quick_bytes, quick_nanoseconds] = s.quick.each_ref().map(|c| c.load(Relaxed));
        JitCounters {
            regions,
            instructions,
            clif,
            bytes,
            nanoseconds,
            refused,
            failed,
            evictions,
            evicted: s.evicted.load(Relaxed),
            used,
            size,
            waiting,
            reused: s.reused.load(Relaxed),
            live,
            live_guest,
            live_host,
            live_kept,
            pieces,
            quick_instructions,
            quick_bytes,
            quick_nanoseconds,
        }
    }
    /// Ends the compiler's thread.
    pub fn shut_down(&self) {
        self.stop.store(true, Release);
        // (Whoever is about to wait holds the queue.)
        drop(self.queue.lock());
        self.wake.notify_all();
    }
}

/// How long the compiler waits for another request before it gives back what it does not need to wait on.
const IDLE: Duration = Duration::from_secs(1);
/// Times that it is until everything has been given back.
const STAGES: u32 = 3;

/// The compiler's thread: the request that was asked for most comes first.
fn work(jit: &Weak<Jit>, group: &Weak<Group>) {
    let mut left = 0;
    loop {
        let Some(j) = jit.upgrade() else { return };
        let mut queue = j.queue.lock();
        while queue.waiting.is_empty() {
            if j.stop.load(Acquire) {
                return;
            }
            if left == 0 {
                j.wake.wait(&mut queue);
            } else if j.wake.wait_for(&mut queue, IDLE).timed_out() && queue.waiting.is_empty() {
                left -= 1;
                queue.waiting.shrink_to_fit();
                // (What is used in between is looked at twice, and stays.)
                MutexGuard::unlocked(&mut queue, || match left {
                    // (Threads' heaps hold what was needed at once while a guest started.)
                    0 => hw_core::heap::give_back(),
                    1 => _ = group.upgrade().map(|g| g.rest()),
                    _ => {
                        j.compiler.lock().rest();
                        j.cache.rest();
                        _ = group.upgrade().map(|g| g.ask_all(request::AGE));
                    }
                })
            }
        }
        left = STAGES;
        if j.stop.load(Acquire) {
            return;
        }
        let best = queue.waiting.iter().max_by_key(|(_, (n, _))| *n).map(|(k, _)| *k);
        let Some((_, q)) = best.and_then(|k| queue.waiting.remove(&k)) else { continue };
        drop(queue);
        let made = j.make(&q);
        let Some(group) = group.upgrade() else { return };
        j.relieve(&group);
        if let Some(r) = made {
            group.publish(&r)
        }
    }
}

/// Where regions can be entered.
fn entries<'a>(regions: impl Iterator<Item = &'a Arc<Region>>) -> Offsets {
    let mut all = Offsets::new();
    regions.flat_map(|r| &r.entries).for_each(|&e| all.add(e));
    all
}

/// Compiles a region, or finds one of those that are `known` for the pages that serves.
fn compile<T: Target>(jit: &Jit, q: &Request, known: &[Arc<Region>]) -> Option<Arc<Region>> {
    let started = Instant::now();
    let mut plan = Plan::<T>::of(q, &entries(known.iter().filter(|r| r.instructions > INLINED)))?;
    // Blocks that are entered one after the other get hot together: most of what is asked for is part of a region that was
    // asked for just before.
    let missing = |r: &Region| plan.insns.iter().filter(|i| !r.covers(i.off)).count();
    let covering: Vec<_> = known.iter().filter(|r| r.covers(q.off) && missing(r) <= plan.insns.len() / 8).collect();
    // (If that was not there yet when this one was asked for: should it be entered here often, it is asked for again.)
    if let Some(r) = covering.iter().find(|r| r.entries.contains(&q.off) || r.number > q.after) {
        return Some(Arc::clone(r));
    }
    if !covering.is_empty() {
        // It cannot be entered here, but is soon.
        plan = Plan::of(q, &entries(known.iter()))?;
    }
    let items = lower::items(&plan, q);
    let mut compiler = jit.compiler.lock();
    let c = &mut *compiler;
    // (What a compilation that failed left behind goes as well.)
    c.context.clear();
    let mut builder = std::mem::take(&mut c.builder);
    c.context.func = lower::lower(&plan, q, &items, &jit.stubs, &mut builder, c.isa.frontend_config());
    c.builder = builder;
    let clif = c.context.func.dfg.num_insts() as u64;
    let pc = q.page.wrapping_add(q.off.into());
    let shown = jit.insight.covers(pc);
    if shown && wanted!("op") {
        tracing::trace!(target: "op", "OP:\n-- guest addr {pc:#018x}\n{}", c.context.func.display());
    }
    let code = match c.context.compile(&*c.isa, &mut ControlPlane::default()) {
        Ok(code) => code,
        Err(e) => {
            tracing::error!(target: "jit", offset = q.off, mode = q.mode, error = ?e.inner, "a region was refused");
            jit.stats.failed.fetch_add(1, Relaxed);
            return None;
        }
    };
    debug_assert!(code.buffer.relocs().is_empty(), "code that depends on its place");
    let mut bytes = code.code_buffer().to_vec();
    if let Err(error) = go::finish(&mut bytes, code.buffer.traps().iter().map(|t| (t.offset, t.code))) {
        tracing::error!(target: "jit", offset = q.off, mode = q.mode, error, "a region was refused");
        jit.stats.failed.fetch_add(1, Relaxed);
        return None;
    }
    let place = jit.noted(jit.cache.place(&bytes))?;
    jit.insight.placed(place.start() as u64, &bytes, || format!("guest-{pc:#x}"));
    if shown && wanted!("out_asm") {
        let at = place.start() as u64;
        let text = insight::host::disassemble(&bytes, at);
        tracing::trace!(target: "out_asm", "OUT: [size={}]\n  -- guest addr {pc:#018x}\n{text}", bytes.len());
    }
    let s = &jit.stats;
    let number = s.regions.fetch_add(1, Relaxed) + 1;
    for (n, by) in [
        (&s.instructions, plan.insns.len() as u64),
        (&s.clif, clif),
        (&s.bytes, place.len() as u64),
        (&s.nanoseconds, started.elapsed().as_nanos() as u64),
    ] {
        n.fetch_add(by, Relaxed);
    }
    let entries = plan.entries.iter().map(|&b| plan.insns[plan.blocks[b].insns.start].off).collect();
    let bytes = plan.ranges().into_iter().map(|r| (r.start, q.bytes[r].into())).collect();
    Some(Arc::new(Region {
        host: q.host,
        next: plan.next,
        mode: q.mode,
        number,
        instructions: plan.insns.len(),
        entries,
        bytes,
        narrow: plan.narrow,
        code: place,
        used: AtomicBool::new(true),
        age: AtomicU32::new(0),
        evicted: AtomicBool::new(false),
        _items: Box::new(items),
    }))
}
