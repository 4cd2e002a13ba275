//! Faster code than ops: regions that are entered at ops of a page, quick code of its blocks, and what becomes of a block that gets warm
//! or hot.

use super::{
    super::jit::form::{Offsets, Request},
    *,
};

/// A block that was entered this part of the times that make it hot, or less often, is not worth compiling with others.
const COLD: u16 = 32;
/// What becomes of a hot block.
pub(crate) enum HotBlock {
    /// A region there is.
    Known(Arc<Region>),
    /// One that is to be made.
    New(Box<Request>),
}
impl<T: Target> Pages<T> {
    /// The region an op enters, which is being entered: its code and the number of the entry.
    pub fn patch(&self, op: *const Op<T>) -> (*const u8, u64) {
        let p = &self.patched[&op];
        // SAFETY: the page of a patched op holds its region.
        unsafe { (*p.region).mark_used() };
        (p.code, p.entry)
    }
    /// The way into regions.
    pub fn trampoline(&self) -> Trampoline {
        self.jit.as_ref().expect("there is a region").1
    }
    /// The handler of an op without a region.
    pub fn original(&self, op: *const Op<T>) -> Run<T> {
        match self.patched.get(&op) {
            Some(p) => p.run,
            // SAFETY: a live op of these pages.
            None => unsafe { self.looped(&*op) },
        }
    }
    /// Makes the op at `off` of a page enter a region, if there are both.
    pub(super) fn enter_at(&mut self, host: usize, mode: u32, off: u16) {
        let Some(page) = self.map.get_mut(&(host, mode)) else { return };
        let (Some((r, entry)), Some(op)) = (page.heads.get(&off), page.ops.get(off)) else { return };
        // SAFETY: a live op, and no handler runs.
        let o = unsafe { &mut *op.as_ptr() };
        if o.len_scale & 15 == 0 {
            // (Stands for an instruction that crosses the page.)
            return;
        }
        let at: *const Op<T> = op.as_ptr();
        let run = match (self.patched.get(&at), &mut self.looped) {
            (Some(p), _) => p.run,
            (None, Some(l)) => l.insert(at, jit::enter::region::<T>).unwrap_or(o.run),
            (None, None) => std::mem::replace(&mut o.run, jit::enter::region::<T>),
        };
        page.patched.push(at);
        #[cfg(target_arch = "x86_64")]
        if let Some(quick) = &self.quick {
            page.pieces.region(&quick.common, off)
        }
        self.patched.insert(at, Patch { run, code: r.code(), entry: *entry, region: Arc::as_ptr(r) });
    }
    /// Attaches a region to its page, if its pages are decoded and the bytes are what it was made from; `fetch` copies bytes
    /// of a page, given by its host address. If it takes the place of others, `forget` is called for jump cache entries that may know those.
    pub fn attach(
        &mut self,
        group: &Group,
        r: &Arc<Region>,
        fetch: impl Fn(usize, usize, &mut [u8]),
        mut forget: impl FnMut(usize),
    ) {
        let Some(page) = self.map.get(&(r.host, r.mode)).filter(|_| !r.is_evicted()) else { return };
        // Its own block is entered here; others rather by the region that was made for them.
        let taken = |p: &Page<T>, n: usize, off: u16| p.heads.get(&off).is_some_and(|h| n != 0 || h.1 == 0);
        if r.entries.iter().enumerate().all(|(n, &off)| taken(page, n, off)) {
            // (Asked for twice.)
            return;
        }
        if r.next.is_some_and(|next| !self.map.contains_key(&(next, r.mode))) {
            // (Only of what is decoded is it known that it is still there.)
            return;
        }
        for (host, at, bytes) in r.bytes() {
            group.protect(host, at, bytes.len());
            let mut now = vec![0; bytes.len()];
            fetch(host, at, &mut now);
            if now != bytes {
                return;
            }
        }
        if let Some(next) = r.next {
            self.follow(next, r.host)
        }
        // (It is there already if another one was entered at one of its entries, and went.)
        if let Some(page) = self.map.get_mut(&(r.host, r.mode))
            && !page.attached.iter().any(|a| Arc::ptr_eq(a, r))
        {
            page.attached.push(r.clone())
        }
        for (n, &off) in r.entries.iter().enumerate() {
            let Some(page) = self.map.get_mut(&(r.host, r.mode)) else { return };
            if taken(page, n, off) {
                continue;
            }
            if page.heads.insert(off, (r.clone(), n as u64)).is_some() {
                page.jumps.0.drain(..).for_each(|j| forget(j.into()))
            }
            self.enter_at(r.host, r.mode, off)
        }
    }
    /// What becomes of the hot block at `pc`, in the page at `host`; nothing if it has a region already. `next` is where the next page lies, if that
    /// is known; `flags` is their producer at the moment; `fetch` as for [`attach`](Self::attach).
    pub fn hot(
        &mut self,
        host: usize,
        mode: u32,
        pc: u64,
        next: Option<usize>,
        flags: (u8, W),
        fetch: impl Fn(usize, usize, &mut [u8]),
    ) -> Option<HotBlock> {
        let config = self.jit.as_ref()?.0.config;
        let off = (pc & 0xfff) as u16;
        let op = self.map.get(&(host, mode))?.ops.get(off)?;
        // SAFETY: a live op, and no handler runs.
        if self.warm != 0 && unsafe { op.as_ref() }.form & mark::QUICK == 0 {
            // SAFETY: as above.
            unsafe {
                (*op.as_ptr()).form |= mark::QUICK;
                (*op.as_ptr()).heat = config.threshold
            }
            if !self.quicken(host, mode, pc, flags) {
                // (There was no room. It asks again.)
                // SAFETY: as above.
                unsafe {
                    (*op.as_ptr()).form &= !mark::QUICK;
                    (*op.as_ptr()).heat = self.warm
                }
            }
            return None;
        }
        let jit = &self.jit.as_ref()?.0;
        // (It must be entered before it can get hot again. What is compiled at once is not asked for a second time soon.)
        let heat = match config {
            JitConfig { synchronous: true, .. } => 0,
            JitConfig { torture: 0, .. } => config.threshold.max(2),
            _ => 64,
        };
        // SAFETY: a live op, and no handler runs.
        unsafe { (*op.as_ptr()).heat = heat };
        if self.patched.contains_key(&op.as_ptr().cast_const()) {
            return None;
        }
        let next = next.filter(|&n| self.map.contains_key(&(n, mode)));
        // (Pages are copied only for what has to be compiled.)
        if let Some(r) = jit.answer((host, mode, off), next, &fetch) {
            return Some(HotBlock::Known(r));
        }
        if !jit.takes(host, mode, off) {
            return None;
        }
        let (mut decoded, mut executed, mut bytes) = (Offsets::new(), Offsets::new(), Vec::new());
        for (k, host) in std::iter::once(host).chain(next).enumerate() {
            let base = 4096 * k as u16;
            for (o, op) in self.map.get(&(host, mode))?.ops.iter() {
                decoded.add(base + o);
                // SAFETY: as above.
                let op = unsafe { op.as_ref() };
                let entered = match self.warm {
                    0 => config.threshold.wrapping_sub(op.heat) > config.threshold / COLD,
                    _ => op.form & mark::QUICK != 0,
                };
                if entered {
                    executed.add(base + o)
                }
            }
            bytes.resize(4096 * (k + 1), 0);
            fetch(host, 0, &mut bytes[4096 * k..]);
        }
        executed.add(off);
        let q = Request {
            host,
            next,
            mode,
            page: 0,
            off,
            bytes,
            decoded,
            executed,
            after: 0,
            narrow: jit.narrow_sites(host, next, mode),
        };
        Some(HotBlock::New(Box::new(q)))
    }
    /// The block at `off` of a page is to be asked for again soon.
    pub fn again(&mut self, host: usize, mode: u32, off: u16) {
        let heat = self.jit.as_ref().map_or(0, |j| j.0.config.threshold.max(2));
        if let Some(op) = self.map.get(&(host, mode)).and_then(|p| p.ops.get(off)) {
            // SAFETY: a live op, and no handler runs.
            unsafe { (*op.as_ptr()).heat = heat }
        }
    }
    /// Gives the block at `pc`, in the page at `host`, code of the quick compiler; `flags` is their producer at the moment. False if there
    /// is no room for it.
    #[cfg(target_arch = "x86_64")]
    fn quicken(&mut self, host: usize, mode: u32, pc: u64, flags: (u8, W)) -> bool {
        let off = (pc & 0xfff) as u16;
        let Some(jit) = self.jit.as_ref().map(|j| j.0.clone()) else { return true };
        let Some(page) = self.map.get_mut(&(host, mode)) else { return true };
        let Some(op) = page.ops.get(off).filter(|_| !page.crossings.contains(&off)) else { return true };
        // SAFETY: a live op, and no handler runs. The ops up to the end of its block are behind it in its run.
        let ops = unsafe { std::slice::from_raw_parts(op.as_ptr(), op.as_ref().n.into()) };
        if self.quick.is_none() {
            self.quick = crate::tcg::quick::Quick::new::<T>(&jit).map(Box::new)
        }
        let Some(quick) = &mut self.quick else { return false };
        let mut at = 0;
        while let Some(rest) = ops.get(at..).filter(|r| !r.is_empty()) {
            let started = std::time::Instant::now();
            let own = |n: usize| {
                let op = &raw const rest[n];
                let own = page.quick.binary_search_by_key(&op, |q| q.0).ok().map(|i| page.quick[i].1);
                own.or(self.patched.get(&op).map(|p| p.run)).unwrap_or(rest[n].run) as usize
            };
            let first = rest.as_ptr();
            let block = (at == 0).then_some(off);
            let (n, code) =
                quick.piece(rest, &self.known.forms, mode, own, block.map(|_| first as usize), block.map(|_| flags));
            if let Some(code) = code
                && let Err(place) = page.quick.binary_search_by_key(&first, |q| q.0)
                && !self.patched.contains_key(&first)
            {
                // Blocks of this page, of which it is known that they are there to stay.
                let page_ops = &page.ops;
                let offset = |way| {
                    let op = match way {
                        crate::tcg::quick::Way::Target(n) => rest[n].imm as *const Op<T>,
                        crate::tcg::quick::Way::Op(n) => rest.as_ptr().wrapping_add(n),
                    };
                    // SAFETY: the target of a branch, or what follows it in its run: live ops.
                    let off = unsafe { (*op).off } & 0xfff;
                    page_ops.get(off).is_some_and(|o| o.as_ptr().cast_const() == op).then_some(off)
                };
                let pc = pc & !0xfff | u64::from(rest[0].off & 0xfff);
                let made = (n, started, pc);
                let Some(code) = page.pieces.add(&jit, &quick.common, &code, block, offset, made) else {
                    return false;
                };
                if jit.shows_steps(pc) {
                    quick.show_steps(pc)
                }
                // SAFETY: a live op, and no handler runs; the code has the calling convention of a handler, and lives as long
                // as the op.
                let own = unsafe {
                    let run = std::mem::transmute::<*const u8, Run<T>>(code);
                    std::mem::replace(&mut (*first.cast_mut()).run, run)
                };
                page.quick.insert(place, (first, own))
            }
            // (Behind the piece is an op that is not for one.)
            at += n + 1
        }
        true
    }
    #[cfg(not(target_arch = "x86_64"))]
    fn quicken(&mut self, _: usize, _: u32, _: u64, _: (u8, W)) -> bool {
        true
    }
}
