//! Address spaces: where accesses enter. Each has a root region and the flat view last made from it.
//!
//! Two families of functions: with `m` for devices and everybody else who holds the machine lock; `cpu_*` for vCPU threads
//! (and tests), which take the lock only where a handler needs it. A vCPU that does not know yet that it will need it finds the
//! range first, then locks and looks again.
//!
//! Multi-byte values are little-endian, as the PC's buses are.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use parking_lot::RwLock;

use super::access::{Access, Attrs, MemTxError, MemTxResult};
use super::ops::{Endian, Io};
use super::ram::RamBlock;
use super::region::MemoryRegion;
use super::view::{FlatRange, FlatView, RangeKind, SLOTS, slot};
use crate::locked::{CoreGuard, Locked, MachineCell, MachineLock, panic_text};
use crate::request::{Request, Requests};

/// Told about changes of an address space, under the machine lock.
pub trait Listener: Send + Sync {
    /// `new` has replaced `old`. Whoever caches host addresses of `old`'s RAM keeps `old` alive until it has dropped them.
    fn changed(&self, m: &mut Locked, old: &Arc<FlatView>, new: &Arc<FlatView>);
}

/// An address space. A handle: clones name the same space.
#[derive(Clone)]
pub struct AddressSpace(Arc<SpaceInner>);

pub(crate) struct SpaceInner {
    name: String,
    root: RwLock<MemoryRegion>,
    view: ArcSwap<FlatView>,
    /// The same for whoever holds the lock, without `view`'s two atomic operations an access; empty while an access lasts.
    held: MachineCell<Option<Arc<FlatView>>>,
    /// Where vCPUs met regions that need the lock.
    locking: KnownLocking,
    /// Number of views published.
    epoch: AtomicU64,
    listeners: RwLock<Vec<Arc<dyn Listener>>>,
    lock: Arc<MachineLock>,
    requests: Arc<Requests>,
}

impl SpaceInner {
    pub(super) fn root(&self) -> MemoryRegion {
        self.root.read().clone()
    }

    pub(super) fn publish(&self, m: &mut Locked, new: Arc<FlatView>) {
        let old = self.view.load_full();
        if old.same(&new) {
            return;
        }
        self.view.store(new.clone());
        self.epoch.fetch_add(1, Ordering::AcqRel);
        *self.held.rw(m) = Some(new.clone());
        self.locking.clear();
        let listeners = self.listeners.read().clone();
        for l in listeners {
            l.changed(m, &old, &new);
        }
    }
}

impl From<Arc<SpaceInner>> for AddressSpace {
    fn from(inner: Arc<SpaceInner>) -> Self {
        Self(inner)
    }
}

fn check_size(size: u32) -> MemTxResult {
    if matches!(size, 1 | 2 | 4 | 8) { Ok(()) } else { Err(MemTxError::Decode) }
}

/// The widest value an access carries.
fn mask(size: u32) -> u64 {
    if size >= 8 { u64::MAX } else { (1 << (size * 8)) - 1 }
}

impl AddressSpace {
    pub(crate) fn new(
        m: &mut Locked,
        lock: &Arc<MachineLock>,
        requests: &Arc<Requests>,
        name: &str,
        root: &MemoryRegion,
    ) -> Self {
        let inner = Arc::new(SpaceInner {
            name: name.to_owned(),
            root: RwLock::new(root.clone()),
            view: ArcSwap::from_pointee(FlatView::of(root)),
            epoch: AtomicU64::new(0),
            held: lock.cell(None),
            locking: KnownLocking::default(),
            listeners: RwLock::default(),
            lock: lock.clone(),
            requests: requests.clone(),
        });
        m.topology.spaces.push(Arc::downgrade(&inner));
        Self(inner)
    }

    /// Name, as `info mtree` shows it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Root of the region tree.
    pub fn root(&self) -> MemoryRegion {
        self.0.root()
    }

    /// The current view. Holding it keeps what it maps alive.
    pub fn view(&self) -> Guard<Arc<FlatView>> {
        self.0.view.load()
    }

    /// How many views have been published: a cheap question whether something changed. Counted after the view is in
    /// place and under the machine lock: whoever holds the lock and reads the number it read before its view has the current one.
    pub fn epoch(&self) -> u64 {
        self.0.epoch.load(Ordering::Acquire)
    }

