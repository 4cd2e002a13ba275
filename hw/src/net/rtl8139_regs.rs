//! Registers of Realtek's RTL8139C+. Source: RTL8139C(L)+ datasheet rev. 1.6, §6 (registers), §6.4 (transmit status), §9 (C+ mode).
//! Registers answer at any width; a narrower write changes its bytes of the register. Not modelled: wake-up, the flash, the multiple interrupt
//! register, power states: what they keep is kept.

use super::eeprom93c46::{Eeprom, WORDS};
use net::checksum::group_hash;
use serde::{Deserialize, Serialize};

/// Interrupt causes, §6.7.
#[expect(missing_docs, reason = "the datasheet's names")]
pub mod isr {
    pub const ROK: u16 = 1 << 0;
    pub const TOK: u16 = 1 << 2;
    pub const RXOVW: u16 = 1 << 4;
    pub const LINK_CHG: u16 = 1 << 5;
    pub const SW_INT: u16 = 1 << 8;
    pub const TIME_OUT: u16 = 1 << 14;
    /// Those that exist.
    pub const ALL: u16 = 0xe1ff;
}

/// Command, §6.5.
#[expect(missing_docs, reason = "the datasheet's names")]
pub mod cr {
    pub const BUFE: u8 = 1;
    pub const TE: u8 = 4;
    pub const RE: u8 = 8;
    pub const RST: u8 = 0x10;
}

/// Receive configuration, §6.9.
#[expect(missing_docs, reason = "the datasheet's names")]
pub mod rcr {
    pub const AAP: u32 = 1 << 0;
    pub const APM: u32 = 1 << 1;
    pub const AM: u32 = 1 << 2;
    pub const AB: u32 = 1 << 3;
    pub const WRAP: u32 = 1 << 7;
}

/// C+ command, §9.
#[expect(missing_docs, reason = "the datasheet's names")]
pub mod cpcr {
    pub const TX: u16 = 1 << 0;
    pub const RX: u16 = 1 << 1;
    pub const RX_CHECKSUM: u16 = 1 << 5;
    pub const RX_VLAN: u16 = 1 << 6;
}

/// Transmit status of a descriptor of C mode, §6.4.
#[expect(missing_docs, reason = "the datasheet's names")]
pub mod tsd {
    pub const OWN: u32 = 1 << 13;
    pub const TUN: u32 = 1 << 14;
    pub const TOK: u32 = 1 << 15;
}

/// Transmit configuration after a reset: the hardware's version.
const TCR_RESET: u32 = 0x7480_0000;
/// The bits of it that say so, and those that are reserved, §6.8.
const TCR_FIXED: u32 = 0xfcf0_f80f;
/// Bits of the receive configuration that are reserved or cannot be changed, §6.9.
const RCR_FIXED: u32 = 0xf0fc_0040;
/// Bits of the C+ command that exist.
const CPCR: u16 = 0x7b;
const TCR_LOOPBACK: u32 = 3 << 17;
/// 9346 command: mode, and the wires.
const EEM: u8 = 0xc0;
const EEM_LOAD: u8 = 0x40;
const EEM_PROGRAM: u8 = 0x80;
const EEM_CONFIG: u8 = 0xc0;
/// BMSR: link status.
const BMSR_LINK: u16 = 4;
/// Nanoseconds of a tick of the timer: PCI's clock.
const TICK: u64 = 30;
/// Bytes the read pointer lags behind.
const CAPR_LAG: u16 = 0x10;

/// What a write asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing more.
    None,
    /// The card is reset; this is its command register afterwards.
    Reset(u8),
    /// There are frames to be sent.
    Transmit,
    /// There may be room for frames.
    Receive,
    /// The station's address has changed.
    Address,
    /// The counters go to memory, at this address.
    Dump(u64),
}

