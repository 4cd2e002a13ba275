//! The soft TLB: filling, flushing, and what stands behind it.
//!
//! First level: per regime 32768 entries, checked inline as `(tag ^ la) > 0x1000 - size` ⇒ miss. A page that another one takes the
//! [place](index) of goes to its [other place](other), where regions look before they call. An invalid tag is zero, as fresh memory is, or
//! in the places of the first page the second one: it differs from every address for which the entry is looked at.
//! Pages that need more than a host access (MMIO, stores to code pages, ROM, watchpoints) have that tag invalid.
//! Second level: *spots*, the results of page walks, valid by generation; also what the walking frame of tier 0 uses. It grows
//! when as many of them were replaced while they were valid as there are.
#![expect(unsafe_code, reason = "raw access to the env and guest RAM")]

use super::{
    bus::Bus,
    env::{Env, JC, JcEntry, discard, hot, inner, jc_entry, jc_forget, request},
    group::{Counted, Group},
    mem::Phys,
    sides::Sides,
    target::*,
};
use std::{
    cell::UnsafeCell,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::*, fence},
    },
};

/// Entries of the first level, per regime.
pub const TLB: usize = 32768;
/// Translation regimes with a first level of their own.
pub const REGIMES: usize = 4;
/// Entries of the second level, which doubles as long as it is too small.
const SPOTS: usize = 2048;
/// Most of them.
const SPOTS_MOST: usize = 65536;
/// Bits of the filter of pages with jump cache entries.
const JUMPED: usize = 1 << 16;
/// Buckets of [`WriteTags`].
const BUCKETS: usize = 16384;
/// Tags set in crowded buckets until the bucket of one is counted again.
const AGAIN: u32 = 2048;
/// Fills after which a flush clears everything.
const LIST: usize = TLB / 2;

/// First-level entry.
#[repr(C)]
pub(crate) struct TlbEntry {
    pub read: AtomicU64,
    pub write: AtomicU64,
    pub exec: AtomicU64,
    /// Host address minus linear address.
    pub addend: AtomicU64,
}
impl TlbEntry {
    pub fn clear(&self, index: usize) {
        for t in [&self.read, &self.write, &self.exec] {
            t.store(invalid(index), Relaxed)
        }
    }
    /// The tag for accesses of a kind.
    #[inline(always)]
    pub fn tag(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Read => &self.read,
            Kind::Write => &self.write,
            Kind::Exec => &self.exec,
        }
        .load(Relaxed)
    }
}
pub(crate) const fn invalid(index: usize) -> u64 {
    if index == 0 || index == other(0) { 1 << 12 } else { 0 }
}
/// Makes the entries of a regime, all of them zero, invalid.
pub(crate) fn void(regime: &[TlbEntry; TLB]) {
    [0, other(0)].into_iter().for_each(|i| regime[i].clear(i))
}
/// Where write tags of host pages may be: two places per bucket of pages.
pub(crate) struct WriteTags {
    places: [[AtomicU32; 2]; BUCKETS],
    /// Tags set in crowded buckets.
    crowded: AtomicU32,
}
impl WriteTags {
    const NONE: u32 = 0;
    /// There are more: both words.
    const MANY: u32 = u32::MAX;
    fn bucket(&self, host: usize) -> &[AtomicU32; 2] {
        &self.places[(host >> 12) % BUCKETS]
    }
    /// A tag of the page is about to be set; by the thread whose `tlb` it is.
    fn note(&self, tlb: &[[TlbEntry; TLB]; REGIMES], host: usize, regime: usize, index: usize) {
        let this = 1 + (regime * TLB + index) as u32;
        let bucket = self.bucket(host);
        if bucket[0].load(Relaxed) == Self::MANY {
            return self.count_again(tlb, bucket, this);
        }
        if bucket.iter().any(|p| p.load(Relaxed) == this) {
            return;
        }
        // A place whose tag has been cleared or replaced since is free.
        let free = bucket.iter().find(|p| match p.load(Relaxed) {
            Self::NONE => true,
            place => {
                let (regime, i) = ((place as usize - 1) / TLB % REGIMES, (place as usize - 1) % TLB);
                let (e, w) = (&tlb[regime][i], tlb[regime][i].write.load(Relaxed));
                let page = w.wrapping_add(e.addend.load(Relaxed)) as usize;
                w == invalid(i) || !std::ptr::eq(self.bucket(page), bucket)
            }
        });
        match free {
            Some(p) => p.store(this, Relaxed),
            // (In this order: who has read the first word as it was finds the second as it was, or that there are more.)
            None => bucket.iter().for_each(|p| p.store(Self::MANY, Release)),
        }
    }
    /// A bucket has too many tags. Now and then all tags are looked through, for most of them do not live long.
    fn count_again(&self, tlb: &[[TlbEntry; TLB]; REGIMES], bucket: &[AtomicU32; 2], this: u32) {
        let n = self.crowded.load(Relaxed).wrapping_add(1);
        self.crowded.store(n, Relaxed);
        if !n.is_multiple_of(AGAIN) {
            return;
        }
        let live = tlb.iter().flatten().enumerate().filter(|(p, e)| {
            let w = e.write.load(Relaxed);
            let page = w.wrapping_add(e.addend.load(Relaxed)) as usize;
            w != invalid(p % TLB) && *p as u32 + 1 != this && std::ptr::eq(self.bucket(page), bucket)
        });
        let live: Vec<u32> = live.map(|(p, _)| p as u32 + 1).take(2).collect();
        // (Whoever protects a page meanwhile finds that there are more, until both words are right.)
        match live[..] {
            [] => bucket[1].store(Self::NONE, Relaxed),
            [one] => bucket[1].store(one, Relaxed),
            _ => return,
        }
        bucket[0].store(this, Release);
    }
    /// All tags have been cleared.
    fn clear(&self) {
        self.places.iter().flatten().for_each(|t| t.store(Self::NONE, Relaxed))
    }
    /// Where tags of the page may be; nothing if anywhere.
    fn of(&self, host: usize) -> Option<impl Iterator<Item = usize>> {
        let places = [0, 1].map(|i| self.bucket(host)[i].load(Acquire));
        let known = places.into_iter().filter(|&p| p != Self::NONE).map(|p| p as usize - 1);
        (!places.contains(&Self::MANY)).then_some(known)
    }
}
#[inline(always)]
pub(crate) const fn index(la: u64) -> usize {
    (la >> 12) as usize % TLB
}
/// How far from its place the other place of a page is. (Pages near to it do not come there.)
pub(crate) const OTHER: usize = TLB / 2;
#[inline(always)]
pub(crate) const fn other(index: usize) -> usize {
    index ^ OTHER
}

