//! Type `pci-host-bridge`: configuration mechanism #1 (CONFIG_ADDRESS, CONFIG_DATA). PCI 3.0 §3.2.2.3.2.

use parking_lot::RwLock;
use qom::{Error, Handle, Prop, Ref, Result};
use serde::{Deserialize, Serialize};

use super::bus::PciBus;
use crate::locked::{Locked, MachineCell};
use crate::memory::{MemoryRegion, Ops};
use crate::sysbus::SysBusDevice;

/// CONFIG_ADDRESS. Bit 31 enables, 23–16 bus, 15–11 device, 10–8 function, 7–2 register.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct HostRegs {
    config_reg: u32,
}

/// Type `pci-host-bridge`.
#[derive(qom::Object)]
#[qom(name = "pci-host-bridge", parent = SysBusDevice, abstract)]
pub struct PciHostBridge {
    parent: SysBusDevice,
    #[property(name = "x-config-reg-migration-enabled", default = true)]
    migrate_config_reg: Prop<bool>,
    #[property(name = "bypass-iommu", default = false)]
    bypass_iommu: Prop<bool>,
    #[state]
    regs: MachineCell<HostRegs>,
    bus: RwLock<Handle<PciBus>>,
}

impl PciHostBridge {
    /// The root bus.
    ///
    /// # Errors
    /// Before realize.
    pub fn root_bus(&self) -> Result<Ref<PciBus>> {
        self.bus.read().clone().upgrade().ok_or_else(|| Error::generic("the host bridge has no bus yet"))
    }

    /// Names the root bus; in realize.
    pub fn set_root_bus(&self, bus: &Ref<PciBus>) {
        *self.bus.write() = Handle::new(Ref::object(bus)).unwrap_or_default();
    }

    /// Regions of CONFIG_ADDRESS and CONFIG_DATA, four bytes each; the bridge maps them.
    pub fn config_regions(&self) -> (MemoryRegion, MemoryRegion) {
        let idx = Ops { read: Self::address_read, write: Self::address_write, ..Ops::default() };
        let data = Ops { read: Self::data_read, write: Self::data_write, ..Ops::default() };
        (MemoryRegion::io(self, "pci-conf-idx", 4, idx), MemoryRegion::io(self, "pci-conf-data", 4, data))
    }

    /// CONFIG_ADDRESS.
    pub fn config_address(&self, m: &Locked) -> u32 {
        self.regs.ro(m).config_reg
    }

    /// Sets CONFIG_ADDRESS; reset clears it.
    fn set_config_address(&self, m: &mut Locked, val: u32) {
        self.regs.rw(m).config_reg = val;
    }

    fn address_read(&self, m: &mut Locked, _: u64, _: u32) -> u64 {
        self.config_address(m).into()
    }

    /// Narrower accesses are I/O cycles of their own, not CONFIG_ADDRESS's.
    fn address_write(&self, m: &mut Locked, off: u64, size: u32, val: u64) {
        if off == 0 && size == 4 {
            self.set_config_address(m, val as u32);
        }
    }

    // The byte lanes come from the port; what stands in bits 1:0 of the register is not masked, as in QEMU.
    fn data_read(&self, m: &mut Locked, off: u64, size: u32) -> u64 {
        match self.config_address(m) {
            a if a >> 31 == 0 => u64::MAX,
            a => self.config_read(m, a | (off as u32 & 3), size).into(),
        }
    }

    fn data_write(&self, m: &mut Locked, off: u64, size: u32, val: u64) {
        let a = self.config_address(m);
        if a >> 31 != 0 {
            self.config_write(m, a | (off as u32 & 3), size, val as u32);
        }
    }

    /// A configuration read of the function and register that `addr` names; all ones where there is none.
    pub fn config_read(&self, m: &mut Locked, addr: u32, size: u32) -> u32 {
        let found = self.root_bus().ok().and_then(|b| b.find_address(m, addr));
        found.map_or(u32::MAX, |d| d.config_read(m, addr & 0xff, size))
    }

    /// A configuration write.
    pub fn config_write(&self, m: &mut Locked, addr: u32, size: u32, val: u32) {
        let found = self.root_bus().ok().and_then(|b| b.find_address(m, addr));
        if let Some(d) = found {
            d.config_write(m, addr & 0xff, size, val);
        }
    }
}
