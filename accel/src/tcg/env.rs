//! The memory both the handlers and the engine work on: one [`Env`] per vCPU.
//!
//! Invariants on which the unsafe code of this folder stands:
//! * Only the thread that runs the vCPU touches `hot`, `state`, `jc` and `inner`; other threads touch `shared` and clear
//!   write tags of `tlb`, all of them atomics.
//! * While handlers run nobody holds a reference into `hot`, `state`, `jc` or `inner`; rare code gets them for the length
//!   of one call, in which no handler runs.
//! * `Hot::tlb` points at one of the env's own TLBs.
#![expect(unsafe_code, reason = "shared between the vCPU's thread and kickers")]

use super::{
    jit::Region,
    ops::{Deferred, SLOTS, W},
    page::Pages,
    target::Target,
    tlb::{Inner, REGIMES, TLB, TlbEntry, WriteTags},
    unit::Held,
};
use std::{
    cell::UnsafeCell,
    ptr::{NonNull, null},
    sync::{
        Arc, Weak,
        atomic::{AtomicI64, AtomicU32, Ordering::SeqCst},
    },
};

/// What the thread of another vCPU or a device may touch.
#[repr(C)]
pub(crate) struct Shared {
    /// Handlers leave at the next block head if the budget is below this: 0 at rest, `i64::MAX` when kicked.
    pub exit_request: AtomicI64,
    /// What is asked for, bits of [`request`].
    pub requests: AtomicU32,
    /// Host pages whose code was overwritten.
    pub dropped: parking_lot::Mutex<Vec<usize>>,
    /// Regions that were compiled.
    pub published: parking_lot::Mutex<Vec<Arc<Region>>>,
}
/// Bits of [`Shared::requests`].
pub(crate) mod request {
    /// Look for interrupts and other events of the target.
    pub const SERVICE: u32 = 1;
    /// Physical memory looks different: forget all translations and host addresses.
    pub const FLUSH: u32 = 2;
    /// Code of the pages in `dropped` was overwritten.
    pub const DROP: u32 = 4;
    /// Leave the run loop.
    pub const STOP: u32 = 8;
    /// There are regions in `published`.
    pub const PUBLISH: u32 = 16;
    /// The code cache is full: drop what has not been used for longest, and regions that are evicted.
    pub const EVICT: u32 = 32;
    /// Look which decoded pages and regions are used.
    pub const AGE: u32 = 64;
    /// Too much is kept of decoded code: drop what has not been used for longest.
    pub const SHED: u32 = 128;
    /// Nothing got hot for a while: drop a part of decoded code, what has not been used for longest, and what is only kept to
    /// be fast.
    pub const REST: u32 = 256;
    /// Drop all decoded code and what is only kept to be fast.
    pub const ANEW: u32 = 512;
    /// Regions were evicted because they are to be made differently.
    pub const RETIRE: u32 = 1024;
}
impl Shared {
    pub fn ask(&self, what: u32) {
        self.requests.fetch_or(what, SeqCst);
        self.exit_request.store(i64::MAX, SeqCst);
    }
}

/// Lets other threads reach a vCPU.
#[derive(Clone)]
pub struct Kick(pub(crate) Arc<dyn Reach>);
impl std::fmt::Debug for Kick {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kick").field("requests", &self.0.shared().requests).finish()
    }
}
impl Kick {
    /// The same without keeping the vCPU's memory alive.
    pub fn downgrade(&self) -> WeakKick {
        WeakKick(Arc::downgrade(&self.0))
    }
    /// Makes the vCPU look for interrupts and events ([`Target::service`]) at its next block head. The event must have
    /// been recorded before.
    pub fn service(&self) {
        self.0.shared().ask(request::SERVICE);
    }
    /// Makes [`Vcpu::run`](super::Vcpu::run) return with [`Exit::Stopped`](super::Exit::Stopped) at its next block head.
    pub fn stop(&self) {
        self.0.shared().ask(request::STOP);
    }
    /// Makes the vCPU forget translations and host addresses at its next block head: the memory map changed.
    pub fn flush(&self) {
        self.0.shared().ask(request::FLUSH);
    }
}
/// Reaches a vCPU while it exists.
#[derive(Clone)]
pub struct WeakKick(Weak<dyn Reach>);
impl WeakKick {
    /// The vCPU, if it still exists.
    pub fn upgrade(&self) -> Option<Kick> {
        Some(Kick(self.0.upgrade()?))
    }
}
/// An env without its target's type.
pub(crate) trait Reach: Send + Sync {
    fn shared(&self) -> &Shared;
    /// Makes stores to host pages slow from now on.
    fn protect(&self, host: usize, len: usize);
}

