//! Decoded pages of one vCPU.
//!
//! A page is known by its host address and the mode: one decoding serves every mapping. Instructions are decoded in runs,
//! from an entry point to the first unconditional branch, the page's end or an instruction decoded before; the ops of a run
//! are neighbours in memory. Pages belong to one vCPU and are dropped by its dispatcher only.
//!
//! An instruction that crosses its page has a run of its own: an op that checks where the next page lies, the host address
//! of that page, the instruction. Its page *follows* the next one: it is dropped when code of the next one is overwritten.
#![expect(unsafe_code, reason = "ops are reached by pointer")]

mod evict;
mod faster;

pub(crate) use evict::Room;
pub(crate) use faster::HotBlock;

use super::{
    cells::Cells,
    env::{Op, Run, discard, mark},
    group::Group,
    jit::{self, Jit, JitConfig, Region, enter::Trampoline},
    known::{Insn, Known},
    ops::*,
    runs::{Place, Runs},
    target::{End, Target},
    tier0::{cross, exec_dyn, leave, link, paused, rare, straddle},
};
use rustc_hash::FxHashMap;
use std::{ptr::NonNull, sync::Arc};

/// Longest run, in instructions (each may need another op, and they need one at the end) and in bytes.
const RUN: usize = 63;
const BYTES: usize = 512;

/// One decoded page.
struct Page<T: Target> {
    /// Ops by offset of their instruction.
    ops: Runs<T>,
    /// Entries that are the guard of an instruction that crosses the page.
    crossings: Vec<u16>,
    /// Where regions can be entered, by offset.
    heads: FxHashMap<u16, (Arc<Region>, u64)>,
    /// Jump cache entries that may be of ops of this page, with repetitions; and how many to keep before those are dropped.
    jumps: (Vec<u16>, usize),
    /// Regions that code may still jump to, whether or not they are in `heads`.
    attached: Vec<Arc<Region>>,
    /// Ops that have the handler of a region.
    patched: Vec<*const Op<T>>,
    /// Ops that have a handler of the quick compiler, by address, and the one they had.
    #[cfg(target_arch = "x86_64")]
    quick: Vec<(*const Op<T>, Run<T>)>,
    #[cfg(target_arch = "x86_64")]
    pieces: super::quick::Pieces,
    /// How many were made before it.
    number: u64,
    /// Bytes of its ops and what is kept for them.
    bytes: usize,
    /// Looks since it was seen in use, and the sum of its ops' heat at the last one.
    age: u32,
    heat: u64,
}
/// An op that enters a region.
pub(crate) struct Patch<T: Target> {
    /// The handler it had.
    run: Run<T>,
    code: *const u8,
    entry: u64,
    /// Held by the page of the op.
    region: *const Region,
}
/// In a looped vCPU the handlers that its ops stand for.
type Looped<T> = Option<FxHashMap<*const Op<T>, Run<T>>>;
/// The decoded pages of a vCPU.
pub(crate) struct Pages<T: Target> {
    /// Forms and their handlers.
    pub known: Known<T>,
    map: FxHashMap<(usize, u32), Box<Page<T>>>,
    /// Where ops of pages are.
    cells: Cells,
    modes: Vec<u32>,
    single: Box<[Option<Single<T>>]>,
    looped: Looped<T>,
    jit: Option<(Arc<Jit>, Trampoline)>,
    /// Ops that enter regions.
    patched: FxHashMap<*const Op<T>, Patch<T>>,
    /// How often a block is entered until it gets code of the quick compiler; 0 for never.
    warm: u16,
    #[cfg(target_arch = "x86_64")]
    quick: Option<Box<super::quick::Quick>>,
    /// By page, those whose decoding covers bytes of it.
    followers: FxHashMap<usize, Vec<usize>>,
    /// Pages made so far, bytes of all that there are, and bytes at the next look for unused ones.
    made: u64,
    bytes: usize,
    next_look: usize,
    /// Ops that were looked up last, by [`Found::slot`].
    found: Box<[Found<T>]>,
}
/// An op that was looked up; none if it is null.
struct Found<T: Target> {
    at: usize,
    mode: u32,
    op: *const Op<T>,
    page: *mut Page<T>,
}
/// Ops that are remembered.
const FOUND: usize = 16384;
impl<T: Target> Found<T> {
    fn slot(at: usize) -> usize {
        (at ^ at >> 12) % FOUND
    }
}
/// An instruction run by itself: its op, then one that goes to the next address, then one for the branch target.
pub(crate) struct Single<T: Target> {
    pc: u64,
    mode: u32,
    bytes: [u8; 15],
    /// Control may leave it for anywhere.
    ends: bool,
    pub ops: NonNull<[Op<T>; 3]>,
}
impl<T: Target> Drop for Single<T> {
    fn drop(&mut self) {
        // SAFETY: made by `Box::into_raw`; no handler runs.
        drop(unsafe { Box::from_raw(self.ops.as_ptr()) })
    }
}
const SINGLES: usize = 256;

