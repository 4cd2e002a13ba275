//! Registers of Intel's 8254x gigabit controllers: interrupts, PHY, EEPROM, statistics, and those that are storage only.
//! Source: Intel PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual (317453), chapters 12 (PHY) and 13.
//! Not modelled: flow control by pause frames, wake-up, management traffic, the flash, TBI mode, flexible filters; their registers
//! keep what is written. Times: interrupts wait for ITR, RDTR/RADV and TIDV/TADV by the virtual clock.

use super::eeprom93c46::{Eeprom, WORDS};
use serde::{Deserialize, Serialize};

/// Offsets, §13.3.
#[expect(missing_docs, reason = "the manual's names")]
pub mod reg {
    pub const CTRL: u32 = 0x0000;
    pub const CTRL_DUP: u32 = 0x0004;
    pub const STATUS: u32 = 0x0008;
    pub const EECD: u32 = 0x0010;
    pub const EERD: u32 = 0x0014;
    pub const MDIC: u32 = 0x0020;
    pub const VET: u32 = 0x0038;
    pub const ICR: u32 = 0x00c0;
    pub const ITR: u32 = 0x00c4;
    pub const ICS: u32 = 0x00c8;
    pub const IMS: u32 = 0x00d0;
    pub const IMC: u32 = 0x00d8;
    pub const RCTL: u32 = 0x0100;
    pub const TCTL: u32 = 0x0400;
    pub const LEDCTL: u32 = 0x0e00;
    pub const PBA: u32 = 0x1000;
    pub const RDBAL: u32 = 0x2800;
    pub const RDTR: u32 = 0x2820;
    pub const RADV: u32 = 0x282c;
    pub const TDBAL: u32 = 0x3800;
    pub const TIDV: u32 = 0x3820;
    pub const TADV: u32 = 0x382c;
    pub const STATS: u32 = 0x4000;
    pub const RXCSUM: u32 = 0x5000;
    pub const MTA: u32 = 0x5200;
    pub const RA: u32 = 0x5400;
    pub const VFTA: u32 = 0x5600;
}

/// Device control, §13.4.1.
#[expect(missing_docs, reason = "the manual's names")]
pub mod ctrl {
    pub const SLU: u32 = 1 << 6;
    pub const RST: u32 = 1 << 26;
    pub const VME: u32 = 1 << 30;
    pub const PHY_RST: u32 = 1 << 31;
}

/// Interrupt causes, §13.4.17.
#[expect(missing_docs, reason = "the manual's names")]
pub mod icr {
    pub const TXDW: u32 = 1 << 0;
    pub const TXQE: u32 = 1 << 1;
    pub const LSC: u32 = 1 << 2;
    pub const RXDMT0: u32 = 1 << 4;
    pub const RXO: u32 = 1 << 6;
    pub const RXT0: u32 = 1 << 7;
    pub const MDAC: u32 = 1 << 9;
    pub const TXD_LOW: u32 = 1 << 15;
}

/// Indices of statistics, as words from 4000H, §13.7.
#[expect(missing_docs, reason = "the manual's names")]
pub mod stat {
    pub const MPC: usize = 0x10 / 4;
    pub const PRC64: usize = 0x5c / 4;
    pub const GPRC: usize = 0x74 / 4;
    pub const BPRC: usize = 0x78 / 4;
    pub const MPRC: usize = 0x7c / 4;
    pub const GPTC: usize = 0x80 / 4;
    pub const GORCL: usize = 0x88 / 4;
    pub const GOTCL: usize = 0x90 / 4;
    pub const RUC: usize = 0xa4 / 4;
    pub const ROC: usize = 0xac / 4;
    pub const TORL: usize = 0xc0 / 4;
    pub const TOTL: usize = 0xc8 / 4;
    pub const TPR: usize = 0xd0 / 4;
    pub const TPT: usize = 0xd4 / 4;
    pub const PTC64: usize = 0xd8 / 4;
    pub const MPTC: usize = 0xf0 / 4;
    pub const BPTC: usize = 0xf4 / 4;
    pub const TSCTC: usize = 0xf8 / 4;
    /// How many.
    pub const COUNT: usize = 64;
}

