//! What rare code sees: the whole CPU as safe references for the length of one call, and guest memory.
#![expect(unsafe_code, reason = "raw access to the env and guest RAM")]

use super::{
    bus::Bus,
    env::{Env, Hot, inner},
    ops::{Slot, W},
    target::*,
    tlb::{self, PHYS, PhysEntry, Spot, spot},
};
use std::{
    cell::Cell,
    marker::PhantomData,
    ptr::NonNull,
    sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::*},
};

/// Copies out of guest memory; naturally aligned chunks are single accesses.
/// # Safety
/// `p` is valid for reads of `data.len()` bytes of guest memory.
pub(crate) unsafe fn copy_out(p: *mut u8, data: &mut [u8]) {
    // SAFETY: as demanded of the caller; guest memory is only accessed by atomic or volatile accesses.
    unsafe {
        match data.len() {
            1 => data[0] = AtomicU8::from_ptr(p).load(Relaxed),
            2 if p.addr() & 1 == 0 => data.copy_from_slice(&AtomicU16::from_ptr(p.cast()).load(Relaxed).to_ne_bytes()),
            4 if p.addr() & 3 == 0 => data.copy_from_slice(&AtomicU32::from_ptr(p.cast()).load(Relaxed).to_ne_bytes()),
            8 if p.addr() & 7 == 0 => data.copy_from_slice(&AtomicU64::from_ptr(p.cast()).load(Relaxed).to_ne_bytes()),
            n => {
                let mut i = 0;
                while i < n {
                    if p.add(i).addr() & 7 == 0 && n - i >= 8 {
                        let v = AtomicU64::from_ptr(p.add(i).cast()).load(Relaxed);
                        data[i..i + 8].copy_from_slice(&v.to_ne_bytes());
                        i += 8;
                    } else {
                        data[i] = AtomicU8::from_ptr(p.add(i)).load(Relaxed);
                        i += 1;
                    }
                }
            }
        }
    }
}
/// Copies into guest memory; naturally aligned chunks are single accesses.
/// # Safety
/// `p` is valid for writes of `data.len()` bytes of guest memory.
pub(crate) unsafe fn copy_in(p: *mut u8, data: &[u8]) {
    // SAFETY: as above.
    unsafe {
        match *data {
            [a] => AtomicU8::from_ptr(p).store(a, Relaxed),
            [a, b] if p.addr() & 1 == 0 => AtomicU16::from_ptr(p.cast()).store(u16::from_ne_bytes([a, b]), Relaxed),
            [a, b, c, d] if p.addr() & 3 == 0 => {
                AtomicU32::from_ptr(p.cast()).store(u32::from_ne_bytes([a, b, c, d]), Relaxed)
            }
            [a, b, c, d, e, f, g, h] if p.addr() & 7 == 0 => {
                AtomicU64::from_ptr(p.cast()).store(u64::from_ne_bytes([a, b, c, d, e, f, g, h]), Relaxed)
            }
            _ => {
                let (n, mut i) = (data.len(), 0);
                while i < n {
                    if p.add(i).addr() & 7 == 0 && n - i >= 8 {
                        let mut v = [0; 8];
                        v.copy_from_slice(&data[i..i + 8]);
                        AtomicU64::from_ptr(p.add(i).cast()).store(u64::from_ne_bytes(v), Relaxed);
                        i += 8;
                    } else {
                        AtomicU8::from_ptr(p.add(i)).store(data[i], Relaxed);
                        i += 1;
                    }
                }
            }
        }
    }
}

/// Most bytes that go between memory and a port before others get the machine.
const PORT_RUN: usize = 1024;

