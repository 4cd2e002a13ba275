//! Commands of the NVM command set, and their jobs. Source: NVM Express 1.4 §6.

use super::ctrl::Nvme;
use super::data::segments;
use super::ns::Namespace;
use super::spec::{ALL_NAMESPACES, Command, Completion, Status, nvm};
use crate::virtio::dma::memory_of;
use crate::virtio::ring::{Segment, gather, scatter};
use block::{Action, CHUNK, Data, LENT, Op, Outcome, Request};
use hw_core::Locked;
use qom::{Handle, Level};
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;

/// Bytes of a range of DATASET MANAGEMENT.
const RANGE: usize = 16;

/// Work with a drive. Offsets and lengths in bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Work {
    Read {
        offset: u64,
        len: u64,
    },
    Write {
        offset: u64,
        len: u64,
        fua: bool,
    },
    Compare {
        offset: u64,
        len: u64,
    },
    Zeroes {
        offset: u64,
        len: u64,
        unmap: bool,
        fua: bool,
    },
    /// Reads, for nobody.
    Verify {
        offset: u64,
        len: u64,
    },
    /// Ranges: first byte, bytes.
    Discard {
        ranges: Vec<(u64, u64)>,
    },
    /// Namespaces.
    Flush {
        all: Vec<u32>,
    },
}

impl Work {
    /// Whether a failure is one of reading.
    fn reads(&self) -> bool {
        matches!(self, Work::Read { .. } | Work::Compare { .. } | Work::Verify { .. })
    }
}

/// A command at work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Pending {
    pub sqid: u16,
    pub cid: u16,
    nsid: u32,
    work: Work,
    /// The driver's data.
    data: Vec<Segment>,
    /// Bytes done; of lists, entries.
    done: u64,
}

impl Nvme {
    /// Begins a command of an I/O queue.
    pub(super) fn io(&self, m: &mut Locked, sqid: u16, c: &Command) {
        match self.understand(m, c) {
            Err(status) => self.complete(m, Completion { sqid, cid: c.cid, status, result: 0 }),
            Ok((work, data)) => {
                let r = self.regs.rw(m);
                let ticket = r.next;
                r.next += 1;
                r.pending.insert(ticket, Pending { sqid, cid: c.cid, nsid: c.nsid, work, data, done: 0 });
                self.run(m, ticket);
            }
        }
    }

    /// What a command wants, and where its data is.
    fn understand(&self, m: &mut Locked, c: &Command) -> Result<(Work, Vec<Segment>), Status> {
        if c.opcode == nvm::FLUSH {
            let all = match c.nsid {
                ALL_NAMESPACES => self.namespaces.read().keys().copied().collect(),
                n => vec![self.namespace(n).map(|_| n).ok_or(Status::INVALID_NAMESPACE)?],
            };
            return Ok((Work::Flush { all }, vec![]));
        }
        let ns = self.namespace(c.nsid).ok_or(Status::INVALID_NAMESPACE)?;
        // Fused operations are not there.
        if c.flags & 3 != 0 {
            return Err(Status::INVALID_FIELD);
        }
        let read_only = ns.backend.is_read_only();
        if read_only && matches!(c.opcode, nvm::WRITE | nvm::WRITE_ZEROES | nvm::DATASET_MANAGEMENT) {
            return Err(Status::ACCESS_DENIED);
        }
        let place = || {
            let n = u64::from(c.cdw(12) & 0xffff) + 1;
            ns.place(c.slba(), n).ok_or(Status::LBA_OUT_OF_RANGE)
        };
        let fua = c.cdw(12) & 1 << 30 != 0;
        let work = match c.opcode {
            nvm::READ | nvm::WRITE | nvm::COMPARE => {
                let (offset, len) = place()?;
                self.check_length(len)?;
                match c.opcode {
                    nvm::READ => Work::Read { offset, len },
                    nvm::WRITE => Work::Write { offset, len, fua },
                    _ => Work::Compare { offset, len },
                }
            }
            nvm::WRITE_ZEROES => {
                let (offset, len) = place()?;
                Work::Zeroes { offset, len, unmap: c.cdw(12) & 1 << 25 != 0, fua }
            }
            nvm::VERIFY => {
                let (offset, len) = place()?;
                Work::Verify { offset, len }
            }
            nvm::DATASET_MANAGEMENT => return self.dataset(m, c, &ns),
            _ => return Err(Status::INVALID_OPCODE),
        };
        let len = match work {
            Work::Read { len, .. } | Work::Write { len, .. } | Work::Compare { len, .. } => len,
            _ => 0,
        };
        let page = self.page(m);
        let data = self.with_dma(m, |mem| segments(mem, c, len, page))?;
        Ok((work, data))
    }

