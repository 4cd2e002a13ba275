//! The `drive` property of devices.

use crate::backend::Backend;
use crate::blocks::Blocks;
use crate::node::Perm;
use hw_core::{Core, Device};
use parking_lot::Mutex;
use qom::{Error, Level, Property, PropertyField, Result};
use std::sync::Arc;

/// A device's drive; nothing until the property is set.
#[derive(Default)]
pub struct DriveSlot(Mutex<Option<Arc<Backend>>>);

impl DriveSlot {
    /// The drive.
    pub fn get(&self) -> Option<Arc<Backend>> {
        self.0.lock().clone()
    }

    /// Gives the device a drive.
    pub fn set(&self, backend: Arc<Backend>) {
        *self.0.lock() = Some(backend);
    }

    /// The device takes its drive, at realize.
    ///
    /// # Errors
    /// It has none, another device has it, or another user of the image is in the way.
    pub fn claim(&self, device: &Device, removable: bool, share_rw: bool) -> Result<Arc<Backend>> {
        let backend = self.get().ok_or_else(|| Error::generic("drive property not set"))?;
        let path = device.object().path();
        let qdev = device.id().unwrap_or_else(|| path.clone());
        backend.attach(&qdev, &path, removable)?;
        let mut shared = Perm::READ | Perm::WRITE_UNCHANGED;
        // A disk may grow while it is used; a medium that can be changed keeps its size.
        shared.set(Perm::RESIZE, !removable);
        shared.set(Perm::WRITE, share_rw);
        if let Err(e) = backend.set_perms(Perm::READ | Perm::WRITE, shared) {
            backend.detach();
            return Err(e);
        }
        Ok(backend)
    }

    /// The device lets go of its drive.
    pub fn release(&self) {
        if let Some(backend) = self.get() {
            backend.detach();
        }
    }
}

impl PropertyField for DriveSlot {
    /// A `str` property that takes the name of a drive or of a node.
    fn property<O: Level>(name: &'static str, f: fn(&O) -> &Self) -> Property {
        Property::computed::<String>(name)
            .getter(move |o: &O| {
                let backend = f(o).get();
                Ok(backend.map_or_else(String::new, |b| {
                    let named = Some(b.name().to_owned()).filter(|n| !n.is_empty());
                    named.or_else(|| b.root().map(|n| n.name().to_owned())).unwrap_or_default()
                }))
            })
            .setter(move |o: &O, id: String| {
                let base = o.base();
                let at = format!("{}.{name}", base.type_name());
                let blocks = Blocks::of(Core::of(&*base.object()));
                let backend = match (blocks.backend(&id), blocks.find_node(&id)) {
                    (Some(b), _) if b.is_attached() => {
                        return Err(Error::generic(format!("Property '{at}' can't take value '{id}', it's in use")));
                    }
                    (Some(b), _) => b,
                    (None, Some(node)) => blocks.anonymous(Some(&node))?,
                    (None, None) => {
                        return Err(Error::generic(format!("Property '{at}' can't find value '{id}'")));
                    }
                };
                f(o).set(backend);
                Ok(())
            })
            .describe("Node name or ID of a block device to use as a backend")
    }
}
