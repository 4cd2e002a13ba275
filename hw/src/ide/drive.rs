//! A drive's registers: command block, transfers by the data register, and the job it has with its image.
//! Source: ATA/ATAPI-7 volume 1 §5 (registers) and volume 2 §9 (protocols). Commands: [`super::ata`], [`super::atapi`].

use super::atapi::Cd;
use block::CHUNK;
use serde::{Deserialize, Serialize};

/// Bytes of an ATA sector.
pub const SECTOR: u64 = 512;
/// Bytes of a CD's sector.
pub const CD_SECTOR: u64 = 2048;

/// Status register.
pub mod status {
    /// Error.
    pub const ERR: u8 = 0x01;
    /// Data request.
    pub const DRQ: u8 = 0x08;
    /// Seek complete, service.
    pub const DSC: u8 = 0x10;
    /// Ready.
    pub const DRDY: u8 = 0x40;
    /// Busy: no other bit means anything.
    pub const BSY: u8 = 0x80;
}

/// Error register.
pub mod error {
    /// Aborted.
    pub const ABRT: u8 = 0x04;
    /// Uncorrectable data.
    pub const UNC: u8 = 0x40;
}

/// Device register: LBA instead of cylinder, head and sector.
pub const LBA: u8 = 0x40;

/// What a drive is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A disk.
    #[default]
    Hd,
    /// A CD drive.
    Cd,
}

/// What a drive is made of: no state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DriveInfo {
    /// Disk or CD drive.
    pub kind: Kind,
    /// 512-byte sectors of the medium; 0: there is none.
    pub sectors: u64,
    /// Cylinders, heads, sectors per track.
    pub chs: (u32, u32, u32),
    /// Serial number.
    pub serial: String,
    /// Model.
    pub model: String,
    /// Firmware revision.
    pub version: String,
    /// World wide name; 0: none.
    pub wwn: u64,
    /// Word 217; 0: not reported.
    pub rotation_rate: u16,
    /// Writes are refused.
    pub read_only: bool,
    /// Writes are acknowledged before they are stable.
    pub write_cache: bool,
    /// TRIM reaches the host.
    pub discard: bool,
    /// Logical sectors per physical one, as a power of two.
    pub physical_exponent: u16,
    /// Commands that can be queued; 0: it knows no queued commands.
    pub queue_depth: u8,
}

impl DriveInfo {
    /// 2048-byte sectors of a CD.
    pub fn cd_sectors(&self) -> u64 {
        self.sectors / (CD_SECTOR / SECTOR)
    }
}

/// Work with the image; the drive is busy until it is done. Addresses are bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Job {
    /// Reads for the data register.
    Read {
        /// Where.
        at: u64,
        /// Bytes.
        len: u64,
    },
    /// Writes what came through the data register.
    Write {
        /// Where.
        at: u64,
        /// Bytes.
        len: u64,
    },
    /// Copies from the image to guest memory.
    DmaRead {
        /// Where.
        at: u64,
        /// Bytes in all.
        len: u64,
        /// Bytes done.
        done: u64,
    },
    /// Copies from guest memory to the image.
    DmaWrite {
        /// Where.
        at: u64,
        /// Bytes in all.
        len: u64,
        /// Bytes done.
        done: u64,
    },
    /// Copies the buffer to guest memory.
    DmaReply,
    /// Discards the ranges listed in guest memory.
    Trim {
        /// Bytes of the list.
        len: u64,
    },
    /// Makes writes stable.
    Flush,
}

impl Job {
    /// Whether it needs the bus master.
    pub fn is_dma(&self) -> bool {
        matches!(self, Self::DmaRead { .. } | Self::DmaWrite { .. } | Self::DmaReply | Self::Trim { .. })
    }

    /// Bytes that have been moved.
    pub fn done(&self) -> u64 {
        match self {
            Self::DmaRead { done, .. } | Self::DmaWrite { done, .. } => *done,
            _ => 0,
        }
    }

    /// Whether a failure of it is a failed read.
    pub fn reads(&self) -> bool {
        matches!(self, Self::Read { .. } | Self::DmaRead { .. } | Self::DmaReply)
    }
}

