//! The methods of a device type, as a trait whose defaults call the parent type's.

use qom::{Class, Level, Object, Result, of_class};

use super::device::DeviceClass;
use super::reset::Phase;
use crate::locked::Locked;

/// What a device type does; enter it into the class with `#[qom(methods(DeviceClass))]`. A method that is not written is
/// the parent type's; one that is written may call `self.parent_realize(m)` and the like.
pub trait DeviceImpl: Level {
    /// All properties are set and the device is on its bus: check them, make regions, connect lines. After an error
    /// nothing of the device may be left outside it.
    ///
    /// # Errors
    /// What is wrong with the properties, or what could not be had.
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)
    }

    /// Undoes `realize`: unmap, stop timers. Child buses are empty by then.
    fn unrealize(&self, m: &mut Locked) {
        self.parent_unrealize(m);
    }

    /// One phase of a reset: `Enter` touches only the device's own state, `Hold` may drive lines, `Exit` may start work.
    fn reset(&self, m: &mut Locked, phase: Phase) {
        self.parent_reset(m, phase);
    }

    /// A snapshot was loaded into every state cell of the machine: check values that index something, arm timers, drive lines.
    ///
    /// # Errors
    /// What is impossible in the loaded state.
    fn post_load(&self, m: &mut Locked) -> Result<()> {
        self.parent_post_load(m)
    }

    /// The parent type's `realize`.
    ///
    /// # Errors
    /// As [`DeviceImpl::realize`].
    fn parent_realize(&self, m: &mut Locked) -> Result<()> {
        (parent_class::<Self>(self).realize)(self, m)
    }

    /// The parent type's `unrealize`.
    fn parent_unrealize(&self, m: &mut Locked) {
        (parent_class::<Self>(self).unrealize)(self, m);
    }

    /// The parent type's `reset`.
    fn parent_reset(&self, m: &mut Locked, phase: Phase) {
        (parent_class::<Self>(self).reset)(self, m, phase);
    }

    /// The parent type's `post_load`.
    ///
    /// # Errors
    /// As [`DeviceImpl::post_load`].
    fn parent_post_load(&self, m: &mut Locked) -> Result<()> {
        (parent_class::<Self>(self).post_load)(self, m)
    }
}

/// Device class of the type above `T`'s.
fn parent_class<T: Level>(o: &T) -> &'static DeviceClass {
    device_class(o.base().class().parent_of::<T>())
}

/// The device part of a class.
pub(crate) fn device_class(c: &'static Class) -> &'static DeviceClass {
    c.get().expect("classes below 'device' have a DeviceClass")
}

/// Calls `f` with the object as a `T`. `o` may be an ancestor's level of it.
pub(crate) fn as_level<T: Level, R>(o: &dyn Object, f: impl FnOnce(&T) -> R) -> R {
    match T::of(o) {
        Some(t) => f(t),
        None => f(of_class::<T>(&*o.base().object())),
    }
}

impl DeviceClass {
    /// Enters the methods of `T` into its class.
    pub fn implement<T: DeviceImpl>(&mut self) {
        self.realize = |o, m| as_level(o, |t: &T| t.realize(m));
        self.unrealize = |o, m| as_level(o, |t: &T| t.unrealize(m));
        self.reset = |o, m, phase| as_level(o, |t: &T| t.reset(m, phase));
        self.post_load = |o, m| as_level(o, |t: &T| t.post_load(m));
    }
}