/// Status: full duplex, link up, 1000 Mb/s, 64-bit bus, §13.4.2.
const STATUS_FIXED: u32 = 1 | 2 << 6 | 1 << 12;
const STATUS_LU: u32 = 1 << 1;
/// Bits of ICR that exist.
const CAUSES: u32 = 0x0001_ffff;

const EECD_SK: u32 = 1;
const EECD_CS: u32 = 2;
const EECD_DI: u32 = 4;
const EECD_DO: u32 = 8;
const EECD_REQ: u32 = 1 << 6;
const EECD_GNT: u32 = 1 << 7;
const EECD_PRES: u32 = 1 << 8;
const EERD_START: u32 = 1;
const EERD_DONE: u32 = 1 << 4;

/// MDI control, §13.4.7.
const MDIC_WRITE: u32 = 1;
const MDIC_READ: u32 = 2;
const MDIC_READY: u32 = 1 << 28;
const MDIC_INTERRUPT: u32 = 1 << 29;
const MDIC_ERROR: u32 = 1 << 30;
/// The internal PHY's address.
const PHY: u32 = 1;

/// PHY registers, §12: standard ones, and the part's own status.
const PHY_CTRL: usize = 0;
const PHY_STATUS: usize = 1;
const PHY_SPEC_STATUS: usize = 17;
const PHY_RESET: u16 = 1 << 15;
/// Loopback in the PHY.
pub const PHY_LOOPBACK: u16 = 1 << 14;
const PHY_AUTONEG: u16 = 1 << 12;
const PHY_RESTART: u16 = 1 << 9;
/// Status: auto-negotiation complete, link.
const PHY_LINK: u16 = 1 << 5 | 1 << 2;
/// How long auto-negotiation takes, ns.
const AUTONEG_TIME: u64 = 100_000_000;

/// Registers that only keep what is written, besides the tables.
const PLAIN: &[u32] = &[
    0x0018, 0x001c, 0x0028, 0x002c, 0x0030, 0x0170, 0x0178, 0x0410, 0x0458, 0x0e00, 0x1000, 0x2160, 0x2168, 0x2410,
    0x2418, 0x2420, 0x2428, 0x2430, 0x2828, 0x2c00, 0x3410, 0x3418, 0x3420, 0x3428, 0x3430, 0x3828, 0x3830, 0x5800,
    0x5808, 0x5810, 0x5820, 0x5828, 0x5838, 0x5840, 0x5848, 0x5850, 0x5858, 0x5880, 0x5884, 0x5888, 0x588c, 0x5900,
];

/// A descriptor ring, §13.4.26.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    /// Address, low half (16-byte aligned) …
    pub bal: u32,
    /// … and high half.
    pub bah: u32,
    /// Bytes, a multiple of 128.
    pub len: u32,
    /// The card's next descriptor.
    pub head: u16,
    /// The first that belongs to software.
    pub tail: u16,
}

impl Ring {
    /// Descriptors.
    pub fn count(&self) -> u16 {
        (self.len / 16) as u16
    }

    /// Address of the next descriptor; `None`: there is none for the card.
    pub fn next(&self) -> Option<u64> {
        let inside = self.head < self.count() && self.tail < self.count();
        (inside && self.head != self.tail)
            .then(|| (u64::from(self.bah) << 32 | u64::from(self.bal)).wrapping_add(u64::from(self.head) * 16))
    }

    /// The card is done with one.
    pub fn advance(&mut self) {
        // (A frame written to the card's own registers may have moved it anywhere.)
        self.head = self.head.checked_add(1).filter(|n| *n < self.count()).unwrap_or(0);
    }

    /// Descriptors that belong to the card.
    pub fn available(&self) -> u16 {
        let count = self.count();
        if self.next().is_none() {
            0
        } else if self.tail > self.head {
            self.tail - self.head
        } else {
            count - self.head + self.tail
        }
    }

    fn read(&self, off: u32) -> u32 {
        match off {
            0x00 => self.bal,
            0x04 => self.bah,
            0x08 => self.len,
            0x10 => self.head.into(),
            0x18 => self.tail.into(),
            _ => 0,
        }
    }

