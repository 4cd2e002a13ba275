//! What a network card has: the `mac` and `netdev` properties and a client.

use crate::client::{Client, End, Parcel};
pub use crate::mac::MacProp;
use crate::nets::Nets;
use crate::offload::VnetHeader;
use hw_core::{Core, Device, Locked};
use parking_lot::{Mutex, RwLock};
use qom::{Error, Handle, Level, ObjRef, Property, PropertyField, Result};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// Says whether a card is at something that it must not begin again from within: its own registers may be where the guest has it
/// put a frame.
#[derive(Default)]
pub struct Busy(AtomicBool);

/// The card is at it until this is dropped.
pub struct BusyGuard<'a>(&'a Busy);

impl Busy {
    /// Begins; `None`: the card is at it already.
    pub fn enter(&self) -> Option<BusyGuard<'_>> {
        (!self.0.swap(true, Ordering::Relaxed)).then_some(BusyGuard(self))
    }
}

impl Drop for BusyGuard<'_> {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Relaxed);
    }
}

/// Takes an unfinished frame; false: it stays.
pub type ReceiveUnfinished<T> = fn(&T, &mut Locked, &[u8], &VnetHeader) -> bool;

/// How a card takes frames: each function gets the device and the held machine lock.
pub struct NicHandlers<T> {
    /// Whether it takes a frame now; if not, it calls [`Nic::flush`] when it does again.
    pub can_receive: fn(&T, &mut Locked) -> bool,
    /// Takes a frame; false: it could not after all, and the frame stays.
    pub receive: fn(&T, &mut Locked, &[u8]) -> bool,
    /// [`NicHandlers::receive`] for an unfinished frame, of a kind that the card takes ([`Nic::set_takes`]).
    pub receive_unfinished: Option<ReceiveUnfinished<T>>,
    /// The cable was plugged in or out.
    pub link_changed: fn(&T, &mut Locked, bool),
    /// The backend, which could not keep up, can again.
    pub peer_ready: Option<fn(&T, &mut Locked)>,
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
    /// Its name, if the user chose it.
    id: Option<String>,
    /// Somebody who asks what the filter is now has not been told since that it changed.
    filter_seen: AtomicBool,
}

impl<T: Level> NicEnd<T> {
    /// Calls a function with the machine locked, later, on the event loop's thread: whoever reports something may hold the lock.
    fn later(&self, f: impl FnOnce(&T, &mut Locked) + Send + 'static) {
        let device = self.device.clone();
        let Some(Ok(events)) = self.nets.upgrade().map(|n| n.events().cloned()) else { return };
        events.post(move || _ = device.with(|d| f(d, &mut Core::of(d).lock())));
    }
}

impl<T: Level> End for NicEnd<T> {
    fn receive(&self, frames: &mut VecDeque<Parcel>) {
        if !self.nets.upgrade().is_some_and(|n| n.is_running()) {
            return;
        }
        let h = self.handlers;
        let alive = self.device.with(|d| {
            let mut m = Core::of(d).lock();
            while let Some(frame) = frames.front() {
                if !(h.can_receive)(d, &mut m) {
                    break;
                }
                let taken = match (&frame.rest, h.receive_unfinished) {
                    (None, _) => (h.receive)(d, &mut m, frame),
                    (Some(rest), Some(receive)) => receive(d, &mut m, frame, rest),
                    // It says that it takes what it cannot: lost.
                    (Some(_), None) => true,
                };
                if !taken {
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
        let f = self.handlers.link_changed;
        self.later(move |d, m| f(d, m, up));
    }

    fn peer_ready(&self) {
        if let Some(f) = self.handlers.peer_ready
            && self.nets.upgrade().is_some_and(|n| n.is_running())
        {
            self.later(f);
        }
    }

    fn rx_filter(&self) -> Option<Value> {
        let f = self.handlers.rx_filter?;
        self.filter_seen.store(true, Ordering::Relaxed);
        self.device.with(|d| f(d, &mut Core::of(d).lock()))
    }

    fn rx_filter_changed(&self, nets: &Nets) {
        if self.filter_seen.swap(false, Ordering::Relaxed) {
            let path = self.device.with(|d| d.base().path()).unwrap_or_default();
            let mut data = json!({"path": path});
            if let (Some(id), Some(data)) = (&self.id, data.as_object_mut()) {
                data.insert("name".into(), id.as_str().into());
            }
            nets.emit("NIC_RX_FILTER_CHANGED", data);
        }
    }
}

/// A card's end of its link; nothing before [`Nic::realize`].
#[derive(Default)]
pub struct Nic(RwLock<Option<Arc<Client>>>);

impl Nic {
    /// Makes the client and plugs it into the backend that the properties name. `mac` gets an address if it has none. The user's name for
    /// the device, or for the one it is a part of, becomes the client's; without one it is made from `model`.
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
        let id_of = |o: &ObjRef| o.cast::<Device>().and_then(Device::id);
        let id = id_of(&device.base().object()).or_else(|| id_of(&device.base().parent()?));
        let name = id.clone().unwrap_or_else(|| nets.free_name(|n| format!("{model}.{n}")));
        let client = Client::new(&nets, "nic", name);
        client.set_info(format!("model={model},macaddr={}", mac.get()));
        let filter_seen = AtomicBool::new(true);
        let end = NicEnd { device: device.this(), handlers, nets: Arc::downgrade(&nets), id, filter_seen };
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
    pub fn send(&self, parcel: impl Into<Parcel>) -> bool {
        self.client().is_none_or(|c| c.send(parcel))
    }

    /// Says which unfinished frames the card takes now, [`crate::client::takes`].
    pub fn set_takes(&self, bits: u8) {
        if let Some(client) = self.client() {
            client.set_takes(bits);
        }
    }

    /// Whether the backend keeps up; if not, [`NicHandlers::peer_ready`] follows.
    pub fn can_send(&self) -> bool {
        self.client().is_none_or(|c| c.can_send())
    }

    /// The driver changed what the card takes: `NIC_RX_FILTER_CHANGED`, once after each `query-rx-filter`.
    pub fn rx_filter_changed(&self) {
        if let Some(client) = self.client() {
            client.rx_filter_changed();
        }
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
