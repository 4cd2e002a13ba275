//! The teaching device, type `edu`: an inverter, a slow factorial, interrupts by line or message, a DMA engine.
//! Source: QEMU's `docs/specs/edu.rst` (registers) and the behaviour of its device where the text is silent.
//! Differences: a transfer that leaves the device's buffer moves nothing; the factorial takes a fixed time by the machine's clock
//! instead of a thread's; a reset clears the registers, which QEMU's device keeps.

use hw_core::{
    Category, DeviceClass, DeviceImpl, Locked, MachineCell, MemoryRegion, Ops, Phase, Sizes, Timer,
    pci::{BarKind, PciDevice, PciDeviceClass},
};
use qom::{Error, Object, Prop, Result};
use serde::{Deserialize, Serialize};

/// Identification: version 1.0, "edu".
const ID: u32 = 0x0100_00ed;
/// Status: a factorial is being computed.
const COMPUTING: u32 = 1 << 0;
/// Status: interrupt when it is done.
const IRQFACT: u32 = 1 << 7;
/// Interrupt status set by a finished factorial.
const FACT_IRQ: u32 = 1 << 0;
/// Interrupt status set by a finished transfer.
const DMA_IRQ: u32 = 1 << 8;
/// DMA command: start, and running.
const RUN: u64 = 1 << 0;
/// DMA command: from the device to memory instead of the other way.
const TO_MEMORY: u64 = 1 << 1;
/// DMA command: interrupt at the end.
const DMA_RAISES: u64 = 1 << 2;
/// Where the device's buffer begins in its own addresses, and its length.
const BUFFER: u64 = 0x4_0000;
const BUFFER_LEN: usize = 4096;
/// First of the registers that are also 64 bits wide.
const WIDE: u64 = 0x80;
/// How long a transfer takes, ns.
const DMA_TIME: u64 = 100_000_000;
/// How long a factorial takes, ns: long enough that a driver that does not wait notices.
const FACT_TIME: u64 = 100_000;

/// DMA registers, offsets 80H to 98H.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Dma {
    src: u64,
    dst: u64,
    cnt: u64,
    cmd: u64,
}

/// All that the guest can observe and a snapshot must keep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EduRegs {
    /// Offset 04H: the complement of what was written.
    liveness: u32,
    /// Offset 08H: the number, then its factorial.
    fact: u32,
    /// Offset 20H.
    status: u32,
    /// Offset 24H.
    irq_status: u32,
    dma: Dma,
    buffer: Vec<u8>,
    /// When the factorial and the transfer are done, virtual ns.
    fact_at: Option<u64>,
    dma_at: Option<u64>,
}

impl Default for EduRegs {
    fn default() -> Self {
        EduRegs {
            liveness: 0,
            fact: 0,
            status: 0,
            irq_status: 0,
            dma: Dma::default(),
            buffer: vec![0; BUFFER_LEN],
            fact_at: None,
            dma_at: None,
        }
    }
}

/// What a write asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Effect {
    None,
    Raise(u32),
    Lower(u32),
    /// One of the two deadlines is new.
    Timers,
}

/// A transfer: guest address, place in the buffer, length.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Transfer {
    addr: u64,
    at: usize,
    len: usize,
    to_memory: bool,
}

/// Factorial in 32 bits, high bits lost.
fn factorial(n: u32) -> u32 {
    // 34! is the first that has 32 factors of two: all further ones are 0.
    if n >= 34 { 0 } else { (1..=n).fold(1, u32::wrapping_mul) }
}

impl EduRegs {
    /// Reads `size` bytes, 4 or 8, at `off`; all ones where there is nothing.
    fn read(&self, off: u64, size: u32) -> u64 {
        if off < WIDE && size != 4 {
            return u64::MAX;
        }
        match off {
            0x00 => ID.into(),
            0x04 => self.liveness.into(),
            0x08 => self.fact.into(),
            0x20 => self.status.into(),
            0x24 => self.irq_status.into(),
            0x80 => self.dma.src,
            0x88 => self.dma.dst,
            0x90 => self.dma.cnt,
            0x98 => self.dma.cmd,
            _ => u64::MAX,
        }
    }

