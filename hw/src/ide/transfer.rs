//! What goes on between a channel's drives, their images and guest memory: jobs, the bus master's tables, interrupts.
//! Source: SFF-8038i §1.2 (physical region descriptors) and §3 (status bits at the end of a transfer).

use super::bus::IdeDevice;
use super::drive::{CHUNK, Job, SECTOR};
use super::piix::PciIde;
use block::{Action, Backend, Outcome, Request};
use hw_core::{Core, Locked};
use qom::{Handle, Level, Ref};
use std::collections::VecDeque;
use std::sync::Arc;

/// Most descriptors of a table: it does not cross 64 KiB.
const MAX_PRDS: u32 = 8192;
/// Device control register: no interrupts.
const NIEN: u8 = 0x02;

/// Bytes of guest memory: address and length.
type Piece = (u64, u64);

impl PciIde {
    /// The descriptors of bytes `skip` to `skip + want` of a channel's table; fewer if it ends before.
    fn pieces(&self, m: &mut Locked, channel: usize, skip: u64, want: u64) -> Vec<Piece> {
        let mut at = u64::from(self.bmdma(channel).ro(m).table());
        let (mut seen, mut got, mut out) = (0u64, 0u64, vec![]);
        for _ in 0..MAX_PRDS {
            let mut prd = [0; 8];
            if got >= want || self.dma_read(m, at, &mut prd).is_err() {
                break;
            }
            let [a0, a1, a2, a3, c0, c1, _, flags] = prd;
            let addr = u64::from(u32::from_le_bytes([a0, a1, a2, a3]) & !1);
            let len = match u64::from(u16::from_le_bytes([c0, c1]) & !1) {
                0 => 0x1_0000,
                n => n,
            };
            let from = skip.saturating_sub(seen).min(len);
            let n = (len - from).min(want - got);
            if n > 0 {
                out.push((addr + from, n));
                got += n;
            }
            seen += len;
            at += 8;
            if flags & 0x80 != 0 {
                break;
            }
        }
        out
    }

    /// Copies `data` to guest memory from byte `skip` of the table on; what has no place is dropped.
    fn scatter(&self, m: &mut Locked, channel: usize, skip: u64, data: &[u8]) {
        let mut rest = data;
        for (addr, len) in self.pieces(m, channel, skip, data.len() as u64) {
            let (now, later) = rest.split_at(rest.len().min(len as usize));
            // Nobody answers there: the bytes are lost, as on a bus without that memory.
            _ = self.dma_write(m, addr, now);
            rest = later;
        }
    }

    /// Copies `want` bytes from guest memory, fewer if the table ends before.
    fn gather(&self, m: &mut Locked, channel: usize, skip: u64, want: u64) -> Vec<u8> {
        let mut data = vec![];
        for (addr, len) in self.pieces(m, channel, skip, want) {
            let mut part = vec![0; len as usize];
            _ = self.dma_read(m, addr, &mut part);
            data.append(&mut part);
        }
        data
    }

    /// Interrupts, unless the guest does not want that.
    pub(super) fn raise(&self, m: &mut Locked, channel: usize) {
        let Some(c) = self.channels().rw(m).get_mut(channel) else { return };
        if c.control & NIEN != 0 {
            return;
        }
        c.irq = true;
        self.bmdma(channel).rw(m).interrupt();
        self.drive_irq(m, channel);
    }

    /// After anything that may have changed a drive: interrupts, and starts the job there may be.
    pub(super) fn settle(&self, m: &mut Locked, channel: usize, drive: &IdeDevice, irq: bool) {
        if irq {
            self.raise(m, channel);
        }
        drive.tell_tray(m);
        self.start_job(m, channel, drive);
    }

    /// Starts the drive's job if it has one that can start.
    pub(super) fn start_job(&self, m: &mut Locked, channel: usize, drive: &IdeDevice) {
        let Some(job) = drive.regs().ro(m).job.clone() else { return };
        if drive.is_running() || job.is_dma() && !self.bmdma(channel).ro(m).is_active() {
            return;
        }
        let Some(backend) = drive.backend() else { return };
        match job {
            Job::Read { at, len } => self.submit(channel, drive, &backend, vec![Request::read(at, len as usize)]),
            Job::Write { at, len } => {
                let data = drive.regs().ro(m).buffer.iter().take(len as usize).copied().collect();
                self.submit(channel, drive, &backend, vec![Request::write(at, data)]);
            }
            Job::Flush => self.submit(channel, drive, &backend, vec![Request::flush()]),
            Job::DmaRead { at, len, done } => {
                let want = (len - done).min(CHUNK);
                let have: u64 = self.pieces(m, channel, done, want).iter().map(|p| p.1).sum();
                match have - have % SECTOR {
                    0 => self.table_ends(m, channel, drive),
                    n => self.submit(channel, drive, &backend, vec![Request::read(at + done, n as usize)]),
                }
            }
            Job::DmaWrite { at, len, done } => {
                let mut data = self.gather(m, channel, done, (len - done).min(CHUNK));
                data.truncate(data.len() - data.len() % SECTOR as usize);
                if data.is_empty() {
                    self.table_ends(m, channel, drive);
                } else {
                    self.submit(channel, drive, &backend, vec![Request::write(at + done, data)]);
                }
            }
            Job::DmaReply => {
                let data = drive.regs().ro(m).buffer.clone();
                self.scatter(m, channel, 0, &data);
                self.complete(m, channel, drive, &Job::DmaReply, vec![]);
            }
            Job::Trim { len } => {
                let (list, size) = (self.gather(m, channel, 0, len), backend.len());
                // (The guest's mistake is not the host's: no policy for errors applies.)
                if trim_ranges(&list).any(|(at, len)| at + len > size) {
                    return self.give_up(m, channel, drive, &Job::Trim { len });
                }
                let requests = trim_ranges(&list).map(|(at, len)| Request::discard(at, len)).collect();
                self.submit(channel, drive, &backend, requests);
            }
        }
    }

