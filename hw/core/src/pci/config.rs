//! Configuration space: bytes, and which of their bits a guest may write.

use serde::{Deserialize, Serialize};

/// Offsets in the header. PCI 3.0 §6.1, type 1: PCI-to-PCI Bridge 1.2 §3.2.
#[expect(missing_docs, reason = "the specification's names")]
pub mod reg {
    pub const VENDOR_ID: usize = 0x00;
    pub const DEVICE_ID: usize = 0x02;
    pub const COMMAND: usize = 0x04;
    pub const STATUS: usize = 0x06;
    pub const REVISION_ID: usize = 0x08;
    pub const CLASS_PROG: usize = 0x09;
    pub const CLASS_DEVICE: usize = 0x0a;
    pub const CACHE_LINE_SIZE: usize = 0x0c;
    pub const LATENCY_TIMER: usize = 0x0d;
    pub const HEADER_TYPE: usize = 0x0e;
    pub const BAR0: usize = 0x10;
    pub const PRIMARY_BUS: usize = 0x18;
    pub const SECONDARY_BUS: usize = 0x19;
    pub const SUBORDINATE_BUS: usize = 0x1a;
    pub const SUBSYSTEM_VENDOR_ID: usize = 0x2c;
    pub const SUBSYSTEM_ID: usize = 0x2e;
    pub const ROM_ADDRESS: usize = 0x30;
    pub const CAPABILITY_LIST: usize = 0x34;
    pub const ROM_ADDRESS1: usize = 0x38;
    pub const INTERRUPT_LINE: usize = 0x3c;
    pub const INTERRUPT_PIN: usize = 0x3d;
    pub const HEADER_END: usize = 0x40;
}

/// Bits of the command register. PCI 3.0 §6.2.2.
#[expect(missing_docs, reason = "the specification's names")]
pub mod command {
    pub const IO: u16 = 1;
    pub const MEMORY: u16 = 2;
    pub const MASTER: u16 = 4;
    pub const SERR: u16 = 0x100;
    pub const INTX_DISABLE: u16 = 0x400;
}

/// Bits of the status register. PCI 3.0 §6.2.3.
#[expect(missing_docs, reason = "the specification's names")]
pub mod status {
    pub const INTERRUPT: u16 = 8;
    pub const CAP_LIST: u16 = 0x10;
    /// Bits cleared by writing one: the errors.
    pub const ERRORS: u16 = 0xf900;
}

/// Capability ids. PCI 3.0 appendix H.
#[expect(missing_docs, reason = "the specification's names")]
pub mod cap {
    pub const PM: u8 = 0x01;
    pub const MSI: u8 = 0x05;
    pub const VENDOR: u8 = 0x09;
    pub const EXPRESS: u8 = 0x10;
    pub const MSIX: u8 = 0x11;
    pub const SATA: u8 = 0x12;
}

/// Bytes of a conventional function's space.
pub const CONFIG_SIZE: usize = 256;

/// Little-endian bytes with bounds: reads outside are zero, writes outside vanish.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfigSpace(Vec<u8>);

impl Default for ConfigSpace {
    fn default() -> Self {
        Self(vec![0; CONFIG_SIZE])
    }
}

impl ConfigSpace {
    /// Size in bytes.
    pub fn size(&self) -> usize {
        self.0.len()
    }

    /// `len` (up to 8) bytes at `at`.
    pub fn get(&self, at: usize, len: usize) -> u64 {
        (0..len.min(8)).fold(0, |v, i| v | u64::from(self.byte(at + i)) << (i * 8))
    }

    /// Sets `len` (up to 8) bytes at `at`.
    pub fn set(&mut self, at: usize, len: usize, val: u64) {
        for (i, v) in val.to_le_bytes().into_iter().enumerate().take(len) {
            if let Some(b) = self.0.get_mut(at + i) {
                *b = v;
            }
        }
    }