thread_local! {
    /// The first 16 slots of the vCPU whose port access this thread makes.
    static PORT_REGS: Cell<Option<[u64; 16]>> = const { Cell::new(None) };
}
/// Makes the register file reachable by [`port_reg`] for one port access.
fn with_regs<R>(hot: &mut Hot, f: impl FnOnce() -> R) -> R {
    let (regs, _) = hot.regs.split_first_chunk_mut::<16>().expect("more than 16 slots");
    PORT_REGS.set(Some(*regs));
    let r = f();
    if let Some(v) = PORT_REGS.take() {
        *regs = v
    }
    r
}
/// Slot `n` (0..16) of the vCPU whose port access the calling thread is making, for devices that look at registers.
pub fn port_reg(n: usize) -> Option<u64> {
    PORT_REGS.get()?.get(n).copied()
}
/// Sets it; false if no port access is being made.
pub fn set_port_reg(n: usize, v: u64) -> bool {
    let Some(mut regs) = PORT_REGS.get() else { return false };
    let Some(r) = regs.get_mut(n) else { return false };
    *r = v;
    PORT_REGS.set(Some(regs));
    true
}

/// Operand fields of the instruction that runs.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    /// Immediate.
    pub imm: u64,
    /// Displacement of the memory operand.
    pub disp: i32,
    /// Operand slots by field.
    pub r: [Slot; 4],
    /// Shift count of the index.
    pub scale: u8,
    /// Segment number of the memory operand, 14 for none.
    pub seg: u8,
    /// Linear address of the instruction.
    pub ip: u64,
    /// Linear address of the next one.
    pub next_ip: u64,
}
impl Fields {
    /// No instruction: an event between two, before the one at `ip`.
    pub const fn none(ip: u64) -> Fields {
        Fields { imm: 0, disp: 0, r: [super::ops::ZERO; 4], scale: 0, seg: 14, ip, next_ip: ip }
    }
}

/// What a rare instruction sees.
pub struct Cpu<'a, T: Target> {
    /// Register file, deferred flags, vector registers.
    pub hot: &'a mut Hot,
    /// The target's other registers.
    pub state: &'a mut T::State,
    /// Operands.
    pub op: Fields,
    pub(crate) mem: Mem<'a, T>,
}
/// The right to use the env's parts that are neither `hot` nor `state`.
pub(crate) struct Mem<'a, T: Target>(pub NonNull<Env<T>>, pub PhantomData<&'a mut ()>);

/// Guest-physical memory, for page walks.
pub struct Phys<'a> {
    pub(crate) bus: &'a dyn Bus,
    pub(crate) cache: &'a mut [PhysEntry; PHYS],
    pub(crate) view: u8,
}
impl Phys<'_> {
    pub(crate) fn page(&mut self, pa: u64) -> PhysEntry {
        let pa = pa & !0xfff;
        let e = &mut self.cache[(pa >> 12) as usize % PHYS];
        if e.pa != pa {
            *e = match self.bus.ram(self.view, pa) {
                Some(r) => PhysEntry { pa, host: r.host, writable: r.writable, log: r.log },
                None => PhysEntry { pa, host: std::ptr::null_mut(), writable: false, log: false },
            };
        }
        *e
    }
    /// Reads `w` at a physical address that is a multiple of its size.
    pub fn load(&mut self, w: W, pa: u64) -> u64 {
        let pa = pa & !(w.bytes() as u64 - 1);
        let (p, mut v) = (self.page(pa), [0; 8]);
        let data = &mut v[..w.bytes() as usize];
        if p.host.is_null() {
            self.bus.load(self.view, pa, data);
        } else {
            // SAFETY: a live page; aligned, so inside it.
            unsafe { copy_out(p.host.add(pa as usize & 0xfff), data) }
        }
        u64::from_le_bytes(v)
    }
    /// Writes `w` at a physical address that is a multiple of its size. Not for memory that may hold code.
    pub fn store(&mut self, w: W, pa: u64, v: u64) {
        let pa = pa & !(w.bytes() as u64 - 1);
        let p = self.page(pa);
        let v = v.to_le_bytes();
        let data = &v[..w.bytes() as usize];
        if p.host.is_null() || !p.writable {
            return self.bus.store(self.view, pa, data);
        }
        if p.log {
            self.bus.mark_dirty(self.view, pa)
        }
        // SAFETY: a live writable page; aligned, so inside it.
        unsafe { copy_in(p.host.add(pa as usize & 0xfff), data) }
    }
    /// Replaces `old` by `new` (4 or 8 bytes, aligned) if it is still there. Outside of RAM it is a plain store.
    pub fn cas(&mut self, w: W, pa: u64, old: u64, new: u64) -> bool {
        let pa = pa & !(w.bytes() as u64 - 1);
        let p = self.page(pa);
        if p.host.is_null() || !p.writable {
            self.store(w, pa, new);
            return true;
        }
        if p.log {
            self.bus.mark_dirty(self.view, pa)
        }
        // SAFETY: a live writable page; aligned, so inside it.
        unsafe { super::host::lock::cas(w, p.host.add(pa as usize & 0xfff), old, new) == old }
    }
}

