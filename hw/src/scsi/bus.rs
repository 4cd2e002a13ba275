//! The SCSI bus, type `SCSI`, and what is on it, abstract type `scsi-device`. Source: SAM-5 §4.5 (addresses), §5.14 (unit attention).
//!
//! An adapter implements [`ScsiHba`]. It finds a unit with [`ScsiBus::find`] and gives it commands with [`ScsiDevice::submit`]; the unit
//! asks for data and says how the command ended, at once or later. A command is known by its tag, which is the adapter's choice and never
//! comes again before a reset. A device type implements [`ScsiImpl`].

use super::cdb::{Cdb, op};
use super::sense::Sense;
use super::target;
pub use super::target::lun_bytes;
use hw_core::memory::RamRanges;
use hw_core::{Bus, BusClass, BusImpl, Device, DeviceClass, DeviceImpl, Locked, MachineCell, Phase};
use parking_lot::RwLock;
use qom::{Class, Error, Level, Object, Prop, Ref, Result, of_class};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;

/// Status codes. SAM-5 §5.3.1.
pub mod status {
    /// The command was done.
    pub const GOOD: u8 = 0;
    /// There is sense data.
    pub const CHECK_CONDITION: u8 = 2;
}

/// Most conditions that wait for being reported.
const MAX_ATTENTIONS: usize = 8;

/// A command for a unit.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// The adapter's name for it.
    pub tag: u64,
    /// Which unit of the target it is for.
    pub lun: u32,
    /// What is to be done.
    pub cdb: Cdb,
    /// Bytes that the initiator offers.
    pub out: u64,
    /// Bytes that the initiator takes.
    pub room: u64,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Well.
    Good,
    /// With sense data.
    Check(Sense),
    /// The data does not fit what the initiator offers or takes.
    Overrun,
    /// Given up, because the unit goes.
    Aborted,
}

/// Something that initiators should hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// What this sense data says.
    Parameter(Sense),
}

/// What an adapter does for the units on its bus.
pub trait ScsiHba: Send + Sync {
    /// Highest target and unit number.
    fn limits(&self) -> (u32, u32);
    /// Copies the initiator's data from byte `skip` on; how many bytes there were.
    fn data_out(&self, m: &mut Locked, tag: u64, skip: u64, buf: &mut [u8]) -> usize;
    /// Copies data to the initiator's memory from byte `skip` on.
    fn data_in(&self, m: &mut Locked, tag: u64, skip: u64, data: &[u8]);
    /// The memory of `len` bytes from byte `skip` on of what the initiator offers, or takes (`write`: the unit writes it), which the unit reaches
    /// with the machine unlocked; `None`: it is to be copied.
    fn memory(&self, m: &Locked, tag: u64, skip: u64, len: u64, write: bool) -> Option<RamRanges>;
    /// A command has ended; `moved` bytes of data were transferred.
    fn complete(&self, m: &mut Locked, tag: u64, end: End, moved: u64);
    /// A unit has changed.
    fn changed(&self, m: &mut Locked, unit: &ScsiDevice, change: Change);
}

/// Type `SCSI`.
#[derive(Object)]
#[qom(name = "SCSI", parent = Bus, methods(BusClass))]
pub struct ScsiBus {
    parent: Bus,
    hba: RwLock<Option<Arc<dyn ScsiHba>>>,
}

impl BusImpl for ScsiBus {
    fn check_address(&self, dev: &Device) -> Result<()> {
        let o = dev.object();
        let d = o.cast::<ScsiDevice>().ok_or_else(|| Error::generic("not a SCSI device"))?;
        let (max_target, max_lun) = self.hba().map_or((0, 0), |h| h.limits());
        if d.channel.get() > 0 {
            return Err(Error::generic(format!("bad scsi channel id: {}", d.channel.get())));
        }
        if d.id.get() != u32::MAX && d.id.get() > max_target {
            return Err(Error::generic(format!("bad scsi device id: {}", d.id.get())));
        }
        if d.lun.get() != u32::MAX && d.lun.get() > max_lun {
            return Err(Error::generic(format!("bad scsi device lun: {}", d.lun.get())));
        }
        if let Some(other) = self.units().find(|u| (u.id.get(), u.lun.get()) == (d.id.get(), d.lun.get())) {
            return Err(Error::generic(format!("lun already used by '{}'", other.label())));
        }
        Ok(())
    }

    fn dev_path(&self, dev: &Device) -> Option<String> {
        let o = dev.object();
        let d = o.cast::<ScsiDevice>()?;
        Some(format!("{}:{}:{}", d.channel.get(), d.id.get(), d.lun.get()))
    }

