//! The ISA bus, type `ISA`, its devices, type `isa-device`, and the plain bridge `isabus-bridge`.
//! Source: IBM PC AT Technical Reference (bus signals IRQ, DRQ, TC).

use std::sync::Arc;

use parking_lot::RwLock;
use qom::{Class, Error, Handle, ObjRef, Ref, Result, Scope};

use crate::core::Core;
use crate::irq::Line;
use crate::locked::Locked;
use crate::memory::MemoryRegion;
use crate::qdev::{Bus, BusClass, BusImpl, Category, Device, DeviceClass};
use crate::sysbus::SysBusDevice;

/// Lines of an ISA bus.
pub const ISA_IRQS: usize = 16;

/// What a DMA channel calls: `(machine, channel, bytes done, bytes in all) -> bytes done`. It moves data with
/// [`IsaDma::read_memory`] and [`IsaDma::write_memory`].
pub type TransferHandler = Arc<dyn Fn(&mut Locked, usize, u32, u32) -> u32 + Send + Sync>;

/// Interface `isa-dma`: a DMA controller (8237) as devices on the bus see it. Channels count within the controller.
pub trait IsaDma {
    /// Whether the channel reloads at terminal count.
    fn has_autoinitialization(&self, m: &mut Locked, channel: usize) -> bool;
    /// Copies from guest memory at the channel's position `pos` into `buf`; answers the bytes copied.
    fn read_memory(&self, m: &mut Locked, channel: usize, buf: &mut [u8], pos: u32) -> usize;
    /// Copies `buf` into guest memory at the channel's position `pos`.
    fn write_memory(&self, m: &mut Locked, channel: usize, buf: &[u8], pos: u32) -> usize;
    /// Raises DREQ.
    fn hold_dreq(&self, m: &mut Locked, channel: usize);
    /// Drops DREQ.
    fn release_dreq(&self, m: &mut Locked, channel: usize);
    /// Has the controller look at its channels soon.
    fn schedule(&self, m: &mut Locked);
    /// Sets what a granted channel calls.
    fn register_channel(&self, channel: usize, handler: TransferHandler);
}

qom::interface!(dyn IsaDma, "isa-dma");

/// Type `ISA`.
#[derive(qom::Object)]
#[qom(name = "ISA", parent = Bus, methods(BusClass))]
pub struct IsaBus {
    parent: Bus,
    space: RwLock<Option<(MemoryRegion, MemoryRegion)>>,
    irqs: RwLock<Vec<Line>>,
    dma: RwLock<[Handle<dyn IsaDma>; 2]>,
}

impl BusImpl for IsaBus {
    fn fw_dev_path(&self, dev: &Device) -> Option<String> {
        let name = dev.class_of().fw_name.unwrap_or(dev.type_name());
        let port = dev.object().cast::<IsaDevice>().and_then(IsaDevice::first_port);
        Some(match port {
            Some(port) => format!("{name}@{port:04x}"),
            None => name.to_owned(),
        })
    }
}

impl IsaBus {
    /// The bus below `bridge`, with the given memory and I/O port space.
    ///
    /// # Errors
    /// The bridge has such a bus already.
    pub fn create(bridge: &Device, memory: &MemoryRegion, io: &MemoryRegion) -> Result<Ref<IsaBus>> {
        let bus: Ref<IsaBus> = Bus::create(bridge, "ISA", None)?;
        *bus.space.write() = Some((memory.clone(), io.clone()));
        Ok(bus)
    }

    /// Sets the sixteen interrupt lines.
    pub fn register_input_irqs(&self, irqs: Vec<Line>) {
        *self.irqs.write() = irqs;
    }

    /// Line `n`, 0 to 15.
    pub fn irq(&self, n: usize) -> Option<Line> {
        self.irqs.read().get(n).cloned()
    }

    /// Memory as the bus sees it.
    pub fn memory(&self) -> MemoryRegion {
        self.space.read().as_ref().map_or_else(|| Core::of(self).system_memory(), |s| s.0.clone())
    }

