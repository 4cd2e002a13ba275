//! A disk, type `virtio-blk-device`. Source: virtio 1.2 §5.2. Requests: `blk_request`.
//! Not modelled: secure erase, lifetime, zones; SCSI commands of legacy drivers; translated geometries.
//!
//! A request is a value that is part of the state until its chain goes back to the driver. So one that failed under `werror=stop` is
//! made again when the machine goes on, and one that was in flight when state was saved is made again where it is loaded.

use super::blk_request::{HEADER, ID, Limits, RANGE, SECTOR, Status, Work, parse};
use super::device::{VirtioDevice, VirtioDeviceClass, VirtioImpl, status};
use super::ring::{Chain, MAX_SIZE, total};
use crate::block::conf::{DiskConf, HasDisk, guessed_geometry};
use block::{Action, Backend, CHUNK, Data, LENT, Loans, Media, Op, Outcome, Request};
use hw_core::memory::RamRanges;
use hw_core::{Category, DeviceClass, DeviceImpl, Locked, Machine, MachineCell, RunState, events::VmState};
use parking_lot::Mutex;
use qom::{Class, Error, Handle, Level, Object, Prop, Result};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Features. §5.2.3
mod f {
    pub const SEG_MAX: u64 = 1 << 2;
    pub const GEOMETRY: u64 = 1 << 4;
    pub const RO: u64 = 1 << 5;
    pub const BLK_SIZE: u64 = 1 << 6;
    pub const FLUSH: u64 = 1 << 9;
    pub const TOPOLOGY: u64 = 1 << 10;
    pub const CONFIG_WCE: u64 = 1 << 11;
    pub const MQ: u64 = 1 << 12;
    pub const DISCARD: u64 = 1 << 13;
    pub const WRITE_ZEROES: u64 = 1 << 14;
}

/// Properties for features: name, bit.
const FEATURES: [(&str, u64); 3] =
    [("config-wce", f::CONFIG_WCE), ("discard", f::DISCARD), ("write-zeroes", f::WRITE_ZEROES)];
/// Place of the write cache in the configuration space.
const WCE: usize = 32;
/// `num-queues` without a value: one a CPU.
const AUTO_QUEUES: u16 = u16::MAX;
/// Most sectors of a request, as QEMU's block layer has it.
const MAX_SECTORS: u32 = 0x3f_ffff;
/// Longest request that is done at once, while the machine is locked, if its medium takes no time.
const INSTANT: u64 = 128 << 10;

/// A request at work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Pending {
    queue: usize,
    chain: Chain,
    work: Work,
    /// Bytes done.
    done: u64,
}

/// The requests at work, by the order they came.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Requests {
    next: u64,
    pending: BTreeMap<u64, Pending>,
    /// What the driver said of the write cache.
    write_cache: Option<bool>,
}

/// Type `virtio-blk-device`.
#[derive(Object)]
#[qom(name = "virtio-blk-device", parent = VirtioDevice, methods(DeviceClass, VirtioDeviceClass),
    class_init = VirtioBlk::class_init, instance_init = VirtioBlk::instance_init)]
pub struct VirtioBlk {
    parent: VirtioDevice,
    conf: DiskConf,
    #[property]
    serial: Prop<String>,
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
    #[property(name = "report-discard-granularity", default = true)]
    report_discard_granularity: Prop<bool>,
    #[property(name = "request-merging", default = true)]
    request_merging: Prop<bool>,
    #[property(name = "num-queues", default = AUTO_QUEUES)]
    num_queues: Prop<u16>,
    #[property(name = "queue-size", default = 256)]
    queue_size: Prop<u16>,
    #[property(name = "seg-max-adjust", default = true)]
    seg_max_adjust: Prop<bool>,
    #[property(name = "max-discard-sectors", default = MAX_SECTORS)]
    max_discard: Prop<u32>,
    #[property(name = "max-write-zeroes-sectors", default = MAX_SECTORS)]
    max_zeroes: Prop<u32>,
    #[property(name = "x-enable-wce-if-config-wce", default = true)]
    wce_if_config: Prop<bool>,
    #[state]
    requests: MachineCell<Requests>,
    /// Requests that failed and wait for the machine to go on.
    held: Mutex<BTreeSet<u64>>,
    /// What requests under way move bytes of, by the queue and the first request's number.
    loans: Loans<(usize, u64)>,
    /// Write cache as it was before a driver changed it.
    original_wce: AtomicBool,
    /// Counts resets and loads: what was submitted before has no request any more.
    epoch: AtomicU64,
}