    /// Adds a listener.
    pub fn listen(&self, l: Arc<dyn Listener>) {
        self.0.listeners.write().push(l);
    }

    /// Forgets the mapped devices: they and the view hold each other. For the end of a machine. What comes back is dropped
    /// without the lock, as devices may go with it.
    #[must_use]
    pub(crate) fn clear(&self, m: &mut Locked) -> Vec<Arc<FlatView>> {
        let view = self.0.view.swap(Arc::default());
        self.0.epoch.fetch_add(1, Ordering::AcqRel);
        self.0.locking.clear();
        self.0.listeners.write().clear();
        self.0.held.rw(m).take().into_iter().chain([view]).collect()
    }

    // ---- with the machine lock held ----

    /// Copies from the space, split by range and by what the regions accept.
    ///
    /// # Errors
    /// The last error met; the rest has been read, and failed bytes read as ones.
    pub fn read(&self, m: &mut Locked, addr: u64, buf: &mut [u8]) -> MemTxResult {
        self.read_with(m, addr, buf, Attrs::default())
    }

    /// [`AddressSpace::read`] on somebody's behalf.
    ///
    /// # Errors
    /// As [`AddressSpace::read`].
    pub fn read_with(&self, m: &mut Locked, addr: u64, buf: &mut [u8], attrs: Attrs) -> MemTxResult {
        self.copy_out(Holder::Held(m), addr, buf, attrs)
    }

    /// Copies into the space.
    ///
    /// # Errors
    /// The last error met; the rest has been written.
    pub fn write(&self, m: &mut Locked, addr: u64, buf: &[u8]) -> MemTxResult {
        self.write_with(m, addr, buf, Attrs::default())
    }

    /// [`AddressSpace::write`] on somebody's behalf.
    ///
    /// # Errors
    /// As [`AddressSpace::write`].
    pub fn write_with(&self, m: &mut Locked, addr: u64, buf: &[u8], attrs: Attrs) -> MemTxResult {
        self.copy_in(Holder::Held(m), addr, buf, attrs)
    }

    /// One little-endian access of 1, 2, 4 or 8 bytes.
    ///
    /// # Errors
    /// Nobody answers, or the device is busy.
    pub fn load(&self, m: &mut Locked, addr: u64, size: u32) -> MemTxResult<u64> {
        self.load_with(m, addr, size, Attrs::default())
    }

    /// [`AddressSpace::load`] on somebody's behalf.
    ///
    /// # Errors
    /// As [`AddressSpace::load`].
    pub fn load_with(&self, m: &mut Locked, addr: u64, size: u32, attrs: Attrs) -> MemTxResult<u64> {
        self.load_held(m, addr, size, attrs)
    }

    /// One little-endian access of 1, 2, 4 or 8 bytes.
    ///
    /// # Errors
    /// Nobody answers, or the device is busy.
    pub fn store(&self, m: &mut Locked, addr: u64, size: u32, val: u64) -> MemTxResult {
        self.store_with(m, addr, size, val, Attrs::default())
    }

    /// [`AddressSpace::store`] on somebody's behalf.
    ///
    /// # Errors
    /// As [`AddressSpace::store`].
    pub fn store_with(&self, m: &mut Locked, addr: u64, size: u32, val: u64, attrs: Attrs) -> MemTxResult {
        self.store_held(m, addr, size, val, attrs)
    }

    // ---- from a vCPU, without the machine lock ----

    /// One access of a vCPU. Where nobody answers it reads as ones: see the error, if that matters.
    ///
    /// # Errors
    /// Nobody answers, or the device is busy.
    ///
    /// # Panics
    /// When the calling thread holds the machine lock and the region needs it.
    pub fn cpu_load(&self, addr: u64, size: u32, attrs: Attrs) -> MemTxResult<u64> {
        self.load_free(addr, size, attrs)
    }

    /// One access of a vCPU.
    ///
    /// # Errors
    /// Nobody answers, or the device is busy.
    pub fn cpu_store(&self, addr: u64, size: u32, val: u64, attrs: Attrs) -> MemTxResult {
        self.store_free(addr, size, val, attrs)
    }

