//! PS/2 keyboard and mouse as devices, types `ps2-kbd` and `ps2-mouse`. Registers: [`super::ps2_kbd_regs`],
//! [`super::ps2_mouse_regs`]. Their line is high while bytes wait.

use super::{ps2_kbd_regs::Ps2KbdRegs, ps2_mouse_regs::Ps2MouseRegs};
use hw_core::{DeviceClass, DeviceImpl, IrqOut, Locked, MachineCell, Phase, SysBusDevice};
use qom::{Object, Result};
use ui::{
    input::{Keyboard, Pointer, PointerEvent},
    keys::Key,
};

/// Type `ps2-device`: one end of a PS/2 link.
#[derive(Object)]
#[qom(name = "ps2-device", parent = SysBusDevice, abstract, instance_init = Ps2Device::instance_init)]
pub struct Ps2Device {
    parent: SysBusDevice,
    irq: IrqOut,
}

impl Ps2Device {
    fn instance_init(&self) -> Result<()> {
        self.gpio_out("", &self.irq);
        Ok(())
    }
}

/// Type `ps2-kbd`.
#[derive(Object)]
#[qom(name = "ps2-kbd", parent = Ps2Device, methods(DeviceClass), interfaces(dyn Keyboard))]
pub struct Ps2Kbd {
    parent: Ps2Device,
    #[state]
    regs: MachineCell<Ps2KbdRegs>,
}

impl Ps2Kbd {
    fn change<R>(&self, m: &mut Locked, f: impl FnOnce(&mut Ps2KbdRegs) -> R) -> R {
        let regs = self.regs.rw(m);
        let (r, pending) = (f(regs), regs.pending());
        self.irq.set(m, pending);
        r
    }

    /// The controller reads a byte.
    pub fn read(&self, m: &mut Locked) -> u8 {
        // The line falls for each byte, so that the controller sees the next one.
        self.irq.set(m, false);
        self.change(m, Ps2KbdRegs::read)
    }

    /// The controller sends a byte.
    pub fn write(&self, m: &mut Locked, val: u8) {
        self.change(m, |r| r.write(val));
    }

    /// The controller translates from now on, or no more.
    pub fn set_translation(&self, m: &mut Locked, on: bool) {
        self.regs.rw(m).set_translation(on);
    }
}

impl Keyboard for Ps2Kbd {
    fn name(&self) -> &'static str {
        "QEMU PS/2 Keyboard"
    }

    fn key(&self, m: &mut Locked, key: &'static Key, down: bool) {
        self.change(m, |r| r.key(key, down));
    }
}

impl DeviceImpl for Ps2Kbd {
    fn reset(&self, m: &mut Locked, phase: Phase) {
        match phase {
            Phase::Enter => *self.regs.rw(m) = Ps2KbdRegs::default(),
            Phase::Hold => self.irq.set(m, false),
            Phase::Exit => {}
        }
        self.parent_reset(m, phase);
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        self.change(m, |_| ());
        self.parent_post_load(m)
    }
}

/// Type `ps2-mouse`.
#[derive(Object)]
#[qom(name = "ps2-mouse", parent = Ps2Device, methods(DeviceClass), interfaces(dyn Pointer))]
pub struct Ps2Mouse {
    parent: Ps2Device,
    #[state]
    regs: MachineCell<Ps2MouseRegs>,
}

impl Ps2Mouse {
    fn change<R>(&self, m: &mut Locked, f: impl FnOnce(&mut Ps2MouseRegs) -> R) -> R {
        let regs = self.regs.rw(m);
        let (r, pending) = (f(regs), regs.pending());
        self.irq.set(m, pending);
        r
    }

    /// The controller reads a byte.
    pub fn read(&self, m: &mut Locked) -> u8 {
        self.irq.set(m, false);
        self.change(m, Ps2MouseRegs::read)
    }

    /// The controller sends a byte.
    pub fn write(&self, m: &mut Locked, val: u8) {
        self.change(m, |r| r.write(val));
    }
}

impl Ps2Mouse {
    /// Interrupts the driver on behalf of another pointer.
    pub fn fake_event(&self, m: &mut Locked) {
        self.change(m, Ps2MouseRegs::fake_event);
    }
}

impl Pointer for Ps2Mouse {
    fn name(&self) -> &'static str {
        "QEMU PS/2 Mouse"
    }

    fn is_absolute(&self, _m: &mut Locked) -> bool {
        false
    }

    fn pointer(&self, m: &mut Locked, event: PointerEvent) {
        self.change(m, |r| r.event(event.x, event.y, event.wheel, event.buttons));
    }
}

impl DeviceImpl for Ps2Mouse {
    fn reset(&self, m: &mut Locked, phase: Phase) {
        match phase {
            Phase::Enter => *self.regs.rw(m) = Ps2MouseRegs::default(),
            Phase::Hold => self.irq.set(m, false),
            Phase::Exit => {}
        }
        self.parent_reset(m, phase);
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        self.change(m, |_| ());
        self.parent_post_load(m)
    }
}
