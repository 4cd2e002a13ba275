//! I/O APIC as registers. Source: Intel 82093AA datasheet (290566) §3, and the EOI register of ICH (version 0x20).
//! Not modelled: the three-wire APIC bus and its arbitration (IOAPICARB reads back IOAPICID); polarity as voltage: a pin carries
//! "asserted", so INTPOL is kept for the guest and changes nothing.

use bitfield_struct::bitfield;
use serde::{Deserialize, Serialize};

/// Number of interrupt inputs.
pub const PINS: usize = 24;

/// IOREDTBL, redirection entry, §3.2.4. Reserved bits hold what was written (bits 63..48 carry the remappable format).
#[bitfield(u64)]
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub struct Ioredtbl {
    /// Vector, 0x10 to 0xfe.
    pub intvec: u8,
    /// Delivery mode: 0 fixed, 1 lowest priority, 2 SMI, 4 NMI, 5 INIT, 7 ExtINT.
    #[bits(3)]
    pub delmod: u8,
    /// Logical destination.
    pub destmod: bool,
    /// Delivery status, read only.
    pub delivs: bool,
    /// Active low.
    pub intpol: bool,
    /// Remote IRR, read only: level interrupt accepted, EOI outstanding.
    pub remote_irr: bool,
    /// Level triggered.
    pub trigger_mode: bool,
    /// Masked.
    pub interrupt_mask: bool,
    #[bits(31)]
    reserved: u32,
    /// Destination, low byte of the 16-bit index (bits 55..48) and the APIC ID (63..56).
    pub dest_index: u16,
}

/// Delivery mode ExtINT: the vector comes from the 8259 pair.
pub const DELMOD_EXTINT: u8 = 7;

/// A message for the local APICs: the write the I/O APIC makes on the bus, and for which pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// The pin that caused it.
    pub pin: u8,
    /// Bus address, 0xfeexxxxx.
    pub addr: u64,
    /// Data; its vector is to be replaced by the 8259's when `extint`.
    pub data: u32,
    /// The vector comes from the 8259 pair (INTA cycle).
    pub extint: bool,
}

/// All that the guest can observe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IoapicRegs {
    /// IOREGSEL, the index.
    pub ioregsel: u8,
    /// IOAPICID, 4 bits.
    pub id: u8,
    /// The 24 redirection entries.
    pub ioredtbl: [Ioredtbl; PINS],
    /// Level of each input pin.
    pub pins: u32,
    /// Requests waiting: edges to be sent, levels asserted.
    pub irr: u32,
}

impl Default for IoapicRegs {
    /// Power-on: every entry masked (§3.2.4).
    fn default() -> Self {
        Self { ioregsel: 0, id: 0, ioredtbl: [Ioredtbl::new().with_interrupt_mask(true); PINS], pins: 0, irr: 0 }
    }
}

impl IoapicRegs {
    /// Reset by the machine: registers as at power-on; what the lines carry stays.
    pub fn reset(&mut self) {
        *self = Self { pins: self.pins, ..Self::default() };
    }

    /// Reads byte `offset` of the window; `size` in bytes. IOWIN answers to 32-bit accesses only.
    pub fn read(&self, offset: u64, size: u32, version: u8) -> u32 {
        match (offset & 0xff, size) {
            (0x00, _) => self.ioregsel.into(),
            (0x10, 4) => match self.ioregsel {
                0 | 2 => u32::from(self.id) << 24,
                1 => u32::from(version) | (PINS as u32 - 1) << 16,
                _ => self.selected().map_or(0, |(n, high)| {
                    let e = self.ioredtbl.get(n).map_or(0, |e| e.into_bits());
                    if high { (e >> 32) as u32 } else { e as u32 }
                }),
            },
            _ => 0,
        }
    }

    /// Entry and half that IOREGSEL points at.
    fn selected(&self) -> Option<(usize, bool)> {
        let n = usize::from(self.ioregsel.checked_sub(0x10)?);
        (n / 2 < PINS).then_some((n / 2, n & 1 == 1))
    }