    fn write(&mut self, off: u32, val: u32) {
        match off {
            0x00 => self.bal = val & !15,
            0x04 => self.bah = val,
            0x08 => self.len = val & 0xf_ff80,
            0x10 => self.head = val as u16,
            0x18 => self.tail = val as u16,
            _ => {}
        }
    }
}

/// A transmit context, §3.3.6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxContext {
    /// IP checksum: start, field, end.
    pub ipcss: u8,
    /// See `ipcss`.
    pub ipcso: u8,
    /// See `ipcss`.
    pub ipcse: u16,
    /// TCP or UDP checksum: start, field, end.
    pub tucss: u8,
    /// See `tucss`.
    pub tucso: u8,
    /// See `tucss`.
    pub tucse: u16,
    /// Bytes after the header.
    pub paylen: u32,
    /// Bytes of the header.
    pub hdrlen: u8,
    /// Bytes of a segment after the header.
    pub mss: u16,
    /// The packet is TCP.
    pub tcp: bool,
    /// The packet is IPv4.
    pub ip: bool,
}

/// A frame on its way out: what its descriptors have given so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxFrame {
    /// Bytes.
    pub data: Vec<u8>,
    /// It is to be cut into segments.
    pub tse: bool,
    /// Checksums wanted: IP, TCP or UDP.
    pub sums: (bool, bool),
    /// More than any frame may have; the rest is dropped.
    pub too_long: bool,
}

/// All that the guest can observe and a snapshot must keep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct E1000Regs {
    /// Device control.
    pub ctrl: u32,
    /// Whether the link is up.
    pub link: bool,
    eecd: u32,
    eerd: u32,
    mdic: u32,
    /// VLAN ethertype.
    pub vet: u32,
    icr: u32,
    ims: u32,
    itr: u32,
    /// Receive control.
    pub rctl: u32,
    /// Transmit control.
    pub tctl: u32,
    /// Receive checksum control.
    pub rxcsum: u32,
    /// Receive descriptors.
    pub rx: Ring,
    /// Transmit descriptors.
    pub tx: Ring,
    rdtr: u32,
    radv: u32,
    tidv: u32,
    tadv: u32,
    /// Multicast table.
    pub mta: Vec<u32>,
    /// Receive addresses: low and high words of 16.
    pub ra: Vec<u32>,
    /// VLAN filter.
    pub vfta: Vec<u32>,
    stats: Vec<u32>,
    plain: Vec<u32>,
    wakeup_memory: Vec<u32>,
    phy: Vec<u16>,
    eeprom: Eeprom,
    /// Contexts: of segmentation, of checksums alone.
    pub contexts: [TxContext; 2],
    /// Frame being gathered.
    pub frame: TxFrame,
    /// Address for the I/O window.
    pub ioaddr: u32,
    /// Interrupts wait until then, virtual ns.
    quiet_until: u64,
    /// Deadlines of causes that wait: receive, transmit, virtual ns: latest and when the first came.
    delayed: [Option<(u64, u64)>; 2],
    autoneg_at: Option<u64>,
    /// The interrupt pin.
    pub line: bool,
    id2: u16,
}

/// What makes the types differ, and what the user chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// PCI device id.
    pub device_id: u16,
    /// The PHY's second id register.
    pub phy_id2: u16,
    /// Station address.
    pub mac: [u8; 6],
    /// VET is set at reset.
    pub init_vet: bool,
}

/// What must happen after a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Interrupt and timers may have changed, nothing else.
    None,
    /// There may be descriptors to transmit.
    Transmit,
    /// There may be room for frames.
    Receive,
    /// The whole device is to be reset.
    Reset,
}

/// Contents of the EEPROM, §5.6: address, identification, and a sum of BABAH.
fn eeprom(info: &Info) -> Eeprom {
    let mut words = [0u16; WORDS];
    let [m0, m1, m2, m3, m4, m5] = info.mac;
    let pairs = [(0, [m0, m1]), (1, [m2, m3]), (2, [m4, m5])].map(|(n, b)| (n, u16::from_le_bytes(b)));
    let fixed = [
        // Initialization control 1: valid signature, ids from here; subsystem, device, vendor; control 2.
        (0x0a, 0x4008),
        (0x0b, 0x1100),
        (0x0c, 0x1af4),
        (0x0d, info.device_id),
        (0x0e, 0x8086),
        (0x0f, 0x0040),
    ];
    for (n, v) in pairs.into_iter().chain(fixed) {
        if let Some(w) = words.get_mut(n) {
            *w = v;
        }
    }
    let total = words.iter().fold(0u16, |s, w| s.wrapping_add(*w));
    if let Some(last) = words.last_mut() {
        *last = 0xbabau16.wrapping_sub(total);
    }
    Eeprom::new(words)
}

