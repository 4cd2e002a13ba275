//! Reception of the 8254x: which frames are taken, and what descriptors say of them. Source: Intel 317453, §3.2 (descriptors),
//! §13.4.22 (RCTL), §13.5 (filters). The frame check sequence that follows a frame (unless SECRC) is zeros: no driver checks it.

use super::e1000_regs::{E1000Regs, ctrl, icr, stat};
use net::checksum;

/// Receive control, §13.4.22.
mod rctl {
    pub const EN: u32 = 1 << 1;
    pub const UPE: u32 = 1 << 3;
    pub const MPE: u32 = 1 << 4;
    pub const LPE: u32 = 1 << 5;
    pub const LBM: u32 = 3 << 6;
    pub const BAM: u32 = 1 << 15;
    pub const VFE: u32 = 1 << 18;
    pub const BSEX: u32 = 1 << 25;
    pub const SECRC: u32 = 1 << 26;
}

/// Receive checksum control: IP, TCP and UDP.
const IPOFL: u32 = 1 << 8;
const TUOFL: u32 = 1 << 9;

/// Longest frame without and with LPE, checksum left out.
const NORMAL: usize = 1518;
const LONG: usize = 16384;

/// Status and errors of a descriptor, §3.2.3.
const DD: u8 = 1;
const EOP: u8 = 2;
const IXSM: u8 = 4;
const VP: u8 = 8;
const TCPCS: u8 = 0x20;
const IPCS: u8 = 0x40;
const TCPE: u8 = 0x20;
const IPE: u8 = 0x40;

/// A frame as it goes into memory, and what its last descriptor says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Bytes, check sequence included if the guest wants it.
    pub data: Vec<u8>,
    status: u8,
    errors: u8,
    special: u16,
}

impl E1000Regs {
    /// Bytes of a receive buffer.
    pub fn buffer_size(&self) -> usize {
        let shift = self.rctl >> 16 & 3;
        match (self.rctl & rctl::BSEX != 0, shift) {
            (false, n) => 2048 >> n,
            (true, n @ 1..) => 32768 >> n,
            (true, _) => 2048,
        }
    }

    /// Whether the receiver is on.
    pub fn receives(&self) -> bool {
        self.rctl & rctl::EN != 0 && self.link
    }

    /// Whether what is sent comes back.
    pub fn loops_back(&self) -> bool {
        self.rctl & rctl::LBM == rctl::LBM || self.phy_reg(0) & super::e1000_regs::PHY_LOOPBACK != 0
    }

    fn wants(&self, frame: &[u8]) -> bool {
        let Some([d0, d1, d2, d3, d4, d5]) = frame.first_chunk::<6>().copied() else { return false };
        if self.rctl & rctl::VFE != 0 && checksum::word(frame, 12) == Some(self.vet as u16) {
            let id = checksum::word(frame, 14).unwrap_or(0) & 0xfff;
            let row = self.vfta.get(usize::from(id >> 5)).copied().unwrap_or(0);
            if row >> (id & 31) & 1 == 0 {
                return false;
            }
        }
        let multicast = d0 & 1 != 0;
        let all = if multicast { rctl::MPE } else { rctl::UPE };
        if self.rctl & all != 0 {
            return true;
        }
        if [d0, d1, d2, d3, d4, d5] == [0xff; 6] && self.rctl & rctl::BAM != 0 {
            return true;
        }
        let low = u32::from_le_bytes([d0, d1, d2, d3]);
        let high = u32::from(u16::from_le_bytes([d4, d5]));
        // Valid, and compared with the destination.
        let exact =
            self.ra.chunks_exact(2).any(|r| matches!(r, [l, h] if *l == low && h & 0x8003_ffff == 1 << 31 | high));
        if exact || !multicast {
            return exact;
        }
        let shift = [4, 3, 2, 0].get((self.rctl >> 12 & 3) as usize).copied().unwrap_or(4);
        let hash = u16::from_le_bytes([d4, d5]) >> shift & 0xfff;
        let row = self.mta.get(usize::from(hash >> 5)).copied().unwrap_or(0);
        row >> (hash & 31) & 1 != 0
    }

    /// Looks at a frame; `None`: it is not for this station, or cannot be.
    pub fn accept(&mut self, frame: &[u8]) -> Option<Accepted> {
        let mut data = frame.to_vec();
        if data.len() < 60 {
            data.resize(60, 0);
        }
        let most = if self.rctl & rctl::LPE != 0 { LONG } else { NORMAL };
        if data.len() > most {
            self.count(stat::ROC, 1);
            return None;
        }
        if !self.wants(&data) {
            return None;
        }
        let size = data.len() + 4;
        self.count_size(stat::PRC64, size);
        self.count(stat::TPR, 1);
        self.count(stat::GPRC, 1);
        self.count_long(stat::TORL, size as u64);
        self.count_long(stat::GORCL, size as u64);
        match data.first_chunk::<6>() {
            Some([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]) => self.count(stat::BPRC, 1),
            Some([first, ..]) if first & 1 != 0 => self.count(stat::MPRC, 1),
            _ => {}
        }
        let (mut status, mut errors, mut special) = (DD | EOP, 0, 0);
        if self.ctrl & ctrl::VME != 0 && checksum::word(&data, 12) == Some(self.vet as u16) {
            special = checksum::word(&data, 14).unwrap_or(0);
            status |= VP;
            data.drain(12..16);
        }
        let found = checksum::check(&data);
        let mut say = |on: bool, result: Option<bool>, done: u8, wrong: u8| {
            if let (true, Some(right)) = (on, result) {
                status |= done;
                errors |= if right { 0 } else { wrong };
            }
        };
        say(self.rxcsum & IPOFL != 0, found.ip, IPCS, IPE);
        say(self.rxcsum & TUOFL != 0, found.upper, TCPCS, TCPE);
        if status & (IPCS | TCPCS) == 0 {
            status |= IXSM;
        }
        if self.rctl & rctl::SECRC == 0 {
            data.extend([0; 4]);
        }
        Some(Accepted { data, status, errors, special })
    }

