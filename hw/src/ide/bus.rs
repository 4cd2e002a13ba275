//! The IDE bus, type `IDE`, and its drives: types `ide-device`, `ide-hd`, `ide-cd`. Two units, master and slave.
//! Source: ATA/ATAPI-6 §5 (device 0 and device 1). Registers and commands: [`super::drive`].
//! Not modelled: `ide-cf`, translated geometries (`lcyls`, `lheads`, `lsecs`, `bios-chs-trans`), sectors other than 512 bytes.

use super::atapi::Cd;
use super::drive::{DriveInfo, DriveRegs, Kind, SECTOR};
use super::transfer::IdeChannel;
use crate::block::conf::{DiskConf, HasDisk, guessed_geometry};
use block::{Backend, Blocks, Loans, Media};
use hw_core::{
    Bus, BusClass, BusImpl, Category, Core, Device, DeviceClass, DeviceImpl, Locked, MachineCell, Phase, RunState,
};
use parking_lot::RwLock;
use qom::{Class, Error, Handle, Level, Object, Prop, PropEnum, Ref, Result};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Most drives on a bus.
pub const IDE_UNITS: u32 = 2;

/// Type `IDE`.
#[derive(Object)]
#[qom(name = "IDE", parent = Bus, methods(BusClass), class_init = |c: &mut Class| c.edit::<BusClass>().max_dev = 2)]
pub struct IdeBus {
    parent: Bus,
    /// Which channel or port of the controller.
    number: Prop<u32>,
    /// Places for drives on the buses that were there before.
    before: Prop<u32>,
    channel: RwLock<Option<Arc<dyn IdeChannel>>>,
    drives: RwLock<[Handle<IdeDevice>; 2]>,
}

impl BusImpl for IdeBus {
    fn is_full(&self) -> bool {
        self.devices().len() >= self.units() as usize
    }

    fn fw_dev_path(&self, dev: &Device) -> Option<String> {
        Some(format!("{}@{:x}", dev.class_of().fw_name.unwrap_or(dev.type_name()), self.number.get()))
    }
}

impl IdeBus {
    /// The bus below a controller, for its channel or port of this number; its name is `ide.N` by default. Until it has a channel, nothing
    /// reaches its drives.
    ///
    /// # Errors
    /// The name is taken.
    pub fn create(controller: &Device, name: Option<&str>, number: u32) -> Result<Ref<IdeBus>> {
        let mut before = 0;
        controller.scope().root().walk(&mut |o| before += u32::from(o.is_a("IDE")) * IDE_UNITS);
        let bus: Ref<IdeBus> = Bus::create(controller, "IDE", name)?;
        bus.number.set(number);
        bus.before.set(before);
        Ok(bus)
    }

    /// Sets what is at the other end of the cable.
    pub fn set_channel(&self, channel: Arc<dyn IdeChannel>) {
        *self.channel.write() = Some(channel);
    }

    /// What is at the other end of the cable.
    pub fn channel(&self) -> Option<Arc<dyn IdeChannel>> {
        self.channel.read().clone()
    }

    /// Most drives.
    fn units(&self) -> u32 {
        self.channel().map_or(IDE_UNITS, |c| c.units())
    }

    /// The unit that a drive takes: the one it wants, or the first that is free.
    fn unit_for(&self, wanted: u32) -> u32 {
        let units = self.units();
        if wanted == u32::MAX { (0..units).find(|u| self.unit(*u).is_none()).unwrap_or(units) } else { wanted }
    }

    /// The drive of a unit.
    pub fn unit(&self, unit: u32) -> Option<Ref<IdeDevice>> {
        self.drives.read().get(unit as usize)?.upgrade().filter(|d| d.is_realized())
    }

    fn set_unit(&self, unit: u32, drive: Handle<IdeDevice>) {
        if let Some(slot) = self.drives.write().get_mut(unit as usize) {
            *slot = drive;
        }
    }
}