/// PHY registers after reset, §12.
fn phy(id2: u16) -> Vec<u16> {
    let mut regs = vec![0u16; 32];
    for (n, v) in [
        (PHY_CTRL, 0x1140),
        (PHY_STATUS, 0x7949),
        (2, 0x0141),
        (3, id2),
        // What both ends can: all of 10 and 100, pause; 1000 full.
        (4, 0x0de1),
        (5, 0x45e1),
        (6, 0x0005),
        (9, 0x0300),
        (10, 0x7800),
        (15, 0x3000),
        (16, 0x0068),
        (PHY_SPEC_STATUS, 0x0000),
        (20, 0x0d60),
    ] {
        if let Some(r) = regs.get_mut(n) {
            *r = v;
        }
    }
    regs
}

impl E1000Regs {
    /// State after power on. `cable`: the link's other end is there.
    pub fn power_on(info: &Info, cable: bool) -> Self {
        let mut new = Self {
            // SWDPIO: the LED pins; speed 1000.
            ctrl: ctrl::SLU | 2 << 8 | 5 << 18,
            link: false,
            eecd: 0,
            eerd: 0,
            mdic: 0,
            vet: if info.init_vet { 0x8100 } else { 0 },
            icr: 0,
            ims: 0,
            itr: 0,
            rctl: 0,
            tctl: 0,
            rxcsum: 0,
            rx: Ring::default(),
            tx: Ring::default(),
            rdtr: 0,
            radv: 0,
            tidv: 0,
            tadv: 0,
            mta: vec![0; 128],
            ra: vec![0; 32],
            vfta: vec![0; 128],
            stats: vec![0; stat::COUNT],
            plain: vec![0; PLAIN.len()],
            wakeup_memory: vec![0; 32],
            phy: phy(info.phy_id2),
            eeprom: eeprom(info),
            contexts: [TxContext::default(); 2],
            frame: TxFrame::default(),
            ioaddr: 0,
            quiet_until: 0,
            delayed: [None; 2],
            autoneg_at: None,
            line: false,
            id2: info.phy_id2,
        };
        for (at, val) in [(reg::LEDCTL, 0x0706_8302), (reg::PBA, 0x0010_0030)] {
            if let Some(r) = new.plain_mut(at) {
                *r = val;
            }
        }
        // Receive address 0 comes from the EEPROM.
        let [a, b, c, d, e, f] = info.mac;
        for (r, v) in new.ra.iter_mut().zip([[a, b, c, d], [e, f, 0, 0x80]]) {
            *r = u32::from_le_bytes(v);
        }
        new.set_link(cable);
        new.icr = 0;
        new
    }

    /// Whether state that was loaded can be used.
    pub fn is_valid(&self) -> bool {
        let sizes = [
            (self.mta.len(), 128),
            (self.ra.len(), 32),
            (self.vfta.len(), 128),
            (self.stats.len(), stat::COUNT),
            (self.plain.len(), PLAIN.len()),
            (self.wakeup_memory.len(), 32),
            (self.phy.len(), 32),
        ];
        sizes.iter().all(|(a, b)| a == b) && self.eeprom.is_valid() && self.frame.data.len() <= super::e1000_tx::MAX
    }

    fn plain_mut(&mut self, off: u32) -> Option<&mut u32> {
        let n = PLAIN.iter().position(|p| *p == off)?;
        self.plain.get_mut(n)
    }

    /// The station address: receive address 0.
    pub fn station(&self) -> [u8; 6] {
        let word = |n: usize| self.ra.get(n).copied().unwrap_or(0).to_le_bytes();
        let ([a, b, c, d], [e, f, ..]) = (word(0), word(1));
        [a, b, c, d, e, f]
    }

