//! Guest memory as the bytes of one transfer, which files are read into and written from without a copy between.

use super::ram::{self, RamBlock};
use super::space::AddressSpace;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// A range of a RAM block that lies inside of it.
#[derive(Clone, Debug)]
pub(super) struct RamRange {
    pub block: Arc<RamBlock>,
    pub off: u64,
    pub len: u64,
}

/// Ranges of RAM blocks, one after the other; the blocks stay as long as it does. What is in them may change at any time.
#[derive(Clone, Debug, Default)]
pub struct RamRanges {
    parts: Vec<RamRange>,
    len: u64,
}

impl RamRanges {
    /// Adds a range behind the others; false, and nothing added, if it is not inside of the block.
    pub fn push(&mut self, block: &Arc<RamBlock>, off: u64, len: u64) -> bool {
        if off.checked_add(len).is_none_or(|end| end > block.len()) {
            return false;
        }
        self.len += len;
        match self.parts.last_mut() {
            Some(last) if Arc::ptr_eq(&last.block, block) && last.off + last.len == off => last.len += len,
            _ if len == 0 => {}
            _ => self.parts.push(RamRange { block: block.clone(), off, len }),
        }
        true
    }

    /// Adds those of `other` behind its own.
    pub fn append(&mut self, other: &Self) {
        for p in &other.parts {
            self.push(&p.block, p.off, p.len);
        }
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether all ranges begin and end at multiples of `align` of the host's addresses.
    pub fn is_aligned(&self, align: u64) -> bool {
        let at = |p: &RamRange| p.block.host().as_ptr().addr() as u64 + p.off;
        self.parts.iter().all(|p| (at(p) | p.len).is_multiple_of(align))
    }

    /// Bytes `skip` to `skip + len`, as far as there are such.
    #[must_use]
    pub fn part(&self, skip: u64, len: u64) -> Self {
        let (mut all, mut seen) = (Self::default(), 0);
        let end = skip.saturating_add(len);
        for p in &self.parts {
            let (from, to) = (skip.max(seen), end.min(seen + p.len));
            if from < to {
                all.push(&p.block, p.off + (from - seen), to - from);
            }
            seen += p.len;
        }
        all
    }

    /// Copies `data` into memory from the first byte on, as far as there is room.
    pub fn copy_in(&self, mut data: &[u8]) {
        for p in &self.parts {
            let (now, later) = data.split_at(data.len().min(p.len as usize));
            p.block.write(p.off, now);
            data = later;
        }
    }

    /// Copies memory out from the first byte on, as far as `buf` has room.
    pub fn copy_out(&self, mut buf: &mut [u8]) {
        for p in &self.parts {
            let (now, later) = buf.split_at_mut(buf.len().min(p.len as usize));
            p.block.read(p.off, now);
            buf = later;
        }
    }

    /// All bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = vec![0; self.len as usize];
        self.copy_out(&mut all);
        all
    }

    /// Where the bytes are on the host, for one call of its that reads or writes files (preadv(2)); `None`: in more places than such a call takes.
    /// Whoever uses this keeps the ranges until that call is over, and says afterwards what it changed ([`RamRanges::mark_dirty`]).
    pub fn vector(&self) -> Option<Vec<libc::iovec>> {
        ram::vector(&self.parts)
    }

    /// All bytes have been changed by somebody who has their addresses.
    pub fn mark_dirty(&self) {
        self.parts.iter().for_each(|p| p.block.mark_dirty(p.off, p.len));
    }

    /// Makes all bytes zero.
    pub fn clear(&self) {
        for p in &self.parts {
            p.block.fill(p.off, p.len, 0);
        }
    }

    /// Reads a file from its byte `at` on into memory, once: how many bytes, 0 at its end.
    ///
    /// # Errors
    /// As the host says.
    pub fn read_file(&self, file: BorrowedFd<'_>, at: u64) -> io::Result<u64> {
        let done = ram::transfer(&self.parts, file, at, true)?;
        self.part(0, done).mark_dirty();
        Ok(done)
    }