/// An instruction and what its flags are good for.
struct Item<F> {
    insn: Insn<F>,
    off: u16,
    live: bool,
}

impl<T: Target> Pages<T> {
    pub fn new(looped: bool, jit: Option<Arc<Jit>>) -> Self {
        #[cfg(target_arch = "x86_64")]
        let warm = jit.as_ref().filter(|_| !looped && super::quick::available()).map_or(0, |j| j.config.quick);
        #[cfg(not(target_arch = "x86_64"))]
        let warm = 0;
        Pages {
            warm,
            known: Known::new(),
            map: FxHashMap::default(),
            cells: Cells::default(),
            modes: Vec::new(),
            single: (0..SINGLES).map(|_| None).collect(),
            looped: looped.then(FxHashMap::default),
            jit: jit.zip(jit::enter::trampoline::<T>()),
            patched: FxHashMap::default(),
            #[cfg(target_arch = "x86_64")]
            quick: None,
            followers: FxHashMap::default(),
            made: 0,
            bytes: 0,
            next_look: 0,
            // SAFETY: integers and pointers may be zero.
            found: unsafe { Box::new_zeroed_slice(FOUND).assume_init() },
        }
    }
    /// The handler that an op of a looped vCPU stands for.
    pub fn looped(&self, op: &Op<T>) -> Run<T> {
        self.looped.as_ref().and_then(|l| l.get(&(op as *const Op<T>))).copied().unwrap_or(op.run)
    }
    /// Tier 1.
    pub fn jit(&self) -> Option<&Arc<Jit>> {
        Some(&self.jit.as_ref()?.0)
    }
    /// What stands in the jump cache where no region is known.
    pub fn no_region(&self) -> *const u8 {
        self.jit().map_or(std::ptr::null(), |j| j.no_region)
    }
    /// The op at `off` of a page, if it is decoded.
    pub fn get(&self, host: usize, mode: u32, off: u16) -> Option<*const Op<T>> {
        Some(self.map.get(&(host, mode))?.ops.get(off)?.as_ptr())
    }
    /// The same for a jump cache entry, which is forgotten when the page is dropped.
    pub fn jump(&mut self, host: usize, mode: u32, off: u16, entry: u16) -> Option<*const Op<T>> {
        let at = host | off as usize;
        let f = &mut self.found[Found::<T>::slot(at)];
        if f.op.is_null() || (f.at, f.mode) != (at, mode) {
            let page = self.map.get_mut(&(host, mode))?;
            *f = Found { at, mode, op: page.ops.get(off)?.as_ptr(), page: &raw mut **page }
        }
        // SAFETY: what is found is forgotten when its page is dropped; nobody else has a reference to it.
        let (jumps, limit) = unsafe { &mut (*f.page).jumps };
        if jumps.len() == *limit {
            jumps.sort_unstable();
            jumps.dedup();
            *limit = 64.max(2 * jumps.len())
        }
        jumps.push(entry);
        Some(f.op)
    }
    /// Gives the host memory that is free, and that of what was looked up last.
    pub fn rest(&mut self) {
        self.cells.rest();
        self.known.rest();
        // SAFETY: an entry of zeros is none, and those left are as they were.
        unsafe { discard(&raw mut *self.found) }
    }
    /// Drops all decodings of a page; `forget` is called for jump cache entries that may be of it.
    pub fn drop_page(&mut self, host: usize, mut forget: impl FnMut(usize)) -> bool {
        let mut any = false;
        let followers = self.followers.remove(&host).unwrap_or_default();
        for host in std::iter::once(host).chain(followers) {
            self.known.overwritten(host);
            for m in 0..self.modes.len() {
                any |= self.drop_one((host, self.modes[m]), &mut forget)
            }
        }
        any
    }
    fn drop_one(&mut self, key: (usize, u32), forget: &mut impl FnMut(usize)) -> bool {
        let Some(mut page) = self.map.remove(&key) else { return false };
        for op in &page.patched {
            self.patched.remove(op);
        }
        if let Some(looped) = &mut self.looped {
            page.ops.all().for_each(|op| _ = looped.remove(&op))
        }
        page.jumps.0.iter().for_each(|&j| forget(j.into()));
        for (off, _) in page.ops.iter() {
            let found = &mut self.found[Found::<T>::slot(key.0 | off as usize)];
            if found.at & !0xfff == key.0 {
                found.op = std::ptr::null()
            }
        }
        self.bytes -= page.bytes;
        // SAFETY: no handler runs; nothing leads there any more (above; `forget`).
        unsafe { page.ops.release(&mut self.cells) };
        true
    }
    /// The page at `host` is to be dropped with the one at `next`.
    fn follow(&mut self, next: usize, host: usize) {
        let f = self.followers.entry(next).or_default();
        if !f.contains(&host) {
            f.push(host)
        }
    }
    /// Drops everything. The caller invalidates the jump cache.
    pub fn clear(&mut self) {
        // SAFETY: no handler runs, and nothing that leads there outlives this function or the jump cache.
        self.map.drain().for_each(|(_, mut p)| unsafe { p.ops.release(&mut self.cells) });
        self.patched.clear();
        if let Some(looped) = &mut self.looped {
            looped.clear()
        }
        (self.bytes, self.next_look) = (0, 0);
        self.single.iter_mut().for_each(|s| *s = None);
        self.followers.clear();
        self.found.iter_mut().for_each(|f| f.op = std::ptr::null());
    }
    fn op(&self, i: &Item<T::Form>, n: u8) -> Op<T> {
        let d = &i.insn.d;
        for s in d.r {
            assert!((s.0 as usize) < SLOTS, "slot out of range");
        }
        assert!(d.seg < 6 || d.seg == 14, "segment out of range");
        let run = if T::is_rare(d.form) { rare::<T> } else { self.known.run(&i.insn, i.live).unwrap_or(exec_dyn::<T>) };
        Op {
            run,
            imm: d.imm,
            disp: d.disp,
            r: d.r.map(|s| s.0),
            form: i.insn.form | if i.live { mark::LIVE } else { 0 },
            off: i.off & 0xfff | (d.seg as u16) << 12,
            heat: match self.warm {
                0 => self.jit.as_ref().map_or(0, |j| j.0.config.threshold),
                n => n,
            },
            n,
            len_scale: d.len & 15 | (d.scale & 3) << 4,
        }
    }
    fn stub(run: Run<T>, to: i64, mode: u32) -> Op<T> {
        Op {
            run,
            imm: T::address_mask(mode),
            // (A direct branch reaches 2 GiB around its page at most.)
            disp: to as i32,
            r: [0; 4],
            form: 0,
            off: 0,
            heat: 0,
            n: 0,
            len_scale: 0,
        }
    }

