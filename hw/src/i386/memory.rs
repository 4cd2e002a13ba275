//! Guest memory of a PC: the split around the PCI hole, firmware, the option ROM area, the e820 map.

use hw_core::{Core, Locked, MemoryRegion};
use qom::{Error, Object, Result};
use std::path::Path;

/// Where RAM goes above 4 GiB.
pub const ABOVE: u64 = 4 << 30;
const BIOS_UNIT: u64 = 64 << 10;
const ISA_BIOS: u64 = 128 << 10;
const OPTION_ROMS: (u64, u64) = (0xc_0000, 0x2_0000);
/// The HyperTransport range that AMD machines cannot map RAM in.
const AMD_HT: (u64, u64) = (0xfd_0000_0000, 0x3_0000_0000);

/// RAM below and above the hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Bytes from address 0.
    pub below: u64,
    /// Bytes from 4 GiB.
    pub above: u64,
}

impl Split {
    /// i440FX: RAM that would reach into the hole keeps 3 GiB below it. `max_below` is the machine's limit
    /// (`max-ram-below-4g`, 3.5 GiB by default).
    pub fn new(ram: u64, max_below: u64) -> Split {
        let mut low = max_below;
        if ram >= low && low > 0xc000_0000 {
            low = 0xc000_0000;
        }
        Split { below: ram.min(low), above: ram.saturating_sub(low) }
    }

    /// Address ranges of RAM: first address and length.
    pub fn ranges(self) -> Vec<(u64, u64)> {
        let all = [(0, self.below), (ABOVE, self.above)];
        all.into_iter().filter(|r| r.1 != 0).collect()
    }
}

/// The map of etc/e820: address, length, type (1 RAM, 2 reserved), as the guest reads it.
pub fn e820(split: Split, amd: bool) -> Vec<u8> {
    let reserved = amd.then_some((AMD_HT.0, AMD_HT.1, 2u32));
    let ram = split.ranges().into_iter().map(|(at, len)| (at, len, 1));
    let entry = |(at, len, kind): (u64, u64, u32)| {
        [&at.to_le_bytes()[..], &len.to_le_bytes()[..], &kind.to_le_bytes()[..]].concat()
    };
    reserved.into_iter().chain(ram).flat_map(entry).collect()
}

/// Maps the machine's RAM.
pub fn map_ram(owner: &dyn Object, m: &mut Locked, system: &MemoryRegion, ram: &MemoryRegion, split: Split) {
    system.add_subregion(m, 0, &MemoryRegion::alias(owner, "ram-below-4g", ram, 0, split.below));
    if split.above != 0 {
        system.add_subregion(m, ABOVE, &MemoryRegion::alias(owner, "ram-above-4g", ram, split.below, split.above));
    }
}

/// Loads the firmware below 4 GiB, its last 128 KiB below 1 MiB, and makes the option ROM area.
///
/// # Errors
/// There is no such file, or it is no multiple of 64 KiB, or larger than `max`.
pub fn load_firmware(
    owner: &dyn Object,
    core: &Core,
    m: &mut Locked,
    pci: &MemoryRegion,
    name: &str,
    max: u64,
) -> Result<()> {
    let path = core.roms.find(name).ok_or_else(|| {
        Error::generic(format!(
            "could not load PC BIOS '{name}': it is in no firmware folder (-L); Debian's package is 'seabios'"
        ))
    })?;
    let data = hw_core::loader::Roms::read_file(&path, max)
        .map_err(|e| Error::generic(format!("could not load PC BIOS '{name}': {e}")))?;
    let size = data.len() as u64;
    if !size.is_multiple_of(BIOS_UNIT) {
        return Err(Error::generic(format!(
            "could not load PC BIOS '{name}': its size of {size} bytes is not a multiple of 64 KiB"
        )));
    }
    let bios = MemoryRegion::rom(owner, "pc.bios", size)?;
    let file = Path::new(name).file_name().map_or_else(|| name.to_owned(), |f| f.to_string_lossy().into_owned());
    core.roms.add_to_region(&file, &data, &bios)?;
    let low = size.min(ISA_BIOS);
    let isa = MemoryRegion::alias(owner, "isa-bios", &bios, size - low, low);
    isa.set_readonly(m, true);
    pci.add_subregion_overlap(m, (1 << 20) - low, &isa, 1);
    pci.add_subregion(m, ABOVE - size, &bios);
    let roms = MemoryRegion::rom(owner, "pc.rom", OPTION_ROMS.1)?;
    pci.add_subregion_overlap(m, OPTION_ROMS.0, &roms, 1);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn the_split_follows_the_reference() {
        for (ram, below, above) in [
            (128 << 20, 128 << 20, 0),
            (3 * GIB, 3 * GIB, 0),
            (3583 << 20, 3583 << 20, 0),
            (3584 << 20, 3 * GIB, 512 << 20),
            (8 * GIB, 3 * GIB, 5 * GIB),
        ] {
            assert_eq!(Split::new(ram, 0xe000_0000), Split { below, above }, "{ram:#x}");
        }
    }

    #[test]
    fn e820_lists_the_reserved_range_first() {
        let map = e820(Split { below: 128 << 20, above: 0 }, true);
        let hex: String = map.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "00000000fd0000000000000003000000020000000000000000000000000000080000000001000000");
    }
}