    /// Loads of a vCPU from one address, one after the other, each of `size` bytes: into `data`, as long as `go_on` says so after each. How
    /// many there were: at least one, if there is room. The lock is taken once, where it is needed.
    pub fn cpu_load_run(&self, addr: u64, size: u32, data: &mut [u8], attrs: Attrs, go_on: &dyn Fn() -> bool) -> usize {
        let mut pieces = data.chunks_exact_mut(size.max(1) as usize);
        let put = |piece: &mut [u8], v: MemTxResult<u64>| {
            let v = v.unwrap_or_else(MemTxError::read_value);
            piece.iter_mut().zip(v.to_le_bytes()).for_each(|(to, from)| *to = from);
        };
        let mut done = 0;
        while done == 0 || go_on() {
            let Some(piece) = pieces.next() else { break };
            done += 1;
            let Some(mut m) = self.0.lock_if_known(addr) else {
                put(piece, self.load_unknown(addr, size, attrs));
                continue;
            };
            on_behalf(&mut m, attrs, |m| {
                put(piece, self.load_held(m, addr, size, attrs));
                while go_on()
                    && let Some(piece) = pieces.next()
                {
                    put(piece, self.load_held(m, addr, size, attrs));
                    done += 1;
                }
            });
        }
        done
    }

    /// Stores of a vCPU to one address, one after the other, each of `size` bytes: from `data`, as [`AddressSpace::cpu_load_run`] loads.
    pub fn cpu_store_run(&self, addr: u64, size: u32, data: &[u8], attrs: Attrs, go_on: &dyn Fn() -> bool) -> usize {
        let mut pieces = data.chunks_exact(size.max(1) as usize);
        let value = |piece: &[u8]| piece.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b));
        let mut done = 0;
        while done == 0 || go_on() {
            let Some(piece) = pieces.next() else { break };
            done += 1;
            // (Nobody listens on most ports.)
            let Some(mut m) = self.0.lock_if_known(addr) else {
                _ = self.store_unknown(addr, size, value(piece), attrs);
                continue;
            };
            on_behalf(&mut m, attrs, |m| {
                _ = self.store_held(m, addr, size, value(piece), attrs);
                while go_on()
                    && let Some(piece) = pieces.next()
                {
                    _ = self.store_held(m, addr, size, value(piece), attrs);
                    done += 1;
                }
            });
        }
        done
    }

    /// Copies from the space without holding the lock.
    ///
    /// # Errors
    /// As [`AddressSpace::read`].
    pub fn cpu_read(&self, addr: u64, buf: &mut [u8], attrs: Attrs) -> MemTxResult {
        self.copy_out(Holder::Free, addr, buf, attrs)
    }

    /// Copies into the space without holding the lock.
    ///
    /// # Errors
    /// As [`AddressSpace::write`].
    pub fn cpu_write(&self, addr: u64, buf: &[u8], attrs: Attrs) -> MemTxResult {
        self.copy_in(Holder::Free, addr, buf, attrs)
    }

    /// A load by whoever holds the lock.
    #[inline]
    fn load_held(&self, m: &mut Locked, addr: u64, size: u32, attrs: Attrs) -> MemTxResult<u64> {
        check_size(size)?;
        self.0.with_view(m, |m, view| {
            let r = view.find(addr).ok_or(MemTxError::Decode)?;
            match r.readable(addr) {
                Some((block, off)) => self.load_ram(Holder::Held(m), r, (block, off), addr, size, attrs),
                None => self.0.io_read(m, r, r.offset_of(addr), size, attrs),
            }
        })
    }

    #[inline]
    fn load_free(&self, addr: u64, size: u32, attrs: Attrs) -> MemTxResult<u64> {
        check_size(size)?;
        let Some(mut m) = self.0.lock_if_known(addr) else { return self.load_unknown(addr, size, attrs) };
        on_behalf(&mut m, attrs, |m| self.load_held(m, addr, size, attrs))
    }

    /// A load from memory, from a region that needs no lock, or from one that is not known yet to need it.
    fn load_unknown(&self, addr: u64, size: u32, attrs: Attrs) -> MemTxResult<u64> {
        let epoch = self.epoch();
        let view = self.view();
        let r = view.find(addr).ok_or(MemTxError::Decode)?;
        if let Some(at) = r.readable(addr) {
            return self.load_ram(Holder::Free, r, at, addr, size, attrs);
        }
        if r.is_free() {
            return self.0.io_read_free(r, r.offset_of(addr), size, attrs);
        }
        let mut m = self.0.lock_and_note(r, addr, epoch);
        drop(view);
        on_behalf(&mut m, attrs, |m| self.load_held(m, addr, size, attrs))
    }

    /// A load that begins in the memory of range `r`, and may end in the next range.
    #[inline]
    fn load_ram(
        &self,
        holder: Holder<'_>,
        r: &FlatRange,
        (block, off): (&Arc<RamBlock>, u64),
        addr: u64,
        size: u32,
        attrs: Attrs,
    ) -> MemTxResult<u64> {
        if r.last - addr < u64::from(size - 1) {
            return self.load_across(holder, addr, size, attrs);
        }
        block.load(off, size).ok_or(MemTxError::Decode)
    }

    /// A load that begins in memory and ends in the next range.
    #[cold]
    fn load_across(&self, holder: Holder<'_>, addr: u64, size: u32, attrs: Attrs) -> MemTxResult<u64> {
        let mut buf = [0; 8];
        self.copy_out(holder, addr, buf.get_mut(..size as usize).ok_or(MemTxError::Decode)?, attrs)?;
        Ok(u64::from_le_bytes(buf))
    }

    /// A store by whoever holds the lock.
    #[inline]
    fn store_held(&self, m: &mut Locked, addr: u64, size: u32, val: u64, attrs: Attrs) -> MemTxResult {
        check_size(size)?;
        self.0.with_view(m, |m, view| {
            let r = view.find(addr).ok_or(MemTxError::Decode)?;
            if r.crosses(addr, size) {
                return self.store_across(Holder::Held(m), addr, size, val, attrs);
            }
            match r.writable(addr) {
                Some((block, off)) => block.store(off, size, val).ok_or(MemTxError::Decode),
                None => self.0.io_write(m, r, r.offset_of(addr), size, val, attrs),
            }
        })
    }

    #[inline]
    fn store_free(&self, addr: u64, size: u32, val: u64, attrs: Attrs) -> MemTxResult {
        check_size(size)?;
        let Some(mut m) = self.0.lock_if_known(addr) else { return self.store_unknown(addr, size, val, attrs) };
        on_behalf(&mut m, attrs, |m| self.store_held(m, addr, size, val, attrs))
    }

    /// A store to memory, to a region that needs no lock, or to one that is not known yet to need it.
    fn store_unknown(&self, addr: u64, size: u32, val: u64, attrs: Attrs) -> MemTxResult {
        let epoch = self.epoch();
        let view = self.view();
        let r = view.find(addr).ok_or(MemTxError::Decode)?;
        if r.crosses(addr, size) {
            return self.store_across(Holder::Free, addr, size, val, attrs);
        }
        if let Some((block, off)) = r.writable(addr) {
            return block.store(off, size, val).ok_or(MemTxError::Decode);
        }
        if r.is_free() {
            return self.0.io_write_free(r, r.offset_of(addr), size, val, attrs);
        }
        let mut m = self.0.lock_and_note(r, addr, epoch);
        drop(view);
        on_behalf(&mut m, attrs, |m| self.store_held(m, addr, size, val, attrs))
    }

    /// A store that begins in memory and ends in the next range.
    #[cold]
    fn store_across(&self, holder: Holder<'_>, addr: u64, size: u32, val: u64, attrs: Attrs) -> MemTxResult {
        let bytes = val.to_le_bytes();
        self.copy_in(holder, addr, bytes.get(..size as usize).ok_or(MemTxError::Decode)?, attrs)
    }

    fn copy_out(&self, mut holder: Holder<'_>, mut addr: u64, mut buf: &mut [u8], attrs: Attrs) -> MemTxResult {
        let mut result = Ok(());
        while !buf.is_empty() {
            let view = self.view();
            let found = view.find(addr);
            let room = room(&view, found, addr).min(buf.len() as u64);
            let direct = found.and_then(|r| r.readable(addr));
            let n = if direct.is_some() || found.is_none() { room } else { width(found, addr, room).into() };
            let Some((piece, rest)) = buf.split_at_mut_checked(n as usize) else { return Err(MemTxError::Decode) };
            if let Some((block, off)) = direct {
                if !block.read(off, piece) {
                    return Err(MemTxError::Decode);
                }
            } else if found.is_none() {
                piece.fill(0xff);
                result = Err(MemTxError::Decode);
            } else {
                drop(view);
                let v = match &mut holder {
                    Holder::Held(m) => self.load_held(m, addr, n as u32, attrs),
                    Holder::Free => self.load_free(addr, n as u32, attrs),
                };
                let v = v.unwrap_or_else(|e| {
                    result = Err(e);
                    e.read_value()
                });
                piece.iter_mut().zip(v.to_le_bytes()).for_each(|(p, b)| *p = b);
            }
            buf = rest;
            addr = addr.wrapping_add(n);
        }
        result
    }

    fn copy_in(&self, mut holder: Holder<'_>, mut addr: u64, mut buf: &[u8], attrs: Attrs) -> MemTxResult {
        let mut result = Ok(());
        while !buf.is_empty() {
            let view = self.view();
            let found = view.find(addr);
            let room = room(&view, found, addr).min(buf.len() as u64);
            let direct = found.and_then(|r| r.writable(addr));
            let n = if direct.is_some() || found.is_none() { room } else { width(found, addr, room).into() };
            let Some((piece, rest)) = buf.split_at_checked(n as usize) else { return Err(MemTxError::Decode) };
            if let Some((block, off)) = direct {
                if !block.write(off, piece) {
                    return Err(MemTxError::Decode);
                }
            } else if found.is_none() {
                result = Err(MemTxError::Decode);
            } else {
                drop(view);
                let mut bytes = [0; 8];
                bytes.iter_mut().zip(piece).for_each(|(b, p)| *b = *p);
                let v = u64::from_le_bytes(bytes);
                let done = match &mut holder {
                    Holder::Held(m) => self.store_held(m, addr, n as u32, v, attrs),
                    Holder::Free => self.store_free(addr, n as u32, v, attrs),
                };
                if let Err(e) = done {
                    result = Err(e);
                }
            }
            buf = rest;
            addr = addr.wrapping_add(n);
        }
        result
    }
}