/// What a page walk found, with the host's side added.
#[derive(Clone, Copy)]
pub(crate) struct Spot {
    /// Linear page, regime in the low bits.
    key: u64,
    /// (None is zero: so is an entry that was discarded.)
    generation: u64,
    pub pa: u64,
    /// Null: no RAM or ROM here.
    pub host: *mut u8,
    pub flags: u16,
}
impl Spot {
    const NONE: Spot = Spot { key: u64::MAX, generation: 0, pa: 0, host: std::ptr::null_mut(), flags: 0 };
}
/// Bits of [`Spot::flags`].
pub(crate) mod spot {
    pub const READ: u16 = 1;
    pub const WRITE: u16 = 2;
    pub const EXEC: u16 = 4;
    /// Host memory that takes stores.
    pub const RAM: u16 = 8;
    pub const LOG: u16 = 16;
    pub const WATCH: u16 = 32;
    pub const GLOBAL: u16 = 64;
}

/// The bit that a spot must have for accesses of a kind.
fn need(kind: Kind) -> u16 {
    match kind {
        Kind::Read => spot::READ,
        Kind::Write => spot::WRITE,
        Kind::Exec => spot::EXEC,
    }
}

/// A place of the walking frame: one spot, or two for a page crosser.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub la: u64,
    pub spot: [Spot; 2],
}

/// Page of physical memory whose host address is known.
#[derive(Clone, Copy)]
pub(crate) struct PhysEntry {
    pub pa: u64,
    pub host: *mut u8,
    pub writable: bool,
    pub log: bool,
}
pub(crate) const PHYS: usize = 512;

