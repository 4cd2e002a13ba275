//! Serial ports: the UART as a device, type `serial`, and on the ISA bus, type `isa-serial`. Registers: [`super::uart16550`].

use super::uart16550::{Effect, UartRegs};
use chardev::{CharFrontend, DeviceHandlers, Event};
use hw_core::{
    Category, Device, DeviceClass, DeviceImpl, IrqOut, IsaDevice, Locked, MachineCell, MemoryRegion, Ops, Phase, Sizes,
    Timer,
};
use qom::{Error, Object, Prop, Ref, Result};

/// Type `serial`: a 16550A with a character device behind it.
#[derive(Object)]
#[qom(name = "serial", parent = Device, methods(DeviceClass), class_init = Serial::class_init,
    instance_init = Serial::instance_init)]
pub struct Serial {
    parent: Device,
    #[property(default = 115_200)]
    baudbase: Prop<u32>,
    #[property(default = false)]
    wakeup: Prop<bool>,
    #[property]
    chardev: CharFrontend,
    #[state]
    regs: MachineCell<UartRegs>,
    irq: IrqOut,
    timer: Timer,
}

impl Serial {
    fn class_init(c: &mut qom::Class) {
        let d = c.edit::<DeviceClass>();
        d.user_creatable = false;
        d.categories = vec![Category::Input];
    }

    fn instance_init(&self) -> Result<()> {
        self.timer.init(self, |d: &Serial, m| {
            let e = d.regs.rw(m).expire();
            d.act(m, e);
        });
        Ok(())
    }

    /// The interrupt output, for the bus device that has the UART.
    pub fn irq(&self) -> &IrqOut {
        &self.irq
    }

    fn act(&self, m: &mut Locked, e: Effect) {
        if self.irq.level() != e.irq {
            self.irq.set(m, e.irq);
        }
        self.timer.arm(m, e.timeout_at);
    }

    /// Sends what waits, until the backend is full.
    fn transmit(&self, m: &mut Locked) {
        let (now, base) = (m.clock.now(), self.baudbase.get());
        while let Some(byte) = self.regs.rw(m).to_send() {
            let regs = self.regs.rw(m);
            if regs.loops_back() {
                let _ = regs.receive(&[byte], now, base);
            } else if self.chardev.is_attached() && self.chardev.write(&[byte]) == 0 {
                self.chardev.on_writable_for(self, |d: &Serial, m| d.transmit(m));
                break;
            }
            self.regs.rw(m).sent();
        }
        let e = self.regs.rw(m).effect();
        self.act(m, e);
    }

    /// Reads register `offset`.
    pub fn read(&self, m: &mut Locked, offset: u64) -> u8 {
        let (now, base) = (m.clock.now(), self.baudbase.get());
        let (value, e) = self.regs.rw(m).read(offset, now, base);
        self.act(m, e);
        if offset & 7 == 0 {
            self.chardev.accept_input();
        }
        value
    }

    /// Writes register `offset`.
    pub fn write(&self, m: &mut Locked, offset: u64, val: u8) {
        let regs = self.regs.rw(m);
        let broke = regs.sends_break();
        let e = regs.write(offset, val);
        let breaks = regs.sends_break();
        self.act(m, e);
        self.transmit(m);
        if breaks && !broke {
            tracing::debug!("serial: the guest sends a break");
        }
        if matches!(offset & 7, 2 | 4) {
            self.chardev.accept_input();
        }
    }

    fn can_receive(&self, m: &mut Locked) -> usize {
        self.regs.ro(m).can_receive()
    }

    fn receive(&self, m: &mut Locked, bytes: &[u8]) {
        let (now, base) = (m.clock.now(), self.baudbase.get());
        if self.wakeup.get() {
            m.request(hw_core::Request::Wakeup(hw_core::WakeupReason::Other));
        }
        let e = self.regs.rw(m).receive(bytes, now, base);
        self.act(m, e);
    }

    fn event(&self, m: &mut Locked, event: Event) {
        if event == Event::Break {
            let (now, base) = (m.clock.now(), self.baudbase.get());
            let e = self.regs.rw(m).receive_break(now, base);
            self.act(m, e);
        }
    }
}

impl DeviceImpl for Serial {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        self.chardev.set_device_handlers(
            self,
            DeviceHandlers { can_receive: Self::can_receive, receive: Self::receive, event: Self::event },
        );
        Ok(())
    }

    fn unrealize(&self, m: &mut Locked) {
        self.timer.arm(m, None);
        self.chardev.detach();
        self.parent_unrealize(m);
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        match phase {
            Phase::Enter => *self.regs.rw(m) = UartRegs::default(),
            Phase::Hold => {
                let e = self.regs.rw(m).effect();
                self.act(m, e);
            }
            Phase::Exit => self.chardev.accept_input(),
        }
        self.parent_reset(m, phase);
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        self.regs.ro(m).check().map_err(Error::generic)?;
        self.transmit(m);
        self.parent_post_load(m)
    }
}

