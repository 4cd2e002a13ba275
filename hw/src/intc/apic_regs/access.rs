//! What software reads and writes: the register page, the MSRs, and the state as a monitor shows it. Source: as the registers.

use super::*;

/// Register numbers (offset / 16; the MSR is 0x800 plus this).
pub(super) mod reg {
    pub const ID: u32 = 0x02;
    pub const VERSION: u32 = 0x03;
    pub const TPR: u32 = 0x08;
    pub const APR: u32 = 0x09;
    pub const PPR: u32 = 0x0a;
    pub const EOI: u32 = 0x0b;
    pub const LDR: u32 = 0x0d;
    pub const DFR: u32 = 0x0e;
    pub const SVR: u32 = 0x0f;
    pub const ISR: u32 = 0x10;
    pub const TMR: u32 = 0x18;
    pub const IRR: u32 = 0x20;
    pub const ESR: u32 = 0x28;
    pub const ICR_LOW: u32 = 0x30;
    pub const ICR_HIGH: u32 = 0x31;
    pub const LVT_TIMER: u32 = 0x32;
    pub const LVT_ERROR: u32 = 0x37;
    pub const INITIAL_COUNT: u32 = 0x38;
    pub const CURRENT_COUNT: u32 = 0x39;
    pub const DIVIDE: u32 = 0x3e;
    pub const SELF_IPI: u32 = 0x3f;
}

impl ApicRegs {
    /// Common part of both register interfaces: `None` for a register that is not there.
    fn get(&self, r: u32, now: u64) -> Option<u32> {
        let word = |w: &[u32; 8], first: u32| w.get((r - first) as usize).copied();
        match r {
            reg::ID => Some(if self.x2apic() { self.initial_id } else { u32::from(self.xapic_id) << 24 }),
            reg::VERSION => Some(u32::from(self.version) | (LVTS as u32 - 1) << 16),
            reg::TPR => Some(self.tpr.into()),
            reg::PPR => Some(self.ppr().into()),
            reg::LDR => Some(if self.x2apic() { self.x2apic_ldr() } else { u32::from(self.ldr) << 24 }),
            reg::SVR => Some(self.svr),
            reg::ISR..reg::TMR => word(&self.isr, reg::ISR),
            reg::TMR..reg::IRR => word(&self.tmr, reg::TMR),
            reg::IRR..reg::ESR => word(&self.irr, reg::IRR),
            reg::ESR => Some(self.esr),
            reg::ICR_LOW => Some(self.icr as u32),
            reg::LVT_TIMER..=reg::LVT_ERROR => self.lvt.get((r - reg::LVT_TIMER) as usize).copied(),
            reg::INITIAL_COUNT => Some(self.timer.initial_count()),
            reg::CURRENT_COUNT => Some(self.timer.current_count(self.timer_mode(), now)),
            reg::DIVIDE => Some(self.timer.divide().into()),
            _ => None,
        }
    }

    /// Common part of both register interfaces: `None` for a register that is not there or cannot be written.
    fn set(&mut self, r: u32, val: u32, now: u64) -> Option<Effect> {
        match r {
            reg::TPR => self.tpr = val as u8,
            reg::EOI => return Some(self.eoi()),
            reg::SVR => {
                self.svr = val & 0x1ff;
                if self.svr & SVR_ENABLE == 0 {
                    self.lvt.iter_mut().for_each(|l| *l |= LVT_MASKED);
                }
            }
            reg::ESR => self.esr = std::mem::take(&mut self.errors),
            reg::LVT_TIMER..=reg::LVT_ERROR => return Some(self.set_lvt(r - reg::LVT_TIMER, val)),
            reg::INITIAL_COUNT => {
                self.timer.set_initial_count(self.timer_mode(), val, now);
                return Some(Effect { timer: true, ..Effect::default() });
            }
            reg::DIVIDE => {
                self.timer.set_divide(self.timer_mode(), val as u8, now);
                return Some(Effect { timer: true, ..Effect::default() });
            }
            _ => return None,
        }
        Some(Effect::default())
    }

    fn set_lvt(&mut self, n: u32, val: u32) -> Effect {
        let old_mode = self.timer_mode();
        let writable = LVT_WRITABLE.get(n as usize).copied().unwrap_or(0);
        let enabled = self.svr & SVR_ENABLE != 0;
        if let Some(l) = self.lvt.get_mut(n as usize) {
            *l = *l & (LVT_REMOTE_IRR | LVT_DELIVS) | val & writable;
            if !enabled {
                *l |= LVT_MASKED; // §12.4.7.2: cannot be cleared while software disabled
            }
        }
        if n != Lvt::Timer as u32 {
            return Effect::default();
        }
        self.timer.change_mode(old_mode, self.timer_mode());
        Effect { timer: true, ..Effect::default() }
    }