    /// Decodes a run at `off` of the page at `host`; `fetch` and `forget` as for [`attach`](Self::attach). Bytes of its instructions.
    pub fn decode(
        &mut self,
        group: &Group,
        host: usize,
        mode: u32,
        off: u16,
        fetch: impl Fn(usize, usize, &mut [u8]),
        mut forget: impl FnMut(usize),
    ) -> usize {
        let start = off as usize;
        let mut buf = [0; BYTES];
        let code = &mut buf[..BYTES.min(4096 - start)];
        group.protect(host, start, 1);
        let (items, end) = loop {
            fetch(host, start, code);
            let r = self.items(host, mode, start, code);
            let len = r.0.last().map_or(1, |i| i.off as usize + i.insn.d.len as usize - start);
            group.protect(host, start, len);
            let mut again = [0; BYTES];
            fetch(host, start, &mut again[..len]);
            if again[..len] == code[..len] {
                break r;
            }
        };
        if !self.modes.contains(&mode) {
            self.modes.push(mode)
        }
        let len = items.last().map_or(0, |i| i.off as usize + i.insn.d.len as usize - start);
        let new = !self.map.contains_key(&(host, mode));
        self.build(host, mode, off, items, end);
        if new && let Some(j) = self.jit() {
            // What was compiled for it before, by other vCPUs or before its page was overwritten. (Some of it begins in the page before,
            // of which there may be jump cache entries.)
            for r in j.regions(host, mode) {
                self.attach(group, &r, &fetch, &mut forget)
            }
        }
        len
    }