/// What the engine keeps per vCPU beside the handlers' own memory.
pub(crate) struct Inner {
    pub bus: Arc<dyn Bus>,
    pub group: Arc<Group>,
    pub view: u8,
    pub phys: Box<[PhysEntry; PHYS]>,
    /// As many as a power of two.
    spots: Vec<Spot>,
    /// Valid ones that were replaced since it grew.
    replaced: usize,
    generation: u64,
    generation_local: u64,
    /// First-level entries filled since the last flush: `[regime][global]`.
    filled: [[Vec<u16>; 2]; REGIMES],
    /// Hulls of large pages seen, lower and upper half of the address space: INVLPG inside drops everything.
    large: [(u64, u64); 2],
    pub places: [Place; 4],
    pub n_places: usize,
    /// Op and first-level entry of the last miss that was filled: a second one in a row means that two operands of one
    /// instruction want the same entry.
    pub last_miss: (usize, usize),
    /// The page beside whose code something was stored last, which is marked dirty, and how often pages had been made clean by then.
    marked: (usize, u64),
    /// The running vCPU's code may have been overwritten: leave before the next op.
    pub stale: bool,
    /// Mode salts of this epoch.
    pub salts: Vec<(u32, u64)>,
    pub next_salt: u64,
    /// Hashes of pages with jump cache entries.
    jumped: Box<[u64; JUMPED / 64]>,
    /// Jump cache entries made through translations that are not global: a flush of those forgets them.
    jumps_local: Vec<u16>,
    /// The mode and the regime must be taken anew.
    pub mode_changed: bool,
    pub mode: u32,
    pub sides: Sides,
    pub counters: Counters,
    /// The count of all vCPUs' instructions, if there is one, and what it will be when the budget is used up.
    pub counted: Option<(Arc<Counted>, u64)>,
}
/// Reasons to come back to the dispatcher.
pub const STOPS: [&str; 9] =
    ["look-up", "budget or kick", "fault", "page crossing", "mode", "halt", "exit", "hot block", "side exit"];
/// What happened, for benches and tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Instructions run, up to the last return of the run loop; a page run of a repeated one may count as many.
    pub instructions: u64,
    /// Page walks.
    pub walks: u64,
    /// First-level misses.
    pub misses: u64,
    /// Instructions run in the walking frame.
    pub slow: u64,
    /// Passes through the dispatcher.
    pub dispatches: u64,
    /// Runs of instructions decoded.
    pub decoded: u64,
    /// Pages dropped because their code was overwritten.
    pub dropped: u64,
    /// Pages dropped because others needed the room.
    pub evicted: u64,
    /// Decoded pages there are now.
    pub decoded_pages: u64,
    /// Bytes kept of them.
    pub decoded_bytes: u64,
    /// Times a region was entered from tier 0.
    pub entered: u64,
    /// Times a region left before an instruction that tier 0 had to run.
    pub side: u64,
    /// Times a region was left for a kick.
    pub kicked: u64,
    /// Times a region was left for the dispatcher, after an instruction that ended there.
    pub out: u64,
    /// Flushes of all translations.
    pub flushes: u64,
    /// Flushes of those that are not global.
    pub flushes_local: u64,
    /// Flushes of one page.
    pub flushes_page: u64,
    /// Why handlers and regions came back to the dispatcher, by [`STOPS`].
    pub stops: [u64; STOPS.len()],
}