/// Tally counters, §9, in their order in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Frames sent.
    pub tx_ok: u64,
    /// Frames received.
    pub rx_ok: u64,
    /// Frames received with an error.
    pub rx_err: u32,
    /// Frames for which there was no room.
    pub missed: u16,
    /// Frames received to the station's address.
    pub rx_physical: u64,
    /// Broadcasts received.
    pub rx_broadcast: u64,
    /// Groups' frames received.
    pub rx_multicast: u32,
}

impl Tally {
    /// As it is in memory; what cannot happen here is zero: transmit errors, alignment errors, collisions, aborts, underruns.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut b = self.tx_ok.to_le_bytes().to_vec();
        b.extend(self.rx_ok.to_le_bytes());
        b.extend(0u64.to_le_bytes());
        b.extend(self.rx_err.to_le_bytes());
        b.extend(self.missed.to_le_bytes());
        b.extend([0; 2 + 4 + 4]);
        b.extend(self.rx_physical.to_le_bytes());
        b.extend(self.rx_broadcast.to_le_bytes());
        b.extend(self.rx_multicast.to_le_bytes());
        b.extend([0; 4]);
        b
    }
}

/// A ring of descriptors in C+ mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    /// First descriptor.
    pub base: u64,
    /// Descriptor that comes next; a ring has at most 64.
    pub next: u8,
}

impl Ring {
    /// Where the next descriptor is.
    pub fn at(&self) -> u64 {
        self.base.wrapping_add(u64::from(self.next) * 16)
    }

    /// Goes on, after one that was the last or was not.
    pub fn advance(&mut self, last: bool) {
        self.next = if last { 0 } else { (self.next + 1) & 63 };
    }
}

/// All that the guest can observe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rtl8139Regs {
    idr: [u8; 6],
    mar: [u8; 8],
    /// Transmit status and addresses of C mode; in C+ mode the addresses are the rings'.
    pub tsd: [u32; 4],
    /// As above.
    pub tsad: [u32; 4],
    /// Descriptor of C mode whose turn it is.
    pub next_tx: u8,
    /// Start of the receive buffer of C mode.
    pub rbstart: u32,
    /// Command.
    pub cr: u8,
    /// Where software reads, without the lag; where the card writes.
    pub read_at: u16,
    /// As above.
    pub write_at: u16,
    imr: u16,
    isr: u16,
    tcr: u32,
    /// Receive configuration.
    pub rcr: u32,
    /// When the timer was zero, ns.
    timer_base: u64,
    timer_int: u32,
    /// When the timer has reached its mark, ns.
    timer_at: Option<u64>,
    missed: u32,
    cr9346: u8,
    config: [u8; 6],
    mulint: u16,
    bmcr: u16,
    bmsr: u16,
    anar: u16,
    anlpar: u16,
    aner: u16,
    nwaytr: u16,
    cscr: u16,
    /// C+ command.
    pub cpcr: u16,
    intr_mitigate: u16,
    etthr: u8,
    /// Descriptors to be received into.
    pub rx_ring: Ring,
    /// Places in the rings to be sent from: normal, high priority.
    pub tx_next: [u8; 2],
    /// Which of the two were asked to be sent.
    pub polled: [bool; 2],
    /// Bytes of a packet of which descriptors are still to come.
    pub packet: Vec<u8>,
    /// The packet is too long.
    pub too_long: bool,
    /// Counters.
    pub tally: Tally,
    eeprom: Eeprom,
}

/// Where the register that has the byte at `at` begins, and its width.
fn natural(at: u32) -> (u32, u32) {
    match at {
        0x10..=0x33 | 0x40..=0x4f | 0x54..=0x57 | 0x78..=0x87 | 0xe4..=0xeb => (at & !3, 4),
        0x34..=0x35 | 0x38..=0x3f | 0x5c..=0x5d | 0x60..=0x77 | 0xe0..=0xe3 => (at & !1, 2),
        _ => (at, 1),
    }
}