impl HasDisk for VirtioBlk {
    fn disk_conf(&self) -> &DiskConf {
        &self.conf
    }
}

impl VirtioBlk {
    fn class_init(c: &mut Class) {
        let d = c.edit::<DeviceClass>();
        d.categories = vec![Category::Storage];
        let v = c.edit::<VirtioDeviceClass>();
        (v.device_id, v.name) = (2, "virtio-blk");
        for (name, bit) in FEATURES {
            VirtioDevice::feature_property(c, name, bit, true);
        }
        DiskConf::properties::<VirtioBlk>(c);
        DiskConf::boot_property::<VirtioBlk>(c);
        DiskConf::policy_properties::<VirtioBlk>(c);
        super::threads::properties(c, true);
    }

    fn instance_init(&self) -> Result<()> {
        self.want(FEATURES.iter().fold(0, |all, f| all | f.1));
        Ok(())
    }

    fn limits(&self, backend: &Backend) -> Limits {
        Limits {
            len: backend.len(),
            block: self.conf.block_size(),
            read_only: backend.is_read_only(),
            discard: self.wants(f::DISCARD),
            write_zeroes: self.wants(f::WRITE_ZEROES),
            max_discard: self.max_discard.get(),
            max_zeroes: self.max_zeroes.get(),
        }
    }

    /// Cylinders, heads and sectors per track.
    fn geometry(&self, len: u64) -> (u32, u32, u32) {
        match (self.cyls.get(), self.heads.get(), self.secs.get()) {
            (0, 0, 0) => guessed_geometry(len),
            chosen => chosen,
        }
    }

    fn check_properties(&self) -> Result<()> {
        if [&self.lcyls, &self.lheads, &self.lsecs].iter().any(|p| p.get() != 0) {
            return Err(Error::generic("translated geometries (lcyls, lheads, lsecs) are not built yet"));
        }
        match (self.cyls.get(), self.heads.get(), self.secs.get()) {
            (0, 0, 0) | (1..=65535, 1..=255, 1..=255) => {}
            _ => return Err(Error::generic("cyls must be between 1 and 65535, heads and secs between 1 and 255")),
        }
        self.conf.check(SECTOR, None)?;
        if self.num_queues.get() == AUTO_QUEUES {
            let cpus = Machine::of(self.scope()).map_or(1, |m| m.topology().cpus);
            self.num_queues.set(cpus.clamp(1, super::device::MAX_QUEUES as u32) as u16);
        }
        let (queues, size) = (self.num_queues.get(), self.queue_size.get());
        if queues == 0 {
            return Err(Error::generic("num-queues property must be larger than 0"));
        }
        if usize::from(queues) > super::device::MAX_QUEUES {
            return Err(Error::generic(format!("num-queues property must be at most {}", super::device::MAX_QUEUES)));
        }
        if self.seg_max_adjust.get() && size <= 2 {
            return Err(Error::generic(format!("invalid queue-size property ({size}), must be > 2")));
        }
        if !size.is_power_of_two() || size > MAX_SIZE {
            return Err(Error::generic(format!(
                "invalid queue-size property ({size}), must be a power of 2 (max {MAX_SIZE})"
            )));
        }
        for (name, n) in [("max-discard-sectors", &self.max_discard), ("max-write-zeroes-sectors", &self.max_zeroes)] {
            if !(1..=MAX_SECTORS).contains(&n.get()) {
                return Err(Error::generic(format!(
                    "invalid {name} property ({}), must be between 1 and {MAX_SECTORS}",
                    n.get()
                )));
            }
        }
        Ok(())
    }

    /// Takes the drive.
    fn claim(&self) -> Result<()> {
        let backend = self.conf.claim(self, false)?;
        if backend.root().is_none() {
            self.conf.drive.release();
            return Err(Error::generic("Device needs media, but drive is empty"));
        }
        self.original_wce.store(backend.write_cache(), Ordering::Relaxed);
        Ok(())
    }

