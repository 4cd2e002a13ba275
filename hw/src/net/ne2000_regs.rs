//! National Semiconductor's DP8390 network interface controller with the 32 KiB of packet memory and the station address PROM of an
//! NE2000 board. Source: DP8390D/NS32490D datasheet (§10, registers; §9, packet reception; §11, remote DMA), the NE2000's map of its
//! memory, and RTL8029AS datasheet (page 3 and its identification). Not modelled: loopback, collisions and other errors of the wire,
//! the send-packet command, the address counters of local DMA.

use net::Frame;
use net::checksum::group_hash;
use serde::{Deserialize, Serialize};

/// Bytes of the board's memory: the PROM below, packets from [`PACKETS`] on.
const MEMORY: usize = 48 * 1024;
const PACKETS: usize = 16 * 1024;
/// Bytes of the PROM: each is there twice.
const PROM: usize = 32;
/// Bytes of a page of packet memory.
const PAGE: u16 = 256;
/// Bytes before a packet in the receive ring.
const HEADER: u16 = 4;
/// Bytes of a frame without check sequence, at least.
const SHORTEST: usize = 60;
/// Bytes of the check sequence, which is counted but not kept.
const FCS: u16 = 4;

/// Command register.
mod cr {
    pub const STP: u8 = 1;
    pub const STA: u8 = 2;
    pub const TXP: u8 = 4;
    pub const READ: u8 = 0x08;
    pub const WRITE: u8 = 0x10;
    pub const ABORT: u8 = 0x20;
}

/// Interrupt status.
mod isr {
    pub const PRX: u8 = 0x01;
    pub const PTX: u8 = 0x02;
    pub const OVW: u8 = 0x10;
    pub const RDC: u8 = 0x40;
    pub const RST: u8 = 0x80;
    pub const CAUSES: u8 = 0x7f;
}

/// Receive configuration.
mod rcr {
    pub const AB: u8 = 0x04;
    pub const AM: u8 = 0x08;
    pub const PRO: u8 = 0x10;
    pub const MON: u8 = 0x20;
}

/// Receive status: intact, to a group or all.
const RSR_PRX: u8 = 0x01;
const RSR_PHY: u8 = 0x20;
/// Transmit status: done.
const TSR_PTX: u8 = 0x01;
/// Data configuration: words.
const DCR_WTS: u8 = 0x01;
/// Ports beyond the controller: data of remote DMA, reset.
const DATA: u32 = 0x10;
const RESET: u32 = 0x1f;

/// All that the guest can observe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ne2000Regs {
    cr: u8,
    isr: u8,
    imr: u8,
    dcr: u8,
    rcr: u8,
    tcr: u8,
    tsr: u8,
    rsr: u8,
    pstart: u16,
    pstop: u16,
    bnry: u8,
    curr: u8,
    tpsr: u8,
    tbcr: u16,
    rsar: u16,
    rbcr: u16,
    par: [u8; 6],
    mar: [u8; 8],
    memory: Vec<u8>,
}

impl Default for Ne2000Regs {
    fn default() -> Self {
        Self::power_on([0; 6])
    }
}

impl Ne2000Regs {
    /// After power on; `mac`: what the PROM holds.
    pub fn power_on(mac: [u8; 6]) -> Self {
        let mut regs = Self {
            cr: 0,
            isr: 0,
            imr: 0,
            dcr: 0,
            rcr: 0,
            tcr: 0,
            tsr: 0,
            rsr: 0,
            pstart: 0,
            pstop: 0,
            bnry: 0,
            curr: 0,
            tpsr: 0,
            tbcr: 0,
            rsar: 0,
            rbcr: 0,
            par: [0; 6],
            mar: [0; 8],
            memory: vec![0; MEMORY],
        };
        let mut prom = [0; PROM / 2];
        for (to, from) in prom.iter_mut().zip(mac) {
            *to = from;
        }
        // What drivers know a 16-bit board by.
        (prom[14], prom[15]) = (0x57, 0x57);
        for (pair, byte) in regs.memory.chunks_exact_mut(2).zip(prom) {
            pair.fill(byte);
        }
        regs.reset();
        regs
    }

    /// What the reset port does.
    pub fn reset(&mut self) {
        self.isr = isr::RST;
        self.cr = cr::STP | cr::ABORT;
    }

    /// Whether a snapshot may hold this.
    pub fn is_possible(&self) -> bool {
        self.memory.len() == MEMORY
    }

    /// Whether an interrupt is asked for.
    pub fn line(&self) -> bool {
        self.isr & self.imr & isr::CAUSES != 0
    }

    /// The station's address.
    pub fn station(&self) -> [u8; 6] {
        self.par
    }

    // ---- registers ----

