//! Intel's 8254x gigabit cards: types `e1000` (82540EM), `e1000-82544gc`, `e1000-82545em`. Source: Intel 317453.
//! Registers: [`super::e1000_regs`], transmission: [`super::e1000_tx`], reception: [`super::e1000_rx`]. The expansion ROM is
//! `efi-e1000.rom` where the firmware's folders have it; a card without it boots nothing, but works.

use super::e1000_regs::{E1000Regs, Effect, Info};
use super::e1000_rx::{Accepted, write_back};
use super::e1000_tx::Descriptor;
use hw_core::{
    Category, DeviceClass, DeviceImpl, Locked, MachineCell, MemoryRegion, Ops, Phase, Sizes, Timer,
    pci::{BarKind, PciDevice, PciDeviceClass, PciImpl},
};
use net::{Busy, MacAddr, MacProp, Nic, NicHandlers, PeerSlot};
use qom::{Error, Object, Prop, Property, Result, TypeInfo};

/// Nanoseconds until transmission goes on.
const AGAIN: u64 = 10_000;

/// Type, device id, second id register of the PHY, another name.
const TYPES: [(&str, u16, u16, Option<&str>); 3] = [
    ("e1000", 0x100e, 0x0c20, Some("e1000-82540em")),
    ("e1000-82544gc", 0x100c, 0x0c30, None),
    ("e1000-82545em", 0x100f, 0x0c20, None),
];

/// Expansion ROM.
const ROM: &str = "efi-e1000.rom";
const MMIO_SIZE: u64 = 0x2_0000;
const IO_SIZE: u64 = 0x40;

/// What a type is.
struct Model(u16);

/// Type `e1000-base`.
#[derive(Object)]
#[qom(name = "e1000-base", parent = PciDevice, abstract, methods(DeviceClass, PciDeviceClass),
    interfaces("conventional-pci-device"), class_init = E1000::class_init, instance_init = E1000::instance_init)]
pub struct E1000 {
    parent: PciDevice,
    #[property]
    mac: MacProp,
    #[property]
    netdev: PeerSlot,
    bootindex: Prop<i32>,
    #[property(name = "migrate_tso_props", default = true)]
    migrate_tso_props: Prop<bool>,
    #[property(name = "init-vet", default = true)]
    init_vet: Prop<bool>,
    #[state]
    regs: MachineCell<Regs>,
    timer: Timer,
    /// Goes on with transmission.
    tx_timer: Timer,
    nic: Nic,
    sending: Busy,
}

/// The registers; before realize there is no address for the EEPROM yet.
type Regs = E1000Regs;

impl Default for E1000Regs {
    fn default() -> Self {
        Self::power_on(&Info::default(), true)
    }
}

qom::register!(|r| {
    for (name, device_id, phy_id2, alias) in TYPES {
        let info = TypeInfo::of::<E1000>(name).parent("e1000-base").class_data(Model(phy_id2));
        r.add(info.class_init(move |c| {
            c.edit::<DeviceClass>().alias = alias;
            c.edit::<PciDeviceClass>().device_id = device_id;
        }));
    }
});

impl E1000 {
    fn class_init(c: &mut qom::Class) {
        let d = c.edit::<DeviceClass>();
        d.categories = vec![Category::Network];
        d.fw_name = Some("ethernet");
        let p = c.edit::<PciDeviceClass>();
        p.optional_romfile = Some(ROM);
        (p.vendor_id, p.revision, p.class_id) = (0x8086, 0x03, 0x0200);
        c.property(Property::computed::<i32>("bootindex").getter(|d: &E1000| Ok(d.bootindex.get() - 1)).setter(
            |d: &E1000, n: i32| {
                d.bootindex.set(n.saturating_add(1));
                Ok(())
            },
        ));
    }

    fn instance_init(&self) -> Result<()> {
        self.timer.init(self, Self::settle);
        self.tx_timer.init(self, Self::transmit_on);
        Ok(())
    }

    fn info(&self) -> Info {
        let model = self.class().data::<Model>();
        Info {
            device_id: self.pci_class().device_id,
            phy_id2: model.map_or(0, |m| m.0),
            mac: self.mac.get().0,
            init_vet: self.init_vet.get(),
        }
    }

    fn power_on(&self, m: &mut Locked) {
        let up = self.nic.is_link_up();
        *self.regs.rw(m) = E1000Regs::power_on(&self.info(), up);
        self.show_address(m);
    }

    fn show_address(&self, m: &Locked) {
        self.nic.set_info(self.type_name(), MacAddr(self.regs.ro(m).station()));
    }

