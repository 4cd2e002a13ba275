//! Disks and CD drives on SCSI, abstract type `scsi-disk-base`: how commands become requests to the image. Commands:
//! `disk_commands`; the types users see: `types`. Source: SBC-3 §4, SAM-5 §5.
//!
//! A job is a value that is part of the state until its command has ended. So one that failed under `werror=stop` is made again when the
//! machine goes on, and one that was in flight when state was saved is made again where it is loaded.

use super::bus::{Change, Command, End, ScsiDevice, ScsiDeviceClass, ScsiImpl};
use super::disk_commands::{DiskInfo, Reply, Work, execute, parameters};
use super::mmc::Tray;
use super::sense::Sense;
use crate::block::conf::{DiskConf, HasDisk, guessed_geometry};
use block::{Action, Backend, CHUNK, Data, LENT, Loans, Media, Op, Outcome, Request};
use hw_core::{Category, Core, Device, DeviceClass, DeviceImpl, Locked, MachineCell, RunState, events::VmState};
use parking_lot::{Mutex, RwLock};
use qom::{Class, Error, Handle, Level, Object, Prop, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A command at work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Job {
    work: Work,
    /// Bytes done, of UNMAP ranges.
    done: u64,
}

/// All that initiators can observe and a snapshot must keep.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct DiskRegs {
    tray: Tray,
    /// What MODE SELECT said of the write cache.
    write_cache: Option<bool>,
    /// The jobs at work, by tag.
    jobs: BTreeMap<u64, Job>,
}

/// Type `scsi-disk-base`.
#[derive(Object)]
#[qom(name = "scsi-disk-base", parent = ScsiDevice, abstract, methods(DeviceClass, ScsiDeviceClass),
    class_init = ScsiDisk::class_init)]
pub struct ScsiDisk {
    parent: ScsiDevice,
    conf: DiskConf,
    #[property]
    pub(super) ver: Prop<String>,
    #[property]
    pub(super) serial: Prop<String>,
    #[property]
    pub(super) vendor: Prop<String>,
    #[property]
    pub(super) product: Prop<String>,
    #[property(name = "device_id")]
    pub(super) device_id: Prop<String>,
    #[property(default = 0)]
    pub(super) wwn: Prop<u64>,
    #[property(name = "port_wwn", default = 0)]
    pub(super) port_wwn: Prop<u64>,
    #[property(name = "port_index", default = 0)]
    pub(super) port_index: Prop<u16>,
    #[property(name = "scsi_version", default = 5)]
    pub(super) scsi_version: Prop<i32>,
    #[property(name = "max_io_size", default = i32::MAX as u64)]
    pub(super) max_io_size: Prop<u64>,
    /// Requests are saved by us in one way only.
    #[property(name = "migrate-emulated-scsi-request", default = true)]
    migrate_requests: Prop<bool>,
    #[property(name = "quirk_mode_page_vendor_specific_apple", default = false)]
    quirk_apple: Prop<bool>,
    #[property(name = "quirk_mode_page_set_block_size", default = false)]
    quirk_block_size: Prop<bool>,
    #[state]
    regs: MachineCell<DiskRegs>,
    info: RwLock<DiskInfo>,
    /// Jobs that failed and wait for the machine to go on.
    held: Mutex<BTreeSet<u64>>,
    /// Memory of initiators that requests under way move bytes of, by tag.
    loans: Loans<u64>,
    /// Write cache as it was before an initiator changed it.
    original_wce: AtomicBool,
    /// Counts resets and loads: what was submitted before has no job any more.
    epoch: AtomicU64,
}

impl HasDisk for ScsiDisk {
    fn disk_conf(&self) -> &DiskConf {
        &self.conf
    }
}

impl ScsiDisk {
    fn class_init(c: &mut Class) {
        let d = c.edit::<DeviceClass>();
        d.categories = vec![Category::Storage];
        d.fw_name = Some("disk");
        DiskConf::properties::<ScsiDisk>(c);
        DiskConf::boot_property::<ScsiDisk>(c);
        DiskConf::policy_properties::<ScsiDisk>(c);
    }

    /// What the type says of the unit; before the parent's `realize`, which fills in the rest.
    pub(super) fn set_info(&self, info: DiskInfo) {
        *self.info.write() = info;
    }

    /// What the unit is now.
    fn now(&self, m: &Locked) -> DiskInfo {
        let mut i = self.info.read().clone();
        if let Some(b) = self.conf.backend() {
            i.len = b.len();
            i.present = b.root().is_some();
            i.read_only = i.rom || b.is_read_only();
            i.write_cache = b.write_cache();
        }
        i.tray_locked = self.regs.ro(m).tray.locked;
        i
    }