    /// Writes `size` bytes, 4 or 8, at `off`.
    fn write(&mut self, now: u64, off: u64, size: u32, val: u64) -> Effect {
        if off < WIDE && size != 4 {
            return Effect::None;
        }
        let idle = self.dma.cmd & RUN == 0;
        match off {
            0x04 => self.liveness = !(val as u32),
            0x08 if self.status & COMPUTING == 0 => {
                self.fact = val as u32;
                self.status |= COMPUTING;
                self.fact_at = Some(now.saturating_add(FACT_TIME));
                return Effect::Timers;
            }
            0x20 => self.status = self.status & !IRQFACT | val as u32 & IRQFACT,
            0x60 => return Effect::Raise(val as u32),
            0x64 => return Effect::Lower(val as u32),
            0x80 if idle => self.dma.src = val,
            0x88 if idle => self.dma.dst = val,
            0x90 if idle => self.dma.cnt = val,
            0x98 if val & RUN != 0 => {
                if idle {
                    self.dma.cmd = val;
                }
                // A second start delays a transfer under way.
                self.dma_at = Some(now.saturating_add(DMA_TIME));
                return Effect::Timers;
            }
            _ => {}
        }
        Effect::None
    }

    /// The factorial is done: whether it interrupts.
    fn fact_done(&mut self) -> bool {
        self.fact_at = None;
        self.fact = factorial(self.fact);
        self.status &= !COMPUTING;
        self.status & IRQFACT != 0
    }

    /// The transfer the registers describe; `None`: it would leave the buffer.
    fn transfer(&self, mask: u64) -> Option<Transfer> {
        let to_memory = self.dma.cmd & TO_MEMORY != 0;
        let (own, addr) = if to_memory { (self.dma.src, self.dma.dst) } else { (self.dma.dst, self.dma.src) };
        let at = usize::try_from(own.checked_sub(BUFFER)?).ok()?;
        let len = usize::try_from(self.dma.cnt).ok()?;
        (at.checked_add(len)? <= BUFFER_LEN).then_some(Transfer { addr: addr & mask, at, len, to_memory })
    }

    /// The transfer is over: whether it interrupts.
    fn dma_done(&mut self) -> bool {
        self.dma_at = None;
        self.dma.cmd &= !RUN;
        self.dma.cmd & DMA_RAISES != 0
    }
}

/// Type `edu`.
#[derive(Object)]
#[qom(name = "edu", parent = PciDevice, methods(DeviceClass), interfaces("conventional-pci-device"),
    class_init = Edu::class_init, instance_init = Edu::instance_init)]
pub struct Edu {
    parent: PciDevice,
    #[property(name = "dma_mask", live)]
    dma_mask: Prop<u64>,
    #[state]
    regs: MachineCell<EduRegs>,
    fact_timer: Timer,
    dma_timer: Timer,
}

impl Edu {
    fn class_init(c: &mut qom::Class) {
        c.edit::<DeviceClass>().categories = vec![Category::Misc];
        let p = c.edit::<PciDeviceClass>();
        (p.vendor_id, p.device_id, p.revision, p.class_id) = (0x1234, 0x11e8, 0x10, 0x00ff);
    }

    fn instance_init(&self) -> Result<()> {
        self.dma_mask.set(0x0fff_ffff); // as on QEMU no default of the type
        self.fact_timer.init(self, Self::fact_expired);
        self.dma_timer.init(self, Self::dma_expired);
        Ok(())
    }

    fn raise(&self, m: &mut Locked, bits: u32) {
        let regs = self.regs.rw(m);
        regs.irq_status |= bits;
        if regs.irq_status == 0 {
            return;
        }
        if self.msi_enabled(m) {
            self.msi_notify(m, 0);
        } else {
            self.set_intx(m, true);
        }
    }

    fn lower(&self, m: &mut Locked, bits: u32) {
        let regs = self.regs.rw(m);
        regs.irq_status &= !bits;
        if regs.irq_status == 0 && !self.msi_enabled(m) {
            self.set_intx(m, false);
        }
    }

    fn arm(&self, m: &mut Locked) {
        let (fact, dma) = (self.regs.ro(m).fact_at, self.regs.ro(m).dma_at);
        self.fact_timer.arm(m, fact);
        self.dma_timer.arm(m, dma);
    }

    fn fact_expired(&self, m: &mut Locked) {
        if self.regs.rw(m).fact_done() {
            self.raise(m, FACT_IRQ);
        }
    }