    fn page(&self) -> u8 {
        self.cr >> 6
    }

    /// Reads.
    pub fn read(&mut self, at: u32, size: u32) -> u32 {
        match at {
            DATA..RESET => self.read_data(size),
            RESET => {
                self.reset();
                0
            }
            _ => (0..size).fold(0, |all, n| all | u32::from(self.register(at + n)) << (8 * n)),
        }
    }

    fn register(&self, at: u32) -> u8 {
        if at == 0 {
            return self.cr;
        }
        match (self.page(), at) {
            (0, 3) => self.bnry,
            (0, 4) => self.tsr,
            (0, 7) => self.isr,
            (0, 8) => self.rsar as u8,
            (0, 9) => (self.rsar >> 8) as u8,
            // Who the controller is.
            (0, 10) => 0x50,
            (0, 11) => 0x43,
            (0, 12) => self.rsr,
            (1, 1..=6) => self.par.get(at as usize - 1).copied().unwrap_or(0),
            (1, 7) => self.curr,
            (1, 8..=15) => self.mar.get(at as usize - 8).copied().unwrap_or(0),
            (2, 1) => (self.pstart >> 8) as u8,
            (2, 2) => (self.pstop >> 8) as u8,
            // Full duplex, on a cable of twisted pairs.
            (3, 5 | 6) => 0x40,
            _ => 0,
        }
    }

    /// Writes; the frame that is to be sent.
    pub fn write(&mut self, at: u32, size: u32, v: u32) -> Option<Frame> {
        match at {
            DATA..RESET => self.write_data(size, v),
            RESET => {}
            _ => {
                let mut frame = None;
                for n in 0..size {
                    frame = self.set_register(at + n, (v >> (8 * n)) as u8).or(frame);
                }
                return frame;
            }
        }
        None
    }

    fn set_register(&mut self, at: u32, v: u8) -> Option<Frame> {
        if at == 0 {
            return self.set_cr(v);
        }
        let low = |w: u16| w & 0xff00 | u16::from(v);
        let high = |w: u16| w & 0x00ff | u16::from(v) << 8;
        match (self.page(), at) {
            (0, 1) => self.pstart = u16::from(v) << 8,
            (0, 2) => self.pstop = u16::from(v) << 8,
            (0, 3) => self.bnry = v,
            (0, 4) => self.tpsr = v,
            (0, 5) => self.tbcr = low(self.tbcr),
            (0, 6) => self.tbcr = high(self.tbcr),
            (0, 7) => self.isr &= !(v & isr::CAUSES),
            (0, 8) => self.rsar = low(self.rsar),
            (0, 9) => self.rsar = high(self.rsar),
            (0, 10) => self.rbcr = low(self.rbcr),
            (0, 11) => self.rbcr = high(self.rbcr),
            (0, 12) => self.rcr = v,
            (0, 13) => self.tcr = v,
            (0, 14) => self.dcr = v,
            (0, 15) => self.imr = v,
            (1, 1..=6) => {
                if let Some(b) = self.par.get_mut(at as usize - 1) {
                    *b = v;
                }
            }
            (1, 7) => self.curr = v,
            (1, 8..=15) => {
                if let Some(b) = self.mar.get_mut(at as usize - 8) {
                    *b = v;
                }
            }
            _ => {}
        }
        None
    }

    fn set_cr(&mut self, v: u8) -> Option<Frame> {
        self.cr = v;
        if v & cr::STP != 0 {
            return None;
        }
        self.isr &= !isr::RST;
        if v & (cr::READ | cr::WRITE) != 0 && self.rbcr == 0 {
            // Nothing to be moved: done at once.
            self.isr |= isr::RDC;
        }
        if v & cr::TXP == 0 {
            return None;
        }
        let start = usize::from(self.tpsr) * usize::from(PAGE);
        let frame = self.memory.get(start..start + usize::from(self.tbcr)).filter(|_| start >= PACKETS);
        let frame = frame.map(<[u8]>::to_vec);
        self.tsr = TSR_PTX;
        self.isr |= isr::PTX;
        self.cr &= !cr::TXP;
        frame.filter(|f| !f.is_empty())
    }

    // ---- remote DMA ----

    /// Whether there is memory for a byte at this address; the PROM can only be read.
    fn there(at: u16, write: bool) -> bool {
        let at = usize::from(at);
        at < PROM && !write || (PACKETS..MEMORY).contains(&at)
    }

    fn moved(&mut self, bytes: u16) {
        self.rsar = self.rsar.wrapping_add(bytes);
        // The ring of pages: behind its last byte comes its first.
        if self.rsar == self.pstop {
            self.rsar = self.pstart;
        }
        self.rbcr = self.rbcr.saturating_sub(bytes);
        if self.rbcr == 0 {
            self.isr |= isr::RDC;
        }
    }

