//! A SCSI host bus adapter, types `virtio-scsi-common` and `virtio-scsi-device`. Source: virtio 1.2 §5.6. The units are on its bus, type
//! `SCSI`. Not modelled: protection information, bidirectional commands, asynchronous notifications of media.
//!
//! A request is a value that is part of the state until its chain goes back to the driver; what the unit does about it is part of the
//! unit's state, under the same tag.

use super::device::{VirtioDevice, VirtioDeviceClass, VirtioImpl, status};
use super::ring::{Chain, MAX_SIZE, total};
use super::scsi_request::{
    CONTROL, EVENT, Function, HEADER, Request, Response, event, parse_control, parse_request, unit_of,
};
use crate::scsi::bus::{Change, Command, End, ScsiBus, ScsiDevice, ScsiHba, status as scsi_status};
use crate::scsi::sense::Sense;
use hw_core::memory::RamRanges;
use hw_core::{Category, Device, DeviceClass, DeviceImpl, HotplugHandler, Locked, Machine, MachineCell};
use parking_lot::RwLock;
use qom::{Class, Error, Handle, Level, Object, Prop, Ref, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Features. §5.6.3
mod f {
    pub const HOTPLUG: u64 = 1 << 1;
    pub const CHANGE: u64 = 1 << 2;
}

/// Properties for features: name, bit.
const FEATURES: [(&str, u64); 2] = [("hotplug", f::HOTPLUG), ("param_change", f::CHANGE)];
/// Queues besides those of requests: control, event.
const FIXED: usize = 2;
const CONTROL_QUEUE: usize = 0;
const EVENT_QUEUE: usize = 1;
/// Highest target and unit.
const MAX_TARGET: u32 = 255;
const MAX_LUN: u32 = 16383;
/// `num_queues` without a value: one a CPU.
const AUTO_QUEUES: u32 = u32::MAX;
/// Places of the fields that drivers write, in the configuration space. §5.6.4
const SENSE_SIZE: usize = 20;
const CDB_SIZE: usize = 24;
/// Most bytes of them.
const MAX_SENSE: u32 = 65535;
const MAX_CDB: u32 = 255;

/// A request at work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Pending {
    queue: usize,
    chain: Chain,
    /// The driver's name for it.
    id: u64,
    target: u32,
    lun: u32,
    /// Bytes of header before the data, of response before the data.
    skip: (u64, u64),
}

/// All that the driver can observe and a snapshot must keep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct ScsiRegs {
    sense_size: u32,
    cdb_size: u32,
    /// An event found no buffer.
    missed: bool,
    next: u64,
    /// The requests at work, by tag.
    pending: BTreeMap<u64, Pending>,
}

impl Default for ScsiRegs {
    fn default() -> Self {
        Self { sense_size: 96, cdb_size: 32, missed: false, next: 0, pending: BTreeMap::new() }
    }
}

/// Type `virtio-scsi-common`.
#[derive(Object)]
#[qom(name = "virtio-scsi-common", parent = VirtioDevice, abstract, class_init = VirtioScsiCommon::class_init)]
pub struct VirtioScsiCommon {
    parent: VirtioDevice,
    #[property(name = "num_queues", default = AUTO_QUEUES)]
    num_queues: Prop<u32>,
    #[property(name = "virtqueue_size", default = 256)]
    virtqueue_size: Prop<u32>,
    #[property(name = "seg_max_adjust", default = true)]
    seg_max_adjust: Prop<bool>,
    #[property(name = "max_sectors", default = 0xffff)]
    max_sectors: Prop<u32>,
    #[property(name = "cmd_per_lun", default = 128)]
    cmd_per_lun: Prop<u32>,
}

impl VirtioScsiCommon {
    fn class_init(c: &mut Class) {
        c.edit::<DeviceClass>().categories = vec![Category::Storage];
        let v = c.edit::<VirtioDeviceClass>();
        (v.device_id, v.name) = (8, "virtio-scsi");
    }
}

