//! The network cards that `-nic` and `-net nic` put on the board.

use hw_core::pci::PciBus;
use hw_core::{Core, Device, DeviceClass, Locked};
use net::Nets;
use qom::{Error, Ref, Registry, Result, Scope};
use std::sync::Arc;

/// The card without `model=`.
const DEFAULT: &str = "e1000";

/// Type that `model=` says, if it is one of a PCI card.
fn model(name: &str) -> Option<&'static str> {
    let name = if name == "virtio" { "virtio-net-pci" } else { name };
    let class = Registry::global().class(name).ok().or_else(|| {
        let devices = Registry::global().list(Some("device"), false);
        let classes = devices.into_iter().filter_map(|t| Registry::global().class(t.name()).ok());
        classes.into_iter().find(|c| c.get::<DeviceClass>().is_some_and(|d| d.alias == Some(name)))
    })?;
    let network = class.get::<DeviceClass>().is_some_and(|d| d.categories.contains(&hw_core::Category::Network));
    (network && class.is_a("pci-device") && !class.is_abstract()).then(|| class.name())
}

/// Makes them.
///
/// # Errors
/// A model that there is not, or what a card says.
pub fn create(scope: &Arc<Scope>, m: &mut Locked, bus: &Ref<PciBus>) -> Result<()> {
    let Some(core) = scope.ext_arc::<Core>() else { return Ok(()) };
    let nets = Nets::of(&core);
    for request in nets.take_requests(|_| true) {
        let name = request.model.as_deref().unwrap_or(DEFAULT);
        let type_name = model(name).ok_or_else(|| Error::generic(format!("Unsupported NIC model: {name}")))?;
        let function = bus.new_function(type_name, -1, false)?;
        let device: &Device = &function;
        if let Some(mac) = request.mac {
            device.set_str("mac", &mac.to_string())?;
        }
        if let Some(peer) = &request.peer {
            device.set_str("netdev", peer.name())?;
        }
        bus.realize_function(m, &function)?;
    }
    Ok(())
}