    /// Sets the write cache as the driver says, or as it was.
    fn set_write_cache(&self, m: &mut Locked, on: Option<bool>) {
        self.requests.rw(m).write_cache = on;
        if let Some(backend) = self.conf.backend().filter(|b| b.is_attached()) {
            backend.set_write_cache(on.unwrap_or_else(|| self.original_wce.load(Ordering::Relaxed)));
        }
    }

    // ---- requests ----

    /// Takes a request from a queue; answers its number if there is work to do for it.
    fn begin(&self, m: &mut Locked, queue: usize, chain: Chain) -> Option<u64> {
        let backend = self.conf.backend()?;
        let mut head = [0; HEADER + RANGE];
        let n = self.read_from(m, &chain.readable, 0, &mut head);
        let head = head.get(..n).unwrap_or_default();
        let parsed = parse(&self.limits(&backend), head, total(&chain.readable), total(&chain.writable));
        match parsed {
            Err(e) => self.set_broken(m, &e.to_string()),
            Ok(Err(status)) => self.complete(m, queue, &chain, status),
            Ok(Ok(Work::Id)) => {
                let mut id = self.serial.get().into_bytes();
                id.push(0);
                id.truncate(ID.min(total(&chain.writable).saturating_sub(1) as usize));
                self.write_to(m, &chain.writable, 0, &id);
                self.complete(m, queue, &chain, Status::Ok);
            }
            Ok(Ok(work)) => {
                let requests = self.requests.rw(m);
                let ticket = requests.next;
                requests.next += 1;
                requests.pending.insert(ticket, Pending { queue, chain, work, done: 0 });
                return Some(ticket);
            }
        }
        None
    }

    /// Starts requests that came together. Neighbours that read, or write, one place after the other become one request of the medium's.
    fn run_batch(&self, m: &mut Locked, queue: usize, tickets: &[u64]) {
        let mut rest = tickets;
        while !rest.is_empty() {
            let (group, later) = rest.split_at(self.neighbours(m, rest).clamp(1, rest.len()));
            if group.len() == 1 || !self.run_merged(m, queue, group) {
                group.iter().for_each(|ticket| self.run(m, *ticket));
            }
            rest = later;
        }
    }

    fn merges(&self) -> bool {
        // (What takes no time is done before it could be put together.)
        self.request_merging.get() && self.conf.backend().is_some_and(|b| !b.takes_no_time())
    }

    /// How many of these requests, from the first on, can be one.
    fn neighbours(&self, m: &Locked, tickets: &[u64]) -> usize {
        let pending = &self.requests.ro(m).pending;
        let mut ranges = tickets.iter().map_while(|t| pending.get(t)?.work.range());
        let Some((reads, start, mut end)) = ranges.next().filter(|_| self.merges()) else { return 1 };
        let next = |(r, from, to): &(bool, u64, u64)| {
            let fits = *r == reads && *from == end && to - start <= LENT;
            if fits {
                end = *to;
            }
            fits
        };
        1 + ranges.take_while(next).count()
    }

    /// Starts neighbours as one request; false: what they move does not lie in memory of the host's.
    fn run_merged(&self, m: &mut Locked, queue: usize, group: &[u64]) -> bool {
        let pending = &self.requests.ro(m).pending;
        let all = || group.iter().filter_map(|t| pending.get(t));
        let Some((reads, offset, _)) = all().next().and_then(|p| p.work.range()) else { return false };
        let mut memory = RamRanges::default();
        for p in all() {
            let Some(part) = self.memory(m, p, p.work.len()) else { return false };
            memory.append(&part);
        }
        let Some(first) = group.first().copied() else { return false };
        let request = self.lend((queue, first), reads, offset, memory);
        let group = group.to_vec();
        self.submit((queue, first), request, move |d, m, outcome| {
            let Some(backend) = d.conf.backend() else { return };
            if outcome.result.is_err() {
                // One by one, so that only what cannot be done fails, and counts as failed.
                backend.forget_failed(reads);
                return group.iter().for_each(|ticket| d.run(m, *ticket));
            }
            backend.count_merged(reads, group.len().saturating_sub(1) as u64);
            let requests = d.requests.rw(m);
            // (A reset of the queue may have taken some away.)
            let ended: Vec<Pending> = group.iter().filter_map(|ticket| requests.pending.remove(ticket)).collect();
            d.give_back(m, queue, &ended, Status::Ok);
        });
        true
    }

