//! Tier 0: one handler per form, threaded by sibling calls.
//!
//! A handler ends by calling the next one through its pointer; the optimiser turns that into a jump, which a test that
//! reads the machine code holds. Every way out of a handler is a sibling call of its own, cold ones included: an ordinary
//! call would give the whole handler a stack frame.
//!
//! Plan B is a loop that calls one handler after the other. It needs no other code: the ops of a *looped* vCPU all have the
//! handler [`paused`], which returns; the loop in [`run`] knows the one it stands for.
//!
//! Unsafe here stands on: handlers get an env owned by the calling thread and an op of a live page; `page.rs` builds no op
//! with a slot number out of range, ends every run of ops with one that does not fall through, and gives every direct
//! branch a target; pages are dropped by the dispatcher only, when no handler runs.
#![expect(unsafe_code, reason = "tier-0 dispatch")]
#![expect(clippy::undocumented_unsafe_blocks, reason = "one argument, above, covers the handlers")]

use super::{
    env::{Env, Op, Run, fault, hot, inner, jc, pages, salt, state},
    host,
    mem::{Cpu, Fields, Mem},
    ops::*,
    target::{Access, AnyFamily, Family, Kind, Rare, Target, Who},
    tlb::{self, Place, TlbEntry},
    unit::{self, routines},
    vector::native::Fpcr,
};
use std::{
    hint::black_box,
    marker::PhantomData,
    ptr::{NonNull, null, with_exposed_provenance_mut as at},
    sync::atomic::Ordering::Relaxed,
};

/// Why handlers stopped.
pub(crate) mod reason {
    /// The op for `ip` must be looked up.
    pub const LOOKUP: u64 = 0;
    /// Budget or kick, before `ip`.
    pub const BUDGET: u64 = 1;
    /// A fault of the op at `at`.
    pub const FAULT: u64 = 2;
    /// The instruction at `ip` crosses its page, and where the next one lies must be looked up; the op is in `at`.
    pub const STRADDLE: u64 = 3;
    /// A rare instruction ended at `ip` and may have changed the mode.
    pub const MODE: u64 = 4;
    /// Halted before `ip`.
    pub const HALT: u64 = 5;
    /// The target's own exit, code in `at`.
    pub const EXIT: u64 = 6;
    /// The block at `ip` is hot.
    pub const HOT: u64 = 7;
    /// A region gave up before the instruction at `ip`, which its own handler must run.
    pub const SIDE: u64 = 8;
}

/// One handler.
pub struct Handler<T: Target>(pub(crate) Run<T>);
impl<T: Target> Handler<T> {
    /// Address of its machine code, for tests that read it.
    pub fn address(&self) -> usize {
        self.0 as usize
    }
}
/// The handler tables of a target, sixteen rows per line; made by [`tcg_handlers!`](crate::tcg_handlers).
pub struct Handlers<T: Target> {
    /// Rows of [`Target::FORMS`].
    pub forms: &'static [[Option<Handler<T>>; 16]],
    /// Rows of [`Target::PAIRS`].
    pub pairs: &'static [[Option<Handler<T>>; 16]],
}

/// `a op b` on the host's own integers.
#[inline(always)]
pub(crate) fn plain_bin(op: Bin, w: W, a: u64, b: u64) -> u64 {
    let n = w.bits();
    let r = match op {
        Bin::Add => a.wrapping_add(b),
        Bin::Sub => a.wrapping_sub(b),
        Bin::And => return a & b,
        Bin::Or => return a | b,
        Bin::Xor => return a ^ b,
        Bin::Mul => a.wrapping_mul(b),
        Bin::Shl => a << (b & 63),
        Bin::Shr => return a >> (b & 63),
        Bin::Sar => (w.signed(a) >> (b & 63)) as u64,
        Bin::Rol => match w {
            W::B1 => (a as u8).rotate_left(b as u32) as u64,
            W::B2 => (a as u16).rotate_left(b as u32) as u64,
            W::B4 => (a as u32).rotate_left(b as u32) as u64,
            W::B8 => a.rotate_left(b as u32),
        },
        Bin::Ror => return plain_bin(Bin::Rol, w, a, (n as u64).wrapping_sub(b) & (n as u64 - 1)),
    };
    r & w.mask()
}