/// What happens when the data register has moved a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Then {
    /// Nothing more.
    #[default]
    Stop,
    /// The next block of a read.
    MoreRead,
    /// The block is written.
    Store,
    /// A packet has arrived.
    Packet,
    /// The next block of a packet's reply.
    MoreReply,
}

/// A block that the data register moves now, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// From the drive.
    In(u64),
    /// To the drive.
    Out(u64),
    /// To the drive, and a packet.
    Packet(u64),
}

impl Block {
    /// Bytes.
    pub fn bytes(self) -> u64 {
        let (Self::In(n) | Self::Out(n) | Self::Packet(n)) = self;
        n
    }
}

/// A queued command that failed, as the log of queued errors tells it. ATA8-ACS annex A (log 10H)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedError {
    /// Tag of the command.
    pub tag: u8,
    /// Status and error at its end.
    pub status: u8,
    /// Error.
    pub error: u8,
    /// Its first sector.
    pub sector: u64,
    /// Its sectors; 0 for 65536.
    pub count: u16,
}

/// All that the guest can observe of a drive and a snapshot must keep.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DriveRegs {
    pub(super) feature: u8,
    pub(super) error: u8,
    /// Sector count; of a packet device the interrupt reason.
    pub(super) nsector: u8,
    pub(super) lba_low: u8,
    pub(super) lba_mid: u8,
    pub(super) lba_high: u8,
    /// Device register.
    pub(super) select: u8,
    pub(super) status: u8,
    /// Previous contents of feature, count and the three address registers (LBA48).
    pub(super) hob: [u8; 5],
    /// Sectors the command has still to do.
    pub(super) left: u32,
    /// The address of the command is one of 48 bits.
    pub(super) lba48: bool,
    /// Sectors of a block of the command.
    pub(super) block: u32,
    /// SET MULTIPLE MODE.
    pub(super) multiple: u8,
    /// INITIALIZE DEVICE PARAMETERS.
    pub(super) heads: u8,
    pub(super) sectors_per_track: u8,
    /// Selected modes: high bytes of words 63 and 88.
    pub(super) mdma: u16,
    pub(super) udma: u16,
    pub(super) smart_enabled: bool,
    pub(super) smart_autosave: bool,
    pub(super) smart_errors: u8,
    /// Ring of self-test results: kind, and how it ended.
    pub(super) smart_tests: Vec<u8>,
    /// Writes are acknowledged before they are stable: what the backend does is part of the drive's state.
    pub(super) write_cache: bool,
    /// What the data register reads or fills, between `pos` and `end`.
    pub(super) buffer: Vec<u8>,
    pub(super) pos: usize,
    pub(super) end: usize,
    pub(super) then: Then,
    pub(super) job: Option<Job>,
    /// The queued command that failed last.
    pub(super) queued_error: Option<QueuedError>,
    pub(super) cd: Cd,
}

impl DriveRegs {
    /// State after power on or a hardware reset.
    pub fn power_on(i: &DriveInfo, cd: Cd) -> Self {
        let mut r = Self {
            multiple: super::identify::MAX_MULTIPLE,
            heads: i.chs.1 as u8,
            sectors_per_track: i.chs.2 as u8,
            udma: 1 << 13,
            smart_enabled: true,
            smart_autosave: true,
            cd: cd.after_reset(),
            ..Self::default()
        };
        r.soft_reset(i);
        r.error = 0;
        r.status = status::DRDY | status::DSC;
        r
    }

    /// SRST, DEVICE RESET, EXECUTE DEVICE DIAGNOSTIC: the signature stands in the registers.
    pub fn soft_reset(&mut self, i: &DriveInfo) {
        self.stop();
        self.job = None;
        self.buffer.clear();
        self.feature = 0;
        self.hob = [0; 5];
        self.lba48 = false;
        self.select = 0xa0;
        self.cd = std::mem::take(&mut self.cd).after_reset();
        self.signature(i);
        self.error = 1; // diagnostic code: passed
        self.status = if i.kind == Kind::Cd { 0 } else { status::DRDY | status::DSC };
    }

    /// What tells disks from packet devices (ATA/ATAPI-7 §6.8).
    pub(super) fn signature(&mut self, i: &DriveInfo) {
        self.select &= 0xf0;
        (self.nsector, self.lba_low) = (1, 1);
        (self.lba_mid, self.lba_high) = if i.kind == Kind::Cd { (0x14, 0xeb) } else { (0, 0) };
    }

