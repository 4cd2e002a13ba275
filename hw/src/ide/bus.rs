//! The IDE bus, type `IDE`, and the base of its drives, type `ide-device`: two units, master and slave.
//! Source: ATA/ATAPI-6 §5 (device 0 and device 1).
//!
//! The registers of a channel are the controller's, the commands the drives'; neither is here.

use hw_core::{Bus, BusClass, BusImpl, Device, DeviceClass, DeviceImpl, Locked};
use qom::{Class, Error, Prop, Ref, Result};

/// Drives on a bus.
pub const IDE_UNITS: u32 = 2;

/// Type `IDE`.
#[derive(qom::Object)]
#[qom(name = "IDE", parent = Bus, methods(BusClass), class_init = |c: &mut Class| c.edit::<BusClass>().max_dev = 2)]
pub struct IdeBus {
    parent: Bus,
}

impl BusImpl for IdeBus {
    fn fw_dev_path(&self, dev: &Device) -> Option<String> {
        let o = dev.object();
        let unit = o.cast::<IdeDevice>()?.unit.get();
        Some(format!("{}@{unit:x}", dev.class_of().fw_name.unwrap_or(dev.type_name())))
    }
}

impl IdeBus {
    /// The bus below a controller; its name is `ide.N` by default.
    ///
    /// # Errors
    /// The name is taken.
    pub fn create(controller: &Device, name: Option<&str>) -> Result<Ref<IdeBus>> {
        Bus::create(controller, "IDE", name)
    }

    /// The drive of a unit.
    pub fn unit(&self, unit: u32) -> Option<Ref<IdeDevice>> {
        let drives = self.devices().into_iter().filter_map(|(_, d)| Ref::<IdeDevice>::new(d));
        drives.into_iter().find(|d| d.unit.get() == unit && d.is_realized())
    }
}

/// Type `ide-device`.
#[derive(qom::Object)]
#[qom(name = "ide-device", parent = Device, abstract, methods(DeviceClass), class_init = IdeDevice::class_init)]
pub struct IdeDevice {
    parent: Device,
    /// 0: master, 1: slave; [`u32::MAX`]: the first free one.
    #[property(default = u32::MAX)]
    pub unit: Prop<u32>,
}

impl IdeDevice {
    fn class_init(c: &mut Class) {
        let d = c.edit::<DeviceClass>();
        d.bus_type = Some("IDE");
        d.hotpluggable = false;
    }
}

impl DeviceImpl for IdeDevice {
    /// Takes the unit.
    fn realize(&self, m: &mut Locked) -> Result<()> {
        let bus = self.bus_as::<IdeBus>();
        let bus = bus.ok_or_else(|| Error::generic(format!("'{}' needs an IDE bus", self.type_name())))?;
        let unit = match self.unit.get() {
            u32::MAX => (0..IDE_UNITS).find(|u| bus.unit(*u).is_none()).unwrap_or(IDE_UNITS),
            u => u,
        };
        if unit >= IDE_UNITS {
            return Err(Error::generic(format!("Can't create IDE unit {unit}, bus supports only {IDE_UNITS} units")));
        }
        if bus.unit(unit).is_some() {
            return Err(Error::generic(format!("IDE unit {unit} is in use")));
        }
        self.unit.set(unit);
        self.parent_realize(m)
    }
}