    /// A register of the PHY.
    pub fn phy_reg(&self, n: usize) -> u16 {
        self.phy.get(n & 31).copied().unwrap_or(0)
    }

    fn set_phy(&mut self, n: usize, v: u16) {
        if let Some(r) = self.phy.get_mut(n & 31) {
            *r = v;
        }
    }

    /// The link goes up or down: MAC and PHY show it, and an interrupt says so.
    /// The cable is as it is: after loading a state, in which it may have been otherwise.
    pub fn plug(&mut self, cable: bool) {
        if !cable || self.autoneg_at.is_none() {
            self.set_link(cable)
        }
    }

    /// The link comes up or goes down.
    pub fn set_link(&mut self, up: bool) {
        self.autoneg_at = None;
        let status = self.phy_reg(PHY_STATUS) & !PHY_LINK;
        self.set_phy(PHY_STATUS, if up { status | PHY_LINK } else { status });
        // 1000 Mb/s, full duplex, resolved, link; or nothing.
        self.set_phy(PHY_SPEC_STATUS, if up { 0xac00 } else { 0 });
        if self.link != up {
            self.link = up;
            self.icr |= icr::LSC;
        }
    }

    // ---- interrupts ----

    /// Sets causes.
    pub fn raise(&mut self, causes: u32) {
        self.icr |= causes & CAUSES;
    }

    /// A cause that may wait: 0 receive, 1 transmit. `delay` and `most` in units of 1.024 µs; 0: at once.
    fn raise_later(&mut self, which: usize, cause: u32, now: u64, delay: u32, most: u32) {
        let unit = |n: u32| u64::from(n & 0xffff) * 1024;
        if delay & 0xffff == 0 {
            return self.raise(cause);
        }
        let Some(slot) = self.delayed.get_mut(which) else { return };
        let last = match slot {
            Some((_, last)) => *last,
            None if most & 0xffff != 0 => now + unit(most),
            None => u64::MAX,
        };
        *slot = Some(((now + unit(delay)).min(last), last));
    }

    /// A frame was received.
    pub fn received(&mut self, now: u64) {
        let (delay, most) = (self.rdtr, self.radv);
        self.raise_later(0, icr::RXT0, now, delay, most);
    }

    /// A descriptor was written back; `may_wait`: its IDE bit.
    pub fn transmitted(&mut self, now: u64, may_wait: bool) {
        let (delay, most) = (if may_wait { self.tidv } else { 0 }, self.tadv);
        self.raise_later(1, icr::TXDW, now, delay, most);
    }

    /// Lets time pass: causes whose time has come, and the link. Answers the next deadline.
    pub fn settle(&mut self, now: u64, cable: bool) -> Option<u64> {
        for (slot, cause) in self.delayed.iter_mut().zip([icr::RXT0, icr::TXDW]) {
            if slot.is_some_and(|(at, _)| at <= now) {
                *slot = None;
                self.icr |= cause;
            }
        }
        if self.autoneg_at.is_some_and(|at| at <= now) {
            self.set_link(cable);
        }
        let wants = self.icr & self.ims != 0;
        if !wants {
            self.line = false;
        } else if !self.line && self.quiet_until <= now {
            self.line = true;
            self.quiet_until = now + u64::from(self.itr & 0xffff) * 256;
        }
        let waits = (wants && !self.line).then_some(self.quiet_until);
        self.delayed.iter().flatten().map(|d| d.0).chain(self.autoneg_at).chain(waits).min()
    }

    // ---- statistics ----

    /// Adds to a counter, which stays at its end.
    pub fn count(&mut self, n: usize, by: u32) {
        if let Some(c) = self.stats.get_mut(n) {
            *c = c.saturating_add(by);
        }
    }

    /// Adds to a counter of 64 bits.
    pub fn count_long(&mut self, n: usize, by: u64) {
        let (Some(low), Some(high)) = (self.stats.get(n).copied(), self.stats.get(n + 1).copied()) else { return };
        let sum = (u64::from(high) << 32 | u64::from(low)).saturating_add(by);
        for (at, v) in [(n, sum as u32), (n + 1, (sum >> 32) as u32)] {
            if let Some(c) = self.stats.get_mut(at) {
                *c = v;
            }
        }
    }