/// Type `virtio-scsi-device`.
#[derive(Object)]
#[qom(name = "virtio-scsi-device", parent = VirtioScsiCommon, methods(DeviceClass, VirtioDeviceClass),
    class_init = VirtioScsi::class_init, instance_init = VirtioScsi::instance_init, interfaces(dyn HotplugHandler))]
pub struct VirtioScsi {
    parent: VirtioScsiCommon,
    #[state]
    regs: MachineCell<ScsiRegs>,
    bus: RwLock<Handle<ScsiBus>>,
}

impl VirtioScsi {
    fn class_init(c: &mut Class) {
        for (name, bit) in FEATURES {
            VirtioDevice::feature_property(c, name, bit, true);
        }
        super::threads::properties(c, true);
    }

    fn instance_init(&self) -> Result<()> {
        self.want(FEATURES.iter().fold(0, |all, f| all | f.1));
        Ok(())
    }

    fn scsi_bus(&self) -> Option<Ref<ScsiBus>> {
        self.bus.read().upgrade()
    }

    fn find(&self, target: u32, lun: u32) -> Option<Ref<ScsiDevice>> {
        self.scsi_bus()?.find(target, lun)
    }

    // ---- requests ----

    fn begin(&self, m: &mut Locked, queue: usize, chain: Chain) {
        let (sense, cdb) = {
            let r = self.regs.ro(m);
            (u64::from(r.sense_size), r.cdb_size as usize)
        };
        let skip = ((HEADER + cdb) as u64, Response::FIXED as u64 + sense);
        let (readable, writable) = (total(&chain.readable), total(&chain.writable));
        if readable < skip.0 || writable < skip.1 {
            return self.set_broken(m, "wrong size for virtio-scsi headers");
        }
        let mut head = vec![0; HEADER + cdb];
        self.read_from(m, &chain.readable, 0, &mut head);
        let Request { lun, id, cdb } = parse_request(&head);
        let unit = unit_of(lun).and_then(|(target, lun)| Some((self.find(target, lun)?, target, lun)));
        let (target, number) = unit.as_ref().map_or((0, 0), |u| (u.1, u.2));
        let (out, room) = (readable - skip.0, writable - skip.1);
        let tag = {
            let r = self.regs.rw(m);
            let tag = r.next;
            r.next += 1;
            r.pending.insert(tag, Pending { queue, chain, id, target, lun: number, skip });
            tag
        };
        match unit {
            None => self.give_back(m, tag, &Response::failed(Response::BAD_TARGET)),
            Some(_) if out > 0 && room > 0 => self.give_back(m, tag, &Response::failed(Response::FAILURE)),
            Some((unit, _, lun)) => unit.submit(m, &Command { tag, lun, cdb, out, room }),
        }
    }

    /// Gives a request back to the driver.
    fn give_back(&self, m: &mut Locked, tag: u64, response: &Response) {
        let r = self.regs.rw(m);
        let (size, Some(p)) = (r.sense_size as usize, r.pending.remove(&tag)) else { return };
        self.write_to(m, &p.chain.writable, 0, &response.bytes(size));
        let room = total(&p.chain.writable);
        self.push(m, p.queue, &p.chain, u32::try_from(room).unwrap_or(u32::MAX));
        self.interrupt(m, p.queue);
    }

    /// Gives up the requests that `which` says.
    fn abort(&self, m: &mut Locked, response: u8, which: impl Fn(&Pending) -> bool) {
        let all = self.regs.ro(m).pending.iter().filter(|(_, p)| which(p));
        let all: Vec<(u64, u32, u32)> = all.map(|(tag, p)| (*tag, p.target, p.lun)).collect();
        for (tag, target, lun) in all {
            if let Some(unit) = self.find(target, lun) {
                unit.cancel(m, tag);
            }
            self.give_back(m, tag, &Response::failed(response));
        }
    }

    // ---- control ----