    fn fw_dev_path(&self, dev: &Device) -> Option<String> {
        let o = dev.object();
        let d = o.cast::<ScsiDevice>()?;
        let name = dev.class_of().fw_name.unwrap_or(dev.type_name());
        Some(format!("channel@{:x}/{name}@{:x},{:x}", d.channel.get(), d.id.get(), d.lun.get()))
    }
}

impl ScsiBus {
    /// The bus below an adapter; without a name it is called `scsi.N`.
    ///
    /// # Errors
    /// The name is taken.
    pub fn create(adapter: &Device, name: Option<&str>, hba: Arc<dyn ScsiHba>) -> Result<Ref<ScsiBus>> {
        let bus: Ref<ScsiBus> = Bus::create(adapter, "SCSI", name)?;
        *bus.hba.write() = Some(hba);
        Ok(bus)
    }

    /// The adapter.
    pub fn hba(&self) -> Option<Arc<dyn ScsiHba>> {
        self.hba.read().clone()
    }

    /// All realized units, by address.
    pub fn units(&self) -> impl Iterator<Item = Ref<ScsiDevice>> {
        let mut all: Vec<Ref<ScsiDevice>> = self
            .devices()
            .into_iter()
            .filter_map(|(_, d)| Ref::new(d))
            .filter(|d: &Ref<ScsiDevice>| d.is_realized())
            .collect();
        all.sort_by_key(|d| (d.id.get(), d.lun.get()));
        all.into_iter()
    }

    /// The unit, or another of the same target, which speaks for the target.
    pub fn find(&self, target: u32, lun: u32) -> Option<Ref<ScsiDevice>> {
        let mut other = None;
        for d in self.units().filter(|d| d.id.get() == target) {
            if d.lun.get() == lun {
                return Some(d);
            }
            other = other.or(Some(d));
        }
        other
    }

    /// All units back to their state after power on; what they do is forgotten.
    pub fn reset_units(&self, m: &mut Locked) {
        for unit in self.units() {
            unit.reset_unit(m);
        }
    }
}

/// What a snapshot keeps of every unit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Conditions {
    /// Unit attention conditions not reported yet, oldest first.
    attentions: VecDeque<Sense>,
}

/// Class struct of SCSI devices.
#[derive(Clone)]
pub struct ScsiDeviceClass {
    /// See [`ScsiImpl::execute`].
    pub execute: fn(&dyn Object, &mut Locked, &Command),
    /// See [`ScsiImpl::cancel`].
    pub cancel: fn(&dyn Object, &mut Locked, u64) -> bool,
    /// See [`ScsiImpl::unit_reset`].
    pub unit_reset: fn(&dyn Object, &mut Locked),
}

impl Default for ScsiDeviceClass {
    fn default() -> Self {
        Self { execute: |_, _, _| (), cancel: |_, _, _| false, unit_reset: |_, _| () }
    }
}

/// What a device type does; enter it into the class with `#[qom(methods(DeviceClass, ScsiDeviceClass))]`.
pub trait ScsiImpl: Level {
    /// Does a command that is for this unit, or begins it.
    fn execute(&self, m: &mut Locked, c: &Command);

    /// Forgets a command; whether it was at work.
    fn cancel(&self, m: &mut Locked, tag: u64) -> bool;

    /// State after power on; all commands are forgotten.
    fn unit_reset(&self, m: &mut Locked);
}

fn level<T: Level, R>(o: &dyn Object, f: impl FnOnce(&T) -> R) -> R {
    match T::of(o) {
        Some(t) => f(t),
        None => f(of_class::<T>(&*o.base().object())),
    }
}

impl ScsiDeviceClass {
    /// Enters the methods of `T` into its class.
    pub fn implement<T: ScsiImpl>(&mut self) {
        self.execute = |o, m, c| level(o, |t: &T| t.execute(m, c));
        self.cancel = |o, m, tag| level(o, |t: &T| t.cancel(m, tag));
        self.unit_reset = |o, m| level(o, |t: &T| t.unit_reset(m));
    }
}

/// Type `scsi-device`.
#[derive(Object)]
#[qom(name = "scsi-device", parent = Device, abstract, methods(DeviceClass), class_init = ScsiDevice::class_init)]
pub struct ScsiDevice {
    parent: Device,
    #[property(default = 0)]
    channel: Prop<u32>,
    /// Target; [`u32::MAX`]: the first free one.
    #[property(name = "scsi-id", default = u32::MAX)]
    id: Prop<u32>,
    /// Unit; [`u32::MAX`]: the first free one.
    #[property(default = u32::MAX)]
    lun: Prop<u32>,
    #[state]
    conditions: MachineCell<Conditions>,
}

impl ScsiDevice {
    fn class_init(c: &mut Class) {
        c.edit::<ScsiDeviceClass>();
        c.edit::<DeviceClass>().bus_type = Some("SCSI");
    }