    /// The instructions of a run, and the op without an instruction that follows them.
    fn items(&mut self, host: usize, mode: u32, start: usize, code: &[u8]) -> (Vec<Item<T::Form>>, After) {
        let mut items: Vec<Item<T::Form>> = Vec::new();
        let page = self.map.get(&(host, mode));
        let mut off = start;
        let after = loop {
            if off == 4096 || items.len() == RUN {
                break After::Leave(off);
            }
            if off != start && page.is_some_and(|p| p.ops.has(off as u16)) {
                break After::Link(off as u16);
            }
            match self.known.decode(host, &code[off - start..], off as u32, mode) {
                Err(_) if start + code.len() == 4096 => break After::Straddle(off),
                // The buffer ends, the page does not.
                Err(_) => break After::Leave(off),
                Ok(insn) => {
                    items.push(Item { insn, off: off as u16, live: true });
                    off += insn.d.len as usize;
                    if matches!(insn.d.end, End::Goto(_) | End::To | End::Stop) {
                        break After::Leave(off);
                    }
                }
            }
        };
        let mut live = T::ALL_FLAGS;
        for i in items.iter_mut().rev() {
            if !matches!(i.insn.d.end, End::Next) {
                live = T::ALL_FLAGS
            }
            // What always writes nothing may still write now and then: a shift by CL.
            i.live = if i.insn.d.writes == 0 { live != 0 } else { i.insn.d.writes & live != 0 };
            live = if i.insn.d.faults { T::ALL_FLAGS } else { live & !i.insn.d.writes | i.insn.d.reads };
        }
        (items, after)
    }

    fn build(&mut self, host: usize, mode: u32, off: u16, items: Vec<Item<T::Form>>, after: After) {
        const { assert!(2 * RUN < Runs::<T>::LONGEST) }
        let mut ops: Vec<Op<T>> = Vec::with_capacity(items.len() + 8);
        let mut n = 0u8;
        for i in items.iter().rev() {
            n = if i.insn.d.end == End::Next { n.saturating_add(1) } else { 1 };
            let op = self.op(i, n);
            ops.push(op);
        }
        ops.reverse();
        for (k, w) in items.windows(2).enumerate() {
            if let Some(run) = self.known.pair(&w[0].insn, w[0].live, &w[1].insn) {
                ops[k].run = run
            }
        }
        ops.push(match after {
            After::Leave(to) => Self::stub(leave::<T>, to as i64, mode),
            After::Straddle(at) => Self::stub(straddle::<T>, at as i64, mode),
            After::Link(at) => {
                let to = self.get(host, mode, at).expect("seen there just now");
                let mut op = Self::stub(link::<T>, at as i64, mode);
                op.imm = to as u64;
                // Stopped here, the address is that of an instruction of this page: no mask is at hand.
                (op.off, op.len_scale) = (at, 1);
                op
            }
        });
        // Where branches go whose target is not decoded, or not here.
        let page = self.map.get(&(host, mode));
        let here = |t: u16| items.binary_search_by_key(&t, |i| i.off).is_ok() || page.is_some_and(|p| p.ops.has(t));
        let mut stubs: Vec<Option<usize>> = Vec::with_capacity(items.len());
        for i in &items {
            stubs.push(match i.insn.d.end {
                End::Goto(to) | End::If(to) if !inside(to).is_some_and(here) => {
                    ops.push(Self::stub(leave::<T>, to, mode));
                    Some(ops.len() - 1)
                }
                _ => None,
            });
        }
        let number = self.made;
        let page = self.map.entry((host, mode)).or_insert_with(|| {
            self.made += 1;
            Box::new(Page {
                ops: Runs::new(),
                crossings: Vec::new(),
                heads: FxHashMap::default(),
                jumps: (Vec::new(), 64),
                attached: Vec::new(),
                patched: Vec::new(),
                #[cfg(target_arch = "x86_64")]
                quick: Vec::new(),
                #[cfg(target_arch = "x86_64")]
                pieces: Default::default(),
                number,
                bytes: 0,
                age: 0,
                heat: 0,
            })
        });
        let first = page.push(&ops, &mut self.cells, &mut self.bytes, &mut self.looped);
        let runs = &mut page.ops;
        if items.is_empty() {
            runs.insert(&[(off, first)])
        } else {
            let new: Vec<_> = items.iter().enumerate().map(|(k, i)| (i.off, first.after(k))).collect();
            runs.insert(&new)
        }
        for (k, stub) in stubs.into_iter().enumerate() {
            let (End::Goto(to) | End::If(to)) = items[k].insn.d.end else { continue };
            let branch = first.after(k);
            let known = inside(to).and_then(|t| runs.get(t));
            if let Some(t) = inside(to).filter(|_| known.is_none()) {
                runs.wait(t, branch)
            }
            let target = known.or(stub.map(|s| runs.at(first.after(s)))).expect("a stub where nothing is known");
            // SAFETY: an op of the run just made.
            unsafe { (*runs.at(branch).as_ptr()).imm = target.as_ptr() as u64 }
        }
        // SAFETY: ops of this page, and no handler runs.
        runs.settle(|branch, op| unsafe { (*branch.as_ptr()).imm = op.as_ptr() as u64 });
        if !page.heads.is_empty() {
            for i in &items {
                self.enter_at(host, mode, i.off)
            }
        }
    }