/// Integer formulas on the host's own integers.
macro_rules! host_integers {
    () => {
        type V = u64;
        type C = bool;
        #[inline(always)]
        fn imm(&mut self, w: W, k: u64) -> u64 {
            k & w.mask()
        }
        #[inline(always)]
        fn bin(&mut self, op: Bin, w: W, a: u64, b: u64) -> u64 {
            plain_bin(op, w, a, b)
        }
        #[inline(always)]
        fn un(&mut self, op: Un, w: W, a: u64) -> u64 {
            match op {
                Un::Clz => (a.leading_zeros() - (64 - w.bits())) as u64,
                Un::Ctz => a.trailing_zeros().min(w.bits()) as u64,
                Un::Popcnt => a.count_ones() as u64,
                Un::Bswap => a.swap_bytes() >> (64 - w.bits()),
            }
        }
        #[inline(always)]
        fn cmp(&mut self, c: Cmp, w: W, a: u64, b: u64) -> bool {
            match c {
                Cmp::Eq => a == b,
                Cmp::Ne => a != b,
                Cmp::Ult => a < b,
                Cmp::Ule => a <= b,
                Cmp::Slt => w.signed(a) < w.signed(b),
                Cmp::Sle => w.signed(a) <= w.signed(b),
            }
        }
        #[inline(always)]
        fn zext(&mut self, _from: W, _to: W, v: u64) -> u64 {
            v
        }
        #[inline(always)]
        fn sext(&mut self, from: W, to: W, v: u64) -> u64 {
            from.signed(v) as u64 & to.mask()
        }
        #[inline(always)]
        fn trunc(&mut self, _from: W, to: W, v: u64) -> u64 {
            v & to.mask()
        }
        #[inline(always)]
        fn select(&mut self, _w: W, c: bool, t: u64, f: u64) -> u64 {
            if c { t } else { f }
        }
        #[inline(always)]
        fn mul_high(&mut self, w: W, signed: bool, a: u64, b: u64) -> u64 {
            let p = if signed { (w.signed(a) as i128 * w.signed(b) as i128) as u128 } else { a as u128 * b as u128 };
            (p >> w.bits()) as u64 & w.mask()
        }
        #[inline(always)]
        fn even_parity(&mut self, b1: u64) -> bool {
            (b1 as u8).count_ones() & 1 == 0
        }
        #[inline(always)]
        fn bit(&mut self, _w: W, c: bool) -> u64 {
            c as u64
        }
        #[inline(always)]
        fn both(&mut self, op: Bin, a: bool, b: bool) -> bool {
            match op {
                Bin::And => a & b,
                Bin::Or => a | b,
                _ => a ^ b,
            }
        }
        #[inline(always)]
        fn not(&mut self, c: bool) -> bool {
            !c
        }
        #[inline(always)]
        fn never(&mut self) -> bool {
            false
        }
    };
}
/// Formulas alone, without a CPU: what helpers and tests evaluate flags with.
pub struct Plain;
impl Ops for Plain {
    host_integers!();
}

/// The frame over the host's own registers. `WALK`: memory by table walk, for what the inline check refuses.
pub struct Interp<T: Target, const WALK: bool> {
    pub(crate) env: NonNull<Env<T>>,
    op: *const Op<T>,
    live: bool,
    wanted: bool,
    pend: Option<Deferred<u64>>,
}
impl<T: Target, const WALK: bool> Interp<T, WALK> {
    /// The frame of one instruction that runs by itself.
    pub(crate) fn new(env: NonNull<Env<T>>, op: *const Op<T>) -> Self {
        Interp { env, op, live: true, wanted: true, pend: None }
    }
}
impl<T: Target, const WALK: bool> Ops for Interp<T, WALK> {
    host_integers!();
}
/// What stopped an instruction: an address and how it was accessed.
pub struct Miss {
    ea: u64,
    info: u64,
}
/// Values of [`Miss::info`] above the size (bits 0–7) and the write bit (8).
mod info {
    pub const WRITE: u64 = 1 << 8;
    /// Run it in the walking frame.
    pub const SLOW: u64 = 1 << 9;
    pub const DIVIDE: u64 = 1 << 10;
    /// The fault has been recorded.
    pub const FAULT: u64 = 1 << 11;
    pub const ALIGN: u64 = 1 << 12;
    pub const RARE: u64 = 1 << 13;
}

