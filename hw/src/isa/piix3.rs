//! PIIX3's function 0, type `PIIX3`: PCI-to-ISA bridge, PIRQ routing, reset control, and the chip's other parts.
//! Source: Intel 82371FB/82371SB (PIIX3, 290550) §2.2 (PIRQRC 60h-63h), §2.5.4 (reset control CF9h).
//! Not modelled: X-bus chip selects, distributed DMA; their registers read back.

use hw_core::{
    DeviceClass, DeviceImpl, IrqOut, IsaBus, Locked, MachineCell, MemoryRegion, Ops, Phase, Request, ShutdownCause,
    Sizes,
    pci::{PciDevice, PciDeviceClass, PciImpl},
};
use parking_lot::RwLock;
use qom::{Error, Level, Object, Prop, Ref, Result};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const PIRQ: usize = 0x60;
const PIRQS: usize = 4;
/// PIRQRC bit 7: the pin is not routed.
const NOT_ROUTED: u8 = 0x80;
const RESET_CONTROL: u64 = 0xcf9;
/// RCR: a write of 1 resets; the kind of reset.
const RCPU: u8 = 4;
const SRST: u8 = 2;

/// Power-on values of the configuration space, §2.2.
const DEFAULTS: [(usize, u8); 22] = [
    (0x04, 0x07),
    (0x05, 0x00),
    (0x06, 0x00),
    (0x07, 0x02),
    (0x4c, 0x4d),
    (0x4e, 0x03),
    (0x4f, 0x00),
    (PIRQ, NOT_ROUTED),
    (PIRQ + 1, NOT_ROUTED),
    (PIRQ + 2, NOT_ROUTED),
    (PIRQ + 3, NOT_ROUTED),
    (0x69, 0x02),
    (0x70, 0x80),
    (0x76, 0x0c),
    (0x77, 0x0c),
    (0x78, 0x02),
    (0x79, 0x00),
    (0x80, 0x00),
    (0x82, 0x00),
    (0xa0, 0x08),
    (0xa2, 0x00),
    (0xa8, 0x0f),
];

/// State beside the configuration space.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PiixRegs {
    rcr: u8,
    /// Levels of PIRQA to PIRQD.
    pirq: [bool; PIRQS],
}

/// Type `pci-piix`.
#[derive(Object)]
#[qom(name = "pci-piix", parent = PciDevice, abstract, methods(DeviceClass, PciDeviceClass),
    class_init = Piix::class_init, instance_init = Piix::instance_init,
    interfaces("acpi-dev-aml-interface", "conventional-pci-device"))]
pub struct Piix {
    parent: PciDevice,
    #[property(name = "smb_io_base", default = 0)]
    smb_io_base: Prop<u32>,
    #[property(default = true)]
    has_acpi: Prop<bool>,
    #[property(default = true)]
    has_pic: Prop<bool>,
    #[property(default = true)]
    has_pit: Prop<bool>,
    #[property(default = true)]
    has_usb: Prop<bool>,
    #[property(default = false)]
    smm_enabled: Prop<bool>,
    #[state]
    regs: MachineCell<PiixRegs>,
    isa_irqs: [IrqOut; 16],
    isa: RwLock<Option<Ref<IsaBus>>>,
}

impl Piix {
    fn class_init(c: &mut qom::Class) {
        let d = c.edit::<DeviceClass>();
        d.user_creatable = false;
        d.hotpluggable = false;
        d.desc = "ISA bridge";
        let p = c.edit::<PciDeviceClass>();
        (p.vendor_id, p.class_id) = (0x8086, 0x0601);
    }

    fn instance_init(&self) -> Result<()> {
        self.gpio_outs("isa-irqs", &self.isa_irqs);
        let rtc = self.scope().object_new("mc146818rtc")?;
        self.object().add_child("rtc", &rtc)?;
        Ok(())
    }

    /// The ISA bus, once realized.
    ///
    /// # Errors
    /// Before that.
    pub fn isa_bus(&self) -> Result<Ref<IsaBus>> {
        self.isa.read().clone().ok_or_else(|| Error::generic("PIIX: not realized yet"))
    }

    /// Drives every ISA interrupt that a PIRQ may reach: an interrupt is high while any pin routed to it is.
    fn route(&self, m: &mut Locked) {
        let levels = self.regs.ro(m).pirq;
        let config = self.config().ro(m);
        let mut wanted = [None; 16];
        for (i, level) in levels.into_iter().enumerate() {
            let target = config.byte(PIRQ + i);
            if target & NOT_ROUTED == 0
                && let Some(w) = wanted.get_mut(usize::from(target & 0xf))
            {
                *w = Some(w.unwrap_or(false) || level);
            }
        }
        for (out, level) in self.isa_irqs.iter().zip(wanted) {
            match level {
                Some(level) if level != out.level() => out.set(m, level),
                None if out.level() => out.set(m, false),
                _ => {}
            }
        }
    }

    /// Sets PIRQ `n` (0 = A).
    pub fn set_pirq(&self, m: &mut Locked, n: usize, level: bool) {
        if let Some(p) = self.regs.rw(m).pirq.get_mut(n) {
            *p = level;
        }
        self.route(m);
    }

    fn read_rcr(&self, m: &mut Locked, _off: u64, _size: u32) -> u64 {
        self.regs.ro(m).rcr.into()
    }

