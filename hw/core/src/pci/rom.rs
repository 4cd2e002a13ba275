//! The expansion ROM of a function. PCI 3.0 §6.3.

use qom::{Error, Result};

use super::bar::{BarKind, ROM};
use super::config::reg;
use super::device::PciDevice;
use crate::loader::Roms;
use crate::locked::Locked;
use crate::memory::MemoryRegion;

/// Bytes of an image that its header and the structure it points to may lie in.
const HEADERS: u64 = 0x1_0020;
/// Largest ROM.
const MAX: u64 = 2 << 30;

impl PciDevice {
    /// Takes the image that there may be.
    pub(super) fn instance_init(&self) -> Result<()> {
        if let Some(file) = self.pci_class().optional_romfile
            && self.core().roms.find(file).is_some()
        {
            self.romfile.set(file.to_owned());
        }
        Ok(())
    }

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
        let name = self.pci_class().rom_name.unwrap_or_else(|| self.type_name());
        let region = MemoryRegion::rom(&*self.object(), &format!("{name}.rom"), size)?;
        if let Some(block) = region.ram_block() {
            block.fill(0, size, 0xff);
            block.write(0, &data);
        }
        self.register_bar(m, ROM, BarKind::Rom, &region)?;
        self.patch_rom_ids(m);
        Ok(())
    }

    /// One image often serves several types: puts this function's ids into that of its class and keeps the checksum (PCI 3.0 §6.3.1.2). A function
    /// whose ids change after [`PciDevice`]'s realize calls it then; firmware passes over an image with the ids of another.
    pub fn patch_rom_ids(&self, m: &Locked) {
        let (k, file) = (self.pci_class(), self.romfile.get());
        if ![k.romfile, k.optional_romfile].contains(&Some(file.as_str())) {
            return; // the user's own
        }
        let ids = [reg::VENDOR_ID, reg::DEVICE_ID].map(|at| self.config().ro(m).word(at));
        let bars = self.bars().read();
        let Some(block) = bars.get(ROM).and_then(|b| b.as_ref()?.region.ram_block()) else { return };
        let mut head = vec![0; HEADERS.min(block.len()) as usize];
        if block.read(0, &mut head) && patch_ids(&mut head, ids) {
            block.write(0, &head);
        }
    }
}

/// Puts vendor and device into an image; whether it is one.
fn patch_ids(rom: &mut [u8], ids: [u16; 2]) -> bool {
    let word = |rom: &[u8], at: usize| Some(u16::from_le_bytes([*rom.get(at)?, *rom.get(at + 1)?]));
    let Some(pcir) = word(rom, 0x18).map(usize::from) else { return false };
    if word(rom, 0) != Some(0xaa55) || rom.get(pcir..pcir + 4) != Some(b"PCIR") || rom.len() < pcir + 8 {
        return false;
    }
    let mut sum = 0u8;
    for (b, new) in rom.iter_mut().skip(pcir + 4).zip(ids.into_iter().flat_map(u16::to_le_bytes)) {
        sum = sum.wrapping_add(*b).wrapping_sub(new);
        *b = new;
    }
    if let Some(b) = rom.get_mut(6) {
        *b = b.wrapping_add(sum);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::patch_ids;

    #[test]
    fn ids_change_and_the_checksum_stays() {
        let mut rom = vec![0u8; 64];
        rom[..3].copy_from_slice(&[0x55, 0xaa, 1]);
        rom[0x18] = 0x20;
        rom[0x20..0x28].copy_from_slice(b"PCIR\x34\x12\x78\x56");
        let sum = |rom: &[u8]| rom.iter().fold(0u8, |s, b| s.wrapping_add(*b));
        let before = sum(&rom);
        assert!(patch_ids(&mut rom, [0x1af4, 0x1000]));
        assert_eq!((&rom[0x24..0x28], sum(&rom)), (&[0xf4, 0x1a, 0x00, 0x10][..], before));
        let last = rom.len() - 1;
        for (at, byte) in [(0x18, last as u8), (0x20, b'x'), (0, 0)] {
            let mut bad = rom.clone();
            bad[at] = byte;
            let kept = bad.clone();
            assert!(!patch_ids(&mut bad, [1, 2]) && bad == kept, "{at}");
        }
    }
}