#[inline(always)]
pub(super) fn entry<T: Target>(env: NonNull<Env<T>>, la: u64) -> *const TlbEntry {
    // `tlb` points at `TLB` entries of the env.
    unsafe { (*hot(env)).tlb.add(tlb::index(la)) }
}
impl<T: Target, const WALK: bool> Interp<T, WALK> {
    #[inline(always)]
    fn reg(&self, s: Slot) -> *mut u64 {
        unsafe { (&raw mut (*hot(self.env)).regs).cast::<u64>().add(s.0 as usize) }
    }
    #[inline(always)]
    fn x(&self, s: Slot) -> *mut u128 {
        unsafe { (&raw mut (*hot(self.env)).x).cast::<u128>().add(s.0 as usize) }
    }
    #[cold]
    fn walk(&mut self, bytes: u32, la: u64, write: bool) -> Result<u64, Miss> {
        unsafe {
            collect(self.env);
            let kind = if write { Kind::Write } else { Kind::Read };
            let access = Access { kind, who: Who::Current, stack: (*self.op).off >> 12 == 2 };
            let st = &mut *state(self.env);
            let mut find = |la| {
                tlb::find(self.env, st, la, access).map_err(|f| {
                    *fault(self.env) = Some(f);
                    Miss { ea: la, info: info::FAULT }
                })
            };
            let over = (la & 0xfff) + bytes as u64 > 0x1000;
            if over && la as u32 >= 0xffff_f000 {
                // Where addresses have 32 bits this is a fault of the segment, which comes before those of pages.
                find((la | 0xfff).wrapping_add(1))?;
            }
            let first = find(la)?;
            let second = if over { find((la | 0xfff).wrapping_add(1))? } else { first };
            for (s, at, n) in [(&first, la, bytes), (&second, (la | 0xfff).wrapping_add(1), over as u32)] {
                if s.flags & tlb::spot::WATCH != 0 && n != 0 {
                    T::watched(st, at, n, write)
                }
            }
            let n = &mut *inner(self.env);
            let i = n.n_places % n.places.len();
            n.places[i] = Place { la, spot: [first, second] };
            n.n_places = i + 1;
            Ok(i as u64)
        }
    }
    #[inline(never)]
    fn walk_read(&mut self, p: u64, data: &mut [u8]) {
        unsafe {
            let n = &mut *inner(self.env);
            let p = n.places[p as usize % n.places.len()];
            let off = p.la as usize & 0xfff;
            let cut = data.len().min(4096 - off);
            let (head, tail) = data.split_at_mut(cut);
            tlb::read_spot(n, &p.spot[0], off, head);
            if !tail.is_empty() {
                tlb::read_spot(n, &p.spot[1], 0, tail)
            }
        }
    }
    #[inline(never)]
    fn walk_write(&mut self, p: u64, data: &[u8]) {
        unsafe {
            let n = &mut *inner(self.env);
            let p = n.places[p as usize % n.places.len()];
            let off = p.la as usize & 0xfff;
            let cut = data.len().min(4096 - off);
            let (head, tail) = data.split_at(cut);
            tlb::write_spot(self.env, &p.spot[0], off, head);
            if !tail.is_empty() {
                tlb::write_spot(self.env, &p.spot[1], 0, tail)
            }
        }
    }
    /// A locked access in the walking frame. In a page of RAM it is the host's own compare and exchange, atomic against those that
    /// other vCPUs make without walking; across two pages and outside RAM only against others of its kind.
    #[inline(never)]
    fn walk_locked(&mut self, w: W, p: u64, f: &mut dyn FnMut(u64) -> u64) -> u64 {
        let bytes = w.bytes() as usize;
        // SAFETY: the calling thread owns the vCPU; the place was checked for a write of this width when it was made.
        let place = unsafe { (&(*inner(self.env)).places)[p as usize % (*inner(self.env)).places.len()] };
        let (spot, off) = (&place.spot[0], place.la as usize & 0xfff);
        if off + bytes <= 4096 && !spot.host.is_null() && spot.flags & tlb::spot::RAM != 0 {
            let mut old = self.read(w, p);
            loop {
                // SAFETY: a live writable page of RAM, and the operand is inside it.
                let seen = unsafe { host::lock::cas(w, spot.host.add(off), old, f(old)) };
                if seen == old {
                    break;
                }
                old = seen;
            }
            // SAFETY: as above; no reference into `inner` is live.
            unsafe { tlb::stored(self.env, spot, off, bytes) };
            return old;
        }
        let group = unsafe { (*inner(self.env)).group.clone() };
        let _held = group.locked.lock();
        let old = self.read(w, p);
        let new = f(old);
        self.write(w, p, new);
        old
    }
}

