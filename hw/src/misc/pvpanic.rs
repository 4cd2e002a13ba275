//! A device by which a guest says that it panicked: types `pvpanic` (a port) and `pvpanic-pci` (a byte of memory).
//! Source: QEMU's `docs/specs/pvpanic.rst`: reading tells which events there are, writing reports one.

use super::guest_events::{GuestEvent, GuestEvents};
use crate::i386::machine::PcMachine;
use hw_core::{
    Category, Device, DeviceClass, DeviceImpl, IsaDevice, Locked, Machine, MemoryRegion, Ops, Sizes,
    pci::{BarKind, PciDevice, PciDeviceClass},
};
use parking_lot::RwLock;
use qom::{Object, Prop, Ref, Result};

/// The events, as bits.
const PANICKED: u8 = 0x01;
const CRASH_LOADED: u8 = 0x02;
const SHUTDOWN: u8 = 0x04;
const ALL: u8 = PANICKED | CRASH_LOADED | SHUTDOWN;

/// Bytes of the function's window: the least that PCI has (3.0 §6.2.5.1), where QEMU shows two.
const BAR: u64 = 16;

/// A guest writes `val`.
fn report(device: &Device, val: u64) {
    let val = val as u8;
    if val & !ALL != 0 {
        tracing::debug!(target: "guest_errors", "pvpanic: unknown events {val:#x}");
    }
    let event = match val {
        v if v & PANICKED != 0 => GuestEvent::Panicked,
        v if v & CRASH_LOADED != 0 => GuestEvent::CrashLoaded,
        v if v & SHUTDOWN != 0 => GuestEvent::PvShutdown,
        _ => return,
    };
    GuestEvents::report(device, event);
}

/// Type `pvpanic`.
#[derive(Object)]
#[qom(name = "pvpanic", parent = IsaDevice, methods(DeviceClass), class_init = PvPanic::class_init,
    instance_init = PvPanic::instance_init, interfaces("acpi-dev-aml-interface"))]
pub struct PvPanic {
    parent: IsaDevice,
    #[property(default = 0x505)]
    ioport: Prop<u16>,
    #[property(default = ALL)]
    events: Prop<u8>,
    region: RwLock<Option<MemoryRegion>>,
}

impl PvPanic {
    fn class_init(c: &mut qom::Class) {
        c.edit::<DeviceClass>().categories = vec![Category::Misc];
    }

    fn instance_init(&self) -> Result<()> {
        let ops: Ops<PvPanic> = Ops {
            read: |d, _, _, _| d.events.get().into(),
            write: |d, _, _, _, v| report(d, v),
            imp: Sizes::new(1, 1),
            ..Ops::default()
        };
        *self.region.write() = Some(MemoryRegion::io(self, "pvpanic", 1, ops));
        Ok(())
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.ioport.get()
    }
}

impl DeviceImpl for PvPanic {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        let region = self.region.read().clone().ok_or("pvpanic without its region")?;
        self.map_io(m, self.ioport.get().into(), &region)?;
        let machine = self.scope().root().child("machine").and_then(Ref::<Machine>::new);
        let fw_cfg = machine.and_then(|machine| PcMachine::of_machine(&machine)?.fw_cfg());
        if let Some(fw_cfg) = fw_cfg {
            // (Of several, the first is told; one that comes after it was taken out finds the file there.)
            _ = fw_cfg.add_file("etc/pvpanic-port", self.ioport.get().to_le_bytes());
        }
        Ok(())
    }

    fn unrealize(&self, m: &mut Locked) {
        self.unmap_io(m);
        self.parent_unrealize(m);
    }
}

/// Type `pvpanic-pci`.
#[derive(Object)]
#[qom(name = "pvpanic-pci", parent = PciDevice, methods(DeviceClass), class_init = PvPanicPci::class_init,
    interfaces("conventional-pci-device"))]
pub struct PvPanicPci {
    parent: PciDevice,
    #[property(default = ALL)]
    events: Prop<u8>,
}

impl PvPanicPci {
    fn class_init(c: &mut qom::Class) {
        c.edit::<DeviceClass>().categories = vec![Category::Misc];
        let p = c.edit::<PciDeviceClass>();
        (p.vendor_id, p.device_id, p.revision, p.class_id) = (0x1b36, 0x0011, 0x01, 0x0880);
    }
}

impl DeviceImpl for PvPanicPci {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        let ops: Ops<PvPanicPci> = Ops {
            read: |d, _, _, _| d.events.get().into(),
            write: |d, _, _, _, v| report(d, v),
            imp: Sizes::new(1, 1),
            ..Ops::default()
        };
        let bar = MemoryRegion::io(self, "pvpanic", BAR, ops);
        self.register_bar(m, 0, BarKind::Mem32, &bar)
    }
}
