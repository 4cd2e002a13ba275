//! All the engine knows of the machine: guest-physical memory and I/O ports.

use super::ops::W;
use std::{
    alloc::Layout,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// One 4 KiB page of guest-physical space that is backed by host memory.
#[derive(Clone, Copy, Debug)]
pub struct RamPage {
    /// Its host address, page-aligned in the backing. Also the page's identity: code decoded from it serves every
    /// physical address where the backing appears.
    pub host: *mut u8,
    /// Stores go to the backing (RAM); otherwise they go to [`Bus::store`] (ROM).
    pub writable: bool,
    /// Stores must be announced by [`Bus::mark_dirty`] before the first one after a flush.
    pub log: bool,
}

/// The machine, seen from one vCPU. `view` selects an address space (0: normal, 1: SMM).
///
/// # Safety
/// A page returned by `ram` must stay mapped, readable (and writable if it says so) for 4096 bytes, until every vCPU
/// has acted on a later change of the view: `Kick::flush` followed by a pass through its run loop.
#[expect(unsafe_code, reason = "a contract about host pointers")]
pub unsafe trait Bus: Send + Sync {
    /// The backing of the page at `pa` (a multiple of 4096).
    fn ram(&self, view: u8, pa: u64) -> Option<RamPage>;
    /// Reads anything else: MMIO. `data` has 1 to 16 bytes inside one page.
    fn load(&self, view: u8, pa: u64, data: &mut [u8]);
    /// Writes anything else: MMIO, ROM.
    fn store(&self, view: u8, pa: u64, data: &[u8]);
    /// Reads an I/O port.
    fn io_load(&self, port: u16, w: W) -> u32;
    /// Writes an I/O port.
    fn io_store(&self, port: u16, w: W, v: u32);
    /// Reads an I/O port into `data`, `w` at a time, as long as `go_on` says so after each; how many times, at least once.
    fn io_load_run(&self, port: u16, w: W, data: &mut [u8], go_on: &dyn Fn() -> bool) -> usize {
        let mut done = 0;
        for piece in data.chunks_exact_mut(w.bytes() as usize) {
            piece.copy_from_slice(&self.io_load(port, w).to_le_bytes()[..w.bytes() as usize]);
            done += 1;
            if !go_on() {
                break;
            }
        }
        done
    }
    /// Writes `data` to an I/O port, as [`Bus::io_load_run`] reads.
    fn io_store_run(&self, port: u16, w: W, data: &[u8], go_on: &dyn Fn() -> bool) -> usize {
        let mut done = 0;
        for piece in data.chunks_exact(w.bytes() as usize) {
            self.io_store(port, w, piece.iter().rev().fold(0, |v, b| v << 8 | u32::from(*b)));
            done += 1;
            if !go_on() {
                break;
            }
        }
        done
    }
    /// Memory is about to be written in the page at `pa`.
    fn mark_dirty(&self, view: u8, pa: u64);
    /// The vCPU has forgotten all host addresses it had got so far.
    fn flushed(&self) {}
}

/// A machine that is nothing but RAM from address 0 on, for tests and benchmarks: other addresses and all ports read as
/// ones and ignore writes.
pub struct FlatBus {
    base: NonNull<u8>,
    len: usize,
    log: bool,
    marks: AtomicU64,
}
#[expect(unsafe_code, reason = "guest RAM: raw memory shared between vCPUs")]
mod flat {
    use super::*;
    // SAFETY: the memory is only reached through raw atomic or volatile accesses.
    unsafe impl Send for FlatBus {}
    // SAFETY: as above.
    unsafe impl Sync for FlatBus {}
    impl FlatBus {
        fn layout(len: usize) -> Layout {
            Layout::from_size_align(len, 4096).expect("a length that was allocated")
        }
        /// `len` bytes of zeroed RAM, rounded up to whole pages.
        pub fn new(len: usize) -> FlatBus {
            let len = len.max(1).next_multiple_of(4096);
            // SAFETY: the size is not zero.
            let base = unsafe { std::alloc::alloc_zeroed(Self::layout(len)) };
            let base = NonNull::new(base).expect("memory for the guest");
            FlatBus { base, len, log: false, marks: AtomicU64::new(0) }
        }
        /// The same, told of stores ([`Bus::mark_dirty`]).
        pub fn logged(len: usize) -> FlatBus {
            let mut bus = FlatBus::new(len);
            bus.log = true;
            bus
        }
        /// How often it was told.
        pub fn marks(&self) -> u64 {
            self.marks.load(Relaxed)
        }
        fn at(&self, pa: u64, n: usize) -> Option<*mut u8> {
            let end = pa.checked_add(n as u64)?;
            // SAFETY: `pa..end` lies inside the allocation.
            (end <= self.len as u64).then(|| unsafe { self.base.as_ptr().add(pa as usize) })
        }
        /// Copies out of RAM. False (and nothing done) if the range leaves it.
        pub fn peek(&self, pa: u64, data: &mut [u8]) -> bool {
            let Some(p) = self.at(pa, data.len()) else { return false };
            for (i, b) in data.iter_mut().enumerate() {
                // SAFETY: `at` checked the range; volatile, because vCPUs may write meanwhile.
                *b = unsafe { p.add(i).read_volatile() };
            }
            true
        }
        /// Copies into RAM. The engine is not told: vCPUs must not have decoded code there.
        pub fn poke(&self, pa: u64, data: &[u8]) -> bool {
            let Some(p) = self.at(pa, data.len()) else { return false };
            for (i, b) in data.iter().enumerate() {
                // SAFETY: `at` checked the range.
                unsafe { p.add(i).write_volatile(*b) };
            }
            true
        }
    }
    impl Drop for FlatBus {
        fn drop(&mut self) {
            // SAFETY: allocated by `new` with this layout.
            unsafe { std::alloc::dealloc(self.base.as_ptr(), Self::layout(self.len)) }
        }
    }
    // SAFETY: the pages live as long as the bus, which vCPUs hold.
    unsafe impl Bus for FlatBus {
        fn ram(&self, _view: u8, pa: u64) -> Option<RamPage> {
            Some(RamPage { host: self.at(pa, 4096)?, writable: true, log: self.log })
        }
        fn load(&self, _view: u8, _pa: u64, data: &mut [u8]) {
            data.fill(0xff);
        }
        fn store(&self, _view: u8, _pa: u64, _data: &[u8]) {}
        fn io_load(&self, _port: u16, w: W) -> u32 {
            w.mask() as u32
        }
        fn io_store(&self, _port: u16, _w: W, _v: u32) {}
        fn mark_dirty(&self, _view: u8, _pa: u64) {
            self.marks.fetch_add(1, Relaxed);
        }
    }
}