impl<T: Target, const WALK: bool> Emit for Interp<T, WALK> {
    type Miss = Miss;
    type P = u64;
    #[inline(always)]
    fn slot(&self, i: usize) -> Slot {
        Slot(unsafe { (*self.op).r[i] })
    }
    #[inline(always)]
    fn segment(&self) -> Slot {
        Slot(SEG_BASE + unsafe { (*self.op).off >> 12 } as u8)
    }
    #[inline(always)]
    fn immediate(&mut self, w: W) -> u64 {
        unsafe { (*self.op).imm & w.mask() }
    }
    #[inline(always)]
    fn disp(&mut self) -> u64 {
        unsafe { (*self.op).disp as i64 as u64 }
    }
    #[inline(always)]
    fn scale(&mut self) -> u64 {
        unsafe { (*self.op).len_scale as u64 >> 4 }
    }
    #[inline(always)]
    fn next_ip(&mut self) -> u64 {
        unsafe { next_ip(self.env, self.op) }
    }
    #[inline(always)]
    fn get(&mut self, w: W, s: Slot) -> u64 {
        let p = self.reg(s);
        unsafe {
            match w {
                W::B1 => *p.cast::<u8>() as u64,
                W::B2 => *p.cast::<u16>() as u64,
                W::B4 => *p.cast::<u32>() as u64,
                W::B8 => *p,
            }
        }
    }
    #[inline(always)]
    fn set(&mut self, s: Slot, v: u64) {
        unsafe { *self.reg(s) = v }
    }
    #[inline(always)]
    fn set_part(&mut self, w: W, s: Slot, v: u64) {
        let p = self.reg(s);
        unsafe {
            match w {
                W::B1 => *p.cast::<u8>() = v as u8,
                W::B2 => *p.cast::<u16>() = v as u16,
                W::B4 => *p.cast::<u32>() = v as u32,
                W::B8 => *p = v,
            }
        }
    }
    #[inline(always)]
    fn getx(&mut self, s: Slot) -> u128 {
        unsafe { *self.x(s) }
    }
    #[inline(always)]
    fn setx(&mut self, s: Slot, x: u128) {
        unsafe { *self.x(s) = x }
    }
    #[inline(always)]
    fn linear(&mut self, offset: u64, bytes: u32, write: bool) -> Result<u64, Miss> {
        let seg = unsafe { (*self.op).off >> 12 } as u8;
        self.linear_in(seg, offset, bytes, write)
    }
    #[inline(always)]
    fn linear_in(&mut self, seg: u8, offset: u64, bytes: u32, write: bool) -> Result<u64, Miss> {
        if WALK {
            unsafe {
                let (h, st) = (&*hot(self.env), &*state(self.env));
                return T::segment(h, st, seg, offset, bytes, write).map_err(|f| {
                    *fault(self.env) = Some(f);
                    Miss { ea: offset, info: info::FAULT }
                });
            }
        }
        let base = self.get(W::B8, Slot((SEG_BASE + seg) & 31));
        let limit = self.get(W::B8, Slot((SEG_LIMIT + seg) & 31));
        if offset + bytes as u64 > limit {
            return Err(Miss { ea: offset, info: info::SLOW });
        }
        Ok(base.wrapping_add(offset) & 0xffff_ffff)
    }
    #[inline(always)]
    fn aligned(&mut self, bytes: u64, la: u64) -> Result<(), Miss> {
        if la & (bytes - 1) != 0 {
            return Err(Miss { ea: la, info: info::ALIGN });
        }
        Ok(())
    }
    #[inline(always)]
    fn place(&mut self, bytes: u32, la: u64, write: bool) -> Result<u64, Miss> {
        if WALK {
            return self.walk(bytes, la, write);
        }
        let t = entry(self.env, la);
        unsafe {
            let tag = if write { &(*t).write } else { &(*t).read }.load(Relaxed);
            if tag ^ la > 0x1000 - bytes as u64 {
                return Err(Miss { ea: la, info: bytes as u64 | if write { info::WRITE } else { 0 } });
            }
            Ok((*t).addend.load(Relaxed).wrapping_add(la))
        }
    }
    #[inline(always)]
    fn read(&mut self, w: W, p: u64) -> u64 {
        if WALK {
            let mut v = [0; 8];
            self.walk_read(p, &mut v[..w.bytes() as usize]);
            return u64::from_le_bytes(v);
        }
        let p = p as usize;
        // Unaligned accesses have no atomic form in Rust; volatile ones are the same host instruction.
        unsafe {
            match w {
                W::B1 => at::<u8>(p).read_volatile() as u64,
                W::B2 => at::<Packed<u16>>(p).read_volatile().0 as u64,
                W::B4 => at::<Packed<u32>>(p).read_volatile().0 as u64,
                W::B8 => at::<Packed<u64>>(p).read_volatile().0,
            }
        }
    }
    #[inline(always)]
    fn write(&mut self, w: W, p: u64, v: u64) {
        if WALK {
            return self.walk_write(p, &v.to_le_bytes()[..w.bytes() as usize]);
        }
        let p = p as usize;
        unsafe {
            match w {
                W::B1 => at::<u8>(p).write_volatile(v as u8),
                W::B2 => at::<Packed<u16>>(p).write_volatile(Packed(v as u16)),
                W::B4 => at::<Packed<u32>>(p).write_volatile(Packed(v as u32)),
                W::B8 => at::<Packed<u64>>(p).write_volatile(Packed(v)),
            }
        }
    }
    #[inline(always)]
    fn readx(&mut self, p: u64) -> u128 {
        if WALK {
            let mut v = [0; 16];
            self.walk_read(p, &mut v);
            return u128::from_le_bytes(v);
        }
        unsafe { at::<Packed<u128>>(p as usize).read_volatile().0 }
    }
    #[inline(always)]
    fn writex(&mut self, p: u64, x: u128) {
        if WALK {
            return self.walk_write(p, &x.to_le_bytes());
        }
        unsafe { at::<Packed<u128>>(p as usize).write_volatile(Packed(x)) }
    }
    #[inline(always)]
    fn rmw(&mut self, op: Option<Bin>, w: W, p: u64, v: u64) -> u64 {
        if WALK {
            return self.walk_locked(w, p, &mut |old| op.map_or(v, |op| plain_bin(op, w, old, v)));
        }
        unsafe { host::lock::rmw(op, w, at(p as usize), v) }
    }
    #[inline(always)]
    fn cas(&mut self, w: W, p: u64, expected: u64, new: u64) -> u64 {
        if WALK {
            return self.walk_locked(w, p, &mut |old| if old == expected { new } else { old });
        }
        unsafe { host::lock::cas(w, at(p as usize), expected, new) }
    }
    #[inline(always)]
    fn divide(&mut self, w: W, signed: bool, hi: u64, lo: u64, by: u64) -> Result<[u64; 2], Miss> {
        let r = if signed { host::div::signed(w, hi, lo, by) } else { host::div::unsigned(w, hi, lo, by) };
        r.ok_or(Miss { ea: 0, info: info::DIVIDE })
    }
    #[inline(always)]
    fn flags_wanted(&self) -> bool {
        self.wanted
    }
    #[inline(always)]
    fn defer(&mut self, d: Deferred<u64>) {
        if self.live {
            unsafe { put_flags::<T>(self.env, d) }
        }
        self.pend = Some(d);
    }
    #[inline(always)]
    fn defer_if(&mut self, c: bool, d: Deferred<u64>) {
        if c && self.live {
            unsafe { put_flags::<T>(self.env, d) }
        }
        self.pend = None;
    }
    #[inline(always)]
    fn deferred(&mut self) -> Result<Deferred<u64>, Miss> {
        Ok(match self.pend {
            Some(d) => d,
            None => unsafe { (*hot(self.env)).deferred() },
        })
    }
    #[inline(always)]
    fn rare_if(&mut self, c: bool) -> Result<(), Miss> {
        if c { Err(Miss { ea: 0, info: info::RARE }) } else { Ok(()) }
    }
    fn unit(&mut self, code: [u8; 2]) {
        unsafe { unit::run(self.env, routines::routine(code), at(0)) }
    }
    fn unit_at(&mut self, code: [u8; 2], bytes: u32, p: u64, write: bool) {
        let routine = routines::routine(code);
        if !WALK {
            return unsafe { unit::run(self.env, routine, at(p as usize)) };
        }
        let mut data = [0; 16];
        let operand = &mut data[..bytes as usize];
        if !write {
            self.walk_read(p, operand)
        }
        unsafe { unit::run(self.env, routine, operand.as_mut_ptr()) }
        if write {
            // (A device may be behind it.)
            unsafe { unit::release(self.env) }
            self.walk_write(p, operand)
        }
    }
    fn unit_control(&mut self, v: u64) {
        let mut word = v as u16;
        unsafe { unit::run(self.env, routines::routine([0xd9, 5 << 3]), (&raw mut word).cast()) }
    }
    fn unit_status(&mut self) -> u64 {
        let mut word = 0u16;
        unsafe { unit::run(self.env, routines::routine([0xdd, 7 << 3]), (&raw mut word).cast()) }
        word as u64
    }
    fn unit_compare(&mut self, code: [u8; 2]) -> [bool; 3] {
        let mut flags = [0u8; 3];
        unsafe { unit::run(self.env, routines::comparison(code), flags.as_mut_ptr()) }
        flags.map(|f| f != 0)
    }
    fn unit_move(&mut self, c: bool, i: u8) {
        unsafe { unit::run(self.env, routines::conditional_move(c, i), at(0)) }
    }
    fn unit_note(&mut self, data: Option<u64>) {
        unsafe {
            let u = &raw mut (*hot(self.env)).unit;
            if WALK && (*u).held == 0 {
                // (It was put back for the store.)
                unit::hold(self.env)
            }
            (*u).ip = ip_at(self.env, self.op);
            if let Some(offset) = data {
                (*u).offset = offset;
                (*u).seg = ((*self.op).off >> 12) as u64
            }
        }
    }
}
/// Stores flags: only the values that their producer uses.
#[inline(always)]
unsafe fn put_flags<T: Target>(env: NonNull<Env<T>>, d: Deferred<u64>) {
    unsafe {
        let h = hot(env);
        (*h).cc = (d.w as u64) << 8 | d.kind as u64;
        let used = T::flag_values(d.kind);
        for i in 0..3 {
            if used >> i & 1 != 0 {
                (*h).cc_v[i] = d.v[i]
            }
        }
    }
}
/// Guest data of any alignment.
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Packed<V>(V);