/// A jump cache entry: the op for a linear address under a mode and epoch.
#[repr(C, align(32))]
pub(crate) struct JcEntry<T: Target> {
    /// The address, with the [`salt`] in the upper bits, which in a canonical address say nothing that bit 47 does not.
    pub key: u64,
    pub op: *const Op<T>,
    /// The region that can be entered there, or one that says that there is none.
    pub code: *const u8,
    /// Number of the region's entry.
    pub entry: u64,
}
impl<T: Target> JcEntry<T> {
    /// Key of an entry that no address matches: no salt is zero. (So an entry of zeros is none.)
    pub const NONE: u64 = 0;
}
/// Entries of the jump cache.
pub(crate) const JC: usize = 32768;
/// Names of a mode in an epoch: 1 to [`LAST`](salt::LAST), so that two of them never differ by a sign extension.
pub(crate) mod salt {
    /// Place in a key.
    pub const SHIFT: u32 = 48;
    pub const LAST: u64 = 0x7ffe;
    /// Matches no entry.
    pub const NONE: u64 = 0x7fff << SHIFT;
}

/// What handlers use most. `regs` and `x` mean what the target says.
#[repr(C, align(16))]
pub struct Hot {
    /// The register file, by slot.
    pub regs: [u64; SLOTS],
    pub(crate) cc: u64,
    pub(crate) cc_v: [u64; 3],
    pub(crate) budget: i64,
    /// What the budget has paid from the rare instruction that runs to its block's end, and what it must give back.
    pub(crate) paid: i64,
    pub(crate) lent: i64,
    pub(crate) tlb: *const TlbEntry,
    /// Names the mode and the epoch of valid jump cache entries: a [`salt`] in its place.
    pub(crate) salt: u64,
    pub(crate) ip: u64,
    pub(crate) reason: u64,
    pub(crate) at: u64,
    /// Control and status word of vector floating point (x86: MXCSR). While handlers run, its sticky flags may still be in
    /// the host's register; they are collected before rare code and the engine run.
    pub fpcr: u64,
    /// The host's own while the guest's is loaded, else 0.
    pub(crate) fpcr_host: u64,
    pub(crate) scratch: [u64; 2],
    /// The TLB entry that was looked for by a region, as regions address it.
    pub(crate) place: u64,
    /// The vector registers.
    pub x: [u128; 32],
    pub(crate) unit: Held,
}
impl Hot {
    pub(crate) fn new() -> Hot {
        Hot {
            regs: [0; SLOTS],
            cc: 0,
            cc_v: [0; 3],
            budget: 0,
            paid: 0,
            lent: 0,
            tlb: null(),
            salt: salt::NONE,
            ip: 0,
            reason: 0,
            at: 0,
            fpcr: 0x1f80,
            fpcr_host: 0,
            scratch: [0; 2],
            place: 0,
            x: [0; 32],
            unit: Held::new(),
        }
    }
    /// The flags, not yet computed.
    pub fn deferred(&self) -> Deferred<u64> {
        Deferred { kind: self.cc as u8, w: W::from_code((self.cc >> 8) as u8), v: self.cc_v }
    }
    /// Replaces the flags.
    pub fn defer(&mut self, d: Deferred<u64>) {
        self.cc = (d.w as u64) << 8 | d.kind as u64;
        self.cc_v = d.v;
    }
    /// Iterations that the budget covers, at least one, of the rare instruction that runs. Each costs one by
    /// [`refund`](Self::refund): where an event comes between two of them must not depend on how many are done at once.
    pub fn iterations(&self) -> u64 {
        (self.budget + self.paid - self.lent).max(1) as u64
    }
    /// Adds to the instruction budget: what a rare instruction did not use, or (negative) used beyond one.
    pub fn refund(&mut self, n: i64) {
        self.budget += n;
    }
}