impl Inner {
    pub fn new(bus: Arc<dyn Bus>, group: Arc<Group>) -> Inner {
        let phys = PhysEntry { pa: u64::MAX, host: std::ptr::null_mut(), writable: false, log: false };
        let counted = group.counted().map(|c| (c.clone(), 0));
        Inner {
            bus,
            counted,
            group,
            view: 0,
            phys: boxed(phys),
            spots: vec![Spot::NONE; SPOTS],
            replaced: 0,
            generation: 1,
            generation_local: 1,
            filled: Default::default(),
            large: [(u64::MAX, 0); 2],
            places: [Place { la: 0, spot: [Spot::NONE; 2] }; 4],
            n_places: 0,
            last_miss: (0, 0),
            marked: (0, 0),
            stale: false,
            salts: Vec::new(),
            next_salt: 0,
            jumped: boxed(0),
            jumps_local: Vec::new(),
            mode_changed: true,
            mode: 0,
            sides: Sides::new(),
            counters: Counters::default(),
        }
    }
    pub fn phys(&mut self) -> Phys<'_> {
        Phys { bus: &*self.bus, cache: &mut self.phys, view: self.view }
    }
    /// Jump cache entries made so far no longer match.
    pub fn forget_jumps(&mut self) {
        self.salts.clear();
        self.mode_changed = true;
        self.jumped.fill(0);
        self.jumps_local.clear();
    }
    fn jump_bit(page: u64) -> (usize, u64) {
        let h = (page >> 12).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
        ((h >> 6) as usize % (JUMPED / 64), 1 << (h & 63))
    }
    /// Jump cache entry `i` has been made for `ip`.
    pub fn note_jump(&mut self, ip: u64, regime: usize, i: usize) {
        let (word, bit) = Self::jump_bit(ip & !0xfff);
        self.jumped[word] |= bit;
        let key = ip & !0xfff | regime as u64;
        let s = *self.spot(key);
        // (What has left the second level may be anything.)
        let global = s.key == key && s.flags & spot::GLOBAL != 0 && self.valid(&s);
        if !global && self.jumps_local.len() <= JC {
            self.jumps_local.push(i as u16);
        }
    }
    fn may_jump_to(&self, la: u64) -> bool {
        let (i, b) = Self::jump_bit(la & !0xfff);
        self.jumped[i] & b != 0
    }
}

/// An array made on the heap: vCPU threads may have small stacks.
pub(super) fn boxed<V: Copy, const N: usize>(v: V) -> Box<[V; N]> {
    match vec![v; N].into_boxed_slice().try_into() {
        Ok(b) => b,
        Err(_) => unreachable!("made with N elements"),
    }
}

/// The running regime's entries from an index on are filled anew when they are needed.
pub(crate) fn forget<T: Target>(env: NonNull<Env<T>>, from: usize, n: usize) {
    for i in (0..n).map(|i| from.wrapping_add(i) % TLB) {
        // SAFETY: `tlb` points at as many entries of the env, which are atomics.
        unsafe { (*(*hot(env)).tlb.add(i)).clear(i) }
    }
}
fn clear_list<T: Target>(env: NonNull<Env<T>>, regime: usize, list: &mut Vec<u16>) {
    // SAFETY: the TLB is made of atomics.
    let tlb = unsafe { &(&raw const (*env.as_ptr()).tlb).as_ref().expect("env")[regime] };
    if list.len() > LIST {
        for (i, e) in tlb.iter().enumerate() {
            e.clear(i)
        }
    } else {
        for &i in list.iter() {
            tlb[i as usize].clear(i as usize)
        }
    }
    list.clear();
}

/// Brings the count of instructions up to date; `paid` of those that the budget was charged for have not been run.
/// # Safety
/// The calling thread owns the vCPU; no exclusive reference into `inner` or `hot` is live.
#[inline(always)]
pub(crate) unsafe fn count<T: Target>(env: NonNull<Env<T>>, paid: i64) {
    // SAFETY: as demanded of the caller.
    unsafe {
        if let Some((count, end)) = &(*inner(env)).counted {
            count.set(end.wrapping_sub(((*hot(env)).budget + paid) as u64))
        }
    }
}
/// An instruction that went beyond the registers and RAM has been run: the vCPU must leave before the next one. Where
/// instructions are counted, events are looked at between the very instructions between which they came, whatever runs them.
/// # Safety
/// As for [`count`].
#[inline(always)]
pub(crate) unsafe fn must_leave<T: Target>(env: NonNull<Env<T>>) -> bool {
    // SAFETY: as demanded of the caller; an atomic of a live env.
    unsafe {
        let n = inner(env);
        (*n).stale || (*n).counted.is_some() && (*env.as_ptr()).shared.exit_request.load(Relaxed) != 0
    }
}

