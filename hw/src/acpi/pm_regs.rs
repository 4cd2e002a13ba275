//! ACPI fixed hardware: PM1 event and control blocks, the PM timer, GPE0. Registers only.
//! Source: ACPI 6.5 §4.8.3 (PM1, PM_TMR), §4.8.4.1 (GPE); Intel 82371AB (PIIX4, 290562) §7.2.
//! Not modelled: bus-master status, the global lock.

use serde::{Deserialize, Serialize};

/// Frequency of the PM timer, Hz (§4.8.2.1).
pub const PM_TIMER_HZ: u64 = 3_579_545;
const SECOND: u64 = 1_000_000_000;

/// PM1 status and enable bits, §4.8.3.1.
pub mod pm1 {
    /// Bit 23 of the PM timer has changed.
    pub const TMR: u16 = 0x0001;
    /// Global lock released.
    pub const GBL: u16 = 0x0020;
    /// Power button.
    pub const PWRBTN: u16 = 0x0100;
    /// RTC alarm.
    pub const RTC: u16 = 0x0400;
    /// Woken from a sleep state.
    pub const WAK: u16 = 0x8000;
    /// Sources of the SCI.
    pub const COMMON: u16 = TMR | GBL | PWRBTN | RTC;
}
/// PM1 control bits, §4.8.3.2.1.
pub mod cnt {
    /// Events raise SCI rather than SMI.
    pub const SCI_EN: u16 = 0x0001;
    /// Sleep type, bits 12:10.
    pub const SLP_TYP: u16 = 0x1c00;
    /// Enter the sleep state; reads as 0.
    pub const SLP_EN: u16 = 0x2000;
}

/// Bytes of each half of the GPE0 block.
const GPE_HALF: usize = 2;

/// All that the guest can observe and a snapshot must keep.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PmRegs {
    sts: u16,
    en: u16,
    cnt: u16,
    gpe_sts: [u8; GPE_HALF],
    gpe_en: [u8; GPE_HALF],
    /// Tick count at which bit 23 next changes.
    overflow: u64,
}

/// Level of the SCI, and when the timer's status bit must be looked at again, ns of virtual time.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    /// SCI level.
    pub sci: bool,
    /// Next deadline, if the timer can interrupt.
    pub timer_at: Option<u64>,
}

fn ticks(now: u64) -> u64 {
    (u128::from(now) * u128::from(PM_TIMER_HZ) / u128::from(SECOND)) as u64
}

impl PmRegs {
    /// The PM timer: 24 bits.
    pub fn timer(now: u64) -> u32 {
        (ticks(now) & 0x00ff_ffff) as u32
    }

    fn status(&mut self, now: u64) -> u16 {
        if ticks(now) >= self.overflow {
            self.sts |= pm1::TMR;
        }
        self.sts
    }

    /// Level and deadline as they are now.
    pub fn effect(&mut self, now: u64) -> Effect {
        let active = self.status(now) & self.en & pm1::COMMON != 0;
        let [s0, s1] = self.gpe_sts;
        let [e0, e1] = self.gpe_en;
        let gpe = s0 & e0 | s1 & e1;
        let armed = self.en & pm1::TMR != 0 && self.sts & pm1::TMR == 0;
        let deadline = u128::from(self.overflow) * u128::from(SECOND) / u128::from(PM_TIMER_HZ) + 1;
        Effect { sci: active || gpe != 0, timer_at: armed.then_some(deadline as u64) }
    }

    /// PM1_STS (offset 0) or PM1_EN (offset 2).
    pub fn read_evt(&mut self, offset: u64, now: u64) -> u16 {
        match offset {
            0 => self.status(now),
            2 => self.en,
            _ => 0,
        }
    }

    /// Writes PM1_STS (ones clear) or PM1_EN.
    pub fn write_evt(&mut self, offset: u64, val: u16, now: u64) {
        match offset {
            0 => {
                let sts = self.status(now);
                if sts & val & pm1::TMR != 0 {
                    // Bit 23 next changes at the coming multiple of 2^23.
                    self.overflow = (ticks(now) / 0x80_0000 + 1) * 0x80_0000;
                }
                self.sts &= !val;
            }
            2 => self.en = val,
            _ => {}
        }
    }

