//! The 82077AA floppy controller's registers and commands, for a machine without drives: every access to a drive ends
//! abnormally. Source: Intel 82077AA (290166) §2.1 (registers), §5 (commands), §6 (status). Drives come with the block layer.
//! As on QEMU: a drive that is not there is write protected, its medium was changed, and its head stays at track 0; no reset
//! changes what CONFIGURE and LOCK said; the tape drive register holds bit 2 alone.

use serde::{Deserialize, Serialize};

/// Digital output register.
mod dor {
    pub const NRESET: u8 = 0x04;
    pub const DMAGATE: u8 = 0x08;
    pub const SELECT: u8 = 0x03;
}
/// Main status register.
mod msr {
    pub const CMD_BUSY: u8 = 0x10;
    pub const DIO: u8 = 0x40;
    pub const RQM: u8 = 0x80;
}
/// Status register 0.
mod st0 {
    pub const SEEK_END: u8 = 0x20;
    pub const ABNTERM: u8 = 0x40;
    pub const INVCMD: u8 = 0x80;
    pub const RDYCHG: u8 = 0xc0;
}
/// Status register 3.
mod st3 {
    pub const WP: u8 = 0x40;
    pub const T0: u8 = 0x10;
    /// Bits 5 and 3.
    pub const ONES: u8 = 0x28;
}
/// DIR bit 7: the medium was changed.
const DSKCHG: u8 = 0x80;
/// TDR bit 2: which drive boots.
const BOOTSEL: u8 = 0x04;
/// DSR bit 7: software reset.
const SWRESET: u8 = 0x80;
/// Drives whose state changed is reported after a reset.
const DRIVES: u8 = 4;

/// All that the guest can observe and a snapshot must keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdcRegs {
    dor: u8,
    tdr: u8,
    dsr: u8,
    ccr: u8,
    /// Command bytes so far.
    command: Vec<u8>,
    /// Result bytes left.
    result: Vec<u8>,
    irq: bool,
    /// SENSE INTERRUPT STATUS answers left after a reset.
    reset_sensei: u8,
    /// ST0 of the interrupt that waits to be sensed.
    status0: u8,
    timer: [u8; 2],
    config: u8,
    precomp: u8,
    /// Drives in perpendicular mode (bits 5:2), gap and write gate.
    perpendicular: u8,
    lock: bool,
    /// Last sector, or sectors per track, of the last transfer.
    eot: u8,
}

impl Default for FdcRegs {
    fn default() -> Self {
        FdcRegs {
            dor: dor::NRESET | dor::DMAGATE,
            tdr: 0,
            dsr: 0,
            ccr: 0,
            command: vec![],
            result: vec![],
            irq: false,
            reset_sensei: 0,
            status0: 0,
            timer: [0; 2],
            config: 0x60, // implied seek off, FIFO off, polling on
            precomp: 0,
            perpendicular: 0,
            lock: false,
            eot: 0,
        }
    }
}

/// Length of a command in bytes by its first one; 1 for those that are invalid. §5.1, table 5-1.
fn length(first: u8) -> usize {
    match first & 0x1f {
        0x02 | 0x05 | 0x06 | 0x09 | 0x0c | 0x11 | 0x16 | 0x19 | 0x1d => 9,
        0x0d => 6,
        0x03 | 0x0f => 3,
        0x04 | 0x07 | 0x0a | 0x12 => 2,
        0x13 => 4,
        _ => 1,
    }
}

impl FdcRegs {
    /// Level of the interrupt line.
    pub fn irq(&self) -> bool {
        self.irq && self.dor & dor::DMAGATE != 0
    }

    /// Reset by pin (`hard`), by DOR bit 2 or by DSR bit 7.
    pub fn reset(&mut self, hard: bool) {
        let old = std::mem::take(self);
        (self.config, self.precomp, self.lock) = (old.config, old.precomp, old.lock);
        if !hard {
            (self.dor, self.tdr, self.ccr, self.eot) = (old.dor, old.tdr, old.ccr, old.eot);
            self.dsr = old.dsr & !SWRESET;
            (self.perpendicular, self.timer) = (old.perpendicular & !3, old.timer);
            self.irq = true;
            self.status0 = st0::RDYCHG;
            self.reset_sensei = DRIVES;
        }
    }

    fn in_reset(&self) -> bool {
        self.dor & dor::NRESET == 0
    }

