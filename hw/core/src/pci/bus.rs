//! Type `PCI`: places for 256 functions, the spaces they decode, and where their interrupts go.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use qom::{Base, Error, Handle, Object, Ref, Result};
use serde::{Deserialize, Serialize};

use super::config::reg;
use super::device::PciDevice;
use crate::core::Core;
use crate::locked::{Locked, MachineCell};
use crate::memory::MemoryRegion;
use crate::qdev::{Bus, BusClass, BusImpl, Device, Phase};

/// Maps a function and its pin (0 for INTA) to one of the bus's lines.
pub type IrqMapper = Arc<dyn Fn(&PciDevice, usize) -> usize + Send + Sync>;
/// Sets one of the bus's lines.
pub type IrqSetter = Arc<dyn Fn(&mut Locked, usize, bool) + Send + Sync>;

/// How many functions assert each line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct IrqCounts(Vec<u32>);

#[derive(Clone, Default)]
struct Wiring {
    memory: Option<MemoryRegion>,
    io: Option<MemoryRegion>,
    map: Option<IrqMapper>,
    set: Option<IrqSetter>,
    lines: usize,
    first: u8,
    reserved: u32,
}

/// Type `PCI`.
#[derive(qom::Object)]
#[qom(name = "PCI", parent = Bus, methods(BusClass))]
pub struct PciBus {
    parent: Bus,
    wiring: RwLock<Wiring>,
    places: Mutex<Vec<(u8, Handle<PciDevice>)>>,
    #[state]
    counts: MachineCell<IrqCounts>,
}

/// Line of a pin behind a bridge: INTA of device 1 is INTB of the bridge. PCI-to-PCI Bridge 1.2 §9.1.
pub fn swizzle(dev: &PciDevice, pin: usize) -> usize {
    (pin + usize::from(dev.slot())) % 4
}

impl BusImpl for PciBus {
    fn reset(&self, m: &mut Locked, phase: Phase) {
        if phase == Phase::Hold {
            for dev in self.functions() {
                dev.bus_reset(m);
            }
        }
    }

    fn dev_path(&self, dev: &Device) -> Option<String> {
        let o = dev.object();
        let d = o.cast::<PciDevice>()?;
        Some(format!("0000:{:02x}:{:02x}.{:x}", self.number_hint(), d.slot(), d.function()))
    }

    fn fw_dev_path(&self, dev: &Device) -> Option<String> {
        let o = dev.object();
        let d = o.cast::<PciDevice>()?;
        let name = class_name(d)
            .unwrap_or_else(|| format!("pci{:04x},{:04x}", d.pci_class().vendor_id, d.pci_class().device_id));
        Some(match d.function() {
            0 => format!("{name}@{:x}", d.slot()),
            f => format!("{name}@{:x},{f:x}", d.slot()),
        })
    }
}

/// Open Firmware's name for a class of device. PCI Bus Binding 2.1 §2.5.
fn class_name(d: &PciDevice) -> Option<String> {
    const NAMES: [(u16, &str); 24] = [
        (0x0001, "display"),
        (0x0100, "scsi"),
        (0x0101, "ide"),
        (0x0102, "fdc"),
        (0x0103, "ipi"),
        (0x0104, "raid"),
        (0x0200, "ethernet"),
        (0x0201, "token-ring"),
        (0x0202, "fddi"),
        (0x0203, "atm"),
        (0x0300, "display"),
        (0x0400, "video"),
        (0x0401, "sound"),
        (0x0500, "memory"),
        (0x0501, "flash"),
        (0x0600, "host"),
        (0x0601, "isa"),
        (0x0602, "eisa"),
        (0x0603, "mca"),
        (0x0604, "pci-bridge"),
        (0x0605, "pcmcia"),
        (0x0606, "nubus"),
        (0x0607, "cardbus"),
        (0x0c03, "usb"),
    ];
    let class = d.pci_class().class_id;
    NAMES.iter().find(|n| n.0 == class).map(|n| n.1.to_owned())
}

impl PciBus {
    /// The root bus below a host bridge, with the spaces its functions decode. The name is `pci.0` by default.
    ///
    /// # Errors
    /// The name is taken.
    pub fn create_root(
        host: &Device,
        name: Option<&str>,
        memory: &MemoryRegion,
        io: &MemoryRegion,
        first_devfn: u8,
    ) -> Result<Ref<PciBus>> {
        let bus: Ref<PciBus> = Bus::create(host, "PCI", name)?;
        {
            let mut w = bus.wiring.write();
            (w.memory, w.io, w.first) = (Some(memory.clone()), Some(io.clone()), first_devfn);
        }
        Ok(bus)
    }

