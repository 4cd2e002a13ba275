//! The PC's interval timer, type `isa-pit` below `pit-common`. Registers: [`super::i8254_regs`].
//!
//! OUT of counter 0 drives the unnamed output; the unnamed input switches that off (HPET legacy replacement). The host may be too
//! late for an edge; the rising edges that are missing then follow at up to four times the counter's rate, since guests count them.

use hw_core::{
    DeviceClass, DeviceImpl, IrqOut, IsaDevice, Locked, MachineCell, MemoryRegion, Ops, Phase, Sizes, Timer,
};
use qom::{Error, Object, Prop, Result};
use serde::{Deserialize, Serialize};

use super::i8254_regs::I8254Regs;

/// Type `pit-common`: the counters, for whoever looks at OUT or drives GATE.
#[derive(Object)]
#[qom(name = "pit-common", parent = IsaDevice, abstract, class_init = PitCommon::class_init)]
pub struct PitCommon {
    parent: IsaDevice,
    #[property(default = 0xffff_ffff)]
    iobase: Prop<u32>,
    #[state]
    regs: MachineCell<I8254Regs>,
}

impl PitCommon {
    fn class_init(c: &mut qom::Class) {
        let d = c.edit::<DeviceClass>();
        d.user_creatable = false;
        d.hotpluggable = false;
    }

    /// Drives GATE of counter `n` (only counter 2's is wired on a PC).
    pub fn set_gate(&self, m: &mut Locked, n: usize, level: bool) {
        let now = m.clock.now();
        self.regs.rw(m).set_gate(n, level, now);
    }

    /// GATE of counter `n`.
    pub fn gate(&self, m: &Locked, n: usize) -> bool {
        self.regs.ro(m).gate(n)
    }

    /// OUT of counter `n`.
    pub fn out(&self, m: &mut Locked, n: usize) -> bool {
        let now = m.clock.now();
        self.regs.rw(m).out(n, now)
    }
}

/// Type `isa-pit`.
#[derive(Object)]
#[qom(name = "isa-pit", parent = PitCommon, methods(DeviceClass), instance_init = Pit::instance_init)]
pub struct Pit {
    parent: PitCommon,
    irq: IrqOut,
    timer: Timer,
    #[state]
    irq_disabled: MachineCell<bool>,
    #[state]
    driven: MachineCell<Driven>,
}

/// What has been driven.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Driven {
    /// The level: after a reset OUT has another one until its next edge.
    level: bool,
    /// Virtual time of the last look at OUT.
    until: u64,
    /// Rising edges still to be driven.
    owed: u64,
    /// Virtual time of the next of them.
    owed_at: u64,
}

/// Most edges that are made up for; what was missed beyond that is lost.
const MAX_OWED: u64 = 64;

impl Pit {
    fn instance_init(&self) -> Result<()> {
        self.timer.init(self, Self::expired);
        Ok(())
    }

    /// The input: high lets OUT 0 through.
    fn on_enable(&self, m: &mut Locked, _n: usize, enable: bool) {
        if std::mem::replace(self.irq_disabled.rw(m), !enable) == enable {
            self.update(m);
        }
    }

    /// Drives OUT 0 of now and waits for its next edge; low while switched off.
    fn update(&self, m: &mut Locked) {
        let now = m.clock.now();
        let level = !*self.irq_disabled.ro(m) && self.regs.rw(m).out(0, now);
        *self.driven.rw(m) = Driven { level, until: now, owed: 0, owed_at: 0 };
        self.irq.set(m, level);
        self.wait(m);
    }

    /// Drives what OUT 0 did since the last look.
    fn expired(&self, m: &mut Locked) {
        let now = m.clock.now();
        let Driven { level, until, owed, owed_at } = *self.driven.ro(m);
        let r = self.regs.rw(m);
        let (new, out, pace) = (r.rises(0, until, now), r.out(0, now), r.period(0) / 4);
        // One that is due waits behind those that are owed: the guest must be able to tell them apart.
        let rise = owed + new != 0 && (owed == 0 || owed_at <= now);
        let d = self.driven.rw(m);
        (d.level, d.until) = (out && (level || rise), now);
        d.owed = (owed + new).saturating_sub(rise.into()).min(MAX_OWED);
        if rise {
            d.owed_at = now.saturating_add(pace);
            self.irq.set(m, false);
            self.irq.set(m, true);
        }
        if !out {
            self.irq.set(m, false);
        }
        self.wait(m);
    }

    /// Waits for the next edge of OUT 0, or for one that is owed.
    fn wait(&self, m: &mut Locked) {
        if *self.irq_disabled.ro(m) {
            return self.timer.arm(m, None);
        }
        let now = m.clock.now();
        let edge = self.regs.rw(m).next_edge(0, now);
        let d = self.driven.ro(m);
        let next = edge.into_iter().chain((d.owed != 0).then_some(d.owed_at)).min();
        self.timer.arm(m, next);
    }

    fn read(&self, m: &mut Locked, off: u64, _size: u32) -> u64 {
        let now = m.clock.now();
        self.regs.rw(m).read(off, now).into()
    }

    fn write(&self, m: &mut Locked, off: u64, _size: u32, val: u64) {
        let now = m.clock.now();
        self.regs.rw(m).write(off, val as u8, now);
        if I8254Regs::sets_up(0, off, val as u8) {
            self.update(m);
        }
    }
}

impl DeviceImpl for Pit {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        self.gpio_out("", &self.irq);
        self.gpio_in("", 1, Self::on_enable);
        let now = m.clock.now();
        *self.regs.rw(m) = I8254Regs::power_on(now);
        let ops = Ops { read: Self::read, write: Self::write, imp: Sizes::new(1, 1), ..Ops::default() };
        let region = MemoryRegion::io(self, "pit", 4, ops);
        if self.iobase.get() == u32::MAX {
            return Err(Error::generic("isa-pit: property 'iobase' is not set"));
        }
        self.map_io(m, self.iobase.get().into(), &region)
    }

    fn unrealize(&self, m: &mut Locked) {
        self.timer.arm(m, None);
        self.unmap_io(m);
        self.parent_unrealize(m);
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        match phase {
            Phase::Enter => {
                let now = m.clock.now();
                *self.regs.rw(m) = I8254Regs::power_on(now);
            }
            Phase::Hold => {
                // The level of the new state reaches the line at its next edge: a reset is no interrupt.
                let (level, until) = (self.driven.ro(m).level, m.clock.now());
                *self.driven.rw(m) = Driven { level, until, owed: 0, owed_at: 0 };
                self.wait(m);
            }
            Phase::Exit => {}
        }
        self.parent_reset(m, phase);
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        if !self.regs.ro(m).is_valid() || self.driven.ro(m).owed > MAX_OWED {
            return Err(Error::generic("8254: impossible counter state"));
        }
        let level = self.driven.ro(m).level;
        self.irq.set(m, level);
        self.wait(m);
        Ok(())
    }
}
