//! What goes on between a drive, its image and guest memory: jobs. How memory is reached and who hears of what a drive does is the
//! matter of the channel or port it is on.
//!
//! A job is a value that is part of the drive's state until it has ended. So one that failed under `werror=stop` is made again when the
//! machine goes on, and one that was in flight when state was saved is made again where it is loaded.

use super::bus::{IDE_UNITS, IdeDevice};
use super::drive::{Job, SECTOR};
use block::{Action, Backend, CHUNK, LENT, Outcome, Request};
use hw_core::memory::RamRanges;
use hw_core::{AddressSpace, Core, Locked, events::VmState};
use qom::{Handle, Level, Ref};
use std::collections::VecDeque;
use std::sync::Arc;

/// Command: SET FEATURES, DEVICE RESET.
const SET_FEATURES: u8 = 0xef;
const DEVICE_RESET: u8 = 0x08;

/// Bytes of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// First byte.
    pub addr: u64,
    /// Bytes.
    pub len: u64,
    /// Whoever made the table wants to hear when this was moved.
    pub tell: bool,
}

/// A channel or port, as the drives on it see it.
pub trait IdeChannel: Send + Sync {
    /// The guest memory of bytes `skip` to `skip + want` of the transfer at work; fewer if its table ends before.
    fn pieces(&self, m: &mut Locked, skip: u64, want: u64) -> Vec<Piece>;

    /// What the addresses of pieces mean; `None`: nothing.
    fn dma_space(&self) -> Option<AddressSpace>;

    /// Copies from guest memory. False: the transfer cannot go on.
    fn dma_read(&self, m: &mut Locked, addr: u64, buf: &mut [u8]) -> bool;

    /// Copies into guest memory; bytes for nobody are lost.
    fn dma_write(&self, m: &mut Locked, addr: u64, data: &[u8]);

    /// A piece that wants that was moved.
    fn piece_done(&self, _m: &mut Locked) {}

    /// Whether a transfer may go on.
    fn is_active(&self, m: &Locked) -> bool;

    /// A transfer of `moved` bytes has ended, well or not; `longer`: its table has not. [`IdeChannel::changed`] follows unless the table was
    /// too short.
    fn transfer_ended(&self, m: &mut Locked, moved: u64, longer: bool);

    /// The table was too short for the transfer, which has ended after `moved` bytes.
    fn too_short(&self, m: &mut Locked, drive: &IdeDevice, moved: u64);

    /// The drive's registers have changed; `irq`: it interrupts.
    fn changed(&self, m: &mut Locked, drive: &IdeDevice, irq: bool);

    /// A drive has come.
    fn attached(&self, _m: &mut Locked) {}

    /// A drive goes.
    fn detached(&self, _m: &mut Locked) {}

    /// Most drives.
    fn units(&self) -> u32 {
        IDE_UNITS
    }

    /// Commands that a drive can queue; 0: the channel knows no queued commands.
    fn queue_depth(&self) -> u8 {
        0
    }
}

/// Tells of pieces that were moved, if whoever made the table wants to hear of one.
fn tell(c: &dyn IdeChannel, m: &mut Locked, pieces: &[Piece]) {
    if pieces.iter().any(|p| p.tell) {
        c.piece_done(m);
    }
}

/// Copies `data` to `pieces` of guest memory; how many bytes had a place.
pub(super) fn scatter(c: &dyn IdeChannel, m: &mut Locked, pieces: &[Piece], data: &[u8]) -> u64 {
    let mut rest = data;
    for p in pieces {
        let (now, later) = rest.split_at(rest.len().min(p.len as usize));
        c.dma_write(m, p.addr, now);
        rest = later;
    }
    tell(c, m, pieces);
    (data.len() - rest.len()) as u64
}

/// The bytes of `pieces` of guest memory; `None`: the transfer cannot go on.
pub(super) fn gather(c: &dyn IdeChannel, m: &mut Locked, pieces: &[Piece]) -> Option<Vec<u8>> {
    let mut data = vec![];
    for p in pieces {
        let at = data.len();
        data.resize(at + p.len as usize, 0);
        if !c.dma_read(m, p.addr, data.get_mut(at..).unwrap_or_default()) {
            return None;
        }
    }
    tell(c, m, pieces);
    Some(data)
}

/// The first `len` bytes of `pieces`, which a request reads or writes (`write`) by itself: if all of them are memory that lies on the host.
pub(super) fn memory_of(c: &dyn IdeChannel, pieces: &[Piece], len: u64, write: bool) -> Option<RamRanges> {
    let space = c.dma_space()?;
    let (mut all, mut left) = (RamRanges::default(), len);
    let there = pieces.iter().all(|p| {
        let n = p.len.min(left);
        left -= n;
        space.ranges(p.addr, n, write, &mut all)
    });
    (there && left == 0).then_some(all)
}

/// Bytes of whole sectors that pieces have.
fn whole(pieces: &[Piece]) -> u64 {
    let have: u64 = pieces.iter().map(|p| p.len).sum();
    have - have % SECTOR
}