/// A handler: runs an op and those after it; returns null when something stopped them, or the op at which to go on.
pub(crate) type Run<T> = unsafe extern "C" fn(NonNull<Env<T>>, *const Op<T>) -> *const Op<T>;

/// A decoded instruction. Built only by `page.rs`, which checks every slot number.
#[repr(C, align(32))]
pub struct Op<T: Target> {
    pub(crate) run: Run<T>,
    /// Immediate; the target op of a direct branch; the address mask of an op without an instruction.
    pub(crate) imm: u64,
    /// Displacement; for an op without an instruction the offset of its address from the page.
    pub(crate) disp: i32,
    pub(crate) r: [u8; 4],
    /// Index of the form, and [`marks`](mark).
    pub(crate) form: u16,
    /// Offset in the page in the low 12 bits, segment number above.
    pub(crate) off: u16,
    /// Times its block is entered until it is hot.
    pub(crate) heat: u16,
    /// Instructions up to the next branch, this one included.
    pub(crate) n: u8,
    /// Length in the low 4 bits (0: no instruction), scale above.
    pub(crate) len_scale: u8,
}
/// Bits above the index of a form.
pub(crate) mod mark {
    /// Somebody may read the flags it makes.
    pub const LIVE: u16 = 1 << 15;
    /// The quick compiler has seen the block it begins.
    pub const QUICK: u16 = 1 << 14;
    /// The index.
    pub const FORM: u16 = QUICK - 1;
}
impl<T: Target> Op<T> {
    /// Index of the form.
    pub(crate) fn form(&self) -> usize {
        (self.form & mark::FORM) as usize
    }
}
impl<T: Target> Clone for Op<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T: Target> Copy for Op<T> {}

/// How an [`Env`] of any target begins.
#[repr(C, align(64))]
struct Head {
    shared: Shared,
    hot: UnsafeCell<Hot>,
}
/// Where [`Hot`] lies in the env of any target.
pub(crate) const HOT: usize = std::mem::offset_of!(Head, hot);

/// One vCPU's memory.
#[repr(C, align(64))]
pub(crate) struct Env<T: Target> {
    pub shared: Shared,
    pub hot: UnsafeCell<Hot>,
    pub tlb: [[TlbEntry; TLB]; REGIMES],
    /// An entry for one access: a store beside code.
    pub once: TlbEntry,
    pub write_tags: WriteTags,
    pub jc: UnsafeCell<[JcEntry<T>; JC]>,
    pub state: UnsafeCell<T::State>,
    pub inner: UnsafeCell<Inner>,
    pub pages: UnsafeCell<Pages<T>>,
    /// The target's fault on its way from a handler to the dispatcher.
    pub fault: UnsafeCell<Option<T::Fault>>,
}
impl<T: Target> Env<T> {
    /// Code that is made once, for all targets, finds [`Hot`].
    pub const HEAD: () = assert!(std::mem::offset_of!(Env<T>, hot) == HOT);
}
// SAFETY: other threads only use `shared` and the atomics of `tlb` (module text); all else belongs to the vCPU's thread,
// to which `Vcpu`, the only owner that hands it out, is moved as a whole.
unsafe impl<T: Target> Send for Env<T> {}
// SAFETY: as above.
unsafe impl<T: Target> Sync for Env<T> {}