/// Forgets all translations.
/// # Safety
/// The calling thread owns the vCPU and no reference into `inner` is live.
pub(crate) unsafe fn flush_all<T: Target>(env: NonNull<Env<T>>) {
    // SAFETY: as demanded of the caller.
    let n = unsafe { &mut *inner(env) };
    n.counters.flushes += 1;
    n.generation += 1;
    n.generation_local += 1;
    n.large = [(u64::MAX, 0); 2];
    for r in 0..REGIMES {
        for g in 0..2 {
            clear_list(env, r, &mut n.filled[r][g]);
        }
    }
    // SAFETY: atomics.
    unsafe { (&raw const (*env.as_ptr()).write_tags).as_ref().expect("env") }.clear();
    n.forget_jumps();
}
/// Forgets all translations but global ones.
/// # Safety
/// As for [`flush_all`].
pub(crate) unsafe fn flush_local<T: Target>(env: NonNull<Env<T>>) {
    // SAFETY: as demanded of the caller.
    let n = unsafe { &mut *inner(env) };
    n.counters.flushes_local += 1;
    n.generation_local += 1;
    for r in 0..REGIMES {
        clear_list(env, r, &mut n.filled[r][0]);
    }
    if n.jumps_local.len() > JC {
        return n.forget_jumps();
    }
    n.jumps_local.drain(..).for_each(|i| jc_forget(env, i.into()))
}
/// Forgets the translation of one page (of the whole TLB if it may be part of a large one).
/// # Safety
/// As for [`flush_all`].
pub(crate) unsafe fn flush_page<T: Target>(env: NonNull<Env<T>>, la: u64) {
    // SAFETY: as demanded of the caller.
    let n = unsafe { &mut *inner(env) };
    let (lo, hi) = n.large[(la >> 63) as usize];
    if la >= lo && la < hi {
        // SAFETY: as demanded of the caller.
        return unsafe { flush_all(env) };
    }
    n.counters.flushes_page += 1;
    let i = index(la);
    for r in 0..REGIMES {
        for i in [i, other(i)] {
            // SAFETY: atomics.
            unsafe { (&raw const (*env.as_ptr()).tlb).as_ref().expect("env")[r][i].clear(i) };
        }
        let key = la & !0xfff | r as u64;
        let s = n.spot(key);
        if s.key == key {
            *s = Spot::NONE
        }
    }
    if n.may_jump_to(la) {
        for i in 0..JC {
            // SAFETY: as demanded of the caller.
            unsafe {
                let j = jc_entry(env, i);
                if ((*j).key ^ la) << 16 >> 28 == 0 {
                    (*j).key = JcEntry::<T>::NONE
                }
            }
        }
    }
}
/// Gives the host the memory of what is kept only to be fast: the translations and the jump cache.
/// # Safety
/// As for [`flush_all`].
pub(crate) unsafe fn rest<T: Target>(env: NonNull<Env<T>>) {
    // SAFETY: as demanded of the caller. All entries are invalid after the flush, and zero is; other threads only make tags
    // invalid. No walk is under way, so that no reference into the second level is live.
    unsafe {
        flush_all(env);
        discard(&raw mut (*env.as_ptr()).tlb);
        (&raw const (*env.as_ptr()).tlb).as_ref().expect("env").iter().for_each(void);
        discard(UnsafeCell::raw_get(&raw const (*env.as_ptr()).jc));
        discard(&raw mut (&mut (*inner(env)).spots)[..])
    }
}
/// Forgets translations and host addresses: the memory map changed.
/// # Safety
/// As for [`flush_all`].
pub(crate) unsafe fn flush_map<T: Target>(env: NonNull<Env<T>>) {
    // SAFETY: as demanded of the caller.
    unsafe {
        for p in (*inner(env)).phys.iter_mut() {
            p.pa = u64::MAX
        }
        // (Another memory may be at that address, or be logged from now on.)
        (*inner(env)).marked = (0, 0);
        flush_all(env)
    }
}

fn slot(key: u64, spots: usize) -> usize {
    // (Pages that meet in the first level do not do so here.)
    let page = key >> 12;
    (page ^ page >> 11 ^ page >> 22 ^ (key & 3) << 9) as usize & (spots - 1)
}
impl Inner {
    /// Where the second level keeps a page, or another in its place.
    fn spot(&mut self, key: u64) -> &mut Spot {
        let i = slot(key, self.spots.len());
        &mut self.spots[i]
    }
    fn valid(&self, s: &Spot) -> bool {
        s.generation == if s.flags & spot::GLOBAL != 0 { self.generation } else { self.generation_local }
    }
    /// Puts a page into the second level.
    fn keep(&mut self, s: Spot) {
        let old = *self.spot(s.key);
        if old.key != s.key && old.key != Spot::NONE.key && self.valid(&old) {
            self.replaced += 1;
            let n = self.spots.len();
            if self.replaced > n && n < SPOTS_MOST {
                self.replaced = 0;
                let mut more = vec![Spot::NONE; 2 * n];
                self.spots.iter().filter(|s| s.key != Spot::NONE.key).for_each(|s| more[slot(s.key, 2 * n)] = *s);
                self.spots = more
            }
        }
        *self.spot(s.key) = s
    }
}