    /// Writes memory to a file from its byte `at` on, once: how many bytes.
    ///
    /// # Errors
    /// As the host says.
    pub fn write_file(&self, file: BorrowedFd<'_>, at: u64) -> io::Result<u64> {
        ram::transfer(&self.parts, file, at, false)
    }
}

impl AddressSpace {
    /// Adds the memory of `addr` to `addr + len` to `all`, if all of it is memory that may be read, or written (`write`). Only what a device
    /// does with the machine unlocked needs this; [`AddressSpace::read`] and [`AddressSpace::write`] reach everything.
    pub fn ranges(&self, addr: u64, len: u64, write: bool, all: &mut RamRanges) -> bool {
        let view = self.view();
        let (mut at, mut left) = (addr, len);
        while left > 0 {
            let Some(r) = view.find(at) else { return false };
            let Some((block, off)) = (if write { r.writable(at) } else { r.readable(at) }) else { return false };
            let n = (r.last - at).saturating_add(1).min(left);
            if !all.push(block, off, n) {
                return false;
            }
            at = at.wrapping_add(n);
            left -= n;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::dirty::{DirtyClient, PAGE};
    use super::*;
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::AsFd;

    fn memfd(bytes: &[u8]) -> File {
        let fd = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let mut file = File::from(fd);
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn files_are_read_into_memory_and_written_from_it_across_ranges() {
        let list = Arc::default();
        let (a, b) = (RamBlock::new(&list, "a", 4 * PAGE).unwrap(), RamBlock::new(&list, "b", PAGE).unwrap());
        let mut all = RamRanges::default();
        assert!(all.push(&a, 10, 90) && all.push(&a, 100, 10) && all.push(&b, 0, 50) && all.push(&a, 3 * PAGE, 50));
        assert!(!all.push(&a, 4 * PAGE, 1) && !all.push(&a, u64::MAX, 2) && all.push(&b, PAGE, 0));
        assert_eq!((all.len(), all.parts.len(), all.is_empty()), (200, 3, false));
        let bytes: Vec<u8> = (0..220).map(|n| n as u8).collect();
        a.take_dirty(DirtyClient::Vga, 0, 4 * PAGE);
        let file = memfd(&bytes);
        assert_eq!(all.read_file(file.as_fd(), 20).unwrap(), 200);
        assert_eq!(all.to_vec(), bytes[20..]);
        assert_eq!((a.load(10, 1), b.load(0, 1), a.load(3 * PAGE, 1)), (Some(20), Some(120), Some(170)));
        assert_eq!(a.take_dirty(DirtyClient::Vga, 0, 4 * PAGE), [0, 3 * PAGE]);
        // The file ends before: only that is read, and only that is dirty.
        assert_eq!(all.read_file(file.as_fd(), 210).unwrap(), 10);
        assert_eq!(a.take_dirty(DirtyClient::Vga, 0, 4 * PAGE), [0]);
        assert_eq!(all.read_file(file.as_fd(), 220).unwrap(), 0);
        all.copy_in(&bytes);
        let out = memfd(&[]);
        assert_eq!(all.part(95, 60).write_file(out.as_fd(), 1).unwrap(), 60);
        let back = RamRanges { parts: vec![RamRange { block: a.clone(), off: 0, len: 61 }], len: 61 };
        assert_eq!(back.read_file(out.as_fd(), 0).unwrap(), 61);
        assert_eq!(back.to_vec()[1..], bytes[95..155]);
        all.clear();
        assert!(all.to_vec().iter().all(|b| *b == 0));
        assert!(all.read_file(memfd(&bytes).as_fd(), u64::MAX).is_err());
    }

    #[test]
    fn alignment_is_that_of_every_range() {
        let a = RamBlock::new(&Arc::default(), "a", 8 * PAGE).unwrap();
        let of = |parts: &[(u64, u64)]| {
            let mut all = RamRanges::default();
            assert!(parts.iter().all(|(off, len)| all.push(&a, *off, *len)));
            all.is_aligned(PAGE)
        };
        assert!(of(&[(PAGE, PAGE), (4 * PAGE, 2 * PAGE)]) && of(&[(0, 10), (10, PAGE - 10)]));
        assert!(!of(&[(PAGE, PAGE), (5, PAGE)]) && !of(&[(PAGE, 10)]));
    }
}
