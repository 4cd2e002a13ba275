//! NE2000 cards: `ne2k_pci` (Realtek's RTL8029) and `ne2k_isa`. The controller and its memory: [`super::ne2000_regs`]; what the two cards
//! share is here as a trait. The expansion ROM of the first is `efi-ne2k_pci.rom` where the firmware's folders have it.

use super::ne2000_regs::Ne2000Regs;
use hw_core::{
    Category, DeviceClass, DeviceImpl, IrqOut, IsaDevice, Locked, MachineCell, MemoryRegion, Ops, Phase, Sizes,
    pci::{BarKind, PciDevice, PciDeviceClass, PciImpl},
};
use net::{MacAddr, MacProp, Nic, NicHandlers, PeerSlot};
use qom::{Error, Level, Object, Prop, Property, Result};

/// Expansion ROM.
const ROM: &str = "efi-ne2k_pci.rom";
/// Ports: of the controller, of its data and of its reset.
const PORTS: u64 = 0x20;
/// Ports of the PCI card's window.
const WINDOW: u64 = 0x100;

/// What the two cards have.
trait Board: Level {
    fn regs(&self) -> &MachineCell<Ne2000Regs>;
    fn nic(&self) -> &Nic;
    fn mac(&self) -> &MacProp;
    fn netdev(&self) -> &PeerSlot;
    fn set_line(&self, m: &mut Locked, on: bool);

    fn settle(&self, m: &mut Locked) {
        let on = self.regs().ro(m).line();
        self.set_line(m, on);
    }

    fn show_address(&self, mac: MacAddr) {
        self.nic().set_info(self.base().type_name(), mac);
    }

    fn io_read(&self, m: &mut Locked, off: u64, size: u32) -> u64 {
        if off >= PORTS {
            return 0;
        }
        let v = self.regs().rw(m).read(off as u32, size);
        self.settle(m);
        v.into()
    }

    fn io_write(&self, m: &mut Locked, off: u64, size: u32, val: u64) {
        if off >= PORTS {
            return;
        }
        let regs = self.regs().rw(m);
        let before = regs.station();
        let frame = regs.write(off as u32, size, val as u32);
        let (after, runs) = (regs.station(), regs.runs());
        if let Some(frame) = frame {
            self.nic().send(frame);
        }
        if before != after {
            self.show_address(MacAddr(after));
        }
        self.settle(m);
        if runs {
            self.nic().flush();
        }
    }

    fn region(&self, size: u64) -> MemoryRegion {
        let sizes = Sizes::new(1, 4).unaligned();
        let ops = Ops { read: Self::io_read, write: Self::io_write, valid: sizes, imp: sizes, ..Ops::default() };
        MemoryRegion::io(self, "ne2000", size, ops)
    }

    fn plug(&self, m: &mut Locked) -> Result<()> {
        if self.mac().get().is_multicast() {
            return Err(Error::generic("NIC cannot have multicast MAC address (odd 1st byte)"));
        }
        let handlers = NicHandlers {
            // (A frame that finds no room is an event.)
            can_receive: |_: &Self, _| true,
            receive: |d, m, frame| {
                let taken = d.regs().rw(m).receive(frame);
                d.settle(m);
                taken
            },
            receive_unfinished: None,
            // (The controller does not see its cable.)
            link_changed: |_, _, _| (),
            peer_ready: None,
            rx_filter: None,
        };
        self.nic().realize(self, self.base().type_name(), self.mac(), self.netdev(), handlers)?;
        *self.regs().rw(m) = Ne2000Regs::power_on(self.mac().get().0);
        Ok(())
    }

    fn power_on(&self, m: &mut Locked) {
        self.nic().purge();
        *self.regs().rw(m) = Ne2000Regs::power_on(self.mac().get().0);
        self.show_address(self.mac().get());
    }

    fn loaded(&self, m: &mut Locked) -> Result<()> {
        if !self.regs().ro(m).is_possible() {
            return Err(Error::generic("ne2000: memory of another size"));
        }
        self.settle(m);
        self.nic().flush();
        Ok(())
    }
}

fn boot_index_property<T: Level>(field: fn(&T) -> &Prop<i32>) -> Property {
    Property::computed::<i32>("bootindex").getter(move |d: &T| Ok(field(d).get() - 1)).setter(move |d: &T, n: i32| {
        field(d).set(n.saturating_add(1));
        Ok(())
    })
}

/// Type `ne2k_pci`.
#[derive(Object)]
#[qom(name = "ne2k_pci", parent = PciDevice, methods(DeviceClass, PciDeviceClass), interfaces("conventional-pci-device"),
    class_init = Ne2kPci::class_init)]
