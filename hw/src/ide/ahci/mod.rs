//! AHCI controller of the ICH9, type `ich9-ahci` (`ahci` on the command line): six ports, each a bus for one IDE drive. Source: AHCI 1.3.1
//! (registers §3, port state machine §5), Intel ICH9 datasheet (316972) §15 (PCI configuration, index and data pair).
//!
//! `regs`: registers; `fis`: what goes over the link and lies in memory; `port`: commands; `ncq`: queued commands. Not modelled: port
//! multipliers, power states of the link, command completion coalescing, enclosure management, staggered spin-up, hot plug of drives.

mod fis;
mod ncq;
mod port;
mod regs;

use super::bus::IdeBus;
use block::Loans;
use hw_core::pci::{BarKind, PciDevice, PciDeviceClass, cap};
use hw_core::{
    Category, DeviceClass, DeviceImpl, Line, Locked, MachineCell, MemoryRegion, Ops, Phase, RunState, Sizes,
    events::VmState,
};
use parking_lot::{Mutex, RwLock};
use port::{Cable, Port};
use qom::{Class, Error, Handle, Level, Object, Ref, Result};
use regs::{HbaRegs, PORT_BASE, PORT_SIZE, PORTS, PortRegs};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Bytes of the registers, and of the index and data pair's ports.
const ABAR: u64 = 0x1000;
const IDP: u64 = 0x20;
/// The pair.
const IDP_INDEX: u64 = 0x10;
const IDP_DATA: u64 = 0x14;
/// Places of the capabilities.
const MSI_CAP: usize = 0x80;
const SATA_CAP: usize = 0xa8;
/// Serial ATA capability, revision 1.0; where the pair is: BAR 4, in words of 4 bytes. AHCI 1.3.1 §2.4
const SATA_REVISION: u16 = 0x10;
const SATA_WHERE: u32 = (IDP_INDEX as u32 / 4) << 4 | 8;
/// Address map register of the ICH9, as AHCI has it: §15.1.26.
const MAP: usize = 0x90;
const MAP_AHCI: u8 = 0x40;

/// Type `ich9-ahci`.
#[derive(Object)]
#[qom(name = "ich9-ahci", parent = PciDevice, methods(DeviceClass), class_init = Ich9Ahci::class_init,
    instance_init = Ich9Ahci::instance_init, interfaces("conventional-pci-device"))]
pub struct Ich9Ahci {
    parent: PciDevice,
    #[state]
    hba: MachineCell<HbaRegs>,
    #[state]
    ports: MachineCell<[PortRegs; PORTS]>,
    buses: RwLock<[Handle<IdeBus>; PORTS]>,
    registers: OnceLock<MemoryRegion>,
    pair: OnceLock<MemoryRegion>,
    update_irq: OnceLock<Line>,
    /// Ports that fetch commands now.
    busy: [AtomicBool; PORTS],
    /// The controller accesses memory: its registers are not among what it reaches.
    is_master: AtomicBool,
    /// Counts, for each port, how often its queued commands were forgotten: what was submitted before belongs to none any more.
    epochs: [AtomicU64; PORTS],
    /// Queued commands that failed and wait for the machine to go on: port, tag.
    held: Mutex<BTreeSet<(usize, u8)>>,
    /// Guest memory that queued commands under way move bytes of: port, tag.
    loans: Loans<(usize, u8)>,
}

impl Ich9Ahci {
    fn class_init(c: &mut Class) {
        let d = c.edit::<DeviceClass>();
        d.alias = Some("ahci");
        d.categories = vec![Category::Storage];
        let p = c.edit::<PciDeviceClass>();
        (p.vendor_id, p.device_id, p.revision) = (0x8086, 0x2922, 2);
        (p.class_id, p.prog_if) = (0x0106, 1);
    }

    fn instance_init(&self) -> Result<()> {
        let ops = Ops { read: Self::read, write: Self::write, imp: Sizes::new(1, 4), ..Ops::default() };
        _ = self.registers.set(MemoryRegion::io(self, "ahci", ABAR, ops));
        let ops = Ops { read: Self::read_pair, write: Self::write_pair, imp: Sizes::new(1, 4), ..Ops::default() };
        _ = self.pair.set(MemoryRegion::io(self, "ahci-idp", IDP, ops));
        // Whoever drives it has the interrupt put on the wire again.
        let line = Line::to(self, 0, |d: &Self, m, _, _| d.put_line(m));
        line.publish(self, "update-irq")?;
        _ = self.update_irq.set(line);
        Ok(())
    }

    fn ports(&self) -> &MachineCell<[PortRegs; PORTS]> {
        &self.ports
    }

