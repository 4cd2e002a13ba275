//! The 82077AA/82078 floppy controller's registers and commands. Source: Intel 82077AA (290166) §2.1 (registers), §5 (commands),
//! §6 (status). Transfers: [`super::fdc_transfer`]. As on QEMU: a drive that is not there is write protected, its medium was changed, and its
//! head stays at track 0; no reset changes what CONFIGURE and LOCK said; the tape drive register holds bit 2 alone; transfers seek
//! to their cylinder whatever CONFIGURE says of implied seeks; seeks take no time; motors are not needed. Images know no deleted data.

use super::fdc_transfer::{Kind, Transfer};
use super::floppy_format::Format;
use serde::{Deserialize, Serialize};

/// Digital output register.
mod dor {
    pub const NRESET: u8 = 0x04;
    pub const DMAGATE: u8 = 0x08;
    pub const SELECT: u8 = 0x03;
}
/// Main status register.
pub(super) mod msr {
    pub const CMD_BUSY: u8 = 0x10;
    pub const NON_DMA: u8 = 0x20;
    pub const DIO: u8 = 0x40;
    pub const RQM: u8 = 0x80;
}
/// Status register 0.
pub(super) mod st0 {
    pub const HEAD: u8 = 0x04;
    pub const EQUIPMENT: u8 = 0x10;
    pub const SEEK_END: u8 = 0x20;
    pub const ABNTERM: u8 = 0x40;
    pub const INVCMD: u8 = 0x80;
    pub const RDYCHG: u8 = 0xc0;
}
/// Status register 1.
pub(super) mod st1 {
    pub const MISSING_ADDRESS: u8 = 0x01;
    pub const NOT_WRITABLE: u8 = 0x02;
    pub const NO_DATA: u8 = 0x04;
    pub const DATA_ERROR: u8 = 0x20;
    pub const END_OF_CYLINDER: u8 = 0x80;
}
/// Status register 3.
mod st3 {
    pub const WP: u8 = 0x40;
    pub const T0: u8 = 0x10;
    /// Bits 5 and 3.
    pub const ONES: u8 = 0x28;
}
/// DIR bit 7: the medium was changed.
const DSKCHG: u8 = 0x80;
/// TDR bit 2: which drive boots.
const BOOTSEL: u8 = 0x04;
/// DSR bit 7: software reset; bits 1:0: data rate.
const SWRESET: u8 = 0x80;
const RATE: u8 = 0x03;
/// Drives whose state changed is reported after a reset.
const DRIVES: u8 = 4;
/// Drives that can be there.
pub const UNITS: usize = 2;
/// The last track that a head of an empty drive is moved to by steps.
const LAST_TRACK: u8 = 79;
/// How long the next address mark is away: a sector of a turn, in ns.
const NEXT_ID: u64 = 20_000_000;

/// What is in a drive: not part of the state, for it is made of the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// There is a drive.
    pub drive: bool,
    /// Its medium, if there is one.
    pub format: Option<&'static Format>,
    /// It cannot be written.
    pub read_only: bool,
}

/// Where a drive's head stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub track: u8,
    pub head: u8,
    pub sector: u8,
    /// The medium was changed since the head last moved.
    pub changed: bool,
}

impl Default for Head {
    fn default() -> Self {
        Self { track: 0, head: 0, sector: 1, changed: true }
    }
}

/// All that the guest can observe and a snapshot must keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdcRegs {
    dor: u8,
    tdr: u8,
    dsr: u8,
    /// Command bytes so far.
    command: Vec<u8>,
    /// Result bytes left.
    result: Vec<u8>,
    irq: bool,
    /// SENSE INTERRUPT STATUS answers left after a reset.
    reset_sensei: u8,
    /// ST0 of the interrupt that waits to be sensed.
    status0: u8,
    timer: [u8; 2],
    config: u8,
    precomp: u8,
    /// Drives in perpendicular mode (bits 5:2), gap and write gate.
    perpendicular: u8,
    lock: bool,
    /// Last sector, or sectors per track, of the last transfer.
    eot: u8,
    /// The drive that the last command was for.
    selected: u8,
    pub(super) heads: [Head; UNITS],
    /// The transfer at work.
    pub(super) transfer: Option<Transfer>,
    /// READ ID is at work: when it ends.
    id_at: Option<u64>,
    #[serde(skip)]
    disks: [Disk; UNITS],
}