    /// Reads register 1 to 6. `high`: HOB of the control register.
    pub fn read(&self, register: u64, high: bool) -> u8 {
        let [feature, nsector, low, mid, top] = self.hob;
        match (register, high) {
            (1, false) => self.error,
            (1, true) => feature,
            (2, false) => self.nsector,
            (2, true) => nsector,
            (3, false) => self.lba_low,
            (3, true) => low,
            (4, false) => self.lba_mid,
            (4, true) => mid,
            (5, false) => self.lba_high,
            (5, true) => top,
            (6, _) => self.select,
            _ => 0xff,
        }
    }

    /// Writes register 1 to 6; of 1 to 5 the previous contents are kept.
    pub fn write(&mut self, register: u64, val: u8) {
        let [feature, nsector, low, mid, top] = &mut self.hob;
        let (old, now) = match register {
            1 => (feature, &mut self.feature),
            2 => (nsector, &mut self.nsector),
            3 => (low, &mut self.lba_low),
            4 => (mid, &mut self.lba_mid),
            5 => (top, &mut self.lba_high),
            6 => {
                self.select = val | 0xa0;
                return;
            }
            _ => return,
        };
        *old = std::mem::replace(now, val);
    }

    /// The feature register as it was written.
    pub fn read_feature(&self) -> u8 {
        self.feature
    }

    /// Whether the last command ended well.
    pub fn has_no_error(&self) -> bool {
        self.status & status::ERR == 0
    }

    /// Whether the command block takes writes.
    pub fn is_idle(&self) -> bool {
        self.status & (status::BSY | status::DRQ) == 0
    }

    /// The status register.
    pub fn status(&self) -> u8 {
        self.status
    }

    /// The device register says "LBA".
    pub(super) fn is_lba(&self) -> bool {
        self.select & LBA != 0
    }

    /// Sector that the registers name, in their form.
    pub(super) fn sector(&self) -> u64 {
        let [_, _, low, mid, top] = self.hob.map(u64::from);
        let (l, m, h) = (u64::from(self.lba_low), u64::from(self.lba_mid), u64::from(self.lba_high));
        let head = u64::from(self.select & 0x0f);
        match (self.is_lba(), self.lba48) {
            (true, true) => top << 40 | mid << 32 | low << 24 | h << 16 | m << 8 | l,
            (true, false) => head << 24 | h << 16 | m << 8 | l,
            (false, _) => {
                let track = (h << 8 | m) * u64::from(self.heads) + head;
                (track * u64::from(self.sectors_per_track) + l).wrapping_sub(1)
            }
        }
    }

    /// Puts a sector's address into the registers.
    pub(super) fn set_sector(&mut self, sector: u64) {
        match (self.is_lba(), self.lba48) {
            (true, wide) => {
                self.lba_low = sector as u8;
                self.lba_mid = (sector >> 8) as u8;
                self.lba_high = (sector >> 16) as u8;
                if wide {
                    let [_, _, low, mid, top] = &mut self.hob;
                    (*low, *mid, *top) = ((sector >> 24) as u8, (sector >> 32) as u8, (sector >> 40) as u8);
                } else {
                    self.select = self.select & 0xf0 | (sector >> 24) as u8 & 0x0f;
                }
            }
            (false, _) => {
                let (heads, secs) = (u64::from(self.heads.max(1)), u64::from(self.sectors_per_track.max(1)));
                let cyl = sector / (heads * secs);
                let r = sector % (heads * secs);
                self.lba_mid = cyl as u8;
                self.lba_high = (cyl >> 8) as u8;
                self.select = self.select & 0xf0 | (r / secs) as u8 & 0x0f;
                self.lba_low = (r % secs) as u8 + 1;
            }
        }
    }

    // ---- the data register ----

    /// Ends a transfer.
    pub(super) fn stop(&mut self) {
        self.then = Then::Stop;
        (self.pos, self.end) = (0, 0);
        self.status &= !status::DRQ;
    }

    /// The data register moves `len` bytes of the buffer from `pos` on.
    pub(super) fn transfer(&mut self, len: usize, then: Then) {
        self.end = self.pos + len;
        if self.buffer.len() < self.end {
            self.buffer.resize(self.end, 0);
        }
        self.then = then;
        if self.status & status::ERR == 0 {
            self.status |= status::DRQ;
        }
    }

