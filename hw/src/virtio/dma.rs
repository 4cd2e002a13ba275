//! Guest memory as a virtio device reaches it.

use super::ring::{Memory, Segment, slice};
use hw_core::memory::{Attrs, RamRanges};
use hw_core::{AddressSpace, Locked};

/// The memory behind a transport, with the machine locked.
pub struct Dma<'a> {
    /// The held machine lock.
    pub m: &'a mut Locked,
    /// Where the transport's accesses go.
    pub space: &'a AddressSpace,
    /// On whose behalf.
    pub attrs: Attrs,
}

/// The memory behind `len` bytes of segments from byte `skip` on, to be read or written (`write`) while the machine is not locked: if all of it
/// is memory that lies on the host.
pub fn memory_of(space: &AddressSpace, segments: &[Segment], skip: u64, len: u64, write: bool) -> Option<RamRanges> {
    let mut all = RamRanges::default();
    let there = slice(segments, skip, len).all(|s| space.ranges(s.addr, s.len.into(), write, &mut all));
    (there && all.len() == len).then_some(all)
}

impl Memory for Dma<'_> {
    fn read(&mut self, addr: u64, buf: &mut [u8]) -> bool {
        self.space.read_with(self.m, addr, buf, self.attrs).is_ok()
    }

    fn write(&mut self, addr: u64, buf: &[u8]) -> bool {
        self.space.write_with(self.m, addr, buf, self.attrs).is_ok()
    }

    fn is_memory(&mut self, addr: u64, len: u64, write: bool) -> bool {
        let Some(last) = addr.checked_add(len.max(1) - 1) else { return false };
        let view = self.space.view();
        let mut at = addr;
        loop {
            let Some(range) = view.find(at) else { return false };
            let there = if write { range.writable(at).is_some() } else { range.readable(at).is_some() };
            if !there || range.last >= last {
                return there;
            }
            at = range.last + 1;
        }
    }

    fn word(&mut self, addr: u64) -> Result<u16, super::ring::RingError> {
        if addr & 1 != 0 {
            let mut b = [0; 2];
            return if self.read(addr, &mut b) {
                Ok(u16::from_le_bytes(b))
            } else {
                Err(super::ring::RingError::NoMemory(addr))
            };
        }
        let v = self.space.load_with(self.m, addr, 2, self.attrs);
        v.map(|v| v as u16).map_err(|_| super::ring::RingError::NoMemory(addr))
    }

    fn set_word(&mut self, addr: u64, v: u16) -> Result<(), super::ring::RingError> {
        if addr & 1 != 0 {
            let there = self.write(addr, &v.to_le_bytes());
            return if there { Ok(()) } else { Err(super::ring::RingError::NoMemory(addr)) };
        }
        let done = self.space.store_with(self.m, addr, 2, v.into(), self.attrs);
        done.map_err(|_| super::ring::RingError::NoMemory(addr))
    }
}