    /// Lets time pass in the registers and puts the interrupt on its pin.
    fn settle(&self, m: &mut Locked) {
        let now = m.clock.now();
        let up = self.nic.is_link_up();
        let regs = self.regs.rw(m);
        let (next, line) = (regs.settle(now, up), regs.line);
        self.timer.arm(m, next);
        self.set_intx(m, line);
    }

    fn read(&self, m: &mut Locked, off: u64, _: u32) -> u64 {
        let v = self.regs.rw(m).read(off as u32 & !3);
        self.settle(m);
        v.into()
    }

    fn write(&self, m: &mut Locked, off: u64, _: u32, val: u64) {
        let now = m.clock.now();
        match self.regs.rw(m).write(now, off as u32 & !3, val as u32) {
            Effect::None => {}
            Effect::Transmit => self.transmit(m),
            Effect::Receive => self.nic.flush(),
            Effect::Reset => {
                self.power_on(m);
                self.nic.flush();
            }
        }
        if (0x5400..0x5408).contains(&off) {
            self.show_address(m);
        }
        self.settle(m);
    }

    /// The I/O window: an address, then data, §13.2.2.
    fn io_read(&self, m: &mut Locked, off: u64, size: u32) -> u64 {
        let at = self.regs.ro(m).ioaddr;
        match off {
            0 => at.into(),
            4 => self.read(m, at.into(), size),
            _ => 0,
        }
    }

    fn io_write(&self, m: &mut Locked, off: u64, size: u32, val: u64) {
        match off {
            0 => self.regs.rw(m).ioaddr = val as u32 & (MMIO_SIZE as u32 - 1),
            4 => {
                let at = self.regs.ro(m).ioaddr;
                self.write(m, at.into(), size, val);
            }
            _ => {}
        }
    }

    /// Place in the boot order.
    pub fn boot_index(&self) -> Option<i32> {
        Some(self.bootindex.get() - 1).filter(|n| *n >= 0)
    }

    /// Goes on where [`Self::transmit`] let others have the machine.
    fn transmit_on(&self, m: &mut Locked) {
        self.transmit(m);
        self.settle(m);
    }

    /// Works through the transmit ring, a part of it at once: one register write must not hold the machine for long.
    fn transmit(&self, m: &mut Locked) {
        const EN: u32 = 1 << 1;
        // (A frame that is looped back may be stored into the register that begins this.)
        let Some(_busy) = self.sending.enter() else { return };
        // Bytes, and what a descriptor and a frame cost at least.
        let mut budget = 1usize << 20;
        let spend = |n: usize| 64 + n;
        // As many descriptors as there can be: a ring that software moves while it is worked through ends as well.
        for _ in 0..=self.regs.ro(m).tx.count() {
            let regs = self.regs.ro(m);
            if regs.tctl & EN == 0 {
                return;
            }
            let Some(at) = regs.tx.next() else { break };
            let mut bytes = [0; 16];
            if self.dma_read(m, at, &mut bytes).is_err() {
                // The ring is nowhere: nothing more can be fetched.
                return;
            }
            let d = Descriptor::from_bytes(bytes);
            let mut data = vec![];
            if let Some((from, len)) = d.buffer() {
                data.resize(len, 0);
                if self.dma_read(m, from, &mut data).is_err() {
                    data.fill(0);
                }
            }
            let frames = self.regs.rw(m).take_descriptor(d, &data);
            let cost = spend(data.len()) + frames.iter().map(|f| spend(f.len())).sum::<usize>();
            budget = budget.saturating_sub(cost);
            let regs = self.regs.ro(m);
            let (up, back) = (regs.link, regs.loops_back());
            for frame in frames {
                if back {
                    self.receive(m, &frame);
                } else if up {
                    self.nic.send(frame);
                }
            }
            let now = m.clock.now();
            if let Some(status) = d.status() {
                _ = self.dma_write(m, at.wrapping_add(12), &status.to_le_bytes());
                self.regs.rw(m).transmitted(now, d.may_wait());
            }
            let regs = self.regs.rw(m);
            regs.tx.advance();
            if regs.tx.next().is_none() {
                regs.raise(super::e1000_regs::icr::TXQE);
            } else if budget == 0 {
                return self.tx_timer.arm(m, Some(now.saturating_add(AGAIN)));
            }
        }
    }

    fn is_master(&self, m: &Locked) -> bool {
        use hw_core::pci::{command, reg};
        self.config().ro(m).word(reg::COMMAND) & command::MASTER != 0
    }

    fn can_receive(&self, m: &mut Locked) -> bool {
        // A card that is off loses frames; one without buffers makes the sender wait.
        let on = self.regs.ro(m).receives() && self.is_master(m);
        !on || self.regs.ro(m).rx.available() > 0
    }

