//! `-device`, `device_add`, `device_del`: devices by driver name, with QEMU's checks and texts.

use std::sync::Arc;

use qom::{Class, Error, Input, ObjRef, Ref, Registry, Result, Scope};
use serde_json::{Map, Value};

use super::bus::Bus;
use super::device::{Device, DeviceClass};
use super::hotplug::HotplugHandler;
use crate::core::Core;
use crate::locked::Locked;

/// What to create: `-device driver,id=…,bus=…,prop=…`.
#[derive(Clone, Debug, Default)]
pub struct DeviceAdd<'a> {
    /// Type name or alias.
    pub driver: &'a str,
    /// The user's name for it.
    pub id: Option<&'a str>,
    /// Name or path of the bus.
    pub bus: Option<&'a str>,
    /// Properties, in order.
    pub props: Map<String, Value>,
    /// The leaves of `props` are QEMU's text syntax (a command line), not JSON.
    pub text: bool,
}

/// The class of a driver that users may create, by type name or alias.
///
/// # Errors
/// Not a device, abstract, or not for users.
pub fn device_class_by_name(driver: &str) -> Result<&'static Class> {
    let registry = Registry::global();
    let devices = || registry.list(Some("device"), false).into_iter().filter_map(|t| registry.class(t.name()).ok());
    let alias = |c: &&'static Class| c.get::<DeviceClass>().is_some_and(|d| d.alias == Some(driver));
    let named = registry.class(driver).ok().filter(|c| c.is_a("device"));
    let Some(class) = named.or_else(|| devices().find(alias)) else {
        let usable = devices().filter(|c| c.get::<DeviceClass>().is_some_and(|d| d.user_creatable));
        let near = qom::nearest(driver, usable.map(|c| c.name()));
        let hint = if near.is_empty() { String::new() } else { format!(" (did you mean '{}'?)", near.join("', '")) };
        return Err(Error::generic(format!("'{driver}' is not a valid device model name{hint}")));
    };
    if class.is_abstract() {
        return Err(Error::generic("Parameter 'driver' expects a non-abstract device type"));
    }
    if !class.get::<DeviceClass>().is_some_and(|d| d.user_creatable) {
        return Err(Error::generic("Parameter 'driver' expects a pluggable device type"));
    }
    Ok(class)
}

/// Depth first below `bus`: the first bus of that name and type; without a name, one that is not full if there is any.
fn search(bus: &ObjRef, name: Option<&str>, type_name: Option<&str>) -> Option<ObjRef> {
    let b = bus.cast::<Bus>()?;
    let mut found = None;
    if name.is_none_or(|n| b.bus_name() == n) && type_name.is_none_or(|t| b.is_a(t)) {
        if name.is_some() || !b.is_full() {
            return Some(bus.clone());
        }
        found = Some(bus.clone());
    }
    for (_, dev) in b.devices() {
        for child in dev.cast::<Device>().map(Device::child_buses).unwrap_or_default() {
            match search(&child, name, type_name) {
                Some(b) if name.is_some() || !b.cast::<Bus>().is_some_and(Bus::is_full) => return Some(b),
                other => found = found.or(other),
            }
        }
    }
    found
}

fn as_bus(o: ObjRef) -> Result<Ref<Bus>> {
    Ref::new(o).ok_or_else(|| Error::generic("not a bus"))
}

/// A bus by name (`pci.0`), by path from it (`pci.0/DEVICE/BUS`), or from the main system bus (`/DEVICE/BUS`).
///
/// # Errors
/// Which component was not found.
pub fn find_bus(scope: &Arc<Scope>, path: &str) -> Result<Ref<Bus>> {
    let no_bus = |n: &str| Error::generic(format!("Bus '{n}' not found"));
    let core = scope.ext::<Core>().ok_or_else(|| no_bus(path))?;
    let root = Ref::into_object(core.sysbus().ok_or_else(|| no_bus(path))?);
    let mut parts = path.split('/').filter(|p| !p.is_empty());
    let mut at = match path.strip_prefix('/') {
        Some(_) => root,
        None => {
            let first = parts.next().ok_or_else(|| no_bus(path))?;
            search(&root, Some(first), None).ok_or_else(|| no_bus(first))?
        }
    };
    while let Some(name) = parts.next() {
        let devices = at.cast::<Bus>().map(Bus::devices).unwrap_or_default();
        let dev = devices
            .into_iter()
            .map(|d| d.1)
            .find(|d| d.cast::<Device>().and_then(Device::id).as_deref() == Some(name) || d.type_name() == name);
        let dev = dev.ok_or_else(|| Error::generic(format!("Device '{name}' not found")))?;
        let buses = dev.cast::<Device>().map(Device::child_buses).unwrap_or_default();
        let wanted = parts.next();
        let fits = |b: &&ObjRef| wanted.is_none_or(|w| b.cast::<Bus>().is_some_and(|b| b.bus_name() == w));
        at = match (buses.iter().find(fits), wanted) {
            (Some(b), _) if wanted.is_some() || buses.len() == 1 => b.clone(),
            (_, Some(w)) => return Err(no_bus(w)),
            (None, None) => return Err(Error::generic(format!("Device '{name}' has no child bus"))),
            (Some(_), None) => return Err(Error::generic(format!("Device '{name}' has multiple child buses"))),
        };
    }
    as_bus(at)
}

