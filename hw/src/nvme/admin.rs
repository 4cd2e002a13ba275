//! Admin commands. Source: NVM Express 1.4 §5.

use super::ctrl::Nvme;
use super::data::segments;
use super::identify::{self, Traffic};
use super::queues::{Cq, Sq};
use super::spec::{ALL_NAMESPACES, Command, Completion, Status, admin};
use crate::virtio::ring::scatter;
use hw_core::Locked;

/// Features. §5.21.1
mod feature {
    pub const ARBITRATION: u8 = 0x01;
    pub const POWER: u8 = 0x02;
    pub const TEMPERATURE: u8 = 0x04;
    pub const ERROR_RECOVERY: u8 = 0x05;
    pub const WRITE_CACHE: u8 = 0x06;
    pub const QUEUES: u8 = 0x07;
    pub const COALESCING: u8 = 0x08;
    pub const VECTOR: u8 = 0x09;
    pub const ATOMICITY: u8 = 0x0a;
    pub const EVENTS: u8 = 0x0b;
    pub const TIMESTAMP: u8 = 0x0e;
}

/// Features that can be set.
const CHANGEABLE: [u8; 9] = [
    feature::ARBITRATION,
    feature::POWER,
    feature::TEMPERATURE,
    feature::ERROR_RECOVERY,
    feature::WRITE_CACHE,
    feature::QUEUES,
    feature::COALESCING,
    feature::ATOMICITY,
    feature::EVENTS,
];

/// Result of a command, or how it fails.
type Answer = Result<u32, Status>;

impl Nvme {
    /// Does an admin command.
    pub(super) fn admin(&self, m: &mut Locked, c: &Command) {
        if c.psdt() != 0 {
            return self.answer(m, c, Err(Status::INVALID_FIELD));
        }
        let answer = match c.opcode {
            admin::DELETE_SQ => self.delete_sq(m, c),
            admin::CREATE_SQ => self.create_sq(m, c),
            admin::DELETE_CQ => self.delete_cq(m, c),
            admin::CREATE_CQ => self.create_cq(m, c),
            admin::IDENTIFY => self.identify(m, c),
            admin::GET_LOG_PAGE => self.log_page(m, c),
            admin::ABORT => Ok(u32::from(!self.abort(m, c.cdw(10) as u16, (c.cdw(10) >> 16) as u16))),
            admin::SET_FEATURES => self.set_feature(m, c),
            admin::GET_FEATURES => self.get_feature(m, c),
            admin::ASYNC_EVENT => {
                let limit = usize::from(self.aerl.get()) + 1;
                let aers = &mut self.regs.rw(m).aers;
                if aers.len() < limit {
                    aers.push(c.cid);
                    return self.tell_events(m);
                }
                Err(Status::AER_LIMIT)
            }
            _ => Err(Status::INVALID_OPCODE),
        };
        self.answer(m, c, answer);
    }

    fn answer(&self, m: &mut Locked, c: &Command, answer: Answer) {
        let (status, result) = answer.map_or_else(|status| (status, 0), |result| (Status::SUCCESS, result));
        self.complete(m, Completion { sqid: 0, cid: c.cid, status, result });
    }

    /// Copies data to where the command wants it.
    fn send(&self, m: &mut Locked, c: &Command, data: &[u8]) -> Answer {
        let page = self.page(m);
        let to = self.with_dma(m, |mem| segments(mem, c, data.len() as u64, page))?;
        self.with_dma(m, |mem| scatter(mem, &to, 0, data));
        Ok(0)
    }

    // ---- queues ----

