//! Local APIC as registers. Source: Intel SDM vol. 3A chapter 12 ("APIC"), section numbers below are of its 2023 edition.
//!
//! The structure knows nothing of other processors: what goes over the bus comes out as an [`Effect`], what comes from it goes in
//! through [`ApicRegs::deliver`]. Not modelled: focus processor checking, the arbitration of the P6 APIC bus, CMCI.

use serde::{Deserialize, Serialize};

use super::apic_message::{Message, Signal, Target, mode};
use super::apic_timer::{ApicTimer, TimerMode};

/// Entries of the local vector table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lvt {
    /// Timer, register 0x320.
    Timer = 0,
    /// Thermal sensor, 0x330.
    Thermal = 1,
    /// Performance counters, 0x340.
    Perf = 2,
    /// LINT0, 0x350.
    Lint0 = 3,
    /// LINT1, 0x360.
    Lint1 = 4,
    /// Error, 0x370.
    Error = 5,
}
const LVTS: usize = 6;

/// IA32_APIC_BASE: processor is the bootstrap processor.
pub const BASE_BSP: u64 = 1 << 8;
/// IA32_APIC_BASE: x2APIC mode.
pub const BASE_EXTD: u64 = 1 << 10;
/// IA32_APIC_BASE: APIC enabled.
pub const BASE_EN: u64 = 1 << 11;
/// Where the register page and the message window lie.
pub const DEFAULT_ADDRESS: u64 = 0xfee0_0000;

const LVT_MASKED: u32 = 1 << 16;
const LVT_LEVEL: u32 = 1 << 15;
const LVT_REMOTE_IRR: u32 = 1 << 14;
const LVT_DELIVS: u32 = 1 << 12;
const SVR_ENABLE: u32 = 1 << 8;
/// What can be written to each LVT entry, §12.5.1.
const LVT_WRITABLE: [u32; LVTS] = [0x7_00ff, 0x1_07ff, 0x1_07ff, 0x1_a7ff, 0x1_a7ff, 0x1_00ff];

/// ESR bits, §12.5.3.
mod esr {
    pub const SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
    pub const RECEIVE_ILLEGAL_VECTOR: u32 = 1 << 6;
    pub const ILLEGAL_REGISTER: u32 = 1 << 7;
}

/// Register numbers (offset / 16; the MSR is 0x800 plus this).
mod reg {
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

/// What the wiring must do once the registers are released.
#[must_use]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// End of interrupt for the I/O APICs.
    pub eoi: Option<u8>,
    /// Message to send.
    pub message: Option<Message>,
    /// For this processor.
    pub signal: Option<Signal>,
    /// The timer's deadline has changed.
    pub timer: bool,
}

/// An access that raises #GP(0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gp;

/// All that the guest can observe. Times are nanoseconds of the virtual clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApicRegs {
    /// IA32_APIC_BASE.
    base: u64,
    /// ID register of xAPIC mode.
    xapic_id: u8,
    /// ID given by the board; x2APIC ID.
    initial_id: u32,
    version: u8,
    tpr: u8,
    /// LDR bits 31..24 of xAPIC mode.
    ldr: u8,
    /// DFR bits 31..28: 0xf flat, 0 cluster.
    dfr: u8,
    svr: u32,
    isr: [u32; 8],
    tmr: [u32; 8],
    irr: [u32; 8],
    /// Errors since the last write to ESR, and what reads show.
    errors: u32,
    esr: u32,
    icr: u64,
    lvt: [u32; LVTS],
    timer: ApicTimer,
    /// Input levels of LINT0 (the 8259 pair) and LINT1 (NMI).
    lint: [bool; 2],
    /// After INIT: a start-up IPI is awaited.
    wait_for_sipi: bool,
    /// Page of a start-up IPI that has come.
    sipi: Option<u8>,
}

impl Default for ApicRegs {
    fn default() -> Self {
        Self::power_on(0, 0x14, false)
    }
}

fn bit(words: &[u32; 8], v: u8) -> bool {
    words.get(usize::from(v >> 5)).is_some_and(|w| w >> (v & 31) & 1 != 0)
}
fn put(words: &mut [u32; 8], v: u8, on: bool) {
    if let Some(w) = words.get_mut(usize::from(v >> 5)) {
        *w = *w & !(1 << (v & 31)) | u32::from(on) << (v & 31);
    }
}
fn highest(words: &[u32; 8]) -> Option<u8> {
    words.iter().enumerate().rev().find(|(_, w)| **w != 0).map(|(i, w)| (i as u8) << 5 | (31 - w.leading_zeros()) as u8)
}