/// The host address of the page of `la` for fetches, if the second level knows it.
pub(crate) fn seen<T: Target>(n: &mut Inner, state: &T::State, la: u64) -> Option<usize> {
    let key = la & !0xfff | (T::regime(state, Who::Current) % REGIMES) as u64;
    let s = *n.spot(key);
    (s.key == key && n.valid(&s) && s.flags & spot::EXEC != 0 && !s.host.is_null()).then_some(s.host as usize)
}
/// Finds the page of `la`, walking if need be, and installs it in the first level.
/// # Safety
/// The calling thread owns the vCPU; no reference into `hot` or `inner` is live (one to `state` is passed).
pub(crate) unsafe fn find<T: Target>(
    env: NonNull<Env<T>>,
    state: &mut T::State,
    la: u64,
    access: Access,
) -> Result<Spot, T::Fault> {
    let regime = T::regime(state, access.who) % REGIMES;
    let need = need(access.kind);
    // SAFETY: as demanded of the caller.
    let n = unsafe { &mut *inner(env) };
    n.counters.misses += 1;
    let key = la & !0xfff | regime as u64;
    let mut s = *n.spot(key);
    if s.key != key || !n.valid(&s) || s.flags & need == 0 {
        n.counters.walks += 1;
        let leaf = T::walk(state, &mut n.phys(), la, access)?;
        let page = n.phys().page(leaf.pa);
        let mut flags = 0;
        for (on, bit) in [
            (leaf.read, spot::READ),
            (leaf.write, spot::WRITE),
            (leaf.exec, spot::EXEC),
            (leaf.watch, spot::WATCH),
            (leaf.global, spot::GLOBAL),
            (page.writable, spot::RAM),
            (page.log, spot::LOG),
        ] {
            if on {
                flags |= bit
            }
        }
        if leaf.size > 4096 {
            let (lo, hi) = &mut n.large[(la >> 63) as usize];
            let start = la & !(leaf.size - 1);
            *lo = (*lo).min(start);
            *hi = (*hi).max(start.saturating_add(leaf.size));
        }
        let generation = if leaf.global { n.generation } else { n.generation_local };
        s = Spot { key, generation, pa: leaf.pa & !0xfff, host: page.host, flags };
        n.keep(s)
    }
    if !s.host.is_null() && s.flags & spot::WATCH == 0 {
        // SAFETY: as demanded of the caller.
        unsafe {
            keep_old(env, n, regime, la & !0xfff);
            install(env, n, regime, index(la), &s)
        }
    }
    Ok(s)
}

