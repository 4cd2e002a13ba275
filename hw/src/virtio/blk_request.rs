//! Requests of a block device, understood. Source: virtio 1.2 §5.2.6.

use serde::{Deserialize, Serialize};

/// Bytes of a sector, the unit of the protocol.
pub(super) const SECTOR: u64 = 512;
/// Bytes of a request's header.
pub(super) const HEADER: usize = 16;
/// Bytes of a range to discard or to make zero.
pub(super) const RANGE: usize = 16;
/// Bytes of the device's id.
pub(super) const ID: usize = 20;

/// Kinds of requests.
mod kind {
    pub const IN: u32 = 0;
    pub const OUT: u32 = 1;
    pub const FLUSH: u32 = 4;
    pub const GET_ID: u32 = 8;
    pub const DISCARD: u32 = 11;
    pub const WRITE_ZEROES: u32 = 13;
    /// Of legacy drivers.
    pub const BARRIER: u32 = 1 << 31;
}

/// How a request ends: its last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok = 0,
    Error = 1,
    Unsupported = 2,
}

/// What is to be done. Offsets and lengths in bytes; ranges lie on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Work {
    Read { offset: u64, len: u64 },
    Write { offset: u64, len: u64 },
    Flush,
    Discard { offset: u64, len: u64 },
    Zeroes { offset: u64, len: u64, unmap: bool },
    Id,
}

impl Work {
    /// Bytes that it is about.
    pub fn len(&self) -> u64 {
        match *self {
            Work::Read { len, .. } | Work::Write { len, .. } | Work::Discard { len, .. } | Work::Zeroes { len, .. } => {
                len
            }
            Work::Flush | Work::Id => 0,
        }
    }

    /// What reads or writes bytes: whether it reads, the first byte, the first behind.
    pub fn range(&self) -> Option<(bool, u64, u64)> {
        match *self {
            Work::Read { offset, len } => Some((true, offset, offset.checked_add(len)?)),
            Work::Write { offset, len } => Some((false, offset, offset.checked_add(len)?)),
            _ => None,
        }
    }

    /// Whether a failure is one of reading.
    pub fn reads(&self) -> bool {
        matches!(self, Work::Read { .. })
    }
}

/// What the device takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of the disk.
    pub len: u64,
    /// Bytes of a block: what requests are multiples of.
    pub block: u64,
    pub read_only: bool,
    pub discard: bool,
    pub write_zeroes: bool,
    pub max_discard: u32,
    pub max_zeroes: u32,
}

/// A request that is not even one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("virtio-blk missing headers")]
    Missing,
    #[error("virtio-blk request outhdr too short")]
    Header,
    #[error("virtio-blk discard/write_zeroes header too short")]
    Range,
}