impl ApicRegs {
    /// Power-on state of the APIC with ID `id`.
    #[must_use]
    pub fn power_on(id: u32, version: u8, bsp: bool) -> Self {
        Self {
            base: DEFAULT_ADDRESS | BASE_EN | if bsp { BASE_BSP } else { 0 },
            xapic_id: id as u8,
            initial_id: id,
            version,
            tpr: 0,
            ldr: 0,
            dfr: 0xf,
            svr: 0xff,
            isr: [0; 8],
            tmr: [0; 8],
            irr: [0; 8],
            errors: 0,
            esr: 0,
            icr: 0,
            lvt: [LVT_MASKED; LVTS],
            timer: ApicTimer::default(),
            lint: [false; 2],
            wait_for_sipi: !bsp,
            sipi: None,
        }
    }

    /// System reset: power-on state; the input lines keep their levels, the bootstrap processor its role.
    pub fn reset(&mut self) {
        let (lint, bsp) = (self.lint, self.base & BASE_BSP != 0);
        *self = Self { lint, ..Self::power_on(self.initial_id, self.version, bsp) };
    }

    /// The processor takes an INIT, §12.4.7.3: as power-on, but IA32_APIC_BASE and the ID stay. So does a start-up IPI: it was sent
    /// after the INIT, which the processor, on a thread of its own, may take late.
    pub fn init(&mut self) {
        let (base, xapic_id, lint, sipi) = (self.base, self.xapic_id, self.lint, self.sipi);
        let wait_for_sipi = base & BASE_BSP == 0;
        *self =
            Self { base, xapic_id, lint, wait_for_sipi, sipi, ..Self::power_on(self.initial_id, self.version, false) };
    }

    /// The processor takes a start-up IPI: its page, if one has come and is awaited.
    pub fn take_sipi(&mut self) -> Option<u8> {
        let page = self.sipi.take()?;
        std::mem::take(&mut self.wait_for_sipi).then_some(page)
    }

    /// IA32_APIC_BASE.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Makes this processor the bootstrap processor, or not.
    pub fn set_bsp(&mut self, bsp: bool) {
        self.base = self.base & !BASE_BSP | if bsp { BASE_BSP } else { 0 };
        self.wait_for_sipi = !bsp;
    }

    /// Writes IA32_APIC_BASE, §12.4.4 and §12.12.1.1. The caller has checked the address bits against MAXPHYADDR, and EXTD against
    /// CPUID.
    ///
    /// # Errors
    /// A reserved bit, or a mode transition that does not exist.
    pub fn set_base(&mut self, val: u64) -> Result<Effect, Gp> {
        const MODE: u64 = BASE_EN | BASE_EXTD;
        if val & 0x2ff != 0 {
            return Err(Gp);
        }
        match (self.base & MODE, val & MODE) {
            (_, BASE_EXTD) | (MODE, BASE_EN) | (0, MODE) => return Err(Gp),
            _ => {}
        }
        let was_on = self.base & BASE_EN != 0;
        self.base = val;
        if was_on && val & BASE_EN == 0 {
            self.init();
            self.xapic_id = self.initial_id as u8;
            return Ok(Effect { timer: true, ..Effect::default() });
        }
        Ok(Effect::default())
    }

    /// x2APIC mode.
    #[must_use]
    pub fn x2apic(&self) -> bool {
        self.base & BASE_EXTD != 0
    }

    /// Enabled by IA32_APIC_BASE.
    #[must_use]
    pub fn hardware_enabled(&self) -> bool {
        self.base & BASE_EN != 0
    }