    fn set_write_cache(&self, m: &mut Locked, on: Option<bool>) {
        self.regs.rw(m).write_cache = on;
        if let Some(b) = self.conf.backend().filter(|b| b.is_attached()) {
            b.set_write_cache(on.unwrap_or_else(|| self.original_wce.load(Ordering::Relaxed)));
        }
    }

    /// Tells the drive and its monitors how the tray is.
    fn tell_tray(&self, m: &mut Locked) {
        if !self.info.read().removable {
            return;
        }
        let Tray { open, locked, .. } = self.regs.ro(m).tray;
        let Some(backend) = self.conf.backend() else { return };
        if backend.set_tray(open, locked) {
            let data = json!({"device": backend.name(), "id": backend.qdev(), "tray-open": open});
            self.core().emit("DEVICE_TRAY_MOVED", data);
        }
    }

    // ---- jobs ----

    /// Makes the job's next request.
    fn run(&self, m: &mut Locked, tag: u64) {
        let Some(job) = self.regs.ro(m).jobs.get(&tag).cloned() else { return };
        let (Some(backend), Some(hba)) = (self.conf.backend(), self.hba()) else { return };
        let done = job.done;
        let piece = |len: u64| len.saturating_sub(done).min(CHUNK);
        let lent = match job.work {
            Work::Read { len, flush: false, .. } => hba.memory(m, tag, done, len.saturating_sub(done).min(LENT), true),
            Work::Write { len, .. } => hba.memory(m, tag, done, len.saturating_sub(done).min(LENT), false),
            _ => None,
        };
        let request = match (job.work, lent) {
            (Work::Read { flush: true, .. } | Work::Flush, _) => Request::flush(),
            (Work::Read { offset, .. }, Some(ranges)) => self.loans.read(tag, offset.saturating_add(done), ranges),
            (Work::Write { offset, fua, .. }, Some(ranges)) => {
                self.loans.write(tag, offset.saturating_add(done), ranges, fua)
            }
            (Work::Read { offset, len, .. } | Work::Compare { offset, len }, _) => {
                Request::read(offset.saturating_add(done), piece(len) as usize)
            }
            (Work::Write { offset, len, fua }, None) => {
                let mut data = backend.buffer(piece(len) as usize);
                if hba.data_out(m, tag, done, &mut data) < data.len() {
                    // What the initiator took away is not written as zeros.
                    return self.finish(m, tag, End::Check(Sense::IO_ERROR), done);
                }
                Request { op: Op::Write { fua }, offset: offset.saturating_add(done), data }
            }
            (Work::Unmap { ranges }, _) => match ranges.get(usize::try_from(done).unwrap_or(usize::MAX)) {
                Some((offset, len)) => Request::discard(*offset, *len),
                None => Request::flush(),
            },
            (Work::Zeroes { offset, len, unmap }, _) => {
                Request { op: Op::WriteZeroes { len, unmap, fua: false }, offset, data: Data::default() }
            }
            (Work::Same { offset, len, block }, _) => {
                let n = piece(len) as usize;
                let data: Vec<u8> = block.iter().copied().cycle().take(n).collect();
                Request::write(offset.saturating_add(done), data)
            }
        };
        let moved = request.len();
        let epoch = self.epoch.load(Ordering::Relaxed);
        let me: Handle<ScsiDisk> = self.this();
        backend.submit(
            request,
            Box::new(move |outcome| {
                let Some(d) = me.upgrade() else { return };
                let m = &mut d.core().lock();
                if d.epoch.load(Ordering::Relaxed) == epoch {
                    d.loans.end(&tag);
                    d.ended(m, tag, moved, outcome);
                }
            }),
        );
    }

    /// A request of a job has ended.
    fn ended(&self, m: &mut Locked, tag: u64, moved: u64, outcome: Outcome) {
        // The initiator may have given the command up meanwhile.
        let Some(job) = self.regs.ro(m).jobs.get(&tag).cloned() else { return };
        if let Err(e) = &outcome.result {
            let reads = job.work.reads();
            let action = self.conf.backend().map_or(Action::Report, |b| b.failed(self.core(), reads, e));
            match action {
                Action::Stop => _ = self.held.lock().insert(tag),
                Action::Ignore => self.advance(m, tag, job, moved),
                Action::Report => self.finish(m, tag, End::Check(Sense::of_host(e, reads)), job.done),
            }
            return;
        }
        match (&job.work, self.hba()) {
            (Work::Read { flush: false, .. }, Some(hba)) if !outcome.data.is_empty() => {
                hba.data_in(m, tag, job.done, &outcome.data)
            }
            (Work::Compare { .. }, Some(hba)) => {
                let mut theirs = vec![0; outcome.data.len()];
                if hba.data_out(m, tag, job.done, &mut theirs) < theirs.len() || theirs != *outcome.data {
                    return self.finish(m, tag, End::Check(Sense::MISCOMPARE), job.done);
                }
            }
            _ => {}
        }
        self.advance(m, tag, job, moved);
    }