impl IdeDevice {
    /// The command register is written.
    pub(super) fn execute(&self, m: &mut Locked, code: u8) {
        let info = self.info();
        let feature = self.regs().ro(m).read_feature();
        let idle = self.regs().ro(m).is_idle();
        let irq = self.regs().rw(m).command(&info, code);
        if code == SET_FEATURES && idle {
            self.set_write_cache(m, feature);
        }
        if code == DEVICE_RESET && self.regs().ro(m).job.is_none() {
            self.forget();
        }
        self.settle(m, irq);
    }

    /// SET FEATURES 02H and 82H were accepted: the write cache is on or off.
    fn set_write_cache(&self, m: &mut Locked, feature: u8) {
        let Some(backend) = self.backend().filter(|_| self.regs().ro(m).has_no_error()) else { return };
        if let 0x02 | 0x82 = feature {
            backend.set_write_cache(feature == 0x02);
            self.regs().rw(m).write_cache = feature == 0x02;
        }
    }

    /// A block of the data register is over.
    pub(super) fn block_over(&self, m: &mut Locked) -> bool {
        let info = self.info();
        self.regs().rw(m).block_over(&info)
    }

    /// SRST: what the drive does is forgotten.
    pub(super) fn soft_reset(&self, m: &mut Locked) {
        self.forget();
        let info = self.info();
        self.regs().rw(m).soft_reset(&info);
        self.tell_tray(m);
    }

    /// After anything that may have changed the drive: interrupts, and starts the job there may be.
    pub(super) fn settle(&self, m: &mut Locked, irq: bool) {
        if let Some(c) = self.channel() {
            c.changed(m, self, irq);
        }
        self.tell_tray(m);
        self.start_job(m);
    }

    /// Starts the drive's job if it has one that can start.
    pub(super) fn start_job(&self, m: &mut Locked) {
        let Some(job) = self.regs().ro(m).job.clone() else { return };
        let Some(channel) = self.channel() else { return };
        let c = &*channel;
        if self.is_running() || job.is_dma() && !c.is_active(m) {
            return;
        }
        let Some(backend) = self.backend() else { return };
        match job {
            Job::Read { at, len } => self.submit(&backend, vec![Request::read(at, len as usize)], false),
            Job::Write { at, len } => {
                let data: Vec<u8> = self.regs().ro(m).buffer.iter().take(len as usize).copied().collect();
                self.submit(&backend, vec![Request::write(at, data)], false);
            }
            Job::Flush => self.submit(&backend, vec![Request::flush()], false),
            Job::DmaRead { at, len, done } | Job::DmaWrite { at, len, done } => {
                let reads = job.reads();
                let pieces = c.pieces(m, done, (len - done).min(LENT));
                let have = whole(&pieces);
                if have == 0 {
                    return self.table_ends(m, c, done);
                }
                if let Some(ranges) = memory_of(c, &pieces, have, reads) {
                    let request = match reads {
                        true => self.loans.read((), at + done, ranges),
                        false => self.loans.write((), at + done, ranges, false),
                    };
                    return self.submit(&backend, vec![request], pieces.iter().any(|p| p.tell));
                }
                let pieces = c.pieces(m, done, (len - done).min(CHUNK));
                let have = whole(&pieces);
                if reads {
                    return self.submit(&backend, vec![Request::read(at + done, have as usize)], false);
                }
                let Some(mut data) = gather(c, m, &pieces) else { return self.give_up(m, &job) };
                data.truncate(have as usize);
                self.submit(&backend, vec![Request::write(at + done, data)], false);
            }
            Job::DmaReply => {
                let data = self.regs().ro(m).buffer.clone();
                let pieces = c.pieces(m, 0, data.len() as u64);
                scatter(c, m, &pieces, &data);
                self.complete(m, &Job::DmaReply, vec![]);
            }
            Job::Trim { len } => {
                let pieces = c.pieces(m, 0, len);
                let Some(list) = gather(c, m, &pieces) else { return self.give_up(m, &job) };
                let size = backend.len();
                // (The guest's mistake is not the host's: no policy for errors applies.)
                if trim_ranges(&list).any(|(at, len)| at + len > size) {
                    return self.give_up(m, &job);
                }
                let requests = trim_ranges(&list).map(|(at, len)| Request::discard(at, len)).collect();
                self.submit(&backend, requests, false);
            }
        }
    }

    /// Submits requests; the job goes on when all have ended, with the first error there is. `tell`: they move pieces of memory themselves, of
    /// one of which whoever made the table wants to hear.
    fn submit(&self, backend: &Arc<Backend>, requests: Vec<Request>, tell: bool) {
        let asked = requests.iter().map(Request::len).fold(0, u64::saturating_add);
        let step = Step { drive: self.this(), ticket: self.begin(), asked, tell };
        step.run(backend.clone(), requests.into());
    }

