//! Registers of an AHCI controller: generic host control, and those of one port. Source: AHCI 1.3.1 §3.1 (generic host control), §3.3
//! (ports). Plain state: what a write asks for is returned, the port's engine ([`super::port`]) does it.

use super::ncq::Queued;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Ports of the controller.
pub const PORTS: usize = 6;
/// Command slots of a port.
pub const SLOTS: u8 = 32;
/// Where the first port's registers are, and bytes of each port's.
pub const PORT_BASE: u64 = 0x100;
/// Bytes of a port's registers.
pub const PORT_SIZE: u64 = 0x80;

/// Global HBA control. §3.1.2
pub mod ghc {
    /// HBA reset.
    pub const HR: u32 = 1;
    /// Interrupt enable.
    pub const IE: u32 = 1 << 1;
    /// AHCI enable: always, there is no other way to use this controller.
    pub const AE: u32 = 1 << 31;
}

/// Port interrupt status and enable. §3.3.5
pub mod pxis {
    /// Device to host register FIS.
    pub const DHRS: u32 = 1;
    /// PIO setup FIS.
    pub const PSS: u32 = 1 << 1;
    /// Set device bits FIS.
    pub const SDBS: u32 = 1 << 3;
    /// Descriptor processed.
    pub const DPS: u32 = 1 << 5;
    /// Port connect change: PxSERR.DIAG.X.
    pub const PCS: u32 = 1 << 6;
    /// PhyRdy change: PxSERR.DIAG.N.
    pub const PRCS: u32 = 1 << 22;
    /// Overflow: a table has fewer bytes than the transfer.
    pub const OFS: u32 = 1 << 24;
    /// Interface fatal error.
    pub const IFS: u32 = 1 << 27;
    /// Host bus data error.
    pub const HBDS: u32 = 1 << 28;
    /// Host bus fatal error.
    pub const HBFS: u32 = 1 << 29;
    /// Task file error.
    pub const TFES: u32 = 1 << 30;
    /// Bits that a write of ones clears.
    pub const W1C: u32 = 0xfd80_00af;
    /// Bits that can interrupt.
    pub const ENABLES: u32 = 0xfdc0_00ff;
}

/// Port command and status. §3.3.7
pub mod pxcmd {
    /// Start: the command list is worked at.
    pub const ST: u32 = 1;
    /// Spin-up device.
    pub const SUD: u32 = 1 << 1;
    /// Power on device.
    pub const POD: u32 = 1 << 2;
    /// Command list override: busy and data request are forgotten.
    pub const CLO: u32 = 1 << 3;
    /// FIS receive enable.
    pub const FRE: u32 = 1 << 4;
    /// Current command slot.
    pub const CCS_SHIFT: u32 = 8;
    /// Its bits.
    pub const CCS: u32 = 0x1f << CCS_SHIFT;
    /// FIS receive running.
    pub const FR: u32 = 1 << 14;
    /// Command list running.
    pub const CR: u32 = 1 << 15;
    /// What a guest can write: also device is ATAPI and the link's power switches, which change nothing. Communication control
    /// (31:28) is always done at once.
    pub const WRITABLE: u32 = ST | SUD | POD | FRE | 0x0f00_0000;
}

/// Device control.
pub mod control {
    /// No interrupts.
    pub const NIEN: u8 = 0x02;
    /// Software reset.
    pub const SRST: u8 = 0x04;
}

/// SATA status: a device whose link is up at the first generation's speed. §3.3.10
const SSTS_UP: u32 = 0x113;
/// SATA status: the interface is offline. §3.3.10
const SSTS_OFFLINE: u32 = 0x4;
/// SATA error: PhyRdy change, exchanged. §3.3.12
const SERR_UP: u32 = 1 << 26 | 1 << 16;
/// SATA control: device detection initialization. §3.3.11
const DET: u32 = 0xf;
/// Task file data when no device has said anything. §3.3.8
const TFD_NONE: u32 = 0x7f;
/// Signature when no device has sent one. §3.3.9
const SIG_NONE: u32 = u32::MAX;
/// Task file: data request.
pub const TFD_DRQ: u32 = 0x08;
/// Task file: busy.
pub const TFD_BSY: u32 = 0x80;

/// Where a command's descriptors are, and how far they were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// The command table.
    pub at: u64,
    /// Descriptors.
    pub prds: u16,
    /// The first descriptor that what was asked for last began in; what comes later begins there or behind. Without it a table of 65535
    /// descriptors would be read once for each block of 512 bytes.
    #[serde(default)]
    pub reached: u16,
    /// First byte of the transfer in that descriptor.
    #[serde(default)]
    pub start: u64,
}

