//! The SMBus host controller of PIIX4. Registers only. Source: Intel 82371AB (PIIX4, 290562) §7.3.
//! Not modelled: transfer time, the slave interface. As in QEMU a transfer without INTREN is shown busy once and carried out
//! by that read of SMBHSTSTS: there is firmware that waits for HOST_BUSY first. A block is one transfer, through the 32-byte
//! buffer of SMBBLKDAT.

use serde::{Deserialize, Serialize};

/// SMBHSTSTS bits.
mod sts {
    pub const HOST_BUSY: u8 = 0x01;
    pub const INTR: u8 = 0x02;
    pub const DEV_ERR: u8 = 0x04;
    pub const FAILED: u8 = 0x10;
}
/// SMBHSTCNT bits.
mod cnt {
    pub const INTREN: u8 = 0x01;
    pub const KILL: u8 = 0x02;
    pub const START: u8 = 0x40;
    pub const PROTOCOL: u8 = 0x1c;
    /// What reads back.
    pub const READABLE: u8 = 0x1f;
}
/// Longest block.
pub const BLOCK_MAX: usize = 32;

/// All that the guest can observe and a snapshot must keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmbusRegs {
    sts: u8,
    cnt: u8,
    cmd: u8,
    add: u8,
    dat0: u8,
    dat1: u8,
    block: [u8; BLOCK_MAX],
    index: u8,
    /// The transfer starts when the status is read.
    pending: bool,
    /// A block was read and its last byte not yet fetched.
    draining: bool,
}

impl Default for SmbusRegs {
    fn default() -> Self {
        let block = [0; BLOCK_MAX];
        let (pending, draining) = (false, false);
        SmbusRegs { sts: 0, cnt: 0, cmd: 0, add: 0, dat0: 0, dat1: 0, block, index: 0, pending, draining }
    }
}

/// A transfer on the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// 7-bit address.
    pub address: u8,
    /// The device is read.
    pub read: bool,
    /// What is transferred.
    pub protocol: Protocol,
}

/// SMBus protocols, §7.3.2 (SMB_CMD_PROT).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Only the address and the direction bit.
    Quick,
    /// Send or receive a byte.
    Byte(u8),
    /// A command code and a data byte.
    ByteData(u8, u8),
    /// A command code and a data word.
    WordData(u8, u16),
    /// A command code and a block.
    Block(u8, Vec<u8>),
}

/// What the bus answered: nothing (no device), or data for a read.
pub type Answer = Option<Vec<u8>>;

impl SmbusRegs {
    /// Reads a register; a transfer is to be carried out and reported to [`SmbusRegs::finish`].
    #[must_use]
    pub fn read(&mut self, offset: u64) -> (u8, Option<Transfer>) {
        if offset == 0 {
            let shown = self.sts;
            let start = std::mem::take(&mut self.pending);
            return (shown, if start { self.start() } else { None });
        }
        (self.read_plain(offset), None)
    }

    fn read_plain(&mut self, offset: u64) -> u8 {
        match offset {
            2 => {
                self.index = 0; // reading SMBHSTCNT rewinds the block
                self.cnt & cnt::READABLE
            }
            3 => self.cmd,
            4 => self.add,
            5 => self.dat0,
            6 => self.dat1,
            7 => {
                let v = self.block.get(usize::from(self.index)).copied().unwrap_or(0);
                self.index = (self.index + 1) % BLOCK_MAX as u8;
                if self.draining && self.index == self.dat0 % BLOCK_MAX as u8 {
                    (self.draining, self.index) = (false, 0);
                }
                v
            }
            _ => 0,
        }
    }

    /// Writes a register; a transfer is to be carried out and reported to [`SmbusRegs::finish`].
    #[must_use]
    pub fn write(&mut self, offset: u64, val: u8) -> Option<Transfer> {
        match offset {
            0 => self.sts &= !val | sts::HOST_BUSY,
            2 => {
                self.cnt = val & !cnt::START;
                let mut transfer = None;
                if val & cnt::START != 0 {
                    if std::mem::take(&mut self.draining) {
                        self.index = 0;
                    }
                    self.pending = val & cnt::INTREN == 0;
                    if self.pending {
                        self.sts |= sts::HOST_BUSY;
                    } else {
                        transfer = self.start();
                    }
                }
                if val & cnt::KILL != 0 {
                    (self.index, self.pending) = (0, false);
                    self.sts = self.sts & !sts::HOST_BUSY | sts::FAILED;
                }
                return transfer;
            }
            3 => self.cmd = val,
            4 => self.add = val,
            5 => self.dat0 = val,
            6 => self.dat1 = val,
            7 => {
                if let Some(b) = self.block.get_mut(usize::from(self.index)) {
                    *b = val;
                }
                self.index = (self.index + 1) % BLOCK_MAX as u8;
            }
            _ => {}
        }
        None
    }

