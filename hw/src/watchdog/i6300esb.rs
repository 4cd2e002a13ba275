//! The watchdog of Intel's 6300ESB as a function of its own, type `i6300esb`. Registers: [`super::i6300esb_regs`].

use super::i6300esb_regs::EsbRegs;
use crate::misc::guest_events::{GuestEvent, GuestEvents};
use hw_core::{
    Category, DeviceClass, DeviceImpl, Locked, MachineCell, MemoryRegion, Ops, Phase, Sizes, Timer,
    pci::{BarKind, PciDevice, PciDeviceClass, PciImpl},
};
use qom::{Error, Object, Result};

/// Registers in configuration space.
const CONFIG: u32 = 0x60;
const LOCK: u32 = 0x68;

/// Type `i6300esb`.
#[derive(Object)]
#[qom(name = "i6300esb", parent = PciDevice, methods(DeviceClass, PciDeviceClass), class_init = I6300Esb::class_init,
    instance_init = I6300Esb::instance_init, interfaces("conventional-pci-device"))]
pub struct I6300Esb {
    parent: PciDevice,
    #[state]
    regs: MachineCell<EsbRegs>,
    timer: Timer,
}

impl I6300Esb {
    fn class_init(c: &mut qom::Class) {
        let d = c.edit::<DeviceClass>();
        d.categories = vec![Category::Watchdog];
        d.desc = "Intel 6300ESB";
        let p = c.edit::<PciDeviceClass>();
        (p.vendor_id, p.device_id, p.class_id) = (0x8086, 0x25ab, 0x0880);
    }

    fn instance_init(&self) -> Result<()> {
        self.timer.init(self, |d: &I6300Esb, m| {
            let now = m.clock.now();
            let reboots = d.regs.rw(m).ended(now);
            d.arm(m);
            if reboots {
                GuestEvents::report(d, GuestEvent::Watchdog);
            }
        });
        Ok(())
    }

    fn arm(&self, m: &mut Locked) {
        let at = self.regs.ro(m).ends_at();
        self.timer.arm(m, at);
    }

    fn read(&self, m: &mut Locked, off: u64, size: u32) -> u64 {
        self.regs.ro(m).read(off, size)
    }

    fn write(&self, m: &mut Locked, off: u64, size: u32, val: u64) {
        let now = m.clock.now();
        self.regs.rw(m).write(off, size, val as u32, now);
        self.arm(m);
    }
}

impl PciImpl for I6300Esb {
    fn config_read(&self, m: &mut Locked, at: u32, len: u32) -> u32 {
        match (at, len) {
            (CONFIG, 2) => self.regs.ro(m).config().into(),
            (LOCK, 1) => self.regs.ro(m).lock().into(),
            _ => self.default_config_read(m, at, len),
        }
    }

    fn config_write(&self, m: &mut Locked, at: u32, len: u32, val: u32) {
        let now = m.clock.now();
        match (at, len) {
            (CONFIG, 2) => self.regs.rw(m).set_config(val as u16),
            (LOCK, 1) => {
                self.regs.rw(m).set_lock(val as u8, now);
                self.arm(m);
            }
            _ => self.default_config_write(m, at, len, val),
        }
    }
}

impl DeviceImpl for I6300Esb {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        let any = Sizes::new(1, 4);
        let ops = Ops { read: Self::read, write: Self::write, valid: any, imp: any, ..Ops::default() };
        self.register_bar(m, 0, BarKind::Mem32, &MemoryRegion::io(self, "i6300esb", 0x10, ops))
    }

    fn unrealize(&self, m: &mut Locked) {
        self.timer.arm(m, None);
        self.parent_unrealize(m);
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        if phase == Phase::Enter {
            self.regs.rw(m).reset();
            self.arm(m);
        }
        self.parent_reset(m, phase);
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        self.regs.ro(m).check().map_err(Error::generic)?;
        self.arm(m);
        self.parent_post_load(m)
    }
}
