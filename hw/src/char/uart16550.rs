//! The 16550A UART's registers, without wiring. Source: National PC16550D datasheet (June 1995), §8.
//! Not modelled: the shift register's time; a byte leaves as soon as the backend takes it. OUT2 does not gate the
//! interrupt, as on QEMU.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Depth of both FIFOs, §8.8.
pub const FIFO: usize = 16;
/// Received characters wait at most this many character times for the trigger level, §8.8.
const TIMEOUT_CHARS: u64 = 4;

/// Interrupt Enable Register bits, §8.6.
mod ier {
    pub const RDI: u8 = 1;
    pub const THRI: u8 = 2;
    pub const RLSI: u8 = 4;
    pub const MSI: u8 = 8;
}
/// Interrupt Identification Register values, §8.5, table IV.
mod iir {
    pub const NO_INT: u8 = 1;
    pub const MSI: u8 = 0;
    pub const THRI: u8 = 2;
    pub const RDI: u8 = 4;
    pub const RLSI: u8 = 6;
    pub const CTI: u8 = 0xc;
    pub const FIFOS: u8 = 0xc0;
}
/// FIFO Control Register bits, §8.4.
mod fcr {
    pub const FE: u8 = 1;
    pub const RFR: u8 = 2;
    pub const XFR: u8 = 4;
    pub const KEPT: u8 = 0xc9;
}
/// Line Control Register bits, §8.1.
mod lcr {
    pub const STB: u8 = 4;
    pub const PEN: u8 = 8;
    pub const SB: u8 = 0x40;
    pub const DLAB: u8 = 0x80;
}
/// Modem Control Register bits, §8.7.
mod mcr {
    pub const DTR: u8 = 1;
    pub const RTS: u8 = 2;
    pub const OUT: u8 = 0xc;
    pub const OUT2: u8 = 8;
    pub const LOOP: u8 = 0x10;
    pub const ALL: u8 = 0x1f;
}
/// Line Status Register bits, §8.3.
mod lsr {
    pub const DR: u8 = 1;
    pub const OE: u8 = 2;
    pub const BI: u8 = 0x10;
    pub const THRE: u8 = 0x20;
    pub const TEMT: u8 = 0x40;
    pub const INT_ANY: u8 = 0x1e;
}
/// Modem Status Register: deltas below, CTS DSR RI DCD above, §8.8.
mod msr {
    pub const ANY_DELTA: u8 = 0x0f;
    pub const CTS_DSR_DCD: u8 = 0xb0;
}

/// All that the guest can observe and a snapshot must keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UartRegs {
    divisor: u16,
    rbr: u8,
    thr: u8,
    tsr: Option<u8>,
    ier: u8,
    iir: u8,
    fcr: u8,
    lcr: u8,
    mcr: u8,
    lsr: u8,
    msr: u8,
    scr: u8,
    thr_ipending: bool,
    timeout_ipending: bool,
    recv: VecDeque<u8>,
    xmit: VecDeque<u8>,
    /// Virtual time at which the character timeout strikes, ns.
    timeout_at: Option<u64>,
}

impl Default for UartRegs {
    /// Master reset, table III, with the divisor of 9600 baud.
    fn default() -> Self {
        UartRegs {
            divisor: 12,
            rbr: 0,
            thr: 0,
            tsr: None,
            ier: 0,
            iir: iir::NO_INT,
            fcr: 0,
            lcr: 0,
            mcr: mcr::OUT2,
            lsr: lsr::THRE | lsr::TEMT,
            msr: msr::CTS_DSR_DCD,
            scr: 0,
            thr_ipending: false,
            timeout_ipending: false,
            recv: VecDeque::new(),
            xmit: VecDeque::new(),
            timeout_at: None,
        }
    }
}

/// What the wiring must bring about after any call: compare with what it did last.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    /// Level of the interrupt line.
    pub irq: bool,
    /// When [`UartRegs::expire`] is due, ns of virtual time.
    pub timeout_at: Option<u64>,
}

/// Line parameters for a backend that is a real port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineParams {
    /// Bits per second.
    pub speed: u32,
    /// Data bits, 5 to 8.
    pub data_bits: u8,
    /// Parity: none, odd, even.
    pub parity: char,
    /// Stop bits.
    pub stop_bits: u8,
}

