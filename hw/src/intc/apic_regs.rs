//! Local APIC as registers. Source: Intel SDM vol. 3A chapter 12 ("APIC"), section numbers below are of its 2023 edition.
//!
//! The structure knows nothing of other processors: what goes over the bus comes out as an [`Effect`], what comes from it goes in
//! through [`ApicRegs::deliver`]. Not modelled: focus processor checking, the arbitration of the P6 APIC bus, CMCI.

mod access;

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

    /// Whether a restored state is one that accesses can reach.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.svr <= 0x1ff && self.dfr <= 0xf && self.base & (BASE_EN | BASE_EXTD) != BASE_EXTD
    }
}

#[cfg(test)]
mod tests;
