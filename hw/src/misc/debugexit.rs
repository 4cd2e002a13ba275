//! Exit by a port write, type `isa-debug-exit`: writing `v` ends the process with status `v << 1 | 1`. For test guests.
//! Source: QEMU's documented behaviour of the device; reads give 0.

use hw_core::{Category, DeviceClass, DeviceImpl, IsaDevice, Locked, MemoryRegion, Ops, Request, ShutdownCause, Sizes};
use qom::{Error, Object, Prop, Result};

/// Type `isa-debug-exit`.
#[derive(Object)]
#[qom(name = "isa-debug-exit", parent = IsaDevice, methods(DeviceClass), class_init = DebugExit::class_init)]
pub struct DebugExit {
    parent: IsaDevice,
    #[property(default = 0x501)]
    iobase: Prop<u32>,
    #[property(default = 2)]
    iosize: Prop<u32>,
}

impl DebugExit {
    fn class_init(c: &mut qom::Class) {
        c.edit::<DeviceClass>().categories = vec![Category::Misc];
    }

    fn write(&self, m: &mut Locked, _off: u64, _size: u32, val: u64) {
        let status = (val as i32) << 1 | 1;
        self.core().requests.set_exit_status(status);
        m.request(Request::Shutdown(ShutdownCause::GuestShutdown));
    }
}

impl DeviceImpl for DebugExit {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        if self.iosize.get() == 0 {
            return Err(Error::generic("isa-debug-exit: property 'iosize' must not be 0"));
        }
        let ops = Ops { write: Self::write, imp: Sizes::new(1, 4), ..Ops::default() };
        let region = MemoryRegion::io(self, "isa-debug-exit", self.iosize.get().into(), ops);
        self.map_io(m, self.iobase.get().into(), &region)
    }

    fn unrealize(&self, m: &mut Locked) {
        self.unmap_io(m);
        self.parent_unrealize(m);
    }
}
