//! High precision event timers, type `hpet`. Registers: [`super::hpet_regs`].
//!
//! Unnamed inputs: 0 the PIT, 1 the RTC, both passed on unless replaced. Unnamed output: high lets the PIT work. Thirty-two
//! numbered lines go to the board's interrupt inputs.

use std::array;

use hw_core::{
    DeviceClass, DeviceImpl, IrqOut, Locked, MachineCell, MemoryRegion, Ops, Phase, Sizes, SysBusDevice, Timer,
};
use qom::{Error, Object, Prop, Result};

use super::hpet_regs::{Effect, HpetRegs, MAX_TIMERS, MIN_TIMERS, RTC_ROUTE};

/// Interrupt outputs.
const ROUTES: usize = 32;
/// Input of the PIT.
const PIT: usize = 0;

/// Type `hpet`.
#[derive(Object)]
#[qom(name = "hpet", parent = SysBusDevice, methods(DeviceClass), class_init = Hpet::class_init, instance_init = Hpet::instance_init)]
pub struct Hpet {
    parent: SysBusDevice,
    #[property(default = 3)]
    timers: Prop<u8>,
    #[property(default = false)]
    msi: Prop<bool>,
    #[property(default = 0)]
    hpet_intcap: Prop<u32>,
    #[state]
    regs: MachineCell<HpetRegs>,
    timer: Timer,
    irqs: Lines,
    pit_enabled: IrqOut,
}

/// The numbered outputs.
struct Lines([IrqOut; ROUTES]);
impl Default for Lines {
    fn default() -> Self {
        Self(array::from_fn(|_| IrqOut::default()))
    }
}

impl Hpet {
    fn class_init(c: &mut qom::Class) {
        c.edit::<DeviceClass>().user_creatable = false;
    }

    fn instance_init(&self) -> Result<()> {
        self.gpio_in("", 2, Self::on_line);
        self.gpio_out("", &self.pit_enabled);
        for out in &self.irqs.0 {
            self.init_irq(out);
        }
        self.timer.init(self, Self::expired);
        let sizes = Sizes::new(4, 8);
        let ops = Ops { read: Self::read, write: Self::write, valid: sizes, imp: sizes, ..Ops::default() };
        self.init_mmio(&MemoryRegion::io(self, "hpet", 0x400, ops));
        Ok(())
    }

    /// `event_timer_block_id` of the firmware tables: the low half of the capabilities.
    pub fn block_id(&self, m: &Locked) -> u32 {
        self.regs.ro(m).capabilities() as u32
    }

    fn on_line(&self, m: &mut Locked, n: usize, level: bool) {
        let r = self.regs.rw(m);
        if n == PIT {
            r.pit_level = level;
        } else {
            r.rtc_level = level;
        }
        if !r.legacy()
            && let Some(out) = self.irqs.0.get(if n == PIT { 0 } else { RTC_ROUTE as usize })
        {
            out.set(m, level);
        }
    }

    fn expired(&self, m: &mut Locked) {
        let now = m.clock.now();
        let e = self.regs.rw(m).sync(now);
        self.act(m, e);
    }

    /// Drives what is to be driven. `pulses` first: they may share a line that stays high for another timer.
    fn act(&self, m: &mut Locked, e: Effect) {
        let r = self.regs.ro(m);
        let passed = if r.legacy() { 0 } else { u32::from(r.pit_level) | u32::from(r.rtc_level) << RTC_ROUTE };
        let levels = e.levels | passed;
        for (n, out) in self.irqs.0.iter().enumerate() {
            let level = levels >> n & 1 != 0;
            if e.pulses >> n & 1 != 0 && !level {
                out.pulse(m);
            } else if out.level() != level {
                out.set(m, level);
            }
        }
        for (addr, data) in e.messages {
            if let Err(err) = self.core().memory.store(m, addr.into(), 4, data.into()) {
                tracing::debug!(target: "guest_errors", addr, "HPET message to nowhere: {err}");
            }
        }
        self.timer.arm(m, e.deadline);
    }

    fn read(&self, m: &mut Locked, off: u64, size: u32) -> u64 {
        let now = m.clock.now();
        let (v, e) = self.regs.rw(m).read(off, size, now);
        self.act(m, e);
        v
    }

    fn write(&self, m: &mut Locked, off: u64, size: u32, val: u64) {
        let now = m.clock.now();
        let r = self.regs.rw(m);
        let before = r.legacy();
        let e = r.write(off, size, val, now);
        let legacy = r.legacy();
        self.act(m, e);
        if legacy != before {
            self.pit_enabled.set(m, !legacy);
        }
    }
}

impl DeviceImpl for Hpet {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        if self.hpet_intcap.get() == 0 {
            return Err(Error::generic("hpet.hpet-intcap property not initialized"));
        }
        self.timers.set(self.timers.get().clamp(MIN_TIMERS, MAX_TIMERS));
        self.regs.rw(m).reset(self.timers.get(), self.hpet_intcap.get(), self.msi.get());
        Ok(())
    }

    fn unrealize(&self, m: &mut Locked) {
        self.timer.arm(m, None);
        self.parent_unrealize(m);
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        match phase {
            Phase::Enter => self.regs.rw(m).reset(self.timers.get(), self.hpet_intcap.get(), self.msi.get()),
            Phase::Hold => {
                self.expired(m);
                self.pit_enabled.set(m, true);
            }
            Phase::Exit => {}
        }
        self.parent_reset(m, phase);
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        if !self.regs.ro(m).is_valid(self.timers.get()) {
            return Err(Error::generic("hpet: the snapshot has another number of timers"));
        }
        let e = self.regs.ro(m).resume();
        self.act(m, e);
        let legacy = self.regs.ro(m).legacy();
        self.pit_enabled.set(m, !legacy);
        Ok(())
    }
}
