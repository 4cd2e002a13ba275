//! Memory for generated code: one anonymous file, mapped twice, so that no address is ever writable and executable.
#![expect(unsafe_code, reason = "the code cache")]

use parking_lot::Mutex;
use rustix::{
    fs::MemfdFlags,
    mm::{MapFlags, ProtFlags},
};
use std::{
    collections::BTreeMap,
    ffi::c_void,
    io,
    ptr::{NonNull, null_mut},
    sync::Arc,
};

/// What addresses and lengths are multiples of.
const GRAIN: usize = 64;

/// The cache. Generated code in it is reached through [`Code`].
pub(crate) struct CodeCache {
    write: NonNull<c_void>,
    exec: NonNull<c_void>,
    len: usize,
    free: Mutex<Free>,
}
// SAFETY: the mappings live as long as the cache; the bytes of a piece are written before its `Code` exists and never after.
unsafe impl Send for CodeCache {}
// SAFETY: as above.
unsafe impl Sync for CodeCache {}

/// Free ranges: length by start.
struct Free {
    ranges: BTreeMap<usize, usize>,
    used: usize,
}
impl Free {
    fn take(&mut self, len: usize) -> Option<usize> {
        let (&at, &n) = self.ranges.iter().find(|(_, n)| **n >= len)?;
        self.ranges.remove(&at);
        if n > len {
            self.ranges.insert(at + len, n - len);
        }
        self.used += len;
        Some(at)
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
    /// A cache of `len` bytes, rounded up to whole pages. Memory is used as it fills.
    ///
    /// # Errors
    /// Those of the host: no memory, no permission to make memory executable.
    pub fn new(len: usize) -> io::Result<Arc<CodeCache>> {
        let len = len.max(1).next_multiple_of(4096);
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
        let len = code.len().max(1).next_multiple_of(GRAIN);
        let at = self.free.lock().take(len)?;
        // SAFETY: `at..at + len` lies in the mapping and belongs to nobody else.
        unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), self.write.as_ptr().cast::<u8>().add(at), code.len()) }
        Some(Code { cache: self.clone(), at, len })
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
    at: usize,
    len: usize,
}
impl Code {
    /// Where it is executed.
    pub fn start(&self) -> *const u8 {
        // SAFETY: inside the mapping.
        unsafe { self.cache.exec.as_ptr().cast::<u8>().add(self.at) }
    }
    /// Bytes it takes.
    pub fn len(&self) -> usize {
        self.len
    }
}
impl Drop for Code {
    fn drop(&mut self) {
        self.cache.free.lock().give(self.at, self.len)
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
        assert_eq!((seen, b.len()), (&[0xc3; 65][..], 128));
    }
}