    /// Decodes the instruction at `off` of the page at `host`, which crosses to the page at `next`, and makes the op that
    /// stands for it go there; `fetch` copies bytes from either. False if it was decoded with another page.
    pub fn cross(
        &mut self,
        group: &Group,
        [host, next]: [usize; 2],
        mode: u32,
        off: u16,
        at: *const Op<T>,
        fetch: impl Fn(usize, usize, &mut [u8]),
    ) -> bool {
        let page = self.map.get(&(host, mode));
        let known = page.is_some_and(|p| p.crossings.contains(&off)).then(|| self.get(host, mode, off)).flatten();
        let Some(to) = known.or_else(|| self.decode_crossing(group, [host, next], mode, off, fetch)) else {
            return false;
        };
        // SAFETY: as above.
        if unsafe { (*to).imm } != next as u64 {
            return false;
        }
        if to != at {
            // SAFETY: a live op that a handler stopped at, and no handler runs.
            let o = unsafe { &mut *at.cast_mut() };
            (o.imm, o.off, o.len_scale) = (to as u64, off, 1);
            match &mut self.looped {
                Some(l) => _ = l.insert(at, link::<T>),
                None => o.run = link::<T>,
            }
        }
        true
    }
    fn decode_crossing(
        &mut self,
        group: &Group,
        [host, next]: [usize; 2],
        mode: u32,
        off: u16,
        fetch: impl Fn(usize, usize, &mut [u8]),
    ) -> Option<*const Op<T>> {
        let first = 4096 - off as usize;
        let get = |bytes: &mut [u8; 15]| {
            let (a, b) = bytes.split_at_mut(first.min(15));
            fetch(host, off.into(), a);
            fetch(next, 0, b)
        };
        let mut bytes = [0; 15];
        let insn = loop {
            get(&mut bytes);
            let insn = self.known.decode(host, &bytes, off.into(), mode).ok()?;
            let d = insn.d;
            let rest = (d.len as usize).checked_sub(first).filter(|&n| n > 0)?;
            group.protect(host, off.into(), first);
            group.protect(next, 0, rest);
            let mut again = [0; 15];
            get(&mut again);
            if again[..d.len as usize] == bytes[..d.len as usize] {
                break insn;
            }
        };
        let op = self.op(&Item { insn, off, live: true }, 1);
        let d = insn.d;
        let guard = Op { run: cross::<T>, imm: next as u64, len_scale: 1, ..op };
        let after = Self::stub(leave::<T>, off as i64 + d.len as i64, mode);
        let mut ops = vec![guard, op, after];
        if let End::Goto(to) | End::If(to) = d.end {
            ops.push(Self::stub(leave::<T>, to, mode))
        }
        let page = self.map.get_mut(&(host, mode))?;
        let first = page.push(&ops, &mut self.cells, &mut self.bytes, &mut self.looped);
        let runs = &mut page.ops;
        if ops.len() == 4 {
            // SAFETY: an op of the run just made.
            unsafe { (*runs.at(first.after(1)).as_ptr()).imm = runs.at(first.after(3)).as_ptr() as u64 }
        }
        let ops = runs.at(first).as_ptr();
        runs.insert(&[(off, first)]);
        page.crossings.push(off);
        // SAFETY: ops of this page, and no handler runs.
        runs.settle(|branch, op| unsafe { (*branch.as_ptr()).imm = op.as_ptr() as u64 });
        let heads = !page.heads.is_empty();
        self.follow(next, host);
        if heads {
            self.enter_at(host, mode, off)
        }
        Some(ops)
    }

