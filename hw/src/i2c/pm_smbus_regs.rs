//! The SMBus host controller of PIIX4. Registers only. Source: Intel 82371AB (PIIX4, 290562) §7.3.
//! Not modelled: transfer time (a transfer is over when its start is written), the slave interface.

use serde::{Deserialize, Serialize};

/// SMBHSTSTS bits.
mod sts {
    pub const INTR: u8 = 0x02;
    pub const DEV_ERR: u8 = 0x04;
    pub const CLEARABLE: u8 = 0x1e;
}
/// SMBHSTCNT bits.
mod cnt {
    pub const INTREN: u8 = 0x01;
    pub const START: u8 = 0x40;
    pub const PROTOCOL: u8 = 0x1c;
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
}

impl Default for SmbusRegs {
    fn default() -> Self {
        SmbusRegs { sts: 0, cnt: 0, cmd: 0, add: 0, dat0: 0, dat1: 0, block: [0; BLOCK_MAX], index: 0 }
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
    /// Level of the interrupt.
    pub fn irq(&self) -> bool {
        self.cnt & cnt::INTREN != 0 && self.sts & (sts::INTR | sts::DEV_ERR) != 0
    }

    /// Reads a register.
    pub fn read(&mut self, offset: u64) -> u8 {
        match offset {
            0 => self.sts,
            2 => {
                self.index = 0; // reading SMBHSTCNT rewinds the block
                self.cnt
            }
            3 => self.cmd,
            4 => self.add,
            5 => self.dat0,
            6 => self.dat1,
            7 => {
                let v = self.block.get(usize::from(self.index)).copied().unwrap_or(0);
                self.index = (self.index + 1) % BLOCK_MAX as u8;
                v
            }
            _ => 0,
        }
    }

    /// Writes a register; a transfer is to be carried out and reported to [`SmbusRegs::finish`].
    #[must_use]
    pub fn write(&mut self, offset: u64, val: u8) -> Option<Transfer> {
        match offset {
            0 => {
                self.sts &= !(val & sts::CLEARABLE);
                self.index = 0;
            }
            2 => {
                self.cnt = val & !cnt::START;
                if val & cnt::START != 0 {
                    return self.start();
                }
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
        if self.sts & sts::DEV_ERR != 0 {
            return None; // the error must be cleared first
        }
        let protocol = match (self.cnt & cnt::PROTOCOL) >> 2 {
            0 => Protocol::Quick,
            1 => Protocol::Byte(self.cmd),
            2 => Protocol::ByteData(self.cmd, self.dat0),
            3 => Protocol::WordData(self.cmd, u16::from_le_bytes([self.dat0, self.dat1])),
            5 => {
                let n = usize::from(self.dat0).clamp(1, BLOCK_MAX);
                Protocol::Block(self.cmd, self.block.iter().take(n).copied().collect())
            }
            _ => {
                self.finish(None, &Protocol::Quick);
                return None;
            }
        };
        Some(Transfer { address: self.add >> 1, read: self.add & 1 != 0, protocol })
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
                self.index = 0;
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
        let t = r.write(2, 0x48).expect("started");
        assert_eq!(t, Transfer { address: 0x50, read: true, protocol: Protocol::ByteData(2, 0) });
        r.finish(Some(vec![8]), &t.protocol);
        assert_eq!((r.read(0), r.read(5)), (2, 8));
        let _ = r.write(0, 0xff);
        assert_eq!(r.read(0), 0);
    }

    #[test]
    fn absent_device_is_an_error_until_cleared() {
        let mut r = SmbusRegs::default();
        let _ = r.write(4, 0x20);
        let t = r.write(2, 0x41).expect("started");
        r.finish(None, &t.protocol);
        assert!(r.irq());
        assert_eq!(r.write(2, 0x41), None);
        let _ = r.write(0, 4);
        assert!(!r.irq() && r.write(2, 0x41).is_some());
    }
}
