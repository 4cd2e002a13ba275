//! Realtek's RTL8139C+, type `rtl8139`: a fast Ethernet card with two ways to pass frames, four transmit registers and one receive buffer
//! (C mode), or rings of descriptors (C+ mode). Source: RTL8139C(L)+ datasheet rev. 1.6. Registers: [`super::rtl8139_regs`], transmit
//! descriptors: [`super::rtl8139_tx`]. The expansion ROM is `efi-rtl8139.rom` where the firmware's folders have it.
//! Not modelled: frames in pieces of several receive descriptors; early interrupts; collisions.

use super::rtl8139_regs::{Effect, Rtl8139Regs, cpcr, cr, isr, rcr, tsd};
use super::rtl8139_tx::Descriptor;
use hw_core::{
    Category, DeviceClass, DeviceImpl, Locked, MachineCell, MemoryRegion, Ops, Phase, Sizes, Timer,
    pci::{BarKind, PciDevice, PciDeviceClass, PciImpl, command, reg},
};
use net::checksum::{check, crc32, word};
use net::{Busy, MacAddr, MacProp, Nic, NicHandlers, PeerSlot};
use qom::{Error, Object, Prop, Property, Result};

/// Expansion ROM.
const ROM: &str = "efi-rtl8139.rom";
/// Bytes of registers.
const SIZE: u64 = 0x100;
/// Nanoseconds until transmission goes on.
const AGAIN: u64 = 10_000;
/// Bytes of a frame without check sequence, at least.
const SHORTEST: usize = 60;
/// The longest frame that C mode keeps room for.
const LONGEST: u32 = 1514;
/// Bytes before a frame in C mode, and of the check sequence behind it.
const HEADER: usize = 4;
const FCS: usize = 4;

/// First word of a receive descriptor that is the driver's again: first and last of a frame; what was found: kind of packet, errors.
const RX_EOR: u32 = 1 << 30;
const RX_FS_LS: u32 = 3 << 28;
const RX_TCP: u32 = 1 << 17;
const RX_UDP: u32 = 2 << 17;
const RX_IP: u32 = 3 << 17;
const RX_IPF: u32 = 1 << 16;
const RX_UDPF: u32 = 1 << 15;
const RX_TCPF: u32 = 1 << 14;
/// Second word: a tag was taken out.
const RX_TAVA: u32 = 1 << 16;

/// Type `rtl8139`.
#[derive(Object)]
#[qom(name = "rtl8139", parent = PciDevice, methods(DeviceClass, PciDeviceClass), interfaces("conventional-pci-device"),
    class_init = Rtl8139::class_init, instance_init = Rtl8139::instance_init)]
pub struct Rtl8139 {
    parent: PciDevice,
    #[property]
    mac: MacProp,
    #[property]
    netdev: PeerSlot,
    bootindex: Prop<i32>,
    #[state]
    regs: MachineCell<Regs>,
    timer: Timer,
    /// Goes on with transmission.
    tx_timer: Timer,
    nic: Nic,
    sending: Busy,
}

type Regs = Rtl8139Regs;

impl Default for Rtl8139Regs {
    fn default() -> Self {
        Self::power_on([0; 6], true)
    }
}

