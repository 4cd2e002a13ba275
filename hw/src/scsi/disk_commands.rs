//! The commands of disks and CD drives: what each is checked for and comes to. Sources: SBC-3 §5, SPC-4 §6, MMC-6 §6.
//! Not there: protection information, reservations that reserve, formatting, raw CD sectors, audio: illegal field or operation code.

use super::cdb::{Cdb, op};
use super::mmc::{self, Tray};
use super::sense::Sense;
use super::{inquiry, mode, put};
use serde::{Deserialize, Serialize};

/// Most ranges of an UNMAP.
pub(super) const MAX_UNMAP_RANGES: usize = 255;
/// Most bytes of parameters that a command takes.
const MAX_LIST: u64 = 8 + 16 * MAX_UNMAP_RANGES as u64;

/// What a unit is made of, and how its medium is: no state.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct DiskInfo {
    /// A CD drive.
    pub rom: bool,
    pub removable: bool,
    /// Bytes of a block.
    pub block: u64,
    /// Bytes of the medium, in or out.
    pub len: u64,
    /// There is a medium, in or out.
    pub present: bool,
    pub read_only: bool,
    pub write_cache: bool,
    pub dpofua: bool,
    pub tray_locked: bool,
    /// VERSION of INQUIRY.
    pub version: u8,
    pub vendor: String,
    pub product: String,
    pub revision: String,
    pub serial: String,
    pub device_id: String,
    pub wwn: u64,
    pub port_wwn: u64,
    pub port_index: u16,
    pub rotation_rate: u16,
    pub physical_exponent: u8,
    /// Bytes: least, best and largest transfer, largest and least discard.
    pub min_io: u64,
    pub opt_io: u64,
    pub max_io: u64,
    pub max_unmap: u64,
    pub granularity: u64,
    /// Cylinders, heads, sectors per track.
    pub chs: (u32, u32, u32),
}

impl DiskInfo {
    fn blocks(&self) -> u64 {
        self.len / self.block.max(1)
    }

    /// Where blocks are, in bytes, if they are on the medium.
    fn place(&self, lba: u64, n: u64) -> Result<(u64, u64), Sense> {
        match lba.checked_add(n) {
            Some(end) if end <= self.blocks() => Ok((lba * self.block, n * self.block)),
            _ => Err(Sense::LBA_OUT_OF_RANGE),
        }
    }
}

/// Work with the image. Offsets and lengths in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Work {
    /// `flush`: what is read must be stable first (FUA).
    Read {
        offset: u64,
        len: u64,
        flush: bool,
    },
    Write {
        offset: u64,
        len: u64,
        fua: bool,
    },
    /// Compares with the initiator's data.
    Compare {
        offset: u64,
        len: u64,
    },
    Flush,
    /// Ranges: first byte, bytes.
    Unmap {
        ranges: Vec<(u64, u64)>,
    },
    Zeroes {
        offset: u64,
        len: u64,
        unmap: bool,
    },
    /// Writes one block again and again.
    Same {
        offset: u64,
        len: u64,
        block: Vec<u8>,
    },
}

impl Work {
    /// Whether a failure is one of reading.
    pub fn reads(&self) -> bool {
        matches!(self, Work::Read { .. } | Work::Compare { .. })
    }

    /// Bytes that the initiator must give, and take.
    pub fn data(&self) -> (u64, u64) {
        match self {
            Work::Read { len, .. } => (0, *len),
            Work::Write { len, .. } | Work::Compare { len, .. } => (*len, 0),
            _ => (0, 0),
        }
    }
}

/// What a command comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Done,
    /// Data, and how much of it is wanted.
    Data(Vec<u8>, u64),
    Work(Work),
    /// The write cache is to be on or off.
    WriteCache(bool),
}

