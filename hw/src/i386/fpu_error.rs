//! How x87 errors interrupt on a PC when CR0.NE = 0: FERR# sets a latch that is IRQ 13, a write to port F0H clears it and asserts
//! IGNNE# until FERR# falls. Source: Intel SDM vol. 1 appendix D.2.1; IBM PC AT Technical Reference, port F0H.
//!
//! The wires of all processors are one: FERR# is what the last of them drove, IGNNE# reaches them all.

use super::machine::PcMachine;
use hw_core::{Line, Locked, MemoryRegion, Ops, Sizes, cpu::FpuError};
use qom::{Handle, Level};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const PORT: u64 = 0xf0;

/// The board's flip-flops.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FpuErrorLatch {
    ferr: bool,
    irq13: bool,
    ignne: bool,
}

impl FpuErrorLatch {
    /// FERR# is driven.
    fn drive(&mut self, level: bool) {
        self.irq13 |= level && !self.ferr && !self.ignne;
        self.ferr = level;
        self.ignne &= level;
    }

    /// Port F0H is written.
    fn clear(&mut self) {
        self.irq13 = false;
        self.ignne = self.ferr;
    }
}

/// FERR# and IGNNE# of the processors.
struct Wires(Handle<PcMachine>);

impl FpuError for Wires {
    fn ferr(&self, m: &mut Locked, level: bool) -> bool {
        self.0.with(|pc| change(pc, m, |l| l.drive(level))).unwrap_or(true)
    }
}

/// Changes the latch and drives IRQ 13; whether IGNNE# is asserted.
fn change(pc: &PcMachine, m: &mut Locked, f: impl FnOnce(&mut FpuErrorLatch)) -> bool {
    let latch = pc.fpu_error.rw(m);
    f(latch);
    let (irq13, ignne) = (latch.irq13, latch.ignne);
    let line = pc.board.read().irq13.clone();
    if let Some(line) = line {
        line.set(m, irq13);
    }
    ignne
}

/// Port F0H and the wires to the processors; `irq13` is the interrupt controllers' input.
pub(super) fn create(pc: &PcMachine, m: &mut Locked, io: &MemoryRegion, irq13: Line) {
    pc.board.write().irq13 = Some(irq13);
    let core = pc.core();
    core.set_fpu_error(Arc::new(Wires(pc.this())));
    let machine = pc.this();
    core.resets.add_hook(move |m| {
        machine.with(|pc: &PcMachine| change(pc, m, |l| *l = FpuErrorLatch::default()));
    });
    let ops: Ops<PcMachine> = Ops {
        // Reads give all ones.
        read: |_, _, _, _| u64::MAX,
        write: |pc, m, _, _, _| _ = change(pc, m, FpuErrorLatch::clear),
        imp: Sizes::new(1, 1),
        ..Ops::default()
    };
    io.add_subregion(m, PORT, &MemoryRegion::io(pc, "ioportF0", 1, ops));
}

#[cfg(test)]
mod tests {
    use super::FpuErrorLatch;

    #[test]
    fn a_write_to_the_port_exchanges_the_interrupt_for_ignne() {
        let mut l = FpuErrorLatch::default();
        l.clear();
        assert_eq!(l, FpuErrorLatch::default());
        l.drive(true);
        assert_eq!((l.irq13, l.ignne), (true, false));
        l.clear();
        assert_eq!((l.irq13, l.ignne), (false, true));
        // No second interrupt while FERR# stays.
        l.drive(true);
        assert!(!l.irq13);
        l.drive(false);
        assert_eq!(l, FpuErrorLatch::default());
        // The latch outlives FERR#.
        l.drive(true);
        l.drive(false);
        assert_eq!((l.irq13, l.ignne), (true, false));
    }
}