/// Whether the caller holds the machine lock.
enum Holder<'a> {
    Held(&'a mut Locked),
    Free,
}

/// Runs `f` with the accessing vCPU noted in `m`.
fn on_behalf<R>(m: &mut Locked, attrs: Attrs, f: impl FnOnce(&mut Locked) -> R) -> R {
    m.cpu = attrs.cpu;
    let r = f(m);
    m.cpu = None;
    r
}

/// Bytes from `addr` that one range, or one hole, holds.
fn room(view: &FlatView, found: Option<&FlatRange>, addr: u64) -> u64 {
    match found {
        Some(r) => (r.last - addr).saturating_add(1),
        None => view.next_start(addr).map_or(u64::MAX, |s| s - addr),
    }
}

/// Width of the next access of a longer copy: what the region accepts, aligned unless it implements unaligned accesses.
fn width(r: Option<&FlatRange>, addr: u64, room: u64) -> u32 {
    let (valid, imp) = r.and_then(|r| r.region.handlers()).map_or_else(Default::default, |io| (io.valid, io.imp));
    let mut max = if valid.max == 0 { 4 } else { u64::from(valid.max) };
    let align = addr & addr.wrapping_neg();
    if !imp.unaligned && align != 0 {
        max = max.min(align);
    }
    let n = room.min(max).max(1);
    1 << n.ilog2()
}

