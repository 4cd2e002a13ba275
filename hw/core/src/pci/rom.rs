//! The expansion ROM of a function. PCI 3.0 §6.3.

use qom::{Error, Result};

use super::bar::{BarKind, ROM};
use super::device::PciDevice;
use crate::loader::Roms;
use crate::locked::Locked;
use crate::memory::MemoryRegion;

/// Largest ROM.
const MAX: u64 = 2 << 30;

impl PciDevice {
    /// Puts the image of `romfile=` (or the class's) behind the expansion ROM register.
    pub(super) fn load_rom(&self, m: &mut Locked) -> Result<()> {
        let given = self.romfile.get();
        let default = given.is_empty().then(|| self.pci_class().romfile).flatten();
        let file = if given.is_empty() { default.unwrap_or_default().to_owned() } else { given };
        let wanted = self.romsize.get();
        let sized = wanted != u32::MAX;
        if sized && !wanted.is_power_of_two() {
            return Err(Error::generic(format!("romsize must be a power of two, not {wanted}")));
        }
        if self.rombar.get() == 0 || (file.is_empty() && !sized) {
            return Ok(());
        }
        let mut data = vec![];
        if !file.is_empty() {
            let path = self.core().roms.find(&file);
            let path = path.ok_or_else(|| Error::generic(format!("failed to find romfile \"{file}\"")))?;
            data = Roms::read_file(&path, MAX)?;
            self.romfile.set(file.clone());
        }
        let size = if sized { u64::from(wanted) } else { (data.len() as u64).next_power_of_two().max(0x800) };
        if data.len() as u64 > size {
            return Err(Error::generic(format!(
                "romfile \"{file}\" ({} bytes) is too large for ROM size {size}",
                data.len()
            )));
        }
        self.romsize.set(u32::try_from(size).unwrap_or(u32::MAX));
        if default.is_some() {
            self.patch_ids(&mut data);
        }
        let name = self.pci_class().rom_name.unwrap_or_else(|| self.type_name());
        let region = MemoryRegion::rom(&*self.object(), &format!("{name}.rom"), size)?;
        if let Some(block) = region.ram_block() {
            block.fill(0, size, 0xff);
            block.write(0, &data);
        }
        self.register_bar(m, ROM, BarKind::Rom, &region)
    }

    /// One image often serves several types: puts this one's ids into it and keeps the checksum (§6.3.1.2).
    fn patch_ids(&self, rom: &mut [u8]) {
        let k = self.pci_class();
        let word = |rom: &[u8], at: usize| Some(u16::from_le_bytes([*rom.get(at)?, *rom.get(at + 1)?]));
        if word(rom, 0) != Some(0xaa55) {
            return;
        }
        let Some(pcir) = word(rom, 0x18).map(usize::from) else { return };
        if rom.get(pcir..pcir + 4) != Some(b"PCIR") {
            return;
        }
        let mut sum = 0u8;
        for (at, id) in [(pcir + 4, k.vendor_id), (pcir + 6, k.device_id)] {
            for (i, new) in id.to_le_bytes().into_iter().enumerate() {
                if let Some(b) = rom.get_mut(at + i) {
                    sum = sum.wrapping_add(*b).wrapping_sub(new);
                    *b = new;
                }
            }
        }
        if let Some(b) = rom.get_mut(6) {
            *b = b.wrapping_add(sum);
        }
    }
}
