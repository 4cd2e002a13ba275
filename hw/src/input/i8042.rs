//! The keyboard controller on the ISA bus, type `i8042`, with its keyboard and mouse. Registers: [`super::i8042_regs`].

use super::{
    i8042_regs::{Action, I8042Regs, Source},
    ps2::{Ps2Kbd, Ps2Mouse},
};
use hw_core::{
    DeviceClass, DeviceImpl, IrqOut, IsaDevice, Locked, MachineCell, MemoryRegion, Ops, Phase, Request, ShutdownCause,
    Sizes,
};
use parking_lot::RwLock;
use qom::{Error, Object, Prop, Ref, Result};
use std::sync::OnceLock;

const DATA: u64 = 0x60;
const COMMAND: u64 = 0x64;

/// Type `i8042`.
#[derive(Object)]
#[qom(name = "i8042", parent = IsaDevice, methods(DeviceClass), class_init = I8042::class_init,
    instance_init = I8042::instance_init)]
pub struct I8042 {
    parent: IsaDevice,
    #[property(default = true)]
    extended_state: Prop<bool>,
    #[property(default = false)]
    kbd_throttle: Prop<bool>,
    #[property(default = 1)]
    kbd_irq: Prop<u8>,
    #[property(default = 12)]
    mouse_irq: Prop<u8>,
    #[state]
    regs: MachineCell<I8042Regs>,
    kbd_out: IrqOut,
    mouse_out: IrqOut,
    a20: IrqOut,
    links: RwLock<Option<(Ref<Ps2Kbd>, Ref<Ps2Mouse>)>>,
    ports: OnceLock<[(u64, MemoryRegion); 2]>,
}

impl I8042 {
    fn class_init(c: &mut qom::Class) {
        let d = c.edit::<DeviceClass>();
        d.categories = vec![hw_core::Category::Input];
    }

    fn instance_init(&self) -> Result<()> {
        let (kbd, mouse) = (self.scope().object_new("ps2-kbd")?, self.scope().object_new("ps2-mouse")?);
        self.object().add_child("ps2kbd", &kbd)?;
        self.object().add_child("ps2mouse", &mouse)?;
        *self.links.write() = Ref::new(kbd).zip(Ref::new(mouse));
        self.gpio_out("a20", &self.a20);
        self.gpio_out("", &self.kbd_out);
        self.gpio_out("", &self.mouse_out);
        let sizes = Sizes::new(1, 1);
        let data = Ops { read: Self::read_data, write: Self::write_data, imp: sizes, ..Ops::default() };
        let command = Ops { read: Self::read_status, write: Self::write_command, imp: sizes, ..Ops::default() };
        _ = self.ports.set([
            (DATA, MemoryRegion::io(self, "i8042-data", 1, data)),
            (COMMAND, MemoryRegion::io(self, "i8042-cmd", 1, command)),
        ]);
        self.gpio_in("ps2-kbd-input-irq", 1, |d: &I8042, m, _, level| d.change(m, |r| r.keyboard_line(level)));
        self.gpio_in("ps2-mouse-input-irq", 1, |d: &I8042, m, _, level| d.change(m, |r| r.aux_line(level)));
        Ok(())
    }

    fn keyboard(&self) -> Option<Ref<Ps2Kbd>> {
        self.links.read().as_ref().map(|l| l.0.clone())
    }

    fn mouse(&self) -> Option<Ref<Ps2Mouse>> {
        self.links.read().as_ref().map(|l| l.1.clone())
    }

    /// Has the mouse interrupt its driver on behalf of another pointer (`vmmouse`).
    pub fn fake_mouse_event(&self, m: &mut Locked) {
        if let Some(mouse) = self.mouse() {
            mouse.fake_event(m);
        }
    }

    /// Changes the registers, then drives the lines.
    fn change<R>(&self, m: &mut Locked, f: impl FnOnce(&mut I8042Regs) -> R) -> R {
        let regs = self.regs.rw(m);
        let was = regs.translates();
        let (r, lines, translates) = (f(regs), regs.lines(), regs.translates());
        self.kbd_out.set(m, lines.kbd);
        self.mouse_out.set(m, lines.aux);
        if was != translates
            && let Some(k) = self.keyboard()
        {
            k.set_translation(m, translates);
        }
        r
    }

    fn act(&self, m: &mut Locked, action: Action) {
        match action {
            Action::None => {}
            Action::ToKeyboard(v) => {
                if let Some(k) = self.keyboard() {
                    k.write(m, v);
                }
            }
            Action::ToAux(v) => {
                if let Some(mouse) = self.mouse() {
                    mouse.write(m, v);
                }
            }
            Action::GateA20(open) => self.a20.set(m, open),
            Action::Reset => m.request(Request::Reset(ShutdownCause::GuestReset)),
        }
    }

