//! Virtqueues: how driver and device hand each other buffers in guest memory. Source: virtio 1.2 §2.6 (basics), §2.7 (split),
//! §2.8 (packed). One [`Queue`] is a ring of either format with its indirect tables and event indices; what it hands out are
//! [`Chain`]s of checked guest address ranges, never more than [`MAX_SIZE`] of them.
//!
//! Whatever a driver does wrong (loops, lengths beyond memory, indices that run away) is a [`RingError`]: the owner marks its device
//! broken. Not modelled: in-order use (`VIRTIO_F_IN_ORDER`), notification data.

mod packed;
mod split;

use serde::{Deserialize, Serialize};

/// Most entries of a queue, and most segments of a chain.
pub const MAX_SIZE: u16 = 1024;
/// No MSI-X vector. Virtio 1.2 §4.1.5.1.2.
pub const NO_VECTOR: u16 = 0xffff;
/// Alignment of the used ring of a legacy queue, bytes. Virtio 1.2 §2.7.2.
const LEGACY_ALIGN: u64 = 4096;
/// Bytes of a descriptor.
const DESC: u64 = 16;
/// Descriptor flags: the chain goes on, the device writes, the range is a table of descriptors. §2.7.5.
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// Guest memory as the device reaches it.
pub trait Memory {
    /// Copies out of guest memory; `false` where nobody answers.
    fn read(&mut self, addr: u64, buf: &mut [u8]) -> bool;
    /// Copies into guest memory; `false` where nobody answers.
    fn write(&mut self, addr: u64, buf: &[u8]) -> bool;
    /// Whether all of a range is memory (that may be written).
    fn is_memory(&mut self, addr: u64, len: u64, write: bool) -> bool;

    /// A 16-bit word.
    ///
    /// # Errors
    /// Nobody answers.
    fn word(&mut self, addr: u64) -> Result<u16, RingError> {
        let mut b = [0; 2];
        if self.read(addr, &mut b) { Ok(u16::from_le_bytes(b)) } else { Err(RingError::NoMemory(addr)) }
    }

    /// Sets a 16-bit word.
    ///
    /// # Errors
    /// Nobody answers.
    fn set_word(&mut self, addr: u64, v: u16) -> Result<(), RingError> {
        if self.write(addr, &v.to_le_bytes()) { Ok(()) } else { Err(RingError::NoMemory(addr)) }
    }
}

/// What a driver did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// A ring or table is not in memory.
    #[error("nothing answers at {0:#x}")]
    NoMemory(u64),
    /// A buffer is not in memory.
    #[error("buffer of {len:#x} bytes at {addr:#x} is not in memory")]
    BadBuffer {
        /// First byte.
        addr: u64,
        /// Bytes.
        len: u32,
    },
    /// More entries are available than the ring has.
    #[error("available index moved from {from} to {to}")]
    Moved {
        /// Where the device is.
        from: u16,
        /// What the driver says.
        to: u16,
    },
    /// A descriptor's number is beyond its table.
    #[error("descriptor {0} is beyond the table")]
    BadIndex(u16),
    /// A chain is longer than its table.
    #[error("looped descriptor")]
    Looped,
    /// A device-readable buffer after a device-writable one.
    #[error("incorrect order for descriptors")]
    Order,
    /// An empty buffer.
    #[error("zero sized buffers are not allowed")]
    Empty,
    /// An indirect table whose length is no multiple of 16, or empty, or inside another.
    #[error("invalid indirect buffer table")]
    BadTable,
    /// More chains are in use than the ring has entries.
    #[error("virtqueue size exceeded")]
    TooMany,
}

/// A range of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// First byte.
    pub addr: u64,
    /// Bytes, at least one.
    pub len: u32,
}

/// Buffers that the driver made available together. They lie in memory; their bytes may change at any time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Number by which the driver knows it.
    id: u16,
    /// Ring entries it takes.
    entries: u16,
    /// What the device reads, in order.
    pub readable: Vec<Segment>,
    /// What the device writes, in order.
    pub writable: Vec<Segment>,
}

/// Bytes of segments.
pub fn total(segments: &[Segment]) -> u64 {
    segments.iter().map(|s| u64::from(s.len)).sum()
}

