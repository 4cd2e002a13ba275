//! DMA controller of the PC, type `i8257`. Registers: [`super::i8257_regs`].
//!
//! A channel runs when it is requested and unmasked: the client registered for it is called and moves bytes with
//! [`IsaDma::read_memory`] and [`IsaDma::write_memory`]. Nothing polls: a channel whose client made no progress runs again when the client asks
//! (`hold_dreq`, `schedule`) or the guest unmasks it.

use hw_core::isa::{IsaDma, TransferHandler};
use hw_core::{DeviceClass, DeviceImpl, IsaDevice, Locked, MachineCell, MemoryRegion, Ops, Phase, Sizes};
use parking_lot::RwLock;
use qom::{Error, ObjRef, Object, Prop, Ref, Result};
use std::sync::atomic::{AtomicBool, Ordering};

use super::i8257_regs::I8257Regs;

/// Transfer types of the mode register.
const VERIFY: u8 = 0;
const WRITE: u8 = 1;
const READ: u8 = 2;

/// Type `i8257`.
#[derive(Object)]
#[qom(name = "i8257", parent = IsaDevice, methods(DeviceClass), interfaces(dyn IsaDma), class_init = I8257::class_init)]
pub struct I8257 {
    parent: IsaDevice,
    #[property(default = 0)]
    base: Prop<i32>,
    #[property(default = 0x80)]
    page_base: Prop<i32>,
    #[property(default = 0x480)]
    pageh_base: Prop<i32>,
    #[property(default = 0)]
    dshift: Prop<i32>,
    #[state]
    regs: MachineCell<I8257Regs>,
    clients: RwLock<[Option<TransferHandler>; 4]>,
    running: AtomicBool,
    again: AtomicBool,
}

impl I8257 {
    fn class_init(c: &mut qom::Class) {
        let d = c.edit::<DeviceClass>();
        d.user_creatable = false;
        d.hotpluggable = false;
    }

    fn shift(&self) -> u32 {
        (self.dshift.get() & 1) as u32
    }

    fn read_chan(&self, m: &mut Locked, off: u64, _size: u32) -> u64 {
        let reg = off >> self.shift();
        self.regs.rw(m).read_channel(reg).into()
    }

    fn write_chan(&self, m: &mut Locked, off: u64, _size: u32, val: u64) {
        let reg = off >> self.shift();
        self.regs.rw(m).write_channel(reg, val as u8);
    }

    fn read_cont(&self, m: &mut Locked, off: u64, _size: u32) -> u64 {
        let reg = off >> self.shift();
        self.regs.rw(m).read_control(reg).into()
    }

    fn write_cont(&self, m: &mut Locked, off: u64, _size: u32, val: u64) {
        let reg = off >> self.shift();
        if self.regs.rw(m).write_control(reg, val as u8) {
            self.run(m);
        }
    }

    // Page registers stand at 1 to 3 and 7 of their bank.
    fn read_page_low(&self, m: &mut Locked, off: u64, _size: u32) -> u64 {
        self.regs.ro(m).read_page(off + 1, false).into()
    }
    fn write_page_low(&self, m: &mut Locked, off: u64, _size: u32, val: u64) {
        self.regs.rw(m).write_page(off + 1, false, val as u8);
    }
    fn read_page_7(&self, m: &mut Locked, _off: u64, _size: u32) -> u64 {
        self.regs.ro(m).read_page(7, false).into()
    }
    fn write_page_7(&self, m: &mut Locked, _off: u64, _size: u32, val: u64) {
        self.regs.rw(m).write_page(7, false, val as u8);
    }
    fn read_high_low(&self, m: &mut Locked, off: u64, _size: u32) -> u64 {
        self.regs.ro(m).read_page(off + 1, true).into()
    }
    fn write_high_low(&self, m: &mut Locked, off: u64, _size: u32, val: u64) {
        self.regs.rw(m).write_page(off + 1, true, val as u8);
    }
    fn read_high_7(&self, m: &mut Locked, _off: u64, _size: u32) -> u64 {
        self.regs.ro(m).read_page(7, true).into()
    }
    fn write_high_7(&self, m: &mut Locked, _off: u64, _size: u32, val: u64) {
        self.regs.rw(m).write_page(7, true, val as u8);
    }

    /// Runs every channel that is ready, once.
    fn run(&self, m: &mut Locked) {
        if self.running.swap(true, Ordering::Relaxed) {
            self.again.store(true, Ordering::Relaxed); // a client asks from inside its transfer
            return;
        }
        loop {
            self.again.store(false, Ordering::Relaxed);
            for n in 0..4 {
                if self.regs.ro(m).ready() & 1 << n != 0 {
                    self.run_channel(m, n);
                }
            }
            if !self.again.load(Ordering::Relaxed) {
                break;
            }
        }
        self.running.store(false, Ordering::Relaxed);
    }

    fn run_channel(&self, m: &mut Locked, n: usize) {
        let (shift, client) = (self.shift(), self.clients.read().get(n).cloned().flatten());
        let (done, total) = self.regs.ro(m).progress(n, shift);
        let moved = match client {
            Some(client) => client(m, n + if shift == 0 { 0 } else { 4 }, done, total),
            // Nobody answers DACK. A verify cycle needs no data and counts down all the same.
            None if self.transfer(m, n) == VERIFY => total,
            None => return,
        };
        if moved > done {
            self.regs.rw(m).advance_to(n, moved, shift);
        }
    }

    fn transfer(&self, m: &Locked, n: usize) -> u8 {
        self.regs.ro(m).channels.get(n & 3).map_or(VERIFY, |c| c.mode.transfer())
    }
}