/// Type `ide-device`.
#[derive(Object)]
#[qom(name = "ide-device", parent = Device, abstract, methods(DeviceClass), class_init = IdeDevice::class_init)]
pub struct IdeDevice {
    parent: Device,
    /// 0: master, 1: slave; [`u32::MAX`]: the first free one.
    #[property(default = u32::MAX)]
    pub unit: Prop<u32>,
    conf: DiskConf,
    #[property]
    serial: Prop<String>,
    #[property]
    model: Prop<String>,
    #[property]
    ver: Prop<String>,
    #[property(default = 0)]
    wwn: Prop<u64>,
    #[property(name = "win2k-install-hack", default = false)]
    win2k_install_hack: Prop<bool>,
    #[state]
    regs: MachineCell<DriveRegs>,
    info: RwLock<DriveInfo>,
    /// Number of the job at work; a completion of another is stale.
    ticket: AtomicU64,
    running: AtomicBool,
    /// Guest memory that the job at work moves bytes of.
    pub(super) loans: Loans<()>,
    /// The job failed and waits for the machine to go on.
    held: AtomicBool,
}

impl HasDisk for IdeDevice {
    fn disk_conf(&self) -> &DiskConf {
        &self.conf
    }
}

impl IdeDevice {
    fn class_init(c: &mut Class) {
        let d = c.edit::<DeviceClass>();
        d.bus_type = Some("IDE");
        d.hotpluggable = false;
        d.fw_name = Some("drive");
        d.categories = vec![Category::Storage];
        DiskConf::properties::<IdeDevice>(c);
        DiskConf::boot_property::<IdeDevice>(c);
        DiskConf::policy_properties::<IdeDevice>(c);
    }

    /// The drive.
    pub fn backend(&self) -> Option<Arc<Backend>> {
        self.conf.backend()
    }

    /// What it is made of.
    pub fn info(&self) -> DriveInfo {
        let mut info = self.info.read().clone();
        if let Some(b) = self.conf.backend() {
            info.sectors = b.len() / SECTOR; // media change, disks are resized
            info.write_cache = b.write_cache();
        }
        info
    }

    /// Its registers.
    pub fn regs(&self) -> &MachineCell<DriveRegs> {
        &self.regs
    }

    /// Whether a job is at work on the host, or waits for the machine to go on.
    pub(super) fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed) || self.held.load(Ordering::Relaxed)
    }

    /// A job begins: its number.
    pub(super) fn begin(&self) -> u64 {
        self.running.store(true, Ordering::Relaxed);
        self.ticket.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether this job is still the one at work.
    pub(super) fn is_at(&self, ticket: u64) -> bool {
        self.ticket.load(Ordering::Relaxed) == ticket
    }

    /// The job at work has ended.
    pub(super) fn end(&self) {
        self.loans.end(&());
        self.running.store(false, Ordering::Relaxed);
    }

    /// Forgets the job at work.
    pub(super) fn forget(&self) {
        self.loans.take_all_back();
        self.ticket.fetch_add(1, Ordering::Relaxed);
        self.running.store(false, Ordering::Relaxed);
        self.held.store(false, Ordering::Relaxed);
    }

    /// The job waits for the machine to go on, or does not any more.
    pub(super) fn hold(&self, on: bool) {
        self.held.store(on, Ordering::Relaxed);
    }

    /// The bus it is on.
    pub fn ide_bus(&self) -> Option<Ref<IdeBus>> {
        self.bus_as::<IdeBus>()
    }

    /// The channel it is on.
    pub(super) fn channel(&self) -> Option<Arc<dyn IdeChannel>> {
        self.ide_bus()?.channel()
    }

    /// State after power on.
    pub(super) fn power_on(&self, m: &mut Locked) {
        self.forget();
        let info = self.info();
        let regs = self.regs.rw(m);
        let (cd, write_cache) = (std::mem::take(&mut regs.cd), regs.write_cache);
        *regs = DriveRegs::power_on(&info, cd);
        regs.write_cache = write_cache;
        self.tell_tray(m);
    }

    /// Tells the drive and its monitors how the tray is.
    pub(super) fn tell_tray(&self, m: &mut Locked) {
        if self.info.read().kind != Kind::Cd {
            return;
        }
        let (open, locked) = self.regs.ro(m).cd.tray();
        let Some(backend) = self.conf.backend() else { return };
        if backend.set_tray(open, locked) {
            let data = json!({"device": backend.name(), "id": backend.qdev(), "tray-open": open});
            self.core().emit("DEVICE_TRAY_MOVED", data);
        }
    }

    fn with_cd(&self, f: impl FnOnce(&mut Cd)) {
        let m = &mut Core::of(self).lock();
        f(&mut self.regs.rw(m).cd);
        self.tell_tray(m);
    }
}