/// The parts of `segments` that hold bytes `skip` to `skip + len`.
pub fn slice(segments: &[Segment], skip: u64, len: u64) -> impl Iterator<Item = Segment> {
    let mut seen = 0u64;
    let end = skip.saturating_add(len);
    segments.iter().filter_map(move |s| {
        let (start, size) = (seen, u64::from(s.len));
        seen += size;
        let (from, to) = (skip.max(start), end.min(start + size));
        (from < to).then(|| Segment { addr: s.addr.wrapping_add(from - start), len: (to - from) as u32 })
    })
}

/// Copies out of `segments` from byte `skip` on; how many bytes there were.
pub fn gather(mem: &mut dyn Memory, segments: &[Segment], skip: u64, buf: &mut [u8]) -> usize {
    let mut done = 0;
    for s in slice(segments, skip, buf.len() as u64) {
        if let Some(part) = buf.get_mut(done..done + s.len as usize) {
            // (It was memory when the chain was taken, and may have gone since.)
            if !mem.read(s.addr, part) {
                break;
            }
            done += s.len as usize;
        }
    }
    done
}

/// Copies into `segments` from byte `skip` on; how many bytes had room.
pub fn scatter(mem: &mut dyn Memory, segments: &[Segment], skip: u64, data: &[u8]) -> usize {
    let mut done = 0;
    for s in slice(segments, skip, data.len() as u64) {
        if let Some(part) = data.get(done..done + s.len as usize) {
            _ = mem.write(s.addr, part);
            done += s.len as usize;
        }
    }
    done
}

/// What driver and device agreed about rings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Format {
    /// Packed instead of split.
    pub packed: bool,
    /// Event indices instead of on and off.
    pub event_idx: bool,
    /// Interrupt when a queue runs empty, whatever the driver says (legacy).
    pub notify_on_empty: bool,
}

/// One queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Entries; 0: the queue does not exist.
    pub size: u16,
    /// Entries after reset.
    pub max: u16,
    /// The driver has set it up.
    pub enabled: bool,
    /// MSI-X vector.
    pub vector: u16,
    /// Descriptor area: the table, or all of a packed ring.
    pub desc: u64,
    /// Driver area: the available ring, or when to interrupt.
    pub driver: u64,
    /// Device area: the used ring, or when to notify.
    pub device: u64,
    next_avail: u16,
    avail_wrap: bool,
    next_used: u16,
    used_wrap: bool,
    /// Used index of the last interrupt, if that means something.
    signalled: Option<u16>,
    /// Ring entries with the device.
    in_use: u16,
}

impl Queue {
    /// A queue of `size` entries; 0: none.
    pub fn new(size: u16) -> Self {
        Self {
            size,
            max: size,
            enabled: false,
            vector: NO_VECTOR,
            desc: 0,
            driver: 0,
            device: 0,
            next_avail: 0,
            avail_wrap: true,
            next_used: 0,
            used_wrap: true,
            signalled: None,
            in_use: 0,
        }
    }

    /// Back to how it was made.
    pub fn reset(&mut self) {
        *self = Self::new(self.max);
    }

    /// Sets the number of entries; impossible ones change nothing.
    pub fn set_size(&mut self, size: u16) {
        if self.size != 0 && (1..=MAX_SIZE).contains(&size) {
            self.size = size;
        }
    }

    /// The rings of a legacy queue, one after the other from `addr`; 0: none. Virtio 1.2 §2.7.2.
    pub fn set_legacy_address(&mut self, addr: u64) {
        self.enabled = addr != 0;
        self.desc = addr;
        self.driver = addr.wrapping_add(u64::from(self.size) * DESC);
        let end = self.driver.wrapping_add(4 + 2 * u64::from(self.size));
        self.device = end.checked_next_multiple_of(LEGACY_ALIGN).unwrap_or(0);
    }

    /// Whether a snapshot may hold this.
    pub fn is_possible(&self, max: u16) -> bool {
        self.max == max && self.size <= MAX_SIZE && (self.size == 0) == (max == 0) && self.in_use <= self.size.max(max)
    }

    /// The next chain that the driver made available.
    ///
    /// # Errors
    /// What the driver did wrong.
    pub fn pop(&mut self, mem: &mut dyn Memory, format: Format) -> Result<Option<Chain>, RingError> {
        if !self.enabled || self.size == 0 {
            return Ok(None);
        }
        if format.packed { self.pop_packed(mem) } else { self.pop_split(mem, format) }
    }

