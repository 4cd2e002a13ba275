//! Packet commands of CD drives. Source: SFF-8020i and MMC-3 (commands), ATA/ATAPI-7 volume 2 §9.9 (packet protocol). What the drive
//! says of tray and medium: [`crate::scsi::mmc`]. DVD structures are not there: illegal operation code.

use super::drive::{CD_SECTOR, DriveInfo, DriveRegs, Job, Then, status};
use crate::scsi::cdb::{Cdb, op};
use crate::scsi::mmc::{self, Tray};
use crate::scsi::sense::{Sense, key};
use block::CHUNK;
use serde::{Deserialize, Serialize};

/// Bytes of a packet.
const PACKET: usize = 12;
/// Sectors read ahead of the blocks of one reply.
const AHEAD: u64 = 64;

/// Interrupt reason, in the sector count register.
mod reason {
    pub const CD: u8 = 1;
    pub const IO: u8 = 2;
    pub const ALL: u8 = 7;
}

/// Additional sense code: medium removal prevented, whatever the qualifier.
const REMOVAL_PREVENTED: u8 = 0x53;

/// How a new medium is announced: first as none, then as changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Change {
    #[default]
    None,
    New,
    ShownAbsent,
}

/// State of a packet device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cd {
    sense_key: u8,
    asc: u8,
    /// Bytes of the reply that have still to be moved.
    left: u64,
    /// Next sector to read, and how many.
    lba: u64,
    sectors_left: u64,
    /// The reply goes by the bus master.
    dma: bool,
    tray: Tray,
    change: Change,
}

impl Cd {
    /// A reset forgets everything but the tray.
    pub(super) fn after_reset(self) -> Self {
        Self { tray: self.tray.after_reset(), ..Self::default() }
    }

    /// Whether what has still to be moved of a reply is there: `have` bytes in the buffer, the rest on the medium.
    pub(super) fn has_reply(&self, have: u64) -> bool {
        self.left <= self.sectors_left.saturating_mul(CD_SECTOR).saturating_add(have)
    }

    /// Whether the tray is open, and locked by the guest.
    pub fn tray(&self) -> (bool, bool) {
        (self.tray.open, self.tray.locked)
    }

    /// The tray moves.
    pub fn set_tray(&mut self, open: bool) {
        self.tray.open = open;
    }

    /// Somebody pressed the button of a locked tray.
    pub fn wish_to_eject(&mut self) {
        self.tray.wish_to_eject();
    }

    /// There is another medium, or none.
    pub fn medium_changed(&mut self) {
        self.change = Change::New;
        self.tray.medium_changed();
    }
}

/// A packet command's properties.
struct Command {
    /// Heard in spite of a unit attention.
    attention: bool,
    /// Needs a medium.
    ready: bool,
    /// Moves no data.
    plain: bool,
}

/// The commands there are.
fn properties(code: u8) -> Option<Command> {
    let (attention, ready, plain) = match code {
        0x00 | 0x2b => (false, true, true),
        0x03 | 0x12 | 0x46 | 0x4a => (true, false, false),
        0x1b | 0x1e | 0xbb => (false, false, true),
        0x25 | 0x28 | 0x43 | 0x51 | 0xa8 | 0xbe => (false, true, false),
        0x5a | 0xbd => (false, false, false),
        _ => return None,
    };
    Some(Command { attention, ready, plain })
}

/// What a packet command comes to.
enum Reply {
    Ok,
    Data(Vec<u8>),
    /// Sectors: first, and how many.
    Read(u64, u64),
    Error(Sense),
}

const INVALID: Reply = Reply::Error(Sense::INVALID_FIELD);

/// At most `max` bytes of a reply.
fn at_most(mut data: Vec<u8>, max: usize) -> Reply {
    data.truncate(max);
    if data.is_empty() { Reply::Ok } else { Reply::Data(data) }
}

/// At most `max` bytes of a reply, or why there is none.
fn answer(data: Result<Vec<u8>, Sense>, max: usize) -> Reply {
    data.map_or_else(Reply::Error, |data| at_most(data, max))
}

impl DriveRegs {
    /// PACKET is written: the drive waits for one. False: overlap is asked for, which there is not.
    pub(super) fn begin_packet(&mut self) -> bool {
        if self.feature & 0x02 != 0 {
            return false;
        }
        self.status = status::DRDY | status::DSC;
        self.cd.dma = self.feature & 1 != 0;
        self.nsector = 1;
        self.buffer.clear();
        self.pos = 0;
        self.transfer(PACKET, Then::Packet);
        true
    }

    fn has_medium(&self, i: &DriveInfo) -> bool {
        !self.cd.tray.open && i.sectors > 0
    }