    /// All requests of the job at work have ended, or one has failed.
    fn ended(&self, m: &mut Locked, step: &Step, outcome: Outcome) {
        let moved = step.asked;
        let Some(job) = self.regs().ro(m).job.clone() else { return };
        if let Err(e) = &outcome.result {
            let action = self.backend().map_or(Action::Report, |b| b.failed(self.core(), job.reads(), e));
            match action {
                Action::Stop => return self.hold(true),
                Action::Ignore => {}
                Action::Report => return self.give_up(m, &job),
            }
        }
        if let Some(c) = self.channel().filter(|_| step.tell) {
            c.piece_done(m);
        }
        match job {
            Job::DmaRead { at, len, done } => {
                if let Some(channel) = self.channel().filter(|_| !outcome.data.is_empty()) {
                    let pieces = channel.pieces(m, done, outcome.data.len() as u64);
                    scatter(&*channel, m, &pieces, &outcome.data);
                }
                self.advance(m, Job::DmaRead { at, len, done: done + moved }, done + moved < len);
            }
            Job::DmaWrite { at, len, done } => {
                self.advance(m, Job::DmaWrite { at, len, done: done + moved }, done + moved < len);
            }
            job => self.complete(m, &job, outcome.data.into_vec()),
        }
    }

    /// A job fails for the guest.
    fn give_up(&self, m: &mut Locked, job: &Job) {
        let info = self.info();
        let regs = self.regs().rw(m);
        regs.job = None;
        let irq = regs.job_failed(&info, job);
        if let Some(c) = self.channel().filter(|_| job.is_dma()) {
            c.transfer_ended(m, job.done(), false);
        }
        self.settle(m, irq);
    }

    /// A part of a transfer is done.
    fn advance(&self, m: &mut Locked, job: Job, more: bool) {
        if more {
            self.regs().rw(m).job = Some(job);
            self.start_job(m);
        } else {
            self.complete(m, &job, vec![]);
        }
    }

    /// All of a job is done.
    fn complete(&self, m: &mut Locked, job: &Job, data: Vec<u8>) {
        if let Some(c) = self.channel().filter(|_| job.is_dma()) {
            let len = match job {
                Job::DmaRead { len, .. } | Job::DmaWrite { len, .. } | Job::Trim { len } => *len,
                _ => self.regs().ro(m).buffer.len() as u64,
            };
            let longer = !c.pieces(m, len, 1).is_empty();
            c.transfer_ended(m, len, longer);
        }
        let info = self.info();
        let regs = self.regs().rw(m);
        regs.job = None;
        let irq = regs.job_done(&info, job, data);
        self.settle(m, irq);
    }

    /// The table is shorter than the transfer.
    fn table_ends(&self, m: &mut Locked, c: &dyn IdeChannel, moved: u64) {
        let regs = self.regs().rw(m);
        regs.job = None;
        regs.table_too_short();
        c.transfer_ended(m, moved, false);
        c.too_short(m, self, moved);
    }

    /// The guest gives up what the drive is at; `dma`: only a transfer.
    pub(super) fn cancel(&self, m: &mut Locked, dma: bool) {
        let regs = self.regs().rw(m);
        if regs.job.as_ref().is_some_and(|j| !dma || j.is_dma()) {
            regs.job = None;
            regs.abort();
            self.forget();
        }
    }

    /// The machine goes on: a job that failed is tried again.
    pub(super) fn went_on(&self, m: &mut Locked, state: &VmState) {
        if !state.running {
            return;
        }
        if let Some(b) = self.backend() {
            b.reset_io_status();
        }
        self.hold(false);
        self.start_job(m);
    }
}

/// Requests of a job, one after the other, up to the first that fails.
struct Step {
    drive: Handle<IdeDevice>,
    ticket: u64,
    /// Bytes asked for.
    asked: u64,
    /// The channel is told when they were moved.
    tell: bool,
}
impl Step {
    /// With the machine locked.
    fn run(self, backend: Arc<Backend>, mut requests: VecDeque<Request>) {
        // Nothing to do ends as everything else does: later.
        let first = requests.pop_front().unwrap_or_else(Request::flush);
        let next = backend.clone();
        backend.submit(
            first,
            Box::new(move |outcome| {
                let Some(d) = self.drive.upgrade() else { return };
                let core = Core::of(&**Ref::object(&d));
                let m = &mut core.lock();
                if !d.is_at(self.ticket) {
                    return; // the guest has reset the drive meanwhile: what is left of the job must not be done any more
                }
                if requests.is_empty() || outcome.result.is_err() {
                    d.end();
                    d.ended(m, &self, outcome);
                } else {
                    self.run(next, requests);
                }
            }),
        );
    }
}

/// Ranges of a TRIM list in bytes (ATA8-ACS §7.10.3): 48 bits of sector, 16 bits of count, eight bytes each.
fn trim_ranges(list: &[u8]) -> impl Iterator<Item = (u64, u64)> {
    list.chunks_exact(8).filter_map(|c| {
        let word = u64::from_le_bytes(c.try_into().ok()?);
        let (sector, count) = (word & ((1 << 48) - 1), word >> 48);
        (count > 0).then_some((sector * SECTOR, count * SECTOR))
    })
}