    /// Whether the ring has buffers for a frame of `size` bytes.
    pub fn has_room(&self, size: usize) -> bool {
        usize::from(self.rx.available()) * self.buffer_size() >= size
    }

    /// A frame found no buffers.
    pub fn overrun(&mut self) {
        self.count(stat::MPC, 1);
        self.raise(icr::RXO);
    }

    /// A frame is in memory: interrupts.
    pub fn stored(&mut self, now: u64) {
        self.received(now);
        let threshold = self.rx.count() >> (1 + (self.rctl >> 8 & 3));
        if self.rx.available() <= threshold {
            self.raise(icr::RXDMT0);
        }
    }
}

/// The second half of a descriptor: length, checksum, status, errors, special. `last`: the frame ends here.
pub fn write_back(a: &Accepted, piece: usize, last: bool) -> [u8; 8] {
    let [l0, l1] = (piece as u16).to_le_bytes();
    let [s0, s1] = a.special.to_le_bytes();
    // The packet checksum: of all that follows the first PCSS bytes, which drivers leave at nothing useful; zero.
    let (status, errors) = if last { (a.status, a.errors) } else { (DD | a.status & VP, 0) };
    [l0, l1, 0, 0, status, errors, s0, s1]
}

#[cfg(test)]
mod tests {
    use super::super::e1000_regs::{Info, reg};
    use super::*;

    const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    fn new(rctl: u32) -> E1000Regs {
        let mut r = E1000Regs::power_on(&Info { mac: MAC, init_vet: true, ..Info::default() }, true);
        _ = r.write(0, reg::RCTL, rctl::EN | rctl);
        r
    }

    fn frame(to: [u8; 6]) -> Vec<u8> {
        [&to[..], &[1; 50]].concat()
    }

    #[test]
    fn filters_choose() {
        let group = [1, 0, 0x5e, 0, 0x12, 0x34];
        for (rctl, to, taken) in [
            (0, MAC, true),
            (0, [2; 6], false),
            (rctl::UPE, [2; 6], true),
            (0, [0xff; 6], false),
            (rctl::BAM, [0xff; 6], true),
            (0, group, false),
            (rctl::MPE, group, true),
        ] {
            assert_eq!(new(rctl).accept(&frame(to)).is_some(), taken, "{rctl:#x} {to:x?}");
        }
        // The hash of a group: bits 47 to 36 of the address.
        let mut r = new(0);
        _ = r.write(0, reg::MTA + (0x341 >> 5) * 4, 1 << (0x341 & 31));
        assert!(r.accept(&frame(group)).is_some());
        _ = r.write(0, reg::RA + 4, 0);
        assert!(r.accept(&frame(MAC)).is_none());
    }

    #[test]
    fn vlans_are_filtered_and_stripped() {
        let mut tagged = frame(MAC);
        tagged.splice(12..12, [0x81, 0, 0, 5]);
        let mut r = new(rctl::VFE | rctl::SECRC);
        assert_eq!(r.accept(&tagged), None);
        _ = r.write(0, reg::VFTA, 1 << 5);
        assert_eq!(r.accept(&tagged).unwrap().status & VP, 0);
        _ = r.write(0, reg::CTRL, ctrl::VME);
        let a = r.accept(&tagged).unwrap();
        assert_eq!((a.status & VP, a.special, a.data.len()), (VP, 5, 56));
        assert_eq!(write_back(&a, 56, true), [56, 0, 0, 0, DD | EOP | VP | IXSM, 0, 5, 0]);
    }

    #[test]
    fn lengths_are_bounded_and_padded() {
        let mut r = new(0);
        let long = [&MAC[..], &vec![0; 1513]].concat();
        assert_eq!((r.accept(&long), r.read(0x40ac)), (None, 1));
        assert!(r.accept(&long[..1518]).is_some());
        assert_eq!(r.accept(&MAC).unwrap().data.len(), 64);
        assert!(new(rctl::LPE).accept(&long).is_some());
        assert_eq!((new(0).buffer_size(), new(3 << 16).buffer_size()), (2048, 256));
        assert_eq!((new(rctl::BSEX | 1 << 16).buffer_size(), new(rctl::BSEX | 3 << 16).buffer_size()), (16384, 4096));
    }
}