    /// Bytes that an access of the data port moves.
    fn width(&self, size: u32) -> u16 {
        match size {
            4 => 4,
            _ if self.dcr & DCR_WTS != 0 => 2,
            _ => 1,
        }
    }

    fn read_data(&mut self, size: u32) -> u32 {
        let width = self.width(size);
        let at = if width == 1 { self.rsar } else { self.rsar & !1 };
        let value = (0..width).fold(0, |all, n| {
            let from = at.wrapping_add(n);
            let byte = self.memory.get(usize::from(from)).filter(|_| Self::there(from, false)).copied().unwrap_or(0xff);
            all | u32::from(byte) << (8 * n)
        });
        self.moved(width);
        value
    }

    fn write_data(&mut self, size: u32, v: u32) {
        if self.rbcr == 0 {
            return;
        }
        let width = self.width(size);
        let at = if width == 1 { self.rsar } else { self.rsar & !1 };
        for n in 0..width {
            let to = at.wrapping_add(n);
            if let Some(byte) = self.memory.get_mut(usize::from(to)).filter(|_| Self::there(to, true)) {
                *byte = (v >> (8 * n)) as u8;
            }
        }
        self.moved(width);
    }

    // ---- reception ----

    /// Bytes of the ring that are free, or `None`: there is no ring, or the controller is stopped.
    fn free(&self) -> Option<u16> {
        let (first, end) = (usize::from(self.pstart), usize::from(self.pstop));
        if self.cr & cr::STP != 0 || first < PACKETS || end > MEMORY || first >= end {
            return None;
        }
        let (write, read) = (u16::from(self.curr) << 8, u16::from(self.bnry) << 8);
        Some(if write < read { read - write } else { (self.pstop - self.pstart).saturating_sub(write - read) })
    }

    fn wants(&self, to: [u8; 6]) -> bool {
        if self.rcr & rcr::PRO != 0 {
            return true;
        }
        if to == [0xff; 6] {
            return self.rcr & rcr::AB != 0;
        }
        let [first, ..] = to;
        if first & 1 != 0 {
            let hash = group_hash(to) as usize;
            return self.rcr & rcr::AM != 0 && self.mar.get(hash >> 3).is_some_and(|b| b >> (hash & 7) & 1 != 0);
        }
        to == self.par
    }

    /// Takes a frame; false: there is no room yet, of which software is told however often it has acknowledged that: drivers take but some
    /// frames at an interrupt and rely on the next to tell them of the others.
    pub fn receive(&mut self, frame: &[u8]) -> bool {
        let Some(free) = self.free() else { return true };
        let Some(to) = frame.first_chunk::<6>().copied().filter(|to| self.wants(*to)) else { return true };
        let mut data = frame.to_vec();
        if data.len() < SHORTEST {
            data.resize(SHORTEST, 0);
        }
        let Ok(len) = u16::try_from(data.len()) else { return true };
        let Some(whole) = len.checked_add(HEADER + FCS) else { return true };
        let [first, ..] = to;
        self.rsr = RSR_PRX | if first & 1 != 0 { RSR_PHY } else { 0 };
        if self.rcr & rcr::MON != 0 {
            return true;
        }
        let pages = whole.div_ceil(PAGE);
        if u32::from(pages) * u32::from(PAGE) > u32::from(free) {
            self.isr |= isr::OVW;
            // A frame that is larger than the ring will never fit.
            return u32::from(pages) * u32::from(PAGE) > u32::from(self.pstop - self.pstart);
        }
        let start = u16::from(self.curr) << 8;
        if !(self.pstart..self.pstop).contains(&start) {
            return true;
        }
        let mut next = u32::from(start) + u32::from(pages) * u32::from(PAGE);
        if next >= u32::from(self.pstop) {
            next -= u32::from(self.pstop - self.pstart);
        }
        let [l0, l1] = (len + FCS).to_le_bytes();
        let header = [self.rsr, (next >> 8) as u8, l0, l1];
        let mut at = start;
        for byte in header.iter().chain(&data) {
            if let Some(to) = self.memory.get_mut(usize::from(at)) {
                *to = *byte;
            }
            at = at.wrapping_add(1);
            if at == self.pstop {
                at = self.pstart;
            }
        }
        self.curr = (next >> 8) as u8;
        self.isr |= isr::PRX;
        true
    }