impl FlatRange {
    fn is_free(&self) -> bool {
        self.region.handlers().is_some_and(|io| io.free)
    }

    /// Whether an access that begins in this range's memory ends outside of it.
    fn crosses(&self, addr: u64, size: u32) -> bool {
        self.last - addr < u64::from(size - 1) && self.readable(addr).is_some()
    }
}

/// Addresses at which a vCPU needs the machine lock, so that it need not look for the region before it has it, and again after.
/// Only a hint: with the lock every access is right.
struct KnownLocking([AtomicU64; SLOTS]);

impl KnownLocking {
    /// (Where this is the address that is asked for, it is taken for known.)
    const NONE: u64 = u64::MAX;

    #[inline]
    fn slot(&self, addr: u64) -> &AtomicU64 {
        #[expect(clippy::indexing_slicing, reason = "a slot is below the array's length")]
        &self.0[slot(addr)]
    }

    #[inline]
    fn has(&self, addr: u64) -> bool {
        self.slot(addr).load(Ordering::Relaxed) == addr
    }

    fn note(&self, addr: u64) {
        self.slot(addr).store(addr, Ordering::Relaxed);
    }

    fn clear(&self) {
        self.0.iter().for_each(|s| s.store(Self::NONE, Ordering::Relaxed));
    }
}

