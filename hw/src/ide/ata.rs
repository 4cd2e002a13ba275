//! Commands of disks. Source: ATA/ATAPI-7 volume 1 §6, ATA8-ACS §7.10 (DATA SET MANAGEMENT). Power modes are accepted and change
//! nothing; security, HPA beyond READ NATIVE MAX, streaming and logs other than SMART's are not there: aborted, as on QEMU.

use super::drive::{DriveInfo, DriveRegs, Job, Kind, LBA, SECTOR, Then, error, status};
use super::identify;

/// A command's end.
enum End {
    /// Done: interrupt.
    Done,
    /// Done, and seek complete is set if there was no error.
    Seek,
    /// It goes on.
    Later,
}

/// Log of the queued command that failed last, and what it begins with if none has.
const QUEUED_ERROR_LOG: u8 = 0x10;
const NO_QUEUED_ERROR: u8 = 0x80;
/// SMART command's key in the cylinder registers.
const SMART_KEY: (u8, u8) = (0x4f, 0xc2);

impl DriveRegs {
    /// ABRT; the transfer ends.
    pub(super) fn abort(&mut self) {
        self.stop();
        self.status = status::DRDY | status::ERR;
        self.error = error::ABRT;
        self.buffer.clear();
    }

    /// The command register is written; whether that interrupts.
    pub fn command(&mut self, i: &DriveInfo, cmd: u8) -> bool {
        // While a command is at work only DEVICE RESET of a packet device is heard.
        if self.status & (status::BSY | status::DRQ) != 0 && !(cmd == 0x08 && i.kind == Kind::Cd) {
            return false;
        }
        self.status = status::DRDY | status::BSY;
        self.error = 0;
        self.pos = 0;
        let end = self.execute(i, cmd).unwrap_or_else(|| {
            self.abort();
            End::Done
        });
        match end {
            End::Later => false,
            end => {
                self.status &= !status::BSY;
                if matches!(end, End::Seek) && self.error == 0 {
                    self.status |= status::DSC;
                }
                true
            }
        }
    }

    fn execute(&mut self, i: &DriveInfo, cmd: u8) -> Option<End> {
        let disk = i.kind == Kind::Hd;
        let cd = !disk;
        match cmd {
            // DEVICE RESET
            0x08 if cd => {
                self.soft_reset(i);
                Some(End::Later)
            }
            0xa0 if cd => self.begin_packet().then_some(End::Later),
            0xa1 if cd => self.identify(i),
            // a packet device shows its signature instead
            0xec if cd => {
                self.signature(i);
                None
            }
            0x90 => {
                self.signature(i);
                self.error = 1;
                // ATAPI devices clear the whole register.
                self.status = if cd { 0 } else { status::DRDY | status::DSC };
                Some(End::Done)
            }
            0xef => self.set_features(i),
            // power modes: idle and standby, with and without delay, sleep
            0x94..=0x97 | 0x99 | 0xe0..=0xe3 | 0xe6 => Some(End::Done),
            // CHECK POWER MODE: active or idle
            0x98 | 0xe5 => {
                self.nsector = 0xff;
                Some(End::Done)
            }
            0xe7 | 0xea if disk => {
                self.job = Some(Job::Flush);
                Some(End::Later)
            }
            _ if disk => self.execute_disk(i, cmd),
            _ => None,
        }
    }

    fn execute_disk(&mut self, i: &DriveInfo, cmd: u8) -> Option<End> {
        match cmd {
            0x06 => self.trim(i),
            // RECALIBRATE, SEEK
            0x10 | 0x70 => Some(End::Seek),
            0x20 | 0x21 => self.read_pio(i, false, 1),
            0x24 => self.read_pio(i, true, 1),
            0x29 => self.read_multiple(i, true),
            0xc4 => self.read_multiple(i, false),
            0x30 | 0x31 | 0x3c => self.write_pio(i, false, 1),
            0x34 => self.write_pio(i, true, 1),
            0x39 | 0xce => self.write_multiple(i, true),
            0xc5 => self.write_multiple(i, false),
            0x25 => self.dma(i, true, true),
            0xc8 | 0xc9 => self.dma(i, false, true),
            0x35 | 0x3d => self.dma(i, true, false),
            0xca | 0xcb => self.dma(i, false, false),
            0x2f if i.queue_depth > 0 => self.read_log(),
            // READ VERIFY
            0x40 | 0x41 => self.verify(i, false),
            0x42 => self.verify(i, true),
            0x91 => {
                self.heads = (self.select & 0x0f) + 1;
                self.sectors_per_track = self.nsector;
                Some(End::Done)
            }
            0xb0 => self.smart(i),
            0xc6 => {
                let n = self.nsector;
                if n > identify::MAX_MULTIPLE || n & n.wrapping_sub(1) != 0 && n != 0 {
                    return None;
                }
                self.multiple = n;
                Some(End::Seek)
            }
            0xec => self.identify(i),
            // READ NATIVE MAX ADDRESS
            0xf8 | 0x27 => {
                self.lba48 = cmd == 0x27;
                if i.sectors == 0 {
                    return None;
                }
                let limit = if self.lba48 { (1 << 48) - 1 } else { (1 << 28) - 1 };
                self.set_sector((i.sectors - 1).min(limit));
                Some(End::Seek)
            }
            _ => None,
        }
    }

