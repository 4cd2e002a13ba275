//! Type `device`: realize and unrealize, place in the tree and on a bus.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use qom::{Base, Class, Error, Handle, Input, Kind, ObjRef, Object, PropType, Property, Ref, Result};

use super::bus::Bus;
use super::gpio::Gpios;
use super::hotplug::HotplugHandler;
use super::imp::device_class;
use super::reset::{Phase, ResetState, reset_object};
use crate::core::Core;
use crate::events::DeletedDevice;
use crate::locked::Locked;
use crate::machine::Machine;

/// Groups of `-device help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Category {
    Bridge,
    Usb,
    Storage,
    Network,
    Input,
    Display,
    Sound,
    Misc,
    Cpu,
    Watchdog,
}

impl Category {
    /// Heading of the group.
    pub fn name(self) -> &'static str {
        match self {
            Category::Bridge => "Controller/Bridge/Hub",
            Category::Usb => "USB",
            Category::Storage => "Storage",
            Category::Network => "Network",
            Category::Input => "Input",
            Category::Display => "Display",
            Category::Sound => "Sound",
            Category::Misc => "Misc",
            Category::Cpu => "CPU",
            Category::Watchdog => "Watchdog",
        }
    }
}

/// Class struct of devices.
#[derive(Clone)]
pub struct DeviceClass {
    /// See [`DeviceImpl::realize`](super::DeviceImpl::realize).
    pub realize: fn(&dyn Object, &mut Locked) -> Result<()>,
    /// See [`DeviceImpl::unrealize`](super::DeviceImpl::unrealize).
    pub unrealize: fn(&dyn Object, &mut Locked),
    /// See [`DeviceImpl::reset`](super::DeviceImpl::reset).
    pub reset: fn(&dyn Object, &mut Locked, Phase),
    /// See [`DeviceImpl::post_load`](super::DeviceImpl::post_load).
    pub post_load: fn(&dyn Object, &mut Locked) -> Result<()>,
    /// Type of the bus it goes on.
    pub bus_type: Option<&'static str>,
    /// Whether `-device` may create it.
    pub user_creatable: bool,
    /// Whether it may come and go while the machine runs.
    pub hotpluggable: bool,
    /// Groups of `-device help`.
    pub categories: Vec<Category>,
    /// One line for `-device help`.
    pub desc: &'static str,
    /// Another name that `-device` takes.
    pub alias: Option<&'static str>,
    /// Name in firmware paths (boot order); the type name if there is none.
    pub fw_name: Option<&'static str>,
}

impl Default for DeviceClass {
    fn default() -> Self {
        Self {
            realize: |_, _| Ok(()),
            unrealize: |_, _| (),
            reset: |_, _, _| (),
            post_load: |_, _| Ok(()),
            bus_type: None,
            user_creatable: true,
            hotpluggable: true,
            categories: vec![],
            desc: "",
            alias: None,
            fw_name: None,
        }
    }
}

/// Type `device`.
#[derive(qom::Object)]
#[qom(name = "device", parent = Base, abstract, interfaces("resettable", "vmstate-if"),
    class_init = Device::class_init, post_init = Device::post_init)]
pub struct Device {
    parent: Base,
    realized: AtomicBool,
    hotplugged: AtomicBool,
    unplug_pending: AtomicBool,
    id: RwLock<Option<String>>,
    bus: RwLock<Handle<Bus>>,
    child_buses: RwLock<Vec<Handle<Bus>>>,
    gpios: RwLock<Gpios>,
    busy: Arc<AtomicBool>,
    reset: ResetState,
}

impl Device {
    fn class_init(c: &mut Class) {
        c.edit::<DeviceClass>();
        c.property(
            Property::computed::<bool>("realized")
                .getter(|d: &Device| Ok(d.is_realized()))
                .writer(|o, input| {
                    let on = bool::take(input)?;
                    let d = qom::of_class::<Device>(o);
                    if d.core().is_locked_here() {
                        return Err(Error::generic("'realized' cannot be set from inside the machine").into());
                    }
                    let mut m = d.core().lock();
                    if on {
                        d.qdev_realize(&mut m)?
                    } else {
                        d.qdev_unrealize(&mut m)
                    }
                    Ok(())
                })
                .live(),
        );
        c.property(Property::computed::<bool>("hotpluggable").getter(|d: &Device| Ok(d.is_hotpluggable())));
        c.property(Property::computed::<bool>("hotplugged").getter(|d: &Device| Ok(d.is_hotplugged())));
        c.property(Property::new("parent_bus", "link<bus>").reader(|o| {
            let bus = o.cast::<Device>().and_then(Device::bus);
            Ok(bus.map_or_else(String::new, |b| b.path()).into())
        }));
    }

