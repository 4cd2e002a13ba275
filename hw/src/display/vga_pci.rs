//! Standard VGA on PCI, type `VGA` below `pci-vga`: text and graphics modes, the Bochs DISPI modes, linear frame buffer.
//! Registers and rendering: [`super::vga`]. Source: QEMU's `docs/specs/standard-vga` interface (BARs and MMIO layout).

use super::{
    edid,
    vga::{
        dispi::{self, Action},
        planar::{self, Vram},
        regs::VgaRegs,
        render,
    },
};
use hw_core::{
    Category, DeviceClass, DeviceImpl, Locked, MachineCell, MemoryRegion, Ops, Phase, Sizes,
    memory::RamBlock,
    pci::{BarKind, PciDevice, PciDeviceClass},
};
use parking_lot::RwLock;
use qom::{Error, Object, Prop, Property, Result};
use std::sync::Arc;
use ui::{GraphicConsole, GraphicHw, Picture};

/// Window of the planes in the legacy memory map.
const LEGACY: u64 = 0xa_0000;
/// Legacy ports: first port and length.
const PORTS: [(u16, u64); 5] = [(0x3b4, 2), (0x3ba, 1), (0x3c0, 16), (0x3d4, 2), (0x3da, 1)];
const DISPI_PORT: u64 = 0x1ce;
/// Layout of the MMIO BAR.
const EDID: (u64, u64) = (0, 0x180);
const REMAPPED: (u64, u64) = (0x400, 0x20);
const DISPI: (u64, u64) = (0x500, 0x16);
const EXTENDED: (u64, u64) = (0x600, 8);
/// Values of the byte order register.
const LITTLE: u32 = 0x1e1e_1e1e;
const BIG: u32 = 0xbebe_bebe;
/// Half a period of blinking text and cursor, ns.
const BLINK: u64 = 533_000_000;
const CURSOR_BLINK: u64 = 266_000_000;

/// Type `pci-vga`.
#[derive(Object)]
#[qom(name = "pci-vga", parent = PciDevice, abstract, methods(DeviceClass), class_init = PciVga::class_init,
    interfaces("acpi-dev-aml-interface", "conventional-pci-device", dyn GraphicHw))]
pub struct PciVga {
    parent: PciDevice,
    #[property(name = "vgamem_mb", default = 16)]
    vgamem_mb: Prop<u32>,
    #[property(default = true)]
    mmio: Prop<bool>,
    #[property(default = true)]
    qemu_extended_regs: Prop<bool>,
    #[property(default = true)]
    edid: Prop<bool>,
    #[property(default = 0)]
    xres: Prop<u32>,
    #[property(default = 0)]
    yres: Prop<u32>,
    #[property(default = 0)]
    xmax: Prop<u32>,
    #[property(default = 0)]
    ymax: Prop<u32>,
    #[property(name = "refresh_rate", default = 0)]
    refresh_rate: Prop<u32>,
    #[state]
    regs: MachineCell<VgaRegs>,
    vram: RwLock<Option<Arc<RamBlock>>>,
    edid_data: RwLock<Vec<u8>>,
}

struct Memory(Arc<RamBlock>);

impl Vram for Memory {
    fn size(&self) -> u64 {
        self.0.len()
    }
    fn load(&self, at: u64) -> u8 {
        self.0.load(at, 1).map_or(0xff, |v| v as u8)
    }
    fn store(&self, at: u64, val: u8) {
        if self.0.store(at, 1, val.into()).is_some() {
            self.0.mark_dirty(at, 1);
        }
    }
}

/// A copy of video memory, for rendering.
struct Copy(Vec<u8>);

impl Vram for Copy {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }
    fn load(&self, at: u64) -> u8 {
        usize::try_from(at).ok().and_then(|at| self.0.get(at)).copied().unwrap_or(0xff)
    }
    fn store(&self, _at: u64, _val: u8) {}
}

impl PciVga {
    fn class_init(c: &mut qom::Class) {
        let d = c.edit::<DeviceClass>();
        d.categories = vec![Category::Display];
        let p = c.edit::<PciDeviceClass>();
        (p.vendor_id, p.device_id, p.revision) = (0x1234, 0x1111, 2);
        p.rom_name = Some("vga");
    }

    fn memory(&self) -> Option<Memory> {
        self.vram.read().clone().map(Memory)
    }

    fn vram_size(&self) -> u64 {
        self.vram.read().as_ref().map_or(0, |v| v.len())
    }

    fn read_port(&self, m: &mut Locked, port: u16) -> u64 {
        self.regs.rw(m).read(port).into()
    }

    fn write_port(&self, m: &mut Locked, port: u16, val: u64) {
        self.regs.rw(m).write(port, val as u8);
    }

    fn read_window(&self, m: &mut Locked, off: u64, _size: u32) -> u64 {
        let Some(vram) = self.memory() else { return u64::MAX };
        planar::read(self.regs.rw(m), &vram, off as u32).into()
    }