    fn all(&self) -> impl Iterator<Item = Port<'_>> {
        (0..PORTS).map(|n| Port { ahci: self, n })
    }

    fn bus(&self, n: usize) -> Option<Ref<IdeBus>> {
        self.buses.read().get(n)?.upgrade()
    }

    // ---- memory ----

    /// Does something as bus master.
    fn as_master<R>(&self, f: impl FnOnce() -> R) -> R {
        let was = self.is_master.swap(true, Ordering::Relaxed);
        let r = f();
        self.is_master.store(was, Ordering::Relaxed);
        r
    }

    /// Reads guest memory; whether somebody answers.
    fn read_memory(&self, m: &mut Locked, addr: u64, buf: &mut [u8]) -> bool {
        self.as_master(|| self.dma_read(m, addr, buf).is_ok())
    }

    /// Writes guest memory; whether somebody answers.
    fn write_memory(&self, m: &mut Locked, addr: u64, data: &[u8]) -> bool {
        self.as_master(|| self.dma_write(m, addr, data).is_ok())
    }

    // ---- what ports are at ----

    /// A port begins to fetch commands; false: it is at that already.
    fn enter(&self, n: usize) -> bool {
        self.busy.get(n).is_some_and(|b| !b.swap(true, Ordering::Relaxed))
    }

    fn leave(&self, n: usize) {
        if let Some(b) = self.busy.get(n) {
            b.store(false, Ordering::Relaxed);
        }
    }

    fn epoch(&self, n: usize) -> u64 {
        self.epochs.get(n).map_or(0, |e| e.load(Ordering::Relaxed))
    }

    fn forget_queued(&self, n: usize) {
        self.loans.take_back(|(port, _)| *port == n);
        if let Some(e) = self.epochs.get(n) {
            e.fetch_add(1, Ordering::Relaxed);
        }
        self.held.lock().retain(|(port, _)| *port != n);
    }

    fn hold(&self, n: usize, tag: u8) {
        self.held.lock().insert((n, tag));
    }

    fn went_on(&self, m: &mut Locked, state: &VmState) {
        if !state.running {
            return;
        }
        let held = std::mem::take(&mut *self.held.lock());
        held.into_iter().for_each(|(n, tag)| Port { ahci: self, n }.run(m, tag));
        self.update_irq(m);
    }

    // ---- interrupts ----

    /// Enters the ports that want to interrupt; which they are, and which of them were not entered yet.
    fn collect(&self, m: &mut Locked) -> (u32, u32) {
        let ports = self.ports.ro(m).iter().enumerate();
        let pending = ports.filter(|(_, p)| p.is_pending()).fold(0, |all, (n, _)| all | 1 << n);
        let r = self.hba.rw(m);
        let new = pending & !r.is;
        r.is |= pending;
        (pending, new)
    }

    /// Ports may have something new to tell.
    fn update_irq(&self, m: &mut Locked) {
        let (_, new) = self.collect(m);
        self.interrupt(m, new != 0);
    }

    /// The guest has acknowledged something: what is left is told again.
    fn acknowledged(&self, m: &mut Locked) {
        let (pending, _) = self.collect(m);
        self.interrupt(m, pending != 0);
    }

    /// Puts the interrupt on the wire, or sends a message if there is news. §10.6.2
    fn interrupt(&self, m: &mut Locked, news: bool) {
        if !self.msi_enabled(m) {
            self.put_line(m);
        } else if news && self.hba.ro(m).is_asserted() {
            self.as_master(|| self.msi_notify(m, 0));
        }
    }

    fn put_line(&self, m: &mut Locked) {
        let level = self.hba.ro(m).is_asserted() && !self.msi_enabled(m);
        self.set_intx(m, level);
    }

    // ---- registers ----

    /// Which port's register is at an offset, and which register that is.
    fn locate(off: u64) -> Option<(usize, u64)> {
        let n = off.checked_sub(PORT_BASE)?;
        Some(((n / PORT_SIZE) as usize, n % PORT_SIZE))
    }

    fn read_long(&self, m: &Locked, off: u64) -> u32 {
        match Self::locate(off) {
            None => self.hba.ro(m).read(off),
            Some((n, register)) => self.ports.ro(m).get(n).map_or(0, |p| p.read(register)),
        }
    }

    fn write_long(&self, m: &mut Locked, off: u64, val: u32) {
        match Self::locate(off) {
            None if self.hba.rw(m).write(off, val) => self.reset_hba(m),
            None => self.acknowledged(m),
            Some((n, register)) => {
                let port = Port { ahci: self, n };
                if n < PORTS {
                    let effect = self.ports.rw(m).get_mut(n).map(|p| p.write(register, val));
                    if PortRegs::interrupts_at(register) {
                        return self.acknowledged(m);
                    }
                    port.act(m, effect.unwrap_or(regs::Effect::None));
                }
            }
        }
    }

    fn read(&self, m: &mut Locked, off: u64, _size: u32) -> u64 {
        if self.is_master.load(Ordering::Relaxed) {
            return u64::MAX;
        }
        u64::from(self.read_long(m, off & !3) >> (8 * (off & 3)))
    }

    /// Bytes beside those that are written keep their value.
    fn write(&self, m: &mut Locked, off: u64, size: u32, val: u64) {
        if self.is_master.load(Ordering::Relaxed) {
            return;
        }
        let (base, shift) = (off & !3, 8 * (off & 3));
        let mask = (((1u64 << (8 * size)) - 1) << shift) as u32;
        let of_ones = match Self::locate(base) {
            None => base == 0x08,
            Some((_, register)) => PortRegs::is_of_ones(register),
        };
        let old = if of_ones { 0 } else { self.read_long(m, base) };
        self.write_long(m, base, old & !mask | (val << shift) as u32 & mask);
    }

    fn read_pair(&self, m: &mut Locked, off: u64, size: u32) -> u64 {
        let index = self.hba.ro(m).index.into();
        match off {
            IDP_INDEX => index,
            IDP_DATA => self.read(m, index, size),
            _ => 0,
        }
    }

    fn write_pair(&self, m: &mut Locked, off: u64, size: u32, val: u64) {
        let index = self.hba.ro(m).index.into();
        match off {
            IDP_INDEX => self.hba.rw(m).index = (val & (ABAR - 1) & !3) as u16,
            IDP_DATA => self.write(m, index, size, val),
            _ => {}
        }
    }

    // ---- resets ----

    /// GHC.HR: all but the bases of lists and FISes. §10.4.3
    fn reset_hba(&self, m: &mut Locked) {
        let r = self.hba.rw(m);
        *r = HbaRegs { index: r.index, ..HbaRegs::default() };
        for p in self.all() {
            p.take_down(m);
            p.edit(m, |r| *r = PortRegs { clb: r.clb, fb: r.fb, ..PortRegs::default() });
            p.bring_up(m, true);
        }
        self.interrupt(m, false);
    }
}