    fn main_status(&self) -> u8 {
        if self.in_reset() {
            return 0;
        }
        let busy = if self.command.is_empty() && self.result.is_empty() { 0 } else { msr::CMD_BUSY };
        msr::RQM | busy | if self.result.is_empty() { 0 } else { msr::DIO }
    }

    /// Reads a register: 1 SRB, 2 DOR, 3 TDR, 4 MSR, 5 data, 7 DIR.
    pub fn read(&mut self, offset: u64) -> u8 {
        match offset {
            1 => 0xc0 | (self.dor & 1) << 5 | self.dor >> 4 & 3,
            2 => self.dor,
            3 => self.tdr,
            4 => self.main_status(),
            5 => {
                if self.result.is_empty() {
                    return 0;
                }
                self.irq = false;
                self.result.remove(0)
            }
            7 => DSKCHG,
            _ => 0xff,
        }
    }

    /// Writes a register: 2 DOR, 3 TDR, 4 DSR, 5 data, 7 CCR.
    pub fn write(&mut self, offset: u64, val: u8) {
        match offset {
            2 => {
                let was = self.in_reset();
                self.dor = val;
                if was && !self.in_reset() {
                    self.reset(false);
                }
            }
            3 if !self.in_reset() => self.tdr = val & BOOTSEL,
            4 if !self.in_reset() => {
                self.dsr = val;
                if val & SWRESET != 0 {
                    self.reset(false);
                }
            }
            5 if !self.in_reset() => self.write_data(val),
            7 if !self.in_reset() => self.ccr = val & 3,
            _ => {}
        }
    }

    fn write_data(&mut self, val: u8) {
        if !self.result.is_empty() {
            return; // the host must read first
        }
        self.command.push(val);
        let first = self.command.first().copied().unwrap_or(0);
        if self.command.len() >= length(first) {
            let command = std::mem::take(&mut self.command);
            self.execute(&command);
        }
    }

    /// A command ends with an interrupt; what a reset left to be sensed is forgotten.
    fn interrupt(&mut self, status0: u8) {
        self.status0 = status0;
        self.irq = true;
        self.reset_sensei = 0;
    }

    /// A command has all its bytes.
    fn execute(&mut self, c: &[u8]) {
        let byte = |n: usize| c.get(n).copied().unwrap_or(0);
        let select = byte(1) & 7;
        match byte(0) & 0x1f {
            // SPECIFY
            0x03 => self.timer = [byte(1), byte(2)],
            // SENSE DRIVE STATUS
            0x04 => self.result = vec![st3::WP | st3::T0 | st3::ONES | select],
            // RECALIBRATE, SEEK, RELATIVE SEEK: no head moves
            0x07 | 0x0f => self.interrupt(st0::SEEK_END | select & dor::SELECT),
            // SENSE INTERRUPT STATUS
            0x08 => self.sense_interrupt(),
            // DUMPREG
            0x0e => {
                let [a, b] = self.timer;
                let lock = u8::from(self.lock) << 7 | self.perpendicular;
                self.result = vec![0, 0, 0, 0, a, b, self.eot, lock, self.config, self.precomp];
            }
            // VERSION: enhanced controller
            0x10 => self.result = vec![0x90],
            // PERPENDICULAR MODE
            0x12 if byte(1) & 0x80 != 0 => self.perpendicular = byte(1) & 0x3f,
            0x12 => self.perpendicular = self.perpendicular & !3 | byte(1) & 3,
            // CONFIGURE
            0x13 => (self.config, self.precomp) = (byte(2), byte(3)),
            // LOCK and UNLOCK
            0x14 => {
                self.lock = byte(0) & 0x80 != 0;
                self.result = vec![u8::from(self.lock) << 4];
            }
            // transfers, READ ID, FORMAT: seven result bytes
            0x02 | 0x05 | 0x06 | 0x09 | 0x0a | 0x0c | 0x0d | 0x11 | 0x16 | 0x19 | 0x1d => {
                match c.len() {
                    9 => self.eot = byte(6),
                    6 => self.eot = byte(3), // sectors per track
                    _ => {}
                }
                // READ ID and FORMAT name no sector.
                let [c, h, r, n] = if c.len() == 9 { [byte(2), byte(3), byte(4), byte(5)] } else { [0; 4] };
                self.result = vec![st0::ABNTERM | select, 0, 0, c, h, r, n];
                self.interrupt(st0::ABNTERM | select);
            }
            _ => self.result = vec![st0::INVCMD],
        }
    }