impl Rtl8139Regs {
    /// After power on; `mac`: what the EEPROM holds.
    pub fn power_on(mac: [u8; 6], link: bool) -> Self {
        let mut words = [0; WORDS];
        (words[0], words[1], words[2]) = (0x8129, 0x10ec, 0x8139);
        for (word, pair) in words.iter_mut().skip(7).zip(mac.chunks_exact(2)) {
            *word = pair.first_chunk().map_or(0, |b| u16::from_le_bytes(*b));
        }
        let mut regs = Self {
            idr: mac,
            mar: [0; 8],
            tsd: [0; 4],
            tsad: [0; 4],
            next_tx: 0,
            rbstart: 0,
            cr: 0,
            read_at: 0,
            write_at: 0,
            imr: 0,
            isr: 0,
            tcr: 0,
            rcr: 0,
            timer_base: 0,
            timer_int: 0,
            timer_at: None,
            missed: 0,
            cr9346: 0,
            config: [0; 6],
            mulint: 0,
            bmcr: 0,
            bmsr: 0,
            anar: 0,
            anlpar: 0,
            aner: 0,
            nwaytr: 0,
            cscr: 0,
            cpcr: 0,
            intr_mitigate: 0,
            etthr: 0,
            rx_ring: Ring::default(),
            tx_next: [0; 2],
            polled: [false; 2],
            packet: vec![],
            too_long: false,
            tally: Tally::default(),
            eeprom: Eeprom::new(words),
        };
        regs.reset(mac, link);
        regs.cr = cr::RST;
        regs
    }

    /// What CR.RST does.
    pub fn reset(&mut self, mac: [u8; 6], link: bool) {
        let (mar, rx_ring, eeprom) = (self.mar, self.rx_ring, self.eeprom.clone());
        let (tsad, rcr) = (self.tsad, self.rcr);
        *self = Self {
            idr: mac,
            mar,
            tsad,
            rcr,
            tsd: [tsd::OWN; 4],
            tcr: TCR_RESET,
            config: [0, 0x0c, 0, 1, 0, 0],
            bmcr: 0x1000,
            bmsr: 0x7829 | if link { BMSR_LINK } else { 0 },
            anar: 0x05e1,
            anlpar: 0x05e1,
            aner: 1,
            rx_ring: Ring { next: 0, ..rx_ring },
            eeprom,
            // All else is zero.
            next_tx: 0,
            rbstart: 0,
            cr: 0,
            read_at: 0,
            write_at: 0,
            imr: 0,
            isr: 0,
            timer_base: 0,
            timer_int: 0,
            timer_at: None,
            missed: 0,
            cr9346: 0,
            mulint: 0,
            nwaytr: 0,
            cscr: 0,
            cpcr: 0,
            intr_mitigate: 0,
            etthr: 0,
            tx_next: [0; 2],
            polled: [false; 2],
            packet: vec![],
            too_long: false,
            tally: Tally::default(),
        };
    }

    /// Whether a snapshot may hold this.
    pub fn is_possible(&self) -> bool {
        self.eeprom.is_valid()
            && self.next_tx < 4
            && self.rx_ring.next < 64
            && self.tx_next.iter().all(|n| *n < 64)
            && self.packet.len() <= super::rtl8139_tx::MAX
    }

    /// The station's address.
    pub fn station(&self) -> [u8; 6] {
        self.idr
    }

    /// Whether an interrupt is asked for.
    pub fn line(&self) -> bool {
        self.isr & self.imr != 0
    }

    /// Something has happened.
    pub fn raise(&mut self, causes: u16) {
        self.isr |= causes;
    }

    /// Whether the driver wants to hear of a cause.
    pub fn wants(&self, cause: u16) -> bool {
        self.imr & cause != 0
    }

    /// Whether what is sent comes back.
    pub fn loops_back(&self) -> bool {
        self.tcr & TCR_LOOPBACK == TCR_LOOPBACK
    }

    /// The cable was plugged in or out.
    pub fn set_link(&mut self, up: bool) {
        self.bmsr = if up { self.bmsr | BMSR_LINK } else { self.bmsr & !BMSR_LINK };
    }