    fn write_rcr(&self, m: &mut Locked, _off: u64, _size: u32, val: u64) {
        let val = val as u8;
        if val & RCPU != 0 {
            m.request(Request::Reset(ShutdownCause::GuestReset));
            return;
        }
        self.regs.rw(m).rcr = val & SRST;
    }

    /// Realizes function `function` of the chip, a child called `name`.
    fn function(&self, m: &mut Locked, name: &str, type_name: &str, function: i32) -> Result<Ref<PciDevice>> {
        let bus = self.pci_bus().ok_or("PIIX is not on a PCI bus")?;
        let d = bus.new_function(type_name, i32::from(self.devfn() & !7) + function, false)?;
        self.object().add_child(name, &d.object())?;
        if type_name == "PIIX4_PM" {
            d.set_str("smb_io_base", &self.smb_io_base.get().to_string())?;
            d.set_str("smm-enabled", if self.smm_enabled.get() { "on" } else { "off" })?;
        }
        bus.realize_function(m, &d)?;
        Ok(d)
    }
}

impl PciImpl for Piix {
    fn config_read(&self, m: &mut Locked, at: u32, len: u32) -> u32 {
        self.default_config_read(m, at, len)
    }

    fn config_write(&self, m: &mut Locked, at: u32, len: u32, val: u32) {
        self.default_config_write(m, at, len, val);
        let (first, end) = (PIRQ as u32, (PIRQ + PIRQS) as u32);
        if at < end && first < at + len {
            self.route(m);
        }
    }
}

impl DeviceImpl for Piix {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        let bus = self.pci_bus().ok_or("PIIX is not on a PCI bus")?;
        let isa = IsaBus::create(self, &self.core().system_memory(), &bus.io())?;
        let mut lines = Vec::new();
        for out in &self.isa_irqs {
            // Devices on the bus and the PIRQs drive the same wire through the bridge's output.
            lines.push(out.line().ok_or("PIIX: 'isa-irqs' are not connected")?);
        }
        isa.register_input_irqs(lines);
        *self.isa.write() = Some(isa.clone());

        let ops = Ops { read: Self::read_rcr, write: Self::write_rcr, imp: Sizes::new(1, 1), ..Ops::default() };
        let rcr = MemoryRegion::io(self, "piix-reset-control", 1, ops);
        bus.io().add_subregion_overlap(m, RESET_CONTROL, &rcr, 1);

        if self.has_pic.get() || self.has_pit.get() {
            return Err(Error::generic("PIIX3: 'has-pic' and 'has-pit' are not supported here: set them to off"));
        }
        let base: Ref<hw_core::Bus> = Ref::new(Ref::object(&isa).clone()).ok_or("not a bus")?;
        crate::dma::i8257::i8257_dma_init(m, &self.object(), &isa, false)?;
        let rtc = self.object().child("rtc").ok_or("PIIX without its RTC")?;
        let rtc: Ref<hw_core::Device> = Ref::new(rtc).ok_or("not a device")?;
        rtc.set_str("base_year", "2000")?;
        rtc.realize_on(m, &base)?;
        Ok(())
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        self.parent_reset(m, phase);
        match phase {
            Phase::Enter => {
                *self.regs.rw(m) = PiixRegs::default();
                let c = self.config().rw(m);
                DEFAULTS.iter().for_each(|(at, v)| c.set_byte(*at, *v));
            }
            Phase::Hold => self.route(m),
            Phase::Exit => {}
        }
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        self.route(m);
        self.parent_post_load(m)
    }
}

/// Type `PIIX3`.
#[derive(Object)]
#[qom(name = "PIIX3", parent = Piix, methods(DeviceClass), class_init = Piix3::class_init,
    instance_init = Piix3::instance_init)]
pub struct Piix3 {
    parent: Piix,
}

impl Piix3 {
    fn class_init(c: &mut qom::Class) {
        c.edit::<PciDeviceClass>().device_id = 0x7000;
        c.edit::<DeviceClass>().desc = "PIIX3 ISA bridge";
    }

    fn instance_init(&self) -> Result<()> {
        let ide = self.scope().object_new("piix3-ide")?;
        self.object().add_child("ide", &ide).map(drop)
    }

    /// Line of an INTx pin: slot 1's INTA is PIRQA (§2.2.9 as wired on PCs of its time).
    pub fn pirq_of(dev: &PciDevice, pin: usize) -> usize {
        (pin + usize::from(dev.slot()) + PIRQS - 1) % PIRQS
    }
}

impl DeviceImpl for Piix3 {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        let bus = self.pci_bus().ok_or("PIIX is not on a PCI bus")?;
        let chip = self.this();
        let set = move |m: &mut Locked, n: usize, level: bool| {
            chip.with(|c| c.set_pirq(m, n, level));
        };
        bus.set_irqs(m, PIRQS, Arc::new(Self::pirq_of), Some(Arc::new(set)));
        let ide: Ref<PciDevice> =
            self.object().child("ide").and_then(Ref::new).ok_or("PIIX3 without its IDE function")?;
        ide.set("addr", serde_json::json!(i32::from(self.devfn() & !7) + 1))?;
        bus.realize_function(m, &ide)?;
        if self.has_usb.get() {
            self.function(m, "uhci", "piix3-usb-uhci", 2)?;
        }
        if self.has_acpi.get() {
            self.function(m, "pm", "PIIX4_PM", 3)?;
        }
        Ok(())
    }
}