    /// A packet has arrived; whether that interrupts.
    pub(super) fn packet(&mut self, i: &DriveInfo) -> bool {
        let mut bytes = [0; PACKET];
        bytes.iter_mut().zip(&self.buffer).for_each(|(to, from)| *to = *from);
        let p = Cdb::new(&bytes);
        self.pos = 0;
        let known = properties(p.byte(0));
        let attention = known.as_ref().is_some_and(|c| c.attention);
        if self.cd.sense_key == key::UNIT_ATTENTION && !attention {
            return self.packet_attention();
        }
        if !attention && self.has_medium(i) && self.cd.change != Change::None {
            let (next, sense) = match self.cd.change {
                Change::New => (Change::ShownAbsent, Sense::NO_MEDIUM),
                _ => (Change::None, Sense::MEDIUM_CHANGED),
            };
            self.cd.change = next;
            return self.packet_error(sense);
        }
        let Some(c) = known else { return self.packet_error(Sense::INVALID_OPCODE) };
        if c.ready && !self.has_medium(i) {
            return self.packet_error(Sense::NO_MEDIUM);
        }
        if !c.plain && !self.cd.dma && self.limit() == 0 {
            self.abort();
            return true;
        }
        match self.packet_command(i, &p) {
            Reply::Ok => self.packet_ok(),
            Reply::Error(sense) => self.packet_error(sense),
            Reply::Data(data) => self.reply(data),
            Reply::Read(lba, n) => self.reply_sectors(lba, n),
        }
    }

    fn packet_command(&mut self, i: &DriveInfo, p: &Cdb) -> Reply {
        let total = i.cd_sectors();
        match p.code() {
            op::REQUEST_SENSE => self.request_sense(p),
            op::INQUIRY => inquiry(i, p),
            op::START_STOP_UNIT => self.start_stop(i, p),
            op::PREVENT_ALLOW => {
                self.cd.tray.prevent(p);
                Reply::Ok
            }
            op::READ_CAPACITY_10 => {
                let last = (total.saturating_sub(1)) as u32;
                at_most([last.to_be_bytes(), (CD_SECTOR as u32).to_be_bytes()].concat(), usize::MAX)
            }
            op::READ_10 | op::READ_12 => read(p.lba(), p.blocks(), total),
            op::SEEK_10 if p.lba() >= total => Reply::Error(Sense::LBA_OUT_OF_RANGE),
            op::READ_TOC => answer(mmc::read_toc(p, total), p.be16(7)),
            op::GET_CONFIGURATION => {
                let medium = self.has_medium(i).then_some(total);
                answer(mmc::configuration(p, medium), p.be16(7))
            }
            op::GET_EVENT_STATUS => answer(self.cd.tray.events(p, i.sectors > 0), p.be16(7)),
            op::READ_DISC_INFORMATION => answer(mmc::disc_information(p), p.be16(7)),
            op::MODE_SENSE_10 => self.mode_sense(p),
            op::MECHANISM_STATUS => at_most(mmc::mechanism_status(), p.be16(8)),
            op::READ_CD => match mmc::read_cd_wants_data(p) {
                Some(false) => Reply::Ok,
                Some(true) => read(p.lba(), p.be24(6), total),
                None => INVALID,
            },
            // TEST UNIT READY, SEEK, SET CD SPEED
            _ => Reply::Ok,
        }
    }

    // ---- ends ----

    fn reason(&mut self, bits: u8) {
        self.nsector = self.nsector & !reason::ALL | bits;
    }

    /// The command has ended well. It interrupts.
    pub(super) fn packet_ok(&mut self) -> bool {
        self.error = 0;
        self.stop();
        self.status = status::DRDY | status::DSC;
        self.reason(reason::IO | reason::CD);
        self.buffer.clear();
        true
    }

    fn packet_error(&mut self, sense: Sense) -> bool {
        self.stop();
        self.error = sense.key << 4;
        self.status = status::DRDY | status::ERR;
        self.reason(reason::IO | reason::CD);
        (self.cd.sense_key, self.cd.asc) = (sense.key, sense.asc);
        self.buffer.clear();
        true
    }

    fn packet_attention(&mut self) -> bool {
        self.stop();
        self.error = 0x20 | key::UNIT_ATTENTION << 4;
        self.status = status::ERR;
        self.nsector = 0;
        true
    }

    /// The host could not read the image.
    pub(super) fn packet_read_failed(&mut self) -> bool {
        self.packet_error(Sense::READ_ERROR)
    }

    // ---- replies ----

    /// BYTE COUNT as the host set it.
    fn limit(&self) -> u64 {
        u64::from(self.lba_high) << 8 | u64::from(self.lba_mid)
    }

    fn reply(&mut self, data: Vec<u8>) -> bool {
        self.cd.left = data.len() as u64;
        self.cd.sectors_left = 0;
        self.buffer = data;
        self.pos = 0;
        if self.cd.dma {
            // (The packet is over: the data register moves nothing.)
            self.stop();
            self.status = status::DRDY | status::DSC | status::DRQ;
            self.job = Some(Job::DmaReply);
            return false;
        }
        self.reply_block()
    }