    fn control(&self, m: &mut Locked, chain: &Chain) {
        let mut head = [0; CONTROL];
        let n = self.read_from(m, &chain.readable, 0, &mut head);
        let room = total(&chain.writable);
        let parsed = parse_control(head.get(..n).unwrap_or_default(), room);
        let Some(control) = parsed else { return self.set_broken(m, "wrong size for virtio-scsi control header") };
        let answer = match control.function {
            Function::Query => vec![0, 0, 0, 0, Response::OK],
            Function::Unknown => vec![Response::FUNCTION_REJECTED],
            function => vec![self.manage(m, function, control.lun, control.id)],
        };
        self.write_to(m, &chain.writable, 0, &answer);
        self.push(m, CONTROL_QUEUE, chain, answer.len() as u32);
        self.interrupt(m, CONTROL_QUEUE);
    }

    /// Task management. §5.6.6.2
    fn manage(&self, m: &mut Locked, function: Function, lun: [u8; 8], id: u64) -> u8 {
        let Some((target, lun)) = unit_of(lun) else { return Response::BAD_TARGET };
        let Some(unit) = self.find(target, lun) else { return Response::BAD_TARGET };
        if function != Function::NexusReset && unit.unit() != lun {
            return Response::INCORRECT_LUN;
        }
        let of_unit = |p: &Pending| (p.target, p.lun) == (target, lun);
        let this = |p: &Pending| of_unit(p) && p.id == id;
        match function {
            Function::AbortTask => self.abort(m, Response::ABORTED, this),
            Function::AbortTaskSet => self.abort(m, Response::ABORTED, of_unit),
            Function::UnitReset => {
                self.abort(m, Response::RESET, of_unit);
                unit.reset_unit(m);
            }
            Function::NexusReset => {
                self.abort(m, Response::RESET, |p| p.target == target);
                let units = self.scsi_bus().map(|b| b.units().collect::<Vec<_>>()).unwrap_or_default();
                units.iter().filter(|u| u.target() == target).for_each(|u| u.reset_unit(m));
            }
            Function::QueryTask | Function::QueryTaskSet => {
                let one = function == Function::QueryTask;
                let there = self.regs.ro(m).pending.values().any(|p| if one { this(p) } else { of_unit(p) });
                return if there { Response::FUNCTION_SUCCEEDED } else { Response::OK };
            }
            Function::Query | Function::Unknown => return Response::FUNCTION_REJECTED,
        }
        Response::OK
    }

    // ---- events ----

    /// Tells the driver that something happened to a unit. §5.6.6.3
    fn event(&self, m: &mut Locked, what: u32, unit: Option<&ScsiDevice>, reason: u32) {
        if self.regs().ro(m).status & status::DRIVER_OK == 0 {
            return;
        }
        let Some(chain) = self.pop(m, EVENT_QUEUE) else {
            self.regs.rw(m).missed = true;
            return;
        };
        let missed = std::mem::take(&mut self.regs.rw(m).missed);
        if total(&chain.writable) < EVENT as u64 {
            return self.set_broken(m, "wrong size for virtio-scsi event");
        }
        let bytes = event::bytes(what, missed, unit.map(|u| (u.target(), u.unit())), reason);
        self.write_to(m, &chain.writable, 0, &bytes);
        self.push(m, EVENT_QUEUE, &chain, EVENT as u32);
        self.interrupt(m, EVENT_QUEUE);
    }
}

/// The adapter as its units see it.
struct Adapter(Handle<VirtioScsi>);

impl ScsiHba for Adapter {
    fn limits(&self) -> (u32, u32) {
        (MAX_TARGET, MAX_LUN)
    }

    fn data_out(&self, m: &mut Locked, tag: u64, skip: u64, buf: &mut [u8]) -> usize {
        let Some(d) = self.0.upgrade() else { return 0 };
        let Some(p) = d.regs.ro(m).pending.get(&tag).cloned() else { return 0 };
        d.read_from(m, &p.chain.readable, p.skip.0.saturating_add(skip), buf)
    }

    fn data_in(&self, m: &mut Locked, tag: u64, skip: u64, data: &[u8]) {
        let Some(d) = self.0.upgrade() else { return };
        let Some(p) = d.regs.ro(m).pending.get(&tag).cloned() else { return };
        d.write_to(m, &p.chain.writable, p.skip.1.saturating_add(skip), data);
    }