    /// I/O ports as the bus sees them.
    pub fn io(&self) -> MemoryRegion {
        self.space.read().as_ref().map_or_else(|| Core::of(self).system_io(), |s| s.1.clone())
    }

    /// Sets the controllers of DMA channels 0–3 and 4–7.
    pub fn set_dma(&self, low: &ObjRef, high: &ObjRef) {
        *self.dma.write() = [low, high].map(|o| Handle::new(o).unwrap_or_default());
    }

    /// The controller of DMA channel `n` (0 to 7).
    pub fn dma(&self, n: usize) -> Option<Ref<dyn IsaDma>> {
        let [low, high] = &*self.dma.read();
        match n {
            0..=3 => low.upgrade(),
            4..=7 => high.upgrade(),
            _ => None,
        }
    }

    /// Maps a region at `port`.
    pub fn map_io(&self, m: &mut Locked, port: u64, region: &MemoryRegion) {
        self.io().add_subregion(m, port, region);
    }
}

/// Type `isa-device`.
#[derive(qom::Object)]
#[qom(name = "isa-device", parent = Device, abstract, class_init = IsaDevice::class_init)]
pub struct IsaDevice {
    parent: Device,
    mapped: RwLock<Vec<(u64, MemoryRegion)>>,
}

impl IsaDevice {
    fn class_init(c: &mut Class) {
        c.edit::<DeviceClass>().bus_type = Some("ISA");
    }

    /// The bus it is on.
    ///
    /// # Errors
    /// It is not on one yet.
    pub fn isa_bus(&self) -> Result<Ref<IsaBus>> {
        let none = || Error::generic(format!("Device '{}' is not on an ISA bus", self.label()));
        self.bus_as::<IsaBus>().ok_or_else(none)
    }

    /// Maps a region at `port`. [`IsaDevice::unmap_io`] takes it away again.
    ///
    /// # Errors
    /// It is not on a bus yet.
    pub fn map_io(&self, m: &mut Locked, port: u64, region: &MemoryRegion) -> Result<()> {
        self.isa_bus()?.map_io(m, port, region);
        self.mapped.write().push((port, region.clone()));
        Ok(())
    }

    /// Unmaps all that [`IsaDevice::map_io`] mapped: for `unrealize`.
    pub fn unmap_io(&self, m: &mut Locked) {
        let mapped = std::mem::take(&mut *self.mapped.write());
        mapped.iter().for_each(|(_, r)| r.unmap(m));
    }

    fn first_port(&self) -> Option<u64> {
        self.mapped.read().first().map(|p| p.0)
    }

    /// Line `n` of the bus.
    ///
    /// # Errors
    /// There is no line of this number.
    pub fn isa_irq(&self, n: u32) -> Result<Line> {
        let line = self.isa_bus()?.irq(n as usize);
        line.ok_or_else(|| Error::generic(format!("Invalid IRQ {n} for ISA device '{}'", self.type_name())))
    }
}

/// Type `isabus-bridge`: a bridge without registers of its own.
#[derive(qom::Object)]
#[qom(name = "isabus-bridge", parent = SysBusDevice, class_init = IsaBridge::class_init)]
pub struct IsaBridge {
    parent: SysBusDevice,
}

impl IsaBridge {
    fn class_init(c: &mut Class) {
        let d = c.edit::<DeviceClass>();
        d.categories = vec![Category::Bridge];
        d.fw_name = Some("isa");
    }
}

/// Creates a device for an ISA bus, not realized yet: set its properties, then [`Device::realize_on`].
///
/// # Errors
/// Unknown type, or not a device.
pub fn isa_new(scope: &Arc<Scope>, type_name: &str) -> Result<Ref<Device>> {
    scope.object_new_as(type_name)
}

/// Creates a device and realizes it on `bus`.
///
/// # Errors
/// As [`Device::qdev_realize`].
pub fn isa_create_simple(m: &mut Locked, bus: &Ref<IsaBus>, type_name: &str) -> Result<Ref<Device>> {
    let dev = isa_new(bus.scope(), type_name)?;
    let bus = Ref::new(Ref::object(bus).clone()).ok_or("not a bus")?;
    dev.realize_on(m, &bus)?;
    Ok(dev)
}