    /// Enabled by both IA32_APIC_BASE and SVR.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.hardware_enabled() && self.svr & SVR_ENABLE != 0
    }

    /// The ID that answers to physical destinations.
    #[must_use]
    pub fn id(&self) -> u32 {
        if self.x2apic() { self.initial_id } else { self.xapic_id.into() }
    }

    fn x2apic_ldr(&self) -> u32 {
        (self.initial_id >> 4) << 16 | 1 << (self.initial_id & 0xf)
    }

    /// Whether a message for `to` is meant for this APIC, §12.6.2. `own`: this is the sender.
    #[must_use]
    pub fn is_target(&self, to: Target, own: bool) -> bool {
        if !self.hardware_enabled() {
            return false;
        }
        match to {
            Target::All => true,
            Target::Others => !own,
            Target::Own => own,
            Target::Physical(id) => self.id() == id,
            Target::Logical(mda) if self.x2apic() => {
                let ldr = self.x2apic_ldr();
                mda == u32::MAX || mda >> 16 == ldr >> 16 && mda & ldr & 0xffff != 0
            }
            Target::Logical(mda) => {
                let mda = mda as u8;
                if self.dfr == 0xf {
                    mda & self.ldr != 0
                } else {
                    (mda >> 4 == 0xf || mda >> 4 == self.ldr >> 4) && mda & self.ldr & 0xf != 0
                }
            }
        }
    }

    /// Processor priority, §12.8.3.1.
    #[must_use]
    pub fn ppr(&self) -> u8 {
        let isrv = highest(&self.isr).unwrap_or(0);
        if self.tpr >> 4 >= isrv >> 4 { self.tpr } else { isrv & 0xf0 }
    }

    /// Arbitration priority, §12.6.2.4: the lowest one takes a lowest-priority message.
    #[must_use]
    pub fn apr(&self) -> u8 {
        let (irrv, isrv) = (highest(&self.irr).unwrap_or(0) >> 4, highest(&self.isr).unwrap_or(0) >> 4);
        let tpr = self.tpr >> 4;
        if tpr >= irrv && tpr > isrv { self.tpr } else { tpr.max(irrv).max(isrv) << 4 }
    }

    /// Task priority.
    #[must_use]
    pub fn tpr(&self) -> u8 {
        self.tpr
    }

    /// Sets the task priority (CR8 is its bits 7..4).
    pub fn set_tpr(&mut self, tpr: u8) {
        self.tpr = tpr;
    }

    /// The vector the processor would take now.
    #[must_use]
    pub fn pending(&self) -> Option<u8> {
        highest(&self.irr).filter(|v| self.enabled() && v >> 4 > self.ppr() >> 4)
    }

    /// Takes the pending vector into service.
    pub fn acknowledge(&mut self) -> Option<u8> {
        let v = self.pending()?;
        put(&mut self.irr, v, false);
        put(&mut self.isr, v, true);
        Some(v)
    }

    fn lvt(&self, n: Lvt) -> u32 {
        self.lvt.get(n as usize).copied().unwrap_or(LVT_MASKED)
    }

    /// Whether the 8259 pair's INT reaches the processor: APIC off, or LINT0 unmasked as ExtINT.
    #[must_use]
    pub fn accepts_pic(&self) -> bool {
        let l = self.lvt(Lvt::Lint0);
        !self.hardware_enabled() || l & LVT_MASKED == 0 && (l >> 8 & 7) as u8 == mode::EXTINT
    }

    /// The 8259 pair asks for an interrupt and the processor may take it.
    #[must_use]
    pub fn pic_pending(&self) -> bool {
        let [lint0, _] = self.lint;
        lint0 && self.accepts_pic()
    }

    /// Records an error, §12.5.3.
    fn error(&mut self, e: u32) -> Option<Signal> {
        let fresh = e & !self.errors != 0;
        self.errors |= e;
        if fresh { self.local(Lvt::Error) } else { None }
    }

    /// Requests `vector`.
    fn request(&mut self, vector: u8, level: bool) -> Option<Signal> {
        if !self.enabled() {
            return None;
        }
        if vector < 16 {
            return self.error(esr::RECEIVE_ILLEGAL_VECTOR);
        }
        put(&mut self.irr, vector, true);
        put(&mut self.tmr, vector, level);
        None
    }

    /// A local interrupt source fires.
    fn local(&mut self, n: Lvt) -> Option<Signal> {
        let l = self.lvt(n);
        if l & LVT_MASKED != 0 || !self.hardware_enabled() {
            return None;
        }
        let lint = matches!(n, Lvt::Lint0 | Lvt::Lint1);
        // Timer and error entries have no delivery mode: they are fixed.
        match if matches!(n, Lvt::Timer | Lvt::Error) { mode::FIXED } else { (l >> 8 & 7) as u8 } {
            mode::FIXED => {
                let level = lint && l & LVT_LEVEL != 0;
                if level && let Some(e) = self.lvt.get_mut(n as usize) {
                    *e |= LVT_REMOTE_IRR;
                }
                self.request(l as u8, level)
            }
            mode::SMI => Some(Signal::Smi),
            mode::NMI => Some(Signal::Nmi),
            mode::INIT => Some(Signal::Init),
            _ => None, // ExtINT: see `pic_pending`
        }
    }

    /// Drives LINT0 (`n` 0) or LINT1 (`n` 1). With the APIC off they are INTR and NMI.
    pub fn set_lint(&mut self, n: usize, level: bool) -> Effect {
        let Some(l) = self.lint.get_mut(n) else { return Effect::default() };
        let rose = level && !*l;
        *l = level;
        let which = if n == 0 { Lvt::Lint0 } else { Lvt::Lint1 };
        let signal = if !self.hardware_enabled() {
            (n == 1 && rose).then_some(Signal::Nmi)
        } else if rose {
            self.local(which)
        } else {
            let e = self.lvt(which);
            if !level && e & (LVT_LEVEL | LVT_MASKED) == LVT_LEVEL && (e >> 8 & 7) as u8 == mode::FIXED {
                put(&mut self.irr, e as u8, false); // a level request goes with its line
            }
            None
        };
        Effect { signal, ..Effect::default() }
    }

    /// A message that [`ApicRegs::is_target`] says is for this APIC.
    pub fn deliver(&mut self, m: Message) -> Effect {
        let signal = match m.mode {
            mode::SMI => Some(Signal::Smi),
            mode::NMI => Some(Signal::Nmi),
            mode::INIT => {
                // From here on, not from when the processor takes it, start-up IPIs are awaited.
                (self.wait_for_sipi, self.sipi) = (self.base & BASE_BSP == 0, None);
                Some(Signal::Init)
            }
            // Not awaited: lost. (A second one, before the first is taken, changes nothing.)
            mode::SIPI if !self.wait_for_sipi => None,
            mode::SIPI => {
                self.sipi.get_or_insert(m.vector);
                Some(Signal::Sipi)
            }
            _ => self.request(m.vector, m.level),
        };
        Effect { signal, ..Effect::default() }
    }

    fn eoi(&mut self) -> Effect {
        let Some(v) = highest(&self.isr) else { return Effect::default() };
        put(&mut self.isr, v, false);
        let level = bit(&self.tmr, v);
        let mut signal = None;
        if level {
            for (n, which) in [Lvt::Lint0, Lvt::Lint1].into_iter().enumerate() {
                if let Some(e) = self.lvt.get_mut(which as usize)
                    && *e & LVT_REMOTE_IRR != 0
                    && *e as u8 == v
                {
                    *e &= !LVT_REMOTE_IRR;
                    if self.lint.get(n).is_some_and(|l| *l) {
                        signal = self.local(which); // still asserted
                    }
                }
            }
        }
        Effect { eoi: level.then_some(v), signal, ..Effect::default() }
    }

    /// ICR, §12.6.1: composes the message.
    fn send(&mut self) -> Effect {
        let v = self.icr;
        let mode = (v >> 8 & 7) as u8;
        let dest = if self.x2apic() { (v >> 32) as u32 } else { (v >> 56) as u32 };
        let broadcast = if self.x2apic() { u32::MAX } else { 0xff };
        let to = match (v >> 18 & 3, v >> 11 & 1) {
            (1, _) => Target::Own,
            (2, _) => Target::All,
            (3, _) => Target::Others,
            (_, 0) if dest == broadcast => Target::All,
            (_, 0) => Target::Physical(dest),
            _ => Target::Logical(dest),
        };
        let (assert, level) = (v >> 14 & 1 != 0, v >> 15 & 1 != 0);
        match mode {
            // INIT level de-assert only synchronised arbitration IDs, on the P6 bus.
            mode::INIT if level && !assert => return Effect::default(),
            mode::FIXED | mode::LOWEST if (v as u8) < 16 => {
                return Effect { signal: self.error(esr::SEND_ILLEGAL_VECTOR), ..Effect::default() };
            }
            3 | mode::EXTINT => return Effect::default(), // reserved in ICR
            _ => {}
        }
        // §12.6.1: IPIs are edge-triggered whatever the trigger bit says.
        Effect { message: Some(Message { vector: v as u8, mode, level: false, to }), ..Effect::default() }
    }

    /// What the LVT makes of the timer.
    fn timer_mode(&self) -> TimerMode {
        TimerMode::of_lvt(self.lvt(Lvt::Timer))
    }

    /// When the timer fires next: call [`ApicRegs::timer_expired`] then.
    #[must_use]
    pub fn timer_deadline(&self, now: u64) -> Option<u64> {
        self.timer.deadline(self.timer_mode(), now)
    }

    /// The deadline has come.
    pub fn timer_expired(&mut self, now: u64) -> Effect {
        let fired = self.timer.expire(self.timer_mode(), now);
        let signal = if fired { self.local(Lvt::Timer) } else { None };
        Effect { signal, timer: true, ..Effect::default() }
    }

    /// IA32_TSC_DEADLINE; 0 when disarmed or in another mode.
    #[must_use]
    pub fn tsc_deadline(&self) -> u64 {
        self.timer.tsc_deadline(self.timer_mode())
    }

    /// Writes IA32_TSC_DEADLINE; `at`: the virtual time the TSC value stands for. 0 disarms; ignored in other timer modes.
    pub fn set_tsc_deadline(&mut self, val: u64, at: u64) -> Effect {
        self.timer.set_tsc_deadline(self.timer_mode(), val, at);
        Effect { timer: true, ..Effect::default() }
    }

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

    /// Whether a restored state is one that accesses can reach.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.svr <= 0x1ff && self.dfr <= 0xf && self.base & (BASE_EN | BASE_EXTD) != BASE_EXTD
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