    fn reply_sectors(&mut self, lba: u64, n: u64) -> bool {
        self.buffer.clear();
        self.pos = 0;
        if self.cd.dma {
            self.stop();
            self.status = status::DRDY | status::DSC | status::DRQ;
            self.job = Some(Job::DmaRead { at: lba * CD_SECTOR, len: n * CD_SECTOR, done: 0 });
            return false;
        }
        (self.cd.lba, self.cd.sectors_left, self.cd.left) = (lba, n, n * CD_SECTOR);
        self.reply_block()
    }

    /// The next block of the reply, reading sectors where it needs them; whether that interrupts.
    pub(super) fn reply_block(&mut self) -> bool {
        if self.cd.left == 0 {
            return self.packet_ok();
        }
        let limit = match self.limit() {
            0xffff => 0xfffe,
            n => n,
        };
        // A block that is not the last is even.
        let size = if self.cd.left > limit { limit & !1 } else { self.cd.left }.max(1);
        let have = self.buffer.len().saturating_sub(self.pos) as u64;
        if have < size && self.cd.sectors_left > 0 {
            let n = self.cd.sectors_left.min(AHEAD).min(CHUNK / CD_SECTOR);
            self.job = Some(Job::Read { at: self.cd.lba * CD_SECTOR, len: n * CD_SECTOR });
            self.status = status::DRDY | status::DSC | status::BSY;
            return false;
        }
        self.status = status::DRDY | status::DSC;
        self.reason(reason::IO);
        [self.lba_mid, self.lba_high] = (size as u16).to_le_bytes();
        self.cd.left -= size;
        self.transfer(size as usize, Then::MoreReply);
        true
    }

    /// Sectors for the reply have been read.
    pub(super) fn sectors_read(&mut self, data: Vec<u8>, len: u64) {
        self.buffer.drain(..self.pos.min(self.buffer.len()));
        self.pos = 0;
        self.buffer.extend(data);
        let n = len / CD_SECTOR;
        self.cd.lba += n;
        self.cd.sectors_left = self.cd.sectors_left.saturating_sub(n);
    }

    // ---- commands ----

    fn request_sense(&mut self, p: &Cdb) -> Reply {
        let mut d = vec![0; 18];
        d.splice(0..1, [0xf0]).for_each(drop);
        d.splice(2..3, [self.cd.sense_key]).for_each(drop);
        d.splice(7..8, [10]).for_each(drop);
        d.splice(12..13, [self.cd.asc]).for_each(drop);
        if self.cd.sense_key == key::UNIT_ATTENTION {
            self.cd.sense_key = 0;
        }
        at_most(d, p.byte(4).into())
    }

    fn start_stop(&mut self, i: &DriveInfo, p: &Cdb) -> Reply {
        if self.cd.tray.start_stop(p) {
            return Reply::Ok;
        }
        let key = if i.sectors > 0 { key::NOT_READY } else { key::ILLEGAL_REQUEST };
        Reply::Error(Sense { key, asc: REMOVAL_PREVENTED, ascq: 0 })
    }

    fn mode_sense(&self, p: &Cdb) -> Reply {
        let page: Vec<u8> = match (p.byte(2) >> 6, p.byte(2) & 0x3f) {
            // error recovery
            (0, 0x01) => vec![0x01, 0x06, 0, 5, 0, 0, 0, 0],
            (0, page @ (0x0e | 0x2a)) => mmc::mode_page(page, self.cd.tray.locked).unwrap_or_default(),
            (3, _) => return Reply::Error(Sense::SAVING_NOT_SUPPORTED),
            _ => return INVALID,
        };
        let mut d = ((page.len() + 6) as u16).to_be_bytes().to_vec();
        d.extend([0x70, 0, 0, 0, 0, 0]); // door closed, no medium type
        d.extend(page);
        at_most(d, p.be16(7))
    }
}

fn read(lba: u64, n: u64, total: u64) -> Reply {
    match n {
        0 => Reply::Ok,
        n if lba + n > total => Reply::Error(Sense::LBA_OUT_OF_RANGE),
        n => Reply::Read(lba, n),
    }
}

fn inquiry(i: &DriveInfo, p: &Cdb) -> Reply {
    if p.byte(1) & 1 != 0 {
        return match p.byte(2) {
            // supported vital product data pages
            0x00 => at_most(vec![5, 0, 0, 1, 0], p.byte(4).into()),
            _ => INVALID,
        };
    }
    let padded = |text: &str, n: usize| text.bytes().chain(std::iter::repeat(b' ')).take(n).collect::<Vec<u8>>();
    let mut d = vec![0x05, 0x80, 0x00, 0x21, 31, 0, 0, 0];
    d.extend(padded("QEMU", 8));
    d.extend(padded("QEMU DVD-ROM", 16));
    d.extend(padded(&i.version, 4));
    at_most(d, p.byte(4).into())
}