/// Bytes of parameters that come with a command.
pub(super) fn parameters(i: &DiskInfo, c: &Cdb) -> u64 {
    match c.code() {
        op::MODE_SELECT_6 | op::MODE_SELECT_10 | op::UNMAP => c.length().min(MAX_LIST),
        op::WRITE_SAME_16 if c.byte(1) & 1 != 0 => 0,
        op::WRITE_SAME_10 | op::WRITE_SAME_16 => i.block,
        _ => 0,
    }
}

fn needs_medium(code: u8) -> bool {
    !matches!(
        code,
        op::INQUIRY
            | op::REQUEST_SENSE
            | op::MODE_SENSE_6
            | op::MODE_SENSE_10
            | op::MODE_SELECT_6
            | op::MODE_SELECT_10
            | op::START_STOP_UNIT
            | op::PREVENT_ALLOW
            | op::GET_CONFIGURATION
            | op::GET_EVENT_STATUS
            | op::MECHANISM_STATUS
            | op::RESERVE_6
            | op::RELEASE_6
            | op::RESERVE_10
            | op::RELEASE_10
            | op::SET_CD_SPEED
    )
}

/// Does a command whose parameters are `list`.
///
/// # Errors
/// Why it cannot be done.
pub(super) fn execute(i: &DiskInfo, tray: &mut Tray, c: &Cdb, list: &[u8]) -> Result<Reply, Sense> {
    let code = c.code();
    if !(is_common(code) || i.rom && is_mmc(code) || !i.rom && is_sbc(code)) {
        return Err(Sense::INVALID_OPCODE);
    }
    let ready = i.present && !tray.open;
    if needs_medium(code) && !ready {
        return Err(Sense::NO_MEDIUM);
    }
    let data = |d: Vec<u8>, max: usize| Ok(Reply::Data(d, max as u64));
    match code {
        op::INQUIRY => data(inquiry::inquiry(i, c)?, c.be16(3)),
        op::MODE_SENSE_6 | op::MODE_SENSE_10 => Ok(Reply::Data(mode::sense(i, c)?, c.length())),
        op::MODE_SELECT_6 | op::MODE_SELECT_10 => Ok(mode::select(i, c, list)?.map_or(Reply::Done, Reply::WriteCache)),
        op::READ_CAPACITY_10 => {
            // Without PMI there is no address to start from. SBC-3 §5.15
            if c.byte(8) & 1 == 0 && c.lba() != 0 {
                return Err(Sense::INVALID_FIELD);
            }
            let last = u32::try_from(i.blocks().saturating_sub(1)).unwrap_or(u32::MAX);
            data([last.to_be_bytes(), (i.block as u32).to_be_bytes()].concat(), 8)
        }
        op::SERVICE_ACTION_IN_16 => match c.byte(1) & 0x1f {
            0x10 => Ok(Reply::Data(capacity_16(i), c.be32(10))),
            _ => Err(Sense::INVALID_FIELD),
        },
        op::START_STOP_UNIT if i.removable => match (tray.start_stop(c), i.present) {
            (true, _) => Ok(Reply::Done),
            (false, true) => Err(Sense::REMOVAL_PREVENTED),
            (false, false) => Err(Sense::REMOVAL_PREVENTED_EMPTY),
        },
        op::PREVENT_ALLOW => {
            tray.prevent(c);
            Ok(Reply::Done)
        }
        op::SEEK_10 => i.place(c.lba(), 1).map(|_| Reply::Done),
        op::RESERVE_6 | op::RESERVE_10 | op::RELEASE_6 | op::RELEASE_10 if c.byte(1) & 3 != 0 => {
            Err(Sense::INVALID_FIELD) // third parties, extents
        }
        op::GET_EVENT_STATUS => data(tray.events(c, i.present)?, c.be16(7)),
        op::READ_TOC => data(mmc::read_toc(c, i.blocks())?, c.be16(7)),
        op::GET_CONFIGURATION => data(mmc::configuration(c, ready.then(|| i.blocks()))?, c.be16(7)),
        op::READ_DISC_INFORMATION => data(mmc::disc_information(c)?, c.be16(7)),
        op::MECHANISM_STATUS => data(mmc::mechanism_status(), c.be16(8)),
        op::READ_CD => match mmc::read_cd_wants_data(c) {
            Some(false) => Ok(Reply::Done),
            Some(true) => read(i, c.lba(), c.be24(6), false),
            None => Err(Sense::INVALID_FIELD),
        },
        op::READ_6 => read(i, c.lba(), c.blocks(), false),
        op::READ_10 | op::READ_12 | op::READ_16 => {
            unprotected(c)?;
            read(i, c.lba(), c.blocks(), c.byte(1) & 8 != 0)
        }
        op::WRITE_6 => write(i, c, false),
        op::WRITE_10 | op::WRITE_12 | op::WRITE_16 => {
            unprotected(c)?;
            write(i, c, c.byte(1) & 8 != 0)
        }
        op::WRITE_AND_VERIFY_10 | op::WRITE_AND_VERIFY_12 | op::WRITE_AND_VERIFY_16 => {
            unprotected(c)?;
            write(i, c, true)
        }
        op::VERIFY_10 | op::VERIFY_12 | op::VERIFY_16 => verify(i, c),
        op::SYNCHRONIZE_CACHE_10 | op::SYNCHRONIZE_CACHE_16 => {
            i.place(c.lba(), c.blocks())?;
            Ok(Reply::Work(Work::Flush))
        }
        op::WRITE_SAME_10 | op::WRITE_SAME_16 => write_same(i, c, list),
        op::UNMAP => unmap(i, c, list),
        // TEST UNIT READY, START STOP UNIT of a fixed disk, reservations, SET CD SPEED
        _ => Ok(Reply::Done),
    }
}