impl IsaDma for I8257 {
    fn has_autoinitialization(&self, m: &mut Locked, channel: usize) -> bool {
        self.regs.ro(m).channels.get(channel & 3).is_some_and(|c| c.mode.autoinit())
    }

    fn read_memory(&self, m: &mut Locked, channel: usize, buf: &mut [u8], pos: u32) -> usize {
        let (n, shift) = (channel & 3, self.shift());
        let reading = self.transfer(m, n) == READ;
        let mut at = 0;
        while let Some(rest) = buf.get_mut(at..).filter(|r| !r.is_empty()) {
            let Some(span) = self.regs.ro(m).span(n, pos.wrapping_add(at as u32), rest.len(), shift) else { break };
            let Some(part) = rest.get_mut(..span.len) else { break };
            if !reading || self.core().memory.read(m, span.addr, part).is_err() {
                part.fill(0xff); // nobody drives the bus
            } else if span.reversed {
                part.reverse();
            }
            at += span.len;
        }
        at
    }

    fn write_memory(&self, m: &mut Locked, channel: usize, buf: &[u8], pos: u32) -> usize {
        let (n, shift) = (channel & 3, self.shift());
        let writing = self.transfer(m, n) == WRITE;
        let mut at = 0;
        while let Some(rest) = buf.get(at..).filter(|r| !r.is_empty()) {
            let Some(span) = self.regs.ro(m).span(n, pos.wrapping_add(at as u32), rest.len(), shift) else { break };
            let Some(part) = rest.get(..span.len) else { break };
            let mut bytes = part.to_vec();
            if span.reversed {
                bytes.reverse();
            }
            if writing && let Err(e) = self.core().memory.write(m, span.addr, &bytes) {
                tracing::debug!(target: "guest_errors", channel, addr = span.addr, "DMA write to nowhere: {e}");
            }
            at += span.len;
        }
        at
    }

    fn hold_dreq(&self, m: &mut Locked, channel: usize) {
        self.regs.rw(m).dreq |= 1 << (channel & 3);
        self.run(m);
    }

    fn release_dreq(&self, m: &mut Locked, channel: usize) {
        self.regs.rw(m).dreq &= !(1 << (channel & 3));
    }

    fn schedule(&self, m: &mut Locked) {
        self.run(m);
    }

    fn register_channel(&self, channel: usize, handler: TransferHandler) {
        if let Some(c) = self.clients.write().get_mut(channel & 3) {
            *c = Some(handler);
        }
    }
}

impl DeviceImpl for I8257 {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        if !matches!(self.dshift.get(), 0 | 1) {
            return Err(Error::generic(format!("i8257: property 'dshift' is 0 or 1, not {}", self.dshift.get())));
        }
        let port = |p: i32| u64::try_from(p).map_err(|_| Error::generic(format!("i8257: no I/O port {p}")));
        let imp = Sizes::new(1, 1);
        let size = 8u64 << self.shift();
        let ops = Ops { read: Self::read_chan, write: Self::write_chan, imp, ..Ops::default() };
        self.map_io(m, port(self.base.get())?, &MemoryRegion::io(self, "dma-chan", size, ops))?;
        let page = port(self.page_base.get())?;
        let ops = Ops { read: Self::read_page_low, write: Self::write_page_low, imp, ..Ops::default() };
        self.map_io(m, page + 1, &MemoryRegion::io(self, "dma-page", 3, ops))?;
        let ops = Ops { read: Self::read_page_7, write: Self::write_page_7, imp, ..Ops::default() };
        self.map_io(m, page + 7, &MemoryRegion::io(self, "dma-page", 1, ops))?;
        if let Ok(high) = port(self.pageh_base.get()) {
            let ops = Ops { read: Self::read_high_low, write: Self::write_high_low, imp, ..Ops::default() };
            self.map_io(m, high + 1, &MemoryRegion::io(self, "dma-pageh", 3, ops))?;
            let ops = Ops { read: Self::read_high_7, write: Self::write_high_7, imp, ..Ops::default() };
            self.map_io(m, high + 7, &MemoryRegion::io(self, "dma-pageh", 1, ops))?;
        }
        let ops = Ops { read: Self::read_cont, write: Self::write_cont, imp, ..Ops::default() };
        self.map_io(m, port(self.base.get())? + size, &MemoryRegion::io(self, "dma-cont", size, ops))
    }

    fn unrealize(&self, m: &mut Locked) {
        self.unmap_io(m);
        self.parent_unrealize(m);
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        if phase == Phase::Enter {
            self.regs.rw(m).master_clear();
        }
        self.parent_reset(m, phase);
    }
}

/// The PC's two controllers, realized on `bus` as children `dma[0]` and `dma[1]` of `owner`, and made the bus's. `high_page`: EISA
/// high page registers.
///
/// # Errors
/// As realizing a device.
pub fn i8257_dma_init(m: &mut Locked, owner: &ObjRef, bus: &Ref<hw_core::IsaBus>, high_page: bool) -> Result<()> {
    let mut pair = vec![];
    for (base, page, pageh, dshift) in [(0x00, 0x80, 0x480, 0), (0xc0, 0x88, 0x488, 1)] {
        let dev = bus.scope().object_new_as::<I8257>("i8257")?;
        dev.base.set(base);
        dev.page_base.set(page);
        dev.pageh_base.set(if high_page { pageh } else { -1 });
        dev.dshift.set(dshift);
        owner.add_child("dma[*]", Ref::object(&dev))?;
        let on = Ref::new(Ref::object(bus).clone()).ok_or("not a bus")?;
        dev.realize_on(m, &on)?;
        pair.push(Ref::into_object(dev));
    }
    if let [low, high] = pair.as_slice() {
        bus.set_dma(low, high);
    }
    Ok(())
}
