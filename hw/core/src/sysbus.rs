//! Type `sys-bus-device` and its bus, type `System`: devices wired by the board.

use parking_lot::RwLock;
use qom::{Class, Error, Ref, Result, Scope};
use std::sync::Arc;

use crate::core::Core;
use crate::irq::{IrqOut, Line};
use crate::locked::Locked;
use crate::memory::MemoryRegion;
use crate::qdev::{Bus, BusClass, BusImpl, Device, DeviceClass};

/// Type `System`: the main system bus.
#[derive(qom::Object)]
#[qom(name = "System", parent = Bus, methods(BusClass))]
pub struct SystemBus {
    parent: Bus,
}

impl BusImpl for SystemBus {
    fn fw_dev_path(&self, dev: &Device) -> Option<String> {
        let o = dev.object();
        let d = o.cast::<SysBusDevice>()?;
        let name = dev.class_of().fw_name.unwrap_or(dev.type_name());
        let (mmio, port) = (d.mmio(0), d.ports.read().first().cloned());
        Some(match (mmio, port) {
            (Some(r), _) => format!("{name}@{:016x}", r.addr()),
            (None, Some(r)) => format!("{name}@i{:04x}", r.addr()),
            (None, None) => name.to_owned(),
        })
    }
}

/// Type `sys-bus-device`: memory-mapped regions and lines by number.
#[derive(qom::Object)]
#[qom(name = "sys-bus-device", parent = Device, abstract, class_init = SysBusDevice::class_init)]
pub struct SysBusDevice {
    parent: Device,
    mmio: RwLock<Vec<MemoryRegion>>,
    ports: RwLock<Vec<MemoryRegion>>,
}

/// Name of the lines made by [`SysBusDevice::init_irq`].
const IRQ: &str = "sysbus-irq";

/// The main system bus, made on first use as `/machine/unattached/sysbus`.
///
/// # Errors
/// When the scope has no core.
pub fn system_bus(scope: &Arc<Scope>) -> Result<Ref<Bus>> {
    let core = scope.ext::<Core>().ok_or("there is no machine")?;
    if let Some(bus) = core.sysbus() {
        return Ok(bus);
    }
    let bus = Bus::create_root(scope, "System", "main-system-bus")?;
    scope.container("/machine/unattached")?.add_child("sysbus", Ref::object(&bus))?;
    core.set_sysbus(&bus);
    core.resets.add(Ref::object(&bus));
    Ok(bus)
}

impl SysBusDevice {
    fn class_init(c: &mut Class) {
        let d = c.edit::<DeviceClass>();
        d.bus_type = Some("System");
        // Boards wire them; types that do without say so.
        d.user_creatable = false;
        d.hotpluggable = false;
    }

    /// Puts the device on the main system bus and realizes it.
    ///
    /// # Errors
    /// As [`Device::qdev_realize`].
    pub fn realize_sysbus(&self, m: &mut Locked) -> Result<()> {
        let bus = system_bus(self.scope())?;
        self.realize_on(m, &bus)
    }

    /// Adds a memory-mapped region; its number is how many came before.
    pub fn init_mmio(&self, region: &MemoryRegion) {
        self.mmio.write().push(region.clone());
    }

    /// Adds an I/O port region that somebody maps.
    pub fn init_ioport(&self, region: &MemoryRegion) {
        let mut ports = self.ports.write();
        if !ports.iter().any(|r| r.is(region)) {
            ports.push(region.clone());
        }
    }

    /// Adds an output line.
    pub fn init_irq(&self, out: &IrqOut) {
        self.gpio_out(IRQ, out);
    }

    /// Region `n`.
    pub fn mmio(&self, n: usize) -> Option<MemoryRegion> {
        self.mmio.read().get(n).cloned()
    }

    /// The regions, in order.
    pub fn mmios(&self) -> Vec<MemoryRegion> {
        self.mmio.read().clone()
    }

    /// Maps region `n` into guest memory.
    ///
    /// # Errors
    /// There is no such region.
    pub fn mmio_map(&self, m: &mut Locked, n: usize, addr: u64) -> Result<()> {
        self.mmio_map_overlap(m, n, addr, 0)
    }

    /// Maps region `n` into guest memory, with a priority.
    ///
    /// # Errors
    /// There is no such region.
    pub fn mmio_map_overlap(&self, m: &mut Locked, n: usize, addr: u64, priority: i32) -> Result<()> {
        let what = || Error::generic(format!("Device '{}' has no region {n}", self.label()));
        let region = self.mmio(n).ok_or_else(what)?;
        self.core().system_memory().add_subregion_overlap(m, addr, &region, priority);
        Ok(())
    }

    /// Maps a region into the I/O ports.
    pub fn map_io(&self, m: &mut Locked, port: u64, region: &MemoryRegion) {
        self.core().system_io().add_subregion(m, port, region);
        self.init_ioport(region);
    }

    /// Connects line `n`.
    ///
    /// # Errors
    /// There is no such line.
    pub fn connect_irq(&self, n: usize, line: Line) -> Result<()> {
        self.connect(IRQ, n, line)
    }
}
