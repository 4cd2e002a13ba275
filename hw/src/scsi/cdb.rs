//! Command descriptor blocks. Source: SPC-4 §4.3 (formats) and annex E (operation codes).

/// Operation codes.
#[expect(missing_docs, reason = "the standards' names")]
pub mod op {
    pub const TEST_UNIT_READY: u8 = 0x00;
    pub const REQUEST_SENSE: u8 = 0x03;
    pub const READ_6: u8 = 0x08;
    pub const WRITE_6: u8 = 0x0a;
    pub const INQUIRY: u8 = 0x12;
    pub const MODE_SELECT_6: u8 = 0x15;
    pub const RESERVE_6: u8 = 0x16;
    pub const RELEASE_6: u8 = 0x17;
    pub const MODE_SENSE_6: u8 = 0x1a;
    pub const START_STOP_UNIT: u8 = 0x1b;
    pub const PREVENT_ALLOW: u8 = 0x1e;
    pub const READ_CAPACITY_10: u8 = 0x25;
    pub const READ_10: u8 = 0x28;
    pub const WRITE_10: u8 = 0x2a;
    pub const SEEK_10: u8 = 0x2b;
    pub const WRITE_AND_VERIFY_10: u8 = 0x2e;
    pub const VERIFY_10: u8 = 0x2f;
    pub const SYNCHRONIZE_CACHE_10: u8 = 0x35;
    pub const WRITE_SAME_10: u8 = 0x41;
    pub const UNMAP: u8 = 0x42;
    pub const READ_TOC: u8 = 0x43;
    pub const GET_CONFIGURATION: u8 = 0x46;
    pub const GET_EVENT_STATUS: u8 = 0x4a;
    pub const READ_DISC_INFORMATION: u8 = 0x51;
    pub const MODE_SELECT_10: u8 = 0x55;
    pub const RESERVE_10: u8 = 0x56;
    pub const RELEASE_10: u8 = 0x57;
    pub const MODE_SENSE_10: u8 = 0x5a;
    pub const READ_16: u8 = 0x88;
    pub const WRITE_16: u8 = 0x8a;
    pub const WRITE_AND_VERIFY_16: u8 = 0x8e;
    pub const VERIFY_16: u8 = 0x8f;
    pub const SYNCHRONIZE_CACHE_16: u8 = 0x91;
    pub const WRITE_SAME_16: u8 = 0x93;
    pub const SERVICE_ACTION_IN_16: u8 = 0x9e;
    pub const REPORT_LUNS: u8 = 0xa0;
    pub const READ_12: u8 = 0xa8;
    pub const WRITE_12: u8 = 0xaa;
    pub const WRITE_AND_VERIFY_12: u8 = 0xae;
    pub const VERIFY_12: u8 = 0xaf;
    pub const SET_CD_SPEED: u8 = 0xbb;
    pub const MECHANISM_STATUS: u8 = 0xbd;
    pub const READ_CD: u8 = 0xbe;
}

/// Most bytes of a block.
pub const MAX_CDB: usize = 16;

/// A command; bytes that the initiator did not give are zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cdb([u8; MAX_CDB]);

impl Cdb {
    /// The first bytes of `bytes`.
    pub fn new(bytes: &[u8]) -> Self {
        let mut b = [0; MAX_CDB];
        b.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        Self(b)
    }

    /// One byte.
    pub fn byte(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    /// Operation code.
    pub fn code(&self) -> u8 {
        self.byte(0)
    }

    /// A word.
    pub fn be16(&self, at: usize) -> usize {
        usize::from(self.byte(at)) << 8 | usize::from(self.byte(at + 1))
    }

    /// Three bytes.
    pub fn be24(&self, at: usize) -> u64 {
        u64::from(self.byte(at)) << 16 | self.be16(at + 1) as u64
    }

    /// A long word.
    pub fn be32(&self, at: usize) -> u64 {
        (self.be16(at) as u64) << 16 | self.be16(at + 2) as u64
    }

    /// A double long word.
    pub fn be64(&self, at: usize) -> u64 {
        self.be32(at) << 32 | self.be32(at + 4)
    }

    /// LOGICAL BLOCK ADDRESS, where the group of the operation code has it.
    pub fn lba(&self) -> u64 {
        match self.code() >> 5 {
            0 => self.be24(1) & 0x1f_ffff,
            4 => self.be64(2),
            _ => self.be32(2),
        }
    }

    /// TRANSFER LENGTH, ALLOCATION LENGTH or PARAMETER LIST LENGTH, where the group of the operation code has it.
    pub fn length(&self) -> u64 {
        match self.code() >> 5 {
            0 => self.byte(4).into(),
            4 => self.be32(10),
            5 => self.be32(6),
            _ => self.be16(7) as u64,
        }
    }

    /// Blocks of a transfer: zero means 256 in the short commands.
    pub fn blocks(&self) -> u64 {
        match (self.code() >> 5, self.length()) {
            (0, 0) => 256,
            (_, n) => n,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_say_where_fields_are() {
        let at = |bytes: &[u8]| (Cdb::new(bytes).lba(), Cdb::new(bytes).blocks());
        assert_eq!(at(&[op::READ_6, 0xff, 2, 3, 0, 0]), (0x1f_0203, 256));
        assert_eq!(at(&[op::READ_10, 0, 1, 2, 3, 4, 0, 5, 6, 0]), (0x0102_0304, 0x0506));
        assert_eq!(at(&[op::READ_12, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0]), (0x0102_0304, 0x0506_0708));
        let long = [op::READ_16, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 1, 0, 0, 0];
        assert_eq!(at(&long), (0x0102_0304_0506_0708, 256));
    }
}