    /// The memory of the next `len` bytes of a request that reads or writes.
    fn memory(&self, m: &Locked, p: &Pending, len: u64) -> Option<RamRanges> {
        match p.work {
            Work::Read { .. } => self.memory_of(m, &p.chain.writable, p.done, len, true),
            Work::Write { .. } => {
                self.memory_of(m, &p.chain.readable, (HEADER as u64).saturating_add(p.done), len, false)
            }
            _ => None,
        }
    }

    /// A request that moves bytes of the guest's memory by itself, until it has ended or the memory is taken back.
    fn lend(&self, key: (usize, u64), reads: bool, offset: u64, ranges: RamRanges) -> Request {
        if reads { self.loans.read(key, offset, ranges) } else { self.loans.write(key, offset, ranges, false) }
    }

    /// Starts a request of the medium's; `done` is called with the machine locked, unless a reset or a load comes first.
    fn submit(
        &self,
        key: (usize, u64),
        request: Request,
        done: impl FnOnce(&Self, &mut Locked, Outcome) + Send + 'static,
    ) {
        let Some(backend) = self.conf.backend() else { return };
        let epoch = self.epoch.load(Ordering::Relaxed);
        let me: Handle<VirtioBlk> = self.this();
        backend.submit(
            request,
            Box::new(move |outcome| {
                let Some(d) = me.upgrade() else { return };
                let m = &mut d.core().lock();
                if d.epoch.load(Ordering::Relaxed) == epoch {
                    d.loans.end(&key);
                    done(&d, m, outcome);
                }
            }),
        );
    }

    /// Starts a request's next piece.
    fn run(&self, m: &mut Locked, ticket: u64) {
        let Some(p) = self.requests.ro(m).pending.get(&ticket).cloned() else { return };
        let Some(backend) = self.conf.backend() else { return };
        let (key, done) = ((p.queue, ticket), p.done);
        let left = p.work.len().saturating_sub(done);
        let lent = self.memory(m, &p, left.min(LENT));
        let piece = left.min(CHUNK);
        let request = match p.work {
            Work::Read { offset, .. } | Work::Write { offset, .. } if let Some(ranges) = lent => {
                self.lend(key, p.work.reads(), offset.saturating_add(done), ranges)
            }
            Work::Read { offset, .. } => Request::read(offset.saturating_add(done), piece as usize),
            Work::Write { offset, .. } => {
                let mut data = backend.buffer(piece as usize);
                let skip = (HEADER as u64).saturating_add(done);
                if self.read_from(m, &p.chain.readable, skip, &mut data) < data.len() {
                    // What the guest took away is not written as zeros.
                    return self.finish(m, ticket, &p, Status::Error);
                }
                Request::write(offset.saturating_add(done), data)
            }
            Work::Flush | Work::Id => Request::flush(),
            Work::Discard { offset, len } => Request::discard(offset, len),
            Work::Zeroes { offset, len, unmap } => {
                Request { op: Op::WriteZeroes { len, unmap, fua: false }, offset, data: Data::default() }
            }
        };
        let moved = request.len();
        let whole = p.work.len() <= INSTANT;
        let request = match if whole { backend.do_now(request) } else { Err(request) } {
            Ok(outcome) => {
                self.loans.end(&key);
                return self.ended(m, ticket, moved, outcome);
            }
            Err(request) => request,
        };
        self.submit(key, request, move |d, m, outcome| d.ended(m, ticket, moved, outcome));
    }

    /// A piece of a request has ended.
    fn ended(&self, m: &mut Locked, ticket: u64, moved: u64, outcome: Outcome) {
        // A reset of the queue may have taken the request away meanwhile.
        let Some(p) = self.requests.ro(m).pending.get(&ticket).cloned() else { return };
        if let Err(e) = &outcome.result {
            let action = self.conf.backend().map_or(Action::Report, |b| b.failed(self.core(), p.work.reads(), e));
            match action {
                Action::Stop => _ = self.held.lock().insert(ticket),
                Action::Ignore => self.advance(m, ticket, p, moved),
                Action::Report => self.finish(m, ticket, &p, Status::Error),
            }
            return;
        }
        if p.work.reads() {
            self.write_to(m, &p.chain.writable, p.done, &outcome.data);
        }
        self.advance(m, ticket, p, moved);
    }