    /// Counts by size: six counters from `first`; sizes include the checksum.
    pub fn count_size(&mut self, first: usize, size: usize) {
        let n = [65, 128, 256, 512, 1024].iter().filter(|limit| size >= **limit).count();
        self.count(first + n, 1);
    }

    // ---- access ----

    /// Reads a word; some reads clear.
    pub fn read(&mut self, off: u32) -> u32 {
        let at = |table: &[u32], first: u32| table.get((off - first) as usize / 4).copied().unwrap_or(0);
        match off {
            reg::CTRL | reg::CTRL_DUP => self.ctrl,
            reg::STATUS => STATUS_FIXED | if self.link { STATUS_LU } else { 0 },
            reg::EECD => {
                let granted = if self.eecd & EECD_REQ != 0 { EECD_GNT } else { 0 };
                self.eecd | EECD_PRES | granted | if self.eeprom.output() { EECD_DO } else { 0 }
            }
            reg::EERD => self.eerd,
            reg::MDIC => self.mdic,
            reg::VET => self.vet,
            reg::ICR => std::mem::take(&mut self.icr),
            reg::ITR => self.itr,
            reg::ICS => self.icr,
            reg::IMS => self.ims,
            reg::IMC => 0,
            reg::RCTL => self.rctl,
            reg::TCTL => self.tctl,
            reg::RXCSUM => self.rxcsum,
            reg::RDTR => self.rdtr,
            reg::RADV => self.radv,
            reg::TIDV => self.tidv,
            reg::TADV => self.tadv,
            0x2800..=0x2818 => self.rx.read(off - reg::RDBAL),
            0x3800..=0x3818 => self.tx.read(off - reg::TDBAL),
            // Where the oldest part of the family had them.
            0x0110..=0x0128 => self.rx.read(off - 0x0110),
            0x0420..=0x0438 => self.tx.read(off - 0x0420),
            0x4000..=0x40fc => {
                let n = (off - reg::STATS) as usize / 4;
                let v = self.stats.get_mut(n).map_or(0, std::mem::take);
                // The high half is read last, and clears both.
                let low = [stat::GORCL, stat::GOTCL, stat::TORL, stat::TOTL];
                if low.contains(&n)
                    && let Some(c) = self.stats.get_mut(n)
                {
                    *c = v;
                }
                if let Some(c) = n.checked_sub(1).filter(|l| low.contains(l)).and_then(|l| self.stats.get_mut(l)) {
                    *c = 0;
                }
                v
            }
            0x5200..=0x53fc => at(&self.mta, reg::MTA),
            0x5400..=0x547c => at(&self.ra, reg::RA),
            0x5600..=0x57fc => at(&self.vfta, reg::VFTA),
            0x5a00..=0x5a7c => at(&self.wakeup_memory, 0x5a00),
            _ => self.plain_mut(off).map_or(0, |r| *r),
        }
    }

