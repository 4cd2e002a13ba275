//! Screens: the types below `qemu-console`, and the devices that fill them.

use crate::picture::Picture;
use hw_core::{Device, Locked};
use parking_lot::RwLock;
use qom::{Base, Error, Handle, ObjRef, Object, Property, Ref, Result, Scope};
use std::sync::Arc;

/// Interface `graphic-hw`: a device with a screen.
pub trait GraphicHw {
    /// What it shows now.
    fn picture(&self, m: &mut Locked) -> Picture;
}

qom::interface!(dyn GraphicHw, "graphic-hw");

/// Type `qemu-console`.
#[derive(Object)]
#[qom(name = "qemu-console", parent = Base, abstract)]
pub struct Console {
    parent: Base,
}

/// Type `qemu-graphic-console`: the screen of a device.
#[derive(Object)]
#[qom(name = "qemu-graphic-console", parent = Console, class_init = GraphicConsole::class_init)]
pub struct GraphicConsole {
    parent: Console,
    device: RwLock<Handle<Device>>,
}

impl GraphicConsole {
    fn class_init(c: &mut qom::Class) {
        c.property(Property::new("device", "link<device>").reader(|o| {
            let device = o.cast::<GraphicConsole>().and_then(|c| c.device.read().upgrade());
            Ok(device.map_or_else(String::new, |d| d.path()).into())
        }));
        c.property(Property::computed::<u32>("head").getter(|_: &GraphicConsole| Ok(0)));
        c.property(Property::computed::<String>("type").getter(|_: &GraphicConsole| Ok(String::from("graphic"))));
    }

    /// Adds the screen of `device` as `/backend/console[*]`.
    ///
    /// # Errors
    /// The tree refuses it.
    pub fn create(device: &Device) -> Result<ObjRef> {
        let scope = device.scope();
        let console: Ref<GraphicConsole> = scope.object_new_as("qemu-graphic-console")?;
        *console.device.write() = Handle::new(&device.object()).unwrap_or_default();
        let console = Ref::into_object(console);
        scope.container("/backend")?.add_child("console[*]", &console)?;
        Ok(console)
    }

    fn picture(&self, m: &mut Locked) -> Option<Picture> {
        let device = self.device.read().upgrade()?;
        Some(device.object().interface::<dyn GraphicHw>()?.picture(m))
    }
}

/// Type `qemu-text-console`: the screen of a `vc` character device, which follows its window. No display draws it yet.
#[derive(Object)]
#[qom(name = "qemu-text-console", parent = Console)]
pub struct TextConsole {
    parent: Console,
}

/// Type `qemu-fixed-text-console`: one whose size was given.
#[derive(Object)]
#[qom(name = "qemu-fixed-text-console", parent = TextConsole)]
pub struct FixedTextConsole {
    parent: TextConsole,
}

/// Adds the screen of a `vc` character device as `/backend/console[*]`.
///
/// # Errors
/// The tree refuses it.
pub fn create_text_console(scope: &Arc<Scope>, fixed: bool) -> Result<ObjRef> {
    let console = scope.object_new(if fixed { "qemu-fixed-text-console" } else { "qemu-text-console" })?;
    scope.container("/backend")?.add_child("console[*]", &console)?;
    Ok(console)
}

/// A picture of a screen: of the device with this id or path, or of the first screen.
///
/// # Errors
/// There is no such device, it has no screen, or there is no screen at all.
pub fn screendump(scope: &Arc<Scope>, m: &mut Locked, device: Option<&str>) -> Result<Picture> {
    if let Some(name) = device {
        let path = format!("/machine/peripheral/{name}");
        let found = scope.resolve(&path).or_else(|_| scope.resolve(name));
        let found = found.map_err(|_| Error::DeviceNotFound(name.to_owned()))?;
        let hw = found.interface::<dyn GraphicHw>();
        let hw = hw.ok_or_else(|| Error::generic(format!("There is no QemuConsole linked to this device '{name}'")))?;
        return Ok(hw.picture(m));
    }
    let consoles = scope.container("/backend")?.children();
    let mut screens = consoles.iter().filter_map(|(_, o)| o.cast::<GraphicConsole>());
    screens.find_map(|c| c.picture(m)).ok_or_else(|| Error::generic("There is no console to take a screendump from"))
}
