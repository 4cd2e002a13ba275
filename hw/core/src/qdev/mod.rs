//! Devices and buses: QEMU's qdev on the object model. Realize, reset, hotplug, snapshot.

mod add;
mod bus;
mod device;
mod gpio;
mod hotplug;
mod imp;
mod reset;
mod snapshot;

pub use add::{DeviceAdd, device_add, device_class_by_name, device_del, find_bus, find_device};
pub use bus::{Bus, BusClass, BusImpl};
pub use device::{Category, Device, DeviceClass};
pub use hotplug::HotplugHandler;
pub use imp::DeviceImpl;
pub use reset::{Phase, ResetList, ResetState, reset_all, reset_object};
pub use snapshot::{ApplyTo, StateClass, load, save};

qom::interface!("resettable");
qom::interface!("vmstate-if");