    fn memory(&self, m: &Locked, tag: u64, skip: u64, len: u64, write: bool) -> Option<RamRanges> {
        let d = self.0.upgrade()?;
        let p = d.regs.ro(m).pending.get(&tag)?;
        let (segments, before) = if write { (&p.chain.writable, p.skip.1) } else { (&p.chain.readable, p.skip.0) };
        d.memory_of(m, segments, before.saturating_add(skip), len, write)
    }

    fn complete(&self, m: &mut Locked, tag: u64, end: End, moved: u64) {
        let Some(d) = self.0.upgrade() else { return };
        let Some(p) = d.regs.ro(m).pending.get(&tag) else { return };
        let all = total(&p.chain.readable) - p.skip.0 + total(&p.chain.writable) - p.skip.1;
        let resid = u32::try_from(all.saturating_sub(moved)).unwrap_or(u32::MAX);
        let response = match end {
            End::Good => Response { resid, ..Response::default() },
            End::Check(sense) => Response {
                resid,
                status: scsi_status::CHECK_CONDITION,
                sense: sense.fixed().to_vec(),
                ..Response::default()
            },
            End::Overrun => Response::failed(Response::OVERRUN),
            End::Aborted => Response::failed(Response::ABORTED),
        };
        d.give_back(m, tag, &response);
    }

    fn changed(&self, m: &mut Locked, unit: &ScsiDevice, change: Change) {
        let Some(d) = self.0.upgrade() else { return };
        let Change::Parameter(Sense { asc, ascq, .. }) = change;
        if d.has_feature(m, f::CHANGE) {
            d.event(m, event::PARAM_CHANGE, Some(unit), u32::from(asc) | u32::from(ascq) << 8);
        }
    }
}

impl HotplugHandler for VirtioScsi {
    fn plug(&self, m: &mut Locked, dev: &Device) -> Result<()> {
        let o = dev.object();
        if let Some(unit) = o.cast::<ScsiDevice>().filter(|_| dev.is_hotplugged()) {
            if self.has_feature(m, f::HOTPLUG) {
                self.event(m, event::TRANSPORT_RESET, Some(unit), event::RESCAN);
            }
            for other in self.scsi_bus().iter().flat_map(|b| b.units()) {
                other.attention(m, Sense::LUNS_CHANGED);
            }
        }
        Ok(())
    }

    fn unplug(&self, m: &mut Locked, dev: &Device) -> Result<()> {
        let o = dev.object();
        if let Some(unit) = o.cast::<ScsiDevice>()
            && self.has_feature(m, f::HOTPLUG)
        {
            self.event(m, event::TRANSPORT_RESET, Some(unit), event::REMOVED);
        }
        dev.remove(m);
        for other in self.scsi_bus().iter().flat_map(|b| b.units()) {
            other.attention(m, Sense::LUNS_CHANGED);
        }
        Ok(())
    }
}

impl VirtioImpl for VirtioScsi {
    /// §5.6.4
    fn config(&self, m: &Locked) -> Vec<u8> {
        let r = self.regs.ro(m);
        let segments = if self.seg_max_adjust.get() { self.virtqueue_size.get() } else { 128 } - 2;
        let words = [
            self.num_queues.get(),
            segments,
            self.max_sectors.get(),
            self.cmd_per_lun.get(),
            EVENT as u32,
            r.sense_size,
            r.cdb_size,
        ];
        let mut c: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        c.extend(0u16.to_le_bytes()); // channels
        c.extend((MAX_TARGET as u16).to_le_bytes());
        c.extend(MAX_LUN.to_le_bytes());
        c
    }

    fn set_config(&self, m: &mut Locked, at: usize, bytes: &[u8]) {
        let mut config = self.config(m);
        crate::scsi::put(config.get_mut(at..).unwrap_or_default(), 0, bytes);
        let word = |at: usize| config.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
        let (sense, cdb) = (word(SENSE_SIZE), word(CDB_SIZE));
        if sense > MAX_SENSE || cdb > MAX_CDB {
            return self.set_broken(m, "bad data written to virtio-scsi configuration space");
        }
        let r = self.regs.rw(m);
        (r.sense_size, r.cdb_size) = (sense, cdb);
    }

