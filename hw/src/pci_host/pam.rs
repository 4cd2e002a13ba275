//! Programmable attribute map: where reads and writes of C0000-FFFFF go, RAM or PCI.
//! Source: Intel 82441FX (i440FX, 290549) §3.2.18. Not modelled: "write only" reads RAM as well.

use hw_core::{Locked, MemoryRegion};
use qom::Object;

/// Segments: F0000-FFFFF by PAM0 bits 5:4, then C0000-EFFFF in 16 KiB steps, two a register.
pub const SEGMENTS: usize = 13;

/// Address, size, PAM register and shift of segment `i`.
fn place(i: usize) -> (u64, u64, usize, u32) {
    match i {
        0 => (0xf_0000, 0x1_0000, 0, 4),
        i => (0xc_0000 + 0x4000 * (i as u64 - 1), 0x4000, i.div_ceil(2), if i % 2 == 1 { 0 } else { 4 }),
    }
}

/// One segment: a region for each of the four modes, of which one is enabled.
#[derive(Clone, Debug)]
pub struct PamSegment {
    index: usize,
    modes: [MemoryRegion; 4],
}

impl PamSegment {
    /// Makes segment `index` over `system`; mode 0 (PCI) is enabled.
    pub fn new(
        owner: &dyn Object,
        m: &mut Locked,
        system: &MemoryRegion,
        ram: &MemoryRegion,
        pci: &MemoryRegion,
        index: usize,
    ) -> PamSegment {
        let (at, size, _, _) = place(index);
        // In the order of QEMU's tree; a mode's bits: 1 = reads go to RAM, 2 = writes do.
        let read_write = MemoryRegion::alias(owner, "pam-ram", ram, at, size);
        let read_only = MemoryRegion::alias(owner, "pam-rom", ram, at, size);
        read_only.set_readonly(m, true);
        let write_only = MemoryRegion::alias(owner, "pam-pci", ram, at, size);
        let none = MemoryRegion::alias(owner, "pam-pci", pci, at, size);
        let modes = [none, read_only, write_only, read_write];
        for (i, region) in modes.iter().enumerate() {
            region.set_enabled(m, i == 0);
            system.add_subregion_overlap(m, at, region, 1);
        }
        PamSegment { index, modes }
    }

    /// Enables the mode that the PAM registers give the segment.
    pub fn update(&self, m: &mut Locked, pam: [u8; 7]) {
        let (_, _, register, shift) = place(self.index);
        let mode = usize::from(pam.get(register).copied().unwrap_or(0) >> shift & 3);
        for (i, region) in self.modes.iter().enumerate() {
            region.set_enabled(m, i == mode);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_tile_the_upper_memory_area() {
        let mut all: Vec<_> = (0..SEGMENTS).map(place).collect();
        all.sort_unstable();
        let mut at = 0xc_0000;
        for (start, size, register, _) in all {
            assert_eq!(start, at);
            assert!(register < 7);
            at += size;
        }
        assert_eq!(at, 0x10_0000);
    }
}