/// Commands of disks and CD drives alike.
fn is_common(code: u8) -> bool {
    matches!(
        code,
        op::TEST_UNIT_READY
            | op::INQUIRY
            | op::MODE_SENSE_6
            | op::MODE_SENSE_10
            | op::MODE_SELECT_6
            | op::MODE_SELECT_10
            | op::RESERVE_6
            | op::RELEASE_6
            | op::RESERVE_10
            | op::RELEASE_10
            | op::START_STOP_UNIT
            | op::PREVENT_ALLOW
            | op::READ_CAPACITY_10
            | op::SERVICE_ACTION_IN_16
            | op::SEEK_10
            | op::READ_6
            | op::READ_10
            | op::READ_12
            | op::READ_16
            | op::VERIFY_10
            | op::VERIFY_12
            | op::VERIFY_16
            | op::SYNCHRONIZE_CACHE_10
            | op::SYNCHRONIZE_CACHE_16
    )
}

fn is_sbc(code: u8) -> bool {
    matches!(
        code,
        op::WRITE_6
            | op::WRITE_10
            | op::WRITE_12
            | op::WRITE_16
            | op::WRITE_AND_VERIFY_10
            | op::WRITE_AND_VERIFY_12
            | op::WRITE_AND_VERIFY_16
            | op::WRITE_SAME_10
            | op::WRITE_SAME_16
            | op::UNMAP
    )
}

fn is_mmc(code: u8) -> bool {
    matches!(
        code,
        op::READ_TOC
            | op::GET_CONFIGURATION
            | op::GET_EVENT_STATUS
            | op::READ_DISC_INFORMATION
            | op::MECHANISM_STATUS
            | op::READ_CD
            | op::SET_CD_SPEED
    )
}

/// RDPROTECT, WRPROTECT, VRPROTECT: units have no protection information.
fn unprotected(c: &Cdb) -> Result<(), Sense> {
    if c.byte(1) & 0xe0 == 0 { Ok(()) } else { Err(Sense::INVALID_FIELD) }
}

fn writable(i: &DiskInfo) -> Result<(), Sense> {
    if i.read_only { Err(Sense::WRITE_PROTECTED) } else { Ok(()) }
}

