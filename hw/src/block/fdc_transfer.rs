//! Transfers of the floppy controller: what moves between the host (by DMA, or byte by byte) and a disk's sectors.
//! Source: Intel 82077AA (290166) §5.1 (commands), table 5-9 (what the result says of the next sector); scans: NEC µPD765 data sheet, §Scan.
//! A transfer goes by *chunks*, the sectors that are left on one side of a track. Work with the image is a [`Job`], a value that is part of the
//! state: whoever has the image does it and calls [`FdcRegs::job_done`].

use super::fdc_regs::{FdcRegs, msr, st0, st1};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

/// Bytes of a sector.
const SECTOR: usize = 512;
/// Bytes that name a sector in FORMAT TRACK.
const ID: usize = 4;
/// Status register 2: data error in the data field; scan equal hit; scan not satisfied.
const DD: u8 = 0x20;
const SH: u8 = 0x08;
const SN: u8 = 0x04;
/// A byte that matches all in a scan.
const ANY: u8 = 0xff;
/// Most sectors of a chunk.
const MAX_CHUNK: usize = 64;

/// What a transfer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// From the disk.
    Read,
    /// To the disk.
    Write,
    /// Reads and moves nothing.
    Verify,
    /// Looks for a sector that equals what the host gives.
    ScanEqual,
    /// … that is not larger.
    ScanLow,
    /// … that is not smaller.
    ScanHigh,
    /// Writes the sectors that the host names.
    Format,
}

impl Kind {
    /// Bytes come from the host.
    pub fn takes(self) -> bool {
        !matches!(self, Self::Read | Self::Verify)
    }

    fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Format)
    }

    fn scans(self) -> bool {
        matches!(self, Self::ScanEqual | Self::ScanLow | Self::ScanHigh)
    }
}

/// Work with the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Reads.
    Read {
        /// First byte.
        at: u64,
        /// Bytes.
        len: usize,
    },
    /// Writes.
    Write {
        /// First byte.
        at: u64,
        /// What.
        data: Vec<u8>,
    },
}

/// A transfer at work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Transfer {
    kind: Kind,
    pub(super) dma: bool,
    /// Goes on at the other side.
    multi: bool,
    /// Last sector of a side.
    ends: u8,
    /// Bytes that the command has still to move.
    pub(super) left: u32,
    /// FORMAT's filler, the scans' step.
    pub(super) filler: u8,
    /// What ST0 says besides.
    pub(super) status0: u8,
    /// The chunk: what was read, or what comes from the host.
    buffer: Vec<u8>,
    pos: usize,
    /// The chunk is at the image.
    busy: bool,
    /// The host has ended it.
    tc: bool,
    /// How the disk's bytes stand to the host's so far: -1, 0, 1.
    order: i8,
}

impl Transfer {
    pub(super) fn new(kind: Kind, dma: bool, multi: bool, ends: u8) -> Self {
        Self {
            kind,
            dma,
            multi,
            ends,
            left: 0,
            filler: 0,
            status0: 0,
            buffer: vec![],
            pos: 0,
            busy: false,
            tc: false,
            order: 0,
        }
    }

    /// Bytes that can be moved now.
    fn room(&self) -> usize {
        if self.busy || self.kind == Kind::Verify { 0 } else { self.buffer.len().saturating_sub(self.pos) }
    }

    /// RQM and DIO of a transfer without DMA.
    pub(super) fn pio_ready(&self) -> u8 {
        match (self.dma || self.room() == 0, self.kind.takes()) {
            (true, _) => 0,
            (false, true) => msr::RQM,
            (false, false) => msr::RQM | msr::DIO,
        }
    }

    pub(super) fn pio_read(&mut self) -> Option<u8> {
        if self.pio_ready() & msr::DIO == 0 {
            return None;
        }
        let byte = self.buffer.get(self.pos).copied();
        self.pos += 1;
        byte
    }

    pub(super) fn pio_write(&mut self, val: u8) -> bool {
        let takes = self.pio_ready() == msr::RQM;
        if takes {
            self.put(&[val]);
        }
        takes
    }