fn word(b: &[u8], at: usize) -> u32 {
    b.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// Byte offset of a range of sectors that lies on the disk in whole blocks.
fn placed(limits: &Limits, sector: u64, len: u64) -> Result<u64, Status> {
    let offset = sector.checked_mul(SECTOR).ok_or(Status::Error)?;
    let end = offset.checked_add(len).ok_or(Status::Error)?;
    let whole = offset.is_multiple_of(limits.block) && len.is_multiple_of(limits.block);
    if whole && end <= limits.len { Ok(offset) } else { Err(Status::Error) }
}

/// Understands a request. `head`: its first bytes, up to header and range; `out` and `room`: bytes of its readable part and of its
/// writable part, the status included. The inner error ends the request at once.
///
/// # Errors
/// The driver does not keep to the protocol.
pub(super) fn parse(limits: &Limits, head: &[u8], out: u64, room: u64) -> Result<Result<Work, Status>, Malformed> {
    if out == 0 || room == 0 {
        return Err(Malformed::Missing);
    }
    if out < HEADER as u64 {
        return Err(Malformed::Header);
    }
    let kind = word(head, 0) & !kind::BARRIER;
    let sector = u64::from(word(head, 12)) << 32 | u64::from(word(head, 8));
    let (data, space) = (out - HEADER as u64, room - 1);
    Ok(match kind {
        kind::IN => placed(limits, sector, space).map(|offset| Work::Read { offset, len: space }),
        kind::OUT if limits.read_only => Err(Status::Error),
        kind::OUT => placed(limits, sector, data).map(|offset| Work::Write { offset, len: data }),
        kind::FLUSH => Ok(Work::Flush),
        kind::GET_ID => Ok(Work::Id),
        kind::DISCARD | kind::WRITE_ZEROES => {
            let zeroes = kind == kind::WRITE_ZEROES;
            if !(if zeroes { limits.write_zeroes } else { limits.discard }) || data > RANGE as u64 {
                return Ok(Err(Status::Unsupported));
            }
            if data < RANGE as u64 {
                return Err(Malformed::Range);
            }
            range(limits, head, zeroes)
        }
        _ => Err(Status::Unsupported),
    })
}

/// A range to discard or to make zero. §5.2.6.1
fn range(limits: &Limits, head: &[u8], zeroes: bool) -> Result<Work, Status> {
    let sector = u64::from(word(head, HEADER + 4)) << 32 | u64::from(word(head, HEADER));
    let (count, flags) = (word(head, HEADER + 8), word(head, HEADER + 12));
    let (max, known) = if zeroes { (limits.max_zeroes, 1) } else { (limits.max_discard, 0) };
    if limits.read_only || count > max {
        return Err(Status::Error);
    }
    if flags & !known != 0 {
        return Err(Status::Unsupported);
    }
    let len = u64::from(count) * SECTOR;
    let offset = placed(limits, sector, len)?;
    Ok(if zeroes { Work::Zeroes { offset, len, unmap: flags & 1 != 0 } } else { Work::Discard { offset, len } })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        len: 64 * SECTOR,
        block: SECTOR,
        read_only: false,
        discard: true,
        write_zeroes: true,
        max_discard: 32,
        max_zeroes: 32,
    };

    fn head(kind: u32, sector: u64, range: Option<(u64, u32, u32)>) -> Vec<u8> {
        let mut b = kind.to_le_bytes().to_vec();
        b.extend([0; 4]);
        b.extend(sector.to_le_bytes());
        if let Some((sector, count, flags)) = range {
            b.extend(sector.to_le_bytes());
            b.extend(count.to_le_bytes());
            b.extend(flags.to_le_bytes());
        }
        b
    }

    #[test]
    fn requests_stay_on_the_disk() {
        let ask = |kind, sector, out, room| parse(&LIMITS, &head(kind, sector, None), out, room);
        assert_eq!(ask(kind::IN, 63, 16, 513), Ok(Ok(Work::Read { offset: 63 * 512, len: 512 })));
        assert_eq!(ask(kind::IN, 63, 16, 1025), Ok(Err(Status::Error)));
        assert_eq!(ask(kind::IN, 0, 16, 512), Ok(Err(Status::Error)));
        assert_eq!(ask(kind::OUT | kind::BARRIER, 1, 528, 1), Ok(Ok(Work::Write { offset: 512, len: 512 })));
        assert_eq!(ask(kind::OUT, u64::MAX, 528, 1), Ok(Err(Status::Error)));
        assert_eq!(ask(kind::OUT, u64::MAX >> 9, 528, 1), Ok(Err(Status::Error)));
        assert_eq!((ask(kind::FLUSH, 0, 16, 1), ask(kind::GET_ID, 0, 16, 21)), (Ok(Ok(Work::Flush)), Ok(Ok(Work::Id))));
        assert_eq!(ask(2, 0, 16, 1), Ok(Err(Status::Unsupported)));
        assert_eq!((ask(0, 0, 0, 1), ask(0, 0, 16, 0), ask(0, 0, 15, 1)).2, Err(Malformed::Header));
        assert_eq!(ask(0, 0, 16, 0), Err(Malformed::Missing));
        let read_only = Limits { read_only: true, ..LIMITS };
        assert_eq!(parse(&read_only, &head(kind::OUT, 0, None), 528, 1), Ok(Err(Status::Error)));
        let blocks = Limits { block: 4096, ..LIMITS };
        assert_eq!(parse(&blocks, &head(kind::OUT, 1, None), 16 + 4096, 1), Ok(Err(Status::Error)));
    }

    #[test]
    fn ranges_are_checked() {
        let ask = |kind, range| parse(&LIMITS, &head(kind, 0, Some(range)), 32, 1);
        assert_eq!(ask(kind::DISCARD, (8, 8, 0)), Ok(Ok(Work::Discard { offset: 4096, len: 4096 })));
        assert_eq!(ask(kind::DISCARD, (8, 8, 1)), Ok(Err(Status::Unsupported)));
        assert_eq!(ask(kind::WRITE_ZEROES, (8, 8, 1)), Ok(Ok(Work::Zeroes { offset: 4096, len: 4096, unmap: true })));
        assert_eq!(ask(kind::WRITE_ZEROES, (8, 33, 0)), Ok(Err(Status::Error)));
        assert_eq!(ask(kind::WRITE_ZEROES, (60, 8, 0)), Ok(Err(Status::Error)));
        assert_eq!(parse(&LIMITS, &head(kind::DISCARD, 0, None), 24, 1), Err(Malformed::Range));
        assert_eq!(parse(&LIMITS, &head(kind::DISCARD, 0, None), 48, 1), Ok(Err(Status::Unsupported)));
        let none = Limits { discard: false, ..LIMITS };
        assert_eq!(parse(&none, &head(kind::DISCARD, 0, Some((0, 1, 0))), 32, 1), Ok(Err(Status::Unsupported)));
    }
}