    /// Lets time pass; when to look again.
    pub fn settle(&mut self, now: u64) -> Option<u64> {
        if self.timer_at.is_some_and(|at| at <= now) {
            self.timer_at = None;
            self.isr |= isr::TIME_OUT;
        }
        self.timer_at
    }

    fn timer(&self, now: u64) -> u32 {
        (now.saturating_sub(self.timer_base) / TICK) as u32
    }

    fn set_timer_at(&mut self, now: u64) {
        let left = u64::from(self.timer_int.wrapping_sub(self.timer(now)));
        let left = if left == 0 { 1 << 32 } else { left };
        let ticks = (now.saturating_sub(self.timer_base) / TICK).saturating_add(left);
        let at = self.timer_base.saturating_add(ticks.saturating_mul(TICK));
        self.timer_at = (self.timer_int != 0).then_some(at);
    }

    /// Size of the receive buffer of C mode, bytes.
    pub fn buffer_size(&self) -> u32 {
        8192 << (self.rcr >> 11 & 3)
    }

    /// Bytes that a frame may take in the receive buffer of C mode; 0: all.
    pub fn room(&self) -> u32 {
        u32::from(self.read_at).wrapping_sub(self.write_at.into()) & (self.buffer_size() - 1)
    }

    /// Whether a frame to this address is taken, and why: the bits of a descriptor's or header's status from bit 0: broadcast, the station's,
    /// a group's.
    pub fn accepts(&self, to: [u8; 6]) -> Option<u8> {
        const BAR: u8 = 1;
        const PAM: u8 = 2;
        const MAR: u8 = 4;
        if to == [0xff; 6] {
            return (self.rcr & (rcr::AB | rcr::AAP) != 0).then_some(BAR);
        }
        let [first, ..] = to;
        if first & 1 != 0 {
            let hash = group_hash(to) as usize;
            let hit = self.mar.get(hash >> 3).is_some_and(|b| b >> (hash & 7) & 1 != 0);
            let taken = self.rcr & rcr::AAP != 0 || self.rcr & rcr::AM != 0 && hit;
            return taken.then_some(MAR);
        }
        let own = to == self.idr;
        let taken = self.rcr & rcr::AAP != 0 || self.rcr & rcr::APM != 0 && own;
        taken.then_some(if own { PAM } else { 0 })
    }

    fn unlocked(&self) -> bool {
        self.cr9346 & EEM == EEM_CONFIG
    }

    fn summary(&self) -> u32 {
        self.tsd.iter().enumerate().fold(0, |all, (n, s)| {
            let bit = |on: u32, at: usize| u32::from(s & on != 0) << (at + n);
            all | bit(tsd::OWN, 0) | bit(tsd::TUN, 8) | bit(tsd::TOK, 12)
        })
    }

    /// A register's value, by where it begins.
    fn value(&self, at: u32, now: u64) -> u32 {
        let index = at as usize;
        let word = |w: &[u32; 4]| w.get((index >> 2) & 3).copied().unwrap_or(0);
        match at {
            0x00..=0x05 => self.idr.get(index).copied().unwrap_or(0).into(),
            0x08..=0x0f => self.mar.get(index & 7).copied().unwrap_or(0).into(),
            0x10..=0x1c => word(&self.tsd),
            0x20..=0x2c => word(&self.tsad),
            0x30 => self.rbstart,
            0x37 => {
                let empty = if self.read_at == self.write_at { cr::BUFE } else { 0 };
                (self.cr | empty).into()
            }
            0x38 => self.read_at.wrapping_sub(CAPR_LAG).into(),
            0x3a => self.write_at.into(),
            0x3c => self.imr.into(),
            0x3e => self.isr.into(),
            0x40 => self.tcr,
            0x44 => self.rcr,
            0x48 => self.timer(now),
            0x4c => self.missed,
            0x50 => {
                let out = self.cr9346 & EEM == EEM_PROGRAM && self.eeprom.output();
                (self.cr9346 & !1 | u8::from(out)).into()
            }
            0x51 => self.config[0].into(),
            0x52 => self.config[1].into(),
            0x54 => self.timer_int,
            0x58 => 0xd0 | if self.bmsr & BMSR_LINK == 0 { 4 } else { 0 },
            0x59 => self.config[3].into(),
            0x5a => self.config[4].into(),
            0x5c => self.mulint.into(),
            0x5e => 0x20, // revision
            0x60 => self.summary(),
            0x62 => self.bmcr.into(),
            0x64 => self.bmsr.into(),
            0x66 => self.anar.into(),
            0x68 => self.anlpar.into(),
            0x6a => self.aner.into(),
            0x70 => self.nwaytr.into(),
            0x74 => self.cscr.into(),
            0xd8 => self.config[5].into(),
            0xe0 => self.cpcr.into(),
            0xe2 => self.intr_mitigate.into(),
            0xe4 => self.rx_ring.base as u32,
            0xe8 => (self.rx_ring.base >> 32) as u32,
            0xec => self.etthr.into(),
            _ => 0,
        }
    }