#[cfg(test)]
mod tests {
    use super::*;

    fn on() -> ApicRegs {
        let mut a = ApicRegs::power_on(2, 0x14, true);
        assert_eq!(a.write(0xf0, 0x1ff, 0), Effect::default());
        a
    }
    fn rd(a: &mut ApicRegs, off: u64) -> u32 {
        a.read(off, 0).0
    }
    fn wr(a: &mut ApicRegs, off: u64, v: u32) -> Effect {
        a.write(off, v, 0)
    }
    fn fixed(vector: u8, level: bool) -> Message {
        Message { vector, mode: mode::FIXED, level, to: Target::Physical(2) }
    }
    fn x2() -> ApicRegs {
        let mut a = ApicRegs::power_on(0x25, 0x14, false);
        assert_eq!(a.set_base(DEFAULT_ADDRESS | BASE_EN | BASE_EXTD), Ok(Effect::default()));
        assert_eq!(a.write_msr(reg::SVR, 0x1ff, 0), Ok(Effect::default()));
        a
    }

    #[test]
    fn reset_values() {
        let mut a = ApicRegs::power_on(2, 0x14, false);
        let got = [0x20, 0x30, 0x80, 0xd0, 0xe0, 0xf0, 0x320, 0x350, 0x380].map(|o| rd(&mut a, o));
        assert_eq!(got, [0x0200_0000, 0x5_0014, 0, 0, u32::MAX, 0xff, 0x1_0000, 0x1_0000, 0]);
        assert_eq!(a.base(), DEFAULT_ADDRESS | BASE_EN);
    }