    fn identify(&mut self, i: &DriveInfo) -> Option<End> {
        let data = identify::data(self, i);
        self.status = status::DRDY | status::DSC;
        self.send(data);
        Some(End::Done)
    }

    /// Takes the sector count of the command.
    fn take_count(&mut self, wide: bool) {
        self.lba48 = wide;
        let [_, high, ..] = self.hob;
        let n = if wide { u32::from(high) << 8 | u32::from(self.nsector) } else { self.nsector.into() };
        self.left = match (n, wide) {
            (0, true) => 65536,
            (0, false) => 256,
            (n, _) => n,
        };
    }

    fn count_left(&mut self) {
        self.nsector = self.left as u8;
        let [_, high, ..] = &mut self.hob;
        *high = (self.left >> 8) as u8;
    }

    fn in_range(&self, i: &DriveInfo, n: u32) -> bool {
        self.sector().checked_add(n.into()).is_some_and(|end| end <= i.sectors)
    }

    fn read_pio(&mut self, i: &DriveInfo, wide: bool, block: u32) -> Option<End> {
        self.take_count(wide);
        self.block = block;
        self.next_read(i).then_some(End::Done).or(Some(End::Later))
    }

    fn read_multiple(&mut self, i: &DriveInfo, wide: bool) -> Option<End> {
        if self.multiple == 0 {
            return None;
        }
        self.read_pio(i, wide, self.multiple.into())
    }

    /// The next block of a read, or its end; whether that interrupts.
    pub(super) fn next_read(&mut self, i: &DriveInfo) -> bool {
        self.status = status::DRDY | status::DSC;
        self.error = 0;
        if self.left == 0 {
            self.stop();
            return false;
        }
        let n = self.left.min(self.block);
        if !self.in_range(i, n) {
            self.abort();
            return true;
        }
        self.status |= status::BSY;
        self.job = Some(Job::Read { at: self.sector() * SECTOR, len: u64::from(n) * SECTOR });
        false
    }

    fn write_pio(&mut self, i: &DriveInfo, wide: bool, block: u32) -> Option<End> {
        self.take_count(wide);
        self.block = block;
        let n = self.left.min(block);
        if !self.in_range(i, n) {
            return None;
        }
        self.error = 0;
        self.status = status::DRDY | status::DSC;
        self.transfer(n as usize * SECTOR as usize, Then::Store);
        Some(End::Later)
    }

    fn write_multiple(&mut self, i: &DriveInfo, wide: bool) -> Option<End> {
        if self.multiple == 0 {
            return None;
        }
        self.write_pio(i, wide, self.multiple.into())
    }

    fn dma(&mut self, i: &DriveInfo, wide: bool, read: bool) -> Option<End> {
        self.take_count(wide);
        if !self.in_range(i, self.left) {
            return None;
        }
        self.status = status::DRDY | status::DSC | status::DRQ;
        let (at, len) = (self.sector() * SECTOR, u64::from(self.left) * SECTOR);
        self.job = Some(if read { Job::DmaRead { at, len, done: 0 } } else { Job::DmaWrite { at, len, done: 0 } });
        Some(End::Later)
    }

