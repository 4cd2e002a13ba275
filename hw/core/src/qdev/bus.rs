//! Type `bus`: what devices are on.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::RwLock;
use qom::{Base, Class, Error, Handle, Kind, Level, Link, ObjRef, Object, Property, Ref, Result};

use super::device::Device;
use super::hotplug::HotplugHandler;
use super::imp::as_level;
use super::reset::{Phase, ResetState};
use crate::core::Core;
use crate::locked::Locked;

/// Class struct of buses.
#[derive(Clone)]
pub struct BusClass {
    /// See [`BusImpl::reset`].
    pub reset: fn(&dyn Object, &mut Locked, Phase),
    /// See [`BusImpl::check_address`].
    pub check_address: fn(&dyn Object, &Device) -> Result<()>,
    /// See [`BusImpl::dev_path`].
    pub dev_path: fn(&dyn Object, &Device) -> Option<String>,
    /// See [`BusImpl::fw_dev_path`].
    pub fw_dev_path: fn(&dyn Object, &Device) -> Option<String>,
    /// See [`BusImpl::is_full`].
    pub is_full: fn(&dyn Object) -> bool,
    /// Most devices on the bus; 0 for no limit.
    pub max_dev: usize,
}

impl Default for BusClass {
    fn default() -> Self {
        Self {
            reset: |_, _, _| (),
            check_address: |_, _| Ok(()),
            dev_path: |_, _| None,
            fw_dev_path: |_, _| None,
            is_full: |_| false,
            max_dev: 0,
        }
    }
}

/// What a bus type does; enter it into the class with `#[qom(methods(BusClass))]`.
pub trait BusImpl: Level {
    /// One phase of a reset of the bus itself, after its devices.
    fn reset(&self, _m: &mut Locked, _phase: Phase) {}

    /// Whether the device's address, as its properties say, is possible and free.
    ///
    /// # Errors
    /// Why not.
    fn check_address(&self, _dev: &Device) -> Result<()> {
        Ok(())
    }

    /// The device's stable name on the bus, for snapshots (`0000:00:03.0`).
    fn dev_path(&self, _dev: &Device) -> Option<String> {
        None
    }

    /// The device's component of a firmware path (`ethernet@3`).
    fn fw_dev_path(&self, _dev: &Device) -> Option<String> {
        None
    }

    /// Whether no device fits any more, beyond [`BusClass::max_dev`].
    fn is_full(&self) -> bool {
        false
    }
}

impl BusClass {
    /// Enters the methods of `T` into its class.
    pub fn implement<T: BusImpl>(&mut self) {
        self.reset = |o, m, phase| as_level(o, |t: &T| t.reset(m, phase));
        self.check_address = |o, d| as_level(o, |t: &T| t.check_address(d));
        self.dev_path = |o, d| as_level(o, |t: &T| t.dev_path(d));
        self.fw_dev_path = |o, d| as_level(o, |t: &T| t.fw_dev_path(d));
        self.is_full = |o| as_level(o, |t: &T| t.is_full());
    }
}

/// Type `bus`.
#[derive(qom::Object)]
#[qom(name = "bus", parent = Base, abstract, interfaces("resettable"), class_init = Bus::class_init)]
pub struct Bus {
    parent: Base,
    name: OnceLock<String>,
    device: RwLock<Handle<Device>>,
    /// Number under which the bus shows it, and the device.
    devices: RwLock<Vec<(u32, Handle<Device>)>>,
    next: AtomicU32,
    realized: AtomicBool,
    #[property(name = "hotplug-handler", live)]
    handler: Link<dyn HotplugHandler>,
    reset: ResetState,
}

impl Bus {
    fn class_init(c: &mut Class) {
        c.edit::<BusClass>();
        c.property(Property::computed::<bool>("realized").getter(|b: &Bus| Ok(b.is_realized())));
    }

    /// A bus of type `type_name` below `parent`, as its child under the bus's name. Without a name it is called
    /// `ID.N` after the parent's id, or the lower-case type name and a number.
    ///
    /// # Errors
    /// Unknown type; a name that is taken.
    pub fn create<T: Kind>(parent: &Device, type_name: &str, name: Option<&str>) -> Result<Ref<T>> {
        let n = parent.bus_count();
        let name = match (name, parent.id()) {
            (Some(name), _) => name.to_owned(),
            (None, Some(id)) => format!("{id}.{n}"),
            (None, None) => {
                let stem = type_name.to_lowercase();
                format!("{stem}.{}", Core::of(parent).next_bus_number(type_name))
            }
        };
        let bus: Ref<T> = parent.scope().object_new_as(type_name)?;
        let o = Ref::object(&bus);
        let b = qom::of_class::<Bus>(&**o);
        _ = b.name.set(name.clone());
        *b.device.write() = Handle::new(&parent.object()).unwrap_or_default();
        parent.add_child(&name, o)?;
        if let Some(handle) = Handle::new(o) {
            parent.add_child_bus(handle);
        }
        Ok(bus)
    }