    fn dma_expired(&self, m: &mut Locked) {
        match self.regs.ro(m).transfer(self.dma_mask.get()) {
            None => tracing::debug!(target: "guest_errors", "edu: DMA out of the device's buffer"),
            Some(t) => {
                let mut data = vec![0; t.len];
                let place = t.at..t.at.saturating_add(t.len);
                let done = if t.to_memory {
                    if let Some(from) = self.regs.ro(m).buffer.get(place) {
                        data.copy_from_slice(from);
                    }
                    self.dma_write(m, t.addr, &data)
                } else {
                    let done = self.dma_read(m, t.addr, &mut data);
                    if let Some(to) = self.regs.rw(m).buffer.get_mut(place) {
                        to.copy_from_slice(&data);
                    }
                    done
                };
                if let Err(e) = done {
                    tracing::debug!(target: "guest_errors", "edu: DMA failed: {e}");
                }
            }
        }
        if self.regs.rw(m).dma_done() {
            self.raise(m, DMA_IRQ);
        }
    }

    fn read(&self, m: &mut Locked, off: u64, size: u32) -> u64 {
        self.regs.ro(m).read(off, size)
    }

    fn write(&self, m: &mut Locked, off: u64, size: u32, val: u64) {
        let now = m.clock.now();
        match self.regs.rw(m).write(now, off, size, val) {
            Effect::None => {}
            Effect::Raise(bits) => self.raise(m, bits),
            Effect::Lower(bits) => self.lower(m, bits),
            Effect::Timers => self.arm(m),
        }
    }
}

impl DeviceImpl for Edu {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        self.parent_realize(m)?;
        self.set_intx_pin(m, 1);
        self.msi_init(m, None, 1, true, false)?;
        let sizes = Sizes::new(4, 8);
        let ops = Ops { read: Self::read, write: Self::write, valid: sizes, imp: sizes, ..Ops::default() };
        let bar = MemoryRegion::io(self, "edu-mmio", 1 << 20, ops);
        self.register_bar(m, 0, BarKind::Mem32, &bar)
    }

    fn unrealize(&self, m: &mut Locked) {
        self.fact_timer.arm(m, None);
        self.dma_timer.arm(m, None);
        self.parent_unrealize(m);
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        if phase == Phase::Enter {
            *self.regs.rw(m) = EduRegs::default();
            self.arm(m);
        }
        self.parent_reset(m, phase);
    }

    fn post_load(&self, m: &mut Locked) -> Result<()> {
        if self.regs.ro(m).buffer.len() != BUFFER_LEN {
            return Err(Error::generic("edu: buffer of another size"));
        }
        self.arm(m);
        self.parent_post_load(m)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factorials_lose_their_high_bits() {
        assert_eq!([0, 1, 5, 12, 13].map(factorial), [1, 1, 120, 479_001_600, 1_932_053_504]);
        assert_eq!((factorial(33), factorial(34), factorial(u32::MAX)), (1 << 31, 0, 0));
    }

    #[test]
    fn a_transfer_stays_in_the_buffer_and_under_the_mask() {
        let mut r = EduRegs::default();
        for (off, v) in [(0x80, 0xf_1234_5000), (0x88, BUFFER + 0xf00), (0x90, 0x100)] {
            assert_eq!(r.write(0, off, 8, v), Effect::None);
        }
        assert_eq!(r.write(7, 0x98, 4, 0), Effect::None);
        assert_eq!(r.write(7, 0x98, 4, RUN), Effect::Timers);
        assert_eq!(r.dma_at, Some(7 + DMA_TIME));
        let t = Transfer { addr: 0x0234_5000, at: 0xf00, len: 0x100, to_memory: false };
        assert_eq!(r.transfer(0x0fff_ffff), Some(t));
        // Running: the registers are locked.
        _ = r.write(0, 0x90, 8, 0x101);
        assert_eq!(r.read(0x90, 4), 0x100);
        assert!(!r.dma_done());
        _ = r.write(0, 0x90, 8, 0x101);
        assert_eq!(r.transfer(u64::MAX), None);
        _ = r.write(0, 0x88, 8, 0);
        assert_eq!(r.transfer(u64::MAX), None);
    }

    #[test]
    fn narrow_and_wide_registers() {
        let mut r = EduRegs::default();
        assert_eq!((r.read(0, 4), r.read(0, 8), r.read(0x40, 4)), (0x0100_00ed, u64::MAX, u64::MAX));
        _ = r.write(0, 4, 4, 0x1234_5678);
        _ = r.write(0, 4, 8, 0);
        assert_eq!(r.read(4, 4), 0xedcb_a987);
        assert_eq!(r.write(0, 0x08, 4, 4), Effect::Timers);
        assert_eq!((r.read(0x20, 4), r.write(0, 0x08, 4, 9)), (1, Effect::None));
        _ = r.write(0, 0x20, 4, 0xff);
        assert!(r.fact_done());
        assert_eq!((r.read(0x08, 4), r.read(0x20, 4)), (24, 0x80));
    }
}