    /// Sets the bus's `n` interrupt lines: `map` chooses one for a function's pin, `set` drives it. A bus without lines passes
    /// its functions' pins on to its bridge, mapped by `map`.
    pub fn set_irqs(&self, m: &mut Locked, n: usize, map: IrqMapper, set: Option<IrqSetter>) {
        {
            let mut w = self.wiring.write();
            (w.lines, w.map, w.set) = (n, Some(map), set);
        }
        self.counts.rw(m).0 = vec![0; n];
    }

    /// Marks devices (bits by device number) that nobody may be put on automatically or by address.
    pub fn reserve_slots(&self, mask: u32) {
        self.wiring.write().reserved |= mask;
    }

    /// Memory that functions decode.
    pub fn memory(&self) -> MemoryRegion {
        self.wiring.read().memory.clone().unwrap_or_else(|| Core::of(self).system_memory())
    }

    /// I/O ports that functions decode.
    pub fn io(&self) -> MemoryRegion {
        self.wiring.read().io.clone().unwrap_or_else(|| Core::of(self).system_io())
    }

    /// The bridge function that provides the bus; `None` for a root bus.
    pub fn bridge(&self) -> Option<Ref<PciDevice>> {
        Ref::new(Ref::into_object(self.parent_device()?))
    }

    /// Whether a host bridge provides it.
    pub fn is_root(&self) -> bool {
        self.bridge().is_none()
    }

    /// Bus number, as the guest set it up.
    pub fn number(&self, m: &Locked) -> u8 {
        self.bridge().map_or(0, |b| b.config().ro(m).byte(reg::SECONDARY_BUS))
    }

    /// Bus number where the machine lock is not at hand: that of root buses.
    pub(super) fn number_hint(&self) -> u8 {
        0
    }

    /// The functions, by device and function number.
    pub fn functions(&self) -> Vec<Ref<PciDevice>> {
        let mut all: Vec<(u8, Ref<PciDevice>)> =
            self.places.lock().iter().filter_map(|(n, d)| Some((*n, d.upgrade()?))).collect();
        all.sort_by_key(|d| d.0);
        all.into_iter().map(|d| d.1).collect()
    }

    /// The function at a device and function number.
    pub fn find(&self, devfn: u8) -> Option<Ref<PciDevice>> {
        self.places.lock().iter().find(|(n, _)| *n == devfn).and_then(|(_, d)| d.upgrade())
    }

    /// The bus of a number at or below this one.
    pub fn find_bus(&self, m: &Locked, number: u8) -> Option<Ref<PciBus>> {
        if self.number(m) == number {
            return self.as_ref();
        }
        let below = self.functions().into_iter().filter(|d| d.is_bridge()).find(|d| {
            let c = d.config().ro(m);
            (c.byte(reg::SECONDARY_BUS)..=c.byte(reg::SUBORDINATE_BUS)).contains(&number)
        })?;
        let bus: Ref<PciBus> = below.child_buses().into_iter().find_map(Ref::new)?;
        bus.find_bus(m, number)
    }

    fn as_ref(&self) -> Option<Ref<PciBus>> {
        let base: &Base = self.base();
        Ref::new(base.upgrade()?)
    }

    /// The function a type 0 or 1 address names: bus, device and function number in bits 23–8.
    pub fn find_address(&self, m: &Locked, addr: u32) -> Option<Ref<PciDevice>> {
        let bus = (addr >> 16) as u8;
        let devfn = (addr >> 8) as u8;
        if bus == 0 && self.is_root() {
            return self.find(devfn);
        }
        self.find_bus(m, bus)?.find(devfn)
    }

    fn occupant(d: &PciDevice) -> String {
        format!("{},id={}", d.type_name(), d.id().unwrap_or_default())
    }