    /// READ LOG EXT: the log of the queued command that failed last, ATA8-ACS annex A; there is no other.
    fn read_log(&mut self) -> Option<End> {
        let [_, count, _, page, _] = self.hob;
        if (self.lba_low, self.lba_mid, page) != (QUEUED_ERROR_LOG, 0, 0) || (self.nsector, count) != (1, 0) {
            return None;
        }
        let mut log = vec![NO_QUEUED_ERROR];
        if let Some(e) = self.queued_error.take() {
            let [l0, l1, l2, l3, l4, l5, ..] = e.sector.to_le_bytes();
            let [c0, c1] = e.count.to_le_bytes();
            log = vec![e.tag, 0, e.status, e.error, l0, l1, l2, LBA, l3, l4, l5, 0, c0, c1];
        }
        Some(self.log_data(log))
    }

    fn verify(&mut self, i: &DriveInfo, wide: bool) -> Option<End> {
        self.take_count(wide);
        self.in_range(i, self.left).then_some(End::Seek)
    }

    /// DATA SET MANAGEMENT: only TRIM.
    fn trim(&mut self, i: &DriveInfo) -> Option<End> {
        let blocks = u64::from(self.nsector);
        if self.feature & 1 == 0 || !i.discard {
            return None;
        }
        self.status = status::DRDY | status::DSC | status::DRQ;
        self.job = Some(Job::Trim { len: if blocks == 0 { 256 } else { blocks } * SECTOR });
        Some(End::Later)
    }

    fn set_features(&mut self, i: &DriveInfo) -> Option<End> {
        if i.sectors == 0 && i.kind == Kind::Hd {
            return None;
        }
        match self.feature {
            // (The controller switches the write cache.) What it held when it is switched off must be stable.
            0x82 if i.kind == Kind::Hd => {
                self.job = Some(Job::Flush);
                Some(End::Later)
            }
            0x02 | 0x82 => Some(End::Seek),
            // power management, acoustic management, look-ahead, reverting: accepted
            0x05 | 0x42 | 0x55 | 0x66 | 0x69 | 0x67 | 0x85 | 0x96 | 0x9a | 0xaa | 0xc2 | 0xcc => Some(End::Seek),
            // transfer mode
            0x03 => {
                let bit = 1u16 << (self.nsector & 7) << 8;
                match self.nsector >> 3 {
                    0 | 1 => (self.mdma, self.udma) = (0, 0),
                    // single word: nothing remembers it
                    2 => (self.mdma, self.udma) = (0, 0),
                    4 => (self.mdma, self.udma) = (bit, 0),
                    8 => (self.mdma, self.udma) = (0, bit),
                    _ => return None,
                }
                Some(End::Seek)
            }
            _ => None,
        }
    }

    /// A job of a disk has ended well; `data` is what was read. Whether that interrupts.
    pub fn job_done(&mut self, i: &DriveInfo, job: &Job, data: Vec<u8>) -> bool {
        self.status &= !status::BSY;
        match *job {
            Job::Read { len, .. } if i.kind == Kind::Cd => {
                self.sectors_read(data, len);
                self.reply_block()
            }
            Job::Read { len, .. } => {
                let n = (len / SECTOR) as u32;
                self.set_sector(self.sector().wrapping_add(n.into()));
                self.left = self.left.saturating_sub(n);
                self.count_left();
                self.buffer = data;
                self.pos = 0;
                self.transfer(len as usize, Then::MoreRead);
                true
            }
            Job::Write { len, .. } => {
                let n = (len / SECTOR) as u32;
                self.set_sector(self.sector().wrapping_add(n.into()));
                self.left = self.left.saturating_sub(n);
                self.count_left();
                self.status = status::DRDY | status::DSC;
                self.pos = 0;
                if self.left == 0 {
                    self.stop();
                } else if self.in_range(i, self.left.min(self.block)) {
                    self.transfer(self.left.min(self.block) as usize * SECTOR as usize, Then::Store);
                } else {
                    self.abort();
                }
                true
            }
            Job::DmaRead { .. } | Job::DmaReply if i.kind == Kind::Cd => self.packet_ok(),
            Job::DmaRead { len, .. } | Job::DmaWrite { len, .. } => {
                self.set_sector(self.sector().wrapping_add(len / SECTOR));
                self.left = 0;
                self.count_left();
                self.status = status::DRDY | status::DSC;
                true
            }
            Job::Flush | Job::Trim { .. } | Job::DmaReply => {
                self.status = status::DRDY | status::DSC;
                true
            }
        }
    }

    /// A job failed on the host; whether that interrupts.
    pub fn job_failed(&mut self, i: &DriveInfo, job: &Job) -> bool {
        if i.kind == Kind::Cd && job.reads() {
            return self.packet_read_failed();
        }
        self.abort();
        if matches!(job, Job::DmaRead { .. }) {
            self.error |= error::UNC;
        }
        true
    }