impl DeviceImpl for Ich9Ahci {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        self.set_intx_pin(m, 1);
        let at = self.add_capability(m, cap::SATA, Some(SATA_CAP), 8)?;
        let c = self.config().rw(m);
        c.set_word(at + 2, SATA_REVISION);
        c.set_long(at + 4, SATA_WHERE);
        c.set_byte(MAP, MAP_AHCI);
        self.msi_init(m, Some(MSI_CAP), 1, true, false)?;
        for (n, kind, region) in [(4, BarKind::Io, &self.pair), (5, BarKind::Mem32, &self.registers)] {
            let region = region.get().ok_or("ich9-ahci has no registers")?;
            self.register_bar(m, n, kind, region)?;
        }
        for n in 0..PORTS {
            let bus = IdeBus::create(self, None, n as u32)?;
            bus.set_channel(Arc::new(Cable { ahci: self.this(), n }));
            if let Some(slot) = self.buses.write().get_mut(n) {
                *slot = Handle::new(Ref::object(&bus)).unwrap_or_default();
            }
        }
        self.core().events.vm_state.add_for(self, Ich9Ahci::went_on);
        Ok(())
    }

    fn unrealize(&self, m: &mut Locked) {
        for p in self.all() {
            p.forget(m);
        }
        self.parent_unrealize(m);
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        self.parent_reset(m, phase);
        match phase {
            Phase::Enter => {
                *self.hba.rw(m) = HbaRegs::default();
                for p in self.all() {
                    p.forget(m);
                    let device = p.drive().is_some();
                    p.edit(m, |r| {
                        *r = PortRegs::default();
                        r.link_up(device, false);
                    });
                }
            }
            Phase::Hold => self.put_line(m),
            Phase::Exit => {}
        }
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        self.ports.ro(m).iter().try_for_each(PortRegs::check).map_err(Error::generic)?;
        if u64::from(self.hba.ro(m).index) >= ABAR || self.hba.ro(m).index & 3 != 0 {
            return Err(Error::generic("AHCI: impossible state"));
        }
        self.parent_post_load(m)?;
        for p in self.all() {
            self.forget_queued(p.n);
            if self.core().requests.state() == RunState::IoError {
                let tags: Vec<u8> = p.regs(m, |r| r.queued.keys().copied().collect());
                tags.into_iter().for_each(|tag| self.hold(p.n, tag));
            } else {
                p.run_all(m);
            }
        }
        self.put_line(m);
        Ok(())
    }
}