    fn write_window(&self, m: &mut Locked, off: u64, _size: u32, val: u64) {
        if let Some(vram) = self.memory() {
            planar::write(self.regs.rw(m), &vram, off as u32, val as u8);
        }
    }

    fn read_dispi(&self, m: &mut Locked) -> u64 {
        let size = self.vram_size();
        dispi::read(self.regs.ro(m), size).into()
    }

    fn write_dispi(&self, m: &mut Locked, val: u64) {
        let size = self.vram_size();
        match dispi::write(self.regs.rw(m), val as u16, size) {
            Action::None => {}
            Action::Clear(bytes) => {
                if let Some(v) = &*self.vram.read() {
                    v.fill(0, bytes.min(size), 0);
                    v.mark_dirty(0, bytes.min(size));
                }
            }
        }
    }

    /// Ports 0x1ce (index), 0x1cf and 0x1d0 (data, also where it is aligned).
    fn read_dispi_port(&self, m: &mut Locked, off: u64, size: u32) -> u64 {
        if size != 2 {
            return u64::MAX;
        }
        match off {
            0 => self.regs.ro(m).vbe_index.into(),
            1 | 2 => self.read_dispi(m),
            _ => u64::MAX,
        }
    }

    fn write_dispi_port(&self, m: &mut Locked, off: u64, size: u32, val: u64) {
        if size != 2 {
            return;
        }
        match off {
            0 => self.regs.rw(m).vbe_index = val as u16,
            1 | 2 => self.write_dispi(m, val),
            _ => {}
        }
    }

    fn read_dispi_mmio(&self, m: &mut Locked, off: u64, _size: u32) -> u64 {
        self.regs.rw(m).vbe_index = (off >> 1) as u16;
        self.read_dispi(m)
    }

    fn write_dispi_mmio(&self, m: &mut Locked, off: u64, _size: u32, val: u64) {
        self.regs.rw(m).vbe_index = (off >> 1) as u16;
        self.write_dispi(m, val);
    }

    fn read_edid(&self, _m: &mut Locked, off: u64, _size: u32) -> u64 {
        self.edid_data.read().get(off as usize).copied().unwrap_or(0).into()
    }

    /// Extended registers: their size, then the byte order of the frame buffer.
    fn read_extended(&self, m: &mut Locked, off: u64, _size: u32) -> u64 {
        match off {
            0 => EXTENDED.1,
            _ if self.regs.ro(m).big_endian => BIG.into(),
            _ => LITTLE.into(),
        }
    }

    fn write_extended(&self, m: &mut Locked, off: u64, _size: u32, val: u64) {
        match (off, val as u32) {
            (4, LITTLE) => self.regs.rw(m).big_endian = false,
            (4, BIG) => self.regs.rw(m).big_endian = true,
            _ => {}
        }
    }

    fn mmio_bar(&self, m: &mut Locked) -> MemoryRegion {
        let hole = Ops { read: |_: &PciVga, _, _, _| u64::MAX, ..Ops::default() };
        let bar = MemoryRegion::io(self, "vga.mmio", 0x1000, hole);
        let remapped: Ops<PciVga> = Ops {
            read: |d, m, off, _| d.read_port(m, 0x3c0 + off as u16),
            write: |d, m, off, _, v| d.write_port(m, 0x3c0 + off as u16, v),
            valid: Sizes::new(1, 4),
            imp: Sizes::new(1, 1),
            ..Ops::default()
        };
        let word = Sizes::new(2, 2);
        let dispi = Ops {
            read: Self::read_dispi_mmio,
            write: Self::write_dispi_mmio,
            valid: Sizes::new(1, 4),
            imp: word,
            ..Ops::default()
        };
        bar.add_subregion(m, REMAPPED.0, &MemoryRegion::io(self, "vga ioports remapped", REMAPPED.1, remapped));
        bar.add_subregion(m, DISPI.0, &MemoryRegion::io(self, "bochs dispi interface", DISPI.1, dispi));
        if self.qemu_extended_regs.get() {
            let (read, write, valid) = (Self::read_extended, Self::write_extended, Sizes::new(4, 4));
            let ops = Ops { read, write, valid, imp: valid, ..Ops::default() };
            bar.add_subregion(m, EXTENDED.0, &MemoryRegion::io(self, "qemu extended regs", EXTENDED.1, ops));
        }
        if self.edid.get() {
            // What nobody chose reads as what the monitor then says.
            for (side, default) in [(&self.xres, edid::PREFERRED.0), (&self.yres, edid::PREFERRED.1)] {
                if side.get() == 0 {
                    side.set(default);
                }
            }
            *self.edid_data.write() = edid::generate(edid::Monitor {
                preferred: (self.xres.get(), self.yres.get()),
                largest: (self.xmax.get(), self.ymax.get()),
                refresh_rate: self.refresh_rate.get(),
            });
            let ops = Ops { read: Self::read_edid, imp: Sizes::new(1, 1), ..Ops::default() };
            bar.add_subregion(m, EDID.0, &MemoryRegion::io(self, "edid", EDID.1, ops));
        }
        bar
    }
}

