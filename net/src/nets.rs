//! All clients of a machine.

use crate::backend;
use crate::client::{Client, End};
use crate::guest_port::{GuestPort, OpenGuestPort};
use crate::mac::MacAddr;
use hw_core::Core;
use hw_core::event_loop::EventLoop;
use hw_core::opts::Opts;
use parking_lot::Mutex;
use qom::{Error, Result};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

type EventFn = Box<dyn Fn(&'static str, Value) + Send + Sync>;

/// First address that cards without `mac=` get; the last byte counts up.
const MAC_BASE: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

#[derive(Default)]
struct Inner {
    clients: Vec<Arc<Client>>,
    /// Clients whose inboxes are to be delivered.
    dirty: Vec<Weak<Client>>,
    requests: Vec<NicRequest>,
    /// Last bytes of addresses of the base that are in use.
    macs: BTreeSet<u8>,
}

/// A card that the board is asked to make: `-nic`, `-net nic`.
#[derive(Clone, Debug)]
pub struct NicRequest {
    /// `model=`; `None`: the board's choice.
    pub model: Option<String>,
    /// `mac=`.
    pub mac: Option<MacAddr>,
    /// Backend.
    pub peer: Option<Arc<Client>>,
}

/// The network of one machine: [`Core::service`].
#[derive(Default)]
pub struct Nets {
    inner: Mutex<Inner>,
    events: OnceLock<EventLoop>,
    sink: OnceLock<EventFn>,
    guest_ports: OnceLock<OpenGuestPort>,
    posted: AtomicBool,
    /// Cards take frames only while the machine runs.
    running: AtomicBool,
}

impl Nets {
    /// The machine's.
    pub fn of(core: &Core) -> Arc<Nets> {
        core.service::<Nets>()
    }

    /// Sets the loop that waits for the host; the first one stays.
    pub fn set_events(&self, events: EventLoop) {
        _ = self.events.set(events);
    }

    /// Sets who is told of QMP events; the first one stays.
    pub fn set_event_sink(&self, sink: impl Fn(&'static str, Value) + Send + Sync + 'static) {
        _ = self.sink.set(Box::new(sink));
    }

    /// Sets who opens character devices for `guestfwd=`; the first one stays.
    pub fn set_guest_ports(&self, open: impl Fn(&str, &str) -> Result<Box<dyn GuestPort>> + Send + Sync + 'static) {
        _ = self.guest_ports.set(Box::new(open));
    }

    pub(crate) fn guest_port(&self, label: &str, device: &str) -> Result<Box<dyn GuestPort>> {
        let open = self.guest_ports.get();
        open.ok_or_else(|| Error::generic("this machine has no character devices for guestfwd="))?(label, device)
    }

    pub(crate) fn emit(&self, event: &'static str, data: Value) {
        if let Some(sink) = self.sink.get() {
            sink(event, data);
        }
    }

    /// The loop that waits for the host.
    ///
    /// # Errors
    /// The machine has none: backends cannot be used.
    pub fn events(&self) -> Result<&EventLoop> {
        self.events.get().ok_or_else(|| Error::generic("this machine has no event loop for network backends"))
    }

    /// The machine began to run, or stopped.
    pub fn set_running(&self, on: bool) {
        self.running.store(on, Ordering::Relaxed);
        if on {
            for client in self.clients() {
                client.flush();
                // A card that may send again hears of it only while the machine runs.
                if client.is_nic()
                    && let Some(end) = client.end()
                {
                    end.peer_ready();
                }
            }
        }
    }

    /// Whether cards take frames.
    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed)
    }

    /// Has the loop's thread deliver `client`'s inbox.
    pub(crate) fn schedule(self: &Arc<Self>, client: &Arc<Client>) {
        self.inner.lock().dirty.push(Arc::downgrade(client));
        if !self.posted.swap(true, Ordering::AcqRel)
            && let Some(events) = self.events.get()
        {
            let weak = Arc::downgrade(self);
            events.post(move || {
                if let Some(nets) = weak.upgrade() {
                    nets.deliver();
                }
            });
        }
    }

    /// Delivers what waits: on the loop's thread, with no lock held.
    pub fn deliver(&self) {
        self.posted.store(false, Ordering::Release);
        let mut dirty = std::mem::take(&mut self.inner.lock().dirty);
        dirty.dedup_by(|a, b| a.ptr_eq(b));
        for client in dirty {
            if let Some(client) = client.upgrade() {
                client.deliver();
            }
        }
    }

    /// Asks the board for a card.
    pub fn request_nic(&self, request: NicRequest) {
        self.inner.lock().requests.push(request);
    }

    /// The cards that the board is to make; what it cannot make it leaves.
    pub fn take_requests(&self, can: impl Fn(&NicRequest) -> bool) -> Vec<NicRequest> {
        let mut s = self.inner.lock();
        let (taken, left) = std::mem::take(&mut s.requests).into_iter().partition(can);
        s.requests = left;
        taken
    }

    /// A new port of hub 0, with a backend behind it: what `-net` makes.
    ///
    /// # Errors
    /// As [`Nets::netdev_add`].
    pub fn hub_port(self: &Arc<Self>, backend: Option<&Arc<Client>>) -> Result<Arc<Client>> {
        let name = self.free_name(|n| format!("hub0port{n}"));
        let opts = Opts::json(json!({"hubid": 0}).as_object().cloned().unwrap_or_default());
        let port = self.open("hubport", name, opts)?;
        if let Some(backend) = backend {
            self.connect(&port, backend);
        }
        Ok(port)
    }

    /// A backend without an id of the user's: `-nic user`, `-net user`.
    ///
    /// # Errors
    /// As [`Nets::netdev_add`].
    pub fn add_unnamed(self: &Arc<Self>, kind: &str, opts: Opts) -> Result<Arc<Client>> {
        let name = self.free_name(|n| format!("#net{n}"));
        self.open(kind, name, opts)
    }

    /// Warnings about what leads nowhere, at the end of start-up.
    pub fn unconnected(&self) -> Vec<String> {
        let clients = self.clients();
        let hubs: BTreeSet<i64> = clients.iter().filter_map(|c| c.end()?.hub()).collect();
        let mut all = vec![];
        for hub in hubs {
            let ports = clients.iter().filter(|c| c.end().and_then(|e| e.hub()) == Some(hub));
            let (taken, free): (Vec<_>, Vec<_>) = ports.partition(|c| c.peer().is_some());
            all.extend(free.iter().map(|c| format!("hub port {} has no peer", c.name())));
            let has = |card: bool| taken.iter().any(|c| c.peer().is_some_and(|p| p.is_nic() == card));
            match (has(true), has(false)) {
                (false, true) => all.push(format!("hub {hub} with no nics")),
                (true, false) => all.push(format!("hub {hub} is not connected to host network")),
                _ => {}
            }
        }
        // (A card without a cable is what its user wants.)
        let alone = clients.iter().filter(|c| c.peer().is_none() && !c.is_nic());
        all.extend(alone.map(|c| format!("netdev {} has no peer", c.name())));
        for r in &self.inner.lock().requests {
            let model = r.model.as_deref().unwrap_or("default");
            all.push(format!("requested NIC (model {model}) was not created (not supported by this machine?)"));
        }
        all
    }

    /// `hostfwd_add`, `hostfwd_remove`, with or without a backend's name in front; what to print.
    ///
    /// # Errors
    /// There is no user-mode network of that name, or the rule is wrong.
    pub fn host_forward(&self, args: &str, add: bool) -> Result<String> {
        let (name, rule) = match args.trim().split_once(' ') {
            Some((name, rule)) => (Some(name), rule.trim()),
            None => (None, args.trim()),
        };
        let end = self.user(name)?;
        let user = end.user().ok_or_else(|| Error::generic("not a user-mode network"))?;
        if add {
            user.add_forward(rule)?;
            return Ok(String::new());
        }
        let found = if user.remove_forward(rule)? { "removed" } else { "not found" };
        Ok(format!("host forwarding rule for {rule} {found}\n"))
    }

    fn user(&self, name: Option<&str>) -> Result<Arc<dyn End>> {
        let ends = |c: &Arc<Client>| c.end().filter(|e| e.user().is_some());
        match name {
            Some(name) => {
                let client =
                    self.netdev(name).ok_or_else(|| Error::generic(format!("unrecognized netdev id '{name}'")))?;
                ends(&client).ok_or_else(|| {
                    Error::generic(format!("invalid device specified: '{name}' is no user-mode network"))
                })
            }
            None => {
                let found = self.clients().iter().find_map(ends);
                found.ok_or_else(|| Error::generic("user mode network stack not in use"))
            }
        }
    }

    /// `info usernet`.
    pub fn describe_user(&self) -> String {
        let mut out = String::new();
        for client in self.clients() {
            if let Some(end) = client.end()
                && let Some(user) = end.user()
            {
                let hub = client.peer().and_then(|p| p.end()?.hub()).unwrap_or(-1);
                let _ = write!(out, "Hub {hub} ({}):\n{}", client.name(), user.describe());
            }
        }
        out
    }

    // ---- clients ----

    /// All clients, in the order they were made.
    pub fn clients(&self) -> Vec<Arc<Client>> {
        self.inner.lock().clients.clone()
    }

    /// The client called `name`, a card's or a backend's.
    pub fn find(&self, name: &str) -> Option<Arc<Client>> {
        self.inner.lock().clients.iter().find(|c| c.name() == name).cloned()
    }

    /// The backend called `name`.
    pub fn netdev(&self, name: &str) -> Option<Arc<Client>> {
        self.inner.lock().clients.iter().find(|c| !c.is_nic() && c.name() == name).cloned()
    }

    /// Enters a client that has its owner.
    pub(crate) fn add(&self, client: &Arc<Client>, end: Arc<dyn End>) {
        client.set_end(Some(end));
        self.inner.lock().clients.push(client.clone());
    }

    /// Takes a client out and its link apart.
    pub(crate) fn remove(&self, client: &Arc<Client>) {
        self.inner.lock().clients.retain(|c| !Arc::ptr_eq(c, client));
        if let Some(peer) = client.peer() {
            peer.set_peer(None);
            if let Some(end) = peer.end() {
                // A card has lost its cable for good; a backend may get another card.
                if peer.is_nic() {
                    peer.set_link(false);
                } else {
                    end.link_changed(false);
                }
                // (If it waited for the one that goes, nobody else would wake it.)
                end.peer_ready();
            }
        }
        client.set_peer(None);
        client.filters().iter().for_each(|f| f.remove());
        let end = client.end();
        client.set_end(None);
        if let Some(end) = end {
            end.close();
        }
    }

    /// Makes two clients each other's peers.
    pub fn connect(&self, a: &Arc<Client>, b: &Arc<Client>) {
        a.set_peer(Some(b));
        b.set_peer(Some(a));
    }

    /// `-netdev`, `netdev_add`.
    ///
    /// # Errors
    /// A kind or an option that is none, an id that is taken, or what the host says: nothing is left behind.
    pub fn netdev_add(self: &Arc<Self>, mut opts: Opts) -> Result<Arc<Client>> {
        let kind = opts.require_str("type")?;
        let id = opts.require_str("id")?;
        let mut letters = id.chars();
        let rest = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if !letters.next().is_some_and(|c| c.is_ascii_alphabetic()) || !letters.all(rest) {
            return Err(Error::generic("Parameter 'id' expects an identifier"));
        }
        if self.netdev(&id).is_some() {
            return Err(Error::generic(format!("Duplicate ID '{id}' for netdev")));
        }
        self.open(&kind, id, opts)
    }

    pub(crate) fn open(self: &Arc<Self>, kind: &str, id: String, mut opts: Opts) -> Result<Arc<Client>> {
        let def = backend::find(kind).ok_or_else(|| {
            let known: Vec<&str> = backend::all().iter().map(|d| d.name).collect();
            let known = known.join(", ");
            Error::generic(format!("Parameter 'type' does not accept value '{kind}' (accepted: {known})"))
        })?;
        let client = Client::new(self, def.name, id);
        let end = (def.open)(self, &client, &mut opts)?;
        if let Err(e) = opts.finish() {
            end.close();
            return Err(e);
        }
        self.add(&client, end);
        Ok(client)
    }

    /// `netdev_del`.
    ///
    /// # Errors
    /// There is no such backend.
    pub fn netdev_del(&self, id: &str) -> Result<()> {
        match (self.netdev(id), self.find(id)) {
            (Some(client), _) => {
                self.remove(&client);
                Ok(())
            }
            (None, Some(_)) => Err(Error::generic(format!("Device '{id}' is not a netdev"))),
            (None, None) => Err(device_not_found(id)),
        }
    }

    /// `set_link`: the cable of a card, or of a backend, whose card then sees it too.
    ///
    /// # Errors
    /// There is no such client.
    pub fn set_link(&self, name: &str, up: bool) -> Result<()> {
        let client = self.find(name).ok_or_else(|| device_not_found(name))?;
        client.set_link(up);
        if !client.is_nic()
            && let Some(nic) = client.peer().filter(|p| p.is_nic())
        {
            nic.set_link(up);
        }
        Ok(())
    }

    /// `query-rx-filter`: of one card, or of all that have a filter.
    ///
    /// # Errors
    /// There is no such card, or it has no filter.
    pub fn rx_filters(&self, name: Option<&str>) -> Result<Value> {
        if let Some(name) = name {
            let client = self.find(name).ok_or_else(|| Error::generic(format!("invalid net client name: {name}")))?;
            if !client.is_nic() {
                return Err(Error::generic(format!("net client({name}) isn't a NIC")));
            }
        }
        let mut all = vec![];
        for client in self.clients().iter().filter(|c| c.is_nic() && name.is_none_or(|n| n == c.name())) {
            match (client.end().and_then(|e| e.rx_filter()), name) {
                (Some(Value::Object(mut filter)), _) => {
                    filter.insert("name".into(), client.name().into());
                    all.push(Value::Object(filter));
                }
                (_, Some(name)) => {
                    let text = format!("net client({name}) doesn't support rx-filter querying");
                    return Err(Error::generic(text));
                }
                _ => {}
            }
        }
        Ok(json!(all))
    }

    /// `info network`.
    pub fn describe(&self) -> String {
        let line = |c: &Client| {
            let mut text = format!("{}: index=0,type={},{}\n", c.name(), c.kind(), c.info());
            for (n, filter) in c.filters().iter().enumerate() {
                text.push_str(if n == 0 { "filters:\n" } else { "" });
                text.push_str(&filter.describe());
            }
            text
        };
        let mut out = String::new();
        let clients = self.clients();
        let hubs: BTreeSet<i64> = clients.iter().filter_map(|c| c.end()?.hub()).collect();
        for hub in &hubs {
            let _ = writeln!(out, "hub {hub}");
            for port in clients.iter().filter(|c| c.end().and_then(|e| e.hub()) == Some(*hub)) {
                let peer = port.peer().map_or_else(|| "\n".into(), |p| line(&p));
                let _ = write!(out, " \\ {}: {peer}", port.name());
            }
        }
        let in_hub = |c: &Client| c.peer().and_then(|p| p.end()?.hub()).is_some();
        for client in clients.iter().filter(|c| c.end().and_then(|e| e.hub()).is_none() && !in_hub(c)) {
            match client.peer() {
                Some(peer) if client.is_nic() => {
                    let _ = write!(out, "{} \\ {}", line(client), line(&peer));
                }
                Some(peer) if peer.is_nic() => {}
                _ => out.push_str(&line(client)),
            }
        }
        out
    }

    /// An address for a card that was given none; or notes that one is taken.
    pub(crate) fn claim_mac(&self, wanted: MacAddr) -> MacAddr {
        let mut s = self.inner.lock();
        let [b0, b1, b2, b3, b4, first] = MAC_BASE;
        if !wanted.is_zero() {
            let [w0, w1, w2, w3, w4, last] = wanted.0;
            if [w0, w1, w2, w3, w4] == [b0, b1, b2, b3, b4] {
                s.macs.insert(last);
            }
            return wanted;
        }
        let last = (first..=0xfe).find(|n| !s.macs.contains(n)).unwrap_or(0xff);
        s.macs.insert(last);
        MacAddr([b0, b1, b2, b3, b4, last])
    }

    /// A card is gone; its address may be given again.
    pub(crate) fn release_mac(&self, mac: MacAddr) {
        let [.., last] = mac.0;
        if mac == MacAddr([0x52, 0x54, 0x00, 0x12, 0x34, last]) {
            self.inner.lock().macs.remove(&last);
        }
    }

    /// A name for a client of a kind that the user did not name: `e1000.0`, `hub0port0`.
    pub(crate) fn free_name(&self, make: impl Fn(usize) -> String) -> String {
        let taken: BTreeSet<String> = self.clients().iter().map(|c| c.name().to_owned()).collect();
        (0..).map(make).find(|n| !taken.contains(n)).unwrap_or_default()
    }

    /// Ends everything: sockets, host programs.
    pub fn close(&self) {
        for client in self.clients() {
            self.remove(&client);
        }
    }
}

/// QEMU's error for a name that nothing has.
pub(crate) fn device_not_found(name: &str) -> Error {
    Error::DeviceNotFound(name.into())
}
