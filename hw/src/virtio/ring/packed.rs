//! The packed ring. Source: virtio 1.2 §2.8.

use super::{Chain, DESC, Desc, Format, INDIRECT, Memory, NEXT, Queue, RingError, WRITE, passed, table_len};
use std::sync::atomic::{Ordering, fence};

/// Descriptor flags: available and used, each against the wrap counter of the ring. §2.8.1.
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;
/// Wishes for interrupts: none, at an index. §2.8.10.
const DISABLE: u16 = 1;
const AT_INDEX: u16 = 2;

impl Queue {
    fn entry(&self, at: u16) -> u64 {
        self.desc.wrapping_add(u64::from(at) * DESC)
    }

    fn is_available(&self, flags: u16) -> bool {
        (flags & AVAIL != 0) == self.avail_wrap && (flags & USED != 0) != self.avail_wrap
    }

    pub(super) fn is_empty_packed(&self, mem: &mut dyn Memory) -> Result<bool, RingError> {
        let flags = mem.word(self.entry(self.next_avail).wrapping_add(14))?;
        Ok(!self.is_available(flags))
    }

    pub(super) fn pop_packed(&mut self, mem: &mut dyn Memory) -> Result<Option<Chain>, RingError> {
        if self.next_avail >= self.size {
            return Err(RingError::BadIndex(self.next_avail));
        }
        if self.is_empty_packed(mem)? {
            return Ok(None);
        }
        // The descriptor is read after the flags that say that it is there.
        fence(Ordering::Acquire);
        let mut chain = Chain::default();
        let mut at = self.next_avail;
        loop {
            if self.in_use + chain.entries >= self.size {
                return Err(if chain.entries == 0 { RingError::TooMany } else { RingError::Looped });
            }
            let d = Desc::load(mem, self.entry(at), true)?;
            chain.entries += 1;
            chain.id = d.link;
            if d.has(INDIRECT) {
                if chain.entries > 1 {
                    return Err(RingError::BadTable);
                }
                Self::table(mem, &d, &mut chain)?;
                break;
            }
            chain.add(mem, &d)?;
            if !d.has(NEXT) {
                break;
            }
            at = if at + 1 >= self.size { 0 } else { at + 1 };
        }
        self.in_use += chain.entries;
        let next = self.next_avail + chain.entries;
        (self.next_avail, self.avail_wrap) =
            if next >= self.size { (next - self.size, !self.avail_wrap) } else { (next, self.avail_wrap) };
        Ok(Some(chain))
    }

    /// All of an indirect table. §2.8.8.
    fn table(mem: &mut dyn Memory, d: &Desc, chain: &mut Chain) -> Result<(), RingError> {
        for n in 0..table_len(d)? {
            let entry = Desc::load(mem, d.addr.wrapping_add(u64::from(n) * DESC), true)?;
            if entry.has(INDIRECT) {
                return Err(RingError::BadTable);
            }
            chain.add(mem, &entry)?;
        }
        Ok(())
    }

    pub(super) fn push_packed(&mut self, mem: &mut dyn Memory, done: &[(&Chain, u32)]) -> Result<(), RingError> {
        let mut flags = Vec::with_capacity(done.len());
        for (chain, len) in done {
            let at = self.entry(self.next_used);
            let [l0, l1, l2, l3] = len.to_le_bytes();
            let [i0, i1] = chain.id.to_le_bytes();
            if !mem.write(at.wrapping_add(8), &[l0, l1, l2, l3, i0, i1]) {
                return Err(RingError::NoMemory(at));
            }
            let wrote = if *len > 0 { WRITE } else { 0 };
            flags.push((at.wrapping_add(14), if self.used_wrap { wrote | AVAIL | USED } else { wrote }));
            let next = self.next_used.saturating_add(chain.entries);
            if next >= self.size {
                self.next_used = (next - self.size).min(self.size - 1);
                self.used_wrap = !self.used_wrap;
                self.signalled = None;
            } else {
                self.next_used = next;
            }
        }
        // The driver looks at the first entry's flags first: they are written last, after all else.
        for (at, word) in flags.into_iter().rev() {
            fence(Ordering::Release);
            mem.set_word(at, word)?;
        }
        Ok(())
    }

    pub(super) fn wants_packed(&mut self, mem: &mut dyn Memory, format: Format) -> Result<bool, RingError> {
        // The used entries are out before the driver's wish is read.
        fence(Ordering::SeqCst);
        let flags = mem.word(self.driver.wrapping_add(2))?;
        let new = self.next_used;
        let old = self.signalled.replace(new);
        if flags & 3 != AT_INDEX || !format.event_idx {
            return Ok(flags & 3 != DISABLE);
        }
        let event = mem.word(self.driver)?;
        let wrap = event & 0x8000 != 0;
        let index = event & 0x7fff;
        let index = if wrap == self.used_wrap { index } else { index.wrapping_sub(self.size) };
        Ok(old.is_none_or(|old| passed(index, new, old)))
    }
}