    /// Writes a word.
    pub fn write(&mut self, now: u64, off: u32, val: u32) -> Effect {
        fn put(table: &mut [u32], n: u32, val: u32) {
            if let Some(r) = table.get_mut(n as usize / 4) {
                *r = val;
            }
        }
        match off {
            reg::CTRL | reg::CTRL_DUP => {
                self.ctrl = val & !(ctrl::RST | ctrl::PHY_RST);
                if val & ctrl::RST != 0 {
                    return Effect::Reset;
                }
                if val & ctrl::PHY_RST != 0 {
                    self.phy = phy(self.id2);
                    self.negotiate(now);
                }
            }
            reg::EECD => {
                self.eecd = val & (EECD_SK | EECD_CS | EECD_DI | EECD_REQ | 0x30);
                self.eeprom.drive(val & EECD_CS != 0, val & EECD_SK != 0, val & EECD_DI != 0);
            }
            reg::EERD if val & EERD_START != 0 => {
                let word = self.eeprom.word((val >> 8 & 0xff) as usize);
                self.eerd = u32::from(word) << 16 | val & 0xff00 | EERD_DONE;
            }
            reg::EERD => self.eerd = val & 0xff00,
            reg::MDIC => self.write_mdic(now, val),
            reg::VET => self.vet = val & 0xffff,
            reg::ICR => self.icr &= !val,
            reg::ITR => self.itr = val & 0xffff,
            reg::ICS => self.raise(val),
            reg::IMS => self.ims |= val & CAUSES,
            reg::IMC => self.ims &= !val,
            reg::RCTL => {
                self.rctl = val;
                return Effect::Receive;
            }
            reg::TCTL => {
                self.tctl = val;
                return Effect::Transmit;
            }
            reg::RXCSUM => self.rxcsum = val & 0x3ff,
            reg::RDTR => {
                self.rdtr = val & 0xffff;
                // Flush partial descriptors: what waits comes now.
                if val >> 31 != 0 {
                    self.flush_delayed(0, icr::RXT0);
                }
            }
            reg::RADV => self.radv = val & 0xffff,
            reg::TIDV => {
                self.tidv = val & 0xffff;
                if val >> 31 != 0 {
                    self.flush_delayed(1, icr::TXDW);
                }
            }
            reg::TADV => self.tadv = val & 0xffff,
            0x2800..=0x2818 | 0x0110..=0x0128 => {
                self.rx.write(off - if off < 0x1000 { 0x0110 } else { reg::RDBAL }, val);
                return Effect::Receive;
            }
            0x3800..=0x3818 | 0x0420..=0x0438 => {
                self.tx.write(off - if off < 0x1000 { 0x0420 } else { reg::TDBAL }, val);
                return Effect::Transmit;
            }
            0x5200..=0x53fc => put(&mut self.mta, off - reg::MTA, val),
            0x5400..=0x547c => put(&mut self.ra, off - reg::RA, val),
            0x5600..=0x57fc => put(&mut self.vfta, off - reg::VFTA, val),
            0x5a00..=0x5a7c => put(&mut self.wakeup_memory, off - 0x5a00, val),
            _ => {
                if let Some(r) = self.plain_mut(off) {
                    *r = val;
                }
            }
        }
        Effect::None
    }

    fn flush_delayed(&mut self, which: usize, cause: u32) {
        if self.delayed.get_mut(which).and_then(Option::take).is_some() {
            self.raise(cause);
        }
    }

    fn negotiate(&mut self, now: u64) {
        self.set_link(false);
        self.autoneg_at = Some(now + AUTONEG_TIME);
    }

    fn write_mdic(&mut self, now: u64, val: u32) {
        let (n, address, op) = ((val >> 16 & 31) as usize, val >> 21 & 31, val >> 26 & 3);
        let mut result = val & !(MDIC_READY | MDIC_ERROR) | MDIC_READY;
        match op {
            _ if address != PHY => result |= MDIC_ERROR,
            MDIC_READ => result = result & !0xffff | u32::from(self.phy_reg(n)),
            MDIC_WRITE => self.write_phy(now, n, val as u16),
            _ => result |= MDIC_ERROR,
        }
        self.mdic = result;
        if val & MDIC_INTERRUPT != 0 {
            self.raise(icr::MDAC);
        }
    }