    /// A part of a job is done.
    fn advance(&self, m: &mut Locked, tag: u64, mut job: Job, moved: u64) {
        let more = match &mut job.work {
            Work::Read { flush: flush @ true, .. } => {
                *flush = false;
                true
            }
            Work::Unmap { ranges } => {
                job.done += 1;
                job.done < ranges.len() as u64
            }
            Work::Read { len, .. } | Work::Write { len, .. } | Work::Compare { len, .. } | Work::Same { len, .. } => {
                job.done = job.done.saturating_add(moved);
                job.done < *len
            }
            Work::Flush | Work::Zeroes { .. } => false,
        };
        if more {
            self.regs.rw(m).jobs.insert(tag, job);
            self.run(m, tag);
        } else {
            let (out, room) = job.work.data();
            self.finish(m, tag, End::Good, out.max(room));
        }
    }

    fn finish(&self, m: &mut Locked, tag: u64, end: End, moved: u64) {
        self.regs.rw(m).jobs.remove(&tag);
        self.end(m, tag, end, moved);
    }

    /// Forgets all jobs.
    fn forget_all(&self, m: &mut Locked) {
        self.loans.take_all_back();
        self.regs.rw(m).jobs.clear();
        self.held.lock().clear();
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }

    fn went_on(&self, m: &mut Locked, state: &VmState) {
        if !state.running {
            return;
        }
        if let Some(b) = self.conf.backend() {
            b.reset_io_status();
        }
        let held = std::mem::take(&mut *self.held.lock());
        held.into_iter().for_each(|tag| self.run(m, tag));
    }
}

impl ScsiImpl for ScsiDisk {
    fn execute(&self, m: &mut Locked, c: &Command) {
        let info = self.now(m);
        let want = parameters(&info, &c.cdb);
        if want > c.out {
            return self.end(m, c.tag, End::Overrun, 0);
        }
        let mut list = vec![0; want as usize];
        if want > 0 {
            let given = self.hba().map_or(0, |hba| hba.data_out(m, c.tag, 0, &mut list));
            list.truncate(given);
        }
        let tray = &mut self.regs.rw(m).tray;
        let was = *tray;
        let reply = execute(&info, tray, &c.cdb, &list);
        if *tray != was {
            self.tell_tray(m);
        }
        match reply {
            Err(sense) => self.end(m, c.tag, End::Check(sense), 0),
            Ok(Reply::Done) => self.end(m, c.tag, End::Good, want),
            Ok(Reply::Data(data, max)) => self.reply(m, c, data, max),
            Ok(Reply::WriteCache(on)) => {
                self.set_write_cache(m, Some(on));
                self.end(m, c.tag, End::Good, want);
            }
            Ok(Reply::Work(work)) => {
                let (out, room) = work.data();
                if out > c.out || room > c.room {
                    return self.end(m, c.tag, End::Overrun, 0);
                }
                self.regs.rw(m).jobs.insert(c.tag, Job { work, done: 0 });
                self.run(m, c.tag);
            }
        }
    }

    fn cancel(&self, m: &mut Locked, tag: u64) -> bool {
        self.loans.take_back(|t| *t == tag);
        self.held.lock().remove(&tag);
        self.regs.rw(m).jobs.remove(&tag).is_some()
    }

    fn unit_reset(&self, m: &mut Locked) {
        self.forget_all(m);
        self.regs.rw(m).tray = Tray::default();
        self.set_write_cache(m, None);
        self.tell_tray(m);
    }
}

/// How monitors reach the unit.
struct DiskMedia(Handle<ScsiDisk>);

impl DiskMedia {
    fn with_tray(&self, f: impl FnOnce(&mut Tray)) {
        self.0.with(|d| {
            let m = &mut Core::of(d).lock();
            f(&mut d.regs.rw(m).tray);
            d.tell_tray(m);
        });
    }
}

impl Media for DiskMedia {
    fn request_eject(&self, force: bool) {
        self.with_tray(|t| if force { t.open = true } else { t.wish_to_eject() });
    }

    fn move_tray(&self, open: bool) {
        self.with_tray(|t| t.open = open);
    }

    fn changed(&self) {
        self.0.with(|d| {
            let m = &mut Core::of(d).lock();
            d.regs.rw(m).tray.medium_changed();
            d.attention(m, Sense::MEDIUM_CHANGED);
            if let Some(hba) = d.hba() {
                hba.changed(m, d, Change::Parameter(Sense::MEDIUM_CHANGED));
            }
        });
    }