    /// Sends `data` through the data register: all of it as one block.
    pub(super) fn send(&mut self, data: Vec<u8>) {
        self.buffer = data;
        self.pos = 0;
        self.transfer(self.buffer.len(), Then::Stop);
    }

    /// Whether the guest may read the data register.
    fn reads(&self) -> bool {
        self.status & status::DRQ != 0 && matches!(self.then, Then::Stop | Then::MoreRead | Then::MoreReply)
    }

    /// Reads `size` bytes (1, 2 or 4); whether the block is over.
    pub fn data_read(&mut self, size: usize) -> (u32, bool) {
        if !self.reads() || self.pos >= self.end {
            return (0, false);
        }
        // The last access of a block whose length is odd gets zeros after it.
        let size = size.min(self.end - self.pos);
        let mut bytes = [0; 4];
        for (to, from) in bytes.iter_mut().zip(self.buffer.iter().skip(self.pos).take(size)) {
            *to = *from;
        }
        self.pos += size;
        (u32::from_le_bytes(bytes), self.pos >= self.end)
    }

    /// Writes `size` bytes; whether the block is over.
    pub fn data_write(&mut self, size: usize, val: u32) -> bool {
        let writes = self.status & status::DRQ != 0 && matches!(self.then, Then::Store | Then::Packet);
        if !writes || self.pos + size > self.end {
            return false;
        }
        for (to, from) in self.buffer.iter_mut().skip(self.pos).take(size).zip(val.to_le_bytes()) {
            *to = from;
        }
        self.pos += size;
        self.pos >= self.end
    }

    /// The block that is to be moved now: all at once, by a controller that does so.
    pub(super) fn block(&self) -> Option<Block> {
        let len = (self.end.saturating_sub(self.pos)) as u64;
        let now = self.status & status::DRQ != 0 && self.job.is_none();
        now.then_some(match self.then {
            Then::Packet => Block::Packet(len),
            Then::Store => Block::Out(len),
            Then::Stop | Then::MoreRead | Then::MoreReply => Block::In(len),
        })
    }

    /// Takes the block that is to be moved.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let data = self.buffer.get(self.pos..self.end).unwrap_or_default().to_vec();
        self.pos = self.end;
        data
    }

    /// Fills the block that is to be moved.
    pub(super) fn fill(&mut self, data: &[u8]) {
        self.buffer.iter_mut().take(self.end).skip(self.pos).zip(data).for_each(|(to, from)| *to = *from);
        self.pos = self.end;
    }

    /// A block of the data register is over: what follows; whether that interrupts.
    pub fn block_over(&mut self, i: &DriveInfo) -> bool {
        self.status &= !status::DRQ;
        match self.then {
            Then::Stop => {
                self.stop();
                false
            }
            Then::MoreRead => self.next_read(i),
            Then::Store => {
                let len = self.pos as u64;
                self.job = Some(Job::Write { at: self.sector().wrapping_mul(SECTOR), len });
                self.status |= status::BSY;
                false
            }
            Then::Packet => self.packet(i),
            Then::MoreReply => self.reply_block(),
        }
    }

    /// Rejects what a drive cannot hold.
    ///
    /// # Errors
    /// A transfer outside the buffer, or a buffer larger than any command's.
    pub fn check(&self) -> Result<(), String> {
        let ok = self.pos <= self.end && self.end <= self.buffer.len() && self.buffer.len() as u64 <= 2 * CHUNK;
        let job = match self.job {
            Some(Job::Read { len, .. }) => len <= CHUNK,
            Some(Job::Write { len, .. }) => len <= self.buffer.len() as u64,
            Some(Job::DmaRead { len, done, .. } | Job::DmaWrite { len, done, .. }) => done <= len,
            _ => true,
        };
        let replies = self.then == Then::MoreReply || matches!(self.job, Some(Job::Read { .. }));
        let reply = !replies || self.cd.has_reply(self.buffer.len().saturating_sub(self.pos) as u64);
        let modes = self.multiple <= super::identify::MAX_MULTIPLE && self.smart_tests.len() <= 21;
        if ok && job && reply && modes { Ok(()) } else { Err("IDE drive: impossible state".into()) }
    }
}