fn read(i: &DiskInfo, lba: u64, n: u64, flush: bool) -> Result<Reply, Sense> {
    let (offset, len) = i.place(lba, n)?;
    Ok(if len == 0 { Reply::Done } else { Reply::Work(Work::Read { offset, len, flush }) })
}

fn write(i: &DiskInfo, c: &Cdb, fua: bool) -> Result<Reply, Sense> {
    writable(i)?;
    let (offset, len) = i.place(c.lba(), c.blocks())?;
    Ok(if len == 0 { Reply::Done } else { Reply::Work(Work::Write { offset, len, fua }) })
}

/// VERIFY: the medium alone, or byte by byte. SBC-3 §5.30
fn verify(i: &DiskInfo, c: &Cdb) -> Result<Reply, Sense> {
    unprotected(c)?;
    let (offset, len) = i.place(c.lba(), c.blocks())?;
    match c.byte(1) >> 1 & 3 {
        0 => Ok(Reply::Done),
        1 if len == 0 => Ok(Reply::Done),
        1 => Ok(Reply::Work(Work::Compare { offset, len })),
        _ => Err(Sense::INVALID_FIELD),
    }
}

/// WRITE SAME. SBC-3 §5.43, §5.44
fn write_same(i: &DiskInfo, c: &Cdb, block: &[u8]) -> Result<Reply, Sense> {
    unprotected(c)?;
    // PBDATA, LBDATA and ANCHOR are not there, and WSNZ says that there must be a length.
    if c.byte(1) & 0x16 != 0 || c.length() == 0 {
        return Err(Sense::INVALID_FIELD);
    }
    writable(i)?;
    let (offset, len) = i.place(c.lba(), c.length())?;
    if len > i.max_io {
        return Err(Sense::INVALID_FIELD);
    }
    let unmap = c.byte(1) & 8 != 0;
    Ok(Reply::Work(if block.iter().all(|b| *b == 0) {
        Work::Zeroes { offset, len, unmap }
    } else {
        Work::Same { offset, len, block: block.to_vec() }
    }))
}

/// UNMAP. SBC-3 §5.28
fn unmap(i: &DiskInfo, c: &Cdb, list: &[u8]) -> Result<Reply, Sense> {
    if c.byte(1) & 1 != 0 {
        return Err(Sense::INVALID_FIELD); // anchored
    }
    if c.length() == 0 {
        return Ok(Reply::Done);
    }
    let word = |at: usize| list.get(at..at + 2).map(|b| b.iter().fold(0, |v, b| v << 8 | usize::from(*b)));
    let (Some(all), Some(len)) = (word(0), word(2)) else { return Err(Sense::INVALID_PARAM_LEN) };
    // (The list counts from behind its first word.)
    if all + 2 < len + 8 || list.len() < len + 8 || !len.is_multiple_of(16) {
        return Err(Sense::INVALID_PARAM_LEN);
    }
    writable(i)?;
    let mut ranges = vec![];
    for d in list.get(8..8 + len).unwrap_or_default().chunks_exact(16) {
        let d = Cdb::new(d);
        ranges.push(i.place(d.be64(0), d.be32(8))?);
    }
    ranges.retain(|r| r.1 > 0);
    Ok(if ranges.is_empty() { Reply::Done } else { Reply::Work(Work::Unmap { ranges }) })
}

/// READ CAPACITY (16). SBC-3 §5.16.2
fn capacity_16(i: &DiskInfo) -> Vec<u8> {
    let mut d = vec![0; 32];
    put(&mut d, 0, &i.blocks().saturating_sub(1).to_be_bytes());
    put(&mut d, 8, &(i.block as u32).to_be_bytes());
    put(&mut d, 13, &[i.physical_exponent, if i.granularity != 0 && !i.rom { 0x80 } else { 0 }]);
    d
}
