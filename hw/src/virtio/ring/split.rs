//! The split ring. Source: virtio 1.2 §2.7.

use super::{Chain, DESC, Desc, Format, INDIRECT, Memory, NEXT, Queue, RingError, passed, table_len};
use std::sync::atomic::{Ordering, fence};

/// Flag of the available ring: no interrupts, please.
const NO_INTERRUPT: u16 = 1;

impl Queue {
    fn slot(&self, index: u16) -> u64 {
        u64::from(index % self.size.max(1))
    }

    fn available(&self) -> u64 {
        self.driver.wrapping_add(2)
    }

    /// The driver asks for an interrupt at this used index.
    fn used_event(&self) -> u64 {
        self.driver.wrapping_add(4 + 2 * u64::from(self.size))
    }

    /// The device asks for a notification at this available index.
    fn avail_event(&self) -> u64 {
        self.device.wrapping_add(4 + 8 * u64::from(self.size))
    }

    pub(super) fn pop_split(&mut self, mem: &mut dyn Memory, format: Format) -> Result<Option<Chain>, RingError> {
        let avail = mem.word(self.available())?;
        let waiting = avail.wrapping_sub(self.next_avail);
        if waiting == 0 {
            return Ok(None);
        }
        if waiting > self.size {
            return Err(RingError::Moved { from: self.next_avail, to: avail });
        }
        if self.in_use >= self.size {
            return Err(RingError::TooMany);
        }
        // The entries are read after the index that says that they are there.
        fence(Ordering::Acquire);
        let head = mem.word(self.driver.wrapping_add(4 + 2 * self.slot(self.next_avail)))?;
        let chain = self.walk(mem, head)?;
        self.next_avail = self.next_avail.wrapping_add(1);
        self.in_use += 1;
        if format.event_idx {
            mem.set_word(self.avail_event(), self.next_avail)?;
            // Either the driver sees that this is wanted, or the next look finds what it has added.
            fence(Ordering::SeqCst);
        }
        Ok(Some(chain))
    }

    fn walk(&self, mem: &mut dyn Memory, head: u16) -> Result<Chain, RingError> {
        let mut chain = Chain { id: head, entries: 1, ..Chain::default() };
        let (mut table, mut entries, mut at) = (self.desc, u32::from(self.size), head);
        let (mut left, mut indirect) = (entries, false);
        loop {
            if u32::from(at) >= entries {
                return Err(RingError::BadIndex(at));
            }
            if left == 0 {
                return Err(RingError::Looped);
            }
            left -= 1;
            let d = Desc::load(mem, table.wrapping_add(u64::from(at) * DESC), false)?;
            if d.has(INDIRECT) {
                if indirect {
                    return Err(RingError::BadTable);
                }
                entries = table_len(&d)?;
                (table, at, left, indirect) = (d.addr, 0, entries, true);
                continue;
            }
            chain.add(mem, &d)?;
            if !d.has(NEXT) {
                return Ok(chain);
            }
            at = d.link;
        }
    }

    pub(super) fn push_split(&mut self, mem: &mut dyn Memory, done: &[(&Chain, u32)]) -> Result<(), RingError> {
        let mut next = self.next_used;
        for (chain, len) in done {
            let at = self.device.wrapping_add(4 + 8 * self.slot(next));
            let [i0, i1] = chain.id.to_le_bytes();
            let [l0, l1, l2, l3] = len.to_le_bytes();
            if !mem.write(at, &[i0, i1, 0, 0, l0, l1, l2, l3]) {
                return Err(RingError::NoMemory(at));
            }
            next = next.wrapping_add(1);
        }
        // The entries are there before the index says so.
        fence(Ordering::Release);
        self.next_used = next;
        mem.set_word(self.device.wrapping_add(2), next)
    }

    pub(super) fn wants_split(&mut self, mem: &mut dyn Memory, format: Format) -> Result<bool, RingError> {
        // The used index is out before the driver's wish is read.
        fence(Ordering::SeqCst);
        if format.notify_on_empty && self.in_use == 0 && mem.word(self.available())? == self.next_avail {
            return Ok(true);
        }
        if !format.event_idx {
            return Ok(mem.word(self.driver)? & NO_INTERRUPT == 0);
        }
        let event = mem.word(self.used_event())?;
        let new = self.next_used;
        Ok(self.signalled.replace(new).is_none_or(|old| passed(event, new, old)))
    }
}