    /// Number, entries and address of a queue that is to be made.
    fn queue_of(&self, m: &Locked, c: &Command) -> Result<(u16, u32, u64), Status> {
        let (qid, size) = (c.cdw(10) as u16, c.cdw(10) >> 16);
        if qid == 0 || u32::from(qid) > self.max_ioqpairs.get() {
            return Err(Status::INVALID_QUEUE_ID);
        }
        if size == 0 || size > self.mqes.get().into() {
            return Err(Status::INVALID_QUEUE_SIZE);
        }
        // Contiguous ones only, as CAP.CQR says.
        if c.cdw(11) & 1 == 0 {
            return Err(Status::INVALID_FIELD);
        }
        if !c.dptr.0.is_multiple_of(self.page(m)) {
            return Err(Status::INVALID_PRP_OFFSET);
        }
        Ok((qid, size + 1, c.dptr.0))
    }

    fn create_cq(&self, m: &mut Locked, c: &Command) -> Answer {
        let (qid, size, base) = self.queue_of(m, c)?;
        let vector = (c.cdw(11) >> 16) as u16;
        let r = self.regs.rw(m);
        if r.queues.cqs.contains_key(&qid) {
            return Err(Status::INVALID_QUEUE_ID);
        }
        if vector >= self.msix_qsize.get() {
            return Err(Status::INVALID_VECTOR);
        }
        // Size of an entry: 16 bytes.
        if r.cc >> 20 & 0xf != 4 {
            return Err(Status::INVALID_QUEUE_SIZE);
        }
        r.queues.cqs.insert(qid, Cq::new(base, size, vector, c.cdw(11) & 2 != 0));
        Ok(0)
    }

    fn create_sq(&self, m: &mut Locked, c: &Command) -> Answer {
        let (qid, size, base) = self.queue_of(m, c)?;
        let cqid = (c.cdw(11) >> 16) as u16;
        let r = self.regs.rw(m);
        if r.queues.sqs.contains_key(&qid) {
            return Err(Status::INVALID_QUEUE_ID);
        }
        if cqid == 0 || !r.queues.cqs.contains_key(&cqid) {
            return Err(Status::INVALID_CQ);
        }
        // Size of an entry: 64 bytes.
        if r.cc >> 16 & 0xf != 6 {
            return Err(Status::INVALID_QUEUE_SIZE);
        }
        r.queues.sqs.insert(qid, Sq::new(base, size, cqid));
        Ok(0)
    }

    fn delete_cq(&self, m: &mut Locked, c: &Command) -> Answer {
        let qid = c.cdw(10) as u16;
        let r = self.regs.rw(m);
        if qid == 0 || !r.queues.cqs.contains_key(&qid) {
            return Err(Status::INVALID_QUEUE_ID);
        }
        if r.queues.sqs.values().any(|q| q.cqid == qid) {
            return Err(Status::INVALID_QUEUE_DELETION);
        }
        r.queues.cqs.remove(&qid);
        Ok(0)
    }

    fn delete_sq(&self, m: &mut Locked, c: &Command) -> Answer {
        let qid = c.cdw(10) as u16;
        if qid == 0 || !self.regs.ro(m).queues.sqs.contains_key(&qid) {
            return Err(Status::INVALID_QUEUE_ID);
        }
        let all = self.regs.ro(m).pending.iter().filter(|(_, p)| p.sqid == qid);
        let all: Vec<(u64, u16)> = all.map(|(ticket, p)| (*ticket, p.cid)).collect();
        for (ticket, cid) in all {
            self.forget(m, ticket);
            self.complete(m, Completion { sqid: qid, cid, status: Status::ABORTED_SQ_DELETION, result: 0 });
        }
        let queues = &mut self.regs.rw(m).queues;
        queues.sqs.remove(&qid);
        for q in queues.cqs.values_mut() {
            q.waiting.retain(|c| c.sqid != qid);
        }
        Ok(0)
    }

    /// Gives a command up, if it is at work.
    fn abort(&self, m: &mut Locked, sqid: u16, cid: u16) -> bool {
        let r = self.regs.rw(m);
        let end = Completion { sqid, cid, status: Status::ABORT_REQUESTED, result: 0 };
        if sqid == 0
            && let Some(at) = r.aers.iter().position(|a| *a == cid)
        {
            r.aers.remove(at);
            self.complete(m, end);
            return true;
        }
        let found = r.pending.iter().find(|(_, p)| (p.sqid, p.cid) == (sqid, cid)).map(|(ticket, _)| *ticket);
        let Some(ticket) = found else { return false };
        self.forget(m, ticket);
        self.complete(m, end);
        true
    }