    /// Writes byte `offset`; returns what is to be sent now.
    #[must_use]
    pub fn write(&mut self, offset: u64, size: u32, val: u32, version: u8) -> Vec<Message> {
        match (offset & 0xff, size) {
            (0x00, _) => self.ioregsel = val as u8,
            (0x10, 4) if self.ioregsel == 0 => self.id = (val >> 24) as u8 & 0xf,
            (0x10, 4) => {
                if let Some((n, high)) = self.selected()
                    && let Some(e) = self.ioredtbl.get_mut(n)
                {
                    let (old, v) = (e.into_bits(), u64::from(val));
                    let new = if high { old & 0xffff_ffff | v << 32 } else { old & !0xffff_ffff | v };
                    *e = Ioredtbl::from_bits(new).with_delivs(e.delivs()).with_remote_irr(e.remote_irr());
                    if !e.trigger_mode() {
                        e.set_remote_irr(false); // an edge entry has no EOI to wait for
                    }
                    return self.service();
                }
            }
            // EOI register of version 0x20.
            (0x40, 4) if version >= 0x20 => return self.eoi(val as u8),
            _ => {}
        }
        vec![]
    }

    /// Level of pin `n`, as last driven.
    pub fn level(&self, n: usize) -> bool {
        self.pins >> (n & 31) & 1 != 0
    }

    /// Drives pin `n`. Edge requests at a masked entry are lost (§3.2.4, interrupt mask).
    #[must_use]
    pub fn set_pin(&mut self, n: usize, level: bool) -> Vec<Message> {
        let (Some(e), bit) = (self.ioredtbl.get(n), 1u32 << (n as u32 & 31)) else { return vec![] };
        let rose = level && self.pins & bit == 0;
        self.pins = if level { self.pins | bit } else { self.pins & !bit };
        if e.trigger_mode() {
            self.irr = if level { self.irr | bit } else { self.irr & !bit };
            if level && !e.remote_irr() {
                return self.service();
            }
        } else if rose && !e.interrupt_mask() {
            self.irr |= bit;
            return self.service();
        }
        vec![]
    }

    /// EOI of `vector` seen on the bus: level entries with that vector may interrupt again.
    #[must_use]
    pub fn eoi(&mut self, vector: u8) -> Vec<Message> {
        let mut again = false;
        for e in &mut self.ioredtbl {
            if e.intvec() == vector && e.trigger_mode() && e.remote_irr() {
                e.set_remote_irr(false);
                again = true;
            }
        }
        if again { self.service() } else { vec![] }
    }