// ---- control: every way out of a handler is its own sibling call ----

#[inline(always)]
unsafe fn next_ip<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> u64 {
    unsafe { ip_at(env, op) + ((*op).len_scale & 15) as u64 }
}
#[inline(always)]
pub(crate) unsafe fn ip_at<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> u64 {
    unsafe { (*hot(env)).regs[PAGE.0 as usize] + ((*op).off & 0xfff) as u64 }
}
/// The address an op stands for, with or without an instruction.
pub(crate) unsafe fn ip_of<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> u64 {
    unsafe {
        if (*op).len_scale & 15 == 0 {
            return (*hot(env)).regs[PAGE.0 as usize].wrapping_add((*op).disp as i64 as u64) & (*op).imm;
        }
        ip_at(env, op)
    }
}
#[inline(always)]
unsafe fn go<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    unsafe { ((*op).run)(env, op) }
}
/// The handler of every op of a looped vCPU: back to the loop.
pub(crate) unsafe extern "C" fn paused<T: Target>(_: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    op
}
/// Runs from `op` until something stops it; the reason is left in the env.
/// # Safety
/// The calling thread owns `env`, holds no reference into it, and `op` is an op of a live page of it.
pub(crate) unsafe fn run<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) {
    unsafe { run_on(env, enter(env, op)) }
}
/// The same from what a handler returned.
/// # Safety
/// As for [`run`].
pub(crate) unsafe fn run_on<T: Target>(env: NonNull<Env<T>>, mut op: *const Op<T>) {
    while !op.is_null() {
        op = unsafe { ((*pages(env)).looped(&*op))(env, op) }
    }
    unsafe { collect(env) }
}
/// Host code other than handlers is about to run: the host's floating-point control is put back, the guest's sticky
/// flags are collected, and its x87 unit is in its state.
#[inline(always)]
pub(crate) unsafe fn collect<T: Target>(env: NonNull<Env<T>>) {
    unsafe {
        collect_control(env);
        unit::release(env)
    }
}
/// The same for code that has nothing to do with the x87 unit.
#[inline(always)]
unsafe fn collect_control<T: Target>(env: NonNull<Env<T>>) {
    unsafe {
        let h = hot(env);
        Fpcr { guest: &mut (*h).fpcr, host: &mut (*h).fpcr_host }.leave()
    }
}
/// Enters a block: instruction budget, kick, hotness.
#[inline(always)]
unsafe fn enter<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    unsafe {
        let h = hot(env);
        let b = (*h).budget - (*op).n as i64;
        (*h).budget = b;
        if b < (*env.as_ptr()).shared.exit_request.load(Relaxed) {
            return stopped(env, op);
        }
        let heat = (*op).heat.wrapping_sub(1);
        (*op.cast_mut()).heat = heat;
        if heat == 0 {
            return got_hot(env, op);
        }
        go(env, op)
    }
}
#[cold]
#[inline(never)]
pub(crate) unsafe extern "C" fn got_hot<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    unsafe {
        (*hot(env)).budget += (*op).n as i64;
        stop(env, ip_of(env, op), reason::HOT, 0)
    }
}
#[cold]
#[inline(never)]
pub(crate) unsafe extern "C" fn stopped<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    unsafe {
        (*hot(env)).budget += (*op).n as i64;
        stop(env, ip_of(env, op), reason::BUDGET, 0)
    }
}
#[inline(always)]
pub(crate) unsafe fn stop<T: Target>(env: NonNull<Env<T>>, ip: u64, why: u64, with: u64) -> *const Op<T> {
    unsafe {
        let h = hot(env);
        (*h).ip = ip;
        (*h).reason = why;
        (*h).at = with;
        // Opaque: if the optimiser knew that this is always null it would put the constant into every caller, and their
        // tail calls would be gone.
        black_box(null())
    }
}
#[inline(always)]
pub(crate) unsafe fn jump<T: Target>(env: NonNull<Env<T>>, ip: u64) -> *const Op<T> {
    unsafe {
        let (h, j) = (hot(env), jc(env, ip));
        if (*j).key == ip ^ (*h).salt {
            (*h).regs[PAGE.0 as usize] = ip & !0xfff;
            return enter(env, (*j).op);
        }
        lost(env, null(), ip)
    }
}
#[cold]
#[inline(never)]
pub(crate) unsafe extern "C" fn lost<T: Target>(env: NonNull<Env<T>>, _: *const Op<T>, ip: u64) -> *const Op<T> {
    unsafe { stop(env, ip, reason::LOOKUP, 0) }
}
#[inline(always)]
unsafe fn conclude<T: Target>(
    env: NonNull<Env<T>>,
    op: *const Op<T>,
    s: Result<Flow<u64, bool>, Miss>,
) -> *const Op<T> {
    unsafe {
        match s {
            Ok(Flow::Next) => go(env, op.add(1)),
            Ok(Flow::If(c)) => {
                if c {
                    enter(env, (*op).imm as *const Op<T>)
                } else {
                    enter(env, op.add(1))
                }
            }
            Ok(Flow::Goto) => enter(env, (*op).imm as *const Op<T>),
            Ok(Flow::To(ip)) => jump(env, ip),
            Ok(Flow::Rare) => rare(env, op),
            Err(m) => miss(env, op, m.ea, m.info),
        }
    }
}
/// Row `I` of the forms, as a family.
struct Row<T, const I: usize>(PhantomData<T>);
impl<T: Target, const I: usize> Family for Row<T, I> {
    const FAMILY: u8 = T::FAMILIES[I % T::FAMILIES.len()];
}
/// The first of row `I` of the pairs.
struct First<T, const I: usize>(PhantomData<T>);
impl<T: Target, const I: usize> Family for First<T, I> {
    const FAMILY: u8 = T::PAIR_FAMILIES[I % T::PAIR_FAMILIES.len()].0;
}
/// The second of row `I` of the pairs.
struct Second<T, const I: usize>(PhantomData<T>);
impl<T: Target, const I: usize> Family for Second<T, I> {
    const FAMILY: u8 = T::PAIR_FAMILIES[I % T::PAIR_FAMILIES.len()].1;
}
unsafe extern "C" fn exec<T: Target, const I: usize>(env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    unsafe {
        let (form, live) = const { T::FORMS[I % T::FORMS.len()] };
        let s = T::run::<_, Row<T, I>>(&mut Interp::<T, false> { env, op, live, wanted: live, pend: None }, form);
        conclude(env, op, s)
    }
}
unsafe extern "C" fn exec_pair<T: Target, const I: usize>(env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    unsafe {
        let (a, b, live) = const { T::PAIRS[I % T::PAIRS.len()] };
        let mut f = Interp::<T, false> { env, op, live, wanted: true, pend: None };
        if let Err(m) = T::run::<_, First<T, I>>(&mut f, a) {
            return miss(env, op, m.ea, m.info);
        }
        f.op = op.add(1);
        let s = T::run::<_, Second<T, I>>(&mut f, b);
        conclude(env, op.add(1), s)
    }
}
/// Row `I` of the target's forms, or nothing past the end.
pub const fn form<T: Target, const I: usize>() -> Option<Handler<T>> {
    if I < T::FORMS.len() { Some(Handler(exec::<T, I>)) } else { None }
}
/// Row `I` of the target's pairs, or nothing past the end.
pub const fn pair<T: Target, const I: usize>() -> Option<Handler<T>> {
    if I < T::PAIRS.len() { Some(Handler(exec_pair::<T, I>)) } else { None }
}
/// `tcg_handlers!(Target, form: 0 16 32 …)`: the rows from each number on, sixteen a line; `form` or `pair`.
#[macro_export]
macro_rules! tcg_handlers {
    ($t:ty, $f:ident: $($n:literal)*) => { [$($crate::tcg_handlers!(@ $t, $f, $n)),*] };
    (@ $t:ty, $f:ident, $n:literal) => { [
        $crate::tcg::$f::<$t, { $n }>(), $crate::tcg::$f::<$t, { $n + 1 }>(),
        $crate::tcg::$f::<$t, { $n + 2 }>(), $crate::tcg::$f::<$t, { $n + 3 }>(),
        $crate::tcg::$f::<$t, { $n + 4 }>(), $crate::tcg::$f::<$t, { $n + 5 }>(),
        $crate::tcg::$f::<$t, { $n + 6 }>(), $crate::tcg::$f::<$t, { $n + 7 }>(),
        $crate::tcg::$f::<$t, { $n + 8 }>(), $crate::tcg::$f::<$t, { $n + 9 }>(),
        $crate::tcg::$f::<$t, { $n + 10 }>(), $crate::tcg::$f::<$t, { $n + 11 }>(),
        $crate::tcg::$f::<$t, { $n + 12 }>(), $crate::tcg::$f::<$t, { $n + 13 }>(),
        $crate::tcg::$f::<$t, { $n + 14 }>(), $crate::tcg::$f::<$t, { $n + 15 }>(),
    ] };
}

