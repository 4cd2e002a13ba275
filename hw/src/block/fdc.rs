//! The floppy controller on the ISA bus, type `isa-fdc`. Registers: [`super::fdc_regs`].

use super::fdc_regs::FdcRegs;
use hw_core::{
    Bus, BusClass, BusImpl, Category, DeviceClass, DeviceImpl, IrqOut, IsaDevice, Locked, MachineCell, MemoryRegion,
    Ops, Phase, Sizes,
};
use qom::{Error, Object, Prop, PropEnum, Property, Result};

/// Kinds of floppy drives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PropEnum)]
#[qom(name = "FloppyDriveType")]
pub enum FloppyDriveType {
    /// 3.5 inch, 1.44 MB.
    #[qom(name = "144")]
    D144,
    /// 3.5 inch, 2.88 MB.
    #[qom(name = "288")]
    D288,
    /// 5.25 inch, 1.2 MB.
    #[qom(name = "120")]
    D120,
    /// None.
    None,
    /// By the medium.
    #[default]
    Auto,
}

/// Type `floppy-bus`.
#[derive(Object)]
#[qom(name = "floppy-bus", parent = Bus, methods(BusClass))]
pub struct FloppyBus {
    parent: Bus,
}

impl BusImpl for FloppyBus {}

/// Type `isa-fdc`.
#[derive(Object)]
#[qom(name = "isa-fdc", parent = IsaDevice, methods(DeviceClass), class_init = IsaFdc::class_init,
    interfaces("acpi-dev-aml-interface"))]
pub struct IsaFdc {
    parent: IsaDevice,
    #[property(default = 0x3f0)]
    iobase: Prop<u32>,
    #[property(default = 6)]
    irq: Prop<u32>,
    #[property(default = 2)]
    dma: Prop<u32>,
    #[property(name = "fdtypeA", default = FloppyDriveType::Auto)]
    fdtype_a: Prop<FloppyDriveType>,
    #[property(name = "fdtypeB", default = FloppyDriveType::Auto)]
    fdtype_b: Prop<FloppyDriveType>,
    #[property(default = FloppyDriveType::D288)]
    fallback: Prop<FloppyDriveType>,
    #[state]
    regs: MachineCell<FdcRegs>,
    line: IrqOut,
}

impl IsaFdc {
    fn class_init(c: &mut qom::Class) {
        let d = c.edit::<DeviceClass>();
        d.categories = vec![Category::Storage];
        d.desc = "virtual floppy controller";
        d.fw_name = Some("fdc");
        for name in ["bootindexA", "bootindexB"] {
            let set = |_: &IsaFdc, index: i32| match index {
                ..0 => Ok(()),
                _ => Err(Error::generic("isa-fdc: there are no floppy drives to boot from yet")),
            };
            c.property(Property::computed::<i32>(name).getter(|_: &IsaFdc| Ok(-1)).setter(set));
        }
    }

    fn drive(&self, m: &mut Locked) {
        let level = self.regs.ro(m).irq();
        if level != self.line.level() {
            self.line.set(m, level);
        }
    }

    fn read(&self, m: &mut Locked, register: u64) -> u64 {
        let v = self.regs.rw(m).read(register);
        self.drive(m);
        v.into()
    }

    fn write(&self, m: &mut Locked, register: u64, val: u64) {
        self.regs.rw(m).write(register, val as u8);
        self.drive(m);
    }
}

impl DeviceImpl for IsaFdc {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        if self.dma.get() > 3 && self.dma.get() != u32::MAX {
            return Err(Error::generic(format!("isa-fdc: there is no DMA channel {} for it", self.dma.get())));
        }
        let base = u64::from(self.iobase.get());
        // Words are two byte cycles, wherever they begin.
        let (word, byte) = (Sizes::default().unaligned(), Sizes::new(1, 1).unaligned());
        let low: Ops<IsaFdc> = Ops {
            read: |d, m, off, _| d.read(m, off + 1),
            write: |d, m, off, _, v| d.write(m, off + 1, v),
            valid: word,
            imp: byte,
            ..Ops::default()
        };
        let high: Ops<IsaFdc> = Ops {
            read: |d, m, off, _| d.read(m, off + 7),
            write: |d, m, off, _, v| d.write(m, off + 7, v),
            valid: word,
            imp: byte,
            ..Ops::default()
        };
        self.map_io(m, base + 1, &MemoryRegion::io(self, "fdc", 5, low))?;
        self.map_io(m, base + 7, &MemoryRegion::io(self, "fdc", 1, high))?;
        self.line.connect(Some(self.isa_irq(self.irq.get())?));
        Bus::create::<FloppyBus>(self, "floppy-bus", None)?;
        Ok(())
    }

    fn unrealize(&self, m: &mut Locked) {
        self.unmap_io(m);
        self.parent_unrealize(m);
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        self.parent_reset(m, phase);
        match phase {
            Phase::Enter => self.regs.rw(m).reset(true),
            Phase::Hold => self.drive(m),
            Phase::Exit => {}
        }
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        self.regs.ro(m).check().map_err(Error::generic)?;
        self.drive(m);
        self.parent_post_load(m)
    }
}