    #[test]
    fn priorities_decide_and_eoi_ends_the_highest() {
        let mut a = on();
        for v in [0x31, 0x45, 0x4a] {
            assert_eq!(a.deliver(fixed(v, false)), Effect::default());
        }
        assert_eq!(a.acknowledge(), Some(0x4a));
        assert_eq!((a.pending(), a.ppr()), (None, 0x40)); // 0x45 is of the same class
        assert_eq!(rd(&mut a, 0x120), 1 << 0xa);
        assert_eq!(wr(&mut a, 0xb0, 0), Effect::default()); // edge: no broadcast
        assert_eq!(a.acknowledge(), Some(0x45));
        let _ = wr(&mut a, 0xb0, 0);
        a.set_tpr(0x30);
        assert_eq!(a.pending(), None);
        a.set_tpr(0x2f);
        assert_eq!((a.pending(), a.apr()), (Some(0x31), 0x30));
    }

    #[test]
    fn level_vector_is_broadcast_at_eoi() {
        let mut a = on();
        let _ = a.deliver(fixed(0x61, true));
        assert_eq!(rd(&mut a, 0x1b0), 1 << 1);
        assert_eq!(a.acknowledge(), Some(0x61));
        assert_eq!(wr(&mut a, 0xb0, 0).eoi, Some(0x61));
        let _ = a.deliver(fixed(0x61, false));
        let _ = a.acknowledge();
        assert_eq!(wr(&mut a, 0xb0, 0).eoi, None);
    }

