//! Timers of devices: [`Timer::init`] ties one to its owner.

use qom::Level;

use crate::clock::{ClockType, Timer};
use crate::core::Core;
use crate::locked::Locked;

impl Timer {
    /// The timer calls `f` on its owner, by the virtual clock. In the owner's `instance_init`.
    pub fn init<T: Level>(&self, owner: &T, f: fn(&T, &mut Locked)) {
        self.init_on(owner, ClockType::Virtual, f);
    }

    /// [`Timer::init`] by another clock.
    pub fn init_on<T: Level>(&self, owner: &T, clock: ClockType, f: fn(&T, &mut Locked)) {
        let handle = owner.this();
        let call = Box::new(move |m: &mut Locked| _ = handle.with(|o| f(o, m)));
        self.set_up(&Core::of(owner).clocks, clock, call);
    }
}