    /// Whether nothing is available.
    ///
    /// # Errors
    /// The ring is not in memory.
    pub fn is_empty(&self, mem: &mut dyn Memory, format: Format) -> Result<bool, RingError> {
        if !self.enabled || self.size == 0 {
            return Ok(true);
        }
        if format.packed {
            self.is_empty_packed(mem)
        } else {
            Ok(mem.word(self.driver.wrapping_add(2))? == self.next_avail)
        }
    }

    /// Gives the last chain back untouched: the next [`Queue::pop`] finds it again.
    pub fn unpop(&mut self, chain: &Chain, format: Format) {
        self.in_use = self.in_use.saturating_sub(chain.entries);
        if !format.packed {
            self.next_avail = self.next_avail.wrapping_sub(1);
        } else if let Some(at) = self.next_avail.checked_sub(chain.entries) {
            self.next_avail = at;
        } else {
            self.next_avail = (self.next_avail + self.size).saturating_sub(chain.entries);
            self.avail_wrap = !self.avail_wrap;
        }
    }

    /// Gives chains back to the driver, with how many bytes of the writable part of each were written. It sees all of them at once.
    ///
    /// # Errors
    /// The ring is not in memory.
    pub fn push(&mut self, mem: &mut dyn Memory, format: Format, done: &[(&Chain, u32)]) -> Result<(), RingError> {
        if !self.enabled || self.size == 0 {
            return Ok(());
        }
        for (chain, _) in done {
            self.in_use = self.in_use.saturating_sub(chain.entries);
        }
        if format.packed { self.push_packed(mem, done) } else { self.push_split(mem, done) }
    }

    /// Whether the driver wants an interrupt for what was pushed since the last call.
    ///
    /// # Errors
    /// The ring is not in memory.
    pub fn wants_interrupt(&mut self, mem: &mut dyn Memory, format: Format) -> Result<bool, RingError> {
        if !self.enabled || self.size == 0 {
            return Ok(false);
        }
        if format.packed { self.wants_packed(mem, format) } else { self.wants_split(mem, format) }
    }
}

/// A descriptor of a table. Virtio 1.2 §2.7.5 and §2.8.13: the last two words change places.
#[derive(Clone, Copy)]
struct Desc {
    addr: u64,
    len: u32,
    flags: u16,
    /// The next one of a split table; the buffer id of a packed ring.
    link: u16,
}

impl Desc {
    fn load(mem: &mut dyn Memory, addr: u64, packed: bool) -> Result<Self, RingError> {
        let mut b = [0; DESC as usize];
        if !mem.read(addr, &mut b) {
            return Err(RingError::NoMemory(addr));
        }
        let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, w0, w1, w2, w3] = b;
        let (first, second) = (u16::from_le_bytes([w0, w1]), u16::from_le_bytes([w2, w3]));
        let (flags, link) = if packed { (second, first) } else { (first, second) };
        let addr = u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]);
        Ok(Self { addr, len: u32::from_le_bytes([l0, l1, l2, l3]), flags, link })
    }

    fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

impl Chain {
    /// Adds a descriptor's buffer.
    fn add(&mut self, mem: &mut dyn Memory, d: &Desc) -> Result<(), RingError> {
        if d.len == 0 {
            return Err(RingError::Empty);
        }
        if !d.has(WRITE) && !self.writable.is_empty() {
            return Err(RingError::Order);
        }
        if self.readable.len() + self.writable.len() >= usize::from(MAX_SIZE) {
            return Err(RingError::Looped);
        }
        if !mem.is_memory(d.addr, d.len.into(), d.has(WRITE)) {
            return Err(RingError::BadBuffer { addr: d.addr, len: d.len });
        }
        let segment = Segment { addr: d.addr, len: d.len };
        if d.has(WRITE) {
            self.writable.push(segment)
        } else {
            self.readable.push(segment)
        }
        Ok(())
    }
}

/// Entries of an indirect table. Virtio 1.2 §2.7.5.3.
fn table_len(d: &Desc) -> Result<u32, RingError> {
    let n = d.len / DESC as u32;
    if n == 0 || !d.len.is_multiple_of(DESC as u32) || d.has(NEXT) { Err(RingError::BadTable) } else { Ok(n) }
}

/// Whether `event` lies among the indices from `old` up to but not including `new`. Virtio 1.2 §2.7.7.2.
fn passed(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests;