impl UartRegs {
    fn fifo_enabled(&self) -> bool {
        self.fcr & fcr::FE != 0
    }

    /// Receive trigger level in bytes, §8.4.
    fn trigger(&self) -> usize {
        match self.fcr >> 6 {
            0 => 1,
            1 => 4,
            2 => 8,
            _ => 14,
        }
    }

    fn dlab(&self) -> bool {
        self.lcr & lcr::DLAB != 0
    }

    /// The highest pending interrupt, §8.5.
    fn pending(&self) -> u8 {
        let received = self.lsr & lsr::DR != 0 && (!self.fifo_enabled() || self.recv.len() >= self.trigger());
        if self.ier & ier::RLSI != 0 && self.lsr & lsr::INT_ANY != 0 {
            iir::RLSI
        } else if self.ier & ier::RDI != 0 && self.timeout_ipending {
            iir::CTI
        } else if self.ier & ier::RDI != 0 && received {
            iir::RDI
        } else if self.ier & ier::THRI != 0 && self.thr_ipending {
            iir::THRI
        } else if self.ier & ier::MSI != 0 && self.msr & msr::ANY_DELTA != 0 {
            iir::MSI
        } else {
            iir::NO_INT
        }
    }

    /// Level of the line and next timeout.
    pub fn effect(&mut self) -> Effect {
        let id = self.pending();
        self.iir = self.iir & iir::FIFOS | id;
        Effect { irq: id != iir::NO_INT, timeout_at: self.timeout_at }
    }

    /// Line parameters as programmed; `baudbase` is the rate of divisor 1.
    pub fn line_params(&self, baudbase: u32) -> LineParams {
        let parity = match (self.lcr & lcr::PEN != 0, self.lcr & 0x10 != 0) {
            (false, _) => 'N',
            (true, false) => 'O',
            (true, true) => 'E',
        };
        LineParams {
            speed: baudbase / u32::from(self.divisor.max(1)),
            data_bits: (self.lcr & 3) + 5,
            parity,
            stop_bits: if self.lcr & lcr::STB != 0 { 2 } else { 1 },
        }
    }

    fn char_time(&self, baudbase: u32) -> u64 {
        let p = self.line_params(baudbase);
        let bits = 1 + u64::from(p.data_bits) + u64::from(p.parity != 'N') + u64::from(p.stop_bits);
        bits * 1_000_000_000 / u64::from(p.speed.max(1))
    }

    fn arm_timeout(&mut self, now: u64, baudbase: u32) {
        self.timeout_at = Some(now + TIMEOUT_CHARS * self.char_time(baudbase));
    }

    /// Writes register `offset` (0-7).
    pub fn write(&mut self, offset: u64, val: u8) -> Effect {
        match (offset & 7, self.dlab()) {
            (0, true) => self.divisor = self.divisor & 0xff00 | u16::from(val),
            (1, true) => self.divisor = self.divisor & 0x00ff | u16::from(val) << 8,
            (0, false) => self.write_thr(val),
            (1, false) => {
                let changed = (self.ier ^ val) & 0xf;
                self.ier = val & 0xf;
                if changed & ier::THRI != 0 {
                    self.thr_ipending = self.ier & ier::THRI != 0 && self.lsr & lsr::THRE != 0;
                }
            }
            (2, _) => self.write_fcr(val),
            (3, _) => self.lcr = val,
            (4, _) => self.mcr = val & mcr::ALL,
            (7, _) => self.scr = val,
            _ => {} // LSR is for factory tests only, MSR is read-only
        }
        self.effect()
    }

    fn write_thr(&mut self, val: u8) {
        self.thr = val;
        if self.fifo_enabled() {
            if self.xmit.len() >= FIFO {
                self.xmit.pop_front();
            }
            self.xmit.push_back(val);
        }
        self.thr_ipending = false;
        self.lsr &= !(lsr::THRE | lsr::TEMT);
    }

