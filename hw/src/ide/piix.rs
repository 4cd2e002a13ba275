//! PIIX3's IDE function, type `piix3-ide`, two channels at the legacy ports. Source: Intel 82371SB (PIIX3, 290550) §2.3,
//! SFF-8038i §1.2 (physical region descriptors) and §3 (status bits at the end of a transfer); ATA/ATAPI-6 §9.16 (device 0 or 1 alone).
//! An empty channel reads as zeros, as on QEMU. Timing registers are kept only.

use super::bmdma_regs::{BmdmaRegs, Engine};
use super::bus::{IdeBus, IdeDevice};
use super::transfer::{IdeChannel, Piece};
use hw_core::{
    AddressSpace, Category, DeviceClass, DeviceImpl, IrqOut, IsaBus, Line, Locked, MachineCell, MemoryRegion, Ops,
    Phase, Sizes,
    pci::{BarKind, PciDevice, PciDeviceClass},
};
use parking_lot::RwLock;
use qom::{Error, Handle, Level, Object, Ref, Result};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Command block and control port of each channel.
const CHANNELS: [(u64, u64); 2] = [(0x1f0, 0x3f6), (0x170, 0x376)];
/// DEVSEL medium, fast back-to-back.
const STATUS: u16 = 0x0280;
/// Most descriptors of a table: it does not cross 64 KiB.
const MAX_PRDS: u32 = 8192;
/// Bytes of a descriptor, and of a page of memory.
const PRD: u64 = 8;
const PAGE: u64 = 4096;

/// ISA interrupts of the channels.
const IRQS: [usize; 2] = [14, 15];
/// Device control register: no interrupts, software reset, high order byte.
const NIEN: u8 = 0x02;
const SRST: u8 = 0x04;
const HOB: u8 = 0x80;