    fn handle_queue(&self, m: &mut Locked, n: usize) {
        if n == EVENT_QUEUE {
            if self.regs.ro(m).missed {
                self.event(m, event::NO_EVENT, None, 0);
            }
            return;
        }
        self.each_chain(m, n, |d: &Self, m, chain| match n {
            CONTROL_QUEUE => d.control(m, &chain),
            _ => d.begin(m, n, chain),
        });
    }

    fn stop(&self, m: &mut Locked, queue: Option<usize>) {
        match queue {
            None => {
                *self.regs.rw(m) = ScsiRegs::default();
                if let Some(bus) = self.scsi_bus() {
                    bus.reset_units(m);
                }
            }
            Some(n) => {
                let all = self.regs.ro(m).pending.iter().filter(|(_, p)| p.queue == n);
                let all: Vec<(u64, u32, u32)> = all.map(|(tag, p)| (*tag, p.target, p.lun)).collect();
                for (tag, target, lun) in all {
                    self.regs.rw(m).pending.remove(&tag);
                    if let Some(unit) = self.find(target, lun) {
                        unit.cancel(m, tag);
                    }
                }
            }
        }
    }
}

impl VirtioScsi {
    fn check_properties(&self) -> Result<()> {
        if self.num_queues.get() == AUTO_QUEUES {
            let cpus = Machine::of(self.scope()).map_or(1, |m| m.topology().cpus);
            self.num_queues.set(cpus.clamp(1, (super::device::MAX_QUEUES - FIXED) as u32));
        }
        let (queues, size) = (self.num_queues.get(), self.virtqueue_size.get());
        let most = super::device::MAX_QUEUES - FIXED;
        if queues == 0 || queues as usize > most {
            return Err(Error::generic(format!(
                "Invalid number of queues (= {queues}), must be a positive integer less than {}.",
                most + 1
            )));
        }
        if size <= 2 {
            return Err(Error::generic(format!("invalid virtqueue_size property (= {size}), must be > 2")));
        }
        if !size.is_power_of_two() || size > u32::from(MAX_SIZE) {
            return Err(Error::generic(format!(
                "invalid virtqueue_size property (= {size}), must be a power of 2 (max {MAX_SIZE})"
            )));
        }
        Ok(())
    }
}

impl DeviceImpl for VirtioScsi {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.check_properties()?;
        self.threads().assign(FIXED, self.num_queues.get() as usize)?;
        let size = self.virtqueue_size.get() as u16;
        self.set_queues(m, std::iter::repeat_n(size, FIXED + self.num_queues.get() as usize));
        self.parent_realize(m)?;
        // The bus carries the name that the user gave the function.
        let device: &Device = self;
        let function = device.bus().and_then(|b| b.parent_device()).and_then(|d| d.id());
        let name = function.map(|id| format!("{id}.0"));
        let bus = match ScsiBus::create(self, name.as_deref(), Arc::new(Adapter(self.this()))) {
            Ok(bus) => bus,
            Err(e) => {
                self.parent_unrealize(m);
                return Err(e);
            }
        };
        bus.set_hotplug_handler(Some(&self.object()))?;
        *self.bus.write() = Handle::new(Ref::object(&bus)).unwrap_or_default();
        Ok(())
    }

    fn unrealize(&self, m: &mut Locked) {
        self.parent_unrealize(m);
        self.threads().release();
        for bus in self.child_buses() {
            bus.unparent();
        }
        *self.bus.write() = Handle::default();
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        let queues = FIXED + self.num_queues.get() as usize;
        let r = self.regs.ro(m);
        let possible = r.sense_size <= MAX_SENSE && r.cdb_size <= MAX_CDB;
        let fits = |(tag, p): (&u64, &Pending)| {
            *tag < r.next
                && (FIXED..queues).contains(&p.queue)
                && p.skip.0 <= total(&p.chain.readable)
                && p.skip.1 <= total(&p.chain.writable)
        };
        if !possible || !r.pending.iter().all(fits) {
            return Err(Error::generic("virtio-scsi: impossible state"));
        }
        self.parent_post_load(m)
    }
}
