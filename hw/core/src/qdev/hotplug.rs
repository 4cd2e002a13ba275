//! Hotplug handlers: who is asked and told when a device is plugged or unplugged.

use qom::{Error, Result};

use super::device::Device;
use crate::locked::Locked;

/// Interface `hotplug-handler`. Machines and buses name one for the devices they answer for; it is called for cold-plugged devices too.
pub trait HotplugHandler {
    /// Before realize: assign addresses, refuse.
    ///
    /// # Errors
    /// Why the device cannot be plugged.
    fn pre_plug(&self, _m: &mut Locked, _dev: &Device) -> Result<()> {
        Ok(())
    }

    /// After realize: tell the guest.
    ///
    /// # Errors
    /// The device is unrealized again.
    fn plug(&self, _m: &mut Locked, _dev: &Device) -> Result<()> {
        Ok(())
    }

    /// Whether unplugging is asked of the guest; otherwise [`HotplugHandler::unplug`] is called at once.
    fn asks_guest(&self, _dev: &Device) -> bool {
        false
    }

    /// Asks the guest to give the device up.
    ///
    /// # Errors
    /// Why it cannot be asked.
    fn unplug_request(&self, _m: &mut Locked, dev: &Device) -> Result<()> {
        Err(Error::generic(format!("Device '{}' does not support hotplugging", dev.label())))
    }

    /// Takes the device away: [`Device::remove`], and whatever belongs to it.
    ///
    /// # Errors
    /// Why it stays.
    fn unplug(&self, m: &mut Locked, dev: &Device) -> Result<()> {
        dev.remove(m);
        Ok(())
    }
}

qom::interface!(dyn HotplugHandler, "hotplug-handler");