/// A channel's own registers: those its drives share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Channel {
    /// Which drive is selected.
    unit: u8,
    /// Device control.
    control: u8,
    /// INTRQ.
    irq: bool,
    /// The device register, which also an absent drive shows.
    select: u8,
}

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
    #[state]
    channels: MachineCell<[Channel; 2]>,
    /// Interrupts of the channels in legacy mode, where a board connects them.
    isa_irqs: [IrqOut; 2],
    lines: RwLock<[Option<Line>; 2]>,
    buses: RwLock<[Handle<IdeBus>; 2]>,
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

    /// Bus master registers of a channel.
    fn bmdma(&self, channel: usize) -> &MachineCell<BmdmaRegs> {
        if channel == 0 { &self.primary } else { &self.secondary }
    }

    fn channel(&self, m: &Locked, channel: usize) -> Channel {
        self.channels.ro(m).get(channel).copied().unwrap_or_default()
    }

    /// The drives of a channel.
    fn drives(&self, channel: usize) -> [Option<Ref<IdeDevice>>; 2] {
        let bus = self.buses.read().get(channel).and_then(Handle::upgrade);
        [0, 1].map(|unit| bus.as_ref().and_then(|b| b.unit(unit)))
    }

    fn selected(&self, m: &Locked, channel: usize) -> Option<Ref<IdeDevice>> {
        let [master, slave] = self.drives(channel);
        if self.channel(m, channel).unit == 0 { master } else { slave }
    }

    /// Puts INTRQ on the wire.
    fn drive_irq(&self, m: &mut Locked, channel: usize) {
        let level = self.channel(m, channel).irq;
        if let Some(out) = self.isa_irqs.get(channel).filter(|o| o.line().is_some()) {
            out.set(m, level);
        }
        let line = self.lines.read().get(channel).cloned().flatten();
        if let Some(line) = line {
            line.set(m, level);
        }
    }

    /// Interrupts, unless the guest does not want that.
    fn raise(&self, m: &mut Locked, channel: usize) {
        let Some(c) = self.channels.rw(m).get_mut(channel) else { return };
        if c.control & NIEN != 0 {
            return;
        }
        c.irq = true;
        self.bmdma(channel).rw(m).interrupt();
        self.drive_irq(m, channel);
    }

    /// The descriptors of bytes `skip` to `skip + want` of a channel's table; fewer if it ends before.
    fn pieces(&self, m: &mut Locked, channel: usize, skip: u64, want: u64) -> Vec<Piece> {
        let mut at = u64::from(self.bmdma(channel).ro(m).table());
        let end = at + u64::from(MAX_PRDS) * PRD;
        let (mut seen, mut got, mut out) = (0u64, 0u64, vec![]);
        while got < want && at < end {
            // Up to the end of a page, behind which there may be nothing: but one at least, which may lie across.
            let mut part = [0; 16 * PRD as usize];
            let n = (PAGE - at % PAGE) / PRD * PRD;
            let n = n.clamp(PRD, part.len() as u64) as usize;
            let part = part.get_mut(..n).unwrap_or_default();
            if self.dma_read(m, at, part).is_err() {
                break;
            }
            at += n as u64;
            for [a0, a1, a2, a3, c0, c1, _, flags] in part.as_chunks::<{ PRD as usize }>().0 {
                let addr = u64::from(u32::from_le_bytes([*a0, *a1, *a2, *a3]) & !1);
                let len = match u64::from(u16::from_le_bytes([*c0, *c1]) & !1) {
                    0 => 0x1_0000,
                    n => n,
                };
                let from = skip.saturating_sub(seen).min(len);
                let n = (len - from).min(want - got);
                if n > 0 {
                    out.push(Piece { addr: addr + from, len: n, tell: false });
                    got += n;
                }
                seen += len;
                if flags & 0x80 != 0 || got == want {
                    return out;
                }
            }
        }
        out
    }

    fn lower(&self, m: &mut Locked, channel: usize) {
        if let Some(c) = self.channels.rw(m).get_mut(channel)
            && std::mem::take(&mut c.irq)
        {
            self.drive_irq(m, channel);
        }
    }

    /// A byte register of the command block.
    fn register(&self, m: &mut Locked, channel: usize, register: u64) -> u8 {
        let Some(drive) = self.selected(m, channel) else { return 0 };
        if register == 7 {
            self.lower(m, channel);
            return drive.regs().ro(m).status();
        }
        let high = self.channel(m, channel).control & HOB != 0;
        drive.regs().ro(m).read(register, high)
    }

    fn read_command(&self, m: &mut Locked, channel: usize, off: u64, size: u32) -> u64 {
        if off == 0 {
            // A byte takes a whole word, as on QEMU.
            let width = if size == 4 { 4 } else { 2 };
            let v = self.read_data(m, channel, width);
            return if size == 1 { v & 0xff } else { v };
        }
        (0..u64::from(size)).fold(0, |v, n| {
            let byte = if off + n < 8 { self.register(m, channel, off + n) } else { 0xff };
            v | u64::from(byte) << (8 * n)
        })
    }

    fn read_data(&self, m: &mut Locked, channel: usize, width: usize) -> u64 {
        let Some(drive) = self.selected(m, channel) else { return 0 };
        let (v, over) = drive.regs().rw(m).data_read(width);
        if over {
            let irq = drive.block_over(m);
            drive.settle(m, irq);
        }
        v.into()
    }

    fn write_command(&self, m: &mut Locked, channel: usize, off: u64, size: u32, val: u64) {
        if off == 0 && size > 1 {
            let Some(drive) = self.selected(m, channel) else { return };
            if drive.regs().rw(m).data_write(size as usize, val as u32) {
                let irq = drive.block_over(m);
                drive.settle(m, irq);
            }
            return;
        }
        for n in (0..u64::from(size)).filter(|n| off + n < 8) {
            self.write_register(m, channel, off + n, (val >> (8 * n)) as u8);
        }
    }

    fn write_register(&self, m: &mut Locked, channel: usize, register: u64, val: u8) {
        if register == 7 {
            let Some(drive) = self.selected(m, channel) else { return };
            if let Some(c) = self.channels.rw(m).get_mut(channel) {
                c.control &= !HOB;
            }
            self.lower(m, channel);
            return drive.execute(m, val);
        }
        let drives = self.drives(channel);
        let busy = self.selected(m, channel).is_some_and(|d| !d.regs().ro(m).is_idle());
        if busy {
            return;
        }
        if let Some(c) = self.channels.rw(m).get_mut(channel) {
            c.control &= !HOB;
            if register == 6 {
                c.unit = val >> 4 & 1;
                c.select = val | 0xa0;
            }
        }
        for drive in drives.into_iter().flatten() {
            drive.regs().rw(m).write(register, val);
        }
    }

    fn read_control(&self, m: &mut Locked, channel: usize) -> u8 {
        self.selected(m, channel).map_or(0, |d| d.regs().ro(m).status())
    }

    fn write_control(&self, m: &mut Locked, channel: usize, val: u8) {
        let Some(c) = self.channels.rw(m).get_mut(channel) else { return };
        let was = std::mem::replace(&mut c.control, val);
        if was & SRST == 0 && val & SRST != 0 {
            c.unit = 0;
            for drive in self.drives(channel).into_iter().flatten() {
                drive.soft_reset(m);
            }
        }
    }

    fn write_bmdma(&self, m: &mut Locked, channel: usize, off: u64, val: u8) {
        match self.bmdma(channel).rw(m).write(off, val) {
            Engine::Same => {}
            Engine::Started => {
                if let Some(drive) = self.selected(m, channel) {
                    drive.start_job(m);
                }
            }
            Engine::Stopped => self.drives(channel).into_iter().flatten().for_each(|d| d.cancel(m, true)),
        }
    }

    /// The 16 bytes of bus-master registers: command and status, then the table pointer, of each channel.
    fn bmdma_region(&self, m: &mut Locked) -> MemoryRegion {
        let all = MemoryRegion::container(self, "piix-bmdma-container", 16);
        let byte = Sizes::new(1, 1);
        macro_rules! part {
            ($channel:literal, $offset:literal) => {
                Ops::<PciIde> {
                    read: |d, m, off, _| d.bmdma($channel).ro(m).read(off + $offset).into(),
                    write: |d, m, off, _, v| d.write_bmdma(m, $channel, off + $offset, v as u8),
                    imp: byte,
                    ..Ops::default()
                }
            };
        }
        let parts = [(part!(0, 0), part!(0, 4)), (part!(1, 0), part!(1, 4))];
        for (base, (command, table)) in [0u64, 8].into_iter().zip(parts) {
            all.add_subregion(m, base, &MemoryRegion::io(self, "piix-bmdma", 4, command));
            all.add_subregion(m, base + 4, &MemoryRegion::io(self, "bmdma", 4, table));
        }
        all
    }

    /// Registers of a channel's command block and of its control port.
    fn legacy_ops(channel: usize) -> [Ops<PciIde>; 2] {
        let any = Sizes::new(1, 4);
        macro_rules! ops {
            ($channel:literal) => {
                [
                    Ops {
                        read: |d: &PciIde, m, off, size| d.read_command(m, $channel, off, size),
                        write: |d, m, off, size, v| d.write_command(m, $channel, off, size, v),
                        valid: any.unaligned(),
                        imp: any.unaligned(),
                        ..Ops::default()
                    },
                    Ops {
                        read: |d: &PciIde, m, _, _| d.read_control(m, $channel).into(),
                        write: |d, m, _, _, v| d.write_control(m, $channel, v as u8),
                        valid: any,
                        imp: any,
                        ..Ops::default()
                    },
                ]
            };
        }
        if channel == 0 { ops!(0) } else { ops!(1) }
    }
}