    fn read_data(&self, m: &mut Locked, _off: u64, _size: u32) -> u64 {
        let byte = match self.change(m, I8042Regs::read_data) {
            Some(Source::Keyboard) => self.keyboard().map(|k| k.read(m)),
            Some(Source::Aux) => self.mouse().map(|k| k.read(m)),
            Some(Source::Controller | Source::ControllerAux) => None,
            None => return self.regs.ro(m).last().into(),
        };
        self.change(m, |r| r.read_done(byte)).into()
    }

    fn write_data(&self, m: &mut Locked, _off: u64, _size: u32, val: u64) {
        let action = self.change(m, |r| r.write_data(val as u8));
        self.act(m, action);
    }

    fn read_status(&self, m: &mut Locked, _off: u64, _size: u32) -> u64 {
        self.regs.ro(m).read_status().into()
    }

    fn write_command(&self, m: &mut Locked, _off: u64, _size: u32, val: u64) {
        let action = self.change(m, |r| r.write_command(val as u8));
        self.act(m, action);
    }
}

impl DeviceImpl for I8042 {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        for (name, irq) in [("kbd-irq", self.kbd_irq.get()), ("mouse-irq", self.mouse_irq.get())] {
            if irq > 15 {
                return Err(Error::generic(format!("Maximum value for \"{name}\" is: 15")));
            }
        }
        let (kbd, mouse) = self.keyboard().zip(self.mouse()).ok_or("i8042 without its devices")?;
        for (device, input) in [(kbd.object(), "ps2-kbd-input-irq"), (mouse.object(), "ps2-mouse-input-irq")] {
            let line = self.gpio_in_line(input, 0).ok_or("i8042 without its inputs")?;
            let device = device.cast::<hw_core::SysBusDevice>().ok_or("not a PS/2 device")?;
            device.realize_sysbus(m)?;
            device.connect("", 0, line)?;
        }
        for (port, region) in self.ports.get().into_iter().flatten() {
            self.map_io(m, *port, region)?;
        }
        self.connect("", 0, self.isa_irq(self.kbd_irq.get().into())?)?;
        self.connect("", 1, self.isa_irq(self.mouse_irq.get().into())?)
    }

    fn unrealize(&self, m: &mut Locked) {
        self.unmap_io(m);
        self.parent_unrealize(m);
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        match phase {
            Phase::Enter => *self.regs.rw(m) = I8042Regs::default(),
            Phase::Hold => {
                self.change(m, |_| ());
                let open = self.regs.ro(m).a20();
                self.a20.set(m, open);
            }
            Phase::Exit => {}
        }
        self.parent_reset(m, phase);
    }

    /// The A20 gate is the CPUs' to remember: port 92H may have set it after this device.
    fn post_load(&self, m: &mut Locked) -> Result<()> {
        self.change(m, |_| ());
        self.parent_post_load(m)
    }
}

#[cfg(test)]
mod tests {
    use hw_core::{Core, IsaBus, Line, isa::isa_create_simple};
    use qom::World;
    use std::sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    };

    /// A bus with an i8042; the counter counts rising edges of interrupt 1.
    fn machine() -> (Arc<Core>, World, Arc<AtomicU32>) {
        let core = Core::new();
        let scope = World::new(core.clone());
        let edges = Arc::new(AtomicU32::new(0));
        let mut m = core.lock();
        let bridge = scope.object_new("isabus-bridge").unwrap();
        let bridge = bridge.cast::<hw_core::SysBusDevice>().unwrap();
        bridge.realize_sysbus(&mut m).unwrap();
        let bus = IsaBus::create(bridge, &core.system_memory(), &core.system_io()).unwrap();
        let count = edges.clone();
        let lines = (0..16)
            .map(|n| {
                let (count, was) = (count.clone(), AtomicBool::new(false));
                Line::new(move |_, level| {
                    if !was.swap(level, Relaxed) && level && n == 1 {
                        count.fetch_add(1, Relaxed);
                    }
                })
            })
            .collect();
        bus.register_input_irqs(lines);
        isa_create_simple(&mut m, &bus, "i8042").unwrap();
        drop(m);
        (core, scope, edges)
    }

    #[test]
    fn a_key_interrupts_and_is_read() {
        let (core, scope, edges) = machine();
        let mut m = core.lock();
        for v in [0x60u64, 0x41] {
            let port = if v == 0x60 { 0x64 } else { 0x60 };
            core.io.store(&mut m, port, 1, v).unwrap();
        }
        let key = ui::keys::by_name("a").unwrap();
        assert!(ui::input::send_key(&scope, &mut m, key, true));
        assert!(ui::input::send_key(&scope, &mut m, key, false));
        assert_eq!(edges.load(Relaxed), 1);
        assert_eq!(core.io.load(&mut m, 0x60, 1).unwrap(), 0x1e);
        assert_eq!(edges.load(Relaxed), 2);
        assert_eq!(core.io.load(&mut m, 0x60, 1).unwrap(), 0x9e);
        assert_eq!(core.io.load(&mut m, 0x64, 1).unwrap() & 1, 0);
    }
}