    fn advance(&self, m: &mut Locked, ticket: u64, mut p: Pending, moved: u64) {
        p.done = p.done.saturating_add(moved);
        match p.work {
            Work::Read { len, .. } | Work::Write { len, .. } if p.done < len => {
                self.requests.rw(m).pending.insert(ticket, p);
                self.run(m, ticket);
            }
            _ => self.finish(m, ticket, &p, Status::Ok),
        }
    }

    fn finish(&self, m: &mut Locked, ticket: u64, p: &Pending, status: Status) {
        self.requests.rw(m).pending.remove(&ticket);
        self.complete(m, p.queue, &p.chain, status);
    }

    /// Gives a request back to the driver, which hears of it.
    fn complete(&self, m: &mut Locked, queue: usize, chain: &Chain, status: Status) {
        let room = self.end_chain(m, chain, status);
        self.push(m, queue, chain, room);
        self.interrupt(m, queue);
    }

    /// [`VirtioBlk::complete`] of several that ended together: the driver sees all of them at once.
    fn give_back(&self, m: &mut Locked, queue: usize, ended: &[Pending], status: Status) {
        let all: Vec<(&Chain, u32)> = ended.iter().map(|p| (&p.chain, self.end_chain(m, &p.chain, status))).collect();
        if !all.is_empty() {
            self.push_all(m, queue, &all);
            self.interrupt(m, queue);
        }
    }

    /// Writes how a request ended; the bytes of its writable part.
    fn end_chain(&self, m: &mut Locked, chain: &Chain, status: Status) -> u32 {
        let room = total(&chain.writable);
        self.write_to(m, &chain.writable, room.saturating_sub(1), &[status as u8]);
        u32::try_from(room).unwrap_or(u32::MAX)
    }

    /// Makes all requests at work once more.
    fn run_all(&self, m: &mut Locked) {
        let all: Vec<u64> = self.requests.ro(m).pending.keys().copied().collect();
        all.into_iter().for_each(|ticket| self.run(m, ticket));
    }

    fn went_on(&self, m: &mut Locked, state: &VmState) {
        if !state.running {
            return;
        }
        if let Some(b) = self.conf.backend() {
            b.reset_io_status();
        }
        let held = std::mem::take(&mut *self.held.lock());
        held.into_iter().for_each(|ticket| self.run(m, ticket));
    }
}

/// How monitors reach the disk.
struct BlkMedia(Handle<VirtioBlk>);

impl Media for BlkMedia {
    fn resized(&self) {
        self.0.with(|d| d.config_changed(&mut d.core().lock()));
    }
}

impl VirtioImpl for VirtioBlk {
    fn features(&self, offered: u64) -> u64 {
        let Some(backend) = self.conf.backend() else { return offered };
        let mut all = offered | f::SEG_MAX | f::GEOMETRY | f::TOPOLOGY | f::BLK_SIZE;
        if backend.write_cache() || (self.wce_if_config.get() && all & f::CONFIG_WCE != 0) {
            all |= f::FLUSH;
        }
        if backend.is_read_only() {
            all |= f::RO;
        }
        if self.num_queues.get() > 1 {
            all |= f::MQ;
        }
        all
    }

    /// §5.2.4; as long as the features that need it.
    fn config(&self, _m: &Locked) -> Vec<u8> {
        let Some(backend) = self.conf.backend() else { return vec![] };
        let (len, block) = (backend.len(), self.conf.block_size());
        let (cyls, heads, secs) = self.geometry(len);
        let segments = u32::from(if self.seg_max_adjust.get() { self.queue_size.get() } else { 128 }) - 2;
        let aligned = if self.report_discard_granularity.get() { self.conf.discard_granularity() } else { block };
        let mut c = (len / SECTOR).to_le_bytes().to_vec();
        c.extend(0u32.to_le_bytes()); // size_max: no limit
        c.extend(segments.to_le_bytes());
        c.extend((cyls as u16).to_le_bytes());
        c.extend([heads as u8, (u64::from(secs) & !(block / SECTOR - 1)) as u8]);
        c.extend((block as u32).to_le_bytes());
        c.extend([self.conf.physical_exponent(), 0]);
        c.extend(((self.conf.min_io_size() / block) as u16).to_le_bytes());
        c.extend(((self.conf.opt_io_size() / block) as u32).to_le_bytes());
        c.extend([backend.write_cache().into(), 0]);
        c.extend(self.num_queues.get().to_le_bytes());
        let (discard, zeroes) = (self.wants(f::DISCARD), self.wants(f::WRITE_ZEROES));
        let ranges = if discard { [self.max_discard.get(), 1, (aligned / SECTOR) as u32] } else { [0; 3] };
        if discard || zeroes {
            c.extend(ranges.iter().flat_map(|w| w.to_le_bytes()));
        }
        if zeroes {
            c.extend([self.max_zeroes.get(), 1].iter().flat_map(|w| w.to_le_bytes()));
            c.push(1); // may unmap
        }
        c
    }