    /// `instance_post_init` of `device`: compat properties and `-global`.
    fn post_init(&self) -> Result<()> {
        self.scope().apply_globals(&*self.object())
    }

    /// The machine's core.
    pub fn core(&self) -> &Core {
        Core::of(self)
    }

    /// The device part of its class.
    pub fn class_of(&self) -> &'static DeviceClass {
        device_class(self.class())
    }

    pub(super) fn gpios(&self) -> &RwLock<Gpios> {
        &self.gpios
    }

    pub(super) fn reset_state(&self) -> &ResetState {
        &self.reset
    }

    /// The flag that all its regions set while it handles an access.
    pub(crate) fn busy(&self) -> Arc<AtomicBool> {
        self.busy.clone()
    }

    /// Whether it is realized.
    pub fn is_realized(&self) -> bool {
        self.realized.load(Ordering::Acquire)
    }

    /// Whether it came after the machine was ready.
    pub fn is_hotplugged(&self) -> bool {
        self.hotplugged.load(Ordering::Relaxed)
    }

    pub(super) fn set_hotplugged(&self) {
        self.hotplugged.store(true, Ordering::Relaxed);
    }

    /// Whether the guest was asked to give it up and has not yet.
    pub fn is_unplug_pending(&self) -> bool {
        self.unplug_pending.load(Ordering::Relaxed)
    }

    /// Notes that the guest was asked to give it up, or refused.
    pub fn set_unplug_pending(&self, on: bool) {
        self.unplug_pending.store(on, Ordering::Relaxed);
    }

    /// Whether it may come and go while the machine runs: class and bus both allow it.
    pub fn is_hotpluggable(&self) -> bool {
        self.class_of().hotpluggable && self.bus().is_none_or(|b| b.is_hotpluggable())
    }

    /// The user's name for it.
    pub fn id(&self) -> Option<String> {
        self.id.read().clone()
    }

    pub(super) fn set_id(&self, id: &str) {
        *self.id.write() = Some(id.to_owned());
    }

    /// Id, or canonical path, or type name: for messages.
    pub fn label(&self) -> String {
        self.id().unwrap_or_else(|| match self.path() {
            p if p.is_empty() => self.type_name().to_owned(),
            p => p,
        })
    }

    /// The bus it is on.
    pub fn bus(&self) -> Option<Ref<Bus>> {
        self.bus.read().clone().upgrade()
    }

    /// The bus it is on, as its own type.
    pub fn bus_as<T: Kind>(&self) -> Option<Ref<T>> {
        Ref::new(Ref::into_object(self.bus()?))
    }

    /// Its buses.
    pub fn child_buses(&self) -> Vec<ObjRef> {
        self.child_buses.read().iter().filter_map(Handle::upgrade).map(Ref::into_object).collect()
    }

    pub(super) fn add_child_bus(&self, bus: Handle<Bus>) -> usize {
        let mut buses = self.child_buses.write();
        buses.push(bus);
        buses.len() - 1
    }

    /// Number of buses it has or had.
    pub(super) fn bus_count(&self) -> usize {
        self.child_buses.read().len()
    }

    /// Puts the device, not yet realized, on `bus`.
    ///
    /// # Errors
    /// The bus does not take it.
    pub fn set_bus(&self, bus: &Ref<Bus>) -> Result<()> {
        let o = self.object();
        bus.check_address(self)?;
        if let Some(old) = self.bus() {
            old.remove_device(&o);
        }
        bus.add_device(&o);
        *self.bus.write() = Handle::new(Ref::object(bus)).unwrap_or_default();
        Ok(())
    }

    /// Puts the device on `bus` and realizes it; after an error it is off the bus again.
    ///
    /// # Errors
    /// As [`Device::qdev_realize`].
    pub fn realize_on(&self, m: &mut Locked, bus: &Ref<Bus>) -> Result<()> {
        self.set_bus(bus)?;
        self.qdev_realize(m).inspect_err(|_| self.leave_bus())
    }

    fn leave_bus(&self) {
        if let Some(bus) = self.bus() {
            bus.remove_device(&self.object());
        }
        *self.bus.write() = Handle::default();
    }

    /// Who is asked and told about plugging and unplugging it: the machine's choice, else the bus's.
    pub fn hotplug_handler(&self) -> Option<ObjRef> {
        let machine = Machine::of(self.scope());
        machine.and_then(|m| m.hotplug_handler(self)).or_else(|| self.bus().and_then(|b| b.hotplug_handler()))
    }

    /// Makes the device work. Without a parent it becomes `/machine/unattached/device[*]`. Does nothing if it is realized.
    ///
    /// # Errors
    /// What the device, its handler or its bus say; nothing of it is left then.
    pub fn qdev_realize(&self, m: &mut Locked) -> Result<()> {
        if self.is_realized() {
            return Ok(());
        }
        let class = self.class_of();
        if self.is_hotplugged() && !class.hotpluggable {
            let what = format!("Device '{}' does not support hotplugging", self.type_name());
            return Err(Error::generic(what));
        }
        let o = self.object();
        let placed = self.parent().is_none();
        if placed {
            self.scope().container("/machine/unattached")?.add_child("device[*]", &o)?;
        }
        self.realize_in_place(&o, m).inspect_err(|_| {
            self.thaw();
            if placed {
                o.unparent();
            }
        })
    }

    fn realize_in_place(&self, o: &ObjRef, m: &mut Locked) -> Result<()> {
        let class = self.class_of();
        let handler = self.hotplug_handler();
        let handler = handler.as_ref().and_then(|h| h.interface::<dyn HotplugHandler>());
        if let Some(h) = handler {
            h.pre_plug(m, self)?;
        }
        (class.realize)(&**o, m)?;
        self.freeze();
        for bus in self.child_buses() {
            if let Some(b) = bus.cast::<Bus>() {
                b.realize(m);
            }
        }
        if self.is_hotplugged() {
            reset_object(o, m);
        }
        self.set_unplug_pending(false);
        if let Some(Err(e)) = handler.map(|h| h.plug(m, self)) {
            self.undo(o, m);
            return Err(e);
        }
        self.realized.store(true, Ordering::Release);
        Ok(())
    }

    fn undo(&self, o: &ObjRef, m: &mut Locked) {
        for bus in self.child_buses() {
            if let Some(b) = bus.cast::<Bus>() {
                b.unrealize(m);
            }
        }
        (self.class_of().unrealize)(&**o, m);
        self.thaw();
    }

    /// Undoes [`Device::qdev_realize`], first for everything on its buses.
    pub fn qdev_unrealize(&self, m: &mut Locked) {
        if self.realized.swap(false, Ordering::AcqRel) {
            self.undo(&self.object(), m);
        }
    }

    /// Takes the device out of the machine: unrealized, off its bus, out of the tree, with everything on its buses.
    pub fn remove(&self, m: &mut Locked) {
        let (id, path, was_realized) = (self.id(), self.path(), self.is_realized());
        self.qdev_unrealize(m);
        for bus in self.child_buses() {
            if let Some(b) = bus.cast::<Bus>() {
                b.devices().iter().filter_map(|(_, d)| d.cast::<Device>()).for_each(|d| d.remove(m));
            }
            bus.unparent();
        }
        self.leave_bus();
        if was_realized {
            self.core().events.device_deleted.notify(m, &DeletedDevice { id, path });
        }
        self.unparent();
    }

    /// Path by which firmware names the device in a boot order (`/pci@i0cf8/ide@1,1/drive@0/disk@0`): the components
    /// that the buses above it know.
    pub fn fw_path(&self) -> String {
        let Some(bus) = self.bus() else { return String::new() };
        let above = bus.parent_device().map(|d| d.fw_path()).unwrap_or_default();
        match bus.fw_dev_path(self) {
            Some(part) => format!("{above}/{part}"),
            None => above,
        }
    }

    /// Sets a property from text, as board code does: the device's error names it.
    ///
    /// # Errors
    /// As [`Base::set_str`].
    pub fn with_str(&self, name: &str, text: &str) -> Result<&Self> {
        self.set_input(name, Input::Text(text))?;
        Ok(self)
    }
}
