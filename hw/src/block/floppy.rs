//! A floppy drive, type `floppy`, and the bus it is on, type `floppy-bus`. The registers are the controller's: [`super::fdc`].

use super::conf::{DiskConf, HasDisk, SECTOR};
use super::fdc::IsaFdc;
use super::fdc_regs::{Disk, UNITS};
use super::floppy_format::{FloppyDriveType, detect};
use block::{Backend, Blocks, Media};
use hw_core::{Bus, BusClass, BusImpl, Category, Core, Device, DeviceClass, DeviceImpl, Locked};
use parking_lot::RwLock;
use qom::{Class, Error, Handle, Level, Object, Prop, Ref, Result};
use std::sync::Arc;

/// Type `floppy-bus`.
#[derive(Object)]
#[qom(name = "floppy-bus", parent = Bus, methods(BusClass))]
pub struct FloppyBus {
    parent: Bus,
    drives: RwLock<[Handle<Floppy>; UNITS]>,
}

impl BusImpl for FloppyBus {}

impl FloppyBus {
    /// The drive of a unit.
    pub fn unit(&self, unit: usize) -> Option<Ref<Floppy>> {
        self.drives.read().get(unit)?.upgrade().filter(|d| d.is_realized())
    }

    fn set_unit(&self, unit: u32, drive: Handle<Floppy>) {
        if let Some(slot) = self.drives.write().get_mut(unit as usize) {
            *slot = drive;
        }
    }

    fn controller(&self) -> Option<Ref<IsaFdc>> {
        Ref::new(self.object().parent()?)
    }
}

/// Type `floppy`.
#[derive(Object)]
#[qom(name = "floppy", parent = Device, methods(DeviceClass), class_init = Floppy::class_init)]
pub struct Floppy {
    parent: Device,
    /// 0 or 1; [`u32::MAX`]: the first free one.
    #[property(default = u32::MAX)]
    unit: Prop<u32>,
    conf: DiskConf,
    #[property(name = "drive-type", default = FloppyDriveType::Auto)]
    drive_type: Prop<FloppyDriveType>,
}

impl HasDisk for Floppy {
    fn disk_conf(&self) -> &DiskConf {
        &self.conf
    }
}

impl Floppy {
    fn class_init(c: &mut Class) {
        let d = c.edit::<DeviceClass>();
        d.bus_type = Some("floppy-bus");
        d.hotpluggable = false;
        d.categories = vec![Category::Storage];
        d.desc = "virtual floppy drive";
        DiskConf::properties::<Floppy>(c);
    }

    /// The drive's image.
    pub fn backend(&self) -> Option<Arc<Backend>> {
        self.conf.backend()
    }

    /// What kind it is.
    pub fn drive_type(&self) -> FloppyDriveType {
        self.drive_type.get()
    }

    /// What the board wants it to be; for before it is realized.
    pub(super) fn set_kind(&self, kind: FloppyDriveType) {
        self.drive_type.set(kind);
    }

    /// What is in it.
    pub fn disk(&self) -> Disk {
        let Some(backend) = self.conf.backend() else { return Disk { drive: true, format: None, read_only: true } };
        let format =
            backend.root().and_then(|_| detect(self.drive_type.get(), FloppyDriveType::D288, backend.len() / 512));
        Disk { drive: true, format, read_only: format.is_none() || backend.is_read_only() }
    }

    fn bus_of(&self) -> Option<Ref<FloppyBus>> {
        self.bus_as::<FloppyBus>()
    }

    fn with_controller(&self, f: impl FnOnce(&IsaFdc, usize)) {
        if let Some(controller) = self.bus_of().and_then(|b| b.controller()) {
            f(&controller, self.unit.get() as usize);
        }
    }

    /// Checks and completes the properties, takes the image.
    fn set_up(&self, bus: &FloppyBus) -> Result<Arc<Backend>> {
        let unit = match self.unit.get() {
            u32::MAX => (0..UNITS).find(|u| bus.unit(*u).is_none()).unwrap_or(UNITS) as u32,
            u => u,
        };
        if unit as usize >= UNITS {
            return Err(Error::generic(format!("Can't create floppy unit {unit}, bus supports only {UNITS} units")));
        }
        if bus.unit(unit as usize).is_some() {
            return Err(Error::generic(format!("Floppy unit {unit} is in use")));
        }
        self.unit.set(unit);
        let conf = &self.conf;
        conf.check(SECTOR, None)?;
        if conf.block_size() != SECTOR || conf.physical_exponent() != 0 {
            return Err(Error::generic("Physical and logical block size must be 512 for floppy"));
        }
        if conf.backend().is_none() {
            conf.drive.set(Blocks::of(self.core()).anonymous(None)?);
        }
        let backend = conf.claim(self, true)?;
        backend.without_io_status();
        Ok(backend)
    }
}

/// How monitors reach a drive: there is no tray, a disk is simply taken out.
struct FloppyMedia(Handle<Floppy>);

impl Media for FloppyMedia {
    fn request_eject(&self, _force: bool) {}
    fn move_tray(&self, _open: bool) {}
    fn changed(&self) {
        self.0.with(|d| {
            let m = &mut Core::of(d).lock();
            let disk = d.disk();
            d.with_controller(|c, unit| c.set_disk(m, unit, disk, true));
        });
    }
}

impl DeviceImpl for Floppy {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        let bus = self.bus_of().ok_or_else(|| Error::generic("'floppy' needs a floppy bus"))?;
        let controller = bus.controller().ok_or("a floppy bus without a controller")?;
        let backend = self.set_up(&bus)?;
        if self.drive_type.get() == FloppyDriveType::Auto {
            let sectors = backend.root().map(|_| backend.len() / 512);
            let fallback = controller.fallback();
            let found = sectors.and_then(|n| detect(FloppyDriveType::Auto, fallback, n)).map_or(fallback, |f| f.drive);
            self.drive_type.set(found);
        }
        if let Err(e) = self.parent_realize(m) {
            self.conf.drive.release();
            return Err(e);
        }
        backend.set_media(Arc::new(FloppyMedia(self.this())));
        bus.set_unit(self.unit.get(), self.this());
        controller.set_disk(m, self.unit.get() as usize, self.disk(), true);
        Ok(())
    }

    fn unrealize(&self, m: &mut Locked) {
        self.with_controller(|c, unit| c.set_disk(m, unit, Disk { read_only: true, ..Disk::default() }, true));
        if let Some(bus) = self.bus_of() {
            bus.set_unit(self.unit.get(), Handle::default());
        }
        self.conf.drive.release();
        self.parent_unrealize(m);
    }
}
