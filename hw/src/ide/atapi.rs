//! Packet commands of CD drives. Source: SFF-8020i and MMC-3 (commands), ATA/ATAPI-7 volume 2 §9.9 (packet protocol). What the medium
//! says is data of one track. Raw sectors, audio, DVD structures and recording are not there: illegal field or operation code.

use super::drive::{CD_SECTOR, CHUNK, DriveInfo, DriveRegs, Job, Then, status};
use serde::{Deserialize, Serialize};

/// Bytes of a packet.
const PACKET: usize = 12;
/// Sectors read ahead of the blocks of one reply.
const AHEAD: u64 = 64;
/// Largest CD: 80 minutes.
const CD_MAX: u64 = 80 * 60 * 75;

/// Interrupt reason, in the sector count register.
mod reason {
    pub const CD: u8 = 1;
    pub const IO: u8 = 2;
    pub const ALL: u8 = 7;
}

/// Sense keys and additional codes.
mod sense {
    pub const NOT_READY: u8 = 2;
    pub const MEDIUM_ERROR: u8 = 3;
    pub const ILLEGAL_REQUEST: u8 = 5;
    pub const UNIT_ATTENTION: u8 = 6;
    pub const UNRECOVERED_READ: u8 = 0x11;
    pub const ILLEGAL_OPCODE: u8 = 0x20;
    pub const OUT_OF_RANGE: u8 = 0x21;
    pub const INVALID_FIELD: u8 = 0x24;
    pub const MAY_HAVE_CHANGED: u8 = 0x28;
    pub const SAVING_UNSUPPORTED: u8 = 0x39;
    pub const NO_MEDIUM: u8 = 0x3a;
    pub const REMOVAL_PREVENTED: u8 = 0x53;
}

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
    tray_open: bool,
    locked: bool,
    change: Change,
    /// Media events not reported yet: a new medium, a wish to eject.
    event_new: bool,
    event_eject: bool,
}

impl Cd {
    /// A reset forgets everything but the tray.
    pub(super) fn after_reset(self) -> Self {
        Self { tray_open: self.tray_open, ..Self::default() }
    }

    /// Whether the tray is open, and locked by the guest.
    pub fn tray(&self) -> (bool, bool) {
        (self.tray_open, self.locked)
    }

    /// The tray moves.
    pub fn set_tray(&mut self, open: bool) {
        self.tray_open = open;
    }

    /// Somebody pressed the button of a locked tray.
    pub fn wish_to_eject(&mut self) {
        self.event_eject = true;
    }

    /// There is another medium, or none.
    pub fn medium_changed(&mut self) {
        self.change = Change::New;
        self.event_new = true;
        self.event_eject = false;
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
    Error(u8, u8),
}

const INVALID: Reply = Reply::Error(sense::ILLEGAL_REQUEST, sense::INVALID_FIELD);

/// Fields of a packet.
struct Packet([u8; PACKET]);

impl Packet {
    fn byte(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }
    fn be16(&self, at: usize) -> usize {
        usize::from(self.byte(at)) << 8 | usize::from(self.byte(at + 1))
    }
    fn be32(&self, at: usize) -> u64 {
        (self.be16(at) as u64) << 16 | self.be16(at + 2) as u64
    }
}

/// At most `max` bytes of a reply.
fn at_most(mut data: Vec<u8>, max: usize) -> Reply {
    data.truncate(max);
    if data.is_empty() { Reply::Ok } else { Reply::Data(data) }
}

/// Minute, second and frame of a sector.
fn msf(lba: u64) -> [u8; 3] {
    let frames = lba + 150;
    [(frames / 75 / 60) as u8, (frames / 75 % 60) as u8, (frames % 75) as u8]
}

/// An address of the table of contents.
fn address(lba: u64, as_msf: bool) -> [u8; 4] {
    let [m, s, f] = msf(lba);
    if as_msf { [0, m, s, f] } else { (lba as u32).to_be_bytes() }
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
        !self.cd.tray_open && i.sectors > 0
    }

