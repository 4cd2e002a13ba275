//! The vCPUs of one machine: what they tell each other about code, and the map of code that they share.
//!
//! Not covered: a store of another vCPU that checked its tag before the page was marked and lands after its bytes were
//! read twice (the window is a few instructions long; correct guests synchronise).

use super::{
    env::{Reach, request},
    insight::Insight,
    jit::{Jit, JitConfig, JitCounters, Region},
    target::Target,
};
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;
use std::sync::{
    Arc, OnceLock, Weak,
    atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::*},
};

/// Which host pages hold bytes that some vCPU has decoded, in granules of 64 bytes.
pub(crate) struct CodeMap {
    /// One bit per page (hashed): a page whose bit is clear holds no code.
    filter: Box<[AtomicU64]>,
    pages: RwLock<FxHashMap<usize, Marks>>,
}
const FILTER: usize = 1 << 14;
/// What is known of a page that holds code or has held some.
struct Marks {
    /// Granules that were decoded.
    granules: u64,
    /// Stores beside them since.
    stores: AtomicU32,
    /// Stores after which the code is taken for a leftover: all stores to its page are slow. Twice as many the next time,
    /// in case it is not.
    limit: u32,
}
/// [`Marks::limit`] of a new page.
const LEFTOVER: u32 = 64;
impl CodeMap {
    fn new() -> CodeMap {
        CodeMap { filter: (0..FILTER).map(|_| AtomicU64::new(0)).collect(), pages: RwLock::default() }
    }
    fn bit(host: usize) -> (usize, u64) {
        let page = host >> 12;
        (page / 64 % FILTER, 1 << (page % 64))
    }
    /// The page holds code.
    #[inline]
    pub fn holds(&self, host: usize) -> bool {
        let (i, b) = Self::bit(host);
        self.filter[i].load(SeqCst) & b != 0 && self.pages.read().get(&(host & !0xfff)).is_some_and(|m| m.granules != 0)
    }
    fn granules(off: usize, len: usize) -> u64 {
        let (first, last) = (off / 64, (off + len.max(1) - 1).min(4095) / 64);
        (u64::MAX << first) & (u64::MAX >> (63 - last))
    }
    /// Marks bytes as code; true if the page held none before.
    pub fn mark(&self, host: usize, off: usize, len: usize) -> bool {
        let mask = Self::granules(off, len);
        if self.pages.read().get(&host).is_some_and(|m| m.granules & mask == mask) {
            return false;
        }
        let mut pages = self.pages.write();
        let m = pages.entry(host).or_insert(Marks { granules: 0, stores: AtomicU32::new(0), limit: LEFTOVER });
        let new = m.granules == 0;
        m.granules |= mask;
        let (i, b) = Self::bit(host);
        self.filter[i].fetch_or(b, SeqCst);
        new
    }
    /// The page holds code, but not in these bytes, which are about to be written. It counts, as in [`take`](Self::take).
    pub fn beside(&self, host: usize, off: usize, len: usize) -> bool {
        let (i, b) = Self::bit(host);
        let mask = Self::granules(off, len);
        self.filter[i].load(SeqCst) & b != 0
            && self
                .pages
                .read()
                .get(&host)
                .is_some_and(|m| m.granules != 0 && m.granules & mask == 0 && m.stores.fetch_add(1, Relaxed) < m.limit)
    }
    /// Unmarks the page if the bytes touch code, or if its code seems to be a leftover.
    fn take(&self, host: usize, off: usize, len: usize) -> bool {
        let mask = Self::granules(off, len);
        let leftover = match self.pages.read().get(&host) {
            None => return false,
            Some(m) if m.granules & mask != 0 => false,
            Some(m) if m.granules != 0 && m.stores.fetch_add(1, Relaxed) >= m.limit => true,
            Some(_) => return false,
        };
        // The filter's bit stays: it may stand for other pages.
        let mut pages = self.pages.write();
        let Some(m) = pages.get_mut(&host) else { return false };
        *m.stores.get_mut() = 0;
        if leftover {
            m.limit = m.limit.saturating_mul(2)
        }
        std::mem::take(&mut m.granules) != 0
    }
    /// Forgets all pages and gives their memory back. Right only if whoever decoded them drops what it decoded before it goes on.
    fn clear(&self) {
        let mut pages = self.pages.write();
        *pages = Default::default();
        self.filter.iter().for_each(|f| f.store(0, SeqCst));
    }
}