    fn check_length(&self, len: u64) -> Result<(), Status> {
        let most = 4096u64.checked_shl(self.mdts.get().into()).unwrap_or(u64::MAX);
        if self.mdts.get() != 0 && len > most { Err(Status::INVALID_FIELD) } else { Ok(()) }
    }

    /// DATASET MANAGEMENT. §6.7
    fn dataset(&self, m: &mut Locked, c: &Command, ns: &Namespace) -> Result<(Work, Vec<Segment>), Status> {
        let n = (c.cdw(10) as usize & 0xff) + 1;
        let mut list = vec![0; n * RANGE];
        let page = self.page(m);
        let from = self.with_dma(m, |mem| segments(mem, c, list.len() as u64, page))?;
        if self.with_dma(m, |mem| gather(mem, &from, 0, &mut list)) < list.len() {
            return Err(Status::DATA_TRANSFER_ERROR);
        }
        let mut ranges = vec![];
        // The other attributes are hints.
        if c.cdw(11) & 4 != 0 {
            for r in list.chunks_exact(RANGE) {
                let word = |at: usize| r.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
                let (n, slba) = (word(4), u64::from(word(12)) << 32 | u64::from(word(8)));
                ranges.push(ns.place(slba, n.into()).ok_or(Status::LBA_OUT_OF_RANGE)?);
            }
            ranges.retain(|r| r.1 > 0);
        }
        Ok((Work::Discard { ranges }, vec![]))
    }

    /// Forgets a job.
    pub(super) fn forget(&self, m: &mut Locked, ticket: u64) {
        self.loans.take_back(|t| *t == ticket);
        self.regs.rw(m).pending.remove(&ticket);
        self.held.lock().remove(&ticket);
    }

    fn finish(&self, m: &mut Locked, ticket: u64, status: Status) {
        let Some(p) = self.regs.rw(m).pending.remove(&ticket) else { return };
        self.complete(m, Completion { sqid: p.sqid, cid: p.cid, status, result: 0 });
    }

