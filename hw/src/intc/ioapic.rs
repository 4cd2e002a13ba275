//! I/O APIC, type `ioapic` below `ioapic-common`. Registers: [`super::ioapic_regs`].
//!
//! Interrupts leave as writes to the message window of the local APICs. Input 0 is wired to pin 2, as on every PC whose timer comes
//! in on ISA line 0.

use hw_core::{DeviceClass, DeviceImpl, Locked, MachineCell, MemoryRegion, Ops, Phase, Sizes, SysBusDevice};
use qom::{Error, Level, Object, Prop, Result};

use super::apic::apic_bus;
use super::ioapic_regs::{IoapicRegs, Message, PINS};
use super::stats::InterruptStats;

/// Type `ioapic-common`.
#[derive(Object)]
#[qom(name = "ioapic-common", parent = SysBusDevice, abstract, interfaces(dyn InterruptStats), class_init = IoapicCommon::class_init)]
pub struct IoapicCommon {
    parent: SysBusDevice,
    #[state]
    regs: MachineCell<IoapicRegs>,
    #[state]
    counts: MachineCell<[u64; PINS]>,
}

impl IoapicCommon {
    fn class_init(c: &mut qom::Class) {
        let d = c.edit::<DeviceClass>();
        d.user_creatable = false;
    }
}

impl InterruptStats for IoapicCommon {
    fn print_info(&self, m: &mut Locked) -> String {
        let r = self.regs.ro(m);
        let mut out = format!("ioapic0: ver=0x20 id={:#04x} sel={:#04x}\n", r.id, r.ioregsel);
        for (n, e) in r.ioredtbl.iter().enumerate() {
            let mode = ["fixed", "lowest", "SMI", "...", "NMI", "INIT", "...", "extINT"];
            out += &format!(
                "  pin {n:<2} {:#018x} dest={:x} vec={:<3} {}{}{}{}\n",
                e.into_bits(),
                e.dest_index() >> 8,
                e.intvec(),
                if e.trigger_mode() { "level " } else { "edge  " },
                if e.interrupt_mask() { "masked " } else { "" },
                mode.get(usize::from(e.delmod())).unwrap_or(&""),
                if e.destmod() { " logical" } else { " physical" },
            );
        }
        out + &format!("  IRR {:#x}\n", r.irr)
    }
    fn statistics(&self, m: &mut Locked) -> Vec<u64> {
        self.counts.ro(m).to_vec()
    }
}

/// Type `ioapic`.
#[derive(Object)]
#[qom(name = "ioapic", parent = IoapicCommon, methods(DeviceClass))]
pub struct Ioapic {
    parent: IoapicCommon,
    #[property(default = 0x20)]
    version: Prop<u8>,
}

impl Ioapic {
    fn on_pin(&self, m: &mut Locked, n: usize, level: bool) {
        let n = if n == 0 { 2 } else { n };
        // A level that is set again is no new interrupt: loading a snapshot does it to all of them.
        let rises = level && !self.regs.ro(m).level(n);
        if rises && let Some(c) = self.counts.rw(m).get_mut(n) {
            *c += 1;
        }
        let out = self.regs.rw(m).set_pin(n, level);
        self.send(m, out);
    }

    fn send(&self, m: &mut Locked, messages: Vec<Message>) {
        for msg in messages {
            let vector = if msg.extint { self.core().pic_acknowledge(m) } else { None };
            let data = vector.map_or(msg.data, |v| msg.data & !0xff | u32::from(v));
            if let Err(e) = self.core().memory.store(m, msg.addr, 4, data.into()) {
                tracing::debug!(pin = msg.pin, "no local APIC takes the interrupt: {e}");
            }
        }
    }

    /// End of interrupt for `vector`, seen on the bus of the local APICs that the I/O APIC joined when it was realized.
    pub fn eoi(&self, m: &mut Locked, vector: u8) {
        let out = self.regs.rw(m).eoi(vector);
        self.send(m, out);
    }

    fn read(&self, m: &mut Locked, off: u64, size: u32) -> u64 {
        self.regs.ro(m).read(off, size, self.version.get()).into()
    }

    fn write(&self, m: &mut Locked, off: u64, size: u32, val: u64) {
        let out = self.regs.rw(m).write(off, size, val as u32, self.version.get());
        self.send(m, out);
    }
}

impl DeviceImpl for Ioapic {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        if !matches!(self.version.get(), 0x11 | 0x20) {
            return Err(Error::generic("IOAPIC only supports version 0x11 or 0x20 (default: 0x20)."));
        }
        self.parent_realize(m)?;
        self.gpio_in("", PINS, Self::on_pin);
        let imp = Sizes::new(1, 4);
        let ops = Ops { read: Self::read, write: Self::write, imp, ..Ops::default() };
        self.init_mmio(&MemoryRegion::io(self, "ioapic", 0x1000, ops));
        if let Some(bus) = apic_bus(self.scope()) {
            bus.add_ioapic(self.this());
        }
        Ok(())
    }

    fn reset(&self, m: &mut Locked, phase: Phase) {
        if phase == Phase::Enter {
            self.regs.rw(m).reset();
        }
        self.parent_reset(m, phase);
    }
}