    /// Bytes come from the host.
    fn put(&mut self, bytes: &[u8]) {
        let scans = self.kind.scans();
        for (slot, byte) in self.buffer.iter_mut().skip(self.pos).zip(bytes) {
            if !scans {
                *slot = *byte;
            } else if self.order == 0 && *slot != ANY && *byte != ANY {
                self.order = match (*slot).cmp(byte) {
                    Ordering::Less => -1,
                    Ordering::Equal => 0,
                    Ordering::Greater => 1,
                };
            }
        }
        self.pos += bytes.len();
    }

    /// Rejects what no command leads to.
    pub(super) fn is_possible(&self) -> bool {
        self.buffer.len() <= MAX_CHUNK * SECTOR && self.pos <= self.buffer.len() && self.left <= 2 * 256 * 512
    }
}

impl FdcRegs {
    /// Whether a transfer wants the DMA controller.
    pub fn wants_dma(&self) -> bool {
        self.transfer.as_ref().is_some_and(|t| t.dma && t.room() > 0)
    }

    /// What the DMA controller may move now: bytes, and whether they come from memory.
    pub fn dma_room(&self) -> Option<(usize, bool)> {
        self.transfer.as_ref().filter(|t| t.dma && t.room() > 0).map(|t| (t.room(), t.kind.takes()))
    }

    /// The next bytes from the disk, at most `n`.
    pub fn dma_out(&self, n: usize) -> Vec<u8> {
        let bytes = |t: &Transfer| t.buffer.iter().skip(t.pos).take(n).copied().collect();
        self.transfer.as_ref().map(bytes).unwrap_or_default()
    }

    /// `n` of them were moved; `tc`: those were the last that the host wants.
    pub fn dma_taken(&mut self, n: usize, tc: bool) {
        if let Some(t) = &mut self.transfer {
            t.pos = (t.pos + n).min(t.buffer.len());
        }
        self.moved(tc);
    }

    /// Bytes come from memory.
    pub fn dma_in(&mut self, bytes: &[u8], tc: bool) {
        if let Some(t) = &mut self.transfer {
            t.put(bytes);
        }
        self.moved(tc);
    }

    /// Bytes of the chunk were moved.
    pub(super) fn moved(&mut self, tc: bool) {
        let Some(t) = &mut self.transfer else { return };
        t.tc |= tc;
        let full = t.pos >= t.buffer.len();
        if !full && !tc {
            return;
        }
        let pos = t.pos;
        match t.kind {
            Kind::Read | Kind::Verify => self.chunk_over(pos, 0),
            Kind::Write => {
                // What the host did not give is zeros. §5.1.3
                t.buffer.truncate(pos.next_multiple_of(SECTOR));
                t.busy = true;
            }
            Kind::Format => {
                t.buffer.truncate(pos - pos % ID);
                t.pos = 0;
                self.format_next();
            }
            Kind::ScanEqual | Kind::ScanLow | Kind::ScanHigh => self.scanned(full),
        }
    }

    fn position(&self) -> [u8; 3] {
        let h = self.head(self.selected());
        [h.track, h.head, h.sector]
    }

    /// Where a sector is in the image.
    fn offset(&self, sector: u8) -> Option<u64> {
        let f = self.disk(self.selected()).format?;
        let [track, head, _] = self.position().map(u64::from);
        let side = track * u64::from(f.sides) + head;
        Some((side * u64::from(f.sectors) + u64::from(sector.checked_sub(1)?)) * SECTOR as u64)
    }

    /// Begins with the sectors that are left on this side.
    pub(super) fn next_chunk(&mut self) {
        let at = self.position();
        let [_, _, sector] = at;
        if self.disk(self.selected()).format.is_none() {
            return self.finish([st0::ABNTERM, st1::MISSING_ADDRESS, 0], at);
        }
        let Some(t) = &mut self.transfer else { return };
        let left = (t.left as usize).div_ceil(SECTOR);
        let side = usize::from(t.ends.saturating_sub(sector)) + 1;
        let sectors = if t.kind.scans() { 1 } else { left.min(side).min(MAX_CHUNK) };
        let len = if t.kind == Kind::Format { t.left as usize } else { sectors * SECTOR };
        (t.buffer, t.pos, t.order) = (vec![0; len], 0, 0);
        t.busy = !t.kind.writes();
    }