impl Default for FdcRegs {
    fn default() -> Self {
        FdcRegs {
            dor: dor::NRESET | dor::DMAGATE,
            tdr: 0,
            dsr: 0,
            command: vec![],
            result: vec![],
            irq: false,
            reset_sensei: 0,
            status0: 0,
            timer: [0; 2],
            config: 0x60, // implied seek off, FIFO off, polling on
            precomp: 0,
            perpendicular: 0,
            lock: false,
            eot: 0,
            selected: 0,
            heads: Default::default(),
            transfer: None,
            id_at: None,
            disks: Default::default(),
        }
    }
}

/// Length of a command in bytes by its first one; 1 for those that are invalid. §5.1, table 5-1.
fn length(first: u8) -> usize {
    match first & 0x1f {
        0x02 | 0x05 | 0x06 | 0x09 | 0x0c | 0x11 | 0x16 | 0x19 | 0x1d => 9,
        0x0d => 6,
        0x03 | 0x0f => 3,
        0x04 | 0x07 | 0x0a | 0x12 => 2,
        0x13 => 4,
        _ => 1,
    }
}

impl FdcRegs {
    /// Level of the interrupt line.
    pub fn irq(&self) -> bool {
        self.irq && self.dor & dor::DMAGATE != 0
    }

    /// Reset by pin (`hard`), by DOR bit 2 or by DSR bit 7.
    pub fn reset(&mut self, hard: bool) {
        let old = std::mem::take(self);
        (self.config, self.precomp, self.lock) = (old.config, old.precomp, old.lock);
        (self.disks, self.heads) = (old.disks, old.heads);
        (0..DRIVES).for_each(|unit| self.seek(unit, 0));
        self.heads.iter_mut().for_each(|h| (h.head, h.sector) = (0, 1));
        if !hard {
            (self.dor, self.tdr, self.eot) = (old.dor, old.tdr, old.eot);
            self.dsr = old.dsr & !SWRESET;
            (self.perpendicular, self.timer) = (old.perpendicular & !3, old.timer);
            self.irq = true;
            self.status0 = st0::RDYCHG;
            self.reset_sensei = DRIVES;
        }
    }

    fn in_reset(&self) -> bool {
        self.dor & dor::NRESET == 0
    }

    // ---- drives ----

    /// Says what is in a drive; `changed`: the guest is to see that it is another medium.
    pub fn set_disk(&mut self, unit: usize, disk: Disk, changed: bool) {
        if let (Some(slot), Some(head)) = (self.disks.get_mut(unit), self.heads.get_mut(unit)) {
            *slot = disk;
            head.changed |= changed;
        }
    }

    /// What is in a drive.
    pub fn disk(&self, unit: u8) -> Disk {
        self.disks.get(usize::from(unit)).copied().unwrap_or(Disk { read_only: true, ..Disk::default() })
    }

    pub(super) fn head(&self, unit: u8) -> Head {
        self.heads.get(usize::from(unit)).copied().unwrap_or_default()
    }

    fn head_mut(&mut self, unit: u8) -> Option<&mut Head> {
        self.heads.get_mut(usize::from(unit))
    }

    /// Moves a head. It stays where it is beyond the last track, and does not move in without a medium.
    fn seek(&mut self, unit: u8, track: u8) {
        let last = self.disk(unit).format.map_or(0, |f| f.tracks);
        let inserted = self.disk(unit).format.is_some();
        if let Some(h) = self.head_mut(unit).filter(|h| (track <= last || track < h.track) && h.track != track) {
            h.track = track;
            h.changed &= !inserted;
        }
    }

    /// Moves a head by so many tracks, with or without a medium. §5.2.6
    fn step_in(&mut self, unit: u8, tracks: u8) {
        let disk = self.disk(unit);
        let last = disk.format.map_or(LAST_TRACK, |f| f.tracks.saturating_sub(1));
        if let Some(h) = self.head_mut(unit).filter(|_| disk.drive) {
            let to = h.track.saturating_add(tracks).min(last);
            h.changed &= disk.format.is_none() || to == h.track;
            h.track = to;
        }
    }

