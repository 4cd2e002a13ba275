//! One 8259A interrupt controller as registers. Source: Intel 8259A datasheet (231468), PIIX3 datasheet (290550) §2.5.7 for ELCR.
//! Not modelled: MCS-80 call sequences (8080 systems only), buffered mode (pin function), the slave identity of ICW3 (wiring).

use serde::{Deserialize, Serialize};

/// Where the controller stands in its initialisation sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Init {
    /// Operational: writes to A0=1 go to the mask register.
    #[default]
    Done,
    /// ICW1 received, ICW2 (vector base) expected.
    Icw2,
    /// Cascade: ICW3 expected.
    Icw3,
    /// ICW4 expected.
    Icw4,
}

/// All that the guest can observe of one 8259A; power-on: no request, nothing masked, fixed priorities.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct I8259Regs {
    /// Interrupt request register.
    pub irr: u8,
    /// Interrupt mask register (OCW1).
    pub imr: u8,
    /// In-service register.
    pub isr: u8,
    /// Input levels last seen: the edge detectors.
    pub lines: u8,
    /// Bits 7..3 of the vector (ICW2).
    pub vector_base: u8,
    /// The input with the highest priority (0 after ICW1).
    pub highest: u8,
    /// OCW3 RIS: reads of A0=0 give ISR instead of IRR.
    pub read_isr: bool,
    /// OCW3 P: the next read is an acknowledge.
    pub poll: bool,
    /// OCW3 SMM.
    pub special_mask: bool,
    /// ICW4 SFNM.
    pub special_fully_nested: bool,
    /// ICW4 AEOI.
    pub auto_eoi: bool,
    /// OCW2: rotate in automatic EOI mode.
    pub rotate_on_auto_eoi: bool,
    /// ICW1 LTIM: all inputs level-triggered.
    pub ltim: bool,
    /// ICW1 SNGL.
    pub single: bool,
    /// ICW1 IC4.
    pub icw4_needed: bool,
    /// Initialisation sequence.
    pub init: Init,
    /// Edge/level control register, PIIX3 §2.5.7: a set bit makes the input level-triggered.
    pub elcr: u8,
}

impl I8259Regs {
    /// Priority (0 is highest) of the most urgent bit of `bits`, or `None`.
    fn priority(&self, bits: u8) -> Option<u8> {
        let turned = bits.rotate_right(u32::from(self.highest & 7));
        (turned != 0).then(|| turned.trailing_zeros() as u8)
    }

    /// The input whose priority is `p` now.
    fn input(&self, p: u8) -> u8 {
        p.wrapping_add(self.highest) & 7
    }

    fn level_triggered(&self, n: u8) -> bool {
        self.ltim || self.elcr & (1 << (n & 7)) != 0
    }

    /// The input to be acknowledged next, if INT is asserted. `cascaded`: this is the master and input 2 carries a slave, which
    /// special fully nested mode lets interrupt itself (231468, "The Special Fully Nested Mode").
    pub fn pending(&self, cascaded: bool) -> Option<u8> {
        let request = self.priority(self.irr & !self.imr)?;
        let mut serving = self.isr;
        if self.special_mask {
            serving &= !self.imr;
        }
        if self.special_fully_nested && cascaded {
            serving &= !(1 << 2);
        }
        self.priority(serving).is_none_or(|s| request < s).then(|| self.input(request))
    }

    /// Drives input `n`.
    pub fn set_line(&mut self, n: u8, level: bool) {
        let bit = 1 << (n & 7);
        if level {
            if self.level_triggered(n) || self.lines & bit == 0 {
                self.irr |= bit;
            }
            self.lines |= bit;
        } else {
            if self.level_triggered(n) {
                self.irr &= !bit;
            }
            self.lines &= !bit;
        }
    }

    /// Second INTA pulse for input `n`: into service, or done at once with automatic EOI.
    pub fn acknowledge(&mut self, n: u8) {
        let bit = 1 << (n & 7);
        if self.auto_eoi {
            if self.rotate_on_auto_eoi {
                self.highest = (n + 1) & 7;
            }
        } else {
            self.isr |= bit;
        }
        if !self.level_triggered(n) {
            self.irr &= !bit;
        }
    }

    /// The vector of input `n`.
    pub fn vector(&self, n: u8) -> u8 {
        self.vector_base | (n & 7)
    }

