//! Base address registers: where a function's regions appear. PCI 3.0 §6.2.5.

use qom::{Error, Result};

use super::config::{ConfigSpace, command, reg};
use super::device::PciDevice;
use crate::locked::Locked;
use crate::memory::MemoryRegion;

/// Number of the expansion ROM among the base addresses.
pub(super) const ROM: usize = 6;

/// What a base address register decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory below 4 GiB.
    Mem32,
    /// Memory below 4 GiB, prefetchable.
    Mem32Prefetch,
    /// Memory anywhere; takes two registers.
    Mem64,
    /// Memory anywhere, prefetchable; takes two registers.
    Mem64Prefetch,
    /// The expansion ROM.
    Rom,
}

impl BarKind {
    /// Low bits of the register.
    pub fn bits(self) -> u8 {
        match self {
            BarKind::Io => 1,
            BarKind::Mem32 | BarKind::Rom => 0,
            BarKind::Mem32Prefetch => 8,
            BarKind::Mem64 => 4,
            BarKind::Mem64Prefetch => 12,
        }
    }

    /// Whether two registers hold the address.
    pub fn is_64(self) -> bool {
        matches!(self, BarKind::Mem64 | BarKind::Mem64Prefetch)
    }
}

/// A region behind a base address register.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    pub kind: BarKind,
    pub size: u64,
    pub region: MemoryRegion,
    /// Where it is mapped now.
    pub mapped: Option<u64>,
}

/// Offset of register `n` (6: the expansion ROM) in the header of a function or bridge.
pub(super) fn offset(n: usize, bridge: bool) -> usize {
    match n {
        ROM if bridge => reg::ROM_ADDRESS1,
        ROM => reg::ROM_ADDRESS,
        n => reg::BAR0 + n * 4,
    }
}

/// The address a register decodes; `None`: switched off, or impossible.
pub(super) fn decoded(c: &ConfigSpace, n: usize, bar: &Bar, bridge: bool) -> Option<u64> {
    let at = offset(n, bridge);
    let cmd = c.word(reg::COMMAND);
    let addr = if bar.kind.is_64() { c.get(at, 8) } else { c.get(at, 4) };
    let on = match bar.kind {
        BarKind::Io => cmd & command::IO != 0,
        BarKind::Rom => cmd & command::MEMORY != 0 && addr & 1 != 0,
        _ => cmd & command::MEMORY != 0,
    };
    let addr = addr & !(bar.size - 1);
    let last = addr.checked_add(bar.size - 1)?;
    let limit = if bar.kind.is_64() { u64::MAX } else { u32::MAX.into() };
    // The very top of the space is what sizing writes leave behind.
    (on && last > addr && last < limit).then_some(addr)
}

impl PciDevice {
    /// Puts `region` behind base address register `n` (0 to 5). Its size is a power of two, at least 4 (I/O) or 16 bytes.
    ///
    /// # Errors
    /// No such register, or a size that cannot be decoded.
    pub fn register_bar(&self, m: &mut Locked, n: usize, kind: BarKind, region: &MemoryRegion) -> Result<()> {
        let size = region.size();
        let least = if kind == BarKind::Io { 4 } else { 16 };
        let last = if kind.is_64() { 4 } else { 5 };
        if !size.is_power_of_two() || size < least || (kind == BarKind::Rom) != (n == ROM) || (n != ROM && n > last) {
            return Err(Error::generic(format!(
                "PCI: region '{}' of {size:#x} bytes cannot be behind BAR {n} of {}",
                region.name(),
                self.type_name()
            )));
        }
        let at = offset(n, self.is_bridge());
        let len = if kind.is_64() { 8 } else { 4 };
        let enable = u64::from(kind == BarKind::Rom);
        self.edit_masks(|k| {
            k.write.set(at, len, !(size - 1) | enable);
        });
        self.config().rw(m).set(at, len, kind.bits().into());
        let bar = Bar { kind, size, region: region.clone(), mapped: None };
        if let Some(slot) = self.bars().write().get_mut(n) {
            *slot = Some(bar);
        }
        Ok(())
    }

    /// Address at which the region behind register `n` answers now.
    pub fn bar_address(&self, n: usize) -> Option<u64> {
        self.bars().read().get(n)?.as_ref()?.mapped
    }

    /// Kind, size and current address of every register in use; number 6 is the expansion ROM.
    pub fn bar_list(&self) -> Vec<(usize, BarKind, u64, Option<u64>)> {
        let bars = self.bars().read();
        bars.iter().enumerate().filter_map(|(n, b)| b.as_ref().map(|b| (n, b.kind, b.size, b.mapped))).collect()
    }

    /// Maps and unmaps regions as the registers say now.
    pub fn update_mappings(&self, m: &mut Locked) {
        let Some(bus) = self.pci_bus() else { return };
        let bridge = self.is_bridge();
        m.memory_transaction(|m| {
            let mut bars = self.bars().write().clone();
            for (n, slot) in bars.iter_mut().enumerate() {
                let Some(bar) = slot else { continue };
                let at = decoded(self.config().ro(m), n, bar, bridge);
                if at == bar.mapped {
                    continue;
                }
                bar.region.unmap(m);
                if let Some(addr) = at {
                    let space = if bar.kind == BarKind::Io { bus.io() } else { bus.memory() };
                    space.add_subregion_overlap(m, addr, &bar.region, 1);
                }
                bar.mapped = at;
            }
            *self.bars().write() = bars;
        });
    }

    /// Unmaps everything: the function leaves the bus.
    pub(super) fn unmap_all(&self, m: &mut Locked) {
        m.memory_transaction(|m| {
            let mut bars = self.bars().write().clone();
            for bar in bars.iter_mut().flatten() {
                bar.region.unmap(m);
                bar.mapped = None;
            }
            *self.bars().write() = bars;
        });
    }

    /// Base addresses back to their reset values.
    pub(super) fn reset_bars(&self, m: &mut Locked) {
        let bridge = self.is_bridge();
        let bars = self.bars().read().clone();
        for (n, bar) in bars.iter().enumerate() {
            if let Some(bar) = bar {
                let len = if bar.kind.is_64() { 8 } else { 4 };
                self.config().rw(m).set(offset(n, bridge), len, bar.kind.bits().into());
            }
        }
        self.update_mappings(m);
    }
}