    // ---- registers ----

    fn main_status(&self) -> u8 {
        if self.in_reset() {
            return 0;
        }
        if let Some(t) = &self.transfer {
            let pio = if t.dma { 0 } else { msr::NON_DMA };
            return msr::CMD_BUSY | pio | t.pio_ready();
        }
        if self.id_at.is_some() {
            return msr::CMD_BUSY;
        }
        let busy = if self.command.is_empty() && self.result.is_empty() { 0 } else { msr::CMD_BUSY };
        msr::RQM | busy | if self.result.is_empty() { 0 } else { msr::DIO }
    }

    /// Reads a register: 1 SRB, 2 DOR, 3 TDR, 4 MSR, 5 data, 7 DIR.
    pub fn read(&mut self, offset: u64) -> u8 {
        match offset {
            1 => 0xc0 | (self.dor & 1) << 5 | self.dor >> 4 & 3,
            2 => self.dor,
            3 => self.tdr,
            4 => self.main_status(),
            5 => self.read_data(),
            7 if self.head(self.dor & dor::SELECT).changed => DSKCHG,
            7 => 0,
            _ => 0xff,
        }
    }

    /// Writes a register: 2 DOR, 3 TDR, 4 DSR, 5 data, 7 CCR. `now`: virtual time, ns.
    pub fn write(&mut self, offset: u64, val: u8, now: u64) {
        match offset {
            2 => {
                let was = self.in_reset();
                self.dor = val;
                if was && !self.in_reset() {
                    self.reset(false);
                }
                if self.in_reset() {
                    (self.transfer, self.id_at) = (None, None);
                }
            }
            3 if !self.in_reset() => self.tdr = val & BOOTSEL,
            4 if !self.in_reset() => {
                self.dsr = val;
                if val & SWRESET != 0 {
                    self.reset(false);
                }
            }
            5 if !self.in_reset() => self.write_data(val, now),
            // The rate is one register with two addresses. §2.1.10
            7 if !self.in_reset() => self.dsr = self.dsr & !RATE | val & RATE,
            _ => {}
        }
    }

    fn read_data(&mut self) -> u8 {
        if let Some(t) = &mut self.transfer {
            let Some(byte) = t.pio_read() else { return 0 };
            self.irq = false;
            self.moved(false);
            return byte;
        }
        if self.result.is_empty() {
            return 0;
        }
        self.irq = false;
        self.result.remove(0)
    }

    fn write_data(&mut self, val: u8, now: u64) {
        if let Some(t) = &mut self.transfer {
            if t.pio_write(val) {
                self.irq = false;
                self.moved(false);
            }
            return;
        }
        if !self.result.is_empty() || self.id_at.is_some() {
            return; // the host must read first
        }
        self.command.push(val);
        let first = self.command.first().copied().unwrap_or(0);
        if self.command.len() >= length(first) {
            let command = std::mem::take(&mut self.command);
            self.execute(&command, now);
        }
    }

    /// A command ends with an interrupt; what a reset left to be sensed is forgotten.
    pub(super) fn interrupt(&mut self, status0: u8) {
        self.status0 = status0;
        self.irq = true;
        self.reset_sensei = 0;
    }

    /// The transfer wants the host's attention.
    pub(super) fn attention(&mut self) {
        self.irq = true;
    }

    /// Takes a command's drive and head.
    fn select(&mut self, byte: u8) {
        self.selected = byte & dor::SELECT;
        if let Some(h) = self.head_mut(self.selected) {
            h.head = byte >> 2 & 1;
        }
    }