    /// Writes the register at `offset`: 0, or anything else for A0 = 1.
    pub fn write(&mut self, offset: u64, val: u8) {
        match (offset, self.init) {
            (0, _) if val & 0x10 != 0 => self.icw1(val),
            (0, _) if val & 0x08 != 0 => self.ocw3(val),
            (0, _) => self.ocw2(val),
            (_, Init::Done) => self.imr = val,
            (_, Init::Icw2) => {
                self.vector_base = val & 0xf8;
                self.init = match (self.single, self.icw4_needed) {
                    (false, _) => Init::Icw3,
                    (true, true) => Init::Icw4,
                    (true, false) => Init::Done,
                };
            }
            (_, Init::Icw3) => self.init = if self.icw4_needed { Init::Icw4 } else { Init::Done },
            (_, Init::Icw4) => {
                self.special_fully_nested = val & 0x10 != 0;
                self.auto_eoi = val & 0x02 != 0;
                self.init = Init::Done;
            }
        }
    }

    /// ICW1: the edge detectors are reset (requests of level-triggered inputs stay), masks and modes cleared.
    fn icw1(&mut self, val: u8) {
        let ltim = val & 0x08 != 0;
        *self = Self {
            irr: if ltim { self.irr & self.lines } else { self.irr & self.elcr },
            elcr: self.elcr,
            ltim,
            single: val & 0x02 != 0,
            icw4_needed: val & 0x01 != 0,
            init: Init::Icw2,
            // An input that is high stays "seen": only a new low-to-high transition is an edge.
            lines: self.lines,
            ..Self::default()
        };
    }

    /// OCW2: R, SL, EOI in bits 7..5.
    fn ocw2(&mut self, val: u8) {
        let level = val & 7;
        match val >> 5 {
            0 => self.rotate_on_auto_eoi = false,
            4 => self.rotate_on_auto_eoi = true,
            cmd @ (1 | 5) => {
                // Non-specific: the highest in service. In special mask mode a masked one is left alone.
                let serving = if self.special_mask { self.isr & !self.imr } else { self.isr };
                if let Some(p) = self.priority(serving) {
                    let n = self.input(p);
                    self.isr &= !(1 << n);
                    if cmd == 5 {
                        self.highest = (n + 1) & 7;
                    }
                }
            }
            cmd @ (3 | 7) => {
                self.isr &= !(1 << level);
                if cmd == 7 {
                    self.highest = (level + 1) & 7;
                }
            }
            6 => self.highest = (level + 1) & 7,
            _ => {} // 2: no operation
        }
    }

    fn ocw3(&mut self, val: u8) {
        if val & 0x04 != 0 {
            self.poll = true;
        }
        if val & 0x02 != 0 {
            self.read_isr = val & 0x01 != 0;
        }
        if val & 0x40 != 0 {
            self.special_mask = val & 0x20 != 0;
        }
    }

    /// Reads the register at `offset`: 0, or anything else for A0 = 1. After a poll command any read is an acknowledge: bit 7 and the input, or 0.
    pub fn read(&mut self, offset: u64, cascaded: bool) -> u8 {
        if std::mem::take(&mut self.poll) {
            return self.pending(cascaded).map_or(0, |n| {
                self.acknowledge(n);
                0x80 | n
            });
        }
        match (offset, self.read_isr) {
            (0, false) => self.irr,
            (0, true) => self.isr,
            _ => self.imr,
        }
    }