/// A device by id or canonical path.
///
/// # Errors
/// There is none (class `DeviceNotFound`), or the object is not a device.
pub fn find_device(scope: &Arc<Scope>, id: &str) -> Result<Ref<Device>> {
    let found = match id.starts_with('/') {
        true => scope.resolve(id).ok(),
        false => scope.resolve("/machine/peripheral").ok().and_then(|p| p.child(id)),
    };
    let o = found.ok_or_else(|| Error::DeviceNotFound(id.to_owned()))?;
    Ref::new(o).ok_or_else(|| Error::generic(format!("{id} is not a hotpluggable device")))
}

fn is_identifier(id: &str) -> bool {
    id.starts_with(|c: char| c.is_ascii_alphabetic())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

/// Creates and realizes a device for the user, below `/machine/peripheral` or `/machine/peripheral-anon`.
///
/// # Errors
/// As QEMU words them; nothing is left of the device then.
pub fn device_add(scope: &Arc<Scope>, m: &mut Locked, add: &DeviceAdd<'_>) -> Result<Ref<Device>> {
    let core = scope.ext::<Core>().ok_or("there is no machine")?;
    let class = device_class_by_name(add.driver)?;
    let dc = class.get::<DeviceClass>().ok_or("not a device")?;
    let driver = class.name();
    let hotplug = core.is_ready();
    if hotplug && !dc.hotpluggable {
        return Err(Error::generic("Parameter 'driver' expects a pluggable device type"));
    }
    let bus = match (add.bus, dc.bus_type) {
        (Some(path), wanted) => {
            let bus = find_bus(scope, path)?;
            if !wanted.is_some_and(|w| bus.is_a(w)) {
                return Err(Error::generic(format!("Device '{driver}' can't go on {} bus", bus.type_name())));
            }
            if bus.is_full() {
                return Err(Error::generic(format!("Bus '{path}' is full")));
            }
            Some(bus)
        }
        (None, Some(wanted)) => {
            let found = core.sysbus().and_then(|root| search(Ref::object(&root), None, Some(wanted)));
            let found = found.filter(|b| !b.cast::<Bus>().is_some_and(Bus::is_full));
            let found =
                found.ok_or_else(|| Error::generic(format!("No '{wanted}' bus found for device '{driver}'")))?;
            Some(as_bus(found)?)
        }
        (None, None) => None,
    };
    if let Some(b) = bus.as_ref().filter(|b| hotplug && !b.is_hotpluggable()) {
        return Err(Error::generic(format!("Bus '{}' does not support hotplugging", b.bus_name())));
    }
    if add.id.is_some_and(|id| !is_identifier(id)) {
        return Err(Error::generic(
            "Parameter 'id' expects an identifier (letters, digits, '-', '.', '_', starting with a letter)",
        ));
    }
    let dev: Ref<Device> = scope.object_new_as(driver)?;
    let o = Ref::object(&dev).clone();
    if hotplug {
        dev.set_hotplugged();
    }
    match add.id {
        Some(id) => {
            let peripheral = scope.container("/machine/peripheral")?;
            if peripheral.child(id).is_some() {
                return Err(Error::generic(format!("Duplicate device ID '{id}'")));
            }
            dev.set_id(id);
            peripheral.add_child(id, &o)?;
        }
        None => _ = scope.container("/machine/peripheral-anon")?.add_child("device[*]", &o)?,
    }
    let finish = |m: &mut Locked| {
        for (name, v) in &add.props {
            dev.set_input(name, if add.text { Input::keyval(v) } else { Input::Json(v) })?;
        }
        match &bus {
            Some(b) => dev.realize_on(m, b),
            None => dev.qdev_realize(m),
        }
    };
    if let Err(e) = finish(m) {
        dev.remove(m);
        return Err(e);
    }
    Ok(dev)
}

/// Unplugs a device, or asks the guest to give it up.
///
/// # Errors
/// There is none, it or its bus does not allow it, the handler refuses.
pub fn device_del(scope: &Arc<Scope>, m: &mut Locked, id: &str) -> Result<()> {
    let dev = find_device(scope, id)?;
    if dev.is_unplug_pending() {
        return Err(Error::generic(format!("Device {id} is already in the process of unplug")));
    }
    if let Some(bus) = dev.bus().filter(|b| !b.is_hotpluggable()) {
        return Err(Error::generic(format!("Bus '{}' does not support hotplugging", bus.bus_name())));
    }
    if !dev.class_of().hotpluggable {
        return Err(Error::generic(format!("Device '{}' does not support hotplugging", dev.type_name())));
    }
    let handler = dev.hotplug_handler();
    match handler.as_ref().and_then(|h| h.interface::<dyn HotplugHandler>()) {
        Some(h) if h.asks_guest(&dev) => {
            h.unplug_request(m, &dev)?;
            dev.set_unplug_pending(true);
            Ok(())
        }
        Some(h) => h.unplug(m, &dev),
        None => Err(Error::generic(format!("Device '{}' does not support hotplugging", dev.type_name()))),
    }
}