    /// What is to be done with the image.
    pub fn job(&self) -> Option<Job> {
        let t = self.transfer.as_ref().filter(|t| t.busy)?;
        let [_, _, sector] = self.position();
        Some(match t.kind {
            Kind::Write => Job::Write { at: self.offset(sector)?, data: t.buffer.clone() },
            Kind::Format => {
                let sector = t.buffer.get(t.pos + 2).copied()?;
                Job::Write { at: self.offset(sector)?, data: vec![t.filler; SECTOR] }
            }
            _ => Job::Read { at: self.offset(sector)?, len: t.buffer.len() },
        })
    }

    /// The medium went while a job was to be done with it.
    pub fn has_lost_its_disk(&self) -> bool {
        self.transfer.as_ref().is_some_and(|t| t.busy) && self.job().is_none()
    }

    /// The job is done; `data`: what was read.
    pub fn job_done(&mut self, mut data: Vec<u8>) {
        let Some(t) = self.transfer.as_mut().filter(|t| t.busy) else { return };
        t.busy = false;
        match t.kind {
            Kind::Write => {
                let pos = t.pos;
                self.chunk_over(pos, 0);
            }
            Kind::Format => {
                t.pos += ID;
                self.format_next();
            }
            kind => {
                // An image that is shorter than its disk ends in zeros.
                data.resize(t.buffer.len(), 0);
                t.buffer = data;
                if kind == Kind::Verify {
                    let len = t.buffer.len();
                    self.chunk_over(len, 0);
                } else if !t.dma {
                    self.attention();
                }
            }
        }
    }

    /// The job failed, and the guest is told.
    pub fn job_failed(&mut self) {
        let Some(t) = &self.transfer else { return };
        let status = if t.kind.writes() {
            [st0::ABNTERM | st0::EQUIPMENT | t.status0, 0, 0]
        } else {
            [st0::ABNTERM | t.status0, st1::DATA_ERROR, DD]
        };
        let at = self.position();
        self.finish(status, at);
    }

    /// Whether the job at work is a read.
    pub fn job_reads(&self) -> bool {
        self.transfer.as_ref().is_some_and(|t| !t.kind.writes())
    }

    /// The head passes sectors: the next one, if the transfer goes on there, and what the result says of it (table 5-9).
    fn pass(&mut self, sectors: u32) -> (bool, [u8; 3]) {
        let [track, head, sector] = self.position();
        let unit = self.selected();
        let sides = self.disk(unit).format.map_or(1, |f| f.sides);
        let Some(t) = &self.transfer else { return (false, [track, head, sector]) };
        let next = u32::from(sector) + sectors;
        let (more, next) = match u8::try_from(next) {
            Ok(next) if next <= t.ends => (true, [track, head, next]),
            _ if t.multi && head == 0 && sides > 1 => (true, [track, 1, 1]),
            _ if t.multi => (false, [track.saturating_add(1), 0, 1]),
            _ => (false, [track.saturating_add(1), head, 1]),
        };
        if let (true, [_, head, sector], Some(h)) = (more, next, self.heads.get_mut(usize::from(unit))) {
            (h.head, h.sector) = (head, sector);
        }
        (more, next)
    }

    /// `bytes` of the chunk were moved, and no more will be.
    fn chunk_over(&mut self, bytes: usize, status2: u8) {
        let whole = (bytes / SECTOR) as u32;
        let (more, next) = self.pass(whole);
        let Some(t) = &mut self.transfer else { return };
        t.left = t.left.saturating_sub(bytes as u32);
        if t.tc || t.left == 0 || !more {
            let status = [t.status0, 0, status2];
            self.finish(status, next);
        } else {
            self.next_chunk();
        }
    }

    /// A sector was compared, or the host ended the scan.
    fn scanned(&mut self, full: bool) {
        let at = self.position();
        let Some(t) = &mut self.transfer else { return };
        let met = match t.kind {
            Kind::ScanLow => t.order <= 0,
            Kind::ScanHigh => t.order >= 0,
            _ => t.order == 0,
        };
        if full && met {
            let status = [t.status0, 0, if t.order == 0 { SH } else { 0 }];
            return self.finish(status, at);
        }
        let step = usize::from(t.filler.clamp(1, 2));
        self.chunk_over(step * SECTOR, SN);
    }