/// Where an instruction that was run out of line goes. Two words, so that it comes back in registers: a handler that gave
/// the address of a local away could not end in a jump.
#[repr(C)]
struct Way {
    to: To,
    /// Address for [`To::Ip`] and [`To::Lost`].
    ip: u64,
}
#[repr(u64)]
enum To {
    Next,
    Taken,
    NotTaken,
    Ip,
    Lost,
    Rare,
    /// The miss is in the env's scratch words.
    Miss,
    /// Again, by its own handler.
    Go,
    /// Again, in the walking frame.
    Any,
    Fault,
}
impl Way {
    fn new(to: To) -> Way {
        Way { to, ip: 0 }
    }
    unsafe fn of<T: Target>(env: NonNull<Env<T>>, s: Result<Flow<u64, bool>, Miss>) -> Way {
        match s {
            Ok(Flow::Next) => Way::new(To::Next),
            Ok(Flow::If(false)) => Way::new(To::NotTaken),
            Ok(Flow::If(true) | Flow::Goto) => Way::new(To::Taken),
            Ok(Flow::To(ip)) => Way { to: To::Ip, ip },
            Ok(Flow::Rare) => Way::new(To::Rare),
            Err(m) => {
                unsafe { (*hot(env)).scratch = [m.ea, m.info] }
                Way::new(To::Miss)
            }
        }
    }
    #[inline(always)]
    unsafe fn take<T: Target>(self, env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
        unsafe {
            match self.to {
                To::Next => go(env, op.add(1)),
                To::Taken => enter(env, (*op).imm as *const Op<T>),
                To::NotTaken => enter(env, op.add(1)),
                To::Ip => jump(env, self.ip),
                To::Lost => lost(env, op, self.ip),
                To::Rare => rare(env, op),
                To::Miss => miss(env, op, (*hot(env)).scratch[0], (*hot(env)).scratch[1]),
                // (Not `run`: the op may be the second of a pair.)
                To::Go => go(env, op),
                To::Any => exec_any(env, op),
                To::Fault => faulted(env, op),
            }
        }
    }
}