    fn set_config(&self, m: &mut Locked, at: usize, bytes: &[u8]) {
        if let Some(on) = WCE.checked_sub(at).and_then(|n| bytes.get(n))
            && self.offered() & f::CONFIG_WCE != 0
        {
            self.set_write_cache(m, Some(*on != 0));
        }
    }

    fn handle_queue(&self, m: &mut Locked, n: usize) {
        let batch = RefCell::new(vec![]);
        self.each_chain(m, n, |d: &Self, m, chain| batch.borrow_mut().extend(d.begin(m, n, chain)));
        self.run_batch(m, n, &batch.into_inner());
    }

    fn status_changed(&self, m: &mut Locked, new: u8) {
        // A driver that cannot switch the write cache has one if it can flush it. §5.2.5.1
        if new & status::DRIVER_OK != 0 && !self.has_feature(m, f::CONFIG_WCE) {
            let on = self.has_feature(m, f::FLUSH);
            self.set_write_cache(m, Some(on));
        }
    }

    fn stop(&self, m: &mut Locked, queue: Option<usize>) {
        self.loans.take_back(|(n, _)| queue.is_none_or(|queue| queue == *n));
        match queue {
            None => {
                *self.requests.rw(m) = Requests::default();
                self.epoch.fetch_add(1, Ordering::Relaxed);
                self.held.lock().clear();
                self.set_write_cache(m, None);
            }
            Some(n) => {
                let pending = &mut self.requests.rw(m).pending;
                pending.retain(|_, p| p.queue != n);
                self.held.lock().retain(|ticket| pending.contains_key(ticket));
            }
        }
    }
}

impl DeviceImpl for VirtioBlk {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        if self.conf.backend().is_none() {
            return Err(Error::generic("drive property not set"));
        }
        self.check_properties()?;
        self.threads().assign(0, self.num_queues.get().into())?;
        crate::i386::drives::check_boot_index(self.scope(), self.conf.boot_index())?;
        self.claim()?;
        self.set_queues(m, std::iter::repeat_n(self.queue_size.get(), self.num_queues.get().into()));
        if let Err(e) = self.parent_realize(m) {
            self.conf.drive.release();
            return Err(e);
        }
        if let Some(backend) = self.conf.backend() {
            backend.set_media(Arc::new(BlkMedia(self.this())));
        }
        self.core().events.vm_state.add_for(self, VirtioBlk::went_on);
        Ok(())
    }

    fn unrealize(&self, m: &mut Locked) {
        self.parent_unrealize(m);
        self.threads().release();
        self.conf.drive.release();
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        let queues = usize::from(self.num_queues.get());
        let r = self.requests.ro(m);
        if r.pending.iter().any(|(ticket, p)| *ticket >= r.next || p.queue >= queues) {
            return Err(Error::generic("virtio-blk: impossible state"));
        }
        self.parent_post_load(m)?;
        self.epoch.fetch_add(1, Ordering::Relaxed);
        self.loans.take_all_back();
        let cache = self.requests.ro(m).write_cache;
        self.set_write_cache(m, cache);
        self.held.lock().clear();
        if self.core().requests.state() == RunState::IoError {
            let all: BTreeSet<u64> = self.requests.ro(m).pending.keys().copied().collect();
            *self.held.lock() = all;
        } else {
            self.run_all(m);
        }
        Ok(())
    }
}