    #[test]
    fn software_disabled_takes_no_vectors_and_masks_lvt() {
        let mut a = on();
        let _ = wr(&mut a, 0x320, 0x40);
        let _ = wr(&mut a, 0xf0, 0xff);
        assert_eq!(rd(&mut a, 0x320), 0x1_0040);
        let _ = wr(&mut a, 0x320, 0x40);
        assert_eq!(rd(&mut a, 0x320), 0x1_0040);
        let _ = a.deliver(fixed(0x50, false));
        assert_eq!(rd(&mut a, 0x220), 0);
        let nmi = Message { mode: mode::NMI, ..fixed(0, false) };
        assert_eq!(a.deliver(nmi).signal, Some(Signal::Nmi));
    }

    #[test]
    fn icr_composes_messages() {
        let mut a = on();
        let _ = wr(&mut a, 0x310, 0x0300_0000);
        let sent = |to, vector, mode| Some(Message { vector, mode, level: false, to });
        assert_eq!(wr(&mut a, 0x300, 0x4041).message, sent(Target::Physical(3), 0x41, 0));
        assert_eq!(wr(&mut a, 0x300, 0x4941).message, sent(Target::Logical(3), 0x41, 1));
        assert_eq!(wr(&mut a, 0x300, 0x4_4041).message, sent(Target::Own, 0x41, 0));
        assert_eq!(wr(&mut a, 0x300, 0x8_4041).message, sent(Target::All, 0x41, 0));
        assert_eq!(wr(&mut a, 0x300, 0xc_4500).message, sent(Target::Others, 0, mode::INIT));
        assert_eq!(wr(&mut a, 0x300, 0xc_8500).message, None); // INIT de-assert
        assert_eq!(wr(&mut a, 0x300, 0xc_4610).message, sent(Target::Others, 0x10, mode::SIPI));
        let _ = wr(&mut a, 0x310, 0xff00_0000);
        assert_eq!(wr(&mut a, 0x300, 0x4400).message, sent(Target::All, 0, mode::NMI));
        assert_eq!(rd(&mut a, 0x300), 0x4400); // idle
    }

    #[test]
    fn illegal_vectors_and_registers_go_to_esr() {
        let mut a = on();
        let _ = wr(&mut a, 0x370, 0x55);
        assert_eq!(wr(&mut a, 0x300, 0x4005).message, None);
        let _ = a.deliver(fixed(3, false));
        assert_eq!(rd(&mut a, 0x280), 0); // until written
        let _ = wr(&mut a, 0x280, 0);
        assert_eq!(rd(&mut a, 0x280), 0x60);
        assert_eq!(rd(&mut a, 0x3a0), 0);
        let _ = wr(&mut a, 0x280, 0);
        assert_eq!(rd(&mut a, 0x280), 0x80);
        assert_eq!(a.pending(), Some(0x55));
    }

    #[test]
    fn logical_destinations_flat_and_cluster() {
        let mut a = on();
        let _ = wr(&mut a, 0xd0, 0x2400_0000);
        let hit = |a: &ApicRegs, d| a.is_target(Target::Logical(d), false);
        assert_eq!((hit(&a, 0x04), hit(&a, 0x20), hit(&a, 0x41)), (true, true, false));
        let _ = wr(&mut a, 0xe0, 0);
        assert_eq!((hit(&a, 0x24), hit(&a, 0x14), hit(&a, 0x28), hit(&a, 0xf4)), (true, false, false, true));
        assert!(a.is_target(Target::Physical(2), false) && !a.is_target(Target::Physical(3), false));
        assert!(!a.is_target(Target::Others, true) && a.is_target(Target::Own, true) && a.is_target(Target::All, true));
    }