    /// A packet has arrived; whether that interrupts.
    pub(super) fn packet(&mut self, i: &DriveInfo) -> bool {
        let mut bytes = [0; PACKET];
        bytes.iter_mut().zip(&self.buffer).for_each(|(to, from)| *to = *from);
        let p = Packet(bytes);
        self.pos = 0;
        let known = properties(p.byte(0));
        let attention = known.as_ref().is_some_and(|c| c.attention);
        if self.cd.sense_key == sense::UNIT_ATTENTION && !attention {
            return self.packet_attention();
        }
        if !attention && self.has_medium(i) && self.cd.change != Change::None {
            let (next, key, asc) = match self.cd.change {
                Change::New => (Change::ShownAbsent, sense::NOT_READY, sense::NO_MEDIUM),
                _ => (Change::None, sense::UNIT_ATTENTION, sense::MAY_HAVE_CHANGED),
            };
            self.cd.change = next;
            return self.packet_error(key, asc);
        }
        let Some(c) = known else { return self.packet_error(sense::ILLEGAL_REQUEST, sense::ILLEGAL_OPCODE) };
        if c.ready && !self.has_medium(i) {
            return self.packet_error(sense::NOT_READY, sense::NO_MEDIUM);
        }
        if !c.plain && !self.cd.dma && self.limit() == 0 {
            self.abort();
            return true;
        }
        match self.packet_command(i, &p) {
            Reply::Ok => self.packet_ok(),
            Reply::Error(key, asc) => self.packet_error(key, asc),
            Reply::Data(data) => self.reply(data),
            Reply::Read(lba, n) => self.reply_sectors(lba, n),
        }
    }