impl Default for KnownLocking {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(Self::NONE)))
    }
}

/// Marks a device busy for one access.
struct Busy<'a>(&'a Io);

impl<'a> Busy<'a> {
    /// The flag changes under the machine lock only, so a plain load and store will do.
    fn enter(io: &'a Io) -> MemTxResult<Self> {
        if io.busy.load(Ordering::Relaxed) {
            return Err(MemTxError::Busy);
        }
        io.busy.store(true, Ordering::Relaxed);
        Ok(Self(io))
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Relaxed);
    }
}

impl SpaceInner {
    /// Runs `f` with the current view, which stays alive through whatever `f` maps or unmaps.
    #[inline]
    fn with_view<R>(&self, m: &mut Locked, f: impl FnOnce(&mut Locked, &FlatView) -> R) -> R {
        let epoch = self.epoch.load(Ordering::Relaxed);
        let view = self.held.rw(m).take().unwrap_or_else(|| self.view.load_full());
        let r = f(m, &view);
        let held = self.held.rw(m);
        if held.is_none() && self.epoch.load(Ordering::Relaxed) == epoch {
            *held = Some(view);
        }
        r
    }

    /// The lock, if an access of a vCPU to `addr` is known to need it.
    #[inline]
    fn lock_if_known(&self, addr: u64) -> Option<CoreGuard<'_>> {
        self.locking.has(addr).then(|| self.lock.lock())
    }

    /// The lock for an access to `r`, a range of the view of `epoch`: the next one to `addr` takes it at once.
    fn lock_and_note(&self, r: &FlatRange, addr: u64, epoch: u64) -> CoreGuard<'_> {
        let m = self.lock.lock();
        if matches!(r.kind, RangeKind::Io) && self.epoch.load(Ordering::Relaxed) == epoch {
            self.locking.note(addr);
        }
        m
    }

    fn io_read(&self, m: &mut Locked, r: &FlatRange, off: u64, size: u32, attrs: Attrs) -> MemTxResult<u64> {
        let Some(run) = &r.run else { return Err(MemTxError::Decode) };
        let Some(io) = r.region.handlers() else { return Ok(run.read(m, &access(off, size, attrs)) & mask(size)) };
        self.read_by(r, io, !io.free, off, size, |off, size| run.read(m, &access(off, size, attrs)))
    }

    fn io_write(&self, m: &mut Locked, r: &FlatRange, off: u64, size: u32, val: u64, attrs: Attrs) -> MemTxResult {
        let Some(run) = &r.run else { return Err(MemTxError::Decode) };
        let Some(io) = r.region.handlers() else {
            run.write(m, &access(off, size, attrs), val);
            return Ok(());
        };
        self.write_by(r, io, !io.free, off, size, val, |off, size, v| run.write(m, &access(off, size, attrs), v))
    }

    fn io_read_free(&self, r: &FlatRange, off: u64, size: u32, attrs: Attrs) -> MemTxResult<u64> {
        let (Some(run), Some(io)) = (&r.run, r.region.handlers()) else { return Err(MemTxError::Decode) };
        self.read_by(r, io, false, off, size, |off, size| run.read_free(&access(off, size, attrs)))
    }

    fn io_write_free(&self, r: &FlatRange, off: u64, size: u32, val: u64, attrs: Attrs) -> MemTxResult {
        let (Some(run), Some(io)) = (&r.run, r.region.handlers()) else { return Err(MemTxError::Decode) };
        self.write_by(r, io, false, off, size, val, |off, size, v| run.write_free(&access(off, size, attrs), v))
    }

    #[inline]
    fn read_by(
        &self,
        r: &FlatRange,
        io: &Io,
        exclusive: bool,
        off: u64,
        size: u32,
        mut read: impl FnMut(u64, u32) -> u64,
    ) -> MemTxResult<u64> {
        let direct = io.is_direct(off, size);
        if !direct {
            check(io, off, size)?;
        }
        let _busy = if exclusive { Some(Busy::enter(io)?) } else { None };
        if direct {
            return self.guarded(r, || read(off, size)).map(|v| v & mask(size));
        }
        self.guarded(r, || split_read(io, off, size, read))
    }

    #[expect(clippy::too_many_arguments, reason = "an access and where it goes")]
    #[inline]
    fn write_by(
        &self,
        r: &FlatRange,
        io: &Io,
        exclusive: bool,
        off: u64,
        size: u32,
        val: u64,
        mut write: impl FnMut(u64, u32, u64),
    ) -> MemTxResult {
        let direct = io.is_direct(off, size);
        if !direct {
            check(io, off, size)?;
        }
        let _busy = if exclusive { Some(Busy::enter(io)?) } else { None };
        if direct {
            return self.guarded(r, || write(off, size, val & mask(size)));
        }
        self.guarded(r, || split_write(io, off, size, val, write))
    }

    /// A panic in a handler is our bug: the machine stops with `internal-error`, the access fails.
    #[inline]
    fn guarded<R>(&self, r: &FlatRange, f: impl FnOnce() -> R) -> MemTxResult<R> {
        catch_unwind(AssertUnwindSafe(f)).map_err(|panic| self.handler_failed(r, &*panic))
    }

    #[cold]
    fn handler_failed(&self, r: &FlatRange, panic: &(dyn Any + Send)) -> MemTxError {
        let text = panic_text(panic);
        let what = format!("handler of region '{}' ({}) failed: {text}", r.region.name(), r.region.info().owner);
        tracing::error!("{what}");
        self.requests.post(Request::InternalError(what));
        MemTxError::Device
    }
}

