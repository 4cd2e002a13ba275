//! What a network card has: the `mac` and `netdev` properties and a client.

use crate::client::{Client, End, Frame};
pub use crate::mac::MacProp;
use crate::nets::Nets;
use hw_core::{Core, Device, Locked};
use parking_lot::{Mutex, RwLock};
use qom::{Error, Handle, Level, Property, PropertyField, Result};
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

/// The `netdev` property of cards.
#[derive(Default)]
pub struct PeerSlot(Mutex<Weak<Client>>);

impl PeerSlot {
    /// The backend.
    pub fn get(&self) -> Option<Arc<Client>> {
        self.0.lock().upgrade()
    }

    /// Chooses the backend, before realize.
    pub fn set(&self, peer: &Arc<Client>) {
        *self.0.lock() = Arc::downgrade(peer);
    }
}

impl PropertyField for PeerSlot {
    /// A `str` property that takes the id of a backend.
    fn property<O: Level>(name: &'static str, f: fn(&O) -> &Self) -> Property {
        Property::computed::<String>(name)
            .getter(move |o: &O| Ok(f(o).get().map_or_else(String::new, |c| c.name().to_owned())))
            .setter(move |o: &O, id: String| {
                let base = o.base();
                let at = format!("{}.{name}", base.type_name());
                let nets = Nets::of(Core::of(&*base.object()));
                let Some(peer) = nets.netdev(&id) else {
                    return Err(Error::generic(format!("Property '{at}' can't find value '{id}'")));
                };
                if peer.peer().is_some() {
                    return Err(Error::generic(format!("Property '{at}' can't take value '{id}', it's in use")));
                }
                f(o).set(&peer);
                Ok(())
            })
            .describe("ID of a netdev to use as a backend")
    }
}

/// How a card takes frames: each function gets the device and the held machine lock.
pub struct NicHandlers<T> {
    /// Whether it takes a frame now; if not, it calls [`Nic::flush`] when it does again.
    pub can_receive: fn(&T, &mut Locked) -> bool,
    /// Takes a frame; false: it could not after all, and the frame stays.
    pub receive: fn(&T, &mut Locked, &[u8]) -> bool,
    /// The cable was plugged in or out.
    pub link_changed: fn(&T, &mut Locked, bool),
    /// `query-rx-filter`, without the name; `None`: the card shows none.
    pub rx_filter: Option<fn(&T, &mut Locked) -> Value>,
}

impl<T> Clone for NicHandlers<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for NicHandlers<T> {}

struct NicEnd<T: Level> {
    device: Handle<T>,
    handlers: NicHandlers<T>,
    nets: Weak<Nets>,
}

impl<T: Level> End for NicEnd<T> {
    fn receive(&self, frames: &mut VecDeque<Frame>) {
        if !self.nets.upgrade().is_some_and(|n| n.is_running()) {
            return;
        }
        let h = self.handlers;
        let alive = self.device.with(|d| {
            let mut m = Core::of(d).lock();
            while let Some(frame) = frames.front() {
                if !(h.can_receive)(d, &mut m) || !(h.receive)(d, &mut m, frame) {
                    break;
                }
                frames.pop_front();
            }
        });
        if alive.is_none() {
            frames.clear();
        }
    }

    fn link_changed(&self, up: bool) {
        // A card whose backend goes away hears of it while its device may hold the machine lock; such a change needs no lock at once.
        let (device, h) = (self.device.clone(), self.handlers);
        let Some(Ok(events)) = self.nets.upgrade().map(|n| n.events().cloned()) else { return };
        events.post(move || _ = device.with(|d| (h.link_changed)(d, &mut Core::of(d).lock(), up)));
    }

    fn rx_filter(&self) -> Option<Value> {
        let f = self.handlers.rx_filter?;
        self.device.with(|d| f(d, &mut Core::of(d).lock()))
    }
}

/// A card's end of its link; nothing before [`Nic::realize`].
#[derive(Default)]
pub struct Nic(RwLock<Option<Arc<Client>>>);

impl Nic {
    /// Makes the client and plugs it into the backend that the properties name. `mac` gets an address if it has none.
    ///
    /// # Errors
    /// The address is a group's, or another card took the backend meanwhile.
    pub fn realize<T: Level>(
        &self,
        device: &T,
        model: &str,
        mac: &MacProp,
        slot: &PeerSlot,
        handlers: NicHandlers<T>,
    ) -> Result<()> {
        let nets = Nets::of(Core::of(&*device.base().object()));
        let peer = slot.get();
        if peer.as_ref().is_some_and(|p| p.peer().is_some()) {
            let id = peer.map(|p| p.name().to_owned()).unwrap_or_default();
            return Err(Error::generic(format!("netdev '{id}' is in use")));
        }
        mac.set(nets.claim_mac(mac.get()));
        let id = device.base().object().cast::<Device>().and_then(Device::id);
        let name = id.unwrap_or_else(|| nets.free_name(|n| format!("{model}.{n}")));
        let client = Client::new(&nets, "nic", name);
        client.set_info(format!("model={model},macaddr={}", mac.get()));
        let end = NicEnd { device: device.this(), handlers, nets: Arc::downgrade(&nets) };
        nets.add(&client, Arc::new(end));
        if let Some(peer) = peer {
            nets.connect(&client, &peer);
            if !peer.is_link_up() {
                client.set_link(false);
            }
        }
        *self.0.write() = Some(client);
        Ok(())
    }

    /// Takes the client out; the backend stays and may get another card.
    pub fn unrealize<T: Level>(&self, device: &T, mac: &MacProp) {
        let Some(client) = self.0.write().take() else { return };
        let nets = Nets::of(Core::of(&*device.base().object()));
        nets.release_mac(mac.get());
        nets.remove(&client);
    }

    fn client(&self) -> Option<Arc<Client>> {
        self.0.read().clone()
    }

    /// Sends a frame; false: the backend cannot keep up (the frame may be lost).
    pub fn send(&self, frame: Frame) -> bool {
        self.client().is_none_or(|c| c.send(frame))
    }

    /// The card takes frames again.
    pub fn flush(&self) {
        if let Some(client) = self.client() {
            client.flush();
        }
    }

    /// Throws away frames that wait for the card.
    pub fn purge(&self) {
        if let Some(client) = self.client() {
            client.purge();
        }
    }

    /// Whether the cable is plugged in.
    pub fn is_link_up(&self) -> bool {
        self.client().is_none_or(|c| c.is_link_up())
    }

    /// Changes what `info network` says of the card's address.
    pub fn set_info(&self, model: &str, mac: crate::MacAddr) {
        if let Some(client) = self.client() {
            client.set_info(format!("model={model},macaddr={mac}"));
        }
    }
}