impl Table {
    /// A table that nothing was read of.
    pub fn new(at: u64, prds: u16) -> Self {
        Self { at, prds, reached: 0, start: 0 }
    }
}

/// The command that the device is at and that is not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Current {
    /// Slot.
    pub slot: u8,
    /// Its descriptors.
    pub table: Table,
    /// Bytes moved so far.
    pub moved: u64,
}

/// Registers of one port and what its engine is at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortRegs {
    /// Command list base.
    pub clb: u64,
    /// FIS base.
    pub fb: u64,
    /// Interrupt status but for the bits that show PxSERR.
    pub is: u32,
    /// Interrupt enable.
    pub ie: u32,
    /// Command and status; bits of the engine are made when it is read.
    pub cmd: u32,
    /// Task file data: error and status.
    pub tfd: u32,
    /// Signature.
    pub sig: u32,
    /// SATA status.
    pub ssts: u32,
    /// SATA control.
    pub sctl: u32,
    /// SATA error.
    pub serr: u32,
    /// SATA active: queued commands that have not ended, by tag.
    pub sact: u32,
    /// Commands issued, by slot.
    pub ci: u32,
    /// The slot that was fetched last.
    pub ccs: u8,
    /// The command at work that is not queued.
    pub current: Option<Current>,
    /// The queued commands at work, by tag.
    pub queued: BTreeMap<u8, Queued>,
    /// An error has stopped the engine until the guest clears ST.
    pub halted: bool,
    /// The device has been reset and its signature was not received yet.
    pub signature_waits: bool,
    /// Device control, as the last control FIS set it.
    pub control: u8,
}

impl Default for PortRegs {
    /// After a reset of the controller, without a device.
    fn default() -> Self {
        Self {
            clb: 0,
            fb: 0,
            is: 0,
            ie: 0,
            cmd: pxcmd::SUD | pxcmd::POD,
            tfd: TFD_NONE,
            sig: SIG_NONE,
            ssts: 0,
            sctl: 0,
            serr: 0,
            sact: 0,
            ci: 0,
            ccs: 0,
            current: None,
            queued: BTreeMap::new(),
            halted: false,
            signature_waits: false,
            control: 0,
        }
    }
}

/// What a write to a port's registers asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing but the interrupt to be looked at.
    None,
    /// Commands may be issued.
    Issue,
    /// The engine stops: what it is at is forgotten.
    Stop,
    /// FISes can be received from now on.
    Receive,
    /// COMRESET begins: the link goes down.
    Down,
    /// COMRESET ends: the link comes up.
    Up,
}

/// Replaces the half of an address register: a base of 2^`align` bytes.
fn set_half(reg: &mut u64, high: bool, val: u32, align: u32) {
    *reg = if high {
        u64::from(val) << 32 | *reg & 0xffff_ffff
    } else {
        *reg & !0xffff_ffff | u64::from(val) >> align << align
    };
}

impl PortRegs {
    /// Interrupt status, §3.3.5: with what shows PxSERR.
    pub fn interrupts(&self) -> u32 {
        let shown = |bit: u32, as_bit: u32| if self.serr & bit != 0 { as_bit } else { 0 };
        self.is | shown(1 << 26, pxis::PCS) | shown(1 << 16, pxis::PRCS)
    }

    /// Whether the port wants to interrupt.
    pub fn is_pending(&self) -> bool {
        self.interrupts() & self.ie != 0
    }

    /// Whether commands can be fetched.
    pub fn is_running(&self) -> bool {
        self.cmd & pxcmd::ST != 0 && !self.halted
    }

    /// Whether the device interrupts at the end of its commands.
    pub fn interrupts_enabled(&self) -> bool {
        self.control & control::NIEN == 0
    }

    /// Whether there is a device and the link to it is up.
    pub fn is_up(&self) -> bool {
        self.ssts == SSTS_UP
    }

    /// Reads the register at `offset`, a multiple of 4.
    pub fn read(&self, offset: u64) -> u32 {
        match offset {
            0x00 => self.clb as u32,
            0x04 => (self.clb >> 32) as u32,
            0x08 => self.fb as u32,
            0x0c => (self.fb >> 32) as u32,
            0x10 => self.interrupts(),
            0x14 => self.ie,
            0x18 => {
                let running = |bit: u32, shown: u32| if self.cmd & bit != 0 { shown } else { 0 };
                let ccs = u32::from(self.ccs) << pxcmd::CCS_SHIFT & pxcmd::CCS;
                self.cmd | ccs | running(pxcmd::ST, pxcmd::CR) | running(pxcmd::FRE, pxcmd::FR)
            }
            0x20 => self.tfd,
            0x24 => self.sig,
            0x28 => self.ssts,
            0x2c => self.sctl,
            0x30 => self.serr,
            0x34 => self.sact,
            0x38 => self.ci,
            _ => 0,
        }
    }