    // ---- information ----

    fn identify(&self, m: &mut Locked, c: &Command) -> Answer {
        let ns = || self.namespace(c.nsid);
        let is_valid = |nsid: u32| (1..=super::ns::MAX_NAMESPACES).contains(&nsid);
        let data = match c.cdw(10) as u8 {
            0x00 if c.nsid == ALL_NAMESPACES => return Err(Status::INVALID_NAMESPACE),
            0x00 => match ns() {
                Some(ns) => identify::namespace(&ns),
                None if is_valid(c.nsid) => vec![0; identify::PAGE], // inactive
                None => return Err(Status::INVALID_NAMESPACE),
            },
            0x01 => identify::controller(&self.info(m)),
            0x02 if c.nsid >= ALL_NAMESPACES - 1 => return Err(Status::INVALID_NAMESPACE),
            0x02 => identify::list(self.namespaces.read().keys().copied().filter(|n| *n > c.nsid)),
            0x03 => identify::descriptors(&ns().ok_or(Status::INVALID_NAMESPACE)?),
            _ => return Err(Status::INVALID_FIELD),
        };
        self.send(m, c, &data)
    }

    fn traffic(&self) -> Traffic {
        self.namespaces.read().values().fold(Traffic::default(), |t, ns| {
            let s = ns.backend.stats();
            Traffic {
                read: t.read + s.rd.bytes,
                written: t.written + s.wr.bytes,
                reads: t.reads + s.rd.operations,
                writes: t.writes + s.wr.operations,
            }
        })
    }

    fn temperature_limits(&self, m: &Locked) -> (u16, u16) {
        let all = &self.regs.ro(m).features;
        let limit = |under: u16, default: u16| {
            all.get(&(u16::from(feature::TEMPERATURE) | under << 8)).map_or(default, |v| *v as u16)
        };
        (limit(0, identify::WARNING), limit(1, 0))
    }

    fn log_page(&self, m: &mut Locked, c: &Command) -> Answer {
        let words = u64::from(c.cdw(10) >> 16) | u64::from(c.cdw(11) & 0xffff) << 16;
        let (len, offset) = ((words + 1) * 4, u64::from(c.cdw(13)) << 32 | u64::from(c.cdw(12)));
        let keep = c.cdw(10) & 1 << 15 != 0;
        let id = c.cdw(10) as u8;
        // Which events are told again once the page was read.
        let (data, kind) = match id {
            0x01 => (vec![0; 64], Some(0)),
            0x02 => {
                if c.nsid != 0 && c.nsid != ALL_NAMESPACES && self.namespace(c.nsid).is_none() {
                    return Err(Status::INVALID_NAMESPACE);
                }
                let limits = self.temperature_limits(m);
                (identify::health_log(self.traffic(), limits, self.critical_warning.get()), Some(1))
            }
            0x03 => (identify::firmware_log(&self.info(m).firmware), None),
            0x04 => (identify::list(self.regs.ro(m).changed.iter().copied()), Some(2)),
            0x05 => (identify::effects_log(), None),
            _ => return Err(Status::INVALID_LOG_PAGE),
        };
        let rest = usize::try_from(offset).ok().and_then(|at| data.get(at..)).ok_or(Status::INVALID_FIELD)?;
        let part = rest.get(..rest.len().min(usize::try_from(len).unwrap_or(usize::MAX))).unwrap_or_default();
        self.send(m, c, part)?;
        if let Some(kind) = kind.filter(|_| !keep) {
            let r = self.regs.rw(m);
            r.masked &= !(1 << kind);
            if id == 0x04 {
                r.changed.clear();
            }
            self.tell_events(m);
        }
        Ok(0)
    }