/// How monitors reach a CD drive.
struct CdMedia(Handle<IdeDevice>);

impl Media for CdMedia {
    fn request_eject(&self, force: bool) {
        self.0.with(|d| {
            d.with_cd(|cd| if force { cd.set_tray(true) } else { cd.wish_to_eject() });
        });
    }
    fn move_tray(&self, open: bool) {
        self.0.with(|d| d.with_cd(|cd| cd.set_tray(open)));
    }
    fn changed(&self) {
        self.0.with(|d| d.with_cd(Cd::medium_changed));
    }
}

impl DeviceImpl for IdeDevice {
    /// Takes the unit and the drive.
    fn realize(&self, m: &mut Locked) -> Result<()> {
        let bus = self.bus_as::<IdeBus>();
        let bus = bus.ok_or_else(|| Error::generic(format!("'{}' needs an IDE bus", self.type_name())))?;
        let (unit, units) = (bus.unit_for(self.unit.get()), bus.units());
        if unit >= units {
            return Err(Error::generic(format!("Can't create IDE unit {unit}, bus supports only {units} units")));
        }
        if bus.unit(unit).is_some() {
            return Err(Error::generic(format!("IDE unit {unit} is in use")));
        }
        self.unit.set(unit);
        if self.win2k_install_hack.get() {
            return Err(Error::generic("win2k-install-hack is not built yet"));
        }
        self.regs.rw(m).write_cache = self.backend().is_some_and(|b| b.write_cache());
        crate::i386::drives::check_boot_index(self.scope(), self.conf.boot_index())?;
        self.conf.check(SECTOR, Some(SECTOR))?;
        if self.conf.block_size() != SECTOR {
            return Err(Error::generic("logical_block_size must be 512 for IDE"));
        }
        self.parent_realize(m)?;
        bus.set_unit(unit, self.this());
        self.power_on(m);
        if let Some(c) = bus.channel() {
            c.attached(m);
        }
        self.core().events.vm_state.add_for(self, IdeDevice::went_on);
        Ok(())
    }

    fn unrealize(&self, m: &mut Locked) {
        self.forget();
        if let Some(bus) = self.bus_as::<IdeBus>() {
            bus.set_unit(self.unit.get(), Handle::default());
            if let Some(c) = bus.channel() {
                c.detached(m);
            }
        }
        self.conf.drive.release();
        self.parent_unrealize(m);
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        self.parent_reset(m, phase);
        if phase == Phase::Enter {
            self.power_on(m);
        }
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        self.regs.ro(m).check().map_err(Error::generic)?;
        self.forget();
        self.hold(self.core().requests.state() == RunState::IoError);
        if let Some(b) = self.backend() {
            b.set_write_cache(self.regs.ro(m).write_cache);
        }
        self.tell_tray(m);
        self.start_job(m);
        self.parent_post_load(m)
    }
}

impl IdeDevice {
    /// What disks and CD drives do before they take their unit.
    fn set_up(&self, kind: Kind, model: &str) -> Result<Arc<Backend>> {
        let bus = self.bus_as::<IdeBus>();
        let bus = bus.ok_or_else(|| Error::generic(format!("'{}' needs an IDE bus", self.type_name())))?;
        if kind == Kind::Cd && self.conf.backend().is_none() {
            self.conf.drive.set(Blocks::of(self.core()).anonymous(None)?);
        }
        let backend = self.conf.claim(self, kind == Kind::Cd)?;
        if self.serial.get().is_empty() {
            self.serial.set(format!("QM{:05}", bus.before.get() + bus.unit_for(self.unit.get()) + 1));
        }
        if self.ver.get().is_empty() {
            self.ver.set("2.5+".into());
        }
        let shown = Some(self.model.get()).filter(|m| !m.is_empty()).unwrap_or_else(|| model.into());
        *self.info.write() = DriveInfo {
            kind,
            sectors: backend.len() / SECTOR,
            chs: if kind == Kind::Hd { guessed_geometry(backend.len()) } else { (0, 0, 0) },
            serial: self.serial.get(),
            model: shown,
            version: self.ver.get(),
            wwn: self.wwn.get(),
            rotation_rate: 0,
            read_only: backend.is_read_only(),
            write_cache: backend.write_cache(),
            discard: kind == Kind::Hd && backend.root().is_some_and(|n| n.common().unmap),
            physical_exponent: self.conf.physical_exponent().into(),
            queue_depth: bus.channel().map_or(0, |c| c.queue_depth()),
        };
        Ok(backend)
    }
}