    /// Whether a write of ones does something to bits of the register, and a write of zeros nothing.
    pub fn is_of_ones(offset: u64) -> bool {
        matches!(offset, 0x10 | 0x30 | 0x34 | 0x38)
    }

    /// Whether the register has to do with interrupts.
    pub fn interrupts_at(offset: u64) -> bool {
        matches!(offset, 0x10 | 0x14 | 0x30)
    }

    /// Writes the register at `offset`, a multiple of 4.
    #[must_use]
    pub fn write(&mut self, offset: u64, val: u32) -> Effect {
        match offset {
            // 1 KiB, 256 bytes
            0x00 | 0x04 => set_half(&mut self.clb, offset == 0x04, val, 10),
            0x08 | 0x0c => set_half(&mut self.fb, offset == 0x0c, val, 8),
            0x10 => self.is &= !(val & pxis::W1C),
            0x14 => self.ie = val & pxis::ENABLES,
            0x18 => return self.write_cmd(val),
            0x2c => return self.write_sctl(val),
            0x30 => self.serr &= !val,
            0x34 if self.cmd & pxcmd::ST != 0 => self.sact |= val,
            0x38 if self.cmd & pxcmd::ST != 0 => {
                self.ci |= val;
                return Effect::Issue;
            }
            _ => {}
        }
        Effect::None
    }

    fn write_cmd(&mut self, val: u32) -> Effect {
        let was = std::mem::replace(&mut self.cmd, val & pxcmd::WRITABLE);
        if val & pxcmd::CLO != 0 {
            self.tfd &= !(TFD_BSY | TFD_DRQ);
        }
        let (set, cleared) = (self.cmd & !was, was & !self.cmd);
        if cleared & pxcmd::ST != 0 {
            return Effect::Stop;
        }
        if set & pxcmd::FRE != 0 {
            return Effect::Receive;
        }
        if set & pxcmd::ST != 0 { Effect::Issue } else { Effect::None }
    }

    fn write_sctl(&mut self, val: u32) -> Effect {
        let was = std::mem::replace(&mut self.sctl, val & 0xfff);
        match (was & DET, val & DET) {
            (old, new) if old == new => Effect::None,
            (_, 1 | 4) => Effect::Down,
            (1 | 4, _) => Effect::Up,
            _ => Effect::None,
        }
    }

    /// The engine stops, §3.3.14: nothing is issued any more.
    pub fn stop(&mut self) {
        (self.ci, self.sact, self.ccs) = (0, 0, 0);
        self.forget();
        self.halted = false;
    }

    /// The commands at work are forgotten.
    pub fn forget(&mut self) {
        self.current = None;
        self.queued.clear();
    }

    /// The link goes down: nothing is known of a device.
    pub fn link_down(&mut self) {
        self.forget();
        (self.tfd, self.sig) = (TFD_NONE, SIG_NONE);
        self.ssts = if self.sctl & DET == 4 { SSTS_OFFLINE } else { 0 };
        (self.signature_waits, self.control) = (false, 0);
    }

    /// The link comes up, if there is a device; its signature follows. `changed`: the error register tells of it, which it does
    /// not after power-on.
    pub fn link_up(&mut self, device: bool, changed: bool) {
        self.ssts = if device { SSTS_UP } else { 0 };
        if device {
            self.signature_waits = true;
            self.serr |= if changed { SERR_UP } else { 0 };
        }
    }

    /// Says that the device has taken command `slot` or done with it.
    pub fn clear_issued(&mut self, slot: u8) {
        self.ci &= !1u32.checked_shl(slot.into()).unwrap_or(0);
    }

    /// An error stops the engine.
    pub fn halt(&mut self, why: u32) {
        self.is |= why;
        self.halted = true;
    }

    /// The next command to be fetched: the lowest slot that is issued, if the device takes commands.
    pub fn next_slot(&self) -> Option<u8> {
        let free = self.is_running() && self.is_up() && self.current.is_none() && self.tfd & (TFD_BSY | TFD_DRQ) == 0;
        (free && self.ci != 0).then_some(self.ci.trailing_zeros() as u8)
    }

