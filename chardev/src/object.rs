//! The QOM side: types `chardev-…`, objects in `/chardevs`, and the `chardev` property of devices.

use crate::channel::Channel;
use crate::frontend::{CharFrontend, Event, Handlers};
use hw_core::{Core, Locked};
use qom::{Base, Error, Level, Property, PropertyField, Result, Scope, TypeInfo};
use std::sync::{Arc, OnceLock};

/// Any character device as an object; the types differ in name only.
#[derive(qom::Object)]
#[qom(name = "chardev", parent = Base, abstract)]
pub struct Chardev {
    parent: Base,
    channel: OnceLock<Arc<Channel>>,
}

impl Chardev {
    /// The device itself; `None` for an object that was created by type name alone.
    pub fn channel(&self) -> Option<&Arc<Channel>> {
        self.channel.get()
    }
}

/// Kinds, and whether they are made of plain descriptors (`chardev-fd` is their parent).
const KINDS: [(&str, bool); 9] = [
    ("file", true),
    ("mux", false),
    ("null", false),
    ("pipe", true),
    ("pty", false),
    ("ringbuf", false),
    ("socket", false),
    ("stdio", true),
    ("vc", false),
];

qom::register!(|r| {
    r.add(TypeInfo::of::<Chardev>("chardev-fd").set_abstract());
    for (kind, fd) in KINDS {
        let parent = if fd { "chardev-fd" } else { "chardev" };
        r.add(
            TypeInfo::of::<Chardev>(format!("chardev-{kind}")).parent(parent).class_init(move |c| class_init(kind, c)),
        );
    }
    r.add(TypeInfo::of::<Chardev>("chardev-memory").parent("chardev-ringbuf"));
});

fn class_init(kind: &str, c: &mut qom::Class) {
    match kind {
        "socket" => {
            let connected = |o: &Chardev| Ok(o.channel().is_some_and(|c| c.is_open()));
            c.property(Property::computed::<bool>("connected").getter(connected));
        }
        // Without a screen there is nothing that could show another encoding.
        "vc" => c.property(Property::new("encoding", "ChardevVCEncoding").reader(|_| Ok("utf8".into()))),
        _ => {}
    }
}

/// Makes the object of `channel` at `/chardevs/ID`.
///
/// # Errors
/// Something else has the path.
pub fn publish(scope: &Arc<Scope>, channel: &Arc<Channel>) -> Result<()> {
    let o = scope.object_new(&format!("chardev-{}", channel.kind()))?;
    if let Some(c) = o.cast::<Chardev>() {
        let _ = c.channel.set(channel.clone());
    }
    scope.container("/chardevs")?.add_child(channel.label(), &o)?;
    Ok(())
}

/// The channel called `id`.
///
/// # Errors
/// There is none.
pub fn find(scope: &Arc<Scope>, id: &str) -> Result<Arc<Channel>> {
    let o = scope.container("/chardevs")?.child(id);
    let channel = o.as_ref().and_then(|o| o.cast::<Chardev>()).and_then(Chardev::channel).cloned();
    channel.ok_or_else(|| Error::generic(format!("chardev '{id}' not found")))
}

impl PropertyField for CharFrontend {
    /// A `str` property that takes the id of a character device.
    fn property<O: Level>(name: &'static str, f: fn(&O) -> &Self) -> Property {
        Property::computed::<String>(name)
            .getter(move |o: &O| Ok(f(o).channel().map_or_else(String::new, |c| c.label().to_owned())))
            .setter(move |o: &O, id: String| {
                if id.is_empty() {
                    f(o).detach();
                    return Ok(());
                }
                let base = o.base();
                let at = format!("{}.{name}", base.type_name());
                let channel = find(base.scope(), &id)
                    .map_err(|_| Error::generic(format!("Property '{at}' can't find value '{id}'")))?;
                f(o).attach(&channel)
                    .map_err(|_| Error::generic(format!("Property '{at}' can't take value '{id}', it's in use")))
            })
            .describe("ID of a chardev to use as a backend")
    }
}

/// How a device takes input: each function gets the device and the held machine lock.
pub struct DeviceHandlers<T> {
    /// How many bytes it takes now.
    pub can_receive: fn(&T, &mut Locked) -> usize,
    /// Takes bytes, at most that many.
    pub receive: fn(&T, &mut Locked, &[u8]),
    /// Takes an event.
    pub event: fn(&T, &mut Locked, Event),
}

impl<T> Clone for DeviceHandlers<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for DeviceHandlers<T> {}

impl CharFrontend {
    /// [`CharFrontend::set_handlers`] for a device: its functions are called with the machine locked, as long as it lives.
    pub fn set_device_handlers<T: Level>(&self, device: &T, h: DeviceHandlers<T>) {
        let (can, take, event) = (device.this(), device.this(), device.this());
        self.set_handlers(Handlers {
            can_receive: Box::new(move || can.with(|d| (h.can_receive)(d, &mut Core::of(d).lock())).unwrap_or(0)),
            receive: Box::new(move |bytes| _ = take.with(|d| (h.receive)(d, &mut Core::of(d).lock(), bytes))),
            event: Box::new(move |e| _ = event.with(|d| (h.event)(d, &mut Core::of(d).lock(), e))),
        });
    }

    /// Calls `f` on `device` with the machine locked, once, when a write would take bytes again.
    pub fn on_writable_for<T: Level>(&self, device: &T, f: fn(&T, &mut Locked)) {
        let device = device.this();
        self.on_writable(move || _ = device.with(|d| f(d, &mut Core::of(d).lock())));
    }
}