/// A form without a handler of its own.
#[inline(never)]
pub(crate) unsafe extern "C" fn exec_dyn<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    unsafe { dynamic(env, op).take(env, op) }
}
#[inline(never)]
unsafe extern "C" fn dynamic<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> Way {
    unsafe {
        let f = (&(*pages(env)).forms)[(*op).form()];
        let mut frame = Interp::<T, false> { env, op, live: true, wanted: true, pend: None };
        Way::of(env, T::run::<_, AnyFamily>(&mut frame, f))
    }
}
/// Any form, its memory by walk: page crossers, special pages.
#[inline(never)]
pub(crate) unsafe extern "C" fn exec_any<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    unsafe { any(env, op).take(env, op) }
}
#[inline(never)]
unsafe extern "C" fn any<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> Way {
    unsafe {
        let n = inner(env);
        (*n).counters.slow += 1;
        (*n).n_places = 0;
        let f = (&(*pages(env)).forms)[(*op).form()];
        tlb::count(env, (*op).n as i64);
        let mut frame = Interp::<T, true> { env, op, live: true, wanted: true, pend: None };
        let s = T::run::<_, AnyFamily>(&mut frame, f);
        if tlb::must_leave(env) && matches!(s, Ok(Flow::Next)) {
            // (Other flows look at the exit request, which was set with the flag.)
            (*hot(env)).budget += (*op).n as i64 - 1;
            return Way { to: To::Lost, ip: next_ip(env, op) };
        }
        Way::of(env, s)
    }
}
#[cold]
#[inline(never)]
unsafe extern "C" fn miss<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>, ea: u64, why: u64) -> *const Op<T> {
    unsafe { missed(env, op, ea, why).take(env, op) }
}
#[inline(never)]
unsafe extern "C" fn missed<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>, ea: u64, why: u64) -> Way {
    unsafe {
        collect_control(env);
        let bytes = why & 0xff;
        if why & info::FAULT != 0 {
            return Way::new(To::Fault);
        }
        if why & info::RARE != 0 {
            return Way::new(To::Rare);
        }
        if why & (info::DIVIDE | info::ALIGN) != 0 {
            *fault(env) = Some(if why & info::DIVIDE != 0 { T::divide_fault() } else { T::alignment_fault() });
            return Way::new(To::Fault);
        }
        if why & info::SLOW != 0 || (ea & 0xfff) + bytes > 0x1000 {
            return Way::new(To::Any);
        }
        let this = (op as usize, tlb::index(ea));
        if std::mem::replace(&mut (*inner(env)).last_miss, this) == this {
            (*inner(env)).last_miss = (0, 0);
            return Way::new(To::Any);
        }
        let write = why & info::WRITE != 0;
        let kind = if write { Kind::Write } else { Kind::Read };
        let access = Access { kind, who: Who::Current, stack: (*op).off >> 12 == 2 };
        if let Err(f) = tlb::find(env, &mut *state(env), ea, access) {
            *fault(env) = Some(f);
            return Way::new(To::Fault);
        }
        let e = entry(env, ea);
        let tag = if write { &(*e).write } else { &(*e).read }.load(Relaxed);
        Way::new(if tag == ea & !0xfff { To::Go } else { To::Any })
    }
}
unsafe fn faulted<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    unsafe {
        (*hot(env)).budget += (*op).n as i64;
        stop(env, ip_at(env, op), reason::FAULT, op as u64)
    }
}
/// Operand fields of an op, as rare code sees them.
pub(crate) unsafe fn fields<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> Fields {
    unsafe {
        Fields {
            imm: (*op).imm,
            disp: (*op).disp,
            r: (*op).r.map(Slot),
            scale: (*op).len_scale >> 4,
            seg: ((*op).off >> 12) as u8,
            ip: ip_at(env, op),
            next_ip: next_ip(env, op),
        }
    }
}
/// A form that only runs on the whole CPU.
#[cold]
#[inline(never)]
pub(crate) unsafe extern "C" fn rare<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    unsafe {
        match rare_step(env, op) {
            RareStep::Next => go(env, op.add(1)),
            RareStep::Again => enter(env, op),
            RareStep::Stopped(nowhere) => nowhere,
        }
    }
}
/// Where a rare instruction's handler goes.
enum RareStep<T: Target> {
    Next,
    Again,
    /// Out: what [`stop`] gave.
    Stopped(*const Op<T>),
}
/// Everything of a rare instruction that takes the address of a local: in its handler that would keep the compiler from
/// making the last call a jump.
#[inline(never)]
unsafe fn rare_step<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> RareStep<T> {
    unsafe {
        collect(env);
        let form = (&(*pages(env)).forms)[(*op).form()];
        let op_fields = fields(env, op);
        // The whole CPU as references, for this call only: no handler runs meanwhile, other threads touch atomics only.
        tlb::count(env, (*op).n as i64);
        let mut cpu = Cpu { hot: &mut *hot(env), state: &mut *state(env), op: op_fields, mem: Mem(env, PhantomData) };
        let n = (*op).n as i64;
        cpu.hot.paid = n;
        let r = T::rare(&mut cpu, form);
        RareStep::Stopped(match r {
            // (A repeated one may have used what was paid for those behind it.)
            Rare::Next if tlb::must_leave(env) || (*hot(env)).budget < 0 => {
                (*hot(env)).budget += n - 1;
                stop(env, op_fields.next_ip, reason::LOOKUP, 0)
            }
            Rare::Next => return RareStep::Next,
            Rare::To(ip) => {
                (*hot(env)).budget += n - 1;
                stop(env, ip, reason::MODE, 0)
            }
            Rare::Again => {
                (*hot(env)).budget += n;
                if (*hot(env)).salt != salt::NONE {
                    return RareStep::Again;
                }
                // An instruction run by itself: it is the dispatcher's to go on with.
                stop(env, op_fields.ip, reason::LOOKUP, 0)
            }
            Rare::Fault(f) => {
                *fault(env) = Some(f);
                faulted(env, op)
            }
            Rare::Halt(ip) => {
                (*hot(env)).budget += n - 1;
                stop(env, ip, reason::HALT, 0)
            }
            Rare::Exit(ip, code) => {
                (*hot(env)).budget += n - 1;
                stop(env, ip, reason::EXIT, code as u64)
            }
        })
    }
}
/// An op without an instruction: goes to an address.
pub(crate) unsafe extern "C" fn leave<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    unsafe { jump(env, (*hot(env)).regs[PAGE.0 as usize].wrapping_add((*op).disp as i64 as u64) & (*op).imm) }
}
/// An op without an instruction: goes on at an op of another run.
pub(crate) unsafe extern "C" fn link<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    unsafe { enter(env, (*op).imm as *const Op<T>) }
}
/// An op in place of an instruction that crosses its page, which has not been run yet.
pub(crate) unsafe extern "C" fn straddle<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    unsafe { stop(env, ip_of(env, op), reason::STRADDLE, op as u64) }
}
/// An op before an instruction that crosses its page: the next page must be where it was when the instruction was decoded.
pub(crate) unsafe extern "C" fn cross<T: Target>(env: NonNull<Env<T>>, op: *const Op<T>) -> *const Op<T> {
    unsafe {
        let next = (*hot(env)).regs[PAGE.index()].wrapping_add(0x1000);
        let e = entry(env, next);
        if (*e).exec.load(Relaxed) == next && (*e).addend.load(Relaxed).wrapping_add(next) == (*op).imm {
            return go(env, op.add(1));
        }
        (*hot(env)).budget += (*op).n as i64;
        stop(env, ip_at(env, op), reason::STRADDLE, op as u64)
    }
}