impl GraphicHw for PciVga {
    fn picture(&self, m: &mut Locked) -> Picture {
        let now = m.clock.now();
        let Some(vram) = self.vram.read().clone() else { return Picture::blank(640, 480) };
        let mut copy = vec![0; vram.len() as usize];
        vram.read(0, &mut copy);
        render::render(
            self.regs.ro(m),
            &Copy(copy),
            (now / BLINK).is_multiple_of(2),
            (now / CURSOR_BLINK).is_multiple_of(2),
        )
    }
}

impl DeviceImpl for PciVga {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        let mb = self.vgamem_mb.get().clamp(1, 256).next_power_of_two();
        self.vgamem_mb.set(mb);
        let vram = MemoryRegion::ram(self, "vga.vram", u64::from(mb) << 20)?;
        *self.vram.write() = vram.ram_block().cloned();
        self.register_bar(m, 0, BarKind::Mem32Prefetch, &vram)?;
        if self.mmio.get() {
            let bar = self.mmio_bar(m);
            self.register_bar(m, 2, BarKind::Mem32, &bar)?;
        }
        GraphicConsole::create(self)?;
        Ok(())
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        self.parent_reset(m, phase);
        if phase == Phase::Enter {
            *self.regs.rw(m) = VgaRegs::default();
        }
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        self.regs.ro(m).check().map_err(Error::generic)?;
        self.parent_post_load(m)
    }
}

/// Type `VGA`: with the legacy ports and window.
#[derive(Object)]
#[qom(name = "VGA", parent = PciVga, methods(DeviceClass), class_init = Vga::class_init)]
pub struct Vga {
    parent: PciVga,
    /// The mapped legacy window and ports.
    legacy: RwLock<Vec<MemoryRegion>>,
}

impl Vga {
    fn class_init(c: &mut qom::Class) {
        let p = c.edit::<PciDeviceClass>();
        (p.class_id, p.romfile) = (0x0300, Some("vgabios-stdvga.bin"));
        c.edit::<DeviceClass>().hotpluggable = false;
        let set = |_: &Vga, on: bool| {
            if on { Err(Error::generic("a big-endian frame buffer is not supported")) } else { Ok(()) }
        };
        c.property(Property::computed::<bool>("big-endian-framebuffer").getter(|_: &Vga| Ok(false)).setter(set));
    }
}

/// The handlers of one legacy range; each needs its own as constants. A word is two bytes, the second of which may be
/// behind the range.
fn port_ops<const N: usize>() -> Ops<Vga> {
    const {
        assert!(N < PORTS.len());
    }
    Ops {
        read: |d, m, off, _| if off < port::<N>().1 { d.read_port(m, port::<N>().0 + off as u16) } else { 0xff },
        write: |d, m, off, _, v| {
            if off < port::<N>().1 {
                d.write_port(m, port::<N>().0 + off as u16, v);
            }
        },
        valid: Sizes::new(1, 2).unaligned(),
        imp: Sizes::new(1, 1).unaligned(),
        ..Ops::default()
    }
}

#[expect(clippy::indexing_slicing, reason = "evaluated when this is built")]
const fn port<const N: usize>() -> (u16, u64) {
    const { PORTS[N] }
}

impl DeviceImpl for Vga {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        let bus = self.pci_bus().ok_or("VGA is not on a PCI bus")?;
        let window = Ops::<Vga> {
            read: |d, m, off, size| d.read_window(m, off, size),
            write: |d, m, off, size, v| d.write_window(m, off, size, v),
            valid: Sizes::new(1, 8).unaligned(),
            imp: Sizes::new(1, 1).unaligned(),
            ..Ops::default()
        };
        let window = MemoryRegion::io(self, "vga-lowmem", 0x2_0000, window);
        bus.memory().add_subregion_overlap(m, LEGACY, &window, 1);
        let mut mapped = vec![window];
        let handlers = [port_ops::<0>(), port_ops::<1>(), port_ops::<2>(), port_ops::<3>(), port_ops::<4>()];
        for ((port, size), ops) in PORTS.into_iter().zip(handlers) {
            let region = MemoryRegion::io(self, "vga", size, ops);
            bus.io().add_subregion(m, port.into(), &region);
            mapped.push(region);
        }
        let dispi = Ops::<Vga> {
            read: |d, m, off, size| d.read_dispi_port(m, off, size),
            write: |d, m, off, size, v| d.write_dispi_port(m, off, size, v),
            // Only words go anywhere.
            valid: Sizes::new(1, 4).unaligned(),
            imp: Sizes::new(1, 4).unaligned(),
            ..Ops::default()
        };
        let dispi = MemoryRegion::io(self, "vbe", 4, dispi);
        bus.io().add_subregion(m, DISPI_PORT, &dispi);
        mapped.push(dispi);
        *self.legacy.write() = mapped;
        Ok(())
    }

    fn unrealize(&self, m: &mut Locked) {
        let mapped = std::mem::take(&mut *self.legacy.write());
        mapped.iter().for_each(|r| r.unmap(m));
        self.parent_unrealize(m);
    }
}