    /// One byte.
    pub fn byte(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    /// Two bytes.
    pub fn word(&self, at: usize) -> u16 {
        self.get(at, 2) as u16
    }

    /// Four bytes.
    pub fn long(&self, at: usize) -> u32 {
        self.get(at, 4) as u32
    }

    /// Sets one byte.
    pub fn set_byte(&mut self, at: usize, val: u8) {
        self.set(at, 1, val.into());
    }

    /// Sets two bytes.
    pub fn set_word(&mut self, at: usize, val: u16) {
        self.set(at, 2, val.into());
    }

    /// Sets four bytes.
    pub fn set_long(&mut self, at: usize, val: u32) {
        self.set(at, 4, val.into());
    }

    /// Sets a range to one value.
    pub(super) fn fill(&mut self, range: std::ops::Range<usize>, val: u8) {
        range.for_each(|i| self.set_byte(i, val));
    }
}

/// What a guest may do to each byte, and which bytes hold capabilities. Fixed once the function is realized.
#[derive(Clone, Debug)]
pub(super) struct Masks {
    /// Bits that take what is written.
    pub write: ConfigSpace,
    /// Bits that a written one clears.
    pub w1c: ConfigSpace,
    /// Bytes in use by capabilities (and the header).
    pub used: ConfigSpace,
}

impl Masks {
    /// A plain function's: the header's writable registers, and everything above the header until a capability takes it.
    pub fn new(size: usize) -> Self {
        let zero = ConfigSpace(vec![0; size]);
        let (mut write, mut w1c, mut used) = (zero.clone(), zero.clone(), zero);
        write.set_byte(reg::CACHE_LINE_SIZE, 0xff);
        write.set_byte(reg::INTERRUPT_LINE, 0xff);
        let bits = command::IO | command::MEMORY | command::MASTER | command::INTX_DISABLE | command::SERR;
        write.set_word(reg::COMMAND, bits);
        write.fill(reg::HEADER_END..size, 0xff);
        w1c.set_word(reg::STATUS, status::ERRORS);
        used.fill(0..reg::HEADER_END, 0xff);
        Self { write, w1c, used }
    }

    /// Applies a guest's write.
    pub fn apply(&self, c: &mut ConfigSpace, at: usize, len: usize, val: u32) {
        for (i, v) in val.to_le_bytes().into_iter().enumerate().take(len) {
            let at = at + i;
            let w = self.write.byte(at);
            c.set_byte(at, ((c.byte(at) & !w) | (v & w)) & !(v & self.w1c.byte(at)));
        }
    }

    /// First free place above the header for a capability of `size` bytes.
    pub fn find_space(&self, size: usize) -> Option<usize> {
        let end = self.used.size().min(CONFIG_SIZE);
        let free = |at: &usize| (*at..*at + size).all(|i| self.used.byte(i) == 0);
        (reg::HEADER_END..end).step_by(4).find(|at| at + size <= end && free(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_decide_what_a_write_changes() {
        let (m, mut c) = (Masks::new(CONFIG_SIZE), ConfigSpace::default());
        c.set_word(reg::STATUS, 0xf910);
        m.apply(&mut c, reg::COMMAND, 4, 0x0100_ffff);
        assert_eq!((c.word(reg::COMMAND), c.word(reg::STATUS)), (0x507, 0xf810));
        m.apply(&mut c, reg::VENDOR_ID, 4, u32::MAX);
        assert_eq!(c.long(0), 0);
        m.apply(&mut c, 0xfe, 4, u32::MAX); // runs over the end
        assert_eq!(c.word(0xfe), 0xffff);
    }

    #[test]
    fn capabilities_get_aligned_free_space() {
        let mut m = Masks::new(CONFIG_SIZE);
        assert_eq!(m.find_space(12), Some(0x40));
        m.used.fill(0x44..0x45, 0xff);
        assert_eq!((m.find_space(4), m.find_space(8)), (Some(0x40), Some(0x48)));
        assert_eq!(m.find_space(0xb8), Some(0x48));
        assert_eq!(m.find_space(0xbc), None);
    }
}
