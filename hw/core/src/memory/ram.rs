//! RAM blocks: guest memory of the host's own or mapped from a file, with a safe interface.
//!
//! Why `unsafe`: the memory is shared with vCPU threads that reach it by host address, so no reference to it may ever
//! exist. Every access here goes through relaxed atomics of the mapped bytes, inside bounds checked against the length.
//! Invariant: `base..base + len` is one live, writable (unless the file is read-only) mapping from `new` to `drop`,
//! and its base is page-aligned.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

use super::dirty::{Bitmap, CLIENTS, DirtyClient, PAGE};
use super::ranges::RamRange;

/// Told about stores to pages that hold decoded code.
pub trait CodeWatcher: Send + Sync {
    /// `len` bytes at `offset` of the block were stored by a device or by a vCPU's slow path. The watcher drops what was decoded from
    /// them and marks the pages dirty for [`DirtyClient::Code`] once nothing is left of them.
    fn code_written(&self, block: &RamBlock, offset: u64, len: u64);

    /// Pages of the range were made clean for a client: soft TLB entries that let stores to them pass without
    /// [`RamBlock::mark_dirty`] must go before the next store.
    fn made_clean(&self, block: &RamBlock, offset: u64, len: u64);
}

/// All RAM blocks of a machine.
#[derive(Default)]
pub struct RamList {
    blocks: Mutex<(u32, Vec<Weak<RamBlock>>)>,
    watcher: OnceLock<Arc<dyn CodeWatcher>>,
}

impl RamList {
    /// Live blocks, in the order they were made.
    pub fn blocks(&self) -> Vec<Arc<RamBlock>> {
        self.blocks.lock().1.iter().filter_map(Weak::upgrade).collect()
    }

    /// Sets who is told about stores to code pages. The first stays.
    pub fn set_code_watcher(&self, watcher: Arc<dyn CodeWatcher>) {
        _ = self.watcher.set(watcher);
    }
}

/// What is behind the mapping of a block.
#[derive(Debug)]
enum Backing {
    /// Stores reach the file, which holds the block from this offset on.
    Shared(OwnedFd, u64),
    /// Pages are the block's own: at first zeros, or what a file holds.
    Private,
    /// Nothing is ever stored.
    ReadOnly,
}

/// A piece of guest memory.
pub struct RamBlock {
    name: String,
    id: u32,
    base: NonNull<u8>,
    len: u64,
    backing: Backing,
    dirty: [Bitmap; 3],
    list: Arc<RamList>,
}

// SAFETY: the mapping belongs to the block, is unmapped only in `drop`, and is accessed by atomics only.
unsafe impl Send for RamBlock {}
// SAFETY: as above; all interior access is atomic.
unsafe impl Sync for RamBlock {}

impl RamBlock {
    /// Zeroed memory of `len` bytes, rounded up to whole pages. (No file behind it: those the host seldom gives large pages.)
    ///
    /// # Errors
    /// When the host has no such amount of memory or address space.
    pub fn new(list: &Arc<RamList>, name: &str, len: u64) -> io::Result<Arc<Self>> {
        let whole = Self::whole(len)?;
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
        // SAFETY: a new mapping at an address of the kernel's choice; nothing else refers to it.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), whole, prot, flags)? };
        Self::add(list, name, base, whole, Backing::Private)
    }