    /// Whether a write may have made room.
    pub fn runs(&self) -> bool {
        self.cr & (cr::STP | cr::STA) == cr::STA
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    /// A started controller whose ring is pages 46H to 4FH.
    fn started(rcr: u8) -> Ne2000Regs {
        let mut r = Ne2000Regs::power_on(MAC);
        for (at, v) in [(0, 0x21), (1, 0x46), (2, 0x50), (3, 0x46), (12, rcr.into()), (14, 0x49), (15, 0x7f)] {
            r.write(at, 1, v);
        }
        r.write(0, 1, 0x61);
        for (n, b) in MAC.into_iter().enumerate() {
            r.write(1 + n as u32, 1, b.into());
        }
        r.write(7, 1, 0x46);
        r.write(0, 1, 0x22);
        r
    }

    fn page0(r: &Ne2000Regs, at: usize, len: usize) -> Vec<u8> {
        r.memory[at..at + len].to_vec()
    }

    fn frame(to: [u8; 6], len: usize) -> Vec<u8> {
        [&to[..], &(6..len).map(|n| n as u8).collect::<Vec<_>>()].concat()
    }

    #[test]
    fn frames_go_round_the_ring() {
        let mut r = started(0);
        assert!(!r.line());
        assert!(r.receive(&frame(MAC, 1000)));
        // Header: status, next page, length with check sequence.
        assert_eq!(page0(&r, 0x4600, 4), [1, 0x4a, (1004 & 0xff) as u8, 3]);
        assert_eq!(page0(&r, 0x4604, 1000), frame(MAC, 1000));
        assert!(r.line());
        assert!(r.receive(&frame(MAC, 20)));
        assert_eq!(page0(&r, 0x4a00, 4), [1, 0x4b, 64, 0], "short frames are filled up");
        // Software has read the first: the next one goes over the ring's end.
        r.write(3, 1, 0x4a);
        assert!(r.receive(&frame(MAC, 1400)));
        assert_eq!(page0(&r, 0x4b00, 4), [1, 0x47, (1404 & 0xff) as u8, 5]);
        let stored = [page0(&r, 0x4b04, 0x500 - 4), page0(&r, 0x4600, 1400 - 0x4fc)].concat();
        assert_eq!(stored, frame(MAC, 1400));
        // Three pages are left: a long frame waits, and software is told.
        assert_eq!((r.receive(&frame(MAC, 1000)), r.read(7, 1) & 0x10), (false, 0x10));
        r.write(3, 1, 0x47);
        assert!(r.receive(&frame(MAC, 1000)));
        // What is larger than the ring is lost.
        assert!(r.receive(&frame(MAC, 5000)));
    }

    #[test]
    fn filters_choose() {
        let group = [1, 0, 0x5e, 0, 0, 1];
        for (rcr, to, taken) in [
            (0, MAC, true),
            (0, [2; 6], false),
            (rcr::PRO, [2; 6], true),
            (0, [0xff; 6], false),
            (rcr::AB, [0xff; 6], true),
            (rcr::AM, group, false),
            (rcr::MON, MAC, false),
        ] {
            let mut r = started(rcr);
            assert!(r.receive(&frame(to, 60)));
            assert_eq!(r.read(7, 1) & 1 != 0, taken, "{rcr:#x} {to:x?}");
        }
        let mut r = started(rcr::AM);
        r.mar = [0xff; 8];
        assert!(r.receive(&frame(group, 60)));
        assert_eq!(page0(&r, 0x4600, 1), [0x21]);
        // A controller that is stopped, or has no ring, loses all.
        for (at, v) in [(0, 0x21), (1, 0x10), (2, 0xff), (2, 0x46)] {
            let mut r = started(rcr::PRO);
            r.write(at, 1, v);
            assert!(r.receive(&frame(MAC, 60)), "{at} {v:#x}");
            assert_eq!(r.isr & 1, 0, "{at} {v:#x}");
        }
    }

    #[test]
    fn frames_are_sent_from_packet_memory() {
        let mut r = started(0);
        let whole = frame([9; 6], 60);
        for (at, v) in [(8, 0), (9, 0x40), (10, 60), (11, 0), (0, 0x12)] {
            r.write(at, 1, v);
        }
        for pair in whole.chunks(2) {
            r.write(DATA, 2, u32::from(pair[0]) | u32::from(pair[1]) << 8);
        }
        assert_eq!(r.read(7, 1) & 0x40, 0x40);
        for (at, v) in [(4, 0x40), (5, 60), (6, 0)] {
            r.write(at, 1, v);
        }
        assert_eq!(r.write(0, 1, 0x26), Some(whole));
        assert_eq!((r.read(4, 1), r.read(7, 1) & 2), (1, 2));
        // Beyond packet memory there is nothing to send.
        r.write(4, 1, 0xbf);
        r.write(6, 1, 0xff);
        assert_eq!(r.write(0, 1, 0x26), None);
        r.write(4, 1, 0);
        assert_eq!(r.write(0, 1, 0x26), None);
    }
}