/// Puts the page that has the place of `page` into its other one, if the second level knows it.
/// # Safety
/// As for [`find`].
unsafe fn keep_old<T: Target>(env: NonNull<Env<T>>, n: &mut Inner, regime: usize, page: u64) {
    let i = index(page);
    // SAFETY: atomics.
    let e = unsafe { &(&raw const (*env.as_ptr()).tlb).as_ref().expect("env")[regime][i] };
    let Some(old) = [&e.read, &e.write, &e.exec].map(|t| t.load(Relaxed)).into_iter().find(|t| *t != invalid(i)) else {
        return;
    };
    let key = old | regime as u64;
    let s = *n.spot(key);
    if old != page && s.key == key && n.valid(&s) {
        // SAFETY: as demanded of the caller.
        unsafe { install(env, n, regime, other(i), &s) }
    }
}
/// Makes a first-level entry that of a spot, which is memory without watchpoints.
/// # Safety
/// As for [`find`].
unsafe fn install<T: Target>(env: NonNull<Env<T>>, n: &mut Inner, regime: usize, i: usize, s: &Spot) {
    let page = s.key & !0xfff;
    // SAFETY: atomics.
    let e = unsafe { &(&raw const (*env.as_ptr()).tlb).as_ref().expect("env")[regime][i] };
    e.clear(i);
    e.addend.store((s.host as u64).wrapping_sub(page), Relaxed);
    if s.flags & spot::READ != 0 {
        e.read.store(page, Relaxed)
    }
    if s.flags & spot::EXEC != 0 {
        e.exec.store(page, Relaxed)
    }
    if s.flags & (spot::WRITE | spot::RAM) == spot::WRITE | spot::RAM && !n.group.code.holds(s.host as usize) {
        // SAFETY: atomics.
        let (tlb, tags) = unsafe {
            let env = env.as_ptr();
            ((&raw const (*env).tlb).as_ref().expect("env"), (&raw const (*env).write_tags).as_ref().expect("env"))
        };
        tags.note(tlb, s.host as usize, regime, i);
        e.write.store(page, Relaxed);
        // A vCPU that decodes this page marks it and then clears tags; this one sets the tag and then looks at the mark.
        fence(SeqCst);
        if n.group.code.holds(s.host as usize) {
            e.write.store(invalid(i), Relaxed)
        }
        // Likewise whoever makes pages clean does so before it clears tags.
        if s.flags & spot::LOG != 0 {
            n.bus.mark_dirty(n.view, s.pa)
        }
    }
    let list = &mut n.filled[regime][(s.flags & spot::GLOBAL != 0) as usize];
    if list.len() <= LIST {
        list.push(i as u16)
    }
}

/// The spot of the page of `la` for writing, without a walk, if that is known.
/// # Safety
/// As for [`find`].
pub(crate) unsafe fn writable<T: Target>(env: NonNull<Env<T>>, la: u64) -> Option<Spot> {
    // SAFETY: as demanded of the caller; distinct cells.
    let (n, st) = unsafe { (&mut *inner(env), &*super::env::state(env)) };
    let key = la & !0xfff | (T::regime(st, Who::Current) % REGIMES) as u64;
    let s = *n.spot(key);
    (s.key == key && n.valid(&s) && s.flags & spot::WRITE != 0).then_some(s)
}
/// Makes the entry for one access that of a spot, if `len` bytes at `la` can be written there although the page holds code.
/// # Safety
/// As for [`find`].
pub(crate) unsafe fn once<T: Target>(env: NonNull<Env<T>>, s: &Spot, la: u64, len: usize) -> bool {
    let (off, page) = (la as usize & 0xfff, la & !0xfff);
    if s.host.is_null() || s.flags & (spot::RAM | spot::WATCH) != spot::RAM || off + len > 0x1000 {
        return false;
    }
    // SAFETY: as demanded of the caller; atomics of a live env.
    let (n, e) = unsafe { (&mut *inner(env), &(*env.as_ptr()).once) };
    if !n.group.code.beside(s.host as usize, off, len) {
        return false;
    }
    // (Pages that were made clean since are marked anew.)
    let marked = (s.host as usize, n.group.cleaned());
    if s.flags & spot::LOG != 0 && n.marked != marked {
        n.bus.mark_dirty(n.view, s.pa);
        n.marked = marked
    }
    e.addend.store((s.host as u64).wrapping_sub(page), Relaxed);
    e.write.store(page, Relaxed);
    true
}

/// Whether the host's memory goes on behind the page of `la`, which is in the first level, as the guest's does, for accesses of this kind.
/// What the next page is must be known without a walk: it may be that nobody touches it.
/// # Safety
/// As for [`find`], for `state`, too.
pub(crate) unsafe fn runs_on<T: Target>(env: NonNull<Env<T>>, la: u64, kind: Kind) -> bool {
    let next = (la & !0xfff).wrapping_add(0x1000);
    // (Behind the end of the address space, whatever its size, nothing goes on.)
    if next as u32 == 0 {
        return false;
    }
    // SAFETY: as demanded of the caller; `tlb` points at the entries of a regime.
    unsafe {
        let (e, after) = (&*(*hot(env)).tlb.add(index(la)), &*(*hot(env)).tlb.add(index(next)));
        if after.tag(kind) != next {
            let state = &mut *super::env::state(env);
            let (key, need) = (next | (T::regime(state, Who::Current) % REGIMES) as u64, need(kind));
            let n = &mut *inner(env);
            let s = *n.spot(key);
            let known = s.key == key && n.valid(&s) && s.flags & need != 0;
            if !known || find(env, state, next, Access { kind, who: Who::Current, stack: false }).is_err() {
                return false;
            }
        }
        after.tag(kind) == next && after.addend.load(Relaxed) == e.addend.load(Relaxed)
    }
}