    #[test]
    fn timer_one_shot_and_periodic() {
        let mut a = on();
        let _ = wr(&mut a, 0x320, 0x40);
        let _ = wr(&mut a, 0x3e0, 0x3); // divide by 16
        assert!(a.write(0x380, 100, 1000).timer);
        assert_eq!(a.timer_deadline(1000), Some(1000 + 1600));
        assert_eq!(a.read(0x390, 1000 + 160).0, 90);
        assert_eq!(a.timer_expired(2600), Effect { timer: true, ..Effect::default() });
        assert_eq!((a.acknowledge(), a.timer_deadline(2600), a.read(0x390, 2600).0), (Some(0x40), None, 0));
        let _ = wr(&mut a, 0xb0, 0);
        let _ = wr(&mut a, 0x320, 0x2_0040);
        let _ = wr(&mut a, 0x3e0, 0xb); // by 1
        let _ = a.write(0x380, 500, 10_000);
        let _ = a.timer_expired(10_500);
        assert_eq!((a.pending(), a.timer_deadline(10_500)), (Some(0x40), Some(11_000)));
        let _ = a.write(0x380, 0, 10_600);
        assert_eq!(a.timer_deadline(10_600), None);
    }

    #[test]
    fn masked_timer_counts_without_interrupt() {
        let mut a = on();
        let _ = a.write(0x380, 10, 0);
        let _ = a.timer_expired(20);
        assert_eq!((a.pending(), a.timer_deadline(20)), (None, None));
    }

    #[test]
    fn tsc_deadline_mode() {
        let mut a = on();
        let _ = a.set_tsc_deadline(77, 5);
        assert_eq!(a.tsc_deadline(), 0); // other mode: ignored
        let _ = wr(&mut a, 0x320, 0x4_0040);
        let _ = a.set_tsc_deadline(77, 5000);
        assert_eq!((a.tsc_deadline(), a.timer_deadline(0)), (77, Some(5000)));
        let _ = a.write(0x380, 10, 0); // no effect
        assert_eq!(a.read(0x380, 0).0, 0);
        let _ = a.timer_expired(5000);
        assert_eq!((a.tsc_deadline(), a.pending()), (0, Some(0x40)));
        let _ = a.set_tsc_deadline(99, 9000);
        let _ = wr(&mut a, 0x320, 0x40);
        assert_eq!(a.timer_deadline(0), None);
    }

    #[test]
    fn extint_passes_through_lint0() {
        let mut a = on();
        let _ = a.set_lint(0, true);
        assert!(!a.pic_pending());
        let _ = wr(&mut a, 0x350, 0x700);
        assert!(a.pic_pending());
        let _ = a.set_lint(0, false);
        assert!(!a.pic_pending());
        let mut off = ApicRegs::power_on(0, 0x14, true);
        assert!(off.set_base(DEFAULT_ADDRESS | BASE_BSP).is_ok());
        let _ = off.set_lint(0, true);
        assert!(off.pic_pending());
        assert_eq!(off.set_lint(1, true).signal, Some(Signal::Nmi));
    }

    #[test]
    fn lint1_nmi_and_fixed_level() {
        let mut a = on();
        let _ = wr(&mut a, 0x360, 0x400);
        assert_eq!(a.set_lint(1, true).signal, Some(Signal::Nmi));
        assert_eq!(a.set_lint(1, true).signal, None);
        let _ = wr(&mut a, 0x350, 0x8033);
        let _ = a.set_lint(0, true);
        assert_eq!((a.acknowledge(), rd(&mut a, 0x350)), (Some(0x33), 0xc033));
        let _ = wr(&mut a, 0xb0, 0);
        assert_eq!(a.pending(), Some(0x33)); // still asserted
        let _ = a.set_lint(0, false);
        assert_eq!(a.pending(), None);
    }

    #[test]
    fn base_transitions() {
        let mut a = on();
        assert_eq!(a.set_base(DEFAULT_ADDRESS | BASE_EXTD), Err(Gp));
        assert_eq!(a.set_base(DEFAULT_ADDRESS | BASE_EN | 1), Err(Gp));
        assert!(a.set_base(DEFAULT_ADDRESS | BASE_EN | BASE_EXTD).is_ok());
        assert_eq!(a.set_base(DEFAULT_ADDRESS | BASE_EN), Err(Gp));
        assert!(a.set_base(DEFAULT_ADDRESS).is_ok());
        assert_eq!(a.set_base(DEFAULT_ADDRESS | BASE_EN | BASE_EXTD), Err(Gp));
        assert!(a.set_base(DEFAULT_ADDRESS | BASE_EN).is_ok());
        assert_eq!(rd(&mut a, 0xf0), 0xff);
    }