    /// A command has all its bytes.
    fn execute(&mut self, c: &[u8], now: u64) {
        let byte = |n: usize| c.get(n).copied().unwrap_or(0);
        let select = byte(1) & 7;
        match byte(0) & 0x1f {
            // SPECIFY
            0x03 => self.timer = [byte(1), byte(2)],
            // SENSE DRIVE STATUS
            0x04 => {
                self.select(byte(1));
                let (h, disk) = (self.head(self.selected), self.disk(self.selected));
                let protect = if disk.read_only || !disk.drive { st3::WP } else { 0 };
                let zero = if h.track == 0 { st3::T0 } else { 0 };
                self.result = vec![protect | zero | st3::ONES | select];
            }
            // RECALIBRATE
            0x07 => {
                self.selected = byte(1) & dor::SELECT;
                self.seek(self.selected, 0);
                self.interrupt(st0::SEEK_END | self.selected);
            }
            // SENSE INTERRUPT STATUS
            0x08 => self.sense_interrupt(),
            // READ ID
            0x0a => {
                self.select(byte(1));
                self.id_at = Some(now.saturating_add(NEXT_ID));
            }
            // DUMPREG
            0x0e => {
                let [a, b] = self.timer;
                let [t0, t1] = self.heads.map(|h| h.track);
                let lock = u8::from(self.lock) << 7 | self.perpendicular;
                self.result = vec![t0, t1, 0, 0, a, b, self.eot, lock, self.config, self.precomp];
            }
            // SEEK, and RELATIVE SEEK in and out
            0x0f => {
                self.selected = byte(1) & dor::SELECT;
                let at = self.head(self.selected).track;
                match byte(0) & 0xc0 {
                    0xc0 => self.step_in(self.selected, byte(2)),
                    0x80 => self.seek(self.selected, at.saturating_sub(byte(2))),
                    _ => self.seek(self.selected, byte(2)),
                }
                self.interrupt(st0::SEEK_END | self.selected);
            }
            // VERSION: enhanced controller
            0x10 => self.result = vec![0x90],
            // PERPENDICULAR MODE
            0x12 if byte(1) & 0x80 != 0 => self.perpendicular = byte(1) & 0x3f,
            0x12 => self.perpendicular = self.perpendicular & !3 | byte(1) & 3,
            // CONFIGURE
            0x13 => (self.config, self.precomp) = (byte(2), byte(3)),
            // LOCK and UNLOCK
            0x14 => {
                self.lock = byte(0) & 0x80 != 0;
                self.result = vec![u8::from(self.lock) << 4];
            }
            0x02 | 0x05 | 0x06 | 0x09 | 0x0c | 0x0d | 0x11 | 0x16 | 0x19 | 0x1d => self.start(c),
            _ => self.result = vec![st0::INVCMD],
        }
    }

    fn sense_interrupt(&mut self) {
        let track = self.head(self.selected).track;
        if self.reset_sensei > 0 {
            let drive = DRIVES - self.reset_sensei;
            self.result = vec![st0::RDYCHG | drive, self.head(drive).track];
            self.reset_sensei -= 1;
        } else if !self.irq {
            self.result = vec![st0::INVCMD];
            return;
        } else {
            self.result = vec![self.status0, track];
        }
        self.irq = false;
        self.status0 = 0;
    }

    // ---- transfers ----

    /// The data rate does not suit the medium, or there is none: no address mark is found.
    fn is_deaf(&self, unit: u8) -> bool {
        self.disk(unit).format.is_none_or(|f| f.rate != self.dsr & RATE)
    }

    /// A transfer, READ ID or FORMAT ends; `[c, h, r]`: the next sector.
    pub(super) fn finish(&mut self, status: [u8; 3], [c, h, r]: [u8; 3]) {
        let [s0, s1, s2] = status;
        let head = if self.head(self.selected).head != 0 { st0::HEAD } else { 0 };
        let s0 = s0 | head | self.selected;
        (self.transfer, self.id_at) = (None, None);
        self.result = vec![s0, s1, s2, c, h, r, 2];
        self.interrupt(s0);
    }

    /// When READ ID ends.
    pub fn id_at(&self) -> Option<u64> {
        self.id_at
    }

    /// READ ID has found the next sector, or none in a turn.
    pub fn read_id(&mut self) {
        if self.id_at.is_none() {
            return;
        }
        let (unit, deaf) = (self.selected, self.is_deaf(self.selected));
        let format =
            self.disk(unit).format.filter(|f| self.head(unit).head < f.sides && self.head(unit).track < f.tracks);
        if let (Some(f), Some(h)) = (format, self.head_mut(unit)) {
            h.sector = h.sector % f.sectors.max(1) + 1;
        }
        let h = self.head(unit);
        let status = match format {
            Some(_) if !deaf => [0; 3],
            _ => [st0::ABNTERM, st1::MISSING_ADDRESS, 0],
        };
        self.finish(status, [h.track, h.head, h.sector]);
    }

