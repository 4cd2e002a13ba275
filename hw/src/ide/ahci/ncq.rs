//! Queued commands: READ FPDMA QUEUED and WRITE FPDMA QUEUED. Source: Serial ATA 3.0 §13.6 (native command queuing), AHCI 1.3.1 §5.6.4
//! and §6.2.2.2 (errors). The other queued commands (non-data, send, receive) are no commands of the drive: aborted, as on QEMU.
//!
//! A command is a value that is part of the port's state until it has ended. So one that failed under `werror=stop` is made again when
//! the machine goes on, and one that was in flight when state was saved is made again where it is loaded.

use super::Ich9Ahci;
use super::fis::{Command, area, set_device_bits};
use super::port::{Cable, Port};
use super::regs::{TFD_BSY, TFD_DRQ, Table, pxis};
use crate::ide::bus::IdeDevice;
use crate::ide::drive::{QueuedError, SECTOR, error, status};
use crate::ide::transfer::{IdeChannel, gather, memory_of, scatter};
use block::{Action, CHUNK, LENT, Op, Outcome, Request};
use hw_core::Locked;
use qom::{Handle, Level};
use serde::{Deserialize, Serialize};

/// READ FPDMA QUEUED.
pub(super) const READ: u8 = 0x60;
/// WRITE FPDMA QUEUED.
pub(super) const WRITE: u8 = 0x61;
/// Device register: a write is stable before it ends.
const FUA: u8 = 0x80;
/// Status of a drive that has taken or ended a command well, or not.
const GOOD: u8 = status::DRDY | status::DSC;
const BAD: u8 = status::DRDY | status::ERR;

/// A queued command at work. Addresses are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    /// Its descriptors.
    pub table: Table,
    /// To the image.
    pub write: bool,
    /// Stable before it ends.
    pub fua: bool,
    /// Where.
    pub at: u64,
    /// Bytes in all.
    pub len: u64,
    /// Bytes done.
    pub done: u64,
}

