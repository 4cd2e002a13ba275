//! Debug console port, type `isa-debugcon`: bytes written go to a character device; reads give a constant by which firmware knows
//! that it is there. Source: the port E9 hack of Bochs.

use chardev::CharFrontend;
use hw_core::{Category, DeviceClass, DeviceImpl, IsaDevice, Locked, MemoryRegion, Ops, Sizes};
use qom::{Error, Object, Prop, Result};

/// Type `isa-debugcon`.
#[derive(Object)]
#[qom(name = "isa-debugcon", parent = IsaDevice, methods(DeviceClass), class_init = DebugCon::class_init)]
pub struct DebugCon {
    parent: IsaDevice,
    #[property(default = 0xe9)]
    iobase: Prop<u32>,
    #[property(default = 0xe9)]
    readback: Prop<u32>,
    #[property]
    chardev: CharFrontend,
}

impl DebugCon {
    fn class_init(c: &mut qom::Class) {
        c.edit::<DeviceClass>().categories = vec![Category::Misc];
    }

    fn read(&self, _m: &mut Locked, _off: u64, _size: u32) -> u64 {
        self.readback.get().into()
    }

    fn write(&self, _m: &mut Locked, _off: u64, _size: u32, val: u64) {
        self.chardev.write_all(&[val as u8]);
    }
}

impl DeviceImpl for DebugCon {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        if !self.chardev.is_attached() {
            return Err(Error::generic("Can't create debugcon device, empty char device"));
        }
        let ops = Ops { read: Self::read, write: Self::write, imp: Sizes::new(1, 1), ..Ops::default() };
        let region = MemoryRegion::io(self, "isa-debugcon", 1, ops);
        self.map_io(m, self.iobase.get().into(), &region)
    }

    fn unrealize(&self, m: &mut Locked) {
        self.unmap_io(m);
        self.parent_unrealize(m);
    }
}