    fn resized(&self) {
        self.0.with(|d| {
            let m = &mut Core::of(d).lock();
            d.attention(m, Sense::CAPACITY_CHANGED);
            if let Some(hba) = d.hba() {
                hba.changed(m, d, Change::Parameter(Sense::CAPACITY_CHANGED));
            }
        });
    }
}

impl ScsiDisk {
    /// What has no value of the user's.
    fn complete_info(&self, backend: &Backend) {
        let mut i = self.info.write();
        i.block = self.conf.block_size();
        i.serial = self.serial.get();
        i.device_id = match self.device_id.get() {
            id if !id.is_empty() => id,
            // Twenty characters, as on QEMU.
            _ if !i.serial.is_empty() => i.serial.chars().take(20).collect(),
            _ => backend.name().to_owned(),
        };
        let or = |text: String, other: &str| if text.is_empty() { other.to_owned() } else { text };
        i.vendor = or(self.vendor.get(), "QEMU");
        i.product = or(self.product.get(), if i.rom { "QEMU CD-ROM" } else { "QEMU HARDDISK" });
        i.revision = or(self.ver.get(), "2.5+");
        i.version = self.scsi_version.get() as u8;
        (i.wwn, i.port_wwn, i.port_index) = (self.wwn.get(), self.port_wwn.get(), self.port_index.get());
        i.physical_exponent = self.conf.physical_exponent();
        (i.min_io, i.opt_io, i.max_io) = (self.conf.min_io_size(), self.conf.opt_io_size(), self.max_io_size.get());
        i.granularity = self.conf.discard_granularity();
        if i.chs == (0, 0, 0) {
            i.chs = guessed_geometry(backend.len());
        }
    }

    fn check(&self) -> Result<()> {
        let quirks = [
            ("quirk_mode_page_vendor_specific_apple", &self.quirk_apple),
            ("quirk_mode_page_set_block_size", &self.quirk_block_size),
        ];
        refuse_quirks(&quirks)?;
        if !(0..=7).contains(&self.scsi_version.get()) {
            return Err(Error::generic("scsi_version must be between 0 and 7"));
        }
        let (block, granularity) = if self.info.read().rom { (super::mmc::SECTOR, 0) } else { (512, 4096) };
        self.conf.check(block, Some(granularity))?;
        crate::i386::drives::check_boot_index(self.scope(), self.conf.boot_index())
    }

    fn take_drive(&self) -> Result<Arc<Backend>> {
        let (rom, removable) = {
            let i = self.info.read();
            (i.rom, i.removable)
        };
        if removable && self.conf.backend().is_none() {
            self.conf.drive.set(block::Blocks::of(self.core()).anonymous(None)?);
        }
        let device: &Device = self;
        let backend = self.conf.claim(device, removable)?;
        if !rom && !removable && backend.root().is_none() {
            self.conf.drive.release();
            return Err(Error::generic("Device needs media, but drive is empty"));
        }
        Ok(backend)
    }
}

/// Says which of these is on.
pub(super) fn refuse_quirks(quirks: &[(&str, &Prop<bool>)]) -> Result<()> {
    match quirks.iter().find(|q| q.1.get()) {
        Some((name, _)) => Err(Error::generic(format!("{name}=on is not built yet"))),
        None => Ok(()),
    }
}

impl DeviceImpl for ScsiDisk {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.check()?;
        let backend = self.take_drive()?;
        self.complete_info(&backend);
        self.original_wce.store(backend.write_cache(), Ordering::Relaxed);
        backend.set_media(Arc::new(DiskMedia(self.this())));
        if let Err(e) = self.parent_realize(m) {
            self.conf.drive.release();
            return Err(e);
        }
        self.reset_unit(m);
        self.core().events.vm_state.add_for(self, ScsiDisk::went_on);
        Ok(())
    }

    fn unrealize(&self, m: &mut Locked) {
        self.loans.take_all_back();
        let tags: Vec<u64> = self.regs.ro(m).jobs.keys().copied().collect();
        tags.into_iter().for_each(|tag| self.finish(m, tag, End::Aborted, 0));
        self.forget_all(m);
        self.parent_unrealize(m);
        self.conf.drive.release();
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        self.parent_post_load(m)?;
        self.loans.take_all_back();
        self.epoch.fetch_add(1, Ordering::Relaxed);
        let cache = self.regs.ro(m).write_cache;
        self.set_write_cache(m, cache);
        self.tell_tray(m);
        let tags: BTreeSet<u64> = self.regs.ro(m).jobs.keys().copied().collect();
        self.held.lock().clear();
        if self.core().requests.state() == RunState::IoError {
            *self.held.lock() = tags;
        } else {
            tags.into_iter().for_each(|tag| self.run(m, tag));
        }
        Ok(())
    }
}