    fn scsi_class(&self) -> &'static ScsiDeviceClass {
        self.class().get().expect("classes below 'scsi-device' have a ScsiDeviceClass")
    }

    /// The bus it is on.
    pub fn scsi_bus(&self) -> Option<Ref<ScsiBus>> {
        self.bus_as()
    }

    /// The adapter that gives it commands.
    pub fn hba(&self) -> Option<Arc<dyn ScsiHba>> {
        self.scsi_bus()?.hba()
    }

    /// Number of the target.
    pub fn target(&self) -> u32 {
        self.id.get()
    }

    /// Number of the unit.
    pub fn unit(&self) -> u32 {
        self.lun.get()
    }

    /// A command for this unit, or for one of its target that there is not.
    pub fn submit(&self, m: &mut Locked, c: &Command) {
        let missing = c.lun != self.lun.get();
        let code = c.cdb.code();
        if missing || code == op::REPORT_LUNS {
            return target::answer(self, m, c, missing);
        }
        if !matches!(code, op::INQUIRY | op::GET_CONFIGURATION | op::GET_EVENT_STATUS)
            && let Some(sense) = self.conditions.rw(m).attentions.pop_front()
        {
            // REQUEST SENSE reports the condition as its data. SAM-5 §5.14.3
            return if code == op::REQUEST_SENSE {
                target::request_sense(self, m, c, sense);
            } else {
                self.end(m, c.tag, End::Check(sense), 0);
            };
        }
        if code == op::REQUEST_SENSE {
            return target::request_sense(self, m, c, Sense::NONE);
        }
        (self.scsi_class().execute)(&*self.object(), m, c);
    }

    /// Forgets a command; whether it was at work.
    pub fn cancel(&self, m: &mut Locked, tag: u64) -> bool {
        (self.scsi_class().cancel)(&*self.object(), m, tag)
    }

    /// State after power on: the next command hears of it.
    pub fn reset_unit(&self, m: &mut Locked) {
        (self.scsi_class().unit_reset)(&*self.object(), m);
        self.conditions.rw(m).attentions = VecDeque::from([Sense::RESET]);
    }

    /// The next command hears of this.
    pub fn attention(&self, m: &mut Locked, sense: Sense) {
        let all = &mut self.conditions.rw(m).attentions;
        if !all.contains(&sense) && all.len() < MAX_ATTENTIONS {
            all.push_back(sense);
        }
    }

    /// A command ends.
    pub fn end(&self, m: &mut Locked, tag: u64, end: End, moved: u64) {
        if let Some(hba) = self.hba() {
            hba.complete(m, tag, end, moved);
        }
    }

    /// Answers a command with data, as much of it as was asked for.
    pub fn reply(&self, m: &mut Locked, c: &Command, mut data: Vec<u8>, max: u64) {
        data.truncate(usize::try_from(max).unwrap_or(usize::MAX));
        let moved = data.len() as u64;
        if moved > c.room {
            return self.end(m, c.tag, End::Overrun, 0);
        }
        if let Some(hba) = self.hba() {
            hba.data_in(m, c.tag, 0, &data);
            hba.complete(m, c.tag, End::Good, moved);
        }
    }
}

impl DeviceImpl for ScsiDevice {
    /// Takes the address.
    fn realize(&self, m: &mut Locked) -> Result<()> {
        let bus = self.scsi_bus();
        let bus = bus.ok_or_else(|| Error::generic(format!("'{}' needs a SCSI bus", self.type_name())))?;
        let (max_target, max_lun) = bus.hba().map_or((0, 0), |h| h.limits());
        let taken = |id: u32, lun: u32| bus.units().any(|u| (u.id.get(), u.lun.get()) == (id, lun));
        if self.id.get() == u32::MAX {
            let lun = if self.lun.get() == u32::MAX { 0 } else { self.lun.get() };
            let id = (0..=max_target).find(|id| !taken(*id, lun)).ok_or_else(|| Error::generic("no free target"))?;
            self.id.set(id);
            self.lun.set(lun);
        } else if self.lun.get() == u32::MAX {
            let id = self.id.get();
            let lun = (0..=max_lun).find(|lun| !taken(id, *lun)).ok_or_else(|| Error::generic("no free lun"))?;
            self.lun.set(lun);
        }
        self.parent_realize(m)
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        self.parent_reset(m, phase);
        if phase == Phase::Enter {
            self.reset_unit(m);
        }
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        if self.conditions.ro(m).attentions.len() > MAX_ATTENTIONS {
            return Err(Error::generic("SCSI device: impossible state"));
        }
        self.parent_post_load(m)
    }
}