    fn packet_command(&mut self, i: &DriveInfo, p: &Packet) -> Reply {
        let total = i.cd_sectors();
        match p.byte(0) {
            0x03 => self.request_sense(p),
            0x12 => inquiry(i, p),
            0x1b => self.start_stop(i, p),
            0x1e => {
                self.cd.locked = p.byte(4) & 1 != 0;
                Reply::Ok
            }
            // READ CAPACITY
            0x25 => {
                let last = (total.saturating_sub(1)) as u32;
                at_most([last.to_be_bytes(), (CD_SECTOR as u32).to_be_bytes()].concat(), usize::MAX)
            }
            0x28 => read(p.be32(2), p.be16(7) as u64, total),
            0xa8 => read(p.be32(2), p.be32(6), total),
            // SEEK
            0x2b if p.be32(2) >= total => Reply::Error(sense::ILLEGAL_REQUEST, sense::OUT_OF_RANGE),
            0x43 => read_toc(p, total),
            0x46 => self.get_configuration(i, p),
            0x4a => self.get_event(i, p),
            0x51 => read_disc_information(p),
            0x5a => self.mode_sense(p),
            // MECHANISM STATUS: idle, one slot
            0xbd => at_most(vec![0, 0, 0, 0, 0, 1, 0, 0], p.be16(8)),
            // READ CD: user data only
            0xbe => match p.byte(9) & 0xf8 {
                0x00 => Reply::Ok,
                0x10 => read(p.be32(2), u64::from(p.byte(6)) << 16 | p.be16(7) as u64, total),
                _ => INVALID,
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

    fn packet_error(&mut self, key: u8, asc: u8) -> bool {
        self.stop();
        self.error = key << 4;
        self.status = status::DRDY | status::ERR;
        self.reason(reason::IO | reason::CD);
        (self.cd.sense_key, self.cd.asc) = (key, asc);
        self.buffer.clear();
        true
    }

    fn packet_attention(&mut self) -> bool {
        self.stop();
        self.error = 0x20 | sense::UNIT_ATTENTION << 4;
        self.status = status::ERR;
        self.nsector = 0;
        true
    }

    /// The host could not read the image.
    pub(super) fn packet_read_failed(&mut self) -> bool {
        self.packet_error(sense::MEDIUM_ERROR, sense::UNRECOVERED_READ)
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

    fn request_sense(&mut self, p: &Packet) -> Reply {
        let mut d = vec![0; 18];
        d.splice(0..1, [0xf0]).for_each(drop);
        d.splice(2..3, [self.cd.sense_key]).for_each(drop);
        d.splice(7..8, [10]).for_each(drop);
        d.splice(12..13, [self.cd.asc]).for_each(drop);
        if self.cd.sense_key == sense::UNIT_ATTENTION {
            self.cd.sense_key = 0;
        }
        at_most(d, p.byte(4).into())
    }

    fn start_stop(&mut self, i: &DriveInfo, p: &Packet) -> Reply {
        let (start, load) = (p.byte(4) & 1 != 0, p.byte(4) & 2 != 0);
        // A power condition: nothing else in the command counts.
        if p.byte(4) & 0xf0 != 0 || !load {
            return Reply::Ok;
        }
        if !start && !self.cd.tray_open && self.cd.locked {
            let key = if i.sectors > 0 { sense::NOT_READY } else { sense::ILLEGAL_REQUEST };
            return Reply::Error(key, sense::REMOVAL_PREVENTED);
        }
        self.cd.tray_open = !start;
        Reply::Ok
    }

    fn get_configuration(&self, i: &DriveInfo, p: &Packet) -> Reply {
        const PROFILES: [u16; 2] = [0x0010, 0x0008]; // DVD-ROM, CD-ROM
        if p.be16(2) != 0 {
            return INVALID; // only the profile list
        }
        let current = match (self.has_medium(i), i.cd_sectors() > CD_MAX) {
            (false, _) => 0,
            (true, true) => 0x0010,
            (true, false) => 0x0008,
        };
        let mut d = vec![0, 0, 0, 16, 0, 0];
        d.extend(u16::to_be_bytes(current));
        d.extend([0, 0, 0x03, 8]); // feature 0, persistent and current
        for profile in PROFILES {
            d.extend(profile.to_be_bytes());
            d.extend([u8::from(profile == current), 0]);
        }
        at_most(d, p.be16(7))
    }

    fn get_event(&mut self, i: &DriveInfo, p: &Packet) -> Reply {
        const MEDIA: u8 = 4;
        if p.byte(1) & 1 == 0 {
            return INVALID; // asynchronous mode
        }
        if p.byte(4) & 1 << MEDIA == 0 {
            return at_most(vec![0, 0, 0x80, 1 << MEDIA], p.be16(7));
        }
        let event = match (self.cd.event_new, self.cd.event_eject) {
            (true, _) => 2,
            (false, true) => 1,
            _ => 0,
        };
        match event {
            2 => self.cd.event_new = false,
            1 => self.cd.event_eject = false,
            _ => {}
        }
        let medium = if self.cd.tray_open { 1 } else { u8::from(i.sectors > 0) << 1 };
        at_most(vec![0, 4, MEDIA, 1 << MEDIA, event, medium, 0, 0], p.be16(7))
    }

    fn mode_sense(&self, p: &Packet) -> Reply {
        let page: Vec<u8> = match (p.byte(2) >> 6, p.byte(2) & 0x3f) {
            // error recovery
            (0, 0x01) => vec![0x01, 0x06, 0, 5, 0, 0, 0, 0],
            // audio control
            (0, 0x0e) => vec![0x0e, 0x0e, 4, 0, 0, 0, 0, 0, 1, 0xff, 2, 0xff, 0, 0, 0, 0],
            // capabilities and mechanical status
            (0, 0x2a) => {
                let lock = u8::from(self.cd.locked) << 1;
                let mut d = vec![0x2a, 0x14, 0x3b, 0, 0x71, 3 << 5, 1 | 1 << 3 | 1 << 5 | lock, 0];
                d.extend([704u16, 2, 512, 704].iter().flat_map(|v| v.to_be_bytes()));
                d.extend([0; 6]);
                d
            }
            (3, _) => return Reply::Error(sense::ILLEGAL_REQUEST, sense::SAVING_UNSUPPORTED),
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
        n if lba + n > total => Reply::Error(sense::ILLEGAL_REQUEST, sense::OUT_OF_RANGE),
        n => Reply::Read(lba, n),
    }
}

fn inquiry(i: &DriveInfo, p: &Packet) -> Reply {
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

fn read_toc(p: &Packet, total: u64) -> Reply {
    let (as_msf, start, max) = (p.byte(1) & 2 != 0, p.byte(6), p.be16(7));
    let with_length = |mut d: Vec<u8>| {
        let len = d.len() as u16;
        d.splice(0..0, len.to_be_bytes()).for_each(drop);
        d
    };
    match p.byte(9) >> 6 {
        0 => {
            if start > 1 && start != 0xaa {
                return INVALID;
            }
            let mut d = vec![1, 1];
            if start <= 1 {
                d.extend([0, 0x14, 1, 0]);
                d.extend(address(0, as_msf));
            }
            d.extend([0, 0x16, 0xaa, 0]);
            d.extend(address(total, as_msf));
            at_most(with_length(d), max)
        }
        // sessions
        1 => at_most(vec![0, 0x0a, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0], max),
        // raw: first track, last track, lead-out, track 1
        2 => {
            let [m, s, f] = msf(total);
            let [m1, s1, f1] = msf(0);
            let mut d = vec![1, 1];
            for (point, pmin, psec, pframe) in [(0xa0, 1, 0, 0), (0xa1, 1, 0, 0), (0xa2, m, s, f), (1, m1, s1, f1)] {
                d.extend([1, 0x14, 0, point, 0, 0, 0, 0, pmin, psec, pframe]);
            }
            at_most(with_length(d), max)
        }
        _ => INVALID,
    }
}

fn read_disc_information(p: &Packet) -> Reply {
    if p.byte(1) & 7 != 0 {
        return INVALID;
    }
    // finished disc of one session with one track, of unrestricted use
    let mut d = vec![0, 32, 0x0e, 1, 1, 1, 1, 0x20];
    d.resize(34, 0);
    at_most(d, p.be16(7))
}