    fn start(&mut self) -> Option<Transfer> {
        self.sts &= !sts::HOST_BUSY;
        let read = self.add & 1 != 0;
        if self.sts & sts::DEV_ERR != 0 {
            return None; // the error must be cleared first
        }
        let protocol = match (self.cnt & cnt::PROTOCOL) >> 2 {
            0 => Protocol::Quick,
            1 => Protocol::Byte(self.cmd),
            2 => Protocol::ByteData(self.cmd, self.dat0),
            3 => Protocol::WordData(self.cmd, u16::from_le_bytes([self.dat0, self.dat1])),
            5 if read => Protocol::Block(self.cmd, vec![]),
            5 => {
                // As many bytes as were written to SMBBLKDAT.
                let n = std::mem::take(&mut self.index);
                if n != self.dat0 % BLOCK_MAX as u8 || self.dat0 > BLOCK_MAX as u8 {
                    self.sts |= sts::DEV_ERR;
                    return None;
                }
                Protocol::Block(self.cmd, self.block.iter().take(self.dat0.into()).copied().collect())
            }
            _ => {
                self.finish(None, &Protocol::Quick);
                return None;
            }
        };
        Some(Transfer { address: self.add >> 1, read, protocol })
    }

    /// Reports how a transfer went; `data` is what a read brought.
    pub fn finish(&mut self, data: Answer, protocol: &Protocol) {
        let Some(data) = data else {
            self.sts |= sts::DEV_ERR;
            return;
        };
        match (protocol, data.as_slice()) {
            (Protocol::Block(..), block) if !block.is_empty() => {
                self.dat0 = block.len().min(BLOCK_MAX) as u8;
                self.block.iter_mut().zip(block).for_each(|(d, s)| *d = *s);
                (self.index, self.draining) = (0, true);
            }
            (_, [a, b, ..]) => (self.dat0, self.dat1) = (*a, *b),
            (_, [a]) => self.dat0 = *a,
            (_, []) => {}
        }
        self.sts |= sts::INTR;
    }

    /// Rejects saved state out of range.
    ///
    /// # Errors
    /// A block index beyond the block.
    pub fn check(&self) -> Result<(), String> {
        if usize::from(self.index) < BLOCK_MAX { Ok(()) } else { Err("SMBus block index out of range".into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_data_read_of_an_eeprom() {
        let mut r = SmbusRegs::default();
        for (at, v) in [(3, 2), (4, 0xa1)] {
            assert_eq!(r.write(at, v), None);
        }
        assert_eq!(r.write(2, 0x48), None);
        let (busy, t) = r.read(0);
        let t = t.expect("started");
        assert_eq!(busy, 1);
        assert_eq!(t, Transfer { address: 0x50, read: true, protocol: Protocol::ByteData(2, 0) });
        r.finish(Some(vec![8]), &t.protocol);
        assert_eq!((r.read(0), r.read(5)), ((2, None), (8, None)));
        let _ = r.write(0, 0xff);
        assert_eq!(r.read(0), (0, None));
    }

    #[test]
    fn absent_device_is_an_error_until_cleared() {
        let mut r = SmbusRegs::default();
        let _ = r.write(4, 0x20);
        let t = r.write(2, 0x41).expect("started");
        r.finish(None, &t.protocol);
        assert_eq!((r.read(0).0, r.write(2, 0x41)), (4, None));
        let _ = r.write(0, 4);
        assert!(r.read(0).0 == 0 && r.write(2, 0x41).is_some());
    }

    #[test]
    fn a_block_goes_through_the_buffer() {
        let mut r = SmbusRegs::default();
        for (at, v) in [(4, 0xa0), (3, 0x10), (5, 2), (7, 0x11), (7, 0x22)] {
            assert_eq!(r.write(at, v), None);
        }
        let t = r.write(2, 0x55).expect("started");
        assert_eq!(t.protocol, Protocol::Block(0x10, vec![0x11, 0x22]));
        r.finish(Some(vec![]), &t.protocol);
        let _ = r.write(4, 0xa1);
        let t = r.write(2, 0x55).expect("started");
        r.finish(Some(vec![7, 8, 9]), &t.protocol);
        assert_eq!([5, 7, 7, 7, 7].map(|at| r.read(at).0), [3, 7, 8, 9, 7]);
        let _ = (r.write(4, 0xa0), r.write(7, 1));
        assert_eq!(r.write(2, 0x55), None); // three bytes announced, one there
        assert_eq!(r.read(0).0 & 4, 4);
    }

    #[test]
    fn a_killed_transfer_has_failed() {
        let mut r = SmbusRegs::default();
        assert_eq!((r.write(2, 0x48), r.write(2, 0x02), r.read(0).0), (None, None, 0x10));
    }
}
