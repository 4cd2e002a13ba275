//! Memory for generated code: one anonymous file, mapped twice, so that no address is ever writable and executable.
#![expect(unsafe_code, reason = "the code cache")]

use parking_lot::Mutex;
use rustix::{
    fs::MemfdFlags,
    mm::{Advice, MapFlags, ProtFlags},
};
use std::{
    collections::BTreeMap,
    ffi::c_void,
    io,
    ptr::{NonNull, null_mut},
    sync::Arc,
};

/// What addresses and lengths are multiples of.
const GRAIN: usize = 16;

/// Most bytes of a cache: jumps in it reach 2 GiB.
pub(crate) const LARGEST: usize = (2 << 30) - (1 << 20);

/// The cache. Generated code in it is reached through [`Code`].
pub(crate) struct CodeCache {
    write: NonNull<c_void>,
    exec: NonNull<c_void>,
    len: usize,
    free: Mutex<Free>,
}
// SAFETY: the mappings live as long as the cache; the bytes of a piece are written by whoever has its `Code`,
// before others get it or (quick code) on the only thread that runs it.
unsafe impl Send for CodeCache {}
// SAFETY: as above.
unsafe impl Sync for CodeCache {}

/// Free ranges: length by start.
struct Free {
    ranges: BTreeMap<usize, usize>,
    used: usize,
}
impl Free {
    fn take(&mut self, len: usize, cold: bool) -> Option<usize> {
        let fits = |(_, n): &(&usize, &usize)| **n >= len;
        let (&at, &n) = if cold { self.ranges.iter().rev().find(fits) } else { self.ranges.iter().find(fits) }?;
        self.ranges.remove(&at);
        self.used += len;
        let (given, rest) = if cold { (at + n - len, at) } else { (at, at + len) };
        if n > len {
            self.ranges.insert(rest, n - len);
        }
        Some(given)
    }
    fn give(&mut self, mut at: usize, mut len: usize) {
        self.used -= len;
        if let Some((&a, &n)) = self.ranges.range(..at).next_back()
            && a + n == at
        {
            self.ranges.remove(&a);
            (at, len) = (a, len + n)
        }
        if let Some(n) = self.ranges.remove(&(at + len)) {
            len += n
        }
        self.ranges.insert(at, len);
    }
}

impl CodeCache {
    /// A cache of `len` bytes ([`LARGEST`] at most), rounded up to whole pages. Memory is used as it fills.
    ///
    /// # Errors
    /// Those of the host: no memory, no permission to make memory executable.
    pub fn new(len: usize) -> io::Result<Arc<CodeCache>> {
        let len = len.clamp(1, LARGEST).next_multiple_of(4096);
        let file = rustix::fs::memfd_create("qomet-code", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&file, len as u64)?;
        let map = |prot| {
            // SAFETY: a new mapping at an address of the kernel's choice.
            unsafe { rustix::mm::mmap(null_mut(), len, prot, MapFlags::SHARED, &file, 0) }
        };
        let write = map(ProtFlags::READ | ProtFlags::WRITE)?;
        let exec = map(ProtFlags::READ | ProtFlags::EXEC).inspect_err(|_| {
            // SAFETY: mapped just now and not used yet.
            let _ = unsafe { rustix::mm::munmap(write, len) };
        })?;
        let some = |p| NonNull::new(p).ok_or(io::ErrorKind::OutOfMemory);
        let free = Mutex::new(Free { ranges: BTreeMap::from([(0, len)]), used: 0 });
        Ok(Arc::new(CodeCache { write: some(write)?, exec: some(exec)?, len, free }))
    }
    /// Nothing will be written soon: memory that is mapped twice need not count twice.
    pub fn rest(&self) {
        // SAFETY: a shared mapping of a file keeps its contents; it is only mapped anew where it is written next.
        let _ = unsafe { rustix::mm::madvise(self.write.as_ptr(), self.len, Advice::LinuxDontNeed) };
    }
    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.free.lock().used
    }
    /// Bytes it has.
    pub fn size(&self) -> usize {
        self.len
    }
    /// Places code; nothing if there is no room.
    pub fn place(self: &Arc<Self>, code: &[u8]) -> Option<Code> {
        let place = self.reserve(code.len(), false)?;
        place.write(0, code);
        Some(place)
    }
    /// Room for code, near that of its kind: what is often run, or what is not.
    pub fn reserve(self: &Arc<Self>, len: usize, cold: bool) -> Option<Code> {
        let len = len.max(1).next_multiple_of(GRAIN);
        let at = self.free.lock().take(len, cold)?;
        let grains = |n: usize| u32::try_from(n / GRAIN).ok();
        Some(Code { cache: self.clone(), at: grains(at)?, grains: grains(len)? })
    }
}
impl Drop for CodeCache {
    fn drop(&mut self) {
        for p in [self.write, self.exec] {
            // SAFETY: mapped by `new` with this length; every piece of code held the cache.
            let _ = unsafe { rustix::mm::munmap(p.as_ptr(), self.len) };
        }
    }
}