    fn write_fcr(&mut self, mut val: u8) {
        if (val ^ self.fcr) & fcr::FE != 0 {
            val |= fcr::RFR | fcr::XFR;
        }
        if val & fcr::RFR != 0 {
            self.lsr &= !(lsr::DR | lsr::BI);
            self.timeout_at = None;
            self.timeout_ipending = false;
            self.recv.clear();
        }
        if val & fcr::XFR != 0 {
            self.lsr |= lsr::THRE;
            if self.tsr.is_none() {
                self.lsr |= lsr::TEMT;
            }
            self.thr_ipending = true;
            self.xmit.clear();
        }
        self.fcr = val & fcr::KEPT;
        self.iir = if self.fifo_enabled() { self.iir | iir::FIFOS } else { self.iir & !iir::FIFOS };
    }

    /// Reads register `offset` (0-7).
    pub fn read(&mut self, offset: u64, now: u64, baudbase: u32) -> (u8, Effect) {
        let val = match (offset & 7, self.dlab()) {
            (0, true) => self.divisor as u8,
            (1, true) => (self.divisor >> 8) as u8,
            (0, false) => self.read_rbr(now, baudbase),
            (1, false) => self.ier,
            (2, _) => {
                let id = self.iir;
                if id & 0xf == iir::THRI {
                    self.thr_ipending = false;
                }
                id
            }
            (3, _) => self.lcr,
            (4, _) => self.mcr,
            (5, _) => {
                let v = self.lsr;
                self.lsr &= !(lsr::BI | lsr::OE);
                v
            }
            (6, _) if self.mcr & mcr::LOOP != 0 => {
                (self.mcr & mcr::OUT) << 4 | (self.mcr & mcr::RTS) << 3 | (self.mcr & mcr::DTR) << 5
            }
            (6, _) => {
                let v = self.msr;
                self.msr &= !msr::ANY_DELTA;
                v
            }
            _ => self.scr,
        };
        (val, self.effect())
    }

    fn read_rbr(&mut self, now: u64, baudbase: u32) -> u8 {
        if !self.fifo_enabled() {
            self.lsr &= !(lsr::DR | lsr::BI);
            return self.rbr;
        }
        let val = self.recv.pop_front().unwrap_or(0);
        if self.recv.is_empty() {
            self.lsr &= !(lsr::DR | lsr::BI);
            self.timeout_at = None;
        } else {
            self.arm_timeout(now, baudbase);
        }
        self.timeout_ipending = false;
        val
    }

    /// The byte in the shift register, loading it first if it is empty; the wiring sends it and calls
    /// [`UartRegs::sent`], or keeps it for a later try.
    pub fn to_send(&mut self) -> Option<u8> {
        if self.tsr.is_none() && self.lsr & lsr::THRE == 0 {
            self.tsr = if self.fifo_enabled() { self.xmit.pop_front() } else { Some(self.thr) };
            if self.xmit.is_empty() {
                self.lsr |= lsr::THRE;
                self.thr_ipending = true;
            }
        }
        if self.tsr.is_none() && self.lsr & lsr::THRE != 0 {
            self.lsr |= lsr::TEMT;
        }
        self.tsr
    }

    /// True if what is sent comes back by the loop (MCR bit 4) instead of leaving.
    pub fn loops_back(&self) -> bool {
        self.mcr & mcr::LOOP != 0
    }

    /// The shift register has been emptied.
    pub fn sent(&mut self) {
        self.tsr = None;
        if self.lsr & lsr::THRE != 0 {
            self.lsr |= lsr::TEMT;
        }
    }

    /// How many bytes may be received now.
    pub fn can_receive(&self) -> usize {
        if self.loops_back() {
            return 0;
        }
        if !self.fifo_enabled() {
            return usize::from(self.lsr & lsr::DR == 0);
        }
        match (self.recv.len(), self.trigger()) {
            (n, _) if n >= FIFO => 0,
            (n, t) if n < t => t - n,
            _ => 1,
        }
    }

    /// Takes received bytes; an overrun sets OE and loses the byte (FIFO) or the one before (no FIFO).
    pub fn receive(&mut self, bytes: &[u8], now: u64, baudbase: u32) -> Effect {
        for &b in bytes {
            if self.fifo_enabled() {
                if self.recv.len() >= FIFO {
                    self.lsr |= lsr::OE;
                } else {
                    self.recv.push_back(b);
                }
            } else {
                if self.lsr & lsr::DR != 0 {
                    self.lsr |= lsr::OE;
                }
                self.rbr = b;
            }
            self.lsr |= lsr::DR;
        }
        if self.fifo_enabled() && !bytes.is_empty() {
            self.arm_timeout(now, baudbase);
        }
        self.effect()
    }