/// Gives the host the whole pages of memory whose contents are not needed: each byte is as it was afterwards, or zero.
/// # Safety
/// The memory is live, zero bytes are values of its type, and whoever uses it meanwhile takes them for what was there.
pub(crate) unsafe fn discard<V: ?Sized>(what: *mut V) {
    // (The host takes whole pages of its own size, and rounds a length up to them.)
    // SAFETY: a call without memory.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(1 << 16);
    // SAFETY: live, as demanded of the caller.
    let len = unsafe { size_of_val(&*what) };
    let first = what.cast::<u8>();
    let skip = first.align_offset(page);
    let whole = len.saturating_sub(skip) & !(page - 1);
    if whole != 0 {
        // (The host may refuse: then it keeps the memory.)
        // SAFETY: pages wholly within the memory. A private mapping has zeros then, another keeps what it has.
        let _ = unsafe { rustix::mm::madvise(first.add(skip).cast(), whole, rustix::mm::Advice::LinuxDontNeed) };
    }
}
#[inline(always)]
pub(crate) fn hot<T: Target>(env: NonNull<Env<T>>) -> *mut Hot {
    // SAFETY: only forms a pointer; `env` is live.
    unsafe { UnsafeCell::raw_get(&raw const (*env.as_ptr()).hot) }
}
#[inline(always)]
pub(crate) fn state<T: Target>(env: NonNull<Env<T>>) -> *mut T::State {
    // SAFETY: as above.
    unsafe { UnsafeCell::raw_get(&raw const (*env.as_ptr()).state) }
}
#[inline(always)]
pub(crate) fn inner<T: Target>(env: NonNull<Env<T>>) -> *mut Inner {
    // SAFETY: as above.
    unsafe { UnsafeCell::raw_get(&raw const (*env.as_ptr()).inner) }
}
#[inline(always)]
pub(crate) fn pages<T: Target>(env: NonNull<Env<T>>) -> *mut Pages<T> {
    // SAFETY: as above.
    unsafe { UnsafeCell::raw_get(&raw const (*env.as_ptr()).pages) }
}
#[inline(always)]
pub(crate) fn fault<T: Target>(env: NonNull<Env<T>>) -> *mut Option<T::Fault> {
    // SAFETY: as above.
    unsafe { UnsafeCell::raw_get(&raw const (*env.as_ptr()).fault) }
}
#[inline(always)]
pub(crate) fn jc<T: Target>(env: NonNull<Env<T>>, ip: u64) -> *mut JcEntry<T> {
    jc_entry(env, jc_index(ip))
}
/// Where the jump cache keeps an address.
#[inline(always)]
pub(crate) fn jc_index(ip: u64) -> usize {
    (ip ^ ip >> 12) as usize % JC
}
/// The entry there is for an address, in its place or the one beside that.
pub(crate) fn jc_known<T: Target>(env: NonNull<Env<T>>, ip: u64) -> Option<*mut JcEntry<T>> {
    // SAFETY: as above; plain words.
    let is = |j: &*mut JcEntry<T>| unsafe { (**j).key == ip ^ (*hot(env)).salt };
    let i = jc_index(ip);
    [i, i ^ 1].map(|i| jc_entry(env, i)).into_iter().find(is)
}
/// Makes an entry for an address; what was in its place goes to the one beside, if that was its own: else it has been there for longer than
/// what is beside, which would have to go.
pub(crate) fn jc_put<T: Target>(env: NonNull<Env<T>>, ip: u64, e: JcEntry<T>) {
    let i = jc_index(ip);
    // SAFETY: as above; plain words.
    unsafe {
        let old = jc_entry(env, i).replace(e);
        // (The upper bits of a key are not part of the index.)
        if old.key != JcEntry::<T>::NONE && jc_index(old.key) == i {
            jc_entry(env, i ^ 1).write(old)
        }
    }
}
/// Forgets entries made for an address with this [`jc_index`], and those beside.
pub(crate) fn jc_forget<T: Target>(env: NonNull<Env<T>>, i: usize) {
    // SAFETY: as above.
    [i, i ^ 1].into_iter().for_each(|i| unsafe { (*jc_entry(env, i)).key = JcEntry::<T>::NONE })
}
/// Makes entries forget regions whose code is `gone`.
/// # Safety
/// The calling thread owns the vCPU, and no handler runs.
pub(crate) unsafe fn jc_without<T: Target>(env: NonNull<Env<T>>, gone: &[*const u8], no_region: *const u8) {
    if gone.is_empty() {
        return;
    }
    for i in 0..JC {
        // SAFETY: as demanded of the caller; plain words.
        unsafe {
            let j = jc_entry(env, i);
            if gone.contains(&(*j).code) {
                ((*j).code, (*j).entry) = (no_region, 0)
            }
        }
    }
}
#[inline(always)]
pub(crate) fn jc_entry<T: Target>(env: NonNull<Env<T>>, i: usize) -> *mut JcEntry<T> {
    // SAFETY: as above; the index is below JC.
    unsafe { UnsafeCell::raw_get(&raw const (*env.as_ptr()).jc).cast::<JcEntry<T>>().add(i % JC) }
}