impl Rtl8139 {
    fn class_init(c: &mut qom::Class) {
        let d = c.edit::<DeviceClass>();
        d.categories = vec![Category::Network];
        let p = c.edit::<PciDeviceClass>();
        p.optional_romfile = Some(ROM);
        (p.vendor_id, p.device_id, p.revision, p.class_id) = (0x10ec, 0x8139, 0x20, 0x0200);
        c.property(Property::computed::<i32>("bootindex").getter(|d: &Rtl8139| Ok(d.bootindex.get() - 1)).setter(
            |d: &Rtl8139, n: i32| {
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

    /// Place in the boot order.
    pub fn boot_index(&self) -> Option<i32> {
        Some(self.bootindex.get() - 1).filter(|n| *n >= 0)
    }

    fn show_address(&self, m: &Locked) {
        self.nic.set_info(self.type_name(), MacAddr(self.regs.ro(m).station()));
    }

    /// Lets time pass in the registers and puts the interrupt on its pin.
    fn settle(&self, m: &mut Locked) {
        let now = m.clock.now();
        let regs = self.regs.rw(m);
        let (next, line) = (regs.settle(now), regs.line());
        self.timer.arm(m, next);
        self.set_intx(m, line);
    }

    fn read(&self, m: &mut Locked, off: u64, size: u32) -> u64 {
        let now = m.clock.now();
        self.regs.ro(m).read(now, off as u32, size).into()
    }

    fn write(&self, m: &mut Locked, off: u64, size: u32, val: u64) {
        let now = m.clock.now();
        for effect in self.regs.rw(m).write(now, off as u32, size, val as u32) {
            match effect {
                Effect::None => {}
                Effect::Reset(command) => {
                    let (mac, up) = (self.mac.get().0, self.nic.is_link_up());
                    let regs = self.regs.rw(m);
                    regs.reset(mac, up);
                    regs.cr = command;
                    self.show_address(m);
                }
                Effect::Transmit => self.transmit(m),
                Effect::Receive => {
                    self.transmit(m);
                    self.nic.flush();
                }
                Effect::Address => self.show_address(m),
                Effect::Dump(at) => {
                    let bytes = self.regs.ro(m).tally.to_bytes();
                    _ = self.dma_write(m, at, &bytes);
                }
            }
        }
        self.settle(m);
    }

    /// Goes on where [`Self::transmit`] let others have the machine.
    fn transmit_on(&self, m: &mut Locked) {
        self.transmit(m);
        self.settle(m);
    }

    fn send(&self, m: &mut Locked, frame: Vec<u8>) {
        if self.regs.ro(m).loops_back() {
            self.receive(m, &frame);
        } else {
            self.nic.send(frame);
        }
    }

    fn fetch(&self, m: &mut Locked, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        if self.dma_read(m, at, &mut bytes).is_err() {
            bytes.fill(0);
        }
        bytes
    }

    /// Sends what there is, a part of it at once.
    fn transmit(&self, m: &mut Locked) {
        if !self.regs.ro(m).transmits() {
            return;
        }
        // (A frame that is looped back may be stored into the registers that begin this.)
        let Some(_busy) = self.sending.enter() else { return };
        if self.regs.ro(m).cpcr & cpcr::TX != 0 {
            return self.transmit_rings(m);
        }
        // Each register once: sending is how they become software's again.
        for _ in 0..4 {
            let regs = self.regs.ro(m);
            let n = usize::from(regs.next_tx) & 3;
            let (status, at) = (regs.tsd.get(n).copied().unwrap_or(tsd::OWN), regs.tsad.get(n).copied().unwrap_or(0));
            if status & tsd::OWN != 0 {
                break;
            }
            let mut frame = self.fetch(m, at.into(), (status & 0x1fff) as usize);
            let regs = self.regs.rw(m);
            if !frame.is_empty() {
                regs.finish(&mut frame);
            }
            if let Some(s) = regs.tsd.get_mut(n) {
                *s |= tsd::OWN | tsd::TOK;
            }
            regs.next_tx = (regs.next_tx + 1) & 3;
            regs.raise(isr::TOK);
            if !frame.is_empty() {
                self.send(m, frame);
            }
        }
    }

    /// C+ mode: the ring of high priority, then the other.
    fn transmit_rings(&self, m: &mut Locked) {
        let mut budget = 1usize << 20;
        for n in [1, 0] {
            let mut done = false;
            while self.regs.ro(m).polled.get(n) == Some(&true) {
                if budget == 0 {
                    let at = m.clock.now().saturating_add(AGAIN);
                    self.tx_timer.arm(m, Some(at));
                    break;
                }
                let mut ring = self.regs.ro(m).tx_ring(n);
                let at = ring.at();
                let mut bytes = [0; 16];
                let d = self.dma_read(m, at, &mut bytes).ok().map(|()| Descriptor::from_bytes(bytes));
                let Some(d) = d.filter(Descriptor::is_owned) else {
                    if let Some(polled) = self.regs.rw(m).polled.get_mut(n) {
                        *polled = false;
                    }
                    break;
                };
                let data = self.fetch(m, d.buffer(), d.len());
                let frames = self.regs.rw(m).take_descriptor(d, &data);
                budget = budget.saturating_sub(frames.iter().fold(256 + data.len(), |n, f| n + 256 + f.len()));
                _ = self.dma_write(m, at, &d.sent().to_le_bytes());
                ring.advance(d.is_last());
                if let Some(next) = self.regs.rw(m).tx_next.get_mut(n) {
                    *next = ring.next;
                }
                frames.into_iter().for_each(|f| self.send(m, f));
                done = true;
            }
            if done {
                self.regs.rw(m).raise(isr::TOK);
            }
        }
    }

    fn is_master(&self, m: &Locked) -> bool {
        self.config().ro(m).word(reg::COMMAND) & command::MASTER != 0
    }

    fn receives(&self, m: &Locked) -> bool {
        self.regs.ro(m).cr & cr::RE != 0 && self.is_master(m)
    }

    fn can_receive(&self, m: &mut Locked) -> bool {
        let regs = self.regs.ro(m);
        // Rings are in memory, where nobody says that there is room again: such a card loses frames, as one that is off.
        if !self.receives(m) || regs.cpcr & cpcr::RX != 0 {
            return true;
        }
        let room = regs.room();
        room == 0 || room >= LONGEST || regs.wants(isr::RXOVW)
    }

    fn receive(&self, m: &mut Locked, frame: &[u8]) -> bool {
        if !self.receives(m) {
            return true;
        }
        let Some(to) = frame.first_chunk::<6>() else { return true };
        let Some(why) = self.regs.ro(m).accepts(*to) else { return true };
        let mut data = frame.to_vec();
        if data.len() < SHORTEST {
            data.resize(SHORTEST, 0);
        }
        let stored = if self.regs.ro(m).cpcr & cpcr::RX != 0 {
            self.store_in_ring(m, data, why)
        } else {
            self.store_in_buffer(m, &data, why)
        };
        let regs = self.regs.rw(m);
        if stored {
            regs.raise(isr::ROK);
            let tally = &mut regs.tally;
            tally.rx_ok = tally.rx_ok.wrapping_add(1);
            match why {
                1 => tally.rx_broadcast = tally.rx_broadcast.wrapping_add(1),
                4 => tally.rx_multicast = tally.rx_multicast.wrapping_add(1),
                _ => tally.rx_physical = tally.rx_physical.wrapping_add(1),
            }
        } else {
            regs.overrun();
        }
        self.settle(m);
        true
    }

    /// C mode: header, frame and check sequence go into the buffer, to a whole double word.
    fn store_in_buffer(&self, m: &mut Locked, data: &[u8], why: u8) -> bool {
        let regs = self.regs.ro(m);
        let (size, room, start) = (regs.buffer_size(), regs.room(), u64::from(regs.rbstart));
        let whole = ((data.len() + HEADER + FCS + 3) & !3) as u32;
        if room != 0 && whole >= room || whole >= size {
            return false;
        }
        let wraps = regs.rcr & rcr::WRAP != 0 && size < 0x1_0000;
        let at = u32::from(regs.write_at);
        // ROK, and why it was taken: bits 13 to 15.
        let status = 1 | u16::from(why) << 13;
        let mut bytes = status.to_le_bytes().to_vec();
        bytes.extend(((data.len() + FCS) as u16).to_le_bytes());
        bytes.extend_from_slice(data);
        bytes.extend(crc32(data).to_le_bytes());
        let (first, rest) =
            if wraps { (&bytes[..], &[][..]) } else { bytes.split_at(bytes.len().min((size - at) as usize)) };
        _ = self.dma_write(m, start + u64::from(at), first);
        _ = self.dma_write(m, start, rest);
        self.regs.rw(m).write_at = ((at + whole) & (size - 1)) as u16;
        true
    }

    /// C+ mode: the frame goes into the buffer of the next descriptor.
    fn store_in_ring(&self, m: &mut Locked, mut data: Vec<u8>, why: u8) -> bool {
        let regs = self.regs.ro(m);
        let (mut ring, plus) = (regs.rx_ring, regs.cpcr);
        let at = ring.at();
        let mut bytes = [0; 16];
        let d = self.dma_read(m, at, &mut bytes).ok().map(|()| Descriptor::from_bytes(bytes));
        let Some(d) = d.filter(Descriptor::is_owned) else { return false };
        let mut tag = 0;
        if plus & cpcr::RX_VLAN != 0 && word(&data, 12) == Some(0x8100) {
            let id = word(&data, 14).unwrap_or(0);
            tag = RX_TAVA | u32::from(id.swap_bytes());
            data.drain(12..16);
        }
        if data.len() + FCS > d.room() {
            return false;
        }
        let mut status = RX_FS_LS | u32::from(why) << 25;
        if plus & cpcr::RX_CHECKSUM != 0 {
            let found = check(&data);
            let wrong = |right: Option<bool>, bit: u32| if right == Some(false) { bit } else { 0 };
            status |= match (found.ip, found.upper, found.udp) {
                (_, Some(_), true) => RX_UDP | wrong(found.upper, RX_UDPF),
                (_, Some(_), false) => RX_TCP | wrong(found.upper, RX_TCPF),
                (Some(_), None, _) => RX_IP,
                _ => 0,
            } | wrong(found.ip, RX_IPF);
        }
        let fcs = crc32(&data);
        data.extend(fcs.to_le_bytes());
        _ = self.dma_write(m, d.buffer(), &data);
        if d.is_last() {
            status |= RX_EOR;
        }
        status |= data.len() as u32 & 0x3fff;
        _ = self.dma_write(m, at.wrapping_add(4), &tag.to_le_bytes());
        // The first word last: it gives the descriptor back.
        _ = self.dma_write(m, at, &status.to_le_bytes());
        ring.advance(d.is_last());
        self.regs.rw(m).rx_ring = ring;
        true
    }

    fn link_changed(&self, m: &mut Locked, up: bool) {
        let regs = self.regs.rw(m);
        regs.set_link(up);
        regs.raise(isr::LINK_CHG);
        self.settle(m);
    }
}

impl DeviceImpl for Rtl8139 {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        self.set_intx_pin(m, 1);
        // (A pointer to the power management that the status does not announce, as on the peer.)
        self.config().rw(m).set_byte(reg::CAPABILITY_LIST, 0xdc);
        let sizes = Sizes::new(1, 4);
        let ops = || Ops { read: Self::read, write: Self::write, valid: sizes, imp: sizes, ..Ops::default() };
        let io = MemoryRegion::io(self, "rtl8139", SIZE, ops());
        let mem = MemoryRegion::io(self, "rtl8139-mem", SIZE, ops());
        self.register_bar(m, 0, BarKind::Io, &io)?;
        self.register_bar(m, 1, BarKind::Mem32, &mem)?;
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
        *self.regs.rw(m) = Rtl8139Regs::power_on(self.mac.get().0, self.nic.is_link_up());
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
            let up = self.nic.is_link_up();
            *self.regs.rw(m) = Rtl8139Regs::power_on(self.mac.get().0, up);
            self.show_address(m);
            self.timer.arm(m, None);
            self.tx_timer.arm(m, None);
        }
        self.parent_reset(m, phase);
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        if !self.regs.ro(m).is_possible() {
            return Err(Error::generic("rtl8139: impossible state"));
        }
        self.parent_post_load(m)?;
        self.show_address(m);
        let up = self.nic.is_link_up();
        self.regs.rw(m).set_link(up);
        let now = m.clock.now();
        self.tx_timer.arm(m, Some(now));
        self.settle(m);
        self.nic.flush();
        Ok(())
    }
}

impl PciImpl for Rtl8139 {
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