/// A channel as its drives see it.
struct Cable {
    controller: Handle<PciIde>,
    channel: usize,
}

impl Cable {
    fn with<R: Default>(&self, f: impl FnOnce(&PciIde) -> R) -> R {
        self.controller.with(f).unwrap_or_default()
    }
}

impl IdeChannel for Cable {
    fn pieces(&self, m: &mut Locked, skip: u64, want: u64) -> Vec<Piece> {
        self.with(|c| c.pieces(m, self.channel, skip, want))
    }

    fn dma_space(&self) -> Option<AddressSpace> {
        self.controller.with(|c| c.dma_space())
    }

    /// What nobody answers reads as ones.
    fn dma_read(&self, m: &mut Locked, addr: u64, buf: &mut [u8]) -> bool {
        self.with(|c| _ = c.dma_read(m, addr, buf));
        true
    }

    fn dma_write(&self, m: &mut Locked, addr: u64, data: &[u8]) {
        self.with(|c| _ = c.dma_write(m, addr, data));
    }

    fn is_active(&self, m: &Locked) -> bool {
        self.with(|c| c.bmdma(self.channel).ro(m).is_active())
    }

    /// A table that is longer than the transfer leaves the bus master active.
    fn transfer_ended(&self, m: &mut Locked, _moved: u64, longer: bool) {
        self.with(|c| c.bmdma(self.channel).rw(m).end(longer));
    }