    /// PM1_CNT.
    pub fn read_cnt(&self) -> u16 {
        self.cnt
    }

    /// Writes PM1_CNT; tells the sleep type to enter, if SLP_EN was set.
    #[must_use]
    pub fn write_cnt(&mut self, val: u16) -> Option<u8> {
        self.cnt = val & !cnt::SLP_EN;
        (val & cnt::SLP_EN != 0).then_some(((val & cnt::SLP_TYP) >> 10) as u8)
    }

    /// ACPI is switched on or off by the SMI command port.
    pub fn set_sci_enable(&mut self, on: bool) {
        self.cnt = if on { self.cnt | cnt::SCI_EN } else { self.cnt & !cnt::SCI_EN };
    }

    /// Raises PM1 status bits: the power button, the RTC alarm, waking up.
    pub fn raise(&mut self, bits: u16) {
        self.sts |= bits;
    }

    /// Some of these PM1 events are enabled.
    pub fn enables(&self, bits: u16) -> bool {
        self.en & bits != 0
    }

    /// Raises GPE0 status bits 0-15.
    pub fn raise_gpe(&mut self, bits: u16) {
        for (sts, b) in self.gpe_sts.iter_mut().zip(bits.to_le_bytes()) {
            *sts |= b;
        }
    }

    fn gpe_byte(&mut self, offset: u64) -> Option<(&mut u8, bool)> {
        let i = usize::try_from(offset).ok()?;
        if i < GPE_HALF {
            self.gpe_sts.get_mut(i).map(|b| (b, true))
        } else {
            self.gpe_en.get_mut(i - GPE_HALF).map(|b| (b, false))
        }
    }

    /// A byte of GPE0: status, then enable.
    pub fn read_gpe(&mut self, offset: u64) -> u8 {
        self.gpe_byte(offset).map_or(0, |(b, _)| *b)
    }

    /// Writes a byte of GPE0: ones clear status.
    pub fn write_gpe(&mut self, offset: u64, val: u8) {
        match self.gpe_byte(offset) {
            Some((b, true)) => *b &= !val,
            Some((b, false)) => *b = val,
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timer_counts_24_bits_at_its_rate() {
        assert_eq!(PmRegs::timer(SECOND), 3_579_545);
        assert_eq!(PmRegs::timer(5 * SECOND), (5 * 3_579_545) & 0xff_ffff);
    }

    #[test]
    fn timer_status_interrupts_every_half_period() {
        let mut p = PmRegs::default();
        p.write_evt(0, pm1::TMR, 0);
        p.write_evt(2, pm1::TMR, 0);
        let e = p.effect(0);
        let due = e.timer_at.expect("armed");
        assert!(!e.sci && ticks(due) >= 0x80_0000 && ticks(due - 300) < 0x80_0000);
        assert_eq!(p.effect(due), Effect { sci: true, timer_at: None });
        p.write_evt(0, pm1::TMR, due);
        assert!(!p.effect(due).sci);
    }

    #[test]
    fn power_button_needs_its_enable() {
        let mut p = PmRegs::default();
        p.write_evt(0, 0xffff, 0);
        p.raise(pm1::PWRBTN);
        assert!(!p.effect(0).sci);
        p.write_evt(2, pm1::PWRBTN, 0);
        assert!(p.effect(0).sci);
        p.write_evt(0, pm1::PWRBTN, 0);
        assert!(!p.effect(0).sci);
    }

    #[test]
    fn sleep_is_entered_by_slp_en_only() {
        let mut p = PmRegs::default();
        assert_eq!(p.write_cnt(cnt::SCI_EN | 1 << 10), None);
        assert_eq!(p.write_cnt(cnt::SCI_EN | 1 << 10 | cnt::SLP_EN), Some(1));
        assert_eq!(p.read_cnt(), cnt::SCI_EN | 1 << 10);
    }

    #[test]
    fn gpe_status_is_cleared_by_ones() {
        let mut p = PmRegs::default();
        p.raise_gpe(0x0002);
        p.write_gpe(2, 0x02);
        assert!(p.effect(0).sci);
        p.write_gpe(0, 0x02);
        assert!(!p.effect(0).sci);
        assert_eq!((p.read_gpe(0), p.read_gpe(2), p.read_gpe(9)), (0, 2, 0));
    }
}