/// Instructions that the vCPUs of a machine have executed, which run one at a time. While one runs, the count is brought up to
/// date before everything that could look at it: rare instructions, accesses to devices, events.
#[derive(Default)]
pub struct Counted(AtomicU64);
impl Counted {
    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Relaxed)
    }
}

/// The vCPUs of one machine: what they must tell each other.
pub struct Group {
    pub(crate) code: CodeMap,
    vcpus: Mutex<Vec<Weak<dyn Reach>>>,
    /// How many there are, and bytes that what they decoded may take.
    members: AtomicUsize,
    /// How often pages were made clean.
    cleaned: AtomicU64,
    decoded_limit: AtomicUsize,
    /// Told about pages that begin to hold code.
    on_code: OnceLock<Box<dyn Fn(usize) + Send + Sync>>,
    /// Held for locked accesses that no host instruction covers.
    pub(crate) locked: Mutex<()>,
    /// vCPUs to come are looped, see [`Group::set_looped`].
    looped: AtomicBool,
    jit: Mutex<Tier1>,
    /// Instructions of all vCPUs, if they are counted together.
    counted: OnceLock<Arc<Counted>>,
    /// What is shown of its vCPUs.
    pub insight: Arc<Insight>,
}
/// Whether there is a tier 1.
enum Tier1 {
    No,
    Wanted(JitConfig),
    Is(Arc<Jit>),
}
impl Group {
    /// No vCPUs yet.
    pub fn new() -> Arc<Group> {
        Arc::new(Group {
            code: CodeMap::new(),
            vcpus: Mutex::default(),
            members: AtomicUsize::new(0),
            cleaned: AtomicU64::new(0),
            decoded_limit: AtomicUsize::new(JitConfig::default().cache),
            on_code: OnceLock::new(),
            locked: Mutex::new(()),
            looped: AtomicBool::new(false),
            jit: Mutex::new(Tier1::No),
            counted: OnceLock::new(),
            insight: Arc::default(),
        })
    }
    /// vCPUs that are made from now on compile what gets hot.
    pub fn set_jit(&self, config: JitConfig) {
        self.set_decoded_limit(config.cache);
        *self.jit.lock() = Tier1::Wanted(config)
    }
    /// What tier 1 did, if there is one.
    pub fn jit_counters(&self) -> Option<JitCounters> {
        match &*self.jit.lock() {
            Tier1::Is(j) => Some(j.counters()),
            _ => None,
        }
    }
    /// Tier 1, made for the first vCPU.
    pub(crate) fn jit<T: Target>(&self) -> Option<Arc<Jit>> {
        let mut jit = self.jit.lock();
        if let Tier1::Wanted(config) = *jit {
            *jit = match Jit::new::<T>(config, &self.insight) {
                Ok(j) => Tier1::Is(j),
                Err(e) => {
                    tracing::warn!("only the interpreter is used: {e}");
                    Tier1::No
                }
            }
        }
        match &*jit {
            Tier1::Is(j) => Some(j.clone()),
            _ => None,
        }
    }
    /// Instructions of vCPUs made from now on are counted together. They must run one at a time.
    pub fn count_instructions(&self) -> Arc<Counted> {
        self.counted.get_or_init(Arc::default).clone()
    }
    pub(crate) fn counted(&self) -> Option<&Arc<Counted>> {
        self.counted.get()
    }
    /// The vCPU that runs leaves its run loop, as do those that run next.
    pub(crate) fn stop(&self) {
        self.each(|v| v.shared().ask(request::STOP))
    }
    /// Hands a region to all vCPUs.
    pub(crate) fn publish(&self, r: &Arc<Region>) {
        self.each(|v| {
            v.shared().published.lock().push(r.clone());
            v.shared().ask(request::PUBLISH);
        })
    }
    /// Asks something of all vCPUs.
    pub(crate) fn ask_all(&self, what: u32) {
        self.each(|v| v.shared().ask(what))
    }
    /// The guest rests: vCPUs give back memory of what can be made again, half of the code they decoded and what makes look-ups fast.
    pub fn rest(&self) {
        self.ask_all(request::REST)
    }
    /// The guest starts anew, and will hardly have its code where it was: all that was made of it goes. Otherwise a guest that is reset again
    /// and again, with its kernel in another place each time, would keep what was compiled for all of them.
    pub fn start_anew(&self) {
        if let Tier1::Is(jit) = &*self.jit.lock() {
            jit.forget()
        }
        // (Before they are asked: what one decodes after it forgot is to stay marked.)
        self.code.clear();
        self.each(|v| {
            v.shared().published.lock().clear();
            v.shared().ask(request::ANEW)
        })
    }
    /// What vCPUs keep of the code they decoded takes so many bytes at most, all together; if less is used than one needs to
    /// get on (1 MiB each), that much.
    pub fn set_decoded_limit(&self, bytes: usize) {
        self.decoded_limit.store(bytes, Relaxed)
    }
    /// One vCPU's share of it.
    pub(crate) fn decoded_limit(&self) -> usize {
        (self.decoded_limit.load(Relaxed) / self.members.load(Relaxed).max(1)).max(1 << 20)
    }
    /// Takes a vCPU.
    pub(crate) fn add(&self, vcpu: &Arc<dyn Reach>) {
        let mut vcpus = self.vcpus.lock();
        vcpus.retain(|v| v.strong_count() != 0);
        vcpus.push(Arc::downgrade(vcpu));
        self.members.store(vcpus.len(), Relaxed)
    }
    /// vCPUs that are made from now on run tier 0 by a loop that calls one handler after the other, instead of handlers that
    /// jump to the next: what is left if a compiler stops turning sibling calls into jumps, and slower.
    pub fn set_looped(&self, on: bool) {
        self.looped.store(on, Relaxed)
    }
    pub(crate) fn looped(&self) -> bool {
        self.looped.load(Relaxed)
    }
    /// Sets who is told the host address of each page that begins to hold code. The first stays.
    pub fn on_code(&self, f: impl Fn(usize) + Send + Sync + 'static) {
        _ = self.on_code.set(Box::new(f));
    }
    /// Some vCPU has decoded code of the host page.
    pub fn holds_code(&self, host: usize) -> bool {
        self.code.holds(host)
    }
    /// Host pages that hold code, or have held some since the guest last started.
    pub fn code_pages(&self) -> usize {
        self.code.pages.read().len()
    }
    /// Stores to these host pages go through [`Bus::mark_dirty`](super::Bus::mark_dirty) again.
    pub fn made_clean(&self, host: usize, len: usize) {
        self.cleaned.fetch_add(1, SeqCst);
        self.each(|v| v.protect(host, len))
    }
    /// How often pages were made clean.
    pub(crate) fn cleaned(&self) -> u64 {
        self.cleaned.load(SeqCst)
    }
    /// Bytes of guest memory, given by their host address inside one page, were written by somebody that is not a vCPU
    /// (DMA): code decoded from them is dropped.
    pub fn written(&self, host: usize, len: usize) {
        let page = host & !0xfff;
        if self.code.holds(page) {
            self.overwritten(page, host & 0xfff, len);
        }
    }
    /// Bytes of a code page were overwritten; true if they were code.
    pub(crate) fn overwritten(&self, host: usize, off: usize, len: usize) -> bool {
        let hit = self.code.take(host, off, len);
        if hit {
            self.each(|v| {
                v.shared().dropped.lock().push(host);
                v.shared().ask(request::DROP);
            });
        }
        hit
    }
    /// Bytes are about to be decoded: stores to their page go slow from now on.
    pub(crate) fn protect(&self, host: usize, off: usize, len: usize) {
        if self.code.mark(host, off, len) {
            if let Some(f) = self.on_code.get() {
                f(host)
            }
            std::sync::atomic::fence(SeqCst);
            self.each(|v| v.protect(host, 4096))
        }
    }
    pub(crate) fn each(&self, f: impl Fn(&dyn Reach)) {
        for v in self.vcpus.lock().iter() {
            if let Some(v) = v.upgrade() {
                f(&*v)
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Tier1::Is(j) = self.jit.get_mut() {
            j.shut_down()
        }
    }
}