    /// Makes the job's next request.
    pub(super) fn run(&self, m: &mut Locked, ticket: u64) {
        let Some(p) = self.regs.ro(m).pending.get(&ticket).cloned() else { return };
        let done = p.done;
        let at = usize::try_from(done).unwrap_or(usize::MAX);
        let nsid = match &p.work {
            Work::Flush { all } => match all.get(at) {
                Some(n) => *n,
                None => return self.finish(m, ticket, Status::SUCCESS),
            },
            _ => p.nsid,
        };
        let Some(ns) = self.namespace(nsid) else { return self.finish(m, ticket, Status::INVALID_NAMESPACE) };
        let piece = |len: u64| len.saturating_sub(done).min(CHUNK) as usize;
        let memory = |len: u64, write: bool| {
            memory_of(&self.dma_space(), &p.data, done, len.saturating_sub(done).min(LENT), write)
        };
        let request = match p.work {
            Work::Read { offset, len } if let Some(ranges) = memory(len, true) => {
                self.loans.read(ticket, offset.saturating_add(done), ranges)
            }
            Work::Write { offset, len, fua } if let Some(ranges) = memory(len, false) => {
                self.loans.write(ticket, offset.saturating_add(done), ranges, fua)
            }
            Work::Read { offset, len } | Work::Compare { offset, len } | Work::Verify { offset, len } => {
                Request::read(offset.saturating_add(done), piece(len))
            }
            Work::Write { offset, len, fua } => {
                let mut data = ns.backend.buffer(piece(len));
                if self.with_dma(m, |mem| gather(mem, &p.data, done, &mut data)) < data.len() {
                    // What the driver took away is not written as zeros.
                    return self.finish(m, ticket, Status::DATA_TRANSFER_ERROR);
                }
                Request { op: Op::Write { fua }, offset: offset.saturating_add(done), data }
            }
            Work::Zeroes { offset, len, unmap, fua } => {
                Request { op: Op::WriteZeroes { len, unmap, fua }, offset, data: Data::default() }
            }
            Work::Discard { ranges } => match ranges.get(at) {
                Some((offset, len)) => Request::discard(*offset, *len),
                None => return self.finish(m, ticket, Status::SUCCESS),
            },
            Work::Flush { .. } => Request::flush(),
        };
        let moved = request.len();
        let epoch = self.epoch.load(Ordering::Relaxed);
        let me: Handle<Nvme> = self.this();
        let backend = ns.backend.clone();
        backend.submit(
            request,
            Box::new(move |outcome| {
                let Some(d) = me.upgrade() else { return };
                let m = &mut d.core().lock();
                if d.epoch.load(Ordering::Relaxed) != epoch {
                    return;
                }
                d.loans.end(&ticket);
                let sqid = d.regs.ro(m).pending.get(&ticket).map(|p| p.sqid);
                d.ended(m, ticket, &ns, moved, outcome);
                // There is room for another one.
                if let Some(sqid) = sqid {
                    d.fetch(m, sqid);
                }
            }),
        );
    }

    /// A request of a job has ended.
    fn ended(&self, m: &mut Locked, ticket: u64, ns: &Namespace, moved: u64, outcome: Outcome) {
        let Some(p) = self.regs.ro(m).pending.get(&ticket).cloned() else { return };
        if let Err(e) = &outcome.result {
            let reads = p.work.reads();
            match self.action(ns, reads, e) {
                Action::Stop => _ = self.held.lock().insert(ticket),
                Action::Ignore => self.advance(m, ticket, p, moved),
                Action::Report => {
                    let status = if reads { Status::UNRECOVERED_READ } else { Status::WRITE_FAULT };
                    self.finish(m, ticket, status);
                }
            }
            return;
        }
        match p.work {
            Work::Read { .. } => _ = self.with_dma(m, |mem| scatter(mem, &p.data, p.done, &outcome.data)),
            Work::Compare { .. } => {
                let mut theirs = vec![0; outcome.data.len()];
                let n = self.with_dma(m, |mem| gather(mem, &p.data, p.done, &mut theirs));
                if n < theirs.len() || theirs != *outcome.data {
                    return self.finish(m, ticket, Status::COMPARE_FAILURE);
                }
            }
            _ => {}
        }
        self.advance(m, ticket, p, moved);
    }

    fn advance(&self, m: &mut Locked, ticket: u64, mut p: Pending, moved: u64) {
        let all = match &p.work {
            Work::Read { len, .. }
            | Work::Write { len, .. }
            | Work::Compare { len, .. }
            | Work::Verify { len, .. }
            | Work::Zeroes { len, .. } => {
                p.done = p.done.saturating_add(moved);
                *len
            }
            Work::Discard { ranges } => {
                p.done += 1;
                ranges.len() as u64
            }
            Work::Flush { all } => {
                p.done += 1;
                all.len() as u64
            }
        };
        if p.done < all {
            self.regs.rw(m).pending.insert(ticket, p);
            self.run(m, ticket);
        } else {
            self.finish(m, ticket, Status::SUCCESS);
        }
    }
}