    fn receive(&self, m: &mut Locked, frame: &[u8]) -> bool {
        if !self.regs.ro(m).receives() || !self.is_master(m) {
            return true;
        }
        let regs = self.regs.rw(m);
        if !regs.has_room(frame.len() + 4) {
            // Wait for more buffers, unless all there can be are too few.
            let never = usize::from(regs.rx.count().saturating_sub(1)) * regs.buffer_size() < frame.len() + 4;
            regs.overrun();
            self.settle(m);
            return never;
        }
        if let Some(accepted) = regs.accept(frame) {
            self.store(m, &accepted);
            let now = m.clock.now();
            self.regs.rw(m).stored(now);
            self.settle(m);
        }
        true
    }

    /// Puts a frame into buffers.
    fn store(&self, m: &mut Locked, a: &Accepted) {
        let size = self.regs.ro(m).buffer_size();
        let mut rest = a.data.as_slice();
        while let Some(at) = self.regs.ro(m).rx.next() {
            let mut bytes = [0; 8];
            if self.dma_read(m, at, &mut bytes).is_err() {
                return;
            }
            let buffer = u64::from_le_bytes(bytes);
            let (piece, left) = rest.split_at(rest.len().min(size));
            // A descriptor without a buffer is passed over.
            let null = buffer == 0;
            if !null {
                _ = self.dma_write(m, buffer, piece);
                rest = left;
            }
            let last = !null && rest.is_empty();
            let status = write_back(a, if null { 0 } else { piece.len() }, last);
            _ = self.dma_write(m, at.wrapping_add(8), &status);
            self.regs.rw(m).rx.advance();
            if last {
                return;
            }
        }
    }

    fn link_changed(&self, m: &mut Locked, up: bool) {
        self.regs.rw(m).set_link(up);
        self.settle(m);
    }
}

impl DeviceImpl for E1000 {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        self.set_intx_pin(m, 1);
        let sizes = Sizes::new(1, 4);
        let imp = Sizes::new(4, 4);
        let ops = Ops { read: Self::read, write: Self::write, valid: sizes, imp, ..Ops::default() };
        let mmio = MemoryRegion::io(self, "e1000-mmio", MMIO_SIZE, ops);
        let ops = Ops { read: Self::io_read, write: Self::io_write, valid: sizes, imp, ..Ops::default() };
        let io = MemoryRegion::io(self, "e1000-io", IO_SIZE, ops);
        self.register_bar(m, 0, BarKind::Mem32, &mmio)?;
        self.register_bar(m, 1, BarKind::Io, &io)?;
        crate::i386::drives::check_boot_index(self.scope(), self.boot_index())?;
        if self.mac.get().is_multicast() {
            return Err(Error::generic("NIC cannot have multicast MAC address (odd 1st byte)"));
        }
        let handlers = NicHandlers {
            can_receive: Self::can_receive,
            receive: Self::receive,
            receive_unfinished: None,
            link_changed: Self::link_changed,
            peer_ready: None,
            rx_filter: None,
        };
        self.nic.realize(self, self.type_name(), &self.mac, &self.netdev, handlers)?;
        self.power_on(m);
        Ok(())
    }

    fn unrealize(&self, m: &mut Locked) {
        self.nic.unrealize(self, &self.mac);
        self.timer.arm(m, None);
        self.tx_timer.arm(m, None);
        self.parent_unrealize(m);
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        if phase == Phase::Enter {
            self.nic.purge();
            self.power_on(m);
            self.timer.arm(m, None);
            self.tx_timer.arm(m, None);
        }
        self.parent_reset(m, phase);
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        if !self.regs.ro(m).is_valid() {
            return Err(Error::generic("e1000: tables of another size"));
        }
        self.parent_post_load(m)?;
        self.show_address(m);
        // The cable may have been moved since.
        let up = self.nic.is_link_up();
        self.regs.rw(m).plug(up);
        if self.regs.ro(m).tx.next().is_some() {
            let now = m.clock.now();
            self.tx_timer.arm(m, Some(now));
        }
        self.settle(m);
        self.nic.flush();
        Ok(())
    }
}

impl PciImpl for E1000 {
    fn config_read(&self, m: &mut Locked, at: u32, len: u32) -> u32 {
        self.default_config_read(m, at, len)
    }

    /// A card that becomes a bus master can take and send frames.
    fn config_write(&self, m: &mut Locked, at: u32, len: u32, val: u32) {
        self.default_config_write(m, at, len, val);
        if self.is_master(m) {
            self.transmit_on(m);
        }
        self.nic.flush();
    }
}