/// Makes stores to host pages slow from now on; called by any thread.
pub(crate) fn protect<T: Target>(env: NonNull<Env<T>>, host: usize, len: usize) {
    // SAFETY: atomics of a live env.
    let (tlb, tags) = unsafe {
        let env = env.as_ptr();
        ((&raw const (*env).tlb).as_ref().expect("env"), (&raw const (*env).write_tags).as_ref().expect("env"))
    };
    let clear = |i: usize, e: &TlbEntry| {
        let w = e.write.load(Relaxed);
        let at = w.wrapping_add(e.addend.load(Relaxed)).wrapping_sub(host as u64);
        if w != invalid(i) && at < len as u64 {
            // A failure means that its owner has replaced it, and looked at the mark since.
            let _ = e.write.compare_exchange(w, invalid(i), Relaxed, Relaxed);
        }
    };
    // (A tag that is not noted yet is looked at by its owner when it is.)
    if len <= 4096
        && let Some(places) = tags.of(host)
    {
        return places.for_each(|p| clear(p % TLB, &tlb[p / TLB % REGIMES][p % TLB]));
    }
    for r in tlb {
        r.iter().enumerate().for_each(|(i, e)| clear(i, e))
    }
}

/// Reads `data.len()` bytes inside the page of a spot.
pub(crate) fn read_spot(n: &mut Inner, s: &Spot, off: usize, data: &mut [u8]) {
    debug_assert!(off + data.len() <= 4096);
    if s.host.is_null() {
        return n.bus.load(n.view, s.pa + off as u64, data);
    }
    // SAFETY: a live page, and the range is inside it.
    unsafe { super::mem::copy_out(s.host.add(off), data) }
}
/// Writes inside the page of a spot, whatever the page is.
/// # Safety
/// The calling thread owns the vCPU and holds no reference into `inner`.
pub(crate) unsafe fn write_spot<T: Target>(env: NonNull<Env<T>>, s: &Spot, off: usize, data: &[u8]) {
    debug_assert!(off + data.len() <= 4096);
    // SAFETY: as demanded of the caller.
    let n = unsafe { &mut *inner(env) };
    if s.host.is_null() || s.flags & spot::RAM == 0 {
        return n.bus.store(n.view, s.pa + off as u64, data);
    }
    // SAFETY: a live writable page, and the range is inside it; the calling thread owns the vCPU.
    unsafe {
        super::mem::copy_in(s.host.add(off), data);
        stored(env, s, off, data.len());
    }
}
/// What follows a store inside a page of RAM: the page is dirty, code in it may be another.
/// # Safety
/// The calling thread owns the vCPU and holds no reference into `inner`.
pub(crate) unsafe fn stored<T: Target>(env: NonNull<Env<T>>, s: &Spot, off: usize, len: usize) {
    // SAFETY: as demanded of the caller.
    let n = unsafe { &mut *inner(env) };
    if s.flags & spot::LOG != 0 {
        n.bus.mark_dirty(n.view, s.pa)
    }
    wrote(env, n, s.host as usize, off, len);
}
/// Tells everybody that code may have been overwritten.
pub(crate) fn wrote<T: Target>(env: NonNull<Env<T>>, n: &mut Inner, host: usize, off: usize, len: usize) {
    if n.group.code.holds(host) && n.group.overwritten(host, off, len) {
        // Everybody, this vCPU included, has been asked to drop the page; this one must not run another op of it.
        n.stale = true;
        // SAFETY: atomics of a live env.
        unsafe { (*env.as_ptr()).shared.ask(request::DROP) }
    }
}

/// Selects the first level for the current regime.
/// # Safety
/// The calling thread owns the vCPU; no reference into `hot` is live.
pub(crate) unsafe fn select<T: Target>(env: NonNull<Env<T>>, regime: usize) {
    // SAFETY: `regime` is cut to the number of TLBs, and the pointer is to the env's own.
    unsafe { (*hot(env)).tlb = (&raw const (*env.as_ptr()).tlb[regime % REGIMES]).cast() }
}