    /// Finds the function's place, or checks the one it wants, and puts it there.
    pub(super) fn take_place(&self, m: &mut Locked, d: &PciDevice) -> Result<u8> {
        let (name, w) = (d.type_name(), self.wiring.read().clone());
        let me = d.object();
        let other = |n: u8| self.find(n).filter(|o| !Arc::ptr_eq(Ref::object(o), &me));
        let reserved = |n: u8| w.reserved >> (n >> 3) & 1 != 0;
        let devfn = match d.wanted().byte() {
            None => {
                let free = (w.first..=0xf8).step_by(8).find(|n| other(*n).is_none() && !reserved(*n));
                free.ok_or_else(|| {
                    Error::generic(format!("PCI: no slot/function available for {name}, all in use or reserved"))
                })?
            }
            Some(n) => {
                let (slot, f) = (n >> 3, n & 7);
                if reserved(n) {
                    return Err(Error::generic(format!(
                        "PCI: slot {slot} function {f} not available for {name}, reserved"
                    )));
                }
                if let Some(o) = other(n) {
                    return Err(Error::generic(format!(
                        "PCI: slot {slot} function {f} not available for {name}, in use by {}",
                        Self::occupant(&o)
                    )));
                }
                n
            }
        };
        let (slot, function) = (devfn >> 3, devfn & 7);
        let first = if function == 0 { None } else { other(devfn & !7) };
        if let Some(first) = first {
            if d.is_hotplugged() {
                return Err(Error::generic(format!(
                    "PCI: slot {slot} function 0 already occupied by {}, new func {name} cannot be exposed to guest.",
                    first.type_name()
                )));
            }
            if first.config().ro(m).byte(reg::HEADER_TYPE) & 0x80 == 0 {
                return Err(Error::generic(format!(
                    "PCI: single function device can't be populated in function {slot:x}.{function:x}"
                )));
            }
        }
        let mut others = (1..8).map(|f| devfn | f);
        if function == 0
            && !d.is_multifunction()
            && let Some(n) = others.find(|n| other(*n).is_some())
        {
            return Err(Error::generic(format!(
                "PCI: {slot:x}.0 indicates single function, but {slot:x}.{:x} is already populated.",
                n & 7
            )));
        }
        let mut places = self.places.lock();
        places.retain(|(n, h)| *n != devfn && h.upgrade().is_some_and(|o| !Arc::ptr_eq(Ref::object(&o), &me)));
        places.push((devfn, Handle::new(&me).unwrap_or_default()));
        Ok(devfn)
    }

    pub(super) fn leave_place(&self, d: &PciDevice) {
        let devfn = d.devfn();
        self.places.lock().retain(|(n, _)| *n != devfn);
    }

    /// One more, or one less, function asserts the line of its pin.
    pub(super) fn change_irq(&self, m: &mut Locked, d: &PciDevice, pin: usize, on: bool) {
        let w = self.wiring.read().clone();
        let line = w.map.map_or_else(|| swizzle(d, pin), |map| map(d, pin));
        let Some(set) = w.set else {
            if let Some(bridge) = self.bridge()
                && let Some(up) = bridge.pci_bus()
            {
                up.change_irq(m, &bridge, line, on);
            }
            return;
        };
        let Some(count) = self.counts.rw(m).0.get_mut(line) else { return };
        *count = if on { *count + 1 } else { count.saturating_sub(1) };
        let any = *count != 0;
        set(m, line, any);
    }

    /// Whether any function asserts a line.
    pub fn irq_level(&self, m: &Locked, line: usize) -> bool {
        self.counts.ro(m).0.get(line).is_some_and(|c| *c != 0)
    }

    /// Creates a function, not realized yet; `devfn` as in [`Devfn`](super::Devfn), negative for any.
    ///
    /// # Errors
    /// Unknown type, or not a PCI function.
    pub fn new_function(&self, type_name: &str, devfn: i32, multifunction: bool) -> Result<Ref<PciDevice>> {
        let d: Ref<PciDevice> = self.scope().object_new_as(type_name)?;
        d.set_devfn(super::Devfn(devfn));
        if multifunction {
            d.set_multifunction();
        }
        Ok(d)
    }

    /// Realizes a function on this bus.
    ///
    /// # Errors
    /// As [`Device::qdev_realize`].
    pub fn realize_function(&self, m: &mut Locked, d: &PciDevice) -> Result<()> {
        let bus: Ref<Bus> = Ref::new(self.object()).ok_or("not a bus")?;
        d.realize_on(m, &bus)
    }

    /// Creates and realizes a function.
    ///
    /// # Errors
    /// As both steps.
    pub fn create_function(&self, m: &mut Locked, type_name: &str, devfn: i32) -> Result<Ref<PciDevice>> {
        let d = self.new_function(type_name, devfn, false)?;
        self.realize_function(m, &d)?;
        Ok(d)
    }
}
