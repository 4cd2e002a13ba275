//! The network cards that `-nic` and `-net nic` put on the board.

use hw_core::pci::PciBus;
use hw_core::{Bus, Core, Device, DeviceClass, IsaBus, Locked};
use net::{Nets, NicRequest};
use qom::{Error, Ref, Registry, Result, Scope};
use serde_json::json;
use std::sync::Arc;

/// The card without `model=`.
const DEFAULT: &str = "e1000";

/// Ports and interrupts of NE2000 cards on the ISA bus, in the order in which they are made.
const NE2000: [(u32, u32); 6] = [(0x300, 9), (0x320, 10), (0x340, 11), (0x360, 3), (0x280, 4), (0x380, 5)];

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
pub fn create(scope: &Arc<Scope>, m: &mut Locked, bus: &Ref<PciBus>, isa: &Ref<IsaBus>) -> Result<()> {
    let Some(core) = scope.ext_arc::<Core>() else { return Ok(()) };
    let nets = Nets::of(&core);
    let mut places = NE2000.iter();
    for request in nets.take_requests(|_| true) {
        let name = request.model.as_deref().unwrap_or(DEFAULT);
        if name == "ne2k_isa" {
            let (port, irq) = places.next().ok_or_else(|| {
                Error::generic(format!("there can be {} cards of model ne2k_isa at most", NE2000.len()))
            })?;
            let card: Ref<Device> = scope.object_new_as(name)?;
            card.set("iobase", json!(port))?;
            card.set("irq", json!(irq))?;
            set_up(&card, &request)?;
            let bus: Ref<Bus> = Ref::new(Ref::object(isa).clone()).ok_or("not a bus")?;
            card.realize_on(m, &bus)?;
            continue;
        }
        let type_name = model(name).ok_or_else(|| Error::generic(format!("Unsupported NIC model: {name}")))?;
        let function = bus.new_function(type_name, -1, false)?;
        set_up(&function, &request)?;
        bus.realize_function(m, &function)?;
    }
    Ok(())
}

fn set_up(card: &Device, request: &NicRequest) -> Result<()> {
    if let Some(mac) = request.mac {
        card.set_str("mac", &mac.to_string())?;
    }
    if let Some(peer) = &request.peer {
        card.set_str("netdev", peer.name())?;
    }
    Ok(())
}