    /// Memory backed by a file, from `offset` on. `share`: stores reach the file. The file must be long enough.
    ///
    /// # Errors
    /// When the file is too short, the offset is not page-aligned, or mapping fails.
    pub fn from_file(
        list: &Arc<RamList>,
        name: &str,
        file: File,
        offset: u64,
        len: u64,
        share: bool,
        writable: bool,
    ) -> io::Result<Arc<Self>> {
        if !offset.is_multiple_of(PAGE) || file.metadata()?.len() < offset.saturating_add(len) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "backing file is shorter than the memory"));
        }
        let whole = Self::whole(len)?;
        let prot = if writable || !share { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        let flags = if share { MapFlags::SHARED } else { MapFlags::PRIVATE } | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice; nothing else refers to it.
        let base = unsafe { mmap(std::ptr::null_mut(), whole, prot, flags, &file, offset)? };
        let backing = match (share, writable) {
            (true, true) => Backing::Shared(file.into(), offset),
            (true, false) => Backing::ReadOnly,
            (false, _) => Backing::Private,
        };
        Self::add(list, name, base, whole, backing)
    }

    /// A length in bytes rounded up to whole pages.
    fn whole(len: u64) -> io::Result<usize> {
        let whole = len.max(1).checked_next_multiple_of(PAGE).and_then(|l| isize::try_from(l).ok());
        Ok(whole.ok_or(io::ErrorKind::OutOfMemory)? as usize)
    }

    /// A block of memory that was mapped just now, all of it.
    fn add(
        list: &Arc<RamList>,
        name: &str,
        base: *mut c_void,
        whole: usize,
        backing: Backing,
    ) -> io::Result<Arc<Self>> {
        // Only advice: fewer host TLB misses where the kernel offers it.
        // SAFETY: `base..base + whole` was mapped just now.
        _ = unsafe { madvise(base, whole, Advice::LinuxHugepage) };
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let pages = whole as u64 / PAGE;
        let mut blocks = list.blocks.lock();
        let id = blocks.0;
        let (dirty, list2) = (CLIENTS.map(|_| Bitmap::new(pages)), list.clone());
        let (name, len) = (name.to_owned(), whole as u64);
        let block = Arc::new(Self { name, id, base, len, backing, dirty, list: list2 });
        blocks.0 += 1;
        blocks.1.retain(|b| b.strong_count() != 0);
        blocks.1.push(Arc::downgrade(&block));
        Ok(block)
    }

    /// QEMU's block name, such as `pc.ram`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A number no other block of this machine has or had.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Length in bytes, a multiple of the page size.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Never: a block has at least one page.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Host address of the first byte, for the soft TLB. Valid while the block lives. Whoever uses it accesses the memory
    /// atomically or by volatile operations and never forms a reference.
    pub fn host(&self) -> NonNull<u8> {
        self.base
    }

    /// Address of `len` bytes at `off`, if they lie inside.
    fn at(&self, off: u64, len: u64) -> Option<NonNull<u8>> {
        if off.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: `off <= len`, so the result is inside the mapping or one past its end.
        Some(unsafe { self.base.add(off as usize) })
    }

    /// Copies memory out. `false`, and `buf` unchanged, when the range is not inside.
    pub fn read(&self, off: u64, buf: &mut [u8]) -> bool {
        let Some(src) = self.at(off, buf.len() as u64) else { return false };
        let head = src.align_offset(8).min(buf.len());
        let (first, rest) = buf.split_at_mut(head);
        let (words, last) = rest.as_chunks_mut::<8>();
        let tail_at = head + words.len() * 8;
        for (i, b) in first.iter_mut().enumerate() {
            *b = self.byte(src, i).load(Relaxed);
        }
        for (i, w) in words.iter_mut().enumerate() {
            // SAFETY: inside the range that `at` checked; `head` made the address a multiple of 8; atomic access only.
            *w = unsafe { AtomicU64::from_ptr(src.add(head + i * 8).as_ptr().cast()) }.load(Relaxed).to_ne_bytes();
        }
        for (i, b) in last.iter_mut().enumerate() {
            *b = self.byte(src, tail_at + i).load(Relaxed);
        }
        true
    }

    /// Copies into memory and marks it dirty. `false`, and nothing written, when the range is not inside.
    pub fn write(&self, off: u64, buf: &[u8]) -> bool {
        let Some(dst) = self.at(off, buf.len() as u64) else { return false };
        let head = dst.align_offset(8).min(buf.len());
        let (first, rest) = buf.split_at(head);
        let (words, last) = rest.as_chunks::<8>();
        let tail_at = head + words.len() * 8;
        for (i, b) in first.iter().enumerate() {
            self.byte(dst, i).store(*b, Relaxed);
        }
        for (i, w) in words.iter().enumerate() {
            // SAFETY: inside the range that `at` checked; `head` made the address a multiple of 8; atomic access only.
            unsafe { AtomicU64::from_ptr(dst.add(head + i * 8).as_ptr().cast()) }
                .store(u64::from_ne_bytes(*w), Relaxed);
        }
        for (i, b) in last.iter().enumerate() {
            self.byte(dst, tail_at + i).store(*b, Relaxed);
        }
        self.mark_dirty(off, buf.len() as u64);
        true
    }

    /// Fills a range with one byte and marks it dirty. `false` when the range is not inside.
    pub fn fill(&self, off: u64, len: u64, byte: u8) -> bool {
        let block = [byte; PAGE as usize];
        if self.at(off, len).is_none() {
            return false;
        }
        let mut done = 0;
        while done < len {
            let n = (len - done).min(PAGE);
            if !block.get(..n as usize).is_some_and(|b| self.write(off + done, b)) {
                return false;
            }
            done += n;
        }
        true
    }

    /// Gives the whole pages of a range back to the host: they read as zero afterwards, or as the file's where stores do not reach it, and
    /// cost nothing until they are used again. Marks them dirty; parts of pages at both ends stay.
    ///
    /// # Errors
    /// The range is not inside, the memory is read-only, or the host's file system cannot; then nothing is promised of the contents.
    pub fn discard(&self, off: u64, len: u64) -> io::Result<()> {
        let end = off.checked_add(len).filter(|end| *end <= self.len).ok_or(io::ErrorKind::InvalidInput)?;
        let (start, end) = (off.next_multiple_of(PAGE), end / PAGE * PAGE);
        let Some(len) = end.checked_sub(start).filter(|len| *len > 0) else { return Ok(()) };
        match &self.backing {
            Backing::Shared(file, at) => {
                fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, at + start, len)?;
            }
            Backing::Private => {
                let first = self.at(start, len).ok_or(io::ErrorKind::InvalidInput)?;
                // SAFETY: whole pages inside the mapping, which stays: the next access finds zeros or what the file holds. Nobody has a reference
                // to this memory, and a vCPU that accesses it atomically meanwhile sees the old or the new value.
                unsafe { madvise(first.as_ptr().cast(), len as usize, Advice::LinuxDontNeed)? };
            }
            Backing::ReadOnly => return Err(io::ErrorKind::PermissionDenied.into()),
        }
        self.mark_dirty(start, len);
        Ok(())
    }

    fn byte(&self, base: NonNull<u8>, i: usize) -> &AtomicU8 {
        // SAFETY: callers pass an index below the length they had checked by `at`; atomic access only.
        unsafe { AtomicU8::from_ptr(base.add(i).as_ptr()) }
    }

    /// Little-endian load of 1, 2, 4 or 8 bytes; one atomic access when aligned, bytes otherwise.
    pub fn load(&self, off: u64, size: u32) -> Option<u64> {
        let p = self.at(off, size.into())?.as_ptr();
        if !off.is_multiple_of(u64::from(size)) {
            return self.load_bytes(off, size);
        }
        // SAFETY: in bounds by `at`; aligned, because the base is page-aligned and `off` a multiple of the size.
        unsafe {
            Some(match size {
                1 => AtomicU8::from_ptr(p).load(Relaxed).into(),
                2 => u16::from_le(AtomicU16::from_ptr(p.cast()).load(Relaxed)).into(),
                4 => u32::from_le(AtomicU32::from_ptr(p.cast()).load(Relaxed)).into(),
                8 => u64::from_le(AtomicU64::from_ptr(p.cast()).load(Relaxed)),
                _ => return self.load_bytes(off, size),
            })
        }
    }

    fn load_bytes(&self, off: u64, size: u32) -> Option<u64> {
        let mut buf = [0; 8];
        self.read(off, buf.get_mut(..size as usize)?).then(|| u64::from_le_bytes(buf))
    }

    /// Little-endian store of 1, 2, 4 or 8 bytes, marked dirty; one atomic access when aligned. `None`: not inside.
    pub fn store(&self, off: u64, size: u32, val: u64) -> Option<()> {
        let p = self.at(off, size.into())?.as_ptr();
        let aligned = off.is_multiple_of(u64::from(size));
        // SAFETY: in bounds by `at`; aligned, because the base is page-aligned and `off` a multiple of the size.
        unsafe {
            match size {
                1 => AtomicU8::from_ptr(p).store(val as u8, Relaxed),
                2 if aligned => AtomicU16::from_ptr(p.cast()).store((val as u16).to_le(), Relaxed),
                4 if aligned => AtomicU32::from_ptr(p.cast()).store((val as u32).to_le(), Relaxed),
                8 if aligned => AtomicU64::from_ptr(p.cast()).store(val.to_le(), Relaxed),
                _ => return self.write(off, val.to_le_bytes().get(..size as usize)?).then_some(()),
            }
        }
        self.mark_dirty(off, size.into());
        Some(())
    }

    fn pages(off: u64, len: u64) -> Range<u64> {
        off / PAGE..off.saturating_add(len).div_ceil(PAGE)
    }

    fn bitmap(&self, client: DirtyClient) -> &Bitmap {
        let [code, vga, migration] = &self.dirty;
        match client {
            DirtyClient::Code => code,
            DirtyClient::Vga => vga,
            DirtyClient::Migration => migration,
        }
    }

    /// After a store: tells the code watcher about code pages in the range, and sets the other clients' bits.
    pub fn mark_dirty(&self, off: u64, len: u64) {
        if len == 0 {
            return;
        }
        let pages = Self::pages(off, len);
        if !self.bitmap(DirtyClient::Code).all(pages.clone()) {
            match self.list.watcher.get() {
                Some(w) => w.code_written(self, off, len),
                None => self.bitmap(DirtyClient::Code).set(pages.clone()),
            }
        }
        self.bitmap(DirtyClient::Vga).set(pages.clone());
        self.bitmap(DirtyClient::Migration).set(pages);
    }

    /// Whether the page of `off` is dirty for a client.
    pub fn is_dirty(&self, client: DirtyClient, off: u64) -> bool {
        self.bitmap(client).get(off / PAGE)
    }

    /// Whether the page of `off` is dirty for every client, so that a store needs no bookkeeping.
    pub fn is_dirty_for_all(&self, off: u64) -> bool {
        self.dirty.iter().all(|b| b.get(off / PAGE))
    }

    /// Marks the pages of a range dirty for one client.
    pub fn set_dirty(&self, client: DirtyClient, off: u64, len: u64) {
        self.bitmap(client).set(Self::pages(off, len));
    }

    /// Marks the pages of a range clean for one client, and tells the watcher.
    pub fn clear_dirty(&self, client: DirtyClient, off: u64, len: u64) {
        self.bitmap(client).clear(Self::pages(off, len));
        self.tell_clean(off, len);
    }

    fn tell_clean(&self, off: u64, len: u64) {
        if let Some(w) = self.list.watcher.get() {
            w.made_clean(self, off, len);
        }
    }

    /// Offsets of the pages in a range that were dirty for a client; they are clean afterwards.
    pub fn take_dirty(&self, client: DirtyClient, off: u64, len: u64) -> Vec<u64> {
        let mut pages = self.bitmap(client).take(Self::pages(off, len));
        if !pages.is_empty() {
            self.tell_clean(off, len);
        }
        pages.iter_mut().for_each(|p| *p *= PAGE);
        pages
    }
}