/// A piece of generated code; its memory is free again when it is dropped.
pub(crate) struct Code {
    cache: Arc<CodeCache>,
    /// Place and length in grains. (There are many pieces.)
    at: u32,
    grains: u32,
}
impl Code {
    fn offset(&self) -> usize {
        self.at as usize * GRAIN
    }
    /// Where it is executed.
    pub fn start(&self) -> *const u8 {
        // SAFETY: inside the mapping.
        unsafe { self.cache.exec.as_ptr().cast::<u8>().add(self.offset()) }
    }
    /// Writes bytes of it. Whoever may be running it must be the caller's own thread.
    ///
    /// # Panics
    /// They are not inside.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.len(), "inside the piece");
        // SAFETY: inside the mapping, and the range belongs to this piece.
        unsafe {
            let to = self.cache.write.as_ptr().cast::<u8>().add(self.offset() + at);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len())
        }
    }
    /// The first `n` bytes of it, or all; by whoever may write them.
    pub fn read(&self, n: usize) -> Vec<u8> {
        let mut bytes = vec![0; n.min(self.len())];
        // SAFETY: inside the mapping, and the range belongs to this piece, which nobody writes meanwhile.
        unsafe {
            let from = self.cache.write.as_ptr().cast::<u8>().add(self.offset());
            std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len())
        }
        bytes
    }
    /// Makes the jump whose distance ends at `end` go to an address in the cache.
    pub fn link(&self, end: usize, to: *const u8) {
        let d = to.addr().wrapping_sub(self.start().addr() + end) as u32;
        self.write(end - 4, &d.to_le_bytes())
    }
    /// The address of a byte of it.
    ///
    /// # Panics
    /// It is not inside.
    pub fn at(&self, offset: usize) -> *const u8 {
        assert!(offset < self.len(), "inside the piece");
        self.start().wrapping_add(offset)
    }
    /// Bytes it takes.
    pub fn len(&self) -> usize {
        self.grains as usize * GRAIN
    }
}
impl Drop for Code {
    fn drop(&mut self) {
        self.cache.free.lock().give(self.offset(), self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_reused_and_merged() {
        let c = CodeCache::new(4096).expect("memory");
        let a: Vec<_> = (0..64).map(|i| c.place(&[i; 64]).expect("room")).collect();
        assert!(c.place(&[0]).is_none(), "full");
        let first = a[0].start();
        drop(a);
        assert_eq!(c.used(), 0);
        let b = c.place(&[1; 4096]).expect("all of it again");
        assert_eq!((b.start(), b.len()), (first, 4096));
    }
    #[test]
    fn what_was_placed_is_what_is_there() {
        let c = CodeCache::new(4096).expect("memory");
        let b = c.place(&[0xc3; 65]).expect("room");
        // SAFETY: 65 bytes of a live piece.
        let seen = unsafe { std::slice::from_raw_parts(b.start(), 65) };
        assert_eq!((seen, b.len()), (&[0xc3; 65][..], 80));
    }
}