    fn start(&mut self, c: &[u8]) {
        let byte = |n: usize| c.get(n).copied().unwrap_or(0);
        self.select(byte(1));
        let (unit, dma) = (self.selected, self.dor & dor::DMAGATE != 0);
        let disk = self.disk(unit);
        let format = c.len() == 6;
        self.eot = if format { byte(3) } else { byte(6) };
        let at = if format {
            let h = self.head(unit);
            [h.track, h.head, 1]
        } else {
            [byte(2), byte(3), byte(4)]
        };
        let [track, head, first] = at;
        let track_command = byte(0) & 0x1f == 0x02; // reads from the index on
        let sector = if track_command { 1 } else { first };
        let fail = |s0: u8, s1: u8| ([st0::ABNTERM | s0, s1, 0], at);
        let Some(f) = disk.format else {
            let st1 = match (disk.drive, track, head) {
                _ if format || head > 0 => 0,
                (true, _, _) => st1::MISSING_ADDRESS,
                (false, 0, _) => st1::END_OF_CYLINDER,
                (false, _, _) => 0,
            };
            let (status, at) = fail(0, st1);
            return self.finish(status, at);
        };
        let moves = self.head(unit).track != track;
        let outside = track > f.tracks || head >= f.sides;
        let kind = match byte(0) & 0x1f {
            0x02 | 0x06 => Some(Kind::Read),
            0x05 => Some(Kind::Write),
            0x0d => Some(Kind::Format),
            0x11 => Some(Kind::ScanEqual),
            0x19 => Some(Kind::ScanLow),
            0x1d => Some(Kind::ScanHigh),
            0x16 => Some(Kind::Verify),
            _ => None, // deleted data
        };
        let refused = match kind {
            _ if outside => Some((0, 0)),
            None => Some((st0::SEEK_END, 0)),
            _ if !format && sector > f.sectors => Some((0, st1::END_OF_CYLINDER)),
            _ if self.is_deaf(unit) || track >= f.tracks => Some((0, st1::MISSING_ADDRESS)),
            _ if format && byte(2) != 2 || !format && (byte(5) != 2 || sector == 0) => Some((0, st1::NO_DATA)),
            Some(Kind::Write | Kind::Format) if disk.read_only => Some((0, st1::NOT_WRITABLE)),
            _ if !format && self.eot < sector => Some((0, st1::MISSING_ADDRESS)),
            _ => None,
        };
        if !outside {
            self.seek(unit, track);
            if let Some(h) = self.head_mut(unit) {
                (h.head, h.sector) = (head, sector);
            }
        }
        let (Some(kind), None) = (kind, refused) else {
            let (s0, s1) = refused.unwrap_or_default();
            let (status, at) = fail(s0, s1);
            return self.finish(status, at);
        };
        let multi = byte(0) & 0x80 != 0 && !track_command && !format;
        let ends = self.eot.min(f.sectors);
        let mut sectors = u32::from(self.eot - sector.min(self.eot)) + 1;
        if multi && head == 0 && f.sides > 1 {
            sectors += u32::from(self.eot);
        }
        // VERIFY may count its sectors itself. §5.1.6
        if kind == Kind::Verify && byte(1) & 0x80 != 0 {
            sectors = u32::from(byte(8)).max(1);
        }
        let mut t = Transfer::new(kind, dma && kind != Kind::Verify, multi, ends);
        t.status0 = if moves { st0::SEEK_END } else { 0 };
        t.left = if format { 4 * u32::from(self.eot) } else { sectors * 512 };
        // FORMAT's filler; the step of scans.
        t.filler = if format { byte(5) } else { byte(8) };
        self.transfer = Some(t);
        if format && self.eot == 0 {
            return self.finish([0; 3], at);
        }
        self.next_chunk();
        if !dma && kind != Kind::Verify {
            self.attention();
        }
    }