    /// FORMAT goes on with the next sector that the host named.
    fn format_next(&mut self) {
        let [track, head, _] = self.position();
        let sectors = self.disk(self.selected()).format.map_or(0, |f| f.sectors);
        let Some(t) = &mut self.transfer else { return };
        match t.buffer.get(t.pos..t.pos + ID) {
            None => {
                let status = [t.status0, 0, 0];
                self.finish(status, [track, head, 1]);
            }
            // A sector that the image has no place for.
            Some(&[c, _, r, n]) if c != track || n != 2 || r == 0 || r > sectors => {
                let status = [st0::ABNTERM | t.status0, st1::NO_DATA, 0];
                self.finish(status, [c, head, r]);
            }
            Some(_) => t.busy = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::fdc_regs::Disk;
    use crate::block::floppy_format::{FloppyDriveType, detect};

    /// A controller with a 1.44 MB disk in the first drive, the data rate set.
    fn with_disk(read_only: bool) -> FdcRegs {
        let mut r = FdcRegs::default();
        let format = detect(FloppyDriveType::D144, FloppyDriveType::D288, 2880);
        r.set_disk(0, Disk { drive: true, format, read_only }, true);
        r
    }

    fn send(r: &mut FdcRegs, bytes: &[u8]) {
        bytes.iter().for_each(|b| r.write(5, *b, 0));
    }

    fn result(r: &mut FdcRegs) -> Vec<u8> {
        let mut out = vec![];
        while r.transfer.is_none() && r.read(4) & msr::DIO != 0 {
            out.push(r.read(5));
        }
        out
    }

    #[test]
    fn a_read_goes_over_both_sides_and_ends_with_the_hosts_count() {
        let mut r = with_disk(false);
        send(&mut r, &[0xe6, 0, 1, 0, 17, 2, 18, 27, 0xff]);
        assert_eq!(r.job(), Some(Job::Read { at: (36 + 16) * 512, len: 1024 }));
        assert!(!r.wants_dma());
        r.job_done(vec![7; 1024]);
        assert_eq!(r.dma_room(), Some((1024, false)));
        r.dma_taken(1024, false);
        assert_eq!(r.job(), Some(Job::Read { at: (36 + 18) * 512, len: 18 * 512 }));
        r.job_done(vec![]);
        assert_eq!(r.dma_out(4), [0; 4]);
        r.dma_taken(512, true);
        assert!(r.irq());
        assert_eq!(result(&mut r), [0x24, 0, 0, 1, 1, 2, 2]);
        assert_eq!(r.read(7), 0, "the head moved over a disk");
    }

    #[test]
    fn a_write_without_dma_is_padded_by_nothing_and_ends_at_the_last_sector() {
        let mut r = with_disk(false);
        r.write(2, 0x04, 0);
        send(&mut r, &[0x45, 0, 0, 0, 18, 2, 18, 27, 0xff]);
        for n in 0..512u32 {
            assert_eq!(r.read(4), 0xb0);
            r.write(5, n as u8, 0);
        }
        assert_eq!(r.read(4), 0x30, "the sector is on its way");
        let Some(Job::Write { at, data }) = r.job() else { panic!("a write") };
        assert_eq!((at, data.len(), data[511]), (17 * 512, 512, 255));
        r.job_done(vec![]);
        assert_eq!(result(&mut r), [0, 0, 0, 1, 0, 1, 2]);
    }

    #[test]
    fn a_write_that_the_host_ends_early_is_filled_with_zeros() {
        let mut r = with_disk(false);
        send(&mut r, &[0xc5, 0, 0, 0, 1, 2, 18, 27, 0xff]);
        assert_eq!(r.dma_room(), Some((18 * 512, true)));
        r.dma_in(&[9; 600], true);
        let Some(Job::Write { at: 0, data }) = r.job() else { panic!("a write") };
        assert_eq!((data.len(), data[599], data[600]), (1024, 9, 0));
        r.job_done(vec![]);
        assert_eq!(result(&mut r), [0, 0, 0, 0, 0, 2, 2]);
    }

    #[test]
    fn what_cannot_be_done_ends_abnormally() {
        for (disk, rate, bytes, want) in [
            (true, 0, [0xc5, 0, 0, 0, 1, 2, 18, 27, 0xff], [0x40, 2, 0, 0, 0, 1, 2]), // write protected
            (false, 1, [0xe6, 0, 0, 0, 1, 2, 18, 27, 0xff], [0x40, 1, 0, 0, 0, 1, 2]), // another rate
            (false, 0, [0xe6, 0, 0, 0, 19, 2, 19, 27, 0xff], [0x40, 0x80, 0, 0, 0, 19, 2]), // no such sector
            (false, 0, [0xe6, 0, 90, 0, 1, 2, 18, 27, 0xff], [0x40, 0, 0, 90, 0, 1, 2]), // no such track
            (false, 0, [0xe6, 0, 0, 0, 1, 3, 18, 27, 0xff], [0x40, 4, 0, 0, 0, 1, 2]), // sectors of 1024 bytes
            (false, 0, [0xec, 0, 0, 0, 1, 2, 18, 27, 0xff], [0x60, 0, 0, 0, 0, 1, 2]), // deleted data
        ] {
            let mut r = with_disk(disk);
            r.write(7, rate, 0);
            send(&mut r, &bytes);
            assert_eq!(result(&mut r), want, "{bytes:x?}");
        }
        let mut r = with_disk(false);
        send(&mut r, &[0xe6, 0, 0, 0, 1, 2, 18, 27, 0xff]);
        r.job_failed();
        assert_eq!(result(&mut r), [0x40, 0x20, 0x20, 0, 0, 1, 2]);
    }

    #[test]
    fn formats_write_the_sectors_that_are_named() {
        let mut r = with_disk(false);
        send(&mut r, &[0x4d, 4, 2, 2, 27, 0xf6]);
        r.dma_in(&[0, 1, 3, 2, 0, 1, 1, 2], true);
        for sector in [3, 1] {
            assert_eq!(r.job(), Some(Job::Write { at: (18 + sector - 1) * 512, data: vec![0xf6; 512] }));
            r.job_done(vec![]);
        }
        assert_eq!(result(&mut r)[..3], [4, 0, 0]);
        send(&mut r, &[0x4d, 0, 2, 1, 27, 0xf6]);
        r.dma_in(&[0, 0, 99, 2], true);
        assert_eq!(result(&mut r)[..3], [0x40, 4, 0]);
    }

    #[test]
    fn scans_stop_at_the_sector_that_fits() {
        for (command, host, hits, status2) in
            [(0x51, 2, 2, 8), (0x51, 9, 0, 4), (0x59, 1, 1, 8), (0x5d, 0, 1, 0), (0x51, 0xff, 1, 8)]
        {
            let mut r = with_disk(false);
            send(&mut r, &[command, 0, 0, 0, 1, 2, 3, 27, 1]);
            let mut sector = 0;
            while let Some(Job::Read { len: 512, .. }) = r.job() {
                sector += 1;
                r.job_done(vec![sector; 512]);
                r.dma_in(&[host; 512], false);
            }
            let result = result(&mut r);
            assert_eq!(result[2], status2, "{command:x} {host}");
            assert!(hits == 0 || result[5] == hits, "{command:x} {host}: {result:?}");
        }
    }

    #[test]
    fn verify_moves_nothing_and_read_id_turns_the_disk() {
        let mut r = with_disk(false);
        send(&mut r, &[0x96, 0x80, 0, 0, 1, 2, 18, 27, 20]);
        r.job_done(vec![]);
        assert_eq!(r.job(), Some(Job::Read { at: 18 * 512, len: 1024 }));
        r.job_done(vec![]);
        assert_eq!(result(&mut r), [4, 0, 0, 0, 1, 3, 2]);
        send(&mut r, &[0x4a, 0]);
        assert_eq!((r.read(4), r.id_at()), (0x10, Some(20_000_000)));
        r.read_id();
        assert_eq!(result(&mut r), [0, 0, 0, 0, 0, 4, 2]);
    }

    #[test]
    fn a_reset_forgets_the_transfer() {
        let mut r = with_disk(false);
        send(&mut r, &[0xe6, 0, 0, 0, 1, 2, 18, 27, 0xff]);
        r.write(2, 0, 0);
        assert_eq!(r.job(), None);
        r.job_done(vec![1; 512]);
        assert!(!r.wants_dma() && r.check().is_ok());
    }
}