    /// A bus without a parent device (the main system bus).
    pub(crate) fn create_root(scope: &std::sync::Arc<qom::Scope>, type_name: &str, name: &str) -> Result<Ref<Bus>> {
        let bus: Ref<Bus> = scope.object_new_as(type_name)?;
        _ = bus.name.set(name.to_owned());
        Ok(bus)
    }

    /// The bus part of its class.
    pub fn class_of(&self) -> &'static BusClass {
        self.class().get().expect("classes below 'bus' have a BusClass")
    }

    pub(super) fn reset_state(&self) -> &ResetState {
        &self.reset
    }

    /// Name, such as `pci.0`.
    pub fn bus_name(&self) -> &str {
        self.name.get().map_or("", String::as_str)
    }

    /// The device that provides the bus.
    pub fn parent_device(&self) -> Option<Ref<Device>> {
        self.device.read().clone().upgrade()
    }

    /// The devices and their numbers, oldest first.
    pub fn devices(&self) -> Vec<(u32, ObjRef)> {
        let devices = self.devices.read();
        devices.iter().filter_map(|(n, d)| Some((*n, Ref::into_object(d.upgrade()?)))).collect()
    }

    /// The bus is used.
    pub fn is_realized(&self) -> bool {
        self.realized.load(Ordering::Relaxed)
    }

    pub(crate) fn realize(&self, _m: &mut Locked) {
        self.realized.store(true, Ordering::Relaxed);
    }

    pub(crate) fn unrealize(&self, m: &mut Locked) {
        if self.realized.swap(false, Ordering::Relaxed) {
            self.devices().iter().filter_map(|(_, d)| d.cast::<Device>()).for_each(|d| d.qdev_unrealize(m));
        }
    }

    /// Sets who is asked about devices on this bus; buses without a handler do not allow hotplug.
    ///
    /// # Errors
    /// The object is not a hotplug handler.
    pub fn set_hotplug_handler(&self, handler: Option<&ObjRef>) -> Result<()> {
        self.handler.set(handler)
    }

    /// Who is asked about devices on this bus.
    pub fn hotplug_handler(&self) -> Option<ObjRef> {
        self.handler.get().map(Ref::into_object)
    }

    /// Whether devices may come and go.
    pub fn is_hotpluggable(&self) -> bool {
        self.hotplug_handler().is_some()
    }

    /// Whether no device fits any more.
    pub fn is_full(&self) -> bool {
        let c = self.class_of();
        (c.max_dev != 0 && self.devices().len() >= c.max_dev) || (c.is_full)(&*self.object())
    }

    pub(super) fn check_address(&self, dev: &Device) -> Result<()> {
        let c = self.class_of();
        if c.max_dev != 0 && self.devices().len() >= c.max_dev {
            return Err(Error::generic(format!("Bus '{}' is full", self.bus_name())));
        }
        (c.check_address)(&*self.object(), dev)
    }

    pub(super) fn add_device(&self, dev: &ObjRef) {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        self.devices.write().push((n, Handle::new(dev).unwrap_or_default()));
        let target = std::sync::Arc::downgrade(dev);
        let property = Property::new(format!("child[{n}]"), format!("link<{}>", dev.type_name()))
            .reader(move |_| Ok(target.upgrade().map_or_else(String::new, |d| d.path()).into()));
        if let Err(e) = self.add_property(property) {
            tracing::error!(bus = self.bus_name(), "cannot show a device: {e}");
        }
    }

    pub(super) fn remove_device(&self, dev: &ObjRef) {
        let mut gone = vec![];
        self.devices.write().retain(|(n, d)| {
            let keep = d.upgrade().is_some_and(|d| !std::sync::Arc::ptr_eq(Ref::object(&d), dev));
            if !keep {
                gone.push(*n);
            }
            keep
        });
        for n in gone {
            _ = self.del_property(&format!("child[{n}]"));
        }
    }

    /// The device's stable name on the bus.
    pub fn dev_path(&self, dev: &Device) -> Option<String> {
        (self.class_of().dev_path)(&*self.object(), dev)
    }

    /// The device's component of a firmware path.
    pub fn fw_dev_path(&self, dev: &Device) -> Option<String> {
        (self.class_of().fw_dev_path)(&*self.object(), dev)
    }
}