    /// The bus master's table ended before the command did: it ends quietly.
    pub fn table_too_short(&mut self) {
        self.status = status::DRDY | status::DSC;
        self.left = 0;
    }

    // ---- SMART ----

    fn smart(&mut self, i: &DriveInfo) -> Option<End> {
        if (self.lba_mid, self.lba_high) != SMART_KEY || !self.smart_enabled && self.feature != 0xd8 {
            return None;
        }
        match self.feature {
            0xd0 => Some(self.log_data(smart_values(i))),
            0xd1 => Some(self.log_data(smart_thresholds())),
            0xd2 => {
                match self.nsector {
                    0x00 => self.smart_autosave = false,
                    0xf1 => self.smart_autosave = true,
                    _ => return None,
                }
                Some(End::Seek)
            }
            0xd4 => self.smart_test(),
            0xd5 => self.smart_log(),
            0xd8 => {
                self.smart_enabled = true;
                Some(End::Seek)
            }
            0xd9 => {
                self.smart_enabled = false;
                Some(End::Seek)
            }
            // RETURN STATUS
            0xda => {
                (self.lba_mid, self.lba_high) = if self.smart_errors == 0 { SMART_KEY } else { (0xf4, 0x2c) };
                Some(End::Seek)
            }
            _ => None,
        }
    }

    fn log_data(&mut self, mut data: Vec<u8>) -> End {
        data.resize(511, 0);
        let sum = data.iter().fold(0u8, |s, b| s.wrapping_add(*b));
        data.push(sum.wrapping_neg());
        self.status = status::DRDY | status::DSC;
        self.send(data);
        End::Done
    }

    /// EXECUTE OFF-LINE IMMEDIATE: every test ends at once and well.
    fn smart_test(&mut self) -> Option<End> {
        match self.lba_low {
            0..=2 | 0x81 | 0x82 => {}
            _ => return None,
        }
        self.smart_tests.push(self.lba_low);
        if self.smart_tests.len() > 21 {
            self.smart_tests.remove(0);
        }
        Some(End::Seek)
    }

    fn smart_log(&mut self) -> Option<End> {
        let mut log = vec![0u8; 511];
        match self.lba_low {
            // summary error log: one revision byte
            0x01 => log.splice(..2, [1, 0]).for_each(drop),
            // self-test log: descriptors of 24 bytes, then which is the last
            0x06 => {
                log.splice(..2, [1, 0]).for_each(drop);
                for (n, kind) in self.smart_tests.iter().enumerate() {
                    let at = 2 + 24 * n;
                    log.splice(at..at + 4, [*kind, 0, 0x34, 0x12]).for_each(drop);
                }
                log.splice(508..509, [self.smart_tests.len() as u8]).for_each(drop);
            }
            _ => return None,
        }
        Some(self.log_data(log))
    }
}

/// Attributes: id, flags, value and worst, raw value, threshold.
const ATTRIBUTES: &[(u8, u8, u8, u8, u8)] = &[
    (0x01, 0x03, 0x64, 0x00, 0x06), // raw read error rate
    (0x03, 0x03, 0x64, 0x00, 0x00), // spin up time
    (0x04, 0x02, 0x64, 0x64, 0x14), // start and stop count
    (0x05, 0x03, 0x64, 0x00, 0x24), // reallocated sectors
    (0x09, 0x03, 0x64, 0x01, 0x00), // power-on hours
    (0x0c, 0x03, 0x64, 0x00, 0x00), // power cycles
    (0xbe, 0x03, 0x45, 0x1f, 0x32), // airflow temperature
];

fn smart_values(_: &DriveInfo) -> Vec<u8> {
    let mut d = vec![1, 0];
    for (id, flags, value, raw, _) in ATTRIBUTES {
        d.extend([*id, *flags, 0, *value, *value, *raw, 0, 0, 0, 0, 0, 0]);
    }
    d.resize(362, 0);
    d.extend([0x02, 0, 0x20, 0x01, 0, 0x1b, 0x03, 0, 0x01, 0]); // off-line status, seconds, capabilities
    d.extend([2, 54]); // minutes of the self-tests
    d
}

fn smart_thresholds() -> Vec<u8> {
    let mut d = vec![1, 0];
    for (id, _, _, _, threshold) in ATTRIBUTES {
        d.extend([*id, *threshold, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    d
}