fn access(off: u64, size: u32, attrs: Attrs) -> Access {
    Access { off, size, cpu: attrs.cpu, requester: attrs.requester }
}

fn check(io: &Io, off: u64, size: u32) -> MemTxResult {
    if io.valid.accepts(off, size) { Ok(()) } else { Err(MemTxError::Refused) }
}

/// Where in the value the piece at byte `i` of an access belongs. Negative: the piece is wider than the access.
fn shift(io: &Io, size: u32, step: u32, i: u32) -> i32 {
    match io.endian {
        Endian::Little => i as i32 * 8,
        Endian::Big => (size as i32 - step as i32 - i as i32) * 8,
    }
}

fn split_read(io: &Io, off: u64, size: u32, mut read: impl FnMut(u64, u32) -> u64) -> u64 {
    let step = io.imp.step(size);
    if step == size {
        return swap(io, read(off, size) & mask(size), size); // the common case: one call
    }
    let mut val = 0;
    for i in (0..size).step_by(step as usize) {
        let piece = read(off.wrapping_add(i.into()), step) & mask(step);
        val |= match shift(io, size, step, i) {
            s @ 0.. => piece.checked_shl(s as u32).unwrap_or(0),
            s => piece.checked_shr(s.unsigned_abs()).unwrap_or(0),
        };
    }
    swap(io, val & mask(size), size)
}

fn split_write(io: &Io, off: u64, size: u32, val: u64, mut write: impl FnMut(u64, u32, u64)) {
    let step = io.imp.step(size);
    let val = swap(io, val & mask(size), size);
    if step == size {
        return write(off, size, val);
    }
    for i in (0..size).step_by(step as usize) {
        let piece = match shift(io, size, step, i) {
            s @ 0.. => val.checked_shr(s as u32).unwrap_or(0),
            s => val.checked_shl(s.unsigned_abs()).unwrap_or(0),
        };
        write(off.wrapping_add(i.into()), step, piece & mask(step));
    }
}

/// Between the bus's byte order (little) and the region's.
fn swap(io: &Io, val: u64, size: u32) -> u64 {
    match io.endian {
        Endian::Little => val,
        Endian::Big => val.swap_bytes() >> (64 - size * 8),
    }
}
