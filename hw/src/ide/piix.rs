//! PIIX3's IDE function, type `piix3-ide`, two channels at the legacy ports. Source: Intel 82371SB (PIIX3, 290550) §2.3,
//! SFF-8038i; ATA/ATAPI-4 (a channel without devices). Drives are not modelled yet: an empty channel reads as zeros.

use super::{bmdma_regs::BmdmaRegs, bus::IdeBus};
use hw_core::{
    Category, DeviceClass, DeviceImpl, IrqOut, Locked, MachineCell, MemoryRegion, Ops, Phase, Sizes,
    pci::{BarKind, PciDevice, PciDeviceClass},
};
use parking_lot::RwLock;
use qom::{Object, Result};

/// Command block and control port of each channel.
const CHANNELS: [(u64, u64); 2] = [(0x1f0, 0x3f6), (0x170, 0x376)];
/// DEVSEL medium, fast back-to-back.
const STATUS: u16 = 0x0280;

/// Type `pci-ide`.
#[derive(Object)]
#[qom(name = "pci-ide", parent = PciDevice, abstract, methods(DeviceClass), class_init = PciIde::class_init,
    instance_init = PciIde::instance_init,
    interfaces("conventional-pci-device"))]
pub struct PciIde {
    parent: PciDevice,
    #[state]
    primary: MachineCell<BmdmaRegs>,
    #[state]
    secondary: MachineCell<BmdmaRegs>,
    /// Interrupts of the channels in legacy mode.
    isa_irqs: [IrqOut; 2],
}

impl PciIde {
    fn class_init(c: &mut qom::Class) {
        let d = c.edit::<DeviceClass>();
        d.categories = vec![Category::Storage];
        let p = c.edit::<PciDeviceClass>();
        (p.vendor_id, p.class_id, p.prog_if) = (0x8086, 0x0101, 0x80);
    }

    fn instance_init(&self) -> Result<()> {
        self.gpio_outs("isa-irq", &self.isa_irqs);
        Ok(())
    }

    fn channel(&self, second: bool) -> &MachineCell<BmdmaRegs> {
        if second { &self.secondary } else { &self.primary }
    }

    /// The 16 bytes of bus-master registers: command and status, then the table pointer, of each channel.
    fn bmdma(&self, m: &mut Locked) -> MemoryRegion {
        let all = MemoryRegion::container(self, "piix-bmdma-container", 16);
        let byte = Sizes::new(1, 1);
        let first: [Ops<PciIde>; 2] = [
            Ops {
                read: |d, m, off, _| d.channel(false).ro(m).read(off).into(),
                write: |d, m, off, _, v| d.channel(false).rw(m).write(off, v as u8),
                imp: byte,
                ..Ops::default()
            },
            Ops {
                read: |d, m, off, _| d.channel(true).ro(m).read(off).into(),
                write: |d, m, off, _, v| d.channel(true).rw(m).write(off, v as u8),
                imp: byte,
                ..Ops::default()
            },
        ];
        let second: [Ops<PciIde>; 2] = [
            Ops {
                read: |d, m, off, _| d.channel(false).ro(m).read(off + 4).into(),
                write: |d, m, off, _, v| d.channel(false).rw(m).write(off + 4, v as u8),
                imp: byte,
                ..Ops::default()
            },
            Ops {
                read: |d, m, off, _| d.channel(true).ro(m).read(off + 4).into(),
                write: |d, m, off, _, v| d.channel(true).rw(m).write(off + 4, v as u8),
                imp: byte,
                ..Ops::default()
            },
        ];
        for (base, (command, table)) in [0u64, 8].into_iter().zip(first.into_iter().zip(second)) {
            all.add_subregion(m, base, &MemoryRegion::io(self, "piix-bmdma", 4, command));
            all.add_subregion(m, base + 4, &MemoryRegion::io(self, "bmdma", 4, table));
        }
        all
    }
}

impl DeviceImpl for PciIde {
    fn reset(&self, m: &mut Locked, phase: Phase) {
        self.parent_reset(m, phase);
        if phase == Phase::Enter {
            *self.primary.rw(m) = BmdmaRegs::default();
            *self.secondary.rw(m) = BmdmaRegs::default();
            self.config().rw(m).set_word(hw_core::pci::reg::STATUS, STATUS);
        }
    }
}

/// Type `piix3-ide`.
#[derive(Object)]
#[qom(name = "piix3-ide", parent = PciIde, methods(DeviceClass), class_init = Piix3Ide::class_init)]
pub struct Piix3Ide {
    parent: PciIde,
    /// The mapped legacy ports.
    legacy: RwLock<Vec<MemoryRegion>>,
}

impl Piix3Ide {
    fn class_init(c: &mut qom::Class) {
        c.edit::<PciDeviceClass>().device_id = 0x7010;
        c.edit::<DeviceClass>().hotpluggable = false;
    }
}

impl DeviceImpl for Piix3Ide {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        self.config().rw(m).set_word(hw_core::pci::reg::STATUS, STATUS);
        let bmdma = self.bmdma(m);
        self.register_bar(m, 4, BarKind::Io, &bmdma)?;
        let bus = self.pci_bus().ok_or("piix3-ide is not on a PCI bus")?;
        // The legacy ports belong to no device in the tree, as on QEMU.
        let unattached = self.scope().container("/machine/unattached")?;
        for (command, control) in CHANNELS {
            for (port, size) in [(command, 8), (control, 1)] {
                let any = Sizes::new(1, 4);
                let region = MemoryRegion::io_in(
                    &*unattached,
                    self,
                    "ide",
                    size,
                    Ops { valid: any, imp: any, ..Ops::default() },
                );
                bus.io().add_subregion(m, port, &region);
                self.legacy.write().push(region);
            }
            IdeBus::create(self, None)?;
        }
        Ok(())
    }

    fn unrealize(&self, m: &mut Locked) {
        for region in std::mem::take(&mut *self.legacy.write()) {
            region.unmap(m);
            if let Some(node) = region.node() {
                node.unparent();
            }
        }
        self.parent_unrealize(m);
    }
}