    /// Reads.
    pub fn read(&self, now: u64, at: u32, size: u32) -> u32 {
        (0..size.min(4)).fold(0, |all, n| {
            let (base, _) = natural(at + n);
            let byte = self.value(base, now) >> (8 * (at + n - base)) & 0xff;
            all | byte << (8 * n)
        })
    }

    /// Writes: each register that has bytes in it.
    pub fn write(&mut self, now: u64, at: u32, size: u32, v: u32) -> Vec<Effect> {
        let mut effects = vec![];
        let mut n = 0;
        while n < size.min(4) {
            let (base, width) = natural(at + n);
            // Where 1s act, bytes that are not written are 0s.
            let mut value = if base == 0x3e { 0 } else { self.value(base, now) };
            while n < size.min(4) && at + n < base + width {
                let shift = 8 * (at + n - base);
                value = value & !(0xff << shift) | (v >> (8 * n) & 0xff) << shift;
                n += 1;
            }
            effects.push(self.set(base, value, now));
        }
        effects.retain(|e| *e != Effect::None);
        effects
    }

    fn set(&mut self, at: u32, v: u32, now: u64) -> Effect {
        let index = at as usize;
        let plus_tx = self.cpcr & cpcr::TX != 0;
        match at {
            0x00..=0x05 => {
                if let Some(b) = self.idr.get_mut(index) {
                    *b = v as u8;
                }
                return Effect::Address;
            }
            0x08..=0x0f => {
                if let Some(b) = self.mar.get_mut(index & 7) {
                    *b = v as u8;
                }
            }
            0x10..=0x1c => return self.set_tsd((index >> 2) & 3, v, plus_tx),
            0x20..=0x2c => {
                if let Some(w) = self.tsad.get_mut((index >> 2) & 3) {
                    *w = v;
                }
            }
            0x30 => self.rbstart = v,
            0x37 => return self.set_cr(v as u8),
            0x38 => {
                let size = self.buffer_size();
                self.read_at = (((v & 0xffff) + u32::from(CAPR_LAG)) & (size - 1)) as u16;
                return Effect::Receive;
            }
            0x3c => self.imr = v as u16 & isr::ALL,
            0x3e => {
                self.isr &= !(v as u16);
                return Effect::Receive;
            }
            // (It can be changed only while the transmitter is on.)
            0x40 if self.cr & cr::TE != 0 => self.tcr = self.tcr & TCR_FIXED | v & !TCR_FIXED,
            0x44 => {
                self.rcr = self.rcr & RCR_FIXED | v & !RCR_FIXED;
                (self.read_at, self.write_at) = (0, 0);
                return Effect::Receive;
            }
            0x48 => {
                self.timer_base = now;
                self.set_timer_at(now);
            }
            0x4c => self.missed = 0,
            0x50 if v as u8 & EEM == EEM_LOAD => return Effect::Reset(0),
            0x50 => self.set_9346(v as u8),
            0x51 | 0x52 | 0x59 | 0x5a if self.unlocked() => self.set_config(at, v as u8),
            0x54 => {
                self.timer_int = v;
                self.set_timer_at(now);
            }
            0x5c => self.mulint = v as u16 & 0x0fff,
            // (Reset and restart, all of it that can be written, are over at once.)
            0x62 => {}
            0x66 => self.anar = v as u16,
            0x68 => self.anlpar = v as u16,
            0x6a => self.aner = v as u16,
            0x70 => self.nwaytr = v as u16,
            0x74 => self.cscr = v as u16,
            0xd8 => self.set_config(at, v as u8),
            0xd9 => {
                let [normal, high] = &mut self.polled;
                *normal |= v & 0x40 != 0;
                *high |= v & 0x80 != 0;
                if v & 1 != 0 {
                    self.isr |= isr::SW_INT;
                }
                return Effect::Transmit;
            }
            0xe0 => {
                self.cpcr = v as u16 & CPCR;
                return Effect::Receive;
            }
            0xe2 => self.intr_mitigate = v as u16,
            0xe4 => self.rx_ring.base = self.rx_ring.base & !0xffff_ffff | u64::from(v),
            0xe8 => self.rx_ring.base = self.rx_ring.base & 0xffff_ffff | u64::from(v) << 32,
            0xec => self.etthr = v as u8,
            _ => {}
        }
        Effect::None
    }