    fn write_phy(&mut self, now: u64, n: usize, val: u16) {
        match n {
            PHY_CTRL => {
                if val & PHY_RESET != 0 {
                    self.phy = phy(self.id2);
                }
                let keep = val & !(PHY_RESET | PHY_RESTART);
                self.set_phy(PHY_CTRL, keep);
                if val & PHY_RESET != 0 || val & (PHY_AUTONEG | PHY_RESTART) == PHY_AUTONEG | PHY_RESTART {
                    self.negotiate(now);
                }
            }
            // Status and identification are read only, as are what the other end says and the part's status.
            1..=3 | 5 | 6 | 10 | 15 | PHY_SPEC_STATUS => {}
            _ => self.set_phy(n, val),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new() -> E1000Regs {
        let info = Info { device_id: 0x100e, phy_id2: 0x0c20, mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56], init_vet: true };
        E1000Regs::power_on(&info, true)
    }

    #[test]
    fn the_eeprom_has_the_address_and_its_sum() {
        let mut r = new();
        let mut sum = 0u16;
        for n in 0..64 {
            _ = r.write(0, reg::EERD, n << 8 | 1);
            sum = sum.wrapping_add((r.read(reg::EERD) >> 16) as u16);
        }
        assert_eq!(sum, 0xbaba);
        _ = r.write(0, reg::EERD, 1);
        assert_eq!(r.read(reg::EERD), 0x5452_0010);
        assert_eq!((r.read(reg::RA), r.read(reg::RA + 4)), (0x1200_5452, 0x8000_5634));
        assert_eq!(r.station(), [0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    }

    #[test]
    fn the_phy_negotiates_and_says_so() {
        let mut r = new();
        let mdic = |op: u32, n: u32, v: u32| v | n << 16 | 1 << 21 | op << 26;
        _ = r.write(0, reg::MDIC, mdic(2, 2, 0));
        assert_eq!(r.read(reg::MDIC) & 0x1000_ffff, 0x1000_0141);
        _ = r.write(0, reg::MDIC, mdic(1, 0, 0x1340));
        assert_eq!(r.read(reg::STATUS) & 2, 0);
        let at = r.settle(0, true).unwrap();
        assert_eq!(r.read(reg::ICR), icr::LSC);
        r.settle(at, true);
        assert_eq!((r.read(reg::STATUS) & 2, r.read(reg::ICR)), (2, icr::LSC));
        _ = r.write(0, reg::MDIC, mdic(2, 1, 0));
        assert_eq!(r.read(reg::MDIC) & 0x24, 0x24);
        // Nobody at another address.
        _ = r.write(0, reg::MDIC, 5 << 21 | 2 << 26);
        assert_ne!(r.read(reg::MDIC) & MDIC_ERROR, 0);
    }

    #[test]
    fn interrupts_wait_for_the_throttle() {
        let mut r = new();
        _ = r.write(0, reg::ITR, 1000);
        _ = r.write(0, reg::IMS, icr::RXT0);
        r.received(0);
        assert_eq!((r.settle(0, true), r.line), (None, true));
        assert_eq!(r.read(reg::ICR), icr::RXT0);
        r.settle(0, true);
        assert!(!r.line);
        r.received(1);
        assert_eq!((r.settle(1, true), r.line), (Some(256_000), false));
        assert_eq!((r.settle(256_000, true), r.line), (None, true));
        // Masked: no line.
        _ = r.write(0, reg::IMC, icr::RXT0);
        r.settle(256_000, true);
        assert!(!r.line);
    }

    #[test]
    fn received_frames_may_wait_but_not_for_ever() {
        let mut r = new();
        _ = r.write(0, reg::RDTR, 100);
        _ = r.write(0, reg::RADV, 150);
        r.received(0);
        assert_eq!(r.settle(0, true), Some(102_400));
        r.received(100_000);
        assert_eq!(r.settle(100_000, true), Some(153_600));
        r.settle(153_600, true);
        assert_eq!(r.read(reg::ICR), icr::RXT0);
    }

    #[test]
    fn counters_are_cleared_by_reading() {
        let mut r = new();
        r.count(stat::GPRC, 5);
        r.count_long(stat::GORCL, 0x1_0000_0002);
        assert_eq!((r.read(0x4074), r.read(0x4074)), (5, 0));
        assert_eq!((r.read(0x4088), r.read(0x408c)), (2, 1));
        assert_eq!((r.read(0x4088), r.read(0x408c)), (0, 0));
        r.count(stat::MPC, u32::MAX);
        r.count(stat::MPC, 1);
        assert_eq!(r.read(0x4010), u32::MAX);
        for (size, n) in [(64, 0), (65, 1), (127, 1), (128, 2), (1024, 5), (1522, 5)] {
            r.count_size(stat::PRC64, size);
            assert_eq!(r.read(0x405c + n * 4), 1, "{size}");
        }
    }

    #[test]
    fn rings_know_what_is_the_cards() {
        let mut ring = Ring { bal: 0x1000, len: 128, head: 6, tail: 2, ..Ring::default() };
        assert_eq!((ring.next(), ring.available()), (Some(0x1060), 4));
        ring.advance();
        ring.advance();
        assert_eq!((ring.head, ring.available()), (0, 2));
        ring.tail = 8; // beyond the end
        assert_eq!((ring.next(), ring.available()), (None, 0));
        assert_eq!(Ring::default().next(), None);
    }
}
