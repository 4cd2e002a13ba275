//! Commands, completions and codes as bytes. Source: NVM Express 1.4 §4.2 (commands), §4.6 (completions), §3.1 (registers).

use serde::{Deserialize, Serialize};

/// Bytes of a submission queue entry, and of a completion queue entry.
pub(super) const SQE: u64 = 64;
pub(super) const CQE: u64 = 16;

/// How a command ended: status code type and code. §4.6.1.2
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Status(pub u16);

impl Status {
    pub const SUCCESS: Self = Self(0);
    pub const INVALID_OPCODE: Self = Self(0x4001);
    pub const INVALID_FIELD: Self = Self(0x4002);
    pub const DATA_TRANSFER_ERROR: Self = Self(0x0004);
    pub const ABORT_REQUESTED: Self = Self(0x0007);
    pub const ABORTED_SQ_DELETION: Self = Self(0x0008);
    pub const INVALID_NAMESPACE: Self = Self(0x400b);
    pub const INVALID_SGL_SEGMENT: Self = Self(0x400d);
    pub const INVALID_SGL_COUNT: Self = Self(0x400e);
    pub const SGL_LENGTH_INVALID: Self = Self(0x400f);
    pub const SGL_TYPE_INVALID: Self = Self(0x4011);
    pub const INVALID_PRP_OFFSET: Self = Self(0x4013);
    pub const LBA_OUT_OF_RANGE: Self = Self(0x4080);
    pub const INVALID_CQ: Self = Self(0x4100);
    pub const INVALID_QUEUE_ID: Self = Self(0x4101);
    pub const INVALID_QUEUE_SIZE: Self = Self(0x4102);
    pub const AER_LIMIT: Self = Self(0x4105);
    pub const INVALID_VECTOR: Self = Self(0x4108);
    pub const INVALID_LOG_PAGE: Self = Self(0x4109);
    pub const INVALID_QUEUE_DELETION: Self = Self(0x410c);
    pub const NOT_SAVEABLE: Self = Self(0x410d);
    pub const NOT_CHANGEABLE: Self = Self(0x410e);
    pub const WRITE_FAULT: Self = Self(0x0280);
    pub const UNRECOVERED_READ: Self = Self(0x0281);
    pub const COMPARE_FAILURE: Self = Self(0x4285);
    pub const ACCESS_DENIED: Self = Self(0x4286);
}

/// A submission queue entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Command {
    pub opcode: u8,
    /// FUSE and PSDT.
    pub flags: u8,
    pub cid: u16,
    pub nsid: u32,
    /// Data pointer: two PRP entries, or one SGL descriptor.
    pub dptr: (u64, u64),
    /// Command dwords 10 to 15.
    pub dw: [u32; 6],
}

impl Command {
    /// Understands an entry.
    pub fn parse(b: &[u8; SQE as usize]) -> Self {
        let long = |at: usize| b.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
        let wide = |at: usize| u64::from(long(at + 4)) << 32 | u64::from(long(at));
        let first = long(0);
        Self {
            opcode: first as u8,
            flags: (first >> 8) as u8,
            cid: (first >> 16) as u16,
            nsid: long(4),
            dptr: (wide(24), wide(32)),
            dw: [40, 44, 48, 52, 56, 60].map(long),
        }
    }

    /// Command dword `n`, 10 to 15.
    pub fn cdw(&self, n: usize) -> u32 {
        n.checked_sub(10).and_then(|n| self.dw.get(n)).copied().unwrap_or(0)
    }

    /// Starting block.
    pub fn slba(&self) -> u64 {
        u64::from(self.cdw(11)) << 32 | u64::from(self.cdw(10))
    }

    /// How the data pointer is to be read: 0: PRP, else SGL.
    pub fn psdt(&self) -> u8 {
        self.flags >> 6
    }
}

/// A completion, before it has a place in its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Completion {
    pub sqid: u16,
    pub cid: u16,
    pub status: Status,
    pub result: u32,
}

impl Completion {
    /// The entry.
    pub fn bytes(&self, sq_head: u16, phase: bool) -> [u8; CQE as usize] {
        let mut b = [0; CQE as usize];
        crate::scsi::put(&mut b, 0, &self.result.to_le_bytes());
        crate::scsi::put(&mut b, 8, &sq_head.to_le_bytes());
        crate::scsi::put(&mut b, 10, &self.sqid.to_le_bytes());
        crate::scsi::put(&mut b, 12, &self.cid.to_le_bytes());
        crate::scsi::put(&mut b, 14, &(self.status.0 << 1 | u16::from(phase)).to_le_bytes());
        b
    }
}

/// Controller configuration and status. §3.1.5, §3.1.6
pub(super) mod reg {
    pub const CAP: u64 = 0x00;
    pub const VS: u64 = 0x08;
    pub const INTMS: u64 = 0x0c;
    pub const INTMC: u64 = 0x10;
    pub const CC: u64 = 0x14;
    pub const CSTS: u64 = 0x1c;
    pub const AQA: u64 = 0x24;
    pub const ASQ: u64 = 0x28;
    pub const ACQ: u64 = 0x30;
    pub const DOORBELLS: u64 = 0x1000;
    pub const CC_EN: u32 = 1;
    pub const CSTS_RDY: u32 = 1;
    pub const CSTS_CFS: u32 = 2;
    /// Shutdown is complete.
    pub const CSTS_SHST: u32 = 3 << 2;
    pub const SHST_COMPLETE: u32 = 2 << 2;
}

/// Operation codes.
pub(super) mod admin {
    pub const DELETE_SQ: u8 = 0x00;
    pub const CREATE_SQ: u8 = 0x01;
    pub const GET_LOG_PAGE: u8 = 0x02;
    pub const DELETE_CQ: u8 = 0x04;
    pub const CREATE_CQ: u8 = 0x05;
    pub const IDENTIFY: u8 = 0x06;
    pub const ABORT: u8 = 0x08;
    pub const SET_FEATURES: u8 = 0x09;
    pub const GET_FEATURES: u8 = 0x0a;
    pub const ASYNC_EVENT: u8 = 0x0c;
}

/// Operation codes of the NVM command set.
pub(super) mod nvm {
    pub const FLUSH: u8 = 0x00;
    pub const WRITE: u8 = 0x01;
    pub const READ: u8 = 0x02;
    pub const COMPARE: u8 = 0x05;
    pub const WRITE_ZEROES: u8 = 0x08;
    pub const DATASET_MANAGEMENT: u8 = 0x09;
    pub const VERIFY: u8 = 0x0c;
}

/// All namespaces.
pub(super) const ALL_NAMESPACES: u32 = u32::MAX;