/// Ports of a UART.
const LEN: u64 = 8;

/// I/O base and interrupt of the four ports of a PC.
const PORTS: [(u32, u32); 4] = [(0x3f8, 4), (0x2f8, 3), (0x3e8, 4), (0x2e8, 3)];

/// Type `isa-serial`.
#[derive(Object)]
#[qom(name = "isa-serial", parent = IsaDevice, methods(DeviceClass), class_init = IsaSerial::class_init,
    instance_init = IsaSerial::instance_init, interfaces("acpi-dev-aml-interface"))]
pub struct IsaSerial {
    parent: IsaDevice,
    #[property(default = u32::MAX)]
    index: Prop<u32>,
    #[property(default = u32::MAX)]
    iobase: Prop<u32>,
    #[property(default = u32::MAX)]
    irq: Prop<u32>,
    uart: parking_lot::RwLock<Option<Ref<Serial>>>,
}

impl IsaSerial {
    fn class_init(c: &mut qom::Class) {
        c.edit::<DeviceClass>().categories = vec![Category::Input];
    }

    fn instance_init(&self) -> Result<()> {
        let uart = self.scope().object_new("serial")?;
        let me = self.object();
        me.add_child("serial", &uart)?;
        for name in ["chardev", "baudbase", "wakeup"] {
            me.add_alias(name, &uart, name)?;
        }
        *self.uart.write() = Ref::new(uart);
        Ok(())
    }

    fn uart(&self) -> Result<Ref<Serial>> {
        self.uart.read().clone().ok_or_else(|| Error::generic("isa-serial without its UART"))
    }

    fn read(&self, m: &mut Locked, off: u64, _size: u32) -> u64 {
        match self.uart() {
            Ok(u) if off < LEN => u.read(m, off).into(),
            _ => u64::MAX,
        }
    }

    fn write(&self, m: &mut Locked, off: u64, _size: u32, val: u64) {
        if let Ok(u) = self.uart()
            && off < LEN
        {
            u.write(m, off, val as u8);
        }
    }
}

/// The lowest index that no realized port of this type has.
fn free_index(device: &IsaDevice, type_name: &str) -> u32 {
    let mut used = Vec::new();
    device.scope().root().walk(&mut |o| {
        if o.type_name() == type_name
            && o.cast::<Device>().is_some_and(Device::is_realized)
            && let Some(i) = o.get("index").ok().and_then(|v| v.as_u64())
        {
            used.push(i as u32);
        }
    });
    (0..).find(|i| !used.contains(i)).unwrap_or(u32::MAX)
}

/// Fills in index, base and interrupt of a port from its table.
///
/// # Errors
/// More ports than the table has.
pub(super) fn place(
    device: &IsaDevice,
    type_name: &str,
    ports: &[(u32, u32)],
    index: &Prop<u32>,
    iobase: &Prop<u32>,
    irq: &Prop<u32>,
) -> Result<()> {
    if index.get() == u32::MAX {
        index.set(free_index(device, type_name));
    }
    let known = ports.get(index.get() as usize);
    if known.is_none() && (iobase.get() == u32::MAX || irq.get() == u32::MAX) {
        return Err(Error::generic(format!(
            "Max. supported number of ISA ports of type {type_name} is {}.",
            ports.len()
        )));
    }
    let (base, line) = known.copied().unwrap_or_default();
    if iobase.get() == u32::MAX {
        iobase.set(base);
    }
    if irq.get() == u32::MAX {
        irq.set(line);
    }
    Ok(())
}

impl DeviceImpl for IsaSerial {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        place(self, "isa-serial", &PORTS, &self.index, &self.iobase, &self.irq)?;
        let uart = self.uart()?;
        uart.irq().connect(Some(self.isa_irq(self.irq.get())?));
        uart.qdev_realize(m)?;
        // The bus makes byte cycles of everything wider, wherever it begins.
        let valid = Sizes::default().unaligned();
        let ops =
            Ops { read: Self::read, write: Self::write, valid, imp: Sizes::new(1, 1).unaligned(), ..Ops::default() };
        self.map_io(m, self.iobase.get().into(), &MemoryRegion::io(self, "serial", LEN, ops))
    }

    fn unrealize(&self, m: &mut Locked) {
        self.unmap_io(m);
        if let Ok(u) = self.uart() {
            u.qdev_unrealize(m);
        }
        self.parent_unrealize(m);
    }

    /// The UART is on no bus: it is reset with its port.
    fn reset(&self, m: &mut Locked, phase: Phase) {
        self.parent_reset(m, phase);
        if let Ok(u) = self.uart() {
            DeviceImpl::reset(&*u, m, phase);
        }
    }
}
