//! The PC's interval timer, type `isa-pit` below `pit-common`. Registers: [`super::i8254_regs`].
//!
//! OUT of counter 0 drives the unnamed output; the unnamed input switches that off (HPET legacy replacement).

use hw_core::{
    DeviceClass, DeviceImpl, IrqOut, IsaDevice, Locked, MachineCell, MemoryRegion, Ops, Phase, Sizes, Timer,
};
use qom::{Error, Object, Prop, Result};

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
    /// The level last driven: after a reset OUT has another one until its next edge.
    #[state]
    irq_level: MachineCell<bool>,
}

impl Pit {
    fn instance_init(&self) -> Result<()> {
        self.timer.init(self, Self::update);
        Ok(())
    }

    /// The input: high lets OUT 0 through.
    fn on_enable(&self, m: &mut Locked, _n: usize, enable: bool) {
        if std::mem::replace(self.irq_disabled.rw(m), !enable) == enable {
            self.update(m);
        }
    }

    /// Drives OUT 0 and waits for its next edge; low while switched off.
    fn update(&self, m: &mut Locked) {
        if *self.irq_disabled.ro(m) {
            *self.irq_level.rw(m) = false;
            self.irq.set(m, false);
            self.timer.arm(m, None);
            return;
        }
        let now = m.clock.now();
        let r = self.regs.rw(m);
        let (out, next) = (r.out(0, now), r.next_edge(0, now));
        *self.irq_level.rw(m) = out;
        self.irq.set(m, out);
        self.timer.arm(m, next);
    }

    /// Waits for the next edge of OUT 0 without driving it.
    fn wait(&self, m: &mut Locked) {
        let now = m.clock.now();
        let next = if *self.irq_disabled.ro(m) { None } else { self.regs.rw(m).next_edge(0, now) };
        self.timer.arm(m, next);
    }

    fn read(&self, m: &mut Locked, off: u64, _size: u32) -> u64 {
        let now = m.clock.now();
        self.regs.rw(m).read(off, now).into()
    }

    fn write(&self, m: &mut Locked, off: u64, _size: u32, val: u64) {
        let now = m.clock.now();
        self.regs.rw(m).write(off, val as u8, now);
        self.update(m);
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
                self.wait(m);
            }
            Phase::Exit => {}
        }
        self.parent_reset(m, phase);
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        if !self.regs.ro(m).is_valid() {
            return Err(Error::generic("8254: impossible counter state"));
        }
        let level = *self.irq_level.ro(m);
        self.irq.set(m, level);
        self.wait(m);
        Ok(())
    }
}
