//! Bus-master IDE registers of one channel. Source: SFF-8038i §3 (BMICx, BMISx, BMIDTPx).

use serde::{Deserialize, Serialize};

/// BMIC: start; read or write.
mod bmic {
    pub const SSBM: u8 = 0x01;
    pub const KEPT: u8 = 0x09;
}
/// BMIS: active, error, interrupt, drives are DMA capable.
mod bmis {
    pub const ACTIVE: u8 = 0x01;
    pub const INTERRUPT: u8 = 0x04;
    pub const W1C: u8 = 0x06;
    pub const CAPABLE: u8 = 0x60;
}

/// All that the guest can observe and a snapshot must keep.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BmdmaRegs {
    bmic: u8,
    bmis: u8,
    bmidtp: u32,
}

/// What a write of BMIC does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Nothing new.
    Same,
    /// The bus master starts.
    Started,
    /// It stops.
    Stopped,
}

impl BmdmaRegs {
    /// Whether a transfer may run.
    pub fn is_active(&self) -> bool {
        self.bmis & bmis::ACTIVE != 0
    }

    /// Address of the table of descriptors.
    pub fn table(&self) -> u32 {
        self.bmidtp
    }

    /// The drive interrupts.
    pub fn interrupt(&mut self) {
        self.bmis |= bmis::INTERRUPT;
    }

    /// A transfer has ended; `longer`: the table has not.
    pub fn end(&mut self, longer: bool) {
        if !longer {
            self.bmis &= !bmis::ACTIVE;
        }
    }

    /// Reads a byte of the channel's eight.
    pub fn read(&self, offset: u64) -> u8 {
        match offset {
            0 => self.bmic,
            2 => self.bmis,
            4..=7 => (self.bmidtp >> (8 * (offset - 4))) as u8,
            _ => 0xff,
        }
    }

    /// Writes a byte of the channel's eight.
    pub fn write(&mut self, offset: u64, val: u8) -> Engine {
        let mut engine = Engine::Same;
        match offset {
            0 => {
                if val & bmic::SSBM == 0 {
                    if self.is_active() {
                        engine = Engine::Stopped;
                    }
                    self.bmis &= !bmis::ACTIVE;
                } else if self.bmic & bmic::SSBM == 0 {
                    self.bmis |= bmis::ACTIVE;
                    engine = Engine::Started;
                }
                self.bmic = val & bmic::KEPT;
            }
            2 => self.bmis = val & bmis::CAPABLE | self.bmis & bmis::ACTIVE | self.bmis & !val & bmis::W1C,
            4..=7 => {
                let shift = 8 * (offset - 4);
                self.bmidtp = (self.bmidtp & !(0xff << shift) | u32::from(val) << shift) & !3;
            }
            _ => {}
        }
        engine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_bits_clear_by_ones_and_the_pointer_is_aligned() {
        let mut r = BmdmaRegs::default();
        r.write(4, 0xff);
        r.write(2, 0x66);
        assert_eq!((r.read(4), r.read(2), r.read(1)), (0xfc, 0x60, 0xff));
        r.write(0, 0x09);
        assert_eq!((r.read(0), r.read(2)), (0x09, 0x61));
        r.write(0, 0x00);
        assert_eq!(r.read(2), 0x60);
    }
}