    /// The ops for one instruction by itself, from its bytes.
    pub fn single(&mut self, pc: u64, mode: u32, bytes: &[u8], made: impl Fn(&[u8])) -> Option<*const Op<T>> {
        let mut key = [0; 15];
        let n = bytes.len().min(15);
        key[..n].copy_from_slice(&bytes[..n]);
        let slot = (pc ^ pc >> 8) as usize % SINGLES;
        if let Some(s) = self.single[slot].as_ref().filter(|s| s.pc == pc && s.mode == mode && s.bytes == key) {
            // (It never gets hot: that would stop it before it is run.)
            // SAFETY: live, and no handler runs.
            unsafe { (&mut *s.ops.as_ptr())[0].heat = 0 };
            return Some(s.ops.as_ptr().cast());
        }
        let off = (pc & 0xfff) as u16;
        let insn = self.known.decode(0, bytes, off as u32, mode).ok()?;
        let d = insn.d;
        made(bytes.get(..d.len as usize)?);
        let op = Op { heat: 0, ..self.op(&Item { insn, off, live: true }, 1) };
        let next = Self::stub(leave::<T>, off as i64 + d.len as i64, mode);
        let to = match d.end {
            End::Goto(to) | End::If(to) => to,
            _ => 0,
        };
        let mut ops = Box::new([op, next, Self::stub(leave::<T>, to, mode)]);
        pause(&mut self.looped, &mut ops[..]);
        let ops = Box::into_raw(ops);
        if matches!(d.end, End::Goto(_) | End::If(_)) {
            // SAFETY: just made.
            unsafe { (*ops)[0].imm = (&raw const (*ops)[2]) as u64 }
        }
        let ops = NonNull::new(ops).expect("a box");
        if let (Some(looped), Some(old)) = (&mut self.looped, &self.single[slot]) {
            (0..3).for_each(|n| _ = looped.remove(&old.ops.as_ptr().cast::<Op<T>>().wrapping_add(n).cast_const()))
        }
        self.single[slot] = Some(Single { pc, mode, bytes: key, ends: d.end != End::Next, ops });
        Some(ops.as_ptr().cast())
    }
    /// The instruction of an op made by [`single`](Self::single) ends its block.
    pub fn ends_block(&self, op: *const Op<T>) -> bool {
        self.single.iter().flatten().any(|s| std::ptr::eq(s.ops.as_ptr().cast(), op) && s.ends)
    }
}
/// Puts pauses between the ops of a looped vCPU.
fn pause<T: Target>(looped: &mut Looped<T>, ops: &mut [Op<T>]) {
    let Some(list) = looped else { return };
    for op in ops {
        list.insert(op, op.run);
        op.run = paused::<T>;
    }
}
/// An offset as one of its page, if it is.
fn inside(off: i64) -> Option<u16> {
    u16::try_from(off).ok().filter(|&t| t < 4096)
}
/// What follows the instructions of a run.
enum After {
    Leave(usize),
    Link(u16),
    Straddle(usize),
}