    fn sense_interrupt(&mut self) {
        if self.reset_sensei > 0 {
            let drive = DRIVES - self.reset_sensei;
            self.result = vec![st0::RDYCHG | drive, 0];
            self.reset_sensei -= 1;
        } else if !self.irq {
            self.result = vec![st0::INVCMD];
            return;
        } else {
            self.result = vec![self.status0, 0];
        }
        self.irq = false;
        self.status0 = 0;
    }

    /// Rejects what the controller cannot hold.
    ///
    /// # Errors
    /// More bytes than a command or result has.
    pub fn check(&self) -> Result<(), String> {
        let ok = self.command.len() < 9 && self.result.len() <= 10 && self.reset_sensei <= DRIVES;
        if ok { Ok(()) } else { Err("floppy controller: impossible state".into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(r: &mut FdcRegs, bytes: &[u8]) -> Vec<u8> {
        bytes.iter().for_each(|b| r.write(5, *b));
        let mut out = vec![];
        while r.read(4) & msr::DIO != 0 {
            out.push(r.read(5));
        }
        out
    }

    #[test]
    fn leaving_reset_interrupts_and_four_drives_are_sensed() {
        let mut r = FdcRegs::default();
        r.write(2, 0);
        assert_eq!(r.read(4), 0);
        r.write(2, 0x0c);
        assert!(r.irq());
        for drive in 0..4 {
            assert_eq!(command(&mut r, &[8]), [0xc0 | drive, 0]);
        }
        assert_eq!(command(&mut r, &[8]), [0x80]);
        assert!(!r.irq());
    }

    #[test]
    fn seeks_end_without_a_drive_and_move_no_head() {
        let mut r = FdcRegs::default();
        for bytes in [&[0x0f, 1, 5][..], &[0xcf, 1, 2], &[0x8f, 1, 9], &[0x0f, 0, 3], &[7, 0], &[7, 1]] {
            assert!(command(&mut r, bytes).is_empty());
            assert!(r.irq());
            assert_eq!(command(&mut r, &[8]), [0x20 | bytes.get(1).copied().unwrap_or(0), 0]);
        }
    }

    #[test]
    fn a_drive_that_is_not_there_has_a_status() {
        let mut r = FdcRegs::default();
        assert_eq!(command(&mut r, &[4, 1]), [0x79]);
        assert!(command(&mut r, &[0x0f, 1, 5]).is_empty());
        assert_eq!((command(&mut r, &[4, 5]), command(&mut r, &[4, 0])), (vec![0x7d], vec![0x78]));
        assert_eq!(r.read(7), 0x80);
        r.write(3, 0xff);
        assert_eq!(r.read(3), 4);
    }

    #[test]
    fn resets_keep_the_configuration() {
        let mut r = FdcRegs::default();
        for lock in [0x94, 0x14] {
            assert!(command(&mut r, &[0x13, 0, 0x57, 9]).is_empty());
            assert_eq!(command(&mut r, &[lock]), [(lock & 0x80) >> 3]);
            r.write(4, SWRESET);
            (0..4).for_each(|_| _ = command(&mut r, &[8]));
            assert_eq!(command(&mut r, &[0x0e]).get(7..), Some(&[lock & 0x80, 0x57, 9][..]));
        }
        r.reset(true);
        assert_eq!(command(&mut r, &[0x0e]).get(8..), Some(&[0x57, 9][..]));
    }

    #[test]
    fn perpendicular_mode_is_dumped_and_partly_reset() {
        let mut r = FdcRegs::default();
        assert!(command(&mut r, &[0x12, 0xbd]).is_empty());
        assert!(command(&mut r, &[0x12, 0x3e]).is_empty()); // without OW only the low bits
        assert_eq!(command(&mut r, &[0x0e]).get(7), Some(&0x3e));
        r.write(4, SWRESET);
        (0..4).for_each(|_| _ = command(&mut r, &[8]));
        assert_eq!(command(&mut r, &[0x0e]).get(7), Some(&0x3c));
    }

    #[test]
    fn a_read_without_a_drive_ends_abnormally() {
        let mut r = FdcRegs::default();
        assert_eq!(command(&mut r, &[0xe6, 0, 1, 0, 2, 2, 18, 27, 0xff]), [0x40, 0, 0, 1, 0, 2, 2]);
        assert_eq!(command(&mut r, &[0x10]), [0x90]);
        assert_eq!(command(&mut r, &[0x94]), [0x10]);
        assert_eq!(command(&mut r, &[0x1f]), [0x80]);
    }
}
