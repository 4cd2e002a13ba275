//! The frame of tier 0: what a form does to the host's own copy of the guest's registers, to guest memory and to flags.
//!
//! Unsafe here stands on what [`tier0`](super::tier0) stands on: an env owned by the calling thread, and an op of a live page.
#![expect(unsafe_code, reason = "tier-0 dispatch")]
#![expect(clippy::undocumented_unsafe_blocks, reason = "one argument, above, covers the frame")]

mod vector;

use super::{
    env::{Env, Op, fault, hot, inner, state},
    host,
    ops::*,
    plain::{host_integers, plain_bin},
    target::*,
    tier0::*,
    tlb::{self, Place, TlbEntry},
    unit::{self, routines},
};
use std::{
    ptr::{NonNull, with_exposed_provenance_mut as at},
    sync::atomic::Ordering::Relaxed,
};

/// The frame over the host's own registers. `WALK`: memory by table walk, for what the inline check refuses.
pub struct Interp<T: Target, const WALK: bool> {
    pub(crate) env: NonNull<Env<T>>,
    pub(super) op: *const Op<T>,
    pub(super) live: bool,
    pub(super) wanted: bool,
    pub(super) pend: Option<Deferred<u64>>,
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
    pub(super) ea: u64,
    pub(super) info: u64,
}
/// Values of [`Miss::info`] above the size (bits 0–7) and the write bit (8).
pub(super) mod info {
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
            let failed = |la, f| {
                *fault(self.env) = Some(f);
                Miss { ea: la, info: info::FAULT }
            };
            let next = (la | 0xfff).wrapping_add(1);
            let over = (la & 0xfff) + bytes as u64 > 0x1000;
            if over {
                // An operand that goes on where there are no addresses is refused before its pages are looked at.
                T::check_address(st, next, access).map_err(|f| failed(next, f))?;
            }
            let mut find = |la| tlb::find(self.env, st, la, access).map_err(|f| failed(la, f));
            let first = find(la)?;
            let second = if over { find(next)? } else { first };
            for (s, at, n) in [(&first, la, bytes), (&second, next, over as u32)] {
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
