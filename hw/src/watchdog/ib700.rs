//! The watchdog of single board computers, type `ib700`: one port starts or serves it, another stops it.
//! Source: IBASE IB700 manual, §Watchdog timer (ports 441H and 443H, 0 to 30 seconds in steps of two).

use crate::misc::guest_events::{GuestEvent, GuestEvents};
use hw_core::{
    Category, DeviceClass, DeviceImpl, IsaDevice, Locked, MachineCell, MemoryRegion, Ops, Phase, Sizes, Timer,
};
use qom::{Object, Result};

const STOP: u64 = 0x441;
const START: u64 = 0x443;
/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// Type `ib700`.
#[derive(Object)]
#[qom(name = "ib700", parent = IsaDevice, methods(DeviceClass), class_init = Ib700::class_init,
    instance_init = Ib700::instance_init)]
pub struct Ib700 {
    parent: IsaDevice,
    /// When it fires, virtual ns.
    #[state]
    fires_at: MachineCell<Option<u64>>,
    timer: Timer,
}

/// Seconds for a value of the start port: 30 for 0, 0 for 15.
fn seconds(val: u64) -> u64 {
    30 - 2 * (val & 0xf)
}

impl Ib700 {
    fn class_init(c: &mut qom::Class) {
        c.edit::<DeviceClass>().categories = vec![Category::Watchdog];
        c.edit::<DeviceClass>().desc = "iBASE 700";
    }

    fn instance_init(&self) -> Result<()> {
        self.timer.init(self, |d: &Ib700, m| {
            d.set(m, None);
            GuestEvents::report(d, GuestEvent::Watchdog);
        });
        Ok(())
    }

    fn set(&self, m: &mut Locked, at: Option<u64>) {
        *self.fires_at.rw(m) = at;
        self.timer.arm(m, at);
    }
}

impl DeviceImpl for Ib700 {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        let imp = Sizes::new(1, 1);
        let stop: Ops<Ib700> =
            Ops { read: |_, _, _, _| 0xff, write: |d, m, _, _, _| d.set(m, None), imp, ..Ops::default() };
        let start: Ops<Ib700> = Ops {
            read: |_, _, _, _| 0xff,
            write: |d, m, _, _, v| {
                let at = m.clock.now().saturating_add(seconds(v) * SECOND);
                d.set(m, Some(at));
            },
            imp,
            ..Ops::default()
        };
        self.map_io(m, STOP, &MemoryRegion::io(self, "ib700", 2, stop))?;
        self.map_io(m, START, &MemoryRegion::io(self, "ib700", 2, start))
    }

    fn unrealize(&self, m: &mut Locked) {
        self.set(m, None);
        self.unmap_io(m);
        self.parent_unrealize(m);
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        if phase == Phase::Enter {
            self.set(m, None);
        }
        self.parent_reset(m, phase);
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        let at = *self.fires_at.ro(m);
        self.timer.arm(m, at);
        self.parent_post_load(m)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_go_down_in_steps_of_two() {
        assert_eq!([0, 1, 14, 15, 0x1f].map(super::seconds), [30, 28, 2, 0, 0]);
    }
}