    /// What the guest sees without side effects, for `info pic`.
    pub fn describe(&self) -> String {
        format!(
            "irr={:02x} imr={:02x} isr={:02x} hprio={} irq_base={:02x} rr_sel={} elcr={:02x} fnm={}",
            self.irr,
            self.imr,
            self.isr,
            self.highest,
            self.vector_base,
            u8::from(self.read_isr),
            self.elcr,
            u8::from(self.special_fully_nested)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn initialised() -> I8259Regs {
        let mut r = I8259Regs::default();
        for (a0, val) in [(0, 0x11), (1, 0x20), (1, 0x04), (1, 0x01)] {
            r.write(a0, val);
        }
        r
    }

    #[test]
    fn init_sequence_ends_in_operation() {
        let mut r = initialised();
        assert_eq!((r.init, r.vector(3)), (Init::Done, 0x23));
        r.write(1, 0xfb);
        assert_eq!((r.imr, r.read(1, true)), (0xfb, 0xfb));
        r.write(0, 0x12); // single, no ICW4
        assert_eq!(r.imr, 0);
        r.write(1, 0x77);
        assert_eq!((r.init, r.vector_base), (Init::Done, 0x70));
    }

    #[test]
    fn edge_is_latched_once_and_survives_the_line() {
        let mut r = initialised();
        r.set_line(4, true);
        r.set_line(4, false);
        assert_eq!(r.pending(true), Some(4));
        r.acknowledge(4);
        assert_eq!((r.irr, r.isr, r.pending(true)), (0, 0x10, None));
        r.set_line(4, true);
        r.set_line(4, true);
        assert_eq!(r.irr, 0x10);
        assert_eq!(r.pending(true), None); // same level in service
        r.write(0, 0x20);
        assert_eq!(r.pending(true), Some(4));
        r.acknowledge(4);
        r.set_line(4, true); // still high: no new edge
        assert_eq!(r.irr, 0);
    }

    #[test]
    fn level_input_follows_the_line() {
        let mut r = initialised();
        r.elcr = 0x20;
        r.set_line(5, true);
        r.acknowledge(5);
        r.write(0, 0x65); // specific EOI
        assert_eq!(r.pending(true), Some(5));
        r.set_line(5, false);
        assert_eq!(r.pending(true), None);
    }

    #[test]
    fn higher_priority_nests_lower_waits() {
        let mut r = initialised();
        r.set_line(3, true);
        r.acknowledge(3);
        r.set_line(6, true);
        assert_eq!(r.pending(true), None);
        r.set_line(1, true);
        assert_eq!(r.pending(true), Some(1));
        r.acknowledge(1);
        r.write(0, 0x20); // ends 1, the most urgent
        assert_eq!(r.isr, 1 << 3);
    }

    #[test]
    fn rotation_makes_the_served_input_lowest() {
        let mut r = initialised();
        r.set_line(2, true);
        r.acknowledge(2);
        r.write(0, 0xa0); // rotate on non-specific EOI
        assert_eq!((r.highest, r.isr), (3, 0));
        r.set_line(0, true);
        r.set_line(7, true);
        assert_eq!(r.pending(false), Some(7)); // 3..7 come before 0..2
        r.write(0, 0xc6); // set priority: 6 lowest, 7 highest
        assert_eq!(r.highest, 7);
    }

    #[test]
    fn special_mask_lets_lower_inputs_through() {
        let mut r = initialised();
        r.set_line(1, true);
        r.acknowledge(1);
        r.set_line(4, true);
        r.write(1, 0x02);
        assert_eq!(r.pending(true), None);
        r.write(0, 0x68);
        assert_eq!(r.pending(true), Some(4));
        r.write(0, 0x48);
        assert_eq!(r.pending(true), None);
    }

    #[test]
    fn special_fully_nested_master_takes_a_second_slave_request() {
        let mut r = initialised();
        r.special_fully_nested = true;
        r.set_line(2, true);
        r.acknowledge(2);
        r.set_line(2, false);
        r.set_line(2, true);
        assert_eq!((r.pending(true), r.pending(false)), (Some(2), None));
    }

    #[test]
    fn poll_acknowledges_and_reports_nothing_as_zero() {
        let mut r = initialised();
        r.write(0, 0x0c);
        assert_eq!(r.read(0, true), 0);
        r.set_line(6, true);
        r.write(0, 0x0c);
        assert_eq!(r.read(1, true), 0x86); // either address
        assert_eq!(r.isr, 0x40);
        r.write(0, 0x0b);
        assert_eq!(r.read(0, true), 0x40);
        r.write(0, 0x0a);
        assert_eq!(r.read(0, true), 0);
    }

    #[test]
    fn automatic_eoi_with_rotation() {
        let mut r = initialised();
        r.auto_eoi = true;
        r.write(0, 0x80);
        r.set_line(3, true);
        r.acknowledge(3);
        assert_eq!((r.isr, r.highest), (0, 4));
        r.write(0, 0x00);
        assert!(!r.rotate_on_auto_eoi);
    }

    #[test]
    fn icw1_forgets_edges_and_keeps_level_requests() {
        let mut r = initialised();
        r.elcr = 0x20;
        r.set_line(3, true);
        r.set_line(5, true);
        r.write(0, 0x11);
        assert_eq!((r.irr, r.elcr, r.imr, r.isr), (0x20, 0x20, 0, 0));
    }
}