    // ---- features ----

    fn feature_default(&self, id: u8, c: &Command) -> Result<u32, Status> {
        let queues = self.max_ioqpairs.get() - 1;
        Ok(match id {
            feature::ARBITRATION => 7, // bursts without limit
            feature::POWER | feature::ERROR_RECOVERY | feature::COALESCING | feature::ATOMICITY | feature::EVENTS => 0,
            // Another sensor than the first has no limit; above, then below.
            feature::TEMPERATURE => match (c.cdw(11) >> 16 & 0xf, c.cdw(11) >> 20 & 3) {
                (0, 0) => identify::WARNING.into(),
                (0, 1) => 0,
                _ => return Err(Status::INVALID_FIELD),
            },
            feature::WRITE_CACHE => u32::from(self.namespaces.read().values().any(|ns| ns.backend.write_cache())),
            feature::QUEUES => queues | queues << 16,
            feature::VECTOR => {
                let vector = c.cdw(11) & 0xffff;
                if vector >= self.msix_qsize.get().into() {
                    return Err(Status::INVALID_FIELD);
                }
                vector | if vector == 0 { 1 << 16 } else { 0 } // the admin queue's is not held back
            }
            _ => return Err(Status::INVALID_FIELD),
        })
    }

    /// Where the value of a feature is kept: temperature limits are two.
    fn feature_key(id: u8, c: &Command) -> u16 {
        let under = if id == feature::TEMPERATURE { (c.cdw(11) >> 20 & 3) as u16 } else { 0 };
        u16::from(id) | under << 8
    }

    fn get_feature(&self, m: &mut Locked, c: &Command) -> Answer {
        let id = c.cdw(10) as u8;
        if id == feature::TIMESTAMP {
            return Err(Status::INVALID_FIELD);
        }
        let default = self.feature_default(id, c)?;
        match c.cdw(10) >> 8 & 7 {
            0 if id == feature::WRITE_CACHE => Ok(default),
            0 => Ok(self.regs.ro(m).features.get(&Self::feature_key(id, c)).copied().unwrap_or(default)),
            1 | 2 => Ok(default),
            3 => Ok(if CHANGEABLE.contains(&id) { 1 << 2 } else { 0 }),
            _ => Err(Status::INVALID_FIELD),
        }
    }

    fn set_feature(&self, m: &mut Locked, c: &Command) -> Answer {
        let (id, v) = (c.cdw(10) as u8, c.cdw(11));
        if c.cdw(10) & 1 << 31 != 0 {
            return Err(Status::NOT_SAVEABLE);
        }
        let default = self.feature_default(id, c)?;
        if !CHANGEABLE.contains(&id) {
            return Err(Status::NOT_CHANGEABLE);
        }
        match id {
            feature::QUEUES if v & 0xffff == 0xffff || v >> 16 == 0xffff => return Err(Status::INVALID_FIELD),
            // As many as there are, whatever was asked for.
            feature::QUEUES => return Ok(default),
            feature::POWER if v & 0x1f != 0 => return Err(Status::INVALID_FIELD),
            feature::WRITE_CACHE => {
                self.set_write_cache(m, Some(v & 1 != 0));
                return Ok(0);
            }
            _ => {}
        }
        let v = if id == feature::TEMPERATURE { v & 0xffff } else { v };
        self.regs.rw(m).features.insert(Self::feature_key(id, c), v);
        if id == feature::TEMPERATURE {
            let (over, under) = self.temperature_limits(m);
            let wanted = self.regs.ro(m).features.get(&u16::from(feature::EVENTS)).copied().unwrap_or(0) & 1 << 1 != 0;
            if wanted && (identify::TEMPERATURE >= over || identify::TEMPERATURE <= under) {
                self.event(m, super::ctrl::Event { kind: 1, info: 1, log: 2 });
            }
        }
        Ok(0)
    }
}
