//! Sense data: why a command failed. Source: SPC-4 §4.5 (formats), annex D (codes).

use serde::{Deserialize, Serialize};

/// Sense keys.
pub mod key {
    /// Nothing is wrong.
    pub const NO_SENSE: u8 = 0;
    /// The unit cannot be accessed now.
    pub const NOT_READY: u8 = 2;
    /// The medium is flawed.
    pub const MEDIUM_ERROR: u8 = 3;
    /// A command or parameter is wrong.
    pub const ILLEGAL_REQUEST: u8 = 5;
    /// Something has changed.
    pub const UNIT_ATTENTION: u8 = 6;
    /// What is protected was to be written.
    pub const DATA_PROTECT: u8 = 7;
    /// The device gave the command up.
    pub const ABORTED_COMMAND: u8 = 0xb;
    /// Source and medium differ.
    pub const MISCOMPARE: u8 = 0xe;
}

/// Sense key, additional code, qualifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sense {
    /// Sense key.
    pub key: u8,
    /// Additional sense code.
    pub asc: u8,
    /// Its qualifier.
    pub ascq: u8,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = ($key:ident, $asc:literal, $ascq:literal);)*) => {
        impl Sense {
            $($(#[$doc])* pub const $name: Self = Self { key: key::$key, asc: $asc, ascq: $ascq };)*
        }
    };
}

codes! {
    /// No sense.
    NONE = (NO_SENSE, 0, 0);
    /// Medium not present.
    NO_MEDIUM = (NOT_READY, 0x3a, 0);
    /// Unrecovered read error.
    READ_ERROR = (MEDIUM_ERROR, 0x11, 0);
    /// Write error.
    WRITE_ERROR = (MEDIUM_ERROR, 0x0c, 0);
    /// Invalid command operation code.
    INVALID_OPCODE = (ILLEGAL_REQUEST, 0x20, 0);
    /// Logical block address out of range.
    LBA_OUT_OF_RANGE = (ILLEGAL_REQUEST, 0x21, 0);
    /// Invalid field in CDB.
    INVALID_FIELD = (ILLEGAL_REQUEST, 0x24, 0);
    /// Invalid field in parameter list.
    INVALID_PARAM = (ILLEGAL_REQUEST, 0x26, 0);
    /// Parameter list length error.
    INVALID_PARAM_LEN = (ILLEGAL_REQUEST, 0x1a, 0);
    /// Logical unit not supported.
    LUN_NOT_SUPPORTED = (ILLEGAL_REQUEST, 0x25, 0);
    /// Saving parameters not supported.
    SAVING_NOT_SUPPORTED = (ILLEGAL_REQUEST, 0x39, 0);
    /// Medium removal prevented.
    REMOVAL_PREVENTED = (ILLEGAL_REQUEST, 0x53, 2);
    /// Medium removal prevented, and there is no medium.
    REMOVAL_PREVENTED_EMPTY = (NOT_READY, 0x53, 0);
    /// Power on, reset, or bus device reset occurred.
    RESET = (UNIT_ATTENTION, 0x29, 0);
    /// Not ready to ready change, medium may have changed.
    MEDIUM_CHANGED = (UNIT_ATTENTION, 0x28, 0);
    /// Reported LUNs data has changed.
    LUNS_CHANGED = (UNIT_ATTENTION, 0x3f, 0x0e);
    /// Capacity data has changed.
    CAPACITY_CHANGED = (UNIT_ATTENTION, 0x2a, 9);
    /// Write protected.
    WRITE_PROTECTED = (DATA_PROTECT, 0x27, 0);
    /// Space allocation failed write protect.
    SPACE_ALLOC_FAILED = (DATA_PROTECT, 0x27, 7);
    /// I/O process terminated.
    IO_ERROR = (ABORTED_COMMAND, 0, 6);
    /// Miscompare during verify operation.
    MISCOMPARE = (MISCOMPARE, 0x1d, 0);
}

impl Sense {
    /// Fixed format, current error.
    pub fn fixed(self) -> [u8; 18] {
        [0x70, 0, self.key, 0, 0, 0, 0, 10, 0, 0, 0, 0, self.asc, self.ascq, 0, 0, 0, 0]
    }

    /// Descriptor format without descriptors, current error.
    pub fn descriptor(self) -> [u8; 8] {
        [0x72, self.key, self.asc, self.ascq, 0, 0, 0, 0]
    }

    /// What an error of the host means.
    pub fn of_host(e: &std::io::Error, read: bool) -> Self {
        match e.raw_os_error() {
            Some(libc::ENOMEDIUM) => Self::NO_MEDIUM,
            Some(libc::ENOSPC) => Self::SPACE_ALLOC_FAILED,
            Some(libc::EPERM | libc::EROFS | libc::EACCES) if !read => Self::WRITE_PROTECTED,
            Some(libc::EIO) if read => Self::READ_ERROR,
            Some(libc::EIO) => Self::WRITE_ERROR,
            _ => Self::IO_ERROR,
        }
    }
}