    /// Rejects what a port cannot hold.
    ///
    /// # Errors
    /// A slot or tag that there is not.
    pub fn check(&self) -> Result<(), String> {
        let slots = self.current.is_none_or(|c| c.slot < SLOTS) && self.ccs < SLOTS;
        let tags = self.queued.iter().all(|(tag, q)| *tag < SLOTS && q.done <= q.len);
        if slots && tags { Ok(()) } else { Err("AHCI port: impossible state".into()) }
    }
}

/// Generic host control but for what never changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HbaRegs {
    /// Interrupts are sent.
    pub interrupts_enabled: bool,
    /// Ports that interrupt.
    pub is: u32,
    /// Index of the index and data pair, bytes.
    pub index: u16,
}

/// Host capabilities, §3.1.1: 64-bit addresses, queued commands, AHCI only, the first generation's speed, 32 slots, the ports.
const CAP: u32 = 1 << 31 | 1 << 30 | 1 << 18 | 1 << 20 | (SLOTS as u32 - 1) << 8 | (PORTS as u32 - 1);
/// Version 1.0, as on QEMU. §3.1.5
const VERSION: u32 = 0x0001_0000;

impl HbaRegs {
    /// Whether the controller interrupts.
    pub fn is_asserted(&self) -> bool {
        self.interrupts_enabled && self.is != 0
    }

    /// Reads the register at `offset`, a multiple of 4.
    pub fn read(&self, offset: u64) -> u32 {
        match offset {
            0x00 => CAP,
            0x04 => ghc::AE | if self.interrupts_enabled { ghc::IE } else { 0 },
            0x08 => self.is,
            0x0c => (1 << PORTS) - 1,
            0x10 => VERSION,
            _ => 0,
        }
    }

    /// Writes the register at `offset`, a multiple of 4; whether the controller is reset.
    #[must_use]
    pub fn write(&mut self, offset: u64, val: u32) -> bool {
        match offset {
            0x04 => {
                self.interrupts_enabled = val & ghc::IE != 0;
                return val & ghc::HR != 0;
            }
            0x08 => self.is &= !val,
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_only_bits_stay_and_bases_are_aligned() {
        let mut r = PortRegs::default();
        for offset in (0..PORT_SIZE).step_by(4) {
            _ = r.write(offset, u32::MAX);
        }
        assert_eq!((r.read(0x00), r.read(0x04), r.read(0x08)), (0xffff_fc00, u32::MAX, 0xffff_ff00));
        assert_eq!((r.read(0x20), r.read(0x24), r.read(0x28), r.read(0x3c)), (TFD_NONE & !TFD_DRQ, SIG_NONE, 0, 0));
        assert_eq!(r.read(0x14), 0xfdc0_00ff);
        // ST and FRE show in CR and FR; CLO and ICC do not stick.
        assert_eq!(r.read(0x18), 0x0f00_c017);
    }

    #[test]
    fn commands_are_issued_while_the_engine_runs() {
        let mut r = PortRegs::default();
        r.link_up(true, false);
        r.tfd = 0x50;
        assert_eq!((r.write(0x38, 6), r.ci), (Effect::None, 0));
        assert_eq!(r.write(0x18, pxcmd::ST | pxcmd::FRE), Effect::Receive);
        assert_eq!((r.write(0x38, 6), r.next_slot()), (Effect::Issue, Some(1)));
        r.tfd |= TFD_BSY;
        assert_eq!(r.next_slot(), None);
        assert_eq!(r.write(0x18, pxcmd::ST | pxcmd::FRE | pxcmd::CLO), Effect::None);
        assert_eq!(r.next_slot(), Some(1));
        r.halt(pxis::TFES);
        assert_eq!((r.next_slot(), r.ci), (None, 6));
        assert_eq!(r.write(0x18, pxcmd::FRE), Effect::Stop);
        r.stop();
        assert_eq!((r.ci, r.halted), (0, false));
    }

    #[test]
    fn a_reset_of_the_link_shows_in_the_error_register() {
        let mut r = PortRegs::default();
        assert_eq!(r.write(0x2c, 0x301), Effect::Down);
        r.link_down();
        assert_eq!((r.write(0x2c, 0x301), r.write(0x2c, 0x300)), (Effect::None, Effect::Up));
        r.link_up(true, true);
        assert_eq!((r.read(0x28), r.read(0x10)), (0x113, pxis::PCS | pxis::PRCS));
        _ = r.write(0x10, u32::MAX);
        assert_eq!(r.read(0x10), pxis::PCS | pxis::PRCS, "cleared by the error register only");
        _ = r.write(0x30, u32::MAX);
        assert_eq!(r.read(0x10), 0);
        assert_eq!(r.write(0x2c, 4), Effect::Down);
        r.link_down();
        assert_eq!(r.read(0x28), 4);
    }
}