    /// A break condition: a zero byte with BI, §8.3.
    pub fn receive_break(&mut self, now: u64, baudbase: u32) -> Effect {
        let _ = self.receive(&[0], now, baudbase);
        self.lsr |= lsr::BI;
        self.effect()
    }

    /// The character timeout struck.
    pub fn expire(&mut self) -> Effect {
        self.timeout_at = None;
        self.timeout_ipending = !self.recv.is_empty();
        self.effect()
    }

    /// The guest holds the line in break (LCR bit 6).
    pub fn sends_break(&self) -> bool {
        self.lcr & lcr::SB != 0
    }

    /// Rejects what no UART can hold.
    ///
    /// # Errors
    /// A FIFO longer than it is deep.
    pub fn check(&self) -> Result<(), String> {
        if self.recv.len() > FIFO || self.xmit.len() > FIFO { Err("FIFO of more than 16 bytes".into()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    const BASE: u32 = 115_200;

    fn drain(u: &mut UartRegs) -> Vec<u8> {
        let mut out = vec![];
        while let Some(b) = u.to_send() {
            out.push(b);
            u.sent();
        }
        out
    }

    #[test]
    fn transmitter_empties_and_interrupts() {
        let mut u = UartRegs::default();
        assert!(u.write(1, ier::THRI).irq); // THRE is set: enabling interrupts at once
        assert_eq!(u.read(2, 0, BASE), (iir::THRI, Effect { irq: false, timeout_at: None }));
        assert!(!u.write(0, b'x').irq);
        assert_eq!(u.read(5, 0, BASE).0, 0);
        assert_eq!(drain(&mut u), b"x");
        assert!(u.effect().irq);
        assert_eq!(u.read(5, 0, BASE).0, lsr::THRE | lsr::TEMT);
    }

    #[test]
    fn fifo_interrupts_at_its_trigger_or_after_a_timeout() {
        let mut u = UartRegs::default();
        let _ = u.write(2, 0x41); // FIFO on, trigger 4
        let _ = u.write(1, ier::RDI);
        let e = u.receive(b"abc", 1000, BASE);
        assert!(!e.irq);
        let due = e.timeout_at.expect("armed");
        assert_eq!(due - 1000, 4 * (7 * 1_000_000_000 / 9600)); // 5 data bits after reset: 7 bits a frame
        assert!(u.expire().irq);
        assert_eq!(u.read(2, due, BASE).0, iir::FIFOS | iir::CTI);
        assert_eq!(u.read(0, due, BASE).0, b'a');
        assert_eq!(u.read(2, due, BASE).0, iir::FIFOS | iir::NO_INT);
        assert!(u.receive(b"de", due, BASE).irq);
        assert_eq!(u.read(2, due, BASE).0, iir::FIFOS | iir::RDI);
    }

    #[test]
    fn overrun_sets_oe_until_read() {
        let mut u = UartRegs::default();
        let _ = u.receive(b"ab", 0, BASE);
        assert_eq!(u.read(5, 0, BASE).0 & (lsr::DR | lsr::OE), lsr::DR | lsr::OE);
        assert_eq!(u.read(5, 0, BASE).0 & lsr::OE, 0);
        assert_eq!(u.read(0, 0, BASE).0, b'b');
    }

    #[test]
    fn loopback_shows_modem_control_in_modem_status() {
        let mut u = UartRegs::default();
        let _ = u.write(4, mcr::LOOP | mcr::RTS | mcr::OUT2);
        assert_eq!(u.read(6, 0, BASE).0, 0x90);
        assert_eq!(u.can_receive(), 0);
    }

    #[test]
    fn divisor_behind_dlab() {
        let mut u = UartRegs::default();
        for (reg, val) in [(3, 0x83), (0, 1), (1, 0), (3, 3)] {
            let _ = u.write(reg, val);
        }
        let p = u.line_params(BASE);
        assert_eq!((p.speed, p.data_bits, p.parity, p.stop_bits), (115_200, 8, 'N', 1));
        let _ = u.write(3, 0x83);
        assert_eq!((u.read(0, 0, BASE).0, u.read(1, 0, BASE).0), (1, 0));
    }
}
