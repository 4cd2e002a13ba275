//! Decoded pages of one vCPU, and the map of code that all vCPUs of a machine share.

use super::{
    env::{Reach, request},
    ops::W,
    target::Target,
};
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;
use std::sync::{
    Weak,
    atomic::{AtomicU64, Ordering::*},
};

/// Which host pages hold bytes that some vCPU has decoded, in granules of 64 bytes.
pub(crate) struct CodeMap {
    /// One bit per page (hashed): a page whose bit is clear holds no code.
    filter: Box<[AtomicU64]>,
    pages: RwLock<FxHashMap<usize, u64>>,
}
const FILTER: usize = 1 << 14;
impl CodeMap {
    fn new() -> CodeMap {
        CodeMap { filter: (0..FILTER).map(|_| AtomicU64::new(0)).collect(), pages: RwLock::default() }
    }
    fn bit(host: usize) -> (usize, u64) {
        let page = host >> 12;
        (page / 64 % FILTER, 1 << (page % 64))
    }
    /// The page holds code.
    #[inline]
    pub fn holds(&self, host: usize) -> bool {
        let (i, b) = Self::bit(host);
        self.filter[i].load(SeqCst) & b != 0 && self.pages.read().contains_key(&(host & !0xfff))
    }
    fn granules(off: usize, len: usize) -> u64 {
        let (first, last) = (off / 64, (off + len.max(1) - 1).min(4095) / 64);
        (u64::MAX << first) & (u64::MAX >> (63 - last))
    }
    /// Marks bytes as code; true if the page held none before.
    pub fn mark(&self, host: usize, off: usize, len: usize) -> bool {
        let mask = Self::granules(off, len);
        if self.pages.read().get(&host).is_some_and(|g| g & mask == mask) {
            return false;
        }
        let mut pages = self.pages.write();
        let g = pages.entry(host).or_insert(0);
        let new = *g == 0;
        *g |= mask;
        let (i, b) = Self::bit(host);
        self.filter[i].fetch_or(b, SeqCst);
        new
    }
    /// Unmarks the page if the bytes touch code.
    fn take(&self, host: usize, off: usize, len: usize) -> bool {
        let mask = Self::granules(off, len);
        if self.pages.read().get(&host).is_none_or(|g| g & mask == 0) {
            return false;
        }
        // The filter's bit stays: it may stand for other pages.
        self.pages.write().remove(&host).is_some()
    }
}

/// The vCPUs of one machine: what they must tell each other.
pub struct Group {
    pub(crate) code: CodeMap,
    pub(crate) vcpus: Mutex<Vec<Weak<dyn Reach>>>,
}
impl Group {
    /// No vCPUs yet.
    pub fn new() -> std::sync::Arc<Group> {
        std::sync::Arc::new(Group { code: CodeMap::new(), vcpus: Mutex::default() })
    }
    /// Bytes of guest memory, given by their host address inside one page, were written by somebody that is not a vCPU
    /// (DMA): code decoded from them is dropped.
    pub fn written(&self, host: usize, len: usize) {
        let page = host & !0xfff;
        if self.code.holds(page) {
            self.overwritten(page, host & 0xfff, len);
        }
    }
    /// Bytes of a code page were overwritten; true if they were code.
    pub(crate) fn overwritten(&self, host: usize, off: usize, len: usize) -> bool {
        let hit = self.code.take(host, off, len);
        if hit {
            self.each(|v| {
                v.shared().dropped.lock().push(host);
                v.shared().ask(request::DROP);
            });
        }
        hit
    }
    /// Bytes are about to be decoded: stores to their page go slow from now on.
    pub(crate) fn protect(&self, host: usize, off: usize, len: usize) {
        if self.code.mark(host, off, len) {
            std::sync::atomic::fence(SeqCst);
            self.each(|v| v.protect(host))
        }
    }
    fn each(&self, f: impl Fn(&dyn Reach)) {
        for v in self.vcpus.lock().iter() {
            if let Some(v) = v.upgrade() {
                f(&*v)
            }
        }
    }
}

/// The decoded pages of a vCPU.
pub(crate) struct Pages<T: Target> {
    pub forms: Vec<T::Form>,
    _w: W,
}