impl Port<'_> {
    fn queued(&self, m: &Locked, tag: u8) -> Option<Queued> {
        self.regs(m, |r| r.queued.get(&tag).copied())
    }

    fn cable(&self) -> Cable {
        Cable { ahci: self.ahci.this(), n: self.n }
    }

    /// A queued command was fetched: the drive takes it, or says why not.
    pub(super) fn queue(&self, m: &mut Locked, slot: u8, c: &Command, table: Table, drive: &IdeDevice) {
        let tag = (c.count >> 3) as u8 & 0x1f;
        let sectors = if c.features == 0 { 0x1_0000 } else { u64::from(c.features) };
        let (at, len) = (c.lba.wrapping_mul(SECTOR), sectors * SECTOR);
        let size = drive.backend().map_or(0, |b| b.len());
        let fits = c.lba.checked_add(sectors).is_some_and(|end| end <= size / SECTOR);
        let waits = self.regs(m, |r| r.sact >> tag & 1 != 0 && !r.queued.contains_key(&tag));
        if tag != slot || !waits {
            drive.regs().rw(m).queued_error = Some(queued_error(tag, c.lba, sectors, error::ABRT));
            self.forget(m);
            return self.refuse(m, drive);
        }
        let q = Queued { table, write: c.command == WRITE, fua: c.device & FUA != 0, at, len, done: 0 };
        let taken = {
            let regs = drive.regs().rw(m);
            (regs.status, regs.error) = (GOOD, 0);
            regs.task_file()
        };
        self.receive(m, area::RFIS, &taken.d2h(false));
        self.edit(m, |r| {
            r.tfd = taken.tfd();
            r.clear_issued(slot);
            _ = r.queued.insert(tag, q);
        });
        if fits { self.run(m, tag) } else { self.fail(m, tag, q, error::ABRT) }
    }

    /// Starts a command's next piece.
    pub(super) fn run(&self, m: &mut Locked, tag: u8) {
        let Some(mut q) = self.queued(m, tag) else { return };
        let Some(backend) = self.drive().and_then(|d| d.backend()) else { return };
        let want = (q.len - q.done.min(q.len)).min(LENT);
        let pieces = self.pieces(m, &mut q.table, q.done, want);
        self.edit(m, |r| _ = r.queued.insert(tag, q));
        if pieces.iter().map(|p| p.len).sum::<u64>() < want {
            self.edit(m, |r| r.is |= pxis::OFS);
            return self.fail(m, tag, q, error::ABRT);
        }
        let (offset, key) = (q.at.saturating_add(q.done), (self.n, tag));
        let lent = memory_of(&self.cable(), &pieces, want, !q.write);
        // (What is copied tells of its pieces where that is done.)
        let tell = lent.is_some() && pieces.iter().any(|p| p.tell);
        let request = match (q.write, lent) {
            (true, Some(ranges)) => self.ahci.loans.write(key, offset, ranges, q.fua),
            (false, Some(ranges)) => self.ahci.loans.read(key, offset, ranges),
            (true, None) => {
                let pieces = self.pieces(m, &mut q.table, q.done, want.min(CHUNK));
                let Some(data) = gather(&self.cable(), m, &pieces) else { return self.fail(m, tag, q, error::ABRT) };
                Request { op: Op::Write { fua: q.fua }, offset, data: data.into() }
            }
            (false, None) => Request::read(offset, want.min(CHUNK) as usize),
        };
        let want = request.len();
        let (me, n, epoch): (Handle<Ich9Ahci>, _, _) = (self.ahci.this(), self.n, self.ahci.epoch(self.n));
        backend.submit(
            request,
            Box::new(move |outcome| {
                let Some(ahci) = me.upgrade() else { return };
                let m = &mut ahci.core().lock();
                if ahci.epoch(n) == epoch {
                    ahci.loans.end(&key);
                    let port = Port { ahci: &ahci, n };
                    port.piece_ended(m, tag, want, tell, outcome);
                    port.issue(m);
                }
            }),
        );
    }

    /// A piece of a command has ended; `tell`: the guest wants to hear of what it moved by itself.
    fn piece_ended(&self, m: &mut Locked, tag: u8, moved: u64, tell: bool, outcome: Outcome) {
        let Some(mut q) = self.queued(m, tag) else { return };
        if let Err(e) = &outcome.result {
            let backend = self.drive().and_then(|d| d.backend());
            let action = backend.map_or(Action::Report, |b| b.failed(self.ahci.core(), !q.write, e));
            match action {
                Action::Stop => return self.ahci.hold(self.n, tag),
                Action::Ignore => {}
                Action::Report => return self.fail(m, tag, q, if q.write { error::ABRT } else { error::UNC }),
            }
        }
        if tell {
            self.cable().piece_done(m);
        }
        if !q.write && !outcome.data.is_empty() {
            let pieces = self.pieces(m, &mut q.table, q.done, outcome.data.len() as u64);
            scatter(&self.cable(), m, &pieces, &outcome.data);
        }
        q.done = q.done.saturating_add(moved);
        if q.done < q.len {
            self.edit(m, |r| _ = r.queued.insert(tag, q));
            return self.run(m, tag);
        }
        self.edit(m, |r| _ = r.queued.remove(&tag));
        if !self.regs(m, |r| r.halted) {
            self.tell(m, 1 << tag, GOOD, 0);
        }
    }

    /// A command fails for the guest, and with it all that are queued. SATA §13.6
    fn fail(&self, m: &mut Locked, tag: u8, q: Queued, error: u8) {
        self.forget(m);
        if let Some(drive) = self.drive() {
            let regs = drive.regs().rw(m);
            regs.queued_error = Some(queued_error(tag, q.at / SECTOR, q.len / SECTOR, error));
            (regs.status, regs.error) = (BAD, error);
        }
        self.tell(m, 0, BAD, error);
    }

    /// Tells the guest which commands have ended.
    fn tell(&self, m: &mut Locked, done: u32, state: u8, error: u8) {
        self.receive(m, area::SDBFIS, &set_device_bits(state, error, done));
        self.edit(m, |r| {
            r.sact &= !done;
            r.tfd = r.tfd & (TFD_BSY | TFD_DRQ) | u32::from(error) << 8 | u32::from(state);
            if state & status::ERR != 0 { r.halt(pxis::TFES) } else { r.is |= pxis::SDBS }
        });
    }

    /// Makes the queued commands once more that are at work.
    pub(super) fn run_all(&self, m: &mut Locked) {
        let tags: Vec<u8> = self.regs(m, |r| r.queued.keys().copied().collect());
        tags.into_iter().for_each(|tag| self.run(m, tag));
        self.ahci.update_irq(m);
    }
}

fn queued_error(tag: u8, sector: u64, sectors: u64, error: u8) -> QueuedError {
    QueuedError { tag, status: BAD, error, sector, count: sectors as u16 }
}