impl Drop for RamBlock {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`, not used any more: `self` is going away and handed out only addresses whose
        // users hold the block alive.
        if let Err(e) = unsafe { munmap(self.base.as_ptr().cast(), self.len as usize) } {
            tracing::error!(block = self.name, "cannot unmap RAM: {e}");
        }
    }
}

impl std::fmt::Debug for RamBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RamBlock({}, {:#x})", self.name, self.len)
    }
}

/// Ranges that the host takes in one call (IOV_MAX).
const VECTOR: usize = 1024;

/// Moves bytes between memory and a file from its byte `at` on, by one call of the host's: how many. `into`: into memory, which is not marked
/// dirty here.
pub(super) fn transfer(parts: &[RamRange], file: BorrowedFd<'_>, at: u64, into: bool) -> io::Result<u64> {
    let at = i64::try_from(at).map_err(|_| io::ErrorKind::InvalidInput)?;
    let vector: Option<Vec<libc::iovec>> = parts.iter().take(VECTOR).map(RamRange::iovec).collect();
    let vector = vector.ok_or(io::ErrorKind::InvalidInput)?;
    let n = vector.len() as libc::c_int;
    // SAFETY: every entry lies inside the mapping of a block that `parts` keeps alive; nobody has a reference to this memory. To vCPUs that
    // access it meanwhile the kernel is one more of them.
    let done = unsafe {
        match into {
            true => libc::preadv(file.as_raw_fd(), vector.as_ptr(), n, at),
            false => libc::pwritev(file.as_raw_fd(), vector.as_ptr(), n, at),
        }
    };
    u64::try_from(done).map_err(|_| io::Error::last_os_error())
}

/// Where ranges are on the host; `None`: there are more than one call takes, or one is not inside its block.
pub(super) fn vector(parts: &[RamRange]) -> Option<Vec<libc::iovec>> {
    parts.iter().map(RamRange::iovec).collect::<Option<Vec<_>>>().filter(|v| v.len() <= VECTOR)
}

impl RamRange {
    fn iovec(&self) -> Option<libc::iovec> {
        let first = self.block.at(self.off, self.len)?;
        Some(libc::iovec { iov_base: first.as_ptr().cast(), iov_len: self.len as usize })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, SeekFrom, Write};

    fn block(len: u64) -> Arc<RamBlock> {
        RamBlock::new(&Arc::default(), "test", len).unwrap()
    }
    /// A file of whole pages, each filled with a byte.
    fn file(pages: &[u8]) -> File {
        let fd = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let mut file = File::from(fd);
        pages.iter().for_each(|b| file.write_all(&[*b; PAGE as usize]).unwrap());
        file
    }
    /// How many of a block's pages take host memory (`/proc/self/pagemap`, proc_pid_pagemap(5): bit 63).
    fn present(b: &RamBlock) -> usize {
        let mut map = File::open("/proc/self/pagemap").unwrap();
        map.seek(SeekFrom::Start(b.host().addr().get() as u64 / PAGE * 8)).unwrap();
        let mut words = vec![0; (b.len() / PAGE * 8) as usize];
        map.read_exact(&mut words).unwrap();
        words.as_chunks::<8>().0.iter().filter(|w| u64::from_ne_bytes(**w) >> 63 != 0).count()
    }

    #[test]
    fn every_alignment_and_length_copies_exactly() {
        let b = block(PAGE);
        for off in 0..20u64 {
            for len in 0..40usize {
                assert!(b.fill(0, 80, 0xee));
                let data: Vec<u8> = (0..len as u8).map(|i| i ^ 0x5a).collect();
                assert!(b.write(off, &data));
                let mut back = vec![0; 80];
                assert!(b.read(0, &mut back));
                assert_eq!(&back[off as usize..][..len], data);
                assert!(back[..off as usize].iter().chain(&back[off as usize + len..]).all(|v| *v == 0xee));
            }
        }
    }

    #[test]
    fn loads_and_stores_are_little_endian_and_bounded() {
        let b = block(PAGE);
        for off in [8u64, 9, 11, 13] {
            for size in [1u32, 2, 4, 8] {
                let mask = u64::MAX >> (64 - size * 8);
                b.store(off, size, 0x1122_3344_5566_7788).unwrap();
                assert_eq!(b.load(off, size), Some(0x1122_3344_5566_7788 & mask));
                assert_eq!(b.load(off, 1), Some(0x88));
            }
        }
        assert!(b.load(PAGE - 7, 8).is_none() && b.store(PAGE, 1, 0).is_none() && b.load(u64::MAX, 8).is_none());
        assert!(!b.write(PAGE - 1, &[0; 2]) && !b.read(u64::MAX, &mut [0; 2]) && !b.fill(1, PAGE, 0));
    }

    #[test]
    fn stores_to_code_pages_reach_the_watcher() {
        struct Watch(Mutex<Vec<(u64, u64)>>, AtomicU64);
        impl CodeWatcher for Watch {
            fn code_written(&self, block: &RamBlock, off: u64, len: u64) {
                self.0.lock().push((off, len));
                block.set_dirty(DirtyClient::Code, off, len);
            }
            fn made_clean(&self, block: &RamBlock, off: u64, _: u64) {
                assert!(!block.is_dirty_for_all(off));
                self.1.fetch_add(1, Relaxed);
            }
        }
        let list = Arc::new(RamList::default());
        let watch = Arc::new(Watch(Mutex::default(), AtomicU64::new(0)));
        list.set_code_watcher(watch.clone());
        let b = RamBlock::new(&list, "test", 4 * PAGE).unwrap();
        b.store(PAGE, 4, 1).unwrap();
        b.clear_dirty(DirtyClient::Code, PAGE, PAGE);
        assert!(!b.is_dirty_for_all(PAGE) && b.is_dirty_for_all(0));
        b.write(PAGE - 2, &[0; 4]);
        b.store(PAGE, 4, 1).unwrap();
        assert_eq!(*watch.0.lock(), [(PAGE - 2, 4)]);
        assert_eq!(b.take_dirty(DirtyClient::Vga, 0, 4 * PAGE), [0, PAGE, 2 * PAGE, 3 * PAGE]);
        assert!(b.take_dirty(DirtyClient::Vga, 0, 4 * PAGE).is_empty());
        assert_eq!(watch.1.load(Relaxed), 2);
    }

    #[test]
    fn a_second_mapping_sees_the_same_bytes() {
        let list = Arc::new(RamList::default());
        let file = file(&[0]);
        let map = |len| RamBlock::from_file(&list, "b", file.try_clone().unwrap(), 0, len, true, true);
        let (a, b) = (map(PAGE).unwrap(), map(PAGE).unwrap());
        a.store(8, 4, 77).unwrap();
        assert_eq!(b.load(8, 4), Some(77));
        assert_ne!(a.id(), b.id());
        assert_eq!(list.blocks().len(), 2);
        drop(a);
        assert_eq!(list.blocks().len(), 1);
        assert!(map(2 * PAGE).is_err());
    }

    #[test]
    fn discarded_pages_go_back_to_the_host_and_the_others_stay() {
        let list = Arc::new(RamList::default());
        let b = RamBlock::new(&list, "test", 8 * PAGE).unwrap();
        assert!(b.fill(0, 8 * PAGE, 7));
        b.take_dirty(DirtyClient::Vga, 0, 8 * PAGE);
        // Parts of pages at both ends stay.
        b.discard(PAGE + 1, 3 * PAGE).unwrap();
        let at = |page: u64| b.load(page * PAGE, 1).unwrap();
        assert_eq!((0..8).map(at).collect::<Vec<_>>(), [7, 7, 0, 0, 7, 7, 7, 7]);
        assert_eq!(b.take_dirty(DirtyClient::Vga, 0, 8 * PAGE), [2 * PAGE, 3 * PAGE]);
        b.store(2 * PAGE, 1, 9).unwrap();
        assert_eq!(at(2), 9);
        // (The host may give it large pages.)
        let large = RamBlock::new(&list, "large", 16 << 20).unwrap();
        assert_eq!(present(&large), 0);
        assert!(large.fill(0, 16 << 20, 7) && present(&large) == 4096);
        large.discard(4 << 20, 8 << 20).unwrap();
        assert_eq!(present(&large), 2048);
        // Nothing, and what is not there
        b.discard(PAGE + 1, PAGE).unwrap();
        assert!(b.discard(7 * PAGE, 2 * PAGE).is_err() && b.discard(u64::MAX, 2).is_err());
        assert_eq!(at(7), 7);
        // A mapping of its own finds the file's bytes again, which nobody changes; a read-only one is left alone.
        let file = file(&[3, 4, 5, 6, 7]);
        let map = |name, page, share, writable| {
            RamBlock::from_file(&list, name, file.try_clone().unwrap(), page * PAGE, 2 * PAGE, share, writable).unwrap()
        };
        let private = map("p", 1, false, true);
        assert!(private.fill(0, 2 * PAGE, 1));
        private.discard(0, PAGE).unwrap();
        let readonly = map("r", 0, true, false);
        assert_eq!((private.load(0, 1), private.load(PAGE, 1), readonly.load(PAGE, 1)), (Some(4), Some(1), Some(4)));
        assert!(readonly.discard(0, PAGE).is_err());
        // A part of a file, from an offset on
        let part = map("s", 3, true, true);
        part.discard(0, PAGE).unwrap();
        let whole = map("w", 2, true, true);
        assert_eq!((whole.load(0, 1), whole.load(PAGE, 1), part.load(PAGE, 1)), (Some(5), Some(0), Some(7)));
    }
}