    /// Sends every waiting, unmasked request that may be sent.
    fn service(&mut self) -> Vec<Message> {
        let mut out = vec![];
        for (n, e) in self.ioredtbl.iter_mut().enumerate() {
            let bit = 1u32 << n;
            if self.irr & bit == 0 || e.interrupt_mask() {
                continue;
            }
            if e.trigger_mode() {
                if e.remote_irr() {
                    continue; // the guest still works on the previous one
                }
                e.set_remote_irr(true);
            } else {
                self.irr &= !bit;
            }
            out.push(Message {
                pin: n as u8,
                addr: 0xfee0_0000 | u64::from(e.dest_index()) << 4 | u64::from(e.destmod()) << 2,
                data: u32::from(e.intvec()) | u32::from(e.delmod()) << 8 | u32::from(e.trigger_mode()) << 15,
                extint: e.delmod() == DELMOD_EXTINT,
            });
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(io: &mut IoapicRegs, n: u8, e: Ioredtbl) -> Vec<Message> {
        let mut out = vec![];
        for (reg, v) in [(0x11 + 2 * n, (e.into_bits() >> 32) as u32), (0x10 + 2 * n, e.into_bits() as u32)] {
            out.extend(io.write(0, 4, reg.into(), 0x20));
            out.extend(io.write(0x10, 4, v, 0x20));
        }
        out
    }
    fn read(io: &mut IoapicRegs, reg: u32) -> u32 {
        assert_eq!(io.write(0, 4, reg, 0x20), []);
        io.read(0x10, 4, 0x20)
    }

    #[test]
    fn identity_registers() {
        let mut io = IoapicRegs::default();
        assert_eq!(read(&mut io, 1), 0x0017_0020);
        assert_eq!(io.write(0x10, 4, 0xffff_ffff, 0x20), []); // version is read only
        assert_eq!(read(&mut io, 1), 0x0017_0020);
        let _ = io.write(0, 4, 0, 0x20);
        let _ = io.write(0x10, 4, 0xff00_0000, 0x20);
        assert_eq!((read(&mut io, 0), read(&mut io, 2)), (0x0f00_0000, 0x0f00_0000));
        assert_eq!((read(&mut io, 0x10), read(&mut io, 0x11), read(&mut io, 0x40)), (0x1_0000, 0, 0));
        let _ = io.write(0, 4, 1, 0x20);
        assert_eq!(io.read(0x10, 1, 0x20), 0); // IOWIN wants 32 bits
    }

    #[test]
    fn masked_edge_is_lost() {
        let mut io = IoapicRegs::default();
        assert_eq!(io.set_pin(4, true), []);
        assert_eq!(entry(&mut io, 4, Ioredtbl::new().with_intvec(0x31)), []);
        assert_eq!(io.set_pin(4, true), []); // no new edge
        assert_eq!(io.set_pin(4, false), []);
        let sent = io.set_pin(4, true);
        assert_eq!(sent, [Message { pin: 4, addr: 0xfee0_0000, data: 0x31, extint: false }]);
    }

    #[test]
    fn level_waits_for_eoi() {
        let mut io = IoapicRegs::default();
        let e = Ioredtbl::new().with_intvec(0x52).with_trigger_mode(true).with_dest_index(0x0300).with_destmod(true);
        assert_eq!(entry(&mut io, 11, e), []);
        let m = Message { pin: 11, addr: 0xfee0_3004, data: 0x8052, extint: false };
        assert_eq!(io.set_pin(11, true), [m]);
        assert_eq!(read(&mut io, 0x26), 0xc852);
        assert_eq!(io.set_pin(11, true), []);
        assert_eq!(io.eoi(0x51), []);
        assert_eq!(io.eoi(0x52), [m]); // still asserted
        assert_eq!(io.set_pin(11, false), []);
        assert_eq!(io.write(0x40, 4, 0x52, 0x20), []);
        assert_eq!(read(&mut io, 0x26), 0x8852);
    }

    #[test]
    fn masked_level_is_sent_when_unmasked() {
        let mut io = IoapicRegs::default();
        let e = Ioredtbl::new().with_intvec(0x60).with_trigger_mode(true);
        let _ = entry(&mut io, 9, e.with_interrupt_mask(true));
        assert_eq!(io.set_pin(9, true), []);
        assert_eq!(entry(&mut io, 9, e).len(), 1);
    }

    #[test]
    fn read_only_bits_and_turning_to_edge() {
        let mut io = IoapicRegs::default();
        let _ = entry(&mut io, 3, Ioredtbl::from_bits(0xffff_ffff));
        assert_eq!(read(&mut io, 0x16), 0xffff_afff); // DELIVS and remote IRR are not writable
        let _ = entry(&mut io, 3, Ioredtbl::new().with_intvec(0x44).with_trigger_mode(true));
        assert_eq!(io.set_pin(3, true).len(), 1);
        let _ = entry(&mut io, 3, Ioredtbl::new().with_intvec(0x44).with_interrupt_mask(true));
        assert_eq!(read(&mut io, 0x16), 0x1_0044);
    }

    #[test]
    fn extint_asks_for_the_vector() {
        let mut io = IoapicRegs::default();
        let _ = entry(&mut io, 0, Ioredtbl::new().with_delmod(DELMOD_EXTINT));
        assert!(io.set_pin(0, true).first().is_some_and(|m| m.extint && m.data == 0x700));
    }
}