pub struct Ne2kPci {
    parent: PciDevice,
    #[property]
    mac: MacProp,
    #[property]
    netdev: PeerSlot,
    bootindex: Prop<i32>,
    #[state]
    regs: MachineCell<Ne2000Regs>,
    nic: Nic,
}

impl Ne2kPci {
    fn class_init(c: &mut qom::Class) {
        c.edit::<DeviceClass>().categories = vec![Category::Network];
        let p = c.edit::<PciDeviceClass>();
        p.optional_romfile = Some(ROM);
        (p.vendor_id, p.device_id, p.class_id) = (0x10ec, 0x8029, 0x0200);
        c.property(boot_index_property(|d: &Self| &d.bootindex));
    }

    /// Place in the boot order.
    pub fn boot_index(&self) -> Option<i32> {
        Some(self.bootindex.get() - 1).filter(|n| *n >= 0)
    }
}

impl Board for Ne2kPci {
    fn regs(&self) -> &MachineCell<Ne2000Regs> {
        &self.regs
    }
    fn nic(&self) -> &Nic {
        &self.nic
    }
    fn mac(&self) -> &MacProp {
        &self.mac
    }
    fn netdev(&self) -> &PeerSlot {
        &self.netdev
    }
    fn set_line(&self, m: &mut Locked, on: bool) {
        self.set_intx(m, on);
    }
}

impl DeviceImpl for Ne2kPci {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        self.set_intx_pin(m, 1);
        self.register_bar(m, 0, BarKind::Io, &self.region(WINDOW))?;
        crate::i386::drives::check_boot_index(self.scope(), self.boot_index())?;
        self.plug(m)
    }

    fn unrealize(&self, m: &mut Locked) {
        self.nic.unrealize(self, &self.mac);
        self.parent_unrealize(m);
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        if phase == Phase::Enter {
            self.power_on(m);
        }
        self.parent_reset(m, phase);
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        self.parent_post_load(m)?;
        self.loaded(m)
    }
}

impl PciImpl for Ne2kPci {
    fn config_read(&self, m: &mut Locked, at: u32, len: u32) -> u32 {
        self.default_config_read(m, at, len)
    }

    fn config_write(&self, m: &mut Locked, at: u32, len: u32, val: u32) {
        self.default_config_write(m, at, len, val);
    }
}

/// Type `ne2k_isa`.
#[derive(Object)]
#[qom(name = "ne2k_isa", parent = IsaDevice, methods(DeviceClass), class_init = Ne2kIsa::class_init)]
pub struct Ne2kIsa {
    parent: IsaDevice,
    #[property(default = 0x300)]
    iobase: Prop<u32>,
    #[property(default = 9)]
    irq: Prop<u32>,
    #[property]
    mac: MacProp,
    #[property]
    netdev: PeerSlot,
    bootindex: Prop<i32>,
    #[state]
    regs: MachineCell<Ne2000Regs>,
    line: IrqOut,
    nic: Nic,
}

impl Ne2kIsa {
    fn class_init(c: &mut qom::Class) {
        c.edit::<DeviceClass>().categories = vec![Category::Network];
        c.property(boot_index_property(|d: &Self| &d.bootindex));
    }

    /// Place in the boot order.
    pub fn boot_index(&self) -> Option<i32> {
        Some(self.bootindex.get() - 1).filter(|n| *n >= 0)
    }
}

impl Board for Ne2kIsa {
    fn regs(&self) -> &MachineCell<Ne2000Regs> {
        &self.regs
    }
    fn nic(&self) -> &Nic {
        &self.nic
    }
    fn mac(&self) -> &MacProp {
        &self.mac
    }
    fn netdev(&self) -> &PeerSlot {
        &self.netdev
    }
    fn set_line(&self, m: &mut Locked, on: bool) {
        if on != self.line.level() {
            self.line.set(m, on);
        }
    }
}

impl DeviceImpl for Ne2kIsa {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        let base = self.iobase.get();
        if base > 0x1_0000 - PORTS as u32 {
            return Err(Error::generic(format!("iobase {base:#x} is beyond the ports")));
        }
        self.line.connect(Some(self.isa_irq(self.irq.get())?));
        crate::i386::drives::check_boot_index(self.scope(), self.boot_index())?;
        self.plug(m)?;
        self.map_io(m, base.into(), &self.region(PORTS))
    }

    fn unrealize(&self, m: &mut Locked) {
        self.unmap_io(m);
        self.nic.unrealize(self, &self.mac);
        self.parent_unrealize(m);
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        self.parent_reset(m, phase);
        match phase {
            Phase::Enter => self.power_on(m),
            Phase::Hold => self.settle(m),
            Phase::Exit => {}
        }
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        self.parent_post_load(m)?;
        self.loaded(m)
    }
}