    /// Reads 4 bytes at `offset` of the register page.
    pub fn read(&mut self, offset: u64, now: u64) -> (u32, Effect) {
        let r = (offset >> 4 & 0xff) as u32;
        if self.x2apic() || !self.hardware_enabled() {
            return (u32::MAX, Effect::default());
        }
        let v = match r {
            reg::APR => Some(self.apr().into()),
            reg::DFR => Some(u32::from(self.dfr) << 28 | 0x0fff_ffff),
            reg::EOI => Some(0),
            reg::ICR_HIGH => Some((self.icr >> 32) as u32),
            r => self.get(r, now),
        };
        match v {
            Some(v) => (v, Effect::default()),
            None => (0, Effect { signal: self.error(esr::ILLEGAL_REGISTER), ..Effect::default() }),
        }
    }

    /// Writes 4 bytes at `offset` of the register page.
    pub fn write(&mut self, offset: u64, val: u32, now: u64) -> Effect {
        let r = (offset >> 4 & 0xff) as u32;
        if self.x2apic() || !self.hardware_enabled() {
            return Effect::default();
        }
        match r {
            reg::ID => self.xapic_id = (val >> 24) as u8,
            reg::LDR => self.ldr = (val >> 24) as u8,
            reg::DFR => self.dfr = (val >> 28) as u8,
            reg::ICR_HIGH => self.icr = self.icr & 0xffff_ffff | u64::from(val & 0xff00_0000) << 32,
            reg::ICR_LOW => {
                self.icr = self.icr & !0xffff_ffff | u64::from(val & 0xc_cfff);
                return self.send();
            }
            // Read-only registers swallow writes.
            reg::VERSION | reg::APR | reg::PPR | reg::ISR..reg::ESR | reg::CURRENT_COUNT => {}
            r => match self.set(r, val, now) {
                Some(e) => return e,
                None => return Effect { signal: self.error(esr::ILLEGAL_REGISTER), ..Effect::default() },
            },
        }
        Effect::default()
    }

    /// RDMSR of 0x800 + `r` in x2APIC mode, §12.12.1.2.
    ///
    /// # Errors
    /// Not in x2APIC mode, a register that is not there or write-only.
    pub fn read_msr(&self, r: u32, now: u64) -> Result<u64, Gp> {
        match r {
            _ if !self.x2apic() => Err(Gp),
            reg::ICR_LOW => Ok(self.icr),
            r => self.get(r, now).map(u64::from).ok_or(Gp),
        }
    }

    /// WRMSR of 0x800 + `r` in x2APIC mode.
    ///
    /// # Errors
    /// Not in x2APIC mode, a register that is not there or read-only, a reserved bit.
    pub fn write_msr(&mut self, r: u32, val: u64, now: u64) -> Result<Effect, Gp> {
        let reserved = match r {
            _ if !self.x2apic() => return Err(Gp),
            reg::TPR => !0xff,
            reg::EOI | reg::ESR => !0,
            reg::SVR => !0x1ff,
            reg::ICR_LOW => 0xfff3_2000,
            reg::LVT_TIMER..=reg::LVT_ERROR => {
                let w = LVT_WRITABLE.get((r - reg::LVT_TIMER) as usize).copied().unwrap_or(0);
                !u64::from(w | LVT_REMOTE_IRR | LVT_DELIVS)
            }
            reg::INITIAL_COUNT => !0xffff_ffff,
            reg::DIVIDE => !0xb,
            reg::SELF_IPI => !0xff,
            _ => return Err(Gp),
        };
        if val & reserved != 0 {
            return Err(Gp);
        }
        match r {
            reg::ICR_LOW => {
                self.icr = val & !(1 << 12);
                Ok(self.send())
            }
            reg::SELF_IPI => {
                self.icr = val | 1 << 18 | 1 << 14;
                Ok(self.send())
            }
            r => self.set(r, val as u32, now).ok_or(Gp),
        }
    }

    /// Pending and in-service vectors and the main registers, for `info lapic`.
    #[must_use]
    pub fn describe(&self, now: u64) -> String {
        let list =
            |w: &[u32; 8]| (0..=255u8).filter(|v| bit(w, *v)).map(|v| v.to_string()).collect::<Vec<_>>().join(" ");
        format!(
            "APIC {:#x} base {:#x} TPR {:#04x} PPR {:#04x} SVR {:#x} LDR {:#x} DFR {:#x} ICR {:#x} ESR {:#x}\n\
             LVT timer {:#x} thermal {:#x} perf {:#x} lint0 {:#x} lint1 {:#x} error {:#x}\n\
             count {:#x} of {:#x}, divide {:#x}\nISR {}\nIRR {}",
            self.id(),
            self.base,
            self.tpr,
            self.ppr(),
            self.svr,
            if self.x2apic() { self.x2apic_ldr() } else { self.ldr.into() },
            self.dfr,
            self.icr,
            self.esr,
            self.lvt(Lvt::Timer),
            self.lvt(Lvt::Thermal),
            self.lvt(Lvt::Perf),
            self.lvt(Lvt::Lint0),
            self.lvt(Lvt::Lint1),
            self.lvt(Lvt::Error),
            self.timer.current_count(self.timer_mode(), now),
            self.timer.initial_count(),
            self.timer.divide(),
            list(&self.isr),
            list(&self.irr)
        )
    }
}