    /// Submits requests; the job goes on when all have ended, with the first error there is.
    fn submit(&self, channel: usize, drive: &IdeDevice, backend: &Arc<Backend>, requests: Vec<Request>) {
        let asked = requests.iter().map(Request::len).fold(0, u64::saturating_add);
        let step = Step { controller: self.this(), drive: drive.this(), channel, ticket: drive.begin(), asked };
        step.run(backend.clone(), requests.into());
    }

    /// All requests of the job at work have ended, or one has failed; `moved` bytes were asked for.
    fn ended(&self, m: &mut Locked, channel: usize, drive: &IdeDevice, moved: u64, outcome: Outcome) {
        let Some(job) = drive.regs().ro(m).job.clone() else { return };
        if let Err(e) = &outcome.result {
            let action = drive.backend().map_or(Action::Report, |b| b.failed(self.core(), job.reads(), e));
            match action {
                Action::Stop => return drive.hold(true),
                Action::Ignore => {}
                Action::Report => return self.give_up(m, channel, drive, &job),
            }
        }
        match job {
            Job::DmaRead { at, len, done } => {
                self.scatter(m, channel, done, &outcome.data);
                self.advance(m, channel, drive, Job::DmaRead { at, len, done: done + moved }, done + moved < len);
            }
            Job::DmaWrite { at, len, done } => {
                self.advance(m, channel, drive, Job::DmaWrite { at, len, done: done + moved }, done + moved < len);
            }
            job => self.complete(m, channel, drive, &job, outcome.data),
        }
    }

    /// A job fails for the guest.
    fn give_up(&self, m: &mut Locked, channel: usize, drive: &IdeDevice, job: &Job) {
        let info = drive.info();
        let regs = drive.regs().rw(m);
        regs.job = None;
        let irq = regs.job_failed(&info, job);
        if job.is_dma() {
            self.bmdma(channel).rw(m).end(false);
        }
        self.settle(m, channel, drive, irq);
    }

    /// A part of a transfer is done.
    fn advance(&self, m: &mut Locked, channel: usize, drive: &IdeDevice, job: Job, more: bool) {
        if more {
            drive.regs().rw(m).job = Some(job);
            self.start_job(m, channel, drive);
        } else {
            self.complete(m, channel, drive, &job, vec![]);
        }
    }

    /// All of a job is done.
    fn complete(&self, m: &mut Locked, channel: usize, drive: &IdeDevice, job: &Job, data: Vec<u8>) {
        if job.is_dma() {
            let len = match job {
                Job::DmaRead { len, .. } | Job::DmaWrite { len, .. } | Job::Trim { len } => *len,
                _ => drive.regs().ro(m).buffer.len() as u64,
            };
            // A table that is longer than the transfer leaves the bus master active.
            let longer = !self.pieces(m, channel, len, 1).is_empty();
            self.bmdma(channel).rw(m).end(longer);
        }
        let info = drive.info();
        let regs = drive.regs().rw(m);
        regs.job = None;
        let irq = regs.job_done(&info, job, data);
        self.settle(m, channel, drive, irq);
    }

    /// The table is shorter than the transfer: the bus master stops, and nobody interrupts.
    fn table_ends(&self, m: &mut Locked, channel: usize, drive: &IdeDevice) {
        let regs = drive.regs().rw(m);
        regs.job = None;
        regs.table_too_short();
        self.bmdma(channel).rw(m).end(false);
    }

    /// The guest stops the bus master: a transfer at work is given up.
    pub(super) fn cancel_dma(&self, m: &mut Locked, channel: usize) {
        for drive in self.drives(channel).into_iter().flatten() {
            let regs = drive.regs().rw(m);
            if regs.job.as_ref().is_some_and(Job::is_dma) {
                regs.job = None;
                regs.abort();
                drive.forget();
            }
        }
    }

    /// The machine goes on: jobs that failed are tried again.
    pub(super) fn resume_jobs(&self, m: &mut Locked) {
        for channel in 0..2 {
            for drive in self.drives(channel).into_iter().flatten() {
                if let Some(b) = drive.backend() {
                    b.reset_io_status();
                }
                drive.hold(false);
                self.start_job(m, channel, &drive);
            }
        }
    }
}

/// Requests of a job, one after the other, up to the first that fails.
struct Step {
    controller: Handle<PciIde>,
    drive: Handle<IdeDevice>,
    channel: usize,
    ticket: u64,
    asked: u64,
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
                let (Some(c), Some(d)) = (self.controller.upgrade(), self.drive.upgrade()) else { return };
                let core = Core::of(&**Ref::object(&c));
                let m = &mut core.lock();
                if !d.is_at(self.ticket) {
                    return; // the guest has reset the drive meanwhile: what is left of the job must not be done any more
                }
                if requests.is_empty() || outcome.result.is_err() {
                    d.end();
                    c.ended(m, self.channel, &d, self.asked, outcome);
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