    fn set_tsd(&mut self, n: usize, v: u32, plus: bool) -> Effect {
        if plus {
            // The same place is the command to dump counters: address, and bit 3 to do it.
            let high = self.tsd[1];
            if let Some(w) = self.tsd.get_mut(n) {
                *w = v & !8;
            }
            return if n == 0 && v & 8 != 0 {
                Effect::Dump(u64::from(high) << 32 | u64::from(v & !0x3f))
            } else {
                Effect::None
            };
        }
        if let Some(w) = self.tsd.get_mut(n) {
            *w = v & !0xffc0_c000 | *w & 0x00c0_0000;
        }
        Effect::Transmit
    }

    fn set_cr(&mut self, v: u8) -> Effect {
        if v & cr::RST != 0 {
            return Effect::Reset(v & (cr::TE | cr::RE));
        }
        let risen = v & !self.cr;
        if risen & cr::RE != 0 {
            self.rx_ring.next = 0;
        }
        if risen & cr::TE != 0 {
            self.tx_next = [0; 2];
        }
        self.cr = v & (cr::TE | cr::RE);
        if v & cr::RE != 0 { Effect::Receive } else { Effect::Transmit }
    }

    fn set_9346(&mut self, v: u8) {
        self.cr9346 = v & !0x30;
        if v & EEM == EEM_PROGRAM {
            self.eeprom.drive(v & 8 != 0, v & 4 != 0, v & 2 != 0);
        } else {
            self.eeprom.drive(false, false, false);
        }
    }

    fn set_config(&mut self, at: u32, v: u8) {
        let (n, fixed): (usize, u8) = match at {
            0x51 => (0, 0xf8),
            0x52 => (1, 0x0c),
            0x59 => (3, 0x8f),
            0x5a => (4, 0x0a),
            _ => (5, 0x80),
        };
        if let Some(c) = self.config.get_mut(n) {
            *c = *c & fixed | v & !fixed;
        }
    }

    /// Base of a ring to be sent from, normal (0) or high priority.
    pub fn tx_ring(&self, n: usize) -> Ring {
        let [a, b, c, d] = self.tsad;
        let (low, high) = if n == 0 { (a, b) } else { (c, d) };
        let next = self.tx_next.get(n).copied().unwrap_or(0);
        Ring { base: u64::from(high) << 32 | u64::from(low), next }
    }

    /// A frame found no room.
    pub fn overrun(&mut self) {
        self.isr |= isr::RXOVW;
        self.missed = (self.missed + 1) & 0x00ff_ffff;
        self.tally.rx_err = self.tally.rx_err.wrapping_add(1);
        self.tally.missed = self.tally.missed.wrapping_add(1);
    }
}