/// `bios-chs-trans`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PropEnum)]
#[qom(name = "BiosAtaTranslation")]
pub enum BiosAtaTranslation {
    /// By the disk's size.
    #[default]
    Auto,
    /// None.
    None,
    /// LBA.
    Lba,
    /// ECHS.
    Large,
    /// Revised ECHS.
    Rechs,
}

/// Type `ide-hd`.
#[derive(Object)]
#[qom(name = "ide-hd", parent = IdeDevice, methods(DeviceClass), class_init = IdeHd::class_init)]
pub struct IdeHd {
    parent: IdeDevice,
    #[property(default = 0)]
    cyls: Prop<u32>,
    #[property(default = 0)]
    heads: Prop<u32>,
    #[property(default = 0)]
    secs: Prop<u32>,
    #[property(default = 0)]
    lcyls: Prop<u32>,
    #[property(default = 0)]
    lheads: Prop<u32>,
    #[property(default = 0)]
    lsecs: Prop<u32>,
    #[property(name = "bios-chs-trans", default = BiosAtaTranslation::Auto)]
    bios_chs_trans: Prop<BiosAtaTranslation>,
    #[property(name = "rotation_rate", default = 0)]
    rotation_rate: Prop<u16>,
}

impl IdeHd {
    fn class_init(c: &mut Class) {
        c.edit::<DeviceClass>().desc = "virtual IDE disk";
    }

    fn take_medium(&self, backend: &Backend) -> Result<()> {
        if backend.root().is_none() {
            return Err(Error::generic("Device needs media, but drive is empty"));
        }
        if backend.is_read_only() {
            return Err(Error::generic("Can't use a read-only drive"));
        }
        let (c, h, s) = (self.cyls.get(), self.heads.get(), self.secs.get());
        let mut info = self.info.write();
        info.rotation_rate = self.rotation_rate.get();
        match (c, h, s) {
            (0, 0, 0) => {}
            (1..=65535, 1..=16, 1..=255) => info.chs = (c, h, s),
            (_, _, _) => {
                return Err(Error::generic("cyls must be between 1 and 65535, heads 1 and 16, secs 1 and 255"));
            }
        }
        Ok(())
    }
}

impl DeviceImpl for IdeHd {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        if [&self.lcyls, &self.lheads, &self.lsecs].iter().any(|p| p.get() != 0)
            || self.bios_chs_trans.get() != BiosAtaTranslation::Auto
        {
            return Err(Error::generic(
                "translated geometries (lcyls, lheads, lsecs, bios-chs-trans) are not built yet",
            ));
        }
        let backend = self.set_up(Kind::Hd, "QEMU HARDDISK")?;
        let done = self.take_medium(&backend).and_then(|()| self.parent_realize(m));
        if done.is_err() {
            self.conf.drive.release();
        }
        done
    }
}

/// Type `ide-cd`.
#[derive(Object)]
#[qom(name = "ide-cd", parent = IdeDevice, methods(DeviceClass), class_init = |c: &mut Class| {
    c.edit::<DeviceClass>().desc = "virtual IDE CD-ROM";
})]
pub struct IdeCd {
    parent: IdeDevice,
}

impl DeviceImpl for IdeCd {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        let backend = self.set_up(Kind::Cd, "QEMU DVD-ROM")?;
        let device: &IdeDevice = self;
        backend.set_media(Arc::new(CdMedia(device.this())));
        let done = self.parent_realize(m);
        if done.is_err() {
            self.conf.drive.release();
        }
        done
    }
}