    /// Rejects what the controller cannot hold.
    ///
    /// # Errors
    /// More bytes than a command or result has, a transfer that is none.
    pub fn check(&self) -> Result<(), String> {
        let ok =
            self.command.len() < 9 && self.result.len() <= 10 && self.reset_sensei <= DRIVES && self.selected < DRIVES;
        let heads = self.heads.iter().all(|h| h.track <= 85 && h.head < 2);
        let transfer = self.transfer.as_ref().is_none_or(Transfer::is_possible);
        if ok && heads && transfer { Ok(()) } else { Err("floppy controller: impossible state".into()) }
    }

    /// The drive that the last command was for.
    pub fn selected(&self) -> u8 {
        self.selected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(r: &mut FdcRegs, bytes: &[u8]) -> Vec<u8> {
        bytes.iter().for_each(|b| r.write(5, *b, 0));
        r.read_id();
        let mut out = vec![];
        while r.read(4) & msr::DIO != 0 {
            out.push(r.read(5));
        }
        out
    }

    #[test]
    fn leaving_reset_interrupts_and_four_drives_are_sensed() {
        let mut r = FdcRegs::default();
        r.write(2, 0, 0);
        assert_eq!(r.read(4), 0);
        r.write(2, 0x0c, 0);
        assert!(r.irq());
        for drive in 0..4 {
            assert_eq!(command(&mut r, &[8]), [0xc0 | drive, 0]);
        }
        assert_eq!(command(&mut r, &[8]), [0x80]);
        assert!(!r.irq());
    }

    #[test]
    fn seeks_end_without_a_drive_and_move_no_head() {
        let mut r = FdcRegs::default();
        for bytes in [&[0x0f, 1, 5][..], &[0xcf, 1, 2], &[0x8f, 1, 9], &[0x0f, 0, 3], &[7, 0], &[7, 1]] {
            assert!(command(&mut r, bytes).is_empty());
            assert!(r.irq());
            assert_eq!(command(&mut r, &[8]), [0x20 | bytes.get(1).copied().unwrap_or(0), 0]);
        }
    }

    #[test]
    fn a_drive_that_is_not_there_has_a_status() {
        let mut r = FdcRegs::default();
        assert_eq!(command(&mut r, &[4, 1]), [0x79]);
        assert!(command(&mut r, &[0x0f, 1, 5]).is_empty());
        assert_eq!((command(&mut r, &[4, 5]), command(&mut r, &[4, 0])), (vec![0x7d], vec![0x78]));
        assert_eq!(r.read(7), 0x80);
        r.write(3, 0xff, 0);
        assert_eq!(r.read(3), 4);
    }

    #[test]
    fn resets_keep_the_configuration() {
        let mut r = FdcRegs::default();
        for lock in [0x94, 0x14] {
            assert!(command(&mut r, &[0x13, 0, 0x57, 9]).is_empty());
            assert_eq!(command(&mut r, &[lock]), [(lock & 0x80) >> 3]);
            r.write(4, SWRESET, 0);
            (0..4).for_each(|_| _ = command(&mut r, &[8]));
            assert_eq!(command(&mut r, &[0x0e]).get(7..), Some(&[lock & 0x80, 0x57, 9][..]));
        }
        r.reset(true);
        assert_eq!(command(&mut r, &[0x0e]).get(8..), Some(&[0x57, 9][..]));
    }

    #[test]
    fn perpendicular_mode_is_dumped_and_partly_reset() {
        let mut r = FdcRegs::default();
        assert!(command(&mut r, &[0x12, 0xbd]).is_empty());
        assert!(command(&mut r, &[0x12, 0x3e]).is_empty()); // without OW only the low bits
        assert_eq!(command(&mut r, &[0x0e]).get(7), Some(&0x3e));
        r.write(4, SWRESET, 0);
        (0..4).for_each(|_| _ = command(&mut r, &[8]));
        assert_eq!(command(&mut r, &[0x0e]).get(7), Some(&0x3c));
    }

    #[test]
    fn a_read_without_a_drive_ends_abnormally() {
        let mut r = FdcRegs::default();
        assert_eq!(command(&mut r, &[0xe6, 0, 1, 0, 2, 2, 18, 27, 0xff]), [0x40, 0, 0, 1, 0, 2, 2]);
        assert_eq!(command(&mut r, &[0x10]), [0x90]);
        assert_eq!(command(&mut r, &[0x94]), [0x10]);
        assert_eq!(command(&mut r, &[0x1f]), [0x80]);
    }
}