    #[test]
    fn x2apic_registers() {
        let mut a = x2();
        assert_eq!((a.read_msr(reg::ID, 0), a.read_msr(reg::LDR, 0)), (Ok(0x25), Ok(0x0002_0020)));
        assert_eq!(
            (a.read_msr(reg::DFR, 0), a.read_msr(reg::ICR_HIGH, 0), a.read_msr(reg::EOI, 0)),
            (Err(Gp), Err(Gp), Err(Gp))
        );
        assert_eq!(a.write_msr(reg::EOI, 1, 0), Err(Gp));
        assert_eq!(a.write_msr(reg::TPR, 0x100, 0), Err(Gp));
        assert_eq!(a.write_msr(reg::ID, 0, 0), Err(Gp));
        let e = a.write_msr(reg::ICR_LOW, 0x0000_0100_0000_4041, 0);
        assert_eq!(e.map(|e| e.message.map(|m| m.to)), Ok(Some(Target::Physical(0x100))));
        let e = a.write_msr(reg::SELF_IPI, 0x77, 0);
        assert_eq!(e.map(|e| e.message.map(|m| (m.to, m.vector))), Ok(Some((Target::Own, 0x77))));
        assert!(a.is_target(Target::Logical(0x0002_0030), false) && !a.is_target(Target::Logical(0x0001_0020), false));
        assert_eq!(a.read(0x20, 0).0, u32::MAX); // the page is gone
        assert_eq!(on().read_msr(reg::ID, 0), Err(Gp));
    }

    #[test]
    fn init_keeps_base_and_id() {
        let mut a = on();
        let _ = wr(&mut a, 0x20, 0x0700_0000);
        let _ = a.deliver(fixed(0x40, false));
        a.init();
        assert_eq!(
            (rd(&mut a, 0x20), rd(&mut a, 0xf0), a.pending(), a.base() & BASE_BSP),
            (0x0700_0000, 0xff, None, BASE_BSP)
        );
    }

    #[test]
    fn start_up_ipi_is_taken_once_after_init() {
        let sipi = Message { vector: 0x9f, mode: mode::SIPI, level: false, to: Target::All };
        let mut a = ApicRegs::power_on(1, 0x14, false);
        assert_eq!(a.take_sipi(), None);
        assert_eq!(a.deliver(sipi).signal, Some(Signal::Sipi));
        assert_eq!((a.take_sipi(), a.take_sipi()), (Some(0x9f), None));
        assert_eq!(a.deliver(sipi).signal, None);
        assert_eq!(a.take_sipi(), None); // running
        a.init();
        let _ = a.deliver(sipi);
        assert_eq!(a.take_sipi(), Some(0x9f));
        let mut bsp = ApicRegs::power_on(0, 0x14, true);
        let _ = bsp.deliver(sipi);
        assert_eq!(bsp.take_sipi(), None);
    }

    #[test]
    fn a_start_up_ipi_outlives_an_init_that_is_taken_late() {
        let message = |mode, vector| Message { vector, mode, level: false, to: Target::All };
        let (init, sipi) = (message(mode::INIT, 0), message(mode::SIPI, 0x10));
        let mut a = ApicRegs::power_on(1, 0x14, false);
        let _ = a.deliver(sipi);
        assert_eq!(a.take_sipi(), Some(0x10)); // runs
        assert_eq!(a.deliver(init).signal, Some(Signal::Init));
        assert_eq!(a.deliver(sipi).signal, Some(Signal::Sipi));
        let _ = a.deliver(message(mode::SIPI, 0x20));
        a.init();
        assert_eq!((a.take_sipi(), a.take_sipi()), (Some(0x10), None));
        // One from before the INIT does not.
        let _ = (a.deliver(init), a.deliver(sipi), a.deliver(init));
        a.init();
        assert_eq!(a.take_sipi(), None);
        let _ = a.deliver(sipi);
        assert_eq!(a.take_sipi(), Some(0x10));
    }
}