    /// The bus master has stopped, and nobody interrupts.
    fn too_short(&self, _m: &mut Locked, _drive: &IdeDevice, _moved: u64) {}

    fn changed(&self, m: &mut Locked, _drive: &IdeDevice, irq: bool) {
        if irq {
            self.with(|c| c.raise(m, self.channel));
        }
    }
}

impl DeviceImpl for PciIde {
    fn reset(&self, m: &mut Locked, phase: Phase) {
        self.parent_reset(m, phase);
        if phase == Phase::Enter {
            *self.primary.rw(m) = BmdmaRegs::default();
            *self.secondary.rw(m) = BmdmaRegs::default();
            *self.channels.rw(m) = Default::default();
            self.config().rw(m).set_word(hw_core::pci::reg::STATUS, STATUS);
        }
        if phase == Phase::Hold {
            (0..2).for_each(|n| self.drive_irq(m, n));
        }
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        if self.channels.ro(m).iter().any(|c| c.unit > 1) {
            return Err(Error::generic("IDE: impossible state"));
        }
        (0..2).for_each(|n| self.drive_irq(m, n));
        self.parent_post_load(m)
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

    /// Takes the channels' interrupts from the ISA bus.
    fn connect_isa(&self) -> Result<()> {
        let mut found: Option<Ref<IsaBus>> = None;
        self.scope().root().walk(&mut |o| {
            if found.is_none() {
                found = Ref::new(o.clone());
            }
        });
        let isa = found.ok_or("No ISA bus found while piix3-ide requires one")?;
        *self.lines.write() = IRQS.map(|n| isa.irq(n));
        Ok(())
    }
}

impl DeviceImpl for Piix3Ide {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        self.config().rw(m).set_word(hw_core::pci::reg::STATUS, STATUS);
        let bmdma = self.bmdma_region(m);
        self.register_bar(m, 4, BarKind::Io, &bmdma)?;
        let bus = self.pci_bus().ok_or("piix3-ide is not on a PCI bus")?;
        self.connect_isa()?;
        // The legacy ports belong to no device in the tree, as on QEMU.
        let unattached = self.scope().container("/machine/unattached")?;
        let base: &PciIde = self;
        for (channel, (command, control)) in CHANNELS.into_iter().enumerate() {
            let ports = [(command, 8), (control, 1)];
            for ((port, size), ops) in ports.into_iter().zip(PciIde::legacy_ops(channel)) {
                let region = MemoryRegion::io_in(&*unattached, base, "ide", size, ops);
                bus.io().add_subregion(m, port, &region);
                self.legacy.write().push(region);
            }
            let ide = IdeBus::create(self, None, channel as u32)?;
            ide.set_channel(Arc::new(Cable { controller: base.this(), channel }));
            if let Some(slot) = self.buses.write().get_mut(channel) {
                *slot = Handle::new(Ref::object(&ide)).unwrap_or_default();
            }
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
