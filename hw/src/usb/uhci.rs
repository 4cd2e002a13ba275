//! USB host controllers of the first kind: types `piix3-usb-uhci` and `piix4-usb-uhci`. Registers: [`super::uhci_regs`].
//! Source: UHCI Design Guide 1.1, §3 (descriptors); Intel 82371SB (290550) and 82371AB (290562) for the functions.
//!
//! Their buses have no devices, so every transaction that a guest queues ends as one that nobody answers. Not modelled: legacy
//! keyboard support (C0H), bandwidth reclamation, remote wake-up.

use super::uhci_regs::UhciRegs;
use hw_core::{
    Bus, BusClass, BusImpl, Category, DeviceClass, DeviceImpl, Locked, MachineCell, MemoryRegion, Ops, Phase, Sizes,
    Timer,
    pci::{BarKind, PciDevice, PciDeviceClass},
};
use qom::{Object, Prop, Result, TypeInfo};

/// Type, vendor's number of it.
const TYPES: [(&str, u16); 2] = [("piix3-usb-uhci", 0x7020), ("piix4-usb-uhci", 0x7112)];
/// Serial bus release number, in configuration space.
const SBRN: usize = 0x60;
/// Links and descriptors of a frame, before the controller gives up on it.
const MAX_STEPS: u32 = 256;

/// Links: the end of the list; to a queue head.
const TERMINATE: u32 = 1;
const QUEUE: u32 = 2;
/// Second word of a transfer descriptor: isochronous, interrupt on completion, active, stalled, timeout, errors left, actual length.
const IOS: u32 = 1 << 25;
const IOC: u32 = 1 << 24;
const ACTIVE: u32 = 1 << 23;
const STALLED: u32 = 1 << 22;
const TIMEOUT: u32 = 1 << 18;
const ERRORS: u32 = 3 << 27;
const LENGTH: u32 = 0x7ff;

/// Type `usb-bus`.
#[derive(Object)]
#[qom(name = "usb-bus", parent = Bus, methods(BusClass))]
pub struct UsbBus {
    parent: Bus,
}

impl BusImpl for UsbBus {}

/// Type `pci-uhci-usb`.
#[derive(Object)]
#[qom(name = "pci-uhci-usb", parent = PciDevice, abstract, methods(DeviceClass),
    interfaces("conventional-pci-device"), class_init = Uhci::class_init, instance_init = Uhci::instance_init)]
pub struct Uhci {
    parent: PciDevice,
    /// Bytes of a frame; nothing moves, so it is only kept.
    #[property(default = 1280)]
    bandwidth: Prop<u32>,
    /// Frames that are made up for when the host was late.
    #[property(default = 128)]
    maxframes: Prop<u32>,
    #[state]
    regs: MachineCell<UhciRegs>,
    timer: Timer,
}

qom::register!(|r| {
    for (name, device_id) in TYPES {
        let info = TypeInfo::of::<Uhci>(name).parent("pci-uhci-usb");
        r.add(info.class_init(move |c| c.edit::<PciDeviceClass>().device_id = device_id));
    }
});

impl Uhci {
    fn class_init(c: &mut qom::Class) {
        let d = c.edit::<DeviceClass>();
        d.categories = vec![Category::Usb];
        d.hotpluggable = false;
        let p = c.edit::<PciDeviceClass>();
        (p.vendor_id, p.revision, p.class_id) = (0x8086, 0x01, 0x0c03);
    }

    fn instance_init(&self) -> Result<()> {
        self.timer.init(self, Self::frames);
        Ok(())
    }

    fn settle(&self, m: &mut Locked) {
        let (at, level) = (self.regs.ro(m).next_frame(), self.regs.ro(m).irq());
        self.timer.arm(m, at);
        self.set_intx(m, level);
    }

    /// Runs the frames that are due.
    fn frames(&self, m: &mut Locked) {
        let (now, most) = (m.clock.now(), self.maxframes.get());
        while let Some(entry) = self.regs.rw(m).begin_frame(now, most) {
            if self.frame(m, entry).is_none() {
                self.regs.rw(m).host_error();
            }
        }
        self.settle(m);
    }

    fn words<const N: usize>(&self, m: &mut Locked, at: u64) -> Option<[u32; N]> {
        let mut bytes = vec![0; 4 * N];
        self.dma_read(m, at, &mut bytes).ok()?;
        let mut out = [0; N];
        for (w, b) in out.iter_mut().zip(bytes.chunks_exact(4)) {
            *w = u32::from_le_bytes(b.try_into().ok()?);
        }
        Some(out)
    }

    /// Goes through the schedule of a frame. §3.4; `None`: memory did not answer.
    fn frame(&self, m: &mut Locked, entry: u64) -> Option<()> {
        let [mut link] = self.words(m, entry)?;
        let (mut failed, mut interrupt) = (false, false);
        // Where the queue at work goes on, and whether anything was done since its head was first seen.
        let mut next_queue = None;
        let mut seen: Vec<u32> = vec![];
        for _ in 0..MAX_STEPS {
            if link & TERMINATE != 0 {
                break;
            }
            let at = u64::from(link & !0xf);
            if link & QUEUE != 0 {
                if seen.contains(&link) {
                    break; // a ring of queues in which there is nothing to do
                }
                seen.push(link);
                let [across, element] = self.words(m, at)?;
                (link, next_queue) = if element & TERMINATE != 0 { (across, None) } else { (element, Some(across)) };
                continue;
            }
            let [down, status, _, _] = self.words(m, at)?;
            if status & ACTIVE != 0 {
                // Nobody answers: three tries, and the descriptor is given back. (An isochronous one is not tried again.)
                let stalled = if status & IOS == 0 { STALLED | TIMEOUT } else { TIMEOUT };
                let ended = status & !(ACTIVE | ERRORS) | stalled | LENGTH;
                self.dma_write(m, at + 4, &ended.to_le_bytes()).ok()?;
                (failed, interrupt) = (true, interrupt || status & IOC != 0);
                seen.clear();
            }
            link = next_queue.take().unwrap_or(down);
        }
        self.regs.rw(m).end_frame(failed, interrupt);
        Some(())
    }

    fn read(&self, m: &mut Locked, off: u64, _size: u32) -> u64 {
        self.regs.ro(m).read(off).into()
    }

    fn write(&self, m: &mut Locked, off: u64, _size: u32, val: u64) {
        let now = m.clock.now();
        self.regs.rw(m).write(off, val as u16, now);
        self.settle(m);
    }
}

impl DeviceImpl for Uhci {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        self.set_intx_pin(m, 4);
        self.config().rw(m).set_byte(SBRN, 0x10);
        let sizes = Sizes::new(2, 2);
        let ops = Ops { read: Self::read, write: Self::write, valid: Sizes::new(1, 4), imp: sizes, ..Ops::default() };
        let bar = MemoryRegion::io(self, "uhci", 0x20, ops);
        self.register_bar(m, 4, BarKind::Io, &bar)?;
        Bus::create::<UsbBus>(self, "usb-bus", None)?;
        Ok(())
    }

    fn unrealize(&self, m: &mut Locked) {
        self.timer.arm(m, None);
        self.parent_unrealize(m);
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        self.parent_reset(m, phase);
        match phase {
            Phase::Enter => {
                *self.regs.rw(m) = UhciRegs::default();
                self.config().rw(m).set_byte(SBRN, 0x10);
            }
            Phase::Hold => self.settle(m),
            Phase::Exit => {}
        }
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        self.regs.ro(m).check().map_err(qom::Error::generic)?;
        self.settle(m);
        self.parent_post_load(m)
    }
}