impl<T: Target> Cpu<'_, T> {
    fn find(&mut self, la: u64, access: Access) -> Result<Spot, T::Fault> {
        // SAFETY: this call owns the CPU (`Mem`), and `hot` is not touched by a fill.
        unsafe { tlb::find(self.mem.0, self.state, la, access) }
    }
    fn stack(&self) -> bool {
        self.op.seg == 2
    }
    /// The host address of `bytes` bytes at `la` if the first level knows the page and it needs nothing special.
    #[inline(always)]
    fn quick(&self, bytes: u64, la: u64, kind: Kind, who: Who) -> Option<*mut u8> {
        let regime = T::regime(self.state, who) % tlb::REGIMES;
        // SAFETY: atomics of a live env.
        let e = unsafe { &(&raw const (*self.mem.0.as_ptr()).tlb).as_ref()?[regime][tlb::index(la)] };
        if e.tag(kind) ^ la > 0x1000 - bytes {
            return None;
        }
        Some(std::ptr::with_exposed_provenance_mut(e.addend.load(Relaxed).wrapping_add(la) as usize))
    }
    /// Reads `w` at a linear address.
    #[inline]
    pub fn load(&mut self, w: W, la: u64, who: Who) -> Result<u64, T::Fault> {
        let n = w.bytes() as u64;
        if la & (n - 1) == 0
            && let Some(p) = self.quick(n, la, Kind::Read, who)
        {
            // SAFETY: `quick` checked the range; host pages are aligned as guest pages are.
            return Ok(unsafe {
                match w {
                    W::B1 => AtomicU8::from_ptr(p).load(Relaxed).into(),
                    W::B2 => AtomicU16::from_ptr(p.cast()).load(Relaxed).into(),
                    W::B4 => AtomicU32::from_ptr(p.cast()).load(Relaxed).into(),
                    W::B8 => AtomicU64::from_ptr(p.cast()).load(Relaxed),
                }
            });
        }
        self.load_any(w, la, who)
    }
    #[inline(never)]
    fn load_any(&mut self, w: W, la: u64, who: Who) -> Result<u64, T::Fault> {
        let mut v = [0; 8];
        self.load_bytes(la, &mut v[..w.bytes() as usize], who)?;
        Ok(u64::from_le_bytes(v))
    }
    /// Writes `w` at a linear address; all or nothing.
    #[inline]
    pub fn store(&mut self, w: W, la: u64, v: u64, who: Who) -> Result<(), T::Fault> {
        let n = w.bytes() as u64;
        if la & (n - 1) == 0
            && let Some(p) = self.quick(n, la, Kind::Write, who)
        {
            // SAFETY: as in `load`.
            unsafe {
                match w {
                    W::B1 => AtomicU8::from_ptr(p).store(v as u8, Relaxed),
                    W::B2 => AtomicU16::from_ptr(p.cast()).store(v as u16, Relaxed),
                    W::B4 => AtomicU32::from_ptr(p.cast()).store(v as u32, Relaxed),
                    W::B8 => AtomicU64::from_ptr(p.cast()).store(v, Relaxed),
                }
            }
            return Ok(());
        }
        self.store_any(w, la, v, who)
    }
    #[inline(never)]
    fn store_any(&mut self, w: W, la: u64, v: u64, who: Who) -> Result<(), T::Fault> {
        self.store_bytes(la, &v.to_le_bytes()[..w.bytes() as usize], who)
    }
    /// Reads bytes at a linear address. Faults before the first byte of a page is read; at most 4096 bytes.
    pub fn load_bytes(&mut self, la: u64, data: &mut [u8], who: Who) -> Result<(), T::Fault> {
        if let Some(p) = self.quick(data.len() as u64, la, Kind::Read, who) {
            // SAFETY: `quick` checked the range.
            unsafe { copy_out(p, data) };
            return Ok(());
        }
        let access = Access { kind: Kind::Read, who, stack: self.stack() };
        let off = la as usize & 0xfff;
        let cut = data.len().min(4096 - off);
        let first = self.find(la, access)?;
        let second = if cut < data.len() { Some(self.find(la.wrapping_add(cut as u64), access)?) } else { None };
        let (head, tail) = data.split_at_mut(cut);
        self.report(&first, la, head.len() as u32, false);
        // SAFETY: this call owns the CPU.
        let n = unsafe { &mut *inner(self.mem.0) };
        tlb::read_spot(n, &first, off, head);
        if let Some(s) = second {
            tlb::read_spot(n, &s, 0, tail);
            self.report(&s, la.wrapping_add(cut as u64), tail.len() as u32, false);
        }
        Ok(())
    }
    /// Writes bytes at a linear address; all or nothing, at most 4096 bytes.
    pub fn store_bytes(&mut self, la: u64, data: &[u8], who: Who) -> Result<(), T::Fault> {
        if let Some(p) = self.quick(data.len() as u64, la, Kind::Write, who) {
            // SAFETY: `quick` checked the range.
            unsafe { copy_in(p, data) };
            return Ok(());
        }
        let access = Access { kind: Kind::Write, who, stack: self.stack() };
        let off = la as usize & 0xfff;
        let cut = data.len().min(4096 - off);
        let first = self.find(la, access)?;
        let second = if cut < data.len() { Some(self.find(la.wrapping_add(cut as u64), access)?) } else { None };
        let (head, tail) = data.split_at(cut);
        self.report(&first, la, head.len() as u32, true);
        // SAFETY: this call owns the CPU.
        unsafe { tlb::write_spot(self.mem.0, &first, off, head) };
        if let Some(s) = second {
            self.report(&s, la.wrapping_add(cut as u64), tail.len() as u32, true);
            // SAFETY: as above.
            unsafe { tlb::write_spot(self.mem.0, &s, 0, tail) };
        }
        Ok(())
    }
    fn report(&mut self, s: &Spot, la: u64, bytes: u32, write: bool) {
        if s.flags & spot::WATCH != 0 {
            T::watched(self.state, la, bytes, write)
        }
    }
    /// Raises now the fault that an access to any of the `len` bytes would raise.
    pub fn probe(&mut self, la: u64, len: u64, kind: Kind, who: Who) -> Result<(), T::Fault> {
        let access = Access { kind, who, stack: self.stack() };
        let mut done = 0;
        while done < len {
            let at = la.wrapping_add(done);
            if self.quick(1, at, kind, who).is_none() {
                self.find(at, access)?;
            }
            done += 0x1000 - (at & 0xfff);
        }
        Ok(())
    }
    /// Copies up to `bytes` bytes upwards (as if one byte after the other) from `src` to `dst`, as far as both stay in
    /// their pages and are plain memory. 0: nothing done, go on by single accesses (which raise the faults).
    pub fn copy_run(&mut self, dst: u64, src: u64, bytes: u64) -> u64 {
        let n = bytes.min(0x1000 - (dst & 0xfff)).min(0x1000 - (src & 0xfff));
        let (Some(s), Some(d)) =
            (self.quick(n, src, Kind::Read, Who::Current), self.quick(n, dst, Kind::Write, Who::Current))
        else {
            return 0;
        };
        // An overlap with the destination above the source repeats a pattern: left to single accesses.
        if d.addr().wrapping_sub(s.addr()) < n as usize {
            return 0;
        }
        // SAFETY: `quick` checked both ranges. Other vCPUs may race: guest memory has no Rust references, and the copy's
        // values are used for nothing else.
        unsafe { std::ptr::copy(s, d, n as usize) };
        n
    }
    /// Reads bytes that lie in one page of plain memory; false: nothing done, go on by single accesses.
    pub fn read_run(&mut self, la: u64, data: &mut [u8]) -> bool {
        let n = data.len() as u64;
        if n > 0x1000 - (la & 0xfff) {
            return false;
        }
        let Some(s) = self.quick(n, la, Kind::Read, Who::Current) else { return false };
        // SAFETY: `quick` checked the range.
        unsafe { copy_out(s, data) };
        true
    }
    /// Stores up to `count` copies of the low `w` of `v` upwards from `dst`, as far as they stay in the page and it is
    /// plain memory; returns how many. 0: nothing done, go on by single accesses.
    pub fn fill_run(&mut self, w: W, dst: u64, v: u64, count: u64) -> u64 {
        let size = w.bytes() as u64;
        let n = count.min((0x1000 - (dst & 0xfff)) / size);
        if n == 0 {
            return 0;
        }
        let Some(d) = self.quick(n * size, dst, Kind::Write, Who::Current) else { return 0 };
        // SAFETY: `quick` checked the range.
        unsafe {
            match w {
                W::B1 => std::ptr::write_bytes(d, v as u8, n as usize),
                W::B2 => (0..n as usize).for_each(|i| d.cast::<u16>().add(i).write_unaligned(v as u16)),
                W::B4 => (0..n as usize).for_each(|i| d.cast::<u32>().add(i).write_unaligned(v as u32)),
                W::B8 => (0..n as usize).for_each(|i| d.cast::<u64>().add(i).write_unaligned(v)),
            }
        }
        n
    }
    /// The host address of `bytes` bytes at `la` for a locked access that the first level refuses (the page may hold code), if they
    /// lie inside a page of RAM. [`Cpu::stored`] must follow the access.
    fn ram(&mut self, bytes: u64, la: u64, who: Who) -> Result<Option<(Spot, *mut u8)>, T::Fault> {
        let off = la & 0xfff;
        if off + bytes > 4096 {
            return Ok(None);
        }
        let access = Access { kind: Kind::Write, who, stack: self.stack() };
        let s = self.find(la, access)?;
        if s.host.is_null() || s.flags & spot::RAM == 0 {
            return Ok(None);
        }
        // SAFETY: inside the page.
        Ok(Some((s, unsafe { s.host.add(off as usize) })))
    }
    /// What follows a store of `bytes` bytes at `la` in the page of a spot.
    fn stored(&mut self, s: &Spot, la: u64, bytes: u32) {
        self.report(s, la, bytes, true);
        // SAFETY: this call owns the CPU, and no reference into `inner` is live.
        unsafe { tlb::stored(self.mem.0, s, la as usize & 0xfff, bytes as usize) }
    }
    /// Atomic compare and exchange of `w` at a linear address (within a page, or not atomic): what was there.
    pub fn cas(&mut self, w: W, la: u64, old: u64, new: u64, who: Who) -> Result<u64, T::Fault> {
        if self.quick(w.bytes() as u64, la, Kind::Write, who).is_none() {
            self.probe(la, w.bytes() as u64, Kind::Write, who)?;
        }
        if let Some(p) = self.quick(w.bytes() as u64, la, Kind::Write, who) {
            // SAFETY: `quick` checked the range.
            return Ok(unsafe { super::host::lock::cas(w, p, old, new) });
        }
        if let Some((s, p)) = self.ram(w.bytes().into(), la, who)? {
            // SAFETY: `ram` checked the range.
            let seen = unsafe { super::host::lock::cas(w, p, old, new) };
            self.stored(&s, la, w.bytes());
            return Ok(seen);
        }
        let seen = self.load(w, la, who)?;
        self.store(w, la, if seen == old { new } else { seen }, who)?;
        Ok(seen)
    }
    /// Atomic compare and exchange of 16 bytes at a multiple of 16: what was there.
    pub fn cas16(&mut self, la: u64, old: u128, new: u128, who: Who) -> Result<u128, T::Fault> {
        if self.quick(16, la, Kind::Write, who).is_none() {
            self.probe(la, 16, Kind::Write, who)?;
        }
        if la & 15 == 0
            && let Some(p) = self.quick(16, la, Kind::Write, who)
        {
            // SAFETY: `quick` checked the range, and pages are aligned.
            return Ok(unsafe { super::host::lock::cas16(p, old, new) });
        }
        if la & 15 == 0
            && let Some((s, p)) = self.ram(16, la, who)?
        {
            // SAFETY: `ram` checked the range, and pages are aligned.
            let seen = unsafe { super::host::lock::cas16(p, old, new) };
            self.stored(&s, la, 16);
            return Ok(seen);
        }
        let mut b = [0; 16];
        self.load_bytes(la, &mut b, who)?;
        let seen = u128::from_le_bytes(b);
        self.store_bytes(la, &(if seen == old { new } else { seen }).to_le_bytes(), who)?;
        Ok(seen)
    }
    /// Physical memory: page tables, SMRAM.
    pub fn phys(&mut self) -> Phys<'_> {
        // SAFETY: this call owns the CPU; the borrow of `self` keeps it alone.
        unsafe { (*inner(self.mem.0)).phys() }
    }
    /// The target's registers beside physical memory, for walks.
    pub fn state_and_phys(&mut self) -> (&mut T::State, Phys<'_>) {
        // SAFETY: as above; the state is another cell.
        (self.state, unsafe { (*inner(self.mem.0)).phys() })
    }
    /// Reads `w` (aligned) of physical memory.
    pub fn phys_load(&mut self, w: W, pa: u64) -> u64 {
        self.phys().load(w, pa)
    }
    /// Writes `w` (aligned) of physical memory.
    pub fn phys_store(&mut self, w: W, pa: u64, v: u64) {
        let e = self.phys().page(pa);
        self.phys().store(w, pa, v);
        if !e.host.is_null() && e.writable {
            // SAFETY: this call owns the CPU.
            let n = unsafe { &mut *inner(self.mem.0) };
            tlb::wrote(self.mem.0, n, e.host as usize, pa as usize & 0xfff, w.bytes() as usize);
        }
    }
    /// Reads an I/O port.
    pub fn io_load(&mut self, port: u16, w: W) -> u32 {
        // SAFETY: this call owns the CPU; the bus is held for the call because a device may make the vCPU drop it.
        let bus = unsafe { (*inner(self.mem.0)).bus.clone() };
        with_regs(self.hot, || bus.io_load(port, w))
    }
    /// Writes an I/O port.
    pub fn io_store(&mut self, port: u16, w: W, v: u32) {
        // SAFETY: as above.
        let bus = unsafe { (*inner(self.mem.0)).bus.clone() };
        with_regs(self.hot, || bus.io_store(port, w, v))
    }
    /// Reads an I/O port up to `count` times into memory from `la` upwards, as far as that is one page of plain memory and nobody waits for this
    /// vCPU; how many times. 0: nothing done, go on by single accesses (which raise the faults).
    ///
    /// # Errors
    /// As [`Cpu::store_bytes`]: another vCPU took the page away meanwhile.
    pub fn io_load_run(&mut self, port: u16, w: W, la: u64, count: u64) -> Result<u64, T::Fault> {
        let Some(len) = self.port_run(w, la, count, Kind::Write) else { return Ok(0) };
        let mut data = [0; PORT_RUN];
        // SAFETY: as above.
        let bus = unsafe { (*inner(self.mem.0)).bus.clone() };
        let env = self.mem.0;
        // SAFETY: atomics of a live env.
        let go_on = || unsafe { (*env.as_ptr()).shared.requests.load(Relaxed) == 0 };
        let n = with_regs(self.hot, || bus.io_load_run(port, w, &mut data[..len], &go_on));
        self.store_bytes(la, &data[..n * w.bytes() as usize], Who::Current)?;
        Ok(n as u64)
    }
    /// Writes memory from `la` upwards to an I/O port, as [`Cpu::io_load_run`] reads.
    pub fn io_store_run(&mut self, port: u16, w: W, la: u64, count: u64) -> u64 {
        let Some(len) = self.port_run(w, la, count, Kind::Read) else { return 0 };
        let mut data = [0; PORT_RUN];
        if !self.read_run(la, &mut data[..len]) {
            return 0;
        }
        // SAFETY: as above.
        let bus = unsafe { (*inner(self.mem.0)).bus.clone() };
        let env = self.mem.0;
        // SAFETY: atomics of a live env.
        let go_on = || unsafe { (*env.as_ptr()).shared.requests.load(Relaxed) == 0 };
        with_regs(self.hot, || bus.io_store_run(port, w, &data[..len], &go_on)) as u64
    }
    /// Bytes that up to `count` port accesses may move at once between a port and plain memory at `la`.
    fn port_run(&self, w: W, la: u64, count: u64, kind: Kind) -> Option<usize> {
        let size = u64::from(w.bytes());
        let bytes = count.min((0x1000 - (la & 0xfff)).min(PORT_RUN as u64) / size) * size;
        (bytes != 0 && self.quick(bytes, la, kind, Who::Current).is_some()).then_some(bytes as usize)
    }
    /// Forgets all translations, global ones too.
    pub fn flush_tlb(&mut self) {
        // SAFETY: this call owns the CPU.
        unsafe { tlb::flush_all(self.mem.0) }
        self.forget();
    }
    /// Forgets all but global translations.
    pub fn flush_nonglobal(&mut self) {
        // SAFETY: this call owns the CPU.
        unsafe { tlb::flush_local(self.mem.0) }
        self.forget();
    }
    /// Forgets the translation of one page.
    pub fn flush_page(&mut self, la: u64) {
        // SAFETY: this call owns the CPU.
        unsafe { tlb::flush_page(self.mem.0, la) }
        self.forget();
    }
    /// Selects an address space of the bus (0: normal, 1: SMM) and forgets what was known of the other.
    pub fn set_view(&mut self, view: u8) {
        // SAFETY: this call owns the CPU.
        unsafe {
            (*inner(self.mem.0)).view = view;
            tlb::flush_map(self.mem.0)
        }
        self.forget();
    }
    /// No jump cache entry is current until the dispatcher has been passed.
    fn forget(&mut self) {
        // SAFETY: this call owns the CPU.
        if unsafe { (*inner(self.mem.0)).mode_changed } {
            self.hot.salt = super::env::salt::NONE
        }
    }
    /// Somebody waits for this vCPU to look for events: an instruction that opens a window for them should return
    /// [`Rare::To`] instead of [`Rare::Next`].
    pub fn kicked(&self) -> bool {
        // SAFETY: atomics of a live env.
        unsafe { (*self.mem.0.as_ptr()).shared.requests.load(Relaxed) != 0 }
    }
    /// Asks for a call of [`Target::service`] before the next instruction after a [`Rare::To`].
    pub fn ask_service(&mut self) {
        // SAFETY: atomics of a live env.
        unsafe { (*self.mem.0.as_ptr()).shared.ask(super::env::request::SERVICE) }
    }
}
